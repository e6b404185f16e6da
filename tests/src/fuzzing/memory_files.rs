//! The files of a host, in memory: what a session works on in the fuzz targets.
//!
//! What holds, where [`Content::Known`] says what the peer sends: every segment that is stored is the source's
//! own bytes at that offset, and what is published is the whole source, once, after its permit: anything
//! else panics. Partial files and the journal outlive a connection, as on a disk. Not here: directories and
//! links (they are all refused), attributes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use storage_mapping::BufferPool;
use transfer_core::payload::Payload;
use transfer_core::transfer::root::SegmentHash;
use transfer_core::transfer::{
    Attributes, ErrorCode, FileAnswer, Identity, KnownAnswer, LoadedFile, LocalDone, LocalError, LocalReply,
    LocalRequest, LocalStore, LocalWork, OpenFile, PackFile, PublishFile, RelativePath, SourceFile,
    SourceOrigin, TransferId, WalkEntry, WalkItem,
};

/// Bytes of a segment.
const SEGMENT: usize = super::sample::SEGMENT_BYTES as usize;
/// The files that this host sends.
pub const NAMES: [&str; 2] = ["large", "small"];
const LARGE_BYTES: usize = 3 * SEGMENT + 77;
const SMALL_BYTES: usize = 500;

/// What is known of the bytes that a peer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// They are those of [`source`]: anything else must not come through.
    Known,
    /// Whatever it likes.
    OfPeer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Committed,
    Aborted,
}

#[derive(Debug, Default)]
struct State {
    permitted: BTreeSet<TransferId>,
    partial: BTreeMap<TransferId, Vec<u8>>,
    journal: BTreeMap<TransferId, Word>,
    open: BTreeMap<u32, TransferId>,
    published: BTreeMap<Vec<u8>, Vec<u8>>,
    stream: Vec<u8>,
    walked: bool,
    of_stream: bool,
    failing: u8,
}

/// The files of one host.
#[derive(Debug)]
pub struct MemoryFiles {
    pool: BufferPool,
    content: Content,
    state: Mutex<State>,
}

/// The bytes of a source, by its name.
#[must_use]
pub fn source(name: &[u8]) -> &'static [u8] {
    static SOURCES: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    let made = |length: usize| (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 11).to_le_bytes()[0]);
    let sources = SOURCES.get_or_init(|| [made(LARGE_BYTES).collect(), made(SMALL_BYTES).rev().collect()]);
    &sources[usize::from(name == NAMES[1].as_bytes())]
}

fn identity(name: &[u8]) -> Identity {
    Identity { device: 1, inode: name.len() as u64, size: source(name).len() as u64, ..Identity::default() }
}

fn name_of(file: &SourceFile) -> &'static [u8] {
    NAMES[usize::try_from(file.source).unwrap_or(0).min(1)].as_bytes()
}

impl MemoryFiles {
    /// No files but the sources.
    #[must_use]
    pub fn new(pool: BufferPool, content: Content) -> Self {
        Self { pool, content, state: Mutex::default() }
    }

    /// The next `count` pieces of work fail, up to 15.
    pub fn fail_next(&self, count: u8) {
        self.state().failing = count % 16;
    }

