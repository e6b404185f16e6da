//! The files of this host: the one place where a session's local work touches the file system.
//!
//! What holds: one value serves one connection; work on different files runs in parallel; every access
//! in an export goes through [`Export`], and every access at all through a [`FileSystem`]. The parts: `source` reads, `target` writes and publishes,
//! `record` keeps what a requester must remember. Not here: any decision about order (`sender`,
//! `receiver`).

mod claim;
mod record;
mod source;
mod target;

use super::code::{ErrorCode, LocalError};
use super::name::{PARTIAL_FOLDER, RelativePath};
use super::root::SegmentHash;
use super::store::{
    Attributes, Destined, Identity, ListEntry, ListKind, LocalDone, LocalReply, LocalRequest, LocalStore,
    LocalWork, SourceOrigin, Target,
};
use crate::export::Export;
use crate::file_system::{Errno, FileHandle, FileKind, FileStat, FileSystem, SystemFiles, make_directories};
use crate::journal::Journal;
use crate::payload::Payload;
use claim::{Claimant, Claims};
use record::JobRecord;
use source::Sources;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use storage_mapping::BufferPool;
use target::Receiving;

/// A place where files are received: a root, its journal, and how many use its partial folder.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) files: Arc<dyn FileSystem>,
    pub(crate) export: Export,
    pub(crate) journal_path: PathBuf,
    pub(crate) shared: Mutex<PlaceShared>,
}

/// What all receivers of a place share.
#[derive(Debug, Default)]
pub(crate) struct PlaceShared {
    pub(crate) journal: Option<Arc<Mutex<Journal>>>,
    pub(crate) users: usize,
    pub(crate) claims: Claims,
}

impl Place {
    fn new(files: Arc<dyn FileSystem>, export: Export, journal_path: PathBuf) -> Self {
        Self { files, export, journal_path, shared: Mutex::default() }
    }
}

/// The exports of a serving host, shared by all its connections.
#[derive(Debug)]
pub struct ServingFiles {
    files: Arc<dyn FileSystem>,
    places: BTreeMap<Vec<u8>, Arc<Place>>,
}

impl ServingFiles {
    /// Exports with their journals below `state_directory`, which is made if it is missing.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn new(exports: Vec<Export>, state_directory: &Path) -> std::io::Result<Self> {
        Self::new_on(Arc::new(SystemFiles), exports, state_directory)
    }

    /// As [`new`](Self::new), on any file system; the exports were opened on the same one.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_on(
        files: Arc<dyn FileSystem>,
        exports: Vec<Export>,
        state_directory: &Path,
    ) -> std::io::Result<Self> {
        let mut places = BTreeMap::new();
        for export in exports {
            let hex: String = export.name().iter().map(|byte| format!("{byte:02x}")).collect();
            let folder = state_directory.join("exports").join(hex);
            make_directories(&*files, &folder)?;
            let name = export.name().to_vec();
            let place = Place::new(Arc::clone(&files), export, folder.join("journal"));
            places.insert(name, Arc::new(place));
        }
        Ok(Self { files, places })
    }

    /// The exports that `allowed` names; their journals stay shared.
    #[must_use]
    pub fn only(&self, allowed: impl Fn(&[u8]) -> bool) -> Self {
        let places = self.places.iter().filter(|(name, _)| allowed(name));
        let places = places.map(|(name, place)| (name.clone(), Arc::clone(place))).collect();
        Self { files: Arc::clone(&self.files), places }
    }

    fn place(&self, export: &[u8]) -> Result<&Arc<Place>, LocalError> {
        self.places.get(export).ok_or_else(|| {
            let name = String::from_utf8_lossy(export);
            LocalError::with_text(ErrorCode::ExportUnknown, format!("no export named {name}"))
        })
    }
}

enum Host {
    Command { state_directory: PathBuf },
    Serving(Arc<ServingFiles>),
}

#[derive(Default)]
struct JobFiles {
    record: Option<Arc<JobRecord>>,
    sources: Option<Arc<Sources>>,
    receiving: Option<Arc<Receiving>>,
}

