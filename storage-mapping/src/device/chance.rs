//! Numbers that look random and repeat from their seed (SplitMix64).
//!
//! Not here: anything secret. These numbers choose faults.

/// A repeatable source of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 where `bound` is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// Whether an event of this probability happens. Takes no number where it cannot.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are what a probability has")]
    pub(crate) fn hits(&mut self, probability: f64) -> bool {
        probability > 0.0 && ((self.next() >> 11) as f64) < probability * (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_about_as_often_as_asked() {
        let mut chance = Chance::new(1);
        let hits = (0..10_000).filter(|_| chance.hits(0.1)).count();
        assert!((800..1200).contains(&hits), "{hits}");
        assert!((0..100).all(|_| chance.hits(1.0)));
        assert!(!(0..100).any(|_| chance.hits(0.0)));
    }
}
