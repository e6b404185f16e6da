//! Lost connections, interrupts, changing sources and full file systems: what is published is whole,
//! what is said agrees with the file system, and a re-run completes it.

mod pair;

use pair::{Side, World, assert_no_partials, assert_same, bytes, describe, make_tree};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use storage_mapping::Instant;
use transfer_core::journal::{Entry, Journal};
use transfer_core::payload::{Payload, Segment, SegmentKind};
use transfer_core::transfer::message::{Framed, JobOptions, Message, emit, parse_all};
use transfer_core::transfer::{
    ErrorCode, LocalFiles, Outcome, Session, SessionConfig, SessionEvent, SourceOrigin, Target, TransferId,
    Verdict,
};

const TREE: JobOptions = JobOptions::RECURSIVE.union(JobOptions::PRESERVE);

/// Every published file is one of the source's files, whole and with its attributes.
fn assert_all_whole(source: &Path, published: &Path) {
    if !published.exists() {
        return;
    }
    let wanted = describe(source, true);
    for line in describe(published, true).into_iter().filter(|line| line.contains(" file ")) {
        assert!(wanted.contains(&line), "{line} is not of the source");
    }
}

fn done_events(world: &World) -> u64 {
    world.events.iter().filter(|event| matches!(event, SessionEvent::FileDone { .. })).count() as u64
}

/// Loses the connection after every n-th segment, re-runs, and checks both.
fn lose_everywhere(pull: bool) {
    for limit in 1_usize.. {
        let mut world = World::new();
        world.segment = 16 << 10;
        let (from, to) = if pull { (world.export(), world.here()) } else { (world.here(), world.export()) };
        let source = from.join("tree");
        make_tree(&source, world.segment);
        let target = to.join("tree");
        let run = |world: &mut World| -> Outcome {
            if pull { world.pull(&["tree"], &to, TREE) } else { world.push(&[&source], "", TREE) }
        };
        world.lose_after = Some(limit);
        let first = run(&mut world);
        if first.verdict == Verdict::Done {
            assert!(limit > 6, "{limit} segments are all there is");
            assert_same(&source, &target, true);
            break;
        }

        assert!(matches!(first.verdict, Verdict::Retry | Verdict::InDoubt), "{limit}: {first:?}");
        assert_eq!(first.verdict == Verdict::InDoubt, first.in_doubt > 0);
        assert_eq!(first.files, done_events(&world));
        assert_all_whole(&source, &target);
        // The first time again with a loss a little later, then without.
        world.lose_after = Some(limit + 3);
        run(&mut world);
        assert_all_whole(&source, &target);
        world.lose_after = None;
        let second = run(&mut world);
        assert_eq!(
            (second.verdict, second.files),
            (Verdict::Done, 9),
            "{limit}: {second:?} {:?}",
            world.events
        );
        assert_same(&source, &target, true);
        assert_no_partials(&to);
        let jobs = world.folder.path().join("state/command/jobs");
        assert_eq!(fs::read_dir(jobs).expect("a folder").count(), 0, "the record of the job is gone");
    }
}

#[test]
fn a_push_that_is_lost_anywhere_is_completed_by_a_re_run() {
    lose_everywhere(false);
}

#[test]
fn a_pull_that_is_lost_anywhere_is_completed_by_a_re_run() {
    lose_everywhere(true);
}

/// Ends both processes after every n-th piece of local work, re-runs, and checks both.
fn kill_everywhere(pull: bool) {
    for limit in 1_usize.. {
        let mut world = World::new();
        world.segment = 16 << 10;
        let (from, to) = if pull { (world.export(), world.here()) } else { (world.here(), world.export()) };
        let source = from.join("tree");
        make_tree(&source, world.segment);
        let run = |world: &mut World| -> Outcome {
            if pull { world.pull(&["tree"], &to, TREE) } else { world.push(&[&source], "", TREE) }
        };
        world.kill_after = Some(limit);
        if run(&mut world).verdict == Verdict::Done {
            assert!(limit > 20, "{limit} pieces of work are all there is");
            return;
        }
        assert_all_whole(&source, &to.join("tree"));
        world.kill_after = None;
        let outcome = run(&mut world);
        assert_eq!(
            (outcome.verdict, outcome.files),
            (Verdict::Done, 9),
            "{limit}: {outcome:?} {:?}",
            world.events
        );
        assert_same(&source, &to.join("tree"), true);
        assert_no_partials(&to);
    }
}

