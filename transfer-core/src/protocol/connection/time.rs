//! What time alone does to a connection: time-outs, entries that nobody reacts to, and when it wants to be visited.
//!
//! What holds: everything that depends on time has its wake-up in [`Connection::next_wakeup`], since a connection to
//! which nothing happens is left alone until then; and what is due is done at the visit, or the loop would turn
//! without end. Not here: the intervals themselves (`timer`).

use std::time::Duration;

use storage_mapping::Instant;
use storage_mapping::block::time::earliest;

use super::{Connection, Phase, Shared, SlotPairs};
use crate::format::process_id_table::{CloseReason, Role};
use crate::protocol::endpoint::Event;
use crate::protocol::roster::Wakes;
use crate::protocol::timer::{
    ASSERT_AGAIN, Backoff, CONNECT_TIMEOUT, DEVICE_FAILED, DRAIN_TIMEOUT, HANDSHAKE_TIMEOUT,
    KEEP_ALIVE_ACTIVE, KEEP_ALIVE_IDLE, POLL_IDLE_AFTER, PUBLISH_GATHER, SILENT_READS_MIN,
};

impl Connection {
    /// Time passed.
    pub fn handle_timeout(&mut self, shared: &mut Shared<'_>) {
        let now = shared.now;
        if let Some(streams) = &mut self.streams
            && self.phase == Phase::Established
        {
            streams.reader.handle_timeout(now);
            if let Err(reason) = streams.writer.handle_timeout(now, shared.pool, shared.random) {
                self.end(shared, reason);
            }
        }
        self.check_time_outs(shared);
        self.assert_again(shared);
        self.poll_peer(shared);
        for (retry, table) in
            [(self.slot.entry.poll_retry(now), false), (self.slot.table.poll_retry(now), true)]
        {
            if let Some(write) = retry {
                self.push_pair_write(shared, write, table);
            }
        }
        self.pump(shared);
    }

    /// Rule 8: an entry that nobody reacts to may be a write that was lost; it is written again, with the
    /// same content and a higher version. If its write hangs, that happens when the pair lets the next
    /// version pass it (rule 7).
    fn assert_again(&mut self, shared: &mut Shared<'_>) {
        if self.assert_again_at().is_some_and(|at| shared.now >= at) {
            self.write_entry(shared);
            if self.phase == Phase::Answered {
                shared.out.events.push_back(Event::AnswersChanged);
            }
        }
    }

    fn assert_again_at(&self) -> Option<Instant> {
        let unanswered = match self.phase {
            Phase::Requesting | Phase::Calling | Phase::Establishing => true,
            Phase::Answering | Phase::Answered => true,
            Phase::Established => {
                let unseen = self.role == Role::Initiator && self.peer_table.version() == 0;
                unseen || self.command_acked < self.command_number
            }
            Phase::Ending | Phase::Ended => false,
        };
        let ready_at = self.slot.entry.doubt_at().unwrap_or(Instant::ZERO);
        unanswered.then(|| ready_at.max(self.asserted + ASSERT_AGAIN))
    }

    fn check_time_outs(&mut self, shared: &mut Shared<'_>) {
        let is_over = |at: Option<Instant>| at.is_some_and(|at| shared.now >= at);
        let dead_after = Duration::from_millis(shared.layout.master.timers[4].into());
        let dead = self.phase == Phase::Established
            && self.silence.silent >= dead_after
            && self.silence.reads >= SILENT_READS_MIN;
        let reason = if is_over(self.stuck_at()) {
            CloseReason::DeviceStuck
        } else if dead {
            CloseReason::PeerLost
        } else if is_over(self.given_up_at()) {
            match self.phase {
                Phase::Answering | Phase::Answered => CloseReason::HandshakeFailed,
                _ => CloseReason::PeerLost,
            }
        } else {
            return;
        };
        self.end(shared, reason);
    }

    /// When the device has failed for this connection, if what is in flight now does not come back.
    fn stuck_at(&self) -> Option<Instant> {
        if self.phase != Phase::Established {
            return None;
        }
        let since = earliest(self.polling.then_some(self.poll_due), self.slot.table.waiting_since());
        since.map(|since| since + DEVICE_FAILED)
    }

    /// When what this phase waits for is waited for no longer.
    fn given_up_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Requesting | Phase::Calling | Phase::Establishing => Some(self.since + CONNECT_TIMEOUT),
            Phase::Answering | Phase::Answered => Some(self.since + HANDSHAKE_TIMEOUT),
            // Not everything was acknowledged, or it would have ended before.
            Phase::Established => self.draining_since.map(|since| since + DRAIN_TIMEOUT),
            Phase::Ending | Phase::Ended => None,
        }
    }

    /// When the next own record is written that waits for time alone: for its pair, or for more to go with it.
    fn publish_at(&self) -> Option<Instant> {
        let SlotPairs { entry, table, .. } = &self.slot;
        let table_at = match self.phase {
            // With a table in flight nothing can be published before it is back, or in doubt.
            Phase::Established if table.is_idle() => {
                let gathered = self.dirty_since.map(|since| since + PUBLISH_GATHER);
                earliest(Some(self.keep_alive_due()), gathered)
            }
            Phase::Established => table.doubt_at(),
            // CLOSED goes into the entry first.
            Phase::Ending if entry.is_idle() && self.dirty_since.is_some() => table.doubt_at(),
            _ => None,
        };
        let entry_at = if self.entry_dirty { entry.doubt_at() } else { None };
        earliest(entry_at, table_at)
    }

    /// One answer for the wake-up and for the publication itself: were they to differ, the loop would
    /// turn without end between the two times.
    pub(super) fn keep_alive_due(&self) -> Instant {
        keep_alive_after(self.last_published, &self.backoff)
    }
}

impl Wakes for Connection {
    /// When time alone will change something. Everything that depends on time is in here: a connection to which nothing
    /// happens is left alone until then.
    fn next_wakeup(&self) -> Option<Instant> {
        let mut wakeup = earliest(self.slot.entry.next_wakeup(), self.slot.table.next_wakeup());
        if matches!(self.phase, Phase::Calling | Phase::Answered | Phase::Established) && !self.polling {
            wakeup = earliest(wakeup, Some(self.poll_due));
        }
        wakeup = earliest(wakeup, self.publish_at());
        wakeup = earliest(wakeup, self.assert_again_at());
        wakeup = earliest(wakeup, earliest(self.stuck_at(), self.given_up_at()));
        if let Some(streams) = self.streams.as_ref().filter(|_| self.phase == Phase::Established) {
            wakeup = earliest(wakeup, earliest(streams.reader.next_wakeup(), streams.writer.next_wakeup()));
        }
        wakeup
    }
}

/// When a table that was published at `published` is published again, whatever happens.
pub(super) fn keep_alive_after(published: Instant, backoff: &Backoff) -> Instant {
    let active = published + KEEP_ALIVE_ACTIVE;
    let is_active = backoff.quiet(active) < POLL_IDLE_AFTER;
    if is_active { active } else { published + KEEP_ALIVE_IDLE }
}
