//! How a control command is processed (FIG. 15), as a state machine without I/O, threads or a clock.
//!
//! ```text
//!            classify, select                    answer
//!   submit ──────────────────▶ Choose ──send──▶ Sent ──────▶ Done
//!                               ▲ ▲ ▲            │ │ no answer in time: cancel
//!          not executed, or     │ │ └── busy ────┤ │
//!          may be repeated ─────┘ │    (Wait)    │ ▼
//!                                 │          executed? ──never──▶ Done: unknown
//!                        not done └───────── Verify ──done, or undecided──▶ Done
//! ```
//!
//! | phase | what is true in it |
//! |---|---|
//! | Choose | no attempt of this leg is waited for |
//! | Wait | the target was busy, or a port had no room |
//! | Sent | one attempt is on a path, until its time is over or its path is known to be down |
//! | Verify | the command may have run; a verify command is to be sent |
//! | Done | the conclusion stands |
//!
//! A command for all nexuses has one leg for each path, else it has one. Keeps true: each command that was taken ends, at
//! its deadline at the latest; an attempt that nobody waits for any more still tells ledger and attentions what it brings;
//! a verdict is written in the record before the next command is sent. Not here: which path (`select`), what an answer says
//! (`reading`, `verify`).

mod leg;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use storage_mapping::block::time::earliest;
use storage_mapping::control_port::{
    CommandBytes, ControlCancelled, ControlCommand, ControlCompletion, ControlEvent, ControlReply,
};
use storage_mapping::scsi::reservations::ReserveOutAction;
use storage_mapping::{CopyFate, Instant, IoTag, PathIndex, RefusalReason};

use self::leg::{Leg, Phase};
use super::attentions::Attentions;
use super::command_table::{Class, CommandTable, Lookup, Repeat, Row, is_for_callers_alone};
use super::ledger::{Ledger, NexusRecord};
use super::reading::{Event, Reading, read, silence};
use super::record::{Attempt, CommandOutcome, Conclusion, Record, Rejection, Remark};
use super::request::{CommandId, CommandRequest, Mode, Origin};
use super::select::{Bounds, PathView, Selection, select};
use super::verify::reserve_out;
use crate::path_state::{PathSet, PathState};

/// Records that are kept.
pub const RECORDS_MAX: usize = 256;
/// Commands that are under way at a time, at most.
pub const COMMANDS_MAX: usize = 256;
/// Lost commands on reservations that are remembered, as they may still land.
const GHOSTS_MAX: usize = 64;
/// Tags of control commands have this bit; those of blocks have not.
pub const CONTROL_TAG: u64 = 1 << 62;

/// Numbers of the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterConfig {
    /// How long an attempt may take while another path could be asked.
    pub attempt_timeout: Duration,
    /// How long a busy target is left alone.
    pub busy_delay: Duration,
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self { attempt_timeout: Duration::from_secs(2), busy_delay: Duration::from_millis(100) }
    }
}

/// What the loop is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// To hand a command to a port, and to say by [`Router::handle_sent`] whether it took it.
    Send {
        /// The path.
        path: PathIndex,
        /// The name of the attempt.
        tag: IoTag,
        /// The command.
        command: ControlCommand,
    },
    /// To withdraw an attempt, and to say by [`Router::handle_cancelled`] what came of it.
    Cancel {
        /// The path.
        path: PathIndex,
        /// The name of the attempt.
        tag: IoTag,
    },
}

/// One attempt that a port has.
#[derive(Clone, Debug)]
struct Sent {
    id: CommandId,
    leg: usize,
    path: PathIndex,
    at: Instant,
    command: ControlCommand,
    row: Row,
    /// The name of the verify command, where it is one.
    verify: Option<&'static str>,
    /// Nobody waits for it.
    is_orphan: bool,
}

/// A command that was taken.
#[derive(Clone, Debug)]
struct Job {
    request: CommandRequest,
    row: Row,
    deadline: Instant,
    legs: Vec<Leg>,
    record: Record,
}

