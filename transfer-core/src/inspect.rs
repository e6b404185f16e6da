//! The structures of a volume field by field, as the figures draw them.
//!
//! Pure: from [`Contents`] to a tree of titles, names and values. What holds: every field of the figures
//! appears under its own name; texts from the disk are escaped; secrets and long runs of bytes are
//! counted, not shown. Works in the middle of a transfer: a record whose seal needs a connection's keys
//! says so. Not here: what is wrong (`check`), how the tree is printed (the program).

use volume::BlockAddress;
use volume::layout::device_name;
use volume::open::hex;
use volume::record::{Record, Wire};

use crate::format::host_table::HostRecord;
use crate::format::map::TableMap;
use crate::format::process_id_table::{CommandStructure, EntryState, ProcessIdEntry, Role};
use crate::format::process_segment_pointer_table::{PointerEntry, PointerTable};
use crate::survey::{Contents, Found, Headed, Pair, Placed, SlotContents, newest};

/// The fields of FIG. 4, in its order.
const FIGURE_4: [&str; 15] = [
    "blk5_id",
    "blk5_dev_id",
    "blk5_seg_size",
    "blk5_version",
    "blk5_time_id",
    "blk5_tot_seg_num",
    "blk5_process_id_table_ptr",
    "blk5_secondary_device_entrynum",
    "blk5_start_process_segment_ptr",
    "blk5_max_connections",
    "blk5_mast_sec_start_ptr",
    "blk5_mast_sec_start_segment_ptr",
    "blk5_ptr_seg_per_process",
    "blk5_maxptr",
    "blk5_unix_filename",
];
/// The fields of FIG. 6, in its order.
const FIGURE_6: [&str; 4] =
    ["sec_dev_id", "sec_str_seg_ptr", "sec_seg_number_for_device", "sec_start_segment_number"];

/// A part of what is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// What it is.
    pub title: String,
    /// Names and values, in order.
    pub fields: Vec<(String, String)>,
    /// Its parts.
    pub children: Vec<Section>,
}

impl Section {
    /// A section without fields.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// Adds a field.
    pub fn field(&mut self, name: &str, value: impl ToString) -> &mut Self {
        self.fields.push((name.to_owned(), value.to_string()));
        self
    }
}

/// Everything, one section for each structure.
#[must_use]
pub fn volume(contents: &Contents) -> Vec<Section> {
    vec![
        master_control_block(contents),
        device_table(contents),
        host_table(contents),
        liveness(contents),
        process_id_table(contents),
        pointer_tables(contents),
    ]
}

/// FIG. 4: the fields once, and every copy with its identifier and state.
#[must_use]
pub fn master_control_block(contents: &Contents) -> Section {
    let master = &contents.layout.master;
    let mut section = Section::new("Master control block (FIG. 4)");
    section.fields = fields_of(master, &FIGURE_4);
    for (name, value) in &mut section.fields {
        match name.as_str() {
            "blk5_id" => *value = identifier(&master.blk5_id),
            "blk5_version" => *value = version(master.blk5_version),
            "blk5_time_id" => *value = time(master.blk5_time_id),
            _ => {}
        }
    }
    section
        .field("volume_id", hex(&master.volume_id))
        .field("lanes", master.lanes)
        .field("connections", format!("{} of each lane and role", master.connections))
        .field("seg_max", format!("{} bytes", master.seg_max))
        .field("admin_public_key", hex(&master.admin_public_key));
    let mut copies = Section::new("Copies");
    for copy in &contents.masters {
        let state = match &copy.found {
            Found::Good(copy) | Found::Keyed(copy) => format!("{}, verified", identifier(&copy.blk5_id)),
            Found::Unused => "nothing: damaged".into(),
            Found::Damaged(why) => format!("damaged: {why}"),
        };
        copies.field(&copy.at.to_string(), state);
    }
    let mut regions = Section::new("Regions of the master");
    for (number, (region, name)) in master.regions.iter().zip(REGIONS).enumerate() {
        let place = format!("{:>8} blocks from {:>8} on", region.blocks, region.start);
        regions.field(&format!("{number} {name}"), place);
    }
    section.children = vec![copies, regions];
    section
}

/// What the regions of the master hold.
const REGIONS: [&str; 8] = [
    "secondary device table",
    "host table",
    "beacons",
    "bells",
    "control areas",
    "process id table",
    "pointer tables",
    "data segments",
];

