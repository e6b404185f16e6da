//! From the result of a system call to a completion: what it says about effect and copy.
//!
//! Keeps true: a write that failed in a way that leaves open whether the device acted on it is
//! *unknown, may land*. On Linux the errnos of a lost path also stand for time-outs and resets of
//! commands that were sent. Not here: whether to retry (crate `multipath`).

use nix::errno::Errno;

use crate::block::request::{CopyFate, Effect, ErrorSource, IoCompletion, IoError, IoRequest, Operation};

/// Bytes that an operation moves.
pub(crate) fn byte_count(operation: &Operation) -> usize {
    match operation {
        Operation::Read { buffer, .. } => buffer.len(),
        Operation::Write { data, .. } => data.len(),
        Operation::Flush => 0,
    }
}

/// Ends a request with the number of bytes that the system call moved, or its errno.
pub(crate) fn settle(request: IoRequest, result: Result<usize, i32>) -> IoCompletion {
    let expected = byte_count(&request.operation);
    let is_write = matches!(request.operation, Operation::Write { .. });
    match result {
        Ok(done) if done == expected => request.complete(Ok(()), Effect::Full, CopyFate::Dead),
        Ok(done) => {
            let clamp = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
            let error = ErrorSource::Short { expected: clamp(expected), done: clamp(done) };
            let copy = if is_write { CopyFate::MayLand } else { CopyFate::Dead };
            request.complete(Err(error.into()), Effect::Unknown, copy)
        }
        Err(code) => {
            let (effect, copy) = fate_of(code, is_write);
            request.complete(Err(IoError::errno(code)), effect, copy)
        }
    }
}

/// Effect and copy of a request that was handed to the kernel and came back with this errno.
fn fate_of(code: i32, is_write: bool) -> (Effect, CopyFate) {
    match Errno::from_raw(code) {
        // The call itself was refused: nothing was sent.
        Errno::EINVAL
        | Errno::EBADF
        | Errno::EFAULT
        | Errno::EPERM
        | Errno::EROFS
        | Errno::EFBIG
        | Errno::EOPNOTSUPP
        | Errno::EAGAIN
        | Errno::ENOMEM => (Effect::None, CopyFate::Dead),
        // The answer of the target, which proves that no copy is on its way; parts of a large
        // request may have been done.
        Errno::ENOSPC | Errno::EREMOTEIO | Errno::ENODATA | Errno::EILSEQ | Errno::EBADE => {
            (Effect::Unknown, CopyFate::Dead)
        }
        _ if is_write => (Effect::Unknown, CopyFate::MayLand),
        _ => (Effect::Unknown, CopyFate::Dead),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Buffer, IoTag, Lba};

    fn write() -> IoRequest {
        IoRequest::write(IoTag(1), Lba(0), Buffer::zeroed(4096).freeze(), false)
    }

    #[test]
    fn a_failed_write_may_land_unless_it_was_refused() {
        for code in [Errno::EIO, Errno::ENOLINK, Errno::ENODEV, Errno::ETIMEDOUT, Errno::ETIME] {
            let done = settle(write(), Err(code as i32));
            assert_eq!((done.effect, done.copy), (Effect::Unknown, CopyFate::MayLand), "{code}");
        }
        for code in [Errno::EINVAL, Errno::EBADF] {
            let done = settle(write(), Err(code as i32));
            assert_eq!((done.effect, done.copy), (Effect::None, CopyFate::Dead), "{code}");
        }
        let done = settle(write(), Ok(512));
        assert_eq!(done.copy, CopyFate::MayLand);
        assert_eq!(done.outcome.unwrap_err().source_code, ErrorSource::Short { expected: 4096, done: 512 });
    }

    #[test]
    fn a_failed_read_leaves_no_copy() {
        let request = IoRequest::read(IoTag(1), Lba(0), Buffer::zeroed(4096));
        assert_eq!(settle(request, Err(Errno::EIO as i32)).copy, CopyFate::Dead);
    }
}
