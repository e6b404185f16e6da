//! One set of checks, the contract of `BlockDevice`, over every device of this crate.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

#[path = "support/nbd.rs"]
mod nbd;
#[path = "support/programs.rs"]
mod programs;
mod support;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use programs::{Program, skip};
use storage_mapping::device::recording::Follow;
use storage_mapping::device::{
    Faults, FaultyDevice, MemoryDisk, NbdDevice, NbdSettings, OpenFile, Recorder, Recording, ReplayDevice,
    StorageSystem, ThreadedDevice, UringDevice,
};
use storage_mapping::{
    BlockCount, BlockDevice, BlockSize, Buffer, Cancelled, Effect, Instant, IoRequest, IoTag, Lba,
    RefusalReason,
};
use support::{Driver, Numbers};

/// Runs every check on fresh devices over the same storage.
fn contract(open: &dyn Fn() -> Box<dyn BlockDevice>) {
    data_comes_back(&mut *open());
    refusals_give_the_request_back(&mut *open());
    each_request_completes_once(&mut *open());
    cancel_withdraws_or_completes(&mut *open());
    drop_with_requests_in_flight(open());
    data_comes_back(&mut *open());
}

/// Random writes, reads and flushes against a model, several in flight.
fn data_comes_back(device: &mut dyn BlockDevice) {
    let geometry = device.geometry();
    let size = geometry.block_size.bytes();
    let mut numbers = Numbers(42);
    let mut model: HashMap<u64, u8> = HashMap::new();
    let mut driver = Driver::new(device);
    for round in 0..60_u64 {
        // Disjoint lanes, so that nothing in flight overlaps.
        let lanes = 4.min(geometry.queue_depth as u64);
        let lane_blocks = geometry.block_count.0.min(256) / lanes;
        let mut reads = HashMap::new();
        for lane in 0..lanes {
            let count = 1 + numbers.below(lane_blocks.min(8));
            let start = lane * lane_blocks + numbers.below(lane_blocks - count + 1);
            let tag = IoTag(round * lanes + lane);
            let length = usize::try_from(count).unwrap() * size;
            if numbers.below(2) == 0 {
                let value = u8::try_from(numbers.below(256)).unwrap();
                let data = Buffer::copy_of(&vec![value; length]).freeze();
                model.extend((start..start + count).map(|block| (block, value)));
                driver.submit(IoRequest::write(tag, Lba(start), data, numbers.below(4) == 0));
            } else {
                reads.insert(tag, start);
                driver.submit(IoRequest::read(tag, Lba(start), Buffer::zeroed(length)));
            }
        }
        for _ in 0..lanes {
            let done = driver.next();
            assert!(done.outcome.is_ok(), "{:?}", done.outcome);
            assert_eq!(done.effect, Effect::Full);
            let Some(start) = reads.remove(&done.tag) else { continue };
            let bytes = done.buffer.into_read().expect("a read brings a buffer");
            for (block, content) in (start..).zip(bytes.chunks_exact(size)) {
                let Some(value) = model.get(&block) else { continue };
                assert!(content.iter().all(|byte| byte == value), "block {block} in round {round}");
            }
        }
    }
    assert!(driver.run(IoRequest::flush(IoTag(1 << 40))).outcome.is_ok());
}

fn refusals_give_the_request_back(device: &mut dyn BlockDevice) {
    let geometry = device.geometry();
    let size = geometry.block_size.bytes();
    let end = geometry.block_count.0;
    for (lba, length) in [(end, size), (end - 1, 2 * size), (0, 0), (0, size / 2), (u64::MAX, size)] {
        let request = IoRequest::read(IoTag(1), Lba(lba), Buffer::zeroed(length));
        let refused = device.submit(Instant::ZERO, request).unwrap_err();
        assert_eq!(refused.reason, RefusalReason::Invalid, "{lba} {length}");
        assert_eq!(refused.request.tag, IoTag(1));
    }
    let mut driver = Driver::new(device);
    let read = |tag| IoRequest::read(IoTag(tag), Lba(0), Buffer::zeroed(size));
    driver.submit(read(7));
    let refused = driver.device.submit(driver.now, read(7)).unwrap_err();
    assert_eq!(refused.reason, RefusalReason::DuplicateTag);
    assert!(driver.next().outcome.is_ok());
    assert!(driver.run(read(7)).outcome.is_ok(), "a completed tag is free again");
}

/// A full queue: the promised depth is taken, one more is `Busy`, each completes exactly once.
fn each_request_completes_once(device: &mut dyn BlockDevice) {
    let geometry = device.geometry();
    let size = geometry.block_size.bytes();
    let depth = geometry.queue_depth as u64;
    let mut driver = Driver::new(device);
    for tag in 0..depth {
        let lba = Lba(tag % geometry.block_count.0);
        driver.submit(IoRequest::read(IoTag(tag), lba, Buffer::zeroed(size)));
    }
    let more = IoRequest::read(IoTag(depth), Lba(0), Buffer::zeroed(size));
    let refused = driver.device.submit(driver.now, more).unwrap_err();
    assert_eq!(refused.reason, RefusalReason::Busy);
    let mut seen = HashSet::new();
    for _ in 0..depth {
        let done = driver.next();
        assert!(done.tag.0 < depth && seen.insert(done.tag), "{:?} twice", done.tag);
        assert_eq!(done.buffer.into_read().expect("a read brings a buffer").len(), size);
    }
    assert!(driver.device.poll(driver.now).is_none());
}

