//! `diskwire bench channel`: a sender and a receiver at once on one volume, without files at either end, beside the bare device.
//!
//! Keeps true: sealing, hashing, publishing and the commit protocol are those of a transfer; only the files are left out, the
//! bytes come from memory and are dropped. All contestants take turns in every round, and a ratio is that of one round. Not
//! here: files (`transfer`), several connections (`scaling`).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use system_tests::multipath_goals::figure::Target;
use transfer_core::node::NodeEvent;
use transfer_core::transfer::message::JobOptions;
use transfer_core::transfer::{Job, RelativePath, SourceOrigin};

use super::super::CommandError;
use super::bare::{self, DEPTH};
use super::disks::Disks;
use super::memory_store::MemoryStore;
use super::report::{Report, Row};
use super::rounds::{MIB, Usage, peak_memory_mib, processor, reset_peak_memory, spinner};
use super::world::{Answerer, Extent, HOSTS, Process, SEGMENT_BYTES, World, failed, is_end};
use crate::args::bench::BenchChannelArgs;
use crate::exit::Exit;

/// Segments of each host: its window twice, and some for commands.
const SEGMENTS: u64 = 80;
/// Calls that wait for an answer, at most.
const CALLS_AT_ONCE: usize = 4;
/// How often it is looked whether slots are free again.
const STEP: Duration = Duration::from_millis(1);
/// What the ratio to the bare device is to be, on a disk.
const GOAL: f64 = 0.9;

/// What one transfer of one or more files took.
pub(super) struct Carried {
    /// From the first byte that was asked for to the last word about the last file.
    pub(super) seconds: f64,
    /// Of this whole process, both hosts.
    pub(super) usage: Usage,
}

/// Two hosts that are connected by nothing but their volume: one calls from this thread, one answers in its own.
pub(super) struct Pair {
    caller: Process,
    answerer: Answerer,
}

impl Pair {
    pub(super) fn start(world: &World) -> Result<Self, CommandError> {
        let answering = world.host(1)?;
        let nothing = MemoryStore::new(answering.pool.clone(), SEGMENT_BYTES as usize, 0);
        let answerer = answering.answer(Arc::new(nothing));
        Ok(Self { caller: world.host(0)?, answerer })
    }

    /// Sends a file of `size` bytes over each of so many connections, all at once: they begin when the last one stands.
    pub(super) fn carry(&mut self, connections: usize, size: u64) -> Result<Carried, CommandError> {
        let store = MemoryStore::new(self.caller.pool.clone(), SEGMENT_BYTES as usize, size);
        let store = Arc::new(store);
        self.connect(connections, &store)?;
        let before = Usage::now()?;
        let begun = Instant::now();
        store.gate().open();
        let mut finished = 0;
        while finished < connections {
            match self.caller.next_event()? {
                NodeEvent::Session { event, .. } if is_end(&event)? => finished += 1,
                NodeEvent::Closed { reason, .. } => {
                    return Err(failed(format!("a connection was lost: {reason:?}")));
                }
                _ => {}
            }
        }
        let carried = Carried { seconds: begun.elapsed().as_secs_f64(), usage: Usage::now()?.since(&before) };
        self.disconnect()?;
        Ok(carried)
    }

