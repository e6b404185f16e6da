//! `path plan`: the worst time that each kind of fault costs, and what it is made of.
//!
//! Keeps true: what runs is asked, and where nothing runs the configuration speaks; which of them it was is said. Not
//! here: the prediction (`multipath::plan`).

use std::fmt::Write;

use multipath::plan::Plan;
use serde_json::json;

use super::asker::Asker;
use super::table::{COLUMNS, push_wrapped};
use super::view::exact;
use super::{error_of, process};
use crate::args::path::PathPlanArgs;
use crate::command::{CommandError, print, say};
use crate::config::{DeviceConfig, HostConfig};
use crate::control_socket::plan::{PlanText, PredictionText};
use crate::control_socket::{Answers, Wish};
use crate::escape;
use crate::exit::Exit;

/// The column that what a sum is made of begins at.
const TERMS_AT: usize = 32;

/// Plans of one origin.
struct Origin {
    /// As users see it.
    title: String,
    /// `process` or `configuration`.
    from: &'static str,
    host: Option<String>,
    lane: Option<u16>,
    plans: Vec<PlanText>,
}

pub(super) fn run(asker: &Asker, args: &PathPlanArgs) -> Result<Exit, CommandError> {
    let device = args.device.as_ref().map(ToString::to_string);
    let service_time = args.service_time.map(|time| time.as_secs_f64());
    let answers = asker.ask_quietly(&Wish::Plan { device: device.clone(), service_time })?;
    let mut origins = from_processes(&answers, asker, device.as_deref())?;
    for host in asker.without_process(&answers) {
        origins.push(from_configuration(asker, host, args)?);
    }
    if args.json {
        let origin = |origin: &Origin| json!({ "from": origin.from, "host": origin.host, "lane": origin.lane, "plans": origin.plans });
        let all: Vec<_> = origins.iter().map(origin).collect();
        print(&(json!({ "version": 1, "origins": all }).to_string() + "\n"))?;
    } else {
        print(&origins.iter().map(text).collect::<Vec<_>>().join("\n"))?;
    }
    Ok(if answers.silent.is_empty() { Exit::Done } else { Exit::PartlyDone })
}

fn from_processes(
    answers: &Answers,
    asker: &Asker,
    device: Option<&str>,
) -> Result<Vec<Origin>, CommandError> {
    for silent in &answers.silent {
        say(&format!("{}: {}", super::asker::lane_name(silent.host.as_deref(), silent.lane), silent.why));
    }
    let mut origins = Vec::new();
    let mut refusal = None;
    for reply in &answers.replies {
        match &reply.plans {
            Some(plans) => origins.push(Origin {
                title: process(reply),
                from: "process",
                host: asker.name_of(asker.host_of(reply)),
                lane: Some(reply.lane),
                plans: plans.clone(),
            }),
            None => {
                refusal = refusal.or(Some(match error_of(reply) {
                    "" => format!("{} does not make plans", process(reply)),
                    error => error.to_owned(),
                }));
            }
        }
    }
    match refusal {
        Some(why) if origins.is_empty() || device.is_some() => Err(CommandError::PathRefused { why }),
        _ if origins.is_empty() && !answers.silent.is_empty() => {
            Err(CommandError::PathSilent { lanes: answers.silent.len() })
        }
        _ => Ok(origins),
    }
}

fn from_configuration(asker: &Asker, host: &HostConfig, args: &PathPlanArgs) -> Result<Origin, CommandError> {
    let devices = &host.volume.devices;
    let wanted: Vec<&DeviceConfig> =
        devices.iter().filter(|device| args.device.as_ref().is_none_or(|id| *id == device.id)).collect();
    if let (Some(id), true) = (&args.device, wanted.is_empty()) {
        let known: Vec<_> = devices.iter().map(|device| device.id.to_string()).collect();
        let why = format!("there is no device `{id}`; the devices are {}", known.join(", "));
        return Err(CommandError::PathRefused { why });
    }
    let plan = |device: &&DeviceConfig| {
        let paths = u32::try_from(device.paths.len()).unwrap_or(u32::MAX);
        let plan = Plan::of_config(&device.failover, paths, args.service_time);
        PlanText::new(device.id.as_str(), &plan)
    };
    let name = asker.name_of(host);
    let prefix = name.as_ref().map_or_else(String::new, |name| format!("{name}: "));
    Ok(Origin {
        title: format!("{prefix}no process runs: from {}", escape::name(&host.file)),
        from: "configuration",
        host: name,
        lane: None,
        plans: wanted.iter().map(plan).collect(),
    })
}

fn text(origin: &Origin) -> String {
    let mut text = String::new();
    push_wrapped(&mut text, 0, &origin.title);
    for plan in &origin.plans {
        push_plan(&mut text, plan);
    }
    text
}

fn push_plan(text: &mut String, plan: &PlanText) {
    let paths = match plan.paths {
        1 => "one path".to_owned(),
        count => format!("{count} paths"),
    };
    let needs =
        format!("a path takes {} at most ({})", exact(plan.service_time), escape::one_line(&plan.basis));
    let _ = writeln!(text, "\n{}: {paths}, {needs}", escape::one_line(&plan.device));
    if plan.paths == 1 {
        push_wrapped(
            text,
            2,
            "Nothing takes over from the only path: `no-path` holds for each of its faults.",
        );
    }
    let _ = writeln!(text, "  {:<20} {:>7}  made of", "fault", "worst");
    for found in &plan.predictions {
        push_prediction(text, found);
    }
}

fn push_prediction(text: &mut String, found: &PredictionText) {
    let worst = found.worst.map_or_else(|| "none".to_owned(), exact);
    let term = |term: &crate::control_socket::plan::TermText| match found.worst {
        Some(_) => format!("{} {}", escape::one_line(&term.what), exact(term.time)),
        None => escape::one_line(&term.what),
    };
    let head = format!("  {:<20} {worst:>7}  ", escape::one_line(&found.fault));
    let mut line = head;
    for (index, found) in found.terms.iter().map(term).enumerate() {
        let plus = if index == 0 { "" } else { " + " };
        if index > 0 && line.chars().count() + plus.len() + found.chars().count() > COLUMNS {
            let _ = writeln!(text, "{line}");
            line = format!("{:1$}+ {found}", "", TERMS_AT);
        } else {
            let _ = write!(line, "{plus}{found}");
        }
    }
    let _ = writeln!(text, "{line}");
    push_wrapped(text, 4, &format!("until {}", escape::one_line(&found.until)));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use multipath::{FailoverConfig, NoPathPolicy};

    use super::*;

    #[test]
    fn sums_fit_the_screen_and_say_what_they_are_made_of() {
        let config = FailoverConfig { no_path: NoPathPolicy::Queue, ..FailoverConfig::default() };
        let plan = Plan::of_config(&config, 2, Some(Duration::from_millis(5)));
        let plans = vec![PlanText::new("disk0", &plan)];
        let title = "no process runs: from world/beta.toml".to_owned();
        let shown = text(&Origin { title, from: "configuration", host: None, lane: None, plans });
        assert!(shown.lines().all(|line| line.chars().count() <= COLUMNS), "{shown}");
        assert!(shown.contains("\ndisk0: 2 paths, a path takes 5.0ms at most (given)\n"), "{shown}");
        let hang = "  hang                  5.025s  attempt_timeout 5s + lateness 20ms + other path 5.0ms\n";
        assert!(shown.replace("\n                                +", " +").contains(hang), "{shown}");
        assert!(shown.contains("  no-path                 none  no_path is \"queue\"\n"), "{shown}");
    }
}
