//! Replies of targets as sections: for people in 80 columns, for programs as JSON.
//!
//! Keeps true: what a target sent is shown as what it is, and where it was cut short that is said; text of a target is
//! escaped by whoever prints it (`section_view`). Not here: the command that brought the reply.

pub(super) mod inquiry;
pub(super) mod pages;
pub(super) mod reservations;
pub(super) mod unit;
pub(super) mod vpd;

use storage_mapping::scsi::sense::Sense;
use transfer_core::inspect::Section;

/// Bytes in one line of a dump.
const DUMP_BYTES: usize = 16;

/// The names of what is set, or a word for nothing.
pub(super) fn set_of(flags: &[(bool, &str)]) -> String {
    let names: Vec<&str> = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| *name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

pub(super) fn yes(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

/// A section that says that the reply was cut short, if it was.
pub(super) fn note_cut(section: &mut Section, is_whole: bool) {
    if !is_whole {
        section.field("cut_short", "yes: less came than its length announces");
    }
}

/// A reply that cannot be read as what it should be.
pub(super) fn unreadable(what: &str, data: &[u8]) -> Section {
    let mut section = Section::new(format!("{what}: {} bytes that are none", data.len()));
    section.fields = dump(data);
    section
}

/// Bytes as a dump: place, digits, characters.
pub(super) fn dump(data: &[u8]) -> Vec<(String, String)> {
    let line = |(place, bytes): (usize, &[u8])| {
        let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let plain = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' };
        let text: String = bytes.iter().map(plain).collect();
        (format!("{:04x}", place * DUMP_BYTES), format!("{:<47}  {text}", digits.join(" ")))
    };
    data.chunks(DUMP_BYTES).enumerate().map(line).collect()
}

/// Data that nothing is known of.
pub(super) fn data(data: &[u8]) -> Section {
    let mut section = Section::new(format!("Data: {} bytes", data.len()));
    section.fields = dump(data);
    section
}

/// Sense data.
pub(super) fn sense(bytes: &[u8]) -> Option<Section> {
    let sense = Sense::parse(bytes)?;
    let (key, asc, ascq) = sense.triple();
    let mut section = Section::new("Sense data");
    section.field("key", format!("{key:x}h {}", sense.key_name()));
    let meaning = sense.meaning().unwrap_or("not in our list");
    section.field("code", format!("{asc:02x}h/{ascq:02x}h {meaning}"));
    if sense.deferred {
        section.field("deferred", "yes: it speaks of an earlier command");
    }
    if let Some(information) = sense.information {
        section.field("information", format!("{information:#x}"));
    }
    if let Some(progress) = sense.progress() {
        section.field("progress", format!("{} %", u32::from(progress) * 100 / 65536));
    }
    note_cut(&mut section, sense.is_whole);
    Some(section)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_shows_places_digits_and_characters() {
        let lines = dump(b"LIO-ORG \x00\xffabcdefg");
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].0, "0000");
        assert!(lines[0].1.starts_with("4c 49 4f") && lines[0].1.ends_with("LIO-ORG...abcdef"));
        assert_eq!(lines[1], ("0010".to_owned(), format!("{:<47}  g", "67")));
    }

    #[test]
    fn sense_is_told_in_words() {
        let section = sense(&Sense::new(5, 0x20, 0).emit()).unwrap();
        assert!(section.fields[0].1.starts_with("5h "), "{section:?}");
        assert!(section.fields[1].1.starts_with("20h/00h "), "{section:?}");
        assert!(sense(&[]).is_none());
    }
}
