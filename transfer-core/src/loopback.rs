//! Two processes of two hosts on one volume in memory: the smallest world in which a connection lives.
//!
//! For examples, tests and measurements of the protocol alone: no files, no configuration, no workers.
//! Each [`Process`] drives its endpoint in the thread that calls it, and knows nothing of the other but
//! the blocks that both see. What holds: the endpoint is the program's own, and so is the volume; only the
//! devices under it are memory. Not here: sessions and files (`node`, `driver`), faults, virtual time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use storage_mapping::block::time::earliest;
use storage_mapping::device::MemoryDisk;
use storage_mapping::{BlockCount, BlockDevice, BlockSize, BufferPool, wait};
use volume::Volume;
use volume::layout::{Layout, PlannedDevice, VolumePlan};
use volume::record::Text;
use volume::sync::Waiter;

use crate::driver::clock::{Clock, OsRandom};
use crate::enrolment::read_host_table;
use crate::format::host_table::HostRecord;
use crate::payload::{Payload, Segment, SegmentKind};
use crate::protocol::connection::{ConnectionId, Phase};
use crate::protocol::discovery::BELL_WARM;
use crate::protocol::endpoint::{AllowedPeer, ConnectError, Endpoint, EndpointConfig, Event, owned_ranges};
use crate::protocol::handshake::{Secrets, public_key};
use crate::protocol::startup::LocalState;
use crate::random::{Random, random_bytes};

/// The hosts, each with one lane.
const HOSTS: [&str; 2] = ["alpha", "beta"];
/// Blocks of each of the three disks: 24 MiB.
const DISK_BLOCKS: u64 = 6000;
/// Payload of a segment.
const SEGMENT_BYTES: u32 = 64 << 10;
/// Segments in flight per direction.
const WINDOW: u16 = 16;
/// Shorter pauses are not slept.
const SPIN_MAX: Duration = Duration::from_micros(10);
/// Longest wait, should nothing be due.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// One process of a host. Whoever calls it drives it.
#[derive(Debug)]
pub struct Process {
    endpoint: Endpoint,
    volume: Volume,
    buffers: BufferPool,
    clock: Clock,
    started: bool,
    /// Connections that came while something else was waited for.
    arrived: VecDeque<ConnectionId>,
}

/// A volume of a master and two secondaries in memory, and on it a process of host `alpha` and one of
/// host `beta`, which know each other's keys and answer each other's calls.
#[must_use]
pub fn two_hosts() -> [Process; 2] {
    let admin_seed: [u8; 32] = random_bytes(&mut OsRandom);
    let admin = Ed25519KeyPair::from_seed_unchecked(&admin_seed).expect("a seed of 32 bytes");
    let mut keys = [[0; 32]; 2];
    keys.iter_mut().for_each(|key| OsRandom.fill(key));
    let disks: Vec<_> = (0..3).map(|_| MemoryDisk::new(BlockSize::B4096, BlockCount(DISK_BLOCKS))).collect();
    let layout = plan().layout(&admin).expect("the plan fits the disks");
    let rows = HOSTS.iter().zip(&keys).zip(0..).flat_map(|((name, key), row)| {
        let name = Text::new(name).expect("a short name");
        HostRecord::new(&layout, row, name, public_key(key), 0, &admin).pages(&layout)
    });
    let rows: Vec<_> = rows.collect();
    volume::create::create(&Waiter::idle(), devices(&disks), &layout, &rows)
        .expect("disks in memory take every write");
    [0, 1].map(|host| Process::new(&disks, host, keys[host], (HOSTS[1 - host], public_key(&keys[1 - host]))))
}

fn plan() -> VolumePlan {
    let device = |name| PlannedDevice::new(name, DISK_BLOCKS).expect("a short name");
    VolumePlan {
        devices: vec![device("master"), device("left"), device("right")],
        lanes: 2,
        connections: 2,
        segment_payload_bytes: SEGMENT_BYTES,
        volume_id: random_bytes(&mut OsRandom),
        time_id: 0,
        unix_filename: "memory".into(),
    }
}

fn devices(disks: &[MemoryDisk]) -> Vec<Box<dyn BlockDevice>> {
    disks.iter().map(|disk| Box::new(disk.device()) as Box<dyn BlockDevice>).collect()
}

impl Process {
    fn new(disks: &[MemoryDisk], host: usize, private_key: [u8; 32], peer: (&str, [u8; 32])) -> Self {
        let waiter = Waiter::idle();
        let opened = volume::open::open(&waiter, devices(disks), None, None);
        let mut volume = opened.expect("the volume was laid out just now").volume;
        let layout: Arc<Layout> = Arc::new(volume.layout().clone());
        let master = volume.device_mut(0).expect("a volume has a master");
        let table = read_host_table(&waiter, master, &layout).expect("memory can be read");
        let own = table.rows[host].clone().expect("the row was written just now");
        volume.own(owned_ranges(&layout, &own));
        let buffers = BufferPool::new();
        let config = EndpointConfig {
            own,
            answers: true,
            secrets: Secrets::new(private_key),
            peers: vec![AllowedPeer { name: peer.0.to_owned(), key: peer.1 }],
            window: WINDOW,
            connections_per_peer_max: 2,
            bell_pause: BELL_WARM,
            local: LocalState::default(),
        };
        let clock = Clock::new();
        let random = Box::new(OsRandom);
        let endpoint =
            Endpoint::new(layout, Arc::new(table.rows), config, buffers.clone(), random, clock.now());
        Self::of(endpoint, volume, buffers, clock)
    }

