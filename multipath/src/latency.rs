//! How long things take: I/O of each kind over a path, and the steps of a failover.
//!
//! ```text
//!   sent over A         A is known to have failed      sent over B            done
//!     ├───────── detect ─────────┼────── resubmit ────────┼────── complete ─────┤
//! ```
//!
//! Between the failure and the decision no time passes: both are in one call. Keeps true: counts only grow. Not here:
//! what is made of it.

use crate::error_class::IoKind;
use crate::histogram::Histogram;

/// Times of what succeeded over one path.
#[derive(Clone, Debug, Default)]
pub struct PathLatency {
    /// Of reads.
    pub read: Histogram,
    /// Of writes.
    pub write: Histogram,
    /// Of flushes.
    pub flush: Histogram,
}

impl PathLatency {
    /// The times of one kind.
    pub fn of_kind(&mut self, kind: IoKind) -> &mut Histogram {
        match kind {
            IoKind::Read => &mut self.read,
            IoKind::Write => &mut self.write,
            IoKind::Flush => &mut self.flush,
        }
    }
}

/// Steps of requests that were sent more than once.
#[derive(Clone, Debug, Default)]
pub struct FailoverTimes {
    /// From sending to knowing that it failed.
    pub detect: Histogram,
    /// From there to sending it again.
    pub resubmit: Histogram,
    /// From there to its end.
    pub complete: Histogram,
}
