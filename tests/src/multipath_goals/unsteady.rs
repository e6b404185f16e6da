//! Paths that come and go, and a device that comes back after all its paths were gone (goals 13 and 14); a path that answers
//! late now and then (goal 11).

use std::time::Duration;

use multipath::hedge::HedgeConfig;
use multipath::selector::SelectorKind;
use multipath::{FailoverConfig, PathState};
use storage_mapping::{Instant, PathIndex};

use super::figure::{Figure, Target};
use super::load::{Load, Pace};
use super::shares::{link, set_speed};
use super::stage::{Setting, Stage};
use super::tally::Tally;
use super::{micros, millis, ms, ratio};

const PATHS: usize = 4;
const MEAN: Duration = micros(300);
/// Of the flapping: up and down for so long each.
const FLAP: Duration = millis(2000);

/// How a path is away while it flaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Away {
    /// Its link is lost: requests fail at once.
    Down,
    /// It does not answer; what it has it answers when it is back.
    Hung,
}

/// What came of a path that flaps.
#[derive(Clone, Debug)]
pub struct Flapping {
    /// All requests.
    pub tally: Tally,
    /// How often the path was put into use.
    pub reinstatements: u64,
}

/// One of four paths is up and down in turns; requests come at an even rate.
#[must_use]
pub fn flapping(away: Away, time: Duration, seed: u64, config: FailoverConfig) -> Flapping {
    let load = Load::reads(Pace::Every(millis(1)));
    let mut stage = Stage::new(&Setting::equal(PATHS, &link(MEAN), seed).with(config));
    stage.run_for(&load, millis(1000));
    let (mut tally, mut reinstatements) = (Tally::default(), 0);
    let end = stage.now() + time;
    while stage.now() < end {
        for line in away_and_back(away) {
            if let Some(line) = line {
                stage.apply(line);
            }
            let since = stage.now();
            tally.add(&stage.run_for(&load, FLAP));
            let is_back = |to| to == PathState::Active;
            reinstatements += stage.events_since(since).filter(|event| is_back(event.to)).count() as u64;
        }
    }
    tally.add(&stage.drain());
    Flapping { tally, reinstatements }
}

/// What happens to the path at the beginning of each half of a turn.
fn away_and_back(away: Away) -> [Option<&'static str>; 2] {
    match away {
        Away::Down => [Some("port p0 down"), Some("port p0 up")],
        Away::Hung => [Some("port p0 hang forever"), Some("port p0 resume")],
    }
}

/// The same load for so long, without the path.
#[must_use]
pub fn without_path(time: Duration, seed: u64, config: FailoverConfig) -> Tally {
    let load = Load::reads(Pace::Every(millis(1)));
    let mut stage = Stage::new(&Setting::equal(PATHS, &link(MEAN), seed).with(config));
    let now = stage.now();
    stage.device_mut().fail_path(now, PathIndex(0));
    stage.run_for(&load, millis(1000));
    stage.run_for(&load, time)
}

/// Goal 13.
#[must_use]
pub fn goal_13(seeds: u64, time: Duration) -> Vec<Figure> {
    let config = FailoverConfig::default();
    let mut figures = Vec::new();
    for (away, word) in [(Away::Down, "down"), (Away::Hung, "hung")] {
        let runs: Vec<(Flapping, Tally)> = (0..seeds)
            .map(|seed| (flapping(away, time, seed, config), without_path(time, seed, config)))
            .collect();
        let p99 = |(run, usual): &(Flapping, Tally)| ratio(run.tally.quantile(0.99), usual.quantile(0.99));
        let what = format!("a path 2 s up, 2 s {word}: p99 / p99 without it");
        figures.push(Figure::of_seeds(13, &what, "", Target::AtMost(1.5), runs.iter().map(p99).collect()));
        let back = |(run, _): &(Flapping, Tally)| run.reinstatements as f64;
        let what = format!("the same, {} s: reinstatements", time.as_secs());
        figures.push(Figure::of_seeds(13, &what, "", Target::AtMost(8.0), runs.iter().map(back).collect()));
        let failed = runs.iter().map(|(run, _)| run.tally.failed as f64).collect();
        figures.push(Figure::of_seeds(13, "the same: requests that failed", "", Target::AtMost(0.0), failed));
    }
    figures
}

/// Requests come at this rate; all paths are gone for three seconds and come back at once. Gives the most that went out in
/// any 100 ms from then on until nothing is left over, divided by what the rate sends in 100 ms. What the device has no room for
/// is not its to pace: the rate times three seconds must fit.
#[must_use]
pub fn burst(per_second: u64, seed: u64, config: FailoverConfig) -> f64 {
    let load = Load::reads(Pace::Every(Duration::from_secs(1) / per_second as u32));
    let mut stage = Stage::new(&Setting::equal(PATHS, &link(MEAN), seed).with(config));
    stage.run_for(&load, millis(5000));
    set_all(&mut stage, "down");
    stage.run_for(&load, millis(3000));
    set_all(&mut stage, "up");
    let tally = stage.run_timed(&load, millis(20_000));
    assert!(stage.requests_open() <= per_second / 100 + 1, "the backlog is gone: {}", stage.requests_open());
    assert_eq!(tally.failed, 0);
    let window = millis(100);
    tally.busiest(window) as f64 / (per_second as f64 * window.as_secs_f64())
}

fn set_all(stage: &mut Stage, change: &str) {
    (0..PATHS).for_each(|path| stage.apply(&format!("port p{path} {change}")));
}

