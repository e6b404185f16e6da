//! A regular file or a block node through io_uring.
//!
//! Keeps true:
//!
//! * `submit` makes no system call; the first `poll` after it hands everything over in one;
//! * the buffers of what the kernel has are owned here until it gives them back, and are leaked on
//!   purpose if the device is dropped before: the kernel may still write to them;
//! * the event descriptor, which ring and workers share, is readable whenever a completion waits that `poll` has not
//!   seen;
//! * nothing of this device runs on the kernel's own workers, which all rings of one thread share: a path that hangs would
//!   hold up every other one. What would have to wait goes to threads of this device (`workers`).
//!
//! Where a request is:
//!
//! ```text
//! submit ─▶ pending ─(poll: push)─▶ queued in the ring ─(poll: enter)─▶ with the kernel ─▶ completion
//!              └─ cancel: withdrawn                           it would have to wait ─┐          ▲
//!                            flushes, and all where the file cannot say so ──────────┴─▶ worker ┘
//! ```
//!
//! Source: `io_uring_enter(2)` and `preadv2(2)`, RWF_NOWAIT. Not here: deadlines, retries.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use io_uring::{IoUring, opcode, squeue, types};
use nix::libc;

use super::file::OpenFile;
use super::in_flight::InFlight;
use super::outcome::{byte_count, settle};
use super::workers::Workers;
use crate::block::address::Lba;
use crate::block::buffer::BufferPool;
use crate::block::request::{
    Cancelled, CopyFate, Effect, IoCompletion, IoError, IoRequest, IoTag, Operation, RefusalReason, Refused,
};
use crate::block::time::Instant;
use crate::block::{BlockDevice, DeviceEvent, Geometry};

/// Of the polls of a device that has nothing, one in so many clears the descriptor.
const CLEARS_EVERY: u32 = 16;

/// A file or block node whose I/O goes through a ring of its own.
pub struct UringDevice {
    ring: IoUring,
    file: Arc<OpenFile>,
    /// `None` where a worker has it.
    requests: InFlight<Option<IoRequest>>,
    workers: Workers,
    /// The ring can say that a request would have to wait; where it cannot, workers do everything.
    has_nowait: bool,
    /// Accepted, not yet in the ring.
    pending: VecDeque<usize>,
    /// In the ring, not yet taken by the kernel.
    queued: VecDeque<usize>,
    /// Polls since it had a request.
    idle_polls: u32,
    /// The ring refused to work for good, with this errno.
    broken: Option<i32>,
}

impl UringDevice {
    /// Makes a ring for an open file.
    ///
    /// # Errors
    /// Where the kernel has no io_uring or does not allow it; the file comes back.
    pub fn new(file: OpenFile) -> Result<Self, (OpenFile, io::Error)> {
        let depth = file.geometry().queue_depth;
        let file = Arc::new(file);
        let set_up = || -> io::Result<(IoUring, Workers)> {
            let entries = u32::try_from(depth).expect("a queue depth is small").next_power_of_two();
            let ring = IoUring::new(entries)?;
            let mut workers = Workers::new(Arc::clone(&file))?;
            if file.has_nowait() {
                ring.submitter().register_eventfd(workers.lend_descriptor())?;
            }
            Ok((ring, workers))
        };
        match set_up() {
            Ok((ring, workers)) => Ok(Self {
                ring,
                has_nowait: file.has_nowait(),
                file,
                requests: InFlight::new(depth),
                workers,
                pending: VecDeque::with_capacity(depth),
                queued: VecDeque::with_capacity(depth),
                idle_polls: 0,
                broken: None,
            }),
            Err(error) => Err((Arc::into_inner(file).expect("nobody else has it"), error)),
        }
    }

    /// What the device has to do without, in one line; `None` when I/O is direct.
    #[must_use]
    pub fn notice(&self) -> Option<&str> {
        self.file.notice()
    }

    /// Builds the ring's entry for a request of the table, if it is one for the ring.
    fn entry_for(&mut self, index: usize) -> Option<squeue::Entry> {
        if !self.has_nowait {
            return None;
        }
        let fd = types::Fd(self.file.descriptor());
        let block_size = self.file.geometry().block_size;
        let offset = |lba: Lba| lba.byte_offset(block_size).expect("checked at submit");
        let length = |bytes: usize| u32::try_from(bytes).expect("below the transfer limit");
        let request = self.requests.entry(index).and_then(Option::as_mut)?;
        let entry = match &mut request.operation {
            Operation::Read { lba, buffer } => {
                let bytes = length(buffer.len());
                opcode::Read::new(fd, buffer.as_mut_ptr(), bytes)
                    .offset(offset(*lba))
                    .rw_flags(libc::RWF_NOWAIT)
                    .build()
            }
            Operation::Write { lba, data, fua } => {
                let flags = if *fua { libc::RWF_DSYNC } else { 0 };
                opcode::Write::new(fd, data.as_ptr(), length(data.len()))
                    .offset(offset(*lba))
                    .rw_flags(flags | libc::RWF_NOWAIT)
                    .build()
            }
            // The kernel always does it on a worker of its own.
            Operation::Flush => return None,
        };
        Some(entry.user_data(index as u64))
    }

    /// Gives a request of the table to a worker.
    fn give_to_worker(&mut self, index: usize) {
        let request = self.requests.entry(index).and_then(Option::take);
        self.workers.give(index, request.expect("a request is at one place at a time"));
    }

