//! Inodes and names of one simulated file system, each as it is now and as it is durable.
//!
//! What holds: an inode lives while it has a name now, a durable one, one that a power loss may bring back,
//! or is open. Not here: flags and handles (`file_system`), what a power loss keeps (`content`, `names`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use transfer_core::file_system::{Errno, FileKind, FileStat};

use super::IgnoredSync;
use super::content::Content;
use super::names::{Change, Changes, Slot};
use crate::chance::Chance;

/// Inode of the root.
pub(super) const ROOT: u64 = 1;
/// The simulated clock begins at this time since 1970.
const EPOCH_NS: u64 = 1_900_000_000_000_000_000;
/// Name of the folder of partial files.
const PARTIAL_FOLDER: &[u8] = b".diskwire-partial";
/// Names are never longer, bytes.
const NAME_BYTES_MAX: usize = 255;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) mtime: (i64, u32),
    pub(super) ctime: (i64, u32),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Folder {
    pub(super) current: BTreeMap<Vec<u8>, u64>,
    pub(super) durable: BTreeMap<Vec<u8>, u64>,
    pub(super) parent: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    File(Content),
    Folder(Folder),
    Link(Vec<u8>),
}

#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) body: Body,
    /// The name that it got last.
    name: Slot,
    pub(super) attributes: Attributes,
    durable_attributes: Attributes,
    /// Changes with every change of the content.
    pub(super) version: u64,
    /// Whether it has a name now.
    pub(super) is_linked: bool,
    /// Durable names, and names in changes that are not durable.
    kept: u32,
    opens: u32,
}

impl Inode {
    pub(super) fn is_folder(&self) -> bool {
        matches!(self.body, Body::Folder(_))
    }

    /// Whether nothing of its content was given up or is not yet written.
    fn is_content_durable(&self) -> bool {
        match &self.body {
            Body::File(content) => content.is_durable(),
            Body::Folder(_) | Body::Link(_) => true,
        }
    }

    /// Bytes that count against the space.
    fn space(&self) -> u64 {
        match &self.body {
            Body::File(content) => content.len() as u64,
            Body::Folder(_) | Body::Link(_) => 0,
        }
    }
}

/// Who has a file locked.
#[derive(Debug, Default)]
struct Lock {
    handles: BTreeSet<u64>,
    is_shared: bool,
}

/// One file system.
#[derive(Debug)]
pub(super) struct State {
    pub(super) device: u64,
    pub(super) inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    next_handle: u64,
    changes: Changes,
    /// Inodes whose content or attributes are not durable.
    dirty: BTreeSet<u64>,
    /// Which handles have the lock of an inode.
    locks: BTreeMap<u64, Lock>,
    /// Power losses; handles of an earlier life are dead.
    pub(super) boot: u64,
    pub(super) chance: Chance,
    world_time: Arc<AtomicU64>,
    last_time: u64,
    /// Bytes that fit, and the error when they do not.
    pub(super) space: Option<(u64, Errno)>,
    used: u64,
    /// So many syncs fail.
    pub(super) failing_syncs: u32,
    /// Syncs so far, and the one that fails.
    pub(super) syncs: u64,
    pub(super) failing_sync: Option<u64>,
    /// Writes so far, and the one from which on nothing fits.
    pub(super) writes: u64,
    pub(super) last_write: Option<u64>,
    /// Syncs that say they have done it and have not.
    pub(super) ignored: Option<IgnoredSync>,
    /// The power fails after so many changes and syncs; it has failed at 0.
    pub(super) power: Option<u64>,
}

impl State {
    pub(super) fn new(device: u64, chance: Chance, world_time: Arc<AtomicU64>) -> Self {
        let mut state = Self {
            device,
            inodes: BTreeMap::new(),
            next_inode: ROOT,
            next_handle: 0,
            changes: Changes::default(),
            dirty: BTreeSet::new(),
            locks: BTreeMap::new(),
            boot: 0,
            chance,
            world_time,
            last_time: 0,
            space: None,
            used: 0,
            failing_syncs: 0,
            syncs: 0,
            failing_sync: None,
            writes: 0,
            last_write: None,
            ignored: None,
            power: None,
        };
        let root = state.make(Body::Folder(Folder { parent: ROOT, ..Folder::default() }), 0o755);
        state.with(root).is_linked = true;
        state.with(root).kept = 1;
        state
    }

