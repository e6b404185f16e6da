//! The local work of a session: what it asks of the files of its host, and the answers.
//!
//! Requests are coarse and self-contained: they name files by job and file index or by path, never
//! by descriptor, so that they can run on any worker, several at once, and a simulated file system can
//! answer them. Not here: the real file system (`local`), the order of requests (`sender`, `receiver`).

use super::code::{ErrorCode, LocalError};
use super::name::RelativePath;
use super::root::{Root, SegmentHash};
use crate::payload::Payload;
use std::collections::BTreeSet;
use std::fmt;

/// Names one attempt to publish one file (128 bits, chosen by the sender, stable over retries).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TransferId(pub [u8; 16]);

impl TransferId {
    /// The id of a source under a job: the same source gives the same id until the round changes.
    #[must_use]
    pub fn derive(nonce: &[u8; 16], round: u32, path: &RelativePath, identity: &Identity) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("diskwire 2026 transfer id v1");
        hasher.update(nonce);
        hasher.update(&round.to_le_bytes());
        for number in [identity.device, identity.inode, identity.size, identity.mtime_s.cast_unsigned()] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&identity.mtime_ns.to_le_bytes());
        hasher.update(path.as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(id)
    }

    /// In hexadecimal: the name of the partial file.
    #[must_use]
    pub fn to_hex(self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
    }
}

impl fmt::Debug for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

/// What tells one state of a source file from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Device of the file system.
    pub device: u64,
    /// Inode.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// Time of last change of the content, seconds.
    pub mtime_s: i64,
    /// The same, nanoseconds.
    pub mtime_ns: u32,
    /// Time of last change of the inode, seconds.
    pub ctime_s: i64,
    /// The same, nanoseconds.
    pub ctime_ns: u32,
}

/// Attributes that go with a file, directory or link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub user: u32,
    /// Group.
    pub group: u32,
    /// Time of last change, seconds.
    pub mtime_s: i64,
    /// The same, nanoseconds.
    pub mtime_ns: u32,
}

/// What a job is known by over several runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobKey {
    /// The other host.
    pub peer: String,
    /// Whether this host receives.
    pub pull: bool,
    /// The export there.
    pub export: Vec<u8>,
    /// Paths there.
    pub remote: Vec<Vec<u8>>,
    /// Paths here.
    pub local: Vec<Vec<u8>>,
    /// Whether a later run may continue it; not so for streams.
    pub durable: bool,
}

/// What is to become of the record of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// Every file's last word is known: it goes.
    Finished,
    /// The job did not begin: the record goes if it was made for this run; else an earlier run may
    /// have issued permits, and it stays.
    Refused,
    /// A re-run needs it.
    Unfinished,
}

/// Where sources are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceOrigin {
    /// Below an export of this host.
    Export {
        /// Its name.
        export: Vec<u8>,
        /// The sources in it.
        paths: Vec<RelativePath>,
    },
    /// Paths that the user of this host gave.
    Local(Vec<Vec<u8>>),
    /// Standard input.
    Stream,
}

/// Where received files go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Below an export of this host.
    Export {
        /// Its name.
        export: Vec<u8>,
        /// The destination in it.
        path: RelativePath,
    },
    /// A path that the user of this host gave.
    Local(Vec<u8>),
    /// Standard output.
    Stream,
}

/// How received items are named below a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destined {
    /// Where.
    pub target: Target,
    /// The name of the single source; `None` where there are several. An empty one is a source
    /// without a name (a stream, or the content of a directory).
    pub single: Option<Vec<u8>>,
    /// The target must be an existing directory.
    pub must_be_directory: bool,
    /// A stream: there must be a final name.
    pub stream: bool,
    /// Refuse to replace files.
    pub no_clobber: bool,
    /// Keep times, and owners where allowed.
    pub preserve: bool,
}

/// One source file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Running number in the job.
    pub index: u32,
    /// Which of the sources.
    pub source: u32,
    /// Path below that source; the root is the source itself.
    pub path: RelativePath,
    /// As it was when it was first looked at.
    pub identity: Identity,
}

/// A small file that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadedFile {
    /// As it was when it was opened.
    pub identity: Identity,
    /// Its attributes.
    pub attributes: Attributes,
    /// Its root.
    pub root: Root,
}

/// One thing that a walk found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalkEntry {
    /// Which of the sources.
    pub source: u32,
    /// Path below that source.
    pub path: RelativePath,
    /// Path as the receiver is told: the name of the source first.
    pub announced: RelativePath,
    /// What it is.
    pub item: WalkItem,
}

