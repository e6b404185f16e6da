//! One process of a host, whole and still pure: an endpoint with a session on each of its connections.
//!
//! The program's driver and the simulator run this same code: they carry out what `poll_io`,
//! `poll_work` and `poll_local` give, hand the results back, and tell the time. Not here: any clock, file
//! or thread.

use std::collections::{BTreeMap, VecDeque};

use storage_mapping::block::time::earliest;
use storage_mapping::{BufferPool, Instant, IoCompletion, IoRequest};

use crate::format::process_id_table::{CloseReason, Role};
use crate::protocol::connection::ConnectionId;
use crate::protocol::endpoint::{ConnectError, Endpoint, Event, WorkTag};
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

/// An endpoint and its sessions.
pub struct Node {
    endpoint: Endpoint,
    pool: BufferPool,
    sessions: BTreeMap<ConnectionId, Running>,
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
            sessions: BTreeMap::new(),
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
        if let Some(running) = self.sessions.get_mut(&connection) {
            running.session.handle_interrupt(now);
        } else {
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
        if let Some(running) = self.sessions.get_mut(&connection) {
            running.session.handle_local(now, reply);
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
        for running in self.sessions.values_mut() {
            running.session.handle_timeout(now);
        }
        self.pump(now);
    }

    /// When time alone will change something.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        let sessions = self.sessions.values().filter_map(|running| running.session.next_wakeup());
        sessions.fold(self.endpoint.next_wakeup(), |soonest, wakeup| earliest(soonest, Some(wakeup)))
    }

    /// The next request for the volume.
    pub fn poll_io(&mut self) -> Option<(u16, IoRequest)> {
        self.endpoint.poll_io()
    }

    /// The next piece of sealing work.
    pub fn poll_work(&mut self) -> Option<(WorkTag, SealWork)> {
        self.endpoint.poll_work()
    }

    /// The next piece of local work, and whose it is; of connections that are `ready` for it.
    pub fn poll_local(
        &mut self,
        now: Instant,
        ready: impl Fn(ConnectionId) -> bool,
    ) -> Option<(ConnectionId, LocalRequest)> {
        self.sessions.iter_mut().filter(|(connection, _)| ready(**connection)).find_map(
            |(connection, running)| running.session.poll_local(now).map(|request| (*connection, request)),
        )
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<NodeEvent> {
        self.events.pop_front()
    }

    /// Moves what can move between connections and sessions.
    pub fn pump(&mut self, now: Instant) {
        self.take_endpoint_events(now);
        let connections: Vec<_> = self.sessions.keys().copied().collect();
        for connection in connections {
            self.deliver(now, connection);
            self.collect(now, connection);
        }
        self.take_endpoint_events(now);
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
        self.sessions.values_mut().for_each(|running| running.session.set_payloads_max(payloads_max));
    }

    fn handle_closed(&mut self, now: Instant, connection: ConnectionId, reason: CloseReason) {
        self.jobs.remove(&connection);
        self.deliver(now, connection);
        if let Some(running) = self.sessions.get_mut(&connection) {
            running.lost = true;
            let loss = match reason {
                CloseReason::Done | CloseReason::ClosedByPeer => LossReason::Closed,
                CloseReason::ProtocolViolated => LossReason::Violation,
                _ => LossReason::Lost,
            };
            running.session.handle_lost(now, loss);
        }
        self.events.push_back(NodeEvent::Closed { connection, reason });
    }

    /// Segments that came go to the session, as many as it wants.
    fn deliver(&mut self, now: Instant, connection: ConnectionId) {
        let Some(running) = self.sessions.get_mut(&connection) else { return };
        while !running.lost && running.session.wants_segment() {
            let Some(segment) = self.endpoint.poll_segment(now, connection) else { return };
            if let Err(violation) = running.session.handle_segment(now, segment) {
                let notice = format!("connection {}: {violation}", connection.0);
                self.events.push_back(NodeEvent::Notice(notice));
                self.endpoint.end(now, connection, CloseReason::ProtocolViolated);
                return;
            }
        }
    }

    /// Segments of the session go out, as many as the connection takes; its events go up.
    fn collect(&mut self, now: Instant, connection: ConnectionId) {
        let Some(running) = self.sessions.get_mut(&connection) else { return };
        while self.endpoint.has_room(connection) {
            let Some(segment) = running.session.poll_segment(now) else { break };
            self.endpoint.send(now, connection, segment);
        }
        while let Some(event) = running.session.poll_event() {
            self.events.push_back(NodeEvent::Session { connection, event });
        }
        // A responder that cannot go on (its journal or its disk failed) must not keep its peer waiting.
        if running.responds && running.session.is_finished() && !running.lost {
            let notice = format!("connection {}: the session cannot go on", connection.0);
            self.events.push_back(NodeEvent::Notice(notice));
            self.endpoint.end(now, connection, CloseReason::ShuttingDown);
            return;
        }
        if running.lost && (running.session.is_finished() || running.session.is_idle()) {
            self.sessions.remove(&connection);
            self.share_out();
            self.events.push_back(NodeEvent::SessionEnded { connection });
        }
    }
}
