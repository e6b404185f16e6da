//! Labs with real processes for the end-to-end tests.
//!
//! What holds: every process is killed when its handle goes, and ends within a limit or fails the test
//! with what it said, so that a hang is a failure and never a test that hangs. Not here: any test.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod loop_device;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

/// The longest a command may take where a test says nothing else.
pub const LIMIT: Duration = Duration::from_secs(60);
/// How often a limit is looked at.
const STEP: Duration = Duration::from_millis(2);

/// Whether the long versions of the tests were asked for.
pub fn full() -> bool {
    std::env::var_os("DISKWIRE_FULL").is_some_and(|value| value == "1")
}

/// Says that a test cannot run here; with DISKWIRE_NO_SKIP=1 that is a failure.
pub fn skip(name: &str, reason: &str) {
    let strict = std::env::var_os("DISKWIRE_NO_SKIP").is_some_and(|value| value == "1");
    assert!(!strict, "{name} cannot run here: {reason}");
    // Past the capture of the test harness: a skip is to be seen.
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {reason}");
}

// ---- processes --------------------------------------------------------------------------------------

/// A process that has ended.
#[derive(Debug)]
pub struct Done {
    /// How.
    pub status: ExitStatus,
    /// What it wrote.
    pub stdout: Vec<u8>,
    /// What it said.
    pub stderr: String,
    /// How long it lived.
    pub took: Duration,
}

impl Done {
    /// The exit code; `None` after a signal.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "signal {:?}, {self:#?}", self.status.signal());
        self
    }

    /// Asserts the exit code and that standard error says `part`, once.
    #[track_caller]
    pub fn expect_line(self, code: i32, part: &str) -> Self {
        let done = self.expect(code);
        assert_eq!(done.stderr.matches(part).count(), 1, "one line with {part:?} expected: {done:#?}");
        done
    }
}

/// A process under test.
pub struct Running {
    child: Child,
    name: String,
    started: Instant,
    said: Arc<Mutex<Vec<u8>>>,
    written: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn gather(mut from: impl Read + Send + 'static, into: Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut bytes = [0; 1 << 16];
        while let Ok(length @ 1..) = from.read(&mut bytes) {
            lock(&into).extend_from_slice(&bytes[..length]);
        }
    })
}

impl Running {
    /// Starts `command`; standard input is what the command says, or nothing.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let name = format!("{command:?}");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let (said, written) = (Arc::default(), Arc::default());
        let readers = vec![
            gather(child.stderr.take().expect("piped"), Arc::clone(&said)),
            gather(child.stdout.take().expect("piped"), Arc::clone(&written)),
        ];
        Self { child, name, started: Instant::now(), said, written, readers }
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&lock(&self.said)).into_owned()
    }

    /// Bytes of standard output so far.
    pub fn written(&self) -> usize {
        lock(&self.written).len()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, signal);
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_some()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self, limit: Duration) -> Done {
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                break status;
            }
            let late = Instant::now() >= deadline;
            assert!(!late, "{} still runs after {limit:?}; it said:\n{}", self.name, self.said());
            std::thread::sleep(STEP);
        };
        let took = self.started.elapsed();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        let stdout = std::mem::take(&mut *lock(&self.written));
        Done { status, stdout, stderr: self.said(), took }
    }

    /// Kills it, and waits until it is gone.
    pub fn kill(mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.said()
    }

    /// Waits until it has written `part` on standard output.
    #[track_caller]
    pub fn wait_until_written(&mut self, part: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            let text = String::from_utf8_lossy(&lock(&self.written)).into_owned();
            if text.contains(part) {
                return;
            }
            let ended = self.has_ended();
            let late = Instant::now() >= deadline;
            assert!(!ended && !late, "{} never wrote {part:?}, but:\n{text}", self.name);
            std::thread::sleep(STEP);
        }
    }

    /// Waits until it has said `part`.
    #[track_caller]
    pub fn wait_until_said(&mut self, part: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !self.said().contains(part) {
            let ended = self.has_ended();
            let late = Instant::now() >= deadline;
            assert!(!ended && !late, "{} never said {part:?}; it said:\n{}", self.name, self.said());
            std::thread::sleep(STEP);
        }
    }
}

