//! A file system in memory that forgets what was not synced when its host loses its power.
//!
//! ```text
//!  handle ──▶ now: what every process of the host sees
//!                │ sync of a file: its content, length, attributes
//!                │ sync of a directory: the names in it
//!                │ syncfs: everything
//!                ▼
//!             durable ──power loss──▶ durable, and any part of the rest
//! ```
//!
//! What holds, as on a real one: a change of a name is atomic (a renamed file has its old name or its new
//! one) and changes of one name keep their order; a block of 4 KiB is old or new; where a length is kept and
//! a block is not, zeros are read. Everything else is left to chance, more so than any one file system
//! does: names, blocks, lengths and attributes that were not synced are kept independently, a synced file
//! may have no name, a synced directory may be gone itself. A sync that fails gives up what it should have
//! written, as Linux does: it can be read until the power loss, and the next sync says that all is well.
//! A killed process only loses its handles and locks. The same seed gives the same inodes, times, random
//! bytes and losses.
//!
//! Not here: permissions (the user is nobody special and may do everything), hard links, renames of
//! directories, links on the operator's own paths, times of reading.

mod content;
mod names;
mod state;

use std::any::Any;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use transfer_core::file_system::{
    Errno, FileHandle, FileStat, FileSystem, Handle, Mode, OFlags, RenameFlags, Room, make_directories,
};

use crate::chance::Chance;
use crate::script::{FileFault, FileScript};
use content::Content;
use state::{Body, Folder, ROOT, State};

/// What a process does not let others do with what it makes.
const UMASK: u32 = 0o022;

/// The file system of one host; a clone is the same one.
#[derive(Clone, Debug)]
pub struct SimulatedFiles {
    state: Arc<Mutex<State>>,
}

/// A kind of sync that a file system can be told to ignore: to see whether its absence is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgnoredSync {
    /// Of the content of received files and their marks.
    Content,
    /// Of all directories but the partial folder.
    Directories,
    /// Of the partial folder.
    PartialFolder,
    /// Of journals and records of jobs.
    State,
}

/// A file that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFile {
    /// Where.
    pub path: PathBuf,
    /// What it is now.
    pub stat: FileStat,
    /// Changes with every change of the content.
    pub version: u64,
}

#[derive(Debug)]
struct SimulatedHandle {
    state: Arc<Mutex<State>>,
    number: u64,
    inode: u64,
    boot: u64,
    reads: bool,
    writes: bool,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimulatedFiles {
    /// An empty file system. `device` tells it from others, `chance` gives its random bytes, and
    /// `world_time` is what the clock of the host has advanced by, in nanoseconds.
    #[must_use]
    pub fn new(device: u64, chance: Chance, world_time: Arc<AtomicU64>) -> Self {
        Self { state: Arc::new(Mutex::new(State::new(device, chance, world_time))) }
    }

    /// Power loss: all handles and locks are gone, and a part of what was not durable.
    pub fn lose_power(&self, chance: &mut Chance) {
        lock(&self.state).crash(chance);
    }

    /// After `changes` more changes and syncs every further one fails, and the host is to lose its power as
    /// soon as [`has_power`](Self::has_power) says so: a crash in the middle of something.
    pub fn fail_power_after(&self, changes: u64) {
        lock(&self.state).power = Some(changes);
    }

    /// The power does not fail after all, if it has not yet.
    pub fn keep_power(&self) {
        let mut state = lock(&self.state);
        state.power = state.power.filter(|left| *left == 0);
    }

    /// Whether it can still change something.
    #[must_use]
    pub fn has_power(&self) -> bool {
        lock(&self.state).power != Some(0)
    }

    /// From now on only so many bytes fit, and writes fail with ENOSPC, or EDQUOT for a quota.
    pub fn limit_space(&self, bytes: u64, is_quota: bool) {
        lock(&self.state).space = Some((bytes, if is_quota { Errno::DQUOT } else { Errno::NOSPC }));
    }

    /// Everything fits again.
    pub fn lift_limit(&self) {
        lock(&self.state).space = None;
    }

    /// The next `count` syncs fail with EIO.
    pub fn fail_syncs(&self, count: u32) {
        lock(&self.state).failing_syncs = count;
    }

    /// From now on operations are counted, and one of them meets a fault.
    pub fn follow(&self, script: FileScript) {
        let mut state = lock(&self.state);
        (state.syncs, state.writes) = (0, 0);
        match script.kind {
            FileFault::SyncFails => state.failing_sync = Some(script.nth),
            FileFault::SpaceEnds => state.last_write = Some(script.nth),
        }
    }

    /// Syncs and writes so far.
    #[must_use]
    pub fn operations(&self) -> (u64, u64) {
        let state = lock(&self.state);
        (state.syncs, state.writes)
    }

    /// Syncs of one kind do nothing from now on, nor does syncfs.
    pub fn ignore_syncs(&self, ignored: Option<IgnoredSync>) {
        lock(&self.state).ignored = ignored;
    }

    /// Everything is durable as it is.
    ///
    /// # Panics
    /// If syncs are to fail.
    pub fn settle(&self) {
        lock(&self.state).sync_everything().expect("no sync is to fail");
    }

    /// Makes a file in a directory that is there.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_file(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let (parent, name) = path.parent().zip(path.file_name()).ok_or(Errno::ISDIR)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let file = make_directories(self, parent)?.open_beneath(
            name.as_encoded_bytes(),
            flags,
            Mode::from_raw_mode(0o644),
        )?;
        file.write_all_at(bytes, 0)
    }

    /// Looks at the whole content of a file.
    ///
    /// # Errors
    /// ENOENT, EISDIR.
    pub fn with_content<T>(&self, path: &Path, look: impl FnOnce(&[u8]) -> T) -> Result<T, Errno> {
        let mut state = lock(&self.state);
        let inode = find_path(&state, path)?;
        Ok(look(state.content(inode)?.bytes()))
    }

    /// Adds everything below `folder` that is no directory, sorted by path; directories named `left_out`
    /// are not gone into.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR.
    pub fn collect(&self, folder: &Path, left_out: &str, found: &mut Vec<FoundFile>) -> Result<(), Errno> {
        let state = lock(&self.state);
        let inode = find_path(&state, folder)?;
        state.folder(inode)?;
        collect(&state, inode, folder, left_out.as_bytes(), found);
        Ok(())
    }
}

