//! Who is asked, and what counts as another deed.

use super::*;
use crate::{
    decision::{Answer, Assessment, Choice, Demand, Fault, Judgement, Level, Reason, Risk, Verdict},
    slot::{Spoken, compare, diverges},
};

fn risk(level: Level, score: f64) -> Result<Answer, Fault> {
    Ok(Answer::Assessment(Assessment::Risk(Risk {
        level,
        score,
        confidence: 0.5,
        horizon_ms: None,
        cause: "c".into(),
        reason: "r".into(),
        contributions: vec![],
    })))
}

fn insufficient(why: &str) -> Result<Answer, Fault> {
    Ok(Answer::Assessment(Assessment::Insufficient(why.into())))
}

fn judged(verdict: Verdict, reason: &str) -> Result<Answer, Fault> {
    let reasons = vec![Reason { code: "c".into(), text: reason.into() }];
    Ok(Answer::Judgement(Judgement { verdict, reasons }))
}

fn demand(approvers: u32) -> Verdict {
    Verdict::RequireApproval(Demand {
        approvers,
        role: "approver".into(),
        approve_within_ms: 1,
        execute_within_ms: 1,
        comment: false,
    })
}

fn chosen(ids: &[(&str, f64)]) -> Result<Answer, Fault> {
    let reason = Reason { code: "c".into(), text: String::new() };
    Ok(Answer::Choices(
        ids.iter().map(|(id, score)| Choice { id: (*id).into(), score: *score, reason: reason.clone() }).collect(),
    ))
}

fn proposed(verbs: &[&str]) -> Result<Answer, Fault> {
    use crate::{
        decision::{OnFailure, Proposal, ProposedStep},
        subject::{SubjectKind, Target},
    };
    Ok(Answer::Proposals(
        verbs
            .iter()
            .map(|verb| Proposal {
                title: "t".into(),
                rationale: "r".into(),
                steps: vec![ProposedStep {
                    verb: (*verb).into(),
                    target: Target { kind: SubjectKind::Node, id: "node-a".into(), generation: 1 },
                    arguments: BTreeMap::new(),
                    preconditions: vec![],
                    on_failure: OnFailure::Stop,
                }],
                success: vec![],
                watch_ms: 1,
                confidence: 0.5,
            })
            .collect(),
    ))
}

fn fault() -> Result<Answer, Fault> {
    Err(Fault { kind: FaultKind::Trapped, message: "unreachable".into() })
}

fn names(entries: &[&Entry]) -> String {
    entries.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>().join(" ")
}

/// The keys of a thousand nodes.
fn nodes() -> impl Iterator<Item = String> {
    (0..1_000).map(|number| format!("node/node-{number}"))
}

#[test]
fn a_canary_answers_for_its_share_in_the_place_of_the_one_it_replaces() {
    for percent in [1, 10, 50, 99] {
        let slot = after([
            seed(vec![entry("a-1", None), entry("x-1", None)]),
            add("b-2", Some("a-1")),
            force("b-2", canary(percent)),
        ]);
        let on = |slot: &Slot, key: &str| match names(&slot.cast(key).answering).as_str() {
            "a-1 x-1" => false,
            "x-1 b-2" => true,
            other => panic!("{other}"),
        };
        let chosen: Vec<String> = nodes().filter(|key| on(&slot, key)).collect();
        let expected = f64::from(percent) * 10.0;
        // Four standard deviations of a binomial.
        let slack = 4.0 * (expected * (1.0 - f64::from(percent) / 100.0)).sqrt();
        assert!((chosen.len() as f64 - expected).abs() <= slack, "{percent} %: {} of 1,000", chosen.len());
        if percent < 99 {
            let wider = slot.apply(force("b-2", canary(percent + 1)), START).unwrap();
            assert!(chosen.iter().all(|key| on(&wider, key)), "a wider share takes nobody out");
        }
    }
}

#[test]
fn the_share_is_the_same_on_every_machine_and_in_every_version() {
    let slot = after([seed(vec![entry("a-1", None)]), add("b-2", Some("a-1")), force("b-2", canary(10))]);
    let chosen: Vec<String> = nodes()
        .filter(|key| names(&slot.cast(key).answering) == "b-2")
        .map(|key| key.replace("node/node-", ""))
        .take(8)
        .collect();
    expect_test::expect!["6 17 22 39 42 65 68 85"].assert_eq(&chosen.join(" "));
}

#[test]
fn shadows_and_candidates_do_not_answer() {
    let slot = after([
        seed(vec![entry("a-1", None)]),
        add("b-2", Some("a-1")),
        promote("b-2", Stage::Shadow),
        add("c-3", None),
        add("d-4", None),
        retire("d-4"),
    ]);
    let cast = slot.cast("node/node-a");
    assert_eq!((names(&cast.answering), names(&cast.shadows)), ("a-1".into(), "b-2".into()));
}

