//! The model disk at the very bottom: blocks in memory that say which write landed on them, and when.
//!
//! Keeps true: a request is done in the moment in which it is taken, and every block that a write changes is told to
//! the truth in that moment; so the order in which copies land is known from outside the code under test. Not here:
//! time and faults (the storage system above it), what may land (`truth`).

use std::collections::VecDeque;
use std::os::fd::RawFd;

use storage_mapping::block::buffer::ALIGNMENT_BYTES;
use storage_mapping::{
    BlockCount, BlockDevice, BlockSize, BufferPool, Cancelled, CopyFate, DeviceEvent, Effect, Geometry,
    Instant, IoCompletion, IoRequest, IoTag, Operation, Refused,
};

use super::stamp::BLOCK_BYTES;
use super::truth::Shared;

/// Requests that it takes at once.
const QUEUE_DEPTH: usize = 1 << 16;
/// The largest transfer, in bytes.
const TRANSFER_MAX_BYTES: usize = 1 << 20;

/// A disk whose every landing is known.
pub(super) struct Medium {
    bytes: Vec<u8>,
    done: VecDeque<IoCompletion>,
    truth: Shared,
}

impl Medium {
    /// A blank disk.
    pub(super) fn new(blocks: u64, truth: Shared) -> Self {
        let blocks = usize::try_from(blocks).expect("a disk in memory");
        Self { bytes: vec![0; blocks * BLOCK_BYTES], done: VecDeque::new(), truth }
    }
}

impl BlockDevice for Medium {
    fn geometry(&self) -> Geometry {
        Geometry {
            block_size: BlockSize::B512,
            block_count: BlockCount((self.bytes.len() / BLOCK_BYTES) as u64),
            transfer_max_bytes: TRANSFER_MAX_BYTES,
            buffer_alignment_bytes: ALIGNMENT_BYTES,
            queue_depth: QUEUE_DEPTH,
        }
    }

    fn submit(&mut self, now: Instant, mut request: IoRequest) -> Result<(), Refused> {
        let start = |lba: u64| usize::try_from(lba).expect("addresses are checked above") * BLOCK_BYTES;
        match &mut request.operation {
            Operation::Read { lba, buffer } => {
                let (at, length) = (start(lba.0), buffer.len());
                buffer.copy_from_slice(&self.bytes[at..at + length]);
            }
            Operation::Write { lba, data, .. } => {
                let at = start(lba.0);
                self.bytes[at..at + data.len()].copy_from_slice(data);
                let mut truth = self.truth.lock();
                data.chunks_exact(BLOCK_BYTES).for_each(|block| truth.landed(now, block));
            }
            Operation::Flush => {}
        }
        self.done.push_back(request.complete(Ok(()), Effect::Full, CopyFate::Dead));
        Ok(())
    }

    fn poll(&mut self, _now: Instant) -> Option<IoCompletion> {
        self.done.pop_front()
    }

    fn poll_event(&mut self, _now: Instant) -> Option<DeviceEvent> {
        None
    }

    fn next_wakeup(&self) -> Option<Instant> {
        (!self.done.is_empty()).then_some(Instant::ZERO)
    }

    fn cancel(&mut self, _now: Instant, tag: IoTag) -> Cancelled {
        let is_here = self.done.iter().any(|done| done.tag == tag);
        if is_here { Cancelled::Requested } else { Cancelled::NotHere }
    }

    fn attach_pool(&mut self, _pool: &BufferPool) {}

    fn wait_on(&self, _descriptors: &mut Vec<RawFd>) {}
}
