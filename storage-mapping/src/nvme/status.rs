//! NVMe status (base specification 2.1, 4.2.3): code type and code, their names, and what they say to a layer above.
//!
//! Keeps true: 0/00 alone is a success. Not here: what a status says about a path (`multipath::error_class`).

use crate::block::request::{ErrorSource, IoError};

/// Status code types.
pub mod kind {
    /// Generic command status.
    pub const GENERIC: u8 = 0;
    /// Command specific status.
    pub const COMMAND: u8 = 1;
    /// Media and data integrity errors.
    pub const MEDIA: u8 = 2;
    /// Path related status.
    pub const PATH: u8 = 3;
    /// Of the vendor.
    pub const VENDOR: u8 = 7;
}

/// What a status says of the command that it answers.
///
/// # Errors
/// The status, unless it is 0/00.
pub fn outcome(sct: u8, sc: u8, dnr: bool, crd: u8) -> Result<(), IoError> {
    if (sct, sc) == (0, 0) {
        return Ok(());
    }
    Err(ErrorSource::Nvme { sct, sc, dnr, crd }.into())
}

/// The name of a status; a general one where it is not known.
#[must_use]
pub fn name(sct: u8, sc: u8) -> &'static str {
    if let Ok(at) = NAMES.binary_search_by_key(&(sct, sc), |(sct, sc, _)| (*sct, *sc)) {
        return NAMES[at].2;
    }
    match (sct, sc) {
        (kind::VENDOR, _) | (_, 0xc0..) => "vendor specific status",
        (kind::GENERIC, _) => "unknown generic status",
        (kind::COMMAND, _) => "unknown command specific status",
        (kind::MEDIA, _) => "unknown media error",
        (kind::PATH, _) => "unknown path related status",
        _ => "reserved status",
    }
}

