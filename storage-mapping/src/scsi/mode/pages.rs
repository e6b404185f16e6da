//! The mode pages that are understood: control (0Ah, SPC-6 7.5.10) and caching (08h, SBC-5 6.5.6).
//!
//! Keeps true: putting fields into a page changes no other bit of it. Not here: the page around them (`mode`).

use super::ModePage;
use crate::scsi::number::{put, u16_at};

/// Bits of a byte of a page; `at` counts as the standard does, from the head.
fn bits(page: &ModePage, at: usize, shift: u8, mask: u8) -> u8 {
    page.body.get(at - 2).map_or(0, |byte| byte >> shift & mask)
}

fn put_bits(page: &mut ModePage, at: usize, shift: u8, mask: u8, value: u8) {
    let byte = &mut page.body[at - 2];
    *byte = *byte & !(mask << shift) | (value & mask) << shift;
}

/// The control mode page: how the unit treats commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ControlPage {
    /// TST, 3 bits: 0 one task set for all nexuses, 1 one for each.
    pub task_sets: u8,
    /// D_SENSE: sense data in descriptor format.
    pub descriptor_sense: bool,
    /// Queue algorithm modifier, 4 bits.
    pub queue_algorithm: u8,
    /// QERR, 2 bits: which commands a CHECK CONDITION aborts.
    pub queue_error: u8,
    /// UA_INTLCK_CTRL, 2 bits.
    pub attention_interlock: u8,
    /// SWP: software write protect.
    pub write_protect: bool,
    /// TAS: aborted commands end with TASK ABORTED.
    pub task_aborted_status: bool,
    /// Busy timeout in 100 ms.
    pub busy_timeout: u16,
    /// Seconds of the extended self-test.
    pub self_test_seconds: u16,
}

impl ControlPage {
    /// Page code.
    pub const CODE: u8 = 0x0a;
    /// Bytes behind its head.
    const BODY_BYTES: usize = 0x0a;

    /// Reads its fields; `None` for another page. What did not come is 0.
    #[must_use]
    pub fn of(page: &ModePage) -> Option<Self> {
        if (page.code, page.subpage) != (Self::CODE, None) {
            return None;
        }
        Some(Self {
            task_sets: bits(page, 2, 5, 7),
            descriptor_sense: bits(page, 2, 2, 1) != 0,
            queue_algorithm: bits(page, 3, 4, 0xf),
            queue_error: bits(page, 3, 1, 3),
            attention_interlock: bits(page, 4, 4, 3),
            write_protect: bits(page, 4, 3, 1) != 0,
            task_aborted_status: bits(page, 5, 6, 1) != 0,
            busy_timeout: u16_at(&page.body, 6).unwrap_or_default(),
            self_test_seconds: u16_at(&page.body, 8).unwrap_or_default(),
        })
    }

    /// Puts its fields into a page that was read before; a shorter page grows.
    pub fn put(&self, page: &mut ModePage) {
        page.code = Self::CODE;
        page.body.resize(page.body.len().max(Self::BODY_BYTES), 0);
        put_bits(page, 2, 5, 7, self.task_sets);
        put_bits(page, 2, 2, 1, self.descriptor_sense.into());
        put_bits(page, 3, 4, 0xf, self.queue_algorithm);
        put_bits(page, 3, 1, 3, self.queue_error);
        put_bits(page, 4, 4, 3, self.attention_interlock);
        put_bits(page, 4, 3, 1, self.write_protect.into());
        put_bits(page, 5, 6, 1, self.task_aborted_status.into());
        put(&mut page.body, 6, 2, self.busy_timeout);
        put(&mut page.body, 8, 2, self.self_test_seconds);
    }

    /// A page with these fields and zeros.
    #[must_use]
    pub fn page(&self) -> ModePage {
        let mut page = ModePage::default();
        self.put(&mut page);
        page
    }
}

/// The caching mode page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "the standard has one bit for each")]
pub struct CachingPage {
    /// WCE: writes are answered from the cache.
    pub write_cache: bool,
    /// RCD: reads are not answered from the cache.
    pub read_cache_disabled: bool,
    /// DRA: no read ahead.
    pub read_ahead_disabled: bool,
    /// NV_DIS: the cache that outlasts a loss of power is not used.
    pub non_volatile_disabled: bool,
}

impl CachingPage {
    /// Page code.
    pub const CODE: u8 = 0x08;
    /// Bytes behind its head.
    const BODY_BYTES: usize = 0x12;

    /// Reads its fields; `None` for another page. What did not come is 0.
    #[must_use]
    pub fn of(page: &ModePage) -> Option<Self> {
        if (page.code, page.subpage) != (Self::CODE, None) {
            return None;
        }
        Some(Self {
            write_cache: bits(page, 2, 2, 1) != 0,
            read_cache_disabled: bits(page, 2, 0, 1) != 0,
            read_ahead_disabled: bits(page, 12, 5, 1) != 0,
            non_volatile_disabled: bits(page, 12, 0, 1) != 0,
        })
    }

    /// Puts its fields into a page that was read before; a shorter page grows.
    pub fn put(&self, page: &mut ModePage) {
        page.code = Self::CODE;
        page.body.resize(page.body.len().max(Self::BODY_BYTES), 0);
        put_bits(page, 2, 2, 1, self.write_cache.into());
        put_bits(page, 2, 0, 1, self.read_cache_disabled.into());
        put_bits(page, 12, 5, 1, self.read_ahead_disabled.into());
        put_bits(page, 12, 0, 1, self.non_volatile_disabled.into());
    }

    /// A page with these fields and zeros.
    #[must_use]
    pub fn page(&self) -> ModePage {
        let mut page = ModePage::default();
        self.put(&mut page);
        page
    }
}
