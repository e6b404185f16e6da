//! The Prometheus text form of a snapshot (exposition format 0.0.4).
//!
//! Keeps true: the lines of a metric stand together, after its help and type; what users may write (device, address) is
//! escaped; every state of a path has a series, 1 for the one it is in, so that a query can name a state that no path is in.
//! Not here: serving it.

use std::fmt::{self, Write};

use super::{FailoverSnapshot, LatencySnapshot, PathSnapshot, Snapshot};
use crate::histogram::write_prometheus_type;
use crate::path_state::PathState;

/// How a number of a path is shown: name, type, help, value.
type PathMetric = (&'static str, &'static str, &'static str, fn(&PathSnapshot) -> u64);

const PATH_METRICS: [PathMetric; 5] = [
    ("requests_total", "counter", "Requests sent over the path.", |path| path.requests),
    ("errors_total", "counter", "Requests that failed over the path or were not answered in time.", |path| {
        path.errors
    }),
    ("bytes_total", "counter", "Bytes of requests that succeeded over the path.", |path| path.bytes),
    ("in_flight", "gauge", "Requests that the path has.", |path| path.in_flight as u64),
    (
        "quarantined_bytes",
        "gauge",
        "Bytes of I/O that was given up on and that the path still has.",
        |path| path.quarantined_bytes as u64,
    ),
];

/// How a number of a device is shown: name, type, help, value.
type DeviceMetric = (&'static str, &'static str, &'static str, fn(&Snapshot) -> u64);

const DEVICE_METRICS: [DeviceMetric; 5] = [
    ("held_writes", "gauge", "Writes that the fence holds.", |device| device.held_writes as u64),
    ("living_copies", "gauge", "Copies of writes that may still land.", |device| {
        device.living_copies.len() as u64
    }),
    ("late_landings_total", "counter", "Copies done after they had been assumed dead.", |device| {
        device.late_landings
    }),
    ("waiting", "gauge", "Requests that no path has.", |device| device.waiting as u64),
    ("group_switches_total", "counter", "Times that another group of paths took over.", |device| {
        device.group_switches
    }),
];

const LATENCY: &str = "diskwire_path_latency_seconds";
const FAILOVER: &str = "diskwire_failover_seconds";

impl Snapshot {
    /// The text of these devices, for one scrape.
    ///
    /// # Errors
    /// Those of `out`; a `String` has none.
    pub fn write_prometheus(devices: &[Self], out: &mut impl Write) -> fmt::Result {
        for (name, kind, help, value) in PATH_METRICS {
            let name = format!("diskwire_path_{name}");
            head(out, &name, kind, help)?;
            for (device, path) in paths(devices) {
                sample(out, &name, &Labels::of(device, path).list(), value(path))?;
            }
        }
        head(out, "diskwire_path_state", "gauge", "1 for the state that the path is in.")?;
        for (device, path) in paths(devices) {
            for state in PathState::ALL {
                let is_in = u64::from(path.state == state.word());
                sample(
                    out,
                    "diskwire_path_state",
                    &Labels::of(device, path).with("state", state.word()),
                    is_in,
                )?;
            }
        }
        write_prometheus_type(out, LATENCY, "Time of I/O that succeeded over the path.")?;
        for (device, path) in paths(devices) {
            let LatencySnapshot { read, write, flush } = &path.latency;
            for (kind, histogram) in [("read", read), ("write", write), ("flush", flush)] {
                if histogram.count() > 0 {
                    histogram.write_prometheus(out, LATENCY, &Labels::of(device, path).with("kind", kind))?;
                }
            }
        }
        write_prometheus_type(out, FAILOVER, "Steps of requests that were sent more than once.")?;
        for device in devices {
            let FailoverSnapshot { detect, resubmit, complete } = &device.failover;
            for (step, histogram) in [("detect", detect), ("resubmit", resubmit), ("complete", complete)] {
                histogram.write_prometheus(out, FAILOVER, &[("device", &device.device), ("step", step)])?;
            }
        }
        for (name, kind, help, value) in DEVICE_METRICS {
            let name = format!("diskwire_device_{name}");
            head(out, &name, kind, help)?;
            for device in devices {
                sample(out, &name, &[("device", &device.device)], value(device))?;
            }
        }
        Ok(())
    }
}

/// What names a path.
struct Labels<'a> {
    device: &'a str,
    place: String,
    address: &'a str,
}

impl<'a> Labels<'a> {
    fn of(device: &'a Snapshot, path: &'a PathSnapshot) -> Self {
        Self { device: &device.device, place: path.path.to_string(), address: &path.address }
    }

    fn list(&self) -> [(&str, &str); 3] {
        [("device", self.device), ("path", &self.place), ("address", self.address)]
    }

    fn with<'b>(&'b self, label: &'b str, value: &'b str) -> [(&'b str, &'b str); 4] {
        let [device, place, address] = self.list();
        [device, place, address, (label, value)]
    }
}

