//! Threads of one device that may block, for what would block whoever submits it.
//!
//! The kernel has workers for that too, but all rings of one thread share them: a few flushes that hang on one path
//! would hold up those of every other path. These threads are one device's own.
//!
//! Keeps true: a request moves to a thread and back, so a thread that hangs keeps the buffer it hangs with; a thread
//! starts when there is work for it, and there are [`THREADS_MAX`] at most; whoever gives work never waits for a device, and
//! dropping waits for nobody. What is less work than the way to a thread and back is done by whoever gives it: a few
//! blocks of a file in memory. Not here: which requests come here.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::libc;

use super::file::OpenFile;
use super::outcome::{byte_count, settle};
use crate::block::address::{BlockSize, Lba};
use crate::block::request::{IoCompletion, IoRequest, Operation};
use crate::hand_off::crew::Crew;
use crate::hand_off::{Giver, Taker, results};

/// Threads of one device: enough to keep a disk busy, few enough for many paths.
const THREADS_MAX: usize = 8;
/// Of a file in memory: its I/O is copying, and of several writers the kernel lets in one and lets the others spin.
const THREADS_IN_MEMORY: usize = 1;
/// So much is copied in the time that it takes to wake a thread and be woken by it.
const AT_ONCE_BYTES: usize = 16 << 10;

/// Calls of all threads that are in the kernel.
static AT_WORK: AtomicUsize = AtomicUsize::new(0);

/// Reads, writes and flushes of this process that are in the kernel on threads of devices. One that hangs there holds up the
/// end of the process: the kernel gives no choice.
#[must_use]
pub fn calls_at_work() -> usize {
    AT_WORK.load(Ordering::Relaxed)
}

/// A request on its way to a thread, with its place in the table of its device.
#[derive(Debug)]
struct Job {
    index: usize,
    request: IoRequest,
}

/// The threads of one device.
#[derive(Debug)]
pub(super) struct Workers {
    file: Arc<OpenFile>,
    is_in_memory: bool,
    /// What needed no thread.
    done_at_once: VecDeque<(usize, IoCompletion)>,
    crew: Crew<Job, (usize, IoCompletion)>,
    finished: Giver<(usize, IoCompletion)>,
    results: Taker<(usize, IoCompletion)>,
}

impl Workers {
    /// No thread yet.
    ///
    /// # Errors
    /// Where the system gives no descriptor.
    pub(super) fn new(file: Arc<OpenFile>) -> io::Result<Self> {
        let (finished, results) = results()?;
        let is_in_memory = file.is_in_memory();
        let threads_max = if is_in_memory { THREADS_IN_MEMORY } else { THREADS_MAX };
        let opened = Arc::clone(&file);
        let crew = Crew::new("block-io", threads_max, finished.clone(), move |job| carry_out(&opened, job));
        // Of a file in memory they copy what is large.
        let crew = if is_in_memory { crew.with_patience() } else { crew };
        Ok(Self { file, is_in_memory, done_at_once: VecDeque::new(), crew, finished, results })
    }

    /// One thread more.
    ///
    /// # Errors
    /// Where the system gives none.
    pub(super) fn start_thread(&mut self) -> io::Result<()> {
        self.crew.start_thread()
    }

    /// Gives a request to a thread, or does it; it comes back by [`Workers::take`], with its index.
    pub(super) fn give(&mut self, index: usize, request: IoRequest) {
        if self.is_in_memory && byte_count(&request.operation) <= AT_ONCE_BYTES {
            self.done_at_once.push_back(carry_out(&self.file, Job { index, request }));
            return;
        }
        if let Err((Job { index, request }, error)) = self.crew.give(Job { index, request }) {
            let code = error.raw_os_error().unwrap_or(libc::EAGAIN);
            self.finished.give((index, settle(request, Err(code))));
        }
    }

    /// A request that is over; `None` clears the bell.
    pub(super) fn take(&mut self) -> Option<(usize, IoCompletion)> {
        self.done_at_once.pop_front().or_else(|| self.results.take())
    }

    /// Whether [`Workers::take`] has something that made nothing readable.
    pub(super) fn has_done_at_once(&self) -> bool {
        !self.done_at_once.is_empty()
    }

    /// Readable when something came back after the last `None`.
    pub(super) fn descriptor(&self) -> RawFd {
        self.results.descriptor()
    }

    /// The same for a ring, which makes it readable, too; a `None` clears it in any case.
    pub(super) fn lend_descriptor(&mut self) -> RawFd {
        self.results.lend_bell()
    }
}

/// Does a job, and says how it went.
fn carry_out(file: &OpenFile, job: Job) -> (usize, IoCompletion) {
    let Job { index, mut request } = job;
    AT_WORK.fetch_add(1, Ordering::Relaxed);
    let result = execute(file, &mut request.operation);
    AT_WORK.fetch_sub(1, Ordering::Relaxed);
    let result = result.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO));
    (index, settle(request, result))
}

fn execute(file: &OpenFile, operation: &mut Operation) -> io::Result<usize> {
    let block_size = file.geometry().block_size;
    let file = file.file();
    match operation {
        Operation::Read { lba, buffer } => file.read_at(buffer, byte_offset(*lba, block_size)),
        Operation::Write { lba, data, fua } => {
            let done = file.write_at(data, byte_offset(*lba, block_size))?;
            if *fua {
                file.sync_data()?;
            }
            Ok(done)
        }
        Operation::Flush => file.sync_data().map(|()| 0),
    }
}

fn byte_offset(lba: Lba, block_size: BlockSize) -> u64 {
    lba.byte_offset(block_size).expect("checked at submit")
}
