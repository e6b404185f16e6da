//! PERSISTENT RESERVE IN (SPC-6 6.16) and OUT (6.17): commands, parameter lists, replies.
//!
//! Keeps true: a parameter list is taken only if its length is right to the byte; a reply as far as it came. Not here: what
//! registrations there are and which nexus holds what (`multipath::out_of_band`).

mod replies;

use bitflags::bitflags;
use thiserror::Error;

pub use replies::{Capabilities, FullStatus, KeyList, Registrant, Reservation, ReservationReport};

use super::number::{length_at, push, put, put_length, u16_at, u64_at};
use super::transport_id::TransportId;
use super::{command, opcode};
use crate::control_port::{Cdb, ControlCommand, Transfer};

/// Bytes of a parameter list without TransportIDs.
const LIST_BYTES: usize = 24;

/// What PERSISTENT RESERVE IN asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ReserveInAction {
    /// READ KEYS; reply [`KeyList`].
    ReadKeys = 0,
    /// READ RESERVATION; reply [`ReservationReport`].
    ReadReservation = 1,
    /// REPORT CAPABILITIES; reply [`Capabilities`].
    ReportCapabilities = 2,
    /// READ FULL STATUS; reply [`FullStatus`].
    ReadFullStatus = 3,
}

impl ReserveInAction {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] =
        [Self::ReadKeys, Self::ReadReservation, Self::ReportCapabilities, Self::ReadFullStatus];
}

/// PERSISTENT RESERVE IN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReserveIn {
    /// What is asked for.
    pub action: ReserveInAction,
    /// The most bytes that may come.
    pub allocation: u16,
}

impl ReserveIn {
    /// The command.
    #[must_use]
    pub fn command(self) -> ControlCommand {
        let mut cdb = [opcode::PERSISTENT_RESERVE_IN, self.action as u8, 0, 0, 0, 0, 0, 0, 0, 0];
        put(&mut cdb, 7, 2, self.allocation);
        command(&cdb, Transfer::In(self.allocation.into()))
    }

    /// Reads the command; `None` where it is another one, or of an unknown service action.
    #[must_use]
    pub fn parse(cdb: &Cdb) -> Option<Self> {
        let bytes = cdb.bytes();
        if bytes.len() != 10 || bytes[0] != opcode::PERSISTENT_RESERVE_IN {
            return None;
        }
        let action = *ReserveInAction::ALL.get(usize::from(bytes[1] & 0x1f))?;
        Some(Self { action, allocation: u16_at(bytes, 7)? })
    }
}

/// What PERSISTENT RESERVE OUT does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ReserveOutAction {
    /// REGISTER: sets, changes or (new key 0) removes the registration of this nexus.
    Register = 0,
    /// RESERVE.
    Reserve = 1,
    /// RELEASE.
    Release = 2,
    /// CLEAR: removes the reservation and all registrations.
    Clear = 3,
    /// PREEMPT: removes registrations, takes over the reservation of their holder.
    Preempt = 4,
    /// PREEMPT AND ABORT: and aborts their commands.
    PreemptAndAbort = 5,
    /// REGISTER AND IGNORE EXISTING KEY.
    RegisterAndIgnore = 6,
    /// REGISTER AND MOVE: gives the reservation to another nexus.
    RegisterAndMove = 7,
    /// REPLACE LOST RESERVATION.
    ReplaceLost = 8,
}

impl ReserveOutAction {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Register,
        Self::Reserve,
        Self::Release,
        Self::Clear,
        Self::Preempt,
        Self::PreemptAndAbort,
        Self::RegisterAndIgnore,
        Self::RegisterAndMove,
        Self::ReplaceLost,
    ];
}

/// The type of a reservation: who may do what beside its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReservationType {
    /// 1: others read.
    WriteExclusive,
    /// 3: others do nothing.
    ExclusiveAccess,
    /// 5: registrants write, others read.
    WriteExclusiveRegistrantsOnly,
    /// 6: registrants do all, others nothing.
    ExclusiveAccessRegistrantsOnly,
    /// 7: as 5, and every registrant is a holder.
    WriteExclusiveAllRegistrants,
    /// 8: as 6, and every registrant is a holder.
    ExclusiveAccessAllRegistrants,
    /// A number that is no type (0 where the command has none), 4 bits.
    Other(u8),
}

