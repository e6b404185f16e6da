//! One process of a host, whole and still pure: an endpoint with a session on each of its connections.
//!
//! The program's driver and the simulator run this same code: they carry out what `poll_io`,
//! `poll_work` and `poll_local` give, hand the results back, and tell the time. What holds: a turn visits only the
//! sessions to which something happened, in the order in which it did, and those that are due. Not here: any clock,
//! file or thread.

use std::collections::{BTreeMap, VecDeque};

use storage_mapping::block::time::earliest;
use storage_mapping::{BufferPool, Instant, IoCompletion, IoRequest};

use crate::format::process_id_table::{CloseReason, Role};
use crate::protocol::connection::ConnectionId;
use crate::protocol::endpoint::{ConnectError, Endpoint, Event, WorkTag};
use crate::protocol::roster::{Roster, Turns, Wakes};
use crate::protocol::seal::{SealDone, SealWork};
use crate::protocol::startup::{LocalState, StartupFailure};
use crate::transfer::{Job, LossReason, PAYLOADS_MAX, Session, SessionConfig, SessionEvent};
use crate::transfer::{LocalReply, LocalRequest};

/// Opcode of the first command of each side in `pro_dtd` and `InitM`: its program and version.
pub const COMMAND_HELLO: u16 = 32;

/// Something the program is told.
#[derive(Debug)]
pub enum NodeEvent {
    /// Write this durably, then call [`Node::handle_persisted`].
    Persist(LocalState),
    /// Calls can be made.
    Started,
    /// The lane cannot be used.
    Stopped(StartupFailure),
    /// A connection is there; local work of it may follow.
    Connected {
        /// Which.
        connection: ConnectionId,
        /// Own role.
        role: Role,
        /// Name of the peer.
        peer: String,
        /// Payload of a segment, at most.
        segment_bytes: usize,
    },
    /// A connection has ended.
    Closed {
        /// Which.
        connection: ConnectionId,
        /// Why.
        reason: CloseReason,
    },
    /// A connection's session will ask for no more local work.
    SessionEnded {
        /// Which.
        connection: ConnectionId,
    },
    /// A session has something to show.
    Session {
        /// Of which connection.
        connection: ConnectionId,
        /// What.
        event: SessionEvent,
    },
    /// Something for the log.
    Notice(String),
}

struct Running {
    session: Session,
    responds: bool,
    lost: bool,
}

/// What a session meets on a visit.
struct Around<'a> {
    now: Instant,
    connection: ConnectionId,
    endpoint: &'a mut Endpoint,
    events: &'a mut VecDeque<NodeEvent>,
}

impl Around<'_> {
    /// Ends the connection, and says why.
    fn end(&mut self, why: impl std::fmt::Display, reason: CloseReason) {
        self.events.push_back(NodeEvent::Notice(format!("connection {}: {why}", self.connection.0)));
        self.endpoint.end(self.now, self.connection, reason);
    }
}

impl Wakes for Running {
    fn next_wakeup(&self) -> Option<Instant> {
        self.session.next_wakeup()
    }
}

impl Running {
    /// Moves what can move between the session and its connection; its events go up.
    fn exchange(&mut self, around: &mut Around<'_>) {
        self.session.handle_timeout(around.now);
        // What came may be answered, and what goes out may let more in.
        while self.deliver(around) {
            self.collect(around);
        }
        self.collect(around);
        while let Some(event) = self.session.poll_event() {
            around.events.push_back(NodeEvent::Session { connection: around.connection, event });
        }
        // A responder that cannot go on (its journal or its disk failed) must not keep its peer waiting.
        if self.responds && self.session.is_finished() && !self.lost {
            around.end("the session cannot go on", CloseReason::ShuttingDown);
        }
    }

    /// Segments that came go to the session, as many as it wants; `true` if any did.
    fn deliver(&mut self, around: &mut Around<'_>) -> bool {
        let mut moved = false;
        while !self.lost && self.session.wants_segment() {
            let Some(segment) = around.endpoint.poll_segment(around.now, around.connection) else { break };
            moved = true;
            if let Err(violation) = self.session.handle_segment(around.now, segment) {
                around.end(violation, CloseReason::ProtocolViolated);
                return false;
            }
        }
        moved
    }

    /// Segments of the session go out, as many as the connection takes.
    fn collect(&mut self, around: &mut Around<'_>) {
        while around.endpoint.has_room(around.connection) {
            let Some(segment) = self.session.poll_segment(around.now) else { break };
            around.endpoint.send(around.now, around.connection, segment);
        }
    }

    /// Its connection is gone, and it asks for nothing more.
    fn is_over(&self) -> bool {
        self.lost && (self.session.is_finished() || self.session.is_idle())
    }
}

