//! Distribution of latencies, cheap enough to be fed by every I/O.
//!
//! Buckets are linear up to 1.024 µs (32 of 32 ns) and from there on 32 in every doubling, up to 2³⁷ ns
//! (137 s). A bucket holds the values above its lower and up to its upper bound, as the `le` of Prometheus
//! has it.
//!
//! Keeps true: no value is lost (what is longer than 137 s has a bucket without an upper bound, and is in
//! the largest value and the sum as it is); a quantile is within 1 / 64 (1.6 %) of the value of that rank,
//! or within 16 ns below 1 µs; recording and merging allocate nothing; counts only grow, and stay at the
//! largest number.
//!
//! The numbers: 1 µs is what an answer out of memory takes, and 100 s are above any time-out of ours; 3 %
//! of error need 16 buckets in a doubling (half a bucket is 1 / 32), 32 halve it for 7 KiB in all. A path
//! with one for reads, one for writes, one for flushes needs 21 KiB of its 64. Recording is a count of
//! leading zeros, a shift and an addition. Not here: what is measured, and forgetting.

use std::fmt;
use std::time::Duration;

/// Buckets in a doubling, as a power of two.
const SUB_BITS: u32 = 5;
const SUB_BUCKETS: usize = 1 << SUB_BITS;
/// Below 2^10 ns the buckets are 2^5 ns wide.
const LINEAR_BITS: u32 = 10;
/// Above 2^37 ns there are no buckets.
const TOP_BITS: u32 = 37;
const BUCKET_COUNT: usize = SUB_BUCKETS * (TOP_BITS - LINEAR_BITS + 1) as usize;
/// One more for what is longer.
const COUNTS: usize = BUCKET_COUNT + 1;
const _: () = assert!(COUNTS * size_of::<u64>() <= 8 << 10);

/// The distribution of latencies.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: Box<[u64; COUNTS]>,
    sum_nanos: u64,
    max_nanos: u64,
}

impl Histogram {
    /// Nothing recorded.
    #[must_use]
    pub fn new() -> Self {
        Self { counts: Box::new([0; COUNTS]), sum_nanos: 0, max_nanos: 0 }
    }

    /// Counts one latency.
    pub fn record(&mut self, latency: Duration) {
        self.record_nanos(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts one latency, in nanoseconds.
    pub fn record_nanos(&mut self, nanos: u64) {
        let count = &mut self.counts[bucket_of(nanos)];
        *count = count.saturating_add(1);
        self.sum_nanos = self.sum_nanos.saturating_add(nanos);
        self.max_nanos = self.max_nanos.max(nanos);
    }

    /// Adds what another one has counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts.iter()) {
            *count = count.saturating_add(*more);
        }
        self.sum_nanos = self.sum_nanos.saturating_add(other.sum_nanos);
        self.max_nanos = self.max_nanos.max(other.max_nanos);
    }

    /// Latencies counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Their sum.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_nanos)
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_nanos)
    }

    /// The latency that the share `quantile` (0 to 1) of all did not exceed; `None` if nothing was
    /// counted.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        self.quantiles(self.count(), [quantile]).map(|[latency]| latency)
    }

    /// The latencies of several quantiles, in ascending order, in one walk; `count` is that of [`count`](Self::count).
    /// `None` if nothing was counted.
    #[must_use]
    pub fn quantiles<const N: usize>(&self, count: u64, quantiles: [f64; N]) -> Option<[Duration; N]> {
        if count == 0 {
            return None;
        }
        let (mut seen, mut buckets) = (0_u64, self.counts.iter().enumerate());
        let mut bucket = 0;
        Some(quantiles.map(|quantile| {
            // A float cast saturates, and what is no number becomes 0.
            let rank = ((quantile * count as f64).ceil() as u64).clamp(1, count);
            while seen < rank {
                let Some((next, more)) = buckets.next() else { break };
                (bucket, seen) = (next, seen.saturating_add(*more));
            }
            let middle = lower_bound(bucket).midpoint(upper_bound(bucket));
            let is_above_all = bucket == BUCKET_COUNT;
            Duration::from_nanos(if is_above_all { self.max_nanos } else { middle.min(self.max_nanos) })
        }))
    }

    /// Upper bounds and the number of latencies up to them, `per_doubling` (1 to 32, taken down to a power
    /// of two) in every doubling from 1.024 µs to 137 s. What is longer still is counted by
    /// [`count`](Self::count) only.
    pub fn cumulative(&self, per_doubling: u32) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let per_doubling = 1 << per_doubling.clamp(1, 1 << SUB_BITS).ilog2();
        let step = SUB_BUCKETS / per_doubling;
        let mut seen = 0_u64;
        self.counts.iter().enumerate().take(BUCKET_COUNT).filter_map(move |(bucket, count)| {
            seen = seen.saturating_add(*count);
            let is_bound = (bucket + 1).is_multiple_of(step) && bucket + 1 >= SUB_BUCKETS;
            is_bound.then(|| (Duration::from_nanos(upper_bound(bucket)), seen))
        })
    }

    /// Writes the lines of a Prometheus histogram in seconds, two buckets in a doubling: `NAME_bucket`,
    /// `NAME_sum`, `NAME_count`. The `# TYPE` line stands once before all series of a name
    /// ([`write_prometheus_type`]).
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_prometheus(
        &self,
        out: &mut impl fmt::Write,
        name: &str,
        labels: &[(&str, &str)],
    ) -> fmt::Result {
        let count = self.count();
        for (bound, seen) in self.cumulative(2) {
            write!(out, "{name}_bucket{{")?;
            write_labels(out, labels, ",")?;
            writeln!(out, "le=\"{}\"}} {seen}", Seconds(bound))?;
        }
        write!(out, "{name}_bucket{{")?;
        write_labels(out, labels, ",")?;
        writeln!(out, "le=\"+Inf\"}} {count}")?;
        for (what, value) in [("sum", Seconds(self.sum()).to_string()), ("count", count.to_string())] {
            write!(out, "{name}_{what}")?;
            if let Some((last, rest)) = labels.split_last() {
                write!(out, "{{")?;
                write_labels(out, rest, ",")?;
                write_labels(out, &[*last], "}")?;
            }
            writeln!(out, " {value}")?;
        }
        Ok(())
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Histogram of {}, sum {:?}, max {:?}", self.count(), self.sum(), self.max())
    }
}

