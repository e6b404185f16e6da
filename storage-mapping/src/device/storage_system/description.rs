//! What a storage system consists of: data, made by hand or read from a small text file.
//!
//! One line is one part; `#` begins a comment. A name is of letters, digits and `. _ - :`.
//!
//! ```text
//! block 4096                                 size of a logical block, in bytes
//! seed 7                                     where all chance comes from
//! forwarding 300us                           what a non-optimized port adds to a request
//! disk d0 64MiB latency=100us parallel=8 rate=200MiB
//! disk d1 file:/var/lib/d1.img               any path address; `latency` and so on as above
//! group g0                                   a target port group
//! group g1 preferred
//! port p0 group=g0 latency=50us rate=100MiB queue=64    and any other condition of a link
//! port p1                                    a port without a group is a group of its own name
//! volume v0 striped unit=64KiB d0@0+16MiB d1@0+16MiB    DISK@START+SIZE: where it lies
//! volume v1 concatenated d0@16MiB+1MiB d1@32MiB+8MiB
//! access g1/v0 non-optimized                 the first access state (else optimized)
//! target registrations=login attentions=blocks          how its logical units behave (`TargetBehaviour`)
//! at 1s port p0 hang 3s                      a line of a schedule
//! ```
//!
//! Keeps true: what prints parses back; nothing is opened by reading. Not here: whether it fits together
//! (`build` checks that), the actions of a schedule (`schedule`).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::access_state::AccessState;
use super::conditions::{Condition, Conditions, positive, rate, size, time};
use super::disk::Service;
use super::schedule::{Parts, Schedule, Scheduled, TextError, check_name, lines_of};
use crate::block::address::{BlockSize, ByteSize};
use crate::path_address::{exact_byte_size, exact_duration};

/// Where a physical disk has its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In memory, of this size.
    Memory(ByteSize),
    /// At the end of a path address, as it was written.
    Address(String),
}

/// A physical disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhysicalDisk {
    /// Its name.
    pub name: String,
    /// Where its bytes are.
    pub place: Place,
    /// How long it takes.
    pub service: Service,
}

/// A target port group: ports that share their access states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPortGroup {
    /// Its name.
    pub name: String,
    /// Whether the storage system would rather be reached through it.
    pub is_preferred: bool,
}

/// A port.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its target port group; `None` is a group of its own.
    pub group: Option<String>,
    /// How its link behaves.
    pub conditions: Conditions,
}

/// A range of a physical disk, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The disk.
    pub disk: String,
    /// Where it begins.
    pub start: ByteSize,
    /// How long it is.
    pub size: ByteSize,
}

/// A logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogicalVolume {
    /// Its name.
    pub name: String,
    /// In turns of so many bytes over all extents; `None` is one extent after the other.
    pub stripe_unit: Option<ByteSize>,
    /// Where it lies.
    pub extents: Vec<Extent>,
}

/// The first access state of a group for a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The target port group.
    pub group: String,
    /// The logical volume.
    pub volume: String,
    /// The state.
    pub state: AccessState,
}

/// How the logical units behave where targets differ. The default is the behaviour of an array; its blocks tell of
/// nothing but changes of access states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetBehaviour {
    /// `registrations=name`: a registration belongs to the names of the two ports, and a new login finds it again.
    /// `registrations=login`: it belongs to one login; a later one is not registered, and the old registration stays.
    pub keeps_registrations: bool,
    /// `attentions=blocks`: requests for blocks meet every unit attention. `attentions=commands`: only 6/2A/06.
    pub blocks_meet_attentions: bool,
}

impl Default for TargetBehaviour {
    fn default() -> Self {
        Self { keeps_registrations: true, blocks_meet_attentions: false }
    }
}

/// What a storage system consists of.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// Size of a logical block.
    pub block_size: BlockSize,
    /// Where all chance comes from.
    pub seed: u64,
    /// What a non-optimized port adds to each request.
    pub forwarding: Duration,
    /// Physical disks.
    pub disks: Vec<PhysicalDisk>,
    /// Target port groups, beside those that ports without one make.
    pub groups: Vec<TargetPortGroup>,
    /// Ports.
    pub ports: Vec<Port>,
    /// Logical volumes.
    pub volumes: Vec<LogicalVolume>,
    /// Access states that are not active/optimized at first.
    pub access: Vec<Access>,
    /// How its logical units behave.
    pub target: TargetBehaviour,
    /// What happens to it; it starts when the system is first used.
    pub schedule: Schedule,
}

