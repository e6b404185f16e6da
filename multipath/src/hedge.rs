//! When a read is sent a second time, over another path, because its own takes long.
//!
//! Three things must agree before a hedge is sent:
//!
//! * **the delay**: the read has taken longer than one and a half times the 95th percentile of its own
//!   path;
//! * **the budget**: a token bucket that every read feeds and every hedge empties;
//! * **the trial**: hedges of this path have been worth it. If the target is slow and not the path, the
//!   hedge is slow too and loses; then this path pauses, for twice as long each time, and tries again
//!   with a few.
//!
//! Keeps true: of all reads so far, at most [`HedgeConfig::budget_permille`] were hedged, and of those in
//! any span at most [`HedgeConfig::burst`] more; none for a path of which fewer than [`READS_MIN`] reads
//! are known; switched off, it keeps no numbers and answers before it looks at any. Nothing is allocated.
//!
//! The numbers. Where 1 % of the reads of a path take 100 ms and the others 0.2 ms, p95 is 0.2 ms: the
//! hedge goes out at 0.3 ms and is back at 0.5 ms, 2.5 times the healthy p99.9, for 0.25 % of the reads of
//! four paths. p99 would not do as a measure: of such a path it is 0.2 or 100 ms by chance. With service
//! times as uneven as an exponential distribution, one and a half p95 (4.5 means) are passed by 1.1 % of
//! the reads; the budget of 2 % holds where more would be. A path goes on while a quarter of its last 16
//! hedges won, and after a pause of the first 4: then four extra reads cut a slow one short.
//! The percentile is followed by steps (up by 19 / 20 of 1 / 64 where a read is above, down by 1 / 20 of
//! it where it is below): no memory, within 2 % where latency is even, ten times up in 160 reads.
//! Not here: the other path, the second buffer, and what becomes of the loser.

use std::time::Duration;

use storage_mapping::{Instant, PathIndex};

use crate::path_state::PATH_COUNT_MAX;

/// Reads of a path before it is known well enough.
pub const READS_MIN: u32 = 100;
/// Reads that move the percentile by large steps.
const READS_COARSE: u32 = 64;
/// What one hedge takes from the bucket.
const HEDGE_COST: u64 = 1000;
/// Hedges that are looked back upon.
const TRIAL: u32 = 16;
/// Hedges in a trial after a pause.
const TRIAL_AGAIN: u32 = 4;

/// The numbers of hedging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HedgeConfig {
    /// Whether reads are hedged at all.
    pub enabled: bool,
    /// Hedges per thousand reads.
    pub budget_permille: u32,
    /// Hedges that may be saved up.
    pub burst: u32,
    /// The delay in hundredths of the 95th percentile of the path.
    pub delay_percent: u32,
    /// No hedge is sent earlier.
    pub delay_min: Duration,
    /// The first pause after hedges that were not worth it.
    pub pause: Duration,
    /// The longest.
    pub pause_max: Duration,
}

impl Default for HedgeConfig {
    /// Off: a second read is a load that the owner of the storage has to want.
    fn default() -> Self {
        Self {
            enabled: false,
            budget_permille: 20,
            burst: 16,
            delay_percent: 150,
            delay_min: Duration::from_micros(50),
            pause: Duration::from_secs(1),
            pause_max: Duration::from_secs(60),
        }
    }
}

/// Who answered first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HedgeOutcome {
    /// The hedge.
    Won,
    /// The first read, or both failed.
    Lost,
}

/// What is known of one path.
#[derive(Clone, Copy, Debug, Default)]
struct Path {
    /// The 95th percentile of its reads.
    p95_nanos: u64,
    reads: u32,
    /// The last hedges, one bit each, 1 for those that won.
    won: u32,
    /// How many of these bits count.
    hedges: u32,
    /// Sent, and not known yet.
    open: u32,
    paused_until: Option<Instant>,
    /// Pauses in a row.
    pauses: u32,
}