/// Writes the help and type lines of a Prometheus histogram.
///
/// # Errors
/// Those of `out`.
pub fn write_prometheus_type(out: &mut impl fmt::Write, name: &str, help: &str) -> fmt::Result {
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram")
}

fn write_labels(out: &mut impl fmt::Write, labels: &[(&str, &str)], after: &str) -> fmt::Result {
    for (label, value) in labels {
        write!(out, "{label}=\"")?;
        for character in value.chars() {
            match character {
                '\\' => out.write_str("\\\\")?,
                '"' => out.write_str("\\\"")?,
                '\n' => out.write_str("\\n")?,
                other => out.write_char(other)?,
            }
        }
        write!(out, "\"{after}")?;
    }
    Ok(())
}

/// Shows a time in seconds, exactly, without an exponent.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:09}", self.0.as_secs(), self.0.subsec_nanos());
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// The bucket of a latency.
fn bucket_of(nanos: u64) -> usize {
    // A bucket holds its upper bound, not its lower.
    let below = nanos.saturating_sub(1).min(1 << TOP_BITS);
    if below < 1 << LINEAR_BITS {
        return (below >> SUB_BITS) as usize;
    }
    let bits = below.ilog2();
    let doubling = (bits - LINEAR_BITS + 1) as usize;
    let place = (below >> (bits - SUB_BITS)) as usize & (SUB_BUCKETS - 1);
    doubling * SUB_BUCKETS + place
}

/// What is above it, in nanoseconds, may be in the bucket.
fn lower_bound(bucket: usize) -> u64 {
    let (doubling, place) = (bucket / SUB_BUCKETS, (bucket % SUB_BUCKETS) as u64);
    if doubling == 0 {
        return place << SUB_BITS;
    }
    let bits = LINEAR_BITS + (doubling - 1) as u32;
    (1 << bits) + (place << (bits - SUB_BITS))
}

