//! The receiver's journal: what was promised about each transfer id, in order, append-only.
//!
//! ```text
//! record: length u32 │ kind u8 │ time u64 │ transfer id 16 │ body │ BLAKE3 of all before, 16 bytes
//!   1 INTENT     inode u64, length u64, root 32, replace u8, target path
//!   2 COMMITTED  inode u64, length u64
//!   3 ABORTED    code u16
//! ```
//!
//! What holds: `append` returns only when the records are durable; after an error nothing is appended
//! any more; a torn tail is cut off at opening, so a record counts only if it is whole. An id is kept
//! for 7 days or while it is among the last 10,000, whichever is longer; INTENT is kept until its end.
//! Not here: what the entries mean (`transfer::local`).

use crate::file_system::{Errno, FileSystem, Handle, Mode, OFlags, RenameFlags, SystemFiles};
use crate::transfer::{ErrorCode, RelativePath, TransferId};
use byteorder::{ByteOrder, LittleEndian};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How long ids are kept however many they are, up to [`Limits::kept_max`].
const KEPT_SECONDS: u64 = 7 * 24 * 3600;

/// How many ids are kept.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// These are kept however old they are.
    kept_min: usize,
    /// More are not kept when old ones are forgotten: an id that is not known is refused, not guessed.
    kept_max: usize,
}

const LIMITS: Limits = Limits { kept_min: 10_000, kept_max: 2_000_000 };
/// Bytes of a record around its body.
const FRAME_BYTES: usize = 4 + 1 + 8 + 16 + CHECK_BYTES;
const CHECK_BYTES: usize = 16;
/// A record is never longer.
const RECORD_BYTES_MAX: usize = 8192;

/// The last thing that was promised about an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It will never be published.
    Aborted {
        /// Why.
        code: ErrorCode,
    },
    /// It was published.
    Committed {
        /// Inode of the file.
        inode: u64,
        /// Its length.
        length: u64,
    },
    /// It is being published.
    Intent {
        /// Inode of the partial file.
        inode: u64,
        /// Its length.
        length: u64,
        /// Its root.
        root: [u8; 32],
        /// Whether a file in its place may be replaced.
        replace: bool,
        /// Where it goes, below the export's root.
        path: RelativePath,
    },
}

/// Appends one record.
pub fn emit(id: TransferId, entry: &Entry, time_s: u64, out: &mut Vec<u8>) {
    let start = out.len();
    let kind = match entry {
        Entry::Intent { .. } => 1,
        Entry::Committed { .. } => 2,
        Entry::Aborted { .. } => 3,
    };
    out.extend_from_slice(&[0, 0, 0, 0, kind]);
    out.extend_from_slice(&time_s.to_le_bytes());
    out.extend_from_slice(&id.0);
    match entry {
        Entry::Aborted { code } => out.extend_from_slice(&(*code as u16).to_le_bytes()),
        Entry::Committed { inode, length } => {
            out.extend_from_slice(&inode.to_le_bytes());
            out.extend_from_slice(&length.to_le_bytes());
        }
        Entry::Intent { inode, length, root, replace, path } => {
            out.extend_from_slice(&inode.to_le_bytes());
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(root);
            out.push(u8::from(*replace));
            out.extend_from_slice(path.as_bytes());
        }
    }
    let length = u32::try_from(out.len() - start + CHECK_BYTES).expect("a record is short");
    LittleEndian::write_u32(&mut out[start..start + 4], length);
    let check = blake3::hash(&out[start..]);
    out.extend_from_slice(&check.as_bytes()[..CHECK_BYTES]);
}

/// Reads the first record: id, entry, time and the number of its bytes; `None` if it is not whole.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<(TransferId, Entry, u64, usize)> {
    let length = LittleEndian::read_u32(bytes.get(..4)?) as usize;
    if !(FRAME_BYTES..=RECORD_BYTES_MAX).contains(&length) {
        return None;
    }
    let record = bytes.get(..length)?;
    let (checked, check) = record.split_at(length - CHECK_BYTES);
    if blake3::hash(checked).as_bytes()[..CHECK_BYTES] != *check {
        return None;
    }
    let time = LittleEndian::read_u64(&checked[5..13]);
    let mut id = TransferId::default();
    id.0.copy_from_slice(&checked[13..29]);
    let body = &checked[29..];
    let entry = match (checked[4], body.len()) {
        (1, 49..) => {
            let mut root = [0; 32];
            root.copy_from_slice(&body[16..48]);
            let path = RelativePath::from_joined(&body[49..]).ok()?;
            Entry::Intent {
                inode: LittleEndian::read_u64(body),
                length: LittleEndian::read_u64(&body[8..]),
                root,
                replace: body[48] != 0,
                path,
            }
        }
        (2, 16) => Entry::Committed {
            inode: LittleEndian::read_u64(body),
            length: LittleEndian::read_u64(&body[8..]),
        },
        (3, 2) => Entry::Aborted { code: ErrorCode::from_number(LittleEndian::read_u16(body))? },
        _ => return None,
    };
    Some((id, entry, time, length))
}

