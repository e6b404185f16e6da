//! Every record of this crate, with any values, any bytes and any damage; and its golden bytes.

#[macro_use]
mod support;

use std::path::Path;

use proptest::prelude::{any, proptest};
use support::{any_value, bytes_of, check_golden_record, noisy_page};
use transfer_core::format::beacon::{Beacon, Bell, OutCall};
use transfer_core::format::control_area::{InCall, InDirectory, IncarnationRecord};
use transfer_core::format::host_table::{Extent, HostRecord, PoolRange};
use transfer_core::format::process_id_table::{CommandStructure, ProcessIdEntry};
use transfer_core::format::process_segment_pointer_table::{
    ENTRIES_MAX, ENTRY_BYTES, Nack, PointerEntry, PointerTable,
};
use transfer_core::format::segment::SegmentHeader;
use transfer_core::protocol::handshake::Hello;
use volume::record::Record;

record_properties! {
    out_call: OutCall,
    beacon: Beacon,
    bell: Bell,
    incarnation_record: IncarnationRecord,
    in_call: InCall,
    in_directory: InDirectory,
    extent: Extent,
    pool_range: PoolRange,
    host_record: HostRecord,
    command_structure: CommandStructure,
    process_id_entry: ProcessIdEntry,
    pointer_entry: PointerEntry,
    nack: Nack,
    pointer_table: PointerTable,
    segment_header: SegmentHeader,
    hello: Hello,
}

// The bell has no seal; that of a segment is tested with its payload, in `segments.rs`.
sealed_record_properties! {
    beacon: Beacon,
    incarnation_record: IncarnationRecord,
    in_directory: InDirectory,
    host_record: HostRecord,
    process_id_entry: ProcessIdEntry,
    pointer_table: PointerTable,
}

proptest! {
    /// What `entries` gives are the entries that were put there, holes included; or nothing.
    #[test]
    fn pointer_entries_come_back(
        table in any_value::<PointerTable>(),
        entries in proptest::collection::vec((any::<bool>(), any_value::<PointerEntry>()), 0..70),
    ) {
        let mut table = table;
        table.entry_area.fill(0);
        table.entry_count = u16::try_from(entries.len()).unwrap();
        for ((used, entry), place) in entries.iter().zip(table.entry_area.chunks_exact_mut(ENTRY_BYTES)) {
            if *used {
                place.copy_from_slice(&bytes_of(entry));
            }
        }
        let is_zero = |entry: &PointerEntry| bytes_of(entry).iter().all(|byte| *byte == 0);
        let expected = entries.into_iter().map(|(used, entry)| (used && !is_zero(&entry)).then_some(entry));
        let expected: Vec<_> = expected.collect();
        assert_eq!(table.entries(), (expected.len() <= ENTRIES_MAX).then_some(expected));
    }

    #[test]
    fn no_entry_area_makes_it_panic(page in noisy_page::<PointerTable>()) {
        if let Ok(table) = PointerTable::parse(&page) {
            assert!(table.entries().is_none_or(|entries| entries.len() == usize::from(table.entry_count)));
        }
    }

    #[test]
    fn no_handshake_length_makes_it_panic(entry in any_value::<ProcessIdEntry>()) {
        let length = usize::from(entry.handshake_length);
        assert_eq!(entry.handshake().map(<[u8]>::len), (length <= 1016).then_some(length));
    }
}

#[test]
fn bytes_on_disk_are_golden() {
    let folder = &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    check_golden_record::<Beacon>(folder, "beacon");
    check_golden_record::<Bell>(folder, "bell");
    check_golden_record::<CommandStructure>(folder, "command_structure");
    check_golden_record::<Hello>(folder, "hello");
    check_golden_record::<HostRecord>(folder, "host_record");
    check_golden_record::<IncarnationRecord>(folder, "incarnation_record");
    check_golden_record::<InDirectory>(folder, "in_directory");
    check_golden_record::<Nack>(folder, "nack");
    check_golden_record::<PointerEntry>(folder, "pointer_entry");
    check_golden_record::<PointerTable>(folder, "pointer_table");
    check_golden_record::<ProcessIdEntry>(folder, "process_id_entry");
    check_golden_record::<SegmentHeader>(folder, "segment_header");
}
