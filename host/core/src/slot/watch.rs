//! What an entry has cost and how it has failed at its present stage, and when that is too much.

use crate::decision::FaultKind;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use thiserror::Error;
use utoipa::ToSchema;

/// What an entry may use up before it is taken out by itself. Looked at after every evaluation, over the newest
/// `window` of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// Evaluations that count, 1 to 10,000.
    pub window: u32,
    /// No share or percentile is judged, and no step is proved, on fewer. 1 to 10,000, at most the window.
    pub least_evaluations: u32,
    /// Faults one after another, from whichever evaluation on: a slot that is asked rarely is not left with a component
    /// that never answers until there are enough evaluations for a share. 1 to 10,000.
    pub faults_in_row: u32,
    /// Share of evaluations that end in a fault. 0 to 100.
    pub fault_percent: f64,
    /// Share of evaluations whose answer would lead to another deed than the answer of the one it stands beside. Only
    /// of shadows: in a canary's place and in an active one's nobody else is asked. 0 to 100.
    pub divergence_percent: f64,
    /// Its 99th percentile of wall-clock time against that of the one it replaces. At least 1. Judged on at least 100
    /// evaluations, or the whole window where that is smaller: of fewer the percentile is the one slowest.
    pub latency_ratio: f64,
    /// A 99th percentile up to this is never too much, whatever the other took: a busy machine is not the component's
    /// fault.
    pub latency_floor_ms: u64,
    /// Its median fuel against that of the one it replaces. At least 1.
    pub fuel_ratio: f64,
}

/// The most that `window`, `least_evaluations` and `faults_in_row` can be.
const EVALUATIONS_MAXIMUM: u32 = 10_000;
/// Of fewer evaluations a 99th percentile is the one slowest.
const LATENCY_EVALUATIONS: usize = 100;

/// A part of a budget outside its range.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("`budget.{field}` is {given}; it must be {least} to {most}")]
pub struct OutOfRange {
    pub field: &'static str,
    pub given: f64,
    pub least: f64,
    pub most: f64,
}

impl Budget {
    /// Every part within its range, which no `nan` is.
    pub fn check(&self) -> Result<(), OutOfRange> {
        let Budget {
            window,
            least_evaluations,
            faults_in_row,
            fault_percent,
            divergence_percent,
            latency_ratio,
            latency_floor_ms: _,
            fuel_ratio,
        } = self;
        let most = f64::from(EVALUATIONS_MAXIMUM);
        for (field, given, least, most) in [
            ("window", f64::from(*window), 1.0, most),
            ("least_evaluations", f64::from(*least_evaluations), 1.0, f64::from(*window)),
            ("faults_in_row", f64::from(*faults_in_row), 1.0, most),
            ("fault_percent", *fault_percent, 0.0, 100.0),
            ("divergence_percent", *divergence_percent, 0.0, 100.0),
            ("latency_ratio", *latency_ratio, 1.0, 1e6),
            ("fuel_ratio", *fuel_ratio, 1.0, 1e6),
        ] {
            if !(least..=most).contains(&given) {
                return Err(OutOfRange { field, given, least, most });
            }
        }
        Ok(())
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            window: 200,
            least_evaluations: 20,
            faults_in_row: 5,
            fault_percent: 5.0,
            divergence_percent: 25.0,
            latency_ratio: 5.0,
            latency_floor_ms: 20,
            fuel_ratio: 10.0,
        }
    }
}

/// One evaluation, as far as a budget is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub fault: Option<FaultKind>,
    pub fuel: u64,
    pub latency_us: u64,
    pub memory_bytes: u64,
    pub log_lines: u32,
    /// None: nothing to compare it with.
    pub diverged: Option<bool>,
}

/// Sums and percentiles of an entry at one stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = StageFigures)]
pub struct Figures {
    pub evaluations: u64,
    pub faults: BTreeMap<FaultKind, u64>,
    /// Evaluations that were compared with another's, and of those the ones that differed.
    pub compared: u64,
    pub diverged: u64,
    /// Of the newest evaluations, as many as the budget's window.
    pub fuel_p50: Option<u64>,
    pub fuel_p99: Option<u64>,
    pub latency_us_p50: Option<u64>,
    pub latency_us_p99: Option<u64>,
    /// The most that one evaluation took.
    pub memory_bytes_max: u64,
    pub log_lines: u64,
}

/// What an entry is measured against: the one it replaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = StageBaseline)]
pub struct Baseline {
    pub fuel_p50: Option<u64>,
    pub latency_us_p99: Option<u64>,
}

impl From<&Figures> for Baseline {
    fn from(figures: &Figures) -> Self {
        Self { fuel_p50: figures.fuel_p50, latency_us_p99: figures.latency_us_p99 }
    }
}

/// Which part of a budget is used up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "breach")]
pub enum Breach {
    FaultsInRow { faults: u32 },
    Faults { percent: f64, limit: f64 },
    Divergence { percent: f64, limit: f64 },
    Latency { p99_us: u64, baseline_us: u64, limit: f64 },
    Fuel { p50: u64, baseline: u64, limit: f64 },
}

impl Breach {
    /// As metrics and the audit call it.
    pub fn name(&self) -> &'static str {
        match self {
            Breach::FaultsInRow { .. } => "faults_in_row",
            Breach::Faults { .. } => "faults",
            Breach::Divergence { .. } => "divergence",
            Breach::Latency { .. } => "latency",
            Breach::Fuel { .. } => "fuel",
        }
    }
}

