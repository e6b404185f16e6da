//! A simulated storage system: ports, logical volumes on physical disks, access states, and faults.
//!
//! ```text
//!  initiator ──path── port p0 ┐ target port    ┌ logical volume v0 ─┬─ physical disk d0
//!            ╲─path── port p1 ┘ group g0 ──────┤                    ├─ physical disk d1
//!             ╲─path─ port p2 ─ target port    └ logical volume v1 ─┘
//!                               group g1
//! ```
//!
//! This is what FIG. 12 and FIG. 14 draw. A [`Description`] says what it consists of; a [`SimulatedPath`] is
//! one way of one initiator through one port to one logical volume, and a [`BlockDevice`](crate::BlockDevice)
//! like any other. What
//! happens to it comes by command ([`StorageSystem::apply`]) or by a [`Schedule`].
//!
//! ```
//! use storage_mapping::device::StorageSystem;
//! use storage_mapping::{BlockDevice, Buffer, Instant, IoRequest, IoTag, Lba};
//!
//! let system = StorageSystem::new(
//!     &"disk d0 1MiB
//!       port p0 latency=200us
//!       port p1
//!       volume v0 concatenated d0@0+1MiB
//!       at 1s port p0 hang 3s"
//!         .parse()?,
//! )?;
//! let mut path = system.path("host1", "p0", "v0")?;
//! path.submit(Instant::ZERO, IoRequest::read(IoTag(1), Lba(0), Buffer::zeroed(4096))).expect("there is room");
//! assert!(path.poll(Instant::ZERO).is_none());
//! let later = path.next_wakeup().expect("it is on the link");
//! assert!(path.poll(later).expect("it arrived").outcome.is_ok());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Keeps true:
//!
//! * no clock and no thread: in virtual time and in real time it is the same object, and the disks below
//!   may be any devices, so that the same faults act on real data;
//! * one seed gives one run: the same calls give the same [`event_hash`](StorageSystem::event_hash);
//! * what a port refuses because of an access state was not executed and leaves no copy; what was lost in
//!   flight may land later, over newer data.
//!
//! Not here: choosing between the paths (crate `multipath`).

mod access_state;
mod build;
mod command_fault;
mod conditions;
mod core;
mod description;
mod disk;
mod event_log;
mod layout;
mod link;
mod path;
mod schedule;
mod scsi_target;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;

pub use self::access_state::AccessState;
pub use self::build::OpenDevice;
pub use self::command_fault::{ArmedFault, CommandFault};
pub use self::conditions::{Condition, Conditions, Rare};
use self::core::Core;
pub use self::description::{
    Access, Description, Extent, LogicalVolume, PhysicalDisk, Place, Port, TargetBehaviour, TargetPortGroup,
};
use self::disk::Medium;
pub use self::disk::Service;
pub use self::event_log::RequestKind;
pub use self::path::SimulatedPath;
pub use self::schedule::{
    Action, DiskChange, FLAP_MIN, LinkChange, Parts, PathName, Schedule, Scheduled, TextError,
};
pub use self::scsi_target::{Attention, Executions};
use super::memory::MemoryDisk;
use crate::block::address::{BlockCount, Lba};
use crate::block::time::Instant;

