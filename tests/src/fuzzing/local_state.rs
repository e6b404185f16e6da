//! What a host keeps on its own disk: the receiver's journal, the record of a job, marks of partial files.
//!
//! What holds: each is read as far as it is whole, and no further, against a model written apart; what was
//! read is what was written; reading again gives the same. Files lie in a simulated file system of the thread,
//! which costs no calls of the kernel. Not here: what follows from an entry (`session`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use storage_mapping::BufferPool;
use transfer_core::export::Export;
use transfer_core::file_system::{FileSystem, make_directories};
use transfer_core::journal::{Entry, Journal, emit, parse};
use transfer_core::transfer::{
    Destined, FileAnswer, JobKey, LocalDone, LocalFiles, LocalRequest, LocalStore, LocalWork, OpenFile,
    RelativePath, ServingFiles, Target, TransferId,
};

use super::input::Input;
use crate::chance::Chance;
use crate::file_system::SimulatedFiles;

/// A segment of the partial files here.
const SEGMENT: usize = 16 << 10;
/// Records of one journal, at most.
const RECORDS_MAX: usize = 24;

/// An empty file system.
fn scratch() -> SimulatedFiles {
    SimulatedFiles::new(1, Chance::new(1), Arc::new(AtomicU64::new(0)))
}

/// Puts a file there, durably: nothing that this file system remembers of earlier inputs stays.
fn put(files: &SimulatedFiles, path: &Path, content: &[u8]) {
    files.write_file(path, content).expect("the scratch files take it");
    files.settle();
}

/// One journal record from the input, and its bytes; sometimes changed, cut, or with another check.
fn record(input: &mut Input<'_>, out: &mut Vec<u8>) {
    let kind = input.byte();
    let id = TransferId([kind >> 5; 16]);
    let path = RelativePath::from_joined([&b"a/b"[..], b"", b"x"][input.index(3)]).expect("a path");
    let entry = match kind % 4 {
        0 => Entry::Aborted { code: transfer_core::transfer::ErrorCode::Io },
        1 => Entry::Committed { inode: input.number(), length: input.number() },
        _ => {
            Entry::Intent { inode: input.number(), length: 8, root: [kind; 32], replace: kind & 8 != 0, path }
        }
    };
    let start = out.len();
    emit(id, &entry, u64::from(input.byte()), out);
    if kind & 4 != 0 {
        change(input, out, start);
    }
}

fn change(input: &mut Input<'_>, out: &mut Vec<u8>, start: usize) {
    let how = input.byte();
    if how & 1 != 0 {
        // A longer or shorter body, in the place before the check.
        let at = out.len() - 16;
        let more = input.take(usize::from(how >> 3));
        out.splice(at..at, more.iter().copied());
    }
    let changes = usize::from(input.byte() % 16);
    Input::new(input.take(changes)).patch(&mut out[start..], &[]);
    if how & 2 != 0 {
        let length = u32::try_from(out.len() - start).expect("short");
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }
    if how & 4 != 0 {
        let at = out.len() - 16;
        let check = blake3::hash(&out[start..at]);
        out[at..].copy_from_slice(&check.as_bytes()[..16]);
    }
}

/// The journal: its records, and now and then a whole file.
///
/// # Panics
/// If a promise is broken.
pub fn journal(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mode = input.byte();
    let mut content = Vec::new();
    if mode & 1 == 0 {
        content.extend_from_slice(input.rest());
    }
    for _ in 0..RECORDS_MAX {
        if input.is_empty() {
            break;
        }
        record(&mut input, &mut content);
    }
    let (entries, whole) = read_all(&content);
    if mode & 0xF0 == 0xF0 {
        open_journal(&content, &entries, whole);
    }
}

/// What a journal of these bytes says, and how many of them are whole.
fn read_all(content: &[u8]) -> (BTreeMap<TransferId, Entry>, usize) {
    let mut entries = BTreeMap::new();
    let mut at = 0;
    while let Some((id, entry, time, length)) = parse(&content[at..]) {
        assert!(length >= 45 && at + length <= content.len());
        let mut again = Vec::new();
        emit(id, &entry, time, &mut again);
        assert_eq!(parse(&again), Some((id, entry.clone(), time, again.len())));
        at += length;
        entries.insert(id, entry);
    }
    (entries, at)
}

fn open_journal(content: &[u8], entries: &BTreeMap<TransferId, Entry>, whole: usize) {
    thread_local! {
        static FILES: SimulatedFiles = scratch();
    }
    FILES.with(|files| {
        let path = Path::new("/journal");
        put(files, path, content);
        for _ in 0..2 {
            let journal =
                Journal::open_on(files, path, 100).expect("any bytes are a journal, if an empty one");
            for (id, entry) in entries {
                assert_eq!(journal.find(id), Some(entry));
            }
            let intents = entries.values().filter(|entry| matches!(entry, Entry::Intent { .. })).count();
            assert_eq!(journal.intents().count(), intents);
            drop(journal);
            let length = files.stat(path).expect("it is there").size;
            assert_eq!(length, whole as u64, "a torn tail is cut off, and nothing else");
        }
    });
}

