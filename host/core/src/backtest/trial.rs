//! Takes what both sides said, in order of time for each subject, and makes the report of it.

use super::{
    Alarm, Asked, Change, Changes, Cost, Event, EventRow, Figures, Measure, Period, ROWS_MAXIMUM, Report, Side,
    SubjectRow,
    figures::{self, Fit, Sums},
    level,
};
use crate::{
    combine::Scored,
    decision::{Answer, Assessment, Fault, FaultKind, Role, Verdict},
    finding::{self, Detector, Hysteresis},
    id::{DecisionId, SlotId},
    slot::diverges,
    subject::SubjectRef,
    time::Time,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The report's form.
const SCHEMA_VERSION: u32 = 1;

/// How far from an event's window an alarm still counts for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tolerance {
    /// Before the window begins.
    pub lead_ms: u64,
    /// After it ends.
    pub late_ms: u64,
}

/// Collects what evaluations cost.
#[derive(Clone, Debug, Default)]
pub struct Costs {
    fuel: Vec<u64>,
    faults: BTreeMap<FaultKind, u64>,
    memory_bytes_max: u64,
}

impl Costs {
    pub fn count(&mut self, fuel: u64, memory_bytes: u64, fault: Option<FaultKind>) {
        self.fuel.push(fuel);
        self.memory_bytes_max = self.memory_bytes_max.max(memory_bytes);
        if let Some(kind) = fault {
            *self.faults.entry(kind).or_default() += 1;
        }
    }

    /// Of another component of the same side.
    pub fn add(&mut self, other: &Costs) {
        self.fuel.extend(&other.fuel);
        self.memory_bytes_max = self.memory_bytes_max.max(other.memory_bytes_max);
        for (kind, count) in &other.faults {
            *self.faults.entry(*kind).or_default() += count;
        }
    }

    pub fn faults(&self, kind: FaultKind) -> u64 {
        self.faults.get(&kind).copied().unwrap_or(0)
    }

    fn cost(mut self) -> Cost {
        self.fuel.sort_unstable();
        let percentile = |percent: usize| {
            let rank = (self.fuel.len() * percent).div_ceil(100);
            self.fuel.get(rank.saturating_sub(1)).copied()
        };
        Cost {
            evaluations: u64::try_from(self.fuel.len()).unwrap_or(u64::MAX),
            fuel: self.fuel.iter().sum(),
            fuel_p50: percentile(50),
            fuel_p99: percentile(99),
            memory_bytes_max: self.memory_bytes_max,
            faults: self.faults,
        }
    }
}

/// One side's detector, and what it has raised.
struct Watcher {
    detector: Detector,
    alarms: BTreeMap<SubjectRef, Vec<Alarm>>,
    unknown: u64,
}

impl Watcher {
    fn new(hysteresis: &Hysteresis) -> Self {
        Self { detector: Detector::new(hysteresis.clone()), alarms: BTreeMap::new(), unknown: 0 }
    }

    fn observe(&mut self, subject: &SubjectRef, at: Time, scored: &Scored) {
        self.unknown += u64::from(matches!(scored, Scored::Unknown(_)));
        match self.detector.observe(subject, at, scored) {
            None | Some(finding::Change::Continues(_)) => {}
            Some(finding::Change::Raised(found)) => {
                let alarm = Alarm {
                    subject: subject.clone(),
                    at,
                    cleared: None,
                    level: found.risk.level,
                    cause: found.shape.cause,
                    reason: found.risk.reason,
                };
                self.alarms.entry(subject.clone()).or_default().push(alarm);
            }
            Some(finding::Change::Cleared(_)) => {
                if let Some(last) = self.alarms.get_mut(subject).and_then(|alarms| alarms.last_mut()) {
                    last.cleared = Some(at);
                }
            }
        }
    }

    fn fit(&self, subject: &SubjectRef, events: &[Event], tolerance: Tolerance) -> (&[Alarm], Fit) {
        let alarms = self.alarms.get(subject).map_or(&[][..], Vec::as_slice);
        (alarms, figures::fit(alarms, events, tolerance.lead_ms, tolerance.late_ms))
    }
}

/// A backtest under way.
pub struct Trial {
    candidate: Watcher,
    current: Option<Watcher>,
    /// First and last evaluation.
    seen: BTreeMap<SubjectRef, (Time, Time)>,
    decided: BTreeMap<String, (Time, Time)>,
    changes: Changes,
    /// The change that the newest evaluation of each subject was part of.
    running: BTreeMap<SubjectRef, Change>,
}

