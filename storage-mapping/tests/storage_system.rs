//! The simulated storage system: access states, limits, and each fault does what its name says.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

mod support;

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::{ProptestConfig, any, proptest};
use storage_mapping::device::storage_system::{AccessState, Parts, Schedule};
use storage_mapping::device::{SimulatedPath, StorageSystem};
use storage_mapping::{
    BlockCount, BlockDevice, Buffer, Cancelled, CopyFate, DeviceEvent, Effect, ErrorSource, Instant,
    IoCompletion, IoRequest, IoTag, Lba, RefusalReason, SettledProof,
};
use support::Numbers;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const SYSTEM: &str = "
    seed 7
    forwarding 300us
    disk d0 1MiB
    disk d1 1MiB
    group g0
    group g1
    port p0 group=g0
    port p1 group=g0
    port p2 group=g1
    volume v0 striped unit=16KiB d0@0+512KiB d1@512KiB+512KiB
    volume v1 concatenated d0@512KiB+512KiB
";

fn system(text: &str) -> StorageSystem {
    StorageSystem::new(&text.parse().unwrap()).unwrap()
}

/// One system, one time, and what is done to it.
struct Bench {
    system: StorageSystem,
    now: Instant,
    tags: u64,
}

impl Bench {
    fn new(text: &str) -> Self {
        Self { system: system(text), now: Instant::ZERO, tags: 0 }
    }

    fn path(&self, port: &str) -> SimulatedPath {
        self.system.path("host1", port, "v0").unwrap()
    }

    fn apply(&self, action: &str) {
        self.system.apply(self.now, &action.parse().unwrap()).unwrap();
    }

    fn tag(&mut self) -> IoTag {
        self.tags += 1;
        IoTag(self.tags)
    }

    fn send_write(&mut self, path: &mut SimulatedPath, lba: u64, value: u8) -> IoTag {
        let tag = self.tag();
        let data = Buffer::copy_of(&[value; 4096]).freeze();
        path.submit(self.now, IoRequest::write(tag, Lba(lba), data, false)).unwrap();
        tag
    }

    fn send_read(&mut self, path: &mut SimulatedPath, lba: u64) -> IoTag {
        let tag = self.tag();
        path.submit(self.now, IoRequest::read(tag, Lba(lba), Buffer::zeroed(4096))).unwrap();
        tag
    }

    /// The next completion; time passes as far as that needs.
    fn next(&mut self, path: &mut SimulatedPath) -> IoCompletion {
        for _ in 0..100_000 {
            if let Some(done) = path.poll(self.now) {
                return done;
            }
            self.now = self.now.max(path.next_wakeup().expect("something is to come"));
        }
        panic!("the path never completes");
    }

    fn write(&mut self, path: &mut SimulatedPath, lba: u64, value: u8) -> IoCompletion {
        let tag = self.send_write(path, lba, value);
        let done = self.next(path);
        assert_eq!(done.tag, tag);
        done
    }

    fn read(&mut self, path: &mut SimulatedPath, lba: u64) -> IoCompletion {
        let tag = self.send_read(path, lba);
        let done = self.next(path);
        assert_eq!(done.tag, tag);
        done
    }

    fn timed_read(&mut self, path: &mut SimulatedPath) -> Duration {
        let start = self.now;
        assert!(self.read(path, 0).outcome.is_ok());
        self.now.since(start)
    }

    /// What lies on a block of `v0`, past all paths.
    fn content(&self, lba: u64) -> u8 {
        let place = self.system.locate("v0", Lba(lba), BlockCount(1)).unwrap().remove(0);
        let disk = self.system.memory_disk(&place.disk).unwrap();
        let at = usize::try_from(place.physical.0).unwrap() * 4096;
        disk.with_bytes(|bytes| {
            assert!(bytes[at..at + 4096].iter().all(|byte| *byte == bytes[at]), "torn");
            bytes[at]
        })
    }

    /// Lets time pass up to `until` and says what the path gave meanwhile.
    fn drain(&mut self, path: &mut SimulatedPath, until: Instant) -> Vec<IoCompletion> {
        let mut all = Vec::new();
        loop {
            while let Some(done) = path.poll(self.now) {
                all.push(done);
            }
            match self.system.next_wakeup() {
                Some(at) if at <= until => self.now = self.now.max(at),
                _ if self.now >= until => return all,
                _ => self.now = until,
            }
        }
    }
}

