//! Writing and publishing: partial files, durability, the journal, final names.
//!
//! ```text
//!  <root>/.diskwire-partial/<transfer id>        bytes as they come (0600 until complete)
//!                           <transfer id>.mark   how many of them are durable
//!                           <transfer id>.stream it is a stream, which is never taken up again
//! ```
//!
//! What holds: a final name only ever comes from a rename of a durable partial file whose INTENT is
//! journalled; COMMITTED is journalled after the directories are durable; a partial file is discarded
//! only after ABORTED is journalled, or when it never had a word said about it, or when it is of a
//! stream that was cut. After an error of a
//! sync nothing is synced again in hope. Not here: when (`receiver`), the journal's bytes (`journal`).

mod folder;
mod publish;
mod room;

use super::super::code::{ErrorCode, LocalError};
use super::super::name::RelativePath;
use super::super::root::{HASHED_WARM_BYTES, Root, SegmentHash, SegmentHasher};
use super::super::store::{
    Attributes, Destined, FileAnswer, KnownAnswer, LocalDone, OpenFile, PackFile, TransferId,
};
use super::claim::{Claim, Claimant};
use super::{Place, lock};
use crate::file_system::{Errno, FileHandle, FileStat, Handle, Mode, OFlags};
use crate::journal::{Entry, Journal};
use folder::PartialFolder;
use room::reserve;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// Directories whose attributes one job may set at its end.
const DIRECTORIES_MAX: usize = 1_000_000;

/// How announced paths become paths below the root.
#[derive(Debug)]
enum Naming {
    /// Below the base, as announced.
    Into,
    /// The source gets this name; `strip` is the name that it was announced with.
    As { name: Vec<u8>, strip: Vec<u8> },
}

/// A large partial file that is open.
#[derive(Debug)]
struct Partial {
    file: Handle,
    id: TransferId,
    /// None for a stream.
    size: Option<u64>,
    marks: u64,
    /// Who writes. A kernel lets one writer into a file and lets the others spin, so they queue here, where they sleep.
    writing: Arc<Mutex<()>>,
    _claim: Claim,
}

/// A directory of the job, for its attributes at the end.
#[derive(Debug)]
struct MadeDirectory {
    path: RelativePath,
    attributes: Attributes,
    created: bool,
}

/// The receiving end of one job.
#[derive(Debug)]
pub(crate) struct Receiving {
    place: Arc<Place>,
    claimant: Arc<Claimant>,
    folder: PartialFolder,
    base: RelativePath,
    naming: Naming,
    no_clobber: bool,
    preserve: bool,
    as_root: bool,
    time_s: u64,
    journal: Arc<Mutex<Journal>>,
    open: Mutex<BTreeMap<u32, Partial>>,
    /// Who makes small files: a kernel lets one into a directory at a time, and lets the others spin.
    making: Mutex<()>,
    directories: Mutex<Vec<MadeDirectory>>,
    /// Directories with new entries that are not durable yet.
    unsynced: Mutex<BTreeSet<RelativePath>>,
}

impl Receiving {
    /// Resolves the destination, opens the partial folder, and finishes what the journal says.
    pub(crate) fn open(
        place: Arc<Place>,
        path: &RelativePath,
        destined: Destined,
        time_s: u64,
        claimant: Arc<Claimant>,
    ) -> Result<Self, LocalError> {
        let (base, naming) = resolve(&place, path, &destined)?;
        let base_device = place.export.open_directory(&base)?.stat()?.device;
        let (folder, journal) = {
            let mut shared = lock(&place.shared);
            let folder = PartialFolder::open(&place.export, shared.users > 0)?;
            if folder.handle().stat()?.device != base_device {
                return Err(LocalError::new(ErrorCode::CrossDevice));
            }
            // One that could not be written, perhaps because the disk was full, is read anew.
            drop(shared.journal.take_if(|journal| lock(journal).is_broken()));
            let journal = match &shared.journal {
                Some(journal) => Arc::clone(journal),
                None => {
                    let mut journal = Journal::open_on(&*place.files, &place.journal_path, time_s)
                        .map_err(journal_error)?;
                    publish::finish_intents(&place.export, &folder, &mut journal, time_s)?;
                    let journal = Arc::new(Mutex::new(journal));
                    shared.journal = Some(Arc::clone(&journal));
                    journal
                }
            };
            if shared.users == 0 {
                folder.discard_old(&mut lock(&journal), time_s).map_err(journal_error)?;
            }
            shared.users += 1;
            (folder, journal)
        };
        Ok(Self {
            as_root: place.files.is_privileged(),
            place,
            claimant,
            folder,
            base,
            naming,
            no_clobber: destined.no_clobber,
            preserve: destined.preserve,
            time_s,
            journal,
            open: Mutex::default(),
            making: Mutex::default(),
            directories: Mutex::default(),
            unsynced: Mutex::default(),
        })
    }

