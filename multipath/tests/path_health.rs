//! Paths that come back, groups of paths, and checks of silent ones.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

mod support;

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use multipath::explain::Reason;
use multipath::hedge::HedgeConfig;
use multipath::{FailoverConfig, MultipathDevice, NoPathPolicy, PathConfig, PathState, RoundRobin};
use storage_mapping::device::{FaultControl, Faults, FaultyDevice, MemoryDisk};
use storage_mapping::{
    BlockCount, BlockDevice, BlockSize, BufferPool, Cancelled, DeviceEvent, ErrorSource, Geometry, Instant,
    IoCompletion, IoRequest, IoTag, PathIndex, RefusalReason, Refused,
};
use support::{Device, always, device_over, disk, hung, read, run, settle, taking_turns, write};

#[test]
fn a_path_that_comes_back_with_other_data_carries_nothing() {
    let disk = disk();
    let other = disk_with(7);
    // The first path leads to the one disk, or to the other once the switch is thrown.
    let (swapped, is_other) = Swapped::new(&disk, &other);
    let paths: Vec<Box<dyn BlockDevice>> = vec![Box::new(swapped), Box::new(disk.device())];
    let mut device = taking_turns(paths);
    let mut now = Instant::ZERO;
    is_other.store(1, Ordering::Relaxed);
    assert!(run(&mut device, &mut now, read(1, 5)).outcome.is_ok(), "the link was lost in between");
    assert_eq!(device.status()[0].state, PathState::Failed);
    is_other.store(2, Ordering::Relaxed);
    now = now + Duration::from_secs(2);
    settle(&mut device, now);
    assert_eq!(device.status()[0].state, PathState::Foreign);
    for tag in 0..20 {
        let done = run(&mut device, &mut now, read(tag, 5));
        assert_eq!(done.buffer.into_read().unwrap()[0], 0);
    }
    // Put right, it is compared again after a minute.
    is_other.store(0, Ordering::Relaxed);
    now = now + Duration::from_secs(61);
    settle(&mut device, now);
    assert_eq!(device.status()[0].state, PathState::Active);
}

#[test]
fn a_path_that_comes_back_shorter_leads_elsewhere() {
    let (disk, short) = (disk(), MemoryDisk::new(BlockSize::B512, BlockCount(100)));
    let (swapped, leads_to) = Swapped::new(&disk, &short);
    let mut device = taking_turns(vec![Box::new(swapped), Box::new(disk.device())]);
    let mut now = Instant::ZERO;
    leads_to.store(1, Ordering::Relaxed);
    assert!(run(&mut device, &mut now, read(1, 5)).outcome.is_ok());
    leads_to.store(2, Ordering::Relaxed);
    now = now + Duration::from_secs(2);
    settle(&mut device, now);
    assert_eq!(device.status()[0].state, PathState::Foreign);
    let event = device.explanation().events().last().copied();
    assert_eq!(event.map(|event| event.reason), Some(Reason::Shrunk));
}

fn disk_with(value: u8) -> MemoryDisk {
    let disk = disk();
    let mut device = disk.device();
    for lba in 0..256 {
        device.submit(Instant::ZERO, write(lba, lba, value)).unwrap();
        assert!(device.poll(Instant::ZERO).unwrap().outcome.is_ok());
    }
    disk
}

/// A path that leads to one disk (0), nowhere (1), or to another disk (2).
struct Swapped {
    disks: [Box<dyn BlockDevice>; 2],
    leads_to: Arc<AtomicUsize>,
}

impl Swapped {
    fn new(one: &MemoryDisk, other: &MemoryDisk) -> (Self, Arc<AtomicUsize>) {
        let leads_to = Arc::new(AtomicUsize::new(0));
        (Self::leading(one, other, &leads_to), leads_to)
    }

    fn leading(one: &MemoryDisk, other: &MemoryDisk, leads_to: &Arc<AtomicUsize>) -> Self {
        Self { disks: [Box::new(one.device()), Box::new(other.device())], leads_to: Arc::clone(leads_to) }
    }
}

