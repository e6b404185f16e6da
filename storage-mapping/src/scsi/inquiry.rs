//! INQUIRY (SPC-6 6.7): the command, and standard INQUIRY data.
//!
//! Keeps true: text of a device is printable ASCII once it is read. Not here: vital product data (`vpd`).

use bitflags::bitflags;

use super::number::{put, put_text, text, u16_at};
use super::{command, opcode};
use crate::control_port::{Cdb, ControlCommand, Transfer};

/// Bytes that `emit` makes.
const DATA_BYTES: usize = 96;
/// The least bytes of a whole reply.
const DATA_BYTES_MIN: usize = 36;
/// Version descriptors, at most.
const VERSIONS_MAX: usize = 8;

/// The command: standard data, or a page of vital product data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InquiryCommand {
    /// The page; `None` asks for standard data.
    pub page: Option<u8>,
    /// The most bytes that may come.
    pub allocation: u16,
}

impl InquiryCommand {
    /// The command.
    #[must_use]
    pub fn command(self) -> ControlCommand {
        let mut cdb = [opcode::INQUIRY, u8::from(self.page.is_some()), self.page.unwrap_or(0), 0, 0, 0];
        put(&mut cdb, 3, 2, self.allocation);
        command(&cdb, Transfer::In(self.allocation.into()))
    }

    /// Reads the command; `None` where it is another one, or asks for a page without EVPD or for what is obsolete.
    #[must_use]
    pub fn parse(cdb: &Cdb) -> Option<Self> {
        let &[opcode::INQUIRY, evpd @ (0 | 1), page, ..] = cdb.bytes() else { return None };
        if cdb.bytes().len() != 6 || evpd == 0 && page != 0 {
            return None;
        }
        Some(Self { page: (evpd == 1).then_some(page), allocation: u16_at(cdb.bytes(), 3)? })
    }
}

/// Peripheral qualifier and device type: the first byte of all INQUIRY data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peripheral {
    /// Qualifier, 3 bits: 0 connected, 1 none connected at the moment, 3 no such unit.
    pub qualifier: u8,
    /// Device type, 5 bits: 0 disk, 1Fh unknown.
    pub device_type: u8,
}

impl Peripheral {
    /// Of the byte.
    #[must_use]
    pub fn of(byte: u8) -> Self {
        Self { qualifier: byte >> 5, device_type: byte & 0x1f }
    }

    /// The byte.
    #[must_use]
    pub fn byte(self) -> u8 {
        self.qualifier << 5 | self.device_type & 0x1f
    }

    /// Whether there is a unit.
    #[must_use]
    pub fn is_connected(self) -> bool {
        self.qualifier == 0 && self.device_type != 0x1f
    }

    /// The name of the device type.
    #[must_use]
    pub fn type_name(self) -> &'static str {
        match self.device_type {
            0x00 => "disk",
            0x01 => "tape",
            0x02 => "printer",
            0x03 => "processor",
            0x04 => "write-once optical disk",
            0x05 => "CD or DVD",
            0x07 => "optical memory",
            0x08 => "medium changer",
            0x0c => "storage array controller",
            0x0d => "enclosure",
            0x0e => "simplified disk",
            0x0f => "optical card",
            0x11 => "object storage",
            0x12 => "automation interface",
            0x14 => "zoned disk",
            0x1e => "well known unit",
            0x1f => "unknown or none",
            _ => "reserved type",
        }
    }
}

/// TPGS: how access states of target port groups change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TargetPortGroupSupport {
    /// There are none.
    #[default]
    None,
    /// The target changes them.
    Implicit,
    /// SET TARGET PORT GROUPS changes them.
    Explicit,
    /// Both.
    ImplicitAndExplicit,
}

impl TargetPortGroupSupport {
    fn of(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::None,
            1 => Self::Implicit,
            2 => Self::Explicit,
            _ => Self::ImplicitAndExplicit,
        }
    }
}