/// A journal file with its content in memory.
#[derive(Debug)]
pub struct Journal {
    /// The directory that it is in, and its name there.
    folder: Handle,
    name: Vec<u8>,
    file: Handle,
    /// Bytes of whole records.
    length: u64,
    entries: BTreeMap<TransferId, (u64, Entry)>,
    /// An append failed: what is on disk is not known.
    broken: bool,
    limits: Limits,
}

impl Journal {
    /// Opens or makes the journal, cuts off a torn tail, and forgets what is old.
    ///
    /// # Errors
    /// Those of the file system; `WouldBlock` if another process has it open.
    pub fn open(path: &Path, time_s: u64) -> io::Result<Self> {
        Self::open_on(&SystemFiles, path, time_s)
    }

    /// As [`open`](Self::open), on any file system.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_on(files: &dyn FileSystem, path: &Path, time_s: u64) -> io::Result<Self> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = files.open(parent.unwrap_or(Path::new(".")), OFlags::DIRECTORY)?;
        let name = path.file_name().map(OsStr::as_bytes).ok_or(Errno::ISDIR)?.to_vec();
        let file = folder.open_beneath(&name, OFlags::RDWR | OFlags::CREATE, Mode::from_raw_mode(0o666))?;
        file.try_lock()?;
        if !file.is_entry(&*folder, &name)? {
            // Another process has just put a compacted one in its place.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes = file.read_whole()?;
        let mut entries = BTreeMap::new();
        let mut at = 0;
        let mut records = 0;
        while let Some((id, entry, time, length)) = parse(&bytes[at..]) {
            entries.insert(id, (time, entry));
            at += length;
            records += 1;
        }
        file.set_length(at as u64)?;
        file.sync()?;
        folder.sync()?;
        let mut journal =
            Self { folder, name, file, length: at as u64, entries, broken: false, limits: LIMITS };
        journal.forget_old(time_s);
        if records > 2 * journal.entries.len() + journal.limits.kept_min {
            journal.compact()?;
        }
        Ok(journal)
    }

    fn forget_old(&mut self, time_s: u64) {
        let Limits { kept_min, kept_max } = self.limits;
        if self.entries.len() <= kept_min {
            return;
        }
        let mut times: Vec<u64> = self.entries.values().map(|(time, _)| *time).collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        let mut cut = times[kept_min - 1].min(time_s.saturating_sub(KEPT_SECONDS));
        if let Some(&time) = times.get(kept_max) {
            cut = cut.max(time + 1);
        }
        self.entries.retain(|_, (time, entry)| *time >= cut || matches!(entry, Entry::Intent { .. }));
    }

    /// Writes the entries to a new file that takes this one's place.
    fn compact(&mut self) -> io::Result<()> {
        let new_name = [&self.name[..], b".new"].concat();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC;
        let new = self.folder.open_beneath(&new_name, flags, Mode::from_raw_mode(0o666))?;
        new.try_lock()?;
        let mut bytes = Vec::new();
        for (id, (time, entry)) in &self.entries {
            emit(*id, entry, *time, &mut bytes);
        }
        new.write_all_at(&bytes, 0)?;
        new.sync()?;
        self.folder.rename(&new_name, &*self.folder, &self.name, RenameFlags::empty())?;
        self.folder.sync()?;
        self.file = new;
        self.length = bytes.len() as u64;
        Ok(())
    }

