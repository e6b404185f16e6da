//! REPORT TARGET PORT GROUPS (SPC-6 6.37) and SET TARGET PORT GROUPS (6.46): which ports reach the unit, and how.
//!
//! Keeps true: a group that did not come whole is left out. Not here: what a state means for a request
//! ([`AccessState`]), which path is in which group (`vpd`).

use bitflags::bitflags;

use super::number::{clipped, length_at, push, put, put_length, u16_at, u32_at};
use super::{command, opcode};
use crate::control_port::{Cdb, ControlCommand, Transfer};
use crate::device::storage_system::AccessState;

/// Bytes of a group without its ports.
const GROUP_BYTES: usize = 8;

/// The number of an access state.
#[must_use]
pub fn state_number(state: AccessState) -> u8 {
    match state {
        AccessState::ActiveOptimized => 0x0,
        AccessState::ActiveNonOptimized => 0x1,
        AccessState::Standby => 0x2,
        AccessState::Unavailable => 0x3,
        AccessState::Transitioning => 0xf,
    }
}

/// The access state of a number; `None` for logical block dependent (4), offline (Eh) and reserved ones.
#[must_use]
pub fn state_of(number: u8) -> Option<AccessState> {
    match number & 0xf {
        0x0 => Some(AccessState::ActiveOptimized),
        0x1 => Some(AccessState::ActiveNonOptimized),
        0x2 => Some(AccessState::Standby),
        0x3 => Some(AccessState::Unavailable),
        0xf => Some(AccessState::Transitioning),
        _ => None,
    }
}

/// The name of an access state by its number.
#[must_use]
pub fn state_name(number: u8) -> &'static str {
    match number & 0xf {
        0x0 => "active/optimized",
        0x1 => "active/non-optimized",
        0x2 => "standby",
        0x3 => "unavailable",
        0x4 => "logical block dependent",
        0xe => "offline",
        0xf => "transitioning",
        _ => "reserved state",
    }
}

/// REPORT TARGET PORT GROUPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReportPortGroups {
    /// Asks for the head with the transition time.
    pub extended: bool,
    /// The most bytes that may come.
    pub allocation: u32,
}

impl ReportPortGroups {
    /// The command.
    #[must_use]
    pub fn command(self) -> ControlCommand {
        let action = opcode::maintenance_in::REPORT_TARGET_PORT_GROUPS as u8;
        let mut cdb = [0; 12];
        cdb[0] = opcode::MAINTENANCE_IN;
        cdb[1] = u8::from(self.extended) << 5 | action;
        put(&mut cdb, 6, 4, self.allocation);
        command(&cdb, Transfer::In(self.allocation as usize))
    }

    /// Reads the command; `None` where it is another one, or asks for an unknown format.
    #[must_use]
    pub fn parse(cdb: &Cdb) -> Option<Self> {
        let is_it = cdb.opcode() == opcode::MAINTENANCE_IN
            && opcode::service_action(cdb) == Some(opcode::maintenance_in::REPORT_TARGET_PORT_GROUPS);
        let format = cdb.bytes().get(1)? >> 5;
        if cdb.bytes().len() != 12 || !is_it || format > 1 {
            return None;
        }
        Some(Self { extended: format == 1, allocation: u32_at(cdb.bytes(), 6)? })
    }
}

bitflags! {
    /// Which access states a group can have.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SupportedStates: u8 {
        /// T_SUP.
        const TRANSITIONING = 0x80;
        /// O_SUP.
        const OFFLINE = 0x40;
        /// LBD_SUP.
        const BLOCK_DEPENDENT = 0x10;
        /// U_SUP.
        const UNAVAILABLE = 0x08;
        /// S_SUP.
        const STANDBY = 0x04;
        /// AN_SUP.
        const ACTIVE_NON_OPTIMIZED = 0x02;
        /// AO_SUP.
        const ACTIVE_OPTIMIZED = 0x01;
    }
}

/// A target port group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortGroup {
    /// Its number.
    pub group: u16,
    /// PREF: to be preferred.
    pub is_preferred: bool,
    /// Its access state, 4 bits; [`PortGroup::state`].
    pub state_number: u8,
    /// The states that it can have.
    pub supported: SupportedStates,
    /// What changed the state: 0 unknown, 1 SET TARGET PORT GROUPS, 2 the target.
    pub status: u8,
    /// Of the vendor.
    pub vendor_specific: u8,
    /// Relative target port identifiers, at most 255.
    pub ports: Vec<u16>,
}

impl PortGroup {
    /// Its access state, where it is one of those that paths have.
    #[must_use]
    pub fn state(&self) -> Option<AccessState> {
        state_of(self.state_number)
    }

