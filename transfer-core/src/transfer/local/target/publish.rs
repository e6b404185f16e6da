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

use super::folder::PartialFolder;
use super::{DIRECTORIES_MAX, MadeDirectory, Receiving, is_directory, journal_error, lock};
use crate::export::Export;
use crate::file_system::{Errno, Handle, Mode, OFlags, RenameFlags};
use crate::journal::{Entry, Journal};
use crate::transfer::code::{ErrorCode, LocalError};
use crate::transfer::name::{RelativePath, link_stays_inside};
use crate::transfer::store::{DirectoryItem, LinkItem, LocalDone, PublishFile, SyncFile, TransferId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Up to so many files or directories are synced one by one; more by one syncfs.
const SYNC_SINGLY_MAX: usize = 8;

/// Parents that were opened, so that a batch opens each once.
type Parents = BTreeMap<RelativePath, Result<Handle, Errno>>;

impl Receiving {
    /// Sets what attributes are still to be set, and makes files durable under their partial names.
    pub(crate) fn sync_files(&self, files: &[SyncFile]) -> Result<Vec<Result<(), LocalError>>, LocalError> {
        let mut results = Vec::with_capacity(files.len());
        for file in files {
            results.push(match &file.attributes {
                Some(attributes) => {
                    self.partial_file(file.index).and_then(|open| self.set_attributes(&*open, attributes))
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

    fn sync_one(&self, file: &SyncFile) -> Result<(), LocalError> {
        match self.partial_file(file.index) {
            Ok(open) => open.sync()?,
            Err(_) => self.folder.open_file(&file.id.to_hex(), OFlags::RDONLY)?.sync()?,
        }
        Ok(())
    }

    /// Gives durable files their final names.
    pub(crate) fn publish(&self, files: &[PublishFile]) -> Result<Vec<Result<(), LocalError>>, LocalError> {
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
            let had_mark = lock(&self.open).remove(&file.index).is_some();
            match result {
                Ok(()) if had_mark => self.folder.discard_mark(&file.id.to_hex()),
                Ok(()) => {}
                Err(_) => self.folder.discard(&file.id.to_hex()),
            }
        }
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

    /// Journals that files will never be published, then discards them.
    pub(crate) fn abort(&self, files: &[(u32, TransferId, ErrorCode)]) -> Result<LocalDone, LocalError> {
        let entries = files.iter().map(|(_, id, code)| (*id, Entry::Aborted { code: *code })).collect();
        lock(&self.journal).append(self.time_s, entries).map_err(journal_error)?;
        for (index, id, _) in files {
            lock(&self.open).remove(index);
            self.folder.discard(&id.to_hex());
        }
        Ok(LocalDone::Done)
    }

    /// After an error nobody knows what the journal holds: the next job opens it again, and finishes
    /// what it says.
    pub(crate) fn distrust_journal(&self) {
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
        lock(&self.open).clear();
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
        shared.holders.retain(|_, holder| !Arc::ptr_eq(holder, &self.claimant));
        if shared.users == 0 {
            PartialFolder::remove(&self.place.export);
        }
        synced.map(|()| failures)
    }

    fn finish_directory(&self, made: &MadeDirectory) -> Result<(), LocalError> {
        let widened = made.attributes.mode & 0o700 != 0o700;
        if self.preserve {
            let directory = self.place.export.open_directory(&made.path)?;
            self.set_attributes(&*directory, &made.attributes)?;
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
            // Another connection of the same job may have been first.
            let there = directory.stat_entry(name).is_ok_and(|stat| stat.inode == inode);
            if there && !folder.has(&partial) { Ok(()) } else { Err(errno.into()) }
        }
    }
}

/// At opening: what was to be published when this host stopped is published or aborted now.
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
        let end = if folder.has(&id.to_hex()) {
            match rename(export, folder, &mut parents, id, path, *inode, flags) {
                Ok(()) => committed,
                Err(error) => Entry::Aborted { code: error.code },
            }
        } else if export.stat(path).is_ok_and(|stat| stat.inode == *inode) {
            committed
        } else {
            // It went with a directory that was not durable yet, or somebody has taken it away since:
            // either way it has to come again.
            Entry::Aborted { code: ErrorCode::NotFound }
        };
        ends.push((id, end));
    }
    if ends.is_empty() {
        return Ok(());
    }
    // The rename may have happened before the stop without being durable.
    export.root().sync_file_system()?;
    let aborted: Vec<TransferId> =
        ends.iter().filter(|(_, e)| matches!(e, Entry::Aborted { .. })).map(|(id, _)| *id).collect();
    let all: Vec<TransferId> = ends.iter().map(|(id, _)| *id).collect();
    journal.append(time_s, ends).map_err(journal_error)?;
    aborted.iter().for_each(|id| folder.discard(&id.to_hex()));
    all.iter().for_each(|id| folder.discard_mark(&id.to_hex()));
    Ok(())
}
