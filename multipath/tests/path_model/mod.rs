//! Paths in virtual time, and a closed loop of requests over them, to measure selectors with.
//!
//! Keeps true: the same seed gives the same run; a path serves its lanes first come, first served. Not
//! here: what is measured (`selectors.rs`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use multipath::PathSet;
use multipath::selector::{PathSelector, Selector, SelectorKind};
use storage_mapping::{Instant, PathIndex};

pub(crate) const MICROSECOND: u64 = 1_000;
pub(crate) const MILLISECOND: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000_000_000;
/// Lanes of a path that serves any number at once.
pub(crate) const UNLIMITED: usize = usize::MAX;
/// How much slower a path is that answers no more.
pub(crate) const HANGS: f64 = f64::INFINITY;

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// How latencies vary; all have the mean 1.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Jitter {
    /// Up to 20 % more or less.
    Uniform,
    Exponential,
    /// One in twenty takes ten times as long as the others.
    Bimodal,
}

impl Jitter {
    fn draw(self, random: &mut Random) -> f64 {
        match self {
            Self::Uniform => 0.8 + 0.4 * random.unit(),
            Self::Exponential => -(1.0 - random.unit()).ln(),
            Self::Bimodal => (if random.unit() < 0.05 { 10.0 } else { 1.0 }) / 1.45,
        }
    }
}

/// How long requests are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sizes {
    Random4KiB,
    Sequential128KiB,
    /// Three of 4 KiB to one of 128 KiB, at random.
    Mixed,
}

impl Sizes {
    fn draw(self, random: &mut Random) -> usize {
        match self {
            Self::Random4KiB => 4 << 10,
            Self::Sequential128KiB => 128 << 10,
            Self::Mixed => (if random.unit() < 0.25 { 128 } else { 4 }) << 10,
        }
    }
}

/// A path: a limit of its rate, then lanes that take `latency` for each request.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    pub(crate) latency: u64,
    pub(crate) lanes: usize,
    pub(crate) jitter: Jitter,
    pub(crate) bytes_per_second: Option<u64>,
    /// From a time on, that many times slower.
    pub(crate) phases: Vec<(u64, f64)>,
    rate_free_at: u64,
    lane_free_at: BinaryHeap<Reverse<u64>>,
}

impl Path {
    pub(crate) fn new(latency: u64, lanes: usize, jitter: Jitter) -> Self {
        let (bytes_per_second, phases, lane_free_at) = (None, Vec::new(), BinaryHeap::new());
        Self { latency, lanes, jitter, bytes_per_second, phases, rate_free_at: 0, lane_free_at }
    }

    /// The path with a limited rate.
    pub(crate) fn throttled(self, bytes_per_second: u64) -> Self {
        Self { bytes_per_second: Some(bytes_per_second), ..self }
    }

    /// The path, so many times slower from `at` on.
    pub(crate) fn slower(mut self, at: u64, factor: f64) -> Self {
        self.phases.push((at, factor));
        self
    }

    fn factor(&self, at: u64) -> f64 {
        self.phases.iter().rev().find(|(from, _)| *from <= at).map_or(1.0, |(_, factor)| *factor)
    }

    /// When a request that is sent now completes, if it does.
    fn carry(&mut self, now: u64, bytes: usize, random: &mut Random) -> Option<u64> {
        let mut start = now;
        if let Some(rate) = self.bytes_per_second {
            let transfer =
                (bytes as f64 * 1e9 / rate as f64 * self.factor(now.max(self.rate_free_at))) as u64;
            start = now.max(self.rate_free_at) + transfer;
            self.rate_free_at = start;
        }
        if self.lane_free_at.len() >= self.lanes {
            let Reverse(free_at) = self.lane_free_at.pop().expect("a path has a lane");
            start = start.max(free_at);
        }
        let factor = self.factor(start);
        let done = if factor.is_finite() {
            start + (self.latency as f64 * factor * self.jitter.draw(random)) as u64
        } else {
            u64::MAX
        };
        if self.lanes != UNLIMITED {
            self.lane_free_at.push(Reverse(done));
        }
        (done != u64::MAX).then_some(done)
    }
}

/// What was sent and came back in a part of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: Vec<u64>,
    pub(crate) done: Vec<u64>,
    pub(crate) bytes_done: u64,
    pub(crate) elapsed: u64,
}

impl Tally {
    /// The part of all requests that was sent over a path.
    pub(crate) fn share(&self, path: usize) -> f64 {
        self.sent[path] as f64 / self.sent.iter().sum::<u64>() as f64
    }

    pub(crate) fn bytes_per_second(&self) -> f64 {
        self.bytes_done as f64 * 1e9 / self.elapsed as f64
    }

