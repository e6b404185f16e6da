//! Opening a set of devices as one volume, or saying which of them does not belong.
//!
//! Rule 2: every copy of the master control block that verifies must say the same; one is enough.
//! Copies that do not verify are reported and skipped, so a damaged block 0 does not stop anybody.
//! The devices are given in the order of the configuration, and checked to be those of the table.

use storage_mapping::BlockDevice;
use thiserror::Error;

use crate::header::{Page, RecordType, parse_page};
use crate::layout::{Layout, device_name, device_table_hash};
use crate::master_control_block::{MasterControlBlock, MasterControlBlockError};
use crate::record::RecordError;
use crate::secondary_device_table::SecondaryDeviceTable;
use crate::sync::{self, SyncError, Waiter, block_count};
use crate::{BLOCK_BYTES, Volume};

/// Why devices are not opened as a volume.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No device was given.
    #[error("no device is configured")]
    NoDevice,
    /// No copy of the master control block verifies.
    #[error("no copy of the master control block verifies; device 0: {first}")]
    NoMaster {
        /// What is wrong with the first.
        first: MasterControlBlockError,
    },
    /// A device could not be read at all.
    #[error("device {device}: {source}")]
    Io {
        /// Entry number.
        device: usize,
        /// What failed.
        source: SyncError,
    },
    /// Two copies verify and differ.
    #[error("device {device} belongs to another volume, or to an older state of this one")]
    Disagree {
        /// Entry number.
        device: usize,
    },
    /// Not the volume that was asked for.
    #[error("this is volume {found}, the configuration says {expected}")]
    WrongVolume {
        /// Id found.
        found: String,
        /// Id asked for.
        expected: String,
    },
    /// More or fewer devices than the volume has.
    #[error("the volume has {expected} devices, the configuration names {configured}")]
    DeviceCount {
        /// Rows of the table.
        expected: usize,
        /// Devices given.
        configured: usize,
    },
    /// A device without any trace of the volume: nothing may be written there.
    #[error(
        "device {device} carries no Diskwire volume: it is another device, or its first block was overwritten; correct its paths"
    )]
    Foreign {
        /// Place in the configuration.
        device: usize,
    },
    /// A device is shorter than it was.
    #[error(
        "device {device} ({id}) is too short: {have_bytes} bytes, the volume needs {need_bytes}; it was truncated, or it is another device"
    )]
    Truncated {
        /// Entry number.
        device: usize,
        /// Its id.
        id: String,
        /// Bytes there.
        have_bytes: u64,
        /// Bytes needed.
        need_bytes: u64,
    },
    /// A device with logical blocks above 4,096 bytes.
    #[error("device {device} has logical blocks of {bytes} bytes; at most 4,096 are supported")]
    BlockSize {
        /// Entry number.
        device: usize,
        /// Its block size.
        bytes: usize,
    },
    /// The device at this place is another one of the volume.
    #[error("device {device} of the configuration is device {found} of the volume; put the devices in order")]
    Order {
        /// Place in the configuration.
        device: usize,
        /// Entry number on the disk.
        found: u16,
    },
    /// The device table is damaged.
    #[error("both copies of the secondary device table are damaged: {source}")]
    Table {
        /// What is wrong with the first.
        source: RecordError,
    },
}

/// A volume, and what was noticed on the way.
#[derive(Debug)]
pub struct Opened {
    /// The volume; it may write nothing until [`Volume::own`] says what.
    pub volume: Volume,
    /// Copies that did not verify, in words.
    pub notices: Vec<String>,
}

/// Opens `devices` (in the order of the configuration, the master first).
///
/// # Errors
/// See [`OpenError`]; each names the device and what is wrong.
pub fn open(
    waiter: &Waiter<'_>,
    mut devices: Vec<Box<dyn BlockDevice>>,
    volume_id: Option<[u8; 16]>,
    admin_key: Option<&[u8; 32]>,
) -> Result<Opened, OpenError> {
    let mut notices = Vec::new();
    let copies = read_copies(waiter, &mut devices, admin_key, &mut notices)?;
    let master = agree(&copies, volume_id)?;
    check_order(devices.len(), &master, &copies)?;
    let table = read_table(waiter, devices[0].as_mut(), &master, &mut notices)?;
    check_sizes(&devices, &table)?;
    let layout = Layout { master, table };
    Ok(Opened { volume: Volume::of_verified(devices, layout), notices })
}

/// Every copy that verifies, by the device it was read from.
type Copies = Vec<(usize, MasterControlBlock)>;

