//! The device identification page (83h, SPC-6 7.7.6): designators of the unit, of the port that answered and of the
//! device.
//!
//! Keeps true: a designator is kept to the byte, whatever it claims to be; what it means is read from it when asked. Not
//! here: which paths lead to one unit (`multipath`).

use std::fmt::Write;

use crate::scsi::number::{clipped, put, put_text, text, u16_at};

/// Designator types.
mod kind {
    pub(super) const VENDOR: u8 = 0;
    pub(super) const T10: u8 = 1;
    pub(super) const EUI64: u8 = 2;
    pub(super) const NAA: u8 = 3;
    pub(super) const RELATIVE_PORT: u8 = 4;
    pub(super) const PORT_GROUP: u8 = 5;
    pub(super) const UNIT_GROUP: u8 = 6;
    pub(super) const MD5: u8 = 7;
    pub(super) const NAME: u8 = 8;
    pub(super) const PROTOCOL: u8 = 9;
    pub(super) const UUID: u8 = 10;
}

/// Code set: binary.
const BINARY: u8 = 1;
/// Code set: ASCII.
const ASCII: u8 = 2;
/// Code set: UTF-8.
const UTF8: u8 = 3;

/// What a designator names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Association {
    /// The logical unit.
    LogicalUnit,
    /// The target port that the command came through.
    TargetPort,
    /// The target device.
    TargetDevice,
    /// Reserved.
    Reserved,
}

impl Association {
    fn of(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::LogicalUnit,
            1 => Self::TargetPort,
            2 => Self::TargetDevice,
            _ => Self::Reserved,
        }
    }
}

/// A designator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Designator {
    /// What it names.
    pub association: Association,
    /// Protocol identifier, 4 bits, where it is of a protocol (PIV).
    pub protocol: Option<u8>,
    /// Code set, 4 bits: 1 binary, 2 ASCII, 3 UTF-8.
    pub code_set: u8,
    /// Designator type, 4 bits.
    pub kind: u8,
    /// Its bytes, at most 255.
    pub bytes: Vec<u8>,
}