    /// Final names and their bytes.
    #[must_use]
    pub fn published(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.state().published.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn payload(&self, bytes: &[u8]) -> Payload {
        Payload::copy_of(&self.pool, bytes)
    }

    fn send_side(&self, work: LocalWork) -> Result<LocalDone, LocalError> {
        let state = &mut *self.state();
        Ok(match work {
            LocalWork::OpenJob(_) => {
                LocalDone::JobOpened { nonce: [7; 16], permitted: state.permitted.clone() }
            }
            LocalWork::OpenSources { origin, .. } => {
                (state.walked, state.of_stream) = (false, origin == SourceOrigin::Stream);
                LocalDone::Done
            }
            LocalWork::Walk => {
                let mut entries = if state.walked { Vec::new() } else { walk() };
                entries.truncate(if state.of_stream { 1 } else { NAMES.len() });
                state.walked = true;
                LocalDone::Walked { entries, end: true }
            }
            LocalWork::LoadSegment { file, offset, length } => {
                let bytes = part(name_of(&file), offset, length as u64)?;
                LocalDone::SegmentLoaded {
                    payload: self.payload(&bytes),
                    hash: SegmentHash::of(offset, &bytes),
                }
            }
            LocalWork::HashSource { file, offset, length } => {
                LocalDone::Hashes(hashes(offset, &part(name_of(&file), offset, length)?))
            }
            LocalWork::LoadPack(files) => self.load_pack(&files),
            LocalWork::IssuePermits(items) => {
                state.permitted.extend(items.iter().map(|(_, id)| *id));
                LocalDone::Permits(vec![true; items.len()])
            }
            LocalWork::RecordSettled(ids) => {
                state.permitted.retain(|id| !ids.contains(id));
                LocalDone::Done
            }
            LocalWork::ReadStream { offset } => {
                let bytes = part(NAMES[0].as_bytes(), offset, SEGMENT as u64)?;
                let (payload, hash) = (self.payload(&bytes), SegmentHash::of(offset, &bytes));
                LocalDone::StreamRead { payload, hash, end: bytes.len() < SEGMENT }
            }
            LocalWork::List { .. } => LocalDone::Listed(Vec::new()),
            LocalWork::CloseFile(_) | LocalWork::CloseJob(_) => LocalDone::Done,
            other => unreachable!("{other:?} belongs to the receiving side"),
        })
    }

    fn load_pack(&self, files: &[SourceFile]) -> LocalDone {
        let mut bytes = Vec::new();
        let loaded = files.iter().map(|file| {
            let content = source(name_of(file));
            bytes.extend_from_slice(&file.index.to_le_bytes());
            bytes.extend_from_slice(&u32::try_from(content.len()).expect("a small file").to_le_bytes());
            bytes.extend_from_slice(content);
            let root = *blake3::hash(content).as_bytes();
            Ok(LoadedFile { identity: identity(name_of(file)), attributes: Attributes::default(), root })
        });
        let files = loaded.collect();
        LocalDone::PackLoaded { payload: self.payload(&bytes), files }
    }

    fn receive_side(&self, work: LocalWork) -> Result<LocalDone, LocalError> {
        let state = &mut *self.state();
        Ok(match work {
            LocalWork::OpenDestination(_) => {
                state.open.clear();
                LocalDone::Done
            }
            LocalWork::OpenFile(file) => LocalDone::FileOpened(state.open_file(&file)),
            LocalWork::StoreSegment { index, offset, payload } => {
                self.check_segment(offset, payload.bytes());
                state.store(index, offset, payload.bytes())?;
                LocalDone::SegmentStored(SegmentHash::of(offset, payload.bytes()))
            }
            LocalWork::WriteStream { offset, payload } => {
                assert_eq!(state.stream.len() as u64, offset, "a stream is written in order, once");
                state.stream.extend_from_slice(payload.bytes());
                LocalDone::SegmentStored(SegmentHash::of(offset, payload.bytes()))
            }
            LocalWork::HashPartial { index, offset, length } => {
                LocalDone::Hashes(hashes(offset, &state.partial_part(index, offset, length)?))
            }
            LocalWork::StorePack { payload, files } => {
                let answers = files.iter().map(|file| self.store_small(state, payload.bytes(), file));
                LocalDone::PackStored(answers.collect())
            }
            LocalWork::SyncFiles(files) => LocalDone::Synced(files.iter().map(|_| Ok(())).collect()),
            LocalWork::Publish(files) => {
                let published = files.iter().map(|file| self.publish(state, file));
                LocalDone::Published(published.collect())
            }
            LocalWork::AbortFiles(files) => {
                let abort = |(file, _): (OpenFile, ErrorCode)| {
                    if state.journal.get(&file.id) == Some(&Word::Committed) {
                        return KnownAnswer::Committed { present: true };
                    }
                    state.journal.insert(file.id, Word::Aborted);
                    state.partial.remove(&file.id);
                    KnownAnswer::Aborted
                };
                LocalDone::Aborted(files.into_iter().map(abort).collect())
            }
            LocalWork::MakeDirectories(items) => refused(items.into_iter().map(|item| item.path)),
            LocalWork::MakeLinks(items) => refused(items.into_iter().map(|item| item.path)),
            LocalWork::CloseDestination { .. } => LocalDone::Failures(Vec::new()),
            LocalWork::Checkpoint { .. } => LocalDone::Done,
            other => return self.refuse_unknown(&other),
        })
    }

    fn refuse_unknown(&self, work: &LocalWork) -> Result<LocalDone, LocalError> {
        unreachable!("{work:?} belongs to the sending side of {:?}", self.content)
    }

    fn check_segment(&self, offset: u64, bytes: &[u8]) {
        if self.content == Content::Known {
            let expected = part(NAMES[0].as_bytes(), offset, bytes.len() as u64).unwrap_or_default();
            assert!(expected == bytes, "delivered bytes at {offset} are not those that were sent");
        }
    }

    fn store_small(&self, state: &mut State, payload: &[u8], pack: &PackFile) -> FileAnswer {
        if let Some(known) = state.known(pack.file.id) {
            return known;
        }
        let content = &payload[pack.start..pack.start + pack.length];
        if *blake3::hash(content).as_bytes() != pack.root {
            assert_ne!(self.content, Content::Known, "a small file came with another root");
            return FileAnswer::Refused(LocalError::new(ErrorCode::RootMismatch));
        }
        if self.content == Content::Known {
            assert!(content == source(NAMES[1].as_bytes()), "a small file is not what was sent");
        }
        state.partial.insert(pack.file.id, content.to_vec());
        FileAnswer::Opened { inode: 2, resume: 0 }
    }

    fn publish(&self, state: &mut State, file: &PublishFile) -> Result<(), LocalError> {
        let bytes =
            state.partial.remove(&file.id).ok_or_else(|| LocalError::new(ErrorCode::UnknownTransfer))?;
        assert_eq!(state.journal.get(&file.id), None, "it had its last word");
        assert_eq!(bytes.len() as u64, file.length, "published with another length");
        if self.content == Content::Known {
            let large = bytes.len() == LARGE_BYTES;
            assert!(
                bytes == source(NAMES[usize::from(!large)].as_bytes()),
                "published bytes are not the source"
            );
        }
        assert_eq!(*blake3::hash(&bytes).as_bytes(), file.root, "published with another root");
        state.journal.insert(file.id, Word::Committed);
        state.published.insert(file.path.as_bytes().to_vec(), bytes);
        Ok(())
    }
}

impl State {
    fn known(&self, id: TransferId) -> Option<FileAnswer> {
        Some(FileAnswer::Known(match self.journal.get(&id)? {
            Word::Committed => KnownAnswer::Committed { present: true },
            Word::Aborted => KnownAnswer::Aborted,
        }))
    }

