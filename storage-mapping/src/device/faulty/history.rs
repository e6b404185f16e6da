//! What was on the device before the last writes, for reads that are to be stale.
//!
//! Keeps true: it holds at most [`HISTORY_MAX_BYTES`], the oldest goes first. Not here: whether a read
//! is stale.

use std::collections::VecDeque;

use crate::block::address::{BlockSize, Lba};
use crate::block::buffer::Buffer;

/// Old content kept, at most.
const HISTORY_MAX_BYTES: usize = 16 << 20;

/// Old content by address, oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    ranges: VecDeque<(Lba, Buffer)>,
    bytes: usize,
}

impl History {
    /// Remembers what was at `lba` before a write.
    pub(super) fn remember(&mut self, lba: Lba, old: Buffer) {
        self.bytes += old.len();
        self.ranges.push_back((lba, old));
        while self.bytes > HISTORY_MAX_BYTES
            && let Some((_, dropped)) = self.ranges.pop_front()
        {
            self.bytes -= dropped.len();
        }
    }

    /// Puts the old content over what was read; says whether there was any.
    pub(super) fn overlay(&self, lba: Lba, buffer: &mut Buffer, block_size: BlockSize) -> bool {
        let size = block_size.bytes();
        let mut changed = false;
        for (at, old) in &self.ranges {
            for (block, content) in (at.0..).zip(old.chunks_exact(size)) {
                let Some(index) = block.checked_sub(lba.0) else { continue };
                let Ok(start) = usize::try_from(index.saturating_mul(size as u64)) else { continue };
                if let Some(place) = buffer.get_mut(start..start.saturating_add(size)) {
                    place.copy_from_slice(content);
                    changed = true;
                }
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first() {
        let mut history = History::default();
        for block in 0..40 {
            history.remember(Lba(block * 256), Buffer::zeroed(1 << 20));
        }
        assert!(history.bytes <= HISTORY_MAX_BYTES);
        let mut buffer = Buffer::zeroed(4096);
        assert!(!history.overlay(Lba(0), &mut buffer, BlockSize::B4096));
        assert!(history.overlay(Lba(39 * 256), &mut buffer, BlockSize::B4096));
    }
}
