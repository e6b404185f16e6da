//! What the target keeps for each nexus, as far as it is known: the book by which a status is judged.
//!
//! | certainty | what is true in it |
//! |---|---|
//! | Known | an answer said so, and nothing happened since that could have changed it |
//! | Stale | it was so; a reset, a loss of the nexus, a conflict or another host may have changed it |
//! | Unknown | nobody has asked |
//!
//! Keeps true: what a command of our own did is noted at its completion; keys that were set over our nexuses are *wanted*
//! until they are taken away over one of them, and a path without its wanted key carries no I/O; once another host has
//! taken our keys away, none are set again until a caller registers: the device is *fenced*. Not here: sending what a
//! returning path lacks (`replay`).

use std::collections::BTreeMap;

use storage_mapping::control_port::{CommandBytes, ControlCommand, ControlReply, Transfer};
use storage_mapping::scsi::reservations::{
    KeyList, ParameterList, RegisterFlags, Reservation, ReservationReport, ReserveIn, ReserveInAction,
    ReserveOut, ReserveOutAction,
};
use storage_mapping::{Instant, PathIndex};

use super::command_table::{Class, Row};
use super::reading::{Event, Reading};
use super::record::Certainty;
use super::verify::reserve_out;
use crate::path_state::PathSet;

/// How far a fact can be relied on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Knowledge {
    /// An answer said so.
    Known,
    /// It may have changed since then.
    Stale {
        /// Since when.
        since: Instant,
    },
    /// Nobody has asked.
    #[default]
    Unknown,
}

impl Knowledge {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Stale { .. } => "stale",
            Self::Unknown => "unknown",
        }
    }
}

/// One nexus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NexusRecord {
    /// The key that is registered.
    pub key: Option<u64>,
    /// How far that can be relied on.
    pub knowledge: Knowledge,
    /// The key that is to be registered, by a caller's wish.
    pub wanted: Option<u64>,
    /// With which flags.
    pub flags: RegisterFlags,
    /// MODE SELECT commands of pages that are kept by nexus or port, by page.
    pub mode_pages: BTreeMap<u8, ControlCommand>,
    /// PREVENT ALLOW MEDIUM REMOVAL that prevents it.
    pub prevents: Option<ControlCommand>,
    /// The nexus is a new one, or was reset: it lacks what it had.
    pub is_bare: bool,
    /// Logins, as its port counts them.
    pub generation: u64,
}

/// All nexuses of this host to one unit.
#[derive(Clone, Debug)]
pub struct Ledger {
    nexuses: Vec<NexusRecord>,
    reservation: Option<Reservation>,
    reservation_knowledge: Knowledge,
    holder: Option<PathIndex>,
    is_fenced: bool,
}

impl Ledger {
    /// A unit of so many paths, of which nothing is known.
    #[must_use]
    pub fn new(paths: usize) -> Self {
        Self {
            nexuses: vec![NexusRecord::default(); paths],
            reservation: None,
            reservation_knowledge: Knowledge::Unknown,
            holder: None,
            is_fenced: false,
        }
    }

    /// One nexus.
    #[must_use]
    pub fn nexus(&self, path: PathIndex) -> &NexusRecord {
        &self.nexuses[path.0]
    }

    /// Every nexus, by path.
    pub fn nexuses(&self) -> impl Iterator<Item = (PathIndex, &NexusRecord)> {
        self.nexuses.iter().enumerate().map(|(index, nexus)| (PathIndex(index), nexus))
    }

    /// The reservation, and how far that can be relied on.
    #[must_use]
    pub fn reservation(&self) -> (Option<Reservation>, Knowledge) {
        (self.reservation, self.reservation_knowledge)
    }

    /// Whether the nexus is known to be registered.
    #[must_use]
    pub fn is_registered(&self, path: PathIndex) -> bool {
        let nexus = self.nexus(path);
        nexus.key.is_some() && nexus.knowledge == Knowledge::Known
    }

    /// The one nexus of ours that is known to hold the reservation.
    #[must_use]
    pub fn holder(&self) -> Option<PathIndex> {
        self.holder.filter(|_| self.reservation_knowledge == Knowledge::Known)
    }

