//! The ghost-write fence: no old copy of a write lands on newer data.
//!
//! A write that was given up on may still be held by a target, a relay or a queue, and land later. Sent again over
//! another path it is done; but when the caller then writes the same blocks once more, the old copy may land on
//! top of that, and acknowledged data are gone:
//!
//! ```text
//!          path A                       path B               medium
//!   t0     X=1 sent, hangs                                      0
//!   t1     given up on                  X=1 again, done         1
//!   t2                                  X=2, done               2
//!   t3     the first copy lands                                 1    (X=2 was acknowledged)
//! ```
//!
//! The fence holds the X=2 of t2 until the copy on path A is *dead*: its own response came, it was withdrawn before
//! its first byte left, the path proved it, or its quiesce time passed (an assumption, and counted as one).
//!
//! Keeps true, for all writes but those whose sender asked for [`FencePolicy::Unsafe`]:
//!
//! * (F1) two writes to overlapping blocks are never on their way at the same time;
//! * (F2) no write sets out while an older copy of *another* write to one of its blocks may land;
//! * (F3) of overlapping writes, those submitted first go first.
//!
//! Why that is enough: let a copy of W land after W' was acknowledged, both to one block, W' not unsafe. W' was
//! submitted after W (else F1 and F3 make W wait for W'). If W was still on its way, F1 held W'; if W had ended, its
//! copy was living, and F2 held W'. W' went when the copy was dead. So the copy was dead and landed: only a wrong
//! assumption of the quiesce time is left, and [`Fence::late_landings`] counts those that were seen.
//! It is valid only if no other host writes the blocks. Unsafe writes neither wait nor make others wait while they
//! are on their way; a copy of theirs that may land holds the writes of others.
//!
//! Source: NVMe 2.1 section 9.6 (*command quiesce*) has the same problem and a time for it; FIG. 15 has none.
//! Not here: whether a write is sent again (`failover`), and who sends it (`multipath_device`).

use std::collections::VecDeque;

use storage_mapping::{FencePolicy, Instant, IoTag, Lba, PathIndex};

/// Blocks from `start` up to, not including, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRange {
    start: u64,
    end: u64,
}

impl BlockRange {
    /// `count` blocks from `lba` on.
    #[must_use]
    pub fn new(lba: Lba, count: u64) -> Self {
        Self { start: lba.0, end: lba.0.saturating_add(count) }
    }

    /// The first block.
    #[must_use]
    pub fn first(self) -> Lba {
        Lba(self.start)
    }

    /// How many blocks.
    #[must_use]
    pub fn count(self) -> u64 {
        self.end - self.start
    }

    /// Whether the two have a block in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// A copy of a write that may still land.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LivingCopy {
    /// The submitter's name for the write, which may long be over.
    pub tag: IoTag,
    /// The path that it went over.
    pub path: PathIndex,
    /// What it would overwrite.
    pub range: BlockRange,
    /// When its quiesce time is over and it is assumed dead.
    pub assumed_dead_at: Instant,
    /// What its sender asked for.
    pub policy: FencePolicy,
    /// It was left by who had the device open before.
    pub is_inherited: bool,
}

/// A write that waits.
#[derive(Clone, Copy, Debug)]
struct Held {
    write: usize,
    range: BlockRange,
}

/// What is on its way, what may land, and what waits for it. Writes and attempts have their owner's numbers; that of an attempt
/// is never used again.
#[derive(Debug, Default)]
pub struct Fence {
    /// Writes that are on their way.
    claims: Vec<Held>,
    /// By the attempt that left the copy, and the write that made it if that still goes on.
    copies: Vec<(IoTag, Option<usize>, LivingCopy)>,
    /// Left by who had the device open before; nothing that comes back here proves them dead.
    inherited: Vec<LivingCopy>,
    /// In the order of their submission.
    held: VecDeque<Held>,
    /// A write may have become free.
    has_changed: bool,
    late_landings: u64,
    /// Changes of the set of living copies, those of unsafe writes left out.
    generation: u64,
}

