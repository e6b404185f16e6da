//! A regular file or a block node through a few threads that block: for kernels without io_uring.
//!
//! Keeps true: a request moves into a job and back, so a thread that hangs keeps the buffer it hangs
//! with; the event descriptor is readable whenever a result waits; dropping the device waits for
//! nobody. Not here: anything that depends on how many threads there are. One hung request takes one
//! thread of this device, and only of this one.

use std::os::fd::RawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::{io, thread};

use nix::libc;

use super::file::OpenFile;
use super::in_flight::InFlight;
use super::outcome::settle;
use crate::block::address::{BlockSize, Lba};
use crate::block::buffer::BufferPool;
use crate::block::request::{Cancelled, IoCompletion, IoRequest, IoTag, Operation, Refused};
use crate::block::time::Instant;
use crate::block::{BlockDevice, DeviceEvent, Geometry};
use crate::hand_off::{JobGiver, Taker, jobs, results};

/// Threads of one device: enough to keep a disk busy, few enough for many paths.
const THREAD_COUNT: usize = 8;

/// A request on its way to a thread or back, with its place in the table.
struct Job {
    index: usize,
    request: IoRequest,
}

/// A file or block node whose I/O is done by a small pool of threads.
#[derive(Debug)]
pub struct ThreadedDevice {
    file: Arc<OpenFile>,
    requests: InFlight<()>,
    jobs: JobGiver<Job>,
    results: Taker<(usize, IoCompletion)>,
}

impl ThreadedDevice {
    /// Starts the threads of an open file. They end when the device is dropped and their I/O is done.
    ///
    /// # Errors
    /// Where the system gives no thread or no descriptor.
    pub fn new(file: OpenFile) -> io::Result<Self> {
        let file = Arc::new(file);
        let (jobs, waiting) = jobs();
        let (finished, results) = results()?;
        for _ in 0..THREAD_COUNT {
            let (file, waiting, finished) = (Arc::clone(&file), waiting.clone(), finished.clone());
            let worker = move || waiting.work(&finished, |job| carry_out(&file, job));
            thread::Builder::new().name("block-io".to_owned()).spawn(worker)?;
        }
        let requests = InFlight::new(file.geometry().queue_depth);
        Ok(Self { file, requests, jobs, results })
    }

    /// What the device has to do without, in one line; `None` when I/O is direct.
    #[must_use]
    pub fn notice(&self) -> Option<&str> {
        self.file.notice()
    }
}

impl BlockDevice for ThreadedDevice {
    fn geometry(&self) -> Geometry {
        self.file.geometry()
    }

    fn submit(&mut self, _now: Instant, request: IoRequest) -> Result<(), Refused> {
        if let Some(reason) = self.requests.refusal(&self.file.geometry(), &request) {
            return Err(Refused { reason, request });
        }
        let index = self.requests.insert(request.tag, ());
        assert!(self.jobs.give(Job { index, request }), "the threads live as long as this device");
        Ok(())
    }

    fn poll(&mut self, _now: Instant) -> Option<IoCompletion> {
        let (index, completion) = self.results.take()?;
        self.requests.remove(index).expect("a request completes once");
        Some(completion)
    }

    fn poll_event(&mut self, _now: Instant) -> Option<DeviceEvent> {
        None
    }

    fn next_wakeup(&self) -> Option<Instant> {
        None
    }

    fn cancel(&mut self, _now: Instant, tag: IoTag) -> Cancelled {
        // A thread may have it already, and it completes in any case.
        if self.requests.find(tag).is_some() { Cancelled::Requested } else { Cancelled::NotHere }
    }

    fn attach_pool(&mut self, _pool: &BufferPool) {}

    fn wait_on(&self, descriptors: &mut Vec<RawFd>) {
        descriptors.push(self.results.descriptor());
    }
}

/// Does a job, and says how it went.
fn carry_out(file: &OpenFile, job: Job) -> (usize, IoCompletion) {
    let Job { index, mut request } = job;
    let result = execute(file, &mut request.operation);
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