/// Executes the local work of one connection with the files of a file system.
pub struct LocalFiles {
    files: Arc<dyn FileSystem>,
    pool: BufferPool,
    segment_bytes: usize,
    host: Host,
    jobs: Mutex<BTreeMap<u32, JobFiles>>,
    claimant: Arc<Claimant>,
    input: Mutex<Option<Box<dyn Read + Send>>>,
    output: Mutex<Option<Box<dyn Write + Send>>>,
}

impl LocalFiles {
    /// The files of a serving host, for one of its connections.
    #[must_use]
    pub fn serving(pool: BufferPool, segment_bytes: usize, files: Arc<ServingFiles>) -> Self {
        Self::new(Arc::clone(&files.files), pool, segment_bytes, Host::Serving(files))
    }

    /// The files of the user of this host, for one run of a command. Records of unfinished jobs lie
    /// below `state_directory`.
    #[must_use]
    pub fn command(pool: BufferPool, segment_bytes: usize, state_directory: &Path) -> Self {
        Self::command_on(Arc::new(SystemFiles), pool, segment_bytes, state_directory)
    }

    /// As [`command`](Self::command), on any file system.
    #[must_use]
    pub fn command_on(
        files: Arc<dyn FileSystem>,
        pool: BufferPool,
        segment_bytes: usize,
        state_directory: &Path,
    ) -> Self {
        Self::new(files, pool, segment_bytes, Host::Command { state_directory: state_directory.to_owned() })
    }

    fn new(files: Arc<dyn FileSystem>, pool: BufferPool, segment_bytes: usize, host: Host) -> Self {
        Self {
            files,
            pool,
            segment_bytes,
            host,
            jobs: Mutex::default(),
            claimant: Arc::default(),
            input: Mutex::default(),
            output: Mutex::default(),
        }
    }

    /// The host at the other end of the connection: a newer connection of it may take files over.
    #[must_use]
    pub fn with_peer(self, peer: &str) -> Self {
        Self { claimant: Arc::new(Claimant::new(peer)), ..self }
    }

