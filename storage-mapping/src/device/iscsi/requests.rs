//! What a device was asked for: blocks and control commands, from being taken to being handed back.
//!
//! ```text
//!  submit ─▶ queued ──(given to libiscsi)──▶ sent ──(answer, abort, loss)──▶ done ─▶ completion
//!              │ lost: none, dead              └ lost: unknown; a write or a control command may land
//!              └ cancel: withdrawn
//! ```
//!
//! Keeps true:
//!
//! * what libiscsi was given counts as sent, since it does not say which byte left; so it gets more only when it has
//!   sent all that it had;
//! * a status is the answer of the very command, so no copy of that is left;
//! * a request keeps its place until its completion is handed out.
//!
//! A unit that cannot make a write durable by itself gets SYNCHRONIZE CACHE behind each write that asks for it: such a
//! write completes after that. Not here: the link.

use std::collections::VecDeque;

use nix::errno::Errno;

use super::command::{self, outcome_of};
use super::ffi::{COMMAND_MAX_BYTES, Data, End, Ended, Session};
use crate::block::Geometry;
use crate::block::buffer::{Buffer, SharedBuffer};
use crate::block::request::{
    Cancelled, CopyFate, Effect, ErrorSource, IoBuffer, IoCompletion, IoError, IoRequest, IoTag, Operation,
    RefusalReason, Refused,
};
use crate::control_port::{
    CommandBytes, ControlCancelled, ControlCompletion, ControlReply, ControlRequest, TRANSFER_MAX_BYTES,
    Transfer,
};
use crate::device::in_flight::InFlight;

/// Control commands at once.
pub(super) const CONTROLS_MAX: usize = 16;

/// What a block request has with libiscsi.
#[derive(Debug)]
enum Sent {
    Read,
    Write {
        then_flush: bool,
    },
    Flush,
    /// Behind a write that was answered.
    FlushBehind(SharedBuffer),
}

#[derive(Debug)]
enum Entry {
    Queued(IoRequest),
    Sent(IoTag, Sent),
    Done(IoCompletion),
    /// Between two of the others.
    Moving,
}

#[derive(Debug)]
enum ControlEntry {
    Queued(ControlRequest),
    Sent(IoTag),
    Done(ControlCompletion),
    /// Between two of the others.
    Moving,
}

/// The requests of one device.
#[derive(Debug)]
pub(super) struct Requests {
    geometry: Geometry,
    /// Blocks of the unit that are one of ours.
    unit_blocks: u32,
    pub(super) has_fua: bool,
    /// At the places below the queue depth.
    blocks: InFlight<Entry>,
    /// At the places above it.
    controls: InFlight<ControlEntry>,
    /// Places.
    queue: VecDeque<usize>,
    ready: VecDeque<usize>,
    ready_controls: VecDeque<usize>,
    answers: u64,
}

