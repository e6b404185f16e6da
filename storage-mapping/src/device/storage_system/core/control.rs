//! The life of a control command: over the link like a request for blocks, through the logical unit, and back.
//!
//! ```text
//! submit ─▶ on the link ─▶ arrive ─▶ [hang, forwarding] ─▶ execute ─▶ [disks] ─▶ answer ─▶ completion
//!    │                        └─▶ refused, lost                                    └─▶ held, lost
//!    └─▶ not taken, not sent
//! ```
//!
//! Keeps true: a command is executed at most once; one whose path was lost goes on as a ghost where the fault says so,
//! and is judged by the login that sent it. Not here: what the unit does with it (`scsi_target`).

use nix::libc;

use super::command::{Command, Stage};
use super::loss::Cut;
use super::{Core, DONE, LinkPlace, QUEUE_DEPTH};
use crate::block::DeviceEvent;
use crate::block::request::{
    CopyFate, Effect, ErrorSource, IoBuffer, IoError, IoRequest, IoTag, Operation, RefusalReason,
};
use crate::block::time::Instant;
use crate::control_port::{
    CommandBytes, ControlCancelled, ControlCommand, ControlCompletion, ControlEvent, ControlReply,
    ControlRequest, NexusId, TRANSFER_MAX_BYTES, Transfer,
};
use crate::device::storage_system::access_state::{AccessState, status};
use crate::device::storage_system::command_fault::CommandFault;
use crate::device::storage_system::event_log::{RequestKind, What};
use crate::device::storage_system::scsi_target::{Answer, BlockWork, Call, Done, Step};
use crate::scsi::status::{BUSY, TASK_ABORTED, TASK_SET_FULL};

/// Events that a port keeps for one who does not fetch them.
const EVENTS_MAX: usize = 256;

/// What makes a command a control command.
#[derive(Debug)]
pub(super) struct Control {
    command: ControlCommand,
    fault: Option<CommandFault>,
    pub(super) is_executed: bool,
    answer: Option<Answer>,
}

impl Control {
    fn cdb(&self) -> &[u8] {
        match &self.command.bytes {
            CommandBytes::Scsi(cdb) => cdb.bytes(),
            CommandBytes::Nvme(_) => &[],
        }
    }

    fn limit(&self) -> usize {
        if let Transfer::In(limit) = self.command.transfer { limit } else { 0 }
    }

    /// Opcode and the byte with the service action.
    fn name(&self) -> (u8, u8) {
        (self.cdb()[0], self.cdb()[1])
    }
}

impl Core {
    pub(in super::super) fn nexus_id(&self, nexus: usize) -> NexusId {
        let path = &self.nexuses[nexus];
        let unit = &self.units[path.volume];
        NexusId {
            initiator: unit.initiator(path.slot).to_owned(),
            target_port: unit.port_name(path.port, &self.ports[path.port].name),
            generation: unit.login(path.slot),
        }
    }

    /// Takes a command in over a path.
    pub(in super::super) fn submit_control(
        &mut self,
        now: Instant,
        nexus: usize,
        request: ControlRequest,
    ) -> Result<(), RefusalReason> {
        self.advance(now);
        let ControlRequest { tag, command } = request;
        let CommandBytes::Scsi(cdb) = command.bytes else { return Err(RefusalReason::Invalid) };
        let bytes = match &command.transfer {
            Transfer::None => 0,
            Transfer::In(bytes) => *bytes,
            Transfer::Out(data) => data.len(),
        };
        let path = &mut self.nexuses[nexus];
        if bytes > TRANSFER_MAX_BYTES {
            return Err(RefusalReason::Invalid);
        }
        if path.in_flight.len() >= QUEUE_DEPTH {
            return Err(RefusalReason::Busy);
        }
        if path.in_flight.contains_key(&tag) {
            return Err(RefusalReason::DuplicateTag);
        }
        let armed = path.link.take_armed(cdb.opcode());
        let fault = armed.or_else(|| self.ports[path.port].link.take_armed(cdb.opcode()));
        if fault == Some(CommandFault::Refused) {
            return Err(RefusalReason::Busy);
        }
        let control = Control { command, fault, is_executed: false, answer: None };
        let (opcode, action) = control.name();
        self.note(nexus, tag, What::Commanded { opcode, action, bytes });
        let index = self.enter(nexus, tag, bytes);
        self.command(index).control = Some(Box::new(control));
        self.nexuses[nexus].in_flight.insert(tag, index);
        if fault == Some(CommandFault::NotSent) {
            self.finish_unsent(index);
        } else {
            self.launch(index);
        }
        Ok(())
    }

