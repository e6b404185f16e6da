//! The host's state directory: who runs which lane.
//!
//! A lane is a row of the volume's host table that one process at a time may use. Whoever holds the
//! kernel's lock on `lane-N.lock` owns lane N of this host; the lock ends with the process, however it
//! ends, and the file stays (to remove it would let two processes lock two files of one name). The
//! number in the file is for people only. Lane 0 is `serve`'s, 1 to P are for commands. Not here:
//! journals and sockets, which lie in the same directory.

use std::fs::{File, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags};
use thiserror::Error;

use crate::escape;

/// How long a command waits for a free lane.
pub const LANE_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often it looks meanwhile.
const LANE_LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// The lane of `serve`.
const SERVE_LANE: u16 = 0;

/// Why a state directory or a lane in it cannot be had.
#[derive(Debug, Error)]
pub enum StateDirError {
    /// All lanes are taken.
    #[error(
        "all {lanes} lanes of this host are in use ({dir}); wait for a command to end, or give the host more lanes"
    )]
    Busy {
        /// How many.
        lanes: u16,
        /// The directory.
        dir: String,
    },
    /// It cannot be made, opened or locked.
    #[error("cannot use the state directory: {path}")]
    Io {
        /// The file or directory.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Not a directory.
    #[error("the state directory {dir} is not a directory; correct `state` in the configuration")]
    NotADirectory {
        /// The path.
        dir: String,
    },
    /// Everybody may write to it.
    #[error("the state directory {dir} is open to all users (mode {mode:04o}); run: chmod o-w {dir}")]
    Open {
        /// The directory.
        dir: String,
        /// Its permissions.
        mode: u32,
    },
    /// Another `serve` runs.
    #[error("this host is served already, by process {pid} ({lock}); stop it first, one `serve` is enough")]
    ServeRuns {
        /// Its number, as far as its lock file tells.
        pid: String,
        /// The lock file.
        lock: String,
    },
}

/// The state directory of a host.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

/// A lane of this host that is ours as long as this lives.
#[derive(Debug)]
pub struct LaneLock {
    lane: u16,
    // The lock goes with the descriptor.
    _file: File,
}

impl LaneLock {
    /// Number of the lane.
    #[must_use]
    pub fn lane(&self) -> u16 {
        self.lane
    }
}

impl StateDir {
    /// Opens the directory, made with mode 0700 where it is not there.
    ///
    /// # Errors
    /// See [`StateDirError`].
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let shown = || escape::name(path);
        let failed = |source| StateDirError::Io { path: shown(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
            match error.kind() {
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                    StateDirError::NotADirectory { dir: shown() }
                }
                _ => failed(error),
            }
        })?;
        let mode = path.metadata().map_err(failed)?.mode() & 0o7777;
        // With the sticky bit others may still put their lock files here first.
        if mode & 0o002 != 0 {
            return Err(StateDirError::Open { dir: shown(), mode });
        }
        Ok(Self { path: path.to_owned() })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes lane 0.
    ///
    /// # Errors
    /// [`StateDirError::ServeRuns`] where another process has it.
    pub fn lock_serve(&self) -> Result<LaneLock, StateDirError> {
        self.try_lock(SERVE_LANE)?.ok_or_else(|| {
            let lock = self.lock_file(SERVE_LANE);
            StateDirError::ServeRuns { pid: pid_in(&lock), lock: escape::name(&lock) }
        })
    }

    /// Takes the first free one of the lanes 1 to `lanes`, and waits for it up to `wait`.
    ///
    /// # Errors
    /// [`StateDirError::Busy`] after that time.
    pub fn lock_lane(&self, lanes: u16, wait: Duration) -> Result<LaneLock, StateDirError> {
        let deadline = Instant::now() + wait;
        loop {
            for lane in 1..=lanes {
                if let Some(lock) = self.try_lock(lane)? {
                    return Ok(lock);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(StateDirError::Busy { lanes, dir: escape::name(&self.path) });
            }
            std::thread::sleep(left.min(LANE_LOOK_INTERVAL));
        }
    }

    /// Whether a process holds lane `lane` at the moment.
    ///
    /// # Errors
    /// [`StateDirError::Io`].
    pub fn is_held(&self, lane: u16) -> Result<bool, StateDirError> {
        match File::open(self.lock_file(lane)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failed(lane, error)),
            // A shared lock for an instant: two who ask do not disturb each other.
            Ok(file) => match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
                Ok(()) => Ok(false),
                Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
                Err(error) => Err(self.failed(lane, error.into())),
            },
        }
    }

    fn lock_file(&self, lane: u16) -> PathBuf {
        self.path.join(format!("lane-{lane}.lock"))
    }

    fn failed(&self, lane: u16, source: io::Error) -> StateDirError {
        StateDirError::Io { path: escape::name(self.lock_file(lane)), source }
    }

    fn try_lock(&self, lane: u16) -> Result<Option<LaneLock>, StateDirError> {
        self.lock_and_sign(lane).map_err(|error| self.failed(lane, error))
    }

    fn lock_and_sign(&self, lane: u16) -> io::Result<Option<LaneLock>> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        options.mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let mut file = options.open(self.lock_file(lane))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let directory_mode = self.path.metadata()?.mode();
        // Users who share the directory share its locks.
        let mode = 0o600 | (directory_mode & 0o060);
        if file.metadata()?.uid() == rustix::process::geteuid().as_raw() {
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Some(LaneLock { lane, _file: file }))
    }
}

