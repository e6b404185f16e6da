//! How many segments of one direction are read or written on a device at the same time.
//!
//! All at once would be done all at the same moment: the disk rests while they are opened, and the processors while the
//! next ones are read. A few at a time flow. How few depends on the device: one that takes its time for each but many
//! at once needs many in flight. So a limit for each device follows what waits in its queue, as TCP Vegas does
//! (Brakmo and Peterson, 1995): of `n` in flight that take `t` where the quickest took `q`, `n (1 − q / t)` wait.
//!
//! What holds: at least [`LEAST`] may be in flight on a device; what is small is never held up; what takes longer than
//! [`HOLDS_UP_MAX`] holds nothing up any more, so that a device that hangs gets no fewer than without a limit, only
//! later. It decides when an I/O is issued, never what is right. Not here: whose I/O it is (`writer`, `reader`).

use std::time::Duration;

use storage_mapping::Instant;

/// In flight on each device at any time, if there are so many.
pub const LEAST: usize = 4;
/// Nothing is held up for longer by one I/O.
pub const HOLDS_UP_MAX: Duration = Duration::from_millis(100);
/// What has fewer blocks is not worth holding up: messages and small answers.
const BLOCKS_MIN: u16 = 16;
/// With fewer waiting in the device's queue, more may be in flight …
const QUEUED_LEAST: f64 = 2.0;
/// … and with more waiting, fewer.
const QUEUED_MOST: f64 = 4.0;
/// The quickest I/O is forgotten after one to two of these: paths change.
const MEMORY: Duration = Duration::from_secs(10);

/// An I/O that is in flight.
#[derive(Clone, Copy, Debug)]
struct Flight {
    seq: u64,
    attempt: u16,
    device: u16,
    blocks: u16,
    began: Instant,
    /// It takes so long that it holds up nothing any more.
    is_released: bool,
}

/// What is known of a device.
#[derive(Debug)]
struct Device {
    number: u16,
    limit: usize,
    /// The quickest I/O of this span of time and of the one before.
    quickest: [Option<Duration>; 2],
    span_began: Instant,
    /// I/Os of this round, and how long they took together.
    done: u32,
    took: Duration,
    /// Something had to wait in this round.
    was_full: bool,
}

impl Device {
    fn new(number: u16, now: Instant) -> Self {
        Self {
            number,
            limit: LEAST,
            quickest: [None; 2],
            span_began: now,
            done: 0,
            took: Duration::ZERO,
            was_full: false,
        }
    }

    /// An I/O took so long. A round of as many as the limit moves it.
    fn handle_done(&mut self, now: Instant, took: Duration, most: usize) {
        if now.since(self.span_began) >= MEMORY {
            self.quickest = [None, self.quickest[0]];
            self.span_began = now;
        }
        self.quickest[0] = Some(self.quickest[0].map_or(took, |quickest| quickest.min(took)));
        self.done += 1;
        self.took += took;
        if (self.done as usize) < self.limit {
            return;
        }
        let quickest = self.quickest.iter().flatten().min().copied().unwrap_or(took);
        let mean = self.took / self.done;
        let idle = if mean.is_zero() { 1.0 } else { quickest.as_secs_f64() / mean.as_secs_f64() };
        let queued = self.limit as f64 * (1.0 - idle.min(1.0));
        let next = match queued {
            queued if queued > QUEUED_MOST => self.limit - 1,
            _ if !self.was_full => self.limit,
            queued if queued < QUEUED_LEAST / 2.0 => 2 * self.limit,
            queued if queued < QUEUED_LEAST => self.limit + 1,
            _ => self.limit,
        };
        self.limit = next.clamp(LEAST, most.max(LEAST));
        (self.done, self.took, self.was_full) = (0, Duration::ZERO, false);
    }
}

/// The limits of one direction of a connection.
#[derive(Debug)]
pub struct Depth {
    /// The window: more are never in flight.
    most: usize,
    devices: Vec<Device>,
    flights: Vec<Flight>,
    /// The largest I/O so far: only such are compared.
    blocks_most: u16,
}

