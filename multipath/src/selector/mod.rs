//! Which of several good paths carries the next request.
//!
//! | word in a configuration | rule | made for |
//! |---|---|---|
//! | `round-robin` | each in turn | equal paths, or to compare with |
//! | `queue-length` | the fewest requests in flight | equal paths with differing load |
//! | `service-time[:W,…]` | the fewest bytes in flight, divided by the path's weight | known throughputs |
//! | `latency` | the earliest estimated completion | everything else; needs no numbers |
//! | `weighted[:W,…]` | each in turn as often as its weight says | an operator's wish |
//! | `request` | the path that the request names; others in turn | tests, out-of-band commands |
//!
//! Keeps true: a selector only chooses among the candidates it is given; it reads no clock and, once
//! made, allocates nothing. Not here: which paths are good (`failover`).

mod in_flight;
mod kind;
mod latency;
mod queue_length;
mod round_robin;
mod service_time;
mod weighted;

use std::fmt;
use std::time::Duration;

use storage_mapping::{Instant, PathIndex};

pub use self::kind::{Selector, SelectorKind, SelectorKindError, WEIGHT_MAX, Weights};
pub use self::latency::Latency;
pub use self::queue_length::QueueLength;
pub use self::round_robin::RoundRobin;
pub use self::service_time::ServiceTime;
pub use self::weighted::Weighted;
use crate::path_state::PathSet;

/// A way to choose. It hears of every I/O and every change of state, and may weigh them.
pub trait PathSelector: Send {
    /// One of the candidates for a request of `bytes`, or `None` where there is none.
    fn select_path(&mut self, now: Instant, candidates: PathSet, bytes: usize) -> Option<PathIndex>;

    /// A request of `bytes` (0 for a flush) was sent over the path.
    fn start_io(&mut self, now: Instant, path: PathIndex, bytes: usize);

    /// A request of `bytes` is no longer on the path, `service_time` after it was sent. `is_success`
    /// is false where it failed or was withdrawn: then the time says little of the path's speed.
    fn end_io(
        &mut self,
        now: Instant,
        path: PathIndex,
        bytes: usize,
        service_time: Duration,
        is_success: bool,
    );

    /// The path is no longer a candidate.
    fn fail_path(&mut self, now: Instant, path: PathIndex);

    /// The path is a candidate again. What was sent over it before is not counted any more.
    fn reinstate_path(&mut self, now: Instant, path: PathIndex);

    /// What [`Self::select_path`] would compare for this path now; for records that explain a choice.
    fn score(&self, now: Instant, path: PathIndex, bytes: usize) -> Score;

    /// What it is called, with its parameters.
    fn name(&self) -> String {
        "custom".to_owned()
    }

    /// Whether the path that a request names is a wish: it is taken while it is good, else another.
    fn prefers_named_path(&self) -> bool {
        false
    }
}

/// What a selector compares. The lowest wins, or one of those that are about as low.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Score {
    /// How much.
    pub value: i64,
    /// Of what.
    pub unit: ScoreUnit,
}

/// Units of a [`Score`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScoreUnit {
    /// Places until it is this path's turn.
    Turns,
    /// Requests in flight.
    Requests,
    /// Bytes in flight with this request, divided by the path's weight.
    WeightedBytes,
    /// Estimated time to completion.
    Nanoseconds,
    /// Turns, times weights, that the path had beyond what it is owed; below 0 it is owed some.
    Debt,
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            ScoreUnit::Turns => "turns",
            ScoreUnit::Requests => "requests",
            ScoreUnit::WeightedBytes => "weighted bytes",
            ScoreUnit::Nanoseconds => "ns",
            ScoreUnit::Debt => "debt",
        };
        write!(f, "{} {unit}", self.value)
    }
}

/// A number of bytes, requests or nanoseconds as a score.
fn score_value(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const T0: Instant = Instant::ZERO;

    pub(super) fn first(count: usize) -> PathSet {
        let mut set = PathSet::EMPTY;
        (0..count).for_each(|path| set.insert(PathIndex(path)));
        set
    }
}
