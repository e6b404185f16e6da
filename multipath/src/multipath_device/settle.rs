//! What comes back from paths, and what does not come back in time.
//!
//! Keeps true: every attempt leaves the table exactly once, when its path gives it back; until then an
//! attempt that was given up on is an orphan and its request may be over. Not here: sending
//! (`dispatch`).

use storage_mapping::block::time::earliest;
use storage_mapping::{
    BlockDevice, Cancelled, CopyFate, DeviceEvent, Effect, ErrorSource, FencePolicy, Instant, IoBuffer,
    IoCompletion, IoError, IoTag, PathIndex, SettledProof,
};

use super::{MultipathDevice, WaitFor};
use crate::error_class::{Classified, IoKind, PathAction, RequestAction, RequestFacts, Sent, classify};
use crate::explain::What;
use crate::failover::{FailedAttempt, Verdict};
use crate::fence::LivingCopy;
use crate::flight::{Attempt, Purpose, Work};
use crate::hedge::HedgeOutcome;
use crate::selector::PathSelector;

/// What is known of a request that was sent: the device checked its address.
fn facts(kind: IoKind) -> RequestFacts {
    RequestFacts { kind, sent: Sent::Yes, address_checked: true }
}

impl<S: PathSelector> MultipathDevice<S> {
    /// Something came back from a path.
    pub(super) fn handle_completion(&mut self, now: Instant, path: PathIndex, done: IoCompletion) {
        let attempt = self.attempts.remove(done.tag).expect("paths complete what they were given, once");
        self.has_changed = true;
        if let Purpose::Probe { .. } | Purpose::Proof { .. } | Purpose::Forgotten = attempt.purpose {
            self.paths[path.0].status.in_flight -= 1;
            return self.handle_own_read(now, &attempt, done);
        }
        self.core.handle_end(now, path, attempt.bytes, attempt.since, done.outcome.is_ok());
        self.count(path, attempt.bytes, done.outcome);
        let carried_write = match &done.buffer {
            IoBuffer::Write(_) => done.effect != Effect::None,
            IoBuffer::Read(_) | IoBuffer::None => false,
        };
        if carried_write {
            self.note_carried_write(path);
        }
        match attempt.purpose {
            Purpose::Flight(index) => {
                self.flight(index).on_paths -= 1;
                if done.copy == CopyFate::MayLand {
                    self.doubt(now, &attempt, index);
                }
                self.handle_attempt_end(now, index, &attempt, done);
            }
            Purpose::Orphan { kind } => self.handle_orphan(now, kind, &attempt, &done),
            Purpose::Probe { .. } | Purpose::Proof { .. } | Purpose::Forgotten => {}
        }
    }

    /// The path is to be flushed.
    fn note_carried_write(&mut self, path: PathIndex) {
        self.carried_writes += 1;
        self.paths[path.0].last_write = self.carried_writes;
    }

    /// What was given up on came back after all.
    fn handle_orphan(&mut self, now: Instant, kind: IoKind, attempt: &Attempt, done: &IoCompletion) {
        let path = attempt.path;
        self.paths[path.0].status.quarantined_bytes -= attempt.bytes;
        match done.outcome {
            Ok(()) => self.core.handle_success(now, path, attempt.tag),
            Err(error) => {
                let mut classified = classify(&error, &facts(kind)).with_report(done.effect, done.copy);
                self.note_io_error(now, path, &mut classified, error);
                self.core.handle_error(now, path, (attempt.tag, attempt.since), &classified, error);
            }
        }
        if kind == IoKind::Read {
            self.core.hedge().handle_read(path, now.since(attempt.since));
        }
        let is_over = kind == IoKind::Write && done.copy == CopyFate::Dead;
        if is_over && !self.settle(now, done.tag, SettledProof::Response) && done.effect != Effect::None {
            // It had been assumed dead, and it was not.
            self.fence.count_late_landing();
        }
    }

