//! Verified I/O in a closed loop: every block carries its number and how often it was written, and every read is
//! compared with that.
//!
//! Keeps true: no block is in two requests at a time, so that there is one right answer to every read; requests that
//! the fence holds are beside the loop, so that it goes on with its depth; what is found wrong is kept in words.
//! One thread, real time. Not here: faults.

use std::collections::HashMap;
use std::time::Duration;

use multipath::MultipathDevice;
use storage_mapping::{
    BlockDevice, Buffer, DeviceEvent, Instant, IoBuffer, IoCompletion, IoError, IoRequest, IoTag, Lba,
    SettledProof, wait,
};
use transfer_core::driver::clock::Clock;

use crate::chance::Chance;

/// Of a block.
pub const BLOCK_BYTES: usize = 4096;
/// Of the file: 16 MiB. A write in doubt seldom meets another write of its blocks, and does in every drill.
pub const BLOCKS: u64 = 4096;
/// Blocks of a request, at most.
const COUNT_MAX: u64 = 4;
/// Requests going on beside those that are held.
const DEPTH: usize = 8;
/// Bytes of a stamp, repeated over the block.
const STAMP_BYTES: usize = 16;
/// How long is waited at most before the caller is asked whether it goes on.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// Reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

fn stamp(block: u64, writes: u64) -> [u8; STAMP_BYTES] {
    let mut stamp = [0; STAMP_BYTES];
    stamp[..8].copy_from_slice(&block.to_le_bytes());
    stamp[8..].copy_from_slice(&writes.to_le_bytes());
    stamp
}

/// The bytes of a block that was written so often.
#[must_use]
pub fn stamped(block: u64, writes: u64) -> Vec<u8> {
    stamp(block, writes).repeat(BLOCK_BYTES / STAMP_BYTES)
}

/// Why these are not the bytes of a block that was written so often, if they are not.
#[must_use]
pub fn difference(bytes: &[u8], block: u64, writes: u64) -> Option<String> {
    let right = stamp(block, writes);
    let at = bytes.chunks(STAMP_BYTES).position(|found| found != right)?;
    let found = &bytes[at * STAMP_BYTES..][..STAMP_BYTES];
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let (found_block, found_writes) = (number(&found[..8]), number(&found[8..]));
    let place = at * STAMP_BYTES;
    Some(format!(
        "block {block}, byte {place}: write {found_writes} of block {found_block} instead of write {writes}"
    ))
}

/// A request on its way.
#[derive(Clone, Copy, Debug)]
struct Flight {
    first: u64,
    count: u64,
    is_write: bool,
    is_held: bool,
    submitted: Instant,
}

/// A request that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// When it was submitted.
    pub submitted: Instant,
    /// When it was over.
    pub done: Instant,
    /// A write; else a read.
    pub is_write: bool,
    /// It had to wait for an old copy of another write to be dead.
    pub was_held: bool,
}

impl Done {
    /// From its submission to its end.
    #[must_use]
    pub fn latency(&self) -> Duration {
        self.done.since(self.submitted)
    }
}

/// Reads and writes on a device, in a closed loop.
pub struct Load {
    device: MultipathDevice,
    clock: Clock,
    chance: Chance,
    is_open: bool,
    next_tag: u64,
    flights: HashMap<IoTag, Flight>,
    /// Writes of each block so far; `None` after a write that failed.
    model: Vec<Option<u64>>,
    is_busy: Vec<bool>,
    done: Vec<Done>,
    errors: Vec<String>,
    ghosts: u64,
    blocks_checked: u64,
    wrong: Vec<String>,
}

impl Load {
    /// A load on a device over a file as `stage` makes it.
    #[must_use]
    pub fn new(clock: Clock, mut device: MultipathDevice, chance: Chance) -> Self {
        device.explain(true);
        let blocks = usize::try_from(BLOCKS).expect("a few thousand");
        Self {
            device,
            clock,
            chance,
            is_open: true,
            next_tag: 0,
            flights: HashMap::new(),
            model: vec![Some(0); blocks],
            is_busy: vec![false; blocks],
            done: Vec::new(),
            errors: Vec::new(),
            ghosts: 0,
            blocks_checked: 0,
            wrong: Vec::new(),
        }
    }

    /// Goes on until `is_over`, which is asked again and again.
    ///
    /// # Errors
    /// When it takes a minute: something is broken.
    pub fn run(&mut self, what: &str, mut is_over: impl FnMut(&Self) -> bool) -> Result<(), String> {
        let began = self.clock.now();
        while !is_over(self) {
            self.step();
            if self.clock.now().since(began) > PATIENCE {
                let (flights, status) = (&self.flights, self.device.status());
                return Err(format!("{what} does not end: {flights:?}, {status:?}"));
            }
        }
        Ok(())
    }