fn error(done: &IoCompletion) -> ErrorSource {
    done.outcome.unwrap_err().source_code
}

fn sense(done: &IoCompletion) -> (u8, u8, u8) {
    match error(done) {
        ErrorSource::Scsi { status: 2, key, asc, ascq, .. } => (key, asc, ascq),
        other => panic!("{other:?}"),
    }
}

fn events(path: &mut SimulatedPath, now: Instant) -> Vec<DeviceEvent> {
    std::iter::from_fn(|| path.poll_event(now)).collect()
}

#[test]
fn each_access_state_answers_as_it_must() {
    let table = [
        (AccessState::ActiveOptimized, None),
        (AccessState::ActiveNonOptimized, None),
        (AccessState::Standby, Some((2, 0x04, 0x0b))),
        (AccessState::Unavailable, Some((2, 0x04, 0x0c))),
        (AccessState::Transitioning, Some((2, 0x04, 0x0a))),
    ];
    for (state, expected) in table {
        let mut bench = Bench::new(&format!("{SYSTEM}\naccess g0/v0 {state}"));
        let mut path = bench.path("p0");
        let requests = [
            IoRequest::read(IoTag(1), Lba(0), Buffer::zeroed(4096)),
            IoRequest::write(IoTag(2), Lba(0), Buffer::copy_of(&[9; 4096]).freeze(), false),
            IoRequest::flush(IoTag(3)),
        ];
        for request in requests {
            path.submit(bench.now, request).unwrap();
            let done = bench.next(&mut path);
            match expected {
                None => assert_eq!(done.outcome, Ok(()), "{state}"),
                Some(expected) => {
                    assert_eq!(sense(&done), expected, "{state}");
                    assert_eq!((done.effect, done.copy), (Effect::None, CopyFate::Dead), "{state}");
                }
            }
        }
        assert_eq!(bench.content(0), if expected.is_none() { 9 } else { 0 }, "{state}");
        assert_eq!(bench.system.access_state("p1", "v0").unwrap(), state);
        // Another group and another volume are not concerned.
        let mut other = bench.path("p2");
        assert!(bench.read(&mut other, 0).outcome.is_ok());
        let mut other = bench.system.path("host1", "p0", "v1").unwrap();
        assert!(bench.read(&mut other, 0).outcome.is_ok());
    }
}

#[test]
fn a_change_of_access_state_is_reported_once_on_each_path() {
    let mut bench = Bench::new(SYSTEM);
    let mut concerned = [bench.path("p0"), bench.path("p1"), bench.path("p0")];
    let mut other = bench.path("p2");
    bench.apply("access g0/v0 non-optimized");
    bench.apply("access g0/v0 non-optimized");
    for path in &mut concerned {
        assert!(events(path, bench.now).is_empty());
        let done = bench.write(path, 0, 1);
        assert_eq!(sense(&done), (6, 0x2a, 0x06));
        assert_eq!((done.effect, done.copy), (Effect::None, CopyFate::Dead));
        assert_eq!(events(path, bench.now), [DeviceEvent::Attention]);
        assert!(bench.write(path, 0, 1).outcome.is_ok());
    }
    assert!(bench.write(&mut other, 0, 1).outcome.is_ok());
    // A path that is opened later knows nothing of it.
    assert!({
        let mut late = bench.path("p1");
        bench.write(&mut late, 0, 1).outcome.is_ok()
    });
}

#[test]
fn a_transition_lasts_as_long_as_it_is_told_to() {
    let mut bench = Bench::new(SYSTEM);
    let mut path = bench.path("p0");
    bench.apply("access g0/v0 non-optimized after 2s");
    assert_eq!(sense(&bench.read(&mut path, 0)), (2, 0x04, 0x0a));
    bench.now = Instant::ZERO + (2 * SECOND - Duration::from_nanos(1));
    assert_eq!(sense(&bench.read(&mut path, 0)), (2, 0x04, 0x0a));
    bench.now = Instant::ZERO + 2 * SECOND;
    assert_eq!(sense(&bench.read(&mut path, 0)), (6, 0x2a, 0x06));
    assert_eq!(bench.timed_read(&mut path), Duration::from_micros(300));
    // A later change is the one that counts.
    bench.apply("access g0/v0 standby after 5s");
    bench.apply("access g0/v0 optimized");
    assert_eq!(sense(&bench.read(&mut path, 0)), (6, 0x2a, 0x06));
    bench.now = bench.now + 10 * SECOND;
    assert_eq!(bench.timed_read(&mut path), Duration::ZERO);
}

