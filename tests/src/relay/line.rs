//! One direction of one connection through a relay, as a pure machine: bytes in, the same bytes out, when and
//! if they may go.
//!
//! Keeps true: what goes out is what came in, in its order, except what was dropped or discarded; nothing
//! goes before its time or during a pause; jitter comes from a seed. Not here: sockets, threads, clocks.

use std::collections::VecDeque;
use std::time::Duration;

use storage_mapping::Instant;

use crate::chance::Chance;

/// Above this the relay reads no more, as a network would not either.
const HELD_BYTES_MAX: usize = 16 << 20;
/// With a rate, bytes go in pieces of this size at most.
const PIECE_BYTES_MAX: usize = 16 << 10;

/// How the bytes of one direction are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// They are held, however long.
    pub is_paused: bool,
    /// What comes is thrown away; what is held stays.
    pub drops: bool,
    /// Each waits at least so long.
    pub delay: Duration,
    /// And up to so long beyond that.
    pub jitter: Duration,
    /// Bytes per second, at most.
    pub rate: Option<u64>,
}

/// What the one who writes is to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// These go now.
    Bytes(Vec<u8>),
    /// Nothing before this time.
    Wait(Instant),
    /// Nothing until something changes.
    Idle,
    /// No more will come.
    Ended,
}

/// The bytes under way in one direction.
#[derive(Debug)]
pub struct Line {
    manner: Manner,
    held: VecDeque<(Instant, Vec<u8>)>,
    held_bytes: usize,
    /// When the last byte that came may go: none behind it goes earlier.
    ready_at: Instant,
    /// When the link has carried what went.
    busy_until: Instant,
    chance: Chance,
    has_ended: bool,
}

impl Line {
    /// Nothing under way.
    #[must_use]
    pub fn new(manner: Manner, chance: Chance) -> Self {
        Self {
            manner,
            held: VecDeque::new(),
            held_bytes: 0,
            ready_at: Instant::ZERO,
            busy_until: Instant::ZERO,
            chance,
            has_ended: false,
        }
    }

    /// Changes how bytes are treated; a new delay is for bytes that come from now on.
    pub fn set_manner(&mut self, manner: Manner) {
        self.manner = manner;
    }

    /// Bytes that came and have not gone.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Whether more may come.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.held_bytes < HELD_BYTES_MAX
    }

    /// Bytes came.
    pub fn push(&mut self, now: Instant, bytes: &[u8]) {
        if self.manner.drops || bytes.is_empty() {
            return;
        }
        let jitter = u64::try_from(self.manner.jitter.as_nanos()).unwrap_or(u64::MAX);
        let at = now + self.manner.delay + Duration::from_nanos(self.chance.below(jitter));
        self.ready_at = self.ready_at.max(at);
        let piece_bytes = if self.manner.rate.is_some() { PIECE_BYTES_MAX } else { bytes.len() };
        self.held.extend(bytes.chunks(piece_bytes).map(|piece| (self.ready_at, piece.to_vec())));
        self.held_bytes += bytes.len();
    }

    /// No more will come; what is held goes all the same.
    pub fn end(&mut self) {
        self.has_ended = true;
    }

    /// Forgets what is held, and no more will come.
    pub fn discard(&mut self) {
        self.held.clear();
        self.held_bytes = 0;
        self.end();
    }

    /// What goes next.
    pub fn next(&mut self, now: Instant) -> Next {
        let Some((ready_at, _)) = self.held.front() else {
            return if self.has_ended { Next::Ended } else { Next::Idle };
        };
        if self.manner.is_paused {
            return Next::Idle;
        }
        let at = (*ready_at).max(self.busy_until);
        if at > now {
            return Next::Wait(at);
        }
        let (_, bytes) = self.held.pop_front().expect("seen just now");
        self.held_bytes -= bytes.len();
        if let Some(rate) = self.manner.rate {
            let nanoseconds = bytes.len() as u128 * 1_000_000_000 / u128::from(rate.max(1));
            self.busy_until = now + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        }
        Next::Bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn line(manner: Manner) -> Line {
        Line::new(manner, Chance::new(7))
    }

    fn at(milliseconds: u32) -> Instant {
        Instant::ZERO + milliseconds * MS
    }

    #[test]
    fn bytes_go_in_their_order_and_then_it_ends() {
        let mut line = line(Manner::default());
        assert_eq!(line.next(at(0)), Next::Idle);
        line.push(at(0), b"a");
        line.push(at(0), b"b");
        line.end();
        assert_eq!(line.next(at(0)), Next::Bytes(b"a".to_vec()));
        assert_eq!(line.held_bytes(), 1);
        assert_eq!(line.next(at(0)), Next::Bytes(b"b".to_vec()));
        assert_eq!(line.next(at(0)), Next::Ended);
    }

    #[test]
    fn a_pause_holds_even_what_has_ended() {
        let mut line = line(Manner { is_paused: true, ..Manner::default() });
        line.push(at(0), b"old");
        line.end();
        assert_eq!(line.next(at(1_000_000)), Next::Idle);
        line.set_manner(Manner::default());
        assert_eq!(line.next(at(1_000_000)), Next::Bytes(b"old".to_vec()));
    }

    #[test]
    fn a_delay_with_jitter_keeps_the_order() {
        let mut line = line(Manner { delay: 10 * MS, jitter: 20 * MS, ..Manner::default() });
        for number in 0..50_u8 {
            line.push(at(number.into()), &[number]);
        }
        let mut now = at(0);
        let mut waits = std::collections::BTreeSet::new();
        for number in 0..50_u8 {
            let bytes = loop {
                match line.next(now) {
                    Next::Wait(until) => now = until,
                    Next::Bytes(bytes) => break bytes,
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(bytes, [number]);
            let waited = now.since(at(number.into()));
            assert!(waited >= 10 * MS && waited < 80 * MS, "{waited:?}");
            waits.insert(waited);
        }
        assert!(waits.len() > 5, "it varies");
    }

    #[test]
    fn a_rate_is_kept_over_a_large_piece() {
        let mut line = line(Manner { rate: Some(1 << 20), ..Manner::default() });
        line.push(at(0), &vec![7; 1 << 20]);
        line.end();
        let (mut now, mut gone) = (at(0), 0);
        loop {
            match line.next(now) {
                Next::Wait(until) => now = until,
                Next::Bytes(bytes) => gone += bytes.len(),
                Next::Ended => break,
                Next::Idle => panic!("bytes are held"),
            }
        }
        assert_eq!(gone, 1 << 20);
        // The last piece has gone when its time begins.
        assert!(now >= at(970) && now <= at(1000), "{now}");
    }

    #[test]
    fn what_is_dropped_never_comes() {
        let mut line = line(Manner::default());
        line.push(at(0), b"before");
        line.set_manner(Manner { drops: true, ..Manner::default() });
        line.push(at(0), b"during");
        line.set_manner(Manner::default());
        line.push(at(0), b"after");
        assert_eq!(line.next(at(0)), Next::Bytes(b"before".to_vec()));
        assert_eq!(line.next(at(0)), Next::Bytes(b"after".to_vec()));
        line.push(at(0), b"lost");
        line.discard();
        assert_eq!((line.next(at(0)), line.held_bytes()), (Next::Ended, 0));
    }
}
