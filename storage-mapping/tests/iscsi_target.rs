//! The iSCSI device against a real target: `tgtd` with two portals and one unit.
//!
//! Skipped where `tgtd` or root is missing; `DISKWIRE_NO_SKIP=1` makes that a failure.

#![cfg(feature = "iscsi")]
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

#[path = "support/programs.rs"]
mod programs;
mod support;
#[path = "support/tgt.rs"]
mod tgt;

use std::collections::HashMap;
use std::time::{Duration, Instant as Clock};

use programs::skip;
use storage_mapping::control_port::{
    Cdb, CommandBytes, ControlCancelled, ControlCommand, ControlEvent, ControlReply, ControlRequest,
    NvmeFields, Transfer,
};
use storage_mapping::device::{IscsiDevice, IscsiSettings};
use storage_mapping::path_address::{IscsiAddress, Target};
use storage_mapping::{
    BlockDevice, BlockSize, Buffer, Cancelled, ControlPort, CopyFate, DeviceEvent, Effect, ErrorSource,
    Instant, IoCompletion, IoRequest, IoTag, Lba, PathAddress, RefusalReason, wait,
};
use support::{Driver, verified_random_io};
use tempfile::TempDir;
use tgt::Tgtd;

/// Reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// A target over a file of so many bytes, or an end of the test with the reason why there is none.
macro_rules! target_or_skip {
    ($test:expr, $bytes:expr) => {{
        let folder = tempfile::tempdir().unwrap();
        match Tgtd::start(&Tgtd::image(folder.path(), "disk.img", $bytes)) {
            Ok(target) => (target, folder),
            Err(reason) => return skip($test, &reason),
        }
    }};
}

fn settings() -> IscsiSettings {
    IscsiSettings { backoff_min: Duration::from_millis(10), ..IscsiSettings::default() }
}

fn parsed(address: &str) -> IscsiAddress {
    match address.parse::<PathAddress>().unwrap().target {
        Target::Iscsi(address) => address,
        other => panic!("{other:?}"),
    }
}

fn open(address: &str) -> IscsiDevice {
    IscsiDevice::open(&parsed(address), settings()).unwrap()
}

fn write(tag: u64, value: u8) -> IoRequest {
    IoRequest::write(IoTag(tag), Lba(tag), Buffer::copy_of(&[value; 512]).freeze(), false)
}

fn read(tag: u64) -> IoRequest {
    IoRequest::read(IoTag(tag), Lba(tag), Buffer::zeroed(512))
}

