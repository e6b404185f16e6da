//! What the volume's tables say at a moment: hosts, their beacons, the slots in use.
//!
//! Reads only; needs no lane and no key. Beacons and entries are hints of whoever wrote them, and shown
//! as that. Not here: every field of every record (`volume inspect`), whether they are sound
//! (`volume check`).

use serde::Serialize;
use transfer_core::driver::clock::Clock;
use transfer_core::format::beacon::BeaconState;
use transfer_core::format::host_table::HostRecord;
use transfer_core::format::process_id_table::{EntryState, ProcessIdEntry, Role};
use transfer_core::survey::{Contents, LaneContents, newest, read};
use volume::layout::device_name;
use volume::sync::Waiter;
use volume::{BLOCK_BYTES, Layout, Volume};

use crate::config::HostConfig;
use crate::escape;
use crate::stack::{self, Origin, StackError};

/// A volume at a moment.
#[derive(Clone, Debug, Serialize)]
pub struct Survey {
    /// Version of this object.
    pub version: u32,
    /// Id of the volume.
    pub volume: String,
    /// Its devices.
    pub devices: Vec<Device>,
    /// Lanes of its hosts.
    pub lanes: Vec<Lane>,
    /// Slots that are not free.
    pub connections: Vec<Slot>,
    /// Entries of the process id table.
    pub slots: usize,
    /// Entries that were used at least once.
    pub slots_used: usize,
    /// Copies and rows that do not verify.
    pub notices: Vec<String>,
}

/// A device of the volume.
#[derive(Clone, Debug, Serialize)]
pub struct Device {
    /// Its id.
    pub id: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Data segments on it.
    pub segments: u64,
}

/// One lane of a host.
#[derive(Clone, Debug, Serialize)]
pub struct Lane {
    /// Name of the host.
    pub host: String,
    /// Number of the lane; 0 is `serve`.
    pub lane: u16,
    /// `never started`, `running`, `left`.
    pub state: &'static str,
    /// Its incarnation.
    pub incarnation: u64,
    /// Number of its last beacon.
    pub beacon: u64,
    /// Milliseconds from a beacon to the next.
    pub period_ms: u32,
}

/// A slot in use.
#[derive(Clone, Debug, Serialize)]
pub struct Slot {
    /// Name of the host that owns it.
    pub host: String,
    /// Its lane.
    pub lane: u16,
    /// `initiator` or `connector`.
    pub role: &'static str,
    /// Name of the host at the other end.
    pub peer: String,
    /// `requested`, `answered`, `established`, `draining`.
    pub state: &'static str,
}

/// An open volume.
pub struct Surveyor {
    waiter: Waiter<'static>,
    volume: Volume,
    admin_key: [u8; 32],
    notices: Vec<String>,
}

impl Surveyor {
    /// Opens the volume of a host's configuration, for reading.
    ///
    /// # Errors
    /// See [`StackError`].
    pub fn open(config: &HostConfig) -> Result<Self, StackError> {
        let waiter = stack::waiter(Clock::new());
        let section = &config.volume;
        let admin_key = section.admin_key.0;
        let (id, admin) = (Some(section.id.0), Some(&admin_key));
        let origin = Origin::of_host(config, false);
        let stacked = stack::volume(&waiter, &origin, &section.devices, id, admin)?;
        Ok(Self { waiter, volume: stacked.value, admin_key, notices: stacked.notices })
    }

    /// Reads beacons and slots.
    pub fn look(&mut self) -> Survey {
        let contents = read(&self.waiter, &mut self.volume, Some(&self.admin_key));
        let (connections, slots, slots_used) = slots_of(&contents);
        let lanes = contents.lanes.iter();
        Survey {
            version: 1,
            volume: volume::open::hex(&contents.layout.master.volume_id),
            devices: devices(&contents.layout),
            lanes: lanes.filter_map(|lane| Some(lane_of(contents.row(lane.lane)?, lane))).collect(),
            connections,
            slots,
            slots_used,
            notices: self.notices.clone(),
        }
    }
}

/// The open slots; how many slots the hosts have, and how many were ever used.
fn slots_of(contents: &Contents) -> (Vec<Slot>, usize, usize) {
    let (mut open, mut all, mut used) = (Vec::new(), 0, 0);
    for lane in &contents.lanes {
        let Some(row) = contents.row(lane.lane) else { continue };
        all += lane.slots.len();
        for entry in lane.slots.iter().filter_map(|slot| newest(&slot.entry)) {
            used += 1;
            open.extend(slot_of(row, entry));
        }
    }
    (open, all, used)
}

fn devices(layout: &Layout) -> Vec<Device> {
    let rows = layout.table.rows.iter();
    rows.map(|row| Device {
        id: device_name(&row.sec_dev_id),
        bytes: row.device_size * BLOCK_BYTES as u64,
        segments: row.sec_seg_number_for_device,
    })
    .collect()
}

fn lane_of(row: &HostRecord, lane: &LaneContents) -> Lane {
    let beacon = lane.beacon.record();
    let state = match beacon.map(|beacon| beacon.state) {
        None => "never started",
        Some(BeaconState::Leaving) => "left",
        Some(BeaconState::Starting | BeaconState::Running) => "running",
    };
    Lane {
        host: escape::name(row.name.as_str()),
        lane: row.lane,
        state,
        incarnation: beacon.map_or(0, |beacon| beacon.header.incarnation),
        beacon: beacon.map_or(0, |beacon| beacon.counter),
        period_ms: beacon.map_or(0, |beacon| beacon.period_ms),
    }
}

fn slot_of(row: &HostRecord, entry: &ProcessIdEntry) -> Option<Slot> {
    let state = match entry.state {
        EntryState::Free | EntryState::Closed => return None,
        EntryState::Requested => "requested",
        EntryState::Answered => "answered",
        EntryState::Established => "established",
        EntryState::Draining => "draining",
    };
    let connector = entry.role == Role::Connector;
    let peer = if connector { &entry.pro_requestor } else { &entry.pro_requestee };
    Some(Slot {
        host: escape::name(row.name.as_str()),
        lane: row.lane,
        role: if connector { "connector" } else { "initiator" },
        peer: escape::name(peer.as_str()),
        state,
    })
}
