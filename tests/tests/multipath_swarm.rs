//! Random fault schedules against the multipath device. A failing seed prints the command that replays it.
//!
//! `DISKWIRE_SWARM_SEEDS=100000` and `DISKWIRE_SWARM_FROM=1` run others, without a limit of time; with
//! `DISKWIRE_FULL=1` there are 20,000.

use std::time::{Duration, Instant};

use system_tests::multipath_swarm::{Broken, Mode, Seeds, replay_command, run_seed, run_seeds};

/// Real time after which no further seed is begun.
const LIMIT: Duration = Duration::from_secs(20);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn seeds(mode: Mode, first: u64, count: u64) -> Seeds {
    Seeds { mode, first, count, limit: LIMIT, threads: 0, stops_at_first: false }
}

#[test]
fn no_block_is_lost_torn_stale_or_misaddressed() {
    let full = std::env::var_os("DISKWIRE_FULL").map(|_| 20_000);
    let asked = number("DISKWIRE_SWARM_SEEDS").or(full);
    let first = number("DISKWIRE_SWARM_FROM").unwrap_or(1);
    let limit = if asked.is_some() { Duration::MAX } else { LIMIT };
    let start = Instant::now();
    let summary = run_seeds(Seeds { limit, ..seeds(Mode::Sound, first, asked.unwrap_or(4000)) });
    let took = start.elapsed().as_secs_f64();
    println!("{} seeds in {took:.1} s: {:#?}", summary.seeds, summary.total);
    for (seed, violation) in &summary.failures {
        println!("seed {seed}: {violation:?}\n    {}", replay_command(*seed));
    }
    assert!(summary.failures.is_empty(), "{} seeds broke a promise", summary.failures.len());
    let total = &summary.total;
    assert!(summary.seeds > 0 && total.failovers > 0 && total.late_landings > 0, "nothing went wrong");
    assert_eq!(total.wrongly_assumed, 0, "the quiesce time is above every late landing");
}

/// A quiesce time below what late writes take lets old copies land on newer data.
#[test]
fn a_quiesce_time_that_is_too_short_is_found_out() {
    let summary = run_seeds(seeds(Mode::ShortQuiesce, 1, 40));
    let found = summary.by_promise();
    assert!(found.get(&Broken::Stale).is_some_and(|count| *count > 0), "{found:?}");
    assert!(summary.failures.len() as u64 * 2 > summary.seeds, "{found:?}");
}

/// What asks for no fence has none.
#[test]
fn writes_without_a_fence_are_found_out() {
    let summary = run_seeds(seeds(Mode::UnsafeAsFenced, 1, 40));
    let found = summary.by_promise();
    assert!(found.get(&Broken::Stale).is_some_and(|count| *count > 0), "{found:?}");
    assert!(summary.failures.len() as u64 * 2 > summary.seeds, "{found:?}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 1..=100 {
        let [one, other] = [(); 2].map(|()| run_seed(seed, Mode::Sound, false));
        assert_eq!((one.hash, one.simulated), (other.hash, other.simulated), "seed {seed}");
    }
}

/// Seeds that broke a promise once. What each found stands in `multipath/tests/found_by_simulation.rs`.
#[test]
fn seeds_that_broke_a_promise_once() {
    for seed in [6, 7, 36, 68, 109, 269, 321, 2205, 8304, 10237, 14108, 16895, 19263, 25460, 85580] {
        let report = run_seed(seed, Mode::Sound, false);
        assert_eq!(report.violation, None, "{}", replay_command(seed));
    }
}