#[test]
fn a_push_that_is_killed_anywhere_is_completed_by_a_re_run() {
    kill_everywhere(false);
}

#[test]
fn a_pull_that_is_killed_anywhere_is_completed_by_a_re_run() {
    kill_everywhere(true);
}

#[test]
fn an_intent_is_finished_at_the_next_opening() {
    let mut world = World::new();
    let folder = world.folder.path().join("state/serve/exports").join("626f78");
    let partials = world.export().join(".diskwire-partial");
    fs::create_dir_all(&folder).expect("a folder");
    fs::create_dir_all(&partials).expect("a folder");
    fs::create_dir(world.export().join("in the way")).expect("a folder");
    fs::write(world.export().join("kept"), b"old").expect("a file");
    let mut records = Vec::new();
    // Killed before the rename, where neither name is left, where it cannot be done, and where it must not
    // replace.
    let cases =
        [("present", true, true), ("gone", false, true), ("in the way", true, true), ("kept", true, false)];
    for (number, (name, present, replace)) in cases.into_iter().enumerate() {
        let id = TransferId([number as u8; 16]);
        let partial = partials.join(id.to_hex());
        if present {
            fs::write(&partial, name).expect("a partial file");
        }
        let inode = fs::metadata(&partial).map_or(1, |metadata| metadata.ino());
        let path = pair::path(name);
        records.push((id, Entry::Intent { inode, length: 7, root: [0; 32], replace, path }));
    }
    let ids: Vec<TransferId> = records.iter().map(|(id, _)| *id).collect();
    Journal::open(&folder.join("journal"), 1).expect("a journal").append(1, records).expect("appended");
    let source = world.here().join("other");
    fs::write(&source, b"other").expect("a file");
    assert_eq!(world.push(&[&source], "", JobOptions::empty()).verdict, Verdict::Done);
    assert_eq!(fs::read(world.export().join("present")).expect("published"), b"present");
    assert_eq!(fs::read(world.export().join("kept")).expect("there"), b"old");
    assert!(!world.export().join("gone").exists() && world.export().join("in the way").is_dir());
    assert_no_partials(&world.export());
    let journal = Journal::open(&folder.join("journal"), 1).expect("a journal");
    let committed = |at: usize| matches!(journal.find(&ids[at]), Some(Entry::Committed { .. }));
    let aborted = |at: usize| matches!(journal.find(&ids[at]), Some(Entry::Aborted { .. }));
    assert!(committed(0) && aborted(1) && aborted(2) && aborted(3));
    assert_eq!(journal.intents().count(), 0);
}

#[test]
fn a_large_file_goes_on_from_its_durable_prefix() {
    let mut world = World::new();
    let source = world.here().join("large");
    fs::write(&source, bytes(64 * world.segment + 11, 1)).expect("a file");
    world.lose_after = Some(50);
    assert_eq!(world.push(&[&source], "", JobOptions::empty()).verdict, Verdict::Retry);
    world.lose_after = None;
    assert_eq!(world.push(&[&source], "", JobOptions::empty()).verdict, Verdict::Done);
    assert!(world.delivered < 40, "{} segments for the rest", world.delivered);
    assert_eq!(fs::read(world.export().join("large")).expect("published"), bytes(64 * world.segment + 11, 1));
    assert_no_partials(&world.export());
}

/// Both processes are killed, so that nobody could say a word at the end: what is marked as durable while the file
/// comes, every second, is where the next run goes on.
#[test]
fn what_comes_is_made_durable_every_second() {
    let marks = |step_time: Duration| {
        let mut world = World::new();
        let length = 60 * world.segment;
        let source = world.here().join("large");
        fs::write(&source, bytes(length, 1)).expect("a file");
        (world.step_time, world.kill_after) = (step_time, Some(100));
        assert_eq!(world.push(&[&source], "", JobOptions::empty()).verdict, Verdict::Retry);
        let partial = fs::read_dir(world.export().join(".diskwire-partial")).expect("a folder");
        let mark =
            partial.map(|entry| entry.expect("an entry").path()).find(|path| path.extension().is_some());
        // Two halves, each with magic, size, durable bytes and number.
        let number =
            |half: &[u8], at: usize| u64::from_le_bytes(half[at..at + 8].try_into().expect("8 bytes"));
        let mark = mark.map(|path| fs::read(path).expect("readable")).unwrap_or_default();
        let latest = mark.chunks_exact(64).map(|half| (number(half, 24), number(half, 16))).max();
        world.kill_after = None;
        assert_eq!(world.push(&[&source], "", JobOptions::empty()).verdict, Verdict::Done);
        assert_eq!(fs::read(world.export().join("large")).expect("published"), bytes(length, 1));
        let (count, durable) = latest.unwrap_or_default();
        let saved = usize::try_from(durable).expect("small") / world.segment;
        assert!(world.delivered + saved <= 60 + 10, "{} segments, {saved} were there", world.delivered);
        (count, saved)
    };
    assert_eq!(marks(Duration::ZERO), (0, 0), "within one second nothing is marked");
    let (count, saved) = marks(Duration::from_millis(300));
    assert!(count >= 3 && saved >= 10, "{count} marks, {saved} segments");
    let (often, _) = marks(Duration::from_secs(2));
    assert!(often > count, "{often} marks");
}