/// FIG. 6, row by row.
#[must_use]
pub fn device_table(contents: &Contents) -> Section {
    let mut section = Section::new("Secondary device table (FIG. 6)");
    for copy in &contents.tables {
        section.field(&copy.at.to_string(), state_of(copy));
    }
    for row in contents.layout.table.rows.iter() {
        let mut device = Section::new(format!("device {}", row.device_index));
        device.fields = fields_of(row, &FIGURE_6);
        device.fields[0].1 = device_name(&row.sec_dev_id);
        device.field("device_size", row.device_size).field("flags", row.flags.show());
        section.children.push(device);
    }
    section
}

/// The host table, row by row.
#[must_use]
pub fn host_table(contents: &Contents) -> Section {
    let mut section = Section::new("Host table");
    for lane in &contents.lanes {
        let mut row = Section::new(format!("row {}", lane.lane));
        match contents.row(lane.lane) {
            Some(record) => {
                let segments: u64 = record.pool_ranges.iter().map(|range| range.count).sum();
                row.field("name", record.name.show())
                    .field("lane", record.lane)
                    .field("os_type", record.os_type.show())
                    .field("flags", record.flags.show())
                    .field("segments", segments)
                    .field("public_key", format!("{}…", hex(&record.public_key[..6])));
            }
            None if lane.rows.iter().all(Placed::is_unused) => continue,
            None => {
                row.field("state", "damaged");
            }
        }
        section.children.push(row);
    }
    section
}

/// Beacons, bells and incarnations, one row for each lane that ever started.
#[must_use]
pub fn liveness(contents: &Contents) -> Section {
    let mut section = Section::new("Beacons and bells");
    for lane in contents.lanes.iter().filter(|lane| lane.incarnation() > 0 || lane.beacon.damage().is_some())
    {
        let mut row = Section::new(owner_name(contents, lane.lane));
        row.field("incarnation", lane.incarnation());
        match lane.beacon.record() {
            Some(beacon) => row
                .field("state", beacon.state.show())
                .field("counter", beacon.counter)
                .field("period", format!("{} ms", beacon.period_ms))
                .field("calls", beacon.out_directory.len()),
            None => row.field("state", state_of(&lane.beacon)),
        };
        row.field("answers", newest(&lane.in_directory).map_or(0, |record| record.in_directory.len()));
        let ringer = lane.bell.record().map(|bell| owner_name(contents, bell.ringer));
        row.field("rung by", ringer.unwrap_or_else(|| "-".into()));
        section.children.push(row);
    }
    section
}

/// FIG. 5: the two entries of each connection as one, then those that stand alone.
#[must_use]
pub fn process_id_table(contents: &Contents) -> Section {
    let mut section = Section::new("Process id table (FIG. 5)");
    let mut shown = Vec::new();
    for slot in slots(contents) {
        let Some(entry) = newest(&slot.entry) else { continue };
        if entry.state == EntryState::Free || shown.contains(&slot.process_id) {
            continue;
        }
        let peer = peer_of(contents, entry);
        shown.push(slot.process_id);
        shown.extend(peer.map(|peer| peer.process_id));
        let (initiator, connector) = match (entry.role, peer) {
            (Role::Connector, peer) => (peer, Some(slot)),
            (_, peer) => (Some(slot), peer),
        };
        section.children.push(connection(contents, initiator, connector));
    }
    let free = slots_in_all(contents) - shown.len();
    section.field("slots", format!("{} ({free} free)", slots_in_all(contents)));
    section
}

fn slots_in_all(contents: &Contents) -> usize {
    2 * usize::from(contents.layout.master.connections) * usize::from(contents.layout.master.lanes)
}

fn slots(contents: &Contents) -> impl Iterator<Item = &SlotContents> {
    contents.lanes.iter().flat_map(|lane| &lane.slots)
}

/// The other half of the connection of `entry`, if each names the other.
fn peer_of<'a>(contents: &'a Contents, entry: &ProcessIdEntry) -> Option<&'a SlotContents> {
    let names_us = |slot: &&SlotContents| {
        newest(&slot.entry).is_some_and(|peer| {
            peer.peer_process_id == entry.pro_process_id
                && peer.serial == entry.serial
                && peer.role != entry.role
                && peer.state != EntryState::Free
        })
    };
    // While it calls, the initiator does not know the connector's slot yet.
    if entry.peer_process_id == u32::MAX {
        return slots(contents).find(names_us);
    }
    contents.slot(entry.peer_process_id).filter(names_us)
}

