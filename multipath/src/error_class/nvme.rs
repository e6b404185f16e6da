//! NVMe status: status code type, status code, "do not retry", and the retry delay.
//!
//! Keeps true: "do not retry" ends the request, over every path, and is not held against a path that
//! is not itself at fault. A status of type 3, or one for an abort, may be made by this host and
//! proves nothing of the copy. Not here: the log of access states.

use std::time::Duration;

use storage_mapping::Effect;

use super::ErrorClass::{
    Ambiguous, Busy, Caller, Cancelled, Integrity, Medium, PathDead, PathGhost, PathSuspect, PathTransition,
    Reservation, Success, Target,
};
use super::{Classified, ErrorClass, Notice, PathAction, RequestAction, RequestFacts, Row};

/// What a row matches; `None` is every code of the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Status code type.
    pub sct: u8,
    /// Status code.
    pub sc: Option<u8>,
}

impl Status {
    /// Whether the row is for this status.
    #[must_use]
    pub fn matches(self, sct: u8, sc: u8) -> bool {
        self.sct == sct && self.sc.is_none_or(|own| own == sc)
    }
}

const fn one(sct: u8, sc: u8) -> Status {
    Status { sct, sc: Some(sc) }
}

const fn rest(sct: u8) -> Status {
    Status { sct, sc: None }
}

/// The rows, by cause; the first that matches counts, a whole type comes last.
pub const ROWS: &[(Status, Row)] = &[
    (one(3, 0x00), Row::in_doubt(PathDead, "internal path error")),
    (one(3, 0x60), Row::in_doubt(PathDead, "controller pathing error")),
    (one(3, 0x70), Row::in_doubt(PathDead, "host pathing error")),
    (one(3, 0x71), Row::in_doubt(Ambiguous, "aborted by the host")),
    (one(3, 0x01), Row::answered(PathGhost, "asymmetric access persistent loss")),
    (one(3, 0x02), Row::answered(PathGhost, "asymmetric access inaccessible")),
    (one(3, 0x03), Row::answered(PathTransition, "asymmetric access transition")),
    (rest(3), Row::in_doubt(PathSuspect, "path related")),
    (one(0, 0x08), Row::in_doubt(Ambiguous, "aborted, the submission queue was deleted")),
    (one(0, 0x07), Row::in_doubt(Cancelled, "abort requested")),
    (one(0, 0x82), Row::answered(Busy, "namespace not ready")),
    (one(0, 0x21), Row::answered(Busy, "command interrupted")),
    (one(0, 0x22), Row::answered(PathSuspect, "transient transport error")),
    (one(0, 0x83), Row::answered(Reservation, "reservation conflict")),
    (one(0, 0x81), Row::answered(Target, "capacity exceeded")),
    (one(0, 0x80), Row::answered(Caller, "LBA out of range").names_address()),
    (one(2, 0x80), Row::answered(Medium, "write fault")),
    (one(2, 0x81), Row::answered(Medium, "unrecovered read error")),
    (one(2, 0x82), Row::answered(Integrity, "guard check")),
    (one(2, 0x83), Row::answered(Integrity, "application tag check")),
    (one(2, 0x84), Row::answered(Integrity, "reference tag check")),
    (one(2, 0x85), Row::executed(Target, "compare failure")),
    (one(2, 0x86), Row::answered(Caller, "access denied")),
    (one(2, 0x87), Row::answered(Medium, "deallocated or unwritten block")),
    (rest(2), Row::answered(Medium, "media and data integrity")),
    (rest(1), Row::answered(Caller, "command specific")),
    (one(0, 0x01), Row::answered(Caller, "invalid opcode").notice(Notice::NotSupported)),
    (one(0, 0x02), Row::answered(Caller, "invalid field")),
    (one(0, 0x0b), Row::answered(Caller, "invalid namespace or format").names_address()),
    // Less common.
    (one(0, 0x00), Row::executed(Success, "success")),
    (one(0, 0x04), Row::answered(PathSuspect, "data transfer error")),
    (one(0, 0x05), Row::answered(Ambiguous, "aborted, power loss")),
    (one(0, 0x20), Row::answered(Target, "namespace is write protected")),
    (one(0, 0x84), Row::answered(Busy, "format in progress")),
    (rest(0), Row::answered(Target, "generic").request(RequestAction::Witness)),
    (rest(7), Row::answered(PathSuspect, "vendor specific")),
];

/// A type that the standard does not have.
pub const OTHER: Row = Row::in_doubt(PathSuspect, "a type that the standard does not have");

/// One step of the retry delay. The controller's own table of delays, where one has read it, is better.
const DELAY_STEP: Duration = Duration::from_millis(100);

/// The row of a status.
#[must_use]
pub fn row(sct: u8, sc: u8) -> &'static Row {
    ROWS.iter().find(|(status, _)| status.matches(sct, sc)).map_or(&OTHER, |(_, row)| row)
}

/// The reading of a status with its two modifiers.
pub(super) fn read((sct, sc): (u8, u8), dnr: bool, crd: u8, facts: &RequestFacts) -> Classified {
    let plain = row(sct, sc).read(facts);
    let is_of_path = sct == 3 || matches!(plain.class, ErrorClass::Reidentify);
    if dnr {
        return end(plain, is_of_path);
    }
    // A conflict, a wrong request and an answer stay what they are: waiting does not change them.
    let may_wait = !matches!(plain.class, Success | Reservation | Caller | Cancelled)
        && plain.effect != Effect::Full
        && !is_of_path;
    if crd > 0 && may_wait {
        let delay = DELAY_STEP * u32::from(crd);
        let (path, request) = (PathAction::Shrink, RequestAction::Later);
        return Classified { class: Busy, path, request, delay, ..plain };
    }
    plain
}

/// The target wants no retry: what was not of the path becomes the answer.
fn end(plain: Classified, is_of_path: bool) -> Classified {
    if plain.class == Success {
        return plain;
    }
    let request = RequestAction::Answer;
    match plain.class {
        Busy | PathSuspect | Ambiguous if !is_of_path => {
            Classified { class: Target, path: PathAction::Nothing, request, ..plain }
        }
        _ => Classified { request, ..plain },
    }
}
