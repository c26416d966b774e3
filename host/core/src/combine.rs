//! How the answers of several components in one slot become one. Faults fail safe: a gate that faults denies, a
//! scorer that faults says *unknown* (never zero), a planner that faults proposes nothing.

use crate::decision::{Assessment, Choice, Demand, Fault, Judgement, Proposal, Reason, Risk, Verdict};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CombiningRule {
    /// Scorers: the gravest risk stands.
    Max,
    /// Gates: any deny denies; demands add up to the strictest.
    DenyOverrides,
    /// Planners and routers: all answers, best first.
    Rank,
}

/// What a slot of scorers says of a subject.
#[derive(Clone, Debug, PartialEq)]
pub enum Scored {
    Risk(Risk),
    /// Nothing can be said, and why. Not the same as no risk.
    Unknown(String),
}

/// The gravest risk by level, then score. Unknown only if no scorer had a risk to tell.
pub fn scores<'a>(answers: impl IntoIterator<Item = (&'a str, Result<&'a Assessment, &'a Fault>)>) -> Scored {
    let mut worst: Option<&Risk> = None;
    let mut unknown = Vec::new();
    for (name, answer) in answers {
        match answer {
            Ok(Assessment::Risk(risk)) => {
                let graver = worst.is_none_or(|w| {
                    risk.level > w.level || (risk.level == w.level && risk.score.total_cmp(&w.score).is_gt())
                });
                if graver {
                    worst = Some(risk);
                }
            }
            Ok(Assessment::Insufficient(missing)) => unknown.push(format!("{name}: {missing}")),
            Err(fault) => unknown.push(format!("{name}: {}", fault.message)),
        }
    }
    match worst {
        Some(risk) => Scored::Risk(risk.clone()),
        None if unknown.is_empty() => Scored::Unknown("the slot has no scorer".into()),
        None => Scored::Unknown(unknown.join("; ")),
    }
}

/// Deny overrides; an empty slot denies, because nobody allowed.
pub fn judgements<'a>(answers: impl IntoIterator<Item = (&'a str, Result<&'a Judgement, &'a Fault>)>) -> Judgement {
    let mut verdict: Option<Verdict> = None;
    let mut reasons = Vec::new();
    for (name, answer) in answers {
        let given = match answer {
            Ok(judgement) => {
                reasons.extend(judgement.reasons.iter().cloned());
                judgement.verdict.clone()
            }
            Err(fault) => {
                let text = format!("gate `{name}` gave no answer, which denies: {}", fault.message);
                reasons.push(Reason { code: "gate.fault".into(), text });
                Verdict::Deny
            }
        };
        verdict = Some(match (verdict, given) {
            (None, given) => given,
            (Some(Verdict::Deny), _) | (_, Verdict::Deny) => Verdict::Deny,
            (Some(Verdict::Allow), given) => given,
            (Some(demand @ Verdict::RequireApproval(_)), Verdict::Allow) => demand,
            (Some(Verdict::RequireApproval(a)), Verdict::RequireApproval(b)) => {
                Verdict::RequireApproval(strictest(a, b))
            }
        });
    }
    let verdict = verdict.unwrap_or_else(|| {
        reasons.push(Reason { code: "gate.none".into(), text: "no gate stands in the slot, which denies".into() });
        Verdict::Deny
    });
    Judgement { verdict, reasons }
}

/// A demand that satisfies both. Of two role names the one ranked higher by [`crate::incident::Rank`] stands; a name
/// that is no rank asks for the highest.
fn strictest(a: Demand, b: Demand) -> Demand {
    use crate::incident::Rank;
    let rank = |demand: &Demand| Rank::parse(&demand.role).unwrap_or(Rank::Admin);
    let role = if rank(&a) >= rank(&b) { a.role } else { b.role };
    Demand {
        approvers: a.approvers.max(b.approvers),
        role,
        approve_within_ms: a.approve_within_ms.min(b.approve_within_ms),
        execute_within_ms: a.execute_within_ms.min(b.execute_within_ms),
        comment: a.comment || b.comment,
    }
}

/// All proposals, the most confident first; ties keep their order.
pub fn proposals(answers: Vec<Vec<Proposal>>) -> Vec<Proposal> {
    let mut all: Vec<Proposal> = answers.into_iter().flatten().collect();
    all.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    all
}

/// All choices, best first; an id keeps its best score.
pub fn choices(answers: Vec<Vec<Choice>>) -> Vec<Choice> {
    let mut all: Vec<Choice> = answers.into_iter().flatten().collect();
    all.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id)));
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|choice| seen.insert(choice.id.clone()));
    all
}
