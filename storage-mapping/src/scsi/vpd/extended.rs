//! Extended INQUIRY data (86h, SPC-6 7.7.7) and the mode page policy (87h, 7.7.15).
//!
//! Keeps true: flags that have no name here are kept. Not here: the mode pages (`mode`).

use bitflags::bitflags;

use crate::scsi::number::{put, u16_at, u32_at};

/// Bytes behind the head of a whole page 86h.
pub(super) const BYTES_MIN: usize = 0x3c;

bitflags! {
    /// Bytes 5 to 8, byte 5 highest.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ExtendedFlags: u32 {
        /// UASK_SUP: key specific sense of unit attentions.
        const ATTENTION_KEY_SPECIFIC = 0x20 << 24;
        /// GROUP_SUP: group numbers.
        const GROUP = 0x10 << 24;
        /// PRIOR_SUP: command priority.
        const PRIORITY = 0x08 << 24;
        /// HEADSUP: HEAD OF QUEUE.
        const HEAD_OF_QUEUE = 0x04 << 24;
        /// ORDSUP: ORDERED.
        const ORDERED = 0x02 << 24;
        /// SIMPSUP: SIMPLE.
        const SIMPLE = 0x01 << 24;
        /// WU_SUP: WRITE UNCORRECTABLE.
        const WRITE_UNCORRECTABLE = 0x08 << 16;
        /// CRD_SUP: correction can be disabled.
        const CORRECTION_DISABLE = 0x04 << 16;
        /// NV_SUP: a cache that outlasts a loss of power.
        const NON_VOLATILE_CACHE = 0x02 << 16;
        /// V_SUP: a cache that does not.
        const VOLATILE_CACHE = 0x01 << 16;
        /// LUICLR: I_T nexus loss clears unit attentions of one unit.
        const ATTENTION_CLEARED_PER_UNIT = 0x01 << 8;
        const _ = !0;
    }
}

/// Extended INQUIRY data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ExtendedInquiry {
    /// Byte 4: activation of microcode, protection types, which parts of protection information are checked.
    pub protection: u8,
    /// Flags.
    pub flags: ExtendedFlags,
    /// Byte 9, lower four bits: how microcode is kept apart between nexuses.
    pub microcode_per_nexus: u8,
    /// Minutes of the extended self-test.
    pub self_test_minutes: u16,
    /// The most sense data that the unit gives; 0 where it does not tell.
    pub sense_max_bytes: u8,
}

impl ExtendedInquiry {
    pub(super) fn parse(body: &[u8]) -> Self {
        let byte = |at: usize| body.get(at).copied().unwrap_or_default();
        Self {
            protection: byte(0),
            flags: ExtendedFlags::from_bits_retain(u32_at(body, 1).unwrap_or_default()),
            microcode_per_nexus: byte(5) & 0xf,
            self_test_minutes: u16_at(body, 6).unwrap_or_default(),
            sense_max_bytes: byte(9),
        }
    }

    pub(super) fn emit(self) -> Vec<u8> {
        let mut body = vec![0; BYTES_MIN];
        body[0] = self.protection;
        put(&mut body, 1, 4, self.flags.bits());
        body[5] = self.microcode_per_nexus & 0xf;
        put(&mut body, 6, 2, self.self_test_minutes);
        body[9] = self.sense_max_bytes;
        body
    }

    /// SPT: which protection types can be used, 3 bits.
    #[must_use]
    pub fn protection_types(self) -> u8 {
        self.protection >> 3 & 7
    }
}

/// For whom a mode page is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PagePolicy {
    /// For all.
    Shared,
    /// For one target port.
    PerTargetPort,
    /// Reserved.
    Reserved,
    /// For one I_T nexus.
    PerNexus,
}

/// What one row of the mode page policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PolicyDescriptor {
    /// Page, 6 bits; 3Fh: every other one.
    pub page: u8,
    /// Subpage; FFh: every other one.
    pub subpage: u8,
    /// MLUS: the page is shared by several logical units.
    pub shared_by_units: bool,
    /// For whom.
    pub policy: PagePolicy,
}

impl PolicyDescriptor {
    pub(super) fn parse_list(body: &[u8]) -> Vec<Self> {
        let rows = body.chunks_exact(4);
        rows.map(|row| Self {
            page: row[0] & 0x3f,
            subpage: row[1],
            shared_by_units: row[2] & 0x80 != 0,
            policy: match row[2] & 3 {
                0 => PagePolicy::Shared,
                1 => PagePolicy::PerTargetPort,
                2 => PagePolicy::Reserved,
                _ => PagePolicy::PerNexus,
            },
        })
        .collect()
    }

    pub(super) fn emit(self) -> [u8; 4] {
        [self.page & 0x3f, self.subpage, u8::from(self.shared_by_units) << 7 | self.policy as u8, 0]
    }

    /// The policy of a page: of its own row, else of the row for all others; `None` where neither stands there.
    #[must_use]
    pub fn find(list: &[Self], page: u8, subpage: u8) -> Option<PagePolicy> {
        let row = |page, subpage| list.iter().find(|row| (row.page, row.subpage) == (page, subpage));
        let places = [(page, subpage), (page, 0xff), (0x3f, subpage), (0x3f, 0xff)];
        places.iter().find_map(|(page, subpage)| row(*page, *subpage)).map(|row| row.policy)
    }
}