#[test]
fn latency_jitter_and_forwarding_add_up() {
    let mut bench = Bench::new(&format!("{SYSTEM}\naccess g1/v0 non-optimized"));
    let (mut near, mut far) = (bench.path("p0"), bench.path("p2"));
    bench.apply("port p0 latency 2ms");
    bench.apply("path host1/p2/v0 latency 1ms");
    assert_eq!(bench.timed_read(&mut near), 2 * MILLISECOND);
    assert_eq!(bench.timed_read(&mut far), MILLISECOND + Duration::from_micros(300));
    bench.apply("port p0 jitter 1ms");
    let times: Vec<_> = (0..200).map(|_| bench.timed_read(&mut near)).collect();
    assert!(times.iter().all(|time| (2 * MILLISECOND..3 * MILLISECOND).contains(time)));
    assert!(times.iter().max().unwrap().abs_diff(*times.iter().min().unwrap()) > MILLISECOND / 2);
    bench.apply("port p0 clear");
    assert_eq!(bench.timed_read(&mut near), Duration::ZERO);
}

#[test]
fn a_grey_path_is_slow_now_and_then() {
    let mut bench = Bench::new(SYSTEM);
    let mut path = bench.path("p0");
    bench.apply("port p0 latency 200us");
    bench.apply("port p0 grey 0.01:100ms");
    let slow = (0..10_000).filter(|_| bench.timed_read(&mut path) > 100 * MILLISECOND).count();
    assert!((70..130).contains(&slow), "{slow}");
}

/// Bytes per second of 4 KiB reads, eight in flight on each path.
fn throughput(bench: &mut Bench, paths: &mut [SimulatedPath]) -> f64 {
    let (start, each) = (bench.now, 8);
    for path in paths.iter_mut() {
        for _ in 0..each {
            bench.send_read(path, 0);
        }
    }
    let mut done = 0_u32;
    while done < 2000 {
        for path in paths.iter_mut() {
            while path.poll(bench.now).is_some() {
                done += 1;
                bench.send_read(path, 0);
            }
        }
        bench.now = bench.now.max(bench.system.next_wakeup().unwrap());
    }
    f64::from(done) * 4096.0 / bench.now.since(start).as_secs_f64()
}

#[test]
fn ports_have_limits_of_their_own_and_share_their_disks() {
    let mib = f64::from(1 << 20);
    for (disk_rate, ports, expected) in [("none", 1, 50.0), ("none", 2, 100.0), ("70MiB", 2, 70.0)] {
        let mut bench = Bench::new(SYSTEM);
        bench.apply("port p0 rate 50MiB");
        bench.apply("port p1 rate 50MiB");
        bench.apply(&format!("disk d0 rate {disk_rate}"));
        let mut paths: Vec<_> = ["p0", "p1"][..ports].iter().map(|port| bench.path(port)).collect();
        let rate = throughput(&mut bench, &mut paths) / mib;
        assert!((expected * 0.97..expected * 1.03).contains(&rate), "{rate} MiB/s, not {expected}");
    }
    // One place at the disk and 1 ms for each: a thousand a second, whichever port they come through.
    let mut bench = Bench::new(SYSTEM);
    bench.apply("disk d0 latency 1ms");
    bench.apply("disk d0 parallel 1");
    let mut paths = [bench.path("p0"), bench.path("p1")];
    let rate = throughput(&mut bench, &mut paths) / 4096.0;
    assert!((970.0..1030.0).contains(&rate), "{rate}");
}

#[test]
fn an_error_leaves_open_whether_a_write_landed() {
    let mut bench = Bench::new(SYSTEM);
    let mut path = bench.path("p0");
    bench.apply("port p0 error 1");
    let mut landed = 0;
    for round in 1..=100 {
        let done = bench.write(&mut path, 0, round);
        assert_eq!(error(&done), ErrorSource::Errno(nix::libc::EIO));
        assert_eq!((done.effect, done.copy), (Effect::Unknown, CopyFate::MayLand));
        landed += u32::from(bench.content(0) == round);
    }
    assert!((30..70).contains(&landed), "{landed}");
    let done = bench.read(&mut path, 0);
    assert_eq!((done.effect, done.copy), (Effect::Unknown, CopyFate::Dead));
}

