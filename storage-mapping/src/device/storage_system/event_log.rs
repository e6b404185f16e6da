//! What happened in a storage system, in order: a line for each event, and one number for all of them.
//!
//! Keeps true: the number ([`EventLog::hash`]) is over all events since the start, whether their lines are
//! still kept or not, and is the same on every machine; the lines are bounded, the oldest go first. Not
//! here: what happens.

use std::collections::VecDeque;

use crate::block::address::Lba;
use crate::block::request::{ErrorSource, IoTag};
use crate::block::time::Instant;

/// Lines kept, unless told otherwise.
pub(super) const KEPT: usize = 4096;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// A read.
    Read,
    /// A write.
    Write,
    /// A flush.
    Flush,
}

impl RequestKind {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
        }
    }
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Submitted {
        kind: RequestKind,
        lba: Lba,
        bytes: usize,
    },
    Held,
    Parked {
        until: Instant,
    },
    Dropped,
    Landed {
        lba: Lba,
        bytes: usize,
        is_ghost: bool,
    },
    Completed {
        error: Option<ErrorSource>,
    },
    Attention,
    Settled,
    /// A control command was taken.
    Commanded {
        opcode: u8,
        action: u8,
        bytes: usize,
    },
    /// A logical unit got it.
    Executed {
        opcode: u8,
        action: u8,
        status: u8,
        changed: bool,
        is_ghost: bool,
    },
    /// Its answer reached the path.
    Answered {
        status: u8,
    },
    /// A change of the system itself; path and tag say nothing.
    Changed(String),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) at: Instant,
    pub(super) path: usize,
    pub(super) tag: IoTag,
    pub(super) what: What,
}

impl Entry {
    /// The event in words; `path` is the name of its path.
    pub(super) fn line(&self, path: &str) -> String {
        let Self { at, tag: IoTag(tag), what, .. } = self;
        let said = match what {
            What::Changed(action) => return format!("{at} {action}"),
            What::Submitted { kind: RequestKind::Flush, .. } => "flush".to_owned(),
            What::Submitted { kind, lba, bytes } => format!("{} {lba}, {bytes} B", kind.word()),
            What::Held => "held".to_owned(),
            What::Parked { until } => format!("held in the port until {until}"),
            What::Dropped => "dropped".to_owned(),
            What::Landed { lba, bytes, is_ghost } => {
                let ghost = if *is_ghost { " as a ghost" } else { "" };
                format!("landed{ghost} on {lba}, {bytes} B")
            }
            What::Completed { error: None } => "done".to_owned(),
            What::Completed { error: Some(error) } => {
                format!("failed: {}", crate::IoError::from(*error))
            }
            What::Attention => "unit attention".to_owned(),
            What::Settled => "settled".to_owned(),
            What::Commanded { opcode, action, bytes } => {
                format!("command {opcode:02x} {action:02x}, {bytes} B")
            }
            What::Executed { opcode, action, status, changed, is_ghost } => {
                let ghost = if *is_ghost { " as a ghost" } else { "" };
                let effect = if *changed { "" } else { ", no effect" };
                format!("executed{ghost} {opcode:02x} {action:02x}: status {status:02x}h{effect}")
            }
            What::Answered { status } => format!("answered: status {status:02x}h"),
        };
        format!("{at} {path} #{tag} {said}")
    }
}

/// The events of a system.
#[derive(Debug)]
pub(super) struct EventLog {
    hash: u64,
    count: u64,
    kept: VecDeque<Entry>,
    limit: usize,
}

