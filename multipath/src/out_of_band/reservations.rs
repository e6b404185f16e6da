//! Persistent reservations over all nexuses of a device: what a caller wants once, and what each nexus needs for it.
//!
//! | operation | what is done |
//! |---|---|
//! | register | REGISTER over every path that is up, each with a key of its own (base and index); where some succeed, those that conflict again as REGISTER AND IGNORE; paths that are down get their key when they return; keys are read |
//! | unregister | the keys of paths that are down are pre-empted from one that is up, and then each path that is up unregisters; what did not answer is pre-empted after all |
//! | reserve, pre-empt, clear | over one registered path after the other, until one answers; of a conflict the reservation is read: it may be our own; the keys of paths where the same may still land are pre-empted, and wanted again |
//! | release | over the path that holds it; where that one is down, a live path pre-empts our own key there, and then releases; where the holder is a nexus of before with the same key, the path pre-empts that key itself |
//!
//! Keeps true: a step is sent over exactly the path whose key it carries; what a path lost by our own pre-empting is wanted
//! again; once a reservation is as the caller wants it, nothing of ours that nobody waits for can change it (but over a
//! nexus that got its key anew before that landed); nothing is rolled back. Not here: sending (`router`), returning paths (`replay`).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use storage_mapping::control_port::{ControlCommand, ControlReply};
use storage_mapping::scsi::reservations::{
    KeyList, RegisterFlags, Reservation, ReservationReport, ReservationType, ReserveIn, ReserveInAction,
    ReserveOut, ReserveOutAction,
};
use storage_mapping::{Instant, PathIndex};

use super::ledger::{Ledger, NexusRecord};
use super::record::{Certainty, CommandOutcome, Conclusion};
use super::request::{CommandId, CommandRequest, Mode, Origin};
use super::router::Router;
use crate::path_state::PathSet;

/// How often what was left behind is pre-empted.
const REJOINS_MAX: u32 = 2;

/// What a caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationOperation {
    /// Removes every registration, of every host, and the reservation.
    Clear,
    /// Removes the registrations of a key, and takes over its reservation.
    Preempt {
        /// The key.
        victim: u64,
        /// The type of the reservation from then on.
        kind: ReservationType,
        /// Whether the commands of the victim are aborted too.
        aborts: bool,
    },
    /// Registers every path: path *n* gets the key `base` + *n*.
    Register {
        /// The first key; not 0.
        base: u64,
    },
    /// Releases the reservation.
    Release,
    /// Reserves.
    Reserve {
        /// The type.
        kind: ReservationType,
    },
    /// Takes all registrations of this host away.
    Unregister,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationResult {
    /// It is as the caller wants it, whether by this or before.
    Done,
    /// Another key holds the reservation, or our registration is lost.
    Conflict {
        /// The key that holds it, where that was read.
        holder: Option<u64>,
    },
    /// No path that could do it is up.
    NoPath,
    /// Nobody knows: what stands at the target has to be read.
    Unknown,
}

/// The end of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservationOutcome {
    /// Which operation.
    pub id: CommandId,
    /// How it ended.
    pub result: ReservationResult,
    /// What each step ended with, in order.
    pub steps: Vec<(PathIndex, Conclusion)>,
    /// Paths that are down, and get what they lack when they return.
    pub later: PathSet,
    /// What would let its commands out, where the kernel of this host did not.
    pub remedy: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Registering or unregistering over all paths that are up.
    Register { ignores: bool },
    /// Reading all keys.
    Check,
    /// Pre-empting keys of paths that are down.
    Preempt,
    /// Registering one path once more, to pre-empt from it what others left behind.
    Rejoin { by: PathIndex },
    /// One path after the other.
    Try,
    /// Pre-empting the keys of paths over which something may still land.
    Fence,
    /// Reading the reservation.
    Look,
    /// Taking our own reservation over from a path that is down, or a nexus that is gone.
    TakeOver { by: PathIndex },
}

