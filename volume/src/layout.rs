//! FIG. 3, what lies where: the regions of the master, the segments of the secondaries, and how the
//! segments are divided over the lanes.
//!
//! | region | content | blocks |
//! |---|---|---|
//! | – | master control block and its copy | 2 |
//! | 0 | secondary device table, twice | 2 |
//! | 1 | host table, twice | 2 N |
//! | 2 | beacons | N |
//! | 3 | bells | N |
//! | 4 | control areas | 4 N |
//! | 5 | process id table | 4 M N |
//! | 6 | process segment pointer tables | 4 M N |
//! | 7 | data segments of the master, where there is no secondary | |
//!
//! Regions start at whole MiB. Not here: writing any of it (`create`), the host table's rows.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use thiserror::Error;

use crate::header::{Edition, Header, OWNER_ADMIN, Place, RecordType, emit_page};
use crate::master_control_block::{
    CONNECTIONS_MAX, LANES_MAX, MASTER_ID, MasterControlBlock, POINTER_ENTRIES_MAX, Region, SECONDARY_ID,
    SEGMENT_PAYLOAD_MAX_BYTES,
};
use crate::record::{Rows, Text};
use crate::secondary_device_table::{DEVICES_MAX, DeviceFlags, SecondaryDevice, SecondaryDeviceTable};
use crate::{BLOCK_BYTES, BlockAddress, Page, SegmentNumber};

/// Regions start at multiples of this many blocks: 1 MiB.
const REGION_ALIGNMENT_BLOCKS: u64 = 256;
/// Segments a lane must have: two in flight and one for its commands.
const SEGMENTS_PER_LANE_MIN: u64 = 3;
/// Timers 0–7 in milliseconds: beacon, idle, deep idle, scan, dead, quarantine, doubt, fail.
pub const TIMERS_MS: [u32; 8] = [2_000, 10_000, 30_000, 30_000, 60_000, 180_000, 30_000, 120_000];

/// A device as it is to become part of a volume.
#[derive(Clone, Debug)]
pub struct PlannedDevice {
    /// Device id, from the configuration file.
    pub id: [u8; 16],
    /// Size in blocks of 4,096 bytes.
    pub blocks: u64,
}

impl PlannedDevice {
    /// A device with an id of 1–16 bytes of text.
    #[must_use]
    pub fn new(id: &str, blocks: u64) -> Option<Self> {
        let mut padded = [0; 16];
        padded.get_mut(..id.len())?.copy_from_slice(id.as_bytes());
        (!id.is_empty()).then_some(Self { id: padded, blocks })
    }
}

/// What somebody wants of a volume.
#[derive(Clone, Debug)]
pub struct VolumePlan {
    /// The devices, the master first.
    pub devices: Vec<PlannedDevice>,
    /// Lanes of all hosts together (N).
    pub lanes: u16,
    /// Connections per lane and role (M).
    pub connections: u16,
    /// Payload of a segment, in bytes: a power of two.
    pub segment_payload_bytes: u32,
    /// Random id of the volume.
    pub volume_id: [u8; 16],
    /// Creation time, nanoseconds since 1970.
    pub time_id: u64,
    /// UNIX file name of the master device.
    pub unix_filename: String,
}

/// Why a plan cannot become a volume.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A value out of range.
    #[error("{what} is {value}, allowed is {allowed}")]
    Range {
        /// Which.
        what: &'static str,
        /// The value.
        value: u64,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A device is too small.
    #[error(
        "device {index} ({id}) has {have_bytes} bytes and needs {need_bytes}; take a larger device, or fewer lanes or smaller segments"
    )]
    TooSmall {
        /// Entry number.
        index: usize,
        /// Device id.
        id: String,
        /// Bytes needed.
        need_bytes: u64,
        /// Bytes there.
        have_bytes: u64,
    },
    /// The master's file name does not fit.
    #[error("the master's file name is longer than 255 bytes")]
    FileName,
}

/// The master control block and the device table of one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// FIG. 4, as on the master's block 0.
    pub master: MasterControlBlock,
    /// FIG. 6.
    pub table: SecondaryDeviceTable,
}

