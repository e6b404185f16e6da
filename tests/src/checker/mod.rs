//! What must hold in every run; each file is one promise, checked apart from the code that keeps it.

pub mod delivery;
pub mod liveness;
pub mod nonces;
pub mod ownership;

use storage_mapping::Instant;
use thiserror::Error;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Violation {
    /// A file under its final name is not what was sent.
    #[error("{at}: {path} has {have} bytes that are not the {expected} bytes of its source")]
    Content {
        /// When it was seen.
        at: Instant,
        /// The file.
        path: String,
        /// Its length.
        have: usize,
        /// The length it should have.
        expected: usize,
    },
    /// Something has a name that nobody sent.
    #[error("{at}: {path} was never sent")]
    Stray {
        /// When it was seen.
        at: Instant,
        /// What it is.
        path: String,
    },
    /// A file that was published is another one now, or gone.
    #[error("{at}: {path} was published before and is now another file, or gone")]
    Republished {
        /// When it was seen.
        at: Instant,
        /// The file.
        path: String,
    },
    /// What came of a stream is not how it begins, or not all of it.
    #[error("{at}: the stream of job {job} is not what was sent from byte {byte} on, of {sent}")]
    Stream {
        /// When it was seen.
        at: Instant,
        /// Number of the job.
        job: usize,
        /// Where it ends, or begins to differ.
        byte: usize,
        /// Bytes that were sent.
        sent: usize,
    },
    /// A file was said to be published, or its job to be done, and it is not there.
    #[error("{at}: {path} of job {job} was said to be published, and is not there")]
    Missing {
        /// When it was said.
        at: Instant,
        /// Number of the job.
        job: usize,
        /// The file.
        path: String,
    },
    /// A job was said to have failed for good, and nothing was wrong with its files.
    #[error("{at}: job {job} ended with {outcome}, although nothing was wrong with its files")]
    Failed {
        /// When it was said.
        at: Instant,
        /// Number of the job.
        job: usize,
        /// How it ended.
        outcome: String,
    },
    /// A job is not done long after the last fault.
    #[error("{at}: job {job} is not done {bound_s} s after the last fault")]
    Unfinished {
        /// When the bound was reached.
        at: Instant,
        /// Number of the job.
        job: usize,
        /// The bound.
        bound_s: u64,
    },
    /// Segments did not come back.
    #[error("{at}: {process} has {free} of {total} segments back, and {connections} connections")]
    Segments {
        /// When the bound was reached.
        at: Instant,
        /// Whose.
        process: String,
        /// Free ones.
        free: usize,
        /// All.
        total: usize,
        /// Connections that are left.
        connections: usize,
    },
    /// A process turns without end.
    #[error("{at}: {process} took {turns} turns within a second")]
    Spinning {
        /// When it was noticed.
        at: Instant,
        /// Which.
        process: String,
        /// Turns.
        turns: u32,
    },
    /// A receiving folder cannot be read.
    #[error("a receiving folder: {0}")]
    Scratch(String),
}
