//! Hedged reads in virtual time: what a grey path costs with them and without, and that they stop where
//! the target is slow.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use multipath::hedge::{Hedge, HedgeConfig, HedgeOutcome};
use multipath::histogram::Histogram;
use storage_mapping::{Instant, PathIndex};

const PATHS: usize = 4;
const FAST: u64 = 200_000;
const SLOW: u64 = 100_000_000;

/// What is slow.
#[derive(Clone, Copy, PartialEq)]
enum Grey {
    Nothing,
    /// 1 % of what one path carries.
    OnePath,
    /// 1 % of all blocks, over whichever path.
    Target,
}

/// How service times are distributed.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Even,
    /// Between half and one and a half of the mean.
    Wide,
    Exponential,
}

struct Random(u64);

impl Random {
    /// From 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) as f64 + 1.0) / (1_u64 << 53) as f64
    }

    fn service(&mut self, shape: Shape) -> u64 {
        match shape {
            Shape::Even => FAST,
            Shape::Wide => (FAST as f64 * (0.5 + self.next())) as u64,
            Shape::Exponential => (FAST as f64 * -self.next().ln()) as u64,
        }
    }
}

struct Run {
    latencies: Histogram,
    reads: u64,
    hedges: u64,
    /// Of the second half.
    late_hedges: u64,
    hedge: Hedge,
}

/// What happens next to a read or its hedge.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The first read comes back, maybe long after its hedge.
    End {
        path: usize,
        service: u64,
    },
    HedgeDue {
        path: usize,
        ends: u64,
        target_is_slow: bool,
        sent: u64,
    },
    HedgeOver {
        path: usize,
        won: bool,
    },
}

/// Reads come every 50 µs, go over the paths in turn and are hedged over the next one.
fn run(reads: u64, grey: Grey, shape: Shape, enabled: bool) -> Run {
    let hedge = Hedge::new(HedgeConfig { enabled, ..HedgeConfig::default() });
    let mut run = Run { latencies: Histogram::new(), reads, hedges: 0, late_hedges: 0, hedge };
    let (mut random, mut events) = (Random(11), BinaryHeap::new());
    for read in 0..reads {
        let now = read * 50_000;
        while events.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Reverse((at, event)) = events.pop().expect("one was seen");
            let now = Instant(at);
            match event {
                Event::End { path, service } => {
                    run.hedge.handle_read(PathIndex(path), Duration::from_nanos(service));
                }
                Event::HedgeOver { path, won } => {
                    let outcome = if won { HedgeOutcome::Won } else { HedgeOutcome::Lost };
                    run.hedge.handle_hedge(PathIndex(path), now, outcome);
                }
                Event::HedgeDue { path, ends, target_is_slow, sent } => {
                    let mut end = ends;
                    if run.hedge.try_hedge(PathIndex(path), now) {
                        run.hedges += 1;
                        run.late_hedges += u64::from(read > reads / 2);
                        let service = if target_is_slow { SLOW } else { random.service(shape) };
                        end = ends.min(at + service);
                        events.push(Reverse((end, Event::HedgeOver { path, won: end < ends })));
                    }
                    run.latencies.record_nanos(end - sent);
                }
            }
        }
        let path = (read % PATHS as u64) as usize;
        let is_unlucky = random.next() < 0.01;
        let target_is_slow = grey == Grey::Target && is_unlucky;
        let is_slow = target_is_slow || (grey == Grey::OnePath && is_unlucky && path == 1);
        let service = if is_slow { SLOW } else { random.service(shape) };
        let due = run.hedge.hedge_at(PathIndex(path), Instant(now));
        events.push(Reverse((now + service, Event::End { path, service })));
        match due {
            Some(due) if due.0 < now + service => {
                let event = Event::HedgeDue { path, ends: now + service, target_is_slow, sent: now };
                events.push(Reverse((due.0, event)));
            }
            _ => run.latencies.record_nanos(service),
        }
    }
    run
}

fn p999(run: &Run) -> f64 {
    run.latencies.quantile(0.999).expect("reads").as_secs_f64() * 1e3
}

#[test]
fn a_grey_path_costs_at_most_three_times_the_healthy_tail() {
    for shape in [Shape::Even, Shape::Wide, Shape::Exponential] {
        let healthy = p999(&run(400_000, Grey::Nothing, shape, false));
        let unhedged = p999(&run(400_000, Grey::OnePath, shape, false));
        let hedged = run(400_000, Grey::OnePath, shape, true);
        let extra = hedged.hedges as f64 / hedged.reads as f64;
        let found = p999(&hedged);
        let figures = format!("{shape:?}: {healthy:.2}, {unhedged:.2}, {found:.2} ms, extra {extra:.4}");
        assert!(unhedged > 50.0, "without hedging the tail is seen: {figures}");
        assert!(found <= 3.0 * healthy, "{figures}");
        assert!(extra <= 0.03, "{figures}");
    }
}

#[test]
fn it_stops_where_the_target_is_slow() {
    for shape in [Shape::Even, Shape::Wide] {
        let run = run(400_000, Grey::Target, shape, true);
        let late = run.late_hedges as f64 / (run.reads / 2) as f64;
        assert!(late < 0.001, "{late} of the reads");
        let now = Instant(run.reads * 50_000);
        assert!((0..PATHS).any(|path| run.hedge.is_paused(PathIndex(path), now)));
    }
}
