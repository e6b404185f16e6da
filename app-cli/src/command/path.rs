//! `diskwire path`: the paths of the processes of a host that run, seen and steered.
//!
//! Keeps true: what a process says is shown escaped. Not here: who is asked (`asker`), the way to the processes
//! (`control_socket`), texts (`table`, `story`, `statistics`), the live view (`watch`), `plan` and `drill`.

mod asker;
mod drill;
mod plan;
mod prometheus;
mod statistics;
mod story;
mod table;
mod view;
mod watch;

use serde_json::{Value, json};

use super::{CommandError, print, say};
use crate::args::Cli;
use crate::args::path::{PathArgs, PathCommand, PathName, PathWhyArgs};
use crate::control_socket::{Answers, Reply, Silent, Wish};
use crate::escape;
use crate::exit::Exit;
use asker::Asker;
use view::Lane;

pub(super) fn run(cli: &Cli, args: &PathArgs) -> Result<Exit, CommandError> {
    let host = Asker::new(cli, args.lab.as_deref())?;
    match &args.command {
        PathCommand::List(args) => host.report(None, args.json, |lanes| table::text(lanes, table::columns())),
        PathCommand::Show(args) => {
            let what = &args.what;
            host.report(Some(what), args.json, |lanes| statistics::everything(lanes, what.path))
        }
        PathCommand::Stat(args) if args.prometheus => host.prometheus(),
        PathCommand::Stat(args) => host.report(None, args.json, statistics::numbers),
        PathCommand::Fail(args) => {
            let path = one_path(&args.what)?;
            let wish = Wish::Fail { device: args.what.device.to_string(), path };
            host.command(&wish, args.json, &format!("{} is out of use", args.what))
        }
        PathCommand::Reinstate(args) => {
            let path = one_path(&args.what)?;
            let wish = Wish::Reinstate { device: args.what.device.to_string(), path };
            host.command(&wish, args.json, &format!("{} is in use", args.what))
        }
        PathCommand::Policy(args) => {
            let device = args.device.to_string();
            match &args.policy {
                Some(kind) => {
                    let done = format!("{device} chooses by {kind}");
                    host.command(&Wish::Policy { device, policy: kind.to_string() }, args.json, &done)
                }
                None => {
                    let what = PathName { device: args.device.clone(), path: None };
                    host.report(Some(&what), args.json, policies)
                }
            }
        }
        PathCommand::Group(args) => {
            let (device, priority) = (args.device.to_string(), args.priority);
            let done = format!("{device} uses its paths of priority {priority}");
            host.command(&Wish::Group { device, priority }, args.json, &done)
        }
        PathCommand::Why(args) => host.why(args),
        PathCommand::Plan(args) => plan::run(&host, args),
        PathCommand::Drill(args) => drill::run(&host, args),
        PathCommand::Watch(args) => watch::run(&host, args.count),
    }
}

fn one_path(what: &PathName) -> Result<usize, CommandError> {
    what.path.ok_or_else(|| CommandError::PathMissing { device: what.device.to_string() })
}

impl Asker {
    /// What the lanes know of a device, or of all.
    fn report(
        &self,
        what: Option<&PathName>,
        as_json: bool,
        text: impl Fn(&[Lane]) -> String,
    ) -> Result<Exit, CommandError> {
        let device = what.map(|what| what.device.to_string());
        let mut answers = self.answered(&Wish::Show { device })?;
        if let Some(place) = what.and_then(|what| what.path) {
            keep_path(&mut answers.replies, place)?;
        }
        if as_json {
            print_json(&answers)?;
        } else {
            print(&text(&view::lanes(&answers.replies)))?;
        }
        Ok(Exit::Done)
    }

    fn prometheus(&self) -> Result<Exit, CommandError> {
        let answers = self.answered(&Wish::Prometheus)?;
        let labels = |reply: &Reply| {
            let host = reply.host.as_ref().map_or_else(String::new, |host| format!("host=\"{host}\","));
            format!("{host}lane=\"{}\",", reply.lane)
        };
        let texts = answers.replies.iter().filter_map(|reply| Some((labels(reply), reply.text.as_deref()?)));
        print(&prometheus::merge(texts))?;
        Ok(Exit::Done)
    }

