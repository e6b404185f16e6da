//! A block node that really hangs, as one path of a device: a loop device over nbdfuse over nbdkit, which is stopped.
//!
//! ```text
//!   device ─┬─ path 0 ── loop device ─────────────────────────────▶ image
//!           └─ path 1 ── loop device ── nbdfuse ── nbdkit (SIGSTOP) ──▲
//! ```
//!
//! Everything runs on one thread, as in a process that has both paths. What the test makes is taken away on every way out
//! of it. Skipped where a program is missing or this user may not use it; `DISKWIRE_NO_SKIP=1` makes that a failure.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

#[path = "../../storage-mapping/tests/support/programs.rs"]
mod programs;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant as RealTime};

use multipath::{FailoverConfig, MultipathDevice, PathConfig, PathState, RoundRobin};
use programs::{Program, find, skip};
use storage_mapping::path_address::open;
use storage_mapping::{
    BlockDevice, Buffer, FencePolicy, Instant, IoCompletion, IoRequest, IoTag, Lba, Operation, wait,
};
use tempfile::TempDir;

const IMAGE_BYTES: usize = 64 << 20;
/// Above what one request to a block node may have without waiting, on every kernel.
const LARGE_BYTES: usize = 4 << 20;
/// How long something may take that needs milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// A loop device; it is taken away when dropped.
struct Loop(String);

impl Loop {
    fn over(file: &Path) -> Result<Self, String> {
        let mut losetup = Command::new(find("losetup")?);
        losetup.args(["--find", "--show", "--direct-io=on"]).arg(file);
        let done = losetup.output().map_err(|error| error.to_string())?;
        if done.status.success() {
            return Ok(Self(String::from_utf8_lossy(&done.stdout).trim().to_owned()));
        }
        Err(String::from_utf8_lossy(&done.stderr).trim().to_owned())
    }

    fn open(&self) -> Box<dyn BlockDevice> {
        open(&format!("block:{}", self.0).parse().unwrap()).unwrap().device
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        drop(Command::new("losetup").args(["--detach", &self.0]).status());
    }
}

/// nbdfuse on a folder; it is unmounted when dropped.
struct Fuse {
    child: Child,
    folder: PathBuf,
}

impl Fuse {
    fn start(folder: &Path, socket: &Path) -> Result<Self, String> {
        std::fs::create_dir(folder).unwrap();
        let mut command = Command::new(find("nbdfuse")?);
        command.arg(folder.join("disk")).arg("--unix").arg(socket);
        let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut fuse = Self { child: child.map_err(|error| error.to_string())?, folder: folder.to_owned() };
        let began = RealTime::now();
        while !fuse.disk().exists() {
            if let Some(status) = fuse.child.try_wait().unwrap() {
                let mut said = String::new();
                drop(std::io::Read::read_to_string(&mut fuse.child.stderr.take().unwrap(), &mut said));
                return Err(format!("nbdfuse ended with {status}: {}", said.trim()));
            }
            assert!(began.elapsed() < PATIENCE, "nbdfuse does not mount");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(fuse)
    }

    fn disk(&self) -> PathBuf {
        self.folder.join("disk")
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.folder).status());
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Both nodes and what is under them.
struct Stage {
    // In this order they go: the server first, so that nothing hangs any longer.
    server: Program,
    hanging: Loop,
    healthy: Loop,
    _fuse: Fuse,
    folder: TempDir,
}

impl Stage {
    fn new() -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let (image, socket) = (folder.path().join("image"), folder.path().join("nbd.sock"));
        std::fs::write(&image, vec![0; IMAGE_BYTES]).unwrap();
        let server = Program::nbdkit(&socket, &["file", &image.display().to_string()])?;
        let fuse = Fuse::start(&folder.path().join("mount"), &socket)?;
        let (hanging, healthy) = (Loop::over(&fuse.disk())?, Loop::over(&image)?);
        Ok(Self { server, hanging, healthy, _fuse: fuse, folder })
    }
}

/// What a block holds once it was written.
fn content(lba: u64) -> u8 {
    u8::try_from(lba % 251 + 1).unwrap()
}

