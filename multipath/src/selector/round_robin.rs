//! Each path in turn.
//!
//! Keeps true: among unchanging candidates each is chosen equally often. Not here: speed or load of a
//! path; a slow path gets as much as a fast one.

use std::time::Duration;

use storage_mapping::{Instant, PathIndex};

use super::{PathSelector, Score, ScoreUnit};
use crate::path_state::{PATH_COUNT_MAX, PathSet};

/// Chooses each path in turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobin {
    next: usize,
}

impl PathSelector for RoundRobin {
    fn select_path(&mut self, _now: Instant, candidates: PathSet, _bytes: usize) -> Option<PathIndex> {
        let chosen = candidates.next_from(PathIndex(self.next))?;
        self.next = (chosen.0 + 1) % PATH_COUNT_MAX;
        Some(chosen)
    }

    fn start_io(&mut self, _now: Instant, _path: PathIndex, _bytes: usize) {}

    fn end_io(&mut self, _now: Instant, _path: PathIndex, _bytes: usize, _took: Duration, _is_success: bool) {
    }

    fn fail_path(&mut self, _now: Instant, _path: PathIndex) {}

    fn reinstate_path(&mut self, _now: Instant, _path: PathIndex) {}

    fn score(&self, _now: Instant, path: PathIndex, _bytes: usize) -> Score {
        let turns = (path.0 + PATH_COUNT_MAX - self.next) % PATH_COUNT_MAX;
        Score { value: turns as i64, unit: ScoreUnit::Turns }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{T0, first};
    use super::*;

    #[test]
    fn each_in_turn_and_none_that_is_no_candidate() {
        let mut all = first(3);
        let mut selector = RoundRobin::default();
        let mut turns: Vec<_> = (0..4).filter_map(|_| selector.select_path(T0, all, 1)).collect();
        all.remove(PathIndex(1));
        turns.extend((0..3).filter_map(|_| selector.select_path(T0, all, 1)));
        assert_eq!(turns, [0, 1, 2, 0, 2, 0, 2].map(PathIndex));
        assert_eq!(selector.select_path(T0, PathSet::EMPTY, 1), None);
    }

    #[test]
    fn the_lowest_score_is_next() {
        let mut selector = RoundRobin::default();
        for _ in 0..5 {
            let score = |path| selector.score(T0, PathIndex(path), 1).value;
            let lowest = (0..3).min_by_key(|path| score(*path)).map(PathIndex);
            assert_eq!(selector.select_path(T0, first(3), 1), lowest);
        }
    }
}
