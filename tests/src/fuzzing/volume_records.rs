//! The records that only format and admin write: master control block, device table, host table rows.
//!
//! What holds: without the admin's signature nothing but the original opens; what opens lies inside its
//! device, region and range, so that no later arithmetic can leave them. Not here: reading from devices
//! (`survey`).

use std::sync::OnceLock;

use aws_lc_rs::signature::Ed25519KeyPair;
use transfer_core::format::host_table::HostRecord;
use transfer_core::format::map::TableMap;
use transfer_core::protocol::endpoint::owned_ranges;
use volume::header::{Place, seal_page};
use volume::layout::device_table_hash;
use volume::open::parse_table;
use volume::record::{Record, Wire};
use volume::{Layout, MasterControlBlock, Page, SecondaryDeviceTable, SegmentNumber, header};

use super::input::Input;
use super::record::{Mode, check_page, check_record, record_seeds, shape};
use super::sample::{Sound, sample};

fn sign(admin: &Ed25519KeyPair, page: &mut Page, signed: std::ops::Range<usize>, signature: usize) {
    let bytes = [&page[8..24], &page[48..56], &page[signed]].concat();
    page[signature..signature + 64].copy_from_slice(admin.sign(&bytes).as_ref());
}

/// Master control block: any copy, changed, sealed or not, signed or not.
///
/// # Panics
/// If a promise is broken.
pub fn master_control_block(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mode = Mode(input.byte());
    let sample = sample();
    static SOUND: [OnceLock<Sound<MasterControlBlock>>; 3] = [const { OnceLock::new() }; 3];
    let variant = mode.variant() % 3;
    let (device, block) = [(0, 0), (0, 1), (1, 0)][variant];
    let sound = SOUND[variant].get_or_init(|| Sound::new(sample.layout.master_copy(device, block)));
    let (copy, mut page) = (&sound.record, sound.page.clone());
    shape::<MasterControlBlock>(&mut input, mode, &mut page);
    if mode.resign() {
        sign(&sample.admin, &mut page, 64..640, 640);
    }
    if mode.reseal() {
        seal_page(&mut page[..], None);
    }
    check_record::<MasterControlBlock>(&page[..], mode.show());
    let known = sample.layout.master.admin_public_key;
    let Ok(opened) = MasterControlBlock::open(&page, Some(&known)) else { return };
    assert!(header::seal_fits(&page[..], None), "it opened without a seal");
    if !mode.resign() {
        assert!(opened.agrees_with(copy), "it says something else and the admin did not sign it");
    }
    assert!(opened.agrees_with(&opened) && opened.agrees_with(&opened.clone()));
    let reads = opened.clone().at(device.into(), block);
    assert!(reads.is_err() || opened.device != device || opened.own_block == block);
    let layout = Layout { master: opened, table: sample.layout.table.clone() };
    check_regions(&layout);
}

/// Every place of the first and the last lane lies in its region.
fn check_regions(layout: &Layout) {
    let map = TableMap::new(layout);
    let (lanes, connections) = (map.lanes(), map.connections());
    for lane in [0, lanes / 2, lanes - 1] {
        let inside = |region: usize, place: Place, blocks: u64| {
            let region = layout.master.region(region);
            let end = place.block + blocks;
            assert!(place.block >= region.start && end <= region.start + region.blocks, "{place:?}");
        };
        inside(1, map.host_record(lane, 0), 1);
        inside(1, map.host_record(lane, 1), 1);
        inside(2, map.beacon(lane), 1);
        inside(3, map.bell(lane), 1);
        inside(4, map.incarnation(lane), 4);
        for slot in [0, connections - 1] {
            for id in [map.initiator_id(lane, slot), map.connector_id(lane, slot)] {
                assert_eq!(map.split(id).0, lane);
                inside(5, map.process_id_entry(id), 2);
                inside(6, map.pointer_table(id), 2);
            }
        }
    }
}

/// Secondary device table: changed, sealed or not, and with a master control block that names its hash or not.
///
/// # Panics
/// If a promise is broken.
pub fn secondary_device_table(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mode = Mode(input.byte());
    let sample = sample();
    static SOUND: OnceLock<Box<Page>> = OnceLock::new();
    let sound = SOUND.get_or_init(|| header::emit_page(&sample.layout.table, None));
    let mut page = sound.clone();
    shape::<SecondaryDeviceTable>(&mut input, mode, &mut page);
    if mode.reseal() {
        seal_page(&mut page[..], None);
    }
    let parsed = check_page::<SecondaryDeviceTable>(&page, sound, None, mode);
    let mut master = sample.layout.master.clone();
    if mode.resign() {
        master.device_table_hash = device_table_hash(&page);
        if let Some(table) = &parsed {
            // Sums that overflow are refused by the table itself, before anybody adds them up.
            let total =
                table.rows.iter().try_fold(0u64, |sum, row| sum.checked_add(row.sec_seg_number_for_device));
            master.blk5_tot_seg_num = total.unwrap_or(0);
            master.blk5_secondary_device_entrynum = table.row_count.into();
            master.blk5_mast_sec_start_segment_ptr = table.rows.first().map_or(0, |row| row.sec_str_seg_ptr);
        }
    }
    let Ok(table) = parse_table(&page, &master) else { return };
    assert_eq!(Some(&table), parsed.as_ref());
    assert!(mode.resign() || page[64..4064] == sound[64..4064], "not what the admin signed");
    check_numbering(&Layout { master, table });
}

