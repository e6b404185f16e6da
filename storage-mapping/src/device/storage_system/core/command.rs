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

use super::{CommandId, Core, DONE, Due, Medium};
use crate::block::address::{BlockCount, Lba};
use crate::block::request::{
    CopyFate, Effect, ErrorSource, IoBuffer, IoCompletion, IoError, IoRequest, IoTag, Operation,
    RefusalReason, Refused, SettledProof,
};
use crate::block::time::Instant;
use crate::block::{BlockDevice, DeviceEvent};
use crate::device::storage_system::access_state::{self, AccessState};
use crate::device::storage_system::event_log::{RequestKind, What};
use crate::device::storage_system::link::{Carrier, Link};

/// SCSI status BUSY.
const BUSY: u8 = 0x08;
/// SCSI status TASK SET FULL.
const TASK_SET_FULL: u8 = 0x28;

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
}

/// What a disk has to do for a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    disk: usize,
    disk_lba: Lba,
    offset: usize,
    length: usize,
    end: Instant,
}

/// A command and what is known of it.
#[derive(Debug)]
pub(super) struct Command {
    generation: u32,
    step: u32,
    pub(super) sequence: u64,
    pub(super) stage: Stage,
    pub(super) nexus: usize,
    tag: IoTag,
    kind: RequestKind,
    lba: Lba,
    bytes: usize,
    pub(super) request: Option<IoRequest>,
    pub(super) has_waiter: bool,
    /// Its end is told to the path by an event.
    settles: bool,
    is_counted: bool,
    /// When its first byte leaves the host.
    pub(super) leaves: Instant,
    pieces: Vec<Piece>,
    pieces_left: usize,
    failure: Option<(IoError, Effect, CopyFate)>,
}

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

fn copy_after_loss(kind: RequestKind) -> CopyFate {
    if kind == RequestKind::Write { CopyFate::MayLand } else { CopyFate::Dead }
}

impl Core {
    fn command(&mut self, index: u32) -> &mut Command {
        &mut self.commands[index as usize]
    }

    fn id(&self, index: u32) -> CommandId {
        CommandId { index, generation: self.commands[index as usize].generation }
    }

