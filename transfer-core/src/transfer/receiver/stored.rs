//! The receiver's half of the conversation with the store: what it answered, and what follows.
//!
//! What holds: a word that is in the journal is said only here, after the store's answer. Not here:
//! the peer's words and the states (`receiver`).

use super::{CHECKPOINT_AGE, CHECKPOINT_BYTES, COMMITTED_MAX, Receiver, State, refuse_item};
use crate::transfer::code::{ErrorCode, LocalError};
use crate::transfer::message::{CommittedItem, Message, Reason, RootItem};
use crate::transfer::name::RelativePath;
use crate::transfer::outbox::{Outbox, Purpose};
use crate::transfer::root::SegmentHash;
use crate::transfer::sender::PREFIX_SEGMENTS;
use crate::transfer::store::{FileAnswer, KnownAnswer, LocalDone, LocalWork};
use storage_mapping::Instant;

impl Receiver {
    /// Takes an answer. An error in return means that the journal cannot be trusted to have been
    /// written: the connection has to end without a word about these files.
    pub(in crate::transfer) fn handle_local(
        &mut self,
        now: Instant,
        purpose: Purpose,
        done: Result<LocalDone, LocalError>,
        out: &mut Outbox,
    ) -> Result<(), LocalError> {
        match purpose {
            Purpose::OpenFile { index } => {
                self.back(index);
                let answer = match done {
                    Ok(LocalDone::FileOpened(answer)) => answer,
                    Ok(_) => FileAnswer::Refused(LocalError::new(ErrorCode::Io)),
                    Err(error) => FileAnswer::Refused(error),
                };
                let busy = matches!(&answer, FileAnswer::Refused(error) if error.code == ErrorCode::Busy);
                if busy && self.waits_for_busy(now, index) {
                    return Ok(());
                }
                if let Some((inode, resume)) = self.handle_answer(index, answer, out)
                    && let Some(file) = self.files.get_mut(&index)
                {
                    (file.inode, file.resume) = (inode, resume);
                    self.hash_on(index, out);
                }
            }
            Purpose::PartialPrefix { index } => self.handle_prefix(index, done, out),
            Purpose::StoreSegment { index, offset, length } => {
                self.in_hand -= 1;
                self.streaming = false;
                self.back(index);
                match done {
                    Ok(LocalDone::SegmentStored(hash)) => {
                        self.handle_stored(now, index, offset, length, hash, out)
                    }
                    Ok(_) => self.give_up(index, ErrorCode::Io.into(), out),
                    Err(error) => self.give_up(index, error.into(), out),
                }
            }
            Purpose::StorePack { files } => {
                self.in_hand -= 1;
                self.packs_out -= 1;
                self.store_packs(out);
                self.handle_pack_stored(now, &files, done, out);
            }
            Purpose::Checkpoint { index, length } => {
                self.back(index);
                if let Some(file) = self.files.get_mut(&index) {
                    file.marking = false;
                    (file.marked, file.marked_at) = (length, now);
                }
                match done {
                    Err(error) => self.give_up(index, error.into(), out),
                    Ok(_) => self.abort_if_idle(index),
                }
            }
            Purpose::Sync { files } => {
                let synced = match done {
                    Ok(LocalDone::Synced(synced)) => synced,
                    Ok(_) => vec![Err(LocalError::new(ErrorCode::Io)); files.len()],
                    Err(error) => vec![Err(error); files.len()],
                };
                self.handle_synced(&files, synced, out);
            }
            Purpose::Publish { batch, files } => match done? {
                LocalDone::Published(published) => self.handle_published(batch, &files, published, out),
                _ => return Err(LocalError::new(ErrorCode::Io)),
            },
            Purpose::Abort { files } => match done? {
                LocalDone::Aborted(words) => {
                    self.aborting = false;
                    self.handle_aborted(files, words, out);
                }
                _ => return Err(LocalError::new(ErrorCode::Io)),
            },
            Purpose::Make => self.handle_made(done, out),
            _ => {}
        }
        Ok(())
    }

    /// Directories or links were made, but for the failures.
    fn handle_made(&mut self, done: Result<LocalDone, LocalError>, out: &mut Outbox) {
        self.making = false;
        let failures = match done {
            Ok(LocalDone::Failures(failures)) => failures,
            Ok(_) => Vec::new(),
            Err(error) => vec![(RelativePath::root(), error)],
        };
        for (path, error) in failures {
            refuse_item(out, path, error.into());
        }
    }

