//! What a session wants to say: messages, local work, events; and the count of what was done.
//!
//! What holds: every local request that is out has exactly one [`Purpose`] here until its reply comes.
//! Not here: when to say it (`session`, `sender`, `receiver`).

use super::code::{ErrorCode, LocalError};
use super::job::SessionEvent;
use super::message::{Framed, Message, Reason, RootItem, TEXT_BYTES_MAX, emit};
use super::name::RelativePath;
use super::store::{LocalRequest, LocalWork};
use crate::payload::{Payload, Segment, SegmentKind};
use std::collections::{BTreeMap, VecDeque};
use storage_mapping::BufferPool;

/// Files of one job that may be between REQUEST and their last word. Part of the protocol.
pub(crate) const FILES_OPEN_MAX: usize = 4096;
/// Files bigger than a segment that may be between REQUEST and their last byte. Part of the protocol.
pub(crate) const LARGE_OPEN_MAX: usize = 8;
/// Messages that wait for the wire before new ones are made.
pub(crate) const MESSAGES_WAITING_MAX: usize = 4096;

/// Why a local request is out.
#[derive(Debug)]
pub(crate) enum Purpose {
    Ignored,
    // The session itself.
    CloseDestination,
    CloseJob,
    List,
    OpenDestination,
    OpenJob,
    OpenSources,
    // The sender.
    Load,
    Permits { batch: u64, items: Vec<RootItem> },
    SourcePrefix { index: u32 },
    Walk,
    // The receiver.
    Abort { files: Vec<(u32, Reason)> },
    Checkpoint { index: u32, length: u64 },
    Make,
    OpenFile { index: u32 },
    PartialPrefix { index: u32 },
    Publish { batch: u64, files: Vec<u32> },
    StorePack { files: Vec<u32> },
    StoreSegment { index: u32, offset: u64, length: u64 },
    Sync { files: Vec<u32> },
}

/// What was done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) failed: u64,
    /// Of the failed ones, those that somebody else is at: a re-run may do them.
    pub(crate) busy: u64,
    pub(crate) skipped: u64,
    pub(crate) in_doubt: u64,
    pub(crate) bytes_moved: u64,
    pub(crate) files_total: u64,
    pub(crate) bytes_total: u64,
}

impl Tally {
    /// One more file is to come. Sizes are what a peer says of them: sums saturate.
    pub(crate) fn announce(&mut self, bytes: u64) {
        self.files_total += 1;
        self.bytes_total = self.bytes_total.saturating_add(bytes);
    }
}

/// Messages, local work and events that wait to be taken.
#[derive(Debug)]
pub(crate) struct Outbox {
    pub(crate) job: u32,
    /// Events are for the requester's user.
    pub(crate) requester: bool,
    pub(crate) tally: Tally,
    progress: bool,
    next_id: u64,
    messages: VecDeque<Framed>,
    local: VecDeque<LocalRequest>,
    out: BTreeMap<u64, Purpose>,
    events: VecDeque<SessionEvent>,
}

impl Outbox {
    pub(crate) fn new(requester: bool) -> Self {
        Self {
            job: 0,
            requester,
            tally: Tally::default(),
            progress: false,
            next_id: 0,
            messages: VecDeque::new(),
            local: VecDeque::new(),
            out: BTreeMap::new(),
            events: VecDeque::new(),
        }
    }

    /// Queues a message.
    pub(crate) fn say(&mut self, request: u64, message: Message) {
        self.messages.push_back(Framed { request, message });
    }

    pub(crate) fn messages_waiting(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn drop_messages(&mut self) {
        self.messages.clear();
    }

    /// Queues local work; the id is that of its reply.
    pub(crate) fn ask(&mut self, purpose: Purpose, work: LocalWork) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.out.insert(id, purpose);
        self.local.push_back(LocalRequest { id, job: self.job, work });
        id
    }

