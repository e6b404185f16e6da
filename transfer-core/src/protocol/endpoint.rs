//! One process on the volume: its identity, its beacon and bell, and its connections.
//!
//! An initiating process (`cp`) makes calls; lane 0 (`serve`) also answers them. Whom it answers is
//! decided by its own list of keys; the host table on the disk only says where a lane's records lie.
//! What holds: nothing is written before the start has claimed a new incarnation; a caller gets an entry
//! only after its handshake proved a key of the list that is also the key of its row; if the own beacon
//! is written by somebody else, everything stops.

mod admin;
mod answers;
mod calls;
mod start;
mod upkeep;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use storage_mapping::{
    BufferPool, FencePolicy, Instant, IoBuffer, IoCompletion, IoRequest, IoTag, Lba, Operation, SharedBuffer,
};
use thiserror::Error;
use volume::header::seal_page;
use volume::record::{Record, Text};
use volume::{BLOCK_BYTES, BlockAddress, Layout, OwnedRanges};

use super::admin_watch::{AdminRead, AdminWatch};
use super::connection::{
    Connection, ConnectionId, ConnectionIo, IoCommand, Opening, Peer, Shared, SlotPairs, binding, nonce_low,
};
use super::discovery::{BeaconKeeper, BellWatcher, Ringing};
use super::handshake::{self, Hello, Secrets};
use super::owner_mac::OwnerKey;
use super::pair::PairWriter;
use super::pool::SegmentPool;
use super::roster::{Roster, Turns};
use super::seal::{SealDone, SealWork};
use super::startup::{LocalState, Startup, StartupFailure, StartupIo};
use crate::format::control_area::InCall;
use crate::format::host_table::HostRecord;
use crate::format::map::{TableMap, address};
use crate::format::process_id_table::{CloseReason, Role};
use crate::payload::Segment;
use crate::random::{Random, random_bytes};

/// Handshakes opened per second and owner, at most.
const HANDSHAKES_PER_SECOND: u32 = 8;
/// Segments each way that every connection may have, however many there are: data, and a message beside it.
const SHARE_MIN: u64 = 2;
/// Refusals kept in the in-directory, at most.
const REFUSALS_MAX: usize = 16;
/// How long a refusal stays there.
const REFUSAL_KEPT: Duration = Duration::from_secs(60);

/// Who this process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its lane (row of the host table).
    pub lane: u16,
    /// Name of its host.
    pub name: Text<64>,
    /// Incarnation; 0 before the start is done.
    pub incarnation: u64,
    /// Incarnation nonce.
    pub nonce: [u8; 16],
}

impl Identity {
    /// Low half of the nonce, as headers carry it.
    #[must_use]
    pub fn nonce_low(&self) -> u64 {
        nonce_low(&self.nonce)
    }
}

/// A host that may connect, or be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedPeer {
    /// Its name.
    pub name: String,
    /// Its X25519 public key.
    pub key: [u8; 32],
}

/// What a process is told at its start.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Own row of the host table.
    pub own: HostRecord,
    /// Whether it answers calls.
    pub answers: bool,
    /// Own secrets.
    pub secrets: Secrets,
    /// The peers it knows.
    pub peers: Vec<AllowedPeer>,
    /// Segments in flight per direction, at most.
    pub window: u16,
    /// Connections of one peer, at most.
    pub connections_per_peer_max: usize,
    /// How often the bell is looked at while connections come and go; usually
    /// [`BELL_WARM`](super::discovery::BELL_WARM).
    pub bell_pause: Duration,
    /// What the host remembers of this lane.
    pub local: LocalState,
}

/// Something the process is told.
#[derive(Debug)]
pub enum Event {
    /// Write this into the local state, durably, then call [`Endpoint::handle_persisted`].
    Persist(LocalState),
    /// The start is done; calls can be made.
    Started,
    /// The lane cannot be used; nothing more is written.
    Stopped(StartupFailure),
    /// A connection is established.
    Connected {
        /// Which.
        connection: ConnectionId,
        /// Own role.
        role: Role,
        /// Name of the peer.
        peer: String,
        /// Payload of a segment, at most.
        seg_max: u32,
    },
    /// A command came through the process id table.
    Command {
        /// Which connection.
        connection: ConnectionId,
        /// Its code.
        opcode: u16,
        /// Its request.
        request: u64,
        /// Its body, opened.
        body: Vec<u8>,
    },
    /// A connection has ended, or a call came to nothing.
    Closed {
        /// Which.
        connection: ConnectionId,
        /// Why.
        reason: CloseReason,
    },
    /// Something for the log.
    Notice(String),
    /// Internal: the out-directory must be written.
    CallsChanged,
    /// Internal: the in-directory must be written.
    AnswersChanged,
}

