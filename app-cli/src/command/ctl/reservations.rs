//! `ctl pr` where it changes something.
//!
//! Keeps true: what a key is needed for is not sent without one; a registration is for every path of the device, unless the
//! user says `--exact`. Not here: which path carries it (`multipath::out_of_band`), commands that read (`plan`).

use multipath::out_of_band::CommandRequest;
use storage_mapping::scsi::reservations::{
    ParameterList, RegisterFlags, ReservationType, ReserveOut, ReserveOutAction,
};

use super::carrier::Carrier;
use super::{answer, request};
use crate::args::Cli;
use crate::args::ctl::{CtlPrArgs, PrAction};
use crate::command::CommandError;
use crate::exit::Exit;

/// Whether it changes something.
pub(super) fn changes(action: PrAction) -> bool {
    out_action(action).is_some()
}

fn out_action(action: PrAction) -> Option<ReserveOutAction> {
    Some(match action {
        PrAction::Keys | PrAction::Reservation | PrAction::Status | PrAction::Capabilities => return None,
        PrAction::Register => ReserveOutAction::Register,
        PrAction::RegisterIgnore => ReserveOutAction::RegisterAndIgnore,
        PrAction::Reserve => ReserveOutAction::Reserve,
        PrAction::Release => ReserveOutAction::Release,
        PrAction::Preempt => ReserveOutAction::Preempt,
        PrAction::PreemptAbort => ReserveOutAction::PreemptAndAbort,
        PrAction::Clear => ReserveOutAction::Clear,
    })
}

/// Sends it and tells what became of it.
///
/// # Errors
/// Where a key is missing, or nobody carries the command.
pub(super) fn run(cli: &Cli, args: &CtlPrArgs) -> Result<Exit, CommandError> {
    let command = command(args)?;
    let request: CommandRequest = request(&args.common, command.command());
    let carrier = Carrier::open(cli, &args.common, true)?;
    let outcome = carrier.send(&request)?;
    answer::give(&carrier, &args.common, None, false, &outcome)
}

/// The command, with its keys where the standard wants them (SPC-5 6.17.3).
fn command(args: &CtlPrArgs) -> Result<ReserveOut, CommandError> {
    let action = out_action(args.action).expect("an action that changes something");
    let missing = |what: &str| CommandError::ControlCommand { why: format!("it needs {what}") };
    let own = args.key.ok_or_else(|| missing("--key KEY, the own key"));
    let (key, action_key) = match action {
        ReserveOutAction::Register => (args.old_key.unwrap_or_default(), own?),
        ReserveOutAction::RegisterAndIgnore => (0, own?),
        ReserveOutAction::Preempt | ReserveOutAction::PreemptAndAbort => {
            (own?, args.victim.ok_or_else(|| missing("--victim KEY, the key that is taken away"))?)
        }
        _ => (own?, 0),
    };
    let kind = match action {
        ReserveOutAction::Register | ReserveOutAction::RegisterAndIgnore | ReserveOutAction::Clear => {
            ReservationType::NONE
        }
        _ => ReservationType::of(args.kind.code()),
    };
    let flags = if args.aptpl { RegisterFlags::PERSIST } else { RegisterFlags::empty() };
    let list = ParameterList::Basic { key, action_key, flags, initiators: Vec::new() };
    Ok(ReserveOut { action, scope: 0, kind, list })
}
