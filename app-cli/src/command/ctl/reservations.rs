//! `ctl pr` where it changes something: over all paths of the device together, or with `--exact` over one.
//!
//! Keeps true: what a key is needed for is not sent without one. Not here: what each path needs
//! (`multipath::out_of_band::reservations`), commands that read (`plan`).

use storage_mapping::scsi::reservations::{
    ParameterList, RegisterFlags, ReservationType, ReserveOut, ReserveOutAction,
};

use super::carrier::Carrier;
use super::{answer, request};
use crate::args::Cli;
use crate::args::ctl::{CtlPrArgs, PrAction};
use crate::command::CommandError;
use crate::control_socket::command::ReservationWish;
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

/// Changes it and tells what became of it.
///
/// # Errors
/// Where a key is missing, or nobody carries it.
pub(super) fn run(cli: &Cli, args: &CtlPrArgs) -> Result<Exit, CommandError> {
    let is_one_command = args.common.exact
        || args.common.dry_run
        || args.old_key.is_some()
        || args.aptpl
        || (args.key.is_some() && args.action != PrAction::Register)
        || args.action == PrAction::RegisterIgnore;
    if is_one_command {
        let request = request(&args.common, command(args)?.command());
        let carrier = Carrier::open(cli, &args.common, true)?;
        let outcome = carrier.send(&request)?;
        return answer::give(&carrier, &args.common, None, false, &outcome);
    }
    let wish = wish(args)?;
    let carrier = Carrier::open(cli, &args.common, true)?;
    let outcome = carrier.reserve(wish)?;
    answer::give_reservation(&carrier, &args.common, &outcome)
}

fn missing(what: &str) -> CommandError {
    CommandError::ControlCommand { why: format!("it needs {what}") }
}

fn victim(args: &CtlPrArgs) -> Result<u64, CommandError> {
    args.victim.ok_or_else(|| missing("--victim KEY, the key that is taken away"))
}

/// All paths together. The keys of paths are known to whoever has them, and need not be said again.
fn wish(args: &CtlPrArgs) -> Result<ReservationWish, CommandError> {
    let wish = |operation: &str| ReservationWish {
        operation: operation.to_owned(),
        kind: Some(args.kind.code()),
        patience: args.common.deadline.as_secs_f64(),
        ..ReservationWish::default()
    };
    Ok(match args.action {
        PrAction::Register => match args.key.ok_or_else(|| missing("--key KEY, the own key"))? {
            0 => wish("unregister"),
            key => ReservationWish { key: Some(key), ..wish("register") },
        },
        PrAction::Preempt => ReservationWish { victim: Some(victim(args)?), ..wish("preempt") },
        PrAction::PreemptAbort => ReservationWish { victim: Some(victim(args)?), ..wish("preempt-abort") },
        PrAction::Reserve => wish("reserve"),
        PrAction::Release => wish("release"),
        _ => wish("clear"),
    })
}

/// One command, with its keys where the standard wants them (SPC-5 6.17.3).
fn command(args: &CtlPrArgs) -> Result<ReserveOut, CommandError> {
    let action = out_action(args.action).expect("an action that changes something");
    let own = args.key.ok_or_else(|| missing("--key KEY, the own key"));
    let (key, action_key) = match action {
        ReserveOutAction::Register => (args.old_key.unwrap_or_default(), own?),
        ReserveOutAction::RegisterAndIgnore => (0, own?),
        ReserveOutAction::Preempt | ReserveOutAction::PreemptAndAbort => (own?, victim(args)?),
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