    /// Another host has taken our keys away: I/O fails with RESERVATION CONFLICT.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.is_fenced
    }

    /// Paths that lack what they had, and carry no I/O before they have it again.
    #[must_use]
    pub fn bare(&self) -> PathSet {
        self.nexuses().filter(|(_, nexus)| nexus.is_bare && nexus.has_state()).map(|(path, _)| path).collect()
    }

    /// How many other nexuses of ours have this key: certainly, and perhaps.
    #[must_use]
    pub fn others_with(&self, path: PathIndex, key: u64) -> (usize, usize) {
        let has = |(other, nexus): &(PathIndex, &NexusRecord)| *other != path && nexus.key == Some(key);
        let certain = self.nexuses().filter(has).filter(|(other, _)| self.is_registered(*other)).count();
        let known = self.nexuses().filter(has).count();
        // Some targets keep the registration of each login that is over.
        let earlier = self.nexus(path).generation.saturating_sub(1);
        (certain, known.saturating_add(usize::try_from(earlier).unwrap_or(usize::MAX)))
    }

    /// A command ended over a path.
    pub fn handle_end(
        &mut self,
        now: Instant,
        path: PathIndex,
        (command, row): (&ControlCommand, &Row),
        reading: &Reading,
        reply: Option<&ControlReply>,
    ) {
        if let Some(out) = reserve_out(command) {
            match reading.certainty {
                Certainty::Executed => self.handle_reserve_out(path, &out),
                Certainty::Unknown => self.doubt(now, path),
                Certainty::NoEffect | Certainty::NotExecuted | Certainty::Refused => {}
            }
        }
        if reading.certainty != Certainty::Executed {
            return;
        }
        if let (CommandBytes::Scsi(cdb), Some(ControlReply::Scsi { data, .. })) = (&command.bytes, reply) {
            match ReserveIn::parse(cdb).map(|asked| asked.action) {
                Some(ReserveInAction::ReadKeys) => self.handle_keys(data),
                Some(ReserveInAction::ReadReservation) => self.handle_reservation(data),
                _ => {}
            }
        }
        self.note_state(path, command, row);
    }

    /// A command that nobody waited for any more ended after all: what it did is there, and is not what is wanted by now,
    /// over whichever nexus. What was done since then it may have changed, or not.
    pub fn handle_late_end(
        &mut self,
        now: Instant,
        path: PathIndex,
        command: (&ControlCommand, &Row),
        reading: &Reading,
        reply: Option<&ControlReply>,
    ) {
        let wanted: Vec<_> = self.nexuses.iter().map(|nexus| nexus.wanted).collect();
        let is_fenced = self.is_fenced;
        self.handle_end(now, path, command, reading, reply);
        self.doubt(now, path);
        self.is_fenced |= is_fenced;
        for (nexus, wanted) in self.nexuses.iter_mut().zip(wanted) {
            nexus.wanted = wanted;
            nexus.is_bare |= nexus.key != wanted;
        }
    }

    /// A conflict, or a command whose outcome nobody knows.
    pub fn doubt(&mut self, now: Instant, path: PathIndex) {
        let stale = |knowledge: &mut Knowledge| {
            if *knowledge == Knowledge::Known {
                *knowledge = Knowledge::Stale { since: now };
            }
        };
        stale(&mut self.nexuses[path.0].knowledge);
        stale(&mut self.reservation_knowledge);
    }

    /// A command of which no answer came was found to be done.
    pub fn handle_found(&mut self, path: PathIndex, command: &ControlCommand) {
        if let Some(out) = reserve_out(command) {
            self.handle_reserve_out(path, &out);
        }
    }

    fn handle_reserve_out(&mut self, path: PathIndex, out: &ReserveOut) {
        let (key, action_key) = out.list.keys();
        match out.action {
            ReserveOutAction::Register | ReserveOutAction::RegisterAndIgnore => {
                let flags = match &out.list {
                    ParameterList::Basic { flags, .. } => *flags,
                    ParameterList::Move { .. } => RegisterFlags::empty(),
                };
                self.set_registered(path, action_key, flags);
            }
            ReserveOutAction::Reserve => {
                self.set_reservation(Some(Reservation { key, scope: out.scope, kind: out.kind }), Some(path));
            }
            ReserveOutAction::Release => {
                // Over another nexus it is GOOD and without effect.
                let may_hold = self.holder.is_none_or(|holder| holder == path);
                if may_hold && self.reservation.is_some() {
                    self.set_reservation(None, None);
                }
            }
            ReserveOutAction::Clear => {
                for nexus in &mut self.nexuses {
                    (nexus.key, nexus.wanted, nexus.knowledge) = (None, None, Knowledge::Known);
                }
                self.set_reservation(None, None);
            }
            ReserveOutAction::Preempt | ReserveOutAction::PreemptAndAbort => {
                self.handle_preempt(path, out, (key, action_key));
            }
            ReserveOutAction::RegisterAndMove | ReserveOutAction::ReplaceLost => {
                self.reservation_knowledge = Knowledge::Unknown;
            }
        }
    }

    fn set_registered(&mut self, path: PathIndex, key: u64, flags: RegisterFlags) {
        let is_set = key != 0;
        let all = flags.contains(RegisterFlags::ALL_TARGET_PORTS);
        for (index, nexus) in self.nexuses.iter_mut().enumerate() {
            if index == path.0 || all {
                nexus.key = is_set.then_some(key);
                nexus.wanted = nexus.key;
                nexus.knowledge = Knowledge::Known;
                nexus.flags = flags;
            }
        }
        if is_set {
            // Who registers has seen what there is.
            self.is_fenced = false;
        } else if self.holder == Some(path) {
            self.set_reservation(None, None);
        }
    }

    fn set_reservation(&mut self, reservation: Option<Reservation>, holder: Option<PathIndex>) {
        self.reservation = reservation;
        self.reservation_knowledge = Knowledge::Known;
        self.holder = holder.filter(|_| reservation.is_some_and(|held| !held.kind.is_all_registrants()));
    }

    fn handle_preempt(&mut self, path: PathIndex, out: &ReserveOut, (key, victim): (u64, u64)) {
        let all = victim == 0;
        for (index, nexus) in self.nexuses.iter_mut().enumerate() {
            if index != path.0 && (all || nexus.key == Some(victim)) {
                // What a caller pre-empts he no longer wants there.
                (nexus.key, nexus.wanted, nexus.knowledge) = (None, None, Knowledge::Known);
            }
        }
        let takes_over = match self.reservation {
            Some(held) => all || held.key == victim || held.kind.is_all_registrants(),
            None => false,
        };
        if self.reservation_knowledge != Knowledge::Known {
            self.reservation_knowledge = Knowledge::Unknown;
        } else if takes_over {
            self.set_reservation(Some(Reservation { key, scope: out.scope, kind: out.kind }), Some(path));
        }
    }

    /// All keys that are registered were read.
    fn handle_keys(&mut self, data: &[u8]) {
        let Some(list) = KeyList::parse(data).filter(|list| list.is_whole) else { return };
        let own: Vec<u64> = self.nexuses.iter().filter_map(|nexus| nexus.key).collect();
        let is_shared = |key: &u64| own.iter().filter(|other| *other == key).count() > 1;
        let shared: Vec<u64> = own.iter().copied().filter(is_shared).collect();
        let mut has_wanted = false;
        let mut has_any = false;
        for nexus in &mut self.nexuses {
            match nexus.key {
                Some(key) if !list.keys.contains(&key) => {
                    (nexus.key, nexus.knowledge) = (None, Knowledge::Known);
                    nexus.is_bare |= nexus.wanted.is_some();
                }
                // Of a nexus that stands since it registered; of another one it may be the key of the nexus of before.
                Some(key) if !nexus.is_bare && !shared.contains(&key) => nexus.knowledge = Knowledge::Known,
                Some(_) | None => {}
            }
            has_wanted |= nexus.wanted.is_some();
            has_any |= nexus.wanted.is_some_and(|key| list.keys.contains(&key));
        }
        if has_wanted && !has_any {
            self.is_fenced = true;
        }
    }

    fn handle_reservation(&mut self, data: &[u8]) {
        let Some(report) = ReservationReport::parse(data).filter(|report| report.is_whole) else { return };
        let key = report.reservation.map(|held| held.key);
        let is_own = |nexus: &NexusRecord| nexus.key.is_some() && nexus.key == key;
        let own: PathSet = self.nexuses().filter(|(_, nexus)| is_own(nexus)).map(|(path, _)| path).collect();
        // With one key on several nexuses the key does not tell which of them holds.
        let holder = if own.len() > 1 { self.holder() } else { own.next_from(PathIndex(0)) };
        self.set_reservation(report.reservation, holder);
    }

    /// Keeps what the target keeps by nexus, to put it back.
    fn note_state(&mut self, path: PathIndex, command: &ControlCommand, row: &Row) {
        let CommandBytes::Scsi(cdb) = &command.bytes else { return };
        let nexus = &mut self.nexuses[path.0];
        match (cdb.opcode(), &command.transfer) {
            (0x15 | 0x55, Transfer::Out(list)) if row.class == Class::AllNexuses => {
                if let Some(page) = super::command_table::mode_page(cdb.opcode(), list) {
                    nexus.mode_pages.insert(page, command.clone());
                }
            }
            (0x1e, _) => nexus.prevents = (cdb.bytes()[4] & 0x03 != 0).then(|| command.clone()),
            _ => {}
        }
    }

    /// A unit attention was met; `is_own`: our own command has caused it.
    pub fn handle_attention(&mut self, now: Instant, path: PathIndex, event: Event, is_own: bool) {
        match (event.asc, event.ascq) {
            (0x29, _) => self.handle_loss(now, path),
            // Cleared or pre-empted: the registration of this nexus is gone.
            (0x2a, 0x03 | 0x05) => {
                let nexus = &mut self.nexuses[path.0];
                if !is_own {
                    (nexus.key, nexus.knowledge) = (None, Knowledge::Known);
                    self.is_fenced |= nexus.wanted.is_some();
                    self.reservation_knowledge = Knowledge::Unknown;
                } else if nexus.wanted.is_some() {
                    // A command of ours that landed late, or a key that is wanted again since then: keys are read.
                    nexus.is_bare = true;
                }
            }
            (0x2a, 0x04) if !is_own => self.reservation_knowledge = Knowledge::Unknown,
            _ => {}
        }
    }

    /// What the target kept for the nexus may be gone: a reset, a loss of the nexus.
    pub fn handle_loss(&mut self, now: Instant, path: PathIndex) {
        self.doubt(now, path);
        let nexus = &mut self.nexuses[path.0];
        nexus.is_bare = nexus.has_state();
    }

    /// A nexus stands.
    pub fn handle_login(&mut self, now: Instant, path: PathIndex, generation: u64) {
        let known = std::mem::replace(&mut self.nexuses[path.0].generation, generation);
        if known != 0 && known != generation {
            self.handle_loss(now, path);
        }
    }

    /// A path that was down while all others got a key is to get it when it returns.
    pub fn want_key(&mut self, path: PathIndex, key: u64, flags: RegisterFlags) {
        let nexus = &mut self.nexuses[path.0];
        nexus.wanted = (key != 0).then_some(key);
        nexus.flags = flags;
        nexus.is_bare = true;
    }

    /// The key of a path is about to be taken away, by a caller's wish.
    pub fn want_no_key(&mut self, path: PathIndex) {
        self.nexuses[path.0].wanted = None;
    }

    /// A path has what it lacked.
    pub fn handle_replayed(&mut self, path: PathIndex) {
        let nexus = &mut self.nexuses[path.0];
        // Its key may have been taken away in the meantime.
        nexus.is_bare = nexus.wanted.is_some() && nexus.key != nexus.wanted;
    }
}

