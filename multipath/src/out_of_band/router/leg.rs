//! One leg of a command: from the choice of a path to the conclusion.
//!
//! Keeps true: after an attempt that may have run, a *never* is concluded and a *verify* is verified first; an attempt leaves
//! time for another path to be asked, where there is one. Not here: the book-keeping around it (`router`).

use std::time::Duration;

use storage_mapping::control_port::{ControlCommand, ControlReply};
use storage_mapping::{CopyFate, Instant, IoTag, PathIndex, RefusalReason};

use super::{Action, CONTROL_TAG, Job, Router, Sent};
use crate::error_class::ErrorClass;
use crate::out_of_band::command_table::{Lookup, Repeat, Verify};
use crate::out_of_band::reading::Reading;
use crate::out_of_band::record::{Certainty, Conclusion, Remark};
use crate::out_of_band::request::{CommandId, CommandRequest, Mode, Origin};
use crate::out_of_band::select::{Bounds, select};
use crate::out_of_band::verify::{Found, WasGood, command_for, judge};
use crate::path_state::{PathSet, PathState};

/// Unit attentions that one leg goes through on one path, one after the other.
const ATTENTIONS_MAX: u32 = 8;

/// Where a leg is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Choose,
    Wait {
        until: Instant,
    },
    Sent {
        tag: IoTag,
        path: PathIndex,
        until: Instant,
        /// The path was down when it was sent: that it is so is no news.
        was_down: bool,
        /// Why a verify command was sent.
        verifies: Option<Doubt>,
        is_cancelling: bool,
    },
    Verify(Doubt),
    Done,
}

/// What a verify command is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Whether a GOOD had an effect.
    Effect,
    /// Whether it was executed.
    Execution,
}

/// One leg.
#[derive(Clone, Debug)]
pub(super) struct Leg {
    /// The one path of a leg of several.
    pub(super) path: Option<PathIndex>,
    pub(super) phase: Phase,
    pub(super) conclusion: Conclusion,
    /// Paths that failed the command.
    tried: PathSet,
    /// Paths that failed the verify command.
    verify_tried: PathSet,
    /// The path that the command was sent over first.
    bound: Option<PathIndex>,
    /// The next attempt goes over this path.
    again: Option<PathIndex>,
    attentions: u32,
    /// An attempt may have run, and nothing was found out about it.
    is_in_doubt: bool,
    /// What was known of the nexus when the command was sent.
    before: WasGood,
}

impl Leg {
    pub(super) fn new(path: Option<PathIndex>) -> Self {
        let conclusion =
            Conclusion { path, reply: None, certainty: Certainty::NotExecuted, copy: CopyFate::Dead };
        Self {
            path,
            phase: Phase::Choose,
            conclusion,
            tried: PathSet::EMPTY,
            verify_tried: PathSet::EMPTY,
            bound: None,
            again: None,
            attentions: 0,
            is_in_doubt: false,
            before: WasGood { did_hold: false, had_key: None },
        }
    }

    pub(super) fn end_unsent(&mut self) {
        self.phase = Phase::Done;
    }

    /// Ends with an answer that no target gave now.
    pub(super) fn end_with(&mut self, path: Option<PathIndex>, reply: ControlReply) {
        let (certainty, copy) = (Certainty::NotExecuted, CopyFate::Dead);
        self.conclusion = Conclusion { path, reply: Some(reply), certainty, copy };
        self.phase = Phase::Done;
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Choose | Phase::Verify(_) => Some(Instant::ZERO),
            Phase::Wait { until } => Some(until),
            Phase::Sent { until, is_cancelling: false, .. } => Some(until),
            Phase::Sent { .. } | Phase::Done => None,
        }
    }

    pub(super) fn handle_not_taken(
        &mut self,
        now: Instant,
        path: PathIndex,
        reason: RefusalReason,
        delay: Duration,
    ) {
        let Phase::Sent { verifies, .. } = self.phase else { return };
        if self.conclusion.path.is_none() {
            self.conclusion.path = Some(path);
        }
        match (verifies, reason) {
            (Some(doubt), _) => {
                self.verify_tried.insert(path);
                self.phase = Phase::Verify(doubt);
            }
            (None, RefusalReason::Busy) => self.phase = Phase::Wait { until: now + delay },
            (None, _) => {
                self.tried.insert(path);
                self.phase = Phase::Choose;
            }
        }
        if !self.is_in_doubt {
            // It was not sent: the next path is as good as the first.
            self.bound = None;
        }
    }
}

