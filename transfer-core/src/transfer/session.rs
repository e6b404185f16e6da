//! One connection's jobs: who opens what, who sends, who receives, and how it ended.
//!
//! ```text
//!  requester  OpeningJob ─► OpeningFiles ─JOB_OPEN─► Asking ─JOB_ACCEPT─► Sending │ Receiving ─► Closing ─► Finished
//!             Listing (LIST … LIST_ENTRIES) ────────────────────────────────────────────────────────────────▲
//!  responder  Idle ─JOB_OPEN─► OpeningFiles ─JOB_ACCEPT─► Sending │ Receiving ─► Closing ─► Idle
//!  any state ──connection lost──► (local work comes back) ─► Closing ─► Finished
//! ```
//!
//! | state        | what is true                                                                    |
//! |--------------|---------------------------------------------------------------------------------|
//! | Idle         | a responder without a job                                                       |
//! | OpeningJob   | the requester's record of the job is being found or made                        |
//! | OpeningFiles | sources or destination are being opened                                         |
//! | Asking       | JOB_OPEN was said                                                               |
//! | Sending      | a [`Sender`] runs                                                               |
//! | Receiving    | a [`Receiver`] runs                                                             |
//! | Listing      | a listing is awaited, or being made                                             |
//! | Closing      | the files of the job are being closed                                           |
//! | Finished     | nothing will be said or done any more                                           |
//!
//! What holds: no I/O, clock, thread or randomness; a result is *done* only by the receiver's word,
//! and *in doubt* when a permit was said and no word came. Not here: files (`local`), segments on disk.

use super::code::{ErrorCode, LocalError};
use super::job::{Job, LossReason, Outcome, ProtocolViolation, SessionConfig, SessionEvent, Verdict};
use super::message::{ENTRIES_MAX, Framed, JobOpen, JobOptions, Message, Reason, SOURCES_MAX, parse_all};
use super::name::RelativePath;
use super::outbox::{Outbox, Purpose, printable};
use super::receiver::{Allowed, Receiver};
use super::sender::Sender;
use super::store::{
    Destined, JobEnd, JobKey, LocalDone, LocalReply, LocalRequest, LocalWork, SourceOrigin, Target,
    TransferId,
};
use crate::payload::{Segment, SegmentKind};
use std::collections::BTreeSet;
use storage_mapping::Instant;

#[derive(Debug)]
enum State {
    Asking,
    Closing,
    Finished,
    Idle,
    Listing,
    OpeningFiles,
    OpeningJob,
    Receiving(Box<Receiver>),
    Sending(Box<Sender>),
}

/// What the job at hand is, for both sides.
#[derive(Debug)]
struct Current {
    open: JobOpen,
    /// The requester's own end, or what the responder opens.
    here: Here,
    permitted: BTreeSet<TransferId>,
}

#[derive(Debug)]
enum Here {
    Destination(Destined),
    Sources(SourceOrigin),
}

/// One side of a connection.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    out: Outbox,
    state: State,
    current: Option<Current>,
    /// The connection is gone.
    lost: bool,
    interrupted: bool,
    /// Why the whole job failed.
    reason: Option<Reason>,
    /// Counted when the machine was put away.
    unfinished: u64,
    /// The job did not begin.
    not_begun: bool,
    /// JOB_DONE is to be said when the files are closed.
    answer_done: bool,
    /// The job came to its end; what happens to the connection afterwards changes nothing.
    completed: bool,
}

impl Session {
    /// A side that wants something.
    ///
    /// # Panics
    /// If the configuration is not possible.
    #[must_use]
    pub fn requester(config: SessionConfig, job: Job) -> Self {
        let mut session = Self::new(config, true);
        match job {
            Job::List { export, path } => {
                session.state = State::Listing;
                session.out.say(0, Message::List { export, path });
            }
            Job::Pull { peer, export, sources, target, options } => {
                session.start_pull(peer, export, sources, target, options);
            }
            Job::Push { peer, origin, export, destination, options } => {
                session.start_push(peer, origin, export, destination, options);
            }
        }
        session
    }

