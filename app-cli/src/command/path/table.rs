//! `path list`: a line for each path, and one more where there is something to say.
//!
//! Keeps true: no line is wider than the screen; what does not fit of addresses is left out of their middle, at a place
//! where those of one device still differ. Not here: rates (`watch`).

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::{self, IsTerminal};

use super::view::{Device, Lane, Path, age, time_or_dash};
use crate::escape;

/// Columns of the screen, where it does not say how many it has.
pub(super) const COLUMNS: usize = 80;
/// The widest screen that is made use of.
const COLUMNS_MAX: usize = 400;
/// The heads of the columns before the address.
const HEADS: [&str; 9] = ["path", "state", "group", "sent", "MiB", "errors", "flying", "p50", "p99"];
/// The column that is flush left.
const STATE: usize = 1;
/// Columns for an address at the least.
const ADDRESS_MIN: usize = 8;

/// The columns of the screen, or what COLUMNS says, but never less than 80.
pub(super) fn columns() -> usize {
    let out = io::stdout();
    let size = if out.is_terminal() { rustix::termios::tcgetwinsize(&out).ok() } else { None };
    let said = || std::env::var("COLUMNS").ok()?.parse().ok();
    size.map(|size| usize::from(size.ws_col)).or_else(said).unwrap_or(COLUMNS).clamp(COLUMNS, COLUMNS_MAX)
}

pub(super) fn text(lanes: &[Lane], columns: usize) -> String {
    let mut text = String::new();
    for lane in lanes {
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = writeln!(text, "{}", lane.title);
        for device in &lane.devices {
            push_head(&mut text, device);
            push_paths(&mut text, device, columns);
        }
    }
    text
}

fn push_paths(text: &mut String, device: &Device, columns: usize) {
    let rows: Vec<[String; 9]> = device.paths.iter().map(row).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEADS[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEADS.len()).map(width).collect();
    let room = columns.saturating_sub(2 + widths.iter().sum::<usize>() + widths.len());
    let addresses: Vec<String> = device.paths.iter().map(|path| escape::name(&path.address)).collect();
    let addresses = shorten(&addresses, room.max(ADDRESS_MIN));
    push_row(text, ' ', &HEADS, &widths, "address");
    for ((path, row), address) in device.paths.iter().zip(&rows).zip(addresses) {
        let cells: Vec<&str> = row.iter().map(String::as_str).collect();
        push_row(text, if path.is_current { '*' } else { ' ' }, &cells, &widths, &address);
        if let Some(reason) = &path.reason {
            push_reason(text, device, path, reason);
        }
    }
}

fn push_row(text: &mut String, mark: char, cells: &[&str], widths: &[usize], last: &str) {
    let _ = write!(text, "{mark} ");
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let _ =
            if column == STATE { write!(text, "{cell:<width$} ") } else { write!(text, "{cell:>width$} ") };
    }
    let _ = writeln!(text, "{last}");
}

/// What stands before the address.
fn row(path: &Path) -> [String; 9] {
    let latency = path.main_latency();
    // Numbers that people read: what f64 cannot hold exactly is not shown exactly either.
    let mebibytes = path.bytes as f64 / f64::from(1 << 20);
    [
        path.path.to_string(),
        escape::one_line(&path.state),
        path.priority.to_string(),
        path.requests.to_string(),
        format!("{mebibytes:.1}"),
        path.errors.to_string(),
        path.in_flight.to_string(),
        time_or_dash(latency.p50),
        time_or_dash(latency.p99),
    ]
}

/// Texts in so many columns, all cut at the same place: one where those that differ still do. In the middle, if that
/// will do; else what is left is a piece from the middle.
fn shorten(texts: &[String], room: usize) -> Vec<String> {
    let kept = room.saturating_sub(2);
    let cut = |head: usize, text: &str| -> String {
        let tail = text.chars().skip(text.chars().count() - (kept - head));
        text.chars().take(head).chain("..".chars()).chain(tail).collect()
    };
    let piece = |from: usize, text: &str| -> String {
        let from = from.min(text.chars().count() - kept);
        "..".chars().chain(text.chars().skip(from).take(kept.saturating_sub(2))).chain("..".chars()).collect()
    };
    let all = |shorter: &dyn Fn(&str) -> String| -> Vec<String> {
        let fits = |text: &String| text.chars().count() <= room;
        texts.iter().map(|text| if fits(text) { text.clone() } else { shorter(text) }).collect()
    };
    let distinct = |texts: &[String]| texts.iter().collect::<BTreeSet<_>>().len();
    // From a third outwards, so that both ends are seen where that is enough.
    let mut heads: Vec<usize> = (0..=kept).collect();
    heads.sort_by_key(|head| head.abs_diff(kept / 3));
    let longest = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0);
    let cuts = heads.into_iter().map(|head| all(&|text| cut(head, text)));
    let pieces = (0..longest).map(|from| all(&|text| piece(from, text)));
    let wanted = distinct(texts);
    let mut best = all(&|text| cut(kept / 3, text));
    for shortened in cuts.chain(pieces) {
        if distinct(&best) == wanted {
            break;
        }
        if distinct(&shortened) > distinct(&best) {
            best = shortened;
        }
    }
    best
}

