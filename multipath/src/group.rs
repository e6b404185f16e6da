//! Priority groups: of the paths that can be used, the ones that are.
//!
//! Paths of equal priority are a group. The device uses one group at a time: the best one that has a usable path.
//! It leaves it when no path of it is left, and goes back to a better one as [`Failback`] says.
//!
//! ```text
//!   priority 50   A  B     usable    ◀── current
//!   priority 10   C        usable        used when neither A nor B is
//!   priority  1   D        failed
//! ```
//!
//! Keeps true: while any path is usable there is a current group, and only usable paths are in it; between two
//! changes of what is usable the group changes only by [`Failback::After`] or an operator. Not here: which paths are
//! usable (`failover`), which one of the group is next (`selector`).

use std::time::Duration;

use storage_mapping::{Instant, PathIndex};

use crate::path_state::{PATH_COUNT_MAX, PathSet};

/// When the device goes back to a better group that has a usable path again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failback {
    /// At once.
    #[default]
    Immediate,
    /// When the group has been usable for so long without a break.
    After(Duration),
    /// When an operator says so, or no path of the current group is left.
    Manual,
}

/// The group in use, and when that changes.
#[derive(Clone, Debug)]
pub struct Groups {
    /// Of each path: more is better.
    priorities: Vec<u16>,
    failback: Failback,
    usable: PathSet,
    current: PathSet,
    /// Since when a better group has been usable.
    better_since: Option<Instant>,
    switches: u64,
}

impl Groups {
    /// Paths of these priorities, all of them usable.
    ///
    /// # Panics
    /// For more paths than a set can hold.
    #[must_use]
    pub fn new(priorities: Vec<u16>, failback: Failback) -> Self {
        assert!(priorities.len() <= PATH_COUNT_MAX, "a set of paths holds no more");
        let usable: PathSet = (0..priorities.len()).map(PathIndex).collect();
        let current = PathSet::EMPTY;
        let mut groups = Self { priorities, failback, usable, current, better_since: None, switches: 0 };
        groups.current = groups.best(usable);
        groups
    }

    /// The paths to choose from: those of the current group that are usable.
    #[must_use]
    pub fn current(&self) -> PathSet {
        self.current
    }

    /// Every usable path.
    #[must_use]
    pub fn usable(&self) -> PathSet {
        self.usable
    }

    /// The priority of a path.
    #[must_use]
    pub fn priority(&self, path: PathIndex) -> u16 {
        self.priorities[path.0]
    }

    /// How often the group changed.
    #[must_use]
    pub fn switches(&self) -> u64 {
        self.switches
    }

    /// The best group among these paths: all of them that have the highest priority.
    #[must_use]
    pub fn best(&self, among: PathSet) -> PathSet {
        let best = among.iter().map(|path| self.priorities[path.0]).max();
        among.iter().filter(|path| Some(self.priorities[path.0]) == best).collect()
    }

    /// A path can be used, or no longer.
    pub fn set_usable(&mut self, now: Instant, path: PathIndex, is_usable: bool) {
        if is_usable {
            self.usable.insert(path);
        } else {
            self.usable.remove(path);
        }
        self.update(now);
    }

    /// The storage side says that a path is better or worse than before.
    pub fn set_priority(&mut self, now: Instant, path: PathIndex, priority: u16) {
        self.priorities[path.0] = priority;
        self.update(now);
    }

    /// An operator wants the group of this priority. Says whether it has a usable path; if not, nothing changes.
    pub fn switch_to(&mut self, priority: u16) -> bool {
        let group: PathSet = self.usable.iter().filter(|path| self.priorities[path.0] == priority).collect();
        if !group.is_empty() {
            self.enter(group);
            self.better_since = None;
        }
        !group.is_empty()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_timeout().is_some_and(|at| at <= now) {
            self.enter(self.best(self.usable));
            self.better_since = None;
        }
    }