    /// An attempt of a write leaves a copy that may land.
    fn doubt(&mut self, now: Instant, attempt: &Attempt, index: usize) {
        let block_bytes = self.geometry.block_size.bytes();
        let assumed_dead_at = now + self.core.quiesce_time(attempt.path);
        let flight = self.flight(index);
        let Some(range) = flight.range(block_bytes) else { return };
        let copy = LivingCopy {
            tag: flight.tag,
            path: attempt.path,
            range,
            assumed_dead_at,
            policy: flight.fence,
            is_inherited: false,
        };
        self.fence.doubt(attempt.tag, Some(index), copy);
    }

    /// The copy of an attempt is dead. Says whether it was living until now. While its write goes on, the end of that
    /// will tell; after it an event does, once for all copies of the write.
    pub(super) fn settle(&mut self, now: Instant, attempt: IoTag, proof: SettledProof) -> bool {
        let Some((copy, write)) = self.fence.settle(attempt) else { return false };
        match write {
            Some(index) if !self.fence.is_in_doubt(index) => {
                let flight = self.flight(index);
                flight.copy = CopyFate::Dead;
                if let Some(path) = flight.done_on {
                    // A flush since then does not speak for a write that nobody knew to be done.
                    self.note_carried_write(path);
                    self.finish(now, index, Ok(()));
                }
            }
            None if !self.fence.has_copy_of(copy.tag) => {
                self.events.push_back(DeviceEvent::Settled { tag: copy.tag, proof });
            }
            Some(_) | None => {}
        }
        true
    }

    /// Takes for dead the copies whose quiesce time is over.
    pub(super) fn expire_copies(&mut self, now: Instant) {
        while let Some(attempt) = self.fence.next_assumed_dead(now) {
            self.settle(now, attempt, SettledProof::AssumedDead);
        }
        self.fence.expire_inherited(now);
    }

    fn count(&mut self, path: PathIndex, bytes: usize, outcome: Result<(), IoError>) {
        let status = &mut self.paths[path.0].status;
        status.in_flight -= 1;
        match outcome {
            Ok(()) => status.bytes += bytes as u64,
            Err(error) => {
                status.errors += 1;
                status.last_error = Some(error);
            }
        }
    }

    /// The attempt of a request that still waits for it.
    fn handle_attempt_end(&mut self, now: Instant, index: usize, attempt: &Attempt, done: IoCompletion) {
        let flight = self.flight(index);
        let (kind, serial) = (flight.kind(), flight.serial);
        if let (IoBuffer::Read(buffer), Work::Read { buffer: place, .. }) = (done.buffer, &mut flight.work) {
            *place = Some(buffer);
        }
        let is_part = matches!(flight.work, Work::Flush { parts_left: Some(_), .. });
        match done.outcome {
            Ok(()) => {
                self.core.handle_success(now, attempt.path, serial);
                self.note_io_success(attempt.path, attempt.since);
                self.note_success(now, index, attempt);
                if is_part {
                    self.end_flush_part(now, index, attempt.path, Ok(()));
                } else {
                    self.handle_done(now, index, attempt.path);
                }
            }
            Err(error) => {
                let mut classified = classify(&error, &facts(kind)).with_report(done.effect, done.copy);
                self.note_io_error(now, attempt.path, &mut classified, error);
                let request = (serial, attempt.since);
                let is_answer = self.core.handle_error(now, attempt.path, request, &classified, error);
                if is_part {
                    return self.end_flush_part(now, index, attempt.path, Err(error));
                }
                self.handle_failed_attempt(now, index, attempt, error, &classified, is_answer);
            }
        }
    }

