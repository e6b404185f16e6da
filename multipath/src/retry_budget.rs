//! One budget of retries for a whole device: a token bucket.
//!
//! A retry, and a request that waited for a path, takes a token; a request that is sent as it comes in
//! takes none and tells the bucket the steady rate. So a storm of failovers and the burst after a
//! recovery stay in proportion to what the device carried before.
//!
//! Keeps true: in any window, tokens taken ≤ capacity + refill rate × window; nothing is allocated; the
//! steady rate is learnt only from requests that did not wait, so that a burst cannot feed itself; it is
//! kept while nothing is sent.
//!
//! The numbers. Goal: no 100 ms carry more than 1.5 × the steady rate S, new requests included. A window
//! of 100 ms may see S × 100 ms new ones, and from the bucket 8 ms × S (the capacity) and 0.4 S × 100 ms
//! (the refill): together 1.48 S × 100 ms. The capacity of 8 ms × S is what is in flight on a device that
//! answers in 8 ms, so a failover of all paths but one is sent again at once there; a slower device sends
//! the rest within about its own service time. A backlog of T seconds drains in 2.5 T seconds.
//! The floor (4 tokens, 20 a second) lets a device retry that has hardly carried anything; below 500
//! requests a second it, and not the ratio, is the bound. Not here: how often one request is retried.

use std::time::Duration;

use storage_mapping::Instant;

/// What one token counts in units of request × nanosecond / second.
const TOKEN: u64 = 1_000_000_000;
/// The steady rate is counted in slots of this length.
const SLOT: Duration = Duration::from_millis(100);
const SLOTS_PER_SECOND: u64 = 10;
/// Requests per second, at most; keeps products in range.
const RATE_MAX: u64 = 1_000_000_000;
/// The bucket is full long before.
const ELAPSED_MAX: Duration = Duration::from_secs(1);

/// The numbers of the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudgetConfig {
    /// Tokens that come in, in thousandths of the steady rate.
    pub refill_permille: u64,
    /// Tokens that lie in the full bucket: as many as the steady rate sends in this time.
    pub capacity: Duration,
    /// Tokens that a full bucket holds in any case.
    pub capacity_min: u64,
    /// Tokens a second that come in in any case.
    pub refill_min: u64,
}

impl Default for RetryBudgetConfig {
    fn default() -> Self {
        Self { refill_permille: 400, capacity: Duration::from_millis(8), capacity_min: 4, refill_min: 20 }
    }
}

/// The bucket.
#[derive(Clone, Copy, Debug)]
pub struct RetryBudget {
    config: RetryBudgetConfig,
    /// In units of 1 / [`TOKEN`].
    level: u64,
    filled_at: Instant,
    /// Requests a second that did not wait; `None` before the first slot is over.
    steady: Option<u64>,
    slot_began: Instant,
    slot_count: u64,
}

impl RetryBudget {
    /// A full bucket that knows no rate yet.
    #[must_use]
    pub fn new(now: Instant, config: RetryBudgetConfig) -> Self {
        let mut budget =
            Self { config, level: 0, filled_at: now, steady: None, slot_began: now, slot_count: 0 };
        budget.level = budget.capacity();
        budget
    }

    /// A request was sent for the first time, without having waited.
    pub fn note_send(&mut self, now: Instant) {
        if now.since(self.slot_began) >= SLOT {
            self.end_slot(now);
        }
        self.slot_count = self.slot_count.saturating_add(1);
    }

    /// Takes a token for a retry, or for a request that had to wait.
    ///
    /// # Errors
    /// When to ask again; no token is there before.
    pub fn try_take(&mut self, now: Instant) -> Result<(), Instant> {
        self.refill(now);
        if let Some(rest) = self.level.checked_sub(TOKEN) {
            self.level = rest;
            return Ok(());
        }
        let missing = TOKEN - self.level;
        Err(now + Duration::from_nanos(missing.div_ceil(self.refill_rate()).max(1)))
    }

