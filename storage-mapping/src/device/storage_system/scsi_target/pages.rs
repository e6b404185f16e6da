//! Settings and counters: MODE SENSE and SELECT, LOG SENSE and SELECT.
//!
//! Pages of settings are caching (08h) and control (0Ah), which all nexuses share, and disconnect-reconnect (02h), which
//! each nexus has its own of. Pages of counters are the bytes written (02h) and read (03h), and the port that answers (18h).
//!
//! Keeps true: a MODE SELECT of which any page is wrong sets none; a change of what is shared is news to all others. Not
//! here: whether a setting makes a difference; only D_SENSE of the control page does.

use super::answer::Answer;
use super::attention::Attention;
use super::unit::{Call, Done, LogicalUnit, relative_port};
use crate::control_port::Cdb;
use crate::scsi::log::{LogBody, LogPage, LogParameter, LogSelect, LogSense, code};
use crate::scsi::mode::{
    ALL_PAGES, BlockDescriptor, CachingPage, ControlPage, ModeData, ModePage, ModeSelect, ModeSense,
    PageControl,
};

/// The disconnect-reconnect page.
const DISCONNECT_RECONNECT: u8 = 0x02;
/// Its length without its head.
const DISCONNECT_RECONNECT_BYTES: usize = 14;
/// Device specific parameter: DPO and FUA are understood (SBC-4 6.4.1).
const DPO_AND_FUA: u8 = 0x10;
/// SAVING PARAMETERS NOT SUPPORTED.
const SAVING: (u8, u8) = (0x39, 0x00);
/// iSCSI, as a protocol identifier.
const ISCSI: u8 = 5;

/// What all nexuses share.
#[derive(Clone, Debug)]
pub(super) struct SharedPages {
    caching: ModePage,
    control: ModePage,
}

impl Default for SharedPages {
    fn default() -> Self {
        Self {
            caching: CachingPage { write_cache: true, ..CachingPage::default() }.page(),
            control: ControlPage { task_aborted_status: true, ..ControlPage::default() }.page(),
        }
    }
}

/// Bytes that came and went.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    written: u64,
    read: u64,
}

/// The page of a nexus, as it is at first.
pub(super) fn nexus_page() -> ModePage {
    ModePage { code: DISCONNECT_RECONNECT, body: vec![0; DISCONNECT_RECONNECT_BYTES], ..ModePage::default() }
}

/// Which bits of a page can be set.
fn changeable(page: &ModePage) -> ModePage {
    let mut mask = vec![0; page.body.len()];
    match page.code {
        // BUFFER FULL RATIO and BUFFER EMPTY RATIO.
        DISCONNECT_RECONNECT => mask[..2].fill(0xff),
        // WCE.
        CachingPage::CODE => mask[0] = 0x04,
        // D_SENSE; SWP is not, nothing here would keep it.
        ControlPage::CODE => mask[0] = 0x04,
        _ => {}
    }
    ModePage { body: mask, ..page.clone() }
}

impl LogicalUnit {
    /// Whether the unit is set to sense data of descriptor format.
    pub(in super::super) fn has_descriptor_sense(&self) -> bool {
        ControlPage::of(&self.shared.control).is_some_and(|page| page.descriptor_sense)
    }

    /// A page as this nexus sees it.
    fn mode_page(&mut self, nexus: usize, page: &ModePage) -> Option<&mut ModePage> {
        match (page.code, page.subpage) {
            (DISCONNECT_RECONNECT, None) => Some(&mut self.nexuses[nexus].page),
            (CachingPage::CODE, None) => Some(&mut self.shared.caching),
            (ControlPage::CODE, None) => Some(&mut self.shared.control),
            _ => None,
        }
    }

    pub(super) fn mode_sense(&self, call: &Call<'_>) -> Answer {
        let Some(sense) = Cdb::new(call.cdb).ok().and_then(|cdb| ModeSense::parse(&cdb)) else {
            return Answer::wrong_field(1);
        };
        let all = [&self.nexuses[call.nexus].page, &self.shared.caching, &self.shared.control];
        let is_asked = |page: &&&ModePage| sense.page == ALL_PAGES || sense.page == page.code;
        let found: Vec<&ModePage> = all.iter().filter(is_asked).copied().collect();
        if found.is_empty() || !matches!((sense.page, sense.subpage), (_, 0) | (ALL_PAGES, 0xff)) {
            return Answer::wrong_field(2);
        }
        let defaults = SharedPages::default();
        let as_asked = |page: &ModePage| match (sense.control, page.code) {
            (PageControl::Changeable, _) => changeable(page),
            (PageControl::Default, CachingPage::CODE) => defaults.caching.clone(),
            (PageControl::Default, ControlPage::CODE) => defaults.control.clone(),
            (PageControl::Default, _) => nexus_page(),
            _ => page.clone(),
        };
        if sense.control == PageControl::Saved {
            return Answer::illegal(SAVING.0, SAVING.1);
        }
        let pages = found.into_iter().map(as_asked).collect();
        let blocks = BlockDescriptor {
            blocks: self.name.block_count.0,
            block_bytes: u32::try_from(self.name.block_size.bytes()).unwrap_or(0),
        };
        let blocks = if sense.without_blocks { Vec::new() } else { vec![blocks] };
        let long_blocks = sense.long_blocks && !blocks.is_empty();
        let data =
            ModeData { device_specific: DPO_AND_FUA, blocks, long_blocks, ..ModeData::of_pages(pages) };
        let mut data = data.emit(sense.form);
        data.truncate(sense.allocation.into());
        Answer::data(data)
    }