impl Router {
    /// Lets every leg of a command go on as far as it can.
    pub(super) fn progress(&mut self, now: Instant, id: CommandId) {
        let Some(count) = self.jobs.get(&id).map(|job| job.legs.len()) else { return };
        for leg in 0..count {
            self.progress_leg(now, id, leg);
        }
    }

    fn job(&mut self, id: CommandId) -> &mut Job {
        self.jobs.get_mut(&id).expect("a command under way is in the table")
    }

    fn progress_leg(&mut self, now: Instant, id: CommandId, leg: usize) {
        let phase = self.job(id).legs[leg].phase;
        match phase {
            Phase::Choose => self.choose(now, id, leg),
            Phase::Verify(doubt) => self.choose_verify(now, id, leg, doubt),
            Phase::Wait { until } => {
                if until <= now {
                    self.choose(now, id, leg);
                }
            }
            Phase::Sent { tag, path, until, was_down, is_cancelling: false, verifies } => {
                let job = self.job(id);
                let may_leave = job.row.repeat != Repeat::Never && job.request.mode != Mode::Exact;
                let is_down = self.is_down(path);
                let is_lost = !was_down && is_down && may_leave && self.has_other(id, leg, path);
                if until <= now || is_lost {
                    let is_cancelling = true;
                    self.job(id).legs[leg].phase =
                        Phase::Sent { tag, path, until, was_down, verifies, is_cancelling };
                    self.actions.push_back(Action::Cancel { path, tag });
                }
            }
            Phase::Sent { .. } | Phase::Done => {}
        }
    }

    fn is_down(&self, path: PathIndex) -> bool {
        !matches!(self.paths[path.0].state, PathState::Active | PathState::Isolated | PathState::Standby)
    }

    /// The paths that may be asked next, best first.
    fn order(&self, id: CommandId, leg: usize) -> Vec<PathIndex> {
        let Some(job) = self.jobs.get(&id) else { return Vec::new() };
        let own = &job.legs[leg];
        if let Some(path) = own.again {
            return vec![path];
        }
        let Job { request, row, .. } = job;
        let bounds = Bounds { request, row, ledger: &self.ledger, tried: own.tried, bound: own.bound };
        let selection = select(&self.paths, &bounds);
        let is_it = |path: &PathIndex| own.path.is_none_or(|only| only == *path);
        selection.candidates.into_iter().map(|candidate| candidate.path).filter(is_it).collect()
    }

    fn has_other(&self, id: CommandId, leg: usize, path: PathIndex) -> bool {
        self.order(id, leg).iter().any(|other| *other != path && !self.is_down(*other))
    }

    fn has_other_usable(&self, path: PathIndex) -> bool {
        self.paths.iter().any(|view| view.path != path && view.nexus.is_some() && !self.is_down(view.path))
    }

    fn choose(&mut self, now: Instant, id: CommandId, leg: usize) {
        let order = self.order(id, leg);
        let job = self.job(id);
        let Some(path) = order.first().copied().filter(|_| now < job.deadline) else {
            return self.conclude(id, leg);
        };
        let command = job.request.command.clone();
        let deadline = job.deadline;
        let own = &mut job.legs[leg];
        own.again = None;
        own.bound.get_or_insert(path);
        // Another path can carry the command, or verify it. What must not be repeated has no use for either.
        let repeat = job.row.repeat;
        let has_other = match repeat {
            Repeat::Never => false,
            Repeat::Verify => order.len() > 1 || self.has_other_usable(path),
            Repeat::Yes => order.len() > 1,
        };
        let until = self.until(now, deadline, has_other);
        let had_key = self.ledger.nexus(path).key.map(|key| (key, self.ledger.others_with(path, key).1));
        self.job(id).legs[leg].before = WasGood { did_hold: self.ledger.holder() == Some(path), had_key };
        self.send(now, (id, leg), path, command, until, None);
    }

    /// When an attempt is given up on: so that there is time for another path, where there is one.
    fn until(&self, now: Instant, deadline: Instant, has_other: bool) -> Instant {
        let left = deadline.since(now);
        if has_other { now + self.config.attempt_timeout.min(left / 2) } else { deadline }
    }

    fn send(
        &mut self,
        now: Instant,
        (id, leg): (CommandId, usize),
        path: PathIndex,
        command: ControlCommand,
        until: Instant,
        verifies: Option<Doubt>,
    ) {
        self.serial += 1;
        let tag = IoTag(CONTROL_TAG | self.serial);
        let was_down = self.is_down(path);
        let job = self.jobs.get_mut(&id).expect("a command under way is in the table");
        let (row, verify) = match verifies {
            None => (job.row.clone(), None),
            Some(_) => {
                let lookup =
                    Lookup { command: &command, device_type: job.request.device_type, is_named: false };
                (self.table.row(&lookup).clone(), job.row.verify.name())
            }
        };
        job.legs[leg].phase = Phase::Sent { tag, path, until, was_down, verifies, is_cancelling: false };
        let sent = Sent { id, leg, path, at: now, command: command.clone(), row, verify, is_orphan: false };
        self.sent.insert(tag, sent);
        self.actions.push_back(Action::Send { path, tag, command });
    }

