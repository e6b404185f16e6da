//! How requests are spread over paths: throttled, unequal, slow, changing and equal ones (goals 7 to 10 and 12), on the whole
//! device.
//!
//! Keeps true: links vary by a fifth more or less, and serve any number of requests at once unless their rate is limited. Not
//! here: other kinds of paths and of chance, on the selector alone (`multipath/tests/selectors.rs`).

use std::time::Duration;

use multipath::selector::SelectorKind;

use super::figure::{Figure, Target};
use super::load::{Load, Pace, Sizes};
use super::stage::{Setting, Stage};
use super::{micros, millis};

const SPEEDS: [Duration; 4] = [micros(50), micros(300), millis(2), millis(20)];
const PATHS: usize = 4;

/// Requests take this long, a fifth more or less.
fn latency_and_jitter(mean: Duration) -> [String; 2] {
    [format!("{}ns", mean.as_nanos() * 8 / 10), format!("{}ns", mean.as_nanos() * 4 / 10)]
}

pub(super) fn link(mean: Duration) -> String {
    let [latency, jitter] = latency_and_jitter(mean);
    format!("latency={latency} jitter={jitter}")
}

pub(super) fn set_speed(stage: &mut Stage, path: usize, mean: Duration) {
    let [latency, jitter] = latency_and_jitter(mean);
    stage.apply(&format!("port p{path} latency {latency}"));
    stage.apply(&format!("port p{path} jitter {jitter}"));
}

fn speed(seed: u64) -> Duration {
    SPEEDS[seed as usize % SPEEDS.len()]
}

fn setting(links: Vec<String>, selector: &SelectorKind, seed: u64) -> Setting {
    Setting { links, selector: selector.clone(), ..Setting::equal(0, "", seed) }
}

/// Bytes a second of throttled paths, divided by the sum of their rates. Each has 16 requests.
#[must_use]
pub fn aggregate(selector: &SelectorKind, rates: &[u64], sizes: Sizes, seed: u64) -> f64 {
    let unit = [4_000_000, 10_000_000, 25_000_000, 60_000_000][seed as usize % 4];
    let delay = link([micros(20), micros(50), micros(100)][seed as usize % 3]);
    let links = rates.iter().map(|rate| format!("{delay} rate={}B", unit * rate)).collect();
    let mut stage = Stage::new(&setting(links, selector, seed));
    let load = Load { sizes, ..Load::reads(Pace::Depth(16 * rates.len())) };
    stage.run_requests(&load, 500);
    stage.run_requests(&load, 2500).bytes_per_second() / (unit * rates.iter().sum::<u64>()) as f64
}

fn aggregates(goal: u8, what: &str, all: &[&[u64]], least: f64, seeds: u64) -> Figure {
    let latency = SelectorKind::default();
    let runs = all.iter().flat_map(|rates| Sizes::ALL.map(|sizes| (*rates, sizes)));
    let values = runs
        .flat_map(|(rates, sizes)| (0..seeds).map(move |seed| (rates, sizes, seed)))
        .map(|(rates, sizes, seed)| aggregate(&latency, rates, sizes, seed));
    Figure::of_seeds(goal, what, "", Target::AtLeast(least), values.collect())
}

/// Goal 7.
#[must_use]
pub fn goal_7(seeds: u64) -> Vec<Figure> {
    let equal: [&[u64]; 3] = [&[1; 2], &[1; 4], &[1; 8]];
    vec![aggregates(7, "2, 4, 8 equal throttled paths: bytes a second / sum of rates", &equal, 0.95, seeds)]
}

/// Goal 8.
#[must_use]
pub fn goal_8(seeds: u64) -> Vec<Figure> {
    let unequal: [&[u64]; 2] = [&[4, 1], &[4, 4, 1, 1]];
    vec![aggregates(8, "paths of 4:1 and 4:4:1:1, no weights: the same", &unequal, 0.93, seeds)]
}

/// The share of a path that is four times slower than three others, divided by its share of the speed.
#[must_use]
pub fn share_of_slow_path(selector: &SelectorKind, depth: usize, seed: u64) -> f64 {
    let mut links = vec![link(speed(seed)); PATHS];
    links[1] = link(speed(seed) * 4);
    let mut stage = Stage::new(&setting(links, selector, seed));
    let load = Load::reads(Pace::Depth(depth));
    stage.run_requests(&load, 1000);
    stage.run_requests(&load, if depth == 1 { 2500 } else { 6000 }).share(1) / (0.25 / 3.25)
}

/// Goal 9.
#[must_use]
pub fn goal_9(seeds: u64) -> Vec<Figure> {
    let of = |(depth, most)| {
        let what = format!("a path 4 × slower than 3, depth {depth}: share / share of speed");
        let values = (0..seeds).map(|seed| share_of_slow_path(&SelectorKind::default(), depth, seed));
        Figure::of_seeds(9, &what, "", Target::AtMost(most), values.collect())
    };
    [(1, 1.25), (64, 1.15)].map(of).into()
}

/// The shares of a path, by its share of speed: after it turned ten times slower, and after it healed.
#[must_use]
pub fn shares_of_turning_path(selector: &SelectorKind, depth: usize, seed: u64) -> (f64, f64) {
    let speed = speed(seed);
    let mut stage = Stage::new(&setting(vec![link(speed); PATHS], selector, seed));
    let load = Load::reads(Pace::Depth(depth));
    stage.run_requests(&load, 1000);
    set_speed(&mut stage, 2, speed * 10);
    stage.run_requests(&load, 200);
    let slow = stage.run_requests(&load, 2000).share(2) / (0.1 / 3.1);
    set_speed(&mut stage, 2, speed);
    // No more than is needed, to be quick: the goal is 5 s.
    stage.run_for(&load, millis(5000).min(speed * 1000));
    (slow, stage.run_requests(&load, 4000).share(2) / 0.25)
}

/// Goal 10.
#[must_use]
pub fn goal_10(seeds: u64) -> Vec<Figure> {
    let depths = [1, 8, 64];
    let shares: Vec<(f64, f64)> = (0..seeds)
        .flat_map(|seed| depths.map(|depth| shares_of_turning_path(&SelectorKind::default(), depth, seed)))
        .collect();
    let (slow, healed) = shares.into_iter().unzip();
    let turned = "a path turns 10 × slower, after 200 I/Os: share / share of speed";
    vec![
        Figure::of_seeds(10, turned, "", Target::AtMost(1.5), slow),
        Figure::of_seeds(10, "it heals, 5 s later: share / fair share", "", Target::AtLeast(0.9), healed),
    ]
}

/// Goal 12.
#[must_use]
pub fn goal_12(seeds: u64) -> Vec<Figure> {
    let words = ["round-robin", "queue-length", "service-time", "latency"];
    let runs = words.into_iter().flat_map(|word| [1, 8, 64].map(|depth| (word, depth)));
    let tallies = runs.flat_map(|(word, depth)| (0..seeds).map(move |seed| (word, depth, seed))).map(
        |(word, depth, seed)| {
            let kind = word.parse().expect("the word is one of the table");
            let mut stage = Stage::new(&setting(vec![link(speed(seed)); PATHS], &kind, seed));
            stage.run_requests(&Load::reads(Pace::Depth(depth)), 10_000)
        },
    );
    let (jain, spread) = tallies.map(|tally| (tally.jain(), tally.spread())).unzip();
    vec![
        Figure::of_seeds(12, "equal paths, four policies: Jain index", "", Target::AtLeast(0.99), jain),
        Figure::of_seeds(12, "the same: most / fewest requests", "", Target::AtMost(1.05), spread),
    ]
}
