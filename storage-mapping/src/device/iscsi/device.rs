//! A logical unit as a device: the link to it, its back-off, and who may be told what.
//!
//! ```text
//!        ┌─────────────── LinkUp, NexusBegun ────────────────┐
//!        ▼                                                   │ same unit
//!  up ──(lost)── LinkDown, NexusLost ──▶ waiting ──▶ trying ─┴─(another unit)── GeometryChanged ──▶ closed
//!                                          ▲           │ failed or too slow, longer wait
//!                                          └───────────┘
//! ```
//!
//! Keeps true: while the link is down a request is taken and ends at once as *connection lost, not sent*; connecting
//! and logging in happen between other things and nobody waits for them; the back-off grows until an answer proves a
//! session; a unit that comes back with another identity or size is another disk, and the device stays closed. The
//! portal's name is looked up once, at opening. Deadlines are not its matter. Not here: requests (`requests`), the
//! control port (`port`).

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use thiserror::Error;

use super::attempt::{Attempt, Credentials, Established};
use super::command::Sense;
use super::ffi::Session;
use super::identity::{Isid, NexusLock, c_text, default_initiator};
use super::probe::Unit;
use super::requests::{CONTROLS_MAX, Requests};
use crate::block::address::{BlockCount, BlockSize};
use crate::block::buffer::BufferPool;
use crate::block::request::{Cancelled, IoCompletion, IoRequest, IoTag, RefusalReason, Refused};
use crate::block::time::Instant;
use crate::block::{BlockDevice, DeviceEvent, Geometry};
use crate::control_port::{ControlEvent, ControlPort, NexusId};
use crate::identity::{self, Identity};
use crate::path_address::IscsiAddress;
use crate::scsi::vpd::identification::unit_identity;
use crate::scsi::vpd::{Page, Vpd};
use crate::wait;

/// The longest request that is sent, in bytes, whatever the unit allows.
const TRANSFER_MAX_BYTES: usize = 4 << 20;
/// The longest password of CHAP that libiscsi keeps, in bytes.
const PASSWORD_MAX_BYTES: usize = 255;
/// Turns of sending and receiving in one call.
const TURNS_MAX: usize = 4;
/// The additional sense code of resets and lost nexuses, which each login brings.
const ASC_RESET: u8 = 0x29;

/// What a caller can choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IscsiSettings {
    /// The logical block size: a multiple of the unit's, which it is where this is left out.
    pub block_size: Option<BlockSize>,
    /// Requests in flight, at most, from 1 to 1,024. The target's window of commands may let fewer out.
    pub queue_depth: usize,
    /// For one attempt to connect, log in and ask the unit.
    pub connect_time_max: Duration,
    /// Between the loss of a session and the first attempt to get another.
    pub backoff_min: Duration,
    /// Between two attempts, at most.
    pub backoff_max: Duration,
}

impl Default for IscsiSettings {
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

/// Why a unit could not be opened as a device.
#[derive(Debug, Error)]
pub enum OpenIscsiError {
    /// The portal's name leads nowhere.
    #[error("{address}: the portal has no address: {source}")]
    Portal {
        /// Which.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The file with the password.
    #[error("cannot read the password in {}: {source}", path.display())]
    Password {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another session on this host is the same initiator port to this target.
    #[error(
        "{address}: {initiator} has a session with the id {isid} already ({source}), and a second would end it: write session=NAME, another one for each"
    )]
    NotAlone {
        /// Which.
        address: String,
        /// The initiator.
        initiator: String,
        /// The session id.
        isid: Isid,
        /// The system's reason.
        source: io::Error,
    },
    /// No session, or none that carries commands.
    #[error("{address}: {reason}")]
    Session {
        /// Which.
        address: String,
        /// In words: those of libiscsi, or ours.
        reason: String,
    },
    /// No descriptors left.
    #[error("cannot watch the socket of {address}: {source}")]
    Watch {
        /// Whose.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The block size does not suit the unit.
    #[error(
        "{address} has blocks of {unit_block} bytes, and blocks of {block} bytes are no multiple of that, or none that is known: choose another block="
    )]
    BlockSize {
        /// Which.
        address: String,
        /// The unit's block, in bytes.
        unit_block: u32,
        /// The block size.
        block: usize,
    },
    /// No whole block.
    #[error("{address} has {unit_blocks} blocks of {unit_block} bytes, which hold no block of {block} bytes")]
    TooSmall {
        /// Which.
        address: String,
        /// The unit's blocks.
        unit_blocks: u64,
        /// Their size, in bytes.
        unit_block: u32,
        /// The block size.
        block: usize,
    },
}

