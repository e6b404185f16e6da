//! Drills against predictions, and paths that must be compared before their first use.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

mod support;

use std::time::Duration;

use multipath::plan::{FaultKind, plan};
use multipath::{
    DrillConfig, DrillError, DrillFault, DrillStage, FailoverConfig, MultipathDevice, PathState,
};
use storage_mapping::device::{FaultControl, Faults, FaultyDevice, MemoryDisk};
use storage_mapping::{BlockDevice, Instant, PathIndex};
use support::{Device, disk, hung, read, run, settle, taking_turns, write};

const SERVICE: Duration = Duration::from_millis(2);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Two paths of 2 ms each.
fn device() -> Device {
    let disk = disk();
    let path = |seed| {
        let faults = Faults { latency: SERVICE, ..Faults::default() };
        Box::new(FaultyDevice::new(disk.device(), faults, seed)) as Box<dyn BlockDevice>
    };
    taking_turns(vec![path(1), path(2)])
}

/// The longest that a request took in a drill that began at this phase of the traffic.
fn drill(fault: DrillFault, phase: Duration) -> Duration {
    let mut device = device();
    let mut now = Instant::ZERO;
    for tag in 0..10 {
        run(&mut device, &mut now, read(tag, tag));
    }
    device.submit(now, read(100, 1)).unwrap();
    device.submit(now, read(101, 2)).unwrap();
    now = now + phase;
    device.start_drill(now, DrillConfig::new(PathIndex(0), fault, ms(7000))).unwrap();
    let second = DrillConfig::new(PathIndex(1), fault, ms(1));
    assert_eq!(device.start_drill(now, second), Err(DrillError::Running));
    let end = now + ms(7000);
    let mut tag = 102;
    while now < end {
        while device.poll(now).is_some() {
            device.submit(now, read(tag, tag % 64)).unwrap();
            tag += 1;
        }
        while device.poll_event(now).is_some() {}
        now = device.next_wakeup().expect("there is I/O").max(now);
    }
    while device.poll(now).is_some() {}
    let report = device.drill_report().unwrap();
    assert!(!report.is_running() && report.is_as_predicted(), "{report:?}");
    for _ in 0..1000 {
        while device.poll(now).is_some() || device.poll_event(now).is_some() {}
        now = now + ms(2);
    }
    assert_eq!(device.status()[0].state, PathState::Active, "after the drill the path is back");
    assert_eq!(device.status()[0].quarantined_bytes, 0);
    report.requests.worst
}

#[test]
fn drills_stay_within_the_plan_and_come_near_it() {
    let predictions = plan(&FailoverConfig::default(), 2, SERVICE);
    for (fault, kind) in [(DrillFault::Error, FaultKind::Error), (DrillFault::Hang, FaultKind::Hang)] {
        let predicted = predictions.iter().find(|found| found.fault == kind).unwrap().worst.unwrap();
        let measured = (0..20).map(|phase| drill(fault, Duration::from_micros(phase * 100)));
        let measured: Vec<Duration> = measured.collect();
        let worst = *measured.iter().max().unwrap();
        println!("{}: predicted {predicted:?}, worst of {} drills {worst:?}", kind.word(), measured.len());
        assert!(worst <= predicted, "{worst:?} > {predicted:?}");
        assert!(worst >= predicted / 2, "{worst:?} is far from {predicted:?}");
    }
}

#[test]
fn a_drill_does_not_take_the_last_path() {
    let mut device = device();
    device.fail_path(Instant::ZERO, PathIndex(1));
    let drill = |path| DrillConfig::new(PathIndex(path), DrillFault::Hang, ms(1));
    assert_eq!(device.start_drill(Instant::ZERO, drill(0)), Err(DrillError::LastPath));
    device.reinstate_path(Instant::ZERO, PathIndex(1));
    device.fail_path(Instant::ZERO, PathIndex(0));
    assert_eq!(device.start_drill(Instant::ZERO, drill(0)), Err(DrillError::NotInUse));
    assert_eq!(device.drill_report(), None);
}