impl Depth {
    /// Limits below `most`, the window.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, devices: Vec::new(), flights: Vec::new(), blocks_most: 0 }
    }

    /// Begins an I/O of so many blocks, if there is room for it on its device. To be asked for again when an I/O has
    /// ended, and at [`next_room`](Self::next_room).
    pub fn begin(&mut self, now: Instant, (seq, attempt): (u64, u16), device: u16, blocks: u16) -> bool {
        if blocks < BLOCKS_MIN {
            return true;
        }
        let mut in_flight = 0;
        for flight in &mut self.flights {
            flight.is_released |= now.since(flight.began) >= HOLDS_UP_MAX;
            in_flight += usize::from(flight.device == device && !flight.is_released);
        }
        let known = self.device(now, device);
        if in_flight >= known.limit {
            known.was_full = true;
            return false;
        }
        self.flights.push(Flight { seq, attempt, device, blocks, began: now, is_released: false });
        self.blocks_most = self.blocks_most.max(blocks);
        true
    }

    /// An I/O has ended, or is no longer waited for. Small ones, and what has ended already, change nothing.
    pub fn end(&mut self, now: Instant, seq: u64, attempt: u16) {
        let is_it = |flight: &Flight| (flight.seq, flight.attempt) == (seq, attempt);
        let Some(index) = self.flights.iter().position(is_it) else { return };
        let flight = self.flights.swap_remove(index);
        if flight.blocks == self.blocks_most {
            let most = self.most;
            self.device(now, flight.device).handle_done(now, now.since(flight.began), most);
        }
    }

    /// When an I/O in flight stops to hold up others, if none ends before.
    #[must_use]
    pub fn next_room(&self) -> Option<Instant> {
        let counted = self.flights.iter().filter(|flight| !flight.is_released);
        counted.map(|flight| flight.began + HOLDS_UP_MAX).min()
    }

    fn device(&mut self, now: Instant, number: u16) -> &mut Device {
        let index = self.devices.iter().position(|device| device.number == number).unwrap_or_else(|| {
            self.devices.push(Device::new(number, now));
            self.devices.len() - 1
        });
        &mut self.devices[index]
    }
}

#[cfg(test)]
mod tests {
    use super::{Depth, HOLDS_UP_MAX, LEAST};
    use std::collections::VecDeque;
    use std::time::Duration;
    use storage_mapping::Instant;

    const WINDOW: usize = 32;
    const BLOCKS: u16 = 257;

    /// As many in flight as there may be, for so many I/Os, on a device that does one after another in `service` each, and
    /// none in less than `latency`. Gives the most that were in flight in the last quarter, and I/Os a second.
    fn run(service: Duration, latency: Duration) -> (usize, f64) {
        let mut depth = Depth::new(WINDOW);
        let (mut now, mut free) = (Instant(1_000_000_000), Instant(1_000_000_000));
        let begun = now;
        let (mut flying, mut seq, mut most): (VecDeque<(u64, Instant)>, _, _) = (VecDeque::new(), 0, 0);
        const COUNT: u64 = 4000;
        while seq < COUNT {
            while flying.len() < WINDOW && depth.begin(now, (seq, 0), 1, BLOCKS) {
                free = (free + service).max(now + latency.max(service));
                flying.push_back((seq, free));
                seq += 1;
            }
            if seq > COUNT / 4 * 3 {
                most = most.max(flying.len());
            }
            let (done, at) = flying.pop_front().expect("something is in flight");
            now = at.max(now);
            depth.end(now, done, 0);
        }
        (most, COUNT as f64 / now.since(begun).as_secs_f64())
    }

    #[test]
    fn a_device_that_does_one_after_another_has_a_short_queue_and_is_busy() {
        let (most, rate) = run(Duration::from_micros(700), Duration::ZERO);
        assert!((LEAST..=LEAST + 1).contains(&most), "{most}");
        assert!(rate > 0.99 / 700e-6, "{rate}");
    }

    #[test]
    fn a_device_that_answers_late_has_as_many_as_keep_it_busy() {
        // Fourteen at once keep it busy, all of the window if it does them all at once.
        let (most, rate) = run(Duration::from_micros(700), Duration::from_millis(10));
        assert!((14..=20).contains(&most), "{most}");
        assert!(rate > 0.95 / 700e-6, "{rate}");
        let (most, rate) = run(Duration::from_nanos(1), Duration::from_millis(10));
        assert_eq!(most, WINDOW);
        assert!(rate > 0.95 * WINDOW as f64 / 10e-3, "{rate}");
    }

    #[test]
    fn an_io_that_hangs_holds_up_others_for_a_moment_only() {
        let mut depth = Depth::new(WINDOW);
        let begun = Instant(5_000_000_000);
        let begin = |depth: &mut Depth, now, seq| depth.begin(now, (seq, 0), 1, BLOCKS);
        assert_eq!((0..10).filter(|seq| begin(&mut depth, begun, *seq)).count(), LEAST);
        // Another device and what is small are not held up.
        assert!(depth.begin(begun, (20, 0), 2, BLOCKS) && depth.begin(begun, (21, 0), 1, 1));
        assert_eq!(depth.next_room(), Some(begun + HOLDS_UP_MAX));
        let later = begun + HOLDS_UP_MAX;
        assert_eq!((4..10).filter(|seq| begin(&mut depth, later, *seq)).count(), LEAST);
        assert!(depth.next_room().is_some_and(|room| room > later));
        // They count no more when they end after all.
        depth.end(later, 0, 0);
        depth.end(later, 77, 0);
        assert!(!begin(&mut depth, later, 8));
        depth.end(later, 4, 0);
        assert!(begin(&mut depth, later, 8) && !begin(&mut depth, later, 9));
    }
}
