//! One simulated process: a node, its volume and its files, driven as the program's event loop drives them.
//!
//! A turn takes what has come back, tells the time, and carries out what the node asks for. Sealing of
//! large segments and all local work take time and come back in any order, as from workers. Local work
//! happens at a moment between its request and its answer, so that a killed process may have done it or
//! not. Not here: what a process is for (`world`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use storage_mapping::block::time::earliest;
use storage_mapping::{BufferPool, Instant, IoCompletion, Operation};
use transfer_core::node::{Node, NodeEvent};
use transfer_core::protocol::connection::ConnectionId;
use transfer_core::protocol::endpoint::WorkTag;
use transfer_core::protocol::seal::SealDone;
use transfer_core::protocol::startup::LocalState;
use transfer_core::transfer::{LocalReply, LocalRequest, LocalStore, LocalWork};
use volume::Volume;

use crate::chance::Chance;
use crate::snapshot::{Snapshot, Twin, UnderWay};
use crate::trace::Trace;

/// The program seals less than this at once.
const SEAL_AT_ONCE_BYTES: usize = 16 << 10;
/// The program waits no longer than this.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// What a turn costs.
const TURN_COST: Duration = Duration::from_micros(3);

/// Something that a worker is at.
enum Pending {
    Sealed(WorkTag, SealDone, Option<SealDone>),
    /// What comes back to a process that was set back.
    Returned(Box<IoCompletion>),
    Execute(ConnectionId, Arc<dyn LocalStore>, LocalRequest),
    Answer(ConnectionId, LocalReply),
}

/// A process.
pub struct Process {
    /// Its name, for the trace.
    pub name: String,
    /// Its node.
    pub node: Node,
    /// Its buffers.
    pub pool: BufferPool,
    volume: Volume,
    stores: BTreeMap<ConnectionId, Arc<dyn LocalStore>>,
    workers: BTreeMap<(Instant, u64), Pending>,
    next: u64,
    chance: Chance,
    trace: Trace,
    due: Instant,
    /// Turns since a second began, to notice a process that spins.
    turns: (Instant, u32),
    twin: Option<Box<Twin>>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Process({}, {:?})", self.name, self.node)
    }
}

impl Process {
    /// A process that begins now.
    #[must_use]
    pub fn new(
        name: String,
        node: Node,
        pool: BufferPool,
        mut volume: Volume,
        chance: Chance,
        trace: Trace,
        now: Instant,
    ) -> Self {
        volume.attach_pool(&pool);
        Self {
            name,
            node,
            pool,
            volume,
            stores: BTreeMap::new(),
            workers: BTreeMap::new(),
            next: 0,
            chance,
            trace,
            due: now,
            turns: (now, 0),
            twin: None,
        }
    }

    /// From now on it can be set back to any moment: `twin` was made as its node was.
    #[must_use]
    pub fn with_twin(self, twin: Twin) -> Self {
        Self { twin: Some(Box::new(twin)), ..self }
    }

    /// It goes on from a snapshot whose node it was given.
    #[must_use]
    pub fn with_returned(
        mut self,
        now: Instant,
        returned: Vec<IoCompletion>,
        (sealed, answers): UnderWay,
    ) -> Self {
        for done in returned {
            self.later(now, Pending::Returned(Box::new(done)));
        }
        for (tag, done) in sealed {
            self.later(now, Pending::Sealed(tag, done, None));
        }
        for (connection, reply) in answers {
            self.later(now, Pending::Answer(connection, reply));
        }
        self
    }

    /// Whether local work is under way that has not been done: no snapshot can be taken then, since the files
    /// of whoever goes on from it would have to do it.
    #[must_use]
    pub fn has_local_work(&self) -> bool {
        self.workers.values().any(|pending| matches!(pending, Pending::Execute(..)))
    }

    /// Takes a snapshot; `None` if there was one.
    ///
    /// # Panics
    /// If it [has local work](Self::has_local_work).
    pub fn take_snapshot(&mut self, local: LocalState) -> Option<Snapshot> {
        let twin = *self.twin.take()?;
        let (mut sealed, mut answers) = (Vec::new(), Vec::new());
        for pending in self.workers.values_mut() {
            match pending {
                Pending::Sealed(tag, _, twins) => sealed.extend(twins.take().map(|done| (*tag, done))),
                Pending::Answer(connection, reply) => answers.push((*connection, reply.clone())),
                Pending::Execute(..) => panic!("a snapshot in the middle of local work"),
                Pending::Returned(_) => {}
            }
        }
        let connections = self.stores.keys().copied().collect();
        Some(Snapshot { twin, sealed, answers, connections, local })
    }

    /// Does something to its node.
    pub fn tell<R>(&mut self, what: impl Fn(&mut Node) -> R) -> R {
        if let Some(twin) = &mut self.twin {
            what(&mut twin.node);
        }
        what(&mut self.node)
    }