    /// Where an announced path goes, below the root.
    fn target(&self, announced: &RelativePath) -> Result<RelativePath, LocalError> {
        let invalid = || LocalError::new(ErrorCode::NameInvalid);
        let target = match &self.naming {
            Naming::Into => self.base.join(announced),
            Naming::As { name, strip } => {
                let below = if strip.is_empty() {
                    announced.clone()
                } else if announced.first() == Some(strip) {
                    announced.below_first()
                } else {
                    return Err(invalid());
                };
                self.base.child(name).and_then(|path| path.join(&below))
            }
        };
        target.map_err(|_| LocalError::new(ErrorCode::NameTooLong))
    }

    // ---- opening --------------------------------------------------------------------------------

    /// What the journal says about a file.
    fn known(&self, file: &OpenFile, journal: &Journal) -> Option<FileAnswer> {
        match journal.find(&file.id)? {
            Entry::Aborted { .. } => Some(FileAnswer::Known(KnownAnswer::Aborted)),
            Entry::Intent { .. } => Some(FileAnswer::Refused(LocalError::new(ErrorCode::Busy))),
            Entry::Committed { inode, length } => {
                let stat = self.target(&file.path).ok().and_then(|path| self.place.export.stat(&path).ok());
                let present = stat.is_some_and(|s| s.inode == *inode && s.size == *length);
                Some(FileAnswer::Known(KnownAnswer::Committed { present }))
            }
        }
    }

