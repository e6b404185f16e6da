//! The commands of the simulated target: who it is, how it is reached, its settings and counters, its blocks.

mod target_support;

use std::time::Duration;

use proptest::prelude::{any, prop_oneof, proptest};
use proptest::sample::select;
use storage_mapping::control_port::{ControlCancelled, ControlReply, Transfer};
use storage_mapping::device::storage_system::{AccessState, Attention, CommandFault};
use storage_mapping::path_address;
use storage_mapping::scsi::basic::{BasicCommand, BlockTransfer};
use storage_mapping::scsi::capacity::{Capacity, ReadCapacity, ShortCapacity};
use storage_mapping::scsi::inquiry::InquiryData;
use storage_mapping::scsi::log::{LogPage, LogSelect, LogSense};
use storage_mapping::scsi::luns::{Lun, LunList, ReportLuns};
use storage_mapping::scsi::mode::{
    CachingPage, ControlPage, ModeData, ModeForm, ModePage, ModeSelect, ModeSense, PageControl,
};
use storage_mapping::scsi::port_groups::{PortGroups, ReportPortGroups, SetPortGroups};
use storage_mapping::scsi::reservations::{ReservationType, ReserveInAction, ReserveOutAction};
use storage_mapping::scsi::sense::{KeySpecific, Sense, SenseFormat};
use storage_mapping::scsi::vpd::{Page, PagePolicy, PolicyDescriptor, PortIdentity, Vpd, identification};
use storage_mapping::{BlockDevice, Buffer, ControlPort, CopyFate, Effect, Instant, IoRequest, IoTag, Lba};
use target_support::{
    Bench, C0, TUR, data_of, inquiry, raw, register, reserve, reserve_in, reserve_out, sense_of, status_of,
};

fn sense_bytes(reply: &ControlReply) -> Sense {
    let ControlReply::Scsi { sense, .. } = reply else { panic!("a SCSI target") };
    Sense::parse(sense).expect("sense data")
}

#[test]
fn the_unit_is_one_through_all_ports_and_each_port_names_itself() {
    let mut bench = Bench::new("disk d1 64KiB\nvolume v1 concatenated d1@0+64KiB");
    let mut names = Vec::new();
    for (number, port) in (1_u16..).zip(["p0", "p1", "p2", "p3"]) {
        let mut path = bench.path("host1", port);
        let standard = InquiryData::parse(&data_of(&bench.run(&mut path, inquiry(None)))).unwrap();
        assert_eq!((standard.vendor.as_str(), standard.product.as_str()), ("DISKWIRE", "SIMULATED VOLUME"));
        let page = Vpd::parse(&data_of(&bench.run(&mut path, inquiry(Some(0x83))))).unwrap().page;
        let Page::Identification(designators) = page else { panic!("another page") };
        let identity = PortIdentity::of(&designators);
        assert_eq!((identity.relative_port, identity.group), (Some(number), Some(number.div_ceil(2))));
        names.push(identification::unit_identity(&designators).expect("it has a name"));
    }
    assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
    let mut other = bench.system.path("host1", "p0", "v1").unwrap();
    let page = Vpd::parse(&data_of(&bench.run(&mut other, inquiry(Some(0x83))))).unwrap().page;
    let Page::Identification(designators) = page else { panic!("another page") };
    assert_ne!(identification::unit_identity(&designators), Some(names[0].clone()));
}

#[test]
fn every_page_that_is_announced_comes_whole_and_no_other() {
    let mut bench = Bench::new("");
    let mut path = bench.path("host1", "p0");
    let list = Vpd::parse(&data_of(&bench.run(&mut path, inquiry(Some(0))))).unwrap();
    let Page::Supported(codes) = list.page else { panic!("another page") };
    for code in 0..=255 {
        let reply = bench.run(&mut path, inquiry(Some(code)));
        if codes.contains(&code) {
            let page = Vpd::parse(&data_of(&reply)).unwrap();
            assert!(page.is_whole && page.page.code() == code, "{code:02x}");
        } else {
            assert_eq!(sense_of(&reply), Some((5, 0x24, 0)), "{code:02x}");
            let pointer = Some(KeySpecific::FieldPointer { in_cdb: true, bit: None, byte: 2 });
            assert_eq!(sense_bytes(&reply).key_specific, pointer);
        }
    }
    let short = storage_mapping::scsi::inquiry::InquiryCommand { page: None, allocation: 7 };
    assert_eq!(data_of(&bench.run(&mut path, short.command())).len(), 7);
}