/// What can be seen of a device from outside while it works: clones look at the same one.
#[derive(Clone, Debug)]
pub struct IscsiMonitor {
    shared: Arc<Mutex<Watched>>,
}

#[derive(Debug)]
struct Watched {
    is_up: bool,
    logins: u64,
    last_failure: Option<String>,
}

impl IscsiMonitor {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a session.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.lock().is_up
    }

    /// Logins so far; the generation of the nexus.
    #[must_use]
    pub fn logins(&self) -> u64 {
        self.lock().logins
    }

    /// Why the session was lost, or could not be had again, the last time; in words.
    #[must_use]
    pub fn last_failure(&self) -> Option<String> {
        self.lock().last_failure.clone()
    }
}

/// The state of the session.
#[derive(Debug)]
pub(super) enum Link {
    Up(Box<Session>),
    Waiting { until: Instant },
    Trying { attempt: Box<Attempt>, until: Instant },
    Closed,
}

impl Link {
    pub(super) fn session(&mut self) -> Option<&mut Session> {
        match self {
            Self::Up(session) => Some(session),
            Self::Waiting { .. } | Self::Trying { .. } | Self::Closed => None,
        }
    }
}

/// Readable when the socket has something for us, or room again after it had none.
#[derive(Debug)]
struct Watch {
    epoll: Epoll,
    interest: EpollFlags,
}

impl Watch {
    fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll, interest: EpollFlags::empty() })
    }

    /// Begins with a new socket, if there is one; the last one was forgotten when it was closed.
    fn begin(&mut self, session: &Session) -> io::Result<()> {
        let Some(socket) = session.socket() else { return Ok(()) };
        self.interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
        Ok(self.epoll.add(socket, EpollEvent::new(self.interest, 0))?)
    }

    /// Waits for what the session waits for.
    fn follow(&mut self, session: &Session) -> io::Result<()> {
        let room = if session.wants_room() { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
        let interest = EpollFlags::EPOLLIN | room;
        let Some(socket) = session.socket().filter(|_| interest != self.interest) else { return Ok(()) };
        self.interest = interest;
        Ok(self.epoll.modify(socket, &mut EpollEvent::new(interest, 0))?)
    }
}

/// A logical unit of an iSCSI target.
#[derive(Debug)]
pub struct IscsiDevice {
    address: IscsiAddress,
    settings: IscsiSettings,
    initiator: String,
    credentials: Credentials,
    portals: Vec<SocketAddr>,
    /// The one that is tried next.
    portal: usize,
    unit: Unit,
    pub(super) requests: Requests,
    pub(super) link: Link,
    watch: Watch,
    backoff: Duration,
    /// Answers when the session began: one more proves it.
    answers_before: u64,
    events: VecDeque<DeviceEvent>,
    pub(super) control_events: VecDeque<ControlEvent>,
    monitor: IscsiMonitor,
    _lock: NexusLock,
}

