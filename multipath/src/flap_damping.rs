//! How long a path that comes and goes stays out of use: a decaying penalty, as in the damping of BGP
//! routes (RFC 2439).
//!
//! Every failure of a path that was good, seen by I/O or by a probe, adds a penalty. The sum halves with
//! every half-life. At the threshold of suppression the path is no longer put back into use when it
//! answers; below the threshold of reuse it is.
//!
//! Keeps true: the penalty only falls between failures and never passes the cap, so a path that healed is
//! back within a bounded time; same events, same numbers on every machine (integers only).
//!
//! The numbers (half-life 60 s, 1000 a failure, suppressed from 1250, reused from 500, cap 4000). A path
//! that fails once is back at its first answer; one that fails twice within two half-lives
//! (1000 / 4 + 1000) is suppressed, for log2(1250 / 500) = 1.3 to log2(2000 / 500) = 2 half-lives. One that
//! fails again within a half-life after that (500 / 2 + 1000) is suppressed at once. A path that is 2 s up
//! and 2 s down for 10 minutes so comes back once if its failures are seen by probes while it is
//! suppressed, and every 96 s if they are not; both are within the goal of 8. The cap bounds the time
//! after the last failure to log2(4000 / 500) = 3 half-lives, 3 minutes. Not here: probes, and whether it
//! is the last path.

use std::time::Duration;

use storage_mapping::Instant;
use thiserror::Error;

/// The numbers of the damping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlapDampingConfig {
    /// The penalty halves in this time.
    pub half_life: Duration,
    /// What a failure adds.
    pub penalty: u32,
    /// From here on a path is suppressed.
    pub suppress: u32,
    /// Down to here.
    pub reuse: u32,
    /// No penalty is above.
    pub cap: u32,
}

impl Default for FlapDampingConfig {
    fn default() -> Self {
        Self { half_life: Duration::from_secs(60), penalty: 1000, suppress: 1250, reuse: 500, cap: 4000 }
    }
}

/// Numbers that make no sense together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FlapDampingError {
    /// The half-life is zero, or longer than a year.
    #[error("the half-life of flap damping must be above zero and at most a year")]
    HalfLife,
    /// The thresholds are not in order.
    #[error("flap damping needs 0 < reuse < suppress <= cap")]
    Thresholds,
}

/// The penalty of one path.
#[derive(Clone, Copy, Debug)]
pub struct FlapDamping {
    config: FlapDampingConfig,
    /// Right after the last failure, in 1 / 2³² of a point.
    level: u64,
    failed_at: Instant,
    is_suppressed: bool,
}

/// 2^(-i/32) in units of 1 / 2³², and 2^-1 at the end.
const DECAY: [u64; 33] = decay_table();
/// 2^(-1/32) in these units.
const DECAY_STEP: u64 = 4_202_935_003;
/// Half-lives after which nothing is left.
const HALF_LIVES_MAX: u64 = 63;
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

const fn decay_table() -> [u64; 33] {
    let mut table = [1 << 32; 33];
    let mut index = 1;
    while index < 32 {
        table[index] = (table[index - 1] * DECAY_STEP + (1 << 31)) >> 32;
        index += 1;
    }
    table[32] = 1 << 31;
    table
}

impl FlapDamping {
    /// A path that never failed.
    ///
    /// # Errors
    /// See [`FlapDampingError`].
    pub fn new(config: FlapDampingConfig) -> Result<Self, FlapDampingError> {
        if config.half_life.is_zero() || config.half_life > YEAR {
            return Err(FlapDampingError::HalfLife);
        }
        if config.reuse == 0 || config.reuse >= config.suppress || config.suppress > config.cap {
            return Err(FlapDampingError::Thresholds);
        }
        Ok(Self { config, level: 0, failed_at: Instant::ZERO, is_suppressed: false })
    }

    /// The path failed, or a probe failed after one that succeeded.
    pub fn handle_failure(&mut self, now: Instant) {
        self.release(now);
        let level = self.level_at(now).saturating_add(u64::from(self.config.penalty) << 32);
        self.level = level.min(u64::from(self.config.cap) << 32);
        self.failed_at = self.failed_at.max(now);
        self.is_suppressed |= self.level >= u64::from(self.config.suppress) << 32;
    }

