//! The seam between the code that moves files and the file system under it.
//!
//! ```text
//!  transfer::local   journal   export          what is done, and in which order
//!  ──────────────────────────────────          FileSystem, FileHandle
//!     SystemFiles │ a simulated one            what a call means, and what survives a power loss
//! ```
//!
//! What holds: only [`FileSystem`] takes whole paths, and only the operator's own; everything below an
//! opened root goes through a [`FileHandle`], by one name or through [`FileHandle::open_beneath`], which
//! never leaves it and follows no link. Nothing is durable before one of the `sync` operations has
//! returned. Reads and writes go by offset: a handle has no position, so it can be shared by workers.
//! Clock and randomness come from here too, so that a simulated run repeats. There are no files without
//! a name (O_TMPFILE), no mappings and no hard links, because nothing above needs them.
//!
//! Not here: which names are allowed (`transfer::RelativePath`), the order of syncs (`transfer::local`).

mod system;

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use rustix::fs::{Mode, OFlags, RenameFlags};
pub use rustix::io::Errno;
pub use system::SystemFiles;

/// An open file or directory; a clone is the same one. It closes, and loses its lock, with the last clone.
pub type Handle = Arc<dyn FileHandle>;

/// What something in a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, a socket or a FIFO.
    Other,
}

/// What is known about a file, directory or link without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// What it is.
    pub kind: FileKind,
    /// Number of its file system.
    pub device: u64,
    /// Number of its inode there.
    pub inode: u64,
    /// Length, bytes.
    pub size: u64,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub user: u32,
    /// Group.
    pub group: u32,
    /// Time of last change of the content, seconds.
    pub mtime_s: i64,
    /// The same, nanoseconds.
    pub mtime_ns: u32,
    /// Time of last change of the inode, seconds.
    pub ctime_s: i64,
    /// The same, nanoseconds.
    pub ctime_ns: u32,
}

impl FileStat {
    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }
}

/// What a file system has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that files of this user may still take; quotas are not told.
    pub free_bytes: u64,
    /// It lies in memory: room is reserved page by page there, which takes as long as writing.
    pub in_memory: bool,
}

/// A file system with the clock and the randomness of its host.
pub trait FileSystem: Debug + Send + Sync {
    /// Opens a file or directory by the operator's own path, following links.
    ///
    /// # Errors
    /// Those of open.
    fn open(&self, path: &Path, flags: OFlags) -> Result<Handle, Errno>;

    /// Looks at what the operator's own path leads to, following links.
    ///
    /// # Errors
    /// Those of stat.
    fn stat(&self, path: &Path) -> Result<FileStat, Errno>;

    /// The operator's own path without links, `.` and `..`.
    ///
    /// # Errors
    /// If it does not lead to something.
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf>;

    /// Time since 1970 on the wall clock: only for the age of records and for shown times.
    fn wall_time(&self) -> Duration;

    /// Fills `bytes` from the random source of the host.
    ///
    /// # Errors
    /// Those of getrandom.
    fn fill_random(&self, bytes: &mut [u8]) -> Result<(), Errno>;

    /// Whether owners of files may be set.
    fn is_privileged(&self) -> bool;
}

/// An open file or directory. Names are single components; nothing here follows a link.
///
/// An operation that does not fit what is open fails as the system call does, with ENOTDIR, EISDIR, EBADF
/// or EINVAL.
pub trait FileHandle: Any + Debug + Send + Sync {
    /// Opens something below this directory: never outside of it, and through no link. `mode` counts where
    /// `flags` create.
    ///
    /// # Errors
    /// Those of openat2: ELOOP for a link on the way, EXDEV for an escape.
    fn open_beneath(&self, path: &[u8], flags: OFlags, mode: Mode) -> Result<Handle, Errno>;

    /// Looks at what is open.
    ///
    /// # Errors
    /// Those of fstat.
    fn stat(&self) -> Result<FileStat, Errno>;

    /// Looks at an entry of this directory, a link as such.
    ///
    /// # Errors
    /// Those of fstatat.
    fn stat_entry(&self, name: &[u8]) -> Result<FileStat, Errno>;

    /// The names in this directory, in any order, without `.` and `..`.
    ///
    /// # Errors
    /// Those of getdents.
    fn names(&self) -> Result<Vec<Vec<u8>>, Errno>;

    /// Makes a directory in this one.
    ///
    /// # Errors
    /// Those of mkdirat.
    fn make_directory(&self, name: &[u8], mode: Mode) -> Result<(), Errno>;

    /// Removes a file or link from this directory.
    ///
    /// # Errors
    /// Those of unlinkat.
    fn remove_file(&self, name: &[u8]) -> Result<(), Errno>;

    /// Removes an empty directory from this one.
    ///
    /// # Errors
    /// Those of unlinkat.
    fn remove_directory(&self, name: &[u8]) -> Result<(), Errno>;

    /// Renames an entry of this directory, in one step, into the directory `to` of the same file system.
    /// `flags` may be [`RenameFlags::NOREPLACE`].
    ///
    /// # Errors
    /// Those of renameat2; EXDEV if `to` is of another kind of file system.
    fn rename(
        &self,
        name: &[u8],
        to: &dyn FileHandle,
        to_name: &[u8],
        flags: RenameFlags,
    ) -> Result<(), Errno>;

