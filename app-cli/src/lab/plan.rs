//! What a lab is to consist of: names, places and sizes. Pure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use storage_mapping::ByteSize;
use thiserror::Error;

use crate::args::lab::LabCreateArgs;
use crate::escape;
use crate::name::Name;

/// The hosts, where none is named.
const HOSTS_DEFAULT: [&str; 2] = ["alpha", "beta"];
/// The most hosts: with 64 lanes each they fill a host table.
pub(super) const HOSTS_MAX: usize = 16;
/// Connections of a lane, each way.
pub(super) const CONNECTIONS: u16 = 8;
/// One MiB: regions of the master start at multiples of it, and a segment carries as much.
const MIB: u64 = 1 << 20;
/// A segment on disk: payload and header block.
const SEGMENT_BYTES: u64 = MIB + BLOCK_BYTES;
/// A block of the volume's tables.
const BLOCK_BYTES: u64 = 4096;
/// Segments of a lane below which a lab would only show waiting.
const SEGMENTS_PER_LANE_MIN: u64 = 4;

/// A lab, decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabPlan {
    /// The folder.
    pub dir: PathBuf,
    /// The hosts; the examples go from the first to the second.
    pub hosts: Vec<Name>,
    /// The devices, the master first.
    pub devices: Vec<LabDevice>,
    /// Paths to every device.
    pub paths: u16,
    /// Lanes of every host beside that of `serve`.
    pub lanes: u16,
}

/// A device of a lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabDevice {
    /// Its id on the volume.
    pub id: Name,
    /// Where it is.
    pub place: Place,
}

/// Where a device of a lab is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A device or file that was there before.
    Given(PathBuf),
    /// A file of the lab, relative to its folder.
    Made {
        /// The file.
        file: PathBuf,
        /// Its size: whole MiB.
        size: ByteSize,
    },
}

/// Why a lab cannot be planned.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LabPlanError {
    /// One device named twice.
    #[error("{device} is given twice; every --master and --secondary must be another device")]
    DeviceTwice {
        /// The device.
        device: String,
    },
    /// A device's name cannot be written as a path address.
    #[error(
        "{device} cannot stand in a configuration; name the device by a path of plain UTF-8 without ? and #"
    )]
    DeviceName {
        /// The device.
        device: String,
    },
    /// A device to be forced that is none of the lab's.
    #[error("--force {device} is neither --master nor a --secondary; name one of them")]
    ForceStranger {
        /// The device.
        device: String,
    },
    /// A wrong number of hosts.
    #[error("{0} hosts; a lab has 2 to {HOSTS_MAX}, each given as --host NAME")]
    HostCount(usize),
    /// A name that cannot be used.
    #[error("--host {name} {why}; choose another name")]
    HostName {
        /// The name.
        name: Name,
        /// Why.
        why: &'static str,
    },
    /// Not enough room.
    #[error(
        "--size {size} is too small for {lanes} lanes on these devices; give at least {min_mib}MiB, or fewer hosts, lanes or secondaries"
    )]
    Size {
        /// What was given.
        size: ByteSize,
        /// Lanes of all hosts.
        lanes: u64,
        /// What is needed.
        min_mib: u64,
    },
    /// Too many devices.
    #[error("{0} devices; a volume has at most 62")]
    TooManyDevices(usize),
}

impl LabPlan {
    /// Decides the lab that `args` ask for.
    ///
    /// # Errors
    /// See [`LabPlanError`].
    pub fn new(args: &LabCreateArgs) -> Result<Self, LabPlanError> {
        let hosts = hosts(&args.hosts)?;
        let devices = match &args.master {
            Some(master) => given(master, &args.secondary, &args.force)?,
            None => made(args, hosts.len() as u64 * (u64::from(args.lanes) + 1))?,
        };
        if devices.len() > 62 {
            return Err(LabPlanError::TooManyDevices(devices.len()));
        }
        Ok(Self { dir: args.dir.clone(), hosts, devices, paths: args.paths, lanes: args.lanes })
    }

    /// Bytes of all files to be made.
    #[must_use]
    pub fn made_bytes(&self) -> u64 {
        let sizes = self.devices.iter().map(|device| match device.place {
            Place::Given(_) => 0,
            Place::Made { size, .. } => size.0,
        });
        sizes.sum()
    }

    /// The configuration of `host`.
    #[must_use]
    pub fn host_file(&self, host: &Name) -> PathBuf {
        self.dir.join(format!("{host}.toml"))
    }

    /// The configuration of the volume.
    #[must_use]
    pub fn volume_file(&self) -> PathBuf {
        self.dir.join("VOLUME.toml")
    }
}