fn read_copies(
    waiter: &Waiter<'_>,
    devices: &mut [Box<dyn BlockDevice>],
    admin_key: Option<&[u8; 32]>,
    notices: &mut Vec<String>,
) -> Result<Copies, OpenError> {
    let mut copies = Vec::new();
    let (mut first_failure, mut foreign) = (None, None);
    for (device, opened) in devices.iter_mut().enumerate() {
        let bytes = opened.geometry().block_size.bytes();
        if bytes > BLOCK_BYTES {
            return Err(OpenError::BlockSize { device, bytes });
        }
        let mut skip = |block: u64, error: &dyn std::fmt::Display| {
            notices.push(format!("device {device}, block {block}: master control block skipped: {error}"));
        };
        let mut unread = None;
        let blocks = master_copy_blocks(device);
        for block in blocks.clone() {
            let page = match read_page(waiter, opened.as_mut(), block) {
                Ok(page) => page,
                Err(source) => {
                    skip(block, &source);
                    unread = Some(source);
                    continue;
                }
            };
            match MasterControlBlock::open(&page, admin_key).and_then(|copy| copy.at(device, block)) {
                Ok(copy) => copies.push((device, copy)),
                Err(error) => {
                    skip(block, &error);
                    if device > 0 && error == MasterControlBlockError::Foreign {
                        foreign.get_or_insert(device);
                    }
                    first_failure.get_or_insert(error);
                }
            }
        }
        // A bad block has its copy beside it; a device that reads nowhere is no device.
        if let Some(source) = unread
            && !copies.iter().any(|(from, _)| *from == device)
        {
            return Err(OpenError::Io { device, source });
        }
    }
    match (copies.is_empty(), first_failure, foreign) {
        (false, _, Some(device)) => Err(OpenError::Foreign { device }),
        (false, _, None) => Ok(copies),
        (true, Some(first), _) => Err(OpenError::NoMaster { first }),
        (true, None, _) => Err(OpenError::NoDevice),
    }
}

fn agree(copies: &Copies, volume_id: Option<[u8; 16]>) -> Result<MasterControlBlock, OpenError> {
    let (_, master) = &copies[0];
    if let Some(expected) = volume_id
        && let Some((_, other)) = copies.iter().find(|(_, copy)| copy.volume_id != expected)
    {
        let (found, expected) = (hex(&other.volume_id), hex(&expected));
        return Err(OpenError::WrongVolume { found, expected });
    }
    if let Some((device, _)) = copies.iter().find(|(_, copy)| !copy.agrees_with(master)) {
        return Err(OpenError::Disagree { device: *device });
    }
    Ok(master.clone())
}

fn read_table(
    waiter: &Waiter<'_>,
    device: &mut dyn BlockDevice,
    master: &MasterControlBlock,
    notices: &mut Vec<String>,
) -> Result<SecondaryDeviceTable, OpenError> {
    let mut failure = None;
    for block in [master.region(0).start, master.region(0).start + 1] {
        let page = read_page(waiter, device, block).map_err(|source| OpenError::Io { device: 0, source })?;
        match parse_table(&page, master) {
            Ok(table) => return Ok(table),
            Err(error) => {
                notices.push(format!(
                    "device 0, block {block}: secondary device table skipped: {}",
                    error.reason()
                ));
                failure = Some(error);
            }
        }
    }
    Err(OpenError::Table { source: failure.expect("two blocks were read") })
}

/// Opens a block of the device table and holds it against the master control block.
///
/// # Errors
/// If it is damaged, or not the table that the master control block was signed for.
pub fn parse_table(page: &Page, master: &MasterControlBlock) -> Result<SecondaryDeviceTable, RecordError> {
    let record = "secondary device table";
    if device_table_hash(page) != master.device_table_hash {
        return Err(RecordError::Header { record, what: "hash" });
    }
    let table: SecondaryDeviceTable = parse_page(page, None)?;
    let fits = table.header.record_type == RecordType::SecondaryDeviceTable
        && table.is_consistent(master.blk5_seg_size.into())
        && table.rows[0].sec_str_seg_ptr == master.blk5_mast_sec_start_segment_ptr
        && table.segment_count() == master.blk5_tot_seg_num
        && u32::from(table.row_count) == master.blk5_secondary_device_entrynum;
    if fits { Ok(table) } else { Err(RecordError::Header { record, what: "numbering" }) }
}

/// Before the device table is read: on a wrong first device it would only look damaged.
fn check_order(configured: usize, master: &MasterControlBlock, copies: &Copies) -> Result<(), OpenError> {
    if let Some((device, copy)) = copies.iter().find(|(device, copy)| usize::from(copy.device) != *device) {
        return Err(OpenError::Order { device: *device, found: copy.device });
    }
    let expected = master.blk5_secondary_device_entrynum as usize;
    if configured == expected { Ok(()) } else { Err(OpenError::DeviceCount { expected, configured }) }
}

fn check_sizes(devices: &[Box<dyn BlockDevice>], table: &SecondaryDeviceTable) -> Result<(), OpenError> {
    for (device, (opened, row)) in devices.iter().zip(table.rows.iter()).enumerate() {
        let have = block_count(opened.as_ref());
        if have < row.device_size {
            return Err(OpenError::Truncated {
                device,
                id: device_name(&row.sec_dev_id),
                have_bytes: have * BLOCK_BYTES as u64,
                need_bytes: row.device_size * BLOCK_BYTES as u64,
            });
        }
    }
    Ok(())
}

/// The blocks of `device` that hold the master control block.
#[must_use]
pub fn master_copy_blocks(device: usize) -> std::ops::Range<u64> {
    if device == 0 { 0..2 } else { 0..1 }
}

fn read_page(waiter: &Waiter<'_>, device: &mut dyn BlockDevice, block: u64) -> Result<Box<Page>, SyncError> {
    let buffer = sync::read(waiter, device, block, BLOCK_BYTES)?;
    let mut page = Box::new([0; BLOCK_BYTES]);
    page.copy_from_slice(&buffer);
    Ok(page)
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
