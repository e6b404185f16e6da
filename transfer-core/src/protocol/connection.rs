//! One connection: a pair of process id entries and their pointer tables, seen from one side.
//!
//! ```text
//!  initiator                                  connector
//!  Requesting   entry REQ is being written    Answering    entry ANS is being written
//!      |  written                                 |  written
//!  Calling      beacon shows the call,        Answered     in-directory shows the answer;
//!      |        in-directory is polled            |        the initiator's entry is polled
//!      |  answer opens                            |
//!  Establishing entry EST is being written        |  EST opens under the keys
//!      |  written                                 |
//!      +------------> Established <---------------+      only pointer tables are polled and published
//!                         |  drained, closed by the peer, peer lost, error
//!                      Ending     entry CLOSED, then table CLOSED
//!                         |  written (or in doubt)
//!                       Ended      the slot can be used again
//! ```
//!
//! What holds in Established: every record taken is sealed under this connection's keys and newer than
//! the last one; exactly one table write is in flight; commands are taken once and in order. Before
//! Established nothing that lasts has happened on the connector's side. Not here: segments
//! (`writer`, `reader`), who may connect (`endpoint`).

#[doc(hidden)]
pub mod command;
mod own_view;
mod peer_view;
#[cfg(test)]
mod tests;
mod time;

use std::collections::VecDeque;
use std::time::Duration;

use storage_mapping::{Buffer, BufferPool, Instant, SharedBuffer};
use volume::record::Text;
use volume::{BlockAddress, Layout};

use self::command::PendingCommand;
use super::endpoint::{Event, Identity, Output};
use super::handshake::{Binding, Hello, Initiating, Session};
use super::pair::{PairReader, PairWriter};
use super::pool::SegmentPool;
use super::reader::Reader;
use super::seal::{DirectionKeys, SealDone};
use super::timer::Backoff;
use super::writer::Writer;
use crate::format::host_table::HostRecord;
use crate::format::process_id_table::{COMMAND_BODY_MAX_BYTES, CloseReason, CommandStructure, Role};
use crate::payload::Segment;
use crate::random::Random;

/// A local name of a connection; never on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What a connection's I/O was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionIo {
    /// Own process id entry written.
    OwnEntry(u64),
    /// Own pointer table written.
    OwnTable(u64),
    /// The peer's process id entry read.
    PeerEntry,
    /// The peer's pointer table read.
    PeerTable,
    /// The connector's in-directory read.
    InDirectory,
    /// A segment written: sequence number and attempt.
    SegmentWrite(u64, u16),
    /// A segment read: sequence number and attempt.
    SegmentRead(u64, u16),
}

/// A read or a write that the endpoint asks for.
#[derive(Debug)]
pub enum IoCommand {
    /// Read `length` bytes.
    Read {
        /// Where.
        address: BlockAddress,
        /// Bytes.
        length: usize,
    },
    /// Write.
    Write {
        /// Where.
        address: BlockAddress,
        /// What.
        bytes: SharedBuffer,
        /// Durably (incarnation records only).
        durable: bool,
    },
}

/// Where a connection stands; drawn at the head of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Initiator: entry REQ is being written.
    Requesting,
    /// Initiator: waits for an answer.
    Calling,
    /// Initiator: entry EST is being written.
    Establishing,
    /// Connector: entry ANS is being written.
    Answering,
    /// Connector: waits for EST.
    Answered,
    /// Connected.
    Established,
    /// Entry CLOSED, then table CLOSED.
    Ending,
    /// Nothing is left to do.
    Ended,
}

/// Who is on the other side.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its lane (row of the host table).
    pub lane: u16,
    /// Name of its host.
    pub name: Text<64>,
    /// Its static key.
    pub key: [u8; 32],
    /// Its row: the segments it may point to.
    pub record: HostRecord,
}

/// What a connection needs of its endpoint while it handles something.
pub struct Shared<'a> {
    /// The time.
    pub now: Instant,
    /// Volume.
    pub layout: &'a Layout,
    /// Who we are.
    pub me: &'a Identity,
    /// The lane's segments.
    pub pool: &'a mut SegmentPool,
    /// Buffers.
    pub buffers: &'a BufferPool,
    /// Randomness.
    pub random: &'a mut dyn Random,
    /// What comes out.
    pub out: &'a mut Output,
}

