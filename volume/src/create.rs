//! FIG. 8, setting up a volume: everything else first, the master's block 0 last.
//!
//! So an interrupted format leaves no volume that opens. The old block 0 of every device is cleared before
//! anything else, for the same reason. Not here: whether a device may be overwritten (the caller has asked).

use storage_mapping::BlockDevice;
use thiserror::Error;

use crate::header::emit_page;
use crate::layout::Layout;
use crate::sync::{self, SyncError, Waiter, block_count};
use crate::{BLOCK_BYTES, BlockAddress, Page};

/// Blocks written in one request while regions are cleared: 1 MiB.
const CLEARED_AT_ONCE_BLOCKS: u64 = 256;

/// Why a volume was not created.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CreateError {
    /// I/O.
    #[error("device {device}: {source}")]
    Io {
        /// Entry number.
        device: usize,
        /// What failed.
        source: SyncError,
    },
    /// Not the devices of the plan.
    #[error(
        "device {device} is not the one of the plan: it has {have} blocks of 4 KiB, the plan says {planned}"
    )]
    Device {
        /// Entry number.
        device: usize,
        /// Blocks planned.
        planned: u64,
        /// Blocks there.
        have: u64,
    },
}

/// A block that format writes beside its own: the rows of the host table, say.
pub type ExtraBlock = (BlockAddress, Box<Page>);

/// Writes the structures of `layout` and `extra` on the devices (the master first).
///
/// # Errors
/// See [`CreateError`]. Nothing that opens as a volume is left behind then.
pub fn create(
    waiter: &Waiter<'_>,
    mut devices: Vec<Box<dyn BlockDevice>>,
    layout: &Layout,
    extra: &[ExtraBlock],
) -> Result<(), CreateError> {
    check_devices(&devices, layout)?;
    let mut write = |device: usize, block: u64, bytes: &[u8]| {
        sync::write(waiter, &mut devices[device], block, bytes)
            .map_err(|source| CreateError::Io { device, source })
    };
    write(0, 0, &[0; 2 * BLOCK_BYTES])?;
    // The copies on the other devices too: an older volume must not open once its regions are cleared.
    for device in 1..layout.table.rows.len() {
        write(device, 0, &[0; BLOCK_BYTES])?;
    }
    for region in &layout.master.regions[..7] {
        let mut block = region.start;
        let end = region.start + region.blocks;
        while block < end {
            let blocks = CLEARED_AT_ONCE_BLOCKS.min(end - block);
            let bytes = usize::try_from(blocks).expect("at most 256") * BLOCK_BYTES;
            write(0, block, &vec![0; bytes])?;
            block += blocks;
        }
    }
    let table = emit_page(&layout.table, None);
    write(0, layout.master.region(0).start, &table[..])?;
    write(0, layout.master.region(0).start + 1, &table[..])?;
    for (address, page) in extra {
        write(address.device.into(), address.block, &page[..])?;
    }
    for device in 1..layout.table.rows.len() {
        let number = u16::try_from(device).expect("at most 62 devices");
        write(device, 0, &emit_page(&layout.master_copy(number, 0), None)[..])?;
    }
    write(0, 1, &emit_page(&layout.master_copy(0, 1), None)[..])?;
    write(0, 0, &emit_page(&layout.master_copy(0, 0), None)[..])
}

fn check_devices(devices: &[Box<dyn BlockDevice>], layout: &Layout) -> Result<(), CreateError> {
    assert_eq!(devices.len(), layout.table.rows.len(), "one device for each row of the plan");
    for (device, (opened, row)) in devices.iter().zip(layout.table.rows.iter()).enumerate() {
        let have = block_count(opened.as_ref());
        if have < row.device_size || opened.geometry().block_size.bytes() > BLOCK_BYTES {
            return Err(CreateError::Device { device, planned: row.device_size, have });
        }
    }
    Ok(())
}