impl BlockDevice for Swapped {
    fn geometry(&self) -> Geometry {
        self.disks[usize::from(self.leads_to.load(Ordering::Relaxed) == 2)].geometry()
    }
    fn submit(&mut self, now: Instant, request: IoRequest) -> Result<(), Refused> {
        match self.leads_to.load(Ordering::Relaxed) {
            0 => self.disks[0].submit(now, request),
            1 => Err(Refused { reason: RefusalReason::Closed, request }),
            _ => self.disks[1].submit(now, request),
        }
    }
    fn poll(&mut self, now: Instant) -> Option<IoCompletion> {
        self.disks.iter_mut().find_map(|disk| disk.poll(now))
    }
    fn poll_event(&mut self, _now: Instant) -> Option<DeviceEvent> {
        None
    }
    fn next_wakeup(&self) -> Option<Instant> {
        self.disks.iter().find_map(|disk| disk.next_wakeup())
    }
    fn cancel(&mut self, _now: Instant, _tag: IoTag) -> Cancelled {
        Cancelled::Requested
    }
    fn attach_pool(&mut self, _pool: &BufferPool) {}
    fn wait_on(&self, _descriptors: &mut Vec<RawFd>) {}
}

#[test]
fn a_silent_path_that_hangs_is_found_by_its_check() {
    let disk = disk();
    let (mut device, controls) = device_over(&disk, vec![Faults::default(); 2]);
    let mut now = Instant::ZERO;
    assert!(run(&mut device, &mut now, read(1, 0)).outcome.is_ok());
    controls[1].set(hung());
    // Checked after 20 s of silence, failed 5 s later.
    for second in 0..26 {
        now = Instant::ZERO + Duration::from_secs(second);
        settle(&mut device, now);
    }
    let states = device.status().iter().map(|status| status.state).collect::<Vec<_>>();
    assert_eq!(states, [PathState::Active, PathState::Failed]);
    controls[1].clear();
    now = Instant::ZERO + Duration::from_secs(27);
    settle(&mut device, now);
    assert_eq!(device.status()[1].state, PathState::Active);
}

#[test]
fn a_path_in_use_that_hangs_keeps_no_returning_path_out() {
    for gave_an_error in [false, true] {
        let disk = disk();
        let (mut device, controls) = device_over(&disk, vec![Faults::default(); 2]);
        let mut now = Instant::ZERO;
        controls[1].set(always(1.0));
        for tag in 0..8 {
            assert!(run(&mut device, &mut now, read(tag, 0)).outcome.is_ok());
        }
        assert_eq!(device.status()[1].state, PathState::Failed);
        if gave_an_error {
            controls[0].set(always(1.0));
            assert!(run(&mut device, &mut now, read(9, 0)).outcome.is_err(), "no other path is left");
            assert_eq!(device.status()[0].state, PathState::Active, "it may be the medium");
        }
        controls[0].set(hung());
        controls[1].clear();
        // A comparison that comes to no end: 5 s, and 1 s before it and after it.
        let begun = now;
        for second in 0..=7 {
            now = begun + Duration::from_secs(second);
            settle(&mut device, now);
        }
        let states = device.status().iter().map(|status| status.state).collect::<Vec<_>>();
        assert_eq!(states, [PathState::Failed, PathState::Active], "gave an error: {gave_an_error}");
        assert!(run(&mut device, &mut now, read(10, 0)).outcome.is_ok());
    }
}

#[test]
fn paths_in_use_that_hang_all_at_once_keep_no_returning_path_out() {
    let disk = disk();
    let (mut device, controls) = device_over(&disk, vec![Faults::default(); 3]);
    let mut now = Instant::ZERO;
    controls[2].set(always(1.0));
    for tag in 0..12 {
        assert!(run(&mut device, &mut now, read(tag, 0)).outcome.is_ok());
    }
    controls[..2].iter().for_each(|control| control.set(hung()));
    // Their checks find both at the same moment: that looks like an event of the target, and lifts them.
    for second in 0..30 {
        now = Instant::ZERO + Duration::from_secs(second);
        settle(&mut device, now);
    }
    controls[2].clear();
    for second in 30..=45 {
        now = Instant::ZERO + Duration::from_secs(second);
        settle(&mut device, now);
    }
    let states = device.status().iter().map(|status| status.state).collect::<Vec<_>>();
    assert_eq!(states, [PathState::Failed, PathState::Failed, PathState::Active]);
}

