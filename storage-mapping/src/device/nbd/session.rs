//! Requests and replies of one NBD device as a pure machine, over any way to move bytes.
//!
//! Where a request is, and what a lost connection makes of it:
//!
//! ```text
//! submit ─▶ queued ──(first byte)──▶ sending ──(last byte)──▶ sent ──(its reply)──▶ ready ─▶ completion
//!             │ lost: none, dead         └──────────┬───────────┘
//!             └ cancel: withdrawn                   lost: unknown; a write may land
//! ```
//!
//! Keeps true:
//!
//! * writes leave from the request's own bytes and reads arrive in its own buffer;
//! * a reply is taken only for a request of which the last byte was sent, by a cookie that is never used
//!   twice; anything else is a [`ProtocolError`], after which the connection is no longer to be read;
//! * one call moves a bounded number of pieces, however fast the other side is;
//! * a request keeps its place in the table until its completion is handed out.
//!
//! A server without a flush gets none, and one without FUA gets a flush behind each write that asks for it:
//! such a write completes after the flush. Not here: sockets, time, reconnecting.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};

use nix::errno::Errno;
use thiserror::Error;

use super::codec::{
    Command, REPLY_BYTES, REPLY_MAGIC, REQUEST_BYTES, ReplyHead, RequestHead, TransmissionFlags,
};
use crate::block::Geometry;
use crate::block::address::Lba;
use crate::block::request::{
    Cancelled, CopyFate, Effect, ErrorSource, IoCompletion, IoError, IoRequest, IoTag, Operation, Refused,
};
use crate::device::in_flight::InFlight;

/// Requests that leave with one call, at most.
const REQUESTS_PER_SEND: usize = 16;
/// Calls to move bytes in one direction, at most, before the caller gets a turn.
const CALLS_MAX: usize = 16;
/// Low bits of a cookie: the place in the table; above them a number that only grows.
const PLACE_BITS: u32 = 16;

/// What a server did that ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// Bytes that are no simple reply.
    #[error("a reply begins with {0:08x}h, which is not the mark of a simple reply")]
    Magic(u32),
    /// A reply to nothing that was asked.
    #[error("a reply with the cookie {0:016x}h, which no request that was sent has")]
    Cookie(u64),
}

/// Why a connection cannot go on.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The other side ended it.
    #[error("the server closed the connection")]
    Ended,
    /// The system.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The server.
    #[error("the server does not keep to the protocol: {0}")]
    Protocol(#[from] ProtocolError),
}

/// How far a request has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Queued,
    Sending,
    Sent,
    /// A read whose reply came and whose bytes are coming.
    Receiving,
    /// Its end is known; the completion waits to be handed out.
    Ready,
}

#[derive(Debug)]
struct Entry {
    request: IoRequest,
    state: State,
    cookie: u64,
    head: [u8; REQUEST_BYTES],
    /// A write that was answered; what is under way is the flush behind it.
    is_written: bool,
}

impl Entry {
    /// What is sent behind the head.
    fn payload(&self) -> &[u8] {
        match &self.request.operation {
            Operation::Write { data, .. } if !self.is_written => data,
            _ => &[],
        }
    }

    fn is_write(&self) -> bool {
        matches!(self.request.operation, Operation::Write { .. })
    }
}

/// What is known of a request that is over.
#[derive(Clone, Copy, Debug)]
struct Ending {
    outcome: Result<(), IoError>,
    effect: Effect,
    copy: CopyFate,
}

impl Ending {
    const DONE: Self = Self { outcome: Ok(()), effect: Effect::Full, copy: CopyFate::Dead };

    fn failed(source: ErrorSource, effect: Effect, copy: CopyFate) -> Self {
        Self { outcome: Err(source.into()), effect, copy }
    }
}

/// A payload that is being received.
#[derive(Clone, Copy, Debug)]
struct Incoming {
    place: usize,
    filled: usize,
}

