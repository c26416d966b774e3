//! The measuring: all rows take turns in short rounds, so that what else the machine does falls on all alike.

use crate::engines::Variant;
use std::time::{Duration, Instant};

/// How long one row measures before it is the next one's turn.
const TURN: Duration = Duration::from_millis(4);
/// Samples of one turn, so that a quick row does not drown in its own.
const TURN_SAMPLES: usize = 200;

/// Nanoseconds of one row's samples, in order.
pub struct Samples(Vec<u64>);

impl Samples {
    pub fn new(mut nanoseconds: Vec<u64>) -> Self {
        nanoseconds.sort_unstable();
        Self(nanoseconds)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// In microseconds.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// In microseconds.
    pub fn p99(&self) -> f64 {
        self.quantile(0.99)
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index into the samples, and times far below 2^53 ns"
    )]
    fn quantile(&self, share: f64) -> f64 {
        let index = (self.0.len() as f64 * share) as usize;
        self.0.get(index.min(self.0.len().saturating_sub(1))).map_or(f64::NAN, |time| *time as f64 / 1_000.0)
    }
}

pub fn timed(call: impl FnOnce()) -> u64 {
    let begun = Instant::now();
    call();
    nanoseconds(begun.elapsed())
}

pub fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Measures the variants by turns; each begins every turn with one call that is not counted, because the row before it
/// left the caches to itself.
pub fn measure(variants: &mut [Variant], cases: usize, rounds: usize) -> Vec<Samples> {
    let mut samples: Vec<Vec<u64>> = variants.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for (variant, samples) in variants.iter_mut().zip(&mut samples) {
            (variant.run)(round % cases);
            let begun = Instant::now();
            for turn in 0..TURN_SAMPLES {
                samples.push(timed(|| (variant.run)(turn % cases)));
                if begun.elapsed() > TURN && turn % cases == cases - 1 {
                    break;
                }
            }
        }
    }
    samples.into_iter().map(Samples::new).collect()
}
