//! Sense data (SPC-6 4.4): fixed and descriptor format, both ways.
//!
//! Keeps true: whatever came, nothing is read beyond it; what one format cannot carry is left out, never cut to another
//! value; additional bytes and descriptors that are not decoded here are kept raw. Not here: what to do about it
//! (`multipath`), the words for it (`text`).

mod text;

use bitflags::bitflags;

use super::number::{clipped, push, put, put_length, u16_at, u32_at, u64_at};
use crate::control_port::SENSE_MAX_BYTES;

/// Sense keys.
pub mod key {
    /// Nothing to report.
    pub const NO_SENSE: u8 = 0x0;
    /// Done, after the device repaired something.
    pub const RECOVERED_ERROR: u8 = 0x1;
    /// The unit cannot be accessed now.
    pub const NOT_READY: u8 = 0x2;
    /// The medium is at fault.
    pub const MEDIUM_ERROR: u8 = 0x3;
    /// The device is at fault.
    pub const HARDWARE_ERROR: u8 = 0x4;
    /// The command is at fault.
    pub const ILLEGAL_REQUEST: u8 = 0x5;
    /// Something happened since; the command was not executed.
    pub const UNIT_ATTENTION: u8 = 0x6;
    /// Protected data.
    pub const DATA_PROTECT: u8 = 0x7;
    /// Blank medium.
    pub const BLANK_CHECK: u8 = 0x8;
    /// Of the vendor.
    pub const VENDOR_SPECIFIC: u8 = 0x9;
    /// A copy was aborted.
    pub const COPY_ABORTED: u8 = 0xa;
    /// The device aborted the command; a repeat may succeed.
    pub const ABORTED_COMMAND: u8 = 0xb;
    /// The medium is full.
    pub const VOLUME_OVERFLOW: u8 = 0xd;
    /// What was compared differs.
    pub const MISCOMPARE: u8 = 0xe;
    /// Done, with something to say.
    pub const COMPLETED: u8 = 0xf;
    /// No key of the standard: there were no sense data that can be read.
    pub const UNREADABLE: u8 = 0xff;
}

/// How sense data are laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SenseFormat {
    /// Response codes 70h and 71h.
    #[default]
    Fixed,
    /// Response codes 72h and 73h.
    Descriptor,
}

bitflags! {
    /// The flags of fixed sense data, byte 2; descriptor format carries them in several places.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SenseFlags: u8 {
        /// FILEMARK: a filemark or setmark was met.
        const FILEMARK = 0x80;
        /// EOM: the end of the medium was met.
        const END_OF_MEDIUM = 0x40;
        /// ILI: another length than that of the block was asked for.
        const INCORRECT_LENGTH = 0x20;
        /// SDAT_OVFL: there was more to say than fitted.
        const DATA_OVERFLOW = 0x10;
    }
}

/// The sense key specific field; which one it is, the key decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeySpecific {
    /// ILLEGAL REQUEST: the field that is at fault.
    FieldPointer {
        /// Whether it lies in the command and not in the data.
        in_cdb: bool,
        /// Its highest bit, where that is known.
        bit: Option<u8>,
        /// Its first byte.
        byte: u16,
    },
    /// NO SENSE and NOT READY: so many of 65,536 parts are done.
    Progress(u16),
    /// RECOVERED ERROR, MEDIUM ERROR, HARDWARE ERROR: attempts that the device made.
    Attempts(u16),
    /// UNIT ATTENTION: whether further unit attentions were lost.
    AttentionsLost(bool),
    /// Of another key: bytes as they came, SKSV set.
    Other([u8; 3]),
}

/// Sense data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sense {
    /// Layout that it came in, or goes out in.
    pub format: SenseFormat,
    /// It concerns an earlier command.
    pub deferred: bool,
    /// Sense key, 4 bits: see [`key`].
    pub key: u8,
    /// Additional sense code.
    pub asc: u8,
    /// Additional sense code qualifier.
    pub ascq: u8,
    /// Flags.
    pub flags: SenseFlags,
    /// Information: mostly a logical block address. Fixed format carries 32 bits.
    pub information: Option<u64>,
    /// Command specific information. Fixed format carries 32 bits, and 0 is "none" there.
    pub command_specific: Option<u64>,
    /// Sense key specific.
    pub key_specific: Option<KeySpecific>,
    /// Field replaceable unit code; 0 is none.
    pub unit_code: u8,
    /// What is not decoded: bytes 18 on in fixed format, further descriptors in descriptor format.
    pub rest: Vec<u8>,
    /// Whether all came that its length announces.
    pub is_whole: bool,
}

