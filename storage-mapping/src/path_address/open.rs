//! From a path address to a device.
//!
//! Keeps true: what the device has to do without is said in [`Opened::notices`], never left silent; a
//! name of memory is the same disk for everyone in this process. Opening an NBD export or an iSCSI unit waits for
//! its server, for a bounded time. Not here: how the devices work.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::libc;
use thiserror::Error;

use super::{Engine, IscsiAddress, OpenSimulatedError, PathAddress, Target};
use crate::block::BlockDevice;
use crate::block::address::{BlockCount, BlockSize, ByteSize};
use crate::device::control_node::BesideBlocks;
#[cfg(feature = "iscsi")]
use crate::device::iscsi::{IscsiDevice, IscsiSettings, OpenIscsiError};
use crate::device::nbd::{ConnectError, NbdMonitor, OpenNbdError};
use crate::device::{
    FaultControl, Faults, FaultyDevice, MemoryDisk, NbdDevice, OpenControlPortError, OpenFile, OpenFileError,
    ThreadedDevice, UringDevice, open_control_port,
};
use crate::identity::Identity;

/// A device that was opened from a path address.
pub struct Opened {
    /// The device.
    pub device: Box<dyn BlockDevice>,
    /// What it has to do without, one line each.
    pub notices: Vec<String>,
    /// Changes its faults at run time; `None` where the address has none.
    pub faults: Option<FaultControl>,
    /// Which disk it leads to; whoever opens several paths of one device has to compare. A second path to the same
    /// NBD export is allowed only where its server says that connections see one another's writes.
    pub identity: Identity,
    /// What the NBD server said and how its connection does; `None` for other kinds.
    pub nbd: Option<NbdMonitor>,
}

/// Why a path address could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The file or node itself.
    #[error(transparent)]
    File(#[from] OpenFileError),
    /// The simulated system.
    #[error(transparent)]
    Simulated(#[from] OpenSimulatedError),
    /// The NBD export.
    #[error(transparent)]
    Nbd(#[from] OpenNbdError),
    /// The iSCSI unit.
    #[cfg(feature = "iscsi")]
    #[error(transparent)]
    Iscsi(#[from] OpenIscsiError),
    /// An iSCSI address, in a build without that.
    #[error("{address}: this build has no iSCSI: build with --features iscsi")]
    NoIscsi {
        /// Which.
        address: String,
    },
    /// `block:` on something that is no block node.
    #[error("block:{} is not a block device: for a disk image write file:{}", path.display(), path.display())]
    NotABlockNode {
        /// What was named.
        path: PathBuf,
    },
    /// `file:` on something that is no regular file.
    #[error("file:{} is not a regular file: for a disk write block:{}", path.display(), path.display())]
    NotARegularFile {
        /// What was named.
        path: PathBuf,
    },
    /// The ring that was asked for is not to be had.
    #[error("no io_uring for {}: {source}; leave `engine` out or write engine=threads", path.display())]
    Uring {
        /// What was named.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// No threads or descriptors left.
    #[error("cannot start I/O threads for {}: {source}", path.display())]
    Threads {
        /// What was named.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The first to open a name of memory must say its size.
    #[error("mem:{name} does not exist yet: give it a size, as in mem:{name}?size=64MiB")]
    MemoryWithoutSize {
        /// The name.
        name: String,
    },
    /// The size is not a whole number of blocks, is zero, or is not to be had.
    #[error(
        "mem:{name} cannot be {size}: it must be at least one block, in whole blocks of {block} bytes, and fit in memory"
    )]
    MemorySize {
        /// The name.
        name: String,
        /// The size asked for.
        size: ByteSize,
        /// The block size.
        block: usize,
    },
    /// Another size or block size than that of the disk of this name.
    #[error(
        "mem:{name} exists with {size} in blocks of {block} bytes: leave size and block out, or take another name"
    )]
    MemoryDiffers {
        /// The name.
        name: String,
        /// Its size.
        size: ByteSize,
        /// Its block size.
        block: usize,
    },
}

impl OpenError {
    /// Whether somebody on this host has the session that the address names, and another name for it would do.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        match self {
            #[cfg(feature = "iscsi")]
            Self::Iscsi(OpenIscsiError::NotAlone { source, .. }) => source.kind() == io::ErrorKind::AddrInUse,
            _ => false,
        }
    }

    /// Whether the same address may be opened another time without anybody correcting it: the node, the server, its
    /// portal or the network is away. False for what is a mistake of an address (a wrong kind of file, a size, a block
    /// size, a password), for what this user may not open, for a session that somebody has, and for what this process
    /// lacks.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::File(OpenFileError::Open { source, .. }) => {
                source.kind() != io::ErrorKind::PermissionDenied
                    && source.raw_os_error() != Some(libc::EMFILE)
            }
            Self::Nbd(OpenNbdError::Connect(error)) => {
                !matches!(error, ConnectError::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
            }
            #[cfg(feature = "iscsi")]
            Self::Iscsi(OpenIscsiError::Portal { .. } | OpenIscsiError::Session { .. }) => true,
            _ => false,
        }
    }
}