impl Default for Description {
    fn default() -> Self {
        Self {
            block_size: BlockSize::B4096,
            seed: 0,
            forwarding: Duration::ZERO,
            disks: Vec::new(),
            groups: Vec::new(),
            ports: Vec::new(),
            volumes: Vec::new(),
            access: Vec::new(),
            target: TargetBehaviour::default(),
            schedule: Schedule::default(),
        }
    }
}

impl Description {
    /// A system with one disk in memory, all of which is one volume, and `ports` ports `p0`, `p1`, …
    #[must_use]
    pub fn simple(volume: &str, size: ByteSize, ports: u32) -> Self {
        let port = |index| Port { name: format!("p{index}"), group: None, conditions: Conditions::default() };
        let disk = "d0".to_owned();
        let extent = Extent { disk: disk.clone(), start: ByteSize(0), size };
        Self {
            disks: vec![PhysicalDisk { name: disk, place: Place::Memory(size), service: Service::default() }],
            ports: (0..ports).map(port).collect(),
            volumes: vec![LogicalVolume {
                name: volume.to_owned(),
                stripe_unit: None,
                extents: vec![extent],
            }],
            ..Self::default()
        }
    }

    /// What [`Schedule::random`] may draw faults for.
    #[must_use]
    pub fn parts(&self) -> Parts {
        let of_ports = self.ports.iter().filter(|port| port.group.is_none()).map(|port| &port.name);
        Parts {
            ports: self.ports.iter().map(|port| port.name.clone()).collect(),
            groups: self.groups.iter().map(|group| &group.name).chain(of_ports).cloned().collect(),
            volumes: self.volumes.iter().map(|volume| volume.name.clone()).collect(),
        }
    }

