//! The process's end: a thread that takes clients in, and one for each of them.
//!
//! Keeps true: the event loop knows nothing of sockets; the socket is gone when its process ends in order, and one that
//! was left behind is replaced by the next process of the lane. Not here: the messages (`message`).

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use multipath::control::{Answer, Command, Control};
use multipath::report::{Snapshot, seconds};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, bind, getsockopt, listen, socket, sockopt::PeerCredentials,
};
use rustix::fs::Mode;
use storage_mapping::{PathIndex, wait};

use super::command::{OutcomeText, ReservationText};
use super::message::{DecisionText, Reply, Request, VERSION, Versioned, Wish};
use super::plan::{DrillText, PlanText};
use super::{CLIENTS_MAX, Folder, PATIENCE, REPLY_MAX_BYTES, REQUEST_MAX_BYTES, file_name};

/// Clients that may wait to be taken in.
const BACKLOG: i32 = 16;
/// How long the event loop may take for all that a request wants.
const LOOP_PATIENCE: Duration = Duration::from_secs(2);
/// After a failure to take a client in: the reason may be that no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Decisions in one reply, at most.
const DECISIONS_MAX: usize = 1024;

/// A lane's socket, as long as this lives.
#[derive(Debug)]
pub struct ControlSocket {
    file: PathBuf,
    // Its end is what tells the thread to end.
    _stop: UnixStream,
}

/// What all threads of a socket know.
struct Shared {
    lane: u16,
    process: &'static str,
    controls: Vec<Control>,
    clients: AtomicUsize,
}

impl ControlSocket {
    /// Makes the socket of a lane that this process holds the lock of, and serves it.
    ///
    /// # Errors
    /// Where the socket, a descriptor or a thread cannot be had.
    pub fn start(state: &Path, lane: u16, process: &'static str, controls: Vec<Control>) -> io::Result<Self> {
        let file = state.join(file_name(lane));
        let listener = listen_at(state, &file, lane)?;
        let (stop, stopped) = UnixStream::pair()?;
        stopped.set_nonblocking(true)?;
        let shared = Arc::new(Shared { lane, process, controls, clients: AtomicUsize::new(0) });
        let socket = Self { file, _stop: stop };
        let builder = thread::Builder::new().name("paths".to_owned());
        builder.spawn(move || take_clients(&listener, &stopped, &shared))?;
        Ok(socket)
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Nobody is harmed by a socket that stays: the next process of the lane replaces it.
        let _ = std::fs::remove_file(&self.file);
    }
}

fn listen_at(state: &Path, file: &Path, lane: u16) -> io::Result<UnixListener> {
    // The lane is ours, so whoever made it has ended.
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let folder = Folder::open(state)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // What `bind` makes has the mode of the socket: so there is no moment in which others may come.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(socket.as_raw_fd(), &folder.address(lane)?)?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(UnixListener::from(socket))
}

