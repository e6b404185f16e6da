//! Opcodes of NVMe (base specification 2.1, 5 and 7), each with its name.
//!
//! Keeps true: a number and its name stand in one place. Not here: what a command means for a path
//! (`multipath::out_of_band`).

use std::borrow::Cow;

use crate::control_port::NvmeFields;

macro_rules! opcodes {
    ($(#[$doc:meta])* $module:ident { $($name:ident = $code:literal, $text:literal;)+ }) => {
        $(#[$doc])*
        pub mod $module {
            $(#[doc = $text] pub const $name: u8 = $code;)+

            /// All of them with their names, in the order of their numbers.
            pub const ALL: &[(u8, &str)] = &[$(($code, $text)),+];
        }
    };
}

opcodes! {
    /// Commands of the admin queue.
    admin {
        DELETE_SUBMISSION_QUEUE = 0x00, "Delete I/O Submission Queue";
        CREATE_SUBMISSION_QUEUE = 0x01, "Create I/O Submission Queue";
        GET_LOG_PAGE = 0x02, "Get Log Page";
        DELETE_COMPLETION_QUEUE = 0x04, "Delete I/O Completion Queue";
        CREATE_COMPLETION_QUEUE = 0x05, "Create I/O Completion Queue";
        IDENTIFY = 0x06, "Identify";
        ABORT = 0x08, "Abort";
        SET_FEATURES = 0x09, "Set Features";
        GET_FEATURES = 0x0a, "Get Features";
        ASYNCHRONOUS_EVENT_REQUEST = 0x0c, "Asynchronous Event Request";
        NAMESPACE_MANAGEMENT = 0x0d, "Namespace Management";
        FIRMWARE_COMMIT = 0x10, "Firmware Commit";
        FIRMWARE_IMAGE_DOWNLOAD = 0x11, "Firmware Image Download";
        DEVICE_SELF_TEST = 0x14, "Device Self-test";
        NAMESPACE_ATTACHMENT = 0x15, "Namespace Attachment";
        KEEP_ALIVE = 0x18, "Keep Alive";
        DIRECTIVE_SEND = 0x19, "Directive Send";
        DIRECTIVE_RECEIVE = 0x1a, "Directive Receive";
        VIRTUALIZATION_MANAGEMENT = 0x1c, "Virtualization Management";
        MANAGEMENT_INTERFACE_SEND = 0x1d, "NVMe-MI Send";
        MANAGEMENT_INTERFACE_RECEIVE = 0x1e, "NVMe-MI Receive";
        CAPACITY_MANAGEMENT = 0x20, "Capacity Management";
        LOCKDOWN = 0x24, "Lockdown";
        CROSS_CONTROLLER_RESET = 0x38, "Cross-Controller Reset";
        DOORBELL_BUFFER_CONFIG = 0x7c, "Doorbell Buffer Config";
        FABRICS = 0x7f, "Fabrics Commands";
        FORMAT_NVM = 0x80, "Format NVM";
        SECURITY_SEND = 0x81, "Security Send";
        SECURITY_RECEIVE = 0x82, "Security Receive";
        SANITIZE = 0x84, "Sanitize";
        GET_LBA_STATUS = 0x86, "Get LBA Status";
    }
}

opcodes! {
    /// Commands of an I/O queue.
    io {
        FLUSH = 0x00, "Flush";
        WRITE = 0x01, "Write";
        READ = 0x02, "Read";
        WRITE_UNCORRECTABLE = 0x04, "Write Uncorrectable";
        COMPARE = 0x05, "Compare";
        WRITE_ZEROES = 0x08, "Write Zeroes";
        DATASET_MANAGEMENT = 0x09, "Dataset Management";
        VERIFY = 0x0c, "Verify";
        RESERVATION_REGISTER = 0x0d, "Reservation Register";
        RESERVATION_REPORT = 0x0e, "Reservation Report";
        RESERVATION_ACQUIRE = 0x11, "Reservation Acquire";
        IO_MANAGEMENT_RECEIVE = 0x12, "I/O Management Receive";
        RESERVATION_RELEASE = 0x15, "Reservation Release";
        CANCEL = 0x18, "Cancel";
        COPY = 0x19, "Copy";
        IO_MANAGEMENT_SEND = 0x1d, "I/O Management Send";
    }
}

/// The name of a command; of one that is not known, its number.
#[must_use]
pub fn name_of(fields: &NvmeFields) -> Cow<'static, str> {
    let (table, queue, vendor) =
        if fields.is_io { (io::ALL, "I/O", 0x80) } else { (admin::ALL, "admin", 0xc0) };
    if let Some((_, name)) = table.iter().find(|(opcode, _)| *opcode == fields.opcode) {
        return Cow::Borrowed(name);
    }
    let kind = if fields.opcode >= vendor { "vendor specific" } else { "unknown" };
    Cow::Owned(format!("{kind} {queue} command {:02x}h", fields.opcode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_names() {
        for table in [admin::ALL, io::ALL] {
            assert!(table.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
        let name =
            |is_io, opcode| name_of(&NvmeFields { is_io, opcode, ..NvmeFields::default() }).into_owned();
        assert_eq!(
            (name(false, 0x0d), name(true, 0x0d)),
            ("Namespace Management".into(), "Reservation Register".into())
        );
        assert_eq!(name(false, 0xc1), "vendor specific admin command c1h");
        assert_eq!(name(true, 0x7e), "unknown I/O command 7eh");
    }
}