/// What I/O was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Admin(AdminRead),
    Startup(StartupIo),
    BeaconRead,
    BeaconWrite,
    BellRead,
    Ring,
    Scan,
    CallerEntry { host: u16, slot: u8 },
    InDirectory(u64),
    PeerBeacon(ConnectionId),
    Connection(ConnectionId, ConnectionIo),
}

/// Names a piece of sealing work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkTag {
    connection: ConnectionId,
    seq: u64,
    attempt: u16,
    reading: bool,
}

/// What comes out of the endpoint and its connections.
#[derive(Debug, Default)]
pub struct Output {
    io: VecDeque<(Purpose, IoCommand)>,
    work: VecDeque<(WorkTag, SealWork)>,
    /// Events.
    pub events: VecDeque<Event>,
}

impl Output {
    /// A read of a connection.
    pub fn read(&mut self, id: ConnectionId, io: ConnectionIo, address: BlockAddress, length: usize) {
        self.io.push_back((Purpose::Connection(id, io), IoCommand::Read { address, length }));
    }

    /// A write of a connection.
    pub fn write(&mut self, id: ConnectionId, io: ConnectionIo, address: BlockAddress, bytes: SharedBuffer) {
        let command = IoCommand::Write { address, bytes, durable: false };
        self.io.push_back((Purpose::Connection(id, io), command));
    }

    /// Sealing or opening for a connection.
    pub fn work(&mut self, connection: ConnectionId, seq: u64, attempt: u16, reading: bool, work: SealWork) {
        self.work.push_back((WorkTag { connection, seq, attempt, reading }, work));
    }
}

/// Why a call cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The peer is not in the configuration.
    #[error("host {0} is not a peer of this host; add [peers.{0}] with its key")]
    UnknownPeer(String),
    /// The volume has no such host with that key.
    #[error(
        "the volume has no host {0} with the configured key; compare the key with the volume's host table"
    )]
    NotEnrolled(String),
    /// Every initiator entry is in use.
    #[error("every connection slot of this process is in use")]
    NoSlot,
    /// The lane is not started, or has stopped.
    #[error("this process has not claimed its place on the volume")]
    NotStarted,
}

/// Numbers for `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Scans of the beacons.
    pub scans: u64,
    /// Rings sent.
    pub rings: u64,
    /// Handshakes that failed or were refused.
    pub refused: u64,
    /// Own old writes that came back.
    pub late_writes: u64,
    /// Segments sent again.
    pub resends: u64,
    /// Segments that did not open.
    pub torn: u64,
}

struct InFlight {
    purpose: Purpose,
}

enum Life {
    Starting(Box<Startup>),
    Running,
    Stopped,
}

struct Refusal {
    call: InCall,
    until: Instant,
}

/// One process on the volume.
pub struct Endpoint {
    layout: Arc<Layout>,
    hosts: Arc<Vec<Option<HostRecord>>>,
    config: EndpointConfig,
    identity: Identity,
    owner_key: OwnerKey,
    life: Life,
    pool: SegmentPool,
    buffers: BufferPool,
    random: Box<dyn Random>,
    slots: BTreeMap<u32, SlotPairs>,
    connections: Roster<Connection>,
    news: News,
    ringing: BTreeMap<ConnectionId, Ringing>,
    watched: BTreeMap<ConnectionId, PeerWatch>,
    next_connection: u64,
    admin: AdminWatch,
    beacon: BeaconKeeper,
    bell: BellWatcher,
    in_directory: PairWriter,
    in_directory_dirty: bool,
    refusals: Vec<Refusal>,
    /// Last call seen of each (lane, slot): incarnation and serial, as the entry claims.
    seen: BTreeMap<(u16, u8), (u64, u32)>,
    /// Highest incarnation of each (lane, slot) that a handshake has proven.
    proven: BTreeMap<(u16, u8), u64>,
    openings: BTreeMap<u16, (Instant, u32)>,
    out: Output,
    in_flight: BTreeMap<u64, InFlight>,
    next_tag: u64,
    leaving: bool,
    counters: Counters,
}

