//! Distributions: histograms with given bounds and exponential ones, in one form.
//!
//! An exponential histogram's bounds move with its scale, and each would begin new series. So it is folded onto powers of
//! two, which is exact: a bucket of a scale of 0 or more lies within one power of two, and those of a negative scale are
//! such powers already (OpenTelemetry data model, "Exponential Scale").

use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogramDataPoint, HistogramDataPoint, exponential_histogram_data_point::Buckets,
};
use std::collections::BTreeMap;

/// Buckets of one distribution.
pub(super) const BUCKETS_MAXIMUM: usize = 200;
/// Powers of two that a double has.
const EXPONENTS: std::ops::RangeInclusive<i32> = -1_074..=1_024;

/// An upper bound, in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound(pub(super) f64);

impl Ord for Bound {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}
impl PartialOrd for Bound {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Bound {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Bound {}

/// How often which values were seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Distribution {
    pub(super) count: u64,
    pub(super) sum: Option<f64>,
    /// By upper bound (inclusive), how many lie above the bound before.
    pub(super) buckets: BTreeMap<Bound, u64>,
}

impl Distribution {
    pub(super) fn explicit(point: &HistogramDataPoint) -> Result<Self, &'static str> {
        let (bounds, counts) = (&point.explicit_bounds, &point.bucket_counts);
        let mut buckets = BTreeMap::new();
        if !counts.is_empty() {
            if counts.len() != bounds.len() + 1 || counts.len() > BUCKETS_MAXIMUM {
                return Err("a histogram has not one bucket more than bounds, or more than 200 buckets");
            }
            if bounds.iter().any(|bound| bound.is_nan()) || bounds.windows(2).any(|pair| pair[0] >= pair[1]) {
                return Err("a histogram's bounds do not rise");
            }
            if counts.iter().try_fold(0u64, |sum, count| sum.checked_add(*count)) != Some(point.count) {
                return Err("a histogram's buckets do not sum up to its count");
            }
            let bounds = bounds.iter().copied().chain([f64::INFINITY]);
            buckets.extend(bounds.map(Bound).zip(counts.iter().copied()));
        }
        Ok(Self { count: point.count, sum: point.sum, buckets })
    }

    pub(super) fn exponential(point: &ExponentialHistogramDataPoint) -> Result<Self, &'static str> {
        let mut buckets: BTreeMap<Bound, u64> = BTreeMap::new();
        let mut total = point.zero_count;
        let mut add = |bound: f64, count: u64| {
            let bucket = buckets.entry(Bound(bound)).or_default();
            *bucket = bucket.saturating_add(count);
        };
        if point.zero_count > 0 {
            add(point.zero_threshold.max(0.0), point.zero_count);
        }
        for (side, positive) in [(&point.positive, true), (&point.negative, false)] {
            let Some(Buckets { offset, bucket_counts }) = side else { continue };
            for (index, count) in (i64::from(*offset)..).zip(bucket_counts).filter(|(_, count)| **count > 0) {
                total = total.checked_add(*count).ok_or("a histogram's counts are out of range")?;
                // Positive: (base^index, base^(index + 1)]. Negative: [-base^(index + 1), -base^index).
                let (low, high) = powers(index, point.scale).ok_or("a histogram's scale or offset is out of range")?;
                add(if positive { 2f64.powi(high) } else { -2f64.powi(low) }, *count);
            }
        }
        if total != point.count {
            return Err("a histogram's buckets do not sum up to its count");
        }
        if buckets.len() > BUCKETS_MAXIMUM {
            return Err("a histogram spans more than 200 powers of two");
        }
        // Readers expect the end of all buckets to be told.
        add_end(&mut buckets);
        Ok(Self { count: point.count, sum: point.sum, buckets })
    }

    /// A difference on top of what there was.
    pub(super) fn add(&mut self, other: &Self) {
        // A sum that is not always told is none.
        self.sum = match self.count {
            0 => other.sum,
            _ => self.sum.zip(other.sum).map(|(sum, more)| sum + more),
        };
        self.count = self.count.saturating_add(other.count);
        for (bound, count) in &other.buckets {
            let bucket = self.buckets.entry(*bound).or_default();
            *bucket = bucket.saturating_add(*count);
        }
    }

    /// By upper bound, how many lie at or below it.
    pub(super) fn cumulated(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.buckets.iter().scan(0u64, |below, (bound, count)| {
            *below = below.saturating_add(*count);
            Some((bound.0, *below))
        })
    }
}

