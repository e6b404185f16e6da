//! Room for a large file, seen to before its first byte comes.
//!
//! What holds: where reserving is quick, all of it is reserved; in memory, where to reserve a page costs as much as to
//! write it, it is only looked whether all of it fits. Not here: writing.

use super::super::super::code::LocalError;
use super::super::super::store::OpenFile;
use crate::file_system::{Errno, FileHandle};

/// Sees to room for `file`, of which `present` bytes are there.
///
/// # Errors
/// If there is not enough.
pub(super) fn reserve(
    handle: &dyn FileHandle,
    file: &OpenFile,
    present: u64,
    segment_bytes: u64,
) -> Result<(), LocalError> {
    let size = file.size.unwrap_or(0);
    if size <= segment_bytes {
        return Ok(());
    }
    let room = handle.room()?;
    if room.in_memory {
        let fits = size.saturating_sub(present) <= room.free_bytes;
        return if fits { Ok(()) } else { Err(Errno::NOSPC.into()) };
    }
    match handle.allocate(0, size) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