#[test]
fn a_spoilt_partial_file_is_discarded_and_sent_again() {
    let mut world = World::new();
    let source = world.here().join("large");
    fs::write(&source, bytes(40 * world.segment, 1)).expect("a file");
    world.lose_after = Some(30);
    assert_eq!(world.push(&[&source], "", JobOptions::empty()).verdict, Verdict::Retry);
    for entry in fs::read_dir(world.export().join(".diskwire-partial")).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none() {
            let mut content = fs::read(&path).expect("readable");
            content[5] ^= 1;
            fs::write(&path, content).expect("writable");
        }
    }
    world.lose_after = None;
    let outcome = world.push(&[&source], "", JobOptions::empty());
    assert_eq!((outcome.verdict, outcome.files), (Verdict::Done, 1), "{outcome:?}");
    assert_eq!(fs::read(world.export().join("large")).expect("published"), bytes(40 * world.segment, 1));
    assert_no_partials(&world.export());
}

#[test]
fn an_interrupt_keeps_what_can_be_continued() {
    for after in 1..40 {
        let mut world = World::new();
        world.segment = 16 << 10;
        let source = world.here().join("tree");
        make_tree(&source, world.segment);
        world.interrupt_after = Some(after);
        let outcome = world.push(&[&source], "", TREE);
        assert!(matches!(outcome.verdict, Verdict::Retry | Verdict::Done), "{outcome:?}");
        assert_all_whole(&source, &world.export().join("tree"));
        let outcome = world.push(&[&source], "", TREE);
        assert_eq!(outcome.verdict, Verdict::Done, "{after}: {outcome:?} {:?}", world.events);
        assert_same(&source, &world.export().join("tree"), true);
        assert_no_partials(&world.export());
        let (back, mut pulled) = (world.here().join("back"), world);
        pulled.interrupt_after = Some(after);
        let outcome = pulled.pull(&["tree"], &back, TREE);
        assert!(matches!(outcome.verdict, Verdict::Retry | Verdict::Done), "{outcome:?}");
        assert_eq!(pulled.pull(&["tree"], &pulled.here().join("back"), TREE).verdict, Verdict::Done);
    }
}

#[test]
fn a_source_that_changes_is_not_published() {
    for size in [100, 20 * pair::SEGMENT] {
        for pull in [false, true] {
            let mut world = World::new();
            let (from, to) =
                if pull { (world.export(), world.here()) } else { (world.here(), world.export()) };
            fs::write(from.join("quiet"), b"quiet").expect("a file");
            fs::write(from.join("busy"), bytes(size, 1)).expect("a file");
            let busy = from.join("busy");
            let mut count = 0_u32;
            world.meddle = Some(Box::new(move |_| {
                count += 1;
                let mut content = bytes(size, 1);
                content[0] = count as u8;
                fs::write(&busy, content).expect("writable");
            }));
            let outcome = if pull {
                world.pull(&["quiet", "busy"], &to, JobOptions::empty())
            } else {
                world.push(&[&from.join("quiet"), &from.join("busy")], "", JobOptions::empty())
            };
            assert_eq!(
                (outcome.verdict, outcome.files, outcome.failed),
                (Verdict::Partly, 1, 1),
                "{outcome:?}"
            );
            let said = |event: &SessionEvent| {
                matches!(event, SessionEvent::FileFailed { code: ErrorCode::Changed, .. })
            };
            assert!(world.events.iter().any(said), "{:?}", world.events);
            assert!(to.join("quiet").exists() && !to.join("busy").exists());
            assert_no_partials(&to);
        }
    }
}

