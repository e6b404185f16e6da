//! The receiving half of a job: checks, stores, makes durable, publishes when permitted.
//!
//! ```text
//!  REQUEST ─► Opening ─► Hashing ─ACCEPT─► Receiving ─root─► Written ─► Syncing ─READY─► Ready
//!             small: Announced ─PACK─► Storing ─────────────────▲                          │ PERMIT
//!  any state but Publishing ──failure or ABORT──► Aborting ─► ABORTED          Publishing ◄┘
//!                                                                 COMMITTED or ABORTED ◄─┘
//! ```
//!
//! | state      | what is true                                                                      |
//! |------------|-----------------------------------------------------------------------------------|
//! | Announced  | its bytes come in a pack                                                          |
//! | Storing    | its pack is being written                                                         |
//! | Opening    | the store looks for its journal entry and its partial file                        |
//! | Hashing    | its durable prefix is being hashed again                                          |
//! | Receiving  | ACCEPT was said; segments are written as they come                                |
//! | Written    | all bytes are written and have the announced root; it waits for a batch           |
//! | Syncing    | it is being made durable                                                          |
//! | Ready      | durable, READY was said                                                           |
//! | Publishing | PERMIT came; INTENT may be journalled; only the store's answer ends this          |
//! | Aborting   | it makes no INTENT; when its work is back the store says its last word: ABORTED,  |
//! |            | or what another connection of the same job has published                          |
//!
//! What holds: COMMITTED and ABORTED are only said after the store journalled them; at most
//! `payloads_max` payloads are in hand; nothing outside the names that were asked for is taken.
//! Not here: paths on disk, the journal (`local`), batches (`commit`).

mod stored;

use super::code::ErrorCode;
use super::commit::Gather;
use super::job::{ProtocolViolation, SessionConfig};
use super::message::{Message, Reason, Request, RootItem};
use super::name::RelativePath;
use super::outbox::{FILES_OPEN_MAX, LARGE_OPEN_MAX, MESSAGES_WAITING_MAX, Outbox, Purpose};
use super::root::{Root, RootBuilder, SegmentHash};
use super::sender::PACK_ITEM_BYTES;
use super::store::{
    Attributes, DirectoryItem, KnownAnswer, LinkItem, LocalWork, OpenFile, PackFile, PublishFile, SyncFile,
};
use crate::payload::{Payload, Segment, SegmentKind};
use byteorder::{ByteOrder, LittleEndian};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use storage_mapping::Instant;
use storage_mapping::block::time::earliest;

/// A prefix is made durable when it grew by so much …
const CHECKPOINT_BYTES: u64 = 64 << 20;
/// … or is so old.
const CHECKPOINT_AGE: Duration = Duration::from_secs(1);
/// How often a file that another connection holds is asked for again …
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// … and for how long: an older connection of the same host ends within this.
const BUSY_MAX: Duration = Duration::from_secs(10);
/// Files of one COMMITTED: it fits the smallest segment, whatever a peer permits at once.
const COMMITTED_MAX: usize = 512;
/// Packs that the store has at a time: one is hashed while another is written. More would only wait for each other, and the
/// syncs and renames of the files before them would wait behind.
const PACKS_OUT_MAX: usize = 2;
/// Directories or links made by one request.
const MAKE_MAX: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Aborting,
    Announced,
    Hashing,
    Opening,
    Publishing,
    Ready,
    Receiving,
    Storing,
    Syncing,
    Written,
}

/// A file between REQUEST and its last word.
#[derive(Debug)]
struct Incoming {
    file: OpenFile,
    attributes: Attributes,
    root: Option<Root>,
    packed: bool,
    state: State,
    /// Local requests that are out for it.
    busy: u32,
    inode: u64,
    /// Bytes that need not be sent.
    resume: u64,
    /// Bytes that came, or need not.
    received: u64,
    /// Bytes from the start that are written and merged into the root.
    stored: u64,
    /// Bytes from the start that are recorded as durable.
    marked: u64,
    marking: bool,
    marked_at: Instant,
    /// Since when another connection holds it.
    busy_since: Option<Instant>,
    builder: RootBuilder,
    /// Hashes of segments that were written before an earlier one was.
    early: BTreeMap<u64, (u64, SegmentHash)>,
    end: Option<(u64, Root)>,
    batch: Option<u64>,
    reason: Option<Reason>,
}

