//! How closely people look at what the gates have them approve.
//!
//! A gate whose every question is answered with yes within seconds protects nobody: it costs attention and buys none.
//! What is counted comes from the incidents' journals alone, so it is as old as they are and needs no table of its own.

use super::{Event, Incident, Phase, Resolution, event::TimerKind, step};
use crate::{decision::Verdict, time::Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// An approval that came sooner than this after it was asked for can hardly rest on reading the plan.
pub const HASTY_MS: u64 = 10_000;
/// Who asked where no gate did: the posture's own demand.
pub const POSTURE: &str = "posture";

/// What became of the approvals that one gate asked for, reckoned by plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Scrutiny {
    /// The component's name, or `posture` where the posture alone asked.
    pub gate: String,
    /// Plans that it wanted approved.
    pub asked: u32,
    pub approved: u32,
    pub denied: u32,
    /// Nobody approved in time.
    pub expired: u32,
    /// Still waiting.
    pub waiting: u32,
    /// Of those approved: the last word needed came within ten seconds.
    pub hasty: u32,
    /// Of those approved: nobody said why.
    pub wordless: u32,
    /// Of those approved: under break-glass.
    pub break_glass: u32,
    /// From the question to the last word needed, in milliseconds, of those approved.
    pub median_ms: Option<u64>,
    /// The share of the answered that were approved in haste: 1 is a rubber stamp. None: nothing was answered yet.
    pub rubber_stamp: Option<f64>,
}

/// How one question ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    Approved { after_ms: u64, wordless: bool, break_glass: bool },
    Denied,
    Expired,
    Waiting,
}

impl Ending {
    pub fn name(&self) -> &'static str {
        match self {
            Ending::Approved { .. } => "approved",
            Ending::Denied => "denied",
            Ending::Expired => "expired",
            Ending::Waiting => "waiting",
        }
    }
}

/// One plan that people were asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub gates: BTreeSet<String>,
    pub at: Time,
    pub ending: Ending,
}

/// What was asked in one incident: a journal as it is stored. One that relapsed may have asked more than once.
pub fn asked(journal: &[(Time, Event)]) -> Vec<Asked> {
    let mut all: Vec<Asked> = Vec::new();
    let Some(((at, Event::Opened(opening)), rest)) = journal.split_first() else { return all };
    let (mut incident, _) = Incident::open(*at, (**opening).clone());
    for (at, event) in rest {
        let was_waiting = waits(&incident);
        step(&mut incident, *at, event);
        if let (false, true, Event::Judged { answers, context: _, before: _ }) = (was_waiting, waits(&incident), event)
        {
            let demands = |answer: &&super::GateAnswer| matches!(&answer.outcome, Ok(judgement) if matches!(judgement.verdict, Verdict::RequireApproval(_)));
            let mut gates: BTreeSet<String> =
                answers.iter().filter(demands).map(|answer| answer.by.name.clone()).collect();
            if gates.is_empty() {
                gates.insert(POSTURE.into());
            }
            all.push(Asked { gates, at: *at, ending: Ending::Waiting });
        }
        if let (true, false, Some(last)) = (was_waiting, waits(&incident), all.last_mut()) {
            last.ending = ending(&incident, event, at.since_ms(last.at));
        }
    }
    all
}

fn waits(incident: &Incident) -> bool {
    matches!(incident.phase, Phase::AwaitingApproval { .. })
}

/// `event` has just ended the waiting.
fn ending(incident: &Incident, event: &Event, after_ms: u64) -> Ending {
    let expired = matches!(&incident.phase, Phase::Closed { resolution: Resolution::Expired });
    match event {
        Event::TimerFired { timer: TimerKind::Approval } => Ending::Expired,
        _ if expired => Ending::Expired,
        Event::Approved(_) => Ending::Approved {
            after_ms,
            wordless: incident.approvals.iter().all(|given| given.comment.as_deref().is_none_or(str::is_empty)),
            break_glass: incident.approvals.iter().any(|given| given.break_glass.is_some()),
        },
        _ => Ending::Denied,
    }
}

/// Reckons by gate, in order of name. A plan that several gates asked about counts for each.
pub fn scrutiny(all: impl IntoIterator<Item = Asked>) -> Vec<Scrutiny> {
    let mut gates: BTreeMap<String, (Scrutiny, Vec<u64>)> = BTreeMap::new();
    for asked in all {
        for gate in asked.gates {
            let (of, waits) = gates.entry(gate.clone()).or_default();
            of.gate = gate;
            of.asked += 1;
            match &asked.ending {
                Ending::Approved { after_ms, wordless, break_glass } => {
                    of.approved += 1;
                    of.hasty += u32::from(*after_ms < HASTY_MS);
                    of.wordless += u32::from(*wordless);
                    of.break_glass += u32::from(*break_glass);
                    waits.push(*after_ms);
                }
                Ending::Denied => of.denied += 1,
                Ending::Expired => of.expired += 1,
                Ending::Waiting => of.waiting += 1,
            }
        }
    }
    let reckoned = gates.into_values().map(|(of, mut waits)| {
        waits.sort_unstable();
        let answered = of.approved + of.denied + of.expired;
        let rubber_stamp = (answered > 0).then(|| f64::from(of.hasty) / f64::from(answered));
        Scrutiny { median_ms: waits.get(waits.len() / 2).copied(), rubber_stamp, ..of }
    });
    reckoned.collect()
}
