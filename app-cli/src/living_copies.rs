//! Copies of writes that may still land when their process has ended: kept in the state directory of the host, so that
//! the next process does not write where an old copy may come down on it.
//!
//! ```text
//!   loop of a process ── the set changed, once a second at most ──▶ lane-N-VOL.copies
//!   next process ── all lanes' files ──▶ held until they are assumed dead
//! ```
//!
//! Keeps true: a file is whole, for a new one replaces it; what is read is checked, and nothing of it holds a write for
//! longer than the path's own quiesce time; a file that is not ours or not whole is left out, and that is said. It is not
//! made durable: it is for the end of a process; that of a whole machine takes longer than copies live. Not here: what is
//! held (crate `multipath`).

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use multipath::{BlockRange, LivingCopy};
use serde::{Deserialize, Serialize};
use storage_mapping::{FencePolicy, Instant, IoTag, Lba, PathIndex};

use crate::config::DeviceConfig;
use crate::escape;

/// The longest file that is read, in bytes.
const FILE_MAX_BYTES: u64 = 1 << 20;
/// How a file's name ends.
const EXTENSION: &str = "copies";

/// What a file holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    volume: String,
    copies: Vec<Copy>,
}

/// A copy of a write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Copy {
    device: String,
    /// The address of the path that has it.
    path: String,
    lba: u64,
    blocks: u64,
    /// Milliseconds since 1970.
    assumed_dead_at: u64,
}

/// The copies of a host on one volume: those that were left, and those of this process.
#[derive(Clone, Debug)]
pub struct LivingCopies {
    folder: PathBuf,
    volume: String,
    left: Vec<Copy>,
    /// The lane of this process, once it has one: nothing is written before.
    lane: Arc<OnceLock<u16>>,
    own: Arc<Mutex<BTreeMap<String, Vec<Copy>>>>,
}

impl LivingCopies {
    /// Reads the files of all lanes. What is not in order is left out, with a notice.
    #[must_use]
    pub fn read(folder: &Path, volume_id: &[u8; 16]) -> (Self, Vec<String>) {
        let volume = volume::open::hex(volume_id);
        let (mut left, mut notices) = (Vec::new(), Vec::new());
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        for file in entries.map(|entry| entry.path()).filter(|file| is_of(file, &volume)) {
            match read_file(&file, &volume) {
                Ok(copies) => left.extend(copies),
                Err(why) => notices.push(format!("{} is left out: {why}", escape::name(&file))),
            }
        }
        // Who inherits copies writes them down once more.
        left.sort();
        left.dedup();
        let new = Self {
            folder: folder.to_owned(),
            volume,
            left,
            lane: Arc::new(OnceLock::new()),
            own: Arc::default(),
        };
        (new, notices)
    }

    /// This process has a lane: what it leaves is written from now on.
    pub fn take_lane(&self, lane: u16) {
        self.lane.get_or_init(|| lane);
        let today = since_1970();
        if self.left.iter().all(|copy| Duration::from_millis(copy.assumed_dead_at) <= today)
            && let Err(error) = self.write(lane, Vec::new())
        {
            tracing::warn!(lane, %error, "what is over cannot be removed");
        }
    }

    /// What was left of a device and may still land, on the clock of this process, whose time is `now`; and a notice.
    #[must_use]
    pub fn left_of(&self, config: &DeviceConfig, now: Instant) -> (Vec<LivingCopy>, Option<String>) {
        let today = since_1970();
        let living = |copy: &Copy| {
            let path = config.paths.iter().position(|path| path.text == copy.path);
            let of_path = path.and_then(|path| config.paths[path].config.quiesce_time);
            let longest = of_path.unwrap_or(config.failover.quiesce_time);
            // A clock that was set back does not make it longer.
            let left = Duration::from_millis(copy.assumed_dead_at).checked_sub(today)?.min(longest);
            Some(LivingCopy {
                tag: IoTag(0),
                path: PathIndex(path.unwrap_or(0)),
                range: BlockRange::new(Lba(copy.lba), copy.blocks),
                assumed_dead_at: now + left,
                policy: FencePolicy::Fence,
                is_inherited: true,
            })
        };
        let of_device = self.left.iter().filter(|copy| copy.device == config.id.as_str());
        let copies: Vec<LivingCopy> = of_device.filter_map(living).collect();
        let longest = copies.iter().map(|copy| copy.assumed_dead_at.since(now)).max();
        let notice = longest.map(|longest| {
            format!(
                "{}: writes to {} ranges wait for up to {:.1} s: copies of an earlier process may still land there",
                config.id,
                copies.len(),
                longest.as_secs_f64()
            )
        });
        (copies, notice)
    }