    /// Whether the path may be put back into use when it answers.
    #[must_use]
    pub fn may_reinstate(&self, now: Instant) -> bool {
        !self.is_suppressed || self.level_at(now) <= u64::from(self.config.reuse) << 32
    }

    /// When the path may be put back into use, if it does not fail until then; `None` if it may now.
    #[must_use]
    pub fn reusable_at(&self, now: Instant) -> Option<Instant> {
        if self.may_reinstate(now) {
            return None;
        }
        // The penalty only falls: halve the time in between.
        let span = self.half_life() * HALF_LIVES_MAX;
        let (mut early, mut late) = (now.0, self.failed_at.0.saturating_add(span).max(now.0));
        while late - early > 1 {
            let middle = early + (late - early) / 2;
            if self.may_reinstate(Instant(middle)) {
                late = middle;
            } else {
                early = middle;
            }
        }
        Some(Instant(late))
    }

    /// The penalty, in points.
    #[must_use]
    pub fn penalty(&self, now: Instant) -> u32 {
        u32::try_from(self.level_at(now) >> 32).expect("the cap has 32 bits")
    }

    /// An operator forgives.
    pub fn clear(&mut self) {
        self.level = 0;
        self.is_suppressed = false;
    }

    fn release(&mut self, now: Instant) {
        if self.may_reinstate(now) {
            self.is_suppressed = false;
        }
    }

    fn half_life(&self) -> u64 {
        u64::try_from(self.config.half_life.as_nanos()).expect("at most a year")
    }