#[test]
fn a_hang_holds_requests_and_answers_until_it_ends() {
    let mut bench = Bench::new(SYSTEM);
    let mut path = bench.path("p0");
    bench.apply("disk d0 latency 1ms");
    bench.send_write(&mut path, 0, 1);
    bench.apply("port p0 hang 3s");
    bench.now = bench.now + SECOND;
    assert!(path.poll(bench.now).is_none());
    assert_eq!(bench.content(0), 1, "the write was with the disk when the port hung");
    bench.send_write(&mut path, 1, 2);
    assert_eq!(bench.content(1), 0, "the next one is held");
    assert!(bench.next(&mut path).outcome.is_ok());
    assert_eq!(bench.now, Instant::ZERO + 3 * SECOND);
    assert!(bench.next(&mut path).outcome.is_ok());
    assert_eq!(bench.content(1), 2);
    // For ever, until someone says otherwise.
    bench.apply("port p0 hang forever");
    bench.send_read(&mut path, 0);
    let much_later = bench.now + 3600 * SECOND;
    assert!(bench.drain(&mut path, much_later).is_empty());
    assert_eq!(path.next_wakeup(), None);
    bench.apply("port p0 resume");
    assert!(bench.next(&mut path).outcome.is_ok());
}

#[test]
fn a_flapping_port_is_up_and_down_in_turns() {
    let mut bench = Bench::new(SYSTEM);
    let mut path = bench.path("p0");
    bench.apply("port p0 flap 2s 1s 9s");
    let mut seen = Vec::new();
    for half in 0..24 {
        bench.now = Instant::ZERO + SECOND * half / 2 + MILLISECOND;
        seen.push(bench.read(&mut path, 0).outcome.is_ok());
    }
    let expected: Vec<_> = (0..24).map(|half| half >= 18 || half % 6 < 4).collect();
    assert_eq!(seen, expected);
    let events = events(&mut path, bench.now);
    assert_eq!(events, [DeviceEvent::LinkDown, DeviceEvent::LinkUp].repeat(3));
}

/// The history that a fence is for: an old write, held in one port, lands after a newer one that was
/// acknowledged over the other port.
#[test]
fn a_late_write_lands_over_a_newer_acknowledged_one() {
    let mut bench = Bench::new(SYSTEM);
    let (mut first, mut second) = (bench.path("p0"), bench.path("p2"));
    bench.apply("port p0 late 1:5s");
    bench.send_write(&mut first, 7, 1);
    // Given up on: it is not known whether it landed, and it is sent again.
    bench.now = bench.now + SECOND;
    assert!(first.poll(bench.now).is_none());
    assert!(bench.write(&mut second, 7, 1).outcome.is_ok());
    assert!(bench.write(&mut second, 7, 2).outcome.is_ok());
    assert_eq!(bench.content(7), 2);
    assert!(bench.next(&mut first).outcome.is_ok());
    assert_eq!(bench.now, Instant::ZERO + 5 * SECOND);
    assert_eq!(bench.content(7), 1, "acknowledged data is lost");
}

#[test]
fn several_late_copies_land_in_the_order_of_their_ports() {
    let mut bench = Bench::new(SYSTEM);
    let mut paths = [bench.path("p0"), bench.path("p1"), bench.path("p2")];
    for (port, time) in [("p0", "3s"), ("p1", "9s"), ("p2", "6s")] {
        bench.apply(&format!("port {port} late 1:{time}"));
    }
    for (path, value) in paths.iter_mut().zip(1..) {
        bench.send_write(path, 0, value);
    }
    drop(paths);
    let mut seen = Vec::new();
    for second in [2, 4, 7, 10] {
        bench.now = Instant::ZERO + SECOND * second;
        bench.system.advance(bench.now);
        seen.push(bench.content(0));
    }
    assert_eq!(seen, [0, 1, 3, 2]);
    let ghosts = bench.system.event_lines().iter().filter(|line| line.contains("as a ghost")).count();
    assert_eq!(ghosts, 3);
}

