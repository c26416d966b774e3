//! How long a checkpoint will take, learned from the size and the time of those that were taken on the same node.
//!
//! A line through what was measured, by the medians of Theil and Sen (Sen 1968, "Estimates of the regression coefficient
//! based on Kendall's tau"): one checkpoint that a busy machine held up does not bend it. What is predicted is the whole
//! step, until the snapshot is safe in the store: from then on the loss of the node loses nothing that it has.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Checkpoints of one node that are learned from; the newest count.
pub const LEARNED_MAXIMUM: usize = 32;
/// Sizes that are nearer to each other than this share tell nothing of a slope.
const APART_SHARE: f64 = 0.2;

/// A checkpoint that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Taken {
    /// Memory that the workload had in use.
    pub bytes: u64,
    pub took_ms: u64,
}

/// What a checkpoint will probably take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Forecast {
    /// Memory that the workload has in use.
    pub bytes: u64,
    pub predicted_ms: u64,
    /// Checkpoints that it was learned from.
    pub learned_from: u32,
}

/// The time for a workload of `bytes`; none if nothing was measured.
pub fn forecast(taken: &[Taken], bytes: u64) -> Option<Forecast> {
    let taken = taken.get(taken.len().saturating_sub(LEARNED_MAXIMUM)..).unwrap_or_default();
    let points: Vec<(f64, f64)> = taken.iter().map(|taken| (real(taken.bytes), real(taken.took_ms))).collect();
    let mut slopes = Vec::new();
    for (index, a) in points.iter().enumerate() {
        for b in &points[index + 1..] {
            let apart = (b.0 - a.0).abs();
            if apart > APART_SHARE * a.0.max(b.0) && apart > 0.0 {
                slopes.push(((b.1 - a.1) / (b.0 - a.0)).max(0.0));
            }
        }
    }
    let at = real(bytes);
    let predicted = match median(&mut slopes) {
        Some(slope) => {
            let mut begins: Vec<f64> = points.iter().map(|point| (point.1 - slope * point.0).max(0.0)).collect();
            median(&mut begins)? + slope * at
        }
        // All of one size: a larger one in proportion, and a smaller one no faster.
        None => {
            let mut likely: Vec<f64> = points.iter().map(|point| point.1 * (at / point.0.max(1.0)).max(1.0)).collect();
            median(&mut likely)?
        }
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is not negative")]
    let predicted_ms = predicted.ceil() as u64;
    Some(Forecast { bytes, predicted_ms, learned_from: u32::try_from(points.len()).unwrap_or(u32::MAX) })
}

impl Forecast {
    /// By how much it was wrong, in percent of what was needed.
    pub fn error_percent(&self, took_ms: u64) -> u64 {
        let off = self.predicted_ms.abs_diff(took_ms);
        off.saturating_mul(100).checked_div(took_ms.max(1)).unwrap_or(u64::MAX)
    }
}

#[allow(clippy::cast_precision_loss, reason = "sizes and times far below 2^53, and an estimate")]
fn real(number: u64) -> f64 {
    number as f64
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        _ if values.is_empty() => None,
        1 => values.get(middle).copied(),
        _ => Some((values.get(middle - 1)? + values.get(middle)?) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn taken(of: &[(u64, u64)]) -> Vec<Taken> {
        of.iter().map(|(mib, took_ms)| Taken { bytes: mib * MIB, took_ms: *took_ms }).collect()
    }

    #[test]
    fn a_line_is_found_and_one_that_was_held_up_does_not_bend_it() {
        // 200 ms and 4 ms for each MiB.
        let mut known = taken(&[(10, 240), (100, 600), (500, 2_200), (1_024, 4_296)]);
        assert_eq!(forecast(&known, 256 * MIB).unwrap().predicted_ms, 1_224);
        known.push(Taken { bytes: 300 * MIB, took_ms: 60_000 });
        let held_up = forecast(&known, 256 * MIB).unwrap();
        assert!(held_up.error_percent(1_224) <= 25, "{held_up:?}");
        assert_eq!(forecast(&[], MIB), None);
    }

    #[test]
    fn of_one_size_alone_a_larger_one_takes_longer_and_a_smaller_one_no_less() {
        let known = taken(&[(100, 500), (101, 520), (99, 480)]);
        let of = |mib| forecast(&known, mib * MIB).unwrap().predicted_ms;
        assert!((490..=530).contains(&of(10)) && (990..=1_050).contains(&of(200)), "{} {}", of(10), of(200));
    }

    proptest! {
        #[test]
        fn it_never_falls_with_size_and_stays_by_what_was_measured(
            known in prop::collection::vec((1u64..1 << 40, 1u64..1 << 30), 1..40),
            a in 0u64..1 << 41,
            b in 0u64..1 << 41,
        ) {
            let known: Vec<Taken> = known.into_iter().map(|(bytes, took_ms)| Taken { bytes, took_ms }).collect();
            let (small, large) = (a.min(b), a.max(b));
            let (small, large) = (forecast(&known, small).unwrap(), forecast(&known, large).unwrap());
            prop_assert!(small.predicted_ms <= large.predicted_ms);
            prop_assert_eq!(small.learned_from as usize, known.len().min(LEARNED_MAXIMUM));
        }

        #[test]
        fn what_lies_on_a_line_is_met(
            begin in 0u64..10_000,
            per_mib in 1u64..100,
            sizes in prop::collection::btree_set(1u64..4_096, 2..12),
            at in 1u64..8_192,
        ) {
            let known: Vec<(u64, u64)> = sizes.iter().map(|mib| (*mib, begin + per_mib * mib)).collect();
            let apart = sizes.last().unwrap() * 4 > sizes.first().unwrap() * 5;
            prop_assume!(apart);
            let found = forecast(&taken(&known), at * MIB).unwrap().predicted_ms;
            prop_assert!(found.abs_diff(begin + per_mib * at) <= 1, "{}", found);
        }
    }
}
