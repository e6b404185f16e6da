//! Every opcode and service action of the committed list has its row, and every row stands in the list.

use std::collections::BTreeSet;

use proptest::prelude::{any, proptest};
use storage_mapping::control_port::{Cdb, NvmeFields};

use super::user::{parse_bits, parse_opcodes};
use super::*;

/// One line of `opcodes.txt`.
struct Entry {
    command: ControlCommand,
    is_named: bool,
    name: &'static str,
    task: Option<u8>,
}

/// `WORDS OPCODE[-OPCODE] [AT:MASK=VALUE]... [named] [page=XX] [no-key] NAME`.
fn entries() -> Vec<Entry> {
    let list = include_str!("opcodes.txt");
    list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).flat_map(entry).collect()
}

fn entry(line: &'static str) -> Vec<Entry> {
    let (head, name) = line.split_once(" | ").expect("a name");
    let mut words = head.split_whitespace();
    let (kind, opcodes) = (words.next().unwrap(), parse_opcodes(words.next().unwrap()).expect(line));
    let rest: Vec<&str> = words.collect();
    [opcodes.0, opcodes.1].map(|opcode| one(kind, opcode, &rest, name)).into()
}

fn one(kind: &str, opcode: u8, rest: &[&str], name: &'static str) -> Entry {
    let length = match opcode >> 5 {
        0 => 6,
        _ if opcode == 0x7f => 32,
        4 => 16,
        5 => 12,
        _ => 10,
    };
    let mut cdb = vec![0; length];
    let mut nvme = NvmeFields { is_io: kind == "nvme-io", opcode, ..NvmeFields::default() };
    cdb[0] = opcode;
    let mut list = vec![0xff; 24];
    for word in rest {
        if let Some(bits) = parse_bits(word) {
            match (kind, bits.at) {
                ("scsi", at) => cdb[usize::from(at)] |= u8::try_from(bits.value).unwrap(),
                (_, 1) => nvme.namespace = bits.value,
                (_, at) => nvme.cdw10[usize::from(at) - 10] |= bits.value,
            }
        } else if *word == "no-key" {
            list[8..16].fill(0);
        } else if let Some(page) = word.strip_prefix("page=") {
            // Behind a header and one block descriptor.
            let (header, at) = if opcode == 0x15 { (3, 12) } else { (7, 16) };
            list = vec![0; 24];
            list[header] = 8;
            list[at] = u8::from_str_radix(page, 16).unwrap();
        }
    }
    let bytes =
        if kind == "scsi" { CommandBytes::Scsi(Cdb::new(&cdb).unwrap()) } else { CommandBytes::Nvme(nvme) };
    let command = ControlCommand { bytes, transfer: Transfer::Out(list) };
    let task = (kind == "task").then_some(opcode);
    Entry { command, is_named: rest.contains(&"named"), name, task }
}

fn found<'a>(table: &'a CommandTable, entry: &'a Entry) -> &'a Row {
    if let Some(function) = entry.task {
        return scsi_primary::TASK_ROWS
            .iter()
            .find(|row| row.opcodes.0 == function)
            .expect("a row of a task");
    }
    table.row(&Lookup { command: &entry.command, device_type: DISK, is_named: entry.is_named })
}

#[test]
fn every_opcode_and_service_action_has_its_row_and_every_row_is_in_the_list() {
    let table = CommandTable::default();
    let entries = entries();
    let mut reached = BTreeSet::new();
    for entry in &entries {
        let row = found(&table, entry);
        assert_eq!(row.name, entry.name, "{:?}", entry.command.bytes);
        reached.insert(row.name.clone());
    }
    let names: Vec<_> = shipped().map(|row| row.name.clone()).collect();
    let without: Vec<_> = names.iter().filter(|name| !reached.contains(*name)).collect();
    assert!(without.is_empty(), "rows that no line of the list reaches: {without:?}");
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "two rows of one name");
    assert!(shipped().all(|row| !row.reason.is_empty()));
}

#[test]
fn what_is_to_be_verified_has_a_command_for_it() {
    for row in shipped() {
        assert!(row.repeat != Repeat::Verify || row.verify != Verify::None, "{row}");
        assert!(!row.checks_effect || row.verify != Verify::None, "{row}");
    }
}

fn scsi(bytes: &[u8]) -> ControlCommand {
    ControlCommand { bytes: CommandBytes::Scsi(Cdb::new(bytes).unwrap()), transfer: Transfer::None }
}

