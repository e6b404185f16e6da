//! Sending: requests to paths, flushes to all that need one, and what waits in between.
//!
//! Keeps true: a request that no path takes has its buffer back and stands in `waiting`, or is ended.
//! Not here: what comes back (`settle`).

use std::time::Duration;

use nix::errno::Errno;
use storage_mapping::block::time::earliest;
use storage_mapping::{
    CopyFate, Effect, ErrorSource, Instant, IoError, IoRequest, Operation, PathIndex, RefusalReason,
};

use super::{DrillFault, MultipathDevice, Wait, WaitFor};
use crate::explain::What;
use crate::failover::NoPathPolicy;
use crate::flight::{Purpose, Work};
use crate::hedge::HedgeOutcome;
use crate::path_state::{PathSet, PathState};
use crate::selector::PathSelector;

impl<S: PathSelector> MultipathDevice<S> {
    /// Sends a request over the next path that takes it, or lets it wait, or ends it.
    pub(super) fn dispatch(&mut self, now: Instant, index: usize) {
        self.forget_tries();
        if let Some(error) = self.control.fence_error() {
            return self.finish(now, index, Err(error));
        }
        let flight = self.flight(index);
        let (wanted, tried, bytes) = (flight.path, flight.tried, flight.work.bytes());
        // A first failover goes out at once: there are no more of them than there were requests on the path.
        if (flight.has_waited || flight.attempts > 1)
            && let Err(at) = self.core.try_retry(now)
        {
            return self.wait(index, WaitFor::Time(at), None);
        }
        let full = self.core.full().without(tried);
        let mut excluded = tried.union(full);
        let mut is_busy = !full.is_empty();
        // As the selector sees it: a choice changes what it sees.
        let candidates =
            self.core.explain().keeps_decisions().then(|| self.core.candidates(now, tried, bytes));
        loop {
            let path = match wanted {
                Some(path) => self.core.select_named(now, path, excluded, bytes),
                None => self.core.select_path(now, excluded, bytes),
            };
            let Some(path) = path else { break };
            match self.send(now, index, path) {
                Ok(()) => {
                    let Some(candidates) = candidates else { return };
                    let flight = self.flight(index);
                    let (tag, attempt) = (flight.tag, flight.attempts);
                    let sent = What::Sent { path, attempt, candidates };
                    return self.core.explain_mut().note(now, tag, || sent);
                }
                Err(RefusalReason::Busy) => is_busy = true,
                Err(RefusalReason::Invalid | RefusalReason::DuplicateTag) => {
                    return self.finish(now, index, Err(IoError::errno(Errno::EINVAL as i32)));
                }
                Err(RefusalReason::Closed) => {
                    self.core.handle_link_down(now, path);
                }
            }
            excluded.insert(path);
        }
        let takes_any = wanted.is_none() || self.core.prefers_named_path();
        let waits_for_a_path = takes_any && !self.core.has_path();
        if waits_for_a_path {
            // Whatever path comes back may be asked, also one that failed before.
            self.flight(index).tried = PathSet::EMPTY;
            self.flight(index).has_waited = true;
        }
        if is_busy {
            return self.wait(index, WaitFor::Room, None);
        }
        if waits_for_a_path && self.core.config().no_path != NoPathPolicy::Fail {
            let tag = self.flight(index).tag;
            self.core.explain_mut().note(now, tag, || What::Waits);
            return self.wait(index, WaitFor::Path, None);
        }
        let error = self.flight(index).error.unwrap_or(ErrorSource::NoPath.into());
        self.finish(now, index, Err(error));
    }

    /// A path that came back may be asked again for what it failed before; `attempts_max` is the limit.
    fn forget_tries(&mut self) {
        let back = self.core.take_reinstated();
        if !back.is_empty() {
            self.flights.iter_mut().for_each(|(_, flight)| flight.tried = flight.tried.without(back));
        }
    }

    pub(super) fn wait(&mut self, flight: usize, wait_for: WaitFor, flush_path: Option<PathIndex>) {
        self.waiting.push(Wait { flight, wait_for, flush_path });
    }

