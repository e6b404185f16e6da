//! No nonce seals two different things.
//!
//! Looks at every write below the volume, knows the places of sealed things from the format alone, and
//! remembers for each nonce what it sealed. Writing the same sealed bytes again is no reuse.
//! Keeps true: over all hosts and all their lives, a nonce belongs to one sequence of bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use storage_mapping::Instant;
use transfer_core::format::process_segment_pointer_table::{
    ENTRIES_MAX, ENTRIES_OFFSET, ENTRY_BYTES, PointerEntry, SegmentFlags,
};
use transfer_core::format::segment::NONCE_OFFSET;
use transfer_core::protocol::seal::{NONCE_BYTES, TAG_BYTES};
use volume::record::Record;
use volume::{BLOCK_BYTES, BlockAddress, Layout};

use crate::disk::sum;

/// Where the command structure stands in an entry of the process id table, and its nonce in it.
const COMMAND_OFFSET: usize = 1408;
const COMMAND_BYTES: usize = 2048;
const COMMAND_NONCE_OFFSET: usize = COMMAND_OFFSET + 40;
/// Where a pointer table says how many entries it has.
const ENTRY_COUNT_OFFSET: usize = 4040;

/// What every nonce of a run sealed.
#[derive(Clone, Debug)]
pub struct Nonces {
    layout: Arc<Layout>,
    seen: Arc<Mutex<HashMap<[u8; NONCE_BYTES], u64>>>,
}

impl Nonces {
    /// None yet.
    #[must_use]
    pub fn new(layout: Arc<Layout>) -> Self {
        Self { layout, seen: Arc::default() }
    }

    /// Looks at one write.
    ///
    /// # Panics
    /// If it reuses a nonce, or a segment has none.
    pub fn check(&self, now: Instant, at: BlockAddress, data: &[u8]) {
        let region = |number: usize| {
            let region = self.layout.master.region(number);
            at.device == 0 && (region.start..region.start + region.blocks).contains(&at.block)
        };
        if self.layout.segment_at(at).is_some() {
            let nonce = &data[NONCE_OFFSET..NONCE_OFFSET + NONCE_BYTES];
            assert!(nonce.iter().any(|byte| *byte != 0), "{now}: the segment at {at} has no nonce");
            self.seal(now, at, nonce, data);
        } else if region(5) {
            for page in data.chunks_exact(BLOCK_BYTES) {
                let nonce = &page[COMMAND_NONCE_OFFSET..COMMAND_NONCE_OFFSET + NONCE_BYTES];
                self.seal(now, at, nonce, &page[COMMAND_OFFSET..COMMAND_OFFSET + COMMAND_BYTES]);
            }
        } else if region(6) {
            data.chunks_exact(BLOCK_BYTES).for_each(|page| self.check_table(now, at, page));
        }
    }

    /// The messages that stand in a pointer table itself.
    fn check_table(&self, now: Instant, at: BlockAddress, page: &[u8]) {
        let count = usize::from(u16::from_le_bytes([page[ENTRY_COUNT_OFFSET], page[ENTRY_COUNT_OFFSET + 1]]));
        for place in page[ENTRIES_OFFSET..].chunks_exact(ENTRY_BYTES).take(count.min(ENTRIES_MAX)) {
            let Ok(entry) = PointerEntry::parse(place) else { continue };
            if !entry.ptr_process_segment_flg.contains(SegmentFlags::IN_TABLE) {
                continue;
            }
            let start =
                ENTRIES_OFFSET + usize::try_from(entry.ptr_process_segment_ptr).unwrap_or(usize::MAX / 2);
            let length = NONCE_BYTES + TAG_BYTES + entry.stored_bytes as usize;
            if let Some(sealed) = page.get(start..start + length) {
                self.seal(now, at, &sealed[..NONCE_BYTES], &sealed[NONCE_BYTES..]);
            }
        }
    }

    fn seal(&self, now: Instant, at: BlockAddress, nonce: &[u8], sealed: &[u8]) {
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().expect("cut to its length");
        if nonce == [0; NONCE_BYTES] {
            return;
        }
        let sum = sum(sealed);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let first = *seen.entry(nonce).or_insert(sum);
        assert!(first == sum, "{now}: the nonce at {at} sealed other bytes before");
    }
}
