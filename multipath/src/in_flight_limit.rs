//! How many requests one path may have at a time: as many as it works on, and few that only wait there.
//!
//! What waits in the queue of a slow path is lost to the others, so the limit follows the path: it grows
//! while more in flight does not make answers slower, and shrinks when it does, or when the path says
//! that it has no room (BUSY, TASK SET FULL). Additive increase, multiplicative decrease.
//!
//! A *window* is a number of requests sent and answered under one limit. Its mean service time is
//! compared with that of a *quiet* window: one with at most half the limit in flight, which every 32nd
//! window is made to be.
//!
//! Keeps true: 1 ≤ limit ≤ cap; a path that is not used up to its limit keeps it; only requests sent
//! within a window count for it, so that the effect of one step is seen before the next; one burst of
//! BUSY shrinks once. Latency that does not fall when the limit does is not the queue of this path, and
//! becomes the new measure. Integers only.
//!
//! The numbers. Past the knee, n in flight on a path that works on c at a time take n / c of the quiet
//! time. Cutting above 5 / 4 of it, and half a request, leaves the limit between the knee and the knee
//! × 5 / 4 + 1. A window of 64 answers knows its mean to 12 % where service times are as uneven as an
//! exponential distribution, and a cut by 1 / 8 against a step of 1 / 2 + 1 / 16 then does not mind the
//! cuts that come by chance. A quiet window every 32 costs at most 2 % of throughput. In the model of the
//! tests (1 to 64 servers, even and exponential) the mean limit is 1.1 to 1.45 × the knee with 0.96 to
//! 1.0 of the throughput. From 1 to 64 takes at most 4,000 answers. Not here: which requests wait.

use storage_mapping::Instant;

/// The limit counts in sixteenths.
const ONE: u32 = 16;
/// Answers in a window: at least so many, and so many times the limit. Those that take long come back
/// last, and a window of one round would miss them.
const SAMPLES_MIN: u32 = 64;
const ROUNDS: u32 = 4;
/// Windows from one quiet window to the next.
const QUIET_EVERY: u32 = 32;
/// The same, as long as the quiet time falls by an eighth or more.
const QUIET_SOON: u32 = 4;
/// Cuts in a row after which latency should have followed.
const CUTS_MAX: u32 = 4;

/// Answers to requests that were sent under one limit.
#[derive(Clone, Copy, Debug)]
struct Window {
    began: Instant,
    samples: u32,
    sum_nanos: u64,
    most_in_flight: u32,
}

/// The limit of one path.
#[derive(Clone, Copy, Debug)]
pub struct InFlightLimit {
    cap: u32,
    /// In sixteenths.
    limit: u32,
    /// Doubles until the first cut.
    is_starting: bool,
    window: Window,
    /// Windows until the next quiet one.
    quiet_in: u32,
    /// This window is to be a quiet one.
    is_quieting: bool,
    /// Mean service time without a queue, in nanoseconds.
    quiet_nanos: Option<u64>,
    cuts: u32,
    /// Mean service time at the first of these cuts.
    nanos_before_cuts: u64,
    busy_cut_at: Option<Instant>,
}

impl InFlightLimit {
    /// A limit of 1 that may grow to `cap` (at least 1; what is above 2²⁴ counts as 2²⁴).
    #[must_use]
    pub fn new(now: Instant, cap: u32) -> Self {
        Self {
            cap: cap.clamp(1, 1 << 24),
            limit: ONE,
            is_starting: true,
            window: Window::new(now),
            quiet_in: QUIET_EVERY,
            is_quieting: false,
            quiet_nanos: None,
            cuts: 0,
            nanos_before_cuts: 0,
            busy_cut_at: None,
        }
    }

    /// Requests that the path may have now.
    #[must_use]
    pub fn limit(&self) -> u32 {
        let whole = self.limit / ONE;
        if self.is_quieting { (whole / 2).max(1) } else { whole }
    }

    /// A request was answered by the storage side. `in_flight` is what the path had, this one included.
    pub fn handle_end(&mut self, now: Instant, sent: Instant, in_flight: u32) {
        if sent < self.window.began {
            return;
        }
        let nanos = u64::try_from(now.since(sent).as_nanos()).unwrap_or(u64::MAX);
        let window = &mut self.window;
        window.samples += 1;
        window.sum_nanos = window.sum_nanos.saturating_add(nanos);
        window.most_in_flight = window.most_in_flight.max(in_flight);
        if window.samples >= SAMPLES_MIN.max(self.limit().saturating_mul(ROUNDS)) {
            self.end_window(now);
        }
    }

    /// The path said that it has no room for a request.
    pub fn handle_busy(&mut self, now: Instant, sent: Instant) {
        if self.busy_cut_at.is_some_and(|cut_at| sent < cut_at) {
            return;
        }
        self.busy_cut_at = Some(now);
        self.set_limit(self.limit - self.limit / 4);
        self.is_starting = false;
        self.is_quieting = false;
        self.window = Window::new(now);
    }

