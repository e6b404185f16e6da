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
//! * the last path in use is not failed by an error that may come from the medium.
//!
//! Not here: which writes wait for a copy that may land (`fence`).

use std::time::Duration;

use storage_mapping::{CopyFate, Effect, FencePolicy, Instant, PathIndex};

use crate::error_class::ErrorClass;
use crate::path_state::{PathSet, PathState};
use crate::selector::PathSelector;

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
    /// How long after its submission a request may wait for a path, or for room on one.
    pub no_path_timeout: Duration,
    /// How long after a failure, or a failed probe, a path is probed.
    pub probe_interval: Duration,
    /// Suspicious errors without a success in between that fail a path.
    pub suspect_errors_max: u32,
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
            no_path_timeout: Duration::from_secs(60),
            probe_interval: Duration::from_secs(1),
            suspect_errors_max: 2,
            quiesce_time: Duration::from_secs(30),
            quarantine_max_bytes: 64 << 20,
            cache_is_shared: false,
        }
    }
}

/// What an attempt that failed leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    /// The class of its error.
    pub class: ErrorClass,
    /// Did the device act on it?
    pub effect: Effect,
    /// May a copy still land?
    pub copy: CopyFate,
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
    /// Once more, over any path, after [`FailoverConfig::busy_delay`].
    Later,
}

/// One path as the core sees it.
#[derive(Clone, Copy, Debug)]
struct Path {
    state: PathState,
    suspect_errors: u32,
    /// When to probe; `None` while a probe is under way or none is due.
    probe_at: Option<Instant>,
}

/// The state of all paths, and the way to choose among them.
#[derive(Debug)]
pub struct Failover<S> {
    config: FailoverConfig,
    paths: Vec<Path>,
    active: PathSet,
    selector: S,
}

impl<S: PathSelector> Failover<S> {
    /// `path_count` paths, all active.
    pub fn new(path_count: usize, selector: S, config: FailoverConfig) -> Self {
        let path = Path { state: PathState::Active, suspect_errors: 0, probe_at: None };
        let mut active = PathSet::EMPTY;
        (0..path_count).for_each(|index| active.insert(PathIndex(index)));
        Self { config, paths: vec![path; path_count], active, selector }
    }

    /// The numbers it works with.
    #[must_use]
    pub fn config(&self) -> &FailoverConfig {
        &self.config
    }

    /// Whether a path is used.
    #[must_use]
    pub fn state(&self, path: PathIndex) -> PathState {
        self.paths[path.0].state
    }

    /// The paths in use.
    #[must_use]
    pub fn active(&self) -> PathSet {
        self.active
    }

    /// The path for the next attempt, none of `excluded`.
    pub fn select_path(&mut self, now: Instant, excluded: PathSet, bytes: usize) -> Option<PathIndex> {
        self.selector.select_path(now, self.active.without(excluded), bytes)
    }

    /// A request was sent.
    pub fn handle_start(&mut self, now: Instant, path: PathIndex, bytes: usize) {
        self.selector.start_io(now, path, bytes);
    }

    /// A request came back, done or failed.
    pub fn handle_end(&mut self, now: Instant, path: PathIndex, bytes: usize, service_time: Duration) {
        self.selector.end_io(now, path, bytes, service_time);
    }

    /// I/O or a probe succeeded: a failed path is back. Says whether it is.
    pub fn handle_success(&mut self, now: Instant, path: PathIndex) -> bool {
        self.paths[path.0].suspect_errors = 0;
        let was_failed = self.paths[path.0].state == PathState::Failed;
        if was_failed {
            self.activate(now, path);
        }
        was_failed
    }

    /// I/O failed. Says whether the path failed with it.
    pub fn handle_error(&mut self, now: Instant, path: PathIndex, class: ErrorClass) -> bool {
        let fails = match class {
            ErrorClass::Answer | ErrorClass::Busy | ErrorClass::Integrity => false,
            ErrorClass::PathDead => true,
            ErrorClass::PathSuspect => {
                let errors = &mut self.paths[path.0].suspect_errors;
                *errors = errors.saturating_add(1);
                *errors >= self.config.suspect_errors_max && self.active.len() > 1
            }
        };
        let fails = fails && self.state(path) == PathState::Active;
        if fails {
            self.deactivate(now, path, PathState::Failed);
            self.paths[path.0].probe_at = Some(now + self.config.probe_interval);
        }
        fails
    }

    /// The next path to probe now, if any; its probe is then under way.
    pub fn poll_probe(&mut self, now: Instant) -> Option<PathIndex> {
        let due = self.paths.iter_mut().position(|path| path.probe_at.is_some_and(|at| at <= now))?;
        self.paths[due].probe_at = None;
        Some(PathIndex(due))
    }

    /// A probe failed, or could not be sent.
    pub fn handle_failed_probe(&mut self, now: Instant, path: PathIndex) {
        if self.state(path) == PathState::Failed {
            self.paths[path.0].probe_at = Some(now + self.config.probe_interval);
        }
    }

