//! The content of a simulated file: what is read, and what of it a power loss may take back.
//!
//! What holds: a block that is not among `old` is durable as it is read. A write notes what the block held
//! when it was last durable, once; a sync forgets these notes. Not here: names (`names`).

use std::collections::{BTreeMap, BTreeSet};

use crate::chance::Chance;

/// What a disk writes as a whole, bytes.
pub(super) const BLOCK_BYTES: usize = 4096;

/// The bytes of one file.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    bytes: Vec<u8>,
    durable_length: usize,
    /// What blocks held when they were last durable; what is missing at an end is zeros.
    old: BTreeMap<usize, Vec<u8>>,
    /// Those of them that a failed sync gave up: another sync does not write them.
    given_up: BTreeSet<usize>,
    /// The file was cut off below its durable length.
    is_cut: bool,
}

impl Content {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_durable(&self) -> bool {
        self.old.is_empty() && self.durable_length == self.bytes.len() && !self.is_cut
    }

    fn note_old(&mut self, first: usize, last: usize) {
        for block in first..=last {
            let (bytes, durable) = (&self.bytes, self.durable_length.min(self.bytes.len()));
            self.old.entry(block).or_insert_with(|| {
                let start = (block * BLOCK_BYTES).min(durable);
                bytes[start..durable.min(start + BLOCK_BYTES)].to_vec()
            });
            self.given_up.remove(&block);
        }
    }

    /// Writes; a gap before it reads as zeros.
    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        self.note_old(offset / BLOCK_BYTES, (end - 1) / BLOCK_BYTES);
        if end > self.bytes.len() {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
    }

    /// Cuts off, or extends with zeros.
    pub(super) fn set_length(&mut self, length: usize) {
        if length < self.bytes.len() {
            self.note_old(length / BLOCK_BYTES, (self.bytes.len() - 1) / BLOCK_BYTES);
            self.is_cut |= length < self.durable_length;
        }
        self.bytes.resize(length, 0);
    }

    /// Everything is durable from now on, but for what was given up.
    pub(super) fn sync(&mut self) {
        let given_up = &self.given_up;
        self.old.retain(|block, _| given_up.contains(block));
        self.durable_length = self.bytes.len();
        self.is_cut = false;
    }

    /// A sync that failed: what was to be written is given up, though it can still be read.
    pub(super) fn give_up(&mut self) {
        self.given_up.extend(self.old.keys());
    }

    /// Power loss: any subset of the blocks that were not durable is as before, and the length is the old
    /// one, the new one, or one on the way; `true` if the file reads differently now.
    pub(super) fn crash(&mut self, chance: &mut Chance, kept: u32) -> bool {
        if self.is_durable() {
            return false;
        }
        let (durable, current) = (self.durable_length, self.bytes.len());
        let is_length_kept = chance.hits(kept);
        let length = match (is_length_kept, current > durable) {
            (true, _) => current,
            (false, true) if chance.below(4) == 0 => {
                let blocks = (current - durable) / BLOCK_BYTES;
                (durable + chance.index(blocks + 1) * BLOCK_BYTES).min(current)
            }
            (false, _) => durable,
        };
        let mut after = self.bytes.clone();
        after.resize(length, 0);
        for (block, old) in &self.old {
            let is_kept = chance.hits(kept) && !self.given_up.contains(block);
            if is_kept && (is_length_kept || !self.is_cut) {
                continue;
            }
            let start = (block * BLOCK_BYTES).min(length);
            let end = (start + BLOCK_BYTES).min(length);
            after[start..end].fill(0);
            // Blocks that were cut off and written again are new ones: theirs is not the old content.
            if !(self.is_cut && is_length_kept) {
                let count = old.len().min(end - start);
                after[start..start + count].copy_from_slice(&old[..count]);
            }
        }
        let is_changed = after != self.bytes;
        *self = Self { bytes: after, durable_length: length, ..Self::default() };
        is_changed
    }
}
