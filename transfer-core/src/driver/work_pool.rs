//! Workers for what would hold the event loop up: sealing and hashing on one pool, files on another.
//!
//! Two pools, so that a file system that hangs in fsync does not keep segments from being sealed. Results
//! come back over one channel; an eventfd wakes the loop. Small work is done at once by the caller, since a
//! hop costs more than the work.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use nix::sys::eventfd::{EfdFlags, EventFd};
use rayon::{ThreadPool, ThreadPoolBuilder};

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
    sender: Sender<R>,
    results: Receiver<R>,
    wake: Arc<EventFd>,
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
        let (sender, results) = channel();
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self {
            compute: pool("seal", processors)?,
            files: pool("file", FILE_THREADS)?,
            sender,
            results,
            wake: Arc::new(wake),
            pending: 0,
        })
    }

    /// Hands out a piece of work.
    pub fn spawn(&mut self, lane: Lane, work: impl FnOnce() -> R + Send + 'static) {
        let sender = self.sender.clone();
        let wake = Arc::clone(&self.wake);
        let pool = match lane {
            Lane::Compute => &self.compute,
            Lane::Files => &self.files,
        };
        self.pending += 1;
        pool.spawn(move || {
            // The loop may be gone at the end of the program: nobody waits for the result then.
            if sender.send(work()).is_ok() {
                let _ = wake.write(1);
            }
        });
    }

    /// The next result.
    pub fn poll(&mut self) -> Option<R> {
        let result = self.results.try_recv().ok()?;
        self.pending -= 1;
        Some(result)
    }

    /// Clears the wake-up: to be called before [`poll`](Self::poll) is called until `None`.
    pub fn clear_wake(&self) {
        // Empty (EAGAIN) is what we want it to be.
        let _ = self.wake.read();
    }

    /// The descriptor that becomes readable with a result.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.wake.as_raw_fd()
    }

    /// Work that has not come back.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending
    }
}
