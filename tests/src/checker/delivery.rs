//! A file is under its final name complete and identical, or not at all; once; and words agree with it.
//!
//! A file that somebody was told of stays, whatever happens to the host that has it. One that nobody was
//! told of may be gone after a power loss, and then comes once more. What was compared is compared again
//! only when its inode or its content is another.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use storage_mapping::Instant;
use transfer_core::transfer::RelativePath;

use super::Violation;
use crate::file_system::FoundFile;
use crate::files::{ExpectedJob, Output};

/// The partial folder of a receiver, which is no final name.
const PARTIAL_FOLDER: &str = ".diskwire-partial";

/// A file of a job: the job's number and the path.
type FileOfJob = (usize, PathBuf);

/// Looks at the receiving folders of all jobs.
#[derive(Debug)]
pub struct Delivery {
    jobs: Vec<ExpectedJob>,
    /// Inode and version under which a file was found and compared.
    published: BTreeMap<FileOfJob, (u64, u64)>,
    /// Files that the user of a requester was told of.
    said: BTreeSet<FileOfJob>,
    /// Jobs that may be run once more as other jobs with the same files: they were done when their requester
    /// lost its power and could perhaps not say so, or some of their files failed.
    repeatable: BTreeSet<usize>,
    /// What was found at the last look, kept for its memory.
    found: Vec<FoundFile>,
    /// Files seen whole.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
}

impl Delivery {
    /// Watches these.
    #[must_use]
    pub fn new(jobs: Vec<ExpectedJob>) -> Self {
        let repeatable = (0..jobs.len()).filter(|job| jobs[*job].is_stream).collect();
        Self {
            jobs,
            published: BTreeMap::new(),
            said: BTreeSet::new(),
            repeatable,
            found: Vec::new(),
            delivered: 0,
            delivered_bytes: 0,
        }
    }

    /// Looks at every folder.
    ///
    /// # Errors
    /// The first thing that is not as it must be.
    pub fn check(&mut self, at: Instant) -> Result<(), Violation> {
        (0..self.jobs.len()).try_for_each(|job| self.check_job(at, job))
    }

    /// Where a job's stream is fetched to, if it is one.
    #[must_use]
    pub fn output(&self, job: usize) -> Option<&Output> {
        self.jobs[job].output.as_ref()
    }

    /// What has come of a stream is how it begins.
    fn check_output(&self, at: Instant, job: usize) -> Result<(), Violation> {
        let wrong = self.output(job).and_then(|output| Some((output, output.come().1?)));
        wrong.map_or(Ok(()), |(output, byte)| {
            Err(Violation::Stream { at, job, byte, sent: output.expected.len() })
        })
    }

    fn check_job(&mut self, at: Instant, job: usize) -> Result<(), Violation> {
        self.check_output(at, job)?;
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        let expected = &self.jobs[job];
        let looked = expected.files_there.collect(&expected.folder, PARTIAL_FOLDER, &mut found);
        let checked = looked
            .map_err(|errno| Violation::Scratch(errno.to_string()))
            .and_then(|()| found.iter().try_for_each(|file| self.check_file(at, job, file)));
        let checked = checked.and_then(|()| {
            let is_there = |path: &PathBuf| found.iter().any(|file| file.path == *path);
            let of_job = (job, PathBuf::new())..(job + 1, PathBuf::new());
            let gone = self.published.range(of_job).find(|((_, path), _)| !is_there(path));
            gone.map_or(Ok(()), |((_, path), _)| Err(republished(at, path)))
        });
        self.found = found;
        checked
    }