/// What was seen of connections when something happened to them, to be acted upon.
#[derive(Debug, Default)]
struct News {
    /// They take segments again, or segments came.
    moved: Turns<ConnectionId>,
    ended: Turns<ConnectionId>,
}

/// Does the called host live while it does not answer?
#[derive(Debug)]
struct PeerWatch {
    since: Instant,
    due: Instant,
    first: Option<u64>,
    advanced: bool,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({}, lane {})", self.identity.name.as_str(), self.identity.lane)
    }
}

/// The blocks that the lane of `own` may write: its beacon, control area, rows, tables, segments, and
/// everybody's bell.
#[must_use]
pub fn owned_ranges(layout: &Layout, own: &HostRecord) -> OwnedRanges {
    let map = TableMap::new(layout);
    let lane = own.host_id;
    let mut owned = OwnedRanges::nothing();
    owned.add(address(map.beacon(lane)), 1);
    owned.add(address(map.bell(0)), map.lanes().into());
    for (start, blocks) in [map.control_area(lane), map.process_id_rows(lane), map.pointer_tables(lane)] {
        owned.add(start, blocks);
    }
    for range in own.pool_ranges.iter() {
        if let Some(start) = layout.locate(volume::SegmentNumber(range.first_segment)) {
            owned.add(start, range.count * layout.segment_blocks());
        }
    }
    owned
}

impl Endpoint {
    /// A process that starts: `hosts` are the rows of the host table that verify.
    #[must_use]
    pub fn new(
        layout: Arc<Layout>,
        hosts: Arc<Vec<Option<HostRecord>>>,
        config: EndpointConfig,
        buffers: BufferPool,
        mut random: Box<dyn Random>,
        now: Instant,
    ) -> Self {
        let map = TableMap::new(&layout);
        let lane = config.own.host_id;
        let identity = Identity {
            lane,
            name: config.own.name.clone(),
            incarnation: 0,
            nonce: random_bytes(random.as_mut()),
        };
        let startup = Startup::new(&layout, config.local.clone(), identity.clone());
        let scan = Duration::from_millis(layout.master.timers[3].into());
        Self {
            owner_key: OwnerKey::new(&config.secrets.private_key),
            pool: SegmentPool::new(&layout, &config.own),
            in_directory: PairWriter::new(map.in_directory(lane)),
            life: Life::Starting(Box::new(startup)),
            admin: AdminWatch::new(now),
            beacon: BeaconKeeper::new(now),
            bell: BellWatcher::new(now, scan, config.bell_pause),
            layout,
            hosts,
            config,
            identity,
            buffers,
            random,
            slots: BTreeMap::new(),
            connections: Roster::new(),
            news: News::default(),
            ringing: BTreeMap::new(),
            watched: BTreeMap::new(),
            next_connection: 1,
            in_directory_dirty: false,
            refusals: Vec::new(),
            seen: BTreeMap::new(),
            proven: BTreeMap::new(),
            openings: BTreeMap::new(),
            out: Output::default(),
            in_flight: BTreeMap::new(),
            next_tag: 1,
            leaving: false,
            counters: Counters::default(),
        }
    }

