//! Opening a regular file or a block node: geometry, O_DIRECT, and what had to be done without.
//!
//! Keeps true: the geometry is what the kernel says (block nodes) or what was asked for (files); a
//! file that cannot do direct I/O at this block size is opened without it and says so in
//! [`OpenFile::notice`]. Not here: I/O (`uring`, `threaded`), and whether someone else uses the
//! device (`in_use`): opening is shared on purpose.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::stat::{major, minor};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use thiserror::Error;

use crate::block::Geometry;
use crate::block::address::{BlockCount, BlockSize};
use crate::block::buffer::{ALIGNMENT_BYTES, Buffer};
use crate::identity::Identity;

/// The largest transfer, in bytes: far above a segment, far below the 2 GiB of the system call.
const TRANSFER_MAX_BYTES: usize = 64 << 20;
/// Requests in flight, at most: a disk is busy long before.
const QUEUE_DEPTH_MAX: usize = 64;
/// The same for files whose I/O always has to wait in a thread.
const QUEUE_DEPTH_WITHOUT_NOWAIT: usize = 8;

/// A file or block node that is open for reading and writing.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    geometry: Geometry,
    notice: Option<String>,
    /// It may be asked to do what it can without waiting.
    has_nowait: bool,
}

/// Why a file or block node could not be opened as a device.
#[derive(Debug, Error)]
pub enum OpenFileError {
    /// The system refused.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// What was to be opened.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A directory, a pipe, a character device.
    #[error("{} is neither a regular file nor a block device", path.display())]
    NotADevice {
        /// What was opened.
        path: PathBuf,
    },
    /// No whole block.
    #[error("{} is too small: {size} bytes hold no block of {block} bytes; enlarge it with truncate(1)", path.display())]
    TooSmall {
        /// What was opened.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// The block size.
        block: usize,
    },
    /// The block size asked for is not the block size there.
    #[error("{} has blocks of {actual} bytes, not {asked}: leave the block size out", path.display())]
    BlockSize {
        /// What was opened.
        path: PathBuf,
        /// What the caller wanted.
        asked: usize,
        /// What the device has, 0 where it is not one of ours.
        actual: usize,
    },
}

impl OpenFile {
    /// Opens `path`; `block_size` is for regular files (default 4,096) and must not contradict a
    /// block node.
    ///
    /// # Errors
    /// See [`OpenFileError`].
    pub fn open(path: &Path, block_size: Option<BlockSize>) -> Result<Self, OpenFileError> {
        let failed = |source| OpenFileError::Open { path: path.to_owned(), source };
        let not_a_device = || OpenFileError::NotADevice { path: path.to_owned() };
        let metadata = std::fs::metadata(path).map_err(failed)?;
        let is_block_node = metadata.file_type().is_block_device();
        if !is_block_node && !metadata.is_file() {
            return Err(not_a_device());
        }
        let (file, direct) = open_direct(path).map_err(failed)?;
        if is_block_node {
            return Self::over_block_node(path, file, direct, &metadata, block_size);
        }
        let block_size = block_size.unwrap_or(BlockSize::B4096);
        let size = file.metadata().map_err(failed)?.len();
        let geometry = geometry_of(path, size, block_size, QUEUE_DEPTH_MAX)?;
        let mut opened = Self { file, geometry, notice: notice_unless(direct, path), has_nowait: true };
        opened.probe_regular_file(path).map_err(failed)?;
        Ok(opened)
    }

    fn over_block_node(
        path: &Path,
        file: File,
        direct: bool,
        metadata: &Metadata,
        asked: Option<BlockSize>,
    ) -> Result<Self, OpenFileError> {
        let failed = |source| OpenFileError::Open { path: path.to_owned(), source };
        let (block_bytes, size) = ioctl::block_size_and_bytes(file.as_raw_fd()).map_err(failed)?;
        let block_size = u32::try_from(block_bytes)
            .ok()
            .and_then(BlockSize::new)
            .filter(|actual| asked.is_none_or(|asked| asked == *actual))
            .ok_or_else(|| OpenFileError::BlockSize {
                path: path.to_owned(),
                asked: asked.map_or(0, BlockSize::bytes),
                actual: usize::try_from(block_bytes).unwrap_or(0),
            })?;
        let geometry = geometry_of(path, size, block_size, node_queue_depth(metadata.rdev()))?;
        Ok(Self { file, geometry, notice: notice_unless(direct, path), has_nowait: true })
    }

