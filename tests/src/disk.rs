//! Shared disks that misbehave: every host opens its own device on them, as on one LUN.
//!
//! A request takes effect at some moment between its submission and its completion, and effects of all
//! hosts happen in the order of their times. What can go wrong with a request is drawn when it is
//! submitted:
//!
//! ```text
//! submit ──[path hangs]──▶ effect (landing, or look) ──▶ completion
//!                            ├ error: EIO; a write lands or not       └─▶ late: it lands once more
//!                            ├ lost: nothing lands, reported as done
//!                            ├ torn: the first part lands, in units of 512 bytes
//!                            ├ stale: a look sees what was there before the last write
//!                            └ flipped: a look sees one bit wrong
//! ```
//!
//! Keeps true: a write outside the ranges of its process ends the run; a process that is gone leaves its
//! writes behind, and they land. Not here: which faults a run has (`plan`), when paths hang (`world`).

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use storage_mapping::block::buffer::ALIGNMENT_BYTES;
use storage_mapping::{
    BlockCount, BlockDevice, BlockSize, Buffer, BufferPool, Cancelled, CopyFate, DeviceEvent, Effect,
    Geometry, Instant, IoBuffer, IoCompletion, IoError, IoRequest, IoTag, Operation, RefusalReason, Refused,
    SharedBuffer,
};

use crate::chance::Chance;
use crate::checker::ownership::Monitor;
use crate::plan::DiskFaults;
use crate::trace::Trace;

/// Unit in which a torn write ends, and logical block of the disks.
const SECTOR_BYTES: usize = 512;
/// Unit of the volume, in which old content is kept for stale looks.
const BLOCK_BYTES: usize = 4096;
/// Requests in flight on one device, at most.
const QUEUE_DEPTH: usize = 64;
/// EIO.
const EIO: i32 = 5;

/// How many faults of each kind were injected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounters {
    /// Processes killed.
    pub crashes: u64,
    /// Requests failed with EIO.
    pub errors: u64,
    /// Looks with one bit wrong.
    pub flipped: u64,
    /// Times that a path stopped answering.
    pub hangs: u64,
    /// Writes that landed twice.
    pub late: u64,
    /// Writes of which nothing landed.
    pub lost: u64,
    /// Processes that did not run for a while.
    pub pauses: u64,
    /// Requests that took very long.
    pub slow: u64,
    /// Looks at old content.
    pub stale: u64,
    /// Processes stopped in order, and jobs interrupted.
    pub stops: u64,
    /// Writes of which a part landed.
    pub torn: u64,
}

impl FaultCounters {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.fields_mut().into_iter().zip(other.fields()) {
            *mine += theirs.1;
        }
    }

    /// By name.
    #[must_use]
    pub fn fields(&self) -> [(&'static str, u64); 11] {
        [
            ("crashes", self.crashes),
            ("errors", self.errors),
            ("flipped", self.flipped),
            ("hangs", self.hangs),
            ("late", self.late),
            ("lost", self.lost),
            ("pauses", self.pauses),
            ("slow", self.slow),
            ("stale", self.stale),
            ("stops", self.stops),
            ("torn", self.torn),
        ]
    }

    fn fields_mut(&mut self) -> [&mut u64; 11] {
        [
            &mut self.crashes,
            &mut self.errors,
            &mut self.flipped,
            &mut self.hangs,
            &mut self.late,
            &mut self.lost,
            &mut self.pauses,
            &mut self.slow,
            &mut self.stale,
            &mut self.stops,
            &mut self.torn,
        ]
    }
}

/// What happens on the medium at a moment.
#[derive(Debug)]
enum Moment {
    Land { start: usize, data: SharedBuffer, length: usize },
    Look { look: u64, start: usize, fault: LookFault },
}

#[derive(Clone, Copy, Debug)]
enum LookFault {
    None,
    Stale,
    Flip(u64),
}

#[derive(Debug)]
struct Medium {
    bytes: Vec<u8>,
    /// Content of blocks before their last write, kept where looks may be stale.
    before: Option<BTreeMap<usize, Box<[u8]>>>,
    moments: BTreeMap<(Instant, u64), Moment>,
    /// Buffers of looks until their completion.
    looks: BTreeMap<u64, Buffer>,
    next: u64,
    faults: DiskFaults,
    counters: FaultCounters,
}

