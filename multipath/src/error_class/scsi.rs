//! SCSI: host status of the transport, status byte, sense, deferred sense.
//!
//! Sense is written key/ASC/ASCQ in hexadecimal. The host status counts first (with one, no status came
//! from the target), then a deferred sense, then the status byte, and for CHECK CONDITION the sense.
//!
//! Keeps true: a status byte is the response of that very request, so its copy is dead; a host status
//! is made on this side and proves nothing. A deferred sense says that the current command was not
//! processed and an earlier acknowledged write is lost: repeat, and say so. Not here: parsing of sense
//! data.

use super::ErrorClass::{
    Ambiguous, Busy, Caller, Integrity, Medium, PathDead, PathGhost, PathSuspect, PathTransition,
    Reservation, Success, Target, UnitAttention,
};
use super::{Notice, PathAction, RequestAction, Row};

/// CHECK CONDITION.
const CHECK_CONDITION: u8 = 0x02;

/// What a row of sense matches; `None` is every value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// Sense key.
    pub key: u8,
    /// Additional sense code.
    pub asc: Option<u8>,
    /// Its qualifier.
    pub ascq: Option<u8>,
}

impl Sense {
    /// Whether the row is for this sense.
    #[must_use]
    pub fn matches(self, key: u8, asc: u8, ascq: u8) -> bool {
        self.key == key && self.asc.is_none_or(|own| own == asc) && self.ascq.is_none_or(|own| own == ascq)
    }
}

const fn exact(key: u8, asc: u8, ascq: u8) -> Sense {
    Sense { key, asc: Some(asc), ascq: Some(ascq) }
}

const fn code(key: u8, asc: u8) -> Sense {
    Sense { key, asc: Some(asc), ascq: None }
}

const fn key(key: u8) -> Sense {
    Sense { key, asc: None, ascq: None }
}

/// Status bytes but CHECK CONDITION.
pub const STATUS_ROWS: &[(u8, Row)] = &[
    (0x00, Row::executed(Success, "GOOD")),
    (0x04, Row::executed(Success, "CONDITION MET")),
    (0x08, Row::answered(Busy, "BUSY")),
    (0x28, Row::answered(Busy, "TASK SET FULL")),
    (0x18, Row::answered(Reservation, "RESERVATION CONFLICT")),
    // The path has just answered: the abort came from another session.
    (0x40, Row::answered(Ambiguous, "TASK ABORTED").path(PathAction::Nothing)),
    (0x30, Row::answered(Busy, "ACA ACTIVE").notice(Notice::ClearAca)),
    // Obsolete, and still sent by old devices.
    (0x22, Row::answered(Target, "COMMAND TERMINATED")),
];

/// Every other status byte.
pub const STATUS_OTHER: Row = Row::in_doubt(PathSuspect, "a status that the standard does not have");

