//! A physical disk of the storage system: a device that holds the bytes, and how long it takes.
//!
//! Keeps true: at most `parallel` requests are served at once and bytes pass one after the other at the
//! rate of the disk, whichever ports they came through; the bytes are touched when the service ends.
//! Not here: which blocks belong to which logical volume (`layout`).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use super::link::transfer_time;
use crate::block::request::IoRequest;
use crate::block::time::Instant;
use crate::block::{BlockDevice, Geometry};
use crate::device::memory::MemoryDisk;

/// How long a physical disk takes. The default takes no time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// What every request takes.
    pub latency: Duration,
    /// Requests served at once; `None` for any number.
    pub parallel: Option<u32>,
    /// The most bytes per second.
    pub rate: Option<u64>,
}

/// Where the bytes are.
pub(super) enum Medium {
    /// Memory: done at once.
    Memory(MemoryDisk),
    /// Any other device: done when it says so.
    Device {
        device: Box<dyn BlockDevice>,
        /// What it had no room for.
        stalled: VecDeque<IoRequest>,
        /// What it has and has not given back.
        outstanding: usize,
        /// It had nothing more when it was last asked, so its descriptors are quiet.
        is_dry: bool,
    },
}

/// A physical disk.
pub(super) struct Disk {
    pub(super) medium: Medium,
    service: Service,
    /// When each place that is taken becomes free.
    places: BinaryHeap<Reverse<Instant>>,
    busy_until: Instant,
}

impl Disk {
    pub(super) fn new(medium: Medium, service: Service) -> Self {
        Self { medium, service, places: BinaryHeap::new(), busy_until: Instant::ZERO }
    }

    pub(super) fn geometry(&self) -> Geometry {
        match &self.medium {
            Medium::Memory(disk) => disk.device().geometry(),
            Medium::Device { device, .. } => device.geometry(),
        }
    }

    pub(super) fn service(&self) -> Service {
        self.service
    }

    pub(super) fn set_service(&mut self, service: Service) {
        self.service = service;
        self.places.clear();
    }

    /// Takes a request in and says when its service ends.
    pub(super) fn serve(&mut self, now: Instant, bytes: usize) -> Instant {
        let Service { latency, parallel, rate } = self.service;
        let mut end = now;
        if let Some(parallel) = parallel
            && self.places.len() >= parallel as usize
            && let Some(Reverse(free)) = self.places.pop()
        {
            end = end.max(free);
        }
        end = end + latency;
        if let Some(rate) = rate {
            end = end.max(self.busy_until) + transfer_time(bytes, rate);
            self.busy_until = end;
        }
        if parallel.is_some() {
            self.places.push(Reverse(end));
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::address::{BlockCount, BlockSize};

    #[test]
    fn places_and_rate_are_shared() {
        let memory = MemoryDisk::new(BlockSize::B4096, BlockCount(1));
        let millisecond = Duration::from_millis(1);
        let service = Service { latency: millisecond, parallel: Some(2), rate: None };
        let mut disk = Disk::new(Medium::Memory(memory), service);
        let ends: Vec<_> = (0..6).map(|_| disk.serve(Instant::ZERO, 4096).0 / 1_000_000).collect();
        assert_eq!(ends, [1, 1, 2, 2, 3, 3]);
        disk.set_service(Service { latency: millisecond, parallel: None, rate: Some(4_096_000) });
        let ends: Vec<_> = (0..4).map(|_| disk.serve(Instant(0), 4096).0 / 1_000_000).collect();
        assert_eq!(ends, [2, 3, 4, 5]);
    }
}
