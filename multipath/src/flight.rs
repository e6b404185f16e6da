//! Requests that the device has accepted, and the attempts that it made for them.
//!
//! Keeps true: a place that is freed is used again, so nothing is allocated once warm; an attempt
//! outlives its request if it is given up on, for the path still has its buffer; no tag of an attempt is
//! used twice, so that what a path says late is never taken for news of another. Not here: decisions.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use storage_mapping::{
    Buffer, CopyFate, Effect, FencePolicy, Instant, IoBuffer, IoCompletion, IoError, IoRequest, IoTag, Lba,
    Operation, PathIndex, SharedBuffer,
};

use crate::error_class::IoKind;
use crate::fence::BlockRange;
use crate::out_of_band::router::CONTROL_TAG;
use crate::path_state::PathSet;

/// What a request does, with what is needed to send it once more.
#[derive(Debug)]
pub(crate) enum Work {
    /// The buffer is here only while the request is not on a path.
    Read {
        lba: Lba,
        length: usize,
        buffer: Option<Buffer>,
    },
    Write {
        lba: Lba,
        data: SharedBuffer,
        fua: bool,
    },
    /// `parts_left` counts the dirty paths that have not answered; without it any one path will do. The flush covers
    /// the writes that paths had carried when it came in, up to number `covers`; `failed` are paths that could not do it.
    Flush {
        parts_left: Option<usize>,
        covers: u64,
        failed: PathSet,
    },
}

impl Work {
    /// Length of the transfer; 0 for a flush.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Read { length, .. } => *length,
            Self::Write { data, .. } => data.len(),
            Self::Flush { .. } => 0,
        }
    }
}

/// One request of the submitter.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) tag: IoTag,
    /// Its name where the submitter's may have been used before.
    pub(crate) serial: IoTag,
    pub(crate) work: Work,
    pub(crate) submitted: Instant,
    pub(crate) deadline: Option<Instant>,
    pub(crate) fence: FencePolicy,
    /// The one path it may take, if the submitter named one.
    pub(crate) path: Option<PathIndex>,
    pub(crate) hedge: bool,
    pub(crate) attempts: u32,
    /// Paths that it is on now: more than one while a read is hedged.
    pub(crate) on_paths: u32,
    /// When to send a read a second time.
    pub(crate) hedge_at: Option<Instant>,
    /// The path whose slowness a second read is to make good.
    pub(crate) hedged: Option<PathIndex>,
    /// A drill was on a path that it took or wanted.
    pub(crate) met_drill: bool,
    /// It is a read of a drill's own load: nobody waits for it.
    pub(crate) is_load: bool,
    /// The path of its last attempt.
    pub(crate) last_path: Option<PathIndex>,
    /// It had to wait for a path.
    pub(crate) has_waited: bool,
    /// When the last attempt failed.
    pub(crate) failed_at: Option<Instant>,
    /// Paths that gave an error.
    pub(crate) tried: PathSet,
    /// The last error, while there is a way on.
    pub(crate) error: Option<IoError>,
    /// Done over this path; the answer waits for the death of an older copy ([`FencePolicy::Wait`]).
    pub(crate) done_on: Option<PathIndex>,
    /// The worst that is known of all attempts.
    pub(crate) effect: Effect,
    pub(crate) copy: CopyFate,
}

impl Flight {
    /// A request that nothing was done for yet.
    pub(crate) fn new(now: Instant, serial: u64, request: IoRequest) -> Self {
        let work = match request.operation {
            Operation::Read { lba, buffer } => Work::Read { lba, length: buffer.len(), buffer: Some(buffer) },
            Operation::Write { lba, data, fua } => Work::Write { lba, data, fua },
            Operation::Flush => Work::Flush { parts_left: None, covers: 0, failed: PathSet::EMPTY },
        };
        Self {
            tag: request.tag,
            serial: IoTag(FIRST_FLIGHT | serial),
            work,
            submitted: now,
            deadline: request.deadline,
            fence: request.fence,
            path: request.path,
            hedge: request.hedge,
            attempts: 0,
            on_paths: 0,
            hedge_at: None,
            hedged: None,
            met_drill: false,
            is_load: false,
            last_path: None,
            has_waited: false,
            failed_at: None,
            tried: PathSet::EMPTY,
            error: None,
            done_on: None,
            effect: Effect::None,
            copy: CopyFate::Dead,
        }
    }

