//! Which faults are set, how often each was injected, and the handle that changes them at run time.
//!
//! Keeps true: a change is seen by the device at its next call and starts the hang count anew. Not
//! here: what the faults do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// When a device stops answering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hang {
    /// Never.
    #[default]
    Never,
    /// After this many requests, counted from when the faults were set. What comes later is kept
    /// back, before it is executed, and goes on when the hang ends: a write then lands late.
    After {
        /// Requests that still go through.
        requests: u64,
        /// How long it hangs; `None` until the faults are changed.
        duration: Option<Duration>,
    },
}

/// What a device is to do wrong. Probabilities are per request, from 0 to 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// Added to every request.
    pub latency: Duration,
    /// Added to the latency, evenly from zero to this.
    pub jitter: Duration,
    /// The most bytes per second.
    pub rate: Option<u64>,
    /// Fails with EIO; a write lands all the same half of the time.
    pub error: f64,
    /// Stops answering.
    pub hang: Hang,
    /// Only the first part of a write lands; reported as done.
    pub torn: f64,
    /// Nothing of a write lands; reported as done.
    pub lost: f64,
    /// A read gives what was there before the last write, where this device still knows it.
    pub stale: f64,
    /// A write lands once more, `late_delay` after it was reported as done.
    pub late: f64,
    /// How much later.
    pub late_delay: Duration,
}

/// How many faults of each kind were injected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounters {
    /// Requests failed with EIO.
    pub errors: u64,
    /// Requests kept back.
    pub hung: u64,
    /// Writes of which a part landed.
    pub torn: u64,
    /// Writes of which nothing landed.
    pub lost: u64,
    /// Reads that gave old content.
    pub stale: u64,
    /// Writes that landed twice.
    pub late: u64,
}

/// What the device and its controls share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) faults: Faults,
    pub(super) counters: FaultCounters,
    pub(super) generation: u64,
}

/// A handle on the faults of a device that has been moved elsewhere. A clone is the same handle.
#[derive(Clone, Debug)]
pub struct FaultControl {
    shared: Arc<Mutex<Shared>>,
}

impl FaultControl {
    pub(super) fn new(faults: Faults) -> Self {
        let counters = FaultCounters::default();
        Self { shared: Arc::new(Mutex::new(Shared { faults, counters, generation: 0 })) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets other faults. A hang that was going on ends.
    pub fn set(&self, faults: Faults) {
        let mut shared = self.lock();
        shared.faults = faults;
        shared.generation += 1;
    }

    /// Ends all faults.
    pub fn clear(&self) {
        self.set(Faults::default());
    }

    /// The faults that are set.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.lock().faults.clone()
    }

    /// What was injected so far.
    #[must_use]
    pub fn counters(&self) -> FaultCounters {
        self.lock().counters
    }
}