    /// Hands one attempt to a path.
    pub(super) fn send(&mut self, now: Instant, index: usize, path: PathIndex) -> Result<(), RefusalReason> {
        let drilled = self.drilled(path);
        let flight = self.flights.entry(index).expect("a request on its way is in the table");
        flight.met_drill |= drilled.is_some();
        if drilled == Some(DrillFault::Error) {
            return Err(RefusalReason::Closed);
        }
        if self.control.is_unready(path) {
            return Err(RefusalReason::Busy);
        }
        let (operation, bytes) = match &mut flight.work {
            Work::Read { lba, length, buffer } => {
                let buffer = buffer.take().unwrap_or_else(|| self.pool.take(*length));
                (Operation::Read { lba: *lba, buffer }, *length)
            }
            Work::Write { lba, data, fua } => {
                (Operation::Write { lba: *lba, data: data.clone(), fua: *fua }, data.len())
            }
            Work::Flush { .. } => (Operation::Flush, 0),
        };
        let (deadline, fence, hedge) = (flight.deadline, flight.fence, flight.hedge);
        let purpose = Purpose::Flight(index);
        let tag = self.attempts.start(now, path, purpose, bytes);
        let request = IoRequest { tag, operation, deadline, fence, path: None, hedge };
        match self.paths[path.0].device.submit(now, request) {
            Ok(()) => {
                self.core.handle_start(now, path, bytes);
                let status = &mut self.paths[path.0].status;
                status.requests += 1;
                status.in_flight += 1;
                self.note_sent(now, index, path);
                let due = now + self.attempt_timeout(bytes);
                self.check_attempts_at = earliest(self.check_attempts_at, Some(due));
                Ok(())
            }
            Err(refused) => {
                self.attempts.remove(tag);
                self.put_buffer_back(index, refused.request.operation);
                Err(refused.reason)
            }
        }
    }

    /// A request is on one path more.
    fn note_sent(&mut self, now: Instant, index: usize, path: PathIndex) {
        let flight = self.flight(index);
        flight.attempts += 1;
        flight.on_paths += 1;
        flight.last_path = Some(path);
        let wants_hedge = flight.hedge && flight.attempts == 1 && flight.path.is_none();
        let is_read = matches!(flight.work, Work::Read { .. });
        match flight.failed_at {
            Some(failed_at) => self.failover_times.resubmit.record(now.since(failed_at)),
            None if flight.attempts == 1 && !flight.has_waited => self.core.note_send(now),
            None => {}
        }
        if wants_hedge && is_read {
            let at = self.core.hedge().hedge_at(path, now);
            self.flight(index).hedge_at = at;
            self.check_hedges_at = earliest(self.check_hedges_at, at);
        }
    }

    /// Sends the reads that take long a second time, over another path.
    pub(super) fn send_hedges(&mut self, now: Instant) {
        if self.check_hedges_at.is_none_or(|at| now < at) {
            return;
        }
        let mut due = Vec::new();
        self.check_hedges_at = None;
        for attempt in self.attempts.iter() {
            let Purpose::Flight(index) = attempt.purpose else { continue };
            let Some(at) = self.flights.get(index).and_then(|flight| flight.hedge_at) else { continue };
            if at <= now {
                due.push((index, attempt.path));
            } else {
                self.check_hedges_at = earliest(self.check_hedges_at, Some(at));
            }
        }
        let attempts_max = self.core.config().attempts_max;
        for (index, slow) in due {
            let flight = self.flight(index);
            flight.hedge_at = None;
            if flight.attempts >= attempts_max {
                continue;
            }
            let mut excluded = flight.tried;
            let bytes = flight.work.bytes();
            excluded.insert(slow);
            let excluded = excluded.union(self.core.full());
            let Some(other) = self.core.select_path(now, excluded, bytes) else { continue };
            if self.core.hedge().try_hedge(slow, now) {
                match self.send(now, index, other) {
                    Ok(()) => {
                        let flight = self.flight(index);
                        flight.hedged = Some(slow);
                        let tag = flight.tag;
                        self.core.explain_mut().note(now, tag, || What::Hedged { slow, path: other });
                    }
                    Err(_) => self.core.hedge().handle_hedge(slow, now, HedgeOutcome::Lost),
                }
            }
        }
    }