/// Which first names a peer may use.
#[derive(Clone, Debug)]
pub(crate) enum Allowed {
    /// Any: the sender is the requester, or asked for the content of a directory.
    Any,
    /// The names of the sources that were asked for.
    Names(BTreeSet<Vec<u8>>),
}

/// The receiving half of a job.
#[derive(Debug)]
pub(crate) struct Receiver {
    segment: u64,
    pub(super) payloads_max: usize,
    allowed: Allowed,
    recursive: bool,
    /// Bytes go to standard output; nothing is published.
    stream: bool,
    files: BTreeMap<u32, Incoming>,
    /// When to ask again for which files that another connection holds.
    busy_retries: BTreeSet<(Instant, u32)>,
    highest: Option<u32>,
    in_hand: usize,
    /// Those in hand that the store does not have yet.
    packs: VecDeque<(Payload, Vec<PackFile>)>,
    /// Those that it has.
    packs_out: usize,
    gather: Gather,
    flush: bool,
    directories: VecDeque<DirectoryItem>,
    links: VecDeque<LinkItem>,
    making: bool,
    aborts: Vec<(OpenFile, Reason)>,
    aborting: bool,
    stream_queue: VecDeque<(u32, u64, Payload)>,
    streaming: bool,
    stopping: bool,
    /// Files that were announced after that: nothing is said about them.
    left: u64,
}

impl Receiver {
    pub(crate) fn new(config: &SessionConfig, allowed: Allowed, recursive: bool, stream: bool) -> Self {
        Self {
            segment: config.segment_bytes as u64,
            payloads_max: config.payloads_max,
            allowed,
            recursive,
            stream,
            files: BTreeMap::new(),
            busy_retries: BTreeSet::new(),
            highest: None,
            in_hand: 0,
            packs: VecDeque::new(),
            packs_out: 0,
            gather: Gather::new(config.segment_bytes),
            flush: false,
            directories: VecDeque::new(),
            links: VecDeque::new(),
            making: false,
            aborts: Vec::new(),
            aborting: false,
            stream_queue: VecDeque::new(),
            streaming: false,
            stopping: false,
            left: 0,
        }
    }

    /// Whether another segment may be delivered.
    pub(crate) fn wants_segment(&self) -> bool {
        self.in_hand < self.payloads_max && self.directories.len() + self.links.len() <= MESSAGES_WAITING_MAX
    }

    /// Files without a last word.
    pub(crate) fn unfinished(&self) -> u64 {
        self.files.len() as u64 + self.left
    }

    /// When time alone has something done, if anything but time allows it.
    pub(crate) fn next_wakeup(&self) -> Option<Instant> {
        if self.stopping {
            return None;
        }
        let retry = self.busy_retries.first().map(|(retry, _)| *retry);
        let gathered = if self.makes_directories() { None } else { self.gather.next_wakeup() };
        earliest(retry, gathered)
    }

    /// Targets need their directories, and these are made in order.
    fn makes_directories(&self) -> bool {
        self.making || !self.directories.is_empty()
    }

    // ---- words of the peer ----------------------------------------------------------------------

    pub(crate) fn handle_message(
        &mut self,
        now: Instant,
        request: u64,
        message: Message,
        out: &mut Outbox,
    ) -> Result<(), ProtocolViolation> {
        let opcode = message.opcode();
        let index = u32::try_from(request).map_err(|_| ProtocolViolation::Index { request });
        match message {
            Message::Request(request) => self.handle_request(now, index?, request, out)?,
            Message::Directory(item) => {
                if self.recursive && self.is_asked_for(&item.path) {
                    self.directories.push_back(item);
                } else {
                    refuse_item(out, item.path, ErrorCode::NotAllowed.into());
                }
            }
            Message::Link(item) => {
                if self.recursive && self.is_asked_for(&item.path) && !self.stream {
                    self.links.push_back(item);
                } else {
                    refuse_item(out, item.path, ErrorCode::NotAllowed.into());
                }
            }
            Message::EndOfStream { length, root } => self.handle_end(now, index?, length, root, out)?,
            Message::FlushBatch => self.flush = true,
            Message::Permit(items) => self.handle_permit(request, &items, out),
            Message::Abort(id, reason) => {
                // After a permit ABORT is a question, and the answer is on its way.
                let index = index?;
                if self.files.get(&index).is_some_and(|f| f.file.id == id && f.state != State::Publishing) {
                    self.give_up(index, reason, out);
                }
            }
            Message::Notice { skipped, path, reason } => out.left_out(&path, &reason, skipped),
            _ => return Err(ProtocolViolation::Unexpected { opcode }),
        }
        Ok(())
    }