    /// Measures a request that was done.
    fn note_success(&mut self, now: Instant, index: usize, attempt: &Attempt) {
        let took = now.since(attempt.since);
        let flight = self.flight(index);
        let (kind, failed, hedged) = (flight.kind(), flight.failed_at.is_some(), flight.hedged.take());
        self.paths[attempt.path.0].latency.of_kind(kind).record(took);
        if failed {
            self.failover_times.complete.record(took);
        }
        if kind == IoKind::Read {
            self.core.hedge().handle_read(attempt.path, took);
        }
        if let Some(slow) = hedged {
            let outcome = if attempt.path == slow { HedgeOutcome::Lost } else { HedgeOutcome::Won };
            self.core.hedge().handle_hedge(slow, now, outcome);
            self.leave_to_paths(index);
        }
    }

    /// Attempts of a request that is done go on without it.
    fn leave_to_paths(&mut self, index: usize) {
        let kind = self.flight(index).kind();
        let Self { attempts, paths, .. } = self;
        for attempt in attempts.iter_entries().filter(|attempt| attempt.purpose == Purpose::Flight(index)) {
            attempt.purpose = Purpose::Orphan { kind };
            paths[attempt.path.0].status.quarantined_bytes += attempt.bytes;
        }
    }

    /// The request is done over one path.
    fn handle_done(&mut self, now: Instant, index: usize, path: PathIndex) {
        let is_in_doubt = self.fence.is_in_doubt(index);
        let flight = self.flight(index);
        if flight.fence == FencePolicy::Wait && is_in_doubt {
            (flight.done_on, flight.effect) = (Some(path), Effect::Full);
        } else {
            self.finish(now, index, Ok(()));
        }
    }

    /// Decides what becomes of a request whose attempt failed.
    fn handle_failed_attempt(
        &mut self,
        now: Instant,
        index: usize,
        attempt: &Attempt,
        error: IoError,
        classified: &Classified,
        is_answer: bool,
    ) {
        self.failover_times.detect.record(now.since(attempt.since));
        let flight = self.flight(index);
        flight.note_failure(error, classified.effect, classified.copy);
        flight.failed_at = Some(now);
        if flight.on_paths > 0 {
            // It is on another path still.
            flight.tried.insert(attempt.path);
            return;
        }
        if let Some(slow) = flight.hedged.take() {
            self.core.hedge().handle_hedge(slow, now, HedgeOutcome::Lost);
        }
        let flight = self.flight(index);
        let failed = FailedAttempt {
            classified: *classified,
            is_write: flight.is_write(),
            fence: flight.fence,
            attempts: flight.attempts,
        };
        let verdict = if is_answer { Verdict::Answer } else { self.core.judge(&failed) };
        let (tag, path) = (self.flight(index).tag, attempt.path);
        self.core.explain_mut().note(now, tag, || What::Failed { path, error, verdict });
        match verdict {
            Verdict::Answer => self.finish(now, index, Err(error)),
            Verdict::Again => self.dispatch(now, index),
            Verdict::Elsewhere => {
                self.flight(index).tried.insert(attempt.path);
                self.dispatch(now, index);
            }
            Verdict::Later(delay) => self.wait(index, WaitFor::Time(now + delay), None),
        }
    }

    /// Gives up on attempts that take too long.
    pub(super) fn expire_attempts(&mut self, now: Instant) {
        if self.check_attempts_at.is_none_or(|at| now < at) {
            return;
        }
        let (flush, other) = (self.core.config().flush_timeout, self.core.config().attempt_timeout);
        let mut next = None;
        let mut hung = Vec::new();
        let mut silent = Vec::new();
        for attempt in self.attempts.iter() {
            let index = match attempt.purpose {
                Purpose::Flight(index) => Some(index),
                Purpose::Probe { is_late: false } | Purpose::Proof { .. } => None,
                Purpose::Probe { is_late: true } | Purpose::Orphan { .. } | Purpose::Forgotten => continue,
            };
            let due = attempt.since + if attempt.bytes == 0 { flush } else { other };
            match index {
                Some(index) if due <= now => hung.push((*attempt, index)),
                None if due <= now => silent.push(*attempt),
                _ => next = earliest(next, Some(due)),
            }
        }
        // Before anything is sent again, so that sending can bring it forward.
        self.check_attempts_at = next;
        silent.iter().for_each(|attempt| self.give_up_own_read(now, attempt));
        for (attempt, index) in hung {
            let (effect, copy) = self.give_up_attempt(now, &attempt, index);
            let error = IoError::from(ErrorSource::Deadline);
            let flight = self.flight(index);
            let (serial, facts) = (flight.serial, facts(flight.kind()));
            // Of a path that does not answer at all more is known than of a request whose time is over.
            let hung = Classified {
                path: PathAction::Fail,
                request: RequestAction::Elsewhere,
                effect,
                copy,
                ..classify(&error, &facts)
            };
            self.core.handle_error(now, attempt.path, (serial, attempt.since), &hung, error);
            if matches!(self.flight(index).work, Work::Flush { parts_left: Some(_), .. }) {
                self.end_flush_part(now, index, attempt.path, Err(error));
            } else {
                self.handle_failed_attempt(now, index, &attempt, error, &hung, false);
            }
        }
    }