/// The decisions about hedged reads of one device.
#[derive(Clone, Debug)]
pub struct Hedge {
    config: HedgeConfig,
    paths: [Path; PATH_COUNT_MAX],
    /// In thousandths of a hedge.
    budget: u64,
}

impl Hedge {
    /// Knows no path yet, and has no budget.
    #[must_use]
    pub fn new(config: HedgeConfig) -> Self {
        Self { config, paths: [Path::default(); PATH_COUNT_MAX], budget: 0 }
    }

    /// A read is sent over `path`: when to think of a hedge, if it has not come back by then.
    ///
    /// # Panics
    /// If `path` is not below [`PATH_COUNT_MAX`].
    pub fn hedge_at(&mut self, path: PathIndex, now: Instant) -> Option<Instant> {
        if !self.config.enabled {
            return None;
        }
        let full = u64::from(self.config.burst) * HEDGE_COST;
        self.budget = (self.budget + u64::from(self.config.budget_permille.min(1000))).min(full);
        let entry = &self.paths[path.0];
        if entry.reads < READS_MIN || entry.is_paused(now) {
            return None;
        }
        let nanos = entry.p95_nanos / 100 * u64::from(self.config.delay_percent.min(10_000));
        Some(now + Duration::from_nanos(nanos).max(self.config.delay_min))
    }

    /// The time has come and the read is not back: whether to send the hedge. If so, its end must be
    /// told by [`handle_hedge`](Self::handle_hedge).
    ///
    /// # Panics
    /// As [`hedge_at`](Self::hedge_at).
    pub fn try_hedge(&mut self, path: PathIndex, now: Instant) -> bool {
        let entry = &mut self.paths[path.0];
        if !self.config.enabled || entry.is_paused(now) || entry.open >= entry.open_max() {
            return false;
        }
        let Some(rest) = self.budget.checked_sub(HEDGE_COST) else { return false };
        self.budget = rest;
        entry.open += 1;
        true
    }

