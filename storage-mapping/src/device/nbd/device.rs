//! An NBD export as a device: the socket that does not block, the link, and reconnecting.
//!
//! ```text
//!        ┌────────────── LinkUp ───────────────┐
//!        ▼                                     │ same export
//!  up ──(lost)── LinkDown ──▶ waiting ──▶ connecting ──(another export)── GeometryChanged ──▶ closed
//!                               ▲              │ failed, longer wait
//!                               └──────────────┘
//! ```
//!
//! Keeps true: while the link is down a request is taken and ends at once as *connection lost, not sent*; a
//! reconnect runs on a thread of its own, one at a time, and nobody waits for it; the back-off grows until a
//! reply proves a connection; a server that comes back with another size, other flags or other block sizes is
//! another disk, and the device stays closed. Deadlines are not its matter. Not here: the protocol
//! (`session`).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{MsgFlags, sendmsg};
use nix::sys::uio::readv;
use thiserror::Error;

use super::codec::TransmissionFlags;
use super::connect::{ConnectError, Connected, NbdServer, connect};
use super::handshake::Export;
use super::session::{Session, SessionError};
use crate::block::address::{BlockCount, BlockSize};
use crate::block::buffer::BufferPool;
use crate::block::request::{Cancelled, IoCompletion, IoRequest, IoTag, RefusalReason, Refused};
use crate::block::time::Instant;
use crate::block::{BlockDevice, DeviceEvent, Geometry};
use crate::hand_off::{Giver, Taker, results};

/// The longest request that is sent, in bytes, whatever the server allows.
const TRANSFER_MAX_BYTES: u32 = 64 << 20;

/// What a caller can choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NbdSettings {
    /// The logical block size; 4,096 or the server's least, if that is more, where it is left out.
    pub block_size: Option<BlockSize>,
    /// Requests in flight, at most, from 1 to 1,024.
    pub queue_depth: usize,
    /// For one attempt to connect and negotiate.
    pub connect_time_max: Duration,
    /// Between the loss of a connection and the first attempt to get another.
    pub backoff_min: Duration,
    /// Between two attempts, at most.
    pub backoff_max: Duration,
}

impl Default for NbdSettings {
    fn default() -> Self {
        Self {
            block_size: None,
            queue_depth: 64,
            connect_time_max: Duration::from_secs(5),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
        }
    }
}

/// Why an export could not be opened as a device.
#[derive(Debug, Error)]
pub enum OpenNbdError {
    /// No connection, or no agreement.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No descriptors left.
    #[error("cannot watch the socket of {server}: {source}")]
    Watch {
        /// Whose.
        server: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The block size does not suit the server.
    #[error(
        "{server} takes requests in multiples of {least} bytes up to {most} bytes, which blocks of {block} bytes do not suit: choose another block="
    )]
    BlockSize {
        /// Which.
        server: String,
        /// Its least, in bytes.
        least: u32,
        /// Its most, in bytes.
        most: u32,
        /// The block size.
        block: usize,
    },
    /// No whole block.
    #[error("the export `{export}` of {server} has {size} bytes, which hold no block of {block} bytes")]
    TooSmall {
        /// Which.
        server: String,
        /// Its name.
        export: String,
        /// Its size in bytes.
        size: u64,
        /// The block size.
        block: usize,
    },
}

/// What can be seen of a device from outside while it works: clones look at the same one.
#[derive(Clone, Debug)]
pub struct NbdMonitor {
    shared: Arc<Mutex<Watched>>,
}

#[derive(Debug)]
struct Watched {
    export: Export,
    is_up: bool,
    reconnects: u64,
    last_failure: Option<String>,
}

impl NbdMonitor {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the server said when the device was opened. There is no identity in it: an equal name and size is
    /// all that two paths can be compared by, and that is weak.
    #[must_use]
    pub fn export(&self) -> Export {
        self.lock().export.clone()
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.lock().is_up
    }

    /// How often the connection was lost and found again.
    #[must_use]
    pub fn reconnects(&self) -> u64 {
        self.lock().reconnects
    }

    /// Why the connection was lost, or could not be found again, the last time; in words.
    #[must_use]
    pub fn last_failure(&self) -> Option<String> {
        self.lock().last_failure.clone()
    }
}

/// The state of the connection.
#[derive(Debug)]
enum Link {
    Up {
        socket: OwnedFd,
        /// The socket had no room; the watch tells when it has.
        is_full: bool,
    },
    Waiting {
        until: Instant,
    },
    Connecting,
    Closed,
}

/// A disk behind an NBD server.
#[derive(Debug)]
pub struct NbdDevice {
    server: NbdServer,
    settings: NbdSettings,
    session: Session,
    link: Link,
    /// Readable when the socket has something for us, or room again after it had none.
    watch: Epoll,
    attempts: (Giver<Attempt>, Taker<Attempt>),
    backoff: Duration,
    /// Replies when the connection began: one more proves it.
    replies_before: u64,
    events: VecDeque<DeviceEvent>,
    monitor: NbdMonitor,
}

