//! The NBD device against real servers that are killed, stopped, slow or wrong: nbdkit and qemu-nbd.
//!
//! Skipped where a program is missing; `DISKWIRE_NO_SKIP=1` makes that a failure.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

#[path = "support/nbd.rs"]
mod nbd;
#[path = "support/programs.rs"]
mod programs;
mod support;

use std::time::{Duration, Instant as Clock};

use nbd::Place;
use programs::{Program, skip};
use storage_mapping::device::nbd::{NbdDevice, NbdSettings, OpenNbdError};
use storage_mapping::{
    BlockDevice, BlockSize, Buffer, CopyFate, DeviceEvent, Effect, ErrorSource, Instant, IoRequest, IoTag,
    Lba, wait,
};
use support::{Driver, verified_random_io};

/// The value, or an end of the test with the reason why there is none.
macro_rules! or_skip {
    ($test:expr, $started:expr) => {
        match $started {
            Ok(started) => started,
            Err(reason) => return skip($test, &reason),
        }
    };
}

fn settings() -> NbdSettings {
    let backoff_min = Duration::from_millis(10);
    NbdSettings { block_size: Some(BlockSize::B512), backoff_min, ..NbdSettings::default() }
}

fn open(program: &Program) -> NbdDevice {
    NbdDevice::open(program.server(), "", settings()).unwrap()
}

fn write(tag: u64, value: u8, fua: bool) -> IoRequest {
    IoRequest::write(IoTag(tag), Lba(tag), Buffer::copy_of(&[value; 512]).freeze(), fua)
}

fn read(tag: u64) -> IoRequest {
    IoRequest::read(IoTag(tag), Lba(tag), Buffer::zeroed(512))
}

/// Polls until `until` is true of the device; real time, with a limit that only a broken device reaches.
fn drive(device: &mut NbdDevice, now: &mut Instant, mut until: impl FnMut(&mut NbdDevice, Instant) -> bool) {
    let began = Clock::now();
    while !until(device, *now) {
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", device.monitor().last_failure());
        let mut descriptors = Vec::new();
        device.wait_on(&mut descriptors);
        match device.next_wakeup() {
            Some(at) => *now = (*now).max(at),
            None => wait::wait(&descriptors, Some(Duration::from_secs(1))),
        }
    }
}

