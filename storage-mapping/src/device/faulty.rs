//! A layer that makes any device below it misbehave, on purpose and repeatably.
//!
//! Keeps true: with no fault set, every request goes through unchanged; all chance comes from one
//! seed and all time from `now`, so that a run repeats exactly; every fault that was injected is
//! counted by kind ([`FaultCounters`]); the contract of the trait holds, even where the *content* is
//! made wrong on purpose.
//!
//! A request goes through these steps, some of which a fault adds or leaves out:
//!
//! ```text
//! submit ─▶ delayed (latency, jitter, rate) ─▶ [reads the old content] ─▶ main I/O below ─▶ completion
//!     └──▶ hung, until the hang ends ──┘                                      └─▶ ghost: the same write
//!                                                                                 once more, later
//! ```
//!
//! Not here: what is set for which path (`path_address`), faults of a whole storage system
//! (`storage_system`).

mod faults;
mod history;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::RawFd;
use std::time::Duration;

use nix::libc;

pub use self::faults::{FaultControl, FaultCounters, Faults, Hang};
use self::history::History;
use super::chance::Chance;
use super::in_flight::InFlight;
use crate::block::address::Lba;
use crate::block::buffer::{Buffer, BufferPool, SharedBuffer};
use crate::block::request::{
    Cancelled, CopyFate, Effect, IoBuffer, IoCompletion, IoError, IoRequest, IoTag, Operation, RefusalReason,
    Refused,
};
use crate::block::time::{Instant, earliest};
use crate::block::{BlockDevice, DeviceEvent, Geometry};
use crate::control_port::ControlPort;

/// A torn write lands up to a multiple of this many bytes, whatever the block size.
const TEAR_GRANULARITY_BYTES: u64 = 512;
/// Ghosts have the tags from here on; the submitter's tags lie below.
const FIRST_GHOST_TAG: u64 = u64::MAX - u32::MAX as u64;

/// What was drawn for a request when it came in.
#[derive(Clone, Debug)]
enum Fate {
    /// Goes through.
    Clean,
    /// Fails with EIO; a write lands all the same if `lands`.
    Error { lands: bool },
    /// A write that is acknowledged and not done.
    Lost,
    /// A write of which the first `bytes` land.
    Torn { bytes: usize, whole: SharedBuffer },
    /// A write that lands once more, later.
    Late { lba: Lba, data: SharedBuffer },
    /// A read that gives what was there before.
    Stale { lba: Lba },
}

/// A request on its way; the request itself is with the device below during the main I/O.
#[derive(Debug)]
struct Entry {
    fate: Fate,
    request: Option<IoRequest>,
    /// The device below reads what a write will replace.
    is_reading_old: bool,
}

/// What can go down to the device below.
#[derive(Debug)]
enum Work {
    /// An entry of the table, by its tag.
    Request(IoTag),
    /// The second landing of a late write: nobody waits for it.
    Ghost(IoRequest),
}

/// Whether the hang of [`Faults::hang`] goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HangState {
    NotYet,
    Since(Instant),
    Over,
}

/// A device that adds faults to the one below. Tags above 2⁶⁴ − 2³² are its own.
#[derive(Debug)]
pub struct FaultyDevice<D> {
    inner: D,
    control: FaultControl,
    faults: Faults,
    seen_generation: u64,
    chance: Chance,
    requests: InFlight<Entry>,
    /// What goes on when; the second number keeps the order among equal times.
    delayed: BTreeMap<(Instant, u64), Work>,
    order: u64,
    /// What the device below had no room for.
    stalled: VecDeque<Work>,
    hung: Vec<IoTag>,
    hang: HangState,
    accepted: u64,
    link_busy_until: Instant,
    ghosts: u64,
    history: History,
    ready: VecDeque<IoCompletion>,
}

impl<D: BlockDevice> FaultyDevice<D> {
    /// Puts `faults` over `inner`; `seed` decides which request meets which.
    pub fn new(inner: D, faults: Faults, seed: u64) -> Self {
        let capacity = inner.geometry().queue_depth;
        Self {
            inner,
            control: FaultControl::new(faults.clone()),
            faults,
            seen_generation: 0,
            chance: Chance::new(seed),
            requests: InFlight::new(capacity),
            delayed: BTreeMap::new(),
            order: 0,
            stalled: VecDeque::new(),
            hung: Vec::new(),
            hang: HangState::NotYet,
            accepted: 0,
            link_busy_until: Instant::ZERO,
            ghosts: 0,
            history: History::default(),
            ready: VecDeque::new(),
        }
    }