    /// How long an attempt may take; one without bytes is a flush.
    fn attempt_timeout(&self, bytes: usize) -> Duration {
        let config = self.core.config();
        if bytes == 0 { config.flush_timeout } else { config.attempt_timeout }
    }

    pub(super) fn put_buffer_back(&mut self, index: usize, operation: Operation) {
        if let (Operation::Read { buffer, .. }, Work::Read { buffer: place, .. }) =
            (operation, &mut self.flight(index).work)
        {
            *place = Some(buffer);
        }
    }

    /// Sends a flush to every path that needs one.
    pub(super) fn dispatch_flush(&mut self, now: Instant, index: usize) {
        let is_shared = self.core.config().cache_is_shared;
        let dirty: Vec<_> =
            self.paths.iter().filter(|path| path.is_dirty()).map(|path| path.status.path).collect();
        if is_shared || dirty.is_empty() {
            return self.dispatch(now, index);
        }
        // What a path carries from now on is not covered.
        let covers = self.carried_writes;
        self.flight(index).work =
            Work::Flush { parts_left: Some(dirty.len()), covers, failed: PathSet::EMPTY };
        for path in dirty {
            let state = self.core.state(path);
            if !state.can_carry() && state != PathState::Disabled {
                let error = self.paths[path.0].status.last_error.unwrap_or(ErrorSource::NoPath.into());
                self.end_flush_part(now, index, path, Err(error));
            } else {
                self.send_flush_part(now, index, path);
            }
        }
    }

    pub(super) fn send_flush_part(&mut self, now: Instant, index: usize, path: PathIndex) {
        match self.send(now, index, path) {
            Ok(()) => {}
            Err(RefusalReason::Busy) => self.wait(index, WaitFor::Room, Some(path)),
            Err(_) => self.end_flush_part(now, index, path, Err(ErrorSource::NoPath.into())),
        }
    }

    pub(super) fn end_flush_part(
        &mut self,
        now: Instant,
        index: usize,
        path: PathIndex,
        outcome: Result<(), IoError>,
    ) {
        let flight = self.flight(index);
        if let Err(error) = outcome {
            flight.note_failure(error, Effect::Unknown, CopyFate::Dead);
        }
        let Work::Flush { parts_left: Some(left), covers, failed } = &mut flight.work else {
            unreachable!("only a flush has parts");
        };
        *left -= 1;
        let mut over = PathSet::EMPTY;
        if outcome.is_ok() {
            over.insert(path);
        } else {
            failed.insert(path);
        }
        let (is_last, covers) = (*left == 0, *covers);
        if is_last {
            // Now it is reported, and not before: until then no other flush may succeed without these paths.
            over = over.union(*failed);
        }
        for path in over.iter() {
            let flushed = &mut self.paths[path.0].flushed;
            *flushed = covers.max(*flushed);
        }
        if is_last {
            let outcome = self.flight(index).error.map_or(Ok(()), Err);
            self.finish(now, index, outcome);
        }
    }

    /// Sends the writes that the fence no longer holds.
    pub(super) fn release_held(&mut self, now: Instant) {
        while let Some(index) = self.fence.next_free() {
            self.dispatch(now, index);
        }
    }

    /// Sends what waited and need not wait any longer; ends what waited too long.
    pub(super) fn retry_waiting(&mut self, now: Instant) {
        let has_changed = std::mem::take(&mut self.has_changed);
        if self.waiting.is_empty() {
            return;
        }
        for wait in std::mem::take(&mut self.waiting) {
            let (goes_on, is_over) = match wait.wait_for {
                WaitFor::Room => (has_changed, false),
                WaitFor::Path => (has_changed, self.patience_end(wait.flight).is_some_and(|at| at <= now)),
                WaitFor::Time(at) => (at <= now, false),
            };
            match wait.flush_path {
                _ if !goes_on && !is_over => self.waiting.push(wait),
                Some(path) => self.send_flush_part(now, wait.flight, path),
                None if is_over => self.finish(now, wait.flight, Err(ErrorSource::NoPath.into())),
                None => self.dispatch(now, wait.flight),
            }
        }
    }
}
