//! Every field of FIG. 4 to 7 is on the disk under its own name, and `inspect` shows it.

use transfer_core::format::process_id_table::ProcessIdEntry;
use transfer_core::format::process_segment_pointer_table::PointerEntry;
use volume::master_control_block::MasterControlBlock;
use volume::record::{Field, Record};
use volume::secondary_device_table::SecondaryDevice;

const FIGURE_4: [&str; 15] = [
    "blk5_id",
    "blk5_dev_id",
    "blk5_seg_size",
    "blk5_version",
    "blk5_time_id",
    "blk5_tot_seg_num",
    "blk5_process_id_table_ptr",
    "blk5_secondary_device_entrynum",
    "blk5_start_process_segment_ptr",
    "blk5_max_connections",
    "blk5_mast_sec_start_ptr",
    "blk5_mast_sec_start_segment_ptr",
    "blk5_ptr_seg_per_process",
    "blk5_maxptr",
    "blk5_unix_filename",
];

/// `InitM` has the place of `pro_dtd` in the other half of the pair, and so no name of its own here.
const FIGURE_5: [&str; 9] = [
    "pro_process_id",
    "pro_flag_process",
    "pro_con_rc",
    "pro_requestor",
    "pro_requestor_password",
    "pro_requestor_type",
    "pro_requestee",
    "pro_requestee_type",
    "pro_dtd",
];

const FIGURE_6: [&str; 4] =
    ["sec_dev_id", "sec_str_seg_ptr", "sec_seg_number_for_device", "sec_start_segment_number"];

const FIGURE_7: [&str; 5] = [
    "ptr_process_segment_ptr",
    "ptr_process_segment_flg",
    "ptr_process_block_seq",
    "ptr_process_req_id",
    "ptr_process_blk_read",
];

/// The record has these fields, and no further one that looks like a field of the figure.
fn has_exactly(fields: &[Field], prefix: &str, figure: &[&str]) {
    for name in figure {
        assert!(fields.iter().any(|field| field.name == *name && field.size > 0), "{name} is missing");
    }
    let own = fields.iter().filter(|field| field.name.starts_with(prefix));
    assert_eq!(own.count(), figure.len());
}

#[test]
fn every_field_of_the_figures_is_there() {
    has_exactly(MasterControlBlock::FIELDS, "blk5_", &FIGURE_4);
    has_exactly(ProcessIdEntry::FIELDS, "pro_", &FIGURE_5);
    has_exactly(SecondaryDevice::FIELDS, "sec_", &FIGURE_6);
    has_exactly(PointerEntry::FIELDS, "ptr_", &FIGURE_7);
}

#[test]
fn the_master_control_block_begins_with_its_identifier() {
    assert_eq!(MasterControlBlock::FIELDS[0], Field { name: "blk5_id", offset: 0, size: 8 });
    assert_eq!(&volume::master_control_block::MASTER_ID, b"MAS_EMC\0");
    assert_eq!(&volume::master_control_block::SECONDARY_ID, b"SEC_EMC\0");
}
