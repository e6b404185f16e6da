//! The decisions of the multipath layer, without I/O, threads or a clock.
//!
//! Three questions are answered here: over which path does a request go, is an errored request sent
//! again, and is a path in use (`path_state` draws the states).
//!
//! Keeps true:
//!
//! * an I/O is sent again only if that cannot bring back old data: a read always; a write that had
//!   no effect, or whose copy is dead, or under a fence that holds later writes until it is
//!   ([`FencePolicy::Fence`], [`FencePolicy::Wait`]), or whose sender says that it tells old bytes from
//!   new ones ([`FencePolicy::Unsafe`]);
//! * no request is sent more than [`FailoverConfig::attempts_max`] times, nor twice over a path that
//!   gave an error (a busy path excepted);
//! * the last path in use is not failed by an error that may come from the medium, and no path by one that all
//!   paths give at once (`witness`);
//! * a path that had failed carries I/O again only after it answered a probe, and where another path is in use
//!   after it was compared with that one (`proof`).
//!
//! Not here: which writes wait for a copy that may land (`fence`), which of the usable paths are used (`group`), what
//! an error says (`error_class`).

use std::time::Duration;

use storage_mapping::{CopyFate, Effect, ErrorSource, FencePolicy, Instant, IoError, IoTag, PathIndex};

use crate::error_class::{Classified, PathAction, RequestAction};
use crate::explain::{Candidates, Explain, PathEvent, Reason, SCORES_MAX};
use crate::flap_damping::{FlapDamping, FlapDampingConfig, FlapDampingError};
use crate::group::{Failback, Groups};
use crate::hedge::{Hedge, HedgeConfig};
use crate::in_flight_limit::InFlightLimit;
use crate::path_state::{PathSet, PathState};
use crate::retry_budget::{RetryBudget, RetryBudgetConfig};
use crate::selector::PathSelector;
use crate::witness::{Findings, Witness, WitnessConfig};

/// What becomes of requests while no path can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPathPolicy {
    /// They fail at once.
    Fail,
    /// They wait.
    Queue,
    /// They wait for so long from their submission on, and then fail.
    QueueFor(Duration),
}

/// What one path is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathConfig {
    /// Paths of equal priority are a group; more is better.
    pub priority: u16,
    /// Paths of one number share something that may fail: a network card, a port, a process. One that
    /// is found dead makes the others suspect.
    pub fault_domain: Option<u16>,
    /// [`FailoverConfig::quiesce_time`] where this path has its own.
    pub quiesce_time: Option<Duration>,
}

/// The numbers of the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailoverConfig {
    /// Times that one request is sent, at most.
    pub attempts_max: u32,
    /// How long an attempt may take before its path counts as hung.
    pub attempt_timeout: Duration,
    /// The same for a flush, which may have much to write.
    pub flush_timeout: Duration,
    /// How long a busy request waits before it is sent again.
    pub busy_delay: Duration,
    /// What becomes of requests while no path can be used.
    pub no_path: NoPathPolicy,
    /// When a better group of paths is used again.
    pub failback: Failback,
    /// How long after a failure, or a failed probe, a path is probed; the same for a path that gave a suspicious
    /// error.
    pub probe_interval: Duration,
    /// How long a path that is in use may be silent before it is probed; `None`: it is not.
    pub check_interval: Option<Duration>,
    /// How long the device must have been idle before its paths are probed one a minute in all.
    pub deep_idle_after: Duration,
    /// What several paths say together.
    pub witness: WitnessConfig,
    /// How long a path that comes and goes stays out of use.
    pub flap_damping: FlapDampingConfig,
    /// How many retries are sent.
    pub retry_budget: RetryBudgetConfig,
    /// When a read is sent a second time.
    pub hedge: HedgeConfig,
    /// Requests that a path has at a time follow what it works on, up to its queue depth; else it is given as many
    /// as it takes.
    pub adapts_in_flight: bool,
    /// How long a copy of a write that was given up on may land, as far as is assumed: what proves nothing earlier
    /// holds overlapping writes back for so long.
    pub quiesce_time: Duration,
    /// Bytes of I/O that was given up on and that paths have still, before nothing new is taken.
    pub quarantine_max_bytes: usize,
    /// All paths lead to one write cache, so that a flush over any of them is enough.
    pub cache_is_shared: bool,
}

impl Default for FailoverConfig {
    /// Five seconds are above what a healthy device needs, and below what users wait; a minute
    /// without a path spans the restart of a switch.
    fn default() -> Self {
        Self {
            attempts_max: 8,
            attempt_timeout: Duration::from_secs(5),
            flush_timeout: Duration::from_secs(30),
            busy_delay: Duration::from_millis(10),
            no_path: NoPathPolicy::QueueFor(Duration::from_secs(60)),
            failback: Failback::Immediate,
            probe_interval: Duration::from_secs(1),
            check_interval: Some(Duration::from_secs(20)),
            deep_idle_after: Duration::from_secs(60),
            witness: WitnessConfig::default(),
            flap_damping: FlapDampingConfig::default(),
            retry_budget: RetryBudgetConfig::default(),
            hedge: HedgeConfig::default(),
            adapts_in_flight: false,
            quiesce_time: Duration::from_secs(30),
            quarantine_max_bytes: 64 << 20,
            cache_is_shared: false,
        }
    }
}