    /// A side that serves one job after another.
    ///
    /// # Panics
    /// If the configuration is not possible.
    #[must_use]
    pub fn responder(config: SessionConfig) -> Self {
        Self::new(config, false)
    }

    fn new(config: SessionConfig, requester: bool) -> Self {
        let bytes = config.segment_bytes;
        assert!(bytes.is_power_of_two() && bytes >= 16 << 10, "segments are subtrees");
        assert!((1..=24).contains(&config.payloads_max));
        Self {
            config,
            out: Outbox::new(requester),
            state: State::Idle,
            current: None,
            lost: false,
            interrupted: false,
            reason: None,
            unfinished: 0,
            not_begun: false,
            answer_done: false,
            completed: false,
        }
    }

    /// Says how many payloads this side may have in hand from now on.
    pub(crate) fn set_payloads_max(&mut self, payloads_max: usize) {
        self.config.payloads_max = payloads_max;
        match &mut self.state {
            State::Sending(sender) => sender.payloads_max = payloads_max,
            State::Receiving(receiver) => receiver.payloads_max = payloads_max,
            _ => {}
        }
    }

    fn start_pull(
        &mut self,
        peer: String,
        export: Vec<u8>,
        sources: Vec<RelativePath>,
        target: Target,
        mut options: JobOptions,
    ) {
        let stream = target == Target::Stream;
        options.set(JobOptions::STREAM, stream);
        let single = match &sources[..] {
            [one] => Some(one.split_last().map_or_else(|| export.clone(), |(_, name)| name.to_vec())),
            _ => None,
        };
        let local = match &target {
            Target::Local(path) => vec![path.clone()],
            _ => Vec::new(),
        };
        let remote = sources.iter().map(|path| path.as_bytes().to_vec()).collect();
        let key = JobKey { peer, pull: true, export: export.clone(), remote, local, durable: !stream };
        let source_count = u32::try_from(sources.len()).unwrap_or(u32::MAX);
        let destination = RelativePath::root();
        let open = JobOpen {
            nonce: [0; 16],
            pull: true,
            options,
            export,
            destination,
            source_count,
            single,
            sources,
        };
        let here = Here::Destination(destined(&open, target));
        if open.sources.is_empty() || open.sources.len() > SOURCES_MAX || stream && open.sources.len() != 1 {
            self.reason = Some(LocalError::with_text(ErrorCode::Limit, "number of sources").into());
        }
        self.start(Current { open, here, permitted: BTreeSet::new() }, key);
    }

    fn start_push(
        &mut self,
        peer: String,
        origin: SourceOrigin,
        export: Vec<u8>,
        destination: RelativePath,
        mut options: JobOptions,
    ) {
        let stream = origin == SourceOrigin::Stream;
        options.set(JobOptions::STREAM, stream);
        let local = match &origin {
            SourceOrigin::Local(paths) => paths.clone(),
            _ => Vec::new(),
        };
        let single = match &local[..] {
            [] if stream => Some(Vec::new()),
            [one] => Some(source_name(one).to_vec()),
            _ => None,
        };
        let remote = vec![destination.as_bytes().to_vec()];
        let source_count = if stream { 1 } else { u32::try_from(local.len()).unwrap_or(u32::MAX) };
        let key = JobKey { peer, pull: false, export: export.clone(), remote, local, durable: !stream };
        let sources = Vec::new();
        let open = JobOpen {
            nonce: [0; 16],
            pull: false,
            options,
            export,
            destination,
            source_count,
            single,
            sources,
        };
        let here = Here::Sources(origin);
        self.start(Current { open, here, permitted: BTreeSet::new() }, key);
    }

    fn start(&mut self, current: Current, key: JobKey) {
        self.current = Some(current);
        self.state = State::OpeningJob;
        self.out.ask(Purpose::OpenJob, LocalWork::OpenJob(key));
    }

    // ---- in -------------------------------------------------------------------------------------

