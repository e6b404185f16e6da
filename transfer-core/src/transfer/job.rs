//! What goes into a session and what comes out of it: configuration, jobs, events, outcomes.
//!
//! Not here: how one leads to the other (`session`).

use super::code::ErrorCode;
use super::message::{JobOptions, MessageError};
use super::name::RelativePath;
use super::store::{ListEntry, SourceOrigin, Target};
use storage_mapping::BufferPool;
use thiserror::Error;

/// What a session needs to know.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Where payloads of messages come from.
    pub pool: BufferPool,
    /// Bytes of a full segment's payload, as agreed for the connection: a power of two, ≥ 16 KiB.
    pub segment_bytes: usize,
    /// Payloads in hand on this side, at most.
    pub payloads_max: usize,
}

/// Payloads in hand of all sessions of a process, at most, unless there are more sessions than that.
pub(crate) const PAYLOADS_MAX: usize = 12;

impl SessionConfig {
    /// The defaults: 1 MiB, 12 payloads.
    #[must_use]
    pub fn new(pool: BufferPool) -> Self {
        Self { pool, segment_bytes: 1 << 20, payloads_max: PAYLOADS_MAX }
    }
}

/// What a requester wants.
#[derive(Clone, Debug)]
pub enum Job {
    /// Show what is in a directory of an export.
    List {
        /// The export.
        export: Vec<u8>,
        /// The directory.
        path: RelativePath,
    },
    /// Fetch files.
    Pull {
        /// The other host, for the record of the job.
        peer: String,
        /// Its export.
        export: Vec<u8>,
        /// The sources there.
        sources: Vec<RelativePath>,
        /// Where they go: [`Target::Local`] or [`Target::Stream`].
        target: Target,
        /// Options; STREAM follows from the target.
        options: JobOptions,
    },
    /// Bring files.
    Push {
        /// The other host, for the record of the job.
        peer: String,
        /// The sources: [`SourceOrigin::Local`] or [`SourceOrigin::Stream`].
        origin: SourceOrigin,
        /// The other host's export.
        export: Vec<u8>,
        /// Where they go in it.
        destination: RelativePath,
        /// Options; STREAM follows from the origin.
        options: JobOptions,
    },
}

/// The peer broke the protocol: the connection is to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtocolViolation {
    /// A message cannot be read.
    #[error("a message cannot be read: {0}")]
    Message(#[from] MessageError),
    /// A message that has no place in this state.
    #[error("message {opcode} has no place here")]
    Unexpected {
        /// Its opcode.
        opcode: u16,
    },
    /// A file index that was never announced or is out of range.
    #[error("no request {request}")]
    Index {
        /// The index.
        request: u64,
    },
    /// Data or an offset that does not follow.
    #[error("offset {offset} of request {request} does not follow")]
    Offset {
        /// File index.
        request: u64,
        /// The offset.
        offset: u64,
    },
    /// A pack that does not hold what was announced.
    #[error("a pack does not hold what was announced")]
    Pack,
    /// More is open at once than the protocol allows.
    #[error("more files are open than allowed")]
    Limit,
    /// Data where none is expected.
    #[error("data without a job")]
    Data,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// It was closed in order.
    Closed,
    /// The peer is gone, or the device.
    Lost,
    /// One side broke the protocol.
    Violation,
}

/// How a job ended, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is there.
    Done,
    /// Some of it is; the rest was said with its reason.
    Partly,
    /// Nothing is.
    Failed,
    /// A permit was given and no word came: a re-run asks.
    InDoubt,
    /// It did not come to its end: a re-run continues it.
    Retry,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// In one word.
    pub verdict: Verdict,
    /// Files published, now or before under the same ids.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Items that failed.
    pub failed: u64,
    /// Items left out by rule.
    pub skipped: u64,
    /// Files whose fate is not known.
    pub in_doubt: u64,
    /// Files begun and not finished.
    pub unfinished: u64,
    /// Why the job as a whole did not work.
    pub reason: Option<(ErrorCode, String)>,
}

/// What the user of a requester may want to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// Part of a listing.
    Entries(Vec<ListEntry>),
    /// A file is published.
    FileDone {
        /// Its path, the source's name first.
        path: RelativePath,
    },
    /// A file or directory failed.
    FileFailed {
        /// Its path.
        path: RelativePath,
        /// The code.
        code: ErrorCode,
        /// A line without control characters.
        why: String,
    },
    /// The job is over.
    Finished(Outcome),
    /// Something moved.
    Progress {
        /// Bytes sent or received, or found to be there.
        bytes: u64,
        /// Files published.
        files: u64,
        /// Bytes announced so far.
        bytes_total: u64,
        /// Files announced so far.
        files_total: u64,
    },
    /// Something was left out by rule.
    Warning(String),
}