/// What a walk found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalkItem {
    /// A directory; its content follows.
    Directory(Attributes),
    /// It could not be looked at.
    Failed(LocalError),
    /// A regular file.
    File(Identity, Attributes),
    /// A symbolic link and where it points.
    Link(Attributes, Vec<u8>),
    /// It is left out by rule.
    Skipped(LocalError),
}

/// A directory to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryItem {
    /// Path as announced.
    pub path: RelativePath,
    /// Its attributes.
    pub attributes: Attributes,
}

/// A symbolic link to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkItem {
    /// Path as announced.
    pub path: RelativePath,
    /// Its attributes.
    pub attributes: Attributes,
    /// Where it points.
    pub target: Vec<u8>,
}

/// A file that is to be received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFile {
    /// Running number in the job.
    pub index: u32,
    /// Its transfer id.
    pub id: TransferId,
    /// Whether the sender ever issued a permit under this id.
    pub permitted: bool,
    /// Path as announced.
    pub path: RelativePath,
    /// Length, if known.
    pub size: Option<u64>,
}

/// One file of a pack: where it stands in the payload, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackFile {
    /// The file.
    pub file: OpenFile,
    /// Its attributes.
    pub attributes: Attributes,
    /// Its announced root.
    pub root: Root,
    /// First byte in the payload.
    pub start: usize,
    /// Number of bytes.
    pub length: usize,
}

/// What the journal says about a transfer id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownAnswer {
    /// It was aborted.
    Aborted,
    /// It was published.
    Committed {
        /// The target is still there, the same inode with the same length.
        present: bool,
    },
}

/// What became of the wish to receive a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileAnswer {
    /// The journal has its last word.
    Known(KnownAnswer),
    /// Opened, or for a small file: written.
    Opened {
        /// Inode of the partial file.
        inode: u64,
        /// Bytes from the start that are durable; a multiple of the segment size.
        resume: u64,
    },
    /// It cannot be received.
    Refused(LocalError),
}

/// A written file that is to be made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncFile {
    /// Running number in the job.
    pub index: u32,
    /// Its transfer id.
    pub id: TransferId,
    /// Attributes still to be set; none for small files, which have them already.
    pub attributes: Option<Attributes>,
}

/// A durable file that is to get its final name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishFile {
    /// Running number in the job.
    pub index: u32,
    /// Its transfer id.
    pub id: TransferId,
    /// Path as announced.
    pub path: RelativePath,
    /// Inode of the partial file.
    pub inode: u64,
    /// Its length.
    pub length: u64,
    /// Its root.
    pub root: Root,
}

/// What kind of thing a listing shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ListKind {
    /// A regular file.
    File = 0,
    /// A directory.
    Directory = 1,
    /// A symbolic link.
    Link = 2,
    /// Anything else.
    Other = 3,
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// Its name.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: ListKind,
    /// Length in bytes.
    pub size: u64,
    /// Its attributes.
    pub attributes: Attributes,
}

/// One piece of local work.
#[derive(Debug)]
pub struct LocalRequest {
    /// Comes back in the reply.
    pub id: u64,
    /// Which job of the connection.
    pub job: u32,
    /// What to do.
    pub work: LocalWork,
}

