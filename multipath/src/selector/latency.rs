//! The path on which this request is estimated to complete first.
//!
//! **The model of a path.** While a path is busy, requests leave it at intervals. The mean interval
//! *g* is what one request takes of it, whatever it is made of: a queue that serves one after the
//! other (then *g* is its service time), several at once, or a limited rate. By Little's law *n*
//! requests have left after *n · g*, so a request that finds *n* in flight completes after
//!
//! ```text
//! T = (n + 1) · g  +  c · (bytes in flight + its bytes − (n + 1) · mean bytes)  +  overdue
//! ```
//!
//! where *c* is the time of one byte, from the regression of intervals on sizes, and *overdue* is by
//! how much the silence of a busy path exceeds the interval that was to be expected (*g* and four mean
//! deviations, as in the retransmission timer of TCP). So a hung path looks worse with every moment,
//! without any completion. At depth 1 the interval is the latency; at great depth *T* weighs queues.
//!
//! **Ties.** *g* is the mean of about 32 intervals, and known only to its error. Paths that are not
//! shown to be later than the best, by an eighth and by the errors of both, are equal: the one with
//! the fewest requests in flight is taken, then whoever had the fewest turns. So equal paths share
//! equally though their means differ, and noise does not swing the load. Without the fewest in flight
//! a path with many lanes that had more than the others would keep that, for its *g* is then shorter.
//!
//! **Healing.** What is shown to be later gets nothing, so nothing would be learnt of it. When such a
//! path is idle it gets one request now and then. All these probes together delay one stream of
//! requests by at most a sixteenth of its time; by more only where the probes of a path would be more
//! than a quarter of a second for each path apart, and never by more than a quarter for each path.
//! What a probe finds replaces what was remembered. A path that has one request where the best has many
//! gets a second one as rarely: with one at a time *g* is its latency, however many it could work on, and
//! by that it would never be given two.
//!
//! Keeps true: failures, however fast, make no path attractive; one interval, however long (a
//! suspended machine, a jump of the clock), weighs no more than 64 usual ones or 10 ms; a flush is
//! not measured. Not here: hedging, timeouts.

use std::time::Duration;

use storage_mapping::{Instant, PathIndex};

use super::in_flight::Load;
use super::{PathSelector, Score, ScoreUnit};
use crate::path_state::{PATH_COUNT_MAX, PathSet};

/// Samples that a mean remembers.
const SAMPLES_MAX: f64 = 32.0;
/// A sample that comes this long after the one before weighs as much as all before it.
const MEMORY_NS: f64 = 10e9;
/// Relative difference to the best within which paths are equal.
const TIE: f64 = 1.0 / 8.0;
/// A mean is known to this many times its mean deviation, divided by the root of the samples.
const ERRORS: f64 = 2.0;
/// Mean deviation of a path of which one sample is known, as a part of it.
const FIRST_DEVIATION: f64 = 0.25;
/// Mean deviations above the mean from which on a silent path is overdue.
const OVERDUE_DEVIATIONS: f64 = 4.0;
/// The longest interval that is believed at once: so many usual ones, or so many nanoseconds.
const INTERVAL_MAX: f64 = 64.0;
const INTERVAL_MAX_NS: f64 = 10e6;
/// The interval of a path while nothing is known of any.
const FIRST_INTERVAL_NS: f64 = 1e6;
/// An idle path rests so many times the delay that its probe causes, for each path of the device.
const PROBE_REST: f64 = 16.0;
/// But not longer than this, for each path of the device,
const PROBE_REST_MAX_NS: f64 = 250e6;
/// unless that is less than so many times what the probe takes.
const PROBE_REST_MIN: f64 = 4.0;
/// A path with one request is probed with a second one only where the best path has so many.
const CROWD: u64 = 4;
/// Spread of sizes, in bytes squared, below which no time per byte is learnt.
const SIZE_VARIANCE_MIN: f64 = 256.0 * 256.0;