#[test]
fn a_target_that_changed_since_is_published_again() {
    let mut world = World::new();
    let source = world.here().join("tree");
    make_tree(&source, world.segment);
    // Loses the end of the job, after files were committed.
    for limit in (1..200).rev() {
        let _ = fs::remove_dir_all(world.export().join("tree"));
        world.lose_after = Some(limit);
        world.events.clear();
        let outcome = world.push(&[&source], "", TREE);
        if outcome.verdict == Verdict::Retry && outcome.files == 9 {
            fs::remove_file(world.export().join("tree/file 0")).expect("it was published");
            world.lose_after = None;
            assert_eq!(world.push(&[&source], "", TREE).verdict, Verdict::Done);
            assert_same(&source, &world.export().join("tree"), true);
            return;
        }
        world.lose_after = None;
        assert_eq!(world.push(&[&source], "", TREE).verdict, Verdict::Done);
    }
    panic!("no run lost only its end");
}

#[test]
fn a_permit_that_the_journal_forgot_stays_in_doubt() {
    for limit in 1..200 {
        let mut world = World::new();
        world.segment = 16 << 10;
        let source = world.here().join("file");
        fs::write(&source, b"content").expect("a file");
        world.lose_after = Some(limit);
        let outcome = world.push(&[&source], "", JobOptions::empty());
        assert_ne!(outcome.verdict, Verdict::Done, "it was in doubt before it could be done");
        if outcome.verdict == Verdict::InDoubt {
            fs::remove_dir_all(world.folder.path().join("state/serve")).expect("removed");
            let _ = fs::remove_dir_all(world.export().join(".diskwire-partial"));
            world.lose_after = None;
            let outcome = world.push(&[&source], "", JobOptions::empty());
            assert_eq!((outcome.verdict, outcome.in_doubt), (Verdict::InDoubt, 1));
            return;
        }
    }
}

/// Pushes to a peer that accepts the job and refuses every file of it.
fn push_refused(world: &World, source: &Path, code: ErrorCode) -> Outcome {
    let mut config = SessionConfig::new(world.pool.clone());
    config.segment_bytes = world.segment;
    let state = world.folder.path().join("state/command");
    let files = LocalFiles::command(world.pool.clone(), world.segment, &state);
    let origin = SourceOrigin::Local(vec![source.as_os_str().as_encoded_bytes().to_vec()]);
    let job = world.push_job(origin, "", JobOptions::empty());
    let mut side = Side::new(Session::requester(config, job), Box::new(files));
    for step in 0..1000 {
        side.step(Instant::ZERO, step, 4, &mut None);
        while let Some(event) = side.session.poll_event() {
            if let SessionEvent::Finished(outcome) = event {
                return outcome;
            }
        }
        let said: Vec<Segment> = side.queue.drain(..).collect();
        let commands = said.iter().filter(|segment| segment.kind == SegmentKind::Command);
        for Framed { request, message } in
            commands.flat_map(|segment| parse_all(segment.payload.bytes()).expect("messages"))
        {
            let message = match message {
                Message::JobOpen(_) => Message::JobAccept,
                Message::Request(_) => Message::Refuse(code.into()),
                Message::EndOfJob => Message::JobDone,
                _ => continue,
            };
            let mut bytes = Vec::new();
            emit(&Framed { request, message }, &mut bytes);
            let payload = Payload::copy_of(&world.pool, &bytes);
            let kind = SegmentKind::Command;
            let answer = Segment { kind, request: 0, offset: 0, last: true, payload };
            side.session.handle_segment(Instant::ZERO, answer).expect("no violation");
        }
    }
    panic!("the job does not end");
}

/// Rule 55: only COMMITTED or ABORTED settles a permit; a refusal leaves the file in doubt.
#[test]
fn a_refusal_does_not_forget_the_permit() {
    for code in [ErrorCode::Busy, ErrorCode::Interrupted, ErrorCode::NoSpace, ErrorCode::Exists] {
        for size in [7, 3 * pair::SEGMENT] {
            let mut world = World::new();
            let source = world.here().join("file");
            fs::write(&source, bytes(size, 1)).expect("a file");
            let refused = push_refused(&world, &source, code);
            assert_eq!((refused.in_doubt, refused.files), (0, 0), "no permit was issued: {refused:?}");
            let in_doubt = |limit: &usize| {
                world.lose_after = Some(*limit);
                world.push(&[&source], "", JobOptions::empty()).verdict == Verdict::InDoubt
            };
            (1..200).find(in_doubt).expect("some loss leaves it in doubt");
            for _ in 0..2 {
                let outcome = push_refused(&world, &source, code);
                assert_eq!(
                    (outcome.verdict, outcome.in_doubt),
                    (Verdict::InDoubt, 1),
                    "{code:?} {outcome:?}"
                );
                assert_eq!(outcome.failed + outcome.skipped, 0, "{code:?} {outcome:?}");
            }
            // The permit is still asked for: a receiver that forgot the id does not take it as a new one.
            fs::remove_dir_all(world.folder.path().join("state/serve")).expect("removed");
            let _ = fs::remove_dir_all(world.export().join(".diskwire-partial"));
            world.lose_after = None;
            let outcome = world.push(&[&source], "", JobOptions::empty());
            assert_eq!((outcome.verdict, outcome.in_doubt), (Verdict::InDoubt, 1), "{code:?} {outcome:?}");
        }
    }
}