    /// Reads one block: the only way to learn whether the file system under a file can do direct
    /// I/O of this block size, and whether it can start I/O without waiting.
    fn probe_regular_file(&mut self, path: &Path) -> io::Result<()> {
        let mut buffer = Buffer::zeroed(self.geometry.block_size.bytes());
        match ioctl::read_without_waiting(self.file.as_raw_fd(), &mut buffer) {
            Err(Errno::EOPNOTSUPP) => {
                self.has_nowait = false;
                self.geometry.queue_depth = QUEUE_DEPTH_WITHOUT_NOWAIT;
            }
            Err(Errno::EINVAL) if self.notice.is_none() => {
                self.file = OpenOptions::new().read(true).write(true).open(path)?;
                self.notice = notice_unless(false, path);
            }
            // EAGAIN says that it can; any other error belongs to the I/O that meets it.
            Ok(_) | Err(_) => {}
        }
        Ok(())
    }

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Block size, size and limits.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// What the device has to do without, in one line; `None` when I/O is direct.
    #[must_use]
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// Which disk it is.
    ///
    /// # Errors
    /// If the system does not say what is open.
    pub fn identity(&self) -> io::Result<Identity> {
        Ok(Identity::of_file(&self.file, &self.file.metadata()?))
    }

    /// Whether it can say, as far as is known, that a request would have to wait.
    pub(crate) fn has_nowait(&self) -> bool {
        self.has_nowait
    }

    /// The descriptor, for a ring.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Whether the bytes lie in memory (tmpfs), so that nothing but copying is to be done for them.
    pub(crate) fn is_in_memory(&self) -> bool {
        // A block node lies in a file system of memory, too, and its bytes do not.
        self.file.metadata().is_ok_and(|metadata| metadata.is_file())
            && fstatfs(&self.file).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC)
    }
}

/// Opens with O_DIRECT, or without where the file system refuses the flag; says which it was.
fn open_direct(path: &Path) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.clone().custom_flags(OFlag::O_DIRECT.bits()).open(path) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok((options.open(path)?, false)),
        Err(error) => Err(error),
    }
}

fn notice_unless(direct: bool, path: &Path) -> Option<String> {
    (!direct)
        .then(|| format!("{}: no direct I/O here, going through the page cache of this host", path.display()))
}

fn geometry_of(
    path: &Path,
    size: u64,
    block_size: BlockSize,
    queue_depth: usize,
) -> Result<Geometry, OpenFileError> {
    let block_count = BlockCount(size / block_size.bytes() as u64);
    if block_count.0 == 0 {
        return Err(OpenFileError::TooSmall { path: path.to_owned(), size, block: block_size.bytes() });
    }
    Ok(Geometry {
        block_size,
        block_count,
        transfer_max_bytes: TRANSFER_MAX_BYTES,
        buffer_alignment_bytes: ALIGNMENT_BYTES,
        queue_depth,
    })
}

/// Half the request queue of the node, so that submitting never has to wait for a free place in it.
fn node_queue_depth(rdev: u64) -> usize {
    let node = format!("/sys/dev/block/{}:{}", major(rdev), minor(rdev));
    // A partition has no queue of its own: it lies one level up.
    ["queue/nr_requests", "../queue/nr_requests"]
        .iter()
        .find_map(|file| std::fs::read_to_string(Path::new(&node).join(file)).ok())
        .and_then(|text| text.trim().parse::<usize>().ok())
        .map_or(QUEUE_DEPTH_WITHOUT_NOWAIT, |requests| (requests / 2).clamp(1, QUEUE_DEPTH_MAX))
}

/// The file under a loop device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoopBacking {
    /// Number of the device that the file lies on.
    pub(crate) device: u64,
    /// Its inode there.
    pub(crate) inode: u64,
    /// Where in it the loop device begins, in bytes.
    pub(crate) offset: u64,
}