    fn is_asked_for(&self, path: &RelativePath) -> bool {
        match &self.allowed {
            Allowed::Any => true,
            Allowed::Names(names) => path.first().is_some_and(|first| names.contains(first)),
        }
    }

    fn handle_request(
        &mut self,
        now: Instant,
        index: u32,
        request: Request,
        out: &mut Outbox,
    ) -> Result<(), ProtocolViolation> {
        let open = |f: &&Incoming| matches!(f.state, State::Opening | State::Hashing | State::Receiving);
        if self.files.contains_key(&index) || self.files.len() >= 2 * FILES_OPEN_MAX {
            return Err(ProtocolViolation::Limit);
        }
        if !request.packed
            && self.files.values().filter(|f| !f.packed).filter(open).count() >= 2 * LARGE_OPEN_MAX
        {
            return Err(ProtocolViolation::Limit);
        }
        self.highest = self.highest.max(Some(index));
        self.flush = false;
        if self.stopping {
            // REFUSE would be a last word, and the job would end as if nothing were left of it.
            self.left += 1;
            return Ok(());
        }
        out.tally.announce(request.size.unwrap_or(0));
        let depth_allowed = self.recursive || request.path.depth() <= 1;
        let refusal = if !self.is_asked_for(&request.path) || !depth_allowed {
            Some(ErrorCode::NotAllowed)
        } else if self.stream && (request.packed || !self.files.is_empty()) {
            Some(ErrorCode::Limit)
        } else {
            None
        };
        let Request { id, permitted, packed, size, attributes, root, path } = request;
        if let Some(code) = refusal {
            out.left_out(&path, &code.into(), false);
            out.say(u64::from(index), Message::Refuse(code.into()));
            return Ok(());
        }
        let file = OpenFile { index, id, permitted, path, size };
        let mut incoming = Incoming {
            file: file.clone(),
            attributes,
            root,
            packed,
            state: State::Announced,
            busy: 0,
            inode: 0,
            resume: 0,
            received: 0,
            stored: 0,
            marked: 0,
            marking: false,
            marked_at: now,
            busy_since: None,
            builder: RootBuilder::new(),
            early: BTreeMap::new(),
            end: None,
            batch: None,
            reason: None,
        };
        if self.stream {
            incoming.state = State::Receiving;
            out.say(u64::from(index), Message::Accept { resume: 0 });
        } else if !packed {
            incoming.state = State::Opening;
            incoming.busy = 1;
            out.ask(Purpose::OpenFile { index }, LocalWork::OpenFile(file));
        }
        self.files.insert(index, incoming);
        Ok(())
    }

    /// A Data or Pack segment.
    pub(crate) fn handle_data(
        &mut self,
        segment: Segment,
        out: &mut Outbox,
    ) -> Result<(), ProtocolViolation> {
        if segment.kind == SegmentKind::Pack {
            return self.handle_pack(segment.payload, out);
        }
        let (request, offset) = (segment.request, segment.offset);
        let index = u32::try_from(request).map_err(|_| ProtocolViolation::Index { request })?;
        let Some(file) = self.files.get_mut(&index) else {
            // It has its last word already; its data was on the way.
            return if self.highest >= Some(index) {
                Ok(())
            } else {
                Err(ProtocolViolation::Index { request })
            };
        };
        if file.state == State::Aborting {
            return Ok(());
        }
        let length = segment.payload.len() as u64;
        let end = offset.saturating_add(length);
        let wrong_place = file.state != State::Receiving || file.end.is_some() || offset != file.received;
        let wrong_length = length == 0 || length > self.segment || (length < self.segment && !segment.last);
        let beyond = file.file.size.is_some_and(|size| end > size || (end < size && length < self.segment));
        if wrong_place || wrong_length || beyond {
            return Err(ProtocolViolation::Offset { request, offset });
        }
        file.received = end;
        file.busy += 1;
        self.in_hand += 1;
        out.moved(length);
        let payload = segment.payload;
        if self.stream {
            self.stream_queue.push_back((index, offset, payload));
        } else {
            let work = LocalWork::StoreSegment { index, offset, payload };
            out.ask(Purpose::StoreSegment { index, offset, length }, work);
        }
        Ok(())
    }