/// What a designator says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DesignatorValue<'a> {
    /// 0: vendor specific.
    VendorSpecific(&'a [u8]),
    /// 1: T10 vendor identification, and what the vendor made of it.
    T10 {
        /// Vendor.
        vendor: String,
        /// Vendor specific identifier.
        id: &'a [u8],
    },
    /// 2: EUI-64 of 8, 12 or 16 bytes.
    Eui64(&'a [u8]),
    /// 3: NAA of 8 or 16 bytes; its highest four bits say of which kind.
    Naa(&'a [u8]),
    /// 4: relative target port identifier.
    RelativePort(u16),
    /// 5: target port group.
    PortGroup(u16),
    /// 6: logical unit group.
    UnitGroup(u16),
    /// 7: MD5 of what names the unit.
    Md5(&'a [u8]),
    /// 8: SCSI name string, as `iqn.…`, `naa.…`, `eui.…`.
    Name(&'a str),
    /// 9: protocol specific port identifier.
    ProtocolSpecific(&'a [u8]),
    /// 10: UUID.
    Uuid(&'a [u8]),
    /// Of another type, or not of the form that its type has.
    Other(&'a [u8]),
}

impl Designator {
    /// A designator of a unit or port in binary.
    #[must_use]
    fn binary(association: Association, kind: u8, bytes: &[u8]) -> Self {
        Self { association, protocol: None, code_set: BINARY, kind, bytes: bytes.to_vec() }
    }

    /// NAA of 8 or 16 bytes.
    #[must_use]
    pub fn naa(association: Association, name: &[u8]) -> Self {
        Self::binary(association, kind::NAA, name)
    }

    /// EUI-64 of 8, 12 or 16 bytes.
    #[must_use]
    pub fn eui64(association: Association, name: &[u8]) -> Self {
        Self::binary(association, kind::EUI64, name)
    }

    /// T10 vendor identification of the unit.
    #[must_use]
    pub fn t10(vendor: &str, id: &str) -> Self {
        let mut bytes = vec![0; 8];
        put_text(&mut bytes, vendor);
        bytes.extend_from_slice(id.as_bytes());
        Self { code_set: ASCII, ..Self::binary(Association::LogicalUnit, kind::T10, &bytes) }
    }

    /// SCSI name string; it is ended with a zero and padded to four bytes.
    #[must_use]
    pub fn name(association: Association, name: &str) -> Self {
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize((bytes.len() + 1).next_multiple_of(4), 0);
        Self { code_set: UTF8, ..Self::binary(association, kind::NAME, &bytes) }
    }

    /// Relative target port identifier of the port that answers.
    #[must_use]
    pub fn relative_port(port: u16) -> Self {
        Self::numbered(Association::TargetPort, kind::RELATIVE_PORT, port)
    }

    /// Target port group of the port that answers.
    #[must_use]
    pub fn port_group(group: u16) -> Self {
        Self::numbered(Association::TargetPort, kind::PORT_GROUP, group)
    }

    /// Logical unit group.
    #[must_use]
    pub fn unit_group(group: u16) -> Self {
        Self::numbered(Association::LogicalUnit, kind::UNIT_GROUP, group)
    }

    fn numbered(association: Association, kind: u8, number: u16) -> Self {
        let mut bytes = [0; 4];
        put(&mut bytes, 2, 2, number);
        Self::binary(association, kind, &bytes)
    }

    /// What it says.
    #[must_use]
    pub fn value(&self) -> DesignatorValue<'_> {
        let bytes = &self.bytes[..];
        let number = || if bytes.len() == 4 { u16_at(bytes, 2) } else { None };
        let value = match self.kind {
            kind::VENDOR => Some(DesignatorValue::VendorSpecific(bytes)),
            kind::T10 => bytes
                .split_at_checked(8)
                .map(|(vendor, id)| DesignatorValue::T10 { vendor: text(vendor), id }),
            kind::EUI64 => matches!(bytes.len(), 8 | 12 | 16).then_some(DesignatorValue::Eui64(bytes)),
            kind::NAA => is_naa(bytes).then_some(DesignatorValue::Naa(bytes)),
            kind::RELATIVE_PORT => number().map(DesignatorValue::RelativePort),
            kind::PORT_GROUP => number().map(DesignatorValue::PortGroup),
            kind::UNIT_GROUP => number().map(DesignatorValue::UnitGroup),
            kind::MD5 => (bytes.len() == 16).then_some(DesignatorValue::Md5(bytes)),
            kind::NAME => name_of(bytes).map(DesignatorValue::Name),
            kind::PROTOCOL => Some(DesignatorValue::ProtocolSpecific(bytes)),
            kind::UUID => (bytes.len() == 18 && bytes[0] == 0x10).then(|| DesignatorValue::Uuid(&bytes[2..])),
            _ => None,
        };
        value.unwrap_or(DesignatorValue::Other(bytes))
    }

    /// The name in the form of SCSI name strings: `naa.…`, `eui.…`, `t10.…`, `uuid.…`, or the name string itself; `None`
    /// where it is no name that is unique in the world.
    #[must_use]
    pub fn unique_name(&self) -> Option<String> {
        match self.value() {
            DesignatorValue::Naa(bytes) => Some(hexadecimal("naa.", bytes)),
            DesignatorValue::Eui64(bytes) => Some(hexadecimal("eui.", bytes)),
            DesignatorValue::Uuid(bytes) => Some(hexadecimal("uuid.", bytes)),
            DesignatorValue::Name(name) => Some(name.to_owned()),
            DesignatorValue::T10 { vendor, id } if self.code_set == BINARY => {
                Some(hexadecimal(&format!("t10.{vendor}."), id))
            }
            DesignatorValue::T10 { vendor, id } => Some(format!("t10.{vendor}.{}", text(id).trim_start())),
            _ => None,
        }
    }

    /// The designators of a page, and whether all of them came whole.
    pub(super) fn parse_list(mut body: &[u8]) -> (Vec<Self>, bool) {
        let mut list = Vec::new();
        while let [first, second, _, length, ..] = *body {
            let (bytes, is_whole) = clipped(body, 4, length.into());
            if !is_whole {
                return (list, false);
            }
            list.push(Self {
                association: Association::of(second >> 4),
                protocol: (second & 0x80 != 0).then_some(first >> 4),
                code_set: first & 0xf,
                kind: second & 0xf,
                bytes: bytes.to_vec(),
            });
            body = &body[4 + bytes.len()..];
        }
        (list, body.is_empty())
    }

    pub(super) fn emit(&self) -> Vec<u8> {
        let length = u8::try_from(self.bytes.len()).expect("a designator has at most 255 bytes");
        let (valid, protocol) = self.protocol.map_or((0, 0), |protocol| (0x80, protocol << 4));
        let association = (self.association as u8) << 4;
        let head = [protocol | self.code_set & 0xf, valid | association | self.kind & 0xf, 0, length];
        [&head[..], &self.bytes].concat()
    }
}

/// Whether a name has the length that its kind has (SPC-6 7.7.6.6).
fn is_naa(bytes: &[u8]) -> bool {
    match bytes.first().map(|first| first >> 4) {
        Some(2 | 3 | 5) => bytes.len() == 8,
        Some(6) => bytes.len() == 16,
        _ => false,
    }
}

/// A SCSI name string without the zeros at its end.
fn name_of(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let name = std::str::from_utf8(&bytes[..end]).ok()?;
    (!name.is_empty() && !name.chars().any(char::is_control)).then_some(name)
}

fn hexadecimal(prefix: &str, bytes: &[u8]) -> String {
    bytes.iter().fold(prefix.to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

/// Which port answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortIdentity {
    /// Relative target port identifier.
    pub relative_port: Option<u16>,
    /// Target port group.
    pub group: Option<u16>,
}

impl PortIdentity {
    /// Of the designators of a page that this port gave.
    #[must_use]
    pub fn of(designators: &[Designator]) -> Self {
        let mut port = Self::default();
        for designator in designators.iter().filter(|one| one.association == Association::TargetPort) {
            match designator.value() {
                DesignatorValue::RelativePort(number) => {
                    port.relative_port = port.relative_port.or(Some(number))
                }
                DesignatorValue::PortGroup(number) => port.group = port.group.or(Some(number)),
                _ => {}
            }
        }
        port
    }
}

/// The best name of the logical unit: two paths with the same one lead to the same unit.
///
/// In this order: NAA registered (6, then 5), NAA of other kinds, EUI-64, UUID, SCSI name string, T10 vendor
/// identification; of equals the first.
#[must_use]
pub fn unit_identity(designators: &[Designator]) -> Option<String> {
    let of_unit = designators.iter().filter(|one| one.association == Association::LogicalUnit);
    of_unit.filter_map(|one| Some((rank(one)?, one))).min_by_key(|(rank, _)| *rank)?.1.unique_name()
}

fn rank(designator: &Designator) -> Option<u8> {
    match designator.value() {
        DesignatorValue::Naa([first, ..]) => Some(match first >> 4 {
            6 => 0,
            5 => 1,
            2 => 2,
            _ => 6, // locally assigned: unique only where one hand assigns them
        }),
        DesignatorValue::Eui64(_) => Some(3),
        DesignatorValue::Uuid(_) => Some(4),
        DesignatorValue::Name(_) => Some(5),
        DesignatorValue::T10 { .. } => Some(7),
        _ => None,
    }
}
