//! SCSI status bytes (SAM-6 5.3), and what a status with its sense data says to a layer above.
//!
//! Keeps true: a CHECK CONDITION is never a success here, least of all one without sense data. Not here: what a status
//! says about a path (`multipath::error_class`).

use super::sense::{Sense, key};
use crate::block::request::{ErrorSource, IoError};

/// Done.
pub const GOOD: u8 = 0x00;
/// Sense data say why not, or what else.
pub const CHECK_CONDITION: u8 = 0x02;
/// Done, and the condition that was asked for holds (PRE-FETCH).
pub const CONDITION_MET: u8 = 0x04;
/// The unit cannot take the command now.
pub const BUSY: u8 = 0x08;
/// A reservation of another nexus stands against it.
pub const RESERVATION_CONFLICT: u8 = 0x18;
/// The queue of the unit is full.
pub const TASK_SET_FULL: u8 = 0x28;
/// An auto contingent allegiance of this nexus stands.
pub const ACA_ACTIVE: u8 = 0x30;
/// Aborted through another nexus (control mode page, TAS = 1).
pub const TASK_ABORTED: u8 = 0x40;

/// The name of a status, as the standard writes it.
#[must_use]
pub fn name(status: u8) -> &'static str {
    match status {
        GOOD => "GOOD",
        CHECK_CONDITION => "CHECK CONDITION",
        CONDITION_MET => "CONDITION MET",
        BUSY => "BUSY",
        0x10 => "INTERMEDIATE",
        0x14 => "INTERMEDIATE-CONDITION MET",
        RESERVATION_CONFLICT => "RESERVATION CONFLICT",
        0x22 => "COMMAND TERMINATED",
        TASK_SET_FULL => "TASK SET FULL",
        ACA_ACTIVE => "ACA ACTIVE",
        TASK_ABORTED => "TASK ABORTED",
        _ => "reserved status",
    }
}

/// What a status and its sense data say of the command that they answer.
///
/// `Ok` for GOOD and CONDITION MET alone: a CHECK CONDITION that reports a recovered error is an error here too, and the
/// layer above knows it for a success.
///
/// # Errors
/// Status, sense key and codes otherwise. Where a CHECK CONDITION came without sense data that can be read, the key is
/// [`key::UNREADABLE`], which no target sends.
pub fn outcome(status: u8, sense: &[u8]) -> Result<(), IoError> {
    if matches!(status, GOOD | CONDITION_MET) {
        return Ok(());
    }
    let sense = Sense::parse(sense);
    let no_key = if status == CHECK_CONDITION { key::UNREADABLE } else { key::NO_SENSE };
    let (key, asc, ascq) = sense.as_ref().map_or((no_key, 0, 0), Sense::triple);
    let deferred = sense.is_some_and(|sense| sense.deferred);
    Err(ErrorSource::Scsi { status, host_status: 0, key, asc, ascq, deferred }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_status_is_taken_for_another() {
        assert_eq!((outcome(GOOD, &[]), outcome(CONDITION_MET, &[])), (Ok(()), Ok(())));
        let failed = |status, key, asc, ascq, deferred| {
            Err(IoError::from(ErrorSource::Scsi { status, host_status: 0, key, asc, ascq, deferred }))
        };
        assert_eq!(outcome(CHECK_CONDITION, &[]), failed(CHECK_CONDITION, 0xff, 0, 0, false));
        assert_eq!(outcome(RESERVATION_CONFLICT, &[]), failed(RESERVATION_CONFLICT, 0, 0, 0, false));
        let standby = Sense::new(key::NOT_READY, 0x04, 0x0b);
        for bytes in [standby.emit(), standby.clone().as_descriptors().emit()] {
            assert_eq!(outcome(CHECK_CONDITION, &bytes), failed(CHECK_CONDITION, 2, 0x04, 0x0b, false));
        }
        let recovered = Sense::new(key::RECOVERED_ERROR, 0x17, 0x01);
        assert_eq!(
            outcome(CHECK_CONDITION, &recovered.emit()),
            failed(CHECK_CONDITION, 1, 0x17, 0x01, false)
        );
        let earlier = Sense { deferred: true, ..recovered };
        assert_eq!(outcome(CHECK_CONDITION, &earlier.emit()), failed(CHECK_CONDITION, 1, 0x17, 0x01, true));
        assert_eq!(name(0x18), "RESERVATION CONFLICT");
    }
}
