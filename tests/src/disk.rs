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
//!                            ├ misdirected: it lands, or looks, in another place
//!                            ├ stale: a look sees what was there before the last write
//!                            └ flipped: a look sees one bit wrong
//! ```
//!
//! Keeps true: a write outside the ranges of its process ends the run; a process that is gone leaves its
//! writes behind, and they land. Not here: the content (`medium`), which faults a run has (`plan`), when
//! paths hang (`world`).

mod medium;

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

pub use self::medium::{Block, Image, sum};
use self::medium::{Landing, LookFault, Medium};
use crate::chance::Chance;
use crate::checker::ownership::Monitor;
use crate::fault::{Fault, FaultCounters};
use crate::plan::DiskFaults;
use crate::script::{Met, Scripted, ScriptedFault};
use crate::trace::Trace;

/// Unit in which a torn write ends, and logical block of the disks.
const SECTOR_BYTES: usize = 512;
/// Unit of the volume, in which content is kept.
const BLOCK_BYTES: usize = 4096;
/// Requests in flight on one device, at most.
const QUEUE_DEPTH: usize = 64;
/// EIO.
const EIO: i32 = 5;
/// How far a misdirected request often lies from its place, in blocks.
const ASTRAY_BLOCKS: u64 = 64;

/// A disk that hosts share. A clone is the same disk.
#[derive(Clone, Debug)]
pub struct SharedDisk {
    medium: Arc<Mutex<Medium>>,
    number: u16,
    blocks: usize,
}

/// A path of one host to one disk, as the world can disturb it. A clone is the same path.
#[derive(Clone, Debug, Default)]
pub struct PathControl {
    state: Arc<Mutex<PathState>>,
}

#[derive(Clone, Copy, Debug, Default)]
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
        let blocks = usize::try_from(blocks).expect("a small disk");
        Self { medium: Arc::new(Mutex::new(Medium::new(blocks, faults))), number, blocks }
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

    /// What was written so far, to begin other disks with.
    #[must_use]
    pub fn to_image(&self) -> Image {
        let mut medium = self.lock();
        medium.advance(Instant(u64::MAX));
        medium.to_image()
    }

    /// Begins with `image` instead of zeros.
    pub fn set_image(&self, image: &Image) {
        self.lock().set_image(Arc::clone(image));
    }

    /// Says that only the administrator writes the blocks below `block`.
    ///
    /// # Panics
    /// If that is no block of a disk in memory.
    pub fn guard(&self, block: u64) {
        self.lock().guarded = usize::try_from(block).expect("a small disk");
    }

    /// How often a fault changed what only the administrator writes.
    #[must_use]
    pub fn guarded_changes(&self) -> u64 {
        self.lock().guarded_changes
    }

    /// The administrator writes his blocks again.
    pub fn restore_guarded(&self) {
        self.lock().restore_guarded();
    }

    /// From now on blocks keep their content of before, for a stale read that somebody else chooses.
    pub fn keep_before(&self) {
        self.lock().keep_before();
    }

    /// The write that was kept back lands, if there is one.
    pub fn land_kept(&self, now: Instant) {
        self.lock().land_kept(now);
    }

    /// What stands in a block now.
    ///
    /// # Panics
    /// If there is no such block.
    #[must_use]
    pub fn block(&self, now: Instant, block: u64) -> Block {
        let mut medium = self.lock();
        medium.advance(now);
        *medium.block(usize::try_from(block).expect("a small disk"))
    }

    /// Overwrites a block at once, past every rule.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn set_block(&self, now: Instant, block: u64, content: &Block) {
        let mut medium = self.lock();
        medium.advance(now);
        medium.set_block(usize::try_from(block).expect("a small disk"), content);
    }

    /// Opens the disk once more, over `path`; `monitor` looks at every write.
    #[must_use]
    pub fn device(&self, path: &PathControl, monitor: Monitor, chance: Chance, trace: Trace) -> DiskDevice {
        let disk = self.clone();
        let (path, flying) = (path.clone(), BTreeMap::new());
        DiskDevice { disk, path, monitor, chance, trace, flying, next: 0, script: None }
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
    script: Option<Scripted>,
}

/// When a request takes effect and when it completes.
struct Times {
    effect: Instant,
    done: Instant,
}

impl DiskDevice {
    /// Its requests are counted, and one of them may meet a fault.
    pub(crate) fn with_script(self, script: Option<Scripted>) -> Self {
        Self { script, ..self }
    }