    /// When it wants to run next.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.due
    }

    /// It has been told something from outside.
    pub fn wake(&mut self, now: Instant) {
        self.due = self.due.min(now);
    }

    /// Turns in the second that runs.
    #[must_use]
    pub fn turns_in_second(&self) -> u32 {
        self.turns.1
    }

    /// Says which files a connection's session works on.
    pub fn attach_store(&mut self, connection: ConnectionId, store: Arc<dyn LocalStore>) {
        self.stores.insert(connection, store);
    }

    /// Forgets a connection's files.
    pub fn detach_store(&mut self, connection: ConnectionId) {
        self.stores.remove(&connection);
    }

    /// One turn. `true` if files may have got their final names.
    pub fn turn(&mut self, now: Instant) -> bool {
        if now.since(self.turns.0) >= Duration::from_secs(1) {
            self.turns = (now, 0);
        }
        self.turns.1 += 1;
        let published = self.take_work(now);
        while let Some((device, done)) = self.volume.poll(now) {
            let (tag, ok) = (done.tag.0, done.outcome.is_ok());
            self.trace.numbers(now, &self.name, &[1, device.into(), tag, ok.into()], || {
                format!("    I/O {tag} on device {device} ended: {}", if ok { "done" } else { "failed" })
            });
            if let Some(twin) = &mut self.twin {
                let copy = twin.copy_completion(&done);
                twin.node.handle_completion(now, copy);
            }
            self.node.handle_completion(now, done);
        }
        self.tell(|node| node.handle_timeout(now));
        self.carry_out(now);
        self.schedule(now);
        published
    }

    /// What the node has to tell; `None` when it is silent.
    pub fn poll_event(&mut self) -> Option<NodeEvent> {
        if let Some(twin) = &mut self.twin {
            twin.node.poll_event();
        }
        self.node.poll_event()
    }

    /// After events were dealt with: what they set off goes out, and the next turn is planned.
    pub fn finish_turn(&mut self, now: Instant) {
        self.carry_out(now);
        self.schedule(now);
    }

    fn schedule(&mut self, now: Instant) {
        let mut wakeup = earliest(Some(now + WAIT_MAX), self.node.next_wakeup());
        wakeup = earliest(wakeup, self.volume.next_wakeup());
        wakeup = earliest(wakeup, self.workers.first_key_value().map(|((at, _), _)| *at));
        self.due = wakeup.unwrap_or(now + WAIT_MAX).max(now + TURN_COST);
    }

    fn take_work(&mut self, now: Instant) -> bool {
        let mut published = false;
        while let Some(first) = self.workers.first_entry().filter(|first| first.key().0 <= now) {
            match first.remove() {
                Pending::Sealed(tag, done, twins) => self.sealed(now, tag, done, twins),
                Pending::Returned(done) => self.node.handle_completion(now, *done),
                Pending::Execute(connection, store, request) => {
                    published |= matches!(request.work, LocalWork::Publish(_));
                    let reply = store.execute(request);
                    let pause = self.chance.duration(Duration::from_micros(5), Duration::from_millis(5));
                    self.later(now + pause, Pending::Answer(connection, reply));
                }
                Pending::Answer(connection, reply) => {
                    self.trace.numbers(now, &self.name, &[2, connection.0, reply.id], || {
                        format!("    local work {} ended: {:?}", reply.id, reply.done)
                    });
                    if let Some(twin) = &mut self.twin {
                        twin.node.handle_local(now, connection, reply.clone());
                    }
                    self.node.handle_local(now, connection, reply);
                }
            }
        }
        published
    }

    fn sealed(&mut self, now: Instant, tag: WorkTag, done: SealDone, twins: Option<SealDone>) {
        if let (Some(twin), Some(done)) = (&mut self.twin, twins) {
            twin.node.handle_work(now, tag, done);
        }
        self.node.handle_work(now, tag, done);
    }

    fn later(&mut self, at: Instant, pending: Pending) {
        self.next += 1;
        self.workers.insert((at, self.next), pending);
    }

    /// Carries out what the node asks for.
    fn carry_out(&mut self, now: Instant) {
        while let Some((tag, work)) = self.node.poll_work() {
            let cost = work.cost_bytes();
            let done = work.run(&self.pool);
            let twins = self.twin.as_mut().map(|twin| {
                let (twins_tag, work) =
                    twin.node.poll_work().expect("the twin asks for what the node asks for");
                assert!(twins_tag == tag, "the twin seals something else");
                work.run(&twin.pool)
            });
            if cost < SEAL_AT_ONCE_BYTES {
                self.sealed(now, tag, done, twins);
            } else {
                let pause = self.chance.duration(Duration::from_micros(4), Duration::from_micros(500));
                self.later(now + pause, Pending::Sealed(tag, done, twins));
            }
        }
        loop {
            let stores = &self.stores;
            let Some((connection, request)) = self.node.poll_local(now, |id| stores.contains_key(&id)) else {
                break;
            };
            if let Some(twin) = &mut self.twin {
                let twins = twin.node.poll_local(now, |id| stores.contains_key(&id));
                assert!(twins.is_some_and(|(id, _)| id == connection), "the twin wants other local work");
            }
            let store = Arc::clone(&self.stores[&connection]);
            self.trace.numbers(now, &self.name, &[3, connection.0, request.id], || {
                format!("    local work {} of {connection:?}: {}", request.id, shorten(&request.work))
            });
            let pause = self.chance.duration(Duration::from_micros(5), Duration::from_millis(20));
            self.later(now + pause, Pending::Execute(connection, store, request));
        }
        while let Some((device, request)) = self.node.poll_io() {
            let (kind, block, length) = match &request.operation {
                Operation::Read { lba, buffer } => ("read", lba.0, buffer.len()),
                Operation::Write { lba, data, .. } => ("write", lba.0, data.len()),
                Operation::Flush => ("flush", 0, 0),
            };
            let tag = request.tag.0;
            if let Some(twin) = &mut self.twin {
                twin.follow_io(device, &request);
            }
            self.trace.numbers(now, &self.name, &[4, device.into(), block, length as u64, tag], || {
                format!("    I/O {tag}: {kind} {length} bytes at device {device} block {block}")
            });
            self.volume.submit(now, device, request);
        }
    }
}

/// Work in one line, without its bytes.
fn shorten(work: &impl std::fmt::Debug) -> String {
    let mut text = format!("{work:?}");
    if text.len() > 160 {
        let end = (0..=160).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}
