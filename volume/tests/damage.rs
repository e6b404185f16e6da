//! Damaged and mixed-up devices: what still opens, what does not, and how that is said.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

use aws_lc_rs::signature::Ed25519KeyPair;
use storage_mapping::device::{Faults, FaultyDevice, MemoryDisk};
use storage_mapping::{BlockCount, BlockDevice, BlockSize};
use volume::header::{emit_page, seal_page};
use volume::layout::{PlannedDevice, VolumePlan};
use volume::master_control_block::{
    CONNECTIONS_MAX, LANES_MAX, MASTER_ID, MasterControlBlockError, POINTER_ENTRIES_MAX, Region,
    SECONDARY_ID, SEGMENT_PAYLOAD_MAX_BYTES,
};
use volume::open::{OpenError, Opened};
use volume::record::{Record, Rows};
use volume::secondary_device_table::DEVICES_MAX;
use volume::sync::Waiter;
use volume::{BLOCK_BYTES, Layout, MasterControlBlock, create, open};

fn admin() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap()
}

fn layout() -> Layout {
    let plan = VolumePlan {
        devices: (0..3).map(|at| PlannedDevice::new(&format!("disk{at}"), 3000).unwrap()).collect(),
        lanes: 2,
        connections: 2,
        segment_payload_bytes: 1 << 16,
        volume_id: [1; 16],
        time_id: 99,
        unix_filename: "disks/master.img".into(),
    };
    plan.layout(&admin()).unwrap()
}

fn devices(disks: &[MemoryDisk]) -> Vec<Box<dyn BlockDevice>> {
    disks.iter().map(|disk| Box::new(disk.device()) as Box<dyn BlockDevice>).collect()
}

fn volume() -> Vec<MemoryDisk> {
    let disks: Vec<_> = (0..3).map(|_| MemoryDisk::new(BlockSize::B4096, BlockCount(3000))).collect();
    create::create(&Waiter::idle(), devices(&disks), &layout(), &[]).unwrap();
    disks
}

fn open_disks(disks: &[MemoryDisk]) -> Result<Opened, OpenError> {
    open::open(&Waiter::idle(), devices(disks), Some([1; 16]), None)
}

fn damage(disk: &MemoryDisk, block: usize) {
    disk.with_bytes(|bytes| bytes[block * BLOCK_BYTES + 100] ^= 1);
}

/// One changed byte in any field of a copy, with a seal that fits again: only the signature and the
/// checks of the fields are left to find it.
#[test]
fn a_changed_field_of_the_master_control_block_does_not_open() {
    let layout = layout();
    for (device, block) in [(0u16, 0u64), (0, 1), (2, 0)] {
        let copy = layout.master_copy(device, block);
        let sound = emit_page(&copy, None);
        let read =
            |page: &_| MasterControlBlock::open(page, None).and_then(|copy| copy.at(device.into(), block));
        assert_eq!(read(&sound), Ok(copy));
        for at in 0..4064 {
            for change in [1, 0x80] {
                let mut page = sound.clone();
                page[at] ^= change;
                seal_page(&mut page[..], None);
                let field = MasterControlBlock::FIELDS
                    .iter()
                    .find(|field| (field.offset..field.offset + field.size).contains(&at));
                let name = field.map_or("reserved", |field| field.name);
                match read(&page) {
                    Err(_) => {}
                    // Device 1 instead of 2: `open` says that the order is wrong.
                    Ok(other) => assert!(name == "device" && other.device != device, "{name} (byte {at})"),
                }
            }
        }
    }
}

/// The copies differ in what no signature covers: each opens in its own block only.
#[test]
fn a_copy_in_the_block_of_another_does_not_open() {
    let layout = layout();
    let misplaced = Err(MasterControlBlockError::Inconsistent("own_block"));
    for (device, block, elsewhere) in [(0u16, 0u64, 1u64), (0, 1, 0), (2, 0, 1)] {
        let copy = layout.master_copy(device, block);
        assert_eq!(copy.clone().at(device.into(), block), Ok(copy.clone()));
        assert_eq!(copy.clone().at(device.into(), elsewhere), misplaced, "device {device}, block {block}");
        // On another device the order is wrong, which `open` says.
        assert_eq!(copy.clone().at(1, elsewhere), Ok(copy));
    }
}

