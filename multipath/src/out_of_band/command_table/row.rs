//! One row of the command table: what it fits, and what it says.
//!
//! Keeps true: whether a row fits depends on the bytes alone, however short or wrong they are. Not here: the rows.

use std::borrow::Cow;
use std::fmt;

use storage_mapping::control_port::CommandBytes;

use super::{Lookup, mode_page, parameters};

/// Which words a command is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Words {
    /// An NVMe admin command.
    NvmeAdmin,
    /// An NVMe command for an I/O queue.
    NvmeIo,
    /// A SCSI command descriptor block.
    Scsi,
    /// A SCSI task management function, by the codes of iSCSI (RFC 7143 11.5.1, RFC 7144). Ports carry none: the row says
    /// what would hold.
    Task,
}

impl Words {
    /// The word in lists and configurations.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NvmeAdmin => "nvme-admin",
            Self::NvmeIo => "nvme-io",
            Self::Scsi => "scsi",
            Self::Task => "task",
        }
    }
}

/// Which paths give the same answer or effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// All of them are needed for the intended effect.
    AllNexuses,
    /// Any whose nexus is registered.
    AnyRegistered,
    /// The named one and no other, and it must be named: the path of the task that is meant, or of a command that belongs
    /// to one path.
    Exact,
    /// Only this nexus: the target keeps the state by nexus.
    Nexus,
    /// Any.
    Portable,
    /// Any through the same target port, which the answer describes or the command changes.
    TargetPort,
}

impl Class {
    /// Every class, in the order from free to bound.
    pub const ALL: [Self; 6] =
        [Self::Portable, Self::AnyRegistered, Self::TargetPort, Self::Nexus, Self::AllNexuses, Self::Exact];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::AllNexuses => "all-nexuses",
            Self::AnyRegistered => "any-registered",
            Self::Exact => "exact",
            Self::Nexus => "nexus",
            Self::Portable => "portable",
            Self::TargetPort => "target-port",
        }
    }
}

impl Class {
    /// What it means for a caller.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::AllNexuses => "every path has to carry it",
            Self::AnyRegistered => "any path that is registered may carry it",
            Self::Exact => "the named path may carry it, and no other",
            Self::Nexus => "it is for one path alone",
            Self::Portable => "any path may carry it",
            Self::TargetPort => "any path to the same port of the target may carry it",
        }
    }
}

/// Whether a command that may have run may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Repeat {
    /// No.
    Never,
    /// After it was read that it had no effect.
    Verify,
    /// Yes.
    Yes,
}

impl Repeat {
    /// Every value.
    pub const ALL: [Self; 3] = [Self::Never, Self::Verify, Self::Yes];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Verify => "verify",
            Self::Yes => "yes",
        }
    }

    /// What it means for a caller.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Never => "it is never sent a second time",
            Self::Verify => "it is sent again only where it was found undone",
            Self::Yes => "it may be sent again",
        }
    }
}

/// Which command tells whether it was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verify {
    /// NVMe Get Features.
    GetFeatures,
    /// LOG SENSE, by a person: counters go on.
    LogSense,
    /// MODE SENSE of the same page.
    ModeSense,
    /// No command does.
    None,
    /// PERSISTENT RESERVE IN READ KEYS.
    ReadKeys,
    /// PERSISTENT RESERVE IN READ RESERVATION.
    ReadReservation,
    /// REPORT TARGET PORT GROUPS.
    ReportTargetPortGroups,
    /// NVMe Reservation Report.
    ReservationReport,
    /// TEST UNIT READY over the same nexus.
    TestUnitReady,
}

impl Verify {
    /// Its name for people, or `None` where there is none.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::GetFeatures => "Get Features",
            Self::LogSense => "LOG SENSE",
            Self::ModeSense => "MODE SENSE",
            Self::None => return None,
            Self::ReadKeys => "PERSISTENT RESERVE IN READ KEYS",
            Self::ReadReservation => "PERSISTENT RESERVE IN READ RESERVATION",
            Self::ReportTargetPortGroups => "REPORT TARGET PORT GROUPS",
            Self::ReservationReport => "Reservation Report",
            Self::TestUnitReady => "TEST UNIT READY",
        })
    }
}