    fn end_window(&mut self, now: Instant) {
        let Window { samples, sum_nanos, most_in_flight, .. } = self.window;
        let mean = sum_nanos / u64::from(samples.max(1));
        let was_full = most_in_flight >= self.limit();
        // With or without a queue: three quarters of the quiet time are a new measure.
        let is_faster = self.quiet_nanos.is_some_and(|quiet| mean < quiet - quiet / 4);
        let is_low = self.limit() == 1 || most_in_flight <= self.limit / ONE / 2;
        let was_quiet = self.is_quieting || is_low || is_faster;
        self.quiet_in = self.quiet_in.saturating_sub(1);
        if was_quiet {
            self.measure(mean);
        }
        if was_full && !self.is_quieting {
            self.step(mean);
        }
        self.is_quieting = self.quiet_in == 0 && self.limit >= 2 * ONE;
        self.window = Window::new(now);
    }

    /// Learns from a quiet window: down by half of the difference, so that a measure taken in a queue is
    /// soon forgotten, and up by a quarter. While it falls much, the next quiet window comes soon.
    fn measure(&mut self, mean: u64) {
        let old = self.quiet_nanos.unwrap_or(mean);
        let new = if mean < old { old - (old - mean) / 2 } else { old + (mean - old) / 4 };
        self.quiet_nanos = Some(new);
        self.quiet_in = if new < old - old / 8 { QUIET_SOON } else { QUIET_EVERY };
    }

    /// Grows or shrinks after a window that was used up to the limit.
    fn step(&mut self, mean: u64) {
        let quiet = self.quiet_nanos.unwrap_or(mean);
        let slack = quiet / 4 + quiet / 2 / u64::from(self.limit());
        if mean <= quiet.saturating_add(slack) {
            self.cuts = 0;
            let grown =
                if self.is_starting { self.limit * 2 } else { self.limit + ONE / 2 + self.limit / 16 };
            return self.set_limit(grown);
        }
        self.is_starting = false;
        if self.cuts == 0 || mean > self.nanos_before_cuts {
            // A queue that still builds up says nothing of the cuts.
            self.nanos_before_cuts = mean;
            self.cuts = 0;
        }
        self.cuts += 1;
        if self.cuts > CUTS_MAX && mean > self.nanos_before_cuts - self.nanos_before_cuts / 5 {
            // Four cuts took 41 % of what was in flight, and not even a fifth of the time.
            self.quiet_nanos = Some(mean);
            self.cuts = 0;
            return;
        }
        self.set_limit(self.limit - (self.limit / 8).max(ONE).min(self.limit));
    }

    fn set_limit(&mut self, sixteenths: u32) {
        self.limit = sixteenths.clamp(ONE, self.cap * ONE);
    }
}

