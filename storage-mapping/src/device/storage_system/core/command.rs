//! The life of one command, from the link to the disks and back.
//!
//! ```text
//! begin ─▶ on the link ─▶ arrive ──────────────▶ [forwarding] ─▶ at the disks ─▶ answer ─▶ completion
//!                          ├─▶ held (hang) ─▶ arrive again                        └─▶ held ─▶ answer
//!                          └─▶ parked (late write) ─▶ at the disks
//! ```
//!
//! Keeps true: the request, with its buffer, stays with its command until the path gets it back; a command
//! whose path was lost (`has_waiter` is false) goes on to the disks and ends in silence; a place in the table
//! is free only when no disk has a piece of it.

use std::time::Duration;

use nix::libc;

use super::control::Control;
use super::{CommandId, Core, DONE, Due, Nexus};
use crate::block::DeviceEvent;
use crate::block::address::Lba;
use crate::block::request::{
    CopyFate, Effect, ErrorSource, IoCompletion, IoError, IoRequest, IoTag, Operation,
};
use crate::block::time::Instant;
use crate::device::storage_system::access_state::{self, AccessState};
use crate::device::storage_system::event_log::{RequestKind, What};
use crate::device::storage_system::link::{Carrier, Link};
use crate::device::storage_system::scsi_target::Answer;
use crate::scsi::status::{BUSY, RESERVATION_CONFLICT, TASK_SET_FULL};

/// Where a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Free,
    OnLink,
    /// In a port that hangs, before it was looked at.
    Held,
    /// In the port, to land late.
    Parked,
    Forwarding,
    AtDisks,
    /// Done, in a port that hangs.
    AnswerHeld,
    /// Done, and its answer comes late.
    Answering,
}

/// What a disk has to do for a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) disk: usize,
    pub(super) disk_lba: Lba,
    pub(super) offset: usize,
    pub(super) length: usize,
    pub(super) end: Instant,
}

/// A command and what is known of it.
#[derive(Debug)]
pub(super) struct Command {
    generation: u32,
    step: u32,
    pub(super) sequence: u64,
    pub(super) stage: Stage,
    pub(super) nexus: usize,
    pub(super) tag: IoTag,
    /// Which login of the nexus sent it.
    pub(super) login: u64,
    /// What it does to blocks; of a control command, what it turned out to do.
    pub(super) kind: RequestKind,
    pub(super) lba: Lba,
    pub(super) bytes: usize,
    pub(super) request: Option<IoRequest>,
    /// `None` for a request for blocks.
    pub(super) control: Option<Box<Control>>,
    pub(super) has_waiter: bool,
    /// Its end is told to the path by an event.
    pub(super) settles: bool,
    is_counted: bool,
    /// When its first byte leaves the host.
    pub(super) leaves: Instant,
    pub(super) pieces: Vec<Piece>,
    pub(super) pieces_left: usize,
    pub(super) failure: Option<(IoError, Effect, CopyFate)>,
}

/// What a link does wrong to a command.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Busy,
    Full,
    Error { lands: bool },
    Late(Duration),
}

fn draw_fault(link: &mut Link, is_write: bool) -> Option<Fault> {
    if link.is_plain() {
        return None;
    }
    let conditions = *link.conditions();
    let chance = &mut link.chance;
    if chance.hits(conditions.busy) {
        Some(Fault::Busy)
    } else if chance.hits(conditions.full) {
        Some(Fault::Full)
    } else if chance.hits(conditions.error) {
        Some(Fault::Error { lands: chance.below(2) == 0 })
    } else if is_write && chance.hits(conditions.late.probability) {
        Some(Fault::Late(conditions.late.time))
    } else {
        None
    }
}

impl Core {
    pub(super) fn command(&mut self, index: u32) -> &mut Command {
        &mut self.commands[index as usize]
    }

    pub(super) fn id(&self, index: u32) -> CommandId {
        CommandId { index, generation: self.commands[index as usize].generation }
    }

