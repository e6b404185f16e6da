//! One fault at a random moment, from a healthy device to a healthy device, and what requests and paths did meanwhile.
//!
//! ```text
//!   load begins     fault         heal        all paths in use      load ends     all blocks read
//!   ────┼─────────────┼─────────────┼────────────────┼──────────────────┼────────────────┼────
//!        warm-up, random    hold
//! ```
//!
//! Keeps true: the fault comes from a thread of its own at a random time, whatever the device does then; its time is
//! taken before it is made, so that no figure is too good. Not here: what many drills say together (`figures`).

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use multipath::latency::FailoverTimes;
use multipath::{FailoverConfig, MultipathDevice, NoPathPolicy, PathState};
use storage_mapping::{BlockDevice, Instant};
use transfer_core::driver::clock::Clock;

use super::load::{Done, Load, difference};
use super::stage::{RelayProgram, Stage};
use super::{Fault, Layout};
use crate::chance::Chance;

/// How long an attempt may take, where paths are not slowed down.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(200);
/// Where they are: what is looked at there is how much they get.
const SLOW_TIMEOUT: Duration = Duration::from_secs(1);
/// Load before anything happens.
const WARM_UP: Duration = Duration::from_millis(200);
/// The fault comes within so much after that, in microseconds.
const PHASE_MAX: u64 = 100_000;
/// How long a fault stays: longer than two rounds of time-outs, and as long as shares are looked at.
const HOLD: Duration = Duration::from_millis(600);
const HOLD_SLOW: Duration = Duration::from_millis(1500);
/// After a path became slow, its share is not looked at for so long.
const REACTION: Duration = Duration::from_millis(500);

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Drill {
    /// Where.
    pub layout: Layout,
    /// What.
    pub fault: Fault,
    /// Of the moment, the path and the load.
    pub seed: u64,
}

/// What happened.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The path that was failed.
    pub victim: usize,
    /// When the fault was begun.
    pub fault_at: Instant,
    /// When it was taken back.
    pub heal_at: Instant,
    /// When every path was in use after that.
    pub whole_at: Instant,
    /// All requests, in the order of their end.
    pub done: Vec<Done>,
    /// Requests that failed, and how.
    pub errors: Vec<String>,
    /// Blocks compared.
    pub blocks_checked: u64,
    /// What was wrong about them.
    pub wrong: Vec<String>,
    /// Writes that were given up on and that their first path did after all.
    pub ghosts: u64,
    /// Copies that were done after they had been assumed dead.
    pub late_landings: u64,
    /// Steps of failovers.
    pub times: FailoverTimes,
    /// Share of the requests that the victim got, from 0 to 1: before the fault, and once the device could know.
    pub share: [f64; 2],
}

/// What the thread that owns the stage is told.
enum Order {
    /// After so long.
    Fault(Duration),
    Heal,
    /// Compare the file with these numbers of writes.
    Compare(Vec<Option<u64>>),
}

/// What it answers.
enum Report {
    Paths(Vec<Box<dyn BlockDevice>>),
    /// Done; begun then.
    Since(Instant),
    Differences(Vec<String>),
}

/// The numbers of the device.
#[must_use]
pub fn config(fault: Fault) -> FailoverConfig {
    FailoverConfig {
        attempt_timeout: if fault.is_slowness() { SLOW_TIMEOUT } else { ATTEMPT_TIMEOUT },
        probe_interval: Duration::from_millis(50),
        check_interval: Some(Duration::from_secs(1)),
        no_path: NoPathPolicy::QueueFor(Duration::from_secs(20)),
        // What hangs is answered for when it goes on. What was killed keeps nothing, and cannot say so.
        quiesce_time: if fault.is_hang() { Duration::from_secs(50) } else { Duration::from_millis(500) },
        ..FailoverConfig::default()
    }
}

impl Drill {
    /// Does it. It takes about two seconds.
    ///
    /// # Errors
    /// Where a program is missing, the system refuses something, or the device does not get on; in words.
    ///
    /// # Panics
    /// Where a server does not begin to serve.
    pub fn run(&self, relay: &RelayProgram) -> Result<Outcome, String> {
        let clock = Clock::new();
        let mut chance = Chance::new(self.seed);
        let victims = self.layout.victims();
        let victim = victims[usize::try_from(self.seed).unwrap_or(0) % victims.len()];
        thread::scope(|scope| {
            let (orders, inbox) = channel();
            let (outbox, reports) = channel();
            scope.spawn(move || {
                let answer = self.operate(clock, victim, relay, &inbox, &outbox);
                answer.unwrap_or_else(|error| drop(outbox.send(Err(error))));
            });
            self.observe(clock, victim, &mut chance, &Operator { orders, reports })
        })
    }

