//! Identify (base specification 2.1, 5.1.13): the command, the controller, a namespace, the lists of namespaces and of
//! their names.
//!
//! Keeps true: text of a device is printable ASCII once it is read; what is not decoded is emitted as zeros. Not here: which
//! paths lead to one namespace (`multipath`).

use bitflags::bitflags;

use super::command;
use super::number::{array_at, put, u16_at, u32_at, u64_at};
use super::opcode::admin;
use crate::control_port::{ControlCommand, NvmeFields, Transfer};
use crate::scsi::number::{put_text, text};

/// Bytes of every reply.
const DATA_BYTES: usize = 4096;
/// Formats of a namespace, at most.
const FORMATS_MAX: usize = 64;

/// What Identify is asked for (CNS).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum IdentifyWhat {
    /// The namespace; reply [`IdentifyNamespace`].
    Namespace = 0x00,
    /// The controller; reply [`IdentifyController`].
    Controller = 0x01,
    /// Active namespaces above the given one; reply [`NamespaceList`].
    ActiveNamespaces = 0x02,
    /// Names of the namespace; reply [`NameList`].
    NamespaceNames = 0x03,
}

/// Identify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identify {
    /// What is asked for.
    pub what: IdentifyWhat,
    /// Namespace.
    pub namespace: u32,
}

impl Identify {
    /// The command.
    #[must_use]
    pub fn command(self) -> ControlCommand {
        let mut fields =
            NvmeFields { opcode: admin::IDENTIFY, namespace: self.namespace, ..NvmeFields::default() };
        fields.cdw10[0] = self.what as u32;
        command(fields, Transfer::In(DATA_BYTES))
    }

    /// Reads the command; `None` where it is another one, or asks for something else.
    #[must_use]
    pub fn parse(fields: &NvmeFields) -> Option<Self> {
        if fields.is_io || fields.opcode != admin::IDENTIFY {
            return None;
        }
        let what = match fields.cdw10[0] & 0xff {
            0x00 => IdentifyWhat::Namespace,
            0x01 => IdentifyWhat::Controller,
            0x02 => IdentifyWhat::ActiveNamespaces,
            0x03 => IdentifyWhat::NamespaceNames,
            _ => return None,
        };
        Some(Self { what, namespace: fields.namespace })
    }
}

/// Reads a field that fills `width` bytes of text.
fn text_at(bytes: &[u8], at: usize, width: usize) -> String {
    let rest = bytes.get(at..).unwrap_or_default();
    text(&rest[..width.min(rest.len())])
}

/// The controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct IdentifyController {
    /// PCI vendor.
    pub vendor: u16,
    /// PCI subsystem vendor.
    pub subsystem_vendor: u16,
    /// Serial number, at most 20 characters.
    pub serial: String,
    /// Model number, at most 40 characters.
    pub model: String,
    /// Firmware revision, at most 8 characters.
    pub firmware: String,
    /// CMIC: bit 0 several ports, 1 several controllers, 3 asymmetric access.
    pub multi_path: u8,
    /// MDTS: 2 to the power of it pages are the longest transfer; 0 no limit.
    pub transfer_exponent: u8,
    /// CNTLID.
    pub controller: u16,
    /// Version: major, minor, tertiary in 16, 8 and 8 bits.
    pub version: u32,
    /// OAES: asynchronous events that it sends.
    pub events: u32,
    /// CTRATT; bit 0: host identifiers of 128 bits.
    pub attributes: u32,
    /// OACS: admin commands that it knows.
    pub admin_commands: u16,
    /// ACL: aborts at a time, minus 1.
    pub abort_limit: u8,
    /// FRMW: firmware slots and how they are activated.
    pub firmware_slots: u8,
    /// LPA: log page attributes.
    pub log_attributes: u8,
    /// ELPE: entries of the error log, minus 1.
    pub error_entries: u8,
    /// KAS: granularity of the keep alive timer in 100 ms.
    pub keep_alive: u16,
    /// ANATT: seconds that a change of an access state takes at most.
    pub access_change_seconds: u8,
    /// ANACAP.
    pub access_capabilities: u8,
    /// ANAGRPMAX: the largest group.
    pub access_group_max: u32,
    /// NANAGRPID: how many groups.
    pub access_groups: u32,
    /// NN: namespaces, at most.
    pub namespaces: u32,
    /// ONCS: I/O commands that it knows; bit 5: reservations.
    pub io_commands: u16,
    /// VWC: bit 0, a volatile write cache.
    pub write_cache: u8,
    /// SUBNQN: name of the subsystem, at most 255 characters.
    pub subsystem: String,
    /// Whether all 4,096 bytes came.
    pub is_whole: bool,
}