    pub(super) fn time_ns(&self) -> u64 {
        EPOCH_NS + self.last_time.max(self.world_time.load(Ordering::Relaxed))
    }

    pub(super) fn wall_ns(&self) -> u64 {
        EPOCH_NS + self.world_time.load(Ordering::Relaxed)
    }

    /// A time that no other change has.
    fn stamp(&mut self) -> (i64, u32) {
        self.last_time = self.world_time.load(Ordering::Relaxed).max(self.last_time + 1);
        let time = self.time_ns();
        let seconds = i64::try_from(time / 1_000_000_000).expect("a time of this century");
        (seconds, u32::try_from(time % 1_000_000_000).expect("below a second"))
    }

    pub(super) fn inode(&self, number: u64) -> &Inode {
        self.inodes.get(&number).expect("an inode lives while it is open or has a name")
    }

    pub(super) fn with(&mut self, number: u64) -> &mut Inode {
        self.inodes.get_mut(&number).expect("an inode lives while it is open or has a name")
    }

    /// The content of something that is open as a file.
    pub(super) fn content(&mut self, number: u64) -> Result<&mut Content, Errno> {
        match &mut self.with(number).body {
            Body::File(content) => Ok(content),
            Body::Folder(_) => Err(Errno::ISDIR),
            Body::Link(_) => Err(Errno::INVAL),
        }
    }

    pub(super) fn folder(&self, number: u64) -> Result<&Folder, Errno> {
        match &self.inode(number).body {
            Body::Folder(folder) => Ok(folder),
            Body::File(_) | Body::Link(_) => Err(Errno::NOTDIR),
        }
    }

    fn folder_mut(&mut self, number: u64) -> &mut Folder {
        match &mut self.with(number).body {
            Body::Folder(folder) => folder,
            Body::File(_) | Body::Link(_) => unreachable!("names lie in directories"),
        }
    }

    pub(super) fn find(&self, directory: u64, name: &[u8]) -> Result<u64, Errno> {
        self.check_name(directory, name)?;
        self.folder(directory)?.current.get(name).copied().ok_or(Errno::NOENT)
    }

    /// Whether a directory can have such a name. One that was removed has none, whatever its length: the
    /// kernel looks at the directory first.
    fn check_name(&self, directory: u64, name: &[u8]) -> Result<(), Errno> {
        self.folder(directory)?;
        if !self.inode(directory).is_linked {
            return Err(Errno::NOENT);
        }
        if name.len() > NAME_BYTES_MAX { Err(Errno::NAMETOOLONG) } else { Ok(()) }
    }

    pub(super) fn stat(&self, number: u64) -> FileStat {
        let inode = self.inode(number);
        let (kind, size) = match &inode.body {
            Body::File(content) => (FileKind::File, content.len()),
            Body::Folder(folder) => (FileKind::Directory, folder.current.len()),
            Body::Link(target) => (FileKind::Link, target.len()),
        };
        let Attributes { mode, owner, mtime, ctime } = inode.attributes;
        FileStat {
            kind,
            device: self.device,
            inode: number,
            size: size as u64,
            mode,
            user: owner.0,
            group: owner.1,
            mtime_s: mtime.0,
            mtime_ns: mtime.1,
            ctime_s: ctime.0,
            ctime_ns: ctime.1,
        }
    }

    // ---- names ----------------------------------------------------------------------------------

    /// An inode without a name.
    fn make(&mut self, body: Body, mode: u32) -> u64 {
        let number = self.next_inode;
        self.next_inode += 1;
        let time = self.stamp();
        let attributes = Attributes { mode, owner: (0, 0), mtime: time, ctime: time };
        let inode = Inode {
            body,
            name: (ROOT, Vec::new()),
            attributes,
            durable_attributes: attributes,
            version: 0,
            is_linked: false,
            kept: 0,
            opens: 0,
        };
        self.inodes.insert(number, inode);
        number
    }

    /// Makes something with a name.
    pub(super) fn create(
        &mut self,
        directory: u64,
        name: &[u8],
        body: Body,
        mode: u32,
    ) -> Result<u64, Errno> {
        self.check_name(directory, name)?;
        if self.folder(directory)?.current.contains_key(name) {
            return Err(Errno::EXIST);
        }
        let inode = self.make(body, mode);
        self.change(Change {
            removed: None,
            added: Some((directory, name.to_vec())),
            inode,
            replaced: None,
            is_directory_removed: false,
        });
        Ok(inode)
    }

