//! Which disk does a path lead to?
//!
//! Two paths of one device must lead to the same blocks, and a slip in a configuration makes a second disk of the
//! second path. What the system says of a path tells in most cases:
//!
//! | path | what it is known by |
//! |---|---|
//! | file, loop device over a file | device and inode of the file, and where in it the blocks begin |
//! | other block node | its device number; the unit's WWID, and where on the unit the blocks begin |
//! | memory, simulated volume | its name: it is one of this process |
//! | NBD export | nothing that proves it: server and name are where it was found |
//!
//! Keeps true: [`Sameness::Same`] and [`Sameness::Different`] are said only where they are certain; all else is
//! [`Sameness::Unknown`], and whoever joins such paths compares what lies on them. Not here: that comparison (crate
//! `multipath`), and whether other hosts see the same disk.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use crate::device::NbdServer;
use crate::device::file::loop_backing;

/// The longest name of a unit that is taken, in bytes; SPC-5 7.7.6 allows designators of 252 bytes, and the kernel
/// writes two characters for each.
const WWID_BYTES_MAX: usize = 512;
/// What the kernel counts starts of partitions in.
const SECTOR_BYTES: u64 = 512;

/// What is known of the disk at the end of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Blocks of a file.
    File {
        /// Number of the device that the file lies on.
        device: u64,
        /// Its inode there.
        inode: u64,
        /// Where in it the first block is, in bytes.
        offset: u64,
    },
    /// Blocks of a block node.
    Node {
        /// Number of the node.
        number: u64,
        /// Name of the unit, where it has one.
        unit: Option<Unit>,
        /// Where on the unit the first block is, in bytes.
        offset: u64,
    },
    /// Memory of this process, by name.
    Memory(String),
    /// A volume of a simulated storage system of this process.
    Simulated {
        /// Name of the system.
        system: String,
        /// Name of the volume.
        volume: String,
    },
    /// An export of an NBD server.
    Nbd {
        /// Where the server listens.
        server: NbdServer,
        /// Name of the export.
        export: String,
        /// The server says that its connections see one another's writes and flushes.
        can_multi_conn: bool,
    },
    /// All of a SCSI unit that this process speaks to itself (iSCSI).
    Scsi(Option<Unit>),
}

/// A unit by the name that it gives to everyone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its WWID, as the kernel writes it.
    pub wwid: String,
    /// It is a SCSI unit, whose write cache is one for all ports.
    pub is_scsi: bool,
}

/// Whether two paths lead to the same blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sameness {
    /// They do.
    Same,
    /// They do not.
    Different,
    /// Nothing is known that would prove it.
    Unknown,
}

