//! A path hangs with writes on it, and the same blocks are written again: how long the fence holds them, and what is on the disk
//! in the end (goal 6).
//!
//! Each of a few blocks has a writer who sends the next value when the one before is acknowledged. So the newest acknowledged
//! value must be on the disk in the end, whenever the path lets its old copies go. Not here: random schedules of everything
//! (`multipath_swarm`).

use std::time::Duration;

use multipath::{FailoverConfig, MultipathDevice};
use storage_mapping::block::time::earliest;
use storage_mapping::device::StorageSystem;
use storage_mapping::{BlockDevice, Buffer, FencePolicy, Instant, IoCompletion, IoRequest, IoTag, Lba};

use super::failover::{LINK, PATHS, SERVICE};
use super::figure::{Figure, Target};
use super::stage::Setting;
use super::{millis, ratio};
use crate::chance::Chance;

/// Blocks that are written again and again.
const HOT_BLOCKS: usize = 16;
const BLOCK: usize = 4096;
const TIMEOUT: Duration = millis(200);
const QUIESCE: Duration = millis(2000);

/// What the fence did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fenced {
    /// The longest that a write took beyond its service time, after the one before it was acknowledged.
    pub held: Duration,
    /// Blocks that have something else in the end than what was acknowledged last.
    pub lost: usize,
}

/// The numbers of the device.
#[must_use]
pub fn config() -> FailoverConfig {
    FailoverConfig { attempt_timeout: TIMEOUT, quiesce_time: QUIESCE, ..FailoverConfig::default() }
}

/// The writers of all blocks.
struct Writers {
    system: StorageSystem,
    device: MultipathDevice,
    now: Instant,
    policy: FencePolicy,
    /// The number of the write to each block that was acknowledged last.
    acknowledged: [u64; HOT_BLOCKS],
    /// Since when the next is on its way.
    sent: [Option<Instant>; HOT_BLOCKS],
    /// Requests that came after one was done are looked at, since one that hangs itself takes its time too.
    held: Duration,
    watches_from: Instant,
}

impl Writers {
    fn new(setting: &Setting, policy: FencePolicy) -> Self {
        let (system, device) = setting.build();
        let (acknowledged, sent) = ([0; HOT_BLOCKS], [None; HOT_BLOCKS]);
        let (now, watches_from) = (Instant::ZERO, Instant(u64::MAX));
        Self { system, device, now, policy, acknowledged, sent, held: Duration::ZERO, watches_from }
    }

    fn apply(&mut self, line: &str) {
        let action = line.parse().unwrap_or_else(|error| panic!("{error}: {line}"));
        self.system.apply(self.now, &action).expect("it names what is there");
    }

    /// Goes on for so long; without `writes` only with what is on its way.
    fn run_for(&mut self, time: Duration, writes: bool) {
        let end = self.now + time;
        while self.now < end {
            (0..HOT_BLOCKS).filter(|_| writes).for_each(|block| self.write(block));
            let mut has_ended = false;
            while let Some(done) = self.device.poll(self.now) {
                has_ended = true;
                self.take_back(&done);
            }
            while self.device.poll_event(self.now).is_some() {}
            if !has_ended {
                self.now = earliest(self.device.next_wakeup(), Some(end)).unwrap_or(end).max(self.now);
            }
        }
    }

    fn write(&mut self, block: usize) {
        if self.sent[block].is_some() {
            return;
        }
        let number = self.acknowledged[block] + 1;
        let data = Buffer::copy_of(&[value(number); BLOCK]).freeze();
        let tag = IoTag(number * HOT_BLOCKS as u64 + block as u64);
        let write = IoRequest { fence: self.policy, ..IoRequest::write(tag, Lba(block as u64), data, false) };
        assert!(self.device.submit(self.now, write).is_ok(), "there is room");
        self.sent[block] = Some(self.now);
    }

    fn take_back(&mut self, done: &IoCompletion) {
        let block = (done.tag.0 % HOT_BLOCKS as u64) as usize;
        let sent = self.sent[block].take().expect("a write of this block was on its way");
        assert!(done.outcome.is_ok(), "{:?}", done.outcome);
        self.acknowledged[block] = done.tag.0 / HOT_BLOCKS as u64;
        if sent >= self.watches_from {
            self.held = self.held.max(self.now.since(sent).saturating_sub(SERVICE));
        }
    }

    /// Blocks that do not have what was acknowledged last.
    fn lost(&self) -> usize {
        let disk = self.system.memory_disk("d").expect("it is in memory");
        let is_wrong = |bytes: &[u8], block: usize| bytes[block * BLOCK] != value(self.acknowledged[block]);
        disk.with_bytes(|bytes| (0..HOT_BLOCKS).filter(|block| is_wrong(bytes, *block)).count())
    }
}

/// What the write of this number puts on the disk.
fn value(number: u64) -> u8 {
    (number % 251) as u8
}

/// One of four paths hangs at a random moment; it lets its requests go after `resumes`, or never.
#[must_use]
pub fn hang(resumes: Option<Duration>, policy: FencePolicy, seed: u64) -> Fenced {
    let mut writers = Writers::new(&Setting::equal(PATHS, LINK, seed).with(config()), policy);
    let phase = Chance::new(seed).below(SERVICE.as_nanos() as u64);
    writers.run_for(millis(100) + Duration::from_nanos(phase), true);
    writers.apply("port p1 hang forever");
    writers.run_for(TIMEOUT, true);
    // From here on nothing is sent over the path that hangs.
    writers.watches_from = writers.now;
    match resumes {
        None => writers.run_for(QUIESCE * 2, true),
        Some(after) => {
            writers.run_for(after.saturating_sub(TIMEOUT), true);
            // So that what the old copies do is not written over at once.
            writers.run_for(SERVICE * 2, false);
            writers.apply("port p1 resume");
        }
    }
    writers.run_for(QUIESCE * 2, false);
    assert_eq!(writers.sent, [None; HOT_BLOCKS], "everything is over");
    Fenced { held: writers.held, lost: writers.lost() }
}

/// A time at which the old copies land, within the time that they may.
fn landing(seed: u64) -> Duration {
    TIMEOUT + Chance::new(!seed).duration(millis(1), QUIESCE * 9 / 10)
}

/// How many blocks lose what was acknowledged, in one run for each seed.
#[must_use]
pub fn lost(policy: FencePolicy, seeds: u64) -> Vec<f64> {
    (0..seeds).map(|seed| hang(Some(landing(seed)), policy, seed).lost as f64).collect()
}

/// Goal 6.
#[must_use]
pub fn goal_6(seeds: u64) -> Vec<Figure> {
    let held = (0..seeds).map(|seed| ratio(hang(None, FencePolicy::Fence, seed).held, QUIESCE)).collect();
    vec![
        Figure::of_seeds(6, "a write over a hung one: held / quiesce time", "", Target::AtMost(1.1), held),
        Figure::of_seeds(
            6,
            "blocks that an old copy changed, fence",
            "",
            Target::AtMost(0.0),
            lost(FencePolicy::Fence, seeds),
        ),
    ]
}