/// What is known of one path. Times in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Model {
    load: Load,
    /// When it last gave something back, or became busy after that.
    progress: Instant,
    /// When it last was given a request beside others.
    crowded: Instant,
    /// When the last sample was taken.
    learnt: Instant,
    /// Samples in the means.
    samples: f64,
    interval: f64,
    /// Mean distance of intervals from what was expected.
    deviation: f64,
    /// What the mean interval may be off by.
    error: f64,
    bytes_mean: f64,
    bytes_variance: f64,
    covariance: f64,
    ns_per_byte: f64,
    /// The next sample answers a probe.
    is_probed: bool,
    /// Turns that it had.
    turns: u64,
}

/// When a request would complete, from now.
#[derive(Clone, Copy, Debug, Default)]
struct Estimate {
    time: f64,
    /// What the time may be off by.
    error: f64,
}

impl Model {
    /// Nothing is known, and counted is what is sent from `now` on.
    fn unknown(now: Instant, turns: u64) -> Self {
        Self { load: Load::since(now), progress: now, crowded: now, learnt: now, turns, ..Self::default() }
    }

    /// A path of which nothing is known is taken for one with `unknown_interval`.
    fn estimate(&self, now: Instant, bytes: usize, unknown_interval: f64) -> Estimate {
        let requests = (self.load.requests + 1) as f64;
        let silence = if self.load.requests == 0 { 0.0 } else { elapsed(now, self.progress) };
        if self.samples == 0.0 {
            let time = requests * unknown_interval + (silence - unknown_interval).max(0.0);
            return Estimate { time, error: requests * unknown_interval * FIRST_DEVIATION };
        }
        let surplus_bytes = self.load.bytes as f64 + bytes as f64 - requests * self.bytes_mean;
        let queue = requests * self.interval + self.ns_per_byte * surplus_bytes;
        let usual = self.interval + OVERDUE_DEVIATIONS * self.deviation;
        Estimate { time: queue + (silence - usual).max(0.0), error: requests * self.error }
    }

    /// Takes in an interval that ended with a request of `bytes`.
    fn learn(&mut self, now: Instant, interval: f64, bytes: usize) {
        let bytes = bytes as f64;
        if self.samples == 0.0 || self.is_probed {
            *self = Self {
                samples: 1.0,
                interval,
                deviation: interval * FIRST_DEVIATION,
                bytes_mean: bytes,
                ..Self {
                    load: self.load,
                    progress: self.progress,
                    crowded: self.crowded,
                    ..Self::unknown(now, self.turns)
                }
            };
        } else {
            let interval = interval.min((INTERVAL_MAX * self.interval).max(INTERVAL_MAX_NS));
            let age = elapsed(now, self.learnt);
            if age * self.samples > MEMORY_NS {
                // The weight below is then age / (age + memory).
                self.samples = MEMORY_NS / age;
            }
            let weight = 1.0 / (self.samples + 1.0);
            self.samples = (self.samples + 1.0).min(SAMPLES_MAX - 1.0);
            self.add(interval, bytes, weight);
        }
        self.learnt = now;
        self.error = ERRORS * self.deviation / self.samples.sqrt();
    }

    /// Moves the means.
    fn add(&mut self, interval: f64, bytes: f64, weight: f64) {
        let (surplus, surplus_bytes) = (interval - self.interval, bytes - self.bytes_mean);
        let unexpected = surplus - self.ns_per_byte * surplus_bytes;
        self.deviation += weight * (unexpected.abs() - self.deviation);
        self.interval += weight * surplus;
        self.bytes_mean += weight * surplus_bytes;
        let rest = 1.0 - weight;
        self.bytes_variance = rest * (self.bytes_variance + weight * surplus_bytes * surplus_bytes);
        self.covariance = rest * (self.covariance + weight * surplus_bytes * surplus);
        self.ns_per_byte = if self.bytes_variance < SIZE_VARIANCE_MIN {
            0.0
        } else {
            // With more than the whole interval for the bytes, short requests would take less than none.
            (self.covariance / self.bytes_variance).clamp(0.0, self.interval / self.bytes_mean)
        };
    }

    /// Whether an idle path, or one that has one request where the best path has `crowd`, has rested long enough for a
    /// probe that takes `time`, which is `delay` more than the best path would take. Of a path that never has two it is
    /// not seen how many it works on at once: it would be taken for as slow as its latency, and so never have two.
    fn is_probe_due(&self, now: Instant, time: f64, delay: f64, path_count: f64, crowd: u64) -> bool {
        let rested = match self.load.requests {
            0 => self.progress,
            1 if crowd >= CROWD => self.crowded,
            _ => return false,
        };
        let rest = path_count * (PROBE_REST * delay).min(PROBE_REST_MAX_NS);
        elapsed(now, rested) >= rest.max(PROBE_REST_MIN * time)
    }
}

