//! Hosts that lose their power in the middle of what they do to their files.
//!
//! `DISKWIRE_SIM_SEEDS` runs so many seeds from `DISKWIRE_SIM_FROM` on; `DISKWIRE_SIM_SEED` prints one.

use system_tests::plan::Plan;
use system_tests::runner::run_plan;

/// Seeds that every run of the tests goes through.
const SEEDS: u64 = 40;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn run(seed: u64, printed: bool) -> Result<(), String> {
    run_plan(Plan::of_power_losses(seed), printed).map(drop)
}

#[test]
fn what_was_said_survives_every_power_loss() {
    let first = number("DISKWIRE_SIM_FROM").unwrap_or(1);
    let seeds = number("DISKWIRE_SIM_SEEDS").unwrap_or(SEEDS);
    let start = std::time::Instant::now();
    let failure = |seed| Some((seed, run(seed, false).err()?));
    let failures: Vec<_> = (first..first + seeds).filter_map(failure).collect();
    println!("{seeds} seeds in {:.1} s", start.elapsed().as_secs_f64());
    for (seed, violation) in &failures {
        println!("seed {seed}: {violation}");
    }
    assert!(failures.is_empty(), "{} seeds broke a promise", failures.len());
}

/// Prints one seed with all its events.
#[test]
fn replay() {
    let Some(seed) = number("DISKWIRE_SIM_SEED") else { return };
    println!("{:?}", run(seed, true));
}
