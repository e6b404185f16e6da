//! Segments of random volumes: numbers and places, pools and devices.

use std::collections::BTreeSet;

use aws_lc_rs::signature::Ed25519KeyPair;
use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};
use proptest::prop_assume;
use volume::layout::{PlanError, PlannedDevice, VolumePlan};
use volume::secondary_device_table::SecondaryDeviceTable;
use volume::{BlockAddress, Layout, SegmentNumber};

fn admin() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[5; 32]).expect("any 32 bytes are a seed")
}

fn plans() -> impl Strategy<Value = VolumePlan> {
    let devices = proptest::collection::vec(1000u64..9000, 1..6);
    (devices, 1u16..9, 1u16..5, 0u32..6).prop_map(|(devices, lanes, connections, shift)| VolumePlan {
        devices: devices
            .into_iter()
            .enumerate()
            .map(|(index, blocks)| PlannedDevice::new(&format!("disk{index}"), blocks).expect("a short id"))
            .collect(),
        lanes,
        connections,
        segment_payload_bytes: 4096 << shift,
        volume_id: [1; 16],
        time_id: 0,
        unix_filename: "master".into(),
    })
}

fn all(layout: &Layout) -> impl Iterator<Item = SegmentNumber> {
    (1..=layout.master.blk5_tot_seg_num).map(SegmentNumber)
}

proptest! {
    #[test]
    fn numbers_and_places_are_inverse(plan in plans()) {
        let layout = plan.layout(&admin());
        prop_assume!(layout.is_ok());
        let layout = layout.expect("checked");
        let size = layout.segment_blocks();
        prop_assert!(layout.table.is_consistent(size));
        prop_assert_eq!(layout.table.segment_count(), layout.master.blk5_tot_seg_num);
        let mut free_from = std::collections::BTreeMap::new();
        for number in all(&layout) {
            let at = layout.locate(number).expect("every number has a place");
            prop_assert_eq!(layout.segment_at(at), Some(number));
            for inside in [1, size - 1] {
                let address = BlockAddress { block: at.block + inside, ..at };
                prop_assert_eq!(layout.segment_at(address), None, "only where a segment starts");
            }
            let row = &layout.table.rows[usize::from(at.device)];
            prop_assert!(at.block + size <= row.device_size);
            let free = free_from.entry(at.device).or_insert(row.sec_str_seg_ptr);
            prop_assert!(*free <= at.block, "segments overlap");
            *free = at.block + size;
            if at.device == 0 {
                prop_assert!(layout.master.regions[..7].iter().all(|region| region.start + region.blocks <= at.block));
            } else {
                prop_assert!(at.block > 0, "block 0 has the master control block");
            }
        }
        let beyond = SegmentNumber(layout.master.blk5_tot_seg_num + 1);
        for none in [SegmentNumber(0), beyond, SegmentNumber(u64::MAX)] {
            prop_assert_eq!(layout.locate(none), None);
        }
        let first = layout.table.rows.iter().find(|row| row.sec_seg_number_for_device > 0);
        prop_assert_eq!(first.map(|row| row.sec_start_segment_number), Some(1), "the first of the first device");
    }

    #[test]
    fn pools_of_lanes_are_disjoint_and_cover_everything(plan in plans()) {
        let layout = plan.layout(&admin());
        prop_assume!(layout.is_ok());
        let layout = layout.expect("checked");
        let mut owned = BTreeSet::new();
        for lane in 0..plan.lanes {
            let pool = layout.pool_of_lane(lane);
            let mut of_lane = 0;
            for (first, count) in pool {
                let numbers = first.0..first.0 + count;
                let devices: BTreeSet<_> = numbers.clone().map(|number| layout.locate(SegmentNumber(number)).map(|at| at.device)).collect();
                prop_assert_eq!(devices.len(), 1, "a range lies on one device");
                prop_assert!(!devices.contains(&None));
                for number in numbers {
                    prop_assert!(owned.insert(number), "segment {} has two owners", number);
                }
                of_lane += count;
            }
            prop_assert!(of_lane >= 3, "two in flight and one for commands");
        }
        prop_assert_eq!(owned.len() as u64, layout.master.blk5_tot_seg_num);
    }

    #[test]
    fn what_is_said_to_be_needed_is_enough(plan in plans()) {
        let mut plan = plan;
        for _ in 0..plan.devices.len() {
            match plan.layout(&admin()) {
                Ok(_) => break,
                Err(PlanError::TooSmall { index, need_bytes, have_bytes, .. }) => {
                    prop_assert_eq!(have_bytes, plan.devices[index].blocks * 4096);
                    prop_assert!(need_bytes > have_bytes);
                    plan.devices[index].blocks = need_bytes / 4096;
                }
                Err(other) => panic!("{other}"),
            }
        }
        prop_assert!(plan.layout(&admin()).is_ok());
    }

    /// A table that is signed and yet absurd is refused, and never a reason to panic.
    #[test]
    fn absurd_tables_are_refused(plan in plans(), row in 0usize..6, value in 1u64 << 40.., field in 0..4) {
        let layout = plan.layout(&admin());
        prop_assume!(layout.is_ok());
        let layout = layout.expect("checked");
        let mut rows = layout.table.rows.to_vec();
        let row = row % rows.len();
        let place = match field {
            0 => &mut rows[row].sec_str_seg_ptr,
            1 => &mut rows[row].sec_seg_number_for_device,
            2 => &mut rows[row].sec_start_segment_number,
            _ => &mut rows[row].sec_seg_number_for_device,
        };
        *place = value;
        let table = SecondaryDeviceTable { rows: volume::record::Rows::new(rows).expect("as many"), ..layout.table.clone() };
        prop_assert!(!table.is_consistent(layout.segment_blocks()));
    }
}
