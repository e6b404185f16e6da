//! A path of the storage system, as its initiator holds it.
//!
//! Keeps true: the contract of `BlockDevice`; a path that is dropped leaves what it had sent behind, and a
//! write of it may still land. Not here: anything of the system itself (`core`).

use std::fmt;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::core::{Core, QUEUE_DEPTH};
use crate::block::buffer::BufferPool;
use crate::block::request::{Cancelled, IoCompletion, IoRequest, IoTag, RefusalReason, Refused};
use crate::block::time::Instant;
use crate::block::{BlockDevice, DeviceEvent, Geometry};
use crate::control_port::{
    CommandSet, ControlCancelled, ControlCompletion, ControlEvent, ControlPort, ControlRequest, NexusId,
};

/// One way of one initiator through one port to one logical volume.
///
/// It may be held in another thread than the other paths of its system; in real time a change that another
/// thread makes rings its descriptor.
pub struct SimulatedPath {
    core: Arc<Mutex<Core>>,
    nexus: usize,
    geometry: Geometry,
}

impl SimulatedPath {
    pub(super) fn new(core: Arc<Mutex<Core>>, nexus: usize) -> Self {
        let geometry = {
            let core = core.lock().unwrap_or_else(PoisonError::into_inner);
            Geometry { queue_depth: QUEUE_DEPTH, ..core.volumes[core.nexuses[nexus].volume].geometry }
        };
        Self { core, nexus, geometry }
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its name: initiator, port and logical volume.
    #[must_use]
    pub fn name(&self) -> super::PathName {
        self.lock().nexuses[self.nexus].name.clone()
    }
}

impl Drop for SimulatedPath {
    fn drop(&mut self) {
        self.lock().close(self.nexus);
    }
}

impl fmt::Debug for SimulatedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimulatedPath({})", self.name())
    }
}

impl BlockDevice for SimulatedPath {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn submit(&mut self, now: Instant, request: IoRequest) -> Result<(), Refused> {
        self.lock().submit(now, self.nexus, request)
    }

    fn poll(&mut self, now: Instant) -> Option<IoCompletion> {
        self.lock().poll(now, self.nexus)
    }

    fn poll_event(&mut self, now: Instant) -> Option<DeviceEvent> {
        self.lock().poll_event(now, self.nexus)
    }

    fn next_wakeup(&self) -> Option<Instant> {
        self.lock().next_wakeup(self.nexus)
    }

    fn cancel(&mut self, now: Instant, tag: IoTag) -> Cancelled {
        self.lock().cancel(now, self.nexus, tag)
    }

    fn attach_pool(&mut self, pool: &BufferPool) {
        self.lock().attach_pool(pool);
    }

    fn wait_on(&self, descriptors: &mut Vec<RawFd>) {
        self.lock().wait_on(self.nexus, descriptors);
    }

    fn control_port(&mut self) -> Option<&mut dyn ControlPort> {
        Some(self)
    }
}

impl ControlPort for SimulatedPath {
    fn command_set(&self) -> CommandSet {
        CommandSet::Scsi
    }

    fn nexus(&self) -> NexusId {
        self.lock().nexus_id(self.nexus)
    }

    fn submit_control(&mut self, now: Instant, request: ControlRequest) -> Result<(), RefusalReason> {
        self.lock().submit_control(now, self.nexus, request)
    }

    fn poll_control(&mut self, now: Instant) -> Option<ControlCompletion> {
        self.lock().poll_control(now, self.nexus)
    }

    fn poll_control_event(&mut self, now: Instant) -> Option<ControlEvent> {
        self.lock().poll_control_event(now, self.nexus)
    }

    fn cancel_control(&mut self, now: Instant, tag: IoTag) -> ControlCancelled {
        self.lock().cancel_control(now, self.nexus, tag)
    }

    fn next_control_wakeup(&self) -> Option<Instant> {
        self.lock().next_control_wakeup(self.nexus)
    }

    fn control_wait_on(&self, descriptors: &mut Vec<RawFd>) {
        self.lock().wait_on(self.nexus, descriptors);
    }
}