// ---- labs -------------------------------------------------------------------------------------------

/// A small world in a folder of its own.
pub struct Lab {
    folder: TempDir,
}

impl Lab {
    /// Hosts alpha and beta on a volume of 64 MiB in files.
    #[track_caller]
    pub fn new() -> Self {
        Self::with("--size 64MiB")
    }

    /// What `lab create` makes with these further arguments.
    #[track_caller]
    pub fn with(arguments: &str) -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let lab = Self { folder };
        let mut command = lab.program();
        command.args(["lab", "create"]).arg(lab.path("")).args(arguments.split_whitespace());
        Running::start(command).wait(LIMIT).expect(0);
        lab
    }

    /// A path in its folder.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join("lab").join(relative)
    }

    /// A path beside the lab, for files of the test.
    pub fn scratch(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// A path in the export `inbox` of a host.
    pub fn inbox(&self, host: &str, relative: impl AsRef<Path>) -> PathBuf {
        self.path("exports").join(host).join("inbox").join(relative)
    }

    /// The command without a word; its folder is the scratch folder.
    pub fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_diskwire"));
        command.current_dir(self.folder.path());
        command.env_remove("DISKWIRE_CONFIG").env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    /// The command as `host`.
    pub fn command(&self, host: &str) -> Command {
        let mut command = self.program();
        command.arg("-c").arg(self.path(format!("{host}.toml")));
        command
    }

    /// `line` as `host`, started.
    #[track_caller]
    pub fn start(&self, host: &str, line: &str) -> Running {
        let mut command = self.command(host);
        command.args(line.split_whitespace());
        Running::start(command)
    }

    /// `line` as `host`, to its end.
    #[track_caller]
    pub fn run(&self, host: &str, line: &str) -> Done {
        self.start(host, line).wait(LIMIT)
    }

    /// `serve` of `host`, ready.
    #[track_caller]
    pub fn serve(&self, host: &str) -> Running {
        let mut serve = self.start(host, "serve");
        serve.wait_until_said("serves", LIMIT);
        serve
    }

    /// Replaces `from` by `to` in the configuration of `host`.
    #[track_caller]
    pub fn reconfigure(&self, host: &str, from: &str, to: &str) {
        let file = self.path(format!("{host}.toml"));
        let text = fs::read_to_string(&file).expect("a configuration");
        assert!(text.contains(from), "no {from:?} in {text}");
        fs::write(&file, text.replace(from, to)).expect("a configuration");
    }

    /// Makes transfers of `host` slow enough to act in the middle of one.
    #[track_caller]
    pub fn slow(&self, host: &str) {
        for device in ["secondary1.img", "secondary2.img"] {
            self.reconfigure(host, device, &format!("{device}?rate=8MiB"));
        }
    }

    /// A slow push of alpha's `f` to beta's inbox that has begun to arrive, and the `serve` there.
    #[track_caller]
    pub fn slow_push(&self, bytes: u64) -> (Running, Running) {
        self.slow("alpha");
        let serve = self.serve("beta");
        (self.slow_push_to(5, bytes), serve)
    }

    /// The same with a `serve` that runs; `seed` gives the content.
    #[track_caller]
    pub fn slow_push_to(&self, seed: u64, bytes: u64) -> Running {
        write_random(&self.scratch("f"), seed, bytes);
        let mut cp = self.start("alpha", "cp -q f beta:inbox/f");
        let partial = self.inbox("beta", ".diskwire-partial");
        let begun = || {
            let entries = fs::read_dir(&partial).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.metadata().ok()).any(|entry| entry.len() > 1 << 20)
        };
        while !begun() {
            assert!(!cp.has_ended(), "the copy ended before it began: {}", cp.said());
            std::thread::sleep(STEP);
        }
        cp
    }

    /// Asserts that a folder holds no partial files, soon.
    #[track_caller]
    pub fn assert_no_partial(&self, folder: &Path) {
        let partial = folder.join(".diskwire-partial");
        let deadline = Instant::now() + Duration::from_secs(5);
        while partial.exists() {
            let left: Vec<_> = fs::read_dir(&partial).into_iter().flatten().flatten().collect();
            assert!(Instant::now() < deadline, "{} is still there: {left:?}", partial.display());
            std::thread::sleep(STEP);
        }
    }

    /// Asserts that nothing on the volume is damaged.
    #[track_caller]
    pub fn assert_volume_sound(&self, host: &str) {
        let done = self.run(host, "volume check");
        // Not every build has the command yet.
        if !done.stderr.contains("unrecognized subcommand") {
            done.expect(0);
        }
    }
}

