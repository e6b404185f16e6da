//! The selection of a path (FIG. 16): a criterion that may give another path than the named one.
//!
//! ```text
//!              class, mode, ledger                 state, attention, latency, name
//!   all paths ────────────────────▶ candidates ──────────────────────────────────▶ order
//!        └──────▶ rejected, each with its reason
//! ```
//!
//! Keeps true: every path is either a candidate or rejected with a reason; equal inputs give an equal order. Not here:
//! sending (`router`).

use std::cmp::Reverse;
use std::time::Duration;

use storage_mapping::PathIndex;
use storage_mapping::control_port::{ControlCommand, NexusId};
use storage_mapping::scsi::reservations::ReserveOutAction;

use super::command_table::{Access, Class, Repeat, Row};
use super::ledger::Ledger;
use super::record::{Candidate, Rejection};
use super::request::{CommandRequest, Mode};
use super::verify::reserve_out;
use crate::path_state::{PathSet, PathState};

/// A path as the router sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathView {
    /// Its place.
    pub path: PathIndex,
    /// Its state for I/O.
    pub state: PathState,
    /// It gave a suspicious error lately.
    pub is_suspect: bool,
    /// Its group: more is better.
    pub priority: u16,
    /// Who speaks to whom over it; `None`: it takes no control commands.
    pub nexus: Option<NexusId>,
    /// What a control command over it took lately.
    pub latency: Option<Duration>,
    /// A unit attention is expected on it.
    pub has_attention: bool,
}

/// What was selected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Paths that may be taken, best first.
    pub candidates: Vec<Candidate>,
    /// The others.
    pub rejected: Vec<(PathIndex, Rejection)>,
}

/// What binds the choice.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'a> {
    /// What is asked for.
    pub request: &'a CommandRequest,
    /// Its row.
    pub row: &'a Row,
    /// What the target keeps by nexus.
    pub ledger: &'a Ledger,
    /// Paths that failed the command.
    pub tried: PathSet,
    /// The path over which it went first, to which its class binds it.
    pub bound: Option<PathIndex>,
}

/// Chooses among paths.
#[must_use]
pub fn select(paths: &[PathView], bounds: &Bounds<'_>) -> Selection {
    let mut selection = Selection::default();
    for view in paths {
        match reject(paths, view, bounds) {
            Some(why) => selection.rejected.push((view.path, why)),
            None => selection.candidates.push(Candidate {
                path: view.path,
                state: view.state,
                has_attention: view.has_attention,
                latency: view.latency,
                is_named: bounds.request.path == Some(view.path),
            }),
        }
    }
    let prefers = bounds.request.mode == Mode::Prefer;
    let score = |candidate: &Candidate| {
        let view = &paths[candidate.path.0];
        let rank = rank(view);
        let is_wanted = prefers && candidate.is_named && rank <= rank_of(PathState::Standby);
        // Latencies within a factor of two are equal: the name, and then the place, decides.
        let latency = candidate.latency.map_or(0, |latency| u128::BITS - latency.as_micros().leading_zeros());
        (
            !is_wanted,
            rank,
            Reverse(view.priority),
            candidate.has_attention,
            latency,
            !candidate.is_named,
            candidate.path,
        )
    };
    selection.candidates.sort_by_key(score);
    selection
}

/// Which states come first; a suspect path comes after those that are not.
fn rank(view: &PathView) -> u8 {
    let rank = rank_of(view.state);
    if view.is_suspect && rank < rank_of(PathState::Failed) { rank_of(PathState::Standby) + 1 } else { rank }
}

fn rank_of(state: PathState) -> u8 {
    match state {
        PathState::Active => 0,
        PathState::Isolated | PathState::Slow => 1,
        PathState::Standby => 2,
        PathState::Failed => 4,
        PathState::Disabled => 5,
        PathState::Foreign => 6,
    }
}

/// Why a path may not be taken, if it may not.
fn reject(paths: &[PathView], view: &PathView, bounds: &Bounds<'_>) -> Option<Rejection> {
    let Bounds { request, row, .. } = bounds;
    if view.nexus.is_none() {
        return Some(Rejection::NoPort);
    }
    if bounds.tried.contains(view.path) {
        return Some(Rejection::Tried);
    }
    let is_named = request.path == Some(view.path);
    let insists = request.mode == Mode::Exact || row.class == Class::Exact;
    if insists {
        return (!is_named).then_some(Rejection::NotNamed);
    }
    reject_class(paths, view, bounds).or_else(|| reject_state(view, row, is_named))
}

/// What its class says.
fn reject_class(paths: &[PathView], view: &PathView, bounds: &Bounds<'_>) -> Option<Rejection> {
    let Bounds { request, row, ledger, bound, .. } = bounds;
    let is_other = |path: &PathIndex| *path != view.path;
    match row.class {
        Class::Portable | Class::AllNexuses | Class::Exact => None,
        Class::AnyRegistered => {
            let key = reserve_out(&request.command).map(|out| out.list.keys().0);
            let fits = |path| ledger.is_registered(path) && ledger.nexus(path).key == key;
            // Where none is known to be registered with this key, the target is to say so.
            let others = paths.iter().any(|other| fits(other.path));
            (others && !fits(view.path)).then_some(Rejection::NotRegistered)
        }
        Class::TargetPort if request.mode == Mode::Any => None,
        Class::TargetPort => {
            let wanted = bound.or(request.path)?;
            let port = |path: PathIndex| Some(&paths.get(path.0)?.nexus.as_ref()?.target_port);
            (port(wanted) != port(view.path)).then_some(Rejection::OtherPort)
        }
        Class::Nexus => {
            if bound.is_some_and(|bound| is_other(&bound)) {
                return Some(Rejection::OtherNexus);
            }
            if let Some(holder) = lawful_holder(&request.command, ledger) {
                return is_other(&holder).then_some(Rejection::NotHolder(holder));
            }
            request.path.filter(is_other).map(|_| Rejection::OtherNexus)
        }
    }
}

/// The path over which a RELEASE has an effect, where that is known and is one alone.
fn lawful_holder(command: &ControlCommand, ledger: &Ledger) -> Option<PathIndex> {
    let release = reserve_out(command)?;
    (release.action == ReserveOutAction::Release).then(|| ledger.holder()).flatten()
}

/// What its state says.
fn reject_state(view: &PathView, row: &Row, is_named: bool) -> Option<Rejection> {
    match view.state {
        PathState::Active | PathState::Isolated | PathState::Slow => None,
        PathState::Standby if row.access < Access::Active => None,
        // A command that belongs to the path asks how it is.
        PathState::Standby if is_named && row.class == Class::Nexus => None,
        PathState::Standby => Some(Rejection::AccessState),
        // It may have come back; a command that may be repeated finds out.
        PathState::Failed if row.class == Class::Nexus && is_named => None,
        PathState::Failed if row.repeat == Repeat::Yes && row.class != Class::AllNexuses => None,
        PathState::Failed | PathState::Disabled | PathState::Foreign => Some(Rejection::State(view.state)),
    }
}