    /// Who this process is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Numbers for `status`.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters;
        counters.late_writes = self.beacon.late_writes;
        for connection in self.connections.values() {
            let (resends, torn) = connection.counters();
            counters.resends += resends;
            counters.torn += torn;
        }
        counters
    }

    /// Free and all segments of the lane.
    #[must_use]
    pub fn segments(&self) -> (usize, usize) {
        (self.pool.free_count(), self.pool.total())
    }

    /// The connections.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.values()
    }

    // ---- commands -------------------------------------------------------------------------------

    /// Calls lane 0 of the host `name`.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect(&mut self, now: Instant, name: &str) -> Result<ConnectionId, ConnectError> {
        if !matches!(self.life, Life::Running) {
            return Err(ConnectError::NotStarted);
        }
        let unknown = || ConnectError::UnknownPeer(name.to_owned());
        let allowed = self.config.peers.iter().find(|peer| peer.name == name).ok_or_else(unknown)?;
        let row = |record: &&HostRecord| {
            record.name.as_str() == name
                && record.lane == 0
                && record.public_key == allowed.key
                && record.is_active()
        };
        let record = self.hosts.iter().flatten().find(row);
        let record = record.ok_or_else(|| ConnectError::NotEnrolled(name.to_owned()))?.clone();
        let map = TableMap::new(&self.layout);
        let first = map.initiator_id(self.identity.lane, 0);
        let range = first..first + u32::from(map.connections());
        let process_id = self.slots.range(range).next().map(|(id, _)| *id).ok_or(ConnectError::NoSlot)?;
        let mut slot = self.slots.remove(&process_id).ok_or(ConnectError::NoSlot)?;
        slot.serial = slot.serial.wrapping_add(1);
        let (serial, peer_key) = (slot.serial, allowed.key);
        let nonce = random_bytes(self.random.as_mut());
        let hello = self.hello(process_id, nonce);
        let initiator = (self.identity.lane, self.identity.incarnation, self.identity.nonce_low());
        let binding = binding(&self.layout, initiator, record.host_id, process_id, serial, nonce);
        let opened =
            handshake::initiate(&self.config.secrets, &peer_key, &binding, &hello, self.random.as_mut());
        let Ok((initiating, message)) = opened else {
            self.slots.insert(process_id, slot);
            return Err(ConnectError::NotEnrolled(name.to_owned()));
        };
        let id = self.next_id();
        let peer = Peer { lane: record.host_id, name: record.name.clone(), key: peer_key, record };
        let opening = Opening { initiating, message, nonce };
        let window = self.config.window;
        let connection = Connection::initiate(&mut self.split(now).0, id, peer, slot, opening, window);
        self.connections.insert(id, connection);
        self.watched.insert(id, PeerWatch { since: now, due: now, first: None, advanced: false });
        Ok(id)
    }

    /// Whether a segment may be sent on `connection`.
    #[must_use]
    pub fn has_room(&self, connection: ConnectionId) -> bool {
        self.connections.get(connection).is_some_and(Connection::has_room)
    }

    /// Sends a segment; nothing where the connection has no room or is gone.
    pub fn send(&mut self, now: Instant, connection: ConnectionId, segment: Segment) {
        if self.has_room(connection) {
            self.act(now, connection, |connection, shared| connection.send(shared, segment));
        }
    }

    /// Sends a command through the process id table.
    pub fn send_command(&mut self, now: Instant, id: ConnectionId, opcode: u16, request: u64, body: Vec<u8>) {
        self.act(now, id, |connection, shared| connection.send_command(shared, opcode, request, body));
    }

    /// Whether a segment came on `connection` that was not taken yet.
    #[must_use]
    pub fn has_segment(&self, connection: ConnectionId) -> bool {
        self.connections.get(connection).is_some_and(|connection| connection.segments_waiting() > 0)
    }

    /// The next segment that came on `connection`, in order.
    pub fn poll_segment(&mut self, now: Instant, connection: ConnectionId) -> Option<Segment> {
        if !self.has_segment(connection) {
            return None;
        }
        let take = |connection: &mut Connection, shared: &mut Shared<'_>| {
            let segment = connection.poll_segment();
            connection.pump(shared);
            segment
        };
        self.act(now, connection, take).flatten()
    }

    /// Closes in order: what was sent is acknowledged first.
    pub fn close(&mut self, now: Instant, id: ConnectionId) {
        self.act(now, id, Connection::close);
        self.settle(now);
    }

    /// Ends a connection at once.
    pub fn end(&mut self, now: Instant, id: ConnectionId, reason: CloseReason) {
        self.act(now, id, |connection, shared| connection.end(shared, reason));
        self.settle(now);
    }

    /// Ends everything and shows it in the beacon.
    pub fn shut_down(&mut self, now: Instant) {
        self.leaving = true;
        self.beacon.mark_dirty();
        for id in self.connections.ids() {
            self.end(now, id, CloseReason::ShuttingDown);
        }
        self.handle_timeout(now);
    }

    /// Whether nothing is left to write after [`shut_down`](Self::shut_down).
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.connections.is_empty()
            && self.in_flight.is_empty()
            && self.out.io.is_empty()
            && !self.beacon.is_dirty()
    }

    // ---- events in ------------------------------------------------------------------------------

    /// The local state has been written.
    pub fn handle_persisted(&mut self, now: Instant) {
        if let Life::Starting(startup) = &mut self.life {
            startup.handle_persisted(&self.layout, &self.buffers);
        }
        self.pump_startup(now);
    }

    /// An I/O has ended.
    pub fn handle_completion(&mut self, now: Instant, completion: IoCompletion) {
        let Some(InFlight { purpose }) = self.in_flight.remove(&completion.tag.0) else { return };
        let success = completion.outcome.is_ok();
        if let Err(error) = &completion.outcome {
            self.out.events.push_back(Event::Notice(format!("{purpose:?}: {error}")));
        }
        let buffer = match completion.buffer {
            IoBuffer::Read(buffer) if success => Some(buffer),
            _ => None,
        };
        match purpose {
            Purpose::Admin(read) => self.handle_admin(now, read, buffer.as_ref()),
            Purpose::Startup(io) => self.handle_startup_io(now, io, success, buffer.as_ref()),
            Purpose::BeaconRead => self.handle_beacon_read(now, buffer.as_ref()),
            Purpose::BeaconWrite => self.handle_beacon_written(now, success),
            Purpose::BellRead => self.handle_bell(now, buffer.as_ref()),
            Purpose::Ring => {}
            Purpose::Scan => self.handle_scan(now, buffer.as_ref()),
            Purpose::CallerEntry { host, slot } => self.handle_caller(now, host, slot, buffer.as_ref()),
            Purpose::InDirectory(version) => {
                self.in_directory.handle_written(now, version, success);
            }
            Purpose::PeerBeacon(id) => self.handle_peer_beacon(now, id, buffer.as_ref()),
            Purpose::Connection(id, io) => {
                self.act(now, id, |connection, shared| connection.handle_io(shared, io, success, buffer));
            }
        }
        self.settle(now);
    }

    /// Sealing or opening has ended.
    pub fn handle_work(&mut self, now: Instant, tag: WorkTag, done: SealDone) {
        let WorkTag { connection, seq, attempt, reading } = tag;
        self.act(now, connection, |connection, shared| {
            connection.handle_work(shared, seq, attempt, done, reading);
        });
        self.settle(now);
    }

    // ---- what comes out -------------------------------------------------------------------------

    /// The next request for the volume: device and request, its address in blocks of 4,096 bytes.
    pub fn poll_io(&mut self) -> Option<(u16, IoRequest)> {
        let (purpose, command) = self.out.io.pop_front()?;
        let tag = IoTag(self.next_tag);
        self.next_tag += 1;
        self.in_flight.insert(tag.0, InFlight { purpose });
        Some(match command {
            IoCommand::Read { address, length } => {
                let buffer = self.buffers.take(length);
                (address.device, IoRequest::read(tag, Lba(address.block), buffer))
            }
            IoCommand::Write { address, bytes, durable } => {
                let mut request = IoRequest::write(tag, Lba(address.block), bytes, durable);
                // Our seals tell a late copy from what is expected; the incarnation record has no reader
                // that expects anything, so it keeps the fence.
                if !durable {
                    request.fence = FencePolicy::Unsafe;
                }
                debug_assert!(matches!(request.operation, Operation::Write { .. }));
                (address.device, request)
            }
        })
    }

    /// The next piece of sealing work.
    pub fn poll_work(&mut self) -> Option<(WorkTag, SealWork)> {
        self.out.work.pop_front()
    }

    /// The next connection, each once, that takes segments again or on which segments came, since it was last named.
    pub fn poll_moved(&mut self) -> Option<ConnectionId> {
        self.news.moved.pop(|_| true)
    }

    /// Whether [`poll_moved`](Self::poll_moved) has one to name.
    #[must_use]
    pub fn has_moved(&self) -> bool {
        !self.news.moved.is_empty()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.out.events.pop_front()
    }

    fn hello(&self, process_id: u32, nonce: [u8; 16]) -> Hello {
        Hello {
            protocol_version: 1,
            window: self.config.window,
            seg_max: self.layout.master.seg_max,
            process_id,
            lane: self.identity.lane,
            incarnation: self.identity.incarnation,
            incarnation_nonce: self.identity.nonce,
            nonce,
        }
    }

    fn next_id(&mut self) -> ConnectionId {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        id
    }

    fn page<R: Record>(&self, record: &R) -> SharedBuffer {
        let mut buffer = self.buffers.take_zeroed(BLOCK_BYTES);
        record.emit(&mut buffer);
        seal_page(&mut buffer, None);
        buffer.freeze()
    }
}
