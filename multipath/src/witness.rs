//! What several paths say together: the two-witness rule and the all-at-once rule.
//!
//! * **Two witnesses.** The same request fails on a second path with an error that is not of the
//!   transport: that is the answer, and the suspicion that it cast on the first path is lifted. Else one
//!   bad block would fail every path, one after the other. An error of class *suspect* (EIO) may be of the
//!   transport or not: it is the answer once every usable path said it, since one good path must be
//!   enough. The other way round, a request whose data
//!   were in doubt on one path and that succeeds on another casts a suspicion on the first.
//! * **All at once.** Every usable path fails within [`WitnessConfig::window`] with the same error: that
//!   is one event of the target and no failure of any path. The paths that failed on the way there are
//!   lifted, nothing more is counted until one of them succeeds, and I/O should wait for one probe.
//!   Some of the paths failing together are path failures: their common cause lies on this side.
//!
//! Keeps true: what is lifted was reported before; the last usable path never fails in a burst; a
//! request casts at most one suspicion on a path; nothing is allocated. A forgotten request (only the
//! last [`REQUESTS_MAX`] that failed are kept) costs a rule its effect, and nothing else.
//!
//! If a target dies at depth 1 and all its paths say EIO, that one request is answered with EIO; at depth
//! 2 it is an event.
//!
//! The numbers: 5 ms spans what interrupt coalescing and one failover (1 ms) put between reports of one
//! event. If each path failed once an hour by itself, two within 5 ms would be met once in 41 years of
//! two paths (3600 s / 5 ms / 2 hours). Not here: probes, and what waits during an event.

use std::mem::discriminant;
use std::time::Duration;

use storage_mapping::{ErrorSource, Instant, IoError, IoTag, PathIndex};

use crate::error_class::{Classified, ErrorClass, PathAction, RequestAction};
use crate::path_state::{PATH_COUNT_MAX, PathSet};

/// Failed requests that are remembered.
pub const REQUESTS_MAX: usize = 64;

/// The numbers of the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WitnessConfig {
    /// Failures of paths this close together belong to one event.
    pub window: Duration,
    /// Suspicions by distinct requests, without a success in between, that fail a path.
    pub suspicions_max: u32,
}

impl Default for WitnessConfig {
    fn default() -> Self {
        Self { window: Duration::from_millis(5), suspicions_max: 2 }
    }
}

/// What an outcome means, with all that was seen before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Paths that fail now.
    pub fails: PathSet,
    /// Paths that are no longer under suspicion; those of them that failed by it are good again.
    pub lifted: PathSet,
    /// The error is the answer to its request.
    pub is_answer: bool,
    /// An event of the target begins, seen over these paths.
    pub target_event: Option<PathSet>,
}

/// The last error of a path that was held against it.
#[derive(Clone, Copy, Debug)]
struct Strike {
    at: Instant,
    error: IoError,
}

#[derive(Clone, Copy, Debug, Default)]
struct Path {
    suspicions: u32,
    strike: Option<Strike>,
    /// It failed by what was reported here.
    failed: bool,
}

/// A request that failed, by path.
#[derive(Clone, Copy, Debug)]
struct Request {
    tag: IoTag,
    /// Where it failed.
    tried: PathSet,
    /// Where it counts as a suspicion.
    suspects: PathSet,
    /// Where its data were in doubt, which the success of another path turns into a suspicion.
    doubts: PathSet,
}

/// The two rules, as a state machine.
#[derive(Clone, Debug)]
pub struct Witness {
    config: WitnessConfig,
    paths: [Path; PATH_COUNT_MAX],
    /// Oldest first; empty while all is well, so that a success has nothing to look through.
    requests: Vec<Request>,
    event: PathSet,
}

impl Witness {
    /// Nothing was seen yet.
    #[must_use]
    pub fn new(config: WitnessConfig) -> Self {
        let paths = [Path::default(); PATH_COUNT_MAX];
        Self { config, paths, requests: Vec::with_capacity(REQUESTS_MAX), event: PathSet::EMPTY }
    }