    /// A handle that changes the faults after the device has been moved elsewhere.
    #[must_use]
    pub fn control(&self) -> FaultControl {
        self.control.clone()
    }

    /// Sets other faults. A hang that was going on ends.
    pub fn set_faults(&mut self, faults: Faults) {
        self.control.set(faults);
    }

    /// What was injected so far.
    #[must_use]
    pub fn counters(&self) -> FaultCounters {
        self.control.counters()
    }

    fn count(&self, kind: impl FnOnce(&mut FaultCounters) -> &mut u64) {
        *kind(&mut self.control.lock().counters) += 1;
    }

    /// Takes over what a control set since the last call.
    fn refresh(&mut self, now: Instant) {
        let shared = self.control.lock();
        if shared.generation == self.seen_generation {
            return;
        }
        self.seen_generation = shared.generation;
        self.faults = shared.faults.clone();
        drop(shared);
        self.accepted = 0;
        self.release_hung(now, HangState::NotYet);
    }

    fn release_hung(&mut self, now: Instant, state: HangState) {
        self.hang = state;
        for tag in std::mem::take(&mut self.hung) {
            self.delay(now, Work::Request(tag));
        }
    }

    fn delay(&mut self, until: Instant, work: Work) {
        self.delayed.insert((until, self.order), work);
        self.order += 1;
    }

    fn hang_end(&self) -> Option<Instant> {
        match (self.hang, self.faults.hang) {
            (HangState::Since(start), Hang::After { duration: Some(duration), .. }) => Some(start + duration),
            _ => None,
        }
    }

    /// Counts a request and says whether it hangs.
    fn hangs(&mut self, now: Instant) -> bool {
        self.accepted += 1;
        if let (HangState::NotYet, Hang::After { requests, .. }) = (self.hang, self.faults.hang)
            && self.accepted > requests
        {
            self.hang = HangState::Since(now);
        }
        matches!(self.hang, HangState::Since(_))
    }

    fn draw_fate(&mut self, operation: &Operation) -> Fate {
        let Self { faults, chance, .. } = self;
        if chance.hits(faults.error) {
            return Fate::Error { lands: chance.below(2) == 0 };
        }
        match operation {
            Operation::Read { lba, .. } if chance.hits(faults.stale) => Fate::Stale { lba: *lba },
            Operation::Write { data, .. } if chance.hits(faults.torn) => {
                let pieces = data.len() as u64 / TEAR_GRANULARITY_BYTES;
                let bytes = usize::try_from(chance.below(pieces) * TEAR_GRANULARITY_BYTES);
                Fate::Torn { bytes: bytes.expect("below the buffer's length"), whole: data.clone() }
            }
            Operation::Write { .. } if chance.hits(faults.lost) => Fate::Lost,
            Operation::Write { lba, data, .. } if chance.hits(faults.late) => {
                Fate::Late { lba: *lba, data: data.clone() }
            }
            _ => Fate::Clean,
        }
    }

    /// When a request that comes in now has got through the link.
    fn arrival(&mut self, now: Instant, operation: &Operation) -> Instant {
        let bytes = match operation {
            Operation::Read { buffer, .. } => buffer.len(),
            Operation::Write { data, .. } => data.len(),
            Operation::Flush => 0,
        };
        let mut at = now;
        if let Some(rate) = self.faults.rate {
            let nanoseconds = bytes as u128 * 1_000_000_000 / u128::from(rate.max(1));
            let transfer = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
            at = self.link_busy_until.max(now) + transfer;
            self.link_busy_until = at;
        }
        let jitter = u64::try_from(self.faults.jitter.as_nanos()).unwrap_or(u64::MAX);
        at + self.faults.latency + Duration::from_nanos(self.chance.below(jitter))
    }

    /// Sends work down, or ends it here where its fate says so.
    fn start(&mut self, now: Instant, work: Work) {
        let tag = match work {
            Work::Ghost(ghost) => {
                if let Err(Refused { reason: RefusalReason::Busy, request }) = self.inner.submit(now, ghost) {
                    self.stalled.push_back(Work::Ghost(request));
                }
                return;
            }
            Work::Request(tag) => tag,
        };
        let keeps_old = self.faults.stale > 0.0;
        let entry = self.entry(tag);
        let request = entry.request.as_ref().expect("work waits with its request");
        let old_of = match (&request.operation, &entry.fate) {
            (_, Fate::Error { lands: false }) => {
                return self.finish_above(tag, Err(IoError::errno(libc::EIO)));
            }
            (_, Fate::Lost) => return self.finish_above(tag, Ok(())),
            (Operation::Write { lba, data, .. }, Fate::Torn { .. }) => Some((*lba, data.len())),
            (Operation::Write { lba, data, .. }, _) if keeps_old => Some((*lba, data.len())),
            _ => None,
        };
        match old_of {
            Some((lba, length)) => {
                entry.is_reading_old = true;
                let read = IoRequest::read(tag, lba, Buffer::zeroed(length));
                self.send(now, tag, read);
            }
            None => self.start_main(now, tag),
        }
    }

