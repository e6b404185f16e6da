//! `path why`: what happened to a path, and what was decided, in sentences.
//!
//! Not here: the reasons themselves (`multipath::explain`).

use std::fmt::Write;

use super::table::push_wrapped;
use super::view::{Device, Event, Lane, Path, age};
use crate::control_socket::Reply;
use crate::escape;

/// The story of one path, or of all.
pub(super) fn text(lanes: &[Lane], place: Option<usize>) -> String {
    let mut text = String::new();
    for lane in lanes {
        for device in &lane.devices {
            for path in device.paths.iter().filter(|path| place.is_none_or(|place| place == path.path)) {
                if !text.is_empty() {
                    text.push('\n');
                }
                push_path(&mut text, lane, device, path);
            }
        }
    }
    text
}

fn push_path(text: &mut String, lane: &Lane, device: &Device, path: &Path) {
    let name = format!("{}/{}", escape::one_line(&device.device), path.path);
    push_wrapped(text, 0, &format!("{name} of {}: {}", lane.title, escape::name(&path.address)));
    let mut events = device.events.iter().filter(|event| event.path == path.path).peekable();
    if events.peek().is_none() {
        let ran = age(device.at);
        push_wrapped(text, 2, &format!("Nothing happened to it in the {ran} that the process runs."));
    }
    for event in events {
        let sentence = format!("{} ago {}", age(device.at - event.at), happened(event));
        push_wrapped(text, 2, &sentence);
    }
    push_wrapped(text, 2, &now(device, path));
}

/// What an event says.
pub(super) fn happened(event: &Event) -> String {
    let what = match event.to.as_str() {
        "active" if event.from == "disabled" => "it was put into use again",
        "active" => "it came back into use",
        "failed" => "it failed",
        "disabled" => "it was taken out of use",
        "isolated" => "it was set aside",
        "standby" => "it went to standby",
        "foreign" => "it turned out to lead elsewhere",
        other => {
            return format!("it became {}: {}", escape::one_line(other), escape::one_line(&event.reason));
        }
    };
    format!("{what}: {}", escape::one_line(&event.reason))
}

/// What follows for requests.
fn now(device: &Device, path: &Path) -> String {
    let current = device.paths.iter().find(|path| path.is_current);
    match path.state.as_str() {
        "active" if path.is_current => "Now it is active, and carries I/O.".to_owned(),
        "active" => match current {
            Some(current) if current.priority == path.priority => "Now it is active.".to_owned(),
            Some(current) => format!(
                "Now it is active, but not used: its group has priority {}, and the one in use {}.",
                path.priority, current.priority
            ),
            None => "Now it is active.".to_owned(),
        },
        "failed" => "Now it is failed: it carries nothing but probes, until one is answered.".to_owned(),
        "disabled" => "Now it is disabled, until an operator reinstates it (`path reinstate`).".to_owned(),
        "isolated" => "Now it is isolated: it carries I/O only while no other path can.".to_owned(),
        "standby" => "Now it is on standby: its target carries no I/O over it.".to_owned(),
        "foreign" => {
            "Now it is foreign, and carries nothing: it is compared again once a minute; correct its address."
                .to_owned()
        }
        other => format!("Now it is {}.", escape::one_line(other)),
    }
}

/// Decisions about requests.
pub(super) fn decisions(replies: &[Reply]) -> String {
    let mut text = String::new();
    for reply in replies {
        let decisions = reply.decisions.as_deref().unwrap_or_default();
        let kept = match (reply.is_kept, decisions.len()) {
            (Some(false), _) => "none were kept so far",
            (_, 0) => "none yet: no request came since they are kept",
            _ => "the newest last",
        };
        let _ = writeln!(text, "{}: {kept}", super::process(reply));
        for decision in decisions {
            push_wrapped(&mut text, 2, &escape::one_line(&decision.text));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::device;
    use super::*;

    #[test]
    fn a_story_is_told_in_order_and_ends_with_what_is_now() {
        let event = |at, from: &str, to: &str, reason: &str| Event {
            at,
            path: 1,
            from: from.to_owned(),
            to: to.to_owned(),
            reason: reason.to_owned(),
        };
        let mut device = device();
        device.events = vec![
            event(1.0, "active", "disabled", "an operator wanted it"),
            event(1.5, "disabled", "active", "an operator wanted it"),
            event(2.0, "active", "failed", "it gave no answer in time"),
        ];
        let lane = Lane { lane: 0, title: "serve (lane 0, process 7)".to_owned(), devices: vec![device] };
        let lines = text(std::slice::from_ref(&lane), Some(1));
        let expected = "  \
  13 s ago it was taken out of use: an operator wanted it
  12 s ago it was put into use again: an operator wanted it
  12 s ago it failed: it gave no answer in time
  Now it is failed: it carries nothing but probes, until one is answered.
";
        assert!(lines.ends_with(expected), "{lines}");
        let quiet = text(&[lane], Some(0));
        assert!(quiet.contains("Nothing happened to it in the 14 s"), "{quiet}");
    }
}
