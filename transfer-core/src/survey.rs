//! Reading all control structures of a volume, in use or not, without writing anything.
//!
//! What holds: a block is judged by what stands on it alone, so the survey works in the middle of a
//! transfer and without any host's keys: the seal of a record that two connected processes share cannot
//! be verified here, and such a record is [`Found::Keyed`]. A block that does not open is read again
//! before it counts as damaged, because its owner may be writing it. Not here: what the records mean
//! together (`check`), how they look (`inspect`).

use std::time::Duration;

use storage_mapping::BlockDevice;
use volume::header::{HEADER_BYTES, Header, HeaderFlags, Place, RecordType, parse_page};
use volume::master_control_block::MasterControlBlock;
use volume::open::{master_copy_blocks, parse_table};
use volume::record::{Record, RecordError};
use volume::sync::{self, Waiter};
use volume::{BLOCK_BYTES, BlockAddress, Layout, Page, SecondaryDeviceTable, Volume};

use crate::format::beacon::{Beacon, Bell};
use crate::format::control_area::{InDirectory, IncarnationRecord};
use crate::format::host_table::HostRecord;
use crate::format::map::{TableMap, address};
use crate::format::process_id_table::ProcessIdEntry;
use crate::format::process_segment_pointer_table::PointerTable;

/// How often a block is read that does not open.
const READS_MAX: u32 = 4;
/// Pause before it is read again: longer than a write takes.
const READ_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// Blocks read in one request: 1 MiB.
const READ_AT_ONCE_BLOCKS: u64 = 256;

/// What stands in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<R> {
    /// Zeros: never written.
    Unused,
    /// A record; its seal fits.
    Good(Box<R>),
    /// A record sealed with the keys of a connection: in order as far as one can see without them.
    Keyed(Box<R>),
    /// Something else, or nothing that can be read; in words.
    Damaged(String),
}

/// A block and what stands in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed<R> {
    /// Where.
    pub at: BlockAddress,
    /// What.
    pub found: Found<R>,
}

impl<R> Placed<R> {
    /// The record, if there is one.
    #[must_use]
    pub fn record(&self) -> Option<&R> {
        match &self.found {
            Found::Good(record) | Found::Keyed(record) => Some(record),
            Found::Unused | Found::Damaged(_) => None,
        }
    }

    /// Whether it was never written.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        matches!(self.found, Found::Unused)
    }

    /// What is wrong with it.
    #[must_use]
    pub fn damage(&self) -> Option<&str> {
        match &self.found {
            Found::Damaged(why) => Some(why),
            _ => None,
        }
    }
}

/// Both blocks of an A/B pair.
pub type Pair<R> = [Placed<R>; 2];

/// A record with the common header.
pub trait Headed {
    /// Its header.
    fn header(&self) -> &Header;
}

macro_rules! headed {
    ($($type:ty),*) => {$(
        impl Headed for $type {
            fn header(&self) -> &Header {
                &self.header
            }
        }
    )*};
}
headed!(Beacon, InDirectory, IncarnationRecord, PointerTable, ProcessIdEntry);

/// The newest record of a pair.
#[must_use]
pub fn newest<R: Headed>(pair: &Pair<R>) -> Option<&R> {
    let edition = |record: &&R| (record.header().incarnation, record.header().version);
    pair.iter().filter_map(Placed::record).max_by_key(edition)
}

/// All of one lane.
#[derive(Clone, Debug)]
pub struct LaneContents {
    /// Row number in the host table.
    pub lane: u16,
    /// Both copies of the row.
    pub rows: [Placed<HostRecord>; 2],
    /// Beacon.
    pub beacon: Placed<Beacon>,
    /// Bell.
    pub bell: Placed<Bell>,
    /// Incarnation pair.
    pub incarnation: Pair<IncarnationRecord>,
    /// In-directory pair.
    pub in_directory: Pair<InDirectory>,
    /// The slots in which anything was ever written.
    pub slots: Vec<SlotContents>,
}

/// Entry and pointer table of one slot.
#[derive(Clone, Debug)]
pub struct SlotContents {
    /// Slot number.
    pub process_id: u32,
    /// FIG. 5.
    pub entry: Pair<ProcessIdEntry>,
    /// FIG. 7.
    pub table: Pair<PointerTable>,
}

/// All control structures of a volume.
#[derive(Clone, Debug)]
pub struct Contents {
    /// What lies where: from a copy that verifies.
    pub layout: Layout,
    /// FIG. 4, every copy.
    pub masters: Vec<Placed<MasterControlBlock>>,
    /// FIG. 6, both copies.
    pub tables: Vec<Placed<SecondaryDeviceTable>>,
    /// The lanes, used or not.
    pub lanes: Vec<LaneContents>,
}

impl Contents {
    /// The row of lane `lane`, from whichever copy is good.
    #[must_use]
    pub fn row(&self, lane: u16) -> Option<&HostRecord> {
        self.lanes.get(usize::from(lane))?.rows.iter().find_map(Placed::record)
    }

