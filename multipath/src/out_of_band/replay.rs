//! Putting back on a returning path what the target kept for its nexus, before it carries I/O.
//!
//! ```text
//!   start ─▶ Keys ─▶ Register ─▶ Rest ─▶ done
//!              │         │ refused
//!              ▼         ▼
//!            fenced    failed: the path stays out of use
//! ```
//!
//! | step | what is true in it |
//! |---|---|
//! | Keys | all keys are being read: ours must be among them, else another host wanted us out |
//! | Register | the key is being registered over this nexus |
//! | Rest | mode pages and prevention are being set, one after the other |
//!
//! Keeps true: nothing is registered while another host's wish stands against it (a fence is not undone), and nothing is
//! pre-empted: a registration that a target kept of the nexus of before is for a caller to take away, since a command that is
//! still on its way looks the same. Not here: when a path returns (`multipath_device::control_commands`).

use std::collections::VecDeque;
use std::time::Duration;

use storage_mapping::control_port::ControlCommand;
use storage_mapping::scsi::reservations::{
    ParameterList, ReservationType, ReserveIn, ReserveInAction, ReserveOut, ReserveOutAction,
};
use storage_mapping::{Instant, PathIndex};

use super::record::CommandOutcome;
use super::request::{CommandId, CommandRequest, Mode, Origin};
use super::router::Router;

/// How long one step may take.
const STEP_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Keys,
    Register,
    Rest,
}

#[derive(Clone, Debug)]
struct Run {
    path: PathIndex,
    id: CommandId,
    step: Step,
    rest: VecDeque<ControlCommand>,
}

/// How a path came out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The path.
    pub path: PathIndex,
    /// It has what it had, and may carry I/O.
    pub is_done: bool,
}

/// All paths that are being put back.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    runs: Vec<Run>,
}

impl Replay {
    /// Whether it goes on for this path.
    #[must_use]
    pub fn is_running(&self, path: PathIndex) -> bool {
        self.runs.iter().any(|run| run.path == path)
    }

    /// Begins with a path, unless it goes on already.
    pub fn start(&mut self, now: Instant, router: &mut Router, path: PathIndex) {
        if self.is_running(path) {
            return;
        }
        let nexus = router.ledger().nexus(path);
        let rest = nexus.mode_pages.values().chain(&nexus.prevents).cloned().collect();
        let (step, command, named) = match (nexus.wanted, nexus.key) {
            (Some(_), _) => (Step::Keys, read_keys(), None),
            // A registration that landed late, and that nobody wants any more.
            (None, Some(_)) => (Step::Register, register(router, path), Some(path)),
            (None, None) => return self.start_rest(now, router, path, rest),
        };
        let id = submit(now, router, command, named);
        self.runs.push(Run { path, id, step, rest });
    }

    fn start_rest(
        &mut self,
        now: Instant,
        router: &mut Router,
        path: PathIndex,
        mut rest: VecDeque<ControlCommand>,
    ) {
        match rest.pop_front() {
            None => router.ledger_mut().handle_replayed(path),
            Some(command) => {
                let id = submit(now, router, command, Some(path));
                self.runs.push(Run { path, id, step: Step::Rest, rest });
            }
        }
    }

    /// A command of the layer ended; says so where that was the last for its path.
    pub fn handle_outcome(
        &mut self,
        now: Instant,
        router: &mut Router,
        outcome: &CommandOutcome,
    ) -> Option<Ended> {
        let at = self.runs.iter().position(|run| run.id == outcome.id)?;
        let path = self.runs[at].path;
        let failed = Some(Ended { path, is_done: false });
        if !outcome.is_done() {
            self.runs.swap_remove(at);
            return failed;
        }
        let next = match self.runs[at].step {
            Step::Keys if router.ledger().is_fenced() => None,
            Step::Keys => Some((Step::Register, register(router, path), Some(path))),
            Step::Register | Step::Rest => self.next_of_rest(at),
        };
        match next {
            Some((step, command, named)) => {
                let id = submit(now, router, command, named);
                let run = &mut self.runs[at];
                (run.id, run.step) = (id, step);
                None
            }
            None => {
                self.runs.swap_remove(at);
                if router.ledger().is_fenced() {
                    return failed;
                }
                router.ledger_mut().handle_replayed(path);
                Some(Ended { path, is_done: true })
            }
        }
    }

    fn next_of_rest(&mut self, at: usize) -> Option<(Step, ControlCommand, Option<PathIndex>)> {
        let run = &mut self.runs[at];
        run.rest.pop_front().map(|command| (Step::Rest, command, Some(run.path)))
    }
}

fn read_keys() -> ControlCommand {
    ReserveIn { action: ReserveInAction::ReadKeys, allocation: 4096 }.command()
}

/// The wanted key, whatever stands there.
fn register(router: &Router, path: PathIndex) -> ControlCommand {
    let nexus = router.ledger().nexus(path);
    let wanted = nexus.wanted.unwrap_or(0);
    let mut out = ReserveOut::new(ReserveOutAction::RegisterAndIgnore, ReservationType::NONE, 0, wanted);
    if let ParameterList::Basic { flags, .. } = &mut out.list {
        *flags = nexus.flags;
    }
    out.command()
}

fn submit(now: Instant, router: &mut Router, command: ControlCommand, path: Option<PathIndex>) -> CommandId {
    let mode = if path.is_some() { Mode::Exact } else { Mode::Prefer };
    let request = CommandRequest::new(command, path, STEP_PATIENCE).with_mode(mode);
    router.submit(now, CommandRequest { origin: Origin::Layer, ..request })
}
