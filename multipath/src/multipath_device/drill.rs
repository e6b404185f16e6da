//! Drills: a fault on purpose in a running device, and how long its requests take then.
//!
//! ```text
//!        lead            duration              tail
//!   ├─────────────┼──────────────────────┼─────────────┤
//!   began     fault begins           fault ends       over
//!                 the plan is made here
//! ```
//!
//! Keeps true: a drill does no harm that the real fault would not do, and less: while it hangs a path, what the path
//! answers is withheld and comes afterwards, and nothing is dropped; with an error, requests are refused before they are
//! sent. There is one at a time, only while another path can be used, and it ends by itself, at once where its path
//! is the last one. It writes nothing. Not here: what is to be expected (`plan`).

use std::collections::VecDeque;
use std::time::Duration;

use storage_mapping::block::time::earliest;
use storage_mapping::{Instant, IoCompletion, IoRequest, IoTag, Lba, PathIndex, RefusalReason};
use thiserror::Error;

use super::MultipathDevice;
use crate::error_class::IoKind;
use crate::flight::Flight;
use crate::path_state::PathSet;
use crate::plan::{FaultKind, Plan};
use crate::selector::PathSelector;

/// Requests that are remembered with their times; of more, the newest.
pub const SAMPLES_MAX: usize = 8192;
/// Between two reads of the drill's own load.
const LOAD_INTERVAL: Duration = Duration::from_millis(10);
/// Reads of the load on their way, at most.
const LOAD_IN_FLIGHT_MAX: usize = 64;
/// Requests on the drilled path above which the load does not add to them.
const LOAD_ON_PATH_MAX: usize = 8;
/// The load's reads are this long, or a block.
const LOAD_BYTES: usize = 4096;

/// What a drill does to its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DrillFault {
    /// It takes nothing more.
    Error,
    /// It takes requests and does not answer.
    Hang,
}

/// What a drill is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrillConfig {
    /// The path.
    pub path: PathIndex,
    /// What happens to it.
    pub fault: DrillFault,
    /// How long.
    pub duration: Duration,
    /// How long it is watched before.
    pub lead: Duration,
    /// And afterwards.
    pub tail: Duration,
    /// What a path takes at most; without it, the longest that was measured until the fault.
    pub service_time: Option<Duration>,
    /// The device reads from itself meanwhile, here and there, a hundred times a second. Every second of these reads
    /// asks the path of the drill first, all others go as the selector says.
    pub load: bool,
}

impl DrillConfig {
    /// A fault and nothing around it.
    #[must_use]
    pub fn new(path: PathIndex, fault: DrillFault, duration: Duration) -> Self {
        let (lead, tail) = (Duration::ZERO, Duration::ZERO);
        Self { path, fault, duration, lead, tail, service_time: None, load: false }
    }
}

/// Where a drill stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DrillStage {
    /// The fault is to come.
    Lead,
    /// The path is at fault.
    Fault,
    /// It is not any more.
    Tail,
    /// Over.
    Over,
}

/// What requests of one sort showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Those that met the fault and are over.
    pub requests: u64,
    /// The longest time from submission to end of one of them.
    pub worst: Duration,
    /// The longest time that was predicted when the fault began; `None`: it has not yet begun.
    pub predicted: Option<Duration>,
}

/// What a drill showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrillReport {
    /// What it was to be.
    pub config: DrillConfig,
    /// When it began.
    pub began: Instant,
    /// When the fault began, or will.
    pub fault_begins: Instant,
    /// When the fault ended, or will.
    pub fault_ends: Instant,
    /// When all is over.
    pub over: Instant,
    /// Where it stands.
    pub stage: DrillStage,
    /// No other path was left, and so it ended early.
    pub was_cut: bool,
    /// Reads and writes.
    pub requests: Measured,
    /// Flushes, which have a time-out of their own.
    pub flushes: Measured,
    /// Of both, how many failed.
    pub failed: u64,
    /// Requests from its beginning on, whatever path they took.
    pub all: u64,
}

impl DrillReport {
    /// Whether it goes on.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.stage != DrillStage::Over
    }

    /// Whether requests met the fault, none of them failed, and none took longer than predicted.
    #[must_use]
    pub fn is_as_predicted(&self) -> bool {
        let holds = |measured: &Measured| measured.predicted.is_some_and(|most| measured.worst <= most);
        let measured = self.requests.requests + self.flushes.requests;
        measured > 0 && self.failed == 0 && holds(&self.requests) && holds(&self.flushes)
    }
}

/// A request that ended during a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrillSample {
    /// When it ended.
    pub ended: Instant,
    /// The path that it went over last; `None`: over none.
    pub path: Option<PathIndex>,
    /// From submission to end.
    pub took: Duration,
    /// What it did.
    pub kind: IoKind,
    /// Whether it was done.
    pub is_done: bool,
    /// Whether the fault was on a path that it took or wanted.
    pub met_fault: bool,
}

