//! Why: what the device decided about requests, and what happened to its paths.
//!
//! Two rings. What happened to paths is always kept ([`PathEvent`], the last [`EVENTS_MAX`]); decisions about requests
//! ([`Decision`]) only while an operator wants them, since every I/O makes some.
//!
//! Keeps true: a ring never grows, and the newest records are the ones that it has; switched off, the decisions cost one
//! branch. Not here: who decides (`failover`), how it is shown.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use storage_mapping::{Instant, IoError, IoTag, PathIndex};

use crate::failover::Verdict;
use crate::path_state::{PathSet, PathState};
use crate::selector::Score;
use crate::slow_path::Slowness;

/// Changes of paths that are kept.
pub const EVENTS_MAX: usize = 256;
/// Decisions that are kept.
pub const DECISIONS_MAX: usize = 1024;
/// Scores that a decision keeps: of the first candidates.
pub const SCORES_MAX: usize = 8;

/// Why a path changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// This error came over it.
    Error(IoError),
    /// Another path gave for a request what this one could not: its data were in doubt.
    NotConfirmed,
    /// It gave no answer in time.
    Hung,
    /// Its device said that the link is down, or takes nothing more.
    LinkDown,
    /// It was not compared with another path yet.
    NotCompared,
    /// It answered a probe, and there was no other path to compare it with.
    Answered,
    /// It answered, and leads to the same data as another path in use.
    Compared,
    /// It answered, and leads to other data than this path.
    Differs(PathIndex),
    /// It answered, with another block size or fewer blocks than the device has.
    Shrunk,
    /// It came and went too often: it waits so long for its next chance.
    Flapped(Duration),
    /// It takes many times as long as the others.
    Slow(Slowness),
    /// It is no longer slow.
    Quick,
    /// What it failed by was the fault of a request, or of all paths at once.
    Lifted,
    /// An operator wanted it.
    Operator,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => write!(f, "{error}"),
            Self::NotConfirmed => write!(f, "another path gave the data that were in doubt over this one"),
            Self::Hung => write!(f, "it gave no answer in time"),
            Self::LinkDown => write!(f, "its link is down"),
            Self::NotCompared => write!(f, "it was not compared with another path yet"),
            Self::Answered => write!(f, "it answers; no other path is there to compare it with"),
            Self::Compared => write!(f, "it answers, and leads to the same data as the others"),
            Self::Differs(witness) => {
                write!(f, "it answers with other data than path {}: it leads elsewhere", witness.0)
            }
            Self::Shrunk => write!(f, "its blocks are fewer or of another size: it leads elsewhere"),
            Self::Flapped(rest) => {
                write!(
                    f,
                    "it came and went too often: used only if no other is left, for {} s",
                    rest.as_secs()
                )
            }
            Self::Slow(Slowness { mean, others }) => write!(
                f,
                "its I/O takes {} ms, that of the others {} ms: used only if no other is left",
                millis(*mean),
                millis(*others)
            ),
            Self::Quick => write!(f, "its answers are quick again"),
            Self::Lifted => write!(f, "the fault was not its own"),
            Self::Operator => write!(f, "an operator wanted it"),
        }
    }
}

/// In milliseconds, with two digits after the point.
fn millis(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}

/// A path changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathEvent {
    /// When.
    pub at: Instant,
    /// Which.
    pub path: PathIndex,
    /// What it was.
    pub from: PathState,
    /// What it is.
    pub to: PathState,
    /// Why.
    pub reason: Reason,
}

/// Which paths could carry a request, and what was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// Paths of the current group.
    pub group: PathSet,
    /// Paths in use, of all groups.
    pub usable: PathSet,
    /// Paths that failed this request before.
    pub tried: PathSet,
    /// Paths that have as many requests as they may.
    pub full: PathSet,
    /// What the selector saw of the first paths of the group, by place.
    pub scores: [Option<Score>; SCORES_MAX],
}

/// What was decided about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It was sent over this path.
    Sent {
        /// The path.
        path: PathIndex,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// What it was chosen from.
        candidates: Candidates,
    },
    /// It was sent a second time, because the first path takes long.
    Hedged {
        /// The slow one.
        slow: PathIndex,
        /// The other.
        path: PathIndex,
    },
    /// The fence holds it until others are over or dead.
    Held,
    /// No path can carry it now.
    Waits,
    /// It failed over this path.
    Failed {
        /// The path.
        path: PathIndex,
        /// The error.
        error: IoError,
        /// What becomes of it.
        verdict: Verdict,
    },
    /// It is over.
    Ended {
        /// Whether it was done.
        is_done: bool,
    },
}

