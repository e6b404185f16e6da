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

use std::collections::VecDeque;
use std::time::Duration;

use storage_mapping::block::time::earliest;
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
use super::timer::{
    ASSERT_AGAIN, Backoff, CONNECT_TIMEOUT, DEVICE_FAILED, DRAIN_TIMEOUT, HANDSHAKE_TIMEOUT,
    KEEP_ALIVE_ACTIVE, KEEP_ALIVE_IDLE, POLL_IDLE_AFTER, PUBLISH_GATHER, SILENT_READS_MIN,
};
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
    pub(crate) fn set_share(&mut self, segments: u64) {
        if let Some(streams) = &mut self.streams {
            streams.writer.set_share(segments);
            streams.reader.set_share(segments);
        }
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

    /// Time passed.
    pub fn handle_timeout(&mut self, shared: &mut Shared<'_>) {
        let now = shared.now;
        if let Some(streams) = &mut self.streams
            && self.phase == Phase::Established
        {
            streams.reader.handle_timeout(now);
            if let Err(reason) = streams.writer.handle_timeout(now, shared.pool, shared.random) {
                self.end(shared, reason);
            }
        }
        self.check_time_outs(shared);
        self.assert_again(shared);
        self.poll_peer(shared);
        for (retry, table) in
            [(self.slot.entry.poll_retry(now), false), (self.slot.table.poll_retry(now), true)]
        {
            if let Some(write) = retry {
                self.push_pair_write(shared, write, table);
            }
        }
        self.pump(shared);
    }

    /// Rule 8: an entry that nobody reacts to may be a write that was lost; it is written again, with the
    /// same content and a higher version. If its write hangs, that happens when the pair lets the next
    /// version pass it (rule 7).
    fn assert_again(&mut self, shared: &mut Shared<'_>) {
        let unanswered = match self.phase {
            Phase::Requesting | Phase::Calling | Phase::Establishing => true,
            Phase::Answering | Phase::Answered => true,
            Phase::Established => {
                let unseen = self.role == Role::Initiator && self.peer_table.version() == 0;
                unseen || self.command_acked < self.command_number
            }
            Phase::Ending | Phase::Ended => false,
        };
        let due = shared.now.since(self.asserted) >= ASSERT_AGAIN;
        if unanswered && due && self.slot.entry.is_ready(shared.now) {
            self.write_entry(shared);
            if self.phase == Phase::Answered {
                shared.out.events.push_back(Event::AnswersChanged);
            }
        }
    }

    fn check_time_outs(&mut self, shared: &mut Shared<'_>) {
        let now = shared.now;
        let age = now.since(self.since);
        let reason = match self.phase {
            Phase::Requesting | Phase::Calling | Phase::Establishing => {
                (age >= CONNECT_TIMEOUT).then_some(CloseReason::PeerLost)
            }
            Phase::Answering | Phase::Answered => {
                (age >= HANDSHAKE_TIMEOUT).then_some(CloseReason::HandshakeFailed)
            }
            Phase::Established => {
                let read_stuck = self.polling && now.since(self.poll_due) >= DEVICE_FAILED;
                let stuck = read_stuck || self.slot.table.waiting(now) >= DEVICE_FAILED;
                let drained = self.draining_since.is_some_and(|since| now.since(since) >= DRAIN_TIMEOUT);
                let dead_after = Duration::from_millis(shared.layout.master.timers[4].into());
                let dead = self.silence.silent >= dead_after && self.silence.reads >= SILENT_READS_MIN;
                if stuck {
                    Some(CloseReason::DeviceStuck)
                } else if dead {
                    Some(CloseReason::PeerLost)
                } else {
                    // Not everything was acknowledged, or it would have ended before.
                    drained.then_some(CloseReason::PeerLost)
                }
            }
            Phase::Ending | Phase::Ended => None,
        };
        if let Some(reason) = reason {
            self.end(shared, reason);
        }
    }

    /// When time alone will change something.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        let retry = earliest(self.slot.entry.next_wakeup(), self.slot.table.next_wakeup());
        let poll = match self.phase {
            Phase::Calling | Phase::Answered | Phase::Established if !self.polling => Some(self.poll_due),
            _ => None,
        };
        let mut wakeup = earliest(retry, poll);
        if self.phase == Phase::Established {
            let streams = self.streams.as_ref();
            wakeup = earliest(wakeup, streams.and_then(|streams| streams.reader.next_wakeup()));
            wakeup = earliest(wakeup, streams.and_then(|streams| streams.writer.next_wakeup()));
            // With a table in flight nothing can be published before it is back, or in doubt.
            if self.slot.table.is_idle() {
                wakeup = earliest(wakeup, Some(self.keep_alive_due()));
                wakeup = earliest(wakeup, self.dirty_since.map(|since| since + PUBLISH_GATHER));
            } else {
                wakeup = earliest(wakeup, self.slot.table.doubt_at());
            }
            wakeup = earliest(wakeup, self.draining_since.map(|since| since + DRAIN_TIMEOUT));
        }
        wakeup
    }

    /// One answer for the wake-up and for the publication itself: were they to differ, the loop would
    /// turn without end between the two times.
    fn keep_alive_due(&self) -> Instant {
        keep_alive_after(self.last_published, &self.backoff)
    }
}

/// When a table that was published at `published` is published again, whatever happens.
fn keep_alive_after(published: Instant, backoff: &Backoff) -> Instant {
    let active = published + KEEP_ALIVE_ACTIVE;
    let is_active = backoff.quiet(active) < POLL_IDLE_AFTER;
    if is_active { active } else { published + KEEP_ALIVE_IDLE }
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