    /// The slot `process_id`, if anything was ever written there.
    #[must_use]
    pub fn slot(&self, process_id: u32) -> Option<&SlotContents> {
        let (lane, _) = TableMap::new(&self.layout).split(process_id);
        let slots = &self.lanes.get(usize::from(lane))?.slots;
        slots.iter().find(|slot| slot.process_id == process_id)
    }
}

impl LaneContents {
    /// The highest incarnation that a sound record of the lane names.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        let record = newest(&self.incarnation).map_or(0, |record| record.header.incarnation);
        record.max(self.beacon.record().map_or(0, |beacon| beacon.header.incarnation))
    }
}

/// Reads everything. `admin_key` is the key that must have signed, where it is known from elsewhere.
pub fn read(waiter: &Waiter<'_>, volume: &mut Volume, admin_key: Option<&[u8; 32]>) -> Contents {
    let layout = volume.layout().clone();
    let mut survey = Survey { waiter, volume };
    let masters = survey.masters(&layout, admin_key);
    let start = layout.master.region(0).start;
    let tables = survey.blocks(BlockAddress { device: 0, block: start }, 2, |_, page| {
        decide(parse_table(page, &layout.master).map(Box::new).map(Found::Good))
    });
    let lanes = survey.lanes(&layout);
    Contents { layout, masters, tables, lanes }
}

struct Survey<'a, 'w> {
    waiter: &'a Waiter<'w>,
    volume: &'a mut Volume,
}

impl Survey<'_, '_> {
    fn masters(&mut self, layout: &Layout, admin_key: Option<&[u8; 32]>) -> Vec<Placed<MasterControlBlock>> {
        let mut found = Vec::new();
        for device in 0..layout.table.row_count {
            let blocks = master_copy_blocks(device.into());
            let at = BlockAddress { device, block: blocks.start };
            found.extend(self.blocks(at, blocks.end - blocks.start, |at, page| {
                let copy = MasterControlBlock::open(page, admin_key)
                    .and_then(|copy| copy.at(device.into(), at.block))
                    .map_err(|error| error.to_string());
                match copy {
                    Ok(copy) if copy.device == device && copy.agrees_with(&layout.master) => {
                        Found::Good(Box::new(copy))
                    }
                    Ok(_) => Found::Damaged("it is of another device, or says something else".into()),
                    Err(why) => Found::Damaged(why),
                }
            }));
        }
        found
    }

    fn lanes(&mut self, layout: &Layout) -> Vec<LaneContents> {
        let map = TableMap::new(layout);
        let count = u64::from(map.lanes());
        let first = |place: Place| address(place);
        let rows = self.blocks(first(map.host_record(0, 0)), 2 * count, |at, page| {
            let block = at.block - map.host_record(0, 0).block;
            let lane = u16::try_from(block % count).expect("a lane");
            let copy = u16::try_from(block / count).expect("0 or 1");
            decide(HostRecord::open(page, layout, lane, copy).map(Box::new).map(Found::Good))
        });
        let beacons = self.blocks(first(map.beacon(0)), count, |at, page| {
            let lane = u16::try_from(at.block - map.beacon(0).block).expect("a lane");
            judge(page, RecordType::Beacon, map.beacon(lane), Seal::Plain)
        });
        let bells = self.blocks(first(map.bell(0)), count, |at, page| {
            let lane = u16::try_from(at.block - map.bell(0).block).expect("a lane");
            judge(page, RecordType::Bell, map.bell(lane), Seal::None)
        });
        let per_lane = (0..map.lanes()).zip(beacons.into_iter().zip(bells));
        let mut lanes = Vec::new();
        for (lane, (beacon, bell)) in per_lane {
            let row = |copy: usize| rows[copy * usize::from(map.lanes()) + usize::from(lane)].clone();
            lanes.push(LaneContents {
                lane,
                rows: [row(0), row(1)],
                beacon,
                bell,
                incarnation: self.pair(map.incarnation(lane), RecordType::Incarnation, Seal::Plain),
                in_directory: self.pair(map.in_directory(lane), RecordType::InDirectory, Seal::Plain),
                slots: self.slots(map, lane),
            });
        }
        lanes
    }

    /// The slots of a lane that are not all zeros.
    fn slots(&mut self, map: TableMap<'_>, lane: u16) -> Vec<SlotContents> {
        let first = map.initiator_id(lane, 0);
        let entries = self.pairs(first, |id| map.process_id_entry(id), map, RecordType::ProcessIdEntry);
        let tables = self.pairs(first, |id| map.pointer_table(id), map, RecordType::PointerTable);
        let slots = (first..).zip(entries.into_iter().zip(tables));
        slots
            .filter(|(_, (entry, table))| {
                !entry.iter().all(Placed::is_unused) || !table.iter().all(Placed::is_unused)
            })
            .map(|(process_id, (entry, table))| SlotContents { process_id, entry, table })
            .collect()
    }