impl Trial {
    /// `compared`: there is a current side, which is asked the same.
    pub fn new(hysteresis: &Hysteresis, compared: bool) -> Self {
        Self {
            candidate: Watcher::new(hysteresis),
            current: compared.then(|| Watcher::new(hysteresis)),
            seen: BTreeMap::new(),
            decided: BTreeMap::new(),
            changes: Changes::default(),
            running: BTreeMap::new(),
        }
    }

    /// What scorers said of one subject, each subject's in order of time.
    pub fn observe(&mut self, subject: &SubjectRef, at: Time, candidate: &Scored, current: Option<&Scored>) {
        let seen = self.seen.entry(subject.clone()).or_insert((at, at));
        seen.1 = at;
        self.candidate.observe(subject, at, candidate);
        let (Some(watcher), Some(current)) = (&mut self.current, current) else { return };
        watcher.observe(subject, at, current);
        self.changes.compared += 1;
        if !diverges(&answer(candidate), &answer(current)) {
            let ended = self.running.remove(subject);
            self.keep(ended);
            return;
        }
        self.changes.changed += 1;
        let (was, is) = (said(&answer(current)), said(&answer(candidate)));
        match self.running.get_mut(subject) {
            Some(change) if change.current == was && change.candidate == is => change.times += 1,
            Some(_) | None => {
                let change =
                    Change { about: subject.to_string(), at, times: 1, decision: None, current: was, candidate: is };
                let ended = self.running.insert(subject.clone(), change);
                self.keep(ended);
            }
        }
    }

    /// What a planner, gate or router answers to the question of a recorded decision, in order of time.
    pub fn decide(
        &mut self,
        decision: &DecisionId,
        about: &str,
        at: Time,
        candidate: &Result<Answer, Fault>,
        current: &Result<Answer, Fault>,
    ) {
        let seen = self.decided.entry(about.to_owned()).or_insert((at, at));
        seen.1 = at;
        self.changes.compared += 1;
        if diverges(candidate, current) {
            self.changes.changed += 1;
            self.keep([Change {
                about: about.into(),
                at,
                times: 1,
                decision: Some(decision.clone()),
                current: said(current),
                candidate: said(candidate),
            }]);
        }
    }

    /// Counts ended runs of changes, and keeps as many as a report shows.
    fn keep(&mut self, ended: impl IntoIterator<Item = Change>) {
        for change in ended {
            self.changes.runs += 1;
            if self.changes.rows.len() < ROWS_MAXIMUM {
                self.changes.rows.push(change);
            }
        }
    }

