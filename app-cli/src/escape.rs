//! Text of unknown origin made safe to show.
//!
//! A file name or a peer's message may hold line breaks, terminal control sequences (C0, DEL, C1) or
//! signs that reorder what a reader sees (bidirectional controls, zero-width signs): each is shown as
//! `\n`, `\x1b`, `\u{202e}` instead, and bytes that are no UTF-8 as `\xff`. A backslash is doubled, so
//! that what is shown can be told from what was meant. Not here: quoting for a shell.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

/// A name or path as it may be printed, unambiguously.
pub fn name(name: impl AsRef<OsStr>) -> String {
    let mut shown = String::new();
    for chunk in name.as_ref().as_bytes().utf8_chunks() {
        for sign in chunk.valid().chars() {
            match sign {
                '\\' => shown.push_str("\\\\"),
                _ => push(&mut shown, sign),
            }
        }
        for byte in chunk.invalid() {
            push_hex(&mut shown, *byte);
        }
    }
    shown
}

/// A message as one line. Backslashes stay: the names in it are escaped already.
#[must_use]
pub fn one_line(message: &str) -> String {
    let mut shown = String::with_capacity(message.len());
    message.chars().for_each(|sign| push(&mut shown, sign));
    shown
}

fn push(shown: &mut String, sign: char) {
    match sign {
        '\n' => shown.push_str("\\n"),
        '\r' => shown.push_str("\\r"),
        '\t' => shown.push_str("\\t"),
        '\0'..='\x1f' | '\x7f' => push_hex(shown, sign as u8),
        _ if sign.is_control() || misleads(sign) => {
            // Writing to a String cannot fail.
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(sign));
        }
        _ => shown.push(sign),
    }
}

fn push_hex(shown: &mut String, byte: u8) {
    let _ = write!(shown, "\\x{byte:02x}");
}

/// Signs without a shape of their own that change how others look: soft hyphen, Arabic letter mark,
/// zero-width and directional marks, line and paragraph separators, embeddings, overrides, isolates,
/// invisible operators, byte order mark, interlinear and tag signs.
fn misleads(sign: char) -> bool {
    matches!(sign,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_deceive_is_spelled_out() {
        let cases: &[(&[u8], &str)] = &[
            (b"plain-1.txt", "plain-1.txt"),
            ("Übergröße 数据".as_bytes(), "Übergröße 数据"),
            (b"two\nlines\r\t", "two\\nlines\\r\\t"),
            (b"\x1b[31mred\x07\x7f", "\\x1b[31mred\\x07\\x7f"),
            ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
            ("a\u{202e}txt.exe\u{2066}".as_bytes(), "a\\u{202e}txt.exe\\u{2066}"),
            ("\u{200b}\u{feff}\u{2028}".as_bytes(), "\\u{200b}\\u{feff}\\u{2028}"),
            (b"\xff\xfeA", "\\xff\\xfeA"),
            (b"back\\slash", "back\\\\slash"),
            (b"\\n", "\\\\n"),
            (b"", ""),
        ];
        for (bytes, shown) in cases {
            assert_eq!(name(OsStr::from_bytes(bytes)), *shown);
        }
    }

    #[test]
    fn a_message_is_one_line_and_keeps_its_escapes() {
        assert_eq!(one_line("no \\xff\nhere\u{85}"), "no \\xff\\nhere\\u{85}");
    }

    #[test]
    fn nothing_that_is_shown_controls_a_terminal() {
        let all: String = (0..=0x2100).filter_map(char::from_u32).collect();
        assert!(!name(&all).chars().any(|sign| sign.is_control() || misleads(sign)));
    }
}