#[test]
fn a_write_outlives_the_path_that_was_dropped() {
    let mut bench = Bench::new(SYSTEM);
    let mut path = bench.path("p0");
    bench.apply("port p0 hang 5s");
    bench.send_write(&mut path, 3, 9);
    drop(path);
    assert_eq!(bench.content(3), 0);
    bench.system.advance(Instant::ZERO + 5 * SECOND);
    assert_eq!(bench.content(3), 9);
    let mut again = bench.path("p0");
    assert!(again.poll(Instant::ZERO + 5 * SECOND).is_none(), "nothing of the old opening comes to the new");
}

#[test]
fn a_lost_link_loses_answers_and_a_dead_port_what_it_held() {
    for (change, lands) in [("down", true), ("dead", false)] {
        let mut bench = Bench::new(SYSTEM);
        let mut path = bench.path("p0");
        bench.apply("port p0 late 1:5s");
        bench.send_write(&mut path, 0, 1);
        bench.apply(&format!("port p0 {change}"));
        let done = bench.next(&mut path);
        assert_eq!(error(&done), ErrorSource::ConnectionLost { sent: true });
        assert_eq!((done.effect, done.copy), (Effect::Unknown, CopyFate::MayLand));
        let done = bench.write(&mut path, 0, 2);
        assert_eq!(error(&done), ErrorSource::ConnectionLost { sent: false });
        assert_eq!((done.effect, done.copy), (Effect::None, CopyFate::Dead));
        assert_eq!(events(&mut path, bench.now), [DeviceEvent::LinkDown]);
        bench.apply("port p0 up");
        bench.apply("port p0 late 0:0s");
        assert_eq!(events(&mut path, bench.now), [DeviceEvent::LinkUp]);
        assert!(bench.write(&mut path, 0, 3).outcome.is_ok());
        bench.system.advance(Instant::ZERO + 6 * SECOND);
        assert_eq!(bench.content(0) == 1, lands, "{change}");
    }
}

#[test]
fn a_busy_port_says_so_and_does_nothing() {
    let mut bench = Bench::new(SYSTEM);
    let mut path = bench.path("p0");
    for (change, expected) in [("busy 1", 0x08), ("full 1", 0x28)] {
        bench.apply(&format!("port p0 {change}"));
        let done = bench.write(&mut path, 0, 1);
        assert!(matches!(error(&done), ErrorSource::Scsi { status, key: 0, .. } if status == expected));
        assert_eq!((done.effect, done.copy), (Effect::None, CopyFate::Dead));
        bench.apply("port p0 clear");
    }
    assert_eq!(bench.content(0), 0);
    // Two places in the port, and a disk that takes its time.
    bench.apply("disk d0 latency 1ms");
    bench.apply("port p0 queue 2");
    for _ in 0..3 {
        bench.send_write(&mut path, 0, 1);
    }
    let done = bench.next(&mut path);
    assert!(matches!(error(&done), ErrorSource::Scsi { status: 0x28, .. }));
    assert!(bench.next(&mut path).outcome.is_ok());
    assert!(bench.next(&mut path).outcome.is_ok());
    assert!(bench.write(&mut path, 0, 1).outcome.is_ok(), "there is room again");
}

#[test]
fn a_reset_loses_what_is_in_flight_and_some_of_it_lands() {
    let mut bench = Bench::new(SYSTEM);
    let mut path = bench.path("p0");
    bench.apply("port p0 latency 1s");
    for lba in 0..100 {
        bench.send_write(&mut path, lba, 1);
    }
    bench.apply("port p0 reset 0.5 3s");
    for _ in 0..100 {
        let done = bench.next(&mut path);
        assert_eq!(error(&done), ErrorSource::ConnectionLost { sent: true });
        assert_eq!((done.effect, done.copy), (Effect::Unknown, CopyFate::MayLand));
    }
    assert_eq!(bench.now, Instant::ZERO);
    assert_eq!(events(&mut path, bench.now), [DeviceEvent::LinkDown, DeviceEvent::LinkUp]);
    let landed = |bench: &Bench| (0..100).filter(|lba| bench.content(*lba) == 1).count();
    assert_eq!(landed(&bench), 0);
    bench.system.advance(bench.now + SECOND);
    let early = landed(&bench);
    bench.system.advance(bench.now + 3 * SECOND);
    let late = landed(&bench);
    assert!(early < late && (30..70).contains(&late), "{early} and {late}");
}

