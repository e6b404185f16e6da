//! Request number n of one process meets each kind of fault, n = 1, 2, … to the last: a push and a pull.
//!
//! A run without a fault tells what there is to count; then every request of the process, from its first
//! look at the volume to its goodbye, meets every kind that can happen to it, a run each. After it the same
//! lane carries a second job in a new process, so that what the fault left behind meets that one. The same
//! for every sync and every write of the receiver's files. Here one request in nine meets each kind, other
//! ones for every kind; `DISKWIRE_FULL=1` is all of them. Not here: several faults at once (`simulation`).

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use system_tests::plan::Plan;
use system_tests::runner::run_plan;
use system_tests::script::{FileFault, FileScript, Script, ScriptLog, ScriptedFault};

/// One request in so many meets a kind, in the short form.
const THINNED: usize = 9;

/// Which process meets the fault, in which direction, over how many paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Side {
    is_pull: bool,
    is_serving: bool,
    paths: usize,
}

impl Side {
    fn all(paths: usize) -> impl Iterator<Item = Self> {
        let directions = [false, true].into_iter();
        directions
            .flat_map(move |is_pull| [false, true].map(|is_serving| Self { is_pull, is_serving, paths }))
    }

    fn name(self) -> String {
        let direction = if self.is_pull { "pull" } else { "push" };
        let process = if self.is_serving { "connector" } else { "initiator" };
        format!("{direction}, {process}, {} path(s)", self.paths)
    }

    fn script(self, nth: u64, kind: ScriptedFault) -> Script {
        let (host, lane) = if self.is_serving { (1, 0) } else { (0, 1) };
        Script { host, lane, nth, kind }
    }
}

/// A run with one fault.
#[derive(Clone, Copy, Debug)]
struct Case {
    side: Side,
    nth: u64,
    kind: ScriptedFault,
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn is_full() -> bool {
    std::env::var("DISKWIRE_FULL").is_ok_and(|value| value == "1")
}

fn run(case: Case, printed: bool) -> Result<ScriptLog, String> {
    let mut plan = Plan::of_three_files(case.side.is_pull, case.side.paths);
    plan.script = Some(case.side.script(case.nth, case.kind));
    let report = run_plan(plan, printed)?;
    let log = report.script.ok_or("there was no script")?;
    if case.nth > 0 && !log.is_met { Err("the request was never made".to_owned()) } else { Ok(log) }
}

/// Every request of the process, to the end of its command, or of the second one for the connector.
fn observe(side: Side) -> ScriptLog {
    let kind = ScriptedFault::Error;
    let mut log = run(Case { side, nth: 0, kind }, false).expect("without a fault all is well");
    // The connector closes while the next command starts already.
    let end = if side.is_serving { log.done[1] } else { log.gone[0] };
    log.requests.retain(|request| request.at <= end && (side.is_serving || request.life == 1));
    log
}

/// The cases of one side: all, or of each kind every ninth request that it can happen to.
fn cases(side: Side, log: &ScriptLog, is_full: bool) -> Vec<Case> {
    let mut found = Vec::new();
    for (rank, kind) in ScriptedFault::ALL.into_iter().enumerate() {
        let applies = |direction: bool| {
            (1..)
                .zip(&log.requests)
                .filter(move |(_, request)| request.is_write == direction && kind.applies(request))
        };
        for is_write in [false, true] {
            // A kind that can happen to few requests happens to one of them at least.
            let offset = rank % THINNED.min(applies(is_write).count().max(1));
            let chosen =
                applies(is_write).enumerate().filter(|(place, _)| is_full || place % THINNED == offset);
            found.extend(chosen.map(|(_, (nth, _))| Case { side, nth, kind }));
        }
    }
    found
}

/// Runs everything on all processors; gives what failed.
fn run_all<C: Copy + std::fmt::Debug + Send + Sync>(
    cases: &[C],
    run: impl Fn(C) -> Result<(), String> + Sync,
) -> Vec<(C, String)> {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(number) else { return };
                    if let Err(violation) = run(*case) {
                        println!("{case:?}: {violation}");
                        failures.lock().expect("no run panics outside its catch").push((*case, violation));
                    }
                    if number % 1000 == 999 {
                        println!("{} of {} runs are begun", number + 1, cases.len());
                    }
                }
            });
        }
    });
    failures.into_inner().expect("no run panics outside its catch")
}