/// The files of a user, and the record of their one job.
struct JobFiles {
    files: LocalFiles,
    record: PathBuf,
    below: SimulatedFiles,
}

impl JobFiles {
    fn new() -> Self {
        let below = scratch();
        let files =
            LocalFiles::command_on(Arc::new(below.clone()), BufferPool::new(), SEGMENT, Path::new("/state"));
        open_job(&files);
        close_job(&files);
        let mut found = Vec::new();
        below.collect(Path::new("/state/jobs"), "", &mut found).expect("the job has a record");
        let record = found.pop().expect("one record").path;
        Self { files, record, below }
    }
}

fn open_job(files: &LocalFiles) -> ([u8; 16], Vec<TransferId>) {
    let key = JobKey {
        peer: "b".into(),
        pull: false,
        export: b"e".to_vec(),
        remote: vec![],
        local: vec![b"/x".to_vec()],
        durable: true,
    };
    let reply = files.execute(LocalRequest { id: 1, job: 1, work: LocalWork::OpenJob(key) });
    match reply.done {
        Ok(LocalDone::JobOpened { nonce, permitted }) => (nonce, permitted.into_iter().collect()),
        other => panic!("the record of the job: {other:?}"),
    }
}

fn close_job(files: &LocalFiles) {
    let end = transfer_core::transfer::JobEnd::Unfinished;
    let reply = files.execute(LocalRequest { id: 2, job: 1, work: LocalWork::CloseJob(end) });
    assert!(reply.done.is_ok(), "{:?}", reply.done);
}

fn checked(bytes: &[u8], check_bytes: usize) -> Vec<u8> {
    [bytes, &blake3::hash(bytes).as_bytes()[..check_bytes]].concat()
}

/// The record of a job: a header and permits, changed or cut.
///
/// # Panics
/// If a promise is broken.
pub fn job_record(bytes: &[u8]) {
    thread_local! {
        static JOB: JobFiles = JobFiles::new();
    }
    let mut input = Input::new(bytes);
    let mode = input.byte();
    let mut content = checked(&[&b"DWJOB001"[..], &[mode; 16]].concat(), 8);
    for _ in 0..input.byte() % 16 {
        let kind = input.byte();
        content.extend(checked(&[&[kind & 3][..], &[kind >> 2; 16]].concat(), 7));
    }
    input.patch(&mut content, &[]);
    if mode & 1 == 1 {
        content.truncate(input.index(content.len() + 1));
    }
    let expected = job_model(&content);
    JOB.with(|job| {
        put(&job.below, &job.record, &content);
        let found = open_job(&job.files);
        close_job(&job.files);
        if let Some(expected) = expected {
            assert_eq!(found, expected, "nonce and open permits");
        } else {
            assert!(found.1.is_empty(), "a record that is none holds no permits");
        }
        let again = open_job(&job.files);
        close_job(&job.files);
        assert_eq!(again, found, "a job that was opened opens again as the same");
    });
}

/// What the record says; `None` if its header is not whole.
fn job_model(content: &[u8]) -> Option<([u8; 16], Vec<TransferId>)> {
    let header = content.get(..32)?;
    if header[..8] != *b"DWJOB001" || checked(&header[..24], 8) != header {
        return None;
    }
    let mut open = std::collections::BTreeSet::new();
    for record in content[32..].chunks_exact(24) {
        if checked(&record[..17], 7) != record {
            break;
        }
        let id = TransferId(record[1..17].try_into().expect("16 bytes"));
        if record[0] == 1 {
            open.insert(id)
        } else {
            open.remove(&id)
        };
    }
    Some((header[8..24].try_into().expect("16 bytes"), open.into_iter().collect()))
}

/// An export with one partial file.
struct PartialFiles {
    files: LocalFiles,
    partial: PathBuf,
    mark: PathBuf,
    below: SimulatedFiles,
}

/// Length of the file that is partly there.
const SIZE: u64 = 64 << 10;

impl PartialFiles {
    fn new() -> Self {
        let below = scratch();
        let root = Path::new("/export");
        make_directories(&below, root).expect("a folder");
        let export = Export::open_on(&below, b"box", root, true).expect("an export");
        let files: Arc<dyn FileSystem> = Arc::new(below.clone());
        let serving = ServingFiles::new_on(files, vec![export], Path::new("/state")).expect("state");
        let serving = Arc::new(serving);
        let files = LocalFiles::serving(BufferPool::new(), SEGMENT, serving);
        let name = root.join(".diskwire-partial").join(TransferId([1; 16]).to_hex());
        Self { files, mark: name.with_extension("mark"), partial: name, below }
    }