#[test]
fn the_end_of_a_nexus_proves_that_its_writes_are_dead() {
    let mut bench = Bench::new(SYSTEM);
    let mut path = bench.path("p0");
    bench.apply("disk d1 latency 2ms");
    // Block 4 lies on the slow disk; block 0 is held in the port.
    let with_disk = bench.send_write(&mut path, 4, 1);
    bench.apply("port p0 hang forever");
    let held = bench.send_write(&mut path, 0, 1);
    bench.apply("port p0 end-nexus");
    assert!(events(&mut path, bench.now).is_empty(), "the completions come first");
    for _ in 0..2 {
        assert_eq!(bench.next(&mut path).copy, CopyFate::MayLand);
    }
    let settled = |tag| DeviceEvent::Settled { tag, proof: SettledProof::NexusEnded };
    let bounce = [DeviceEvent::LinkDown, DeviceEvent::LinkUp];
    assert_eq!(events(&mut path, bench.now), [&bounce[..], &[settled(held)]].concat());
    bench.now = bench.now + 2 * MILLISECOND;
    assert_eq!(events(&mut path, bench.now), [settled(with_disk)]);
    assert_eq!((bench.content(0), bench.content(4)), (0, 1));
    bench.apply("port p0 resume");
    assert_eq!((bench.content(0), bench.content(4)), (0, 1), "what is settled does not land");
}

#[test]
fn a_change_of_one_path_leaves_the_others_of_its_port_alone() {
    let mut bench = Bench::new(SYSTEM);
    bench.apply("path host1/p0/v0 down");
    let mut this = bench.path("p0");
    let mut other = bench.system.path("host2", "p0", "v0").unwrap();
    assert_eq!(error(&bench.read(&mut this, 0)), ErrorSource::ConnectionLost { sent: false });
    assert!(bench.read(&mut other, 0).outcome.is_ok());
}

#[test]
fn what_waits_for_the_link_can_be_withdrawn() {
    let mut bench = Bench::new(SYSTEM);
    let mut path = bench.path("p0");
    bench.apply("port p0 rate 4MiB");
    let (first, second) = (bench.send_write(&mut path, 0, 1), bench.send_write(&mut path, 1, 2));
    assert!(matches!(path.cancel(bench.now, first), Cancelled::Requested));
    assert!(matches!(path.cancel(bench.now, second), Cancelled::Withdrawn(request) if request.tag == second));
    assert!(matches!(path.cancel(bench.now, second), Cancelled::NotHere));
    assert!(bench.next(&mut path).outcome.is_ok());
    bench.system.advance(bench.now + SECOND);
    assert_eq!((bench.content(0), bench.content(1)), (1, 0));
}

#[test]
fn a_schedule_of_the_description_starts_with_the_first_use() {
    let mut bench = Bench::new(&format!("{SYSTEM}\nat 1s port p0 down\nat 2s port p0 up"));
    bench.now = Instant(77_000_000_000);
    let start = bench.now;
    let mut path = bench.path("p0");
    for (time, is_up) in [(0, true), (999, true), (1000, false), (1999, false), (2000, true)] {
        bench.now = start + MILLISECOND * time;
        assert_eq!(bench.read(&mut path, 0).outcome.is_ok(), is_up, "{time} ms");
    }
}

