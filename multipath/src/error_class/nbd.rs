//! Error numbers of NBD replies (the protocol's own list, which is not that of the host).
//!
//! Keeps true: a reply is the response of that very request, so the copy is dead. Not here: the end of
//! the connection, which is `ConnectionLost`.

use super::ErrorClass::{Busy, Caller, PathDead, PathSuspect, Target};
use super::{Notice, RequestAction, Row};

/// The rows, in the order of the protocol.
pub const ROWS: &[(u32, Row)] = &[
    (1, Row::answered(Target, "EPERM: the export is read-only")),
    (5, Row::answered(PathSuspect, "EIO")),
    (12, Row::answered(Busy, "ENOMEM")),
    (22, Row::answered(Caller, "EINVAL")),
    (28, Row::answered(Target, "ENOSPC; also a write past the end")),
    (75, Row::answered(Caller, "EOVERFLOW: the reply would be too large")),
    (95, Row::answered(Caller, "ENOTSUP").notice(Notice::NotSupported)),
    (108, Row::answered(PathDead, "ESHUTDOWN: the server is going down")),
];

/// Every other number; the protocol wants it read as EINVAL. A second server is asked.
pub const OTHER: Row =
    Row::answered(Caller, "a number that the protocol does not have").request(RequestAction::Witness);

/// The row of an error number.
#[must_use]
pub fn row(code: u32) -> &'static Row {
    ROWS.iter().find(|(known, _)| *known == code).map_or(&OTHER, |(_, row)| row)
}
