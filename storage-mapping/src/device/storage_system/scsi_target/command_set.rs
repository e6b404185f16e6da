//! The commands that a logical unit knows, as data: what a reservation of another nexus, a RESERVE of another nexus and an
//! access state let through.
//!
//! Sources: SPC-5 5.14.1 and SBC-4 4.17 (tables of commands in the presence of reservations), SPC-2 5.5.1 (RESERVE),
//! SPC-5 5.18.2.4 ff. (access states).
//!
//! Keeps true: each (opcode, service action) has one row. Not here: what a command does (`unit`).

use crate::device::storage_system::access_state::AccessState;
use crate::scsi::opcode;
use crate::scsi::reservations::ReservationType;

use Reach::{Active, Every, Standby};
use Touch::{Changes, Free, Legacy, PersistentOut, Reads};

/// What a command does to the medium or the unit, as reservations see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touch {
    /// Nothing that a reservation guards.
    Free,
    /// It reads.
    Reads,
    /// It changes.
    Changes,
    /// RESERVE and RELEASE of SPC-2: registrations of any kind are in their way.
    Legacy,
    /// PERSISTENT RESERVE OUT: judged by the registrations themselves.
    PersistentOut,
}

/// The least that an access state must allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// Answered in every state.
    Every,
    /// Answered in standby too.
    Standby,
    /// Only where the unit is active.
    Active,
}

/// One command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) opcode: u8,
    pub(super) action: Option<u8>,
    /// Length of its descriptor block in bytes.
    pub(super) length: usize,
    pub(super) touch: Touch,
    pub(super) reach: Reach,
    /// Whether it passes a RESERVE of another nexus.
    pub(super) passes_reserve: bool,
}

/// The vendor command of this target: it counts its executions.
pub(super) const VENDOR: u8 = 0xc0;
/// REPORT and SET TARGET PORT GROUPS.
pub(super) const TARGET_PORT_GROUPS: u8 = 0x0a;
/// REPORT SUPPORTED OPERATION CODES.
pub(super) const SUPPORTED_OPCODES: u8 = 0x0c;
/// READ CAPACITY (16).
const READ_CAPACITY_16: u8 = 0x10;

const fn row(opcode: u8, length: usize, touch: Touch, reach: Reach, passes_reserve: bool) -> Row {
    Row { opcode, action: None, length, touch, reach, passes_reserve }
}

const fn with(action: u8, row: Row) -> Row {
    Row { action: Some(action), ..row }
}

const fn reserve_in(action: u8) -> Row {
    with(action, row(opcode::PERSISTENT_RESERVE_IN, 10, Free, Standby, false))
}

const fn reserve_out(action: u8) -> Row {
    with(action, row(opcode::PERSISTENT_RESERVE_OUT, 10, PersistentOut, Standby, false))
}

/// Every command, by opcode and service action.
pub(super) const ROWS: &[Row] = &[
    row(opcode::TEST_UNIT_READY, 6, Free, Active, false),
    row(opcode::REQUEST_SENSE, 6, Free, Every, true),
    row(opcode::INQUIRY, 6, Free, Every, true),
    row(opcode::MODE_SELECT_6, 6, Changes, Standby, false),
    row(opcode::RESERVE_6, 6, Legacy, Active, false),
    row(opcode::RELEASE_6, 6, Legacy, Active, true),
    row(opcode::MODE_SENSE_6, 6, Reads, Standby, false),
    row(opcode::START_STOP_UNIT, 6, Changes, Active, false),
    row(opcode::PREVENT_ALLOW_MEDIUM_REMOVAL, 6, Changes, Active, false),
    row(opcode::READ_CAPACITY_10, 10, Free, Active, true),
    row(opcode::READ_10, 10, Reads, Active, false),
    row(opcode::WRITE_10, 10, Changes, Active, false),
    row(opcode::SYNCHRONIZE_CACHE_10, 10, Changes, Active, false),
    row(opcode::LOG_SELECT, 10, Changes, Standby, false),
    row(opcode::LOG_SENSE, 10, Free, Standby, true),
    row(opcode::MODE_SELECT_10, 10, Changes, Standby, false),
    row(opcode::RESERVE_10, 10, Legacy, Active, false),
    row(opcode::RELEASE_10, 10, Legacy, Active, true),
    row(opcode::MODE_SENSE_10, 10, Reads, Standby, false),
    reserve_in(0),
    reserve_in(1),
    reserve_in(2),
    reserve_in(3),
    reserve_out(0),
    reserve_out(1),
    reserve_out(2),
    reserve_out(3),
    reserve_out(4),
    reserve_out(5),
    reserve_out(6),
    reserve_out(7),
    row(opcode::READ_16, 16, Reads, Active, false),
    row(opcode::WRITE_16, 16, Changes, Active, false),
    row(opcode::SYNCHRONIZE_CACHE_16, 16, Changes, Active, false),
    with(READ_CAPACITY_16, row(opcode::SERVICE_ACTION_IN_16, 16, Free, Active, true)),
    row(opcode::REPORT_LUNS, 12, Free, Every, true),
    with(TARGET_PORT_GROUPS, row(opcode::MAINTENANCE_IN, 12, Free, Every, true)),
    with(SUPPORTED_OPCODES, row(opcode::MAINTENANCE_IN, 12, Free, Active, true)),
    with(TARGET_PORT_GROUPS, row(opcode::MAINTENANCE_OUT, 12, Changes, Every, false)),
    row(VENDOR, 6, Changes, Active, false),
];

