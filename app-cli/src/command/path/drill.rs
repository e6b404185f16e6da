//! `path drill`: a fault on purpose in a running process, measured against what was predicted.
//!
//! Keeps true: outside of a lab nothing happens without a yes; the fault ends by itself, whatever becomes of this
//! command; what was not measured is not called good. Not here: the drill (`multipath`), the chart (`chart`).

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::path::Path as FilePath;
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::asker::Asker;
use super::table::push_wrapped;
use super::view::{Device, Event, exact, lanes};
use super::{one_path, process};
use crate::args::path::{DRILL_TIME_MAX, Fault, PathDrillArgs};
use crate::chart::{self, Band, Chart, Point};
use crate::command::{CommandError, print, say};
use crate::control_socket::plan::{DrillText, DrillWish, MeasuredText};
use crate::control_socket::{Reply, Wish};
use crate::escape;
use crate::exit::Exit;
use crate::lab;

/// How long the device is watched before the fault.
const LEAD: Duration = Duration::from_secs(1);
/// And afterwards: a probe and a comparison fit into it, so that the path is seen to come back.
const TAIL: Duration = Duration::from_secs(3);
/// What a fault lasts where nobody says more.
const SHORTEST_USUAL: Duration = Duration::from_secs(5);
/// How often the process is asked how far it is.
const STEP: Duration = Duration::from_millis(200);

pub(super) fn run(asker: &Asker, args: &PathDrillArgs) -> Result<Exit, CommandError> {
    let path = one_path(&args.what)?;
    let device = args.what.device.to_string();
    let chosen = choose(asker, &device, args)?;
    let host = asker.host_of(&chosen);
    if !args.yes && !lab::is_lab(&host.base) {
        let (host, path) = (host.host.to_string(), args.what.to_string());
        return Err(CommandError::DrillNotConfirmed { host, path });
    }
    if let Some(file) = &args.svg {
        can_be_written(file)?;
    }
    let duration = match args.duration {
        Some(duration) => duration,
        None => usual_time(asker, &chosen, &device, args.fault)?,
    };
    let wish = DrillWish {
        device: device.clone(),
        path,
        fault: args.fault.word().to_owned(),
        seconds: duration.as_secs_f64(),
        lead: LEAD.as_secs_f64(),
        tail: TAIL.as_secs_f64(),
        service_time: args.service_time.map(|time| time.as_secs_f64()),
        load: args.load,
    };
    asker.ask_again(&chosen, &Wish::Drill(wish))?;
    let whole = LEAD + duration + TAIL;
    say(&format!(
        "drill of {} in {}: {} for {}, {} in all",
        args.what,
        process(&chosen),
        args.fault.word(),
        exact(duration.as_secs_f64()),
        exact(whole.as_secs_f64())
    ));
    let drill = wait(asker, &chosen, &device)?;
    let after = asker.ask_again(&chosen, &Wish::Show { device: Some(device) })?;
    let device = lanes(std::slice::from_ref(&after)).pop().and_then(|mut lane| lane.devices.pop());
    let device = device.unwrap_or_default();
    let name = format!("{} of {}", args.what, process(&chosen));
    if let Some(file) = &args.svg {
        write_chart(file, &chart_of(&name, &drill, &device))?;
    }
    if args.json {
        let whole = json!({
            "version": 1, "device": device.device, "host": chosen.host, "lane": chosen.lane,
            "process": chosen.process, "pid": chosen.pid, "drill": drill,
        });
        print(&(whole.to_string() + "\n"))?;
    } else {
        print(&text(&name, &drill, &device))?;
    }
    Ok(if drill.is_as_predicted && !drill.was_cut { Exit::Done } else { Exit::Failed })
}

/// The process to drill: the named one, the only one, or the `serve` of the only host.
fn choose(asker: &Asker, device: &str, args: &PathDrillArgs) -> Result<Reply, CommandError> {
    let mut found = asker.answered(&Wish::Show { device: Some(device.to_owned()) })?.replies;
    if let Some(lane) = args.lane {
        found.retain(|reply| reply.lane == lane);
    } else if asker.hosts().len() == 1 && found.iter().any(|reply| reply.lane == 0) {
        found.retain(|reply| reply.lane == 0);
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => {
            let lane = args.lane.unwrap_or(0);
            Err(CommandError::PathRefused {
                why: format!("no process has lane {lane}; `path list` shows them"),
            })
        }
        _ => {
            let which: Vec<_> = found.iter().map(process).collect();
            Err(CommandError::DrillWhere { device: device.to_owned(), which: which.join("; ") })
        }
    }
}

