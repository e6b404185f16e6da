//! Two sessions connected by queues, with real files in scratch folders and a clock by hand.
//!
//! Local work of each side is executed in an order that changes with every step, so that answers come
//! out of order as from several workers.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(missing_docs, unreachable_pub, reason = "a test harness")]

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use storage_mapping::{BufferPool, Instant};
use transfer_core::export::Export;
use transfer_core::payload::Segment;
use transfer_core::transfer::message::JobOptions;
use transfer_core::transfer::{
    Job, LocalFiles, LocalReply, LocalRequest, LocalStore, LossReason, Outcome, RelativePath, ServingFiles,
    Session, SessionConfig, SessionEvent, SourceOrigin, Target, Verdict,
};

pub const SEGMENT: usize = 64 << 10;

/// A scratch folder: `export` is served, `here` belongs to the user, both have their state.
pub struct World {
    pub folder: tempfile::TempDir,
    pub pool: BufferPool,
    pub segment: usize,
    pub window: usize,
    /// Lose the connection when so many segments have been delivered.
    pub lose_after: Option<usize>,
    pub interrupt_after: Option<usize>,
    /// Both processes end when so much local work has been executed.
    pub kill_after: Option<usize>,
    /// How long a step takes.
    pub step_time: Duration,
    /// Called before each step with the number of segments delivered.
    pub meddle: Option<Box<dyn FnMut(usize)>>,
    pub events: Vec<SessionEvent>,
    pub delivered: usize,
    pub input: Option<Vec<u8>>,
    pub output: Option<Box<dyn std::io::Write + Send>>,
}

