//! Changes of names that are not durable yet, in order, and which of them a power loss keeps.
//!
//! What holds: a change is kept whole or not at all, so a renamed file has its old name or its new one,
//! never both and never neither; a change is kept only with the earlier ones of the same names, and the
//! removal of a directory only with those of all names in it. Nothing else is promised: any such subset may
//! be kept, and a sync of a directory makes its own entries durable, not the one it is found under.

use std::collections::BTreeSet;

use crate::chance::Chance;

/// A name in a directory, which is given by its inode.
pub(super) type Slot = (u64, Vec<u8>);

/// One step: a creation, a removal or a rename.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// The name that goes.
    pub(super) removed: Option<Slot>,
    /// The name that comes or gets another inode.
    pub(super) added: Option<Slot>,
    /// The inode of it: of the added name, else of the removed one.
    pub(super) inode: u64,
    /// What had the added name before.
    pub(super) replaced: Option<u64>,
    /// The removed name is that of a directory.
    pub(super) is_directory_removed: bool,
}

impl Change {
    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.removed.iter().chain(&self.added)
    }

    fn removed_directory(&self) -> Option<u64> {
        self.is_directory_removed.then_some(self.inode)
    }

    /// Inodes that a power loss may give a name again.
    pub(super) fn inodes(&self) -> impl Iterator<Item = u64> {
        [Some(self.inode), self.replaced].into_iter().flatten()
    }
}

/// The changes since the names were last durable.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes(Vec<Change>);

impl Changes {
    pub(super) fn push(&mut self, change: Change) {
        self.0.push(change);
    }

    /// Takes out, in order, what a sync of `directory` makes durable; of all directories where it is `None`.
    pub(super) fn take_synced(&mut self, directory: Option<u64>) -> Vec<Change> {
        let Some(directory) = directory else { return std::mem::take(&mut self.0) };
        let (mut slots, mut emptied) = (BTreeSet::new(), BTreeSet::new());
        let mut is_taken = vec![false; self.0.len()];
        for (change, is_taken) in self.0.iter().zip(&mut is_taken).rev() {
            let is_needed =
                |slot: &Slot| slot.0 == directory || slots.contains(slot) || emptied.contains(&slot.0);
            if change.slots().any(is_needed) {
                *is_taken = true;
                slots.extend(change.slots().cloned());
                emptied.extend(change.removed_directory());
            }
        }
        let mut taken = is_taken.into_iter();
        self.0.extract_if(.., |_| taken.next().unwrap_or_default()).collect()
    }

    /// Power loss: takes out, in order, what is kept, each with `kept` in a million; the rest is forgotten.
    pub(super) fn crash(&mut self, chance: &mut Chance, kept: u32) -> Vec<Change> {
        let (mut slots, mut directories) = (BTreeSet::new(), BTreeSet::new());
        let mut changes = std::mem::take(&mut self.0);
        changes.retain(|change| {
            let is_possible = change.slots().all(|slot| !slots.contains(slot))
                && change.removed_directory().is_none_or(|inode| !directories.contains(&inode));
            let is_kept = chance.hits(kept) && is_possible;
            if !is_kept {
                slots.extend(change.slots().cloned());
                directories.extend(change.slots().map(|slot| slot.0));
            }
            is_kept
        });
        changes
    }
}
