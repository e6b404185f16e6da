//! Workers for what would hold the event loop up: sealing and hashing by one crew, files by another.
//!
//! Two crews, so that a file system that hangs in fsync does not keep segments from being sealed. Results
//! come back over one hand-off, which wakes the loop. Small work is done at once by the caller, since a
//! hop costs more than the work.

use std::os::fd::RawFd;

use storage_mapping::hand_off::crew::Crew;
use storage_mapping::hand_off::{Taker, results};

/// Threads for files: they mostly wait.
const FILE_THREADS: usize = 4;

/// Which crew a piece of work goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Computation.
    Compute,
    /// The file system.
    Files,
}

/// A piece of work, for one thread or another.
type Job<R> = Box<dyn FnOnce() -> R + Send>;

/// The workers of one loop; `R` is what comes back.
pub struct WorkPool<R> {
    compute: Crew<Job<R>, R>,
    files: Crew<Job<R>, R>,
    results: Taker<R>,
    pending: usize,
}

impl<R> std::fmt::Debug for WorkPool<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WorkPool({} pending)", self.pending)
    }
}

impl<R: Send + 'static> WorkPool<R> {
    /// Starts a thread of each crew. There will be as many for computation as there are processors, and four
    /// for files.
    ///
    /// # Errors
    /// If threads or an eventfd cannot be had.
    pub fn new() -> std::io::Result<Self> {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        let (finished, results) = results()?;
        let crew =
            |name, threads| Crew::new(name, threads, finished.clone(), |job: Job<R>| job()).with_patience();
        let (mut compute, mut files) = (crew("seal", processors), crew("file", FILE_THREADS));
        compute.start_thread()?;
        files.start_thread()?;
        Ok(Self { compute, files, results, pending: 0 })
    }

    /// Hands out a piece of work.
    pub fn spawn(&mut self, lane: Lane, work: impl FnOnce() -> R + Send + 'static) {
        let crew = match lane {
            Lane::Compute => &mut self.compute,
            Lane::Files => &mut self.files,
        };
        self.pending += 1;
        assert!(crew.give(Box::new(work)).is_ok(), "each crew has a thread");
    }

    /// The next result. Only after `None` may one wait for the descriptor.
    pub fn poll(&mut self) -> Option<R> {
        let result = self.results.take()?;
        self.pending -= 1;
        Some(result)
    }

    /// The descriptor that becomes readable with a result.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.results.descriptor()
    }

    /// Work that has not come back.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending
    }
}
