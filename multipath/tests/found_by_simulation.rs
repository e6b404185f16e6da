//! What random fault schedules found in the device (`multipath_swarm` in the package of system tests), each in its
//! shortest form.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

use std::time::Duration;

use multipath::hedge::HedgeConfig;
use multipath::{FailoverConfig, MultipathDevice};
use storage_mapping::device::StorageSystem;
use storage_mapping::{
    BlockDevice, Buffer, CopyFate, DeviceEvent, FencePolicy, Instant, IoCompletion, IoRequest, IoTag, Lba,
    PathIndex, SettledProof,
};

const BLOCK: usize = 4096;

struct World {
    device: MultipathDevice,
    now: Instant,
    done: Vec<(Duration, IoCompletion)>,
    events: Vec<(Duration, DeviceEvent)>,
}

impl World {
    /// A path through each of `ports` ports to one disk, to which happens what `faults` says.
    fn new(ports: usize, faults: &str, config: FailoverConfig) -> Self {
        let names: Vec<String> = (0..ports).map(|port| format!("p{port}")).collect();
        let mut text = "disk d0 1MiB latency=100us\nvolume v0 concatenated d0@0+1MiB\n".to_owned();
        names.iter().for_each(|name| text.push_str(&format!("port {name}\n")));
        let system = StorageSystem::new(&(text + faults).parse().unwrap()).unwrap();
        let path = |name: &String| Box::new(system.path("h", name, "v0").unwrap()) as Box<dyn BlockDevice>;
        let device = MultipathDevice::new(names.iter().map(path).collect(), config).unwrap();
        Self { device, now: Instant::ZERO, done: Vec::new(), events: Vec::new() }
    }

    fn run_until(&mut self, end: Duration) {
        let end = Instant::ZERO + end;
        loop {
            let at = self.now.since(Instant::ZERO);
            while let Some(done) = self.device.poll(self.now) {
                self.done.push((at, done));
            }
            while let Some(event) = self.device.poll_event(self.now) {
                self.events.push((at, event));
            }
            match self.device.next_wakeup() {
                Some(next) if next <= end => self.now = next.max(self.now),
                _ => break,
            }
        }
        self.now = end;
    }