    /// A local request about a file came back.
    pub(super) fn back(&mut self, index: u32) {
        if let Some(file) = self.files.get_mut(&index) {
            file.busy -= 1;
        }
    }

    /// Settles a file that the store refused or knows; else gives inode and resume offset.
    fn handle_answer(&mut self, index: u32, answer: FileAnswer, out: &mut Outbox) -> Option<(u64, u64)> {
        let request = u64::from(index);
        let (id, path, size) =
            self.files.get(&index).map(|f| (f.file.id, f.file.path.clone(), f.file.size.unwrap_or(0)))?;
        match answer {
            FileAnswer::Opened { inode, resume } => {
                self.abort_if_idle(index);
                return Some((inode, resume))
                    .filter(|_| self.files.get(&index).is_some_and(|file| file.state != State::Aborting));
            }
            FileAnswer::Known(KnownAnswer::Committed { present }) => {
                if present && out.requester {
                    out.file_done(&path, size);
                }
                let item = CommittedItem { index, id, known: true, present };
                out.say(request, Message::Committed(vec![item]));
            }
            FileAnswer::Known(KnownAnswer::Aborted) => {
                out.say(request, Message::Aborted(id, ErrorCode::AlreadyAborted.into()));
            }
            FileAnswer::Refused(error) if error.code == ErrorCode::RootMismatch => {
                self.give_up(index, error.into(), out);
                return None;
            }
            FileAnswer::Refused(error) => {
                let reason = Reason::from(error);
                out.left_out(&path, &reason, false);
                out.say(request, Message::Refuse(reason));
            }
        }
        self.settle(index);
        None
    }

    fn handle_prefix(&mut self, index: u32, done: Result<LocalDone, LocalError>, out: &mut Outbox) {
        self.back(index);
        match done {
            Ok(LocalDone::Hashes(hashes)) => {
                if let Some(file) = self.files.get_mut(&index) {
                    for hash in &hashes {
                        file.builder.add(hash);
                    }
                    file.stored += hashes.len() as u64 * self.segment;
                }
                self.hash_on(index, out);
            }
            Ok(_) => self.give_up(index, ErrorCode::Io.into(), out),
            Err(error) => self.give_up(index, error.into(), out),
        }
    }

    /// Hashes the durable prefix, then says ACCEPT.
    fn hash_on(&mut self, index: u32, out: &mut Outbox) {
        let Some(file) = self.files.get_mut(&index) else { return };
        if file.state == State::Aborting {
            self.abort_if_idle(index);
        } else if file.stored < file.resume {
            file.state = State::Hashing;
            file.busy += 1;
            let (offset, left) = (file.stored, file.resume - file.stored);
            let length = left.min(PREFIX_SEGMENTS * self.segment);
            out.ask(Purpose::PartialPrefix { index }, LocalWork::HashPartial { index, offset, length });
        } else {
            file.state = State::Receiving;
            (file.received, file.marked) = (file.resume, file.resume);
            out.moved(file.resume);
            out.say(u64::from(index), Message::Accept { resume: file.resume });
        }
    }

    fn handle_stored(
        &mut self,
        now: Instant,
        index: u32,
        offset: u64,
        length: u64,
        hash: SegmentHash,
        out: &mut Outbox,
    ) {
        let Some(file) = self.files.get_mut(&index) else { return };
        file.early.insert(offset, (length, hash));
        while let Some((length, hash)) = file.early.remove(&file.stored) {
            file.builder.add(&hash);
            file.stored += length;
        }
        if file.state == State::Aborting {
            self.abort_if_idle(index);
            return;
        }
        let grown = file.stored - file.marked;
        let due = grown >= CHECKPOINT_BYTES || grown > 0 && now.since(file.marked_at) >= CHECKPOINT_AGE;
        if due && file.end.is_none() && !file.marking && !self.stream && file.file.size.is_some() {
            self.checkpoint(index, out);
        }
        self.finish_if_stored(now, index, out);
    }

