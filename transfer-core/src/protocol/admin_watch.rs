//! What the administrator wrote, read again from time to time (rule 63 as decided).
//!
//! Two things may change under a process that runs for weeks: a device may be replaced by another one,
//! and hosts may be enrolled or evicted. So the copies of the master control block and the host table are
//! read every minute, and every ten minutes in deep idle. A device that shows nothing of the volume three
//! times in a row is another device; one damaged look is not. Rows that verify replace what is known; rows
//! that do not change nothing. Not here: the I/O, and what follows (`endpoint::admin`).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use storage_mapping::Instant;
use volume::master_control_block::{MasterControlBlock, MasterControlBlockError};
use volume::open::master_copy_blocks;
use volume::{BLOCK_BYTES, BlockAddress, Layout, Page};

use crate::format::host_table::HostRecord;
use crate::format::map::{TableMap, address};

/// From one look to the next.
const PERIOD: Duration = Duration::from_secs(60);
/// The same in deep idle.
const PERIOD_DEEP: Duration = Duration::from_secs(600);
/// A look that somebody asks for comes this long after the last, at least.
const ASKED_PAUSE: Duration = Duration::from_secs(5);
/// From a look that shows a foreign device to the next.
const DOUBT_PAUSE: Duration = Duration::from_secs(1);
/// Looks in a row that prove a foreign device.
const FOREIGN_LOOKS: u32 = 3;
/// Rows read at once.
const ROWS_AT_ONCE: u16 = 64;

/// A part of the administrator's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminRead {
    /// The copies of the master control block on one device.
    Masters {
        /// The device.
        device: u16,
    },
    /// Rows of the host table.
    Rows {
        /// Which copy.
        copy: u16,
        /// The first lane.
        first: u16,
        /// How many.
        count: u16,
    },
}

impl AdminRead {
    /// Where it lies, and its length in bytes.
    #[must_use]
    pub fn place(self, layout: &Layout) -> (BlockAddress, usize) {
        match self {
            Self::Masters { device } => {
                let blocks = master_copy_blocks(device.into());
                let count = usize::try_from(blocks.end - blocks.start).expect("one or two");
                (BlockAddress { device, block: blocks.start }, count * BLOCK_BYTES)
            }
            Self::Rows { copy, first, count } => {
                let start = address(TableMap::new(layout).host_record(first, copy));
                (start, usize::from(count) * BLOCK_BYTES)
            }
        }
    }
}

/// What the copies of the master control block on a device say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceVerdict {
    /// The device is the volume's, or nothing can be said yet.
    Ours,
    /// It is another device, or the volume was made anew.
    Replaced,
}

/// When to look again, and what was seen.
#[derive(Debug)]
pub struct AdminWatch {
    due: Instant,
    last: Instant,
    left: VecDeque<AdminRead>,
    busy: bool,
    foreign: BTreeMap<u16, u32>,
    /// Hash of each page of the host table that was judged, by lane and copy.
    judged: BTreeMap<(u16, u16), blake3::Hash>,
}