    fn start_main(&mut self, now: Instant, tag: IoTag) {
        let request = self.entry(tag).request.take().expect("work waits with its request");
        self.send(now, tag, request);
    }

    fn send(&mut self, now: Instant, tag: IoTag, request: IoRequest) {
        let Err(refused) = self.inner.submit(now, request) else { return };
        let entry = self.entry(tag);
        if std::mem::take(&mut entry.is_reading_old) {
            drop(refused.request);
        } else {
            entry.request = Some(refused.request);
        }
        match refused.reason {
            RefusalReason::Busy => self.stalled.push_back(Work::Request(tag)),
            RefusalReason::Invalid | RefusalReason::DuplicateTag => self.refuse(tag, libc::EINVAL),
            RefusalReason::Closed => self.refuse(tag, libc::ENODEV),
        }
    }

    fn entry(&mut self, tag: IoTag) -> &mut Entry {
        let index = self.requests.find(tag).expect("the tag is in the table");
        self.requests.entry(index).expect("found just now")
    }

    fn take(&mut self, tag: IoTag) -> Entry {
        let index = self.requests.find(tag).expect("the tag is in the table");
        self.requests.remove(index).expect("found just now")
    }

    /// Completes a request that never went down.
    fn finish_above(&mut self, tag: IoTag, outcome: Result<(), IoError>) {
        let request = self.take(tag).request.expect("work waits with its request");
        let done = match outcome {
            Ok(()) => {
                self.count(|counters| &mut counters.lost);
                request.complete(outcome, Effect::Full, CopyFate::Dead)
            }
            Err(error) => {
                self.count(|counters| &mut counters.errors);
                let copy = copy_after_error(&request.operation);
                request.complete(Err(error), Effect::Unknown, copy)
            }
        };
        self.ready.push_back(done);
    }

    fn refuse(&mut self, tag: IoTag, code: i32) {
        let request = self.take(tag).request.expect("what was refused came back");
        self.ready.push_back(request.complete(Err(IoError::errno(code)), Effect::None, CopyFate::Dead));
    }

    /// A completion of the device below: the end of a request, or of its first step.
    fn handle_completion(&mut self, now: Instant, done: IoCompletion) {
        if done.tag.0 >= FIRST_GHOST_TAG {
            return;
        }
        if self.entry(done.tag).is_reading_old {
            return self.handle_old_content(now, done);
        }
        let fate = self.take(done.tag).fate;
        let finished = self.apply(now, fate, done);
        self.ready.push_back(finished);
    }

    /// The content that a write is about to replace.
    fn handle_old_content(&mut self, now: Instant, done: IoCompletion) {
        let keeps_old = self.faults.stale > 0.0;
        let entry = self.entry(done.tag);
        entry.is_reading_old = false;
        let (Some(IoRequest { operation: Operation::Write { lba, data, .. }, .. }), Ok(())) =
            (&mut entry.request, done.outcome)
        else {
            // Without the old content the write goes through whole.
            entry.fate = Fate::Clean;
            return self.start_main(now, done.tag);
        };
        let lba = *lba;
        let old = done.buffer.into_read().expect("a read brings a buffer");
        if let Fate::Torn { bytes, whole } = &entry.fate {
            let mut torn = Buffer::copy_of(&old);
            torn[..*bytes].copy_from_slice(&whole[..*bytes]);
            *data = torn.freeze();
        }
        if keeps_old {
            self.history.remember(lba, old);
        }
        self.start_main(now, done.tag);
    }