    /// When the device goes back to a better group.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.failback {
            Failback::After(delay) => self.better_since.map(|since| since + delay),
            Failback::Immediate | Failback::Manual => None,
        }
    }

    /// The current group after a change, with the paths that came to it and without those that left.
    fn update(&mut self, now: Instant) {
        let best = self.best(self.usable);
        let priority = self.current.iter().map(|path| self.priorities[path.0]).max();
        let here = |path: &PathIndex| Some(self.priorities[path.0]) == priority;
        let rest: PathSet = self.usable.iter().filter(here).collect();
        if rest.is_empty() || rest == best || self.failback == Failback::Immediate {
            self.better_since = None;
            return self.enter(best);
        }
        self.current = rest;
        self.better_since = self.better_since.or(Some(now));
    }

    fn enter(&mut self, group: PathSet) {
        let priority_of = |set: PathSet| set.iter().map(|path| self.priorities[path.0]).max();
        let is_switch = !group.is_empty() && !self.current.is_empty() && {
            self.current.iter().all(|path| !group.contains(path))
                && priority_of(group) != priority_of(self.current)
        };
        self.switches += u64::from(is_switch);
        self.current = group;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ZERO;

    fn paths(list: &[usize]) -> PathSet {
        list.iter().copied().map(PathIndex).collect()
    }

    fn groups(failback: Failback) -> Groups {
        Groups::new(vec![50, 50, 10, 1], failback)
    }

    #[test]
    fn the_best_group_with_a_usable_path_is_used() {
        let mut groups = groups(Failback::Immediate);
        assert_eq!(groups.current(), paths(&[0, 1]));
        groups.set_usable(NOW, PathIndex(0), false);
        assert_eq!((groups.current(), groups.switches()), (paths(&[1]), 0));
        groups.set_usable(NOW, PathIndex(1), false);
        assert_eq!((groups.current(), groups.switches()), (paths(&[2]), 1));
        groups.set_usable(NOW, PathIndex(2), false);
        assert_eq!((groups.current(), groups.switches()), (paths(&[3]), 2));
        groups.set_usable(NOW, PathIndex(3), false);
        assert_eq!(groups.current(), PathSet::EMPTY);
        groups.set_usable(NOW, PathIndex(1), true);
        assert_eq!(groups.current(), paths(&[1]));
        assert_eq!(groups.best(paths(&[2, 3])), paths(&[2]));
    }

    #[test]
    fn failback_is_at_once_or_later_or_never() {
        let delay = Duration::from_secs(60);
        let lose_and_regain = |failback| {
            let mut groups = groups(failback);
            for path in [0, 1] {
                groups.set_usable(NOW, PathIndex(path), false);
            }
            groups.set_usable(NOW, PathIndex(1), true);
            groups
        };
        assert_eq!(lose_and_regain(Failback::Immediate).current(), paths(&[1]));
        let mut later = lose_and_regain(Failback::After(delay));
        assert_eq!((later.current(), later.next_timeout()), (paths(&[2]), Some(NOW + delay)));
        later.handle_timeout(NOW + delay / 2);
        assert_eq!(later.current(), paths(&[2]));
        later.handle_timeout(NOW + delay);
        assert_eq!((later.current(), later.next_timeout()), (paths(&[1]), None));
        let mut manual = lose_and_regain(Failback::Manual);
        assert_eq!((manual.current(), manual.next_timeout()), (paths(&[2]), None));
        assert!(manual.switch_to(50) && !manual.switch_to(7));
        assert_eq!(manual.current(), paths(&[1]));
    }

    #[test]
    fn a_better_group_that_goes_again_starts_its_delay_anew() {
        let delay = Duration::from_secs(60);
        let mut groups = groups(Failback::After(delay));
        for path in [0, 1] {
            groups.set_usable(NOW, PathIndex(path), false);
        }
        groups.set_usable(NOW, PathIndex(0), true);
        let half = NOW + delay / 2;
        groups.set_usable(half, PathIndex(0), false);
        assert_eq!(groups.next_timeout(), None);
        groups.set_usable(half, PathIndex(1), true);
        groups.set_usable(half, PathIndex(0), true);
        assert_eq!(groups.next_timeout(), Some(half + delay));
    }

    #[test]
    fn a_path_whose_priority_changes_changes_its_group() {
        let mut groups = groups(Failback::Immediate);
        groups.set_priority(NOW, PathIndex(3), 60);
        assert_eq!((groups.current(), groups.switches()), (paths(&[3]), 1));
        groups.set_priority(NOW, PathIndex(3), 50);
        assert_eq!((groups.current(), groups.priority(PathIndex(3))), (paths(&[0, 1, 3]), 50));
        let mut manual = Groups::new(vec![50, 10], Failback::Manual);
        manual.set_priority(NOW, PathIndex(1), 90);
        assert_eq!(manual.current(), paths(&[0]), "nobody asked for the better one");
    }
}