    /// Whether an event of the target is under way: no success since it began.
    #[must_use]
    pub fn is_in_event(&self) -> bool {
        !self.event.is_empty()
    }

    /// Request `tag` failed over `path`. `usable` are the paths in use, with this one or without.
    ///
    /// # Panics
    /// If `path` is not below [`PATH_COUNT_MAX`].
    pub fn handle_error(
        &mut self,
        now: Instant,
        path: PathIndex,
        tag: IoTag,
        said: (&Classified, IoError),
        usable: PathSet,
    ) -> Findings {
        let (classified, error) = said;
        let place = self.place_of(tag);
        let request = &mut self.requests[place];
        let mut others = request.tried;
        others.remove(path);
        // A path that asks for the same once more, or later, has said nothing of the request.
        if !matches!(classified.request, RequestAction::Again | RequestAction::Later) {
            request.tried.insert(path);
        }
        let all_said = usable.without(request.tried).is_empty();
        let is_witness =
            is_witness(classified.class) || (classified.class == ErrorClass::PathSuspect && all_said);
        if !others.is_empty() && is_witness {
            return self.end_with_answer(place);
        }
        if classified.request == RequestAction::Witness {
            request.doubts.insert(path);
        }
        let fails = match classified.path {
            PathAction::Fail => true,
            PathAction::Suspect => self.suspect(place, path),
            PathAction::Nothing
            | PathAction::Standby
            | PathAction::Transition
            | PathAction::Reidentify
            | PathAction::Shrink => return Findings::default(),
        };
        self.strike(now, path, error, fails, usable)
    }

    /// Request `tag` succeeded over `path`, a probe too..
    ///
    /// # Panics
    /// If `path` is not below [`PATH_COUNT_MAX`].
    pub fn handle_success(&mut self, path: PathIndex, tag: IoTag) -> Findings {
        self.paths[path.0] = Path::default();
        self.event = PathSet::EMPTY;
        let mut findings = Findings::default();
        let Some(place) = self.find(tag) else { return findings };
        let mut doubts = self.requests[place].doubts;
        doubts.remove(path);
        for other in doubts.iter() {
            if self.suspect(place, other) {
                self.paths[other.0].failed = true;
                findings.fails.insert(other);
            }
        }
        self.requests.remove(place);
        findings
    }

    /// A path was taken out of use or put back by somebody else: what was held against it is void.
    ///
    /// # Panics
    /// If `path` is not below [`PATH_COUNT_MAX`].
    pub fn forget_path(&mut self, path: PathIndex) {
        self.paths[path.0] = Path::default();
        self.event.remove(path);
        for request in &mut self.requests {
            request.tried.remove(path);
            request.suspects.remove(path);
            request.doubts.remove(path);
        }
    }

    /// A second path says that it is not the path: everybody who was suspected for it is well.
    fn end_with_answer(&mut self, place: usize) -> Findings {
        let mut findings = Findings { is_answer: true, ..Findings::default() };
        let request = self.requests.remove(place);
        for path in request.suspects.iter() {
            let entry = &mut self.paths[path.0];
            entry.suspicions = entry.suspicions.saturating_sub(1);
            if entry.suspicions < self.config.suspicions_max {
                entry.failed = false;
                entry.strike = None;
                findings.lifted.insert(path);
            }
        }
        findings
    }

    /// Casts a suspicion. Says whether the path fails by it.
    fn suspect(&mut self, place: usize, path: PathIndex) -> bool {
        let request = &mut self.requests[place];
        if request.suspects.contains(path) {
            return false;
        }
        request.suspects.insert(path);
        let entry = &mut self.paths[path.0];
        entry.suspicions = entry.suspicions.saturating_add(1);
        entry.suspicions >= self.config.suspicions_max
    }

