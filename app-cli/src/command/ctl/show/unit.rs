//! Size, access states and the units behind a port. Not here: what the unit is (`inquiry`, `vpd`).

use storage_mapping::ByteSize;
use storage_mapping::scsi::capacity::Capacity;
use storage_mapping::scsi::luns::LunList;
use storage_mapping::scsi::port_groups::{PortGroup, PortGroups, SupportedStates, state_name};
use transfer_core::inspect::Section;
use volume::open::hex;

use super::{note_cut, set_of, unreadable, yes};

/// READ CAPACITY (16).
pub(in super::super) fn capacity(data: &[u8]) -> Section {
    let Some(capacity) = Capacity::parse(data) else { return unreadable("Capacity", data) };
    let mut section = Section::new("Capacity");
    let blocks = capacity.last_block.saturating_add(1);
    let bytes = blocks.saturating_mul(capacity.block_bytes.into());
    section.field("size", format!("{} ({bytes} bytes)", ByteSize(bytes)));
    section.field("blocks", blocks);
    section.field("block_bytes", capacity.block_bytes);
    section
        .field("physical_block_bytes", u64::from(capacity.block_bytes) << capacity.physical_exponent.min(15));
    section.field("lowest_aligned_block", capacity.lowest_aligned);
    section.field(
        "protection",
        capacity.protection_type.map_or("none".to_owned(), |kind| format!("type {kind}")),
    );
    section.field("thin", yes(capacity.provisioned));
    section.field("unmapped_blocks_read_zeros", yes(capacity.reads_zeros));
    note_cut(&mut section, capacity.is_whole);
    section
}

/// REPORT LUNS.
pub(in super::super) fn luns(data: &[u8]) -> Section {
    let Some(list) = LunList::parse(data) else { return unreadable("Logical units", data) };
    let mut section = Section::new(format!("Logical units: {}", list.luns.len()));
    for lun in &list.luns {
        let number =
            lun.number().map_or("of another addressing method".to_owned(), |number| number.to_string());
        section.field(&hex(&lun.0), number);
    }
    note_cut(&mut section, list.is_whole);
    section
}

/// REPORT TARGET PORT GROUPS.
pub(in super::super) fn port_groups(data: &[u8]) -> Section {
    let Some(report) = PortGroups::parse(data) else { return unreadable("Target port groups", data) };
    let mut section = Section::new(format!("Target port groups: {}", report.groups.len()));
    if let Some(seconds) = report.transition_seconds {
        section.field("transition_seconds", seconds);
    }
    section.children = report.groups.iter().map(group).collect();
    note_cut(&mut section, report.is_whole);
    section
}

fn group(group: &PortGroup) -> Section {
    let mut part = Section::new(format!("group {}", group.group));
    part.field("state", state_name(group.state_number));
    part.field("preferred", yes(group.is_preferred));
    part.field("reached_by", reached_by(group.status));
    let ports: Vec<String> = group.ports.iter().map(ToString::to_string).collect();
    part.field("ports", ports.join(", "));
    let can = [
        (SupportedStates::ACTIVE_OPTIMIZED, "optimized"),
        (SupportedStates::ACTIVE_NON_OPTIMIZED, "non-optimized"),
        (SupportedStates::STANDBY, "standby"),
        (SupportedStates::UNAVAILABLE, "unavailable"),
        (SupportedStates::OFFLINE, "offline"),
        (SupportedStates::TRANSITIONING, "transitioning"),
    ];
    let can: Vec<(bool, &str)> =
        can.iter().map(|(flag, name)| (group.supported.contains(*flag), *name)).collect();
    part.field("can_be", set_of(&can));
    part
}

fn reached_by(status: u8) -> &'static str {
    match status {
        0 => "not told",
        1 => "a command",
        2 => "the target",
        _ => "reserved",
    }
}