#[derive(Clone, Debug)]
struct Running {
    operation: ReservationOperation,
    deadline: Instant,
    phase: Phase,
    pending: BTreeMap<CommandId, PathIndex>,
    /// Of this phase.
    ended: Vec<(PathIndex, Conclusion)>,
    tries: VecDeque<PathIndex>,
    up: PathSet,
    /// Keys that paths left behind which did not answer.
    victims: Vec<u64>,
    /// Keys that are being pre-empted over these paths, and are wanted there all the same.
    retaken: Vec<(PathIndex, u64)>,
    /// Keys that this host had when it began.
    had: Vec<u64>,
    rejoins: u32,
    outcome: ReservationOutcome,
}

/// All operations that go on.
#[derive(Clone, Debug, Default)]
pub struct Reservations {
    running: Vec<Running>,
    ended: VecDeque<ReservationOutcome>,
}

impl Reservations {
    /// Whether there is nothing to do and nothing to fetch.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.ended.is_empty()
    }

    /// Whether an end is there to fetch.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// The next operation that ended.
    pub fn poll(&mut self) -> Option<ReservationOutcome> {
        self.ended.pop_front()
    }

    /// Begins an operation; `up` are the paths that can carry commands now, of `all`.
    ///
    /// # Panics
    /// For a registration with the base 0, which is no key.
    pub fn start(
        &mut self,
        now: Instant,
        router: &mut Router,
        operation: ReservationOperation,
        (up, all): (PathSet, PathSet),
        patience: Duration,
    ) -> CommandId {
        assert!(operation != ReservationOperation::Register { base: 0 }, "0 is no key");
        let id = router.next_id();
        let (steps, later) = (Vec::new(), PathSet::EMPTY);
        let result = ReservationResult::Unknown;
        let mut run = Running {
            operation,
            deadline: now + patience,
            phase: Phase::Look,
            pending: BTreeMap::new(),
            ended: Vec::new(),
            tries: VecDeque::new(),
            up,
            victims: Vec::new(),
            retaken: Vec::new(),
            had: router.ledger().nexuses().filter_map(|(_, nexus)| nexus.key.or(nexus.wanted)).collect(),
            rejoins: 0,
            outcome: ReservationOutcome { id, result, steps, later, remedy: None },
        };
        let down = all.without(up);
        let end = match operation {
            ReservationOperation::Register { base } => {
                for path in down.iter() {
                    router.ledger_mut().want_key(path, base + path.0 as u64, RegisterFlags::empty());
                }
                run.outcome.later = down;
                run.register(now, router, up, false)
            }
            ReservationOperation::Unregister => run.preempt_down(now, router, down),
            ReservationOperation::Release => run.read(now, router, Phase::Look),
            ReservationOperation::Reserve { .. }
            | ReservationOperation::Preempt { .. }
            | ReservationOperation::Clear => {
                run.tries = up.iter().filter(|path| router.ledger().nexus(*path).key.is_some()).collect();
                run.try_next(now, router)
            }
        };
        self.go_on(run, end);
        id
    }

    fn go_on(&mut self, mut run: Running, end: Option<ReservationResult>) {
        match end {
            Some(result) => {
                run.outcome.result = result;
                self.ended.push_back(run.outcome);
            }
            None => self.running.push(run),
        }
    }

    /// A command of the layer ended. Says whether it was one of these.
    pub fn handle_outcome(&mut self, now: Instant, router: &mut Router, outcome: &CommandOutcome) -> bool {
        let is_its = |run: &Running| run.pending.contains_key(&outcome.id);
        let Some(at) = self.running.iter().position(is_its) else { return false };
        let mut run = self.running.swap_remove(at);
        let end = run.handle(now, router, outcome);
        self.go_on(run, end);
        true
    }
}

impl Running {
    fn send(&mut self, now: Instant, router: &mut Router, command: ControlCommand, path: Option<PathIndex>) {
        let mode = if path.is_some() { Mode::Exact } else { Mode::Prefer };
        let request = CommandRequest::new(command, path, self.deadline.since(now)).with_mode(mode);
        let id = router.submit(now, CommandRequest { origin: Origin::Part, ..request });
        self.pending.insert(id, path.unwrap_or(PathIndex(0)));
    }