fn take_clients(listener: &UnixListener, stopped: &UnixStream, shared: &Arc<Shared>) {
    let mut stopped = stopped;
    loop {
        wait::wait(&[listener.as_raw_fd(), stopped.as_raw_fd()], None);
        if matches!(stopped.read(&mut [0]), Ok(0)) {
            return;
        }
        match listener.accept() {
            Ok((stream, _)) => begin(stream, shared),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::warn!(%error, "a client of the control socket cannot be taken in");
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// One client, counted until it goes.
struct Seat(Arc<Shared>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Begins to serve a client, or says why not. Never waits for it.
fn begin(stream: UnixStream, shared: &Arc<Shared>) {
    shared.clients.fetch_add(1, Ordering::Relaxed);
    let seat = Seat(Arc::clone(shared));
    let refusal = match refusal(&stream) {
        None if shared.clients.load(Ordering::Relaxed) > CLIENTS_MAX => {
            Some(format!("{CLIENTS_MAX} clients are served already; try again"))
        }
        other => other,
    };
    if let Some(why) = refusal {
        // One line fits into an empty socket; whoever it does not reach is refused all the same.
        let _ = stream.set_nonblocking(true);
        let _ = (&stream).write_all(&line_of(&shared.reply_error(why)));
        return;
    }
    let builder = thread::Builder::new().name("paths-client".to_owned());
    let _ = builder.spawn(move || {
        if let Err(error) = serve(stream, &seat.0) {
            tracing::debug!(%error, "a client of the control socket went away");
        }
    });
}

/// Why the one at the other end may not come, if so.
fn refusal(stream: &UnixStream) -> Option<String> {
    let own = rustix::process::geteuid().as_raw();
    match getsockopt(stream, PeerCredentials) {
        Ok(peer) if peer.uid() == 0 || peer.uid() == own => None,
        Ok(peer) => Some(format!("user {} may not: only user {own} and root may", peer.uid())),
        Err(error) => Some(format!("nobody knows who calls ({error})")),
    }
}

fn serve(mut stream: UnixStream, shared: &Shared) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let mut read = Vec::new();
    while let Some(line) = next_line(&mut stream, &mut read)? {
        let (reply, is_last) = match line {
            Line::Whole(line) => (shared.answer(&line), false),
            Line::TooLong => {
                (shared.reply_error(format!("a request of more than {REQUEST_MAX_BYTES} bytes")), true)
            }
        };
        write_until(&mut stream, &line_of(&reply), Instant::now() + PATIENCE)?;
        if is_last {
            break;
        }
    }
    Ok(())
}

enum Line {
    Whole(Vec<u8>),
    TooLong,
}

/// The next line, `None` at the end. `read` keeps what came after it.
fn next_line(stream: &mut UnixStream, read: &mut Vec<u8>) -> io::Result<Option<Line>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(end) = read.iter().position(|byte| *byte == b'\n') {
            let rest = read.split_off(end + 1);
            let line = std::mem::replace(read, rest);
            return Ok(Some(Line::Whole(line)));
        }
        if read.len() >= REQUEST_MAX_BYTES {
            return Ok(Some(Line::TooLong));
        }
        stream.set_read_timeout(Some(left_until(deadline)?))?;
        let mut bytes = [0; REQUEST_MAX_BYTES];
        let room = REQUEST_MAX_BYTES - read.len();
        match stream.read(&mut bytes[..room]) {
            Ok(0) => return Ok(None),
            Ok(count) => read.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The time left, which is not zero.
pub(super) fn left_until(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

pub(super) fn write_until(stream: &mut UnixStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left_until(deadline)?))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn line_of(reply: &Reply) -> Vec<u8> {
    let mut line = serde_json::to_vec(reply).expect("plain data");
    line.push(b'\n');
    if line.len() <= REPLY_MAX_BYTES {
        return line;
    }
    let error = Some("the answer is too long; ask for one device".to_owned());
    let short = Reply { devices: None, text: None, decisions: None, error, ..reply.clone() };
    line_of(&short)
}

impl Shared {
    fn reply(&self) -> Reply {
        let process = self.process.to_owned();
        Reply { version: VERSION, lane: self.lane, process, pid: std::process::id(), ..Reply::default() }
    }

    fn reply_error(&self, error: String) -> Reply {
        Reply { error: Some(error), ..self.reply() }
    }

    /// Does what a line asks for.
    fn answer(&self, line: &[u8]) -> Reply {
        let request = match serde_json::from_slice::<Versioned>(line) {
            Ok(Versioned { version: VERSION }) => serde_json::from_slice::<Request>(line),
            Ok(Versioned { version }) => {
                return self
                    .reply_error(format!("version {version} of a request; this process speaks {VERSION}"));
            }
            Err(error) => Err(error),
        };
        let done = match request {
            Ok(request) => self.execute(request.wish),
            Err(error) => Err(format!("this is no request: {error}")),
        };
        done.unwrap_or_else(|error| self.reply_error(error))
    }

    fn execute(&self, wish: Wish) -> Result<Reply, String> {
        let deadline = Instant::now() + LOOP_PATIENCE + wish.patience();
        let (device, command) = match wish {
            Wish::Show { device } => {
                let snapshots = self.snapshots(device.as_deref(), deadline)?;
                let value = |snapshot: &Snapshot| serde_json::to_value(snapshot).expect("plain data");
                return Ok(Reply { devices: Some(snapshots.iter().map(value).collect()), ..self.reply() });
            }
            Wish::Prometheus => {
                let mut text = String::new();
                let snapshots = self.snapshots(None, deadline)?;
                Snapshot::write_prometheus(&snapshots, &mut text).expect("a String takes all");
                return Ok(Reply { text: Some(text), ..self.reply() });
            }
            Wish::Plan { device, service_time } => {
                let plans = self.plans(device.as_deref(), service_time, deadline)?;
                return Ok(Reply { plans: Some(plans), ..self.reply() });
            }
            Wish::DrillReport { device, samples } => {
                let drill = drill(self.control(&device)?, samples, deadline)?;
                return Ok(Reply { drill, ..self.reply() });
            }
            Wish::Drill(wish) => {
                let command = wish.command()?;
                (wish.device, command)
            }
            Wish::Fail { device, path } => (device, Command::Fail(PathIndex(path))),
            Wish::Reinstate { device, path } => (device, Command::Reinstate(PathIndex(path))),
            Wish::Policy { device, policy } => {
                let kind =
                    policy.parse().map_err(|error: multipath::selector::SelectorKindError| error.to_string());
                (device, Command::Policy(kind?))
            }
            Wish::Group { device, priority } => (device, Command::SwitchGroup(priority)),
            Wish::Explain { device, on } => (device, Command::Explain(on)),
            Wish::Decisions { device, most } => {
                (device, Command::Decisions { most: most.min(DECISIONS_MAX) })
            }
            Wish::Reserve(wish) => {
                let (operation, patience) = wish.operation()?;
                (wish.device, Command::Reserve { operation, patience })
            }
            Wish::Send(wish) => {
                let request = wish.request()?;
                (wish.device, Command::Send(Box::new(request)))
            }
        };
        match ask(self.control(&device)?, command, deadline)? {
            Answer::Decisions { decisions, is_kept } => {
                let text = |decision: &multipath::explain::Decision| DecisionText {
                    at: seconds(decision.at),
                    io: decision.tag.0,
                    text: decision.to_string(),
                };
                let decisions = Some(decisions.iter().map(text).collect());
                Ok(Reply { decisions, is_kept: Some(is_kept), ..self.reply() })
            }
            Answer::Reserved(outcome) => {
                Ok(Reply { reservation: Some(ReservationText::from(&*outcome)), ..self.reply() })
            }
            Answer::Sent(outcome) => {
                Ok(Reply { outcome: Some(OutcomeText::from(&*outcome)), ..self.reply() })
            }
            Answer::CommandRecords(_)
            | Answer::Done
            | Answer::Drill(_)
            | Answer::DrillSamples(_)
            | Answer::Nexuses { .. }
            | Answer::Plan(_)
            | Answer::Shown(_) => Ok(self.reply()),
        }
    }

    /// One device, or all.
    fn wanted(&self, device: Option<&str>) -> Result<&[Control], String> {
        match device {
            Some(device) => Ok(std::slice::from_ref(self.control(device)?)),
            None => Ok(&self.controls),
        }
    }

    fn plans(
        &self,
        device: Option<&str>,
        service_time: Option<f64>,
        deadline: Instant,
    ) -> Result<Vec<PlanText>, String> {
        let service_time = service_time.map(Duration::try_from_secs_f64).transpose();
        let service_time = service_time.map_err(|error| format!("service_time: {error}"))?;
        let mut plans = Vec::new();
        for control in self.wanted(device)? {
            if let Answer::Plan(plan) = ask(control, Command::Plan { service_time }, deadline)? {
                plans.push(PlanText::new(control.device(), &plan));
            }
        }
        Ok(plans)
    }

    fn snapshots(&self, device: Option<&str>, deadline: Instant) -> Result<Vec<Snapshot>, String> {
        let wanted = self.wanted(device)?;
        let mut snapshots = Vec::with_capacity(wanted.len());
        for control in wanted {
            if let Answer::Shown(snapshot) = ask(control, Command::Show, deadline)? {
                snapshots.push(*snapshot);
            }
        }
        Ok(snapshots)
    }

    fn control(&self, device: &str) -> Result<&Control, String> {
        self.controls.iter().find(|control| control.device() == device).ok_or_else(|| {
            let known: Vec<_> = self.controls.iter().map(Control::device).collect();
            format!(
                "there is no device `{}`; the devices are {}",
                crate::escape::name(device),
                known.join(", ")
            )
        })
    }
}

/// What the last drill of a device showed.
fn drill(control: &Control, samples: bool, deadline: Instant) -> Result<Option<DrillText>, String> {
    let Answer::Drill(report) = ask(control, Command::DrillReport, deadline)? else { return Ok(None) };
    let Some(report) = *report else { return Ok(None) };
    let samples = match samples.then(|| ask(control, Command::DrillSamples, deadline)).transpose()? {
        Some(Answer::DrillSamples(samples)) => samples,
        _ => Vec::new(),
    };
    Ok(Some(DrillText::new(&report, &samples)))
}

fn ask(control: &Control, command: Command, deadline: Instant) -> Result<Answer, String> {
    let left = deadline.saturating_duration_since(Instant::now());
    control.ask(command, left).map_err(|error| error.to_string())
}