impl Identity {
    /// Whether this path and the other lead to the same blocks.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Sameness {
        match (self, other) {
            (
                Self::File { device, inode, offset },
                Self::File { device: other_device, inode: other_inode, offset: other_offset },
            ) => {
                if (device, inode) == (other_device, other_inode) {
                    same_if(offset == other_offset)
                } else if device == other_device || (is_on_a_disk(*device) && is_on_a_disk(*other_device)) {
                    Sameness::Different
                } else {
                    // One file of a network file system that is mounted twice has two device numbers.
                    Sameness::Unknown
                }
            }
            (
                Self::Node { number, unit, offset },
                Self::Node { number: other_number, unit: other_unit, offset: other_offset },
            ) => match (unit, other_unit) {
                _ if number == other_number => Sameness::Same,
                (Some(unit), Some(other)) => same_if(unit == other && offset == other_offset),
                _ => Sameness::Unknown,
            },
            (Self::Scsi(Some(unit)), Self::Scsi(Some(other))) => same_if(unit == other),
            (Self::Scsi(Some(unit)), Self::Node { unit: Some(other), offset, .. })
            | (Self::Node { unit: Some(other), offset, .. }, Self::Scsi(Some(unit))) => {
                // The kernel writes names of some kinds in its own way: only an equal one tells anything.
                if unit == other { same_if(*offset == 0) } else { Sameness::Unknown }
            }
            (Self::Memory(name), Self::Memory(other)) => same_if(name == other),
            // Two systems may lie over one disk.
            (
                Self::Simulated { system, volume },
                Self::Simulated { system: other_system, volume: other_volume },
            ) if system == other_system => same_if(volume == other_volume),
            _ => Sameness::Unknown,
        }
    }

    /// Whether a flush over one of the two paths is known to cover what was written over the other: one inode, one
    /// node, one SCSI unit, one NBD export with `NBD_FLAG_CAN_MULTI_CONN`.
    #[must_use]
    pub fn shares_cache_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nbd { can_multi_conn, .. }, Self::Nbd { .. }) => *can_multi_conn && self == other,
            (Self::Node { number, unit, .. }, Self::Node { number: other_number, .. })
                if number != other_number =>
            {
                self.compare(other) == Sameness::Same && unit.as_ref().is_some_and(|unit| unit.is_scsi)
            }
            _ => self.compare(other) == Sameness::Same,
        }
    }

    /// Of an open file or block node.
    pub(crate) fn of_file(file: &File, metadata: &Metadata) -> Self {
        if !metadata.file_type().is_block_device() {
            return Self::File { device: metadata.dev(), inode: metadata.ino(), offset: 0 };
        }
        let number = metadata.rdev();
        let entry = PathBuf::from(format!("/sys/dev/block/{}:{}", major(number), minor(number)));
        let is_partition = entry.join("partition").exists();
        let start = if is_partition { number_in(&entry.join("start")) } else { Some(0) };
        let start = start.and_then(|sectors| sectors.checked_mul(SECTOR_BYTES));
        if let (Some(backing), Some(start)) = (loop_backing(file), start) {
            let offset = backing.offset.saturating_add(start);
            return Self::File { device: backing.device, inode: backing.inode, offset };
        }
        let disk = if is_partition { entry.join("..") } else { entry };
        // A partition whose start is not known cannot be compared by the name of its unit.
        let unit = start.and_then(|_| unit_of(&disk));
        Self::Node { number, unit, offset: start.unwrap_or(0) }
    }
}

fn same_if(is_same: bool) -> Sameness {
    if is_same { Sameness::Same } else { Sameness::Different }
}

/// Whether a file system of this device number has a disk of its own; others (network, overlay) may show one file
/// under several numbers.
fn is_on_a_disk(device: u64) -> bool {
    major(device) != 0
}

/// The name of the unit behind a whole disk, by its entry in sysfs: NVMe and others give it themselves, SCSI disks
/// through their device, where the kernel has read it from page 83h (SPC-5 7.7.6).
fn unit_of(disk: &Path) -> Option<Unit> {
    [("wwid", false), ("device/wwid", true)].into_iter().find_map(|(file, is_scsi)| {
        let wwid = std::fs::read_to_string(disk.join(file)).ok()?.trim().to_owned();
        (!wwid.is_empty() && wwid.len() <= WWID_BYTES_MAX).then_some(Unit { wwid, is_scsi })
    })
}