impl LabDevice {
    /// The path address by which hosts reach it.
    #[must_use]
    pub fn address(&self) -> String {
        match &self.place {
            Place::Given(path) if path.starts_with("/dev") => format!("block:{}", path.display()),
            Place::Given(path) => format!("file:{}", path.display()),
            Place::Made { file, .. } => format!("file:{}", file.display()),
        }
    }
}

fn hosts(named: &[Name]) -> Result<Vec<Name>, LabPlanError> {
    let hosts: Vec<Name> = match named {
        [] => HOSTS_DEFAULT.iter().map(|name| name.parse().expect("a plain name")).collect(),
        named => named.to_vec(),
    };
    if !(2..=HOSTS_MAX).contains(&hosts.len()) {
        return Err(LabPlanError::HostCount(hosts.len()));
    }
    let mut seen = BTreeSet::new();
    for name in &hosts {
        // File systems may not tell cases apart, and people should not have to.
        let folded = name.as_str().to_ascii_lowercase();
        let refuse = |why| Err(LabPlanError::HostName { name: name.clone(), why });
        if folded == "volume" || folded == "admin" {
            return refuse("is the name of another file of the lab");
        }
        if !seen.insert(folded) {
            return refuse("is given twice");
        }
    }
    Ok(hosts)
}

fn given(master: &Path, secondaries: &[PathBuf], forced: &[PathBuf]) -> Result<Vec<LabDevice>, LabPlanError> {
    let mut devices: Vec<LabDevice> = Vec::with_capacity(1 + secondaries.len());
    for (number, device) in
        std::iter::once(master).chain(secondaries.iter().map(PathBuf::as_path)).enumerate()
    {
        let shown = || escape::name(device);
        let path = std::path::absolute(device).map_err(|_| LabPlanError::DeviceName { device: shown() })?;
        if path
            .to_str()
            .is_none_or(|text| text.contains(|sign: char| "?#".contains(sign) || sign.is_control()))
        {
            return Err(LabPlanError::DeviceName { device: shown() });
        }
        let place = Place::Given(path);
        if devices.iter().any(|other| other.place == place) {
            return Err(LabPlanError::DeviceTwice { device: shown() });
        }
        devices.push(LabDevice { id: device_id(number), place });
    }
    let is_ours = |device: &&PathBuf| *device == master || secondaries.contains(device);
    match forced.iter().find(|device| !is_ours(device)) {
        Some(device) => Err(LabPlanError::ForceStranger { device: escape::name(device) }),
        None => Ok(devices),
    }
}

/// The size is split so that the master has room for its tables and the secondaries share the rest
/// alike; without secondaries the master has it all.
fn made(args: &LabCreateArgs, lanes: u64) -> Result<Vec<LabDevice>, LabPlanError> {
    let secondaries = u64::from(args.secondaries);
    let control = control_bytes(lanes);
    let data_devices = secondaries.max(1);
    let segments_min = lanes * SEGMENTS_PER_LANE_MIN.div_ceil(data_devices);
    let data_min = MIB + (segments_min * SEGMENT_BYTES).next_multiple_of(MIB);
    let size_min = control + data_devices * data_min;
    if args.size.0 < size_min {
        return Err(LabPlanError::Size { size: args.size, lanes, min_mib: size_min / MIB });
    }
    let whole_mib = |bytes: u64| ByteSize(bytes / MIB * MIB);
    let device = |number: usize, file: String, size: ByteSize| LabDevice {
        id: device_id(number),
        place: Place::Made { file: Path::new("disks").join(file), size },
    };
    if secondaries == 0 {
        return Ok(vec![device(0, "master.img".into(), whole_mib(args.size.0))]);
    }
    let share = whole_mib((args.size.0 - control) / secondaries);
    let mut devices = vec![device(0, "master.img".into(), ByteSize(control))];
    devices
        .extend((1..=usize::from(args.secondaries)).map(|n| device(n, format!("secondary{n}.img"), share)));
    Ok(devices)
}

fn device_id(number: usize) -> Name {
    format!("disk{number}").parse().expect("a plain name")
}