/// Why a storage system could not be made, opened or changed.
#[derive(Debug, Error)]
pub enum SystemError {
    /// A name that is none of this system.
    #[error("there is no {kind} `{name}`; there are: {known}")]
    Unknown {
        /// What kind of part.
        kind: &'static str,
        /// The name.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// Two parts of one kind with one name.
    #[error("there are two {kind}s `{name}`: give one of them another name")]
    Twice {
        /// What kind of part.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A part that does not fit.
    #[error("{kind} `{name}`: {problem}")]
    Part {
        /// What kind of part.
        kind: &'static str,
        /// The name.
        name: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A link that flaps too fast.
    #[error("a link stays up and down for at least 1ms each time")]
    FlapTooFast,
    /// No descriptors left.
    #[error("cannot open a path: {0}")]
    Descriptor(#[from] std::io::Error),
}

/// Whether a part or an initiator can have this name.
#[must_use]
pub fn is_name(name: &str) -> bool {
    schedule::check_name(name).is_ok()
}

/// Where a run of blocks of a logical volume lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// First block of the run on the logical volume.
    pub logical: Lba,
    /// The physical disk.
    pub disk: String,
    /// First block of the run there.
    pub physical: Lba,
    /// Number of blocks.
    pub count: BlockCount,
}

/// A storage system. A clone is the same system.
#[derive(Clone)]
pub struct StorageSystem {
    core: Arc<Mutex<Core>>,
    description: Arc<Description>,
}

impl StorageSystem {
    /// A system all of whose disks are in memory.
    ///
    /// # Errors
    /// When its parts do not fit together, or a disk is not in memory.
    pub fn new(description: &Description) -> Result<Self, SystemError> {
        let mut refuse = |_: &str| Err("only disks in memory here: give it a size".to_owned());
        Self::with_devices(description, &mut refuse)
    }

    /// A system some of whose disks are other devices; `open` opens what stands in their
    /// [`Place::Address`], or says why not.
    ///
    /// # Errors
    /// When its parts do not fit together, or a disk cannot be opened.
    pub fn with_devices(description: &Description, open: &mut OpenDevice<'_>) -> Result<Self, SystemError> {
        let core = Core::new(build::check(description, open)?);
        core.check_schedule(&description.schedule)?;
        Ok(Self { core: Arc::new(Mutex::new(core)), description: Arc::new(description.clone()) })
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a path. One that is open already is opened once more, as a nexus of its own.
    ///
    /// # Errors
    /// When there is no such port or volume, the initiator's name is none, or no descriptor is left.
    pub fn path(&self, initiator: &str, port: &str, volume: &str) -> Result<SimulatedPath, SystemError> {
        let wrong = |problem| SystemError::Part { kind: "initiator", name: initiator.to_owned(), problem };
        schedule::check_name(initiator).map_err(wrong)?;
        let bell = core::new_bell()?;
        let mut core = self.lock();
        let (port_index, volume_index) = (core.port_named(port)?, core.volume_named(volume)?);
        let (initiator, port, volume) = (initiator.to_owned(), port.to_owned(), volume.to_owned());
        let index = core.nexus_of(&PathName { initiator, port, volume }, port_index, volume_index, bell);
        core.open(index);
        drop(core);
        Ok(SimulatedPath::new(Arc::clone(&self.core), index))
    }

    /// Does at once what the action says.
    ///
    /// # Errors
    /// When it names something that is not there; then nothing happens.
    pub fn apply(&self, now: Instant, action: &Action) -> Result<(), SystemError> {
        let mut core = self.lock();
        core.advance(now);
        core.apply(action)?;
        core.ring_all();
        Ok(())
    }

    /// Takes a schedule in, beside those that run already; its times count from `start`.
    ///
    /// # Errors
    /// When it names something that is not there; then nothing of it happens.
    pub fn run(&self, start: Instant, schedule: &Schedule) -> Result<(), SystemError> {
        let mut core = self.lock();
        core.check_schedule(schedule)?;
        core.start_schedule(start, schedule);
        core.ring_all();
        Ok(())
    }

    /// Goes through all that is due. Paths do this themselves; it is for who has none, or gave it up.
    pub fn advance(&self, now: Instant) {
        self.lock().advance(now);
    }

    /// When the passing of time will change something, whichever path it concerns.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.lock().next_wakeup_of_all()
    }

    /// Which blocks of which disks hold `count` blocks of a volume, from `lba` on, in logical order; cut at
    /// the end of the volume.
    ///
    /// # Errors
    /// When there is no such volume.
    pub fn locate(&self, volume: &str, lba: Lba, count: BlockCount) -> Result<Vec<Placement>, SystemError> {
        let core = self.lock();
        let layout = &core.volumes[core.volume_named(volume)?].layout;
        let place = |run: layout::Run| Placement {
            logical: Lba(run.logical),
            disk: core.disks[run.disk].0.clone(),
            physical: Lba(run.disk_lba),
            count: BlockCount(run.count),
        };
        Ok(layout.runs(lba, count).map(place).collect())
    }

    /// How a port lets a volume be reached now.
    ///
    /// # Errors
    /// When there is no such port or volume.
    pub fn access_state(&self, port: &str, volume: &str) -> Result<AccessState, SystemError> {
        let core = self.lock();
        let group = core.ports[core.port_named(port)?].group;
        Ok(core.access[core.access_cell(group, core.volume_named(volume)?)].state)
    }

    /// Has the next control command of this opcode over a path (`None`: the next one, whichever it is) meet a fault. What is
    /// armed first meets first.
    ///
    /// # Errors
    /// When there is no such port or volume.
    pub fn arm(
        &self,
        now: Instant,
        path: &PathName,
        opcode: Option<u8>,
        fault: CommandFault,
    ) -> Result<(), SystemError> {
        let change = LinkChange::Next(ArmedFault { opcode, fault });
        self.apply(now, &Action::Path { path: path.clone(), change })
    }

    /// Has every nexus of a volume meet a unit attention.
    ///
    /// # Errors
    /// When there is no such volume.
    pub fn raise_attention(&self, volume: &str, attention: Attention) -> Result<(), SystemError> {
        let mut core = self.lock();
        let volume = core.volume_named(volume)?;
        core.units[volume].attend_others(None, attention);
        Ok(())
    }

    /// The unit attentions that wait for each nexus of this name, in order of its openings.
    #[must_use]
    pub fn waiting_attentions(&self, path: &PathName) -> Vec<Vec<Attention>> {
        let core = self.lock();
        let of_name = core.nexuses.iter().filter(|nexus| nexus.name == *path);
        of_name.map(|nexus| core.units[nexus.volume].attentions(nexus.slot)).collect()
    }

    /// How often each control command came to a volume, by opcode and, where it has one, service action.
    ///
    /// # Errors
    /// When there is no such volume.
    pub fn executions(&self, volume: &str) -> Result<BTreeMap<(u8, Option<u8>), Executions>, SystemError> {
        let core = self.lock();
        Ok(core.units[core.volume_named(volume)?].executions().clone())
    }

    /// What the system consists of, with the access states that hold now and without its schedule.
    #[must_use]
    pub fn description(&self) -> Description {
        let core = self.lock();
        let mut access = Vec::new();
        for (group, (name, _)) in core.groups.iter().enumerate() {
            for (volume, of) in core.volumes.iter().enumerate() {
                let state = core.access[core.access_cell(group, volume)].state;
                if state != AccessState::ActiveOptimized {
                    access.push(Access { group: name.clone(), volume: of.name.clone(), state });
                }
            }
        }
        Description { access, schedule: Schedule::default(), ..(*self.description).clone() }
    }

    /// A disk that is in memory, to look at or damage its bytes.
    #[must_use]
    pub fn memory_disk(&self, disk: &str) -> Option<MemoryDisk> {
        let core = self.lock();
        match &core.disks[core.disk_named(disk).ok()?].1.medium {
            Medium::Memory(memory) => Some(memory.clone()),
            Medium::Device { .. } => None,
        }
    }

    /// One number for all events so far and their order.
    #[must_use]
    pub fn event_hash(&self) -> u64 {
        self.lock().log.hash()
    }

    /// Events so far.
    #[must_use]
    pub fn event_count(&self) -> u64 {
        self.lock().log.count()
    }

    /// The last events, a line for each; how many are kept is bounded.
    #[must_use]
    pub fn event_lines(&self) -> Vec<String> {
        let core = self.lock();
        let name =
            |path: usize| core.nexuses.get(path).map_or_else(String::new, |nexus| nexus.name.to_string());
        core.log.kept().map(|entry| entry.line(&name(entry.path))).collect()
    }

    /// Keeps the lines of so many events (at first 4,096).
    pub fn keep_event_lines(&self, count: usize) {
        self.lock().log.set_limit(count);
    }
}

impl fmt::Debug for StorageSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StorageSystem({} ports)", self.description.ports.len())
    }
}
