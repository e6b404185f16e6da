//! Whether the structures of a volume are sound: what `volume check` reports.
//!
//! Pure, over [`Contents`]; nothing is repaired. What holds: every damaged record is named with its
//! place; what merely looks unused is fine; a pair of blocks of which one is good is a *notice*, because
//! an interrupted write leaves just that and readers take the other; a connection that a dead process
//! left behind is *reclaimable* and no error, because the next process of its lane closes it. Not here:
//! the data segments (only the two ends of a connection can open them).

use std::collections::{BTreeMap, BTreeSet};

use volume::BlockAddress;
use volume::SegmentNumber;

use crate::format::host_table::HostRecord;
use crate::format::map::TableMap;
use crate::format::process_id_table::{
    COMMAND_BODY_MAX_BYTES, EntryState, HANDSHAKE_MAX_BYTES, ProcessIdEntry, Role,
};
use crate::format::process_segment_pointer_table::{PointerTable, SegmentFlags};
use crate::inspect::owner_name;
use crate::survey::{Contents, Headed, LaneContents, Pair, Placed, SlotContents, newest};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// All is well.
    Ok,
    /// Worth knowing; nothing has to be done.
    Notice,
    /// A record is damaged.
    Damaged,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Which structure, such as `beacon of alpha`.
    pub structure: String,
    /// Where, if it is one block.
    pub at: Option<BlockAddress>,
    /// What.
    pub text: String,
}

/// Counts over the whole volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows of the host table.
    pub lanes: usize,
    /// Rows of hosts that may take part.
    pub lanes_enrolled: usize,
    /// Slots.
    pub slots: usize,
    /// Slots of connections being opened.
    pub slots_opening: usize,
    /// Slots of connections.
    pub slots_established: usize,
    /// Slots of connections that end.
    pub slots_draining: usize,
    /// Slots that a process left behind which is no more.
    pub slots_reclaimable: usize,
    /// Data segments.
    pub segments: u64,
    /// Damaged records.
    pub damaged: usize,
}

impl Summary {
    /// Slots that are neither free nor closed.
    #[must_use]
    pub fn slots_in_use(&self) -> usize {
        self.slots_opening + self.slots_established + self.slots_draining
    }
}

/// What `volume check` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Findings, by structure.
    pub findings: Vec<Finding>,
    /// Counts.
    pub summary: Summary,
}

impl Report {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.summary.damaged == 0
    }

    fn add(
        &mut self,
        severity: Severity,
        structure: &str,
        at: Option<BlockAddress>,
        text: impl Into<String>,
    ) {
        self.summary.damaged += usize::from(severity == Severity::Damaged);
        self.findings.push(Finding { severity, structure: structure.to_owned(), at, text: text.into() });
    }

    fn damaged(&mut self, structure: &str, at: BlockAddress, text: impl Into<String>) {
        self.add(Severity::Damaged, structure, Some(at), text);
    }

    /// Records of which every copy must be there. The number of good ones.
    fn copies<R>(&mut self, structure: &str, copies: &[Placed<R>]) -> usize {
        for copy in copies {
            match copy.damage() {
                Some(why) => self.damaged(structure, copy.at, why),
                None if copy.is_unused() => self.damaged(structure, copy.at, "it is missing"),
                None => {}
            }
        }
        copies.iter().filter(|copy| copy.record().is_some()).count()
    }

    /// A pair: one good block is enough.
    fn pair<R: Headed>(&mut self, structure: &str, pair: &Pair<R>) {
        let severity = if newest(pair).is_some() { Severity::Notice } else { Severity::Damaged };
        for half in pair {
            if let Some(why) = half.damage() {
                let other =
                    if severity == Severity::Notice { "; the other block of the pair holds" } else { "" };
                self.add(severity, structure, Some(half.at), format!("{why}{other}"));
            }
        }
    }

    /// Says that a group of structures is sound, if no finding was added since `before`.
    fn sound(&mut self, before: usize, structure: &str, text: String) {
        if self.findings[before..].iter().all(|finding| finding.severity < Severity::Damaged) {
            self.add(Severity::Ok, structure, None, text);
        }
    }
}