/// The requests of one device and the state of both directions of its connection.
#[derive(Debug)]
pub struct Session {
    geometry: Geometry,
    flags: TransmissionFlags,
    requests: InFlight<Entry>,
    queue: VecDeque<usize>,
    /// Bytes of the first of the queue that have left.
    sent_of_first: usize,
    sequence: u64,
    reply: [u8; REPLY_BYTES],
    reply_filled: usize,
    incoming: Option<Incoming>,
    ready: VecDeque<(usize, Ending)>,
    replies: u64,
}

impl Session {
    /// No requests yet, for a server of these abilities.
    ///
    /// # Panics
    /// If the queue depth is above 65,536.
    #[must_use]
    pub fn new(geometry: Geometry, flags: TransmissionFlags) -> Self {
        assert!(geometry.queue_depth <= 1 << PLACE_BITS);
        Self {
            geometry,
            flags,
            requests: InFlight::new(geometry.queue_depth),
            queue: VecDeque::with_capacity(geometry.queue_depth),
            sent_of_first: 0,
            sequence: 0,
            reply: [0; REPLY_BYTES],
            reply_filled: 0,
            incoming: None,
            ready: VecDeque::with_capacity(geometry.queue_depth),
            replies: 0,
        }
    }

    /// Block size, size and limits, as requests are held to them.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Replies that were understood, of all connections.
    #[must_use]
    pub fn replies(&self) -> u64 {
        self.replies
    }

    /// Whether a byte waits to be sent.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether a completion waits.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Requests without a completion that was handed out.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// Takes a request.
    ///
    /// # Errors
    /// [`Refused`], with the request.
    pub fn submit(&mut self, request: IoRequest) -> Result<(), Refused> {
        if let Some(reason) = self.requests.refusal(&self.geometry, &request) {
            return Err(Refused { reason, request });
        }
        let (tag, at_once) = (request.tag, self.answer_without_asking(&request.operation));
        let head = [0; REQUEST_BYTES];
        let entry = Entry { request, state: State::Queued, cookie: 0, head, is_written: false };
        let place = self.requests.insert(tag, entry);
        match at_once {
            Some(ending) => self.end(place, ending),
            None => self.enqueue(place),
        }
        Ok(())
    }

    /// What has an answer that no server has to give.
    fn answer_without_asking(&self, operation: &Operation) -> Option<Ending> {
        match operation {
            Operation::Write { .. } if self.flags.contains(TransmissionFlags::READ_ONLY) => {
                let error = ErrorSource::Errno(Errno::EROFS as i32);
                Some(Ending::failed(error, Effect::None, CopyFate::Dead))
            }
            Operation::Flush if !self.flags.contains(TransmissionFlags::SEND_FLUSH) => Some(Ending::DONE),
            _ => None,
        }
    }

    /// Gives a request its next head and a place in the queue.
    fn enqueue(&mut self, place: usize) {
        self.sequence += 1;
        let cookie = (self.sequence << PLACE_BITS) | place as u64;
        let can_fua = self.flags.contains(TransmissionFlags::SEND_FUA);
        let block_size = self.geometry.block_size;
        let offset = |lba: Lba| lba.byte_offset(block_size).expect("checked at submit");
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("below the transfer limit");
        let entry = self.requests.entry(place).expect("queued requests are in the table");
        let flush = RequestHead { command: Command::Flush, fua: false, cookie, offset: 0, length: 0 };
        let head = match &entry.request.operation {
            Operation::Read { lba, buffer } => {
                let (offset, length) = (offset(*lba), length(buffer));
                RequestHead { command: Command::Read, offset, length, ..flush }
            }
            Operation::Write { lba, data, fua } if !entry.is_written => {
                let (offset, length) = (offset(*lba), length(data));
                RequestHead { command: Command::Write, fua: *fua && can_fua, offset, length, ..flush }
            }
            Operation::Write { .. } | Operation::Flush => flush,
        };
        (entry.cookie, entry.head, entry.state) = (cookie, head.bytes(), State::Queued);
        self.queue.push_back(place);
    }

    fn end(&mut self, place: usize, ending: Ending) {
        self.requests.entry(place).expect("requests end once").state = State::Ready;
        self.ready.push_back((place, ending));
    }