impl VolumePlan {
    /// Computes every place and signs the result.
    ///
    /// # Errors
    /// See [`PlanError`]; too small devices are named with the size they need.
    pub fn layout(&self, admin: &Ed25519KeyPair) -> Result<Layout, PlanError> {
        self.check()?;
        let segment_blocks = u64::from(self.segment_payload_bytes) / BLOCK_BYTES as u64 + 1;
        let regions = self.regions();
        let table = self.device_table(&regions, segment_blocks)?;
        let table_page = emit_page(&table, None);
        let mut master = MasterControlBlock {
            blk5_id: MASTER_ID,
            volume_id: self.volume_id,
            owner: OWNER_ADMIN,
            index: 0,
            device: 0,
            own_block: 0,
            version: 1,
            blk5_dev_id: 0,
            blk5_seg_size: u32::try_from(segment_blocks).expect("bounded by the largest payload"),
            blk5_version: 1,
            blk5_secondary_device_entrynum: u32::from(table.row_count),
            blk5_time_id: self.time_id,
            blk5_tot_seg_num: table.segment_count(),
            blk5_process_id_table_ptr: regions[5].start,
            blk5_start_process_segment_ptr: regions[6].start,
            blk5_mast_sec_start_ptr: regions[0].start,
            blk5_mast_sec_start_segment_ptr: regions[7].start,
            blk5_max_connections: u32::from(self.lanes) * u32::from(self.connections),
            blk5_ptr_seg_per_process: POINTER_ENTRIES_MAX,
            blk5_maxptr: POINTER_ENTRIES_MAX,
            blk5_unix_filename: Text::new(&self.unix_filename).ok_or(PlanError::FileName)?,
            lanes: self.lanes,
            connections: self.connections,
            seg_max: self.segment_payload_bytes,
            feature_bits: 0,
            regions: Rows::new(regions).expect("eight regions"),
            timers: Rows::new(TIMERS_MS.to_vec()).expect("eight timers"),
            device_table_hash: device_table_hash(&table_page),
            admin_public_key: [0; 32],
            admin_signature: [0; 64],
        };
        master.admin_public_key.copy_from_slice(admin.public_key().as_ref());
        master.sign(admin);
        Ok(Layout { master, table })
    }

    fn check(&self) -> Result<(), PlanError> {
        let range = |what, value: u64, allowed, holds| {
            if holds { Ok(()) } else { Err(PlanError::Range { what, value, allowed }) }
        };
        let payload = self.segment_payload_bytes;
        let devices = self.devices.len();
        range("number of devices", devices as u64, "1 to 62", (1..=DEVICES_MAX).contains(&devices))?;
        range("number of lanes", self.lanes.into(), "1 to 1,024", (1..=LANES_MAX).contains(&self.lanes))?;
        let connections = self.connections;
        range(
            "connections per lane",
            connections.into(),
            "1 to 256",
            (1..=CONNECTIONS_MAX).contains(&connections),
        )?;
        range(
            "segment payload in bytes",
            payload.into(),
            "a power of two from 4,096 to 67,108,864",
            payload.is_power_of_two() && (4096..=SEGMENT_PAYLOAD_MAX_BYTES).contains(&payload),
        )
    }

    fn regions(&self) -> Vec<Region> {
        let (lanes, connections) = (u64::from(self.lanes), u64::from(self.connections));
        let entries = 4 * lanes * connections;
        let mut start = REGION_ALIGNMENT_BLOCKS;
        let mut regions: Vec<Region> = [2, 2 * lanes, lanes, lanes, 4 * lanes, entries, entries]
            .into_iter()
            .map(|blocks| {
                let region = Region { start, blocks };
                start = (start + blocks).next_multiple_of(REGION_ALIGNMENT_BLOCKS);
                region
            })
            .collect();
        let segments = if self.devices.len() > 1 { 0 } else { self.devices[0].blocks.saturating_sub(start) };
        regions.push(Region { start, blocks: segments });
        regions
    }