fn cancel_withdraws_or_completes(device: &mut dyn BlockDevice) {
    let size = device.geometry().block_size.bytes();
    let mut driver = Driver::new(device);
    assert!(matches!(driver.device.cancel(driver.now, IoTag(5)), Cancelled::NotHere));
    driver.submit(IoRequest::read(IoTag(5), Lba(0), Buffer::zeroed(size)));
    match driver.device.cancel(driver.now, IoTag(5)) {
        Cancelled::Withdrawn(request) => {
            assert_eq!(request.tag, IoTag(5));
            assert!(driver.device.poll(driver.now).is_none());
        }
        Cancelled::Requested => assert_eq!(driver.next().tag, IoTag(5)),
        Cancelled::NotHere => panic!("it was submitted"),
    }
}

fn drop_with_requests_in_flight(mut device: Box<dyn BlockDevice>) {
    let size = device.geometry().block_size.bytes();
    for tag in 0..8.min(device.geometry().queue_depth as u64 - 1) {
        let request = IoRequest::read(IoTag(tag), Lba(0), Buffer::zeroed(size));
        device.submit(Instant::ZERO, request).unwrap();
    }
    drop(device.poll(Instant::ZERO));
}

fn temporary_file(bytes: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(bytes).unwrap();
    file
}

fn uring(path: &Path, block_size: Option<BlockSize>) -> Box<dyn BlockDevice> {
    let file = OpenFile::open(path, block_size).unwrap();
    Box::new(UringDevice::new(file).map_err(|(_, error)| error).unwrap())
}

fn threaded(path: &Path, block_size: Option<BlockSize>) -> Box<dyn BlockDevice> {
    Box::new(ThreadedDevice::new(OpenFile::open(path, block_size).unwrap()).unwrap())
}

#[test]
fn memory_keeps_the_contract() {
    for block_size in [BlockSize::B512, BlockSize::B4096] {
        let disk = MemoryDisk::new(block_size, BlockCount(512));
        contract(&|| Box::new(disk.device()));
    }
}

#[test]
fn uring_over_a_file_keeps_the_contract() {
    let file = temporary_file(4 << 20);
    let Ok(_) = io_uring::IoUring::new(2) else {
        return skip("uring_over_a_file_keeps_the_contract", "no io_uring in this kernel");
    };
    for block_size in [BlockSize::B512, BlockSize::B4096] {
        contract(&|| uring(file.path(), Some(block_size)));
    }
}

#[test]
fn threads_over_a_file_keep_the_contract() {
    let file = temporary_file(4 << 20);
    contract(&|| threaded(file.path(), None));
}

/// Small requests of such a file are done at once, large ones in a thread.
#[test]
fn a_file_in_memory_keeps_the_contract() {
    let Ok(file) = tempfile::NamedTempFile::new_in("/dev/shm") else {
        return skip("a_file_in_memory_keeps_the_contract", "no /dev/shm");
    };
    file.as_file().set_len(4 << 20).unwrap();
    contract(&|| threaded(file.path(), None));
    if io_uring::IoUring::new(2).is_ok() {
        contract(&|| uring(file.path(), None));
    }
}

#[test]
fn nbd_keeps_the_contract() {
    let able = nbd::Told::new(2 << 20);
    let plain = nbd::Told { flags: nbd::HAS_FLAGS | nbd::FLUSH, ..able };
    let least = nbd::Told { flags: nbd::HAS_FLAGS, blocks: Some([512, 512, 65_536]), ..able };
    for (told, block_size) in [
        (able, BlockSize::B512),
        (able, BlockSize::B4096),
        (plain, BlockSize::B4096),
        (least, BlockSize::B512),
    ] {
        let place = nbd::Place::new();
        drop(nbd::honest(&place, told));
        let settings = NbdSettings { block_size: Some(block_size), ..NbdSettings::default() };
        contract(&|| Box::new(NbdDevice::open(&place.server(), "", settings).unwrap()));
    }
}

#[test]
fn nbdkit_keeps_the_contract() {
    let place = nbd::Place::new();
    let start = || Program::nbdkit(&place.socket(), &["memory", "size=2M"]);
    match start() {
        Ok(program) => {
            let program = RefCell::new(program);
            // A new one for each step: nbdkit 1.32 aborts now and then when a client goes with requests in flight.
            contract(&|| {
                program.replace(start().expect("it started before"));
                Box::new(NbdDevice::open(program.borrow().server(), "", NbdSettings::default()).unwrap())
            });
        }
        Err(reason) => skip("nbdkit_keeps_the_contract", &reason),
    }
}

