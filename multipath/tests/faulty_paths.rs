//! The multipath device over paths that fail, hang and come back.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

mod support;

use std::collections::{BTreeSet, HashMap};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use multipath::{FailoverConfig, MultipathDevice, MultipathError, PathState};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use storage_mapping::device::{Faults, Hang, MemoryDisk};
use storage_mapping::{
    BlockCount, BlockDevice, BlockSize, BufferPool, Cancelled, CopyFate, DeviceEvent, Effect, ErrorSource,
    FencePolicy, Geometry, Instant, IoCompletion, IoRequest, IoTag, PathIndex, RefusalReason, Refused,
    SettledProof,
};
use support::{BLOCK, Device, always, device_over, disk, hung, next, read, run, settle, taking_turns, write};

#[test]
fn paths_take_turns_and_are_counted() {
    let disk = disk();
    let (mut device, _) = device_over(&disk, vec![Faults::default(); 2]);
    let mut now = Instant::ZERO;
    for tag in 0..10 {
        assert!(run(&mut device, &mut now, write(tag, tag, 1)).outcome.is_ok());
    }
    for status in device.status() {
        assert_eq!((status.requests, status.bytes, status.errors), (5, 5 * BLOCK as u64, 0));
        assert_eq!((status.state, status.in_flight), (PathState::Active, 0));
    }
}

#[test]
fn limits_are_those_of_all_paths_and_block_sizes_must_agree() {
    let small = MemoryDisk::new(BlockSize::B512, BlockCount(100));
    let other = MemoryDisk::new(BlockSize::B4096, BlockCount(100));
    let new = |disks: &[&MemoryDisk]| {
        let paths = disks.iter().map(|disk| Box::new(disk.device()) as Box<dyn BlockDevice>).collect();
        MultipathDevice::new(paths, FailoverConfig::default()).map(|device| device.geometry())
    };
    assert_eq!(new(&[&disk(), &small]).unwrap().block_count, BlockCount(100));
    assert!(matches!(new(&[]), Err(MultipathError::NoPaths)));
    assert!(matches!(new(&[&small; 65]), Err(MultipathError::TooManyPaths { count: 65 })));
    let error = new(&[&small, &other]).unwrap_err();
    assert!(matches!(error, MultipathError::UnequalBlockSize { path: PathIndex(1), .. }), "{error}");
}

#[test]
fn a_failing_path_is_left_and_comes_back() {
    let disk = disk();
    let (mut device, controls) = device_over(&disk, vec![always(1.0), Faults::default()]);
    let mut now = Instant::ZERO;
    for tag in 0..10 {
        assert!(run(&mut device, &mut now, read(tag, 0)).outcome.is_ok());
    }
    let status = device.status();
    assert_eq!((status[0].state, status[0].errors), (PathState::Failed, 2));
    assert_eq!(status[0].last_error.unwrap().source_code, ErrorSource::Errno(5));
    controls[0].clear();
    now = now + Duration::from_secs(2);
    settle(&mut device, now);
    assert_eq!(device.status()[0].state, PathState::Active);
}

#[test]
fn a_write_in_doubt_is_answered_unless_it_may_be_sent_again() {
    let disk = disk();
    let (mut device, _) = device_over(&disk, vec![always(1.0), Faults::default()]);
    let mut now = Instant::ZERO;
    let fenced = IoRequest { fence: FencePolicy::Fence, ..write(1, 0, 1) };
    let done = run(&mut device, &mut now, IoRequest { path: Some(PathIndex(0)), ..fenced });
    assert!(done.outcome.is_err());
    assert_eq!((done.effect, done.copy), (Effect::Unknown, CopyFate::MayLand));
    device.reinstate_path(now, PathIndex(0));
    // Over whichever path it goes first, it is done; the first copy may still land.
    for tag in 2..4 {
        let done = run(&mut device, &mut now, write(tag, 0, 2));
        assert!(done.outcome.is_ok());
        assert_eq!(done.effect, Effect::Full);
    }
    assert!(disk.with_bytes(|bytes| bytes[..BLOCK] == [2; BLOCK]));
}

#[test]
fn a_hung_path_delays_its_requests_and_nobody_else() {
    let disk = disk();
    let (mut device, _) = device_over(&disk, vec![hung(), Faults::default()]);
    let mut now = Instant::ZERO;
    for tag in 0..8 {
        device.submit(now, read(tag, 0)).unwrap();
    }
    for _ in 0..4 {
        assert!(next(&mut device, &mut now).outcome.is_ok());
    }
    assert_eq!(now, Instant::ZERO, "the good path does not wait");
    for _ in 0..4 {
        assert!(next(&mut device, &mut now).outcome.is_ok());
    }
    assert_eq!(now, Instant::ZERO + FailoverConfig::default().attempt_timeout);
    assert_eq!(device.status()[0].state, PathState::Failed);
}

/// A path whose requests leave this host and are answered only when it is told to.
struct SlowDevice {
    inner: storage_mapping::device::MemoryDevice,
    is_open: Arc<AtomicBool>,
}

