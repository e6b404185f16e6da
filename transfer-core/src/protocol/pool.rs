//! The lane's segments: which are free, and which device the next one lies on.
//!
//! Sequence numbers are striped over the devices in turn, and a device with more free segments is
//! preferred over one that lags. Every connection can always hold two; of the rest at most half of what
//! is free goes to one connection, so that a stalled peer cannot starve the others. A segment whose
//! write is in doubt rests until the write has ended and the quarantine has passed. Who got none waits in a queue, and
//! asks again when there may be one.

use std::collections::BTreeMap;
use std::time::Duration;

use storage_mapping::Instant;
use volume::{BlockAddress, Layout, SegmentNumber};

use super::roster::Turns;
use crate::format::host_table::HostRecord;

/// Segments every open connection can hold whatever the others do.
const RESERVED_PER_CONNECTION: usize = 2;
/// How long a segment rests after a write in doubt (T_quarantine).
const QUARANTINE: Duration = Duration::from_secs(180);

/// Free segments of one lane.
#[derive(Debug)]
pub struct SegmentPool {
    /// Free segments by device.
    free: BTreeMap<u16, Vec<(SegmentNumber, BlockAddress)>>,
    /// Segments that rest, until when.
    resting: Vec<(Instant, SegmentNumber, BlockAddress)>,
    /// Segments held, by connection.
    held: BTreeMap<u64, usize>,
    /// Connections that asked in vain.
    waiting: Turns<u64>,
    /// Since then, one of them may have become able to take a segment.
    eased: bool,
    turn: usize,
    total: usize,
}

impl SegmentPool {
    /// All segments of the lane `own`.
    #[must_use]
    pub fn new(layout: &Layout, own: &HostRecord) -> Self {
        let mut free: BTreeMap<u16, Vec<_>> = BTreeMap::new();
        for range in own.pool_ranges.iter() {
            for number in (range.first_segment..range.first_segment + range.count).rev() {
                let number = SegmentNumber(number);
                if let Some(address) = layout.locate(number) {
                    free.entry(address.device).or_default().push((number, address));
                }
            }
        }
        let total = free.values().map(Vec::len).sum();
        let (resting, held, waiting) = (Vec::new(), BTreeMap::new(), Turns::default());
        Self { free, resting, held, waiting, eased: false, turn: 0, total }
    }

    /// Registers a connection, so that two segments are kept for it.
    pub fn open(&mut self, connection: u64) {
        self.held.entry(connection).or_insert(0);
    }

    /// Forgets a connection; what it still holds comes back by [`give`](Self::give).
    pub fn close(&mut self, connection: u64) {
        self.held.remove(&connection);
        self.waiting.remove(connection);
        self.eased = true;
    }

    /// Free segments.
    #[must_use]
    pub fn free_count(&self) -> usize {
        self.free.values().map(Vec::len).sum()
    }

    /// Segments of the lane.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }

    /// A free segment for `connection`, preferably not on `avoid`. Where there is none the connection waits.
    pub fn take(&mut self, connection: u64, avoid: Option<u16>) -> Option<(SegmentNumber, BlockAddress)> {
        let taken = self.try_take(connection, avoid);
        match taken {
            Some(_) => self.waiting.remove(connection),
            None => {
                self.eased &= !self.waiting.is_empty();
                self.waiting.push(connection);
            }
        }
        taken
    }

    /// Whether somebody waits who may get a segment now.
    #[must_use]
    pub fn is_eased(&self) -> bool {
        self.eased && !self.waiting.is_empty()
    }

    /// Those who wait and may get a segment now, in the order in which they asked: each is to try again.
    pub fn take_waiting(&mut self) -> Vec<u64> {
        if std::mem::take(&mut self.eased) { self.waiting.take() } else { Vec::new() }
    }

    fn try_take(&mut self, connection: u64, avoid: Option<u16>) -> Option<(SegmentNumber, BlockAddress)> {
        let held = self.held.get(&connection).copied().unwrap_or(0);
        let free = self.free_count();
        let reserved: usize = self
            .held
            .iter()
            .filter(|(other, _)| **other != connection)
            .map(|(_, held)| RESERVED_PER_CONNECTION.saturating_sub(*held))
            .sum();
        let alone = self.held.len() <= 1;
        let shared = free.saturating_sub(reserved);
        if held >= RESERVED_PER_CONNECTION && (shared == 0 || (!alone && held > shared)) {
            return None;
        }
        self.turn += 1;
        let devices: Vec<u16> = self.free.keys().copied().collect();
        let candidates = (0..devices.len()).map(|step| devices[(self.turn + step) % devices.len()]);
        let has_free = |device: &u16| self.free.get(device).is_some_and(|list| !list.is_empty());
        let mut usable: Vec<u16> = candidates.filter(has_free).collect();
        usable.sort_by_key(|device| Some(*device) == avoid);
        let taken = self.free.get_mut(usable.first()?)?.pop()?;
        *self.held.entry(connection).or_insert(0) += 1;
        Some(taken)
    }

    /// Gives a segment back; one that was in doubt rests first.
    pub fn give(
        &mut self,
        now: Instant,
        connection: u64,
        place: (SegmentNumber, BlockAddress),
        doubtful: bool,
    ) {
        if let Some(held) = self.held.get_mut(&connection) {
            *held = held.saturating_sub(1);
        }
        // Even where it rests: who holds less may take where it could not.
        self.eased = true;
        if doubtful {
            self.resting.push((now + QUARANTINE, place.0, place.1));
        } else {
            self.free.entry(place.1.device).or_default().push(place);
        }
    }

    /// Wakes segments whose rest is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        let (over, resting) = self.resting.drain(..).partition(|(until, ..)| *until <= now);
        self.resting = resting;
        let over: Vec<(Instant, SegmentNumber, BlockAddress)> = over;
        self.eased |= !over.is_empty();
        for (_, number, address) in over {
            self.free.entry(address.device).or_default().push((number, address));
        }
    }
}
