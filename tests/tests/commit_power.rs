//! A job whose receiver or sender loses its power at every single step of its work on files.
//!
//! Two sessions run on simulated file systems. The power of one host fails after its first change, its
//! second, and so on to the last; a part of what was not synced is lost; the job is run again until it is
//! done. What must hold is said at [`Pair::check`]. Not here: the disks between the two (`power_loss`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use storage_mapping::{BufferPool, Instant};
use system_tests::chance::Chance;
use system_tests::file_system::{FoundFile, IgnoredSync, SimulatedFiles};
use transfer_core::export::Export;
use transfer_core::file_system::{FileSystem, make_directories};
use transfer_core::journal::{Entry, parse};
use transfer_core::payload::Segment;
use transfer_core::transfer::message::JobOptions;
use transfer_core::transfer::{
    Job, LocalFiles, LocalStore, LossReason, Outcome, RelativePath, ServingFiles, Session, SessionConfig,
    SessionEvent, SourceOrigin, Target, Verdict,
};

const SEGMENT: usize = 16 << 10;
/// Segments that a connection holds.
const WINDOW: usize = 4;
/// The partial folder, whose content is nobody's business.
const PARTIAL_FOLDER: &str = ".diskwire-partial";
/// Runs of a job that must do once nothing happens any more.
const RUNS_MAX: usize = 4;

/// What is sent, and how.
#[derive(Clone, Copy, Debug)]
struct Scene {
    files: &'static [(&'static str, usize)],
    pull: bool,
}

/// Small files and one of several segments, in directories that are to be made.
const MIXED: &[(&str, usize)] =
    &[("a/one", 10), ("a/b/two", 5000), ("three", 0), ("a/b/long", 5 * SEGMENT + 77), ("c/four", SEGMENT)];
/// So many that one syncfs takes the place of single syncs.
const MANY: &[(&str, usize)] = &[
    ("0", 100),
    ("1", 0),
    ("2", 4096),
    ("3", 5000),
    ("d/4", 1),
    ("d/5", 2),
    ("d/6", 9000),
    ("d/7", 3),
    ("d/8", 4),
    ("d/9", 5),
    ("d/e/10", 6),
];

const SCENES: [Scene; 4] = [
    Scene { files: MIXED, pull: false },
    Scene { files: MIXED, pull: true },
    Scene { files: MANY, pull: false },
    Scene { files: MANY, pull: true },
];

struct Side {
    session: Session,
    store: LocalFiles,
    queue: VecDeque<Segment>,
}

/// Two hosts; 0 asks, 1 answers.
struct Pair {
    scene: Scene,
    hosts: [SimulatedFiles; 2],
    serving: Option<Arc<ServingFiles>>,
    pool: BufferPool,
    chance: Chance,
    now: Instant,
    expected: BTreeMap<PathBuf, Vec<u8>>,
    said: BTreeSet<PathBuf>,
    /// Inodes of final names that were there at the last look.
    there: BTreeMap<PathBuf, u64>,
    /// The requester had forgotten its job and could not say so any more: the next run is another job.
    is_forgotten: bool,
}

impl Pair {
    fn new(scene: Scene, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let time = Arc::new(AtomicU64::new(0));
        let hosts = [1, 2].map(|device| SimulatedFiles::new(device, chance.fork(), Arc::clone(&time)));
        let (sender, folder) = if scene.pull { (1, "/exports/tree") } else { (0, "/here/tree") };
        let mut expected = BTreeMap::new();
        for (number, (name, size)) in (0_u8..).zip(scene.files) {
            let bytes: Vec<u8> = (0..*size).map(|at| (at % 251) as u8 ^ number ^ 0x55).collect();
            hosts[sender].write_file(&Path::new(folder).join(name), &bytes).expect("a source");
            expected.insert(receiving_folder(scene).join("tree").join(name), bytes);
        }
        for (host, folder) in [(0, "/here/into"), (0, "/state"), (1, "/exports"), (1, "/state")] {
            make_directories(&hosts[host], Path::new(folder)).expect("a folder");
        }
        hosts.iter().for_each(SimulatedFiles::settle);
        Self {
            scene,
            hosts,
            serving: None,
            pool: BufferPool::new(),
            chance,
            now: Instant(1_000_000_000),
            expected,
            said: BTreeSet::new(),
            there: BTreeMap::new(),
            is_forgotten: false,
        }
    }

