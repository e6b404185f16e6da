//! A multipath device over a simulated storage system, under load in virtual time.
//!
//! ```text
//!   load ─▶ MultipathDevice ─▶ SimulatedPath h/p0/v ─▶ port p0 ─┐
//!                          └─▶ SimulatedPath h/p1/v ─▶ port p1 ─┴▶ volume v in memory
//! ```
//!
//! Keeps true: one seed, one run; the time of a request is counted from when it was wanted, also if the device had no room for
//! it then. Not here: what is measured, and what happens to the paths (the scenarios).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use multipath::explain::PathEvent;
use multipath::selector::{Selector, SelectorKind};
use multipath::{FailoverConfig, MultipathDevice, PathConfig};
use storage_mapping::block::time::earliest;
use storage_mapping::device::StorageSystem;
use storage_mapping::device::storage_system::Description;
use storage_mapping::{
    BlockDevice, Buffer, ByteSize, Instant, IoBuffer, IoCompletion, IoRequest, IoTag, Lba, RefusalReason,
    Refused, SharedBuffer,
};

use super::load::{Load, Pace, Until};
use super::tally::Tally;
use crate::chance::Chance;

/// Size of the volume.
const VOLUME: ByteSize = ByteSize(64 << 20);
const BLOCK_BYTES: usize = 4096;
/// Calls at one time from which nothing comes, at most.
const TURNS_MAX: u32 = 1000;

/// The paths and the device of a run.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The link of each path, in the words of a port: `latency=300us rate=10MiB`.
    pub links: Vec<String>,
    /// How paths are chosen.
    pub selector: SelectorKind,
    /// The numbers of the device.
    pub config: FailoverConfig,
    /// Where all chance comes from.
    pub seed: u64,
}

impl Setting {
    /// Equal paths, chosen by latency.
    #[must_use]
    pub fn equal(paths: usize, link: &str, seed: u64) -> Self {
        Self {
            links: vec![link.to_owned(); paths],
            selector: SelectorKind::default(),
            config: FailoverConfig::default(),
            seed,
        }
    }

    /// The same device with other numbers.
    #[must_use]
    pub fn with(self, config: FailoverConfig) -> Self {
        Self { config, ..self }
    }

    /// The storage system, its disk `d`, its ports `p0`, `p1`, …; and the device.
    ///
    /// # Panics
    /// When the setting makes no storage system or no device.
    #[must_use]
    pub fn build(&self) -> (StorageSystem, MultipathDevice) {
        let system = StorageSystem::new(&self.description()).expect("its parts fit together");
        system.keep_event_lines(0);
        let path = |at: usize| {
            let path = system.path("h", &format!("p{at}"), "v").expect("the port is there");
            (PathConfig::default(), Box::new(path) as Box<dyn BlockDevice>)
        };
        let paths = (0..self.links.len()).map(path).collect();
        let selector = Selector::new(Instant::ZERO, self.selector.clone());
        let device = MultipathDevice::with_selector(paths, selector, self.config);
        (system, device.expect("the paths are of one volume"))
    }

    fn description(&self) -> Description {
        let ports = self.links.iter().enumerate().map(|(at, link)| format!("port p{at} {link}\n"));
        let text = format!(
            "block {BLOCK_BYTES}\nseed {}\ndisk d {}B\nvolume v concatenated d@0+{}B\n{}",
            self.seed,
            VOLUME.0,
            VOLUME.0,
            ports.collect::<String>()
        );
        text.parse().unwrap_or_else(|error| panic!("{error} in\n{text}"))
    }
}

/// A request that is wanted.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    at: Instant,
    bytes: usize,
}

/// A device under load.
pub struct Stage {
    system: StorageSystem,
    device: MultipathDevice,
    now: Instant,
    chance: Chance,
    next_tag: u64,
    next_lba: u64,
    next_arrival: Instant,
    on_their_way: BTreeMap<IoTag, Wanted>,
    /// What the device had no room for.
    refused: VecDeque<(Wanted, IoRequest)>,
    buffers: BTreeMap<usize, Vec<Buffer>>,
    data: BTreeMap<usize, SharedBuffer>,
}