pub fn path(text: &str) -> RelativePath {
    RelativePath::from_joined(text.as_bytes()).expect("a path")
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["export", "here", "state/serve", "state/command"] {
            fs::create_dir_all(folder.path().join(name)).expect("a folder");
        }
        Self {
            folder,
            pool: BufferPool::new(),
            segment: SEGMENT,
            window: 4,
            lose_after: None,
            interrupt_after: None,
            kill_after: None,
            step_time: Duration::ZERO,
            meddle: None,
            events: Vec::new(),
            delivered: 0,
            input: None,
            output: None,
        }
    }

    pub fn export(&self) -> PathBuf {
        self.folder.path().join("export")
    }

    pub fn here(&self) -> PathBuf {
        self.folder.path().join("here")
    }

    pub fn serving(&self, writable: bool) -> Arc<ServingFiles> {
        let export = Export::open(b"box", &self.export(), writable).expect("an export");
        Arc::new(ServingFiles::new(vec![export], &self.folder.path().join("state/serve")).expect("state"))
    }

    pub fn push(&mut self, sources: &[&Path], destination: &str, options: JobOptions) -> Outcome {
        let paths = sources.iter().map(|p| p.as_os_str().as_encoded_bytes().to_vec()).collect();
        self.run(self.push_job(SourceOrigin::Local(paths), destination, options))
    }

    pub fn push_job(&self, origin: SourceOrigin, destination: &str, options: JobOptions) -> Job {
        Job::Push {
            peer: "b".into(),
            origin,
            export: b"box".to_vec(),
            destination: path(destination),
            options,
        }
    }

    pub fn pull(&mut self, sources: &[&str], target: &Path, options: JobOptions) -> Outcome {
        let target = Target::Local(target.as_os_str().as_encoded_bytes().to_vec());
        self.run(self.pull_job(sources, target, options))
    }

    pub fn pull_job(&self, sources: &[&str], target: Target, options: JobOptions) -> Job {
        let sources = sources.iter().map(|text| path(text)).collect();
        Job::Pull { peer: "b".into(), export: b"box".to_vec(), sources, target, options }
    }

    pub fn run(&mut self, job: Job) -> Outcome {
        let serving = self.serving(true);
        self.run_with(job, &serving)
    }

    pub fn run_with(&mut self, job: Job, serving: &Arc<ServingFiles>) -> Outcome {
        let mut config = SessionConfig::new(self.pool.clone());
        config.segment_bytes = self.segment;
        config.payloads_max = 6;
        let state = self.folder.path().join("state/command");
        let mut command = LocalFiles::command(self.pool.clone(), self.segment, &state);
        if let Some(input) = self.input.take() {
            command = command.with_input(Box::new(std::io::Cursor::new(input)));
        }
        if let Some(output) = self.output.take() {
            command = command.with_output(output);
        }
        let serve = LocalFiles::serving(self.pool.clone(), self.segment, Arc::clone(serving));
        let a = Side::new(Session::requester(config.clone(), job), Box::new(command));
        let b = Side::new(Session::responder(config), Box::new(serve));
        self.run_sides(a, b)
    }

    pub fn run_sides(&mut self, mut a: Side, mut b: Side) -> Outcome {
        let mut now = Instant::ZERO;
        let mut outcome = None;
        let mut idle = 0;
        self.delivered = 0;
        let mut lost = false;
        for step in 0_usize.. {
            now = now + self.step_time;
            if let Some(meddle) = &mut self.meddle {
                meddle(self.delivered);
            }
            let mut moved = a.step(now, step, self.window, &mut self.kill_after);
            moved |= b.step(now, step + 1, self.window, &mut self.kill_after);
            if self.kill_after == Some(0) {
                return killed();
            }
            moved |= self.deliver(now, &mut a, &mut b, lost) | self.deliver(now, &mut b, &mut a, lost);
            if !lost && self.lose_after.is_some_and(|limit| self.delivered >= limit) {
                lost = true;
                a.queue.clear();
                b.queue.clear();
                a.session.handle_lost(now, LossReason::Lost);
                b.session.handle_lost(now, LossReason::Lost);
                moved = true;
            }
            if self.interrupt_after.is_some_and(|limit| self.delivered >= limit) {
                self.interrupt_after = None;
                a.session.handle_interrupt(now);
            }
            while let Some(event) = a.session.poll_event() {
                if let SessionEvent::Finished(done) = &event {
                    outcome = Some(done.clone());
                }
                self.events.push(event);
            }
            if moved {
                idle = 0;
                continue;
            }
            if a.session.is_finished() && !lost {
                lost = true;
                b.session.handle_lost(now, LossReason::Closed);
                continue;
            }
            if a.session.is_finished() && b.session.is_finished() {
                break;
            }
            idle += 1;
            assert!(idle < 50, "stuck: {:#?}\n{:#?}", a.session, b.session);
            let wake = [a.session.next_wakeup(), b.session.next_wakeup()].into_iter().flatten().min();
            now = wake.unwrap_or(now + Duration::from_millis(10)).max(now);
            a.session.handle_timeout(now);
            b.session.handle_timeout(now);
        }
        outcome.expect("a finished requester said how")
    }

    fn deliver(&mut self, now: Instant, from: &mut Side, to: &mut Side, lost: bool) -> bool {
        let mut moved = false;
        while !lost && self.lose_after.is_none_or(|limit| self.delivered < limit) {
            if !to.session.wants_segment() {
                break;
            }
            let Some(segment) = from.queue.pop_front() else { break };
            self.delivered += 1;
            to.session.handle_segment(now, segment).expect("no violation between equals");
            moved = true;
        }
        moved
    }
}

/// What nobody was there to say.
fn killed() -> Outcome {
    Outcome {
        verdict: Verdict::Retry,
        files: 0,
        bytes: 0,
        failed: 0,
        skipped: 0,
        in_doubt: 0,
        unfinished: 0,
        reason: None,
    }
}

/// One session with its files and its outgoing queue.
pub struct Side {
    pub session: Session,
    pub files: Box<dyn LocalStore>,
    pub queue: VecDeque<Segment>,
    work: Vec<LocalRequest>,
}

impl Side {
    pub fn new(session: Session, files: Box<dyn LocalStore>) -> Self {
        Self { session, files, queue: VecDeque::new(), work: Vec::new() }
    }

