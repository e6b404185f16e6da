//! Room reserved for a large file, and who may write to it: one thread at a time.
//!
//! What holds: where reserving is quick, all of it is reserved before the first byte comes; in memory, where each page
//! costs as much as writing it, a step ahead of the bytes, and the first byte comes only where all of it fits. A kernel lets
//! one writer into a file and lets the others spin, so they queue here, where they sleep. Not here: writing.

use super::super::super::code::LocalError;
use super::super::super::store::OpenFile;
use crate::file_system::{Errno, FileHandle};

/// Segments that are reserved at a time where reserving is slow.
const STEP_SEGMENTS: u64 = 16;

/// Room of one file.
#[derive(Debug)]
pub(super) struct Reserved {
    /// Its length.
    size: u64,
    /// Reserved up to here.
    end: u64,
    step: u64,
}

impl Reserved {
    /// Room for `file`, of which `present` bytes are there.
    ///
    /// # Errors
    /// If there is not enough.
    pub(super) fn new(
        handle: &dyn FileHandle,
        file: &OpenFile,
        present: u64,
        segment_bytes: u64,
    ) -> Result<Self, LocalError> {
        let size = file.size.unwrap_or(0);
        if size <= segment_bytes {
            return Ok(Self { size, end: size, step: 0 });
        }
        let room = handle.room()?;
        if !room.in_memory {
            reserve(handle, 0, size)?;
            return Ok(Self { size, end: size, step: 0 });
        }
        if size.saturating_sub(present) > room.free_bytes {
            return Err(Errno::NOSPC.into());
        }
        Ok(Self { size, end: present, step: STEP_SEGMENTS * segment_bytes })
    }

    /// The bytes up to `end` are about to be written.
    ///
    /// # Errors
    /// If there is no room.
    pub(super) fn reach(&mut self, handle: &dyn FileHandle, end: u64) -> Result<(), LocalError> {
        if end > self.end && self.end < self.size {
            let until = end.saturating_add(self.step).min(self.size);
            reserve(handle, self.end, until - self.end)?;
            self.end = until;
        }
        Ok(())
    }
}

fn reserve(handle: &dyn FileHandle, offset: u64, length: u64) -> Result<(), LocalError> {
    match handle.allocate(offset, length) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