    fn read(&mut self, now: Instant, router: &mut Router, phase: Phase) -> Option<ReservationResult> {
        let action =
            if phase == Phase::Look { ReserveInAction::ReadReservation } else { ReserveInAction::ReadKeys };
        self.phase = phase;
        self.send(now, router, ReserveIn { action, allocation: 4096 }.command(), None);
        None
    }

    /// The key that a path is to have from now on.
    fn wanted(&self, path: PathIndex) -> u64 {
        match self.operation {
            ReservationOperation::Register { base } => base + path.0 as u64,
            _ => 0,
        }
    }

    fn register(
        &mut self,
        now: Instant,
        router: &mut Router,
        paths: PathSet,
        ignores: bool,
    ) -> Option<ReservationResult> {
        self.phase = Phase::Register { ignores };
        if paths.is_empty() {
            return Some(ReservationResult::NoPath);
        }
        for path in paths.iter() {
            let known = router.ledger().nexus(path).key.unwrap_or(0);
            let (action, key) = if ignores {
                (ReserveOutAction::RegisterAndIgnore, 0)
            } else {
                (ReserveOutAction::Register, known)
            };
            let out = ReserveOut::new(action, ReservationType::NONE, key, self.wanted(path));
            self.send(now, router, out.command(), Some(path));
        }
        None
    }

    /// Registrations of paths that are down are taken away from here, lest they stay for ever.
    fn preempt_down(
        &mut self,
        now: Instant,
        router: &mut Router,
        down: PathSet,
    ) -> Option<ReservationResult> {
        let mut keys = Vec::new();
        for path in down.iter() {
            let nexus = router.ledger().nexus(path);
            keys.extend(nexus.key.or(nexus.wanted));
            router.ledger_mut().want_key(path, 0, RegisterFlags::empty());
        }
        let by = self.up.iter().find(|path| router.ledger().nexus(*path).key.is_some());
        match by {
            Some(by) if !keys.is_empty() => self.preempt(now, router, by, keys),
            _ => self.register(now, router, self.up, false),
        }
    }

    fn preempt(
        &mut self,
        now: Instant,
        router: &mut Router,
        by: PathIndex,
        victims: Vec<u64>,
    ) -> Option<ReservationResult> {
        self.phase = Phase::Preempt;
        let own = router.ledger().nexus(by).key.unwrap_or(0);
        let kind = router.ledger().reservation().0.map_or(ReservationType::WriteExclusive, |held| held.kind);
        for victim in victims {
            let out = ReserveOut::new(ReserveOutAction::Preempt, kind, own, victim);
            self.send(now, router, out.command(), Some(by));
        }
        None
    }

    fn try_next(&mut self, now: Instant, router: &mut Router) -> Option<ReservationResult> {
        let Some(path) = self.tries.pop_front() else {
            // The holder's path does not answer, or holds no more: it is as good as down.
            let looks_again = self.operation == ReservationOperation::Release && self.drop_last(now);
            return match self.operation {
                ReservationOperation::Reserve { .. } => self.read(now, router, Phase::Look),
                ReservationOperation::Release if looks_again => self.read(now, router, Phase::Look),
                _ if self.outcome.steps.is_empty() => Some(ReservationResult::NoPath),
                _ => Some(self.worst()),
            };
        };
        self.phase = Phase::Try;
        let own = router.ledger().nexus(path).key.unwrap_or(0);
        let (action, kind, victim) = match self.operation {
            ReservationOperation::Reserve { kind } => (ReserveOutAction::Reserve, kind, 0),
            ReservationOperation::Preempt { victim, kind, aborts: false } => {
                (ReserveOutAction::Preempt, kind, victim)
            }
            ReservationOperation::Preempt { victim, kind, aborts: true } => {
                (ReserveOutAction::PreemptAndAbort, kind, victim)
            }
            ReservationOperation::Release => {
                let held = router.ledger().reservation().0;
                (ReserveOutAction::Release, held.map_or(ReservationType::NONE, |held| held.kind), 0)
            }
            _ => (ReserveOutAction::Clear, ReservationType::NONE, 0),
        };
        self.send(now, router, ReserveOut::new(action, kind, own, victim).command(), Some(path));
        None
    }

