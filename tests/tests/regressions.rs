//! Seeds that broke a promise once, each with what was wrong.

use system_tests::runner::{replay_command, run_seed};

fn check(seeds: &[u64]) {
    for seed in seeds {
        if let Err(violation) = run_seed(*seed, false) {
            panic!("seed {seed}: {violation}\n    {}", replay_command(*seed));
        }
    }
}

/// An idle connection's loop turned without end for nine seconds of every ten: the wake-up and the
/// publication did not agree on when the keep-alive is due.
#[test]
fn an_idle_connection_does_not_spin() {
    check(&[10, 16, 23, 44]);
}

/// With a table write under way for long, the keep-alive that could not be published woke the loop at
/// once, again and again.
#[test]
fn a_table_in_flight_does_not_spin() {
    check(&[29, 34, 61]);
}

/// The segment that did not open had to wait for a free one, and all the others waited behind it.
#[test]
fn a_small_pool_does_not_lock_itself() {
    check(&[37, 72, 161]);
}

/// Nobody took the events of a multipath device, which then wanted to be polled at once for ever.
#[test]
fn events_of_a_device_are_taken() {
    check(&[135]);
}

/// A command that ran again at once after it was killed met its own earlier connection, and was told that
/// its files had failed for good; it is told to try again, and keeps its record.
#[test]
fn a_file_that_is_busy_has_not_failed() {
    check(&[1196]);
}