/// Why there is no drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DrillError {
    /// It would take the last path.
    #[error("no other path is in use: a drill needs two")]
    LastPath,
    /// The path has failed, or was set aside.
    #[error("this path is not in use; wait until it is, or put it into use, then drill it")]
    NotInUse,
    /// One is going on.
    #[error("a drill is going on: wait until it is over")]
    Running,
}

/// A drill that goes on, or the last one.
pub(super) struct Drill {
    report: DrillReport,
    withheld: VecDeque<IoCompletion>,
    samples: VecDeque<DrillSample>,
    /// When the next read of the load is due, and how many there were.
    load: Option<(Instant, u64)>,
}

impl Drill {
    fn new(now: Instant, config: DrillConfig) -> Self {
        let fault_begins = now + config.lead;
        let fault_ends = fault_begins + config.duration;
        let report = DrillReport {
            config,
            began: now,
            fault_begins,
            fault_ends,
            over: fault_ends + config.tail,
            stage: DrillStage::Lead,
            was_cut: false,
            requests: Measured::default(),
            flushes: Measured::default(),
            failed: 0,
            all: 0,
        };
        let load = config.load.then_some((now, 0));
        Self { report, withheld: VecDeque::new(), samples: VecDeque::new(), load }
    }

    /// Takes in a request that is over.
    fn note(&mut self, now: Instant, flight: &Flight, is_done: bool) {
        let (took, kind) = (now.since(flight.submitted), flight.kind());
        let report = &mut self.report;
        report.all += 1;
        if flight.met_drill {
            let measured = if kind == IoKind::Flush { &mut report.flushes } else { &mut report.requests };
            measured.requests += 1;
            measured.worst = measured.worst.max(took);
            report.failed += u64::from(!is_done);
        }
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        let (path, met_fault) = (flight.last_path, flight.met_drill);
        self.samples.push_back(DrillSample { ended: now, path, took, kind, is_done, met_fault });
    }

    /// The time at which something is to be done.
    fn next_timeout(&self) -> Option<Instant> {
        let DrillReport { fault_begins, fault_ends, over, .. } = self.report;
        let stage = match self.report.stage {
            DrillStage::Lead => fault_begins,
            DrillStage::Fault => fault_ends,
            DrillStage::Tail => over,
            DrillStage::Over => return None,
        };
        earliest(Some(stage), self.load.map(|(at, _)| at))
    }
}

impl<S: PathSelector> MultipathDevice<S> {
    /// Begins a drill.
    ///
    /// # Errors
    /// See [`DrillError`].
    ///
    /// # Panics
    /// If there is no such path.
    pub fn start_drill(&mut self, now: Instant, config: DrillConfig) -> Result<(), DrillError> {
        assert!(config.path.0 < self.paths.len(), "the device has no path {}", config.path.0);
        if self.drill.as_ref().is_some_and(|drill| drill.report.is_running()) {
            return Err(DrillError::Running);
        }
        if !self.has_other_path(config.path) {
            return Err(DrillError::LastPath);
        }
        if !self.core.active().contains(config.path) {
            return Err(DrillError::NotInUse);
        }
        // What met the last drill did not meet this one.
        self.flights.iter_mut().for_each(|(_, flight)| flight.met_drill = false);
        self.drill = Some(Drill::new(now, config));
        self.expire_drill(now);
        Ok(())
    }

    fn has_other_path(&self, path: PathIndex) -> bool {
        let this: PathSet = [path].into_iter().collect();
        !self.core.active().without(this).is_empty()
    }

    /// What the drill that goes on has shown so far, or the last one.
    #[must_use]
    pub fn drill_report(&self) -> Option<DrillReport> {
        Some(self.drill.as_ref()?.report)
    }

    /// The requests that ended during the drill that goes on, or during the last one; the newest [`SAMPLES_MAX`], oldest
    /// first.
    pub fn drill_samples(&self) -> impl Iterator<Item = &DrillSample> {
        self.drill.iter().flat_map(|drill| &drill.samples)
    }

    /// What a drill does to a path now.
    pub(super) fn drilled(&self, path: PathIndex) -> Option<DrillFault> {
        let report = &self.drill.as_ref()?.report;
        (report.stage == DrillStage::Fault && report.config.path == path).then_some(report.config.fault)
    }

    /// Keeps back what a path that is to hang answers.
    pub(super) fn withhold(&mut self, done: IoCompletion) {
        self.drill.as_mut().expect("a path hangs in a drill").withheld.push_back(done);
    }

    /// A request is over, and may have been part of a drill.
    pub(super) fn note_drilled(&mut self, now: Instant, flight: &Flight, is_done: bool) {
        let Some(drill) = &mut self.drill else { return };
        if drill.report.is_running() || flight.met_drill {
            drill.note(now, flight, is_done);
        }
    }

