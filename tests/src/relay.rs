//! A relay before a server is one path to it: it can be paused, slowed, cut and killed while other paths
//! live.
//!
//! ```text
//!  client ──► relay ──► server        Line: what goes to the server      (a thread reads, a thread writes)
//!         ◄──       ◄──               Line: what goes to the client      (a thread reads, a thread writes)
//! ```
//!
//! What holds:
//!
//! * bytes pass unchanged and in their order, except where a command says otherwise ([`mod@line`]);
//! * what is held for the server stays held when the client goes, and goes when it may: a write that the
//!   client gave up lands then, over whatever was written meanwhile on another path. That is a ghost, and a
//!   real one;
//! * a killed relay refuses connections, as a dead host does not but a dead process does.
//!
//! [`command`] is what it can be told; the program `relay` takes the same words from its input ([`console`]). Not
//! here: what the bytes mean.

pub mod command;
pub mod console;
pub mod line;
mod socket;

use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant as Clock};

use storage_mapping::hand_off::{Giver, Taker, results};
use storage_mapping::{Instant, wait};

use self::command::{Command, Direction, Endpoint, Ways};
use self::line::{Line, Manner, Next};
use self::socket::{Listener, Socket};
use crate::chance::Chance;

/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;
const DIRECTIONS: [Direction; 2] = [Direction::ToServer, Direction::ToClient];

/// A connection with its two sides and its two lines.
#[derive(Debug)]
struct Connection {
    client: Socket,
    server: Socket,
    /// In the order of [`DIRECTIONS`].
    lines: [Line; 2],
    /// Lines that have not ended.
    open_lines: usize,
    /// The client's side was ended here, and the server does not hear of it.
    is_cut: bool,
}

#[derive(Debug)]
struct State {
    manners: [Manner; 2],
    connections: BTreeMap<u64, Connection>,
    /// Connections so far; a number is never used twice.
    count: u64,
    chance: Chance,
    /// Those who accept are to stop.
    is_killed: bool,
}

/// What all threads of a relay look at.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    began: Clock,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.began.elapsed()
    }
}

/// A relay in threads of this process. It is killed when dropped.
#[derive(Debug)]
pub struct Relay {
    listen: Endpoint,
    target: Endpoint,
    shared: Arc<Shared>,
    acceptor: Option<(JoinHandle<()>, Giver<()>)>,
}