    /// Submits nothing more, and waits until nothing is on its way and no copy is living.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn drain(&mut self) -> Result<(), String> {
        self.is_open = false;
        self.run("the end", |load| load.flights.is_empty() && load.device.living_copies().is_empty())
    }

    /// Reads every block once more over the device.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn read_all(&mut self) -> Result<(), String> {
        for first in (0..BLOCKS).step_by(COUNT_MAX as usize) {
            self.submit(first, COUNT_MAX, false);
            self.run("a read of everything", |load| load.flights.len() < DEPTH)?;
        }
        self.run("a read of everything", |load| load.flights.is_empty())
    }

    fn step(&mut self) {
        let now = self.clock.now();
        while let Some(done) = self.device.poll(now) {
            self.take_in(&done);
        }
        while let Some(event) = self.device.poll_event(now) {
            let is_ghost = matches!(event, DeviceEvent::Settled { proof: SettledProof::Response, .. });
            self.ghosts += u64::from(is_ghost);
        }
        self.fill();
        let now = self.clock.now();
        let due = self.device.next_wakeup().map_or(LOOK_AGAIN, |at| at.since(now));
        let mut descriptors = Vec::new();
        self.device.wait_on(&mut descriptors);
        wait::wait(&descriptors, Some(due.min(LOOK_AGAIN)));
    }

    fn fill(&mut self) {
        while self.is_open && self.flights.len() < DEPTH + self.device.held_writes() {
            let count = self.chance.range(1, COUNT_MAX);
            let first = self.chance.below(BLOCKS - count + 1);
            let is_write = self.chance.below(2) == 0;
            let is_free = self.places(first, count).all(|place| !self.is_busy[place]);
            if is_free && !self.submit(first, count, is_write) {
                return;
            }
        }
    }

    fn places(&self, first: u64, count: u64) -> impl Iterator<Item = usize> + use<> {
        (first..first + count).map(|block| usize::try_from(block).expect("a few thousand"))
    }

    /// Whether the device had room.
    fn submit(&mut self, first: u64, count: u64, is_write: bool) -> bool {
        let tag = IoTag(self.next_tag);
        let request = if is_write {
            let mut bytes = Vec::new();
            for (block, place) in (first..).zip(self.places(first, count)) {
                bytes.extend(stamped(block, self.model[place].unwrap_or(0) + 1));
            }
            IoRequest::write(tag, Lba(first), Buffer::copy_of(&bytes).freeze(), false)
        } else {
            let length = usize::try_from(count).expect("a few") * BLOCK_BYTES;
            IoRequest::read(tag, Lba(first), Buffer::zeroed(length))
        };
        let (submitted, held_before) = (self.clock.now(), self.device.held_writes());
        if self.device.submit(submitted, request).is_err() {
            return false;
        }
        let is_held = self.device.held_writes() > held_before;
        self.next_tag += 1;
        self.flights.insert(tag, Flight { first, count, is_write, is_held, submitted });
        self.places(first, count).for_each(|place| self.is_busy[place] = true);
        true
    }

    fn take_in(&mut self, done: &IoCompletion) {
        let flight = self.flights.remove(&done.tag).expect("what is done was submitted, and once");
        let Flight { first, count, is_write, is_held: was_held, submitted } = flight;
        self.done.push(Done { submitted, done: self.clock.now(), is_write, was_held });
        let is_done = done.outcome.is_ok();
        if let Err(error) = done.outcome {
            self.note_error(done.tag, flight, &error);
        }
        let bytes = match &done.buffer {
            IoBuffer::Read(buffer) if is_done => Some(&buffer[..]),
            _ => None,
        };
        for (at, place) in self.places(first, count).enumerate() {
            self.is_busy[place] = false;
            if is_write {
                self.model[place] = self.model[place].filter(|_| is_done).map(|writes| writes + 1);
            } else if let (Some(bytes), Some(writes)) = (bytes, self.model[place]) {
                self.blocks_checked += 1;
                let block = first + at as u64;
                self.wrong.extend(difference(&bytes[at * BLOCK_BYTES..][..BLOCK_BYTES], block, writes));
            }
        }
    }

    /// Keeps an error with what the device did about its request, and what happened to paths.
    fn note_error(&mut self, tag: IoTag, flight: Flight, error: &IoError) {
        let explanation = self.device.explanation();
        let decisions = explanation.decisions().filter(|decision| decision.tag == tag);
        let steps: Vec<_> = decisions.map(|decision| format!("{:?}", (decision.at, decision.what))).collect();
        let paths: Vec<_> = explanation.events().map(|event| format!("{event:?}")).collect();
        self.errors.push(format!("{error} for {flight:?}: {steps:?}; paths: {paths:?}"));
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &MultipathDevice {
        &self.device
    }

    /// Everything that is over, in the order of its end.
    #[must_use]
    pub fn done(&self) -> &[Done] {
        &self.done
    }

    /// Requests that were submitted at that time or before, are not over, and are not held.
    #[must_use]
    pub fn has_waited_since(&self, at: Instant) -> bool {
        self.flights.values().any(|flight| flight.submitted <= at && !flight.is_held)
    }

    /// Writes of each block; `None` where that is not known.
    #[must_use]
    pub fn model(&self) -> &[Option<u64>] {
        &self.model
    }

    /// Requests that failed, and how.
    #[must_use]
    pub fn errors(&self) -> &[String] {
        &self.errors
    }

    /// Writes that were given up on, and done by their first path after all.
    #[must_use]
    pub fn ghosts(&self) -> u64 {
        self.ghosts
    }

    /// Blocks that were read and compared.
    #[must_use]
    pub fn blocks_checked(&self) -> u64 {
        self.blocks_checked
    }

    /// What was not as it had to be.
    #[must_use]
    pub fn wrong(&self) -> &[String] {
        &self.wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_tells_its_number_and_its_writes() {
        let mut bytes = stamped(7, 3);
        assert_eq!(bytes.len(), BLOCK_BYTES);
        assert_eq!(difference(&bytes, 7, 3), None);
        let old = difference(&bytes, 7, 4).expect("an older write");
        assert!(old.contains("write 3 of block 7 instead of write 4"), "{old}");
        bytes[BLOCK_BYTES / 2..].copy_from_slice(&stamped(7, 4)[BLOCK_BYTES / 2..]);
        let torn = difference(&bytes, 7, 3).expect("half of it");
        assert!(torn.contains("byte 2048"), "{torn}");
    }
}
