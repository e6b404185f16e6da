//! Several connections, processes and users at one place of received files: who may do what under a
//! transfer id, and what is left over.

mod pair;

use pair::{Side, World, assert_no_partials, bytes, path};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage_mapping::BufferPool;
use transfer_core::journal::{Entry, Journal};
use transfer_core::payload::Payload;
use transfer_core::transfer::message::JobOptions;
use transfer_core::transfer::{
    Attributes, Destined, DirectoryItem, ErrorCode, FileAnswer, JobKey, KnownAnswer, LocalDone, LocalError,
    LocalFiles, LocalReply, LocalRequest, LocalStore, LocalWork, OpenFile, PackFile, PublishFile,
    ServingFiles, Session, SessionConfig, SourceOrigin, SyncFile, Target, TransferId, Verdict,
};

const JOB: u32 = 1;

fn work(files: &LocalFiles, work: LocalWork) -> Result<LocalDone, LocalError> {
    files.execute(LocalRequest { id: 0, job: JOB, work }).done
}

/// A file of 5 bytes under an id of its own.
fn file(number: u8) -> OpenFile {
    let path = path(&format!("file {number}"));
    OpenFile { index: number.into(), id: TransferId([number; 16]), permitted: false, path, size: Some(5) }
}

fn destined(target: Target) -> Destined {
    Destined {
        target,
        single: None,
        must_be_directory: true,
        stream: false,
        no_clobber: false,
        preserve: false,
    }
}

/// A connection of host `a` to `serving`, ready to receive.
fn connect(world: &World, serving: &Arc<ServingFiles>) -> LocalFiles {
    let files = LocalFiles::serving(world.pool.clone(), world.segment, Arc::clone(serving)).with_peer("a");
    let target = Target::Export { export: b"box".to_vec(), path: path("") };
    work(&files, LocalWork::OpenDestination(destined(target))).expect("a destination");
    files
}

/// A pull of the local user into `target`, as of a process of its own.
fn pull_into(world: &World, name: &str, target: &Path) -> LocalFiles {
    let state = world.folder.path().join("state/command");
    let files = LocalFiles::command(world.pool.clone(), world.segment, &state);
    let target = target.as_os_str().as_encoded_bytes().to_vec();
    let key = JobKey {
        peer: "b".into(),
        pull: true,
        export: b"box".to_vec(),
        remote: vec![name.into()],
        local: vec![target.clone()],
        durable: true,
    };
    work(&files, LocalWork::OpenJob(key)).expect("a record");
    work(&files, LocalWork::OpenDestination(destined(Target::Local(target)))).expect("a destination");
    files
}

/// Stores a small file.
fn store(files: &LocalFiles, file: &OpenFile, content: &[u8; 5]) -> FileAnswer {
    let payload = Payload::copy_of(&BufferPool::new(), content);
    let attributes = Attributes { mode: 0o644, ..Attributes::default() };
    let root = *blake3::hash(content).as_bytes();
    let pack = PackFile { file: file.clone(), attributes, root, start: 0, length: 5 };
    match work(files, LocalWork::StorePack { payload, files: vec![pack] }) {
        Ok(LocalDone::PackStored(answers)) => answers[0].clone(),
        other => panic!("{other:?}"),
    }
}

fn sync(files: &LocalFiles, file: &OpenFile) -> Result<(), LocalError> {
    let sync = SyncFile { index: file.index, id: file.id, attributes: None };
    match work(files, LocalWork::SyncFiles(vec![sync]))? {
        LocalDone::Synced(results) => results[0].clone(),
        other => panic!("{other:?}"),
    }
}

fn publish(files: &LocalFiles, file: &OpenFile, stored: &FileAnswer) -> Result<(), LocalError> {
    let FileAnswer::Opened { inode, .. } = *stored else { panic!("{stored:?}") };
    let publish = PublishFile {
        index: file.index,
        id: file.id,
        path: file.path.clone(),
        inode,
        length: 5,
        root: [0; 32],
    };
    match work(files, LocalWork::Publish(vec![publish]))? {
        LocalDone::Published(results) => results[0].clone(),
        other => panic!("{other:?}"),
    }
}

fn abort(files: &LocalFiles, file: &OpenFile) -> Result<KnownAnswer, LocalError> {
    match work(files, LocalWork::AbortFiles(vec![(file.clone(), ErrorCode::Changed)]))? {
        LocalDone::Aborted(words) => Ok(words[0]),
        other => panic!("{other:?}"),
    }
}

fn close(files: &LocalFiles) {
    work(files, LocalWork::CloseDestination { finished: false }).expect("closed");
}

