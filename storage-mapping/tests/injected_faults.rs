//! Each fault of `FaultyDevice` does what its name says, is counted, and repeats from its seed.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

mod support;

use std::time::Duration;

use proptest::prelude::{ProptestConfig, any, proptest};
use storage_mapping::device::{FaultCounters, Faults, FaultyDevice, Hang, MemoryDevice, MemoryDisk};
use storage_mapping::{
    BlockCount, BlockDevice, BlockSize, Buffer, Cancelled, CopyFate, Effect, Instant, IoRequest, IoTag, Lba,
};
use support::{Driver, Numbers};

fn disk() -> MemoryDisk {
    MemoryDisk::new(BlockSize::B4096, BlockCount(64))
}

fn faulty(disk: &MemoryDisk, faults: Faults) -> FaultyDevice<MemoryDevice> {
    FaultyDevice::new(disk.device(), faults, 7)
}

fn write(tag: u64, lba: u64, value: u8) -> IoRequest {
    IoRequest::write(IoTag(tag), Lba(lba), Buffer::copy_of(&[value; 4096]).freeze(), false)
}

fn first_block(disk: &MemoryDisk) -> Vec<u8> {
    disk.with_bytes(|bytes| bytes[..4096].to_vec())
}

#[test]
fn a_lost_write_is_acknowledged_and_not_done() {
    let disk = disk();
    let mut device = faulty(&disk, Faults { lost: 1.0, ..Faults::default() });
    assert!(Driver::new(&mut device).run(write(1, 0, 9)).outcome.is_ok());
    assert_eq!(first_block(&disk), [0; 4096]);
    assert_eq!(device.counters().lost, 1);
}

#[test]
fn a_torn_write_lands_in_part() {
    let disk = disk();
    let mut device = faulty(&disk, Faults { torn: 1.0, ..Faults::default() });
    for tag in 0..20 {
        disk.with_bytes(|bytes| bytes.fill(1));
        let done = Driver::new(&mut device).run(write(tag, 0, 9));
        assert!(done.outcome.is_ok());
        let content = first_block(&disk);
        let landed = content.iter().take_while(|byte| **byte == 9).count();
        assert!(landed < 4096 && landed.is_multiple_of(512));
        assert!(content[landed..].iter().all(|byte| *byte == 1));
    }
    assert_eq!(device.counters().torn, 20);
}

#[test]
fn a_late_write_lands_over_a_newer_one() {
    let disk = disk();
    let late_delay = Duration::from_secs(5);
    let mut device = faulty(&disk, Faults { late: 1.0, late_delay, ..Faults::default() });
    assert!(Driver::new(&mut device).run(write(1, 0, 1)).outcome.is_ok());
    let mut other = disk.device();
    Driver::new(&mut other).run(write(2, 0, 2));
    assert_eq!(device.next_wakeup(), Some(Instant::ZERO + late_delay));
    assert!(device.poll(Instant::ZERO + Duration::from_secs(4)).is_none());
    assert_eq!(first_block(&disk), [2; 4096]);
    assert!(device.poll(Instant::ZERO + late_delay).is_none(), "a ghost has no completion");
    assert_eq!(first_block(&disk), [1; 4096]);
}

#[test]
fn a_stale_read_gives_what_was_there_before() {
    let disk = disk();
    let mut device = faulty(&disk, Faults { stale: 1.0, ..Faults::default() });
    let mut driver = Driver::new(&mut device);
    driver.run(write(1, 3, 1));
    driver.run(write(2, 3, 2));
    let done = driver.run(IoRequest::read(IoTag(3), Lba(2), Buffer::zeroed(3 * 4096)));
    let bytes = done.buffer.into_read().unwrap();
    assert_eq!((bytes[4095], bytes[4096], bytes[8192]), (0, 1, 0));
    assert_eq!(device.counters().stale, 1);
}

#[test]
fn an_error_leaves_a_write_in_doubt() {
    let disk = disk();
    let mut device = faulty(&disk, Faults { error: 1.0, ..Faults::default() });
    let mut driver = Driver::new(&mut device);
    let mut landed = 0;
    for tag in 0..40 {
        disk.with_bytes(|bytes| bytes.fill(0));
        let done = driver.run(write(tag, 0, 9));
        assert!(done.outcome.is_err());
        assert_eq!((done.effect, done.copy), (Effect::Unknown, CopyFate::MayLand));
        landed += usize::from(first_block(&disk)[0] == 9);
    }
    assert!((5..35).contains(&landed), "{landed}");
    assert_eq!(device.counters().errors, 40);
}

