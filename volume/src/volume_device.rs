//! The volume as one thing to submit I/O to: (device, block) in, the device's own addresses out.
//!
//! What holds: a write outside the process's own ranges ends the program before it leaves (rule 6); a
//! full queue below never reaches the caller, its requests wait here in order. Tags are the caller's
//! and unique among its requests in flight.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use storage_mapping::block::time::earliest;
use storage_mapping::{
    BlockDevice, BufferPool, CopyFate, Effect, Instant, IoCompletion, IoError, IoRequest, Lba, Operation,
    RefusalReason,
};

use crate::BlockAddress;
use crate::layout::Layout;
use crate::ownership::OwnedRanges;
use crate::sync::lba_of;

/// EINVAL: what a request gets that its device says it cannot ever do.
const INVALID: i32 = 22;

struct Member {
    device: Box<dyn BlockDevice>,
    /// Translated requests that the device's queue had no room for.
    waiting: VecDeque<IoRequest>,
    /// Requests the device refused for good.
    refused: VecDeque<IoCompletion>,
}

/// An open volume.
pub struct Volume {
    members: Vec<Member>,
    layout: Layout,
    owned: OwnedRanges,
    next_polled: usize,
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Volume({} devices)", self.members.len())
    }
}

impl Volume {
    /// The volume of `layout` on `devices`, in its order. Whoever calls this has verified that they are
    /// that volume: [`open`](crate::open::open) has, and so has a simulator that starts many processes on
    /// disks whose control blocks nobody wrote since.
    #[must_use]
    pub fn of_verified(devices: Vec<Box<dyn BlockDevice>>, layout: Layout) -> Self {
        let members = devices
            .into_iter()
            .map(|device| Member { device, waiting: VecDeque::new(), refused: VecDeque::new() })
            .collect();
        Self { members, layout, owned: OwnedRanges::nothing(), next_polled: 0 }
    }

    /// What lies where.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Says which blocks this process may write from now on.
    pub fn own(&mut self, ranges: OwnedRanges) {
        self.owned = ranges;
    }

    /// The devices, for reading single blocks with [`sync`](crate::sync) and for their status.
    pub fn device_mut(&mut self, device: u16) -> Option<&mut Box<dyn BlockDevice>> {
        self.members.get_mut(usize::from(device)).map(|member| &mut member.device)
    }

    /// Takes a request whose address is a block of 4,096 bytes on `device`.
    ///
    /// # Panics
    /// If it is a write outside the ranges of [`own`](Self::own), or names a device that the volume
    /// does not have: both are errors of the program that must not reach a disk.
    pub fn submit(&mut self, now: Instant, device: u16, mut request: IoRequest) {
        let member = &mut self.members[usize::from(device)];
        if let Operation::Write { lba, data, .. } = &request.operation {
            let start = BlockAddress { device, block: lba.0 };
            assert!(
                self.owned.allow(start, data.len()),
                "write of {} bytes at {start} is outside the ranges this process owns",
                data.len(),
            );
        }
        if let Operation::Read { lba, .. } | Operation::Write { lba, .. } = &mut request.operation {
            *lba = lba_of(member.device.as_ref(), lba.0).unwrap_or(Lba(u64::MAX));
        }
        member.waiting.push_back(request);
        member.push(now);
    }

    /// Hands out one finished request with its device, the address again in blocks of 4,096 bytes.
    pub fn poll(&mut self, now: Instant) -> Option<(u16, IoCompletion)> {
        for step in 0..self.members.len() {
            let index = (self.next_polled + step) % self.members.len();
            let member = &mut self.members[index];
            member.push(now);
            // Nobody above uses events yet, but a device with an untaken one asks to be polled at once.
            while member.device.poll_event(now).is_some() {}
            if let Some(done) = member.refused.pop_front().or_else(|| member.device.poll(now)) {
                self.next_polled = index;
                let device = u16::try_from(index).expect("at most 62 devices");
                return Some((device, done));
            }
        }
        None
    }

    /// When `poll` wants to be called although nothing came in.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.members.iter().fold(None, |soonest, member| {
            let refused = (!member.refused.is_empty()).then_some(Instant::ZERO);
            earliest(soonest, earliest(refused, member.device.next_wakeup()))
        })
    }

    /// Tells every device which pool buffers come from.
    pub fn attach_pool(&mut self, pool: &BufferPool) {
        for member in &mut self.members {
            member.device.attach_pool(pool);
        }
    }

    /// Adds the descriptors that become readable when `poll` has something new.
    pub fn wait_on(&self, descriptors: &mut Vec<RawFd>) {
        for member in &self.members {
            member.device.wait_on(descriptors);
        }
    }
}

impl Member {
    /// Submits what waits, until the device's queue is full.
    fn push(&mut self, now: Instant) {
        while let Some(request) = self.waiting.pop_front() {
            let Err(refused) = self.device.submit(now, request) else { continue };
            if refused.reason == RefusalReason::Busy {
                self.waiting.push_front(refused.request);
                return;
            }
            let error = Err(IoError::errno(INVALID));
            self.refused.push_back(refused.request.complete(error, Effect::None, CopyFate::Dead));
        }
    }
}