#[test]
fn sizes_and_numbers_of_units_are_those_of_the_description() {
    let mut bench = Bench::new("disk d1 64KiB\nvolume v1 concatenated d1@0+64KiB");
    let mut path = bench.path("host1", "p0");
    let long = Capacity::parse(&data_of(&bench.run(&mut path, ReadCapacity::LONG.command()))).unwrap();
    assert_eq!((long.last_block, long.block_bytes), (2047, 512));
    let short = ShortCapacity::parse(&data_of(&bench.run(&mut path, ReadCapacity::Short.command()))).unwrap();
    assert_eq!((short.last_block, short.block_bytes), (Some(2047), 512));
    let luns = bench.run(&mut path, ReportLuns { select: 0, allocation: 4096 }.command());
    let luns = LunList::parse(&data_of(&luns)).unwrap();
    assert_eq!(luns.luns, [Lun::of_number(0).unwrap(), Lun::of_number(1).unwrap()]);
}

#[test]
fn port_groups_are_reported_and_set_and_the_others_hear_of_it() {
    let mut bench = Bench::new("access g1/v0 non-optimized");
    let (mut path, mut sibling) = (bench.path("host1", "p0"), bench.path("host1", "p1"));
    let mut far = bench.path("host1", "p2");
    let report = ReportPortGroups { extended: true, allocation: 4096 }.command();
    let groups = PortGroups::parse(&data_of(&bench.run(&mut path, report.clone()))).unwrap();
    let shape: Vec<_> =
        groups.groups.iter().map(|group| (group.group, group.state(), &group.ports[..])).collect();
    let (optimized, slow) = (Some(AccessState::ActiveOptimized), Some(AccessState::ActiveNonOptimized));
    assert_eq!(shape, [(1, optimized, &[1, 2][..]), (2, slow, &[3, 4][..])]);
    for wrong in [(3, 0), (1, 0xf), (1, 7)] {
        let reply = bench.run(&mut path, SetPortGroups { groups: vec![(2, 0), wrong] }.command());
        assert_eq!(sense_of(&reply), Some((5, 0x26, 0)));
    }
    assert_eq!(bench.system.access_state("p2", "v0").unwrap(), AccessState::ActiveNonOptimized);
    let set = SetPortGroups { groups: vec![(1, 2), (2, 0)] }.command();
    assert_eq!(status_of(&bench.run(&mut path, set)), 0);
    assert_eq!(bench.executions(0xa4, Some(0x0a)).effective, 1);
    for path in [&mut sibling, &mut far] {
        assert_eq!(sense_of(&bench.run(path, C0())), Some((6, 0x2a, 6)), "all but the one that asked");
    }
    assert_eq!(sense_of(&bench.run(&mut path, TUR())), Some((2, 0x04, 0x0b)));
    assert_eq!(status_of(&bench.run(&mut far, TUR())), 0);
    let groups = PortGroups::parse(&data_of(&bench.run(&mut path, report))).unwrap();
    assert_eq!(groups.of_port(1).unwrap().state(), Some(AccessState::Standby));
}

#[test]
fn each_access_state_answers_what_it_must() {
    let read_keys = || reserve_in(ReserveInAction::ReadKeys);
    let rows = [
        // Command, and the states that refuse it: standby, unavailable, transitioning.
        (inquiry(None), [false, false, false]),
        (ReportLuns { select: 0, allocation: 64 }.command(), [false, false, false]),
        (ReportPortGroups { extended: false, allocation: 64 }.command(), [false, false, false]),
        (BasicCommand::RequestSense { descriptors: false, allocation: 64 }.command(), [false, false, false]),
        (read_keys(), [false, true, true]),
        (register(0, 0), [false, true, true]),
        (ModeSense::new(ModeForm::Six, 0x08, 64).command(), [false, true, true]),
        (LogSense::new(0, 64).command(), [false, true, true]),
        (TUR(), [true, true, true]),
        (ReadCapacity::LONG.command(), [true, true, true]),
        (BlockTransfer::new(false, 0, 1).command(Transfer::In(512)), [true, true, true]),
        (BasicCommand::FLUSH.command(), [true, true, true]),
        (C0(), [true, true, true]),
    ];
    for (column, (word, ascq)) in
        [("standby", 0x0b), ("unavailable", 0x0c), ("transitioning", 0x0a)].iter().enumerate()
    {
        let mut bench = Bench::new(&format!("access g0/v0 {word}"));
        let mut path = bench.path("host1", "p0");
        for (command, refused) in &rows {
            let reply = bench.run(&mut path, command.clone());
            let expected = refused[column].then_some((2, 0x04, *ascq));
            assert_eq!(sense_of(&reply), expected, "{command:?} in {word}");
            assert_eq!(status_of(&reply) == 0, !refused[column], "{command:?} in {word}");
        }
    }
}

