//! Requests, completions, and what is known of a request that failed.
//!
//! A failed request has two facts beside its error: its *effect* (did the device act on it?) and the
//! fate of its *copy* (may it still land?). A layer that retries needs both; a time-out alone says
//! neither.

use std::fmt;

use thiserror::Error;

use super::address::Lba;
use super::buffer::{Buffer, SharedBuffer};
use super::time::Instant;

/// The submitter's name for a request; unique among those in flight on one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IoTag(pub u64);

/// Index of a path within a multipath device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathIndex(pub usize);

/// What a request does. The buffer moves in and comes back with the completion.
#[derive(Debug)]
pub enum Operation {
    /// Fills the whole buffer from `lba` on.
    Read {
        /// First block.
        lba: Lba,
        /// Where to; its length is the length of the transfer.
        buffer: Buffer,
    },
    /// Writes the whole buffer from `lba` on.
    Write {
        /// First block.
        lba: Lba,
        /// The bytes, shared and immutable.
        data: SharedBuffer,
        /// Durable before completion ("force unit access").
        fua: bool,
    },
    /// Makes every completed write durable.
    Flush,
}

/// What a multipath layer does with later writes that overlap one of unknown outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FencePolicy {
    /// Re-send at once, hold overlapping writes until the old copy is dead.
    #[default]
    Fence,
    /// As `Fence`, and hold the acknowledgement too.
    Wait,
    /// Complete as unknown, no re-send.
    Fail,
    /// Hold nothing. Right where a reader can tell old bytes from new ones by their seal.
    Unsafe,
}

/// One request to a device.
#[derive(Debug)]
pub struct IoRequest {
    /// The submitter's name for it.
    pub tag: IoTag,
    /// What it does.
    pub operation: Operation,
    /// When a multipath layer gives up on it; bottom devices ignore it.
    pub deadline: Option<Instant>,
    /// What to do with overlapping writes if the outcome becomes unknown.
    pub fence: FencePolicy,
    /// The path asked for, if any.
    pub path: Option<PathIndex>,
    /// Whether a read may be sent twice to cut its latency.
    pub hedge: bool,
}

impl IoRequest {
    /// A read of `buffer.len()` bytes.
    #[must_use]
    pub fn read(tag: IoTag, lba: Lba, buffer: Buffer) -> Self {
        Self::new(tag, Operation::Read { lba, buffer })
    }

    /// A write of the whole of `data`.
    #[must_use]
    pub fn write(tag: IoTag, lba: Lba, data: SharedBuffer, fua: bool) -> Self {
        Self::new(tag, Operation::Write { lba, data, fua })
    }

    /// A flush.
    #[must_use]
    pub fn flush(tag: IoTag) -> Self {
        Self::new(tag, Operation::Flush)
    }

    fn new(tag: IoTag, operation: Operation) -> Self {
        let fence = FencePolicy::default();
        Self { tag, operation, deadline: None, fence, path: None, hedge: false }
    }

    /// Ends the request where it stands: its buffer goes into a completion.
    #[must_use]
    pub fn complete(self, outcome: Result<(), IoError>, effect: Effect, copy: CopyFate) -> IoCompletion {
        let buffer = match self.operation {
            Operation::Read { buffer, .. } => IoBuffer::Read(buffer),
            Operation::Write { data, .. } => IoBuffer::Write(data),
            Operation::Flush => IoBuffer::None,
        };
        IoCompletion { tag: self.tag, outcome, effect, copy, buffer }
    }
}

/// Did the device act on the request?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// It did not.
    None,
    /// It did; the status is the answer.
    Full,
    /// Nobody knows.
    Unknown,
}

/// May a copy of the request still reach the medium?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CopyFate {
    /// No.
    Dead,
    /// Yes, at any time, until something proves otherwise.
    MayLand,
}

/// Why a copy is known to be dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SettledProof {
    /// The response of that very request came.
    Response,
    /// Its abort was answered on the same session.
    Aborted,
    /// The target ended the session and proved before that this kills what it carried.
    NexusEnded,
    /// Its registration was removed under a registrants-only reservation.
    KeyRemoved,
    /// It was withdrawn before its first byte left.
    Withdrawn,
    /// The quiesce time passed: an assumption, and shown as one.
    AssumedDead,
}