    /// Has all lanes do something.
    fn command(&self, wish: &Wish, as_json: bool, done: &str) -> Result<Exit, CommandError> {
        let answers = self.ask(wish)?;
        let failed = answers.replies.iter().filter(|reply| reply.error.is_some()).count();
        if as_json {
            print_json(&answers)?;
        } else {
            if failed == answers.replies.len() {
                let why = answers.replies.first().map_or("", error_of).to_owned();
                return Err(CommandError::PathRefused { why });
            }
            let line = |reply: &Reply| match &reply.error {
                None => format!("{}: {done}\n", process(reply)),
                Some(error) => format!("{}: not done: {}\n", process(reply), escape::one_line(error)),
            };
            print(&answers.replies.iter().map(line).collect::<String>())?;
        }
        Ok(match failed {
            0 if answers.silent.is_empty() => Exit::Done,
            all if all == answers.replies.len() => Exit::Failed,
            _ => Exit::PartlyDone,
        })
    }

    /// What happened to a path, which is told beside the others of its device.
    fn story(&self, what: &PathName, as_json: bool) -> Result<Exit, CommandError> {
        let answers = self.answered(&Wish::Show { device: Some(what.device.to_string()) })?;
        let mut kept = answers.clone();
        if let Some(place) = what.path {
            keep_path(&mut kept.replies, place)?;
        }
        if as_json {
            print_json(&kept)?;
        } else {
            print(&story::text(&view::lanes(&answers.replies), what.path))?;
        }
        Ok(Exit::Done)
    }

    fn why(&self, args: &PathWhyArgs) -> Result<Exit, CommandError> {
        let device = args.what.device.to_string();
        if args.off {
            let done = format!("decisions about {device} are no longer kept");
            return self.command(&Wish::Explain { device, on: false }, args.json, &done);
        }
        if !args.io {
            return self.story(&args.what, args.json);
        }
        let answers = self.answered(&Wish::Decisions { device: device.clone(), most: args.most.into() })?;
        if answers.replies.iter().any(|reply| reply.is_kept == Some(false)) {
            self.answered(&Wish::Explain { device: device.clone(), on: true })?;
            say(&format!(
                "decisions about {device} are kept from now on; ask again, and end it with `path why {device} --off`"
            ));
        }
        if args.json {
            print_json(&answers)?
        } else {
            print(&story::decisions(&answers.replies))?
        }
        Ok(Exit::Done)
    }
}

/// Takes the other paths out of what was said of one device.
fn keep_path(replies: &mut [Reply], place: usize) -> Result<(), CommandError> {
    let mut is_there = false;
    let is_it = |value: &Value| value.get("path").and_then(Value::as_u64) == Some(place as u64);
    for device in replies.iter_mut().filter_map(|reply| reply.devices.as_mut()).flatten() {
        for list in ["paths", "events", "living_copies"] {
            if let Some(Value::Array(entries)) = device.get_mut(list) {
                is_there |= list == "paths" && entries.iter().any(is_it);
                entries.retain(is_it);
            }
        }
    }
    let why = || format!("the device has no path {place}; `path list` shows those that it has");
    if is_there { Ok(()) } else { Err(CommandError::PathRefused { why: why() }) }
}

fn error_of(reply: &Reply) -> &str {
    reply.error.as_deref().unwrap_or_default()
}

/// A process as users see it.
fn process(reply: &Reply) -> String {
    let host = reply.host.as_ref().map_or_else(String::new, |host| format!("{host}: "));
    format!("{host}{} (lane {}, process {})", escape::one_line(&reply.process), reply.lane, reply.pid)
}

fn policies(lanes: &[Lane]) -> String {
    let line = |lane: &Lane| {
        let device = lane.devices.first()?;
        Some(format!("{}: {}\n", lane.title, escape::one_line(&device.policy)))
    };
    lanes.iter().filter_map(line).collect()
}

fn print_json(answers: &Answers) -> Result<(), CommandError> {
    let silent = |silent: &Silent| {
        let mut said = json!({ "lane": silent.lane, "why": silent.why });
        if let Some(host) = &silent.host {
            said["host"] = host.as_str().into();
        }
        said
    };
    let silent: Vec<_> = answers.silent.iter().map(silent).collect();
    let whole = json!({ "version": 1, "lanes": answers.replies, "silent": silent });
    print(&(whole.to_string() + "\n"))
}
