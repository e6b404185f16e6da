//! What came of a part of a run.
//!
//! Keeps true: a request counts where it ended, and what was sent over paths where it was sent; hedges and what was sent again
//! count among what was sent. Not here: what it should be.

use std::time::Duration;

use storage_mapping::Instant;

/// What came of a part of a run.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// From wanting to the end of each request that was done, in nanoseconds; in order of size once the part is over.
    latencies: Vec<u64>,
    /// Requests that failed.
    pub failed: u64,
    /// Requests sent over each path.
    pub sent: Vec<u64>,
    /// Bytes of what was done.
    pub bytes: u64,
    /// How long it went on.
    pub elapsed: Duration,
    /// When requests went out over paths, where that was wanted: the time, and how many had gone out until then.
    sent_until: Option<Vec<(Instant, u64)>>,
    began: Instant,
}

impl Tally {
    pub(super) fn begin(now: Instant, sent: Vec<u64>, notes_times: bool) -> Self {
        let sent_until = notes_times.then(|| vec![(now, sent.iter().sum())]);
        Self { began: now, sent, sent_until, ..Self::default() }
    }

    pub(super) fn note_done(&mut self, latency: Duration, bytes: usize) {
        self.latencies.push(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        self.bytes += bytes as u64;
    }

    pub(super) fn notes_times(&self) -> bool {
        self.sent_until.is_some()
    }

    pub(super) fn note_sent(&mut self, now: Instant, sent: u64) {
        let Some(notes) = &mut self.sent_until else { return };
        if notes.last().is_none_or(|(_, before)| *before < sent) {
            notes.push((now, sent));
        }
    }

    pub(super) fn end(&mut self, now: Instant, sent: &[u64]) {
        self.elapsed = now.since(self.began);
        for (place, now) in self.sent.iter_mut().zip(sent) {
            *place = now - *place;
        }
        self.latencies.sort_unstable();
    }

    /// Puts another part to this one.
    pub fn add(&mut self, other: &Self) {
        self.latencies.extend(&other.latencies);
        self.latencies.sort_unstable();
        self.failed += other.failed;
        self.bytes += other.bytes;
        self.elapsed += other.elapsed;
        self.sent.iter_mut().zip(&other.sent).for_each(|(here, there)| *here += there);
    }

    /// Requests that ended.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.latencies.len() as u64 + self.failed
    }

    /// The time within which this part of the requests were done: 0.99 for the 99th percentile. Zero if none was.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        // Of some millions of requests: f64 holds that exactly.
        let place = ((self.latencies.len() as f64 * part).ceil() as usize).saturating_sub(1).min(last);
        Duration::from_nanos(self.latencies.get(place).copied().unwrap_or(0))
    }

    /// The longest time.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.quantile(1.0)
    }

    /// What was done in less than `limit` is left out.
    #[must_use]
    pub fn at_least(&self, limit: Duration) -> Self {
        let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let first = self.latencies.partition_point(|latency| *latency < nanos);
        Self { latencies: self.latencies[first..].to_vec(), ..self.clone() }
    }

    /// The part of all requests that was sent over a path.
    #[must_use]
    pub fn share(&self, path: usize) -> f64 {
        self.sent[path] as f64 / self.sent.iter().sum::<u64>() as f64
    }

    /// Bytes a second.
    #[must_use]
    pub fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64()
    }

    /// Jain's index of what was sent over the paths: 1 where all got the same.
    #[must_use]
    pub fn jain(&self) -> f64 {
        let sum = self.sent.iter().sum::<u64>() as f64;
        let squares: f64 = self.sent.iter().map(|count| (*count as f64).powi(2)).sum();
        sum * sum / (self.sent.len() as f64 * squares)
    }

    /// The most sent over one path, divided by the least.
    #[must_use]
    pub fn spread(&self) -> f64 {
        let (most, least) = (self.sent.iter().max(), self.sent.iter().min());
        most.copied().unwrap_or(0) as f64 / least.copied().unwrap_or(0) as f64
    }

    /// The most that went out over all paths within any `window`; 0 where the times were not noted.
    #[must_use]
    pub fn busiest(&self, window: Duration) -> u64 {
        let notes = self.sent_until.as_deref().unwrap_or_default();
        let (mut most, mut first) = (0, 0);
        for (at, until) in notes {
            // What had gone out before the window: the last note that is not in it.
            while first + 1 < notes.len() && notes[first + 1].0 + window <= *at {
                first += 1;
            }
            most = most.max(until - notes[first].1);
        }
        most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Instant {
        Instant(count * 1_000_000)
    }

    #[test]
    fn the_busiest_window_is_found() {
        let mut tally = Tally::begin(ms(0), vec![0, 0], true);
        for (at, sent) in [(10, 1), (20, 2), (200, 50), (290, 60), (301, 61), (399, 70)] {
            tally.note_sent(ms(at), sent);
        }
        assert_eq!(tally.busiest(Duration::from_millis(100)), 58, "at 200 and 290");
        assert_eq!(tally.busiest(Duration::from_millis(102)), 59, "and at 301");
        assert_eq!(tally.busiest(Duration::from_secs(1)), 70);
    }

    #[test]
    fn quantiles_and_shares_are_those_of_what_was_noted() {
        let mut tally = Tally::begin(ms(5), vec![10, 0], false);
        (1..=100).for_each(|count| tally.note_done(Duration::from_nanos(count), 1000));
        tally.end(ms(1005), &[40, 10]);
        assert_eq!((tally.quantile(0.99).as_nanos(), tally.longest().as_nanos()), (99, 100));
        assert_eq!((tally.sent.as_slice(), tally.share(1)), (&[30, 10][..], 0.25));
        assert_eq!((tally.bytes_per_second(), tally.spread(), tally.jain()), (100_000.0, 3.0, 0.8));
        assert_eq!(tally.at_least(Duration::from_nanos(91)).ended(), 10);
        assert_eq!(tally.busiest(Duration::from_secs(1)), 0, "nobody asked");
    }
}