fn collect(state: &State, inode: u64, path: &Path, left_out: &[u8], found: &mut Vec<FoundFile>) {
    let Ok(folder) = state.folder(inode) else { return };
    for (name, &inode) in &folder.current {
        let path = path.join(std::ffi::OsString::from_vec(name.clone()));
        if state.inode(inode).is_folder() {
            if name != left_out {
                collect(state, inode, &path, left_out, found);
            }
        } else {
            found.push(FoundFile { path, stat: state.stat(inode), version: state.inode(inode).version });
        }
    }
}

/// What the operator's own path leads to.
fn find_path(state: &State, path: &Path) -> Result<u64, Errno> {
    let mut at = ROOT;
    for part in path.components() {
        at = match part {
            Component::RootDir | Component::CurDir | Component::Prefix(_) => at,
            Component::ParentDir => state.folder(at)?.parent,
            Component::Normal(name) => state.find(at, name.as_encoded_bytes())?,
        };
        if matches!(state.inode(at).body, Body::Link(_)) {
            return Err(Errno::LOOP);
        }
    }
    Ok(at)
}

impl FileSystem for SimulatedFiles {
    fn open(&self, path: &Path, flags: OFlags) -> Result<Handle, Errno> {
        let mut state = lock(&self.state);
        let inode = find_path(&state, path)?;
        open_inode(&self.state, &mut state, inode, flags)
    }

    fn stat(&self, path: &Path) -> Result<FileStat, Errno> {
        let state = lock(&self.state);
        Ok(state.stat(find_path(&state, path)?))
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        find_path(&lock(&self.state), path)?;
        let mut real = PathBuf::from("/");
        for part in path.components() {
            match part {
                Component::Normal(name) => real.push(name),
                Component::ParentDir => {
                    real.pop();
                }
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Ok(real)
    }

    fn wall_time(&self) -> Duration {
        // Unlike the stamps of files it may go back.
        Duration::from_nanos(lock(&self.state).wall_ns())
    }

    fn fill_random(&self, bytes: &mut [u8]) -> Result<(), Errno> {
        let mut state = lock(&self.state);
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&state.chance.bits().to_le_bytes()[..part.len()]);
        }
        Ok(())
    }

    fn is_privileged(&self) -> bool {
        false
    }
}

/// Opens what was found.
fn open_inode(
    shared: &Arc<Mutex<State>>,
    state: &mut State,
    inode: u64,
    flags: OFlags,
) -> Result<Handle, Errno> {
    let access = flags & OFlags::RWMODE;
    let writes = access == OFlags::WRONLY || access == OFlags::RDWR;
    match &state.inode(inode).body {
        Body::Link(_) if flags.contains(OFlags::DIRECTORY) => return Err(Errno::NOTDIR),
        Body::Link(_) => return Err(Errno::LOOP),
        Body::Folder(_) if writes || flags.intersects(OFlags::CREATE | OFlags::TRUNC) => {
            return Err(Errno::ISDIR);
        }
        Body::File(_) if flags.contains(OFlags::DIRECTORY) => return Err(Errno::NOTDIR),
        Body::File(content) if flags.contains(OFlags::TRUNC) && content.len() > 0 => {
            state.change_content(inode, |content| content.set_length(0))?;
        }
        Body::File(_) | Body::Folder(_) => {}
    }
    let number = state.opened(inode);
    let reads = access != OFlags::WRONLY;
    let (state, boot) = (Arc::clone(shared), state.boot);
    Ok(Arc::new(SimulatedHandle { state, number, inode, boot, reads, writes }))
}

