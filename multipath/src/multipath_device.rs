//! One block device made of many paths to the same blocks.
//!
//! Keeps true:
//!
//! * an accepted request completes exactly once, whatever its paths do; a path that hangs keeps the
//!   buffer it has and holds up nobody else;
//! * a write's bytes stay the same in every attempt; a read that was given up on completes with
//!   another buffer of the same size;
//! * a flush goes to every path that carried writes since the last one, and fails if one of them
//!   cannot do it (reported once: who gets the failure writes again what was not yet durable); it relies on no
//!   other flush that is still on its way;
//! * `submit` and `poll` call into paths, which do not block, and nothing else.
//!
//! Where a request is:
//!
//! ```text
//!            room on a path                     done, or an error that is the answer
//!   submit ────────────────▶ on a path ─────────────────────────────────▶ completion
//!      │                      │    ▲                                          ▲
//!      │ no room, no path     ▼    │ room, path back, delay over              │
//!      └───────────────────▶ waiting ─────── waited too long, deadline ───────┘
//! ```
//!
//! Not here: the decisions (`failover`), the order of paths (`selector`). An attempt that is timed out
//! is given up on, not undone: its write may still land, the completion says so, and
//! [`DeviceEvent::Settled`] follows when the path answers after all. A deadline that passes ends the
//! request without a further attempt.

mod check;
mod control_commands;
mod dispatch;
mod drill;
mod settle;
mod snapshot;

use std::collections::VecDeque;
use std::os::fd::RawFd;

use storage_mapping::block::time::earliest;
use storage_mapping::{
    BlockDevice, BufferPool, Cancelled, DeviceEvent, Effect, Geometry, Instant, IoCompletion, IoError,
    IoRequest, IoTag, Lba, Operation, PathIndex, RefusalReason, Refused,
};
use thiserror::Error;

use self::control_commands::ControlCommands;
use self::drill::Drill;
pub use self::drill::{
    DrillConfig, DrillError, DrillFault, DrillReport, DrillSample, DrillStage, Measured, SAMPLES_MAX,
};
use crate::explain::{Explain, What};
use crate::failover::{Failover, FailoverConfig, NoPathPolicy, PathConfig};
use crate::fence::{Fence, LivingCopy};
use crate::flap_damping::FlapDampingError;
use crate::flight::{Attempt, Attempts, ByTag, Flight, Purpose, Slab};
use crate::latency::{FailoverTimes, PathLatency};
use crate::path_state::{PATH_COUNT_MAX, PathStatus};
use crate::proof::Proof;
use crate::selector::{PathSelector, Selector, SelectorKind};

/// Why paths do not make a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MultipathError {
    /// Numbers of its configuration.
    #[error(transparent)]
    FlapDamping(#[from] FlapDampingError),
    /// None was given.
    #[error("a multipath device needs at least one path")]
    NoPaths,
    /// More than a set of paths can hold.
    #[error("{count} paths are too many: {PATH_COUNT_MAX} are the most")]
    TooManyPaths {
        /// How many were given.
        count: usize,
    },
    /// Two paths that cannot lead to the same blocks.
    #[error(
        "path {} has blocks of {block_bytes} bytes and path 0 of {first_bytes}: they are not the same device",
        path.0
    )]
    UnequalBlockSize {
        /// The path that differs from the first.
        path: PathIndex,
        /// Its block size.
        block_bytes: usize,
        /// That of the first.
        first_bytes: usize,
    },
}

/// A path with what it has carried.
struct Path {
    device: Box<dyn BlockDevice>,
    status: PathStatus,
    latency: PathLatency,
    /// The last write that it carried, by its number among those of all paths.
    last_write: u64,
    /// It was flushed after this write, or it was reported that it could not be.
    flushed: u64,
}

impl Path {
    /// It carried writes since the last flush.
    fn is_dirty(&self) -> bool {
        self.last_write > self.flushed
    }
}

/// Why a request is on no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitFor {
    /// Room in a queue.
    Room,
    /// A path that can be used.
    Path,
    /// The device was busy.
    Time(Instant),
}

