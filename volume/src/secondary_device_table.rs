//! FIG. 6, the secondary device table: which devices carry which data segments.
//!
//! Segment numbers run through all devices: the first segment of the first device is number 1, each
//! further row starts where the one before ended, and a row without segments has the start number of
//! its successor. Not here: which host owns which segment (the host table of `transfer-core`).

use bitflags::bitflags;

use crate::header::Header;
use crate::record::Rows;
use crate::{BlockAddress, SegmentNumber, record, wire_flags};

/// Devices of a volume, at most.
pub const DEVICES_MAX: usize = 62;

bitflags! {
    /// Flags of a device row.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct DeviceFlags: u16 {
        /// The master device.
        const MASTER = 1;
    }
}
wire_flags!(DeviceFlags, u16);

record! {
    /// One row of FIG. 6.
    pub struct SecondaryDevice: 64, "secondary device table row" {
        /// Device id, from the configuration file.
        0 => sec_dev_id: [u8; 16],
        /// Block where the data segments start on the device.
        16 => sec_str_seg_ptr: u64,
        /// Number of data segments on the device.
        24 => sec_seg_number_for_device: u64,
        /// Number of the first segment on the device.
        32 => sec_start_segment_number: u64,
        /// Size of the device, in blocks.
        40 => device_size: u64,
        /// Row number.
        48 => device_index: u16,
        /// Flags.
        50 => flags: DeviceFlags,
    }
}

record! {
    /// FIG. 6.
    pub struct SecondaryDeviceTable: 4064, "secondary device table" {
        /// Common header.
        0 => header: Header,
        /// The devices, the master first.
        64 => rows: Rows<SecondaryDevice, 62>,
        /// Number of rows.
        4032 => row_count: u16,
    }
}

impl SecondaryDeviceTable {
    /// Whether the rows are numbered as the figure asks and every segment lies on its device.
    #[must_use]
    pub fn is_consistent(&self, segment_blocks: u64) -> bool {
        let mut next_number = 1u64;
        self.rows.len() == usize::from(self.row_count)
            && !self.rows.is_empty()
            && self.rows.iter().enumerate().all(|(index, row)| {
                let segments = row.sec_seg_number_for_device;
                let end = segments
                    .checked_mul(segment_blocks)
                    .and_then(|blocks| blocks.checked_add(row.sec_str_seg_ptr));
                let after = row.sec_start_segment_number.checked_add(segments);
                let fits = usize::from(row.device_index) == index
                    && (index == 0) == row.flags.contains(DeviceFlags::MASTER)
                    && row.sec_start_segment_number == next_number
                    && row.sec_str_seg_ptr > 0
                    && after.is_some()
                    && end.is_some_and(|end| end <= row.device_size);
                next_number = after.unwrap_or(next_number);
                fits
            })
    }

    /// All segments.
    #[must_use]
    pub fn segment_count(&self) -> u64 {
        self.rows.iter().map(|row| row.sec_seg_number_for_device).sum()
    }

    /// Where segment `number` starts.
    #[must_use]
    pub fn locate(&self, number: SegmentNumber, segment_blocks: u64) -> Option<BlockAddress> {
        self.rows.iter().find_map(|row| {
            let offset = number.0.checked_sub(row.sec_start_segment_number)?;
            (offset < row.sec_seg_number_for_device).then(|| BlockAddress {
                device: row.device_index,
                block: row.sec_str_seg_ptr + offset * segment_blocks,
            })
        })
    }

    /// The segment that starts at `address`.
    #[must_use]
    pub fn segment_at(&self, address: BlockAddress, segment_blocks: u64) -> Option<SegmentNumber> {
        let row = self.rows.get(usize::from(address.device))?;
        let offset = address.block.checked_sub(row.sec_str_seg_ptr)?;
        let index = offset / segment_blocks;
        (offset.is_multiple_of(segment_blocks) && index < row.sec_seg_number_for_device)
            .then_some(SegmentNumber(row.sec_start_segment_number + index))
    }
}