/// A device on one thread, in real time.
struct Bench<D> {
    device: D,
    began: RealTime,
    serial: u64,
}

impl<D: BlockDevice> Bench<D> {
    fn new(device: D) -> Self {
        Self { device, began: RealTime::now(), serial: 0 }
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.began.elapsed()
    }

    fn submit(&mut self, operation: Operation) -> bool {
        self.serial += 1;
        let request = match operation {
            Operation::Read { lba, buffer } => IoRequest::read(IoTag(self.serial), lba, buffer),
            Operation::Write { lba, data, fua } => IoRequest::write(IoTag(self.serial), lba, data, fua),
            Operation::Flush => IoRequest::flush(IoTag(self.serial)),
        };
        // A block has the same content in every write: an old copy may land.
        let request = IoRequest { fence: FencePolicy::Unsafe, ..request };
        self.device.submit(self.now(), request).is_ok()
    }

    /// The next completion, if one comes within the time.
    fn next(&mut self, patience: Duration) -> Option<IoCompletion> {
        let end = RealTime::now() + patience;
        loop {
            if let Some(done) = self.device.poll(self.now()) {
                return Some(done);
            }
            while self.device.poll_event(self.now()).is_some() {}
            let left = end.saturating_duration_since(RealTime::now());
            if left.is_zero() {
                return None;
            }
            let mut descriptors = Vec::new();
            self.device.wait_on(&mut descriptors);
            let until = self.device.next_wakeup().map_or(left, |at| at.since(self.now()));
            wait::wait(&descriptors, Some(until.min(left)));
        }
    }
}

type Multipath = Bench<MultipathDevice<RoundRobin>>;

/// Reads, writes and now and then a flush, 16 at a time, for so long. Gives how many reads and writes were done in the
/// second half of that time, and how long a look at the device took, one in a hundred excepted.
fn load(bench: &mut Multipath, time: Duration) -> (u64, Duration) {
    let block = bench.device.geometry().block_size.bytes();
    let blocks = bench.device.geometry().block_count.0;
    let (began, mut in_flight, mut done_late, mut looks) = (RealTime::now(), 0, 0, Vec::new());
    let mut round = 0_u64;
    while began.elapsed() < time || in_flight > 0 {
        while in_flight < 16 && began.elapsed() < time {
            round += 1;
            let lba = round * 17 % blocks;
            let is_taken = match round % 64 {
                0 => bench.submit(Operation::Flush),
                n if n % 2 == 0 => {
                    bench.submit(Operation::Read { lba: Lba(lba), buffer: Buffer::zeroed(block) })
                }
                _ => {
                    let data = Buffer::copy_of(&vec![content(lba); block]).freeze();
                    bench.submit(Operation::Write { lba: Lba(lba), data, fua: false })
                }
            };
            assert!(is_taken);
            in_flight += 1;
        }
        let looked = RealTime::now();
        assert_eq!(bench.device.snapshot(bench.now(), "device", &[]).paths.len(), 2);
        looks.push(looked.elapsed());
        let Some(done) = bench.next(PATIENCE) else { panic!("a request hangs") };
        in_flight -= 1;
        let is_flush = matches!(done.buffer, storage_mapping::IoBuffer::None);
        // A flush must fail that a path with writes of ours could not do.
        assert!(is_flush || done.outcome.is_ok(), "{:?}", done.outcome);
        if let Some(buffer) = done.buffer.into_read() {
            assert!(buffer.iter().all(|byte| *byte == buffer[0]), "a torn block");
        }
        done_late += u64::from(!is_flush && began.elapsed() > time / 2);
    }
    looks.sort_unstable();
    (done_late, looks[looks.len() * 99 / 100])
}

