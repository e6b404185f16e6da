//! The bytes of the NBD protocol: numbers of the wire, requests out, replies in.
//!
//! Keeps true: reading takes arrays of exactly the size of a record, so nothing here can fail for want of
//! bytes. Not here: what a record means (`handshake`, `session`).

#![expect(clippy::big_endian_bytes, reason = "NBD is big-endian on the wire")]

use bitflags::bitflags;

/// The first eight bytes of a server, `NBDMAGIC`.
pub const SERVER_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// What a server of the new style sends next, `IHAVEOPT`; also begins each option.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// What a server of the old style sends there.
pub const OLD_STYLE_MAGIC: u64 = 0x0000_4202_8186_1253;
/// Begins each reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Begins each request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Begins each simple reply.
pub const REPLY_MAGIC: u32 = 0x6744_6698;

/// Bytes of a greeting.
pub const GREETING_BYTES: usize = 18;
/// Bytes of the head of a reply to an option.
pub const OPTION_REPLY_BYTES: usize = 20;
/// Bytes of a request without its payload.
pub const REQUEST_BYTES: usize = 28;
/// Bytes of a simple reply without its payload.
pub const REPLY_BYTES: usize = 16;
/// A name of an export is no longer than this, in bytes.
pub const NAME_BYTES_MAX: usize = 4096;

/// The server knows how to refuse an option and go on.
pub const FIXED_NEW_STYLE: u16 = 1;
/// No 124 zeros after the old end of a negotiation.
pub const NO_ZEROES: u16 = 2;

/// `NBD_OPT_ABORT`: the client gives up.
pub const OPTION_ABORT: u32 = 2;
/// `NBD_OPT_GO`: the client chooses an export.
pub const OPTION_GO: u32 = 7;
/// `NBD_REP_ACK`: what was asked for is done.
pub const REPLY_ACK: u32 = 1;
/// `NBD_REP_INFO`: a fact about the export.
pub const REPLY_INFO: u32 = 3;
/// Set in each reply that refuses.
pub const REPLY_ERROR_BIT: u32 = 1 << 31;
/// `NBD_INFO_EXPORT`: size and flags.
pub const INFO_EXPORT: u16 = 0;
/// `NBD_INFO_BLOCK_SIZE`: what a request may be a multiple of, and its limit.
pub const INFO_BLOCK_SIZE: u16 = 3;

bitflags! {
    /// What a server can do with one export.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct TransmissionFlags: u16 {
        /// Set by every server.
        const HAS_FLAGS = 1;
        /// Writes are refused.
        const READ_ONLY = 1 << 1;
        /// There is a flush.
        const SEND_FLUSH = 1 << 2;
        /// A write can be made durable before its reply.
        const SEND_FUA = 1 << 3;
        /// Seeking costs time. Nothing here depends on it.
        const ROTATIONAL = 1 << 4;
        /// A flush on one connection covers what others wrote, and what one wrote the others read.
        const CAN_MULTI_CONN = 1 << 8;
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Command {
    /// `NBD_CMD_READ`.
    Read = 0,
    /// `NBD_CMD_WRITE`.
    Write = 1,
    /// `NBD_CMD_DISC`: no more requests; there is no reply.
    Disconnect = 2,
    /// `NBD_CMD_FLUSH`.
    Flush = 3,
}

/// The head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// What to do.
    pub command: Command,
    /// Durable before the reply.
    pub fua: bool,
    /// Comes back with the reply.
    pub cookie: u64,
    /// Where, in bytes.
    pub offset: u64,
    /// How much, in bytes.
    pub length: u32,
}

impl RequestHead {
    /// The bytes of it.
    #[must_use]
    pub fn bytes(&self) -> [u8; REQUEST_BYTES] {
        let mut bytes = [0; REQUEST_BYTES];
        bytes[0..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes[4..6].copy_from_slice(&u16::from(self.fua).to_be_bytes());
        bytes[6..8].copy_from_slice(&(self.command as u16).to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }
}

/// The head of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHead {
    /// [`REPLY_MAGIC`], if it is one.
    pub magic: u32,
    /// 0, or why not.
    pub error: u32,
    /// Of the request.
    pub cookie: u64,
}

impl ReplyHead {
    /// Reads it.
    #[must_use]
    pub fn of(bytes: &[u8; REPLY_BYTES]) -> Self {
        Self { magic: u32_at(bytes, 0), error: u32_at(bytes, 4), cookie: u64_at(bytes, 8) }
    }
}

/// An option with its data.
#[must_use]
pub fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).expect("options are small");
    [&OPTION_MAGIC.to_be_bytes()[..], &number.to_be_bytes(), &length.to_be_bytes(), data].concat()
}

/// `NBD_OPT_GO` for an export of this name, asking for the block sizes.
///
/// # Panics
/// If the name is longer than [`NAME_BYTES_MAX`].
#[must_use]
pub fn option_go(export: &str) -> Vec<u8> {
    assert!(export.len() <= NAME_BYTES_MAX, "checked before");
    let length = u32::try_from(export.len()).expect("checked just now");
    let asked = [1_u16.to_be_bytes(), INFO_BLOCK_SIZE.to_be_bytes()].concat();
    option(OPTION_GO, &[&length.to_be_bytes()[..], export.as_bytes(), &asked].concat())
}

/// The client's flags, as it sends them.
#[must_use]
pub fn client_flags(flags: u16) -> [u8; 4] {
    u32::from(flags).to_be_bytes()
}

/// Two bytes at `at`, as a number.
///
/// # Panics
/// If they do not lie in `bytes`.
#[must_use]
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(bytes[at..at + 2].try_into().expect("a slice of two"))
}

/// Four bytes at `at`, as a number.
///
/// # Panics
/// If they do not lie in `bytes`.
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("a slice of four"))
}

/// Eight bytes at `at`, as a number.
///
/// # Panics
/// If they do not lie in `bytes`.
#[must_use]
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("a slice of eight"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_as_the_protocol_draws_it() {
        let head = RequestHead {
            command: Command::Write,
            fua: true,
            cookie: 0x0102_0304_0506_0708,
            offset: 4096,
            length: 512,
        };
        let expected = [
            0x25, 0x60, 0x95, 0x13, 0, 1, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 2, 0,
        ];
        assert_eq!(head.bytes(), expected);
    }

    #[test]
    fn an_option_is_as_the_protocol_draws_it() {
        let expected = [b"IHAVEOPT\0\0\0\x07\0\0\0\x0a".as_slice(), b"\0\0\0\x02ab\0\x01\0\x03"].concat();
        assert_eq!(option_go("ab"), expected);
        assert_eq!(SERVER_MAGIC.to_be_bytes(), *b"NBDMAGIC");
    }

    #[test]
    fn a_reply_is_read_back() {
        let bytes = [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 1, 2];
        assert_eq!(ReplyHead::of(&bytes), ReplyHead { magic: REPLY_MAGIC, error: 5, cookie: 0x102 });
    }
}
