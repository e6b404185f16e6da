//! Beacon and bell: how a lane shows that it lives, calls others, and notices that it is called.
//!
//! A call is an entry REQ, then a beacon that names it, then a ring of the target's bell: in this order,
//! each after the one before has been written. Who is rung remembers the new value *before* it looks at
//! the beacons, and looks again after a ring that came meanwhile, so no ring is lost between; and it
//! looks every T_scan anyway, since a late duplicate of an old ring can hide a new one. Before each
//! beacon is written the old one is read back: what is there must be ours, or another process has our
//! identity (rule 14 as decided).

use std::collections::VecDeque;
use std::time::Duration;

use storage_mapping::Instant;
use storage_mapping::block::time::earliest;

use crate::format::beacon::Beacon;

/// Tokens of own beacons that are remembered.
const TOKENS_KEPT: usize = 64;
/// How long after the last connection the bell is polled fast.
const WARM: Duration = Duration::from_secs(60);
/// Bell poll while warm, unless somebody wants another one.
pub const BELL_WARM: Duration = Duration::from_millis(20);
/// Bell poll afterwards.
const BELL_IDLE: Duration = Duration::from_secs(1);
/// Bell poll in deep idle: with beacon, scans, path checks and master control blocks below 0.3 I/Os a second.
const BELL_DEEP: Duration = Duration::from_secs(6);
/// When idle becomes deep idle.
const DEEP_AFTER: Duration = Duration::from_secs(600);
/// Scans that rings may cause at once.
const SCAN_BURST: u32 = 5;
/// A further scan by rings is allowed after each of these.
const SCAN_REFILL: Duration = Duration::from_millis(500);
/// A beacon that did not open is looked at again after these.
const RESCANS: [Duration; 3] =
    [Duration::from_millis(10), Duration::from_millis(100), Duration::from_secs(1)];

/// What the own beacon on the disk says about us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBack {
    /// It is the last one we wrote.
    Current,
    /// It is an older one of ours: a late write. Write again.
    Old,
    /// It does not open.
    Unreadable,
    /// Another process writes it.
    Foreign,
}

/// Keeps the own beacon on the disk.
#[derive(Debug)]
pub struct BeaconKeeper {
    counter: u64,
    tokens: VecDeque<(u64, [u8; 8])>,
    due: Instant,
    /// After an error, not before this, however dirty it is: a path that fails at once must not keep the
    /// loop busy.
    retry_due: Instant,
    busy: bool,
    dirty: bool,
    /// Old beacons of ours that came back.
    pub late_writes: u64,
}

impl BeaconKeeper {
    /// A beacon that is due at once.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            counter: 0,
            tokens: VecDeque::new(),
            due: now,
            retry_due: now,
            busy: false,
            dirty: true,
            late_writes: 0,
        }
    }

    /// Its content has changed: write it soon.
    pub fn mark_dirty(&mut self) {
        self.dirty = true;
    }

    /// Whether a beacon is to be written now; the first needs no read-back.
    pub fn poll_due(&mut self, now: Instant) -> Option<bool> {
        if self.busy || now < self.retry_due || !(self.dirty || now >= self.due) {
            return None;
        }
        self.busy = true;
        Some(self.counter > 0)
    }

    /// Judges the own beacon as it was read back.
    pub fn judge(&mut self, beacon: Option<&Beacon>, incarnation: u64, nonce: &[u8; 16]) -> ReadBack {
        let Some(beacon) = beacon else { return ReadBack::Unreadable };
        let mine = &beacon.incarnation_nonce == nonce;
        let version = beacon.header.version;
        let known = self.tokens.iter().any(|(number, token)| *number == version && *token == beacon.token);
        if mine && known {
            return if version == self.counter { ReadBack::Current } else { ReadBack::Old };
        }
        if !mine && beacon.header.incarnation < incarnation { ReadBack::Old } else { ReadBack::Foreign }
    }

    /// Numbers the next beacon.
    pub fn next(&mut self, token: [u8; 8]) -> u64 {
        self.counter += 1;
        self.dirty = false;
        self.tokens.push_back((self.counter, token));
        if self.tokens.len() > TOKENS_KEPT {
            self.tokens.pop_front();
        }
        self.counter
    }

    /// The write has ended; after an error it is tried again soon.
    pub fn handle_written(&mut self, now: Instant, success: bool, period: Duration) {
        self.busy = false;
        self.due = now + if success { period } else { Duration::from_millis(200) };
        self.retry_due = if success { now } else { self.due };
    }

    /// The read-back failed or was inconclusive: try again.
    pub fn handle_read_again(&mut self, now: Instant) {
        self.busy = false;
        self.due = now + Duration::from_millis(50);
        self.retry_due = self.due;
    }

    /// Whether what it should say is not on the disk yet.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.dirty || self.busy
    }

    /// When the next beacon is due.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        if self.busy {
            None
        } else if self.dirty {
            Some(self.retry_due)
        } else {
            Some(self.due)
        }
    }
}

/// Watches the own bell and decides when to look at the beacons.
#[derive(Debug)]
pub struct BellWatcher {
    /// The page as it was read last: it carries no meaning, any change is a ring.
    remembered: Option<Box<[u8]>>,
    poll_due: Instant,
    polling: bool,
    scanning: bool,
    scan_due: Instant,
    /// When to scan for a ring that came during a scan: its beacon may have been read before.
    rung: Option<Instant>,
    scan_period: Duration,
    tokens: u32,
    refill_due: Instant,
    rescan: usize,
    warm_since: Instant,
    warm_pause: Duration,
}