/// The router of one unit.
#[derive(Debug)]
pub struct Router {
    config: RouterConfig,
    table: CommandTable,
    ledger: Ledger,
    attentions: Attentions,
    paths: Vec<PathView>,
    latencies: Vec<Option<Duration>>,
    jobs: BTreeMap<CommandId, Job>,
    sent: BTreeMap<IoTag, Sent>,
    /// Commands on reservations that were lost with their path, and may still land.
    ghosts: VecDeque<(IoTag, Sent)>,
    serial: u64,
    actions: VecDeque<Action>,
    outcomes: VecDeque<CommandOutcome>,
    layer_outcomes: VecDeque<CommandOutcome>,
    records: VecDeque<Record>,
}

impl Router {
    /// A router for a unit of so many paths.
    #[must_use]
    pub fn new(paths: usize, table: CommandTable, config: RouterConfig) -> Self {
        Self {
            config,
            table,
            ledger: Ledger::new(paths),
            attentions: Attentions::new(paths),
            paths: Vec::new(),
            latencies: vec![None; paths],
            jobs: BTreeMap::new(),
            sent: BTreeMap::new(),
            ghosts: VecDeque::new(),
            serial: 0,
            actions: VecDeque::new(),
            outcomes: VecDeque::new(),
            layer_outcomes: VecDeque::new(),
            records: VecDeque::new(),
        }
    }

    /// What the target keeps by nexus.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The same, to write in.
    pub fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// The broker of unit attentions.
    #[must_use]
    pub fn attentions(&self) -> &Attentions {
        &self.attentions
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &CommandTable {
        &self.table
    }

    /// Takes another table, for commands from now on.
    pub fn set_table(&mut self, table: CommandTable) {
        self.table = table;
    }

    /// Takes other numbers.
    pub fn set_config(&mut self, config: RouterConfig) {
        self.config = config;
    }

    /// What was decided, oldest first.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }

    /// Whether any command is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.outcomes.is_empty() && self.layer_outcomes.is_empty()
    }

    /// What a control command over a path took lately.
    #[must_use]
    pub fn latency(&self, path: PathIndex) -> Option<Duration> {
        self.latencies[path.0]
    }

    /// Takes in how the paths are now: to be called before each other call that takes `now`.
    pub fn set_paths(&mut self, paths: Vec<PathView>) {
        self.paths = paths;
    }

    /// Takes a command. Its outcome comes in any case.
    ///
    /// # Panics
    /// If the layer itself asks for what only a caller may want.
    pub fn submit(&mut self, now: Instant, request: CommandRequest) -> CommandId {
        let is_own = request.origin == Origin::Layer;
        assert!(!is_own || !is_for_callers_alone(&request.command), "only a caller may want this");
        let id = self.next_id();
        let is_named = request.path.is_some();
        let lookup = Lookup { command: &request.command, device_type: request.device_type, is_named };
        let row = self.table.row(&lookup).clone();
        let (tried, bound) = (PathSet::EMPTY, None);
        let bounds = Bounds { request: &request, row: &row, ledger: &self.ledger, tried, bound };
        let mut selection = select(&self.paths, &bounds);
        let goes_everywhere =
            request.mode == Mode::All || (row.class == Class::AllNexuses && request.mode != Mode::Exact);
        if request.mode == Mode::All && row.class != Class::AllNexuses && row.repeat != Repeat::Yes {
            let all = selection.candidates.drain(..).map(|candidate| (candidate.path, Rejection::NotForAll));
            selection.rejected.extend(all);
        }
        let legs = if goes_everywhere && !selection.candidates.is_empty() {
            self.paths
                .iter()
                .filter(|view| view.nexus.is_some())
                .map(|view| Leg::new(Some(view.path)))
                .collect()
        } else {
            vec![Leg::new(None)]
        };
        let record = self.record(now, id, &request, &row, selection);
        self.note_unwanted(&request);
        let deadline = now + request.patience;
        let is_over = request.is_dry_run || record.candidates.is_empty() || self.jobs.len() >= COMMANDS_MAX;
        let mut job = Job { request, row, deadline, legs, record };
        if is_over {
            job.legs.iter_mut().for_each(Leg::end_unsent);
        } else if let Some(reply) = self.earlier_attention(&job) {
            job.record.remarks.push(Remark::EarlierAttention);
            job.legs[0].end_with(job.request.path, reply);
        }
        self.jobs.insert(id, job);
        self.finish_if_done(id);
        id
    }

