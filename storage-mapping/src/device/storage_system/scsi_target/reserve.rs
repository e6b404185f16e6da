//! PERSISTENT RESERVE IN and OUT, RESERVE and RELEASE: from bytes to [`Reservations`] and back.
//!
//! Keeps true: a command whose bytes are wrong changes nothing. Not here: the rules (`reservations`).

use super::answer::Answer;
use super::reservations::{Action, News, Registrant, Request, Verdict};
use super::unit::{Call, Done, LogicalUnit, relative_port};
use crate::control_port::Cdb;
use crate::scsi::reservations::{
    Capabilities, FullStatus, KeyList, ParameterList, RegisterFlags, Registrant as Descriptor, Reservation,
    ReservationReport, ReservationType, ReserveIn, ReserveInAction, ReserveOut, ReserveOutAction,
    ReserveOutError,
};
use crate::scsi::transport_id::TransportId;

/// The first byte of the service action reservation key.
const ACTION_KEY: u16 = 8;
/// The byte of the flags.
const FLAGS: u16 = 20;
/// The first byte of the TransportIDs.
const INITIATOR: u16 = 24;

impl LogicalUnit {
    pub(super) fn reserve(&mut self, nexus: usize) -> Done {
        Done::good(self.reserved_by.replace(nexus).is_none())
    }

    pub(super) fn release(&mut self, nexus: usize) -> Done {
        let holds = self.reserved_by == Some(nexus);
        if holds {
            self.reserved_by = None;
        }
        Done::good(holds)
    }

    pub(super) fn persistent_in(&self, call: &Call<'_>) -> Answer {
        let Some(ReserveIn { action, allocation }) =
            Cdb::new(call.cdb).ok().and_then(|cdb| ReserveIn::parse(&cdb))
        else {
            return Answer::wrong_field(1);
        };
        let held = &self.reservations;
        let (generation, is_whole) = (held.generation, true);
        let mut data = match action {
            ReserveInAction::ReadKeys => {
                let keys = held.registrations.values().map(|registration| registration.key).collect();
                KeyList { generation, keys, is_whole }.emit()
            }
            ReserveInAction::ReadReservation => {
                let key = held.holder_key();
                let reservation = held.reservation.as_ref();
                let reservation = reservation.map(|held| Reservation { key, scope: 0, kind: held.kind });
                ReservationReport { generation, reservation, is_whole }.emit()
            }
            ReserveInAction::ReportCapabilities => capabilities(held.persists).emit(),
            ReserveInAction::ReadFullStatus => {
                let registrants = held.registrations.keys().map(|who| self.descriptor(who)).collect();
                FullStatus { generation, registrants, is_whole }.emit()
            }
        };
        data.truncate(allocation.into());
        Answer::data(data)
    }

    fn descriptor(&self, who: &Registrant) -> Descriptor {
        let registration = self.reservations.registrations.get(who);
        let is_holder = self.reservations.is_holder(who);
        let kind = self.reservations.reservation.as_ref().map(|held| held.kind);
        Descriptor {
            key: registration.map_or(0, |registration| registration.key),
            all_target_ports: registration.is_some_and(|registration| registration.is_for_all_ports),
            is_holder,
            scope: 0,
            kind: kind.filter(|_| is_holder).unwrap_or(ReservationType::NONE),
            relative_port: who.port,
            initiator: Some(initiator_id(&who.initiator)),
        }
    }

    pub(super) fn persistent_out(&mut self, call: &Call<'_>) -> Done {
        let parsed = Cdb::new(call.cdb).map_err(|_| ReserveOutError::Length);
        let command = match parsed.and_then(|cdb| ReserveOut::parse(&cdb, call.data)) {
            Ok(command) => command,
            Err(ReserveOutError::Opcode | ReserveOutError::Action(_)) => {
                return Done::answer(Answer::wrong_field(1));
            }
            Err(ReserveOutError::Length) => return Done::answer(Answer::wrong_length()),
            Err(ReserveOutError::TransportId) => return Done::answer(Answer::wrong_parameter(INITIATOR)),
        };
        let from = self.registrant(call.nexus, call.login);
        match &command.list {
            ParameterList::Basic { key, action_key, flags, .. } => {
                let keys = (*key, *action_key);
                self.persistent_basic(&from, &command, keys, *flags)
            }
            ParameterList::Move { key, action_key, unregister, persist, relative_port, initiator } => {
                let Some(to) = self.destination(initiator, *relative_port) else {
                    return Done::answer(Answer::wrong_parameter(INITIATOR));
                };
                let action = Action::Move { to: &to, unregisters: *unregister, persists: *persist };
                self.judge(&from, &Request { action, key: *key, action_key: *action_key })
            }
        }
    }

