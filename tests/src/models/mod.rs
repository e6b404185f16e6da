//! Models of the protocol, searched exhaustively: every order of steps, every pause, every crash.
//!
//! ```text
//!  data_path   segments, entries, acknowledgements over two lives of both sides
//!  hand_over   commands through the process id entry, announced by the pointer table
//!  bell        beacons, the bell, and the scan
//!  commit      READY, PERMIT, INTENT, rename, COMMITTED, and what a power loss leaves
//!     |  each is a [`Model`] with a set of rules as switches
//!  search      breadth first, exact, with the shortest trace to what must not be
//!  table       every variant with its bounds and its known result; the table of the documentation
//! ```
//!
//! What holds: a model is written after the rules and after the code that follows them, not by calling
//! that code, so that each rule can be taken out. A variant without one of its rules must fail, or the
//! model does not see what the rule is for. Not here: real records, real time, chance.

pub mod bell;
pub mod commit;
pub mod data_path;
pub mod hand_over;
pub mod late;
pub mod search;
pub mod table;

use std::fmt::Debug;
use std::hash::Hash;

/// A protocol with its rules and bounds, as states and steps.
pub trait Model {
    /// Everything that matters at one time; small, since millions of them are kept.
    type State: Copy + Debug + Eq + Hash;
    /// The name of a step.
    type Action: Copy + Debug;

    /// Where it begins.
    fn initial(&self) -> Vec<Self::State>;

    /// Adds every step that is possible in `state`, and where it leads.
    fn successors(&self, state: &Self::State, steps: &mut Vec<(Self::Action, Self::State)>);

    /// What must not be, if `state` shows it.
    fn violation(&self, state: &Self::State) -> Option<&'static str>;

    /// Whether `state` is an end that must stay reachable.
    fn is_done(&self, state: &Self::State) -> bool;
}