/// An endpoint and its sessions.
pub struct Node {
    endpoint: Endpoint,
    pool: BufferPool,
    sessions: Roster<Running>,
    /// Sessions whose local work waits to be polled.
    asking: Turns<ConnectionId>,
    jobs: BTreeMap<ConnectionId, Job>,
    events: VecDeque<NodeEvent>,
    program: String,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({:?}, {} sessions)", self.endpoint, self.sessions.len())
    }
}

impl Node {
    /// A node over `endpoint`; `program` is what it says of itself to peers.
    #[must_use]
    pub fn new(endpoint: Endpoint, pool: BufferPool, program: &str) -> Self {
        Self {
            endpoint,
            pool,
            sessions: Roster::new(),
            asking: Turns::default(),
            jobs: BTreeMap::new(),
            events: VecDeque::new(),
            program: program.to_owned(),
        }
    }

    /// The endpoint, to look at.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Calls `host` and runs `job` there once the connection stands.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn request(&mut self, now: Instant, host: &str, job: Job) -> Result<ConnectionId, ConnectError> {
        let connection = self.endpoint.connect(now, host)?;
        self.jobs.insert(connection, job);
        let hello = self.program.clone().into_bytes();
        self.endpoint.send_command(now, connection, COMMAND_HELLO, 0, hello);
        Ok(connection)
    }

    /// The user wants to stop: what has no permit is aborted.
    pub fn interrupt(&mut self, now: Instant, connection: ConnectionId) {
        let session = self.sessions.touch(connection, |running| running.session.handle_interrupt(now));
        if session.is_none() {
            self.endpoint.end(now, connection, CloseReason::Done);
        }
        self.pump(now);
    }

    /// Closes a connection in order.
    pub fn close(&mut self, now: Instant, connection: ConnectionId) {
        self.endpoint.close(now, connection);
        self.pump(now);
    }

    /// Ends a connection at once; its session keeps what it has.
    pub fn end(&mut self, now: Instant, connection: ConnectionId, reason: CloseReason) {
        self.endpoint.end(now, connection, reason);
        self.pump(now);
    }

    /// Ends everything.
    pub fn shut_down(&mut self, now: Instant) {
        self.endpoint.shut_down(now);
        self.pump(now);
    }

    /// Whether nothing is left to do after [`shut_down`](Self::shut_down).
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.endpoint.is_idle() && self.sessions.is_empty()
    }

    /// The local state has been written.
    pub fn handle_persisted(&mut self, now: Instant) {
        self.endpoint.handle_persisted(now);
        self.pump(now);
    }

    /// An I/O has ended. Call [`pump`](Self::pump) when a batch of results is handed in.
    pub fn handle_completion(&mut self, now: Instant, completion: IoCompletion) {
        self.endpoint.handle_completion(now, completion);
    }

    /// Sealing or opening has ended. Call [`pump`](Self::pump) afterwards.
    pub fn handle_work(&mut self, now: Instant, tag: WorkTag, done: SealDone) {
        self.endpoint.handle_work(now, tag, done);
    }

    /// Local work has ended. Call [`pump`](Self::pump) afterwards.
    pub fn handle_local(&mut self, now: Instant, connection: ConnectionId, reply: LocalReply) {
        self.sessions.touch(connection, |running| running.session.handle_local(now, reply));
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
        self.pump(now);
        if cfg!(debug_assertions) {
            self.check_at_rest(now);
        }
    }

    /// When time alone will change something.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        if self.sessions.has_touched() || self.endpoint.has_moved() {
            return Some(Instant::ZERO);
        }
        earliest(self.endpoint.next_wakeup(), self.sessions.next_wakeup())
    }

    /// The next request for the volume.
    pub fn poll_io(&mut self) -> Option<(u16, IoRequest)> {
        self.endpoint.poll_io()
    }

    /// The next piece of sealing work.
    pub fn poll_work(&mut self) -> Option<(WorkTag, SealWork)> {
        self.endpoint.poll_work()
    }

    /// The next piece of local work, and whose it is; of connections that are `ready` for it, in turns.
    pub fn poll_local(
        &mut self,
        now: Instant,
        ready: impl Fn(ConnectionId) -> bool,
    ) -> Option<(ConnectionId, LocalRequest)> {
        loop {
            let connection = self.asking.pop(&ready)?;
            let request =
                self.sessions.visit(connection, |running| running.session.poll_local(now)).flatten();
            if let Some(request) = request {
                self.asking.push(connection);
                return Some((connection, request));
            }
        }
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<NodeEvent> {
        self.events.pop_front()
    }

    /// Whether there is an event.
    #[must_use]
    pub fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    /// Moves what can move between connections and sessions.
    pub fn pump(&mut self, now: Instant) {
        self.take_endpoint_events(now);
        while let Some(connection) = self.endpoint.poll_moved() {
            self.sessions.touch(connection, |_| ());
        }
        for connection in self.sessions.take_due(now) {
            self.visit(now, connection);
        }
        self.take_endpoint_events(now);
    }

    /// Time, segments and events of one session go where they belong.
    fn visit(&mut self, now: Instant, connection: ConnectionId) {
        let mut around = Around { now, connection, endpoint: &mut self.endpoint, events: &mut self.events };
        let visited = self.sessions.visit(connection, |running| {
            running.exchange(&mut around);
            (running.is_over(), running.session.has_local())
        });
        match visited {
            Some((true, _)) => {
                self.sessions.remove(connection);
                self.asking.remove(connection);
                self.share_out();
                self.events.push_back(NodeEvent::SessionEnded { connection });
            }
            Some((false, true)) => self.asking.push(connection),
            Some((false, false)) | None => {}
        }
    }

    /// Nobody who is left alone has something to do.
    fn check_at_rest(&mut self, now: Instant) {
        if self.endpoint.has_moved() {
            return;
        }
        for connection in self.sessions.at_rest(now) {
            let (has_segment, has_room) =
                (self.endpoint.has_segment(connection), self.endpoint.has_room(connection));
            let is_asking = self.asking.contains(connection);
            let left = self.sessions.visit(connection, |running| {
                let session = &mut running.session;
                session.handle_timeout(now);
                let delivers = has_segment && !running.lost && session.wants_segment();
                let sends = has_room && session.poll_segment(now).is_some();
                let asks = session.has_local() && !is_asking;
                delivers || sends || asks || session.poll_event().is_some() || running.is_over()
            });
            assert_ne!(left, Some(true), "session {} was left alone and has something to do", connection.0);
        }
    }

    fn take_endpoint_events(&mut self, now: Instant) {
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                Event::Persist(local) => self.events.push_back(NodeEvent::Persist(local)),
                Event::Started => self.events.push_back(NodeEvent::Started),
                Event::Stopped(failure) => self.events.push_back(NodeEvent::Stopped(failure)),
                Event::Notice(text) => self.events.push_back(NodeEvent::Notice(text)),
                Event::CallsChanged | Event::AnswersChanged => {}
                Event::Connected { connection, role, peer, seg_max } => {
                    let segment_bytes = usize::try_from(seg_max).expect("a segment is at most 64 MiB");
                    self.start_session(connection, segment_bytes);
                    self.events.push_back(NodeEvent::Connected { connection, role, peer, segment_bytes });
                }
                Event::Command { connection, opcode, body, .. } => {
                    self.handle_command(now, connection, opcode, &body);
                }
                Event::Closed { connection, reason } => self.handle_closed(now, connection, reason),
            }
        }
    }

    fn start_session(&mut self, connection: ConnectionId, segment_bytes: usize) {
        let config = SessionConfig { segment_bytes, ..SessionConfig::new(self.pool.clone()) };
        let job = self.jobs.remove(&connection);
        let responds = job.is_none();
        let session = match job {
            Some(job) => Session::requester(config, job),
            None => Session::responder(config),
        };
        self.sessions.insert(connection, Running { session, responds, lost: false });
        self.share_out();
    }

    /// The first command of each side says what program it is; the connector answers in `InitM`.
    fn handle_command(&mut self, now: Instant, connection: ConnectionId, opcode: u16, body: &[u8]) {
        if opcode != COMMAND_HELLO {
            return;
        }
        let text: String =
            String::from_utf8_lossy(body).chars().take(64).flat_map(char::escape_debug).collect();
        self.events
            .push_back(NodeEvent::Notice(format!("connection {}: the peer runs {text}", connection.0)));
        let is_connector = self
            .endpoint
            .connections()
            .any(|candidate| candidate.id == connection && candidate.role() == Role::Connector);
        if is_connector {
            let hello = self.program.clone().into_bytes();
            self.endpoint.send_command(now, connection, COMMAND_HELLO, 0, hello);
        }
    }

    /// Sessions share what one of them may have in hand, so that memory does not grow with their number.
    fn share_out(&mut self) {
        let payloads_max = (PAYLOADS_MAX / self.sessions.len().max(1)).max(1);
        for connection in self.sessions.ids() {
            self.sessions.touch(connection, |running| running.session.set_payloads_max(payloads_max));
        }
    }

    fn handle_closed(&mut self, now: Instant, connection: ConnectionId, reason: CloseReason) {
        self.jobs.remove(&connection);
        let mut around = Around { now, connection, endpoint: &mut self.endpoint, events: &mut self.events };
        self.sessions.touch(connection, |running| {
            running.deliver(&mut around);
            running.lost = true;
            let loss = match reason {
                CloseReason::Done | CloseReason::ClosedByPeer => LossReason::Closed,
                CloseReason::ProtocolViolated => LossReason::Violation,
                _ => LossReason::Lost,
            };
            running.session.handle_lost(now, loss);
        });
        self.events.push_back(NodeEvent::Closed { connection, reason });
    }
}
