//! Reservations of NVMe (base specification 2.1, 7.2 to 7.5): Register, Acquire, Release, Report.
//!
//! Keeps true: a report that was cut short gives its whole entries and no more. Not here: who holds what
//! (`multipath::out_of_band`).

use super::command;
use super::number::{array_at, put, u16_at, u32_at, u64_at};
use super::opcode::io;
use crate::control_port::{ControlCommand, NvmeFields, Transfer};

/// Bytes of the head of a report.
const HEAD_BYTES: usize = 24;
/// Bytes of the head of an extended report, and of each of its entries.
const EXTENDED_BYTES: usize = 64;
/// Bytes of an entry.
const ENTRY_BYTES: usize = 24;

/// The type of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReservationType {
    /// 1: others read.
    WriteExclusive,
    /// 2: others do nothing.
    ExclusiveAccess,
    /// 3: registrants write, others read.
    WriteExclusiveRegistrantsOnly,
    /// 4: registrants do all, others nothing.
    ExclusiveAccessRegistrantsOnly,
    /// 5: as 3, and every registrant is a holder.
    WriteExclusiveAllRegistrants,
    /// 6: as 4, and every registrant is a holder.
    ExclusiveAccessAllRegistrants,
    /// A number that is no type; 0 is none.
    Other(u8),
}

impl ReservationType {
    /// Those of the specification, in the order of their numbers from 1.
    pub const ALL: [Self; 6] = [
        Self::WriteExclusive,
        Self::ExclusiveAccess,
        Self::WriteExclusiveRegistrantsOnly,
        Self::ExclusiveAccessRegistrantsOnly,
        Self::WriteExclusiveAllRegistrants,
        Self::ExclusiveAccessAllRegistrants,
    ];

    /// The type of a number.
    #[must_use]
    pub fn of(number: u8) -> Self {
        let place = usize::from(number).checked_sub(1);
        place.and_then(|place| Self::ALL.get(place)).copied().unwrap_or(Self::Other(number))
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::WriteExclusive => 1,
            Self::ExclusiveAccess => 2,
            Self::WriteExclusiveRegistrantsOnly => 3,
            Self::ExclusiveAccessRegistrantsOnly => 4,
            Self::WriteExclusiveAllRegistrants => 5,
            Self::ExclusiveAccessAllRegistrants => 6,
            Self::Other(number) => number,
        }
    }

    /// The same type of SCSI; their numbers differ.
    #[must_use]
    pub fn in_scsi(self) -> crate::scsi::reservations::ReservationType {
        use crate::scsi::reservations::ReservationType as Scsi;
        match self {
            Self::WriteExclusive => Scsi::WriteExclusive,
            Self::ExclusiveAccess => Scsi::ExclusiveAccess,
            Self::WriteExclusiveRegistrantsOnly => Scsi::WriteExclusiveRegistrantsOnly,
            Self::ExclusiveAccessRegistrantsOnly => Scsi::ExclusiveAccessRegistrantsOnly,
            Self::WriteExclusiveAllRegistrants => Scsi::WriteExclusiveAllRegistrants,
            Self::ExclusiveAccessAllRegistrants => Scsi::ExclusiveAccessAllRegistrants,
            Self::Other(_) => Scsi::NONE,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        if self == Self::Other(0) { "none" } else { self.in_scsi().name() }
    }
}

/// What Reservation Register does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RegisterAction {
    /// 0: registers the new key.
    Register,
    /// 1: removes the registration.
    Unregister,
    /// 2: replaces the key.
    Replace,
}

/// Whether registrations and reservation outlast a loss of power (CPTPL).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ChangePersistence {
    /// As it is.
    #[default]
    Keep,
    /// They do not.
    Clear,
    /// They do.
    Set,
}

/// What Reservation Acquire does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AcquireAction {
    /// 0: acquires.
    Acquire,
    /// 1: preempts.
    Preempt,
    /// 2: preempts and aborts.
    PreemptAndAbort,
}

/// What Reservation Release does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReleaseAction {
    /// 0: releases.
    Release,
    /// 1: removes the reservation and all registrations.
    Clear,
}

