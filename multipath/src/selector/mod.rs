//! Which of several good paths carries the next request.
//!
//! Keeps true: a selector only chooses among the candidates it is given. Not here: which paths are
//! good (`failover`).

mod round_robin;

use std::time::Duration;

use storage_mapping::{Instant, PathIndex};

pub use self::round_robin::RoundRobin;
use crate::path_state::PathSet;

/// A way to choose. It hears of every I/O and every change of state, and may weigh them.
pub trait PathSelector: Send {
    /// One of the candidates for a request of `bytes`, or `None` where there is none.
    fn select_path(&mut self, now: Instant, candidates: PathSet, bytes: usize) -> Option<PathIndex>;

    /// A request of `bytes` was sent over the path.
    fn start_io(&mut self, now: Instant, path: PathIndex, bytes: usize);

    /// A request of `bytes` came back after `service_time`, done or failed.
    fn end_io(&mut self, now: Instant, path: PathIndex, bytes: usize, service_time: Duration);

    /// The path is no longer a candidate.
    fn fail_path(&mut self, now: Instant, path: PathIndex);

    /// The path is a candidate again.
    fn reinstate_path(&mut self, now: Instant, path: PathIndex);
}