/// A refusal settles nothing, the receiver's own word does.
#[test]
fn a_file_in_doubt_that_was_refused_is_completed_by_a_re_run() {
    let mut world = World::new();
    let source = world.here().join("file");
    fs::write(&source, b"content").expect("a file");
    let in_doubt = |limit: &usize| {
        world.lose_after = Some(*limit);
        world.push(&[&source], "", JobOptions::empty()).verdict == Verdict::InDoubt
    };
    (1..200).find(in_doubt).expect("some loss leaves it in doubt");
    assert_eq!(push_refused(&world, &source, ErrorCode::Busy).verdict, Verdict::InDoubt);
    world.lose_after = None;
    let outcome = world.push(&[&source], "", JobOptions::empty());
    assert_eq!((outcome.verdict, outcome.files), (Verdict::Done, 1), "{outcome:?}");
    assert_eq!(fs::read(world.export().join("file")).expect("published"), b"content");
    let jobs = world.folder.path().join("state/command/jobs");
    assert_eq!(fs::read_dir(jobs).expect("a folder").count(), 0, "the record of the job is gone");
}

#[test]
fn a_full_file_system_is_a_clean_failure() {
    let name = "a_full_file_system_is_a_clean_failure";
    let mut world = World::new();
    let export = world.export();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(&export)
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        println!("SKIPPED {name}: a tmpfs cannot be mounted here");
        assert_ne!(std::env::var("DISKWIRE_NO_SKIP").as_deref(), Ok("1"));
        return;
    }
    struct Unmount(std::path::PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let _unmount = Unmount(export.clone());
    let (large, small) = (world.here().join("large"), world.here().join("many"));
    fs::write(&large, bytes(4 << 20, 1)).expect("a file");
    fs::create_dir(&small).expect("a folder");
    for number in 0..100 {
        fs::write(small.join(number.to_string()), bytes(50_000, number)).expect("a file");
    }
    let outcome = world.push(&[&large], "", JobOptions::empty());
    assert_eq!((outcome.verdict, outcome.failed), (Verdict::Failed, 1), "{outcome:?}");
    let no_space =
        |event: &SessionEvent| matches!(event, SessionEvent::FileFailed { code: ErrorCode::NoSpace, .. });
    assert!(world.events.iter().any(no_space), "{:?}", world.events);
    assert_eq!(fs::read_dir(&export).expect("a folder").count(), 0);
    world.input = Some(bytes(4 << 20, 1));
    let outcome = world.run(world.push_job(SourceOrigin::Stream, "stream", JobOptions::empty()));
    assert_eq!(outcome.verdict, Verdict::Failed, "{outcome:?}");
    assert_eq!(fs::read_dir(&export).expect("a folder").count(), 0);
    let outcome = world.push(&[&small], "", JobOptions::RECURSIVE);
    assert_eq!(outcome.verdict, Verdict::Partly, "{outcome:?}");
    assert_eq!(outcome.files + outcome.failed, 100);
    let published = fs::read_dir(export.join("many")).expect("a folder").count() as u64;
    assert_eq!(published, outcome.files);
    assert_no_partials(&export);
}

struct Broken;

impl std::io::Write for Broken {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_broken_output_fails_the_job() {
    let mut world = World::new();
    fs::write(world.export().join("source"), bytes(20 * pair::SEGMENT, 4)).expect("a file");
    world.output = Some(Box::new(Broken));
    let outcome = world.run(world.pull_job(&["source"], Target::Stream, JobOptions::empty()));
    assert_eq!((outcome.verdict, outcome.failed), (Verdict::Failed, 1), "{outcome:?}");
}