    /// Moves what is pending into the ring and gives it to the kernel, in one system call.
    fn hand_over(&mut self) {
        while let Some(index) = self.pending.pop_front() {
            let Some(entry) = self.entry_for(index) else {
                self.give_to_worker(index);
                continue;
            };
            #[expect(unsafe_code, reason = "the ring cannot know how long the memory lives")]
            // SAFETY: the buffer belongs to the request, which stays in the table until its
            // completion came, and is leaked if the device is dropped before.
            let pushed = unsafe { self.ring.submission().push(&entry) };
            pushed.expect("the ring has a place for each place of the table");
            self.queued.push_back(index);
        }
        if self.queued.is_empty() {
            return;
        }
        match self.ring.submit() {
            Ok(taken) => drop(self.queued.drain(..taken.min(self.queued.len()))),
            Err(error) => match error.raw_os_error() {
                // Too much at once: the next `poll` tries again.
                Some(libc::EAGAIN | libc::EBUSY | libc::EINTR) => {}
                code => self.broken = Some(code.unwrap_or(libc::EIO)),
            },
        }
    }

    /// A completion from the ring's queue; on the way, what must wait goes to workers.
    fn reap(&mut self) -> Option<IoCompletion> {
        loop {
            let entry = self.ring.completion().next()?;
            let index = usize::try_from(entry.user_data()).expect("user data is an index of the table");
            let request = self.requests.get(index).and_then(Option::as_ref);
            let expected = byte_count(&request.expect("a request completes once").operation);
            match usize::try_from(entry.result()) {
                Err(_) if -entry.result() == libc::EAGAIN => self.give_to_worker(index),
                Err(_) if -entry.result() == libc::EOPNOTSUPP => {
                    self.has_nowait = false;
                    self.give_to_worker(index);
                }
                // As much as could be done without waiting. A write of the same bytes once more changes nothing.
                Ok(done) if done < expected => self.give_to_worker(index),
                result => {
                    let request = self.requests.remove(index).flatten().expect("it was there just now");
                    return Some(settle(request, result.map_err(|_| -entry.result())));
                }
            }
        }
    }

    /// Whether it has nothing and its descriptor was cleared since it had: a system call would tell nothing. One poll in
    /// [`CLEARS_EVERY`] makes it all the same, since the kernel may ring a little after its completion was seen.
    fn is_at_rest(&mut self) -> bool {
        if self.requests.len() > 0 {
            self.idle_polls = 0;
            return false;
        }
        self.idle_polls = self.idle_polls.wrapping_add(1);
        self.idle_polls % CLEARS_EVERY != 1
    }

    /// What a broken ring never gave to the kernel, as failed.
    fn fail_one_queued(&mut self, code: i32) -> Option<IoCompletion> {
        let index = self.queued.pop_front().or_else(|| self.pending.pop_front())?;
        let request = self.requests.remove(index).flatten().expect("queued requests are in the table");
        Some(request.complete(Err(IoError::errno(code)), Effect::None, CopyFate::Dead))
    }
}

impl BlockDevice for UringDevice {
    fn geometry(&self) -> Geometry {
        self.file.geometry()
    }

    fn submit(&mut self, _now: Instant, request: IoRequest) -> Result<(), Refused> {
        if self.broken.is_some() {
            return Err(Refused { reason: RefusalReason::Closed, request });
        }
        if let Some(reason) = self.requests.refusal(&self.file.geometry(), &request) {
            return Err(Refused { reason, request });
        }
        let index = self.requests.insert(request.tag, Some(request));
        self.pending.push_back(index);
        Ok(())
    }

    fn poll(&mut self, _now: Instant) -> Option<IoCompletion> {
        if self.is_at_rest() {
            return None;
        }
        let has_work = !(self.pending.is_empty() && self.queued.is_empty());
        if has_work && self.broken.is_none() {
            self.hand_over();
        }
        if let Some(done) = self.reap() {
            return Some(done);
        }
        if let Some(code) = self.broken
            && let Some(failed) = self.fail_one_queued(code)
        {
            return Some(failed);
        }
        // The descriptor is cleared only when no worker has anything, and the ring is looked at once more after that:
        // what comes later makes it readable again.
        match self.workers.take() {
            Some((index, completion)) => {
                self.requests.remove(index);
                Some(completion)
            }
            None => self.reap(),
        }
    }

    fn poll_event(&mut self, _now: Instant) -> Option<DeviceEvent> {
        None
    }

    fn next_wakeup(&self) -> Option<Instant> {
        // What was not handed over can be, and what was done at once be taken, whatever the time is.
        let is_due = !(self.pending.is_empty() && self.queued.is_empty()) || self.workers.has_done_at_once();
        is_due.then_some(Instant::ZERO)
    }

    fn cancel(&mut self, _now: Instant, tag: IoTag) -> Cancelled {
        let Some(index) = self.requests.find(tag) else { return Cancelled::NotHere };
        let Some(place) = self.pending.iter().position(|pending| *pending == index) else {
            return Cancelled::Requested;
        };
        self.pending.remove(place);
        self.requests.remove(index).flatten().map_or(Cancelled::NotHere, Cancelled::Withdrawn)
    }

    fn attach_pool(&mut self, _pool: &BufferPool) {}

    fn wait_on(&self, descriptors: &mut Vec<RawFd>) {
        descriptors.push(self.workers.descriptor());
    }
}

impl Drop for UringDevice {
    fn drop(&mut self) {
        for index in self.pending.drain(..) {
            drop(self.requests.remove(index));
        }
        self.requests.leak();
    }
}

impl std::fmt::Debug for UringDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UringDevice({} in flight on {:?})", self.requests.len(), self.file)
    }
}
