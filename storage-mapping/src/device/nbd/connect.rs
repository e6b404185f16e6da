//! Reaching an NBD server and negotiating with it, for a bounded time.
//!
//! Keeps true: all of it together takes no longer than the time given, looking up a host name excepted, for
//! which the system has limits of its own; the socket that comes out does not block. Runs at opening, and
//! later only on a thread that nobody waits for. Not here: what is said (`handshake`), and when to try again
//! (`device`).

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use thiserror::Error;

use super::handshake::{Export, Handshake, NegotiationError};

/// Where an NBD server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NbdServer {
    /// On a TCP port.
    Tcp {
        /// Name or address; an IPv6 address stands without brackets.
        host: String,
        /// The port; 10809 by convention.
        port: u16,
    },
    /// On a Unix socket.
    Unix(PathBuf),
}

impl NbdServer {
    /// The port that NBD servers listen on by convention.
    pub const PORT_DEFAULT: u16 = 10_809;
}

impl fmt::Display for NbdServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Why a server could not be reached, or not be agreed with.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// No connection.
    #[error("cannot connect to {server}: {source}")]
    Connect {
        /// Where.
        server: String,
        /// The system's reason.
        source: io::Error,
    },
    /// It ended during the negotiation, or took too long.
    #[error("negotiating with {server}: {source}")]
    Io {
        /// With whom.
        server: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The negotiation failed.
    #[error("{server}: {source}")]
    Negotiation {
        /// With whom.
        server: String,
        /// Why.
        source: NegotiationError,
    },
}

/// A connection to an export, ready for requests.
#[derive(Debug)]
pub struct Connected {
    /// The socket; it does not block.
    pub socket: OwnedFd,
    /// What the server said.
    pub export: Export,
}

/// Connects and negotiates, in `time_max` at most.
///
/// # Errors
/// See [`ConnectError`].
pub fn connect(server: &NbdServer, export: &str, time_max: Duration) -> Result<Connected, ConnectError> {
    let name = || server.to_string();
    let negotiation = |source| ConnectError::Negotiation { server: name(), source };
    let deadline = Instant::now() + time_max;
    let mut handshake = Handshake::new(export).map_err(negotiation)?;
    let mut stream = Stream::connect(server, deadline)
        .map_err(|source| ConnectError::Connect { server: name(), source })?;
    let failed = |source| ConnectError::Io { server: name(), source };
    let export = negotiate(&mut stream, &mut handshake, deadline).map_err(failed)?.map_err(negotiation)?;
    let socket = stream.into_socket().map_err(failed)?;
    Ok(Connected { socket, export })
}

/// A connected socket, while it may still block.
#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn connect(server: &NbdServer, deadline: Instant) -> io::Result<Self> {
        match server {
            NbdServer::Tcp { host, port } => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match connect_tcp(address, deadline) {
                        Ok(stream) => return Ok(Self::Tcp(stream)),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            NbdServer::Unix(path) => {
                // By hand, since the standard library's would wait without end where the server's queue is
                // full.
                let socket =
                    socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
                let left = i64::try_from(time_left(deadline)?.as_micros()).unwrap_or(i64::MAX);
                setsockopt(&socket, sockopt::SendTimeout, &TimeVal::microseconds(left))?;
                socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
                Ok(Self::Unix(socket.into()))
            }
        }
    }

    fn send(&mut self, bytes: &[u8], deadline: Instant) -> io::Result<()> {
        let left = Some(time_left(deadline)?);
        match self {
            Self::Tcp(stream) => {
                stream.set_write_timeout(left)?;
                stream.write_all(bytes)
            }
            Self::Unix(stream) => {
                stream.set_write_timeout(left)?;
                stream.write_all(bytes)
            }
        }
    }

    fn receive(&mut self, bytes: &mut [u8], deadline: Instant) -> io::Result<usize> {
        let left = Some(time_left(deadline)?);
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(left)?;
                stream.read(bytes)
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(left)?;
                stream.read(bytes)
            }
        }
    }

    fn into_socket(self) -> io::Result<OwnedFd> {
        let socket: OwnedFd = match self {
            Self::Tcp(stream) => stream.into(),
            Self::Unix(stream) => stream.into(),
        };
        let flags = OFlag::from_bits_retain(fcntl(socket.as_fd(), FcntlArg::F_GETFL)?);
        fcntl(socket.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(socket)
    }
}

fn connect_tcp(address: SocketAddr, deadline: Instant) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, time_left(deadline)?)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What is left of the time, and more than nothing, as socket options want it.
fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left < Duration::from_millis(1) { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn negotiate(
    stream: &mut Stream,
    handshake: &mut Handshake,
    deadline: Instant,
) -> io::Result<Result<Export, NegotiationError>> {
    let mut bytes = [0; 512];
    loop {
        let room = handshake.missing().min(bytes.len());
        match stream.receive(&mut bytes[..room], deadline) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => _ = handshake.receive(&bytes[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
            }
            Err(error) => return Err(error),
        }
        let output = handshake.take_output();
        let sent = if output.is_empty() { Ok(()) } else { stream.send(&output, deadline) };
        // A goodbye may find nobody any more.
        match handshake.take_outcome() {
            Some(outcome) => return Ok(outcome),
            None => sent?,
        }
    }
}
