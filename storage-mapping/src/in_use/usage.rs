//! How this host uses a file or block node, as the kernel tells.
//!
//! Keeps true: partitions count as their disk. Not here: content (`signatures`).

use std::fs::{self, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::stat::{major, minor};

use super::Finding;

/// A block device as `/sys` knows it.
struct Node {
    /// `MAJOR:MINOR`.
    number: String,
    /// The kernel's name, such as `sda1`.
    name: String,
    folder: PathBuf,
}

impl Node {
    fn in_folder(folder: PathBuf) -> io::Result<Self> {
        let number = fs::read_to_string(folder.join("dev"))?.trim().to_owned();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { number, name, folder })
    }
}

/// How a block node and its partitions are used.
pub(super) fn of_block_node(path: &Path, metadata: &Metadata) -> io::Result<Vec<Finding>> {
    let number = format!("{}:{}", major(metadata.rdev()), minor(metadata.rdev()));
    let folder = fs::canonicalize(Path::new("/sys/dev/block").join(number))?;
    let mut nodes = vec![Node::in_folder(folder.clone())?];
    for entry in fs::read_dir(&folder)? {
        let folder = entry?.path();
        if folder.join("partition").exists() {
            nodes.push(Node::in_folder(folder)?);
        }
    }
    let mounts = fs::read("/proc/self/mountinfo")?;
    let swaps = swap_spaces()?;
    let mut found = Vec::new();
    for node in &nodes {
        found.extend(mount_points(&mounts, &node.number).into_iter().map(|at| mounted(&node.name, at)));
        let is_swap = swaps.iter().any(|swap| {
            fs::metadata(swap)
                .is_ok_and(|swap| format!("{}:{}", major(swap.rdev()), minor(swap.rdev())) == node.number)
        });
        if is_swap {
            found.push(Finding::SwapInUse { device: node.name.clone() });
        }
        found.extend(holders(node)?);
    }
    if is_held_exclusively(path)? {
        found.push(Finding::ExclusivelyHeld);
    }
    Ok(found)
}

/// How a regular file is used: as swap space, or through a loop device.
pub(super) fn of_file(path: &Path) -> io::Result<Vec<Finding>> {
    let path = fs::canonicalize(path)?;
    let name = path.display().to_string();
    let mut found = Vec::new();
    if swap_spaces()?.contains(&path) {
        found.push(Finding::SwapInUse { device: name.clone() });
    }
    let Ok(devices) = fs::read_dir("/sys/block") else { return Ok(found) };
    for device in devices {
        let device = device?;
        let Ok(backing) = fs::read(device.path().join("loop/backing_file")) else { continue };
        if backing.trim_ascii_end() == path.as_os_str().as_bytes() {
            let by = device.file_name().to_string_lossy().into_owned();
            found.push(Finding::Held { device: name.clone(), by });
        }
    }
    Ok(found)
}

fn mounted(device: &str, at: PathBuf) -> Finding {
    Finding::Mounted { device: device.to_owned(), at }
}

/// Other block devices that are built on this one.
fn holders(node: &Node) -> io::Result<Vec<Finding>> {
    let folder = node.folder.join("holders");
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let held = |entry: io::Result<fs::DirEntry>| {
        let by = entry?.file_name().to_string_lossy().into_owned();
        Ok(Finding::Held { device: node.name.clone(), by })
    };
    fs::read_dir(folder)?.map(held).collect()
}

/// An exclusive open of a block node fails while a driver or program holds it.
fn is_held_exclusively(path: &Path) -> io::Result<bool> {
    match OpenOptions::new().read(true).custom_flags(OFlag::O_EXCL.bits()).open(path) {
        Ok(_) => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Where the device of this number is mounted, from `/proc/self/mountinfo`.
fn mount_points(mountinfo: &[u8], number: &str) -> Vec<PathBuf> {
    let point = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b' ').skip(2);
        (fields.next()? == number.as_bytes()).then_some(())?;
        fields.nth(1).map(path_from_octal)
    };
    mountinfo.split(|byte| *byte == b'\n').filter_map(point).collect()
}

/// The files and nodes that are swapped on; a kernel without swap has none.
fn swap_spaces() -> io::Result<Vec<PathBuf>> {
    match fs::read("/proc/swaps") {
        Ok(table) => Ok(swap_paths(&table)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn swap_paths(table: &[u8]) -> Vec<PathBuf> {
    let path = |line: &[u8]| {
        let first = line.split(|byte| matches!(byte, b' ' | b'\t')).next()?;
        (!first.is_empty()).then(|| path_from_octal(first))
    };
    table.split(|byte| *byte == b'\n').skip(1).filter_map(path).collect()
}

/// Undoes the `\040` that `/proc` writes for blanks.
fn path_from_octal(mut text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    while let Some((first, rest)) = text.split_first() {
        text = rest;
        let digits = rest.get(..3).filter(|digits| digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        match digits {
            Some(digits) if *first == b'\\' => {
                let value = digits.iter().fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0'));
                bytes.push((value & 0xff) as u8);
                text = &rest[3..];
            }
            _ => bytes.push(*first),
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_number() {
        let table = b"21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n\
            30 21 8:17 / /mnt/my\\040disk rw - xfs /dev/sdb1 rw\n\
            31 21 8:17 /sub /srv rw - xfs /dev/sdb1 rw\n";
        assert_eq!(mount_points(table, "8:17"), [Path::new("/mnt/my disk"), Path::new("/srv")]);
        assert!(mount_points(table, "8:2").is_empty());
    }

    #[test]
    fn swap_spaces_are_found_by_path() {
        let table = b"Filename\tType\tSize\tUsed\tPriority\n/dev/sda2   partition\t1\t0\t-2\n/swap\\040file file\t1\t0\t-3\n";
        assert_eq!(swap_paths(table), [Path::new("/dev/sda2"), Path::new("/swap file")]);
    }

    #[test]
    fn findings_read_as_phrases() {
        assert_eq!(mounted("sdb1", PathBuf::from("/mnt")).to_string(), "sdb1 is mounted at /mnt");
        let held = Finding::Held { device: "sdb".to_owned(), by: "dm-0".to_owned() };
        assert_eq!(held.to_string(), "sdb is held by dm-0");
    }
}