impl IdentifyController {
    /// Reads it; `None` where the controller's number did not come.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let byte = |at: usize| bytes.get(at).copied().unwrap_or_default();
        let short = |at| u16_at(bytes, at).unwrap_or_default();
        let word = |at| u32_at(bytes, at).unwrap_or_default();
        Some(Self {
            vendor: short(0),
            subsystem_vendor: short(2),
            serial: text_at(bytes, 4, 20),
            model: text_at(bytes, 24, 40),
            firmware: text_at(bytes, 64, 8),
            multi_path: byte(76),
            transfer_exponent: byte(77),
            controller: u16_at(bytes, 78)?,
            version: word(80),
            events: word(92),
            attributes: word(96),
            admin_commands: short(256),
            abort_limit: byte(258),
            firmware_slots: byte(260),
            log_attributes: byte(261),
            error_entries: byte(262),
            keep_alive: short(320),
            access_change_seconds: byte(342),
            access_capabilities: byte(343),
            access_group_max: word(344),
            access_groups: word(348),
            namespaces: word(516),
            io_commands: short(520),
            write_cache: byte(525),
            subsystem: text_at(bytes, 768, 255),
            is_whole: bytes.len() >= DATA_BYTES,
        })
    }

    /// Its bytes.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![0; DATA_BYTES];
        put_text(&mut bytes[4..24], &self.serial);
        put_text(&mut bytes[24..64], &self.model);
        put_text(&mut bytes[64..72], &self.firmware);
        let name = self.subsystem.len().min(255);
        put_text(&mut bytes[768..768 + name], &self.subsystem);
        let small = [
            (76, self.multi_path),
            (77, self.transfer_exponent),
            (258, self.abort_limit),
            (260, self.firmware_slots),
            (261, self.log_attributes),
            (262, self.error_entries),
            (342, self.access_change_seconds),
            (343, self.access_capabilities),
            (525, self.write_cache),
        ];
        small.into_iter().for_each(|(at, value)| bytes[at] = value);
        let shorts = [
            (0, self.vendor),
            (2, self.subsystem_vendor),
            (78, self.controller),
            (256, self.admin_commands),
            (320, self.keep_alive),
            (520, self.io_commands),
        ];
        shorts.into_iter().for_each(|(at, value)| put(&mut bytes, at, 2, value));
        let words = [
            (80, self.version),
            (92, self.events),
            (96, self.attributes),
            (344, self.access_group_max),
            (348, self.access_groups),
            (516, self.namespaces),
        ];
        words.into_iter().for_each(|(at, value)| put(&mut bytes, at, 4, value));
        bytes
    }

    /// Whether it reports asymmetric access states.
    #[must_use]
    pub fn has_access_states(&self) -> bool {
        self.multi_path & 8 != 0
    }

    /// Whether it knows reservations.
    #[must_use]
    pub fn has_reservations(&self) -> bool {
        self.io_commands & 0x20 != 0
    }
}

bitflags! {
    /// RESCAP: which reservations a namespace knows.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ReservationCapabilities: u8 {
        /// They can outlast a loss of power.
        const PERSIST = 0x01;
        /// Write exclusive.
        const WRITE_EXCLUSIVE = 0x02;
        /// Exclusive access.
        const EXCLUSIVE_ACCESS = 0x04;
        /// Write exclusive, registrants only.
        const WRITE_EXCLUSIVE_REGISTRANTS = 0x08;
        /// Exclusive access, registrants only.
        const EXCLUSIVE_ACCESS_REGISTRANTS = 0x10;
        /// Write exclusive, all registrants.
        const WRITE_EXCLUSIVE_ALL = 0x20;
        /// Exclusive access, all registrants.
        const EXCLUSIVE_ACCESS_ALL = 0x40;
        /// IEKEY as version 1.3 defines it.
        const IGNORE_KEY_1_3 = 0x80;
    }
}

