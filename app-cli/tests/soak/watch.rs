//! The checker of the soak: what may stand under a final name, and whether anything else ever does.
//!
//! What holds: each name has a list of contents that were promised to it, in order; from the completion of
//! a transfer on only its content and later ones may stand there, and something must. Content is judged
//! by its hash, of the file that was opened. Not here: who writes, and when.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use blake3::Hash;

/// How often the watcher looks by itself.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// The one name that is not final.
pub(crate) const PARTIAL: &str = ".diskwire-partial";

/// The contents of one name.
#[derive(Default)]
struct Promised {
    /// All that were ever promised.
    contents: Vec<Hash>,
    /// The first that may still stand there.
    from: usize,
    /// One of them must stand there.
    settled: bool,
}

/// A file as it was when it was hashed.
type Stamp = (u64, u64, i64, i64, u64);

/// The watched folders and what is promised in them.
#[derive(Default)]
pub(crate) struct Watch {
    folders: Vec<PathBuf>,
    promised: Mutex<BTreeMap<PathBuf, Promised>>,
    hashed: Mutex<HashMap<PathBuf, (Stamp, Hash)>>,
    wrong: Mutex<Vec<String>>,
    looks: AtomicU64,
    ends: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The hash that stands for a symbolic link.
pub(crate) fn hash_of_link(target: &Path) -> Hash {
    blake3::hash(&[b"link to ", target.as_os_str().as_bytes()].concat())
}

impl Watch {
    /// A watch over these folders.
    pub(crate) fn new(folders: Vec<PathBuf>) -> Arc<Self> {
        Arc::new(Self { folders, ..Self::default() })
    }

    /// From now on `content` may stand at `path`, beside what may stand there already.
    pub(crate) fn promise(&self, path: &Path, content: Hash) {
        lock(&self.promised).entry(path.to_owned()).or_default().contents.push(content);
    }

    /// From now on what was promised last must stand at `path`.
    pub(crate) fn settle(&self, path: &Path) {
        let mut promised = lock(&self.promised);
        let entry = promised.get_mut(path).expect("settled after it was promised");
        entry.from = entry.contents.len() - 1;
        entry.settled = true;
    }

    /// What was wrong so far.
    pub(crate) fn wrong(&self) -> Vec<String> {
        lock(&self.wrong).clone()
    }

    /// How often the folders were looked at.
    pub(crate) fn looks(&self) -> u64 {
        self.looks.load(Ordering::Relaxed)
    }

    /// Looks at everything once.
    pub(crate) fn look(&self) {
        let must: Vec<_> = {
            let promised = lock(&self.promised);
            promised.iter().filter(|(_, entry)| entry.settled).map(|(path, _)| path.clone()).collect()
        };
        for path in must {
            if path.symlink_metadata().is_err() {
                self.note(&path, "is gone");
            }
        }
        let mut left = self.folders.clone();
        while let Some(folder) = left.pop() {
            // A folder of a tree may not be there yet.
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_name() == PARTIAL {
                    continue;
                }
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => left.push(path),
                    Ok(_) => self.look_at(&path),
                    Err(error) => self.note(&path, &error.to_string()),
                }
            }
        }
        self.looks.fetch_add(1, Ordering::Relaxed);
    }

    /// Judges what stands at a final name.
    fn look_at(&self, path: &Path) {
        let Some(from) = lock(&self.promised).get(path).map(|entry| entry.from) else {
            return self.note(path, "was never promised");
        };
        let (content, bytes) = match self.content(path) {
            Ok(found) => found,
            Err(error) => return self.note(path, &error.to_string()),
        };
        let promised = lock(&self.promised);
        if !promised[path].contents[from..].contains(&content) {
            let place = promised[path].contents.iter().position(|known| *known == content);
            let count = promised[path].contents.len();
            drop(promised);
            let what = format!("{bytes} bytes that are content {place:?} of {count}, {from} may be");
            self.note(path, &what);
        }
    }

    /// The hash of what stands at a name, and its length.
    fn content(&self, path: &Path) -> io::Result<(Hash, u64)> {
        if path.symlink_metadata()?.is_symlink() {
            return Ok((hash_of_link(&fs::read_link(path)?), 0));
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let stamp = (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec(), metadata.len());
        if let Some((known, content)) = lock(&self.hashed).get(path)
            && *known == stamp
        {
            return Ok((*content, stamp.4));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file)?;
        let content = hasher.finalize();
        lock(&self.hashed).insert(path.to_owned(), (stamp, content));
        Ok((content, stamp.4))
    }

    fn note(&self, path: &Path, what: &str) {
        lock(&self.wrong).push(format!("{}: {what}", path.display()));
    }

    /// Starts to look all the time, until the guard goes.
    pub(crate) fn start(self: &Arc<Self>) -> Watching {
        let watch = Arc::clone(self);
        let thread = std::thread::spawn(move || {
            while !watch.ends.load(Ordering::Relaxed) {
                watch.look();
                std::thread::sleep(LOOK_EVERY);
            }
        });
        Watching { watch: Arc::clone(self), thread: Some(thread) }
    }
}

/// A watch that looks as long as this lives.
pub(crate) struct Watching {
    watch: Arc<Watch>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.watch.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