/// Chooses the path on which the request is estimated to complete first.
#[derive(Clone, Debug)]
pub struct Latency {
    models: Vec<Model>,
    /// Of the last choice; kept here so that they need not be cleared each time.
    estimates: Vec<Estimate>,
    /// The turns that the last one chosen had before.
    turns: u64,
    /// What a path is taken for of which nothing is known: the mean of all others.
    unknown_interval: f64,
    is_anything_known: bool,
    /// The path that was chosen to see whether it has healed.
    probe: Option<PathIndex>,
}

impl Latency {
    /// Knows nothing yet, and counts what is sent from `now` on.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            models: vec![Model::unknown(now, 0); PATH_COUNT_MAX],
            estimates: vec![Estimate::default(); PATH_COUNT_MAX],
            turns: 0,
            unknown_interval: FIRST_INTERVAL_NS,
            is_anything_known: false,
            probe: None,
        }
    }

    /// One of those that are equal to the best, which has `crowd` requests, or one that is to be probed.
    fn choose(&mut self, now: Instant, candidates: PathSet, best: Estimate, crowd: u64) -> Option<PathIndex> {
        let limit = best.time * (1.0 + TIE) + best.error;
        let path_count = candidates.len() as f64;
        let mut chosen: Option<((u64, u64), PathIndex)> = None;
        self.probe = None;
        for path in candidates.iter_from(PathIndex(0)) {
            let (estimate, model) = (self.estimates[path.0], &self.models[path.0]);
            if estimate.time - estimate.error <= limit {
                let rank = (model.load.requests, model.turns);
                if chosen.is_none_or(|(first, _)| rank < first) {
                    chosen = Some((rank, path));
                }
            } else if model.is_probe_due(now, estimate.time, estimate.time - best.time, path_count, crowd)
                && self.probe.is_none_or(|other| model.progress < self.models[other.0].progress)
            {
                self.probe = Some(path);
            }
        }
        self.probe.or(chosen.map(|(_, path)| path))
    }
}

impl PathSelector for Latency {
    fn select_path(&mut self, now: Instant, candidates: PathSet, bytes: usize) -> Option<PathIndex> {
        let (mut best, mut crowd) = (Estimate { time: f64::INFINITY, ..Estimate::default() }, 0);
        for path in candidates.iter_from(PathIndex(0)) {
            let model = &self.models[path.0];
            let estimate = model.estimate(now, bytes, self.unknown_interval);
            if estimate.time < best.time {
                (best, crowd) = (estimate, model.load.requests);
            }
            self.estimates[path.0] = estimate;
        }
        self.choose(now, candidates, best, crowd)
    }

    fn start_io(&mut self, now: Instant, path: PathIndex, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let model = &mut self.models[path.0];
        if model.load.requests == 0 {
            model.progress = now;
        } else {
            model.crowded = now;
        }
        if self.probe.take() == Some(path) {
            model.is_probed = true;
        }
        // Who was away for long has one turn to catch up, not all that it missed.
        self.turns = self.turns.max(model.turns);
        model.turns = self.turns + 1;
        model.load.start(bytes);
    }

    fn end_io(&mut self, now: Instant, path: PathIndex, bytes: usize, took: Duration, is_success: bool) {
        let model = &mut self.models[path.0];
        if bytes == 0 || !model.load.end(now, bytes, took) {
            return;
        }
        let interval = nanoseconds(took).min(elapsed(now, model.progress));
        if is_success || interval > model.interval {
            model.progress = now;
            model.learn(now, interval, bytes);
            let weight = if self.is_anything_known { 1.0 / SAMPLES_MAX } else { 1.0 };
            self.is_anything_known = true;
            self.unknown_interval += weight * (model.interval - self.unknown_interval);
        }
    }

    fn fail_path(&mut self, _now: Instant, _path: PathIndex) {}

    fn reinstate_path(&mut self, now: Instant, path: PathIndex) {
        self.models[path.0] = Model::unknown(now, self.models[path.0].turns);
    }

