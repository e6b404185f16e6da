//! What really happened, and what may be true after it: the judge, who trusts nothing that the device says of itself.
//!
//! He hears of every write when it is submitted, when it goes to a path, when it lands on the medium and when it ends,
//! and he knows which write every block of the medium holds. From that he decides:
//!
//! | found | rule |
//! |---|---|
//! | lost | a write that was acknowledged has landed, every block of it |
//! | stale | a read gives no older write than one that was acknowledged, or read, before it was submitted |
//! | torn, misaddressed | every block that is read, sent or landed is one whole block of its address |
//! | fence | a write lands only while no later write to its block was sent to any path |
//! | effect | *no effect* never lands; *dead* and *settled* do not land any more; a copy that may land is settled once |
//! | attempts | no request is sent more often than allowed, or after its end |
//! | flush | what was acknowledged before a flush was carried by a path that flushed after it |
//!
//! Writes whose sender asked for [`FencePolicy::Unsafe`] have blocks of their own: there a read gives no write that had
//! ended, with all its copies, before another was submitted that was acknowledged before the read.
//!
//! Keeps true: the first violation stays. Not here: who is told what and when (`world`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use storage_mapping::{
    CopyFate, Effect, FencePolicy, Instant, IoCompletion, IoRequest, IoTag, Lba, Operation, SettledProof,
};

use super::stamp::{self, BLOCK_BYTES, Damage};

/// Which promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Broken {
    /// An acknowledged write is not there.
    Lost,
    /// Older data than allowed.
    Stale,
    /// A block of parts.
    Torn,
    /// A block of another address.
    Misaddressed,
    /// An old copy and a newer write were on their way to one block at once.
    Fence,
    /// What a completion or an event said of effect and copies is not so.
    Effect,
    /// Sent too often, or too late.
    Attempts,
    /// Durable only by its word.
    Flush,
    /// An answer that is none of a request, or a second one.
    Answer,
    /// A buffer of the wrong kind or size, or bytes of a write that changed.
    Buffer,
    /// No answer in time.
    Unanswered,
    /// It wants to be called again and again and does nothing.
    BusyLoop,
    /// An error for the caller although a good path was there all the time.
    NeedlessError,
    /// A write was held longer than its reason.
    Held,
    /// The code gave up.
    Panic,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub broken: Broken,
    /// When.
    pub at: Instant,
    /// In words.
    pub text: String,
}

/// A write of the submitter.
#[derive(Debug)]
struct Write {
    lba: Lba,
    count: u64,
    /// Overlapping writes go in the order of their submission.
    is_ordered: bool,
    /// Blocks that landed, a bit each.
    landed: u32,
    attempts: u32,
    submitted: u64,
    /// It was acknowledged.
    acked: u64,
    /// No copy of it lands after this.
    dead: u64,
    is_over: bool,
    /// It ended without effect.
    is_void: bool,
    /// It ended with a copy that may land, and no event has said yet that it does not.
    awaits_settled: bool,
    /// Paths that did it, and when.
    done_on: Vec<(usize, u64)>,
}

/// "Not yet".
const NEVER: u64 = u64::MAX;

/// A block of the device.
#[derive(Clone, Debug, Default)]
struct Block {
    /// The write that it holds.
    content: u64,
    /// The latest ordered write that went to any path.
    sent: u64,
    /// The latest ordered write that was acknowledged or read.
    floor: u64,
    /// All unordered writes.
    unordered: Vec<u64>,
}

/// What an attempt on a path is.
#[derive(Clone, Copy, Debug)]
enum OnPath {
    Write(u64),
    Flush { sent: u64 },
}

/// What a read must not be older than.
#[derive(Debug)]
pub(super) struct ReadView {
    begun: u64,
    floors: Vec<u64>,
}

/// Totals for the report.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    /// Attempts of requests.
    pub(super) sent: u64,
    /// Attempts after the first.
    pub(super) resent: u64,
    /// Writes that landed after they had landed once, or after they had ended.
    pub(super) late_landings: u64,
}

/// All that is known.
pub(super) struct Truth {
    attempts_max: u32,
    cache_is_shared: bool,
    writes: Vec<Write>,
    blocks: Vec<Block>,
    /// Attempts of reads and flushes by their deadline, of which no two have the same, and path of a flush.
    attempts: HashMap<(Instant, usize), u32>,
    on_paths: HashMap<(usize, IoTag), OnPath>,
    /// Counts all that happens.
    sequence: u64,
    /// By path: when the last flush was sent that succeeded.
    flushed: Vec<u64>,
    /// Acknowledged, and not known to be durable.
    volatile: Vec<u64>,
    pub(super) totals: Totals,
    pub(super) violation: Option<Violation>,
}