    /// A place in the table for something of `bytes` to send.
    pub(super) fn enter(&mut self, nexus: usize, tag: IoTag, bytes: usize) -> u32 {
        let path = &self.nexuses[nexus];
        let login = self.units[path.volume].login(path.slot);
        let index = self.free.pop().unwrap_or_else(|| {
            let index = u32::try_from(self.commands.len()).expect("fewer commands than 2³²");
            self.commands.push(Command {
                generation: 0,
                step: 0,
                sequence: 0,
                stage: Stage::Free,
                nexus,
                tag,
                login,
                kind: RequestKind::Flush,
                lba: Lba(0),
                bytes,
                request: None,
                control: None,
                has_waiter: false,
                settles: false,
                is_counted: false,
                leaves: Instant::ZERO,
                pieces: Vec::new(),
                pieces_left: 0,
                failure: None,
            });
            index
        });
        self.accepted += 1;
        let sequence = self.accepted;
        let command = self.command(index);
        command.sequence = sequence;
        command.stage = Stage::OnLink;
        command.nexus = nexus;
        (command.tag, command.login) = (tag, login);
        (command.kind, command.lba, command.bytes) = (RequestKind::Flush, Lba(0), bytes);
        command.has_waiter = true;
        index
    }

    /// Takes a command out of the table.
    pub(super) fn free(&mut self, index: u32) {
        let command = &mut self.commands[index as usize];
        command.generation = command.generation.wrapping_add(1);
        command.stage = Stage::Free;
        command.request = None;
        command.control = None;
        command.settles = false;
        command.failure = None;
        command.pieces.clear();
        if std::mem::take(&mut command.is_counted) {
            self.ports[self.nexuses[command.nexus].port].outstanding -= 1;
        }
        self.free.push(index);
    }

    /// Puts a command off until `at`, in this stage.
    pub(super) fn put_off(&mut self, index: u32, stage: Stage, at: Instant) {
        let command = self.command(index);
        command.stage = stage;
        command.step = command.step.wrapping_add(1);
        let step = command.step;
        let command = self.id(index);
        self.wake(at, Due::Step { command, step });
    }

    /// A request that a path has accepted.
    pub(super) fn begin(&mut self, nexus: usize, request: IoRequest) {
        let tag = request.tag;
        let (kind, lba, bytes) = match &request.operation {
            Operation::Read { lba, buffer } => (RequestKind::Read, *lba, buffer.len()),
            Operation::Write { lba, data, .. } => (RequestKind::Write, *lba, data.len()),
            Operation::Flush => (RequestKind::Flush, Lba(0), 0),
        };
        let index = self.enter(nexus, tag, bytes);
        let command = self.command(index);
        (command.kind, command.lba) = (kind, lba);
        command.request = Some(request);
        self.note(nexus, tag, What::Submitted { kind, lba, bytes });
        self.nexuses[nexus].in_flight.insert(tag, index);
        self.launch(index);
    }

    /// Sends a command over the link of its path and that of its port.
    pub(super) fn launch(&mut self, index: u32) {
        let now = self.now;
        let Command { nexus, bytes, .. } = self.commands[index as usize];
        let path = &mut self.nexuses[nexus];
        let port = path.port;
        if path.link.carrier != Carrier::Up || self.ports[port].link.carrier != Carrier::Up {
            return self.finish_unsent(index);
        }
        let first = path.link.transit(now, bytes);
        let second = self.ports[port].link.transit(first.arrives, bytes);
        self.command(index).leaves = if first.arrives > now { first.leaves } else { second.leaves };
        if second.arrives > now {
            self.put_off(index, Stage::OnLink, second.arrives);
        } else {
            self.arrive(index);
        }
    }

    /// Ends a command that did not leave.
    pub(super) fn finish_unsent(&mut self, index: u32) {
        let lost = ErrorSource::ConnectionLost { sent: false }.into();
        if self.commands[index as usize].control.is_some() {
            self.finish_control(index, Err(lost), Effect::None, CopyFate::Dead);
        } else {
            self.finish(index, Err(lost), Effect::None, CopyFate::Dead);
        }
    }

