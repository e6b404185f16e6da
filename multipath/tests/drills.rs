//! Drills against predictions, and paths that must be compared before their first use.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

mod support;

use std::time::Duration;

use multipath::plan::{FaultKind, plan};
use multipath::{DrillError, DrillFault, FailoverConfig, MultipathDevice, PathState};
use storage_mapping::device::{Faults, FaultyDevice, MemoryDisk};
use storage_mapping::{BlockDevice, Instant, PathIndex};
use support::{Device, disk, read, run, settle, taking_turns, write};

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
    device.start_drill(now, PathIndex(0), fault, ms(7000)).unwrap();
    assert_eq!(device.start_drill(now, PathIndex(1), fault, ms(1)), Err(DrillError::Running));
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
    let report = device.drill_report(now).unwrap();
    assert!(!report.is_running && report.requests > 0 && report.failed == 0, "{report:?}");
    for _ in 0..1000 {
        while device.poll(now).is_some() || device.poll_event(now).is_some() {}
        now = now + ms(2);
    }
    assert_eq!(device.status()[0].state, PathState::Active, "after the drill the path is back");
    assert_eq!(device.status()[0].quarantined_bytes, 0);
    report.worst
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
    let refused = device.start_drill(Instant::ZERO, PathIndex(0), DrillFault::Hang, ms(1));
    assert_eq!(refused, Err(DrillError::LastPath));
    assert_eq!(device.drill_report(Instant::ZERO), None);
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
