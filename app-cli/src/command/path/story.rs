//! `path why`: what happened to a path, and what was decided, in sentences.
//!
//! Not here: the reasons themselves (`multipath::explain`).

use std::fmt::Write;

use super::table::push_wrapped;
use super::view::{Device, Event, Lane, Path, age, time};
use crate::control_socket::Reply;
use crate::escape;

/// Requests of a path before its times are compared with those of others.
const MEASURED_MIN: u64 = 5;
/// A path that takes so many times as long as another one is slow.
const SLOW_TIMES: f64 = 2.0;

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
    if path.quarantined_bytes > 0 {
        let what =
            format!("It still has {} bytes of requests that were given up on.", path.quarantined_bytes);
        push_wrapped(text, 2, &what);
    }
    if let Some(slowness) = slowness(device, path) {
        push_wrapped(text, 2, &slowness);
    }
}

/// How a path that is slower than another one is, and what that means for it.
fn slowness(device: &Device, path: &Path) -> Option<String> {
    let half = |path: &Path| {
        let latency = path.main_latency();
        latency.p50.filter(|_| latency.count >= MEASURED_MIN)
    };
    let best = device
        .paths
        .iter()
        .filter(|other| other.priority == path.priority && other.path != path.path)
        .filter_map(|other| Some((half(other)?, other.path)))
        .min_by(|one, other| one.0.total_cmp(&other.0))?;
    let own = half(path)?;
    if path.state != "active" || own < best.0 * SLOW_TIMES {
        return None;
    }
    let all: u64 = device.paths.iter().map(|path| path.requests).sum();
    // For people to read.
    let share = path.requests as f64 / all.max(1) as f64 * 100.0;
    Some(format!(
        "It is slow: half of its requests take more than {}, those of path {} {}. It got {share:.0} % of all requests.",
        time(own),
        best.1,
        time(best.0)
    ))
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
        let lane = Lane {
            name: "lane 0".to_owned(),
            title: "serve (lane 0, process 7)".to_owned(),
            devices: vec![device],
        };
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

    #[test]
    fn a_slow_path_and_one_that_keeps_requests_say_so() {
        let mut device = device();
        let measured =
            |p50| super::super::view::Distribution { count: 9, p50: Some(p50), ..Default::default() };
        device.paths[1].state = "active".to_owned();
        device.paths[0].latency.write = measured(0.002);
        device.paths[1].latency.write = measured(0.0039);
        assert_eq!(slowness(&device, &device.paths[1]), None);
        device.paths[1].latency.write = measured(0.02);
        (device.paths[0].requests, device.paths[1].requests) = (90, 10);
        device.paths[1].quarantined_bytes = 4096;
        let lane = Lane { name: "lane 0".to_owned(), title: "serve".to_owned(), devices: vec![device] };
        let told = text(std::slice::from_ref(&lane), None).replace("\n  ", " ");
        let slow = "It is slow: half of its requests take more than 20ms, those of path 0 2.0ms. It got 10 % of all requests.";
        assert_eq!(told.matches(slow).count(), 1, "{told}");
        assert_eq!(
            told.matches("It still has 4096 bytes of requests that were given up on.").count(),
            1,
            "{told}"
        );
    }
}