    /// The whole second in which each request was done.
    fn seconds(&self) -> Vec<(u64, u64)> {
        self.done.iter().map(|(at, done)| (done.tag.0, at.as_secs())).collect()
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn write(tag: u64) -> IoRequest {
    IoRequest::write(IoTag(tag), Lba(0), Buffer::zeroed(BLOCK).freeze(), false)
}

/// It told of every copy, so that the first one was taken for the last.
#[test]
fn a_write_with_two_living_copies_is_settled_once_when_the_last_is_dead() {
    let faults = "at 0s port p0 hang 20s\nat 0s port p1 hang 25s";
    for fence in [FencePolicy::Fence, FencePolicy::Unsafe] {
        let mut world = World::new(3, faults, FailoverConfig::default());
        world.device.submit(world.now, IoRequest { fence, ..write(1) }).unwrap();
        world.run_until(seconds(40));
        assert_eq!(world.seconds(), [(1, 10)], "after two time-outs of 5 s");
        assert_eq!(world.done[0].1.copy, CopyFate::MayLand);
        let settled = DeviceEvent::Settled { tag: IoTag(1), proof: SettledProof::Response };
        let told: Vec<_> = world.events.iter().map(|(at, event)| (at.as_secs(), *event)).collect();
        assert_eq!(told, [(25, settled)]);
    }
}

/// It said that a copy may land although all were dead, and the event had come before the answer.
#[test]
fn a_copy_that_is_dead_when_its_write_ends_is_not_told_of() {
    // The first path answers in second 7, while the second attempt is on its way.
    let faults = "at 0s port p0 hang 7s\nat 0s port p1 hang 9s";
    let mut world = World::new(2, faults, FailoverConfig::default());
    world.device.submit(world.now, write(1)).unwrap();
    world.run_until(seconds(40));
    assert_eq!(world.seconds(), [(1, 9)]);
    assert_eq!((world.done[0].1.copy, &world.events[..]), (CopyFate::Dead, &[][..]));
}

/// The second flush found no path dirty, and was done before the first.
#[test]
fn a_flush_does_not_rely_on_one_that_is_on_its_way() {
    let mut world = World::new(2, "at 1s port p0 hang 3s", FailoverConfig::default());
    world.device.submit(world.now, write(1)).unwrap();
    world.run_until(seconds(2));
    assert_eq!(world.device.status()[0].requests, 1, "the write went over the path that hangs now");
    world.device.submit(world.now, IoRequest::flush(IoTag(2))).unwrap();
    world.device.submit(world.now, IoRequest::flush(IoTag(3))).unwrap();
    world.run_until(seconds(10));
    assert_eq!(world.seconds(), [(1, 0), (2, 4), (3, 4)]);
    // Nothing was written since: any path will do.
    world.device.submit(world.now, IoRequest::flush(IoTag(4))).unwrap();
    world.run_until(seconds(11));
    assert_eq!(world.seconds().last(), Some(&(4, 10)));
    let requests: Vec<u64> = world.device.status().iter().map(|path| path.requests).collect();
    assert_eq!(requests, [3, 1]);
}

/// The second copy of a hedged read was not counted against the number of attempts.
#[test]
fn a_hedge_is_an_attempt() {
    for (attempts_max, hedges) in [(1, 0), (2, 1)] {
        let hedge = HedgeConfig { enabled: true, delay_percent: 200, ..HedgeConfig::default() };
        let config = FailoverConfig { attempts_max, hedge, ..FailoverConfig::default() };
        let mut world = World::new(2, "at 1s port p0 hang 1s", config);
        let reads = 400_u64;
        for tag in 0..reads {
            // The last two, one over each path, when one of them hangs.
            let at = if tag < reads - 2 { Duration::from_millis(tag) } else { seconds(1) };
            world.run_until(at);
            let read = IoRequest::read(IoTag(tag), Lba(tag % 256), Buffer::zeroed(BLOCK));
            world.device.submit(world.now, IoRequest { hedge: true, ..read }).unwrap();
        }
        world.run_until(seconds(3));
        assert_eq!(world.done.len() as u64, reads);
        let sent: u64 = world.device.status().iter().map(|path| path.requests).sum();
        assert_eq!(sent, reads + hedges);
    }
}

/// One path could not flush, and before that was reported another flush succeeded without it.
#[test]
fn no_flush_succeeds_between_a_failure_and_its_report() {
    let faults = "at 1s port p0 hang 9s\nat 1s port p1 hang 9s\nat 3s port p1 down";
    let mut world = World::new(2, faults, FailoverConfig::default());
    for tag in [1, 2] {
        world
            .device
            .submit(world.now, IoRequest { path: Some(PathIndex(tag - 1)), ..write(tag as u64) })
            .unwrap();
        world.run_until(Duration::from_millis(100 * tag as u64));
    }
    world.run_until(seconds(2));
    world.device.submit(world.now, IoRequest::flush(IoTag(3))).unwrap();
    world.run_until(seconds(4));
    // One part of it has failed, the other one hangs.
    world.device.submit(world.now, IoRequest::flush(IoTag(4))).unwrap();
    world.run_until(seconds(20));
    let outcomes: Vec<_> =
        world.done[2..].iter().map(|(_, done)| (done.tag.0, done.outcome.is_ok())).collect();
    assert_eq!(outcomes, [(3, false), (4, false)]);
}

/// A write was done, a flush failed, and then the write was answered: the next flush said nothing of it.
#[test]
fn a_write_that_is_answered_after_a_flush_failed_is_flushed_again() {
    let faults = "at 0s port p0 hang 20s\nat 6s port p1 hang 34s";
    let mut world = World::new(2, faults, FailoverConfig::default());
    world.device.submit(world.now, IoRequest { fence: FencePolicy::Wait, ..write(1) }).unwrap();
    world.run_until(seconds(7));
    // Done over the second path; its answer waits for the copy on the first.
    world.device.submit(world.now, IoRequest::flush(IoTag(2))).unwrap();
    world.run_until(seconds(38));
    assert_eq!(world.seconds(), [(1, 20), (2, 37)]);
    assert!(world.done[1].1.outcome.is_err(), "the flush took too long");
    world.device.submit(world.now, IoRequest::flush(IoTag(3))).unwrap();
    world.run_until(seconds(50));
    let last = &world.done[2].1;
    assert!(last.outcome.is_err(), "the path that has the write is out of use: {last:?}");
}

/// Every path was probed again and again at one moment, each failed probe being an event of its own.
#[test]
fn a_target_that_is_gone_is_probed_at_its_interval() {
    for ports in 2..6 {
        let faults: String = (0..ports).map(|port| format!("at 1s port p{port} down\n")).collect();
        let mut world = World::new(ports, &faults, FailoverConfig::default());
        world.run_until(seconds(2));
        for tag in 0..8 {
            let read = IoRequest::read(IoTag(tag), Lba(tag), Buffer::zeroed(BLOCK));
            world.device.submit(world.now, read).unwrap();
        }
        let (mut polls, end) = (0, world.now + seconds(10));
        while world.device.next_wakeup().is_some_and(|at| at <= end) {
            polls += 1;
            assert!(polls < 200 * ports, "{ports} paths: {polls} polls for 10 probes a path");
            world.now = world.now.max(world.device.next_wakeup().unwrap());
            while world.device.poll(world.now).is_some() {}
            while world.device.poll_event(world.now).is_some() {}
        }
    }
}
