//! A path fails under load, with errors or without an answer: what requests that met it took (goals 4 and 5).
//!
//! Keeps true: without the fault every request takes the same time, so that what one took beyond it is the failover's. Not
//! here: what the processor takes for it, which real paths show (`real_paths`); the fence (`fenced`).

use std::time::Duration;

use multipath::FailoverConfig;

use super::figure::{Figure, Target};
use super::load::{Load, Pace};
use super::stage::{Setting, Stage};
use super::tally::Tally;
use super::{ms, ratio};

/// What each request takes where nothing fails.
pub(super) const SERVICE: Duration = Duration::from_micros(300);
pub(super) const LINK: &str = "latency=300us";
pub(super) const PATHS: usize = 4;
const DEPTH: usize = 32;
/// Under a hang: so that no place is written twice while it goes on.
const HANG_DEPTH: usize = 8;
/// As goal 5 says.
const HANG_TIMEOUT: Duration = Duration::from_millis(200);
/// Ways in which a path answers with errors, or says that it is gone.
const ERRORS: [&str; 3] = ["down", "dead", "error 1"];

/// What requests took that met a path which failed.
#[derive(Clone, Debug)]
pub struct Met {
    /// 99th percentile from an error to sending again.
    pub resubmit_p99: Duration,
    /// All requests from the fault on.
    pub tally: Tally,
}

/// A stage that is warm, at a random moment of a request.
fn warm(setting: &Setting, load: &Load) -> Stage {
    let mut stage = Stage::new(setting);
    stage.run_requests(load, 1000);
    let phase = stage.chance().below(SERVICE.as_nanos() as u64);
    stage.run_for(load, Duration::from_nanos(phase));
    stage
}

/// One of four paths fails in this way, under 32 requests, half of them writes.
#[must_use]
pub fn error(way: &str, seed: u64, config: FailoverConfig) -> Met {
    let load = Load::reads_and_writes(Pace::Depth(DEPTH));
    let mut stage = warm(&Setting::equal(PATHS, LINK, seed).with(config), &load);
    stage.apply(&format!("port p1 {way}"));
    let mut tally = stage.run_requests(&load, 2000);
    tally.add(&stage.drain());
    let resubmit_p99 = stage.device().failover_times().resubmit.quantile(0.99).unwrap_or_default();
    Met { resubmit_p99, tally }
}

/// Goal 4.
#[must_use]
pub fn goal_4(seeds: u64) -> Vec<Figure> {
    let (mut resubmit, mut extra, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for seed in 0..seeds {
        for way in ERRORS {
            let met = error(way, seed, FailoverConfig::default());
            resubmit.push(ms(met.resubmit_p99));
            extra.push(ratio(met.tally.longest().saturating_sub(SERVICE), SERVICE));
            failed.push(met.tally.failed as f64);
        }
    }
    vec![
        Figure::of_seeds(
            4,
            "error to sent again, p99, without processor time",
            "ms",
            Target::AtMost(1.0),
            resubmit,
        ),
        Figure::of_seeds(4, "a failover's time / one more service time", "", Target::AtMost(1.05), extra),
        Figure::of_seeds(4, "requests that failed", "", Target::AtMost(0.0), failed),
    ]
}

/// One of four paths hangs for good; Only what took longer than half of the time-out is
/// in the tally.
#[must_use]
pub fn hang(load: &Load, seed: u64, config: FailoverConfig) -> Tally {
    let mut stage = warm(&Setting::equal(PATHS, LINK, seed).with(config), load);
    stage.apply("port p1 hang forever");
    let mut tally = stage.run_for(load, config.attempt_timeout * 2);
    tally.add(&stage.drain());
    tally.at_least(config.attempt_timeout / 2)
}

/// The numbers of goal 5.
#[must_use]
pub fn hang_config() -> FailoverConfig {
    FailoverConfig { attempt_timeout: HANG_TIMEOUT, ..FailoverConfig::default() }
}

/// Goal 5.
#[must_use]
pub fn goal_5(seeds: u64) -> Vec<Figure> {
    let pace = Pace::Depth(HANG_DEPTH);
    let of = |load: Load| (0..seeds).map(move |seed| hang(&load, seed, hang_config()));
    let reads: Vec<Tally> = of(Load::reads(pace)).collect();
    let both: Vec<Tally> = of(Load::reads_and_writes(pace)).collect();
    let p999 = |tallies: &[Tally]| tallies.iter().map(|tally| ms(tally.quantile(0.999))).collect();
    let parts = reads.iter().chain(&both);
    let relative = parts.clone().map(|tally| ratio(tally.longest(), HANG_TIMEOUT + SERVICE)).collect();
    let failed = parts.map(|tally| tally.failed as f64).collect();
    vec![
        Figure::of_seeds(
            5,
            "reads on a path that hangs, time-out 200 ms, p99.9",
            "ms",
            Target::AtMost(260.0),
            p999(&reads),
        ),
        Figure::of_seeds(5, "the same, and writes under fence", "ms", Target::AtMost(260.0), p999(&both)),
        Figure::of_seeds(
            5,
            "the longest / (time-out + one service time)",
            "",
            Target::AtMost(1.25),
            relative,
        ),
        Figure::of_seeds(5, "requests that failed", "", Target::AtMost(0.0), failed),
    ]
}
