//! The broker of unit attentions: who met one keeps it for those who wanted it.
//!
//! A target reports a unit attention once for each nexus, to whichever command comes next, be it a probe. Here it is kept:
//! each event comes to each subscriber once for the unit, however many nexuses report it, and a caller who talks to one path
//! in the mode `exact` gets what another command took away from it, once, as CHECK CONDITION.
//!
//! Two paths report one event if it is the same code and the second path has carried no command to its end since the
//! first report: had the event been a new one, that command would have met the old one.
//!
//! Keeps true: no event is lost by being taken for another; the rings do not grow; what a command of ours causes on other
//! nexuses is marked as our own. Not here: what follows from an event (`ledger`).

use std::collections::VecDeque;

use storage_mapping::{Instant, PathIndex};

use super::reading::Event;
use crate::path_state::PathSet;

/// Events that are kept for subscribers.
pub const ATTENTIONS_MAX: usize = 256;
/// Events that are kept for the caller of one path.
const OWED_MAX: usize = 8;
/// Events of one path that our own commands have caused.
const EXPECTED_MAX: usize = 16;
/// I_T NEXUS LOSS OCCURRED: of one nexus by its nature.
const NEXUS_LOSS: Event = Event { asc: 0x29, ascq: 0x07 };

/// A unit attention of the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attention {
    /// Counts events, from 0.
    pub number: u64,
    /// When it was met first.
    pub at: Instant,
    /// Over which path.
    pub path: PathIndex,
    /// Its codes.
    pub event: Event,
    /// A command of our own has caused it.
    pub is_own: bool,
}

/// An event that paths may still report.
#[derive(Clone, Copy, Debug)]
struct Round {
    event: Event,
    first: Instant,
    /// Paths that have reported it, or can no longer.
    closed: PathSet,
}

#[derive(Clone, Debug, Default)]
struct OfPath {
    /// Caused by our own commands and not met yet.
    expected: VecDeque<Event>,
    /// Met by a command that was not the caller's.
    owed: VecDeque<Event>,
}

/// The broker of one unit.
#[derive(Clone, Debug)]
pub struct Attentions {
    paths: Vec<OfPath>,
    rounds: VecDeque<Round>,
    kept: VecDeque<Attention>,
    next: u64,
}

impl Attentions {
    /// A unit of so many paths.
    #[must_use]
    pub fn new(paths: usize) -> Self {
        Self {
            paths: vec![OfPath::default(); paths],
            rounds: VecDeque::new(),
            kept: VecDeque::new(),
            next: 0,
        }
    }

    /// A command of ours makes the target report this over the path.
    pub fn expect(&mut self, path: PathIndex, event: Event) {
        let expected = &mut self.paths[path.0].expected;
        if !expected.contains(&event) {
            push(expected, event, EXPECTED_MAX);
        }
    }

    /// Whether a command over the path is likely to meet one.
    #[must_use]
    pub fn is_expected(&self, path: PathIndex) -> bool {
        !self.paths[path.0].expected.is_empty()
    }

    /// A command met one. `is_told`: the caller sees the sense himself. Says whether our own command has caused it.
    pub fn handle(&mut self, now: Instant, path: PathIndex, event: Event, is_told: bool) -> bool {
        let place = &mut self.paths[path.0];
        let is_own = place.expected.contains(&event);
        place.expected.retain(|known| *known != event);
        if !is_told && !is_own && !place.owed.contains(&event) {
            push(&mut place.owed, event, OWED_MAX);
        }
        let open = |round: &&mut Round| round.event == event && !round.closed.contains(path);
        match self.rounds.iter_mut().find(open) {
            Some(round) if event != NEXUS_LOSS => round.closed.insert(path),
            _ => {
                let closed = [path].into_iter().collect();
                push(&mut self.rounds, Round { event, first: now, closed }, ATTENTIONS_MAX);
                let attention = Attention { number: self.next, at: now, path, event, is_own };
                push(&mut self.kept, attention, ATTENTIONS_MAX);
                self.next += 1;
            }
        }
        is_own
    }