    /// The request as it came in; its buffer is here.
    pub(crate) fn into_request(self) -> IoRequest {
        let operation = match self.work {
            Work::Read { lba, buffer, .. } => {
                let buffer = buffer.expect("a withdrawn read has its buffer back");
                Operation::Read { lba, buffer }
            }
            Work::Write { lba, data, fua } => Operation::Write { lba, data, fua },
            Work::Flush { .. } => Operation::Flush,
        };
        let Self { tag, deadline, fence, path, hedge, .. } = self;
        IoRequest { tag, operation, deadline, fence, path, hedge }
    }

    pub(crate) fn kind(&self) -> IoKind {
        match self.work {
            Work::Read { .. } => IoKind::Read,
            Work::Write { .. } => IoKind::Write,
            Work::Flush { .. } => IoKind::Flush,
        }
    }

    pub(crate) fn is_write(&self) -> bool {
        matches!(self.work, Work::Write { .. })
    }

    /// The blocks that a write changes, if it is held until no other copy can land there.
    pub(crate) fn fenced_range(&self, block_bytes: usize) -> Option<BlockRange> {
        self.range(block_bytes).filter(|_| self.fence != FencePolicy::Unsafe)
    }

    /// The blocks that a write changes.
    pub(crate) fn range(&self, block_bytes: usize) -> Option<BlockRange> {
        match &self.work {
            Work::Write { lba, data, .. } => Some(BlockRange::new(*lba, (data.len() / block_bytes) as u64)),
            Work::Read { .. } | Work::Flush { .. } => None,
        }
    }

    pub(crate) fn is_flush(&self) -> bool {
        matches!(self.work, Work::Flush { .. })
    }

    /// Adds what a failed attempt leaves behind.
    pub(crate) fn note_failure(&mut self, error: IoError, effect: Effect, copy: CopyFate) {
        self.error = Some(error);
        match (self.effect, effect) {
            (Effect::Unknown, _) | (_, Effect::None) => {}
            (_, effect) => self.effect = effect,
        }
        if copy == CopyFate::MayLand {
            self.copy = CopyFate::MayLand;
        }
    }

    /// The completion with the buffer; a read whose buffer hangs gets what `replace` gives.
    pub(crate) fn complete(
        self,
        outcome: Result<(), IoError>,
        replace: impl FnOnce(usize) -> Buffer,
    ) -> IoCompletion {
        let effect = if outcome.is_ok() { Effect::Full } else { self.effect };
        let buffer = match self.work {
            Work::Read { length, buffer, .. } => IoBuffer::Read(buffer.unwrap_or_else(|| replace(length))),
            Work::Write { data, .. } => IoBuffer::Write(data),
            Work::Flush { .. } => IoBuffer::None,
        };
        IoCompletion { tag: self.tag, outcome, effect, copy: self.copy, buffer }
    }
}

/// Bits of an attempt's tag that say its place; the others number the attempts, so that no tag is used twice.
const PLACE_BITS: u32 = 24;
/// Attempts are numbered up to here and then from 0 on. Tags from 2⁶² on are those of control commands, and from 2⁶³ on they
/// are left to the devices below.
const SERIAL_MAX: u64 = (CONTROL_TAG >> PLACE_BITS) - 1;

/// Requests are numbered from here on, and so have no number that an attempt has.
const FIRST_FLIGHT: u64 = 1 << 63;

/// What an attempt was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A request, by its place.
    Flight(usize),
    /// A request that goes on without it, or is over.
    Orphan { kind: IoKind },
    /// To see whether the path answers. One that took too long has been held against the path already.
    Probe { is_late: bool },
    /// To compare the path with another; the number is that of the comparison's path.
    Proof { of: PathIndex },
    /// A read of a comparison that is over.
    Forgotten,
}