    fn persistent_basic(
        &mut self,
        from: &Registrant,
        command: &ReserveOut,
        (key, action_key): (u64, u64),
        flags: RegisterFlags,
    ) -> Done {
        let is_type = !matches!(command.kind, ReservationType::Other(_)) && command.scope == 0;
        let kind = is_type.then_some(command.kind);
        let peers;
        let action = match (command.action, kind) {
            (ReserveOutAction::Register | ReserveOutAction::RegisterAndIgnore, _) => {
                if flags.contains(RegisterFlags::SPECIFY_INITIATORS) {
                    return Done::answer(Answer::wrong_parameter(FLAGS));
                }
                peers = self.peers(from);
                Action::Register {
                    ignores_key: command.action == ReserveOutAction::RegisterAndIgnore,
                    persists: flags.contains(RegisterFlags::PERSIST),
                    all_ports: flags.contains(RegisterFlags::ALL_TARGET_PORTS).then_some(peers.as_slice()),
                }
            }
            (ReserveOutAction::Reserve, Some(kind)) => Action::Reserve(kind),
            (ReserveOutAction::Release, Some(kind)) => Action::Release(kind),
            (ReserveOutAction::Clear, _) => Action::Clear,
            (ReserveOutAction::Preempt, kind) => Action::Preempt { kind, aborts: false },
            (ReserveOutAction::PreemptAndAbort, kind) => Action::Preempt { kind, aborts: true },
            (ReserveOutAction::Reserve | ReserveOutAction::Release, None) => {
                return Done::answer(Answer::wrong_field(2));
            }
            (ReserveOutAction::RegisterAndMove | ReserveOutAction::ReplaceLost, _) => {
                return Done::answer(Answer::wrong_field(1));
            }
        };
        self.judge(from, &Request { action, key, action_key })
    }

    fn judge(&mut self, from: &Registrant, request: &Request<'_>) -> Done {
        let mut news = News::default();
        match self.reservations.handle(from, request, &mut news) {
            Verdict::Good { changed } => {
                let aborted = self.spread(news);
                Done { aborted, ..Done::good(changed) }
            }
            Verdict::Conflict => Done::answer(Answer::conflict()),
            Verdict::WrongActionKey => Done::answer(Answer::wrong_parameter(ACTION_KEY)),
            Verdict::WrongType => Done::answer(Answer::wrong_field(2)),
            Verdict::WrongRelease => Done::answer(Answer::illegal(0x26, 0x04)),
            Verdict::WrongDestination => Done::answer(Answer::wrong_parameter(INITIATOR)),
        }
    }

    /// The nexuses of an initiator port, one for each target port; it need not have logged in at all of them.
    fn peers(&self, from: &Registrant) -> Vec<Registrant> {
        let peer = |port: usize| {
            let known = self.nexuses.iter().position(|of| of.initiator == from.initiator && of.port == port);
            known.map_or_else(
                || Registrant { port: relative_port(port), login: from.login.min(1), ..from.clone() },
                |nexus| self.registrant(nexus, self.login(nexus)),
            )
        };
        let others = (0..self.name.ports.len()).filter(|port| relative_port(*port) != from.port).map(peer);
        std::iter::once(from.clone()).chain(others).collect()
    }

    /// The nexus that a REGISTER AND MOVE names.
    fn destination(&self, initiator: &TransportId, port: u16) -> Option<Registrant> {
        let name = initiator.to_string();
        let known = |nexus: &usize| {
            let of = &self.nexuses[*nexus];
            of.initiator == name && relative_port(of.port) == port
        };
        (0..self.nexuses.len()).find(known).map(|nexus| self.registrant(nexus, self.login(nexus)))
    }
}

/// The TransportID of an initiator port that a name such as `iqn…,i,0x…` stands for.
fn initiator_id(name: &str) -> TransportId {
    let (node, session) =
        name.split_once(",i,0x").map_or((name, None), |(node, session)| (node, Some(session)));
    TransportId::Iscsi { name: node.to_owned(), session: session.map(str::to_owned) }
}

fn capabilities(persist_active: bool) -> Capabilities {
    let types = ReservationType::ALL.iter().map(|(_, number, _)| 1_u16 << number).sum();
    Capabilities {
        all_target_ports: true,
        persist_capable: true,
        persist_active,
        types: Some(types),
        is_whole: true,
        ..Capabilities::default()
    }
}