impl BlockDevice for SlowDevice {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }
    fn submit(&mut self, now: Instant, request: IoRequest) -> Result<(), Refused> {
        self.inner.submit(now, request)
    }
    fn poll(&mut self, now: Instant) -> Option<IoCompletion> {
        let is_open = self.is_open.load(Ordering::Relaxed);
        is_open.then(|| self.inner.poll(now)).flatten()
    }
    fn poll_event(&mut self, _now: Instant) -> Option<DeviceEvent> {
        None
    }
    fn next_wakeup(&self) -> Option<Instant> {
        None
    }
    fn cancel(&mut self, _now: Instant, _tag: IoTag) -> Cancelled {
        Cancelled::Requested
    }
    fn attach_pool(&mut self, _pool: &BufferPool) {}
    fn wait_on(&self, _descriptors: &mut Vec<RawFd>) {}
}

#[test]
fn a_late_answer_settles_a_write_and_frees_a_read() {
    let disk = disk();
    let is_open = Arc::new(AtomicBool::new(false));
    let slow = SlowDevice { inner: disk.device(), is_open: is_open.clone() };
    let paths: Vec<Box<dyn BlockDevice>> = vec![Box::new(slow), Box::new(disk.device())];
    let mut device = taking_turns(paths);
    let mut now = Instant::ZERO;
    let path = Some(PathIndex(0));
    device.submit(now, IoRequest { path, ..read(1, 0) }).unwrap();
    device.submit(now, IoRequest { fence: FencePolicy::Fail, path, ..write(2, 0, 9) }).unwrap();
    assert!(matches!(device.cancel(now, IoTag(2)), Cancelled::Requested));
    let mut done = [next(&mut device, &mut now), next(&mut device, &mut now)];
    done.sort_by_key(|done| done.tag);
    let [read_done, write_done] = done;
    assert_eq!(read_done.outcome.unwrap_err().source_code, ErrorSource::Deadline);
    assert_eq!(read_done.buffer.into_read().unwrap().len(), BLOCK);
    assert_eq!((write_done.effect, write_done.copy), (Effect::Unknown, CopyFate::MayLand));
    assert_eq!(device.status()[0].in_flight, 2, "the path still has them");
    is_open.store(true, Ordering::Relaxed);
    assert!(device.poll(now).is_none());
    let settled = DeviceEvent::Settled { tag: IoTag(2), proof: SettledProof::Response };
    assert_eq!(device.poll_event(now), Some(settled));
    assert_eq!((device.status()[0].in_flight, device.status()[0].state), (1, PathState::Failed), "a probe");
    for _ in 0..10 {
        assert!(device.poll(now).is_none());
    }
    assert_eq!((device.status()[0].in_flight, device.status()[0].state), (0, PathState::Active));
}

#[test]
fn a_deadline_ends_a_request() {
    let disk = disk();
    let (mut device, _) = device_over(&disk, vec![hung()]);
    let mut now = Instant::ZERO;
    let deadline = Some(now + Duration::from_millis(100));
    let done = run(&mut device, &mut now, IoRequest { deadline, ..write(1, 0, 1) });
    assert_eq!(done.outcome.unwrap_err().source_code, ErrorSource::Deadline);
    assert_eq!((Some(now), done.copy, done.effect), (deadline, CopyFate::MayLand, Effect::Unknown));
}

#[test]
fn without_a_path_requests_wait_and_then_fail() {
    let disk = disk();
    let (mut device, _) = device_over(&disk, vec![Faults::default(); 2]);
    let mut now = Instant::ZERO;
    device.fail_path(now, PathIndex(0));
    device.fail_path(now, PathIndex(1));
    device.submit(now, read(1, 0)).unwrap();
    assert!(device.poll(now).is_none());
    device.reinstate_path(now, PathIndex(1));
    assert!(next(&mut device, &mut now).outcome.is_ok());
    device.fail_path(now, PathIndex(1));
    let done = run(&mut device, &mut now, read(2, 0));
    assert_eq!(done.outcome.unwrap_err().source_code, ErrorSource::NoPath);
    assert_eq!(now, Instant::ZERO + Duration::from_secs(60));
    device.submit(now, read(3, 0)).unwrap();
    assert!(matches!(device.cancel(now, IoTag(3)), Cancelled::Withdrawn(_)));
    assert!(matches!(device.cancel(now, IoTag(3)), Cancelled::NotHere));
}