    fn read(&mut self, words: &[&str], schedule: &mut Vec<Scheduled>) -> Result<(), String> {
        match words {
            ["block", value] => {
                let bytes = u32::try_from(size(value)?).ok();
                self.block_size = bytes
                    .and_then(BlockSize::new)
                    .ok_or_else(|| format!("`{value}` is not a power of two from 512 to 65536"))?;
            }
            ["seed", value] => {
                self.seed = value.parse().map_err(|_| format!("`{value}` is not a whole number"))?;
            }
            ["forwarding", value] => self.forwarding = time(value)?,
            ["disk", name, place, options @ ..] => self.disks.push(read_disk(name, place, options)?),
            ["group", name, preferred @ ..] => {
                let is_preferred = match preferred {
                    [] => false,
                    ["preferred"] => true,
                    _ => return Err("after the name of a group comes nothing, or `preferred`".to_owned()),
                };
                check_name(name)?;
                self.groups.push(TargetPortGroup { name: (*name).to_owned(), is_preferred });
            }
            ["port", name, options @ ..] => self.ports.push(read_port(name, options)?),
            ["volume", name, "concatenated", extents @ ..] => {
                self.volumes.push(read_volume(name, None, extents)?);
            }
            ["volume", name, "striped", unit, extents @ ..] => {
                let unit = unit
                    .strip_prefix("unit=")
                    .ok_or("after `striped` comes `unit=SIZE`, such as unit=64KiB")?;
                self.volumes.push(read_volume(name, Some(ByteSize(size(unit)?)), extents)?);
            }
            ["access", place, state] => {
                let (group, volume) =
                    place.split_once('/').ok_or_else(|| format!("`{place}` is not GROUP/VOLUME"))?;
                let state = super::schedule::access_state(state)?;
                check_name(group)?;
                check_name(volume)?;
                self.access.push(Access { group: group.to_owned(), volume: volume.to_owned(), state });
            }
            ["target", options @ ..] => self.target.read(options)?,
            ["at", rest @ ..] => schedule.push(Scheduled::parse(rest)?),
            _ => {
                return Err(
                    "a line begins with block, seed, forwarding, disk, group, port, access, target or at, or is \
                     `volume NAME concatenated|striped …`"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }
}

impl TargetBehaviour {
    fn read(&mut self, options: &[&str]) -> Result<(), String> {
        for option in options {
            match read_option(option)? {
                ("registrations", "name") => self.keeps_registrations = true,
                ("registrations", "login") => self.keeps_registrations = false,
                ("attentions", "commands") => self.blocks_meet_attentions = false,
                ("attentions", "blocks") => self.blocks_meet_attentions = true,
                _ => {
                    return Err(format!(
                        "`{option}` is none of registrations=name|login, attentions=commands|blocks"
                    ));
                }
            }
        }
        Ok(())
    }
}

fn read_option(option: &str) -> Result<(&str, &str), String> {
    option.split_once('=').ok_or_else(|| format!("`{option}` is not NAME=VALUE"))
}

fn read_disk(name: &str, place: &str, options: &[&str]) -> Result<PhysicalDisk, String> {
    check_name(name)?;
    let place = match place.contains(':') {
        true => Place::Address(place.to_owned()),
        false => Place::Memory(ByteSize(size(place)?)),
    };
    let mut service = Service::default();
    for option in options {
        match read_option(option)? {
            ("latency", value) => service.latency = time(value)?,
            ("rate", value) => service.rate = rate(value)?,
            ("parallel", value) => service.parallel = Some(positive(value)?),
            (word, _) => return Err(format!("`{word}` is none of latency, rate, parallel")),
        }
    }
    Ok(PhysicalDisk { name: name.to_owned(), place, service })
}

fn read_port(name: &str, options: &[&str]) -> Result<Port, String> {
    check_name(name)?;
    let mut port = Port { name: name.to_owned(), group: None, conditions: Conditions::default() };
    for option in options {
        let (word, value) = read_option(option)?;
        if word == "group" {
            check_name(value)?;
            port.group = Some(value.to_owned());
        } else {
            let condition = Condition::parse(word, value)?
                .ok_or_else(|| format!("`{word}` is none of group, {}", Condition::WORDS))?;
            port.conditions.set(condition);
        }
    }
    Ok(port)
}

fn read_volume(name: &str, stripe_unit: Option<ByteSize>, extents: &[&str]) -> Result<LogicalVolume, String> {
    check_name(name)?;
    let extents: Result<Vec<_>, _> = extents.iter().map(|text| read_extent(text)).collect();
    Ok(LogicalVolume { name: name.to_owned(), stripe_unit, extents: extents? })
}

fn read_extent(text: &str) -> Result<Extent, String> {
    let parts = text.split_once('@').and_then(|(disk, range)| Some((disk, range.split_once('+')?)));
    let (disk, (start, length)) =
        parts.ok_or_else(|| format!("`{text}` is not DISK@START+SIZE, such as d0@0+16MiB"))?;
    check_name(disk)?;
    Ok(Extent { disk: disk.to_owned(), start: ByteSize(size(start)?), size: ByteSize(size(length)?) })
}

impl FromStr for Description {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let mut description = Self::default();
        let mut schedule = Vec::new();
        lines_of(text, |words| description.read(words, &mut schedule))?;
        description.schedule = Schedule::new(schedule);
        Ok(description)
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "block {}", self.block_size.bytes())?;
        writeln!(f, "seed {}", self.seed)?;
        if self.forwarding > Duration::ZERO {
            writeln!(f, "forwarding {}", exact_duration(self.forwarding))?;
        }
        self.disks.iter().try_for_each(|disk| writeln!(f, "{disk}"))?;
        for TargetPortGroup { name, is_preferred } in &self.groups {
            writeln!(f, "group {name}{}", if *is_preferred { " preferred" } else { "" })?;
        }
        self.ports.iter().try_for_each(|port| writeln!(f, "{port}"))?;
        self.volumes.iter().try_for_each(|volume| writeln!(f, "{volume}"))?;
        for Access { group, volume, state } in &self.access {
            writeln!(f, "access {group}/{volume} {state}")?;
        }
        write!(f, "{}", self.target)?;
        for Scheduled { at, action } in self.schedule.actions() {
            writeln!(f, "at {} {action}", exact_duration(*at))?;
        }
        Ok(())
    }
}

impl fmt::Display for TargetBehaviour {
    /// A line, where it differs from the default.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::default() {
            return Ok(());
        }
        let registrations = if self.keeps_registrations { "name" } else { "login" };
        let attentions = if self.blocks_meet_attentions { "blocks" } else { "commands" };
        writeln!(f, "target registrations={registrations} attentions={attentions}")
    }
}

