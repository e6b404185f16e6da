//! A receiver whose file system is full goes on when there is room again, in the same process; and what cannot fit is not begun.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use storage_mapping::BufferPool;
use system_tests::chance::Chance;
use system_tests::file_system::SimulatedFiles;
use transfer_core::export::Export;
use transfer_core::file_system::{FileSystem, OFlags, make_directories};
use transfer_core::transfer::{
    Destined, ErrorCode, FileAnswer, LocalDone, LocalError, LocalFiles, LocalRequest, LocalStore, LocalWork,
    OpenFile, RelativePath, ServingFiles, Target, TransferId,
};

/// Older than anybody comes back for.
const LATER: Duration = Duration::from_secs(30 * 86_400);

fn destined() -> Destined {
    Destined {
        target: Target::Export { export: b"box".to_vec(), path: RelativePath::root() },
        single: None,
        must_be_directory: true,
        stream: false,
        no_clobber: false,
        preserve: false,
    }
}

fn open_destination(files: &LocalFiles, job: u32) -> Result<(), LocalError> {
    let run = |work| files.execute(LocalRequest { id: 1, job, work }).done;
    run(LocalWork::OpenDestination(destined()))?;
    assert!(matches!(run(LocalWork::CloseDestination { finished: true }), Ok(LocalDone::Failures(_))));
    Ok(())
}

/// An old partial file is to be journalled as aborted when a destination is opened, and there is no room.
#[test]
fn a_journal_that_could_not_be_written_is_opened_again() {
    let time = Arc::new(AtomicU64::new(0));
    let disk = SimulatedFiles::new(1, Chance::new(1), Arc::clone(&time));
    make_directories(&disk, Path::new("/exports/.diskwire-partial")).expect("a folder");
    let partial = Path::new("/exports/.diskwire-partial/00112233445566778899aabbccddeeff");
    disk.write_file(partial, b"half").expect("written");
    time.store(u64::try_from(LATER.as_nanos()).expect("a month"), std::sync::atomic::Ordering::Relaxed);
    let export = Export::open_on(&disk, b"box", Path::new("/exports"), true).expect("an export");
    let below: Arc<dyn FileSystem> = Arc::new(disk.clone());
    let serving = Arc::new(ServingFiles::new_on(below, vec![export], Path::new("/state")).expect("state"));
    let files = LocalFiles::serving(BufferPool::new(), 16 << 10, serving);

    disk.limit_space(0, false);
    assert_eq!(open_destination(&files, 1).expect_err("there is no room").code, ErrorCode::Io);
    assert!(disk.stat(partial).is_ok(), "what is not journalled as aborted is not discarded");
    disk.lift_limit();
    open_destination(&files, 2).expect("there is room");
    assert!(disk.stat(partial).is_err());
}

/// In memory room is reserved a step at a time, elsewhere all at once: either way a file that does not fit is refused before
/// a byte of it came, and one that fits is opened.
#[test]
fn a_file_that_does_not_fit_is_refused_at_once() {
    const SEGMENT_BYTES: u64 = 16 << 10;
    for device in [1, 2] {
        let disk = SimulatedFiles::new(device, Chance::new(1), Arc::default());
        make_directories(&disk, Path::new("/exports")).expect("a folder");
        let export = Export::open_on(&disk, b"box", Path::new("/exports"), true).expect("an export");
        let below: Arc<dyn FileSystem> = Arc::new(disk.clone());
        let serving = ServingFiles::new_on(below, vec![export], Path::new("/state")).expect("state");
        let files = LocalFiles::serving(BufferPool::new(), SEGMENT_BYTES as usize, Arc::new(serving));
        disk.limit_space(100 * SEGMENT_BYTES, false);
        let run = |work| files.execute(LocalRequest { id: 1, job: 1, work }).done;
        run(LocalWork::OpenDestination(destined())).expect("a destination");
        let in_memory = disk.open(Path::new("/exports"), OFlags::RDONLY).and_then(|root| root.room());
        assert_eq!(in_memory.map(|room| room.in_memory), Ok(device == 1));
        let open = |index: u32, segments: u64| {
            let id = TransferId([index.to_le_bytes()[0]; 16]);
            let path = RelativePath::of_name(b"file").expect("a name");
            let size = Some(segments * SEGMENT_BYTES);
            run(LocalWork::OpenFile(OpenFile { index, id, permitted: false, path, size }))
        };
        let refused = open(1, 101);
        let Ok(LocalDone::FileOpened(FileAnswer::Refused(error))) = refused else { panic!("{refused:?}") };
        assert_eq!(error.code, ErrorCode::NoSpace, "{error}");
        let opened = open(2, 90);
        assert!(
            matches!(opened, Ok(LocalDone::FileOpened(FileAnswer::Opened { resume: 0, .. }))),
            "{opened:?}"
        );
    }
}