/// Why a command is none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// 5/20/00.
    Opcode,
    /// 5/24/00: the service action, in byte 1.
    Action,
}

/// The service action of a command that has one.
pub(super) fn action_of(cdb: &[u8]) -> Option<u8> {
    let has_action = ROWS.iter().any(|row| row.opcode == cdb[0] && row.action.is_some());
    has_action.then(|| cdb[1] & 0x1f)
}

/// The row of a command.
pub(super) fn find(cdb: &[u8]) -> Result<&'static Row, Unknown> {
    let action = action_of(cdb);
    let mut of_opcode = ROWS.iter().filter(|row| row.opcode == cdb[0] && row.length == cdb.len()).peekable();
    of_opcode.peek().ok_or(Unknown::Opcode)?;
    of_opcode.find(|row| row.action == action).ok_or(Unknown::Action)
}

impl Row {
    /// What it touches with these bits: PREVENT of nothing and START touch nothing (SBC-4 4.17).
    pub(super) fn touch_of(&self, cdb: &[u8]) -> Touch {
        let is_free = match self.opcode {
            opcode::PREVENT_ALLOW_MEDIUM_REMOVAL => cdb[4] & 0x03 == 0,
            opcode::START_STOP_UNIT => cdb[4] & 0xf1 == 0x01,
            _ => false,
        };
        if is_free { Free } else { self.touch }
    }

    /// Whether it gets past another nexus's RESERVE.
    pub(super) fn passes_reserve_of_another(&self, cdb: &[u8]) -> bool {
        self.passes_reserve || self.opcode == opcode::PREVENT_ALLOW_MEDIUM_REMOVAL && cdb[4] & 0x03 == 0
    }

    /// Whether it reports a unit attention that waits.
    pub(super) fn meets_attentions(&self) -> bool {
        !matches!(self.opcode, opcode::INQUIRY | opcode::REPORT_LUNS | opcode::REQUEST_SENSE)
    }

    /// Whether an access state lets it through.
    pub(super) fn is_answered_in(&self, state: AccessState) -> bool {
        match state {
            AccessState::ActiveOptimized | AccessState::ActiveNonOptimized => true,
            AccessState::Standby => self.reach <= Standby,
            AccessState::Unavailable | AccessState::Transitioning => self.reach == Every,
        }
    }
}

/// Whether a reservation that another nexus holds is in the way.
pub(super) fn conflicts(kind: ReservationType, is_registered: bool, touch: Touch) -> bool {
    match touch {
        Free | Legacy | PersistentOut => false,
        Reads | Changes if is_registered && kind.is_for_registrants() => false,
        Reads => excludes_reads(kind),
        Changes => true,
    }
}

fn excludes_reads(kind: ReservationType) -> bool {
    matches!(
        kind,
        ReservationType::ExclusiveAccess
            | ReservationType::ExclusiveAccessRegistrantsOnly
            | ReservationType::ExclusiveAccessAllRegistrants
    )
}
