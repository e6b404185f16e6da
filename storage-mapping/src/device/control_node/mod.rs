//! Device nodes that take control commands: which they are, and opening them.
//!
//! ```text
//!  /dev/sdX           SG_IO                    ┐
//!  /dev/sgN           write, read              ├─ one thread per command ── NodePort (a ControlPort)
//!  /dev/nvmeX, …nY    NVME_IOCTL_ADMIN64, IO64 ┘
//! ```
//!
//! Keeps true: what a node is, sysfs says, by the device number of what was opened. A partition is no path: a command over
//! it would act on the whole disk. Not here: the system calls (`scsi_generic`, `nvme_admin`).

mod beside_blocks;
mod port;
mod sysfs;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{major, minor};
use thiserror::Error;

pub(crate) use beside_blocks::BesideBlocks;
pub(crate) use port::{CommandNode, Ending};
pub use port::{NodePort, PORT_COMMANDS_MAX, PROCESS_COMMANDS_MAX, commands_at_work};
use sysfs::{Lookup, NodeClass, NodeKind};

use super::nvme_admin::NvmeNode;
use super::scsi_generic::{BlockNode, GenericNode};
use crate::block::request::{ErrorSource, IoError};
use crate::control_port::CommandBytes;

/// Why a node could not be opened for control commands.
#[derive(Debug, Error)]
pub enum OpenControlPortError {
    /// The system refused.
    #[error("cannot open {} for control commands: {source}", path.display())]
    Open {
        /// What was to be opened.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Neither SCSI nor NVMe.
    #[error("{} takes no control commands: it is neither a SCSI nor an NVMe node of this host", path.display())]
    NoCommands {
        /// What was opened.
        path: PathBuf,
    },
    /// A partition.
    #[error("{} is a partition, and commands act on the whole disk: name {}", path.display(), disk.display())]
    Partition {
        /// What was opened.
        path: PathBuf,
        /// What it is a part of.
        disk: PathBuf,
    },
}

/// Opens `/dev/sdX`, `/dev/sgN`, `/dev/nvmeX` or `/dev/nvmeXnY` for control commands.
///
/// # Errors
/// See [`OpenControlPortError`].
pub fn open_control_port(path: &Path) -> Result<NodePort, OpenControlPortError> {
    let failed = |source| OpenControlPortError::Open { path: path.to_owned(), source };
    // First asked by name, so that a node of another kind is not even opened: some do things when they are.
    identity_of(&std::fs::metadata(path).map_err(failed)?, path)?;
    let file = open_node(path).map_err(failed)?;
    let identity = identity_of(&file.metadata().map_err(failed)?, path)?;
    let node: Arc<dyn CommandNode> = match identity.kind {
        NodeKind::ScsiBlock => Arc::new(BlockNode::new(file)),
        NodeKind::ScsiGeneric => Arc::new(GenericNode::new(file).map_err(failed)?),
        NodeKind::Nvme => Arc::new(NvmeNode::new(file)),
    };
    NodePort::new(node, identity.nexus).map_err(failed)
}

fn identity_of(metadata: &std::fs::Metadata, path: &Path) -> Result<sysfs::Identity, OpenControlPortError> {
    let file_type = metadata.file_type();
    let class = if file_type.is_block_device() {
        NodeClass::Block
    } else if file_type.is_char_device() {
        NodeClass::Character
    } else {
        return Err(OpenControlPortError::NoCommands { path: path.to_owned() });
    };
    let number = (major(metadata.rdev()), minor(metadata.rdev()));
    match sysfs::look_up(Path::new("/sys"), class, number) {
        Lookup::Node(identity) => Ok(identity),
        Lookup::Partition { disk } => {
            Err(OpenControlPortError::Partition { path: path.to_owned(), disk: Path::new("/dev").join(disk) })
        }
        Lookup::Other => Err(OpenControlPortError::NoCommands { path: path.to_owned() }),
    }
}

/// For reading and writing, or for reading where that is all there is: enough to ask. It never waits for who has the
/// node for himself.
fn open_node(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    match options.clone().write(true).open(path) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            options.open(path)
        }
        opened => opened,
    }
}

/// What would let a command through that the kernel itself refused, in one line; `None` where that is not what happened.
#[must_use]
pub fn explain_refusal(command: &CommandBytes, error: IoError) -> Option<String> {
    let ErrorSource::Errno(code) = error.source_code else { return None };
    let errno = Errno::from_raw(code);
    let may_not = matches!(errno, Errno::EPERM | Errno::EACCES);
    match command {
        // A block node asks for what is neither reading nor a common question: reservations are neither.
        CommandBytes::Scsi(cdb) if may_not => Some(format!(
            "the kernel sends {cdb} over a block node only for a program with CAP_SYS_RAWIO: run this one as root or with \
             that capability"
        )),
        CommandBytes::Scsi(cdb) if errno == Errno::EBADF => Some(format!(
            "the kernel sends {cdb} only over a node that was opened for writing: give this program the right to write to it"
        )),
        CommandBytes::Nvme(fields) if may_not => Some(format!(
            "the kernel does not let this program send opcode {:02x}h: that needs CAP_SYS_ADMIN: run it as root, or as a \
             program with that capability",
            fields.opcode
        )),
        CommandBytes::Nvme(fields) if fields.is_io && errno == Errno::ENOTTY => Some(
            "a controller node takes no commands for an I/O queue: name the namespace, such as /dev/nvme0n1"
                .to_owned(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_port::Cdb;

    #[test]
    fn what_takes_no_commands_says_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [file.path(), Path::new("/dev/null")] {
            let error = open_control_port(path).unwrap_err();
            assert!(matches!(error, OpenControlPortError::NoCommands { .. }), "{error}");
        }
        let error = open_control_port(Path::new("/nowhere/sda")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/sda"), "{error}");
    }

    #[test]
    fn a_refusal_by_the_kernel_says_what_is_needed() {
        let scsi = CommandBytes::Scsi(Cdb::new(&[0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0]).unwrap());
        let line = explain_refusal(&scsi, IoError::errno(Errno::EPERM as i32)).unwrap();
        assert!(line.contains("CAP_SYS_RAWIO") && line.contains("5f 00"), "{line}");
        let line = explain_refusal(&scsi, IoError::errno(Errno::EBADF as i32)).unwrap();
        assert!(line.contains("right to write"), "{line}");
        let nvme = CommandBytes::Nvme(crate::control_port::NvmeFields { is_io: true, ..Default::default() });
        let line = explain_refusal(&nvme, IoError::errno(Errno::EACCES as i32)).unwrap();
        assert!(line.contains("CAP_SYS_ADMIN"), "{line}");
        assert!(explain_refusal(&nvme, IoError::errno(Errno::ENOTTY as i32)).unwrap().contains("nvme0n1"));
        assert_eq!(explain_refusal(&scsi, IoError::errno(Errno::EIO as i32)), None);
        assert_eq!(explain_refusal(&scsi, ErrorSource::Deadline.into()), None);
    }
}