impl Stage {
    /// Sets everything up, at time zero.
    ///
    /// # Panics
    /// As [`Setting::build`].
    #[must_use]
    pub fn new(setting: &Setting) -> Self {
        let (system, device) = setting.build();
        Self {
            system,
            device,
            now: Instant::ZERO,
            chance: Chance::new(setting.seed),
            next_tag: 0,
            next_lba: 0,
            next_arrival: Instant::ZERO,
            on_their_way: BTreeMap::new(),
            refused: VecDeque::new(),
            buffers: BTreeMap::new(),
            data: BTreeMap::new(),
        }
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &MultipathDevice {
        &self.device
    }

    /// The device, to steer it.
    pub fn device_mut(&mut self) -> &mut MultipathDevice {
        &mut self.device
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// A source of chance that belongs to this run.
    pub fn chance(&mut self) -> &mut Chance {
        &mut self.chance
    }

    /// Does something to the storage system: a line of a schedule without its time.
    ///
    /// # Panics
    /// If it is none.
    pub fn apply(&mut self, line: &str) {
        let action = line.parse().unwrap_or_else(|error| panic!("{error}: {line}"));
        self.system.apply(self.now, &action).expect("it names what is there");
    }

    /// What happened to paths since then, oldest first; as much as the device keeps.
    pub fn events_since(&self, since: Instant) -> impl Iterator<Item = &PathEvent> {
        self.device.explanation().events().filter(move |event| event.at >= since)
    }

    /// Goes on under this load for so long.
    pub fn run_for(&mut self, load: &Load, time: Duration) -> Tally {
        self.run(load, Until::Time(self.now + time))
    }

    /// Goes on under this load until so many more requests are done.
    pub fn run_requests(&mut self, load: &Load, count: u64) -> Tally {
        self.run(load, Until::Done(count))
    }

    /// The same for so long, noting when requests go out over paths.
    pub fn run_timed(&mut self, load: &Load, time: Duration) -> Tally {
        self.run_into(load, Until::Time(self.now + time), true)
    }

    /// Goes on without new requests until all that were are over.
    pub fn drain(&mut self) -> Tally {
        self.run(&Load::nothing(), Until::Done(self.requests_open()))
    }

    /// Requests that are not over.
    #[must_use]
    pub fn requests_open(&self) -> u64 {
        (self.on_their_way.len() + self.refused.len()) as u64
    }

    /// Lets time pass without new requests.
    pub fn idle(&mut self, time: Duration) -> Tally {
        self.run_for(&Load::nothing(), time)
    }

    /// Goes on under this load.
    ///
    /// # Panics
    /// When the device wants to be called for ever without anything coming of it.
    pub fn run(&mut self, load: &Load, until: Until) -> Tally {
        self.run_into(load, until, false)
    }

    fn run_into(&mut self, load: &Load, until: Until, notes_times: bool) -> Tally {
        self.next_arrival = self.next_arrival.max(self.now);
        let mut tally = Tally::begin(self.now, self.sent(), notes_times);
        let mut turns = 0;
        while !self.is_over(until, &tally) {
            self.send(load);
            let mut has_ended = false;
            while !self.is_over(until, &tally)
                && let Some(done) = self.device.poll(self.now)
            {
                has_ended = true;
                self.take_back(done, &mut tally);
            }
            while self.device.poll_event(self.now).is_some() {}
            if tally.notes_times() {
                tally.note_sent(self.now, self.sent().iter().sum());
            }
            let next = if has_ended { self.now } else { self.next_time(load, until) };
            turns = if has_ended || next > self.now { 0 } else { turns + 1 };
            assert!(turns < TURNS_MAX, "the device wants to be called again and again at {}", self.now);
            self.now = next;
        }
        tally.end(self.now, &self.sent());
        tally
    }

    fn sent(&self) -> Vec<u64> {
        self.device.status().iter().map(|path| path.requests).collect()
    }

    fn is_over(&self, until: Until, tally: &Tally) -> bool {
        match until {
            Until::Time(end) => self.now >= end,
            Until::Done(count) => tally.ended() >= count,
        }
    }

    /// When something happens next.
    fn next_time(&self, load: &Load, until: Until) -> Instant {
        let arrival = matches!(load.pace, Pace::Every(_)).then_some(self.next_arrival);
        let end = match until {
            Until::Time(end) => Some(end),
            Until::Done(_) => None,
        };
        let next = earliest(earliest(self.device.next_wakeup(), arrival), end);
        next.expect("nothing is to come any more").max(self.now)
    }

    /// Sends what is due.
    fn send(&mut self, load: &Load) {
        while let Some((wanted, request)) = self.refused.pop_front() {
            if let Err(refused) = self.submit(wanted, request) {
                self.refused.push_front(refused);
                break;
            }
        }
        match load.pace {
            Pace::Depth(depth) => {
                while self.on_their_way.len() + self.refused.len() < depth {
                    self.want(load, self.now);
                }
            }
            Pace::Every(time) => {
                while self.next_arrival <= self.now {
                    self.want(load, self.next_arrival);
                    self.next_arrival = self.next_arrival + time;
                }
            }
        }
    }

    /// Makes a request. Reads are at random places; writes go on to the next place each time, so that none waits for another.
    fn want(&mut self, load: &Load, at: Instant) {
        let (bytes, is_write) =
            (load.sizes.draw(&mut self.chance), self.chance.hits(load.writes_per_million));
        self.next_tag += 1;
        let (tag, places) = (IoTag(self.next_tag), VOLUME.0 / bytes as u64);
        let lba = |place: u64| Lba(place % places * (bytes / BLOCK_BYTES) as u64);
        let request = if is_write {
            self.next_lba += 1;
            let data = self.data.entry(bytes).or_insert_with(|| Buffer::zeroed(bytes).freeze()).clone();
            IoRequest::write(tag, lba(self.next_lba), data, false)
        } else {
            let spare = self.buffers.get_mut(&bytes).and_then(Vec::pop);
            let buffer = spare.unwrap_or_else(|| Buffer::zeroed(bytes));
            IoRequest { hedge: load.hedges, ..IoRequest::read(tag, lba(self.chance.bits()), buffer) }
        };
        let wanted = Wanted { at, bytes };
        let refused = if self.refused.is_empty() {
            self.submit(wanted, request).err()
        } else {
            Some((wanted, request))
        };
        self.refused.extend(refused);
    }

    /// Hands a request to the device, or gives it back where that has no room.
    fn submit(&mut self, wanted: Wanted, request: IoRequest) -> Result<(), (Wanted, IoRequest)> {
        let tag = request.tag;
        match self.device.submit(self.now, request) {
            Ok(()) => {
                self.on_their_way.insert(tag, wanted);
                Ok(())
            }
            Err(Refused { reason: RefusalReason::Busy, request }) => Err((wanted, request)),
            Err(refused) => panic!("the device refuses: {:?}", refused.reason),
        }
    }

    fn take_back(&mut self, done: IoCompletion, tally: &mut Tally) {
        let wanted = self.on_their_way.remove(&done.tag).expect("it was on its way");
        match done.outcome {
            Ok(()) => tally.note_done(self.now.since(wanted.at), wanted.bytes),
            Err(_) => tally.failed += 1,
        }
        if let IoBuffer::Read(buffer) = done.buffer {
            self.buffers.entry(wanted.bytes).or_default().push(buffer);
        }
    }
}