impl Fence {
    /// A write comes in. Says whether it may go; if not it is held until [`Fence::next_free`] gives it.
    #[must_use]
    pub fn admit(&mut self, write: usize, range: BlockRange) -> bool {
        let claim = Held { write, range };
        let is_free = self.is_free(range) && self.held.iter().all(|held| !held.range.overlaps(range));
        if is_free {
            self.claim(claim);
        } else {
            self.held.push_back(claim);
        }
        is_free
    }

    /// Whether neither a write on its way nor a living copy is in the range.
    fn is_free(&self, range: BlockRange) -> bool {
        self.claims.iter().all(|claim| !claim.range.overlaps(range))
            && self.living_copies().all(|copy| !copy.range.overlaps(range))
    }

    fn claim(&mut self, claim: Held) {
        assert!(
            self.is_free(claim.range),
            "F1, F2: a write goes over nothing that is on its way or may land"
        );
        self.claims.push(claim);
    }

    /// The next held write that may go now; it is on its way then.
    pub fn next_free(&mut self) -> Option<usize> {
        if !std::mem::take(&mut self.has_changed) {
            return None;
        }
        let is_first = |at: usize, range: BlockRange| {
            self.held.iter().take(at).all(|earlier| !earlier.range.overlaps(range))
        };
        let free = |(at, held): &(usize, &Held)| self.is_free(held.range) && is_first(*at, held.range);
        let (at, _) = self.held.iter().enumerate().find(free)?;
        let held = self.held.remove(at)?;
        self.claim(held);
        // There may be more.
        self.has_changed = true;
        Some(held.write)
    }

    /// A write is over, whatever became of it, or is given back to its submitter.
    pub fn end(&mut self, write: usize) {
        if self.claims.is_empty() && self.copies.is_empty() && self.held.is_empty() {
            return;
        }
        let before = self.claims.len() + self.held.len();
        self.claims.retain(|claim| claim.write != write);
        self.held.retain(|held| held.write != write);
        self.has_changed |= self.claims.len() + self.held.len() < before;
        for (_, owner, _) in &mut self.copies {
            owner.take_if(|owner| *owner == write);
        }
    }

    /// Whether the write waits for others.
    #[must_use]
    pub fn holds(&self, write: usize) -> bool {
        self.held.iter().any(|held| held.write == write)
    }

    /// Writes that wait.
    #[must_use]
    pub fn held_count(&self) -> usize {
        self.held.len()
    }

    /// An attempt of a write left a copy that may land.
    pub fn doubt(&mut self, attempt: IoTag, write: Option<usize>, copy: LivingCopy) {
        assert!(self.copies.iter().all(|(known, _, _)| *known != attempt), "an attempt is one copy");
        self.note_change(&copy);
        self.copies.push((attempt, write, copy));
    }

    /// A copy that was left by who had the device open before. It holds overlapping writes until it is assumed dead.
    pub fn inherit(&mut self, copy: LivingCopy) {
        self.note_change(&copy);
        self.inherited.push(LivingCopy { is_inherited: true, ..copy });
    }

    /// Takes for dead the inherited copies whose time is over.
    pub fn expire_inherited(&mut self, now: Instant) {
        let before = self.inherited.len();
        self.inherited.retain(|copy| now < copy.assumed_dead_at);
        if self.inherited.len() < before {
            self.has_changed = true;
            self.generation += 1;
        }
    }

    /// The copy of an attempt is dead. Gives what it was and the write that still goes on, if it was living.
    pub fn settle(&mut self, attempt: IoTag) -> Option<(LivingCopy, Option<usize>)> {
        let at = self.copies.iter().position(|(known, _, _)| *known == attempt)?;
        let (_, write, copy) = self.copies.remove(at);
        self.note_change(&copy);
        self.has_changed = true;
        Some((copy, write))
    }

    /// The attempt of the next copy whose quiesce time is over.
    #[must_use]
    pub fn next_assumed_dead(&self, now: Instant) -> Option<IoTag> {
        let over = |(_, _, copy): &&(IoTag, Option<usize>, LivingCopy)| copy.assumed_dead_at <= now;
        self.copies.iter().find(over).map(|(attempt, _, _)| *attempt)
    }