/// Checks everything. `idle_lanes` are lanes of which it is known that no process runs.
#[must_use]
pub fn check(contents: &Contents, idle_lanes: &BTreeSet<u16>) -> Report {
    let mut report = Report::default();
    let good = report.copies("master control block", &contents.masters);
    report.sound(0, "master control block", format!("{good} of {} copies verify", contents.masters.len()));
    let before = report.findings.len();
    let good = report.copies("secondary device table", &contents.tables);
    report.sound(before, "secondary device table", format!("{good} of 2 copies verify"));
    check_host_table(contents, &mut report);
    check_lanes(contents, &mut report);
    check_slots(contents, idle_lanes, &mut report);
    let master = &contents.layout.master;
    report.summary.lanes = contents.lanes.len();
    report.summary.slots = 2 * usize::from(master.connections) * contents.lanes.len();
    report.summary.segments = master.blk5_tot_seg_num;
    report
}

fn check_host_table(contents: &Contents, report: &mut Report) {
    let before = report.findings.len();
    let mut rows = 0;
    for lane in &contents.lanes {
        let structure = format!("host table row {}", lane.lane);
        if lane.rows.iter().all(Placed::is_unused) {
            continue;
        }
        rows += report.copies(&structure, &lane.rows).min(1);
        if let [Some(one), Some(other)] = [lane.rows[0].record(), lane.rows[1].record()]
            && !say_the_same(one, other)
        {
            report.damaged(&structure, lane.rows[1].at, "the two copies differ");
        }
    }
    check_pools(contents, report);
    let enrolled =
        contents.lanes.iter().filter(|lane| contents.row(lane.lane).is_some_and(HostRecord::is_active));
    report.summary.lanes_enrolled = enrolled.count();
    let hosts: BTreeSet<_> =
        contents.lanes.iter().filter_map(|lane| Some(contents.row(lane.lane)?.public_key)).collect();
    report.sound(before, "host table", format!("{rows} rows of {} hosts verify", hosts.len()));
}

fn say_the_same(one: &HostRecord, other: &HostRecord) -> bool {
    let same_place = HostRecord { header: one.header.clone(), ..other.clone() };
    *one == same_place && one.header.version == other.header.version
}

/// No segment may have two owners.
fn check_pools(contents: &Contents, report: &mut Report) {
    let mut taken: BTreeMap<u64, (u64, u16)> = BTreeMap::new();
    for lane in &contents.lanes {
        let Some(row) = contents.row(lane.lane).filter(|row| row.is_active()) else { continue };
        for range in row.pool_ranges.iter() {
            let end = range.first_segment + range.count;
            let before = taken.range(..end).next_back();
            if let Some((_, (other_end, owner))) = before
                && *other_end > range.first_segment
            {
                let text = format!("segment {} belongs to row {owner} too", range.first_segment);
                report.damaged(&format!("host table row {}", lane.lane), lane.rows[0].at, text);
            }
            taken.insert(range.first_segment, (end, lane.lane));
        }
    }
}

fn check_lanes(contents: &Contents, report: &mut Report) {
    let before = report.findings.len();
    for lane in &contents.lanes {
        let name = owner_name(contents, lane.lane);
        let beacon = format!("beacon of {name}");
        if let Some(why) = lane.beacon.damage() {
            report.damaged(&beacon, lane.beacon.at, why);
        }
        if let Some(record) = lane.beacon.record()
            && usize::from(record.entry_count) < record.out_directory.len()
        {
            report.damaged(&beacon, lane.beacon.at, "entry_count is below the entries there");
        }
        if let Some(why) = lane.bell.damage() {
            // Anybody may ring, so anything may stand here, and any change counts as a ring.
            report.add(Severity::Notice, &format!("bell of {name}"), Some(lane.bell.at), why);
        }
        report.pair(&format!("incarnation record of {name}"), &lane.incarnation);
        let directory = format!("in-directory of {name}");
        report.pair(&directory, &lane.in_directory);
        if let Some(record) = newest(&lane.in_directory)
            && usize::from(record.entry_count) < record.in_directory.len()
        {
            report.damaged(&directory, lane.in_directory[0].at, "entry_count is below the entries there");
        }
        if contents.row(lane.lane).is_none() && has_records(lane) {
            report.add(Severity::Notice, &name, None, "has records and no row in the host table");
        }
    }
    let started = contents.lanes.iter().filter(|lane| lane.incarnation() > 0).count();
    report.sound(before, "beacons and control areas", format!("those of {started} lanes verify"));
}

fn has_records(lane: &LaneContents) -> bool {
    !lane.beacon.is_unused() || !lane.incarnation.iter().all(Placed::is_unused) || !lane.slots.is_empty()
}

