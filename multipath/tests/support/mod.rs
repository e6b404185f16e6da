//! What tests of the multipath device share: paths with faults on one disk in memory, requests, and virtual time.

#![allow(dead_code, reason = "each test takes what it needs")]

use multipath::{FailoverConfig, MultipathDevice, PathConfig, PathSelector, RoundRobin};
use storage_mapping::device::{FaultControl, Faults, FaultyDevice, Hang, MemoryDisk};
use storage_mapping::{
    BlockCount, BlockDevice, BlockSize, Buffer, FencePolicy, Instant, IoCompletion, IoRequest, IoTag, Lba,
};

pub(crate) const BLOCK: usize = 512;

pub(crate) fn disk() -> MemoryDisk {
    MemoryDisk::new(BlockSize::B512, BlockCount(256))
}

/// A device over one path for each set of faults, with the handles that change them.
pub(crate) fn device_over(disk: &MemoryDisk, faults: Vec<Faults>) -> (Device, Vec<FaultControl>) {
    let mut controls = Vec::new();
    let mut paths: Vec<Box<dyn BlockDevice>> = Vec::new();
    for (seed, faults) in (1..).zip(faults) {
        let path = FaultyDevice::new(disk.device(), faults, seed);
        controls.push(path.control());
        paths.push(Box::new(path));
    }
    (taking_turns(paths), controls)
}

/// The device of most tests: its paths take turns, so that it is known which one a request meets.
pub(crate) type Device = MultipathDevice<RoundRobin>;

pub(crate) fn taking_turns(paths: Vec<Box<dyn BlockDevice>>) -> Device {
    let paths = paths.into_iter().map(|path| (PathConfig::default(), path)).collect();
    MultipathDevice::with_selector(paths, RoundRobin::default(), FailoverConfig::default()).unwrap()
}

pub(crate) fn always(error: f64) -> Faults {
    Faults { error, ..Faults::default() }
}

pub(crate) fn hung() -> Faults {
    Faults { hang: Hang::After { requests: 0, duration: None }, ..Faults::default() }
}

pub(crate) fn write(tag: u64, lba: u64, value: u8) -> IoRequest {
    let data = Buffer::copy_of(&[value; BLOCK]).freeze();
    IoRequest { fence: FencePolicy::Unsafe, ..IoRequest::write(IoTag(tag), Lba(lba), data, false) }
}

pub(crate) fn read(tag: u64, lba: u64) -> IoRequest {
    IoRequest::read(IoTag(tag), Lba(lba), Buffer::zeroed(BLOCK))
}

/// Polls, and jumps to the next wake-up where nothing comes.
pub(crate) fn next<S: PathSelector>(device: &mut MultipathDevice<S>, now: &mut Instant) -> IoCompletion {
    for _ in 0..10_000 {
        if let Some(done) = device.poll(*now) {
            return done;
        }
        while device.poll_event(*now).is_some() {}
        let wakeup = device.next_wakeup().expect("a device with requests wants to be called");
        *now = wakeup.max(*now);
    }
    panic!("the device never completes");
}

pub(crate) fn run<S: PathSelector>(
    device: &mut MultipathDevice<S>,
    now: &mut Instant,
    request: IoRequest,
) -> IoCompletion {
    let tag = request.tag;
    device.submit(*now, request).unwrap();
    let done = next(device, now);
    assert_eq!(done.tag, tag);
    done
}

/// Polls until the device wants nothing more at this time.
pub(crate) fn settle<S: PathSelector>(device: &mut MultipathDevice<S>, now: Instant) {
    for _ in 0..1000 {
        assert!(device.poll(now).is_none());
        while device.poll_event(now).is_some() {}
        if device.next_wakeup().is_none_or(|at| at > now) {
            return;
        }
    }
    panic!("the device comes to no rest");
}
