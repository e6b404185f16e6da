//! The seam between all layers: a device that takes requests and gives completions, and never waits.
//!
//! A path can hang for minutes and its I/O cannot be cancelled, so no layer may call into the one
//! below and block. A request *owns its buffer* while it is in flight; time comes in as an argument.
//!
//! What every implementation keeps true (property tests hold them to it):
//!
//! * an accepted request completes exactly once, or stays in flight; completions come in any order;
//! * no method blocks, sleeps or reads a clock, and `now` never goes back;
//! * a read completes with *a* buffer of the requested size, filled on success;
//! * a write's bytes are shared and immutable, so that they may be in flight on two paths at once;
//! * no order between requests is implied: who needs "A before B" submits B after A completed;
//! * what `submit` does not take it gives back, buffer included.
//!
//! Not here: any device.

pub mod address;
pub mod buffer;
pub mod request;
pub mod time;

use std::os::fd::RawFd;

use address::{BlockCount, BlockSize};
use buffer::BufferPool;
use request::{Cancelled, IoCompletion, IoRequest, IoTag, Refused, SettledProof};
use time::Instant;

use crate::control_port::ControlPort;

/// The shape and the limits of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size of one logical block; an [`Lba`](address::Lba) counts these.
    pub block_size: BlockSize,
    /// Number of logical blocks.
    pub block_count: BlockCount,
    /// The largest transfer of one request, in bytes.
    pub transfer_max_bytes: usize,
    /// What a buffer's address must be a multiple of, in bytes.
    pub buffer_alignment_bytes: usize,
    /// Requests that may be in flight before `submit` refuses with `Busy`.
    pub queue_depth: usize,
}

impl Geometry {
    /// Size of the device in bytes.
    #[must_use]
    pub fn byte_size(&self) -> u64 {
        self.block_count.0.saturating_mul(self.block_size.bytes() as u64)
    }

    /// Whether `length_bytes` from `lba` on are whole blocks inside the device and within the
    /// transfer limit.
    #[must_use]
    pub fn admits(&self, lba: address::Lba, length_bytes: usize) -> bool {
        let block_bytes = self.block_size.bytes();
        let blocks = (length_bytes / block_bytes) as u64;
        length_bytes > 0
            && length_bytes.is_multiple_of(block_bytes)
            && length_bytes <= self.transfer_max_bytes
            && lba.0.checked_add(blocks).is_some_and(|end| end <= self.block_count.0)
    }
}

/// Something a device reports that is not a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    /// What became of a copy that may have been in flight after its request had completed.
    Settled {
        /// The request whose copy it was.
        tag: IoTag,
        /// Why it is known.
        proof: SettledProof,
    },
    /// The device answers again.
    LinkUp,
    /// The device no longer answers.
    LinkDown,
    /// Size or block size changed; read [`BlockDevice::geometry`] again.
    GeometryChanged,
    /// The storage side reported a condition (a SCSI unit attention, an NVMe asynchronous event).
    Attention,
}

/// A device of numbered blocks that completes requests later.
///
/// The contract stands at the head of this module.
pub trait BlockDevice: Send {
    /// Block size, block count and limits.
    fn geometry(&self) -> Geometry;

    /// Takes a request with its buffer.
    ///
    /// # Errors
    /// [`Refused`] carries the request back, with the reason. Nothing was executed.
    fn submit(&mut self, now: Instant, request: IoRequest) -> Result<(), Refused>;

    /// Hands out one finished request, or `None`. To be called until `None`.
    fn poll(&mut self, now: Instant) -> Option<IoCompletion>;

    /// Hands out one event, or `None`. To be called until `None`.
    fn poll_event(&mut self, now: Instant) -> Option<DeviceEvent>;

    /// When `poll` wants to be called although nothing came in: delays, throttles, deadlines.
    fn next_wakeup(&self) -> Option<Instant>;

    /// Tries to withdraw a request.
    fn cancel(&mut self, now: Instant, tag: IoTag) -> Cancelled;

    /// Tells the device which pool its buffers come from, so that it may register them.
    fn attach_pool(&mut self, pool: &BufferPool);

    /// Adds the descriptors that become readable when `poll` has something new.
    fn wait_on(&self, descriptors: &mut Vec<RawFd>);

    /// The end of this path that takes control commands, where its transport has one.
    fn control_port(&mut self) -> Option<&mut dyn ControlPort> {
        None
    }

    /// Why it cannot be used, in words, where it knows more than the events say.
    fn notice(&self) -> Option<String> {
        None
    }
}

impl<D: BlockDevice + ?Sized> BlockDevice for Box<D> {
    fn geometry(&self) -> Geometry {
        (**self).geometry()
    }
    fn submit(&mut self, now: Instant, request: IoRequest) -> Result<(), Refused> {
        (**self).submit(now, request)
    }
    fn poll(&mut self, now: Instant) -> Option<IoCompletion> {
        (**self).poll(now)
    }
    fn poll_event(&mut self, now: Instant) -> Option<DeviceEvent> {
        (**self).poll_event(now)
    }
    fn next_wakeup(&self) -> Option<Instant> {
        (**self).next_wakeup()
    }
    fn cancel(&mut self, now: Instant, tag: IoTag) -> Cancelled {
        (**self).cancel(now, tag)
    }
    fn attach_pool(&mut self, pool: &BufferPool) {
        (**self).attach_pool(pool);
    }
    fn wait_on(&self, descriptors: &mut Vec<RawFd>) {
        (**self).wait_on(descriptors);
    }
    fn control_port(&mut self) -> Option<&mut dyn ControlPort> {
        (**self).control_port()
    }
    fn notice(&self) -> Option<String> {
        (**self).notice()
    }
}