/// So long that a hang is noticed well before its end.
fn usual_time(asker: &Asker, chosen: &Reply, device: &str, fault: Fault) -> Result<Duration, CommandError> {
    let wish = Wish::Plan { device: Some(device.to_owned()), service_time: None };
    let plans = asker.ask_again(chosen, &wish)?.plans.unwrap_or_default();
    let worst = plans.first().and_then(|plan| {
        let found = plan.predictions.iter().find(|found| found.fault == fault.word())?;
        Duration::try_from_secs_f64(found.worst?).ok()
    });
    // In whole seconds.
    let twice = Duration::from_secs((worst.unwrap_or_default() * 2).as_secs());
    Ok(twice.clamp(SHORTEST_USUAL, DRILL_TIME_MAX))
}

/// Waits for the end.
fn wait(asker: &Asker, chosen: &Reply, device: &str) -> Result<DrillText, CommandError> {
    let target =
        if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(1000), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {msg}") {
        bar.set_style(style);
    }
    loop {
        let wish = |samples| Wish::DrillReport { device: device.to_owned(), samples };
        let reply = asker.ask_again(chosen, &wish(false))?;
        let missing = || CommandError::PathRefused { why: "the process knows of no drill".to_owned() };
        let drill = reply.drill.ok_or_else(missing)?;
        if drill.stage == "over" {
            bar.finish_and_clear();
            return asker.ask_again(chosen, &wish(true))?.drill.ok_or_else(missing);
        }
        let at = asker.ask_again(chosen, &Wish::Show { device: Some(device.to_owned()) })?;
        let at = lanes(&[at]).pop().and_then(|mut lane| lane.devices.pop()).map_or(0.0, |device| device.at);
        let share = (at - drill.began) / (drill.over - drill.began).max(0.001);
        // From 0 to 1000.
        bar.set_position((share.clamp(0.0, 1.0) * 1000.0) as u64);
        bar.set_message(progress(&drill, at));
        thread::sleep(STEP);
    }
}

fn progress(drill: &DrillText, at: f64) -> String {
    let (what, until) = match drill.stage.as_str() {
        "lead" => ("the fault begins", drill.fault_begins),
        "fault" => ("the fault ends", drill.fault_ends),
        _ => ("over", drill.over),
    };
    let met = drill.requests.count + drill.flushes.count;
    format!(
        "{what} in {:.0} s; {met} requests met it, {} failed, worst {}",
        (until - at).max(0.0),
        drill.failed,
        exact(drill.requests.worst)
    )
}

fn text(name: &str, drill: &DrillText, device: &Device) -> String {
    let mut text = String::new();
    let lasted = exact((drill.fault_ends - drill.fault_begins).max(0.0));
    push_wrapped(&mut text, 0, &format!("{name}: {} for {lasted}", escape::one_line(&drill.fault)));
    let _ = writeln!(text, "  {:<16} {:>7}  {:>8}  {:>9}", "met the fault", "count", "worst", "predicted");
    for (what, measured) in [("reads, writes", &drill.requests), ("flushes", &drill.flushes)] {
        let worst = if measured.count > 0 { exact(measured.worst) } else { "-".to_owned() };
        let predicted = measured.predicted.map_or_else(|| "-".to_owned(), exact);
        let _ = writeln!(text, "  {what:<16} {:>7}  {worst:>8}  {predicted:>9}", measured.count);
    }
    let _ = writeln!(text, "  {:<16} {:>7}", "failed", drill.failed);
    let _ = writeln!(text, "  {:<16} {:>7}", "in all, seen", drill.all);
    for event in events(drill, device).filter(|event| event.path == drill.path) {
        let when = event.at - drill.fault_begins;
        let to = escape::one_line(&event.to);
        let why = escape::one_line(&event.reason);
        push_wrapped(&mut text, 2, &format!("{when:+.3} s: path {} is {to}: {why}", event.path));
    }
    let was_left = events(drill, device).any(|event| event.path == drill.path && event.from == "active");
    push_wrapped(&mut text, 0, &verdict(drill, was_left));
    text
}

/// What happened to paths meanwhile.
fn events<'a>(drill: &'a DrillText, device: &'a Device) -> impl Iterator<Item = &'a Event> {
    device.events.iter().filter(|event| event.at >= drill.began && event.at <= drill.over)
}

fn verdict(drill: &DrillText, was_left: bool) -> String {
    let is_late = |measured: &MeasuredText| measured.predicted.is_some_and(|most| measured.worst > most);
    if drill.was_cut {
        return "It was ended early: no other path was in use any more.".to_owned();
    }
    if drill.requests.count + drill.flushes.count == 0 {
        return "Nothing was measured: no request met the fault. With --load the process reads from the device \
                meanwhile; it writes nothing."
            .to_owned();
    }
    if drill.failed > 0 {
        return format!("Not as predicted: {} requests failed.", drill.failed);
    }
    let late = [("a read or write", &drill.requests), ("a flush", &drill.flushes)];
    if let Some((what, measured)) = late.into_iter().find(|(_, measured)| is_late(measured)) {
        let predicted = exact(measured.predicted.unwrap_or(0.0));
        return format!(
            "Not as predicted: {what} took {}, and {predicted} was predicted.",
            exact(measured.worst)
        );
    }
    if drill.fault == "hang" && !was_left {
        return "As predicted; but the fault was over before a request timed out. A longer one (--for) shows more."
            .to_owned();
    }
    "As predicted: all requests that met the fault were done, and none took longer.".to_owned()
}

