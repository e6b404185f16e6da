//! `diskwire bench idle`: what a host that serves costs while nobody calls.
//!
//! Keeps true: I/Os are counted below the multipath layer, so that its checks of paths count too. Hours are counted in virtual
//! time, on the program's own node; a short time also with the real clock, and its CPU time. Not here: why it looks when it does
//! (`transfer_core::protocol::discovery`).

use std::sync::Arc;
use std::time::Duration;

use system_tests::multipath_goals::figure::Target;
use transfer_core::node::NodeEvent;
use transfer_core::transfer::{Job, RelativePath};

use super::super::CommandError;
use super::counted::{Counted, Counts};
use super::disks::{Disks, layered};
use super::report::{Report, Row};
use super::rounds::{Usage, spinner};
use super::virtual_time::{self, VirtualTime};
use super::world::{Extent, HOSTS, OpenDevices, World, failed};
use crate::args::bench::BenchIdleArgs;
use crate::exit::Exit;

/// What a volume of this measurement has.
const EXTENT: Extent = Extent { connections: 4, segments: 8, secondaries: 1 };
const MINUTE: Duration = Duration::from_secs(60);
/// I/Os a second that an idle host may do.
const IDLE_MOST: f64 = 1.5;
/// The same in deep idle.
const DEEP_MOST: f64 = 0.3;

/// A time of being idle.
struct Phase {
    what: &'static str,
    /// How long it is counted, after the phases before it.
    lasts: Duration,
    goal: Option<f64>,
}

/// What follows the end of a connection (`discovery`: warm for a minute, deep after ten).
fn phases(quick: bool) -> [Phase; 4] {
    let hours = if quick { 1 } else { 12 };
    [
        Phase { what: "first minute", lasts: MINUTE, goal: None },
        Phase { what: "idle, to 10 min", lasts: MINUTE * 9, goal: Some(IDLE_MOST) },
        Phase { what: "getting deep", lasts: MINUTE, goal: None },
        Phase { what: "deep idle", lasts: MINUTE * 60 * hours, goal: Some(DEEP_MOST) },
    ]
}

pub(super) fn run(args: &BenchIdleArgs) -> Result<Exit, CommandError> {
    let spinner = spinner(args.json);
    spinner.set_message("hours of virtual time");
    let mut rows = in_virtual_time(&phases(args.quick), if args.quick { 1 } else { 5 })?;
    let disks = Disks::new(args.folder.as_deref())?;
    let seconds = if args.quick { 2 } else { 20 };
    spinner.set_message(format!("warm, real time: {seconds} s"));
    let mut real = RealTime::start(&disks)?;
    rows.extend(real.count("warm", Duration::from_secs(seconds))?);
    if !args.quick {
        spinner.set_message("waiting until the host is no longer warm: 45 s");
        real.pass(Duration::from_secs(45))?;
        spinner.set_message("idle, real time: 60 s");
        rows.extend(real.count("idle", MINUTE)?);
    }
    spinner.finish_and_clear();
    let mut conditions = vec!["one host that serves, one device beside the master, one path each".to_owned()];
    conditions.push("phases after a connection has ended, in virtual time; disks without latency".to_owned());
    conditions.extend(disks.conditions()?.into_iter().map(|line| format!("real time: {line}")));
    conditions.push("warm: the bell is read every 20 ms for a minute (docs/protocol.md)".to_owned());
    Report { bench: "idle", conditions, rows, quick: args.quick }.finish(args.json)
}

