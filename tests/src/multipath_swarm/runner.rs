//! Runs many seeds, or one with its trace, and adds up what they were like.
//!
//! A panic inside a run is a broken promise like any other. Not here: how a summary is shown.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use storage_mapping::Instant;

use super::plan::{Mode, Plan};
use super::truth::{Broken, Violation};
use super::world::{Report, World};
use crate::trace::Trace;

/// Which seeds to run, and how.
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
    /// What the runs are to show.
    pub mode: Mode,
    /// The first.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// No further one is begun after this much real time.
    pub limit: Duration,
    /// How many run at once; 0 = as many as there are processors.
    pub threads: usize,
    /// No further one is begun after the first that broke a promise.
    pub stops_at_first: bool,
}

/// What many runs were like.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Runs.
    pub seeds: u64,
    /// Stands for the events of all runs, in whatever order they were run.
    pub hash: u64,
    /// All of them added up; the longest way back to rest.
    pub total: Report,
    /// Seeds that broke a promise, and which.
    pub failures: Vec<(u64, Violation)>,
}

/// One seed; `printed` shows every event on stdout.
#[must_use]
pub fn run_seed(seed: u64, mode: Mode, printed: bool) -> Report {
    let run = || World::new(Plan::of_seed(seed, mode), Trace::new(printed), printed).run();
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let text = text.unwrap_or_else(|| "without words".to_owned());
        let violation = Violation { broken: Broken::Panic, at: Instant::ZERO, text };
        Report { violation: Some(violation), ..Report::default() }
    })
}

/// Runs `seeds`.
///
/// # Panics
/// If the summary is lost, which no run can bring about.
#[must_use]
pub fn run_seeds(seeds: Seeds) -> Summary {
    let next = AtomicU64::new(seeds.first);
    let (summary, is_over) = (Mutex::new(Summary::default()), AtomicBool::new(false));
    let start = std::time::Instant::now();
    let threads = match seeds.threads {
        0 => std::thread::available_parallelism().map_or(2, usize::from),
        threads => threads,
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let is_last = is_over.load(Ordering::Relaxed) || start.elapsed() >= seeds.limit;
                    if is_last || seed - seeds.first >= seeds.count {
                        return;
                    }
                    let report = run_seed(seed, seeds.mode, false);
                    is_over.fetch_or(seeds.stops_at_first && report.violation.is_some(), Ordering::Relaxed);
                    summary.lock().expect("no run panics outside its catch").add(seed, report);
                }
            });
        }
    });
    let mut summary = summary.into_inner().expect("no run panics outside its catch");
    summary.failures.sort_by_key(|(seed, _)| *seed);
    summary
}

impl Summary {
    fn add(&mut self, seed: u64, report: Report) {
        self.seeds += 1;
        self.hash = self.hash.wrapping_add(report.hash.wrapping_mul(seed | 1));
        let total = &mut self.total;
        total.simulated += report.simulated;
        total.requests += report.requests;
        total.errors += report.errors;
        total.withdrawn += report.withdrawn;
        total.attempts += report.attempts;
        total.failovers += report.failovers;
        total.held += report.held;
        total.late_landings += report.late_landings;
        total.wrongly_assumed += report.wrongly_assumed;
        total.recovery = total.recovery.max(report.recovery);
        for (kind, count) in report.faults {
            *total.faults.entry(kind).or_default() += count;
        }
        if let Some(violation) = report.violation {
            self.failures.push((seed, violation));
        }
    }

    /// Failures by what was broken.
    #[must_use]
    pub fn by_promise(&self) -> BTreeMap<Broken, u64> {
        let mut counts = BTreeMap::new();
        for (_, violation) in &self.failures {
            *counts.entry(violation.broken).or_default() += 1;
        }
        counts
    }
}

/// The command that replays a seed with its trace.
#[must_use]
pub fn replay_command(seed: u64) -> String {
    format!("cargo run --profile simulation -p system-tests --bin multipath-swarm -- --seed {seed} --trace")
}