    /// Sends the verify command over the best path that did not fail so far.
    fn choose_verify(&mut self, now: Instant, id: CommandId, leg: usize, doubt: Doubt) {
        let Job { request, row, deadline, .. } = self.job(id).clone();
        let own = self.job(id).legs[leg].clone();
        let Some(command) = command_for(row.verify, &request.command) else {
            return self.end_verify(id, leg, doubt, Found::Undecided);
        };
        let tried = match doubt {
            Doubt::Execution => own.tried.union(own.verify_tried),
            Doubt::Effect => own.verify_tried,
        };
        let is_named = false;
        let lookup = Lookup { command: &command, device_type: request.device_type, is_named };
        let verify_row = self.table.row(&lookup).clone();
        let reads = CommandRequest { command: command.clone(), path: None, mode: Mode::Prefer, ..request };
        let bounds = Bounds { request: &reads, row: &verify_row, ledger: &self.ledger, tried, bound: None };
        let mut order: Vec<PathIndex> =
            select(&self.paths, &bounds).candidates.iter().map(|candidate| candidate.path).collect();
        if row.verify == Verify::TestUnitReady {
            // What it asks is about one nexus.
            order =
                own.conclusion.path.filter(|path| !own.verify_tried.contains(*path)).into_iter().collect();
        }
        if let Some(path) = own.again {
            order = vec![path];
        }
        self.job(id).legs[leg].again = None;
        match order.first() {
            Some(path) if now < deadline => {
                let until = self.until(now, deadline, order.len() > 1);
                self.send(now, (id, leg), *path, command, until, Some(doubt));
            }
            _ => self.end_verify(id, leg, doubt, Found::Undecided),
        }
    }

    /// What follows from the end of an attempt.
    pub(super) fn decide(
        &mut self,
        now: Instant,
        sent: &Sent,
        reading: &Reading,
        reply: Option<&ControlReply>,
    ) {
        let (id, leg, path) = (sent.id, sent.leg, sent.path);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Phase::Sent { verifies, .. } = job.legs[leg].phase else { return };
        if let Some(doubt) = verifies {
            return self.decide_verify(sent, doubt, reading, reply);
        }
        let own = &mut job.legs[leg];
        own.conclusion.path = Some(path);
        own.conclusion.reply = reply.cloned();
        own.conclusion.certainty = reading.certainty;
        if reading.copy == CopyFate::MayLand && reading.certainty == Certainty::Unknown {
            own.conclusion.copy = CopyFate::MayLand;
            if job.row.repeat != Repeat::Yes || job.row.needs_fence {
                job.record.remarks.push(Remark::MayLand(path));
            }
        }
        match reading.certainty {
            Certainty::Executed if job.row.checks_effect => own.phase = Phase::Verify(Doubt::Effect),
            Certainty::Executed | Certainty::NoEffect => {
                own.is_in_doubt = false;
                self.conclude(id, leg);
            }
            Certainty::NotExecuted => {
                own.tried.insert(path);
                own.phase = Phase::Choose;
                if !own.is_in_doubt {
                    own.bound = None;
                }
            }
            Certainty::Refused => self.decide_refused(now, sent, reading),
            Certainty::Unknown => self.decide_unknown(id, leg, path, reading.copy),
        }
    }