/// Requests of each side, at least: fewer, and the loop has lost its object.
fn least_sites(side: Side) -> usize {
    if side.is_serving { 110 } else { 140 }
}

#[test]
fn every_request_may_meet_every_fault() {
    let (start, full) = (Instant::now(), is_full());
    let mut all = Vec::new();
    for side in Side::all(1).chain(Side::all(2).filter(|_| full)) {
        let log = observe(side);
        let found = cases(side, &log, full);
        let writes = log.requests.iter().filter(|request| request.is_write).count();
        println!(
            "FIGURE {:<28} {:>5} requests ({writes} writes) × {} kinds = {:>6} runs",
            side.name(),
            log.requests.len(),
            ScriptedFault::ALL.len(),
            found.len()
        );
        assert!(log.requests.len() >= least_sites(side), "{side:?} has only {}", log.requests.len());
        all.extend(found);
    }
    let failures = run_all(&all, |case| run(case, false).map(drop));
    let mut kinds: BTreeMap<ScriptedFault, usize> = BTreeMap::new();
    all.iter().for_each(|case| *kinds.entry(case.kind).or_default() += 1);
    kinds.iter().for_each(|(kind, count)| println!("FIGURE {count:>9}  {}", kind.name()));
    println!(
        "FIGURE {} runs in {:.1} s, {} failed",
        all.len(),
        start.elapsed().as_secs_f64(),
        failures.len()
    );
    assert_eq!(kinds.len(), ScriptedFault::ALL.len(), "every kind has happened");
    assert!(failures.is_empty(), "{} runs broke a promise", failures.len());
}

/// Operations on the files of the receiver, and what happens to them.
#[test]
fn every_sync_and_write_of_the_receiver_may_fail() {
    let start = Instant::now();
    let with = |is_pull: bool, nth: u64, kind: FileFault| {
        let mut plan = Plan::of_three_files(is_pull, 1);
        plan.file_script = Some(FileScript { host: usize::from(!is_pull), nth, kind });
        run_plan(plan, false)
    };
    let mut all = Vec::new();
    for is_pull in [false, true] {
        let calm = with(is_pull, 0, FileFault::SyncFails).expect("without a fault all is well");
        let (syncs, writes) = calm.file_operations;
        println!("FIGURE {}: {syncs} syncs, {writes} writes", if is_pull { "pull" } else { "push" });
        assert!(syncs >= 8 && writes >= 8, "the receiver does less than it did");
        all.extend((1..=syncs).map(|nth| (is_pull, nth, FileFault::SyncFails)));
        all.extend((1..=writes).map(|nth| (is_pull, nth, FileFault::SpaceEnds)));
    }
    let failures = run_all(&all, |(is_pull, nth, kind)| with(is_pull, nth, kind).map(drop));
    println!(
        "FIGURE {} runs in {:.1} s, {} failed",
        all.len(),
        start.elapsed().as_secs_f64(),
        failures.len()
    );
    assert!(failures.is_empty(), "{} runs broke a promise", failures.len());
}

/// Prints the run `DISKWIRE_NTH=n` with all its events: `DISKWIRE_NTH_KIND` is a number of `ScriptedFault::ALL`,
/// `DISKWIRE_NTH_SIDE` one of 0 to 7, in the order of the table.
#[test]
fn replay() {
    let Some(nth) = number("DISKWIRE_NTH") else { return };
    let place = |name| usize::try_from(number(name).unwrap_or(0)).expect("a small number");
    let side = Side::all(1).chain(Side::all(2)).nth(place("DISKWIRE_NTH_SIDE")).expect("a side");
    let kind = ScriptedFault::ALL[place("DISKWIRE_NTH_KIND")];
    println!("{:?}", run(Case { side, nth, kind }, true).map(|log| log.requests.len()));
}
