//! The devices under a measurement: files of zeros in a folder, opened as the program opens devices.
//!
//! Keeps true: the files are written in full before anything is measured, since first writes of a file are slow in ways that no
//! disk is; they go when the measurement ends. Not here: volumes (`world`), the loop over bare devices (`bare`).

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use multipath::{FailoverConfig, MultipathDevice};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use storage_mapping::{BlockDevice, PathAddress, path_address};
use tempfile::TempDir;

use super::super::CommandError;
use super::world::{OpenDevices, failed};

/// Written at once while files are made.
const CHUNK_BYTES: usize = 1 << 20;

/// A folder with files that stand for disks.
pub(super) struct Disks {
    folder: TempDir,
    in_memory: bool,
}

impl Disks {
    /// In `folder`, or in memory if none is named.
    pub(super) fn new(folder: Option<&Path>) -> Result<Self, CommandError> {
        let memory = PathBuf::from("/dev/shm");
        let temporary = std::env::temp_dir();
        let parent = folder.unwrap_or(if memory.is_dir() { &memory } else { &temporary });
        let wrong = |error| failed(format!("no folder can be made in {}: {error}", parent.display()));
        let folder = tempfile::Builder::new().prefix("diskwire-bench-").tempdir_in(parent).map_err(wrong)?;
        let in_memory = statfs(folder.path()).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC);
        Ok(Self { folder, in_memory })
    }

    /// Whether the files lie in memory and not on a disk.
    pub(super) fn in_memory(&self) -> bool {
        self.in_memory
    }

    /// The conditions of a report: where the files are, and how they are opened.
    pub(super) fn conditions(&self) -> Result<Vec<String>, CommandError> {
        let parent = self.folder.path().parent().unwrap_or(Path::new("/"));
        let kind = if self.in_memory { "memory" } else { "a disk" };
        let probe = self.file("probe", CHUNK_BYTES as u64)?;
        let is_direct = path_address::open(&address(&probe, "")?).map_err(failed)?.notices.is_empty();
        std::fs::remove_file(probe).map_err(failed)?;
        let opening = if is_direct { "O_DIRECT" } else { "through the page cache" };
        Ok(vec![format!("files in {} ({kind}), {opening}", parent.display())])
    }

    /// A file of zeros.
    pub(super) fn file(&self, name: &str, bytes: u64) -> Result<PathBuf, CommandError> {
        let path = self.folder.path().join(name);
        let wrong = |error| failed(format!("{} cannot be written: {error}", path.display()));
        let mut file = File::create(&path).map_err(wrong)?;
        let zeros = vec![0; CHUNK_BYTES];
        let mut left = bytes;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            file.write_all(&zeros[..length]).map_err(wrong)?;
            left -= length as u64;
        }
        file.sync_all().map_err(wrong)?;
        Ok(path)
    }

    /// Files of these sizes, as something that opens them all as devices of one path; `options` are those of the paths
    /// (`?rate=…`), the master has none.
    pub(super) fn devices(
        &self,
        name: &str,
        bytes: &[u64],
        options: &str,
    ) -> Result<OpenDevices, CommandError> {
        let open = self.paths(name, bytes, options)?;
        Ok(Box::new(move || open()?.into_iter().map(layered).collect()))
    }

    /// The same without the multipath layer.
    pub(super) fn paths(
        &self,
        name: &str,
        bytes: &[u64],
        options: &str,
    ) -> Result<OpenDevices, CommandError> {
        let mut addresses = Vec::new();
        for (index, bytes) in bytes.iter().enumerate() {
            let file = self.file(&format!("{name}-{index}"), *bytes)?;
            addresses.push(address(&file, if index == 0 { "" } else { options })?);
        }
        Ok(Box::new(move || addresses.iter().map(open).collect()))
    }
}

/// The address of a file, with options.
fn address(file: &Path, options: &str) -> Result<PathAddress, CommandError> {
    format!("file:{}{options}", file.display()).parse().map_err(failed)
}

/// Opens a file as the program opens a path.
pub(super) fn open_file(file: &Path) -> Result<Box<dyn BlockDevice>, CommandError> {
    open(&address(file, "")?)
}

fn open(address: &PathAddress) -> Result<Box<dyn BlockDevice>, CommandError> {
    Ok(path_address::open(address).map_err(failed)?.device)
}

/// A device of one path, as the program stacks it.
pub(super) fn layered(path: Box<dyn BlockDevice>) -> Result<Box<dyn BlockDevice>, CommandError> {
    let device = MultipathDevice::new(vec![path], FailoverConfig::default()).map_err(failed)?;
    Ok(Box::new(device))
}
