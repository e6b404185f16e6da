//! Hosts of a world in virtual time: hours of waiting pass at once, on disks that answer at once.
//!
//! Keeps true: time goes from one wake-up of a host or its devices to the next and never back, so what happens is what would
//! happen on disks without latency. Not here: real time (`world`).

use std::sync::Arc;
use std::time::Duration;

use storage_mapping::block::time::earliest;
use storage_mapping::device::MemoryDisk;
use storage_mapping::{BlockCount, BlockSize, BufferPool, Instant};
use transfer_core::node::{Node, NodeEvent};
use transfer_core::transfer::LocalStore;
use volume::Volume;

use super::super::CommandError;
use super::counted::{Counted, Counts};
use super::disks::layered;
use super::memory_store::MemoryStore;
use super::world::{Extent, OpenDevices, SEGMENT_BYTES, World, failed};

/// When virtual time begins.
const BEGIN: Instant = Instant(1_000_000_000);
/// Turns at one moment after which something goes round in a circle.
const TURNS_MAX: u32 = 100_000;

/// A volume on disks in memory, whose I/O is counted below the multipath layer.
pub(super) fn world(extent: &Extent, counts: &Arc<Counts>) -> Result<World, CommandError> {
    let blocks = extent.device_bytes().into_iter().map(|bytes| BlockCount(bytes / 4096));
    let disks: Vec<_> = blocks.map(|count| MemoryDisk::new(BlockSize::B4096, count)).collect();
    let counts = Arc::clone(counts);
    let open: OpenDevices = Box::new(move || {
        let device = |disk: &MemoryDisk| layered(Box::new(Counted::new(disk.device(), &counts)));
        disks.iter().map(device).collect()
    });
    World::create(extent, open)
}

/// One host.
struct Actor {
    node: Node,
    volume: Volume,
    pool: BufferPool,
    store: MemoryStore,
    events: Vec<NodeEvent>,
}

/// Some hosts and their time.
pub(super) struct VirtualTime {
    now: Instant,
    actors: Vec<Actor>,
}

impl VirtualTime {
    /// These hosts of the world, started.
    pub(super) fn start(world: &World, hosts: &[usize]) -> Result<Self, CommandError> {
        let mut actors = Vec::new();
        for host in hosts {
            let (node, mut volume, pool) = world.node(*host, BEGIN)?;
            volume.attach_pool(&pool);
            let store = MemoryStore::new(pool.clone(), SEGMENT_BYTES as usize, 0);
            actors.push(Actor { node, volume, pool, store, events: Vec::new() });
        }
        let mut time = Self { now: BEGIN, actors };
        time.pass(Duration::from_secs(1))?;
        let is_started = |actor: &Actor| actor.events.iter().any(|event| matches!(event, NodeEvent::Started));
        if time.actors.iter().all(is_started) { Ok(time) } else { Err(failed("a host does not start")) }
    }

    /// The time.
    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// A host's node, by its place in the list.
    pub(super) fn node(&mut self, actor: usize) -> &mut Node {
        &mut self.actors[actor].node
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, time: Duration) -> Result<(), CommandError> {
        let end = self.now + time;
        self.run(end, |_| false).map(|_| ())
    }

    /// Lets time pass until the host says something that `wanted` takes; `false` if it does not before `end`.
    pub(super) fn until(
        &mut self,
        actor: usize,
        end: Instant,
        wanted: impl Fn(&NodeEvent) -> bool,
    ) -> Result<bool, CommandError> {
        self.actors.iter_mut().for_each(|actor| actor.events.clear());
        self.run(end, |actors| actors[actor].events.iter().any(&wanted))
    }

    fn run(&mut self, end: Instant, is_there: impl Fn(&[Actor]) -> bool) -> Result<bool, CommandError> {
        loop {
            let mut turns = 0;
            while self.turn() {
                turns += 1;
                if turns > TURNS_MAX {
                    return Err(failed("a host goes round in a circle"));
                }
            }
            if is_there(&self.actors) {
                return Ok(true);
            }
            if self.now >= end {
                return Ok(false);
            }
            let next = self.actors.iter().fold(None, |soonest, actor| {
                earliest(soonest, earliest(actor.node.next_wakeup(), actor.volume.next_wakeup()))
            });
            // What is due already has been done: time goes on all the same.
            let next = next.map_or(end, |next| next.max(self.now + Duration::from_micros(1)));
            self.now = next.min(end);
        }
    }

    fn turn(&mut self) -> bool {
        let now = self.now;
        self.actors.iter_mut().fold(false, |moved, actor| actor.turn(now) | moved)
    }
}

impl Actor {
    fn turn(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some((_, completion)) = self.volume.poll(now) {
            self.node.handle_completion(now, completion);
            moved = true;
        }
        self.node.handle_timeout(now);
        while let Some((tag, work)) = self.node.poll_work() {
            self.node.handle_work(now, tag, work.run(&self.pool));
            moved = true;
        }
        while let Some((connection, request)) = self.node.poll_local(now, |_| true) {
            self.node.handle_local(now, connection, self.store.execute(request));
            moved = true;
        }
        while let Some((device, request)) = self.node.poll_io() {
            self.volume.submit(now, device, request);
            moved = true;
        }
        if moved {
            self.node.pump(now);
        }
        while let Some(event) = self.node.poll_event() {
            if matches!(event, NodeEvent::Persist(_)) {
                self.node.handle_persisted(now);
            }
            self.events.push(event);
            moved = true;
        }
        moved
    }
}
