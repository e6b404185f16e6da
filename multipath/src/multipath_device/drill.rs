//! Drills: a fault on purpose in a running device, and how long its requests take then.
//!
//! Keeps true: a drill does no harm that the real fault would not do, and less: while it hangs a path, what the path
//! answers is withheld and comes afterwards, and nothing is dropped; with an error, requests are refused before they are
//! sent. There is one at a time, only while another path can be used, and it ends by itself. Not here: what is to be expected
//! (`plan`).

use std::collections::VecDeque;
use std::time::Duration;

use storage_mapping::{Instant, IoCompletion, PathIndex};
use thiserror::Error;

use super::MultipathDevice;
use crate::path_state::PathSet;
use crate::selector::PathSelector;

/// What a drill does to its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DrillFault {
    /// It takes nothing more.
    Error,
    /// It takes requests and does not answer.
    Hang,
}

/// What a drill showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrillReport {
    /// The path.
    pub path: PathIndex,
    /// The fault.
    pub fault: DrillFault,
    /// How long it went on.
    pub took: Duration,
    /// Requests that met it and are over.
    pub requests: u64,
    /// Of these, how many failed.
    pub failed: u64,
    /// The longest time from submission to end of one that met it.
    pub worst: Duration,
    /// Whether it still goes on.
    pub is_running: bool,
}

/// Why there is no drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DrillError {
    /// It would take the last path.
    #[error("no other path is in use: a drill needs two")]
    LastPath,
    /// One is going on.
    #[error("a drill is going on: wait until it is over")]
    Running,
}

/// A drill that goes on, or the last one.
pub(super) struct Drill {
    report: DrillReport,
    since: Instant,
    until: Instant,
    withheld: VecDeque<IoCompletion>,
}

impl<S: PathSelector> MultipathDevice<S> {
    /// Lets a path fail on purpose for so long.
    ///
    /// # Errors
    /// See [`DrillError`].
    ///
    /// # Panics
    /// If there is no such path.
    pub fn start_drill(
        &mut self,
        now: Instant,
        path: PathIndex,
        fault: DrillFault,
        duration: Duration,
    ) -> Result<(), DrillError> {
        assert!(path.0 < self.paths.len(), "the device has no path {}", path.0);
        if self.drill.as_ref().is_some_and(|drill| drill.report.is_running) {
            return Err(DrillError::Running);
        }
        let this: PathSet = [path].into_iter().collect();
        if self.core.active().without(this).is_empty() {
            return Err(DrillError::LastPath);
        }
        let (took, worst) = (Duration::ZERO, Duration::ZERO);
        let report = DrillReport { path, fault, took, requests: 0, failed: 0, worst, is_running: true };
        self.drill = Some(Drill { report, since: now, until: now + duration, withheld: VecDeque::new() });
        // Those that the path has already meet the fault too.
        if fault == DrillFault::Hang {
            let attempts: Vec<usize> = self.attempts.flights_on(path).collect();
            attempts.into_iter().for_each(|index| self.flight(index).met_drill = true);
        }
        Ok(())
    }

    /// What the drill that goes on has shown so far, or the last one.
    #[must_use]
    pub fn drill_report(&self, now: Instant) -> Option<DrillReport> {
        let drill = self.drill.as_ref()?;
        let took = if drill.report.is_running { now.since(drill.since) } else { drill.report.took };
        Some(DrillReport { took, ..drill.report })
    }

    /// What a drill does to a path now.
    pub(super) fn drilled(&self, path: PathIndex) -> Option<DrillFault> {
        let report = &self.drill.as_ref()?.report;
        (report.is_running && report.path == path).then_some(report.fault)
    }

    /// Keeps back what a path that is to hang answers.
    pub(super) fn withhold(&mut self, done: IoCompletion) {
        self.drill.as_mut().expect("a path hangs in a drill").withheld.push_back(done);
    }

    /// A request that met the drill is over.
    pub(super) fn note_drilled(&mut self, time: Duration, is_done: bool) {
        if let Some(Drill { report, .. }) = &mut self.drill {
            report.requests += 1;
            report.failed += u64::from(!is_done);
            report.worst = report.worst.max(time);
        }
    }

    /// When the drill ends.
    pub(super) fn drill_end(&self) -> Option<Instant> {
        self.drill.as_ref().filter(|drill| drill.report.is_running).map(|drill| drill.until)
    }

    /// Ends a drill whose time is over: what was withheld comes now.
    pub(super) fn expire_drill(&mut self, now: Instant) {
        let Some(drill) = self.drill.as_mut().filter(|drill| drill.report.is_running && drill.until <= now)
        else {
            return;
        };
        drill.report.is_running = false;
        drill.report.took = now.since(drill.since);
        let path = drill.report.path;
        for done in std::mem::take(&mut drill.withheld) {
            self.handle_completion(now, path, done);
        }
    }
}