/// A request that is on no path; of a flush, one of its parts.
#[derive(Clone, Copy, Debug)]
struct Wait {
    flight: usize,
    wait_for: WaitFor,
    /// The path of a part of a flush.
    flush_path: Option<PathIndex>,
}

/// One block device made of many paths to the same blocks.
pub struct MultipathDevice<S = Selector> {
    paths: Vec<Path>,
    core: Failover<S>,
    geometry: Geometry,
    pool: BufferPool,
    flights: Slab<Flight>,
    by_tag: ByTag,
    attempts: Attempts,
    fence: Fence,
    /// Comparisons of paths that come back.
    proofs: Vec<Proof>,
    waiting: Vec<Wait>,
    /// Something happened that waiting requests may wait for.
    has_changed: bool,
    /// Requests so far.
    serial: u64,
    /// Writes that paths have carried so far.
    carried_writes: u64,
    failover_times: FailoverTimes,
    drill: Option<Drill>,
    control: ControlCommands,
    /// No read is to be hedged before this.
    check_hedges_at: Option<Instant>,
    /// No attempt times out before this.
    check_attempts_at: Option<Instant>,
    /// No deadline passes before this.
    check_deadlines_at: Option<Instant>,
    ready: VecDeque<IoCompletion>,
    events: VecDeque<DeviceEvent>,
}

impl MultipathDevice<Selector> {
    /// Makes one device of equal paths, each used by its latency.
    ///
    /// # Errors
    /// See [`MultipathError`].
    pub fn new(paths: Vec<Box<dyn BlockDevice>>, config: FailoverConfig) -> Result<Self, MultipathError> {
        let paths = paths.into_iter().map(|path| (PathConfig::default(), path)).collect();
        Self::with_selector(paths, Selector::new(Instant::ZERO, SelectorKind::default()), config)
    }

    /// Chooses in another way from now on.
    pub fn switch_selector(&mut self, now: Instant, kind: SelectorKind) {
        self.core.selector_mut().switch(now, kind);
    }
}

impl<S: PathSelector> MultipathDevice<S> {
    /// Makes one device of paths, each with what it is, that `selector` chooses among.
    ///
    /// # Errors
    /// See [`MultipathError`].
    pub fn with_selector(
        paths: Vec<(PathConfig, Box<dyn BlockDevice>)>,
        selector: S,
        config: FailoverConfig,
    ) -> Result<Self, MultipathError> {
        let geometry = common_geometry(paths.iter().map(|(_, device)| device.geometry()))?;
        let (configs, mut paths): (Vec<PathConfig>, Vec<Box<dyn BlockDevice>>) = paths.into_iter().unzip();
        let count = paths.len();
        let depths = paths.iter().map(|device| device.geometry().queue_depth);
        let configs: Vec<(PathConfig, usize)> = configs.into_iter().zip(depths).collect();
        let core = Failover::new(Instant::ZERO, &configs, selector, config)?;
        let with_status = |(index, device)| Path {
            device,
            status: PathStatus::new(PathIndex(index)),
            latency: PathLatency::default(),
            last_write: 0,
            flushed: 0,
        };
        let takes_commands = |path: &PathIndex| paths[path.0].control_port().is_some();
        let ports = (0..count).map(PathIndex).filter(takes_commands).collect();
        Ok(Self {
            control: ControlCommands::new(ports, count),
            paths: paths.into_iter().enumerate().map(with_status).collect(),
            core,
            geometry,
            pool: BufferPool::new(),
            flights: Slab::new(),
            by_tag: ByTag::default(),
            attempts: Attempts::new(),
            fence: Fence::default(),
            proofs: Vec::new(),
            waiting: Vec::new(),
            has_changed: false,
            serial: 0,
            carried_writes: 0,
            failover_times: FailoverTimes::default(),
            drill: None,
            check_hedges_at: None,
            check_attempts_at: None,
            check_deadlines_at: None,
            ready: VecDeque::new(),
            events: VecDeque::new(),
        })
    }

    /// How many paths it has.
    #[must_use]
    pub fn path_count(&self) -> usize {
        self.paths.len()
    }