    /// Whether a copy of this write may still land.
    #[must_use]
    pub fn is_in_doubt(&self, write: usize) -> bool {
        self.copies.iter().any(|(_, owner, _)| *owner == Some(write))
    }

    /// Whether another copy of a write that is over may land; `tag` is its submitter's.
    #[must_use]
    pub fn has_copy_of(&self, tag: IoTag) -> bool {
        self.copies.iter().any(|(_, owner, copy)| owner.is_none() && copy.tag == tag)
    }

    /// Every copy that may land.
    pub fn living_copies(&self) -> impl Iterator<Item = LivingCopy> {
        self.copies.iter().map(|(_, _, copy)| *copy).chain(self.inherited.iter().copied())
    }

    /// Grows with every change of the set of living copies. Those of [`FencePolicy::Unsafe`] do not count: they come and go
    /// with every transfer, and nobody needs to know of them later.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    fn note_change(&mut self, copy: &LivingCopy) {
        self.generation += u64::from(copy.policy != FencePolicy::Unsafe);
    }

    /// When the next copy is assumed dead; at once if a write may be free.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.has_changed && !self.held.is_empty() {
            return Some(Instant::ZERO);
        }
        self.living_copies().map(|copy| copy.assumed_dead_at).min()
    }

    /// A copy that had been assumed dead was done after all.
    pub fn count_late_landing(&mut self) {
        self.late_landings += 1;
    }

    /// Copies that were done after they had been assumed dead: the quiesce time of their path is too short.
    #[must_use]
    pub fn late_landings(&self) -> u64 {
        self.late_landings
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::{Strategy, any, prop_oneof, proptest};

    use super::*;

    fn range(start: u64, count: u64) -> BlockRange {
        BlockRange::new(Lba(start), count)
    }

    fn copy(start: u64, count: u64) -> LivingCopy {
        let assumed_dead_at = Instant::ZERO + Duration::from_secs(30);
        LivingCopy {
            tag: IoTag(0),
            path: PathIndex(0),
            range: range(start, count),
            assumed_dead_at,
            policy: FencePolicy::Fence,
            is_inherited: false,
        }
    }

    #[test]
    fn ranges_overlap_where_they_share_a_block() {
        assert!(range(3, 2).overlaps(range(4, 1)));
        assert!(!range(3, 2).overlaps(range(5, 1)));
        assert!(range(0, u64::MAX).overlaps(range(u64::MAX - 1, 9)));
        assert_eq!((range(3, 2).first(), range(3, 2).count()), (Lba(3), 2));
    }

    #[test]
    fn overlapping_writes_go_one_after_the_other_in_their_order() {
        let mut fence = Fence::default();
        assert!(fence.admit(1, range(0, 4)));
        assert!(!fence.admit(2, range(2, 4)));
        assert!(!fence.admit(3, range(5, 1)), "it may not overtake the one before it");
        assert!(fence.admit(4, range(6, 1)));
        assert_eq!((fence.next_free(), fence.held_count()), (None, 2));
        fence.end(1);
        assert_eq!(fence.next_timeout(), Some(Instant::ZERO));
        assert_eq!((fence.next_free(), fence.next_free()), (Some(2), None));
        assert!(fence.holds(3));
        fence.end(2);
        assert_eq!((fence.next_free(), fence.held_count()), (Some(3), 0));
    }

    #[test]
    fn a_living_copy_holds_what_overlaps_until_it_is_dead() {
        let mut fence = Fence::default();
        assert!(fence.admit(1, range(0, 4)));
        fence.doubt(IoTag(7), Some(1), copy(0, 4));
        assert!(fence.is_in_doubt(1));
        fence.end(1);
        assert!(!fence.is_in_doubt(1), "the number may be used again");
        assert!(!fence.admit(2, range(3, 1)));
        assert!(fence.admit(3, range(4, 1)));
        let dead_at = copy(0, 4).assumed_dead_at;
        assert_eq!((fence.next_free(), fence.next_assumed_dead(Instant::ZERO)), (None, None));
        assert_eq!((fence.next_timeout(), fence.next_assumed_dead(dead_at)), (Some(dead_at), Some(IoTag(7))));
        assert_eq!(fence.settle(IoTag(7)), Some((copy(0, 4), None)));
        assert_eq!(
            (fence.settle(IoTag(7)), fence.next_free(), fence.living_copies().count()),
            (None, Some(2), 0)
        );
    }

    #[test]
    fn who_waits_may_leave_and_lets_others_pass() {
        let mut fence = Fence::default();
        fence.doubt(IoTag(7), None, copy(0, 1));
        assert!(!fence.admit(1, range(0, 2)));
        assert!(!fence.admit(2, range(1, 1)));
        fence.end(1);
        assert_eq!((fence.next_free(), fence.next_free()), (Some(2), None));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, u64),
        End(usize),
        Doubt(usize),
        Settle(usize),
    }

    fn steps() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u64..8, 1_u64..4).prop_map(|(start, count)| Step::Write(start, count)),
            any::<usize>().prop_map(Step::End),
            any::<usize>().prop_map(Step::Doubt),
            any::<usize>().prop_map(Step::Settle),
        ]
    }

    proptest! {
        /// F1 to F3 after any steps, and nobody is forgotten: once all is over and dead, all have gone.
        #[test]
        fn the_promises_hold(steps in proptest::collection::vec(steps(), 0..60)) {
            let mut fence = Fence::default();
            let (mut all, mut gone, mut on_way, mut living) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            let take_free = |fence: &mut Fence, gone: &mut Vec<usize>, on_way: &mut Vec<usize>| {
                while let Some(write) = fence.next_free() {
                    gone.push(write);
                    on_way.push(write);
                }
            };
            let mut attempt = 0;
            for step in steps {
                match step {
                    Step::Write(start, count) => {
                        let write = all.len();
                        all.push(range(start, count));
                        if fence.admit(write, range(start, count)) {
                            gone.push(write);
                            on_way.push(write);
                        }
                    }
                    Step::End(which) if !on_way.is_empty() => {
                        let write = on_way.swap_remove(which % on_way.len());
                        fence.end(write);
                    }
                    Step::Doubt(which) if !on_way.is_empty() => {
                        let write: usize = on_way[which % on_way.len()];
                        attempt += 1;
                        fence.doubt(IoTag(attempt), Some(write), LivingCopy { range: all[write], ..copy(0, 1) });
                        living.push((attempt, write));
                    }
                    Step::Settle(which) if !living.is_empty() => {
                        let (attempt, _) = living.swap_remove(which % living.len());
                        assert!(fence.settle(IoTag(attempt)).is_some());
                    }
                    Step::End(_) | Step::Doubt(_) | Step::Settle(_) => {}
                }
                take_free(&mut fence, &mut gone, &mut on_way);
                for (at, a) in on_way.iter().enumerate() {
                    assert!(on_way[at + 1..].iter().all(|b| !all[*a].overlaps(all[*b])), "F1");
                    assert!(living.iter().all(|(_, b)| a == b || !all[*a].overlaps(all[*b])), "F2");
                }
                for (at, later) in gone.iter().enumerate() {
                    let earlier = gone[at + 1..].iter().filter(|write| *write < later);
                    assert!(earlier.into_iter().all(|write| !all[*write].overlaps(all[*later])), "F3");
                }
            }
            for (attempt, _) in living {
                fence.settle(IoTag(attempt));
            }
            while let Some(write) = on_way.pop() {
                fence.end(write);
                take_free(&mut fence, &mut gone, &mut on_way);
            }
            take_free(&mut fence, &mut gone, &mut on_way);
            while let Some(write) = on_way.pop() {
                fence.end(write);
                take_free(&mut fence, &mut gone, &mut on_way);
            }
            gone.sort_unstable();
            assert_eq!(gone, (0..all.len()).collect::<Vec<_>>());
        }
    }
}