    /// Opens the destination and the file; gives the bytes that need not be sent again.
    fn resume(&self) -> u64 {
        let path = RelativePath::root();
        let destined = Destined {
            target: Target::Export { export: b"box".to_vec(), path: path.clone() },
            single: Some(b"file".to_vec()),
            must_be_directory: false,
            stream: false,
            no_clobber: false,
            preserve: false,
        };
        let file = OpenFile {
            index: 0,
            id: TransferId([1; 16]),
            permitted: false,
            path: RelativePath::from_joined(b"file").expect("a name"),
            size: Some(SIZE),
        };
        let run = |work| self.files.execute(LocalRequest { id: 1, job: 1, work }).done;
        run(LocalWork::OpenDestination(destined)).expect("a destination");
        let answer = run(LocalWork::OpenFile(file));
        run(LocalWork::CloseDestination { finished: false }).expect("closed");
        match answer {
            Ok(LocalDone::FileOpened(FileAnswer::Opened { resume, .. })) => resume,
            other => panic!("a partial file opens: {other:?}"),
        }
    }
}

/// Marks of a partial file: two, changed, in a file of any length.
///
/// # Panics
/// If a promise is broken.
pub fn partial_mark(bytes: &[u8]) {
    thread_local! {
        static PARTIAL: PartialFiles = PartialFiles::new();
    }
    let mut input = Input::new(bytes);
    let mode = input.byte();
    let mut content = Vec::new();
    for turn in 0..2u64 {
        let size = if mode & 2 == 0 { SIZE } else { input.number() };
        let durable = if mode & 4 == 0 { u64::from(input.byte()) * 1024 } else { input.number() };
        let fields = [&b"DWMARK01"[..], &size.to_le_bytes(), &durable.to_le_bytes(), &turn.to_le_bytes()];
        content.extend(checked(&fields.concat(), 32));
    }
    let there = usize::from(input.byte()) * 512;
    input.patch(&mut content, &[]);
    if mode & 1 == 1 {
        content.truncate(input.index(content.len() + 1));
    }
    let marks = content.chunks_exact(64).take(2).filter_map(mark_model);
    let expected = marks.max().unwrap_or(0).min(there as u64) / SEGMENT as u64 * SEGMENT as u64;
    PARTIAL.with(|partial| {
        if partial.below.stat(&partial.partial).is_err() {
            partial.resume();
        }
        put(&partial.below, &partial.partial, &vec![0; there]);
        put(&partial.below, &partial.mark, &content);
        assert_eq!(partial.resume(), expected, "what a whole mark says, and is there");
    });
}

fn mark_model(mark: &[u8]) -> Option<u64> {
    let number = |at: usize| u64::from_le_bytes(mark[at..at + 8].try_into().expect("8 bytes"));
    let whole = mark[..8] == *b"DWMARK01" && checked(&mark[..32], 32) == mark && number(8) == SIZE;
    whole.then(|| number(16))
}

/// Inputs to begin with.
#[must_use]
pub fn journal_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![], vec![0xF0], vec![0xF1, 2, 0, 17, 18, 1, 0x21, 1, 17, 18, 2, 0x40, 2, 3]];
    for mode in [1, 0xF1] {
        for kind in 0..8 {
            seeds.push(vec![mode, kind | 4, 0, 17, 18, 19, 7, 3, 1, 4, 0, 9, kind, 0, 17, 18]);
        }
        for how in 0..8 {
            seeds.push(vec![mode, 4, 0, 1, how | 0x18, 1, 2, 3, 4, 3, 1, 30, 0, 1]);
        }
    }
    let mut raw = vec![0xF0];
    emit(TransferId([1; 16]), &Entry::Committed { inode: 1, length: 2 }, 3, &mut raw);
    seeds.push(raw);
    seeds
}

/// Inputs to begin with.
#[must_use]
pub fn job_record_seeds() -> Vec<Vec<u8>> {
    vec![
        vec![0],
        vec![0, 3, 5, 9, 6],
        vec![2, 4, 5, 9, 6, 5, 1, 40, 0, 1],
        vec![1, 3, 5, 9, 6, 60],
        vec![0, 2, 5, 9, 1, 3, 0, 0],
    ]
}

/// Inputs to begin with.
#[must_use]
pub fn partial_mark_seeds() -> Vec<Vec<u8>> {
    vec![
        vec![0, 16, 32, 100],
        vec![0, 32, 16, 128],
        vec![1, 32, 64, 128, 100],
        vec![4, 7, 15, 128],
        vec![2, 15, 64, 17, 32, 128],
        vec![0, 32, 16, 128, 1, 20, 0, 3],
    ]
}
