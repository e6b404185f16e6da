//! The sending half of a job: walks sources, announces, loads, and permits publication.
//!
//! ```text
//!  small   Loading ──────────────────────────► Sent ─READY─► Checking ─► Permitted ─► last word
//!  large   Asked ─ACCEPT─► Hashing ─► Sending ──▲
//!  any state but Permitted ──failure──► Aborting ─ABORTED─► last word
//! ```
//!
//! | state     | what is true                                                                     |
//! |-----------|----------------------------------------------------------------------------------|
//! | Loading   | in a pack that is being read; the peer knows nothing of it                       |
//! | Asked     | REQUEST said, no ACCEPT yet                                                      |
//! | Hashing   | the peer has a prefix; ours is being hashed                                      |
//! | Sending   | segments are loaded in order; `next` is the first byte not asked for             |
//! | Sent      | all bytes and the root were said                                                 |
//! | Checking  | READY came; the source is compared and the permit journalled                     |
//! | Permitted | PERMIT was said: only the peer's word ends this                                  |
//! | Aborting  | ABORT was said before any PERMIT                                                 |
//!
//! What holds: PERMIT is never said before the permit is durable (push); a permit stays recorded until
//! COMMITTED or ABORTED comes, whatever is refused meanwhile; data leaves in the order in which it was
//! asked for; at most `payloads_max` payloads are in hand. Not here: what the receiver does
//! (`receiver`), the job around it (`session`).

mod loaded;

use super::code::ErrorCode;
use super::job::{ProtocolViolation, SessionConfig};
use super::message::{CommittedItem, Message, Reason, Request, RootItem};
use super::name::RelativePath;
use super::outbox::{FILES_OPEN_MAX, LARGE_OPEN_MAX, MESSAGES_WAITING_MAX, Outbox, Purpose};
use super::root::{Root, RootBuilder, SegmentHash};
use super::store::{
    Attributes, DirectoryItem, LinkItem, LocalWork, SourceFile, TransferId, WalkEntry, WalkItem,
};
use crate::payload::{Payload, Segment, SegmentKind};
use std::collections::BTreeMap;
use std::collections::{BTreeSet, VecDeque};

/// Small files in one pack, at most.
const PACK_FILES_MAX: usize = 256;
/// Bytes before each file of a pack.
pub(crate) const PACK_ITEM_BYTES: usize = 8;
/// Walked entries that wait, below which the walk goes on.
const FOUND_MIN: usize = 1024;
/// A file goes through at most so many transfer ids in one run.
const ROUNDS_MAX: u32 = 32;
/// Segments hashed by one request.
pub(crate) const PREFIX_SEGMENTS: u64 = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Aborting,
    Asked,
    Checking,
    Hashing,
    Loading,
    Permitted,
    Sending,
    Sent,
}

/// A file that was found and not announced yet.
#[derive(Debug)]
struct Found {
    entry: WalkEntry,
    round: u32,
    /// A retry after a root mismatch: there is no second one.
    mismatched: bool,
}

/// A file between REQUEST and its last word.
#[derive(Debug)]
struct Outgoing {
    found: Found,
    source: SourceFile,
    attributes: Attributes,
    id: TransferId,
    state: State,
    large: bool,
    size: Option<u64>,
    /// First byte that was not asked of the store.
    next: u64,
    /// Bytes sent, or hashed instead.
    sent: u64,
    /// Where sending began.
    resume: u64,
    builder: RootBuilder,
    root: Option<Root>,
    reason: Option<Reason>,
}

/// A load in order of leaving.
#[derive(Debug)]
struct Slot {
    local: u64,
    load: Load,
}

