//! Push and pull of files, trees and streams between two sessions with real files.

mod pair;

use pair::{World, assert_no_partials, assert_same, bytes, make_tree, path};
use std::fs;
use std::sync::{Arc, Mutex};
use transfer_core::transfer::message::JobOptions;
use transfer_core::transfer::{ErrorCode, Job, SessionEvent, SourceOrigin, Target, Verdict};

const TREE: JobOptions = JobOptions::RECURSIVE.union(JobOptions::PRESERVE);

#[test]
fn one_file_is_pushed_into_a_directory_and_under_a_new_name() {
    for size in [0, 1, 4096, pair::SEGMENT - 8, pair::SEGMENT, 3 * pair::SEGMENT, 20 * pair::SEGMENT + 321] {
        let mut world = World::new();
        let source = world.here().join("source");
        fs::write(&source, bytes(size, 1)).expect("a file");
        let outcome = world.push(&[&source], "", JobOptions::empty());
        assert_eq!(
            (outcome.verdict, outcome.files, outcome.bytes),
            (Verdict::Done, 1, size as u64),
            "{outcome:?}"
        );
        let outcome = world.push(&[&source], "renamed", JobOptions::empty());
        assert_eq!(outcome.verdict, Verdict::Done);
        for name in ["source", "renamed"] {
            assert_eq!(fs::read(world.export().join(name)).expect("published"), bytes(size, 1));
        }
        assert_no_partials(&world.export());
    }
}

#[test]
fn one_file_is_pulled() {
    for size in [0, 7, pair::SEGMENT + 1, 9 * pair::SEGMENT] {
        let mut world = World::new();
        fs::create_dir(world.export().join("sub")).expect("a folder");
        fs::write(world.export().join("sub/source"), bytes(size, 2)).expect("a file");
        let here = world.here();
        assert_eq!(world.pull(&["sub/source"], &here, JobOptions::empty()).verdict, Verdict::Done);
        let outcome = world.pull(&["sub/source"], &here.join("other"), JobOptions::empty());
        assert_eq!((outcome.verdict, outcome.files, outcome.bytes), (Verdict::Done, 1, size as u64));
        for name in ["source", "other"] {
            assert_eq!(fs::read(here.join(name)).expect("published"), bytes(size, 2));
        }
        assert_no_partials(&here);
    }
}

#[test]
fn a_tree_is_pushed_and_pulled_with_modes_times_links_and_empty_directories() {
    let mut world = World::new();
    let (source, back) = (world.here().join("tree"), world.here().join("back"));
    make_tree(&source, world.segment);
    let outcome = world.push(&[&source], "", TREE);
    assert_eq!((outcome.verdict, outcome.files), (Verdict::Done, 9), "{outcome:?} {:?}", world.events);
    assert_same(&source, &world.export().join("tree"), true);
    assert_no_partials(&world.export());
    let outcome = world.pull(&["tree"], &back, TREE);
    assert_eq!(outcome.verdict, Verdict::Done, "{outcome:?} {:?}", world.events);
    assert_same(&source, &back, true);
    // Once more onto what is there.
    assert_eq!(world.push(&[&source], "", TREE).verdict, Verdict::Done);
    assert_same(&source, &world.export().join("tree"), true);
    let outcome = world.pull(&[""], &world.here().join("whole"), TREE);
    assert_eq!(outcome.verdict, Verdict::Done);
    assert_same(&source, &world.here().join("whole/tree"), true);
}

#[test]
fn the_content_of_a_directory_is_pushed_without_its_name() {
    let mut world = World::new();
    let source = world.here().join("tree");
    make_tree(&source, world.segment);
    assert_eq!(world.push(&[&source.join(".")], "new", TREE).verdict, Verdict::Done);
    assert_same(&source, &world.export().join("new"), true);
}

