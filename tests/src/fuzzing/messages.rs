//! Messages between sessions: the codec alone, and whole sessions with a peer that says anything.
//!
//! What holds: what parses emits the same bytes, within its limits; a session never panics, never works
//! without end, and when its connection is gone it comes to its end. Not here: files (`memory_files`).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use storage_mapping::{BufferPool, Instant};
use transfer_core::payload::{Payload, Segment, SegmentKind};
use transfer_core::transfer::message::{
    CommittedItem, ENTRIES_MAX, Framed, HEADER_BYTES, ITEMS_MAX, JobOpen, JobOptions, Message, Reason,
    Request, RootItem, SOURCES_MAX, TEXT_BYTES_MAX, emit, parse_all,
};
use transfer_core::transfer::{
    Attributes, DirectoryItem, ErrorCode, Job, LinkItem, ListEntry, ListKind, LocalStore, LossReason,
    PATH_BYTES_MAX, RelativePath, Session, SessionConfig, SourceOrigin, Target, TransferId,
};

use super::input::Input;
use super::memory_files::{Content, MemoryFiles};

/// Bytes of a segment: the least that a session takes.
const SEGMENT: usize = 16 << 10;
/// Things said to a session in one run, at most.
const STEPS_MAX: usize = 60;

fn path(text: &str) -> RelativePath {
    RelativePath::from_joined(text.as_bytes()).expect("a path of this file")
}

fn reason() -> Reason {
    Reason { code: ErrorCode::NoSpace, text: "no space left".into() }
}

fn job_open(pull: bool) -> JobOpen {
    JobOpen {
        nonce: [0x5a; 16],
        pull,
        options: JobOptions::RECURSIVE | JobOptions::PRESERVE,
        export: b"box".to_vec(),
        destination: path(if pull { "" } else { "a/b" }),
        source_count: 1,
        single: (!pull).then(|| b"tree".to_vec()),
        sources: if pull { vec![path("tree")] } else { vec![] },
    }
}

fn request(id: u8, segments: u64, packed: bool) -> Request {
    let size = segments * 8192;
    Request {
        id: TransferId([id; 16]),
        permitted: false,
        packed,
        size: Some(size),
        attributes: Attributes { mode: 0o644, ..Attributes::default() },
        root: Some(root(size)),
        path: path("tree/file"),
    }
}

/// Root of so many zeros, in steps of 8 KiB.
fn root(length: u64) -> [u8; 32] {
    static ROOTS: OnceLock<[[u8; 32]; 8]> = OnceLock::new();
    let of = |steps: usize| *blake3::hash(&vec![0; steps * 8192]).as_bytes();
    ROOTS.get_or_init(|| std::array::from_fn(of))[usize::try_from(length / 8192 % 8).expect("below 8")]
}

/// One of the messages of [`every_kind`].
fn example(input: &mut Input<'_>) -> Message {
    static EXAMPLES: OnceLock<Vec<Message>> = OnceLock::new();
    let examples = EXAMPLES.get_or_init(every_kind);
    examples[input.index(examples.len())].clone()
}

/// One message of every kind.
fn every_kind() -> Vec<Message> {
    let attributes = Attributes { mode: 0o644, mtime_s: 1_700_000_000, mtime_ns: 1, ..Attributes::default() };
    let id = TransferId([1; 16]);
    let items =
        || vec![RootItem { index: 0, id, root: root(8192) }, RootItem { index: 1, id, root: root(0) }];
    let entry = ListEntry { name: b"file".to_vec(), kind: ListKind::File, size: 5, attributes };
    let stream = Request { size: None, root: None, path: path(""), ..request(2, 0, false) };
    vec![
        Message::Request(request(1, 1, true)),
        Message::Request(stream),
        Message::Accept { resume: 16384 },
        Message::Refuse(reason()),
        Message::Ready(items()),
        Message::Permit(items()),
        Message::Committed(vec![CommittedItem { index: 0, id, known: true, present: true }]),
        Message::Abort(id, reason()),
        Message::Aborted(id, reason()),
        Message::JobOpen(job_open(false)),
        Message::JobOpen(job_open(true)),
        Message::JobAccept,
        Message::JobRefuse(reason()),
        Message::Directory(DirectoryItem { path: path("tree/x"), attributes }),
        Message::Link(LinkItem { path: path("tree/l"), attributes, target: b"../file".to_vec() }),
        Message::EndOfStream { length: 8192, root: root(8192) },
        Message::FlushBatch,
        Message::EndOfJob,
        Message::JobDone,
        Message::List { export: b"box".to_vec(), path: path("a") },
        Message::ListEntries { last: true, entries: vec![entry] },
        Message::ServiceOpen { service: b"ssh".to_vec() },
        Message::HalfClose { length: 99 },
        Message::Notice { skipped: true, path: path("tree/fifo"), reason: reason() },
    ]
}

