//! A device that does nothing: what is measured over it is the layer above.
//!
//! Keeps true: every request completes at the next poll, in order. Not here: data; a read gives back what was in its buffer.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use crate::block::address::{BlockCount, BlockSize};
use crate::block::buffer::BufferPool;
use crate::block::request::{Cancelled, CopyFate, Effect, IoCompletion, IoRequest, IoTag, Refused};
use crate::block::time::Instant;
use crate::block::{BlockDevice, DeviceEvent, Geometry};

/// Completes everything at the next poll.
#[derive(Debug, Default)]
pub struct NullDevice {
    requests: VecDeque<IoRequest>,
}

impl BlockDevice for NullDevice {
    fn geometry(&self) -> Geometry {
        Geometry {
            block_size: BlockSize::B4096,
            block_count: BlockCount(1 << 30),
            transfer_max_bytes: 1 << 20,
            buffer_alignment_bytes: 4096,
            queue_depth: 64,
        }
    }

    fn submit(&mut self, _now: Instant, request: IoRequest) -> Result<(), Refused> {
        self.requests.push_back(request);
        Ok(())
    }

    fn poll(&mut self, _now: Instant) -> Option<IoCompletion> {
        Some(self.requests.pop_front()?.complete(Ok(()), Effect::Full, CopyFate::Dead))
    }

    fn poll_event(&mut self, _now: Instant) -> Option<DeviceEvent> {
        None
    }

    fn next_wakeup(&self) -> Option<Instant> {
        None
    }

    fn cancel(&mut self, _now: Instant, _tag: IoTag) -> Cancelled {
        Cancelled::Requested
    }

    fn attach_pool(&mut self, _pool: &BufferPool) {}

    fn wait_on(&self, _descriptors: &mut Vec<RawFd>) {}
}
