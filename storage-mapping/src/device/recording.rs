//! The behaviour of a path, recorded and played again: when what was asked, how long it took, how it ended.
//!
//! A [`Recorder`] lies over a real path; a [`ReplayDevice`] takes as long as the recording says, and fails as it
//! says, so that another policy is tried against the same path off line. Text, one line for each request:
//!
//! ```text
//! diskwire-recording 1
//! 0 read 4096 210us done
//! 1500us write 4096 30ms failed errno:5 unknown may-land
//! 2ms read 4096 0 never
//! left-out 0
//! ```
//!
//! Keeps true: what prints parses back; a recording holds at most as many requests as it was made for, and says
//! how many it left out; it holds no data and no addresses. Not here: the path itself.

mod recorder;
mod replay;
mod text;

use std::time::Duration;

pub use self::recorder::{RecordControl, Recorder};
pub use self::replay::{Follow, ReplayDevice};
pub use self::text::RecordingError;
pub use super::storage_system::RequestKind;
use crate::block::request::{CopyFate, Effect, ErrorSource};

/// How a recorded request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordedOutcome {
    /// Done.
    Done,
    /// It failed.
    Failed {
        /// Where the error came from.
        error: ErrorSource,
        /// Whether the device acted on it.
        effect: Effect,
        /// Whether a copy may still have landed.
        copy: CopyFate,
    },
    /// It had not ended when the recording did.
    Never,
}

/// One request of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it came in, since the first.
    pub at: Duration,
    /// What it did.
    pub kind: RequestKind,
    /// How much, in bytes.
    pub bytes: u64,
    /// How long it took.
    pub latency: Duration,
    /// How it ended.
    pub outcome: RecordedOutcome,
}

/// What a path did, in order of the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// The requests.
    pub records: Vec<Record>,
    /// Requests for which there was no room.
    pub left_out: u64,
}
