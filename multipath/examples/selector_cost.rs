//! What choosing costs: nanoseconds for one select, start and end, for each selector and number of
//! paths.
//!
//! `cargo run --release -p multipath --example selector_cost`
//!
//! The median of nine rounds. Requests are 4 KiB, sixteen are in flight, and time goes on by 1 µs for
//! each; the clock is a counter, since selectors read none.

use std::error::Error;
use std::hint::black_box;
use std::time::Duration;

use multipath::selector::{PathSelector, Selector, SelectorKind};
use multipath::{PATH_COUNT_MAX, PathSet};
use storage_mapping::{Instant, PathIndex};

const WORDS: [&str; 6] =
    ["round-robin", "queue-length", "service-time", "weighted:3,1", "request", "latency"];
const PATH_COUNTS: [usize; 4] = [2, 4, 8, 32];
const REQUESTS: u64 = 500_000;
const ROUNDS: usize = 9;
const DEPTH: usize = 16;
const BYTES: usize = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    println!("{:<14}{}", "ns/request", PATH_COUNTS.map(|count| format!("{count:>8} paths")).concat());
    for word in WORDS {
        let kind: SelectorKind = word.parse()?;
        let costs = PATH_COUNTS.map(|count| format!("{:>14.1}", median_cost(&kind, count)));
        println!("{word:<14}{}", costs.concat());
    }
    Ok(())
}

/// Nanoseconds for one request.
fn median_cost(kind: &SelectorKind, path_count: usize) -> f64 {
    let mut costs: Vec<_> = (0..ROUNDS).map(|_| cost(kind, path_count)).collect();
    costs.sort_by(f64::total_cmp);
    costs[ROUNDS / 2]
}

fn cost(kind: &SelectorKind, path_count: usize) -> f64 {
    let mut candidates = PathSet::EMPTY;
    (0..path_count.min(PATH_COUNT_MAX)).for_each(|path| candidates.insert(PathIndex(path)));
    let mut selector = Selector::new(Instant::ZERO, kind.clone());
    let mut in_flight = [None; DEPTH];
    let started = std::time::Instant::now();
    for request in 0..REQUESTS {
        let now = Instant(request * 1000);
        let place = &mut in_flight[request as usize % DEPTH];
        if let Some(path) = *place {
            selector.end_io(now, path, BYTES, Duration::from_micros(DEPTH as u64), true);
        }
        *place = selector.select_path(now, black_box(candidates), BYTES);
        if let Some(path) = *place {
            selector.start_io(now, path, BYTES);
        }
    }
    black_box(&selector);
    started.elapsed().as_secs_f64() * 1e9 / REQUESTS as f64
}