/// What lies under a loop device; nothing where `node` is none, or one over another block node.
pub(crate) fn loop_backing(node: &File) -> Option<LoopBacking> {
    ioctl::loop_backing(node.as_raw_fd()).ok().flatten()
}

/// The system calls that have no safe wrapper.
mod ioctl {
    use std::io;
    use std::os::fd::RawFd;

    use nix::errno::Errno;
    use nix::libc;

    use super::LoopBacking;

    /// The block ioctls of `linux/fs.h` and `linux/loop.h`.
    mod raw {
        nix::ioctl_read_bad!(blksszget, nix::request_code_none!(0x12, 104), nix::libc::c_int);
        nix::ioctl_read!(blkgetsize64, 0x12, 114, u64);
        nix::ioctl_read_bad!(loop_get_status64, 0x4C05, super::LoopInfo64);
    }

    /// `struct loop_info64` of `linux/loop.h`.
    #[repr(C)]
    pub(super) struct LoopInfo64 {
        device: u64,
        inode: u64,
        /// Number of the block node underneath, if it is one.
        node: u64,
        offset: u64,
        size_limit: u64,
        /// Number, encryption and flags.
        words: [u32; 4],
        names_and_key: [u8; 160],
        init: [u64; 2],
    }

    /// What a loop device lies over, if that is a file.
    #[expect(unsafe_code, reason = "an ioctl has no safe form")]
    pub(super) fn loop_backing(fd: RawFd) -> io::Result<Option<LoopBacking>> {
        let mut info = LoopInfo64 {
            device: 0,
            inode: 0,
            node: 0,
            offset: 0,
            size_limit: 0,
            words: [0; 4],
            names_and_key: [0; 160],
            init: [0; 2],
        };
        // Other drivers than that of loop devices do not know the request.
        // SAFETY: the request writes one value of the type that is passed.
        unsafe { raw::loop_get_status64(fd, &raw mut info)? };
        let LoopInfo64 { device, inode, offset, .. } = info;
        Ok((info.node == 0).then_some(LoopBacking { device, inode, offset }))
    }

    /// Logical block size and size in bytes of a block node.
    #[expect(unsafe_code, reason = "an ioctl has no safe form")]
    pub(super) fn block_size_and_bytes(fd: RawFd) -> io::Result<(i32, u64)> {
        let mut block_bytes: libc::c_int = 0;
        let mut size = 0_u64;
        // SAFETY: both requests write one value of exactly the type that is passed.
        unsafe {
            raw::blksszget(fd, &raw mut block_bytes)?;
            raw::blkgetsize64(fd, &raw mut size)?;
        }
        Ok((block_bytes, size))
    }

    /// Reads from offset 0 if that needs no waiting.
    #[expect(unsafe_code, reason = "preadv2 with RWF_NOWAIT has no safe form")]
    pub(super) fn read_without_waiting(fd: RawFd, buffer: &mut [u8]) -> Result<usize, Errno> {
        let vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: the vector describes `buffer`, which outlives the call.
        let done = unsafe { libc::preadv2(fd, &raw const vector, 1, 0, libc::RWF_NOWAIT) };
        Errno::result(done).map(|done| usize::try_from(done).expect("not negative when no error"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_block_size_asked_for() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(10_000).unwrap();
        let opened = OpenFile::open(file.path(), None).unwrap();
        assert_eq!(opened.geometry().block_count, BlockCount(2));
        let opened = OpenFile::open(file.path(), Some(BlockSize::B512)).unwrap();
        assert_eq!(opened.geometry().block_count, BlockCount(19));
        assert!((1..=QUEUE_DEPTH_MAX).contains(&opened.geometry().queue_depth));
    }

    #[test]
    fn what_is_no_device_is_refused_with_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let error = OpenFile::open(directory.path(), None).unwrap_err();
        assert!(matches!(error, OpenFileError::NotADevice { .. }), "{error}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = OpenFile::open(file.path(), None).unwrap_err();
        assert!(error.to_string().contains("truncate"), "{error}");
        let error = OpenFile::open(Path::new("/nowhere/disk"), None).unwrap_err();
        assert!(error.to_string().contains("/nowhere/disk"), "{error}");
    }
}
