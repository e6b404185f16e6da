//! What each path has in flight.
//!
//! Keeps true: an end is counted only for a start that was counted. A path that is reinstated, and a
//! selector that is put in place while I/O goes on, start from zero; what was sent before is known by
//! its time and left out, so that a request that never comes back is no load for ever. Not here: what
//! follows from it.

use std::time::Duration;

use storage_mapping::{Instant, PathIndex};

use crate::path_state::PATH_COUNT_MAX;

/// The load of one path.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    pub(super) requests: u64,
    pub(super) bytes: u64,
    /// Counted from here on.
    since: Instant,
}

impl Load {
    /// Nothing, counted from `now` on.
    pub(super) fn since(now: Instant) -> Self {
        Self { requests: 0, bytes: 0, since: now }
    }

    pub(super) fn start(&mut self, bytes: usize) {
        self.requests += 1;
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// Says whether the request was counted at its start.
    pub(super) fn end(&mut self, now: Instant, bytes: usize, service_time: Duration) -> bool {
        // A clock that went back says nothing; to count one too few is the lesser harm.
        let is_of_before = now >= self.since && now.since(self.since) < service_time;
        let is_counted = self.requests > 0 && !is_of_before;
        if is_counted {
            self.requests -= 1;
            self.bytes = if self.requests == 0 { 0 } else { self.bytes.saturating_sub(bytes as u64) };
        }
        is_counted
    }
}

/// The loads of all paths.
#[derive(Clone, Debug)]
pub(super) struct InFlight(Vec<Load>);

impl InFlight {
    pub(super) fn since(now: Instant) -> Self {
        Self(vec![Load::since(now); PATH_COUNT_MAX])
    }

    pub(super) fn of(&self, path: PathIndex) -> &Load {
        &self.0[path.0]
    }

    pub(super) fn start(&mut self, path: PathIndex, bytes: usize) {
        self.0[path.0].start(bytes);
    }

    pub(super) fn end(&mut self, now: Instant, path: PathIndex, bytes: usize, service_time: Duration) {
        self.0[path.0].end(now, bytes, service_time);
    }

    pub(super) fn reset(&mut self, now: Instant, path: PathIndex) {
        self.0[path.0] = Load::since(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_before_is_left_out() {
        let at = |millis: u64| Instant(millis * 1_000_000);
        let took = Duration::from_millis;
        let mut load = Load::since(at(10));
        assert!(!load.end(at(12), 512, took(2)), "nothing is in flight");
        load.start(512); // At 12.
        load.start(4096); // At 13.
        assert!(!load.end(at(15), 512, took(6)), "sent at 9, before the count");
        assert_eq!((load.requests, load.bytes), (2, 4608));
        assert!(load.end(at(16), 512, took(4)));
        assert_eq!((load.requests, load.bytes), (1, 4096));
        assert!(load.end(at(16), 4096, took(3)));
        assert_eq!((load.requests, load.bytes), (0, 0));
        load.start(512);
        assert!(load.end(at(5), 512, took(1)), "a clock that went back leaves nothing in flight");
    }
}
