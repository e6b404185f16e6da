//! `path show` and `path stat`: everything, and the numbers only.
//!
//! Not here: how sections are laid out (`section_view`).

use transfer_core::inspect::Section;

use super::story::happened;
use super::view::{Device, Distribution, Lane, Path, age, time, time_or_dash};
use crate::section_view;

/// Everything about the devices, or of them about one path.
pub(super) fn everything(lanes: &[Lane], place: Option<usize>) -> String {
    let device = |device: &Device| {
        let mut children: Vec<Section> = device.paths.iter().map(|path| path_section(device, path)).collect();
        if place.is_none() {
            children.push(failover(device));
        }
        children.extend(events(device));
        let fields = if place.is_none() { device_fields(device) } else { Vec::new() };
        Section { title: format!("device {}", device.device), fields, children }
    };
    whole(lanes, device)
}

/// The numbers of all devices.
pub(super) fn numbers(lanes: &[Lane]) -> String {
    let device = |device: &Device| {
        let mut children: Vec<Section> = device
            .paths
            .iter()
            .map(|path| {
                let title = format!("path {}, {}: {}", path.path, path.state, carried(path));
                Section { title, fields: Vec::new(), children: latencies(path) }
            })
            .collect();
        children.push(failover(device));
        Section { title: format!("device {}", device.device), fields: device_numbers(device), children }
    };
    whole(lanes, device)
}

fn whole(lanes: &[Lane], device: impl Fn(&Device) -> Section) -> String {
    let lane = |lane: &Lane| Section {
        title: lane.title.clone(),
        fields: Vec::new(),
        children: lane.devices.iter().map(&device).collect(),
    };
    section_view::text(&lanes.iter().map(lane).collect::<Vec<_>>())
}

fn field(name: &str, value: impl ToString) -> (String, String) {
    (name.to_owned(), value.to_string())
}

fn device_fields(device: &Device) -> Vec<(String, String)> {
    let group: Vec<_> = device.current_group.iter().map(ToString::to_string).collect();
    let mut fields = vec![
        field("policy", &device.policy),
        field("paths in use", if group.is_empty() { "none".to_owned() } else { group.join(", ") }),
    ];
    fields.extend(device_numbers(device));
    if device.target_event {
        fields.push(field("now", "all paths failed at once; one answer is waited for"));
    }
    let copies = device.living_copies.iter().map(|copy| {
        let value = format!(
            "{} blocks from {} on path {}, assumed dead in {}{}",
            copy.blocks,
            copy.lba,
            copy.path,
            age(copy.assumed_dead_at - device.at),
            if copy.is_inherited { " (inherited)" } else { "" }
        );
        field("may still land", value)
    });
    fields.extend(copies);
    fields
}

fn device_numbers(device: &Device) -> Vec<(String, String)> {
    vec![
        field("in flight", device.in_flight),
        field("waiting for a path", device.waiting),
        field("writes held", device.held_writes),
        field("copies that may land", device.living_copies.len()),
        field("late landings", device.late_landings),
        field("group switches", device.group_switches),
    ]
}

fn path_section(device: &Device, path: &Path) -> Section {
    let since =
        path.since.map_or_else(|| "the start".to_owned(), |at| format!("{} ago", age(device.at - at)));
    let mut fields = vec![
        field("address", crate::escape::name(&path.address)),
        field("state", &path.state),
        field("since", since),
        field("priority", path.priority),
        field("is chosen from now", if path.is_current { "yes" } else { "no" }),
        field("carried", carried(path)),
        field("in flight", path.in_flight),
    ];
    fields.extend(path.reason.as_ref().map(|reason| field("why", reason)));
    fields.extend(path.last_error.as_ref().map(|error| field("last error", error)));
    if path.quarantined_bytes > 0 {
        fields.push(field("given up on", format!("{} bytes that it still has", path.quarantined_bytes)));
    }
    Section { title: format!("path {}/{}", device.device, path.path), fields, children: latencies(path) }
}

fn carried(path: &Path) -> String {
    // For people to read.
    let mebibytes = path.bytes as f64 / f64::from(1 << 20);
    format!("{} requests, {mebibytes:.1} MiB, {} errors", path.requests, path.errors)
}

fn latencies(path: &Path) -> Vec<Section> {
    let latency = &path.latency;
    let kinds = [("reads", &latency.read), ("writes", &latency.write), ("flushes", &latency.flush)];
    kinds.into_iter().map(|(title, distribution)| times(title, distribution)).collect()
}

fn failover(device: &Device) -> Section {
    let steps = &device.failover;
    let steps = [("detect", &steps.detect), ("resubmit", &steps.resubmit), ("complete", &steps.complete)];
    let children = steps.into_iter().map(|(title, distribution)| times(title, distribution)).collect();
    Section { title: "requests that were sent more than once".to_owned(), fields: Vec::new(), children }
}

fn times(title: &str, distribution: &Distribution) -> Section {
    let Distribution { count, mean, p50, p99, p999, max } = distribution;
    let fields = vec![
        field("count", count),
        field("mean", time_or_dash(*mean)),
        field("p50", time_or_dash(*p50)),
        field("p99", time_or_dash(*p99)),
        field("p99.9", time_or_dash(*p999)),
        field("max", max.map_or_else(|| "-".to_owned(), time)),
    ];
    Section { title: title.to_owned(), fields, children: Vec::new() }
}

fn events(device: &Device) -> Option<Section> {
    let event = |event: &super::view::Event| {
        field(
            &format!("{} ago", age(device.at - event.at)),
            format!("path {}: {}", event.path, happened(event)),
        )
    };
    let fields: Vec<_> = device.events.iter().map(event).collect();
    (!fields.is_empty()).then(|| Section { title: "what happened".to_owned(), fields, children: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::device;
    use super::*;

    #[test]
    fn everything_is_there_within_80_columns() {
        let lanes = [Lane { name: "lane 0".to_owned(), title: "serve".to_owned(), devices: vec![device()] }];
        let shown = everything(&lanes, None);
        for part in
            ["policy", "file:disks/a-long-name-of-a-file.img?latency=2ms", "detect", "state", "failed"]
        {
            assert!(shown.contains(part), "{part}\n{shown}");
        }
        assert!(shown.lines().chain(numbers(&lanes).lines()).all(|line| line.chars().count() <= 80));
        assert!(!shown.contains('\x1b'));
    }
}