impl Window {
    fn new(began: Instant) -> Self {
        Self { began, samples: 0, sum_nanos: 0, most_in_flight: 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use proptest::prelude::*;

    use super::*;

    /// A path that works on `servers` requests at a time and has room for `room`.
    struct Path {
        servers: usize,
        room: usize,
        service_nanos: u64,
        is_uneven: bool,
        random: u64,
    }

    /// What is in flight on it, and for whom there is always more to send.
    struct Bench {
        path: Path,
        limit: InFlightLimit,
        now: u64,
        /// When each server is free.
        free_at: BinaryHeap<Reverse<u64>>,
        /// End and begin of what is in flight.
        in_flight: BinaryHeap<Reverse<(u64, u64)>>,
        busies: u32,
    }

    impl Path {
        fn service_time(&mut self) -> u64 {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if !self.is_uneven {
                return self.service_nanos;
            }
            // An exponential distribution.
            let uniform = ((self.random >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
            (-uniform.ln() * self.service_nanos as f64) as u64
        }
    }

    impl Bench {
        fn new(servers: usize, is_uneven: bool) -> Self {
            let path = Path { servers, room: usize::MAX, service_nanos: 100_000, is_uneven, random: 7 };
            let mut bench = Self {
                path,
                limit: InFlightLimit::new(Instant::ZERO, 128),
                now: 0,
                free_at: BinaryHeap::new(),
                in_flight: BinaryHeap::new(),
                busies: 0,
            };
            bench.set_servers(servers);
            bench
        }

        fn set_servers(&mut self, servers: usize) {
            self.path.servers = servers;
            self.free_at = (0..servers).map(|_| Reverse(self.now)).collect();
        }

        fn send(&mut self) {
            while self.in_flight.len() < self.limit.limit() as usize {
                let now = Instant(self.now);
                if self.in_flight.len() >= self.path.room {
                    self.busies += 1;
                    return self.limit.handle_busy(now, now);
                }
                let Reverse(free) = self.free_at.pop().unwrap();
                let end = free.max(self.now) + self.path.service_time().max(1);
                self.free_at.push(Reverse(end));
                self.in_flight.push(Reverse((end, self.now)));
            }
        }

        /// Goes through `count` answers; gives the mean limit and the share of the servers that worked.
        fn run(&mut self, count: u32) -> (f64, f64) {
            let (began, mut sum) = (self.now, 0);
            for _ in 0..count {
                self.send();
                let in_flight = self.in_flight.len() as u32;
                let Reverse((end, sent)) = self.in_flight.pop().unwrap();
                self.now = end;
                self.limit.handle_end(Instant(end), Instant(sent), in_flight);
                sum += u64::from(self.limit.limit());
            }
            let ideal = f64::from(count) * self.path.service_nanos as f64 / self.path.servers as f64;
            (sum as f64 / f64::from(count), ideal / (self.now - began) as f64)
        }
    }

    fn assert_at_the_knee(bench: &mut Bench, context: &str) {
        let knee = bench.path.servers as f64;
        let (limit, share) = bench.run(20_000);
        assert!((0.5 * knee..=1.5 * knee).contains(&limit), "knee {knee}: {limit}, {context}");
        assert!(share > 0.95, "knee {knee}: {share} of the throughput, {context}");
    }

    #[test]
    fn it_finds_the_knee() {
        for is_uneven in [false, true] {
            for knee in [1, 2, 3, 4, 8, 16, 32, 64] {
                let mut bench = Bench::new(knee, is_uneven);
                bench.run(2_000);
                assert_at_the_knee(&mut bench, if is_uneven { "uneven" } else { "even" });
            }
        }
    }

    #[test]
    fn it_follows_a_path_that_changes() {
        for is_uneven in [false, true] {
            let mut bench = Bench::new(32, is_uneven);
            for (servers, nanos) in
                [(32, 100_000), (4, 100_000), (32, 100_000), (32, 1_000_000), (16, 50_000)]
            {
                bench.set_servers(servers);
                bench.path.service_nanos = nanos;
                bench.run(10_000);
                assert_at_the_knee(&mut bench, "after a change");
            }
        }
    }

    #[test]
    fn it_shrinks_on_busy_and_grows_back() {
        let mut bench = Bench::new(64, false);
        bench.run(10_000);
        assert!(bench.limit.limit() >= 32);
        bench.path.room = 8;
        bench.run(2_000);
        let before = bench.busies;
        let (limit, _) = bench.run(10_000);
        assert!((4.0..=12.0).contains(&limit), "{limit}");
        let refused = f64::from(bench.busies - before) / 10_000.0;
        assert!(refused < 0.03, "{refused} of the requests were refused");
        bench.path.room = usize::MAX;
        bench.run(4_000);
        assert!(bench.limit.limit() >= 48, "{} after 4,000 requests", bench.limit.limit());
    }

    #[test]
    fn from_one_to_64_takes_at_most_4000_requests() {
        let mut bench = Bench::new(64, false);
        bench.limit.is_starting = false;
        let mut answers = 0;
        while bench.limit.limit() < 64 {
            bench.run(1);
            answers += 1;
            assert!(answers <= 4000, "{}", bench.limit.limit());
        }
    }

    #[test]
    fn a_burst_of_busy_is_one_cut() {
        let mut limit = InFlightLimit::new(Instant::ZERO, 64);
        limit.limit = 32 * ONE;
        for at in 10..20 {
            limit.handle_busy(Instant(at), Instant(5));
        }
        assert_eq!(limit.limit(), 24);
        limit.handle_busy(Instant(30), Instant(25));
        assert_eq!(limit.limit(), 18);
        for at in 100..200 {
            limit.handle_busy(Instant(at), Instant(at));
        }
        assert_eq!(limit.limit(), 1);
    }

    #[test]
    fn what_is_not_used_stays() {
        let mut limit = InFlightLimit::new(Instant::ZERO, 64);
        limit.limit = 32 * ONE;
        for step in 0..20_000_u64 {
            let sent = Instant(step * 1000);
            limit.handle_end(Instant(sent.0 + 500 + step % 7 * 10_000), sent, 3);
        }
        assert_eq!(limit.limit / ONE, 32);
    }

    proptest! {
        #[test]
        fn the_limit_stays_within_its_bounds(
            cap in any::<u32>(), steps in prop::collection::vec(any::<(u64, u64, u32, bool)>(), 0..500),
        ) {
            let mut limit = InFlightLimit::new(Instant::ZERO, cap);
            for (now, sent, in_flight, is_busy) in steps {
                if is_busy && in_flight % 8 == 0 {
                    limit.handle_busy(Instant(now), Instant(sent));
                } else {
                    limit.handle_end(Instant(now), Instant(sent), in_flight);
                }
                prop_assert!((1..=cap.max(1)).contains(&limit.limit()));
            }
        }
    }
}
