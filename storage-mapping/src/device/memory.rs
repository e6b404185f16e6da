//! Blocks in memory: a disk that any number of devices can be opened on, like hosts on one LUN.
//!
//! Requests complete at the next `poll`, in order of submission. Cloned [`MemoryDisk`] handles share
//! the bytes, across threads too. Not here: faults (`faulty` wraps any device).

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};

use crate::block::address::{BlockCount, BlockSize, Lba};
use crate::block::buffer::{ALIGNMENT_BYTES, BufferPool};
use crate::block::request::{
    Cancelled, CopyFate, Effect, IoCompletion, IoRequest, IoTag, Operation, RefusalReason, Refused,
};
use crate::block::time::Instant;
use crate::block::{BlockDevice, DeviceEvent, Geometry};

/// Requests in flight on one memory device, at most.
const QUEUE_DEPTH: usize = 1024;
/// The largest transfer, in bytes.
const TRANSFER_MAX_BYTES: usize = 64 << 20;

/// The bytes of a disk in memory. A clone is the same disk.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    bytes: Arc<Mutex<Vec<u8>>>,
    block_size: BlockSize,
}

impl MemoryDisk {
    /// A zeroed disk of `block_count` blocks.
    ///
    /// # Panics
    /// If the size is above the address space.
    #[must_use]
    pub fn new(block_size: BlockSize, block_count: BlockCount) -> Self {
        let size = usize::try_from(block_count.0)
            .ok()
            .and_then(|count| count.checked_mul(block_size.bytes()))
            .expect("a memory disk fits in memory");
        Self { bytes: Arc::new(Mutex::new(vec![0; size])), block_size }
    }

    /// Opens the disk once more.
    #[must_use]
    pub fn device(&self) -> MemoryDevice {
        MemoryDevice { disk: self.clone(), queue: VecDeque::new() }
    }

    /// Runs `f` on the raw bytes: for tests that look at or damage the disk.
    pub fn with_bytes<R>(&self, f: impl FnOnce(&mut [u8]) -> R) -> R {
        f(&mut self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One opening of a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryDevice {
    disk: MemoryDisk,
    queue: VecDeque<IoRequest>,
}

impl MemoryDevice {
    fn execute(&self, operation: &mut Operation) {
        let size = self.disk.block_size.bytes();
        let start = |lba: Lba| usize::try_from(lba.0).expect("checked at submit") * size;
        self.disk.with_bytes(|bytes| match operation {
            Operation::Read { lba, buffer } => {
                let at = start(*lba);
                let length = buffer.len();
                buffer.copy_from_slice(&bytes[at..at + length]);
            }
            Operation::Write { lba, data, .. } => {
                let at = start(*lba);
                bytes[at..at + data.len()].copy_from_slice(data);
            }
            Operation::Flush => {}
        });
    }
}

impl BlockDevice for MemoryDevice {
    fn geometry(&self) -> Geometry {
        let bytes = self.disk.with_bytes(|bytes| bytes.len());
        Geometry {
            block_size: self.disk.block_size,
            block_count: BlockCount((bytes / self.disk.block_size.bytes()) as u64),
            transfer_max_bytes: TRANSFER_MAX_BYTES,
            buffer_alignment_bytes: ALIGNMENT_BYTES,
            queue_depth: QUEUE_DEPTH,
        }
    }

    fn submit(&mut self, _now: Instant, request: IoRequest) -> Result<(), Refused> {
        let fits = match &request.operation {
            Operation::Read { lba, buffer } => self.geometry().admits(*lba, buffer.len()),
            Operation::Write { lba, data, .. } => self.geometry().admits(*lba, data.len()),
            Operation::Flush => true,
        };
        let reason = if !fits {
            RefusalReason::Invalid
        } else if self.queue.len() >= QUEUE_DEPTH {
            RefusalReason::Busy
        } else if self.queue.iter().any(|queued| queued.tag == request.tag) {
            RefusalReason::DuplicateTag
        } else {
            self.queue.push_back(request);
            return Ok(());
        };
        Err(Refused { reason, request })
    }

    fn poll(&mut self, _now: Instant) -> Option<IoCompletion> {
        let mut request = self.queue.pop_front()?;
        self.execute(&mut request.operation);
        Some(request.complete(Ok(()), Effect::Full, CopyFate::Dead))
    }

    fn poll_event(&mut self, _now: Instant) -> Option<DeviceEvent> {
        None
    }

    fn next_wakeup(&self) -> Option<Instant> {
        // Something queued can be done at once, whatever the time is.
        (!self.queue.is_empty()).then_some(Instant::ZERO)
    }

    fn cancel(&mut self, _now: Instant, tag: IoTag) -> Cancelled {
        match self.queue.iter().position(|queued| queued.tag == tag) {
            Some(index) => match self.queue.remove(index) {
                Some(request) => Cancelled::Withdrawn(request),
                None => Cancelled::NotHere,
            },
            None => Cancelled::NotHere,
        }
    }

    fn attach_pool(&mut self, _pool: &BufferPool) {}

    fn wait_on(&self, _descriptors: &mut Vec<RawFd>) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Buffer;

    #[test]
    fn two_openings_see_one_disk() {
        let disk = MemoryDisk::new(BlockSize::B512, BlockCount(16));
        let (mut one, mut other) = (disk.device(), disk.device());
        let data = Buffer::copy_of(&[7; 1024]).freeze();
        one.submit(Instant::ZERO, IoRequest::write(IoTag(1), Lba(3), data, false)).unwrap();
        assert!(one.poll(Instant::ZERO).unwrap().outcome.is_ok());
        other.submit(Instant::ZERO, IoRequest::read(IoTag(2), Lba(4), Buffer::zeroed(512))).unwrap();
        let done = other.poll(Instant::ZERO).unwrap();
        assert_eq!(&done.buffer.into_read().unwrap()[..], [7; 512]);
    }

    #[test]
    fn what_does_not_fit_comes_back() {
        let mut device = MemoryDisk::new(BlockSize::B4096, BlockCount(2)).device();
        for (lba, length) in [(2, 4096), (0, 100), (1, 8192), (u64::MAX, 4096)] {
            let request = IoRequest::read(IoTag(1), Lba(lba), Buffer::zeroed(length));
            assert_eq!(device.submit(Instant::ZERO, request).unwrap_err().reason, RefusalReason::Invalid);
        }
    }
}