/// Rows of each phase, in so many worlds whose connection ended at another moment.
fn in_virtual_time(phases: &[Phase], worlds: u32) -> Result<Vec<Row>, CommandError> {
    let mut samples = vec![Vec::new(); phases.len()];
    let mut writing = samples.clone();
    for world in 0..worlds {
        let counts = Arc::new(Counts::default());
        let built = virtual_time::world(&EXTENT, &counts)?;
        let mut time = VirtualTime::start(&built, &[1])?;
        // The start of a host counts as a connection: both make it look often for a minute.
        time.pass(Duration::from_millis(137) * world)?;
        for ((phase, samples), writing) in phases.iter().zip(&mut samples).zip(&mut writing) {
            let before = counts.so_far();
            time.pass(phase.lasts)?;
            let rates = rates(before, counts.so_far(), phase.lasts.as_secs_f64());
            samples.push(rates[0] + rates[1]);
            writing.push(rates[1]);
        }
    }
    let rows = phases.iter().zip(samples).zip(writing).flat_map(|((phase, samples), writing)| {
        let row = Row::new(phase.what, "I/O/s", samples);
        let row = phase.goal.map_or(row.clone(), |goal| row.with_goal(Target::AtMost(goal)));
        [row, Row::new(format!("{}, writes", phase.what), "I/O/s", writing)]
    });
    Ok(rows.collect())
}

/// Reads and writes a second.
fn rates(before: [u64; 2], after: [u64; 2], seconds: f64) -> [f64; 2] {
    [0, 1].map(|kind| (after[kind] - before[kind]) as f64 / seconds)
}

/// A host that serves, with the real clock, on files.
struct RealTime {
    host: super::world::Process,
    counts: Arc<Counts>,
}

impl RealTime {
    fn start(disks: &Disks) -> Result<Self, CommandError> {
        let counts = Arc::new(Counts::default());
        let counted = Arc::clone(&counts);
        let open = disks.paths("idle", &EXTENT.device_bytes(), "")?;
        let open: OpenDevices = Box::new(move || {
            open()?.into_iter().map(|path| layered(Box::new(Counted::new(path, &counted)))).collect()
        });
        let host = World::create(&EXTENT, open)?.host(1)?;
        Ok(Self { host, counts })
    }

    fn pass(&mut self, time: Duration) -> Result<(), CommandError> {
        let end = self.host.driver.now() + time;
        while self.host.driver.now() < end {
            self.host.event_before(end)?;
        }
        Ok(())
    }

    fn count(&mut self, name: &str, time: Duration) -> Result<[Row; 2], CommandError> {
        let (before, used) = (self.counts.so_far(), Usage::now()?);
        self.pass(time)?;
        let used = Usage::now()?.since(&used);
        let [reads, writes] = rates(before, self.counts.so_far(), time.as_secs_f64());
        let cpu = used.cpu_seconds * 1e3 / time.as_secs_f64();
        Ok([
            Row::new(format!("{name}, real time"), "I/O/s", vec![reads + writes]),
            Row::new(format!("{name}, CPU"), "ms/s", vec![cpu]),
        ])
    }
}

/// Milliseconds of virtual time until a call that comes `quiet` after the host has gone idle is answered with a listing.
pub(super) fn first_answers(quiet: Duration, rounds: u32) -> Result<Vec<f64>, CommandError> {
    let mut samples = Vec::new();
    for round in 0..rounds {
        let world = virtual_time::world(&EXTENT, &Arc::new(Counts::default()))?;
        let mut time = VirtualTime::start(&world, &[0, 1])?;
        // Calls come at any moment between two looks.
        time.pass(quiet + Duration::from_millis(617) * round)?;
        let begun = time.now();
        let list = Job::List { export: b"memory".to_vec(), path: RelativePath::root() };
        time.node(0).request(begun, HOSTS[1], list)?;
        if !time.until(0, begun + MINUTE, |event| matches!(event, NodeEvent::Session { .. }))? {
            return Err(failed("a call is not answered within a minute"));
        }
        samples.push(time.now().since(begun).as_secs_f64() * 1e3);
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_answered_at_the_next_look() {
        let warm = first_answers(Duration::from_secs(10), 3).unwrap();
        let cold = first_answers(MINUTE * 2, 3).unwrap();
        assert!(warm.iter().all(|sample| *sample < 200.0), "{warm:?}");
        assert!(cold.iter().any(|sample| *sample > 200.0), "{cold:?}");
        assert!(cold.iter().all(|sample| *sample < 1_500.0), "{cold:?}");
    }

    #[test]
    fn rates_are_counts_by_time() {
        assert_eq!(rates([1, 10], [21, 15], 10.0), [2.0, 0.5]);
    }
}