#[test]
fn without_a_path_requests_fail_at_once_if_that_is_wanted() {
    let disk = disk();
    let paths: Vec<Box<dyn BlockDevice>> = vec![Box::new(disk.device())];
    let config = FailoverConfig { no_path: NoPathPolicy::Fail, ..FailoverConfig::default() };
    let mut device = MultipathDevice::new(paths, config).unwrap();
    let mut now = Instant::ZERO;
    device.fail_path(now, PathIndex(0));
    let done = run(&mut device, &mut now, read(2, 0));
    assert_eq!((done.outcome.unwrap_err().source_code, now), (ErrorSource::NoPath, Instant::ZERO));
}

#[test]
fn the_better_group_carries_the_io_until_it_is_gone() {
    let disk = disk();
    let with = |priority| PathConfig { priority, ..PathConfig::default() };
    let mut controls = Vec::new();
    let mut paths: Vec<(PathConfig, Box<dyn BlockDevice>)> = Vec::new();
    for priority in [50, 50, 10] {
        let path = FaultyDevice::new(disk.device(), Faults::default(), 1);
        controls.push(path.control());
        paths.push((with(priority), Box::new(path)));
    }
    let mut device =
        MultipathDevice::with_selector(paths, RoundRobin::default(), FailoverConfig::default()).unwrap();
    let mut now = Instant::ZERO;
    let requests = |device: &Device| device.status().iter().map(|s| s.requests).collect::<Vec<_>>();
    for tag in 0..10 {
        run(&mut device, &mut now, read(tag, 0));
    }
    assert_eq!(requests(&device), [5, 5, 0]);
    controls[0].set(hung());
    controls[1].set(always(1.0));
    for tag in 0..10 {
        assert!(run(&mut device, &mut now, read(tag, 0)).outcome.is_ok());
    }
    let states = device.status().iter().map(|status| status.state).collect::<Vec<_>>();
    assert_eq!(states, [PathState::Failed, PathState::Failed, PathState::Active]);
    assert!(requests(&device)[2] >= 8);
    assert!(!device.switch_group(50) && device.switch_group(10));
}

/// A device over paths of 0.2 ms, with hedging on, that knows its paths.
fn hedging_device(disk: &MemoryDisk) -> (Device, Vec<FaultControl>, Instant) {
    let mut controls = Vec::new();
    let mut paths: Vec<(PathConfig, Box<dyn BlockDevice>)> = Vec::new();
    for seed in 0..4 {
        let path = FaultyDevice::new(disk.device(), slow(200), seed);
        controls.push(path.control());
        paths.push((PathConfig::default(), Box::new(path)));
    }
    let hedge = HedgeConfig { enabled: true, ..HedgeConfig::default() };
    let config = FailoverConfig { hedge, ..FailoverConfig::default() };
    let mut device = MultipathDevice::with_selector(paths, RoundRobin::default(), config).unwrap();
    let mut now = Instant::ZERO;
    for tag in 0..1000 {
        let done = run(&mut device, &mut now, IoRequest { hedge: true, ..read(tag, 0) });
        assert!(done.outcome.is_ok());
    }
    (device, controls, now)
}

fn slow(micros: u64) -> Faults {
    Faults { latency: Duration::from_micros(micros), ..Faults::default() }
}

#[test]
fn a_read_that_takes_long_is_sent_a_second_time_and_the_first_answer_counts() {
    let disk = disk();
    let (mut device, controls, mut now) = hedging_device(&disk);
    run(&mut device, &mut now, write(1, 0, 7));
    controls.iter().take(1).for_each(|control| control.set(slow(100_000)));
    let sent: u64 = device.status().iter().map(|status| status.requests).sum();
    let begun = now;
    for tag in 0..4 {
        let done = run(&mut device, &mut now, IoRequest { hedge: true, ..read(tag, 0) });
        assert_eq!(done.buffer.into_read().unwrap()[0], 7);
    }
    // One of the four went over the slow path: 0.3 ms until its second copy, 0.2 ms for that.
    assert_eq!(now.since(begun), Duration::from_micros(3 * 200 + 500));
    assert_eq!(device.status().iter().map(|status| status.requests).sum::<u64>(), sent + 5);
    assert_eq!(device.status()[0].quarantined_bytes, 512, "the slow path has its buffer still");
    now = begun + Duration::from_millis(101);
    settle(&mut device, now);
    assert_eq!((device.status()[0].quarantined_bytes, device.status()[0].in_flight), (0, 0));
}

