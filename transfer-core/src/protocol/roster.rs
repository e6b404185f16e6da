//! What there is for each connection, and for which of them something is to be done.
//!
//! What holds: a value changes in [`Roster::touch`] and [`Roster::visit`] only. Whoever is touched is visited next,
//! each once, in the order in which it first was; whoever is neither touched nor due is left alone. So a turn costs
//! what happened in it, however many connections there are, and nobody has to be remembered. Not here: what is done
//! at a visit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use storage_mapping::Instant;
use storage_mapping::block::time::earliest;

use super::connection::ConnectionId;

/// Those whose turn is to come: each once, first come first served. They are few, so whoever is looked for is looked for
/// from the front.
#[derive(Debug)]
pub(crate) struct Turns<Id>(VecDeque<Id>);

impl<Id> Default for Turns<Id> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<Id: Copy + Eq> Turns<Id> {
    /// Last in the queue, unless it waits already.
    pub(crate) fn push(&mut self, id: Id) {
        if !self.contains(id) {
            self.0.push_back(id);
        }
    }

    /// The first of those that are `ready`.
    pub(crate) fn pop(&mut self, ready: impl Fn(Id) -> bool) -> Option<Id> {
        let index = self.0.iter().position(|id| ready(*id))?;
        self.0.remove(index)
    }

    /// It waits no more.
    pub(crate) fn remove(&mut self, id: Id) {
        self.0.retain(|other| *other != id);
    }

    /// Everybody who waits, in order.
    pub(crate) fn take(&mut self) -> Vec<Id> {
        std::mem::take(&mut self.0).into()
    }