/// The two pairs of a slot; their versions outlive a connection.
#[derive(Debug)]
pub struct SlotPairs {
    /// Number of the slot.
    pub process_id: u32,
    /// Serial of its last use.
    pub serial: u32,
    /// Its process id entry.
    pub entry: PairWriter,
    /// Its pointer table.
    pub table: PairWriter,
}

/// Both directions of an established connection.
struct Streams {
    connection_id: [u8; 16],
    own: DirectionKeys,
    peer: DirectionKeys,
    writer: Writer,
    reader: Reader,
}

/// Silence of the peer, counted between our own successful reads only.
#[derive(Debug)]
struct Silence {
    last_read: Option<Instant>,
    silent: Duration,
    reads: u32,
    looked: bool,
}

impl Silence {
    const NONE: Self = Self { last_read: None, silent: Duration::ZERO, reads: 0, looked: false };
}

/// One side of a connection.
pub struct Connection {
    /// Local name.
    pub id: ConnectionId,
    role: Role,
    phase: Phase,
    peer: Peer,
    slot: SlotPairs,
    peer_process_id: u32,
    peer_incarnation: u64,
    own_nonce: [u8; 16],
    peer_nonce: [u8; 16],
    serial: u32,
    handshake: (u8, Vec<u8>),
    initiating: Option<Initiating>,
    window: u16,
    seg_max: u32,
    streams: Option<Streams>,
    peer_entry: PairReader,
    peer_table: PairReader,
    commands: VecDeque<PendingCommand>,
    command_in_place: CommandStructure,
    command_number: u64,
    command_acked: u64,
    command_taken: u64,
    peer_entry_wanted: u64,
    close_reason: CloseReason,
    draining_since: Option<Instant>,
    entry_dirty: bool,
    dirty_since: Option<Instant>,
    urgent: bool,
    keep_alive: u64,
    last_published: Instant,
    polling: bool,
    poll_due: Instant,
    backoff: Backoff,
    entry_read_in_flight: bool,
    silence: Silence,
    since: Instant,
    invalid_reads: u32,
    asserted: Instant,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Connection({}, {:?}, {:?}, to {})",
            self.id.0,
            self.role,
            self.phase,
            self.peer.name.as_str()
        )
    }
}

/// What an initiator starts with.
pub struct Opening {
    /// State between the two handshake messages.
    pub initiating: Initiating,
    /// Message 1.
    pub message: Vec<u8>,
    /// Own nonce.
    pub nonce: [u8; 16],
}

/// What a connector starts with.
pub struct Answer {
    /// Keys and id.
    pub session: Session,
    /// Message 2.
    pub message: Vec<u8>,
    /// What the initiator told.
    pub hello: Hello,
    /// Own nonce.
    pub nonce: [u8; 16],
    /// Version of the initiator's entry that carried message 1.
    pub peer_entry: PairReader,
    /// The initiator's serial.
    pub serial: u32,
}

impl Connection {
    /// The initiator's side: writes REQ.
    pub fn initiate(
        shared: &mut Shared<'_>,
        id: ConnectionId,
        peer: Peer,
        slot: SlotPairs,
        opening: Opening,
        window: u16,
    ) -> Self {
        let serial = slot.serial;
        let mut connection =
            Self::new(shared, id, Role::Initiator, Phase::Requesting, peer, slot, serial, window);
        connection.own_nonce = opening.nonce;
        connection.handshake = (1, opening.message);
        connection.initiating = Some(opening.initiating);
        connection.write_entry(shared);
        connection
    }

    /// The connector's side: writes ANS.
    pub fn answer(
        shared: &mut Shared<'_>,
        id: ConnectionId,
        peer: Peer,
        slot: SlotPairs,
        answer: Answer,
        window: u16,
    ) -> Self {
        let serial = answer.serial;
        let window = window.min(answer.hello.window).max(1);
        let mut connection =
            Self::new(shared, id, Role::Connector, Phase::Answering, peer, slot, serial, window);
        connection.own_nonce = answer.nonce;
        connection.peer_nonce = answer.hello.nonce;
        connection.peer_process_id = answer.hello.process_id;
        connection.peer_incarnation = answer.hello.incarnation;
        connection.seg_max = connection.seg_max.min(answer.hello.seg_max);
        connection.handshake = (2, answer.message);
        connection.peer_entry = answer.peer_entry;
        connection.set_session(shared, answer.session, &answer.hello);
        connection.write_entry(shared);
        connection
    }