    /// Owns the stage, and does what it is told until nobody is there.
    fn operate(
        &self,
        clock: Clock,
        victim: usize,
        relay: &RelayProgram,
        orders: &Receiver<Order>,
        reports: &Sender<Result<Report, String>>,
    ) -> Result<(), String> {
        let mut stage = Stage::start(self.layout, relay)?;
        stage.prepare(self.fault)?;
        drop(reports.send(Ok(Report::Paths(stage.open_paths()?))));
        for order in orders {
            let report = match order {
                Order::Fault(after) => {
                    thread::sleep(after);
                    let began = clock.now();
                    stage.make(self.fault, victim)?;
                    Report::Since(began)
                }
                Order::Heal => {
                    stage.heal(self.fault, victim)?;
                    Report::Since(clock.now())
                }
                Order::Compare(model) => Report::Differences(compare(&stage, &model)?),
            };
            drop(reports.send(Ok(report)));
        }
        Ok(())
    }

    /// Runs the load, gives the orders, and measures.
    fn observe(
        &self,
        clock: Clock,
        victim: usize,
        chance: &mut Chance,
        operator: &Operator,
    ) -> Result<Outcome, String> {
        let Report::Paths(paths) = operator.wait()? else { return Err("no paths".to_owned()) };
        let device = MultipathDevice::new(paths, config(self.fault)).map_err(|error| error.to_string())?;
        let mut load = Load::new(clock, device, chance.fork());
        let begun = clock.now();
        load.run("the warm-up", |_| clock.now().since(begun) >= WARM_UP)?;

        let before = requests(&load);
        operator.order(Order::Fault(Duration::from_micros(chance.below(PHASE_MAX))));
        let fault_at = operator.run_until_done(&mut load)?;
        let share_before = share(&before, &requests(&load), victim);
        load.run("the reaction", |_| clock.now().since(fault_at) >= REACTION)?;
        let before = requests(&load);
        let hold = if self.fault.is_slowness() { HOLD_SLOW } else { HOLD };
        load.run("what the fault met", |load| {
            clock.now().since(fault_at) >= hold && !load.has_waited_since(fault_at)
        })?;
        let share_after = share(&before, &requests(&load), victim);

        operator.order(Order::Heal);
        let heal_at = operator.run_until_done(&mut load)?;
        load.run("the return of a path", is_whole)?;
        let whole_at = clock.now();
        load.run("a moment", |_| clock.now().since(whole_at) >= WARM_UP / 2)?;
        load.drain()?;
        load.read_all()?;
        operator.order(Order::Compare(load.model().to_vec()));
        let Report::Differences(differences) = operator.wait()? else { return Err("no answer".to_owned()) };
        Ok(Outcome {
            victim,
            fault_at,
            heal_at,
            whole_at,
            done: load.done().to_vec(),
            errors: load.errors().to_vec(),
            blocks_checked: load.blocks_checked(),
            wrong: load.wrong().iter().cloned().chain(differences).collect(),
            ghosts: load.ghosts(),
            late_landings: load.device().late_landings(),
            times: load.device().failover_times().clone(),
            share: [share_before, share_after],
        })
    }
}

/// The other side of the thread that owns the stage.
struct Operator {
    orders: Sender<Order>,
    reports: Receiver<Result<Report, String>>,
}

impl Operator {
    fn order(&self, order: Order) {
        drop(self.orders.send(order));
    }

    fn wait(&self) -> Result<Report, String> {
        self.reports.recv().map_err(|_| "the thread of the stage ended".to_owned())?
    }

    /// Goes on with the load until an order is carried out; then, since when.
    fn run_until_done(&self, load: &mut Load) -> Result<Instant, String> {
        let mut report = None;
        load.run("an order", |_| {
            report = self.reports.try_recv().ok();
            report.is_some()
        })?;
        match report {
            Some(Ok(Report::Since(at))) => Ok(at),
            Some(Err(error)) => Err(error),
            _ => Err("another answer than was asked for".to_owned()),
        }
    }
}

/// Whether every path is in use.
fn is_whole(load: &Load) -> bool {
    load.device().status().iter().all(|path| path.state == PathState::Active)
}

/// Requests that each path got so far.
fn requests(load: &Load) -> Vec<u64> {
    load.device().status().iter().map(|path| path.requests).collect()
}

/// The share of one path, of the requests between two counts.
fn share(before: &[u64], after: &[u64], path: usize) -> f64 {
    let grown: Vec<u64> = before.iter().zip(after).map(|(before, after)| after - before).collect();
    grown[path] as f64 / grown.iter().sum::<u64>().max(1) as f64
}

/// Where the file is not as the model says.
fn compare(stage: &Stage, model: &[Option<u64>]) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for (block, writes) in (0..).zip(model) {
        let Some(writes) = writes else { continue };
        let difference = difference(&stage.block(block)?, block, *writes);
        found.extend(difference.map(|difference| format!("in the file: {difference}")));
    }
    Ok(found)
}
