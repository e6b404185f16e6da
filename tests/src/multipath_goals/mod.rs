//! The goals of the multipath layer, measured: each by a scenario that gives figures, which tests and `diskwire bench
//! multipath` both take from here.
//!
//! Read it in this order: [`figure`] (what was measured beside what was aimed at), [`stage`] with [`load`] and [`tally`] (a
//! device over a simulated storage system in virtual time), then the scenarios:
//!
//! | goals | where | time |
//! |---|---|---|
//! | 4, 5 | [`failover`] | virtual |
//! | 6 | [`fenced`] | virtual |
//! | 7 to 10, 12 | [`shares`] | virtual |
//! | 11, 13, 14 | [`unsteady`] | virtual |
//!
//! Keeps true: a figure comes from running the product's code, never from a table; in virtual time the same seed gives the
//! same figure on every machine. Not here: goals 15 and 16 (`multipath_swarm`, the example `storage_system_speed`), 24 (the
//! drills of `multipath/tests/drills.rs`), allocations (`multipath/tests/no_allocations.rs`), real paths (`real_paths`).

pub mod failover;
pub mod fenced;
pub mod figure;
pub mod load;
pub mod shares;
pub mod stage;
pub mod tally;
pub mod unsteady;

use std::time::Duration;

const fn micros(count: u64) -> Duration {
    Duration::from_micros(count)
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// In milliseconds.
fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn ratio(part: Duration, whole: Duration) -> f64 {
    part.as_secs_f64() / whole.as_secs_f64()
}