#[test]
fn all_supported_opcodes_are_answered_and_no_other_is() {
    let mut bench = Bench::new("");
    let mut path = bench.path("host1", "p0");
    let list =
        data_of(&bench.run(&mut path, raw(&[0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0], Transfer::In(4096))));
    let mut known = Vec::new();
    for row in list[4..].chunks_exact(8) {
        let (opcode, action, length) = (row[0], row[3], usize::from(row[7]));
        known.push(opcode);
        let mut cdb = vec![0; length];
        (cdb[0], cdb[1]) = (opcode, action);
        let reply = bench.run(&mut path, raw(&cdb, Transfer::None));
        assert_ne!(sense_of(&reply), Some((5, 0x20, 0)), "{opcode:02x} {action:02x}");
        let one = [0xa3, 0x0c, 3, opcode, 0, action, 0, 0, 1, 0, 0, 0];
        let one = data_of(&bench.run(&mut path, raw(&one, Transfer::In(256))));
        assert_eq!((one[1] & 7, usize::from(one[3]), one[4]), (3, length, opcode), "it is supported");
        // What one command of all did is no concern of the next.
        while sense_of(&bench.run(&mut path, TUR())).is_some() {}
        bench.run(&mut path, BasicCommand::Release6.command());
    }
    for opcode in 0..=255 {
        let length = storage_mapping::scsi::opcode::cdb_bytes(opcode).unwrap_or(6);
        let mut cdb = vec![0; length];
        cdb[0] = opcode;
        let reply = bench.run(&mut path, raw(&cdb, Transfer::None));
        if !known.contains(&opcode) {
            assert_eq!(sense_of(&reply), Some((5, 0x20, 0)), "{opcode:02x}");
        }
    }
}

#[test]
fn settings_are_shared_or_kept_for_each_nexus_as_the_policy_says() {
    let mut bench = Bench::new("");
    let (mut path, mut other) = (bench.path("host1", "p0"), bench.path("host2", "p1"));
    let page = Vpd::parse(&data_of(&bench.run(&mut path, inquiry(Some(0x87))))).unwrap().page;
    let Page::ModePagePolicy(policies) = page else { panic!("another page") };
    assert_eq!(PolicyDescriptor::find(&policies, 0x02, 0), Some(PagePolicy::PerNexus));
    assert_eq!(PolicyDescriptor::find(&policies, 0x08, 0), Some(PagePolicy::Shared));
    let read = |bench: &mut Bench, path: &mut _, code: u8| -> ModePage {
        let data = data_of(&bench.run(path, ModeSense::new(ModeForm::Ten, code, 255).command()));
        ModeData::parse(&data, ModeForm::Ten).unwrap().page(code, 0).unwrap().clone()
    };
    let select = |page: &ModePage| {
        let data = ModeData::of_pages(vec![page.clone()]);
        ModeSelect { form: ModeForm::Six, save: false, data }.command()
    };
    let mut own = read(&mut bench, &mut path, 0x02);
    own.body[0] = 77;
    assert_eq!(status_of(&bench.run(&mut path, select(&own))), 0);
    assert_eq!(bench.attentions(&other), 0);
    assert_eq!(
        (read(&mut bench, &mut path, 0x02).body[0], read(&mut bench, &mut other, 0x02).body[0]),
        (77, 0)
    );

    let mut shared = read(&mut bench, &mut path, 0x08);
    CachingPage { write_cache: false, ..CachingPage::of(&shared).unwrap() }.put(&mut shared);
    assert_eq!(status_of(&bench.run(&mut path, select(&shared))), 0);
    assert_eq!(sense_of(&bench.run(&mut other, TUR())), Some((6, 0x2a, 0x01)));
    assert_eq!(status_of(&bench.run(&mut path, TUR())), 0);
    assert_eq!(read(&mut bench, &mut other, 0x08), shared);
    assert_eq!(status_of(&bench.run(&mut path, select(&shared))), 0, "the same once more");
    assert_eq!((bench.executions(0x15, None).effective, bench.attentions(&other)), (2, 0));

    let mut wrong = shared.clone();
    wrong.body[0] ^= 0x80;
    for command in
        [select(&wrong), select(&ModePage { code: 0x1c, body: vec![0; 10], ..ModePage::default() })]
    {
        assert_eq!(sense_of(&bench.run(&mut path, command)), Some((5, 0x26, 0)));
    }
    let saved = ModeSense { control: PageControl::Saved, ..ModeSense::new(ModeForm::Six, 0x08, 64) };
    assert_eq!(sense_of(&bench.run(&mut path, saved.command())), Some((5, 0x39, 0)));

    bench.system.apply(bench.now, &"path host1/p0/v0 end-nexus".parse().unwrap()).unwrap();
    bench.run(&mut path, TUR());
    assert_eq!(read(&mut bench, &mut path, 0x02).body[0], 0, "it went with the nexus");
    assert_eq!(read(&mut bench, &mut path, 0x08), shared);
}