    /// Takes the next segment of the connection.
    ///
    /// # Errors
    /// If the peer broke the protocol; the connection is then to be ended with `handle_lost`.
    pub fn handle_segment(&mut self, now: Instant, segment: Segment) -> Result<(), ProtocolViolation> {
        if self.lost || matches!(self.state, State::Finished) {
            return Ok(());
        }
        if segment.kind == SegmentKind::Command {
            for Framed { request, message } in parse_all(segment.payload.bytes())? {
                self.handle_message(now, request, message)?;
            }
        } else if let State::Receiving(receiver) = &mut self.state {
            receiver.handle_data(segment, &mut self.out)?;
        } else if !matches!(self.state, State::Closing) {
            return Err(ProtocolViolation::Data);
        }
        self.pump(now);
        Ok(())
    }

    /// Whether another segment may be delivered now.
    #[must_use]
    pub fn wants_segment(&self) -> bool {
        match &self.state {
            State::Receiving(receiver) => receiver.wants_segment(),
            _ => true,
        }
    }

    fn handle_message(
        &mut self,
        now: Instant,
        request: u64,
        message: Message,
    ) -> Result<(), ProtocolViolation> {
        let opcode = message.opcode();
        match (&mut self.state, message) {
            (State::Idle, Message::JobOpen(open)) => self.handle_job_open(open),
            (State::Idle, Message::List { export, path }) => {
                self.state = State::Listing;
                self.out.ask(Purpose::List, LocalWork::List { export, path });
            }
            (State::Asking, Message::JobAccept) => self.begin(),
            (State::Asking | State::Listing, Message::JobRefuse(reason)) if self.out.requester => {
                self.refused(reason);
            }
            (State::Listing, Message::ListEntries { last, entries }) if self.out.requester => {
                self.out.tally.files += entries.len() as u64;
                self.out.event(SessionEvent::Entries(entries));
                if last {
                    self.finish();
                }
            }
            (State::Sending(sender), Message::JobDone) if sender.has_ended() => self.close(true),
            (State::Receiving(receiver), Message::EndOfJob) => {
                if receiver.unfinished() > 0 {
                    return Err(ProtocolViolation::Unexpected { opcode });
                }
                self.answer_done = true;
            }
            (State::Sending(sender), message) => sender.handle_message(request, message, &mut self.out)?,
            (State::Receiving(receiver), message) => {
                receiver.handle_message(now, request, message, &mut self.out)?
            }
            (State::Closing, _) => {}
            _ => return Err(ProtocolViolation::Unexpected { opcode }),
        }
        Ok(())
    }

    fn handle_job_open(&mut self, open: JobOpen) {
        self.out.job += 1;
        self.out.tally = super::outbox::Tally::default();
        let here = if open.pull {
            Here::Sources(SourceOrigin::Export { export: open.export.clone(), paths: open.sources.clone() })
        } else {
            let target = Target::Export { export: open.export.clone(), path: open.destination.clone() };
            Here::Destination(destined(&open, target))
        };
        self.current = Some(Current { open, here, permitted: BTreeSet::new() });
        self.open_files();
    }

