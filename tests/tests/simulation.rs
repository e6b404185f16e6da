//! Many seeds of the simulator. A failing one prints the command that replays it.

use std::time::{Duration, Instant};

use system_tests::plan::Edition;
use system_tests::runner::{Seeds, replay_command, run_edition, run_seed, run_seeds};

/// Real time after which no further seed is begun.
const LIMIT: Duration = Duration::from_secs(35);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn many_seeds_keep_every_promise() {
    let first = number("DISKWIRE_SIM_FROM").unwrap_or(1);
    let asked = number("DISKWIRE_SIM_SEEDS");
    let limit = if asked.is_some() { Duration::MAX } else { LIMIT };
    let start = Instant::now();
    let seeds = Seeds { first, count: asked.unwrap_or(5000), limit, threads: 0, stops_at_first: false };
    let summary = run_seeds(seeds, &|| {});
    let took = start.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "shown with a decimal")]
    let rate = summary.seeds as f64 / took;
    println!(
        "seeds {first} to {}: {} in {took:.1} s, {rate:.1} a second",
        first + summary.seeds - 1,
        summary.seeds
    );
    println!(
        "simulated {:.1} hours, {} events, {} runs of commands, {} files with {} bytes delivered and compared",
        summary.simulated.as_secs_f64() / 3600.0,
        summary.events,
        summary.attempts,
        summary.delivered,
        summary.delivered_bytes
    );
    for (fault, count) in summary.faults.iter() {
        println!("    {count:>9}  {}", fault.name());
    }
    println!(
        "longest way back to rest: {:?} (seed {})",
        summary.recovery_longest.0, summary.recovery_longest.1
    );
    for (seed, violation) in &summary.failures {
        println!("seed {seed}: {violation}\n    {}", replay_command(*seed));
    }
    assert!(summary.failures.is_empty(), "{} seeds broke a promise", summary.failures.len());
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 1..=6 {
        let runs =
            [run_seed(seed, false), run_seed(seed, false)].map(|run| run.map(|run| (run.hash, run.events)));
        assert_eq!(runs[0], runs[1], "seed {seed}");
    }
}

/// Replays `DISKWIRE_SIM_SEED` with every event on stdout; of the first edition with
/// `DISKWIRE_SIM_EDITION=1`.
#[test]
fn replay() {
    let Some(seed) = number("DISKWIRE_SIM_SEED") else { return };
    let edition = match number("DISKWIRE_SIM_EDITION") {
        Some(1) => Edition::First,
        Some(2) => Edition::Second,
        _ => Edition::LATEST,
    };
    let outcome = run_edition(edition, seed, true);
    println!("seed {seed}: {outcome:#?}");
    assert!(outcome.is_ok());
}