impl AdminWatch {
    /// Everything was read a moment ago, when the volume was opened.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let (foreign, judged) = (BTreeMap::new(), BTreeMap::new());
        Self { due: now + PERIOD, last: now, left: VecDeque::new(), busy: false, foreign, judged }
    }

    /// A host was met that the rows do not know: look soon.
    pub fn ask(&mut self, now: Instant) {
        self.due = self.due.min(now.max(self.last + ASKED_PAUSE));
    }

    /// The next part to read, if it is time.
    pub fn poll(&mut self, now: Instant, layout: &Layout, deep_idle: bool) -> Option<AdminRead> {
        if self.busy || (self.left.is_empty() && now < self.due) {
            return None;
        }
        if self.left.is_empty() {
            self.last = now;
            self.due = now + if deep_idle { PERIOD_DEEP } else { PERIOD };
            let devices = u16::try_from(layout.table.rows.len()).unwrap_or(u16::MAX);
            self.left.extend((0..devices).map(|device| AdminRead::Masters { device }));
            let lanes = TableMap::new(layout).lanes();
            for copy in 0..2 {
                for first in (0..lanes).step_by(ROWS_AT_ONCE.into()) {
                    let count = ROWS_AT_ONCE.min(lanes - first);
                    self.left.push_back(AdminRead::Rows { copy, first, count });
                }
            }
        }
        let read = self.left.pop_front();
        self.busy = read.is_some();
        read
    }

    /// A part was read, or could not be.
    pub fn handle_read(&mut self) {
        self.busy = false;
    }

    /// Judges the copies of the master control block on `device`.
    pub fn judge_device(
        &mut self,
        now: Instant,
        layout: &Layout,
        device: u16,
        bytes: &[u8],
    ) -> DeviceVerdict {
        let copies: Vec<_> = (master_copy_blocks(device.into()))
            .zip(bytes.chunks_exact(BLOCK_BYTES))
            .map(|(block, page)| {
                let page: &Page = page.try_into().expect("one block");
                let opened = MasterControlBlock::open(page, Some(&layout.master.admin_public_key));
                opened.and_then(|copy| copy.at(device.into(), block))
            })
            .collect();
        if let Some(copy) = copies.iter().flatten().next() {
            self.foreign.remove(&device);
            let same = copy.device == device && copy.agrees_with(&layout.master);
            return if same { DeviceVerdict::Ours } else { DeviceVerdict::Replaced };
        }
        if !copies.iter().all(|copy| matches!(copy, Err(MasterControlBlockError::Foreign))) {
            return DeviceVerdict::Ours;
        }
        let looks = self.foreign.entry(device).or_insert(0);
        *looks += 1;
        self.due = self.due.min(now + DOUBT_PAUSE);
        if *looks >= FOREIGN_LOOKS { DeviceVerdict::Replaced } else { DeviceVerdict::Ours }
    }

    /// The rows in `bytes` that verify and were not judged before, with their lanes.
    pub fn judge_rows(
        &mut self,
        layout: &Layout,
        (copy, first): (u16, u16),
        bytes: &[u8],
    ) -> Vec<(u16, HostRecord)> {
        let mut changed = Vec::new();
        for (lane, page) in (first..).zip(bytes.chunks_exact(BLOCK_BYTES)) {
            let hash = blake3::hash(page);
            if self.judged.insert((lane, copy), hash) == Some(hash) {
                continue;
            }
            let page: &Page = page.try_into().expect("one block");
            if let Ok(record) = HostRecord::open(page, layout, lane, copy) {
                changed.push((lane, record));
            }
        }
        changed
    }

    /// When the next look is due.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        match (self.busy, self.left.is_empty()) {
            (true, _) => None,
            (false, true) => Some(self.due),
            (false, false) => Some(Instant::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::Ed25519KeyPair;
    use volume::header::emit_page;
    use volume::layout::{PlannedDevice, VolumePlan};
    use volume::record::Text;

    fn admin() -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[9; 32]).expect("a seed")
    }

    fn layout(volume_id: u8) -> Layout {
        let plan = VolumePlan {
            devices: vec![PlannedDevice::new("disk0", 4096).expect("a name")],
            lanes: 2,
            connections: 2,
            segment_payload_bytes: 16 << 10,
            volume_id: [volume_id; 16],
            time_id: 1,
            unix_filename: "disk0".into(),
        };
        plan.layout(&admin()).expect("a layout")
    }

    fn copies(layout: &Layout) -> Vec<u8> {
        (0..2).flat_map(|block| emit_page(&layout.master_copy(0, block), None).to_vec()).collect()
    }

    #[test]
    fn another_volume_ends_it_at_once_and_a_blank_device_after_three_looks() {
        let ours = layout(1);
        let mut watch = AdminWatch::new(Instant::ZERO);
        let mut judge = |bytes: &[u8]| watch.judge_device(Instant::ZERO, &ours, 0, bytes);
        let blank = vec![0; 2 * BLOCK_BYTES];
        assert_eq!(judge(&copies(&ours)), DeviceVerdict::Ours);
        assert_eq!(judge(&copies(&layout(2))), DeviceVerdict::Replaced);
        assert_eq!((judge(&blank), judge(&blank)), (DeviceVerdict::Ours, DeviceVerdict::Ours));
        assert_eq!(judge(&copies(&ours)), DeviceVerdict::Ours, "it was only damaged reads");
        assert_eq!((judge(&blank), judge(&blank)), (DeviceVerdict::Ours, DeviceVerdict::Ours));
        assert_eq!(judge(&blank), DeviceVerdict::Replaced);
        let mut torn = copies(&ours);
        torn[100] ^= 1;
        torn[BLOCK_BYTES + 100] ^= 1;
        for _ in 0..5 {
            assert_eq!(judge(&torn), DeviceVerdict::Ours, "a damaged copy is no other device");
        }
    }

    #[test]
    fn rows_are_judged_once_and_only_those_that_verify() {
        let layout = layout(1);
        let mut watch = AdminWatch::new(Instant::ZERO);
        let row = HostRecord::new(&layout, 1, Text::new("beta").expect("a name"), [5; 32], 0, &admin());
        let page = row.pages(&layout)[0].1.to_vec();
        let bytes = [vec![0; BLOCK_BYTES], page].concat();
        let rows = watch.judge_rows(&layout, (0, 0), &bytes);
        assert_eq!(rows, vec![(1, row)]);
        assert!(watch.judge_rows(&layout, (0, 0), &bytes).is_empty());
        let mut forged = bytes;
        forged[BLOCK_BYTES + 900] ^= 1;
        assert!(watch.judge_rows(&layout, (0, 0), &forged).is_empty());
    }

    #[test]
    fn it_looks_every_minute_at_everything() {
        let layout = layout(1);
        let mut watch = AdminWatch::new(Instant::ZERO);
        assert_eq!(watch.poll(Instant::ZERO, &layout, false), None);
        let now = watch.next_wakeup().expect("a time");
        let mut reads = Vec::new();
        while let Some(read) = watch.poll(now, &layout, false) {
            watch.handle_read();
            reads.push(read);
        }
        let rows = |copy| AdminRead::Rows { copy, first: 0, count: 2 };
        assert_eq!(reads, [AdminRead::Masters { device: 0 }, rows(0), rows(1)]);
        watch.ask(now);
        assert_eq!(watch.next_wakeup(), Some(now + ASKED_PAUSE));
    }
}