#[test]
fn qemu_nbd_keeps_the_contract() {
    let place = nbd::Place::new();
    let image = temporary_file(2 << 20);
    match Program::qemu_nbd(&place.socket(), image.path()) {
        Ok(program) => {
            contract(&|| {
                Box::new(NbdDevice::open(program.server(), "disk", NbdSettings::default()).unwrap())
            });
        }
        Err(reason) => skip("qemu_nbd_keeps_the_contract", &reason),
    }
}

#[test]
fn a_delaying_layer_keeps_the_contract() {
    let disk = MemoryDisk::new(BlockSize::B4096, BlockCount(512));
    let faults = Faults {
        latency: Duration::from_millis(2),
        jitter: Duration::from_millis(1),
        rate: Some(100 << 20),
        ..Faults::default()
    };
    contract(&|| Box::new(FaultyDevice::new(disk.device(), faults.clone(), 7)));
}

#[test]
fn a_layer_without_faults_changes_nothing() {
    let file = temporary_file(4 << 20);
    contract(&|| Box::new(FaultyDevice::new(threaded(file.path(), None), Faults::default(), 7)));
}

#[test]
fn a_path_of_a_storage_system_keeps_the_contract() {
    let parts = [
        // One disk without latency; two striped disks with every limit; an extent after another.
        "disk d0 2MiB\nport p0\nvolume v0 concatenated d0@0+2MiB",
        "disk d0 2MiB latency=100us parallel=4\ndisk d1 2MiB rate=1GiB\nport p0 latency=50us jitter=20us rate=1GiB\n\
         volume v0 striped unit=16KiB d0@0+1MiB d1@1MiB+1MiB",
        "block 512\ndisk d0 1MiB\nport p0 grey=0.1:1ms\nvolume v0 concatenated d0@512KiB+256KiB d0@0+256KiB",
    ];
    for text in parts {
        let system = StorageSystem::new(&text.parse().unwrap()).unwrap();
        contract(&|| Box::new(system.path("host1", "p0", "v0").unwrap()));
    }
}

#[test]
fn a_path_over_real_disks_keeps_the_contract() {
    let files = [temporary_file(2 << 20), temporary_file(2 << 20)];
    let text = "disk d0 file:0 latency=10us\ndisk d1 file:1\nport p0\n\
                volume v0 striped unit=16KiB d0@0+1MiB d1@1MiB+1MiB";
    let mut open = |address: &str| {
        let index = if address == "file:0" { 0 } else { 1 };
        Ok(threaded(files[index].path(), None))
    };
    let system = StorageSystem::with_devices(&text.parse().unwrap(), &mut open).unwrap();
    contract(&|| Box::new(system.path("host1", "p0", "v0").unwrap()));
}

#[test]
fn a_recorder_and_a_replay_keep_the_contract() {
    let disk = MemoryDisk::new(BlockSize::B4096, BlockCount(512));
    let text = "diskwire-recording 1\n0 read 4096 2ms done\n1ms read 4096 1ms done\n2ms write 4096 5ms done";
    let recording: Recording = text.parse().unwrap();
    contract(&|| Box::new(Recorder::new(disk.device(), 1000)));
    for follow in [Follow::Time, Follow::Number] {
        contract(&|| Box::new(ReplayDevice::new(disk.device(), &recording, follow)));
    }
}

/// A loop device over a temporary file, gone when dropped.
struct LoopDevice {
    node: PathBuf,
    _file: tempfile::NamedTempFile,
}

impl LoopDevice {
    fn attach(block_bytes: u32) -> Result<Self, String> {
        let file = temporary_file(4 << 20);
        let output = Command::new("losetup")
            .args(["--find", "--show", "--sector-size", &block_bytes.to_string()])
            .arg(file.path())
            .output()
            .map_err(|error| format!("losetup: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        let node = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        Ok(Self { node, _file: file })
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        drop(Command::new("losetup").arg("--detach").arg(&self.node).status());
    }
}

#[test]
fn block_nodes_of_both_block_sizes_keep_the_contract() {
    for block_size in [BlockSize::B512, BlockSize::B4096] {
        let bytes = u32::try_from(block_size.bytes()).unwrap();
        let device = match LoopDevice::attach(bytes) {
            Ok(device) => device,
            Err(reason) => {
                return skip("block_nodes_of_both_block_sizes_keep_the_contract", &reason);
            }
        };
        let opened = OpenFile::open(&device.node, None).unwrap();
        assert_eq!(opened.geometry().block_size, block_size);
        assert_eq!(opened.geometry().byte_size(), 4 << 20);
        assert!(opened.geometry().queue_depth <= 64);
        let wrong = if block_size == BlockSize::B512 { BlockSize::B4096 } else { BlockSize::B512 };
        assert!(OpenFile::open(&device.node, Some(wrong)).is_err());
        contract(&|| uring(&device.node, None));
        contract(&|| threaded(&device.node, None));
    }
}