    pub(super) fn mode_select(&mut self, call: &Call<'_>) -> Done {
        let select = Cdb::new(call.cdb).ok().and_then(|cdb| ModeSelect::parse(&cdb, call.data));
        let select = match select {
            None if call.cdb[1] & 0x10 == 0 => return Done::answer(Answer::wrong_field(1)),
            None => return Done::answer(Answer::wrong_length()),
            Some(ModeSelect { save: true, .. }) => return Done::answer(Answer::wrong_field(1)),
            Some(select) => select,
        };
        for page in &select.data.pages {
            let Some(own) = self.mode_page(call.nexus, page) else {
                return Done::answer(Answer::wrong_parameter(0));
            };
            let may_change = changeable(own).body;
            let keeps = |(place, byte): (usize, &u8)| (own.body[place] ^ byte) & !may_change[place] == 0;
            if page.body.len() != own.body.len() || !page.body.iter().enumerate().all(keeps) {
                return Done::answer(Answer::wrong_parameter(0));
            }
        }
        let (mut changed, mut is_news) = (false, false);
        for page in select.data.pages {
            let Some(own) = self.mode_page(call.nexus, &page) else { continue };
            if own.body != page.body {
                own.body = page.body;
                changed = true;
                is_news |= page.code != DISCONNECT_RECONNECT;
            }
        }
        if is_news {
            self.attend_others(Some(call.nexus), Attention::MODE_CHANGED);
        }
        Done::good(changed)
    }

    /// Blocks are read or written.
    pub(in super::super) fn count_bytes(&mut self, is_write: bool, bytes: usize) {
        let counter = if is_write { &mut self.counters.written } else { &mut self.counters.read };
        *counter = counter.wrapping_add(bytes as u64);
    }

    pub(super) fn log_sense(&self, call: &Call<'_>) -> Answer {
        let Some(sense) = Cdb::new(call.cdb).ok().and_then(|cdb| LogSense::parse(&cdb)) else {
            return Answer::wrong_field(1);
        };
        let bytes = |number: u64| (0..8).rev().map(|place| (number >> (8 * place) & 0xff) as u8).collect();
        let total = |number| vec![LogParameter { code: 5, control: 0, value: bytes(number) }];
        let port = self.nexuses[call.nexus].port;
        let page = match (sense.page, sense.subpage) {
            (_, 1..) => return Answer::wrong_field(3),
            (code::SUPPORTED, _) => LogPage {
                body: LogBody::Pages(vec![
                    code::SUPPORTED,
                    code::WRITE_ERRORS,
                    code::READ_ERRORS,
                    code::PROTOCOL_PORT,
                ]),
                ..LogPage::of_parameters(code::SUPPORTED, Vec::new())
            },
            (code::WRITE_ERRORS, _) => LogPage::of_parameters(sense.page, total(self.counters.written)),
            (code::READ_ERRORS, _) => LogPage::of_parameters(sense.page, total(self.counters.read)),
            (code::PROTOCOL_PORT, _) => {
                let value = vec![ISCSI, 0, 0, 0];
                let parameter = LogParameter { code: relative_port(port), control: 0x03, value };
                LogPage::of_parameters(sense.page, vec![parameter])
            }
            _ => return Answer::wrong_field(2),
        };
        let mut data = page.emit();
        data.truncate(sense.allocation.into());
        Answer::data(data)
    }

    pub(super) fn log_select(&mut self, call: &Call<'_>) -> Done {
        let Some(select) = Cdb::new(call.cdb).ok().and_then(|cdb| LogSelect::parse(&cdb, call.data)) else {
            return Done::answer(Answer::wrong_length());
        };
        if !select.list.is_empty() {
            return Done::answer(Answer::wrong_field(7));
        }
        if select.save || select.subpage != 0 {
            return Done::answer(Answer::wrong_field(1));
        }
        if !select.reset {
            return Done::good(false);
        }
        match select.page {
            code::SUPPORTED => self.counters = Counters::default(),
            code::WRITE_ERRORS => self.counters.written = 0,
            code::READ_ERRORS => self.counters.read = 0,
            _ => return Done::answer(Answer::wrong_field(2)),
        }
        self.attend_others(Some(call.nexus), Attention::LOG_CHANGED);
        Done::good(true)
    }
}
