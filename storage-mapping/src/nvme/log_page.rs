//! Get Log Page (base specification 2.1, 5.1.12): the command and the pages that are understood.
//!
//! Keeps true: an entry that did not come whole is left out. Not here: the list of changed namespaces, which has the form of
//! [`NamespaceList`](super::identify::NamespaceList); what an access state means for a path (`multipath`).

mod access;

pub use access::{AccessGroup, AccessLog, AsymmetricState};

use super::command;
use super::number::{array_at, put, u16_at, u32_at, u64_at, u128_at};
use super::opcode::admin;
use crate::control_port::{ControlCommand, NvmeFields, Transfer};
use crate::scsi::number::{put_text, text};

/// Bytes of an entry of the error log.
const ERROR_BYTES: usize = 64;
/// Bytes of the SMART log and of the firmware slot log.
const PAGE_BYTES: usize = 512;

/// Log page identifiers.
pub mod id {
    /// Error Information; reply [`ErrorLog`](super::ErrorLog).
    pub const ERROR_INFORMATION: u8 = 0x01;
    /// SMART / Health Information; reply [`SmartLog`](super::SmartLog).
    pub const SMART: u8 = 0x02;
    /// Firmware Slot Information; reply [`FirmwareLog`](super::FirmwareLog).
    pub const FIRMWARE_SLOTS: u8 = 0x03;
    /// Changed Namespace List; reply [`NamespaceList`](crate::nvme::identify::NamespaceList).
    pub const CHANGED_NAMESPACES: u8 = 0x04;
    /// Asymmetric Namespace Access; reply [`AccessLog`](super::AccessLog).
    pub const ASYMMETRIC_ACCESS: u8 = 0x0c;
    /// Reservation Notification.
    pub const RESERVATION_NOTIFICATION: u8 = 0x80;
}

/// The name of a log page; a general one where it is not known.
#[must_use]
pub fn name(page: u8) -> &'static str {
    match page {
        0x00 => "Supported Log Pages",
        id::ERROR_INFORMATION => "Error Information",
        id::SMART => "SMART / Health Information",
        id::FIRMWARE_SLOTS => "Firmware Slot Information",
        id::CHANGED_NAMESPACES => "Changed Namespace List",
        0x05 => "Commands Supported and Effects",
        0x06 => "Device Self-test",
        0x07 => "Telemetry Host-Initiated",
        0x08 => "Telemetry Controller-Initiated",
        0x09 => "Endurance Group Information",
        0x0a => "Predictable Latency Per NVM Set",
        0x0b => "Predictable Latency Event Aggregate",
        id::ASYMMETRIC_ACCESS => "Asymmetric Namespace Access",
        0x0d => "Persistent Event",
        0x0e => "LBA Status Information",
        0x0f => "Endurance Group Event Aggregate",
        0x70 => "Discovery",
        id::RESERVATION_NOTIFICATION => "Reservation Notification",
        0x81 => "Sanitize Status",
        0xc0.. => "vendor specific log page",
        _ => "unknown log page",
    }
}

/// Get Log Page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GetLogPage {
    /// Namespace; FFFFFFFFh: of the controller.
    pub namespace: u32,
    /// Log page identifier.
    pub page: u8,
    /// LSP, 7 bits: what the page defines.
    pub specific: u8,
    /// RAE: the event that announced it stays.
    pub retain_event: bool,
    /// The first byte that is asked for; a multiple of 4.
    pub offset: u64,
    /// The most bytes that may come; a multiple of 4, at least 4.
    pub allocation: u32,
}

impl GetLogPage {
    /// A page of the controller from its beginning, the event kept.
    #[must_use]
    pub fn of_controller(page: u8, allocation: u32) -> Self {
        Self { namespace: u32::MAX, page, specific: 0, retain_event: true, offset: 0, allocation }
    }

    /// The command.
    #[must_use]
    pub fn command(self) -> ControlCommand {
        let dwords = (self.allocation / 4).max(1);
        let count = dwords - 1;
        let mut fields =
            NvmeFields { opcode: admin::GET_LOG_PAGE, namespace: self.namespace, ..NvmeFields::default() };
        fields.cdw10[0] = u32::from(self.page)
            | u32::from(self.specific & 0x7f) << 8
            | u32::from(self.retain_event) << 15
            | (count & 0xffff) << 16;
        fields.cdw10[1] = count >> 16;
        fields.cdw10[2] = (self.offset & 0xffff_ffff) as u32;
        fields.cdw10[3] = (self.offset >> 32) as u32;
        command(fields, Transfer::In(4 * dwords as usize))
    }

