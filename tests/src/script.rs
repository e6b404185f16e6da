//! One fault at one chosen moment: at the n-th request of a lane, or the n-th sync or write of a host's files.
//!
//! All openings of all disks by the processes of the lane count together, from the first request of the
//! first process on. A run whose script has `nth` 0 meets no fault and tells what there is to count.
//! Keeps true: without a script nothing is counted, and a script draws no number. Not here: what a fault does
//! to a request (`disk`), who is killed or paused (`world`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use storage_mapping::Instant;

/// Unit in which disks keep content.
const BLOCK_BYTES: usize = 4096;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ScriptedFault {
    /// EIO; of a write nothing lands.
    Error,
    /// EIO, and all of it landed.
    ErrorAllLanded,
    /// EIO, and the first half landed.
    ErrorPartLanded,
    /// A write is acknowledged and not done.
    Lost,
    /// A write ends 512 bytes after the beginning of a block.
    TornInBlock,
    /// The first half of the blocks of a write lands.
    TornAtBlock,
    /// A write lands once more 20 ms later, after younger ones to the same place.
    LateSoon,
    /// A write lands once more 30 s later.
    Late,
    /// A write lands once more when the next process of the lane is at work.
    LateAfterClose,
    /// A read sees what was there before the last write.
    Stale,
    /// A read has one bit wrong.
    Flipped,
    /// A read gets what stands behind its place.
    MisdirectedRead,
    /// A write lands behind its place.
    MisdirectedWrite,
    /// It takes 10 s longer.
    HangShort,
    /// It takes 130 s longer: more than a connection waits for a device.
    HangLong,
    /// The process is killed before it.
    KilledBefore,
    /// The process is killed right after its effect.
    KilledAfter,
    /// The process pauses for 90 s once it is submitted.
    Paused,
}

impl ScriptedFault {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Error,
        Self::ErrorAllLanded,
        Self::ErrorPartLanded,
        Self::Lost,
        Self::TornInBlock,
        Self::TornAtBlock,
        Self::LateSoon,
        Self::Late,
        Self::LateAfterClose,
        Self::Stale,
        Self::Flipped,
        Self::MisdirectedRead,
        Self::MisdirectedWrite,
        Self::HangShort,
        Self::HangLong,
        Self::KilledBefore,
        Self::KilledAfter,
        Self::Paused,
    ];

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "EIO, nothing landed",
            Self::ErrorAllLanded => "EIO, all landed",
            Self::ErrorPartLanded => "EIO, a part landed",
            Self::Lost => "write lost",
            Self::TornInBlock => "torn inside a block",
            Self::TornAtBlock => "torn between blocks",
            Self::LateSoon => "lands again after 20 ms",
            Self::Late => "lands again after 30 s",
            Self::LateAfterClose => "lands again in the next process",
            Self::Stale => "stale read",
            Self::Flipped => "flipped bit",
            Self::MisdirectedRead => "misdirected read",
            Self::MisdirectedWrite => "misdirected write",
            Self::HangShort => "hangs 10 s",
            Self::HangLong => "hangs 130 s",
            Self::KilledBefore => "killed before it",
            Self::KilledAfter => "killed after its effect",
            Self::Paused => "paused 90 s",
        }
    }

    /// Whether it can happen to this request.
    #[must_use]
    pub fn applies(self, request: &CountedRequest) -> bool {
        match self {
            Self::Stale | Self::Flipped | Self::MisdirectedRead => !request.is_write,
            Self::TornAtBlock => request.is_write && request.bytes > BLOCK_BYTES,
            Self::ErrorAllLanded
            | Self::ErrorPartLanded
            | Self::Lost
            | Self::TornInBlock
            | Self::LateSoon
            | Self::Late
            | Self::LateAfterClose
            | Self::MisdirectedWrite => request.is_write,
            Self::Error
            | Self::HangShort
            | Self::HangLong
            | Self::KilledBefore
            | Self::KilledAfter
            | Self::Paused => true,
        }
    }
}

/// Which request of which lane meets which fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    /// The host.
    pub host: usize,
    /// Its lane: 0 serves.
    pub lane: u16,
    /// Number of the request, from 1; 0 = none, it is only counted.
    pub nth: u64,
    /// What happens to it.
    pub kind: ScriptedFault,
}