    /// The group at the beginning of `bytes` and its length; `None` where it did not come whole.
    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let fixed: &[u8; GROUP_BYTES] = bytes.first_chunk()?;
        let (ports, is_whole) = clipped(bytes, GROUP_BYTES, 4 * usize::from(fixed[7]));
        let group = Self {
            group: u16_at(fixed, 2)?,
            is_preferred: fixed[0] & 0x80 != 0,
            state_number: fixed[0] & 0xf,
            supported: SupportedStates::from_bits_truncate(fixed[1]),
            status: fixed[5],
            vendor_specific: fixed[6],
            ports: ports.chunks_exact(4).filter_map(|port| u16_at(port, 2)).collect(),
        };
        is_whole.then_some((group, GROUP_BYTES + ports.len()))
    }

    fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![0; GROUP_BYTES];
        bytes[0] = u8::from(self.is_preferred) << 7 | self.state_number & 0xf;
        bytes[1] = self.supported.bits();
        put(&mut bytes, 2, 2, self.group);
        (bytes[5], bytes[6]) = (self.status, self.vendor_specific);
        put_length(&mut bytes, 7, 1, self.ports.len());
        self.ports.iter().for_each(|port| push(&mut bytes, 4, *port));
        bytes
    }
}

/// What REPORT TARGET PORT GROUPS brings back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortGroups {
    /// Seconds that an implicit transition takes at most (0: not told); `None` without the extended head.
    pub transition_seconds: Option<u8>,
    /// The groups.
    pub groups: Vec<PortGroup>,
    /// Whether all came.
    pub is_whole: bool,
}

impl PortGroups {
    /// Reads it; `None` where not even the length came. Which head it has, it says itself.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (mut body, mut is_whole) = clipped(bytes, 4, length_at(bytes, 0)?);
        // A group begins with a state below 10h, or with PREF set; three bits in between are reserved there.
        let is_extended = body.first().is_some_and(|format| format & 0x70 == 0x10);
        let transition_seconds = body.get(1).copied().filter(|_| is_extended);
        if is_extended {
            is_whole &= body.len() >= 4;
            body = body.get(4..).unwrap_or_default();
        }
        let mut groups = Vec::new();
        while !body.is_empty() {
            let Some((group, length)) = PortGroup::parse(body) else {
                is_whole = false;
                break;
            };
            groups.push(group);
            body = &body[length..];
        }
        Some(Self { transition_seconds, groups, is_whole })
    }

    /// Its bytes.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        if let Some(seconds) = self.transition_seconds {
            bytes.extend([0x10, seconds, 0, 0]);
        }
        self.groups.iter().for_each(|group| bytes.extend(group.emit()));
        let length = bytes.len() - 4;
        put_length(&mut bytes, 0, 4, length);
        bytes
    }

    /// The group of a relative target port.
    #[must_use]
    pub fn of_port(&self, relative_port: u16) -> Option<&PortGroup> {
        self.groups.iter().find(|group| group.ports.contains(&relative_port))
    }
}

/// SET TARGET PORT GROUPS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SetPortGroups {
    /// Group, and the number of the state that it is to have.
    pub groups: Vec<(u16, u8)>,
}

impl SetPortGroups {
    /// The command.
    #[must_use]
    pub fn command(&self) -> ControlCommand {
        let mut list = vec![0; 4];
        for (group, state) in &self.groups {
            list.extend([state & 0xf, 0]);
            push(&mut list, 2, *group);
        }
        let mut cdb = [0; 12];
        cdb[0] = opcode::MAINTENANCE_OUT;
        cdb[1] = opcode::maintenance_out::SET_TARGET_PORT_GROUPS as u8;
        put_length(&mut cdb, 6, 4, list.len());
        command(&cdb, Transfer::Out(list))
    }

    /// Reads the command and its parameter list; `None` where it is another one, or the list has another length than it
    /// says or no whole number of groups.
    #[must_use]
    pub fn parse(cdb: &Cdb, data: &[u8]) -> Option<Self> {
        let is_it = cdb.opcode() == opcode::MAINTENANCE_OUT
            && opcode::service_action(cdb) == Some(opcode::maintenance_out::SET_TARGET_PORT_GROUPS);
        if cdb.bytes().len() != 12
            || !is_it
            || length_at(cdb.bytes(), 6)? != data.len()
            || !data.len().is_multiple_of(4)
        {
            return None;
        }
        let rows = data.get(4..).unwrap_or_default().chunks_exact(4);
        Some(Self { groups: rows.filter_map(|row| Some((u16_at(row, 2)?, row[0] & 0xf))).collect() })
    }
}