#[test]
fn a_hedged_read_may_lose_either_of_its_paths() {
    let disk = disk();
    for (first, second) in [(always(1.0), slow(200)), (slow(200), always(1.0))] {
        let (mut device, controls, mut now) = hedging_device(&disk);
        let late = |faults: Faults| Faults { latency: Duration::from_millis(2), ..faults };
        controls[0].set(late(first));
        controls[1..].iter().for_each(|control| control.set(late(second.clone())));
        for tag in 0..8 {
            let done = run(&mut device, &mut now, IoRequest { hedge: true, ..read(tag, 0) });
            assert!(done.outcome.is_ok(), "{:?}", done.outcome);
        }
        settle(&mut device, now + Duration::from_secs(10));
        assert!(device.status().iter().all(|status| status.quarantined_bytes == 0));
    }
}

#[test]
fn a_target_that_is_away_for_a_moment_costs_no_path_and_no_request() {
    let disk = disk();
    let leads_to = Arc::new(AtomicUsize::new(0));
    let path = || Box::new(Swapped::leading(&disk, &disk, &leads_to)) as Box<dyn BlockDevice>;
    let mut device = taking_turns(vec![path(), path()]);
    let mut now = Instant::ZERO;
    assert!(run(&mut device, &mut now, read(1, 0)).outcome.is_ok());
    leads_to.store(1, Ordering::Relaxed);
    device.submit(now, read(2, 0)).unwrap();
    now = now + Duration::from_secs(10);
    assert!(device.poll(now).is_none(), "it waits");
    leads_to.store(0, Ordering::Relaxed);
    now = now + Duration::from_secs(2);
    let mut done = None;
    for _ in 0..100 {
        done = done.or(device.poll(now));
    }
    assert!(done.expect("a path answers").outcome.is_ok());
}

#[test]
fn why_tells_the_story_of_a_request_and_of_a_path() {
    let disk = disk();
    let (mut device, controls) = device_over(&disk, vec![hung(), Faults::default()]);
    let mut now = Instant::ZERO;
    device.explain(true);
    assert!(run(&mut device, &mut now, write(1, 0, 1)).outcome.is_ok());
    let story: Vec<String> = device.explanation().decisions().map(ToString::to_string).collect();
    let told = [
        "0.000000 s I/O 1: sent over path 0 of 0,1 by 0: 0 turns, 1: 1 turns",
        "5.000000 s I/O 1: failed over path 0: no answer before the deadline: another path is asked",
        "5.000000 s I/O 1: sent over path 1 as attempt 2 of 1 by 1: 0 turns; 0 failed it",
        "5.000000 s I/O 1: done",
    ];
    assert_eq!(story, told);
    controls[0].clear();
    now = now + Duration::from_secs(1);
    settle(&mut device, now);
    let events: Vec<_> =
        device.explanation().events().map(|event| (event.from, event.to, event.reason)).collect();
    let failed = (PathState::Active, PathState::Failed, Reason::Hung);
    assert_eq!(events, [failed, (PathState::Failed, PathState::Active, Reason::Compared)]);
}

#[test]
fn a_path_that_came_back_may_be_asked_again() {
    let disk = disk();
    let (mut device, controls) = device_over(&disk, vec![hung(), Faults::default()]);
    let ms = |count| Instant::ZERO + Duration::from_millis(count);
    for tag in 1..=64 {
        device.submit(ms(0), read(tag, tag)).unwrap();
    }
    let mut done = 0;
    for now in (0..30_000).step_by(50).map(ms) {
        if now == ms(4900) {
            // Half of them time out over the first path, and five seconds later over this one.
            controls[1].set(hung());
        }
        if now == ms(10_300) {
            // Most of them wait for the budget of retries then, and have tried both.
            controls[1].clear();
        }
        while let Some(completion) = device.poll(now) {
            assert!(completion.outcome.is_ok(), "{:?} at {now}", completion.outcome);
            done += 1;
        }
        while device.poll_event(now).is_some() {}
    }
    assert_eq!(done, 64);
}