/// Between two checks of a device that has nothing to do, all its paths taken together.
const DEEP_IDLE_CHECK: Duration = Duration::from_secs(60);
/// What a path is held to have said whose data another path does not confirm.
const EILSEQ: i32 = nix::libc::EILSEQ;
/// How long a path that leads to other data is left alone before it is compared once more.
const FOREIGN_INTERVAL: Duration = Duration::from_secs(60);

/// What an attempt that failed leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    /// What its error says.
    pub classified: Classified,
    /// Whether it was a write.
    pub is_write: bool,
    /// What the sender asked for.
    pub fence: FencePolicy,
    /// Attempts so far, this one included.
    pub attempts: u32,
}

/// What becomes of a request after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The error is the answer.
    Answer,
    /// Once more, over a path that was not tried.
    Elsewhere,
    /// Once more, over the same path too.
    Again,
    /// Once more, over any path, after so long.
    Later(Duration),
}

/// One path as the core sees it.
#[derive(Clone, Copy, Debug)]
struct Path {
    config: PathConfig,
    state: PathState,
    /// When it last did something without an error.
    last_success: Instant,
    /// When to probe, or to see whether that is due.
    probe_at: Option<Instant>,
    damping: FlapDamping,
    limit: Option<InFlightLimit>,
    in_flight: u32,
    /// A probe, or the comparison that follows it, is under way: there is one at a time.
    is_probing: bool,
    /// It gave a suspicious error, and nothing succeeded since.
    is_suspect: bool,
    /// The next probe is not put off, however lately something succeeded.
    is_called: bool,
}

/// What follows from a probe that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterProbe {
    /// The path was in use, and stays so.
    Nothing,
    /// It is to be compared with this one, and then reinstated.
    Compare(PathIndex),
    /// It is in use again: there is no other to compare it with.
    Reinstated,
}

/// The state of all paths, and the way to choose among them.
#[derive(Debug)]
pub struct Failover<S> {
    config: FailoverConfig,
    paths: Vec<Path>,
    groups: Groups,
    /// Paths that answer, and are used only where no other is left: they came and went too often.
    isolated: PathSet,
    /// Paths that have as many requests as they may.
    full: PathSet,
    witness: Witness,
    budget: RetryBudget,
    hedge: Hedge,
    explain: Explain,
    selector: S,
    /// No probe is due before this.
    next_probe: Option<Instant>,
    /// When the last request was sent.
    last_use: Instant,
}

impl<S: PathSelector> Failover<S> {
    /// Paths that are all active from `now` on, each with what it is and the length of its queue.
    ///
    /// # Errors
    /// Where the numbers of flap damping make no sense.
    ///
    /// # Panics
    /// For more paths than a set can hold.
    pub fn new(
        now: Instant,
        paths: &[(PathConfig, usize)],
        selector: S,
        config: FailoverConfig,
    ) -> Result<Self, FlapDampingError> {
        let probe_at = config.check_interval.map(|interval| now + interval);
        let damping = FlapDamping::new(config.flap_damping)?;
        let priorities = paths.iter().map(|(path, _)| path.priority).collect();
        let new = |(path, depth): &(PathConfig, usize)| Path {
            config: *path,
            state: PathState::Active,
            last_success: now,
            probe_at,
            damping,
            limit: config
                .adapts_in_flight
                .then(|| InFlightLimit::new(now, u32::try_from(*depth).unwrap_or(u32::MAX))),
            in_flight: 0,
            is_probing: false,
            is_suspect: false,
            is_called: false,
        };
        Ok(Self {
            config,
            paths: paths.iter().map(new).collect(),
            groups: Groups::new(priorities, config.failback),
            isolated: PathSet::EMPTY,
            full: PathSet::EMPTY,
            witness: Witness::new(config.witness),
            budget: RetryBudget::new(now, config.retry_budget),
            hedge: Hedge::new(config.hedge),
            explain: Explain::default(),
            selector,
            next_probe: probe_at,
            last_use: now,
        })
    }

    /// The numbers it works with.
    #[must_use]
    pub fn config(&self) -> &FailoverConfig {
        &self.config
    }

    /// What a path is.
    #[must_use]
    pub fn path_config(&self, path: PathIndex) -> PathConfig {
        self.paths[path.0].config
    }

    /// The way to choose, to switch it.
    pub fn selector_mut(&mut self) -> &mut S {
        &mut self.selector
    }

    /// Whether a path is used.
    #[must_use]
    pub fn state(&self, path: PathIndex) -> PathState {
        self.paths[path.0].state
    }

    /// The groups of the paths.
    #[must_use]
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// An operator wants the group of this priority. Says whether it has a usable path.
    pub fn switch_group(&mut self, priority: u16) -> bool {
        self.groups.switch_to(priority)
    }

    /// The paths in use, as long as one of them is left.
    #[must_use]
    pub fn active(&self) -> PathSet {
        self.groups.usable()
    }

    /// Whether a request may be sent now over some path, were there room on it.
    #[must_use]
    pub fn has_path(&self) -> bool {
        !self.witness.is_in_event() && !self.groups.usable().union(self.isolated).is_empty()
    }