    /// What writes down the copies of a device when they change.
    pub fn writer(&self, config: &DeviceConfig) -> impl FnMut(Instant, &[LivingCopy]) -> bool + Send + use<> {
        let (this, device) = (self.clone(), config.id.to_string());
        let addresses: Vec<String> = config.paths.iter().map(|path| path.text.clone()).collect();
        move |now, copies| {
            let Some(&lane) = this.lane.get() else { return false };
            let today = since_1970();
            let stored = |copy: &LivingCopy| Copy {
                device: device.clone(),
                path: addresses.get(copy.path.0).cloned().unwrap_or_default(),
                lba: copy.range.first().0,
                blocks: copy.range.count(),
                assumed_dead_at: milliseconds(today + copy.assumed_dead_at.since(now)),
            };
            let mut own = this.own.lock().unwrap_or_else(PoisonError::into_inner);
            own.insert(device.clone(), copies.iter().map(stored).collect());
            let all: Vec<Copy> = own.values().flatten().cloned().collect();
            if let Err(error) = this.write(lane, all) {
                tracing::warn!(lane, %error, "the copies of writes that may still land cannot be written down");
            }
            true
        }
    }

    fn write(&self, lane: u16, copies: Vec<Copy>) -> io::Result<()> {
        let file = self.folder.join(format!("lane-{lane}-{}.{EXTENSION}", &self.volume[..8]));
        if copies.is_empty() {
            return match std::fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let new = file.with_extension("copies-new");
        let stored = Stored { version: 1, volume: self.volume.clone(), copies };
        std::fs::write(&new, serde_json::to_vec(&stored)?)?;
        std::fs::rename(&new, &file)
    }
}

/// Whether a file is by its name one of this volume.
fn is_of(file: &Path, volume: &str) -> bool {
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let is_lane = stem.strip_prefix("lane-").and_then(|rest| rest.strip_suffix(&volume[..8]));
    let is_number =
        is_lane.and_then(|rest| rest.strip_suffix('-')).is_some_and(|lane| lane.parse::<u16>().is_ok());
    is_number && file.extension().is_some_and(|extension| extension == EXTENSION)
}

fn read_file(file: &Path, volume: &str) -> Result<Vec<Copy>, String> {
    let mut text = Vec::new();
    let opened = std::fs::File::open(file).map_err(|error| error.to_string())?;
    opened.take(FILE_MAX_BYTES + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > FILE_MAX_BYTES {
        return Err(format!("it is longer than {FILE_MAX_BYTES} bytes"));
    }
    let stored: Stored = serde_json::from_slice(&text).map_err(|_| "it is damaged".to_owned())?;
    if stored.version != 1 || stored.volume != volume {
        return Err("it is of another volume or version".to_owned());
    }
    Ok(stored.copies)
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use multipath::{FailoverConfig, PathConfig, SelectorKind};

    use super::*;
    use crate::config::PathText;

    const NOW: Instant = Instant(5_000_000_000);

    fn device() -> DeviceConfig {
        let path = |text: &str| PathText { text: text.to_owned(), line: 1, config: PathConfig::default() };
        DeviceConfig {
            id: "disk1".parse().unwrap(),
            paths: vec![path("file:a"), path("file:b")],
            policy: SelectorKind::default(),
            failover: FailoverConfig { quiesce_time: Duration::from_secs(40), ..FailoverConfig::default() },
        }
    }

    fn copy(lba: u64, seconds: u64) -> LivingCopy {
        LivingCopy {
            tag: IoTag(3),
            path: PathIndex(1),
            range: BlockRange::new(Lba(lba), 4),
            assumed_dead_at: NOW + Duration::from_secs(seconds),
            policy: FencePolicy::Fence,
            is_inherited: false,
        }
    }

    #[test]
    fn what_one_process_leaves_the_next_one_finds_until_it_is_dead() {
        let folder = tempfile::tempdir().unwrap();
        let read = || {
            let (copies, notices) = LivingCopies::read(folder.path(), &[7; 16]);
            assert!(notices.is_empty(), "{notices:?}");
            copies
        };
        let first = read();
        let mut write = first.writer(&device());
        assert!(!write(NOW, &[copy(8, 30)]), "it has no lane yet");
        first.take_lane(2);
        assert!(write(NOW, &[copy(8, 30), copy(16, 9999), copy(24, 0)]));
        let later = Instant(70_000_000_000);
        let (found, notice) = read().left_of(&device(), later);
        // The one whose time is over is gone, and none is held for longer than the quiesce time.
        let ranges: Vec<_> =
            found.iter().map(|copy| (copy.range.first().0, copy.range.count(), copy.path.0)).collect();
        assert_eq!(ranges, [(8, 4, 1), (16, 4, 1)]);
        assert!(found.iter().all(|copy| copy.is_inherited));
        let left = found[0].assumed_dead_at.since(later);
        assert!(left <= Duration::from_secs(30) && left > Duration::from_secs(1), "{left:?}");
        assert_eq!(found[1].assumed_dead_at, later + Duration::from_secs(40));
        assert!(notice.unwrap().starts_with("disk1: writes to 2 ranges wait for up to 40.0 s"));
        let other = DeviceConfig { id: "disk2".parse().unwrap(), ..device() };
        assert_eq!(read().left_of(&other, later), (vec![], None));
        // Another volume sees nothing of it.
        let (others, notices) = LivingCopies::read(folder.path(), &[8; 16]);
        assert_eq!((others.left.len(), notices.len()), (0, 0));
        assert!(write(NOW, &[]));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left of it");
    }

    #[test]
    fn what_is_not_in_order_is_left_out_with_a_notice() {
        let folder = tempfile::tempdir().unwrap();
        let volume = volume::open::hex(&[7; 16]);
        let put = |lane: u16, text: &str| {
            std::fs::write(folder.path().join(format!("lane-{lane}-07070707.copies")), text).unwrap();
        };
        put(0, "{");
        put(1, "{\"version\":1,\"volume\":\"07070707\",\"copies\":[]}");
        put(2, &format!("{{\"version\":2,\"volume\":\"{volume}\",\"copies\":[]}}"));
        put(3, &"x".repeat(1 + usize::try_from(FILE_MAX_BYTES).unwrap()));
        // The end of a range is past all numbers, and so is its time.
        let most = u64::MAX;
        let copy = format!(
            "{{\"device\":\"disk1\",\"path\":\"?\",\"lba\":{most},\"blocks\":{most},\"assumed_dead_at\":{most}}}"
        );
        put(4, &format!("{{\"version\":1,\"volume\":\"{volume}\",\"copies\":[{copy}]}}"));
        std::fs::write(folder.path().join("lane-x-07070707.copies"), "no lane").unwrap();
        let (copies, notices) = LivingCopies::read(folder.path(), &[7; 16]);
        assert_eq!(notices.len(), 4, "{notices:?}");
        let (found, _) = copies.left_of(&device(), NOW);
        assert_eq!((found.len(), found[0].assumed_dead_at), (1, NOW + Duration::from_secs(40)));
    }
}