    /// A key that is about to be taken away is wanted no more: that it is missing is no other host's doing.
    fn note_unwanted(&mut self, request: &CommandRequest) {
        let Some(out) = reserve_out(&request.command).filter(|_| !request.is_dry_run) else { return };
        let registers =
            matches!(out.action, ReserveOutAction::Register | ReserveOutAction::RegisterAndIgnore);
        if registers && out.list.keys().1 == 0 {
            let all = (0..self.latencies.len()).map(PathIndex);
            let meant = |path: &PathIndex| request.mode != Mode::Exact || request.path == Some(*path);
            all.filter(meant).for_each(|path| self.ledger.want_no_key(path));
        }
    }

    /// A number that no command has.
    pub fn next_id(&mut self) -> CommandId {
        self.serial += 1;
        CommandId(self.serial)
    }

    fn record(
        &self,
        at: Instant,
        id: CommandId,
        request: &CommandRequest,
        row: &Row,
        selection: Selection,
    ) -> Record {
        let Selection { candidates, rejected } = selection;
        let chosen = candidates.first().map(|candidate| candidate.path);
        let named = request.path.filter(|_| chosen != request.path);
        let why_not_named = named.map(|named| {
            let is_it = |(path, _): &&(PathIndex, Rejection)| *path == named;
            match (rejected.iter().find(is_it), self.paths.get(named.0)) {
                (Some((_, why)), _) => *why,
                (None, Some(view)) if view.state != PathState::Active => Rejection::State(view.state),
                (None, _) => Rejection::Worse,
            }
        });
        Record {
            id,
            at,
            bytes: request.command.bytes,
            name: row.name.clone().into_owned(),
            class: row.class,
            repeat: row.repeat,
            reason: row.reason,
            is_of_user: row.is_of_user,
            mode: request.mode,
            is_dry_run: request.is_dry_run,
            named: request.path,
            candidates,
            rejected,
            chosen,
            why_not_named,
            attempts: Vec::new(),
            remarks: Vec::new(),
            advice: None,
        }
    }

    /// The sense that another command took from a caller who wants the raw answer of one path.
    fn earlier_attention(&mut self, job: &Job) -> Option<ControlReply> {
        let reports = reports_attentions(&job.request.command);
        if job.request.mode != Mode::Exact || job.request.origin != Origin::Caller || !reports {
            return None;
        }
        let Event { asc, ascq } = self.attentions.take_owed(job.request.path?)?;
        let sense = storage_mapping::scsi::sense::Sense::new(6, asc, ascq).emit();
        let status = storage_mapping::scsi::status::CHECK_CONDITION;
        Some(ControlReply::Scsi { status, sense, data: Vec::new() })
    }

    /// The next thing to do, if any.
    pub fn poll_action(&mut self, now: Instant) -> Option<Action> {
        if self.actions.is_empty() {
            let ids: Vec<CommandId> = self.jobs.keys().copied().collect();
            for id in ids {
                self.progress(now, id);
                self.finish_if_done(id);
            }
        }
        self.actions.pop_front()
    }

    /// The next outcome of a command of this origin.
    pub fn poll_outcome(&mut self, origin: Origin) -> Option<CommandOutcome> {
        match origin {
            Origin::Caller => self.outcomes.pop_front(),
            Origin::Layer | Origin::Part => self.layer_outcomes.pop_front(),
        }
    }