/// A command that changes registrations or the reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReservationChange {
    /// Reservation Register.
    Register {
        /// What it does.
        action: RegisterAction,
        /// Persistence.
        persistence: ChangePersistence,
        /// NRKEY: the new key.
        new_key: u64,
    },
    /// Reservation Acquire.
    Acquire {
        /// What it does.
        action: AcquireAction,
        /// Type.
        kind: ReservationType,
        /// PRKEY: the key to preempt.
        preempt_key: u64,
    },
    /// Reservation Release.
    Release {
        /// What it does.
        action: ReleaseAction,
        /// Type.
        kind: ReservationType,
    },
}

/// Reservation Register, Acquire or Release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReservationCommand {
    /// Namespace.
    pub namespace: u32,
    /// IEKEY: the current key is not looked at.
    pub ignore_key: bool,
    /// CRKEY: the current key.
    pub key: u64,
    /// What it changes.
    pub change: ReservationChange,
}

impl ReservationCommand {
    /// The command.
    #[must_use]
    pub fn command(self) -> ControlCommand {
        let (opcode, action, rest, second_key) = match self.change {
            ReservationChange::Register { action, persistence, new_key } => {
                let persistence = match persistence {
                    ChangePersistence::Keep => 0,
                    ChangePersistence::Clear => 2,
                    ChangePersistence::Set => 3,
                };
                (io::RESERVATION_REGISTER, action as u32, persistence << 30, Some(new_key))
            }
            ReservationChange::Acquire { action, kind, preempt_key } => {
                (io::RESERVATION_ACQUIRE, action as u32, u32::from(kind.number()) << 8, Some(preempt_key))
            }
            ReservationChange::Release { action, kind } => {
                (io::RESERVATION_RELEASE, action as u32, u32::from(kind.number()) << 8, None)
            }
        };
        let mut data = vec![0; if second_key.is_some() { 16 } else { 8 }];
        put(&mut data, 0, 8, self.key);
        if let Some(second) = second_key {
            put(&mut data, 8, 8, second);
        }
        let first = action | u32::from(self.ignore_key) << 3 | rest;
        command(io_fields(opcode, self.namespace, [first, 0]), Transfer::Out(data))
    }

    /// Reads the command and its data; `None` where it is another one, of an unknown action, or the data are too short.
    #[must_use]
    pub fn parse(fields: &NvmeFields, data: &[u8]) -> Option<Self> {
        if !fields.is_io {
            return None;
        }
        let first = fields.cdw10[0];
        let (action, kind) = (first & 7, ReservationType::of((first >> 8 & 0xff) as u8));
        let change = match fields.opcode {
            io::RESERVATION_REGISTER => ReservationChange::Register {
                action: match action {
                    0 => RegisterAction::Register,
                    1 => RegisterAction::Unregister,
                    2 => RegisterAction::Replace,
                    _ => return None,
                },
                persistence: match first >> 30 {
                    0 => ChangePersistence::Keep,
                    2 => ChangePersistence::Clear,
                    3 => ChangePersistence::Set,
                    _ => return None,
                },
                new_key: u64_at(data, 8)?,
            },
            io::RESERVATION_ACQUIRE => ReservationChange::Acquire {
                action: match action {
                    0 => AcquireAction::Acquire,
                    1 => AcquireAction::Preempt,
                    2 => AcquireAction::PreemptAndAbort,
                    _ => return None,
                },
                kind,
                preempt_key: u64_at(data, 8)?,
            },
            io::RESERVATION_RELEASE => ReservationChange::Release {
                action: match action {
                    0 => ReleaseAction::Release,
                    1 => ReleaseAction::Clear,
                    _ => return None,
                },
                kind,
            },
            _ => return None,
        };
        Some(Self { namespace: fields.namespace, ignore_key: first & 8 != 0, key: u64_at(data, 0)?, change })
    }
}

fn io_fields(opcode: u8, namespace: u32, [first, second]: [u32; 2]) -> NvmeFields {
    let cdw10 = [first, second, 0, 0, 0, 0];
    NvmeFields { is_io: true, opcode, namespace, cdw10, ..NvmeFields::default() }
}

/// Reservation Report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReservationReport {
    /// Namespace.
    pub namespace: u32,
    /// EDS: host identifiers of 128 bits.
    pub extended: bool,
    /// The most bytes that may come; a multiple of 4, at least 4.
    pub allocation: u32,
}

