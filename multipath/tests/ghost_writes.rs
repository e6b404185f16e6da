//! Old copies of writes that land late, under every fence policy.
//!
//! Path A hangs after it has taken the first write and lets it go later: a true ghost, on the same disk. Path B is
//! well. Not here: the promises of the fence alone (`fence`).

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

use std::time::Duration;

use multipath::{FailoverConfig, MultipathDevice};
use storage_mapping::device::{FaultControl, Faults, FaultyDevice, Hang, MemoryDisk};
use storage_mapping::{
    BlockCount, BlockDevice, BlockSize, Buffer, Cancelled, CopyFate, DeviceEvent, Effect, ErrorSource,
    FencePolicy, Instant, IoCompletion, IoRequest, IoTag, Lba, PathIndex, RefusalReason, SettledProof,
};

const BLOCK: usize = 512;
const A: PathIndex = PathIndex(0);
const B: PathIndex = PathIndex(1);

/// A device, its disk, and the faults of path A.
struct World {
    device: MultipathDevice,
    disk: MemoryDisk,
    path_a: FaultControl,
    now: Instant,
    events: Vec<DeviceEvent>,
}

impl World {
    /// Path A lets go of what it has after `hang`, or never.
    fn new(hang: Option<Duration>) -> Self {
        Self::with_config(hang, FailoverConfig::default())
    }

    fn with_config(hang: Option<Duration>, config: FailoverConfig) -> Self {
        let disk = MemoryDisk::new(BlockSize::B512, BlockCount(64));
        let hangs = Faults { hang: Hang::After { requests: 0, duration: hang }, ..Faults::default() };
        let path_a = FaultyDevice::new(disk.device(), hangs, 1);
        let control = path_a.control();
        let paths: Vec<Box<dyn BlockDevice>> = vec![Box::new(path_a), Box::new(disk.device())];
        let device = MultipathDevice::new(paths, config).unwrap();
        Self { device, disk, path_a: control, now: Instant::ZERO, events: Vec::new() }
    }

    fn submit(&mut self, request: IoRequest) {
        self.device.submit(self.now, request).unwrap();
    }

    /// What completes until then, with its time.
    fn run_until(&mut self, end: Duration) -> Vec<(Duration, IoCompletion)> {
        let end = Instant::ZERO + end;
        let mut done = Vec::new();
        loop {
            while let Some(completion) = self.device.poll(self.now) {
                done.push((self.now.since(Instant::ZERO), completion));
            }
            self.events.extend(std::iter::from_fn(|| self.device.poll_event(self.now)));
            match self.device.next_wakeup() {
                Some(at) if at <= end => self.now = at.max(self.now),
                _ => break,
            }
        }
        self.now = end;
        done
    }

