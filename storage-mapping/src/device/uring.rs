//! A regular file or a block node through io_uring.
//!
//! Keeps true:
//!
//! * `submit` makes no system call; the first `poll` after it hands everything over in one;
//! * the buffers of what the kernel has are owned here until it gives them back, and are leaked on
//!   purpose if the device is dropped before: the kernel may still write to them;
//! * the event descriptor is readable whenever a completion waits that `poll` has not seen.
//!
//! Where a request is:
//!
//! ```text
//! submit ─▶ pending ─(poll: push)─▶ queued in the ring ─(poll: enter)─▶ with the kernel ─▶ completion
//!              └─ cancel: withdrawn
//! ```
//!
//! Not here: deadlines, retries. Flushes run on the kernel's worker threads, which all rings of one
//! thread share.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::{IoUring, opcode, squeue, types};
use nix::libc;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::file::OpenFile;
use super::in_flight::InFlight;
use super::outcome::settle;
use crate::block::address::Lba;
use crate::block::buffer::BufferPool;
use crate::block::request::{
    Cancelled, CopyFate, Effect, IoCompletion, IoError, IoRequest, IoTag, Operation, RefusalReason, Refused,
};
use crate::block::time::Instant;
use crate::block::{BlockDevice, DeviceEvent, Geometry};

/// A file or block node whose I/O goes through a ring of its own.
pub struct UringDevice {
    ring: IoUring,
    file: OpenFile,
    event: EventFd,
    requests: InFlight<IoRequest>,
    /// Accepted, not yet in the ring.
    pending: VecDeque<usize>,
    /// In the ring, not yet taken by the kernel.
    queued: VecDeque<usize>,
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
        let set_up = || -> io::Result<(IoUring, EventFd)> {
            let entries = u32::try_from(depth).expect("a queue depth is small").next_power_of_two();
            let ring = IoUring::new(entries)?;
            let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
            ring.submitter().register_eventfd(event.as_raw_fd())?;
            Ok((ring, event))
        };
        match set_up() {
            Ok((ring, event)) => Ok(Self {
                ring,
                file,
                event,
                requests: InFlight::new(depth),
                pending: VecDeque::with_capacity(depth),
                queued: VecDeque::with_capacity(depth),
                broken: None,
            }),
            Err(error) => Err((file, error)),
        }
    }

    /// What the device has to do without, in one line; `None` when I/O is direct.
    #[must_use]
    pub fn notice(&self) -> Option<&str> {
        self.file.notice()
    }

    /// Builds the ring's entry for a request of the table.
    fn entry_for(&mut self, index: usize) -> squeue::Entry {
        let fd = types::Fd(self.file.descriptor());
        let block_size = self.file.geometry().block_size;
        let offset = |lba: Lba| lba.byte_offset(block_size).expect("checked at submit");
        let length = |bytes: usize| u32::try_from(bytes).expect("below the transfer limit");
        let request = self.requests.entry(index).expect("pending requests are in the table");
        let entry = match &mut request.operation {
            Operation::Read { lba, buffer } => {
                let bytes = length(buffer.len());
                opcode::Read::new(fd, buffer.as_mut_ptr(), bytes).offset(offset(*lba)).build()
            }
            Operation::Write { lba, data, fua } => {
                let flags = if *fua { libc::RWF_DSYNC } else { 0 };
                opcode::Write::new(fd, data.as_ptr(), length(data.len()))
                    .offset(offset(*lba))
                    .rw_flags(flags)
                    .build()
            }
            Operation::Flush => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
        };
        entry.user_data(index as u64)
    }

    /// Moves what is pending into the ring and gives it to the kernel, in one system call.
    fn hand_over(&mut self) {
        while let Some(index) = self.pending.pop_front() {
            let entry = self.entry_for(index);
            #[expect(unsafe_code, reason = "the ring cannot know how long the memory lives")]
            // SAFETY: the buffer belongs to the request, which stays in the table until its
            // completion came, and is leaked if the device is dropped before.
            let pushed = unsafe { self.ring.submission().push(&entry) };
            pushed.expect("the ring has a place for each place of the table");
            self.queued.push_back(index);
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

    /// A completion from the ring's queue.
    fn reap(&mut self) -> Option<IoCompletion> {
        let entry = self.ring.completion().next()?;
        let index = usize::try_from(entry.user_data()).expect("user data is an index of the table");
        let request = self.requests.remove(index).expect("a request completes once");
        let result = usize::try_from(entry.result()).map_err(|_| -entry.result());
        Some(settle(request, result))
    }

    /// What a broken ring never gave to the kernel, as failed.
    fn fail_one_queued(&mut self, code: i32) -> Option<IoCompletion> {
        let index = self.queued.pop_front().or_else(|| self.pending.pop_front())?;
        let request = self.requests.remove(index).expect("queued requests are in the table");
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
        let index = self.requests.insert(request.tag, request);
        self.pending.push_back(index);
        Ok(())
    }

    fn poll(&mut self, _now: Instant) -> Option<IoCompletion> {
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
        // Drained only when nothing is left, then looked at once more: what comes after the
        // drain makes the descriptor readable again.
        match self.event.read() {
            Ok(_) => self.reap(),
            Err(_) => None,
        }
    }

    fn poll_event(&mut self, _now: Instant) -> Option<DeviceEvent> {
        None
    }

    fn next_wakeup(&self) -> Option<Instant> {
        // What was not handed over can be, whatever the time is.
        (!(self.pending.is_empty() && self.queued.is_empty())).then_some(Instant::ZERO)
    }

    fn cancel(&mut self, _now: Instant, tag: IoTag) -> Cancelled {
        let Some(index) = self.requests.find(tag) else { return Cancelled::NotHere };
        let Some(place) = self.pending.iter().position(|pending| *pending == index) else {
            return Cancelled::Requested;
        };
        self.pending.remove(place);
        self.requests.remove(index).map_or(Cancelled::NotHere, Cancelled::Withdrawn)
    }

    fn attach_pool(&mut self, _pool: &BufferPool) {}

    fn wait_on(&self, descriptors: &mut Vec<RawFd>) {
        descriptors.push(self.event.as_raw_fd());
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