type Attempt = Result<Connected, ConnectError>;

impl NbdDevice {
    /// Connects to an export and negotiates. Blocks for `connect_time_max` at most.
    ///
    /// # Errors
    /// See [`OpenNbdError`].
    pub fn open(server: &NbdServer, export: &str, settings: NbdSettings) -> Result<Self, OpenNbdError> {
        let Connected { socket, export } = connect(server, export, settings.connect_time_max)?;
        let geometry = geometry_of(server, &export, settings)?;
        let failed = |source: io::Error| OpenNbdError::Watch { server: server.to_string(), source };
        let watch = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|error| failed(error.into()))?;
        watch.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, 0)).map_err(|error| failed(error.into()))?;
        let attempts = results().map_err(failed)?;
        let session = Session::new(geometry, export.flags);
        let watched = Watched { export, is_up: true, reconnects: 0, last_failure: None };
        Ok(Self {
            server: server.clone(),
            settings,
            session,
            link: Link::Up { socket, is_full: false },
            watch,
            attempts,
            backoff: settings.backoff_min,
            replies_before: 0,
            events: VecDeque::new(),
            monitor: NbdMonitor { shared: Arc::new(Mutex::new(watched)) },
        })
    }

    /// A view of the device that stays when it is moved into a stack.
    #[must_use]
    pub fn monitor(&self) -> NbdMonitor {
        self.monitor.clone()
    }

    /// What the device has to do without, one line each.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        let (flags, server) = (self.monitor.lock().export.flags, &self.server);
        let lacks = |flag| !flags.contains(flag);
        let mut notices = Vec::new();
        if lacks(TransmissionFlags::SEND_FLUSH) {
            notices.push(format!(
                "{server}: no flush here, what is written is as durable as the server makes it"
            ));
        } else if lacks(TransmissionFlags::SEND_FUA) {
            notices.push(format!("{server}: no FUA here, durable writes are flushed one by one"));
        }
        if !lacks(TransmissionFlags::READ_ONLY) {
            notices.push(format!("{server}: the export is read-only, writes fail"));
        }
        notices
    }

    /// Sends and receives what can be moved without waiting.
    fn exchange(&mut self) -> Result<(), SessionError> {
        let Link::Up { socket, is_full } = &mut self.link else { return Ok(()) };
        let mut write = |pieces: &[io::IoSlice<'_>]| {
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            Ok(sendmsg::<()>(socket.as_raw_fd(), pieces, &[], flags, None)?)
        };
        let mut read = |pieces: &mut [io::IoSliceMut<'_>]| Ok(readv(&*socket, pieces)?);
        let is_full_now = match self.session.send(&mut write) {
            Ok(is_full) => is_full,
            Err(error) => {
                // The server went; the replies that it left behind still count.
                while !self.session.receive(&mut read)? {}
                return Err(error);
            }
        };
        let was_full = std::mem::replace(is_full, is_full_now);
        if was_full != *is_full {
            let room = if *is_full { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
            let mut event = EpollEvent::new(EpollFlags::EPOLLIN | room, 0);
            self.watch.modify(&*socket, &mut event).map_err(io::Error::from)?;
        }
        self.session.receive(&mut read)?;
        Ok(())
    }

    /// The connection is over.
    fn drop_link(&mut self, now: Instant, why: &SessionError) {
        self.session.lose();
        {
            let mut watched = self.monitor.lock();
            watched.is_up = false;
            watched.last_failure = Some(format!("{}: {why}", self.server));
        }
        // The watch forgets a socket that is closed.
        if self.session.replies() > self.replies_before {
            self.backoff = self.settings.backoff_min;
        }
        self.events.push_back(DeviceEvent::LinkDown);
        self.wait_for_next_attempt(now);
    }

    fn wait_for_next_attempt(&mut self, now: Instant) {
        self.link = Link::Waiting { until: now + self.backoff };
        self.backoff = (self.backoff * 2).min(self.settings.backoff_max);
    }

    /// Moves the link on: begins an attempt that is due, takes the result of one that is over.
    fn tend_link(&mut self, now: Instant) {
        match self.link {
            Link::Waiting { until } if until <= now => {
                let (server, settings) = (self.server.clone(), self.settings);
                let export = self.monitor.lock().export.name.clone();
                let giver = self.attempts.0.clone();
                let attempt = move || _ = giver.give(connect(&server, &export, settings.connect_time_max));
                match thread::Builder::new().name("nbd-connect".to_owned()).spawn(attempt) {
                    Ok(_) => self.link = Link::Connecting,
                    Err(error) => self.attempt_failed(now, &error),
                }
            }
            Link::Connecting => {
                let Some(attempt) = self.attempts.1.take() else { return };
                // There is one at a time; only a look that finds nothing clears the bell, and lets one wait again.
                let next = self.attempts.1.take();
                debug_assert!(next.is_none());
                match attempt {
                    Ok(connected) => self.take_connection(now, connected),
                    Err(error) => self.attempt_failed(now, &error),
                }
            }
            Link::Up { .. } | Link::Waiting { .. } | Link::Closed => {}
        }
    }

    fn attempt_failed(&mut self, now: Instant, why: &dyn std::fmt::Display) {
        self.monitor.lock().last_failure = Some(why.to_string());
        self.wait_for_next_attempt(now);
    }

    fn take_connection(&mut self, now: Instant, connected: Connected) {
        let Connected { socket, export } = connected;
        let known = self.monitor.export();
        if export != known {
            self.monitor.lock().last_failure = Some(format!(
                "{}: the export `{}` is not what it was: {} bytes and flags {:04x}h instead of {} bytes and {:04x}h; open it anew",
                self.server,
                export.name,
                export.size.0,
                export.flags.bits(),
                known.size.0,
                known.flags.bits(),
            ));
            self.link = Link::Closed;
            self.events.push_back(DeviceEvent::GeometryChanged);
            return;
        }
        if let Err(error) = self.watch.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, 0)) {
            return self.attempt_failed(now, &error);
        }
        self.link = Link::Up { socket, is_full: false };
        self.replies_before = self.session.replies();
        {
            let mut watched = self.monitor.lock();
            watched.is_up = true;
            watched.reconnects += 1;
        }
        self.events.push_back(DeviceEvent::LinkUp);
    }
}