fn add_end(buckets: &mut BTreeMap<Bound, u64>) {
    buckets.entry(Bound(f64::INFINITY)).or_default();
}

/// The powers of two around a bucket: at or below its lower end, and at or above its upper one.
fn powers(index: i64, scale: i32) -> Option<(i32, i32)> {
    let (low, high) = match u32::try_from(scale) {
        // Without the part of the index that is within a power of two.
        Ok(scale) => (index >> scale.min(63), (index >> scale.min(63)) + 1),
        Err(_) => {
            // One bucket spans 2^-scale powers.
            let span = 1i64.checked_shl(scale.unsigned_abs()).filter(|_| scale > -12)?;
            (index.checked_mul(span)?, index.checked_add(1)?.checked_mul(span)?)
        }
    };
    let within = |power: i64| i32::try_from(power).ok().filter(|power| EXPONENTS.contains(power));
    Some((within(low)?, within(high)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exponential(scale: i32, offset: i32, counts: &[u64]) -> ExponentialHistogramDataPoint {
        let positive = Some(Buckets { offset, bucket_counts: counts.to_vec() });
        ExponentialHistogramDataPoint { scale, positive, count: counts.iter().sum(), ..Default::default() }
    }

    fn cumulated(distribution: &Distribution) -> Vec<(f64, u64)> {
        distribution.cumulated().collect()
    }

    #[test]
    fn finer_buckets_fold_onto_powers_of_two() {
        // Scale 1: base is the root of two. Index 0 is (1, 1.41], 1 is (1.41, 2], 2 is (2, 2.83], 4 is (4, 5.66].
        let found = Distribution::exponential(&exponential(1, 0, &[1, 2, 3, 0, 5])).unwrap();
        assert_eq!(cumulated(&found), [(2.0, 3), (4.0, 6), (8.0, 11), (f64::INFINITY, 11)]);
        // Index -1 is (0.71, 1], -2 is (0.5, 0.71].
        let found = Distribution::exponential(&exponential(1, -2, &[1, 1])).unwrap();
        assert_eq!(cumulated(&found), [(1.0, 2), (f64::INFINITY, 2)]);
        // Scale -1: base is 4. Index 0 is (1, 4], 1 is (4, 16].
        let found = Distribution::exponential(&exponential(-1, 0, &[2, 3])).unwrap();
        assert_eq!(cumulated(&found), [(4.0, 2), (16.0, 5), (f64::INFINITY, 5)]);
    }

    #[test]
    fn zeros_and_negative_values_lie_in_order() {
        let negative = Some(Buckets { offset: 0, bucket_counts: vec![4] });
        let point = ExponentialHistogramDataPoint { negative, zero_count: 2, count: 9, ..exponential(0, 0, &[3]) };
        let found = Distribution::exponential(&point).unwrap();
        assert_eq!(cumulated(&found), [(-1.0, 4), (0.0, 6), (2.0, 9), (f64::INFINITY, 9)]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(Distribution::exponential(&exponential(-30, 0, &[1])).is_err());
        assert!(Distribution::exponential(&exponential(0, i32::MAX, &[1])).is_err());
        assert!(
            Distribution::exponential(&ExponentialHistogramDataPoint { count: 9, ..exponential(0, 0, &[1]) }).is_err()
        );
        let point = |bounds: &[f64], counts: &[u64], count| HistogramDataPoint {
            explicit_bounds: bounds.to_vec(),
            bucket_counts: counts.to_vec(),
            count,
            ..Default::default()
        };
        assert!(Distribution::explicit(&point(&[1.0, 2.0], &[1, 1, 1], 3)).is_ok());
        assert!(Distribution::explicit(&point(&[], &[], 3)).is_ok(), "a histogram may have no buckets");
        assert!(Distribution::explicit(&point(&[1.0], &[1, 1, 1], 3)).is_err());
        assert!(Distribution::explicit(&point(&[2.0, 1.0], &[1, 1, 1], 3)).is_err());
        assert!(Distribution::explicit(&point(&[f64::NAN], &[1, 2], 3)).is_err());
        assert!(Distribution::explicit(&point(&[1.0], &[1, u64::MAX], 0)).is_err());
    }

    #[test]
    fn differences_add_up_bucket_by_bucket() {
        let mut total = Distribution::exponential(&exponential(0, 3, &[1, 1])).unwrap();
        total.add(&Distribution::exponential(&exponential(0, 5, &[1])).unwrap());
        assert_eq!(cumulated(&total), [(16.0, 1), (32.0, 2), (64.0, 3), (f64::INFINITY, 3)]);
    }
}
