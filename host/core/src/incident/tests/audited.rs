//! What the audit is told of a story: each decision, each word of a person, each order and what became of it.

use super::{fixtures, stories::Story};
use crate::{
    audit::{Act, told},
    id::PrincipalId,
    incident::{Effect, Event, Incident, Opening, Rank, Requested, step},
};
use expect_test::{Expect, expect};

fn audited(script: &str) -> Vec<Act> {
    let (mut story, _) = Story::open();
    story.play(script);
    let mut acts = Vec::new();
    let mut incident: Option<Incident> = None;
    for (at, event) in &story.journal {
        let after = match (&incident, event) {
            (None, Event::Opened(opening)) => Incident::open(*at, (**opening).clone()).0,
            (before, event) => {
                let mut after = before.clone().expect("a journal begins with an opening");
                step(&mut after, *at, event);
                after
            }
        };
        acts.extend(told(incident.as_ref(), event, &after));
        incident = Some(after);
    }
    acts
}

fn check(script: &str, expected: Expect) {
    let lines: Vec<String> = audited(script)
        .iter()
        .map(|act| {
            let shown = ["verdict", "verb", "node", "undoes", "status", "code", "resolution", "comment"];
            let detail: Vec<String> =
                shown.iter().filter_map(|name| act.detail.get(*name).map(|value| format!("{name}={value}"))).collect();
            format!("{} {} {} {}", act.principal, act.action, act.outcome.name(), detail.join(" "))
                .trim_end()
                .to_owned()
        })
        .collect();
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn a_migration_that_two_approve_and_that_fails_is_told_whole() {
    check(
        "propose; judge two; approve ann because; approve ann; approve ben; reserve; accept; ok; reserve; fail; reserve; ok",
        expect![[r#"
            aether incident.open done
            aether plan.propose done
            aether plan.judge done verdict=require-approval
            ann plan.approve done comment=looked at it
            ben plan.approve done
            aether step.dispatch done verb=process.checkpoint node=node-a
            aether step.finish done verb=process.checkpoint node=node-a status=succeeded code=ok
            aether step.dispatch done verb=process.restore node=node-b
            aether step.finish done verb=process.restore node=node-b status=failed code=criu.failed
            aether step.dispatch done verb=process.resume node=node-a undoes=true
            aether step.finish done verb=process.resume node=node-a undoes=true status=succeeded code=ok
            aether incident.close done resolution=undone"#]],
    );
}

#[test]
fn a_denial_of_a_gate_is_told() {
    check(
        "propose; judge deny",
        expect![[r#"
            aether incident.open done
            aether plan.propose done
            aether plan.judge refused verdict=deny
            aether incident.close done resolution=denied_by_gate"#]],
    );
}

#[test]
fn an_expiry_is_told() {
    check(
        "propose; judge demand; after 601s; timer approval",
        expect![[r#"
        aether incident.open done
        aether plan.propose done
        aether plan.judge done verdict=require-approval
        aether plan.expire refused
        aether incident.close done resolution=expired"#]],
    );
}

#[test]
fn words_of_people_are_told() {
    check(
        "propose; judge two; approve ann; withdraw ann; approve ann; deny ben",
        expect![[r#"
        aether incident.open done
        aether plan.propose done
        aether plan.judge done verdict=require-approval
        ann plan.approve done
        ann plan.withdraw done
        ann plan.approve done
        ben plan.deny done comment=not tonight
        aether incident.close done resolution=denied_by_person"#]],
    );
}

#[test]
fn what_the_guard_refuses_is_told() {
    check(
        "propose; judge demand; approve ann; reserve refused",
        expect![[r#"
        aether incident.open done
        aether plan.propose done
        aether plan.judge done verdict=require-approval
        ann plan.approve done
        aether step.dispatch refused verb=process.checkpoint node=node-a code=guard.target-busy
        aether incident.close done resolution=refused"#]],
    );
}

#[test]
fn what_the_agent_refuses_is_told() {
    check(
        "propose; judge demand; approve ann; reserve; refuse",
        expect![[r#"
        aether incident.open done
        aether plan.propose done
        aether plan.judge done verdict=require-approval
        ann plan.approve done
        aether step.dispatch done verb=process.checkpoint node=node-a
        aether step.refuse refused verb=process.checkpoint node=node-a code=order.precondition
        aether incident.close done resolution=refused"#]],
    );
}

#[test]
fn silence_is_told() {
    check(
        "propose; judge demand; approve ann; reserve; after 91s; timer step",
        expect![[r#"
        aether incident.open done
        aether plan.propose done
        aether plan.judge done verdict=require-approval
        ann plan.approve done
        aether step.dispatch done verb=process.checkpoint node=node-a
        aether step.silent done verb=process.checkpoint node=node-a
        aether incident.close done resolution=unknown"#]],
    );
}

#[test]
fn what_changed_nothing_is_not_told() {
    let once = audited("propose; judge demand; approve ann");
    let repeated = audited("propose; judge demand; propose; approve ann; approve ann; judge deny");
    assert_eq!(once, repeated);
}

#[test]
fn what_a_person_asks_for_is_told_as_theirs_and_is_no_components_decision() {
    let requested = Requested {
        by: PrincipalId::new("ann"),
        name: "Ann".into(),
        rank: Rank::Operator,
        proposal: fixtures::proposal(),
    };
    let opening = Opening { requested: Some(requested), decisions: vec![], ..fixtures::opening() };
    let (mut incident, _) = Incident::open(fixtures::START, opening.clone());
    let [act] = &told(None, &Event::Opened(Box::new(opening)), &incident)[..] else { panic!("one act") };
    assert_eq!((act.principal.as_str(), act.action.as_str(), act.rank), ("ann", "plan.request", Some(Rank::Operator)));
    assert_eq!(act.detail["title"], "Move train to node-b");
    let effects =
        step(&mut incident, fixtures::START, &fixtures::proposed(Ok(vec![fixtures::proposal()]), fixtures::world()));
    let Some(Effect::Record(artifact)) = effects.first() else { panic!("{effects:?}") };
    assert_eq!(artifact.evidence, []);
}
