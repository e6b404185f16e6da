//! The local files of all hosts: real ones in a scratch folder, and what they should contain.
//!
//! ```text
//! host N/   exports/     the export "box": what others fetch, and where they bring files to
//!           here/        the user's own: what is brought, and where fetched files go
//!           state/       records of jobs, journals
//! ```
//!
//! A crash of a process leaves them as they are. Not here: a file system that forgets what was not synced.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use storage_mapping::BufferPool;
use transfer_core::export::Export;
use transfer_core::random::{Random, SeededRandom};
use transfer_core::transfer::message::JobOptions;
use transfer_core::transfer::{Job, LocalFiles, RelativePath, ServingFiles, SourceOrigin, Target};

use crate::plan::{JobPlan, Plan};

/// Name of the export of every host.
const EXPORT: &[u8] = b"box";
/// A folder in memory, where the system has one: syncing costs nothing there.
const MEMORY_FOLDER: &str = "/dev/shm";

/// One file that is to be delivered.
#[derive(Clone, Debug)]
pub struct ExpectedFile {
    /// Where it must be in the end.
    pub path: PathBuf,
    /// What it must contain.
    pub bytes: Arc<[u8]>,
}

/// What a job is to deliver.
#[derive(Clone, Debug)]
pub struct ExpectedJob {
    /// The folder that receives.
    pub folder: PathBuf,
    /// The files.
    pub files: Vec<ExpectedFile>,
}

/// The scratch folder of a run.
#[derive(Debug)]
pub struct Files {
    root: tempfile::TempDir,
}

impl Files {
    /// Folders for all hosts, and the sources of all jobs.
    ///
    /// # Errors
    /// If they cannot be made.
    pub fn new(plan: &Plan) -> io::Result<(Self, Vec<ExpectedJob>)> {
        let memory = Path::new(MEMORY_FOLDER);
        let mut builder = tempfile::Builder::new();
        builder.prefix("diskwire-sim-");
        let root = if memory.is_dir() { builder.tempdir_in(memory)? } else { builder.tempdir()? };
        let files = Self { root };
        for host in 0..plan.hosts {
            for folder in ["exports", "here", "state"] {
                fs::create_dir_all(files.host(host).join(folder))?;
            }
        }
        let jobs = plan.jobs.iter().enumerate().map(|(number, job)| files.prepare(plan.seed, number, job));
        let jobs = jobs.collect::<io::Result<_>>()?;
        Ok((files, jobs))
    }

    fn host(&self, host: usize) -> PathBuf {
        self.root.path().join(format!("host{host}"))
    }

    fn source_folder(&self, number: usize, job: &JobPlan) -> PathBuf {
        if job.pull {
            self.host(job.responder).join("exports").join(format!("source{number}"))
        } else {
            self.host(job.requester).join("here").join(format!("source{number}"))
        }
    }

    fn target_folder(&self, number: usize, job: &JobPlan) -> PathBuf {
        if job.pull {
            self.host(job.requester).join("here").join(format!("target{number}"))
        } else {
            self.host(job.responder).join("exports").join(format!("target{number}"))
        }
    }

    fn prepare(&self, seed: u64, number: usize, job: &JobPlan) -> io::Result<ExpectedJob> {
        let source = self.source_folder(number, job);
        let folder = self.target_folder(number, job);
        fs::create_dir_all(&source)?;
        fs::create_dir_all(&folder)?;
        let mut files = Vec::new();
        for (index, size) in job.sizes.iter().enumerate() {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&seed.to_le_bytes());
            key[8..16].copy_from_slice(&(number as u64).to_le_bytes());
            key[16..24].copy_from_slice(&(index as u64).to_le_bytes());
            let mut bytes = vec![0; usize::try_from(*size).expect("a few MiB")];
            SeededRandom::new(&key).fill(&mut bytes);
            let name = file_name(index);
            fs::write(source.join(&name), &bytes)?;
            let target = if job.recursive {
                folder.join(format!("source{number}")).join(name)
            } else {
                folder.join(name)
            };
            files.push(ExpectedFile { path: target, bytes: bytes.into() });
        }
        Ok(ExpectedJob { folder, files })
    }

    /// What the requester of a job asks for.
    ///
    /// # Panics
    /// If a name of the simulator's own is no name.
    #[must_use]
    pub fn job(&self, number: usize, job: &JobPlan) -> Job {
        let mut options = JobOptions::MUST_BE_DIRECTORY;
        options.set(JobOptions::RECURSIVE, job.recursive);
        let peer = host_name(job.responder);
        let relative = |text: String| RelativePath::from_joined(text.as_bytes()).expect("a plain name");
        if job.pull {
            let sources = if job.recursive {
                vec![relative(format!("source{number}"))]
            } else {
                let names = (0..job.sizes.len()).map(|index| format!("source{number}/{}", file_name(index)));
                names.map(relative).collect()
            };
            let target = Target::Local(bytes_of(&self.target_folder(number, job)));
            return Job::Pull { peer, export: EXPORT.to_vec(), sources, target, options };
        }
        let folder = self.source_folder(number, job);
        let sources = if job.recursive {
            vec![bytes_of(&folder)]
        } else {
            (0..job.sizes.len()).map(|index| bytes_of(&folder.join(file_name(index)))).collect()
        };
        Job::Push {
            peer,
            origin: SourceOrigin::Local(sources),
            export: EXPORT.to_vec(),
            destination: relative(format!("target{number}")),
            options,
        }
    }

    /// The exports of a host, for a serving process that starts.
    ///
    /// # Errors
    /// If they cannot be opened.
    pub fn serving(&self, host: usize) -> io::Result<Arc<ServingFiles>> {
        let folder = self.host(host);
        let export = Export::open(EXPORT, &folder.join("exports"), true)?;
        Ok(Arc::new(ServingFiles::new(vec![export], &folder.join("state").join("serve"))?))
    }

    /// The user's files of a host, for one run of a command.
    #[must_use]
    pub fn command(&self, host: usize, pool: &BufferPool, segment_bytes: usize) -> LocalFiles {
        LocalFiles::command(pool.clone(), segment_bytes, &self.host(host).join("state").join("command"))
    }
}

/// Name of a host.
#[must_use]
pub fn host_name(host: usize) -> String {
    format!("host{host}")
}

fn file_name(index: usize) -> String {
    format!("file{index}")
}

fn bytes_of(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}
