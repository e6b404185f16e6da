//! Runs many seeds, or one with its trace, and adds up what they were like.
//!
//! A panic inside a run is a broken promise like any other: it is caught and told with its seed, unless the
//! program was built to end at a panic. Not here: how a summary is shown.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::fault::FaultCounters;
use crate::plan::{Edition, Plan};
use crate::trace::Trace;
use crate::world::{Report, World};

thread_local! {
    static RUNNING: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The seed that this thread runs at the moment: for a panic hook.
#[must_use]
pub fn running_seed() -> Option<u64> {
    RUNNING.get()
}

/// Which seeds to run, and how.
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
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
    /// Virtual time of all.
    pub simulated: Duration,
    /// Events of all.
    pub events: u64,
    /// Faults by kind.
    pub faults: FaultCounters,
    /// Files delivered and compared.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Runs of commands.
    pub attempts: u64,
    /// The longest from the last fault to rest, and its seed.
    pub recovery_longest: (Duration, u64),
    /// Seeds that broke a promise, and which.
    pub failures: Vec<(u64, String)>,
}

/// One seed of the latest edition.
///
/// # Errors
/// In words, what promise was broken.
pub fn run_seed(seed: u64, printed: bool) -> Result<Report, String> {
    run_edition(Edition::LATEST, seed, printed)
}

/// One seed of an edition.
///
/// # Errors
/// In words, what promise was broken.
pub fn run_edition(edition: Edition, seed: u64, printed: bool) -> Result<Report, String> {
    run_plan(Plan::of_seed(edition, seed), printed)
}

/// One plan, which may be one that no seed gives.
///
/// # Errors
/// In words, what promise was broken.
pub fn run_plan(plan: Plan, printed: bool) -> Result<Report, String> {
    let trace = Trace::new(printed);
    RUNNING.set(Some(plan.seed));
    let run = || World::new(plan, trace).map(World::run);
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(report)) => match &report.violation {
            Some(violation) => Err(violation.to_string()),
            None => Ok(report),
        },
        Ok(Err(error)) => Err(format!("the run could not begin: {error}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("panic: {}", text.unwrap_or("without words")))
        }
    }
}

/// Runs `seeds`; `told` hears of every one that is done.
///
/// # Panics
/// If the summary is lost, which no run can bring about.
#[must_use]
pub fn run_seeds(seeds: Seeds, told: &(dyn Fn() + Sync)) -> Summary {
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
                    let outcome = run_seed(seed, false);
                    is_over.fetch_or(seeds.stops_at_first && outcome.is_err(), Ordering::Relaxed);
                    summary.lock().expect("no run panics outside its catch").add(seed, outcome);
                    told();
                }
            });
        }
    });
    let mut summary = summary.into_inner().expect("no run panics outside its catch");
    summary.failures.sort();
    summary
}

impl Summary {
    fn add(&mut self, seed: u64, outcome: Result<Report, String>) {
        self.seeds += 1;
        let report = match outcome {
            Ok(report) => report,
            Err(violation) => return self.failures.push((seed, violation)),
        };
        self.hash = self.hash.wrapping_add(report.hash.wrapping_mul(seed | 1));
        self.simulated += report.simulated;
        self.events += report.events;
        self.faults.add(&report.faults);
        self.delivered += report.delivered;
        self.delivered_bytes += report.delivered_bytes;
        self.attempts += report.attempts;
        self.recovery_longest = self.recovery_longest.max((report.recovery, seed));
    }
}

/// The command that replays a seed with its trace.
#[must_use]
pub fn replay_command(seed: u64) -> String {
    format!("diskwire sim --seed {seed} --trace")
}