/// The shape of the device over this export.
fn geometry_of(server: &NbdServer, export: &Export, settings: NbdSettings) -> Result<Geometry, OpenNbdError> {
    let least = export.block_bytes_min;
    let most = export.transfer_bytes_max.min(TRANSFER_MAX_BYTES);
    let unfit = |block| OpenNbdError::BlockSize { server: server.to_string(), least, most, block };
    let block_size = match settings.block_size {
        Some(block_size) => block_size,
        None => BlockSize::new(least.max(4096)).ok_or_else(|| unfit(4096))?,
    };
    let block = block_size.bytes();
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    // Both are powers of two.
    if least as usize > block || most < block {
        return Err(unfit(block));
    }
    let block_count = BlockCount(export.size.0 / block as u64);
    if block_count.0 == 0 {
        let (server, export_name) = (server.to_string(), export.name.clone());
        return Err(OpenNbdError::TooSmall { server, export: export_name, size: export.size.0, block });
    }
    Ok(Geometry {
        block_size,
        block_count,
        transfer_max_bytes: most - most % block,
        buffer_alignment_bytes: 1,
        queue_depth: settings.queue_depth.clamp(1, 1024),
    })
}

impl BlockDevice for NbdDevice {
    fn geometry(&self) -> Geometry {
        self.session.geometry()
    }

    fn submit(&mut self, _now: Instant, request: IoRequest) -> Result<(), Refused> {
        if matches!(self.link, Link::Closed) {
            return Err(Refused { reason: RefusalReason::Closed, request });
        }
        self.session.submit(request)?;
        if !matches!(self.link, Link::Up { .. }) {
            self.session.lose();
        }
        Ok(())
    }

    fn poll(&mut self, now: Instant) -> Option<IoCompletion> {
        if let Some(done) = self.session.take_ready() {
            return Some(done);
        }
        self.tend_link(now);
        if let Err(why) = self.exchange() {
            self.drop_link(now, &why);
        }
        self.session.take_ready()
    }

    fn poll_event(&mut self, _now: Instant) -> Option<DeviceEvent> {
        self.events.pop_front()
    }

    fn next_wakeup(&self) -> Option<Instant> {
        if self.session.has_ready() || !self.events.is_empty() {
            return Some(Instant::ZERO);
        }
        match &self.link {
            Link::Up { is_full: false, .. } if self.session.has_unsent() => Some(Instant::ZERO),
            Link::Waiting { until } => Some(*until),
            Link::Up { .. } | Link::Connecting | Link::Closed => None,
        }
    }

    fn cancel(&mut self, _now: Instant, tag: IoTag) -> Cancelled {
        self.session.cancel(tag)
    }

    fn attach_pool(&mut self, _pool: &BufferPool) {}

    fn wait_on(&self, descriptors: &mut Vec<RawFd>) {
        // Both, whatever the link is: the set stays the same as long as the device lives.
        descriptors.extend([self.watch.0.as_raw_fd(), self.attempts.1.descriptor()]);
    }
}

impl Drop for NbdDevice {
    fn drop(&mut self) {
        if let Link::Up { socket, .. } = &self.link
            && let Some(farewell) = self.session.farewell()
        {
            // Out of politeness: the server sees the end of the connection in any case.
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            let piece = [io::IoSlice::new(&farewell)];
            let _ = sendmsg::<()>(socket.as_raw_fd(), &piece, &[], flags, None);
        }
    }
}
