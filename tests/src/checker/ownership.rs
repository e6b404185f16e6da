//! No process ever submits a write outside the blocks of its lane.
//!
//! The volume asserts the same; this one stands below it, at the disk, and knows nothing of the volume's
//! bookkeeping. A violation ends the run: nothing after it means anything.

use storage_mapping::Instant;
use volume::{BLOCK_BYTES, BlockAddress, OwnedRanges};

/// What one process may write on one disk.
#[derive(Clone, Debug)]
pub struct Monitor {
    owner: String,
    owned: OwnedRanges,
}

impl Monitor {
    /// Watches `owner`.
    #[must_use]
    pub fn new(owner: &str, owned: OwnedRanges) -> Self {
        Self { owner: owner.to_owned(), owned }
    }

    /// Looks at one write.
    ///
    /// # Panics
    /// If it is outside.
    pub fn check(&self, now: Instant, device: u16, start: usize, length: usize) {
        let address = BlockAddress { device, block: (start / BLOCK_BYTES) as u64 };
        assert!(
            start.is_multiple_of(BLOCK_BYTES) && self.owned.allow(address, length),
            "{now}: {} writes {length} bytes at {address}, which it does not own",
            self.owner
        );
    }
}
