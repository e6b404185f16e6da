//! A layer that records what the device below does, and changes nothing.
//!
//! Keeps true: a request costs one look into a table when it comes in and one when it ends; what was refused or
//! withdrawn was never with the device and is not in the recording.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Record, RecordedOutcome, Recording, RequestKind};
use crate::block::buffer::BufferPool;
use crate::block::request::{Cancelled, IoCompletion, IoRequest, IoTag, Operation, Refused};
use crate::block::time::Instant;
use crate::block::{BlockDevice, DeviceEvent, Geometry};

/// What the recorder and its controls share.
#[derive(Debug, Default)]
struct Shared {
    /// `None` where the request was withdrawn.
    records: Vec<Option<Record>>,
    left_out: u64,
}

/// A handle on the recording of a device that has been moved elsewhere. A clone is the same handle.
#[derive(Clone, Debug)]
pub struct RecordControl {
    shared: Arc<Mutex<Shared>>,
}

impl RecordControl {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was recorded so far. Requests in flight have ended `Never`.
    #[must_use]
    pub fn recording(&self) -> Recording {
        let shared = self.lock();
        let records = shared.records.iter().copied().flatten().collect();
        Recording { records, left_out: shared.left_out }
    }
}

/// A device that records the one below.
#[derive(Debug)]
pub struct Recorder<D> {
    inner: D,
    control: RecordControl,
    limit: usize,
    start: Option<Instant>,
    /// Where the record of a request is, and when it came in.
    in_flight: HashMap<IoTag, (usize, Instant)>,
}

impl<D: BlockDevice> Recorder<D> {
    /// Records up to `limit` requests of `inner`; one takes about 64 bytes.
    pub fn new(inner: D, limit: usize) -> Self {
        let control = RecordControl { shared: Arc::new(Mutex::new(Shared::default())) };
        Self { inner, control, limit, start: None, in_flight: HashMap::new() }
    }

    /// A handle that fetches the recording after the device has been moved elsewhere.
    #[must_use]
    pub fn control(&self) -> RecordControl {
        self.control.clone()
    }

    fn note_start(&mut self, now: Instant, tag: IoTag, kind: RequestKind, bytes: usize) {
        let start = *self.start.get_or_insert(now);
        let mut shared = self.control.lock();
        if shared.records.len() >= self.limit {
            shared.left_out += 1;
            return;
        }
        self.in_flight.insert(tag, (shared.records.len(), now));
        shared.records.push(Some(Record {
            at: now.since(start),
            kind,
            bytes: bytes as u64,
            latency: Duration::ZERO,
            outcome: RecordedOutcome::Never,
        }));
    }

    fn note_end(&mut self, now: Instant, done: &IoCompletion) {
        let Some((index, start)) = self.in_flight.remove(&done.tag) else { return };
        if let Some(record) = &mut self.control.lock().records[index] {
            record.latency = now.since(start);
            record.outcome = match done.outcome {
                Ok(()) => RecordedOutcome::Done,
                Err(error) => {
                    RecordedOutcome::Failed { error: error.source_code, effect: done.effect, copy: done.copy }
                }
            };
        }
    }
}

/// What a request does, and with how many bytes.
fn kind_of(operation: &Operation) -> (RequestKind, usize) {
    match operation {
        Operation::Read { buffer, .. } => (RequestKind::Read, buffer.len()),
        Operation::Write { data, .. } => (RequestKind::Write, data.len()),
        Operation::Flush => (RequestKind::Flush, 0),
    }
}

impl<D: BlockDevice> BlockDevice for Recorder<D> {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn submit(&mut self, now: Instant, request: IoRequest) -> Result<(), Refused> {
        let (tag, (kind, bytes)) = (request.tag, kind_of(&request.operation));
        self.inner.submit(now, request)?;
        self.note_start(now, tag, kind, bytes);
        Ok(())
    }

    fn poll(&mut self, now: Instant) -> Option<IoCompletion> {
        let done = self.inner.poll(now)?;
        self.note_end(now, &done);
        Some(done)
    }

    fn poll_event(&mut self, now: Instant) -> Option<DeviceEvent> {
        self.inner.poll_event(now)
    }

    fn next_wakeup(&self) -> Option<Instant> {
        self.inner.next_wakeup()
    }

    fn cancel(&mut self, now: Instant, tag: IoTag) -> Cancelled {
        let answer = self.inner.cancel(now, tag);
        if matches!(answer, Cancelled::Withdrawn(_))
            && let Some((index, _)) = self.in_flight.remove(&tag)
        {
            self.control.lock().records[index] = None;
        }
        answer
    }

    fn attach_pool(&mut self, pool: &BufferPool) {
        self.inner.attach_pool(pool);
    }

    fn wait_on(&self, descriptors: &mut Vec<RawFd>) {
        self.inner.wait_on(descriptors);
    }
}