/// Polls until `until` gives something; real time for waiting, with a limit that only a broken device reaches.
fn drive<T>(
    device: &mut IscsiDevice,
    now: &mut Instant,
    mut until: impl FnMut(&mut IscsiDevice, Instant) -> Option<T>,
) -> T {
    let began = Clock::now();
    let start = *now;
    loop {
        if let Some(found) = until(device, *now) {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{:?}", device.monitor().last_failure());
        let mut descriptors = Vec::new();
        device.wait_on(&mut descriptors);
        let due = device.next_wakeup().map_or(Duration::from_secs(1), |at| at.since(*now));
        wait::wait(&descriptors, Some(due));
        *now = (*now).max(start + began.elapsed());
    }
}

fn next_event(device: &mut IscsiDevice, now: &mut Instant) -> DeviceEvent {
    drive(device, now, |device, now| {
        assert!(device.poll(now).is_none());
        device.poll_event(now)
    })
}

fn next_done(device: &mut IscsiDevice, now: &mut Instant) -> IoCompletion {
    drive(device, now, |device, now| device.poll(now))
}

fn control(tag: u64, cdb: &[u8], transfer: Transfer) -> ControlRequest {
    let bytes = CommandBytes::Scsi(Cdb::new(cdb).unwrap());
    ControlRequest { tag: IoTag(tag), command: ControlCommand { bytes, transfer } }
}

/// Status, sense and data of one control command.
fn ask(device: &mut IscsiDevice, cdb: &[u8], transfer: Transfer) -> (u8, Vec<u8>, Vec<u8>) {
    let mut now = Instant::ZERO;
    device.submit_control(now, control(900, cdb, transfer)).unwrap();
    let done = drive(device, &mut now, |device, now| device.poll_control(now));
    assert_eq!((done.tag, done.effect, done.copy), (IoTag(900), Effect::Full, CopyFate::Dead));
    match done.outcome.unwrap() {
        ControlReply::Scsi { status, sense, data } => (status, sense, data),
        other => panic!("{other:?}"),
    }
}

fn control_events(device: &mut IscsiDevice) -> Vec<ControlEvent> {
    std::iter::from_fn(|| device.poll_control_event(Instant::ZERO)).collect()
}

/// PERSISTENT RESERVE OUT with a service action, a type, our key and the other.
fn reserve_out(device: &mut IscsiDevice, action: u8, kind: u8, own: u8, other: u8) -> u8 {
    let mut parameters = vec![0; 24];
    (parameters[7], parameters[15]) = (own, other);
    ask(device, &[0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0], Transfer::Out(parameters)).0
}

/// The keys that READ KEYS shows.
fn keys(device: &mut IscsiDevice) -> Vec<u8> {
    let (status, _, data) = ask(device, &[0x5e, 0, 0, 0, 0, 0, 0, 1, 0, 0], Transfer::In(256));
    assert_eq!(status, 0);
    let mut keys: Vec<u8> = data[8..8 + usize::from(data[7])].chunks(8).map(|key| key[7]).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn random_io_is_right_in_the_units_blocks_and_in_larger_ones() {
    let test = "random_io_is_right_in_the_units_blocks_and_in_larger_ones";
    let (target, _folder) = target_or_skip!(test, 4 << 20);
    let mut device = open(&target.address(0));
    assert_eq!(device.geometry().block_size, BlockSize::B512);
    assert_eq!(device.geometry().byte_size(), 4 << 20);
    // Blocks in their first state, as that program expects them.
    let (fresh, _folder_too) = target_or_skip!(test, 4 << 20);
    verified_random_io(&mut open(&fresh.address(0)), 400);

    let address = format!("{}?session=large", target.address(1));
    let settings = IscsiSettings { block_size: Some(BlockSize::B4096), ..settings() };
    let mut large = IscsiDevice::open(&parsed(&address), settings).unwrap();
    assert_eq!(large.geometry().block_count.0, 1024);
    verified_random_io(&mut large, 200);
    // One image, two sessions: what one wrote the other reads.
    let data = Buffer::copy_of(&[0x5a; 4096]).freeze();
    assert!(Driver::new(&mut large).run(IoRequest::write(IoTag(1), Lba(3), data, true)).outcome.is_ok());
    let seen = Driver::new(&mut device).run(IoRequest::read(IoTag(1), Lba(24), Buffer::zeroed(4096)));
    assert_eq!(seen.buffer.into_read().unwrap()[..], [0x5a; 4096]);
}

#[test]
fn the_longest_transfer_and_a_deep_queue_are_right() {
    let (target, _folder) = target_or_skip!("the_longest_transfer_and_a_deep_queue_are_right", 16 << 20);
    let mut device = open(&target.address(0));
    let longest = device.geometry().transfer_max_bytes;
    assert_eq!(longest, 4 << 20);
    let bytes: Vec<u8> = (0..longest).map(|at| (at / 512 + at / 7) as u8).collect();
    {
        let mut driver = Driver::new(&mut device);
        let data = Buffer::copy_of(&bytes).freeze();
        assert!(driver.run(IoRequest::write(IoTag(1), Lba(8192), data, false)).outcome.is_ok());
        let back = driver.run(IoRequest::read(IoTag(2), Lba(8192), Buffer::zeroed(longest)));
        assert!(back.buffer.into_read().unwrap()[..] == bytes, "4 MiB come back as they were");
    }

    // 32 writes of 8 KiB at a time, then the same as reads.
    let (chunk, depth) = (16_u64, 32);
    let chunks = 8192 / chunk;
    let pattern = |lba: u64| vec![(lba / chunk % 251) as u8; 8192];
    for is_write in [true, false] {
        let mut driver = Driver::new(&mut device);
        let (mut next, mut flights, mut done) = (0, HashMap::new(), 0);
        while done < chunks {
            while flights.len() < depth && next < chunks {
                let lba = next * chunk;
                let request = if is_write {
                    IoRequest::write(IoTag(next), Lba(lba), Buffer::copy_of(&pattern(lba)).freeze(), false)
                } else {
                    IoRequest::read(IoTag(next), Lba(lba), Buffer::zeroed(8192))
                };
                driver.submit(request);
                flights.insert(IoTag(next), lba);
                next += 1;
            }
            let completion = driver.next();
            let lba = flights.remove(&completion.tag).expect("each once");
            assert_eq!(completion.outcome, Ok(()));
            if let Some(buffer) = completion.buffer.into_read() {
                assert!(buffer[..] == pattern(lba), "block {lba}");
            }
            done += 1;
        }
    }
}

#[test]
fn control_commands_go_beside_the_blocks() {
    let (target, _folder) = target_or_skip!("control_commands_go_beside_the_blocks", 1 << 20);
    let mut device = open(&target.address(0));
    // The login's own unit attention was consumed, and is told once.
    let reset = ControlEvent::Attention { key: 6, asc: 0x29, ascq: 0 };
    assert_eq!(control_events(&mut device), [ControlEvent::NexusBegun, reset]);
    assert_eq!(control_events(&mut device), []);
    let nexus = device.nexus();
    assert!(nexus.initiator.contains(",i,0x80") && nexus.target_port.contains(tgt::TARGET), "{nexus:?}");
    assert_eq!(nexus.generation, 1);

    let (status, _, data) = ask(&mut device, &[0x12, 0, 0, 0, 255, 0], Transfer::In(255));
    assert_eq!((status, &data[8..16]), (0, &b"IET     "[..]));
    assert!(data.len() < 255, "what did not come is not made up: {}", data.len());
    let (status, _, data) =
        ask(&mut device, &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], Transfer::In(32));
    assert_eq!((status, &data[4..12]), (0, &[0, 0, 7, 255, 0, 0, 2, 0][..]));
    assert_eq!(keys(&mut device), []);

    // LOG SENSE, which this target does not have; and a page that is not there.
    let (status, sense, _) = ask(&mut device, &[0x4d, 0, 0, 0, 0, 0, 0, 1, 0, 0], Transfer::In(256));
    assert_eq!((status, sense[2] & 0x0f, sense[12]), (2, 5, 0x20), "{sense:02x?}");

    let long = control(1, &[0x7f; 32], Transfer::None);
    assert_eq!(device.submit_control(Instant::ZERO, long), Err(RefusalReason::Invalid));
    let bytes = CommandBytes::Nvme(NvmeFields::default());
    let nvme = ControlRequest { tag: IoTag(1), command: ControlCommand { bytes, transfer: Transfer::None } };
    assert_eq!(device.submit_control(Instant::ZERO, nvme), Err(RefusalReason::Invalid));
    // Sixteen at once; they complete in any order, each once.
    for tag in 0..16 {
        device.submit_control(Instant::ZERO, control(tag, &[0; 6], Transfer::None)).unwrap();
    }
    let more = control(16, &[0; 6], Transfer::None);
    assert_eq!(device.submit_control(Instant::ZERO, more), Err(RefusalReason::Busy));
    assert_eq!(device.cancel_control(Instant::ZERO, IoTag(3)), ControlCancelled::Withdrawn);
    assert_eq!(device.cancel_control(Instant::ZERO, IoTag(3)), ControlCancelled::NotHere);
    let mut seen = Vec::new();
    while seen.len() < 15 {
        let done = drive(&mut device, &mut Instant::ZERO.clone(), |device, now| device.poll_control(now));
        assert!(matches!(done.outcome, Ok(ControlReply::Scsi { status: 0, .. })), "{done:?}");
        seen.push(done.tag.0);
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq((0..16).filter(|tag| *tag != 3)));
}

#[test]
fn every_session_is_a_nexus_of_its_own() {
    let (target, _folder) = target_or_skip!("every_session_is_a_nexus_of_its_own", 1 << 20);
    let mut one = open(&target.address(0));
    let mut other = open(&target.address(1));
    let again = IscsiDevice::open(&parsed(&target.address(0)), settings()).unwrap_err().to_string();
    assert!(again.contains("session=NAME"), "{again}");

    // REGISTER AND IGNORE EXISTING KEY, then RESERVE: write exclusive, registrants only.
    assert_eq!(reserve_out(&mut one, 6, 0, 0, 1), 0);
    assert_eq!(keys(&mut other), [1]);
    assert_eq!(reserve_out(&mut one, 1, 5, 1, 0), 0);
    let refused = Driver::new(&mut other).run(write(5, 2));
    let error = refused.outcome.unwrap_err().source_code;
    assert!(matches!(error, ErrorSource::Scsi { status: 0x18, .. }), "{error:?}");
    assert_eq!((refused.effect, refused.copy), (Effect::Unknown, CopyFate::Dead));
    assert_eq!(reserve_out(&mut other, 6, 0, 0, 2), 0);
    assert_eq!(keys(&mut one), [1, 2]);
    assert!(Driver::new(&mut other).run(write(5, 2)).outcome.is_ok());

    // PREEMPT: the other takes it over, and the first one writes no more; what it hears of that comes first.
    assert_eq!(reserve_out(&mut other, 4, 5, 2, 1), 0);
    assert_eq!(keys(&mut other), [2]);
    let refused = Driver::new(&mut one).run(write(5, 1)).outcome.unwrap_err().source_code;
    let refused = match refused {
        ErrorSource::Scsi { status: 2, key: 6, asc: 0x2a, .. } => {
            Driver::new(&mut one).run(write(5, 1)).outcome.unwrap_err().source_code
        }
        other => other,
    };
    assert!(matches!(refused, ErrorSource::Scsi { status: 0x18, .. }), "{refused:?}");
    let kept = Driver::new(&mut one).run(read(5));
    assert_eq!(kept.buffer.into_read().unwrap()[..], [2; 512], "reads go on, and the write never landed");
}

#[test]
fn a_dead_target_leaves_writes_in_doubt_and_comes_back_as_the_same_unit() {
    let test = "a_dead_target_leaves_writes_in_doubt_and_comes_back_as_the_same_unit";
    let (target, folder) = target_or_skip!(test, 1 << 20);
    let (ports, image) = (target.ports(), folder.path().join("disk.img"));
    let mut device = open(&target.address(0));
    control_events(&mut device);
    let (mut now, monitor) = (Instant::ZERO, device.monitor());
    target.stop();
    for request in [write(1, 1), read(2), IoRequest::flush(IoTag(3))] {
        device.submit(now, request).unwrap();
    }
    assert!(device.poll(now).is_none(), "they are sent, and nobody answers");
    device.submit_control(now, control(7, &[0; 6], Transfer::None)).unwrap();
    assert!(device.poll_control(now).is_none());
    device.submit(now, write(4, 4)).unwrap();
    assert!(matches!(device.cancel(now, IoTag(4)), Cancelled::Withdrawn(_)), "not yet given away");
    assert!(matches!(device.cancel(now, IoTag(4)), Cancelled::NotHere));
    drop(target);

    let mut ends: Vec<_> = (0..3)
        .map(|_| {
            let done = next_done(&mut device, &mut now);
            assert_eq!(done.outcome.unwrap_err().source_code, ErrorSource::ConnectionLost { sent: true });
            (done.tag.0, done.effect, done.copy)
        })
        .collect();
    ends.sort_by_key(|end| end.0);
    let dead = |tag| (tag, Effect::Unknown, CopyFate::Dead);
    assert_eq!(ends, [(1, Effect::Unknown, CopyFate::MayLand), dead(2), dead(3)]);
    let done = device.poll_control(now).expect("lost with the others");
    assert_eq!(done.outcome.unwrap_err().source_code, ErrorSource::ConnectionLost { sent: true });
    assert_eq!((done.effect, done.copy), (Effect::Unknown, CopyFate::MayLand));
    assert_eq!(next_event(&mut device, &mut now), DeviceEvent::LinkDown);
    assert!(!monitor.is_up());
    device.submit(now, write(5, 5)).unwrap();
    let done = device.poll(now).expect("at once");
    assert_eq!(done.outcome.unwrap_err().source_code, ErrorSource::ConnectionLost { sent: false });
    assert_eq!((done.effect, done.copy), (Effect::None, CopyFate::Dead));

    let target = Tgtd::start_on(ports, &image).unwrap();
    assert_eq!(next_event(&mut device, &mut now), DeviceEvent::LinkUp);
    assert_eq!((monitor.is_up(), monitor.logins(), device.nexus().generation), (true, 2, 2));
    let reset = ControlEvent::Attention { key: 6, asc: 0x29, ascq: 0 };
    assert_eq!(control_events(&mut device), [ControlEvent::NexusLost, ControlEvent::NexusBegun, reset]);
    device.submit(now, write(6, 6)).unwrap();
    assert_eq!(
        next_done(&mut device, &mut now).outcome,
        Ok(()),
        "no attention is left for the first request"
    );

    // The same name, and another size: that is another disk.
    drop(target);
    let _target = Tgtd::start_on(ports, &Tgtd::image(folder.path(), "other.img", 2 << 20)).unwrap();
    assert_eq!(next_event(&mut device, &mut now), DeviceEvent::LinkDown);
    assert_eq!(next_event(&mut device, &mut now), DeviceEvent::GeometryChanged);
    assert!(monitor.last_failure().unwrap().contains("another size"));
    let refused = device.submit(now, write(7, 7)).unwrap_err();
    assert_eq!(refused.reason, RefusalReason::Closed);
}

#[test]
fn what_was_sent_is_aborted_or_answered() {
    let (target, _folder) = target_or_skip!("what_was_sent_is_aborted_or_answered", 1 << 20);
    let mut device = open(&target.address(0));
    let mut now = Instant::ZERO;
    target.stop();
    for tag in 0..8 {
        device.submit(now, write(tag, 9)).unwrap();
    }
    assert!(device.poll(now).is_none());
    for tag in 0..8 {
        assert!(matches!(device.cancel(now, IoTag(tag)), Cancelled::Requested));
    }
    assert!(device.poll(now).is_none());
    target.go_on();
    for _ in 0..8 {
        let done = next_done(&mut device, &mut now);
        // Which of the two it is, the target decides; neither leaves a copy.
        let is_done = (done.outcome, done.effect) == (Ok(()), Effect::Full);
        let is_aborted = done.outcome
            == Err(storage_mapping::IoError::errno(nix::errno::Errno::ECANCELED as i32))
            && done.effect == Effect::Unknown;
        assert!(is_done || is_aborted, "{done:?}");
        println!("tag {}: {}", done.tag.0, if is_done { "answered" } else { "aborted" });
        assert_eq!(done.copy, CopyFate::Dead);
    }
    assert!(Driver::new(&mut device).run(read(1)).outcome.is_ok());
    assert_eq!(device.monitor().logins(), 1, "the session outlives it");
}

#[test]
fn what_cannot_be_opened_says_why() {
    let (target, folder) = target_or_skip!("what_cannot_be_opened_says_why", 1 << 20);
    let [port, _] = target.ports();
    let fails = |address: &str| {
        let began = Clock::now();
        let settings = IscsiSettings { connect_time_max: Duration::from_secs(20), ..settings() };
        let error = IscsiDevice::open(&parsed(address), settings).map(|_| ()).unwrap_err().to_string();
        assert!(began.elapsed() < Duration::from_secs(20), "it is answered: {error}");
        error
    };
    let nobody = fails("iscsi://127.0.0.1:1/iqn.x/1");
    assert!(nobody.contains("efused"), "{nobody}");
    let target_name = fails(&format!("iscsi://127.0.0.1:{port}/iqn.2026-11.diskwire:nobody/1"));
    assert!(target_name.contains("nobody"), "{target_name}");
    let unit = fails(&format!("iscsi://127.0.0.1:{port}/{}/9", tgt::TARGET));
    assert!(unit.contains("5/25/00"), "{unit}");
    let password = folder.path().join("password");
    let with_password = format!("{}?user=ann&password-file={}", target.address(0), password.display());
    assert!(fails(&with_password).contains("password"));

    // CHAP, with a right and a wrong password.
    target.tell("--op new --mode account --user ann --password secretsecret");
    target.tell("--op bind --mode account --tid 1 --user ann");
    std::fs::write(&password, "secretsecret\n").unwrap();
    verified_random_io(&mut open(&with_password), 20);
    std::fs::write(&password, "wrongwrongwrong\n").unwrap();
    let wrong = fails(&with_password);
    println!("{nobody}\n{target_name}\n{unit}\n{wrong}");
    // Silence is bounded, too.
    target.stop();
    let settings = IscsiSettings { connect_time_max: Duration::from_millis(300), ..settings() };
    let silent =
        IscsiDevice::open(&parsed(&target.address(1)), settings).map(|_| ()).unwrap_err().to_string();
    assert!(silent.contains("no session within"), "{silent}");
}

#[test]
fn a_path_address_opens_it() {
    let (target, _folder): (Tgtd, TempDir) = target_or_skip!("a_path_address_opens_it", 1 << 20);
    let address: PathAddress = format!("{}?session=path&block=4096", target.address(0)).parse().unwrap();
    let mut opened = storage_mapping::path_address::open(&address).unwrap();
    assert_eq!(opened.notices, Vec::<String>::new());
    assert!(opened.device.control_port().is_some());
    verified_random_io(&mut *opened.device, 20);
}