impl NexusRecord {
    /// Whether there is anything to put back.
    #[must_use]
    pub fn has_state(&self) -> bool {
        self.wanted.is_some() || self.key.is_some() || !self.mode_pages.is_empty() || self.prevents.is_some()
    }
}

#[cfg(test)]
mod tests {
    use storage_mapping::scsi::reservations::ReservationType;
    use storage_mapping::{CopyFate, Effect};

    use super::*;
    use crate::out_of_band::command_table::UNKNOWN;

    const A: PathIndex = PathIndex(0);
    const B: PathIndex = PathIndex(1);

    fn good(ledger: &mut Ledger, path: PathIndex, out: &ReserveOut, is_late: bool) {
        let (outcome, certainty) = (Ok(()), Certainty::Executed);
        let (classified, attention) = (None, None);
        let (effect, copy) = (Effect::Full, CopyFate::Dead);
        let reading = Reading { outcome, classified, certainty, effect, copy, attention };
        let command = out.command();
        let end = if is_late { Ledger::handle_late_end } else { Ledger::handle_end };
        end(ledger, Instant::ZERO, path, (&command, &UNKNOWN), &reading, None);
    }

    fn registered() -> Ledger {
        let mut ledger = Ledger::new(2);
        for (path, key) in [(A, 1), (B, 2)] {
            let register = ReserveOut::new(ReserveOutAction::Register, ReservationType::NONE, 0, key);
            good(&mut ledger, path, &register, false);
        }
        ledger
    }

    #[test]
    fn a_pre_emption_that_ends_late_takes_the_key_and_not_the_wish_for_it() {
        let preempt = ReserveOut::new(ReserveOutAction::Preempt, ReservationType::WriteExclusive, 2, 1);
        let mut ledger = registered();
        good(&mut ledger, B, &preempt, true);
        assert_eq!((ledger.nexus(A).key, ledger.nexus(A).wanted), (None, Some(1)));
        assert!(ledger.bare().contains(A), "it is put back before I/O goes on");
        // In time, it is what the caller wants.
        let mut ledger = registered();
        good(&mut ledger, B, &preempt, false);
        assert_eq!((ledger.nexus(A).key, ledger.nexus(A).wanted), (None, None));
    }

    #[test]
    fn a_registration_that_ends_late_lifts_no_fence() {
        let mut ledger = registered();
        let preempted = Event { asc: 0x2a, ascq: 0x05 };
        ledger.handle_attention(Instant::ZERO, A, preempted, false);
        assert!(ledger.is_fenced());
        let register = ReserveOut::new(ReserveOutAction::Register, ReservationType::NONE, 0, 1);
        good(&mut ledger, A, &register, true);
        assert!(ledger.is_fenced());
    }
}