    /// What speaks against a file before a byte of it came.
    fn check_target(&self, path: &RelativePath) -> Result<(), LocalError> {
        match self.place.export.stat(path) {
            Ok(stat) if stat.is_directory() => Err(LocalError::new(ErrorCode::IsADirectory)),
            Ok(_) if self.no_clobber => Err(LocalError::new(ErrorCode::Exists)),
            // A missing parent may be on its way; the rename will tell.
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens or makes the partial file of a large file.
    pub(crate) fn open_file(&self, file: &OpenFile, segment_bytes: usize) -> FileAnswer {
        let claim = match Claim::begin(&self.place, file.id, &self.claimant) {
            Ok(claim) => claim,
            Err(error) => return FileAnswer::Refused(error),
        };
        if let Some(answer) = self.known(file, &lock(&self.journal)) {
            return answer;
        }
        match self.open_partial(file, claim, segment_bytes) {
            Ok((inode, resume)) => FileAnswer::Opened { inode, resume },
            Err(error) => FileAnswer::Refused(error),
        }
    }

    fn open_partial(
        &self,
        file: &OpenFile,
        claim: Claim,
        segment_bytes: usize,
    ) -> Result<(u64, u64), LocalError> {
        let target = self.target(&file.path)?;
        let name = file.id.to_hex();
        let (opened, found) = match self.folder.open_file(&name, OFlags::RDWR) {
            Ok(opened) => (opened, true),
            Err(Errno::NOENT) if file.permitted => return Err(LocalError::new(ErrorCode::UnknownTransfer)),
            Err(Errno::NOENT) => {
                self.check_target(&target)?;
                if file.size.is_none() {
                    self.folder.mark_stream(&name)?;
                }
                let made = self.folder.open_file(&name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL);
                (made.inspect_err(|_| self.folder.discard_marks(&name))?, false)
            }
            Err(errno) => return Err(errno.into()),
        };
        if let Err(errno) = opened.try_lock() {
            if errno != Errno::WOULDBLOCK {
                return Err(errno.into());
            }
            return Err(LocalError::new(ErrorCode::Busy));
        }
        if !opened.is_entry(self.folder.handle(), name.as_bytes())? {
            // Another process took it for abandoned before it was locked.
            return Err(LocalError::new(ErrorCode::Busy));
        }
        let size = file.size.unwrap_or(0);
        let stat = opened.stat()?;
        let mut resume = 0;
        if found && file.size.is_some() {
            let durable = self.folder.read_mark(&name, size).min(stat.size);
            resume = durable - durable % segment_bytes as u64;
        }
        opened.set_length(resume)?;
        reserve(&*opened, file, resume, segment_bytes as u64).inspect_err(|_| {
            if !found {
                self.folder.discard(&name);
            }
        })?;
        let writing = Arc::default();
        let partial =
            Partial { file: opened, id: file.id, size: file.size, marks: 0, writing, _claim: claim };
        lock(&self.open).insert(file.index, partial);
        Ok((stat.inode, resume))
    }

    /// The open partial file of a large file.
    pub(crate) fn partial_file(&self, index: u32) -> Result<Handle, LocalError> {
        let open = lock(&self.open);
        open.get(&index)
            .map(|partial| Arc::clone(&partial.file))
            .ok_or_else(|| LocalError::new(ErrorCode::Io))
    }

    /// Hashes one segment of a large partial file and writes it.
    pub(crate) fn store_segment(
        &self,
        index: u32,
        offset: u64,
        bytes: &[u8],
    ) -> Result<SegmentHash, LocalError> {
        let (file, writing) = {
            let open = lock(&self.open);
            let partial = open.get(&index).ok_or_else(|| LocalError::new(ErrorCode::Io))?;
            (Arc::clone(&partial.file), Arc::clone(&partial.writing))
        };
        let mut hasher = SegmentHasher::at(offset);
        let mut at = offset;
        for part in bytes.chunks(HASHED_WARM_BYTES) {
            // Before it is this thread's turn, so that nobody waits for the hash.
            hasher.update(part);
            let _turn = lock(&writing);
            file.write_all_at(part, at)?;
            at += part.len() as u64;
        }
        Ok(hasher.finish())
    }

    /// Makes a prefix durable, then records it.
    pub(crate) fn checkpoint(&self, index: u32, length: u64) -> Result<LocalDone, LocalError> {
        let file = self.partial_file(index)?;
        file.sync_data()?;
        let marked = lock(&self.open).get_mut(&index).map(|partial| {
            partial.marks += 1;
            (partial.id, partial.size.unwrap_or(0), partial.marks)
        });
        if let Some((id, size, turn)) = marked {
            self.folder.write_mark(&id.to_hex(), size, length, turn)?;
        }
        Ok(LocalDone::Done)
    }

    // ---- small files ----------------------------------------------------------------------------

    /// Writes the files of a pack.
    pub(crate) fn store_pack(&self, bytes: &[u8], files: &[PackFile]) -> Vec<FileAnswer> {
        let claim = |pack: &PackFile| Claim::begin(&self.place, pack.file.id, &self.claimant);
        let claims: Vec<Result<Claim, LocalError>> = files.iter().map(claim).collect();
        // Only now: what another connection has done is in the journal.
        let known: Vec<Option<FileAnswer>> = {
            let journal = lock(&self.journal);
            files.iter().map(|pack| self.known(&pack.file, &journal)).collect()
        };
        // Hashed before it is this thread's turn.
        let contents: Vec<Result<&[u8], LocalError>> =
            files.iter().map(|pack| content_of(bytes, pack)).collect();
        let _turn = lock(&self.making);
        let mut answers = Vec::with_capacity(files.len());
        for (((pack, claim), known), content) in files.iter().zip(claims).zip(known).zip(contents) {
            let stored = claim.and_then(|claim| match known {
                Some(known) => Ok(known),
                None => {
                    let inode = self.store_small(content?, pack)?;
                    claim.keep(true);
                    Ok(FileAnswer::Opened { inode, resume: 0 })
                }
            });
            answers.push(stored.unwrap_or_else(FileAnswer::Refused));
        }
        answers
    }

    fn store_small(&self, content: &[u8], pack: &PackFile) -> Result<u64, LocalError> {
        let target = self.target(&pack.file.path)?;
        if self.no_clobber {
            self.check_target(&target)?;
        }
        let name = pack.file.id.to_hex();
        let create = if pack.file.permitted { OFlags::empty() } else { OFlags::CREATE };
        let file = match self.folder.open_file(&name, OFlags::WRONLY | OFlags::TRUNC | create) {
            Err(Errno::NOENT) if pack.file.permitted => {
                return Err(LocalError::new(ErrorCode::UnknownTransfer));
            }
            opened => opened?,
        };
        let complete = || {
            file.write_all_at(content, 0)?;
            let stat = file.stat()?;
            self.set_attributes(&*file, &stat, &pack.attributes)?;
            Ok(stat.inode)
        };
        complete().inspect_err(|_| {
            if !pack.file.permitted {
                self.folder.discard(&name);
            }
        })
    }

    /// Owner, mode and times, by handle. Never setuid, setgid or sticky.
    fn set_attributes(
        &self,
        file: &dyn FileHandle,
        found: &FileStat,
        attributes: &Attributes,
    ) -> Result<(), LocalError> {
        let is_owned = (found.user, found.group) == (attributes.user, attributes.group);
        if self.preserve && self.as_root && !is_owned {
            file.set_owner(attributes.user, attributes.group)?;
        }
        file.set_mode(Mode::from_raw_mode(attributes.mode & 0o777))?;
        if self.preserve {
            file.set_times(attributes.mtime_s, attributes.mtime_ns)?;
        }
        Ok(())
    }
}

/// The bytes of a file in its pack, if they have the announced root.
fn content_of<'a>(bytes: &'a [u8], pack: &PackFile) -> Result<&'a [u8], LocalError> {
    let end = pack.start.checked_add(pack.length).ok_or_else(|| LocalError::new(ErrorCode::Io))?;
    let content = bytes.get(pack.start..end).ok_or_else(|| LocalError::new(ErrorCode::Io))?;
    let root: Root = *blake3::hash(content).as_bytes();
    if root != pack.root {
        return Err(LocalError::new(ErrorCode::RootMismatch));
    }
    Ok(content)
}

