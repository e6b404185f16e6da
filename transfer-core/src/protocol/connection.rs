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

use std::collections::VecDeque;
use std::time::Duration;

use storage_mapping::block::time::earliest;
use storage_mapping::{Buffer, BufferPool, Instant, SharedBuffer};
use volume::header::{Edition, Header, HeaderFlags, Place, RecordType, seal_page};
use volume::record::{Record, Rows, Text};
use volume::{BLOCK_BYTES, BlockAddress, Layout};

use super::endpoint::{Event, Identity, Output};
use super::handshake::{Binding, Hello, Initiating, Session};
use super::pair::{PairRead, PairReader, PairWrite, PairWriter};
use super::pool::SegmentPool;
use super::reader::{Reader, ReaderAction};
use super::seal::{DirectionKeys, SealDone};
use super::timer::{
    ASSERT_AGAIN, Backoff, CONNECT_TIMEOUT, DEVICE_FAILED, DRAIN_TIMEOUT, HANDSHAKE_TIMEOUT,
    KEEP_ALIVE_ACTIVE, KEEP_ALIVE_IDLE, POLL_IDLE_AFTER, PUBLISH_GATHER, SILENCE_STEP_MAX, SILENT_READS_MIN,
    SUSPECT,
};
use super::writer::{Stream, Writer, WriterAction};
use crate::format::host_table::{HostRecord, OsType};
use crate::format::map::{TableMap, address};
use crate::format::process_id_table::{
    COMMAND_BODY_MAX_BYTES, CloseReason, CommandStructure, EntryState, ProcessFlags, ProcessIdEntry, Role,
    Suite,
};
use crate::format::process_segment_pointer_table::{PointerTable, TableFlags};
use crate::format::segment::Direction;
use crate::payload::Segment;
use crate::random::{Random, random_bytes};

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

/// A command that waits for its place in `pro_dtd` or `InitM`.
#[derive(Debug)]
struct PendingCommand {
    opcode: u16,
    request: u64,
    body: Vec<u8>,
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
    in_directory: PairReader,
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
            in_directory: PairReader::default(),
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