// ---- data -------------------------------------------------------------------------------------------

/// Numbers from a seed.
pub struct Numbers(blake3::OutputReader);

impl Numbers {
    /// The numbers of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
    }

    /// Its bytes without end.
    pub fn into_reader(self) -> impl Read {
        self.0
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % end.max(1)
    }

    /// A pause below `end`.
    pub fn pause(&mut self, end: Duration) -> Duration {
        let nanoseconds = u64::try_from(end.as_nanos()).expect("a short pause");
        Duration::from_nanos(self.below(nanoseconds))
    }
}

/// `length` bytes that look random; others for every seed.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Numbers::new(seed).0.fill(&mut bytes);
    bytes
}

/// Writes a file of `length` bytes and returns the hash of its content.
pub fn write_random(path: &Path, seed: u64, length: u64) -> blake3::Hash {
    let mut file = File::create(path).expect("a file");
    let mut numbers = Numbers::new(seed);
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; 1 << 20];
    let mut left = length;
    while left > 0 {
        let count = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
        numbers.0.fill(&mut piece[..count]);
        hasher.update(&piece[..count]);
        file.write_all(&piece[..count]).expect("room for a file");
        left -= count as u64;
    }
    hasher.finalize()
}

/// The hash of a file's content.
pub fn hash_of(path: &Path) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    hasher.update_reader(file).expect("a file can be read");
    hasher.finalize()
}

/// What stands at a path of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// `d`, `f` or `l`.
    pub kind: char,
    /// Permissions.
    pub mode: u32,
    /// User and group; 0 for links.
    pub owner: (u32, u32),
    /// Modification time; 0 for links.
    pub mtime: (i64, i64),
    /// Hash of a file's content, or a link's target.
    pub content: Vec<u8>,
}

/// Everything below `root`, and `root` itself as the empty path.
pub fn tree(root: &Path) -> BTreeMap<PathBuf, Found> {
    let mut found = BTreeMap::new();
    let mut left = vec![PathBuf::new()];
    while let Some(relative) = left.pop() {
        let path = root.join(&relative);
        let metadata = path.symlink_metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mode = metadata.permissions().mode() & 0o7777;
        let owner = (metadata.uid(), metadata.gid());
        let mtime = (metadata.mtime(), metadata.mtime_nsec());
        let entry = if metadata.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory");
            left.extend(entries.map(|entry| relative.join(entry.expect("an entry").file_name())));
            Found { kind: 'd', mode, owner, mtime, content: Vec::new() }
        } else if metadata.is_symlink() {
            let target = fs::read_link(&path).expect("a link").as_os_str().as_bytes().to_vec();
            Found { kind: 'l', mode: 0, owner: (0, 0), mtime: (0, 0), content: target }
        } else {
            Found { kind: 'f', mode, owner, mtime, content: hash_of(&path).as_bytes().to_vec() }
        };
        found.insert(relative, entry);
    }
    found
}

/// Asserts that two trees are the same, entry by entry.
#[track_caller]
pub fn assert_same_tree(expected: &Path, found: &Path) {
    let (expected, found) = (tree(expected), tree(found));
    for (path, entry) in &expected {
        assert_eq!(found.get(path), Some(entry), "{}", path.display());
    }
    let more: Vec<_> = found.keys().filter(|path| !expected.contains_key(*path)).collect();
    assert!(more.is_empty(), "not in the source: {more:?}");
}