#[derive(Debug)]
enum Load {
    Pack { files: Vec<u32>, ready: Option<Payload>, announced: bool },
    Segment { index: u32, offset: u64, ready: Option<(Payload, SegmentHash, bool)> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Walk {
    Ended,
    Open,
    Out,
}

/// The sending half of a job.
#[derive(Debug)]
pub(crate) struct Sender {
    segment: u64,
    pub(super) payloads_max: usize,
    nonce: [u8; 16],
    permitted: BTreeSet<TransferId>,
    /// No packs: the other end is a stream.
    ordered: bool,
    /// The source is a stream.
    stream: bool,
    /// The stream is being read, or at its end.
    reading: bool,
    walk: Walk,
    found: VecDeque<Found>,
    group: Vec<u32>,
    group_bytes: u64,
    next_index: u32,
    files: BTreeMap<u32, Outgoing>,
    sending: VecDeque<u32>,
    large: usize,
    pipeline: VecDeque<Slot>,
    settled: Vec<TransferId>,
    flushed: bool,
    ended: bool,
    stopping: bool,
}

impl Sender {
    pub(crate) fn new(
        config: &SessionConfig,
        nonce: [u8; 16],
        permitted: BTreeSet<TransferId>,
        ordered: bool,
        stream: bool,
    ) -> Self {
        Self {
            segment: config.segment_bytes as u64,
            payloads_max: config.payloads_max,
            nonce,
            permitted,
            ordered,
            stream,
            reading: false,
            walk: Walk::Open,
            found: VecDeque::new(),
            group: Vec::new(),
            group_bytes: 0,
            next_index: 0,
            files: BTreeMap::new(),
            sending: VecDeque::new(),
            large: 0,
            pipeline: VecDeque::new(),
            settled: Vec::new(),
            flushed: false,
            ended: false,
            stopping: false,
        }
    }

    /// Every file has its last word and the walk is over.
    fn all_settled(&self) -> bool {
        self.walk == Walk::Ended && self.found.is_empty() && self.files.is_empty() && self.pipeline.is_empty()
    }

    /// After an interrupt: nothing is left whose word is awaited.
    pub(crate) fn stopped(&self) -> bool {
        self.stopping
            && !self
                .files
                .values()
                .any(|f| matches!(f.state, State::Permitted | State::Checking | State::Aborting))
    }

    /// Files whose permit was said and whose word has not come.
    pub(crate) fn in_doubt(&self) -> u64 {
        self.files.values().filter(|file| file.state == State::Permitted).count() as u64
    }

    // ---- doing what can be done -----------------------------------------------------------------

    /// Starts whatever can be started.
    pub(crate) fn pump(&mut self, out: &mut Outbox) {
        if self.stopping || self.ended {
            return;
        }
        if self.walk == Walk::Open && self.found.len() < FOUND_MIN {
            self.walk = Walk::Out;
            out.ask(Purpose::Walk, LocalWork::Walk);
        }
        self.load_segments(out);
        while out.messages_waiting() < MESSAGES_WAITING_MAX && self.announce_next(out) {}
        if self.found.is_empty() && (self.walk == Walk::Ended || self.pipeline.is_empty()) {
            self.load_group(out);
        }
        self.load_segments(out);
        let all_said = self.walk == Walk::Ended && self.found.is_empty() && self.pipeline.is_empty();
        let moving =
            |f: &Outgoing| matches!(f.state, State::Loading | State::Asked | State::Hashing | State::Sending);
        if all_said && !self.flushed && !self.files.values().any(moving) {
            self.flushed = true;
            out.say(0, Message::FlushBatch);
        }
        if self.all_settled() {
            self.ended = true;
            out.say(0, Message::EndOfJob);
        }
    }

    fn load_segments(&mut self, out: &mut Outbox) {
        while self.pipeline.len() < self.payloads_max {
            let Some(&index) = self.sending.front() else { return };
            let Some(file) = self.files.get_mut(&index).filter(|file| file.state == State::Sending) else {
                self.sending.pop_front();
                continue;
            };
            let (offset, work) = match file.size {
                Some(size) if file.next >= size => {
                    self.sending.pop_front();
                    continue;
                }
                Some(size) => {
                    let (offset, length) = (file.next, self.segment.min(size - file.next));
                    file.next += length;
                    let length = usize::try_from(length).expect("a segment fits memory");
                    (offset, LocalWork::LoadSegment { file: file.source.clone(), offset, length })
                }
                // A stream is read by one request at a time, since it tells its own end.
                None if self.reading => return,
                None => {
                    let offset = file.next;
                    self.reading = true;
                    file.next += self.segment;
                    (offset, LocalWork::ReadStream { offset })
                }
            };
            let local = out.ask(Purpose::Load, work);
            self.pipeline.push_back(Slot { local, load: Load::Segment { index, offset, ready: None } });
        }
    }

    /// Takes one found entry; `false` if there is none or it has to wait.
    fn announce_next(&mut self, out: &mut Outbox) -> bool {
        let Some(found) = self.found.front() else { return false };
        if let WalkItem::File(identity, _) = &found.entry.item {
            let small = !self.ordered && identity.size + PACK_ITEM_BYTES as u64 <= self.segment;
            if self.files.len() >= FILES_OPEN_MAX || !small && self.large >= LARGE_OPEN_MAX {
                return false;
            }
            let needed = identity.size + PACK_ITEM_BYTES as u64;
            if small && (self.group.len() == PACK_FILES_MAX || self.group_bytes + needed > self.segment) {
                self.load_group(out);
                if !self.group.is_empty() {
                    return false;
                }
            }
            let found = self.found.pop_front().expect("it was looked at");
            self.open_file(found, small, out);
            return true;
        }
        let entry = self.found.pop_front().expect("it was looked at").entry;
        let path = entry.announced;
        match entry.item {
            WalkItem::Directory(attributes) => {
                out.say(0, Message::Directory(DirectoryItem { path, attributes }))
            }
            WalkItem::Link(attributes, target) => {
                out.say(0, Message::Link(LinkItem { path, attributes, target }))
            }
            WalkItem::Failed(error) => leave_out(out, path, error, false),
            WalkItem::Skipped(error) => leave_out(out, path, error, true),
            WalkItem::File(..) => {}
        }
        true
    }

    fn open_file(&mut self, found: Found, small: bool, out: &mut Outbox) {
        let WalkItem::File(identity, attributes) = found.entry.item else { return };
        let index = self.next_index;
        self.next_index += 1;
        let path = &found.entry.announced;
        let source =
            SourceFile { index, source: found.entry.source, path: found.entry.path.clone(), identity };
        let id = TransferId::derive(&self.nonce, found.round, path, &identity);
        let size = if self.stream { None } else { Some(identity.size) };
        if found.round == 0 {
            out.tally.announce(identity.size);
        }
        self.flushed = false;
        if small {
            self.group.push(index);
            self.group_bytes += identity.size + PACK_ITEM_BYTES as u64;
        } else {
            self.large += 1;
            let (path, permitted) = (path.clone(), self.permitted.contains(&id));
            let request = Request { id, permitted, packed: false, size, attributes, root: None, path };
            out.say(u64::from(index), Message::Request(request));
        }
        let state = if small { State::Loading } else { State::Asked };
        let (builder, root, reason) = (RootBuilder::new(), None, None);
        let (next, sent, resume, large) = (0, 0, 0, !small);
        let file = Outgoing {
            found,
            source,
            attributes,
            id,
            state,
            large,
            size,
            next,
            sent,
            resume,
            builder,
            root,
            reason,
        };
        self.files.insert(index, file);
    }

    fn load_group(&mut self, out: &mut Outbox) {
        if self.group.is_empty() || self.pipeline.len() >= self.payloads_max {
            return;
        }
        let files = std::mem::take(&mut self.group);
        self.group_bytes = 0;
        let sources = files.iter().map(|index| self.files[index].source.clone()).collect();
        let local = out.ask(Purpose::Load, LocalWork::LoadPack(sources));
        self.pipeline.push_back(Slot { local, load: Load::Pack { files, ready: None, announced: false } });
    }

    // ---- leaving --------------------------------------------------------------------------------

    /// The next segment of data, if the one whose turn it is has been loaded. May queue messages that
    /// have to go before it instead.
    pub(crate) fn poll_data(&mut self, out: &mut Outbox) -> Option<Segment> {
        loop {
            let slot = self.pipeline.front_mut()?;
            match &mut slot.load {
                Load::Pack { ready: None, .. } | Load::Segment { ready: None, .. } => return None,
                Load::Pack { files, announced: announced @ false, .. } => {
                    *announced = true;
                    let files = files.clone();
                    if self.announce_pack(&files, out) {
                        return None;
                    }
                    self.pipeline.pop_front();
                }
                Load::Pack { .. } | Load::Segment { .. } => {
                    let slot = self.pipeline.pop_front()?;
                    if let Some(segment) = self.leave(slot, out) {
                        return Some(segment);
                    }
                }
            }
        }
    }

    /// Says the REQUESTs of a pack; `false` if no file of it is left.
    fn announce_pack(&mut self, files: &[u32], out: &mut Outbox) -> bool {
        let mut any = false;
        for &index in files {
            let Some(file) = self.files.get_mut(&index).filter(|f| f.state == State::Loading) else {
                continue;
            };
            any = true;
            file.state = State::Sent;
            let request = Request {
                id: file.id,
                permitted: self.permitted.contains(&file.id),
                packed: true,
                size: file.size,
                attributes: file.attributes,
                root: file.root,
                path: file.found.entry.announced.clone(),
            };
            out.say(u64::from(index), Message::Request(request));
        }
        any
    }

    fn leave(&mut self, slot: Slot, out: &mut Outbox) -> Option<Segment> {
        match slot.load {
            Load::Pack { files, ready, .. } => {
                for index in files {
                    out.moved(self.files.get(&index).and_then(|file| file.size).unwrap_or(0));
                }
                let (kind, payload) = (SegmentKind::Pack, ready?);
                Some(Segment { kind, request: 0, offset: 0, last: true, payload })
            }
            Load::Segment { index, offset, ready } => {
                let (payload, hash, end) = ready?;
                let file = self.files.get_mut(&index).filter(|file| file.state == State::Sending)?;
                let length = payload.len() as u64;
                file.sent = offset + length;
                out.moved(length);
                if length > 0 {
                    file.builder.add(&hash);
                }
                let last = end || file.size == Some(file.sent);
                if last {
                    self.say_end(index, out);
                }
                let (kind, request) = (SegmentKind::Data, u64::from(index));
                (length > 0).then_some(Segment { kind, request, offset, last, payload })
            }
        }
    }

    fn say_end(&mut self, index: u32, out: &mut Outbox) {
        let Some(file) = self.files.get_mut(&index) else { return };
        let root = std::mem::take(&mut file.builder).finish();
        file.root = Some(root);
        file.state = State::Sent;
        self.large -= 1;
        out.say(u64::from(index), Message::EndOfStream { length: file.sent, root });
    }

    // ---- words of the peer ----------------------------------------------------------------------

    pub(crate) fn handle_message(
        &mut self,
        request: u64,
        message: Message,
        out: &mut Outbox,
    ) -> Result<(), ProtocolViolation> {
        let opcode = message.opcode();
        let index = u32::try_from(request).map_err(|_| ProtocolViolation::Index { request });
        match message {
            Message::Accept { resume } => self.handle_accept(index?, resume, out)?,
            Message::Refuse(reason) => self.handle_refused(index?, &reason, out),
            Message::Ready(items) => self.handle_ready(request, items, out),
            Message::Committed(items) => {
                for item in items {
                    self.handle_committed(&item, out);
                }
            }
            Message::Aborted(id, reason) => self.handle_aborted(index?, id, &reason, out),
            Message::Notice { skipped, path, reason } => out.left_out(&path, &reason, skipped),
            _ => return Err(ProtocolViolation::Unexpected { opcode }),
        }
        Ok(())
    }

    fn handle_accept(&mut self, index: u32, resume: u64, out: &mut Outbox) -> Result<(), ProtocolViolation> {
        let Some(file) = self.files.get_mut(&index) else { return Ok(()) };
        if file.state == State::Aborting {
            return Ok(());
        }
        let beyond = resume > file.size.unwrap_or(0) || !resume.is_multiple_of(self.segment);
        if file.state != State::Asked || beyond {
            return Err(ProtocolViolation::Offset { request: u64::from(index), offset: resume });
        }
        file.resume = resume;
        self.go_on(index, out);
        Ok(())
    }

    /// A refusal is not the last word about an id with a permit out: what an earlier connection did with
    /// the permit is not known. The permit stays recorded, and a re-run asks again.
    fn handle_refused(&mut self, index: u32, reason: &Reason, out: &mut Outbox) {
        let Some(file) = self.remove(index, out) else { return };
        let path = &file.found.entry.announced;
        if self.has_permit(&file) || reason.code == ErrorCode::UnknownTransfer {
            out.in_doubt(path, reason);
        } else {
            out.left_out(path, reason, false);
        }
    }

    fn handle_ready(&mut self, batch: u64, items: Vec<RootItem>, out: &mut Outbox) {
        let mut checked = Vec::new();
        let mut sources = Vec::new();
        for item in items {
            let Some(file) =
                self.files.get_mut(&item.index).filter(|f| f.id == item.id && f.state == State::Sent)
            else {
                continue;
            };
            if file.root != Some(item.root) {
                self.give_up(item.index, ErrorCode::RootMismatch.into(), out);
                continue;
            }
            file.state = State::Checking;
            sources.push((file.source.clone(), file.id));
            checked.push(item);
        }
        if !checked.is_empty() {
            out.ask(Purpose::Permits { batch, items: checked }, LocalWork::IssuePermits(sources));
        }
    }

    fn handle_committed(&mut self, item: &CommittedItem, out: &mut Outbox) {
        if self.files.get(&item.index).is_none_or(|file| file.id != item.id) {
            return;
        }
        let Some(file) = self.take(item.index, out) else { return };
        if item.known && !item.present {
            self.try_again(file, false, &ErrorCode::AlreadyAborted.into(), out);
        } else {
            out.file_done(&file.found.entry.announced, file.size.unwrap_or(file.sent));
        }
    }

    fn handle_aborted(&mut self, index: u32, id: TransferId, reason: &Reason, out: &mut Outbox) {
        if self.files.get(&index).is_none_or(|file| file.id != id) {
            return;
        }
        let Some(file) = self.take(index, out) else { return };
        let reason = file.reason.clone().unwrap_or_else(|| reason.clone());
        match reason.code {
            ErrorCode::AlreadyAborted => self.try_again(file, false, &reason, out),
            ErrorCode::RootMismatch if !file.found.mismatched => self.try_again(file, true, &reason, out),
            // The receiver does not count this one, since mostly another round follows.
            ErrorCode::RootMismatch => leave_out(out, file.found.entry.announced, reason, false),
            _ => out.left_out(&file.found.entry.announced, &reason, false),
        }
    }

    fn try_again(&mut self, file: Outgoing, mismatched: bool, reason: &Reason, out: &mut Outbox) {
        let round = file.found.round + 1;
        if self.stopping || self.stream || round > ROUNDS_MAX {
            leave_out(out, file.found.entry.announced, reason.clone(), false);
            return;
        }
        let mismatched = mismatched || file.found.mismatched;
        self.found.push_front(Found { entry: file.found.entry, round, mismatched });
    }

    /// A permit was issued for the file, now or in an earlier run, and no last word has come.
    fn has_permit(&self, file: &Outgoing) -> bool {
        file.state == State::Permitted || self.permitted.contains(&file.id)
    }

    /// The last word about a file is here.
    fn take(&mut self, index: u32, out: &mut Outbox) -> Option<Outgoing> {
        let file = self.remove(index, out)?;
        if self.permitted.remove(&file.id) || file.state == State::Permitted {
            self.settled.push(file.id);
            if self.settled.len() >= FILES_OPEN_MAX {
                out.ask(Purpose::Ignored, LocalWork::RecordSettled(std::mem::take(&mut self.settled)));
            }
        }
        Some(file)
    }

    /// Nothing more is said about a file.
    fn remove(&mut self, index: u32, out: &mut Outbox) -> Option<Outgoing> {
        let file = self.files.remove(&index)?;
        if matches!(file.state, State::Asked | State::Hashing | State::Sending) {
            self.large -= 1;
        }
        if file.large {
            out.ask(Purpose::Ignored, LocalWork::CloseFile(index));
        }
        Some(file)
    }

    /// Stops: what is permitted is waited for, small files are aborted, partial large ones stay for a
    /// later run.
    pub(crate) fn interrupt(&mut self, out: &mut Outbox) {
        self.stopping = true;
        self.found.clear();
        self.group.clear();
        self.pipeline.clear();
        self.sending.clear();
        let small: Vec<u32> =
            self.files.iter().filter(|(_, f)| !f.large && f.state == State::Sent).map(|(i, _)| *i).collect();
        for index in small {
            self.give_up(index, ErrorCode::Interrupted.into(), out);
        }
        self.files.retain(|_, f| matches!(f.state, State::Aborting | State::Checking | State::Permitted));
    }

    /// What is to be noted as settled before the job's record is left.
    pub(crate) fn take_settled(&mut self) -> Vec<TransferId> {
        std::mem::take(&mut self.settled)
    }

    /// EndOfJob was said.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Files without a last word.
    pub(crate) fn unfinished(&self) -> u64 {
        (self.files.len() + self.found.len()) as u64
    }
}

/// Tells user and peer that something is not sent.
fn leave_out(out: &mut Outbox, path: RelativePath, reason: impl Into<Reason>, skipped: bool) {
    let reason = reason.into();
    out.left_out(&path, &reason, skipped);
    out.say(0, Message::Notice { skipped, path, reason });
}
