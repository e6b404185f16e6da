//! The storage system itself, as a state machine: requests, times and changes come in, completions and
//! events wait for the paths they belong to.
//!
//! Keeps true:
//!
//! * no clock, no thread: it goes on when anyone calls, through all that is due, in order of time;
//! * chance comes from the seed alone, so the same calls give the same events ([`EventLog`]);
//! * a command lives on when the path it came over is lost: then it is a *ghost*, that nobody waits for.
//!
//! Not here: what becomes of one command (`command`, `service`, `loss`), what a change does (`change`), the handles that
//! others hold (`path` and the parent module).

mod change;
mod command;
mod control;
mod loss;
mod service;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use self::command::{Command, Stage};
use super::SystemError;
use super::access_state::AccessState;
use super::description::TargetBehaviour;
use super::disk::{Disk, Medium};
use super::event_log::{Entry, EventLog, KEPT, What};
use super::layout::Layout;
use super::link::{Carrier, Link};
use super::schedule::{PathName, Schedule};
use super::scsi_target::{LogicalUnit, UnitName};
use crate::block::address::BlockSize;
use crate::block::buffer::BufferPool;
use crate::block::request::{Cancelled, IoCompletion, IoRequest, IoTag, Operation, RefusalReason, Refused};
use crate::block::time::Instant;
use crate::block::{DeviceEvent, Geometry};
use crate::control_port::{ControlCompletion, ControlEvent, TRANSFER_MAX_BYTES};
use crate::hand_off::bell::Bell;

/// Requests in flight on one path, at most.
pub(super) const QUEUE_DEPTH: usize = 1024;

/// Stands for the command of a request that has ended and was not yet fetched.
const DONE: u32 = u32::MAX;

/// A command: its place in the table, and which of those that had the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CommandId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// Which link: of a port, or of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LinkPlace {
    Port(usize),
    Nexus(usize),
}

/// What the passing of time does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// A command goes on; `step` tells an old timer of it.
    Step {
        command: CommandId,
        step: u32,
    },
    /// A disk has served a piece of a command.
    Served {
        index: u32,
        piece: u32,
    },
    HangEnd {
        link: LinkPlace,
        generation: u32,
    },
    FlapDown {
        link: LinkPlace,
        generation: u32,
    },
    FlapUp {
        link: LinkPlace,
        generation: u32,
    },
    Transition {
        cell: usize,
        generation: u32,
    },
    Scheduled(usize),
}

#[derive(Debug)]
pub(super) struct PortState {
    pub(super) name: String,
    pub(super) group: usize,
    pub(super) link: Link,
    /// Commands that it has taken in and that have not ended.
    outstanding: u32,
}

#[derive(Debug)]
pub(super) struct VolumeState {
    pub(super) name: String,
    pub(super) layout: Layout,
    /// Every disk that it lies on, once: where a flush goes.
    pub(super) disks: Vec<usize>,
    pub(super) geometry: Geometry,
}

/// The access state of one volume through one group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AccessCell {
    pub(super) state: AccessState,
    next: AccessState,
    generation: u32,
}

/// A hasher for tags, which programs number one after the other.
#[derive(Default)]
pub(super) struct TagHasher(u64);

impl Hasher for TagHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }
    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

/// One path, as the storage system knows it: an initiator at a port, for a volume.
pub(super) struct Nexus {
    pub(super) name: PathName,
    pub(super) port: usize,
    pub(super) volume: usize,
    pub(super) is_open: bool,
    pub(super) link: Link,
    was_up: bool,
    /// The number that its logical unit has for it.
    pub(super) slot: usize,
    in_flight: HashMap<IoTag, u32, BuildHasherDefault<TagHasher>>,
    ready: VecDeque<IoCompletion>,
    events: VecDeque<DeviceEvent>,
    /// Control commands that have ended.
    answers: VecDeque<ControlCompletion>,
    control_events: VecDeque<ControlEvent>,
    /// An event came since the path was last polled: who drives it is to look.
    has_news: bool,
    bell: Bell,
    /// Someone may sleep until the bell rings.
    waits: bool,
}

impl Nexus {
    /// Rings for someone who sleeps.
    fn wake(&self) {
        if self.waits && self.ready.is_empty() && self.answers.is_empty() {
            self.bell.ring();
        }
    }

    /// Forgets what was not fetched.
    fn forget_all(&mut self) {
        self.ready.clear();
        self.events.clear();
        self.answers.clear();
        self.control_events.clear();
    }

    /// All is fetched: the bell need not ring until there is more.
    fn quieten(&self) {
        if self.waits && self.ready.is_empty() && self.answers.is_empty() {
            self.bell.clear();
        }
    }
}

