//! Workers for what would hold the event loop up: sealing and hashing on one pool, files on another.
//!
//! Two pools, so that a file system that hangs in fsync does not keep segments from being sealed. Results
//! come back over one hand-off, which wakes the loop. Small work is done at once by the caller, since a
//! hop costs more than the work.

use std::os::fd::RawFd;

use rayon::{ThreadPool, ThreadPoolBuilder};
use storage_mapping::hand_off::{Giver, Taker, results};

/// Threads for files: they mostly wait.
const FILE_THREADS: usize = 4;

/// Which pool a piece of work goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Computation.
    Compute,
    /// The file system.
    Files,
}

/// The workers of one loop; `R` is what comes back.
pub struct WorkPool<R> {
    compute: ThreadPool,
    files: ThreadPool,
    finished: Giver<R>,
    results: Taker<R>,
    pending: usize,
}

impl<R> std::fmt::Debug for WorkPool<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WorkPool({} pending)", self.pending)
    }
}

impl<R: Send + 'static> WorkPool<R> {
    /// Starts the threads: as many as there are processors for computation, four for files.
    ///
    /// # Errors
    /// If threads or an eventfd cannot be had.
    pub fn new() -> std::io::Result<Self> {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        let pool = |name: &'static str, threads: usize| {
            ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(move |index| format!("{name}-{index}"))
                .build()
                .map_err(std::io::Error::other)
        };
        let (finished, results) = results()?;
        Ok(Self {
            compute: pool("seal", processors)?,
            files: pool("file", FILE_THREADS)?,
            finished,
            results,
            pending: 0,
        })
    }

    /// Hands out a piece of work.
    pub fn spawn(&mut self, lane: Lane, work: impl FnOnce() -> R + Send + 'static) {
        let finished = self.finished.clone();
        let pool = match lane {
            Lane::Compute => &self.compute,
            Lane::Files => &self.files,
        };
        self.pending += 1;
        pool.spawn(move || {
            // The loop may be gone at the end of the program: nobody waits for the result then.
            let _ = finished.give(work());
        });
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