    pub(super) fn checkpoint(&mut self, index: u32, out: &mut Outbox) {
        let Some(file) = self.files.get_mut(&index) else { return };
        file.marking = true;
        file.busy += 1;
        let length = file.stored;
        out.ask(Purpose::Checkpoint { index, length }, LocalWork::Checkpoint { index, length });
    }

    pub(super) fn finish_if_stored(&mut self, now: Instant, index: u32, out: &mut Outbox) {
        let Some(file) = self.files.get_mut(&index) else { return };
        let Some((length, root)) = file.end else { return };
        if file.state != State::Receiving || file.stored < length {
            return;
        }
        let computed = std::mem::take(&mut file.builder).finish();
        if computed != root || file.root.is_some_and(|announced| announced != root) {
            self.give_up(index, ErrorCode::RootMismatch.into(), out);
        } else if file.file.size.is_some_and(|size| size != length) {
            self.give_up(index, ErrorCode::Changed.into(), out);
        } else {
            file.root = Some(root);
            file.state = State::Written;
            self.gather.add(now, index, length);
        }
    }

    fn handle_pack_stored(
        &mut self,
        now: Instant,
        files: &[u32],
        done: Result<LocalDone, LocalError>,
        out: &mut Outbox,
    ) {
        let answers = match done {
            Ok(LocalDone::PackStored(answers)) => answers,
            Ok(_) => vec![FileAnswer::Refused(LocalError::new(ErrorCode::Io)); files.len()],
            Err(error) => vec![FileAnswer::Refused(error); files.len()],
        };
        for (&index, answer) in files.iter().zip(answers) {
            self.back(index);
            if let Some((inode, _)) = self.handle_answer(index, answer, out)
                && let Some(file) = self.files.get_mut(&index)
            {
                file.inode = inode;
                file.stored = file.file.size.unwrap_or(0);
                file.state = State::Written;
                let length = file.stored;
                self.gather.add(now, index, length);
            }
        }
    }

    pub(super) fn handle_synced(
        &mut self,
        files: &[u32],
        synced: Vec<Result<(), LocalError>>,
        out: &mut Outbox,
    ) {
        let mut ready = Vec::new();
        let mut batch = 0;
        for (&index, synced) in files.iter().zip(synced) {
            self.back(index);
            let Some(file) = self.files.get_mut(&index) else { continue };
            batch = file.batch.unwrap_or(0);
            match synced {
                Ok(()) if file.state == State::Syncing => {
                    file.state = State::Ready;
                    let root = file.root.expect("a written file has a root");
                    ready.push(RootItem { index, id: file.file.id, root });
                }
                Ok(()) => self.abort_if_idle(index),
                Err(error) => self.give_up(index, error.into(), out),
            }
        }
        if !ready.is_empty() {
            out.say(batch, Message::Ready(ready));
        }
    }

    pub(super) fn handle_published(
        &mut self,
        batch: u64,
        files: &[u32],
        published: Vec<Result<(), LocalError>>,
        out: &mut Outbox,
    ) {
        let mut committed = Vec::new();
        for (&index, published) in files.iter().zip(published) {
            let Some(file) = self.settle(index) else { continue };
            let id = file.file.id;
            match published {
                Ok(()) => {
                    committed.push(CommittedItem { index, id, known: false, present: true });
                    out.file_done(&file.file.path, file.stored);
                }
                Err(error) => {
                    let reason = Reason::from(error);
                    out.left_out(&file.file.path, &reason, false);
                    out.say(u64::from(index), Message::Aborted(id, reason));
                }
            }
        }
        for part in committed.chunks(COMMITTED_MAX) {
            out.say(batch, Message::Committed(part.to_vec()));
        }
    }

    pub(super) fn handle_aborted(
        &mut self,
        files: Vec<(u32, Reason)>,
        words: Vec<KnownAnswer>,
        out: &mut Outbox,
    ) {
        for ((index, reason), word) in files.into_iter().zip(words) {
            if matches!(word, KnownAnswer::Committed { .. }) {
                self.handle_answer(index, FileAnswer::Known(word), out);
                continue;
            }
            let Some(file) = self.settle(index) else { continue };
            if !matches!(reason.code, ErrorCode::AlreadyAborted | ErrorCode::RootMismatch) {
                out.left_out(&file.file.path, &reason, false);
            }
            out.say(u64::from(index), Message::Aborted(file.file.id, reason));
        }
    }
}