    pub(in super::super) fn poll_control(&mut self, now: Instant, nexus: usize) -> Option<ControlCompletion> {
        self.advance(now);
        let path = &mut self.nexuses[nexus];
        let done = path.answers.pop_front();
        match &done {
            Some(done) => drop(path.in_flight.remove(&done.tag)),
            None => path.quieten(),
        }
        done
    }

    /// An event, once all completions before it are fetched.
    pub(in super::super) fn poll_control_event(
        &mut self,
        now: Instant,
        nexus: usize,
    ) -> Option<ControlEvent> {
        self.advance(now);
        let path = &mut self.nexuses[nexus];
        if path.answers.is_empty() { path.control_events.pop_front() } else { None }
    }

    pub(in super::super) fn next_control_wakeup(&self, nexus: usize) -> Option<Instant> {
        let path = &self.nexuses[nexus];
        let has_news = !path.answers.is_empty() || !path.control_events.is_empty();
        if has_news { Some(Instant::ZERO) } else { self.next_wakeup_of_all() }
    }

    /// Withdraws a command, or has the target abort it where the abort gets through and finds it.
    pub(in super::super) fn cancel_control(
        &mut self,
        now: Instant,
        nexus: usize,
        tag: IoTag,
    ) -> ControlCancelled {
        self.advance(now);
        let Some(index) = self.nexuses[nexus].in_flight.get(&tag).copied() else {
            return ControlCancelled::NotHere;
        };
        if index == DONE {
            return ControlCancelled::Requested;
        }
        let Command { stage, leaves, ref control, .. } = self.commands[index as usize];
        if control.is_none() {
            return ControlCancelled::NotHere;
        }
        if stage == Stage::OnLink && leaves > self.now {
            self.nexuses[nexus].in_flight.remove(&tag);
            self.note(nexus, tag, What::Dropped);
            self.free(index);
            return ControlCancelled::Withdrawn;
        }
        let is_hung = self.nexuses[nexus].link.is_hung || self.ports[self.nexuses[nexus].port].link.is_hung;
        let waits = matches!(stage, Stage::Parked | Stage::Forwarding | Stage::Answering | Stage::AnswerHeld);
        if waits && !is_hung {
            // The answer to ABORT TASK does not say whether it had been executed, only that it no longer can be.
            let aborted = Err(IoError::errno(libc::ECANCELED));
            self.finish_control(index, aborted, Effect::Unknown, CopyFate::Dead);
        }
        ControlCancelled::Requested
    }

    /// A control command has come to its port.
    pub(super) fn arrive_control(&mut self, index: u32) {
        let Command { nexus, has_waiter, .. } = self.commands[index as usize];
        if has_waiter && (!self.admit(index) || !self.pass_faults(index, true)) {
            return;
        }
        // What nobody waits for any more has met its fault.
        let has_waiter = self.commands[index as usize].has_waiter;
        let fault = self.control(index).fault.filter(|_| has_waiter);
        let path = &self.nexuses[nexus];
        let (slot, volume) = (path.slot, path.volume);
        let cell = self.access_cell(self.ports[path.port].group, volume);
        match fault {
            Some(CommandFault::Lost { lands }) => {
                self.lose(index, ErrorSource::ConnectionLost { sent: true }.into());
                return match lands {
                    Some(time) => self.park(index, self.now + time),
                    None => self.discard(index),
                };
            }
            Some(CommandFault::Hang(Some(time))) => return self.park(index, self.now + time),
            Some(CommandFault::Hang(None)) => {
                self.command(index).stage = Stage::Parked;
                return;
            }
            Some(CommandFault::Busy) => return self.refuse(index, status(BUSY)),
            Some(CommandFault::TaskSetFull) => return self.refuse(index, status(TASK_SET_FULL)),
            Some(CommandFault::NexusLost) => return self.bounce(LinkPlace::Nexus(nexus), Cut::Dead),
            Some(CommandFault::Attention(attention)) => self.units[volume].attend(slot, attention),
            Some(CommandFault::Deferred(codes)) => self.units[volume].defer(slot, codes),
            Some(CommandFault::Access(state)) => self.change_access(cell, state, None, None),
            _ => {}
        }
        if self.access[cell].state == AccessState::ActiveNonOptimized && !self.forwarding.is_zero() {
            return self.put_off(index, Stage::Forwarding, self.now + self.forwarding);
        }
        self.execute(index);
    }

