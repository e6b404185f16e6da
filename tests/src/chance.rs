//! Numbers that look random and repeat from their seed (SplitMix64).
//!
//! Everything a run decides comes from one of these, forked from the seed of the run. Not here: anything
//! secret.

use std::time::Duration;

/// A repeatable source of numbers.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The numbers of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x5851_f42d_4c95_7f2d)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A source of its own, so that what one part draws does not change what another gets.
    pub fn fork(&mut self) -> Self {
        Self(self.bits())
    }

    /// A number below `bound`; 0 where `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.bits() % bound }
    }

    /// A number from `low` to `high`, both included.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// An index below `bound`.
    pub fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).expect("below a usize")
    }

    /// Whether something happens that happens `per_million` times in a million.
    pub fn hits(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.below(1_000_000) < u64::from(per_million)
    }

    /// One of `choices`.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }

    /// A time between two, short ones as likely as long ones (even over the powers of two).
    pub fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        let (low, high) = (low.as_nanos().max(1), high.as_nanos().max(1));
        let (first, last) = (low.ilog2(), high.ilog2());
        let power = first + u32::try_from(self.below(u64::from(last - first) + 1)).expect("at most 128");
        let base = 1_u128 << power;
        let nanos = (base + u128::from(self.bits()) % base).clamp(low, high);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_stay_between_their_ends() {
        let mut chance = Chance::new(3);
        let (low, high) = (Duration::from_millis(3), Duration::from_secs(90));
        let drawn: Vec<_> = (0..1000).map(|_| chance.duration(low, high)).collect();
        assert!(drawn.iter().all(|time| (low..=high).contains(time)));
        assert!(drawn.iter().any(|time| *time < Duration::from_millis(100)));
        assert!(drawn.iter().any(|time| *time > Duration::from_secs(10)));
    }
}