#[test]
fn sense_data_come_in_the_format_that_is_set() {
    let mut bench = Bench::new("");
    let mut path = bench.path("host1", "p0");
    let wrong = || inquiry(Some(0xff));
    assert_eq!(sense_bytes(&bench.run(&mut path, wrong())).format, SenseFormat::Fixed);
    let data = data_of(&bench.run(&mut path, ModeSense::new(ModeForm::Six, ControlPage::CODE, 64).command()));
    let mut page = ModeData::parse(&data, ModeForm::Six).unwrap().pages[0].clone();
    ControlPage { descriptor_sense: true, ..ControlPage::of(&page).unwrap() }.put(&mut page);
    let data = ModeData::of_pages(vec![page]);
    assert_eq!(
        status_of(&bench.run(&mut path, ModeSelect { form: ModeForm::Ten, save: false, data }.command())),
        0
    );
    let sense = sense_bytes(&bench.run(&mut path, wrong()));
    assert_eq!((sense.format, sense.triple()), (SenseFormat::Descriptor, (5, 0x24, 0)));
}

#[test]
fn request_sense_tells_what_waits_as_data() {
    let mut bench = Bench::new("");
    let mut path = bench.raw_path("host1", "p0");
    let ask = |bench: &mut Bench, path: &mut _| {
        let command = BasicCommand::RequestSense { descriptors: true, allocation: 252 }.command();
        Sense::parse(&data_of(&bench.run(path, command))).unwrap().triple()
    };
    assert_eq!(ask(&mut bench, &mut path), (6, 0x29, 0));
    assert_eq!(ask(&mut bench, &mut path), (0, 0, 0));
    bench.arm(&path, 0x00, CommandFault::Deferred(Attention { asc: 0x0c, ascq: 0 }));
    let sense = sense_bytes(&bench.run(&mut path, TUR()));
    assert!(sense.deferred && sense.triple() == (3, 0x0c, 0), "{sense:?}");
    assert_eq!(status_of(&bench.run(&mut path, TUR())), 0, "once");
}

