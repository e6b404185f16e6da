//! Values of the records of this crate; the machinery is that of `volume`'s tests.

#![allow(dead_code, reason = "each test uses its part")]

#[path = "../../../volume/tests/support/mod.rs"]
#[macro_use]
mod machinery;

pub(crate) use machinery::*;

use transfer_core::format::beacon::{Beacon, BeaconState, Bell, OutCall};
use transfer_core::format::control_area::{InCall, InDirectory, IncarnationRecord};
use transfer_core::format::host_table::{Extent, HostFlags, HostRecord, OsType, PoolRange};
use transfer_core::format::process_id_table::{
    CloseReason, CommandStructure, EntryState, ProcessFlags, ProcessIdEntry, Role, Suite,
};
use transfer_core::format::process_segment_pointer_table::{
    Nack, PointerEntry, PointerTable, SegmentFlags, TableFlags,
};
use transfer_core::format::segment::{Direction, Kind, SegmentHeader};
use transfer_core::protocol::handshake::Hello;

sample_enum!(BeaconState, OsType, EntryState, CloseReason, Role, Suite, Direction, Kind);
sample_flags!(HostFlags, ProcessFlags, SegmentFlags, TableFlags);
sample_record! {
    OutCall { target_host, slot, flags, serial }
    Beacon {
        header, counter, token, period_ms, state, incarnation_nonce, enrolment_hash, entry_count,
        out_directory, owner_mac,
    }
    Bell { header, ring_value, ringer }
    IncarnationRecord { header, incarnation_nonce, owner_mac }
    InCall { initiator_host, initiator_slot, state, serial, connector_entry }
    InDirectory { header, entry_count, in_directory, owner_mac }
    Extent { device, start, blocks }
    PoolRange { first_segment, count }
    HostRecord {
        header, host_id, os_type, flags, name, public_key, control_area, process_id_rows, pointer_tables,
        range_count, lane, pool_ranges, admin_signature,
    }
    CommandStructure { opcode, body_length, flags, request_id, command_number, tag, nonce, body }
    ProcessIdEntry {
        header, connection_id, pro_process_id, peer_process_id, pro_flag_process, role, state, pro_con_rc,
        peer_host, serial, suite, window, seg_max, pro_requestor_type, pro_requestee_type, peer_incarnation,
        own_nonce, peer_nonce, pro_requestor, pro_requestee, handshake_length, handshake_number,
        pro_requestor_password, pro_dtd,
    }
    PointerEntry {
        ptr_process_block_seq, attempt, ptr_process_segment_flg, device, ptr_process_blk_read,
        ptr_process_segment_ptr, ptr_process_req_id, plain_bytes, stored_bytes, seal_prefix,
        connection_id_low,
    }
    Nack { seq, attempt, reason }
    PointerTable {
        header, connection_id, state, role, flags, serial, keep_alive, entry_version, command_ack,
        peer_process_id, peer_host, close_reason, peer_incarnation, received, durable, window_limit, credits,
        nack_count, read_flags, nacks, entry_area, base_seq, entry_count,
    }
    Hello { protocol_version, window, seg_max, process_id, lane, incarnation, incarnation_nonce, nonce }
    SegmentHeader {
        header, connection_id, direction, kind, flags, attempt, seq, request_id, file_offset, plain_bytes,
        stored_bytes, codec, nonce, seal,
    }
}
