//! FIG. 4, the master control block: what the volume is and where everything on it lies.
//!
//! It stands in blocks 0 and 1 of the master (`MAS_EMC`) and in block 0 of every secondary
//! (`SEC_EMC`). Written by format and admin only, signed with the admin's key; copies that verify
//! must agree, and one that verifies is enough. Not here: reading it from devices (`open`).

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use thiserror::Error;

use crate::header::{OWNER_ADMIN, Page, parse_page};
use crate::record;
use crate::record::{Record, RecordError, Rows, Text, Wire};
use crate::secondary_device_table::DEVICES_MAX;

/// `blk5_id` on the master.
pub const MASTER_ID: [u8; 8] = *b"MAS_EMC\0";
/// `blk5_id` of the copies on secondary devices.
pub const SECONDARY_ID: [u8; 8] = *b"SEC_EMC\0";
/// Entries of a process segment pointer table (`blk5_maxptr`).
pub const POINTER_ENTRIES_MAX: u32 = 57;
/// Lanes of a volume, at most.
pub const LANES_MAX: u16 = 1024;
/// Connections per lane and role, at most.
pub const CONNECTIONS_MAX: u16 = 256;
/// Largest segment payload, in bytes.
pub const SEGMENT_PAYLOAD_MAX_BYTES: u32 = 64 << 20;

/// Bytes under the signature, after the volume id.
const SIGNED: std::ops::Range<usize> = 64..640;

record! {
    /// One region of the master: its first block and its length.
    pub struct Region: 16, "region" {
        /// First block.
        0 => start: u64,
        /// Blocks.
        8 => blocks: u64,
    }
}

record! {
    /// FIG. 4.
    pub struct MasterControlBlock: 4064, "master control block" {
        /// Block identifier: `MAS_EMC` on the master, `SEC_EMC` in the copies.
        0 => blk5_id: [u8; 8],
        /// The volume's id, random, drawn at format time.
        8 => volume_id: [u8; 16],
        /// Admin (0xFFFF).
        24 => owner: u16,
        /// Which copy on this device.
        26 => index: u16,
        /// Entry number of the device this copy is on.
        28 => device: u16,
        /// Block of this copy.
        32 => own_block: u64,
        /// Version of this record.
        48 => version: u64,
        /// Entry number of the master device in the device table.
        64 => blk5_dev_id: u32,
        /// Size of a transfer segment in blocks, header block included.
        68 => blk5_seg_size: u32,
        /// Version of the structure: major in the low half, minor in the high.
        72 => blk5_version: u32,
        /// Entries in the secondary device table, the master's row included.
        76 => blk5_secondary_device_entrynum: u32,
        /// Creation time, nanoseconds since 1970; shown, never used for ordering.
        80 => blk5_time_id: u64,
        /// Total number of transfer segments.
        88 => blk5_tot_seg_num: u64,
        /// Block where the process id table starts.
        96 => blk5_process_id_table_ptr: u64,
        /// Block where the process segment pointer tables start.
        104 => blk5_start_process_segment_ptr: u64,
        /// Block where the secondary device table starts.
        112 => blk5_mast_sec_start_ptr: u64,
        /// Block where data segments start on the master.
        120 => blk5_mast_sec_start_segment_ptr: u64,
        /// Most connections allowed.
        128 => blk5_max_connections: u32,
        /// Segments per process (connection): the window per direction.
        132 => blk5_ptr_seg_per_process: u32,
        /// Entries a pointer table holds: 57.
        136 => blk5_maxptr: u32,
        /// UNIX file name of the master device.
        144 => blk5_unix_filename: Text<256>,
        /// Lanes (N).
        400 => lanes: u16,
        /// Connections per lane and role (M).
        402 => connections: u16,
        /// Payload bytes of a segment.
        404 => seg_max: u32,
        /// Unknown bits make a program refuse the volume.
        408 => feature_bits: u64,
        /// The regions of the master.
        416 => regions: Rows<Region, 8>,
        /// Timers in milliseconds.
        544 => timers: Rows<u32, 8>,
        /// BLAKE3 of bytes 64–4,063 of the secondary device table.
        576 => device_table_hash: [u8; 32],
        /// Ed25519 public key of the admin.
        608 => admin_public_key: [u8; 32],
        /// Ed25519 over the volume id, the version and bytes 64–639.
        640 => admin_signature: [u8; 64],
    }
}

