//! What many drills of one kind say together.
//!
//! Keeps true: a figure is that of the worst request of a drill, and a row has the median and the worst of its drills;
//! writes that the fence holds wait for a reason of their own and are counted apart. Not here: what a figure should be.

use std::time::Duration;

use multipath::histogram::Histogram;
use multipath::latency::FailoverTimes;

use super::drill::{ATTEMPT_TIMEOUT, Outcome};

/// What drills of one kind measured.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Of each drill: from the fault to the end of the last request that was on its way then.
    pub stuck: Vec<Duration>,
    /// Of each drill: the slowest request that went on between fault and healing.
    pub slowest: Vec<Duration>,
    /// Of each drill: the longest time without any completion, from the fault to the healing.
    pub silence: Vec<Duration>,
    /// Of each drill: from the healing until all paths were in use.
    pub back: Vec<Duration>,
    /// Of all reads that were given up on by time-out: from their submission to their end.
    pub hung_reads: Vec<Duration>,
    /// Of all requests before the fault.
    pub service: Vec<Duration>,
    /// Of each drill: the share of the failed path, before and after.
    pub shares: Vec<[f64; 2]>,
    /// Of each drill: requests a second, before and between fault and healing.
    pub rates: Vec<[f64; 2]>,
    /// Steps of failovers.
    pub times: FailoverTimes,
    /// Requests that failed, and how.
    pub errors: Vec<String>,
    /// Requests that ended.
    pub requests: u64,
    /// Blocks compared.
    pub blocks_checked: u64,
    /// What was wrong.
    pub wrong: Vec<String>,
    /// Writes that were given up on and landed later.
    pub ghosts: u64,
    /// Writes that the fence held.
    pub held: u64,
    /// Copies that landed after they had been assumed dead.
    pub late_landings: u64,
}

impl Figures {
    /// Adds a drill.
    pub fn add(&mut self, drill: &Outcome) {
        let Outcome { fault_at, heal_at, whole_at, .. } = *drill;
        let free = || drill.done.iter().filter(|done| !done.was_held);
        let overlapping = || free().filter(|done| done.done > fault_at && done.submitted < heal_at);
        let was_stuck = free().filter(|done| done.submitted <= fault_at && done.done > fault_at);
        self.stuck.push(was_stuck.map(|done| done.done.since(fault_at)).max().unwrap_or_default());
        self.slowest.push(overlapping().map(|done| done.latency()).max().unwrap_or_default());

        let mut last = fault_at;
        let mut silence = Duration::ZERO;
        for done in drill.done.iter().filter(|done| done.done > fault_at && done.done <= heal_at) {
            silence = silence.max(done.done.since(last));
            last = done.done;
        }
        self.silence.push(silence.max(heal_at.since(last)));
        self.back.push(whole_at.since(heal_at));
        let reads = overlapping().filter(|done| !done.is_write).map(|done| done.latency());
        self.hung_reads.extend(reads.filter(|latency| *latency >= ATTEMPT_TIMEOUT));
        let before: Vec<_> = free().filter(|done| done.done <= fault_at).collect();
        self.service.extend(before.iter().map(|done| done.latency()));

        let began = drill.done.first().map_or(fault_at, |done| done.submitted);
        let during = drill.done.iter().filter(|done| done.done > fault_at && done.done <= heal_at).count();
        let rate = |count: usize, time: Duration| count as f64 / time.as_secs_f64().max(1e-6);
        self.rates.push([rate(before.len(), fault_at.since(began)), rate(during, heal_at.since(fault_at))]);
        self.shares.push(drill.share);
        self.times.detect.merge(&drill.times.detect);
        self.times.resubmit.merge(&drill.times.resubmit);
        self.times.complete.merge(&drill.times.complete);
        self.errors.extend(drill.errors.iter().cloned());
        self.requests += drill.done.len() as u64;
        self.blocks_checked += drill.blocks_checked;
        self.wrong.extend(drill.wrong.iter().cloned());
        self.ghosts += drill.ghosts;
        self.held += drill.done.iter().filter(|done| done.was_held).count() as u64;
        self.late_landings += drill.late_landings;
    }
}

/// The value of that share of all from below, 0 to 1; zero where there is none.
#[must_use]
pub fn quantile(values: &[Duration], share: f64) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
}

/// The mean of numbers; zero where there is none.
#[must_use]
pub fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1);
    values.sum::<f64>() / count as f64
}

/// A time in milliseconds, as it stands in a table.
#[must_use]
pub fn ms(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 10.0 { format!("{ms:.2}") } else { format!("{ms:.0}") }
}

/// Median and worst, in milliseconds.
#[must_use]
pub fn median_and_worst(values: &[Duration]) -> String {
    format!("{} / {}", ms(quantile(values, 0.5)), ms(quantile(values, 1.0)))
}

/// A quantile and the worst of a histogram, in milliseconds; `-` where it is empty.
#[must_use]
pub fn of_histogram(histogram: &Histogram, share: f64) -> String {
    histogram
        .quantile(share)
        .map_or_else(|| "-".to_owned(), |at| format!("{} / {}", ms(at), ms(histogram.max())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_value_that_was_there() {
        let values: Vec<_> = (1..=20).map(Duration::from_millis).rev().collect();
        let of = |share| quantile(&values, share).as_millis();
        assert_eq!([of(0.0), of(0.5), of(0.99), of(1.0)], [1, 10, 20, 20]);
        assert_eq!(quantile(&[], 0.5), Duration::ZERO);
        assert_eq!(median_and_worst(&values), "10 / 20");
        assert_eq!(ms(Duration::from_micros(1234)), "1.23");
    }
}
