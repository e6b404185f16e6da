//! Where a measurement takes place: the folders, and on which file systems they are.
//!
//! Not here: what lies in them.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::args::bench::CompareArgs;
use crate::command::CommandError;
use crate::escape;

/// Where there is room in memory.
const MEMORY: &str = "/dev/shm";
/// What file systems in memory are called.
const MEMORY_TYPES: [&str; 2] = ["ramfs", "tmpfs"];

/// Folders of this run, gone with it.
pub(super) struct Places {
    /// Of the volume.
    volume: TempDir,
    /// Of source and target, if that is another one.
    ends: Option<TempDir>,
}

impl Places {
    /// Makes the folders.
    pub(super) fn new(args: &CompareArgs) -> Result<Self, CommandError> {
        let memory = Path::new(MEMORY);
        let default = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let volume = scratch(args.folder.as_ref().unwrap_or(&default))?;
        let ends = args.ends.as_ref().map(scratch).transpose()?;
        Ok(Self { volume, ends })
    }

    /// Where the volume lies.
    pub(super) fn volume(&self) -> &Path {
        self.volume.path()
    }

    /// Where source and target lie.
    pub(super) fn ends(&self) -> &Path {
        self.ends.as_ref().unwrap_or(&self.volume).path()
    }

    /// Whether source and target are in memory.
    pub(super) fn are_ends_in_memory(&self) -> bool {
        is_memory(&file_system(self.ends()))
    }

    /// Whether the volume is in memory.
    pub(super) fn is_volume_in_memory(&self) -> bool {
        is_memory(&file_system(self.volume()))
    }

    /// The file systems, in a line.
    pub(super) fn describe(&self) -> String {
        let [volume, ends] = [self.volume(), self.ends()].map(file_system);
        format!("file systems: source {ends}, volume {volume}, target {ends}")
    }
}

/// A new folder in this one.
fn scratch(folder: &PathBuf) -> Result<TempDir, CommandError> {
    let wrong = |why: String| CommandError::BenchFolder { folder: escape::name(folder), why };
    let folder = fs::canonicalize(folder).map_err(|error| wrong(error.to_string()))?;
    // Some of the programs give it to a shell, and rsync takes a colon for the end of a host's name.
    let is_plain = |sign: char| sign.is_ascii_alphanumeric() || "/._+-".contains(sign);
    if !folder.to_str().is_some_and(|text| text.chars().all(is_plain)) {
        return Err(wrong("its path must consist of letters, digits and / . _ + -".to_owned()));
    }
    let made = tempfile::Builder::new().prefix("diskwire-bench-").tempdir_in(&folder);
    made.map_err(|error| wrong(error.to_string()))
}

fn is_memory(file_system: &str) -> bool {
    MEMORY_TYPES.contains(&file_system)
}

/// What the file system of a folder is called.
fn file_system(folder: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    type_in(&mounts, folder).unwrap_or("unknown").to_owned()
}

/// The type of the mount that is nearest above `folder`; of two at one place the later one.
fn type_in<'a>(mounts: &'a str, folder: &Path) -> Option<&'a str> {
    let mount = |line: &'a str| {
        let mut words = line.split(' ').skip(1);
        Some((Path::new(words.next()?), words.next()?))
    };
    let above = mounts.lines().filter_map(mount).filter(|(place, _)| folder.starts_with(place));
    above.max_by_key(|(place, _)| place.components().count()).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_says_the_type() {
        let mounts =
            "dev / ext4 rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\ntmpfs /dev ramfs rw 0 0\nx /a btrfs\ny /a xfs\n";
        for (folder, name) in
            [("/data/x", "ext4"), ("/dev/shm/y", "tmpfs"), ("/dev/shmoo", "ramfs"), ("/a", "xfs")]
        {
            assert_eq!(type_in(mounts, Path::new(folder)), Some(name), "{folder}");
        }
        assert_eq!(type_in("odd\n\n", Path::new("/a")), None);
        assert!(is_memory("tmpfs") && !is_memory("ext4"));
    }

    #[test]
    fn a_path_that_a_shell_would_take_apart_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let odd = parent.path().join("a b");
        fs::create_dir(&odd).unwrap();
        let error = scratch(&odd).unwrap_err().to_string();
        assert!(error.contains("letters, digits"), "{error}");
        assert!(scratch(&parent.path().join("missing")).is_err());
        assert!(scratch(&parent.path().to_owned()).is_ok());
    }
}