    /// Whole tokens that are there.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.level / TOKEN
    }

    /// Requests a second that the device carried, as far as known; 0 before.
    #[must_use]
    pub fn steady_rate(&self) -> u64 {
        self.steady.unwrap_or(0)
    }

    /// Learns from a slot in which something was sent; an idle time says nothing of the rate.
    fn end_slot(&mut self, now: Instant) {
        self.refill(now);
        if self.slot_count > 0 {
            let sample = self.slot_count.saturating_mul(SLOTS_PER_SECOND).min(RATE_MAX);
            // Seven parts of old to one of new: most of it is the last second.
            self.steady = Some(self.steady.map_or(sample, |old| (old * 7 + sample) / 8));
        }
        let slot = SLOT.as_nanos() as u64;
        let late = now.since(self.slot_began).as_nanos() as u64 % slot;
        self.slot_began = Instant(now.0 - late);
        self.slot_count = 0;
    }

    /// Tokens a second, at least one.
    fn refill_rate(&self) -> u64 {
        let rate = self.steady_rate() * self.config.refill_permille.min(1000) / 1000;
        rate.max(self.config.refill_min).clamp(1, RATE_MAX)
    }

    fn capacity(&self) -> u64 {
        let nanos = self.config.capacity.min(ELAPSED_MAX).as_nanos() as u64;
        (self.steady_rate() * nanos).max(self.config.capacity_min.clamp(1, RATE_MAX) * TOKEN)
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.since(self.filled_at).min(ELAPSED_MAX).as_nanos() as u64;
        self.filled_at = self.filled_at.max(now);
        let more = self.refill_rate() * elapsed;
        self.level = self.level.saturating_add(more).min(self.capacity());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(micros: u64) -> Instant {
        Instant(micros * 1000)
    }

    /// The largest number of `times` within any `window`, all in microseconds.
    fn busiest(times: &[u64], window: u64) -> usize {
        let mut first = 0;
        let mut most = 0;
        for (last, time) in times.iter().enumerate() {
            while times[first] + window <= *time {
                first += 1;
            }
            most = most.max(last + 1 - first);
        }
        most
    }

    /// Requests come at a steady rate; from 5 s to 8 s no path is there, and what waited is sent
    /// afterwards as fast as the budget allows. Gives the times of sending, and when all was sent.
    fn recovery(rate: u64) -> (Vec<u64>, u64) {
        let step = 1_000_000 / rate;
        let mut budget = RetryBudget::new(at(0), RetryBudgetConfig::default());
        let (mut sent, mut waiting, mut time) = (Vec::new(), 0_u64, 0);
        while time < 5_000_000 || waiting > 0 {
            if (5_000_000..8_000_000).contains(&time) {
                waiting += 1;
            } else {
                while waiting > 0 && budget.try_take(at(time)).is_ok() {
                    sent.push(time);
                    waiting -= 1;
                }
                budget.note_send(at(time));
                sent.push(time);
            }
            time += step;
        }
        (sent, time)
    }

    #[test]
    fn the_burst_after_a_recovery_is_at_most_half_as_much_again() {
        for rate in [500, 1000, 5000, 20_000, 100_000] {
            let (sent, over) = recovery(rate);
            let most = busiest(&sent, 100_000) as u64;
            assert!(most * 10 <= rate * 3 / 2, "{most} in 100 ms at {rate} a second");
            assert!(over < 16_500_000, "3 s of backlog took until {over} us at {rate} a second");
        }
    }

    #[test]
    fn without_a_budget_the_burst_would_be_thirty_times_as_much() {
        let burst: Vec<_> = (0..3000).map(|_| 8_000_000).collect();
        assert_eq!(busiest(&burst, 100_000), 3000, "what the test above can see, at 1000 a second");
    }

    #[test]
    fn a_failover_of_what_is_in_flight_is_sent_at_once() {
        let mut budget = RetryBudget::new(at(0), RetryBudgetConfig::default());
        for request in 0..40_000 {
            budget.note_send(at(request * 50));
        }
        assert_eq!(budget.steady_rate(), 20_000);
        // 160 in flight at 8 ms each.
        let now = at(2_000_000);
        assert_eq!((0..1000).filter(|_| budget.try_take(now).is_ok()).count(), 160);
        let later = budget.try_take(now).unwrap_err();
        assert_eq!(later.since(now), Duration::from_micros(125), "8,000 a second");
        assert!(budget.try_take(Instant(later.0 - 1)).is_err());
        assert!(budget.try_take(later).is_ok());
    }

    #[test]
    fn the_rate_outlives_a_pause_and_follows_a_change() {
        let mut budget = RetryBudget::new(at(0), RetryBudgetConfig::default());
        (0..20_000).for_each(|request| budget.note_send(at(request * 100)));
        assert_eq!(budget.steady_rate(), 10_000);
        budget.note_send(at(3_600_000_000));
        assert!((9_900..=10_000).contains(&budget.steady_rate()), "{}", budget.steady_rate());
        let start = 3_600_000_000;
        (0..3000).for_each(|request| budget.note_send(at(start + request * 1000)));
        assert!(budget.steady_rate() < 1300, "{}", budget.steady_rate());
    }

    #[test]
    fn a_device_that_carried_nothing_may_retry_a_little() {
        let mut budget = RetryBudget::new(at(0), RetryBudgetConfig::default());
        assert_eq!((0..100).filter(|_| budget.try_take(at(0)).is_ok()).count(), 4);
        assert_eq!(budget.try_take(at(0)), Err(at(50_000)));
        assert_eq!(budget.tokens(), 0);
    }

    proptest! {
        /// Tokens in a window never exceed capacity and refill, whatever the times, even if they go back.
        #[test]
        fn no_window_gives_more_than_its_share(
            gaps in prop::collection::vec(0..20_000_u64, 1..400), rate in 0..100_000_u64,
        ) {
            let mut budget = RetryBudget::new(at(0), RetryBudgetConfig::default());
            budget.steady = Some(rate);
            let (capacity, refill) = (budget.capacity(), budget.refill_rate());
            budget.level = capacity;
            let (mut time, mut taken) = (0, Vec::new());
            for gap in gaps {
                time += gap;
                while budget.try_take(at(time)).is_ok() {
                    taken.push(time);
                }
                prop_assert!(budget.try_take(at(time / 2)).is_err(), "a time that has passed gives nothing");
            }
            let bound = (capacity + refill * 100_000_000) / TOKEN;
            prop_assert!(busiest(&taken, 100_000) as u64 <= bound);
        }

        #[test]
        fn no_numbers_panic(
            steps in prop::collection::vec((any::<u64>(), any::<bool>()), 0..50),
            refill_permille: u64, capacity: u32, capacity_min: u64, refill_min: u64,
        ) {
            let capacity = Duration::from_micros(u64::from(capacity));
            let config = RetryBudgetConfig { refill_permille, capacity, capacity_min, refill_min };
            let mut budget = RetryBudget::new(Instant::ZERO, config);
            for (time, send) in steps {
                if send {
                    budget.note_send(Instant(time));
                } else if let Err(later) = budget.try_take(Instant(time)) {
                    prop_assert!(later > Instant(time) || time == u64::MAX);
                }
            }
        }
    }
}
