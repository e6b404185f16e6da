//! The path that has the fewest bytes to carry for its throughput, as told by weights.
//!
//! The rule of dm-mpath's `service-time` (`drivers/md/dm-ps-service-time.c`): the smallest of (bytes in
//! flight + this request) / weight; equal loads go to the higher weight, then in turn. A path of weight
//! 0 is taken only where there is no other.
//!
//! Keeps true: comparing multiplies crosswise and cannot overflow. Not here: measuring; without weights
//! it balances bytes in flight and no more.

use std::cmp::Ordering;
use std::time::Duration;

use storage_mapping::{Instant, PathIndex};

use super::in_flight::InFlight;
use super::kind::Weights;
use super::{PathSelector, Score, ScoreUnit};
use crate::path_state::{PATH_COUNT_MAX, PathSet};

/// Chooses by bytes in flight and the relative throughput of paths.
#[derive(Clone, Debug)]
pub struct ServiceTime {
    weights: Weights,
    in_flight: InFlight,
    /// Where the search starts.
    next: usize,
}

impl ServiceTime {
    /// Counts what is sent from `now` on; `weights` are relative throughputs.
    #[must_use]
    pub fn new(now: Instant, weights: Weights) -> Self {
        Self { weights, in_flight: InFlight::since(now), next: 0 }
    }

    /// The relative throughputs.
    #[must_use]
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Which of two paths is the better one: it is the lesser.
    fn compare(&self, a: PathIndex, b: PathIndex, bytes: usize) -> Ordering {
        let (weight_a, weight_b) = (self.weights.of(a), self.weights.of(b));
        let usable = (weight_b > 0).cmp(&(weight_a > 0));
        let (load_a, load_b) = (self.load(a, bytes), self.load(b, bytes));
        let time = (load_a * u128::from(weight_b)).cmp(&(load_b * u128::from(weight_a)));
        usable.then(time).then(weight_b.cmp(&weight_a))
    }

    fn load(&self, path: PathIndex, bytes: usize) -> u128 {
        u128::from(self.in_flight.of(path).bytes) + bytes as u128
    }
}

impl PathSelector for ServiceTime {
    fn select_path(&mut self, _now: Instant, candidates: PathSet, bytes: usize) -> Option<PathIndex> {
        let in_turn = candidates.iter_from(PathIndex(self.next));
        let chosen = in_turn.min_by(|a, b| self.compare(*a, *b, bytes))?;
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

    fn score(&self, _now: Instant, path: PathIndex, bytes: usize) -> Score {
        let per_weight = self.load(path, bytes).checked_div(u128::from(self.weights.of(path)));
        let value = per_weight.and_then(|value| i64::try_from(value).ok()).unwrap_or(i64::MAX);
        Score { value, unit: ScoreUnit::WeightedBytes }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{T0, first};
    use super::*;

    fn chosen(selector: &mut ServiceTime, candidates: PathSet, bytes: usize) -> usize {
        let path = selector.select_path(T0, candidates, bytes).unwrap();
        selector.start_io(T0, path, bytes);
        path.0
    }

    #[test]
    fn bytes_in_flight_go_by_weight() {
        let mut selector = ServiceTime::new(T0, Weights::new(&[4, 1]).unwrap());
        let mut count = [0; 2];
        (0..50).for_each(|_| count[chosen(&mut selector, first(2), 4096)] += 1);
        assert_eq!(count, [40, 10]);
        let score = |path| selector.score(T0, PathIndex(path), 0).value;
        assert_eq!((score(0), score(1)), (40_960, 40_960));
    }

    #[test]
    fn equal_loads_go_to_the_higher_weight_and_weight_0_is_the_last_resort() {
        let mut selector = ServiceTime::new(T0, Weights::new(&[0, 2, 3]).unwrap());
        assert_eq!(chosen(&mut selector, first(3), 0), 2);
        assert_eq!(chosen(&mut selector, first(3), 6), 2);
        assert_eq!(chosen(&mut selector, first(3), 0), 1, "6 bytes wait on path 2");
        assert_eq!(chosen(&mut selector, first(3), usize::MAX), 2, "more for each, so it weighs less there");
        assert_eq!(chosen(&mut selector, first(3), usize::MAX), 1, "nor does the largest sum overflow");
        assert_eq!(chosen(&mut selector, first(1), 1), 0);
        assert_eq!(selector.score(T0, PathIndex(0), 1).value, i64::MAX);
    }

    #[test]
    fn ties_rotate() {
        let mut selector = ServiceTime::new(T0, Weights::default());
        let mut order = Vec::new();
        for _ in 0..5 {
            let path = chosen(&mut selector, first(3), 512);
            selector.end_io(T0, PathIndex(path), 512, Duration::ZERO, true);
            order.push(path);
        }
        assert_eq!(order, [0, 1, 2, 0, 1]);
    }
}