    /// A failed path is likely to answer: its probe is due now, unless one is under way.
    pub fn probe_now(&mut self, now: Instant, path: PathIndex) {
        let probe_at = &mut self.paths[path.0].probe_at;
        *probe_at = probe_at.map(|_| now);
    }

    /// When the next probe is due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.paths.iter().filter_map(|path| path.probe_at).min()
    }

    /// An operator takes a path out of use.
    pub fn disable_path(&mut self, now: Instant, path: PathIndex) {
        self.deactivate(now, path, PathState::Disabled);
        self.paths[path.0].probe_at = None;
    }

    /// An operator puts a path into use.
    pub fn reinstate_path(&mut self, now: Instant, path: PathIndex) {
        if self.state(path) != PathState::Active {
            self.activate(now, path);
        }
    }

    /// What becomes of a request after a failed attempt.
    #[must_use]
    pub fn judge(&self, failed: &FailedAttempt) -> Verdict {
        let is_in_doubt = failed.effect == Effect::Unknown && failed.copy == CopyFate::MayLand;
        let may_resend = match failed.effect {
            Effect::Full => false,
            Effect::None | Effect::Unknown => {
                !failed.is_write || !is_in_doubt || failed.fence != FencePolicy::Fail
            }
        };
        if !may_resend || failed.attempts >= self.config.attempts_max {
            return Verdict::Answer;
        }
        match failed.class {
            ErrorClass::Answer => Verdict::Answer,
            ErrorClass::Busy => Verdict::Later,
            // A second witness, and no third.
            ErrorClass::Integrity if failed.is_write || failed.attempts > 1 => Verdict::Answer,
            ErrorClass::Integrity | ErrorClass::PathDead | ErrorClass::PathSuspect => Verdict::Elsewhere,
        }
    }

    fn activate(&mut self, now: Instant, path: PathIndex) {
        self.paths[path.0] = Path { state: PathState::Active, suspect_errors: 0, probe_at: None };
        self.active.insert(path);
        self.selector.reinstate_path(now, path);
    }

    fn deactivate(&mut self, now: Instant, path: PathIndex, state: PathState) {
        self.paths[path.0].state = state;
        self.active.remove(path);
        self.selector.fail_path(now, path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selector::RoundRobin;

    const A: PathIndex = PathIndex(0);
    const B: PathIndex = PathIndex(1);

    fn two_paths() -> Failover<RoundRobin> {
        Failover::new(2, RoundRobin::default(), FailoverConfig::default())
    }

    fn failed_write(effect: Effect, copy: CopyFate, fence: FencePolicy) -> FailedAttempt {
        let class = ErrorClass::PathSuspect;
        FailedAttempt { class, effect, copy, is_write: true, fence, attempts: 1 }
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
        let last = FailedAttempt {
            class: ErrorClass::Busy,
            effect: Effect::None,
            copy: CopyFate::Dead,
            is_write: false,
            fence: FencePolicy::Fence,
            attempts: core.config().attempts_max,
        };
        assert_eq!(core.judge(&last), Verdict::Answer);
        assert_eq!(core.judge(&FailedAttempt { attempts: 1, ..last }), Verdict::Later);
    }

    #[test]
    fn a_suspect_path_fails_the_second_time_and_comes_back_by_a_probe() {
        let mut core = two_paths();
        let now = Instant::ZERO;
        assert!(!core.handle_error(now, A, ErrorClass::PathSuspect));
        assert!(!core.handle_success(now, A), "a success forgives");
        assert!(!core.handle_error(now, A, ErrorClass::PathSuspect));
        assert!(core.handle_error(now, A, ErrorClass::PathSuspect));
        assert_eq!(core.select_path(now, PathSet::EMPTY, 1), Some(B));
        assert_eq!(core.select_path(now, PathSet::EMPTY, 1), Some(B));
        assert_eq!(core.poll_probe(now), None);
        let due = core.next_timeout().unwrap();
        assert_eq!(core.poll_probe(due), Some(A));
        assert_eq!(core.poll_probe(due), None, "one probe at a time");
        core.handle_failed_probe(due, A);
        assert!(core.next_timeout().unwrap() > due);
        assert!(core.handle_success(now, A));
        assert_eq!((core.state(A), core.next_timeout()), (PathState::Active, None));
    }

    #[test]
    fn the_last_path_fails_only_when_it_is_dead() {
        let mut core = two_paths();
        let now = Instant::ZERO;
        assert!(core.handle_error(Instant::ZERO, A, ErrorClass::PathDead));
        for _ in 0..10 {
            assert!(!core.handle_error(Instant::ZERO, B, ErrorClass::PathSuspect));
        }
        assert!(core.handle_error(Instant::ZERO, B, ErrorClass::PathDead));
        assert_eq!(core.select_path(now, PathSet::EMPTY, 1), None);
    }

    #[test]
    fn a_disabled_path_stays_out_until_the_operator_wants_it() {
        let mut core = two_paths();
        let now = Instant::ZERO;
        core.disable_path(now, A);
        assert!(!core.handle_success(now, A));
        assert_eq!((core.state(A), core.next_timeout()), (PathState::Disabled, None));
        core.reinstate_path(now, A);
        assert_eq!(core.active().len(), 2);
    }
}