    /// Withdraws a request of which no byte has left.
    pub fn cancel(&mut self, tag: IoTag) -> Cancelled {
        let Some(place) = self.requests.find(tag) else { return Cancelled::NotHere };
        let entry = self.requests.entry(place).expect("found just now");
        // A write that waits for its flush has left.
        if entry.state != State::Queued || entry.is_written {
            return Cancelled::Requested;
        }
        self.queue.retain(|queued| *queued != place);
        self.requests.remove(place).map_or(Cancelled::NotHere, |entry| Cancelled::Withdrawn(entry.request))
    }

    /// Hands out one completion.
    pub fn take_ready(&mut self) -> Option<IoCompletion> {
        let (place, ending) = self.ready.pop_front()?;
        let entry = self.requests.remove(place).expect("a request completes once");
        Some(entry.request.complete(ending.outcome, ending.effect, ending.copy))
    }

    /// Sends what is queued, until `write` has no more room; whether there was no more room.
    ///
    /// # Errors
    /// [`SessionError::Io`] of `write`, other than "would block" and "interrupted".
    pub fn send(
        &mut self,
        write: &mut dyn FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> Result<bool, SessionError> {
        for _ in 0..CALLS_MAX {
            if self.queue.is_empty() {
                break;
            }
            let mut pieces = [IoSlice::new(&[]); 2 * REQUESTS_PER_SEND];
            let mut skipped = self.sent_of_first;
            for (pair, place) in pieces.chunks_exact_mut(2).zip(&self.queue) {
                let entry = self.requests.get(*place).expect("queued requests are in the table");
                let (head, payload) = (&entry.head[..], entry.payload());
                pair[0] = IoSlice::new(&head[skipped.min(REQUEST_BYTES)..]);
                pair[1] = IoSlice::new(&payload[skipped.saturating_sub(REQUEST_BYTES)..]);
                skipped = 0;
            }
            let count = 2 * self.queue.len().min(REQUESTS_PER_SEND);
            match write(&pieces[..count]) {
                Ok(sent) => self.account_for(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    /// Marks what has left.
    fn account_for(&mut self, mut sent: usize) {
        while sent > 0 {
            let place = *self.queue.front().expect("no more is sent than is there");
            let entry = self.requests.entry(place).expect("queued requests are in the table");
            let left = REQUEST_BYTES + entry.payload().len() - self.sent_of_first;
            if sent < left {
                entry.state = State::Sending;
                self.sent_of_first += sent;
                return;
            }
            entry.state = State::Sent;
            self.queue.pop_front();
            self.sent_of_first = 0;
            sent -= left;
        }
    }

    /// Receives what has come, until `read` has no more; whether it had no more.
    ///
    /// # Errors
    /// [`SessionError`]; the connection is to be given up then, and [`lose`](Self::lose) says so to each
    /// request.
    pub fn receive(
        &mut self,
        read: &mut dyn FnMut(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> Result<bool, SessionError> {
        for _ in 0..CALLS_MAX {
            let (result, room) = self.read_once(read);
            match result {
                Ok(0) => return Err(SessionError::Ended),
                Ok(count) => {
                    self.take_in(count)?;
                    // Less than there was room for: nothing is left.
                    if count < room {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    /// Reads into the rest of a payload and the next head at once; also how many bytes there was room for.
    fn read_once(
        &mut self,
        read: &mut dyn FnMut(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> (io::Result<usize>, usize) {
        let head = &mut self.reply[self.reply_filled..];
        let Some(incoming) = self.incoming else {
            let room = head.len();
            return (read(&mut [IoSliceMut::new(head)]), room);
        };
        let rest = &mut buffer_of(&mut self.requests, incoming.place)[incoming.filled..];
        let room = rest.len() + head.len();
        (read(&mut [IoSliceMut::new(rest), IoSliceMut::new(head)]), room)
    }

    /// Understands `count` bytes that were read where `read_once` put them.
    fn take_in(&mut self, count: usize) -> Result<(), ProtocolError> {
        let mut count = count;
        if let Some(Incoming { place, filled }) = self.incoming {
            let left = buffer_of(&mut self.requests, place).len() - filled;
            if count < left {
                self.incoming = Some(Incoming { place, filled: filled + count });
                return Ok(());
            }
            count -= left;
            self.incoming = None;
            self.end(place, Ending::DONE);
        }
        self.reply_filled += count;
        if self.reply_filled < REPLY_BYTES {
            return Ok(());
        }
        self.reply_filled = 0;
        self.handle_reply(ReplyHead::of(&self.reply))
    }

    fn handle_reply(&mut self, reply: ReplyHead) -> Result<(), ProtocolError> {
        if reply.magic != REPLY_MAGIC {
            return Err(ProtocolError::Magic(reply.magic));
        }
        let place = (reply.cookie & ((1 << PLACE_BITS) - 1)) as usize;
        let asked = self
            .requests
            .entry(place)
            .filter(|entry| entry.state == State::Sent && entry.cookie == reply.cookie);
        let Some(entry) = asked else { return Err(ProtocolError::Cookie(reply.cookie)) };
        self.replies += 1;
        let wants_flush = matches!(entry.request.operation, Operation::Write { fua: true, .. })
            && !entry.is_written
            && self.flags.contains(TransmissionFlags::SEND_FLUSH)
            && !self.flags.contains(TransmissionFlags::SEND_FUA);
        if reply.error != 0 {
            let effect = if entry.is_written { Effect::Unknown } else { effect_of(reply.error) };
            self.end(place, Ending::failed(ErrorSource::Nbd(reply.error), effect, CopyFate::Dead));
        } else if matches!(entry.request.operation, Operation::Read { .. }) {
            entry.state = State::Receiving;
            self.incoming = Some(Incoming { place, filled: 0 });
        } else if wants_flush {
            entry.is_written = true;
            self.enqueue(place);
        } else {
            self.end(place, Ending::DONE);
        }
        Ok(())
    }

    /// The connection is lost: each request ends with what is known of it, and the next connection begins
    /// anew.
    pub fn lose(&mut self) {
        for place in 0..self.geometry.queue_depth {
            let Some(entry) = self.requests.get(place) else { continue };
            let ending = match entry.state {
                State::Ready => continue,
                // It was answered; only whether it is durable is open.
                _ if entry.is_written => lost(true, Effect::Unknown, CopyFate::Dead),
                State::Queued => lost(false, Effect::None, CopyFate::Dead),
                State::Sending | State::Sent if entry.is_write() => {
                    lost(true, Effect::Unknown, CopyFate::MayLand)
                }
                State::Sending | State::Sent | State::Receiving => {
                    lost(true, Effect::Unknown, CopyFate::Dead)
                }
            };
            self.end(place, ending);
        }
        self.queue.clear();
        self.sent_of_first = 0;
        self.reply_filled = 0;
        self.incoming = None;
    }

    /// What says goodbye, where a goodbye would not stand in the middle of a request.
    #[must_use]
    pub fn farewell(&self) -> Option<[u8; REQUEST_BYTES]> {
        let head = RequestHead { command: Command::Disconnect, fua: false, cookie: 0, offset: 0, length: 0 };
        (self.sent_of_first == 0).then(|| head.bytes())
    }
}

fn lost(sent: bool, effect: Effect, copy: CopyFate) -> Ending {
    Ending::failed(ErrorSource::ConnectionLost { sent }, effect, copy)
}

fn buffer_of(requests: &mut InFlight<Entry>, place: usize) -> &mut [u8] {
    let entry = requests.entry(place).expect("a read stays in the table while it is answered");
    match &mut entry.request.operation {
        Operation::Read { buffer, .. } => buffer,
        Operation::Write { .. } | Operation::Flush => &mut [],
    }
}

/// Whether a server that answers with this error may have acted on the request.
fn effect_of(error: u32) -> Effect {
    const REFUSALS: [Errno; 4] = [Errno::EPERM, Errno::EINVAL, Errno::EOVERFLOW, Errno::EOPNOTSUPP];
    // The numbers of the wire are those of Linux. With these a server refuses before it does anything; with
    // any other a part of a large request may have been done.
    let is_refusal = REFUSALS.iter().any(|refusal| u32::try_from(*refusal as i32) == Ok(error));
    if is_refusal { Effect::None } else { Effect::Unknown }
}
