//! The table of requests that a device has accepted and not yet completed.
//!
//! Keeps true: a tag is in the table at most once; an index stays with its entry until that leaves;
//! nothing is allocated after `new`. Not here: who does the work.

use crate::block::Geometry;
use crate::block::request::{IoRequest, IoTag, Operation, RefusalReason};

/// A bounded table of entries, found by index or by tag.
#[derive(Debug)]
pub(crate) struct InFlight<T> {
    entries: Vec<Option<T>>,
    tags: Vec<Option<IoTag>>,
    free: Vec<usize>,
}

impl<T> InFlight<T> {
    /// A table of `capacity` places.
    pub(crate) fn new(capacity: usize) -> Self {
        let mut entries = Vec::with_capacity(capacity);
        entries.resize_with(capacity, || None);
        Self { entries, tags: vec![None; capacity], free: (0..capacity).rev().collect() }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn find(&self, tag: IoTag) -> Option<usize> {
        self.tags.iter().position(|held| *held == Some(tag))
    }

    /// Why a device of this geometry may not take the request, if it may not.
    pub(crate) fn refusal(&self, geometry: &Geometry, request: &IoRequest) -> Option<RefusalReason> {
        let fits = match &request.operation {
            Operation::Read { lba, buffer } => {
                geometry.admits(*lba, buffer.len()) && is_aligned(geometry, buffer)
            }
            Operation::Write { lba, data, .. } => {
                geometry.admits(*lba, data.len()) && is_aligned(geometry, data)
            }
            Operation::Flush => true,
        };
        if !fits {
            Some(RefusalReason::Invalid)
        } else if self.free.is_empty() {
            Some(RefusalReason::Busy)
        } else if self.find(request.tag).is_some() {
            Some(RefusalReason::DuplicateTag)
        } else {
            None
        }
    }

    /// Puts an entry in a free place.
    pub(crate) fn insert(&mut self, tag: IoTag, entry: T) -> usize {
        let index = self.free.pop().expect("`refusal` saw a free place");
        self.entries[index] = Some(entry);
        self.tags[index] = Some(tag);
        index
    }

    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.entries.get(index)?.as_ref()
    }

    pub(crate) fn entry(&mut self, index: usize) -> Option<&mut T> {
        self.entries.get_mut(index)?.as_mut()
    }

    pub(crate) fn remove(&mut self, index: usize) -> Option<T> {
        let entry = self.entries.get_mut(index)?.take()?;
        self.tags[index] = None;
        self.free.push(index);
        Some(entry)
    }

    /// Forgets all entries without freeing what they own.
    pub(crate) fn leak(&mut self) {
        self.entries.drain(..).flatten().for_each(std::mem::forget);
    }
}

fn is_aligned(geometry: &Geometry, bytes: &[u8]) -> bool {
    bytes.as_ptr().addr().is_multiple_of(geometry.buffer_alignment_bytes)
}