#[test]
fn a_hang_keeps_requests_until_it_ends() {
    let disk = disk();
    let hang = Hang::After { requests: 2, duration: None };
    let mut device = faulty(&disk, Faults { hang, ..Faults::default() });
    let control = device.control();
    let mut driver = Driver::new(&mut device);
    driver.run(write(1, 0, 1));
    driver.run(write(2, 1, 1));
    driver.submit(write(3, 0, 3));
    driver.submit(write(4, 1, 4));
    driver.now = Instant::ZERO + Duration::from_secs(3600);
    assert!(driver.device.poll(driver.now).is_none());
    assert_eq!(driver.device.next_wakeup(), None);
    assert!(matches!(driver.device.cancel(driver.now, IoTag(4)), Cancelled::Requested), "it has left");
    assert_eq!(first_block(&disk), [1; 4096]);
    control.clear();
    assert_eq!(driver.next().tag, IoTag(3));
    assert_eq!(first_block(&disk), [3; 4096]);
    assert_eq!(control.counters().hung, 2);
}

#[test]
fn a_hang_may_end_by_itself() {
    let disk = disk();
    let duration = Some(Duration::from_secs(5));
    let hang = Hang::After { requests: 0, duration };
    let mut device = faulty(&disk, Faults { hang, ..Faults::default() });
    let mut driver = Driver::new(&mut device);
    driver.run(write(1, 0, 1));
    assert_eq!(driver.now, Instant::ZERO + Duration::from_secs(5));
    driver.run(write(2, 0, 1));
    assert_eq!(driver.now, Instant::ZERO + Duration::from_secs(5), "it hangs once");
}

#[test]
fn a_throttled_device_takes_its_time() {
    let disk = disk();
    let faults = Faults { rate: Some(1 << 20), latency: Duration::from_millis(2), ..Faults::default() };
    let mut device = faulty(&disk, faults);
    let mut driver = Driver::new(&mut device);
    for tag in 0..16 {
        driver.submit(write(tag, tag, 1));
    }
    for _ in 0..16 {
        driver.next();
    }
    // 64 KiB at 1 MiB/s, and the latency once.
    let expected = Duration::from_nanos(1_000_000_000 / 16) + Duration::from_millis(2);
    assert_eq!(driver.now, Instant::ZERO + expected);
}

/// Everything at once; gives what can be seen from outside.
fn mixed_run(seed: u64) -> (FaultCounters, Vec<(u64, bool)>, Vec<u8>) {
    let disk = disk();
    let faults = Faults {
        latency: Duration::from_millis(1),
        jitter: Duration::from_millis(1),
        rate: Some(50 << 20),
        error: 0.1,
        hang: Hang::After { requests: 50, duration: Some(Duration::from_secs(1)) },
        torn: 0.1,
        lost: 0.1,
        stale: 0.1,
        late: 0.1,
        late_delay: Duration::from_millis(3),
    };
    let mut device = FaultyDevice::new(disk.device(), faults, seed);
    let control = device.control();
    let mut numbers = Numbers(seed);
    let mut driver = Driver::new(&mut device);
    let mut seen = Vec::new();
    for tag in 0..200 {
        let lba = numbers.below(64);
        let request = match numbers.below(3) {
            0 => IoRequest::read(IoTag(tag), Lba(lba), Buffer::zeroed(4096)),
            1 => write(tag, lba, u8::try_from(numbers.below(256)).unwrap()),
            _ => IoRequest::flush(IoTag(tag)),
        };
        driver.submit(request);
        if numbers.below(2) == 0 {
            let done = driver.next();
            seen.push((done.tag.0, done.outcome.is_ok()));
        }
    }
    while seen.len() < 200 {
        let done = driver.next();
        seen.push((done.tag.0, done.outcome.is_ok()));
    }
    (control.counters(), seen, disk.with_bytes(|bytes| bytes.to_vec()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_request_completes_once_and_a_seed_repeats(seed in any::<u64>()) {
        let first = mixed_run(seed);
        let mut tags: Vec<_> = first.1.iter().map(|(tag, _)| *tag).collect();
        tags.sort_unstable();
        assert_eq!(tags, (0..200).collect::<Vec<_>>());
        assert!(first == mixed_run(seed), "the same seed gave another run");
    }
}
