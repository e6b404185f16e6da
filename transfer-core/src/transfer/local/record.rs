//! What a requester remembers of an unfinished job: its nonce, and the permits that it issued.
//!
//! ```text
//! header: "DWJOB001" 8 │ nonce 16 │ BLAKE3 of both, 8 bytes
//! record: kind u8 (1 permitted, 2 settled) │ transfer id 16 │ BLAKE3 of both, 7 bytes
//! ```
//!
//! What holds: `permit` returns only when the permits are durable; the file is locked while the job
//! runs, so that two runs cannot use one nonce. Not here: what follows from a permit (`sender`).

use super::super::code::{ErrorCode, LocalError};
use super::super::store::{JobEnd, JobKey, TransferId};
use super::lock;
use crate::file_system::{Errno, FileSystem, Handle, Mode, OFlags, make_directories};
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

const MAGIC: &[u8; 8] = b"DWJOB001";
const HEADER_BYTES: usize = 32;
const RECORD_BYTES: usize = 24;
const PERMITTED: u8 = 1;
const SETTLED: u8 = 2;

/// The file of a record, locked.
#[derive(Debug)]
struct RecordFile {
    /// The directory of all records, by path and open.
    folder_path: PathBuf,
    folder: Handle,
    /// Its name there.
    name: String,
    file: Handle,
    /// Bytes of whole records.
    length: Mutex<u64>,
}

/// The record of one job; a job that cannot be continued has none on disk.
#[derive(Debug)]
pub(crate) struct JobRecord {
    file: Option<RecordFile>,
    /// It was made by this run.
    fresh: bool,
}

impl JobRecord {
    /// Finds or makes the record of a job.
    pub(crate) fn open(
        files: &dyn FileSystem,
        state_directory: &Path,
        key: &JobKey,
    ) -> Result<(Self, [u8; 16], BTreeSet<TransferId>), LocalError> {
        if !key.durable {
            return Ok((Self { file: None, fresh: true }, random_nonce(files)?, BTreeSet::new()));
        }
        let folder_path = state_directory.join("jobs");
        let name = file_name(key)?;
        let folder = make_directories(files, &folder_path)?;
        let file = open_locked(&folder, name.as_bytes())?;
        let parsed = parse(&file.read_whole()?);
        let fresh = parsed.is_none();
        let (nonce, permitted, length) = match parsed {
            Some(parsed) => parsed,
            None => {
                let nonce = random_nonce(files)?;
                file.set_length(0)?;
                file.write_all_at(&header(&nonce), 0)?;
                (nonce, BTreeSet::new(), HEADER_BYTES)
            }
        };
        file.set_length(length as u64)?;
        if fresh {
            file.sync()?;
            folder.sync()?;
        }
        let length = Mutex::new(length as u64);
        let file = RecordFile { folder_path, folder, name, file, length };
        Ok((Self { file: Some(file), fresh }, nonce, permitted))
    }

    /// Where the journal of a pull lies.
    pub(crate) fn journal_path(&self) -> Result<PathBuf, LocalError> {
        let file = self.file.as_ref().ok_or_else(|| LocalError::new(ErrorCode::Io))?;
        Ok(file.folder_path.join(&file.name).with_extension("journal"))
    }

    /// Records permits, durably.
    pub(crate) fn permit(&self, ids: &[TransferId]) -> Result<(), LocalError> {
        if let Some(file) = self.file.as_ref().filter(|_| !ids.is_empty()) {
            let mut length = lock(&file.length);
            file.append(&mut length, &records(PERMITTED, ids))?;
            file.file.sync_data()?;
        }
        Ok(())
    }

    /// Records that the last word about these is known.
    pub(crate) fn settle(&self, ids: &[TransferId]) -> Result<(), LocalError> {
        if let Some(file) = &self.file {
            file.append(&mut lock(&file.length), &records(SETTLED, ids))?;
        }
        Ok(())
    }

    /// Keeps the record for a re-run, or not.
    pub(crate) fn close(&self, end: JobEnd) {
        match end {
            JobEnd::Finished => self.forget(),
            JobEnd::Refused if self.fresh => self.forget(),
            JobEnd::Refused | JobEnd::Unfinished => {}
        }
    }

    /// First the nonce goes, durably, then the journal: a power loss that kept the nonce without the journal
    /// would leave ids whose last word nobody knows, and their files would be published once more.
    fn forget(&self) {
        let Some(RecordFile { folder, name, file, .. }) = &self.file else { return };
        let journal = format!("{name}.journal");
        if folder.stat_entry(journal.as_bytes()) != Err(Errno::NOENT) {
            if file.set_length(0).and_then(|()| file.sync()).is_err() {
                // It is only asked about again.
                return;
            }
            let _ = folder.remove_file(journal.as_bytes());
        }
        let _ = folder.remove_file(name.as_bytes());
    }
}