/// Lets time pass, with nobody but the device itself at work.
fn pass(device: &mut Device, now: &mut Instant, until: Instant) {
    while *now < until {
        assert!(device.poll(*now).is_none(), "nobody asked for anything");
        while device.poll_event(*now).is_some() {}
        *now = device.next_wakeup().map_or(until, |at| at.max(*now + Duration::from_micros(1))).min(until);
    }
}

#[test]
fn a_device_that_nobody_uses_measures_with_reads_of_its_own() {
    for fault in [DrillFault::Error, DrillFault::Hang] {
        let (mut device, mut now) = (device(), Instant::ZERO);
        let quiet = DrillConfig::new(PathIndex(0), fault, ms(6000));
        let config = DrillConfig { lead: ms(500), tail: ms(3000), load: true, ..quiet };
        device.start_drill(now, config).unwrap();
        pass(&mut device, &mut now, Instant::ZERO + ms(400));
        let report = device.drill_report().unwrap();
        assert_eq!((report.stage, report.requests.predicted), (DrillStage::Lead, None));
        assert!((30..=40).contains(&report.all), "{report:?}");
        pass(&mut device, &mut now, Instant::ZERO + ms(9_600));
        let report = device.drill_report().unwrap();
        assert!(!report.is_running() && report.is_as_predicted(), "{report:?}");
        let predicted = report.requests.predicted.unwrap();
        assert!(report.requests.worst * 2 >= predicted, "{report:?}");
        let samples: Vec<_> = device.drill_samples().collect();
        assert_eq!(samples.len() as u64, report.all);
        assert!(report.all > 400, "{report:?}");
        // The fault stays on its path: none of those that ended over it while it lasted was sent within it.
        let during = |at: Instant| at > report.fault_begins && at < report.fault_ends;
        assert!(samples.iter().all(|sample| sample.path != Some(PathIndex(0)) || !during(sample.ended)));
        assert!(
            samples
                .iter()
                .any(|sample| sample.ended > report.fault_ends && sample.path == Some(PathIndex(0)))
        );
        assert_eq!(device.status()[0].state, PathState::Active);
        assert_eq!(device.status()[0].quarantined_bytes, 0);
        let all = report.all;
        pass(&mut device, &mut now, Instant::ZERO + ms(12_000));
        assert_eq!(device.drill_report().unwrap().all, all, "the load ends with the drill");
    }
}

#[test]
fn a_drill_may_follow_another_at_once() {
    let (mut device, mut now) = (device(), Instant::ZERO);
    for round in 1..=5 {
        let config = DrillConfig { load: true, ..DrillConfig::new(PathIndex(1), DrillFault::Hang, ms(11)) };
        device.start_drill(now, config).unwrap();
        // The second read, of 2 ms, was sent a millisecond before the end.
        pass(&mut device, &mut now, Instant::ZERO + ms(11 * round));
        assert!(device.poll(now).is_none());
        assert!(!device.drill_report().unwrap().is_running());
    }
    pass(&mut device, &mut now, Instant::ZERO + ms(100));
    assert_eq!(device.status().iter().map(|status| status.in_flight).sum::<usize>(), 0);
}

#[test]
fn without_io_nothing_is_measured_and_nothing_is_claimed() {
    let (mut device, mut now) = (device(), Instant::ZERO);
    device.start_drill(now, DrillConfig::new(PathIndex(0), DrillFault::Hang, ms(100))).unwrap();
    pass(&mut device, &mut now, Instant::ZERO + ms(200));
    let report = device.drill_report().unwrap();
    assert_eq!((report.is_running(), report.requests.requests, report.is_as_predicted()), (false, 0, false));
}

#[test]
fn a_drill_ends_when_its_path_becomes_the_last() {
    let (mut device, mut now) = (device(), Instant::ZERO);
    let config = DrillConfig { load: true, ..DrillConfig::new(PathIndex(0), DrillFault::Hang, ms(60_000)) };
    device.start_drill(now, config).unwrap();
    pass(&mut device, &mut now, Instant::ZERO + ms(100));
    device.fail_path(now, PathIndex(1));
    pass(&mut device, &mut now, Instant::ZERO + ms(300));
    let report = device.drill_report().unwrap();
    assert!(report.was_cut && !report.is_running(), "{report:?}");
    assert_eq!(device.status()[0].state, PathState::Active);
}

