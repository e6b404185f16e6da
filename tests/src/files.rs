//! The local files of all hosts, and what they should contain.
//!
//! ```text
//! of each host:  /exports/     the export "box": what others fetch, and where they bring files to
//!                /here/        the user's own: what is brought, and where fetched files go
//!                /state/       records of jobs, journals
//! ```
//!
//! A killed process leaves them as they are; a host that loses its power loses what was not synced. Not
//! here: what that is (`file_system`), when it happens (`world`).

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use storage_mapping::{BufferPool, Instant};
use transfer_core::export::Export;
use transfer_core::file_system::{FileSystem, make_directories};
use transfer_core::random::{Random, SeededRandom};
use transfer_core::transfer::message::JobOptions;
use transfer_core::transfer::{Job, LocalFiles, RelativePath, ServingFiles, SourceOrigin, Target};

use crate::chance::Chance;
use crate::file_system::{FoundFile, SimulatedFiles};
use crate::plan::{JobPlan, Plan};

/// Name of the export of every host.
const EXPORT: &[u8] = b"box";

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
    /// The host that receives.
    pub host: usize,
    /// Its file system.
    pub files_there: SimulatedFiles,
    /// The folder that receives.
    pub folder: PathBuf,
    /// The files; none where a stream is fetched.
    pub files: Vec<ExpectedFile>,
    /// The requester has no memory of it, so that it comes once more whenever it is asked for again.
    pub is_stream: bool,
    /// Where a stream is fetched to.
    pub output: Option<Output>,
}

/// Standard output of a command that fetches a stream. What has come must be how the stream begins; a command
/// that is run again begins anew. A clone is the same output.
#[derive(Clone, Debug)]
pub struct Output {
    /// What is sent.
    pub expected: Arc<[u8]>,
    /// Bytes that came in this run, and where the first one came that is not what was sent.
    state: Arc<Mutex<(usize, Option<usize>)>>,
}

impl Output {
    /// What nothing has come from yet.
    #[must_use]
    pub fn new(expected: Arc<[u8]>) -> Self {
        Self { expected, state: Arc::default() }
    }

    /// The command runs again: the state of its last run does not matter, unless it was wrong.
    fn restart(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 = 0;
    }