fn journal_error(error: std::io::Error) -> LocalError {
    if error.kind() == std::io::ErrorKind::WouldBlock {
        LocalError::with_text(ErrorCode::Busy, "another process receives there")
    } else {
        LocalError::with_text(ErrorCode::Io, format!("the journal: {error}"))
    }
}

/// Finds out whether a destination is a directory to copy into or a name to give.
fn resolve(
    place: &Place,
    path: &RelativePath,
    destined: &Destined,
) -> Result<(RelativePath, Naming), LocalError> {
    let missing = match place.export.open_directory(path) {
        Ok(_) if destined.stream => {
            let error = LocalError::with_text(ErrorCode::IsADirectory, "a stream needs the name of a file");
            return Err(error);
        }
        Ok(_) => return Ok((path.clone(), Naming::Into)),
        Err(errno @ (Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => errno,
        Err(errno) => return Err(errno.into()),
    };
    let Some(strip) = destined.single.clone().filter(|_| !destined.must_be_directory) else {
        let (code, text) = match missing {
            Errno::NOENT => (ErrorCode::NotFound, "the destination does not exist"),
            _ => (ErrorCode::NotADirectory, "the destination is not a directory"),
        };
        return Err(LocalError::with_text(code, format!("{}: {text}", shown(path))));
    };
    let (base, name) = path.split_last().ok_or_else(|| LocalError::new(ErrorCode::NotFound))?;
    if let Err(errno) = place.export.open_directory(&base) {
        let error = LocalError::from(errno);
        return Err(LocalError::with_text(
            error.code,
            format!("{}: the destination's directory: {error}", shown(&base)),
        ));
    }
    Ok((base, Naming::As { name: name.to_vec(), strip }))
}

/// A path for a message.
fn shown(path: &RelativePath) -> String {
    String::from_utf8_lossy(path.as_bytes()).into_owned()
}

/// Whether an entry of a directory is a directory itself.
fn is_directory(parent: &dyn FileHandle, name: &[u8]) -> bool {
    parent.stat_entry(name).is_ok_and(|stat| stat.is_directory())
}
