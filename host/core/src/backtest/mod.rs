//! What a backtest finds: recorded history asked anew, and told as what is caught, missed, false, how early, and at what
//! cost. Pure: who is asked, and where history comes from, is the host's.
//!
//! ```text
//! (subject, time, what was said) -> Detector -> alarms --+-- events (labels, or recorded incidents) -> figures
//!         candidate, current     -> diverges  -> changes +
//! ```
//! Scorers raise alarms by the very [`Detector`](crate::finding::Detector) that raises findings live, so that
//! hysteresis counts the same. Planners, gates and routers are asked their recorded questions again
//! ([`Trial::decide`]), and answers are compared as a slot compares a shadow's ([`crate::slot::diverges`]).
//!
//! The words, precisely:
//! - An *alarm* is a finding: it is raised at one time and stands until it clears.
//! - An event is *caught* if an alarm about its subject is raised within `[from - lead, to + late]`; the first one
//!   counts. Otherwise it is *missed*; if an older alarm still stood when its window began, it is missed as *standing*,
//!   because a person had been called, if for another reason.
//! - An alarm within the range of an event that is caught already *repeats*. An alarm in no event's range is *false*.
//! - *Precision* is caught / (caught + false), *recall* is caught / events, both by event and not by sample; where the
//!   denominator is zero there is none. *F1* is their harmonic mean.
//! - *Lead* is the event's time less the alarm's: negative if the alarm came after.
//!
//! Deliberately absent: wall-clock time of evaluations, so that a report of the same history and components is the same
//! on every machine. Fuel says what it costs.

mod bars;
mod figures;
mod trial;

pub use bars::{Bars, Short};
pub use figures::{Alarm, Figures, Outcome};
pub use trial::{Costs, Told, Tolerance, Trial};

use crate::{
    decision::{FaultKind, Level, Role},
    id::{DecisionId, Digest, SlotId},
    subject::SubjectRef,
    time::Time,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Rows of a report that can grow without bound are cut to so many; how many there were is told.
pub const ROWS_MAXIMUM: usize = 500;

/// Something that happened to a subject, written down by somebody who knows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LabelledEvent)]
pub struct Event {
    pub id: String,
    pub subject: SubjectRef,
    /// Its window, both ends included.
    pub from: Time,
    pub to: Time,
    /// What lead is measured to; within or at the edge of the window.
    pub at: Time,
    #[serde(default)]
    pub summary: String,
}

/// What alarms are measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Labels that came with the history.
    Labels,
    /// The incidents that were opened at the time. They are what the components of then found: what those missed is not
    /// among them, so an alarm that is false by this measure may be a better catch.
    Incidents,
    /// Nothing: the report has alarms and changes, but neither precision nor recall.
    Nothing,
}

/// One component as it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = BacktestAsked)]
pub struct Asked {
    pub name: String,
    pub version: String,
    pub component: Digest,
    pub config: Digest,
    #[serde(default)]
    pub assets: Option<Digest>,
}

/// What asking cost. All of it is the same on every run of one engine version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = BacktestCost)]
pub struct Cost {
    pub evaluations: u64,
    /// Evaluations that ended in a fault, by kind.
    pub faults: BTreeMap<FaultKind, u64>,
    pub fuel: u64,
    /// Of one evaluation.
    pub fuel_p50: Option<u64>,
    pub fuel_p99: Option<u64>,
    /// The most that one evaluation took.
    pub memory_bytes_max: u64,
}

/// One of the two that are compared: all components that answer together in the slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = BacktestSide)]
pub struct Side {
    pub asked: Vec<Asked>,
    pub cost: Cost,
    /// Evaluations of which it could say nothing: too little data, or a fault. Never the same as no risk.
    pub unknown: u64,
    /// Alarms, and how well they fit the events. None: the role raises none.
    pub figures: Option<Figures>,
}

/// The stretch of history, and how time went in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = BacktestPeriod)]
pub struct Period {
    pub from: Time,
    pub to: Time,
    /// Of the virtual clock. None: recorded decisions were asked again, each at its own time.
    pub tick_ms: Option<u64>,
    pub subjects: u64,
}

/// One event, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = BacktestEvent)]
pub struct EventRow {
    pub event: Event,
    pub candidate: Outcome,
    pub current: Option<Outcome>,
}

/// The figures of one subject, so that one noisy machine does not hide behind a hundred quiet ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = BacktestSubject)]
pub struct SubjectRow {
    pub subject: SubjectRef,
    pub candidate: Figures,
    pub current: Option<Figures>,
}

/// A false alarm, or an answer that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = BacktestChange)]
pub struct Change {
    /// What it is about: `node/node-a`, `topic/a/b`.
    pub about: String,
    /// The first of it.
    pub at: Time,
    /// Evaluations in a row that changed in the same way.
    pub times: u64,
    /// The recorded decision, where one was asked again.
    pub decision: Option<DecisionId>,
    pub current: String,
    pub candidate: String,
}

/// What would have been otherwise with the candidate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = BacktestChanges)]
pub struct Changes {
    /// Answers that were compared.
    pub compared: u64,
    /// Of those, the ones that would have led to another deed.
    pub changed: u64,
    /// Ids of events that only the candidate catches, and of those that it no longer does.
    pub caught: Vec<String>,
    pub missed: Vec<String>,
    /// Events that both catch, the candidate earlier or later.
    pub earlier: u64,
    pub later: u64,
    /// The first [`ROWS_MAXIMUM`] changes; runs of the same change are one.
    pub rows: Vec<Change>,
    /// How many rows there were.
    pub runs: u64,
}

/// What a backtest found. The same history and components give the same report, byte for byte.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = BacktestReport)]
pub struct Report {
    pub schema_version: u32,
    pub role: Role,
    pub slot: Option<SlotId>,
    pub period: Period,
    pub measure: Measure,
    /// Events that lie outside of the period or are of subjects of which there is no history. They count nowhere.
    pub events_outside: u64,
    pub candidate: Side,
    /// What stands now. None: the candidate was asked alone.
    pub current: Option<Side>,
    /// None without a current side.
    pub changes: Option<Changes>,
    /// In order of time, the first [`ROWS_MAXIMUM`].
    pub events: Vec<EventRow>,
    /// In order of subject, the first [`ROWS_MAXIMUM`].
    pub subjects: Vec<SubjectRow>,
    /// The candidate's alarms in no event's range, in order of time, the first [`ROWS_MAXIMUM`]. Empty where there is
    /// nothing to measure against.
    pub false_alarms: Vec<Alarm>,
    /// What a reader should know before relying on the figures.
    pub notes: Vec<String>,
}

/// A level as people read it.
fn level(level: Level) -> &'static str {
    match level {
        Level::Low => "low",
        Level::Elevated => "elevated",
        Level::High => "high",
        Level::Critical => "critical",
    }
}

#[cfg(test)]
mod tests;