    /// Takes the answer to local work.
    pub fn handle_local(&mut self, now: Instant, reply: LocalReply) {
        let Some(purpose) = self.out.answered(reply.id) else { return };
        match purpose {
            Purpose::OpenJob => self.handle_job_opened(reply.done),
            Purpose::OpenSources | Purpose::OpenDestination => self.handle_files_opened(reply.done),
            Purpose::List => self.handle_listed(reply.done),
            Purpose::CloseDestination => self.handle_destination_closed(reply.done),
            Purpose::CloseJob => self.job_closed(),
            purpose => match &mut self.state {
                State::Sending(sender) => sender.handle_local(reply.id, purpose, reply.done, &mut self.out),
                State::Receiving(receiver) => {
                    if let Err(error) = receiver.handle_local(now, purpose, reply.done, &mut self.out) {
                        // Without its journal this side may not say a word more.
                        self.reason = Some(error.into());
                        self.handle_lost(now, LossReason::Lost);
                    }
                }
                _ => {}
            },
        }
        self.pump(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.pump(now);
    }

    /// The connection has ended.
    pub fn handle_lost(&mut self, now: Instant, _reason: LossReason) {
        if self.lost || matches!(self.state, State::Finished) {
            return;
        }
        self.lost = true;
        self.out.drop_messages();
        match &mut self.state {
            State::Receiving(receiver) => receiver.stop(&mut self.out),
            State::Sending(_) => self.out.drop_local(),
            _ => {}
        }
        self.pump(now);
    }

    /// The user wants to stop: what is permitted is waited for, everything else is left.
    pub fn handle_interrupt(&mut self, now: Instant) {
        if self.interrupted {
            return self.handle_lost(now, LossReason::Closed);
        }
        self.interrupted = true;
        match &mut self.state {
            State::Sending(sender) => sender.interrupt(&mut self.out),
            State::Receiving(receiver) => receiver.stop(&mut self.out),
            State::Closing => {}
            _ => return self.handle_lost(now, LossReason::Closed),
        }
        self.pump(now);
    }

    // ---- out ------------------------------------------------------------------------------------

    /// The next segment for the connection, which has room for it.
    pub fn poll_segment(&mut self, now: Instant) -> Option<Segment> {
        if self.lost {
            return None;
        }
        // Data may first queue the messages that go before it.
        for pass in 0.. {
            if let Some(segment) = self.out.poll_command(&self.config.pool, self.config.segment_bytes) {
                return Some(segment);
            }
            if let State::Sending(sender) = &mut self.state
                && let Some(segment) = sender.poll_data(&mut self.out)
            {
                self.pump(now);
                return Some(segment);
            }
            self.pump(now);
            if pass > 0 && self.out.messages_waiting() == 0 {
                break;
            }
        }
        None
    }

    /// Whether local work waits to be polled.
    #[must_use]
    pub fn has_local(&self) -> bool {
        self.out.has_local()
    }

    /// The next local work; several may be out at once.
    pub fn poll_local(&mut self, now: Instant) -> Option<LocalRequest> {
        self.pump(now);
        self.out.poll_local()
    }

    /// What the user may want to see.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.out.poll_event()
    }