/// Segment numbers and addresses are each other's inverse, and every segment lies on its device.
fn check_numbering(layout: &Layout) {
    let blocks = layout.segment_blocks();
    for row in layout.table.rows.iter() {
        let (first, count) = (row.sec_start_segment_number, row.sec_seg_number_for_device);
        for offset in [0, count / 2, count.saturating_sub(1)] {
            if offset >= count {
                continue;
            }
            let number = SegmentNumber(first + offset);
            let address = layout.locate(number).expect("a number of the table has a place");
            assert_eq!(address.device, row.device_index);
            assert!(address.block + blocks <= row.device_size, "{address} reaches beyond its device");
            assert_eq!(layout.segment_at(address), Some(number));
            let beside = volume::BlockAddress { block: address.block + 1, ..address };
            assert_eq!(layout.segment_at(beside), None, "inside a segment no other starts");
        }
    }
    assert_eq!(layout.locate(SegmentNumber(0)), None);
    for lane in [0, layout.master.lanes - 1] {
        for (first, count) in layout.pool_of_lane(lane) {
            assert!(
                layout.locate(first).is_some() && layout.locate(SegmentNumber(first.0 + count - 1)).is_some()
            );
        }
    }
}

/// One row of the host table: changed, sealed or not, signed or not.
///
/// # Panics
/// If a promise is broken.
pub fn host_table_row(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mode = Mode(input.byte());
    let sample = sample();
    let (host, copy) = [(0, 0), (0, 1), (1, 0), (1, 1)][mode.variant() % 4];
    static SOUND: OnceLock<[Vec<Box<Page>>; 2]> = OnceLock::new();
    let pages = |host| sample.host(host).pages(&sample.layout).into_iter().map(|(_, page)| page).collect();
    let sound = &SOUND.get_or_init(|| [pages(0), pages(1)])[host][copy];
    let mut page = **sound;
    shape::<HostRecord>(&mut input, mode, &mut page);
    if mode.resign() {
        sign(&sample.admin, &mut page, 64..1240, 1240);
    }
    if mode.reseal() {
        seal_page(&mut page, None);
    }
    check_page::<HostRecord>(&page, sound, None, Mode(mode.0 | u8::from(mode.resign())));
    let (row, copy) = (u16::try_from(host).expect("0 or 1"), u16::try_from(copy).expect("0 or 1"));
    let Ok(opened) = HostRecord::open(&page, &sample.layout, row, copy) else { return };
    assert!(header::seal_fits(&page, None), "it opened without a seal");
    assert!(mode.resign() || page[64..1240] == sound[64..1240], "not what the admin signed");
    assert!(HostRecord::open(&page, &sample.layout, row, 1 - copy).is_err(), "it opened in two places");
    let _ = (owned_ranges(&sample.layout, &opened), opened.is_active());
    for range in opened.pool_ranges.iter() {
        for number in [range.first_segment, range.first_segment + range.count - 1] {
            assert!(opened.owns_segment(SegmentNumber(number)));
            assert!(sample.layout.locate(SegmentNumber(number)).is_some(), "a range leaves the volume");
        }
    }
}

/// Inputs to begin with.
#[must_use]
pub fn master_seeds() -> Vec<Vec<u8>> {
    record_seeds::<MasterControlBlock>()
}

/// Inputs to begin with.
#[must_use]
pub fn table_seeds() -> Vec<Vec<u8>> {
    let mut seeds = record_seeds::<SecondaryDeviceTable>();
    // Each field of both rows.
    for row in 0..2u16 {
        for field in volume::secondary_device_table::SecondaryDevice::FIELDS {
            let at = 64 + row * 64 + u16::try_from(field.offset).expect("below 64");
            seeds.push([&[3, 0][..], &at.to_le_bytes(), &[1, 3]].concat());
        }
    }
    seeds
}

/// Inputs to begin with.
#[must_use]
pub fn row_seeds() -> Vec<Vec<u8>> {
    record_seeds::<HostRecord>()
}

const _: () = assert!(MasterControlBlock::SIZE == 4064 && HostRecord::SIZE == 4064);
