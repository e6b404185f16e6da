//! Two hosts, a small volume and a transfer between them, in virtual time, step by step.
//!
//! The nodes are the program's own. A step is one turn of each: what has come back, the time, and what the node
//! asks for; requests are carried out one step later, so that anything can happen to the disk in between.
//! What holds: a host writes only what it owns, a turn ends, and a job that says *done* is done. Not here:
//! what happens to the disk (`hostile_disk`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use storage_mapping::block::time::earliest;
use storage_mapping::{BufferPool, CopyFate, Effect, Instant, IoRequest, Operation};
use transfer_core::node::{Node, NodeEvent};
use transfer_core::protocol::connection::ConnectionId;
use transfer_core::protocol::discovery::BELL_WARM;
use transfer_core::protocol::endpoint::{AllowedPeer, Endpoint, EndpointConfig, owned_ranges};
use transfer_core::protocol::handshake::{Secrets, public_key_on};
use transfer_core::protocol::startup::LocalState;
use transfer_core::random::SeededRandom;
use transfer_core::transfer::message::JobOptions;
use transfer_core::transfer::{Job, LocalStore, Outcome, RelativePath, SessionEvent, SourceOrigin, Verdict};
use volume::{BlockAddress, OwnedRanges};

use super::disk::Disks;
use super::memory_files::{Content, MemoryFiles, NAMES, source};
use super::sample::{HOSTS, private_key, sample};
use crate::stand_in::curve;

/// Passes of one turn, at most.
const PASSES_MAX: usize = 100;
/// What a step costs.
const STEP: Duration = Duration::from_micros(10);
/// Segments in flight.
const WINDOW: u16 = 4;

/// A host: what it remembers, and its process.
struct Host {
    number: usize,
    node: Node,
    pool: BufferPool,
    owned: OwnedRanges,
    queue: VecDeque<(u16, IoRequest)>,
    files: Arc<MemoryFiles>,
    local: LocalState,
    started: bool,
    stopped: bool,
    outcome: Option<Outcome>,
    lives: u8,
}

/// The two hosts and their disks.
pub struct Scene {
    /// The disks.
    pub disks: Disks,
    /// The time.
    pub now: Instant,
    hosts: [Host; 2],
    stream: bool,
    call: Option<ConnectionId>,
}

impl std::fmt::Debug for Scene {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for host in &self.hosts {
            let open: Vec<_> =
                host.node.endpoint().connections().map(|open| (open.role(), open.phase())).collect();
            let (name, node, outcome) = (HOSTS[host.number], &host.node, &host.outcome);
            let (started, stopped) = (host.started, host.stopped);
            write!(f, "{name}: {node:?}, started {started}, stopped {stopped}, {open:?}, {outcome:?}; ")?;
        }
        write!(f, "call {:?}", self.call)
    }
}

fn peer_key(host: usize) -> [u8; 32] {
    static KEYS: std::sync::OnceLock<[[u8; 32]; 2]> = std::sync::OnceLock::new();
    KEYS.get_or_init(|| [public_key_on(curve, &private_key(0)), public_key_on(curve, &private_key(1))])[host]
}

impl Host {
    fn new(number: usize, now: Instant) -> Self {
        let pool = BufferPool::new();
        let files = Arc::new(MemoryFiles::new(pool.clone(), Content::Known));
        let local = LocalState::default();
        let node = node(number, &pool, local.clone(), 0, now);
        Self {
            number,
            node,
            pool,
            owned: owned_ranges(&sample().layout, sample().host(number)),
            queue: VecDeque::new(),
            files,
            local,
            started: false,
            stopped: false,
            outcome: None,
            lives: 0,
        }
    }

    /// The process ends without a word and starts again.
    fn restart(&mut self, now: Instant) {
        self.lives += 1;
        self.node = node(self.number, &self.pool, self.local.clone(), self.lives, now);
        self.queue.clear();
        (self.started, self.stopped, self.outcome) = (false, false, None);
    }

    /// One turn; requests that were asked for in the last one are carried out first.
    fn turn(&mut self, now: Instant, disks: &Disks) {
        for (device, mut request) in std::mem::take(&mut self.queue) {
            disks.execute(device, &mut request.operation);
            let done = request.complete(Ok(()), Effect::Full, CopyFate::Dead);
            self.node.handle_completion(now, done);
        }
        self.node.handle_timeout(now);
        for _ in 0..PASSES_MAX {
            if !self.pass(now) {
                return;
            }
            self.node.pump(now);
        }
        panic!("{} works without end", HOSTS[self.number]);
    }

    /// Carries out what the node asks for; `true` if there was anything but I/O.
    fn pass(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some((tag, work)) = self.node.poll_work() {
            let done = work.run(&self.pool);
            self.node.handle_work(now, tag, done);
            moved = true;
        }
        while let Some((connection, request)) = self.node.poll_local(now, |_| true) {
            let reply = self.files.execute(request);
            self.node.handle_local(now, connection, reply);
            moved = true;
        }
        while let Some(event) = self.node.poll_event() {
            self.handle_event(now, event);
            moved = true;
        }
        while let Some((device, request)) = self.node.poll_io() {
            self.check(device, &request);
            self.queue.push_back((device, request));
        }
        moved
    }

