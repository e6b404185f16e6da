//! The control port of an iSCSI session: commands of others over the nexus that the blocks use, too.
//!
//! Keeps true: what stands at the head of [`control_port`](crate::control_port). A command of 32 bytes is refused:
//! libiscsi cannot send one. Not here: the session and its link (`device`).

use std::os::fd::RawFd;

use super::device::IscsiDevice;
use crate::block::BlockDevice;
use crate::block::request::{IoTag, RefusalReason};
use crate::block::time::Instant;
use crate::control_port::{
    CommandSet, ControlCancelled, ControlCompletion, ControlEvent, ControlPort, ControlRequest, NexusId,
};

impl ControlPort for IscsiDevice {
    fn command_set(&self) -> CommandSet {
        CommandSet::Scsi
    }

    fn nexus(&self) -> NexusId {
        self.nexus_id()
    }

    fn submit_control(&mut self, _now: Instant, request: ControlRequest) -> Result<(), RefusalReason> {
        if self.is_closed() {
            return Err(RefusalReason::Closed);
        }
        self.requests.submit_control(request)?;
        self.end_what_cannot_be_sent();
        Ok(())
    }

    fn poll_control(&mut self, now: Instant) -> Option<ControlCompletion> {
        if let Some(done) = self.requests.take_ready_control() {
            return Some(done);
        }
        self.work(now);
        self.requests.take_ready_control()
    }

    fn poll_control_event(&mut self, _now: Instant) -> Option<ControlEvent> {
        self.control_events.pop_front()
    }

    fn cancel_control(&mut self, _now: Instant, tag: IoTag) -> ControlCancelled {
        let session = self.link.session();
        self.requests.cancel_control(tag, session)
    }

    fn next_control_wakeup(&self) -> Option<Instant> {
        if self.requests.has_ready_control() || !self.control_events.is_empty() {
            return Some(Instant::ZERO);
        }
        self.next_work()
    }

    fn control_wait_on(&self, descriptors: &mut Vec<RawFd>) {
        self.wait_on(descriptors);
    }
}