/// Sense of the current command; the first row that matches counts, a whole key comes last.
pub const SENSE_ROWS: &[(Sense, Row)] = &[
    // Nothing in it, or nothing came with it: no success that one could prove.
    (exact(0x0, 0x00, 0x00), Row::answered(PathSuspect, "CHECK CONDITION without sense")),
    (key(0x0), Row::executed(Success, "NO SENSE").notice(Notice::Recovered)),
    (key(0x1), Row::executed(Success, "RECOVERED ERROR").notice(Notice::Recovered)),
    (exact(0x2, 0x04, 0x01), Row::answered(Busy, "becoming ready")),
    (exact(0x2, 0x04, 0x02), Row::answered(Target, "start needed")),
    (exact(0x2, 0x04, 0x0a), Row::answered(PathTransition, "asymmetric access state transition")),
    (
        exact(0x6, 0x04, 0x0a),
        Row::answered(PathTransition, "asymmetric access state transition, as unit attention"),
    ),
    (exact(0x2, 0x04, 0x0b), Row::answered(PathGhost, "target port in standby")),
    (exact(0x2, 0x04, 0x0c), Row::answered(PathGhost, "target port unavailable")),
    (exact(0x2, 0x04, 0x04), Row::answered(Busy, "format in progress")),
    (exact(0x2, 0x04, 0x07), Row::answered(Busy, "operation in progress")),
    (exact(0x2, 0x04, 0x09), Row::answered(Busy, "self-test in progress")),
    (exact(0x2, 0x04, 0x14), Row::answered(Busy, "space allocation in progress")),
    (exact(0x2, 0x04, 0x1b), Row::answered(Busy, "sanitize in progress")),
    (exact(0x2, 0x04, 0x20), Row::answered(Busy, "logical unit reset needed")),
    (code(0x2, 0x04), Row::answered(Target, "not ready")),
    (code(0x2, 0x3a), Row::answered(Target, "no medium")),
    (key(0x2), Row::answered(PathSuspect, "NOT READY, for another reason")),
    (code(0x3, 0x11), Row::answered(Medium, "unrecovered read error")),
    (code(0x3, 0x13), Row::answered(Medium, "no address mark")),
    (code(0x3, 0x14), Row::answered(Medium, "no record found")),
    (key(0x3), Row::answered(Medium, "MEDIUM ERROR, after one retry").request(RequestAction::Witness)),
    // Only through one path it is the path: the second witness tells.
    (key(0x4), Row::answered(Target, "HARDWARE ERROR").request(RequestAction::Witness)),
    (code(0x5, 0x20), Row::answered(Caller, "invalid command").notice(Notice::NotSupported)),
    (code(0x5, 0x21), Row::answered(Caller, "address out of range").names_address()),
    (code(0x5, 0x22), Row::answered(Caller, "illegal function")),
    (code(0x5, 0x24), Row::answered(Caller, "invalid field in the command")),
    (code(0x5, 0x26), Row::answered(Caller, "invalid field in the parameters")),
    (code(0x5, 0x27), Row::answered(Caller, "write protected")),
    (exact(0x5, 0x25, 0x00), Row::answered(PathDead, "logical unit not supported: no longer mapped here")),
    (key(0x5), Row::answered(Caller, "ILLEGAL REQUEST")),
    (
        exact(0x6, 0x29, 0x00),
        Row::answered(UnitAttention, "power-on or reset").notice(Notice::NexusStateLost),
    ),
    (
        exact(0x6, 0x29, 0x04),
        Row::answered(UnitAttention, "device internal reset").notice(Notice::NexusStateLost),
    ),
    (exact(0x6, 0x29, 0x07), Row::answered(UnitAttention, "I_T nexus loss").notice(Notice::NexusStateLost)),
    (code(0x6, 0x29), Row::answered(UnitAttention, "a reset").notice(Notice::NexusStateLost)),
    (
        exact(0x6, 0x2a, 0x01),
        Row::answered(UnitAttention, "mode parameters changed").notice(Notice::ModeChanged),
    ),
    (
        exact(0x6, 0x2a, 0x03),
        Row::answered(UnitAttention, "reservations pre-empted").notice(Notice::ReservationsChanged),
    ),
    (
        exact(0x6, 0x2a, 0x04),
        Row::answered(UnitAttention, "reservations released").notice(Notice::ReservationsChanged),
    ),
    (
        exact(0x6, 0x2a, 0x05),
        Row::answered(UnitAttention, "registrations pre-empted").notice(Notice::ReservationsChanged),
    ),
    (
        exact(0x6, 0x2a, 0x06),
        Row::answered(UnitAttention, "asymmetric access state changed").notice(Notice::AccessStateChanged),
    ),
    (
        exact(0x6, 0x2a, 0x07),
        Row::answered(UnitAttention, "asymmetric access transition failed")
            .notice(Notice::AccessStateChanged),
    ),
    (
        exact(0x6, 0x2a, 0x09),
        Row::answered(UnitAttention, "capacity changed").notice(Notice::CapacityChanged),
    ),
    (
        exact(0x6, 0x2f, 0x00),
        Row::answered(UnitAttention, "commands cleared by another host").notice(Notice::ClearedByOther),
    ),
    (
        exact(0x6, 0x3f, 0x03),
        Row::answered(UnitAttention, "inquiry data changed")
            .notice(Notice::IdentityChanged)
            .path(PathAction::Reidentify),
    ),
    (
        exact(0x6, 0x3f, 0x05),
        Row::answered(UnitAttention, "device identifier changed")
            .notice(Notice::IdentityChanged)
            .path(PathAction::Reidentify),
    ),
    (
        exact(0x6, 0x3f, 0x0e),
        Row::answered(UnitAttention, "logical units changed")
            .notice(Notice::IdentityChanged)
            .path(PathAction::Reidentify),
    ),
    (
        exact(0x6, 0x38, 0x07),
        Row::answered(UnitAttention, "thin pool: soft threshold").notice(Notice::ThinPoolLow),
    ),
    (key(0x6), Row::answered(UnitAttention, "UNIT ATTENTION")),
    (exact(0x7, 0x27, 0x07), Row::answered(Target, "thin pool: hard threshold").notice(Notice::ThinPoolLow)),
    (key(0x7), Row::answered(Target, "DATA PROTECT")),
    (key(0x8), Row::answered(Target, "BLANK CHECK")),
    (key(0xa), Row::answered(Target, "COPY ABORTED")),
    (key(0xd), Row::answered(Target, "VOLUME OVERFLOW")),
    (key(0xe), Row::executed(Target, "MISCOMPARE")),
    (code(0xb, 0x10), Row::answered(Integrity, "protection information")),
    (exact(0xb, 0x2e, 0x01), Row::answered(Busy, "time limit, before processing")),
    (exact(0xb, 0x2e, 0x02), Row::answered(Busy, "time limit, during processing")),
    (exact(0xb, 0x2e, 0x03), Row::answered(Busy, "time limit, during error recovery")),
    (
        code(0xb, 0x47),
        Row::answered(PathSuspect, "checksum of the transport").notice(Notice::TransportChecksum),
    ),
    (code(0xb, 0x4b), Row::answered(PathSuspect, "data phase")),
    (key(0xb), Row::answered(PathSuspect, "ABORTED COMMAND")),
];