    fn handle_event(&mut self, now: Instant, event: NodeEvent) {
        match event {
            NodeEvent::Persist(local) => {
                self.local = local;
                self.node.handle_persisted(now);
            }
            NodeEvent::Started => self.started = true,
            NodeEvent::Stopped(_) => self.stopped = true,
            NodeEvent::Session { event: SessionEvent::Finished(outcome), .. } => self.outcome = Some(outcome),
            _ => {}
        }
    }

    /// A host writes only what it owns, and looks only at what is there.
    fn check(&self, device: u16, request: &IoRequest) {
        let row = sample().layout.table.rows.get(usize::from(device)).expect("a device of the volume");
        let (block, length) = match &request.operation {
            Operation::Read { lba, buffer } => (lba.0, buffer.len()),
            Operation::Write { lba, data, .. } => {
                let start = BlockAddress { device, block: lba.0 };
                assert!(
                    self.owned.allow(start, data.len()),
                    "{start} is not {}'s to write",
                    HOSTS[self.number]
                );
                (lba.0, data.len())
            }
            Operation::Flush => return,
        };
        let end = block.checked_add(length as u64 / 4096);
        assert!(
            end.is_some_and(|end| end <= row.device_size),
            "block {block} of device {device} is not there"
        );
    }
}

fn node(number: usize, pool: &BufferPool, local: LocalState, life: u8, now: Instant) -> Node {
    let sample = sample();
    let other = 1 - number;
    let config = EndpointConfig {
        own: sample.host(number).clone(),
        answers: number == 1,
        secrets: Secrets { curve, ..Secrets::new(private_key(number)) },
        peers: vec![AllowedPeer { name: HOSTS[other].to_owned(), key: peer_key(other) }],
        window: WINDOW,
        connections_per_peer_max: 2,
        bell_pause: BELL_WARM,
        local,
    };
    let seed = u8::try_from(number).expect("two hosts") + 10 + 2 * life;
    let random = Box::new(SeededRandom::new(&[seed; 32]));
    let (layout, hosts) = (Arc::clone(&sample.layout), Arc::clone(&sample.hosts));
    let endpoint = Endpoint::new(layout, hosts, config, pool.clone(), random, now);
    Node::new(endpoint, pool.clone(), "fuzzed")
}

impl Scene {
    /// Two processes that start; the first will send a stream, or two files, to the second.
    #[must_use]
    pub fn new(disks: Disks, stream: bool) -> Self {
        let now = Instant(1_000_000_000);
        Self { disks, now, hosts: [Host::new(0, now), Host::new(1, now)], stream, call: None }
    }

    fn job(&self) -> Job {
        let origin = if self.stream {
            SourceOrigin::Stream
        } else {
            SourceOrigin::Local(NAMES.iter().map(|name| name.as_bytes().to_vec()).collect())
        };
        let destination = RelativePath::from_joined(b"there").expect("a name");
        let options = if self.stream { JobOptions::empty() } else { JobOptions::RECURSIVE };
        Job::Push { peer: HOSTS[1].into(), origin, export: b"box".to_vec(), destination, options }
    }

    /// One step of both hosts; the time goes on to what is due next.
    ///
    /// # Panics
    /// If a promise is broken.
    pub fn step(&mut self) {
        for host in &mut self.hosts {
            host.turn(self.now, &self.disks);
        }
        if self.call.is_none() && self.hosts.iter().all(|host| host.started && !host.stopped) {
            let job = self.job();
            self.call = self.hosts[0].node.request(self.now, HOSTS[1], job).ok();
        }
        self.check_outcome();
        let busy = self.hosts.iter().any(|host| !host.queue.is_empty());
        let wakeups = self.hosts.iter().map(|host| host.node.next_wakeup());
        let next = wakeups.fold(None, earliest).filter(|_| !busy).unwrap_or(self.now);
        self.now = next.max(self.now + STEP);
    }

    fn check_outcome(&self) {
        let done = |outcome: &Outcome| outcome.verdict == Verdict::Done;
        if self.hosts[0].outcome.as_ref().is_some_and(done) {
            let published = self.hosts[1].files.published();
            let there = |name: &str| published.values().any(|bytes| *bytes == source(name.as_bytes()));
            assert!(there(NAMES[0]) && (self.stream || there(NAMES[1])), "done, and the files are not there");
        }
    }

    /// How the job of the first host ended, if it did.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        self.hosts[0].outcome.as_ref()
    }

    /// Whether one of the processes has given up its lane.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.hosts.iter().any(|host| host.stopped)
    }

    /// Both processes end without a word and start again, with what they remember.
    pub fn restart(&mut self) {
        self.now = self.now + Duration::from_secs(1);
        self.hosts.iter_mut().for_each(|host| host.restart(self.now));
        self.call = None;
    }
}
