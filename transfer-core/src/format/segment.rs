//! The header block of a data segment: what it is, whose, and the seal over all of it.
//!
//! The reader builds bytes 0–255 from what it *expects* and opens the seal with them as associated
//! data; only nonce, file offset and codec are taken as stored. A payload of up to 3,840 bytes stands
//! in the header block itself.

use volume::header::Header;
use volume::record::Record;
use volume::{record, wire_enum};

use super::process_segment_pointer_table::SegmentFlags;

/// Where an inline payload stands.
pub const INLINE_OFFSET: usize = 256;
/// Bytes of an inline payload, at most.
pub const INLINE_MAX_BYTES: usize = 3840;
/// Bytes of the header that are associated data.
pub const ASSOCIATED_BYTES: usize = 256;
/// Where the nonce stands.
pub const NONCE_OFFSET: usize = 128;
/// Where the seal stands; its bytes are zero in the associated data.
pub const SEAL_RANGE: std::ops::Range<usize> = 152..184;

wire_enum! {
    /// Which way a segment goes.
    pub enum Direction: u8 {
        /// Initiator to connector.
        ToConnector = 1,
        /// Connector to initiator.
        ToInitiator = 2,
    }
}

wire_enum! {
    /// What the payload is.
    pub enum Kind: u8 {
        /// Bytes of a file or stream.
        Data = 1,
        /// A run of messages.
        Command = 2,
        /// A run of small files.
        Pack = 3,
    }
}

record! {
    /// The first 256 bytes of a segment.
    pub struct SegmentHeader: 256, "segment header" {
        /// Common header.
        0 => header: Header,
        /// Connection id.
        64 => connection_id: [u8; 16],
        /// Direction.
        80 => direction: Direction,
        /// Kind.
        81 => kind: Kind,
        /// As in the pointer entry.
        82 => flags: SegmentFlags,
        /// 0 for the first sending.
        84 => attempt: u32,
        /// Sequence number.
        88 => seq: u64,
        /// Request.
        96 => request_id: u64,
        /// Offset of the payload in its file.
        104 => file_offset: u64,
        /// Payload bytes before compression.
        112 => plain_bytes: u32,
        /// Payload bytes as stored.
        116 => stored_bytes: u32,
        /// 0 none, 1 zstd.
        120 => codec: u8,
        /// Nonce of the seal.
        128 => nonce: [u8; 24],
        /// Seal: 16 bytes of tag and zeros.
        152 => seal: [u8; 32],
    }
}

const _: () = assert!(<SegmentHeader as Record>::FIELDS[13].offset == SEAL_RANGE.start);