    fn receiver(&self) -> usize {
        usize::from(!self.scene.pull)
    }

    fn serving(&mut self) -> std::io::Result<Arc<ServingFiles>> {
        if let Some(serving) = &self.serving {
            return Ok(Arc::clone(serving));
        }
        let files = &self.hosts[1];
        let export = Export::open_on(files, b"box", Path::new("/exports"), true)?;
        let serving = ServingFiles::new_on(Arc::new(files.clone()), vec![export], Path::new("/state"))?;
        Ok(Arc::clone(self.serving.insert(Arc::new(serving))))
    }

    fn job(&self) -> Job {
        let options = JobOptions::RECURSIVE | JobOptions::PRESERVE | JobOptions::MUST_BE_DIRECTORY;
        let (peer, export) = ("b".into(), b"box".to_vec());
        if self.scene.pull {
            let sources = vec![RelativePath::from_joined(b"tree").expect("a name")];
            return Job::Pull {
                peer,
                export,
                sources,
                target: Target::Local(b"/here/into".to_vec()),
                options,
            };
        }
        let origin = SourceOrigin::Local(vec![b"/here/tree".to_vec()]);
        Job::Push { peer, origin, export, destination: RelativePath::root(), options }
    }

    /// One run of the command; `None` if somebody lost power.
    fn run(&mut self) -> Option<Outcome> {
        let Ok(serving) = self.serving() else {
            self.lose_power();
            return None;
        };
        let mut config = SessionConfig::new(self.pool.clone());
        config.segment_bytes = SEGMENT;
        let requester = Session::requester(config.clone(), self.job());
        let files: Arc<dyn FileSystem> = Arc::new(self.hosts[0].clone());
        let command = LocalFiles::command_on(files, self.pool.clone(), SEGMENT, Path::new("/state"));
        let serve = LocalFiles::serving(self.pool.clone(), SEGMENT, serving);
        let responder = Session::responder(config);
        let mut sides = [(requester, command), (responder, serve)].map(|(session, store)| Side {
            session,
            store,
            queue: VecDeque::new(),
        });
        let mut outcome = None;
        let mut idle = 0;
        let mut is_over = false;
        while idle < 50 && !sides.iter().all(|side| side.session.is_finished()) {
            let mut moved = false;
            for side in 0..2 {
                moved |= self.work(&mut sides[side]);
                if self.hosts.iter().any(|host| !host.has_power()) {
                    self.end_of_power(sides);
                    return None;
                }
                moved |= deliver(self.now, &mut sides, side);
            }
            while let Some(event) = sides[0].session.poll_event() {
                match event {
                    SessionEvent::FileDone { path } => {
                        let path = String::from_utf8(path.as_bytes().to_vec()).expect("plain names");
                        self.said.insert(receiving_folder(self.scene).join(path));
                    }
                    SessionEvent::Finished(done) => outcome = Some(done),
                    _ => {}
                }
            }
            if sides[0].session.is_finished() && !is_over {
                is_over = true;
                sides[1].session.handle_lost(self.now, LossReason::Closed);
            }
            idle = if moved { 0 } else { idle + 1 };
            if !moved {
                self.tick(&mut sides);
            }
        }
        outcome
    }

    fn tick(&mut self, sides: &mut [Side]) {
        let wake = sides.iter().filter_map(|side| side.session.next_wakeup()).min();
        self.now = wake.unwrap_or(self.now).max(self.now + Duration::from_millis(10));
        sides.iter_mut().for_each(|side| side.session.handle_timeout(self.now));
    }

    /// One piece of local work.
    fn work(&mut self, side: &mut Side) -> bool {
        let Some(request) = side.session.poll_local(self.now) else { return false };
        let reply = side.store.execute(request);
        if self.hosts.iter().all(SimulatedFiles::has_power) {
            side.session.handle_local(self.now, reply);
        }
        true
    }