#[test]
fn counters_count_what_goes_to_the_disks_and_are_reset_for_all() {
    let mut bench = Bench::new("");
    let (mut path, mut other) = (bench.path("host1", "p0"), bench.path("host2", "p1"));
    let write = BlockTransfer::new(true, 4, 2).command(Transfer::Out(vec![3; 1024]));
    assert_eq!(status_of(&bench.run(&mut path, write)), 0);
    let read = BlockTransfer::new(false, 5, 1).command(Transfer::In(512));
    assert_eq!(data_of(&bench.run(&mut other, read)), [3; 512]);
    path.submit(bench.now, IoRequest::write(IoTag(77), Lba(5), Buffer::copy_of(&[4; 512]).freeze(), false))
        .unwrap();
    assert!(path.poll(bench.now).unwrap().outcome.is_ok());
    let bytes = |bench: &mut Bench, path: &mut _, page| {
        let data = data_of(&bench.run(path, LogSense::new(page, 4096).command()));
        LogPage::parse(&data).unwrap().error_counters().unwrap().bytes
    };
    assert_eq!((bytes(&mut bench, &mut path, 2), bytes(&mut bench, &mut path, 3)), (Some(1536), Some(512)));
    assert_eq!(status_of(&bench.run(&mut path, LogSelect::reset(2).command())), 0);
    assert_eq!(sense_of(&bench.run(&mut other, TUR())), Some((6, 0x2a, 0x02)));
    assert_eq!((bytes(&mut bench, &mut path, 2), bytes(&mut bench, &mut path, 3)), (Some(0), Some(512)));
}

#[test]
fn blocks_by_command_stay_inside_the_unit_and_have_the_length_they_say() {
    let mut bench = Bench::new("");
    let mut path = bench.path("host1", "p0");
    let read = |lba, blocks| BlockTransfer::new(false, lba, blocks).command(Transfer::In(4096));
    assert_eq!(data_of(&bench.run(&mut path, read(2047, 1))).len(), 512);
    for (lba, blocks) in [(2047, 2), (2048, 1), (u64::MAX, 1), (u64::MAX - 1, 2)] {
        assert_eq!(sense_of(&bench.run(&mut path, read(lba, blocks))), Some((5, 0x21, 0)), "{lba} {blocks}");
    }
    let short = BlockTransfer::new(true, 0, 2).command(Transfer::Out(vec![1; 512]));
    assert_eq!(sense_of(&bench.run(&mut path, short)), Some((5, 0x1a, 0)));
    assert_eq!(bench.executions(0x2a, None).effective, 0);
}

proptest! {
    #[test]
    fn no_command_makes_it_panic_and_each_has_one_answer(
        commands in proptest::collection::vec(
            (
                select(vec![6_usize, 10, 12, 16]),
                // Opcodes that it knows, and any others.
                prop_oneof![select(KNOWN), any::<u8>()],
                proptest::collection::vec(any::<u8>(), 15),
                proptest::collection::vec(any::<u8>(), 0..64),
                any::<bool>(),
            ),
            1..30,
        ),
    ) {
        let mut bench = Bench::new("");
        let mut path = bench.path("host1", "p0");
        for (length, opcode, mut rest, data, is_in) in commands {
            rest.insert(0, opcode);
            // Short numbers, so that lengths fit now and then.
            rest[4..8].iter_mut().for_each(|byte| *byte &= 0x1f);
            let transfer = if is_in { Transfer::In(data.len()) } else { Transfer::Out(data.clone()) };
            let reply = bench.run(&mut path, raw(&rest[..length], transfer));
            let ControlReply::Scsi { status, sense, data: came } = &reply else { panic!("a SCSI target") };
            assert!(matches!(status, 0 | 2 | 0x18), "{reply:?}");
            assert_eq!(*status == 2, Sense::parse(sense).is_some());
            assert!(came.len() <= if is_in { data.len() } else { 0 });
        }
    }
}

/// Opcodes of the target.
const KNOWN: &[u8] = &[
    0x00, 0x03, 0x12, 0x15, 0x16, 0x17, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x2a, 0x35, 0x4c, 0x4d, 0x55, 0x56,
    0x57, 0x5a, 0x5e, 0x5f, 0x88, 0x8a, 0x91, 0x9e, 0xa0, 0xa3, 0xa4, 0xc0,
];

