//! `diskwire ls`: what is in a directory of another host.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;
use transfer_core::inspect::calendar;
use transfer_core::transfer::{Job, ListEntry, ListKind, LocalFiles, SessionEvent, Verdict};

use super::cp::{Ended, Run, check_peer, export_of, relative};
use super::{CommandError, print};
use crate::args::Cli;
use crate::args::transfer::LsArgs;
use crate::config::HostConfig;
use crate::escape;
use crate::exit::Exit;
use crate::host::{Host, Purpose};
use crate::signals::Signals;

pub(super) fn run(cli: &Cli, args: &LsArgs) -> Result<Exit, CommandError> {
    let config = HostConfig::load(cli.config_file()?)?;
    let peer = args.path.host.clone();
    check_peer(&config, &peer)?;
    let job = Job::List { export: export_of(&args.path), path: relative(&args.path)? };
    let mut signals = Signals::new().map_err(CommandError::Signals)?;
    let (mut host, _) = Host::start(&config, Purpose::Command)?;
    let files = LocalFiles::command(host.pool.clone(), host.segment_bytes, &host.state);
    let mut run = Run { host: &mut host, signals: &mut signals, peer: &peer };
    let connection = run.call(job, files)?;
    let mut entries = Vec::new();
    let ended = run.follow_with(connection, |event| {
        if let SessionEvent::Entries(more) = event {
            entries.extend(more);
        }
    });
    host.shut_down();
    match ended? {
        Ended::NeverConnected(reason) => Err(CommandError::NoConnection { peer: peer.to_string(), reason }),
        Ended::Finished(outcome, _) if outcome.verdict == Verdict::Done => {
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            print(&if args.json { json(&entries) } else { text(&entries, args.long) })?;
            Ok(Exit::Done)
        }
        Ended::Finished(outcome, lost) => Err(match (outcome.reason, lost) {
            (Some((_, why)), _) => CommandError::List { path: args.path.to_string(), why },
            (None, Some(reason)) => CommandError::NoConnection { peer: peer.to_string(), reason },
            (None, None) => CommandError::Interrupted,
        }),
    }
}

fn kind_sign(kind: ListKind) -> char {
    match kind {
        ListKind::Directory => 'd',
        ListKind::File => '-',
        ListKind::Link => 'l',
        ListKind::Other => '?',
    }
}

fn text(entries: &[ListEntry], long: bool) -> String {
    let mut text = String::new();
    for entry in entries {
        let name = escape::name(OsStr::from_bytes(&entry.name));
        if long {
            // Times before 1970 are shown as its first second; --json has them as they are.
            let time = calendar(u64::try_from(entry.attributes.mtime_s).unwrap_or(0));
            let size = entry.size;
            text += &format!(
                "{}{} {size:>14} {time} {name}\n",
                kind_sign(entry.kind),
                mode(entry.attributes.mode)
            );
        } else {
            let slash = if entry.kind == ListKind::Directory { "/" } else { "" };
            text += &format!("{name}{slash}\n");
        }
    }
    text
}

fn mode(mode: u32) -> String {
    let bits = ["r", "w", "x"];
    (0..9).map(|bit| if mode >> (8 - bit) & 1 == 1 { bits[bit % 3] } else { "-" }).collect()
}

fn json(entries: &[ListEntry]) -> String {
    #[derive(Serialize)]
    struct Entry {
        name: String,
        kind: String,
        size: u64,
        mode: u32,
        mtime_ns: i128,
    }
    #[derive(Serialize)]
    struct List {
        version: u32,
        entries: Vec<Entry>,
    }
    let entries = entries.iter().map(|entry| Entry {
        name: String::from_utf8_lossy(&entry.name).into_owned(),
        kind: format!("{:?}", entry.kind).to_lowercase(),
        size: entry.size,
        mode: entry.attributes.mode,
        mtime_ns: i128::from(entry.attributes.mtime_s) * 1_000_000_000
            + i128::from(entry.attributes.mtime_ns),
    });
    let list = List { version: 1, entries: entries.collect() };
    serde_json::to_string(&list).expect("plain data") + "\n"
}