/// The codec: bytes, or messages of every kind with changes in their bodies.
///
/// # Panics
/// If a promise is broken.
pub fn messages(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    if input.byte() & 1 == 0 {
        check(input.rest());
        return;
    }
    let mut all = Vec::new();
    for _ in 0..16 {
        if input.is_empty() {
            break;
        }
        changed_message(&mut input, &mut all);
    }
    check(&all);
}

/// Appends a message with a changed body and, mostly, a length that fits again.
fn changed_message(input: &mut Input<'_>, out: &mut Vec<u8>) {
    let message = example(input);
    let start = out.len();
    emit(&Framed { request: input.number(), message }, out);
    let shape = input.byte();
    if shape & 1 != 0 {
        out.truncate(out.len() - usize::from(shape >> 4).min(out.len() - start - HEADER_BYTES));
    } else if shape & 2 != 0 {
        out.extend_from_slice(input.take(usize::from(shape >> 3)));
    }
    let changes = usize::from(input.byte() % 24);
    Input::new(input.take(changes)).patch(&mut out[start + 2..], &[]);
    if shape & 4 == 0 {
        let length = u32::try_from(out.len() - start - HEADER_BYTES).expect("short");
        out[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    }
}

fn check(bytes: &[u8]) {
    let Ok(parsed) = parse_all(bytes) else { return };
    let mut again = Vec::with_capacity(bytes.len());
    parsed.iter().for_each(|framed| emit(framed, &mut again));
    assert_eq!(again, bytes, "messages emit what they were parsed from");
    for framed in &parsed {
        check_limits(&framed.message);
    }
}

fn check_limits(message: &Message) {
    let fits = |path: &RelativePath| path.as_bytes().len() <= PATH_BYTES_MAX;
    let holds = match message {
        Message::Request(request) => fits(&request.path) && request.attributes.mtime_ns < 1_000_000_000,
        Message::Ready(items) | Message::Permit(items) => items.len() <= ITEMS_MAX,
        Message::Committed(items) => items.len() <= ITEMS_MAX,
        Message::JobOpen(open) => open.sources.len() <= SOURCES_MAX && open.sources.iter().all(fits),
        Message::ListEntries { entries, .. } => entries.len() <= ENTRIES_MAX,
        Message::Refuse(reason)
        | Message::JobRefuse(reason)
        | Message::Abort(_, reason)
        | Message::Aborted(_, reason)
        | Message::Notice { reason, .. } => reason.text.len() <= TEXT_BYTES_MAX,
        Message::Link(item) => item.target.len() <= PATH_BYTES_MAX && fits(&item.path),
        _ => true,
    };
    assert!(holds, "{message:?} is beyond its limits");
}

/// Sessions: both halves of a responder, and requesters, with a peer that says anything at any time.
///
/// # Panics
/// If a promise is broken.
pub fn session(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let pool = BufferPool::new();
    let files = Arc::new(MemoryFiles::new(pool.clone(), Content::OfPeer));
    let mut config = SessionConfig::new(pool.clone());
    (config.segment_bytes, config.payloads_max) = (SEGMENT, 4);
    let role = input.byte() % 8;
    let mut peer = Peer { pool, now: Instant::ZERO, files };
    let mut session = match role {
        0..=2 => Session::responder(config),
        3 | 4 => Session::requester(config, push_job(role == 4)),
        5 | 6 => Session::requester(config, pull_job(role == 6)),
        _ => Session::requester(config, Job::List { export: b"box".to_vec(), path: path("") }),
    };
    peer.settle(&mut session);
    let opening = match role {
        0 => Some(Message::JobOpen(job_open(false))),
        1 => Some(Message::JobOpen(job_open(true))),
        3..=6 => Some(Message::JobAccept),
        _ => None,
    };
    let mut alive = opening.is_none_or(|message| peer.say(&mut session, 0, message));
    for _ in 0..STEPS_MAX {
        if !alive || input.is_empty() {
            break;
        }
        alive = peer.act(&mut input, &mut session);
    }
    let loss = if alive { LossReason::Lost } else { LossReason::Violation };
    session.handle_lost(peer.now, loss);
    peer.settle(&mut session);
    assert!(session.is_finished() || session.is_idle(), "it does not end: {session:?}");
}

fn push_job(stream: bool) -> Job {
    let origin = if stream {
        SourceOrigin::Stream
    } else {
        SourceOrigin::Local(vec![b"large".to_vec(), b"small".to_vec()])
    };
    let options = if stream { JobOptions::empty() } else { JobOptions::RECURSIVE };
    Job::Push { peer: "b".into(), origin, export: b"box".to_vec(), destination: path("x"), options }
}

fn pull_job(stream: bool) -> Job {
    let target = if stream { Target::Stream } else { Target::Local(b"there".to_vec()) };
    let options = if stream { JobOptions::empty() } else { JobOptions::RECURSIVE };
    Job::Pull { peer: "b".into(), export: b"box".to_vec(), sources: vec![path("tree")], target, options }
}

/// The other side, and the clock.
struct Peer {
    pool: BufferPool,
    now: Instant,
    files: Arc<MemoryFiles>,
}

impl Peer {
    /// One thing; `false` if the session called it a violation.
    fn act(&mut self, input: &mut Input<'_>, session: &mut Session) -> bool {
        let choice = input.byte();
        match choice % 16 {
            0..=8 => {
                let (request, message) = (u64::from(choice >> 4) % 8, say(input));
                return self.say(session, request, message);
            }
            9 => {
                let mut bytes = Vec::new();
                changed_message(input, &mut bytes);
                return self.deliver(session, SegmentKind::Command, 0, 0, true, &bytes);
            }
            10 | 11 => {
                let length = [0, 1, 8192, SEGMENT, SEGMENT + 1][input.index(5)];
                let offset = u64::from(input.byte() % 8) * 8192;
                let last = choice & 0x80 != 0;
                let request = u64::from(choice >> 4 & 7);
                return self.deliver(session, SegmentKind::Data, request, offset, last, &vec![0; length]);
            }
            12 => {
                let mut bytes = Vec::new();
                for _ in 0..choice >> 5 {
                    bytes.extend_from_slice(&u32::from(input.byte() % 8).to_le_bytes());
                    let length = u32::from(input.byte() % 3) * 8192;
                    bytes.extend_from_slice(&length.to_le_bytes());
                    bytes.resize(bytes.len() + length as usize, 0);
                }
                return self.deliver(session, SegmentKind::Pack, 0, 0, true, &bytes);
            }
            13 => {
                self.now = self.now + Duration::from_millis(input.number() % 20_000);
                session.handle_timeout(self.now);
            }
            14 => session.handle_interrupt(self.now),
            _ => self.files.fail_next(input.byte()),
        }
        self.settle(session);
        true
    }

    fn say(&mut self, session: &mut Session, request: u64, message: Message) -> bool {
        let mut bytes = Vec::new();
        emit(&Framed { request, message }, &mut bytes);
        self.deliver(session, SegmentKind::Command, 0, 0, true, &bytes)
    }

    fn deliver(
        &mut self,
        session: &mut Session,
        kind: SegmentKind,
        request: u64,
        offset: u64,
        last: bool,
        bytes: &[u8],
    ) -> bool {
        if !session.wants_segment() {
            return true;
        }
        let payload = Payload::copy_of(&self.pool, bytes);
        let taken = session.handle_segment(self.now, Segment { kind, request, offset, last, payload });
        self.settle(session);
        taken.is_ok()
    }

    /// Executes all local work and takes all segments; every message among them must be readable.
    fn settle(&mut self, session: &mut Session) {
        for _ in 0..200 {
            let mut moved = false;
            while let Some(request) = session.poll_local(self.now) {
                session.handle_local(self.now, self.files.execute(request));
                moved = true;
            }
            while let Some(segment) = session.poll_segment(self.now) {
                assert!(segment.payload.len() <= SEGMENT, "a segment is too long");
                if segment.kind == SegmentKind::Command {
                    parse_all(segment.payload.bytes()).expect("own messages are readable");
                }
                moved = true;
            }
            while session.poll_event().is_some() {}
            if !moved {
                return;
            }
        }
        panic!("the session works without end");
    }
}

/// A message that is likely to have a place.
fn say(input: &mut Input<'_>) -> Message {
    let choice = input.byte();
    let id = choice >> 6;
    let item = |index: u8| RootItem { index: index.into(), id: TransferId([id; 16]), root: root(8192) };
    match choice % 16 {
        0..=2 => {
            let shape = input.byte();
            let mut request = request(id, u64::from(shape % 5), shape & 8 != 0);
            request.permitted = shape & 16 != 0;
            if shape & 32 != 0 && !request.packed {
                (request.size, request.root) = (None, None);
            }
            request.path =
                path(["tree", "tree/a", "tree/a/b", "", "other", "small", "large"][input.index(7)]);
            Message::Request(request)
        }
        3 => {
            let length = u64::from(input.byte() % 5) * 8192;
            Message::EndOfStream { length, root: root(length) }
        }
        4 => Message::Permit((0..input.byte() % 8).map(item).collect()),
        5 => Message::Ready((0..input.byte() % 8).map(item).collect()),
        6 => Message::Accept { resume: u64::from(input.byte() % 8) * 8192 },
        7 => Message::Committed(
            (0..input.byte() % 4)
                .map(|index| CommittedItem {
                    index: index.into(),
                    id: TransferId([id; 16]),
                    known: choice & 32 != 0,
                    present: choice & 16 != 0,
                })
                .collect(),
        ),
        8 => Message::FlushBatch,
        9 => Message::EndOfJob,
        10 => Message::JobDone,
        _ => example(input),
    }
}

/// Inputs to begin with.
#[must_use]
pub fn messages_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (number, message) in (0..).zip(every_kind()) {
        let mut bytes = vec![0];
        emit(&Framed { request: 1, message }, &mut bytes);
        seeds.push(bytes);
        seeds.push(vec![1, number, 17, 0, 5, 0, 20, 0, 1, 0xFF]);
    }
    seeds
}

/// Inputs to begin with.
#[must_use]
pub fn session_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = (0..8).map(|role| vec![role]).collect();
    // A file in a pack; a file in two segments; a listing; a permit and its answer.
    seeds.push(vec![0, 0, 0, 9, 1, 0x2C, 0, 1, 8, 8, 13, 0xE0, 0, 8, 0, 4, 1, 9, 9]);
    seeds.push(vec![0, 0, 0, 2, 1, 10, 3, 0, 0, 3, 2, 0, 8, 13, 0xE0, 0, 8, 0, 4, 1, 0, 9]);
    seeds.push(vec![1, 0, 6, 0, 0, 5, 2, 0, 7, 1, 0, 10]);
    for role in 3..7 {
        seeds.push(vec![role, 0, 6, 0, 16, 6, 0, 0, 5, 2, 0, 7, 1, 0, 9, 0, 10]);
    }
    seeds
}