/// One connection: the initiator's value, then the connector's where it differs.
fn connection(
    contents: &Contents,
    initiator: Option<&SlotContents>,
    connector: Option<&SlotContents>,
) -> Section {
    let halves = [initiator, connector].map(|slot| slot.and_then(|slot| Some((slot, newest(&slot.entry)?))));
    let name = |half: usize| match (halves[half], halves[1 - half]) {
        (Some((slot, _)), _) => {
            let (lane, _) = TableMap::new(&contents.layout).split(slot.process_id);
            owner_name(contents, lane)
        }
        (None, Some((_, entry))) if half == 0 => entry.pro_requestor.show(),
        (None, Some((_, entry))) => entry.pro_requestee.show(),
        (None, None) => String::new(),
    };
    let mut section = Section::new(format!("{} calls {}", name(0), name(1)));
    let mut both = |name: &str, value: &dyn Fn(&SlotContents, &ProcessIdEntry) -> String| {
        let values = halves.map(|half| half.map(|(slot, entry)| value(slot, entry)));
        let text = match values {
            [Some(one), Some(other)] if one != other => format!("{one} | {other}"),
            [one, other] => one.or(other).unwrap_or_default(),
        };
        section.field(name, text);
    };
    both("pro_process_id", &|_, entry| entry.pro_process_id.to_string());
    both("pro_flag_process", &|_, entry| entry.pro_flag_process.show());
    both("pro_con_rc", &|_, entry| entry.pro_con_rc.show());
    both("pro_requestor", &|_, entry| entry.pro_requestor.show());
    both("pro_requestor_password", &|_, entry| handshake(entry));
    both("pro_requestor_type", &|_, entry| entry.pro_requestor_type.show());
    both("pro_requestee", &|_, entry| entry.pro_requestee.show());
    both("pro_requestee_type", &|_, entry| entry.pro_requestee_type.show());
    let command_of = |role: usize| halves[role].map_or("-".into(), |(_, entry)| command(entry));
    both("pro_dtd", &|_, _| command_of(0));
    both("InitM", &|_, _| command_of(1));
    both("state", &|_, entry| entry.state.show());
    both("serial", &|_, entry| entry.serial.to_string());
    both("incarnation", &|_, entry| entry.header.incarnation.to_string());
    both("version", &|_, entry| entry.header.version.to_string());
    both("seal", &|slot, _| seal_of(&slot.entry));
    section
}

/// FIG. 7: the table of every slot in use, with the entries that are not holes.
#[must_use]
pub fn pointer_tables(contents: &Contents) -> Section {
    let mut section = Section::new("Process segment pointer tables (FIG. 7)");
    for slot in slots(contents) {
        if let Some(table) = newest(&slot.table)
            && table.state != EntryState::Free
        {
            section.children.push(pointer_table(contents, slot, table));
        }
    }
    section
}

fn pointer_table(contents: &Contents, slot: &SlotContents, table: &PointerTable) -> Section {
    let (lane, _) = TableMap::new(&contents.layout).split(slot.process_id);
    let owner = owner_name(contents, lane);
    let mut section = Section::new(format!("process {}: {owner}, {:?}", slot.process_id, table.role));
    section
        .field("state", table.state.show())
        .field("serial", table.serial)
        .field("version", table.header.version)
        .field("received", table.received)
        .field("read_flags", format!("{:#x}", table.read_flags))
        .field("durable", table.durable)
        .field("window_limit", table.window_limit)
        .field("credits", format!("{} blocks", table.credits))
        .field("command_ack", table.command_ack)
        .field("nacks", table.nacks.len())
        .field("base_seq", table.base_seq)
        .field("entry_count", table.entry_count)
        .field("seal", seal_of(&slot.table));
    let entries = table.entries();
    if entries.is_none() {
        section.field("entries", "damaged");
    }
    for (index, entry) in entries.unwrap_or_default().iter().enumerate() {
        let Some(entry) = entry else { continue };
        let mut row = Section::new(format!("entry {index}"));
        row.fields = pointer_fields(entry);
        section.children.push(row);
    }
    section
}