impl Requests {
    pub(super) fn new(geometry: Geometry, unit_blocks: u32, has_fua: bool) -> Self {
        Self {
            geometry,
            unit_blocks,
            has_fua,
            blocks: InFlight::new(geometry.queue_depth),
            controls: InFlight::new(CONTROLS_MAX),
            queue: VecDeque::with_capacity(geometry.queue_depth + CONTROLS_MAX),
            ready: VecDeque::with_capacity(geometry.queue_depth),
            ready_controls: VecDeque::with_capacity(CONTROLS_MAX),
            answers: 0,
        }
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Answers of the target, of all sessions.
    pub(super) fn answers(&self) -> u64 {
        self.answers
    }

    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn has_ready_control(&self) -> bool {
        !self.ready_controls.is_empty()
    }

    pub(super) fn submit(&mut self, request: IoRequest) -> Result<(), Refused> {
        if let Some(reason) = self.blocks.refusal(&self.geometry, &request) {
            return Err(Refused { reason, request });
        }
        let place = self.blocks.insert(request.tag, Entry::Queued(request));
        self.queue.push_back(place);
        Ok(())
    }

    pub(super) fn submit_control(&mut self, request: ControlRequest) -> Result<(), RefusalReason> {
        let CommandBytes::Scsi(cdb) = request.command.bytes else { return Err(RefusalReason::Invalid) };
        let length = match &request.command.transfer {
            Transfer::None => 0,
            Transfer::In(length) => *length,
            Transfer::Out(bytes) => bytes.len(),
        };
        if cdb.bytes().len() > COMMAND_MAX_BYTES || length > TRANSFER_MAX_BYTES {
            return Err(RefusalReason::Invalid);
        }
        if self.controls.len() == CONTROLS_MAX {
            return Err(RefusalReason::Busy);
        }
        if self.controls.find(request.tag).is_some() {
            return Err(RefusalReason::DuplicateTag);
        }
        let place = self.controls.insert(request.tag, ControlEntry::Queued(request));
        self.queue.push_back(self.geometry.queue_depth + place);
        Ok(())
    }

    /// Withdraws a request that libiscsi was not given; else asks the target to abort it.
    pub(super) fn cancel(&mut self, tag: IoTag, session: Option<&mut Session>) -> Cancelled {
        let Some(place) = self.blocks.find(tag) else { return Cancelled::NotHere };
        match self.blocks.get(place) {
            Some(Entry::Queued(_)) => {
                self.queue.retain(|queued| *queued != place);
                match self.blocks.remove(place) {
                    Some(Entry::Queued(request)) => return Cancelled::Withdrawn(request),
                    _ => unreachable!("looked at just now"),
                }
            }
            Some(Entry::Sent(..)) => session.into_iter().for_each(|session| session.abort(place)),
            _ => {}
        }
        Cancelled::Requested
    }

    /// The same for a control command.
    pub(super) fn cancel_control(&mut self, tag: IoTag, session: Option<&mut Session>) -> ControlCancelled {
        let Some(index) = self.controls.find(tag) else { return ControlCancelled::NotHere };
        let place = self.geometry.queue_depth + index;
        match self.controls.get(index) {
            Some(ControlEntry::Queued(_)) => {
                self.queue.retain(|queued| *queued != place);
                self.controls.remove(index);
                return ControlCancelled::Withdrawn;
            }
            Some(ControlEntry::Sent(_)) => session.into_iter().for_each(|session| session.abort(place)),
            _ => {}
        }
        ControlCancelled::Requested
    }

    pub(super) fn take_ready(&mut self) -> Option<IoCompletion> {
        let place = self.ready.pop_front()?;
        match self.blocks.remove(place) {
            Some(Entry::Done(completion)) => Some(completion),
            _ => unreachable!("what is ready is done"),
        }
    }

    pub(super) fn take_ready_control(&mut self) -> Option<ControlCompletion> {
        let index = self.ready_controls.pop_front()?;
        match self.controls.remove(index) {
            Some(ControlEntry::Done(completion)) => Some(completion),
            _ => unreachable!("what is ready is done"),
        }
    }

    /// Gives libiscsi what is queued.
    pub(super) fn send(&mut self, session: &mut Session) {
        while let Some(place) = self.queue.pop_front() {
            match place.checked_sub(self.geometry.queue_depth) {
                None => self.send_block(place, session),
                Some(index) => self.send_control(index, session),
            }
        }
    }

    fn send_block(&mut self, place: usize, session: &mut Session) {
        let entry = self.blocks.entry(place).expect("queued requests are in the table");
        let Entry::Queued(request) = std::mem::replace(entry, Entry::Moving) else {
            unreachable!("what is in the queue is queued")
        };
        let tag = request.tag;
        let (cdb, data, sent) = match request.operation {
            Operation::Read { lba, buffer } => {
                let (lba, blocks) = self.extent(lba.0, buffer.len());
                (command::read(lba, blocks), Data::In(buffer), Sent::Read)
            }
            Operation::Write { lba, data, fua } => {
                let (lba, blocks) = self.extent(lba.0, data.len());
                let sent = Sent::Write { then_flush: fua && !self.has_fua };
                (command::write(lba, blocks, fua && self.has_fua), Data::Out(data), sent)
            }
            Operation::Flush => (command::SYNCHRONIZE_CACHE, Data::None, Sent::Flush),
        };
        match session.execute(place, &cdb, data) {
            Ok(()) => *self.block(place) = Entry::Sent(tag, sent),
            Err(data) => self.end_block(place, tag, not_sent(), data),
        }
    }

    /// Where a request lies, in blocks of the unit.
    fn extent(&self, lba: u64, length: usize) -> (u64, u32) {
        let blocks =
            u32::try_from(length / self.geometry.block_size.bytes()).expect("below the transfer limit");
        (lba * u64::from(self.unit_blocks), blocks * self.unit_blocks)
    }

    fn send_control(&mut self, index: usize, session: &mut Session) {
        let entry = self.controls.entry(index).expect("queued commands are in the table");
        let ControlEntry::Queued(request) = std::mem::replace(entry, ControlEntry::Moving) else {
            unreachable!("what is in the queue is queued")
        };
        let CommandBytes::Scsi(cdb) = request.command.bytes else { unreachable!("checked at submit") };
        let data = match request.command.transfer {
            Transfer::In(length) if length > 0 => Data::In(Buffer::zeroed(length)),
            Transfer::Out(bytes) if !bytes.is_empty() => Data::Out(Buffer::copy_of(&bytes).freeze()),
            Transfer::None | Transfer::In(_) | Transfer::Out(_) => Data::None,
        };
        match session.execute(self.geometry.queue_depth + index, cdb.bytes(), data) {
            Ok(()) => *self.control(index) = ControlEntry::Sent(request.tag),
            Err(_) => self.end_control(index, request.tag, Err(lost(false)), Effect::None, CopyFate::Dead),
        }
    }

    /// Takes what is over; says whether libiscsi was given more for it.
    pub(super) fn take_ended(&mut self, session: &mut Session) -> bool {
        let mut has_more = false;
        while let Some(ended) = session.take_ended() {
            has_more |= self.handle_ended(ended, Some(session));
        }
        has_more
    }

    /// The session is lost, with these commands.
    pub(super) fn lose(&mut self, commands: Vec<Ended>) {
        for ended in commands {
            self.handle_ended(ended, None);
        }
        while let Some(place) = self.queue.pop_front() {
            match place.checked_sub(self.geometry.queue_depth) {
                None => {
                    if let Entry::Queued(request) = std::mem::replace(self.block(place), Entry::Moving) {
                        let Ending { outcome, effect, copy } = not_sent();
                        *self.block(place) = Entry::Done(request.complete(outcome, effect, copy));
                        self.ready.push_back(place);
                    }
                }
                Some(index) => {
                    if let ControlEntry::Queued(request) =
                        std::mem::replace(self.control(index), ControlEntry::Moving)
                    {
                        self.end_control(index, request.tag, Err(lost(false)), Effect::None, CopyFate::Dead);
                    }
                }
            }
        }
    }

    fn block(&mut self, place: usize) -> &mut Entry {
        self.blocks.entry(place).expect("a request keeps its place until it is handed out")
    }

    fn control(&mut self, index: usize) -> &mut ControlEntry {
        self.controls.entry(index).expect("a command keeps its place until it is handed out")
    }

    fn handle_ended(&mut self, ended: Ended, session: Option<&mut Session>) -> bool {
        let Ended { place, end, data } = ended;
        self.answers += u64::from(matches!(end, End::Answered(_)));
        if let Some(index) = place.checked_sub(self.geometry.queue_depth) {
            self.handle_control_end(index, end, &data);
            return false;
        }
        let Entry::Sent(tag, sent) = std::mem::replace(self.block(place), Entry::Moving) else {
            unreachable!("what has ended was sent")
        };
        let (data, is_write) = match &sent {
            Sent::FlushBehind(written) => (Data::Out(written.clone()), true),
            Sent::Write { .. } => (data, true),
            Sent::Read | Sent::Flush => (data, false),
        };
        let is_answered = matches!(sent, Sent::FlushBehind(_));
        let ending = ending_of(&end, &data, is_write, is_answered);
        if matches!((&sent, &ending), (Sent::Write { then_flush: true }, Ending { outcome: Ok(()), .. }))
            && let (Some(session), Data::Out(written)) = (session, &data)
            && session.execute(place, &command::SYNCHRONIZE_CACHE, Data::None).is_ok()
        {
            *self.block(place) = Entry::Sent(tag, Sent::FlushBehind(written.clone()));
            return true;
        }
        let is_not_durable = matches!(sent, Sent::Write { then_flush: true }) && ending.outcome.is_ok();
        let ending = if is_not_durable { ending_of(&End::Lost, &data, true, true) } else { ending };
        self.end_block(place, tag, ending, data);
        false
    }

    fn end_block(&mut self, place: usize, tag: IoTag, ending: Ending, data: Data) {
        let buffer = match data {
            Data::None => IoBuffer::None,
            Data::In(buffer) => IoBuffer::Read(buffer),
            Data::Out(data) => IoBuffer::Write(data),
        };
        let Ending { outcome, effect, copy } = ending;
        *self.block(place) = Entry::Done(IoCompletion { tag, outcome, effect, copy, buffer });
        self.ready.push_back(place);
    }

    fn handle_control_end(&mut self, index: usize, end: End, data: &Data) {
        let ControlEntry::Sent(tag) = std::mem::replace(self.control(index), ControlEntry::Moving) else {
            unreachable!("what has ended was sent")
        };
        match end {
            End::Answered(answer) => {
                let data = match data {
                    Data::In(buffer) => buffer[..buffer.len() - answer.missing].to_vec(),
                    Data::None | Data::Out(_) => Vec::new(),
                };
                let reply = ControlReply::Scsi { status: answer.status, sense: answer.sense, data };
                self.end_control(index, tag, Ok(reply), Effect::Full, CopyFate::Dead);
            }
            End::Aborted => self.end_control(index, tag, Err(aborted()), Effect::Unknown, CopyFate::Dead),
            End::Lost => self.end_control(index, tag, Err(lost(true)), Effect::Unknown, CopyFate::MayLand),
        }
    }

    fn end_control(
        &mut self,
        index: usize,
        tag: IoTag,
        outcome: Result<ControlReply, IoError>,
        effect: Effect,
        copy: CopyFate,
    ) {
        *self.control(index) = ControlEntry::Done(ControlCompletion { tag, outcome, effect, copy });
        self.ready_controls.push_back(index);
    }
}

/// What is known of a block request that is over.
#[derive(Clone, Copy, Debug)]
struct Ending {
    outcome: Result<(), IoError>,
    effect: Effect,
    copy: CopyFate,
}

fn not_sent() -> Ending {
    Ending { outcome: Err(lost(false)), effect: Effect::None, copy: CopyFate::Dead }
}

/// `is_answered`: it is a write that was answered, and only its flush ended so.
fn ending_of(end: &End, data: &Data, is_write: bool, is_answered: bool) -> Ending {
    let length = match data {
        Data::None => 0,
        Data::In(buffer) => buffer.len(),
        Data::Out(data) => data.len(),
    };
    let unknown = |error, copy| Ending { outcome: Err(error), effect: Effect::Unknown, copy };
    match end {
        End::Answered(answer) => match outcome_of(answer, length) {
            Ok(()) => Ending { outcome: Ok(()), effect: Effect::Full, copy: CopyFate::Dead },
            Err(error) => unknown(error.into(), CopyFate::Dead),
        },
        End::Aborted => unknown(aborted(), CopyFate::Dead),
        End::Lost if is_write && !is_answered => unknown(lost(true), CopyFate::MayLand),
        End::Lost => unknown(lost(true), CopyFate::Dead),
    }
}

fn lost(sent: bool) -> IoError {
    ErrorSource::ConnectionLost { sent }.into()
}

/// The target dropped it because we asked for that.
fn aborted() -> IoError {
    IoError::errno(Errno::ECANCELED as i32)
}