impl EventLog {
    pub(super) fn new(limit: usize) -> Self {
        Self { hash: 0, count: 0, kept: VecDeque::new(), limit }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn kept(&self) -> impl Iterator<Item = &Entry> {
        self.kept.iter()
    }

    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        let surplus = self.kept.len().saturating_sub(limit);
        self.kept.drain(..surplus);
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.count += 1;
        let path = entry.path as u64;
        let (word, first, second) = match &entry.what {
            What::Submitted { kind, lba, bytes } => (1 + *kind as u64, lba.0, *bytes as u64),
            What::Held => (4, 0, 0),
            What::Parked { until } => (5, until.0, 0),
            What::Dropped => (6, 0, 0),
            What::Landed { lba, bytes, is_ghost } => (7 + u64::from(*is_ghost), lba.0, *bytes as u64),
            What::Completed { error: None } => (9, 0, 0),
            What::Completed { error: Some(error) } => (10, error_word(error), 0),
            What::Attention => (11, 0, 0),
            What::Settled => (12, 0, 0),
            What::Changed(action) => {
                let of_text = action.bytes().fold(0, |hash, byte| mix(hash, u64::from(byte)));
                (13, of_text, 0)
            }
            What::Commanded { opcode, action, bytes } => {
                (14, u64::from(*opcode) << 8 | u64::from(*action), *bytes as u64)
            }
            What::Executed { opcode, action, status, changed, is_ghost } => {
                let name = u64::from(*opcode) << 8 | u64::from(*action);
                let how = u64::from(*changed) << 1 | u64::from(*is_ghost);
                (15, name, u64::from(*status) << 2 | how)
            }
            What::Answered { status } => (16, u64::from(*status), 0),
        };
        self.hash =
            [entry.at.0, path << 8 | word, entry.tag.0, first, second].into_iter().fold(self.hash, mix);
        if self.limit == 0 {
            return;
        }
        if self.kept.len() >= self.limit {
            self.kept.pop_front();
        }
        self.kept.push_back(entry);
    }
}

/// One step of the hash: rotate, exclusive or, multiply by an odd number. It tells runs apart; it is no
/// defence against anyone.
fn mix(hash: u64, word: u64) -> u64 {
    let mixed = (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 32)
}

/// An error as one number.
fn error_word(error: &ErrorSource) -> u64 {
    let bytes = |kind: u8, rest: [u8; 7]| {
        rest.into_iter().fold(u64::from(kind), |word, byte| word << 8 | u64::from(byte))
    };
    match *error {
        ErrorSource::Errno(code) => 1 << 32 | u64::from(code.unsigned_abs()),
        ErrorSource::Short { expected, done } => 2 << 56 ^ u64::from(expected) << 24 ^ u64::from(done),
        ErrorSource::Deadline => 3,
        ErrorSource::NoPath => 4,
        ErrorSource::ConnectionLost { sent } => 5 << 8 | u64::from(sent),
        ErrorSource::Scsi { status, host_status, key, asc, ascq, deferred } => {
            bytes(6, [status, host_status, key, asc, ascq, u8::from(deferred), 0])
        }
        ErrorSource::Nvme { sct, sc, dnr, crd } => bytes(7, [sct, sc, u8::from(dnr), crd, 0, 0, 0]),
        ErrorSource::Nbd(code) => 8 << 32 | u64::from(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tag: u64) -> Entry {
        Entry { at: Instant(1), path: 0, tag: IoTag(tag), what: What::Held }
    }

    #[test]
    fn lines_are_bounded_and_the_hash_is_over_all() {
        let (mut short, mut long) = (EventLog::new(2), EventLog::new(100));
        for tag in 0..10 {
            short.push(entry(tag));
            long.push(entry(tag));
        }
        assert_eq!((short.kept().count(), long.kept().count()), (2, 10));
        assert_eq!((short.hash(), short.count()), (long.hash(), 10));
        long.push(entry(10));
        assert_ne!(short.hash(), long.hash());
    }

    #[test]
    fn order_counts() {
        let (mut one, mut other) = (EventLog::new(0), EventLog::new(0));
        for (a, b) in [(1, 2), (2, 1)] {
            one.push(entry(a));
            other.push(entry(b));
        }
        assert_ne!(one.hash(), other.hash());
    }
}