bitflags! {
    /// Flags of bytes 1, 3, 5, 6 and 7, one byte each from the highest.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct InquiryFlags: u64 {
        /// RMB: the medium can be removed.
        const REMOVABLE = 0x80 << 32;
        /// LU_CONG: the unit belongs to a conglomerate.
        const CONGLOMERATE = 0x40 << 32;
        /// NORMACA.
        const NORMAL_ACA = 0x20 << 24;
        /// HISUP: units are numbered hierarchically.
        const HIERARCHICAL = 0x10 << 24;
        /// SCCS: an embedded storage array controller.
        const ARRAY_CONTROLLER = 0x80 << 16;
        /// 3PC: EXTENDED COPY.
        const THIRD_PARTY_COPY = 0x08 << 16;
        /// PROTECT: protection information.
        const PROTECT = 0x01 << 16;
        /// ENCSERV: enclosure services.
        const ENCLOSURE = 0x40 << 8;
        /// MULTIP: more than one port.
        const MULTI_PORT = 0x10 << 8;
        /// CMDQUE: commands are queued.
        const COMMAND_QUEUE = 0x02;
    }
}

/// Standard INQUIRY data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct InquiryData {
    /// What is connected.
    pub peripheral: Peripheral,
    /// Version of the standard: 5 SPC-3, 6 SPC-4, 7 SPC-5, 0Dh SPC-6.
    pub version: u8,
    /// Response data format, 4 bits: 2.
    pub response_format: u8,
    /// Flags.
    pub flags: InquiryFlags,
    /// Access states of target port groups.
    pub port_groups: TargetPortGroupSupport,
    /// T10 vendor identification, at most 8 characters.
    pub vendor: String,
    /// Product identification, at most 16 characters.
    pub product: String,
    /// Product revision level, at most 4 characters.
    pub revision: String,
    /// Bytes 36 to 55, of the vendor.
    pub vendor_specific: [u8; 20],
    /// Version descriptors without zeros, at most 8.
    pub versions: Vec<u16>,
    /// Whether all came that its length announces, and vendor, product and revision with it.
    pub is_whole: bool,
}

impl InquiryData {
    /// Reads it; `None` where fewer than five bytes came.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let announced = 5 + usize::from(*bytes.get(4)?);
        let body = &bytes[..announced.min(bytes.len())];
        let byte = |at: usize| body.get(at).copied().unwrap_or_default();
        let field =
            |from: usize, to: usize| body.get(from.min(body.len())..to.min(body.len())).unwrap_or_default();
        let flags = [1, 3, 5, 6, 7].iter().fold(0, |flags, at| flags << 8 | u64::from(byte(*at)));
        let mut vendor_specific = [0; 20];
        let own = field(36, 56);
        vendor_specific[..own.len()].copy_from_slice(own);
        Some(Self {
            peripheral: Peripheral::of(byte(0)),
            version: byte(2),
            response_format: byte(3) & 0xf,
            flags: InquiryFlags::from_bits_truncate(flags),
            port_groups: TargetPortGroupSupport::of(byte(5) >> 4),
            vendor: text(field(8, 16)),
            product: text(field(16, 32)),
            revision: text(field(32, 36)),
            vendor_specific,
            versions: field(58, 74)
                .chunks_exact(2)
                .filter_map(|pair| u16_at(pair, 0))
                .filter(|v| *v != 0)
                .collect(),
            is_whole: bytes.len() >= announced && announced >= DATA_BYTES_MIN,
        })
    }

    /// Its bytes: 96 of them.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![0; DATA_BYTES];
        let flags = self.flags.bits();
        for (place, at) in [1, 3, 5, 6, 7].into_iter().rev().enumerate() {
            bytes[at] = (flags >> (8 * place) & 0xff) as u8;
        }
        bytes[0] = self.peripheral.byte();
        bytes[2] = self.version;
        bytes[3] |= self.response_format & 0xf;
        bytes[4] = (DATA_BYTES - 5) as u8;
        bytes[5] |= (self.port_groups as u8) << 4;
        put_text(&mut bytes[8..16], &self.vendor);
        put_text(&mut bytes[16..32], &self.product);
        put_text(&mut bytes[32..36], &self.revision);
        bytes[36..56].copy_from_slice(&self.vendor_specific);
        for (place, version) in self.versions.iter().take(VERSIONS_MAX).enumerate() {
            put(&mut bytes, 58 + 2 * place, 2, *version);
        }
        bytes
    }
}
