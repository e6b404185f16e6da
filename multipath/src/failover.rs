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
//! * the last path in use is not failed by an error that may come from the medium (silence does not), and no path by one that all
//!   paths give at once (`witness`);
//! * a path that had failed carries I/O again only after it answered a probe, and where another path is in use
//!   after it was compared with that one (`proof`); one of which it is not known that it leads where the others lead
//!   carries nothing without that.
//!
//! Not here: which writes wait for a copy that may land (`fence`), which of the usable paths are used (`group`), what
//! an error says (`error_class`).

mod health;
#[cfg(test)]
mod tests;

use std::time::Duration;

use storage_mapping::{CopyFate, Effect, ErrorSource, FencePolicy, Instant, IoError, IoTag, PathIndex};

pub use self::health::AfterProbe;
pub(crate) use self::health::DEEP_IDLE_CHECK;
pub use crate::config::{FailoverConfig, NoPathPolicy, PathConfig};
use crate::error_class::{Classified, PathAction, RequestAction};
use crate::explain::{Candidates, Explain, PathEvent, Reason, SCORES_MAX};
use crate::flap_damping::{FlapDamping, FlapDampingError};
use crate::group::Groups;
use crate::hedge::Hedge;
use crate::in_flight_limit::InFlightLimit;
use crate::path_state::{PathSet, PathState};
use crate::retry_budget::RetryBudget;
use crate::selector::PathSelector;
use crate::slow_path::SlowPaths;
use crate::witness::{Findings, Witness};

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
    /// It is taken to lead to the data of this device: listed as that, or compared.
    is_trusted: bool,
    /// Something that was asked for succeeded over it.
    has_carried: bool,
}

/// The state of all paths, and the way to choose among them.
#[derive(Debug)]
pub struct Failover<S> {
    config: FailoverConfig,
    paths: Vec<Path>,
    groups: Groups,
    /// Paths that answer, and are used only where no other is left: they came and went too often, or are slow.
    reserve: PathSet,
    slow: SlowPaths,
    /// Paths that have as many requests as they may.
    full: PathSet,
    /// Paths that came into use again, until somebody asks.
    reinstated: PathSet,
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
            is_trusted: true,
            has_carried: false,
        };
        let mut core = Self {
            config,
            paths: paths.iter().map(new).collect(),
            groups: Groups::new(priorities, config.failback),
            reserve: PathSet::EMPTY,
            slow: SlowPaths::new(config.slow_path, paths.len()),
            full: PathSet::EMPTY,
            reinstated: PathSet::EMPTY,
            witness: Witness::new(config.witness),
            budget: RetryBudget::new(now, config.retry_budget),
            hedge: Hedge::new(config.hedge),
            explain: Explain::default(),
            selector,
            next_probe: probe_at,
            last_use: now,
        };
        if config.compares_at_start {
            (1..core.paths.len()).map(PathIndex).for_each(|path| core.wait_for_comparison(now, path));
        }
        Ok(core)
    }

    /// A path of which it is not known yet that it leads where the first one does.
    pub fn wait_for_comparison(&mut self, now: Instant, path: PathIndex) {
        self.paths[path.0].is_trusted = false;
        self.deactivate(now, path, PathState::Failed, Reason::NotCompared);
        self.probe_now(now, path);
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

    /// Whether a path gave a suspicious error, and nothing succeeded since.
    #[must_use]
    pub fn is_suspect(&self, path: PathIndex) -> bool {
        self.paths[path.0].is_suspect
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
        !self.witness.is_in_event() && !self.groups.usable().union(self.reserve).is_empty()
    }

    /// Paths that came into use again since the last call: what failed over them before may be tried once more.
    pub fn take_reinstated(&mut self) -> PathSet {
        std::mem::take(&mut self.reinstated)
    }

    /// Whether all paths failed at once, and one answer is waited for.
    #[must_use]
    pub fn is_in_event(&self) -> bool {
        self.witness.is_in_event()
    }

    /// Paths that could be used had they not as many requests as they may.
    #[must_use]
    pub fn full(&self) -> PathSet {
        self.full.intersection(self.groups.usable().union(self.reserve))
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
    /// that is slow or isolated.
    pub fn select_path(&mut self, now: Instant, excluded: PathSet, bytes: usize) -> Option<PathIndex> {
        if self.witness.is_in_event() {
            return None;
        }
        let mut candidates = self.groups.current().without(excluded);
        if candidates.is_empty() {
            candidates = self.groups.best(self.groups.usable().without(excluded));
        }
        if candidates.is_empty() {
            candidates = self.reserve.without(excluded);
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
        // A flush may have much to write.
        if is_success && bytes > 0 {
            self.look_for_slow_path(now, path, now.since(sent));
        }
    }

    /// I/O over a path took so long. One that is slow beside the others of its group is used only where no other is left.
    fn look_for_slow_path(&mut self, now: Instant, path: PathIndex, took: Duration) {
        let Some(slowness) = self.slow.handle_done(now, path, took, self.groups.current()) else { return };
        self.deactivate(now, path, PathState::Slow, Reason::Slow(slowness));
        self.reserve.insert(path);
        self.probe_in(now, path, self.config.probe_interval);
    }

    /// I/O succeeded. A failed path is not in use again by that, for it may have been sent long ago; but it is likely to
    /// answer a probe.
    pub fn handle_success(&mut self, now: Instant, path: PathIndex, tag: IoTag) {
        let place = &mut self.paths[path.0];
        place.is_suspect = false;
        place.has_carried = true;
        place.last_success = now;
        let state = place.state;
        let findings = self.witness.handle_success(path, tag);
        self.take_in(now, findings, Reason::NotConfirmed);
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
            if is_last && self.paths[path.0].is_suspect && reason != Reason::Hung {
                self.witness.forget_path(path);
            } else {
                self.fail(now, path, PathState::Failed, reason);
            }
        }
        for path in findings.lifted.iter() {
            if self.paths[path.0].state == PathState::Failed && self.paths[path.0].is_trusted {
                self.paths[path.0].damping.clear();
                // It stays in the event, if there is one: what it says until that ends is no news.
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
        if !self.state(path).can_carry() {
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
        self.paths[path.0].is_trusted = true;
        if self.state(path) != PathState::Active {
            self.witness.forget_path(path);
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
        self.reinstated.insert(path);
        let place = &mut self.paths[path.0];
        (place.is_suspect, place.last_success, place.probe_at) = (false, now, None);
        self.reserve.remove(path);
        self.hedge.forget_path(path);
        self.slow.forget_path(path);
        self.probe_at_interval(now, path);
        self.groups.set_usable(now, path, true);
        self.selector.reinstate_path(now, path);
    }

    fn deactivate(&mut self, now: Instant, path: PathIndex, state: PathState, reason: Reason) {
        if self.paths[path.0].state == PathState::Active {
            self.groups.set_usable(now, path, false);
            self.selector.fail_path(now, path);
        }
        self.reserve.remove(path);
        self.change(now, path, state, reason);
    }
}