    pub(super) fn remove(&mut self, directory: u64, name: &[u8], is_folder: bool) -> Result<(), Errno> {
        let inode = self.find(directory, name)?;
        match (&self.inode(inode).body, is_folder) {
            (Body::Folder(folder), true) if !folder.current.is_empty() => return Err(Errno::NOTEMPTY),
            (Body::Folder(_), false) => return Err(Errno::ISDIR),
            (Body::File(_) | Body::Link(_), true) => return Err(Errno::NOTDIR),
            _ => {}
        }
        self.change(Change {
            removed: Some((directory, name.to_vec())),
            added: None,
            inode,
            replaced: None,
            is_directory_removed: is_folder,
        });
        Ok(())
    }

    /// Files and links only: nothing here renames a directory.
    pub(super) fn rename(&mut self, from: Slot, to: Slot, no_replace: bool) -> Result<(), Errno> {
        self.folder(from.0)?;
        self.folder(to.0)?;
        let inode = self.find(from.0, &from.1)?;
        self.check_name(to.0, &to.1)?;
        let replaced = self.folder(to.0)?.current.get(&to.1).copied();
        if replaced.is_some() && no_replace {
            return Err(Errno::EXIST);
        }
        if self.inode(inode).is_folder() {
            return Err(Errno::OPNOTSUPP);
        }
        if let Some(replaced) = replaced.filter(|replaced| self.inode(*replaced).is_folder()) {
            let is_above = self.is_above(replaced, from.0);
            return Err(if is_above { Errno::NOTEMPTY } else { Errno::ISDIR });
        }
        if replaced != Some(inode) {
            let (removed, added) = (Some(from), Some(to));
            self.change(Change { removed, added, inode, replaced, is_directory_removed: false });
        }
        Ok(())
    }

    /// Whether a directory is `below` or one that it lies in.
    fn is_above(&self, directory: u64, mut below: u64) -> bool {
        while below != directory && below != ROOT {
            below = self.folder(below).map_or(ROOT, |folder| folder.parent);
        }
        below == directory
    }

    /// Carries out a change of names now, and notes it as not durable.
    fn change(&mut self, change: Change) {
        let time = self.stamp();
        if let Some((directory, name)) = &change.removed {
            self.folder_mut(*directory).current.remove(name);
            self.touch(*directory, time);
            self.with(change.inode).is_linked = false;
        }
        if let Some((directory, name)) = &change.added {
            self.folder_mut(*directory).current.insert(name.clone(), change.inode);
            self.touch(*directory, time);
            let inode = self.with(change.inode);
            inode.is_linked = true;
            inode.name = (*directory, name.clone());
            if let Some(replaced) = change.replaced {
                self.with(replaced).is_linked = false;
            }
        }
        self.with(change.inode).attributes.ctime = time;
        self.dirty.insert(change.inode);
        for inode in change.inodes() {
            self.with(inode).kept += 1;
            self.free(inode);
        }
        self.changes.push(change);
    }

    fn touch(&mut self, directory: u64, time: (i64, u32)) {
        let attributes = &mut self.with(directory).attributes;
        (attributes.mtime, attributes.ctime) = (time, time);
        self.dirty.insert(directory);
    }