fn is_busy<T>(result: Result<T, LocalError>) -> bool {
    result.is_err_and(|error| error.code == ErrorCode::Busy)
}

fn is_opened(answer: &FileAnswer) -> bool {
    matches!(answer, FileAnswer::Opened { .. })
}

fn is_refused_as_busy(answer: &FileAnswer) -> bool {
    matches!(answer, FileAnswer::Refused(error) if error.code == ErrorCode::Busy)
}

// ---- one folder, several processes ------------------------------------------------------------------

#[test]
fn the_first_of_two_pulls_to_end_leaves_the_folder_to_the_other() {
    let world = World::new();
    let (first, second) = (pull_into(&world, "one", &world.here()), pull_into(&world, "two", &world.here()));
    close(&first);
    let stored = store(&second, &file(1), b"small");
    assert!(is_opened(&stored), "{stored:?}");
    sync(&second, &file(1)).expect("durable");
    publish(&second, &file(1), &stored).expect("published");
    close(&second);
    assert_eq!(fs::read(world.here().join("file 1")).expect("published"), b"small");
    assert_no_partials(&world.here());
}

#[test]
fn a_pull_leaves_the_stream_of_another_process_alone() {
    let world = World::new();
    let serving = connect(&world, &world.serving(true));
    let stream = OpenFile { size: None, ..file(1) };
    assert!(
        matches!(work(&serving, LocalWork::OpenFile(stream)), Ok(LocalDone::FileOpened(o)) if is_opened(&o))
    );
    close(&pull_into(&world, "one", &world.export()));
    assert!(world.export().join(".diskwire-partial").join(file(1).id.to_hex()).exists());
    close(&serving);
    assert_no_partials(&world.export());
}

/// Whoever comes where nobody is clears up, also when others were there before; while somebody is there nobody does.
#[test]
fn what_a_stream_left_goes_when_nobody_is_there() {
    let world = World::new();
    let serving = world.serving(true);
    let (first, second) = (connect(&world, &serving), connect(&world, &serving));
    let left = world.export().join(".diskwire-partial").join(file(1).id.to_hex());
    fs::write(&left, b"left").expect("a file");
    fs::write(left.with_extension("stream"), b"").expect("a file");
    close(&first);
    close(&connect(&world, &serving));
    assert!(left.exists(), "the second is still there, and it may be its");
    close(&second);
    close(&connect(&world, &serving));
    assert_no_partials(&world.export());
}

// ---- directories ------------------------------------------------------------------------------------

/// A directory that its user may not write to, or nobody may enter, is made so that the job can fill it, and has
/// its own mode in the end. One that was there keeps what it has.
#[test]
fn a_directory_has_its_mode_when_the_job_is_done() {
    let world = World::new();
    let mode_of = |name: &str| {
        let meta = fs::metadata(world.export().join(name)).expect("it is there");
        meta.permissions().mode() & 0o7777
    };
    let set = |name: &str, mode| {
        fs::set_permissions(world.export().join(name), fs::Permissions::from_mode(mode)).expect("a mode");
    };
    fs::create_dir(world.export().join("there")).expect("a folder");
    set("there", 0o711);
    let files = connect(&world, &world.serving(true));
    let modes = [("there", 0o500), ("0", 0o500), ("1", 0), ("2", 0o055), ("3", 0o300), ("4", 0o4755)];
    let items = modes.map(|(name, mode)| DirectoryItem {
        path: path(name),
        attributes: Attributes { mode, ..Attributes::default() },
    });
    let made = work(&files, LocalWork::MakeDirectories(items.into()));
    assert!(matches!(&made, Ok(LocalDone::Failures(failures)) if failures.is_empty()), "{made:?}");
    assert!(modes[1..].iter().all(|(name, _)| mode_of(name) & 0o700 == 0o700), "all can be filled");
    work(&files, LocalWork::CloseDestination { finished: true }).expect("closed");
    let ended = modes.map(|(name, _)| (name, mode_of(name)));
    assert_eq!(ended, [("there", 0o711), ("0", 0o500), ("1", 0), ("2", 0o055), ("3", 0o300), ("4", 0o755)]);
    modes.iter().for_each(|(name, _)| set(name, 0o700));
}

// ---- streams that are cut ---------------------------------------------------------------------------

#[test]
fn a_stream_that_is_cut_leaves_nothing() {
    for limit in 1.. {
        let mut world = World::new();
        world.lose_after = Some(limit);
        world.input = Some(bytes(10 * world.segment, 1));
        let outcome = world.run(world.push_job(SourceOrigin::Stream, "stream", JobOptions::STREAM));
        assert_no_partials(&world.export());
        if outcome.verdict == Verdict::Done {
            assert!(limit > 10, "{limit} segments are all there is");
            break;
        }
    }
}

