//! A path that could not be opened yet: it stands among the paths of its device until it can be.
//!
//! ```text
//!             asked, and the pause is over          opened, and it fits
//!   Absent ────────────────────────────▶ Trying ────────────────────▶ There: LinkUp, then all goes through
//!     ▲                                    │ │  opened, but it is not a path of this device
//!     └────────────────────────────────────┘ └──────────────────────▶ KeptOut, for good
//!           not opened: a longer pause
//! ```
//!
//! Keeps true: it is tried when somebody asks (a probe), at most once at a time and on a thread that nobody waits for;
//! until then every request is refused as [`RefusalReason::Closed`]; what stands in is not smaller, takes what the
//! geometry that was promised admits, and says LinkUp before anything else. Not here: whether two paths lead to one
//! disk (who gives the way to open), and comparing them (crate `multipath`).

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::block::buffer::BufferPool;
use crate::block::request::{Cancelled, IoCompletion, IoRequest, IoTag, RefusalReason, Refused};
use crate::block::time::Instant;
use crate::block::{BlockDevice, DeviceEvent, Geometry};
use crate::control_port::ControlPort;
use crate::hand_off::{Giver, Taker, results};

/// The first pause between two attempts.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Why a path is still not there, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotThere {
    /// It cannot be opened now.
    Later(String),
    /// It is not a path of this device.
    Never(String),
}

/// Opens the path; it may take its time.
pub type OpenLater = dyn Fn() -> Result<Box<dyn BlockDevice>, NotThere> + Send + Sync;

enum State {
    Absent { why: String, not_before: Instant, pause: Duration },
    Trying { why: String, pause: Duration },
    KeptOut { why: String },
    There { device: Box<dyn BlockDevice>, is_new: bool },
}

/// A path that could not be opened yet.
pub struct AbsentDevice {
    geometry: Geometry,
    state: State,
    open: Arc<OpenLater>,
    giver: Giver<Result<Box<dyn BlockDevice>, NotThere>>,
    opened: Taker<Result<Box<dyn BlockDevice>, NotThere>>,
    pool: Option<BufferPool>,
}

impl fmt::Debug for AbsentDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AbsentDevice").field("notice", &self.notice()).finish_non_exhaustive()
    }
}

impl AbsentDevice {
    /// A path that will be opened by `open`, and promises the geometry of a sibling; `why` it is not there.
    ///
    /// # Errors
    /// Where the system gives no descriptor.
    pub fn new(geometry: Geometry, why: String, open: Arc<OpenLater>) -> io::Result<Self> {
        let (giver, opened) = results()?;
        let state = State::Absent { why, not_before: Instant::ZERO, pause: PAUSE_MIN };
        Ok(Self { geometry, state, open, giver, opened, pool: None })
    }

    /// Somebody asks: time for another attempt?
    fn try_open(&mut self, now: Instant) {
        let State::Absent { why, not_before, pause } = &self.state else { return };
        if now < *not_before {
            return;
        }
        let (why, pause) = (why.clone(), *pause);
        let (open, giver) = (Arc::clone(&self.open), self.giver.clone());
        // Where nobody takes it any more, it is closed again there.
        let work = move || {
            giver.give(open());
        };
        match thread::Builder::new().name("open-path".to_owned()).spawn(work) {
            Ok(_) => self.state = State::Trying { why, pause },
            Err(error) => self.put_off(now, pause, format!("no thread for it: {error}")),
        }
    }

    fn put_off(&mut self, now: Instant, pause: Duration, why: String) {
        self.state = State::Absent { why, not_before: now + pause, pause: (pause * 2).min(PAUSE_MAX) };
    }

    /// Takes in what came of an attempt.
    fn take_in(&mut self, now: Instant) {
        let State::Trying { pause, .. } = self.state else { return };
        let Some(result) = self.opened.take() else { return };
        match result.and_then(|device| self.fit(device)) {
            Ok(mut device) => {
                if let Some(pool) = &self.pool {
                    device.attach_pool(pool);
                }
                self.state = State::There { device, is_new: true };
            }
            Err(NotThere::Later(why)) => self.put_off(now, pause, why),
            Err(NotThere::Never(why)) => self.state = State::KeptOut { why },
        }
    }

    /// Whether it is what was promised.
    fn fit(&self, device: Box<dyn BlockDevice>) -> Result<Box<dyn BlockDevice>, NotThere> {
        let (found, promised) = (device.geometry(), self.geometry);
        let shape = |geometry: Geometry| (geometry.block_size.bytes(), geometry.block_count.0);
        if shape(found) != shape(promised) {
            let ((block, count), (promised_block, promised_count)) = (shape(found), shape(promised));
            return Err(NotThere::Never(format!(
                "it has {count} blocks of {block} bytes, and the device {promised_count} of {promised_block}"
            )));
        }
        let takes_all = found.transfer_max_bytes >= promised.transfer_max_bytes
            && promised.buffer_alignment_bytes.is_multiple_of(found.buffer_alignment_bytes);
        if takes_all {
            Ok(device)
        } else {
            Err(NotThere::Never(format!(
                "it takes {} bytes at once from multiples of {}, and this process was started with paths that take {} \
                 from multiples of {}: start it anew",
                found.transfer_max_bytes,
                found.buffer_alignment_bytes,
                promised.transfer_max_bytes,
                promised.buffer_alignment_bytes
            )))
        }
    }
}

impl BlockDevice for AbsentDevice {
    fn geometry(&self) -> Geometry {
        match &self.state {
            State::There { device, .. } => device.geometry(),
            _ => self.geometry,
        }
    }