/// Goal 14.
#[must_use]
pub fn goal_14(seeds: u64) -> Vec<Figure> {
    let rates = [500, 1000, 1300];
    let runs = (0..seeds).flat_map(|seed| rates.map(|rate| burst(rate, seed, FailoverConfig::default())));
    let what = "all paths back after 3 s: most in 100 ms / steady rate";
    vec![Figure::of_seeds(14, what, "", Target::AtMost(1.5), runs.collect())]
}

/// What reads took where one path is late now and then.
#[derive(Clone, Debug)]
pub struct Grey {
    /// Of all reads.
    pub tally: Tally,
    /// Reads sent beyond those that were asked for, of all that were.
    pub extra: f64,
}

/// Reads over four paths; of those over one of them this part takes 100 ms longer.
#[must_use]
pub fn grey(part: f64, selector: &SelectorKind, hedges: bool, requests: u64, seed: u64) -> Grey {
    let hedge = HedgeConfig { enabled: hedges, ..HedgeConfig::default() };
    let config = FailoverConfig { hedge, ..FailoverConfig::default() };
    let equal = Setting::equal(PATHS, &link(micros(200)), seed).with(config);
    let mut setting = Setting { selector: selector.clone(), ..equal };
    setting.links[1] += &format!(" grey={part}:100ms");
    let mut stage = Stage::new(&setting);
    let load = Load { hedges: true, ..Load::reads(Pace::Every(micros(50))) };
    stage.run_requests(&load, 2000);
    let mut tally = stage.run_requests(&load, requests);
    tally.add(&stage.drain());
    let sent: u64 = tally.sent.iter().sum();
    Grey { extra: sent as f64 / tally.ended() as f64 - 1.0, tally }
}

/// Goal 11. By latency the path is left before hedging has much to do, so that round robin is what shows hedging.
#[must_use]
pub fn goal_11(seeds: u64, requests: u64) -> Vec<Figure> {
    let (latency, round_robin) = (SelectorKind::default(), SelectorKind::RoundRobin);
    let p999 = |part, selector: &SelectorKind, hedges, seed| {
        grey(part, selector, hedges, requests, seed).tally.quantile(0.999)
    };
    let (mut by_latency, mut hedged, mut extra, mut unhedged) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for seed in 0..seeds {
        let healthy = p999(0.0, &round_robin, false, seed);
        by_latency.push(ratio(p999(0.01, &latency, false, seed), healthy));
        let run = grey(0.01, &round_robin, true, requests, seed);
        hedged.push(ratio(run.tally.quantile(0.999), healthy));
        extra.push(run.extra * 100.0);
        unhedged.push(ms(p999(0.01, &round_robin, false, seed)));
    }
    let figure = |what, unit, target, values| Figure::of_seeds(11, what, unit, target, values);
    vec![
        figure("1 % of one path's reads + 100 ms, hedged: p99.9 / healthy", "", Target::AtMost(3.0), hedged),
        figure("the same: extra reads", "%", Target::AtMost(3.0), extra),
        figure("chosen by latency, not hedged: p99.9 / healthy", "", Target::AtMost(3.0), by_latency),
        figure("round robin, not hedged: p99.9 (the fault is seen)", "ms", Target::AtLeast(50.0), unhedged),
    ]
}

/// What became of a path that turned slow for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TurnedSlow {
    /// When it was found slow, since it turned so.
    pub found: Option<Duration>,
    /// Requests that it got from then on for ten seconds.
    pub sent: u64,
    /// Requests that failed when the others were gone for a moment, and requests that it carried then.
    pub alone: (u64, u64),
    /// When it was in use again, since it healed.
    pub back: Option<Duration>,
}

/// `slow` of four paths take fifty times as long as before, with requests at an even rate.
#[must_use]
pub fn turned_slow(slow: usize, seed: u64, config: FailoverConfig) -> TurnedSlow {
    let load = Load::reads(Pace::Every(millis(1)));
    let mut stage = Stage::new(&Setting::equal(PATHS, &link(MEAN), seed).with(config));
    stage.run_for(&load, millis(1000));
    (0..slow).for_each(|path| set_speed(&mut stage, path, MEAN * 50));
    let turned = stage.now();
    let found = wait_for(&mut stage, &load, PathState::Slow, millis(30_000));
    let sent = stage.run_for(&load, millis(10_000)).sent[0];
    (1..PATHS).for_each(|path| stage.apply(&format!("port p{path} down")));
    let alone = stage.run_for(&load, millis(500));
    (1..PATHS).for_each(|path| stage.apply(&format!("port p{path} up")));
    stage.run_for(&load, millis(5000));
    (0..slow).for_each(|path| set_speed(&mut stage, path, MEAN));
    let healed = stage.now();
    let back = wait_for(&mut stage, &load, PathState::Active, millis(30_000));
    let since = |from: Instant| move |at: Instant| at.since(from);
    TurnedSlow {
        found: found.map(since(turned)),
        sent,
        alone: (alone.failed, alone.sent[0]),
        back: back.map(since(healed)),
    }
}

/// When the first path is in this state, if that is soon enough.
fn wait_for(stage: &mut Stage, load: &Load, state: PathState, most: Duration) -> Option<Instant> {
    let end = stage.now() + most;
    while stage.now() < end {
        if stage.device().status()[0].state == state {
            return Some(stage.now());
        }
        stage.run_for(load, millis(100));
    }
    None
}