    /// Appends records, durably.
    ///
    /// # Errors
    /// Those of the file system; nothing may then be said about these ids, and the journal is to be
    /// opened again.
    pub fn append(&mut self, time_s: u64, records: Vec<(TransferId, Entry)>) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("the journal could not be written before"));
        }
        if records.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for (id, entry) in &records {
            emit(*id, entry, time_s, &mut bytes);
        }
        self.broken = true;
        self.file.write_all_at(&bytes, self.length)?;
        self.file.sync_data()?;
        self.length += bytes.len() as u64;
        self.broken = false;
        self.entries.extend(records.into_iter().map(|(id, entry)| (id, (time_s, entry))));
        if self.entries.len() > self.limits.kept_max + self.limits.kept_min {
            self.forget_old(time_s);
        }
        Ok(())
    }

    /// Whether an append failed, so that nothing more can be promised here before it is opened again.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// What was last promised about an id.
    #[must_use]
    pub fn find(&self, id: &TransferId) -> Option<&Entry> {
        self.entries.get(id).map(|(_, entry)| entry)
    }

    /// Ids that are being published.
    pub fn intents(&self) -> impl Iterator<Item = (TransferId, &Entry)> {
        let is_intent = |entry: &Entry| matches!(entry, Entry::Intent { .. });
        self.entries.iter().filter(move |(_, (_, e))| is_intent(e)).map(|(id, (_, entry))| (*id, entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, proptest};

    fn intent(number: u8) -> (TransferId, Entry) {
        let path = RelativePath::from_joined(b"a/b").expect("a path");
        (
            TransferId([number; 16]),
            Entry::Intent { inode: 7, length: 8, root: [number; 32], replace: true, path },
        )
    }

    #[test]
    fn a_torn_tail_is_cut_off_at_every_byte() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let mut journal = Journal::open(&path, 1).expect("a journal");
        journal.append(1, vec![intent(1), intent(2)]).expect("appended");
        let committed = Entry::Committed { inode: 7, length: 8 };
        journal.append(2, vec![(TransferId([1; 16]), committed.clone())]).expect("appended");
        assert!(Journal::open(&path, 2).is_err(), "it is open already");
        drop(journal);
        let whole = std::fs::read(&path).expect("readable");
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).expect("writable");
            let journal = Journal::open(&path, 2).expect("a journal");
            assert_eq!(journal.find(&TransferId([1; 16])) == Some(&committed), cut == whole.len());
            assert_eq!(journal.intents().count() > 0, journal.find(&TransferId([1; 16])).is_some());
        }
    }

    #[test]
    fn old_ids_are_forgotten_and_intents_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let mut journal = Journal::open(&path, 1).expect("a journal");
        journal
            .append(1, vec![intent(1), (TransferId([9; 16]), Entry::Aborted { code: ErrorCode::Io })])
            .expect("ok");
        let later = 2 + KEPT_SECONDS;
        for part in 0..10_u32 {
            let id = |i: u32| {
                let mut id = [0; 16];
                id[..4].copy_from_slice(&(part * 1000 + i + 1).to_le_bytes());
                TransferId(id)
            };
            let records = (0..1000).map(|i| (id(i), Entry::Committed { inode: 1, length: 1 })).collect();
            journal.append(later, records).expect("appended");
        }
        drop(journal);
        let journal = Journal::open(&path, later + 5).expect("a journal");
        assert!(journal.find(&TransferId([9; 16])).is_none());
        assert!(journal.find(&TransferId([1; 16])).is_some());
        assert_eq!(journal.entries.len(), 10_001);
    }

    /// A process that runs for months does not fill its memory with ids: from time to time the oldest go, but never
    /// one that is being published, and not with every append.
    #[test]
    fn an_open_journal_keeps_no_more_ids_than_it_may() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut journal = Journal::open(&folder.path().join("journal"), 1).expect("a journal");
        journal.limits = Limits { kept_min: 2, kept_max: 4 };
        journal.append(1, vec![intent(1)]).expect("appended");
        let known = |journal: &Journal| {
            (1..=9).filter(|number| journal.find(&TransferId([*number; 16])).is_some()).collect::<Vec<_>>()
        };
        let aborted = |number| (TransferId([number; 16]), Entry::Aborted { code: ErrorCode::Io });
        for number in 2..=6 {
            journal.append(number.into(), vec![aborted(number)]).expect("appended");
        }
        assert_eq!(known(&journal), [1, 2, 3, 4, 5, 6], "as many as are gathered before some go");
        journal.append(7, vec![aborted(7), aborted(8)]).expect("appended");
        assert_eq!(known(&journal), [1, 5, 6, 7, 8], "the INTENT, and of the others the latest");
        journal.append(KEPT_SECONDS + 10, vec![aborted(9), intent(2)]).expect("appended");
        assert_eq!(known(&journal), [1, 2, 9], "week-old ones beside two that are kept anyway");
    }

    /// A journal that says the same of few ids again and again is written anew, and still says it.
    #[test]
    fn a_journal_with_more_old_records_than_it_may_have_is_compacted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let length = || std::fs::metadata(&path).expect("it is there").len();
        let aborted = Entry::Aborted { code: ErrorCode::Io };
        let again = |count: usize| vec![(TransferId([1; 16]), aborted.clone()); count];
        // One entry: 2 + 10,000 records are allowed.
        let mut journal = Journal::open(&path, 1).expect("a journal");
        journal.append(1, again(10_002)).expect("appended");
        drop(journal);
        let before = length();
        let mut journal = Journal::open(&path, 1).expect("a journal");
        assert_eq!(length(), before, "as many as are allowed");
        journal.append(1, again(1)).expect("appended");
        drop(journal);
        let mut journal = Journal::open(&path, 1).expect("a journal");
        assert_eq!(length(), before / 10_002, "one record is left");
        journal.append(1, vec![intent(2)]).expect("it goes on in the new file");
        assert!(Journal::open(&path, 1).is_err(), "the new file is locked");
        drop(journal);
        let journal = Journal::open(&path, 1).expect("a journal");
        assert_eq!(journal.find(&TransferId([1; 16])), Some(&aborted));
        assert_eq!(journal.intents().map(|(id, _)| id).collect::<Vec<_>>(), [TransferId([2; 16])]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn what_is_written_is_read(inode: u64, length: u64, root: [u8; 32], id: [u8; 16], time: u64) {
            let path = RelativePath::from_joined(b"x/y/z").expect("a path");
            for entry in [Entry::Intent { inode, length, root, replace: true, path }, Entry::Committed { inode, length }] {
                let mut bytes = Vec::new();
                emit(TransferId(id), &entry, time, &mut bytes);
                let parsed = parse(&bytes);
                assert_eq!(parsed, Some((TransferId(id), entry, time, bytes.len())));
                *bytes.last_mut().expect("not empty") ^= 1;
                assert_eq!(parse(&bytes), None);
            }
        }
    }
}
