//! From samples at any time to values on a grid. Pure.
//!
//! A grid point `t` stands for what was sampled in `(t - step, t]`, so it never changes once its time has passed, save
//! by data that comes late. The last point is the newest multiple of the step that is not after the evaluation: two
//! evaluations within one step see the same columns.

use aether_core::{observation::Aggregation, telemetry::Sample, time::Time};

/// Points on a grid at most; a longer window is cut to its newest points.
const POINTS_LIMIT: u64 = 16_384;
/// Two samples of a counter further apart than this (or than the step, if that is longer) give no rate.
pub(crate) const RATE_GAP_MS: u64 = 300_000;

/// Where values are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    /// The first point.
    pub(crate) start: Time,
    pub(crate) step_ms: u64,
    pub(crate) points: usize,
}

impl Grid {
    /// The grid of a declared window and step, for an evaluation at `at`. A step of zero is one point for the window.
    pub(crate) fn new(window_ms: u64, step_ms: u64, at: Time) -> Self {
        let step_ms = if step_ms == 0 { window_ms.max(1) } else { step_ms }.min(i64::MAX.unsigned_abs());
        let points = window_ms.div_ceil(step_ms).min(POINTS_LIMIT);
        let step = i64::try_from(step_ms).unwrap_or(i64::MAX);
        let last = Time(at.0.div_euclid(step).saturating_mul(step));
        let start = last.minus_ms(step_ms.saturating_mul(points.saturating_sub(1)));
        Self { start, step_ms, points: usize::try_from(points).unwrap_or(0) }
    }

    /// The first instant that no point stands for; all samples of interest are after it.
    pub(crate) fn after(&self) -> Time {
        self.start.minus_ms(self.step_ms)
    }

    pub(crate) fn end(&self) -> Time {
        let last = u64::try_from(self.points.saturating_sub(1)).unwrap_or(u64::MAX);
        self.start.plus_ms(last.saturating_mul(self.step_ms))
    }

    /// How far before [`Grid::after`] a sample can still matter.
    pub(crate) fn look_back_ms(&self, aggregation: Aggregation) -> u64 {
        if aggregation == Aggregation::Rate { RATE_GAP_MS.max(self.step_ms) } else { 0 }
    }

    fn index(&self, at: Time) -> Option<usize> {
        if at <= self.after() {
            return None;
        }
        // (t - step, t] belongs to t: round up.
        let i = at.since_ms(self.start).div_ceil(self.step_ms);
        usize::try_from(i).ok().filter(|i| *i < self.points)
    }
}

/// The values on the grid; NaN where nothing was sampled. `samples` are in order of time.
pub(crate) fn resample(grid: &Grid, aggregation: Aggregation, samples: &[Sample]) -> Vec<f64> {
    if aggregation == Aggregation::Rate {
        return rate(grid, samples);
    }
    let mut values = vec![f64::NAN; grid.points];
    let mut counts = vec![0u32; if aggregation == Aggregation::Mean { grid.points } else { 0 }];
    for sample in samples {
        let Some(i) = grid.index(sample.at) else { continue };
        let Some(value) = values.get_mut(i) else { continue };
        let new = sample.value;
        *value = if value.is_nan() {
            new
        } else {
            match aggregation {
                Aggregation::Last | Aggregation::Rate => new,
                Aggregation::Min => value.min(new),
                Aggregation::Max => value.max(new),
                Aggregation::Sum | Aggregation::Mean => *value + new,
            }
        };
        if let Some(count) = counts.get_mut(i) {
            *count += 1;
        }
    }
    for (value, count) in values.iter_mut().zip(counts) {
        *value /= f64::from(count.max(1));
    }
    // A sum that ran over the largest number is not a number to decide on.
    values.iter_mut().filter(|v| v.is_infinite()).for_each(|v| *v = f64::NAN);
    values
}