#[test]
fn a_stream_whose_receiver_is_killed_leaves_nothing_after_the_next_job() {
    for limit in 1.. {
        let mut world = World::new();
        world.kill_after = Some(limit);
        world.input = Some(bytes(10 * world.segment, 1));
        let outcome = world.run(world.push_job(SourceOrigin::Stream, "stream", JobOptions::STREAM));
        if outcome.verdict == Verdict::Done {
            assert!(limit > 20, "{limit} pieces of work are all there is");
            break;
        }
        world.kill_after = None;
        let source = world.here().join("other");
        fs::write(&source, b"other").expect("a file");
        assert_eq!(world.push(&[&source], "", JobOptions::empty()).verdict, Verdict::Done);
        assert_no_partials(&world.export());
    }
}

// ---- one connection for an id, one last word --------------------------------------------------------

#[test]
fn an_abort_of_a_committed_file_is_answered_with_committed() {
    let world = World::new();
    let serving = world.serving(true);
    let first = connect(&world, &serving);
    let stored = store(&first, &file(1), b"small");
    sync(&first, &file(1)).expect("durable");
    publish(&first, &file(1), &stored).expect("published");
    // The sender did not hear of it, announces it again, and finds that its source has changed.
    let second = connect(&world, &serving);
    assert_eq!(abort(&second, &file(1)), Ok(KnownAnswer::Committed { present: true }));
    assert_eq!(abort(&first, &file(1)), Ok(KnownAnswer::Committed { present: true }));
    let again = store(&second, &file(1), b"small");
    assert_eq!(again, FileAnswer::Known(KnownAnswer::Committed { present: true }));
    close(&first);
    close(&second);
    assert_no_partials(&world.export());
}

#[test]
fn a_small_file_belongs_to_the_newer_connection_of_a_host() {
    let world = World::new();
    let serving = world.serving(true);
    let (older, newer) = (connect(&world, &serving), connect(&world, &serving));
    let stored = store(&older, &file(1), b"small");
    sync(&older, &file(1)).expect("durable");
    // Its inode is written anew: what the older one made durable is not there any more.
    let again = store(&newer, &file(1), b"SMALL");
    assert!(is_opened(&again), "{again:?}");
    assert!(older.is_superseded() && !newer.is_superseded());
    assert!(is_busy(publish(&older, &file(1), &stored)) && is_busy(abort(&older, &file(1))));
    assert!(is_busy(sync(&older, &file(1))) && is_refused_as_busy(&store(&older, &file(1), b"small")));
    close(&older);
    sync(&newer, &file(1)).expect("durable");
    publish(&newer, &file(1), &again).expect("published");
    close(&newer);
    assert_eq!(fs::read(world.export().join("file 1")).expect("published"), b"SMALL");
    assert_no_partials(&world.export());
}

#[test]
fn nobody_else_works_under_an_id() {
    let world = World::new();
    let serving = world.serving(true);
    let first = connect(&world, &serving);
    let other = LocalFiles::serving(world.pool.clone(), world.segment, Arc::clone(&serving)).with_peer("c");
    let target = Target::Export { export: b"box".to_vec(), path: path("") };
    work(&other, LocalWork::OpenDestination(destined(target))).expect("a destination");
    let stored = store(&first, &file(1), b"small");
    // Another host, and the same connection again before the last word.
    assert!(is_refused_as_busy(&store(&other, &file(1), b"SMALL")) && is_busy(abort(&other, &file(1))));
    assert!(is_refused_as_busy(&store(&first, &file(1), b"SMALL")) && !first.is_superseded());
    sync(&first, &file(1)).expect("durable");
    publish(&first, &file(1), &stored).expect("published");
    assert_eq!(fs::read(world.export().join("file 1")).expect("published"), b"small");
    // What was aborted or not stored is free again.
    store(&first, &file(2), b"small");
    assert_eq!(abort(&first, &file(2)), Ok(KnownAnswer::Aborted));
    assert_eq!(store(&other, &file(2), b"small"), FileAnswer::Known(KnownAnswer::Aborted));
    store(&first, &file(3), b"small");
    close(&first);
    assert!(is_opened(&store(&other, &file(3), b"small")));
    abort(&other, &file(3)).expect("aborted");
    close(&other);
    assert_no_partials(&world.export());
}

// ---- what the next opening makes of an INTENT -------------------------------------------------------