impl IscsiDevice {
    /// Connects, logs in, and asks the unit what it is. Blocks for `connect_time_max` at most for each address that
    /// the portal's name has, looking up that name excepted.
    ///
    /// # Errors
    /// See [`OpenIscsiError`].
    pub fn open(address: &IscsiAddress, settings: IscsiSettings) -> Result<Self, OpenIscsiError> {
        let name = || address.to_string();
        let portals = (address.host.as_str(), address.port).to_socket_addrs();
        let portals: Vec<SocketAddr> = portals
            .and_then(|found| {
                Some(found.collect()).filter(|found: &Vec<_>| !found.is_empty()).ok_or_else(none_found)
            })
            .map_err(|source| OpenIscsiError::Portal { address: name(), source })?;
        let initiator = address.initiator.clone().unwrap_or_else(default_initiator);
        let isid = Isid::of(&initiator, address);
        let lock = NexusLock::take(&initiator, isid, &address.target).map_err(|source| {
            OpenIscsiError::NotAlone { address: name(), initiator: initiator.clone(), isid, source }
        })?;
        let settings = IscsiSettings { queue_depth: settings.queue_depth.clamp(1, 1024), ..settings };
        let credentials = Credentials {
            initiator: c_text(&initiator),
            isid,
            target: c_text(&address.target),
            lun: address.lun,
            chap: chap_of(address)?,
            places: settings.queue_depth + CONTROLS_MAX,
        };
        let failed = |source| OpenIscsiError::Watch { address: name(), source };
        let mut watch = Watch::new().map_err(failed)?;
        let mut reason = String::new();
        let mut first = None;
        for (portal, at) in portals.iter().enumerate() {
            match establish(*at, &credentials, &mut watch, settings.connect_time_max) {
                Ok(established) => {
                    first = Some((portal, established));
                    break;
                }
                Err(why) => reason = why,
            }
        }
        let Some((portal, Established { session, unit, attentions })) = first else {
            return Err(OpenIscsiError::Session { address: name(), reason });
        };
        let (geometry, unit_blocks) = geometry_of(address, &unit, settings)?;
        let watched = Watched { is_up: true, logins: 1, last_failure: None };
        Ok(Self {
            address: address.clone(),
            settings,
            initiator,
            credentials,
            portals,
            portal,
            requests: Requests::new(geometry, unit_blocks, unit.has_fua),
            unit,
            link: Link::Up(Box::new(session)),
            watch,
            backoff: settings.backoff_min,
            answers_before: 0,
            events: VecDeque::new(),
            control_events: begun(&attentions).collect(),
            monitor: IscsiMonitor { shared: Arc::new(Mutex::new(watched)) },
            _lock: lock,
        })
    }

    /// A view of the device that stays when it is moved into a stack.
    #[must_use]
    pub fn monitor(&self) -> IscsiMonitor {
        self.monitor.clone()
    }

    /// Which unit it is, by the name that the unit gives to everyone (page 83h of its vital product data).
    #[must_use]
    pub fn identity(&self) -> Identity {
        let page = Vpd::parse(&self.unit.identity).map(|vpd| vpd.page);
        let Some(Page::Identification(designators)) = page else { return Identity::Scsi(None) };
        Identity::Scsi(unit_identity(&designators).map(|wwid| identity::Unit { wwid, is_scsi: true }))
    }