    pub fn step(&mut self, now: Instant, step: usize, window: usize, budget: &mut Option<usize>) -> bool {
        let mut moved = false;
        while self.queue.len() < window
            && let Some(segment) = self.session.poll_segment(now)
        {
            self.queue.push_back(segment);
            moved = true;
        }
        while let Some(request) = self.session.poll_local(now) {
            self.work.push(request);
        }
        // Half of what is out, from a place that changes.
        for turn in 0..self.work.len().div_ceil(2) {
            if let Some(left) = budget {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    return false;
                }
            }
            let request = self.work.swap_remove((step * 7 + turn * 3) % self.work.len());
            let LocalReply { id, done } = self.files.execute(request);
            self.session.handle_local(now, LocalReply { id, done });
            moved = true;
        }
        moved
    }
}

// ---- trees ------------------------------------------------------------------------------------------

pub fn bytes(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3] ^ seed).collect()
}

pub fn set_time(path: &Path, seconds: u64) {
    let time = std::time::UNIX_EPOCH + Duration::new(seconds, 123_456_789);
    fs::File::open(path).expect("open").set_modified(time).expect("a time");
}

/// A tree with files of many sizes, modes, times, empty directories and links.
pub fn make_tree(root: &Path, segment: usize) {
    for folder in ["", "a", "a/b", "a/empty", "c"] {
        fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    let sizes = [0, 1, 5000, segment - 8, segment - 7, segment, segment + 1, 5 * segment + 77];
    for (number, size) in sizes.into_iter().enumerate() {
        let file = root.join(["", "a", "a/b", "c"][number % 4]).join(format!("file {number}"));
        fs::write(&file, bytes(size, number as u8)).expect("a file");
        fs::set_permissions(&file, fs::Permissions::from_mode([0o644, 0o600, 0o755, 0o444][number % 4]))
            .expect("mode");
        set_time(&file, 1_000_000_000 + number as u64);
    }
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"c/\xff not UTF-8\n")), b"odd").expect("a file");
    symlink("../file 0", root.join("a/link")).expect("a link");
    symlink("nowhere", root.join("dangling")).expect("a link");
    for (number, folder) in ["a/empty", "a/b", "a", "c", ""].into_iter().enumerate() {
        let folder = root.join(folder);
        fs::set_permissions(&folder, fs::Permissions::from_mode([0o750, 0o700, 0o755, 0o711, 0o755][number]))
            .expect("m");
        set_time(&folder, 1_100_000_000 + number as u64);
    }
}

use std::os::unix::ffi::OsStrExt;

/// Every entry below a root as one line: kind, mode, time, content.
pub fn describe(root: &Path, times: bool) -> Vec<String> {
    let mut lines = Vec::new();
    describe_into(root, Path::new(""), times, &mut lines);
    lines.sort();
    lines
}

fn describe_into(root: &Path, below: &Path, times: bool, lines: &mut Vec<String>) {
    let path = root.join(below);
    let meta = fs::symlink_metadata(&path).expect("it is there");
    let time = if times { format!("{}.{}", meta.mtime(), meta.mtime_nsec()) } else { String::new() };
    let mode = meta.mode() & 0o7777;
    if meta.is_symlink() {
        let target = fs::read_link(&path).expect("a link");
        lines.push(format!("{below:?} link {target:?} {time}"));
    } else if meta.is_dir() {
        lines.push(format!("{below:?} directory {mode:o} {time}"));
        for entry in fs::read_dir(&path).expect("a folder") {
            describe_into(root, &below.join(entry.expect("an entry").file_name()), times, lines);
        }
    } else {
        let hash = blake3_of(&path);
        lines.push(format!("{below:?} file {mode:o} {} {hash} {time}", meta.len()));
    }
}

fn blake3_of(path: &Path) -> String {
    blake3::hash(&fs::read(path).expect("readable")).to_hex()[..16].to_owned()
}

pub fn assert_same(a: &Path, b: &Path, times: bool) {
    let (a, b) = (describe(a, times), describe(b, times));
    let missing: Vec<_> = a.iter().filter(|line| !b.contains(line)).collect();
    let extra: Vec<_> = b.iter().filter(|line| !a.contains(line)).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing {missing:#?}\nextra {extra:#?}");
}

pub fn assert_no_partials(folder: &Path) {
    assert!(!folder.join(".diskwire-partial").exists(), "the partial folder is gone");
}