/// The process number in a lock file, or a word for "not known".
fn pid_in(file: &Path) -> String {
    let mut text = String::new();
    let read = File::open(file).and_then(|file| file.take(32).read_to_string(&mut text));
    match text.trim() {
        pid if read.is_ok() && !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()) => pid.into(),
        _ => "(number not known)".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("state/alpha")).unwrap();
        (dir, state)
    }

    #[test]
    fn the_directory_is_private_and_kept_so() {
        let (dir, state) = state();
        assert_eq!(state.path().metadata().unwrap().mode() & 0o777, 0o700);
        StateDir::open(state.path()).unwrap();
        std::fs::set_permissions(state.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(StateDir::open(state.path()).unwrap_err().to_string().contains("chmod o-w"));
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("below")] {
            assert!(StateDir::open(&path).unwrap_err().to_string().contains("not a directory"));
        }
    }

    #[test]
    fn serve_runs_once() {
        let (_dir, state) = state();
        assert!(!state.is_held(0).unwrap());
        let lock = state.lock_serve().unwrap();
        assert_eq!(lock.lane(), 0);
        assert!(state.is_held(0).unwrap());
        let refused = state.lock_serve().unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(lock);
        assert!(!state.is_held(0).unwrap());
        state.lock_serve().unwrap();
    }

    #[test]
    fn commands_take_the_first_free_lane() {
        let (_dir, state) = state();
        let lanes: Vec<_> = (0..3).map(|_| state.lock_lane(3, Duration::ZERO).unwrap()).collect();
        assert_eq!(lanes.iter().map(LaneLock::lane).collect::<Vec<_>>(), [1, 2, 3]);
        let busy = state.lock_lane(3, Duration::from_millis(60)).unwrap_err();
        assert!(matches!(busy, StateDirError::Busy { lanes: 3, .. }), "{busy}");
        let mut lanes = lanes.into_iter();
        lanes.next();
        drop(lanes.next());
        assert!(state.lock_lane(3, Duration::ZERO).is_ok());
    }

    #[test]
    fn a_lane_that_becomes_free_is_taken_while_waiting() {
        let (_dir, state) = state();
        let held = state.lock_lane(1, Duration::ZERO).unwrap();
        let waiter = std::thread::spawn({
            let state = state.clone();
            move || state.lock_lane(1, LANE_WAIT_MAX).map(|lock| lock.lane())
        });
        std::thread::sleep(Duration::from_millis(80));
        drop(held);
        assert_eq!(waiter.join().unwrap().unwrap(), 1);
    }

    #[test]
    fn a_link_in_place_of_a_lock_is_not_followed() {
        let (dir, state) = state();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, state.path().join("lane-0.lock")).unwrap();
        assert!(state.lock_serve().is_err());
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    }
}