    /// What the device has to do without, one line each.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        let (address, mut notices) = (&self.address, Vec::new());
        if !self.unit.has_fua {
            notices.push(format!("{address}: no FUA here, durable writes are flushed one by one"));
        }
        if self.unit.is_read_only {
            notices.push(format!("{address}: the unit is read-only, writes fail"));
        }
        if self.unit.identity.is_empty() {
            notices.push(format!(
                "{address}: the unit has no name, paths to it are compared by size and content"
            ));
        }
        notices
    }

    pub(super) fn nexus_id(&self) -> NexusId {
        let IscsiAddress { host, port, target, .. } = &self.address;
        NexusId {
            initiator: format!("{},i,{}", self.initiator, self.credentials.isid),
            target_port: format!("{target},{host}:{port}"),
            generation: self.monitor.logins(),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.link, Link::Closed)
    }

    /// What was taken while there is no session.
    pub(super) fn end_what_cannot_be_sent(&mut self) {
        if !matches!(self.link, Link::Up(_)) {
            self.requests.lose(Vec::new());
        }
    }

    /// Everything that can be done without waiting.
    pub(super) fn work(&mut self, now: Instant) {
        self.tend_link(now);
        if let Err(why) = self.exchange() {
            self.drop_link(now, &why);
        }
    }

    fn exchange(&mut self) -> Result<(), String> {
        let Link::Up(session) = &mut self.link else { return Ok(()) };
        for _ in 0..TURNS_MAX {
            if self.requests.has_queued() && session.has_sent_all() {
                self.requests.send(session);
            }
            session.serve()?;
            if !self.requests.take_ended(session) {
                break;
            }
        }
        self.watch.follow(session).map_err(|error| error.to_string())
    }

    /// When `work` has something to do although nothing came in.
    pub(super) fn next_work(&self) -> Option<Instant> {
        match &self.link {
            Link::Up(session) => {
                (self.requests.has_queued() && session.has_sent_all()).then_some(Instant::ZERO)
            }
            Link::Waiting { until } | Link::Trying { until, .. } => Some(*until),
            Link::Closed => None,
        }
    }

    /// The session is over.
    fn drop_link(&mut self, now: Instant, why: &str) {
        let Link::Up(session) = std::mem::replace(&mut self.link, Link::Closed) else { return };
        self.requests.lose(session.lose());
        {
            let mut watched = self.monitor.lock();
            watched.is_up = false;
            watched.last_failure = Some(format!("{}: {why}", self.address));
        }
        if self.requests.answers() > self.answers_before {
            self.backoff = self.settings.backoff_min;
        }
        self.events.push_back(DeviceEvent::LinkDown);
        self.control_events.push_back(ControlEvent::NexusLost);
        self.wait_for_next_attempt(now);
    }

    fn wait_for_next_attempt(&mut self, now: Instant) {
        self.link = Link::Waiting { until: now + self.backoff };
        self.backoff = (self.backoff * 2).min(self.settings.backoff_max);
    }

    /// Moves the link on: begins an attempt that is due, goes on with one that is not over.
    fn tend_link(&mut self, now: Instant) {
        match std::mem::replace(&mut self.link, Link::Closed) {
            Link::Waiting { until } if until <= now => {
                let begun = Attempt::begin(self.portals[self.portal], &self.credentials);
                let watched = begun.and_then(|attempt| {
                    self.watch.begin(attempt.session()).map_err(|error| error.to_string())?;
                    Ok(attempt)
                });
                let until = now + self.settings.connect_time_max;
                match watched {
                    Ok(attempt) => self.link = Link::Trying { attempt: Box::new(attempt), until },
                    Err(why) => self.attempt_failed(now, &why),
                }
            }
            Link::Trying { until, .. } if until <= now => self.attempt_failed(now, "no answer in time"),
            Link::Trying { attempt, until } => self.go_on(now, *attempt, until),
            other => self.link = other,
        }
    }

    fn go_on(&mut self, now: Instant, attempt: Attempt, until: Instant) {
        match attempt.go_on() {
            Ok(Ok(established)) => self.take_session(now, established),
            Ok(Err(attempt)) => match self.watch.follow(attempt.session()) {
                Ok(()) => self.link = Link::Trying { attempt: Box::new(attempt), until },
                Err(error) => self.attempt_failed(now, &error.to_string()),
            },
            Err(why) => self.attempt_failed(now, &why),
        }
    }

    fn attempt_failed(&mut self, now: Instant, why: &str) {
        self.monitor.lock().last_failure = Some(format!("{}: {why}", self.address));
        self.portal = (self.portal + 1) % self.portals.len();
        self.wait_for_next_attempt(now);
    }

    fn take_session(&mut self, now: Instant, established: Established) {
        let Established { session, unit, attentions } = established;
        let is_same_size = unit.size.is_none() || unit.size == self.unit.size;
        if unit.identity != self.unit.identity || !is_same_size {
            let why = format!("{}: another unit or another size than before: open it anew", self.address);
            self.monitor.lock().last_failure = Some(why);
            self.events.push_back(DeviceEvent::GeometryChanged);
            return;
        }
        if let Err(error) = self.watch.follow(&session) {
            return self.attempt_failed(now, &error.to_string());
        }
        self.requests.has_fua = unit.has_fua;
        self.link = Link::Up(Box::new(session));
        self.answers_before = self.requests.answers();
        {
            let mut watched = self.monitor.lock();
            watched.is_up = true;
            watched.logins += 1;
        }
        self.control_events.extend(begun(&attentions));
        if attentions.iter().any(|sense| sense.asc != ASC_RESET) {
            self.events.push_back(DeviceEvent::Attention);
        }
        self.events.push_back(DeviceEvent::LinkUp);
    }
}

fn none_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

/// What the beginning of a nexus is told by.
fn begun(attentions: &[Sense]) -> impl Iterator<Item = ControlEvent> {
    let told = |sense: &Sense| ControlEvent::Attention { key: sense.key, asc: sense.asc, ascq: sense.ascq };
    std::iter::once(ControlEvent::NexusBegun).chain(attentions.iter().map(told))
}

/// User and password of an address that has them.
fn chap_of(address: &IscsiAddress) -> Result<Option<(std::ffi::CString, std::ffi::CString)>, OpenIscsiError> {
    let (Some(user), Some(path)) = (&address.user, &address.password_file) else { return Ok(None) };
    let password =
        password_in(path).map_err(|source| OpenIscsiError::Password { path: path.clone(), source })?;
    Ok(Some((c_text(user), c_text(&password))))
}

