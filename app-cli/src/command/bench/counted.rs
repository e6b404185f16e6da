//! A device that counts what is asked of it. Not here: what the counts mean.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use storage_mapping::block::{DeviceEvent, Geometry};
use storage_mapping::{
    BlockDevice, BufferPool, Cancelled, Instant, IoCompletion, IoRequest, IoTag, Operation, Refused,
};

/// Requests that devices have accepted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    reads: AtomicU64,
    others: AtomicU64,
}

impl Counts {
    /// Reads, and writes with flushes, so far.
    pub(super) fn so_far(&self) -> [u64; 2] {
        [&self.reads, &self.others].map(|count| count.load(Ordering::Relaxed))
    }
}

/// A device with its counts.
pub(super) struct Counted<D> {
    device: D,
    counts: Arc<Counts>,
}

impl<D: BlockDevice> Counted<D> {
    /// Counts into `counts`, which several devices may share.
    pub(super) fn new(device: D, counts: &Arc<Counts>) -> Self {
        Self { device, counts: Arc::clone(counts) }
    }
}

impl<D: BlockDevice> BlockDevice for Counted<D> {
    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn submit(&mut self, now: Instant, request: IoRequest) -> Result<(), Refused> {
        let is_read = matches!(request.operation, Operation::Read { .. });
        self.device.submit(now, request)?;
        let count = if is_read { &self.counts.reads } else { &self.counts.others };
        count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn poll(&mut self, now: Instant) -> Option<IoCompletion> {
        self.device.poll(now)
    }

    fn poll_event(&mut self, now: Instant) -> Option<DeviceEvent> {
        self.device.poll_event(now)
    }

    fn next_wakeup(&self) -> Option<Instant> {
        self.device.next_wakeup()
    }

    fn cancel(&mut self, now: Instant, tag: IoTag) -> Cancelled {
        self.device.cancel(now, tag)
    }

    fn attach_pool(&mut self, pool: &BufferPool) {
        self.device.attach_pool(pool);
    }

    fn wait_on(&self, descriptors: &mut Vec<RawFd>) {
        self.device.wait_on(descriptors);
    }
}
