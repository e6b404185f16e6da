//! A/B pairs: two consecutive blocks of which one is always whole.
//!
//! Version v goes to block v mod 2. At most one write of a pair is in flight; after an error the same
//! bytes go to the same block again; only a write that has been in doubt for long lets the next version
//! go to the other block. So a torn or running write never hides the last good state. A reader takes
//! the highest valid (incarnation, version) above what it has accepted, and nothing older, ever.
//!
//! Only the latest version is followed. After v in doubt and v + 1 written, v + 2 goes to the block of v,
//! and v may still land there, before it, after it, or torn into it:
//!
//! * A reader never takes v: v + 1 is whole in the other block and higher, and a mixture does not open.
//!   So what is taken stays in order and whole.
//! * v + 2 may be lost by it. That is a lost write like any other, reported as done or not: the owner
//!   writes a higher version when nobody reacts (rule 8), and each later version of that block meets at
//!   most the writes that were in doubt, which land once.
//!
//! To wait for v would be no safer, only slower: a device that keeps a write for minutes would hold up
//! the connection although both blocks can be written.

use std::time::Duration;

use storage_mapping::{Buffer, Instant, SharedBuffer};
use volume::header::{BLOCK_BYTES, Edition, HEADER_BYTES, Header, Place, RecordType, parse_page};
use volume::record::Record;

/// When an unfinished write is in doubt (T_doubt).
pub const DOUBT: Duration = Duration::from_secs(30);
/// Pause before a write that failed is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The writing side.
#[derive(Debug)]
pub struct PairWriter {
    /// Place of the first block.
    place: Place,
    /// The last version that was written.
    version: u64,
    in_flight: Option<InFlight>,
}

#[derive(Debug)]
struct InFlight {
    version: u64,
    since: Instant,
    /// Of the first of the versions of which none has been written yet.
    waiting_since: Instant,
    bytes: SharedBuffer,
    retry_at: Option<Instant>,
}

/// A block to be written.
#[derive(Debug)]
pub struct PairWrite {
    /// Version, to name the completion.
    pub version: u64,
    /// Where.
    pub place: Place,
    /// What.
    pub bytes: SharedBuffer,
}

impl PairWriter {
    /// A pair that starts at `place`; the next version is 1.
    #[must_use]
    pub fn new(place: Place) -> Self {
        Self { place, version: 0, in_flight: None }
    }

    /// Version 1 was written by the start of the process.
    pub(crate) fn skip_version(&mut self) {
        self.version = 1;
    }

    /// The last version handed out.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether the next version may be written now.
    #[must_use]
    pub fn is_ready(&self, now: Instant) -> bool {
        self.in_flight.as_ref().is_none_or(|write| now.since(write.since) >= DOUBT)
    }

    /// Whether everything handed out has been written.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_none()
    }

    /// Since when no write has been done although one was asked for.
    #[must_use]
    pub fn waiting_since(&self) -> Option<Instant> {
        self.in_flight.as_ref().map(|write| write.waiting_since)
    }

    /// When the write in flight will be in doubt, so that the next version may be written.
    #[must_use]
    pub fn doubt_at(&self) -> Option<Instant> {
        self.in_flight.as_ref().map(|write| write.since + DOUBT)
    }

    /// Makes the next version with `build`, which gets its version and its place.
    ///
    /// # Panics
    /// If the pair is not ready.
    pub fn write(&mut self, now: Instant, build: impl FnOnce(u64, Place) -> Buffer) -> PairWrite {
        assert!(self.is_ready(now), "one write in flight per pair");
        // So the next version goes to the block beside the one that is in doubt.
        let followed = self.in_flight.as_ref().is_none_or(|write| write.version == self.version);
        assert!(followed, "only the latest version can be in flight");
        self.version += 1;
        let place = Place { block: self.place.block + self.version % 2, ..self.place };
        let bytes = build(self.version, place).freeze();
        let version = self.version;
        let waiting_since = self.in_flight.as_ref().map_or(now, |write| write.waiting_since);
        let in_flight = InFlight { version, since: now, waiting_since, bytes: bytes.clone(), retry_at: None };
        self.in_flight = Some(in_flight);
        PairWrite { version, place, bytes }
    }

    /// Takes the outcome of a write. `true` if it was the latest version and is now on the disk.
    pub fn handle_written(&mut self, now: Instant, version: u64, success: bool) -> bool {
        let Some(write) = self.in_flight.as_mut() else { return false };
        if write.version != version {
            if success {
                write.waiting_since = write.since;
            }
            return false;
        }
        if success {
            self.in_flight = None;
        } else {
            write.retry_at = Some(now + RETRY_PAUSE);
        }
        success
    }

    /// The same bytes for the same block again, after an error.
    pub fn poll_retry(&mut self, now: Instant) -> Option<PairWrite> {
        let write = self.in_flight.as_mut()?;
        if write.retry_at? > now {
            return None;
        }
        write.retry_at = None;
        let place = Place { block: self.place.block + write.version % 2, ..self.place };
        Some(PairWrite { version: write.version, place, bytes: write.bytes.clone() })
    }

    /// When [`poll_retry`](Self::poll_retry) wants to be called.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.in_flight.as_ref()?.retry_at
    }
}

/// The reading side.
#[derive(Debug, Default)]
pub struct PairReader {
    accepted: Option<(u64, u64)>,
}

/// What one read of a pair gave.
#[derive(Debug)]
pub enum PairRead<R> {
    /// Something newer than ever accepted.
    New(R),
    /// Nothing new.
    Same,
    /// A block claims to be newer and does not open.
    Invalid,
}

impl PairReader {
    /// The highest version accepted, of the latest incarnation.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.accepted.map_or(0, |(_, version)| version)
    }

    /// Picks the newest valid record of a pair at `place` that was read as `bytes` (two blocks).
    /// Only what claims to be newer than the last accepted is verified at all.
    pub fn read<R: Record>(
        &mut self,
        record_type: RecordType,
        place: Place,
        bytes: &[u8],
        key: Option<&[u8; 32]>,
    ) -> PairRead<R> {
        let mut candidates: Vec<(Edition, usize)> = (0..2)
            .filter_map(|half| {
                let page = bytes.get(half * BLOCK_BYTES..(half + 1) * BLOCK_BYTES)?;
                let edition = Header::parse(&page[..HEADER_BYTES]).ok()?.edition();
                let newer = self.accepted.is_none_or(|last| (edition.incarnation, edition.version) > last);
                newer.then_some((edition, half))
            })
            .collect();
        candidates.sort_by_key(|(edition, _)| std::cmp::Reverse((edition.incarnation, edition.version)));
        let mut invalid = false;
        for (edition, half) in candidates {
            let page = &bytes[half * BLOCK_BYTES..(half + 1) * BLOCK_BYTES];
            let place = Place { block: place.block + half as u64, ..place };
            let opened = parse_page::<R>(page, key).ok().filter(|_| {
                edition.version % 2 == half as u64
                    && Header::parse(&page[..HEADER_BYTES])
                        .is_ok_and(|header| header.check::<R>(record_type, place).is_ok())
            });
            if let Some(record) = opened {
                self.accepted = Some((edition.incarnation, edition.version));
                return PairRead::New(record);
            }
            invalid = true;
        }
        if invalid { PairRead::Invalid } else { PairRead::Same }
    }
}