fn upper_bound(bucket: usize) -> u64 {
    lower_bound(bucket + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_join_without_a_gap_and_are_narrow() {
        assert_eq!((lower_bound(0), upper_bound(BUCKET_COUNT - 1)), (0, 1 << 37));
        for bucket in 0..BUCKET_COUNT {
            let (lower, upper) = (lower_bound(bucket), upper_bound(bucket));
            assert!(lower < upper);
            assert_eq!((bucket_of(lower + 1), bucket_of(upper)), (bucket, bucket), "{lower} to {upper}");
            assert!(lower < 1024 || (upper - lower) * 32 <= lower);
        }
        assert_eq!((bucket_of(0), bucket_of(u64::MAX)), (0, BUCKET_COUNT));
        assert!(upper_bound(BUCKET_COUNT - 1) > Duration::from_secs(100).as_nanos() as u64);
    }

    #[test]
    fn three_of_them_are_far_below_the_memory_of_a_path() {
        let bytes = size_of::<Histogram>() + COUNTS * size_of::<u64>();
        assert!(bytes * 3 <= 22 << 10, "{bytes}");
    }

    #[test]
    fn what_is_too_long_is_not_lost() {
        let mut histogram = Histogram::new();
        histogram.record(Duration::from_secs(1000));
        histogram.record(Duration::MAX);
        assert_eq!(histogram.count(), 2);
        assert_eq!(histogram.quantile(1.0), Some(Duration::from_nanos(u64::MAX)));
        assert_eq!(histogram.sum(), Duration::from_nanos(u64::MAX));
        let last = histogram.cumulative(1).last();
        assert_eq!(last, Some((Duration::from_nanos(1 << 37), 0)), "neither is below");
    }

    #[test]
    fn prometheus_lines_are_exact() {
        let mut histogram = Histogram::new();
        for nanos in [1024, 1025, 2_000_000] {
            histogram.record_nanos(nanos);
        }
        let mut text = String::new();
        write_prometheus_type(&mut text, "read_seconds", "Time of reads").unwrap();
        histogram
            .write_prometheus(&mut text, "read_seconds", &[("path", "a\"b\\c\n"), ("host", "x")])
            .unwrap();
        let lines: Vec<_> = text.lines().collect();
        let labels = r#"path="a\"b\\c\n",host="x""#;
        assert_eq!(lines[0], "# HELP read_seconds Time of reads");
        assert_eq!(lines[1], "# TYPE read_seconds histogram");
        assert_eq!(lines[2], format!("read_seconds_bucket{{{labels},le=\"0.000001024\"}} 1"));
        assert_eq!(lines[3], format!("read_seconds_bucket{{{labels},le=\"0.000001536\"}} 2"));
        let [infinite, sum, count] = lines[lines.len() - 3..] else { panic!("too short") };
        assert_eq!(infinite, format!("read_seconds_bucket{{{labels},le=\"+Inf\"}} 3"));
        assert_eq!(sum, format!("read_seconds_sum{{{labels}}} 0.002002049"));
        assert_eq!(count, format!("read_seconds_count{{{labels}}} 3"));
        assert_eq!(lines.len(), 2 + 55 + 3);
        let mut bare = String::new();
        histogram.write_prometheus(&mut bare, "x", &[]).unwrap();
        assert!(bare.ends_with("x_sum 0.002002049\nx_count 3\n"), "{bare}");
        assert!(bare.starts_with("x_bucket{le=\"0.000001024\"} 1\n"), "{bare}");
    }

    #[test]
    #[ignore = "a measurement: cargo test --release -p multipath --lib histogram -- --ignored --nocapture"]
    fn a_record_takes_at_most_5_ns() {
        let mut histogram = Histogram::new();
        let mut best = f64::MAX;
        // Rounds that are short against a time slice, so that the best of them had the core for itself.
        for round in 0..1000_u64 {
            let mut nanos = round + 1;
            let began = std::time::Instant::now();
            for _ in 0..50_000 {
                nanos = nanos.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                histogram.record_nanos(nanos >> 36);
            }
            best = best.min(began.elapsed().as_secs_f64() * 1e9 / 50_000.0);
        }
        println!("{best:.2} ns a record, {histogram:?}");
        assert!(best <= 5.0, "{best} ns");
    }

    /// Latencies from below 1 ns to above the top, as many of every order.
    fn latencies() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec((0..44_u32, any::<u64>()).prop_map(|(bits, x)| x % (2 << bits)), 1..300)
    }

    fn filled(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::new();
        values.iter().for_each(|nanos| histogram.record_nanos(*nanos));
        histogram
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_sorted_values(mut values in latencies(), quantile in 0.0..1.0_f64) {
            let histogram = filled(&values);
            values.sort_unstable();
            for quantile in [quantile, 0.0, 0.5, 0.99, 0.999, 1.0] {
                let rank = ((quantile * values.len() as f64).ceil() as usize).clamp(1, values.len());
                let exact = values[rank - 1];
                let found = histogram.quantile(quantile).unwrap().as_nanos() as u64;
                if exact > 1 << TOP_BITS {
                    prop_assert_eq!(found, *values.last().unwrap());
                } else {
                    prop_assert!(found.abs_diff(exact) <= (exact / 64).max(16), "{found}, not {exact}");
                }
            }
            prop_assert_eq!(histogram.count(), values.len() as u64);
            prop_assert_eq!(histogram.sum().as_nanos() as u64, values.iter().sum::<u64>());
        }

        #[test]
        fn cumulative_counts_are_those_of_the_values(values in latencies(), per_doubling: u32) {
            let histogram = filled(&values);
            let mut before = (Duration::ZERO, 0);
            for (bound, seen) in histogram.cumulative(per_doubling) {
                let bound_nanos = bound.as_nanos() as u64;
                let exact = values.iter().filter(|value| **value <= bound_nanos).count() as u64;
                prop_assert_eq!(seen, exact, "up to {:?}", bound);
                prop_assert!(bound > before.0 && seen >= before.1);
                before = (bound, seen);
            }
        }

        #[test]
        fn merged_is_recorded_together(one in latencies(), other in latencies()) {
            let mut merged = filled(&one);
            merged.merge(&filled(&other));
            prop_assert_eq!(merged, filled(&[one, other].concat()));
        }

        #[test]
        fn no_quantile_panics(values in latencies(), quantile in any::<f64>()) {
            prop_assert!(filled(&values).quantile(quantile).is_some());
            prop_assert_eq!(Histogram::new().quantile(quantile), None);
        }
    }
}
