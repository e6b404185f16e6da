//! Reading and writing single blocks and waiting for them: for format, open, check and inspect, where
//! one thing happens after another. A transfer never uses it.

use std::os::fd::RawFd;

use std::time::Duration;

use storage_mapping::{
    BlockDevice, Buffer, CopyFate, Effect, ErrorSource, Instant, IoCompletion, IoRequest, IoTag, Lba,
    Operation,
};
use thiserror::Error;

use crate::BLOCK_BYTES;

/// How long one block may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A clock and a way to wait; the program's driver gives real ones.
pub struct Waiter<'a> {
    now: Box<dyn Fn() -> Instant + 'a>,
    wait: Wait<'a>,
}

/// Returns when a descriptor is readable or the time has come.
type Wait<'a> = Box<dyn Fn(&[RawFd], Option<Instant>) + 'a>;

impl<'a> Waiter<'a> {
    /// `now` reads the clock; `wait` returns when a descriptor is readable or the time has come.
    pub fn new(now: impl Fn() -> Instant + 'a, wait: impl Fn(&[RawFd], Option<Instant>) + 'a) -> Self {
        Self { now: Box::new(now), wait: Box::new(wait) }
    }

    /// For devices that answer at once: a clock that goes on by a millisecond per look.
    #[must_use]
    pub fn idle() -> Waiter<'static> {
        let ticks = std::cell::Cell::new(0);
        let now = move || {
            ticks.set(ticks.get() + 1_000_000);
            Instant(ticks.get())
        };
        Waiter::new(now, |_, _| {})
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Instant {
        (self.now)()
    }

    /// Lets `time` pass.
    pub fn pause(&self, time: Duration) {
        let until = self.now() + time;
        while self.now() < until {
            (self.wait)(&[], Some(until));
        }
    }
}

impl std::fmt::Debug for Waiter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waiter")
    }
}

/// A block that could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{action} block {block}: {reason}")]
pub struct SyncError {
    /// `reading` or `writing`.
    pub action: &'static str,
    /// Block, in units of 4,096 bytes.
    pub block: u64,
    /// Why.
    pub reason: storage_mapping::IoError,
}

/// Size of a device in blocks of 4,096 bytes.
pub fn block_count(device: &dyn BlockDevice) -> u64 {
    device.geometry().byte_size() / BLOCK_BYTES as u64
}

/// Address of a block of 4,096 bytes in the device's own blocks.
pub(crate) fn lba_of(device: &dyn BlockDevice, block: u64) -> Option<Lba> {
    let size = device.geometry().block_size.bytes();
    if size > BLOCK_BYTES {
        return None;
    }
    block.checked_mul((BLOCK_BYTES / size) as u64).map(Lba)
}

/// Reads `length_bytes` from `block` on.
///
/// # Errors
/// What the device answered, or that it did not answer in 20 seconds.
pub fn read(
    waiter: &Waiter<'_>,
    device: &mut dyn BlockDevice,
    block: u64,
    length_bytes: usize,
) -> Result<Buffer, SyncError> {
    let failed = |reason| SyncError { action: "reading", block, reason };
    let lba = lba_of(device, block).ok_or(failed(ErrorSource::Deadline.into()))?;
    let done = run(waiter, device, IoRequest::read(IoTag(block), lba, Buffer::zeroed(length_bytes)));
    done.outcome.map_err(failed)?;
    Ok(done.buffer.into_read().expect("a read gives back a read buffer"))
}

/// Writes `bytes` from `block` on, durably.
///
/// # Errors
/// What the device answered, or that it did not answer in 20 seconds.
pub fn write(
    waiter: &Waiter<'_>,
    device: &mut dyn BlockDevice,
    block: u64,
    bytes: &[u8],
) -> Result<(), SyncError> {
    let failed = |reason| SyncError { action: "writing", block, reason };
    let lba = lba_of(device, block).ok_or(failed(ErrorSource::Deadline.into()))?;
    let request = IoRequest::write(IoTag(block), lba, Buffer::copy_of(bytes).freeze(), true);
    run(waiter, device, request).outcome.map_err(failed)
}

/// Submits one request and waits for it.
fn run(waiter: &Waiter<'_>, device: &mut dyn BlockDevice, request: IoRequest) -> IoCompletion {
    let start = waiter.now();
    let tag = request.tag;
    if let Err(refused) = device.submit(start, request) {
        let error = storage_mapping::IoError::errno(nix_einval());
        return refused.request.complete(Err(error), Effect::None, CopyFate::Dead);
    }
    let mut descriptors = Vec::new();
    device.wait_on(&mut descriptors);
    let limit = start + PATIENCE;
    loop {
        let now = waiter.now();
        if let Some(done) = device.poll(now) {
            if done.tag == tag {
                return done;
            }
            continue;
        }
        // Nobody here asks for events, and a device that keeps one wants to be called at once.
        while device.poll_event(now).is_some() {}
        if now >= limit {
            // The device keeps the request and its buffer; the caller gets an answer.
            return IoRequest::new_lost(tag).complete(
                Err(ErrorSource::Deadline.into()),
                Effect::Unknown,
                CopyFate::MayLand,
            );
        }
        (waiter.wait)(&descriptors, Some(device.next_wakeup().map_or(limit, |at| at.min(limit))));
    }
}

/// EINVAL, for a request that the device did not take.
const fn nix_einval() -> i32 {
    22
}

/// Stands in for a request that its device has kept.
trait Lost {
    fn new_lost(tag: IoTag) -> IoRequest;
}

impl Lost for IoRequest {
    fn new_lost(tag: IoTag) -> IoRequest {
        IoRequest { operation: Operation::Flush, ..IoRequest::flush(tag) }
    }
}