impl RecordFile {
    fn append(&self, length: &mut u64, bytes: &[u8]) -> Result<(), LocalError> {
        self.file.write_all_at(bytes, *length)?;
        *length += bytes.len() as u64;
        Ok(())
    }
}

/// Opens or makes a record, and locks it.
fn open_locked(folder: &Handle, name: &[u8]) -> Result<Handle, LocalError> {
    loop {
        let file = folder.open_beneath(name, OFlags::RDWR | OFlags::CREATE, Mode::from_raw_mode(0o666))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(LocalError::with_text(ErrorCode::Busy, "the same transfer is running already"));
            }
            Err(errno) => return Err(errno.into()),
        }
        // A run that ended between the two has removed it: permits in it would be found by nobody.
        if file.is_entry(&**folder, name)? {
            return Ok(file);
        }
    }
}

fn random_nonce(files: &dyn FileSystem) -> Result<[u8; 16], LocalError> {
    let mut nonce = [0; 16];
    files.fill_random(&mut nonce)?;
    Ok(nonce)
}

/// The same peer, paths and direction give the same name.
fn file_name(key: &JobKey) -> Result<String, LocalError> {
    let mut hasher = blake3::Hasher::new_derive_key("diskwire 2026 job record v1");
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    field(key.peer.as_bytes());
    field(&[u8::from(key.pull)]);
    field(&key.export);
    field(&(key.remote.len() as u64).to_le_bytes());
    key.remote.iter().for_each(|path| field(path));
    for path in &key.local {
        // Relative paths of two working directories are not the same job.
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        field(std::path::absolute(path)?.as_os_str().as_encoded_bytes());
    }
    Ok(hasher.finalize().to_hex()[..40].to_owned())
}

fn header(nonce: &[u8; 16]) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], nonce].concat();
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(&check.as_bytes()[..8]);
    bytes
}

fn records(kind: u8, ids: &[TransferId]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ids.len() * RECORD_BYTES);
    for id in ids {
        let start = bytes.len();
        bytes.push(kind);
        bytes.extend_from_slice(&id.0);
        let check = blake3::hash(&bytes[start..]);
        bytes.extend_from_slice(&check.as_bytes()[..7]);
    }
    bytes
}

/// Nonce, permits without a last word, and the bytes that are whole.
fn parse(bytes: &[u8]) -> Option<([u8; 16], BTreeSet<TransferId>, usize)> {
    let mut nonce = [0; 16];
    nonce.copy_from_slice(bytes.get(8..24)?);
    if bytes.get(..HEADER_BYTES)? != header(&nonce) {
        return None;
    }
    let mut permitted = BTreeSet::new();
    let mut at = HEADER_BYTES;
    while let Some(record) = bytes.get(at..at + RECORD_BYTES) {
        let mut id = TransferId::default();
        id.0.copy_from_slice(&record[1..17]);
        if record != records(record[0], &[id]) {
            break;
        }
        match record[0] {
            PERMITTED => permitted.insert(id),
            _ => permitted.remove(&id),
        };
        at += RECORD_BYTES;
    }
    Some((nonce, permitted, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file_system::SystemFiles;

    #[test]
    fn permits_are_found_again_and_torn_ones_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = JobKey {
            peer: "b".into(),
            pull: false,
            export: b"e".to_vec(),
            remote: vec![],
            local: vec![b"/x".to_vec()],
            durable: true,
        };
        let ids = [TransferId([1; 16]), TransferId([2; 16])];
        let (record, nonce, permitted) =
            JobRecord::open(&SystemFiles, folder.path(), &key).expect("a record");
        assert!(permitted.is_empty());
        record.permit(&ids).expect("durable");
        record.settle(&ids[..1]).expect("written");
        assert_eq!(
            JobRecord::open(&SystemFiles, folder.path(), &key).expect_err("it is locked").code,
            ErrorCode::Busy
        );
        let path = record.journal_path().expect("a path").with_extension("");
        drop(record);
        let mut bytes = std::fs::read(&path).expect("readable");
        bytes.extend_from_slice(&[1, 2, 3]);
        std::fs::write(&path, bytes).expect("writable");
        let (record, again, permitted) =
            JobRecord::open(&SystemFiles, folder.path(), &key).expect("a record");
        assert_eq!((again, permitted), (nonce, BTreeSet::from([ids[1]])));
        record.forget();
        drop(record);
        assert_ne!(JobRecord::open(&SystemFiles, folder.path(), &key).expect("a record").1, nonce);
    }
}