    /// A place in the table for a request.
    fn enter(&mut self, nexus: usize, request: IoRequest) -> u32 {
        let (kind, lba, bytes) = match &request.operation {
            Operation::Read { lba, buffer } => (RequestKind::Read, *lba, buffer.len()),
            Operation::Write { lba, data, .. } => (RequestKind::Write, *lba, data.len()),
            Operation::Flush => (RequestKind::Flush, Lba(0), 0),
        };
        let index = self.free.pop().unwrap_or_else(|| {
            let index = u32::try_from(self.commands.len()).expect("fewer commands than 2³²");
            self.commands.push(Command {
                generation: 0,
                step: 0,
                sequence: 0,
                stage: Stage::Free,
                nexus,
                tag: IoTag(0),
                kind,
                lba,
                bytes,
                request: None,
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
        command.tag = request.tag;
        (command.kind, command.lba, command.bytes) = (kind, lba, bytes);
        command.request = Some(request);
        command.has_waiter = true;
        index
    }

    /// Takes a command out of the table.
    pub(super) fn free(&mut self, index: u32) {
        let command = &mut self.commands[index as usize];
        command.generation = command.generation.wrapping_add(1);
        command.stage = Stage::Free;
        command.request = None;
        command.settles = false;
        command.failure = None;
        command.pieces.clear();
        if std::mem::take(&mut command.is_counted) {
            self.ports[self.nexuses[command.nexus].port].outstanding -= 1;
        }
        self.free.push(index);
    }

    /// Puts a command off until `at`, in this stage.
    fn put_off(&mut self, index: u32, stage: Stage, at: Instant) {
        let command = self.command(index);
        command.stage = stage;
        command.step = command.step.wrapping_add(1);
        let step = command.step;
        let command = self.id(index);
        self.wake(at, Due::Step { command, step });
    }

    /// A request that a path has accepted.
    pub(super) fn begin(&mut self, nexus: usize, request: IoRequest) {
        let now = self.now;
        let tag = request.tag;
        let index = self.enter(nexus, request);
        let command = &self.commands[index as usize];
        let bytes = command.bytes;
        let what = What::Submitted { kind: command.kind, lba: command.lba, bytes };
        self.note(nexus, tag, what);
        let path = &mut self.nexuses[nexus];
        path.in_flight.insert(tag, index);
        let port = path.port;
        if path.link.carrier != Carrier::Up || self.ports[port].link.carrier != Carrier::Up {
            let lost = ErrorSource::ConnectionLost { sent: false };
            return self.finish(index, Err(lost.into()), Effect::None, CopyFate::Dead);
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

    pub(super) fn handle_step(&mut self, id: CommandId, step: u32) {
        let command = &self.commands[id.index as usize];
        if command.generation != id.generation || command.step != step {
            return;
        }
        match command.stage {
            Stage::OnLink => self.arrive(id.index),
            Stage::Parked | Stage::Forwarding => self.dispatch(id.index),
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
            Stage::Free | Stage::OnLink | Stage::Parked | Stage::Forwarding | Stage::AtDisks => {}
        }
    }

    /// A command has come to its port.
    fn arrive(&mut self, index: u32) {
        if self.hold_if_hung(index, Stage::Held) {
            return;
        }
        let Command { nexus, kind, has_waiter, tag, .. } = self.commands[index as usize];
        if has_waiter {
            if !self.admit(index) {
                return;
            }
            if self.nexuses[nexus].attention {
                self.nexuses[nexus].attention = false;
                self.note(nexus, tag, What::Attention);
                self.refuse(index, access_state::state_changed());
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
    fn admit(&mut self, index: u32) -> bool {
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
    fn pass_faults(&mut self, index: u32, is_write: bool) -> bool {
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

    /// Keeps a command in the port until `until`; then it goes to the disks, come what may.
    fn park(&mut self, index: u32, until: Instant) {
        let Command { nexus, tag, .. } = self.commands[index as usize];
        self.note(nexus, tag, What::Parked { until });
        self.put_off(index, Stage::Parked, until);
    }

    /// Ends a command that was not executed, with a status of the target.
    fn refuse(&mut self, index: u32, status: ErrorSource) {
        if self.commands[index as usize].has_waiter {
            self.finish(index, Err(status.into()), Effect::None, CopyFate::Dead);
        } else {
            self.discard(index);
        }
    }

    /// Drops a command that nobody waits for.
    fn discard(&mut self, index: u32) {
        let Command { nexus, tag, .. } = self.commands[index as usize];
        self.note(nexus, tag, What::Dropped);
        self.settle(index);
        self.free(index);
    }

    /// Sends the pieces of a command to their disks.
    fn dispatch(&mut self, index: u32) {
        let now = self.now;
        let Command { nexus, kind, lba, bytes, .. } = self.commands[index as usize];
        let volume = &self.volumes[self.nexuses[nexus].volume];
        let mut pieces = std::mem::take(&mut self.commands[index as usize].pieces);
        let mut put = |disk: usize, disk_lba, offset, length| {
            let end = self.disks[disk].1.serve(now, length);
            pieces.push(Piece { disk, disk_lba: Lba(disk_lba), offset, length, end });
        };
        if kind == RequestKind::Flush {
            volume.disks.iter().for_each(|disk| put(*disk, 0, 0, 0));
        } else {
            let size = self.block_size.bytes();
            let in_bytes = |blocks| usize::try_from(blocks).expect("a transfer fits in memory") * size;
            for run in volume.layout.runs(lba, BlockCount((bytes / size) as u64)) {
                put(run.disk, run.disk_lba, in_bytes(run.logical - lba.0), in_bytes(run.count));
            }
        }
        let count = pieces.len();
        let command = self.command(index);
        command.pieces = pieces;
        command.pieces_left = count;
        command.stage = Stage::AtDisks;
        for piece in 0..count {
            let end = self.commands[index as usize].pieces[piece].end;
            let piece = u32::try_from(piece).expect("fewer pieces than blocks of a transfer");
            if end > now {
                self.wake(end, Due::Served { index, piece });
            } else {
                self.handle_served(index, piece);
            }
        }
    }

    /// A disk has served a piece: its bytes move.
    pub(super) fn handle_served(&mut self, index: u32, piece: u32) {
        let block = self.block_size.bytes();
        let command = &mut self.commands[index as usize];
        let Piece { disk, disk_lba, offset, length, .. } = command.pieces[piece as usize];
        let Some(request) = &mut command.request else { return self.piece_done(index) };
        let range = offset..offset + length;
        match &mut self.disks[disk].1.medium {
            Medium::Memory(memory) => {
                let start = usize::try_from(disk_lba.0).expect("memory is addressed") * block;
                match &mut request.operation {
                    Operation::Read { buffer, .. } => {
                        memory
                            .with_bytes(|bytes| buffer[range].copy_from_slice(&bytes[start..start + length]));
                    }
                    Operation::Write { data, .. } => {
                        memory.with_bytes(|bytes| bytes[start..start + length].copy_from_slice(&data[range]));
                    }
                    Operation::Flush => {}
                }
                self.landed(index, piece);
                self.piece_done(index);
            }
            Medium::Device { .. } => {
                let tag = IoTag(u64::from(index) << 32 | u64::from(piece));
                let request = match &request.operation {
                    Operation::Read { .. } => IoRequest::read(tag, disk_lba, self.pool.take(length)),
                    Operation::Write { data, fua, .. } => {
                        let mut part = self.pool.take(length);
                        part.copy_from_slice(&data[range]);
                        IoRequest::write(tag, disk_lba, part.freeze(), *fua)
                    }
                    Operation::Flush => IoRequest::flush(tag),
                };
                self.submit_to_device(disk, request);
                self.drain_device(disk);
            }
        }
    }

    fn landed(&mut self, index: u32, piece: u32) {
        let Command { nexus, tag, kind, lba, has_waiter, ref pieces, .. } = self.commands[index as usize];
        if kind != RequestKind::Write {
            return;
        }
        let Piece { offset, length, .. } = pieces[piece as usize];
        let lba = Lba(lba.0 + (offset / self.block_size.bytes()) as u64);
        self.note(nexus, tag, What::Landed { lba, bytes: length, is_ghost: !has_waiter });
    }

    fn submit_to_device(&mut self, disk: usize, request: IoRequest) {
        let Medium::Device { device, stalled, outstanding, .. } = &mut self.disks[disk].1.medium else {
            return;
        };
        let Err(Refused { reason, request }) = device.submit(self.now, request) else {
            *outstanding += 1;
            return;
        };
        let code = match reason {
            RefusalReason::Busy => return stalled.push_back(request),
            RefusalReason::Invalid | RefusalReason::DuplicateTag => libc::EINVAL,
            RefusalReason::Closed => libc::ENODEV,
        };
        let done = request.complete(Err(IoError::errno(code)), Effect::None, CopyFate::Dead);
        self.handle_device_completion(done);
    }

    pub(super) fn drain_devices(&mut self) {
        for disk in 0..self.disks.len() {
            self.drain_device(disk);
        }
    }

    fn drain_device(&mut self, disk: usize) {
        loop {
            let Medium::Device { device, stalled, outstanding, is_dry } = &mut self.disks[disk].1.medium
            else {
                return;
            };
            if *outstanding == 0 && *is_dry {
                return;
            }
            let Some(done) = device.poll(self.now) else {
                while device.poll_event(self.now).is_some() {}
                *is_dry = true;
                return;
            };
            *outstanding -= 1;
            *is_dry = false;
            let next = stalled.pop_front();
            self.handle_device_completion(done);
            if let Some(request) = next {
                self.submit_to_device(disk, request);
            }
        }
    }

    fn handle_device_completion(&mut self, done: IoCompletion) {
        let index = u32::try_from(done.tag.0 >> 32).expect("32 bits");
        let piece = u32::try_from(done.tag.0 & u64::from(u32::MAX)).expect("32 bits");
        let command = &mut self.commands[index as usize];
        let Piece { offset, length, .. } = command.pieces[piece as usize];
        match done.outcome {
            Ok(()) => {
                if let Some(IoRequest { operation: Operation::Read { buffer, .. }, .. }) =
                    &mut command.request
                    && let IoBuffer::Read(part) = &done.buffer
                {
                    buffer[offset..offset + length].copy_from_slice(part);
                }
                self.landed(index, piece);
            }
            Err(error) => {
                let (_, effect, copy) = command.failure.unwrap_or((error, done.effect, done.copy));
                // Some pieces done and some not is an effect that nobody knows.
                let is_alone = command.pieces.len() == 1;
                let effect = if is_alone { effect } else { Effect::Unknown };
                let may_land = copy == CopyFate::MayLand || done.copy == CopyFate::MayLand;
                let copy = if may_land { CopyFate::MayLand } else { CopyFate::Dead };
                command.failure = Some((error, effect, copy));
            }
        }
        self.piece_done(index);
    }

    fn piece_done(&mut self, index: u32) {
        let command = self.command(index);
        command.pieces_left -= 1;
        if command.pieces_left == 0 {
            self.answer(index);
        }
    }

    /// All disks are done.
    fn answer(&mut self, index: u32) {
        let Command { has_waiter, failure, .. } = self.commands[index as usize];
        if !has_waiter {
            self.settle(index);
            return self.free(index);
        }
        if self.hold_if_hung(index, Stage::AnswerHeld) {
            return;
        }
        match failure {
            None => self.finish(index, Ok(()), Effect::Full, CopyFate::Dead),
            Some((error, effect, copy)) => self.finish(index, Err(error), effect, copy),
        }
    }

    /// Ends a command and gives the request back to its path.
    fn finish(&mut self, index: u32, outcome: Result<(), IoError>, effect: Effect, copy: CopyFate) {
        let command = self.command(index);
        let nexus = command.nexus;
        command.has_waiter = false;
        let request = command.request.take().expect("a request stays with its command until it ends");
        self.free(index);
        self.complete(nexus, request.complete(outcome, effect, copy));
    }

    fn complete(&mut self, nexus: usize, done: IoCompletion) {
        self.nexuses[nexus].in_flight.insert(done.tag, DONE);
        let error = done.outcome.as_ref().err().map(|error| error.source_code);
        self.note(nexus, done.tag, What::Completed { error });
        self.give(nexus, done);
    }

    /// Ends a request with an unknown outcome; a write goes on as a ghost.
    fn lose(&mut self, index: u32, error: IoError) {
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
        let goes_on = is_with_disks || (command.kind == RequestKind::Write && command.leaves <= now);
        if !goes_on {
            self.discard(index);
        }
    }

    /// Says that the copy of a lost write is dead, where the target proves it.
    fn settle(&mut self, index: u32) {
        let Command { nexus, tag, settles, .. } = self.commands[index as usize];
        if settles {
            self.note(nexus, tag, What::Settled);
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
            let Command { has_waiter, kind, .. } = self.commands[index as usize];
            if has_waiter {
                self.command(index).settles = matches!(cut, Cut::EndNexus) && kind == RequestKind::Write;
                self.lose(index, ErrorSource::ConnectionLost { sent: true }.into());
            }
            self.cut_ghost(index, cut);
        }
    }

    /// What a cut does to a command that nobody waits for any more.
    fn cut_ghost(&mut self, index: u32, cut: Cut) {
        let Command { stage, kind, nexus, .. } = self.commands[index as usize];
        let is_write = kind == RequestKind::Write;
        match (stage, cut) {
            (Stage::Free | Stage::AtDisks, _) => {}
            (Stage::Held | Stage::Parked | Stage::Forwarding, Cut::Down) if is_write => {}
            (Stage::AnswerHeld, _) => {
                self.settle(index);
                self.free(index);
            }
            (_, Cut::Reset { lands, delay }) if is_write => {
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
