//! A file is under its final name complete and identical, or not at all; once; and words agree with it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use storage_mapping::Instant;

use super::Violation;
use crate::files::ExpectedJob;

/// The partial folder of a receiver, which is no final name.
const PARTIAL_FOLDER: &str = ".diskwire-partial";

/// Looks at the receiving folders of all jobs.
#[derive(Debug)]
pub struct Delivery {
    jobs: Vec<ExpectedJob>,
    /// Inode under which a file was published.
    published: BTreeMap<PathBuf, u64>,
    /// Files seen whole.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
}

impl Delivery {
    /// Watches these.
    #[must_use]
    pub fn new(jobs: Vec<ExpectedJob>) -> Self {
        Self { jobs, published: BTreeMap::new(), delivered: 0, delivered_bytes: 0 }
    }

    /// Looks at every folder.
    ///
    /// # Errors
    /// The first thing that is not as it must be.
    pub fn check(&mut self, at: Instant) -> Result<(), Violation> {
        for job in 0..self.jobs.len() {
            self.check_job(at, job)?;
        }
        Ok(())
    }

    fn check_job(&mut self, at: Instant, job: usize) -> Result<(), Violation> {
        let expected = &self.jobs[job];
        let mut found = Vec::new();
        walk(&expected.folder, &mut found).map_err(|error| Violation::Scratch(error.to_string()))?;
        for path in &found {
            let Some(file) = expected.files.iter().find(|file| file.path == *path) else {
                return Err(Violation::Stray { at, path: path.display().to_string() });
            };
            let scratch = |error: std::io::Error| Violation::Scratch(error.to_string());
            let inode = fs::metadata(path).map_err(scratch)?.ino();
            match self.published.get(path) {
                Some(before) if *before == inode => continue,
                Some(_) => return Err(Violation::Republished { at, path: path.display().to_string() }),
                None => {}
            }
            let have = fs::read(path).map_err(scratch)?;
            if have[..] != file.bytes[..] {
                let path = path.display().to_string();
                return Err(Violation::Content { at, path, have: have.len(), expected: file.bytes.len() });
            }
            self.published.insert(path.clone(), inode);
            self.delivered += 1;
            self.delivered_bytes += have.len() as u64;
        }
        let gone = expected
            .files
            .iter()
            .find(|file| self.published.contains_key(&file.path) && !found.contains(&file.path));
        gone.map_or(Ok(()), |file| Err(Violation::Republished { at, path: file.path.display().to_string() }))
    }

    /// A job was said to be done.
    ///
    /// # Errors
    /// If a file of it is not there.
    pub fn check_done(&mut self, at: Instant, job: usize) -> Result<(), Violation> {
        self.check_job(at, job)?;
        let missing = self.jobs[job].files.iter().find(|file| !self.published.contains_key(&file.path));
        missing
            .map_or(Ok(()), |file| Err(Violation::Missing { at, job, path: file.path.display().to_string() }))
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_type()?.is_dir() {
            if entry.file_name() != PARTIAL_FOLDER {
                walk(&entry.path(), found)?;
            }
        } else {
            found.push(entry.path());
        }
    }
    Ok(())
}