    /// When time alone will change something.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        match &self.state {
            State::Receiving(receiver) if !self.lost && !self.interrupted => receiver.next_wakeup(),
            _ => None,
        }
    }

    /// Nothing more will be asked for or said; waiting segments should still be polled.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self.state, State::Finished)
    }

    /// A responder without a job.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    // ---- from state to state --------------------------------------------------------------------

    fn pump(&mut self, now: Instant) {
        // A stream may give its next byte tomorrow, or never: nobody waits for that read.
        let reads_stream = self
            .current
            .as_ref()
            .is_some_and(|current| matches!(current.here, Here::Sources(SourceOrigin::Stream)));
        let idle = self.out.local_out() == 0;
        match &mut self.state {
            State::Sending(_) if self.lost && (idle || reads_stream) => self.close(false),
            State::Sending(_) if self.lost => {}
            State::Sending(sender) => {
                sender.pump(&mut self.out);
                if self.interrupted && sender.stopped() {
                    self.close(false);
                }
            }
            State::Receiving(receiver) => {
                if !self.lost {
                    receiver.pump(now, &mut self.out);
                }
                let ended = self.answer_done || self.lost || self.interrupted;
                if ended && self.out.local_out() == 0 {
                    self.unfinished = receiver.unfinished();
                    let finished = self.answer_done;
                    self.state = State::Closing;
                    self.out.ask(Purpose::CloseDestination, LocalWork::CloseDestination { finished });
                }
            }
            State::Asking | State::OpeningFiles | State::OpeningJob | State::Listing if self.lost && idle => {
                self.close(false);
            }
            State::Idle if self.lost => self.state = State::Finished,
            _ => {}
        }
    }

    fn handle_job_opened(&mut self, done: Result<LocalDone, LocalError>) {
        if self.lost {
            return;
        }
        match (done, &mut self.current) {
            (Ok(LocalDone::JobOpened { nonce, permitted }), Some(current)) if self.reason.is_none() => {
                current.open.nonce = nonce;
                current.permitted = permitted;
                self.open_files();
            }
            (Err(error), _) => self.refused(error.into()),
            _ => self.refused(ErrorCode::Io.into()),
        }
    }

    fn open_files(&mut self) {
        let Some(current) = &self.current else { return };
        self.state = State::OpeningFiles;
        match &current.here {
            Here::Sources(origin) => {
                let recursive = current.open.options.contains(JobOptions::RECURSIVE);
                let work = LocalWork::OpenSources { origin: origin.clone(), recursive };
                self.out.ask(Purpose::OpenSources, work);
            }
            Here::Destination(destined) => {
                let work = LocalWork::OpenDestination(destined.clone());
                self.out.ask(Purpose::OpenDestination, work);
            }
        }
    }

    fn handle_files_opened(&mut self, done: Result<LocalDone, LocalError>) {
        if self.lost {
            return;
        }
        match (done, self.out.requester) {
            (Ok(_), true) => {
                let Some(current) = &self.current else { return };
                self.out.say(0, Message::JobOpen(current.open.clone()));
                self.state = State::Asking;
            }
            (Ok(_), false) => {
                self.out.say(0, Message::JobAccept);
                self.begin();
            }
            (Err(error), true) => self.refused(error.into()),
            (Err(error), false) => {
                self.out.say(0, Message::JobRefuse(error.into()));
                self.close(true);
            }
        }
    }

    /// Both sides are open: the job runs.
    fn begin(&mut self) {
        let Some(current) = &mut self.current else { return };
        let options = current.open.options;
        let stream = options.contains(JobOptions::STREAM);
        self.state = match &current.here {
            Here::Sources(origin) => {
                let permitted = std::mem::take(&mut current.permitted);
                let from_stream = *origin == SourceOrigin::Stream;
                let sender = Sender::new(&self.config, current.open.nonce, permitted, stream, from_stream);
                State::Sending(Box::new(sender))
            }
            Here::Destination(destined) => {
                let allowed = if current.open.pull {
                    let export = &current.open.export;
                    let name = |path: &RelativePath| match path.split_last() {
                        Some((_, name)) => name.to_vec(),
                        None => export.clone(),
                    };
                    Allowed::Names(current.open.sources.iter().map(name).collect())
                } else {
                    Allowed::Any
                };
                let to_stream = destined.target == Target::Stream;
                let recursive = options.contains(JobOptions::RECURSIVE);
                State::Receiving(Box::new(Receiver::new(&self.config, allowed, recursive, to_stream)))
            }
        };
    }

    fn handle_listed(&mut self, done: Result<LocalDone, LocalError>) {
        match done {
            Ok(LocalDone::Listed(entries)) => {
                // An entry has at most 292 bytes on the wire.
                let per_message = ENTRIES_MAX.min(self.config.segment_bytes / 300 - 1);
                let mut chunks = entries.chunks(per_message).peekable();
                if chunks.peek().is_none() {
                    self.out.say(0, Message::ListEntries { last: true, entries: Vec::new() });
                }
                while let Some(chunk) = chunks.next() {
                    let last = chunks.peek().is_none();
                    self.out.say(0, Message::ListEntries { last, entries: chunk.to_vec() });
                }
            }
            Ok(_) => self.out.say(0, Message::JobRefuse(ErrorCode::Io.into())),
            Err(error) => self.out.say(0, Message::JobRefuse(error.into())),
        }
        self.state = State::Idle;
    }

    /// The job does not begin.
    fn refused(&mut self, reason: Reason) {
        self.reason = Some(self.reason.take().unwrap_or(reason));
        self.not_begun = true;
        if matches!(self.state, State::Listing) {
            self.finish();
        } else {
            self.close(false);
        }
    }

    /// Ends the job's local side: `finished` where every file's last word is known.
    fn close(&mut self, finished: bool) {
        self.completed = finished;
        let mut settled = Vec::new();
        let mut known = finished && self.out.tally.busy == 0;
        if let State::Sending(sender) = &mut self.state {
            settled = sender.take_settled();
            let in_doubt = sender.in_doubt();
            self.out.tally.in_doubt += in_doubt;
            self.unfinished = sender.unfinished().saturating_sub(in_doubt);
            known &= self.out.tally.in_doubt == 0;
        }
        if matches!(self.state, State::Listing) {
            return self.finish();
        }
        self.state = State::Closing;
        if !known && !settled.is_empty() {
            self.out.ask(Purpose::Ignored, LocalWork::RecordSettled(settled));
        }
        let end = match (known, self.not_begun) {
            (true, _) => JobEnd::Finished,
            (false, true) => JobEnd::Refused,
            (false, false) => JobEnd::Unfinished,
        };
        self.out.ask(Purpose::CloseJob, LocalWork::CloseJob(end));
    }

    fn handle_destination_closed(&mut self, done: Result<LocalDone, LocalError>) {
        match done {
            Ok(LocalDone::Failures(failures)) => {
                for (path, error) in failures {
                    let reason = Reason::from(error);
                    self.out.left_out(&path, &reason, false);
                    if !self.lost && self.answer_done {
                        self.out.say(0, Message::Notice { skipped: false, path, reason });
                    }
                }
            }
            Ok(_) => {}
            Err(error) => self.reason = Some(error.into()),
        }
        let finished = std::mem::take(&mut self.answer_done);
        self.completed = finished;
        if finished && !self.lost {
            self.out.say(0, Message::JobDone);
        }
        let end = if finished { JobEnd::Finished } else { JobEnd::Unfinished };
        self.out.ask(Purpose::CloseJob, LocalWork::CloseJob(end));
    }

    fn job_closed(&mut self) {
        self.current = None;
        if self.out.requester {
            self.finish();
        } else if self.lost {
            self.state = State::Finished;
        } else {
            self.state = State::Idle;
        }
    }

    fn finish(&mut self) {
        self.state = State::Finished;
        let tally = self.out.tally;
        let busy = self.reason.as_ref().is_some_and(|reason| reason.code == ErrorCode::Busy);
        let retry = busy || tally.busy > 0 && self.reason.is_none();
        let ended_early = (self.lost || self.interrupted) && !self.completed;
        let verdict = if tally.in_doubt > 0 {
            Verdict::InDoubt
        } else if retry || ended_early && self.reason.is_none() {
            Verdict::Retry
        } else if self.reason.is_some() || tally.failed > 0 && tally.files == 0 {
            Verdict::Failed
        } else if tally.failed + tally.skipped > 0 {
            Verdict::Partly
        } else {
            Verdict::Done
        };
        let reason = self.reason.take().map(|reason| (reason.code, printable(&reason.text)));
        let outcome = Outcome {
            verdict,
            files: tally.files,
            bytes: tally.bytes,
            failed: tally.failed,
            skipped: tally.skipped,
            in_doubt: tally.in_doubt,
            unfinished: self.unfinished,
            reason,
        };
        self.out.event(SessionEvent::Finished(outcome));
    }
}

fn destined(open: &JobOpen, target: Target) -> Destined {
    let has = |option| open.options.contains(option);
    Destined {
        target,
        single: if open.source_count == 1 { open.single.clone() } else { None },
        must_be_directory: has(JobOptions::MUST_BE_DIRECTORY),
        stream: has(JobOptions::STREAM),
        no_clobber: has(JobOptions::NO_CLOBBER),
        preserve: has(JobOptions::PRESERVE),
    }
}

/// The name under which a local source is announced; empty where the path has none, as `.` or `/`.
#[must_use]
pub(crate) fn source_name(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |at| at + 1);
    let name = path[..end].rsplit(|&byte| byte == b'/').next().unwrap_or(&[]);
    if super::name::name_is_allowed(name) { name } else { &[] }
}
