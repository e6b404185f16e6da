//! Every record of this crate, with any values, any bytes and any damage; and its golden bytes.

mod support;

use std::path::Path;

use support::check_golden_record;
use volume::header::Header;
use volume::master_control_block::{MasterControlBlock, Region};
use volume::record::{Record, RecordError};
use volume::secondary_device_table::{SecondaryDevice, SecondaryDeviceTable};

record_properties! {
    header: Header,
    region: Region,
    master_control_block: MasterControlBlock,
    secondary_device: SecondaryDevice,
    secondary_device_table: SecondaryDeviceTable,
}

sealed_record_properties! {
    master_control_block: MasterControlBlock,
    secondary_device_table: SecondaryDeviceTable,
}

#[test]
fn bytes_on_disk_are_golden() {
    let folder = &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    check_golden_record::<Header>(folder, "common_header");
    check_golden_record::<Region>(folder, "region");
    check_golden_record::<MasterControlBlock>(folder, "master_control_block");
    check_golden_record::<SecondaryDevice>(folder, "secondary_device");
    check_golden_record::<SecondaryDeviceTable>(folder, "secondary_device_table");
}

/// The one who looks for the damage is told the byte.
#[test]
fn a_reserved_byte_is_named_by_its_offset() {
    let record = MasterControlBlock::NAME;
    for offset in [30, 31, 40, 4063] {
        let mut bytes = [0; 4064];
        bytes[offset] = 1;
        assert_eq!(MasterControlBlock::parse(&bytes), Err(RecordError::Reserved { record, offset }));
    }
}