/// The buffer that a completion gives back.
#[derive(Debug)]
pub enum IoBuffer {
    /// Of a read; filled on success.
    Read(Buffer),
    /// Of a write.
    Write(SharedBuffer),
    /// Of a flush.
    None,
}

impl IoBuffer {
    /// The buffer of a read, or `None`.
    #[must_use]
    pub fn into_read(self) -> Option<Buffer> {
        match self {
            Self::Read(buffer) => Some(buffer),
            Self::Write(_) | Self::None => None,
        }
    }
}

/// One finished request.
#[derive(Debug)]
pub struct IoCompletion {
    /// The submitter's name for it.
    pub tag: IoTag,
    /// Done, or why not.
    pub outcome: Result<(), IoError>,
    /// Did the device act on it?
    pub effect: Effect,
    /// May a copy still land?
    pub copy: CopyFate,
    /// The buffer back.
    pub buffer: IoBuffer,
}

/// Why a request failed: where the error came from, in that place's own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub struct IoError {
    /// The origin and its code.
    pub source_code: ErrorSource,
}

impl IoError {
    /// The error of a system call.
    #[must_use]
    pub const fn errno(code: i32) -> Self {
        Self { source_code: ErrorSource::Errno(code) }
    }
}

impl From<ErrorSource> for IoError {
    fn from(source_code: ErrorSource) -> Self {
        Self { source_code }
    }
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source_code {
            ErrorSource::Errno(code) => {
                write!(f, "{}", std::io::Error::from_raw_os_error(code))
            }
            ErrorSource::Short { expected, done } => {
                write!(f, "only {done} of {expected} bytes: the device is shorter than it was")
            }
            ErrorSource::Deadline => write!(f, "no answer before the deadline"),
            ErrorSource::NoPath => write!(f, "no usable path is left"),
            ErrorSource::ConnectionLost { sent } => {
                write!(f, "connection lost {} the request was sent", if sent { "after" } else { "before" })
            }
            ErrorSource::Scsi { status, key, asc, ascq, .. } => {
                write!(f, "SCSI status {status:02x}h, sense {key:x}/{asc:02x}/{ascq:02x}")
            }
            ErrorSource::Nvme { sct, sc, .. } => write!(f, "NVMe status {sct:x}/{sc:02x}"),
            ErrorSource::Nbd(code) => write!(f, "NBD error {code}"),
        }
    }
}

/// Where an error came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorSource {
    /// A system call.
    Errno(i32),
    /// Fewer bytes than asked for.
    Short {
        /// Bytes asked for.
        expected: u32,
        /// Bytes done.
        done: u32,
    },
    /// The request's deadline passed.
    Deadline,
    /// A multipath device has no path left.
    NoPath,
    /// The session to the target ended.
    ConnectionLost {
        /// Whether any byte of the request had left.
        sent: bool,
    },
    /// A SCSI status with its sense.
    Scsi {
        /// Status byte.
        status: u8,
        /// Host status of the transport.
        host_status: u8,
        /// Sense key.
        key: u8,
        /// Additional sense code.
        asc: u8,
        /// Additional sense code qualifier.
        ascq: u8,
        /// The sense concerns an earlier command.
        deferred: bool,
    },
    /// An NVMe status.
    Nvme {
        /// Status code type.
        sct: u8,
        /// Status code.
        sc: u8,
        /// Do not retry.
        dnr: bool,
        /// Command retry delay index.
        crd: u8,
    },
    /// An NBD error number.
    Nbd(u32),
}

const _: () = assert!(size_of::<ErrorSource>() <= 16);

/// A request that was not taken, given back whole.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub reason: RefusalReason,
    /// The request, with its buffer.
    pub request: IoRequest,
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum RefusalReason {
    /// The queue is full: submit again after a completion.
    #[error("the queue of the device is full")]
    Busy,
    /// Out of range, not whole blocks, longer than the limit, or a buffer that is not aligned.
    #[error("the request does not fit the device")]
    Invalid,
    /// A request with this tag is in flight.
    #[error("a request with this tag is in flight")]
    DuplicateTag,
    /// The device is gone for good.
    #[error("the device is closed")]
    Closed,
}

/// The answer to [`BlockDevice::cancel`](super::BlockDevice::cancel).
#[derive(Debug)]
pub enum Cancelled {
    /// It had not left; here it is. It will not complete.
    Withdrawn(IoRequest),
    /// It has left; the device was asked to drop it. It completes in any case.
    Requested,
    /// No such request.
    NotHere,
}
