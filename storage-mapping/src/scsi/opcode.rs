//! Operation codes and service actions (SPC-6, SBC-5), each with its name.
//!
//! Keeps true: a number and its name stand in one place; tables and constants come from the same rows. Not here: what a
//! command means for a path (`multipath::out_of_band`).

use std::borrow::Cow;

use super::number::u16_at;
use crate::control_port::Cdb;

macro_rules! opcodes {
    ($($name:ident = $code:literal, $text:literal;)+) => {
        $(#[doc = $text] pub const $name: u8 = $code;)+

        /// All operation codes of this module with their names, in the order of their numbers.
        pub const OPCODES: &[(u8, &str)] = &[$(($code, $text)),+];
    };
}

macro_rules! service_actions {
    ($($module:ident, $opcode:ident { $($name:ident = $code:literal, $text:literal;)+ })+) => {
        $(
            #[doc = concat!("Service actions of [`", stringify!($opcode), "`].")]
            pub mod $module {
                $(#[doc = $text] pub const $name: u16 = $code;)+
            }
        )+

        /// All service actions of this module: operation code, service action, name of the command.
        pub const SERVICE_ACTIONS: &[(u8, u16, &str)] = &[$($(($opcode, $code, $text),)+)+];
    };
}

opcodes! {
    TEST_UNIT_READY = 0x00, "TEST UNIT READY";
    REZERO_UNIT = 0x01, "REZERO UNIT";
    REQUEST_SENSE = 0x03, "REQUEST SENSE";
    FORMAT_UNIT = 0x04, "FORMAT UNIT";
    REASSIGN_BLOCKS = 0x07, "REASSIGN BLOCKS";
    READ_6 = 0x08, "READ(6)";
    WRITE_6 = 0x0a, "WRITE(6)";
    INQUIRY = 0x12, "INQUIRY";
    MODE_SELECT_6 = 0x15, "MODE SELECT(6)";
    RESERVE_6 = 0x16, "RESERVE(6)";
    RELEASE_6 = 0x17, "RELEASE(6)";
    MODE_SENSE_6 = 0x1a, "MODE SENSE(6)";
    START_STOP_UNIT = 0x1b, "START STOP UNIT";
    RECEIVE_DIAGNOSTIC_RESULTS = 0x1c, "RECEIVE DIAGNOSTIC RESULTS";
    SEND_DIAGNOSTIC = 0x1d, "SEND DIAGNOSTIC";
    PREVENT_ALLOW_MEDIUM_REMOVAL = 0x1e, "PREVENT ALLOW MEDIUM REMOVAL";
    READ_CAPACITY_10 = 0x25, "READ CAPACITY(10)";
    READ_10 = 0x28, "READ(10)";
    WRITE_10 = 0x2a, "WRITE(10)";
    WRITE_AND_VERIFY_10 = 0x2e, "WRITE AND VERIFY(10)";
    VERIFY_10 = 0x2f, "VERIFY(10)";
    PRE_FETCH_10 = 0x34, "PRE-FETCH(10)";
    SYNCHRONIZE_CACHE_10 = 0x35, "SYNCHRONIZE CACHE(10)";
    READ_DEFECT_DATA_10 = 0x37, "READ DEFECT DATA(10)";
    WRITE_BUFFER = 0x3b, "WRITE BUFFER";
    READ_BUFFER_10 = 0x3c, "READ BUFFER(10)";
    READ_LONG_10 = 0x3e, "READ LONG(10)";
    WRITE_LONG_10 = 0x3f, "WRITE LONG(10)";
    WRITE_SAME_10 = 0x41, "WRITE SAME(10)";
    UNMAP = 0x42, "UNMAP";
    SANITIZE = 0x48, "SANITIZE";
    LOG_SELECT = 0x4c, "LOG SELECT";
    LOG_SENSE = 0x4d, "LOG SENSE";
    XDWRITE_10 = 0x50, "XDWRITE(10)";
    XPWRITE_10 = 0x51, "XPWRITE(10)";
    XDREAD_10 = 0x52, "XDREAD(10)";
    XDWRITEREAD_10 = 0x53, "XDWRITEREAD(10)";
    MODE_SELECT_10 = 0x55, "MODE SELECT(10)";
    RESERVE_10 = 0x56, "RESERVE(10)";
    RELEASE_10 = 0x57, "RELEASE(10)";
    MODE_SENSE_10 = 0x5a, "MODE SENSE(10)";
    PERSISTENT_RESERVE_IN = 0x5e, "PERSISTENT RESERVE IN";
    PERSISTENT_RESERVE_OUT = 0x5f, "PERSISTENT RESERVE OUT";
    EXTENDED_CDB = 0x7e, "extended command";
    VARIABLE_LENGTH_CDB = 0x7f, "variable length command";
    THIRD_PARTY_COPY_OUT = 0x83, "THIRD-PARTY COPY OUT";
    THIRD_PARTY_COPY_IN = 0x84, "THIRD-PARTY COPY IN";
    ATA_PASS_THROUGH_16 = 0x85, "ATA PASS-THROUGH(16)";
    ACCESS_CONTROL_IN = 0x86, "ACCESS CONTROL IN";
    ACCESS_CONTROL_OUT = 0x87, "ACCESS CONTROL OUT";
    READ_16 = 0x88, "READ(16)";
    COMPARE_AND_WRITE = 0x89, "COMPARE AND WRITE";
    WRITE_16 = 0x8a, "WRITE(16)";
    ORWRITE_16 = 0x8b, "ORWRITE(16)";
    READ_ATTRIBUTE = 0x8c, "READ ATTRIBUTE";
    WRITE_ATTRIBUTE = 0x8d, "WRITE ATTRIBUTE";
    WRITE_AND_VERIFY_16 = 0x8e, "WRITE AND VERIFY(16)";
    VERIFY_16 = 0x8f, "VERIFY(16)";
    PRE_FETCH_16 = 0x90, "PRE-FETCH(16)";
    SYNCHRONIZE_CACHE_16 = 0x91, "SYNCHRONIZE CACHE(16)";
    WRITE_SAME_16 = 0x93, "WRITE SAME(16)";
    ZBC_OUT = 0x94, "ZBC OUT";
    ZBC_IN = 0x95, "ZBC IN";
    WRITE_STREAM_16 = 0x9a, "WRITE STREAM(16)";
    READ_BUFFER_16 = 0x9b, "READ BUFFER(16)";
    WRITE_ATOMIC_16 = 0x9c, "WRITE ATOMIC(16)";
    SERVICE_ACTION_IN_16 = 0x9e, "SERVICE ACTION IN(16)";
    SERVICE_ACTION_OUT_16 = 0x9f, "SERVICE ACTION OUT(16)";
    REPORT_LUNS = 0xa0, "REPORT LUNS";
    ATA_PASS_THROUGH_12 = 0xa1, "ATA PASS-THROUGH(12)";
    SECURITY_PROTOCOL_IN = 0xa2, "SECURITY PROTOCOL IN";
    MAINTENANCE_IN = 0xa3, "MAINTENANCE IN";
    MAINTENANCE_OUT = 0xa4, "MAINTENANCE OUT";
    READ_12 = 0xa8, "READ(12)";
    WRITE_12 = 0xaa, "WRITE(12)";
    WRITE_AND_VERIFY_12 = 0xae, "WRITE AND VERIFY(12)";
    VERIFY_12 = 0xaf, "VERIFY(12)";
    SECURITY_PROTOCOL_OUT = 0xb5, "SECURITY PROTOCOL OUT";
    READ_DEFECT_DATA_12 = 0xb7, "READ DEFECT DATA(12)";
}

service_actions! {
    sanitize, SANITIZE {
        OVERWRITE = 0x01, "SANITIZE, OVERWRITE";
        BLOCK_ERASE = 0x02, "SANITIZE, BLOCK ERASE";
        CRYPTOGRAPHIC_ERASE = 0x03, "SANITIZE, CRYPTOGRAPHIC ERASE";
        EXIT_FAILURE_MODE = 0x1f, "SANITIZE, EXIT FAILURE MODE";
    }
    persistent_reserve_in, PERSISTENT_RESERVE_IN {
        READ_KEYS = 0x00, "PERSISTENT RESERVE IN, READ KEYS";
        READ_RESERVATION = 0x01, "PERSISTENT RESERVE IN, READ RESERVATION";
        REPORT_CAPABILITIES = 0x02, "PERSISTENT RESERVE IN, REPORT CAPABILITIES";
        READ_FULL_STATUS = 0x03, "PERSISTENT RESERVE IN, READ FULL STATUS";
    }
    persistent_reserve_out, PERSISTENT_RESERVE_OUT {
        REGISTER = 0x00, "PERSISTENT RESERVE OUT, REGISTER";
        RESERVE = 0x01, "PERSISTENT RESERVE OUT, RESERVE";
        RELEASE = 0x02, "PERSISTENT RESERVE OUT, RELEASE";
        CLEAR = 0x03, "PERSISTENT RESERVE OUT, CLEAR";
        PREEMPT = 0x04, "PERSISTENT RESERVE OUT, PREEMPT";
        PREEMPT_AND_ABORT = 0x05, "PERSISTENT RESERVE OUT, PREEMPT AND ABORT";
        REGISTER_AND_IGNORE = 0x06, "PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY";
        REGISTER_AND_MOVE = 0x07, "PERSISTENT RESERVE OUT, REGISTER AND MOVE";
        REPLACE_LOST_RESERVATION = 0x08, "PERSISTENT RESERVE OUT, REPLACE LOST RESERVATION";
    }
    variable_length, VARIABLE_LENGTH_CDB {
        XDREAD_32 = 0x0003, "XDREAD(32)";
        XDWRITE_32 = 0x0004, "XDWRITE(32)";
        XPWRITE_32 = 0x0006, "XPWRITE(32)";
        XDWRITEREAD_32 = 0x0007, "XDWRITEREAD(32)";
        READ_32 = 0x0009, "READ(32)";
        VERIFY_32 = 0x000a, "VERIFY(32)";
        WRITE_32 = 0x000b, "WRITE(32)";
        WRITE_AND_VERIFY_32 = 0x000c, "WRITE AND VERIFY(32)";
        WRITE_SAME_32 = 0x000d, "WRITE SAME(32)";
        ORWRITE_32 = 0x000e, "ORWRITE(32)";
    }
    third_party_copy_out, THIRD_PARTY_COPY_OUT {
        EXTENDED_COPY_LID1 = 0x00, "EXTENDED COPY(LID1)";
        EXTENDED_COPY_LID4 = 0x01, "EXTENDED COPY(LID4)";
        POPULATE_TOKEN = 0x10, "POPULATE TOKEN";
        WRITE_USING_TOKEN = 0x11, "WRITE USING TOKEN";
        COPY_OPERATION_ABORT = 0x1c, "COPY OPERATION ABORT";
    }
    third_party_copy_in, THIRD_PARTY_COPY_IN {
        RECEIVE_COPY_STATUS_LID1 = 0x00, "RECEIVE COPY STATUS(LID1)";
        RECEIVE_COPY_DATA_LID1 = 0x01, "RECEIVE COPY DATA(LID1)";
        RECEIVE_COPY_OPERATING_PARAMETERS = 0x03, "RECEIVE COPY OPERATING PARAMETERS";
        RECEIVE_COPY_FAILURE_DETAILS_LID1 = 0x04, "RECEIVE COPY FAILURE DETAILS(LID1)";
        RECEIVE_COPY_STATUS_LID4 = 0x05, "RECEIVE COPY STATUS(LID4)";
        RECEIVE_COPY_DATA_LID4 = 0x06, "RECEIVE COPY DATA(LID4)";
        RECEIVE_ROD_TOKEN_INFORMATION = 0x07, "RECEIVE ROD TOKEN INFORMATION";
        REPORT_ALL_ROD_TOKENS = 0x08, "REPORT ALL ROD TOKENS";
    }
    zbc_out, ZBC_OUT {
        CLOSE_ZONE = 0x01, "CLOSE ZONE";
        FINISH_ZONE = 0x02, "FINISH ZONE";
        OPEN_ZONE = 0x03, "OPEN ZONE";
        RESET_WRITE_POINTER = 0x04, "RESET WRITE POINTER";
    }
    zbc_in, ZBC_IN {
        REPORT_ZONES = 0x00, "REPORT ZONES";
    }
    service_action_in_16, SERVICE_ACTION_IN_16 {
        READ_CAPACITY_16 = 0x10, "READ CAPACITY(16)";
        READ_LONG_16 = 0x11, "READ LONG(16)";
        GET_LBA_STATUS_16 = 0x12, "GET LBA STATUS(16)";
        REPORT_REFERRALS = 0x13, "REPORT REFERRALS";
        STREAM_CONTROL = 0x14, "STREAM CONTROL";
        BACKGROUND_CONTROL = 0x15, "BACKGROUND CONTROL";
        GET_STREAM_STATUS = 0x16, "GET STREAM STATUS";
    }
    service_action_out_16, SERVICE_ACTION_OUT_16 {
        WRITE_LONG_16 = 0x11, "WRITE LONG(16)";
    }
    maintenance_in, MAINTENANCE_IN {
        REPORT_IDENTIFYING_INFORMATION = 0x05, "REPORT IDENTIFYING INFORMATION";
        REPORT_TARGET_PORT_GROUPS = 0x0a, "REPORT TARGET PORT GROUPS";
        REPORT_ALIASES = 0x0b, "REPORT ALIASES";
        REPORT_SUPPORTED_OPERATION_CODES = 0x0c, "REPORT SUPPORTED OPERATION CODES";
        REPORT_SUPPORTED_TASK_MANAGEMENT = 0x0d, "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS";
        REPORT_PRIORITY = 0x0e, "REPORT PRIORITY";
        REPORT_TIMESTAMP = 0x0f, "REPORT TIMESTAMP";
        MANAGEMENT_PROTOCOL_IN = 0x10, "MANAGEMENT PROTOCOL IN";
    }
    maintenance_out, MAINTENANCE_OUT {
        SET_IDENTIFYING_INFORMATION = 0x06, "SET IDENTIFYING INFORMATION";
        SET_TARGET_PORT_GROUPS = 0x0a, "SET TARGET PORT GROUPS";
        CHANGE_ALIASES = 0x0b, "CHANGE ALIASES";
        SET_PRIORITY = 0x0e, "SET PRIORITY";
        SET_TIMESTAMP = 0x0f, "SET TIMESTAMP";
        MANAGEMENT_PROTOCOL_OUT = 0x10, "MANAGEMENT PROTOCOL OUT";
    }
}

/// Whether commands of this operation code have a service action.
#[must_use]
pub fn has_service_actions(opcode: u8) -> bool {
    SERVICE_ACTIONS.iter().any(|(own, ..)| *own == opcode)
}

/// The service action of a command, where its operation code has them.
#[must_use]
pub fn service_action(cdb: &Cdb) -> Option<u16> {
    let bytes = cdb.bytes();
    match cdb.opcode() {
        VARIABLE_LENGTH_CDB => u16_at(bytes, 8),
        opcode if has_service_actions(opcode) => bytes.get(1).map(|byte| u16::from(byte & 0x1f)),
        _ => None,
    }
}

/// How many bytes a command of this operation code has; `None` for 7Eh, 7Fh and those of the vendor.
#[must_use]
pub fn cdb_bytes(opcode: u8) -> Option<usize> {
    match opcode {
        0x00..=0x1f => Some(6),
        0x20..=0x5f => Some(10),
        0x80..=0x9f => Some(16),
        0xa0..=0xbf => Some(12),
        _ => None,
    }
}

/// Whether an operation code or a service action is the vendor's: nobody else knows what it does.
#[must_use]
pub fn is_vendor_specific(cdb: &Cdb) -> bool {
    let action = service_action(cdb);
    match cdb.opcode() {
        0xc0..=0xff => true,
        MAINTENANCE_IN | MAINTENANCE_OUT => action == Some(0x1f),
        VARIABLE_LENGTH_CDB => action.is_some_and(|action| action >= 0xf800),
        _ => false,
    }
}

/// The name of a command: `READ(10)`, `PERSISTENT RESERVE OUT, PREEMPT AND ABORT`; of one that is not known, its numbers.
#[must_use]
pub fn name_of(cdb: &Cdb) -> Cow<'static, str> {
    let (opcode, action) = (cdb.opcode(), service_action(cdb));
    let of_action = action.and_then(|action| {
        SERVICE_ACTIONS.iter().find(|(own, number, _)| (*own, *number) == (opcode, action))
    });
    if let Some((.., name)) = of_action {
        return Cow::Borrowed(name);
    }
    let name = OPCODES.iter().find(|(own, _)| *own == opcode).map(|(_, name)| *name);
    match (name, action) {
        (Some(name), Some(action)) => Cow::Owned(format!("{name}, service action {action:02x}h")),
        (Some(name), None) => Cow::Borrowed(name),
        (None, _) if is_vendor_specific(cdb) => Cow::Owned(format!("vendor specific command {opcode:02x}h")),
        (None, _) => Cow::Owned(format!("unknown command {opcode:02x}h")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(bytes: &[u8]) -> String {
        name_of(&Cdb::new(bytes).unwrap()).into_owned()
    }

    #[test]
    fn tables_are_in_order_and_have_no_row_twice() {
        assert!(OPCODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (opcode, action, name) in SERVICE_ACTIONS {
            let same = SERVICE_ACTIONS.iter().filter(|(o, a, n)| (o, a) == (opcode, action) || n == name);
            assert_eq!(same.count(), 1, "{name}");
            assert!(OPCODES.iter().any(|(own, _)| own == opcode));
        }
    }

    #[test]
    fn commands_have_names() {
        assert_eq!(name(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]), "READ(10)");
        assert_eq!(name(&[0x5f, 5, 1, 0, 0, 0, 0, 0, 24, 0]), "PERSISTENT RESERVE OUT, PREEMPT AND ABORT");
        assert_eq!(
            name(&[0x5f, 0x1e, 1, 0, 0, 0, 0, 0, 24, 0]),
            "PERSISTENT RESERVE OUT, service action 1eh"
        );
        assert_eq!(name(&[&[0x9e, 0x10][..], &[0; 14]].concat()), "READ CAPACITY(16)");
        assert_eq!(name(&[&[0x7f, 0, 0, 0, 0, 0, 0, 0x18, 0, 0x0b][..], &[0; 22]].concat()), "WRITE(32)");
        assert_eq!(name(&[0xc1, 0, 0, 0, 0, 0]), "vendor specific command c1h");
        assert_eq!(name(&[0x02, 0, 0, 0, 0, 0]), "unknown command 02h");
        // A variable length command without its bytes has no service action.
        assert_eq!(name(&[0x7f, 0, 0, 0, 0, 0]), "variable length command");
        assert!(is_vendor_specific(&Cdb::new(&[&[0xa3, 0x1f][..], &[0; 8]].concat()).unwrap()));
        assert_eq!((cdb_bytes(REPORT_LUNS), cdb_bytes(INQUIRY), cdb_bytes(0xc0)), (Some(12), Some(6), None));
    }
}
