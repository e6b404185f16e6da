//! The persistent reservations of one logical unit (SPC-5 5.14): who is registered, who holds, who may do what.
//!
//! ```text
//!                 REGISTER (key ≠ 0)                     RESERVE, PREEMPT
//!  no registration ───────────────▶ registered ─────────────────────────▶ held
//!         ▲     REGISTER (key = 0), CLEAR,  │  ◀──────────────────────────  │
//!         └──── PREEMPT of its key ─────────┘   RELEASE, holder unregisters,
//!                                               CLEAR, PREEMPT, MOVE
//! ```
//!
//! Keeps true:
//!
//! * a reservation has a holder that is registered, or (all registrants) at least one registrant;
//! * what ends in [`Verdict::Conflict`] or in an error changes nothing;
//! * the generation counts what SPC-5 lets it count: REGISTER, MOVE, CLEAR and PREEMPT, not RESERVE and RELEASE.
//!
//! Not here: the bytes of the commands, which commands a reservation lets through (`access`), the delivery of attentions.

use std::collections::BTreeMap;

use super::attention::Attention;
use crate::scsi::reservations::ReservationType;

/// What a registration belongs to: an initiator port at a target port, and where logins count, one login of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Registrant {
    pub(super) initiator: String,
    /// Relative target port identifier.
    pub(super) port: u16,
    /// Which login; 0 where registrations outlive logins.
    pub(super) login: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Registration {
    pub(super) key: u64,
    pub(super) is_for_all_ports: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reservation {
    pub(super) kind: ReservationType,
    /// `None` where all registrants hold it.
    pub(super) holder: Option<Registrant>,
}

/// What a PERSISTENT RESERVE OUT command asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action<'a> {
    Register {
        ignores_key: bool,
        persists: bool,
        /// ALL_TG_PT: every nexus of the initiator.
        all_ports: Option<&'a [Registrant]>,
    },
    Reserve(ReservationType),
    Release(ReservationType),
    Clear,
    Preempt {
        kind: Option<ReservationType>,
        aborts: bool,
    },
    Move {
        to: &'a Registrant,
        unregisters: bool,
        persists: bool,
    },
}

/// A command with its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    pub(super) action: Action<'a>,
    pub(super) key: u64,
    pub(super) action_key: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// GOOD; whether anything changed.
    Good { changed: bool },
    /// RESERVATION CONFLICT.
    Conflict,
    /// 5/26/00: the service action reservation key.
    WrongActionKey,
    /// 5/24/00: the type.
    WrongType,
    /// 5/26/04.
    WrongRelease,
    /// 5/26/00: it cannot be moved to where it is.
    WrongDestination,
}

const DONE: Verdict = Verdict::Good { changed: true };
const NOTHING_TO_DO: Verdict = Verdict::Good { changed: false };

/// What a command does to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    pub(super) attentions: Vec<(Registrant, Attention)>,
    /// Whose commands are aborted.
    pub(super) aborted: Vec<Registrant>,
}

/// Registrations and the reservation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reservations {
    pub(super) generation: u32,
    /// "Activate persist through power loss", as last registered.
    pub(super) persists: bool,
    pub(super) registrations: BTreeMap<Registrant, Registration>,
    pub(super) reservation: Option<Reservation>,
}

impl Reservations {
    pub(super) fn key_of(&self, who: &Registrant) -> Option<u64> {
        self.registrations.get(who).map(|registration| registration.key)
    }

    pub(super) fn is_holder(&self, who: &Registrant) -> bool {
        self.reservation.as_ref().is_some_and(|reservation| match &reservation.holder {
            Some(holder) => holder == who,
            None => self.registrations.contains_key(who),
        })
    }

    /// The key that READ RESERVATION names: 0 where all registrants hold it.
    pub(super) fn holder_key(&self) -> u64 {
        let holder = self.reservation.as_ref().and_then(|reservation| reservation.holder.as_ref());
        holder.and_then(|holder| self.key_of(holder)).unwrap_or(0)
    }

    /// Does what a command of `from` asks for.
    pub(super) fn handle(&mut self, from: &Registrant, request: &Request<'_>, news: &mut News) -> Verdict {
        let Request { action, key, action_key } = *request;
        if let Action::Register { ignores_key, persists, all_ports } = action {
            let expected = if ignores_key { key } else { self.key_of(from).unwrap_or(0) };
            if expected != key {
                return Verdict::Conflict;
            }
            return self.register(from, action_key, persists, all_ports, news);
        }
        if self.key_of(from) != Some(key) {
            return Verdict::Conflict;
        }
        match action {
            Action::Register { .. } => NOTHING_TO_DO,
            Action::Reserve(kind) => self.reserve(from, kind),
            Action::Release(kind) => self.release(from, kind, news),
            Action::Clear => self.clear(from, news),
            Action::Preempt { kind, aborts } => self.preempt(from, kind, action_key, aborts, news),
            Action::Move { to, unregisters, persists } => {
                self.move_to(from, to, action_key, unregisters, persists)
            }
        }
    }