#[test]
fn five_thousand_small_files_go_in_packs() {
    let mut world = World::new();
    world.segment = 1 << 20;
    let source = world.here().join("many");
    for number in 0..5000_usize {
        let folder = source.join(format!("{:02}", number % 37));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(number.to_string()), bytes(number % 5000, number as u8)).expect("a file");
    }
    let outcome = world.push(&[&source], "", JobOptions::RECURSIVE);
    assert_eq!((outcome.verdict, outcome.files), (Verdict::Done, 5000));
    assert!(world.delivered < 300, "{} segments", world.delivered);
    assert_same(&source, &world.export().join("many"), false);
    assert_no_partials(&world.export());
}

#[test]
fn a_stream_is_pushed() {
    for size in [0, 10, pair::SEGMENT, 6 * pair::SEGMENT + 5] {
        let mut world = World::new();
        world.input = Some(bytes(size, 3));
        let outcome = world.run(world.push_job(SourceOrigin::Stream, "stream", JobOptions::empty()));
        assert_eq!((outcome.verdict, outcome.bytes), (Verdict::Done, size as u64), "{outcome:?}");
        assert_eq!(fs::read(world.export().join("stream")).expect("published"), bytes(size, 3));
        world.input = Some(Vec::new());
        let outcome = world.run(world.push_job(SourceOrigin::Stream, "", JobOptions::empty()));
        assert_eq!(outcome.reason.map(|(code, _)| code), Some(ErrorCode::IsADirectory));
    }
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_is_pulled_to_a_stream() {
    for size in [0, 10, 7 * pair::SEGMENT + 5] {
        let mut world = World::new();
        fs::write(world.export().join("source"), bytes(size, 4)).expect("a file");
        let output = Shared::default();
        world.output = Some(Box::new(output.clone()));
        let outcome = world.run(world.pull_job(&["source"], Target::Stream, JobOptions::empty()));
        assert_eq!((outcome.verdict, outcome.bytes), (Verdict::Done, size as u64), "{outcome:?}");
        assert_eq!(*output.0.lock().expect("not poisoned"), bytes(size, 4));
    }
}

#[test]
fn what_exists_stays_with_no_clobber() {
    let mut world = World::new();
    let source = world.here().join("source");
    for size in [10, 3 * pair::SEGMENT] {
        fs::write(&source, bytes(size, 5)).expect("a file");
        fs::write(world.export().join("source"), b"old").expect("a file");
        let outcome = world.push(&[&source], "", JobOptions::NO_CLOBBER);
        assert_eq!((outcome.verdict, outcome.files, outcome.skipped), (Verdict::Partly, 0, 1), "{outcome:?}");
        assert_eq!(fs::read(world.export().join("source")).expect("there"), b"old");
        assert_no_partials(&world.export());
    }
    assert_eq!(world.push(&[&source], "", JobOptions::empty()).verdict, Verdict::Done);
    assert_eq!(fs::read(world.export().join("source")).expect("there"), bytes(3 * pair::SEGMENT, 5));
}

#[test]
fn errors_have_their_codes_and_lose_nothing() {
    let mut world = World::new();
    let source = world.here().join("source");
    fs::write(&source, b"x").expect("a file");
    fs::create_dir_all(world.export().join("dir/source")).expect("a folder");
    let code =
        |outcome: transfer_core::transfer::Outcome| (outcome.verdict, outcome.reason.map(|(code, _)| code));
    let none = JobOptions::empty();
    assert_eq!(code(world.push(&[&source], "no/such", none)), (Verdict::Failed, Some(ErrorCode::NotFound)));
    let must = JobOptions::MUST_BE_DIRECTORY;
    assert_eq!(code(world.push(&[&source], "such", must)), (Verdict::Failed, Some(ErrorCode::NotFound)));
    assert_eq!(
        code(world.push(&[&source, &source], "such", none)),
        (Verdict::Failed, Some(ErrorCode::NotFound))
    );
    let outcome = world.push(&[&source], "dir", none);
    assert_eq!((outcome.verdict, outcome.failed), (Verdict::Failed, 1), "a directory is in the way");
    let outcome = world.push(&[&world.here()], "", none);
    assert_eq!((outcome.verdict, outcome.failed), (Verdict::Failed, 1), "not recursive");
    let outcome = world.push(&[&world.here().join("missing"), &source], "dir", none);
    assert_eq!((outcome.failed, outcome.files), (2, 0));
    let serving = world.serving(false);
    let job = world.push_job(SourceOrigin::Local(vec![b"x".to_vec()]), "", none);
    assert_eq!(code(world.run_with(job, &serving)), (Verdict::Failed, Some(ErrorCode::NotAllowed)));
    let here = world.here();
    let job = Job::Pull {
        peer: "b".into(),
        export: b"nope".to_vec(),
        sources: vec![path("x")],
        target: Target::Local(here.as_os_str().as_encoded_bytes().to_vec()),
        options: none,
    };
    assert_eq!(code(world.run(job)), (Verdict::Failed, Some(ErrorCode::ExportUnknown)));
    assert_no_partials(&here);
    let jobs = world.folder.path().join("state/command/jobs");
    assert_eq!(fs::read_dir(jobs).expect("a folder").count(), 0, "what did not begin leaves no record");
    let outcome = world.pull(&["missing"], &here, none);
    assert_eq!((outcome.verdict, outcome.failed), (Verdict::Failed, 1));
    let job = Job::List { export: b"nope".to_vec(), path: path("") };
    assert_eq!(code(world.run(job)), (Verdict::Failed, Some(ErrorCode::ExportUnknown)));
    assert_no_partials(&world.export());
}

#[test]
fn links_that_lead_out_and_special_files_are_left_out() {
    let mut world = World::new();
    let source = world.here().join("tree");
    fs::create_dir_all(source.join("deep")).expect("a folder");
    fs::write(source.join("file"), b"x").expect("a file");
    for (target, name) in [("/etc/passwd", "absolute"), ("../../../x", "deep/up"), ("a/../..", "through")] {
        std::os::unix::fs::symlink(target, source.join(name)).expect("a link");
    }
    std::os::unix::fs::symlink("../file", source.join("deep/good")).expect("a link");
    let _socket = std::os::unix::net::UnixListener::bind(source.join("socket")).expect("a socket");
    let outcome = world.push(&[&source], "", JobOptions::RECURSIVE);
    assert_eq!((outcome.verdict, outcome.files, outcome.skipped, outcome.failed), (Verdict::Partly, 1, 4, 0));
    assert!(world.export().join("tree/deep/good").exists());
    for name in ["absolute", "deep/up", "through", "socket"] {
        assert!(fs::symlink_metadata(world.export().join("tree").join(name)).is_err(), "{name}");
    }
    fs::remove_dir_all(world.export().join("tree")).expect("removed");
    std::os::unix::fs::symlink("/etc", world.export().join("away")).expect("a link");
    let here = world.here();
    let outcome = world.pull(&["away/passwd"], &here, JobOptions::empty());
    assert_eq!((outcome.verdict, outcome.files), (Verdict::Failed, 0));
    let outcome = world.push(&[&source.join("file")], "away/file", JobOptions::empty());
    assert_eq!(outcome.reason.map(|(code, _)| code), Some(ErrorCode::NotADirectory));
}

#[test]
fn a_directory_is_listed_without_the_partial_folder() {
    let mut world = World::new();
    fs::create_dir_all(world.export().join(".diskwire-partial")).expect("a folder");
    fs::create_dir_all(world.export().join("folder")).expect("a folder");
    for number in 0..3000 {
        fs::write(world.export().join(format!("file {number:04}")), b"12345").expect("a file");
    }
    let outcome = world.run(Job::List { export: b"box".to_vec(), path: path("") });
    assert_eq!((outcome.verdict, outcome.files), (Verdict::Done, 3001));
    let entries: Vec<_> = world
        .events
        .iter()
        .filter_map(
            |event| if let SessionEvent::Entries(entries) = event { Some(entries.clone()) } else { None },
        )
        .flatten()
        .collect();
    assert_eq!((entries.len(), entries[0].size, &entries[3000].name[..]), (3001, 5, &b"folder"[..]));
}
