//! FIG. 5, the process id table: one entry is one connection slot, seen from one side.
//!
//! A lane has M initiator entries and M connector entries, each an A/B pair. An initiator entry holds
//! `pro_dtd`, the commands to the connector; a connector entry holds `InitM`, those to the initiator,
//! at the same place. Where the sheet has a password stands the handshake. A *connection* is a pair of
//! entries; the pair is used for opening, closing and errors, and rests while data flows.

use bitflags::bitflags;
use volume::header::Header;
use volume::record::Text;
use volume::{record, wire_enum, wire_flags};

use super::host_table::OsType;

wire_enum! {
    /// State of an entry.
    pub enum EntryState: u8 {
        /// Not in use.
        Free = 0,
        /// Initiator: wants a connection.
        Requested = 1,
        /// Connector: answered.
        Answered = 2,
        /// Connected.
        Established = 3,
        /// No new segments or commands.
        Draining = 4,
        /// Ended.
        Closed = 5,
    }
}

wire_enum! {
    /// `pro_con_rc`: why a connection ended.
    pub enum CloseReason: u16 {
        /// It did not.
        None = 0,
        /// Done.
        Done = 1,
        /// Not allowed.
        NotAllowed = 2,
        /// Version or suite mismatch.
        VersionMismatch = 3,
        /// Limit reached.
        LimitReached = 4,
        /// Handshake failed.
        HandshakeFailed = 5,
        /// The peer gave no sign of life.
        PeerLost = 6,
        /// Closed by the peer.
        ClosedByPeer = 7,
        /// Segments did not get through.
        DeviceUnreliable = 8,
        /// A device does not answer.
        DeviceStuck = 9,
        /// Another process has the same identity.
        DuplicateIdentity = 10,
        /// The peer broke the protocol.
        ProtocolViolated = 11,
        /// The process ends.
        ShuttingDown = 12,
    }
}

wire_enum! {
    /// Which half of a pair an entry is.
    pub enum Role: u8 {
        /// Of a record that was never used.
        None = 0,
        /// Opens connections.
        Initiator = 1,
        /// Answers them.
        Connector = 2,
    }
}

wire_enum! {
    /// Cipher and integrity suite.
    pub enum Suite: u16 {
        /// Of a record that was never used.
        None = 0,
        /// XAES-256-GCM for data, keyed BLAKE3 for pages.
        Xaes256Gcm = 1,
        /// XChaCha20-Poly1305 for data, keyed BLAKE3 for pages.
        XChaCha20Poly1305 = 2,
    }
}

bitflags! {
    /// `pro_flag_process`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ProcessFlags: u16 {
        /// A command is in place.
        const COMMAND = 1;
        /// The owner is closing.
        const CLOSING = 2;
    }
}
wire_flags!(ProcessFlags, u16);

/// Bytes of a command's sealed body, at most.
pub const COMMAND_BODY_MAX_BYTES: usize = 1984;
/// Bytes of a handshake message, at most.
pub const HANDSHAKE_MAX_BYTES: usize = 1016;

record! {
    /// `pro_dtd` and `InitM`: one sealed command.
    pub struct CommandStructure: 2048, "command structure" {
        /// What it asks; 0 = none.
        0 => opcode: u16,
        /// Length of the body.
        2 => body_length: u16,
        /// Bit 0: the body is sealed.
        4 => flags: u16,
        /// Request it belongs to.
        8 => request_id: u64,
        /// 1, 2, 3 … for each connection and direction.
        16 => command_number: u64,
        /// Tag of the seal.
        24 => tag: [u8; 16],
        /// Nonce of the seal.
        40 => nonce: [u8; 24],
        /// Body, sealed.
        64 => body: [u8; 1984],
    }
}

impl CommandStructure {
    /// No command.
    #[must_use]
    pub fn none() -> Self {
        Self {
            opcode: 0,
            body_length: 0,
            flags: 0,
            request_id: 0,
            command_number: 0,
            tag: [0; 16],
            nonce: [0; 24],
            body: [0; 1984],
        }
    }
}