    /// Every path as it stands.
    #[must_use]
    pub fn status(&self) -> Vec<PathStatus> {
        let with_state = |path: &Path| PathStatus { state: self.core.state(path.status.path), ..path.status };
        self.paths.iter().map(with_state).collect()
    }

    /// An operator wants the group of paths of this priority. Says whether it has a path that can be used; if not,
    /// nothing changes.
    pub fn switch_group(&mut self, priority: u16) -> bool {
        self.core.switch_group(priority)
    }

    /// Every copy of a write that was given up on and may still land: for who closes the device, since the end
    /// of a process does not kill a copy.
    #[must_use]
    pub fn living_copies(&self) -> Vec<LivingCopy> {
        self.fence.living_copies().collect()
    }

    /// Grows when [`Self::living_copies`] changes, those of unsafe writes left out.
    #[must_use]
    pub fn copies_generation(&self) -> u64 {
        self.fence.generation()
    }

    /// Copies that were living when the device was closed the last time, as [`Self::living_copies`] gave them, on the
    /// clock of this process: writes over their blocks are held until they are assumed dead, and they count as living
    /// until then. What is over already changes nothing. To be called before the first write.
    pub fn inherit_copies(&mut self, now: Instant, copies: impl IntoIterator<Item = LivingCopy>) {
        let living = copies.into_iter().filter(|copy| now < copy.assumed_dead_at);
        living.for_each(|copy| self.fence.inherit(copy));
    }

    /// Of this path it is not known that it leads where the others lead: it carries nothing before it was compared with one
    /// that is in use. To be called before the first request.
    ///
    /// # Panics
    /// If there is no such path.
    pub fn compare_first(&mut self, now: Instant, path: PathIndex) {
        self.core.wait_for_comparison(now, path);
    }

    /// What happened to paths, and what was decided while [`Self::explain`] was on.
    #[must_use]
    pub fn explanation(&self) -> &Explain {
        self.core.explain()
    }

    /// Begins or ends to keep what is decided about every request. Ending forgets it.
    pub fn explain(&mut self, wanted: bool) {
        self.core.explain_mut().keep_decisions(wanted);
    }

    /// How long I/O over a path takes.
    ///
    /// # Panics
    /// If there is no such path.
    #[must_use]
    pub fn latency(&self, path: PathIndex) -> &PathLatency {
        &self.paths[path.0].latency
    }

    /// How long the steps of a failover take.
    #[must_use]
    pub fn failover_times(&self) -> &FailoverTimes {
        &self.failover_times
    }

    /// Writes that wait for others to be over, or for copies to be dead.
    #[must_use]
    pub fn held_writes(&self) -> usize {
        self.fence.held_count()
    }

    /// Copies that were done after they had been assumed dead ([`FailoverConfig::quiesce_time`] is too short).
    #[must_use]
    pub fn late_landings(&self) -> u64 {
        self.fence.late_landings()
    }

    /// An operator takes a path out of use. What it has already, it keeps.
    ///
    /// # Panics
    /// If there is no such path.
    pub fn fail_path(&mut self, now: Instant, path: PathIndex) {
        self.core.disable_path(now, path);
    }

    /// An operator puts a path into use.
    ///
    /// # Panics
    /// If there is no such path.
    pub fn reinstate_path(&mut self, now: Instant, path: PathIndex) {
        self.core.reinstate_path(now, path);
        self.has_changed = true;
    }

    /// Why the request may not be taken, if it may not.
    fn refusal(&self, request: &IoRequest) -> Option<RefusalReason> {
        let fits = |lba: Lba, bytes: &[u8]| {
            self.geometry.admits(lba, bytes.len())
                && bytes.as_ptr().addr().is_multiple_of(self.geometry.buffer_alignment_bytes)
        };
        let is_valid = match &request.operation {
            Operation::Read { lba, buffer } => fits(*lba, buffer),
            Operation::Write { lba, data, .. } => fits(*lba, data),
            Operation::Flush => true,
        };
        if !is_valid || request.path.is_some_and(|path| path.0 >= self.paths.len()) {
            Some(RefusalReason::Invalid)
        } else if self.flights.len() >= self.geometry.queue_depth || self.is_quarantine_full() {
            Some(RefusalReason::Busy)
        } else if self.by_tag.contains_key(&request.tag) {
            Some(RefusalReason::DuplicateTag)
        } else {
            None
        }
    }

