//! What the volume's tables say at a moment: hosts, their beacons, the slots in use.
//!
//! Reads only; needs no lane and no key. Beacons and entries are hints of whoever wrote them, and shown
//! as that. Not here: every field of every record (`volume inspect`), whether they are sound
//! (`volume check`).

use serde::Serialize;
use thiserror::Error;
use transfer_core::driver::clock::Clock;
use transfer_core::enrolment::read_host_table;
use transfer_core::format::beacon::{Beacon, BeaconState};
use transfer_core::format::host_table::HostRecord;
use transfer_core::format::map::TableMap;
use transfer_core::format::process_id_table::{EntryState, ProcessIdEntry, Role};
use volume::header::parse_page;
use volume::layout::device_name;
use volume::record::Record;
use volume::sync::{self, SyncError, Waiter};
use volume::{BLOCK_BYTES, Layout, Volume};

use crate::config::HostConfig;
use crate::escape;
use crate::stack::{self, StackError};

/// Why a volume cannot be surveyed.
#[derive(Debug, Error)]
pub enum SurveyError {
    /// The devices.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// I/O on the master.
    #[error("cannot read the volume's tables: {0}")]
    Read(#[from] SyncError),
}

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

/// An open volume and its host table.
pub struct Surveyor {
    waiter: Waiter<'static>,
    volume: Volume,
    rows: Vec<Option<HostRecord>>,
    notices: Vec<String>,
}

impl Surveyor {
    /// Opens the volume of a host's configuration, for reading.
    ///
    /// # Errors
    /// See [`SurveyError`].
    pub fn open(config: &HostConfig) -> Result<Self, SurveyError> {
        let waiter = stack::waiter(Clock::new());
        let section = &config.volume;
        let (id, admin) = (Some(section.id.0), Some(&section.admin_key.0));
        let stacked = stack::volume(&waiter, &config.file, &config.base, &section.devices, id, admin)?;
        let (mut volume, mut notices) = (stacked.value, stacked.notices);
        let layout = volume.layout().clone();
        let master = volume.device_mut(0).expect("a volume has a master");
        let table = read_host_table(&waiter, master.as_mut(), &layout)?;
        notices.extend(table.notices);
        Ok(Self { waiter, volume, rows: table.rows, notices })
    }

    /// Reads beacons and slots.
    ///
    /// # Errors
    /// See [`SurveyError`].
    pub fn look(&mut self) -> Result<Survey, SurveyError> {
        let layout = self.volume.layout().clone();
        let (connections, slots, slots_used) = self.slots(&layout)?;
        Ok(Survey {
            version: 1,
            volume: volume::open::hex(&layout.master.volume_id),
            devices: devices(&layout),
            lanes: self.lanes(&layout)?,
            connections,
            slots,
            slots_used,
            notices: self.notices.clone(),
        })
    }

    fn read(&mut self, block: u64, blocks: usize) -> Result<storage_mapping::Buffer, SyncError> {
        let master = self.volume.device_mut(0).expect("a volume has a master");
        sync::read(&self.waiter, master.as_mut(), block, blocks * BLOCK_BYTES)
    }

    fn lanes(&mut self, layout: &Layout) -> Result<Vec<Lane>, SurveyError> {
        let map = TableMap::new(layout);
        let beacons = self.read(map.beacon(0).block, map.lanes().into())?;
        let rows = self.rows.iter().zip(beacons.chunks_exact(BLOCK_BYTES));
        Ok(rows.filter_map(|(row, page)| Some(lane_of(row.as_ref()?, page))).collect())
    }

    fn slots(&mut self, layout: &Layout) -> Result<(Vec<Slot>, usize, usize), SurveyError> {
        let map = TableMap::new(layout);
        let per_lane = 2 * usize::from(map.connections());
        let (mut open, mut used) = (Vec::new(), 0);
        for row in self.rows.clone().iter().flatten() {
            let start = map.process_id_entry(map.initiator_id(row.host_id, 0)).block;
            let bytes = self.read(start, 2 * per_lane)?;
            for pair in bytes.chunks_exact(2 * BLOCK_BYTES) {
                let halves =
                    pair.chunks_exact(BLOCK_BYTES).filter_map(|half| ProcessIdEntry::parse(half).ok());
                let newest = halves.max_by_key(|entry| (entry.header.incarnation, entry.header.version));
                let Some(entry) = newest else { continue };
                used += 1;
                open.extend(slot_of(row, &entry));
            }
        }
        Ok((open, per_lane * self.rows.iter().flatten().count(), used))
    }
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

fn lane_of(row: &HostRecord, page: &[u8]) -> Lane {
    let beacon = parse_page::<Beacon>(page, None).ok();
    let state = match beacon.as_ref().map(|beacon| beacon.state) {
        None => "never started",
        Some(BeaconState::Leaving) => "left",
        Some(BeaconState::Starting | BeaconState::Running) => "running",
    };
    Lane {
        host: escape::name(row.name.as_str()),
        lane: row.lane,
        state,
        incarnation: beacon.as_ref().map_or(0, |beacon| beacon.header.incarnation),
        beacon: beacon.as_ref().map_or(0, |beacon| beacon.counter),
        period_ms: beacon.as_ref().map_or(0, |beacon| beacon.period_ms),
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