/// Where a path below a directory ends: the directory of its last component, and that; `None` for the
/// directory itself.
fn walk_beneath(state: &State, root: u64, path: &[u8]) -> Result<(u64, Option<Vec<u8>>), Errno> {
    if path.is_empty() {
        return Err(Errno::NOENT);
    }
    if path[0] == b'/' {
        return Err(Errno::XDEV);
    }
    let mut above = Vec::new();
    let mut at = root;
    let mut parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).peekable();
    while let Some(part) = parts.next() {
        let folder = state.folder(at)?;
        match part {
            b"." => {}
            b".." => at = above.pop().ok_or(Errno::XDEV)?,
            name if parts.peek().is_none() => return Ok((at, Some(name.to_vec()))),
            name => {
                let next = *folder.current.get(name).ok_or(Errno::NOENT)?;
                if matches!(state.inode(next).body, Body::Link(_)) {
                    return Err(Errno::LOOP);
                }
                above.push(at);
                at = next;
            }
        }
    }
    Ok((at, None))
}

impl SimulatedHandle {
    /// The state, if the host has not lost its power since this was opened.
    fn lock(&self) -> Result<MutexGuard<'_, State>, Errno> {
        let state = lock(&self.state);
        if state.boot == self.boot { Ok(state) } else { Err(Errno::IO) }
    }
}

impl SimulatedHandle {
    /// The state, for a change or a sync.
    fn change(&self) -> Result<MutexGuard<'_, State>, Errno> {
        let mut state = self.lock()?;
        state.use_power()?;
        Ok(state)
    }
}

impl Drop for SimulatedHandle {
    fn drop(&mut self) {
        if let Ok(mut state) = self.lock() {
            state.closed(self.inode, self.number);
        }
    }
}

impl FileHandle for SimulatedHandle {
    fn open_beneath(&self, path: &[u8], flags: OFlags, mode: Mode) -> Result<Handle, Errno> {
        let mut state = self.lock()?;
        let (directory, name) = walk_beneath(&state, self.inode, path)?;
        let is_exclusive = flags.contains(OFlags::CREATE | OFlags::EXCL);
        let Some(name) = name else {
            if is_exclusive {
                return Err(Errno::EXIST);
            }
            return open_inode(&self.state, &mut state, directory, flags);
        };
        let inode = match state.find(directory, &name) {
            Ok(_) if is_exclusive => return Err(Errno::EXIST),
            Err(Errno::NOENT) if flags.contains(OFlags::CREATE) => {
                let mode = mode.as_raw_mode() & !UMASK;
                state.use_power()?;
                state.create(directory, &name, Body::File(Content::default()), mode)?
            }
            found => found?,
        };
        open_inode(&self.state, &mut state, inode, flags)
    }

    fn stat(&self) -> Result<FileStat, Errno> {
        Ok(self.lock()?.stat(self.inode))
    }

    fn stat_entry(&self, name: &[u8]) -> Result<FileStat, Errno> {
        let state = self.lock()?;
        Ok(state.stat(state.find(self.inode, name)?))
    }

    fn names(&self) -> Result<Vec<Vec<u8>>, Errno> {
        Ok(self.lock()?.folder(self.inode)?.current.keys().cloned().collect())
    }

    fn make_directory(&self, name: &[u8], mode: Mode) -> Result<(), Errno> {
        let folder = Folder { parent: self.inode, ..Folder::default() };
        let mode = mode.as_raw_mode() & !UMASK;
        self.change()?.create(self.inode, name, Body::Folder(folder), mode).map(drop)
    }

    fn remove_file(&self, name: &[u8]) -> Result<(), Errno> {
        self.change()?.remove(self.inode, name, false)
    }

    fn remove_directory(&self, name: &[u8]) -> Result<(), Errno> {
        self.change()?.remove(self.inode, name, true)
    }

    fn rename(
        &self,
        name: &[u8],
        to: &dyn FileHandle,
        to_name: &[u8],
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let to = (to as &dyn Any).downcast_ref::<Self>().ok_or(Errno::XDEV)?;
        if !Arc::ptr_eq(&self.state, &to.state) {
            return Err(Errno::XDEV);
        }
        let no_replace = flags.contains(RenameFlags::NOREPLACE);
        self.change()?.rename((self.inode, name.to_vec()), (to.inode, to_name.to_vec()), no_replace)
    }