/// The five fields of FIG. 7, in its order.
fn pointer_fields(entry: &PointerEntry) -> Vec<(String, String)> {
    let at = BlockAddress { device: entry.device, block: entry.ptr_process_segment_ptr };
    let flags: Vec<_> = entry.ptr_process_segment_flg.iter_names().map(|(name, _)| name).collect();
    let flags = if flags.is_empty() { "-".into() } else { flags.join("|") };
    vec![
        ("ptr_process_segment_ptr".into(), format!("{}:{}", at.device, at.block)),
        ("ptr_process_segment_flg".into(), flags),
        ("ptr_process_block_seq".into(), entry.ptr_process_block_seq.to_string()),
        ("ptr_process_req_id".into(), entry.ptr_process_req_id.to_string()),
        ("ptr_process_blk_read".into(), entry.ptr_process_blk_read.to_string()),
    ]
}

/// A lane as people know it: `alpha` for that of `serve`, `alpha/2` for another.
#[must_use]
pub fn owner_name(contents: &Contents, lane: u16) -> String {
    match contents.row(lane) {
        Some(HostRecord { name, lane: 0, .. }) => name.show(),
        Some(record) => format!("{}/{}", record.name.show(), record.lane),
        None => format!("row {lane}"),
    }
}

/// The fields `names` of a record, in that order.
fn fields_of<R: Record>(record: &R, names: &[&str]) -> Vec<(String, String)> {
    let all = record.show_fields();
    let value = |name| all.iter().find(|(field, _)| field.name == name).map(|(_, value)| value.clone());
    names.iter().filter_map(|name| Some(((*name).to_owned(), value(*name)?))).collect()
}

/// Nanoseconds since 1970, and the same as date and time of day in UTC.
fn time(nanoseconds: u64) -> String {
    format!("{nanoseconds} ({} UTC)", calendar(nanoseconds / 1_000_000_000))
}

/// Seconds since 1970 as date and time of day in UTC: `2026-11-23 05:00:22`.
#[must_use]
pub fn calendar(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that the leap day is the last of its year; eras have 400 years.
    let from_march = days + 719_468;
    let (era, of_era) = (from_march / 146_097, from_march % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

fn state_of<R>(placed: &Placed<R>) -> String {
    match &placed.found {
        Found::Unused => "never written".into(),
        Found::Good(_) => "verified".into(),
        Found::Keyed(_) => KEYED.into(),
        Found::Damaged(why) => format!("damaged: {why}"),
    }
}

/// What is said of a seal that only the two ends can verify.
const KEYED: &str = "sealed with the connection's keys";

/// The seal of the record of a pair that counts, and whether the other block is damaged.
fn seal_of<R: Headed>(pair: &Pair<R>) -> String {
    let keyed = newest(pair).is_some_and(|record| {
        pair.iter()
            .any(|half| matches!(&half.found, Found::Keyed(keyed) if keyed.header() == record.header()))
    });
    let damaged = if pair.iter().any(|half| half.damage().is_some()) { ", other block damaged" } else { "" };
    format!("{}{damaged}", if keyed { KEYED } else { "verified" })
}

fn identifier(id: &[u8; 8]) -> String {
    String::from_utf8_lossy(id).trim_end_matches('\0').escape_debug().collect()
}

fn version(version: u32) -> String {
    format!("{}.{}", version & 0xFFFF, version >> 16)
}

fn handshake(entry: &ProcessIdEntry) -> String {
    match entry.handshake_number {
        0 => "no message (the handshake has this place)".into(),
        number => format!("handshake message {number}, {} bytes", entry.handshake_length),
    }
}

fn command(entry: &ProcessIdEntry) -> String {
    let CommandStructure { opcode, body_length, request_id, command_number, .. } = &entry.pro_dtd;
    if *opcode == 0 {
        return "none".into();
    }
    format!("opcode {opcode}, number {command_number}, request {request_id}, {body_length} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, shown) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_735_689_599, "2024-12-31 23:59:59"),
            (1_735_689_600, "2025-01-01 00:00:00"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            let nanoseconds = seconds * 1_000_000_000;
            assert_eq!(time(nanoseconds), format!("{nanoseconds} ({shown} UTC)"));
        }
        assert!(time(u64::MAX).contains("(2554-07-21 "));
    }
}