    /// Whether all paths failed at once, and one answer is waited for.
    #[must_use]
    pub fn is_in_event(&self) -> bool {
        self.witness.is_in_event()
    }

    /// Paths that could be used had they not as many requests as they may.
    #[must_use]
    pub fn full(&self) -> PathSet {
        self.full.intersection(self.groups.usable().union(self.isolated))
    }

    /// What was decided, and what happened.
    #[must_use]
    pub fn explain(&self) -> &Explain {
        &self.explain
    }

    /// The same, to write in.
    pub fn explain_mut(&mut self) -> &mut Explain {
        &mut self.explain
    }

    /// What a path for a request of `bytes` is chosen from, for a record.
    #[must_use]
    pub fn candidates(&self, now: Instant, tried: PathSet, bytes: usize) -> Candidates {
        let group = self.groups.current();
        let mut scores = [None; SCORES_MAX];
        for path in group.without(tried).iter().filter(|path| path.0 < SCORES_MAX) {
            scores[path.0] = Some(self.selector.score(now, path, bytes));
        }
        Candidates { group, usable: self.groups.usable(), tried, full: self.full(), scores }
    }

    /// When reads are sent a second time.
    pub fn hedge(&mut self) -> &mut Hedge {
        &mut self.hedge
    }

    /// A request goes out again, or after it had to wait for a path.
    ///
    /// # Errors
    /// When it may.
    pub fn try_retry(&mut self, now: Instant) -> Result<(), Instant> {
        self.budget.try_take(now)
    }

    /// A request goes out as it came in.
    pub fn note_send(&mut self, now: Instant) {
        self.budget.note_send(now);
    }

    /// How long a copy that went over the path may land, as far as is assumed.
    #[must_use]
    pub fn quiesce_time(&self, path: PathIndex) -> Duration {
        self.paths[path.0].config.quiesce_time.unwrap_or(self.config.quiesce_time)
    }

    /// The path for the next attempt, none of `excluded`: one of the current group, else of the best of the others, else one
    /// that is isolated.
    pub fn select_path(&mut self, now: Instant, excluded: PathSet, bytes: usize) -> Option<PathIndex> {
        if self.witness.is_in_event() {
            return None;
        }
        let mut candidates = self.groups.current().without(excluded);
        if candidates.is_empty() {
            candidates = self.groups.best(self.groups.usable().without(excluded));
        }
        if candidates.is_empty() {
            candidates = self.isolated.without(excluded);
        }
        self.selector.select_path(now, candidates, bytes)
    }

    /// The path for a request that names one: that one, or where that is a mere wish another one that can be used.
    pub fn select_named(
        &mut self,
        now: Instant,
        named: PathIndex,
        excluded: PathSet,
        bytes: usize,
    ) -> Option<PathIndex> {
        let is_wish = self.selector.prefers_named_path();
        if is_wish && (excluded.contains(named) || !self.groups.usable().contains(named)) {
            return self.select_path(now, excluded, bytes);
        }
        Some(named).filter(|path| !excluded.contains(*path))
    }

    /// Whether a path that a request names is a mere wish.
    #[must_use]
    pub fn prefers_named_path(&self) -> bool {
        self.selector.prefers_named_path()
    }

    /// The selector.
    #[must_use]
    pub fn selector(&self) -> &S {
        &self.selector
    }

    /// A request was sent.
    pub fn handle_start(&mut self, now: Instant, path: PathIndex, bytes: usize) {
        self.last_use = now;
        let place = &mut self.paths[path.0];
        place.in_flight += 1;
        if place.limit.is_some_and(|limit| place.in_flight >= limit.limit()) {
            self.full.insert(path);
        }
        self.selector.start_io(now, path, bytes);
    }

    /// A request that was sent at `sent` is no longer on its path: done, or else failed or withdrawn.
    pub fn handle_end(
        &mut self,
        now: Instant,
        path: PathIndex,
        bytes: usize,
        sent: Instant,
        is_success: bool,
    ) {
        let place = &mut self.paths[path.0];
        if let Some(limit) = &mut place.limit {
            limit.handle_end(now, sent, place.in_flight);
            if place.in_flight <= limit.limit() {
                self.full.remove(path);
            }
        }
        place.in_flight -= 1;
        self.selector.end_io(now, path, bytes, now.since(sent), is_success);
    }

    /// I/O succeeded. A failed path is not in use again by that, for it may have been sent long ago; but it is likely to
    /// answer a probe.
    pub fn handle_success(&mut self, now: Instant, path: PathIndex, tag: IoTag) {
        let place = &mut self.paths[path.0];
        place.is_suspect = false;
        place.last_success = now;
        let state = place.state;
        let findings = self.witness.handle_success(path, tag);
        self.take_in(now, findings, Reason::Error(IoError::errno(EILSEQ)));
        if state == PathState::Failed {
            self.probe_now(now, path);
        }
    }