    /// The report. `events`: what alarms are measured against, and by which measure.
    pub fn report(mut self, told: Told) -> Report {
        let Told { role, slot, tick_ms, measure, events, tolerance, candidate, current, mut notes } = told;
        let running = std::mem::take(&mut self.running);
        self.keep(running.into_values());
        let scores = role == Role::RiskScorer;
        let mut events_of: BTreeMap<&SubjectRef, Vec<Event>> = BTreeMap::new();
        let mut outside = 0;
        for event in events {
            match self.seen.get_key_value(&event.subject) {
                Some((subject, (from, to))) if event.to >= *from && event.from <= *to => {
                    events_of.entry(subject).or_default().push(event);
                }
                Some(_) | None => outside += 1,
            }
        }
        let measured = measure != Measure::Nothing;
        let (mut sums, mut current_sums) = (Sums::default(), Sums::default());
        let (mut rows, mut subjects, mut false_alarms) = (vec![], vec![], vec![]);
        let mut changes = self.changes;
        changes.rows.sort_by(|a, b| (&a.about, a.at).cmp(&(&b.about, b.at)));
        for (subject, (from, to)) in &self.seen {
            let span_ms = to.since_ms(*from);
            let mut events = events_of.remove(subject).unwrap_or_default();
            events.sort_by(|a, b| (a.from, &a.id).cmp(&(b.from, &b.id)));
            let (alarms, fit) = self.candidate.fit(subject, &events, tolerance);
            sums.add(alarms.len(), &fit, span_ms);
            if measured {
                false_alarms.extend(fit.stray.iter().map(|number| alarms[*number].clone()));
            }
            let single = |alarms: usize, fit: &Fit| {
                let mut sums = Sums::default();
                sums.add(alarms, fit, span_ms);
                sums.figures(measured)
            };
            let before = self.current.as_ref().map(|current| current.fit(subject, &events, tolerance));
            subjects.push(SubjectRow {
                subject: subject.clone(),
                candidate: single(alarms.len(), &fit),
                current: before.as_ref().map(|(alarms, fit)| single(alarms.len(), fit)),
            });
            if let Some((alarms, fit)) = &before {
                current_sums.add(alarms.len(), fit, span_ms);
            }
            for (number, (event, outcome)) in events.into_iter().zip(fit.outcomes).enumerate() {
                let current = before.as_ref().map(|(_, fit)| fit.outcomes[number].clone());
                let was = current.as_ref().map(|outcome| outcome.caught_at);
                match (was, outcome.caught_at) {
                    (None, _) | (Some(None), None) => {}
                    (Some(None), Some(_)) => changes.caught.push(event.id.clone()),
                    (Some(Some(_)), None) => changes.missed.push(event.id.clone()),
                    (Some(Some(was)), Some(is)) => {
                        changes.earlier += u64::from(is < was);
                        changes.later += u64::from(is > was);
                    }
                }
                rows.push(EventRow { event, candidate: outcome, current });
            }
        }
        rows.sort_by(|a, b| {
            (a.event.from, &a.event.subject, &a.event.id).cmp(&(b.event.from, &b.event.subject, &b.event.id))
        });
        false_alarms.sort_by(|a: &Alarm, b| (a.at, &a.subject).cmp(&(b.at, &b.subject)));
        if rows.len() > ROWS_MAXIMUM || subjects.len() > ROWS_MAXIMUM || false_alarms.len() > ROWS_MAXIMUM {
            notes.push(format!("Lists are cut to their first {ROWS_MAXIMUM} rows; the figures are of all."));
        }
        let spans = || self.seen.values().chain(self.decided.values());
        let period = Period {
            from: spans().map(|span| span.0).min().unwrap_or_default(),
            to: spans().map(|span| span.1).max().unwrap_or_default(),
            tick_ms,
            subjects: u64::try_from(spans().count()).unwrap_or(u64::MAX),
        };
        rows.truncate(ROWS_MAXIMUM);
        subjects.truncate(ROWS_MAXIMUM);
        false_alarms.truncate(ROWS_MAXIMUM);
        let side = |(asked, costs): (Vec<Asked>, Costs), unknown: u64, figures: Figures| Side {
            asked,
            cost: costs.cost(),
            unknown,
            figures: scores.then_some(figures),
        };
        let watched = self.current.as_ref().map_or(0, |current| current.unknown);
        Report {
            schema_version: SCHEMA_VERSION,
            role,
            slot,
            period,
            measure,
            events_outside: outside,
            candidate: side(candidate, self.candidate.unknown, sums.figures(measured)),
            changes: current.is_some().then_some(changes),
            current: current.map(|current| side(current, watched, current_sums.figures(measured))),
            events: rows,
            subjects,
            false_alarms,
            notes,
        }
    }
}

/// What the trial itself does not know and the report tells.
pub struct Told {
    pub role: Role,
    pub slot: Option<SlotId>,
    pub tick_ms: Option<u64>,
    pub measure: Measure,
    pub events: Vec<Event>,
    pub tolerance: Tolerance,
    pub candidate: (Vec<Asked>, Costs),
    pub current: Option<(Vec<Asked>, Costs)>,
    pub notes: Vec<String>,
}

fn answer(scored: &Scored) -> Result<Answer, Fault> {
    Ok(Answer::Assessment(match scored {
        Scored::Risk(risk) => Assessment::Risk(risk.clone()),
        Scored::Unknown(why) => Assessment::Insufficient(why.clone()),
    }))
}

/// An answer in few words: what would be done on it.
fn said(outcome: &Result<Answer, Fault>) -> String {
    let answer = match outcome {
        Ok(answer) => answer,
        Err(fault) => return format!("no answer: {}", fault.message),
    };
    match answer {
        Answer::Assessment(Assessment::Risk(risk)) => format!("{} ({})", level(risk.level), risk.cause),
        Answer::Assessment(Assessment::Insufficient(_)) => "unknown".into(),
        Answer::Judgement(judgement) => match &judgement.verdict {
            Verdict::Allow => "allow".into(),
            Verdict::Deny => match judgement.reasons.first() {
                Some(reason) => format!("deny ({})", reason.code),
                None => "deny".into(),
            },
            Verdict::RequireApproval(demand) => format!("{} of rank {} must approve", demand.approvers, demand.role),
        },
        Answer::Proposals(proposals) => match proposals.first() {
            None => "no proposal".into(),
            Some(first) => {
                let steps: Vec<String> =
                    first.steps.iter().map(|step| format!("{} {}", step.verb, step.target.subject())).collect();
                steps.join(", ")
            }
        },
        Answer::Choices(choices) => {
            choices.first().map_or_else(|| "no choice".into(), |first| format!("{} first", first.id))
        }
    }
}
