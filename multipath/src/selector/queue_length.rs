//! The path with the fewest requests in flight.
//!
//! Keeps true: ties rotate, so that an idle device still uses all its paths. Not here: how fast a path
//! is. At depth 1 all are idle, and a slow one gets as much as a fast one; at great depth each has
//! about as many requests as any other, and carries them as fast as it can.

use std::time::Duration;

use storage_mapping::{Instant, PathIndex};

use super::in_flight::InFlight;
use super::{PathSelector, Score, ScoreUnit, score_value};
use crate::path_state::{PATH_COUNT_MAX, PathSet};

/// Chooses the path with the fewest requests in flight.
#[derive(Clone, Debug)]
pub struct QueueLength {
    in_flight: InFlight,
    /// Where the search starts.
    next: usize,
}

impl QueueLength {
    /// Counts what is sent from `now` on.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { in_flight: InFlight::since(now), next: 0 }
    }
}

impl PathSelector for QueueLength {
    fn select_path(&mut self, _now: Instant, candidates: PathSet, _bytes: usize) -> Option<PathIndex> {
        let in_turn = candidates.iter_from(PathIndex(self.next));
        let chosen = in_turn.min_by_key(|path| self.in_flight.of(*path).requests)?;
        self.next = (chosen.0 + 1) % PATH_COUNT_MAX;
        Some(chosen)
    }

    fn start_io(&mut self, _now: Instant, path: PathIndex, bytes: usize) {
        self.in_flight.start(path, bytes);
    }

    fn end_io(&mut self, now: Instant, path: PathIndex, bytes: usize, took: Duration, _is_success: bool) {
        self.in_flight.end(now, path, bytes, took);
    }

    fn fail_path(&mut self, _now: Instant, _path: PathIndex) {}

    fn reinstate_path(&mut self, now: Instant, path: PathIndex) {
        self.in_flight.reset(now, path);
    }

    fn score(&self, _now: Instant, path: PathIndex, _bytes: usize) -> Score {
        Score { value: score_value(self.in_flight.of(path).requests), unit: ScoreUnit::Requests }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{T0, first};
    use super::*;

    #[test]
    fn the_fewest_in_flight_and_ties_rotate() {
        let mut selector = QueueLength::new(T0);
        let mut send = |ends: Option<usize>| {
            if let Some(path) = ends {
                selector.end_io(T0, PathIndex(path), 1, Duration::ZERO, true);
            }
            let path = selector.select_path(T0, first(3), 1).unwrap();
            selector.start_io(T0, path, 1);
            path.0
        };
        assert_eq!([None; 4].map(&mut send), [0, 1, 2, 0]);
        assert_eq!(send(Some(2)), 2);
        assert_eq!(send(None), 1, "1 and 2 have one each, and 2 was the last");
        assert_eq!(selector.score(T0, PathIndex(0), 1), Score { value: 2, unit: ScoreUnit::Requests });
    }

    #[test]
    fn a_reinstated_path_has_nothing_in_flight() {
        let mut selector = QueueLength::new(T0);
        for _ in 0..9 {
            selector.start_io(T0, PathIndex(0), 1);
        }
        selector.start_io(T0, PathIndex(1), 1);
        assert_eq!(selector.select_path(T0, first(2), 1), Some(PathIndex(1)));
        selector.reinstate_path(Instant(7), PathIndex(0));
        assert_eq!(selector.select_path(Instant(7), first(2), 1), Some(PathIndex(0)));
    }
}