    fn check_file(&mut self, at: Instant, job: usize, found: &FoundFile) -> Result<(), Violation> {
        let expected = &self.jobs[job];
        let Some(file) = expected.files.iter().find(|file| file.path == found.path) else {
            return Err(Violation::Stray { at, path: found.path.display().to_string() });
        };
        let key = (job, found.path.clone());
        let state = (found.stat.inode, found.version);
        let before = self.published.get(&key);
        if before == Some(&state) {
            return Ok(());
        }
        if before.is_some_and(|(inode, _)| *inode != found.stat.inode) && !self.repeatable.contains(&job) {
            return Err(republished(at, &found.path));
        }
        let compared = expected.files_there.with_content(&found.path, |have| {
            (have[..] == file.bytes[..]).then_some(()).ok_or_else(|| Violation::Content {
                at,
                path: found.path.display().to_string(),
                have: have.len(),
                expected: file.bytes.len(),
            })
        });
        compared.map_err(|errno| Violation::Scratch(errno.to_string()))??;
        if before.is_none() {
            self.delivered += 1;
            self.delivered_bytes += file.bytes.len() as u64;
        }
        self.published.insert(key, state);
        Ok(())
    }

    /// A job has ended with failures that are known: running it again is another job with the same files.
    pub fn repeat(&mut self, job: usize) {
        self.repeatable.insert(job);
    }

    /// The process that ran a job is gone, and its host has forgotten the job: it was over, and perhaps nobody
    /// was told. Running it again is another job: with all files there, or with some that `may_fail`.
    pub fn requester_gone(&mut self, job: usize, may_fail: bool) {
        let mut files = self.jobs[job].files.iter();
        if may_fail || files.all(|file| self.published.contains_key(&(job, file.path.clone()))) {
            self.repeatable.insert(job);
        }
    }

    /// A host has lost its power: what nobody was told of may be gone, and all else must be whole.
    ///
    /// # Errors
    /// The first thing that is not as it must be.
    pub fn power_lost(&mut self, at: Instant, host: usize) -> Result<(), Violation> {
        for job in 0..self.jobs.len() {
            let expected = &self.jobs[job];
            if expected.host != host {
                continue;
            }
            let mut found = Vec::new();
            expected
                .files_there
                .collect(&expected.folder, PARTIAL_FOLDER, &mut found)
                .map_err(|errno| Violation::Scratch(errno.to_string()))?;
            let said = &self.said;
            self.published.retain(|key, _| {
                key.0 != job || said.contains(key) || found.iter().any(|file| file.path == key.1)
            });
        }
        self.check(at)
    }

    /// The user of a requester was told that a file is published.
    ///
    /// # Errors
    /// If it is not there.
    pub fn check_said(&mut self, at: Instant, job: usize, announced: &RelativePath) -> Result<(), Violation> {
        self.check_job(at, job)?;
        if self.jobs[job].is_stream {
            // It is said under no name that its end would have.
            return Ok(());
        }
        let path = String::from_utf8_lossy(announced.as_bytes()).into_owned();
        let path = self.jobs[job].folder.join(path);
        self.expect(at, job, path)
    }

    /// A job was said to be done.
    ///
    /// # Errors
    /// If a file of it is not there.
    pub fn check_done(&mut self, at: Instant, job: usize) -> Result<(), Violation> {
        self.check_job(at, job)?;
        if let Some(output) = &self.jobs[job].output {
            let (come, sent) = (output.come().0, output.expected.len());
            if come != sent {
                return Err(Violation::Stream { at, job, byte: come, sent });
            }
            self.delivered += 1;
            self.delivered_bytes += sent as u64;
        }
        let paths: Vec<PathBuf> = self.jobs[job].files.iter().map(|file| file.path.clone()).collect();
        paths.into_iter().try_for_each(|path| self.expect(at, job, path))
    }

    /// It is there, and stays.
    fn expect(&mut self, at: Instant, job: usize, path: PathBuf) -> Result<(), Violation> {
        let key = (job, path);
        if !self.published.contains_key(&key) {
            return Err(Violation::Missing { at, job, path: key.1.display().to_string() });
        }
        self.said.insert(key);
        Ok(())
    }
}

fn republished(at: Instant, path: &std::path::Path) -> Violation {
    Violation::Republished { at, path: path.display().to_string() }
}