    /// The target said that it does not do it.
    fn decide_refused(&mut self, now: Instant, sent: &Sent, reading: &Reading) {
        let (id, leg, path) = (sent.id, sent.leg, sent.path);
        let busy_delay = self.config.busy_delay;
        let class = reading.classified.map_or(ErrorClass::Caller, |classified| classified.class);
        if class == ErrorClass::Reservation {
            let was_registered = self.ledger.is_registered(path);
            self.ledger.doubt(now, path);
            if !was_registered {
                self.job(id).record.remarks.push(Remark::MaybeUnregistered(path));
            }
        }
        let job = self.job(id);
        let is_raw = job.request.mode == Mode::Exact && job.request.origin == Origin::Caller;
        if is_raw || job.row.repeat == Repeat::Never {
            return self.conclude(id, leg);
        }
        let own = &mut job.legs[leg];
        match class {
            ErrorClass::UnitAttention if own.attentions < ATTENTIONS_MAX => {
                own.attentions += 1;
                own.again = Some(path);
                own.phase = Phase::Choose;
            }
            ErrorClass::Busy => {
                own.again = Some(path);
                own.phase = Phase::Wait { until: now + busy_delay };
            }
            ErrorClass::PathGhost
            | ErrorClass::PathTransition
            | ErrorClass::PathDead
            | ErrorClass::Reidentify => {
                own.tried.insert(path);
                own.phase = Phase::Choose;
                if !own.is_in_doubt {
                    own.bound = None;
                }
            }
            // Only where the ledger knows of a nexus that is registered: a conflict may be another host's right.
            ErrorClass::Reservation => {
                own.tried.insert(path);
                let order = self.order(id, leg);
                match order.into_iter().find(|other| self.ledger.is_registered(*other)) {
                    Some(other) => {
                        let own = &mut self.job(id).legs[leg];
                        (own.again, own.phase) = (Some(other), Phase::Choose);
                    }
                    None => self.conclude(id, leg),
                }
            }
            _ => self.conclude(id, leg),
        }
    }

    /// It may have run.
    fn decide_unknown(&mut self, id: CommandId, leg: usize, path: PathIndex, copy: CopyFate) {
        let job = self.job(id);
        let own = &mut job.legs[leg];
        own.tried.insert(path);
        own.is_in_doubt = true;
        match job.row.repeat {
            Repeat::Never => {
                job.record.remarks.push(Remark::NeverRepeated);
                self.conclude(id, leg);
            }
            Repeat::Yes if job.row.needs_fence && copy == CopyFate::MayLand => {
                job.record.remarks.push(Remark::NeedsFence);
                self.conclude(id, leg);
            }
            Repeat::Yes => own.phase = Phase::Choose,
            Repeat::Verify => own.phase = Phase::Verify(Doubt::Execution),
        }
    }

    fn decide_verify(&mut self, sent: &Sent, doubt: Doubt, reading: &Reading, reply: Option<&ControlReply>) {
        let (id, leg) = (sent.id, sent.leg);
        if let (Ok(()), Some(reply)) = (reading.outcome, reply) {
            let job = &self.jobs[&id];
            let own = &job.legs[leg];
            let path = own.conclusion.path.unwrap_or(sent.path);
            let was_good = (doubt == Doubt::Effect).then_some(own.before);
            let command = (&job.request.command, path);
            let found = judge(job.row.verify, command, &self.ledger, reply, was_good);
            return self.end_verify(id, leg, doubt, found);
        }
        let is_attention = reading.attention.is_some();
        let own = &mut self.job(id).legs[leg];
        if is_attention && own.attentions < ATTENTIONS_MAX {
            own.attentions += 1;
            own.again = Some(sent.path);
        } else {
            own.verify_tried.insert(sent.path);
        }
        own.phase = Phase::Verify(doubt);
    }

    /// What was found.
    fn end_verify(&mut self, id: CommandId, leg: usize, doubt: Doubt, found: Found) {
        let job = self.jobs.get_mut(&id).expect("a command under way is in the table");
        let own = &mut job.legs[leg];
        own.verify_tried = PathSet::EMPTY;
        let remark = match (doubt, found) {
            (Doubt::Effect, Found::Done) => None,
            (Doubt::Effect, Found::Undone) => {
                own.conclusion.certainty = Certainty::NoEffect;
                Some(Remark::NoEffect)
            }
            (_, Found::Undecided) => {
                own.conclusion.certainty = Certainty::Unknown;
                Some(Remark::NotVerified)
            }
            (Doubt::Execution, Found::Done) => {
                own.conclusion.certainty = Certainty::Executed;
                own.is_in_doubt = false;
                if let Some(path) = own.conclusion.path {
                    self.ledger.handle_found(path, &job.request.command);
                }
                Some(Remark::FoundDone)
            }
            (Doubt::Execution, Found::Undone) => Some(Remark::FoundUndone),
        };
        job.record.remarks.extend(remark);
        if (doubt, found) == (Doubt::Execution, Found::Undone) {
            own.phase = Phase::Choose;
            return;
        }
        self.conclude(id, leg);
    }

    /// The leg ends with what it knows.
    fn conclude(&mut self, id: CommandId, leg: usize) {
        let job = self.job(id);
        let own = &mut job.legs[leg];
        own.phase = Phase::Done;
        let certainty = &mut own.conclusion.certainty;
        if own.is_in_doubt && matches!(certainty, Certainty::NotExecuted | Certainty::Refused) {
            *certainty = Certainty::Unknown;
        }
        if *certainty == Certainty::Unknown {
            job.record.advice = job.row.verify.name();
        }
    }
}
