//! What comes back from paths, and what does not come back in time.
//!
//! Keeps true: every attempt leaves the table exactly once, when its path gives it back; until then an
//! attempt that was given up on is an orphan and its request may be over. Not here: sending
//! (`dispatch`).

use storage_mapping::block::time::earliest;
use storage_mapping::{
    BlockDevice, Cancelled, CopyFate, DeviceEvent, Effect, ErrorSource, Instant, IoBuffer, IoCompletion,
    IoError, IoRequest, IoTag, Lba, PathIndex, SettledProof,
};

use super::{MultipathDevice, WaitFor, attempt_index};
use crate::error_class::ErrorClass;
use crate::failover::{FailedAttempt, Verdict};
use crate::flight::{Attempt, Purpose, Work};
use crate::selector::PathSelector;

impl<S: PathSelector> MultipathDevice<S> {
    /// Something came back from a path.
    pub(super) fn handle_completion(&mut self, now: Instant, path: PathIndex, done: IoCompletion) {
        let attempt =
            self.attempts.remove(attempt_index(done.tag)).expect("paths complete what they were given, once");
        self.has_changed = true;
        if attempt.purpose == Purpose::Probe {
            self.paths[path.0].status.in_flight -= 1;
            match done.outcome {
                Ok(()) => drop(self.core.handle_success(now, path)),
                Err(_) => self.core.handle_failed_probe(now, path),
            }
            return;
        }
        self.core.handle_end(now, path, attempt.bytes, now.since(attempt.since));
        self.count(path, attempt.bytes, done.outcome);
        let carried_write = match &done.buffer {
            IoBuffer::Write(_) => done.effect != Effect::None,
            IoBuffer::Read(_) | IoBuffer::None => false,
        };
        self.paths[path.0].is_dirty |= carried_write;
        match done.outcome {
            Ok(()) => drop(self.core.handle_success(now, path)),
            Err(error) => drop(self.core.handle_error(now, path, ErrorClass::of(&error))),
        }
        match attempt.purpose {
            Purpose::Flight(index) => self.handle_attempt_end(now, index, path, done),
            Purpose::Orphan { write: Some(tag) } if done.copy == CopyFate::Dead => {
                self.events.push_back(DeviceEvent::Settled { tag, proof: SettledProof::Response });
            }
            Purpose::Orphan { .. } | Purpose::Probe => {}
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
        for (place, attempt) in self.attempts.iter_mut() {
            let Purpose::Flight(index) = attempt.purpose else { continue };
            let due = attempt.since + if attempt.bytes == 0 { flush } else { other };
            if due <= now {
                hung.push((place, index, attempt.path));
            } else {
                next = earliest(next, Some(due));
            }
        }
        // Before anything is sent again, so that sending can bring it forward.
        self.check_attempts_at = next;
        for (place, index, path) in hung {
            let known = self.give_up_attempt(now, place, index);
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
    fn give_up_attempt(&mut self, now: Instant, place: usize, index: usize) -> (Effect, CopyFate) {
        let path = self.attempts.get(place).expect("the attempt was seen just now").path;
        let error = IoError::from(ErrorSource::Deadline);
        self.paths[path.0].status.last_error = Some(error);
        if self.withdraw_attempt(now, place, index) {
            self.paths[path.0].status.errors += 1;
            return (Effect::None, CopyFate::Dead);
        }
        let flight = self.flight(index);
        let (write, copy) =
            if flight.is_write() { (Some(flight.tag), CopyFate::MayLand) } else { (None, CopyFate::Dead) };
        self.attempts.entry(place).expect("it was not withdrawn").purpose = Purpose::Orphan { write };
        (Effect::Unknown, copy)
    }

    /// Gets an attempt back from its path, if it has not left; the buffer goes to its request.
    pub(super) fn withdraw_attempt(&mut self, now: Instant, place: usize, index: usize) -> bool {
        let attempt = *self.attempts.get(place).expect("the attempt was seen just now");
        let path = attempt.path;
        let Cancelled::Withdrawn(request) = self.paths[path.0].device.cancel(now, IoTag(place as u64)) else {
            return false;
        };
        self.attempts.remove(place);
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
            let belongs = |(place, attempt): (usize, &mut Attempt)| {
                (attempt.purpose == Purpose::Flight(index)).then_some((place, attempt.path))
            };
            let attempts: Vec<_> = self.attempts.iter_mut().filter_map(belongs).collect();
            let error = IoError::from(ErrorSource::Deadline);
            for (place, path) in attempts {
                let (effect, copy) = self.give_up_attempt(now, place, index);
                self.flight(index).note_failure(error, effect, copy);
                self.core.handle_error(now, path, ErrorClass::PathSuspect);
            }
            self.finish(index, Err(error));
        }
    }

    /// Sends the probes that are due.
    pub(super) fn send_probes(&mut self, now: Instant) {
        while let Some(path) = self.core.poll_probe(now) {
            let buffer = self.pool.take(self.geometry.block_size.bytes());
            let tag = self.start_attempt(now, path, Purpose::Probe, buffer.len());
            match self.paths[path.0].device.submit(now, IoRequest::read(tag, Lba(0), buffer)) {
                Ok(()) => self.paths[path.0].status.in_flight += 1,
                Err(_) => {
                    self.attempts.remove(attempt_index(tag));
                    self.core.handle_failed_probe(now, path);
                }
            }
        }
    }
}