    pub(crate) fn contains(&self, id: Id) -> bool {
        self.0.contains(&id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = &Id> {
        self.0.iter()
    }
}

/// Something that time alone changes.
pub(crate) trait Wakes {
    /// When it wants to be visited, whatever happens. A visit at that time moves it on, or the loop would turn without
    /// end.
    fn next_wakeup(&self) -> Option<Instant>;
}

struct Member<T> {
    value: T,
    /// Its place in the order of wake-ups; none while it is touched.
    wakeup: Option<Instant>,
}

/// A value for each connection.
pub(crate) struct Roster<T> {
    members: BTreeMap<ConnectionId, Member<T>>,
    touched: Turns<ConnectionId>,
    wakeups: BTreeSet<(Instant, ConnectionId)>,
}

impl<T: Wakes> Roster<T> {
    /// Nobody.
    pub(crate) fn new() -> Self {
        Self { members: BTreeMap::new(), touched: Turns::default(), wakeups: BTreeSet::new() }
    }

    /// A newcomer, who is touched.
    pub(crate) fn insert(&mut self, id: ConnectionId, value: T) {
        self.remove(id);
        self.members.insert(id, Member { value, wakeup: None });
        self.touched.push(id);
    }

    /// Takes somebody out.
    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<T> {
        let member = self.members.remove(&id)?;
        self.touched.remove(id);
        if let Some(at) = member.wakeup {
            self.wakeups.remove(&(at, id));
        }
        Some(member.value)
    }

    /// Something happens to `id`: does it, and marks it for a visit.
    pub(crate) fn touch<R>(&mut self, id: ConnectionId, act: impl FnOnce(&mut T) -> R) -> Option<R> {
        let member = self.members.get_mut(&id)?;
        if let Some(at) = member.wakeup.take() {
            self.wakeups.remove(&(at, id));
        }
        self.touched.push(id);
        Some(act(&mut member.value))
    }

    /// Does for `id` what is to be done until something happens to it, or it is due.
    pub(crate) fn visit<R>(&mut self, id: ConnectionId, act: impl FnOnce(&mut T) -> R) -> Option<R> {
        let member = self.members.get_mut(&id)?;
        let result = act(&mut member.value);
        let wakeup = member.value.next_wakeup();
        if wakeup != member.wakeup {
            if let Some(at) = member.wakeup {
                self.wakeups.remove(&(at, id));
            }
            if let Some(at) = wakeup {
                self.wakeups.insert((at, id));
            }
            member.wakeup = wakeup;
        }
        Some(result)
    }

    /// Whom to visit now: who was touched, then who is due.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<ConnectionId> {
        let due = self.wakeups.range(..=(now, ConnectionId(u64::MAX)));
        due.for_each(|(_, id)| self.touched.push(*id));
        self.touched.take()
    }

    /// Whether somebody was touched and not visited since.
    pub(crate) fn has_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// The first time that anybody wants to be visited at.
    pub(crate) fn next_wakeup(&self) -> Option<Instant> {
        let touched = self.touched.iter().filter_map(|id| self.get(*id)?.next_wakeup());
        earliest(touched.min(), self.wakeups.first().map(|(at, _)| *at))
    }

    /// Everybody to whom nothing happened since the last visit and who is not due.
    pub(crate) fn at_rest(&self, now: Instant) -> Vec<ConnectionId> {
        let rests = |(id, member): &(&ConnectionId, &Member<T>)| {
            !self.touched.contains(**id) && member.value.next_wakeup().is_none_or(|at| at > now)
        };
        self.members.iter().filter(rests).map(|(id, _)| *id).collect()
    }

    pub(crate) fn get(&self, id: ConnectionId) -> Option<&T> {
        self.members.get(&id).map(|member| &member.value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnectionId, &T)> {
        self.members.iter().map(|(id, member)| (*id, &member.value))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.members.values().map(|member| &member.value)
    }

    /// The names, to visit or to touch them all.
    pub(crate) fn ids(&self) -> Vec<ConnectionId> {
        self.members.keys().copied().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnectionId = ConnectionId(1);
    const B: ConnectionId = ConnectionId(2);
    const C: ConnectionId = ConnectionId(3);

    /// Wants to be visited at the time that it is.
    struct At(Option<u64>);

    impl Wakes for At {
        fn next_wakeup(&self) -> Option<Instant> {
            self.0.map(Instant)
        }
    }

    /// Everybody at rest, with these wake-ups.
    fn roster(wakeups: [Option<u64>; 3]) -> Roster<At> {
        let mut roster = Roster::new();
        [A, B, C].into_iter().zip(wakeups).for_each(|(id, at)| roster.insert(id, At(at)));
        assert_eq!(roster.take_due(Instant::ZERO), [A, B, C], "newcomers are touched");
        [A, B, C].into_iter().for_each(|id| roster.visit(id, |_| ()).unwrap());
        roster
    }

    #[test]
    fn whoever_is_touched_is_visited_once_in_the_order_of_touching() {
        let mut roster = roster([None; 3]);
        assert!(!roster.has_touched() && roster.take_due(Instant(100)).is_empty());
        for id in [C, A, C] {
            roster.touch(id, |_| ()).unwrap();
        }
        assert!(roster.has_touched());
        assert_eq!(roster.take_due(Instant::ZERO), [C, A]);
        assert!(roster.take_due(Instant::ZERO).is_empty());
    }

    #[test]
    fn only_those_that_are_due_are_visited_the_first_due_first() {
        let mut roster = roster([Some(30), Some(10), Some(20)]);
        assert_eq!(roster.next_wakeup(), Some(Instant(10)));
        assert_eq!(roster.take_due(Instant(9)), []);
        assert_eq!(roster.take_due(Instant(20)), [B, C]);
        roster.visit(B, |at| at.0 = Some(40));
        roster.visit(C, |at| at.0 = None);
        assert_eq!(roster.next_wakeup(), Some(Instant(30)));
        assert_eq!(roster.take_due(Instant(99)), [A, B]);
    }

    #[test]
    fn what_happens_moves_the_wake_up_at_once() {
        let mut roster = roster([Some(30), Some(50), None]);
        roster.touch(A, |at| at.0 = Some(60));
        assert_eq!(roster.next_wakeup(), Some(Instant(50)), "the old one is forgotten");
        roster.touch(C, |at| at.0 = Some(5));
        assert_eq!(roster.next_wakeup(), Some(Instant(5)), "the new one counts before the visit");
        assert_eq!(roster.take_due(Instant(55)), [A, C, B], "touched ones first");
    }

    #[test]
    fn whoever_is_gone_is_not_visited() {
        let mut roster = roster([Some(10), None, None]);
        roster.touch(B, |_| ()).unwrap();
        assert!(roster.remove(A).is_some() && roster.remove(B).is_some() && roster.remove(B).is_none());
        assert_eq!((roster.next_wakeup(), roster.take_due(Instant(20))), (None, vec![]));
        assert!(roster.touch(A, |_| ()).is_none() && roster.visit(A, |_| ()).is_none());
        assert_eq!((roster.len(), roster.ids()), (1, vec![C]));
    }

    #[test]
    fn turns_pass_over_those_that_are_not_ready_and_keep_their_place() {
        let mut turns = Turns::default();
        [3, 1, 2, 1].into_iter().for_each(|id| turns.push(id));
        assert_eq!(turns.pop(|id| id != 3), Some(1));
        turns.push(1);
        assert_eq!(turns.pop(|id| id == 9), None);
        turns.remove(2);
        assert_eq!(turns.take(), [3, 1]);
        assert!(turns.is_empty() && !turns.contains(3));
    }
}