/// Room for the tables of the master: the first MiB, seven regions in whole MiB, and one to spare.
fn control_bytes(lanes: u64) -> u64 {
    let entries = 4 * lanes * u64::from(CONNECTIONS);
    let regions = [2, 2 * lanes, lanes, lanes, 4 * lanes, entries, entries];
    let regions: u64 = regions.iter().map(|blocks| (blocks * BLOCK_BYTES).next_multiple_of(MIB)).sum();
    2 * MIB + regions
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;
    use volume::layout::{PlannedDevice, VolumePlan};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: LabCreateArgs,
    }

    /// The plan that `lab create` with these arguments makes.
    pub(in crate::lab) fn plan(line: &str) -> Result<LabPlan, LabPlanError> {
        let words = std::iter::once("create").chain(line.split_whitespace());
        LabPlan::new(&Line::try_parse_from(words).expect(line).args)
    }

    fn sizes(plan: &LabPlan) -> Vec<(String, u64)> {
        let size = |device: &LabDevice| match &device.place {
            Place::Made { size, .. } => size.0 / MIB,
            Place::Given(_) => 0,
        };
        plan.devices.iter().map(|device| (device.address(), size(device))).collect()
    }

    #[test]
    fn the_default_world() {
        let plan = plan("w").unwrap();
        assert_eq!(plan.hosts.iter().map(Name::as_str).collect::<Vec<_>>(), ["alpha", "beta"]);
        let expected = [
            ("file:disks/master.img", 9),
            ("file:disks/secondary1.img", 251),
            ("file:disks/secondary2.img", 251),
        ];
        assert_eq!(sizes(&plan), expected.map(|(address, size)| (address.to_owned(), size)));
        assert_eq!(plan.made_bytes(), 511 * MIB);
        assert_eq!((plan.paths, plan.lanes), (1, 3));
    }

    #[test]
    fn without_secondaries_the_master_has_it_all() {
        let plan = plan("w --secondaries 0 --size 100MiB").unwrap();
        assert_eq!(sizes(&plan), [("file:disks/master.img".to_owned(), 100)]);
    }

    #[test]
    fn given_devices_are_taken_as_they_are() {
        let plan = plan("w --master /dev/sdb --secondary /tmp/x.img --force /dev/sdb").unwrap();
        let addresses: Vec<_> = plan.devices.iter().map(LabDevice::address).collect();
        assert_eq!(addresses, ["block:/dev/sdb", "file:/tmp/x.img"]);
        assert_eq!(plan.made_bytes(), 0);
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_remedy() {
        for (line, part) in [
            ("w --host a", "1 hosts; a lab has 2 to 16"),
            ("w --host a --host A", "--host A is given twice; choose"),
            ("w --host a --host volume", "--host volume is the name of another file"),
            (
                "w --size 20MiB",
                "--size 20 MiB is too small for 8 lanes on these devices; give at least 45MiB",
            ),
            ("w --master /dev/x --secondary /dev/x", "/dev/x is given twice"),
            ("w --master /dev/x --force /dev/y", "--force /dev/y is neither"),
            ("w --master /tmp/x?y", "/tmp/x?y cannot stand in a configuration"),
        ] {
            let error = plan(line).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    /// The smallest lab that is accepted, and larger ones, are large enough for the volume layer.
    #[test]
    fn every_plan_has_room_for_its_volume() {
        let admin = aws_lc_rs::signature::Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
        for (hosts, lanes) in [(2, 1), (2, 3), (3, 7), (16, 63)] {
            for secondaries in [0, 1, 2, 5, 61] {
                let hosts: String = (0..hosts).map(|host| format!(" --host h{host}")).collect();
                let line = |size: u64| {
                    plan(&format!("w --lanes {lanes} --secondaries {secondaries} --size {size}MiB{hosts}"))
                };
                let Err(LabPlanError::Size { min_mib, lanes: lanes_all, .. }) = line(0) else {
                    panic!("nothing is too small");
                };
                let plan = line(min_mib).unwrap();
                let blocks = |device: &LabDevice| match device.place {
                    Place::Made { size, .. } => size.0 / BLOCK_BYTES,
                    Place::Given(_) => 0,
                };
                let devices =
                    plan.devices.iter().map(|device| PlannedDevice::new(device.id.as_str(), blocks(device)));
                let volume = VolumePlan {
                    devices: devices.collect::<Option<_>>().unwrap(),
                    lanes: u16::try_from(lanes_all).unwrap(),
                    connections: CONNECTIONS,
                    segment_payload_bytes: 1 << 20,
                    volume_id: [1; 16],
                    time_id: 1,
                    unix_filename: "master".into(),
                };
                let layout = volume.layout(&admin).unwrap();
                let segments: u64 = layout.pool_of_lane(0).iter().map(|(_, count)| count).sum();
                assert!(segments >= SEGMENTS_PER_LANE_MIN, "{lanes_all} lanes, {secondaries}: {segments}");
            }
        }
    }
}
