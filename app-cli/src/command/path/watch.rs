//! `path watch`: all paths anew every second, with what they carried since the last look.
//!
//! Where standard output is a terminal, a picture that is drawn over the one before; elsewhere a line for each change, so
//! that it can be kept.
//!
//! Keeps true: the terminal is left as it was found, Ctrl-C included. Not here: what a path is (`view`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use storage_mapping::wait;

use super::asker::lane_name;
use super::table::{push_head, push_reason};
use super::view::{Device, Lane, Path, lanes, time_or_dash};
use super::{Asker, CommandError, print};
use crate::control_socket::{Silent, Wish};
use crate::escape;
use crate::exit::Exit;
use crate::signals::Signals;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Columns of the bar that shows a path's share.
const BAR: usize = 11;

pub(super) fn run(asker: &Asker, count: Option<u32>) -> Result<Exit, CommandError> {
    let mut signals = Signals::new().map_err(CommandError::Signals)?;
    // Nobody there at the start is a mistake; later it is news.
    asker.ask(&Wish::Show { device: None })?;
    let draws = io::stdout().is_terminal();
    let mut keys = Keys::new(draws);
    let (mut before, mut log) = (Look::default(), Log::default());
    for look in 0u32.. {
        if count.is_some_and(|count| look >= count) {
            break;
        }
        if look > 0 && is_over(&mut keys, &mut signals) {
            break;
        }
        let answers = asker.ask_quietly(&Wish::Show { device: None })?;
        let now = Look { at: Some(Instant::now()), lanes: lanes(&answers.replies) };
        print(&if draws {
            picture(&before, &now, &answers.silent, std::env::var_os("NO_COLOR").is_none())
        } else {
            log.lines(&now.lanes, &answers.silent)
        })?;
        before = now;
    }
    Ok(Exit::Done)
}

/// Waits for the next look. Whether the user has seen enough.
fn is_over(keys: &mut Keys, signals: &mut Signals) -> bool {
    let until = Instant::now() + INTERVAL;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let mut descriptors = vec![signals.descriptor()];
        descriptors.extend(keys.descriptor());
        wait::wait(&descriptors, Some(left));
        if signals.count() > 0 || keys.quits() {
            return true;
        }
    }
}

/// The keyboard, without waiting for the end of a line.
struct Keys {
    before: Option<Termios>,
}

impl Keys {
    /// Takes the keyboard where there is one and it is wanted.
    fn new(wanted: bool) -> Self {
        let input = io::stdin();
        let before = if wanted { tcgetattr(&input).ok() } else { None };
        if let Some(before) = &before {
            let mut now = before.clone();
            now.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
            let _ = tcsetattr(&input, OptionalActions::Now, &now);
        }
        Self { before }
    }

    fn descriptor(&self) -> Option<RawFd> {
        self.before.is_some().then(|| io::stdin().as_raw_fd())
    }

