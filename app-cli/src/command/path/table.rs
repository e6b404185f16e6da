//! `path list`: a line for each path, and one more where there is something to say.
//!
//! Keeps true: 80 columns; what does not fit of an address is left out at its beginning. Not here: rates (`watch`).

use std::fmt::Write;

use super::view::{Device, Lane, Path, age, time_or_dash};
use crate::escape;

/// Columns of the screen.
pub(super) const COLUMNS: usize = 80;
/// Columns before the address.
const ADDRESS_AT: usize = 61;

pub(super) fn text(lanes: &[Lane]) -> String {
    let mut text = String::new();
    for lane in lanes {
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = writeln!(text, "{}", lane.title);
        for device in &lane.devices {
            push_head(&mut text, device);
            let _ = writeln!(
                text,
                "  path state     group requests      MiB errors flying    p50    p99 address"
            );
            device.paths.iter().for_each(|path| push_path(&mut text, device, path));
        }
    }
    text
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

fn push_path(text: &mut String, device: &Device, path: &Path) {
    let latency = path.main_latency();
    // Numbers that people read: what f64 cannot hold exactly is not shown exactly either.
    let mebibytes = path.bytes as f64 / f64::from(1 << 20);
    let row = format!(
        "{} {:>4} {:<9} {:>5} {:>8} {:>8.1} {:>6} {:>6} {:>6} {:>6} ",
        if path.is_current { '*' } else { ' ' },
        path.path,
        escape::one_line(&path.state),
        path.priority,
        path.requests,
        mebibytes,
        path.errors,
        path.in_flight,
        time_or_dash(latency.p50),
        time_or_dash(latency.p99),
    );
    let room = COLUMNS.saturating_sub(row.chars().count()).max(COLUMNS - ADDRESS_AT - 16);
    let _ = writeln!(text, "{row}{}", tail(&escape::name(&path.address), room));
    if let Some(reason) = &path.reason {
        push_reason(text, device, path, reason);
    }
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

/// The end of a text, in so many columns.
pub(super) fn tail(text: &str, room: usize) -> String {
    let count = text.chars().count();
    if count <= room {
        return text.to_owned();
    }
    let kept: String = text.chars().skip(count - room.saturating_sub(2)).collect();
    format!("..{kept}")
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
        let lane = Lane { lane: 0, title: "serve".to_owned(), devices: vec![device()] };
        let shown = text(&[lane]);
        assert!(shown.lines().all(|line| line.chars().count() <= COLUMNS), "{shown}");
        assert!(shown.contains("disk0: latency, 2 writes held\n"), "{shown}");
        assert!(shown.contains("* ") && shown.contains("for 12 s: it gave no answer in time \\x1b[31m"));
        assert!(shown.contains("..tency=2ms\n"), "{shown}");
    }

    #[test]
    fn long_words_are_not_torn() {
        let mut text = String::new();
        push_wrapped(&mut text, 4, &"word ".repeat(40));
        assert!(text.lines().all(|line| line.len() <= COLUMNS && line.starts_with("    word")), "{text}");
        assert_eq!((tail("abcdef", 6).as_str(), tail("abcdef", 4).as_str()), ("abcdef", "..ef"));
    }
}
