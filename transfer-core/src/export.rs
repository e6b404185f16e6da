//! A directory tree that a peer may be let into, and the only way into it.
//!
//! What holds: every access starts at the root's handle and goes through
//! [`FileHandle::open_beneath`], which stays beneath and follows no link (openat2 with RESOLVE_BENEATH,
//! NO_SYMLINKS and NO_MAGICLINKS), or names one last component in a directory that was opened so. A path
//! checked once is never used again as text. Not here: which names are allowed
//! (`transfer::RelativePath`), who may use which export (the driver).

use crate::file_system::{Errno, FileHandle, FileStat, FileSystem, Handle, Mode, OFlags, SystemFiles};
use crate::transfer::RelativePath;
use std::path::Path;

/// A named directory with a root that nothing leads out of.
#[derive(Debug)]
pub struct Export {
    name: Vec<u8>,
    root: Handle,
    writable: bool,
}

impl Export {
    /// Opens the directory at `path`, following the operator's own symbolic links.
    ///
    /// # Errors
    /// If it cannot be opened as a directory.
    pub fn open(name: &[u8], path: &Path, writable: bool) -> Result<Self, Errno> {
        Self::open_on(&SystemFiles, name, path, writable)
    }

    /// As [`open`](Self::open), on any file system.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_on(files: &dyn FileSystem, name: &[u8], path: &Path, writable: bool) -> Result<Self, Errno> {
        let root = files.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(Self { name: name.to_vec(), root, writable })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Whether peers may write.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> &dyn FileHandle {
        &*self.root
    }

    /// Opens something beneath the root.
    ///
    /// # Errors
    /// Those of openat2: ELOOP for a symbolic link on the way, EXDEV for an escape.
    pub fn open_beneath(&self, path: &RelativePath, flags: OFlags, mode: Mode) -> Result<Handle, Errno> {
        let path = if path.is_root() { &b"."[..] } else { path.as_bytes() };
        self.root.open_beneath(path, flags, mode)
    }

    /// Opens a directory beneath the root.
    ///
    /// # Errors
    /// As [`open_beneath`](Self::open_beneath).
    pub fn open_directory(&self, path: &RelativePath) -> Result<Handle, Errno> {
        self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    }

    /// Opens the directory in which `path` is, and gives its last component.
    ///
    /// # Errors
    /// As [`open_beneath`](Self::open_beneath); EISDIR for the root itself.
    pub fn open_parent<'a>(&self, path: &'a RelativePath) -> Result<(Handle, &'a [u8]), Errno> {
        let (parent, name) = path.split_last().ok_or(Errno::ISDIR)?;
        Ok((self.open_directory(&parent)?, name))
    }

    /// Looks at something beneath the root, without following a link.
    ///
    /// # Errors
    /// As [`open_beneath`](Self::open_beneath).
    pub fn stat(&self, path: &RelativePath) -> Result<FileStat, Errno> {
        if path.is_root() {
            return self.root.stat();
        }
        let (parent, name) = self.open_parent(path)?;
        parent.stat_entry(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_leads_out() {
        let world = tempfile::tempdir().expect("a folder");
        let root = world.path().join("root");
        std::fs::create_dir_all(root.join("inner")).expect("folders");
        std::fs::write(world.path().join("secret"), b"secret").expect("a file");
        symlink("..", root.join("up")).expect("a link");
        symlink(world.path(), root.join("inner/away")).expect("a link");
        symlink("../secret", root.join("last")).expect("a link");
        let export = Export::open(b"e", &root, true).expect("an export");
        for path in
            ["..", "../secret", "/etc/passwd", "up/secret", "inner/away/secret", "last", "inner/../.."]
        {
            let result = export.root().open_beneath(path.as_bytes(), OFlags::RDONLY, Mode::empty());
            assert!(result.is_err(), "{path} leads out");
        }
        assert!(RelativePath::from_joined(b"../secret").is_err());
        assert!(RelativePath::from_joined(b".diskwire-partial/x").is_err());
        assert!(export.open_directory(&RelativePath::from_joined(b"/inner").expect("a path")).is_ok());
    }

    #[test]
    fn a_link_swapped_in_by_a_racing_thread_is_not_followed() {
        let world = tempfile::tempdir().expect("a folder");
        let (root, outside) = (world.path().join("root"), world.path().join("outside"));
        for folder in [&root, &outside, &root.join("real"), &root.join("spare")] {
            std::fs::create_dir_all(folder).expect("a folder");
        }
        std::fs::write(outside.join("file"), b"outside").expect("a file");
        std::fs::write(root.join("real/file"), b"inside").expect("a file");
        symlink(&outside, root.join("link")).expect("a link");
        let export = Export::open(b"e", &root, true).expect("an export");
        let path = RelativePath::from_joined(b"real/file").expect("a path");
        let swapper = {
            let root = root.clone();
            std::thread::spawn(move || {
                let swap = |a: &str, b: &str| {
                    let (a, b) = (root.join(a), root.join(b));
                    let _ = rustix::fs::renameat_with(CWD, &a, CWD, &b, rustix::fs::RenameFlags::EXCHANGE);
                };
                (0..4000).for_each(|_| swap("real", "link"));
            })
        };
        let open = || export.open_beneath(&path, OFlags::RDONLY, Mode::empty());
        for _ in 0..4000 {
            // Most fail: the kernel gives up where a name changes under it.
            if let Ok(file) = open() {
                assert_eq!(file.read_whole().expect("readable"), b"inside");
            }
        }
        swapper.join().expect("the swapper ends");
        // An even number of swaps.
        assert_eq!(open().expect("the directory is back").read_whole().expect("readable"), b"inside");
    }
}