fn check_slots(contents: &Contents, idle_lanes: &BTreeSet<u16>, report: &mut Report) {
    let before = report.findings.len();
    let mut written = 0;
    for lane in &contents.lanes {
        for slot in &lane.slots {
            written += 1;
            let entry = format!("process id table entry {}", slot.process_id);
            let table = format!("pointer table {}", slot.process_id);
            report.pair(&entry, &slot.entry);
            report.pair(&table, &slot.table);
            if let Some(record) = newest(&slot.entry) {
                if let Some(field) = wrong_in_entry(contents, slot.process_id, record) {
                    report.damaged(
                        &entry,
                        slot.entry[0].at,
                        format!("field {field} has a value it cannot have"),
                    );
                }
                count_slot(contents, idle_lanes, lane, slot, record, report);
            }
            if let Some(record) = newest(&slot.table)
                && let Some(what) = wrong_in_table(contents, lane, record)
            {
                report.damaged(&table, slot.table[0].at, what);
            }
        }
    }
    let text = format!("{written} slots that were ever used are in order");
    report.sound(before, "process id table and pointer tables", text);
}

fn count_slot(
    contents: &Contents,
    idle_lanes: &BTreeSet<u16>,
    lane: &LaneContents,
    slot: &SlotContents,
    entry: &ProcessIdEntry,
    report: &mut Report,
) {
    let summary = &mut report.summary;
    match entry.state {
        EntryState::Free | EntryState::Closed => return,
        EntryState::Requested | EntryState::Answered => summary.slots_opening += 1,
        EntryState::Established => summary.slots_established += 1,
        EntryState::Draining => summary.slots_draining += 1,
    }
    let is_old = entry.header.incarnation < lane.incarnation();
    if is_old || idle_lanes.contains(&lane.lane) {
        summary.slots_reclaimable += 1;
        let owner = owner_name(contents, lane.lane);
        let text = format!("reclaimable: its process is no more; the next one of {owner} closes it");
        let structure = format!("process id table entry {}", slot.process_id);
        report.add(Severity::Notice, &structure, None, text);
    }
}

fn wrong_in_entry(contents: &Contents, process_id: u32, entry: &ProcessIdEntry) -> Option<&'static str> {
    let map = TableMap::new(&contents.layout);
    let (_, row) = map.split(process_id);
    let role = if row < map.connections() { Role::Initiator } else { Role::Connector };
    let role_fits = match entry.state {
        EntryState::Free => true,
        EntryState::Requested => entry.role == role && role == Role::Initiator,
        EntryState::Answered => entry.role == role && role == Role::Connector,
        _ => entry.role == role,
    };
    let wants = [
        ("pro_process_id", entry.pro_process_id == process_id),
        ("role", role_fits),
        ("window", u32::from(entry.window) <= contents.layout.master.blk5_ptr_seg_per_process),
        ("seg_max", entry.seg_max <= contents.layout.master.seg_max),
        ("handshake_length", usize::from(entry.handshake_length) <= HANDSHAKE_MAX_BYTES),
        ("body_length", usize::from(entry.pro_dtd.body_length) <= COMMAND_BODY_MAX_BYTES),
    ];
    wants.iter().find(|(_, holds)| !holds).map(|(field, _)| *field)
}

fn wrong_in_table(contents: &Contents, lane: &LaneContents, table: &PointerTable) -> Option<String> {
    let Some(entries) = table.entries() else { return Some("an entry is damaged".into()) };
    if usize::from(table.nack_count) != table.nacks.len() {
        return Some("nack_count is not the number of entries there".into());
    }
    let row = contents.row(lane.lane)?;
    let layout = &contents.layout;
    entries.iter().flatten().find_map(|entry| {
        let seq = entry.ptr_process_block_seq;
        if entry.ptr_process_segment_flg.contains(SegmentFlags::IN_TABLE) {
            return None;
        }
        let at = BlockAddress { device: entry.device, block: entry.ptr_process_segment_ptr };
        let is_ours = |number: SegmentNumber| row.owns_segment(number);
        if !layout.segment_at(at).is_some_and(is_ours) {
            return Some(format!("entry of segment {seq} points to {at}, which is not in its owner's pool"));
        }
        let too_long = u64::from(entry.ptr_process_blk_read) > layout.segment_blocks();
        too_long.then(|| format!("entry of segment {seq} is longer than a segment"))
    })
}