    /// The request `tag`, sent at `sent`, failed with `error`. Says whether that is the answer to it.
    pub fn handle_error(
        &mut self,
        now: Instant,
        path: PathIndex,
        (tag, sent): (IoTag, Instant),
        classified: &Classified,
        error: IoError,
    ) -> bool {
        let usable = self.groups.usable();
        let findings = self.witness.handle_error(now, path, tag, (classified, error), usable);
        let place = &mut self.paths[path.0];
        match classified.path {
            PathAction::Suspect => {
                place.is_suspect = true;
                self.probe_in(now, path, self.config.probe_interval);
            }
            PathAction::Shrink => {
                if let Some(limit) = &mut place.limit {
                    limit.handle_busy(now, sent);
                }
            }
            PathAction::Standby | PathAction::Transition => {
                self.fail(now, path, PathState::Standby, Reason::Error(error));
            }
            PathAction::Reidentify => self.fail(now, path, PathState::Failed, Reason::Error(error)),
            PathAction::Nothing | PathAction::Fail => {}
        }
        let is_hang = error.source_code == ErrorSource::Deadline;
        self.take_in(now, findings, if is_hang { Reason::Hung } else { Reason::Error(error) });
        findings.is_answer
    }

    /// The link of a path is down, or it no longer takes requests.
    pub fn handle_link_down(&mut self, now: Instant, path: PathIndex) {
        self.fail(now, path, PathState::Failed, Reason::LinkDown);
    }

    /// What follows from what several paths said; `reason` is why those that fail do.
    fn take_in(&mut self, now: Instant, findings: Findings, reason: Reason) {
        for path in findings.fails.iter() {
            let is_last = self.groups.usable().without([path].into_iter().collect()).is_empty();
            if is_last && self.paths[path.0].is_suspect {
                self.witness.forget_path(path);
            } else {
                self.fail(now, path, PathState::Failed, reason);
            }
        }
        for path in findings.lifted.iter() {
            if self.paths[path.0].state == PathState::Failed {
                self.paths[path.0].damping.clear();
                self.activate(now, path, Reason::Lifted);
            }
        }
        if let Some(paths) = findings.target_event {
            // The first that answers ends it.
            paths.iter().for_each(|path| self.call(now, path));
        }
    }

    /// A path that was in use, or could have been, carries nothing from now on.
    fn fail(&mut self, now: Instant, path: PathIndex, state: PathState, reason: Reason) {
        if !matches!(self.state(path), PathState::Active | PathState::Isolated) {
            return;
        }
        self.deactivate(now, path, state, reason);
        self.probe_in(now, path, self.config.probe_interval);
        if state == PathState::Failed {
            self.paths[path.0].damping.handle_failure(now);
            self.suspect_siblings(now, path);
        }
    }

    /// What shares a fault domain with a dead path is probed at once.
    fn suspect_siblings(&mut self, now: Instant, dead: PathIndex) {
        let Some(domain) = self.paths[dead.0].config.fault_domain else { return };
        for path in (0..self.paths.len()).map(PathIndex).filter(|path| *path != dead) {
            if self.paths[path.0].config.fault_domain == Some(domain) && self.state(path) == PathState::Active
            {
                self.call(now, path);
            }
        }
    }

    /// Probes a path at once, however lately something succeeded.
    fn call(&mut self, now: Instant, path: PathIndex) {
        self.paths[path.0].is_called = true;
        self.probe_now(now, path);
    }

    /// When the path last did something without an error.
    #[must_use]
    pub fn last_success(&self, path: PathIndex) -> Instant {
        self.paths[path.0].last_success
    }

    /// The next path to probe now, if any; its probe is then under way.
    pub fn poll_probe(&mut self, now: Instant) -> Option<PathIndex> {
        if self.next_probe.is_none_or(|at| now < at) {
            return None;
        }
        for index in 0..self.paths.len() {
            let path = self.paths[index];
            if path.is_probing || path.probe_at.is_none_or(|at| now < at) {
                continue;
            }
            if path.state == PathState::Active && !path.is_called {
                // Any I/O that succeeded in the meantime was as good as a check.
                let due = self.silence(now, path).map(|silence| path.last_success + silence);
                if due.is_none_or(|at| now < at) {
                    self.paths[index].probe_at = due;
                    continue;
                }
            }
            let place = &mut self.paths[index];
            (place.probe_at, place.is_probing, place.is_called) = (None, true, false);
            return Some(PathIndex(index));
        }
        let waiting = self.paths.iter().filter(|path| !path.is_probing);
        self.next_probe = waiting.filter_map(|path| path.probe_at).min();
        None
    }

    /// How long an active path may be silent.
    fn silence(&self, now: Instant, path: Path) -> Option<Duration> {
        if path.is_suspect {
            return Some(self.config.probe_interval);
        }
        let is_idle = now.since(self.last_use) >= self.config.deep_idle_after;
        let count = u32::try_from(self.paths.len()).unwrap_or(u32::MAX);
        let idle = if is_idle { DEEP_IDLE_CHECK * count } else { Duration::ZERO };
        self.config.check_interval.map(|interval| interval.max(idle))
    }

