//! Writes that land after their writer gave up on them, or a second time.
//!
//! What holds: a late write lands once, at any later time; the pending ones are kept in order, so that
//! two states with the same ones are the same state. Not here: what a cell means (the models).

/// Cell number and value of a pending write, packed; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LateWrites<const N: usize>([u32; N]);

/// Bits of a value.
const VALUE_BITS: u32 = 24;

impl<const N: usize> LateWrites<N> {
    /// Nothing pending.
    pub const NONE: Self = Self([0; N]);

    /// With one more; `None` if `limit` are pending already.
    #[must_use]
    pub fn with(mut self, cell: usize, value: u32, limit: usize) -> Option<Self> {
        assert!(value < 1 << VALUE_BITS, "a value fits its bits");
        let limit = limit.min(N);
        let free = self.0[..limit].iter().position(|pending| *pending == 0)?;
        self.0[free] = u32::try_from(cell + 1).expect("few cells") << VALUE_BITS | value;
        self.0[..limit].sort_unstable_by(|a, b| b.cmp(a));
        Some(self)
    }

    /// Each pending write once: cell, value, and what is pending after it landed.
    pub fn each(self) -> impl Iterator<Item = (usize, u32, Self)> {
        let fresh = move |at: &usize| self.0[*at] != 0 && (*at == 0 || self.0[*at - 1] != self.0[*at]);
        (0..N).filter(fresh).map(move |at| {
            let mut rest = self;
            rest.0[at..].rotate_left(1);
            rest.0[N - 1] = 0;
            let pending = self.0[at];
            ((pending >> VALUE_BITS) as usize - 1, pending & ((1 << VALUE_BITS) - 1), rest)
        })
    }

    /// Whether nothing is pending.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.iter().all(|pending| *pending == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::LateWrites;

    #[test]
    fn pending_writes_are_a_set_with_repetition() {
        let none = LateWrites::<2>::NONE;
        let ab = none.with(0, 5, 2).and_then(|late| late.with(3, 7, 2)).expect("room for two");
        let ba = none.with(3, 7, 2).and_then(|late| late.with(0, 5, 2)).expect("room for two");
        assert_eq!(ab, ba);
        assert_eq!(ab.with(1, 1, 2), None);
        let landed: Vec<_> =
            ab.each().map(|(cell, value, rest)| (cell, value, rest.each().count())).collect();
        assert_eq!(landed, [(3, 7, 1), (0, 5, 1)]);
        let twice = none.with(1, 1, 2).and_then(|late| late.with(1, 1, 2)).expect("room for two");
        assert_eq!(twice.each().count(), 1, "equal ones are one choice");
        assert_eq!(none.with(1, 1, 0), None);
    }
}
