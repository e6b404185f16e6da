//! Which written files are made durable together.
//!
//! Files gather until a batch is worth its two syncs: 1,024 files, 64 MiB, one second, or the sender
//! says that nothing more comes. What holds: at most [`BATCHES_PENDING_MAX`] batches are between
//! their sync and their last word, so that data and permits cannot lock each other. Not here: the
//! syncing and publishing itself (`receiver` asks, `local` does).

use super::message::ITEMS_MAX;
use std::collections::BTreeMap;
use std::time::Duration;
use storage_mapping::Instant;

/// Bytes of one batch, about.
const BATCH_BYTES_MAX: u64 = 64 << 20;
/// How long a written file waits for others.
const BATCH_AGE_MAX: Duration = Duration::from_secs(1);
/// Batches between their sync and their last word, at most.
pub(crate) const BATCHES_PENDING_MAX: usize = 4;

/// Written files that wait for a batch, and how many files of each batch have no last word.
#[derive(Debug)]
pub(crate) struct Gather {
    files: Vec<u32>,
    bytes: u64,
    since: Instant,
    next_batch: u64,
    pending: BTreeMap<u64, usize>,
    files_max: usize,
}

impl Gather {
    /// Nothing written yet; a batch's READY must fit a segment.
    pub(crate) fn new(segment_bytes: usize) -> Self {
        let files_max = ITEMS_MAX.min((segment_bytes - 64) / 64);
        Self {
            files: Vec::new(),
            bytes: 0,
            since: Instant::ZERO,
            next_batch: 1,
            pending: BTreeMap::new(),
            files_max,
        }
    }

    /// A file is written.
    pub(crate) fn add(&mut self, now: Instant, index: u32, bytes: u64) {
        if self.files.is_empty() {
            self.since = now;
        }
        self.files.push(index);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// A file that waited is given up.
    pub(crate) fn remove(&mut self, index: u32) {
        self.files.retain(|&other| other != index);
    }

    /// The next batch, if there is one to be made now.
    pub(crate) fn close(&mut self, now: Instant, nothing_more: bool) -> Option<(u64, Vec<u32>)> {
        let due = nothing_more
            || self.files.len() >= self.files_max
            || self.bytes >= BATCH_BYTES_MAX
            || now.since(self.since) >= BATCH_AGE_MAX;
        if self.files.is_empty() || !due || self.pending.len() >= BATCHES_PENDING_MAX {
            return None;
        }
        let batch = self.next_batch;
        self.next_batch += 1;
        let rest = self.files.split_off(self.files.len().min(self.files_max));
        let files = std::mem::replace(&mut self.files, rest);
        self.bytes = 0;
        self.since = now;
        self.pending.insert(batch, files.len());
        Some((batch, files))
    }

    /// A file of a batch has its last word.
    pub(crate) fn settle(&mut self, batch: u64) {
        if let Some(left) = self.pending.get_mut(&batch) {
            *left -= 1;
            if *left == 0 {
                self.pending.remove(&batch);
            }
        }
    }

    /// When time alone closes a batch.
    pub(crate) fn next_wakeup(&self) -> Option<Instant> {
        (!self.files.is_empty() && self.pending.len() < BATCHES_PENDING_MAX)
            .then(|| self.since + BATCH_AGE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_closes_by_count_bytes_time_or_word() {
        let second = Instant::ZERO + BATCH_AGE_MAX;
        let mut gather = Gather::new(1 << 20);
        gather.add(Instant::ZERO, 1, 10);
        assert!(gather.close(Instant::ZERO, false).is_none());
        assert_eq!(gather.next_wakeup(), Some(second));
        assert_eq!(gather.close(second, false), Some((1, vec![1])));
        gather.add(second, 2, BATCH_BYTES_MAX);
        assert_eq!(gather.close(second, false), Some((2, vec![2])));
        (0..1030).for_each(|index| gather.add(second, index, 1));
        assert_eq!(gather.close(second, false).map(|(_, files)| files.len()), Some(ITEMS_MAX));
        assert_eq!(gather.close(second, true).map(|(_, files)| files.len()), Some(6));
        gather.add(second, 3, 1);
        assert!(gather.close(second, true).is_none(), "four are pending");
        gather.settle(1);
        assert!(gather.close(second, true).is_some());
    }
    #[test]
    fn a_file_that_is_given_up_is_in_no_batch() {
        let mut gather = Gather::new(1 << 20);
        (1..=3).for_each(|index| gather.add(Instant::ZERO, index, 1));
        gather.remove(2);
        assert_eq!(gather.close(Instant::ZERO, true), Some((1, vec![1, 3])));
        gather.add(Instant::ZERO, 4, 1);
        gather.remove(4);
        assert!(gather.close(Instant::ZERO, true).is_none(), "nothing is left");
    }
}