    /// It was done over `by`; what was sent over other paths before is to find no registration there when it lands.
    fn fence_ghosts(
        &mut self,
        now: Instant,
        router: &mut Router,
        by: PathIndex,
    ) -> Option<ReservationResult> {
        let with_key = |path: PathIndex| Some((path, router.ledger().nexus(path).key?));
        let ghosts = router.ghost_paths().iter().filter(|path| *path != by);
        self.retaken = ghosts.filter_map(with_key).collect();
        if self.retaken.is_empty() || self.operation == ReservationOperation::Clear {
            return Some(ReservationResult::Done);
        }
        self.preempt(now, router, by, self.retaken.iter().map(|(_, key)| *key).collect());
        self.phase = Phase::Fence;
        None
    }

    /// What our own pre-empting took away is wanted again.
    fn want_retaken(&mut self, router: &mut Router) {
        for (path, key) in std::mem::take(&mut self.retaken) {
            router.ledger_mut().want_key(path, key, RegisterFlags::empty());
            self.outcome.later.insert(path);
        }
    }

    /// A path takes our own reservation over, by pre-empting the key that holds it.
    fn take_over(
        &mut self,
        now: Instant,
        router: &mut Router,
        by: PathIndex,
        held: Reservation,
    ) -> Option<ReservationResult> {
        let ledger = router.ledger();
        let has_it = |nexus: &NexusRecord| {
            [nexus.key, nexus.wanted.filter(|_| nexus.key.is_none())].contains(&Some(held.key))
        };
        let losers = ledger.nexuses().filter(|(path, nexus)| *path != by && has_it(nexus));
        self.retaken = losers.map(|(path, _)| (path, held.key)).collect();
        self.preempt(now, router, by, vec![held.key]);
        self.phase = Phase::TakeOver { by };
        None
    }

    /// The path of the last step is of no use. Says whether there is another, and time.
    fn drop_last(&mut self, now: Instant) -> bool {
        let Some((path, _)) = self.outcome.steps.last() else { return false };
        let was_up = self.up.contains(*path);
        self.up.remove(*path);
        was_up && !self.up.is_empty() && now < self.deadline
    }

    /// What the steps say together, where none did it.
    fn worst(&self) -> ReservationResult {
        let is = |certainty| move |(_, step): &(PathIndex, Conclusion)| step.certainty == certainty;
        if self.outcome.steps.iter().any(is(Certainty::Unknown)) {
            ReservationResult::Unknown
        } else if self.outcome.steps.iter().all(is(Certainty::NotExecuted)) {
            ReservationResult::NoPath
        } else {
            ReservationResult::Conflict { holder: None }
        }
    }

