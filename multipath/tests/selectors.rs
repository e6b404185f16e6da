//! What the selectors promise, measured on paths in virtual time.
//!
//! Each test is one goal, over at least 20 seeds, several speeds from 50 µs to 20 ms, and kinds of
//! paths: one lane, eight, any number. It prints what it saw (`--nocapture`). Under even jitter the
//! goals hold for every seed; under exponential and bimodal jitter, where a path is by chance faster
//! than another for a while, for the mean of the seeds.
//!
//! Keeps true: nothing here reads a clock. Not here: single rules of a selector (in its file), what a
//! choice costs (`examples/selector_cost.rs`).

mod path_model;

use std::time::Duration;

use multipath::PathSet;
use multipath::selector::{PathSelector, Selector, SelectorKind};
use path_model::{
    HANGS, Jitter, Loop, MICROSECOND, MILLISECOND, Path, Random, SECOND, Sizes, Tally, UNLIMITED,
};
use storage_mapping::{Instant, PathIndex};

const SEEDS: u64 = 20;
const SPEEDS: [u64; 4] = [50 * MICROSECOND, 300 * MICROSECOND, 2 * MILLISECOND, 20 * MILLISECOND];
const LANES: [usize; 3] = [1, 8, UNLIMITED];
const JITTERS: [Jitter; 3] = [Jitter::Uniform, Jitter::Exponential, Jitter::Bimodal];
const SIZES: [Sizes; 3] = [Sizes::Random4KiB, Sizes::Sequential128KiB, Sizes::Mixed];
const COMPARED: [&str; 4] = ["round-robin", "queue-length", "service-time", "latency"];

fn kind(word: &str) -> SelectorKind {
    word.parse().expect("the word is one of the table")
}

fn speed(seed: u64) -> u64 {
    SPEEDS[seed as usize % SPEEDS.len()]
}

fn lanes(seed: u64) -> usize {
    LANES[seed as usize % LANES.len()]
}

fn is_even(jitter: Jitter) -> bool {
    matches!(jitter, Jitter::Uniform)
}

/// What the seeds gave.
struct Figures(Vec<f64>);

impl Figures {
    fn of(seeds: u64, one: impl Fn(u64) -> f64) -> Self {
        Self((0..seeds).map(one).collect())
    }

    fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    fn least(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn most(&self) -> f64 {
        self.0.iter().copied().fold(0.0, f64::max)
    }
}

/// Goal 12.
#[test]
fn equal_paths_get_equal_shares() {
    println!("goal 12: equal paths, 4 paths, 10,000 requests: lowest Jain index, highest max/min");
    for word in ["round-robin", "queue-length", "service-time", "weighted", "request", "latency"] {
        for (depth, jitter) in [
            (1, Jitter::Uniform),
            (8, Jitter::Uniform),
            (64, Jitter::Uniform),
            (1, Jitter::Exponential),
            (64, Jitter::Bimodal),
        ] {
            let tally = |seed| {
                let paths = vec![Path::new(speed(seed), lanes(seed / 4), jitter); 4];
                Loop::new(&kind(word), paths, depth, Sizes::Random4KiB, seed).run_requests(10_000)
            };
            let tallies: Vec<_> = (0..SEEDS).map(tally).collect();
            let jain = Figures(tallies.iter().map(Tally::jain).collect()).least();
            let spread = Figures(tallies.iter().map(Tally::spread).collect()).most();
            println!("  {word:<12} depth {depth:>2} {jitter:<11?} {jain:.4} {spread:.3}");
            assert!(jain >= 0.99 && (spread <= 1.05 || !is_even(jitter)));
        }
    }
}

#[test]
fn weights_are_shares() {
    for depth in [1, 64] {
        let paths = vec![Path::new(speed(1), 1, Jitter::Uniform); 3];
        let mut run = Loop::new(&kind("weighted:6,3,1"), paths, depth, Sizes::Mixed, 7);
        let tally = run.run_requests(10_000);
        [0.6, 0.3, 0.1].iter().enumerate().for_each(|(path, share)| {
            assert!((tally.share(path) - share).abs() < 1e-3, "{:?}", tally.sent);
        });
    }
}

/// Share of path 1, which is four times slower than three others, divided by its share of the speed.
fn share_of_slow_path(word: &str, depth: usize, lanes: usize, jitter: Jitter, seed: u64) -> f64 {
    let mut paths = vec![Path::new(speed(seed), lanes, jitter); 4];
    paths[1].latency *= 4;
    let mut run = Loop::new(&kind(word), paths, depth, Sizes::Random4KiB, seed);
    run.run_requests(1000);
    run.run_requests(if depth == 1 { 2500 } else { 6000 }).share(1) / (0.25 / 3.25)
}

/// Goal 9.
#[test]
fn a_slow_path_gets_no_more_than_its_share() {
    println!("goal 9: share sent to a path 4 times slower / share of speed, mean (most) of 20 seeds");
    for (depth, lanes) in [(1, 1), (64, 1), (64, 8), (64, UNLIMITED)] {
        for jitter in JITTERS {
            let figures = COMPARED
                .map(|word| Figures::of(SEEDS, |seed| share_of_slow_path(word, depth, lanes, jitter, seed)));
            let shown = |index: usize| {
                let (word, seen) = (COMPARED[index], &figures[index]);
                format!("  {word} {:.2} ({:.2})", seen.mean(), seen.most())
            };
            let lanes = if lanes == UNLIMITED { "any".to_owned() } else { lanes.to_string() };
            println!("  depth {depth:>2} lanes {lanes:<3} {jitter:<11?}{}", [0, 1, 2, 3].map(shown).concat());
            let [round_robin, queue_length, service_time, latency] = figures;
            let limit = if depth == 1 { 1.25 } else { 1.15 };
            assert!(if is_even(jitter) { latency.most() } else { latency.mean() } <= limit);
            assert!(round_robin.least() > 3.2, "it does not look");
            for by_load in [queue_length, service_time] {
                let expected = if depth == 1 { 3.2..3.3 } else { 0.9..1.1 };
                assert!(expected.contains(&by_load.mean()), "load tells speed only where there is any");
            }
        }
    }
}

/// Bytes per second of throttled paths, divided by the sum of their rates. The depth covers what the
/// paths hold: 16 requests for each.
fn aggregate(word: &str, rates: &[u64], sizes: Sizes, jitter: Jitter, seed: u64) -> f64 {
    let unit = [4_000_000, 10_000_000, 25_000_000, 60_000_000][seed as usize % 4];
    let latency = [20 * MICROSECOND, 50 * MICROSECOND, 100 * MICROSECOND][seed as usize % 3];
    let throttled = |rate: &u64| Path::new(latency, UNLIMITED, jitter).throttled(unit * rate);
    let paths: Vec<_> = rates.iter().map(throttled).collect();
    let mut run = Loop::new(&kind(word), paths, 16 * rates.len(), sizes, seed);
    run.run_requests(500);
    run.run_requests(2500).bytes_per_second() / (unit * rates.iter().sum::<u64>()) as f64
}

/// Goals 7 and 8.
#[test]
fn many_paths_carry_what_they_can_carry_together() {
    println!("goals 7 and 8: bytes per second / sum of the paths' rates, mean (least) of 20 seeds");
    let equal: [&[u64]; 3] = [&[1; 2], &[1; 4], &[1; 8]];
    let unequal: [&[u64]; 2] = [&[4, 1], &[4, 4, 1, 1]];
    let goals = equal.map(|rates| (rates, 0.95)).into_iter().chain(unequal.map(|rates| (rates, 0.93)));
    for (rates, goal) in goals {
        for (sizes, jitter) in SIZES.into_iter().zip([Jitter::Uniform, Jitter::Uniform, Jitter::Exponential])
        {
            let figures =
                COMPARED.map(|word| Figures::of(SEEDS, |seed| aggregate(word, rates, sizes, jitter, seed)));
            let shown = |index: usize| {
                let (word, seen) = (COMPARED[index], &figures[index]);
                format!("  {word} {:.3} ({:.3})", seen.mean(), seen.least())
            };
            let name = format!("{rates:?} {sizes:?}");
            println!("  {name:<42}{}", [0, 1, 2, 3].map(shown).concat());
            let [round_robin, .., latency] = figures;
            assert!(latency.least() >= goal);
            if rates.contains(&4) {
                assert!(round_robin.mean() < 0.75, "it waits for the slowest");
            }
        }
    }
    let by_weight = aggregate("service-time:4,1", &[4, 1], Sizes::Sequential128KiB, Jitter::Uniform, 1);
    assert!(by_weight > 0.98, "with the right weights: {by_weight}");
}

/// The shares of a path, by its share of speed: after it turned ten times slower, and after it healed.
fn shares_of_turning_path(depth: usize, lanes: usize, jitter: Jitter, seed: u64) -> (f64, f64) {
    let speed = speed(seed);
    let paths = vec![Path::new(speed, lanes, jitter); 4];
    let mut run = Loop::new(&kind("latency"), paths, depth, Sizes::Random4KiB, seed);
    run.run_requests(1000);
    run.paths[2] = run.paths[2].clone().slower(run.now, 10.0);
    run.run_requests(200);
    let slow = run.run_requests(2000).share(2) / (0.1 / 3.1);
    run.paths[2] = run.paths[2].clone().slower(run.now, 1.0);
    // No more than is needed, to be quick: the goal is 5 s.
    run.run_until(run.now + (5 * SECOND).min(if is_even(jitter) { 1000 } else { 6000 } * speed));
    (slow, run.run_requests(4000).share(2) / 0.25)
}

/// Goal 10.
#[test]
fn a_path_that_turns_slow_is_left_within_200_requests_and_found_healed_within_5_s() {
    println!("goal 10: share / share of speed: 200 requests after turning 10 times slower, mean (most);");
    println!("         at most 5 s after healing, mean (least)");
    for (depth, lanes) in [(1, 1), (8, 8), (16, 8), (64, 1), (64, 8), (64, UNLIMITED)] {
        for jitter in JITTERS {
            let seeds = if is_even(jitter) { SEEDS } else { SEEDS / 2 };
            let shares: Vec<_> =
                (0..seeds).map(|seed| shares_of_turning_path(depth, lanes, jitter, seed)).collect();
            let slow = Figures(shares.iter().map(|(slow, _)| *slow).collect());
            let healed = Figures(shares.iter().map(|(_, healed)| *healed).collect());
            let lanes = if lanes == UNLIMITED { "any".to_owned() } else { lanes.to_string() };
            println!(
                "  depth {depth:>2} lanes {lanes:<3} {jitter:<11?} slow {:.2} ({:.2})  healed {:.2} ({:.2})",
                slow.mean(),
                slow.most(),
                healed.mean(),
                healed.least()
            );
            assert!(if is_even(jitter) { slow.most() } else { slow.mean() } <= 1.5);
            assert!(if is_even(jitter) { healed.least() } else { healed.mean() } >= 0.9);
        }
    }
}

#[test]
fn the_depth_may_change_at_any_time() {
    for seed in 0..SEEDS {
        let mut paths = vec![Path::new(speed(seed), lanes(seed), Jitter::Uniform); 4];
        paths[3].latency *= 4;
        let mut run = Loop::new(&kind("latency"), paths, 1, Sizes::Random4KiB, seed);
        for (depth, limit) in [(1, 1.25), (64, 1.15), (1, 1.25), (16, 1.15), (64, 1.15), (2, 1.25)] {
            run.depth = depth;
            // Also at once: in the first requests a wrong choice weighs more.
            let first = run.run_requests(300).share(3) / (0.25 / 3.25);
            let then = run.run_requests(2000).share(3) / (0.25 / 3.25);
            assert!(first <= 2.0 && then <= limit, "seed {seed} depth {depth}: {first:.2} {then:.2}");
        }
    }
}

#[test]
fn a_path_that_healed_while_all_was_idle_gets_its_share() {
    for seed in 0..SEEDS {
        let speed = speed(seed);
        let paths = vec![Path::new(speed, lanes(seed), Jitter::Uniform); 4];
        for depth in [1, 16] {
            let paths = paths.clone().into_iter().map(|path| path.slower(0, 1.0)).collect();
            let mut run = Loop::new(&kind("latency"), paths, depth, Sizes::Random4KiB, seed);
            run.paths[0] = run.paths[0].clone().slower(0, 50.0);
            run.run_requests(3000);
            run.idle(60 * SECOND);
            run.paths[0] = run.paths[0].clone().slower(run.now, 1.0);
            run.run_until(run.now + (5 * SECOND).min(1000 * speed));
            let share = run.run_requests(2000).share(0) / 0.25;
            assert!(share >= 0.9, "seed {seed} depth {depth}: {share:.2}");
        }
    }
}

#[test]
fn a_hung_path_is_left_alone_until_it_is_reinstated() {
    for seed in 0..SEEDS {
        for depth in [1, 8, 64] {
            let paths = vec![Path::new(speed(seed), lanes(seed), Jitter::Uniform); 4];
            let mut run = Loop::new(&kind("latency"), paths, depth, Sizes::Mixed, seed);
            run.run_requests(1000);
            run.paths[1] = run.paths[1].clone().slower(run.now, HANGS);
            run.run_requests(200);
            let lost = run.lost;
            run.run_requests(5000);
            assert!(lost <= depth + 1 && run.lost <= lost + 1, "{} of depth {depth}", run.lost);
            run.paths[1] = Path::new(speed(seed), lanes(seed), Jitter::Uniform);
            run.candidates.remove(PathIndex(1));
            run.selector.fail_path(Instant(run.now), PathIndex(1));
            run.run_requests(100);
            run.candidates.insert(PathIndex(1));
            run.selector.reinstate_path(Instant(run.now), PathIndex(1));
            run.run_requests(500);
            let share = run.run_requests(2000).share(1) / 0.25;
            assert!((0.9..1.1).contains(&share), "seed {seed} depth {depth}: {share:.2}");
        }
    }
}

#[test]
fn a_jump_of_the_clock_is_forgotten_soon() {
    for seed in 0..SEEDS {
        for depth in [1, 8, 64] {
            let paths = vec![Path::new(speed(seed), lanes(seed), Jitter::Uniform); 4];
            let mut run = Loop::new(&kind("latency"), paths, depth, Sizes::Random4KiB, seed);
            run.run_requests(1000);
            for offset in [3600 * SECOND, 3601 * SECOND, 0] {
                run.clock_offset = offset;
                run.run_until(run.now + (5 * SECOND).min(2000 * speed(seed)));
                let jain = run.run_requests(4000).jain();
                assert!(jain >= 0.99, "seed {seed} depth {depth} offset {offset}: {jain:.4}");
            }
        }
    }
}

#[test]
fn none_chooses_what_is_no_candidate_whatever_it_hears() {
    for word in ["round-robin", "queue-length", "service-time:3,0,1", "weighted:0,2", "request", "latency"] {
        let mut random = Random(5);
        let mut selector = Selector::new(Instant(1000), kind(word));
        for _ in 0..20_000 {
            let (path, now) = (PathIndex(random.next() as usize % 64), Instant(random.next() % 1_000_000));
            let bytes = [0, 1, 4096, 1 << 20, usize::MAX][random.next() as usize % 5];
            let took = Duration::from_nanos(random.next() >> (random.next() % 64));
            match random.next() % 7 {
                0 => selector.start_io(now, path, bytes),
                1 => selector.end_io(now, path, bytes, took, random.unit() < 0.5),
                2 => selector.fail_path(now, path),
                3 => selector.reinstate_path(now, path),
                4 => drop(format!("{}", selector.score(now, path, bytes))),
                _ => {
                    let (among, mut candidates) = (random.next() & random.next(), PathSet::EMPTY);
                    let members = (0..64).filter(|path| among >> path & 1 == 1);
                    members.for_each(|path| candidates.insert(PathIndex(path)));
                    let chosen = selector.select_path(now, candidates, bytes);
                    assert_eq!(chosen.is_some(), !candidates.is_empty(), "{word}");
                    assert!(chosen.is_none_or(|path| candidates.contains(path)), "{word}");
                }
            }
        }
    }
}