    fn make_link(&self, name: &[u8], target: &[u8]) -> Result<(), Errno> {
        if target.is_empty() {
            return Err(Errno::NOENT);
        }
        self.change()?.create(self.inode, name, Body::Link(target.to_vec()), 0o777).map(drop)
    }

    fn read_link(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let state = self.lock()?;
        match &state.inode(state.find(self.inode, name)?).body {
            Body::Link(target) => Ok(target.clone()),
            Body::File(_) | Body::Folder(_) => Err(Errno::INVAL),
        }
    }

    fn set_entry_owner(&self, name: &[u8], user: u32, group: u32) -> Result<(), Errno> {
        let mut state = self.change()?;
        let inode = state.find(self.inode, name)?;
        state.change_attributes(inode, |attributes| attributes.owner = (user, group));
        Ok(())
    }

    fn set_entry_times(&self, name: &[u8], seconds: i64, nanoseconds: u32) -> Result<(), Errno> {
        let mut state = self.change()?;
        let inode = state.find(self.inode, name)?;
        state.change_attributes(inode, |attributes| attributes.mtime = (seconds, nanoseconds));
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let mut state = self.lock()?;
        if !self.reads {
            return Err(Errno::BADF);
        }
        let content = state.content(self.inode)?.bytes();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let count = bytes.len().min(content.len() - start);
        bytes[..count].copy_from_slice(&content[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
        let mut state = self.change()?;
        if !self.writes {
            return Err(Errno::BADF);
        }
        state.count_write();
        let length = state.content(self.inode)?.len() as u64;
        let grown = (offset + bytes.len() as u64).saturating_sub(length);
        let missing = grown - state.room(grown)?;
        let count = bytes.len().saturating_sub(usize::try_from(missing).unwrap_or(usize::MAX));
        if count == 0 && !bytes.is_empty() {
            // Not even the gap before it fits.
            return Err(state.space.map_or(Errno::NOSPC, |(_, errno)| errno));
        }
        let start = usize::try_from(offset).map_err(|_| Errno::FBIG)?;
        state.change_content(self.inode, |content| content.write(&bytes[..count], start))?;
        Ok(count)
    }

    fn set_length(&self, length: u64) -> Result<(), Errno> {
        let mut state = self.change()?;
        if !self.writes {
            return Err(Errno::INVAL);
        }
        let length = usize::try_from(length).map_err(|_| Errno::FBIG)?;
        state.change_content(self.inode, |content| content.set_length(length))
    }

    fn allocate(&self, offset: u64, length: u64) -> Result<(), Errno> {
        let mut state = self.change()?;
        if !self.writes {
            return Err(Errno::BADF);
        }
        state.count_write();
        let end = offset.saturating_add(length);
        let wanted = end.saturating_sub(state.content(self.inode)?.len() as u64);
        match (state.room(wanted)?, state.space) {
            (room, Some((_, errno))) if room < wanted => Err(errno),
            _ => Ok(()),
        }
    }

    fn room(&self) -> Result<Room, Errno> {
        let state = self.lock()?;
        // Hosts differ in this, so that both ways are gone.
        Ok(Room { free_bytes: state.room(u64::MAX)?, in_memory: state.device % 2 == 1 })
    }

    fn set_mode(&self, mode: Mode) -> Result<(), Errno> {
        let mode = mode.as_raw_mode() & 0o7777;
        self.change()?.change_attributes(self.inode, |attributes| attributes.mode = mode);
        Ok(())
    }

    fn set_owner(&self, user: u32, group: u32) -> Result<(), Errno> {
        self.change()?.change_attributes(self.inode, |attributes| attributes.owner = (user, group));
        Ok(())
    }

    fn set_times(&self, seconds: i64, nanoseconds: u32) -> Result<(), Errno> {
        self.change()?.change_attributes(self.inode, |attributes| attributes.mtime = (seconds, nanoseconds));
        Ok(())
    }

    fn sync(&self) -> Result<(), Errno> {
        self.change()?.sync(self.inode, true)
    }

    fn sync_data(&self) -> Result<(), Errno> {
        self.change()?.sync(self.inode, false)
    }

    fn sync_file_system(&self) -> Result<(), Errno> {
        self.change()?.sync_everything()
    }

    fn try_lock(&self) -> Result<(), Errno> {
        self.lock()?.lock(self.inode, self.number, false)
    }

    fn try_lock_shared(&self) -> Result<(), Errno> {
        self.lock()?.lock(self.inode, self.number, true)
    }
}