/// A format of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BlockFormat {
    /// Bytes of metadata of a block.
    pub metadata_bytes: u16,
    /// 2 to the power of it bytes are a block; 0: not usable.
    pub block_exponent: u8,
    /// Relative performance, 2 bits: 0 best.
    pub performance: u8,
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct IdentifyNamespace {
    /// NSZE: blocks.
    pub size_blocks: u64,
    /// NCAP: blocks that can be allocated.
    pub capacity_blocks: u64,
    /// NUSE: blocks that are allocated.
    pub used_blocks: u64,
    /// NSFEAT.
    pub features: u8,
    /// FLBAS: bits 0 to 3 and, above them, 5 and 6 name the format in use.
    pub format_in_use: u8,
    /// NMIC: bit 0, several controllers can have it.
    pub sharing: u8,
    /// RESCAP.
    pub reservations: ReservationCapabilities,
    /// ANAGRPID: its access group.
    pub access_group: u32,
    /// NSATTR: bit 0, write protected.
    pub attributes: u8,
    /// NGUID; zeros: none.
    pub nguid: [u8; 16],
    /// EUI64; zeros: none.
    pub eui64: [u8; 8],
    /// The formats, 1 to 64.
    pub formats: Vec<BlockFormat>,
    /// Whether all 4,096 bytes came.
    pub is_whole: bool,
}

impl IdentifyNamespace {
    /// Reads it; `None` where its size did not come.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let byte = |at: usize| bytes.get(at).copied().unwrap_or_default();
        let long = |at| u64_at(bytes, at).unwrap_or_default();
        let count = (usize::from(byte(25)) + 1).min(FORMATS_MAX);
        let formats = bytes.get(128..).unwrap_or_default().chunks_exact(4).take(count).filter_map(|format| {
            Some(BlockFormat {
                metadata_bytes: u16_at(format, 0)?,
                block_exponent: *format.get(2)?,
                performance: format.get(3)? & 3,
            })
        });
        Some(Self {
            size_blocks: u64_at(bytes, 0)?,
            capacity_blocks: long(8),
            used_blocks: long(16),
            features: byte(24),
            format_in_use: byte(26),
            sharing: byte(30),
            reservations: ReservationCapabilities::from_bits_retain(byte(31)),
            access_group: u32_at(bytes, 92).unwrap_or_default(),
            attributes: byte(99),
            nguid: array_at(bytes, 104),
            eui64: array_at(bytes, 120),
            formats: formats.collect(),
            is_whole: bytes.len() >= DATA_BYTES,
        })
    }

    /// Its bytes; of more than 64 formats the first 64.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![0; DATA_BYTES];
        put(&mut bytes, 0, 8, self.size_blocks);
        put(&mut bytes, 8, 8, self.capacity_blocks);
        put(&mut bytes, 16, 8, self.used_blocks);
        let count = self.formats.len().min(FORMATS_MAX);
        (bytes[24], bytes[25], bytes[26]) =
            (self.features, count.saturating_sub(1) as u8, self.format_in_use);
        (bytes[30], bytes[31], bytes[99]) = (self.sharing, self.reservations.bits(), self.attributes);
        put(&mut bytes, 92, 4, self.access_group);
        bytes[104..120].copy_from_slice(&self.nguid);
        bytes[120..128].copy_from_slice(&self.eui64);
        for (place, format) in self.formats.iter().take(FORMATS_MAX).enumerate() {
            put(&mut bytes, 128 + 4 * place, 2, format.metadata_bytes);
            bytes[130 + 4 * place] = format.block_exponent;
            bytes[131 + 4 * place] = format.performance & 3;
        }
        bytes
    }

    /// The format in use, if it is one of the list.
    #[must_use]
    pub fn format(&self) -> Option<BlockFormat> {
        let high = if self.formats.len() > 16 { self.format_in_use >> 5 & 3 } else { 0 };
        self.formats.get(usize::from(high << 4 | self.format_in_use & 0xf)).copied()
    }

    /// Bytes of a block, if the format is known and sane (512 bytes to 2 GiB).
    #[must_use]
    pub fn block_bytes(&self) -> Option<u32> {
        let exponent = self.format()?.block_exponent;
        (9..=31).contains(&exponent).then(|| 1 << exponent)
    }

    /// Its best name here: of NGUID, else of EUI-64; `eui.…`.
    #[must_use]
    pub fn unique_name(&self) -> Option<String> {
        let name = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        if self.nguid != [0; 16] {
            return Some(format!("eui.{}", name(&self.nguid)));
        }
        (self.eui64 != [0; 8]).then(|| format!("eui.{}", name(&self.eui64)))
    }
}

/// A list of namespaces, at most 1,024: active ones (Identify), or changed ones (Get Log Page).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NamespaceList {
    /// Their numbers; none is 0. Of a changed list FFFFFFFFh alone says "too many".
    pub namespaces: Vec<u32>,
    /// Whether the list ended, or all its 4,096 bytes came.
    pub is_whole: bool,
}