/// One I/O on one path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) purpose: Purpose,
    pub(crate) path: PathIndex,
    pub(crate) since: Instant,
    /// 0 for a flush.
    pub(crate) bytes: usize,
    /// Its name on the path.
    pub(crate) tag: IoTag,
}

/// I/O on paths, by place and by tag.
#[derive(Debug)]
pub(crate) struct Attempts {
    places: Slab<Attempt>,
    serial: u64,
}

impl Attempts {
    pub(crate) fn new() -> Self {
        Self { places: Slab::new(), serial: 0 }
    }

    /// A place for a new attempt, and its tag.
    pub(crate) fn start(&mut self, now: Instant, path: PathIndex, purpose: Purpose, bytes: usize) -> IoTag {
        self.serial = if self.serial == SERIAL_MAX { 0 } else { self.serial + 1 };
        let place = self.places.insert(Attempt { purpose, path, since: now, bytes, tag: IoTag(0) });
        assert!(place < 1 << PLACE_BITS, "queues of paths are shorter than that");
        let tag = IoTag(self.serial << PLACE_BITS | place as u64);
        self.places.entry(place).expect("just made").tag = tag;
        tag
    }

    fn place(tag: IoTag) -> usize {
        usize::try_from(tag.0 & ((1 << PLACE_BITS) - 1)).expect("24 bits")
    }

    pub(crate) fn get(&self, tag: IoTag) -> Option<&Attempt> {
        self.places.get(Self::place(tag)).filter(|attempt| attempt.tag == tag)
    }

    pub(crate) fn entry(&mut self, tag: IoTag) -> Option<&mut Attempt> {
        self.places.entry(Self::place(tag)).filter(|attempt| attempt.tag == tag)
    }

    pub(crate) fn remove(&mut self, tag: IoTag) -> Option<Attempt> {
        self.get(tag)?;
        self.places.remove(Self::place(tag))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Attempt> {
        self.places.iter()
    }

    /// Requests that a path has.
    pub(crate) fn flights_on(&self, path: PathIndex) -> impl Iterator<Item = usize> {
        self.iter().filter(move |attempt| attempt.path == path).filter_map(|attempt| match attempt.purpose {
            Purpose::Flight(index) => Some(index),
            _ => None,
        })
    }

    pub(crate) fn iter_entries(&mut self) -> impl Iterator<Item = &mut Attempt> {
        self.places.iter_mut().map(|(_, attempt)| attempt)
    }

    /// Nobody waits any more for the attempts of this purpose.
    pub(crate) fn forget(&mut self, purpose: Purpose) {
        let all = self.iter_entries().filter(|attempt| attempt.purpose == purpose);
        all.for_each(|attempt| attempt.purpose = Purpose::Forgotten);
    }
}

/// Places of requests by their tags. The tags come from this program, so that a cheap hash will do.
pub(crate) type ByTag = HashMap<IoTag, usize, BuildHasherDefault<TagHasher>>;

/// Spreads a tag by one multiplication.
#[derive(Debug, Default)]
pub(crate) struct TagHasher(u64);

impl Hasher for TagHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, value: u64) {
        // The odd number nearest to 2⁶⁴ divided by the golden ratio; the table uses high and low bits.
        let product = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }
}

/// Places that are used again.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn insert(&mut self, value: T) -> usize {
        let Some(index) = self.free.pop() else {
            self.entries.push(Some(value));
            return self.entries.len() - 1;
        };
        self.entries[index] = Some(value);
        index
    }

    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.entries.get(index)?.as_ref()
    }

    pub(crate) fn entry(&mut self, index: usize) -> Option<&mut T> {
        self.entries.get_mut(index)?.as_mut()
    }

    pub(crate) fn remove(&mut self, index: usize) -> Option<T> {
        let value = self.entries.get_mut(index)?.take()?;
        self.free.push(index);
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().flatten()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut T)> {
        self.entries.iter_mut().enumerate().filter_map(|(index, entry)| Some((index, entry.as_mut()?)))
    }
}
