//! Alarms against events: caught, missed, false, and how early.

use super::Event;
use crate::{decision::Level, subject::SubjectRef, time::Time};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

const DAY_MS: f64 = 86_400_000.0;

/// A finding as the detector raised it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = BacktestAlarm)]
pub struct Alarm {
    pub subject: SubjectRef,
    pub at: Time,
    /// None: it still stood at the end.
    pub cleared: Option<Time>,
    pub level: Level,
    pub cause: String,
    pub reason: String,
}

/// What became of one event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = BacktestOutcome)]
pub struct Outcome {
    /// When the first alarm within its range was raised. None: it was missed.
    pub caught_at: Option<Time>,
    /// The event's time less the alarm's: negative if the alarm came after.
    pub lead_ms: Option<i64>,
    pub cause: Option<String>,
    /// Missed, though an older alarm still stood when its window began.
    pub standing: bool,
}

/// Alarms, and how well they fit the events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = BacktestFigures)]
pub struct Figures {
    pub alarms: u64,
    pub events: u64,
    pub caught: u64,
    pub missed: u64,
    /// Of the missed ones.
    pub standing: u64,
    /// Alarms within the range of an event that was caught already.
    pub repeated: u64,
    /// Alarms in no event's range. Where there is nothing to measure against: none are known to be false.
    pub false_alarms: u64,
    /// For each subject and day of its history.
    pub false_per_day: f64,
    pub precision: Option<f64>,
    pub recall: Option<f64>,
    pub f1: Option<f64>,
    /// Of the events that were caught.
    pub lead_ms_p50: Option<i64>,
    pub lead_ms_least: Option<i64>,
}

/// One subject's alarms, in order of time, against its events.
pub(super) struct Fit {
    /// One for each event.
    pub(super) outcomes: Vec<Outcome>,
    /// Numbers of the alarms in no event's range.
    pub(super) stray: Vec<usize>,
    pub(super) repeated: u64,
}

pub(super) fn fit(alarms: &[Alarm], events: &[Event], lead_ms: u64, late_ms: u64) -> Fit {
    let (mut first, mut within) = (vec![false; alarms.len()], vec![false; alarms.len()]);
    let outcomes = events
        .iter()
        .map(|event| {
            let (from, to) = (event.from.minus_ms(lead_ms), event.to.plus_ms(late_ms));
            let mut outcome = Outcome::default();
            for (number, alarm) in alarms.iter().enumerate().filter(|(_, alarm)| (from..=to).contains(&alarm.at)) {
                within[number] = true;
                if outcome.caught_at.is_none() {
                    first[number] = true;
                    outcome.caught_at = Some(alarm.at);
                    outcome.lead_ms = Some(event.at.0.saturating_sub(alarm.at.0));
                    outcome.cause = Some(alarm.cause.clone());
                }
            }
            let stands = |alarm: &Alarm| alarm.at < from && alarm.cleared.is_none_or(|cleared| cleared >= from);
            outcome.standing = outcome.caught_at.is_none() && alarms.iter().any(stands);
            outcome
        })
        .collect();
    let stray = (0..alarms.len()).filter(|number| !within[*number]).collect();
    let repeated = within.iter().zip(&first).filter(|(within, first)| **within && !**first).count();
    Fit { outcomes, stray, repeated: count(repeated) }
}

/// Sums of one or of many subjects.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    alarms: u64,
    repeated: u64,
    stray: u64,
    standing: u64,
    missed: u64,
    leads: Vec<i64>,
    span_ms: u64,
}

impl Sums {
    pub(super) fn add(&mut self, alarms: usize, fit: &Fit, span_ms: u64) {
        self.alarms += count(alarms);
        self.repeated += fit.repeated;
        self.stray += count(fit.stray.len());
        self.span_ms = self.span_ms.saturating_add(span_ms);
        for outcome in &fit.outcomes {
            match outcome.lead_ms {
                Some(lead) => self.leads.push(lead),
                None => {
                    self.missed += 1;
                    self.standing += u64::from(outcome.standing);
                }
            }
        }
    }

    /// `measured`: there are events to measure against, even if they are none.
    pub(super) fn figures(mut self, measured: bool) -> Figures {
        self.leads.sort_unstable();
        let caught = count(self.leads.len());
        let events = caught + self.missed;
        let false_alarms = if measured { self.stray } else { 0 };
        let recall = share(caught, events);
        let precision = if measured { share(caught, caught + false_alarms) } else { None };
        let f1 = match (precision, recall) {
            (Some(precision), Some(recall)) if precision + recall > 0.0 => {
                Some(2.0 * precision * recall / (precision + recall))
            }
            (Some(_), Some(_)) => Some(0.0),
            (None, _) | (_, None) => None,
        };
        #[allow(clippy::cast_precision_loss, reason = "days need no more than a float's precision")]
        let days = self.span_ms as f64 / DAY_MS;
        #[allow(clippy::cast_precision_loss, reason = "a count of alarms is far below 2^53")]
        let false_per_day = if days > 0.0 { false_alarms as f64 / days } else { 0.0 };
        Figures {
            alarms: self.alarms,
            events,
            caught,
            missed: self.missed,
            standing: self.standing,
            repeated: self.repeated,
            false_alarms,
            false_per_day,
            precision,
            recall,
            f1,
            lead_ms_p50: median(&self.leads),
            lead_ms_least: self.leads.first().copied(),
        }
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[allow(clippy::cast_precision_loss, reason = "counts of events are far below 2^53")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Of an even number, the mean of the middle two.
fn median(sorted: &[i64]) -> Option<i64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = sorted.get((sorted.len() / 2).checked_sub(1)?)?;
    Some(lower + (upper - lower) / 2)
}