    fn handle_pack(&mut self, payload: Payload, out: &mut Outbox) -> Result<(), ProtocolViolation> {
        let mut files = Vec::new();
        let mut at = 0;
        let bytes = payload.bytes();
        while at < bytes.len() {
            let header = bytes.get(at..at + PACK_ITEM_BYTES).ok_or(ProtocolViolation::Pack)?;
            let index = LittleEndian::read_u32(&header[..4]);
            let length = LittleEndian::read_u32(&header[4..]) as usize;
            let start = at + PACK_ITEM_BYTES;
            at =
                start.checked_add(length).filter(|&end| end <= bytes.len()).ok_or(ProtocolViolation::Pack)?;
            let Some(file) = self.files.get_mut(&index) else {
                if self.highest >= Some(index) {
                    continue;
                }
                return Err(ProtocolViolation::Index { request: u64::from(index) });
            };
            if file.state == State::Aborting {
                continue;
            }
            let root = file.root.filter(|_| file.state == State::Announced).ok_or(ProtocolViolation::Pack)?;
            if file.file.size != Some(length as u64) {
                return Err(ProtocolViolation::Pack);
            }
            file.state = State::Storing;
            file.busy += 1;
            out.moved(length as u64);
            files.push(PackFile {
                file: file.file.clone(),
                attributes: file.attributes,
                root,
                start,
                length,
            });
        }
        if !files.is_empty() {
            self.in_hand += 1;
            self.packs.push_back((payload, files));
            self.store_packs(out);
        }
        Ok(())
    }

    /// Hands packs to the store, a few at a time.
    fn store_packs(&mut self, out: &mut Outbox) {
        while self.packs_out < PACKS_OUT_MAX
            && let Some((payload, files)) = self.packs.pop_front()
        {
            self.packs_out += 1;
            let purpose = Purpose::StorePack { files: files.iter().map(|pack| pack.file.index).collect() };
            out.ask(purpose, LocalWork::StorePack { payload, files });
        }
    }

    fn handle_end(
        &mut self,
        now: Instant,
        index: u32,
        length: u64,
        root: Root,
        out: &mut Outbox,
    ) -> Result<(), ProtocolViolation> {
        let Some(file) = self.files.get_mut(&index) else { return Ok(()) };
        if file.state == State::Aborting {
            return Ok(());
        }
        if file.state != State::Receiving || file.end.is_some() || file.received != length {
            return Err(ProtocolViolation::Offset { request: u64::from(index), offset: length });
        }
        file.end = Some((length, root));
        self.finish_if_stored(now, index, out);
        Ok(())
    }

    fn handle_permit(&mut self, batch: u64, items: &[RootItem], out: &mut Outbox) {
        let mut publish = Vec::new();
        for item in items {
            let Some(file) = self.files.get_mut(&item.index) else { continue };
            if file.state != State::Ready || file.file.id != item.id || self.stopping {
                continue;
            }
            if file.root != Some(item.root) {
                self.give_up(item.index, ErrorCode::RootMismatch.into(), out);
                continue;
            }
            file.state = State::Publishing;
            publish.push(PublishFile {
                index: item.index,
                id: item.id,
                path: file.file.path.clone(),
                inode: file.inode,
                length: file.stored,
                root: item.root,
            });
        }
        let files: Vec<u32> = publish.iter().map(|file| file.index).collect();
        if self.stream {
            self.handle_published(batch, &files, vec![Ok(()); files.len()], out);
        } else if !publish.is_empty() {
            out.ask(Purpose::Publish { batch, files }, LocalWork::Publish(publish));
        }
    }

    // ---- doing what can be done -----------------------------------------------------------------

    pub(crate) fn pump(&mut self, now: Instant, out: &mut Outbox) {
        self.ask_again_for_busy(now, out);
        if !self.making && !self.directories.is_empty() {
            self.making = true;
            let count = self.directories.len().min(MAKE_MAX);
            let items = self.directories.drain(..count).collect();
            out.ask(Purpose::Make, LocalWork::MakeDirectories(items));
        } else if !self.making && !self.links.is_empty() {
            self.making = true;
            let count = self.links.len().min(MAKE_MAX);
            let items = self.links.drain(..count).collect();
            out.ask(Purpose::Make, LocalWork::MakeLinks(items));
        }
        if !self.aborting && !self.aborts.is_empty() {
            self.aborting = true;
            let aborts = std::mem::take(&mut self.aborts);
            let work: Vec<_> = aborts.iter().map(|(file, reason)| (file.clone(), reason.code)).collect();
            let files: Vec<_> = aborts.into_iter().map(|(file, reason)| (file.index, reason)).collect();
            if self.stream {
                self.aborting = false;
                let words = vec![KnownAnswer::Aborted; files.len()];
                self.handle_aborted(files, words, out);
            } else {
                out.ask(Purpose::Abort { files }, LocalWork::AbortFiles(work));
            }
        }
        if !self.streaming
            && let Some((index, offset, payload)) = self.stream_queue.pop_front()
        {
            self.streaming = true;
            let length = payload.len() as u64;
            out.ask(
                Purpose::StoreSegment { index, offset, length },
                LocalWork::WriteStream { offset, payload },
            );
        }
        self.close_batch(now, out);
    }

