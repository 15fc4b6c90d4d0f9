//! A histogram of durations in log-linear buckets: exact to under half a per cent of the value from a nanosecond to
//! minutes, in memory that grows only with the longest duration seen. Percentiles are read by rank, so nothing is
//! interpolated and a percentile is never above the largest value recorded.

use std::time::Duration;

use serde::Serialize;

/// Every power of two is cut into this many buckets: 2^8 makes a bucket at most 1/256 of its value wide.
const PRECISION_BITS: u32 = 8;
const BUCKETS_PER_POWER: u64 = 1 << PRECISION_BITS;
/// Longer durations are counted as this one (2^40 ns is 18 minutes), which bounds the histogram's memory.
const NANOSECONDS_MAX: u64 = 1 << 40;

/// Counts of durations, see the module.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
    sum: u128,
}

/// The percentiles that reports show, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// Number of durations recorded.
    pub count: u64,
    /// Their mean.
    pub mean_ms: f64,
    /// Half are not longer.
    pub p50_ms: f64,
    /// 95 of 100 are not longer.
    pub p95_ms: f64,
    /// 99 of 100 are not longer.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let value = u64::try_from(duration.as_nanos()).unwrap_or(NANOSECONDS_MAX).min(NANOSECONDS_MAX);
        let index = bucket_of(value);
        if index >= self.counts.len() {
            self.counts.resize(index + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(index) {
            *count += 1;
        }
        self.total += 1;
        self.max = self.max.max(value);
        self.sum += u128::from(value);
    }

    /// Adds all that another histogram has counted.
    pub fn merge(&mut self, other: &Histogram) {
        if other.counts.len() > self.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
        self.sum += other.sum;
    }

    /// How many durations were recorded.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The duration that `fraction` (0 to 1) of the recorded ones do not exceed; zero when nothing was recorded.
    pub fn percentile(&self, fraction: f64) -> Duration {
        let rank = ((fraction * self.total as f64).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(highest_of(index).min(self.max));
            }
        }
        Duration::from_nanos(self.max)
    }

    /// What a report shows of it.
    pub fn summary(&self) -> Summary {
        Summary {
            count: self.total,
            mean_ms: self.sum as f64 / self.total.max(1) as f64 / 1e6,
            p50_ms: milliseconds(self.percentile(0.50)),
            p95_ms: milliseconds(self.percentile(0.95)),
            p99_ms: milliseconds(self.percentile(0.99)),
            max_ms: self.max as f64 / 1e6,
        }
    }
}

/// A duration in milliseconds, with its fraction.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The bucket of a value. Values below `BUCKETS_PER_POWER` have one each; above, the leading bits choose.
fn bucket_of(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(PRECISION_BITS + 1);
    (u64::from(shift) * BUCKETS_PER_POWER + (value >> shift)) as usize
}

/// The largest value of a bucket.
fn highest_of(index: usize) -> u64 {
    let index = index as u64;
    if index < 2 * BUCKETS_PER_POWER {
        return index;
    }
    let shift = index / BUCKETS_PER_POWER - 1;
    let leading = index - shift * BUCKETS_PER_POWER;
    ((leading + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        for value in values {
            histogram.record(Duration::from_nanos(value));
        }
        histogram
    }

    #[test]
    fn every_value_lies_in_its_bucket_and_buckets_are_narrow() {
        let mut value = 1_u64;
        while value < NANOSECONDS_MAX {
            for probe in [value - 1, value, value + 1, value + value / 3] {
                let highest = highest_of(bucket_of(probe));
                assert!(highest >= probe, "{probe} above its bucket's end {highest}");
                assert!(highest - probe <= probe / 128, "{probe} is far from {highest}");
                assert_eq!(bucket_of(highest), bucket_of(probe));
                assert_eq!(bucket_of(highest + 1), bucket_of(probe) + 1);
            }
            value = value * 3 / 2 + 1;
        }
    }

    #[test]
    fn percentiles_are_ranks() {
        let histogram = of(1..=100);
        assert_eq!(histogram.percentile(0.50), Duration::from_nanos(50));
        assert_eq!(histogram.percentile(0.99), Duration::from_nanos(99));
        assert_eq!(histogram.percentile(1.0), Duration::from_nanos(100));
        assert_eq!(histogram.percentile(0.0), Duration::from_nanos(1));
        assert_eq!(Histogram::default().percentile(0.5), Duration::ZERO);
    }

    #[test]
    fn one_outlier_moves_the_maximum_and_not_the_median() {
        let histogram = of(std::iter::repeat_n(1_000_000, 999).chain([900_000_000]));
        let summary = histogram.summary();
        assert!((summary.p50_ms - 1.0).abs() < 0.01, "{summary:?}");
        assert!((summary.p99_ms - 1.0).abs() < 0.01, "{summary:?}");
        assert_eq!(summary.max_ms, 900.0);
        assert!((summary.mean_ms - 1.899).abs() < 1e-9, "{summary:?}");
    }

    #[test]
    fn merging_equals_recording_together() {
        let (low, high) = (of(1..5_000), of(1_000_000..1_004_000));
        let mut merged = low.clone();
        merged.merge(&high);
        let together = of((1..5_000).chain(1_000_000..1_004_000));
        assert_eq!(merged.summary(), together.summary());
        let mut other_way = high;
        other_way.merge(&low);
        assert_eq!(other_way.summary(), together.summary());
    }

    #[test]
    fn the_longest_durations_are_bounded() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::MAX);
        assert_eq!(histogram.percentile(1.0), Duration::from_nanos(NANOSECONDS_MAX));
        assert!(histogram.counts.len() < 16_384);
    }
}