    /// Whole half-lives are shifts; within one, a table of 32 steps with straight lines in between,
    /// which is at most 0.006 % too high.
    fn level_at(&self, now: Instant) -> u64 {
        let (elapsed, half_life) = (now.since(self.failed_at).as_nanos(), u128::from(self.half_life()));
        let halvings = elapsed / half_life;
        if halvings >= u128::from(HALF_LIVES_MAX) {
            return 0;
        }
        // The place within the half-life in 1 / 2³², then table step and place within the step.
        let place = (((elapsed % half_life) << 32) / half_life) as u64;
        let (step, within) = ((place >> 27) as usize, place & ((1 << 27) - 1));
        let drop = ((DECAY[step] - DECAY[step + 1]) * within) >> 27;
        let factor = DECAY[step] - drop;
        ((u128::from(self.level >> halvings) * u128::from(factor)) >> 32) as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn damping() -> FlapDamping {
        FlapDamping::new(FlapDampingConfig::default()).unwrap()
    }

    fn second(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    /// A path that is 2 s up and 2 s down from the start on, with I/O over it while it is in use and a
    /// probe every 100 ms while it is not. `probes_count`: a probe that fails after a good one is told.
    /// Gives the reinstatements within `minutes`, and when it was back for good after 10 minutes.
    fn flapping(minutes: u64, probes_count: bool) -> (u32, Instant) {
        let mut damping = damping();
        let (mut in_use, mut was_up, mut reinstated) = (true, true, 0);
        let mut back = Instant::ZERO;
        for tick in 0..minutes * 600 {
            let now = Instant(tick * 100_000_000);
            let is_up = tick >= 6000 || tick % 40 < 20;
            if in_use && !is_up {
                in_use = false;
                damping.handle_failure(now);
            } else if !in_use && is_up && damping.may_reinstate(now) {
                in_use = true;
                reinstated += 1;
                back = now;
            } else if !in_use && was_up && !is_up && probes_count {
                damping.handle_failure(now);
            }
            was_up = is_up;
        }
        assert!(in_use, "a path that healed is in use in the end");
        (reinstated, back)
    }

    #[test]
    fn a_flapping_path_comes_back_at_most_eight_times() {
        let (seen, back) = flapping(15, true);
        assert_eq!(seen, 2, "once before it is suppressed, and once after it healed");
        assert!(back > second(600) && back <= second(600 + 180), "{back}");
        let (blind, back) = flapping(15, false);
        assert_eq!(blind, 7, "once at once, then every 96 s, the last one after it healed");
        assert!(back <= second(600 + 180), "{back}");
    }

    #[test]
    fn one_failure_costs_nothing_and_two_in_two_minutes_do() {
        let mut path = damping();
        for hour in 0..10 {
            path.handle_failure(second(hour * 3600));
            assert!(path.may_reinstate(second(hour * 3600)));
        }
        let start = second(100_000);
        path.handle_failure(start);
        let now = start + Duration::from_secs(119);
        path.handle_failure(now);
        let back = path.reusable_at(now).expect("it is suppressed");
        assert!((79..=80).contains(&back.since(now).as_secs()), "{}", back.since(now).as_secs());
        assert!(path.may_reinstate(back) && !path.may_reinstate(Instant(back.0 - 1)));
        path.clear();
        assert!(path.may_reinstate(now) && path.reusable_at(now).is_none());
    }

    #[test]
    fn the_penalty_halves() {
        let mut path = damping();
        path.handle_failure(Instant::ZERO);
        let points = [0, 60, 120, 30, 600].map(|at| path.penalty(second(at)));
        assert_eq!(points, [1000, 500, 250, 707, 0]);
        assert_eq!(path.penalty(Instant(u64::MAX)), 0);
    }

    #[test]
    fn the_table_is_the_power_of_two() {
        let mut path = damping();
        (0..4).for_each(|_| path.handle_failure(Instant::ZERO));
        for millis in (0..180_000).step_by(7) {
            let exact = 4000.0 * (-f64::from(millis) / 60_000.0).exp2();
            let level = path.level_at(Instant(u64::try_from(millis).unwrap() * 1_000_000));
            let found = level as f64 / (1_u64 << 32) as f64;
            assert!((found / exact - 1.0).abs() < 7e-5, "{millis} ms: {found}, not {exact}");
        }
    }

    #[test]
    fn numbers_must_be_in_order() {
        let good = FlapDampingConfig::default();
        let wrong = |config| FlapDamping::new(config).unwrap_err();
        let half_life = Duration::ZERO;
        assert_eq!(wrong(FlapDampingConfig { half_life, ..good }), FlapDampingError::HalfLife);
        for (reuse, suppress, cap) in [(0, 1250, 4000), (1250, 1250, 4000), (500, 5000, 4000)] {
            let config = FlapDampingConfig { reuse, suppress, cap, ..good };
            assert_eq!(wrong(config), FlapDampingError::Thresholds);
        }
    }

    proptest! {
        #[test]
        fn back_within_three_half_lives_whatever_happened(
            gaps in prop::collection::vec(0..200_000_u64, 1..60),
        ) {
            let mut path = damping();
            let mut now = Instant::ZERO;
            for gap in gaps {
                now = now + Duration::from_millis(gap);
                path.handle_failure(now);
                prop_assert!(path.penalty(now) <= 4000);
                let back = path.reusable_at(now).unwrap_or(now);
                prop_assert!(back.since(now) <= Duration::from_secs(181), "{}", back.since(now).as_secs());
                prop_assert!(path.may_reinstate(back));
            }
        }

        #[test]
        fn no_numbers_panic(
            times in prop::collection::vec(any::<u64>(), 0..20), nanos in 1..u64::MAX / 1000,
            penalty: u32, levels in prop::array::uniform3(any::<u32>()),
        ) {
            let [reuse, suppress, cap] = levels;
            let half_life = Duration::from_nanos(nanos);
            let config = FlapDampingConfig { half_life, penalty, suppress, reuse, cap };
            let Ok(mut path) = FlapDamping::new(config) else { return Ok(()) };
            for time in times {
                path.handle_failure(Instant(time));
                let at = path.reusable_at(Instant(time));
                prop_assert!(at.is_none_or(|at| at.0 > time || time == u64::MAX));
                prop_assert!(path.penalty(Instant(time)) <= cap);
            }
        }
    }
}
