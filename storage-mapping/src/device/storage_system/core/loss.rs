//! How requests in flight are lost, and what becomes of their commands.
//!
//! Keeps true: a request that is lost ends at once, with an unknown outcome; what a disk has goes on; what is
//! said to be settled does not land after that.

use std::time::Duration;

use super::Core;
use super::command::{Command, Stage};
use crate::block::DeviceEvent;
use crate::block::request::{CopyFate, Effect, ErrorSource, IoError, IoRequest, Operation, SettledProof};
use crate::control_port::ControlEvent;
use crate::device::storage_system::event_log::{RequestKind, What};

/// How requests in flight are lost.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    /// What has arrived goes on.
    Down,
    /// What has not reached the disks is gone.
    Dead,
    /// Some of the writes land later.
    Reset { lands: f64, delay: Duration },
    /// As `Dead`, and the target proves it.
    EndNexus,
}

fn copy_after_loss(kind: RequestKind) -> CopyFate {
    if kind == RequestKind::Write { CopyFate::MayLand } else { CopyFate::Dead }
}

impl Command {
    /// Whether it may still be executed when its path has lost it: a write, and a control command.
    fn outlives_path(&self) -> bool {
        self.kind == RequestKind::Write || self.control.is_some()
    }
}

impl Core {
    /// Ends a request with an unknown outcome; a write goes on as a ghost.
    pub(super) fn lose(&mut self, index: u32, error: IoError) {
        if self.commands[index as usize].control.is_some() {
            return self.lose_control(index, error);
        }
        let command = self.command(index);
        let (nexus, tag, kind) = (command.nexus, command.tag, command.kind);
        command.has_waiter = false;
        let request = command.request.take().expect("a request stays with its command until it ends");
        if let Operation::Write { lba, data, fua } = &request.operation {
            command.request = Some(IoRequest::write(tag, *lba, data.clone(), *fua));
        }
        self.complete(nexus, request.complete(Err(error), Effect::Unknown, copy_after_loss(kind)));
    }

    /// The path was closed: nobody waits for this command any more.
    pub(super) fn forget_waiter(&mut self, index: u32) {
        let now = self.now;
        let command = self.command(index);
        command.has_waiter = false;
        let is_with_disks = command.stage == Stage::AtDisks;
        if command.kind != RequestKind::Write {
            command.request = None;
        }
        let goes_on = is_with_disks || (command.outlives_path() && command.leaves <= now);
        if !goes_on {
            self.discard(index);
        }
    }

    /// Says that the copy of a lost write is dead, where the target proves it.
    pub(super) fn settle(&mut self, index: u32) {
        let Command { nexus, tag, settles, ref control, .. } = self.commands[index as usize];
        let is_control = control.is_some();
        if settles {
            self.note(nexus, tag, What::Settled);
            if is_control {
                return self.tell_control(nexus, ControlEvent::Settled(tag));
            }
            self.tell(nexus, DeviceEvent::Settled { tag, proof: SettledProof::NexusEnded });
        }
    }

    /// Loses all requests in flight over the port, or over the one path.
    pub(super) fn cut(&mut self, is_over: impl Fn(usize, usize) -> bool, cut: Cut) {
        let mut found: Vec<_> = (0_u32..)
            .zip(&self.commands)
            .filter(|(_, command)| command.stage != Stage::Free)
            .filter(|(_, command)| is_over(self.nexuses[command.nexus].port, command.nexus))
            .map(|(index, command)| (command.sequence, index))
            .collect();
        found.sort_unstable();
        for (_, index) in found {
            let command = self.command(index);
            if command.has_waiter {
                command.settles = matches!(cut, Cut::EndNexus) && command.outlives_path();
                self.lose(index, ErrorSource::ConnectionLost { sent: true }.into());
            }
            self.cut_ghost(index, cut);
        }
    }

    /// What a cut does to a command that nobody waits for any more.
    fn cut_ghost(&mut self, index: u32, cut: Cut) {
        let command = &self.commands[index as usize];
        let (stage, nexus, outlives_path) = (command.stage, command.nexus, command.outlives_path());
        match (stage, cut) {
            (Stage::Free | Stage::AtDisks, _) => {}
            (Stage::Held | Stage::Parked | Stage::Forwarding, Cut::Down) if outlives_path => {}
            (Stage::AnswerHeld | Stage::Answering, _) => {
                self.settle(index);
                self.free(index);
            }
            (_, Cut::Reset { lands, delay }) if outlives_path => {
                let port = self.nexuses[nexus].port;
                let chance = &mut self.ports[port].link.chance;
                if chance.hits(lands) {
                    let delay = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
                    let until = self.now + Duration::from_nanos(chance.below(delay));
                    self.park(index, until);
                } else {
                    self.discard(index);
                }
            }
            _ => self.discard(index),
        }
    }
}