/// Opens what the address names.
///
/// # Errors
/// See [`OpenError`].
pub fn open(address: &PathAddress) -> Result<Opened, OpenError> {
    let mut notices = Vec::new();
    let mut monitor = None;
    let (identity, device): (Identity, Box<dyn BlockDevice>) = match &address.target {
        Target::Block(path) => {
            if std::fs::metadata(path).is_ok_and(|found| !found.file_type().is_block_device()) {
                return Err(OpenError::NotABlockNode { path: path.clone() });
            }
            let (identity, blocks) = open_node(path, address, &mut notices)?;
            (identity, with_control_port(path, blocks, &mut notices))
        }
        Target::File(path) => {
            if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
                return Err(OpenError::NotARegularFile { path: path.clone() });
            }
            open_node(path, address, &mut notices)?
        }
        Target::Memory { name, size } => {
            let disk = open_memory(name, *size, address.block_size)?;
            (Identity::Memory(name.clone()), Box::new(disk.device()))
        }
        Target::Simulated(simulated) => {
            let device = super::simulated::open(address, simulated, &mut notices)?;
            (
                Identity::Simulated {
                    system: simulated.system.clone(),
                    volume: simulated.path.volume.clone(),
                },
                device,
            )
        }
        Target::Nbd(nbd) => {
            let settings = super::nbd::settings(address);
            let device = NbdDevice::open(&nbd.server, &nbd.export, settings)?;
            notices.extend(device.notices());
            let export = device.monitor().export();
            monitor = Some(device.monitor());
            let identity = Identity::Nbd {
                server: nbd.server.clone(),
                can_multi_conn: export.can_multi_conn(),
                export: export.name,
            };
            (identity, Box::new(device))
        }
        Target::Iscsi(iscsi) => open_iscsi(iscsi, address, &mut notices)?,
    };
    if address.faults == Faults::default() {
        return Ok(Opened { device, notices, faults: None, identity, nbd: monitor });
    }
    let device = FaultyDevice::new(device, address.faults.clone(), address.seed);
    let faults = Some(device.control());
    Ok(Opened { device: Box::new(device), notices, faults, identity, nbd: monitor })
}

#[cfg(feature = "iscsi")]
fn open_iscsi(
    unit: &IscsiAddress,
    address: &PathAddress,
    notices: &mut Vec<String>,
) -> Result<(Identity, Box<dyn BlockDevice>), OpenError> {
    let settings = IscsiSettings { block_size: address.block_size, ..IscsiSettings::default() };
    let device = IscsiDevice::open(unit, settings)?;
    notices.extend(device.notices());
    Ok((device.identity(), Box::new(device)))
}

#[cfg(not(feature = "iscsi"))]
fn open_iscsi(
    unit: &IscsiAddress,
    _address: &PathAddress,
    _notices: &mut Vec<String>,
) -> Result<(Identity, Box<dyn BlockDevice>), OpenError> {
    Err(OpenError::NoIscsi { address: unit.to_string() })
}

fn open_node(
    path: &Path,
    address: &PathAddress,
    notices: &mut Vec<String>,
) -> Result<(Identity, Box<dyn BlockDevice>), OpenError> {
    let file = OpenFile::open(path, address.block_size)?;
    let identity = file.identity().map_err(|source| OpenFileError::Open { path: path.to_owned(), source })?;
    notices.extend(file.notice().map(str::to_owned));
    let file = if address.engine == Some(Engine::Threads) {
        file
    } else {
        match UringDevice::new(file) {
            Ok(device) => return Ok((identity, Box::new(device))),
            Err((_, source)) if address.engine == Some(Engine::Uring) => {
                return Err(OpenError::Uring { path: path.to_owned(), source });
            }
            Err((file, error)) => {
                notices.push(format!("{}: no io_uring ({error}), using threads", path.display()));
                file
            }
        }
    };
    let device =
        ThreadedDevice::new(file).map_err(|source| OpenError::Threads { path: path.to_owned(), source })?;
    Ok((identity, Box::new(device)))
}

