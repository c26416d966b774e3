//! What a component has cost and how it has failed since it was activated.

use aether_core::{
    decision::{Fault, FaultKind},
    time::Time,
};
use aether_runtime::Evaluation;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
};

/// Evaluations that percentiles are of.
const NEWEST: usize = 1_024;

#[derive(Debug, Default)]
pub struct Figures(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    evaluations: u64,
    faults: BTreeMap<FaultKind, u64>,
    /// Fuel and microseconds.
    newest: VecDeque<(u64, u64)>,
    last_at: Option<Time>,
    last_fault: Option<Fault>,
}

/// The figures at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FiguresView {
    pub evaluations: u64,
    pub faults: BTreeMap<FaultKind, u64>,
    pub fuel_p50: Option<u64>,
    pub fuel_p99: Option<u64>,
    pub latency_us_p50: Option<u64>,
    pub latency_us_p99: Option<u64>,
    pub last_at: Option<Time>,
    pub last_fault: Option<String>,
}

impl Figures {
    pub fn count(&self, evaluation: &Evaluation, at: Time) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.evaluations += 1;
        counts.last_at = Some(at);
        if let Err(fault) = &evaluation.outcome {
            *counts.faults.entry(fault.kind).or_default() += 1;
            counts.last_fault = Some(fault.clone());
        }
        if counts.newest.len() == NEWEST {
            counts.newest.pop_front();
        }
        let latency_us = u64::try_from(evaluation.duration.as_micros()).unwrap_or(u64::MAX);
        counts.newest.push_back((evaluation.fuel, latency_us));
    }

    pub fn view(&self) -> FiguresView {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fuel = sorted(counts.newest.iter().map(|(fuel, _)| *fuel));
        let latency = sorted(counts.newest.iter().map(|(_, latency)| *latency));
        FiguresView {
            evaluations: counts.evaluations,
            faults: counts.faults.clone(),
            fuel_p50: percentile(&fuel, 50),
            fuel_p99: percentile(&fuel, 99),
            latency_us_p50: percentile(&latency, 50),
            latency_us_p99: percentile(&latency, 99),
            last_at: counts.last_at,
            last_fault: counts.last_fault.as_ref().map(|fault| fault.message.clone()),
        }
    }
}

fn sorted(values: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values
}

/// Nearest rank.
fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn nearest_rank() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&hundred, 50), Some(50));
        assert_eq!(percentile(&hundred, 99), Some(99));
        assert_eq!(percentile(&[7], 99), Some(7));
        assert_eq!(percentile(&[], 50), None);
    }
}