/// Everything in the system.
pub(super) struct Core {
    now: Instant,
    pub(super) block_size: BlockSize,
    pub(super) forwarding: Duration,
    seed: u64,
    pub(super) disks: Vec<(String, Disk)>,
    pub(super) groups: Vec<(String, bool)>,
    pub(super) ports: Vec<PortState>,
    pub(super) volumes: Vec<VolumeState>,
    /// What answers control commands for each volume.
    pub(super) units: Vec<LogicalUnit>,
    /// Requests for blocks meet every unit attention, and not only changes of the access state.
    blocks_meet_attentions: bool,
    /// By group, then by volume.
    pub(super) access: Vec<AccessCell>,
    pub(super) nexuses: Vec<Nexus>,
    commands: Vec<Command>,
    free: Vec<u32>,
    accepted: u64,
    timers: BinaryHeap<Reverse<(Instant, u64, Due)>>,
    order: u64,
    schedule: Vec<super::schedule::Action>,
    /// Starts with the first call.
    waiting_schedule: Option<Schedule>,
    has_devices: bool,
    pool: BufferPool,
    pub(super) log: EventLog,
}

/// What a system is made of, checked.
pub(super) struct CheckedParts {
    pub(super) block_size: BlockSize,
    pub(super) forwarding: Duration,
    pub(super) seed: u64,
    pub(super) disks: Vec<(String, Disk)>,
    pub(super) groups: Vec<(String, bool)>,
    pub(super) ports: Vec<PortState>,
    pub(super) volumes: Vec<VolumeState>,
    pub(super) access: Vec<AccessState>,
    pub(super) target: TargetBehaviour,
    pub(super) schedule: Schedule,
}

impl CheckedParts {
    /// The logical unit of each volume.
    fn units(&self) -> Vec<LogicalUnit> {
        let unit = |volume: &VolumeState| {
            LogicalUnit::new(UnitName {
                volume: volume.name.clone(),
                seed: self.seed,
                block_size: self.block_size,
                block_count: volume.geometry.block_count,
                transfer_max_bytes: volume.geometry.transfer_max_bytes.min(TRANSFER_MAX_BYTES),
                ports: self.ports.iter().map(|port| port.group).collect(),
                groups: self.groups.iter().map(|(_, is_preferred)| *is_preferred).collect(),
                units: u16::try_from(self.volumes.len()).unwrap_or(u16::MAX),
                keeps_registrations: self.target.keeps_registrations,
            })
        };
        self.volumes.iter().map(unit).collect()
    }
}

/// A bell for a path.
pub(super) fn new_bell() -> Result<Bell, SystemError> {
    Bell::new().map_err(SystemError::Descriptor)
}

impl PortState {
    pub(super) fn new(name: String, group: usize, link: Link) -> Self {
        Self { name, group, link, outstanding: 0 }
    }
}

impl Core {
    pub(super) fn new(parts: CheckedParts) -> Self {
        let has_devices = parts.disks.iter().any(|(_, disk)| matches!(disk.medium, Medium::Device { .. }));
        let cell = |state| AccessCell { state, next: state, generation: 0 };
        let units = parts.units();
        Self {
            now: Instant::ZERO,
            units,
            blocks_meet_attentions: parts.target.blocks_meet_attentions,
            block_size: parts.block_size,
            forwarding: parts.forwarding,
            seed: parts.seed,
            disks: parts.disks,
            groups: parts.groups,
            ports: parts.ports,
            volumes: parts.volumes,
            access: parts.access.into_iter().map(cell).collect(),
            nexuses: Vec::new(),
            commands: Vec::new(),
            free: Vec::new(),
            accepted: 0,
            timers: BinaryHeap::new(),
            order: 0,
            schedule: Vec::new(),
            waiting_schedule: Some(parts.schedule),
            has_devices,
            pool: BufferPool::new(),
            log: EventLog::new(KEPT),
        }
    }

    pub(super) fn access_cell(&self, group: usize, volume: usize) -> usize {
        group * self.volumes.len() + volume
    }

    fn wake(&mut self, at: Instant, due: Due) {
        self.timers.push(Reverse((at, self.order, due)));
        self.order += 1;
    }

    fn note(&mut self, nexus: usize, tag: IoTag, what: What) {
        self.log.push(Entry { at: self.now, path: nexus, tag, what });
    }

