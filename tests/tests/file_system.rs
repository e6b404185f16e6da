//! The simulated file system does what the real one does, and forgets what it may forget.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::test_runner::Config;
use system_tests::chance::Chance;
use system_tests::file_system::SimulatedFiles;
use transfer_core::file_system::{
    Errno, FileKind, FileSystem, Handle, Mode, OFlags, RenameFlags, SystemFiles, make_directories,
};

// ---- the same as a real one -------------------------------------------------------------------------

/// Names of the sequences: few, so that they meet; the last is too long.
const NAMES: [&str; 5] = ["a", "b", "c", "d", LONG];
const LONG: &str = "an-name-that-is-too-long-an-name-that-is-too-long-an-name-that-is-too-long-an-name-that-is-too-long-\
                    an-name-that-is-too-long-an-name-that-is-too-long-an-name-that-is-too-long-an-name-that-is-too-long-\
                    an-name-that-is-too-long-an-name-that-is-too-long-an-name-that-is-too-long-";
/// Paths below the root.
const PATHS: [&str; 9] = ["a", "b", "a/b", "a/b/c", ".", "a/..", "..", "a/../../x", "/a"];

#[derive(Clone, Debug)]
enum Step {
    Allocate { slot: usize, offset: u64, length: u64 },
    Close { slot: usize },
    IsEntry { slot: usize, directory: usize, name: usize },
    Link { directory: usize, name: usize },
    Lock { slot: usize },
    MakeDirectory { directory: usize, name: usize },
    Names { slot: usize },
    Open { slot: usize, from: usize, path: usize, flags: usize },
    Read { slot: usize, offset: u64, length: usize },
    ReadLink { directory: usize, name: usize },
    RemoveDirectory { directory: usize, name: usize },
    RemoveFile { directory: usize, name: usize },
    Rename { directory: usize, name: usize, to: usize, to_name: usize, replaces: bool },
    SetLength { slot: usize, length: u64 },
    SetMode { slot: usize, mode: u32 },
    SetTimes { slot: usize, seconds: i64 },
    Stat { slot: usize },
    StatEntry { directory: usize, name: usize },
    Sync { slot: usize },
    Write { slot: usize, offset: u64, length: usize, byte: u8 },
}

/// Handles of a sequence; the first is the root.
const SLOTS: usize = 4;
const FLAGS: [OFlags; 8] = [
    OFlags::RDONLY,
    OFlags::RDWR,
    OFlags::WRONLY.union(OFlags::TRUNC),
    OFlags::RDWR.union(OFlags::CREATE),
    OFlags::RDWR.union(OFlags::CREATE),
    OFlags::RDWR.union(OFlags::CREATE).union(OFlags::EXCL),
    OFlags::RDONLY.union(OFlags::DIRECTORY),
    OFlags::RDONLY.union(OFlags::DIRECTORY),
];

fn step() -> impl Strategy<Value = Step> {
    let (slot, directory, name) = (0..SLOTS, 0..SLOTS, 0..NAMES.len());
    let entry = || (directory.clone(), name.clone());
    prop_oneof![
        6 => (1..SLOTS, directory.clone(), 0..PATHS.len(), 0..FLAGS.len())
            .prop_map(|(slot, from, path, flags)| Step::Open { slot, from, path, flags }),
        4 => entry().prop_map(|(directory, name)| Step::MakeDirectory { directory, name }),
        4 => (slot.clone(), 0..20_000_u64, 1..9000_usize, any::<u8>())
            .prop_map(|(slot, offset, length, byte)| Step::Write { slot, offset, length, byte }),
        2 => (slot.clone(), 0..20_000_u64, 0..9000_usize)
            .prop_map(|(slot, offset, length)| Step::Read { slot, offset, length }),
        3 => (entry(), entry(), any::<bool>()).prop_map(|((directory, name), (to, to_name), replaces)| {
            Step::Rename { directory, name, to, to_name, replaces }
        }),
        2 => entry().prop_map(|(directory, name)| Step::RemoveFile { directory, name }),
        1 => entry().prop_map(|(directory, name)| Step::RemoveDirectory { directory, name }),
        1 => entry().prop_map(|(directory, name)| Step::Link { directory, name }),
        1 => entry().prop_map(|(directory, name)| Step::ReadLink { directory, name }),
        1 => entry().prop_map(|(directory, name)| Step::StatEntry { directory, name }),
        1 => (slot.clone(), entry())
            .prop_map(|(slot, (directory, name))| Step::IsEntry { slot, directory, name }),
        1 => (slot.clone(), 0..20_000_u64).prop_map(|(slot, length)| Step::SetLength { slot, length }),
        1 => (slot.clone(), 0..9000_u64, 1..20_000_u64)
            .prop_map(|(slot, offset, length)| Step::Allocate { slot, offset, length }),
        1 => (slot.clone(), 0..0o1000_u32).prop_map(|(slot, mode)| Step::SetMode { slot, mode: mode | 0o700 }),
        1 => (slot.clone(), 0..2_000_000_000_i64)
            .prop_map(|(slot, seconds)| Step::SetTimes { slot, seconds }),
        1 => slot.clone().prop_map(|slot| Step::Stat { slot }),
        1 => slot.clone().prop_map(|slot| Step::Names { slot }),
        1 => slot.clone().prop_map(|slot| Step::Lock { slot }),
        1 => slot.clone().prop_map(|slot| Step::Sync { slot }),
        1 => (1..SLOTS).prop_map(|slot| Step::Close { slot }),
        1 => Just(Step::Names { slot: 0 }),
    ]
}

