//! A regular file or a block node through a few threads that block: for kernels without io_uring.
//!
//! Keeps true: one hung request takes one thread of this device, and only of this one; the event descriptor is readable
//! whenever the result of a thread waits; dropping the device waits for nobody. Not here: the threads (`workers`).

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use super::file::OpenFile;
use super::in_flight::InFlight;
use super::workers::Workers;
use crate::block::buffer::BufferPool;
use crate::block::request::{Cancelled, IoCompletion, IoRequest, IoTag, Refused};
use crate::block::time::Instant;
use crate::block::{BlockDevice, DeviceEvent, Geometry};

/// A file or block node whose I/O is done by a small pool of threads.
#[derive(Debug)]
pub struct ThreadedDevice {
    file: Arc<OpenFile>,
    requests: InFlight<()>,
    workers: Workers,
}

impl ThreadedDevice {
    /// Starts the first thread of an open file. Threads end when the device is dropped and their I/O is done.
    ///
    /// # Errors
    /// Where the system gives no thread or no descriptor.
    pub fn new(file: OpenFile) -> io::Result<Self> {
        let file = Arc::new(file);
        let mut workers = Workers::new(Arc::clone(&file))?;
        workers.start_thread()?;
        let requests = InFlight::new(file.geometry().queue_depth);
        Ok(Self { file, requests, workers })
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
        self.workers.give(index, request);
        Ok(())
    }

    fn poll(&mut self, _now: Instant) -> Option<IoCompletion> {
        let (index, completion) = self.workers.take()?;
        self.requests.remove(index).expect("a request completes once");
        Some(completion)
    }

    fn poll_event(&mut self, _now: Instant) -> Option<DeviceEvent> {
        None
    }

    fn next_wakeup(&self) -> Option<Instant> {
        // What was done at once can be taken, whatever the time is.
        self.workers.has_done_at_once().then_some(Instant::ZERO)
    }

    fn cancel(&mut self, _now: Instant, tag: IoTag) -> Cancelled {
        // A thread may have it already, and it completes in any case.
        if self.requests.find(tag).is_some() { Cancelled::Requested } else { Cancelled::NotHere }
    }

    fn attach_pool(&mut self, _pool: &BufferPool) {}

    fn wait_on(&self, descriptors: &mut Vec<RawFd>) {
        descriptors.push(self.workers.descriptor());
    }
}
