//! A device that takes as long as a recording says, and fails as it says.
//!
//! Keeps true: reads follow the reads of the recording, writes its writes, flushes its flushes; the data is
//! that of the device below; a request whose record had no effect does not reach it, one whose record never
//! ended never ends. Not here: how the recorded latency would have been with other sizes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::RawFd;
use std::time::Duration;

use nix::libc;

use super::{Record, RecordedOutcome, Recording, RequestKind};
use crate::block::buffer::BufferPool;
use crate::block::request::{
    Cancelled, CopyFate, Effect, IoCompletion, IoError, IoRequest, IoTag, Operation, RefusalReason, Refused,
};
use crate::block::time::{Instant, earliest};
use crate::block::{BlockDevice, DeviceEvent, Geometry};
use crate::device::in_flight::InFlight;

/// Which record a request follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// The last that came in no later, counted from the first request: what happened at a time happens then,
    /// however many requests there are.
    Time,
    /// The next one of its kind: what happened to the n-th happens to the n-th.
    Number,
}

/// The records of one kind.
#[derive(Debug, Default)]
struct Track {
    records: Vec<Record>,
    next: usize,
}

/// A device that behaves as was recorded. At the end of the recording it begins anew.
#[derive(Debug)]
pub struct ReplayDevice<D> {
    inner: D,
    follow: Follow,
    tracks: [Track; 3],
    /// How long the recording is.
    span: Duration,
    start: Option<Instant>,
    requests: InFlight<()>,
    /// What goes on when; the second number keeps the order among equal times.
    waiting: BTreeMap<(Instant, u64), (IoRequest, RecordedOutcome)>,
    order: u64,
    /// What the device below had no room for.
    stalled: VecDeque<(IoRequest, RecordedOutcome)>,
    /// What never ends.
    lost: Vec<IoRequest>,
    /// How the requests that the device below has are to end.
    outcomes: HashMap<IoTag, RecordedOutcome>,
    ready: VecDeque<IoCompletion>,
}

impl<D: BlockDevice> ReplayDevice<D> {
    /// Plays `recording` over the data of `inner`. A kind of request that it has none of is done at once.
    pub fn new(inner: D, recording: &Recording, follow: Follow) -> Self {
        let mut tracks: [Track; 3] = std::array::from_fn(|_| Track::default());
        for record in &recording.records {
            tracks[track_of(record.kind)].records.push(*record);
        }
        let last = recording.records.last().map_or(Duration::ZERO, |record| record.at);
        let requests = InFlight::new(inner.geometry().queue_depth);
        Self {
            inner,
            follow,
            tracks,
            span: last.saturating_add(Duration::from_nanos(1)),
            start: None,
            requests,
            waiting: BTreeMap::new(),
            order: 0,
            stalled: VecDeque::new(),
            lost: Vec::new(),
            outcomes: HashMap::new(),
            ready: VecDeque::new(),
        }
    }

    /// The record that a request of this kind follows.
    fn record_for(&mut self, now: Instant, kind: RequestKind) -> Option<Record> {
        let elapsed = now.since(*self.start.get_or_insert(now));
        let track = &mut self.tracks[track_of(kind)];
        let index = match self.follow {
            Follow::Number => {
                let after = (track.next + 1) % track.records.len().max(1);
                std::mem::replace(&mut track.next, after)
            }
            Follow::Time => {
                let within = Duration::from_nanos(
                    u64::try_from(elapsed.as_nanos() % self.span.as_nanos()).unwrap_or(u64::MAX),
                );
                track.records.partition_point(|record| record.at <= within).saturating_sub(1)
            }
        };
        track.records.get(index).copied()
    }

    fn forget(&mut self, tag: IoTag) {
        if let Some(index) = self.requests.find(tag) {
            self.requests.remove(index);
        }
    }

    /// Starts everything whose time has come.
    fn advance(&mut self, now: Instant) {
        for _ in 0..self.stalled.len() {
            if let Some((request, outcome)) = self.stalled.pop_front() {
                self.start(now, request, outcome);
            }
        }
        while let Some(next) = self.waiting.first_entry()
            && next.key().0 <= now
        {
            let (request, outcome) = next.remove();
            self.start(now, request, outcome);
        }
    }

    fn start(&mut self, now: Instant, request: IoRequest, outcome: RecordedOutcome) {
        let tag = request.tag;
        if let RecordedOutcome::Failed { error, effect: Effect::None, copy } = outcome {
            self.forget(tag);
            return self.ready.push_back(request.complete(Err(error.into()), Effect::None, copy));
        }
        let Err(Refused { reason, request }) = self.inner.submit(now, request) else {
            self.outcomes.insert(tag, outcome);
            return;
        };
        let code = match reason {
            RefusalReason::Busy => return self.stalled.push_back((request, outcome)),
            RefusalReason::Invalid | RefusalReason::DuplicateTag => libc::EINVAL,
            RefusalReason::Closed => libc::ENODEV,
        };
        self.forget(tag);
        let done = request.complete(Err(IoError::errno(code)), Effect::None, CopyFate::Dead);
        self.ready.push_back(done);
    }
}

fn track_of(kind: RequestKind) -> usize {
    match kind {
        RequestKind::Read => 0,
        RequestKind::Write => 1,
        RequestKind::Flush => 2,
    }
}

impl<D: BlockDevice> BlockDevice for ReplayDevice<D> {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn submit(&mut self, now: Instant, request: IoRequest) -> Result<(), Refused> {
        if let Some(reason) = self.requests.refusal(&self.inner.geometry(), &request) {
            return Err(Refused { reason, request });
        }
        self.requests.insert(request.tag, ());
        let kind = match &request.operation {
            Operation::Read { .. } => RequestKind::Read,
            Operation::Write { .. } => RequestKind::Write,
            Operation::Flush => RequestKind::Flush,
        };
        let (latency, outcome) = self
            .record_for(now, kind)
            .map_or((Duration::ZERO, RecordedOutcome::Done), |record| (record.latency, record.outcome));
        if outcome == RecordedOutcome::Never {
            self.lost.push(request);
        } else {
            self.waiting.insert((now + latency, self.order), (request, outcome));
            self.order += 1;
        }
        Ok(())
    }

    fn poll(&mut self, now: Instant) -> Option<IoCompletion> {
        self.advance(now);
        if let Some(done) = self.ready.pop_front() {
            return Some(done);
        }
        let mut done = self.inner.poll(now)?;
        self.forget(done.tag);
        if let Some(RecordedOutcome::Failed { error, effect, copy }) = self.outcomes.remove(&done.tag) {
            (done.outcome, done.effect, done.copy) = (Err(error.into()), effect, copy);
        }
        Some(done)
    }

    fn poll_event(&mut self, now: Instant) -> Option<DeviceEvent> {
        self.inner.poll_event(now)
    }

    fn next_wakeup(&self) -> Option<Instant> {
        if !self.ready.is_empty() {
            return Some(Instant::ZERO);
        }
        let waiting = self.waiting.first_key_value().map(|((at, _), _)| *at);
        earliest(waiting, self.inner.next_wakeup())
    }

    fn cancel(&mut self, _now: Instant, tag: IoTag) -> Cancelled {
        // What was recorded had left.
        if self.requests.find(tag).is_some() { Cancelled::Requested } else { Cancelled::NotHere }
    }

    fn attach_pool(&mut self, pool: &BufferPool) {
        self.inner.attach_pool(pool);
    }

    fn wait_on(&self, descriptors: &mut Vec<RawFd>) {
        self.inner.wait_on(descriptors);
    }
}
