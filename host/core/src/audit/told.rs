//! What the audit is told of an incident's event: decisions, approvals, refusals, expiries, orders and what became of
//! them. It is written in the event's own transaction, so neither can be there without the other.

use super::{Act, ActOutcome};
use crate::{
    decision::Verdict,
    id::PrincipalId,
    incident::{Approval, Event, Incident, Phase, Rank, Requested, TimerKind},
    order::{Direction, IdempotencyKey, OutcomeStatus},
};
use std::collections::BTreeMap;

/// `before` is none for the opening. Nothing is told of an event that changed nothing.
pub fn told(before: Option<&Incident>, event: &Event, after: &Incident) -> Vec<Act> {
    if before == Some(after) {
        return vec![];
    }
    let mut acts: Vec<Act> = first(before, event, after).into_iter().collect();
    let was_closed = before.is_some_and(Incident::is_closed);
    if let (false, Phase::Closed { resolution }) = (was_closed, &after.phase) {
        let summary = after.timeline.last().map(|entry| entry.text.clone()).unwrap_or_default();
        acts.push(by_itself(after, "incident.close", [("resolution", word(resolution)), ("summary", summary)]));
    }
    acts
}

fn first(before: Option<&Incident>, event: &Event, after: &Incident) -> Option<Act> {
    let plan = || after.hash.as_ref().map(|hash| hash.0.clone()).unwrap_or_default();
    Some(match event {
        Event::Opened(opening) if opening.requested.is_some() => {
            let Requested { by, name, rank, proposal } = opening.requested.as_ref()?;
            let mut act = person(after, "plan.request", by, Some(*rank), opening.finding.shape.subject.to_string());
            act.detail.extend([
                ("name".to_owned(), name.clone()),
                ("title".to_owned(), proposal.title.clone()),
                ("reason".to_owned(), proposal.rationale.clone()),
            ]);
            act
        }
        Event::Opened(opening) | Event::Relapsed(opening) => {
            let risk = &opening.finding.risk;
            let shape = &opening.finding.shape;
            let detail = [
                ("subject", shape.subject.to_string()),
                ("cause", shape.cause.clone()),
                ("level", word(&risk.level)),
                ("decisions", joined(opening.decisions.iter().map(|context| context.decision.as_str()))),
            ];
            let action = if before.is_some() { "incident.relapse" } else { "incident.open" };
            by_itself(after, action, detail)
        }
        Event::Proposed { answers, world: _, posture: _, tried: _ } => {
            let title = after.proposal.as_ref().map(|proposal| proposal.title.clone());
            let decisions = joined(answers.iter().map(|answer| answer.by.decision.as_str()));
            let mut act = by_itself(after, "plan.propose", [("decisions", decisions)]);
            match title {
                Some(title) => {
                    act.detail.insert("title".into(), title);
                }
                None => act.outcome = ActOutcome::Refused,
            }
            act
        }
        Event::Judged { answers, context, before: _ } => {
            let verdict = after.judgement.as_ref().map(|judgement| &judgement.verdict);
            let demand = match verdict {
                Some(Verdict::RequireApproval(demand)) => format!("{} of {}", demand.approvers, demand.role),
                Some(Verdict::Allow | Verdict::Deny) | None => "none".into(),
            };
            let detail = [
                ("verdict", verdict.map_or("none", verdict_name).into()),
                ("approvals", demand),
                ("dry-run", after.flags.dry_run.to_string()),
                ("bundle", context.bundle.0.clone()),
                ("decisions", joined(answers.iter().map(|answer| answer.by.decision.as_str()))),
                ("plan", plan()),
            ];
            let mut act = by_itself(after, "plan.judge", detail);
            if verdict.is_none_or(|verdict| *verdict == Verdict::Deny) {
                act.outcome = ActOutcome::Refused;
            }
            act
        }
        Event::Approved(approval) => said(after, "plan.approve", approval),
        Event::Denied(denial) => said(after, "plan.deny", denial),
        Event::Withdrawn { by, comment } => {
            let given = before.and_then(|before| before.approvals.iter().find(|given| given.by == *by));
            let mut act = person(after, "plan.withdraw", by, given.map(|given| given.rank), plan());
            act.detail.extend(comment.iter().map(|comment| ("comment".to_owned(), comment.clone())));
            act
        }
        Event::CalledOff { by, rank, comment } => {
            let mut act = person(after, "plan.call-off", by, Some(*rank), plan());
            act.detail.insert("comment".into(), comment.clone());
            if before.is_none_or(|before| before.check_call_off().is_err()) {
                act.outcome = ActOutcome::Refused;
            }
            act
        }
        Event::TimerFired { timer: TimerKind::Approval } if after.is_closed() => {
            let mut act = by_itself(after, "plan.expire", [("plan", plan())]);
            act.outcome = ActOutcome::Refused;
            act
        }
        Event::TimerFired { timer: TimerKind::Step { step, direction } } => {
            let key = after.steps.iter().find(|record| record.step == *step && record.direction == *direction)?;
            let silent = key.outcome.as_ref()?;
            step_act(after, "step.silent", &key.key, [("reason", silent.message.clone())])
        }
        Event::Reserved { key, fence, execute_by } => {
            let detail = [("fence", fence.to_string()), ("execute-by", execute_by.0.to_string())];
            let sent = after.steps.iter().any(|record| record.key == *key && record.outcome.is_none());
            let mut act = step_act(after, "step.dispatch", key, detail);
            if !sent {
                act.outcome = ActOutcome::Refused;
                act.detail.insert("reason".into(), after.failure.clone().unwrap_or_default());
            }
            act
        }
        Event::ReservationRefused { key, code, reason } => {
            let mut act = step_act(after, "step.dispatch", key, [("code", code.clone()), ("reason", reason.clone())]);
            act.outcome = ActOutcome::Refused;
            act
        }
        Event::DispatchRefused { key, code, reason } => {
            let mut act = step_act(after, "step.refuse", key, [("code", code.clone()), ("reason", reason.clone())]);
            act.outcome = ActOutcome::Refused;
            act
        }
        Event::Finished { key, outcome } => {
            let status = match outcome.status {
                OutcomeStatus::Succeeded => "succeeded",
                OutcomeStatus::Failed => "failed",
                OutcomeStatus::Unknown => "unknown",
            };
            let detail = [
                ("status", status.to_string()),
                ("code", outcome.code.clone()),
                ("simulated", outcome.simulated.to_string()),
            ];
            step_act(after, "step.finish", key, detail)
        }
        // What was seen, and what an agent has in its own journal, is no decision.
        Event::Recurred { risk: _ }
        | Event::Accepted { key: _, journal: _ }
        | Event::Read { readings: _, every_ms: _ }
        | Event::TimerFired { timer: TimerKind::Approval | TimerKind::Watch } => return None,
    })
}