/// What holds for the whole device.
pub(super) fn push_head(text: &mut String, device: &Device) {
    let _ = write!(text, "\n{}: {}", escape::one_line(&device.device), escape::one_line(&device.policy));
    for (count, what) in [
        (device.in_flight, "in flight"),
        (device.waiting, "waiting for a path"),
        (device.held_writes, "writes held"),
        (device.living_copies.len() as u64, "copies may still land"),
    ] {
        if count > 0 {
            let _ = write!(text, ", {count} {what}");
        }
    }
    text.push_str(if device.target_event { ", all paths failed at once\n" } else { "\n" });
}

/// Why a path is in its state, on lines of their own.
pub(super) fn push_reason(text: &mut String, device: &Device, path: &Path, reason: &str) {
    let since = path.since.map_or_else(String::new, |since| format!("for {}: ", age(device.at - since)));
    push_wrapped(text, 9, &format!("{since}{}", escape::one_line(reason)));
}

/// Words within the screen, from a column on.
pub(super) fn push_wrapped(text: &mut String, indent: usize, words: &str) {
    let mut line = String::new();
    for word in words.split(' ') {
        if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > COLUMNS {
            let _ = writeln!(text, "{:indent$}{line}", "");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(text, "{:indent$}{line}", "");
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn device() -> Device {
        let path = |place, state: &str| Path {
            path: place,
            address: "file:disks/a-long-name-of-a-file.img?latency=2ms".to_owned(),
            state: state.to_owned(),
            is_current: place == 0,
            requests: 123_456,
            bytes: 12 << 30,
            ..Path::default()
        };
        let mut failed = path(1, "failed");
        failed.reason = Some("it gave no answer in time \x1b[31m".to_owned());
        failed.since = Some(2.0);
        Device {
            device: "disk0".to_owned(),
            policy: "latency".to_owned(),
            at: 14.0,
            held_writes: 2,
            paths: vec![path(0, "active"), failed],
            ..Device::default()
        }
    }

    #[test]
    fn the_table_fits_the_screen_and_controls_nothing() {
        let lane = Lane { name: "lane 0".to_owned(), title: "serve".to_owned(), devices: vec![device()] };
        let lanes = [lane];
        let shown = text(&lanes, COLUMNS);
        assert!(shown.lines().all(|line| line.chars().count() <= COLUMNS), "{shown}");
        let wide = text(&lanes, 120);
        assert!(wide.contains(" file:disks/a-long-name-of-a-file.img?latency=2ms\n"), "{wide}");
        assert!(shown.contains("disk0: latency, 2 writes held\n"), "{shown}");
        assert!(shown.contains("* ") && shown.contains("for 12 s: it gave no answer in time \\x1b[31m"));
        assert!(shown.contains(" file:di..mg?latency=2ms\n"), "{shown}");
    }

    #[test]
    fn long_words_are_not_torn() {
        let mut text = String::new();
        push_wrapped(&mut text, 4, &"word ".repeat(40));
        assert!(text.lines().all(|line| line.len() <= COLUMNS && line.starts_with("    word")), "{text}");
    }

    #[test]
    fn what_is_left_out_of_addresses_is_not_what_tells_them_apart() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(shorten(&texts(&["abcdef", "abcdefg"]), 6), ["abcdef", "a..efg"]);
        for middle in ["pci-0000:3b:00.0", "x"] {
            let long =
                |port: &str| format!("block:/dev/disk/by-path/{middle}-{port}-lun-0-part-with-a-long-tail");
            let three = [long("fc-0x50"), long("fc-0x51"), long("fc-0x52")];
            for room in 8..60 {
                let short = shorten(&three, room);
                assert!(short.iter().all(|text| text.chars().count() <= room), "{short:?}");
                assert_eq!(short.iter().collect::<BTreeSet<_>>().len(), 3, "{room}: {short:?}");
            }
        }
        assert_eq!(shorten(&texts(&["0123456789", "0123456789"]), 8), ["01..6789", "01..6789"]);
    }
}
