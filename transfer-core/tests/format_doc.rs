//! `docs/format.md` says what the code does: its tables are those of the byte maps, its codes those of the
//! enumerations. UPDATE_GOLDEN=1 writes offsets, sizes, names and codes anew and keeps what fields mean.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use bitflags::Flags;
use transfer_core::format::beacon::{Beacon, BeaconState, Bell, OutCall};
use transfer_core::format::control_area::{InCall, InDirectory, IncarnationRecord};
use transfer_core::format::host_table::{Extent, HostFlags, HostRecord, OsType, PoolRange};
use transfer_core::format::process_id_table::{
    CloseReason, CommandStructure, EntryState, ProcessFlags, ProcessIdEntry, Role, Suite,
};
use transfer_core::format::process_segment_pointer_table::{
    Nack, PointerEntry, PointerTable, SegmentFlags, TableFlags,
};
use transfer_core::format::segment::{Direction, Kind, SegmentHeader};
use transfer_core::protocol::handshake::Hello;
use volume::header::{Header, HeaderFlags, RecordType};
use volume::master_control_block::{MasterControlBlock, Region};
use volume::record::{Field, Record};
use volume::secondary_device_table::{DeviceFlags, SecondaryDevice, SecondaryDeviceTable};

/// Every record, under the name of its marker.
fn records() -> Vec<(&'static str, usize, &'static [Field])> {
    fn map<R: Record>(name: &'static str) -> (&'static str, usize, &'static [Field]) {
        (name, R::SIZE, R::FIELDS)
    }
    vec![
        map::<Beacon>("beacon"),
        map::<Bell>("bell"),
        map::<CommandStructure>("command_structure"),
        map::<Extent>("extent"),
        map::<Header>("header"),
        map::<Hello>("hello"),
        map::<HostRecord>("host_record"),
        map::<InCall>("in_call"),
        map::<IncarnationRecord>("incarnation_record"),
        map::<InDirectory>("in_directory"),
        map::<MasterControlBlock>("master_control_block"),
        map::<Nack>("nack"),
        map::<OutCall>("out_call"),
        map::<PointerEntry>("pointer_entry"),
        map::<PointerTable>("pointer_table"),
        map::<PoolRange>("pool_range"),
        map::<ProcessIdEntry>("process_id_entry"),
        map::<Region>("region"),
        map::<SecondaryDevice>("secondary_device"),
        map::<SecondaryDeviceTable>("secondary_device_table"),
        map::<SegmentHeader>("segment_header"),
    ]
}

/// The table of a record, with the meanings of `old` by field.
fn table(size: usize, fields: &[Field], old: &BTreeMap<String, String>) -> String {
    let mut text = String::from("| offset | size | field | meaning |\n|---|---|---|---|\n");
    for Field { name, offset, size } in fields {
        let meaning = old.get(*name).map_or("", String::as_str);
        writeln!(text, "| {offset} | {size} | `{name}` | {meaning} |").unwrap();
    }
    writeln!(text, "| **{size}** | | | |").unwrap();
    text
}

/// What the fields of a table mean.
fn meanings(table: &str) -> BTreeMap<String, String> {
    let rows = table.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.splitn(4, " | ");
        let (_, _, name, meaning) = (cells.next()?, cells.next()?, cells.next()?, cells.next()?);
        Some((name.strip_prefix('`')?.strip_suffix('`')?.to_owned(), meaning.trim().to_owned()))
    });
    rows.collect()
}

macro_rules! codes_of {
    ($text:ident, $($title:literal: $type:ty),* $(,)?) => {$(
        let values = <$type>::ALL.iter().map(|value| format!("{} {value:?}", value.code()));
        writeln!($text, "| {} | {} |", $title, values.collect::<Vec<_>>().join(" · ")).unwrap();
    )*};
}

fn bits_of<F: Flags>(text: &mut String, title: &str) {
    let bits = F::FLAGS.iter().enumerate().map(|(bit, flag)| format!("{bit} {}", flag.name()));
    writeln!(text, "| {title} | bit {} |", bits.collect::<Vec<_>>().join(" · ")).unwrap();
}

fn codes() -> String {
    let mut text = String::from("| field | values |\n|---|---|\n");
    codes_of!(
        text,
        "`record_type`": RecordType,
        "`pro_con_rc`, `close_reason`": CloseReason,
        "`state` of entries and tables": EntryState,
        "`role`": Role,
        "`suite`": Suite,
        "`pro_requestor_type`, `pro_requestee_type`, `os_type`": OsType,
        "`state` of a beacon": BeaconState,
        "`direction`": Direction,
        "`kind`": Kind,
    );
    bits_of::<HeaderFlags>(&mut text, "`flags` of the common header");
    bits_of::<DeviceFlags>(&mut text, "`flags` of a device");
    bits_of::<HostFlags>(&mut text, "`flags` of a host record");
    bits_of::<ProcessFlags>(&mut text, "`pro_flag_process`");
    bits_of::<SegmentFlags>(&mut text, "`ptr_process_segment_flg`");
    bits_of::<TableFlags>(&mut text, "`flags` of a pointer table");
    text
}

/// Start and end of what stands between `marker` and the next end.
fn between(page: &str, marker: &str) -> (usize, usize) {
    let marker = format!("<!-- {marker} -->\n");
    let start = page.find(&marker).unwrap_or_else(|| panic!("{marker} is not in docs/format.md"));
    let start = start + marker.len();
    (start, start + page[start..].find("<!-- end -->").expect("an end after the marker"))
}

#[test]
fn the_page_says_what_the_code_does() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/format.md");
    let stored = std::fs::read_to_string(&file).unwrap();
    let mut page = stored.clone();
    for (name, size, fields) in records() {
        let (start, end) = between(&page, &format!("record: {name}"));
        let old = meanings(&page[start..end]);
        page.replace_range(start..end, &format!("\n{}\n", table(size, fields, &old)));
    }
    let (start, end) = between(&page, "codes");
    page.replace_range(start..end, &format!("\n{}\n", codes()));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &page).unwrap();
    } else {
        let line = page.lines().zip(stored.lines()).find(|(now, stored)| now != stored);
        assert!(
            page == stored,
            "docs/format.md is not what the code says (UPDATE_GOLDEN=1 writes it): {line:?}"
        );
    }
    for (name, _, fields) in records() {
        let (start, end) = between(&page, &format!("record: {name}"));
        let meanings = meanings(&page[start..end]);
        let missing = fields.iter().find(|field| meanings.get(field.name).is_none_or(String::is_empty));
        assert_eq!(missing, None, "{name}: say in docs/format.md what the field means");
    }
    assert_eq!(page.matches("<!-- record: ").count(), records().len(), "a table of no record");
}