    /// When [`Self::poll_action`] has something to do although nothing happened.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        if !self.actions.is_empty() || !self.outcomes.is_empty() || !self.layer_outcomes.is_empty() {
            return Some(Instant::ZERO);
        }
        let legs = self.jobs.values().flat_map(|job| &job.legs);
        legs.map(Leg::next_timeout).fold(None, earliest)
    }

    /// A port took an attempt, or did not.
    pub fn handle_sent(&mut self, now: Instant, tag: IoTag, taken: Result<(), RefusalReason>) {
        let Err(reason) = taken else { return };
        let Some(sent) = self.sent.remove(&tag) else { return };
        let busy_delay = self.config.busy_delay;
        let Some(job) = self.jobs.get_mut(&sent.id) else { return };
        job.record.rejected.push((sent.path, Rejection::DidNotTake));
        job.legs[sent.leg].handle_not_taken(now, sent.path, reason, busy_delay);
    }

    /// An attempt ended. Says what that means for its path, for who keeps path states.
    pub fn handle_completion(
        &mut self,
        now: Instant,
        done: &ControlCompletion,
    ) -> Option<(PathIndex, Reading)> {
        let sent = self.sent.remove(&done.tag)?;
        let reading = read(done);
        let reply = done.outcome.as_ref().ok();
        let took = now.since(sent.at);
        if let Some(event) = reading.attention {
            let exact = |job: &Job| job.request.mode == Mode::Exact && job.request.origin == Origin::Caller;
            let is_told =
                !sent.is_orphan && sent.verify.is_none() && self.jobs.get(&sent.id).is_some_and(exact);
            self.note_attention(now, sent.path, event, is_told);
        } else if reply.is_some() && reports_attentions(&sent.command) {
            self.attentions.handle_none(sent.path, sent.at);
        }
        let command = (&sent.command, &sent.row);
        if sent.is_orphan {
            self.ledger.handle_late_end(now, sent.path, command, &reading, reply);
        } else {
            self.ledger.handle_end(now, sent.path, command, &reading, reply);
        }
        if reading.outcome.is_ok() {
            self.expect_attentions(sent.path, &sent.command);
            self.note_latency(sent.path, took);
        }
        if !sent.is_orphan {
            self.note_attempt(&sent, took, &reading);
            self.decide(now, &sent, &reading, reply);
            self.finish_if_done(sent.id);
        }
        let path = sent.path;
        if reading.copy == CopyFate::MayLand && acts_on_reservation(&sent.command) {
            if self.ghosts.len() == GHOSTS_MAX {
                self.ghosts.pop_front();
            }
            self.ghosts.push_back((done.tag, sent));
        }
        Some((path, reading))
    }

    /// What came of a wish to withdraw an attempt. Says what that means for its path.
    pub fn handle_cancelled(
        &mut self,
        now: Instant,
        tag: IoTag,
        answer: ControlCancelled,
    ) -> Option<(PathIndex, Reading)> {
        let was_withdrawn = answer == ControlCancelled::Withdrawn;
        let sent = self.sent.get_mut(&tag)?;
        sent.is_orphan = true;
        let sent = sent.clone();
        if was_withdrawn {
            self.sent.remove(&tag);
        }
        let reading = silence(was_withdrawn);
        self.ledger.handle_end(now, sent.path, (&sent.command, &sent.row), &reading, None);
        self.note_attempt(&sent, now.since(sent.at), &reading);
        self.decide(now, &sent, &reading, None);
        self.finish_if_done(sent.id);
        Some((sent.path, reading))
    }

    /// A port reports something on its own account.
    pub fn handle_event(&mut self, now: Instant, path: PathIndex, event: &ControlEvent, generation: u64) {
        match event {
            ControlEvent::NexusLost => self.ledger.handle_loss(now, path),
            ControlEvent::NexusBegun => self.ledger.handle_login(now, path, generation),
            ControlEvent::Attention { key: 6, asc, ascq } => {
                // That of the login is no news for a caller: the port has a nexus since then, and says so.
                self.note_attention(now, path, Event { asc: *asc, ascq: *ascq }, *asc == 0x29);
            }
            ControlEvent::Attention { .. } => {}
            ControlEvent::Settled(tag) => {
                self.sent.remove(tag);
                self.ghosts.retain(|(ghost, _)| ghost != tag);
            }
        }
    }

    /// Paths over which a command on reservations may still land that nobody waits for.
    #[must_use]
    pub fn ghost_paths(&self) -> PathSet {
        let orphans = self.sent.values().filter(|sent| sent.is_orphan && acts_on_reservation(&sent.command));
        orphans.chain(self.ghosts.iter().map(|(_, sent)| sent)).map(|sent| sent.path).collect()
    }

    /// The key of a path was taken away: what was lost over it conflicts when it lands.
    pub fn handle_fenced(&mut self, path: PathIndex) {
        self.ghosts.retain(|(_, sent)| sent.path != path);
    }

    /// A unit attention was met over a path, by whatever command.
    pub fn note_attention(&mut self, now: Instant, path: PathIndex, event: Event, is_told: bool) {
        // One of ours that is on its way, or that nobody waits for any more, may be the cause: keys are read then.
        let mut ways = self.sent.values().chain(self.ghosts.iter().map(|(_, sent)| sent));
        let nexus = self.ledger.nexus(path);
        if ways.any(|sent| sent.path != path && may_cause(&sent.command, event, nexus)) {
            self.attentions.expect(path, event);
            self.ledger.doubt(now, path);
        }
        let is_own = self.attentions.handle(now, path, event, is_told);
        self.ledger.handle_attention(now, path, event, is_own);
    }

    /// Something that was sent at `sent` ended over a path without one.
    pub fn note_no_attention(&mut self, path: PathIndex, sent: Instant) {
        self.attentions.handle_none(path, sent);
    }

    /// What our command makes the target report over the other paths (SPC-5 5.14, SAM-6 5.14).
    fn expect_attentions(&mut self, path: PathIndex, command: &ControlCommand) {
        let CommandBytes::Scsi(cdb) = &command.bytes else { return };
        let ascqs: &[u8] = match (cdb.opcode(), reserve_out(command).map(|out| out.action)) {
            (0x15 | 0x55, _) => &[0x01],
            (_, Some(ReserveOutAction::Clear)) => &[0x03],
            (_, Some(ReserveOutAction::Preempt | ReserveOutAction::PreemptAndAbort)) => &[0x03, 0x05, 0x04],
            (_, Some(ReserveOutAction::Release | ReserveOutAction::Register)) => &[0x04],
            (_, Some(ReserveOutAction::RegisterAndIgnore)) => &[0x04],
            (0xa4, _) if cdb.bytes()[1] & 0x1f == 0x0a => &[0x06],
            _ => return,
        };
        for other in (0..self.latencies.len()).map(PathIndex).filter(|other| *other != path) {
            ascqs.iter().for_each(|ascq| self.attentions.expect(other, Event { asc: 0x2a, ascq: *ascq }));
        }
    }

    /// One part in four of the newest, so that one slow answer does not decide.
    fn note_latency(&mut self, path: PathIndex, took: Duration) {
        let known = &mut self.latencies[path.0];
        *known = Some(known.map_or(took, |known| known * 3 / 4 + took / 4));
    }

    fn note_attempt(&mut self, sent: &Sent, took: Duration, reading: &Reading) {
        let Some(job) = self.jobs.get_mut(&sent.id) else { return };
        let Reading { outcome, effect, copy, .. } = *reading;
        let (path, at, verify) = (sent.path, sent.at, sent.verify);
        job.record.attempts.push(Attempt { path, at, took, verify, outcome, effect, copy });
    }

    /// Ends a command whose legs have all ended.
    fn finish_if_done(&mut self, id: CommandId) {
        let is_done = |job: &Job| job.legs.iter().all(|leg| leg.phase == Phase::Done);
        if !self.jobs.get(&id).is_some_and(is_done) {
            return;
        }
        let mut job = self.jobs.remove(&id).expect("seen just now");
        self.want_keys(&mut job);
        let conclusions: Vec<Conclusion> = if job.request.is_dry_run {
            Vec::new()
        } else {
            job.legs.into_iter().map(|leg| leg.conclusion).collect()
        };
        if let Some(first) = conclusions.first() {
            job.record.chosen = first.path;
        }
        if let (Some(named), Some(used)) =
            (job.request.path, job.record.chosen.filter(|_| conclusions.len() == 1))
            && named != used
        {
            let port = |path: PathIndex| self.paths[path.0].nexus.as_ref().map(|nexus| &nexus.target_port);
            match job.row.class {
                Class::TargetPort if named.0 >= self.paths.len() || port(named) != port(used) => {
                    job.record.remarks.push(Remark::OtherPortDescribed { answered: used, named });
                }
                Class::AnyRegistered | Class::Nexus => {
                    job.record.remarks.push(Remark::OtherNexusActed { done: used, named });
                }
                _ => {}
            }
        }
        if self.records.len() == RECORDS_MAX {
            self.records.pop_front();
        }
        self.records.push_back(job.record.clone());
        let outcome = CommandOutcome { id, conclusions, record: job.record };
        match job.request.origin {
            Origin::Caller => self.outcomes.push_back(outcome),
            Origin::Layer | Origin::Part => self.layer_outcomes.push_back(outcome),
        }
    }

    /// What all nexuses were to have, those that are down get when they return.
    fn want_keys(&mut self, job: &mut Job) {
        let Some(out) = reserve_out(&job.request.command) else { return };
        let registers =
            matches!(out.action, ReserveOutAction::Register | ReserveOutAction::RegisterAndIgnore);
        if !registers || job.legs.len() < 2 || !job.legs.iter().any(|leg| leg.conclusion.is_done()) {
            return;
        }
        let flags = match &out.list {
            storage_mapping::scsi::reservations::ParameterList::Basic { flags, .. } => *flags,
            storage_mapping::scsi::reservations::ParameterList::Move { .. } => return,
        };
        for leg in job.legs.iter().filter(|leg| !leg.conclusion.is_done()) {
            let Some(path) = leg.path else { continue };
            self.ledger.want_key(path, out.list.keys().1, flags);
            job.record.remarks.push(Remark::WhenItReturns(path));
        }
    }
}

