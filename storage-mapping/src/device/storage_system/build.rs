//! From a description to a system: checks that the parts fit together, and opens the disks.
//!
//! Keeps true: a system that is made has names that are told apart, volumes that share no block with one
//! another and lie inside their disks, and one block size. Not here: the parts themselves.

use std::collections::{BTreeSet, VecDeque};

use super::SystemError;
use super::access_state::AccessState;
use super::core::{CheckedParts, PortState, QUEUE_DEPTH, VolumeState};
use super::description::{Description, Extent, LogicalVolume, PhysicalDisk, Place};
use super::disk::{Disk, Medium};
use super::layout::{DiskRange, Layout};
use super::link::Link;
use super::schedule::check_name;
use crate::block::address::{BlockCount, BlockSize, ByteSize};
use crate::block::{BlockDevice, Geometry};
use crate::device::memory::MemoryDisk;

/// What opens a disk that is not in memory: it gets what the description says, and says why it cannot.
pub type OpenDevice<'a> = dyn FnMut(&str) -> Result<Box<dyn BlockDevice>, String> + 'a;

fn part(kind: &'static str, name: &str, problem: impl Into<String>) -> SystemError {
    SystemError::Part { kind, name: name.to_owned(), problem: problem.into() }
}

/// Names that are names, each once.
fn check_names<'a>(kind: &'static str, names: impl Iterator<Item = &'a str>) -> Result<(), SystemError> {
    let mut seen = BTreeSet::new();
    for name in names {
        check_name(name).map_err(|problem| part(kind, name, problem))?;
        if !seen.insert(name) {
            return Err(SystemError::Twice { kind, name: name.to_owned() });
        }
    }
    Ok(())
}

/// Checks a description, opens its disks and puts names into numbers.
pub(super) fn check(
    description: &Description,
    open: &mut OpenDevice<'_>,
) -> Result<CheckedParts, SystemError> {
    check_names("physical disk", description.disks.iter().map(|disk| disk.name.as_str()))?;
    check_names("port", description.ports.iter().map(|port| port.name.as_str()))?;
    check_names("logical volume", description.volumes.iter().map(|volume| volume.name.as_str()))?;
    let parts = description.parts();
    check_names("target port group", parts.groups.iter().map(String::as_str))?;
    let block_size = description.block_size;
    let mut disks = Vec::new();
    for disk in &description.disks {
        disks.push((disk.name.clone(), open_disk(disk, block_size, open)?));
    }
    let groups: Vec<(String, bool)> = parts
        .groups
        .into_iter()
        .map(|name| {
            let is_preferred = |group: &super::TargetPortGroup| group.name == name && group.is_preferred;
            let is_preferred = description.groups.iter().any(is_preferred);
            (name, is_preferred)
        })
        .collect();
    let ports = number_ports(description, &groups)?;
    let mut volumes: Vec<VolumeState> = Vec::new();
    for volume in &description.volumes {
        let checked = check_volume(volume, block_size, &disks)?;
        if let Some(other) = volumes.iter().find(|other| other.layout.shares_with(&checked.layout)) {
            let problem = format!("it shares blocks of a disk with `{}`: move one of them", other.name);
            return Err(part("logical volume", &volume.name, problem));
        }
        volumes.push(checked);
    }
    let mut access = vec![AccessState::default(); groups.len() * volumes.len()];
    for first in &description.access {
        let group = groups.iter().position(|(name, _)| *name == first.group);
        let volume = volumes.iter().position(|volume| volume.name == first.volume);
        let (Some(group), Some(volume)) = (group, volume) else {
            let problem = format!("there is no such group, or no logical volume `{}`", first.volume);
            return Err(part("target port group", &first.group, problem));
        };
        access[group * volumes.len() + volume] = first.state;
    }
    Ok(CheckedParts {
        block_size,
        forwarding: description.forwarding,
        seed: description.seed,
        disks,
        groups,
        ports,
        volumes,
        access,
        target: description.target,
        schedule: description.schedule.clone(),
    })
}

fn number_ports(description: &Description, groups: &[(String, bool)]) -> Result<Vec<PortState>, SystemError> {
    let mut ports = Vec::new();
    for (index, port) in (0_u64..).zip(&description.ports) {
        let of = port.group.as_ref().unwrap_or(&port.name);
        let group = groups.iter().position(|(name, _)| name == of);
        let group = group.ok_or_else(|| {
            part("port", &port.name, format!("there is no target port group `{of}`: add a line `group {of}`"))
        })?;
        let link = Link::new(port.conditions, description.seed.wrapping_add(index));
        ports.push(PortState::new(port.name.clone(), group, link));
    }
    Ok(ports)
}