    /// Makes calls, a few at a time: a host opens no more than eight handshakes of another one in a second.
    fn connect(&mut self, connections: usize, store: &Arc<MemoryStore>) -> Result<(), CommandError> {
        let (mut called, mut connected) = (Vec::new(), 0);
        while connected < connections {
            while called.len() < connections && called.len() - connected < CALLS_AT_ONCE {
                let now = self.caller.driver.now();
                let connection = self.caller.driver.node().request(now, HOSTS[1], push())?;
                self.caller.driver.attach_store(connection, Arc::clone(store) as _);
                called.push(connection);
            }
            match self.caller.next_event()? {
                NodeEvent::Connected { .. } => connected += 1,
                // Words about the connections of the last round may still come.
                NodeEvent::Closed { connection, reason, .. } if called.contains(&connection) => {
                    return Err(failed(format!("a call was refused: {reason:?}")));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Closes every connection, until their slots are free again.
    fn disconnect(&mut self) -> Result<(), CommandError> {
        let endpoint = self.caller.driver.node().endpoint();
        let open: Vec<_> = endpoint.connections().map(|connection| connection.id).collect();
        for connection in open {
            let now = self.caller.driver.now();
            self.caller.driver.node().close(now, connection);
        }
        while self.caller.driver.node().endpoint().connections().next().is_some() {
            let limit = self.caller.driver.now() + STEP;
            if let Some(NodeEvent::SessionEnded { connection }) = self.caller.event_before(limit)? {
                self.caller.driver.detach_store(connection);
            }
        }
        Ok(())
    }

    pub(super) fn end(self) -> Result<(), CommandError> {
        self.answerer.end()
    }
}

/// A job that sends what the store calls its file.
fn push() -> Job {
    Job::Push {
        peer: HOSTS[1].to_owned(),
        origin: SourceOrigin::Local(vec![b"memory".to_vec()]),
        export: b"memory".to_vec(),
        destination: RelativePath::root(),
        options: JobOptions::empty(),
    }
}

/// All samples, round by round.
#[derive(Default)]
struct Samples {
    channel: Vec<f64>,
    bare: Vec<f64>,
    fio: Vec<f64>,
    cpu: Vec<f64>,
    switches: Vec<f64>,
    memory: Vec<f64>,
}

struct Bench {
    disks: Disks,
    /// Beside the volume: where the bare device and fio work.
    beside: PathBuf,
    pair: Pair,
    size: u64,
    with_fio: bool,
}

impl Bench {
    fn new(args: &BenchChannelArgs, size: u64) -> Result<Self, CommandError> {
        let disks = Disks::new(args.folder.as_deref())?;
        let extent = Extent { connections: 2, segments: SEGMENTS, secondaries: args.secondaries.into() };
        let bytes = extent.device_bytes();
        let beside = disks.file("bare", bytes[1..].iter().sum())?;
        let world = World::create(&extent, disks.devices("disk", &bytes, "")?)?;
        let pair = Pair::start(&world)?;
        Ok(Self { disks, beside, pair, size, with_fio: bare::has_fio() })
    }

    fn round(&mut self, samples: &mut Samples) -> Result<(), CommandError> {
        reset_peak_memory();
        let carried = self.pair.carry(1, self.size)?;
        samples.memory.extend(peak_memory_mib());
        let mib = self.size as f64 / MIB;
        samples.channel.push(mib / carried.seconds);
        samples.cpu.push(carried.usage.cpu_seconds * 1024.0 / mib);
        samples.switches.push(carried.usage.waits * MIB / self.size as f64);
        samples.bare.push(bare::at_once(&self.beside, self.size)?);
        if self.with_fio {
            samples.fio.push(bare::fio(&self.beside, self.size)?);
        }
        Ok(())
    }

    fn measure(&mut self, rounds: usize, spinner: &ProgressBar) -> Result<Samples, CommandError> {
        let mut samples = Samples::default();
        // Memory is taken and connections are made for the first time: not what is asked for.
        spinner.set_message("warming up");
        self.round(&mut Samples::default())?;
        for round in 1..=rounds {
            spinner.set_message(format!("round {round} of {rounds}"));
            self.round(&mut samples)?;
        }
        Ok(samples)
    }
}

pub(super) fn run(args: &BenchChannelArgs) -> Result<Exit, CommandError> {
    let spinner = spinner(args.json);
    let rounds = if args.quick { 3 } else { 9 };
    let size = if args.quick { args.size.0.min(64 << 20) } else { args.size.0 };
    let size = size.max(16 << 20).next_multiple_of(u64::from(SEGMENT_BYTES));
    spinner.set_message("making files");
    let mut bench = Bench::new(args, size)?;
    let samples = bench.measure(rounds, &spinner)?;
    spinner.finish_and_clear();
    let mut conditions = vec![processor()];
    conditions.extend(bench.disks.conditions()?);
    let devices = if args.secondaries == 1 { "device" } else { "devices" };
    conditions.push(format!("{rounds} rounds of {} MiB over {} {devices}", size >> 20, args.secondaries));
    conditions.push("from memory to nowhere; XAES-256-GCM, BLAKE3 on both sides".to_owned());
    conditions.push(format!("bare: one writer and one reader at once, 1 MiB, depth {DEPTH}"));
    if !bench.with_fio {
        conditions.push("fio is not installed: no row of it".to_owned());
    }
    let goal = (!bench.disks.in_memory()).then_some(Target::AtLeast(GOAL));
    let rows = rows(samples, goal);
    bench.pair.end()?;
    Report { bench: "channel", conditions, rows, quick: args.quick }.finish(args.json)
}

fn rows(samples: Samples, goal: Option<Target>) -> Vec<Row> {
    let against = |other: &[f64]| samples.channel.iter().zip(other).map(|(a, b)| a / b).collect::<Vec<_>>();
    let judged = |row: Row| goal.map_or(row.clone(), |goal| row.with_goal(goal));
    let ratio = judged(Row::new("channel / bare", "", against(&samples.bare)));
    let fio = (!samples.fio.is_empty()).then(|| judged(Row::new("channel / fio", "", against(&samples.fio))));
    let mut rows =
        vec![Row::new("channel", "MiB/s", samples.channel), Row::new("bare device", "MiB/s", samples.bare)];
    if fio.is_some() {
        rows.push(Row::new("fio", "MiB/s", samples.fio));
    }
    rows.push(ratio);
    rows.extend(fio);
    rows.push(Row::new("CPU, both hosts", "s/GiB", samples.cpu));
    rows.push(Row::new("waits of a thread", "per MiB", samples.switches));
    rows.push(Row::new("memory, both", "MiB", samples.memory));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_that_of_one_round() {
        let samples = || Samples {
            channel: vec![10.0, 40.0, 30.0],
            bare: vec![20.0, 40.0, 40.0],
            ..Samples::default()
        };
        let found = rows(samples(), Some(Target::AtLeast(0.7)));
        let ratio = found.iter().find(|row| row.is_met().is_some()).map(Row::median);
        assert_eq!(ratio, Some(0.75));
        assert!(rows(samples(), None).iter().all(|row| row.is_met().is_none()));
    }
}