#[test]
fn a_node_that_hangs_holds_up_neither_the_other_path_nor_status_nor_close() {
    let test = "a_node_that_hangs_holds_up_neither_the_other_path_nor_status_nor_close";
    let stage = match Stage::new() {
        Ok(stage) => stage,
        Err(reason) => return skip(test, &reason),
    };
    let paths = [&stage.healthy, &stage.hanging].map(|node| (PathConfig::default(), node.open()));
    let config = FailoverConfig {
        attempt_timeout: Duration::from_millis(500),
        flush_timeout: Duration::from_millis(500),
        probe_interval: Duration::from_millis(200),
        ..FailoverConfig::default()
    };
    let device = MultipathDevice::with_selector(paths.into(), RoundRobin::default(), config).unwrap();
    let mut bench = Bench::new(device);
    let (with_both, _) = load(&mut bench, Duration::from_secs(2));
    assert!(bench.device.status().iter().all(|path| path.state == PathState::Active && path.requests > 0));

    stage.server.stop();
    let (with_one, look) = load(&mut bench, Duration::from_secs(4));
    let hung = bench.device.status()[1];
    println!(
        "{with_both} in 1 s over both paths, {with_one} in 2 s beside the one that hangs; a look: {look:?}"
    );
    assert_eq!(hung.state, PathState::Failed);
    assert!(hung.quarantined_bytes > 0, "the kernel has buffers of ours: {hung:?}");
    assert!(with_one > with_both / 10, "{with_one} beside the path that hangs, {with_both} before");
    assert!(look < Duration::from_millis(50), "{look:?}");

    stage.server.go_on();
    let began = RealTime::now();
    while bench.device.status()[1].quarantined_bytes > 0
        || bench.device.status()[1].state != PathState::Active
    {
        assert!(bench.next(Duration::from_millis(10)).is_none());
        assert!(began.elapsed() < PATIENCE, "{:?}", bench.device.status());
    }
    load(&mut bench, Duration::from_millis(200));

    stage.server.stop();
    for lba in 0..16 {
        let data = Buffer::copy_of(&vec![content(lba); LARGE_BYTES]).freeze();
        let large = Operation::Write { lba: Lba(lba * 16), data, fua: false };
        assert!(bench.submit(large) && bench.submit(Operation::Flush));
    }
    while bench.next(Duration::from_millis(50)).is_some() {}
    assert!(bench.device.status()[1].in_flight > 0);
    assert!(storage_mapping::device::calls_at_work() > 0, "flushes are in the kernel");
    let closed = RealTime::now();
    drop(bench);
    println!("closed in {:?}", closed.elapsed());
    assert!(closed.elapsed() < Duration::from_secs(1), "{:?}", closed.elapsed());
}

#[test]
fn what_must_wait_on_a_node_that_hangs_leaves_the_workers_of_others_alone() {
    let test = "what_must_wait_on_a_node_that_hangs_leaves_the_workers_of_others_alone";
    let stage = match Stage::new() {
        Ok(stage) => stage,
        Err(reason) => return skip(test, &reason),
    };
    let mut hanging = Bench::new(stage.hanging.open());
    let other = stage.folder.path().join("other");
    std::fs::write(&other, vec![0; 2 * LARGE_BYTES]).unwrap();
    let other = open(&format!("file:{}", other.display()).parse().unwrap()).unwrap().device;
    let mut nodes = [Bench::new(other), Bench::new(stage.healthy.open())];

    stage.server.stop();
    let depth = hanging.device.geometry().queue_depth;
    for at in 0..depth {
        let data = Buffer::zeroed(LARGE_BYTES).freeze();
        let large = Operation::Write { lba: Lba(0), data, fua: false };
        assert!(hanging.submit(if at % 4 == 0 { large } else { Operation::Flush }));
    }
    assert!(hanging.next(Duration::from_millis(200)).is_none());
    for node in &mut nodes {
        for round in 0..20 {
            let data = Buffer::zeroed(LARGE_BYTES).freeze();
            node.submit(Operation::Write { lba: Lba(0), data, fua: round % 2 == 0 });
            assert!(
                node.next(PATIENCE).expect("a large write needs no worker of another path").outcome.is_ok()
            );
            node.submit(Operation::Flush);
            assert!(node.next(PATIENCE).expect("a flush needs no worker of another path").outcome.is_ok());
        }
    }
    assert!(hanging.next(Duration::ZERO).is_none(), "it still hangs");
    stage.server.go_on();
    for _ in 0..depth {
        assert!(hanging.next(PATIENCE).expect("everything comes back").outcome.is_ok());
    }
}