/// What happens to the n-th operation on a host's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFault {
    /// A sync fails, and gives up what it should have written.
    SyncFails,
    /// From this write on nothing more fits, until the next process begins.
    SpaceEnds,
}

/// Which operation on the files of which host meets which fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileScript {
    /// The host.
    pub host: usize,
    /// Number of the sync or write, from 1; 0 = none.
    pub nth: u64,
    /// What happens to it.
    pub kind: FileFault,
}

/// One request that was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountedRequest {
    /// When it was submitted.
    pub at: Instant,
    /// By which process of the lane, from 1.
    pub life: u64,
    /// It writes.
    pub is_write: bool,
    /// Its length.
    pub bytes: usize,
}

/// What was counted, and when things happened that tell its phases apart.
#[derive(Clone, Debug, Default)]
pub struct ScriptLog {
    /// Every request of the lane.
    pub requests: Vec<CountedRequest>,
    /// The fault has happened.
    pub is_met: bool,
    /// When the lane's processes had started.
    pub started: Vec<Instant>,
    /// When jobs were said to be done.
    pub done: Vec<Instant>,
    /// When commands were gone in order.
    pub gone: Vec<Instant>,
}

/// What a request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    /// Nothing.
    Nothing,
    /// Its process is dead already: it never gets out.
    Dead,
    /// This.
    Fault(ScriptedFault),
}

/// What is to be done to the process of the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// It is killed then.
    Kill(Instant),
    /// It pauses so long.
    Pause(Duration),
}

#[derive(Debug)]
struct State {
    script: Script,
    life: u64,
    is_dead: bool,
    order: Option<Order>,
    log: ScriptLog,
}

/// The script of a run while it runs; a clone is the same one.
#[derive(Clone, Debug)]
pub(crate) struct Scripted(Arc<Mutex<State>>);

impl Scripted {
    pub(crate) fn new(script: Script) -> Self {
        let log = ScriptLog::default();
        Self(Arc::new(Mutex::new(State { script, life: 0, is_dead: false, order: None, log })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is about this lane.
    pub(crate) fn is_of(&self, host: usize, lane: u16) -> bool {
        let script = self.lock().script;
        (script.host, script.lane) == (host, lane)
    }

    /// A process of the lane begins.
    pub(crate) fn begin_life(&self, life: u64) {
        let mut state = self.lock();
        (state.life, state.is_dead) = (life, false);
    }

    /// The next request of the lane.
    pub(crate) fn meet(&self, now: Instant, is_write: bool, bytes: usize) -> Met {
        let mut state = self.lock();
        if state.is_dead {
            return Met::Dead;
        }
        let request = CountedRequest { at: now, life: state.life, is_write, bytes };
        state.log.requests.push(request);
        let Script { nth, kind, .. } = state.script;
        if state.log.requests.len() as u64 != nth || !kind.applies(&request) {
            return Met::Nothing;
        }
        state.log.is_met = true;
        match kind {
            ScriptedFault::KilledBefore => {
                state.is_dead = true;
                state.order = Some(Order::Kill(now));
                Met::Dead
            }
            ScriptedFault::Paused => {
                state.order = Some(Order::Pause(Duration::from_secs(90)));
                Met::Nothing
            }
            kind => Met::Fault(kind),
        }
    }

    /// The process is to be killed then.
    pub(crate) fn kill_at(&self, at: Instant) {
        self.lock().order = Some(Order::Kill(at));
    }

    /// What is to be done to the process, once.
    pub(crate) fn take_order(&self) -> Option<Order> {
        self.lock().order.take()
    }

    /// Number of the request that meets the fault: whatever else of it must differ follows from this.
    pub(crate) fn nth(&self) -> u64 {
        self.lock().script.nth
    }

    /// Changes what is told in the end.
    pub(crate) fn note(&self, what: impl FnOnce(&mut ScriptLog)) {
        what(&mut self.lock().log);
    }

    /// What is told in the end.
    pub(crate) fn log(&self) -> ScriptLog {
        self.lock().log.clone()
    }
}