fn number_in(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: u64 = 0x0801;

    fn file(device: u64, inode: u64, offset: u64) -> Identity {
        Identity::File { device, inode, offset }
    }

    fn node(number: u64, wwid: Option<&str>, offset: u64) -> Identity {
        let unit = wwid.map(|wwid| Unit { wwid: wwid.to_owned(), is_scsi: true });
        Identity::Node { number, unit, offset }
    }

    fn nbd(export: &str, can_multi_conn: bool) -> Identity {
        let server = NbdServer::Unix("/run/nbd.sock".into());
        Identity::Nbd { server, export: export.to_owned(), can_multi_conn }
    }

    #[test]
    fn certain_answers_only() {
        use Sameness::{Different, Same, Unknown};
        let memory = |name: &str| Identity::Memory(name.to_owned());
        let simulated = |system: &str, volume: &str| Identity::Simulated {
            system: system.to_owned(),
            volume: volume.to_owned(),
        };
        for (one, other, expected) in [
            (file(DISK, 7, 0), file(DISK, 7, 0), Same),
            (file(DISK, 7, 0), file(DISK, 7, 4096), Different),
            (file(DISK, 7, 0), file(DISK, 8, 0), Different),
            (file(DISK, 7, 0), file(DISK + 1, 7, 0), Different),
            (file(0x2a, 7, 0), file(0x2a, 8, 0), Different),
            // Two mounts of one network file system.
            (file(0x2a, 7, 0), file(0x2b, 7, 0), Unknown),
            (node(1, None, 0), node(1, None, 0), Same),
            (node(1, None, 0), node(2, None, 0), Unknown),
            (node(1, Some("naa.5"), 0), node(2, None, 0), Unknown),
            (node(1, Some("naa.5"), 0), node(2, Some("naa.5"), 0), Same),
            (node(1, Some("naa.5"), 0), node(2, Some("naa.6"), 0), Different),
            // Two partitions of one unit.
            (node(1, Some("naa.5"), 1 << 20), node(2, Some("naa.5"), 2 << 20), Different),
            (file(DISK, 7, 0), node(1, Some("naa.5"), 0), Unknown),
            (memory("a"), memory("a"), Same),
            (memory("a"), memory("b"), Different),
            (simulated("s", "a"), simulated("s", "a"), Same),
            (simulated("s", "a"), simulated("s", "b"), Different),
            (simulated("s", "a"), simulated("t", "a"), Unknown),
            (simulated("s", "a"), memory("a"), Unknown),
            (nbd("a", true), nbd("a", true), Unknown),
            (nbd("a", true), file(DISK, 7, 0), Unknown),
        ] {
            assert_eq!(one.compare(&other), expected, "{one:?} and {other:?}");
            assert_eq!(other.compare(&one), expected, "{other:?} and {one:?}");
        }
    }

    #[test]
    fn a_cache_is_shared_only_where_that_is_known() {
        let nvme = |number| Identity::Node {
            number,
            unit: Some(Unit { wwid: "eui.1".to_owned(), is_scsi: false }),
            offset: 0,
        };
        for (one, other, expected) in [
            (file(DISK, 7, 0), file(DISK, 7, 0), true),
            (file(0x2a, 7, 0), file(0x2b, 7, 0), false),
            (node(1, Some("naa.5"), 0), node(2, Some("naa.5"), 0), true),
            (node(1, None, 0), node(2, None, 0), false),
            (nvme(1), nvme(1), true),
            (nvme(1), nvme(2), false),
            (nbd("a", true), nbd("a", true), true),
            (nbd("a", true), nbd("b", true), false),
            (nbd("a", false), nbd("a", false), false),
        ] {
            assert_eq!(one.shares_cache_with(&other), expected, "{one:?} and {other:?}");
            assert_eq!(other.shares_cache_with(&one), expected, "{other:?} and {one:?}");
        }
    }

    #[test]
    fn names_of_units_are_read_where_the_kernel_has_them() {
        let disk = tempfile::tempdir().unwrap();
        assert_eq!(unit_of(disk.path()), None);
        std::fs::create_dir(disk.path().join("device")).unwrap();
        std::fs::write(disk.path().join("device/wwid"), "naa.5000c500a1b2c3d4\n").unwrap();
        let scsi = Unit { wwid: "naa.5000c500a1b2c3d4".to_owned(), is_scsi: true };
        assert_eq!(unit_of(disk.path()), Some(scsi));
        std::fs::write(disk.path().join("wwid"), "eui.0025385b71b07e2e\n").unwrap();
        let nvme = Unit { wwid: "eui.0025385b71b07e2e".to_owned(), is_scsi: false };
        assert_eq!(unit_of(disk.path()), Some(nvme));
        std::fs::write(disk.path().join("wwid"), "\n").unwrap();
        assert!(unit_of(disk.path()).unwrap().is_scsi);
    }
}