    fn count(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    fn register(
        &mut self,
        from: &Registrant,
        key: u64,
        persists: bool,
        all_ports: Option<&[Registrant]>,
        news: &mut News,
    ) -> Verdict {
        let is_for_all_ports = all_ports.is_some();
        let alone = std::slice::from_ref(from);
        let concerned = all_ports.unwrap_or(alone);
        if key == 0 && !concerned.iter().any(|who| self.registrations.contains_key(who)) {
            return NOTHING_TO_DO;
        }
        self.persists = persists;
        self.count();
        for who in concerned {
            if key == 0 {
                self.registrations.remove(who);
            } else {
                self.registrations.insert(who.clone(), Registration { key, is_for_all_ports });
            }
        }
        self.end_reservation_without_holder(from, news);
        DONE
    }

    /// Where a command of `from` took the holder's registration away, its reservation goes with it; those that are
    /// registered still hear of it.
    fn end_reservation_without_holder(&mut self, from: &Registrant, news: &mut News) {
        let Some(Reservation { kind, holder }) = &self.reservation else { return };
        let is_held = match holder {
            Some(holder) => self.registrations.contains_key(holder),
            None => !self.registrations.is_empty(),
        };
        if is_held {
            return;
        }
        let kind = *kind;
        self.reservation = None;
        if kind.is_for_registrants() {
            self.tell_others(from, Attention::RESERVATIONS_RELEASED, news);
        }
    }

    fn tell_others(&self, from: &Registrant, attention: Attention, news: &mut News) {
        let others = self.registrations.keys().filter(|who| *who != from);
        news.attentions.extend(others.map(|who| (who.clone(), attention)));
    }

    fn reserve(&mut self, from: &Registrant, kind: ReservationType) -> Verdict {
        match &self.reservation {
            Some(held) if self.is_holder(from) && held.kind == kind => NOTHING_TO_DO,
            Some(_) => Verdict::Conflict,
            None => {
                self.establish(from, kind);
                DONE
            }
        }
    }

    fn establish(&mut self, holder: &Registrant, kind: ReservationType) {
        let holder = (!kind.is_all_registrants()).then(|| holder.clone());
        self.reservation = Some(Reservation { kind, holder });
    }

    fn release(&mut self, from: &Registrant, kind: ReservationType, news: &mut News) -> Verdict {
        if !self.is_holder(from) {
            return NOTHING_TO_DO;
        }
        if self.reservation.as_ref().is_some_and(|held| held.kind != kind) {
            return Verdict::WrongRelease;
        }
        self.reservation = None;
        if kind.is_for_registrants() {
            self.tell_others(from, Attention::RESERVATIONS_RELEASED, news);
        }
        DONE
    }

    fn clear(&mut self, from: &Registrant, news: &mut News) -> Verdict {
        self.tell_others(from, Attention::RESERVATIONS_PREEMPTED, news);
        self.registrations.clear();
        self.reservation = None;
        self.count();
        DONE
    }

    fn preempt(
        &mut self,
        from: &Registrant,
        kind: Option<ReservationType>,
        victim: u64,
        aborts: bool,
        news: &mut News,
    ) -> Verdict {
        let is_of_all = self.reservation.as_ref().is_some_and(|held| held.holder.is_none());
        let takes_reservation = match &self.reservation {
            Some(_) if is_of_all => victim == 0,
            Some(_) => victim == self.holder_key(),
            None => false,
        };
        if victim == 0 && !is_of_all {
            return Verdict::WrongActionKey;
        }
        let is_victim =
            |registration: &Registration| takes_reservation && victim == 0 || registration.key == victim;
        let mut removed: Vec<Registrant> = self
            .registrations
            .iter()
            .filter(|(_, registration)| is_victim(registration))
            .map(|(who, _)| who.clone())
            .collect();
        if takes_reservation {
            let Some(kind) = kind else { return Verdict::WrongType };
            // The one that takes over stays registered, though its own key is named.
            removed.retain(|who| who != from);
            self.remove(from, &removed, aborts, news);
            let before = self.reservation.as_ref().map(|held| held.kind);
            self.establish(from, kind);
            if before != Some(kind) {
                self.tell_others(from, Attention::RESERVATIONS_RELEASED, news);
            }
        } else {
            if removed.is_empty() {
                return Verdict::Conflict;
            }
            self.remove(from, &removed, aborts, news);
            self.end_reservation_without_holder(from, news);
        }
        self.count();
        DONE
    }

    fn remove(&mut self, from: &Registrant, removed: &[Registrant], aborts: bool, news: &mut News) {
        for who in removed {
            self.registrations.remove(who);
            if who != from {
                news.attentions.push((who.clone(), Attention::REGISTRATIONS_PREEMPTED));
            }
        }
        if aborts {
            news.aborted.extend(removed.iter().filter(|who| *who != from).cloned());
        }
    }

    fn move_to(
        &mut self,
        from: &Registrant,
        to: &Registrant,
        key: u64,
        unregisters: bool,
        persists: bool,
    ) -> Verdict {
        let held = self.reservation.as_ref().filter(|held| held.holder.as_ref() == Some(from));
        let Some(kind) = held.map(|held| held.kind) else { return Verdict::Conflict };
        if key == 0 {
            return Verdict::WrongActionKey;
        }
        if to == from {
            return Verdict::WrongDestination;
        }
        self.registrations.insert(to.clone(), Registration { key, is_for_all_ports: false });
        self.establish(to, kind);
        if unregisters {
            self.registrations.remove(from);
        }
        self.persists = persists;
        self.count();
        DONE
    }
}