    pub(super) fn handle_step(&mut self, id: CommandId, step: u32) {
        let command = &self.commands[id.index as usize];
        if command.generation != id.generation || command.step != step {
            return;
        }
        match command.stage {
            Stage::OnLink => self.arrive(id.index),
            Stage::Parked | Stage::Forwarding if command.control.is_some() => self.execute(id.index),
            Stage::Parked | Stage::Forwarding => self.dispatch(id.index),
            Stage::Answering => self.answer(id.index),
            Stage::Free | Stage::Held | Stage::AtDisks | Stage::AnswerHeld => {}
        }
    }

    /// Holds a command back if its path or its port hangs.
    fn hold_if_hung(&mut self, index: u32, stage: Stage) -> bool {
        let nexus = self.commands[index as usize].nexus;
        let id = self.id(index);
        let path = &mut self.nexuses[nexus];
        let port = &mut self.ports[path.port];
        let link = if port.link.is_hung {
            &mut port.link
        } else if path.link.is_hung {
            &mut path.link
        } else {
            return false;
        };
        link.held.push_back(id);
        let command = self.command(index);
        command.stage = stage;
        let tag = command.tag;
        self.note(nexus, tag, What::Held);
        true
    }

    /// A hang is over: goes on with a command that it held.
    pub(super) fn release(&mut self, id: CommandId) {
        let command = &self.commands[id.index as usize];
        if command.generation != id.generation {
            return;
        }
        match command.stage {
            Stage::Held => self.arrive(id.index),
            Stage::AnswerHeld => self.answer(id.index),
            Stage::Free
            | Stage::OnLink
            | Stage::Parked
            | Stage::Forwarding
            | Stage::AtDisks
            | Stage::Answering => {}
        }
    }

    /// A command has come to its port.
    fn arrive(&mut self, index: u32) {
        if self.hold_if_hung(index, Stage::Held) {
            return;
        }
        if self.commands[index as usize].control.is_some() {
            return self.arrive_control(index);
        }
        let Command { nexus, kind, has_waiter, tag, .. } = self.commands[index as usize];
        if has_waiter {
            if !self.admit(index) {
                return;
            }
            let Nexus { volume, slot, .. } = self.nexuses[nexus];
            if let Some(attention) = self.units[volume].take_attention(slot, self.blocks_meet_attentions) {
                self.note(nexus, tag, What::Attention);
                self.refuse(index, access_state::attention(attention));
                return self.tell(nexus, DeviceEvent::Attention);
            }
        }
        let path = &self.nexuses[nexus];
        let cell = self.access_cell(self.ports[path.port].group, path.volume);
        let state = self.access[cell].state;
        if let Some(refusal) = state.refusal() {
            return self.refuse(index, refusal);
        }
        if has_waiter && !self.pass_faults(index, kind == RequestKind::Write) {
            return;
        }
        if state == AccessState::ActiveNonOptimized && self.forwarding > Duration::ZERO {
            let at = self.now + self.forwarding;
            return self.put_off(index, Stage::Forwarding, at);
        }
        self.dispatch(index);
    }

    /// Takes a command into its port, if that has room.
    pub(super) fn admit(&mut self, index: u32) -> bool {
        let command = &mut self.commands[index as usize];
        if command.is_counted {
            return true;
        }
        let port = &mut self.ports[self.nexuses[command.nexus].port];
        if port.link.conditions().queue.is_some_and(|limit| port.outstanding >= limit) {
            self.refuse(index, access_state::status(TASK_SET_FULL));
            return false;
        }
        port.outstanding += 1;
        command.is_counted = true;
        true
    }

