//! Requests that the device has accepted, and the attempts that it made for them.
//!
//! Keeps true: a place that is freed is used again, so nothing is allocated once warm; an attempt
//! outlives its request if it is given up on, for the path still has its buffer. Not here: decisions.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use storage_mapping::{
    Buffer, CopyFate, Effect, FencePolicy, Instant, IoBuffer, IoCompletion, IoError, IoRequest, IoTag, Lba,
    Operation, PathIndex, SharedBuffer,
};

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
    /// `parts_left` counts the dirty paths that have not answered; without it any one path will do.
    Flush {
        parts_left: Option<usize>,
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
    pub(crate) work: Work,
    pub(crate) submitted: Instant,
    pub(crate) deadline: Option<Instant>,
    pub(crate) fence: FencePolicy,
    /// The one path it may take, if the submitter named one.
    pub(crate) path: Option<PathIndex>,
    pub(crate) hedge: bool,
    pub(crate) attempts: u32,
    /// Paths that gave an error.
    pub(crate) tried: PathSet,
    /// The last error, while there is a way on.
    pub(crate) error: Option<IoError>,
    /// The worst that is known of all attempts.
    pub(crate) effect: Effect,
    pub(crate) copy: CopyFate,
}

impl Flight {
    /// A request that nothing was done for yet.
    pub(crate) fn new(now: Instant, request: IoRequest) -> Self {
        let work = match request.operation {
            Operation::Read { lba, buffer } => Work::Read { lba, length: buffer.len(), buffer: Some(buffer) },
            Operation::Write { lba, data, fua } => Work::Write { lba, data, fua },
            Operation::Flush => Work::Flush { parts_left: None },
        };
        Self {
            tag: request.tag,
            work,
            submitted: now,
            deadline: request.deadline,
            fence: request.fence,
            path: request.path,
            hedge: request.hedge,
            attempts: 0,
            tried: PathSet::EMPTY,
            error: None,
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

    pub(crate) fn is_write(&self) -> bool {
        matches!(self.work, Work::Write { .. })
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

/// What an attempt was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A request, by its place.
    Flight(usize),
    /// A request that is over; `write` names one whose copy may still land.
    Orphan { write: Option<IoTag> },
    /// To see whether the path answers.
    Probe,
}

/// One I/O on one path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) purpose: Purpose,
    pub(crate) path: PathIndex,
    pub(crate) since: Instant,
    /// 0 for a flush.
    pub(crate) bytes: usize,
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

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut T)> {
        self.entries.iter_mut().enumerate().filter_map(|(index, entry)| Some((index, entry.as_mut()?)))
    }
}