impl ReservationType {
    /// Those of the standard, with number and name.
    pub const ALL: [(Self, u8, &'static str); 6] = [
        (Self::WriteExclusive, 1, "write exclusive"),
        (Self::ExclusiveAccess, 3, "exclusive access"),
        (Self::WriteExclusiveRegistrantsOnly, 5, "write exclusive, registrants only"),
        (Self::ExclusiveAccessRegistrantsOnly, 6, "exclusive access, registrants only"),
        (Self::WriteExclusiveAllRegistrants, 7, "write exclusive, all registrants"),
        (Self::ExclusiveAccessAllRegistrants, 8, "exclusive access, all registrants"),
    ];
    /// For commands that have no type.
    pub const NONE: Self = Self::Other(0);

    /// The type of a number; only its lower four bits count.
    #[must_use]
    pub fn of(number: u8) -> Self {
        let number = number & 0xf;
        Self::ALL.iter().find(|(_, own, _)| *own == number).map_or(Self::Other(number), |(kind, ..)| *kind)
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Other(number) => number & 0xf,
            known => Self::ALL.iter().find(|(kind, ..)| *kind == known).map_or(0, |(_, number, _)| *number),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or("reserved type", |(.., name)| name)
    }

    /// Whether every registrant holds it.
    #[must_use]
    pub fn is_all_registrants(self) -> bool {
        matches!(self, Self::WriteExclusiveAllRegistrants | Self::ExclusiveAccessAllRegistrants)
    }

    /// Whether it makes a difference between registrants and others.
    #[must_use]
    pub fn is_for_registrants(self) -> bool {
        matches!(self, Self::WriteExclusiveRegistrantsOnly | Self::ExclusiveAccessRegistrantsOnly)
            || self.is_all_registrants()
    }
}

bitflags! {
    /// Byte 20 of a parameter list.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct RegisterFlags: u8 {
        /// APTPL: registrations and reservation outlast a loss of power.
        const PERSIST = 0x01;
        /// ALL_TG_PT: for every target port.
        const ALL_TARGET_PORTS = 0x04;
        /// SPEC_I_PT: for the initiator ports that the list names. Set by `emit` where it names any.
        const SPECIFY_INITIATORS = 0x08;
    }
}

/// The parameter list of PERSISTENT RESERVE OUT.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ParameterList {
    /// Of every service action but one.
    Basic {
        /// RESERVATION KEY: of this nexus.
        key: u64,
        /// SERVICE ACTION RESERVATION KEY: the new one, or that of the victims.
        action_key: u64,
        /// Flags.
        flags: RegisterFlags,
        /// Further initiator ports to register; only with [`RegisterFlags::SPECIFY_INITIATORS`].
        initiators: Vec<TransportId>,
    },
    /// Of REGISTER AND MOVE.
    Move {
        /// RESERVATION KEY: of this nexus.
        key: u64,
        /// SERVICE ACTION RESERVATION KEY: for the nexus that it moves to.
        action_key: u64,
        /// UNREG: removes the registration of this nexus.
        unregister: bool,
        /// APTPL.
        persist: bool,
        /// The target port of the nexus that it moves to.
        relative_port: u16,
        /// The initiator port of that nexus.
        initiator: TransportId,
    },
}

/// PERSISTENT RESERVE OUT.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReserveOut {
    /// What it does.
    pub action: ReserveOutAction,
    /// Scope, 4 bits; 0 is the logical unit.
    pub scope: u8,
    /// Type of the reservation.
    pub kind: ReservationType,
    /// Its parameters.
    pub list: ParameterList,
}

/// Why bytes are no PERSISTENT RESERVE OUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum ReserveOutError {
    /// Another command.
    #[error("this is no PERSISTENT RESERVE OUT")]
    Opcode,
    /// INVALID FIELD IN CDB: a service action that is not known.
    #[error("PERSISTENT RESERVE OUT has no service action {0:02x}h")]
    Action(u8),
    /// PARAMETER LIST LENGTH ERROR: too short, too long, or other lengths in it than its own.
    #[error("the length of the parameter list of PERSISTENT RESERVE OUT is wrong")]
    Length,
    /// INVALID FIELD IN PARAMETER LIST: a TransportID is not whole.
    #[error("a TransportID in the parameter list of PERSISTENT RESERVE OUT is not whole")]
    TransportId,
}

impl ReserveOut {
    /// A command of scope 0 with keys and nothing else.
    #[must_use]
    pub fn new(action: ReserveOutAction, kind: ReservationType, key: u64, action_key: u64) -> Self {
        let list =
            ParameterList::Basic { key, action_key, flags: RegisterFlags::empty(), initiators: Vec::new() };
        Self { action, scope: 0, kind, list }
    }

    /// The command.
    ///
    /// # Panics
    /// If the TransportIDs take more than 65,000 bytes.
    #[must_use]
    pub fn command(&self) -> ControlCommand {
        let list = self.list.emit();
        let mut cdb = [
            opcode::PERSISTENT_RESERVE_OUT,
            self.action as u8,
            self.scope << 4 | self.kind.number(),
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ];
        put_length(&mut cdb, 5, 4, list.len());
        command(&cdb, Transfer::Out(list))
    }