    /// What lies on the disk, not over any path.
    fn on_disk(&self, lba: u64) -> u8 {
        let mut device = self.disk.device();
        device.submit(Instant::ZERO, read(0, lba)).unwrap();
        device.poll(Instant::ZERO).unwrap().buffer.into_read().unwrap()[0]
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Blocks from `lba` on; over path A where it may choose.
fn write(tag: u64, lba: u64, value: u8, fence: FencePolicy) -> IoRequest {
    let data = Buffer::copy_of(&[value; BLOCK]).freeze();
    IoRequest { fence, ..IoRequest::write(IoTag(tag), Lba(lba), data, false) }
}

fn read(tag: u64, lba: u64) -> IoRequest {
    IoRequest::read(IoTag(tag), Lba(lba), Buffer::zeroed(BLOCK))
}

/// Tag, whether it was done, and the second in which it came.
fn summary(done: &[(Duration, IoCompletion)]) -> Vec<(u64, bool, u64)> {
    done.iter().map(|(at, done)| (done.tag.0, done.outcome.is_ok(), at.as_secs())).collect()
}

#[test]
fn without_a_fence_an_old_copy_lands_on_acknowledged_data() {
    let mut world = World::new(Some(seconds(20)));
    world.submit(write(1, 7, 1, FencePolicy::Unsafe));
    assert_eq!(summary(&world.run_until(seconds(6))), [(1, true, 5)]);
    world.submit(write(2, 7, 2, FencePolicy::Unsafe));
    assert_eq!(summary(&world.run_until(seconds(7))), [(2, true, 6)]);
    assert_eq!(world.on_disk(7), 2);
    world.run_until(seconds(25));
    assert_eq!(world.on_disk(7), 1, "this is the harm that the fence is for");
    let proof = SettledProof::Response;
    assert_eq!(world.events, [DeviceEvent::Settled { tag: IoTag(1), proof }]);
}

#[test]
fn the_fence_holds_the_next_write_until_the_old_copy_has_landed() {
    let mut world = World::new(Some(seconds(20)));
    world.submit(write(1, 7, 1, FencePolicy::Fence));
    assert_eq!(summary(&world.run_until(seconds(6))), [(1, true, 5)], "it is not held itself");
    let copies = world.device.living_copies();
    assert_eq!((copies.len(), copies[0].tag, copies[0].path), (1, IoTag(1), A));
    world.submit(write(2, 7, 2, FencePolicy::Fence));
    world.submit(write(3, 8, 3, FencePolicy::Fence));
    world.submit(read(4, 7));
    let done = world.run_until(seconds(19));
    assert_eq!(summary(&done), [(3, true, 6), (4, true, 6)], "others and reads pass");
    assert_eq!((world.device.held_writes(), world.on_disk(7)), (1, 1));
    assert_eq!(summary(&world.run_until(seconds(29))), [(2, true, 20)]);
    assert_eq!((world.on_disk(7), world.device.held_writes()), (2, 0));
    assert!(world.device.living_copies().is_empty());
}

#[test]
fn a_copy_that_never_comes_back_is_assumed_dead_after_its_quiesce_time() {
    let mut world = World::new(None);
    world.submit(write(1, 7, 1, FencePolicy::Fence));
    world.run_until(seconds(6));
    world.submit(write(2, 7, 2, FencePolicy::Fence));
    assert_eq!(summary(&world.run_until(seconds(100))), [(2, true, 35)], "5 s to give up, 30 s to be still");
    let proof = SettledProof::AssumedDead;
    assert_eq!(world.events, [DeviceEvent::Settled { tag: IoTag(1), proof }]);
    // The assumption was wrong: it lands when the path answers, and that is counted.
    assert_eq!((world.on_disk(7), world.device.late_landings()), (2, 0));
    world.path_a.clear();
    world.run_until(seconds(110));
    assert_eq!((world.on_disk(7), world.device.late_landings()), (1, 1));
}

#[test]
fn wait_answers_only_when_no_old_copy_can_land() {
    let mut world = World::new(Some(seconds(20)));
    world.submit(write(1, 7, 1, FencePolicy::Wait));
    assert_eq!(summary(&world.run_until(seconds(19))), []);
    assert_eq!(world.on_disk(7), 1, "it was sent again at once");
    let done = world.run_until(seconds(21));
    assert_eq!(summary(&done), [(1, true, 20)]);
    assert_eq!((done[0].1.effect, done[0].1.copy), (Effect::Full, CopyFate::Dead));
}

#[test]
fn wait_past_the_deadline_says_that_it_is_done_and_a_copy_may_land() {
    let mut world = World::new(None);
    let deadline = Some(Instant::ZERO + seconds(10));
    world.submit(IoRequest { deadline, ..write(1, 7, 1, FencePolicy::Wait) });
    let done = world.run_until(seconds(11));
    assert_eq!(summary(&done), [(1, false, 10)]);
    assert_eq!((done[0].1.effect, done[0].1.copy), (Effect::Full, CopyFate::MayLand));
    world.run_until(seconds(100));
    assert_eq!(world.events.len(), 1);
}

#[test]
fn fail_answers_that_nobody_knows_and_later_writes_are_held() {
    let mut world = World::new(Some(seconds(20)));
    world.submit(write(1, 7, 1, FencePolicy::Fail));
    let done = world.run_until(seconds(6));
    assert_eq!(summary(&done), [(1, false, 5)]);
    assert_eq!((done[0].1.effect, done[0].1.copy), (Effect::Unknown, CopyFate::MayLand));
    assert_eq!(world.on_disk(7), 0, "it is not sent again");
    world.submit(write(2, 7, 2, FencePolicy::Fail));
    assert_eq!(summary(&world.run_until(seconds(30))), [(2, true, 20)]);
    assert_eq!(world.on_disk(7), 2);
}

#[test]
fn a_copy_of_an_unsafe_write_holds_a_fenced_one() {
    let mut world = World::new(Some(seconds(20)));
    world.submit(write(1, 7, 1, FencePolicy::Unsafe));
    world.run_until(seconds(6));
    world.submit(write(2, 7, 2, FencePolicy::Fence));
    assert_eq!(summary(&world.run_until(seconds(30))), [(2, true, 20)]);
    assert_eq!(world.on_disk(7), 2);
}

#[test]
fn a_held_write_that_may_wait_no_longer_was_not_executed() {
    let mut world = World::new(None);
    world.submit(write(1, 7, 1, FencePolicy::Fence));
    world.run_until(seconds(6));
    let deadline = Some(Instant::ZERO + seconds(10));
    world.submit(IoRequest { deadline, ..write(2, 7, 2, FencePolicy::Fence) });
    world.submit(write(3, 7, 3, FencePolicy::Fence));
    let done = world.run_until(seconds(11));
    assert_eq!(summary(&done), [(2, false, 10)]);
    assert_eq!(done[0].1.outcome.unwrap_err().source_code, ErrorSource::Deadline);
    assert_eq!((done[0].1.effect, done[0].1.copy), (Effect::None, CopyFate::Dead));
    assert!(matches!(world.device.cancel(world.now, IoTag(3)), Cancelled::Withdrawn(_)));
    assert_eq!((world.device.held_writes(), world.on_disk(7)), (0, 1));
}

#[test]
fn a_write_in_flight_makes_the_next_one_to_its_blocks_wait() {
    let mut world = World::new(Some(seconds(2)));
    // Both could be on different paths at once, and land in either order.
    world.submit(write(1, 7, 1, FencePolicy::Fence));
    world.submit(IoRequest { path: Some(B), ..write(2, 7, 2, FencePolicy::Fence) });
    assert_eq!((world.run_until(seconds(1)).len(), world.device.held_writes()), (0, 1));
    assert_eq!(summary(&world.run_until(seconds(3))), [(1, true, 2), (2, true, 2)]);
    assert_eq!(world.on_disk(7), 2);
}

#[test]
fn bytes_of_hung_paths_are_counted_and_bounded() {
    let config = FailoverConfig { quarantine_max_bytes: 2 * BLOCK, ..FailoverConfig::default() };
    let mut world = World::with_config(None, config);
    for tag in 1..3 {
        world.submit(IoRequest { path: Some(A), ..read(tag, tag) });
    }
    assert_eq!(summary(&world.run_until(seconds(6))), [(1, false, 5), (2, false, 5)]);
    assert_eq!(world.device.status()[A.0].quarantined_bytes, 2 * BLOCK);
    let refused = world.device.submit(world.now, read(3, 3)).unwrap_err();
    assert_eq!(refused.reason, RefusalReason::Busy);
    world.path_a.clear();
    world.run_until(seconds(7));
    assert_eq!(world.device.status()[A.0].quarantined_bytes, 0);
    world.submit(read(3, 3));
    assert_eq!(world.run_until(seconds(8)).len(), 1);
}

#[test]
fn copies_that_were_living_at_the_end_hold_writes_after_a_restart() {
    let mut before = World::new(Some(seconds(20)));
    before.submit(write(1, 7, 1, FencePolicy::Fence));
    before.run_until(seconds(6));
    let copies = before.device.living_copies();
    assert_eq!((copies.len(), copies[0].assumed_dead_at), (1, Instant::ZERO + seconds(35)));

    // Another process opens the same disk, and does not hear what becomes of the copy.
    let mut after = World::new(None);
    after.device =
        MultipathDevice::new(vec![Box::new(before.disk.device())], FailoverConfig::default()).unwrap();
    after.run_until(seconds(6));
    after.device.inherit_copies(after.now, copies.clone());
    for (tag, lba, fence) in
        [(2, 7, FencePolicy::Fence), (3, 8, FencePolicy::Fence), (4, 7, FencePolicy::Unsafe)]
    {
        after.submit(write(tag, lba, 2, fence));
    }
    assert_eq!(summary(&after.run_until(seconds(34))), [(3, true, 6), (4, true, 6)]);
    assert_eq!((after.device.held_writes(), after.device.living_copies().len()), (1, 1));
    // It lands over what was written meanwhile without a fence.
    before.run_until(seconds(34));
    assert_eq!(before.on_disk(7), 1);
    assert_eq!(summary(&after.run_until(seconds(36))), [(2, true, 35)]);
    assert_eq!((before.on_disk(7), after.device.living_copies().len()), (2, 0));
    assert_eq!(after.events, [], "nobody here has sent it");

    // Once its time is over it holds nothing.
    after.device.inherit_copies(after.now, copies);
    after.submit(write(5, 7, 3, FencePolicy::Fence));
    assert_eq!(summary(&after.run_until(seconds(37))), [(5, true, 36)]);
}
