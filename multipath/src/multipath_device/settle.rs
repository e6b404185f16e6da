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
use crate::error_class::ErrorClass;
use crate::failover::{FailedAttempt, Verdict};
use crate::fence::LivingCopy;
use crate::flight::{Attempt, Purpose, Work};
use crate::selector::PathSelector;

impl<S: PathSelector> MultipathDevice<S> {
    /// Something came back from a path.
    pub(super) fn handle_completion(&mut self, now: Instant, path: PathIndex, done: IoCompletion) {
        let attempt = self.attempts.remove(done.tag).expect("paths complete what they were given, once");
        self.has_changed = true;
        if let Purpose::Probe { .. } | Purpose::Proof { .. } | Purpose::Forgotten = attempt.purpose {
            self.paths[path.0].status.in_flight -= 1;
            return self.handle_own_read(now, &attempt, done);
        }
        self.core.handle_end(now, path, attempt.bytes, now.since(attempt.since));
        self.count(path, attempt.bytes, done.outcome);
        let carried_write = match &done.buffer {
            IoBuffer::Write(_) => done.effect != Effect::None,
            IoBuffer::Read(_) | IoBuffer::None => false,
        };
        self.paths[path.0].is_dirty |= carried_write;
        match done.outcome {
            Ok(()) => self.core.handle_success(now, path),
            Err(error) => drop(self.core.handle_error(now, path, ErrorClass::of(&error))),
        }
        match attempt.purpose {
            Purpose::Flight(index) => {
                if done.copy == CopyFate::MayLand {
                    self.doubt(now, &attempt, index);
                }
                self.handle_attempt_end(now, index, path, done);
            }
            Purpose::Orphan { is_write } => {
                self.paths[path.0].status.quarantined_bytes -= attempt.bytes;
                if is_write && done.copy == CopyFate::Dead && !self.settle(done.tag, SettledProof::Response) {
                    // It had been assumed dead, and it was not.
                    if done.effect != Effect::None {
                        self.fence.count_late_landing();
                    }
                }
            }
            Purpose::Probe { .. } | Purpose::Proof { .. } | Purpose::Forgotten => {}
        }
    }

    /// An attempt of a write leaves a copy that may land.
    fn doubt(&mut self, now: Instant, attempt: &Attempt, index: usize) {
        let block_bytes = self.geometry.block_size.bytes();
        let assumed_dead_at = now + self.core.quiesce_time(attempt.path);
        let flight = self.flight(index);
        let Some(range) = flight.range(block_bytes) else { return };
        let copy = LivingCopy { tag: flight.tag, path: attempt.path, range, assumed_dead_at };
        self.fence.doubt(attempt.tag, Some(index), copy);
    }

    /// The copy of an attempt is dead. Says whether it was living until now.
    pub(super) fn settle(&mut self, attempt: IoTag, proof: SettledProof) -> bool {
        let Some((copy, write)) = self.fence.settle(attempt) else { return false };
        self.events.push_back(DeviceEvent::Settled { tag: copy.tag, proof });
        if let Some(index) = write
            && self.flight(index).is_done
            && !self.fence.is_in_doubt(index)
        {
            self.flight(index).copy = CopyFate::Dead;
            self.finish(index, Ok(()));
        }
        true
    }

    /// Takes for dead the copies whose quiesce time is over.
    pub(super) fn expire_copies(&mut self, now: Instant) {
        while let Some(attempt) = self.fence.next_assumed_dead(now) {
            self.settle(attempt, SettledProof::AssumedDead);
        }
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
    fn handle_attempt_end(&mut self, now: Instant, index: usize, path: PathIndex, done: IoCompletion) {
        let flight = self.flight(index);
        if let (IoBuffer::Read(buffer), Work::Read { buffer: place, .. }) = (done.buffer, &mut flight.work) {
            *place = Some(buffer);
        }
        if matches!(flight.work, Work::Flush { parts_left: Some(_) }) {
            return self.end_flush_part(index, done.outcome);
        }
        match done.outcome {
            Ok(()) if flight.fence == FencePolicy::Wait && self.fence.is_in_doubt(index) => {
                let flight = self.flight(index);
                (flight.is_done, flight.effect) = (true, Effect::Full);
            }
            Ok(()) => self.finish(index, Ok(())),
            Err(error) => self.handle_failed_attempt(now, index, path, error, (done.effect, done.copy)),
        }
    }

    /// Decides what becomes of a request whose attempt failed.
    fn handle_failed_attempt(
        &mut self,
        now: Instant,
        index: usize,
        path: PathIndex,
        error: IoError,
        (effect, copy): (Effect, CopyFate),
    ) {
        let class = ErrorClass::of(&error);
        let flight = self.flight(index);
        flight.note_failure(error, effect, copy);
        let failed = FailedAttempt {
            class,
            effect,
            copy,
            is_write: flight.is_write(),
            fence: flight.fence,
            attempts: flight.attempts,
        };
        match self.core.judge(&failed) {
            Verdict::Answer => self.finish(index, Err(error)),
            Verdict::Elsewhere => {
                self.flight(index).tried.insert(path);
                self.dispatch(now, index);
            }
            Verdict::Later => {
                let at = now + self.core.config().busy_delay;
                self.wait(index, WaitFor::Time(at), None);
            }
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
            let path = attempt.path;
            let known = self.give_up_attempt(now, &attempt, index);
            self.core.handle_error(now, path, ErrorClass::PathDead);
            let error = IoError::from(ErrorSource::Deadline);
            if matches!(self.flight(index).work, Work::Flush { parts_left: Some(_) }) {
                self.end_flush_part(index, Err(error));
            } else {
                self.handle_failed_attempt(now, index, path, error, known);
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
        let is_write = self.flight(index).is_write();
        self.attempts.entry(attempt.tag).expect("it was not withdrawn").purpose =
            Purpose::Orphan { is_write };
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
        self.core.handle_end(now, path, attempt.bytes, now.since(attempt.since));
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
                self.flight(index).note_failure(error, effect, copy);
                self.core.handle_error(now, attempt.path, ErrorClass::PathSuspect);
            }
            self.finish(index, Err(error));
        }
    }
}