    /// A probe was answered.
    pub fn handle_probe_success(&mut self, now: Instant, path: PathIndex, tag: IoTag) -> AfterProbe {
        let place = &mut self.paths[path.0];
        (place.is_suspect, place.last_success) = (false, now);
        let findings = self.witness.handle_success(path, tag);
        self.take_in(now, findings, Reason::Error(IoError::errno(EILSEQ)));
        let witness = self.groups.current().next_from(PathIndex(0));
        let place = &mut self.paths[path.0];
        match (place.state, witness) {
            (PathState::Failed | PathState::Foreign | PathState::Standby, Some(witness)) => {
                AfterProbe::Compare(witness)
            }
            (PathState::Failed | PathState::Foreign | PathState::Standby, None) => {
                place.is_probing = false;
                self.reinstate(now, path, Reason::Answered);
                AfterProbe::Reinstated
            }
            (PathState::Isolated, _) => {
                place.is_probing = false;
                self.isolated.remove(path);
                self.reinstate(now, path, Reason::Answered);
                AfterProbe::Nothing
            }
            (PathState::Active | PathState::Disabled, _) => {
                place.is_probing = false;
                self.probe_at_interval(now, path);
                AfterProbe::Nothing
            }
        }
    }

    /// The comparison ended: the path leads to the same data as the others.
    pub fn handle_proof(&mut self, now: Instant, path: PathIndex) {
        self.paths[path.0].is_probing = false;
        if matches!(self.state(path), PathState::Failed | PathState::Foreign | PathState::Standby) {
            self.reinstate(now, path, Reason::Compared);
        }
    }

    /// A path that answers is used again; if it came and went too often, only where no other is left.
    fn reinstate(&mut self, now: Instant, path: PathIndex, reason: Reason) {
        match self.paths[path.0].damping.reusable_at(now) {
            None => self.activate(now, path, reason),
            Some(at) => {
                self.change(now, path, PathState::Isolated, Reason::Flapped(at.since(now)));
                self.isolated.insert(path);
                self.probe_in(now, path, at.since(now).min(self.config.probe_interval));
            }
        }
    }

    /// The comparison ended: the path leads to other data than the others and carries nothing.
    pub fn handle_foreign(&mut self, now: Instant, path: PathIndex, witness: PathIndex) {
        self.paths[path.0].is_probing = false;
        if self.state(path) != PathState::Disabled {
            self.deactivate(now, path, PathState::Foreign, Reason::Differs(witness));
            self.probe_in(now, path, FOREIGN_INTERVAL);
        }
    }

    /// A probe failed, or could not be sent; or a comparison came to no end.
    pub fn handle_failed_probe(&mut self, now: Instant, path: PathIndex) {
        self.paths[path.0].is_probing = false;
        if self.state(path) == PathState::Isolated {
            self.fail(now, path, PathState::Failed, Reason::Hung);
        }
        if self.state(path) != PathState::Disabled {
            self.probe_in(now, path, self.config.probe_interval);
        }
    }

    /// The path is likely to have changed: its probe is due now, unless one is under way.
    pub fn probe_now(&mut self, now: Instant, path: PathIndex) {
        self.probe_in(now, path, Duration::ZERO);
    }

    /// The next probe is due then, or earlier if that was so.
    fn probe_in(&mut self, now: Instant, path: PathIndex, delay: Duration) {
        let at = now + delay;
        let probe_at = &mut self.paths[path.0].probe_at;
        *probe_at = Some(probe_at.map_or(at, |earlier| earlier.min(at)));
        if !self.paths[path.0].is_probing {
            self.next_probe = Some(self.next_probe.map_or(at, |earlier| earlier.min(at)));
        }
    }

    fn probe_at_interval(&mut self, now: Instant, path: PathIndex) {
        if let Some(interval) = self.config.check_interval {
            self.probe_in(now, path, interval);
        }
    }