impl fmt::Display for PhysicalDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Memory(size) => write!(f, "disk {} {}", self.name, exact_byte_size(size.0))?,
            Place::Address(address) => write!(f, "disk {} {address}", self.name)?,
        }
        let Service { latency, parallel, rate } = self.service;
        if latency > Duration::ZERO {
            write!(f, " latency={}", exact_duration(latency))?;
        }
        if let Some(parallel) = parallel {
            write!(f, " parallel={parallel}")?;
        }
        rate.map_or(Ok(()), |rate| write!(f, " rate={}", exact_byte_size(rate)))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}", self.name)?;
        if let Some(group) = &self.group {
            write!(f, " group={group}")?;
        }
        self.conditions.unusual().iter().try_for_each(|condition| {
            let (word, value) = condition.text();
            write!(f, " {word}={value}")
        })
    }
}

impl fmt::Display for LogicalVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stripe_unit {
            None => write!(f, "volume {} concatenated", self.name)?,
            Some(unit) => write!(f, "volume {} striped unit={}", self.name, exact_byte_size(unit.0))?,
        }
        self.extents.iter().try_for_each(|Extent { disk, start, size }| {
            write!(f, " {disk}@{}+{}", exact_byte_size(start.0), exact_byte_size(size.0))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::*;

    const TEXT: &str = "block 512
seed 7
forwarding 300us
disk d0 64MiB latency=100us parallel=8 rate=200MiB
disk d1 file:/var/lib/d1.img?block=512
group g0
group g1 preferred
port p0 group=g0 latency=50us grey=0.01:100ms rate=100MiB queue=64
port p1
volume v0 striped unit=64KiB d0@0+16MiB d1@0+16MiB
volume v1 concatenated d0@16MiB+1MiB
access g1/v0 non-optimized
target registrations=login attentions=blocks
at 1s port p0 hang 3s
at 1500ms port p0 next 5f answer-lost
at 1500ms path host1/p0/v0 next any lost 2s
at 1500ms port p1 next c0 attention 2a/09
at 2s access g0/v0 standby after 1s
";

    #[test]
    fn a_full_description_prints_as_it_was_written() {
        let description: Description = TEXT.parse().unwrap();
        assert_eq!(description.to_string(), TEXT);
        assert_eq!(description.parts().groups, ["g0", "g1", "p1"]);
    }

    #[test]
    fn errors_name_the_line_and_the_remedy() {
        for (text, part) in [
            ("blocks 512", "a line begins with"),
            ("block 1000", "power of two"),
            ("disk d0 12", ""),
            ("disk d0 x", "number"),
            ("disk d0 1MiB speed=1", "parallel"),
            ("group g0 best", "preferred"),
            ("port p0 group", "NAME=VALUE"),
            ("port p0 colour=red", "latency"),
            ("volume v0 striped d0@0+1MiB", "unit=64KiB"),
            ("volume v0 concatenated d0", "d0@0+16MiB"),
            ("access g0/v0 asleep", "standby"),
            ("target registrations=port", "name|login"),
            ("at 1s port", "port"),
            ("at 1s port p0 next 5 busy", "two hexadecimal digits"),
            ("at 1s port p0 next 5f explode", "answer-lost"),
        ] {
            match text.parse::<Description>() {
                Ok(_) => assert!(part.is_empty(), "{text}"),
                Err(error) => assert!(error.to_string().contains(part), "{text}: {error}"),
            }
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".*", line in "(disk|port|group|volume|access|at) .*") {
            drop(text.parse::<Description>());
            drop(line.parse::<Description>());
        }
    }
}