    /// The purpose of a reply; `None` for one that was not asked for.
    pub(crate) fn answered(&mut self, id: u64) -> Option<Purpose> {
        self.out.remove(&id)
    }

    pub(crate) fn local_out(&self) -> usize {
        self.out.len()
    }

    /// Drops local work that was not taken yet.
    pub(crate) fn drop_local(&mut self) {
        for request in self.local.drain(..) {
            self.out.remove(&request.id);
        }
    }

    pub(crate) fn has_local(&self) -> bool {
        !self.local.is_empty()
    }

    pub(crate) fn poll_local(&mut self) -> Option<LocalRequest> {
        self.local.pop_front()
    }

    /// A Command segment of as many waiting messages as it holds.
    pub(crate) fn poll_command(&mut self, pool: &BufferPool, segment_bytes: usize) -> Option<Segment> {
        let mut bytes = Vec::new();
        while let Some(framed) = self.messages.front() {
            let before = bytes.len();
            emit(framed, &mut bytes);
            assert!(bytes.len() - before <= segment_bytes, "a message fits a segment");
            if bytes.len() > segment_bytes {
                bytes.truncate(before);
                break;
            }
            self.messages.pop_front();
        }
        if bytes.is_empty() {
            return None;
        }
        let payload = Payload::copy_of(pool, &bytes);
        Some(Segment { kind: SegmentKind::Command, request: 0, offset: 0, last: true, payload })
    }

    pub(crate) fn event(&mut self, event: SessionEvent) {
        if self.requester {
            self.events.push_back(event);
        }
    }

    pub(crate) fn moved(&mut self, bytes: u64) {
        self.tally.bytes_moved = self.tally.bytes_moved.saturating_add(bytes);
        self.progress = true;
    }

    pub(crate) fn poll_event(&mut self) -> Option<SessionEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if !(self.progress && self.requester) {
            return None;
        }
        self.progress = false;
        Some(SessionEvent::Progress {
            bytes: self.tally.bytes_moved,
            files: self.tally.files,
            bytes_total: self.tally.bytes_total,
            files_total: self.tally.files_total,
        })
    }

    pub(crate) fn file_done(&mut self, path: &RelativePath, bytes: u64) {
        self.tally.files += 1;
        self.tally.bytes = self.tally.bytes.saturating_add(bytes);
        self.progress = true;
        self.event(SessionEvent::FileDone { path: path.clone() });
    }

    /// Counts something that was left out, and tells the user.
    pub(crate) fn left_out(&mut self, path: &RelativePath, reason: &Reason, by_rule: bool) {
        if by_rule
            || matches!(reason.code, ErrorCode::Exists | ErrorCode::LinkOutside | ErrorCode::SpecialFile)
        {
            self.tally.skipped += 1;
        } else {
            self.tally.failed += 1;
            self.tally.busy += u64::from(reason.code == ErrorCode::Busy);
        }
        if by_rule {
            let why = printable(&reason.text);
            self.event(SessionEvent::Warning(format!("{path}: {why}")));
        } else {
            self.failed(path, reason);
        }
    }

    /// Counts a file whose fate is not known, although the peer gave a reason, and tells the user.
    pub(crate) fn in_doubt(&mut self, path: &RelativePath, reason: &Reason) {
        self.tally.in_doubt += 1;
        self.failed(path, reason);
    }

    fn failed(&mut self, path: &RelativePath, reason: &Reason) {
        let why = printable(&reason.text);
        self.event(SessionEvent::FileFailed { path: path.clone(), code: reason.code, why });
    }
}

/// Text of a peer without control characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

impl From<LocalError> for Reason {
    fn from(error: LocalError) -> Self {
        let mut text = error.text;
        let mut end = text.len().min(TEXT_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        Self { code: error.code, text }
    }
}

impl From<ErrorCode> for Reason {
    fn from(code: ErrorCode) -> Self {
        LocalError::new(code).into()
    }
}