    fn new(
        shared: &mut Shared<'_>,
        id: ConnectionId,
        role: Role,
        phase: Phase,
        peer: Peer,
        slot: SlotPairs,
        serial: u32,
        window: u16,
    ) -> Self {
        shared.pool.open(id.0);
        let now = shared.now;
        Self {
            id,
            role,
            phase,
            peer,
            slot,
            peer_process_id: u32::MAX,
            peer_incarnation: 0,
            own_nonce: [0; 16],
            peer_nonce: [0; 16],
            serial,
            handshake: (0, Vec::new()),
            initiating: None,
            window,
            seg_max: shared.layout.master.seg_max,
            streams: None,
            peer_entry: PairReader::default(),
            peer_table: PairReader::default(),
            commands: VecDeque::new(),
            command_in_place: CommandStructure::none(),
            command_number: 0,
            command_acked: 0,
            command_taken: 0,
            peer_entry_wanted: 0,
            close_reason: CloseReason::None,
            draining_since: None,
            entry_dirty: false,
            dirty_since: None,
            urgent: false,
            keep_alive: 0,
            last_published: now,
            polling: false,
            poll_due: now,
            backoff: Backoff::new(now),
            entry_read_in_flight: false,
            silence: Silence::NONE,
            since: now,
            invalid_reads: 0,
            asserted: now,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Who is on the other side.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Initiator or connector.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Number of the slot, and the serial of this use.
    #[must_use]
    pub fn slot(&self) -> (u32, u32) {
        (self.slot.process_id, self.serial)
    }

    /// The peer's slot and incarnation.
    #[must_use]
    pub fn peer_slot(&self) -> (u32, u64) {
        (self.peer_process_id, self.peer_incarnation)
    }

    /// Payload of a segment, at most.
    #[must_use]
    pub fn seg_max(&self) -> u32 {
        self.seg_max
    }

    /// Ends the value: the slot can be used again.
    #[must_use]
    pub fn into_slot(self) -> SlotPairs {
        self.slot
    }

    /// Counters: segments sent again, segments that did not open.
    #[must_use]
    pub fn counters(&self) -> (u64, u64) {
        self.streams.as_ref().map_or((0, 0), |streams| (streams.writer.resends, streams.reader.torn))
    }

    /// Whether another segment may be sent.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.phase == Phase::Established
            && self.draining_since.is_none()
            && self.streams.as_ref().is_some_and(|streams| streams.writer.has_room())
    }

    /// Sends a segment.
    ///
    /// # Panics
    /// If there is no room.
    pub fn send(&mut self, shared: &mut Shared<'_>, segment: Segment) {
        assert!(self.has_room(), "a segment is sent only where there is room");
        if let Some(streams) = &mut self.streams {
            streams.writer.push(shared.now, segment, shared.pool, shared.random);
        }
        self.pump(shared);
    }

    /// Says how many segments each way this process has memory for, of the window.
    pub(crate) fn set_share(&mut self, shared: &mut Shared<'_>, segments: u64) {
        if let Some(streams) = &mut self.streams {
            streams.writer.set_share(segments);
            streams.reader.set_share(segments);
            streams.writer.fill(shared.now, shared.pool, shared.random);
        }
        self.pump(shared);
    }

    /// Segments of the peer that can be taken.
    #[must_use]
    pub fn segments_waiting(&self) -> usize {
        self.streams.as_ref().map_or(0, |streams| streams.reader.segments_waiting())
    }

    /// The next segment of the peer, in order.
    pub fn poll_segment(&mut self) -> Option<Segment> {
        self.streams.as_mut()?.reader.poll_segment()
    }

    /// Queues a command for `pro_dtd` (initiator) or `InitM` (connector).
    ///
    /// # Panics
    /// If the body is longer than a command structure holds.
    pub fn send_command(&mut self, shared: &mut Shared<'_>, opcode: u16, request: u64, body: Vec<u8>) {
        assert!(body.len() <= COMMAND_BODY_MAX_BYTES, "long commands travel as segments");
        self.commands.push_back(PendingCommand { opcode, request, body });
        self.place_command(shared);
        self.pump(shared);
    }

    /// Closes in order: what was sent is acknowledged first.
    pub fn close(&mut self, shared: &mut Shared<'_>) {
        if self.phase == Phase::Established {
            self.draining_since.get_or_insert(shared.now);
            self.mark_dirty(shared.now, true);
            self.pump(shared);
        } else {
            self.end(shared, CloseReason::Done);
        }
    }

    /// Ends the connection, whatever is under way.
    pub fn end(&mut self, shared: &mut Shared<'_>, reason: CloseReason) {
        if matches!(self.phase, Phase::Ending | Phase::Ended) {
            return;
        }
        let established = self.phase == Phase::Established;
        self.phase = Phase::Ending;
        self.close_reason = reason;
        self.since = shared.now;
        self.keep_alive += 1;
        if let Some(streams) = &mut self.streams {
            streams.writer.handle_closed(shared.now, shared.pool);
        }
        self.entry_dirty = true;
        self.dirty_since = established.then_some(shared.now);
        shared.out.events.push_back(Event::Closed { connection: self.id, reason });
        self.pump_ending(shared);
    }

    /// An I/O of this connection has ended; `buffer` is what a successful read brought.
    pub fn handle_io(
        &mut self,
        shared: &mut Shared<'_>,
        io: ConnectionIo,
        success: bool,
        buffer: Option<Buffer>,
    ) {
        match io {
            ConnectionIo::OwnEntry(version) => self.handle_entry_written(shared, version, success),
            ConnectionIo::OwnTable(version) => {
                self.slot.table.handle_written(shared.now, version, success);
            }
            ConnectionIo::InDirectory => self.handle_in_directory(shared, buffer),
            ConnectionIo::PeerEntry => self.handle_peer_entry(shared, buffer),
            ConnectionIo::PeerTable => self.handle_peer_table(shared, buffer),
            ConnectionIo::SegmentWrite(seq, attempt) => {
                self.handle_segment_written(shared, seq, attempt, success);
            }
            ConnectionIo::SegmentRead(seq, attempt) => {
                if let Some(streams) = &mut self.streams {
                    streams.reader.handle_read(shared.now, seq, attempt, buffer);
                }
            }
        }
        self.pump(shared);
    }

    /// Sealing or opening has ended.
    pub fn handle_work(
        &mut self,
        shared: &mut Shared<'_>,
        seq: u64,
        attempt: u16,
        done: SealDone,
        reading: bool,
    ) {
        let Some(streams) = &mut self.streams else { return };
        match done {
            SealDone::Sealed(bytes, prefix) => {
                streams.writer.handle_sealed(shared.now, seq, attempt, bytes, prefix);
            }
            SealDone::Opened(payload, offset) => {
                streams.reader.handle_opened(shared.now, seq, attempt, Some((payload, offset)));
            }
            SealDone::Failed if reading => streams.reader.handle_opened(shared.now, seq, attempt, None),
            // Our own sealed buffer does not open any more: memory is broken, nothing can be trusted.
            SealDone::Failed => panic!("a sealed segment in memory no longer opens"),
        }
        self.pump(shared);
    }
}

/// Low half of an incarnation nonce, as headers carry it.
#[must_use]
pub fn nonce_low(nonce: &[u8; 16]) -> u64 {
    super::writer::connection_id_low(nonce)
}

/// What the prologue of the handshake binds, for the initiator's slot.
#[must_use]
pub fn binding(
    layout: &Layout,
    initiator: (u16, u64, u64),
    connector_lane: u16,
    process_id: u32,
    serial: u32,
    nonce: [u8; 16],
) -> Binding {
    let (initiator_lane, incarnation, incarnation_nonce_low) = initiator;
    Binding {
        volume_id: layout.master.volume_id,
        initiator_lane,
        connector_lane,
        process_id,
        serial,
        nonce,
        incarnation,
        incarnation_nonce_low,
    }
}
