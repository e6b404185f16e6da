//! Damaged and mixed-up devices: what still opens, what does not, and how that is said.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

use aws_lc_rs::signature::Ed25519KeyPair;
use storage_mapping::device::{Faults, FaultyDevice, MemoryDisk};
use storage_mapping::{BlockCount, BlockDevice, BlockSize};
use volume::header::{emit_page, seal_page};
use volume::layout::{PlannedDevice, VolumePlan};
use volume::open::{OpenError, Opened};
use volume::record::Record;
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