/// A journal with an INTENT for file 1, whose inode `make` gives; what it says after the next opening.
fn finish_intent(world: &World, replace: bool, make: impl FnOnce(&Path) -> u64) -> Option<Entry> {
    let folder = world.folder.path().join("state/serve/exports").join("626f78");
    fs::create_dir_all(&folder).expect("a folder");
    fs::create_dir_all(world.export().join(".diskwire-partial")).expect("a folder");
    let inode = make(&world.export());
    let intent = Entry::Intent { inode, length: 5, root: [0; 32], replace, path: file(1).path };
    let mut journal = Journal::open(&folder.join("journal"), 1).expect("a journal");
    journal.append(1, vec![(file(1).id, intent)]).expect("appended");
    drop(journal);
    let serving = world.serving(true);
    close(&connect(world, &serving));
    drop(serving);
    let journal = Journal::open(&folder.join("journal"), 1).expect("a journal");
    journal.find(&file(1).id).cloned()
}

fn write(path: &Path, content: &str) -> u64 {
    fs::write(path, content).expect("a file");
    fs::metadata(path).expect("there").ino()
}

#[test]
fn only_the_inode_of_the_intent_is_published() {
    let world = World::new();
    let said = finish_intent(&world, true, |root| {
        write(&root.join(".diskwire-partial").join(file(1).id.to_hex()), "other");
        u64::MAX
    });
    assert_eq!(said, Some(Entry::Aborted { code: ErrorCode::NotFound }));
    assert!(!world.export().join("file 1").exists());
    assert_no_partials(&world.export());
}

#[test]
fn a_published_file_is_committed_whatever_lies_in_the_folder() {
    let world = World::new();
    let said = finish_intent(&world, false, |root| {
        write(&root.join(".diskwire-partial").join(file(1).id.to_hex()), "other");
        write(&root.join("file 1"), "small")
    });
    assert!(matches!(said, Some(Entry::Committed { .. })), "{said:?}");
    assert_eq!(fs::read(world.export().join("file 1")).expect("there"), b"small");
    assert_no_partials(&world.export());
}

#[test]
fn a_newer_file_of_the_user_is_not_replaced_where_that_was_asked() {
    let mut world = World::new();
    // Published; then the user has put another file in its place, before COMMITTED was journalled.
    let said = finish_intent(&world, false, |root| {
        write(&root.join("file 1"), "newer");
        u64::MAX
    });
    assert_eq!(said, Some(Entry::Aborted { code: ErrorCode::NotFound }));
    let source = world.here().join("file 1");
    write(&source, "small");
    let outcome = world.push(&[&source], "", JobOptions::NO_CLOBBER);
    assert_eq!((outcome.verdict, outcome.skipped), (Verdict::Partly, 1), "{outcome:?}");
    assert_eq!(fs::read(world.export().join("file 1")).expect("there"), b"newer");
    assert_no_partials(&world.export());
}

// ---- checkpoints ------------------------------------------------------------------------------------

/// Local files that note down what is asked to be marked as durable.
struct Watched(LocalFiles, Arc<Mutex<Vec<u64>>>);

impl LocalStore for Watched {
    fn execute(&self, request: LocalRequest) -> LocalReply {
        if let LocalWork::Checkpoint { length, .. } = request.work {
            self.1.lock().expect("nobody panicked").push(length);
        }
        self.0.execute(request)
    }
}

/// A checkpoint costs a sync: there is none where nothing was stored behind the last one, also when segments come
/// in another order.
#[test]
fn a_checkpoint_marks_more_than_the_last_one() {
    let mut world = World::new();
    world.step_time = Duration::from_millis(600);
    let source = world.here().join("large");
    fs::write(&source, bytes(60 * world.segment, 1)).expect("a file");
    let mut config = SessionConfig::new(world.pool.clone());
    config.segment_bytes = world.segment;
    config.payloads_max = 6;
    let state = world.folder.path().join("state/command");
    let command = LocalFiles::command(world.pool.clone(), world.segment, &state);
    let serving = LocalFiles::serving(world.pool.clone(), world.segment, world.serving(true));
    let checkpoints = Arc::default();
    let watched = Watched(serving, Arc::clone(&checkpoints));
    let origin = SourceOrigin::Local(vec![source.as_os_str().as_encoded_bytes().to_vec()]);
    let job = world.push_job(origin, "", JobOptions::empty());
    let a = Side::new(Session::requester(config.clone(), job), Box::new(command));
    let b = Side::new(Session::responder(config), Box::new(watched));
    assert_eq!(world.run_sides(a, b).verdict, Verdict::Done);
    let checkpoints = checkpoints.lock().expect("nobody panicked");
    assert!(checkpoints.len() > 5, "{checkpoints:?}");
    assert!(checkpoints.is_sorted_by(|before, after| before < after), "{checkpoints:?}");
    assert!(checkpoints[0] > 0);
}
