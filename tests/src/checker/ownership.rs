//! No process ever submits a write outside the blocks of its lane.
//!
//! The volume asserts the same; this one stands below it, at the disk, and knows nothing of the volume's
//! bookkeeping. A violation ends the run: nothing after it means anything. The same place looks at the
//! nonces of what is written (`nonces`).

use storage_mapping::Instant;
use volume::{BLOCK_BYTES, BlockAddress, OwnedRanges};

use super::nonces::Nonces;

/// What one process may write on one disk.
#[derive(Clone, Debug)]
pub struct Monitor {
    owner: String,
    owned: OwnedRanges,
    nonces: Option<Nonces>,
}

impl Monitor {
    /// Watches `owner`; what the admin writes has no nonces.
    #[must_use]
    pub fn new(owner: &str, owned: OwnedRanges, nonces: Option<Nonces>) -> Self {
        Self { owner: owner.to_owned(), owned, nonces }
    }

    /// Looks at one write.
    ///
    /// # Panics
    /// If it is outside, or reuses a nonce.
    pub fn check(&self, now: Instant, device: u16, start: usize, data: &[u8]) {
        let address = BlockAddress { device, block: (start / BLOCK_BYTES) as u64 };
        assert!(
            start.is_multiple_of(BLOCK_BYTES) && self.owned.allow(address, data.len()),
            "{now}: {} writes {} bytes at {address}, which it does not own",
            self.owner,
            data.len()
        );
        if let Some(nonces) = &self.nonces {
            nonces.check(now, address, data);
        }
    }
}