    fn device_table(
        &self,
        regions: &[Region],
        segment_blocks: u64,
    ) -> Result<SecondaryDeviceTable, PlanError> {
        let alone = self.devices.len() == 1;
        let data_devices = if alone { 1 } else { self.devices.len() as u64 - 1 };
        let lanes = u64::from(self.lanes);
        let segments_min = (lanes * SEGMENTS_PER_LANE_MIN).div_ceil(data_devices).max(lanes);
        let mut next_number = 1;
        let mut rows = Vec::new();
        for (index, device) in self.devices.iter().enumerate() {
            let has_data = alone || index > 0;
            let start = if index == 0 { regions[7].start } else { REGION_ALIGNMENT_BLOCKS };
            let need = if has_data { start + segments_min * segment_blocks } else { start };
            if device.blocks < need {
                return Err(PlanError::TooSmall {
                    index,
                    id: device_name(&device.id),
                    need_bytes: need * BLOCK_BYTES as u64,
                    have_bytes: device.blocks * BLOCK_BYTES as u64,
                });
            }
            let count = if has_data { (device.blocks - start) / segment_blocks / lanes * lanes } else { 0 };
            rows.push(SecondaryDevice {
                sec_dev_id: device.id,
                sec_str_seg_ptr: start,
                sec_seg_number_for_device: count,
                sec_start_segment_number: next_number,
                device_size: device.blocks,
                device_index: u16::try_from(index).expect("at most 62 devices"),
                flags: if index == 0 { DeviceFlags::MASTER } else { DeviceFlags::empty() },
            });
            next_number += count;
        }
        let place = Place {
            volume_id: self.volume_id,
            owner: OWNER_ADMIN,
            index: 0,
            device: 0,
            block: regions[0].start,
        };
        let edition = Edition { version: 1, ..Edition::default() };
        Ok(SecondaryDeviceTable {
            header: Header::new::<SecondaryDeviceTable>(RecordType::SecondaryDeviceTable, place, edition),
            row_count: u16::try_from(rows.len()).expect("at most 62 devices"),
            rows: Rows::new(rows).expect("at most 62 devices"),
        })
    }
}

/// What the master control block holds of the device table: its bytes 64–4,063.
#[must_use]
pub fn device_table_hash(page: &Page) -> [u8; 32] {
    *blake3::hash(&page[64..4064]).as_bytes()
}

/// A device id as text.
#[must_use]
pub fn device_name(id: &[u8; 16]) -> String {
    String::from_utf8_lossy(id).trim_end_matches('\0').escape_debug().collect()
}

impl Layout {
    /// The copy of the master control block for block 0 of `device` (block `block` on the master).
    #[must_use]
    pub fn master_copy(&self, device: u16, block: u64) -> MasterControlBlock {
        MasterControlBlock {
            blk5_id: if device == 0 { MASTER_ID } else { SECONDARY_ID },
            device,
            index: u16::try_from(block).expect("block 0 or 1"),
            own_block: block,
            ..self.master.clone()
        }
    }

    /// Blocks of a segment, header block included.
    #[must_use]
    pub fn segment_blocks(&self) -> u64 {
        self.master.blk5_seg_size.into()
    }

    /// Where segment `number` starts.
    #[must_use]
    pub fn locate(&self, number: SegmentNumber) -> Option<BlockAddress> {
        self.table.locate(number, self.segment_blocks())
    }

    /// The segment that starts at `address`.
    #[must_use]
    pub fn segment_at(&self, address: BlockAddress) -> Option<SegmentNumber> {
        self.table.segment_at(address, self.segment_blocks())
    }

    /// The share of lane `lane` of the segments: one range (first number, count) for each device that
    /// has segments. Lanes share every device alike, so all devices work for each of them.
    #[must_use]
    pub fn pool_of_lane(&self, lane: u16) -> Vec<(SegmentNumber, u64)> {
        let lanes = u64::from(self.master.lanes);
        let rows = self.table.rows.iter().filter(|row| row.sec_seg_number_for_device >= lanes);
        rows.map(|row| {
            let share = row.sec_seg_number_for_device / lanes;
            (SegmentNumber(row.sec_start_segment_number + share * u64::from(lane)), share)
        })
        .collect()
    }
}
