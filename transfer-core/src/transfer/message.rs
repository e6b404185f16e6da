//! Messages: a framed stream {opcode u16, flags u16, length u32, request id u64, body}, many per
//! Command segment.
//!
//! What holds: integers are little-endian; every length is checked against what is there and against
//! a limit before anything is allocated; unknown opcodes, unknown flags and bytes left over are
//! errors; `parse(emit(x)) == x`. A message lies in one segment. The request id is the file index for
//! messages about a file, the batch number for READY, PERMIT and COMMITTED, and 0 for the job.
//! Not here: what a message means in which state (`session`, `sender`, `receiver`).

mod codec;

use super::code::ErrorCode;
use super::name::RelativePath;
use super::root::Root;
use super::store::{Attributes, DirectoryItem, LinkItem, ListEntry, TransferId};
use bitflags::bitflags;
use thiserror::Error;

pub use codec::{emit, parse_all};

/// Bytes before a body.
pub const HEADER_BYTES: usize = 16;
/// Items of one READY, PERMIT or COMMITTED, at most.
pub const ITEMS_MAX: usize = 1024;
/// Bytes of a text for people, at most.
pub const TEXT_BYTES_MAX: usize = 512;
/// Sources of one job, at most.
pub const SOURCES_MAX: usize = 1024;
/// Entries of one LIST_ENTRIES, at most.
pub const ENTRIES_MAX: usize = 1024;

/// A message that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    /// It ends before its fields do.
    #[error("message {opcode} is cut short")]
    Short {
        /// Its opcode; 0 if even that is missing.
        opcode: u16,
    },
    /// Bytes are left over.
    #[error("message {opcode} has bytes left over")]
    Long {
        /// Its opcode.
        opcode: u16,
    },
    /// A number, flag, name or code is not allowed.
    #[error("message {opcode} has a value that is not allowed")]
    Value {
        /// Its opcode.
        opcode: u16,
    },
    /// No such message.
    #[error("message {opcode} is not known")]
    Opcode {
        /// The number.
        opcode: u16,
    },
}

bitflags! {
    /// Options of a job.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct JobOptions: u16 {
        /// Go into directories; keep symbolic links.
        const RECURSIVE = 1;
        /// Keep times, and owners where allowed.
        const PRESERVE = 2;
        /// Do not replace files.
        const NO_CLOBBER = 4;
        /// The destination must be an existing directory.
        const MUST_BE_DIRECTORY = 8;
        /// One end is a stream: no packs.
        const STREAM = 16;
    }
}

/// JOB_OPEN: what the requester wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobOpen {
    /// Names the job over retries.
    pub nonce: [u8; 16],
    /// Whether the requester receives.
    pub pull: bool,
    /// Options.
    pub options: JobOptions,
    /// The export of the responder.
    pub export: Vec<u8>,
    /// Push: the destination. Pull: the root.
    pub destination: RelativePath,
    /// Push: number of sources. Pull: length of `sources`.
    pub source_count: u32,
    /// Push: name of the single source (empty: it has none).
    pub single: Option<Vec<u8>>,
    /// Pull: the sources.
    pub sources: Vec<RelativePath>,
}

/// REQUEST: one file is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its transfer id.
    pub id: TransferId,
    /// A permit was issued under this id before.
    pub permitted: bool,
    /// Its bytes come in a pack; no ACCEPT is awaited.
    pub packed: bool,
    /// Length, unless it is a stream.
    pub size: Option<u64>,
    /// Its attributes.
    pub attributes: Attributes,
    /// Its root, if known.
    pub root: Option<Root>,
    /// Its path, the name of the source first.
    pub path: RelativePath,
}

/// One file of a READY or PERMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootItem {
    /// File index.
    pub index: u32,
    /// Its transfer id.
    pub id: TransferId,
    /// Its root.
    pub root: Root,
}

/// One file of a COMMITTED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedItem {
    /// File index.
    pub index: u32,
    /// Its transfer id.
    pub id: TransferId,
    /// The answer to a REQUEST, from the journal.
    pub known: bool,
    /// The target is there with the recorded inode and length.
    pub present: bool,
}

/// A code with a line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The code.
    pub code: ErrorCode,
    /// The line.
    pub text: String,
}

/// One message, without its request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// 1: a file is to be sent.
    Request(Request),
    /// 2: send it from this offset on.
    Accept {
        /// Bytes from the start that need not be sent.
        resume: u64,
    },
    /// 3: it will not be received.
    Refuse(Reason),
    /// 4: these are durable; may they be published?
    Ready(Vec<RootItem>),
    /// 5: publish these.
    Permit(Vec<RootItem>),
    /// 6: these are published.
    Committed(Vec<CommittedItem>),
    /// 7: the sender gives a file up.
    Abort(TransferId, Reason),
    /// 8: it will never be published under this id.
    Aborted(TransferId, Reason),
    /// 16: a job.
    JobOpen(JobOpen),
    /// 17: it may begin.
    JobAccept,
    /// 18: it will not be done.
    JobRefuse(Reason),
    /// 19: a directory.
    Directory(DirectoryItem),
    /// 20: a symbolic link.
    Link(LinkItem),
    /// 21: all bytes of a file were sent.
    EndOfStream {
        /// How many.
        length: u64,
        /// Their root.
        root: Root,
    },
    /// 22: nothing more comes for now: commit what is there.
    FlushBatch,
    /// 23: every file has its last word.
    EndOfJob,
    /// 24: directories are finished too.
    JobDone,
    /// 25: what is in this directory?
    List {
        /// The export.
        export: Vec<u8>,
        /// The directory.
        path: RelativePath,
    },
    /// 26: some of it.
    ListEntries {
        /// Nothing follows.
        last: bool,
        /// The entries.
        entries: Vec<ListEntry>,
    },
    /// 27: connect to a service.
    ServiceOpen {
        /// Its name.
        service: Vec<u8>,
    },
    /// 28: no more bytes in this direction.
    HalfClose {
        /// How many there were.
        length: u64,
    },
    /// 29: something was left out, and why.
    Notice {
        /// By rule, not by failure.
        skipped: bool,
        /// Its path.
        path: RelativePath,
        /// Why.
        reason: Reason,
    },
}

impl Message {
    /// Its number.
    #[must_use]
    pub fn opcode(&self) -> u16 {
        match self {
            Self::Request(_) => 1,
            Self::Accept { .. } => 2,
            Self::Refuse(_) => 3,
            Self::Ready(_) => 4,
            Self::Permit(_) => 5,
            Self::Committed(_) => 6,
            Self::Abort(..) => 7,
            Self::Aborted(..) => 8,
            Self::JobOpen(_) => 16,
            Self::JobAccept => 17,
            Self::JobRefuse(_) => 18,
            Self::Directory(_) => 19,
            Self::Link(_) => 20,
            Self::EndOfStream { .. } => 21,
            Self::FlushBatch => 22,
            Self::EndOfJob => 23,
            Self::JobDone => 24,
            Self::List { .. } => 25,
            Self::ListEntries { .. } => 26,
            Self::ServiceOpen { .. } => 27,
            Self::HalfClose { .. } => 28,
            Self::Notice { .. } => 29,
        }
    }
}

/// A message with its request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framed {
    /// File index, batch number or 0.
    pub request: u64,
    /// The message.
    pub message: Message,
}
