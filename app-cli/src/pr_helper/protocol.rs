//! The helper protocol of QEMU for persistent reservations, as bytes.
//!
//! ```text
//!   helper                                        client (a virtual machine's process)
//!     ── features, 4 bytes, 0 ──────────────────▶
//!     ◀───────────────── the client's, 4 bytes ──
//!     ◀── 16 bytes: command descriptor block, with one descriptor of the disk (SCM_RIGHTS)
//!     ◀── PERSISTENT RESERVE OUT: its parameters, as many as the block says
//!     ── 104 bytes: status, size, 96 of sense ──▶
//!     ── PERSISTENT RESERVE IN that is GOOD: size bytes of data ──▶
//! ```
//!
//! Numbers are big-endian; one command at a time. Source: `pr-helper` of QEMU's manual ("Persistent reservation helper
//! protocol").
//!
//! Keeps true: a request that is not of this protocol ends its connection, for what follows it has no known place; lengths are
//! within [`DATA_MAX_BYTES`]. Not here: sockets (`server`), who executes.

use byteorder::{BigEndian, ByteOrder};

/// What either side can do beyond the protocol: nothing.
pub const FEATURES: [u8; 4] = [0; 4];
/// Bytes of a request before its parameters.
pub const REQUEST_BYTES: usize = 16;
/// Bytes of a response before its data.
pub const RESPONSE_BYTES: usize = 104;
/// The most data of a command, either way.
pub const DATA_MAX_BYTES: usize = 8192;
/// Bytes of sense data in a response.
const SENSE_BYTES: usize = 96;

const PERSISTENT_RESERVE_IN: u8 = 0x5e;
const PERSISTENT_RESERVE_OUT: u8 = 0x5f;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrRequest {
    /// PERSISTENT RESERVE IN.
    In {
        /// Its command descriptor block.
        cdb: [u8; 10],
        /// The most bytes that it brings.
        length: usize,
    },
    /// PERSISTENT RESERVE OUT; parameters follow.
    Out {
        /// Its command descriptor block.
        cdb: [u8; 10],
        /// Bytes of parameters that follow.
        length: usize,
    },
}

/// Bytes that are no request of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotARequest {
    /// Another command.
    #[error("opcode {0:02x}h is neither PERSISTENT RESERVE IN nor OUT")]
    Opcode(u8),
    /// More than the protocol carries.
    #[error("{0} bytes are too many: {DATA_MAX_BYTES} are the most")]
    TooLong(usize),
}

impl PrRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// See [`NotARequest`].
    pub fn parse(bytes: &[u8; REQUEST_BYTES]) -> Result<Self, NotARequest> {
        let mut cdb = [0; 10];
        cdb.copy_from_slice(&bytes[..10]);
        let (request, length) = match cdb[0] {
            PERSISTENT_RESERVE_IN => {
                let length = usize::from(BigEndian::read_u16(&cdb[7..9]));
                (Self::In { cdb, length }, length)
            }
            PERSISTENT_RESERVE_OUT => {
                let length = usize::try_from(BigEndian::read_u32(&cdb[5..9])).unwrap_or(usize::MAX);
                (Self::Out { cdb, length }, length)
            }
            opcode => return Err(NotARequest::Opcode(opcode)),
        };
        if length > DATA_MAX_BYTES { Err(NotARequest::TooLong(length)) } else { Ok(request) }
    }

    /// Bytes of parameters that follow the request.
    #[must_use]
    pub fn parameter_bytes(&self) -> usize {
        match self {
            Self::In { .. } => 0,
            Self::Out { length, .. } => *length,
        }
    }
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrResponse {
    /// SCSI status.
    pub status: u8,
    /// Sense data; what is beyond 96 bytes is left out.
    pub sense: Vec<u8>,
    /// Data of a PERSISTENT RESERVE IN that is GOOD.
    pub data: Vec<u8>,
}

impl PrResponse {
    /// A CHECK CONDITION with fixed sense data (SPC-5 4.4.3).
    #[must_use]
    pub fn check_condition(key: u8, asc: u8, ascq: u8) -> Self {
        let mut sense = vec![0; 18];
        (sense[0], sense[2], sense[7], sense[12], sense[13]) = (0x70, key, 10, asc, ascq);
        Self { status: 0x02, sense, data: Vec::new() }
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let is_good = self.status == 0;
        let data = if is_good { &self.data[..self.data.len().min(DATA_MAX_BYTES)] } else { &[] };
        let mut bytes = vec![0; RESPONSE_BYTES];
        BigEndian::write_u32(&mut bytes[..4], self.status.into());
        BigEndian::write_u32(&mut bytes[4..8], u32::try_from(data.len()).expect("at most 8 KiB"));
        let sense = &self.sense[..self.sense.len().min(SENSE_BYTES)];
        bytes[8..8 + sense.len()].copy_from_slice(sense);
        bytes.extend_from_slice(data);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn padded(cdb: &[u8]) -> [u8; REQUEST_BYTES] {
        let mut bytes = [0; REQUEST_BYTES];
        bytes[..cdb.len()].copy_from_slice(cdb);
        bytes
    }

    #[test]
    fn requests_say_how_much_they_bring_and_take() {
        let read_keys = padded(&[0x5e, 0, 0, 0, 0, 0, 0, 0x20, 0, 0]);
        assert!(matches!(PrRequest::parse(&read_keys), Ok(PrRequest::In { length: 8192, .. })));
        let register = PrRequest::parse(&padded(&[0x5f, 6, 0, 0, 0, 0, 0, 0, 24, 0])).unwrap();
        assert_eq!(register.parameter_bytes(), 24);
        assert_eq!(PrRequest::parse(&padded(&[0x12])), Err(NotARequest::Opcode(0x12)));
        let long = padded(&[0x5f, 0, 0, 0, 0, 0, 0, 0x20, 1, 0]);
        assert_eq!(PrRequest::parse(&long), Err(NotARequest::TooLong(8193)));
    }

    #[test]
    fn a_response_has_its_fields_at_their_places() {
        let keys = PrResponse { status: 0, sense: Vec::new(), data: vec![7; 16] }.bytes();
        assert_eq!((keys.len(), &keys[..8]), (104 + 16, &[0, 0, 0, 0, 0, 0, 0, 16][..]));
        let refused = PrResponse::check_condition(5, 0x20, 0).bytes();
        assert_eq!((refused.len(), &refused[..8]), (104, &[0, 0, 0, 2, 0, 0, 0, 0][..]));
        assert_eq!((refused[8], refused[10], refused[20]), (0x70, 5, 0x20));
        let conflict = PrResponse { status: 0x18, sense: vec![1; 200], data: vec![1] }.bytes();
        assert_eq!((conflict.len(), conflict[3]), (104, 0x18));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in any::<[u8; REQUEST_BYTES]>()) {
            if let Ok(request) = PrRequest::parse(&bytes) {
                assert!(request.parameter_bytes() <= DATA_MAX_BYTES);
            }
        }
    }
}