    /// Reads the command; `None` where it is another one, or asks for more than 32 bits can count.
    #[must_use]
    pub fn parse(fields: &NvmeFields) -> Option<Self> {
        if fields.is_io || fields.opcode != admin::GET_LOG_PAGE {
            return None;
        }
        let [first, second, low, high, ..] = fields.cdw10;
        let count = first >> 16 | (second & 0xffff) << 16;
        Some(Self {
            namespace: fields.namespace,
            page: (first & 0xff) as u8,
            specific: (first >> 8 & 0x7f) as u8,
            retain_event: first & 0x8000 != 0,
            offset: u64::from(high) << 32 | u64::from(low),
            allocation: count.checked_add(1)?.checked_mul(4)?,
        })
    }
}

/// An error that the controller noted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ErrorEntry {
    /// Counts errors for ever; 0: no entry.
    pub count: u64,
    /// Submission queue.
    pub queue: u16,
    /// Command.
    pub command: u16,
    /// Status field as in a completion: bits 1 to 8 code, 9 to 11 type, 15 do not retry.
    pub status: u16,
    /// Byte (bits 0 to 7) and bit (8 to 10) of the command that is at fault.
    pub location: u16,
    /// First block that is at fault.
    pub lba: u64,
    /// Namespace.
    pub namespace: u32,
}

impl ErrorEntry {
    /// Status code type and status code.
    #[must_use]
    pub fn status_codes(&self) -> (u8, u8) {
        ((self.status >> 9 & 7) as u8, (self.status >> 1 & 0xff) as u8)
    }
}

/// Error Information.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ErrorLog {
    /// Entries, the newest first; empty ones (count 0) are there too.
    pub entries: Vec<ErrorEntry>,
    /// Whether the last entry came whole.
    pub is_whole: bool,
}

impl ErrorLog {
    /// Reads as many entries as came; `None` where not even one did.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (entries, rest) = bytes.as_chunks::<ERROR_BYTES>();
        let read = |entry: &[u8; ERROR_BYTES]| {
            Some(ErrorEntry {
                count: u64_at(entry, 0)?,
                queue: u16_at(entry, 8)?,
                command: u16_at(entry, 10)?,
                status: u16_at(entry, 12)?,
                location: u16_at(entry, 14)?,
                lba: u64_at(entry, 16)?,
                namespace: u32_at(entry, 24)?,
            })
        };
        let entries: Vec<_> = entries.iter().filter_map(read).collect();
        (!entries.is_empty()).then_some(Self { entries, is_whole: rest.is_empty() })
    }

    /// Its bytes.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![0; ERROR_BYTES * self.entries.len()];
        for (entry, place) in self.entries.iter().zip(bytes.chunks_exact_mut(ERROR_BYTES)) {
            put(place, 0, 8, entry.count);
            put(place, 8, 2, entry.queue);
            put(place, 10, 2, entry.command);
            put(place, 12, 2, entry.status);
            put(place, 14, 2, entry.location);
            put(place, 16, 8, entry.lba);
            put(place, 24, 4, entry.namespace);
        }
        bytes
    }
}

