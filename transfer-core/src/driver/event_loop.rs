//! One loop: results in, a node's requests out, then wait for a descriptor or the nearest wake-up.
//!
//! What holds: only this loop waits; no I/O of a device, however long it hangs, holds up another; the node
//! is told the time and nothing else about the world. Not here: what to do with events (the program).

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use storage_mapping::block::time::earliest;
use storage_mapping::scheduling::{take_turns_as_usual, wait_for_turns};
use storage_mapping::{BufferPool, Instant, wait};
use volume::Volume;

use super::clock::Clock;
use super::work_pool::{Lane, WorkPool};
use crate::node::{Node, NodeEvent};
use crate::protocol::connection::ConnectionId;
use crate::protocol::endpoint::WorkTag;
use crate::protocol::seal::SealDone;
use crate::transfer::{LocalReply, LocalStore};

/// Sealing of less than this is done in the loop.
const SEAL_AT_ONCE_BYTES: usize = 16 << 10;
/// Shorter pauses are not slept: to sleep and to wake takes longer.
const SPIN_MAX: Duration = Duration::from_micros(10);
/// From so much work on that workers have, it is bulk.
const BULK_PENDING: usize = 3;
/// Longest wait, so that signals and the program's own questions are seen.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// What workers bring back.
enum Done {
    Seal(WorkTag, SealDone),
    Local(ConnectionId, LocalReply),
}

/// A node on a volume, driven by real time.
pub struct Driver {
    node: Node,
    volume: Volume,
    buffers: BufferPool,
    clock: Clock,
    workers: WorkPool<Done>,
    stores: BTreeMap<ConnectionId, Arc<dyn LocalStore + Send + Sync>>,
    descriptors: Vec<RawFd>,
    /// Whether the calling thread waits for its turns.
    is_patient: bool,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Driver({:?})", self.node)
    }
}

impl Driver {
    /// A driver of `node` on `volume`; `buffers` is the node's pool.
    ///
    /// # Errors
    /// If the worker threads cannot be started.
    pub fn new(node: Node, mut volume: Volume, buffers: BufferPool, clock: Clock) -> std::io::Result<Self> {
        volume.attach_pool(&buffers);
        let workers = WorkPool::new()?;
        let stores = BTreeMap::new();
        Ok(Self { node, volume, buffers, clock, workers, stores, descriptors: Vec::new(), is_patient: false })
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// The node, to ask and to command.
    pub fn node(&mut self) -> &mut Node {
        &mut self.node
    }

    /// The volume, to look at.
    #[must_use]
    pub fn volume(&mut self) -> &mut Volume {
        &mut self.volume
    }

    /// Says which files a connection's session works on. To be called when it is made or connected.
    pub fn attach_store(&mut self, connection: ConnectionId, store: Arc<dyn LocalStore + Send + Sync>) {
        self.stores.insert(connection, store);
    }

    /// Forgets a connection's files.
    pub fn detach_store(&mut self, connection: ConnectionId) {
        self.stores.remove(&connection);
    }

    /// Runs until there is an event, or until `limit` has passed. `wake` are further descriptors that end
    /// the wait (signals, sockets).
    pub fn next_event(&mut self, limit: Option<Instant>, wake: &[RawFd]) -> Option<NodeEvent> {
        loop {
            // One turn may bring many, and none of them needs a turn of its own.
            if let Some(event) = self.node.poll_event() {
                return Some(event);
            }
            let moved = self.turn();
            if self.node.has_event() {
                continue;
            }
            let now = self.clock.now();
            if limit.is_some_and(|limit| now >= limit) {
                return None;
            }
            if !moved && self.wait(limit, wake) {
                return None;
            }
        }
    }

    /// One turn; `true` if anything moved.
    fn turn(&mut self) -> bool {
        let mut moved = false;
        let now = self.clock.now();
        while let Some(done) = self.workers.poll() {
            moved = true;
            match done {
                Done::Seal(tag, done) => self.node.handle_work(now, tag, done),
                Done::Local(connection, reply) => self.node.handle_local(now, connection, reply),
            }
        }
        while let Some((_, completion)) = self.volume.poll(now) {
            moved = true;
            self.node.handle_completion(now, completion);
        }
        self.node.handle_timeout(now);
        moved |= self.carry_out(now);
        moved
    }

    /// Carries out what the node asks for.
    fn carry_out(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some((tag, work)) = self.node.poll_work() {
            moved = true;
            if work.cost_bytes() < SEAL_AT_ONCE_BYTES {
                let done = work.run(&self.buffers);
                self.node.handle_work(now, tag, done);
            } else {
                let buffers = self.buffers.clone();
                self.workers.spawn(Lane::Compute, move || Done::Seal(tag, work.run(&buffers)));
            }
        }
        let stores = &self.stores;
        while let Some((connection, request)) = self.node.poll_local(now, |id| stores.contains_key(&id)) {
            moved = true;
            let store = Arc::clone(&stores[&connection]);
            self.workers.spawn(Lane::Files, move || Done::Local(connection, store.execute(request)));
        }
        while let Some((device, request)) = self.node.poll_io() {
            moved = true;
            self.volume.submit(now, device, request);
        }
        moved
    }

    /// While much is with the workers, the loop does not push them off their processors for each thing that is done: it comes
    /// when one is free, and finds several. Otherwise somebody may wait for an answer, and it comes at once.
    fn choose_turns(&mut self) {
        let pending = self.workers.pending();
        let is_bulk = if self.is_patient { pending > 0 } else { pending >= BULK_PENDING };
        if is_bulk != self.is_patient {
            self.is_patient = is_bulk;
            if is_bulk { wait_for_turns() } else { take_turns_as_usual() }
        }
    }

    /// Waits; `true` if one of `wake` may have ended it.
    fn wait(&mut self, limit: Option<Instant>, wake: &[RawFd]) -> bool {
        let now = self.clock.now();
        let mut until = earliest(Some(now + WAIT_MAX), limit);
        until = earliest(until, self.node.next_wakeup());
        until = earliest(until, self.volume.next_wakeup());
        let pause = until.map_or(WAIT_MAX, |until| until.since(now));
        if pause <= SPIN_MAX {
            std::hint::spin_loop();
            return false;
        }
        self.choose_turns();
        self.descriptors.clear();
        self.descriptors.push(self.workers.descriptor());
        self.volume.wait_on(&mut self.descriptors);
        self.descriptors.extend_from_slice(wake);
        wait::wait(&self.descriptors, Some(pause));
        !wake.is_empty()
    }
}