/// A file system with open handles, and what it answers in words.
struct Bench {
    handles: [Handle; SLOTS],
}

impl Bench {
    fn new(files: &dyn FileSystem, root: &Path) -> Self {
        let root = files.open(root, OFlags::RDONLY | OFlags::DIRECTORY).expect("a root");
        Self { handles: std::array::from_fn(|_| Arc::clone(&root)) }
    }

    fn entry(&self, directory: usize, name: usize) -> Result<String, Errno> {
        let directory = &self.handles[directory];
        let stat = directory.stat_entry(NAMES[name].as_bytes())?;
        Ok(format!("{:?} {} {:o}", stat.kind, if stat.is_directory() { 0 } else { stat.size }, stat.mode))
    }

    fn take(&mut self, step: &Step) -> Result<String, Errno> {
        let handle = |slot: &usize| Arc::clone(&self.handles[*slot]);
        let done = |()| String::new();
        let bytes = |name: &usize| NAMES[*name].as_bytes();
        match step {
            Step::Allocate { slot, offset, length } => handle(slot).allocate(*offset, *length).map(done),
            Step::Close { slot } => {
                self.handles[*slot] = Arc::clone(&self.handles[0]);
                Ok(String::new())
            }
            Step::IsEntry { slot, directory, name } => {
                handle(slot).is_entry(&*handle(directory), bytes(name)).map(|is| is.to_string())
            }
            Step::Link { directory, name } => handle(directory).make_link(bytes(name), b"b").map(done),
            Step::Lock { slot } => handle(slot).try_lock().map(done),
            Step::MakeDirectory { directory, name } => {
                handle(directory).make_directory(bytes(name), Mode::from_raw_mode(0o700)).map(done)
            }
            Step::Names { slot } => {
                let mut names = handle(slot).names()?;
                names.sort();
                Ok(format!("{names:?}"))
            }
            Step::Open { slot, from, path, flags } => {
                let mode = Mode::from_raw_mode(0o600);
                let opened = handle(from).open_beneath(PATHS[*path].as_bytes(), FLAGS[*flags], mode)?;
                self.handles[*slot] = opened;
                Ok(String::new())
            }
            Step::Read { slot, offset, length } => {
                let mut bytes = vec![0; *length];
                let count = handle(slot).read_at(&mut bytes, *offset)?;
                Ok(format!("{:?}", &bytes[..count]))
            }
            Step::ReadLink { directory, name } => {
                Ok(format!("{:?}", handle(directory).read_link(bytes(name))?))
            }
            Step::RemoveDirectory { directory, name } => {
                handle(directory).remove_directory(bytes(name)).map(done)
            }
            Step::RemoveFile { directory, name } => handle(directory).remove_file(bytes(name)).map(done),
            Step::Rename { directory, name, to, to_name, replaces } => {
                let flags = if *replaces { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
                handle(directory).rename(bytes(name), &*handle(to), bytes(to_name), flags).map(done)
            }
            Step::SetLength { slot, length } => handle(slot).set_length(*length).map(done),
            Step::SetMode { slot, mode } => handle(slot).set_mode(Mode::from_raw_mode(*mode)).map(done),
            Step::SetTimes { slot, seconds } => {
                handle(slot).set_times(*seconds, 7)?;
                let stat = handle(slot).stat()?;
                Ok(format!("{} {}", stat.mtime_s, stat.mtime_ns))
            }
            Step::Stat { slot } => {
                let stat = handle(slot).stat()?;
                let size = if stat.is_directory() { 0 } else { stat.size };
                Ok(format!("{:?} {size} {:o}", stat.kind, if *slot == 0 { 0 } else { stat.mode }))
            }
            Step::StatEntry { directory, name } => self.entry(*directory, *name),
            Step::Sync { slot } => handle(slot).sync().map(done),
            Step::Write { slot, offset, length, byte } => {
                Ok(handle(slot).write_at(&vec![*byte; *length], *offset)?.to_string())
            }
        }
    }
}

/// Everything below a directory, with its content.
fn tree(directory: &Handle, path: &str, lines: &mut BTreeMap<String, String>) {
    for name in directory.names().expect("names") {
        let stat = directory.stat_entry(&name).expect("it is there");
        let here = format!("{path}/{}", String::from_utf8_lossy(&name));
        let content = match stat.kind {
            FileKind::Directory => {
                let below = directory.open_beneath(&name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
                tree(&below.expect("a directory"), &here, lines);
                String::new()
            }
            FileKind::File => {
                let file = directory.open_beneath(&name, OFlags::RDONLY, Mode::empty());
                format!("{:?}", file.expect("a file").read_whole().expect("readable"))
            }
            FileKind::Link => format!("{:?}", directory.read_link(&name).expect("a link")),
            FileKind::Other => unreachable!("nothing makes one"),
        };
        lines.insert(here, format!("{:?} {:o} {content}", stat.kind, stat.mode));
    }
}

/// Whether a step renames a directory, which the simulated one refuses because nothing needs it.
fn renames_directory(bench: &Bench, step: &Step) -> bool {
    let Step::Rename { directory, name, .. } = step else { return false };
    bench.handles[*directory].stat_entry(NAMES[*name].as_bytes()).is_ok_and(|stat| stat.is_directory())
}

fn simulated() -> SimulatedFiles {
    SimulatedFiles::new(1, Chance::new(1), Arc::new(AtomicU64::new(0)))
}

proptest! {
    #![proptest_config(Config { cases: 300, failure_persistence: None, ..Config::default() })]

    #[test]
    fn the_same_steps_give_the_same_answers(steps in proptest::collection::vec(step(), 1..80)) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut real = Bench::new(&SystemFiles, folder.path());
        let mut simulated = Bench::new(&simulated(), Path::new("/"));
        for (number, step) in steps.iter().enumerate() {
            if renames_directory(&real, step) {
                continue;
            }
            assert_eq!(real.take(step), simulated.take(step), "step {number}: {step:?}");
        }
        let trees = [real, simulated].map(|bench| {
            let mut lines = BTreeMap::new();
            tree(&bench.handles[0], "", &mut lines);
            lines
        });
        assert_eq!(trees[0], trees[1]);
    }
}

// ---- what a power loss leaves -----------------------------------------------------------------------

/// What is at `path` after a power loss, for many seeds: each outcome and how often.
fn outcomes(
    make: impl Fn(&SimulatedFiles),
    look: impl Fn(&SimulatedFiles) -> String,
) -> BTreeMap<String, u32> {
    let mut seen = BTreeMap::new();
    for seed in 0..200 {
        let files = simulated();
        make(&files);
        files.lose_power(&mut Chance::new(seed));
        *seen.entry(look(&files)).or_default() += 1;
    }
    seen
}

fn root(files: &SimulatedFiles) -> Handle {
    files.open(Path::new("/"), OFlags::RDONLY | OFlags::DIRECTORY).expect("a root")
}

fn made(files: &SimulatedFiles, name: &str, bytes: &[u8]) -> Handle {
    let flags = OFlags::RDWR | OFlags::CREATE;
    let file = root(files).open_beneath(name.as_bytes(), flags, Mode::from_raw_mode(0o600)).expect("a file");
    file.write_all_at(bytes, 0).expect("written");
    file
}

fn content(files: &SimulatedFiles, path: &str) -> String {
    files
        .with_content(Path::new(path), |bytes| format!("{bytes:?}"))
        .unwrap_or_else(|errno| errno.to_string())
}

fn is_there(files: &SimulatedFiles, path: &str) -> bool {
    files.stat(Path::new(path)).is_ok()
}

#[test]
fn what_was_synced_stays() {
    let make = |files: &SimulatedFiles| {
        made(files, "x", b"one").sync().expect("synced");
        root(files).sync().expect("synced");
    };
    let seen = outcomes(make, |files| content(files, "/x"));
    assert_eq!(seen.keys().map(String::as_str).collect::<Vec<_>>(), ["[111, 110, 101]"]);
}

#[test]
fn a_name_that_was_not_synced_may_be_gone() {
    let make = |files: &SimulatedFiles| made(files, "x", b"one").sync().expect("synced");
    let seen = outcomes(make, |files| is_there(files, "/x").to_string());
    assert!(seen["true"] > 20 && seen["false"] > 20, "{seen:?}");
    let make = |files: &SimulatedFiles| {
        make_directories(files, Path::new("/d")).expect("a directory");
        let above = root(files);
        above.make_directory(b"e", Mode::RWXU).expect("a directory");
        let below = above.open_beneath(b"e", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("it");
        below.make_directory(b"f", Mode::RWXU).expect("a directory");
        below.sync().expect("synced");
    };
    let seen = outcomes(make, |files| {
        format!("{} {} {}", is_there(files, "/d"), is_there(files, "/e"), is_there(files, "/e/f"))
    });
    assert_eq!(seen.keys().map(String::as_str).collect::<Vec<_>>(), ["true false false", "true true true"]);
}

#[test]
fn a_rename_is_atomic() {
    let make = |files: &SimulatedFiles| {
        files.write_file(Path::new("/from/x"), b"new").expect("a file");
        files.write_file(Path::new("/to/x"), b"old").expect("a file");
        files.settle();
        let open =
            |path| files.open(Path::new(path), OFlags::RDONLY | OFlags::DIRECTORY).expect("it is there");
        open("/from").rename(b"x", &*open("/to"), b"x", RenameFlags::empty()).expect("renamed");
    };
    let look = |files: &SimulatedFiles| format!("{} {}", is_there(files, "/from/x"), content(files, "/to/x"));
    let seen = outcomes(make, look);
    assert_eq!(
        seen.keys().map(String::as_str).collect::<Vec<_>>(),
        ["false [110, 101, 119]", "true [111, 108, 100]"]
    );
    let synced = |files: &SimulatedFiles| {
        make(files);
        let to = files.open(Path::new("/to"), OFlags::RDONLY | OFlags::DIRECTORY).expect("it is there");
        to.sync().expect("synced");
    };
    assert_eq!(outcomes(synced, look).into_keys().collect::<Vec<_>>(), ["false [110, 101, 119]"]);
    // The directory that it came from goes only when the name has come.
    let removed = |files: &SimulatedFiles| {
        make(files);
        root(files).remove_directory(b"from").expect("empty");
    };
    let look = |files: &SimulatedFiles| {
        content(files, "/from/x") == "[110, 101, 119]" || content(files, "/to/x") == "[110, 101, 119]"
    };
    assert_eq!(outcomes(removed, |files| look(files).to_string()).into_keys().collect::<Vec<_>>(), ["true"]);
}

#[test]
fn blocks_that_were_not_synced_are_old_or_new() {
    let make = |files: &SimulatedFiles| {
        let file = made(files, "x", &[1; 8192]);
        file.sync().expect("synced");
        root(files).sync().expect("synced");
        file.write_all_at(&[2; 12288], 0).expect("written");
    };
    let look = |files: &SimulatedFiles| {
        files
            .with_content(Path::new("/x"), |bytes| {
                let blocks: Vec<_> = bytes
                    .chunks(4096)
                    .map(|block| (block[0], block.iter().all(|b| *b == block[0])))
                    .collect();
                format!("{blocks:?}")
            })
            .expect("it is there")
    };
    let seen = outcomes(make, look);
    assert!(seen.keys().all(|line| !line.contains("false")), "{seen:?}");
    for expected in ["[(1, true), (1, true)]", "[(2, true), (1, true)]", "[(1, true), (2, true), (0, true)]"]
    {
        assert!(seen.contains_key(expected), "{expected} in {seen:?}");
    }
}

#[test]
fn a_failed_sync_gives_up_what_it_should_have_written() {
    let make = |files: &SimulatedFiles| {
        let file = made(files, "x", b"one");
        root(files).sync().expect("synced");
        files.fail_syncs(1);
        assert_eq!(file.sync(), Err(Errno::IO));
        assert_eq!(content(files, "/x"), "[111, 110, 101]");
        file.sync().expect("the second one says that all is well");
    };
    assert_eq!(outcomes(make, |files| content(files, "/x")).into_keys().collect::<Vec<_>>(), ["[0, 0, 0]"]);
}

#[test]
fn space_ends_and_comes_back() {
    let files = simulated();
    files.limit_space(10, false);
    let file = made(&files, "x", b"12345678");
    assert_eq!((file.write_at(b"9abc", 8), file.write_at(b"b", 10)), (Ok(2), Err(Errno::NOSPC)));
    assert_eq!(file.write_at(b"over", 0), Ok(4));
    files.limit_space(10, true);
    assert_eq!((file.write_at(b"b", 10), file.allocate(8, 3)), (Err(Errno::DQUOT), Err(Errno::DQUOT)));
    drop(file);
    root(&files).remove_file(b"x").expect("removed");
    made(&files, "y", b"1234567890");
}

#[test]
fn locks_and_handles_end_with_their_host() {
    let files = simulated();
    let first = made(&files, "x", b"one");
    let second = made(&files, "x", b"one");
    root(&files).sync().expect("synced");
    first.try_lock().expect("free");
    assert_eq!(second.try_lock(), Err(Errno::WOULDBLOCK));
    drop(first);
    second.try_lock().expect("free again");
    let third = made(&files, "x", b"one");
    assert_eq!(third.try_lock_shared(), Err(Errno::WOULDBLOCK));
    second.try_lock_shared().expect("its own");
    third.try_lock_shared().expect("shared");
    assert_eq!(second.try_lock(), Err(Errno::WOULDBLOCK));
    third.try_lock().expect("the other one lost its own when it failed");
    drop(third);
    files.lose_power(&mut Chance::new(1));
    assert_eq!(second.write_at(b"two", 0), Err(Errno::IO));
    made(&files, "x", b"three").try_lock().expect("free after the power loss");
    drop(second);
}

/// The kernel looks at the directory before it looks at a name.
#[test]
fn nothing_is_in_a_removed_directory_and_no_file_takes_the_place_of_one_above_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let benches = [Bench::new(&SystemFiles, folder.path()), Bench::new(&simulated(), Path::new("/"))];
    let answers = benches.map(|mut bench| {
        let [a, c, long] = [0, 2, 4];
        let steps = [
            Step::MakeDirectory { directory: 0, name: a },
            Step::Open { slot: 1, from: 0, path: 0, flags: 6 },
            Step::Open { slot: 2, from: 1, path: 0, flags: 3 },
            Step::Rename { directory: 1, name: a, to: 0, to_name: a, replaces: true },
            Step::Rename { directory: 1, name: a, to: 0, to_name: a, replaces: false },
            Step::RemoveFile { directory: 1, name: a },
            Step::RemoveDirectory { directory: 0, name: a },
            Step::RemoveFile { directory: 1, name: long },
            Step::MakeDirectory { directory: 1, name: long },
            Step::Open { slot: 2, from: 0, path: 1, flags: 3 },
            Step::Rename { directory: 0, name: 1, to: 1, to_name: long, replaces: true },
            Step::Rename { directory: 0, name: 1, to: 0, to_name: c, replaces: true },
        ];
        steps.map(|step| format!("{:?}", bench.take(&step)))
    });
    assert_eq!(answers[0], answers[1]);
    assert!(answers[0][3].contains("DirectoryNotEmpty") && answers[0][7].contains("NotFound"), "{answers:?}");
}