    fn quits(&mut self) -> bool {
        if self.before.is_none() {
            return false;
        }
        let input = io::stdin();
        let mut ready = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        if !matches!(poll(&mut ready, PollTimeout::ZERO), Ok(1..)) {
            return false;
        }
        let mut keys = [0; 16];
        // The end of the input is an end, too.
        rustix::io::read(&input, &mut keys).map_or(true, |count| count == 0 || keys[..count].contains(&b'q'))
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// What was seen at a time.
#[derive(Default)]
struct Look {
    at: Option<Instant>,
    lanes: Vec<Lane>,
}

impl Look {
    fn path(&self, lane: &str, device: &str, place: usize) -> Option<&Path> {
        let lane = self.lanes.iter().find(|other| other.name == lane)?;
        let device = lane.devices.iter().find(|other| other.device == device)?;
        device.paths.iter().find(|other| other.path == place)
    }
}

/// What a path did between two looks.
#[derive(Clone, Copy, Default)]
struct Rate {
    requests_per_s: f64,
    mebibytes_per_s: f64,
    errors: u64,
    mean: Option<f64>,
}

impl Rate {
    fn of(before: &Path, now: &Path, seconds: f64) -> Self {
        let per_s = |count: u64| count as f64 / seconds.max(0.001);
        let sum = |path: &Path| {
            let kinds = [&path.latency.read, &path.latency.write];
            kinds.iter().map(|kind| kind.count as f64 * kind.mean.unwrap_or(0.0)).sum::<f64>()
        };
        let count = |path: &Path| path.latency.read.count + path.latency.write.count;
        let done = count(now).saturating_sub(count(before));
        Self {
            requests_per_s: per_s(now.requests.saturating_sub(before.requests)),
            mebibytes_per_s: per_s(now.bytes.saturating_sub(before.bytes)) / f64::from(1 << 20),
            errors: now.errors.saturating_sub(before.errors),
            mean: (done > 0).then(|| ((sum(now) - sum(before)) / done as f64).max(0.0)),
        }
    }
}

/// Everything, drawn over what was there.
fn picture(before: &Look, now: &Look, silent: &[Silent], colours: bool) -> String {
    let seconds = before.at.zip(now.at).map_or(0.0, |(before, now)| (now - before).as_secs_f64());
    let mut text = String::new();
    for lane in &now.lanes {
        let _ = writeln!(text, "{}", lane.title);
        for device in &lane.devices {
            push_device(&mut text, before, &lane.name, device, seconds, colours);
        }
        text.push('\n');
    }
    for silent in silent {
        let _ = writeln!(text, "{}: {}", name_of(silent), escape::one_line(&silent.why));
    }
    if now.lanes.is_empty() && silent.is_empty() {
        text.push_str("No process of this host has its paths open.\n");
    }
    text.push_str("q ends\n");
    // Home; each line to its end, and what is left below, is cleared: nothing flickers.
    format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
}

fn push_device(text: &mut String, before: &Look, lane: &str, device: &Device, seconds: f64, colours: bool) {
    push_head(text, device);
    let rates: Vec<Rate> = device
        .paths
        .iter()
        .map(|path| {
            let earlier = before.path(lane, &device.device, path.path);
            earlier.map_or_else(Rate::default, |earlier| Rate::of(earlier, path, seconds))
        })
        .collect();
    let all: f64 = rates.iter().map(|rate| rate.requests_per_s).sum();
    let _ = writeln!(text, "  path state     group     IO/s    MiB/s errors flying    now    p99 share");
    for (path, rate) in device.paths.iter().zip(&rates) {
        let share = if all > 0.0 { rate.requests_per_s / all } else { 0.0 };
        let state = format!("{:<9}", escape::one_line(&path.state));
        let _ = writeln!(
            text,
            "{} {:>4} {} {:>5} {:>8.0} {:>8.1} {:>6} {:>6} {:>6} {:>6} {}",
            if path.is_current { '*' } else { ' ' },
            path.path,
            if colours { coloured(&path.state, &state) } else { state },
            path.priority,
            rate.requests_per_s,
            rate.mebibytes_per_s,
            rate.errors,
            path.in_flight,
            time_or_dash(rate.mean),
            time_or_dash(path.main_latency().p99),
            bar(share),
        );
        if let Some(reason) = path.reason.as_ref().filter(|_| path.state != "active") {
            push_reason(text, device, path, reason);
        }
    }
}

fn coloured(state: &str, text: &str) -> String {
    let colour = match state {
        "active" => 32,
        "isolated" | "standby" | "disabled" => 33,
        _ => 31,
    };
    format!("\x1b[{colour}m{text}\x1b[0m")
}

fn bar(share: f64) -> String {
    // From 0 to the bar's length.
    let full = (share.clamp(0.0, 1.0) * BAR as f64).round() as usize;
    format!("{}{}", "#".repeat(full), ".".repeat(BAR - full))
}

/// A lane that does not answer, as users see it.
fn name_of(silent: &Silent) -> String {
    lane_name(silent.host.as_deref(), silent.lane)
}

/// What has been said of changes.
#[derive(Default)]
struct Log {
    /// Of each device of each lane: when its last event was, its policy, its group.
    known: BTreeMap<(String, String), (f64, String, Vec<usize>)>,
    lanes: BTreeMap<String, String>,
}

impl Log {
    fn lines(&mut self, lanes: &[Lane], silent: &[Silent]) -> String {
        let mut text = String::new();
        // A process that took the lane of one that ended is another one: its title says so.
        let is_there = |lane: &String, title: &String| {
            lanes.iter().any(|other| other.name == *lane && other.title == *title)
                || silent.iter().any(|other| name_of(other) == *lane)
        };
        for (_, title) in self.lanes.iter().filter(|(lane, title)| !is_there(lane, title)) {
            let _ = writeln!(text, "{title}: it ended");
        }
        self.lanes.retain(|lane, title| is_there(lane, title));
        self.known.retain(|(lane, _), _| self.lanes.contains_key(lane));
        for lane in lanes {
            self.lanes.insert(lane.name.clone(), lane.title.clone());
            lane.devices.iter().for_each(|device| self.push(&mut text, lane, device));
        }
        text
    }

    fn push(&mut self, text: &mut String, lane: &Lane, device: &Device) {
        let key = (lane.name.clone(), device.device.clone());
        let name = format!("{} {}", lane.name, escape::one_line(&device.device));
        let last = device.events.last().map_or(-1.0, |event| event.at);
        let now = (last, device.policy.clone(), device.current_group.clone());
        let Some(before) = self.known.insert(key, now) else {
            for path in &device.paths {
                let why = path.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
                let line = format!("{name}/{} is {}{why}", path.path, path.state);
                let _ = writeln!(text, "{}", escape::one_line(&line));
            }
            return;
        };
        for event in device.events.iter().filter(|event| event.at > before.0) {
            let line = format!("{name}/{} is {}: {}", event.path, event.to, event.reason);
            let _ = writeln!(text, "{}", escape::one_line(&line));
        }
        if before.1 != device.policy {
            let _ = writeln!(text, "{name} chooses by {}", escape::one_line(&device.policy));
        }
        if before.2 != device.current_group {
            let _ = writeln!(text, "{name} uses paths {:?}", device.current_group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::COLUMNS;
    use super::super::table::tests::device;
    use super::super::view::Event;
    use super::*;

    fn look(device: Device) -> Look {
        let lane = Lane { name: "lane 0".to_owned(), title: "serve".to_owned(), devices: vec![device] };
        Look { at: Some(Instant::now()), lanes: vec![lane] }
    }

    #[test]
    fn a_picture_shows_rates_and_fits_the_screen() {
        let mut later = device();
        later.paths[0].requests += 300;
        later.paths[1].requests += 100;
        let before = look(device());
        let mut now = look(later);
        now.at = before.at.map(|at| at + Duration::from_secs(2));
        let shown = picture(&before, &now, &[], false);
        assert!(shown.starts_with("\x1b[H") && shown.ends_with("\x1b[J"));
        let plain = shown.replace("\x1b[K", "").replace("\x1b[H", "").replace("\x1b[J", "");
        assert!(!plain.contains('\x1b'), "{plain:?}");
        assert!(plain.lines().all(|line| line.chars().count() <= COLUMNS), "{plain}");
        assert!(plain.contains("      150 ") && plain.contains(" ########..."), "{plain}");
        assert!(picture(&before, &now, &[], true).contains("\x1b[31mfailed   \x1b[0m"));
    }

    #[test]
    fn a_log_says_each_change_once() {
        let mut log = Log::default();
        let first = look(device());
        assert_eq!(log.lines(&first.lanes, &[]).lines().count(), 2);
        assert_eq!(log.lines(&first.lanes, &[]), "");
        let mut later = device();
        later.policy = "round-robin".to_owned();
        let (from, to, reason) = ("failed".to_owned(), "active".to_owned(), "it answers".to_owned());
        later.events = vec![Event { at: 3.0, path: 1, from, to, reason }];
        let lines = log.lines(&look(later).lanes, &[]);
        assert_eq!(lines, "lane 0 disk0/1 is active: it answers\nlane 0 disk0 chooses by round-robin\n");
        assert_eq!(log.lines(&[], &[]), "serve: it ended\n");
    }
}
