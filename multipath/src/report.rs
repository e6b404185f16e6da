//! A device as it stands: one snapshot, as JSON and as Prometheus text.
//!
//! Keeps true: both are made from the same numbers, taken at one moment; a field keeps its name and meaning within one
//! [`VERSION`]. Times are in seconds, as numbers with a fraction, on the clock of the process. Not here: how it gets to a
//! user (`control`).

mod prometheus;

use std::time::Duration;

use serde::{Serialize, Serializer};
use storage_mapping::{Instant, PathIndex};

use crate::explain::PathEvent;
use crate::histogram::Histogram;
use crate::latency::{FailoverTimes, PathLatency};
use crate::path_state::PathState;

/// Of the JSON form.
pub const VERSION: u32 = 1;

/// A device with its paths.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// [`VERSION`].
    pub version: u32,
    /// Which device, as the configuration calls it.
    pub device: String,
    /// When it was taken, in seconds.
    pub at: f64,
    /// The way to choose, as a configuration writes it.
    pub policy: String,
    /// Places of the paths that are chosen from now.
    pub current_group: Vec<usize>,
    /// How often another group took over.
    pub group_switches: u64,
    /// Requests that are not over.
    pub in_flight: usize,
    /// Of these, those that no path has now: they wait for room, for a path or for a time.
    pub waiting: usize,
    /// Of these, writes that the fence holds.
    pub held_writes: usize,
    /// Copies of writes that may still land.
    pub living_copies: Vec<CopySnapshot>,
    /// Copies that were done after they had been assumed dead.
    pub late_landings: u64,
    /// Whether all paths failed at once, and one answer is waited for.
    pub target_event: bool,
    /// Steps of a failover.
    pub failover: FailoverSnapshot,
    /// The paths, by place.
    pub paths: Vec<PathSnapshot>,
    /// What happened to them, oldest first.
    pub events: Vec<EventSnapshot>,
}

/// One path.
#[derive(Clone, Debug, Serialize)]
pub struct PathSnapshot {
    /// Its place.
    pub path: usize,
    /// Its address, as the configuration writes it.
    pub address: String,
    /// See [`PathState::word`].
    pub state: &'static str,
    /// Why it is in this state, if it ever changed.
    pub reason: Option<String>,
    /// Since when it is in this state; `None`: since the start.
    pub since: Option<f64>,
    /// Its group.
    pub priority: u16,
    /// Whether it is chosen from now.
    pub is_current: bool,
    /// Requests sent over it, probes not counted.
    pub requests: u64,
    /// Requests that came back with an error or not in time.
    pub errors: u64,
    /// Bytes of requests that succeeded.
    pub bytes: u64,
    /// Requests that it has now, those given up on included.
    pub in_flight: usize,
    /// Bytes of I/O that was given up on and that it has still.
    pub quarantined_bytes: usize,
    /// The last error.
    pub last_error: Option<String>,
    /// Times of what succeeded.
    pub latency: LatencySnapshot,
}

/// Times of I/O over one path.
#[derive(Clone, Debug, Serialize)]
pub struct LatencySnapshot {
    /// Of reads.
    #[serde(serialize_with = "distribution")]
    pub read: Histogram,
    /// Of writes.
    #[serde(serialize_with = "distribution")]
    pub write: Histogram,
    /// Of flushes.
    #[serde(serialize_with = "distribution")]
    pub flush: Histogram,
}

/// Steps of requests that were sent more than once.
#[derive(Clone, Debug, Serialize)]
pub struct FailoverSnapshot {
    /// From sending to knowing that it failed.
    #[serde(serialize_with = "distribution")]
    pub detect: Histogram,
    /// From there to sending it again.
    #[serde(serialize_with = "distribution")]
    pub resubmit: Histogram,
    /// From there to its end.
    #[serde(serialize_with = "distribution")]
    pub complete: Histogram,
}

/// A copy of a write that may still land.
#[derive(Clone, Debug, Serialize)]
pub struct CopySnapshot {
    /// The path that has it.
    pub path: usize,
    /// Its first block.
    pub lba: u64,
    /// How many blocks.
    pub blocks: u64,
    /// When it is assumed dead.
    pub assumed_dead_at: f64,
    /// It was left by a process before this one.
    pub is_inherited: bool,
}

/// A path changed its state.
#[derive(Clone, Debug, Serialize)]
pub struct EventSnapshot {
    /// When.
    pub at: f64,
    /// Which.
    pub path: usize,
    /// What it was.
    pub from: &'static str,
    /// What it is.
    pub to: &'static str,
    /// Why.
    pub reason: String,
}

/// A time in seconds.
#[must_use]
pub fn seconds(at: Instant) -> f64 {
    Duration::from_nanos(at.0).as_secs_f64()
}

impl From<&PathLatency> for LatencySnapshot {
    fn from(latency: &PathLatency) -> Self {
        let PathLatency { read, write, flush } = latency.clone();
        Self { read, write, flush }
    }
}

impl From<&FailoverTimes> for FailoverSnapshot {
    fn from(times: &FailoverTimes) -> Self {
        let FailoverTimes { detect, resubmit, complete } = times.clone();
        Self { detect, resubmit, complete }
    }
}

impl From<&PathEvent> for EventSnapshot {
    fn from(event: &PathEvent) -> Self {
        let PathEvent { at, path: PathIndex(path), from, to, reason } = *event;
        Self { at: seconds(at), path, from: from.word(), to: to.word(), reason: reason.to_string() }
    }
}

impl PathSnapshot {
    /// Whether it answers.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.state == PathState::Active.word()
    }
}

/// A distribution in JSON: count, mean, quantiles and the largest, in seconds.
#[derive(Serialize)]
struct Distribution {
    count: u64,
    mean: Option<f64>,
    p50: Option<f64>,
    p99: Option<f64>,
    p999: Option<f64>,
    max: Option<f64>,
}

fn distribution<S: Serializer>(histogram: &Histogram, serializer: S) -> Result<S::Ok, S::Error> {
    let count = histogram.count();
    let some = |time: Duration| (count > 0).then_some(time.as_secs_f64());
    let quantiles = histogram.quantiles(count, [0.5, 0.99, 0.999]);
    let quantile = |place: usize| quantiles.map(|times| times[place].as_secs_f64());
    Distribution {
        count,
        // A count that f64 cannot hold exactly is more I/O than anybody does.
        mean: (count > 0).then(|| histogram.sum().as_secs_f64() / count as f64),
        p50: quantile(0),
        p99: quantile(1),
        p999: quantile(2),
        max: some(histogram.max()),
    }
    .serialize(serializer)
}