    fn score(&self, now: Instant, path: PathIndex, bytes: usize) -> Score {
        let estimate = self.models[path.0].estimate(now, bytes, self.unknown_interval);
        // This conversion saturates.
        Score { value: estimate.time as i64, unit: ScoreUnit::Nanoseconds }
    }
}

/// Nanoseconds from `since` to `now`, or 0 where that is later.
fn elapsed(now: Instant, since: Instant) -> f64 {
    now.0.saturating_sub(since.0) as f64
}

fn nanoseconds(duration: Duration) -> f64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX) as f64
}

#[cfg(test)]
mod tests {
    use super::super::tests::{T0, first};
    use super::*;

    const A: PathIndex = PathIndex(0);
    const B: PathIndex = PathIndex(1);
    const BLOCK: usize = 4096;

    /// A selector with a clock.
    struct Clocked {
        selector: Latency,
        now: Instant,
    }

    impl Clocked {
        fn new() -> Self {
            Self { selector: Latency::new(T0), now: T0 }
        }

        fn wait(&mut self, micros: u64) {
            self.now = self.now + Duration::from_micros(micros);
        }

        fn start(&mut self, path: PathIndex, bytes: usize) {
            self.selector.start_io(self.now, path, bytes);
        }

        fn end(&mut self, path: PathIndex, bytes: usize, micros: u64, is_success: bool) {
            self.selector.end_io(self.now, path, bytes, Duration::from_micros(micros), is_success);
        }

        /// So many requests over a path, one after the other.
        fn carry(&mut self, path: PathIndex, bytes: usize, micros: u64, count: usize) {
            for _ in 0..count {
                self.start(path, bytes);
                self.wait(micros);
                self.end(path, bytes, micros, true);
            }
        }

        fn select(&mut self) -> PathIndex {
            self.selector.select_path(self.now, first(2), BLOCK).unwrap()
        }

        fn micros(&self, path: PathIndex, bytes: usize) -> i64 {
            self.selector.score(self.now, path, bytes).value / 1000
        }
    }

    #[test]
    fn one_after_the_other_the_interval_is_the_latency_and_a_queue_multiplies_it() {
        let mut test = Clocked::new();
        test.carry(A, BLOCK, 100, 50);
        assert_eq!(test.micros(A, BLOCK), 100);
        (0..9).for_each(|_| test.start(A, BLOCK));
        assert_eq!(test.micros(A, BLOCK), 1000);
        assert_eq!(test.micros(B, BLOCK), 100, "unknown, so like the others");
    }

    #[test]
    fn of_many_at_once_the_last_is_no_later_than_the_first() {
        let mut test = Clocked::new();
        for _ in 0..20 {
            (0..10).for_each(|_| test.start(A, BLOCK));
            test.wait(100);
            (0..10).for_each(|_| test.end(A, BLOCK, 100, true));
        }
        (0..9).for_each(|_| test.start(A, BLOCK));
        let last = test.micros(A, BLOCK);
        assert!((60..=200).contains(&last), "10 at once take 100 µs: {last}");
    }

    #[test]
    fn long_requests_take_what_their_bytes_take() {
        let mut test = Clocked::new();
        for _ in 0..100 {
            test.carry(A, BLOCK, 50 + 10, 3);
            test.carry(A, 32 * BLOCK, 50 + 320, 1);
        }
        let (short, long) = (test.micros(A, BLOCK), test.micros(A, 32 * BLOCK));
        assert!((55..=65).contains(&short) && (360..=380).contains(&long), "{short} and {long}");
    }

    #[test]
    fn about_equal_paths_take_turns_and_later_ones_do_not() {
        for (other, turns) in [(101, 48..=52), (112, 48..=52), (130, 0..=40), (300, 0..=4)] {
            let mut test = Clocked::new();
            test.carry(A, BLOCK, 100, 50);
            test.carry(B, BLOCK, other, 50);
            let mut count = 0;
            for _ in 0..100 {
                let path = test.select();
                count += path.0;
                test.carry(path, BLOCK, if path == A { 100 } else { other }, 1);
            }
            assert!(turns.contains(&count), "{other} µs: {count}");
        }
    }

