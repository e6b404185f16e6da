//! Beacon and bell: how a lane shows that it lives and whom it calls.
//!
//! The beacon has one writer, its owner; its content is a hint that never causes delivery. The bell is
//! the one block with several writers and carries no meaning: any change means "look at the beacons".

use volume::header::Header;
use volume::record::Rows;
use volume::{record, wire_enum};

wire_enum! {
    /// What a process is doing.
    pub enum BeaconState: u8 {
        /// Before its first poll.
        Starting = 1,
        /// At work.
        Running = 2,
        /// Ended in order.
        Leaving = 3,
    }
}

record! {
    /// One call: "lane `target_host`, look at my initiator entry `slot`".
    pub struct OutCall: 8, "out-directory entry" {
        /// Lane that is called.
        0 => target_host: u16,
        /// Initiator entry.
        2 => slot: u8,
        /// 1 = in use.
        3 => flags: u8,
        /// Serial of the use of the slot.
        4 => serial: u32,
    }
}

record! {
    /// A sign of life, written by its owner each period.
    pub struct Beacon: 4064, "beacon" {
        /// Common header.
        0 => header: Header,
        /// +1 for each write.
        64 => counter: u64,
        /// Random for each write.
        72 => token: [u8; 8],
        /// Milliseconds until the next write.
        80 => period_ms: u32,
        /// What the process is doing.
        84 => state: BeaconState,
        /// Incarnation nonce, full.
        88 => incarnation_nonce: [u8; 16],
        /// First 8 bytes of the own host record's seal.
        104 => enrolment_hash: [u8; 8],
        /// Calls in the out-directory.
        112 => entry_count: u16,
        /// The calls.
        128 => out_directory: Rows<OutCall, 256>,
        /// MAC under a key of the owner: only it can tell its own beacons from forged ones.
        2176 => owner_mac: [u8; 32],
    }
}

record! {
    /// A bell: written by whoever calls its owner, sealed by nobody.
    pub struct Bell: 4096, "bell" {
        /// Common header.
        0 => header: Header,
        /// Random for each ring.
        64 => ring_value: [u8; 32],
        /// Lane that rang.
        96 => ringer: u16,
    }
}
