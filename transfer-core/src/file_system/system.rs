//! The real file system: one system call for each operation.
//!
//! What holds: below an opened directory everything is opened by openat2 with RESOLVE_BENEATH,
//! NO_SYMLINKS and NO_MAGICLINKS and O_NOFOLLOW, or names one component; descriptors are closed on exec.
//! Not here: any decision.

use super::{FileHandle, FileKind, FileStat, FileSystem, Handle, Room};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, Dir, FallocateFlags, FileType, FlockOperation, Gid, Mode, OFlags, RenameFlags,
    ResolveFlags, Stat, Timespec, Timestamps, Uid, chownat, fallocate, fchmod, fchown, fdatasync, flock,
    fstat, fstatfs, fsync, ftruncate, futimens, mkdirat, open, openat2, readlinkat, renameat_with, statat,
    symlinkat, syncfs, unlinkat, utimensat,
};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};
use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What fstatfs calls tmpfs, from statfs(2).
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// The file system, the clock and the random source of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemFiles;

/// A descriptor.
#[derive(Debug)]
struct SystemHandle(OwnedFd);

impl FileSystem for SystemFiles {
    fn open(&self, path: &Path, flags: OFlags) -> Result<Handle, Errno> {
        let fd = retry_on_intr(|| open(path, flags | OFlags::CLOEXEC, Mode::empty()))?;
        Ok(Arc::new(SystemHandle(fd)))
    }

    fn stat(&self, path: &Path) -> Result<FileStat, Errno> {
        statat(CWD, path, AtFlags::empty()).map(|stat| file_stat(&stat))
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        std::fs::canonicalize(path)
    }

    fn wall_time(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn fill_random(&self, bytes: &mut [u8]) -> Result<(), Errno> {
        let mut filled = 0;
        while filled < bytes.len() {
            filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
        }
        Ok(())
    }

    fn is_privileged(&self) -> bool {
        rustix::process::geteuid().is_root()
    }
}

impl FileHandle for SystemHandle {
    fn open_beneath(&self, path: &[u8], flags: OFlags, mode: Mode) -> Result<Handle, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        // openat2 refuses a mode that means nothing.
        let mode = if flags.contains(OFlags::CREATE) { mode } else { Mode::empty() };
        // EAGAIN says that a rename raced with the look-up of `..`; there is none, so few tries do.
        for _ in 0..8 {
            match openat2(&self.0, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return Ok(Arc::new(Self(result?))),
            }
        }
        Err(Errno::AGAIN)
    }

    fn stat(&self) -> Result<FileStat, Errno> {
        fstat(&self.0).map(|stat| file_stat(&stat))
    }

    fn stat_entry(&self, name: &[u8]) -> Result<FileStat, Errno> {
        statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| file_stat(&stat))
    }

    fn names(&self) -> Result<Vec<Vec<u8>>, Errno> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        Ok(names)
    }

    fn make_directory(&self, name: &[u8], mode: Mode) -> Result<(), Errno> {
        mkdirat(&self.0, name, mode)
    }

    fn remove_file(&self, name: &[u8]) -> Result<(), Errno> {
        unlinkat(&self.0, name, AtFlags::empty())
    }

    fn remove_directory(&self, name: &[u8]) -> Result<(), Errno> {
        unlinkat(&self.0, name, AtFlags::REMOVEDIR)
    }

    fn rename(
        &self,
        name: &[u8],
        to: &dyn FileHandle,
        to_name: &[u8],
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let to = (to as &dyn Any).downcast_ref::<Self>().ok_or(Errno::XDEV)?;
        renameat_with(&self.0, name, &to.0, to_name, flags)
    }

    fn make_link(&self, name: &[u8], target: &[u8]) -> Result<(), Errno> {
        symlinkat(target, &self.0, name)
    }

    fn read_link(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        Ok(readlinkat(&self.0, name, Vec::new())?.into_bytes())
    }

    fn set_entry_owner(&self, name: &[u8], user: u32, group: u32) -> Result<(), Errno> {
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        chownat(&self.0, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn set_entry_times(&self, name: &[u8], seconds: i64, nanoseconds: u32) -> Result<(), Errno> {
        utimensat(&self.0, name, &both_times(seconds, nanoseconds), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<usize, Errno> {
        pread(&self.0, bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
        pwrite(&self.0, bytes, offset)
    }

    fn set_length(&self, length: u64) -> Result<(), Errno> {
        retry_on_intr(|| ftruncate(&self.0, length))
    }

    fn allocate(&self, offset: u64, length: u64) -> Result<(), Errno> {
        retry_on_intr(|| fallocate(&self.0, FallocateFlags::KEEP_SIZE, offset, length))
    }

    fn room(&self) -> Result<Room, Errno> {
        let found = fstatfs(&self.0)?;
        let block_bytes = u64::try_from(found.f_bsize).unwrap_or(0);
        let free_bytes = found.f_bavail.saturating_mul(block_bytes);
        Ok(Room { free_bytes, in_memory: found.f_type == TMPFS_MAGIC })
    }

    fn set_mode(&self, mode: Mode) -> Result<(), Errno> {
        fchmod(&self.0, mode)
    }

    fn set_owner(&self, user: u32, group: u32) -> Result<(), Errno> {
        fchown(&self.0, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
    }

    fn set_times(&self, seconds: i64, nanoseconds: u32) -> Result<(), Errno> {
        futimens(&self.0, &both_times(seconds, nanoseconds))
    }

    fn sync(&self) -> Result<(), Errno> {
        retry_on_intr(|| fsync(&self.0))
    }

    fn sync_data(&self) -> Result<(), Errno> {
        retry_on_intr(|| fdatasync(&self.0))
    }

    fn sync_file_system(&self) -> Result<(), Errno> {
        syncfs(&self.0)
    }

    fn try_lock(&self) -> Result<(), Errno> {
        flock(self.0.as_fd(), FlockOperation::NonBlockingLockExclusive)
    }

    fn try_lock_shared(&self) -> Result<(), Errno> {
        flock(self.0.as_fd(), FlockOperation::NonBlockingLockShared)
    }
}

/// One time for both.
fn both_times(seconds: i64, nanoseconds: u32) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn nanoseconds(value: impl TryInto<u32>) -> u32 {
    value.try_into().unwrap_or(0).min(999_999_999)
}

fn file_stat(stat: &Stat) -> FileStat {
    FileStat {
        kind: match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Link,
            _ => FileKind::Other,
        },
        device: stat.st_dev,
        inode: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode & 0o7777,
        user: stat.st_uid,
        group: stat.st_gid,
        mtime_s: stat.st_mtime,
        mtime_ns: nanoseconds(stat.st_mtime_nsec),
        ctime_s: stat.st_ctime,
        ctime_ns: nanoseconds(stat.st_ctime_nsec),
    }
}
