//! Which path is slow: for long, and far beyond what the others of its group are.
//!
//! Of each path the mean time of its I/O is followed. A path whose every I/O takes more than the *limit* (so many times the
//! median of the others' means, and a time beyond it) for so long is slow. It comes back when every probe takes less than half
//! of the limit for so long.
//!
//! ```text
//!            each I/O above the limit, for `after`
//!   in use ──────────────────────────────────────▶ slow
//!      ▲                                             │
//!      └──── each probe below half of the limit ─────┘
//!                    for `back_after`
//! ```
//!
//! Keeps true: a path alone is never slow, nor are most paths of a group, for the limit is made by the others; one I/O that is
//! quick begins everything anew, so that a path of which only some I/O is late (hedging is for that) stays; nothing is allocated.
//!
//! The numbers (10 × the median and 1 ms more, 10 s, 8 I/Os, back after 2 s). A selector that looks at latency gives a slow path
//! little anyway; what it still gets, probes of the selector among it, waits long. Ten times is what no choice of paths makes good:
//! below it a path may carry its share of the throughput. Queues are in the times: where paths are chosen by latency or load, a
//! throttled path that is fully used has the same times as the others and is not slow. Back after 2 s and so within 5 s of
//! healing, as for one that the selector alone left. Not here: what is done with a slow path (`failover`).

use std::time::Duration;

use storage_mapping::{Instant, PathIndex};

use crate::path_state::{PATH_COUNT_MAX, PathSet};

/// Limits are made anew after this time.
const LIMITS_EVERY: Duration = Duration::from_millis(100);
/// The mean remembers about so many samples.
const MEMORY: u64 = 8;

/// The numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowPathConfig {
    /// Whether slow paths are looked for at all.
    pub enabled: bool,
    /// The limit, in medians of the other paths' means.
    pub factor: u32,
    /// The limit is at least so much beyond the median.
    pub excess_min: Duration,
    /// How long every I/O must be above the limit,
    pub after: Duration,
    /// and how many there must be.
    pub samples_min: u32,
    /// How long every probe of a slow path must be below half of the limit.
    pub back_after: Duration,
}

impl Default for SlowPathConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            factor: 10,
            excess_min: Duration::from_millis(1),
            after: Duration::from_secs(10),
            samples_min: 8,
            back_after: Duration::from_secs(2),
        }
    }
}

/// How slow a path is, beside the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slowness {
    /// The mean time of its I/O.
    pub mean: Duration,
    /// The median of the means of the others.
    pub others: Duration,
}

/// What is known of one path. Times in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Path {
    mean: u64,
    samples: u32,
    /// The median of the others' means; 0 where nothing is known of them.
    others: u64,
    /// What one I/O may take by that.
    limit: Option<u64>,
    /// Since when every I/O is above the limit, or every probe of a slow path below half of it.
    since: Option<Instant>,
    /// How many these are.
    streak: u32,
}

/// What is known of the paths of a device.
#[derive(Clone, Debug)]
pub struct SlowPaths {
    config: SlowPathConfig,
    paths: Vec<Path>,
    limits_at: Instant,
}

impl SlowPaths {
    /// So many paths of which nothing is known.
    #[must_use]
    pub fn new(config: SlowPathConfig, count: usize) -> Self {
        Self { config, paths: vec![Path::default(); count.min(PATH_COUNT_MAX)], limits_at: Instant::ZERO }
    }

    /// I/O over a path in use was done and took so long; `group` are the paths in use that it is compared with. Says how slow
    /// the path is if that makes it a slow one.
    ///
    /// # Panics
    /// If there is no such path.
    pub fn handle_done(
        &mut self,
        now: Instant,
        path: PathIndex,
        took: Duration,
        group: PathSet,
    ) -> Option<Slowness> {
        // What a path still had when it was left says nothing new.
        if !self.config.enabled || !group.contains(path) {
            return None;
        }
        let nanos = nanos_of(took);
        let place = &mut self.paths[path.0];
        place.mean =
            if place.samples == 0 { nanos } else { place.mean - place.mean / MEMORY + nanos / MEMORY };
        place.samples = place.samples.saturating_add(1);
        if now >= self.limits_at {
            self.make_limits(group);
            self.limits_at = now + LIMITS_EVERY;
        }
        let SlowPathConfig { after, samples_min, .. } = self.config;
        let place = &mut self.paths[path.0];
        if nanos < place.limit? {
            place.since = None;
            return None;
        }
        let lasts = place.lasts(now);
        if lasts < after || place.streak < samples_min {
            return None;
        }
        place.since = None;
        Some(Slowness { mean: Duration::from_nanos(place.mean), others: Duration::from_nanos(place.others) })
    }

    /// A slow path answered a probe in this time. Says whether it is well now.
    ///
    /// # Panics
    /// If there is no such path.
    pub fn handle_probe(&mut self, now: Instant, path: PathIndex, took: Duration) -> bool {
        // Where nothing is known of the others it is not known to be slow.
        let place = &mut self.paths[path.0];
        let Some(limit) = place.limit else { return true };
        if nanos_of(took) >= limit / 2 {
            place.since = None;
            return false;
        }
        place.lasts(now) >= self.config.back_after
    }

    /// What was known of the path is over.
    ///
    /// # Panics
    /// If there is no such path.
    pub fn forget_path(&mut self, path: PathIndex) {
        self.paths[path.0] = Path::default();
    }

    /// What one I/O may take where the median of the others' means is this, if that is known.
    fn limit(&self, others: u64) -> Option<u64> {
        let beyond = others.saturating_add(nanos_of(self.config.excess_min));
        (others > 0).then(|| others.saturating_mul(u64::from(self.config.factor)).max(beyond))
    }