    fn submit(&mut self, now: Instant, request: IoRequest) -> Result<(), Refused> {
        if let State::There { device, .. } = &mut self.state {
            return device.submit(now, request);
        }
        self.try_open(now);
        Err(Refused { reason: RefusalReason::Closed, request })
    }

    fn poll(&mut self, now: Instant) -> Option<IoCompletion> {
        match &mut self.state {
            State::There { device, .. } => device.poll(now),
            _ => None,
        }
    }

    fn poll_event(&mut self, now: Instant) -> Option<DeviceEvent> {
        self.take_in(now);
        let State::There { device, is_new } = &mut self.state else { return None };
        if std::mem::take(is_new) { Some(DeviceEvent::LinkUp) } else { device.poll_event(now) }
    }

    fn next_wakeup(&self) -> Option<Instant> {
        match &self.state {
            State::There { is_new: true, .. } => Some(Instant::ZERO),
            State::There { device, .. } => device.next_wakeup(),
            _ => None,
        }
    }

    fn cancel(&mut self, now: Instant, tag: IoTag) -> Cancelled {
        match &mut self.state {
            State::There { device, .. } => device.cancel(now, tag),
            _ => Cancelled::NotHere,
        }
    }

    fn attach_pool(&mut self, pool: &BufferPool) {
        self.pool = Some(pool.clone());
        if let State::There { device, .. } = &mut self.state {
            device.attach_pool(pool);
        }
    }

    fn wait_on(&self, descriptors: &mut Vec<RawFd>) {
        match &self.state {
            State::There { device, .. } => device.wait_on(descriptors),
            State::Trying { .. } => descriptors.push(self.opened.descriptor()),
            State::Absent { .. } | State::KeptOut { .. } => {}
        }
    }

    fn control_port(&mut self) -> Option<&mut dyn ControlPort> {
        match &mut self.state {
            State::There { device, .. } => device.control_port(),
            _ => None,
        }
    }

    fn notice(&self) -> Option<String> {
        match &self.state {
            State::Absent { why, .. } | State::Trying { why, .. } => {
                Some(format!("it cannot be opened, and is tried again: {why}"))
            }
            State::KeptOut { why } => Some(format!("it was opened, and is kept out: {why}")),
            State::There { device, .. } => device.notice(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::block::address::{BlockCount, BlockSize, Lba};
    use crate::block::buffer::Buffer;
    use crate::device::MemoryDisk;

    struct World {
        device: AbsentDevice,
        is_there: Arc<AtomicBool>,
        attempts: Arc<AtomicUsize>,
    }

    /// A path to a disk of so many blocks, of which eight were promised.
    fn absent(blocks: u64) -> World {
        let (is_there, attempts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let disk = MemoryDisk::new(BlockSize::B4096, BlockCount(blocks));
        let promised = MemoryDisk::new(BlockSize::B4096, BlockCount(8)).device().geometry();
        let (seen, tried) = (Arc::clone(&is_there), Arc::clone(&attempts));
        let open = move || -> Result<Box<dyn BlockDevice>, NotThere> {
            tried.fetch_add(1, Ordering::SeqCst);
            match seen.load(Ordering::SeqCst) {
                true => Ok(Box::new(disk.device())),
                false => Err(NotThere::Later("nobody listens".to_owned())),
            }
        };
        let device = AbsentDevice::new(promised, "refused".to_owned(), Arc::new(open)).unwrap();
        World { device, is_there, attempts }
    }

    impl World {
        /// A probe at this time, and what came of the attempt that it began, if it began one.
        fn probe(&mut self, at: Duration) -> Option<DeviceEvent> {
            let now = Instant::ZERO + at;
            let refused = self.device.submit(now, IoRequest::read(IoTag(1), Lba(0), Buffer::zeroed(4096)));
            assert_eq!(refused.unwrap_err().reason, RefusalReason::Closed);
            // Whoever took something is woken once more for nothing.
            loop {
                let event = self.device.poll_event(now);
                let mut descriptors = Vec::new();
                self.device.wait_on(&mut descriptors);
                if event.is_some() || descriptors.is_empty() {
                    return event;
                }
                crate::wait::wait(&descriptors, Some(Duration::from_secs(60)));
            }
        }
    }

    #[test]
    fn it_is_tried_when_asked_with_longer_and_longer_pauses_and_then_stands_in() {
        let mut world = absent(8);
        let second = Duration::from_secs(1);
        for (at, attempts) in [(0, 1), (0, 1), (1, 2), (1, 2), (2, 3)] {
            assert_eq!(world.probe(second * at), None);
            assert_eq!(world.attempts.load(Ordering::SeqCst), attempts, "at {at} s");
        }
        assert!(world.device.notice().unwrap().contains("nobody listens"));
        world.is_there.store(true, Ordering::SeqCst);
        assert_eq!(world.probe(second * 30), Some(DeviceEvent::LinkUp));
        assert_eq!((world.device.poll_event(Instant::ZERO), world.device.notice()), (None, None));
        let read = IoRequest::read(IoTag(2), Lba(7), Buffer::zeroed(4096));
        world.device.submit(Instant::ZERO + second * 31, read).unwrap();
        assert!(world.device.poll(Instant::ZERO + second * 31).unwrap().outcome.is_ok());
    }

    #[test]
    fn another_size_is_kept_out_for_good() {
        let mut world = absent(9);
        world.is_there.store(true, Ordering::SeqCst);
        assert_eq!(world.probe(Duration::ZERO), None);
        assert!(world.device.notice().unwrap().contains("kept out: it has 9 blocks"), "{:?}", world.device);
        assert_eq!(world.probe(Duration::from_secs(99)), None);
        assert_eq!(world.attempts.load(Ordering::SeqCst), 1);
    }
}