    /// Makes the completion say what the fate wants.
    fn apply(&mut self, now: Instant, fate: Fate, mut done: IoCompletion) -> IoCompletion {
        match fate {
            Fate::Clean | Fate::Lost => {}
            Fate::Error { .. } => {
                self.count(|counters| &mut counters.errors);
                let is_write = matches!(done.buffer, IoBuffer::Write(_));
                done.outcome = Err(IoError::errno(libc::EIO));
                done.effect = Effect::Unknown;
                done.copy = if is_write { CopyFate::MayLand } else { CopyFate::Dead };
            }
            Fate::Torn { whole, .. } => {
                self.count(|counters| &mut counters.torn);
                done.buffer = IoBuffer::Write(whole);
            }
            Fate::Late { lba, data } => {
                self.count(|counters| &mut counters.late);
                let tag = IoTag(FIRST_GHOST_TAG + self.ghosts % u64::from(u32::MAX));
                self.ghosts += 1;
                let ghost = IoRequest::write(tag, lba, data, false);
                self.delay(now + self.faults.late_delay, Work::Ghost(ghost));
            }
            Fate::Stale { lba } => {
                let block_size = self.inner.geometry().block_size;
                if let IoBuffer::Read(buffer) = &mut done.buffer
                    && self.history.overlay(lba, buffer, block_size)
                {
                    self.count(|counters| &mut counters.stale);
                }
            }
        }
        done
    }

    /// Starts everything whose time has come.
    fn advance(&mut self, now: Instant) {
        if self.hang_end().is_some_and(|end| end <= now) {
            self.release_hung(now, HangState::Over);
        }
        while let Some(next) = self.delayed.first_entry()
            && next.key().0 <= now
        {
            let work = next.remove();
            self.start(now, work);
        }
    }

    /// Takes out a request that the device below had no room for. One that is delayed or hangs has left: as on a real
    /// path nobody gets it back.
    fn unqueue(&mut self, tag: IoTag) -> bool {
        let before = self.stalled.len();
        self.stalled.retain(|work| !matches!(work, Work::Request(waiting) if *waiting == tag));
        self.stalled.len() < before
    }
}

fn copy_after_error(operation: &Operation) -> CopyFate {
    match operation {
        Operation::Write { .. } => CopyFate::MayLand,
        Operation::Read { .. } | Operation::Flush => CopyFate::Dead,
    }
}

impl<D: BlockDevice> BlockDevice for FaultyDevice<D> {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn submit(&mut self, now: Instant, request: IoRequest) -> Result<(), Refused> {
        self.refresh(now);
        if let Some(reason) = self.requests.refusal(&self.inner.geometry(), &request) {
            return Err(Refused { reason, request });
        }
        let tag = request.tag;
        let fate = self.draw_fate(&request.operation);
        let arrival = self.arrival(now, &request.operation);
        self.requests.insert(tag, Entry { fate, request: Some(request), is_reading_old: false });
        if self.hangs(now) {
            self.count(|counters| &mut counters.hung);
            self.hung.push(tag);
        } else if arrival > now {
            self.delay(arrival, Work::Request(tag));
        } else {
            self.start(now, Work::Request(tag));
        }
        Ok(())
    }

    fn poll(&mut self, now: Instant) -> Option<IoCompletion> {
        self.refresh(now);
        self.advance(now);
        loop {
            if let Some(done) = self.ready.pop_front() {
                return Some(done);
            }
            let done = self.inner.poll(now)?;
            self.handle_completion(now, done);
            // A place below is free now.
            if let Some(work) = self.stalled.pop_front() {
                self.start(now, work);
            }
        }
    }

    fn poll_event(&mut self, now: Instant) -> Option<DeviceEvent> {
        self.inner.poll_event(now)
    }

    fn next_wakeup(&self) -> Option<Instant> {
        if !self.ready.is_empty() || self.control.lock().generation != self.seen_generation {
            return Some(Instant::ZERO);
        }
        let delayed = self.delayed.first_key_value().map(|((at, _), _)| *at);
        earliest(earliest(delayed, self.hang_end()), self.inner.next_wakeup())
    }

    fn cancel(&mut self, _now: Instant, tag: IoTag) -> Cancelled {
        if self.requests.find(tag).is_none() {
            return Cancelled::NotHere;
        }
        if self.unqueue(tag) {
            let request = self.take(tag).request.expect("work waits with its request");
            return Cancelled::Withdrawn(request);
        }
        Cancelled::Requested
    }

    fn attach_pool(&mut self, pool: &BufferPool) {
        self.inner.attach_pool(pool);
    }

    fn wait_on(&self, descriptors: &mut Vec<RawFd>) {
        self.inner.wait_on(descriptors);
    }

    /// Control commands meet none of these faults.
    fn control_port(&mut self) -> Option<&mut dyn ControlPort> {
        self.inner.control_port()
    }
}
