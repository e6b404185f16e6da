//! A device of blocks with the control port of its path beside it.
//!
//! Keeps true: blocks and commands share nothing but who waits for them. Not here: either of them.

use std::os::fd::RawFd;

use super::NodePort;
use crate::block::buffer::BufferPool;
use crate::block::request::{Cancelled, IoCompletion, IoRequest, IoTag, Refused};
use crate::block::time::Instant;
use crate::block::{BlockDevice, DeviceEvent, Geometry};
use crate::control_port::ControlPort;

/// A path that takes both.
pub(crate) struct BesideBlocks {
    blocks: Box<dyn BlockDevice>,
    port: NodePort,
}

impl BesideBlocks {
    pub(crate) fn new(blocks: Box<dyn BlockDevice>, port: NodePort) -> Self {
        Self { blocks, port }
    }
}

impl BlockDevice for BesideBlocks {
    fn geometry(&self) -> Geometry {
        self.blocks.geometry()
    }

    fn submit(&mut self, now: Instant, request: IoRequest) -> Result<(), Refused> {
        self.blocks.submit(now, request)
    }

    fn poll(&mut self, now: Instant) -> Option<IoCompletion> {
        self.blocks.poll(now)
    }

    fn poll_event(&mut self, now: Instant) -> Option<DeviceEvent> {
        self.blocks.poll_event(now)
    }

    fn next_wakeup(&self) -> Option<Instant> {
        self.blocks.next_wakeup()
    }

    fn cancel(&mut self, now: Instant, tag: IoTag) -> Cancelled {
        self.blocks.cancel(now, tag)
    }

    fn attach_pool(&mut self, pool: &BufferPool) {
        self.blocks.attach_pool(pool);
    }

    fn wait_on(&self, descriptors: &mut Vec<RawFd>) {
        self.blocks.wait_on(descriptors);
        self.port.control_wait_on(descriptors);
    }

    fn control_port(&mut self) -> Option<&mut dyn ControlPort> {
        Some(&mut self.port)
    }
}