    /// Jain's index of what was sent.
    pub(crate) fn jain(&self) -> f64 {
        let sum = self.sent.iter().sum::<u64>() as f64;
        let squares: f64 = self.sent.iter().map(|count| (*count as f64).powi(2)).sum();
        sum * sum / (self.sent.len() as f64 * squares)
    }

    /// The most sent over one path, divided by the fewest.
    pub(crate) fn spread(&self) -> f64 {
        let (most, fewest) = (self.sent.iter().max(), self.sent.iter().min());
        *most.expect("there are paths") as f64 / *fewest.expect("there are paths") as f64
    }
}

/// What will come back, the earliest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Completion {
    done: u64,
    /// Of two at once, the one that was sent first.
    sequence: u64,
    path: usize,
    bytes: usize,
    /// By the clock that the selector hears.
    sent: u64,
}

/// A closed loop: as many requests on their way as `depth` says.
pub(crate) struct Loop {
    pub(crate) selector: Selector,
    pub(crate) paths: Vec<Path>,
    pub(crate) candidates: PathSet,
    pub(crate) depth: usize,
    pub(crate) sizes: Sizes,
    pub(crate) now: u64,
    /// Added to the time that the selector hears.
    pub(crate) clock_offset: u64,
    /// Requests that are not counted in the depth any more, because they never come back.
    pub(crate) lost: usize,
    random: Random,
    sequence: u64,
    in_flight: usize,
    completions: BinaryHeap<Reverse<Completion>>,
    tally: Tally,
}

impl Loop {
    pub(crate) fn new(kind: &SelectorKind, paths: Vec<Path>, depth: usize, sizes: Sizes, seed: u64) -> Self {
        let mut candidates = PathSet::EMPTY;
        (0..paths.len()).for_each(|path| candidates.insert(PathIndex(path)));
        Self {
            selector: Selector::new(Instant::ZERO, kind.clone()),
            paths,
            candidates,
            depth,
            sizes,
            now: 0,
            clock_offset: 0,
            lost: 0,
            random: Random(seed),
            sequence: 0,
            in_flight: 0,
            completions: BinaryHeap::new(),
            tally: Tally::default(),
        }
    }

    fn clock(&self) -> Instant {
        Instant(self.now + self.clock_offset)
    }

    fn send(&mut self) {
        let bytes = self.sizes.draw(&mut self.random);
        let clock = self.clock();
        let path = self.selector.select_path(clock, self.candidates, bytes).expect("there are candidates");
        assert!(self.candidates.contains(path));
        self.selector.start_io(clock, path, bytes);
        self.tally.sent[path.0] += 1;
        self.in_flight += 1;
        if let Some(done) = self.paths[path.0].carry(self.now, bytes, &mut self.random) {
            let (sequence, path, sent) = (self.sequence, path.0, clock.0);
            self.completions.push(Reverse(Completion { done, sequence, path, bytes, sent }));
        } else {
            self.lost += 1;
        }
        self.sequence += 1;
    }

    /// Takes in the next completion and sends what there is room for.
    fn step(&mut self) {
        while self.in_flight - self.lost < self.depth {
            self.send();
        }
        let Some(Reverse(next)) = self.completions.pop() else { return };
        let Completion { done, path, bytes, sent, .. } = next;
        self.now = self.now.max(done);
        let clock = self.clock();
        self.selector.end_io(
            clock,
            PathIndex(path),
            bytes,
            Duration::from_nanos(clock.0.saturating_sub(sent)),
            true,
        );
        self.tally.done[path] += 1;
        self.tally.bytes_done += bytes as u64;
        self.in_flight -= 1;
    }

    /// Lets everything come back, and time pass without any request.
    pub(crate) fn idle(&mut self, duration: u64) {
        let depth = std::mem::take(&mut self.depth);
        while !self.completions.is_empty() {
            self.step();
        }
        self.depth = depth;
        self.now += duration;
    }

    fn run(&mut self, goes_on: impl Fn(&Self) -> bool) -> Tally {
        let (started, zeros) = (self.now, vec![0; self.paths.len()]);
        self.tally = Tally { sent: zeros.clone(), done: zeros, ..Tally::default() };
        while goes_on(self) {
            self.step();
        }
        self.tally.elapsed = self.now - started;
        self.tally.clone()
    }

    /// Goes on until so many more requests are done.
    pub(crate) fn run_requests(&mut self, count: u64) -> Tally {
        self.run(|this| this.tally.done.iter().sum::<u64>() < count)
    }

    /// Goes on until a time.
    pub(crate) fn run_until(&mut self, time: u64) -> Tally {
        self.run(|this| this.now < time)
    }
}