/// Whether a command changes who is registered or reserves, by more than its own registration.
fn acts_on_reservation(command: &ControlCommand) -> bool {
    let registers =
        |action| matches!(action, ReserveOutAction::Register | ReserveOutAction::RegisterAndIgnore);
    reserve_out(command).is_some_and(|out| !registers(out.action))
}

/// Whether a command makes the target report this over another nexus, once it lands.
fn may_cause(command: &ControlCommand, event: Event, nexus: &NexusRecord) -> bool {
    let Some(out) = reserve_out(command).filter(|_| event.asc == 0x2a) else { return false };
    let preempts = matches!(out.action, ReserveOutAction::Preempt | ReserveOutAction::PreemptAndAbort);
    let victim = out.list.keys().1;
    let is_victim = victim == 0 || [nexus.key, nexus.wanted].contains(&Some(victim));
    match event.ascq {
        0x03 => out.action == ReserveOutAction::Clear,
        0x04 => preempts || matches!(out.action, ReserveOutAction::Clear | ReserveOutAction::Release),
        0x05 => preempts && is_victim,
        _ => false,
    }
}

/// Whether a command meets a pending unit attention (SAM-6 5.14: INQUIRY, REPORT LUNS and REQUEST SENSE do not).
fn reports_attentions(command: &ControlCommand) -> bool {
    match &command.bytes {
        CommandBytes::Scsi(cdb) => !matches!(cdb.opcode(), 0x03 | 0x12 | 0xa0),
        CommandBytes::Nvme(_) => false,
    }
}