/// Increase per second of a counter. Each sample adds its increase since the one before to the point it falls on; a
/// value below the one before is a counter that began again at zero. The point's rate is its increase over the time
/// which those increases took, so that a gap neither hides nor invents anything.
fn rate(grid: &Grid, samples: &[Sample]) -> Vec<f64> {
    let longest = grid.look_back_ms(Aggregation::Rate);
    let mut increases = vec![(0.0f64, 0u64); grid.points];
    for pair in samples.windows(2) {
        let (before, now) = (pair[0], pair[1]);
        let took = now.at.since_ms(before.at);
        if took == 0 || took > longest {
            continue;
        }
        let Some((increase, ms)) = grid.index(now.at).and_then(|i| increases.get_mut(i)) else { continue };
        *increase += if now.value < before.value { now.value } else { now.value - before.value };
        *ms = ms.saturating_add(took);
    }
    let per_second = |(increase, ms): (f64, u64)| {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds within a window are far below 2^53")]
        let seconds = ms as f64 / 1_000.0;
        let rate = increase / seconds;
        if ms > 0 && rate.is_finite() { rate } else { f64::NAN }
    };
    increases.into_iter().map(per_second).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;
    use expect_test::expect;
    use proptest::prelude::*;

    const ALL: [Aggregation; 6] =
        [Aggregation::Last, Aggregation::Mean, Aggregation::Max, Aggregation::Min, Aggregation::Sum, Aggregation::Rate];

    #[test]
    fn each_aggregation_on_one_series() {
        // Points at 1000 to 5000. 3000 has no sample; 1000 sits on its point; 4100 and 5000 share the last.
        let samples = [
            sample(900, 1.0),
            sample(1_000, 3.0),
            sample(1_500, 4.0),
            sample(3_500, 10.0),
            sample(4_100, 2.0),
            sample(5_000, 6.0),
        ];
        let grid = Grid::new(5_000, 1_000, Time(5_999));
        assert_eq!((grid.start, grid.points, grid.end()), (Time(1_000), 5, Time(5_000)));
        let table: String = ALL.iter().map(|a| format!("{a:?} {:?}\n", resample(&grid, *a, &samples))).collect();
        expect![[r#"
            Last [3.0, 4.0, NaN, 10.0, 6.0]
            Mean [2.0, 4.0, NaN, 10.0, 4.0]
            Max [3.0, 4.0, NaN, 10.0, 6.0]
            Min [1.0, 4.0, NaN, 10.0, 2.0]
            Sum [4.0, 4.0, NaN, 10.0, 8.0]
            Rate [20.0, 2.0, NaN, 3.0, 4.0]
        "#]]
        .assert_eq(&table);
    }

    #[test]
    fn a_rate_needs_two_samples_not_too_far_apart() {
        let grid = Grid::new(2_000, 1_000, Time(1_000_000));
        let rates = |samples: &[Sample]| resample(&grid, Aggregation::Rate, samples);
        assert!(rates(&[sample(1_000_000, 5.0)]).iter().all(|v| v.is_nan()));
        let over_a_gap = rates(&[sample(990_000, 0.0), sample(1_000_000, 50.0)]);
        assert!(over_a_gap[0].is_nan() && over_a_gap[1] == 5.0, "{over_a_gap:?}");
        assert!(rates(&[sample(600_000, 0.0), sample(1_000_000, 50.0)]).iter().all(|v| v.is_nan()));
    }

    #[test]
    fn odd_declarations_give_small_grids() {
        assert_eq!(Grid::new(0, 0, Time(5)).points, 0);
        assert_eq!(Grid::new(5_000, 0, Time(7_000)), Grid { start: Time(5_000), step_ms: 5_000, points: 1 });
        assert_eq!(Grid::new(5_500, 1_000, Time(7_000)).points, 6);
        assert_eq!(Grid::new(u64::MAX, 1, Time(0)).points, 16_384);
        assert_eq!(Grid::new(u64::MAX, u64::MAX, Time(0)).points, 3);
        assert_eq!(Grid::new(1_000, 1_000, Time(-1)).start, Time(-1_000));
    }

    fn samples() -> impl Strategy<Value = Vec<Sample>> {
        proptest::collection::btree_map(0i64..60_000, -1e6..1e6f64, 0..80)
            .prop_map(|map| map.into_iter().map(|(at, value)| sample(at, value)).collect())
    }

    proptest! {
        #[test]
        fn points_hold_what_was_sampled_in_their_step(samples in samples(), step in 1u64..9_000, window in 0u64..70_000, at in 0i64..80_000) {
            let grid = Grid::new(window, step, Time(at));
            prop_assert!(grid.points == 0 || (grid.end().0 <= at && grid.end().0 > at - i64::try_from(step).expect("small")));
            let [last, mean, max, min, sum, _] = ALL.map(|a| resample(&grid, a, &samples));
            for i in 0..grid.points {
                let t = grid.start.plus_ms(u64::try_from(i).expect("small") * step);
                let here: Vec<f64> = samples.iter().filter(|s| s.at <= t && s.at > t.minus_ms(step)).map(|s| s.value).collect();
                if here.is_empty() {
                    prop_assert!([last[i], mean[i], max[i], min[i], sum[i]].iter().all(|v| v.is_nan()));
                    continue;
                }
                let total: f64 = here.iter().sum();
                prop_assert_eq!(last[i], *here.last().expect("some"));
                prop_assert_eq!(max[i], here.iter().copied().fold(f64::MIN, f64::max));
                prop_assert_eq!(min[i], here.iter().copied().fold(f64::MAX, f64::min));
                prop_assert!((sum[i] - total).abs() < 1e-3);
                prop_assert!(min[i] - 1e-3 <= mean[i] && mean[i] <= max[i] + 1e-3);
            }
        }

        /// Two evaluations within one step see the same; moving on by whole steps shifts the grid.
        #[test]
        fn the_grid_is_anchored(samples in samples(), step in 1u64..5_000, points in 1u64..12, k in 0i64..20, shift in 0u64..5) {
            let at = Time(k * i64::try_from(step).expect("small"));
            for aggregation in ALL {
                let values = |at| resample(&Grid::new(points * step, step, at), aggregation, &samples).iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                let first = values(at);
                prop_assert_eq!(&first, &values(at.plus_ms(step - 1)));
                let later = values(at.plus_ms(shift * step));
                let skip = usize::try_from(shift.min(points)).expect("small");
                prop_assert_eq!(&first[skip..], &later[..later.len() - skip]);
            }
        }

        /// A counter that only rises, resets included, never has a negative rate, and rates times time is the increase.
        #[test]
        fn a_rate_loses_no_increase(steps in proptest::collection::vec((1i64..3_000, 0u32..1_000, proptest::bool::weighted(0.1)), 2..60)) {
            let (mut at, mut value, mut total) = (0i64, 0.0f64, 0.0f64);
            let mut samples = vec![sample(0, 0.0)];
            for (gap, increase, reset) in steps {
                at += gap;
                let increase = f64::from(increase);
                // A reset to something at or above the old value cannot be told from an increase.
                value = if reset && increase < value { total += increase; increase } else { total += increase; value + increase };
                samples.push(sample(at, value));
            }
            // One step over everything.
            let step = at.unsigned_abs() + 1;
            let one = resample(&Grid { start: Time(at), step_ms: step, points: 1 }, Aggregation::Rate, &samples);
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let seconds = at as f64 / 1_000.0;
            prop_assert!((one[0] * seconds - total).abs() < 1e-6 * total.max(1.0), "{} {total}", one[0] * seconds);
        }
    }
}
