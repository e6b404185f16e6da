//! Many devices become one volume of numbered segments.
//!
//! Layer 123 of FIG. 13. A volume has one master device with the control structures and any number
//! of secondary devices with the data segments. This crate
//!
//! * plans and writes the layout (FIG. 3, 4, 6, 8): [`layout`], [`create`];
//! * opens a set of devices as one volume and refuses what does not belong together: [`open`];
//! * submits I/O by (device, block), and holds every write to the ranges its process owns:
//!   [`Volume`], [`ownership`];
//! * says where segment n lies: [`SecondaryDeviceTable::locate`].
//!
//! It stands on *some* [`BlockDevice`](storage_mapping::BlockDevice) for each device: a bare one, or
//! a multipath device. Not here: hosts, connections and keys (`transfer-core`).
//!
//! A striped volume over two files-like disks, and its first two segments on different devices:
//!
//! ```
//! use aws_lc_rs::signature::Ed25519KeyPair;
//! use storage_mapping::device::MemoryDisk;
//! use storage_mapping::{BlockCount, BlockSize, Buffer, IoRequest, IoTag, Lba};
//! use volume::layout::{PlannedDevice, VolumePlan};
//! use volume::{BlockAddress, OwnedRanges, SegmentNumber, Volume, sync};
//!
//! let disks: Vec<_> = (0..3).map(|_| MemoryDisk::new(BlockSize::B4096, BlockCount(4096))).collect();
//! let devices = || disks.iter().map(|disk| Box::new(disk.device()) as Box<dyn storage_mapping::BlockDevice>);
//! let admin = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
//! let names = ["master", "left", "right"];
//! let plan = VolumePlan {
//!     lanes: 2,
//!     connections: 2,
//!     segment_payload_bytes: 1 << 16,
//!     volume_id: [7; 16],
//!     time_id: 0,
//!     unix_filename: "master".into(),
//!     devices: names.iter().map(|name| PlannedDevice::new(name, 4096).unwrap()).collect(),
//! };
//! let layout = plan.layout(&admin)?;
//! let clock = sync::Waiter::idle();
//! volume::create::create(&clock, devices().collect(), &layout, &[])?;
//!
//! let opened = volume::open::open(&clock, devices().collect(), None, None)?;
//! let mut volume = opened.volume;
//! let first = volume.layout().locate(SegmentNumber(1)).unwrap();
//! let on_right = volume.layout().table.rows[2].sec_start_segment_number;
//! let second = volume.layout().locate(SegmentNumber(on_right)).unwrap();
//! assert_ne!(first.device, second.device);
//!
//! volume.own(OwnedRanges::everything());
//! let data = Buffer::copy_of(&[42; 4096]).freeze();
//! volume.submit(storage_mapping::Instant::ZERO, second.device, IoRequest::write(IoTag(1), Lba(second.block), data, false));
//! let (device, done) = volume.poll(storage_mapping::Instant::ZERO).unwrap();
//! assert!(device == second.device && done.outcome.is_ok());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod create;
pub mod header;
pub mod layout;
pub mod master_control_block;
pub mod open;
pub mod ownership;
pub mod record;
pub mod secondary_device_table;
pub mod sync;
mod volume_device;

pub use header::{BLOCK_BYTES, Page};
pub use layout::Layout;
pub use master_control_block::MasterControlBlock;
pub use ownership::OwnedRanges;
pub use secondary_device_table::SecondaryDeviceTable;
pub use volume_device::Volume;

/// A block of the volume: the device by its entry number, and the 4,096-byte block on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockAddress {
    /// Entry number in the device table.
    pub device: u16,
    /// Block on that device, in units of 4,096 bytes.
    pub block: u64,
}

impl std::fmt::Display for BlockAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "device {} block {}", self.device, self.block)
    }
}

/// Number of a data segment; the first of the first device is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNumber(pub u64);