#[test]
fn preempt_and_abort_ends_what_its_victim_has_at_the_target() {
    let mut bench = Bench::new("");
    let (mut old, mut new) = (bench.path("host1", "p0"), bench.path("host2", "p1"));
    assert_eq!(status_of(&bench.run(&mut old, register(0, 1))), 0);
    assert_eq!(status_of(&bench.run(&mut new, register(0, 2))), 0);
    let kind = ReservationType::WriteExclusiveRegistrantsOnly;
    assert_eq!(status_of(&bench.run(&mut old, reserve(1, kind))), 0);
    bench.arm(&old, 0xc0, CommandFault::Hang(None));
    let tag = bench.submit(&mut old, C0());
    assert!(bench.wait(&mut old, Duration::from_secs(1)).is_none());
    let preempt = reserve_out(ReserveOutAction::PreemptAndAbort, kind, 2, 1);
    assert_eq!(status_of(&bench.run(&mut new, preempt)), 0);
    let done = old.poll_control(bench.now).expect("it was aborted");
    assert_eq!((done.tag, status_of(done.outcome.as_ref().unwrap())), (tag, 0x40));
    assert_eq!(sense_of(&bench.run(&mut old, TUR())), Some((6, 0x2a, 0x05)));
    assert_eq!(bench.executions(0xc0, None).arrived, 0);
}

#[test]
fn what_has_not_left_is_withdrawn_and_what_hangs_on_the_way_is_not() {
    let mut bench = Bench::new("port p9 rate=1KiB");
    let mut path = bench.path("host1", "p9");
    let write = || BlockTransfer::new(true, 0, 2).command(Transfer::Out(vec![1; 1024]));
    let (first, second) = (bench.submit(&mut path, write()), bench.submit(&mut path, write()));
    assert_eq!(path.cancel_control(bench.now, second), ControlCancelled::Withdrawn);
    assert_eq!(path.cancel_control(bench.now, second), ControlCancelled::NotHere);
    assert_eq!(path.cancel_control(bench.now, first), ControlCancelled::Requested);
    let done = bench.wait(&mut path, Duration::from_secs(10)).expect("it was on its way");
    assert_eq!((done.tag, done.effect, done.copy), (first, Effect::Full, CopyFate::Dead));
    bench.system.apply(bench.now, &"port p9 hang forever".parse().unwrap()).unwrap();
    let held = bench.submit(&mut path, C0());
    bench.now = bench.now + Duration::from_secs(1);
    assert!(path.poll_control(bench.now).is_none());
    assert_eq!(path.cancel_control(bench.now, held), ControlCancelled::Requested);
    assert!(bench.wait(&mut path, Duration::from_secs(100)).is_none(), "nor does the abort get through");
}

#[test]
fn blocks_meet_all_attentions_where_the_description_says_so() {
    for (line, expected) in [("", None), ("target attentions=blocks", Some((0x29, 0x00)))] {
        let mut bench = Bench::new(line);
        let mut path = bench.raw_path("host1", "p0");
        path.submit(bench.now, IoRequest::read(IoTag(1), Lba(0), Buffer::zeroed(512))).unwrap();
        let outcome = path.poll(bench.now).unwrap().outcome;
        let met = outcome.err().map(|error| match error.source_code {
            storage_mapping::ErrorSource::Scsi { key: 6, asc, ascq, .. } => (asc, ascq),
            other => panic!("{other:?}"),
        });
        assert_eq!(met, expected);
        let left = sense_of(&bench.run(&mut path, TUR()));
        assert_eq!(left.is_some(), expected.is_none(), "once, to one of them");
    }
}

#[test]
fn a_path_by_address_takes_commands_in_real_time() {
    let address = "sim:commands-in-real-time/p1/v0?size=64KiB&block=512";
    let mut device = path_address::open(&address.parse().unwrap()).unwrap().device;
    let start = std::time::Instant::now();
    let now = || Instant(u64::try_from(start.elapsed().as_nanos()).unwrap());
    let system = path_address::simulated_system("commands-in-real-time").unwrap();
    system.apply(now(), &"port p1 latency 5ms".parse().unwrap()).unwrap();
    let port = device.control_port().expect("a simulated path has one");
    assert_eq!(port.nexus().generation, 1);
    let request = storage_mapping::control_port::ControlRequest { tag: IoTag(1), command: inquiry(None) };
    port.submit_control(now(), request).unwrap();
    let done = loop {
        match port.poll_control(now()) {
            Some(done) => break done,
            None => {
                let next = port.next_control_wakeup().expect("it is on the link");
                std::thread::sleep(next.since(now()));
            }
        }
    };
    assert_eq!(status_of(&done.outcome.unwrap()), 0);
    assert!(now() >= Instant(5_000_000));
}
