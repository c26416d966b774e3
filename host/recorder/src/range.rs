//! Series for charts: a stretch of time in at most so many buckets, each with its least, mean, greatest and last value.

use aether_core::{
    subject::SubjectRef,
    telemetry::{Sample, SeriesKey},
    time::Time,
};
use serde::Serialize;

const POINTS_LIMIT: usize = 10_000;
/// Widths that people read easily: 1 ms to a day.
const WIDTHS: [u64; 29] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000,
    900_000, 1_800_000, 3_600_000, 7_200_000, 10_800_000, 14_400_000, 21_600_000, 28_800_000, 43_200_000, DAY,
];
const DAY: u64 = 86_400_000;

/// What a chart asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeQuery {
    pub subject: SubjectRef,
    pub metric: String,
    /// Inclusive.
    pub from: Time,
    /// Exclusive.
    pub to: Time,
    /// Buckets per series at most: 1 to 10,000; what is beyond is clamped.
    pub max_points: usize,
}

/// What was sampled within `at` (inclusive) and one bucket's width later (exclusive).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bucket {
    pub at: Time,
    pub min: f64,
    pub mean: f64,
    pub max: f64,
    pub last: f64,
    pub samples: u32,
}

/// One series of an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RangeSeries {
    pub key: SeriesKey,
    pub bucket_ms: u64,
    /// In order of time; a bucket without samples is left out.
    pub buckets: Vec<Bucket>,
}

/// A query's answer from hot window and segments together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RangeAnswer {
    pub series: Vec<RangeSeries>,
    /// The query reached its byte limit: what is older is missing.
    pub cut: bool,
    /// Segments that could not be read: what they held is missing.
    pub unreadable: usize,
}

impl RangeQuery {
    /// The least width, aligned to its own multiples, with which the stretch needs no more than `max_points` buckets.
    /// Alignment makes a bucket the same one while a chart moves along.
    pub fn bucket_ms(&self) -> u64 {
        let most = u64::try_from(self.max_points.clamp(1, POINTS_LIMIT)).unwrap_or(1);
        let needed = |width: u64| {
            let w = i64::try_from(width).unwrap_or(i64::MAX);
            let (first, last) = (self.from.0.div_euclid(w), self.to.0.saturating_sub(1).div_euclid(w));
            u64::try_from(last.saturating_sub(first).saturating_add(1)).unwrap_or(0)
        };
        if let Some(width) = WIDTHS.into_iter().find(|w| needed(*w) <= most) {
            return width;
        }
        // Whole days. A stretch can lie across one boundary more than its length says.
        let days = self.to.since_ms(self.from).div_ceil(DAY);
        let per_bucket = days.div_ceil(most.saturating_sub(1).max(1)).max(1);
        // With a single point, no aligned width may do; then twice the span of the furthest edge does.
        (per_bucket..)
            .take(4)
            .map(|n| n.saturating_mul(DAY))
            .find(|w| needed(*w) <= most)
            .unwrap_or(i64::MAX.unsigned_abs())
    }
}

/// Samples in order of time into buckets.
pub(crate) fn downsample(samples: &[Sample], bucket_ms: u64) -> Vec<Bucket> {
    let width = i64::try_from(bucket_ms.max(1)).unwrap_or(i64::MAX);
    let at = |s: &Sample| Time(s.at.0.div_euclid(width).saturating_mul(width));
    let bucket = |part: &[Sample]| {
        let of = |f: fn(f64, f64) -> f64| part.iter().map(|s| s.value).reduce(f).unwrap_or(f64::NAN);
        let samples = u32::try_from(part.len()).unwrap_or(u32::MAX);
        // Each divided first, so that no sum runs over.
        let mean = part.iter().map(|s| s.value / f64::from(samples)).sum();
        let last = part.last().map_or(f64::NAN, |sample| sample.value);
        let at = part.first().map(&at).unwrap_or_default();
        Bucket { at, min: of(f64::min), mean, max: of(f64::max), last, samples }
    };
    samples.chunk_by(|a, b| at(a) == at(b)).map(bucket).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;
    use proptest::prelude::*;

    fn query(from: i64, to: i64, max_points: usize) -> RangeQuery {
        RangeQuery {
            subject: SubjectRef::node("node-a"),
            metric: "m".to_owned(),
            from: Time(from),
            to: Time(to),
            max_points,
        }
    }

    #[test]
    fn widths_are_round_and_few_enough() {
        assert_eq!(query(0, 3_600_000, 3_600).bucket_ms(), 1_000);
        assert_eq!(query(1, 3_600_001, 3_600).bucket_ms(), 2_000);
        assert_eq!(query(0, 3_600_000, 300).bucket_ms(), 15_000);
        assert_eq!(query(0, 30 * 86_400_000, 10).bucket_ms(), 4 * DAY);
        assert_eq!(query(5, 5, 10).bucket_ms(), 1);
    }

    proptest! {
        #[test]
        fn buckets_hold_every_sample_once(values in proptest::collection::btree_map(0i64..5_000_000, -1e3..1e3f64, 1..200), points in 1usize..400) {
            let samples: Vec<_> = values.iter().map(|(at, value)| sample(*at, *value)).collect();
            let query = query(0, 5_000_000, points);
            let buckets = downsample(&samples, query.bucket_ms());
            prop_assert!(buckets.len() <= points);
            prop_assert_eq!(buckets.iter().map(|b| b.samples as usize).sum::<usize>(), samples.len());
            prop_assert!(buckets.windows(2).all(|w| w[0].at < w[1].at));
            for b in &buckets {
                prop_assert!(b.min <= b.mean + 1e-9 && b.mean <= b.max + 1e-9);
                let end = b.at.plus_ms(query.bucket_ms());
                let newest = samples.iter().rev().find(|sample| sample.at < end).expect("one");
                prop_assert_eq!(b.last.to_bits(), newest.value.to_bits());
                prop_assert_eq!(b.at.0 % i64::try_from(query.bucket_ms()).expect("small"), 0);
            }
        }

        #[test]
        fn no_stretch_needs_more_buckets_than_asked(from in 0i64..2_000_000_000_000, span in 1i64..400_000_000_000, points in 1usize..20_000) {
            let query = query(from, from + span, points);
            let width = i64::try_from(query.bucket_ms()).expect("fits");
            let needed = (from + span - 1).div_euclid(width) - from.div_euclid(width) + 1;
            prop_assert!(usize::try_from(needed).expect("positive") <= points.min(POINTS_LIMIT));
        }
    }
}