#[test]
fn another_deed_is_what_diverges() {
    use Level::{High, Low};
    let cases = [
        (risk(Low, 0.1), risk(Low, 0.4), false),
        (risk(Low, 0.1), risk(High, 0.1), true),
        (risk(Low, 0.1), insufficient("a"), true),
        (insufficient("a"), insufficient("b"), false),
        (judged(Verdict::Allow, "a"), judged(Verdict::Allow, "b"), false),
        (judged(Verdict::Allow, "a"), judged(Verdict::Deny, "a"), true),
        (judged(demand(1), "a"), judged(demand(1), "b"), false),
        (judged(demand(1), "a"), judged(demand(2), "a"), true),
        (chosen(&[("a", 0.9), ("b", 0.1)]), chosen(&[("a", 0.2)]), false),
        (chosen(&[("a", 0.9)]), chosen(&[("b", 0.9)]), true),
        (chosen(&[]), chosen(&[("b", 0.9)]), true),
        (chosen(&[]), chosen(&[]), false),
        (proposed(&["a", "b"]), proposed(&["a"]), false),
        (proposed(&["a"]), proposed(&["b"]), true),
        (proposed(&[]), proposed(&["b"]), true),
        (proposed(&[]), proposed(&[]), false),
        (fault(), fault(), false),
        (fault(), judged(Verdict::Deny, "a"), true),
        (risk(Low, 0.1), judged(Verdict::Allow, "a"), true),
    ];
    for (a, b, expected) in cases {
        assert_eq!(diverges(&a, &b), expected, "{a:?}\n{b:?}");
        assert_eq!(diverges(&b, &a), expected, "the other way: {a:?}\n{b:?}");
        assert!(!diverges(&a, &a));
    }
}

#[test]
fn a_shadow_is_compared_with_the_one_it_replaces_or_with_what_it_would_have_changed() {
    use Level::{High, Low};
    use Role::{PolicyGate, RemediationPlanner, RiskScorer, Router};
    let (allow, deny) = (judged(Verdict::Allow, "a"), judged(Verdict::Deny, "a"));
    let cases = [
        // In another's place: that one's answer alone counts.
        (RiskScorer, Some("a-1"), vec![risk(Low, 0.1), risk(High, 0.9)], risk(Low, 0.2), Some(false)),
        (RiskScorer, Some("a-1"), vec![risk(Low, 0.1), risk(High, 0.9)], risk(High, 0.2), Some(true)),
        (RiskScorer, Some("a-1"), vec![fault(), risk(High, 0.9)], risk(High, 0.2), None),
        (RiskScorer, Some("a-1"), vec![risk(Low, 0.1)], fault(), None),
        // Its canary answers for this subject.
        (RiskScorer, Some("z-9"), vec![risk(Low, 0.1)], risk(High, 0.1), None),
        // Beside the others: what would all have come to?
        (RiskScorer, None, vec![risk(High, 0.9)], risk(Low, 0.1), Some(false)),
        (RiskScorer, None, vec![risk(Low, 0.9)], risk(High, 0.1), Some(true)),
        (RiskScorer, None, vec![insufficient("a")], risk(Low, 0.1), Some(true)),
        (RiskScorer, None, vec![risk(Low, 0.1), fault()], risk(Low, 0.1), None),
        (RiskScorer, None, vec![], risk(Low, 0.1), None),
        (PolicyGate, None, vec![deny.clone()], allow.clone(), Some(false)),
        (PolicyGate, None, vec![allow.clone()], deny, Some(true)),
        (PolicyGate, None, vec![judged(demand(2), "a")], judged(demand(1), "b"), Some(false)),
        (PolicyGate, None, vec![judged(demand(1), "a")], judged(demand(2), "b"), Some(true)),
        (RemediationPlanner, None, vec![proposed(&["a"])], proposed(&["b"]), Some(false)),
        (RemediationPlanner, None, vec![proposed(&[])], proposed(&["b"]), Some(true)),
        (Router, None, vec![chosen(&[("a", 0.5)])], chosen(&[("b", 0.4)]), Some(false)),
        (Router, None, vec![chosen(&[("a", 0.5)])], chosen(&[("b", 0.6)]), Some(true)),
    ];
    let ids = [id("a-1"), id("b-1")];
    for (role, replaces, answered, said, expected) in cases {
        let spoken: Vec<Spoken<'_>> =
            ids.iter().zip(&answered).map(|(entry, outcome)| Spoken { entry, outcome }).collect();
        let found = compare(role, &spoken, &entry("s-1", replaces), &said);
        assert_eq!(found, expected, "{role:?} {replaces:?} {answered:?}\n{said:?}");
    }
}
