//! What the user is told: the reply, then on request the decision; for programs both as one JSON object.
//!
//! Keeps true: where a command was not done for all that is known, the decision is told unasked, and the exit code says it.
//! Not here: how a reply is read (`show`).

use std::io::Write as _;

use serde_json::{Value, json};
use transfer_core::inspect::Section;

use super::carrier::Carrier;
use super::plan::Show;
use super::show;
use crate::args::ctl::CtlCommon;
use crate::command::{CommandError, print};
use crate::control_socket::command::{ConclusionText, OutcomeText, ReplyText, ReservationText, from_hex};
use crate::exit::Exit;
use crate::{escape, section_view};

/// Said where a session of its own reached the target and knows of no path that is registered.
const NO_KEY: &str = "this command begins without knowing the keys of its paths: name a path and its key, as in --path 0 \
                      --key 0xabc";

/// Tells what became of a command.
///
/// # Errors
/// Where standard output is gone.
pub(super) fn give(
    carrier: &Carrier,
    common: &CtlCommon,
    show: Option<Show>,
    is_binary: bool,
    outcome: &OutcomeText,
) -> Result<Exit, CommandError> {
    let exit = exit(common, outcome);
    if common.json {
        print(&(whole(show, outcome).to_string() + "\n"))?;
        return Ok(exit);
    }
    if is_binary {
        let data = outcome.conclusions.first().and_then(good_data).unwrap_or_default();
        std::io::stdout().lock().write_all(&data).map_err(CommandError::Output)?;
    }
    let mut text = String::new();
    for conclusion in outcome.conclusions.iter().filter(|_| !is_binary) {
        let is_one_of_many = outcome.conclusions.len() > 1;
        push_conclusion(&mut text, conclusion, show, is_one_of_many);
    }
    if common.explain || common.dry_run || exit != Exit::Done {
        if !text.is_empty() {
            text.push('\n');
        }
        push_decision(&mut text, carrier, outcome);
    }
    if is_binary {
        eprint!("{text}")
    } else {
        print(&text)?
    }
    Ok(exit)
}

/// Tells what became of a change of reservations.
///
/// # Errors
/// Where standard output is gone.
pub(super) fn give_reservation(
    carrier: &Carrier,
    common: &CtlCommon,
    outcome: &ReservationText,
) -> Result<Exit, CommandError> {
    let exit = match outcome.result.as_str() {
        "done" if outcome.later.is_empty() => Exit::Done,
        "done" => Exit::PartlyDone,
        "unknown" => Exit::InDoubt,
        _ => Exit::Failed,
    };
    if common.json {
        print(&(json!({ "version": 1, "reservation": outcome }).to_string() + "\n"))?;
        return Ok(exit);
    }
    let holder =
        outcome.holder.map_or(String::new(), |key| format!(": key 0x{key:016x} holds the reservation"));
    let mut text = format!("{}{holder}\n", outcome.result);
    for path in &outcome.later {
        section_view::push_line(
            &mut text,
            0,
            &format!("path {path} is down: it gets what it lacks when it returns"),
        );
    }
    if common.explain || exit != Exit::Done {
        text.push('\n');
        for step in &outcome.steps {
            let path = step.path.map_or(String::new(), |path| format!("path {path}: "));
            let status = step.reply.as_ref().map_or(String::new(), |reply| format!("{}, ", status(reply)));
            section_view::push_line(&mut text, 0, &format!("{path}{status}{}", step.certainty));
        }
        let is_reached = outcome.steps.iter().any(|step| step.certainty == "executed");
        let lacks_keys = outcome.result == "no path" && is_reached && matches!(carrier, Carrier::Own { .. });
        let hint = outcome.remedy.as_deref().or(lacks_keys.then_some(NO_KEY));
        let carrier = carrier.text();
        let lines = hint.into_iter().chain(carrier.lines());
        lines.for_each(|line| section_view::push_line(&mut text, 0, line));
    }
    print(&text)?;
    Ok(exit)
}

fn exit(common: &CtlCommon, outcome: &OutcomeText) -> Exit {
    let done = outcome.conclusions.iter().filter(|one| one.certainty == "executed").count();
    let is_unknown = outcome.conclusions.iter().any(|one| one.certainty == "unknown");
    match (done, outcome.conclusions.len()) {
        _ if common.dry_run => {
            if outcome.decision.chosen.is_some() {
                Exit::Done
            } else {
                Exit::Failed
            }
        }
        _ if outcome.is_done => Exit::Done,
        _ if is_unknown => Exit::InDoubt,
        (0, _) => Exit::Failed,
        _ => Exit::PartlyDone,
    }
}

/// The data of a reply that is GOOD.
fn good_data(conclusion: &ConclusionText) -> Option<Vec<u8>> {
    match conclusion.reply.as_ref()? {
        ReplyText::Scsi { status: 0, data, .. } | ReplyText::Nvme { sct: 0, sc: 0, data, .. } => {
            from_hex(data)
        }
        _ => None,
    }
}

fn status(reply: &ReplyText) -> String {
    match reply {
        ReplyText::Scsi { status, .. } => storage_mapping::scsi::status::name(*status).to_owned(),
        ReplyText::Nvme { sct, sc, .. } => format!("NVMe status {sct:x}/{sc:02x}"),
    }
}

fn sense(reply: &ReplyText) -> Option<Section> {
    match reply {
        ReplyText::Scsi { sense, .. } => show::sense(&from_hex(sense)?),
        ReplyText::Nvme { .. } => None,
    }
}

fn push_conclusion(text: &mut String, conclusion: &ConclusionText, show: Option<Show>, is_one_of_many: bool) {
    if is_one_of_many {
        let path = conclusion.path.map_or("no path".to_owned(), |path| format!("path {path}"));
        section_view::push_line(text, 0, &format!("{path}: {}", conclusion.certainty));
    }
    let Some(reply) = &conclusion.reply else { return };
    match (show, good_data(conclusion)) {
        (Some(show), Some(data)) => text.push_str(&section_view::text(&[show(&data)])),
        _ => section_view::push_line(text, 0, &status(reply)),
    }
    if let Some(sense) = sense(reply) {
        text.push_str(&section_view::text(&[sense]));
    }
}

fn push_decision(text: &mut String, carrier: &Carrier, outcome: &OutcomeText) {
    for line in outcome.decision.text.lines().chain(carrier.text().lines()) {
        section_view::push_line(text, 0, &escape::one_line(line));
    }
    for conclusion in &outcome.conclusions {
        let may_land = if conclusion.may_land { "; it may still be executed" } else { "" };
        let path = conclusion.path.map_or(String::new(), |path| format!(" over path {path}"));
        section_view::push_line(text, 0, &format!("outcome{path}: {}{may_land}", conclusion.certainty));
    }
}

fn whole(show: Option<Show>, outcome: &OutcomeText) -> Value {
    let sections: Vec<Section> = match show {
        Some(show) => outcome.conclusions.iter().filter_map(good_data).map(|data| show(&data)).collect(),
        None => Vec::new(),
    };
    json!({ "version": 1, "answer": section_view::json(&sections), "outcome": outcome })
}
