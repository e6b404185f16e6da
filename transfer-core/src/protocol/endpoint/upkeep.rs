//! Upkeep: connections are visited, those that ended are forgotten, and the memory of a window is shared out.
//!
//! What holds: a connection changes by [`Endpoint::act`] or at a visit only, and both see what it then has to offer and
//! whether it has ended; a turn visits only connections to which something happened and those that are due. Not here: what
//! one does with the time (`connection::time`).

use std::collections::VecDeque;

use storage_mapping::Instant;
use storage_mapping::block::time::earliest;

use super::{Endpoint, Event, Life, News, SHARE_MIN};
use crate::format::process_id_table::CloseReason;
use crate::protocol::connection::{Connection, ConnectionId, Phase, Shared};
use crate::protocol::roster::Roster;

impl News {
    /// Does something to a connection and sees what came of it.
    fn note<R>(&mut self, connection: &mut Connection, act: impl FnOnce(&mut Connection) -> R) -> R {
        let before = (connection.has_room(), connection.segments_waiting());
        let result = act(connection);
        if (connection.has_room() && !before.0) || connection.segments_waiting() > before.1 {
            self.moved.push(connection.id);
        }
        if connection.phase() == Phase::Ended {
            self.ended.push(connection.id);
        }
        result
    }
}

impl Endpoint {
    /// Time passed: everybody is visited to whom something happened, or who is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.life {
            Life::Stopped => return,
            Life::Starting(startup) => {
                startup.handle_timeout(now, &self.layout);
                return self.pump_startup(now);
            }
            Life::Running => {}
        }
        self.pool.handle_timeout(now);
        for id in self.connections.take_due(now) {
            self.visit(now, id);
        }
        for id in self.pool.take_waiting() {
            self.visit(now, ConnectionId(id));
        }
        if cfg!(debug_assertions) {
            self.check_at_rest(now);
        }
        self.tend_beacon(now);
        if self.config.answers && !self.leaving {
            self.tend_bell(now);
        }
        self.tend_calls(now);
        self.tend_admin(now);
        self.settle(now);
    }

    /// When time alone will change something.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        match &self.life {
            Life::Stopped => return None,
            Life::Starting(startup) => return startup.next_wakeup(),
            Life::Running => {}
        }
        if self.pool.is_eased() {
            return Some(Instant::ZERO);
        }
        let mut wakeup = earliest(self.beacon.next_wakeup(), self.admin.next_wakeup());
        if self.config.answers && !self.leaving {
            wakeup = earliest(wakeup, self.bell.next_wakeup());
            wakeup = earliest(wakeup, self.in_directory.next_wakeup());
        }
        for ringing in self.ringing.values() {
            wakeup = earliest(wakeup, Some(ringing.due()));
        }
        for watch in self.watched.values() {
            wakeup = earliest(wakeup, Some(watch.due));
        }
        earliest(wakeup, self.connections.next_wakeup())
    }

    /// Something happens to a connection: the one way to change it, but for a visit.
    pub(super) fn act<R>(
        &mut self,
        now: Instant,
        id: ConnectionId,
        act: impl FnOnce(&mut Connection, &mut Shared<'_>) -> R,
    ) -> Option<R> {
        let (mut shared, connections, news) = self.split(now);
        connections.touch(id, |connection| news.note(connection, |connection| act(connection, &mut shared)))
    }

    fn visit(&mut self, now: Instant, id: ConnectionId) {
        let (mut shared, connections, news) = self.split(now);
        connections.visit(id, |connection| {
            news.note(connection, |connection| connection.handle_timeout(&mut shared));
        });
    }

    /// What connections need, beside the connections themselves.
    pub(super) fn split(&mut self, now: Instant) -> (Shared<'_>, &mut Roster<Connection>, &mut News) {
        let shared = Shared {
            now,
            layout: &self.layout,
            me: &self.identity,
            pool: &mut self.pool,
            buffers: &self.buffers,
            random: self.random.as_mut(),
            out: &mut self.out,
        };
        (shared, &mut self.connections, &mut self.news)
    }

    /// Nobody who is left alone has something to do.
    fn check_at_rest(&mut self, now: Instant) {
        if self.pool.is_eased() {
            return;
        }
        let asked = |endpoint: &Self| {
            let out = &endpoint.out;
            (out.io.len(), out.work.len(), out.events.len(), endpoint.connections.next_wakeup())
        };
        for id in self.connections.at_rest(now) {
            let before = asked(self);
            self.visit(now, id);
            assert_eq!(asked(self), before, "connection {} was left alone and has something to do", id.0);
        }
    }

    /// Acts on what connections left behind: internal events, ended connections.
    pub(super) fn settle(&mut self, now: Instant) {
        let mut newcomers = Vec::new();
        let mut kept = VecDeque::new();
        while let Some(event) = self.out.events.pop_front() {
            match event {
                Event::CallsChanged => self.beacon.mark_dirty(),
                Event::AnswersChanged => self.in_directory_dirty = true,
                Event::Connected { connection, .. } => {
                    newcomers.push(connection);
                    self.beacon.mark_dirty();
                    self.bell.warm(now);
                    kept.push_back(event);
                }
                Event::Closed { .. } => {
                    self.bell.warm(now);
                    self.in_directory_dirty |= self.config.answers;
                    self.beacon.mark_dirty();
                    kept.push_back(event);
                }
                other => kept.push_back(other),
            }
        }
        self.out.events = kept;
        let has_newcomers = !newcomers.is_empty();
        for id in newcomers {
            self.end_older_lives(now, id);
        }
        let mut has_fewer = false;
        while let Some(id) = self.news.ended.pop(|_| true) {
            if let Some(connection) = self.connections.remove(id) {
                has_fewer = true;
                let (resends, torn) = connection.counters();
                self.counters.resends += resends;
                self.counters.torn += torn;
                let slot = connection.into_slot();
                self.slots.insert(slot.process_id, slot);
            }
        }
        if has_newcomers || has_fewer {
            self.share_out(now);
        }
    }

    /// Open connections share the memory for one window each way: the more there are, the less of it has each.
    fn share_out(&mut self, now: Instant) {
        let is_open = |connection: &&Connection| connection.phase() == Phase::Established;
        let open = self.connections.values().filter(is_open).count() as u64;
        let share = share_of(self.config.window, open);
        for id in self.connections.ids() {
            self.act(now, id, |connection, shared| connection.set_share(shared, share));
        }
    }

    /// A lane that connects in a new incarnation has lost its older connections.
    fn end_older_lives(&mut self, now: Instant, newcomer: ConnectionId) {
        let Some(connection) = self.connections.get(newcomer) else { return };
        let (lane, (_, incarnation)) = (connection.peer().lane, connection.peer_slot());
        let older: Vec<_> = self
            .connections
            .iter()
            .filter(|(id, other)| {
                *id != newcomer && other.peer().lane == lane && other.peer_slot().1 < incarnation
            })
            .filter(|(_, other)| matches!(other.phase(), Phase::Answered | Phase::Established))
            .map(|(id, _)| id)
            .collect();
        for id in older {
            self.end(now, id, CloseReason::PeerLost);
        }
    }
}

/// Segments each way of one of `open` connections.
fn share_of(window: u16, open: u64) -> u64 {
    (u64::from(window) / open.max(1)).max(SHARE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_part_of_the_window_and_enough_for_data_and_a_message() {
        let shares = [0, 1, 2, 5, 8, 16, 17, 1000].map(|open| share_of(32, open));
        assert_eq!(shares, [32, 32, 16, 6, 4, 2, 2, 2]);
    }
}