    /// Bytes that came in this run, and where the first wrong one came in any.
    #[must_use]
    pub fn come(&self) -> (usize, Option<usize>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (come, wrong) = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.expected.get(*come..*come + bytes.len()) != Some(bytes) {
            wrong.get_or_insert(*come);
        }
        *come += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The file systems of a run.
#[derive(Debug)]
pub struct Files {
    hosts: Vec<SimulatedFiles>,
    time: Arc<AtomicU64>,
    /// How far the clocks are wrong, in nanoseconds.
    error: u64,
    chance: Chance,
}

impl Files {
    /// Folders for all hosts, and the sources of all jobs.
    ///
    /// # Errors
    /// If they cannot be made.
    pub fn new(plan: &Plan) -> io::Result<(Self, Vec<ExpectedJob>)> {
        // Its own numbers: what the hosts' files need does not change what the rest of the run draws.
        let mut chance = Chance::new(plan.seed.rotate_left(32) ^ 0xf11e_5eed);
        let time = Arc::new(AtomicU64::new(0));
        let host = |device| SimulatedFiles::new(device, chance.fork(), Arc::clone(&time));
        let hosts = (1..=plan.hosts as u64).map(host).collect();
        let files = Self { hosts, time, error: 0, chance };
        for host in &files.hosts {
            for folder in ["/exports", "/here", "/state"] {
                make_directories(host, Path::new(folder))?;
            }
        }
        let jobs = plan.jobs.iter().enumerate().map(|(number, job)| files.prepare(plan.seed, number, job));
        let jobs = jobs.collect::<io::Result<_>>()?;
        for host in &files.hosts {
            host.settle();
            host.ignore_syncs(plan.ignored_syncs);
        }
        if let Some(script) = plan.file_script {
            files.host(script.host).follow(script);
        }
        Ok((files, jobs))
    }

    /// The clocks of all hosts show this time.
    pub fn set_time(&self, now: Instant) {
        self.time.store(now.0 + self.error, Ordering::Relaxed);
    }

    /// The clocks of all hosts jump: they are wrong by `error` from now on.
    pub fn jump(&mut self, error: Duration) {
        self.error = u64::try_from(error.as_nanos()).expect("less than 500 years");
    }

    /// The file system of a host.
    #[must_use]
    pub fn host(&self, host: usize) -> &SimulatedFiles {
        &self.hosts[host]
    }

    /// A host, all of whose processes are gone, loses what it had not synced.
    pub fn lose_power(&mut self, host: usize) {
        self.hosts[host].lose_power(&mut self.chance);
    }

    /// The power of a host will fail in the middle of what it does to its files: after up to `most` changes.
    pub fn fail_power_soon(&mut self, host: usize, most: u64) {
        self.hosts[host].fail_power_after(self.chance.range(1, most));
    }

    fn prepare(&self, seed: u64, number: usize, job: &JobPlan) -> io::Result<ExpectedJob> {
        let (source, folder) = (source_folder(number, job), target_folder(number, job));
        let (sender, receiver) =
            if job.pull { (job.responder, job.requester) } else { (job.requester, job.responder) };
        make_directories(self.host(receiver), &folder)?;
        let mut files = Vec::new();
        for (index, size) in job.sizes.iter().enumerate() {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&seed.to_le_bytes());
            key[8..16].copy_from_slice(&(number as u64).to_le_bytes());
            key[16..24].copy_from_slice(&(index as u64).to_le_bytes());
            let mut bytes = vec![0; usize::try_from(*size).expect("a few MiB")];
            SeededRandom::new(&key).fill(&mut bytes);
            let name = file_name(index);
            self.host(sender).write_file(&source.join(&name), &bytes)?;
            let target = if job.recursive {
                folder.join(format!("source{number}")).join(name)
            } else {
                folder.join(name)
            };
            files.push(ExpectedFile { path: target, bytes: bytes.into() });
        }
        let output = files.pop_if(|_| job.stream && job.pull).map(|file| Output::new(file.bytes));
        let (files_there, is_stream) = (self.host(receiver).clone(), job.stream);
        Ok(ExpectedJob { host: receiver, files_there, folder, files, is_stream, output })
    }

    /// What the requester of a job asks for.
    ///
    /// # Panics
    /// If a name of the simulator's own is no name.
    #[must_use]
    pub fn job(&self, number: usize, job: &JobPlan) -> Job {
        let mut options = JobOptions::empty();
        options.set(JobOptions::MUST_BE_DIRECTORY, !job.stream);
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
            let target = if job.stream {
                Target::Stream
            } else {
                Target::Local(bytes_of(&target_folder(number, job)))
            };
            return Job::Pull { peer, export: EXPORT.to_vec(), sources, target, options };
        }
        if job.stream {
            let destination = relative(format!("target{number}/{}", file_name(0)));
            let origin = SourceOrigin::Stream;
            return Job::Push { peer, origin, export: EXPORT.to_vec(), destination, options };
        }
        let folder = source_folder(number, job);
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
        let files = self.host(host);
        let export = Export::open_on(files, EXPORT, Path::new("/exports"), true)?;
        let files = Arc::new(files.clone());
        Ok(Arc::new(ServingFiles::new_on(files, vec![export], Path::new("/state/serve"))?))
    }

    /// Whether a host's commands remember any job: one that is forgotten leaves an empty record at most.
    #[must_use]
    pub fn has_record(&self, host: usize) -> bool {
        let mut found = Vec::new();
        let looked = self.host(host).collect(Path::new("/state/command/jobs"), "", &mut found);
        let is_journal = |file: &FoundFile| file.path.extension().is_some_and(|end| end == "journal");
        looked.is_ok() && found.iter().any(|file| !is_journal(file) && file.stat.size > 0)
    }

    /// The user's files of a host, for one run of the command of a job.
    ///
    /// # Panics
    /// If a source was lost.
    #[must_use]
    pub fn command(
        &self,
        (number, job): (usize, &JobPlan),
        output: Option<&Output>,
        pool: &BufferPool,
        segment_bytes: usize,
    ) -> LocalFiles {
        let host = self.host(job.requester);
        let files: Arc<dyn FileSystem> = Arc::new(host.clone());
        let command = LocalFiles::command_on(files, pool.clone(), segment_bytes, Path::new("/state/command"));
        if let Some(output) = output {
            output.restart();
            return command.with_output(Box::new(output.clone()));
        }
        if !job.stream {
            return command;
        }
        let source = source_folder(number, job).join(file_name(0));
        let bytes = host.with_content(&source, <[u8]>::to_vec).expect("sources are durable");
        command.with_input(Box::new(io::Cursor::new(bytes)))
    }
}

fn source_folder(number: usize, job: &JobPlan) -> PathBuf {
    let above = if job.pull { "/exports" } else { "/here" };
    Path::new(above).join(format!("source{number}"))
}

fn target_folder(number: usize, job: &JobPlan) -> PathBuf {
    let above = if job.pull { "/here" } else { "/exports" };
    Path::new(above).join(format!("target{number}"))
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
