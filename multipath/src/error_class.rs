//! What an error says: about the path it came over, and about whether another path may help.
//!
//! Keeps true: an error of the request itself (misaligned, unsupported, out of space) never fails a
//! path, else one bad request would take down all paths one after the other. Not here: whether a
//! write may be sent again; that hangs on effect and copy (`failover`).

use nix::errno::Errno;
use storage_mapping::{ErrorSource, IoError};

/// Classes of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The answer to the caller: any path would give the same.
    Answer,
    /// No room just now; the path is well.
    Busy,
    /// The path may have damaged the data: one other path is asked, and this one goes on.
    Integrity,
    /// The path is gone.
    PathDead,
    /// The path may be at fault: it fails when that happens again.
    PathSuspect,
}

impl ErrorClass {
    /// The class of an error.
    #[must_use]
    pub fn of(error: &IoError) -> Self {
        match error.source_code {
            ErrorSource::Errno(code) => Self::of_errno(Errno::from_raw(code)),
            ErrorSource::ConnectionLost { .. } => Self::PathDead,
            // Below another multipath device: its paths are its own matter, its end is ours.
            ErrorSource::NoPath | ErrorSource::Deadline => Self::PathDead,
            ErrorSource::Short { .. } => Self::PathSuspect,
            ErrorSource::Scsi { status, key, .. } => Self::of_scsi(status, key),
            ErrorSource::Nvme { sct, dnr, .. } => match (sct, dnr) {
                (3, _) => Self::PathDead,
                (_, true) => Self::Answer,
                _ => Self::PathSuspect,
            },
            ErrorSource::Nbd(code) => {
                Self::of_errno(Errno::from_raw(i32::try_from(code).unwrap_or(Errno::EIO as i32)))
            }
        }
    }

    fn of_errno(code: Errno) -> Self {
        match code {
            Errno::ENOLINK
            | Errno::ENODEV
            | Errno::ENXIO
            | Errno::ECONNRESET
            | Errno::EPIPE
            | Errno::ENOTCONN
            | Errno::EHOSTUNREACH
            | Errno::ECONNREFUSED
            | Errno::ESTALE
            | Errno::ESHUTDOWN => Self::PathDead,
            Errno::ENOMEM | Errno::EAGAIN | Errno::EBUSY | Errno::ETIME => Self::Busy,
            Errno::EILSEQ => Self::Integrity,
            Errno::EREMOTEIO
            | Errno::ENODATA
            | Errno::EBADE
            | Errno::ENOSPC
            | Errno::EOPNOTSUPP
            | Errno::EINVAL
            | Errno::EROFS
            | Errno::EPERM
            | Errno::EOVERFLOW
            | Errno::EFBIG => Self::Answer,
            _ => Self::PathSuspect,
        }
    }

    /// The coarse reading of a SCSI status; rows by sense code come with the control commands.
    fn of_scsi(status: u8, key: u8) -> Self {
        match (status, key) {
            (0x08 | 0x28, _) => Self::Busy,
            (0x18, _) => Self::Answer,
            // Not ready, aborted command, and unit attention may differ from path to path.
            (0x02, 0x2 | 0x6 | 0xb) => Self::PathSuspect,
            (0x02, _) => Self::Answer,
            _ => Self::PathSuspect,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_request_does_not_fail_a_path() {
        for code in [Errno::EINVAL, Errno::ENOSPC, Errno::EOPNOTSUPP, Errno::EBADE] {
            assert_eq!(ErrorClass::of(&IoError::errno(code as i32)), ErrorClass::Answer, "{code}");
        }
        assert_eq!(ErrorClass::of(&IoError::errno(Errno::EIO as i32)), ErrorClass::PathSuspect);
        assert_eq!(ErrorClass::of(&IoError::errno(Errno::ENOLINK as i32)), ErrorClass::PathDead);
        assert_eq!(ErrorClass::of(&IoError::errno(Errno::EAGAIN as i32)), ErrorClass::Busy);
    }
}