    /// Holds an error against a path, and sees whether all the others have the same one.
    fn strike(
        &mut self,
        now: Instant,
        path: PathIndex,
        error: IoError,
        fails: bool,
        usable: PathSet,
    ) -> Findings {
        let mut findings = Findings::default();
        if self.event.contains(path) {
            return findings;
        }
        self.paths[path.0].strike = Some(Strike { at: now, error });
        let mut group = PathSet::EMPTY;
        for index in (0..PATH_COUNT_MAX).map(PathIndex) {
            let same = |strike: Strike| {
                now.since(strike.at) <= self.config.window && is_same_cause(&strike.error, &error)
            };
            if self.paths[index.0].strike.is_some_and(same) {
                group.insert(index);
            }
        }
        // Where no path was in use, none was lost by this.
        if group.len() >= 2 && !usable.is_empty() && usable.without(group).is_empty() {
            self.event = self.event.union(group);
            findings.target_event = Some(group);
            for member in group.iter() {
                self.paths[member.0] = Path::default();
                findings.lifted.insert(member);
            }
            findings.lifted.remove(path);
        } else if fails && !self.paths[path.0].failed {
            self.paths[path.0].failed = true;
            findings.fails.insert(path);
        }
        findings
    }

    fn find(&self, tag: IoTag) -> Option<usize> {
        self.requests.iter().position(|request| request.tag == tag)
    }

    /// The place of a request, new or known.
    fn place_of(&mut self, tag: IoTag) -> usize {
        if let Some(place) = self.find(tag) {
            return place;
        }
        if self.requests.len() == REQUESTS_MAX {
            self.requests.remove(0);
        }
        self.requests.push(Request::new(tag));
        self.requests.len() - 1
    }
}

impl Request {
    fn new(tag: IoTag) -> Self {
        let none = PathSet::EMPTY;
        Self { tag, tried: none, suspects: none, doubts: none }
    }
}

/// Whether an error on a second path shows that the path is not the cause.
fn is_witness(class: ErrorClass) -> bool {
    match class {
        ErrorClass::Medium
        | ErrorClass::Integrity
        | ErrorClass::Target
        | ErrorClass::Reservation
        | ErrorClass::Caller => true,
        ErrorClass::Success
        | ErrorClass::PathSuspect
        | ErrorClass::PathDead
        | ErrorClass::PathGhost
        | ErrorClass::PathTransition
        | ErrorClass::Reidentify
        | ErrorClass::Busy
        | ErrorClass::UnitAttention
        | ErrorClass::Ambiguous
        | ErrorClass::Cancelled => false,
    }
}