/// Puts the control port of a block node beside its blocks, where the node has one.
fn with_control_port(
    path: &Path,
    blocks: Box<dyn BlockDevice>,
    notices: &mut Vec<String>,
) -> Box<dyn BlockDevice> {
    match open_control_port(path) {
        Ok(port) => Box::new(BesideBlocks::new(blocks, port)),
        Err(OpenControlPortError::NoCommands { .. } | OpenControlPortError::Partition { .. }) => blocks,
        Err(error @ OpenControlPortError::Open { .. }) => {
            notices.push(format!("{error}; blocks go over this path, commands do not"));
            blocks
        }
    }
}

/// The disks in memory of this process, by name.
static MEMORY: Mutex<BTreeMap<String, MemoryDisk>> = Mutex::new(BTreeMap::new());

fn open_memory(
    name: &str,
    size: Option<ByteSize>,
    block_size: Option<BlockSize>,
) -> Result<MemoryDisk, OpenError> {
    let mut disks = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(disk) = disks.get(name) {
        let geometry = disk.device().geometry();
        let same_size = size.is_none_or(|size| size.0 == geometry.byte_size());
        let same_blocks = block_size.is_none_or(|block_size| block_size == geometry.block_size);
        if same_size && same_blocks {
            return Ok(disk.clone());
        }
        return Err(OpenError::MemoryDiffers {
            name: name.to_owned(),
            size: ByteSize(geometry.byte_size()),
            block: geometry.block_size.bytes(),
        });
    }
    let size = size.ok_or_else(|| OpenError::MemoryWithoutSize { name: name.to_owned() })?;
    let block_size = block_size.unwrap_or(BlockSize::B4096);
    let block = block_size.bytes();
    let fits = size.0 > 0 && size.0.is_multiple_of(block as u64) && isize::try_from(size.0).is_ok();
    if !fits {
        return Err(OpenError::MemorySize { name: name.to_owned(), size, block });
    }
    let disk = MemoryDisk::new(block_size, BlockCount(size.0 / block as u64));
    disks.insert(name.to_owned(), disk.clone());
    Ok(disk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Buffer, Instant, IoRequest, IoTag, Lba};

    fn open_text(address: &str) -> Result<Opened, OpenError> {
        open(&address.parse().unwrap())
    }

    #[test]
    fn a_name_of_memory_is_one_disk() {
        let mut one = open_text("mem:one-disk?size=64KiB&block=512").unwrap().device;
        let mut other = open_text("mem:one-disk").unwrap().device;
        let data = Buffer::copy_of(&[5; 512]).freeze();
        one.submit(Instant::ZERO, IoRequest::write(IoTag(1), Lba(9), data, false)).unwrap();
        one.poll(Instant::ZERO).unwrap();
        other.submit(Instant::ZERO, IoRequest::read(IoTag(1), Lba(9), Buffer::zeroed(512))).unwrap();
        assert_eq!(&other.poll(Instant::ZERO).unwrap().buffer.into_read().unwrap()[..], [5; 512]);
        for wrong in ["mem:one-disk?size=1MiB", "mem:one-disk?block=4096"] {
            assert!(matches!(open_text(wrong), Err(OpenError::MemoryDiffers { .. })));
        }
        assert!(matches!(open_text("mem:nobody"), Err(OpenError::MemoryWithoutSize { .. })));
        assert!(matches!(open_text("mem:odd?size=5000"), Err(OpenError::MemorySize { .. })));
    }

    #[test]
    fn engines_and_kinds_are_as_asked() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let path = file.path().display();
        let opened = open_text(&format!("file:{path}?engine=threads&latency=1ms")).unwrap();
        assert_eq!(opened.device.geometry().byte_size(), 1 << 20);
        assert!(opened.faults.is_some());
        assert!(open_text(&format!("file:{path}")).unwrap().faults.is_none());
        let error = open_text(&format!("block:{path}")).err().unwrap().to_string();
        assert!(error.contains(&format!("file:{path}")), "{error}");
        let error = open_text("file:/tmp").err().unwrap().to_string();
        assert!(error.contains("regular file"), "{error}");
        #[cfg(not(feature = "iscsi"))]
        {
            let error = open_text("iscsi://h/iqn.x/1").err().unwrap().to_string();
            assert!(error.contains("--features iscsi"), "{error}");
        }
        assert!(matches!(open_text("file:/nowhere/x"), Err(OpenError::File(OpenFileError::Open { .. }))));
    }
}
