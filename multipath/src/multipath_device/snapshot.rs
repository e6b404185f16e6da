//! The device as it stands, for who looks at it.
//!
//! Keeps true: looking changes nothing and waits for nothing, whatever the paths do. Not here: the forms in which it
//! is shown (`report`).

use std::time::Duration;

use storage_mapping::Instant;

use super::{MultipathDevice, Path};
use crate::fence::LivingCopy;
use crate::path_state::PathStatus;
use crate::plan::{Basis, Plan};
use crate::report::{CopySnapshot, EventSnapshot, PathSnapshot, Snapshot, VERSION, seconds};
use crate::selector::PathSelector;

impl<S: PathSelector> MultipathDevice<S> {
    /// How long the worst case of each fault takes. Without a `service_time` the longest that was measured counts.
    #[must_use]
    pub fn plan(&self, service_time: Option<Duration>) -> Plan {
        let longest = |path: &Path| path.latency.read.max().max(path.latency.write.max());
        let measured = self.paths.iter().map(longest).max().filter(|time| !time.is_zero());
        let count = u32::try_from(self.paths.len()).unwrap_or(u32::MAX);
        match (service_time, measured) {
            (None, Some(measured)) => Plan::new(self.core.config(), count, measured, Basis::Measured),
            (given, _) => Plan::of_config(self.core.config(), count, given),
        }
    }

    /// The device as it stands. `addresses` are what its paths are called, by place.
    #[must_use]
    pub fn snapshot(&self, now: Instant, device: &str, addresses: &[String]) -> Snapshot {
        let core = &self.core;
        let (group, explain) = (core.groups().current(), core.explain());
        let path = |path: &Path| {
            let PathStatus {
                path: index,
                requests,
                errors,
                bytes,
                in_flight,
                quarantined_bytes,
                last_error,
                ..
            } = path.status;
            let last = explain.events().filter(|event| event.path == index).last();
            PathSnapshot {
                path: index.0,
                address: addresses.get(index.0).cloned().unwrap_or_default(),
                state: core.state(index).word(),
                reason: path.device.notice().or_else(|| last.map(|event| event.reason.to_string())),
                since: last.map(|event| seconds(event.at)),
                priority: core.groups().priority(index),
                is_current: group.contains(index),
                requests,
                errors,
                bytes,
                in_flight,
                quarantined_bytes,
                last_error: last_error.map(|error| error.to_string()),
                latency: (&path.latency).into(),
            }
        };
        let copy = |copy: LivingCopy| CopySnapshot {
            path: copy.path.0,
            lba: copy.range.first().0,
            blocks: copy.range.count(),
            assumed_dead_at: seconds(copy.assumed_dead_at),
            is_inherited: copy.is_inherited,
        };
        Snapshot {
            version: VERSION,
            device: device.to_owned(),
            at: seconds(now),
            policy: core.selector().name(),
            current_group: group.iter().map(|path| path.0).collect(),
            group_switches: core.groups().switches(),
            in_flight: self.flights.len(),
            waiting: self.waiting.len(),
            held_writes: self.fence.held_count(),
            living_copies: self.fence.living_copies().map(copy).collect(),
            late_landings: self.fence.late_landings(),
            target_event: core.is_in_event(),
            failover: (&self.failover_times).into(),
            paths: self.paths.iter().map(path).collect(),
            events: explain.events().map(EventSnapshot::from).collect(),
        }
    }
}