/// Whether two errors say the same; how many bytes were done, or sent, is not of the cause.
fn is_same_cause(a: &IoError, b: &IoError) -> bool {
    match (a.source_code, b.source_code) {
        (ErrorSource::Short { .. } | ErrorSource::ConnectionLost { .. }, _) => {
            discriminant(&a.source_code) == discriminant(&b.source_code)
        }
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error_class::{IoKind, RequestFacts, Sent, classify};

    const A: PathIndex = PathIndex(0);
    const B: PathIndex = PathIndex(1);
    const C: PathIndex = PathIndex(2);

    fn set(paths: &[PathIndex]) -> PathSet {
        let mut set = PathSet::EMPTY;
        paths.iter().for_each(|path| set.insert(*path));
        set
    }

    /// A witness, its usable paths, and a clock that the tests move.
    struct Bench {
        witness: Witness,
        usable: PathSet,
        now: Instant,
    }

    impl Bench {
        fn new(paths: &[PathIndex]) -> Self {
            let witness = Witness::new(WitnessConfig::default());
            Self { witness, usable: set(paths), now: Instant(1_000_000_000) }
        }

        fn fail(&mut self, path: PathIndex, tag: u64, source: ErrorSource) -> Findings {
            let error = IoError::from(source);
            let facts = RequestFacts { kind: IoKind::Read, sent: Sent::Yes, address_checked: true };
            let classified = classify(&error, &facts);
            let said = (&classified, error);
            let found = self.witness.handle_error(self.now, path, IoTag(tag), said, self.usable);
            self.usable = self.usable.without(found.fails);
            found.lifted.iter().for_each(|path| self.usable.insert(path));
            found
        }

        fn wait(&mut self, millis: u64) {
            self.now = self.now + Duration::from_millis(millis);
        }
    }

    const EIO: ErrorSource = ErrorSource::Errno(5);
    const RESET: ErrorSource = ErrorSource::ConnectionLost { sent: true };
    const HARDWARE: ErrorSource =
        ErrorSource::Scsi { status: 2, host_status: 0, key: 4, asc: 0x44, ascq: 0, deferred: false };
    const MEDIUM: ErrorSource =
        ErrorSource::Scsi { status: 2, host_status: 0, key: 3, asc: 0x11, ascq: 0, deferred: false };

    #[test]
    fn a_second_witness_gives_the_answer_and_clears_the_first_path() {
        let mut bench = Bench::new(&[A, B]);
        // A hundred bad blocks at a distance: no path ever fails.
        for tag in 0..100 {
            assert_eq!(bench.fail(A, tag, EIO), Findings::default());
            bench.wait(20);
            let found = bench.fail(B, tag, MEDIUM);
            assert!(found.is_answer);
            assert_eq!((found.fails, found.lifted), (PathSet::EMPTY, set(&[A])));
            bench.wait(20);
        }
    }

    #[test]
    fn a_unit_attention_is_no_witness() {
        let mut bench = Bench::new(&[A, B]);
        let attention =
            ErrorSource::Scsi { status: 2, host_status: 0, key: 6, asc: 0x2a, ascq: 6, deferred: false };
        assert_eq!(bench.fail(B, 1, attention), Findings::default());
        assert_eq!(bench.fail(A, 1, EIO), Findings::default(), "the other path was not asked yet");
        assert!(bench.fail(B, 1, EIO).is_answer);
    }

    #[test]
    fn a_path_that_failed_by_a_bad_request_is_lifted() {
        let mut bench = Bench::new(&[A, B, C]);
        bench.fail(A, 1, EIO);
        bench.wait(50);
        assert_eq!(bench.fail(A, 2, EIO).fails, set(&[A]));
        bench.wait(50);
        assert_eq!(bench.fail(B, 2, EIO), Findings::default(), "one good path would be enough");
        bench.wait(50);
        let found = bench.fail(C, 2, EIO);
        assert_eq!((found.is_answer, found.lifted), (true, set(&[A, B])));
        assert_eq!(bench.usable, set(&[A, B, C]));
    }

    #[test]
    fn a_transport_error_on_the_second_path_is_no_witness() {
        let mut bench = Bench::new(&[A, B, C]);
        bench.fail(A, 1, EIO);
        bench.wait(50);
        let found = bench.fail(B, 1, RESET);
        assert_eq!((found.is_answer, found.fails, found.lifted), (false, set(&[B]), PathSet::EMPTY));
        bench.wait(50);
        assert!(bench.fail(C, 1, MEDIUM).is_answer);
    }

    #[test]
    fn the_same_path_is_not_its_own_witness() {
        let mut bench = Bench::new(&[A, B]);
        for _ in 0..10 {
            let found = bench.fail(A, 1, EIO);
            assert_eq!(found, Findings::default(), "one request, one suspicion");
            bench.wait(50);
        }
        assert_eq!(bench.fail(A, 2, EIO).fails, set(&[A]));
    }

    #[test]
    fn what_succeeds_elsewhere_was_the_path() {
        let mut bench = Bench::new(&[A, B]);
        for tag in 1..=2 {
            assert_eq!(bench.fail(A, tag, HARDWARE), Findings::default());
            let found = bench.witness.handle_success(B, IoTag(tag));
            assert_eq!(found.fails.contains(A), tag == 2, "{tag}");
        }
        // And a success of the path itself forgives.
        let mut bench = Bench::new(&[A, B]);
        for tag in 1..=20 {
            bench.fail(A, tag, EIO);
            bench.witness.handle_success(A, IoTag(100 + tag));
        }
        assert_eq!(bench.usable, set(&[A, B]));
    }

    #[test]
    fn all_paths_at_once_are_one_event_of_the_target() {
        let mut bench = Bench::new(&[A, B, C]);
        assert_eq!(bench.fail(A, 1, RESET).fails, set(&[A]));
        bench.wait(1);
        let sent_or_not = ErrorSource::ConnectionLost { sent: false };
        assert_eq!(bench.fail(B, 2, sent_or_not).fails, set(&[B]));
        bench.wait(1);
        let found = bench.fail(C, 3, RESET);
        assert_eq!((found.fails, found.lifted), (PathSet::EMPTY, set(&[A, B])));
        assert_eq!(found.target_event, Some(set(&[A, B, C])));
        assert!(bench.witness.is_in_event());
        // While it lasts nothing is counted.
        bench.wait(500);
        for tag in 10..20 {
            assert_eq!(bench.fail(B, tag, RESET), Findings::default());
        }
        // It ends with a success, and a path that is still dead then fails.
        bench.witness.handle_success(A, IoTag(77));
        assert!(!bench.witness.is_in_event());
        assert_eq!(bench.fail(B, 30, RESET).fails, set(&[B]));
    }

    #[test]
    fn some_paths_at_once_are_path_failures() {
        let mut bench = Bench::new(&[A, B, C]);
        let fails = bench.fail(A, 1, RESET).fails.len() + bench.fail(B, 2, RESET).fails.len();
        assert_eq!((fails, bench.witness.is_in_event()), (2, false));
    }

    #[test]
    fn other_errors_or_other_times_are_not_one_event() {
        let mut bench = Bench::new(&[A, B]);
        bench.fail(A, 1, RESET);
        bench.wait(6);
        assert_eq!(bench.fail(B, 2, RESET).target_event, None);
        let mut bench = Bench::new(&[A, B]);
        bench.fail(A, 1, RESET);
        let found = bench.fail(B, 2, ErrorSource::Errno(nix::errno::Errno::ENODEV as i32));
        assert_eq!((found.target_event, found.fails), (None, set(&[B])));
        // One path is not all paths.
        let mut bench = Bench::new(&[A]);
        assert_eq!(bench.fail(A, 1, RESET).fails, set(&[A]));
    }

    #[test]
    fn a_reset_at_depth_two_is_an_event_and_no_bad_request() {
        let mut bench = Bench::new(&[A, B]);
        assert_eq!(bench.fail(A, 1, EIO), Findings::default());
        let found = bench.fail(B, 2, EIO);
        assert_eq!((found.is_answer, found.target_event), (false, Some(set(&[A, B]))));
    }

    proptest! {
        /// Whatever comes: what is lifted or fails was known, and the model of the caller agrees.
        #[test]
        fn any_sequence_keeps_the_rules(
            steps in prop::collection::vec((0..4_usize, 0..6_u64, 0..6_usize, 0..8_u64), 0..200),
        ) {
            let mut bench = Bench::new(&[A, B, C, PathIndex(3)]);
            let mut seen = PathSet::EMPTY;
            for (path, tag, what, millis) in steps {
                let path = PathIndex(path);
                bench.wait(millis);
                let source = [EIO, RESET, HARDWARE, MEDIUM].get(what);
                let Some(source) = source else {
                    let found = bench.witness.handle_success(path, IoTag(tag));
                    bench.usable.insert(path);
                    bench.usable = bench.usable.without(found.fails);
                    prop_assert!(!bench.witness.is_in_event());
                    continue;
                };
                seen.insert(path);
                let found = bench.fail(path, tag, *source);
                prop_assert!(found.lifted.without(seen).is_empty());
                prop_assert!(found.fails.without(set(&[path])).is_empty());
                prop_assert!(found.target_event.is_none() || found.fails.is_empty());
                prop_assert!(!(found.is_answer && *source == RESET));
            }
        }
    }
}