record! {
    /// FIG. 5: one entry of the process id table.
    pub struct ProcessIdEntry: 4064, "process id table entry" {
        /// Common header.
        0 => header: Header,
        /// Connection id; zero before the handshake has ended.
        64 => connection_id: [u8; 16],
        /// Process (connection) id: the number of this slot.
        80 => pro_process_id: u32,
        /// The peer's slot; 0xFFFFFFFF = not known.
        84 => peer_process_id: u32,
        /// Process flags.
        88 => pro_flag_process: ProcessFlags,
        /// Initiator or connector.
        90 => role: Role,
        /// State.
        91 => state: EntryState,
        /// Status code.
        92 => pro_con_rc: CloseReason,
        /// The peer's lane.
        94 => peer_host: u16,
        /// +1 for each use of the initiator's slot; the connector repeats it.
        96 => serial: u32,
        /// Cipher and integrity suite.
        100 => suite: Suite,
        /// Segments in flight, at most.
        102 => window: u16,
        /// Payload of a segment, agreed for this connection.
        104 => seg_max: u32,
        /// Operating system of the initiator.
        108 => pro_requestor_type: OsType,
        /// Operating system of the connector.
        110 => pro_requestee_type: OsType,
        /// Incarnation of the peer.
        112 => peer_incarnation: u64,
        /// Own nonce.
        120 => own_nonce: [u8; 16],
        /// The peer's nonce, repeated.
        136 => peer_nonce: [u8; 16],
        /// Name of the initiator.
        256 => pro_requestor: Text<64>,
        /// Name of the connector.
        320 => pro_requestee: Text<64>,
        /// In the place of `pro_requestor_password`: length of the handshake message.
        384 => handshake_length: u16,
        /// Number of the handshake message; 0 = none.
        386 => handshake_number: u8,
        /// The handshake message.
        392 => pro_requestor_password: [u8; 1016],
        /// `pro_dtd` in an initiator's entry, `InitM` in a connector's.
        1408 => pro_dtd: CommandStructure,
    }
}

impl ProcessIdEntry {
    /// An entry as it is before its first use in an incarnation.
    #[must_use]
    pub fn unused(header: Header, process_id: u32, role: Role, state: EntryState) -> Self {
        Self {
            header,
            connection_id: [0; 16],
            pro_process_id: process_id,
            peer_process_id: u32::MAX,
            pro_flag_process: ProcessFlags::empty(),
            role,
            state,
            pro_con_rc: CloseReason::None,
            peer_host: u16::MAX,
            serial: 0,
            suite: Suite::None,
            window: 0,
            seg_max: 0,
            pro_requestor_type: OsType::Unknown,
            pro_requestee_type: OsType::Unknown,
            peer_incarnation: 0,
            own_nonce: [0; 16],
            peer_nonce: [0; 16],
            pro_requestor: Text::default(),
            pro_requestee: Text::default(),
            handshake_length: 0,
            handshake_number: 0,
            pro_requestor_password: [0; HANDSHAKE_MAX_BYTES],
            pro_dtd: CommandStructure::none(),
        }
    }

    /// The handshake message, if there is one.
    #[must_use]
    pub fn handshake(&self) -> Option<&[u8]> {
        self.pro_requestor_password.get(..usize::from(self.handshake_length))
    }

    /// Puts a handshake message into its place.
    ///
    /// # Panics
    /// If it is longer than [`HANDSHAKE_MAX_BYTES`].
    pub fn set_handshake(&mut self, number: u8, message: &[u8]) {
        self.pro_requestor_password = [0; HANDSHAKE_MAX_BYTES];
        self.pro_requestor_password[..message.len()].copy_from_slice(message);
        self.handshake_length = u16::try_from(message.len()).expect("at most 1,016");
        self.handshake_number = number;
    }
}