    /// All pairs of a lane in the process id table or in the pointer tables.
    fn pairs<R: Record>(
        &mut self,
        first: u32,
        place_of: impl Fn(u32) -> Place,
        map: TableMap<'_>,
        record_type: RecordType,
    ) -> Vec<Pair<R>> {
        let start = place_of(first);
        let blocks = 4 * u64::from(map.connections());
        let found = self.blocks(address(start), blocks, |at, page| {
            let offset = at.block - start.block;
            let row = u32::try_from(offset / 2).expect("at most 512 rows");
            judge_half(page, record_type, place_of(first + row), offset % 2, Seal::PlainOrKeyed)
        });
        let mut found = found.into_iter();
        std::iter::from_fn(|| Some([found.next()?, found.next()?])).collect()
    }

    fn pair<R: Record>(&mut self, place: Place, record_type: RecordType, seal: Seal) -> Pair<R> {
        let found = self.blocks(address(place), 2, |at, page| {
            judge_half(page, record_type, place, at.block - place.block, seal)
        });
        <[_; 2]>::try_from(found).unwrap_or_else(|_| unreachable!("two blocks were asked for"))
    }

    /// Judges `count` blocks from `start` on; what does not open is read again.
    fn blocks<R>(
        &mut self,
        start: BlockAddress,
        count: u64,
        judge: impl Fn(BlockAddress, &Page) -> Found<R>,
    ) -> Vec<Placed<R>> {
        let mut all = Vec::new();
        let mut done = 0;
        while done < count {
            let length = READ_AT_ONCE_BLOCKS.min(count - done);
            let from = BlockAddress { block: start.block + done, ..start };
            let run = self.read(from, length).ok();
            for offset in 0..length {
                let at = BlockAddress { block: from.block + offset, ..start };
                let page = run.as_ref().and_then(|run| run.get(usize::try_from(offset).ok()?));
                let mut found = page.map(|page| judge(at, page));
                for _ in 1..READS_MAX {
                    if !matches!(found, None | Some(Found::Damaged(_))) {
                        break;
                    }
                    if found.is_some() {
                        self.waiter.pause(READ_AGAIN_AFTER);
                    }
                    found = Some(match self.read(at, 1) {
                        Ok(pages) => judge(at, &pages[0]),
                        Err(why) => Found::Damaged(why),
                    });
                }
                all.push(Placed { at, found: found.unwrap_or(Found::Unused) });
            }
            done += length;
        }
        all
    }

    fn read(&mut self, start: BlockAddress, blocks: u64) -> Result<Vec<Box<Page>>, String> {
        let device: &mut Box<dyn BlockDevice> =
            self.volume.device_mut(start.device).ok_or("the volume has no such device")?;
        let length = usize::try_from(blocks).expect("at most 256") * BLOCK_BYTES;
        let bytes =
            sync::read(self.waiter, device, start.block, length).map_err(|error| error.to_string())?;
        let pages = bytes.chunks_exact(BLOCK_BYTES);
        Ok(pages.map(|page| Box::new(page.try_into().expect("a whole block"))).collect())
    }
}

/// Which seal a record may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seal {
    None,
    Plain,
    PlainOrKeyed,
}

fn decide<R>(found: Result<Found<R>, RecordError>) -> Found<R> {
    found.unwrap_or_else(|error| Found::Damaged(error.reason()))
}

/// One block of a pair: also, the version must belong in this half.
fn judge_half<R: Record>(
    page: &Page,
    record_type: RecordType,
    pair: Place,
    half: u64,
    seal: Seal,
) -> Found<R> {
    let found = judge(page, record_type, Place { block: pair.block + half, ..pair }, seal);
    let version = Header::parse(&page[..HEADER_BYTES]).map_or(half, |header| header.version);
    match found {
        Found::Good(_) | Found::Keyed(_) if version % 2 != half => {
            let error = RecordError::Header { record: R::NAME, what: "version" };
            Found::Damaged(error.reason())
        }
        found => found,
    }
}

fn judge<R: Record>(page: &Page, record_type: RecordType, place: Place, seal: Seal) -> Found<R> {
    if page.iter().all(|byte| *byte == 0) {
        return Found::Unused;
    }
    decide(open_record(page, record_type, place, seal))
}

fn open_record<R: Record>(
    page: &Page,
    record_type: RecordType,
    place: Place,
    seal: Seal,
) -> Result<Found<R>, RecordError> {
    let header = Header::parse(&page[..HEADER_BYTES]);
    let is_keyed = header.as_ref().is_ok_and(|header| header.flags.contains(HeaderFlags::SEALED));
    let found = match (seal, is_keyed) {
        (Seal::PlainOrKeyed, true) => Found::Keyed(Box::new(R::parse(page)?)),
        (_, true) => return Err(RecordError::Header { record: R::NAME, what: "flag SEALED" }),
        (Seal::None, false) => Found::Good(Box::new(R::parse(page)?)),
        (_, false) => Found::Good(Box::new(parse_page::<R>(page, None)?)),
    };
    header?.check::<R>(record_type, place)?;
    Ok(found)
}