impl BellWatcher {
    /// A bell whose value is not known yet; the first look is a scan. While connections come and go it is
    /// looked at every `warm_pause`.
    #[must_use]
    pub fn new(now: Instant, scan_period: Duration, warm_pause: Duration) -> Self {
        Self {
            remembered: None,
            poll_due: now,
            polling: false,
            scanning: false,
            scan_due: now,
            rung: None,
            scan_period,
            tokens: SCAN_BURST,
            refill_due: now,
            rescan: 0,
            warm_since: now,
            warm_pause,
        }
    }

    /// There was a connection a moment ago: others may follow soon.
    pub fn warm(&mut self, now: Instant) {
        self.warm_since = now;
        self.poll_due = self.poll_due.min(now + self.warm_pause);
    }

    /// Time since the last connection.
    #[must_use]
    pub fn quiet(&self, now: Instant) -> Duration {
        now.since(self.warm_since)
    }

    fn interval(&self, now: Instant) -> Duration {
        match self.quiet(now) {
            quiet if quiet < WARM => self.warm_pause,
            quiet if quiet < DEEP_AFTER => BELL_IDLE,
            _ => BELL_DEEP,
        }
    }

    /// Whether the bell is to be read now.
    pub fn poll_bell(&mut self, now: Instant) -> bool {
        let due = !self.polling && now >= self.poll_due;
        self.polling |= due;
        due
    }

    /// The bell as it was read. Remembers first; the scan comes after.
    pub fn handle_bell(&mut self, now: Instant, page: Option<&[u8]>) {
        self.polling = false;
        self.poll_due = now + self.interval(now);
        let Some(page) = page else { return };
        if self.remembered.as_deref() != Some(page) {
            self.remembered = Some(page.into());
            while self.tokens < SCAN_BURST && self.refill_due <= now {
                self.tokens += 1;
                self.refill_due = self.refill_due + SCAN_REFILL;
            }
            let due = if self.tokens > 0 {
                if self.tokens == SCAN_BURST {
                    self.refill_due = now + SCAN_REFILL;
                }
                self.tokens -= 1;
                now
            } else {
                self.refill_due
            };
            if self.scanning {
                self.rung = earliest(self.rung, Some(due));
            } else {
                self.scan_due = self.scan_due.min(due);
            }
        }
    }

    /// Whether the beacons are to be read now.
    pub fn poll_scan(&mut self, now: Instant) -> bool {
        let due = !self.scanning && now >= self.scan_due;
        self.scanning |= due;
        due
    }

    /// The beacons were read; `unreadable` if one did not open.
    pub fn handle_scanned(&mut self, now: Instant, unreadable: bool) {
        self.scanning = false;
        let pause = if unreadable && self.rescan < RESCANS.len() {
            self.rescan += 1;
            RESCANS[self.rescan - 1]
        } else {
            self.rescan = 0;
            self.scan_period
        };
        let due = now + pause;
        self.scan_due = self.rung.take().map_or(due, |rung| rung.min(due));
    }

    /// Whether nothing has happened for so long that looking costs more than waiting.
    #[must_use]
    pub fn is_deep(&self, now: Instant) -> bool {
        self.quiet(now) >= DEEP_AFTER
    }

    /// When to look again.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        let poll = (!self.polling).then_some(self.poll_due);
        earliest(poll, (!self.scanning).then_some(self.scan_due))
    }
}

/// Rings of one call: at once, then after 1, 2, 4 … seconds.
#[derive(Clone, Copy, Debug)]
pub struct Ringing {
    due: Instant,
    pause: Duration,
}

impl Ringing {
    /// A call that rings as soon as its beacon is written.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { due: now, pause: Duration::from_secs(1) }
    }

    /// Whether to ring now.
    pub fn poll(&mut self, now: Instant) -> bool {
        if now < self.due {
            return false;
        }
        self.due = now + self.pause;
        self.pause = (self.pause * 2).min(Duration::from_secs(16));
        true
    }

    /// When to ring again.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(30);

    /// A watcher whose first scan is under way.
    fn scanning(now: Instant) -> BellWatcher {
        let mut bell = BellWatcher::new(now, PERIOD, BELL_WARM);
        assert!(bell.poll_bell(now));
        bell.handle_bell(now, Some(&[0; 32]));
        assert!(bell.poll_scan(now));
        bell
    }

    #[test]
    fn a_ring_during_a_scan_causes_another_scan() {
        for unreadable in [false, true] {
            let now = Instant(1_000_000_000);
            let mut bell = scanning(now);
            bell.handle_bell(now, Some(&[1; 32]));
            assert!(!bell.poll_scan(now), "one scan at a time");
            bell.handle_scanned(now, unreadable);
            assert!(bell.poll_scan(now), "the beacon may have been read before the ring");
            bell.handle_scanned(now, false);
            assert!(!bell.poll_scan(now), "one scan is enough");
            assert!(bell.next_wakeup().is_some_and(|due| due > now));
        }
    }

    #[test]
    fn a_ring_during_a_scan_waits_for_its_token() {
        let mut now = Instant(1_000_000_000);
        let mut bell = scanning(now);
        for ring in 1..=SCAN_BURST {
            bell.handle_bell(now, Some(&[ring.to_le_bytes()[0]; 32]));
        }
        bell.handle_scanned(now, false);
        assert!(bell.poll_scan(now));
        bell.handle_bell(now, Some(&[100; 32]));
        bell.handle_scanned(now, false);
        assert!(!bell.poll_scan(now), "every token is used");
        now = now + SCAN_REFILL;
        assert!(bell.poll_scan(now));
    }

    #[test]
    fn a_bell_that_rests_causes_no_scan() {
        let now = Instant(1_000_000_000);
        let mut bell = scanning(now);
        bell.handle_bell(now, Some(&[0; 32]));
        bell.handle_scanned(now, false);
        assert!(!bell.poll_scan(now));
        assert!(bell.poll_scan(now + PERIOD));
    }
}