/// What is wrong with a master control block.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MasterControlBlockError {
    /// The device carries no Diskwire volume.
    #[error("no Diskwire volume is on it (block identifier is neither MAS_EMC nor SEC_EMC)")]
    Foreign,
    /// Damaged.
    #[error("{}", .0.reason())]
    Record(#[from] RecordError),
    /// Signed by somebody else than the admin whose key is configured.
    #[error("it is not signed with the configured admin key")]
    Signature,
    /// A newer program made it.
    #[error("it needs format version {major} with features {features:#x}, this program knows version 1")]
    Version {
        /// Major version.
        major: u32,
        /// Feature bits.
        features: u64,
    },
    /// Its fields contradict one another.
    #[error("field {0} contradicts the others")]
    Inconsistent(&'static str),
}

impl MasterControlBlock {
    /// Signs the block.
    pub fn sign(&mut self, key: &Ed25519KeyPair) {
        let mut page = [0; 4064];
        self.emit(&mut page);
        self.admin_signature.copy_from_slice(key.sign(&Self::signed_bytes(&page)).as_ref());
    }

    fn signed_bytes(page: &[u8]) -> Vec<u8> {
        [&page[8..24], &page[48..56], &page[SIGNED]].concat()
    }

    /// Opens a block: seal, admin's signature, version, and the checks of its fields. The signature is
    /// the same in all copies; what tells them apart (`blk5_id`, device, block) is held against each
    /// other here, and against the place that was read by the caller.
    ///
    /// # Errors
    /// See [`MasterControlBlockError`].
    pub fn open(page: &Page, admin_key: Option<&[u8; 32]>) -> Result<Self, MasterControlBlockError> {
        if page[..8] != MASTER_ID && page[..8] != SECONDARY_ID {
            return Err(MasterControlBlockError::Foreign);
        }
        let block: Self = parse_page(page, None)?;
        let key = admin_key.unwrap_or(&block.admin_public_key);
        UnparsedPublicKey::new(&ED25519, key)
            .verify(&Self::signed_bytes(page), &block.admin_signature)
            .map_err(|_| MasterControlBlockError::Signature)?;
        block.check()?;
        Ok(block)
    }

    /// The copy, if it belongs in `block`, where it was read. One that names another *device* passes: that
    /// devices were given in another order is for `open` to say.
    ///
    /// # Errors
    /// [`MasterControlBlockError::Inconsistent`] for a misdirected read or write.
    pub fn at(self, device: usize, block: u64) -> Result<Self, MasterControlBlockError> {
        if usize::from(self.device) == device && self.own_block != block {
            return Err(MasterControlBlockError::Inconsistent("own_block"));
        }
        Ok(self)
    }

    /// Whether two copies say the same about the volume.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        let strip =
            |block: &Self| Self { blk5_id: MASTER_ID, device: 0, index: 0, own_block: 0, ..block.clone() };
        strip(self) == strip(other)
    }

    /// Blocks of `region`, or an empty region.
    #[must_use]
    pub fn region(&self, number: usize) -> Region {
        self.regions.get(number).cloned().unwrap_or(Region { start: 0, blocks: 0 })
    }

    fn check(&self) -> Result<(), MasterControlBlockError> {
        use MasterControlBlockError::{Inconsistent, Version};
        if self.blk5_version & 0xFFFF != 1 || self.feature_bits != 0 {
            return Err(Version { major: self.blk5_version & 0xFFFF, features: self.feature_bits });
        }
        let per_lane = u64::from(self.connections) * 4 * u64::from(self.lanes);
        let wants = [
            ("blk5_maxptr", self.blk5_maxptr == POINTER_ENTRIES_MAX),
            ("lanes", (1..=LANES_MAX).contains(&self.lanes)),
            ("connections", (1..=CONNECTIONS_MAX).contains(&self.connections)),
            (
                "seg_max",
                self.seg_max.is_power_of_two() && (4096..=SEGMENT_PAYLOAD_MAX_BYTES).contains(&self.seg_max),
            ),
            ("blk5_seg_size", u64::from(self.blk5_seg_size) == u64::from(self.seg_max) / 4096 + 1),
            ("blk5_ptr_seg_per_process", (1..=POINTER_ENTRIES_MAX).contains(&self.blk5_ptr_seg_per_process)),
            (
                "blk5_secondary_device_entrynum",
                (1..=DEVICES_MAX as u32).contains(&self.blk5_secondary_device_entrynum),
            ),
            ("blk5_dev_id", self.blk5_dev_id == 0),
            ("blk5_max_connections", self.blk5_max_connections != 0),
            ("timers", self.timers.len() == 8 && !self.timers.contains(&0)),
            ("owner", self.owner == OWNER_ADMIN),
            ("device", u32::from(self.device) < self.blk5_secondary_device_entrynum),
            ("blk5_id", (self.blk5_id == MASTER_ID) == (self.device == 0)),
            ("own_block", self.own_block <= u64::from(self.device == 0)),
            ("index", u64::from(self.index) == self.own_block),
            ("blk5_process_id_table_ptr", self.blk5_process_id_table_ptr == self.region(5).start),
            ("blk5_start_process_segment_ptr", self.blk5_start_process_segment_ptr == self.region(6).start),
            ("blk5_mast_sec_start_ptr", self.blk5_mast_sec_start_ptr == self.region(0).start),
            ("blk5_mast_sec_start_segment_ptr", self.blk5_mast_sec_start_segment_ptr == self.region(7).start),
            ("regions", self.regions.len() == 8 && self.regions_are_in_order()),
            ("region 0", self.region(0).blocks == 2),
            ("region 1", self.region(1).blocks == 2 * u64::from(self.lanes)),
            ("region 2", self.region(2).blocks == u64::from(self.lanes)),
            ("region 3", self.region(3).blocks == u64::from(self.lanes)),
            ("region 4", self.region(4).blocks == 4 * u64::from(self.lanes)),
            ("region 5", self.region(5).blocks == per_lane),
            ("region 6", self.region(6).blocks == per_lane),
        ];
        match wants.iter().find(|(_, holds)| !holds) {
            Some((field, _)) => Err(Inconsistent(field)),
            None => Ok(()),
        }
    }

    fn regions_are_in_order(&self) -> bool {
        let mut end = 2;
        self.regions.iter().all(|region| {
            let fits = region.start >= end && region.start.checked_add(region.blocks).is_some();
            end = region.start.saturating_add(region.blocks);
            fits
        })
    }
}

const _: () = assert!(<MasterControlBlock as Wire>::SIZE == 4064);