    fn times(&mut self, medium: &mut Medium, path: PathState, now: Instant) -> Times {
        if path.calm {
            return Times { effect: now, done: now };
        }
        let start = now.max(path.hung_until);
        let faults = &medium.faults;
        let mut latency = self.chance.duration(faults.latency_low, faults.latency_high);
        if self.chance.hits(faults.slow) {
            medium.counters.count(Fault::Slow);
            latency += self.chance.duration(Duration::from_millis(20), medium.faults.slow_most);
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

    /// Another place on the disk for `length` bytes, near or anywhere.
    fn astray(&mut self, start: usize, length: usize) -> usize {
        let last = (self.disk.blocks - length.div_ceil(BLOCK_BYTES)) as u64;
        let own = (start / BLOCK_BYTES) as u64;
        let block = if self.chance.below(2) == 0 {
            (own + self.chance.range(1, ASTRAY_BLOCKS)).saturating_sub(ASTRAY_BLOCKS / 2).min(last)
        } else {
            self.chance.range(0, last)
        };
        usize::try_from(block).expect("below the disk's own") * BLOCK_BYTES
    }

    /// How much of a write lands that is torn.
    fn torn(&mut self, length: usize) -> usize {
        self.chance.index(length / SECTOR_BYTES) * SECTOR_BYTES
    }

    fn write(
        &mut self,
        medium: &mut Medium,
        now: Instant,
        path: PathState,
        start: usize,
        data: &SharedBuffer,
        times: &Times,
    ) -> bool {
        let sum = sum(data);
        self.monitor.check(now, self.disk.number, start, data);
        let mut landing = Landing { start, data: data.clone(), length: data.len(), sum, submitted: now };
        if path.calm {
            medium.land_at(times.effect, landing);
            return false;
        }
        let failing = path.failing_until > now;
        let mut failed = failing;
        let mut fault = None;
        if failing || self.chance.hits(medium.faults.error) {
            medium.counters.count(Fault::Error);
            failed = true;
            fault = Some("write error");
            // After an error nobody knows: nothing, a part, or all of it lands.
            landing.length = match self.chance.below(4) {
                0 => data.len(),
                1 => self.torn(data.len()),
                _ => 0,
            };
        } else if self.chance.hits(medium.faults.lost) {
            medium.counters.count(Fault::Lost);
            fault = Some("lost write");
            landing.length = 0;
        } else if self.chance.hits(medium.faults.torn) {
            landing.length = self.torn(data.len());
            let inside = !landing.length.is_multiple_of(BLOCK_BYTES);
            medium.counters.count(if inside { Fault::TornInBlock } else { Fault::TornAtBlock });
            fault = Some("torn write");
        } else if self.chance.hits(medium.faults.late) {
            medium.counters.count(Fault::Late);
            fault = Some("write that lands late once more");
            let later = self.chance.duration(Duration::from_millis(1), medium.faults.late_most);
            let again = Landing { data: data.clone(), ..landing };
            medium.land_at(times.done + later, again);
        } else if self.chance.hits(medium.faults.misdirected_write) {
            medium.counters.count(Fault::MisdirectedWrite);
            fault = Some("misdirected write");
            landing.start = self.astray(start, data.len());
        }
        if let Some(fault) = fault {
            self.report(now, fault, start);
        }
        if landing.length > 0 {
            medium.land_at(times.effect, landing);
        }
        failed
    }

    fn read(
        &mut self,
        medium: &mut Medium,
        now: Instant,
        path: PathState,
        start: usize,
        buffer: Buffer,
        times: &Times,
    ) -> (u64, bool) {
        if path.calm {
            return (medium.look_at(times.effect, start, LookFault::None, buffer), false);
        }
        let failing = path.failing_until > now;
        let mut failed = failing;
        let mut fault = LookFault::None;
        let mut told = None;
        if failing || self.chance.hits(medium.faults.error) {
            medium.counters.count(Fault::Error);
            failed = true;
            told = Some("read error");
        } else if self.chance.hits(medium.faults.stale) {
            medium.counters.count(Fault::Stale);
            fault = LookFault::Stale;
            told = Some("stale read");
        } else if self.chance.hits(medium.faults.flipped) {
            medium.counters.count(Fault::Flipped);
            fault = LookFault::Flip(self.chance.bits() >> 1);
            told = Some("flipped bit");
        } else if self.chance.hits(medium.faults.misdirected_read) {
            medium.counters.count(Fault::MisdirectedRead);
            fault = LookFault::Elsewhere(self.astray(start, buffer.len()));
            told = Some("misdirected read");
        }
        if let Some(told) = told {
            self.report(now, told, start);
        }
        (medium.look_at(times.effect, start, fault, buffer), failed)
    }
}

/// Requests that meet the fault of a script.
impl DiskDevice {
    /// What the script says about the next request.
    fn meet(&self, now: Instant, path: PathState, operation: &Operation) -> Met {
        let Some(script) = self.script.as_ref().filter(|_| !path.calm) else { return Met::Nothing };
        match operation {
            Operation::Read { buffer, .. } => script.meet(now, false, buffer.len()),
            Operation::Write { data, .. } => script.meet(now, true, data.len()),
            Operation::Flush => Met::Nothing,
        }
    }

    /// What a fault does to the times of its request.
    fn delay(&self, fault: ScriptedFault, times: &mut Times) {
        let longer = match fault {
            ScriptedFault::HangShort => Duration::from_secs(10),
            ScriptedFault::HangLong => Duration::from_secs(130),
            _ => Duration::ZERO,
        };
        times.effect = times.effect + longer;
        times.done = times.done + longer;
        if let (ScriptedFault::KilledAfter, Some(script)) = (fault, &self.script) {
            script.kill_at(times.effect);
        }
    }

    /// The place behind `length` bytes at `start`, or before them at the end of the disk.
    fn beside(&self, start: usize, length: usize) -> usize {
        let is_room = start + 2 * length <= self.disk.blocks * BLOCK_BYTES;
        if is_room { start + length } else { start - length }
    }

    fn write_scripted(
        &self,
        medium: &mut Medium,
        now: Instant,
        fault: ScriptedFault,
        (start, data): (usize, &SharedBuffer),
        times: &Times,
    ) -> bool {
        self.monitor.check(now, self.disk.number, start, data);
        self.report(now, fault.name(), start);
        let whole =
            || Landing { start, data: data.clone(), length: data.len(), sum: sum(data), submitted: now };
        let mut landing = whole();
        match fault {
            ScriptedFault::Error | ScriptedFault::Lost => landing.length = 0,
            ScriptedFault::ErrorPartLanded => landing.length = data.len() / SECTOR_BYTES / 2 * SECTOR_BYTES,
            ScriptedFault::TornInBlock => {
                landing.length =
                    (data.len() / BLOCK_BYTES).saturating_sub(1) / 2 * BLOCK_BYTES + SECTOR_BYTES;
            }
            ScriptedFault::TornAtBlock => landing.length = data.len() / BLOCK_BYTES / 2 * BLOCK_BYTES,
            ScriptedFault::LateSoon => medium.land_at(times.done + Duration::from_millis(20), whole()),
            ScriptedFault::Late => medium.land_at(times.done + Duration::from_secs(30), whole()),
            ScriptedFault::LateAfterClose => medium.keep(whole()),
            ScriptedFault::MisdirectedWrite => landing.start = self.beside(start, data.len()),
            _ => {}
        }
        if landing.length > 0 {
            medium.land_at(times.effect, landing);
        }
        matches!(fault, ScriptedFault::Error | ScriptedFault::ErrorAllLanded | ScriptedFault::ErrorPartLanded)
    }

    fn read_scripted(
        &self,
        medium: &mut Medium,
        now: Instant,
        fault: ScriptedFault,
        (start, buffer): (usize, Buffer),
        times: &Times,
    ) -> (u64, bool) {
        self.report(now, fault.name(), start);
        let nth = self.script.as_ref().map_or(0, Scripted::nth);
        let look = match fault {
            ScriptedFault::Stale => LookFault::Stale,
            // Somewhere else in the block each time.
            ScriptedFault::Flipped => LookFault::Flip(nth * 4099),
            ScriptedFault::MisdirectedRead => LookFault::Elsewhere(self.beside(start, buffer.len())),
            _ => LookFault::None,
        };
        (medium.look_at(times.effect, start, look, buffer), fault == ScriptedFault::Error)
    }
}

impl BlockDevice for DiskDevice {
    fn geometry(&self) -> Geometry {
        let bytes = self.disk.blocks * BLOCK_BYTES;
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
            let path = *self.path.lock();
            let met = self.meet(now, path, &request.operation);
            if met == Met::Dead {
                return Ok(());
            }
            let mut times = self.times(&mut medium, path, now);
            if let Met::Fault(fault) = met {
                self.delay(fault, &mut times);
            }
            let byte = |lba: storage_mapping::Lba| usize::try_from(lba.0).expect("checked") * SECTOR_BYTES;
            let (kind, failed) = match request.operation {
                Operation::Read { lba, buffer } => {
                    let place = (byte(lba), buffer);
                    let (look, failed) = match met {
                        Met::Fault(fault) => self.read_scripted(&mut medium, now, fault, place, &times),
                        _ => self.read(&mut medium, now, path, place.0, place.1, &times),
                    };
                    (FlyingKind::Read { look }, failed)
                }
                Operation::Write { lba, data, .. } => {
                    let place = (byte(lba), &data);
                    let failed = match met {
                        Met::Fault(fault) => self.write_scripted(&mut medium, now, fault, place, &times),
                        _ => self.write(&mut medium, now, path, place.0, place.1, &times),
                    };
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
                IoBuffer::Read(medium.take_look(look).expect("a look keeps its buffer until now"))
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
