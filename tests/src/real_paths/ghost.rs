//! A real ghost: a write that a path held lands after a newer one was acknowledged over another path.
//!
//! ```text
//!         path 0                                path 1                     block
//!   A     sent; its relay holds it
//!         given up on                           A again, done              A
//!   B     (with the fence: held until          (without: B, done           B)
//!   let go: A lands                                                        A
//!          its answer comes: B goes, done)                                 B
//! ```
//!
//! Keeps true: both runs are the same but for the policy of the writes. Not here: other faults (`drill`).

use std::time::Duration;

use multipath::MultipathDevice;
use storage_mapping::{
    BlockDevice, Buffer, FencePolicy, IoCompletion, IoRequest, IoTag, Lba, PathIndex, wait,
};
use transfer_core::driver::clock::Clock;

use super::drill::config;
use super::load::{BLOCK_BYTES, stamped};
use super::stage::{RelayProgram, Stage};
use super::{Fault, Layout};

const BLOCK: u64 = 5;
const OLD: u64 = 1;
const NEW: u64 = 2;
/// Reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ghost {
    /// The newer write waited until the older one's copy was dead.
    pub was_held: bool,
    /// The newer value was read back before the old copy was let go.
    pub was_read_back: bool,
    /// At the end the block is as the newer write wrote it.
    pub is_newer: bool,
}

/// A device, and a clock.
struct Bench {
    clock: Clock,
    device: MultipathDevice,
    next_tag: u64,
}

impl Bench {
    fn submit(&mut self, mut request: IoRequest, fence: FencePolicy) -> IoTag {
        self.next_tag += 1;
        (request.tag, request.fence) = (IoTag(self.next_tag), fence);
        self.device.submit(self.clock.now(), request).expect("there is room");
        IoTag(self.next_tag)
    }

    /// Waits for so long, or until a request is done.
    fn poll(&mut self, time_max: Duration) -> Option<IoCompletion> {
        let end = self.clock.now() + time_max;
        loop {
            let now = self.clock.now();
            if let Some(done) = self.device.poll(now) {
                return Some(done);
            }
            while self.device.poll_event(now).is_some() {}
            if now >= end {
                return None;
            }
            let due = self.device.next_wakeup().map_or(end, |at| at.min(end));
            let mut descriptors = Vec::new();
            self.device.wait_on(&mut descriptors);
            wait::wait(&descriptors, Some(due.since(now)));
        }
    }

    /// Waits until this one is done, and nothing else is on its way.
    fn finish(&mut self, tag: IoTag) -> Result<IoCompletion, String> {
        let done = self.poll(PATIENCE).ok_or("nothing happens")?;
        assert_eq!(done.tag, tag, "it is the only one");
        done.outcome.map_err(|error| error.to_string())?;
        Ok(done)
    }

    /// How often the block was written, as far as it says.
    fn read(&mut self) -> Result<Option<u64>, String> {
        let request = IoRequest::read(IoTag(0), Lba(BLOCK), Buffer::zeroed(BLOCK_BYTES));
        let tag = self.submit(request, FencePolicy::Fence);
        let bytes = self.finish(tag)?.buffer.into_read().ok_or("a read without a buffer")?;
        Ok([OLD, NEW].into_iter().find(|writes| bytes[..] == stamped(BLOCK, *writes)[..]))
    }
}

fn write(writes: u64) -> IoRequest {
    IoRequest::write(IoTag(0), Lba(BLOCK), Buffer::copy_of(&stamped(BLOCK, writes)).freeze(), false)
}

/// Makes a ghost under writes of this policy: [`FencePolicy::Fence`] or [`FencePolicy::Unsafe`].
///
/// # Errors
/// Where a program is missing, or something does not happen within a minute; in words.
///
/// # Panics
/// Where a server does not begin to serve.
pub fn make(relay: &RelayProgram, fence: FencePolicy) -> Result<Ghost, String> {
    let mut stage = Stage::start(Layout::ONE_NBDKIT, relay)?;
    let mut paths = stage.open_paths()?;
    paths.truncate(2);
    let device =
        MultipathDevice::new(paths, config(Fault::RelayPaused)).map_err(|error| error.to_string())?;
    let mut bench = Bench { clock: Clock::new(), device, next_tag: 0 };

    // Only path 0 can be chosen, and then only path 1 is left.
    stage.tell(0, "pause to-server")?;
    bench.device.fail_path(bench.clock.now(), PathIndex(1));
    let old = bench.submit(write(OLD), fence);
    bench.device.reinstate_path(bench.clock.now(), PathIndex(1));
    bench.finish(old)?;

    let new = bench.submit(write(NEW), fence);
    let was_held = bench.device.held_writes() > 0;
    if !was_held {
        bench.finish(new)?;
    }
    let was_read_back = bench.read()? == Some(NEW);
    stage.tell(0, "resume to-server")?;
    if was_held {
        bench.finish(new)?;
    }
    // The end is there when the old write is known to be over, over path 0.
    let began = bench.clock.now();
    while !bench.device.living_copies().is_empty() {
        if let Some(done) = bench.poll(Duration::from_millis(1)) {
            return Err(format!("what was not asked for: {done:?}"));
        }
        if bench.clock.now().since(began) > PATIENCE {
            return Err("the old write never landed".to_owned());
        }
    }
    Ok(Ghost { was_held, was_read_back, is_newer: bench.read()? == Some(NEW) })
}