impl std::fmt::Display for Breach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Breach::FaultsInRow { faults } => write!(f, "{faults} evaluations one after another ended in a fault"),
            Breach::Faults { percent, limit } => {
                write!(f, "{percent:.1} % of its evaluations ended in a fault; its budget is {limit} %")
            }
            Breach::Divergence { percent, limit } => write!(
                f,
                "{percent:.1} % of its answers would have led to another deed than those of the one it stands beside; its budget is {limit} %"
            ),
            Breach::Latency { p99_us, baseline_us, limit } => write!(
                f,
                "its 99th percentile is {p99_us} us, where the one it replaces took {baseline_us} us; its budget is {limit} times that"
            ),
            Breach::Fuel { p50, baseline, limit } => write!(
                f,
                "its median fuel is {p50}, where the one it replaces used {baseline}; its budget is {limit} times that"
            ),
        }
    }
}

/// The newest evaluations of one entry at one stage.
#[derive(Clone, Debug)]
pub struct Watch {
    newest: VecDeque<Sample>,
    window: usize,
    totals: Figures,
    /// Faults since the last answer.
    row: u32,
}

impl Watch {
    pub fn new(budget: &Budget) -> Self {
        let window = usize::try_from(budget.window.clamp(1, EVALUATIONS_MAXIMUM)).unwrap_or(1);
        Self { newest: VecDeque::new(), window, totals: Figures::default(), row: 0 }
    }

    pub fn count(&mut self, sample: Sample) {
        // A full pool is the host's trouble and says nothing of the component.
        if sample.fault == Some(FaultKind::Overloaded) {
            return;
        }
        if self.newest.len() == self.window {
            self.newest.pop_front();
        }
        self.newest.push_back(sample);
        let totals = &mut self.totals;
        totals.evaluations += 1;
        match sample.fault {
            Some(kind) => {
                *totals.faults.entry(kind).or_default() += 1;
                self.row = self.row.saturating_add(1);
            }
            None => self.row = 0,
        }
        totals.compared += u64::from(sample.diverged.is_some());
        totals.diverged += u64::from(sample.diverged == Some(true));
        totals.memory_bytes_max = totals.memory_bytes_max.max(sample.memory_bytes);
        totals.log_lines += u64::from(sample.log_lines);
    }

    /// The most that one evaluation took.
    pub fn memory_bytes_max(&self) -> u64 {
        self.totals.memory_bytes_max
    }

    pub fn figures(&self) -> Figures {
        let fuel = sorted(self.newest.iter().map(|sample| sample.fuel));
        let latency = sorted(self.newest.iter().map(|sample| sample.latency_us));
        Figures {
            fuel_p50: percentile(&fuel, 50),
            fuel_p99: percentile(&fuel, 99),
            latency_us_p50: percentile(&latency, 50),
            latency_us_p99: percentile(&latency, 99),
            ..self.totals.clone()
        }
    }

    /// The first part of `budget` that is used up, gravest first.
    pub fn breach(&self, budget: &Budget, baseline: Option<Baseline>) -> Option<Breach> {
        if self.row >= budget.faults_in_row.max(1) {
            return Some(Breach::FaultsInRow { faults: self.row });
        }
        let least = usize::try_from(budget.least_evaluations.max(1)).unwrap_or(usize::MAX).min(self.window);
        if self.newest.len() < least {
            return None;
        }
        let faults = self.newest.iter().filter(|sample| sample.fault.is_some()).count();
        let faults = percent(faults, self.newest.len());
        if faults > budget.fault_percent {
            return Some(Breach::Faults { percent: faults, limit: budget.fault_percent });
        }
        let compared: Vec<bool> = self.newest.iter().filter_map(|sample| sample.diverged).collect();
        if compared.len() >= least {
            let diverged = percent(compared.iter().filter(|diverged| **diverged).count(), compared.len());
            if diverged > budget.divergence_percent {
                return Some(Breach::Divergence { percent: diverged, limit: budget.divergence_percent });
            }
        }
        let Baseline { fuel_p50, latency_us_p99 } = baseline?;
        if self.newest.len() >= LATENCY_EVALUATIONS.min(self.window)
            && let Some(baseline_us) = latency_us_p99
            && let Some(p99_us) = percentile(&sorted(self.newest.iter().map(|sample| sample.latency_us)), 99)
            && p99_us > budget.latency_floor_ms.saturating_mul(1_000)
            && ratio(p99_us, baseline_us) > budget.latency_ratio
        {
            return Some(Breach::Latency { p99_us, baseline_us, limit: budget.latency_ratio });
        }
        if let Some(baseline) = fuel_p50
            && let Some(p50) = percentile(&sorted(self.newest.iter().map(|sample| sample.fuel)), 50)
            && ratio(p50, baseline) > budget.fuel_ratio
        {
            return Some(Breach::Fuel { p50, baseline, limit: budget.fuel_ratio });
        }
        None
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts of at most 10,000")]
fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

#[allow(clippy::cast_precision_loss, reason = "a ratio needs no more than a float's precision")]
fn ratio(value: u64, baseline: u64) -> f64 {
    value as f64 / baseline.max(1) as f64
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