/// The least access state in which a target port carries a command (SPC-5 5.18.2), from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Also where it is unavailable or in transition.
    Unavailable,
    /// Standby.
    Standby,
    /// Active: optimized or not.
    Active,
}

impl Access {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Standby => "standby",
            Self::Active => "active",
        }
    }
}

/// Which devices a row is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Devices {
    /// Of every type.
    All,
    /// Disks, type 00h.
    Disks,
}

/// Whether a row wants that the caller named a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Named {
    /// It is all the same.
    Either,
    /// He did not.
    No,
    /// He did.
    Yes,
}

/// Bits that a row wants: of the byte `at` of a command descriptor block, or of the command dword `at` of an NVMe command
/// (1: the namespace, 2, 3, 10 to 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bits {
    /// Where.
    pub at: u8,
    /// Which bits.
    pub mask: u32,
    /// What they are.
    pub value: u32,
}

impl Bits {
    /// Fits everything.
    const ANY: Self = Self { at: 0, mask: 0, value: 0 };
}

/// What a row wants of the parameter list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parameter {
    /// Nothing.
    Any,
    /// Its first mode page is this one (MODE SELECT, SPC-5 6.15).
    ModePage(u8),
    /// PERSISTENT RESERVE OUT without a service action reservation key, which takes a registration away (SPC-5 6.17.3).
    NoNewKey,
}

/// Selections by bits that a row has at most.
pub(super) const BITS_MAX: usize = 3;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What the command is called.
    pub name: Cow<'static, str>,
    /// In which words.
    pub words: Words,
    /// First and last opcode.
    pub opcodes: (u8, u8),
    /// Bits that select it.
    pub bits: [Bits; BITS_MAX],
    /// What selects it of the parameter list.
    pub parameter: Parameter,
    /// Whether a named path selects it.
    pub named: Named,
    /// Which paths.
    pub class: Class,
    /// Whether again.
    pub repeat: Repeat,
    /// May be sent again only while no copy of it may land: this router has no fence.
    pub needs_fence: bool,
    /// What tells whether it was executed.
    pub verify: Verify,
    /// A GOOD may have had no effect: it is verified.
    pub checks_effect: bool,
    /// What the port must be.
    pub access: Access,
    /// For which devices.
    pub devices: Devices,
    /// Why it is so.
    pub reason: &'static str,
    /// A row of the user.
    pub is_of_user: bool,
}

impl Row {
    /// A row for these opcodes, whatever else the command says.
    #[must_use]
    pub const fn new(
        words: Words,
        opcodes: (u8, u8),
        name: &'static str,
        class: Class,
        repeat: Repeat,
    ) -> Self {
        Self {
            name: Cow::Borrowed(name),
            words,
            opcodes,
            bits: [Bits::ANY; BITS_MAX],
            parameter: Parameter::Any,
            named: Named::Either,
            class,
            repeat,
            needs_fence: false,
            verify: Verify::None,
            checks_effect: false,
            access: Access::Active,
            devices: Devices::Disks,
            reason: "",
            is_of_user: false,
        }
    }

    /// The row for commands with these bits.
    #[must_use]
    pub const fn with(mut self, at: u8, mask: u32, value: u32) -> Self {
        let mut place = 0;
        while self.bits[place].mask != 0 {
            place += 1;
        }
        self.bits[place] = Bits { at, mask, value };
        self
    }

    /// With this service action (SPC-5 4.2.5.2).
    pub(super) const fn action(self, action: u32) -> Self {
        self.with(1, 0x1f, action)
    }

    pub(super) const fn parameter(mut self, parameter: Parameter) -> Self {
        self.parameter = parameter;
        self
    }

    pub(super) const fn named(mut self, named: Named) -> Self {
        self.named = named;
        self
    }

    pub(super) const fn behind_fence(mut self) -> Self {
        self.needs_fence = true;
        self
    }

