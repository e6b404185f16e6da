//! What is there and how it is reached: target port groups, logical units, capacity, supported commands.
//!
//! Keeps true: a SET TARGET PORT GROUPS of which any group is wrong changes none. Not here: what an access state lets through
//! (`command_set`), what names the unit (`identity`).

use super::answer::Answer;
use super::blocks::number;
use super::command_set::{ROWS, Row};
use super::identity::group_number;
use super::unit::{Call, Done, LogicalUnit, relative_port};
use crate::control_port::Cdb;
use crate::device::storage_system::access_state::AccessState;
use crate::scsi::capacity::{Capacity, ReadCapacity, ShortCapacity};
use crate::scsi::luns::{Lun, LunList, ReportLuns};
use crate::scsi::port_groups::{
    PortGroup, PortGroups, ReportPortGroups, SetPortGroups, SupportedStates, state_number, state_of,
};

/// Status of a group: its state was changed by nobody that it would tell of.
const NO_STATUS: u8 = 0;
/// The first group in a list of SET TARGET PORT GROUPS.
const FIRST_GROUP: u16 = 4;

impl LogicalUnit {
    pub(super) fn report_groups(&self, call: &Call<'_>) -> Answer {
        let Some(report) = Cdb::new(call.cdb).ok().and_then(|cdb| ReportPortGroups::parse(&cdb)) else {
            return Answer::wrong_field(1);
        };
        let group = |(index, state): (usize, &AccessState)| PortGroup {
            group: group_number(index),
            is_preferred: self.name.groups[index],
            state_number: state_number(*state),
            supported: SupportedStates::all() - SupportedStates::OFFLINE - SupportedStates::BLOCK_DEPENDENT,
            status: NO_STATUS,
            vendor_specific: 0,
            ports: (0..self.name.ports.len())
                .filter(|port| self.name.ports[*port] == index)
                .map(relative_port)
                .collect(),
        };
        // A group without ports is none that could be reached.
        let groups =
            call.access.iter().enumerate().map(group).filter(|group| !group.ports.is_empty()).collect();
        let transition_seconds = report.extended.then_some(0);
        let mut data = PortGroups { transition_seconds, groups, is_whole: true }.emit();
        data.truncate(usize::try_from(report.allocation).unwrap_or(usize::MAX));
        Answer::data(data)
    }

    pub(super) fn set_groups(&self, call: &Call<'_>) -> Done {
        let Some(set) = Cdb::new(call.cdb).ok().and_then(|cdb| SetPortGroups::parse(&cdb, call.data)) else {
            return Done::answer(Answer::wrong_length());
        };
        let mut access = Vec::new();
        for (group, number) in set.groups {
            let index = (0..call.access.len()).find(|index| group_number(*index) == group);
            let state = state_of(number).filter(|state| *state != AccessState::Transitioning);
            let (Some(index), Some(state)) = (index, state) else {
                return Done::answer(Answer::wrong_parameter(FIRST_GROUP));
            };
            access.push((index, state));
        }
        let changed = access.iter().any(|(index, state)| call.access[*index] != *state);
        Done { access, ..Done::good(changed) }
    }

    pub(super) fn report_luns(&self, call: &Call<'_>) -> Answer {
        let Some(report) = Cdb::new(call.cdb).ok().and_then(|cdb| ReportLuns::parse(&cdb)) else {
            return Answer::wrong_field(1);
        };
        let luns = match report.select {
            0 | 2 => (0..self.name.units).filter_map(Lun::of_number).collect(),
            1 => Vec::new(),
            _ => return Answer::wrong_field(2),
        };
        let mut data = LunList { luns, is_whole: true }.emit();
        data.truncate(usize::try_from(report.allocation).unwrap_or(usize::MAX));
        Answer::data(data)
    }

    pub(super) fn read_capacity(&self, call: &Call<'_>) -> Answer {
        let last_block = self.name.block_count.0 - 1;
        let block_bytes = u32::try_from(self.name.block_size.bytes()).unwrap_or(0);
        match Cdb::new(call.cdb).ok().and_then(|cdb| ReadCapacity::parse(&cdb)) {
            Some(ReadCapacity::Short) => {
                let last_block = u32::try_from(last_block).ok().filter(|last| *last != u32::MAX);
                Answer::data(ShortCapacity { last_block, block_bytes }.emit())
            }
            Some(ReadCapacity::Long { allocation }) => {
                let mut data = Capacity { last_block, block_bytes, ..Capacity::default() }.emit();
                data.truncate(usize::try_from(allocation).unwrap_or(usize::MAX));
                Answer::data(data)
            }
            None => Answer::wrong_field(1),
        }
    }

    /// REPORT SUPPORTED OPERATION CODES (SPC-5 6.36), all of them or one.
    pub(super) fn report_opcodes(&self, call: &Call<'_>) -> Answer {
        let [opcode, action_high, action_low] = [call.cdb[3], call.cdb[4], call.cdb[5]];
        let action = u16::from(action_high) << 8 | u16::from(action_low);
        let has_actions = ROWS.iter().any(|row| row.opcode == opcode && row.action.is_some());
        let is_it = |row: &&Row| row.opcode == opcode && row.action.is_none_or(|of| u16::from(of) == action);
        let mut data = match call.cdb[2] & 0x07 {
            0 => all_opcodes(),
            1 if has_actions => return Answer::wrong_field(2),
            2 if !has_actions => return Answer::wrong_field(2),
            1..=3 => one_opcode(ROWS.iter().find(is_it)),
            _ => return Answer::wrong_field(2),
        };
        data.truncate(usize::try_from(number(&call.cdb[6..10])).unwrap_or(usize::MAX));
        Answer::data(data)
    }
}

fn all_opcodes() -> Vec<u8> {
    let length = 8 * ROWS.len();
    let mut data = vec![0, 0, (length >> 8) as u8, (length & 0xff) as u8];
    for row in ROWS {
        let has_action = u8::from(row.action.is_some());
        data.extend([row.opcode, 0, 0, row.action.unwrap_or(0), 0, has_action, 0, length_of(row)]);
    }
    data
}

/// Whether there is such a command, and which bits of it are looked at: all but those of the service action.
fn one_opcode(row: Option<&Row>) -> Vec<u8> {
    let Some(row) = row else { return vec![0, 1, 0, 0] };
    let mut data = vec![0, 3, 0, length_of(row), row.opcode];
    data.resize(4 + row.length, 0xff);
    if let Some(action) = row.action {
        data[5] = 0xe0 | action;
    }
    data
}

fn length_of(row: &Row) -> u8 {
    u8::try_from(row.length).unwrap_or(0)
}