    #[test]
    fn a_silent_path_is_later_with_every_moment() {
        let mut test = Clocked::new();
        test.carry(A, BLOCK, 100, 50);
        test.carry(B, BLOCK, 100, 50);
        test.start(A, BLOCK);
        assert_eq!(test.micros(A, BLOCK), 200);
        test.wait(5000);
        let hung = test.micros(A, BLOCK);
        assert!((5000..5200).contains(&hung), "{hung}");
        for _ in 0..20 {
            assert_eq!(test.select(), B);
            test.carry(B, BLOCK, 100, 1);
        }
        test.end(A, BLOCK, 7000, true);
        assert!(test.micros(A, BLOCK) < 1000, "one long interval in fifty");
    }

    #[test]
    fn failures_make_no_path_attractive_and_flushes_count_for_nothing() {
        let mut test = Clocked::new();
        test.carry(A, BLOCK, 100, 50);
        test.carry(B, BLOCK, 100, 50);
        for _ in 0..50 {
            test.start(A, BLOCK);
            test.wait(1);
            test.end(A, BLOCK, 1, false);
        }
        assert_eq!(test.micros(A, BLOCK), 100);
        test.start(A, BLOCK);
        test.wait(3000);
        test.end(A, BLOCK, 3000, false);
        assert!(test.micros(A, BLOCK) > 150, "a slow failure is slow");
        let before = test.selector.clone();
        test.start(B, 0);
        test.end(B, 0, 1_000_000, true);
        assert_eq!(format!("{:?}", test.selector), format!("{before:?}"));
    }

    #[test]
    fn an_idle_slow_path_is_probed_seldom_and_found_healed_at_once() {
        let mut test = Clocked::new();
        test.carry(A, BLOCK, 100, 50);
        test.carry(B, BLOCK, 1100, 50);
        let mut chosen = [0, 0];
        for _ in 0..3200 {
            let path = test.select();
            chosen[path.0] += 1;
            test.carry(path, BLOCK, if path == A { 100 } else { 1100 }, 1);
        }
        // 2 paths · 16 · 1 ms of rest, in which A carries 320 requests.
        assert!((9..=10).contains(&chosen[1]), "{chosen:?}");
        let mut count = 0;
        while test.select() == A {
            test.carry(A, BLOCK, 100, 1);
            count += 1;
        }
        test.carry(B, BLOCK, 100, 1);
        assert!(count <= 320, "{count}");
        let turns: Vec<_> = (0..6)
            .map(|_| {
                let path = test.select();
                test.carry(path, BLOCK, 100, 1);
                path.0
            })
            .collect();
        assert_eq!(turns.iter().sum::<usize>(), 3, "half each: {turns:?}");
    }

    /// It takes one at a time for as slow as many at once take each: the second shows that it is not.
    #[test]
    fn a_path_with_one_request_at_a_time_is_tried_with_two_where_the_other_has_many() {
        for (on_the_other, is_tried) in [(20, true), (2, false)] {
            let mut test = Clocked::new();
            test.carry(A, BLOCK, 100, 50);
            (0..on_the_other).for_each(|_| test.start(B, BLOCK));
            for _ in 0..200 {
                test.wait(100 / on_the_other);
                test.end(B, BLOCK, 100, true);
                test.start(B, BLOCK);
            }
            assert!(test.micros(A, BLOCK) <= 101 && test.micros(B, BLOCK) <= 160);
            test.start(A, BLOCK);
            test.wait(100 / on_the_other);
            test.end(B, BLOCK, 100, true);
            assert_eq!(test.select() == A, is_tried, "{on_the_other}");
        }
    }

    #[test]
    fn a_reinstated_path_is_unknown_and_owes_nothing() {
        let mut test = Clocked::new();
        test.carry(A, BLOCK, 100, 50);
        test.carry(B, BLOCK, 5000, 50);
        (0..9).for_each(|_| test.start(B, BLOCK));
        test.wait(1000);
        test.selector.reinstate_path(test.now, B);
        assert!(test.micros(B, BLOCK) < 5000);
        test.start(B, BLOCK);
        test.end(B, BLOCK, 500, true);
        assert_eq!(test.selector.models[1].load.requests, 1, "what was sent before is not counted");
    }
}