    /// Whether hung paths have so many bytes that nothing new is taken.
    fn is_quarantine_full(&self) -> bool {
        let bytes: usize = self.paths.iter().map(|path| path.status.quarantined_bytes).sum();
        bytes >= self.core.config().quarantine_max_bytes
    }

    fn flight(&mut self, index: usize) -> &mut Flight {
        self.flights.entry(index).expect("a request on its way is in the table")
    }

    /// Ends a request.
    fn finish(&mut self, now: Instant, index: usize, outcome: Result<(), IoError>) {
        let flight = self.flights.remove(index).expect("a request on its way is in the table");
        self.forget(index, &flight);
        let is_done = outcome.is_ok();
        self.note_drilled(now, &flight, is_done);
        self.core.explain_mut().note(now, flight.tag, || What::Ended { is_done });
        if flight.is_load {
            return;
        }
        self.ready.push_back(flight.complete(outcome, |length| self.pool.take(length)));
    }

    /// Nobody waits for the request any more.
    fn forget(&mut self, index: usize, flight: &Flight) {
        if !flight.is_load {
            self.by_tag.remove(&flight.tag);
        }
        self.waiting.retain(|wait| wait.flight != index);
        if flight.is_write() {
            self.fence.end(index);
        }
    }

    /// Takes in what the paths have finished.
    fn collect(&mut self, now: Instant) {
        for index in 0..self.paths.len() {
            while let Some(done) = self.paths[index].device.poll(now) {
                if self.drilled(PathIndex(index)) == Some(DrillFault::Hang) {
                    self.withhold(done);
                } else {
                    self.handle_completion(now, PathIndex(index), done);
                }
            }
        }
    }

    /// When the next request has waited long enough.
    fn wait_end(&self) -> Option<Instant> {
        let end = |wait: &Wait| match wait.wait_for {
            WaitFor::Time(at) => Some(at),
            WaitFor::Room | WaitFor::Path if self.has_changed => Some(Instant::ZERO),
            WaitFor::Room => None,
            WaitFor::Path => self.patience_end(wait.flight),
        };
        self.waiting.iter().filter_map(end).min()
    }

    /// Until when a request waits for a path, if there is an end to it.
    fn patience_end(&self, index: usize) -> Option<Instant> {
        let NoPathPolicy::QueueFor(patience) = self.core.config().no_path else { return None };
        self.flights.get(index).map(|flight| flight.submitted + patience)
    }

    /// An event of one path: a change of its link is taken in here.
    fn handle_event(&mut self, now: Instant, path: PathIndex, event: DeviceEvent) -> Option<DeviceEvent> {
        match event {
            DeviceEvent::Settled { tag, proof } => {
                self.settle(now, tag, proof);
                self.events.pop_front()
            }
            DeviceEvent::LinkUp => {
                self.note_port(path);
                self.core.probe_now(now, path);
                None
            }
            DeviceEvent::LinkDown => {
                self.core.handle_link_down(now, path);
                None
            }
            DeviceEvent::GeometryChanged => {
                let all = self.paths.iter().map(|path| path.device.geometry());
                self.geometry = common_geometry(all).unwrap_or(self.geometry);
                Some(event)
            }
            DeviceEvent::Attention => Some(event),
        }
    }
}

impl<S: PathSelector> BlockDevice for MultipathDevice<S> {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn submit(&mut self, now: Instant, request: IoRequest) -> Result<(), Refused> {
        if let Some(reason) = self.refusal(&request) {
            return Err(Refused { reason, request });
        }
        let (tag, deadline) = (request.tag, request.deadline);
        self.serial += 1;
        let flight = Flight::new(now, self.serial, request);
        let is_flush = flight.is_flush();
        let fenced_range = flight.fenced_range(self.geometry.block_size.bytes());
        let index = self.flights.insert(flight);
        self.by_tag.insert(tag, index);
        self.check_deadlines_at = earliest(self.check_deadlines_at, deadline);
        if is_flush {
            self.dispatch_flush(now, index);
        } else if fenced_range.is_none_or(|range| self.fence.admit(index, range)) {
            self.dispatch(now, index);
        } else {
            self.core.explain_mut().note(now, tag, || What::Held);
        }
        Ok(())
    }

