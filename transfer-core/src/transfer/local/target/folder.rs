//! The folder of partial files: names are transfer ids in hexadecimal, nothing of the peer's.
//!
//! ```text
//! <id>.mark    how much of the partial file is durable
//! <id>.stream  empty; the partial file is of a stream, for which nobody comes back
//! mark, twice, at 0 and 64: "DWMARK01" 8 │ size u64 │ durable u64 │ turn u64 │ BLAKE3 of these 32 bytes
//! ```
//!
//! What holds: a mark is written only after the bytes it speaks of are durable; writing one leaves the
//! other whole, so a torn mark costs a little re-sending and nothing else. Whoever uses the folder has a
//! shared lock on it; it is removed only under an exclusive one.

use crate::export::Export;
use crate::file_system::{Errno, FileHandle, Handle, Mode, OFlags};
use crate::journal::{Entry, Journal};
use crate::transfer::code::{ErrorCode, LocalError};
use crate::transfer::local::names_of;
use crate::transfer::name::PARTIAL_FOLDER;
use crate::transfer::store::TransferId;
use byteorder::{ByteOrder, LittleEndian};
use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

const MARK_MAGIC: &[u8; 8] = b"DWMARK01";
const MARK_BYTES: usize = 64;
const STREAM_SUFFIX: &str = ".stream";
/// A transfer id in hexadecimal.
const HEX_BYTES: usize = 32;
/// Partial files that nobody came back for are removed after so long.
const ABANDONED_SECONDS: u64 = 7 * 24 * 3600;

/// How often the folder is opened that somebody else is just removing, and the pause before each but the
/// first: a removal is one system call.
const OPENINGS_MAX: u32 = 100;
const OPENING_PAUSE: Duration = Duration::from_millis(1);

/// The open folder, locked for all who use it.
#[derive(Debug)]
pub(crate) struct PartialFolder(Handle);

