//! FIG. 7, the process segment pointer table: what one side of a connection has written and read.
//!
//! One A/B pair for each process id entry, with one writer. It is the writer's table of one direction
//! and, through its acknowledgements, the reader's marks for the other. An entry is a *hint*: nothing
//! is delivered because of it, only because the segment's own seal opens.
//!
//! The 57 entry places also carry small messages (flag IN_TABLE): nonce, tag and sealed body lie at the
//! end of the entry area, the entries grow towards them.

use bitflags::bitflags;
use volume::header::Header;
use volume::record::Rows;
use volume::{record, wire_flags};

use super::process_id_table::{CloseReason, EntryState, Role};

/// Where the entry places start.
pub const ENTRIES_OFFSET: usize = 384;
/// Bytes of all entry places.
pub const ENTRIES_BYTES: usize = 57 * 64;
/// Entry places.
pub const ENTRIES_MAX: usize = 57;
/// Bytes of one entry place.
pub const ENTRY_BYTES: usize = 64;
/// Negative acknowledgements, at most.
pub const NACKS_MAX: usize = 12;

bitflags! {
    /// `ptr_process_segment_flg`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct SegmentFlags: u16 {
        /// Last segment of its message.
        const LAST = 1;
        /// The payload stands in the header block.
        const INLINE = 2;
        /// The payload is compressed.
        const COMPRESSED = 4;
        /// The message is given up.
        const ABORT = 8;
        /// The payload is a run of messages.
        const CMD = 16;
        /// The payload stands in this very table.
        const IN_TABLE = 32;
        /// The payload is a run of small files.
        const PACK = 64;
    }
}
wire_flags!(SegmentFlags, u16);

bitflags! {
    /// Flags of a pointer table.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct TableFlags: u16 {
        /// The owner is closing.
        const CLOSING = 1;
    }
}
wire_flags!(TableFlags, u16);

record! {
    /// One entry of FIG. 7.
    pub struct PointerEntry: 64, "process segment pointer table entry" {
        /// Segment sequence number, from 1.
        0 => ptr_process_block_seq: u64,
        /// 0 for the first sending.
        8 => attempt: u16,
        /// Segment status flags.
        10 => ptr_process_segment_flg: SegmentFlags,
        /// Entry number in the device table.
        12 => device: u16,
        /// Size of the segment in blocks, header block included.
        14 => ptr_process_blk_read: u16,
        /// Starting block of the data segment on that device; with IN_TABLE the offset in the entry area.
        16 => ptr_process_segment_ptr: u64,
        /// Process request sequence number.
        24 => ptr_process_req_id: u64,
        /// Payload bytes before compression.
        32 => plain_bytes: u32,
        /// Payload bytes as stored.
        36 => stored_bytes: u32,
        /// First 16 bytes of the segment's seal.
        40 => seal_prefix: [u8; 16],
        /// Connection id, low half.
        56 => connection_id_low: u64,
    }
}

record! {
    /// A segment that did not open.
    pub struct Nack: 16, "negative acknowledgement" {
        /// Sequence number.
        0 => seq: u64,
        /// The attempt that did not open.
        8 => attempt: u16,
        /// 1 seal, 2 header, 3 read error.
        10 => reason: u16,
    }
}

record! {
    /// FIG. 7 with its acknowledgements.
    pub struct PointerTable: 4064, "process segment pointer table" {
        /// Common header.
        0 => header: Header,
        /// Connection id, full.
        64 => connection_id: [u8; 16],
        /// State, as in the process id entry.
        80 => state: EntryState,
        /// Initiator or connector.
        81 => role: Role,
        /// Flags.
        82 => flags: TableFlags,
        /// Serial of the connection.
        84 => serial: u32,
        /// +1 for each publication.
        88 => keep_alive: u64,
        /// Version of the owner's process id entry that the peer should have.
        96 => entry_version: u64,
        /// Highest command number taken from the peer's process id entry.
        104 => command_ack: u64,
        /// The peer's slot.
        112 => peer_process_id: u32,
        /// The peer's lane.
        116 => peer_host: u16,
        /// Why it closes.
        118 => close_reason: CloseReason,
        /// Incarnation of the peer.
        120 => peer_incarnation: u64,
        /// Every segment up to this was opened and is in memory.
        128 => received: u64,
        /// Every segment up to this is synced and journalled.
        136 => durable: u64,
        /// Highest sequence number the peer may publish.
        144 => window_limit: u64,
        /// Blocks of receive memory granted beyond `received`.
        152 => credits: u32,
        /// Entries of the nack list.
        156 => nack_count: u16,
        /// Bit i: segment `received` + 1 + i was read ahead of order.
        160 => read_flags: u64,
        /// Segments that did not open.
        192 => nacks: Rows<Nack, 12>,
        /// Entries and in-table messages: see [`PointerTable::entries`].
        384 => entry_area: [u8; 3648],
        /// Sequence number of entry 0.
        4032 => base_seq: u64,
        /// Entries.
        4040 => entry_count: u16,
    }
}

impl PointerTable {
    /// The entries; places that are all zeros are holes. `None` if one does not parse or there are too
    /// many.
    #[must_use]
    pub fn entries(&self) -> Option<Vec<Option<PointerEntry>>> {
        use volume::record::Record;
        let count = usize::from(self.entry_count);
        if count > ENTRIES_MAX {
            return None;
        }
        let places = self.entry_area.chunks_exact(ENTRY_BYTES).take(count);
        places
            .map(|place| {
                if place.iter().all(|byte| *byte == 0) {
                    return Some(None);
                }
                PointerEntry::parse(place).ok().map(Some)
            })
            .collect()
    }
}