    fn open_file(&mut self, file: &OpenFile) -> FileAnswer {
        if let Some(known) = self.known(file.id) {
            return known;
        }
        if file.permitted && !self.partial.contains_key(&file.id) {
            return FileAnswer::Refused(LocalError::new(ErrorCode::UnknownTransfer));
        }
        let partial = self.partial.entry(file.id).or_default();
        let resume = file.size.map_or(0, |size| partial.len().min(usize::try_from(size).unwrap_or(0)));
        let resume = resume - resume % SEGMENT;
        partial.truncate(resume);
        self.open.insert(file.index, file.id);
        FileAnswer::Opened { inode: 1, resume: resume as u64 }
    }

    fn partial(&mut self, index: u32) -> Result<&mut Vec<u8>, LocalError> {
        let missing = || LocalError::new(ErrorCode::UnknownTransfer);
        let id = self.open.get(&index).ok_or_else(missing)?;
        self.partial.get_mut(id).ok_or_else(missing)
    }

    fn store(&mut self, index: u32, offset: u64, bytes: &[u8]) -> Result<(), LocalError> {
        let partial = self.partial(index)?;
        let start = usize::try_from(offset).map_err(|_| LocalError::new(ErrorCode::Limit))?;
        let end = start + bytes.len();
        if end > 1 << 20 {
            return Err(LocalError::new(ErrorCode::NoSpace));
        }
        if partial.len() < end {
            partial.resize(end, 0);
        }
        partial[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn partial_part(&mut self, index: u32, offset: u64, length: u64) -> Result<Vec<u8>, LocalError> {
        let partial = self.partial(index)?;
        slice(partial, offset, length).ok_or_else(|| LocalError::new(ErrorCode::Io))
    }
}

impl LocalStore for MemoryFiles {
    fn execute(&self, request: LocalRequest) -> LocalReply {
        let failing = {
            let mut state = self.state();
            let failing = state.failing > 0;
            state.failing = state.failing.saturating_sub(1);
            failing
        };
        let done = match request.work {
            _ if failing => Err(LocalError::new(ErrorCode::NoSpace)),
            work @ (LocalWork::OpenJob(_)
            | LocalWork::OpenSources { .. }
            | LocalWork::Walk
            | LocalWork::LoadSegment { .. }
            | LocalWork::LoadPack(_)
            | LocalWork::HashSource { .. }
            | LocalWork::IssuePermits(_)
            | LocalWork::RecordSettled(_)
            | LocalWork::ReadStream { .. }
            | LocalWork::List { .. }
            | LocalWork::CloseFile(_)
            | LocalWork::CloseJob(_)) => self.send_side(work),
            work => self.receive_side(work),
        };
        LocalReply { id: request.id, done }
    }
}

fn walk() -> Vec<WalkEntry> {
    let entry = |(source, name): (u32, &str)| WalkEntry {
        source,
        path: RelativePath::root(),
        announced: RelativePath::from_joined(name.as_bytes()).expect("a name"),
        item: WalkItem::File(identity(name.as_bytes()), Attributes::default()),
    };
    (0..).zip(NAMES).map(entry).collect()
}

fn refused(paths: impl Iterator<Item = RelativePath>) -> LocalDone {
    LocalDone::Failures(paths.map(|path| (path, LocalError::new(ErrorCode::NotAllowed))).collect())
}

/// At most `length` bytes of a source.
fn part(name: &[u8], offset: u64, length: u64) -> Result<Vec<u8>, LocalError> {
    let content = source(name);
    let length = length.min((content.len() as u64).saturating_sub(offset));
    slice(content, offset, length).ok_or_else(|| LocalError::new(ErrorCode::Changed))
}

fn slice(bytes: &[u8], offset: u64, length: u64) -> Option<Vec<u8>> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    bytes.get(start..end).map(<[u8]>::to_vec)
}

fn hashes(offset: u64, bytes: &[u8]) -> Vec<SegmentHash> {
    let parts = bytes.chunks(SEGMENT).enumerate();
    parts.map(|(index, part)| SegmentHash::of(offset + (index * SEGMENT) as u64, part)).collect()
}