    /// When the next probe or change of group is due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        [self.next_probe, self.groups.next_timeout()].into_iter().flatten().min()
    }

    /// Time has passed. Probes are polled for.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.groups.handle_timeout(now);
    }

    /// An operator takes a path out of use.
    pub fn disable_path(&mut self, now: Instant, path: PathIndex) {
        self.witness.forget_path(path);
        self.deactivate(now, path, PathState::Disabled, Reason::Operator);
        self.paths[path.0].probe_at = None;
    }

    /// An operator puts a path into use, and forgives it.
    pub fn reinstate_path(&mut self, now: Instant, path: PathIndex) {
        self.paths[path.0].damping.clear();
        if self.state(path) != PathState::Active {
            self.activate(now, path, Reason::Operator);
        }
    }

    /// What becomes of a request after a failed attempt.
    #[must_use]
    pub fn judge(&self, failed: &FailedAttempt) -> Verdict {
        let Classified { effect, copy, request, delay, .. } = failed.classified;
        let is_in_doubt = effect == Effect::Unknown && copy == CopyFate::MayLand;
        let may_resend = match effect {
            Effect::Full => false,
            Effect::None | Effect::Unknown => {
                !failed.is_write || !is_in_doubt || failed.fence != FencePolicy::Fail
            }
        };
        if !may_resend || failed.attempts >= self.config.attempts_max {
            return Verdict::Answer;
        }
        match request {
            RequestAction::Done | RequestAction::Answer => Verdict::Answer,
            RequestAction::Later => Verdict::Later(self.config.busy_delay.max(delay)),
            RequestAction::Again => Verdict::Again,
            // A second witness, and no third.
            RequestAction::Witness if failed.attempts > 1 => Verdict::Answer,
            // The path is out of use while its access state is another: what is left is another one, or to wait.
            RequestAction::Witness | RequestAction::Elsewhere | RequestAction::Hold => Verdict::Elsewhere,
        }
    }

    /// A path is in another state than before.
    fn change(&mut self, now: Instant, path: PathIndex, state: PathState, reason: Reason) {
        let from = std::mem::replace(&mut self.paths[path.0].state, state);
        if from != state {
            self.explain.note_path(PathEvent { at: now, path, from, to: state, reason });
        }
    }

    fn activate(&mut self, now: Instant, path: PathIndex, reason: Reason) {
        self.change(now, path, PathState::Active, reason);
        let place = &mut self.paths[path.0];
        (place.is_suspect, place.last_success, place.probe_at) = (false, now, None);
        self.isolated.remove(path);
        self.witness.forget_path(path);
        self.hedge.forget_path(path);
        self.probe_at_interval(now, path);
        self.groups.set_usable(now, path, true);
        self.selector.reinstate_path(now, path);
    }

    fn deactivate(&mut self, now: Instant, path: PathIndex, state: PathState, reason: Reason) {
        if self.paths[path.0].state == PathState::Active {
            self.groups.set_usable(now, path, false);
            self.selector.fail_path(now, path);
        }
        self.isolated.remove(path);
        self.change(now, path, state, reason);
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;
    use crate::error_class::{IoKind, RequestFacts, Sent, classify};
    use crate::selector::RoundRobin;

    const NOW: Instant = Instant::ZERO;
    const A: PathIndex = PathIndex(0);
    const B: PathIndex = PathIndex(1);

    fn over(paths: &[PathConfig]) -> Failover<RoundRobin> {
        let paths: Vec<_> = paths.iter().map(|path| (*path, 32)).collect();
        Failover::new(NOW, &paths, RoundRobin::default(), FailoverConfig::default()).unwrap()
    }

    /// What an error of a write says.
    fn says(source: ErrorSource) -> Classified {
        let facts = RequestFacts { kind: IoKind::Write, sent: Sent::Yes, address_checked: true };
        classify(&source.into(), &facts)
    }

    /// The request of this number fails over a path. Says whether the path failed with it.
    fn fail(core: &mut Failover<RoundRobin>, now: Instant, path: PathIndex, tag: u64, code: Errno) -> bool {
        let source = ErrorSource::Errno(code as i32);
        let was = core.state(path);
        core.handle_error(now, path, (IoTag(tag), now), &says(source), source.into());
        was != core.state(path)
    }

    fn two_paths() -> Failover<RoundRobin> {
        over(&[PathConfig::default(); 2])
    }

    fn failed_write(effect: Effect, copy: CopyFate, fence: FencePolicy) -> FailedAttempt {
        let classified = Classified { effect, copy, ..says(ErrorSource::Errno(Errno::EIO as i32)) };
        FailedAttempt { classified, is_write: true, fence, attempts: 1 }
    }

    #[test]
    fn a_write_in_doubt_is_not_sent_again_where_its_sender_wants_to_know() {
        let core = two_paths();
        let doubt = failed_write(Effect::Unknown, CopyFate::MayLand, FencePolicy::Fail);
        assert_eq!(core.judge(&doubt), Verdict::Answer);
        assert_eq!(core.judge(&FailedAttempt { is_write: false, ..doubt }), Verdict::Elsewhere);
        for fence in [FencePolicy::Fence, FencePolicy::Wait, FencePolicy::Unsafe] {
            assert_eq!(core.judge(&FailedAttempt { fence, ..doubt }), Verdict::Elsewhere);
        }
        for fence in [FencePolicy::Fence, FencePolicy::Wait, FencePolicy::Fail, FencePolicy::Unsafe] {
            for (effect, copy) in [(Effect::None, CopyFate::Dead), (Effect::Unknown, CopyFate::Dead)] {
                assert_eq!(core.judge(&failed_write(effect, copy, fence)), Verdict::Elsewhere);
            }
            let answered = failed_write(Effect::Full, CopyFate::Dead, fence);
            assert_eq!(core.judge(&answered), Verdict::Answer);
        }
    }

    #[test]
    fn attempts_have_a_limit() {
        let core = two_paths();
        let classified = says(ErrorSource::Errno(Errno::EAGAIN as i32));
        let attempts = core.config().attempts_max;
        let last = FailedAttempt { classified, is_write: false, fence: FencePolicy::Fence, attempts };
        assert_eq!(core.judge(&last), Verdict::Answer);
        let delay = core.config().busy_delay;
        assert_eq!(core.judge(&FailedAttempt { attempts: 1, ..last }), Verdict::Later(delay));
    }

    #[test]
    fn what_the_storage_side_wants_decides_when_and_where() {
        let core = two_paths();
        let verdict = |source, attempts| {
            core.judge(&FailedAttempt {
                classified: says(source),
                is_write: true,
                fence: FencePolicy::Fence,
                attempts,
            })
        };
        let sense =
            |key, asc, ascq| ErrorSource::Scsi { status: 2, host_status: 0, key, asc, ascq, deferred: false };
        assert_eq!(verdict(sense(6, 0x29, 0), 1), Verdict::Again, "a unit attention");
        assert_eq!(verdict(sense(2, 4, 0x0b), 1), Verdict::Elsewhere, "standby");
        assert_eq!(verdict(sense(5, 0x20, 0), 1), Verdict::Answer, "not supported");
        let later = ErrorSource::Nvme { sct: 0, sc: 0x82, dnr: false, crd: 0 };
        assert!(matches!(verdict(later, 1), Verdict::Later(_)));
    }

    #[test]
    fn a_suspect_path_fails_the_second_time_and_comes_back_by_a_probe_and_a_comparison() {
        let mut core = two_paths();
        assert!(!fail(&mut core, NOW, A, 11, Errno::EIO));
        core.handle_success(NOW, A, IoTag(0));
        assert!(!fail(&mut core, NOW, A, 12, Errno::EIO), "a success forgives");
        assert!(fail(&mut core, NOW, A, 13, Errno::EIO));
        assert_eq!(core.select_path(NOW, PathSet::EMPTY, 1), Some(B));
        assert_eq!(core.select_path(NOW, PathSet::EMPTY, 1), Some(B));
        assert_eq!(core.poll_probe(NOW), None);
        let due = core.next_timeout().unwrap();
        assert_eq!(core.poll_probe(due), Some(A));
        assert_eq!(core.poll_probe(due), None, "one probe at a time");
        core.handle_failed_probe(due, A);
        assert!(core.next_timeout().unwrap() > due);
        core.handle_success(due, A, IoTag(0));
        assert_eq!(core.state(A), PathState::Failed, "what was sent long ago proves nothing");
        assert_eq!(core.poll_probe(due), Some(A), "but a probe is worth while");
        assert_eq!(core.handle_probe_success(due, A, IoTag(0)), AfterProbe::Compare(B));
        core.handle_proof(due, A);
        assert_eq!((core.state(A), core.active().len()), (PathState::Active, 2));
    }

    #[test]
    fn a_path_to_other_data_stays_out_and_is_compared_again() {
        let mut core = two_paths();
        assert!(fail(&mut core, NOW, A, 1, Errno::ENOLINK));
        let due = core.next_timeout().unwrap();
        assert_eq!(core.poll_probe(due), Some(A));
        assert_eq!(core.handle_probe_success(due, A, IoTag(0)), AfterProbe::Compare(B));
        core.handle_foreign(due, A, B);
        core.handle_success(due, A, IoTag(0));
        assert_eq!((core.state(A), core.poll_probe(due)), (PathState::Foreign, None));
        let later = due + FOREIGN_INTERVAL;
        assert_eq!(core.poll_probe(later), Some(A));
        assert_eq!(core.handle_probe_success(later, A, IoTag(0)), AfterProbe::Compare(B));
        core.handle_proof(later, A);
        assert_eq!(core.state(A), PathState::Active);
    }

    #[test]
    fn without_another_path_a_probe_is_enough() {
        let mut core = two_paths();
        let later = NOW + Duration::from_millis(100);
        assert!(fail(&mut core, NOW, A, 1, Errno::ENOLINK) && fail(&mut core, later, B, 1, Errno::ENOLINK));
        let due = later + core.config().probe_interval;
        assert_eq!((core.poll_probe(due), core.poll_probe(due)), (Some(A), Some(B)));
        assert_eq!(core.handle_probe_success(due, B, IoTag(0)), AfterProbe::Reinstated);
        assert_eq!(core.handle_probe_success(due, A, IoTag(0)), AfterProbe::Compare(B));
    }

    #[test]
    fn silent_paths_are_checked_and_busy_ones_are_not() {
        let mut core = two_paths();
        let second = |count| NOW + Duration::from_secs(count);
        core.handle_start(second(15), B, 1);
        core.handle_success(second(15), B, IoTag(0));
        assert_eq!(core.next_timeout(), Some(second(20)));
        assert_eq!((core.poll_probe(second(20)), core.poll_probe(second(20))), (Some(A), None));
        assert_eq!(core.handle_probe_success(second(20), A, IoTag(0)), AfterProbe::Nothing);
        assert_eq!(core.next_timeout(), Some(second(35)));
        assert_eq!(core.poll_probe(second(35)), Some(B));
        core.handle_failed_probe(second(35), B);
        // Sixty seconds after the last use it is one check a minute for both together.
        assert_eq!(core.poll_probe(second(36)), Some(B), "after a failure it is seen again soon");
        core.handle_probe_success(second(36), B, IoTag(0));
        for (at, path) in [(140, A), (156, B)] {
            assert_eq!((core.poll_probe(second(at - 1)), core.poll_probe(second(at))), (None, Some(path)));
            core.handle_probe_success(second(at), path, IoTag(0));
        }
    }

    #[test]
    fn what_shares_a_fault_domain_with_a_dead_path_is_probed_at_once() {
        let domain = |number| PathConfig { fault_domain: Some(number), ..PathConfig::default() };
        let paths = [domain(1), domain(1), domain(2)];
        let mut core = over(&paths);
        core.handle_success(NOW, B, IoTag(0));
        assert!(fail(&mut core, NOW, A, 1, Errno::ENOLINK));
        assert_eq!((core.poll_probe(NOW), core.poll_probe(NOW)), (Some(B), None));
        assert_eq!(core.state(B), PathState::Active);
    }

    #[test]
    fn the_better_group_is_used_and_the_other_for_what_it_refused() {
        let paths = [10, 20].map(|priority| PathConfig { priority, ..PathConfig::default() });
        let mut core = over(&paths);
        for _ in 0..4 {
            assert_eq!(core.select_path(NOW, PathSet::EMPTY, 1), Some(B));
        }
        let tried: PathSet = [B].into_iter().collect();
        assert_eq!(core.select_path(NOW, tried, 1), Some(A));
        assert!(core.switch_group(10));
        assert_eq!(core.select_path(NOW, PathSet::EMPTY, 1), Some(A));
    }

    #[test]
    fn the_last_path_fails_only_when_it_is_dead() {
        let mut core = two_paths();
        let later = NOW + Duration::from_secs(1);
        assert!(fail(&mut core, NOW, A, 1, Errno::ENOLINK));
        for tag in 2..12 {
            assert!(!fail(&mut core, later, B, tag, Errno::EIO));
        }
        core.handle_success(later, B, IoTag(12));
        assert!(fail(&mut core, later, B, 13, Errno::ENOLINK));
        assert!(core.select_path(later, PathSet::EMPTY, 1).is_none() && !core.has_path());
    }

    #[test]
    fn what_all_paths_say_at_once_fails_none_of_them() {
        let mut core = two_paths();
        assert!(fail(&mut core, NOW, A, 1, Errno::ECONNREFUSED));
        fail(&mut core, NOW, B, 1, Errno::ECONNREFUSED);
        assert_eq!((core.state(A), core.state(B)), (PathState::Active, PathState::Active));
        assert!(!core.has_path(), "but nothing is sent before one of them answers");
        assert_eq!((core.poll_probe(NOW), core.poll_probe(NOW)), (Some(A), Some(B)));
        core.handle_failed_probe(NOW, A);
        assert!(!core.has_path());
        assert_eq!(core.handle_probe_success(NOW, B, IoTag(0)), AfterProbe::Nothing);
        assert!(core.has_path());
    }

    #[test]
    fn a_second_path_that_says_the_same_of_a_request_clears_the_first() {
        let mut core = two_paths();
        let eio = ErrorSource::Errno(Errno::EIO as i32);
        for tag in 0..10 {
            let at = NOW + Duration::from_secs(tag);
            assert!(!core.handle_error(at, A, (IoTag(tag), at), &says(eio), eio.into()));
            assert!(core.handle_error(at, B, (IoTag(tag), at), &says(eio), eio.into()), "it is the answer");
        }
        assert_eq!(core.active().len(), 2);
    }

    #[test]
    fn a_path_on_standby_is_asked_until_it_is_not() {
        let mut core = two_paths();
        let standby =
            ErrorSource::Scsi { status: 2, host_status: 0, key: 2, asc: 4, ascq: 0xb, deferred: false };
        core.handle_error(NOW, A, (IoTag(1), NOW), &says(standby), standby.into());
        assert_eq!((core.state(A), core.active().len()), (PathState::Standby, 1));
        let due = core.next_timeout().unwrap();
        assert_eq!(core.poll_probe(due), Some(A));
        assert_eq!(core.handle_probe_success(due, A, IoTag(2)), AfterProbe::Compare(B));
        core.handle_proof(due, A);
        assert_eq!(core.state(A), PathState::Active);
    }

    #[test]
    fn a_path_that_flaps_is_used_only_where_no_other_is_left() {
        let mut core = two_paths();
        let mut now = NOW;
        for round in 1..=2 {
            now = now + Duration::from_secs(5);
            assert!(fail(&mut core, now, A, round, Errno::ENOLINK));
            now = now + Duration::from_secs(1);
            assert_eq!(core.poll_probe(now), Some(A));
            core.handle_probe_success(now, A, IoTag(0));
            core.handle_proof(now, A);
        }
        assert_eq!((core.state(A), core.active().len(), core.has_path()), (PathState::Isolated, 1, true));
        assert_eq!(core.select_path(now, PathSet::EMPTY, 1), Some(B));
        assert!(fail(&mut core, now, B, 9, Errno::ENOLINK));
        assert_eq!((core.select_path(now, PathSet::EMPTY, 1), core.has_path()), (Some(A), true));
        // It stays up, and is forgiven in the end.
        for _ in 0..300 {
            now = now + Duration::from_secs(1);
            while let Some(path) = core.poll_probe(now) {
                if path == A {
                    core.handle_probe_success(now, A, IoTag(0));
                } else {
                    core.handle_failed_probe(now, B);
                }
            }
        }
        assert_eq!(core.state(A), PathState::Active);
    }

    #[test]
    fn a_disabled_path_stays_out_until_the_operator_wants_it() {
        let mut core = two_paths();
        let now = Instant::ZERO;
        core.disable_path(now, A);
        core.handle_success(now, A, IoTag(0));
        assert_eq!((core.state(A), core.poll_probe(now)), (PathState::Disabled, None));
        core.reinstate_path(now, A);
        assert_eq!(core.active().len(), 2);
    }
}