    fn handle(
        &mut self,
        now: Instant,
        router: &mut Router,
        outcome: &CommandOutcome,
    ) -> Option<ReservationResult> {
        let path = self.pending.remove(&outcome.id).expect("it was found by that");
        let remedy = &mut self.outcome.remedy;
        *remedy = remedy.take().or_else(|| outcome.record.remedy());
        if let Some(conclusion) = outcome.conclusions.first() {
            self.ended.push((conclusion.path.unwrap_or(path), conclusion.clone()));
        }
        if !self.pending.is_empty() {
            return None;
        }
        let ended = std::mem::take(&mut self.ended);
        self.outcome.steps.extend(ended.iter().cloned());
        let is_done = outcome.is_done();
        match self.phase {
            Phase::Register { ignores } => self.handle_registered(now, router, &ended, ignores),
            Phase::Preempt => self.register(now, router, self.up, false),
            Phase::Rejoin { by } => {
                let victims = std::mem::take(&mut self.victims);
                self.preempt(now, router, by, victims)
            }
            Phase::Check => self.handle_keys(now, router, outcome.reply()),
            Phase::Try if is_done => self.fence_ghosts(now, router, path),
            Phase::Fence => self.handle_fence(now, router, &ended),
            Phase::Try => {
                let is_without = ended.iter().any(|(_, step)| step.certainty == Certainty::NoEffect);
                match router.ledger().nexus(path).key {
                    // The holder is a nexus of before, with the same key.
                    Some(key) if is_without && self.rejoins < REJOINS_MAX => {
                        self.rejoins += 1;
                        let kind =
                            router.ledger().reservation().0.map_or(ReservationType::NONE, |held| held.kind);
                        self.take_over(now, router, path, Reservation { key, scope: 0, kind })
                    }
                    _ => self.try_next(now, router),
                }
            }
            Phase::Look if is_done => self.handle_look(now, router, outcome.reply()),
            Phase::Look => Some(ReservationResult::Unknown),
            Phase::TakeOver { by } => {
                if !is_done {
                    let looks_again = self.drop_last(now);
                    return if looks_again {
                        self.read(now, router, Phase::Look)
                    } else {
                        Some(self.worst())
                    };
                }
                self.want_retaken(router);
                self.tries = [by].into();
                self.try_next(now, router)
            }
        }
    }

    /// What may still land finds no registration any more; else another path sees to that.
    fn handle_fence(
        &mut self,
        now: Instant,
        router: &mut Router,
        ended: &[(PathIndex, Conclusion)],
    ) -> Option<ReservationResult> {
        // Refused: no such key is registered.
        let is_gone = |step: &Conclusion| matches!(step.certainty, Certainty::Executed | Certainty::Refused);
        let is_fenced = ended.iter().all(|(_, step)| is_gone(step));
        self.retaken.iter().filter(|_| is_fenced).for_each(|(path, _)| router.handle_fenced(*path));
        self.want_retaken(router);
        if !is_fenced && self.drop_last(now) {
            let by = self.up.iter().find(|path| router.ledger().is_registered(*path));
            return by.map_or(Some(ReservationResult::Unknown), |by| self.fence_ghosts(now, router, by));
        }
        Some(if is_fenced { ReservationResult::Done } else { ReservationResult::Unknown })
    }

    fn handle_registered(
        &mut self,
        now: Instant,
        router: &mut Router,
        ended: &[(PathIndex, Conclusion)],
        ignores: bool,
    ) -> Option<ReservationResult> {
        let all: PathSet = ended.iter().map(|(path, _)| *path).collect();
        let of = |certainty| -> PathSet {
            ended.iter().filter(|(_, step)| step.certainty == certainty).map(|(path, _)| *path).collect()
        };
        let refused = of(Certainty::Refused);
        // A registration that took nothing away leaves none, too.
        let is_good = |step: &Conclusion| matches!(step.reply, Some(ControlReply::Scsi { status: 0, .. }));
        let good = ended.iter().filter(|(_, step)| is_good(step)).map(|(path, _)| *path).collect();
        let done = of(Certainty::Executed).union(good);
        let has_some = !done.is_empty() || self.outcome.steps.iter().any(|(_, step)| step.is_done());
        if !refused.is_empty() && !ignores && (has_some || self.wanted(PathIndex(0)) == 0) {
            return self.register(now, router, refused, true);
        }
        if !has_some && self.wanted(PathIndex(0)) != 0 {
            return Some(self.worst());
        }
        // What did not answer is as good as down.
        self.up = self.up.without(all.without(done));
        for path in all.without(done).iter() {
            let left_behind = router.ledger().nexus(path).key.filter(|_| self.wanted(path) == 0);
            self.victims.extend(left_behind);
            router.ledger_mut().want_key(path, self.wanted(path), RegisterFlags::empty());
            self.outcome.later.insert(path);
        }
        if self.rejoin(now, router) {
            return None;
        }
        self.read(now, router, Phase::Check)
    }