/// The first line of a file.
fn password_in(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(4096).read_to_string(&mut text)?;
    let password = text.lines().next().unwrap_or_default();
    let is_fit = !password.is_empty() && password.len() <= PASSWORD_MAX_BYTES && !password.contains('\0');
    let unfit =
        || io::Error::new(io::ErrorKind::InvalidData, "its first line must be a password of 1 to 255 bytes");
    if is_fit { Ok(password.to_owned()) } else { Err(unfit()) }
}

/// Makes a session and waits for it, at opening.
fn establish(
    portal: SocketAddr,
    credentials: &Credentials,
    watch: &mut Watch,
    time_max: Duration,
) -> Result<Established, String> {
    let deadline = std::time::Instant::now() + time_max;
    let mut attempt = Attempt::begin(portal, credentials)?;
    watch.begin(attempt.session()).map_err(|error| error.to_string())?;
    loop {
        attempt = match attempt.go_on()? {
            Ok(established) => {
                watch.follow(&established.session).map_err(|error| error.to_string())?;
                return Ok(established);
            }
            Err(attempt) => attempt,
        };
        watch.follow(attempt.session()).map_err(|error| error.to_string())?;
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return Err(format!("no session within {time_max:?}"));
        }
        wait::wait(&[watch.epoll.0.as_raw_fd()], Some(left));
    }
}

/// The shape of the device over this unit, and how many of its blocks are one of ours.
fn geometry_of(
    address: &IscsiAddress,
    unit: &Unit,
    settings: IscsiSettings,
) -> Result<(Geometry, u32), OpenIscsiError> {
    let Some((unit_block, unit_blocks)) = unit.size else {
        let reason =
            "a reservation of another host hides its size: release that, or register here first".to_owned();
        return Err(OpenIscsiError::Session { address: address.to_string(), reason });
    };
    let block = settings.block_size.map_or(unit_block as usize, BlockSize::bytes);
    let unfit = || OpenIscsiError::BlockSize { address: address.to_string(), unit_block, block };
    let block_size = u32::try_from(block).ok().and_then(BlockSize::new).ok_or_else(unfit)?;
    let factor =
        u32::try_from(block).ok().and_then(|block| block.checked_div(unit_block)).ok_or_else(unfit)?;
    if factor == 0 || !block.is_multiple_of(unit_block as usize) {
        return Err(unfit());
    }
    let block_count = BlockCount(unit_blocks / u64::from(factor));
    if block_count.0 == 0 {
        return Err(OpenIscsiError::TooSmall {
            address: address.to_string(),
            unit_blocks,
            unit_block,
            block,
        });
    }
    let most = unit.transfer_max_blocks.map_or(u64::MAX, |blocks| u64::from(blocks) * u64::from(unit_block));
    let most = usize::try_from(most).unwrap_or(usize::MAX).min(TRANSFER_MAX_BYTES);
    let geometry = Geometry {
        block_size,
        block_count,
        transfer_max_bytes: (most - most % block).max(block),
        buffer_alignment_bytes: 1,
        queue_depth: settings.queue_depth,
    };
    Ok((geometry, factor))
}

impl BlockDevice for IscsiDevice {
    fn geometry(&self) -> Geometry {
        self.requests.geometry()
    }

    fn submit(&mut self, _now: Instant, request: IoRequest) -> Result<(), Refused> {
        if self.is_closed() {
            return Err(Refused { reason: RefusalReason::Closed, request });
        }
        self.requests.submit(request)?;
        self.end_what_cannot_be_sent();
        Ok(())
    }

    fn poll(&mut self, now: Instant) -> Option<IoCompletion> {
        if let Some(done) = self.requests.take_ready() {
            return Some(done);
        }
        self.work(now);
        self.requests.take_ready()
    }

    fn poll_event(&mut self, _now: Instant) -> Option<DeviceEvent> {
        self.events.pop_front()
    }

    fn next_wakeup(&self) -> Option<Instant> {
        if self.requests.has_ready() || !self.events.is_empty() {
            return Some(Instant::ZERO);
        }
        self.next_work()
    }

    fn cancel(&mut self, _now: Instant, tag: IoTag) -> Cancelled {
        let session = self.link.session();
        self.requests.cancel(tag, session)
    }

    fn attach_pool(&mut self, _pool: &BufferPool) {}

    fn wait_on(&self, descriptors: &mut Vec<RawFd>) {
        // Whatever the link is: the set stays the same as long as the device lives.
        descriptors.push(self.watch.epoll.0.as_raw_fd());
    }

    fn control_port(&mut self) -> Option<&mut dyn ControlPort> {
        Some(self)
    }
}