impl NamespaceList {
    /// Reads it; a list without bytes is an empty one that is not whole.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let own = &bytes[..bytes.len().min(DATA_BYTES)];
        let numbers = own.chunks_exact(4).filter_map(|number| u32_at(number, 0));
        let namespaces: Vec<u32> = numbers.take_while(|number| *number != 0).collect();
        let is_whole = own.len() == DATA_BYTES || 4 * (namespaces.len() + 1) <= own.len();
        Some(Self { namespaces, is_whole })
    }

    /// Its bytes; of more than 1,024 the first 1,024.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![0; DATA_BYTES];
        for (place, number) in self.namespaces.iter().take(DATA_BYTES / 4).enumerate() {
            put(&mut bytes, 4 * place, 4, *number);
        }
        bytes
    }
}

/// A name of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NamespaceName {
    /// 1: EUI-64.
    Eui64([u8; 8]),
    /// 2: NGUID.
    Nguid([u8; 16]),
    /// 3: UUID.
    Uuid([u8; 16]),
    /// 4: command set.
    CommandSet(u8),
    /// Of another type, or of another length than its type has.
    Other {
        /// Type, not 0.
        kind: u8,
        /// Its bytes, 1 to 255.
        bytes: Vec<u8>,
    },
}

impl NamespaceName {
    fn of(kind: u8, bytes: &[u8]) -> Self {
        let known = match (kind, bytes) {
            (1, _) => bytes.try_into().ok().map(Self::Eui64),
            (2, _) => bytes.try_into().ok().map(Self::Nguid),
            (3, _) => bytes.try_into().ok().map(Self::Uuid),
            (4, [set]) => Some(Self::CommandSet(*set)),
            _ => None,
        };
        known.unwrap_or_else(|| Self::Other { kind, bytes: bytes.to_vec() })
    }

    fn parts(&self) -> (u8, &[u8]) {
        match self {
            Self::Eui64(name) => (1, name),
            Self::Nguid(name) => (2, name),
            Self::Uuid(name) => (3, name),
            Self::CommandSet(set) => (4, std::slice::from_ref(set)),
            Self::Other { kind, bytes } => (*kind, bytes),
        }
    }
}

/// The names of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NameList {
    /// The names.
    pub names: Vec<NamespaceName>,
    /// Whether the list ended, or all its 4,096 bytes came.
    pub is_whole: bool,
}

impl NameList {
    /// Reads it; a list without bytes is an empty one that is not whole.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let own = &bytes[..bytes.len().min(DATA_BYTES)];
        let (mut rest, mut names) = (own, Vec::new());
        let mut has_end = false;
        while let [kind, length, _, _, after @ ..] = rest {
            // A length of 0 ends the list.
            if *length == 0 {
                has_end = true;
                break;
            }
            let Some((name, after)) = after.split_at_checked((*length).into()) else { break };
            names.push(NamespaceName::of(*kind, name));
            rest = after;
        }
        Some(Self { names, is_whole: has_end || own.len() == DATA_BYTES && rest.len() < 4 })
    }

    /// Its bytes; names that do not fit are left out.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(DATA_BYTES);
        for name in &self.names {
            let (kind, name) = name.parts();
            let Ok(length @ 1..) = u8::try_from(name.len()) else { continue };
            if bytes.len() + 4 + name.len() > DATA_BYTES {
                break;
            }
            bytes.extend([kind, length, 0, 0]);
            bytes.extend_from_slice(name);
        }
        bytes.resize(DATA_BYTES, 0);
        bytes
    }

    /// The best name: UUID, NGUID, EUI-64, in this order.
    #[must_use]
    pub fn unique_name(&self) -> Option<String> {
        let rank = |name: &NamespaceName| match name {
            NamespaceName::Uuid(_) => Some((0, "uuid.")),
            NamespaceName::Nguid(_) => Some((1, "eui.")),
            NamespaceName::Eui64(_) => Some((2, "eui.")),
            NamespaceName::CommandSet(_) | NamespaceName::Other { .. } => None,
        };
        let ranked = self.names.iter().filter_map(|name| Some((rank(name)?, name)));
        let ((_, prefix), best) = ranked.min_by_key(|((place, _), _)| *place)?;
        Some(best.parts().1.iter().fold(prefix.to_owned(), |text, byte| text + &format!("{byte:02x}")))
    }
}