    /// Withdraws an attempt, or leaves it to its path; says what is then known of it.
    fn give_up_attempt(&mut self, now: Instant, attempt: &Attempt, index: usize) -> (Effect, CopyFate) {
        let status = &mut self.paths[attempt.path.0].status;
        status.last_error = Some(ErrorSource::Deadline.into());
        if self.withdraw_attempt(now, attempt, index) {
            self.paths[attempt.path.0].status.errors += 1;
            return (Effect::None, CopyFate::Dead);
        }
        self.paths[attempt.path.0].status.quarantined_bytes += attempt.bytes;
        let flight = self.flight(index);
        flight.on_paths -= 1;
        let (kind, is_write) = (flight.kind(), flight.is_write());
        self.attempts.entry(attempt.tag).expect("it was not withdrawn").purpose = Purpose::Orphan { kind };
        if is_write {
            self.doubt(now, attempt, index);
        }
        (Effect::Unknown, if is_write { CopyFate::MayLand } else { CopyFate::Dead })
    }

    /// Gets an attempt back from its path, if it has not left; the buffer goes to its request.
    pub(super) fn withdraw_attempt(&mut self, now: Instant, attempt: &Attempt, index: usize) -> bool {
        let path = attempt.path;
        let Cancelled::Withdrawn(request) = self.paths[path.0].device.cancel(now, attempt.tag) else {
            return false;
        };
        self.attempts.remove(attempt.tag);
        self.flight(index).on_paths -= 1;
        self.core.handle_end(now, path, attempt.bytes, attempt.since, false);
        self.paths[path.0].status.in_flight -= 1;
        self.put_buffer_back(index, request.operation);
        true
    }

    /// Ends requests whose deadline has passed.
    pub(super) fn expire_deadlines(&mut self, now: Instant) {
        if self.check_deadlines_at.is_none_or(|at| now < at) {
            return;
        }
        let mut next = None;
        let mut late = Vec::new();
        for (index, flight) in self.flights.iter_mut() {
            match flight.deadline {
                Some(deadline) if deadline <= now => late.push(index),
                deadline => next = earliest(next, deadline),
            }
        }
        self.check_deadlines_at = next;
        for index in late {
            let belongs = |attempt: &&Attempt| attempt.purpose == Purpose::Flight(index);
            let attempts: Vec<Attempt> = self.attempts.iter().filter(belongs).copied().collect();
            let error = IoError::from(ErrorSource::Deadline);
            for attempt in attempts {
                let (effect, copy) = self.give_up_attempt(now, &attempt, index);
                let flight = self.flight(index);
                flight.note_failure(error, effect, copy);
                let (serial, facts) = (flight.serial, facts(flight.kind()));
                let late = Classified { effect, copy, ..classify(&error, &facts) };
                self.core.handle_error(now, attempt.path, (serial, attempt.since), &late, error);
            }
            self.finish(now, index, Err(error));
        }
    }
}
