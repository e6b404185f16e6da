//! `diskwire ctl`: SCSI control commands over whichever path can carry them.
//!
//! ```text
//!   what was typed ──▶ plan: a command, and how its reply is shown
//!                        │
//!                        ▼
//!   carrier: a process that has the paths, or a session of its own ──▶ the router of the multi-path layer
//!                        │
//!                        ▼
//!   answer: the reply, and on request which path, why, and how sure
//! ```
//!
//! Keeps true: a command goes to one process, once; what a target says is shown escaped. Not here: which path a command
//! takes (`multipath::out_of_band`).

mod answer;
pub(in crate::command) mod carrier;
mod plan;
mod reservations;
mod show;
mod table;

use multipath::out_of_band::command_table::{Class, CommandTable, DISK, Lookup, Repeat, Row, UserRows};
use multipath::out_of_band::{CommandRequest, Mode};
use storage_mapping::PathIndex;

use super::{CommandError, print};
use crate::args::Cli;
use crate::args::ctl::{CtlArgs, CtlCommand, CtlCommon, CtlTarget};
use crate::config::HostConfig;
use crate::exit::Exit;
use carrier::Carrier;
use plan::Plan;

pub(super) fn run(cli: &Cli, args: &CtlArgs) -> Result<Exit, CommandError> {
    match &args.command {
        CtlCommand::Table(args) => {
            print(&table::text(args, &user_rows(cli)?))?;
            Ok(Exit::Done)
        }
        CtlCommand::Pr(args) if reservations::changes(args.action) => reservations::run(cli, args),
        command => {
            let plan = plan::of(command)?.expect("every other command is one command");
            let is_raw = matches!(command, CtlCommand::Raw(_));
            send(cli, plan, is_raw)
        }
    }
}

fn send(cli: &Cli, plan: Plan<'_>, is_raw: bool) -> Result<Exit, CommandError> {
    let common = plan.common;
    let request = request(common, plan.command);
    let is_configured = matches!(common.what, CtlTarget::Device(_));
    let user = if is_configured { user_rows(cli)? } else { UserRows::default() };
    let table = CommandTable::with_user_rows(user);
    let lookup = Lookup { command: &request.command, device_type: DISK, is_named: request.path.is_some() };
    let row = table.row(&lookup);
    if is_raw {
        stays_where_it_must(row, &request)?;
    }
    let carrier = Carrier::open(cli, common, is_bound_to_a_nexus(row))?;
    let outcome = carrier.send(&request)?;
    answer::give(&carrier, common, plan.show.filter(|_| !plan.is_binary), plan.is_binary, &outcome)
}

/// What the configuration of the host says of commands, where there is one.
fn user_rows(cli: &Cli) -> Result<UserRows, CommandError> {
    match cli.config_file() {
        Ok(file) => Ok(HostConfig::load(file)?.commands),
        Err(_) => Ok(UserRows::default()),
    }
}

/// The path that was named, in either way.
fn named(common: &CtlCommon) -> Option<PathIndex> {
    let of_target = match &common.what {
        CtlTarget::Device(name) => name.path,
        CtlTarget::Addresses(_) => None,
    };
    common.path.or(of_target).map(PathIndex)
}

fn request(common: &CtlCommon, command: storage_mapping::control_port::ControlCommand) -> CommandRequest {
    let mode = match (common.exact, common.any, common.all) {
        (true, ..) => Mode::Exact,
        (_, true, _) => Mode::Any,
        (_, _, true) => Mode::All,
        _ => Mode::Prefer,
    };
    let request = CommandRequest::new(command, named(common), common.deadline).with_mode(mode);
    CommandRequest { is_dry_run: common.dry_run, ..request }
}

/// A raw command that belongs to one path is sent over that path because the user said so, and not otherwise.
fn stays_where_it_must(row: &Row, request: &CommandRequest) -> Result<(), CommandError> {
    let is_bound = matches!(row.class, Class::Nexus | Class::Exact);
    let is_meant = request.mode == Mode::Exact && request.path.is_some();
    if !is_bound || is_meant || request.is_dry_run {
        return Ok(());
    }
    Err(CommandError::ControlStays { command: row.name.to_string(), reason: row.reason.to_owned() })
}

/// What it leaves in the target ends with the nexus.
fn is_bound_to_a_nexus(row: &Row) -> bool {
    matches!(row.class, Class::Nexus | Class::AnyRegistered | Class::AllNexuses) && row.repeat != Repeat::Yes
}