fn open_disk(
    disk: &PhysicalDisk,
    block_size: BlockSize,
    open: &mut OpenDevice<'_>,
) -> Result<Disk, SystemError> {
    let wrong = |problem: String| part("physical disk", &disk.name, problem);
    let medium = match &disk.place {
        Place::Memory(size) => {
            let count = in_blocks(*size, block_size).map_err(wrong)?;
            if count == 0 || isize::try_from(size.0).is_err() {
                return Err(wrong(format!("{size} is not a size that memory has")));
            }
            Medium::Memory(MemoryDisk::new(block_size, BlockCount(count)))
        }
        Place::Address(address) => {
            if address.contains(|c: char| c.is_whitespace() || c == '#') || !address.contains(':') {
                return Err(wrong(format!("`{address}` is no path address: write %20 for a space")));
            }
            let device = open(address).map_err(wrong)?;
            let found = device.geometry().block_size;
            if found != block_size {
                let (found, needed) = (found.bytes(), block_size.bytes());
                return Err(wrong(format!("it has blocks of {found} bytes and the system of {needed}")));
            }
            Medium::Device { device, stalled: VecDeque::new(), outstanding: 0, is_dry: true }
        }
    };
    Ok(Disk::new(medium, disk.service))
}

fn in_blocks(size: ByteSize, block_size: BlockSize) -> Result<u64, String> {
    let block = block_size.bytes() as u64;
    if size.0.is_multiple_of(block) {
        Ok(size.0 / block)
    } else {
        Err(format!("{} bytes are not whole blocks of {block} bytes", size.0))
    }
}

fn check_volume(
    volume: &LogicalVolume,
    block_size: BlockSize,
    disks: &[(String, Disk)],
) -> Result<VolumeState, SystemError> {
    let wrong = |problem: String| part("logical volume", &volume.name, problem);
    let mut ranges = Vec::new();
    for Extent { disk: name, start, size } in &volume.extents {
        let disk = disks.iter().position(|(disk, _)| disk == name);
        let disk = disk.ok_or_else(|| wrong(format!("there is no physical disk `{name}`")))?;
        let start = in_blocks(*start, block_size).map_err(wrong)?;
        let count = in_blocks(*size, block_size).map_err(wrong)?;
        let has = disks[disk].1.geometry().block_count.0;
        if count == 0 || start.checked_add(count).is_none_or(|end| end > has) {
            return Err(wrong(format!("an extent is empty or ends beyond `{name}`, which has {has} blocks")));
        }
        ranges.push(DiskRange { disk, start, count });
    }
    let Some(first) = ranges.first().copied() else {
        return Err(wrong("it lies nowhere: add an extent such as d0@0+16MiB".to_owned()));
    };
    let layout = match volume.stripe_unit {
        None => Layout::concatenated(ranges),
        Some(unit) => {
            let unit = in_blocks(unit, block_size).map_err(wrong)?;
            if unit == 0 || ranges.iter().any(|range| range.count != first.count) || first.count % unit != 0 {
                let problem = "striped extents are of one size, which is a multiple of the unit";
                return Err(wrong(problem.to_owned()));
            }
            Layout::striped(ranges, unit)
        }
    };
    if layout.shares_with_itself() {
        return Err(wrong("two of its extents share blocks of a disk: move one of them".to_owned()));
    }
    let geometry = volume_geometry(&layout, block_size, disks);
    let mut on: Vec<usize> = layout.ranges.iter().map(|range| range.disk).collect();
    on.sort_unstable();
    on.dedup();
    Ok(VolumeState { name: volume.name.clone(), layout, disks: on, geometry })
}

/// The limits of all disks that a volume lies on.
fn volume_geometry(layout: &Layout, block_size: BlockSize, disks: &[(String, Disk)]) -> Geometry {
    let of = || layout.ranges.iter().map(|range| disks[range.disk].1.geometry());
    Geometry {
        block_size,
        block_count: layout.count,
        transfer_max_bytes: of().map(|geometry| geometry.transfer_max_bytes).min().unwrap_or(0),
        buffer_alignment_bytes: of().map(|geometry| geometry.buffer_alignment_bytes).max().unwrap_or(1),
        queue_depth: QUEUE_DEPTH,
    }
}
