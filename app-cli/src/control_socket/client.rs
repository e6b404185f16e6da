//! The command line's end: the same question to every lane of a host, at the same time.
//!
//! Keeps true: a lane that hangs is waited for no longer than [`PATIENCE`], and its neighbours are heard meanwhile; what a
//! process says is bounded, and is not believed to be safe to print. Not here: printing it.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Instant;

use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, connect, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};

use super::message::{Reply, Request, VERSION, Wish};
use super::server::{left_until, write_until};
use super::{Folder, PATIENCE, REPLY_MAX_BYTES, lane_of};

/// A lane that is there and does not answer.
#[derive(Clone, Debug)]
pub struct Silent {
    /// Where several hosts were asked, its host.
    pub host: Option<String>,
    /// The lane.
    pub lane: u16,
    /// Why.
    pub why: String,
}

/// What the lanes of a host said, by their number.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// From those that answered, if only by an error.
    pub replies: Vec<Reply>,
    /// The others. Lanes that no process has are in neither.
    pub silent: Vec<Silent>,
}

/// Asks every lane of the host that has its state in `state`.
///
/// # Errors
/// Where the folder cannot be read. A folder that is not there has no lanes.
pub fn ask_all(state: &Path, wish: &Wish) -> io::Result<Answers> {
    let mut lanes = match lanes(state) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Answers::default()),
        other => other?,
    };
    lanes.sort_unstable();
    let folder = Folder::open(state)?;
    let mut answers = Answers::default();
    thread::scope(|scope| {
        let ask = |lane| {
            (
                lane,
                scope.spawn({
                    let folder = &folder;
                    move || ask(folder, lane, wish)
                }),
            )
        };
        let asked: Vec<_> = lanes.into_iter().map(ask).collect();
        for (lane, thread) in asked {
            let answer = thread.join().unwrap_or_else(|_| Err(io::Error::other("the question failed")));
            match answer {
                Ok(reply) => answers.replies.push(reply),
                Err(error) if is_nobody(&error) => {}
                Err(error) => answers.silent.push(Silent { host: None, lane, why: why(&error) }),
            }
        }
    });
    Ok(answers)
}

/// Asks the lanes of a host one after the other, from the lowest, until one answers; `None` if none does.
#[must_use]
pub fn ask_first(state: &Path, wish: &Wish) -> Option<Reply> {
    let mut lanes = lanes(state).ok()?;
    lanes.sort_unstable();
    let folder = Folder::open(state).ok()?;
    lanes.into_iter().find_map(|lane| ask(&folder, lane, wish).ok())
}

/// Asks one lane of the host that has its state in `state`.
///
/// # Errors
/// In words, why there is no answer.
pub fn ask_lane(state: &Path, lane: u16, wish: &Wish) -> Result<Reply, String> {
    let reply = Folder::open(state).and_then(|folder| ask(&folder, lane, wish));
    reply.map_err(|error| if is_nobody(&error) { "its process ended".to_owned() } else { why(&error) })
}

fn lanes(state: &Path) -> io::Result<Vec<u16>> {
    let mut lanes = Vec::new();
    for entry in std::fs::read_dir(state)? {
        lanes.extend(entry?.file_name().to_str().and_then(lane_of));
    }
    Ok(lanes)
}

/// Its process ended, in order or not.
fn is_nobody(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotFound)
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "it belongs to another user; ask as that user, or as root".to_owned()
        }
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            format!("no answer within {} s; is it stopped?", PATIENCE.as_secs())
        }
        _ => error.to_string(),
    }
}

fn ask(folder: &Folder, lane: u16, wish: &Wish) -> io::Result<Reply> {
    let deadline = Instant::now() + PATIENCE + wish.patience();
    let mut stream = reach(folder, lane)?;
    let request = Request { version: VERSION, wish: wish.clone() };
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    // Who refuses us does not read our line, and has said why all the same.
    let sent = write_until(&mut stream, &line, deadline);
    let mut read = Vec::new();
    let mut bytes = vec![0; 1 << 16];
    while !read.ends_with(b"\n") {
        if read.len() > REPLY_MAX_BYTES {
            return Err(io::Error::other("its answer has no end"));
        }
        stream.set_read_timeout(Some(left_until(deadline)?))?;
        match stream.read(&mut bytes) {
            // It ended between our question and its answer.
            Ok(0) => return Err(sent.err().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())),
            Ok(count) => read.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let reply: Reply = serde_json::from_slice(&read)?;
    if reply.version == VERSION {
        return Ok(reply);
    }
    Err(io::Error::other(format!("it speaks version {} and this command {VERSION}", reply.version)))
}

fn reach(folder: &Folder, lane: u16) -> io::Result<UnixStream> {
    let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // A stopped process takes nobody in: without this, `connect` would wait for ever.
    let seconds = i64::try_from(PATIENCE.as_secs()).expect("a short time");
    setsockopt(&socket, SendTimeout, &TimeVal::seconds(seconds))?;
    connect(socket.as_raw_fd(), &folder.address(lane)?)?;
    Ok(UnixStream::from(socket))
}