    /// Makes a symbolic link in this directory.
    ///
    /// # Errors
    /// Those of symlinkat.
    fn make_link(&self, name: &[u8], target: &[u8]) -> Result<(), Errno>;

    /// Where a symbolic link of this directory leads.
    ///
    /// # Errors
    /// Those of readlinkat.
    fn read_link(&self, name: &[u8]) -> Result<Vec<u8>, Errno>;

    /// Owner and group of an entry of this directory, a link as such.
    ///
    /// # Errors
    /// Those of fchownat.
    fn set_entry_owner(&self, name: &[u8], user: u32, group: u32) -> Result<(), Errno>;

    /// Both times of an entry of this directory, a link as such: seconds and nanoseconds.
    ///
    /// # Errors
    /// Those of utimensat.
    fn set_entry_times(&self, name: &[u8], seconds: i64, nanoseconds: u32) -> Result<(), Errno>;

    /// Reads from `offset`; fewer bytes than asked for at the end only, or after a signal.
    ///
    /// # Errors
    /// Those of pread.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<usize, Errno>;

    /// Writes at `offset`, and gives the number of bytes that were written.
    ///
    /// # Errors
    /// Those of pwrite.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize, Errno>;

    /// Cuts the file off, or extends it with zeros.
    ///
    /// # Errors
    /// Those of ftruncate.
    fn set_length(&self, length: u64) -> Result<(), Errno>;

    /// Reserves room for `length` bytes from `offset` on without changing the length of the file.
    ///
    /// # Errors
    /// Those of fallocate; EOPNOTSUPP where the file system cannot.
    fn allocate(&self, offset: u64, length: u64) -> Result<(), Errno>;

    /// What the file system still has room for.
    ///
    /// # Errors
    /// Those of fstatfs.
    fn room(&self) -> Result<Room, Errno>;

    /// Permission bits.
    ///
    /// # Errors
    /// Those of fchmod.
    fn set_mode(&self, mode: Mode) -> Result<(), Errno>;

    /// Owner and group.
    ///
    /// # Errors
    /// Those of fchown.
    fn set_owner(&self, user: u32, group: u32) -> Result<(), Errno>;

    /// Both times: seconds and nanoseconds.
    ///
    /// # Errors
    /// Those of futimens.
    fn set_times(&self, seconds: i64, nanoseconds: u32) -> Result<(), Errno>;

    /// Makes content, length and attributes of a file durable, or the entries of a directory; not the
    /// entry under which it is found itself.
    ///
    /// # Errors
    /// Those of fsync. What was not durable before is then lost: another sync says nothing about it.
    fn sync(&self) -> Result<(), Errno>;

    /// As [`sync`](Self::sync), without attributes.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    fn sync_data(&self) -> Result<(), Errno>;

    /// Makes everything in this file system durable.
    ///
    /// # Errors
    /// Those of syncfs.
    fn sync_file_system(&self) -> Result<(), Errno>;

    /// Locks the file for this handle alone, as flock does. A lock that this handle has already is given up
    /// first, so it is lost where this fails.
    ///
    /// # Errors
    /// EWOULDBLOCK if another handle has a lock.
    fn try_lock(&self) -> Result<(), Errno>;

    /// As [`try_lock`](Self::try_lock), for all handles that lock it so.
    ///
    /// # Errors
    /// EWOULDBLOCK if another handle has the lock for itself alone.
    fn try_lock_shared(&self) -> Result<(), Errno>;

    /// Reads exactly `bytes`.
    ///
    /// # Errors
    /// Those of pread; `UnexpectedEof` if the file is shorter.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match self.read_at(&mut bytes[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// Those of pwrite.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match self.write_at(&bytes[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Reads the whole file.
    ///
    /// # Errors
    /// Those of pread; `UnexpectedEof` if it shrinks meanwhile.
    fn read_whole(&self) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.stat()?.size).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut bytes = vec![0; length];
        self.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Whether this is what the directory has under a name: a file that was opened before it was locked
    /// may have been removed or replaced between the two.
    ///
    /// # Errors
    /// Those of fstat.
    fn is_entry(&self, directory: &dyn FileHandle, name: &[u8]) -> Result<bool, Errno> {
        let own = self.stat()?;
        let same = |found: FileStat| (found.device, found.inode) == (own.device, own.inode);
        Ok(directory.stat_entry(name).is_ok_and(same))
    }
}

/// Opens the directory at `path`; it and what is missing above it is made, and what was made is durable.
///
/// # Errors
/// Those of the file system.
pub fn make_directories(files: &dyn FileSystem, path: &Path) -> Result<Handle, Errno> {
    let open = |path| files.open(path, OFlags::RDONLY | OFlags::DIRECTORY);
    let Some((parent, name)) = path.parent().zip(path.file_name()) else { return open(path) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    match open(path) {
        Ok(found) => {
            // Whoever made it may have stopped before its name was durable. Where the directory above
            // cannot be opened it is not ours.
            if let Ok(above) = open(parent) {
                above.sync()?;
            }
            return Ok(found);
        }
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    let above = make_directories(files, parent)?;
    match above.make_directory(name.as_bytes(), Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    above.sync()?;
    open(path)
}
