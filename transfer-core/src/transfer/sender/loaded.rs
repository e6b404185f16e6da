//! The sender's half of the conversation with the store: what it answered, and what follows.
//!
//! What holds: PERMIT is said only here, after the store recorded it. Not here: the peer's words and
//! the states (`sender`).

use super::{Found, Load, PREFIX_SEGMENTS, Sender, State, Walk, leave_out};
use crate::transfer::code::{ErrorCode, LocalError};
use crate::transfer::message::{Message, Reason, RootItem};
use crate::transfer::name::RelativePath;
use crate::transfer::outbox::{Outbox, Purpose};
use crate::transfer::store::{LoadedFile, LocalDone, LocalWork, TransferId, WalkItem};

impl Sender {
    pub(in crate::transfer) fn handle_local(
        &mut self,
        id: u64,
        purpose: Purpose,
        done: Result<LocalDone, LocalError>,
        out: &mut Outbox,
    ) {
        match (purpose, done) {
            (Purpose::Walk, Ok(LocalDone::Walked { entries, end })) => {
                self.walk = if end { Walk::Ended } else { Walk::Open };
                if !self.stopping {
                    let found = |entry| Found { entry, round: 0, mismatched: false };
                    self.found.extend(entries.into_iter().map(found));
                }
            }
            (Purpose::Walk, Err(error)) => {
                self.walk = Walk::Ended;
                leave_out(out, RelativePath::root(), error, false);
            }
            (Purpose::Load, done) => self.handle_loaded(id, done, out),
            (Purpose::SourcePrefix { index }, done) => self.handle_prefix(index, done, out),
            (Purpose::Permits { batch, items }, Ok(LocalDone::Permits(unchanged))) => {
                self.handle_permits(batch, &items, &unchanged, out);
            }
            (Purpose::Permits { items, .. }, Err(error)) => {
                for item in items {
                    self.give_up(item.index, error.clone().into(), out);
                }
            }
            _ => {}
        }
    }

    fn handle_loaded(&mut self, local: u64, done: Result<LocalDone, LocalError>, out: &mut Outbox) {
        let Some(at) = self.pipeline.iter().position(|slot| slot.local == local) else { return };
        match (&mut self.pipeline[at].load, done) {
            (Load::Segment { ready, .. }, Ok(LocalDone::SegmentLoaded { payload, hash })) => {
                *ready = Some((payload, hash, false));
            }
            (Load::Segment { ready, .. }, Ok(LocalDone::StreamRead { payload, hash, end })) => {
                *ready = Some((payload, hash, end));
                self.reading = end;
            }
            (Load::Segment { index, .. }, Err(error)) => {
                let index = *index;
                self.pipeline.remove(at);
                self.give_up(index, error.into(), out);
            }
            (Load::Pack { files, ready, .. }, Ok(LocalDone::PackLoaded { payload, files: loaded })) => {
                *ready = Some(payload);
                let files = files.clone();
                for (index, loaded) in files.into_iter().zip(loaded) {
                    self.handle_small_loaded(index, loaded, out);
                }
            }
            (Load::Pack { files, .. }, Err(error)) => {
                let files = std::mem::take(files);
                self.pipeline.remove(at);
                for index in files {
                    self.handle_small_loaded(index, Err(error.clone()), out);
                }
            }
            _ => {
                self.pipeline.remove(at);
            }
        }
    }

    fn handle_small_loaded(&mut self, index: u32, loaded: Result<LoadedFile, LocalError>, out: &mut Outbox) {
        let Some(file) = self.files.get_mut(&index) else { return };
        match loaded {
            Ok(loaded) => {
                let path = &file.found.entry.announced;
                file.id = TransferId::derive(&self.nonce, file.found.round, path, &loaded.identity);
                file.found.entry.item = WalkItem::File(loaded.identity, loaded.attributes);
                file.source.identity = loaded.identity;
                file.attributes = loaded.attributes;
                file.size = Some(loaded.identity.size);
                file.root = Some(loaded.root);
            }
            Err(error) => {
                if let Some(file) = self.files.remove(&index) {
                    leave_out(out, file.found.entry.announced, error, false);
                }
            }
        }
    }

    fn handle_prefix(&mut self, index: u32, done: Result<LocalDone, LocalError>, out: &mut Outbox) {
        let Some(file) = self.files.get_mut(&index).filter(|file| file.state == State::Hashing) else {
            return;
        };
        match done {
            Ok(LocalDone::Hashes(hashes)) => {
                for hash in &hashes {
                    file.builder.add(hash);
                }
                file.sent += hashes.len() as u64 * self.segment;
                self.go_on(index, out);
            }
            Ok(_) => self.give_up(index, ErrorCode::Io.into(), out),
            Err(error) => self.give_up(index, error.into(), out),
        }
    }

    /// Hashes what need not be sent, then sends.
    pub(super) fn go_on(&mut self, index: u32, out: &mut Outbox) {
        let Some(file) = self.files.get_mut(&index) else { return };
        if file.sent < file.resume {
            file.state = State::Hashing;
            let (offset, length) = (file.sent, (file.resume - file.sent).min(PREFIX_SEGMENTS * self.segment));
            let file = file.source.clone();
            out.ask(Purpose::SourcePrefix { index }, LocalWork::HashSource { file, offset, length });
            return;
        }
        file.state = State::Sending;
        file.next = file.resume;
        out.moved(file.resume);
        if file.size == Some(file.resume) {
            self.say_end(index, out);
        } else {
            self.sending.push_back(index);
        }
    }

    fn handle_permits(&mut self, batch: u64, items: &[RootItem], unchanged: &[bool], out: &mut Outbox) {
        let mut permits = Vec::new();
        for (item, &unchanged) in items.iter().zip(unchanged) {
            let Some(file) = self.files.get_mut(&item.index).filter(|f| f.state == State::Checking) else {
                continue;
            };
            if self.stopping {
                // The permit may be durable and is not said: a re-run asks with the permit bit.
                self.files.remove(&item.index);
            } else if unchanged {
                file.state = State::Permitted;
                permits.push(*item);
            } else {
                self.give_up(item.index, ErrorCode::Changed.into(), out);
            }
        }
        if !permits.is_empty() {
            out.say(batch, Message::Permit(permits));
        }
    }

    /// Before a permit: says ABORT and waits for the word.
    pub(super) fn give_up(&mut self, index: u32, reason: Reason, out: &mut Outbox) {
        let Some(file) = self.files.get_mut(&index) else { return };
        if matches!(file.state, State::Permitted | State::Aborting) {
            return;
        }
        if matches!(file.state, State::Asked | State::Hashing | State::Sending) {
            self.large -= 1;
        }
        file.state = State::Aborting;
        out.say(u64::from(index), Message::Abort(file.id, reason.clone()));
        file.reason = Some(reason);
    }
}
