//! Where the blocks of a logical volume lie on the physical disks.
//!
//! Keeps true: every logical block has exactly one place, and no two blocks share one (a layout that
//! would break this is refused when the system is made). Not here: what is on the disks.

use crate::block::address::{BlockCount, Lba};

/// A range of one physical disk, in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DiskRange {
    pub(super) disk: usize,
    pub(super) start: u64,
    pub(super) count: u64,
}

impl DiskRange {
    fn overlaps(&self, other: &Self) -> bool {
        self.disk == other.disk
            && self.start < other.start.saturating_add(other.count)
            && other.start < self.start.saturating_add(self.count)
    }
}

/// How the ranges make up the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Arrangement {
    /// One after the other; `starts` holds the first logical block of each.
    Concatenated { starts: Vec<u64> },
    /// In turns of `unit` blocks. Every range has whole units, and the same number of them.
    Striped { unit: u64 },
}

/// The place of a logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) ranges: Vec<DiskRange>,
    pub(super) arrangement: Arrangement,
    pub(super) count: BlockCount,
}

/// A run of blocks that lie together on one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) disk: usize,
    pub(super) disk_lba: u64,
    pub(super) logical: u64,
    pub(super) count: u64,
}

impl Layout {
    /// The ranges one after the other.
    pub(super) fn concatenated(ranges: Vec<DiskRange>) -> Self {
        let mut next = 0_u64;
        let mut starts = Vec::with_capacity(ranges.len());
        for range in &ranges {
            starts.push(next);
            next = next.saturating_add(range.count);
        }
        Self { ranges, arrangement: Arrangement::Concatenated { starts }, count: BlockCount(next) }
    }

    /// The ranges in turns of `unit` blocks, which must divide the length that all ranges have.
    pub(super) fn striped(ranges: Vec<DiskRange>, unit: u64) -> Self {
        let count = ranges.iter().fold(0_u64, |sum, range| sum.saturating_add(range.count));
        Self { ranges, arrangement: Arrangement::Striped { unit }, count: BlockCount(count) }
    }

    /// Two ranges, of this and another layout or both of this, that share a block.
    pub(super) fn shares_with(&self, other: &Self) -> bool {
        self.ranges.iter().any(|one| other.ranges.iter().any(|range| one.overlaps(range)))
    }

    /// Whether two ranges of this layout share a block.
    pub(super) fn shares_with_itself(&self) -> bool {
        let ranges = &self.ranges;
        (1..ranges.len()).any(|i| ranges[..i].iter().any(|earlier| earlier.overlaps(&ranges[i])))
    }

    /// The run that starts at `lba` and ends before `end`, which lies inside the volume.
    fn run_at(&self, lba: u64, end: u64) -> Run {
        let (index, offset, longest) = match &self.arrangement {
            Arrangement::Concatenated { starts } => {
                let index = starts.partition_point(|start| *start <= lba) - 1;
                let offset = lba - starts[index];
                (index, offset, self.ranges[index].count - offset)
            }
            Arrangement::Striped { unit } => {
                let columns = self.ranges.len() as u64;
                let (stripe, within) = (lba / unit, lba % unit);
                let index = usize::try_from(stripe % columns).expect("below the number of ranges");
                (index, stripe / columns * unit + within, unit - within)
            }
        };
        let range = self.ranges[index];
        Run { disk: range.disk, disk_lba: range.start + offset, logical: lba, count: longest.min(end - lba) }
    }

    /// The runs of `count` blocks from `lba` on, in logical order; cut at the end of the volume.
    pub(super) fn runs(&self, lba: Lba, count: BlockCount) -> impl Iterator<Item = Run> + '_ {
        let end = lba.0.saturating_add(count.0).min(self.count.0);
        let mut next = lba.0;
        std::iter::from_fn(move || {
            (next < end).then(|| {
                let run = self.run_at(next, end);
                next += run.count;
                run
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::{Strategy, any, prop_oneof, proptest};

    use super::*;

    fn layouts() -> impl Strategy<Value = Layout> {
        let concatenated = proptest::collection::vec((0..3_usize, 1..50_u64), 1..8).prop_map(|pieces| {
            let mut free = [0; 3];
            let ranges = pieces.into_iter().map(|(disk, count)| {
                let start = free[disk];
                free[disk] += count;
                DiskRange { disk, start, count }
            });
            Layout::concatenated(ranges.collect())
        });
        let striped =
            (1..5_usize, 1..9_u64, 1..10_u64, any::<u16>()).prop_map(|(columns, unit, rows, at)| {
                let range = |disk| DiskRange { disk, start: u64::from(at), count: unit * rows };
                Layout::striped((0..columns).map(range).collect(), unit)
            });
        prop_oneof![concatenated, striped]
    }

    proptest! {
        #[test]
        fn every_block_has_one_place_and_no_two_share_one(layout in layouts()) {
            assert!(!layout.shares_with_itself());
            let mut places = HashSet::new();
            for lba in 0..layout.count.0 {
                let runs: Vec<_> = layout.runs(Lba(lba), BlockCount(1)).collect();
                let [run] = runs[..] else { panic!("block {lba} has {} places", runs.len()) };
                assert_eq!((run.logical, run.count), (lba, 1));
                let range = |range: &&DiskRange| range.disk == run.disk
                    && (range.start..range.start + range.count).contains(&run.disk_lba);
                assert_eq!(layout.ranges.iter().filter(range).count(), 1);
                assert!(places.insert((run.disk, run.disk_lba)), "block {lba} shares its place");
            }
        }

        #[test]
        fn a_range_has_the_places_of_its_blocks(layout in layouts(), from in 0..400_u64, count in 0..400_u64) {
            let mut expected = from;
            for run in layout.runs(Lba(from), BlockCount(count)) {
                assert_eq!(run.logical, expected);
                for step in 0..run.count {
                    let one = layout.runs(Lba(run.logical + step), BlockCount(1)).next().unwrap();
                    assert_eq!((one.disk, one.disk_lba), (run.disk, run.disk_lba + step));
                }
                expected += run.count;
            }
            assert_eq!(expected, (from + count).min(layout.count.0).max(from));
        }
    }

    #[test]
    fn shared_places_are_seen() {
        let range = |disk, start, count| DiskRange { disk, start, count };
        let one = Layout::concatenated(vec![range(0, 0, 10), range(1, 0, 10)]);
        for (other, shares) in [
            (range(0, 10, 5), false),
            (range(0, 9, 5), true),
            (range(1, 3, 1), true),
            (range(2, 0, 99), false),
        ] {
            assert_eq!(one.shares_with(&Layout::concatenated(vec![other])), shares, "{other:?}");
        }
        assert!(Layout::concatenated(vec![range(0, 0, 10), range(0, 9, 10)]).shares_with_itself());
    }
}
