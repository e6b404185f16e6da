//! What a process said of its devices, as far as texts show it.
//!
//! Keeps true: a field that another version leaves out is empty, and no mistake. Not here: JSON, which is handed on as it
//! came.

use serde::Deserialize;

use crate::control_socket::Reply;

/// A process.
pub(super) struct Lane {
    /// What tells it from the others.
    pub(super) name: String,
    /// As users see it.
    pub(super) title: String,
    pub(super) devices: Vec<Device>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Device {
    pub(super) device: String,
    pub(super) at: f64,
    pub(super) policy: String,
    pub(super) current_group: Vec<usize>,
    pub(super) group_switches: u64,
    pub(super) in_flight: u64,
    pub(super) waiting: u64,
    pub(super) held_writes: u64,
    pub(super) living_copies: Vec<Copy>,
    pub(super) late_landings: u64,
    pub(super) target_event: bool,
    pub(super) failover: Failover,
    pub(super) paths: Vec<Path>,
    pub(super) events: Vec<Event>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Path {
    pub(super) path: usize,
    pub(super) address: String,
    pub(super) state: String,
    pub(super) reason: Option<String>,
    pub(super) since: Option<f64>,
    pub(super) priority: u16,
    pub(super) is_current: bool,
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) bytes: u64,
    pub(super) in_flight: u64,
    pub(super) quarantined_bytes: u64,
    pub(super) last_error: Option<String>,
    pub(super) latency: Latency,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Latency {
    pub(super) read: Distribution,
    pub(super) write: Distribution,
    pub(super) flush: Distribution,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Failover {
    pub(super) detect: Distribution,
    pub(super) resubmit: Distribution,
    pub(super) complete: Distribution,
}

/// Times in seconds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Distribution {
    pub(super) count: u64,
    pub(super) mean: Option<f64>,
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
    pub(super) p999: Option<f64>,
    pub(super) max: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Copy {
    pub(super) path: usize,
    pub(super) lba: u64,
    pub(super) blocks: u64,
    pub(super) assumed_dead_at: f64,
    pub(super) is_inherited: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    pub(super) at: f64,
    pub(super) path: usize,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) reason: String,
}

impl Path {
    /// Its reads, or its writes where those are more.
    pub(super) fn main_latency(&self) -> &Distribution {
        let Latency { read, write, .. } = &self.latency;
        if read.count >= write.count { read } else { write }
    }
}

/// The processes that said something of devices.
pub(super) fn lanes(replies: &[Reply]) -> Vec<Lane> {
    let lane = |reply: &Reply| Lane {
        name: super::asker::lane_name(reply.host.as_deref(), reply.lane),
        title: super::process(reply),
        devices: reply
            .devices
            .iter()
            .flatten()
            .filter_map(|device| Device::deserialize(device).ok())
            .collect(),
    };
    replies.iter().map(lane).collect()
}

/// A time in seconds in five signs or so.
pub(super) fn time(seconds: f64) -> String {
    match seconds {
        s if s < 0.000_999_5 => format!("{:.0}us", s * 1e6),
        s if s < 0.009_95 => format!("{:.1}ms", s * 1e3),
        s if s < 0.999_5 => format!("{:.0}ms", s * 1e3),
        s if s < 9.95 => format!("{s:.1}s"),
        s => format!("{s:.0}s"),
    }
}

/// A time in seconds that is to be compared with others: to the millisecond.
pub(super) fn exact(seconds: f64) -> String {
    if seconds < 0.999_5 {
        return time(seconds);
    }
    let text = format!("{seconds:.3}");
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
}

/// A time in seconds in five signs or so, where it may not be known.
pub(super) fn time_or_dash(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), time)
}

/// How long ago, in words.
pub(super) fn age(seconds: f64) -> String {
    match seconds.max(0.0) {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let shown: Vec<_> = [0.0, 0.000_21, 0.001_2, 0.0999, 0.999_6, 5.0, 61.0].map(time).into();
        assert_eq!(shown, ["0us", "210us", "1.2ms", "100ms", "1.0s", "5.0s", "61s"]);
        assert_eq!([0.02, 1.0, 5.025, 120.0].map(exact), ["20ms", "1s", "5.025s", "120s"]);
        assert_eq!(
            [-1.0, 9.0, 100.0, 600.0, 9000.0].map(age),
            ["0.0 s", "9.0 s", "100 s", "10 min", "2.5 h"]
        );
    }
}