fn next_event(device: &mut NbdDevice, now: &mut Instant) -> DeviceEvent {
    let mut found = None;
    drive(device, now, |device, now| {
        assert!(device.poll(now).is_none());
        found = device.poll_event(now);
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn random_io_through_nbdkit_is_right() {
    let place = Place::new();
    let program = or_skip!(
        "random_io_through_nbdkit_is_right",
        Program::nbdkit(&place.socket(), &["memory", "size=4M"])
    );
    let mut device = open(&program);
    assert!(device.monitor().export().can_multi_conn());
    assert_eq!(device.notices(), Vec::<String>::new());
    verified_random_io(&mut device, 400);
}

#[test]
fn random_io_over_tcp_is_right() {
    let program = or_skip!("random_io_over_tcp_is_right", Program::nbdkit_over_tcp(&["memory", "size=4M"]));
    verified_random_io(&mut open(&program), 400);
}

#[test]
fn random_io_through_qemu_nbd_is_right() {
    let place = Place::new();
    let image = place.file("disk.raw");
    std::fs::File::create(&image).unwrap().set_len(4 << 20).unwrap();
    let program = or_skip!("random_io_through_qemu_nbd_is_right", Program::qemu_nbd(&place.socket(), &image));
    let mut device = NbdDevice::open(program.server(), "disk", settings()).unwrap();
    verified_random_io(&mut device, 400);
    drop(device);
    let error = NbdDevice::open(program.server(), "tape", settings()).unwrap_err();
    assert!(error.to_string().contains("no export of this name"), "{error}");
}

#[test]
fn a_killed_server_comes_back_with_what_it_had() {
    let test = "a_killed_server_comes_back_with_what_it_had";
    let place = Place::new();
    let image = place.file("disk.raw");
    std::fs::File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let file = format!("file={}", image.display());
    let program = or_skip!(test, Program::nbdkit(&place.socket(), &["file", &file]));
    let mut device = open(&program);
    let mut driver = Driver::new(&mut device);
    assert!(driver.run(write(1, 9, true)).outcome.is_ok());
    assert!(driver.run(IoRequest::flush(IoTag(2))).outcome.is_ok());
    program.kill();
    let mut now = Instant::ZERO;
    assert_eq!(next_event(&mut device, &mut now), DeviceEvent::LinkDown);

    // Now a write waits in the server for longer than the test takes.
    let slow = Program::nbdkit(&place.socket(), &["--filter=delay", "file", &file, "wdelay=60"]).unwrap();
    assert_eq!(next_event(&mut device, &mut now), DeviceEvent::LinkUp);
    // Nothing is to be done: a loop that waits does not go round and round.
    let mut descriptors = Vec::new();
    device.wait_on(&mut descriptors);
    assert!(device.poll(now).is_none() && device.next_wakeup().is_none());
    let (pause, began) = (Duration::from_millis(50), Clock::now());
    wait::wait(&descriptors, Some(pause));
    assert!(began.elapsed() >= pause, "a descriptor stays readable after a reconnect");
    device.submit(now, write(3, 7, false)).unwrap();
    device.submit(now, read(1)).unwrap();
    let mut found = None;
    drive(&mut device, &mut now, |device, now| {
        found = device.poll(now);
        found.is_some()
    });
    let done = found.unwrap();
    assert_eq!((done.tag, done.outcome), (IoTag(1), Ok(())));
    assert_eq!(done.buffer.into_read().unwrap()[..], [9; 512]);
    // The write has been sent, and its server dies with it.
    slow.kill();
    let mut found = None;
    drive(&mut device, &mut now, |device, now| {
        found = device.poll(now);
        found.is_some()
    });
    let done = found.unwrap();
    assert_eq!(done.outcome.unwrap_err().source_code, ErrorSource::ConnectionLost { sent: true });
    assert_eq!((done.tag, done.effect, done.copy), (IoTag(3), Effect::Unknown, CopyFate::MayLand));
    assert_eq!(next_event(&mut device, &mut now), DeviceEvent::LinkDown);
    assert_eq!(device.monitor().reconnects(), 1);
}

#[test]
fn a_stopped_server_holds_its_requests_and_nobody_else_s() {
    let test = "a_stopped_server_holds_its_requests_and_nobody_else_s";
    let (one, other) = (Place::new(), Place::new());
    let stopped = or_skip!(test, Program::nbdkit(&one.socket(), &["memory", "size=1M"]));
    let going = or_skip!(test, Program::nbdkit(&other.socket(), &["memory", "size=1M"]));
    let (mut device, mut healthy) = (open(&stopped), open(&going));
    stopped.stop();
    device.submit(Instant::ZERO, write(1, 9, false)).unwrap();
    device.submit(Instant::ZERO, read(2)).unwrap();
    assert!(device.poll(Instant::ZERO).is_none());
    // All of one server's work while the other stands still, and no poll of the stopped one waits.
    verified_random_io(&mut healthy, 100);
    assert!(device.poll(Instant::ZERO).is_none());
    assert!(device.poll_event(Instant::ZERO).is_none(), "a hang is not a loss");
    assert!(matches!(device.cancel(Instant::ZERO, IoTag(1)), storage_mapping::Cancelled::Requested));
    // A new connection is taken by the kernel, and then nobody speaks: a bounded time.
    let hasty = NbdSettings { connect_time_max: Duration::from_millis(50), ..settings() };
    assert!(matches!(NbdDevice::open(stopped.server(), "", hasty), Err(OpenNbdError::Connect(_))));
    stopped.go_on();
    let mut driver = Driver::new(&mut device);
    let mut tags = [driver.next(), driver.next()].map(|done| (done.tag.0, done.outcome.is_ok()));
    tags.sort_unstable();
    assert_eq!(tags, [(1, true), (2, true)]);
}

#[test]
fn errors_of_a_server_come_through() {
    let place = Place::new();
    let trigger = place.file("trigger");
    let file = format!("error-file={}", trigger.display());
    let arguments = [
        "--filter=error",
        "memory",
        "size=1M",
        "error-pwrite=ENOSPC",
        "error-pread=EIO",
        "error-rate=100%",
        &file,
    ];
    let program = or_skip!("errors_of_a_server_come_through", Program::nbdkit(&place.socket(), &arguments));
    let mut device = open(&program);
    let mut driver = Driver::new(&mut device);
    assert!(driver.run(write(1, 9, false)).outcome.is_ok());
    std::fs::File::create(&trigger).unwrap();
    for (request, code) in [(write(2, 9, false), 28), (read(1), 5)] {
        let done = driver.run(request);
        assert_eq!(done.outcome.unwrap_err().source_code, ErrorSource::Nbd(code));
        assert_eq!((done.effect, done.copy), (Effect::Unknown, CopyFate::Dead));
    }
    std::fs::remove_file(&trigger).unwrap();
    assert_eq!(driver.run(read(1)).buffer.into_read().unwrap()[..], [9; 512]);
}

#[test]
fn a_slow_server_is_waited_for() {
    let place = Place::new();
    let arguments = ["--filter=delay", "memory", "size=1M", "rdelay=100ms"];
    let program = or_skip!("a_slow_server_is_waited_for", Program::nbdkit(&place.socket(), &arguments));
    let mut device = open(&program);
    let began = Clock::now();
    // Several at once: they wait beside each other, in the server and not here.
    for tag in 0..8 {
        device.submit(Instant::ZERO, read(tag)).unwrap();
    }
    let mut driver = Driver::new(&mut device);
    for _ in 0..8 {
        assert!(driver.next().outcome.is_ok());
    }
    assert!(began.elapsed() >= Duration::from_millis(100));
}

#[test]
fn a_server_says_its_limits() {
    let test = "a_server_says_its_limits";
    let place = Place::new();
    let limits = ["blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=64K"];
    let filters = ["--filter=blocksize-policy", "--filter=multi-conn", "--filter=fua"];
    let modes = ["multi-conn-mode=disable", "blocksize-error-policy=error"];
    let arguments = [&filters[..], &["memory", "size=1M"], &limits, &modes].concat();
    let program = or_skip!(test, Program::nbdkit(&place.socket(), &arguments));
    let error = NbdDevice::open(program.server(), "", settings()).unwrap_err();
    assert!(matches!(error, OpenNbdError::BlockSize { least: 4096, .. }), "{error}");
    let mut device = NbdDevice::open(program.server(), "", NbdSettings::default()).unwrap();
    assert_eq!(device.geometry().transfer_max_bytes, 65_536);
    assert!(!device.monitor().export().can_multi_conn());
    assert!(device.notices()[0].contains("no FUA"), "{:?}", device.notices());
    let mut driver = Driver::new(&mut device);
    let data = Buffer::copy_of(&[9; 65_536]).freeze();
    assert!(driver.run(IoRequest::write(IoTag(1), Lba(3), data, true)).outcome.is_ok());

    let place = Place::new();
    let program = Program::nbdkit(&place.socket(), &["--readonly", "memory", "size=1M"]).unwrap();
    let mut device = open(&program);
    let done = Driver::new(&mut device).run(write(1, 9, false));
    assert_eq!(done.outcome.unwrap_err().source_code, ErrorSource::Errno(30));
}