    fn control(&mut self, index: u32) -> &mut Control {
        self.command(index).control.as_mut().expect("called for control commands")
    }

    /// The unit gets the command.
    pub(super) fn execute(&mut self, index: u32) {
        let Command { nexus, tag, login, has_waiter, .. } = self.commands[index as usize];
        let (slot, volume) = (self.nexuses[nexus].slot, self.nexuses[nexus].volume);
        let access: Vec<AccessState> =
            (0..self.groups.len()).map(|group| self.access[self.access_cell(group, volume)].state).collect();
        let control = self.commands[index as usize].control.as_mut().expect("called for control commands");
        control.is_executed = true;
        let (opcode, action) = control.name();
        let data: &[u8] = if let Transfer::Out(data) = &control.command.transfer { data } else { &[] };
        let call =
            Call { nexus: slot, login, is_ghost: !has_waiter, cdb: control.cdb(), data, access: &access };
        let Done { step, changed, aborted, access } = self.units[volume].execute(call);
        let status = if let Step::Answer(answer) = &step { answer.status } else { 0 };
        self.note(nexus, tag, What::Executed { opcode, action, status, changed, is_ghost: !has_waiter });
        for (group, state) in access {
            let cell = self.access_cell(group, volume);
            self.change_access(cell, state, None, Some(slot));
        }
        for slot in aborted {
            self.abort_nexus(volume, slot);
        }
        match step {
            Step::Answer(answer) => {
                self.control(index).answer = Some(answer);
                self.answer(index);
            }
            Step::Blocks(work) => self.begin_blocks(index, tag, work),
        }
    }

    /// Sends what the disks have to do for a command.
    fn begin_blocks(&mut self, index: u32, tag: IoTag, work: BlockWork) {
        let (kind, request) = match work {
            BlockWork::Read { lba, bytes } => {
                (RequestKind::Read, IoRequest::read(tag, lba, self.pool.take(bytes)))
            }
            BlockWork::Write { lba, data, fua } => {
                let mut buffer = self.pool.take(data.len());
                buffer.copy_from_slice(&data);
                (RequestKind::Write, IoRequest::write(tag, lba, buffer.freeze(), fua))
            }
            BlockWork::Flush => (RequestKind::Flush, IoRequest::flush(tag)),
        };
        let (lba, bytes) = match &request.operation {
            Operation::Read { lba, buffer } => (*lba, buffer.len()),
            Operation::Write { lba, data, .. } => (*lba, data.len()),
            Operation::Flush => (crate::Lba(0), 0),
        };
        let command = self.command(index);
        (command.kind, command.lba, command.bytes) = (kind, lba, bytes);
        command.request = Some(request);
        self.dispatch(index);
    }

    /// The answer of a control command goes back to its path.
    pub(super) fn answer_control(&mut self, index: u32) {
        let nexus = self.commands[index as usize].nexus;
        match self.control(index).fault.take() {
            Some(CommandFault::AnswerLost) => {
                self.lose(index, ErrorSource::ConnectionLost { sent: true }.into());
                return self.free(index);
            }
            Some(CommandFault::AnswerHang(Some(time))) => {
                return self.put_off(index, Stage::Answering, self.now + time);
            }
            Some(CommandFault::AnswerHang(None)) => {
                self.command(index).stage = Stage::AnswerHeld;
                return;
            }
            Some(CommandFault::NexusLostAfter) => {
                self.command(index).stage = Stage::AnswerHeld;
                return self.bounce(LinkPlace::Nexus(nexus), Cut::Dead);
            }
            Some(CommandFault::AccessAfter(state)) => {
                let path = &self.nexuses[nexus];
                let cell = self.access_cell(self.ports[path.port].group, path.volume);
                self.change_access(cell, state, None, None);
            }
            _ => {}
        }
        let Command { failure, .. } = self.commands[index as usize];
        let request = self.command(index).request.take();
        let buffer = request.map(|request| request.complete(Ok(()), Effect::Full, CopyFate::Dead).buffer);
        let answer = match (self.control(index).answer.take(), failure, buffer) {
            (Some(answer), ..) => answer,
            (None, Some(_), _) => Answer::medium_error(),
            (None, None, Some(IoBuffer::Read(data))) => Answer::read(data.to_vec()),
            (None, None, _) => Answer::read(Vec::new()),
        };
        self.reply(index, answer);
    }