/// SMART / Health Information. Counters are of 128 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SmartLog {
    /// Critical warnings: bit 0 spare, 1 temperature, 2 reliability, 3 read only, 4 backup of volatile memory.
    pub critical_warning: u8,
    /// Composite temperature in kelvin; 0: not told.
    pub temperature_kelvin: u16,
    /// Spare that is left, in per cent.
    pub available_spare: u8,
    /// Below it a warning is raised.
    pub spare_threshold: u8,
    /// Of the device's life, in per cent; more than 100 can be.
    pub percentage_used: u8,
    /// Read, in 512,000 bytes.
    pub data_units_read: u128,
    /// Written, in 512,000 bytes.
    pub data_units_written: u128,
    /// Read commands.
    pub host_reads: u128,
    /// Write commands.
    pub host_writes: u128,
    /// Minutes that the controller was busy.
    pub busy_minutes: u128,
    /// Power cycles.
    pub power_cycles: u128,
    /// Hours of power.
    pub power_on_hours: u128,
    /// Losses of power without notice.
    pub unsafe_shutdowns: u128,
    /// Errors of media and of data integrity.
    pub media_errors: u128,
    /// Entries of the error log over its life.
    pub error_entries: u128,
    /// Minutes above the warning temperature.
    pub warning_minutes: u32,
    /// Minutes above the critical temperature.
    pub critical_minutes: u32,
    /// Temperature sensors in kelvin; 0: none.
    pub sensors_kelvin: [u16; 8],
    /// Whether all 512 bytes came.
    pub is_whole: bool,
}

impl SmartLog {
    /// Reads it; `None` where fewer than six bytes came. Counters that did not come are 0.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let counter = |place: usize| u128_at(bytes, 32 + 16 * place).unwrap_or_default();
        let word = |at| u32_at(bytes, at).unwrap_or_default();
        Some(Self {
            critical_warning: *bytes.first()?,
            temperature_kelvin: u16_at(bytes, 1)?,
            available_spare: *bytes.get(3)?,
            spare_threshold: *bytes.get(4)?,
            percentage_used: *bytes.get(5)?,
            data_units_read: counter(0),
            data_units_written: counter(1),
            host_reads: counter(2),
            host_writes: counter(3),
            busy_minutes: counter(4),
            power_cycles: counter(5),
            power_on_hours: counter(6),
            unsafe_shutdowns: counter(7),
            media_errors: counter(8),
            error_entries: counter(9),
            warning_minutes: word(192),
            critical_minutes: word(196),
            sensors_kelvin: [0, 1, 2, 3, 4, 5, 6, 7].map(|n| u16_at(bytes, 200 + 2 * n).unwrap_or_default()),
            is_whole: bytes.len() >= PAGE_BYTES,
        })
    }

    /// Its bytes.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![0; PAGE_BYTES];
        bytes[0] = self.critical_warning;
        put(&mut bytes, 1, 2, self.temperature_kelvin);
        (bytes[3], bytes[4], bytes[5]) = (self.available_spare, self.spare_threshold, self.percentage_used);
        let counters = [
            self.data_units_read,
            self.data_units_written,
            self.host_reads,
            self.host_writes,
            self.busy_minutes,
            self.power_cycles,
            self.power_on_hours,
            self.unsafe_shutdowns,
            self.media_errors,
            self.error_entries,
        ];
        for (place, counter) in counters.into_iter().enumerate() {
            put(&mut bytes, 32 + 16 * place, 16, counter);
        }
        put(&mut bytes, 192, 4, self.warning_minutes);
        put(&mut bytes, 196, 4, self.critical_minutes);
        for (place, sensor) in self.sensors_kelvin.into_iter().enumerate() {
            put(&mut bytes, 200 + 2 * place, 2, sensor);
        }
        bytes
    }
}

/// Firmware Slot Information.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FirmwareLog {
    /// The slot in use, 1 to 7.
    pub active: u8,
    /// The slot that the next reset activates; 0: the same.
    pub next: u8,
    /// Revisions of slots 1 to 7; empty: none.
    pub revisions: [String; 7],
    /// Whether all 512 bytes came.
    pub is_whole: bool,
}

impl FirmwareLog {
    /// Reads it; `None` where nothing came.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let first = *bytes.first()?;
        let revisions = [1, 2, 3, 4, 5, 6, 7].map(|slot| text(&array_at::<8>(bytes, 8 * slot)));
        Some(Self { active: first & 7, next: first >> 4 & 7, revisions, is_whole: bytes.len() >= PAGE_BYTES })
    }

    /// Its bytes.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![0; PAGE_BYTES];
        bytes[0] = (self.next & 7) << 4 | self.active & 7;
        for (slot, revision) in self.revisions.iter().enumerate().filter(|(_, revision)| !revision.is_empty())
        {
            put_text(&mut bytes[8 * (slot + 1)..8 * (slot + 2)], revision);
        }
        bytes
    }
}
