//! Rule 6: a process writes its own blocks and no others.
//!
//! This is what makes a disk without locks safe, so it is asserted on every write, in release too: a
//! write outside the ranges is an error of the program and ends it before the request leaves.

use crate::{BLOCK_BYTES, BlockAddress};

/// The blocks a process may write.
#[derive(Clone, Debug, Default)]
pub struct OwnedRanges {
    ranges: Vec<(u16, std::ops::Range<u64>)>,
    everything: bool,
}

impl OwnedRanges {
    /// No block.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Every block: for format and admin, with all hosts down.
    #[must_use]
    pub fn everything() -> Self {
        Self { ranges: Vec::new(), everything: true }
    }

    /// Adds `blocks` blocks from `start` on.
    pub fn add(&mut self, start: BlockAddress, blocks: u64) {
        self.ranges.push((start.device, start.block..start.block + blocks));
    }

    /// Whether a write of `length_bytes` at `start` stays inside one range.
    #[must_use]
    pub fn allow(&self, start: BlockAddress, length_bytes: usize) -> bool {
        let blocks = length_bytes.div_ceil(BLOCK_BYTES) as u64;
        let Some(end) = start.block.checked_add(blocks) else { return false };
        self.everything
            || self.ranges.iter().any(|(device, range)| {
                *device == start.device && range.start <= start.block && end <= range.end
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_must_stay_inside_one_range() {
        let at = |block| BlockAddress { device: 1, block };
        let mut owned = OwnedRanges::nothing();
        assert!(!owned.allow(at(10), 4096));
        owned.add(at(10), 4);
        owned.add(at(14), 1);
        assert!(owned.allow(at(10), 4 * 4096));
        assert!(!owned.allow(at(9), 4096));
        assert!(!owned.allow(at(13), 2 * 4096));
        assert!(!owned.allow(BlockAddress { device: 0, block: 10 }, 4096));
        assert!(!owned.allow(at(u64::MAX), 4096));
    }
}