    /// A process of an endpoint that is about to start, on a volume of any devices; `buffers` is the
    /// endpoint's pool and `clock` told it the time.
    #[must_use]
    pub fn of(endpoint: Endpoint, mut volume: Volume, buffers: BufferPool, clock: Clock) -> Self {
        volume.attach_pool(&buffers);
        Self { endpoint, volume, buffers, clock, started: false, arrived: VecDeque::new() }
    }

    /// The endpoint, to look at.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Starts, calls `host`, and waits until the connection stands.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect(&mut self, host: &str) -> Result<ConnectionId, ConnectError> {
        while !self.started {
            self.next_event();
        }
        self.endpoint.connect(self.clock.now(), host)?;
        Ok(self.accept())
    }

    /// Waits until a connection stands, whoever called.
    pub fn accept(&mut self) -> ConnectionId {
        loop {
            if let Some(connection) = self.arrived.pop_front() {
                return connection;
            }
            if let Event::Connected { connection, .. } = self.next_event() {
                return connection;
            }
        }
    }

    /// Sends `bytes` as one segment, at most [`Connection::seg_max`] of them; waits until there is room.
    ///
    /// [`Connection::seg_max`]: crate::protocol::connection::Connection::seg_max
    pub fn send(&mut self, connection: ConnectionId, bytes: &[u8]) {
        self.send_as(SegmentKind::Data, connection, bytes);
    }

    /// Sends `bytes` as a message, as [`send`](Self::send) sends data. A small one travels in the pointer table itself.
    pub fn say(&mut self, connection: ConnectionId, bytes: &[u8]) {
        self.send_as(SegmentKind::Command, connection, bytes);
    }

    fn send_as(&mut self, kind: SegmentKind, connection: ConnectionId, bytes: &[u8]) {
        while !self.endpoint.has_room(connection) && self.is_open(connection) {
            self.turn_or_wait();
        }
        let payload = Payload::copy_of(&self.buffers, bytes);
        let segment = Segment { kind, request: 1, offset: 0, last: true, payload };
        self.endpoint.send(self.clock.now(), connection, segment);
    }

    /// The next segment that came, or `None` when the connection has ended.
    pub fn receive(&mut self, connection: ConnectionId) -> Option<Segment> {
        loop {
            if let Some(segment) = self.endpoint.poll_segment(self.clock.now(), connection) {
                return Some(segment);
            }
            if !self.is_open(connection) {
                return None;
            }
            self.turn_or_wait();
        }
    }

    /// Closes in order: waits until everything sent was acknowledged and the end is on the disk.
    pub fn close(&mut self, connection: ConnectionId) {
        self.endpoint.close(self.clock.now(), connection);
        while self.endpoint.connections().any(|open| open.id == connection) {
            self.turn_or_wait();
        }
    }

    /// Runs until the endpoint says something.
    pub fn next_event(&mut self) -> Event {
        loop {
            if let Some(event) = self.poll_event() {
                return event;
            }
            if !self.turn() {
                self.wait();
            }
        }
    }

    fn is_open(&self, connection: ConnectionId) -> bool {
        let mut connections = self.endpoint.connections();
        connections.any(|open| open.id == connection && open.phase() == Phase::Established)
    }

    fn poll_event(&mut self) -> Option<Event> {
        loop {
            match self.endpoint.poll_event()? {
                // A process in memory has one life: there is nothing to remember for the next.
                Event::Persist(_) => self.endpoint.handle_persisted(self.clock.now()),
                event => {
                    self.started |= matches!(event, Event::Started);
                    return Some(event);
                }
            }
        }
    }

    fn turn_or_wait(&mut self) {
        while let Some(event) = self.poll_event() {
            if let Event::Connected { connection, .. } = event {
                self.arrived.push_back(connection);
            }
        }
        if !self.turn() {
            self.wait();
        }
    }

    /// Carries out what the endpoint asks for; `true` if anything moved.
    fn turn(&mut self) -> bool {
        let now = self.clock.now();
        let mut moved = false;
        self.endpoint.handle_timeout(now);
        while let Some((tag, work)) = self.endpoint.poll_work() {
            self.endpoint.handle_work(now, tag, work.run(&self.buffers));
            moved = true;
        }
        while let Some((device, request)) = self.endpoint.poll_io() {
            self.volume.submit(now, device, request);
            moved = true;
        }
        while let Some((_, completion)) = self.volume.poll(now) {
            self.endpoint.handle_completion(now, completion);
            moved = true;
        }
        moved
    }

    fn wait(&self) {
        let now = self.clock.now();
        let wakeup = earliest(self.endpoint.next_wakeup(), self.volume.next_wakeup());
        let until = earliest(wakeup, Some(now + WAIT_MAX)).unwrap_or(now);
        let pause = until.since(now);
        if pause <= SPIN_MAX {
            return std::hint::spin_loop();
        }
        let mut descriptors = Vec::new();
        self.volume.wait_on(&mut descriptors);
        wait::wait(&descriptors, Some(pause));
    }
}