fn compared_at_start(disks: &[&MemoryDisk]) -> MultipathDevice {
    let paths = disks.iter().map(|disk| Box::new(disk.device()) as Box<dyn BlockDevice>).collect();
    let config = FailoverConfig { compares_at_start: true, ..FailoverConfig::default() };
    MultipathDevice::new(paths, config).unwrap()
}

#[test]
fn a_path_to_another_disk_carries_nothing_from_the_start() {
    let (disk, other) = (disk(), disk());
    let mut device = compared_at_start(&[&disk]);
    let mut now = Instant::ZERO;
    assert!(run(&mut device, &mut now, write(1, 0, 7)).outcome.is_ok());
    let mut device = compared_at_start(&[&disk, &disk, &other]);
    assert!(run(&mut device, &mut now, write(1, 1, 8)).outcome.is_ok(), "the first path is enough");
    settle(&mut device, now);
    let states: Vec<_> = device.status().iter().map(|status| status.state).collect();
    assert_eq!(states, [PathState::Active, PathState::Active, PathState::Foreign]);
}

/// Paths of which nothing is known but what lies on them; each can be made to hang.
fn to_be_compared(disks: &[&MemoryDisk]) -> (MultipathDevice, Vec<FaultControl>) {
    let path = |disk: &&MemoryDisk| FaultyDevice::new(disk.device(), Faults::default(), 1);
    let paths: Vec<_> = disks.iter().map(path).collect();
    let controls = paths.iter().map(FaultyDevice::control).collect();
    let config = FailoverConfig { compares_at_start: true, ..FailoverConfig::default() };
    let paths = paths.into_iter().map(|path| Box::new(path) as Box<dyn BlockDevice>).collect();
    (MultipathDevice::new(paths, config).unwrap(), controls)
}

fn states_at(device: &mut MultipathDevice, second: u64) -> Vec<PathState> {
    settle(device, Instant::ZERO + Duration::from_secs(second));
    device.status().iter().map(|status| status.state).collect()
}

#[test]
fn a_path_to_another_disk_carries_nothing_when_the_only_right_one_is_gone() {
    let (disk, other) = (disk(), disk());
    let (mut device, controls) = to_be_compared(&[&disk, &other]);
    let mut now = Instant::ZERO;
    assert!(run(&mut device, &mut now, write(1, 0, 7)).outcome.is_ok());
    assert_eq!(states_at(&mut device, 0), [PathState::Active, PathState::Foreign]);
    controls[0].set(hung());
    // Nobody is left to compare it with, for hours: that is no reason to trust it.
    for second in 1..200 {
        assert_ne!(states_at(&mut device, 30 * second)[1], PathState::Active, "after {second} half minutes");
    }
    assert_eq!(device.status()[0].state, PathState::Failed);
    controls[0].clear();
    assert_eq!(states_at(&mut device, 6001), [PathState::Active, PathState::Foreign]);
    assert_eq!(device.status()[1].bytes, 0);
}

#[test]
fn where_the_first_path_never_answers_the_others_are_compared_with_the_one_that_does() {
    let (disk, other) = (disk(), disk());
    let mut now = Instant::ZERO;
    let mut alone = compared_at_start(&[&other]);
    assert!(run(&mut alone, &mut now, write(1, 255, 9)).outcome.is_ok());
    let (mut device, controls) = to_be_compared(&[&other, &disk, &disk]);
    controls[0].set(hung());
    let done = run(&mut device, &mut now, write(1, 0, 7));
    assert!(done.outcome.is_ok(), "path 1 may be used as long as nobody has used another");
    now = now + Duration::from_secs(2);
    settle(&mut device, now);
    let states: Vec<_> = device.status().iter().map(|status| status.state).collect();
    assert_eq!(states, [PathState::Failed, PathState::Active, PathState::Active]);
    // Now the first one is the one that has to prove itself.
    controls[0].clear();
    now = now + Duration::from_secs(2);
    settle(&mut device, now);
    assert_eq!(device.status()[0].state, PathState::Foreign);
}
