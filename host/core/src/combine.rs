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
pub(crate) fn strictest(a: Demand, b: Demand) -> Demand {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{FaultKind, Level};

    fn fault() -> Fault {
        Fault { kind: FaultKind::OutOfFuel, message: "out of fuel".into() }
    }

    fn risk(level: Level, score: f64) -> Assessment {
        Assessment::Risk(Risk {
            level,
            score,
            confidence: 1.0,
            horizon_ms: None,
            cause: "c".into(),
            reason: "r".into(),
            contributions: vec![],
        })
    }

    fn demand(approvers: u32, role: &str, within_ms: u64, comment: bool) -> Verdict {
        Verdict::RequireApproval(Demand {
            approvers,
            role: role.into(),
            approve_within_ms: within_ms,
            execute_within_ms: within_ms * 2,
            comment,
        })
    }

    fn judge(verdicts: &[Option<Verdict>]) -> Judgement {
        let answers: Vec<Result<Judgement, Fault>> = verdicts
            .iter()
            .map(|verdict| verdict.clone().map(|verdict| Judgement { verdict, reasons: vec![] }).ok_or_else(fault))
            .collect();
        judgements(answers.iter().map(|answer| ("g", answer.as_ref())))
    }

    /// Whatever the others say, and in whatever order.
    #[test]
    fn one_denial_or_fault_denies() {
        let all = [Some(Verdict::Allow), Some(demand(2, "admin", 1, true)), Some(Verdict::Deny), None];
        for a in &all {
            for b in &all {
                for c in &all {
                    let three = [a.clone(), b.clone(), c.clone()];
                    let denies = three.iter().any(|v| matches!(v, None | Some(Verdict::Deny)));
                    let demands = three.iter().any(|v| matches!(v, Some(Verdict::RequireApproval(_))));
                    let verdict = judge(&three).verdict;
                    assert_eq!(verdict == Verdict::Deny, denies, "{three:?}");
                    assert_eq!(matches!(verdict, Verdict::RequireApproval(_)), demands && !denies, "{three:?}");
                }
            }
        }
    }

    #[test]
    fn nobody_allowed_means_denied() {
        let judgement = judge(&[]);
        assert_eq!((judgement.verdict, judgement.reasons[0].code.as_str()), (Verdict::Deny, "gate.none"));
        assert_eq!(judge(&[None]).reasons[0].code, "gate.fault");
    }

    #[test]
    fn demands_add_up_to_the_strictest_of_each() {
        let (a, b) = (demand(2, "approver", 60, false), demand(1, "admin", 30, true));
        let strictest = demand(2, "admin", 30, true);
        assert_eq!(judge(&[Some(a.clone()), Some(b.clone())]).verdict, strictest);
        assert_eq!(judge(&[Some(b.clone()), Some(Verdict::Allow), Some(a.clone())]).verdict, strictest);
        // A role that is none asks for the highest, and stands against a lower one.
        let typo = demand(1, "aprover", 60, false);
        for both in [[Some(typo.clone()), Some(a.clone())], [Some(a), Some(typo)]] {
            let Verdict::RequireApproval(demand) = judge(&both).verdict else { panic!("a demand") };
            assert_eq!(demand.role, "aprover");
        }
    }

    #[test]
    fn the_gravest_risk_stands_and_unknown_is_not_zero() {
        let (low, high, higher) = (risk(Level::Low, 0.9), risk(Level::High, 0.1), risk(Level::High, 0.2));
        let missing = Assessment::Insufficient("no samples".into());
        let fault = fault();
        let of = |scored: &Scored| match scored {
            Scored::Risk(risk) => Ok((risk.level, risk.score)),
            Scored::Unknown(why) => Err(why.clone()),
        };
        assert_eq!(of(&scores([("a", Ok(&low)), ("b", Ok(&high)), ("c", Ok(&higher))])), Ok((Level::High, 0.2)));
        // One that has something to say is enough.
        assert_eq!(of(&scores([("a", Err(&fault)), ("b", Ok(&missing)), ("c", Ok(&low))])), Ok((Level::Low, 0.9)));
        let unknown = of(&scores([("a", Err(&fault)), ("b", Ok(&missing))]));
        assert_eq!(unknown, Err("a: out of fuel; b: no samples".into()));
        assert_eq!(of(&scores([])), Err("the slot has no scorer".into()));
    }

    #[test]
    fn choices_are_ranked_and_each_id_keeps_its_best() {
        let choice =
            |id: &str, score| Choice { id: id.into(), score, reason: Reason { code: "c".into(), text: String::new() } };
        let ranked = choices(vec![vec![choice("b", 0.5), choice("a", 0.5)], vec![choice("b", 0.9), choice("c", 0.1)]]);
        let ids: Vec<_> = ranked.iter().map(|choice| (choice.id.as_str(), choice.score)).collect();
        assert_eq!(ids, [("b", 0.9), ("a", 0.5), ("c", 0.1)]);
    }
}
