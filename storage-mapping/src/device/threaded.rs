//! A regular file or a block node through a few threads that block: for kernels without io_uring.
//!
//! Keeps true: a request moves into a job and back, so a thread that hangs keeps the buffer it hangs
//! with; the event descriptor is readable whenever a result waits; dropping the device waits for
//! nobody. Not here: anything that depends on how many threads there are. One hung request takes one
//! thread of this device, and only of this one.

use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::{io, thread};

use nix::libc;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::file::OpenFile;
use super::in_flight::InFlight;
use super::outcome::settle;
use crate::block::address::{BlockSize, Lba};
use crate::block::buffer::BufferPool;
use crate::block::request::{Cancelled, IoCompletion, IoRequest, IoTag, Operation, Refused};
use crate::block::time::Instant;
use crate::block::{BlockDevice, DeviceEvent, Geometry};

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
    event: Arc<EventFd>,
    requests: InFlight<()>,
    jobs: Sender<Job>,
    results: Receiver<(usize, IoCompletion)>,
}

impl ThreadedDevice {
    /// Starts the threads of an open file. They end when the device is dropped and their I/O is done.
    ///
    /// # Errors
    /// Where the system gives no thread or no descriptor.
    pub fn new(file: OpenFile) -> io::Result<Self> {
        let file = Arc::new(file);
        let event = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let (jobs, waiting) = channel();
        let (finished, results) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..THREAD_COUNT {
            let worker = Worker {
                file: Arc::clone(&file),
                event: Arc::clone(&event),
                waiting: Arc::clone(&waiting),
                finished: finished.clone(),
            };
            thread::Builder::new().name("block-io".to_owned()).spawn(move || worker.run())?;
        }
        let requests = InFlight::new(file.geometry().queue_depth);
        Ok(Self { file, event, requests, jobs, results })
    }

    /// What the device has to do without, in one line; `None` when I/O is direct.
    #[must_use]
    pub fn notice(&self) -> Option<&str> {
        self.file.notice()
    }

    fn reap(&mut self) -> Option<IoCompletion> {
        let (index, completion) = self.results.try_recv().ok()?;
        self.requests.remove(index).expect("a request completes once");
        Some(completion)
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
        self.jobs.send(Job { index, request }).expect("the threads live as long as this sender");
        Ok(())
    }

    fn poll(&mut self, _now: Instant) -> Option<IoCompletion> {
        if let Some(completion) = self.reap() {
            return Some(completion);
        }
        // Drained only when nothing is left, then looked at once more.
        match self.event.read() {
            Ok(_) => self.reap(),
            Err(_) => None,
        }
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
        descriptors.push(self.event.as_raw_fd());
    }
}

/// One thread of the pool.
struct Worker {
    file: Arc<OpenFile>,
    event: Arc<EventFd>,
    waiting: Arc<Mutex<Receiver<Job>>>,
    finished: Sender<(usize, IoCompletion)>,
}

impl Worker {
    /// Works until the device is gone.
    fn run(self) {
        let next = || self.waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        while let Ok(Job { index, mut request }) = next() {
            let result = self.execute(&mut request.operation);
            let result = result.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO));
            if self.finished.send((index, settle(request, result))).is_err() {
                return;
            }
            // Fails only when the counter is full, and then the descriptor is readable anyway.
            let _ = self.event.write(1);
        }
    }

    fn execute(&self, operation: &mut Operation) -> io::Result<usize> {
        let block_size = self.file.geometry().block_size;
        let file = self.file.file();
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
}

fn byte_offset(lba: Lba, block_size: BlockSize) -> u64 {
    lba.byte_offset(block_size).expect("checked at submit")
}