fn chart_of(name: &str, drill: &DrillText, device: &Device) -> Chart {
    let at = |time: f64| time - drill.fault_begins;
    let sent = |sample: &crate::control_socket::plan::SampleText| Point {
        at: at(sample.ended - sample.took),
        seconds: sample.took,
        path: sample.path,
        is_done: sample.is_done,
        met_fault: sample.met_fault,
    };
    let paths = device.paths.iter().map(|path| {
        let address = escape::name(&path.address);
        chart::Path { place: path.path, address, bands: bands(drill, device, path.path, &path.state) }
    });
    Chart {
        title: format!("Drill of {name}"),
        begins: at(drill.began),
        ends: at(drill.over),
        fault: drill.fault.clone(),
        fault_path: drill.path,
        fault_ends: at(drill.fault_ends),
        predicted: drill.requests.predicted,
        worst: (drill.requests.count > 0).then_some(drill.requests.worst),
        points: drill.samples.iter().map(sent).collect(),
        paths: paths.collect(),
    }
}

/// The states of a path one after the other; `last` is the one at the end.
fn bands(drill: &DrillText, device: &Device, path: usize, last: &str) -> Vec<Band> {
    let at = |time: f64| time - drill.fault_begins;
    let mut bands = Vec::new();
    let mut from = at(drill.began);
    for event in events(drill, device).filter(|event| event.path == path) {
        bands.push(Band { from, to: at(event.at), state: event.from.clone() });
        from = at(event.at);
    }
    // A state that began after the drill is not the one at its end.
    let later = device.events.iter().find(|event| event.path == path && event.at > drill.over);
    let state = later.map_or_else(|| last.to_owned(), |event| event.from.clone());
    bands.push(Band { from, to: at(drill.over), state });
    bands
}

fn chart_error(file: &FilePath) -> impl FnOnce(io::Error) -> CommandError {
    let file = escape::name(file);
    move |source| CommandError::Chart { file, source }
}

/// Sees that there will be a chart, before anything is done for it.
fn can_be_written(file: &FilePath) -> Result<(), CommandError> {
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(file);
    opened.map(drop).map_err(chart_error(file))
}

fn write_chart(file: &FilePath, chart: &Chart) -> Result<(), CommandError> {
    std::fs::write(file, chart.svg()).map_err(chart_error(file))
}

#[cfg(test)]
mod tests {
    use super::super::table::COLUMNS;
    use super::super::table::tests::device;
    use super::*;

    fn drill() -> DrillText {
        let requests = MeasuredText { count: 12, worst: 5.002, predicted: Some(5.025) };
        DrillText {
            path: 1,
            fault: "hang".to_owned(),
            stage: "over".to_owned(),
            began: 10.0,
            fault_begins: 11.0,
            fault_ends: 16.0,
            over: 19.0,
            requests,
            all: 300,
            is_as_predicted: true,
            ..DrillText::default()
        }
    }

    #[test]
    fn what_was_measured_is_told_and_nothing_else() {
        let shown = text("disk0/1 of serve (lane 0, process 7)", &drill(), &device());
        assert!(shown.contains("  reads, writes         12    5.002s     5.025s\n"), "{shown}");
        assert!(shown.contains("  flushes                0         -          -\n"), "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= COLUMNS), "{shown}");
        let said = |drill: DrillText| verdict(&drill, true);
        assert!(said(drill()).starts_with("As predicted:"));
        assert!(verdict(&drill(), false).contains("before a request timed out"));
        assert!(said(DrillText { failed: 2, ..drill() }).contains("2 requests failed"));
        let late = MeasuredText { worst: 6.0, ..drill().requests };
        assert!(said(DrillText { requests: late, ..drill() }).contains("took 6s, and 5.025s was predicted"));
        let none = MeasuredText { count: 0, ..drill().requests };
        assert!(said(DrillText { requests: none, ..drill() }).contains("--load"));
        assert!(said(DrillText { was_cut: true, ..drill() }).contains("ended early"));
    }

    #[test]
    fn bands_of_states_have_no_gaps() {
        let event = |at, from: &str, to: &str| Event {
            at,
            path: 1,
            from: from.to_owned(),
            to: to.to_owned(),
            reason: "it hung".to_owned(),
        };
        let events = vec![
            event(3.0, "active", "failed"),
            event(16.0, "active", "failed"),
            event(25.0, "failed", "active"),
        ];
        let bands = bands(&drill(), &Device { events, ..device() }, 1, "active");
        let shown: Vec<_> = bands.iter().map(|band| (band.from, band.to, band.state.as_str())).collect();
        assert_eq!(shown, [(-1.0, 5.0, "active"), (5.0, 8.0, "failed")]);
    }
}
