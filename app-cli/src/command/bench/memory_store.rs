//! Local work without files: what is sent comes from memory, what is received is hashed and dropped.
//!
//! Keeps true: every segment is copied once out of memory and hashed on both sides as real files are, so a wrong byte on the way
//! makes a wrong root, and the job fails. Not here: reading and writing files, which is what this leaves out on purpose.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};

use storage_mapping::BufferPool;
use transfer_core::driver::clock::OsRandom;
use transfer_core::payload::Payload;
use transfer_core::random::random_bytes;
use transfer_core::transfer::root::SegmentHash;
use transfer_core::transfer::{
    Attributes, ErrorCode, FileAnswer, Identity, LocalDone, LocalError, LocalReply, LocalRequest, LocalStore,
    LocalWork, RelativePath, WalkEntry, WalkItem,
};

/// Keeps jobs from beginning until all are connected.
#[derive(Debug, Default)]
pub(super) struct Gate {
    is_open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    /// Lets everybody through, from now on.
    pub(super) fn open(&self) {
        *self.is_open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let is_open = self.is_open.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(is_open, |is_open| !*is_open));
    }
}

/// One file of so many bytes that lies in memory, and a place for files that keeps nothing.
pub(super) struct MemoryStore {
    pool: BufferPool,
    /// The file is this, over and over.
    bytes: Vec<u8>,
    size: u64,
    gate: Gate,
}

impl MemoryStore {
    /// A file of `size` bytes made of random segments of `segment_bytes`; payloads come from `pool`.
    pub(super) fn new(pool: BufferPool, segment_bytes: usize, size: u64) -> Self {
        let mut bytes = vec![0; segment_bytes];
        let seed: [u8; 32] = random_bytes(&mut OsRandom);
        blake3::Hasher::new_keyed(&seed).finalize_xof().fill(&mut bytes);
        Self { pool, bytes, size, gate: Gate::default() }
    }

    /// The gate that the sending of files waits at.
    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    fn load(&self, offset: u64, length: usize) -> LocalDone {
        let mut payload = Payload::outgoing(&self.pool, length);
        payload.room()[..length].copy_from_slice(&self.bytes[..length]);
        payload.set_length(length);
        let hash = SegmentHash::of(offset, payload.bytes());
        LocalDone::SegmentLoaded { payload, hash }
    }

    fn walk(&self) -> LocalDone {
        let identity = Identity { inode: 1, size: self.size, ..Identity::default() };
        let announced = RelativePath::of_name(b"memory").expect("a plain name");
        let item = WalkItem::File(identity, Attributes::default());
        let entries = vec![WalkEntry { source: 0, path: RelativePath::root(), announced, item }];
        LocalDone::Walked { entries, end: true }
    }

    fn work(&self, work: LocalWork) -> Result<LocalDone, LocalError> {
        Ok(match work {
            LocalWork::OpenJob(_) => {
                LocalDone::JobOpened { nonce: random_bytes(&mut OsRandom), permitted: BTreeSet::new() }
            }
            LocalWork::OpenSources { .. } => {
                self.gate.pass();
                LocalDone::Done
            }
            LocalWork::Walk => self.walk(),
            LocalWork::LoadSegment { offset, length, .. } => self.load(offset, length),
            LocalWork::IssuePermits(files) => LocalDone::Permits(vec![true; files.len()]),
            LocalWork::OpenFile(_) => LocalDone::FileOpened(FileAnswer::Opened { inode: 1, resume: 0 }),
            LocalWork::StoreSegment { offset, payload, .. } => {
                LocalDone::SegmentStored(SegmentHash::of(offset, payload.bytes()))
            }
            LocalWork::SyncFiles(files) => LocalDone::Synced(vec![Ok(()); files.len()]),
            LocalWork::Publish(files) => LocalDone::Published(vec![Ok(()); files.len()]),
            LocalWork::CloseDestination { .. } => LocalDone::Failures(Vec::new()),
            LocalWork::List { .. } => LocalDone::Listed(Vec::new()),
            LocalWork::Checkpoint { .. }
            | LocalWork::CloseFile(_)
            | LocalWork::CloseJob(_)
            | LocalWork::OpenDestination(_)
            | LocalWork::RecordSettled(_) => LocalDone::Done,
            _ => return Err(LocalError::new(ErrorCode::Io)),
        })
    }
}

impl LocalStore for MemoryStore {
    fn execute(&self, request: LocalRequest) -> LocalReply {
        LocalReply { id: request.id, done: self.work(request.work) }
    }
}