    /// The median of the others' means, for each path of the group.
    fn make_limits(&mut self, group: PathSet) {
        let mut known = [(0, PathIndex(0)); PATH_COUNT_MAX];
        let mut count = 0;
        for path in group.iter().filter(|path| self.paths[path.0].samples > 0) {
            known[count] = (self.paths[path.0].mean.max(1), path);
            count += 1;
        }
        let known = &mut known[..count];
        known.sort_unstable();
        // The upper of two: of two others both must be quick.
        let middle = count.saturating_sub(1) / 2;
        for (place, (_, path)) in known.iter().enumerate() {
            let middle = if middle >= place { middle + 1 } else { middle };
            let others = known.get(middle).map_or(0, |(mean, _)| *mean);
            let limit = self.limit(others);
            let place = &mut self.paths[path.0];
            (place.others, place.limit) = (others, limit);
        }
    }
}

impl Path {
    /// One more of a kind: since when they all were.
    fn lasts(&mut self, now: Instant) -> Duration {
        if self.since.is_none() {
            (self.since, self.streak) = (Some(now), 0);
        }
        self.streak = self.streak.saturating_add(1);
        self.since.map_or(Duration::ZERO, |since| now.since(since))
    }
}

fn nanos_of(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn group(count: usize) -> PathSet {
        (0..count).map(PathIndex).collect()
    }

    /// Each path does one I/O in each 10 ms, of so many milliseconds each; gives when the first is found slow.
    fn found(latencies: &[u64], seconds: u64, odd: impl Fn(u64, usize) -> bool) -> Option<(u64, usize)> {
        let mut slow = SlowPaths::new(SlowPathConfig::default(), latencies.len());
        for turn in 0..seconds * 100 {
            let now = Instant(turn * 10 * MS);
            for (path, latency) in latencies.iter().enumerate() {
                let latency = if odd(turn, path) { 1 } else { *latency };
                let took = Duration::from_millis(latency);
                if slow.handle_done(now, PathIndex(path), took, group(latencies.len())).is_some() {
                    return Some((now.0 / MS, path));
                }
            }
        }
        None
    }

    fn never(_: u64, _: usize) -> bool {
        false
    }

    #[test]
    fn a_path_that_is_ten_times_slower_for_ten_seconds_is_slow() {
        let (at, path) = found(&[1, 20, 1, 1], 60, never).unwrap();
        assert!(path == 1 && (10_000..10_200).contains(&at), "{at}");
        assert_eq!(found(&[1, 9, 1, 1], 60, never), None, "nine times is not ten");
        assert!(found(&[1, 20], 60, never).is_some(), "two paths are enough");
        assert!(found(&[20, 1, 20, 1], 60, never).is_some());
    }

    #[test]
    fn none_is_slow_where_most_are_or_all_or_where_it_is_alone() {
        assert_eq!(found(&[20], 60, never), None);
        assert_eq!(found(&[20, 20, 20, 20], 60, never), None);
        assert_eq!(found(&[20, 20, 1], 60, never), None);
    }

    #[test]
    fn one_quick_answer_in_ten_seconds_is_enough() {
        assert_eq!(found(&[1, 20, 1], 60, |turn, _| turn % 900 == 899), None);
        assert!(found(&[1, 20, 1], 60, |turn, _| turn % 1200 == 1199).is_some());
    }

    #[test]
    fn microseconds_make_no_path_slow_and_few_answers_neither() {
        let mut slow = SlowPaths::new(SlowPathConfig::default(), 2);
        for turn in 0..10_000_u64 {
            let now = Instant(turn * 10 * MS);
            let quick = slow.handle_done(now, PathIndex(0), Duration::from_micros(10), group(2));
            let other = slow.handle_done(now, PathIndex(1), Duration::from_micros(900), group(2));
            assert_eq!((quick, other), (None, None));
        }
        let mut slow = SlowPaths::new(SlowPathConfig::default(), 2);
        let mut found = 0;
        for second in (0..70).step_by(10) {
            let now = Instant(second * 1000 * MS);
            slow.handle_done(now, PathIndex(0), Duration::from_millis(1), group(2));
            found +=
                u32::from(slow.handle_done(now, PathIndex(1), Duration::from_secs(1), group(2)).is_some());
        }
        assert_eq!(found, 0, "seven answers in a minute");
    }

    #[test]
    fn a_slow_path_is_back_when_it_was_well_for_two_seconds() {
        let mut slow = SlowPaths::new(SlowPathConfig::default(), 2);
        for _ in 0..2 {
            slow.handle_done(Instant(0), PathIndex(1), Duration::from_millis(50), group(2));
            slow.handle_done(Instant(200 * MS), PathIndex(0), Duration::from_millis(1), group(2));
        }
        let mut probe = |second: u64, millis| {
            slow.handle_probe(Instant(second * 1000 * MS), PathIndex(1), Duration::from_millis(millis))
        };
        assert_eq!([probe(1, 50), probe(2, 1), probe(3, 6), probe(4, 4), probe(5, 1)], [false; 5]);
        assert!(probe(6, 1));
    }

    #[test]
    fn switched_off_it_finds_nothing() {
        let config = SlowPathConfig { enabled: false, ..SlowPathConfig::default() };
        let mut slow = SlowPaths::new(config, 2);
        for turn in 0..5000 {
            let now = Instant(turn * 10 * MS);
            assert_eq!(slow.handle_done(now, PathIndex(0), Duration::from_millis(1), group(2)), None);
            assert_eq!(slow.handle_done(now, PathIndex(1), Duration::from_secs(1), group(2)), None);
        }
    }
}