    /// These changes, in order, are durable.
    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            for slot in change.removed.iter().chain(&change.added) {
                // The directory itself may have gone, with all that was in it.
                let Some(Inode { body: Body::Folder(folder), .. }) = self.inodes.get_mut(&slot.0) else {
                    continue;
                };
                let before = if change.added.as_ref() == Some(slot) {
                    folder.durable.insert(slot.1.clone(), change.inode)
                } else {
                    folder.durable.remove(&slot.1)
                };
                if change.added.as_ref() == Some(slot) {
                    self.with(change.inode).kept += 1;
                }
                if let Some(before) = before {
                    self.with(before).kept -= 1;
                }
            }
            for inode in change.inodes() {
                self.with(inode).kept -= 1;
                self.collect(inode);
            }
        }
    }

    /// An inode that lost its last name frees its space when nobody has it open.
    fn free(&mut self, number: u64) {
        let inode = self.inode(number);
        if !inode.is_linked && inode.opens == 0 {
            self.used = self.used.saturating_sub(inode.space());
        }
    }

    /// Forgets an inode that nothing can bring back.
    fn collect(&mut self, number: u64) {
        let Some(inode) = self.inodes.get(&number) else { return };
        if !inode.is_linked && inode.opens == 0 && inode.kept == 0 {
            let gone = self.inodes.remove(&number);
            self.dirty.remove(&number);
            if let Some(Inode { body: Body::Folder(folder), .. }) = gone {
                for inode in folder.durable.into_values() {
                    self.with(inode).kept -= 1;
                    self.collect(inode);
                }
            }
        }
    }

    /// Before a change: whether there is still power for it.
    pub(super) fn use_power(&mut self) -> Result<(), Errno> {
        match &mut self.power {
            None => Ok(()),
            Some(0) => Err(Errno::IO),
            Some(left) => {
                *left -= 1;
                if *left == 0 { Err(Errno::IO) } else { Ok(()) }
            }
        }
    }

    // ---- handles and locks ----------------------------------------------------------------------

    pub(super) fn opened(&mut self, inode: u64) -> u64 {
        self.with(inode).opens += 1;
        self.next_handle += 1;
        self.next_handle
    }

    pub(super) fn closed(&mut self, inode: u64, handle: u64) {
        if let Some(lock) = self.locks.get_mut(&inode) {
            lock.handles.remove(&handle);
            if lock.handles.is_empty() {
                self.locks.remove(&inode);
            }
        }
        self.with(inode).opens -= 1;
        self.free(inode);
        self.collect(inode);
    }

    pub(super) fn lock(&mut self, inode: u64, handle: u64, is_shared: bool) -> Result<(), Errno> {
        let lock = self.locks.entry(inode).or_default();
        // What it has is given up first, as flock does.
        lock.handles.remove(&handle);
        let is_free = lock.handles.is_empty() || is_shared && lock.is_shared;
        if !is_free {
            return Err(Errno::WOULDBLOCK);
        }
        lock.handles.insert(handle);
        lock.is_shared = is_shared;
        Ok(())
    }

    // ---- content and attributes -----------------------------------------------------------------

    /// How much of `wanted` bytes more there is room for.
    pub(super) fn room(&self, wanted: u64) -> Result<u64, Errno> {
        let Some((bytes, errno)) = self.space else { return Ok(wanted) };
        match bytes.saturating_sub(self.used).min(wanted) {
            0 if wanted > 0 => Err(errno),
            room => Ok(room),
        }
    }

    /// One more write is tried.
    pub(super) fn count_write(&mut self) {
        self.writes += 1;
        if self.last_write == Some(self.writes) {
            self.space = Some((self.used, Errno::NOSPC));
        }
    }

    /// Changes the content of a file.
    pub(super) fn change_content(
        &mut self,
        number: u64,
        change: impl FnOnce(&mut Content),
    ) -> Result<(), Errno> {
        let time = self.stamp();
        let content = self.content(number)?;
        let before = content.len() as u64;
        change(content);
        let after = content.len() as u64;
        self.used = (self.used + after).saturating_sub(before);
        self.touch(number, time);
        self.with(number).version += 1;
        Ok(())
    }

    pub(super) fn change_attributes(&mut self, number: u64, change: impl FnOnce(&mut Attributes)) {
        let time = self.stamp();
        let attributes = &mut self.with(number).attributes;
        change(attributes);
        attributes.ctime = time;
        self.dirty.insert(number);
    }

    // ---- durability -----------------------------------------------------------------------------

    fn may_sync(&mut self) -> bool {
        self.syncs += 1;
        let may = self.failing_syncs == 0 && self.failing_sync != Some(self.syncs);
        self.failing_syncs = self.failing_syncs.saturating_sub(1);
        may
    }

    /// Whether a sync does nothing, because it is of the kind that this file system was told to ignore.
    fn is_ignored(&self, number: u64) -> bool {
        let Some(ignored) = self.ignored else { return false };
        let inode = self.inode(number);
        let is_partial = |name: &Slot| name.1 == PARTIAL_FOLDER;
        let is_of_state = inode.name.1.ends_with(b"journal")
            || inode.name.0 != ROOT && {
                self.inodes.get(&inode.name.0).is_some_and(|above| above.name.1 == b"jobs")
            };
        match (ignored, inode.is_folder()) {
            (IgnoredSync::State, false) => is_of_state,
            (IgnoredSync::Content, false) => !is_of_state,
            (IgnoredSync::PartialFolder, true) => is_partial(&inode.name),
            (IgnoredSync::Directories, true) => !is_partial(&inode.name),
            _ => false,
        }
    }

    pub(super) fn sync(&mut self, number: u64, with_attributes: bool) -> Result<(), Errno> {
        if self.is_ignored(number) {
            return Ok(());
        }
        let may = self.may_sync();
        let inode = self.with(number);
        match &mut inode.body {
            Body::File(content) if may => content.sync(),
            Body::File(content) => content.give_up(),
            Body::Folder(_) | Body::Link(_) => {}
        }
        if !may {
            return Err(Errno::IO);
        }
        let (is_folder, is_durable) = (inode.is_folder(), inode.is_content_durable());
        if with_attributes || is_folder {
            inode.durable_attributes = inode.attributes;
            if is_durable {
                self.dirty.remove(&number);
            }
        }
        if is_folder {
            let taken = self.changes.take_synced(Some(number));
            self.apply(taken);
        }
        Ok(())
    }

    pub(super) fn sync_everything(&mut self) -> Result<(), Errno> {
        if self.ignored.is_some() {
            return Ok(());
        }
        let may = self.may_sync();
        let dirty = if may { std::mem::take(&mut self.dirty) } else { self.dirty.clone() };
        for number in dirty {
            let Some(inode) = self.inodes.get_mut(&number) else { continue };
            match &mut inode.body {
                Body::File(content) if may => content.sync(),
                Body::File(content) => content.give_up(),
                Body::Folder(_) | Body::Link(_) => {}
            }
            if may {
                inode.durable_attributes = inode.attributes;
                if !inode.is_content_durable() {
                    self.dirty.insert(number);
                }
            }
        }
        if !may {
            return Err(Errno::IO);
        }
        let taken = self.changes.take_synced(None);
        self.apply(taken);
        Ok(())
    }

    /// The host loses its power and comes back: every handle and lock is gone, and of everything that was
    /// not durable a part.
    pub(super) fn crash(&mut self, chance: &mut Chance) {
        const RATES: [u32; 5] = [0, 100_000, 500_000, 900_000, 1_000_000];
        let (names, data, attributes) = (*chance.pick(&RATES), *chance.pick(&RATES), *chance.pick(&RATES));
        self.boot += 1;
        self.power = None;
        self.locks.clear();
        let kept = self.changes.crash(chance, names);
        let mut durable: BTreeMap<u64, BTreeMap<Vec<u8>, u64>> = BTreeMap::new();
        for (number, inode) in &mut self.inodes {
            if let Body::Folder(folder) = &mut inode.body {
                durable.insert(*number, std::mem::take(&mut folder.durable));
            }
        }
        for change in kept {
            if let Some((directory, name)) = &change.removed {
                durable.get_mut(directory).and_then(|names| names.remove(name));
            }
            if let (Some((directory, name)), inode) = (change.added, change.inode) {
                durable.entry(directory).or_default().insert(name, inode);
            }
        }
        let mut reached = BTreeMap::new();
        let mut next = vec![ROOT];
        while let Some(number) = next.pop() {
            let mut inode = self.inodes.remove(&number).expect("a name that may come back keeps its inode");
            if let Body::Folder(folder) = &mut inode.body {
                let names = durable.remove(&number).unwrap_or_default();
                next.extend(names.values());
                (folder.current, folder.durable) = (names.clone(), names);
            }
            (inode.is_linked, inode.kept, inode.opens) = (true, 1, 0);
            reached.insert(number, inode);
        }
        self.inodes = reached;
        self.used = 0;
        for number in self.inodes.keys().copied().collect::<Vec<_>>() {
            let is_dirty = self.dirty.remove(&number);
            let inode = self.with(number);
            if is_dirty {
                inode.crash(chance, data, attributes);
            }
            self.used += self.inode(number).space();
        }
        self.dirty.clear();
    }
}

impl Inode {
    fn crash(&mut self, chance: &mut Chance, data: u32, attributes: u32) {
        if let Body::File(content) = &mut self.body
            && content.crash(chance, data)
        {
            self.version += 1;
        }
        let durable = self.durable_attributes;
        if !chance.hits(attributes) {
            self.attributes.mode = durable.mode;
        }
        if !chance.hits(attributes) {
            self.attributes.owner = durable.owner;
        }
        if !chance.hits(attributes) {
            (self.attributes.mtime, self.attributes.ctime) = (durable.mtime, durable.ctime);
        }
        self.durable_attributes = self.attributes;
    }
}
