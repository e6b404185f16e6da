//! The root of a file, plain BLAKE3, put together from its segments in order.
//!
//! Workers hash segments in parallel as subtrees; here their chaining values are merged. What holds:
//! all segments but the last have the same power-of-two size of at least one BLAKE3 chunk, so each is
//! a complete subtree, and [`RootBuilder::finish`] equals `blake3::hash` of the whole.

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

/// A BLAKE3 root.
pub type Root = [u8; 32];

/// Hashed at a time next to reading or writing it, so that it is still in the cache of the processor.
pub(crate) const HASHED_WARM_BYTES: usize = 128 << 10;

/// The hash of one segment: its chaining value, and what the root is if it is all there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHash {
    chaining: ChainingValue,
    alone: Root,
}

impl SegmentHash {
    /// Hashes the segment that stands at `offset`, a multiple of the segment size.
    ///
    /// An empty segment is only hashed at offset 0: an empty file.
    #[must_use]
    pub fn of(offset: u64, bytes: &[u8]) -> Self {
        let mut hasher = SegmentHasher::at(offset);
        hasher.update(bytes);
        hasher.finish()
    }
}

/// Hashes one segment as its bytes come.
#[derive(Debug)]
pub(crate) struct SegmentHasher {
    hasher: blake3::Hasher,
    offset: u64,
}

impl SegmentHasher {
    /// For the segment that stands at `offset`, a multiple of the segment size.
    pub(crate) fn at(offset: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(offset);
        Self { hasher, offset }
    }

    /// Takes the bytes that follow.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// The hash of all of them.
    pub(crate) fn finish(self) -> SegmentHash {
        if self.hasher.count() == 0 {
            let alone = *blake3::hash(&[]).as_bytes();
            return SegmentHash { chaining: alone, alone };
        }
        let alone = if self.offset == 0 { *self.hasher.finalize().as_bytes() } else { [0; 32] };
        SegmentHash { chaining: self.hasher.finalize_non_root(), alone }
    }
}

/// Merges segment hashes, first to last.
#[derive(Clone, Debug, Default)]
pub struct RootBuilder {
    /// Complete subtrees, larger first. The last merge is left to `finish`: it is the root.
    stack: Vec<ChainingValue>,
    count: u64,
    alone: Root,
}

impl RootBuilder {
    /// No segments yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of segments merged so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds the next segment.
    pub fn add(&mut self, hash: &SegmentHash) {
        while self.stack.len() > self.count.count_ones() as usize {
            self.merge_last_two();
        }
        if self.count == 0 {
            self.alone = hash.alone;
        }
        self.stack.push(hash.chaining);
        self.count += 1;
    }

    fn merge_last_two(&mut self) {
        if let (Some(right), Some(left)) = (self.stack.pop(), self.stack.pop()) {
            self.stack.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
        }
    }

    /// The root of all segments added; of the empty file if there were none.
    #[must_use]
    pub fn finish(mut self) -> Root {
        match self.count {
            0 => return *blake3::hash(&[]).as_bytes(),
            1 => return self.alone,
            _ => {}
        }
        while self.stack.len() > 2 {
            self.merge_last_two();
        }
        *merge_subtrees_root(&self.stack[0], &self.stack[1], Mode::Hash).as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{ProptestConfig, any, proptest};

    fn by_segments(bytes: &[u8], segment: usize) -> Root {
        let mut builder = RootBuilder::new();
        for (index, part) in bytes.chunks(segment).enumerate() {
            builder.add(&SegmentHash::of((index * segment) as u64, part));
        }
        builder.finish()
    }

    #[test]
    fn roots_agree_around_every_boundary() {
        let bytes: Vec<u8> = (0..40_000_u32).map(|i| (i * 31 % 251) as u8).collect();
        for segment in [1024, 2048, 4096] {
            for segments in 0..9_usize {
                for odd in [0, 1, 2, 1023, 1024, 1025] {
                    for length in [segments * segment + odd, (segments * segment).saturating_sub(odd)] {
                        let part = &bytes[..length.min(bytes.len())];
                        assert_eq!(by_segments(part, segment), *blake3::hash(part).as_bytes(), "{length}");
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn roots_agree_at_any_length(length in 0_usize..200_000, power in 0_u32..6, seed in any::<u8>()) {
            let bytes: Vec<u8> = (0..length).map(|i| (i as u8).wrapping_mul(37) ^ seed).collect();
            assert_eq!(by_segments(&bytes, 1024 << power), *blake3::hash(&bytes).as_bytes());
        }

        #[test]
        fn a_segment_in_parts_is_the_segment(
            length in 0_usize..70_000,
            part in 1_usize..40_000,
            index in 0_u64..3,
        ) {
            let bytes: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
            let offset = if length == 0 { 0 } else { index << 17 };
            let mut hasher = SegmentHasher::at(offset);
            bytes.chunks(part).for_each(|part| hasher.update(part));
            assert_eq!(hasher.finish(), SegmentHash::of(offset, &bytes));
            if offset == 0 {
                assert_eq!(by_segments(&bytes, 1 << 17), *blake3::hash(&bytes).as_bytes());
            }
        }
    }
}
