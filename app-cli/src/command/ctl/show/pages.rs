//! Mode pages and log pages. Not here: vital product data (`vpd`).

use storage_mapping::scsi::log::{LogBody, LogPage, code, page_name};
use storage_mapping::scsi::mode::{CachingPage, ControlPage, ModeData, ModeForm, ModePage};
use transfer_core::inspect::Section;
use volume::open::hex;

use super::{note_cut, unreadable, yes};

/// MODE SENSE (10).
pub(in super::super) fn mode(data: &[u8]) -> Section {
    let Some(mode) = ModeData::parse(data, ModeForm::Ten) else { return unreadable("Mode pages", data) };
    let mut section = Section::new(format!("Mode pages: {}", mode.pages.len()));
    section.field("medium_type", format!("{:02x}h", mode.medium_type));
    section.field("write_protected", yes(mode.is_write_protected()));
    for block in &mode.blocks {
        section.field("blocks", block.blocks).field("block_bytes", block.block_bytes);
    }
    section.children = mode.pages.iter().map(mode_page).collect();
    note_cut(&mut section, mode.is_whole);
    section
}

fn mode_page(page: &ModePage) -> Section {
    let place = page.subpage.map_or(String::new(), |subpage| format!("/{subpage:02x}h"));
    let mut part = Section::new(format!("page {:02x}h{place}", page.code));
    if let Some(control) = ControlPage::of(page) {
        part.field("is", "control");
        part.field("task_sets", control.task_sets);
        part.field("descriptor_sense", yes(control.descriptor_sense));
        part.field("queue_algorithm", control.queue_algorithm);
        part.field("queue_error", control.queue_error);
        part.field("attention_interlock", control.attention_interlock);
        part.field("write_protect", yes(control.write_protect));
        part.field("task_aborted_status", yes(control.task_aborted_status));
        part.field("busy_timeout_100ms", control.busy_timeout);
        part.field("self_test_seconds", control.self_test_seconds);
    } else if let Some(caching) = CachingPage::of(page) {
        part.field("is", "caching");
        part.field("write_cache", yes(caching.write_cache));
        part.field("read_cache", yes(!caching.read_cache_disabled));
        part.field("read_ahead", yes(!caching.read_ahead_disabled));
        part.field("non_volatile_cache", yes(!caching.non_volatile_disabled));
    } else {
        part.field("bytes", hex(&page.body));
    }
    part.field("savable", yes(page.savable));
    part
}

/// LOG SENSE.
pub(in super::super) fn log(data: &[u8]) -> Section {
    let Some(page) = LogPage::parse(data) else { return unreadable("Log page", data) };
    let mut section = Section::new(format!("Log page {:02x}h: {}", page.code, page_name(page.code)));
    match (&page.body, page.code) {
        (LogBody::Pages(list), _) => {
            for page in list {
                section.field(&format!("{page:02x}h"), page_name(*page));
            }
        }
        (LogBody::PagesAndSubpages(list), _) => {
            for (page, subpage) in list {
                section.field(&format!("{page:02x}h/{subpage:02x}h"), page_name(*page));
            }
        }
        (LogBody::Parameters(_), code::TEMPERATURE) => temperature(&mut section, &page),
        (LogBody::Parameters(_), code::WRITE_ERRORS | code::READ_ERRORS | code::VERIFY_ERRORS) => {
            errors(&mut section, &page);
        }
        (LogBody::Parameters(parameters), _) => {
            for one in parameters {
                let value = one.number().map_or_else(|| hex(&one.value), |number| number.to_string());
                section.field(&format!("{:04x}h", one.code), value);
            }
        }
    }
    note_cut(&mut section, page.is_whole);
    section
}

fn temperature(section: &mut Section, page: &LogPage) {
    let Some(temperature) = page.temperature() else { return };
    let text = |degrees: Option<u8>| degrees.map_or("not told".to_owned(), |degrees| format!("{degrees} °C"));
    section.field("temperature", text(temperature.now));
    section.field("reference", text(temperature.reference));
}

fn errors(section: &mut Section, page: &LogPage) {
    let Some(counters) = page.error_counters() else { return };
    for (name, value) in [
        ("corrected_at_once", counters.corrected_at_once),
        ("corrected_with_delay", counters.corrected_with_delay),
        ("repeated", counters.repeated),
        ("corrected", counters.corrected),
        ("corrections_run", counters.corrections_run),
        ("bytes", counters.bytes),
        ("uncorrected", counters.uncorrected),
    ] {
        if let Some(value) = value {
            section.field(name, value);
        }
    }
}