    /// Draws what the path and the port do wrong; `false` where the command goes no further now.
    pub(super) fn pass_faults(&mut self, index: u32, is_write: bool) -> bool {
        let nexus = self.commands[index as usize].nexus;
        let path = &mut self.nexuses[nexus];
        let fault = draw_fault(&mut path.link, is_write)
            .or_else(|| draw_fault(&mut self.ports[path.port].link, is_write));
        match fault {
            None => true,
            Some(Fault::Busy) => {
                self.refuse(index, access_state::status(BUSY));
                false
            }
            Some(Fault::Full) => {
                self.refuse(index, access_state::status(TASK_SET_FULL));
                false
            }
            Some(Fault::Error { lands }) => {
                self.lose(index, IoError::errno(libc::EIO));
                if !(is_write && lands) {
                    self.discard(index);
                }
                is_write && lands
            }
            Some(Fault::Late(time)) => {
                let until = self.now + time;
                self.park(index, until);
                false
            }
        }
    }

    /// Ends a request for blocks that a reservation keeps from the disks; a ghost too: its key was taken away.
    pub(super) fn refuse_reserved(&mut self, index: u32) -> bool {
        let Command { nexus, login, kind, ref control, .. } = self.commands[index as usize];
        let Nexus { volume, slot, .. } = self.nexuses[nexus];
        // A control command was judged when it was executed.
        let is_refused =
            control.is_none() && self.units[volume].refuses_blocks(slot, login, kind != RequestKind::Read);
        if is_refused {
            self.refuse(index, access_state::status(RESERVATION_CONFLICT));
        }
        is_refused
    }

    /// Keeps a command in the port until `until`; then it goes to the disks, come what may.
    pub(super) fn park(&mut self, index: u32, until: Instant) {
        let Command { nexus, tag, .. } = self.commands[index as usize];
        self.note(nexus, tag, What::Parked { until });
        self.put_off(index, Stage::Parked, until);
    }

    /// Ends a command that was not executed, with a status of the target.
    pub(super) fn refuse(&mut self, index: u32, status: ErrorSource) {
        let Command { has_waiter, ref control, .. } = self.commands[index as usize];
        if let (true, Some(_), ErrorSource::Scsi { status, .. }) = (has_waiter, control, status) {
            self.reply(index, Answer::status(status));
        } else if has_waiter {
            self.finish(index, Err(status.into()), Effect::None, CopyFate::Dead);
        } else {
            self.discard(index);
        }
    }

    /// Drops a command that nobody waits for.
    pub(super) fn discard(&mut self, index: u32) {
        let Command { nexus, tag, .. } = self.commands[index as usize];
        self.note(nexus, tag, What::Dropped);
        self.settle(index);
        self.free(index);
    }

    /// All disks are done.
    pub(super) fn answer(&mut self, index: u32) {
        let Command { has_waiter, failure, .. } = self.commands[index as usize];
        if !has_waiter {
            self.settle(index);
            return self.free(index);
        }
        if self.hold_if_hung(index, Stage::AnswerHeld) {
            return;
        }
        if self.commands[index as usize].control.is_some() {
            return self.answer_control(index);
        }
        match failure {
            None => self.finish(index, Ok(()), Effect::Full, CopyFate::Dead),
            Some((error, effect, copy)) => self.finish(index, Err(error), effect, copy),
        }
    }

    /// Ends a command and gives the request back to its path.
    pub(super) fn finish(
        &mut self,
        index: u32,
        outcome: Result<(), IoError>,
        effect: Effect,
        copy: CopyFate,
    ) {
        let command = self.command(index);
        let nexus = command.nexus;
        command.has_waiter = false;
        let request = command.request.take().expect("a request stays with its command until it ends");
        self.free(index);
        self.complete(nexus, request.complete(outcome, effect, copy));
    }

    pub(super) fn complete(&mut self, nexus: usize, done: IoCompletion) {
        self.nexuses[nexus].in_flight.insert(done.tag, DONE);
        let error = done.outcome.as_ref().err().map(|error| error.source_code);
        self.note(nexus, done.tag, What::Completed { error });
        self.give(nexus, done);
    }
}