impl Sense {
    /// Current sense data of fixed format with nothing but key and codes.
    #[must_use]
    pub fn new(key: u8, asc: u8, ascq: u8) -> Self {
        Self { key: key & 0xf, asc, ascq, is_whole: true, ..Self::default() }
    }

    /// The same in descriptor format.
    #[must_use]
    pub fn as_descriptors(self) -> Self {
        Self { format: SenseFormat::Descriptor, ..self }
    }

    /// Sense key, additional sense code, qualifier.
    #[must_use]
    pub fn triple(&self) -> (u8, u8, u8) {
        (self.key, self.asc, self.ascq)
    }

    /// The name of its key.
    #[must_use]
    pub fn key_name(&self) -> &'static str {
        text::key_name(self.key)
    }

    /// What its codes mean, where that is known here.
    #[must_use]
    pub fn meaning(&self) -> Option<&'static str> {
        text::meaning(self.asc, self.ascq)
    }

    /// How much of a long operation is done, in parts of 65,536.
    #[must_use]
    pub fn progress(&self) -> Option<u16> {
        match self.key_specific {
            Some(KeySpecific::Progress(parts)) => Some(parts),
            _ => None,
        }
    }

    /// Reads sense data; `None` where they are too short to have a key, or of an unknown response code.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let code = bytes.first()? & 0x7f;
        let announced = bytes.get(7).map_or(0, |length| usize::from(*length));
        let (body, came) = clipped(bytes, 0, (8 + announced).min(SENSE_MAX_BYTES));
        let is_whole = came && 8 + announced <= SENSE_MAX_BYTES;
        let deferred = code & 1 != 0;
        match code {
            0x70 | 0x71 => Self::parse_fixed(body).map(|sense| Self { deferred, is_whole, ..sense }),
            0x72 | 0x73 => Self::parse_descriptors(body).map(|sense| Self {
                deferred,
                is_whole: is_whole && sense.is_whole,
                ..sense
            }),
            _ => None,
        }
    }

    fn parse_fixed(body: &[u8]) -> Option<Self> {
        let byte = |at: usize| body.get(at).copied().unwrap_or_default();
        let key = body.get(2)? & 0xf;
        let is_valid = body[0] & 0x80 != 0;
        Some(Self {
            key,
            asc: byte(12),
            ascq: byte(13),
            flags: SenseFlags::from_bits_truncate(body[2]),
            information: u32_at(body, 3).filter(|_| is_valid).map(u64::from),
            command_specific: u32_at(body, 8).filter(|number| *number != 0).map(u64::from),
            key_specific: body.get(15..18).and_then(|field| KeySpecific::parse(key, field)),
            unit_code: byte(14),
            rest: body.get(18..).unwrap_or_default().to_vec(),
            ..Self::default()
        })
    }

    fn parse_descriptors(body: &[u8]) -> Option<Self> {
        let byte = |at: usize| body.get(at).copied().unwrap_or_default();
        let mut sense = Self {
            format: SenseFormat::Descriptor,
            key: body.get(1)? & 0xf,
            asc: byte(2),
            ascq: byte(3),
            is_whole: true,
            ..Self::default()
        };
        sense.flags.set(SenseFlags::DATA_OVERFLOW, byte(4) & 0x80 != 0);
        let mut at = 8;
        while at < body.len() {
            let Some(length) = body.get(at + 1) else {
                sense.is_whole = false;
                break;
            };
            let (descriptor, is_whole) = clipped(body, at, 2 + usize::from(*length));
            sense.is_whole &= is_whole;
            if is_whole {
                sense.take_descriptor(descriptor);
            }
            at += descriptor.len();
        }
        Some(sense)
    }

    /// Takes one whole descriptor: type, additional length, and so many bytes.
    fn take_descriptor(&mut self, bytes: &[u8]) {
        match (bytes[0], bytes.len()) {
            (0x00, 12) if bytes[2] & 0x80 != 0 && self.information.is_none() => {
                self.information = u64_at(bytes, 4)
            }
            (0x01, 12) if self.command_specific.is_none() => self.command_specific = u64_at(bytes, 4),
            (0x02, 8) if self.key_specific.is_none() && bytes[4] & 0x80 != 0 => {
                self.key_specific = KeySpecific::parse(self.key, &bytes[4..7]);
            }
            (0x03, 4) if self.unit_code == 0 => self.unit_code = bytes[3],
            (0x04, 4) => self.flags |= SenseFlags::from_bits_truncate(bytes[3] & 0xe0),
            (0x05, 4) => self.flags |= SenseFlags::from_bits_truncate(bytes[3] & 0x20),
            _ => self.rest.extend_from_slice(bytes),
        }
    }

    /// Its bytes in its format; at most [`SENSE_MAX_BYTES`], what lies beyond is left out and flagged as overflow.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        match self.format {
            SenseFormat::Fixed => self.emit_fixed(),
            SenseFormat::Descriptor => self.emit_descriptors(),
        }
    }

    fn emit_fixed(&self) -> Vec<u8> {
        let mut bytes = vec![0; 18];
        bytes[0] = 0x70 | u8::from(self.deferred);
        bytes[2] = self.flags.bits() | self.key & 0xf;
        if let Some(information) = self.information.and_then(|number| u32::try_from(number).ok()) {
            bytes[0] |= 0x80;
            put(&mut bytes, 3, 4, information);
        }
        if let Some(number) = self.command_specific.and_then(|number| u32::try_from(number).ok()) {
            put(&mut bytes, 8, 4, number);
        }
        (bytes[12], bytes[13], bytes[14]) = (self.asc, self.ascq, self.unit_code);
        if let Some(field) = self.key_specific {
            bytes[15..18].copy_from_slice(&field.emit());
        }
        let room = SENSE_MAX_BYTES - bytes.len();
        bytes.extend_from_slice(&self.rest[..self.rest.len().min(room)]);
        if self.rest.len() > room {
            bytes[2] |= SenseFlags::DATA_OVERFLOW.bits();
        }
        let length = bytes.len() - 8;
        put_length(&mut bytes, 7, 1, length);
        bytes
    }

    fn emit_descriptors(&self) -> Vec<u8> {
        let mut bytes = vec![0x72 | u8::from(self.deferred), self.key & 0xf, self.asc, self.ascq, 0, 0, 0, 0];
        if let Some(information) = self.information {
            bytes.extend([0x00, 0x0a, 0x80, 0]);
            push(&mut bytes, 8, information);
        }
        if let Some(number) = self.command_specific {
            bytes.extend([0x01, 0x0a, 0, 0]);
            push(&mut bytes, 8, number);
        }
        if let Some(field) = self.key_specific {
            bytes.extend([0x02, 0x06, 0, 0]);
            bytes.extend(field.emit());
            bytes.push(0);
        }
        if self.unit_code != 0 {
            bytes.extend([0x03, 0x02, 0, self.unit_code]);
        }
        let flags = self.flags.difference(SenseFlags::DATA_OVERFLOW);
        if !flags.is_empty() {
            let kind = if flags == SenseFlags::INCORRECT_LENGTH { 0x05 } else { 0x04 };
            bytes.extend([kind, 0x02, 0, flags.bits()]);
        }
        let room = SENSE_MAX_BYTES - bytes.len();
        let kept = whole_descriptors(&self.rest, room);
        bytes.extend_from_slice(&self.rest[..kept]);
        if kept < self.rest.len() || self.flags.contains(SenseFlags::DATA_OVERFLOW) {
            bytes[4] = 0x80;
        }
        let length = bytes.len() - 8;
        put_length(&mut bytes, 7, 1, length);
        bytes
    }
}