type Change<'a> = &'a dyn Fn(&mut MasterControlBlock);

fn signed_with(change: Change<'_>) -> Result<MasterControlBlock, MasterControlBlockError> {
    let mut block = layout().master_copy(0, 0);
    change(&mut block);
    block.sign(&admin());
    MasterControlBlock::open(&emit_page(&block, None), None)
}

fn regions(block: &mut MasterControlBlock, change: impl FnOnce(&mut Vec<Region>)) {
    let mut regions = block.regions.to_vec();
    change(&mut regions);
    block.regions = Rows::new(regions).unwrap();
}

/// The admin's program may be wrong too: a block with a signature that fits is held against itself.
#[test]
fn a_signed_block_that_contradicts_itself_is_refused_by_field() {
    assert!(signed_with(&|_| {}).is_ok());
    let copy_of = |device: u16, block: u64, index: u16| {
        move |copy: &mut MasterControlBlock| {
            copy.blk5_id = if device == 0 { MASTER_ID } else { SECONDARY_ID };
            (copy.device, copy.own_block, copy.index) = (device, block, index);
        }
    };
    let segments_of = |bytes: u32| {
        move |block: &mut MasterControlBlock| {
            (block.seg_max, block.blk5_seg_size) = (bytes, bytes / 4096 + 1);
        }
    };
    assert!(signed_with(&copy_of(2, 0, 0)).is_ok() && signed_with(&segments_of(4096)).is_ok());
    assert!(signed_with(&segments_of(SEGMENT_PAYLOAD_MAX_BYTES)).is_ok());
    let timers = |change: fn(&mut Vec<u32>)| {
        move |block: &mut MasterControlBlock| {
            let mut timers = block.timers.to_vec();
            change(&mut timers);
            block.timers = Rows::new(timers).unwrap();
        }
    };
    let contradictions: [(&str, Change<'_>); 34] = [
        ("blk5_maxptr", &|block| block.blk5_maxptr += 1),
        ("lanes", &|block| block.lanes = 0),
        ("lanes", &|block| block.lanes = LANES_MAX + 1),
        ("connections", &|block| block.connections = 0),
        ("connections", &|block| block.connections = CONNECTIONS_MAX + 1),
        ("seg_max", &segments_of(2048)),
        ("seg_max", &segments_of(3 * 4096)),
        ("seg_max", &segments_of(2 * SEGMENT_PAYLOAD_MAX_BYTES)),
        ("blk5_seg_size", &|block| block.blk5_seg_size -= 1),
        ("blk5_ptr_seg_per_process", &|block| block.blk5_ptr_seg_per_process = 0),
        ("blk5_ptr_seg_per_process", &|block| block.blk5_ptr_seg_per_process = POINTER_ENTRIES_MAX + 1),
        ("blk5_secondary_device_entrynum", &|block| block.blk5_secondary_device_entrynum = 0),
        ("blk5_secondary_device_entrynum", &|block| {
            block.blk5_secondary_device_entrynum = u32::try_from(DEVICES_MAX).unwrap() + 1;
        }),
        ("blk5_dev_id", &|block| block.blk5_dev_id = 1),
        ("blk5_max_connections", &|block| block.blk5_max_connections = 0),
        ("timers", &timers(|timers| timers.truncate(7))),
        ("timers", &timers(|timers| timers[0] = 0)),
        ("owner", &|block| block.owner = 0),
        ("device", &copy_of(3, 0, 0)),
        ("blk5_id", &|block| block.blk5_id = SECONDARY_ID),
        ("blk5_id", &|block| block.device = 1),
        ("own_block", &copy_of(0, 2, 2)),
        ("own_block", &copy_of(1, 1, 1)),
        ("index", &copy_of(0, 0, 1)),
        ("blk5_process_id_table_ptr", &|block| block.blk5_process_id_table_ptr += 1),
        ("blk5_start_process_segment_ptr", &|block| block.blk5_start_process_segment_ptr += 1),
        ("blk5_mast_sec_start_ptr", &|block| block.blk5_mast_sec_start_ptr += 1),
        ("blk5_mast_sec_start_segment_ptr", &|block| block.blk5_mast_sec_start_segment_ptr += 1),
        // One is missing; all are there and one begins in the block of the copies, in the one before it, or ends
        // beyond all blocks that there can be.
        ("regions", &|block| {
            regions(block, |regions| regions.truncate(7));
            block.blk5_mast_sec_start_segment_ptr = 0;
        }),
        ("regions", &|block| {
            regions(block, |regions| regions[0].start = 1);
            block.blk5_mast_sec_start_ptr = 1;
        }),
        ("regions", &|block| regions(block, |regions| regions[1].start = regions[0].start + 1)),
        ("regions", &|block| regions(block, |regions| regions[7].blocks = u64::MAX)),
        ("region 0", &|block| regions(block, |regions| regions[0].blocks = 1)),
        ("region 6", &|block| regions(block, |regions| regions[6].blocks -= 1)),
    ];
    for (number, (field, change)) in contradictions.iter().enumerate() {
        let said = signed_with(change);
        assert_eq!(said, Err(MasterControlBlockError::Inconsistent(field)), "contradiction {number}");
    }
    for region in 1..6 {
        let said = signed_with(&|block| regions(block, |regions| regions[region].blocks -= 1));
        let MasterControlBlockError::Inconsistent(field) = said.unwrap_err() else {
            panic!("region {region}")
        };
        assert_eq!(field, format!("region {region}"));
    }
}

#[test]
fn a_newer_format_is_named_and_a_newer_minor_version_opens() {
    let newer = |major, features| Err(MasterControlBlockError::Version { major, features });
    assert_eq!(signed_with(&|block| block.blk5_version = 2), newer(2, 0));
    assert_eq!(signed_with(&|block| block.blk5_version = 0), newer(0, 0));
    assert_eq!(signed_with(&|block| block.feature_bits = 4), newer(1, 4));
    assert!(signed_with(&|block| block.blk5_version = 3 << 16 | 1).is_ok());
}

#[test]
fn one_copy_is_enough_and_the_damaged_ones_are_named() {
    let disks = volume();
    assert!(open_disks(&disks).unwrap().notices.is_empty());
    damage(&disks[0], 0);
    let notices = open_disks(&disks).unwrap().notices;
    assert!(matches!(&notices[..], [one] if one.starts_with("device 0, block 0: master control block")));
    damage(&disks[0], 1);
    damage(&disks[1], 0);
    assert_eq!(open_disks(&disks).unwrap().notices.len(), 3);
    damage(&disks[2], 0);
    assert!(matches!(open_disks(&disks), Err(OpenError::NoMaster { .. })));
}

#[test]
fn the_device_table_stands_twice() {
    let disks = volume();
    let block = usize::try_from(layout().master.region(0).start).unwrap();
    damage(&disks[0], block);
    let opened = open_disks(&disks).unwrap();
    assert!(opened.notices[0].contains("secondary device table"), "{:?}", opened.notices);
    damage(&disks[0], block + 1);
    assert!(matches!(open_disks(&disks), Err(OpenError::Table { .. })));
}

#[test]
fn a_device_that_cannot_be_read_is_named() {
    let disks = volume();
    let dead = || Faults { error: 1.0, ..Faults::default() };
    let mut all = devices(&disks);
    all[2] = Box::new(FaultyDevice::new(disks[2].device(), dead(), 1));
    let error = open::open(&Waiter::idle(), all, None, None).unwrap_err();
    assert!(matches!(error, OpenError::Io { device: 2, .. }), "{error}");
}

#[test]
fn devices_in_another_order_or_number_are_named() {
    let disks = volume();
    let order = |order: &[usize]| {
        let disks: Vec<_> = order.iter().map(|at| disks[*at].clone()).collect();
        open_disks(&disks).unwrap_err()
    };
    assert!(matches!(order(&[1, 0, 2]), OpenError::Order { device: 0, found: 1 }), "master and secondary");
    assert!(matches!(order(&[0, 2, 1]), OpenError::Order { device: 1, found: 2 }));
    assert!(matches!(order(&[0, 1]), OpenError::DeviceCount { expected: 3, configured: 2 }));
    assert!(matches!(order(&[0, 1, 1]), OpenError::Order { device: 2, found: 1 }));
    let other = MemoryDisk::new(BlockSize::B4096, BlockCount(3000));
    let with_other = [disks[0].clone(), disks[1].clone(), other];
    assert!(matches!(open_disks(&with_other), Err(OpenError::Foreign { device: 2 })), "never written to");
}
