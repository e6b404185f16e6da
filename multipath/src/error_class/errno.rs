//! Errnos of direct I/O on a block node or a file, and of sockets.
//!
//! Keeps true: what Linux makes of the status of a target (EREMOTEIO, ENODATA, EILSEQ, EBADE, ENOSPC)
//! is the response of that request; what it makes of time-outs, resets and lost transports (EIO,
//! ENOLINK, ENODEV, ENXIO, ETIMEDOUT, ETIME) leaves a write in doubt. What the kernel refused for
//! itself (EINVAL, EAGAIN, ENOMEM) leaves no copy: it waits for every part of a request before it says
//! so. Not here: errnos of opening.

use nix::errno::Errno;

use super::ErrorClass::{
    Ambiguous, Busy, Caller, Cancelled, Integrity, Medium, PathDead, PathSuspect, Reservation, Target,
};
use super::{Notice, Row};

/// The rows: first those of block nodes, in the order of the block layer of Linux; its block status
/// stands in the text.
pub const ROWS: &[(Errno, Row)] = &[
    (Errno::EIO, Row::in_doubt(PathSuspect, "IOERR; also time-outs and resets of sent commands")),
    (Errno::ENOLINK, Row::in_doubt(PathDead, "TRANSPORT")),
    (Errno::ENODEV, Row::in_doubt(PathDead, "OFFLINE")),
    (Errno::ENXIO, Row::in_doubt(PathDead, "the device is gone")),
    (Errno::ETIMEDOUT, Row::in_doubt(Ambiguous, "TIMEOUT")),
    (Errno::EREMOTEIO, Row::answered(Target, "TARGET")),
    (Errno::ENODATA, Row::answered(Medium, "MEDIUM")),
    (Errno::EILSEQ, Row::answered(Integrity, "PROTECTION")),
    (Errno::EBADE, Row::answered(Reservation, "RESV_CONFLICT")),
    (Errno::ENOSPC, Row::answered(Target, "NOSPC")),
    (Errno::EOPNOTSUPP, Row::answered(Caller, "NOTSUPP").notice(Notice::NotSupported)),
    (Errno::EINVAL, Row::answered(Caller, "INVAL: misaligned, or not whole blocks")),
    (Errno::ENOMEM, Row::answered(Busy, "RESOURCE")),
    (Errno::EAGAIN, Row::answered(Busy, "AGAIN")),
    (Errno::EBUSY, Row::answered(Busy, "DEV_RESOURCE")),
    (Errno::ETIME, Row::in_doubt(Busy, "DURATION_LIMIT")),
    (Errno::EREMCHG, Row::in_doubt(Busy, "to be queued again")),
    (Errno::ETOOMANYREFS, Row::answered(Caller, "too many open zones")),
    (Errno::EOVERFLOW, Row::answered(Caller, "too many active zones")),
    // Sockets.
    (Errno::ECONNRESET, Row::in_doubt(PathDead, "the other end reset the connection")),
    (Errno::EPIPE, Row::in_doubt(PathDead, "the other end closed the connection")),
    (Errno::ENOTCONN, Row::in_doubt(PathDead, "not connected")),
    (Errno::EHOSTUNREACH, Row::in_doubt(PathDead, "no way to the host")),
    (Errno::ECONNREFUSED, Row::in_doubt(PathDead, "nobody listens")),
    (Errno::ECONNABORTED, Row::in_doubt(PathDead, "the connection was given up here")),
    (Errno::ENETRESET, Row::in_doubt(PathDead, "the network dropped the connection")),
    (Errno::ENETUNREACH, Row::in_doubt(PathDead, "no way to the network")),
    (Errno::ENETDOWN, Row::in_doubt(PathDead, "the network is down")),
    (Errno::EHOSTDOWN, Row::in_doubt(PathDead, "the host is down")),
    (Errno::ESHUTDOWN, Row::in_doubt(PathDead, "the end was shut down")),
    (Errno::ENOBUFS, Row::in_doubt(Busy, "no buffers in the network")),
    // Files.
    (Errno::EROFS, Row::answered(Target, "read-only")),
    (Errno::EPERM, Row::answered(Caller, "not permitted")),
    (Errno::EACCES, Row::answered(Caller, "no access")),
    (Errno::EBADF, Row::answered(Caller, "not open for that")),
    (Errno::EFAULT, Row::answered(Caller, "no such memory")),
    (Errno::EFBIG, Row::answered(Caller, "beyond the largest file")),
    (Errno::EDQUOT, Row::answered(Target, "no quota left")),
    (Errno::EINTR, Row::in_doubt(Busy, "interrupted")),
    (Errno::ENOMEDIUM, Row::answered(Target, "no medium")),
    (Errno::ECANCELED, Row::in_doubt(Cancelled, "cancelled; seen for a write that landed later")),
    (Errno::ESTALE, Row::in_doubt(PathDead, "the file behind the handle is gone")),
];

/// Every other errno.
pub const OTHER: Row = Row::in_doubt(PathSuspect, "an errno that block I/O does not know");

/// The row of an errno.
#[must_use]
pub fn row(code: Errno) -> &'static Row {
    ROWS.iter().find(|(known, _)| *known == code).map_or(&OTHER, |(_, row)| row)
}
