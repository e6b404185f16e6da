//! The control area of a lane: its incarnation record and its in-directory, both as A/B pairs.

use volume::header::Header;
use volume::record;
use volume::record::Rows;

record! {
    /// Which life of the owner this is.
    pub struct IncarnationRecord: 4064, "incarnation record" {
        /// Common header.
        0 => header: Header,
        /// Incarnation nonce, full: random for each incarnation.
        64 => incarnation_nonce: [u8; 16],
        /// MAC under a key of the owner.
        96 => owner_mac: [u8; 32],
    }
}

/// `state` of an in-directory entry: answered by an entry of the process id table.
pub const IN_STATE_ANSWERED: u8 = 1;
/// `state` of an in-directory entry from here on: refused, with `pro_con_rc` = state − 16.
pub const IN_STATE_REFUSED: u8 = 16;

record! {
    /// One answer: "your call of `initiator_slot` is answered in my connector entry".
    pub struct InCall: 12, "in-directory entry" {
        /// Lane that called.
        0 => initiator_host: u16,
        /// Its initiator entry.
        2 => initiator_slot: u8,
        /// 0 = none, 1 = answered, 16 + code = refused.
        3 => state: u8,
        /// Serial of the call.
        4 => serial: u32,
        /// Connector entry (row number of the connector entries, from 0).
        8 => connector_entry: u16,
    }
}

record! {
    /// The answers of a connector.
    pub struct InDirectory: 4064, "in-directory" {
        /// Common header.
        0 => header: Header,
        /// Entries in use.
        64 => entry_count: u16,
        /// The answers.
        128 => in_directory: Rows<InCall, 256>,
        /// MAC under a key of the owner.
        3200 => owner_mac: [u8; 32],
    }
}