fn paths(devices: &[Snapshot]) -> impl Iterator<Item = (&Snapshot, &PathSnapshot)> {
    devices.iter().flat_map(|device| device.paths.iter().map(move |path| (device, path)))
}

fn head(out: &mut impl Write, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn sample(out: &mut impl Write, name: &str, labels: &[(&str, &str)], value: u64) -> fmt::Result {
    write!(out, "{name}{{")?;
    for (at, (label, text)) in labels.iter().enumerate() {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        write!(out, "{}{label}=\"{text}\"", if at == 0 { "" } else { "," })?;
    }
    writeln!(out, "}} {value}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::latency::{FailoverTimes, PathLatency};
    use crate::report::VERSION;

    fn snapshot() -> Snapshot {
        let mut latency = PathLatency::default();
        latency.read.record(Duration::from_millis(2));
        let path = PathSnapshot {
            path: 1,
            address: "file:/disk \"a\"".to_owned(),
            state: PathState::Failed.word(),
            reason: Some("it gave no answer in time".to_owned()),
            since: Some(5.0),
            priority: 0,
            is_current: false,
            requests: 7,
            errors: 2,
            bytes: 4096,
            in_flight: 1,
            quarantined_bytes: 512,
            last_error: None,
            latency: (&latency).into(),
        };
        Snapshot {
            version: VERSION,
            device: "0".to_owned(),
            at: 9.5,
            policy: "latency".to_owned(),
            current_group: vec![0],
            group_switches: 3,
            in_flight: 4,
            waiting: 1,
            held_writes: 1,
            living_copies: Vec::new(),
            late_landings: 0,
            target_event: false,
            failover: (&FailoverTimes::default()).into(),
            paths: vec![path],
            events: Vec::new(),
        }
    }

    #[test]
    fn the_text_has_every_metric_once_and_escapes_what_users_write() {
        let mut text = String::new();
        Snapshot::write_prometheus(&[snapshot(), snapshot()], &mut text).unwrap();
        let labels = r#"device="0",path="1",address="file:/disk \"a\"""#;
        for line in [
            format!("diskwire_path_requests_total{{{labels}}} 7"),
            format!("diskwire_path_state{{{labels},state=\"failed\"}} 1"),
            format!("diskwire_path_state{{{labels},state=\"active\"}} 0"),
            format!("diskwire_path_latency_seconds_count{{{labels},kind=\"read\"}} 1"),
            "diskwire_device_group_switches_total{device=\"0\"} 3".to_owned(),
            "diskwire_failover_seconds_sum{device=\"0\",step=\"detect\"} 0".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let mut types: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let count = types.len();
        types.dedup();
        assert_eq!((types.len(), count), (13, 13));
    }

    #[test]
    fn json_has_the_same_numbers_with_times_in_seconds() {
        let json = serde_json::to_value(snapshot()).unwrap();
        assert_eq!(json["version"], VERSION);
        assert_eq!(json["paths"][0]["requests"], 7);
        let read = &json["paths"][0]["latency"]["read"];
        assert_eq!(read["count"], 1);
        assert!((read["p99"].as_f64().unwrap() - 0.002).abs() < 0.000_05);
        assert!(json["paths"][0]["latency"]["write"]["p99"].is_null());
    }
}
