//! Poll intervals and time-outs, in one table. They decide when to look and when to give up, never what
//! is right.

use std::time::Duration;

use storage_mapping::Instant;

/// Shortest pause between two polls of a peer's table.
pub const POLL_SHORTEST: Duration = Duration::from_micros(50);
/// The same where a message of ours has not been taken yet, so that a word of the peer is due: next to none.
pub const POLL_AWAITED: Duration = Duration::from_micros(5);
/// How long a change keeps the shortest pause.
pub const POLL_HOT: Duration = Duration::from_millis(2);
/// Longest pause while a transfer is active.
pub const POLL_ACTIVE_LONGEST: Duration = Duration::from_millis(10);
/// Without change for this long a connection is idle.
pub const POLL_IDLE_AFTER: Duration = Duration::from_secs(1);
/// Pause of an idle connection.
pub const POLL_IDLE: Duration = Duration::from_millis(100);
/// Pause in bulk: enough is under way, nobody waits for the next table.
pub const POLL_BULK: Duration = Duration::from_micros(500);
/// Without change for this long nothing is under way any more, whatever the window says: the peer or its
/// device hangs.
pub const POLL_BULK_FOR: Duration = Duration::from_millis(20);
/// A publication waits this long for more to go with it, unless somebody waits.
pub const PUBLISH_GATHER: Duration = Duration::from_micros(200);
/// Keep-alive while active.
pub const KEEP_ALIVE_ACTIVE: Duration = Duration::from_secs(1);
/// Keep-alive while idle.
pub const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(10);
/// The most that one pair of reads counts towards a peer's silence: our own pauses are not its.
pub const SILENCE_STEP_MAX: Duration = Duration::from_secs(2);
/// Reads without change that a dead peer needs, at least.
pub const SILENT_READS_MIN: u32 = 5;
/// After this much silence the peer's entry is looked at as well.
pub const SUSPECT: Duration = Duration::from_secs(5);
/// A connection attempt ends after this.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// If the peer's beacon goes on and no answer comes for this long, it does not want us.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// An entry without any reaction is written again after this.
pub const ASSERT_AGAIN: Duration = Duration::from_secs(3);
/// An unfinished handshake is dropped by the connector after this.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A closing connection that does not drain is cut after this.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// A segment that does not open is read again after this.
pub const REREAD_PAUSE: Duration = Duration::from_millis(33);
/// Reads of a segment before a negative acknowledgement.
pub const READS_MAX: u32 = 4;
/// Attempts of one sequence number before the connection fails.
pub const ATTEMPTS_MAX: u16 = 8;
/// A device that has not answered a connection's I/O for this long has failed for it (T_fail).
pub const DEVICE_FAILED: Duration = Duration::from_secs(120);

/// What the next look at a peer's table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// A word of the peer is due: it has not taken a message of ours, and no data is on its way to it.
    Awaited,
    /// Enough is under way: nobody waits for the next table.
    Bulk,
    /// Whether there is anything.
    Idle,
}

/// When to look at a block again: soon after a change, then less and less often.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    last_change: Instant,
    pause: Duration,
}

impl Backoff {
    /// A block that has just changed.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { last_change: now, pause: POLL_SHORTEST }
    }

    /// Something changed.
    pub fn handle_change(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// The pause after a read at `now`.
    pub fn next_pause(&mut self, now: Instant, look: Look) -> Duration {
        let quiet = now.since(self.last_change);
        match look {
            Look::Bulk if quiet < POLL_BULK_FOR => return POLL_BULK,
            Look::Awaited if quiet < POLL_HOT => return POLL_AWAITED,
            Look::Awaited | Look::Bulk | Look::Idle => {}
        }
        if quiet >= POLL_IDLE_AFTER {
            return POLL_IDLE;
        }
        if quiet >= POLL_HOT {
            self.pause = (self.pause * 2).min(POLL_ACTIVE_LONGEST);
        }
        self.pause
    }

    /// Time since the last change.
    #[must_use]
    pub fn quiet(&self, now: Instant) -> Duration {
        now.since(self.last_change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A full window is no reason to look at a peer that hangs 2,000 times a second.
    #[test]
    fn bulk_without_change_is_looked_at_less_and_less_often() {
        let begun = Instant(1_000_000_000);
        let (mut backoff, mut now, mut looks) = (Backoff::new(begun), begun, 0);
        assert_eq!(backoff.next_pause(now, Look::Bulk), POLL_BULK);
        while now.since(begun) < Duration::from_secs(2) {
            now = now + backoff.next_pause(now, Look::Bulk);
            looks += 1;
        }
        assert!((100..250).contains(&looks), "{looks} looks in two seconds");
        backoff.handle_change(now);
        assert_eq!(backoff.next_pause(now, Look::Bulk), POLL_BULK);
    }

    /// Next to no pause while a word is due, and only as long as a peer that is awake would take.
    #[test]
    fn an_answer_is_looked_for_back_to_back_for_a_moment() {
        let begun = Instant(1_000_000_000);
        let mut backoff = Backoff::new(begun);
        assert_eq!(backoff.next_pause(begun, Look::Awaited), POLL_AWAITED);
        assert_eq!(backoff.next_pause(begun, Look::Idle), POLL_SHORTEST);
        let later = begun + POLL_HOT;
        assert_eq!(backoff.next_pause(later, Look::Awaited), 2 * POLL_SHORTEST);
        assert_eq!(backoff.next_pause(later, Look::Awaited), 4 * POLL_SHORTEST);
    }
}
