//! Probes: which path is asked whether it answers, when, and what follows.
//!
//! Keeps true: a path has one probe at a time, or the comparison that follows it; any I/O that succeeded within the
//! interval is as good as a check; a path that had failed is in use again only by what is decided here, or by an operator;
//! one that leads to other data, or was never compared, stays out until there is a path to compare it with.
//! Not here: sending probes and comparing (`multipath_device`).

use std::time::Duration;

use storage_mapping::{Instant, IoTag, PathIndex};

use super::{Failover, Path};
use crate::explain::Reason;
use crate::path_state::PathState;
use crate::selector::PathSelector;

/// Between two checks of a device that has nothing to do, all its paths taken together.
pub(crate) const DEEP_IDLE_CHECK: Duration = Duration::from_secs(60);
/// How long a path that leads to other data is left alone before it is compared once more.
pub(super) const FOREIGN_INTERVAL: Duration = Duration::from_secs(60);

/// What follows from a probe that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterProbe {
    /// The path was in use, and stays so.
    Nothing,
    /// It is to be compared with this one, and then reinstated.
    Compare(PathIndex),
    /// It is in use again: there is no other to compare it with.
    Reinstated,
    /// There is no other to compare it with, and without that it must not be used.
    StaysOut,
}

impl<S: PathSelector> Failover<S> {
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

    /// A probe took so long. A slow path that is well again is in use by that.
    pub fn handle_probe_time(&mut self, now: Instant, path: PathIndex, took: Duration) {
        if self.state(path) == PathState::Slow && self.slow.handle_probe(now, path, took) {
            self.activate(now, path, Reason::Quick);
        }
    }

    /// A probe was answered.
    pub fn handle_probe_success(&mut self, now: Instant, path: PathIndex, tag: IoTag) -> AfterProbe {
        let place = &mut self.paths[path.0];
        (place.is_suspect, place.last_success) = (false, now);
        let findings = self.witness.handle_success(path, tag);
        self.take_in(now, findings, Reason::NotConfirmed);
        let witness = self.groups.current().next_from(PathIndex(0));
        let place = &mut self.paths[path.0];
        match (place.state, witness) {
            (PathState::Failed | PathState::Foreign | PathState::Standby, Some(witness)) => {
                AfterProbe::Compare(witness)
            }
            (PathState::Failed | PathState::Foreign | PathState::Standby, None) => {
                place.is_probing = false;
                if !self.is_first_of_all(path) {
                    self.probe_in(now, path, self.config.probe_interval);
                    return AfterProbe::StaysOut;
                }
                self.reinstate(now, path, Reason::Answered);
                AfterProbe::Reinstated
            }
            (PathState::Isolated, _) => {
                place.is_probing = false;
                self.reserve.remove(path);
                self.reinstate(now, path, Reason::Answered);
                AfterProbe::Nothing
            }
            (PathState::Slow, _) => {
                place.is_probing = false;
                self.probe_in(now, path, self.config.probe_interval);
                AfterProbe::Nothing
            }
            (PathState::Active | PathState::Disabled, _) => {
                place.is_probing = false;
                self.probe_at_interval(now, path);
                AfterProbe::Nothing
            }
        }
    }

    /// Whether a path may be used though it cannot be compared: it was trusted before, or nobody was given data over
    /// any path yet. In that case the others are compared with it.
    fn is_first_of_all(&mut self, path: PathIndex) -> bool {
        if !self.paths[path.0].is_trusted
            && self.state(path) != PathState::Foreign
            && self.paths.iter().all(|path| !path.has_carried)
        {
            self.paths.iter_mut().for_each(|other| other.is_trusted = false);
            self.paths[path.0].is_trusted = true;
        }
        self.paths[path.0].is_trusted
    }

    /// The comparison ended: the path leads to the same data as the others.
    pub fn handle_proof(&mut self, now: Instant, path: PathIndex) {
        self.paths[path.0].is_probing = false;
        self.paths[path.0].is_trusted = true;
        if matches!(self.state(path), PathState::Failed | PathState::Foreign | PathState::Standby) {
            self.reinstate(now, path, Reason::Compared);
        }
    }

    /// A path that answers is used again; if it came and went too often, only where no other is left.
    fn reinstate(&mut self, now: Instant, path: PathIndex, reason: Reason) {
        match self.paths[path.0].damping.reusable_at(now) {
            None => {
                self.witness.forget_path(path);
                self.activate(now, path, reason);
            }
            Some(at) => {
                self.change(now, path, PathState::Isolated, Reason::Flapped(at.since(now)));
                self.reserve.insert(path);
                self.reinstated.insert(path);
                self.probe_in(now, path, at.since(now).min(self.config.probe_interval));
            }
        }
    }

    /// The path leads to other data than the others, or is shorter than the device: it carries nothing.
    pub fn handle_foreign(&mut self, now: Instant, path: PathIndex, reason: Reason) {
        self.paths[path.0].is_probing = false;
        self.paths[path.0].is_trusted = false;
        if self.state(path) != PathState::Disabled {
            self.deactivate(now, path, PathState::Foreign, reason);
            self.probe_in(now, path, FOREIGN_INTERVAL);
        }
    }

    /// A probe failed, or could not be sent; or a comparison came to no end.
    pub fn handle_failed_probe(&mut self, now: Instant, path: PathIndex) {
        self.paths[path.0].is_probing = false;
        if matches!(self.state(path), PathState::Isolated | PathState::Slow) {
            self.fail(now, path, PathState::Failed, Reason::Hung);
        }
        if self.state(path) != PathState::Disabled {
            // An event of the target ends with an answer: paths that it lifted are in use and asked all the same.
            self.paths[path.0].is_called |= self.witness.is_in_event();
            self.probe_in(now, path, self.config.probe_interval);
        }
    }

    /// The path is likely to have changed: its probe is due now, unless one is under way.
    pub fn probe_now(&mut self, now: Instant, path: PathIndex) {
        self.probe_in(now, path, Duration::ZERO);
    }

    /// The next probe is due then, or earlier if that was so.
    pub(super) fn probe_in(&mut self, now: Instant, path: PathIndex, delay: Duration) {
        let at = now + delay;
        let probe_at = &mut self.paths[path.0].probe_at;
        *probe_at = Some(probe_at.map_or(at, |earlier| earlier.min(at)));
        if !self.paths[path.0].is_probing {
            self.next_probe = Some(self.next_probe.map_or(at, |earlier| earlier.min(at)));
        }
    }

    pub(super) fn probe_at_interval(&mut self, now: Instant, path: PathIndex) {
        if let Some(interval) = self.config.check_interval {
            self.probe_in(now, path, interval);
        }
    }
}
