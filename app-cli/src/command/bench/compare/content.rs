//! What is copied: a file or a tree of random bytes, and how copies are compared with it.
//!
//! Not here: who copies.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use blake3::Hash;
use transfer_core::driver::clock::OsRandom;
use transfer_core::random::Random;

/// Files of one folder.
const FILES_PER_FOLDER: u32 = 100;
/// How much is written at once.
const BLOCK_BYTES: usize = 1 << 20;

/// Every file below a place, with its hash, in order of their names. A file itself has no name there.
pub(super) type Listing = Vec<(PathBuf, Hash)>;

/// Makes a file of random bytes.
pub(super) fn make_file(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).map_or(BLOCK_BYTES, |left| left.min(BLOCK_BYTES));
        OsRandom.fill(&mut block[..length]);
        file.write_all(&block[..length])?;
        left -= length as u64;
    }
    Ok(())
}

/// Makes a tree of files of random bytes.
pub(super) fn make_tree(path: &Path, files: u32, bytes: u64) -> io::Result<()> {
    for number in 0..files {
        let folder = path.join(format!("folder{:05}", number / FILES_PER_FOLDER));
        if number % FILES_PER_FOLDER == 0 {
            fs::create_dir_all(&folder)?;
        }
        make_file(&folder.join(format!("file{number:07}")), bytes)?;
    }
    Ok(())
}

/// All files at a place and below it.
pub(super) fn listing(place: &Path) -> io::Result<Listing> {
    let mut found = Vec::new();
    let mut left = vec![place.to_owned()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        } else {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(File::open(&path)?)?;
            let name = path.strip_prefix(place).expect("it was found there").to_owned();
            found.push((name, hasher.finalize()));
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_listed_whole_and_a_changed_byte_shows() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        make_tree(&a, 205, 10).unwrap();
        let files = listing(&a).unwrap();
        assert_eq!(files.len(), 205);
        assert_eq!(files[204].0, Path::new("folder00002/file0000204"));
        assert_ne!(files[0].1, files[1].1, "random");
        make_file(&b, (1 << 20) + 5).unwrap();
        let before = listing(&b).unwrap();
        assert_eq!((before.len(), before[0].0.as_os_str().len()), (1, 0));
        assert_eq!(fs::metadata(&b).unwrap().len(), (1 << 20) + 5);
        let mut bytes = fs::read(&b).unwrap();
        bytes[1 << 20] ^= 1;
        fs::write(&b, bytes).unwrap();
        assert_ne!(listing(&b).unwrap(), before);
    }
}