fn by_itself<const N: usize>(incident: &Incident, action: &str, detail: [(&str, String); N]) -> Act {
    let detail = detail.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Act::by_itself(action, format!("incident/{}", incident.id), detail)
}

fn person(incident: &Incident, action: &str, by: &PrincipalId, rank: Option<Rank>, target: String) -> Act {
    let detail = BTreeMap::from([("incident".to_owned(), incident.id.0.clone())]);
    Act { principal: by.clone(), rank, action: action.into(), target, outcome: ActOutcome::Done, detail }
}

fn said(incident: &Incident, action: &str, approval: &Approval) -> Act {
    let mut act = person(incident, action, &approval.by, Some(approval.rank), approval.plan.0.clone());
    if let Some(comment) = &approval.comment {
        act.detail.insert("comment".into(), comment.clone());
    }
    if let Some(glass) = &approval.break_glass {
        act.detail.insert("break-glass".into(), glass.0.clone());
    }
    act
}

/// Of a step: its record where it was dispatched, or else what the plan says.
fn step_act<const N: usize>(
    incident: &Incident,
    action: &str,
    key: &IdempotencyKey,
    detail: [(&str, String); N],
) -> Act {
    let mut act = by_itself(incident, action, detail);
    act.detail.insert("key".into(), key.0.clone());
    act.detail.insert("plan".into(), incident.hash.as_ref().map(|hash| hash.0.clone()).unwrap_or_default());
    let steps = incident.plan.as_ref().map_or(0, |plan| u32::try_from(plan.steps.len()).unwrap_or(u32::MAX));
    let mut all = (0..steps).flat_map(|step| [(step, Direction::Forward), (step, Direction::Compensate)]);
    let found =
        all.find_map(|(step, direction)| incident.reservation(step, direction).filter(|found| found.key == *key));
    if let Some(reservation) = found {
        act.detail.insert("verb".into(), reservation.verb);
        act.detail.insert("node".into(), reservation.node.0);
        act.detail.insert("target".into(), reservation.target.to_string());
        act.detail.insert("step".into(), (reservation.step + 1).to_string());
        if reservation.direction == Direction::Compensate {
            act.detail.insert("undoes".into(), "true".into());
        }
    }
    act
}

fn verdict_name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
        Verdict::RequireApproval(_) => "require-approval",
    }
}

/// A unit variant as it is written in documents.
fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(_) | Err(_) => String::new(),
    }
}

fn joined<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    ids.filter(|id| !id.is_empty()).collect::<Vec<_>>().join(", ")
}