/// One decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// When.
    pub at: Instant,
    /// The submitter's name for the request.
    pub tag: IoTag,
    /// What.
    pub what: What,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} I/O {}: ", self.at, self.tag.0)?;
        match &self.what {
            What::Sent { path, attempt, candidates } => {
                write!(f, "sent over path {}", path.0)?;
                if *attempt > 1 {
                    write!(f, " as attempt {attempt}")?;
                }
                write!(f, " of {}", candidates.group)?;
                let shown =
                    candidates.scores.iter().enumerate().filter_map(|(at, score)| Some((at, (*score)?)));
                for (at, (place, score)) in shown.enumerate() {
                    write!(f, "{} {place}: {score}", if at == 0 { " by" } else { "," })?;
                }
                for (word, set) in [("failed it", candidates.tried), ("are full", candidates.full)] {
                    if !set.is_empty() {
                        write!(f, "; {set} {word}")?;
                    }
                }
                Ok(())
            }
            What::Hedged { slow, path } => {
                write!(f, "path {} takes long: sent over path {} too", slow.0, path.0)
            }
            What::Held => write!(f, "held: an older write to its blocks is not over, or a copy may land"),
            What::Waits => write!(f, "waits: no path can carry it"),
            What::Failed { path, error, verdict } => {
                let next = match verdict {
                    Verdict::Answer => "that is the answer",
                    Verdict::Elsewhere => "another path is asked",
                    Verdict::Again => "once more",
                    Verdict::Later(_) => "once more a little later",
                };
                write!(f, "failed over path {}: {error}: {next}", path.0)
            }
            What::Ended { is_done: true } => write!(f, "done"),
            What::Ended { is_done: false } => write!(f, "over, not done"),
        }
    }
}

/// The two rings.
#[derive(Clone, Debug, Default)]
pub struct Explain {
    events: VecDeque<PathEvent>,
    decisions: Option<VecDeque<Decision>>,
}

impl Explain {
    /// A path changed its state.
    pub fn note_path(&mut self, event: PathEvent) {
        push(&mut self.events, event, EVENTS_MAX);
    }

    /// Begins or ends to keep decisions. Ending forgets them.
    pub fn keep_decisions(&mut self, wanted: bool) {
        let kept = self.decisions.take();
        self.decisions = wanted.then(|| kept.unwrap_or_else(|| VecDeque::with_capacity(DECISIONS_MAX)));
    }

    /// Whether decisions are kept.
    #[must_use]
    pub fn keeps_decisions(&self) -> bool {
        self.decisions.is_some()
    }

    /// Keeps a decision, if that is wanted.
    pub fn note(&mut self, at: Instant, tag: IoTag, what: impl FnOnce() -> What) {
        if let Some(decisions) = &mut self.decisions {
            push(decisions, Decision { at, tag, what: what() }, DECISIONS_MAX);
        }
    }

    /// What happened to paths, oldest first.
    pub fn events(&self) -> impl Iterator<Item = &PathEvent> {
        self.events.iter()
    }

    /// What was decided, oldest first.
    pub fn decisions(&self) -> impl Iterator<Item = &Decision> {
        self.decisions.iter().flatten()
    }
}

/// Adds to a ring.
fn push<T>(ring: &mut VecDeque<T>, record: T, most: usize) {
    if ring.len() == most {
        ring.pop_front();
    }
    ring.push_back(record);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selector::ScoreUnit;

    fn event(at: u64) -> PathEvent {
        let (from, to, reason) = (PathState::Active, PathState::Failed, Reason::Hung);
        PathEvent { at: Instant(at), path: PathIndex(1), from, to, reason }
    }

    #[test]
    fn rings_keep_the_newest() {
        let mut explain = Explain::default();
        (0..EVENTS_MAX as u64 + 3).for_each(|at| explain.note_path(event(at)));
        assert_eq!((explain.events().count(), explain.events().next()), (EVENTS_MAX, Some(&event(3))));
        explain.note(Instant(0), IoTag(0), || panic!("nobody asked"));
        explain.keep_decisions(true);
        for tag in 0..DECISIONS_MAX as u64 + 5 {
            explain.note(Instant(0), IoTag(tag), || What::Waits);
        }
        assert_eq!(explain.decisions().count(), DECISIONS_MAX);
        assert_eq!(explain.decisions().next().map(|decision| decision.tag), Some(IoTag(5)));
        explain.keep_decisions(false);
        assert_eq!(explain.decisions().count(), 0);
    }

    #[test]
    fn a_decision_reads_as_a_sentence() {
        let set = |paths: &[usize]| paths.iter().copied().map(PathIndex).collect::<PathSet>();
        let mut scores = [None; SCORES_MAX];
        scores[0] = Some(Score { value: 900, unit: ScoreUnit::Nanoseconds });
        scores[2] = Some(Score { value: 70, unit: ScoreUnit::Nanoseconds });
        let candidates = Candidates {
            group: set(&[0, 2]),
            usable: set(&[0, 1, 2]),
            tried: set(&[1]),
            full: PathSet::EMPTY,
            scores,
        };
        let say = |what| Decision { at: Instant(1_500_000_000), tag: IoTag(7), what }.to_string();
        assert_eq!(
            say(What::Sent { path: PathIndex(2), attempt: 2, candidates }),
            "1.500000 s I/O 7: sent over path 2 as attempt 2 of 0,2 by 0: 900 ns, 2: 70 ns; 1 failed it"
        );
        let error = IoError::errno(5);
        let failed = What::Failed { path: PathIndex(0), error, verdict: Verdict::Elsewhere };
        assert!(say(failed).ends_with(": another path is asked"));
    }
}
