//! The folder of partial files: names are transfer ids in hexadecimal, nothing of the peer's.
//!
//! ```text
//! mark, twice, at 0 and 64: "DWMARK01" 8 │ size u64 │ durable u64 │ turn u64 │ BLAKE3 of these 32 bytes
//! ```
//!
//! What holds: a mark is written only after the bytes it speaks of are durable; writing one leaves the
//! other whole, so a torn mark costs a little re-sending and nothing else.

use crate::export::Export;
use crate::file_system::{Errno, FileHandle, Handle, Mode, OFlags};
use crate::journal::{Entry, Journal};
use crate::transfer::code::LocalError;
use crate::transfer::local::names_of;
use crate::transfer::name::PARTIAL_FOLDER;
use crate::transfer::store::TransferId;
use byteorder::{ByteOrder, LittleEndian};

const MARK_MAGIC: &[u8; 8] = b"DWMARK01";
const MARK_BYTES: usize = 64;
/// Partial files that nobody came back for are removed after so long.
const ABANDONED_SECONDS: u64 = 7 * 24 * 3600;

/// The open folder.
#[derive(Debug)]
pub(crate) struct PartialFolder(Handle);

impl PartialFolder {
    /// Opens it, and makes it first if it is missing. Its own name is durable then: a partial file is not
    /// READY in a folder that a power loss may take away. Where it is in use already, somebody has seen to
    /// that.
    pub(crate) fn open(export: &Export, is_in_use: bool) -> Result<Self, LocalError> {
        let is_new = match export.root().make_directory(PARTIAL_FOLDER, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(errno.into()),
        };
        if is_new || !is_in_use {
            export.root().sync()?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        Ok(Self(export.root().open_beneath(PARTIAL_FOLDER, flags, Mode::empty())?))
    }

    /// Removes it if it is empty.
    pub(crate) fn remove(export: &Export) {
        // Not empty: somebody will come back for what is in it.
        let _ = export.root().remove_directory(PARTIAL_FOLDER);
    }

    pub(crate) fn handle(&self) -> &dyn FileHandle {
        &*self.0
    }

    /// Opens a partial file.
    pub(crate) fn open_file(&self, name: &str, flags: OFlags) -> Result<Handle, Errno> {
        self.0.open_beneath(name.as_bytes(), flags, Mode::RUSR | Mode::WUSR)
    }

    /// Whether a partial file is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.stat_entry(name.as_bytes()).is_ok()
    }

    /// Removes a partial file and its mark.
    pub(crate) fn discard(&self, name: &str) {
        let _ = self.0.remove_file(name.as_bytes());
        self.discard_mark(name);
    }

    pub(crate) fn discard_mark(&self, name: &str) {
        let _ = self.0.remove_file(format!("{name}.mark").as_bytes());
    }

    /// Removes what nobody came back for; what the journal wants to publish stays.
    pub(crate) fn discard_old(&self, journal: &Journal, time_s: u64) {
        let Ok(names) = names_of(&*self.0) else { return };
        for name in names {
            let intended =
                parse_hex(&name).is_some_and(|id| matches!(journal.find(&id), Some(Entry::Intent { .. })));
            let Ok(stat) = self.0.stat_entry(&name) else { continue };
            // The time of the inode: that of the content is the source's for complete files.
            let age = time_s.saturating_sub(u64::try_from(stat.ctime_s).unwrap_or(u64::MAX));
            if !intended && age > ABANDONED_SECONDS {
                let _ = self.0.remove_file(&name);
            }
        }
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
    let digits = std::str::from_utf8(name.get(..32)?).ok()?;
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
        PartialFolder::remove(&export);
        assert!(!world.path().join(".diskwire-partial").exists());
    }
}