    /// One host is gone in the middle of its work; the other notices that the connection is lost, and ends
    /// in order.
    fn end_of_power(&mut self, sides: [Side; 2]) {
        let is_gone = [0, 1].map(|host| !self.hosts[host].has_power());
        let [first, second] = sides;
        // The processes of a host without power end before anything is looked at.
        let mut left: Vec<Side> = [(first, is_gone[0]), (second, is_gone[1])]
            .into_iter()
            .filter(|side| !side.1)
            .map(|side| side.0)
            .collect();
        if is_gone[1] {
            self.serving = None;
        }
        self.lose_power();
        left.iter_mut().for_each(|side| side.session.handle_lost(self.now, LossReason::Lost));
        for _ in 0..200 {
            for side in &mut left {
                while self.work(side) {}
                while side.session.poll_event().is_some() {}
            }
            if left.iter().all(|side| side.session.is_finished()) {
                return;
            }
            self.tick(&mut left);
        }
    }

    fn lose_power(&mut self) {
        for host in 0..2 {
            if !self.hosts[host].has_power() {
                self.check("before the power loss", false);
                self.hosts[host].lose_power(&mut self.chance);
                let has_files = self.expected.keys().all(|path| self.there.contains_key(path));
                self.is_forgotten |= host == 0 && has_files && !self.has_record();
                self.check("after the power loss", host == self.receiver());
            }
        }
    }

    /// Whether the requester remembers its job: what is forgotten leaves an empty record at most.
    fn has_record(&self) -> bool {
        let mut found = Vec::new();
        let looked = self.hosts[0].collect(Path::new("/state/jobs"), "", &mut found);
        let is_record =
            |file: &FoundFile| file.stat.size > 0 && file.path.extension().is_none_or(|end| end != "journal");
        looked.is_ok() && found.iter().any(is_record)
    }

    /// A file under its final name is whole and the one that was there before; only a power loss takes one
    /// away, and none that somebody was told of or that the journal calls published.
    fn check(&mut self, when: &str, may_be_gone: bool) {
        let files = &self.hosts[self.receiver()];
        let mut found = Vec::new();
        files.collect(&receiving_folder(self.scene), PARTIAL_FOLDER, &mut found).expect("the folder");
        let scope = format!("{when}: ");
        for file in
            found.iter().filter(|file| file.path.starts_with(receiving_folder(self.scene).join("tree")))
        {
            let expected =
                self.expected.get(&file.path).unwrap_or_else(|| panic!("{scope}{file:?} is a stray"));
            let is_same = files.with_content(&file.path, |have| have == expected).expect("it was found");
            assert!(is_same, "{scope}{file:?} is not whole");
            let before = self.there.insert(file.path.clone(), file.stat.inode);
            assert!(
                self.is_forgotten || before.is_none_or(|inode| inode == file.stat.inode),
                "{scope}{file:?} came twice"
            );
        }
        let is_there = |path: &PathBuf| found.iter().any(|file| file.path == *path);
        if may_be_gone {
            self.there.retain(|path, _| is_there(path));
        }
        let gone = self.there.keys().chain(&self.said).find(|path| !is_there(path));
        assert!(gone.is_none(), "{scope}{gone:?} is gone");
        let inodes: BTreeSet<u64> = found.iter().map(|file| file.stat.inode).collect();
        for entry in self.journalled() {
            if let Entry::Committed { inode, .. } = entry {
                let is_true = inodes.contains(&inode) || self.is_forgotten;
                assert!(is_true, "{scope}the journal has COMMITTED for inode {inode}, which is not there");
            }
        }
    }

    /// The last words in the journals of the receiver.
    fn journalled(&self) -> Vec<Entry> {
        let files = &self.hosts[self.receiver()];
        let (mut found, mut entries) = (Vec::new(), BTreeMap::new());
        files.collect(Path::new("/state"), "", &mut found).expect("the folder");
        for file in found.iter().filter(|file| file.path.to_string_lossy().ends_with("journal")) {
            let bytes = files.with_content(&file.path, <[u8]>::to_vec).expect("it was found");
            let mut at = 0;
            while let Some((id, entry, _, length)) = parse(&bytes[at..]) {
                entries.insert(id, entry);
                at += length;
            }
        }
        entries.into_values().collect()
    }
}

