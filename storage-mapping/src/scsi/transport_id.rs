//! TransportIDs (SPC-6 7.6.4): how an initiator port is named in registrations.
//!
//! Keeps true: what is not understood stays as it came, so that it can be compared and sent back. Not here: target ports
//! (`vpd`).

use std::fmt;

use super::number::{clipped, put_length, u16_at};

/// Bytes of a TransportID of every protocol but iSCSI.
const FIXED_BYTES: usize = 24;
/// The least additional length of an iSCSI TransportID.
const ISCSI_LENGTH_MIN: usize = 20;
/// Between the name of an iSCSI initiator and its session.
const SESSION_SEPARATOR: &str = ",i,0x";

/// The name of an initiator port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TransportId {
    /// Fibre Channel: N_Port_Name.
    FibreChannel([u8; 8]),
    /// iSCSI: the name of the node, and with a session the initiator port.
    Iscsi {
        /// iSCSI name. Must not contain NUL.
        name: String,
        /// Initiator session id, in hexadecimal digits as it came.
        session: Option<String>,
    },
    /// Serial attached SCSI: SAS address.
    Sas([u8; 8]),
    /// SCSI over RDMA: initiator port identifier.
    Srp([u8; 16]),
    /// Anything else, as it came: 24 bytes, or of iSCSI 4 and its additional length.
    Other(Vec<u8>),
}

impl TransportId {
    /// Reads the TransportID at the beginning of `bytes`, and how many bytes it takes; `None` where it did not come whole.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let is_iscsi = bytes.first()? & 0x0f == 5;
        let length = if is_iscsi { 4 + usize::from(u16_at(bytes, 2)?) } else { FIXED_BYTES };
        let (own, is_whole) = clipped(bytes, 0, length);
        if !is_whole {
            return None;
        }
        let known = match (own[0], own) {
            (0x00, [_, _, _, _, _, _, _, _, name @ ..]) => {
                name.first_chunk().copied().map(Self::FibreChannel)
            }
            (0x04, [_, _, _, _, _, _, _, _, port @ ..]) => port.first_chunk().copied().map(Self::Srp),
            (0x06, [_, _, _, _, address @ ..]) => address.first_chunk().copied().map(Self::Sas),
            (0x05 | 0x45, [_, _, _, _, text @ ..]) => Self::parse_iscsi(own[0] & 0x40 != 0, text),
            _ => None,
        };
        Some((known.unwrap_or_else(|| Self::Other(own.to_vec())), length))
    }

    /// The name in a text field, whose length is a multiple of four.
    fn parse_iscsi(has_session: bool, text: &[u8]) -> Option<Self> {
        if !text.len().is_multiple_of(4) {
            return None;
        }
        let end = text.iter().position(|byte| *byte == 0)?;
        let text = std::str::from_utf8(&text[..end]).ok()?;
        if !has_session {
            return Some(Self::Iscsi { name: text.to_owned(), session: None });
        }
        let (name, session) = text.rsplit_once(SESSION_SEPARATOR)?;
        Some(Self::Iscsi { name: name.to_owned(), session: Some(session.to_owned()) })
    }

    /// Its bytes.
    ///
    /// # Panics
    /// If the name is longer than 65,000 bytes.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![0; FIXED_BYTES];
        match self {
            Self::FibreChannel(name) => bytes[8..16].copy_from_slice(name),
            Self::Srp(port) => {
                bytes[0] = 0x04;
                bytes[8..24].copy_from_slice(port);
            }
            Self::Sas(address) => {
                bytes[0] = 0x06;
                bytes[4..12].copy_from_slice(address);
            }
            Self::Iscsi { name, session } => {
                bytes = vec![if session.is_some() { 0x45 } else { 0x05 }, 0, 0, 0];
                bytes.extend_from_slice(name.as_bytes());
                if let Some(session) = session {
                    bytes.extend_from_slice(SESSION_SEPARATOR.as_bytes());
                    bytes.extend_from_slice(session.as_bytes());
                }
                let length = (bytes.len() - 4 + 1).next_multiple_of(4).max(ISCSI_LENGTH_MIN);
                bytes.resize(4 + length, 0);
                put_length(&mut bytes, 2, 2, length);
            }
            Self::Other(own) => bytes.clone_from(own),
        }
        bytes
    }
}

impl fmt::Display for TransportId {
    /// As other tools write it: `iqn.2026-01.example:host,i,0x00023d000001`, `naa.5000c50012345678`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let printable =
            |text: &str| -> String { text.chars().map(|c| if c.is_control() { '?' } else { c }).collect() };
        let (word, bytes) = match self {
            Self::Iscsi { name, session: None } => return f.write_str(&printable(name)),
            Self::Iscsi { name, session: Some(session) } => {
                return write!(f, "{}{SESSION_SEPARATOR}{}", printable(name), printable(session));
            }
            Self::FibreChannel(name) => ("naa.", &name[..]),
            Self::Sas(address) => ("naa.", &address[..]),
            Self::Srp(port) => ("0x", &port[..]),
            Self::Other(bytes) => ("transport id ", &bytes[..]),
        };
        f.write_str(word)?;
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