/// A disk that hosts share. A clone is the same disk.
#[derive(Clone, Debug)]
pub struct SharedDisk {
    medium: Arc<Mutex<Medium>>,
    number: u16,
}

/// A path of one host to one disk, as the world can disturb it. A clone is the same path.
#[derive(Clone, Debug, Default)]
pub struct PathControl {
    state: Arc<Mutex<PathState>>,
}

#[derive(Debug, Default)]
struct PathState {
    hung_until: Instant,
    failing_until: Instant,
    calm: bool,
}

impl PathControl {
    fn lock(&self) -> MutexGuard<'_, PathState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests submitted from now on are held up until then.
    pub fn hang_until(&self, until: Instant) {
        let mut state = self.lock();
        state.hung_until = state.hung_until.max(until);
    }

    /// Requests submitted until then fail.
    pub fn fail_until(&self, until: Instant) {
        let mut state = self.lock();
        state.failing_until = state.failing_until.max(until);
    }

    /// Whether requests complete at once and without faults: for opening a volume.
    pub fn set_calm(&self, calm: bool) {
        self.lock().calm = calm;
    }

    /// Ends hanging and failing.
    pub fn heal(&self) {
        let mut state = self.lock();
        (state.hung_until, state.failing_until) = (Instant::ZERO, Instant::ZERO);
    }
}

impl SharedDisk {
    /// A zeroed disk of `blocks` blocks of 4,096 bytes.
    ///
    /// # Panics
    /// If it does not fit in memory.
    #[must_use]
    pub fn new(number: u16, blocks: u64, faults: DiskFaults) -> Self {
        let size = usize::try_from(blocks).expect("a small disk") * BLOCK_BYTES;
        let medium = Medium {
            bytes: vec![0; size],
            before: (faults.stale > 0).then(BTreeMap::new),
            moments: BTreeMap::new(),
            looks: BTreeMap::new(),
            next: 0,
            faults,
            counters: FaultCounters::default(),
        };
        Self { medium: Arc::new(Mutex::new(medium)), number }
    }

    fn lock(&self) -> MutexGuard<'_, Medium> {
        self.medium.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on requests do what they should; what is late still lands.
    pub fn stop_faults(&self) {
        let mut medium = self.lock();
        medium.faults = medium.faults.stopped();
    }

    /// What was injected so far.
    #[must_use]
    pub fn counters(&self) -> FaultCounters {
        self.lock().counters
    }

    /// Opens the disk once more, over `path`; `monitor` says which writes are allowed.
    #[must_use]
    pub fn device(&self, path: &PathControl, monitor: Monitor, chance: Chance, trace: Trace) -> DiskDevice {
        let disk = self.clone();
        DiskDevice { disk, path: path.clone(), monitor, chance, trace, flying: BTreeMap::new(), next: 0 }
    }
}

impl Medium {
    /// Lets everything happen that is due.
    fn advance(&mut self, now: Instant) {
        while let Some(first) = self.moments.first_entry() {
            if first.key().0 > now {
                return;
            }
            match first.remove() {
                Moment::Land { start, data, length } => self.land(start, &data[..length]),
                Moment::Look { look, start, fault } => self.look(look, start, fault),
            }
        }
    }

    fn land(&mut self, start: usize, data: &[u8]) {
        if let Some(before) = &mut self.before {
            for block in start / BLOCK_BYTES..(start + data.len()).div_ceil(BLOCK_BYTES) {
                let old = &self.bytes[block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES];
                before.insert(block, old.into());
            }
        }
        self.bytes[start..start + data.len()].copy_from_slice(data);
    }