#[test]
fn what_does_not_fit_together_is_refused_by_name() {
    for (text, part) in [
        ("disk d0 1MiB\ndisk d0 1MiB", "two physical disks `d0`"),
        ("disk d0 1000", "whole blocks"),
        ("disk d0 file:/x", "only disks in memory"),
        ("port p0 group=g0", "`group g0`"),
        ("group p0\nport p0", "two target port groups `p0`"),
        ("volume v0 concatenated", "d0@0+16MiB"),
        ("volume v0 concatenated d0@0+1MiB", "no physical disk `d0`"),
        ("disk d0 1MiB\nvolume v0 concatenated d0@4KiB+1MiB", "256 blocks"),
        ("disk d0 1MiB\nvolume v0 concatenated d0@0+8KiB d0@4KiB+8KiB", "share"),
        ("disk d0 1MiB\nvolume v0 concatenated d0@0+8KiB\nvolume v1 concatenated d0@4KiB+8KiB", "`v0`"),
        ("disk d0 1MiB\nvolume v0 striped unit=12KiB d0@0+16KiB", "multiple of the unit"),
        ("port p0\naccess p0/v0 standby", "logical volume `v0`"),
        ("at 1s port p9 down", "no port `p9`"),
    ] {
        let error = StorageSystem::new(&text.parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    let bench = Bench::new(SYSTEM);
    let error = bench.system.path("host1", "p9", "v0").unwrap_err().to_string();
    assert!(error.contains("p0, p1, p2"), "{error}");
}

#[test]
fn the_description_shows_the_states_of_now() {
    let bench = Bench::new(SYSTEM);
    bench.apply("access g1/v0 standby");
    let shown = bench.system.description();
    assert!(shown.to_string().contains("access g1/v0 standby"));
    assert_eq!(shown.to_string().parse(), Ok(shown));
}

/// Two initiators with several requests in flight over all ports, under a random schedule.
fn stormy_run(seed: u64) -> (u64, u64) {
    let system = system(SYSTEM);
    let parts = Parts {
        ports: ["p0", "p1", "p2"].map(str::to_owned).to_vec(),
        groups: ["g0", "g1"].map(str::to_owned).to_vec(),
        volumes: vec!["v0".to_owned()],
    };
    let schedule = Schedule::random(seed, &parts, 10 * SECOND, 40);
    system.run(Instant::ZERO, &schedule).unwrap();
    let mut paths = Vec::new();
    for initiator in ["host1", "host2"] {
        paths.extend(["p0", "p1", "p2"].map(|port| system.path(initiator, port, "v0").unwrap()));
    }
    let mut numbers = Numbers(seed);
    let (mut now, mut tag) = (Instant::ZERO, 0);
    while now < Instant::ZERO + 11 * SECOND {
        for path in &mut paths {
            tag += 1;
            let lba = Lba(numbers.below(200));
            let request = if numbers.below(2) == 0 {
                IoRequest::read(IoTag(tag), lba, Buffer::zeroed(8192))
            } else {
                IoRequest::write(IoTag(tag), lba, Buffer::zeroed(8192).freeze(), false)
            };
            if let Err(refused) = path.submit(now, request) {
                assert_eq!(refused.reason, RefusalReason::Busy);
            }
            while let Some(done) = path.poll(now) {
                assert!(done.tag.0 <= tag);
            }
            while path.poll_event(now).is_some() {}
        }
        now = now + Duration::from_micros(500 + numbers.below(20_000));
    }
    (system.event_hash(), system.event_count())
}

#[test]
fn the_same_seed_gives_the_same_events_a_hundred_times() {
    let (hash, count) = stormy_run(42);
    assert!(count > 5_000, "{count}");
    assert!((1..100).all(|_| stormy_run(42) == (hash, count)));
    assert_ne!(stormy_run(43).0, hash);
}

#[test]
fn events_can_be_read() {
    let mut bench = Bench::new(SYSTEM);
    let mut path = bench.path("p0");
    bench.apply("port p0 late 1:1ms");
    assert!(bench.write(&mut path, 7, 1).outcome.is_ok());
    let expected = [
        "0.000000 s port p0 late 1:1ms",
        "0.000000 s host1/p0/v0 #1 write block 7, 4096 B",
        "0.000000 s host1/p0/v0 #1 held in the port until 0.001000 s",
        "0.001000 s host1/p0/v0 #1 landed on block 7, 4096 B",
        "0.001000 s host1/p0/v0 #1 done",
    ];
    assert_eq!(bench.system.event_lines(), expected);
    bench.system.keep_event_lines(2);
    assert_eq!(bench.system.event_lines(), expected[3..]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Without faults, all paths together are one disk.
    #[test]
    fn without_faults_it_is_a_disk(seed in any::<u64>()) {
        let mut bench = Bench::new(SYSTEM);
        bench.apply("port p1 latency 1ms");
        bench.apply("disk d1 latency 2ms");
        let mut paths: Vec<_> = ["p0", "p1", "p2"].map(|port| bench.path(port)).into();
        let mut numbers = Numbers(seed);
        let mut model: HashMap<u64, u8> = HashMap::new();
        for _ in 0..60 {
            let path = &mut paths[usize::try_from(numbers.below(3)).unwrap()];
            let count = 1 + numbers.below(12);
            let start = numbers.below(256 - count);
            let length = usize::try_from(count).unwrap() * 4096;
            let tag = bench.tag();
            if numbers.below(2) == 0 {
                let value = u8::try_from(numbers.below(256)).unwrap();
                let data = Buffer::copy_of(&vec![value; length]).freeze();
                model.extend((start..start + count).map(|block| (block, value)));
                path.submit(bench.now, IoRequest::write(tag, Lba(start), data, false)).unwrap();
                assert!(bench.next(path).outcome.is_ok());
            } else {
                path.submit(bench.now, IoRequest::read(tag, Lba(start), Buffer::zeroed(length))).unwrap();
                let done = bench.next(path);
                let bytes = done.buffer.into_read().unwrap();
                for (block, content) in (start..).zip(bytes.chunks_exact(4096)) {
                    let value = model.get(&block).copied().unwrap_or(0);
                    assert!(content.iter().all(|byte| *byte == value), "block {block}");
                }
            }
        }
    }

    /// Whatever happens, each request ends at most once, and all do once everything is healed.
    #[test]
    fn every_request_ends_once_all_is_healed(seed in any::<u64>()) {
        let mut bench = Bench::new(SYSTEM);
        let parts = Parts {
            ports: ["p0", "p1", "p2"].map(str::to_owned).to_vec(),
            groups: ["g0", "g1"].map(str::to_owned).to_vec(),
            volumes: vec!["v0".to_owned()],
        };
        bench.system.run(Instant::ZERO, &Schedule::random(seed, &parts, 2 * SECOND, 30)).unwrap();
        let mut path = bench.path("p0");
        let mut open = std::collections::HashSet::new();
        let mut numbers = Numbers(seed);
        for _ in 0..200 {
            let tag = if numbers.below(2) == 0 {
                bench.send_write(&mut path, numbers.below(64), 1)
            } else {
                bench.send_read(&mut path, numbers.below(64))
            };
            open.insert(tag);
            let until = bench.now + Duration::from_millis(numbers.below(15));
            for done in bench.drain(&mut path, until) {
                assert!(open.remove(&done.tag), "{:?} twice", done.tag);
                assert!(done.effect != Effect::None || done.copy == CopyFate::Dead);
            }
        }
        let until = bench.now + 10 * SECOND;
        for done in bench.drain(&mut path, until) {
            assert!(open.remove(&done.tag), "{:?} twice", done.tag);
        }
        assert!(open.is_empty(), "{open:?} never ended");
    }
}

/// The same faults on real data in real time: disks behind threads, a clock.
#[test]
fn it_works_in_real_time_over_real_files() {
    use storage_mapping::device::{OpenFile, ThreadedDevice};
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let mut open = |_: &str| {
        let device = ThreadedDevice::new(OpenFile::open(file.path(), None).unwrap()).unwrap();
        Ok(Box::new(device) as Box<dyn BlockDevice>)
    };
    let text = "disk d0 file:x\nport p0 latency=2ms\nvolume v0 concatenated d0@0+1MiB";
    let system = StorageSystem::with_devices(&text.parse().unwrap(), &mut open).unwrap();
    let mut path = system.path("host1", "p0", "v0").unwrap();
    let clock = std::time::Instant::now();
    let now = || Instant::ZERO + clock.elapsed();
    let start = now();
    system.apply(now(), &"port p0 hang 20ms".parse().unwrap()).unwrap();
    let data = Buffer::copy_of(&[9; 4096]).freeze();
    path.submit(now(), IoRequest::write(IoTag(1), Lba(3), data, true)).unwrap();
    let done = loop {
        let wakeup = path.next_wakeup();
        let time = wakeup.map_or(MILLISECOND, |at| at.since(now()).min(MILLISECOND));
        std::thread::sleep(time);
        if let Some(done) = path.poll(now()) {
            break done;
        }
    };
    assert!(done.outcome.is_ok());
    assert!(now().since(start) >= 20 * MILLISECOND);
    let written = std::fs::read(file.path()).unwrap();
    assert!(written[3 * 4096..4 * 4096].iter().all(|byte| *byte == 9));
}

/// Its descriptors and wake-ups are enough for a loop that waits.
#[test]
fn a_path_is_driven_like_any_device() {
    let system = system(SYSTEM);
    let mut path = system.path("host1", "p0", "v0").unwrap();
    system.apply(Instant::ZERO, &"port p0 latency 5ms".parse().unwrap()).unwrap();
    let mut driver = support::Driver::new(&mut path);
    assert!(driver.run(IoRequest::flush(IoTag(1))).outcome.is_ok());
    assert_eq!(driver.now, Instant::ZERO + 5 * MILLISECOND);
}