    /// Reads the command and its parameter list.
    ///
    /// # Errors
    /// [`ReserveOutError`]: what a target answers.
    pub fn parse(cdb: &Cdb, data: &[u8]) -> Result<Self, ReserveOutError> {
        let bytes = cdb.bytes();
        if bytes.len() != 10 || bytes[0] != opcode::PERSISTENT_RESERVE_OUT {
            return Err(ReserveOutError::Opcode);
        }
        let number = bytes[1] & 0x1f;
        let action = ReserveOutAction::ALL.get(usize::from(number)).ok_or(ReserveOutError::Action(number))?;
        if length_at(bytes, 5) != Some(data.len()) {
            return Err(ReserveOutError::Length);
        }
        let list = ParameterList::parse(*action, data)?;
        Ok(Self { action: *action, scope: bytes[2] >> 4, kind: ReservationType::of(bytes[2]), list })
    }
}

impl ParameterList {
    /// Its reservation key and its service action reservation key.
    #[must_use]
    pub fn keys(&self) -> (u64, u64) {
        match self {
            Self::Basic { key, action_key, .. } | Self::Move { key, action_key, .. } => (*key, *action_key),
        }
    }

    /// Reads the list of a service action.
    ///
    /// # Errors
    /// [`ReserveOutError::Length`], [`ReserveOutError::TransportId`].
    pub fn parse(action: ReserveOutAction, bytes: &[u8]) -> Result<Self, ReserveOutError> {
        let (Some(key), Some(action_key), Some(fixed)) =
            (u64_at(bytes, 0), u64_at(bytes, 8), bytes.first_chunk::<LIST_BYTES>())
        else {
            return Err(ReserveOutError::Length);
        };
        if action == ReserveOutAction::RegisterAndMove {
            if length_at(bytes, 20) != Some(bytes.len() - LIST_BYTES) {
                return Err(ReserveOutError::Length);
            }
            let id = TransportId::parse(&bytes[LIST_BYTES..]);
            let (initiator, length) = id.ok_or(ReserveOutError::TransportId)?;
            if length != bytes.len() - LIST_BYTES {
                return Err(ReserveOutError::TransportId);
            }
            let (unregister, persist) = (fixed[17] & 2 != 0, fixed[17] & 1 != 0);
            let relative_port = u16_at(fixed, 18).unwrap_or_default();
            return Ok(Self::Move { key, action_key, unregister, persist, relative_port, initiator });
        }
        let flags = RegisterFlags::from_bits_truncate(fixed[20]);
        let mut initiators = Vec::new();
        if flags.contains(RegisterFlags::SPECIFY_INITIATORS) {
            let mut rest = bytes.get(LIST_BYTES + 4..).ok_or(ReserveOutError::Length)?;
            if length_at(bytes, LIST_BYTES) != Some(rest.len()) {
                return Err(ReserveOutError::Length);
            }
            while !rest.is_empty() {
                let (initiator, length) = TransportId::parse(rest).ok_or(ReserveOutError::TransportId)?;
                initiators.push(initiator);
                rest = &rest[length..];
            }
        } else if bytes.len() != LIST_BYTES {
            return Err(ReserveOutError::Length);
        }
        Ok(Self::Basic { key, action_key, flags, initiators })
    }

    /// Its bytes.
    ///
    /// # Panics
    /// If the TransportIDs take more than 4 GiB.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let (key, action_key) = self.keys();
        let mut bytes = Vec::with_capacity(LIST_BYTES);
        push(&mut bytes, 8, key);
        push(&mut bytes, 8, action_key);
        bytes.resize(LIST_BYTES, 0);
        match self {
            Self::Basic { flags, initiators, .. } => {
                let mut flags = *flags;
                flags.set(
                    RegisterFlags::SPECIFY_INITIATORS,
                    !initiators.is_empty() || flags.contains(RegisterFlags::SPECIFY_INITIATORS),
                );
                bytes[20] = flags.bits();
                if flags.contains(RegisterFlags::SPECIFY_INITIATORS) {
                    let list: Vec<u8> = initiators.iter().flat_map(TransportId::emit).collect();
                    bytes.resize(LIST_BYTES + 4, 0);
                    put_length(&mut bytes, LIST_BYTES, 4, list.len());
                    bytes.extend(list);
                }
            }
            Self::Move { unregister, persist, relative_port, initiator, .. } => {
                bytes[17] = u8::from(*unregister) << 1 | u8::from(*persist);
                put(&mut bytes, 18, 2, *relative_port);
                let id = initiator.emit();
                put_length(&mut bytes, 20, 4, id.len());
                bytes.extend(id);
            }
        }
        bytes
    }
}