    /// A command that was sent at `sent` ended over the path without one: none is pending there of what was before.
    pub fn handle_none(&mut self, path: PathIndex, sent: Instant) {
        self.paths[path.0].expected.clear();
        for round in self.rounds.iter_mut().filter(|round| round.first <= sent) {
            round.closed.insert(path);
        }
        let all = self.paths.len();
        self.rounds.retain(|round| round.closed.len() < all);
    }

    /// Whether the path may report nothing any more that is known.
    #[must_use]
    pub fn is_quiet(&self, path: PathIndex) -> bool {
        self.rounds.is_empty() && !self.is_expected(path)
    }

    /// What another command took away from the caller of this path.
    pub fn take_owed(&mut self, path: PathIndex) -> Option<Event> {
        self.paths[path.0].owed.pop_front()
    }

    /// The next event for a subscriber, whose place `cursor` is (0 at first).
    pub fn poll(&self, cursor: &mut u64) -> Option<Attention> {
        let found = self.kept.iter().find(|attention| attention.number >= *cursor).copied()?;
        *cursor = found.number + 1;
        Some(found)
    }

    /// The newest events, oldest first.
    pub fn kept(&self) -> impl Iterator<Item = &Attention> {
        self.kept.iter()
    }
}

fn push<T>(ring: &mut VecDeque<T>, item: T, most: usize) {
    if ring.len() == most {
        ring.pop_front();
    }
    ring.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: Event = Event { asc: 0x2a, ascq: 0x09 };
    const A: PathIndex = PathIndex(0);
    const B: PathIndex = PathIndex(1);

    fn polled(broker: &Attentions, cursor: &mut u64) -> Vec<(PathIndex, Event)> {
        std::iter::from_fn(|| broker.poll(cursor)).map(|found| (found.path, found.event)).collect()
    }

    #[test]
    fn an_event_comes_once_to_each_subscriber_however_many_paths_report_it() {
        let mut broker = Attentions::new(2);
        let (mut one, mut two) = (0, 0);
        broker.handle(Instant(1), A, CAPACITY, false);
        assert_eq!(polled(&broker, &mut one), [(A, CAPACITY)]);
        broker.handle(Instant(9), B, CAPACITY, false);
        assert_eq!(polled(&broker, &mut one), []);
        assert_eq!(polled(&broker, &mut two), [(A, CAPACITY)]);
    }

    #[test]
    fn a_second_event_is_not_taken_for_the_first() {
        let mut broker = Attentions::new(2);
        let mut cursor = 0;
        broker.handle(Instant(1), A, CAPACITY, false);
        // The same path again: it is another event.
        broker.handle(Instant(2), A, CAPACITY, false);
        assert_eq!(polled(&broker, &mut cursor).len(), 2);
        // B carried a command since: the first two are not pending there.
        broker.handle_none(B, Instant(3));
        broker.handle(Instant(4), B, CAPACITY, false);
        assert_eq!(polled(&broker, &mut cursor), [(B, CAPACITY)]);
        // A command that was sent before proves nothing.
        broker.handle_none(A, Instant(3));
        broker.handle(Instant(5), A, CAPACITY, false);
        assert_eq!(polled(&broker, &mut cursor), []);
    }

    #[test]
    fn what_a_probe_took_is_owed_to_the_caller_once_and_own_events_are_not() {
        let mut broker = Attentions::new(2);
        broker.handle(Instant(1), A, CAPACITY, false);
        assert_eq!(
            (broker.take_owed(B), broker.take_owed(A), broker.take_owed(A)),
            (None, Some(CAPACITY), None)
        );
        broker.handle(Instant(2), A, CAPACITY, true);
        assert_eq!(broker.take_owed(A), None);
        let cleared = Event { asc: 0x2a, ascq: 0x03 };
        broker.expect(B, cleared);
        assert!(broker.is_expected(B) && !broker.is_expected(A));
        assert!(broker.handle(Instant(3), B, cleared, false));
        assert_eq!((broker.take_owed(B), broker.is_expected(B)), (None, false));
        assert!(broker.kept().last().is_some_and(|attention| attention.is_own));
    }
}