/// In the order of type and code.
#[rustfmt::skip]
const NAMES: &[(u8, u8, &str)] = &[
    (0, 0x00, "Successful Completion"),
    (0, 0x01, "Invalid Command Opcode"),
    (0, 0x02, "Invalid Field in Command"),
    (0, 0x03, "Command ID Conflict"),
    (0, 0x04, "Data Transfer Error"),
    (0, 0x05, "Commands Aborted due to Power Loss Notification"),
    (0, 0x06, "Internal Error"),
    (0, 0x07, "Command Abort Requested"),
    (0, 0x08, "Command Aborted due to SQ Deletion"),
    (0, 0x09, "Command Aborted due to Failed Fused Command"),
    (0, 0x0a, "Command Aborted due to Missing Fused Command"),
    (0, 0x0b, "Invalid Namespace or Format"),
    (0, 0x0c, "Command Sequence Error"),
    (0, 0x0d, "Invalid SGL Segment Descriptor"),
    (0, 0x0e, "Invalid Number of SGL Descriptors"),
    (0, 0x0f, "Data SGL Length Invalid"),
    (0, 0x10, "Metadata SGL Length Invalid"),
    (0, 0x11, "SGL Descriptor Type Invalid"),
    (0, 0x12, "Invalid Use of Controller Memory Buffer"),
    (0, 0x13, "PRP Offset Invalid"),
    (0, 0x14, "Atomic Write Unit Exceeded"),
    (0, 0x15, "Operation Denied"),
    (0, 0x16, "SGL Offset Invalid"),
    (0, 0x18, "Host Identifier Inconsistent Format"),
    (0, 0x19, "Keep Alive Timer Expired"),
    (0, 0x1a, "Keep Alive Timeout Invalid"),
    (0, 0x1b, "Command Aborted due to Preempt and Abort"),
    (0, 0x1c, "Sanitize Failed"),
    (0, 0x1d, "Sanitize In Progress"),
    (0, 0x1e, "SGL Data Block Granularity Invalid"),
    (0, 0x1f, "Command Not Supported for Queue in CMB"),
    (0, 0x20, "Namespace is Write Protected"),
    (0, 0x21, "Command Interrupted"),
    (0, 0x22, "Transient Transport Error"),
    (0, 0x23, "Command Prohibited by Command and Feature Lockdown"),
    (0, 0x24, "Admin Command Media Not Ready"),
    (0, 0x80, "LBA Out of Range"),
    (0, 0x81, "Capacity Exceeded"),
    (0, 0x82, "Namespace Not Ready"),
    (0, 0x83, "Reservation Conflict"),
    (0, 0x84, "Format In Progress"),
    (1, 0x00, "Completion Queue Invalid"),
    (1, 0x01, "Invalid Queue Identifier"),
    (1, 0x02, "Invalid Queue Size"),
    (1, 0x03, "Abort Command Limit Exceeded"),
    (1, 0x05, "Asynchronous Event Request Limit Exceeded"),
    (1, 0x06, "Invalid Firmware Slot"),
    (1, 0x07, "Invalid Firmware Image"),
    (1, 0x08, "Invalid Interrupt Vector"),
    (1, 0x09, "Invalid Log Page"),
    (1, 0x0a, "Invalid Format"),
    (1, 0x0b, "Firmware Activation Requires Conventional Reset"),
    (1, 0x0c, "Invalid Queue Deletion"),
    (1, 0x0d, "Feature Identifier Not Saveable"),
    (1, 0x0e, "Feature Not Changeable"),
    (1, 0x0f, "Feature Not Namespace Specific"),
    (1, 0x10, "Firmware Activation Requires NVM Subsystem Reset"),
    (1, 0x11, "Firmware Activation Requires Controller Level Reset"),
    (1, 0x12, "Firmware Activation Requires Maximum Time Violation"),
    (1, 0x13, "Firmware Activation Prohibited"),
    (1, 0x14, "Overlapping Range"),
    (1, 0x15, "Namespace Insufficient Capacity"),
    (1, 0x16, "Namespace Identifier Unavailable"),
    (1, 0x18, "Namespace Already Attached"),
    (1, 0x19, "Namespace Is Private"),
    (1, 0x1a, "Namespace Not Attached"),
    (1, 0x1b, "Thin Provisioning Not Supported"),
    (1, 0x1c, "Controller List Invalid"),
    (1, 0x1d, "Device Self-test In Progress"),
    (1, 0x1e, "Boot Partition Write Prohibited"),
    (1, 0x1f, "Invalid Controller Identifier"),
    (1, 0x20, "Invalid Secondary Controller State"),
    (1, 0x21, "Invalid Number of Controller Resources"),
    (1, 0x22, "Invalid Resource Identifier"),
    (1, 0x23, "Sanitize Prohibited While Persistent Memory Region is Enabled"),
    (1, 0x24, "ANA Group Identifier Invalid"),
    (1, 0x25, "ANA Attach Failed"),
    (1, 0x80, "Conflicting Attributes"),
    (1, 0x81, "Invalid Protection Information"),
    (1, 0x82, "Attempted Write to Read Only Range"),
    (2, 0x80, "Write Fault"),
    (2, 0x81, "Unrecovered Read Error"),
    (2, 0x82, "End-to-end Guard Check Error"),
    (2, 0x83, "End-to-end Application Tag Check Error"),
    (2, 0x84, "End-to-end Reference Tag Check Error"),
    (2, 0x85, "Compare Failure"),
    (2, 0x86, "Access Denied"),
    (2, 0x87, "Deallocated or Unwritten Logical Block"),
    (3, 0x00, "Internal Path Error"),
    (3, 0x01, "Asymmetric Access Persistent Loss"),
    (3, 0x02, "Asymmetric Access Inaccessible"),
    (3, 0x03, "Asymmetric Access Transition"),
    (3, 0x60, "Controller Pathing Error"),
    (3, 0x70, "Host Pathing Error"),
    (3, 0x71, "Command Aborted By Host"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_names() {
        assert!(NAMES.is_sorted_by_key(|(sct, sc, _)| (*sct, *sc)));
        assert_eq!(
            (name(0, 0x83), name(3, 0x02)),
            ("Reservation Conflict", "Asymmetric Access Inaccessible")
        );
        assert_eq!(
            (name(0, 0xc5), name(5, 0), name(3, 4)),
            ("vendor specific status", "reserved status", "unknown path related status")
        );
        assert_eq!(outcome(0, 0, true, 3), Ok(()));
        let failed = ErrorSource::Nvme { sct: 3, sc: 2, dnr: false, crd: 1 };
        assert_eq!(outcome(3, 2, false, 1), Err(failed.into()));
    }
}
