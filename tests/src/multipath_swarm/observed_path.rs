//! A path with somebody beside it who notes all that passes, and who lets it have short queues and close.
//!
//! Keeps true: requests and completions pass unchanged; what is refused here was never on the path. Not here: what
//! follows from what was seen (`truth`).

use std::os::fd::RawFd;

use storage_mapping::{
    BlockDevice, BufferPool, Cancelled, DeviceEvent, Geometry, Instant, IoCompletion, IoRequest, IoTag,
    RefusalReason, Refused,
};

use super::truth::Shared;

/// One path under observation.
pub(super) struct ObservedPath {
    path: usize,
    inner: Box<dyn BlockDevice>,
    /// Requests that it takes at once.
    depth: usize,
    in_flight: usize,
    /// From when until when it takes nothing.
    closed: Option<(Instant, Instant)>,
    truth: Shared,
}

impl ObservedPath {
    pub(super) fn new(
        path: usize,
        inner: Box<dyn BlockDevice>,
        depth: usize,
        closed: Option<(Instant, Instant)>,
        truth: Shared,
    ) -> Self {
        Self { path, inner, depth, in_flight: 0, closed, truth }
    }
}

impl BlockDevice for ObservedPath {
    fn geometry(&self) -> Geometry {
        Geometry { queue_depth: self.depth, ..self.inner.geometry() }
    }

    fn submit(&mut self, now: Instant, request: IoRequest) -> Result<(), Refused> {
        if self.closed.is_some_and(|(from, until)| from <= now && now < until) {
            return Err(Refused { reason: RefusalReason::Closed, request });
        }
        if self.in_flight >= self.depth {
            return Err(Refused { reason: RefusalReason::Busy, request });
        }
        // Before it is taken: a path without latency lands a write at once.
        self.truth.lock().sent(now, self.path, &request);
        self.inner.submit(now, request)?;
        self.in_flight += 1;
        Ok(())
    }

    fn poll(&mut self, now: Instant) -> Option<IoCompletion> {
        let done = self.inner.poll(now)?;
        self.in_flight -= 1;
        self.truth.lock().came_back(now, self.path, &done);
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
        if matches!(answer, Cancelled::Withdrawn(_)) {
            self.in_flight -= 1;
            self.truth.lock().withdrawn_from_path(self.path, tag);
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