#[test]
fn what_is_not_known_is_for_its_nexus_and_never_repeated() {
    let table = CommandTable::default();
    for opcode in [0x02, 0x60, 0xc7] {
        let command = scsi(&[opcode; 6]);
        let row = table.row(&Lookup { command: &command, device_type: DISK, is_named: true });
        assert_eq!((row.class, row.repeat), (Class::Nexus, Repeat::Never), "{row}");
    }
}

#[test]
fn on_other_devices_only_four_commands_are_known() {
    let table = CommandTable::default();
    for entry in entries().iter().filter(|entry| entry.task.is_none()) {
        let CommandBytes::Scsi(cdb) = entry.command.bytes else { continue };
        let lookup = Lookup { command: &entry.command, device_type: 0x05, is_named: entry.is_named };
        let row = table.row(&lookup);
        let is_known = matches!(cdb.opcode(), 0x00 | 0x03 | 0x12 | 0xa0);
        assert_eq!(*row == OTHER_DEVICE, !is_known, "{row}");
    }
    assert_eq!((OTHER_DEVICE.class, OTHER_DEVICE.repeat), (Class::Exact, Repeat::Never));
}

#[test]
fn clear_and_set_target_port_groups_are_for_callers_alone() {
    let alone: BTreeSet<_> = entries()
        .iter()
        .filter(|entry| is_for_callers_alone(&entry.command))
        .map(|entry| entry.name)
        .collect();
    let expected = ["Cross-Controller Reset", "PERSISTENT RESERVE OUT CLEAR", "SET TARGET PORT GROUPS"];
    assert_eq!(alone.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_row_of_the_user_raises_a_command_of_the_vendor_and_no_other_in_silence() {
    let user = UserRows::parse(["# counters", "scsi c1 1:1f=05 portable yes vendor counters"]).unwrap();
    assert!(user.notices().is_empty());
    let table = CommandTable::with_user_rows(user);
    let name = |bytes: &[u8]| {
        let command = scsi(bytes);
        table.row(&Lookup { command: &command, device_type: DISK, is_named: true }).to_string()
    };
    let counters = "vendor counters: portable, yes (a row of the configuration)";
    assert_eq!(name(&[0xc1, 0x05, 0, 0, 0, 0, 0, 0, 0, 0]), counters);
    assert_eq!(name(&[0xc1, 0x06, 0, 0, 0, 0, 0, 0, 0, 0]), "command of the vendor: nexus, never");

    let said = |line| UserRows::parse([line]).unwrap_err().to_string();
    assert!(
        said("scsi 89 portable yes atomic").contains("COMPARE AND WRITE: portable, never; write `override`")
    );
    // A range that covers a known command, too.
    assert!(said("scsi 80-8a portable yes all").contains("override"));
    let loosened = UserRows::parse(["scsi 89 override portable yes atomic"]).unwrap();
    assert_eq!(loosened.notices().len(), 1);
    assert!(loosened.notices()[0].contains("lets COMPARE AND WRITE be repeated"));
    assert!(said("scsi c1 portable verify counters").contains("nothing is known that verifies it"));
    for line in [
        "tcp 1 portable yes x",
        "scsi xx portable yes x",
        "scsi c1 1:0f=10 portable yes x",
        "scsi c1 x yes x",
        "scsi c1 portable x y",
        "scsi c1 portable yes",
        "scsi c1 1:1=1 2:1=1 3:1=1 4:1=1 portable yes x",
        "scsi",
    ] {
        assert!(said(line).contains("a row is WORDS OPCODE"), "{line}");
    }
}

proptest! {
    #[test]
    fn any_bytes_have_a_row(
        opcode in any::<u8>(), bytes in any::<[u8; 31]>(), list in proptest::collection::vec(any::<u8>(), 0..40),
        device_type in any::<u8>(), is_named in any::<bool>(), dwords in any::<[u32; 6]>(), is_io in any::<bool>(),
    ) {
        let mut cdb = vec![opcode];
        cdb.extend(bytes);
        let table = CommandTable::default();
        let nvme = NvmeFields { is_io, opcode, namespace: dwords[0], cdw2: [0; 2], cdw10: dwords };
        for length in [6, 10, 12, 16, 32] {
            for bytes in [CommandBytes::Scsi(Cdb::new(&cdb[..length]).unwrap()), CommandBytes::Nvme(nvme)] {
                let command = ControlCommand { bytes, transfer: Transfer::Out(list.clone()) };
                let _ = table.row(&Lookup { command: &command, device_type, is_named });
            }
        }
    }

    #[test]
    fn any_line_is_a_row_or_an_error(line in ".{0,60}") {
        let _ = UserRows::parse([line.as_str()]);
    }
}