    fn look(&mut self, look: u64, start: usize, fault: LookFault) {
        let Some(buffer) = self.looks.get_mut(&look) else { return };
        let length = buffer.len();
        buffer.copy_from_slice(&self.bytes[start..start + length]);
        match fault {
            LookFault::None => {}
            LookFault::Stale => {
                let before = self.before.iter().flatten();
                for (block, old) in before {
                    let at = block * BLOCK_BYTES;
                    if at >= start && at + BLOCK_BYTES <= start + length {
                        buffer[at - start..at - start + BLOCK_BYTES].copy_from_slice(old);
                    }
                }
            }
            LookFault::Flip(bit) => {
                let bit = usize::try_from(bit).unwrap_or(0) % (length * 8);
                buffer[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    fn at(&mut self, time: Instant, moment: Moment) {
        self.next += 1;
        self.moments.insert((time, self.next), moment);
    }
}

/// A request on its way.
#[derive(Debug)]
struct Flying {
    tag: IoTag,
    failed: bool,
    kind: FlyingKind,
}

#[derive(Debug)]
enum FlyingKind {
    Read { look: u64 },
    Write(SharedBuffer),
    Flush,
}

/// One opening of a disk by one process.
#[derive(Debug)]
pub struct DiskDevice {
    disk: SharedDisk,
    path: PathControl,
    monitor: Monitor,
    chance: Chance,
    trace: Trace,
    flying: BTreeMap<(Instant, u64), Flying>,
    next: u64,
}

/// When a request takes effect and when it completes.
struct Times {
    effect: Instant,
    done: Instant,
}

impl DiskDevice {
    fn times(&mut self, medium: &mut Medium, now: Instant) -> Times {
        let state = self.path.lock();
        if state.calm {
            return Times { effect: now, done: now };
        }
        let start = now.max(state.hung_until);
        drop(state);
        let faults = &medium.faults;
        let mut latency = self.chance.duration(faults.latency_low, faults.latency_high);
        if self.chance.hits(faults.slow) {
            medium.counters.slow += 1;
            latency += self.chance.duration(Duration::from_millis(20), Duration::from_secs(60));
        }
        let part = Duration::from_nanos(self.chance.below(u64::try_from(latency.as_nanos()).unwrap_or(1)));
        Times { effect: start + part, done: start + latency }
    }

    fn report(&self, now: Instant, fault: &'static str, start: usize) {
        let block = start / BLOCK_BYTES;
        let number = self.disk.number;
        self.trace.numbers(now, "disk", &[number.into(), block as u64, fault.len() as u64], || {
            format!("{fault} at device {number} block {block}")
        });
    }

    fn write(
        &mut self,
        medium: &mut Medium,
        now: Instant,
        start: usize,
        data: &SharedBuffer,
        times: &Times,
    ) -> bool {
        self.monitor.check(now, self.disk.number, start, data.len());
        let calm = self.path.lock().calm;
        let failing = !calm && self.path.lock().failing_until > now;
        let (faults, chance) = (medium.faults.clone(), &mut self.chance);
        let mut length = data.len();
        let mut failed = failing;
        let mut fault = None;
        if calm {
        } else if failing || chance.hits(faults.error) {
            medium.counters.errors += 1;
            failed = true;
            fault = Some("write error");
            // After an error nobody knows: nothing, a part, or all of it lands.
            length = match chance.below(4) {
                0 => data.len(),
                1 => chance.index(data.len() / SECTOR_BYTES) * SECTOR_BYTES,
                _ => 0,
            };
        } else if chance.hits(faults.lost) {
            medium.counters.lost += 1;
            fault = Some("lost write");
            length = 0;
        } else if chance.hits(faults.torn) {
            medium.counters.torn += 1;
            fault = Some("torn write");
            length = chance.index(data.len() / SECTOR_BYTES) * SECTOR_BYTES;
        } else if chance.hits(faults.late) {
            medium.counters.late += 1;
            fault = Some("write that lands late once more");
            let later = chance.duration(Duration::from_millis(1), Duration::from_secs(90));
            medium.at(times.done + later, Moment::Land { start, data: data.clone(), length });
        }
        if let Some(fault) = fault {
            self.report(now, fault, start);
        }
        if length > 0 {
            medium.at(times.effect, Moment::Land { start, data: data.clone(), length });
        }
        failed
    }

    fn read(
        &mut self,
        medium: &mut Medium,
        now: Instant,
        start: usize,
        buffer: Buffer,
        times: &Times,
    ) -> (u64, bool) {
        let calm = self.path.lock().calm;
        let failing = !calm && self.path.lock().failing_until > now;
        let (faults, chance) = (medium.faults.clone(), &mut self.chance);
        let mut failed = failing;
        let mut fault = LookFault::None;
        let mut told = None;
        if calm {
        } else if failing || chance.hits(faults.error) {
            medium.counters.errors += 1;
            failed = true;
            told = Some("read error");
        } else if chance.hits(faults.stale) {
            medium.counters.stale += 1;
            fault = LookFault::Stale;
            told = Some("stale read");
        } else if chance.hits(faults.flipped) {
            medium.counters.flipped += 1;
            fault = LookFault::Flip(chance.bits() >> 1);
            told = Some("flipped bit");
        }
        if let Some(told) = told {
            self.report(now, told, start);
        }
        medium.next += 1;
        let look = medium.next;
        medium.looks.insert(look, buffer);
        medium.at(times.effect, Moment::Look { look, start, fault });
        (look, failed)
    }
}

impl BlockDevice for DiskDevice {
    fn geometry(&self) -> Geometry {
        let bytes = self.disk.lock().bytes.len();
        Geometry {
            block_size: BlockSize::B512,
            block_count: BlockCount((bytes / SECTOR_BYTES) as u64),
            transfer_max_bytes: 4 << 20,
            buffer_alignment_bytes: ALIGNMENT_BYTES,
            queue_depth: QUEUE_DEPTH,
        }
    }

    fn submit(&mut self, now: Instant, request: IoRequest) -> Result<(), Refused> {
        let geometry = self.geometry();
        let fits = match &request.operation {
            Operation::Read { lba, buffer } => geometry.admits(*lba, buffer.len()),
            Operation::Write { lba, data, .. } => geometry.admits(*lba, data.len()),
            Operation::Flush => true,
        };
        let reason = if !fits {
            RefusalReason::Invalid
        } else if self.flying.len() >= QUEUE_DEPTH {
            RefusalReason::Busy
        } else if self.flying.values().any(|flying| flying.tag == request.tag) {
            RefusalReason::DuplicateTag
        } else {
            let disk = self.disk.clone();
            let mut medium = disk.lock();
            medium.advance(now);
            let times = self.times(&mut medium, now);
            let byte = |lba: storage_mapping::Lba| usize::try_from(lba.0).expect("checked") * SECTOR_BYTES;
            let (kind, failed) = match request.operation {
                Operation::Read { lba, buffer } => {
                    let (look, failed) = self.read(&mut medium, now, byte(lba), buffer, &times);
                    (FlyingKind::Read { look }, failed)
                }
                Operation::Write { lba, data, .. } => {
                    let failed = self.write(&mut medium, now, byte(lba), &data, &times);
                    (FlyingKind::Write(data), failed)
                }
                Operation::Flush => (FlyingKind::Flush, false),
            };
            self.next += 1;
            self.flying.insert((times.done, self.next), Flying { tag: request.tag, failed, kind });
            return Ok(());
        };
        Err(Refused { reason, request })
    }

    fn poll(&mut self, now: Instant) -> Option<IoCompletion> {
        let first = self.flying.first_entry().filter(|first| first.key().0 <= now)?;
        let Flying { tag, failed, kind } = first.remove();
        let buffer = match kind {
            FlyingKind::Read { look } => {
                let mut medium = self.disk.lock();
                medium.advance(now);
                IoBuffer::Read(medium.looks.remove(&look).expect("a look keeps its buffer until now"))
            }
            FlyingKind::Write(data) => IoBuffer::Write(data),
            FlyingKind::Flush => IoBuffer::None,
        };
        Some(if failed {
            let outcome = Err(IoError::errno(EIO));
            IoCompletion { tag, outcome, effect: Effect::Unknown, copy: CopyFate::MayLand, buffer }
        } else {
            IoCompletion { tag, outcome: Ok(()), effect: Effect::Full, copy: CopyFate::Dead, buffer }
        })
    }

    fn poll_event(&mut self, _now: Instant) -> Option<DeviceEvent> {
        None
    }

    fn next_wakeup(&self) -> Option<Instant> {
        self.flying.first_key_value().map(|((done, _), _)| *done)
    }

    fn cancel(&mut self, _now: Instant, tag: IoTag) -> Cancelled {
        if self.flying.values().any(|flying| flying.tag == tag) {
            Cancelled::Requested
        } else {
            Cancelled::NotHere
        }
    }

    fn attach_pool(&mut self, _pool: &BufferPool) {}

    fn wait_on(&self, _descriptors: &mut Vec<RawFd>) {}
}