impl ReservationReport {
    /// The command.
    #[must_use]
    pub fn command(self) -> ControlCommand {
        let dwords = (self.allocation / 4).max(1);
        let fields = io_fields(io::RESERVATION_REPORT, self.namespace, [dwords - 1, self.extended.into()]);
        command(fields, Transfer::In(4 * dwords as usize))
    }

    /// Reads the command; `None` where it is another one, or asks for more than 32 bits can count.
    #[must_use]
    pub fn parse(fields: &NvmeFields) -> Option<Self> {
        if !fields.is_io || fields.opcode != io::RESERVATION_REPORT {
            return None;
        }
        let allocation = fields.cdw10[0].checked_add(1)?.checked_mul(4)?;
        Some(Self { namespace: fields.namespace, extended: fields.cdw10[1] & 1 != 0, allocation })
    }
}

/// A controller whose host is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RegisteredController {
    /// Controller; FFFFh: of a subsystem that can add them.
    pub controller: u16,
    /// Its host holds the reservation.
    pub is_holder: bool,
    /// Host identifier; one of 64 bits is in the first eight bytes.
    pub host: [u8; 16],
    /// The key.
    pub key: u64,
}

/// What Reservation Report brings back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReservationStatus {
    /// Whether it has the extended form.
    pub extended: bool,
    /// Counts changes.
    pub generation: u32,
    /// Type; `Other(0)` where there is no reservation.
    pub kind: ReservationType,
    /// PTPLS: it outlasts a loss of power.
    pub persistent: bool,
    /// The controllers.
    pub controllers: Vec<RegisteredController>,
    /// Whether all came.
    pub is_whole: bool,
}

impl ReservationStatus {
    /// Reads it; `None` where not even generation, type and count came. Which form it has, the command decides.
    #[must_use]
    pub fn parse(bytes: &[u8], extended: bool) -> Option<Self> {
        let (head, each) =
            if extended { (EXTENDED_BYTES, EXTENDED_BYTES) } else { (HEAD_BYTES, ENTRY_BYTES) };
        let count = usize::from(u16_at(bytes, 5)?);
        let entries = bytes.get(head..).unwrap_or_default().chunks_exact(each).take(count);
        let controllers: Vec<_> =
            entries.filter_map(|entry| RegisteredController::parse(entry, extended)).collect();
        Some(Self {
            extended,
            generation: u32_at(bytes, 0)?,
            kind: ReservationType::of(bytes[4]),
            persistent: bytes.get(9).is_some_and(|byte| byte & 1 != 0),
            is_whole: bytes.len() >= head && controllers.len() == count,
            controllers,
        })
    }

    /// Its bytes.
    ///
    /// # Panics
    /// If there are more than 65,535 controllers.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![0; if self.extended { EXTENDED_BYTES } else { HEAD_BYTES }];
        put(&mut bytes, 0, 4, self.generation);
        bytes[4] = self.kind.number();
        put(&mut bytes, 5, 2, u16::try_from(self.controllers.len()).expect("a count of 16 bits"));
        bytes[9] = self.persistent.into();
        self.controllers.iter().for_each(|one| bytes.extend(one.emit(self.extended)));
        bytes
    }
}

impl RegisteredController {
    fn parse(entry: &[u8], extended: bool) -> Option<Self> {
        let (host, key) = if extended {
            (array_at(entry, 16), u64_at(entry, 8)?)
        } else {
            let mut host = [0; 16];
            host[..8].copy_from_slice(&array_at::<8>(entry, 8));
            (host, u64_at(entry, 16)?)
        };
        Some(Self { controller: u16_at(entry, 0)?, is_holder: entry.get(2)? & 1 != 0, host, key })
    }

    fn emit(&self, extended: bool) -> Vec<u8> {
        let mut entry = vec![0; if extended { EXTENDED_BYTES } else { ENTRY_BYTES }];
        put(&mut entry, 0, 2, self.controller);
        entry[2] = self.is_holder.into();
        if extended {
            put(&mut entry, 8, 8, self.key);
            entry[16..32].copy_from_slice(&self.host);
        } else {
            entry[8..16].copy_from_slice(&self.host[..8]);
            put(&mut entry, 16, 8, self.key);
        }
        entry
    }
}
