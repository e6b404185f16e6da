//! Reading the host table: which lanes the volume has, and which row is ours.

use storage_mapping::BlockDevice;
use volume::sync::{self, SyncError, Waiter};
use volume::{BLOCK_BYTES, Layout, Page};

use crate::format::host_table::HostRecord;
use crate::format::map::TableMap;

/// The rows of the host table by lane number; rows that do not verify, or are not in use, are `None`.
#[derive(Clone, Debug)]
pub struct HostTable {
    /// The rows.
    pub rows: Vec<Option<HostRecord>>,
    /// Rows of which one copy is damaged, in words.
    pub notices: Vec<String>,
}

/// Reads both copies of the host table from the master.
///
/// # Errors
/// If the master cannot be read.
pub fn read_host_table(
    waiter: &Waiter<'_>,
    master: &mut dyn BlockDevice,
    layout: &Layout,
) -> Result<HostTable, SyncError> {
    let map = TableMap::new(layout);
    let lanes = usize::from(map.lanes());
    let start = map.host_record(0, 0).block;
    let bytes = sync::read(waiter, master, start, 2 * lanes * BLOCK_BYTES)?;
    let mut table = HostTable { rows: Vec::with_capacity(lanes), notices: Vec::new() };
    for lane in 0..map.lanes() {
        let mut row = None;
        for copy in 0..2 {
            let index = usize::from(copy) * lanes + usize::from(lane);
            let page: &[u8] = &bytes[index * BLOCK_BYTES..(index + 1) * BLOCK_BYTES];
            if page.iter().all(|byte| *byte == 0) {
                continue;
            }
            let page: &Page = page.try_into().expect("one block");
            match HostRecord::open(page, layout, lane, copy) {
                Ok(record) => {
                    row.get_or_insert(record);
                }
                Err(error) => table.notices.push(format!("host table row {lane}, copy {copy}: {error}")),
            }
        }
        table.rows.push(row);
    }
    Ok(table)
}
