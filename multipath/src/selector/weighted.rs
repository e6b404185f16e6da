//! Each path in turn, as often as its weight says, and evenly spread.
//!
//! Smooth weighted round robin, as in nginx: at every choice each candidate earns its weight, the
//! richest is chosen and pays what all have earned together. Weights 3,1 give A A B A, not A A A B.
//!
//! Keeps true: over any `sum of weights` choices among unchanging candidates, each is chosen as often
//! as its weight is; the credits of all paths sum to 0. A path of weight 0 is taken only where there is
//! no other. Not here: load and speed.

use std::time::Duration;

use storage_mapping::{Instant, PathIndex};

use super::kind::Weights;
use super::{PathSelector, RoundRobin, Score, ScoreUnit};
use crate::path_state::{PATH_COUNT_MAX, PathSet};

/// Chooses each path as often as its weight says.
#[derive(Clone, Debug)]
pub struct Weighted {
    weights: Weights,
    credits: Vec<i64>,
    /// Among paths of weight 0.
    last_resort: RoundRobin,
}

impl Weighted {
    /// Shares by `weights`.
    #[must_use]
    pub fn new(weights: Weights) -> Self {
        Self { weights, credits: vec![0; PATH_COUNT_MAX], last_resort: RoundRobin::default() }
    }

    /// The shares.
    #[must_use]
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// A path that was away has no claim to what it missed.
    fn forget(&mut self) {
        self.credits.fill(0);
    }
}

impl PathSelector for Weighted {
    fn select_path(&mut self, now: Instant, candidates: PathSet, bytes: usize) -> Option<PathIndex> {
        let mut earned = 0;
        let mut richest: Option<(i64, PathIndex)> = None;
        for path in candidates.iter_from(PathIndex(0)) {
            let weight = i64::from(self.weights.of(path));
            if weight > 0 {
                let credit = &mut self.credits[path.0];
                *credit += weight;
                earned += weight;
                if richest.is_none_or(|(most, _)| *credit > most) {
                    richest = Some((*credit, path));
                }
            }
        }
        let Some((_, chosen)) = richest else { return self.last_resort.select_path(now, candidates, bytes) };
        self.credits[chosen.0] -= earned;
        Some(chosen)
    }

    fn start_io(&mut self, _now: Instant, _path: PathIndex, _bytes: usize) {}

    fn end_io(&mut self, _now: Instant, _path: PathIndex, _bytes: usize, _took: Duration, _is_success: bool) {
    }

    fn fail_path(&mut self, _now: Instant, _path: PathIndex) {
        self.forget();
    }

    fn reinstate_path(&mut self, _now: Instant, _path: PathIndex) {
        self.forget();
    }

    fn score(&self, _now: Instant, path: PathIndex, _bytes: usize) -> Score {
        let weight = i64::from(self.weights.of(path));
        let value = if weight == 0 { i64::MAX } else { -(self.credits[path.0] + weight) };
        Score { value, unit: ScoreUnit::Debt }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{T0, first};
    use super::*;

    fn turns(selector: &mut Weighted, candidates: PathSet, count: usize) -> Vec<usize> {
        (0..count).map(|_| selector.select_path(T0, candidates, 1).unwrap().0).collect()
    }

    #[test]
    fn evenly_spread_and_exact() {
        let mut selector = Weighted::new(Weights::new(&[3, 1]).unwrap());
        assert_eq!(turns(&mut selector, first(2), 8), [0, 0, 1, 0, 0, 0, 1, 0]);
        let mut selector = Weighted::new(Weights::new(&[5, 0, 2]).unwrap());
        let order = turns(&mut selector, first(4), 800);
        let count = |path| order.iter().filter(|chosen| **chosen == path).count();
        assert_eq!([0, 1, 2, 3].map(count), [500, 0, 200, 100], "a path without a weight has 1");
        assert_eq!(selector.credits.iter().sum::<i64>(), 0);
    }

    #[test]
    fn weight_0_is_the_last_resort_and_no_candidate_is_none() {
        let mut selector = Weighted::new(Weights::new(&[0, 0]).unwrap());
        assert_eq!(turns(&mut selector, first(2), 3), [0, 1, 0]);
        assert_eq!(selector.select_path(T0, PathSet::EMPTY, 1), None);
    }

    #[test]
    fn who_was_away_gets_no_burst_and_the_lowest_score_is_next() {
        let mut selector = Weighted::new(Weights::new(&[2, 1]).unwrap());
        turns(&mut selector, first(1), 100);
        selector.reinstate_path(T0, PathIndex(1));
        assert_eq!(turns(&mut selector, first(2), 3), [0, 1, 0]);
        for _ in 0..7 {
            let debt = |path: &usize| selector.score(T0, PathIndex(*path), 1).value;
            let next = (0..2).min_by_key(debt).unwrap();
            assert_eq!(turns(&mut selector, first(2), 1), [next]);
        }
    }
}
