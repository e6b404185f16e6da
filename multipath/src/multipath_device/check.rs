//! What the device reads on its own account: probes, and comparisons with a path in use.
//!
//! Keeps true: a path has one probe, or one comparison, at a time, with buffers of its own; a read that takes too long is held
//! against its path, be it the one that is compared with, only if the path did nothing else in the meantime. Not here: when a probe is due and what follows
//! from it (`failover`), the comparison (`proof`).

use storage_mapping::block::time::earliest;
use storage_mapping::{BlockDevice, Buffer, ErrorSource, Instant, IoCompletion, IoRequest, Lba, PathIndex};

use super::{DrillFault, MultipathDevice};
use crate::error_class::{Classified, IoKind, PathAction, RequestFacts, Sent, classify};
use crate::explain::Reason;
use crate::failover::AfterProbe;
use crate::fence::BlockRange;
use crate::flight::{Attempt, Purpose};
use crate::proof::{Proof, Step};
use crate::selector::PathSelector;

/// What is known of a read of our own: its block lies within the device.
const OWN_READ: RequestFacts = RequestFacts { kind: IoKind::Read, sent: Sent::Yes, address_checked: true };

impl<S: PathSelector> MultipathDevice<S> {
    /// Sends the probes that are due.
    pub(super) fn send_probes(&mut self, now: Instant) {
        while let Some(path) = self.core.poll_probe(now) {
            if !self.send_own_read(now, path, Purpose::Probe { is_late: false }, Lba(0)) {
                self.core.handle_failed_probe(now, path);
            }
        }
    }

    /// Reads one block over a path. Says whether the path took it.
    fn send_own_read(&mut self, now: Instant, path: PathIndex, purpose: Purpose, lba: Lba) -> bool {
        if self.drilled(path) == Some(DrillFault::Error) {
            return false;
        }
        let buffer = self.pool.take(self.geometry.block_size.bytes());
        let tag = self.attempts.start(now, path, purpose, buffer.len());
        let is_taken = self.paths[path.0].device.submit(now, IoRequest::read(tag, lba, buffer)).is_ok();
        if is_taken {
            self.paths[path.0].status.in_flight += 1;
            let due = now + self.core.config().attempt_timeout;
            self.check_attempts_at = earliest(self.check_attempts_at, Some(due));
        } else {
            self.attempts.remove(tag);
        }
        is_taken
    }

    /// A probe or a read of a comparison came back.
    pub(super) fn handle_own_read(&mut self, now: Instant, attempt: &Attempt, done: IoCompletion) {
        let path = attempt.path;
        match attempt.purpose {
            Purpose::Proof { of } => {
                let answer = done.outcome.ok().and_then(|()| done.buffer.into_read());
                self.handle_comparison(now, of, answer);
            }
            Purpose::Probe { .. } => match done.outcome {
                Ok(()) => {
                    if self.is_too_small(path) {
                        return self.core.handle_foreign(now, path, Reason::Shrunk);
                    }
                    self.core.handle_probe_time(now, path, now.since(attempt.since));
                    if let AfterProbe::Compare(witness) =
                        self.core.handle_probe_success(now, path, attempt.tag)
                    {
                        self.proofs.push(Proof::new(path, witness, self.geometry.block_count.0));
                        self.compare(now, path, Lba(0));
                    }
                }
                Err(error) => {
                    let mut classified = classify(&error, &OWN_READ);
                    self.note_io_error(now, path, &mut classified, error);
                    self.core.handle_error(now, path, (attempt.tag, attempt.since), &classified, error);
                    self.core.handle_failed_probe(now, path);
                }
            },
            Purpose::Flight(_) | Purpose::Orphan { .. } | Purpose::Forgotten => {}
        }
    }

    /// Whether a path has no longer all the blocks that the device has: it leads elsewhere.
    fn is_too_small(&self, path: PathIndex) -> bool {
        let found = self.paths[path.0].device.geometry();
        found.block_size != self.geometry.block_size || found.block_count < self.geometry.block_count
    }

    /// Reads a block over the path that came back and over its witness.
    fn compare(&mut self, now: Instant, of: PathIndex, lba: Lba) {
        let both = self.proofs.iter().find(|proof| proof.path == of).map(|proof| [proof.path, proof.witness]);
        let Some(both) = both else { return };
        let purpose = Purpose::Proof { of };
        if !both.into_iter().all(|path| self.send_own_read(now, path, purpose, lba)) {
            self.end_comparison(now, of, Step::Undecided);
        }
    }

    fn handle_comparison(&mut self, now: Instant, of: PathIndex, answer: Option<Buffer>) {
        let Some(at) = self.proofs.iter().position(|proof| proof.path == of) else { return };
        let compared = BlockRange::new(self.proofs[at].block(), 1);
        let block_bytes = self.geometry.block_size.bytes();
        let overlaps = |range: BlockRange| range.overlaps(compared);
        let is_written = self.flights.iter().any(|flight| flight.range(block_bytes).is_some_and(overlaps));
        match self.proofs[at].handle_answer(answer, is_written) {
            Step::Wait => {}
            Step::Read(lba) => self.compare(now, of, lba),
            step => self.end_comparison(now, of, step),
        }
    }

    fn end_comparison(&mut self, now: Instant, of: PathIndex, step: Step) {
        let witness = self.proofs.iter().find(|proof| proof.path == of).map_or(of, |proof| proof.witness);
        self.proofs.retain(|proof| proof.path != of);
        self.attempts.forget(Purpose::Proof { of });
        self.has_changed = true;
        match step {
            Step::Same => self.core.handle_proof(now, of),
            Step::Foreign => self.core.handle_foreign(now, of, Reason::Differs(witness)),
            Step::Wait | Step::Read(_) | Step::Undecided => self.core.handle_failed_probe(now, of),
        }
    }

    /// A probe or a read of a comparison takes too long.
    pub(super) fn give_up_own_read(&mut self, now: Instant, attempt: &Attempt) {
        match attempt.purpose {
            Purpose::Proof { of } => {
                // The path in use may hang as well: its probe may be out already, and without an answer.
                if attempt.path != of {
                    self.hold_silence_against(now, attempt);
                }
                self.end_comparison(now, of, Step::Undecided);
            }
            Purpose::Probe { .. } => {
                let place = self.attempts.entry(attempt.tag).expect("the attempt was seen just now");
                place.purpose = Purpose::Probe { is_late: true };
                self.hold_silence_against(now, attempt);
            }
            Purpose::Flight(_) | Purpose::Orphan { .. } | Purpose::Forgotten => {}
        }
    }

    /// A path in use left a read of our own without an answer, which may queue behind data that flow.
    fn hold_silence_against(&mut self, now: Instant, attempt: &Attempt) {
        if self.core.last_success(attempt.path) < attempt.since {
            let error = ErrorSource::Deadline.into();
            let hung = Classified { path: PathAction::Fail, ..classify(&error, &OWN_READ) };
            self.core.handle_error(now, attempt.path, (attempt.tag, attempt.since), &hung, error);
        }
    }
}