    pub(super) const fn verify(mut self, verify: Verify) -> Self {
        self.verify = verify;
        self
    }

    /// A GOOD is verified: it may have had no effect.
    pub(super) const fn checks_effect(mut self) -> Self {
        self.checks_effect = true;
        self
    }

    pub(super) const fn repeat(mut self, repeat: Repeat) -> Self {
        self.repeat = repeat;
        self
    }

    pub(super) const fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    pub(super) const fn every_device(mut self) -> Self {
        self.devices = Devices::All;
        self
    }

    pub(super) const fn because(mut self, reason: &'static str) -> Self {
        self.reason = reason;
        self
    }

    /// Whether the row is for this command.
    #[must_use]
    pub fn fits(&self, lookup: &Lookup<'_>) -> bool {
        let named = match self.named {
            Named::Either => true,
            Named::No => !lookup.is_named,
            Named::Yes => lookup.is_named,
        };
        named && self.fits_bytes(&lookup.command.bytes) && self.fits_parameters(lookup)
    }

    fn fits_bytes(&self, bytes: &CommandBytes) -> bool {
        let (words, opcode) = match bytes {
            CommandBytes::Scsi(cdb) => (Words::Scsi, cdb.opcode()),
            CommandBytes::Nvme(fields) if fields.is_io => (Words::NvmeIo, fields.opcode),
            CommandBytes::Nvme(fields) => (Words::NvmeAdmin, fields.opcode),
        };
        let (first, last) = self.opcodes;
        words == self.words
            && (first..=last).contains(&opcode)
            && self.bits.iter().all(|bits| bits.mask == 0 || unit(bytes, bits.at) & bits.mask == bits.value)
    }

    fn fits_parameters(&self, lookup: &Lookup<'_>) -> bool {
        let list = parameters(lookup.command);
        match (self.parameter, &lookup.command.bytes) {
            (Parameter::Any, _) => true,
            (Parameter::NoNewKey, _) => list.get(8..16).is_some_and(|key| key == [0; 8]),
            (Parameter::ModePage(page), CommandBytes::Scsi(cdb)) => {
                mode_page(cdb.opcode(), list) == Some(page)
            }
            (Parameter::ModePage(_), CommandBytes::Nvme(_)) => false,
        }
    }

    /// Whether some command could fit this row and the other one.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let contradicts = |one: &Bits| {
            other
                .bits
                .iter()
                .any(|two| one.at == two.at && (one.value ^ two.value) & one.mask & two.mask != 0)
        };
        self.words == other.words
            && self.opcodes.0 <= other.opcodes.1
            && other.opcodes.0 <= self.opcodes.1
            && !self.bits.iter().any(contradicts)
    }
}

/// Where the first mode page of a MODE SELECT stands: after the header and the block descriptors (SPC-5 7.5.6).
#[must_use]
pub(crate) fn mode_page_at(opcode: u8, list: &[u8]) -> Option<usize> {
    if opcode == 0x15 {
        return Some(4 + usize::from(*list.get(3)?));
    }
    Some(8 + (usize::from(*list.get(6)?) << 8 | usize::from(*list.get(7)?)))
}

/// A byte of a command descriptor block, or a dword of an NVMe command; 0 where there is none.
fn unit(bytes: &CommandBytes, at: u8) -> u32 {
    match bytes {
        CommandBytes::Scsi(cdb) => cdb.bytes().get(usize::from(at)).copied().unwrap_or(0).into(),
        CommandBytes::Nvme(fields) => match at {
            1 => fields.namespace,
            2 | 3 => fields.cdw2[usize::from(at - 2)],
            10..=15 => fields.cdw10[usize::from(at - 10)],
            _ => 0,
        },
    }
}

impl fmt::Display for Row {
    /// `RELEASE: nexus, again after verification`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, {}", self.name, self.class.word(), self.repeat.word())?;
        if self.is_of_user { f.write_str(" (a row of the configuration)") } else { Ok(()) }
    }
}