    /// Whether a newer connection of the same host asks for a file that this one holds: only one process
    /// of a host runs a job, so the process at the other end of this connection is gone.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        self.claimant.is_wanted()
    }

    /// Where a stream source is read from.
    #[must_use]
    pub fn with_input(self, input: Box<dyn Read + Send>) -> Self {
        Self { input: Mutex::new(Some(input)), ..self }
    }

    /// Where a stream target is written to.
    #[must_use]
    pub fn with_output(self, output: Box<dyn Write + Send>) -> Self {
        Self { output: Mutex::new(Some(output)), ..self }
    }

    fn serving_files(&self) -> Result<&ServingFiles, LocalError> {
        match &self.host {
            Host::Serving(files) => Ok(files),
            Host::Command { .. } => Err(LocalError::new(ErrorCode::ExportUnknown)),
        }
    }

    /// Changes the files of a job, which may be new.
    fn change_job(&self, job: u32, change: impl FnOnce(&mut JobFiles)) {
        change(lock(&self.jobs).entry(job).or_default());
    }

    fn sources(&self, job: u32) -> Result<Arc<Sources>, LocalError> {
        lock(&self.jobs)
            .get(&job)
            .and_then(|files| files.sources.clone())
            .ok_or_else(|| LocalError::new(ErrorCode::Io))
    }

    fn receiving(&self, job: u32) -> Result<Arc<Receiving>, LocalError> {
        lock(&self.jobs)
            .get(&job)
            .and_then(|files| files.receiving.clone())
            .ok_or_else(|| LocalError::new(ErrorCode::Io))
    }

    fn record(&self, job: u32) -> Option<Arc<JobRecord>> {
        lock(&self.jobs).get(&job).and_then(|files| files.record.clone())
    }

    fn do_work(&self, job: u32, work: LocalWork) -> Result<LocalDone, LocalError> {
        match work {
            LocalWork::OpenJob(key) => {
                let Host::Command { state_directory } = &self.host else {
                    return Err(LocalError::new(ErrorCode::Io));
                };
                let (record, nonce, permitted) = JobRecord::open(&*self.files, state_directory, &key)?;
                self.change_job(job, |files| files.record = Some(Arc::new(record)));
                Ok(LocalDone::JobOpened { nonce, permitted })
            }
            LocalWork::CloseJob(end) => {
                let files = lock(&self.jobs).remove(&job).unwrap_or_default();
                // A destination that was opened for a job that did not begin.
                files.receiving.map(|receiving| receiving.close(false)).transpose()?;
                if let Some(record) = files.record {
                    record.close(end);
                }
                Ok(LocalDone::Done)
            }
            LocalWork::RecordSettled(ids) => {
                if let Some(record) = self.record(job) {
                    record.settle(&ids)?;
                }
                Ok(LocalDone::Done)
            }
            LocalWork::List { export, path } => list(&self.serving_files()?.place(&export)?.export, &path),
            LocalWork::OpenSources { origin, recursive } => self.open_sources(job, origin, recursive),
            LocalWork::OpenDestination(destined) => self.open_destination(job, destined),
            LocalWork::ReadStream { offset } => self.read_stream(offset),
            LocalWork::WriteStream { offset, payload } => self.write_stream(offset, &payload),
            work @ (LocalWork::Walk
            | LocalWork::LoadPack(_)
            | LocalWork::LoadSegment { .. }
            | LocalWork::HashSource { .. }
            | LocalWork::CloseFile(_)
            | LocalWork::IssuePermits(_)) => self.do_source_work(job, work),
            work => self.do_target_work(job, work),
        }
    }

    fn do_source_work(&self, job: u32, work: LocalWork) -> Result<LocalDone, LocalError> {
        let sources = self.sources(job)?;
        match work {
            LocalWork::Walk => Ok(sources.walk()),
            LocalWork::LoadPack(files) => Ok(sources.load_pack(&self.pool, self.segment_bytes, &files)),
            LocalWork::LoadSegment { file, offset, length } => {
                sources.load_segment(&self.pool, &file, offset, length)
            }
            LocalWork::HashSource { file, offset, length } => {
                let open = sources.open_file(&file)?;
                hash_range(&self.pool, &*open, offset, length, self.segment_bytes)
            }
            LocalWork::CloseFile(index) => {
                sources.close_file(index);
                Ok(LocalDone::Done)
            }
            LocalWork::IssuePermits(files) => {
                let unchanged = sources.unchanged(&files);
                if let Some(record) = self.record(job) {
                    let ids = files.iter().zip(&unchanged).filter(|(_, same)| **same).map(|((_, id), _)| *id);
                    record.permit(&ids.collect::<Vec<_>>())?;
                }
                Ok(LocalDone::Permits(unchanged))
            }
            _ => Err(LocalError::new(ErrorCode::Io)),
        }
    }

    fn do_target_work(&self, job: u32, work: LocalWork) -> Result<LocalDone, LocalError> {
        if let LocalWork::CloseDestination { finished } = work {
            let receiving = lock(&self.jobs).get_mut(&job).and_then(|files| files.receiving.take());
            let failures = receiving.map(|receiving| receiving.close(finished)).transpose()?;
            return Ok(LocalDone::Failures(failures.unwrap_or_default()));
        }
        let receiving = self.receiving(job)?;
        match work {
            LocalWork::OpenFile(file) => {
                Ok(LocalDone::FileOpened(receiving.open_file(&file, self.segment_bytes)))
            }
            LocalWork::HashPartial { index, offset, length } => {
                let file = receiving.partial_file(index)?;
                hash_range(&self.pool, &*file, offset, length, self.segment_bytes)
            }
            LocalWork::StoreSegment { index, offset, payload } => {
                receiving.store_segment(index, offset, payload.bytes()).map(LocalDone::SegmentStored)
            }
            LocalWork::Checkpoint { index, length } => receiving.checkpoint(index, length),
            LocalWork::StorePack { payload, files } => {
                Ok(LocalDone::PackStored(receiving.store_pack(payload.bytes(), &files)))
            }
            LocalWork::SyncFiles(files) => receiving.sync_files(&files).map(LocalDone::Synced),
            LocalWork::Publish(files) => receiving
                .publish(&files)
                .map(LocalDone::Published)
                .inspect_err(|error| receiving.distrust_journal(error)),
            LocalWork::AbortFiles(files) => {
                receiving.abort(&files).inspect_err(|error| receiving.distrust_journal(error))
            }
            LocalWork::MakeDirectories(items) => Ok(LocalDone::Failures(receiving.make_directories(items))),
            LocalWork::MakeLinks(items) => Ok(LocalDone::Failures(receiving.make_links(&items))),
            _ => Err(LocalError::new(ErrorCode::Io)),
        }
    }

    fn open_sources(&self, job: u32, origin: SourceOrigin, recursive: bool) -> Result<LocalDone, LocalError> {
        let sources = match origin {
            SourceOrigin::Export { export, paths } => {
                let place = Arc::clone(self.serving_files()?.place(&export)?);
                Sources::of_export(&place, &paths, recursive)
            }
            SourceOrigin::Local(paths) => Sources::of_paths(&*self.files, &paths, recursive),
            SourceOrigin::Stream => Sources::of_stream(self.time_s()),
        };
        self.change_job(job, |files| files.sources = Some(Arc::new(sources)));
        Ok(LocalDone::Done)
    }

    fn open_destination(&self, job: u32, destined: Destined) -> Result<LocalDone, LocalError> {
        let receiving = match &destined.target {
            Target::Stream => return Ok(LocalDone::Done),
            Target::Export { export, path } => {
                let place = Arc::clone(self.serving_files()?.place(export)?);
                if !place.export.is_writable() {
                    let name = String::from_utf8_lossy(export);
                    let text = format!("the export {name} is read-only");
                    return Err(LocalError::with_text(ErrorCode::NotAllowed, text));
                }
                let path = path.clone();
                Receiving::open(place, &path, destined, self.time_s(), Arc::clone(&self.claimant))?
            }
            Target::Local(path) => {
                let record = self.record(job).ok_or_else(|| LocalError::new(ErrorCode::Io))?;
                let (root, below) = local_target(&*self.files, path, &destined)?;
                let export = Export::open_on(&*self.files, b"destination", &root, true).map_err(|errno| {
                    let error = LocalError::from(errno);
                    LocalError::with_text(error.code, format!("{}: {error}", root.display()))
                })?;
                let place = Arc::new(Place::new(Arc::clone(&self.files), export, record.journal_path()?));
                Receiving::open(place, &below, destined, self.time_s(), Arc::clone(&self.claimant))?
            }
        };
        self.change_job(job, |files| files.receiving = Some(Arc::new(receiving)));
        Ok(LocalDone::Done)
    }

    /// Seconds on the wall clock: only for the age of records and for shown times.
    fn time_s(&self) -> u64 {
        self.files.wall_time().as_secs()
    }

    fn read_stream(&self, offset: u64) -> Result<LocalDone, LocalError> {
        let mut input = lock(&self.input);
        let input =
            input.as_mut().ok_or_else(|| LocalError::with_text(ErrorCode::Io, "no standard input"))?;
        let mut payload = Payload::outgoing(&self.pool, self.segment_bytes);
        let mut filled = 0;
        let mut end = false;
        while filled < self.segment_bytes && !end {
            match input.read(&mut payload.room()[filled..self.segment_bytes]) {
                Ok(count) => {
                    filled += count;
                    end = count == 0;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        payload.set_length(filled);
        let hash = SegmentHash::of(offset, payload.bytes());
        Ok(LocalDone::StreamRead { payload, hash, end })
    }

    fn write_stream(&self, offset: u64, payload: &Payload) -> Result<LocalDone, LocalError> {
        let mut output = lock(&self.output);
        let output =
            output.as_mut().ok_or_else(|| LocalError::with_text(ErrorCode::Io, "no standard output"))?;
        output.write_all(payload.bytes())?;
        output.flush()?;
        Ok(LocalDone::SegmentStored(SegmentHash::of(offset, payload.bytes())))
    }
}

impl LocalStore for LocalFiles {
    fn execute(&self, request: LocalRequest) -> LocalReply {
        LocalReply { id: request.id, done: self.do_work(request.job, request.work) }
    }
}

/// The directory that is the root for a user's destination, and the destination below it.
fn local_target(
    files: &dyn FileSystem,
    path: &[u8],
    destined: &Destined,
) -> Result<(PathBuf, RelativePath), LocalError> {
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    let is_directory = files.stat(path).is_ok_and(|stat| stat.is_directory());
    if is_directory || destined.must_be_directory || destined.single.is_none() {
        return Ok((path.to_owned(), RelativePath::root()));
    }
    let name = path.file_name().ok_or_else(|| LocalError::new(ErrorCode::NameInvalid))?;
    let below =
        RelativePath::of_name(name.as_bytes()).map_err(|_| LocalError::new(ErrorCode::NameInvalid))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((parent.unwrap_or(Path::new(".")).to_owned(), below))
}

fn list(export: &Export, path: &RelativePath) -> Result<LocalDone, LocalError> {
    let entry = |name: &[u8], stat: &FileStat| ListEntry {
        name: name.to_vec(),
        kind: match stat.kind {
            FileKind::File => ListKind::File,
            FileKind::Directory => ListKind::Directory,
            FileKind::Link => ListKind::Link,
            FileKind::Other => ListKind::Other,
        },
        size: stat.size,
        attributes: attributes(stat),
    };
    let directory = match export.open_directory(path) {
        Ok(directory) => directory,
        Err(Errno::NOTDIR) => {
            let stat = export.stat(path)?;
            let name = path.split_last().map_or(&b"."[..], |(_, name)| name);
            return Ok(LocalDone::Listed(vec![entry(name, &stat)]));
        }
        Err(errno) => return Err(errno.into()),
    };
    let mut entries = Vec::new();
    for name in names_of(&*directory)? {
        // What vanishes between the two looks is not there.
        if let Ok(stat) = directory.stat_entry(&name) {
            entries.push(entry(&name, &stat));
        }
    }
    Ok(LocalDone::Listed(entries))
}

/// The names in a directory, sorted, without the partial folder.
fn names_of(directory: &dyn FileHandle) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = directory.names()?;
    names.retain(|name| name != PARTIAL_FOLDER);
    names.sort_unstable();
    Ok(names)
}

/// Hashes whole segments of a file.
fn hash_range(
    pool: &BufferPool,
    file: &dyn FileHandle,
    offset: u64,
    length: u64,
    segment_bytes: usize,
) -> Result<LocalDone, LocalError> {
    let mut buffer = pool.take(segment_bytes);
    let mut hashes = Vec::new();
    let mut at = offset;
    while at < offset + length {
        let count = usize::try_from(offset + length - at).unwrap_or(usize::MAX).min(segment_bytes);
        file.read_exact_at(&mut buffer[..count], at)?;
        hashes.push(SegmentHash::of(at, &buffer[..count]));
        at += count as u64;
    }
    Ok(LocalDone::Hashes(hashes))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn identity(stat: &FileStat) -> Identity {
    Identity {
        device: stat.device,
        inode: stat.inode,
        size: stat.size,
        mtime_s: stat.mtime_s,
        mtime_ns: stat.mtime_ns,
        ctime_s: stat.ctime_s,
        ctime_ns: stat.ctime_ns,
    }
}

fn attributes(stat: &FileStat) -> Attributes {
    Attributes {
        mode: stat.mode,
        user: stat.user,
        group: stat.group,
        mtime_s: stat.mtime_s,
        mtime_ns: stat.mtime_ns,
    }
}