    /// Goes through all that is due. Time does not go back: an earlier `now` than that of another path
    /// counts as the later one.
    pub(super) fn advance(&mut self, now: Instant) {
        if let Some(schedule) = self.waiting_schedule.take() {
            self.start_schedule(now, &schedule);
        }
        let now = now.max(self.now);
        while let Some(Reverse((at, _, due))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            self.now = self.now.max(at);
            self.handle_due(due);
        }
        self.now = now;
        if self.has_devices {
            self.drain_devices();
        }
    }

    fn handle_due(&mut self, due: Due) {
        match due {
            Due::Step { command, step } => self.handle_step(command, step),
            Due::Served { index, piece } => self.handle_served(index, piece),
            Due::HangEnd { link, generation } => self.handle_hang_end(link, generation),
            Due::FlapDown { link, generation } => self.handle_flap_down(link, generation),
            Due::FlapUp { link, generation } => self.handle_flap_up(link, generation),
            Due::Transition { cell, generation } => self.handle_transition(cell, generation),
            Due::Scheduled(index) => {
                let action = self.schedule[index].clone();
                // Checked when the schedule was taken in.
                let _ = self.apply(&action);
            }
        }
    }

    /// Whether all that a schedule names is there.
    pub(super) fn check_schedule(&self, schedule: &Schedule) -> Result<(), SystemError> {
        schedule.actions().iter().try_for_each(|scheduled| self.check(&scheduled.action))
    }

    pub(super) fn start_schedule(&mut self, start: Instant, schedule: &Schedule) {
        for scheduled in schedule.actions() {
            self.wake(start + scheduled.at, Due::Scheduled(self.schedule.len()));
            self.schedule.push(scheduled.action.clone());
        }
    }