    /// Ends a command with an answer of the target.
    pub(super) fn reply(&mut self, index: u32, answer: Answer) {
        let volume = self.nexuses[self.commands[index as usize].nexus].volume;
        let has_descriptors = self.units[volume].has_descriptor_sense();
        let reply = answer.into_reply(has_descriptors, self.control(index).limit());
        self.finish_control(index, Ok(reply), Effect::Full, CopyFate::Dead);
    }

    /// Ends a command and frees its place.
    pub(super) fn finish_control(
        &mut self,
        index: u32,
        outcome: Result<ControlReply, IoError>,
        effect: Effect,
        copy: CopyFate,
    ) {
        let Command { nexus, tag, .. } = self.commands[index as usize];
        self.free(index);
        self.complete_control(nexus, ControlCompletion { tag, outcome, effect, copy });
    }

    /// Ends a command with an unknown outcome; what it is at the target lives on.
    pub(super) fn lose_control(&mut self, index: u32, error: IoError) {
        let Command { nexus, tag, .. } = self.commands[index as usize];
        self.command(index).has_waiter = false;
        let (effect, copy) = (Effect::Unknown, CopyFate::MayLand);
        self.complete_control(nexus, ControlCompletion { tag, outcome: Err(error), effect, copy });
    }

    fn complete_control(&mut self, nexus: usize, done: ControlCompletion) {
        self.nexuses[nexus].in_flight.insert(done.tag, DONE);
        let what = match &done.outcome {
            Ok(ControlReply::Scsi { status, .. }) => What::Answered { status: *status },
            Ok(ControlReply::Nvme { .. }) => What::Answered { status: 0 },
            Err(error) => What::Completed { error: Some(error.source_code) },
        };
        self.note(nexus, done.tag, what);
        let path = &mut self.nexuses[nexus];
        path.wake();
        path.answers.push_back(done);
    }

    pub(super) fn tell_control(&mut self, nexus: usize, event: ControlEvent) {
        let path = &mut self.nexuses[nexus];
        if !path.is_open {
            return;
        }
        path.wake();
        if path.control_events.len() >= EVENTS_MAX {
            path.control_events.pop_front();
        }
        path.control_events.push_back(event);
    }

    /// A path can be used again: its initiator has logged in.
    pub(super) fn begin_nexus(&mut self, nexus: usize) {
        let path = &self.nexuses[nexus];
        self.units[path.volume].begin_nexus(path.slot);
    }

    /// The link of a path came or went, and its nexus with it.
    pub(super) fn tell_link(&mut self, nexus: usize, is_up: bool) {
        self.tell(nexus, if is_up { DeviceEvent::LinkUp } else { DeviceEvent::LinkDown });
        let path = &self.nexuses[nexus];
        if !path.is_open {
            return;
        }
        if is_up {
            self.begin_nexus(nexus);
            self.tell_control(nexus, ControlEvent::NexusBegun);
        } else {
            self.units[path.volume].end_nexus(path.slot);
            self.tell_control(nexus, ControlEvent::NexusLost);
        }
    }

    /// PREEMPT AND ABORT: ends what a nexus has at the unit and what has not reached the disks (TAS = 1, SAM-6 5.3.1).
    fn abort_nexus(&mut self, volume: usize, slot: usize) {
        let is_aborted = |command: &Command| {
            let path = &self.nexuses[command.nexus];
            path.volume == volume
                && path.slot == slot
                && matches!(command.stage, Stage::Parked | Stage::Forwarding)
        };
        let found: Vec<u32> = (0_u32..)
            .zip(&self.commands)
            .filter(|(_, command)| is_aborted(command))
            .map(|(index, _)| index)
            .collect();
        for index in found {
            self.abort(index);
        }
    }

    fn abort(&mut self, index: u32) {
        let command = &self.commands[index as usize];
        if !command.has_waiter {
            self.discard(index);
        } else if command.control.is_some() {
            self.reply(index, Answer::status(TASK_ABORTED));
        } else {
            self.finish(index, Err(status(TASK_ABORTED).into()), Effect::Unknown, CopyFate::Dead);
        }
    }
}