/// What to do.
#[derive(Debug)]
pub enum LocalWork {
    /// Journals that these ids will never be published, then discards their partial files; where the journal
    /// has a last word already, that one counts. → `Aborted`
    AbortFiles(Vec<(OpenFile, ErrorCode)>),
    /// Makes the first `length` bytes of a partial file durable and records it. → `Done`
    Checkpoint {
        /// The file.
        index: u32,
        /// Bytes from the start, all written.
        length: u64,
    },
    /// Closes a source file that is not needed any more. → `Done`
    CloseFile(u32),
    /// Ends the receiving of a job: attributes of directories, partial folder. → `Failures`
    CloseDestination {
        /// The job came to its end, so that attributes of directories are to be set.
        finished: bool,
    },
    /// Ends the sending of a job, or the requester's record of it. → `Done`
    CloseJob(JobEnd),
    /// Hashes written bytes of a partial file again. → `Hashes`
    HashPartial {
        /// The file.
        index: u32,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
    /// Hashes bytes of a source that need not be sent. → `Hashes`
    HashSource {
        /// The file.
        file: SourceFile,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
    /// Compares sources with what they were, and journals the permits of the unchanged ones (one
    /// fsync). → `Permits`
    IssuePermits(Vec<(SourceFile, TransferId)>),
    /// What is in a directory of an export. → `Listed`
    List {
        /// The export.
        export: Vec<u8>,
        /// The directory, or one file.
        path: RelativePath,
    },
    /// Reads small files into one payload. → `PackLoaded`
    LoadPack(Vec<SourceFile>),
    /// Reads one segment of a source. → `SegmentLoaded`
    LoadSegment {
        /// The file.
        file: SourceFile,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: usize,
    },
    /// Makes directories, in order. → `Failures`
    MakeDirectories(Vec<DirectoryItem>),
    /// Makes symbolic links. → `Failures`
    MakeLinks(Vec<LinkItem>),
    /// Opens the place for received files and finishes what its journal says. → `Done`
    OpenDestination(Destined),
    /// Opens the partial file of a large file. → `FileOpened`
    OpenFile(OpenFile),
    /// Finds or makes the record of a job. → `JobOpened`
    OpenJob(JobKey),
    /// Opens the sources. → `Done`
    OpenSources {
        /// Where they are.
        origin: SourceOrigin,
        /// Whether to go into directories.
        recursive: bool,
    },
    /// Gives final names to files: INTENT, renames, directories, COMMITTED. → `Published`
    Publish(Vec<PublishFile>),
    /// Reads the next segment of standard input. → `StreamRead`
    ReadStream {
        /// Bytes read before.
        offset: u64,
    },
    /// Notes that the last word about these ids is known; need not be durable. → `Done`
    RecordSettled(Vec<TransferId>),
    /// Writes a run of small files as partial files. → `PackStored`
    StorePack {
        /// The pack.
        payload: Payload,
        /// The files in it.
        files: Vec<PackFile>,
    },
    /// Writes one segment of a partial file. → `SegmentStored`
    StoreSegment {
        /// The file.
        index: u32,
        /// First byte.
        offset: u64,
        /// The bytes.
        payload: Payload,
    },
    /// Sets attributes and makes partial files durable. → `Synced`
    SyncFiles(Vec<SyncFile>),
    /// The next part of the walk over all sources. → `Walked`
    Walk,
    /// Writes to standard output. → `SegmentStored`
    WriteStream {
        /// Bytes written before.
        offset: u64,
        /// The bytes.
        payload: Payload,
    },
}

/// The answer to one piece of local work.
#[derive(Clone, Debug)]
pub struct LocalReply {
    /// That of the request.
    pub id: u64,
    /// What came of it.
    pub done: Result<LocalDone, LocalError>,
}

/// What came of local work.
#[derive(Clone, Debug)]
pub enum LocalDone {
    /// The last word about each file, in the order asked for.
    Aborted(Vec<KnownAnswer>),
    /// It is done.
    Done,
    /// It is done but for these.
    Failures(Vec<(RelativePath, LocalError)>),
    /// A partial file is open, or not.
    FileOpened(FileAnswer),
    /// Hashes of whole segments, in order.
    Hashes(Vec<SegmentHash>),
    /// The record of the job.
    JobOpened {
        /// Names this job.
        nonce: [u8; 16],
        /// Ids under which a permit was issued and whose last word is not known.
        permitted: BTreeSet<TransferId>,
    },
    /// A directory's content.
    Listed(Vec<ListEntry>),
    /// Small files, in the order asked for; those that failed are not in the payload.
    PackLoaded {
        /// The pack.
        payload: Payload,
        /// What became of each.
        files: Vec<Result<LoadedFile, LocalError>>,
    },
    /// What became of each small file, in order.
    PackStored(Vec<FileAnswer>),
    /// For each source, whether it is unchanged and its permit recorded.
    Permits(Vec<bool>),
    /// For each file, in order, whether it was published.
    Published(Vec<Result<(), LocalError>>),
    /// A segment of a source.
    SegmentLoaded {
        /// The bytes.
        payload: Payload,
        /// Its hash.
        hash: SegmentHash,
    },
    /// A segment was written.
    SegmentStored(SegmentHash),
    /// Bytes of standard input.
    StreamRead {
        /// The bytes: a full segment unless it is the end.
        payload: Payload,
        /// Their hash.
        hash: SegmentHash,
        /// Nothing follows.
        end: bool,
    },
    /// For each file, in order, whether it is durable.
    Synced(Vec<Result<(), LocalError>>),
    /// Part of a walk.
    Walked {
        /// What was found.
        entries: Vec<WalkEntry>,
        /// Nothing follows.
        end: bool,
    },
}

/// Executes local work; called from several workers at once.
pub trait LocalStore: Send + Sync {
    /// Does one piece of work, as long as it takes.
    fn execute(&self, request: LocalRequest) -> LocalReply;
}