    /// Rule 8: an entry that nobody reacts to may be a write that was lost; it is written again.
    fn assert_again(&mut self, shared: &mut Shared<'_>) {
        let unanswered = match self.phase {
            Phase::Calling | Phase::Answered => true,
            Phase::Established => self.role == Role::Initiator && self.peer_table.version() == 0,
            _ => false,
        };
        let due = shared.now.since(self.asserted) >= ASSERT_AGAIN;
        if unanswered && due && self.slot.entry.is_idle() {
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
        let active = self.last_published + KEEP_ALIVE_ACTIVE;
        let is_active = self.backoff.quiet(active) < POLL_IDLE_AFTER;
        if is_active { active } else { self.last_published + KEEP_ALIVE_IDLE }
    }

    // ---- what the peer shows -------------------------------------------------------------------

    /// Starts the read that this phase polls, if it is due.
    fn poll_peer(&mut self, shared: &mut Shared<'_>) {
        if self.polling || self.poll_due > shared.now {
            return;
        }
        let map = TableMap::new(shared.layout);
        let (io, place) = match self.phase {
            Phase::Calling => (ConnectionIo::InDirectory, map.in_directory(self.peer.lane)),
            Phase::Answered => (ConnectionIo::PeerEntry, map.process_id_entry(self.peer_process_id)),
            Phase::Established => (ConnectionIo::PeerTable, map.pointer_table(self.peer_process_id)),
            _ => return,
        };
        self.polling = true;
        shared.out.read(self.id, io, address(place), 2 * BLOCK_BYTES);
    }

    fn schedule_poll(&mut self, now: Instant) {
        self.polling = false;
        let bulk =
            self.streams.as_ref().is_some_and(|streams| streams.reader.is_bulk() || streams.writer.is_bulk());
        self.poll_due = now + self.backoff.next_pause(now, bulk && self.phase == Phase::Established);
    }

    /// Initiator: has the connector answered?
    fn handle_in_directory(&mut self, shared: &mut Shared<'_>, buffer: Option<Buffer>) {
        use crate::format::control_area::{IN_STATE_ANSWERED, IN_STATE_REFUSED, InDirectory};
        self.schedule_poll(shared.now);
        let Some(buffer) = buffer.filter(|_| self.phase == Phase::Calling) else { return };
        let map = TableMap::new(shared.layout);
        let place = map.in_directory(self.peer.lane);
        let PairRead::New(directory) =
            self.in_directory.read::<InDirectory>(RecordType::InDirectory, place, &buffer, None)
        else {
            return;
        };
        let (_, slot) = map.split(self.slot.process_id);
        let mine = directory.in_directory.iter().find(|call| {
            call.initiator_host == shared.me.lane
                && u16::from(call.initiator_slot) == slot
                && call.serial == self.serial
        });
        let Some(mine) = mine else { return };
        if mine.state == IN_STATE_ANSWERED && mine.connector_entry < map.connections() {
            self.peer_process_id = map.connector_id(self.peer.lane, mine.connector_entry);
            self.read_peer_entry(shared);
        } else if mine.state > IN_STATE_REFUSED {
            let code = CloseReason::from_code(u16::from(mine.state - IN_STATE_REFUSED));
            self.end(shared, code.unwrap_or(CloseReason::NotAllowed));
        }
    }

    fn read_peer_entry(&mut self, shared: &mut Shared<'_>) {
        if !self.entry_read_in_flight && self.peer_process_id != u32::MAX {
            self.entry_read_in_flight = true;
            let place = TableMap::new(shared.layout).process_id_entry(self.peer_process_id);
            shared.out.read(self.id, ConnectionIo::PeerEntry, address(place), 2 * BLOCK_BYTES);
        }
    }

    fn handle_peer_entry(&mut self, shared: &mut Shared<'_>, buffer: Option<Buffer>) {
        self.entry_read_in_flight = false;
        if self.phase == Phase::Answered {
            self.schedule_poll(shared.now);
        }
        let Some(buffer) = buffer else { return };
        let place = TableMap::new(shared.layout).process_id_entry(self.peer_process_id);
        let key = match self.phase {
            Phase::Calling => None,
            _ => self.streams.as_ref().map(|streams| streams.peer.page),
        };
        let read: PairRead<ProcessIdEntry> =
            self.peer_entry.read(RecordType::ProcessIdEntry, place, &buffer, key.as_ref());
        match (read, self.phase) {
            (PairRead::New(entry), Phase::Calling) => self.handle_answer(shared, &entry),
            (PairRead::New(entry), Phase::Answered) => self.handle_established(shared, &entry),
            (PairRead::New(entry), Phase::Established) => self.handle_command(shared, &entry),
            (PairRead::Invalid, Phase::Established) => self.handle_foreign_entry(shared, &buffer),
            _ => {}
        }
    }

    /// Initiator: message 2.
    fn handle_answer(&mut self, shared: &mut Shared<'_>, entry: &ProcessIdEntry) {
        let mine = entry.role == Role::Connector
            && entry.state == EntryState::Answered
            && entry.serial == self.serial
            && entry.peer_host == shared.me.lane
            && entry.peer_process_id == self.slot.process_id
            && entry.peer_nonce == self.own_nonce;
        let Some(message) = entry.handshake().filter(|_| mine) else { return };
        let Some(initiating) = self.initiating.take() else { return };
        let Ok((session, hello)) = initiating.finish(message) else {
            return self.end(shared, CloseReason::HandshakeFailed);
        };
        if hello.lane != self.peer.lane || hello.process_id != self.peer_process_id {
            return self.end(shared, CloseReason::HandshakeFailed);
        }
        self.peer_nonce = hello.nonce;
        self.peer_incarnation = hello.incarnation;
        self.window = self.window.min(hello.window).max(1);
        self.seg_max = self.seg_max.min(hello.seg_max);
        self.set_session(shared, session, &hello);
        self.handshake = (0, Vec::new());
        self.phase = Phase::Establishing;
        self.place_command(shared);
        // A repeated REQ may still be in flight; the entry follows when it is written.
        self.entry_dirty = true;
    }

    /// Connector: the first record under the keys.
    fn handle_established(&mut self, shared: &mut Shared<'_>, entry: &ProcessIdEntry) {
        let streams = self.streams.as_ref();
        let fits = entry.state == EntryState::Established
            && entry.role == Role::Initiator
            && streams.is_some_and(|streams| streams.connection_id == entry.connection_id)
            && entry.header.incarnation == self.peer_incarnation
            && entry.serial == self.serial;
        if !fits {
            return;
        }
        self.enter_established(shared);
        self.handle_command(shared, entry);
    }

    fn enter_established(&mut self, shared: &mut Shared<'_>) {
        self.phase = Phase::Established;
        self.since = shared.now;
        self.handshake = (0, Vec::new());
        self.backoff.handle_change(shared.now);
        self.poll_due = shared.now;
        self.mark_dirty(shared.now, true);
        let peer = self.peer.name.as_str().to_owned();
        let seg_max = self.seg_max;
        shared.out.events.push_back(Event::Connected { connection: self.id, role: self.role, peer, seg_max });
    }

    /// Rule 28: takes the command of the peer's entry, once and in order.
    fn handle_command(&mut self, shared: &mut Shared<'_>, entry: &ProcessIdEntry) {
        let Some(streams) = &self.streams else { return };
        if entry.connection_id != streams.connection_id {
            return;
        }
        if entry.state == EntryState::Closed {
            return self.end(shared, peer_reason(entry.pro_con_rc));
        }
        let command = &entry.pro_dtd;
        if !entry.pro_flag_process.contains(ProcessFlags::COMMAND)
            || command.command_number <= self.command_taken
        {
            return;
        }
        if command.command_number != self.command_taken + 1 {
            return self.end(shared, CloseReason::ProtocolViolated);
        }
        let direction = self.direction().1;
        let opened = open_command(
            &streams.peer,
            shared.layout.master.volume_id,
            entry.connection_id,
            direction,
            command,
        );
        let Some(body) = opened else { return self.end(shared, CloseReason::ProtocolViolated) };
        self.command_taken += 1;
        let (opcode, request) = (command.opcode, command.request_id);
        shared.out.events.push_back(Event::Command { connection: self.id, opcode, request, body });
        self.mark_dirty(shared.now, true);
    }

    /// Rule 48: an entry that does not open under our keys can end the connection, never more.
    fn handle_foreign_entry(&mut self, shared: &mut Shared<'_>, buffer: &Buffer) {
        for half in 0..2 {
            let page = &buffer[half * BLOCK_BYTES..(half + 1) * BLOCK_BYTES];
            let Ok(entry) = volume::header::parse_page::<ProcessIdEntry>(page, None) else { continue };
            let newer = entry.header.incarnation > self.peer_incarnation;
            let later = entry.header.incarnation == self.peer_incarnation
                && (entry.serial != self.serial || entry.state == EntryState::Closed)
                && entry.header.version > self.peer_entry.version();
            if entry.header.owner == self.peer.lane && (newer || later) {
                return self.end(shared, CloseReason::PeerLost);
            }
        }
    }

    fn handle_peer_table(&mut self, shared: &mut Shared<'_>, buffer: Option<Buffer>) {
        if self.phase != Phase::Established {
            self.polling = false;
            return;
        }
        let now = shared.now;
        if let Some(buffer) = buffer {
            let place = TableMap::new(shared.layout).pointer_table(self.peer_process_id);
            let key = self.streams.as_ref().map(|streams| streams.peer.page);
            let read =
                self.peer_table.read::<PointerTable>(RecordType::PointerTable, place, &buffer, key.as_ref());
            match read {
                PairRead::New(table) => {
                    self.invalid_reads = 0;
                    self.silence = Silence { last_read: Some(now), ..Silence::NONE };
                    self.take_table(shared, &table);
                }
                PairRead::Same => self.count_silence(shared, false),
                PairRead::Invalid => self.count_silence(shared, true),
            }
        }
        self.schedule_poll(now);
    }

    fn count_silence(&mut self, shared: &mut Shared<'_>, invalid: bool) {
        let now = shared.now;
        if let Some(last) = self.silence.last_read.replace(now) {
            self.silence.silent += now.since(last).min(SILENCE_STEP_MAX);
            self.silence.reads += 1;
        }
        self.invalid_reads += u32::from(invalid);
        let suspicious = self.silence.silent >= SUSPECT || self.invalid_reads >= 3;
        if suspicious && !self.silence.looked {
            self.silence.looked = true;
            self.invalid_reads = 0;
            self.read_peer_entry(shared);
        } else if self.silence.looked && self.silence.reads.is_multiple_of(16) {
            self.silence.looked = false;
        }
    }

    /// A new table of the peer: its marks, its entries, its state.
    fn take_table(&mut self, shared: &mut Shared<'_>, table: &PointerTable) {
        let Some(streams) = &mut self.streams else { return };
        let fits = table.connection_id == streams.connection_id
            && table.header.incarnation == self.peer_incarnation
            && table.peer_host == shared.me.lane
            && table.peer_process_id == self.slot.process_id;
        if !fits || usize::from(table.nack_count) != table.nacks.len() {
            return self.end(shared, CloseReason::ProtocolViolated);
        }
        let before = (streams.reader.is_bulk(), streams.writer.base(), streams.reader.received());
        let marks = streams.writer.handle_marks(
            shared.now,
            table.received,
            table.window_limit,
            table.credits.into(),
            &table.nacks,
            shared.pool,
            shared.random,
        );
        let entries = marks
            .and_then(|()| streams.reader.handle_table(shared.now, table, shared.layout, &self.peer.record));
        let changed = table.entry_count > 0
            || before != (streams.reader.is_bulk(), streams.writer.base(), streams.reader.received());
        if let Err(reason) = entries {
            return self.end(shared, reason);
        }
        if table.command_ack > self.command_number {
            return self.end(shared, CloseReason::ProtocolViolated);
        }
        if changed {
            self.backoff.handle_change(shared.now);
        }
        self.command_acked = self.command_acked.max(table.command_ack);
        self.peer_entry_wanted = self.peer_entry_wanted.max(table.entry_version);
        if self.peer_entry_wanted > self.peer_entry.version() {
            self.read_peer_entry(shared);
        }
        if table.state == EntryState::Closed {
            return self.end(shared, peer_reason(table.close_reason));
        }
        self.place_command(shared);
    }

    // ---- what we show ---------------------------------------------------------------------------

    fn mark_dirty(&mut self, now: Instant, urgent: bool) {
        self.dirty_since.get_or_insert(now);
        self.urgent |= urgent;
    }

    /// Moves everything that can move: work, segment I/O, and the own table.
    pub(crate) fn pump(&mut self, shared: &mut Shared<'_>) {
        if matches!(self.phase, Phase::Ending | Phase::Ended) {
            return self.pump_ending(shared);
        }
        if self.entry_dirty && self.slot.entry.is_ready(shared.now) {
            self.write_entry(shared);
        }
        if self.phase != Phase::Established {
            return;
        }
        self.pump_actions(shared);
        if let Some(streams) = &mut self.streams {
            for (dirty, urgent) in [streams.writer.take_dirty(), streams.reader.take_dirty()] {
                if dirty {
                    self.dirty_since.get_or_insert(shared.now);
                    self.urgent |= urgent;
                }
            }
        }
        if shared.now >= self.keep_alive_due() {
            self.mark_dirty(shared.now, true);
        }
        self.publish_if_due(shared);
        self.finish_draining(shared);
    }

    fn pump_actions(&mut self, shared: &mut Shared<'_>) {
        let Some(streams) = &mut self.streams else { return };
        while let Some(action) = streams.writer.poll_action() {
            match action {
                WriterAction::Work { seq, attempt, work } => {
                    shared.out.work(self.id, seq, attempt, false, work)
                }
                WriterAction::Write { seq, attempt, address, bytes } => {
                    shared.out.write(self.id, ConnectionIo::SegmentWrite(seq, attempt), address, bytes);
                }
            }
        }
        while let Some(action) = streams.reader.poll_action() {
            match action {
                ReaderAction::Work { seq, attempt, work } => {
                    shared.out.work(self.id, seq, attempt, true, work)
                }
                ReaderAction::Read { seq, attempt, address, length } => {
                    shared.out.read(self.id, ConnectionIo::SegmentRead(seq, attempt), address, length);
                }
            }
        }
    }

    /// Rule 35: publish when no table write is in flight and somebody waits or enough time has passed.
    fn publish_if_due(&mut self, shared: &mut Shared<'_>) {
        let Some(since) = self.dirty_since else { return };
        let due = self.urgent || shared.now.since(since) >= PUBLISH_GATHER;
        if due && self.slot.table.is_ready(shared.now) {
            self.dirty_since = None;
            self.urgent = false;
            self.publish(shared);
        }
    }

    fn finish_draining(&mut self, shared: &mut Shared<'_>) {
        let drained = self.streams.as_ref().is_none_or(|streams| streams.writer.is_drained());
        let told = self.dirty_since.is_none() && self.slot.table.is_idle() && self.commands.is_empty();
        let acked = self.command_acked == self.command_number;
        if self.draining_since.is_some() && drained && told && acked && !self.entry_dirty {
            self.end(shared, CloseReason::Done);
        }
    }

    /// Writes CLOSED into the entry, then into the table; then nothing is left to do.
    fn pump_ending(&mut self, shared: &mut Shared<'_>) {
        if self.phase == Phase::Ended {
            return;
        }
        if self.entry_dirty {
            if self.slot.entry.is_ready(shared.now) {
                self.write_entry(shared);
            }
            return;
        }
        if !self.slot.entry.is_idle() {
            return;
        }
        if self.dirty_since.is_some() {
            if self.slot.table.is_ready(shared.now) {
                self.dirty_since = None;
                self.publish(shared);
            }
            return;
        }
        let quiet = self
            .streams
            .as_ref()
            .is_none_or(|streams| streams.writer.is_quiet() && streams.reader.is_quiet());
        if self.slot.table.is_idle() && quiet {
            self.phase = Phase::Ended;
            shared.pool.close(self.id.0);
        }
    }

    /// Seals the next command into the own entry, when the last one was taken.
    fn place_command(&mut self, shared: &mut Shared<'_>) {
        let Some(streams) = &self.streams else { return };
        let ready = matches!(self.phase, Phase::Establishing | Phase::Established)
            && self.command_acked == self.command_number;
        if !ready {
            return;
        }
        let Some(command) = self.commands.pop_front() else { return };
        self.command_number += 1;
        self.command_in_place = seal_command(
            &streams.own,
            shared.layout.master.volume_id,
            streams.connection_id,
            self.direction().0,
            self.command_number,
            &command,
            random_bytes(shared.random),
        );
        self.entry_dirty = true;
        self.mark_dirty(shared.now, true);
    }

    fn handle_entry_written(&mut self, shared: &mut Shared<'_>, version: u64, success: bool) {
        if !self.slot.entry.handle_written(shared.now, version, success) {
            return;
        }
        match self.phase {
            Phase::Requesting => {
                self.phase = Phase::Calling;
                self.poll_due = shared.now;
                shared.out.events.push_back(Event::CallsChanged);
            }
            Phase::Answering => {
                self.phase = Phase::Answered;
                self.poll_due = shared.now;
                shared.out.events.push_back(Event::AnswersChanged);
            }
            // What was written may be the repeated REQ; EST is written next.
            Phase::Establishing if self.entry_dirty => {}
            Phase::Establishing => self.enter_established(shared),
            _ => self.mark_dirty_after_entry(shared),
        }
    }

    /// The peer learns of a new entry by our table.
    fn mark_dirty_after_entry(&mut self, shared: &mut Shared<'_>) {
        if self.phase == Phase::Established {
            self.mark_dirty(shared.now, true);
        }
    }

    fn write_entry(&mut self, shared: &mut Shared<'_>) {
        self.entry_dirty = false;
        self.asserted = shared.now;
        let (me, buffers) = (shared.me, shared.buffers);
        let mut slot_entry = std::mem::replace(&mut self.slot.entry, PairWriter::new(placeholder()));
        let write = slot_entry.write(shared.now, |version, place| {
            let entry = self.build_entry(me, version, place);
            let key = entry.header.flags.contains(HeaderFlags::SEALED).then(|| self.own_page_key()).flatten();
            page_of(&entry, key.as_ref(), buffers)
        });
        self.slot.entry = slot_entry;
        self.push_pair_write(shared, write, false);
    }

    fn own_page_key(&self) -> Option<[u8; 32]> {
        self.streams.as_ref().map(|streams| streams.own.page)
    }

    fn build_entry(&self, me: &Identity, version: u64, place: Place) -> ProcessIdEntry {
        let edition = Edition { incarnation: me.incarnation, nonce_low: me.nonce_low(), version };
        let mut header = Header::new::<ProcessIdEntry>(RecordType::ProcessIdEntry, place, edition);
        let (state, sealed) = match self.phase {
            Phase::Requesting | Phase::Calling => (EntryState::Requested, false),
            Phase::Answering | Phase::Answered => (EntryState::Answered, false),
            Phase::Establishing | Phase::Established => (EntryState::Established, true),
            // A closed entry can only end the connection: it needs no key, and everyone may read it.
            Phase::Ending | Phase::Ended => (EntryState::Closed, false),
        };
        header.flags.set(HeaderFlags::SEALED, sealed);
        let initiator = self.role == Role::Initiator;
        let (own, other) = (me.name.clone(), self.peer.name.clone());
        let mut entry = ProcessIdEntry::unused(header, self.slot.process_id, self.role, state);
        if sealed {
            entry.connection_id = self.streams.as_ref().map_or([0; 16], |streams| streams.connection_id);
            entry.pro_flag_process.set(ProcessFlags::COMMAND, self.command_number > 0);
            entry.pro_dtd = self.command_in_place.clone();
        }
        entry.pro_flag_process.set(ProcessFlags::CLOSING, state == EntryState::Closed);
        entry.peer_process_id = self.peer_process_id;
        entry.pro_con_rc = self.close_reason;
        entry.peer_host = self.peer.lane;
        entry.serial = self.serial;
        entry.suite = Suite::Xaes256Gcm;
        entry.window = self.window;
        entry.seg_max = self.seg_max;
        entry.pro_requestor_type = OsType::Linux;
        entry.pro_requestee_type = OsType::Linux;
        entry.peer_incarnation = self.peer_incarnation;
        entry.own_nonce = self.own_nonce;
        entry.peer_nonce = self.peer_nonce;
        (entry.pro_requestor, entry.pro_requestee) = if initiator { (own, other) } else { (other, own) };
        if self.handshake.0 > 0 && state != EntryState::Closed {
            entry.set_handshake(self.handshake.0, &self.handshake.1);
        }
        entry
    }

    /// W5 and step 262: writes the own table.
    fn publish(&mut self, shared: &mut Shared<'_>) {
        let (me, buffers) = (shared.me, shared.buffers);
        self.keep_alive += 1;
        self.last_published = shared.now;
        let mut slot_table = std::mem::replace(&mut self.slot.table, PairWriter::new(placeholder()));
        let write = slot_table.write(shared.now, |version, place| {
            let table = self.build_table(me, version, place);
            page_of(&table, self.own_page_key().as_ref(), buffers)
        });
        self.slot.table = slot_table;
        self.push_pair_write(shared, write, true);
    }

    fn build_table(&self, me: &Identity, version: u64, place: Place) -> PointerTable {
        let streams = self.streams.as_ref().expect("a table is published under keys");
        let edition = Edition { incarnation: me.incarnation, nonce_low: me.nonce_low(), version };
        let mut header = Header::new::<PointerTable>(RecordType::PointerTable, place, edition);
        header.flags = HeaderFlags::SEALED;
        let closed = matches!(self.phase, Phase::Ending | Phase::Ended);
        let nacks = streams.reader.nacks();
        let mut area = [0; crate::format::process_segment_pointer_table::ENTRIES_BYTES];
        let entry_count = streams.writer.emit_entries(&mut area);
        let segment_blocks = self.seg_max / 4096 + 1;
        PointerTable {
            header,
            connection_id: streams.connection_id,
            state: if closed {
                EntryState::Closed
            } else if self.draining_since.is_some() {
                EntryState::Draining
            } else {
                EntryState::Established
            },
            role: self.role,
            flags: if closed { TableFlags::CLOSING } else { TableFlags::empty() },
            serial: self.serial,
            keep_alive: self.keep_alive,
            entry_version: if self.slot.entry.is_idle() { self.slot.entry.version() } else { 0 },
            command_ack: self.command_taken,
            peer_process_id: self.peer_process_id,
            peer_host: self.peer.lane,
            close_reason: self.close_reason,
            peer_incarnation: self.peer_incarnation,
            received: streams.reader.received(),
            durable: 0,
            window_limit: streams.reader.window_limit(),
            credits: u32::from(self.window) * segment_blocks,
            nack_count: u16::try_from(nacks.len()).expect("at most 12"),
            read_flags: streams.reader.read_flags(),
            nacks: Rows::new(nacks).expect("at most 12"),
            entry_area: area,
            base_seq: streams.writer.base(),
            entry_count,
        }
    }

    fn push_pair_write(&self, shared: &mut Shared<'_>, write: PairWrite, table: bool) {
        let io =
            if table { ConnectionIo::OwnTable(write.version) } else { ConnectionIo::OwnEntry(write.version) };
        shared.out.write(self.id, io, address(write.place), write.bytes);
    }

    fn handle_segment_written(&mut self, shared: &mut Shared<'_>, seq: u64, attempt: u16, success: bool) {
        let Some(streams) = &mut self.streams else { return };
        let outcome =
            streams.writer.handle_written(shared.now, seq, attempt, success, shared.pool, shared.random);
        if let Err(reason) = outcome {
            self.end(shared, reason);
        }
    }

    /// Directions of this side: (out, in).
    fn direction(&self) -> (Direction, Direction) {
        match self.role {
            Role::Connector => (Direction::ToInitiator, Direction::ToConnector),
            Role::Initiator | Role::None => (Direction::ToConnector, Direction::ToInitiator),
        }
    }

    fn set_session(&mut self, shared: &Shared<'_>, session: Session, hello: &Hello) {
        let (own, peer) = match self.role {
            Role::Connector => (session.to_initiator, session.to_connector),
            Role::Initiator | Role::None => (session.to_connector, session.to_initiator),
        };
        let map = TableMap::new(shared.layout);
        let (out_direction, in_direction) = self.direction();
        let stream = |direction, keys: &DirectionKeys, process_id, owner, incarnation, nonce_low| Stream {
            volume_id: shared.layout.master.volume_id,
            connection_id: session.connection_id,
            direction,
            owner,
            incarnation,
            nonce_low,
            table: map.pointer_table(process_id),
            key: keys.data.clone(),
        };
        let me = shared.me;
        let out_stream =
            stream(out_direction, &own, self.slot.process_id, me.lane, me.incarnation, me.nonce_low());
        let in_stream = stream(
            in_direction,
            &peer,
            self.peer_process_id,
            self.peer.lane,
            hello.incarnation,
            nonce_low(&hello.incarnation_nonce),
        );
        let window = u64::from(self.window);
        let segment_blocks = u64::from(self.seg_max / 4096 + 1);
        self.streams = Some(Streams {
            connection_id: session.connection_id,
            writer: Writer::new(self.id.0, out_stream, window, segment_blocks),
            reader: Reader::new(in_stream, window),
            own,
            peer,
        });
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

fn peer_reason(reason: CloseReason) -> CloseReason {
    match reason {
        CloseReason::None | CloseReason::Done => CloseReason::ClosedByPeer,
        other => other,
    }
}

fn placeholder() -> Place {
    Place { volume_id: [0; 16], owner: 0, index: 0, device: 0, block: 0 }
}

fn page_of<R: Record>(record: &R, key: Option<&[u8; 32]>, buffers: &BufferPool) -> Buffer {
    let mut buffer = buffers.take_zeroed(BLOCK_BYTES);
    record.emit(&mut buffer);
    seal_page(&mut buffer, key);
    buffer
}

fn command_associated(
    volume_id: [u8; 16],
    connection_id: [u8; 16],
    direction: Direction,
    command: &CommandStructure,
) -> Vec<u8> {
    let mut bytes = [&volume_id[..], &connection_id, &[direction.code()]].concat();
    bytes.extend_from_slice(&command.opcode.to_le_bytes());
    bytes.extend_from_slice(&command.body_length.to_le_bytes());
    bytes.extend_from_slice(&command.request_id.to_le_bytes());
    bytes.extend_from_slice(&command.command_number.to_le_bytes());
    bytes
}

fn seal_command(
    keys: &DirectionKeys,
    volume_id: [u8; 16],
    connection_id: [u8; 16],
    direction: Direction,
    number: u64,
    pending: &PendingCommand,
    nonce: [u8; 24],
) -> CommandStructure {
    let length = pending.body.len();
    let mut command = CommandStructure {
        opcode: pending.opcode,
        body_length: u16::try_from(length).expect("checked when it was queued"),
        flags: 1,
        request_id: pending.request,
        command_number: number,
        nonce,
        ..CommandStructure::none()
    };
    let associated = command_associated(volume_id, connection_id, direction, &command);
    command.body[..length].copy_from_slice(&pending.body);
    command.tag = keys.command.seal(&nonce, &associated, &mut command.body[..length]);
    command
}

fn open_command(
    keys: &DirectionKeys,
    volume_id: [u8; 16],
    connection_id: [u8; 16],
    direction: Direction,
    command: &CommandStructure,
) -> Option<Vec<u8>> {
    let mut body = command.body.get(..usize::from(command.body_length))?.to_vec();
    let associated = command_associated(volume_id, connection_id, direction, command);
    keys.command.open(&command.nonce, &associated, &command.tag, &mut body).then_some(body)
}
