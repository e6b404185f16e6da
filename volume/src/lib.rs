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
//! A volume striped over two files, beside a master, and two of its segments on different devices:
//!
//! ```
//! use aws_lc_rs::signature::Ed25519KeyPair;
//! use storage_mapping::path_address::{PathAddress, open};
//! use storage_mapping::{BlockDevice, Buffer, Instant, IoRequest, IoTag, Lba, wait};
//! use volume::layout::{PlannedDevice, VolumePlan};
//! use volume::sync::Waiter;
//! use volume::{OwnedRanges, SegmentNumber};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let names = ["master", "left", "right"];
//! for name in names {
//!     std::fs::File::create(folder.path().join(name))?.set_len(16 << 20)?;
//! }
//! let devices = || -> Result<Vec<Box<dyn BlockDevice>>, Box<dyn std::error::Error>> {
//!     let address = |name: &str| format!("file:{}", folder.path().join(name).display());
//!     names.iter().map(|name| Ok(open(&address(name).parse::<PathAddress>()?)?.device)).collect()
//! };
//! let start = std::time::Instant::now();
//! let now = move || Instant(start.elapsed().as_nanos() as u64);
//! let waiter = Waiter::new(now, move |fds, until| wait::wait(fds, until.map(|until| until.since(now()))));
//!
//! let plan = VolumePlan {
//!     lanes: 2,
//!     connections: 2,
//!     segment_payload_bytes: 1 << 16,
//!     volume_id: [7; 16],
//!     time_id: 0,
//!     unix_filename: "master".into(),
//!     devices: names.iter().map(|name| PlannedDevice::new(name, 4096).unwrap()).collect(),
//! };
//! let layout = plan.layout(&Ed25519KeyPair::from_seed_unchecked(&[1; 32])?)?;
//! volume::create::create(&waiter, devices()?, &layout, &[])?;
//!
//! let mut volume = volume::open::open(&waiter, devices()?, None, None)?.volume;
//! let first = volume.layout().locate(SegmentNumber(1)).unwrap();
//! let on_right = volume.layout().table.rows[2].sec_start_segment_number;
//! let second = volume.layout().locate(SegmentNumber(on_right)).unwrap();
//! assert_ne!(first.device, second.device);
//!
//! volume.own(OwnedRanges::everything());
//! for (tag, place) in [(1, first), (2, second)] {
//!     let data = Buffer::copy_of(&[42; 4096]).freeze();
//!     volume.submit(now(), place.device, IoRequest::write(IoTag(tag), Lba(place.block), data, false));
//! }
//! let mut done = 0;
//! while done < 2 {
//!     match volume.poll(now()) {
//!         Some((_, completion)) => completion.outcome.map(|()| done += 1)?,
//!         None => std::thread::yield_now(),
//!     }
//! }
//! # Ok(())
//! # }
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