    /// When the passing of time alone will change something.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _, _))| *at)
    }

    /// The index of an opening for this path: a closed one of the name, or a new one.
    pub(super) fn nexus_of(&mut self, name: &PathName, port: usize, volume: usize, bell: Bell) -> usize {
        if let Some(index) = self.nexuses.iter().position(|nexus| !nexus.is_open && nexus.name == *name) {
            self.nexuses[index].bell = bell;
            return index;
        }
        let index = self.nexuses.len();
        let seed = self.seed.wrapping_add((index as u64 + 1) << 32);
        let mut link = Link::new(super::conditions::Conditions::default(), seed);
        if let Some(same) = self.nexuses.iter().find(|nexus| nexus.name == *name) {
            link.set_conditions(*same.link.conditions());
        }
        let opening = self.nexuses.iter().filter(|nexus| nexus.name == *name).count();
        let slot = self.units[volume].add_nexus(initiator_name(&name.initiator, opening), port);
        self.nexuses.push(Nexus {
            name: name.clone(),
            port,
            volume,
            is_open: false,
            link,
            was_up: true,
            slot,
            in_flight: HashMap::default(),
            ready: VecDeque::new(),
            events: VecDeque::new(),
            answers: VecDeque::new(),
            control_events: VecDeque::new(),
            has_news: false,
            bell,
            waits: false,
        });
        index
    }

    /// Opens a path: what happened before is not its concern.
    pub(super) fn open(&mut self, index: usize) {
        let is_up = self.is_up(index);
        let nexus = &mut self.nexuses[index];
        nexus.is_open = true;
        nexus.was_up = is_up;
        nexus.waits = false;
        nexus.has_news = false;
        nexus.forget_all();
        if is_up {
            self.begin_nexus(index);
        }
    }

    /// Closes a path. What it had in flight lives on without it.
    pub(super) fn close(&mut self, index: usize) {
        let in_flight = self.nexuses[index].in_flight.drain();
        let mut commands: Vec<u32> = in_flight.map(|(_, command)| command).filter(|c| *c != DONE).collect();
        commands.sort_by_key(|command| self.commands[*command as usize].sequence);
        for command in commands {
            self.forget_waiter(command);
        }
        let nexus = &mut self.nexuses[index];
        nexus.is_open = false;
        nexus.forget_all();
        let (volume, slot) = (nexus.volume, nexus.slot);
        self.units[volume].end_nexus(slot);
    }

    fn is_up(&self, nexus: usize) -> bool {
        let nexus = &self.nexuses[nexus];
        nexus.link.carrier == Carrier::Up && self.ports[nexus.port].link.carrier == Carrier::Up
    }

    /// Takes a request in over a path.
    pub(super) fn submit(&mut self, now: Instant, nexus: usize, request: IoRequest) -> Result<(), Refused> {
        self.advance(now);
        let path = &self.nexuses[nexus];
        let geometry = &self.volumes[path.volume].geometry;
        let fits = match &request.operation {
            Operation::Read { lba, buffer } => {
                geometry.admits(*lba, buffer.len()) && is_aligned(geometry, buffer)
            }
            Operation::Write { lba, data, .. } => {
                geometry.admits(*lba, data.len()) && is_aligned(geometry, data)
            }
            Operation::Flush => true,
        };
        let reason = if !fits {
            RefusalReason::Invalid
        } else if path.in_flight.len() >= QUEUE_DEPTH {
            RefusalReason::Busy
        } else if path.in_flight.contains_key(&request.tag) {
            RefusalReason::DuplicateTag
        } else {
            self.begin(nexus, request);
            return Ok(());
        };
        Err(Refused { reason, request })
    }

    pub(super) fn poll(&mut self, now: Instant, nexus: usize) -> Option<IoCompletion> {
        self.advance(now);
        let path = &mut self.nexuses[nexus];
        path.has_news = false;
        let done = path.ready.pop_front();
        match &done {
            Some(done) => drop(path.in_flight.remove(&done.tag)),
            None => path.quieten(),
        }
        done
    }

    /// An event, once all completions before it are fetched: what settles a request comes after it.
    pub(super) fn poll_event(&mut self, now: Instant, nexus: usize) -> Option<DeviceEvent> {
        self.advance(now);
        let path = &mut self.nexuses[nexus];
        if path.ready.is_empty() { path.events.pop_front() } else { None }
    }

    pub(super) fn next_wakeup(&self, nexus: usize) -> Option<Instant> {
        let path = &self.nexuses[nexus];
        if !path.ready.is_empty() || path.has_news { Some(Instant::ZERO) } else { self.next_wakeup_of_all() }
    }

    /// When the system as a whole wants to be called.
    pub(super) fn next_wakeup_of_all(&self) -> Option<Instant> {
        let mut next = self.next_timer();
        if self.waiting_schedule.as_ref().is_some_and(|schedule| !schedule.actions().is_empty()) {
            return Some(Instant::ZERO);
        }
        if self.has_devices {
            for (_, disk) in &self.disks {
                if let Medium::Device { device, .. } = &disk.medium {
                    next = crate::block::time::earliest(next, device.next_wakeup());
                }
            }
        }
        next
    }

    pub(super) fn cancel(&mut self, now: Instant, nexus: usize, tag: IoTag) -> Cancelled {
        self.advance(now);
        let Some(index) = self.nexuses[nexus].in_flight.get(&tag).copied() else {
            return Cancelled::NotHere;
        };
        if index == DONE {
            return Cancelled::Requested;
        }
        let command = &mut self.commands[index as usize];
        if command.control.is_some() {
            return Cancelled::NotHere;
        }
        if command.stage != Stage::OnLink || command.leaves <= self.now {
            return Cancelled::Requested;
        }
        let request = command.request.take().expect("a request stays with its command until it ends");
        self.nexuses[nexus].in_flight.remove(&tag);
        self.note(nexus, tag, What::Dropped);
        self.free(index);
        Cancelled::Withdrawn(request)
    }

    pub(super) fn wait_on(&mut self, nexus: usize, descriptors: &mut Vec<std::os::fd::RawFd>) {
        let path = &mut self.nexuses[nexus];
        path.waits = true;
        descriptors.push(path.bell.descriptor());
        for (_, disk) in &self.disks {
            if let Medium::Device { device, .. } = &disk.medium {
                device.wait_on(descriptors);
            }
        }
    }

    pub(super) fn attach_pool(&mut self, pool: &BufferPool) {
        self.pool = pool.clone();
        for (_, disk) in &mut self.disks {
            if let Medium::Device { device, .. } = &mut disk.medium {
                device.attach_pool(pool);
            }
        }
    }

    fn give(&mut self, nexus: usize, done: IoCompletion) {
        let path = &mut self.nexuses[nexus];
        path.wake();
        path.ready.push_back(done);
    }

    fn tell(&mut self, nexus: usize, event: DeviceEvent) {
        let path = &mut self.nexuses[nexus];
        if !path.is_open {
            return;
        }
        path.wake();
        path.events.push_back(event);
        path.has_news = true;
    }

    /// Wakes whoever sleeps on a path: their next wake-up may have moved.
    pub(super) fn ring_all(&self) {
        self.nexuses.iter().filter(|nexus| nexus.waits).for_each(|nexus| nexus.bell.ring());
    }
}

/// The name of an initiator port: openings of one path are sessions of one initiator.
fn initiator_name(initiator: &str, opening: usize) -> String {
    format!("iqn.2026-11.diskwire.simulated:{initiator},i,0x{opening:012x}")
}

fn is_aligned(geometry: &Geometry, bytes: &[u8]) -> bool {
    bytes.as_ptr().addr().is_multiple_of(geometry.buffer_alignment_bytes)
}