    /// When the drill wants to be looked at.
    pub(super) fn drill_timeout(&self) -> Option<Instant> {
        self.drill.as_ref()?.next_timeout()
    }

    /// Goes from stage to stage as time passes.
    pub(super) fn expire_drill(&mut self, now: Instant) {
        while let Some(report) = self.drill.as_ref().map(|drill| drill.report) {
            match report.stage {
                DrillStage::Lead if report.fault_begins <= now => self.begin_fault(now, report.config),
                DrillStage::Fault if report.fault_ends <= now => self.end_fault(now, report.config.path),
                DrillStage::Fault if !self.has_other_path(report.config.path) => self.cut_drill(now),
                DrillStage::Tail if report.over <= now => self.drill_entry().report.stage = DrillStage::Over,
                _ => return,
            }
        }
    }

    fn drill_entry(&mut self) -> &mut Drill {
        self.drill.as_mut().expect("a drill goes on")
    }

    fn begin_fault(&mut self, now: Instant, config: DrillConfig) {
        if !self.has_other_path(config.path) {
            return self.cut_drill(now);
        }
        let plan: Plan = self.plan(config.service_time);
        let report = &mut self.drill_entry().report;
        report.stage = DrillStage::Fault;
        let (request, flush) = match config.fault {
            DrillFault::Error => (FaultKind::Error, FaultKind::Error),
            DrillFault::Hang => (FaultKind::Hang, FaultKind::HangOfFlush),
        };
        (report.requests.predicted, report.flushes.predicted) = (plan.worst(request), plan.worst(flush));
        // Those that the path has already meet the fault too.
        if config.fault == DrillFault::Hang {
            let attempts: Vec<usize> = self.attempts.flights_on(config.path).collect();
            attempts.into_iter().for_each(|index| self.flight(index).met_drill = true);
        }
    }

    /// What was withheld comes now.
    fn end_fault(&mut self, now: Instant, path: PathIndex) {
        let drill = self.drill_entry();
        drill.report.stage = DrillStage::Tail;
        for done in std::mem::take(&mut drill.withheld) {
            self.handle_completion(now, path, done);
        }
    }

    /// Ends the fault now, for no other path is left.
    fn cut_drill(&mut self, now: Instant) {
        let report = &mut self.drill_entry().report;
        report.was_cut = true;
        report.fault_begins = report.fault_begins.min(now);
        (report.fault_ends, report.over) = (now, now + report.config.tail);
        let path = report.config.path;
        self.end_fault(now, path);
    }

    /// Sends the reads of the load that are due.
    pub(super) fn send_load(&mut self, now: Instant) {
        let Some(Drill { report, load: Some((at, count)), .. }) = &mut self.drill else {
            return;
        };
        if !report.is_running() || now < *at {
            return;
        }
        // What a late loop has missed is not made up for.
        *at = now + LOAD_INTERVAL;
        let (number, path) = (*count, report.config.path);
        // Reads of an earlier drill may be on their way still.
        let in_flight = self.flights.iter().filter(|flight| flight.is_load).count();
        let is_busy = self.flights.len() >= self.geometry.queue_depth / 2;
        if in_flight >= LOAD_IN_FLIGHT_MAX || is_busy || self.is_quarantine_full() {
            return;
        }
        self.drill_entry().load = Some((now + LOAD_INTERVAL, number + 1));
        let index = self.load_read(now, number);
        let asks_first = number.is_multiple_of(2)
            && self.core.active().contains(path)
            && self.paths[path.0].status.in_flight < LOAD_ON_PATH_MAX;
        if asks_first {
            match self.send(now, index, path) {
                Ok(()) => return,
                Err(RefusalReason::Closed) => self.core.handle_link_down(now, path),
                Err(_) => {}
            }
        }
        self.dispatch(now, index);
    }

    /// A read of the load, on no path yet: places that look random and are the same in every drill.
    fn load_read(&mut self, now: Instant, number: u64) -> usize {
        let block_bytes = self.geometry.block_size.bytes();
        let bytes = block_bytes.max(LOAD_BYTES);
        let places = self.geometry.block_count.0.saturating_sub((bytes / block_bytes) as u64) + 1;
        // The odd number nearest to 2⁶⁴ divided by the golden ratio spreads the places evenly.
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let lba = (u128::from(spread) * u128::from(places)) >> 64;
        let lba = Lba(u64::try_from(lba).unwrap_or(0));
        let buffer = self.pool.take(bytes);
        self.serial += 1;
        let request = IoRequest { hedge: false, ..IoRequest::read(IoTag(0), lba, buffer) };
        let mut flight = Flight::new(now, self.serial, request);
        // Nobody submitted it: it has no tag but its own.
        (flight.is_load, flight.tag) = (true, flight.serial);
        self.flights.insert(flight)
    }
}