/// The truth, in the hands of everybody who sees a part of it.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Truth>>);

impl Shared {
    pub(super) fn new(truth: Truth) -> Self {
        Self(Arc::new(Mutex::new(truth)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Truth> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn number(write: u64) -> usize {
    usize::try_from(write - 1).expect("writes of one run are counted in memory")
}

fn place(lba: Lba) -> usize {
    usize::try_from(lba.0).expect("blocks of one run are counted in memory")
}

impl Truth {
    pub(super) fn new(blocks: u64, paths: usize, attempts_max: u32, cache_is_shared: bool) -> Self {
        Self {
            attempts_max,
            cache_is_shared,
            writes: Vec::new(),
            blocks: vec![Block::default(); place(Lba(blocks))],
            attempts: HashMap::new(),
            on_paths: HashMap::new(),
            sequence: 0,
            flushed: vec![0; paths],
            volatile: Vec::new(),
            totals: Totals::default(),
            violation: None,
        }
    }

    /// Notes a broken promise, if it is the first.
    pub(super) fn break_promise(&mut self, broken: Broken, at: Instant, text: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { broken, at, text: text() });
        }
    }

    fn next(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// A write is about to be submitted; this is its number.
    pub(super) fn begin_write(&mut self, lba: Lba, count: u64, policy: FencePolicy, is_judged: bool) -> u64 {
        let submitted = self.next();
        let is_ordered = policy != FencePolicy::Unsafe || is_judged;
        self.writes.push(Write {
            lba,
            count,
            is_ordered,
            landed: 0,
            attempts: 0,
            submitted,
            acked: NEVER,
            dead: NEVER,
            is_over: false,
            is_void: false,
            awaits_settled: false,
            done_on: Vec::new(),
        });
        let write = self.writes.len() as u64;
        if !is_ordered {
            for block in &mut self.blocks[place(lba)..place(lba) + place(Lba(count))] {
                block.unordered.push(write);
            }
        }
        write
    }

    /// The write was refused, or given back: it never happened.
    pub(super) fn void_write(&mut self, now: Instant, write: u64) {
        let entry = &mut self.writes[number(write)];
        (entry.is_void, entry.is_over, entry.dead) = (true, true, 0);
        if entry.landed != 0 {
            self.break_promise(Broken::Effect, now, || {
                format!("write {write} was given back and had landed")
            });
        }
    }

    /// The write has completed.
    pub(super) fn end_write(
        &mut self,
        now: Instant,
        write: u64,
        is_ok: bool,
        effect: Effect,
        copy: CopyFate,
    ) {
        let sequence = self.next();
        let entry = &mut self.writes[number(write)];
        entry.is_over = true;
        let is_whole = entry.landed.count_ones() as u64 == entry.count;
        let landed = entry.landed;
        if copy == CopyFate::Dead {
            entry.dead = sequence;
        } else {
            entry.awaits_settled = true;
        }
        if is_ok {
            entry.acked = sequence;
            if entry.is_ordered {
                let (lba, count) = (entry.lba, entry.count);
                for block in &mut self.blocks[place(lba)..place(lba) + place(Lba(count))] {
                    block.floor = block.floor.max(write);
                }
            }
            self.volatile.push(write);
        }
        if (is_ok || effect == Effect::Full) && !is_whole {
            let text = || format!("write {write} ended as done, and of its blocks only {landed:b} landed");
            return self.break_promise(Broken::Lost, now, text);
        }
        if effect == Effect::None {
            let entry = &mut self.writes[number(write)];
            (entry.is_void, entry.dead) = (true, 0);
            let is_living = entry.awaits_settled;
            if landed != 0 || is_living {
                let text =
                    || format!("write {write} ended without effect; landed {landed:b}, living {is_living}");
                self.break_promise(Broken::Effect, now, text);
            }
        }
    }

    /// An event said that no copy of the write lands any more.
    pub(super) fn settled(&mut self, now: Instant, write: u64, proof: SettledProof) {
        let sequence = self.next();
        let Some(entry) = write.checked_sub(1).and_then(|_| self.writes.get_mut(number(write))) else {
            return self
                .break_promise(Broken::Effect, now, || format!("settled: {write}, which is no write"));
        };
        if !entry.awaits_settled {
            let text =
                || format!("settled ({proof:?}): write {write}, of which no copy was said to be living");
            return self.break_promise(Broken::Effect, now, text);
        }
        (entry.awaits_settled, entry.dead) = (false, sequence);
    }

    /// A block of a write landed on the medium.
    pub(super) fn landed(&mut self, now: Instant, block: &[u8]) {
        let Ok(Some((write, lba))) = stamp::origin(block) else {
            return self.break_promise(Broken::Torn, now, || "a torn block landed".to_owned());
        };
        let entry = &mut self.writes[number(write)];
        let bit = 1 << (lba.0 - entry.lba.0);
        if lba == entry.lba && (entry.is_over || entry.landed & bit != 0) {
            self.totals.late_landings += 1;
        }
        entry.landed |= bit;
        let (is_ordered, is_void, is_dead) = (entry.is_ordered, entry.is_void, entry.dead != NEVER);
        let place = &mut self.blocks[place(lba)];
        let (before, sent) = (place.content, place.sent);
        place.content = write;
        if is_void {
            let text = || format!("write {write} landed on {lba}, which was said to have no effect");
            self.break_promise(Broken::Effect, now, text);
        } else if is_ordered && before > write {
            let text = || format!("write {write} landed on {lba} over write {before}, which is newer");
            self.break_promise(Broken::Stale, now, text);
        } else if is_ordered && sent > write {
            let text = || format!("write {write} landed on {lba} after write {sent} was sent");
            self.break_promise(Broken::Fence, now, text);
        } else if is_dead {
            let text = || format!("write {write} landed on {lba} after its copies were said to be dead");
            self.break_promise(Broken::Effect, now, text);
        }
    }

    /// A request goes to a path.
    pub(super) fn sent(&mut self, now: Instant, path: usize, request: &IoRequest) {
        let sequence = self.next();
        let attempts = match &request.operation {
            Operation::Write { lba, data, .. } => {
                let Some(write) = self.check_bytes(now, *lba, data) else { return };
                self.on_paths.insert((path, request.tag), OnPath::Write(write));
                let entry = &mut self.writes[number(write)];
                entry.attempts += 1;
                let (attempts, is_over, is_ordered) = (entry.attempts, entry.is_over, entry.is_ordered);
                if is_over {
                    self.break_promise(Broken::Attempts, now, || {
                        format!("write {write} was sent after its end")
                    });
                }
                if is_ordered {
                    for block in &mut self.blocks[place(*lba)..place(*lba) + data.len() / BLOCK_BYTES] {
                        block.sent = block.sent.max(write);
                    }
                }
                attempts
            }
            Operation::Read { .. } => {
                // What has no deadline is a read of the device itself.
                let Some(deadline) = request.deadline else { return };
                let attempts = self.attempts.entry((deadline, usize::MAX)).or_default();
                *attempts += 1;
                *attempts
            }
            Operation::Flush => {
                self.on_paths.insert((path, request.tag), OnPath::Flush { sent: sequence });
                let Some(deadline) = request.deadline else { return };
                let attempts = self.attempts.entry((deadline, path)).or_default();
                *attempts += 1;
                *attempts
            }
        };
        self.totals.sent += 1;
        self.totals.resent += u64::from(attempts > 1);
        if attempts > self.attempts_max {
            let text = || format!("{:?} was sent {attempts} times", request.operation);
            self.break_promise(Broken::Attempts, now, text);
        }
    }

    /// The write whose bytes these are, if they are whole and for this address.
    fn check_bytes(&mut self, now: Instant, lba: Lba, data: &[u8]) -> Option<u64> {
        let blocks = data.chunks_exact(BLOCK_BYTES).zip(lba.0..);
        let mut writes = blocks.map(|(block, at)| stamp::read(block, Lba(at)));
        let first = writes.next().and_then(Result::ok).filter(|write| *write != 0);
        if first.is_none() || writes.any(|write| write.ok() != first) {
            self.break_promise(Broken::Buffer, now, || format!("the bytes of a write to {lba} changed"));
            return None;
        }
        first
    }

    /// A request came back from a path.
    pub(super) fn came_back(&mut self, _now: Instant, path: usize, done: &IoCompletion) {
        let sequence = self.next();
        let Some(on_path) = self.on_paths.remove(&(path, done.tag)) else { return };
        match on_path {
            OnPath::Write(write) if done.outcome.is_ok() => {
                self.writes[number(write)].done_on.push((path, sequence));
            }
            OnPath::Flush { sent } if done.outcome.is_ok() => {
                self.flushed[path] = self.flushed[path].max(sent);
            }
            OnPath::Write(_) | OnPath::Flush { .. } => {}
        }
    }

    /// A request was withdrawn from a path.
    pub(super) fn withdrawn_from_path(&mut self, path: usize, tag: IoTag) {
        self.on_paths.remove(&(path, tag));
    }

    /// A read is submitted.
    pub(super) fn begin_read(&mut self, lba: Lba, count: usize) -> ReadView {
        let begun = self.next();
        let floors = self.blocks[place(lba)..place(lba) + count].iter().map(|block| block.floor).collect();
        ReadView { begun, floors }
    }

    /// A read has succeeded with these bytes.
    pub(super) fn end_read(&mut self, now: Instant, view: &ReadView, lba: Lba, bytes: &[u8]) {
        for ((block, at), floor) in bytes.chunks_exact(BLOCK_BYTES).zip(lba.0..).zip(&view.floors) {
            let at = Lba(at);
            match stamp::read(block, at) {
                Ok(write) => self.check_read(now, view.begun, at, write, *floor),
                Err(Damage::Torn) => {
                    self.break_promise(Broken::Torn, now, || format!("a read of {at} gave a torn block"));
                }
                Err(Damage::Elsewhere(other)) => {
                    let text = || format!("a read of {at} gave block {other}");
                    self.break_promise(Broken::Misaddressed, now, text);
                }
            }
        }
    }

    fn check_read(&mut self, now: Instant, begun: u64, lba: Lba, write: u64, floor: u64) {
        let (is_void, dead) = match write {
            0 => (false, 0),
            write => {
                let entry = &self.writes[number(write)];
                (entry.is_void, entry.dead)
            }
        };
        let block = &mut self.blocks[place(lba)];
        let newer = |other: &&u64| {
            let other = &self.writes[number(**other)];
            other.acked < begun && other.submitted > dead
        };
        let later = block.unordered.iter().find(newer).copied();
        if block.unordered.is_empty() {
            block.floor = block.floor.max(write);
        }
        if is_void {
            let text = || format!("a read of {lba} gave write {write}, which had no effect");
            self.break_promise(Broken::Effect, now, text);
        } else if write < floor {
            let text =
                || format!("a read of {lba} gave write {write}; {floor} was there before it was submitted");
            self.break_promise(Broken::Stale, now, text);
        } else if let Some(later) = later {
            let text = || format!("a read of {lba} gave write {write}, which was over when {later} began");
            self.break_promise(Broken::Stale, now, text);
        }
    }

    /// A flush is submitted.
    pub(super) fn begin_flush(&mut self) -> u64 {
        self.next()
    }

    /// A flush has ended. What it failed to make durable is up to its sender.
    pub(super) fn end_flush(&mut self, now: Instant, begun: u64, is_ok: bool) {
        let is_later = |write: &u64| self.writes[number(*write)].acked > begun;
        let (later, before): (Vec<u64>, Vec<u64>) = self.volatile.iter().partition(|write| is_later(write));
        self.volatile = later;
        if !is_ok {
            return;
        }
        let any = self.flushed.iter().copied().max().unwrap_or(0);
        let is_durable = |write: &u64| {
            let flushed = |path: usize| if self.cache_is_shared { any } else { self.flushed[path] };
            self.writes[number(*write)].done_on.iter().any(|(path, done)| flushed(*path) > *done)
        };
        if let Some(write) = before.into_iter().find(|write| !is_durable(write)) {
            let on = self.writes[number(write)].done_on.clone();
            let text =
                || format!("a flush succeeded, and write {write} was in no cache that was flushed: {on:?}");
            self.break_promise(Broken::Flush, now, text);
        }
    }

    /// Nothing is in flight and nothing may land: what must hold then.
    pub(super) fn check_rest(&mut self, now: Instant) {
        let behind = (0..).zip(&self.blocks).find(|(_, block)| block.content < block.floor);
        if let Some((lba, Block { content, floor, .. })) = behind.map(|(lba, block)| (lba, block.clone())) {
            let text = || format!("block {lba} holds write {content} in the end; {floor} was there");
            self.break_promise(Broken::Lost, now, text);
        }
        let open = self.writes.iter().position(|write| write.awaits_settled);
        if let Some(index) = open {
            let text = || format!("write {} left a living copy, of which nothing more was told", index + 1);
            self.break_promise(Broken::Effect, now, text);
        }
    }
}