impl Relay {
    /// Listens at one place and passes on to another. `seed` is what jitter is drawn from.
    ///
    /// # Errors
    /// Where it cannot listen there.
    pub fn start(listen: &Endpoint, target: &Endpoint, seed: u64) -> io::Result<Self> {
        let state = State {
            manners: [Manner::default(); 2],
            connections: BTreeMap::new(),
            count: 0,
            chance: Chance::new(seed),
            is_killed: false,
        };
        let shared =
            Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), began: Clock::now() });
        let mut relay = Self { listen: listen.clone(), target: target.clone(), shared, acceptor: None };
        relay.revive()?;
        Ok(relay)
    }

    /// Where it listens; with the port that the system chose.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.listen
    }

    /// Does what it is told, for the connections there are and for those to come.
    ///
    /// # Errors
    /// Where a revived relay cannot listen again.
    pub fn command(&mut self, command: Command) -> io::Result<()> {
        match command {
            Command::Pause(ways) => self.change(ways, |manner| manner.is_paused = true),
            Command::Resume(ways) => self.change(ways, |manner| manner.is_paused = false),
            Command::Delay { ways, delay, jitter } => {
                self.change(ways, |manner| (manner.delay, manner.jitter) = (delay, jitter));
            }
            Command::Rate(ways, rate) => self.change(ways, |manner| manner.rate = rate),
            Command::Drop(ways, drops) => self.change(ways, |manner| manner.drops = drops),
            Command::Cut => {
                for connection in self.shared.lock().connections.values_mut() {
                    connection.is_cut = true;
                    connection.client.shutdown(Shutdown::Both);
                }
            }
            Command::Kill => self.kill(),
            Command::Revive => self.revive()?,
        }
        Ok(())
    }

    /// Waits until at least so many bytes are held in that direction, over all connections; `false` if that
    /// does not happen in time.
    #[must_use]
    pub fn wait_until_held(&self, direction: Direction, bytes: usize, time_max: Duration) -> bool {
        let held = |state: &State| -> usize {
            state
                .connections
                .values()
                .map(|connection| connection.lines[direction as usize].held_bytes())
                .sum()
        };
        let fewer = |state: &mut State| held(state) < bytes;
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), time_max, fewer);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn change(&self, ways: Ways, change: impl Fn(&mut Manner)) {
        let mut state = self.shared.lock();
        for direction in DIRECTIONS.into_iter().filter(|direction| ways.include(*direction)) {
            let index = direction as usize;
            change(&mut state.manners[index]);
            let manner = state.manners[index];
            state.connections.values_mut().for_each(|connection| connection.lines[index].set_manner(manner));
        }
        self.shared.changed.notify_all();
    }

    fn kill(&mut self) {
        self.shared.lock().is_killed = true;
        if let Some((acceptor, bell)) = self.acceptor.take() {
            bell.give(());
            acceptor.join().expect("nothing panics in there");
        }
        let mut state = self.shared.lock();
        for connection in state.connections.values_mut() {
            connection.lines.iter_mut().for_each(Line::discard);
            connection.client.shutdown(Shutdown::Both);
            connection.server.shutdown(Shutdown::Both);
        }
        state.connections.clear();
        self.shared.changed.notify_all();
    }

    fn revive(&mut self) -> io::Result<()> {
        if self.acceptor.is_some() {
            return Ok(());
        }
        let listener = Listener::bind(&self.listen)?;
        self.listen = listener.endpoint(&self.listen)?;
        let (giver, taker) = results()?;
        self.shared.lock().is_killed = false;
        let (shared, target) = (Arc::clone(&self.shared), self.target.clone());
        let accept = move || accept(listener, &target, &shared, taker);
        self.acceptor = Some((thread::Builder::new().name("relay".to_owned()).spawn(accept)?, giver));
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Takes connections until the relay is killed.
fn accept(listener: Listener, target: &Endpoint, shared: &Arc<Shared>, mut bell: Taker<()>) {
    while !shared.lock().is_killed {
        match listener.accept() {
            // Without a server, or without threads, the client sees its connection end.
            Ok(client) => drop(Socket::connect(target).and_then(|server| pass(shared, client, server))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if bell.take().is_none() {
                    wait::wait(&[listener.descriptor(), bell.descriptor()], None);
                }
            }
            // A client that went at once, or no descriptors for a while.
            Err(_) => wait::wait(&[bell.descriptor()], Some(Duration::from_millis(10))),
        }
    }
    listener.close();
}

/// Begins to pass bytes between the two.
fn pass(shared: &Arc<Shared>, client: Socket, server: Socket) -> io::Result<()> {
    let ends = [(client.try_clone()?, server.try_clone()?), (server.try_clone()?, client.try_clone()?)];
    let mut state = shared.lock();
    let lines = state.manners.map(|manner| Line::new(manner, state.chance.fork()));
    let number = state.count;
    state.count += 1;
    state.connections.insert(number, Connection { client, server, lines, open_lines: 2, is_cut: false });
    drop(state);
    for (direction, (source, sink)) in DIRECTIONS.into_iter().zip(ends) {
        let place = Place { shared: Arc::clone(shared), number, direction };
        let reading = Place { shared: Arc::clone(shared), number, direction };
        thread::Builder::new().name("relay-read".to_owned()).spawn(move || reading.read(source))?;
        thread::Builder::new().name("relay-write".to_owned()).spawn(move || place.write(sink))?;
    }
    Ok(())
}

/// Where a thread works.
struct Place {
    shared: Arc<Shared>,
    number: u64,
    direction: Direction,
}

impl Place {
    /// The line, as long as the connection is there.
    fn line<'a>(&self, state: &'a mut State) -> Option<&'a mut Line> {
        Some(&mut state.connections.get_mut(&self.number)?.lines[self.direction as usize])
    }

    /// Whether the server is not to hear that its client has gone.
    fn hides_its_end(&self, state: &State) -> bool {
        let is_cut = state.connections.get(&self.number).is_some_and(|connection| connection.is_cut);
        is_cut && self.direction == Direction::ToServer
    }

    /// The line has ended; with the second one the connection goes.
    fn end_line(&self, state: &mut State) {
        if let Some(connection) = state.connections.get_mut(&self.number) {
            connection.open_lines -= 1;
            if connection.open_lines == 0 {
                state.connections.remove(&self.number);
            }
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, time: Option<Duration>) -> MutexGuard<'a, State> {
        match time {
            Some(time) => {
                self.shared.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
        }
    }

    fn read(&self, mut source: Socket) {
        let mut bytes = vec![0; READ_BYTES];
        loop {
            let count = match source.read(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(count) => count,
                Err(_) => 0,
            };
            let mut state = self.shared.lock();
            loop {
                let Some(line) = self.line(&mut state) else { return };
                if line.has_room() {
                    break;
                }
                state = self.wait(state, None);
            }
            let (now, hides_its_end) = (self.shared.now(), self.hides_its_end(&state));
            let Some(line) = self.line(&mut state) else { return };
            match count {
                0 if hides_its_end => return,
                0 => line.end(),
                count => line.push(now, &bytes[..count]),
            }
            self.shared.changed.notify_all();
            if count == 0 {
                return;
            }
        }
    }

    fn write(&self, mut sink: Socket) {
        let mut state = self.shared.lock();
        loop {
            let now = self.shared.now();
            let Some(line) = self.line(&mut state) else { return };
            match line.next(now) {
                Next::Bytes(bytes) => {
                    self.shared.changed.notify_all();
                    drop(state);
                    let written = sink.write_all(&bytes);
                    state = self.shared.lock();
                    if written.is_err() {
                        // Nobody is there any more; the other side is not to be held up by that.
                        let Some(line) = self.line(&mut state) else { return };
                        line.set_manner(Manner { drops: true, ..Manner::default() });
                    }
                }
                Next::Wait(until) => state = self.wait(state, Some(until - now)),
                Next::Idle => state = self.wait(state, None),
                Next::Ended => {
                    sink.shutdown(Shutdown::Write);
                    self.end_line(&mut state);
                    return;
                }
            }
        }
    }
}