fn receiving_folder(scene: Scene) -> PathBuf {
    PathBuf::from(if scene.pull { "/here/into" } else { "/exports" })
}

fn deliver(now: Instant, sides: &mut [Side; 2], from: usize) -> bool {
    let mut moved = false;
    while sides[from].queue.len() < WINDOW
        && let Some(segment) = sides[from].session.poll_segment(now)
    {
        sides[from].queue.push_back(segment);
    }
    while sides[1 - from].session.wants_segment()
        && let Some(segment) = sides[from].queue.pop_front()
    {
        sides[1 - from].session.handle_segment(now, segment).expect("equals do not break the protocol");
        moved = true;
    }
    moved
}

/// The power of `host` fails after `changes`, and after another number in the second run for some seeds;
/// `false` if there were not so many changes.
fn run(scene: Scene, host: usize, changes: u64, seed: u64, ignored: Option<IgnoredSync>) -> bool {
    let mut pair = Pair::new(scene, seed);
    pair.hosts.iter().for_each(|host| host.ignore_syncs(ignored));
    pair.hosts[host].fail_power_after(changes);
    let first = pair.run();
    if let Some(outcome) = first {
        assert_eq!(outcome.verdict, Verdict::Done, "{outcome:?}");
        return false;
    }
    if pair.chance.below(2) == 0 {
        let host = pair.chance.index(2);
        let changes = pair.chance.range(1, 30);
        pair.hosts[host].fail_power_after(changes);
    }
    let mut outcomes = Vec::new();
    for turn in 0..RUNS_MAX {
        if turn > 0 {
            pair.hosts.iter().for_each(SimulatedFiles::keep_power);
        }
        let Some(outcome) = pair.run() else { continue };
        pair.check("after a run", false);
        if outcome.verdict == Verdict::Done {
            pair.said.extend(pair.expected.keys().cloned());
            pair.check("after the last run", false);
            return true;
        }
        outcomes.push(outcome);
    }
    panic!("never done: {outcomes:#?}");
}

fn number(name: &str, other: u64) -> u64 {
    std::env::var(name).ok().map_or(other, |text| text.parse().expect("a number"))
}

/// Runs every step of a scene; gives how many there are, and what was broken: the first only where it is
/// expected.
fn run_every_step(scene: Scene, host: usize, seeds: u64, ignored: Option<IgnoredSync>) -> (u64, Vec<String>) {
    let mut broken = Vec::new();
    for changes in 1.. {
        let mut is_beyond = false;
        for seed in 0..seeds {
            let attempt = AssertUnwindSafe(|| run(scene, host, changes, seed, ignored));
            match catch_unwind(attempt) {
                Ok(is_within) => is_beyond |= !is_within,
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                    let pull = scene.pull;
                    broken.push(format!("pull {pull}, host {host}, change {changes}, seed {seed}: {text}"));
                }
            }
        }
        if is_beyond || ignored.is_some() && !broken.is_empty() {
            return (changes, broken);
        }
    }
    unreachable!("a job has an end");
}

#[test]
fn no_step_of_a_job_is_one_where_power_may_not_fail() {
    let seeds = number("DISKWIRE_POWER_SEEDS", 6);
    let mut broken = Vec::new();
    for scene in SCENES {
        for host in 0..2 {
            let (changes, found) = run_every_step(scene, host, seeds, None);
            println!("pull {}, {} files, host {host}: {changes} changes", scene.pull, scene.files.len());
            broken.extend(found);
        }
    }
    broken.iter().take(20).for_each(|text| println!("{text}"));
    assert!(broken.is_empty(), "{} of the runs broke a promise", broken.len());
}

#[test]
fn a_missing_sync_is_noticed() {
    let kinds =
        [IgnoredSync::Content, IgnoredSync::Directories, IgnoredSync::PartialFolder, IgnoredSync::State];
    for ignored in kinds {
        let found = SCENES.into_iter().find_map(|scene| {
            let receiver = usize::from(!scene.pull);
            run_every_step(scene, receiver, 20, Some(ignored)).1.into_iter().next()
        });
        println!("{ignored:?}: {found:?}");
        assert!(found.is_some(), "nobody noticed that {ignored:?} is not synced");
    }
}