    fn ask_again_for_busy(&mut self, now: Instant, out: &mut Outbox) {
        while let Some(&(retry, index)) = self.busy_retries.first()
            && retry <= now
        {
            self.busy_retries.pop_first();
            // It may have been given up meanwhile.
            let Some(file) = self.files.get_mut(&index).filter(|file| file.state == State::Opening) else {
                continue;
            };
            file.busy += 1;
            out.ask(Purpose::OpenFile { index }, LocalWork::OpenFile(file.file.clone()));
        }
    }

    /// Whether a file that is held by another connection is to be asked for again.
    fn waits_for_busy(&mut self, now: Instant, index: u32) -> bool {
        let Some(file) = self.files.get_mut(&index) else { return false };
        let since = *file.busy_since.get_or_insert(now);
        if file.state != State::Opening || self.stopping || now.since(since) >= BUSY_MAX {
            return false;
        }
        self.busy_retries.insert((now + BUSY_PAUSE, index));
        true
    }

    fn close_batch(&mut self, now: Instant, out: &mut Outbox) {
        if self.makes_directories() || self.stopping {
            return;
        }
        let nothing_more = self.flush && self.in_hand == 0;
        while let Some((batch, files)) = self.gather.close(now, nothing_more) {
            let mut sync = Vec::new();
            for &index in &files {
                let Some(file) = self.files.get_mut(&index) else { continue };
                file.state = State::Syncing;
                file.batch = Some(batch);
                file.busy += 1;
                let attributes = (!file.packed).then_some(file.attributes);
                sync.push(SyncFile { index, id: file.file.id, attributes });
            }
            if self.stream {
                let synced = vec![Ok(()); files.len()];
                self.handle_synced(&files, synced, out);
            } else {
                out.ask(Purpose::Sync { files }, LocalWork::SyncFiles(sync));
            }
        }
    }

    // ---- ends -----------------------------------------------------------------------------------

    fn give_up(&mut self, index: u32, reason: Reason, _out: &mut Outbox) {
        let Some(file) = self.files.get_mut(&index) else { return };
        if !matches!(file.state, State::Aborting | State::Publishing) {
            if file.state == State::Written {
                self.gather.remove(index);
            }
            file.state = State::Aborting;
            file.reason = Some(reason);
        }
        self.abort_if_idle(index);
    }

    /// Once nothing is out for a file that is given up, that can be journalled.
    fn abort_if_idle(&mut self, index: u32) {
        let Some(file) = self.files.get_mut(&index) else { return };
        if file.state == State::Aborting
            && file.busy == 0
            && let Some(reason) = file.reason.take()
        {
            self.aborts.push((file.file.clone(), reason));
        }
    }

    /// The last word about a file was said.
    fn settle(&mut self, index: u32) -> Option<Incoming> {
        let file = self.files.remove(&index)?;
        if let Some(batch) = file.batch {
            self.gather.settle(batch);
        }
        Some(file)
    }

    /// The connection is lost, or the user stops: keeps what was received.
    pub(crate) fn stop(&mut self, out: &mut Outbox) {
        self.stopping = true;
        self.busy_retries.clear();
        for (_, files) in std::mem::take(&mut self.packs) {
            self.in_hand -= 1;
            files.iter().for_each(|pack| self.back(pack.file.index));
        }
        let worth =
            |f: &&Incoming| f.state == State::Receiving && f.stored > f.marked && f.file.size.is_some();
        let indices: Vec<u32> =
            self.files.values().filter(worth).filter(|f| !f.marking).map(|f| f.file.index).collect();
        for index in indices {
            if !self.stream {
                self.checkpoint(index, out);
            }
        }
    }
}

/// Tells user and peer that a directory or link was not made.
fn refuse_item(out: &mut Outbox, path: RelativePath, reason: Reason) {
    let skipped = reason.code == ErrorCode::LinkOutside;
    out.left_out(&path, &reason, skipped);
    out.say(0, Message::Notice { skipped, path, reason });
}