impl PartialFolder {
    /// Opens it, and makes it first if it is missing. Its own name is durable then: a partial file is not
    /// READY in a folder that a power loss may take away. Where it is in use already, somebody has seen to
    /// that. From here on nobody removes it, in no process, until this is closed.
    pub(crate) fn open(export: &Export, is_in_use: bool) -> Result<Self, LocalError> {
        for opening in 0..OPENINGS_MAX {
            if opening > 0 {
                std::thread::sleep(OPENING_PAUSE);
            }
            let is_new = match export.root().make_directory(PARTIAL_FOLDER, Mode::RWXU) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(errno) => return Err(errno.into()),
            };
            if is_new || !is_in_use {
                export.root().sync()?;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let folder = match export.root().open_beneath(PARTIAL_FOLDER, flags, Mode::empty()) {
                Ok(folder) => folder,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno.into()),
            };
            match folder.try_lock_shared() {
                // Removed between the two: what is made in it would be found by nobody.
                Ok(()) if !folder.is_entry(export.root(), PARTIAL_FOLDER)? => {}
                Ok(()) => return Ok(Self(folder)),
                Err(Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(LocalError::with_text(ErrorCode::Busy, "another process removes the folder of partial files"))
    }

    /// Gives it up, and removes it if nobody else uses it and it is empty.
    pub(crate) fn leave(&self, export: &Export) {
        // Whoever fails has lost its shared lock by that, so the last one to leave does not fail.
        if self.0.try_lock().is_ok() {
            // Not empty: somebody will come back for what is in it.
            let _ = export.root().remove_directory(PARTIAL_FOLDER);
            let _ = self.0.try_lock_shared();
        }
    }

    pub(crate) fn handle(&self) -> &dyn FileHandle {
        &*self.0
    }

    /// Opens a partial file.
    pub(crate) fn open_file(&self, name: &str, flags: OFlags) -> Result<Handle, Errno> {
        self.0.open_beneath(name.as_bytes(), flags, Mode::RUSR | Mode::WUSR)
    }

    /// The inode of a partial file, if it is there.
    pub(crate) fn inode(&self, name: &str) -> Result<Option<u64>, Errno> {
        match self.0.stat_entry(name.as_bytes()) {
            Ok(stat) => Ok(Some(stat.inode)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Removes a partial file and its marks.
    pub(crate) fn discard(&self, name: &str) {
        let _ = self.0.remove_file(name.as_bytes());
        self.discard_marks(name);
    }

    pub(crate) fn discard_marks(&self, name: &str) {
        let _ = self.0.remove_file(format!("{name}.mark").as_bytes());
        let _ = self.0.remove_file(format!("{name}{STREAM_SUFFIX}").as_bytes());
    }

    /// Marks a partial file that is about to be made as that of a stream.
    pub(crate) fn mark_stream(&self, name: &str) -> Result<(), Errno> {
        self.open_file(&format!("{name}{STREAM_SUFFIX}"), OFlags::WRONLY | OFlags::CREATE).map(drop)
    }

    /// Whether somebody is at work on a partial file, in whatever process.
    fn is_locked(&self, name: &[u8]) -> bool {
        let opened = self.0.open_beneath(name, OFlags::RDONLY, Mode::empty());
        opened.is_ok_and(|file| file.try_lock() == Err(Errno::WOULDBLOCK))
    }

    /// Removes what nobody came back for, and at once what is left of streams; what the journal wants to
    /// publish stays, and so does what another process has locked. A transfer id whose partial file goes is
    /// first journalled as ABORTED: whoever has issued a permit for it must not be left in doubt for ever,
    /// however wrong the clock is that calls it old.
    ///
    /// # Errors
    /// Those of the journal; then nothing is removed.
    pub(crate) fn discard_old(&self, journal: &mut Journal, time_s: u64) -> io::Result<()> {
        let Ok(names) = names_of(&*self.0) else { return Ok(()) };
        let is_mark = |name: &&Vec<u8>| name.ends_with(STREAM_SUFFIX.as_bytes());
        let streams: BTreeSet<TransferId> =
            names.iter().filter(is_mark).filter_map(|name| parse_hex(name)).collect();
        let is_old = |name: &&Vec<u8>| {
            let id = parse_hex(name);
            let intended = id.is_some_and(|id| matches!(journal.find(&id), Some(Entry::Intent { .. })));
            let is_stream = id.is_some_and(|id| streams.contains(&id));
            let is_locked = id.is_some() && self.is_locked(&name[..HEX_BYTES]);
            let Ok(stat) = self.0.stat_entry(name) else { return false };
            // The time of the inode: that of the content is the source's for complete files.
            let age = time_s.saturating_sub(u64::try_from(stat.ctime_s).unwrap_or(u64::MAX));
            !intended && !is_locked && (is_stream || age > ABANDONED_SECONDS)
        };
        let old: Vec<_> = names.iter().filter(is_old).collect();
        let ids = old.iter().filter(|name| name.len() == HEX_BYTES).filter_map(|name| parse_hex(name));
        let unknown = ids.filter(|id| journal.find(id).is_none());
        let aborted = unknown.map(|id| (id, Entry::Aborted { code: ErrorCode::Interrupted })).collect();
        journal.append(time_s, aborted)?;
        // Sorted: a partial file comes before its marks, so that it never lacks them.
        for name in old {
            let _ = self.0.remove_file(name);
        }
        Ok(())
    }

    /// How many bytes of a partial file for `size` bytes are durable.
    pub(crate) fn read_mark(&self, name: &str, size: u64) -> u64 {
        let Ok(file) = self.open_file(&format!("{name}.mark"), OFlags::RDONLY) else { return 0 };
        let mut bytes = [0; 2 * MARK_BYTES];
        let read = file.read_at(&mut bytes, 0).unwrap_or(0);
        let marks = bytes[..read].chunks_exact(MARK_BYTES).filter_map(|mark| parse_mark(mark, size));
        marks.max().unwrap_or(0)
    }

    /// Records that `durable` bytes are durable.
    pub(crate) fn write_mark(
        &self,
        name: &str,
        size: u64,
        durable: u64,
        turn: u64,
    ) -> Result<(), LocalError> {
        let flags = OFlags::RDWR | OFlags::CREATE;
        let file = self.open_file(&format!("{name}.mark"), flags)?;
        file.write_all_at(&emit_mark(size, durable, turn), turn % 2 * MARK_BYTES as u64)?;
        file.sync_data()?;
        Ok(self.0.sync()?)
    }
}

fn emit_mark(size: u64, durable: u64, turn: u64) -> [u8; MARK_BYTES] {
    let mut mark = [0; MARK_BYTES];
    mark[..8].copy_from_slice(MARK_MAGIC);
    LittleEndian::write_u64(&mut mark[8..16], size);
    LittleEndian::write_u64(&mut mark[16..24], durable);
    LittleEndian::write_u64(&mut mark[24..32], turn);
    let check = blake3::hash(&mark[..32]);
    mark[32..].copy_from_slice(check.as_bytes());
    mark
}

fn parse_mark(mark: &[u8], size: u64) -> Option<u64> {
    let whole = mark[..8] == MARK_MAGIC[..] && mark[32..] == blake3::hash(&mark[..32]).as_bytes()[..];
    (whole && LittleEndian::read_u64(&mark[8..16]) == size).then(|| LittleEndian::read_u64(&mark[16..24]))
}

/// The id that a partial file or mark belongs to.
fn parse_hex(name: &[u8]) -> Option<TransferId> {
    let digits = std::str::from_utf8(name.get(..HEX_BYTES)?).ok()?;
    let mut id = TransferId::default();
    for (at, byte) in id.0.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_again_and_a_torn_one_is_not() {
        let world = tempfile::tempdir().expect("a folder");
        let export = Export::open(b"e", world.path(), true).expect("an export");
        let folder = PartialFolder::open(&export, false).expect("a folder");
        assert_eq!(folder.read_mark("x", 100), 0);
        folder.write_mark("x", 100, 40, 1).expect("written");
        folder.write_mark("x", 100, 60, 2).expect("written");
        assert_eq!((folder.read_mark("x", 100), folder.read_mark("x", 101)), (60, 0));
        let mark = folder.open_file("x.mark", OFlags::RDWR).expect("open");
        mark.write_all_at(b"?", 20).expect("written");
        assert_eq!(folder.read_mark("x", 100), 40);
        folder.discard("x");
        folder.leave(&export);
        assert!(!world.path().join(".diskwire-partial").exists());
    }
    #[test]
    fn the_folder_stays_while_another_process_uses_it() {
        let world = tempfile::tempdir().expect("a folder");
        let export = Export::open(b"e", world.path(), true).expect("an export");
        let first = PartialFolder::open(&export, false).expect("a folder");
        let second = PartialFolder::open(&export, false).expect("a folder");
        first.leave(&export);
        second.open_file("x", OFlags::RDWR | OFlags::CREATE).expect("it is still there");
        second.discard("x");
        // Also while the first is still open.
        second.leave(&export);
        assert!(!world.path().join(".diskwire-partial").exists());
    }

    #[test]
    fn a_folder_that_is_removed_and_made_all_the_time_can_be_used() {
        let world = tempfile::tempdir().expect("a folder");
        let export = Export::open(b"e", world.path(), true).expect("an export");
        std::thread::scope(|scope| {
            for user in 0..3 {
                let export = &export;
                scope.spawn(move || {
                    for turn in 0..200 {
                        let folder = PartialFolder::open(export, false).expect("a folder");
                        let name = format!("{user}-{turn}");
                        folder.open_file(&name, OFlags::RDWR | OFlags::CREATE).expect("it is linked");
                        folder.discard(&name);
                        folder.leave(export);
                    }
                });
            }
        });
        assert!(!world.path().join(".diskwire-partial").exists());
    }
}