/// Keys that are reserved, obsolete or the vendor's (9, C, F, and what does not fit a key).
pub const SENSE_OTHER: Row = Row::answered(PathSuspect, "a sense key without a common meaning");

/// Deferred sense; a whole key comes last.
pub const DEFERRED_ROWS: &[(Sense, Row)] = &[(
    key(0x1),
    Row::answered(UnitAttention, "an earlier command succeeded after recovery").notice(Notice::Recovered),
)];

/// Every other deferred sense.
pub const DEFERRED_OTHER: Row =
    Row::answered(UnitAttention, "deferred: an earlier acknowledged write is lost")
        .notice(Notice::AcknowledgedDataLost);

/// Host status of Linux (`DID_…`); 00 is OK.
pub const HOST_ROWS: &[(u8, Row)] = &[
    (0x01, Row::in_doubt(PathDead, "NO_CONNECT")),
    (0x04, Row::in_doubt(PathDead, "BAD_TARGET")),
    (0x0f, Row::in_doubt(PathDead, "TRANSPORT_FAILFAST")),
    (0x14, Row::in_doubt(PathSuspect, "TRANSPORT_MARGINAL")),
    (0x07, Row::in_doubt(PathSuspect, "ERROR")),
    (0x02, Row::in_doubt(Busy, "BUS_BUSY")),
    (0x0b, Row::in_doubt(PathSuspect, "SOFT_ERROR")),
    (0x0e, Row::in_doubt(Ambiguous, "TRANSPORT_DISRUPTED")),
    (0x08, Row::in_doubt(Ambiguous, "RESET")),
    (0x03, Row::in_doubt(Ambiguous, "TIME_OUT")),
    // Less common.
    (0x05, Row::in_doubt(Ambiguous, "ABORT")),
    (0x06, Row::in_doubt(PathSuspect, "PARITY").notice(Notice::TransportChecksum)),
    (0x0c, Row::in_doubt(Busy, "IMM_RETRY")),
    (0x0d, Row::in_doubt(Busy, "REQUEUE")),
];

/// Every other host status.
pub const HOST_OTHER: Row = Row::in_doubt(PathSuspect, "a host status that Linux does not have");

/// The row of a status with its sense.
#[must_use]
pub fn row(status: u8, host_status: u8, sense: (u8, u8, u8), deferred: bool) -> &'static Row {
    if host_status != 0 {
        return find(HOST_ROWS, host_status, &HOST_OTHER);
    }
    if status != CHECK_CONDITION {
        return find(STATUS_ROWS, status, &STATUS_OTHER);
    }
    if deferred {
        return find_sense(DEFERRED_ROWS, sense, &DEFERRED_OTHER);
    }
    find_sense(SENSE_ROWS, sense, &SENSE_OTHER)
}

fn find(rows: &'static [(u8, Row)], code: u8, other: &'static Row) -> &'static Row {
    rows.iter().find(|(known, _)| *known == code).map_or(other, |(_, row)| row)
}

fn find_sense(
    rows: &'static [(Sense, Row)],
    (key, asc, ascq): (u8, u8, u8),
    other: &'static Row,
) -> &'static Row {
    rows.iter().find(|(sense, _)| sense.matches(key, asc, ascq)).map_or(other, |(_, row)| row)
}
