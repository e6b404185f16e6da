//! What choosing costs: nanoseconds for one select, start and end, for each selector and number of
//! paths.
//!
//! `cargo run --release -p multipath --example selector_cost`
//!
//! The quickest of fifteen rounds, in processor time of the thread, since other load only adds.
//! Requests are 4 KiB, sixteen are in flight, and time goes on by 1 µs for each; the clock is a
//! counter, since selectors read none.

use std::error::Error;
use std::hint::black_box;
use std::time::Duration;

use multipath::selector::{PathSelector, Selector, SelectorKind};
use multipath::{PATH_COUNT_MAX, PathSet};
use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use storage_mapping::{Instant, PathIndex};

const WORDS: [&str; 6] =
    ["round-robin", "queue-length", "service-time", "weighted:3,1", "request", "latency"];
const PATH_COUNTS: [usize; 4] = [2, 4, 8, 32];
const REQUESTS: u64 = 200_000;
const ROUNDS: usize = 15;
const DEPTH: usize = 16;
const BYTES: usize = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    println!("{:<14}{}", "ns/request", PATH_COUNTS.map(|count| format!("{count:>8} paths")).concat());
    for word in WORDS {
        let kind: SelectorKind = word.parse()?;
        print!("{word:<14}");
        for count in PATH_COUNTS {
            print!("{:>14.1}", least_cost(&kind, count)?);
        }
        println!();
    }
    Ok(())
}

/// Nanoseconds for one request.
fn least_cost(kind: &SelectorKind, path_count: usize) -> Result<f64, Errno> {
    (0..ROUNDS).try_fold(f64::INFINITY, |least, _| Ok(cost(kind, path_count)?.min(least)))
}

fn cost(kind: &SelectorKind, path_count: usize) -> Result<f64, Errno> {
    let mut candidates = PathSet::EMPTY;
    (0..path_count.min(PATH_COUNT_MAX)).for_each(|path| candidates.insert(PathIndex(path)));
    let mut selector = Selector::new(Instant::ZERO, kind.clone());
    let mut in_flight = [None; DEPTH];
    let started = processor_time()?;
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
    let took = Duration::from(processor_time()? - started);
    Ok(took.as_secs_f64() * 1e9 / REQUESTS as f64)
}

/// Of this thread, so far.
fn processor_time() -> Result<TimeSpec, Errno> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
}