#[test]
fn a_flush_fails_if_a_path_that_carried_writes_died() {
    let disk = disk();
    let (mut device, controls) = device_over(&disk, vec![Faults::default(); 2]);
    let mut now = Instant::ZERO;
    for tag in 0..4 {
        run(&mut device, &mut now, write(tag, tag, 1));
    }
    let before: Vec<_> = device.status().iter().map(|status| status.requests).collect();
    assert!(run(&mut device, &mut now, IoRequest::flush(IoTag(9))).outcome.is_ok());
    let after: Vec<_> = device.status().iter().map(|status| status.requests).collect();
    assert_eq!(after, [before[0] + 1, before[1] + 1], "both paths are flushed");
    for tag in 0..4 {
        run(&mut device, &mut now, write(tag, tag, 1));
    }
    controls[0].set(always(1.0));
    assert!(run(&mut device, &mut now, IoRequest::flush(IoTag(9))).outcome.is_err());
    assert!(run(&mut device, &mut now, IoRequest::flush(IoTag(9))).outcome.is_ok(), "said once");
}

#[test]
fn what_does_not_fit_comes_back() {
    let disk = disk();
    let (mut device, _) = device_over(&disk, vec![hung()]);
    let now = Instant::ZERO;
    let reason = |device: &mut Device, request| device.submit(now, request).unwrap_err().reason;
    assert_eq!(reason(&mut device, read(1, 256)), RefusalReason::Invalid);
    let nowhere = IoRequest { path: Some(PathIndex(1)), ..read(1, 0) };
    assert_eq!(reason(&mut device, nowhere), RefusalReason::Invalid);
    device.submit(now, read(0, 0)).unwrap();
    assert_eq!(reason(&mut device, read(0, 0)), RefusalReason::DuplicateTag);
    for tag in 1..device.geometry().queue_depth as u64 {
        device.submit(now, read(tag, 0)).unwrap();
    }
    assert_eq!(reason(&mut device, read(1 << 40, 0)), RefusalReason::Busy);
}

fn bad_path() -> impl Strategy<Value = Faults> {
    let hang = prop_oneof![
        Just(Hang::Never),
        (0_u64..100).prop_map(|requests| Hang::After { requests, duration: None }),
        (0_u64..100, 1_u64..20_000).prop_map(|(requests, milliseconds)| Hang::After {
            requests,
            duration: Some(Duration::from_millis(milliseconds))
        }),
    ];
    (0.0..1.0_f64, hang, 0_u64..50).prop_map(|(error, hang, latency)| Faults {
        error,
        hang,
        latency: Duration::from_millis(latency),
        jitter: Duration::from_millis(5),
        ..Faults::default()
    })
}

/// What each request does: lane, and whether it writes.
fn steps() -> impl Strategy<Value = Vec<(u64, bool)>> {
    proptest::collection::vec((0_u64..64, any::<bool>()), 50..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// One good path is enough: everything completes exactly once, and reads give what was written.
    #[test]
    fn one_good_path_is_enough(
        bad in proptest::collection::vec(bad_path(), 1..4),
        good_at in 0_usize..4,
        steps in steps(),
    ) {
        let disk = disk();
        let mut faults = bad;
        let place = good_at.min(faults.len());
        faults.insert(place, Faults::default());
        let (mut device, _) = device_over(&disk, faults);
        let mut now = Instant::ZERO;
        let mut model: HashMap<u64, u8> = HashMap::new();
        let mut open: BTreeSet<u64> = BTreeSet::new();
        let mut what: HashMap<u64, (u64, Option<u8>)> = HashMap::new();
        let mut handle = |done: IoCompletion, open: &mut BTreeSet<u64>,
                          what: &mut HashMap<u64, (u64, Option<u8>)>| {
            let (lba, value) = what.remove(&done.tag.0).expect("completed twice, or never submitted");
            open.remove(&lba);
            assert!(done.outcome.is_ok(), "{:?}", done.outcome);
            if let Some(value) = value {
                model.insert(lba, value);
                return;
            }
            let expected = model.get(&lba).copied().unwrap_or(0);
            let buffer = done.buffer.into_read().unwrap();
            assert!(buffer.iter().all(|byte| *byte == expected), "block {lba}");
        };
        for (tag, (lba, is_write)) in (0_u64..).zip(steps) {
            while open.contains(&lba) || open.len() > 20 {
                let done = next(&mut device, &mut now);
                handle(done, &mut open, &mut what);
            }
            let value = u8::try_from(tag % 251).unwrap() + 1;
            // A path that hangs for a while lets old writes go later: the fence is what keeps them off newer data.
            let fenced = IoRequest { fence: FencePolicy::Fence, ..write(tag, lba, value) };
            let request = if is_write { fenced } else { read(tag, lba) };
            open.insert(lba);
            what.insert(tag, (lba, is_write.then_some(value)));
            device.submit(now, request).unwrap();
        }
        while !what.is_empty() {
            let done = next(&mut device, &mut now);
            handle(done, &mut open, &mut what);
        }
        // Nothing comes a second time, also when the paths recover, and no old copy has come after its successor.
        now = now + Duration::from_secs(100);
        assert!(device.poll(now).is_none());
        for (lba, value) in model {
            let done = run(&mut device, &mut now, IoRequest { path: Some(PathIndex(place)), ..read(1, lba) });
            assert!(done.buffer.into_read().unwrap().iter().all(|byte| *byte == value), "block {lba}");
        }
    }
}