/// How many of these bytes are whole descriptors that fit into `room`.
fn whole_descriptors(bytes: &[u8], room: usize) -> usize {
    let mut end = 0;
    while let Some(length) = bytes.get(end + 1) {
        let next = end + 2 + usize::from(*length);
        if next > room.min(bytes.len()) {
            break;
        }
        end = next;
    }
    end
}

impl KeySpecific {
    /// Reads three bytes that belong to sense key `key`; `None` where they are not valid (SKSV).
    fn parse(key: u8, field: &[u8]) -> Option<Self> {
        let (first, number) = (*field.first()?, u16_at(field, 1)?);
        if first & 0x80 == 0 {
            return None;
        }
        Some(match key {
            key::ILLEGAL_REQUEST => Self::FieldPointer {
                in_cdb: first & 0x40 != 0,
                bit: (first & 0x08 != 0).then_some(first & 7),
                byte: number,
            },
            key::NO_SENSE | key::NOT_READY => Self::Progress(number),
            key::RECOVERED_ERROR | key::MEDIUM_ERROR | key::HARDWARE_ERROR => Self::Attempts(number),
            key::UNIT_ATTENTION => Self::AttentionsLost(first & 1 != 0),
            _ => Self::Other([first, field[1], field[2]]),
        })
    }

    fn emit(self) -> [u8; 3] {
        let (first, number) = match self {
            Self::FieldPointer { in_cdb, bit, byte } => {
                (u8::from(in_cdb) << 6 | bit.map_or(0, |bit| 0x08 | bit & 7), byte)
            }
            Self::Progress(number) | Self::Attempts(number) => (0, number),
            Self::AttentionsLost(lost) => (u8::from(lost), 0),
            Self::Other([first, second, third]) => return [first | 0x80, second, third],
        };
        let mut field = [first | 0x80, 0, 0];
        put(&mut field, 1, 2, number);
        field
    }
}
