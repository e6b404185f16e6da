//! `diskwire volume check`: verifies every structure of a volume; exit 1 where one is damaged.

use serde_json::{Value, json};
use transfer_core::check::{Finding, Report, Severity, check};

use super::super::{CommandError, print};
use super::Surveyed;
use crate::args::Cli;
use crate::args::volume::VolumeCheckArgs;
use crate::escape;
use crate::exit::Exit;

pub(super) fn run(cli: &Cli, args: &VolumeCheckArgs) -> Result<Exit, CommandError> {
    let surveyed = Surveyed::read(cli, args.volume.as_deref())?;
    let report = check(&surveyed.contents, &surveyed.idle_lanes());
    if args.json {
        print(&format!("{}\n", json_of(&report)))?;
    } else {
        print(&text_of(&report))?;
    }
    Ok(if report.is_sound() { Exit::Done } else { Exit::Failed })
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "ok",
        Severity::Notice => "notice",
        Severity::Damaged => "damaged",
    }
}

fn line(finding: &Finding) -> String {
    let at = finding.at.map_or_else(String::new, |at| format!(" ({at})"));
    format!("{:<8} {}{at}: {}", word(finding.severity), finding.structure, finding.text)
}

fn text_of(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        text.push_str(&escape::one_line(&line(finding)));
        text.push('\n');
    }
    let summary = &report.summary;
    let slots = format!(
        "slots     {} of {} in use: {} opening, {} established, {} draining; {} reclaimable",
        summary.slots_in_use(),
        summary.slots,
        summary.slots_opening,
        summary.slots_established,
        summary.slots_draining,
        summary.slots_reclaimable,
    );
    let lanes = format!("lanes     {} of {} enrolled", summary.lanes_enrolled, summary.lanes);
    let verdict = match summary.damaged {
        0 => "sound".to_owned(),
        1 => "1 record is damaged".to_owned(),
        count => format!("{count} records are damaged"),
    };
    text + &format!("\n{slots}\n{lanes}\nsegments  {}\n{verdict}\n", summary.segments)
}

fn json_of(report: &Report) -> Value {
    let findings = report.findings.iter().map(|finding| {
        json!({
            "severity": word(finding.severity),
            "structure": finding.structure,
            "device": finding.at.map(|at| at.device),
            "block": finding.at.map(|at| at.block),
            "text": finding.text,
        })
    });
    let summary = &report.summary;
    json!({
        "sound": report.is_sound(),
        "findings": findings.collect::<Vec<_>>(),
        "lanes": summary.lanes,
        "lanes_enrolled": summary.lanes_enrolled,
        "slots": summary.slots,
        "slots_opening": summary.slots_opening,
        "slots_established": summary.slots_established,
        "slots_draining": summary.slots_draining,
        "slots_reclaimable": summary.slots_reclaimable,
        "segments": summary.segments,
        "damaged": summary.damaged,
    })
}