    /// Registers one path once more, to pre-empt what was left behind. Says whether there is anything, and a path.
    fn rejoin(&mut self, now: Instant, router: &mut Router) -> bool {
        let (Some(victim), Some(by)) = (self.victims.first(), self.up.next_from(PathIndex(0))) else {
            return false;
        };
        if self.rejoins == REJOINS_MAX {
            return false;
        }
        self.rejoins += 1;
        self.phase = Phase::Rejoin { by };
        // Any key will do, but one that is to go.
        let kind = ReservationType::NONE;
        let out = ReserveOut::new(ReserveOutAction::RegisterAndIgnore, kind, 0, victim ^ 1 << 63);
        self.send(now, router, out.command(), Some(by));
        true
    }

    fn handle_keys(
        &mut self,
        now: Instant,
        router: &mut Router,
        reply: Option<&ControlReply>,
    ) -> Option<ReservationResult> {
        let Some(ControlReply::Scsi { data, .. }) = reply else { return Some(ReservationResult::Unknown) };
        let Some(list) = KeyList::parse(data).filter(|list| list.is_whole) else {
            return Some(ReservationResult::Unknown);
        };
        let registers = matches!(self.operation, ReservationOperation::Register { .. });
        let lacks = |path: PathIndex| list.keys.contains(&self.wanted(path)) != registers;
        let wrong = self.up.without(self.outcome.later).iter().any(|path| registers && lacks(path));
        if !registers {
            // Registrations of nexuses that are gone have the same keys.
            self.victims = self.had.iter().copied().filter(|key| list.keys.contains(key)).collect();
            if self.rejoin(now, router) {
                return None;
            }
        }
        let is_wrong = wrong || !self.victims.is_empty();
        Some(if is_wrong { ReservationResult::Unknown } else { ReservationResult::Done })
    }

    /// The path of ours that holds the reservation, or one of them where every registrant does.
    fn holder(&self, ledger: &Ledger, held: Reservation) -> Option<PathIndex> {
        if held.kind.is_all_registrants() {
            return self.up.iter().find(|path| ledger.nexus(*path).key.is_some());
        }
        let key = |nexus: &NexusRecord| nexus.key.or(nexus.wanted);
        ledger.nexuses().find(|(_, nexus)| key(nexus) == Some(held.key)).map(|(path, _)| path)
    }

    /// The reservation was read.
    fn handle_look(
        &mut self,
        now: Instant,
        router: &mut Router,
        reply: Option<&ControlReply>,
    ) -> Option<ReservationResult> {
        let Some(ControlReply::Scsi { data, .. }) = reply else { return Some(ReservationResult::Unknown) };
        let Some(report) = ReservationReport::parse(data).filter(|report| report.is_whole) else {
            return Some(ReservationResult::Unknown);
        };
        let Some(held) = report.reservation else {
            return Some(match self.operation {
                ReservationOperation::Release => ReservationResult::Done,
                _ if self.outcome.steps.len() <= 1 => ReservationResult::NoPath,
                _ => self.worst(),
            });
        };
        let holder = self.holder(router.ledger(), held);
        match (self.operation, holder) {
            (ReservationOperation::Reserve { kind }, Some(_)) if held.kind == kind => {
                Some(ReservationResult::Done)
            }
            (ReservationOperation::Release, Some(path)) if self.up.contains(path) => {
                self.tries = [path].into();
                self.try_next(now, router)
            }
            (ReservationOperation::Release, Some(_)) => {
                let ledger = router.ledger();
                let has_key = |path: &PathIndex| ledger.nexus(*path).key.is_some();
                let certain = self.up.iter().find(|path| ledger.is_registered(*path));
                let by = certain.or_else(|| self.up.iter().find(has_key));
                let Some(by) = by else { return Some(ReservationResult::NoPath) };
                self.take_over(now, router, by, held)
            }
            _ => Some(ReservationResult::Conflict { holder: Some(held.key) }),
        }
    }
}