    /// A read over `path` took so long; one that lost against its hedge too, when it comes back.
    ///
    /// # Panics
    /// As [`hedge_at`](Self::hedge_at).
    pub fn handle_read(&mut self, path: PathIndex, service_time: Duration) {
        if self.config.enabled {
            self.paths[path.0].learn(u64::try_from(service_time.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    /// A hedge of a read over `path` is over.
    ///
    /// # Panics
    /// As [`hedge_at`](Self::hedge_at).
    pub fn handle_hedge(&mut self, path: PathIndex, now: Instant, outcome: HedgeOutcome) {
        let HedgeConfig { pause, pause_max, .. } = self.config;
        let entry = &mut self.paths[path.0];
        entry.open = entry.open.saturating_sub(1);
        if entry.is_paused(now) {
            return;
        }
        entry.won = (entry.won << 1) | u32::from(outcome == HedgeOutcome::Won);
        entry.hedges = (entry.hedges + 1).min(TRIAL);
        let seen = entry.won & ((1 << entry.hedges) - 1);
        let is_worth_it = seen.count_ones() * 4 >= entry.hedges;
        if entry.hedges < entry.trial() {
            return;
        }
        if is_worth_it {
            entry.pauses = 0;
            return;
        }
        let pause = pause.saturating_mul(1 << entry.pauses.min(16)).min(pause_max);
        entry.paused_until = Some(now + pause);
        entry.pauses += 1;
        (entry.won, entry.hedges) = (0, 0);
    }

    /// What was learnt of a path no longer holds: it was out of use.
    ///
    /// # Panics
    /// As [`hedge_at`](Self::hedge_at).
    pub fn forget_path(&mut self, path: PathIndex) {
        let open = self.paths[path.0].open;
        self.paths[path.0] = Path { open, ..Path::default() };
    }

    /// The 95th percentile of the reads of a path, once it is known well enough.
    ///
    /// # Panics
    /// As [`hedge_at`](Self::hedge_at).
    #[must_use]
    pub fn p95(&self, path: PathIndex) -> Option<Duration> {
        let entry = &self.paths[path.0];
        (entry.reads >= READS_MIN).then(|| Duration::from_nanos(entry.p95_nanos))
    }

    /// Whether hedges of a path were not worth it lately.
    ///
    /// # Panics
    /// As [`hedge_at`](Self::hedge_at).
    #[must_use]
    pub fn is_paused(&self, path: PathIndex, now: Instant) -> bool {
        self.paths[path.0].is_paused(now)
    }
}

impl Path {
    fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }

    /// Hedges that are to be seen before they are judged.
    fn trial(&self) -> u32 {
        if self.pauses == 0 { TRIAL } else { TRIAL_AGAIN }
    }

    /// A trial has as many hedges under way as it is to see; whoever has proven worth is not bound.
    fn open_max(&self) -> u32 {
        if self.hedges < self.trial() { self.trial() - self.hedges } else { u32::MAX }
    }

    /// Moves the percentile: 19 parts up or 1 part down, so that it rests where 1 in 20 is above.
    fn learn(&mut self, nanos: u64) {
        if self.reads == 0 {
            self.p95_nanos = nanos;
        }
        let part = if self.reads < READS_COARSE { self.p95_nanos / 160 } else { self.p95_nanos / 1280 };
        let part = part.max(1);
        self.reads = self.reads.saturating_add(1);
        self.p95_nanos = if nanos > self.p95_nanos {
            self.p95_nanos.saturating_add(part.saturating_mul(19)).min(nanos)
        } else {
            (self.p95_nanos.saturating_sub(part)).max(nanos)
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::histogram::Histogram;

    const FAST: u64 = 200_000;

    #[test]
    fn it_starts_again_when_hedges_win() {
        let mut hedge = known(FAST);
        let path = PathIndex(0);
        let mut now = Instant(0);
        lose(&mut hedge, now, TRIAL);
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(hedge.hedge_at(path, now), None, "paused");
            assert!(!hedge.try_hedge(path, now));
            now = now + Duration::from_secs(pause);
            assert!(hedge.is_paused(path, Instant(now.0 - 1)) && !hedge.is_paused(path, now), "{pause} s");
            lose(&mut hedge, now, TRIAL_AGAIN);
        }
        now = now + Duration::from_secs(60);
        for _ in 0..100 {
            feed(&mut hedge);
            assert!(hedge.try_hedge(path, now), "hedges that win go on");
            hedge.handle_hedge(path, now, HedgeOutcome::Won);
        }
    }

    #[test]
    fn the_delay_follows_the_own_path() {
        let mut hedge = known(FAST);
        for _ in 0..3000 {
            hedge.handle_read(PathIndex(1), Duration::from_nanos(10 * FAST));
        }
        let delay = |hedge: &mut Hedge, path| hedge.hedge_at(PathIndex(path), Instant(0)).map(|at| at.0);
        assert_eq!(delay(&mut hedge, 0), Some(FAST / 2 * 3));
        assert_eq!(delay(&mut hedge, 1), Some(10 * FAST / 2 * 3));
        assert_eq!(delay(&mut hedge, 2), None, "not known");
        hedge.forget_path(PathIndex(1));
        assert_eq!((delay(&mut hedge, 1), hedge.p95(PathIndex(1))), (None, None));
        // A path that turns ten times slower is known as such after 160 reads.
        for _ in 0..160 {
            hedge.handle_read(PathIndex(0), Duration::from_nanos(10 * FAST));
        }
        assert!(hedge.p95(PathIndex(0)) >= Some(Duration::from_nanos(9 * FAST)));
        let mut fast = known(1000);
        assert_eq!(delay(&mut fast, 0), Some(50_000), "the least delay");
    }

    #[test]
    fn the_percentile_is_right() {
        let mut state = 3_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 11) as f64 + 1.0) / (1_u64 << 53) as f64
        };
        // Between half and one and a half of the mean; an exponential distribution.
        let wide = |uniform: f64| FAST as f64 * (0.5 + uniform);
        let exponential = |uniform: f64| FAST as f64 * -uniform.ln();
        for service in [&wide as &dyn Fn(f64) -> f64, &exponential] {
            let (mut hedge, mut exact) = (known(FAST), Histogram::new());
            let (mut sum, count) = (0.0, 20_000);
            for _ in 0..count {
                let nanos = service(uniform()) as u64;
                exact.record_nanos(nanos);
                hedge.handle_read(PathIndex(0), Duration::from_nanos(nanos));
                sum += hedge.p95(PathIndex(0)).unwrap().as_secs_f64() / f64::from(count);
            }
            let ratio = sum / exact.quantile(0.95).unwrap().as_secs_f64();
            assert!((0.93..1.07).contains(&ratio), "{ratio}");
        }
    }

    #[test]
    fn off_it_keeps_nothing() {
        let mut hedge = Hedge::new(HedgeConfig::default());
        for _ in 0..1000 {
            assert_eq!(hedge.hedge_at(PathIndex(0), Instant(0)), None);
            hedge.handle_read(PathIndex(0), Duration::from_millis(1));
            assert!(!hedge.try_hedge(PathIndex(0), Instant(0)));
        }
        assert_eq!((hedge.budget, hedge.paths[0].reads, hedge.p95(PathIndex(0))), (0, 0, None));
    }

    fn feed(hedge: &mut Hedge) {
        (0..50).for_each(|_| assert_eq!(hedge.hedge_at(PathIndex(9), Instant(0)), None));
    }

    /// Path 0 is known with reads that all took `nanos`, and the bucket is full.
    fn known(nanos: u64) -> Hedge {
        let mut hedge = Hedge::new(HedgeConfig { enabled: true, ..HedgeConfig::default() });
        for _ in 0..1000 {
            hedge.handle_read(PathIndex(0), Duration::from_nanos(nanos));
            feed(&mut hedge);
        }
        hedge
    }

    fn lose(hedge: &mut Hedge, now: Instant, count: u32) {
        for _ in 0..count {
            feed(hedge);
            assert!(hedge.try_hedge(PathIndex(0), now));
            hedge.handle_hedge(PathIndex(0), now, HedgeOutcome::Lost);
        }
    }

    proptest! {
        #[test]
        fn hedges_stay_within_the_budget(
            steps in prop::collection::vec((0..4_usize, 0..8_u8, 0..1_000_000_u64), 0..2000),
            budget_permille in 0..1500_u32, burst in 0..20_u32,
        ) {
            let config = HedgeConfig { enabled: true, budget_permille, burst, ..HedgeConfig::default() };
            let mut hedge = Hedge::new(config);
            let (mut reads, mut hedges, mut open, mut now) = (0_u64, 0_u64, [0; 4], Instant(0));
            for (path, what, nanos) in steps {
                now = now + Duration::from_nanos(nanos);
                let index = PathIndex(path);
                match what {
                    0 | 1 => {
                        reads += 1;
                        prop_assert!(hedge.hedge_at(index, now).is_none_or(|at| at > now));
                    }
                    2 => hedge.handle_read(index, Duration::from_nanos(nanos)),
                    3 if open[path] > 0 => {
                        open[path] -= 1;
                        let outcome = if nanos % 2 == 0 { HedgeOutcome::Won } else { HedgeOutcome::Lost };
                        hedge.handle_hedge(index, now, outcome);
                    }
                    _ => {
                        let sent = hedge.try_hedge(index, now);
                        hedges += u64::from(sent);
                        open[path] += u32::from(sent);
                    }
                }
                prop_assert!(hedges * 1000 <= u64::from(budget_permille.min(1000)) * reads);
            }
        }
    }
}
