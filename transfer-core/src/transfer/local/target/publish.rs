//! From written to durable to published: syncs, INTENT, renames, directories, COMMITTED.
//!
//! ```text
//!  written ─attributes, sync, sync of the folder─► durable ─INTENT─► rename ─sync of directories─► COMMITTED
//!                                                            │ fails, partial is there ─► ABORTED
//! ```
//!
//! What holds: each arrow to a word in capitals is one durable append for the whole batch. An error in
//! return of [`Receiving::publish`] or [`Receiving::abort`] means that nothing may be said about the
//! files: the journal decides at the next opening.

use super::super::claim::Claim;
use super::folder::PartialFolder;
use super::{DIRECTORIES_MAX, MadeDirectory, Receiving, is_directory, journal_error, lock};
use crate::export::Export;
use crate::file_system::{Errno, Handle, Mode, OFlags, RenameFlags};
use crate::journal::{Entry, Journal};
use crate::transfer::code::{ErrorCode, LocalError};
use crate::transfer::name::{RelativePath, link_stays_inside};
use crate::transfer::store::{
    DirectoryItem, FileAnswer, KnownAnswer, LinkItem, LocalDone, OpenFile, PublishFile, SyncFile, TransferId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Up to so many files or directories are synced one by one; more by one syncfs.
const SYNC_SINGLY_MAX: usize = 8;

/// Parents that were opened, so that a batch opens each once.
type Parents = BTreeMap<RelativePath, Result<Handle, Errno>>;

impl Receiving {
    /// Sets what attributes are still to be set, and makes files durable under their partial names.
    pub(crate) fn sync_files(&self, files: &[SyncFile]) -> Result<Vec<Result<(), LocalError>>, LocalError> {
        let _claims = self.go_on(files.iter().map(|file| file.id))?;
        let mut results = Vec::with_capacity(files.len());
        for file in files {
            results.push(match &file.attributes {
                Some(attributes) => {
                    let give = |open: Handle| self.set_attributes(&*open, &open.stat()?, attributes);
                    self.partial_file(file.index).and_then(give)
                }
                None => Ok(()),
            });
        }
        if files.len() > SYNC_SINGLY_MAX {
            self.folder.handle().sync_file_system()?;
        } else {
            for (file, result) in files.iter().zip(&mut results) {
                if result.is_ok() {
                    *result = self.sync_one(file);
                }
            }
            self.folder.handle().sync()?;
        }
        Ok(results)
    }

    /// Claims files that this connection works on already.
    fn go_on(&self, ids: impl Iterator<Item = TransferId>) -> Result<Vec<Claim>, LocalError> {
        ids.map(|id| Claim::go_on(&self.place, id, &self.claimant)).collect()
    }

    fn sync_one(&self, file: &SyncFile) -> Result<(), LocalError> {
        match self.partial_file(file.index) {
            Ok(open) => open.sync()?,
            Err(_) => self.folder.open_file(&file.id.to_hex(), OFlags::RDONLY)?.sync()?,
        }
        Ok(())
    }

    /// Gives durable files their final names.
    pub(crate) fn publish(&self, files: &[PublishFile]) -> Result<Vec<Result<(), LocalError>>, LocalError> {
        let claims = self.go_on(files.iter().map(|file| file.id))?;
        let mut results = Vec::with_capacity(files.len());
        let mut intents = Vec::new();
        for file in files {
            let target = self.target(&file.path);
            if let Ok(path) = &target {
                let PublishFile { inode, length, root, .. } = *file;
                intents.push((
                    file.id,
                    Entry::Intent { inode, length, root, replace: !self.no_clobber, path: path.clone() },
                ));
            }
            results.push(target);
        }
        lock(&self.journal).append(self.time_s, intents).map_err(journal_error)?;
        let mut parents = Parents::new();
        let results: Vec<Result<(), LocalError>> = files
            .iter()
            .zip(results)
            .map(|(file, target)| {
                let flags = if self.no_clobber { RenameFlags::NOREPLACE } else { RenameFlags::empty() };
                rename(&self.place.export, &self.folder, &mut parents, file.id, &target?, file.inode, flags)
            })
            .collect();
        let mut touched: BTreeSet<RelativePath> = parents.into_keys().collect();
        touched.append(&mut lock(&self.unsynced));
        self.sync_directories(&touched)?;
        let mut ends = Vec::with_capacity(files.len());
        for (file, result) in files.iter().zip(&results) {
            let entry = match result {
                Ok(()) => Entry::Committed { inode: file.inode, length: file.length },
                Err(error) => Entry::Aborted { code: error.code },
            };
            ends.push((file.id, entry));
        }
        lock(&self.journal).append(self.time_s, ends).map_err(journal_error)?;
        for (file, result) in files.iter().zip(&results) {
            let open = lock(&self.open).remove(&file.index);
            match result {
                Ok(()) if open.is_some() => self.folder.discard_marks(&file.id.to_hex()),
                Ok(()) => {}
                Err(_) => self.folder.discard(&file.id.to_hex()),
            }
        }
        claims.iter().for_each(|claim| claim.keep(false));
        Ok(results)
    }

    fn sync_directories(&self, paths: &BTreeSet<RelativePath>) -> Result<(), LocalError> {
        if paths.len() > SYNC_SINGLY_MAX {
            return Ok(self.place.export.root().sync_file_system()?);
        }
        for path in paths {
            match self.place.export.open_directory(path) {
                Ok(directory) => directory.sync()?,
                // It was removed meanwhile, and what was in it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Journals that files will never be published, then discards them. A file whose last word is in the
    /// journal keeps it; where there is an INTENT, the next opening decides and nothing may be said.
    pub(crate) fn abort(&self, files: &[(OpenFile, ErrorCode)]) -> Result<LocalDone, LocalError> {
        // A file that was announced and never stored may still be an older connection's.
        let claim = |(file, _): &(OpenFile, ErrorCode)| {
            let own = Claim::go_on(&self.place, file.id, &self.claimant);
            own.or_else(|_| Claim::begin(&self.place, file.id, &self.claimant))
        };
        let claims: Vec<Claim> = files.iter().map(claim).collect::<Result<_, _>>()?;
        let mut words = Vec::with_capacity(files.len());
        let mut entries = Vec::new();
        {
            let mut journal = lock(&self.journal);
            for (file, code) in files {
                words.push(match self.known(file, &journal) {
                    Some(FileAnswer::Known(word)) => word,
                    Some(FileAnswer::Refused(error)) => return Err(error),
                    Some(FileAnswer::Opened { .. }) | None => {
                        entries.push((file.id, Entry::Aborted { code: *code }));
                        KnownAnswer::Aborted
                    }
                });
            }
            journal.append(self.time_s, entries).map_err(journal_error)?;
        }
        for (file, _) in files {
            let open = lock(&self.open).remove(&file.index);
            self.folder.discard(&file.id.to_hex());
            drop(open);
        }
        claims.iter().for_each(|claim| claim.keep(false));
        Ok(LocalDone::Aborted(words))
    }

    /// After an error nobody knows what the journal holds: the next job opens it again, and finishes
    /// what it says. A file that another connection has taken over is no such error.
    pub(crate) fn distrust_journal(&self, error: &LocalError) {
        if error.code == ErrorCode::Busy {
            return;
        }
        let mut shared = lock(&self.place.shared);
        if shared.journal.as_ref().is_some_and(|journal| Arc::ptr_eq(journal, &self.journal)) {
            shared.journal = None;
        }
    }

    // ---- directories and links ------------------------------------------------------------------

    /// Makes directories, parents first; one that is there is taken as it is.
    pub(crate) fn make_directories(&self, items: Vec<DirectoryItem>) -> Vec<(RelativePath, LocalError)> {
        let mut failures = Vec::new();
        for DirectoryItem { path, attributes } in items {
            match self.make_directory(&path, attributes) {
                Ok(()) => {}
                Err(error) => failures.push((path, error)),
            }
        }
        failures
    }

    fn make_directory(
        &self,
        announced: &RelativePath,
        attributes: crate::transfer::store::Attributes,
    ) -> Result<(), LocalError> {
        let path = self.target(announced)?;
        if path == self.base {
            // The destination itself keeps its attributes.
            return Ok(());
        }
        if lock(&self.directories).len() >= DIRECTORIES_MAX {
            return Err(LocalError::new(ErrorCode::Limit));
        }
        let (parent, name) = self.place.export.open_parent(&path)?;
        let mode = Mode::from_raw_mode(attributes.mode & 0o777 | 0o700);
        let created = match parent.make_directory(name, mode) {
            Ok(()) => true,
            Err(Errno::EXIST) if is_directory(&*parent, name) => false,
            Err(Errno::EXIST) => return Err(LocalError::new(ErrorCode::NotADirectory)),
            Err(errno) => return Err(errno.into()),
        };
        if created {
            self.place.export.open_directory(&path)?.set_mode(mode)?;
        }
        let parent = path.split_last().map(|(parent, _)| parent).unwrap_or_default();
        lock(&self.unsynced).insert(parent);
        lock(&self.directories).push(MadeDirectory { path, attributes, created });
        Ok(())
    }

    /// Makes symbolic links that stay inside.
    pub(crate) fn make_links(&self, items: &[LinkItem]) -> Vec<(RelativePath, LocalError)> {
        let make = |item: &LinkItem| Some((item.path.clone(), self.make_link(item).err()?));
        items.iter().filter_map(make).collect()
    }

    fn make_link(&self, item: &LinkItem) -> Result<(), LocalError> {
        let path = self.target(&item.path)?;
        if path.is_root() || !link_stays_inside(path.depth() - 1, &item.target) {
            return Err(LocalError::new(ErrorCode::LinkOutside));
        }
        let (parent, name) = self.place.export.open_parent(&path)?;
        let same = parent.read_link(name).is_ok_and(|found| found == item.target);
        if !same {
            // Made beside and renamed: a link that is there is replaced in one step or stays.
            let mut id = TransferId::default();
            self.place.files.fill_random(&mut id.0)?;
            let temporary = format!("link-{}", id.to_hex());
            let (folder, temporary) = (self.folder.handle(), temporary.as_bytes());
            folder.make_link(temporary, &item.target)?;
            let flags = if self.no_clobber { RenameFlags::NOREPLACE } else { RenameFlags::empty() };
            if let Err(errno) = folder.rename(temporary, &*parent, name, flags) {
                let _ = folder.remove_file(temporary);
                return Err(errno.into());
            }
        }
        if self.preserve {
            if self.as_root {
                parent.set_entry_owner(name, item.attributes.user, item.attributes.group)?;
            }
            parent.set_entry_times(name, item.attributes.mtime_s, item.attributes.mtime_ns)?;
        }
        let parent = path.split_last().map(|(parent, _)| parent).unwrap_or_default();
        lock(&self.unsynced).insert(parent);
        Ok(())
    }

    /// The end of the job: attributes of directories, bottom up; the folder goes if it is empty.
    pub(crate) fn close(&self, finished: bool) -> Result<Vec<(RelativePath, LocalError)>, LocalError> {
        let open = std::mem::take(&mut *lock(&self.open));
        for partial in open.into_values() {
            let intended = matches!(lock(&self.journal).find(&partial.id), Some(Entry::Intent { .. }));
            if partial.size.is_none() && !intended {
                // Nobody comes back for a stream.
                self.folder.discard(&partial.id.to_hex());
            }
        }
        let mut failures = Vec::new();
        if finished {
            let directories = std::mem::take(&mut *lock(&self.directories));
            for made in directories.iter().rev() {
                if let Err(error) = self.finish_directory(made) {
                    failures.push((made.path.clone(), error));
                }
            }
        }
        let mut touched = std::mem::take(&mut *lock(&self.unsynced));
        touched.insert(self.base.clone());
        let synced = self.sync_directories(&touched);
        let mut shared = lock(&self.place.shared);
        shared.users -= 1;
        shared.claims.forget(&self.claimant);
        self.folder.leave(&self.place.export);
        synced.map(|()| failures)
    }

    fn finish_directory(&self, made: &MadeDirectory) -> Result<(), LocalError> {
        let widened = made.attributes.mode & 0o700 != 0o700;
        if self.preserve {
            let directory = self.place.export.open_directory(&made.path)?;
            self.set_attributes(&*directory, &directory.stat()?, &made.attributes)?;
        } else if made.created && widened {
            let directory = self.place.export.open_directory(&made.path)?;
            directory.set_mode(Mode::from_raw_mode(made.attributes.mode & 0o777))?;
        }
        Ok(())
    }
}

/// Renames one partial file. An error means that the partial file is still there, or was never whole.
fn rename(
    export: &Export,
    folder: &PartialFolder,
    parents: &mut Parents,
    id: TransferId,
    target: &RelativePath,
    inode: u64,
    flags: RenameFlags,
) -> Result<(), LocalError> {
    let (parent, name) = target.split_last().ok_or_else(|| LocalError::new(ErrorCode::IsADirectory))?;
    let directory = parents.entry(parent).or_insert_with_key(|parent| export.open_directory(parent));
    let directory = directory.as_ref().map_err(|errno| *errno)?;
    let partial = id.to_hex();
    match folder.handle().rename(partial.as_bytes(), &**directory, name, flags) {
        Ok(()) => Ok(()),
        Err(errno) => {
            // Over a network it may have been done, and the answer to it lost.
            let there = directory.stat_entry(name).is_ok_and(|stat| stat.inode == inode);
            if there && folder.inode(&partial) == Ok(None) { Ok(()) } else { Err(errno.into()) }
        }
    }
}

/// At opening: what was to be published when this host stopped is published or aborted now.
///
/// What holds, for each INTENT:
/// * its inode is in the partial folder: the rename had not happened. It is done now, and never over another
///   file where the INTENT says so; if it cannot be done, ABORTED.
/// * its inode is under the target: the rename had happened. COMMITTED.
/// * neither: the file went with a directory that was not durable, or the user has replaced or removed it
///   since. ABORTED, since nothing tells these apart and COMMITTED would promise a file that may never have
///   been there. The sender sends it again under a new id, which obeys the same rule as any other: where
///   nothing may be replaced, the file that is in its place stays and the sender hears of it.
/// * one of the two cannot be looked at: the INTENT stays, for a later opening, and nothing is said.
///
/// A partial file with another inode is not the one that was made durable; it is discarded.
pub(crate) fn finish_intents(
    export: &Export,
    folder: &PartialFolder,
    journal: &mut Journal,
    time_s: u64,
) -> Result<(), LocalError> {
    let mut ends = Vec::new();
    let mut parents = Parents::new();
    for (id, entry) in journal.intents() {
        let Entry::Intent { inode, length, replace, path, .. } = entry else { continue };
        let flags = if *replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        let committed = Entry::Committed { inode: *inode, length: *length };
        let end = match (folder.inode(&id.to_hex()), export.stat(path)) {
            (Ok(Some(partial)), _) if partial == *inode => {
                match rename(export, folder, &mut parents, id, path, *inode, flags) {
                    Ok(()) => committed,
                    Err(error) => Entry::Aborted { code: error.code },
                }
            }
            (_, Ok(found)) if found.inode == *inode => committed,
            (Ok(_), Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => {
                Entry::Aborted { code: ErrorCode::NotFound }
            }
            (Ok(_) | Err(_), _) => continue,
        };
        ends.push((id, end));
    }
    if ends.is_empty() {
        return Ok(());
    }
    // The rename may have happened before the stop without being durable.
    export.root().sync_file_system()?;
    let ended: Vec<TransferId> = ends.iter().map(|(id, _)| *id).collect();
    journal.append(time_s, ends).map_err(journal_error)?;
    ended.iter().for_each(|id| folder.discard(&id.to_hex()));
    Ok(())
}
