//! What a backtest must reach for CI to pass.

use super::{Figures, Report};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use utoipa::ToSchema;

/// Bars for the candidate. What is not set is not asked for; what is set and cannot be known is not reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = BacktestBars)]
pub struct Bars {
    /// 0 to 1.
    pub min_recall: Option<f64>,
    /// 0 to 1.
    pub min_precision: Option<f64>,
    /// False alarms for each subject and day.
    pub max_false_per_day: Option<f64>,
    /// Of the median.
    pub min_lead_ms: Option<i64>,
    /// Answers that would have led to another deed.
    pub max_changed: Option<u64>,
    /// Events that stand caught now and that the candidate misses.
    pub max_newly_missed: Option<u64>,
    /// Evaluations that ended in a fault.
    pub max_faults: Option<u64>,
    /// The candidate's median fuel against that of what stands now.
    pub max_fuel_ratio: Option<f64>,
}

/// A bar that was not reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = BacktestShort)]
pub struct Short {
    /// As on the command line, such as `min-recall`.
    pub bar: String,
    pub wanted: String,
    pub found: String,
}

impl std::fmt::Display for Short {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Short { bar, wanted, found } = self;
        write!(f, "{bar} asks for {wanted}, and the backtest found {found}")
    }
}

impl Bars {
    /// The bars that `report` does not reach.
    pub fn short(&self, report: &Report) -> Vec<Short> {
        let Bars {
            min_recall,
            min_precision,
            max_false_per_day,
            min_lead_ms,
            max_changed,
            max_newly_missed,
            max_faults,
            max_fuel_ratio,
        } = self;
        let figures = report.candidate.figures.as_ref();
        let measured = figures.filter(|_| report.measure != super::Measure::Nothing);
        let of = |pick: fn(&Figures) -> Option<f64>| measured.and_then(pick);
        let changes = report.changes.as_ref();
        let faults: u64 = report.candidate.cost.faults.values().sum();
        let median = |side: &super::Side| side.cost.fuel_p50;
        let ratio = match (median(&report.candidate), report.current.as_ref().and_then(median)) {
            #[allow(clippy::cast_precision_loss, reason = "a ratio needs no more than a float's precision")]
            (Some(candidate), Some(current)) => Some(candidate as f64 / current.max(1) as f64),
            (None, _) | (_, None) => None,
        };
        let mut short = Vec::new();
        least(&mut short, "min-recall", *min_recall, of(|figures| figures.recall));
        least(&mut short, "min-precision", *min_precision, of(|figures| figures.precision));
        most(&mut short, "max-false-per-day", *max_false_per_day, of(|figures| Some(figures.false_per_day)));
        least(&mut short, "min-lead", *min_lead_ms, measured.and_then(|figures| figures.lead_ms_p50));
        most(&mut short, "max-changed", *max_changed, changes.map(|changes| changes.changed));
        let newly_missed = changes.map(|changes| u64::try_from(changes.missed.len()).unwrap_or(u64::MAX));
        most(&mut short, "max-newly-missed", *max_newly_missed, newly_missed);
        most(&mut short, "max-faults", *max_faults, Some(faults));
        most(&mut short, "max-fuel-ratio", *max_fuel_ratio, ratio);
        short
    }
}

fn least<T: PartialOrd + std::fmt::Display>(short: &mut Vec<Short>, bar: &str, wanted: Option<T>, found: Option<T>) {
    if let Some(wanted) = wanted
        && found.as_ref().and_then(|found| found.partial_cmp(&wanted)).is_none_or(Ordering::is_lt)
    {
        short.push(Short { bar: bar.into(), wanted: format!("at least {wanted}"), found: told(found) });
    }
}

fn most<T: PartialOrd + std::fmt::Display>(short: &mut Vec<Short>, bar: &str, wanted: Option<T>, found: Option<T>) {
    if let Some(wanted) = wanted
        && found.as_ref().and_then(|found| found.partial_cmp(&wanted)).is_none_or(Ordering::is_gt)
    {
        short.push(Short { bar: bar.into(), wanted: format!("at most {wanted}"), found: told(found) });
    }
}

fn told<T: std::fmt::Display>(found: Option<T>) -> String {
    found.map_or_else(|| "nothing to tell it by".into(), |found| found.to_string())
}