    fn poll(&mut self, now: Instant) -> Option<IoCompletion> {
        if let Some(done) = self.ready.pop_front() {
            return Some(done);
        }
        self.expire_drill(now);
        self.collect(now);
        self.drive_commands(now);
        self.core.handle_timeout(now);
        self.expire_attempts(now);
        self.expire_deadlines(now);
        self.expire_copies(now);
        self.release_held(now);
        self.send_hedges(now);
        self.send_probes(now);
        self.retry_waiting(now);
        self.send_load(now);
        self.ready.pop_front()
    }

    fn poll_event(&mut self, now: Instant) -> Option<DeviceEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        for index in 0..self.paths.len() {
            while let Some(event) = self.paths[index].device.poll_event(now) {
                if let Some(event) = self.handle_event(now, PathIndex(index), event) {
                    return Some(event);
                }
            }
        }
        None
    }

    fn next_wakeup(&self) -> Option<Instant> {
        if !self.ready.is_empty() || !self.events.is_empty() {
            return Some(Instant::ZERO);
        }
        let own = [
            self.check_attempts_at,
            self.check_deadlines_at,
            self.check_hedges_at,
            self.core.next_timeout(),
            self.fence.next_timeout(),
            self.drill_timeout(),
            self.next_command_timeout(),
            self.wait_end(),
        ];
        let below = self.paths.iter().map(|path| path.device.next_wakeup());
        own.into_iter().chain(below).fold(None, earliest)
    }

    fn cancel(&mut self, now: Instant, tag: IoTag) -> Cancelled {
        let Some(&index) = self.by_tag.get(&tag) else { return Cancelled::NotHere };
        let flight = self.flight(index);
        if flight.is_flush() || flight.effect != Effect::None || flight.on_paths > 1 {
            return Cancelled::Requested;
        }
        if self.waiting.iter().all(|wait| wait.flight != index) && !self.fence.holds(index) {
            let is_it = |attempt: &&Attempt| attempt.purpose == Purpose::Flight(index);
            let found = self.attempts.iter().find(is_it).copied();
            let attempt = found.expect("what does not wait is on a path");
            if !self.withdraw_attempt(now, &attempt, index) {
                return Cancelled::Requested;
            }
        }
        let flight = self.flights.remove(index).expect("found just now");
        self.forget(index, &flight);
        Cancelled::Withdrawn(flight.into_request())
    }

    fn attach_pool(&mut self, pool: &BufferPool) {
        self.pool = pool.clone();
        self.paths.iter_mut().for_each(|path| path.device.attach_pool(pool));
    }

    fn wait_on(&self, descriptors: &mut Vec<RawFd>) {
        self.paths.iter().for_each(|path| path.device.wait_on(descriptors));
    }
}

/// What all paths can do.
fn common_geometry(paths: impl ExactSizeIterator<Item = Geometry>) -> Result<Geometry, MultipathError> {
    let count = paths.len();
    if count > PATH_COUNT_MAX {
        return Err(MultipathError::TooManyPaths { count });
    }
    let mut common: Option<Geometry> = None;
    for (index, next) in paths.enumerate() {
        let first = *common.get_or_insert(Geometry { queue_depth: 0, ..next });
        if next.block_size != first.block_size {
            return Err(MultipathError::UnequalBlockSize {
                path: PathIndex(index),
                block_bytes: next.block_size.bytes(),
                first_bytes: first.block_size.bytes(),
            });
        }
        common = Some(Geometry {
            block_size: first.block_size,
            block_count: first.block_count.min(next.block_count),
            transfer_max_bytes: first.transfer_max_bytes.min(next.transfer_max_bytes),
            buffer_alignment_bytes: first.buffer_alignment_bytes.max(next.buffer_alignment_bytes),
            queue_depth: first.queue_depth.saturating_add(next.queue_depth),
        });
    }
    common.ok_or(MultipathError::NoPaths)
}
