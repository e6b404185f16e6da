//! What a path did, recorded and played again.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

mod support;

use std::time::Duration;

use storage_mapping::device::recording::{Follow, RecordedOutcome, Recording, RequestKind};
use storage_mapping::device::{MemoryDisk, Recorder, ReplayDevice, StorageSystem};
use storage_mapping::{
    BlockCount, BlockDevice, BlockSize, Buffer, CopyFate, Effect, ErrorSource, Instant, IoError, IoRequest,
    IoTag, Lba,
};
use support::{Driver, Numbers};

const MILLISECOND: Duration = Duration::from_millis(1);

/// What became of a request: how long it took, and how it ended.
type Fate = (IoTag, Duration, Result<(), IoError>, Effect, CopyFate);

/// Sends the same 500 requests at the same times, and says what became of each within a second.
fn drive(device: &mut dyn BlockDevice) -> Vec<Fate> {
    let mut numbers = Numbers(5);
    let mut started = Vec::new();
    let mut fates = Vec::new();
    let mut now = Instant::ZERO;
    let mut next = now;
    let end = now + Duration::from_secs(2);
    while now < end {
        if now >= next && started.len() < 500 {
            let tag = IoTag(started.len() as u64);
            let lba = Lba(numbers.below(64));
            let request = match numbers.below(10) {
                0 => IoRequest::flush(tag),
                1..=4 => IoRequest::write(tag, lba, Buffer::zeroed(4096).freeze(), false),
                _ => IoRequest::read(tag, lba, Buffer::zeroed(4096)),
            };
            device.submit(now, request).unwrap();
            started.push(now);
            next = now + Duration::from_micros(numbers.below(4000));
        }
        while let Some(done) = device.poll(now) {
            let start = started[usize::try_from(done.tag.0).unwrap()];
            fates.push((done.tag, now.since(start), done.outcome, done.effect, done.copy));
        }
        let wakeup = device.next_wakeup().unwrap_or(end).max(now + Duration::from_nanos(1));
        now = if started.len() < 500 { wakeup.min(next.max(now + Duration::from_nanos(1))) } else { wakeup };
    }
    fates.sort_by_key(|fate| fate.0);
    fates
}

#[test]
fn a_replay_by_number_does_to_each_request_what_was_recorded() {
    let text = "seed 3\ndisk d0 1MiB\nvolume v0 concatenated d0@0+1MiB
        port p0 latency=200us jitter=100us grey=0.01:20ms error=0.02 busy=0.02
        at 300ms port p0 hang 50ms\nat 500ms port p0 reset 0.5 10ms\nat 600ms port p0 hang forever";
    let system = StorageSystem::new(&text.parse().unwrap()).unwrap();
    let mut recorder = Recorder::new(system.path("host1", "p0", "v0").unwrap(), 1000);
    let control = recorder.control();
    let recorded = drive(&mut recorder);
    let recording = control.recording();
    assert_eq!((recording.records.len(), recording.left_out), (500, 0));
    let never = recording.records.iter().filter(|record| record.outcome == RecordedOutcome::Never).count();
    assert!(never > 0 && recorded.len() == 500 - never);
    assert!(recorded.iter().any(|fate| fate.2.is_err()));
    // Through the text form, as a file would hold it.
    let recording: Recording = recording.to_string().parse().unwrap();
    let disk = MemoryDisk::new(BlockSize::B4096, BlockCount(256));
    let mut replay = ReplayDevice::new(disk.device(), &recording, Follow::Number);
    assert_eq!(drive(&mut replay), recorded);
}

#[test]
fn a_replay_by_time_is_bad_when_the_path_was_bad() {
    let text = "diskwire-recording 1
        0 read 4096 1ms done
        100ms read 4096 30ms done
        200ms read 4096 2ms failed scsi:2:0:2:4:11:0 none dead
        300ms read 4096 1ms done";
    let disk = MemoryDisk::new(BlockSize::B4096, BlockCount(16));
    let mut replay =
        ReplayDevice::new(disk.device(), &text.replace("        ", "").parse().unwrap(), Follow::Time);
    let mut driver = Driver::new(&mut replay);
    let expected = [(0, 1, true), (90, 1, true), (110, 30, true), (199, 30, true), (250, 2, false)];
    for (tag, (at, latency, is_ok)) in (0..).zip(expected) {
        driver.now = Instant::ZERO + at * MILLISECOND;
        let done = driver.run(IoRequest::read(IoTag(tag), Lba(0), Buffer::zeroed(4096)));
        assert_eq!(driver.now, Instant::ZERO + (at + latency) * MILLISECOND);
        assert_eq!(done.outcome.is_ok(), is_ok, "at {at} ms");
        if !is_ok {
            assert_eq!((done.effect, done.copy), (Effect::None, CopyFate::Dead));
            assert!(matches!(done.outcome.unwrap_err().source_code, ErrorSource::Scsi { ascq: 11, .. }));
        }
    }
    // From its end on it begins anew.
    driver.now = Instant::ZERO + 310 * MILLISECOND;
    driver.run(IoRequest::read(IoTag(99), Lba(0), Buffer::zeroed(4096)));
    assert_eq!(driver.now, Instant::ZERO + 311 * MILLISECOND);
}

#[test]
fn a_write_that_was_not_executed_is_not_executed_again() {
    let text = "diskwire-recording 1\n0 write 4096 1ms failed lost:0 none dead\n\
                1ms write 4096 1ms failed errno:5 unknown may-land";
    let disk = MemoryDisk::new(BlockSize::B4096, BlockCount(16));
    let mut replay = ReplayDevice::new(disk.device(), &text.parse().unwrap(), Follow::Number);
    let mut driver = Driver::new(&mut replay);
    for (tag, landed) in [(0, 0), (1, 7)] {
        let data = Buffer::copy_of(&[7; 4096]).freeze();
        assert!(driver.run(IoRequest::write(IoTag(tag), Lba(0), data, false)).outcome.is_err());
        assert_eq!(disk.with_bytes(|bytes| bytes[0]), landed);
    }
}

#[test]
fn a_recording_is_bounded_and_says_what_it_left_out() {
    let disk = MemoryDisk::new(BlockSize::B4096, BlockCount(16));
    let mut recorder = Recorder::new(disk.device(), 10);
    let control = recorder.control();
    let mut driver = Driver::new(&mut recorder);
    for tag in 0..25 {
        assert!(driver.run(IoRequest::flush(IoTag(tag))).outcome.is_ok());
    }
    let recording = control.recording();
    assert_eq!((recording.records.len(), recording.left_out), (10, 15));
    assert!(recording.records.iter().all(|record| record.kind == RequestKind::Flush));
    // What was withdrawn was never with the device.
    let mut recorder = Recorder::new(disk.device(), 10);
    recorder.submit(Instant::ZERO, IoRequest::flush(IoTag(1))).unwrap();
    drop(recorder.cancel(Instant::ZERO, IoTag(1)));
    assert!(recorder.control().recording().records.is_empty());
}
