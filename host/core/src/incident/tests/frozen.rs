//! The frozen form of what outlives a process. A golden that changes here is a change of schema: what was stored before
//! must still be read, so it takes a schema version, not just `UPDATE_EXPECT=1`.

use super::{
    fixtures::{self as f, START},
    stories::Story,
};
use crate::{
    artifact::Artifact,
    decision::{Answer, Assessment, Envelope, HostCall, Limits, LogLine, Question, Severity, Verdict},
    id::{DecisionId, Digest, NodeId, PrincipalId, SlotId, SnapshotId, WorkloadId},
    incident::{Event, Incident, TimerKind},
    observation::{Column, Observation, ObservedEvent},
    order::{Direction, IdempotencyKey, Order, OutcomeStatus, Provenance},
    plan::PlanHash,
    snapshot::{ChunkRef, Manifest, SnapshotFile, Tier, WorkloadSpec},
    subject::{SubjectKind, Target},
    time::Time,
    value::Value,
};
use expect_test::{ExpectFile, expect, expect_file};
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, fmt::Debug};

/// As it is printed, and back again.
fn frozen<T: Serialize + DeserializeOwned + PartialEq + Debug>(document: &T, expected: ExpectFile) {
    let text = serde_json::to_string_pretty(document).unwrap() + "\n";
    expected.assert_eq(&text);
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), document);
    // As the store keeps it, too.
    assert_eq!(&serde_json::from_slice::<T>(&crate::plan::canonical(document)).unwrap(), document);
}

fn whole() -> Story {
    let (mut story, _) = Story::open();
    story.play(
        "propose; judge demand; approve ann because; reserve; accept; ok; reserve; ok; reserve; ok; reserve; ok; \
         after 1s; read good; after 10s; read good",
    );
    story
}

#[test]
fn the_eight_artifacts() {
    let story = whole();
    let artifacts: BTreeMap<&str, &Artifact> =
        story.artifacts.iter().map(|artifact| (artifact.body.kind().name(), artifact)).collect();
    assert_eq!(artifacts.len(), 8);
    let check = |kind: &str, expected: ExpectFile| frozen(artifacts[kind], expected);
    check("observation_summary", expect_file!["../../../golden/artifacts/1-observation_summary.json"]);
    check("anomaly_finding", expect_file!["../../../golden/artifacts/2-anomaly_finding.json"]);
    check("root_cause_hypothesis", expect_file!["../../../golden/artifacts/3-root_cause_hypothesis.json"]);
    check("remediation_proposal", expect_file!["../../../golden/artifacts/4-remediation_proposal.json"]);
    check("execution_plan", expect_file!["../../../golden/artifacts/5-execution_plan.json"]);
    check("execution_result", expect_file!["../../../golden/artifacts/6-execution_result.json"]);
    check("verification_result", expect_file!["../../../golden/artifacts/7-verification_result.json"]);
    check("incident_report", expect_file!["../../../golden/artifacts/8-incident_report.json"]);
}

/// One of each kind of event, by name.
fn events() -> BTreeMap<&'static str, Event> {
    let key = || IdempotencyKey("k".into());
    let text = |text: &str| text.to_string();
    let plan = || PlanHash("p".into());
    let mut context = f::gate_context();
    context.requester = Some(PrincipalId::new("ann"));
    context.parent = Some(plan());
    let mut world = f::world();
    world
        .nodes
        .get_mut(&NodeId::new("node-b"))
        .unwrap()
        .capabilities
        .insert("process.checkpoint".into(), Err("criu is not installed".into()));
    let all = [
        Event::Opened(Box::new(f::opening())),
        Event::Recurred { risk: f::risk(0.9) },
        Event::Relapsed(Box::new(f::opening())),
        f::proposed(Ok(vec![f::proposal()]), world),
        f::judged(Ok(f::judgement(Verdict::RequireApproval(f::demand(1)))), context),
        Event::Approved(f::approval(plan(), "ann", crate::incident::Rank::PolicyAuthor, START, Some("looked at it"))),
        Event::Denied(f::approval(plan(), "ben", crate::incident::Rank::Approver, START, None)),
        Event::Withdrawn { by: PrincipalId::new("ann"), comment: None },
        Event::CalledOff {
            by: PrincipalId::new("ann"),
            rank: crate::incident::Rank::Operator,
            comment: text("the job ends tonight"),
        },
        Event::TimerFired { timer: TimerKind::Step { step: 1, direction: Direction::Compensate } },
        Event::Reserved { key: key(), fence: 41, execute_by: START },
        Event::ReservationRefused { key: key(), code: text("guard.target-busy"), reason: text("busy") },
        Event::DispatchRefused { key: key(), code: text("order.expired"), reason: text("too late") },
        Event::Accepted { key: key(), journal: 3 },
        Event::Finished { key: key(), outcome: f::outcome(OutcomeStatus::Succeeded, START) },
        Event::Read {
            readings: vec![crate::incident::Reading {
                condition: f::success(),
                value: Some(0.1),
                sampled_at: Some(START),
            }],
            every_ms: Some(1_000),
        },
    ];
    // A new kind does not build before it has a name here.
    let name = |event: &Event| match event {
        Event::Opened(_) => "opened",
        Event::Recurred { .. } => "recurred",
        Event::Relapsed(_) => "relapsed",
        Event::Proposed { .. } => "proposed",
        Event::Judged { .. } => "judged",
        Event::Approved(_) => "approved",
        Event::Denied(_) => "denied",
        Event::Withdrawn { .. } => "withdrawn",
        Event::CalledOff { .. } => "called_off",
        Event::TimerFired { .. } => "timer_fired",
        Event::Reserved { .. } => "reserved",
        Event::ReservationRefused { .. } => "reservation_refused",
        Event::DispatchRefused { .. } => "dispatch_refused",
        Event::Accepted { .. } => "accepted",
        Event::Finished { .. } => "finished",
        Event::Read { .. } => "read",
    };
    all.into_iter().map(|event| (name(&event), event)).collect()
}

#[test]
fn every_kind_of_journal_event() {
    let events = events();
    assert_eq!(events.len(), 16);
    let texts: BTreeMap<&str, &Event> = events.iter().map(|(name, event)| (*name, event)).collect();
    expect_file!["../../../golden/events.json"].assert_eq(&(serde_json::to_string_pretty(&texts).unwrap() + "\n"));
    for (name, event) in &events {
        let stored = serde_json::to_string(event).unwrap();
        assert_eq!(&serde_json::from_str::<Event>(&stored).unwrap(), event, "{name}");
        assert!(stored.starts_with(&format!(r#"{{"event":"{name}""#)), "{stored}");
    }
}

/// A journal as it was written by the first version must fold to the same story for ever.
#[test]
fn a_stored_journal() {
    let story = whole();
    frozen(&story.journal, expect_file!["../../../golden/journal.json"]);
    let stored: Vec<(Time, Event)> = serde_json::from_str(include_str!("../../../golden/journal.json")).unwrap();
    let folded = Incident::fold(stored.iter().map(|(at, event)| (*at, event))).unwrap();
    assert_eq!(folded.last_artifact, story.artifacts.last().cloned());
}

#[test]
fn an_order_and_what_is_signed() {
    let order = Order {
        key: IdempotencyKey("ff47".into()),
        plan: PlanHash("1d05".into()),
        step: 1,
        direction: Direction::Forward,
        target: Target { kind: SubjectKind::Workload, id: "train".into(), generation: 3 },
        decided_by: Provenance {
            planner: Digest("b1ab".into()),
            gates: vec![Digest("9a7e".into())],
            policy_bundle: Digest("b0dd".into()),
        },
        node: NodeId::new("node-b"),
        lease: 7,
        fence: 42,
        nonce: "8c2f".into(),
        execute_by: START,
        inputs: BTreeMap::from([("manifest".into(), "ab12".into())]),
    };
    frozen(&order, expect_file!["../../../golden/order.json"]);
    expect![[r#"
        aether.order.v2
        {"decided_by":{"gates":["9a7e"],"planner":"b1ab","policy_bundle":"b0dd"},"direction":"forward","execute_by":1795226400000,"fence":42,"inputs":{"manifest":"ab12"},"key":"ff47","lease":7,"node":"node-b","nonce":"8c2f","plan":"1d05","step":1,"target":{"generation":3,"id":"train","kind":"workload"}}"#]].assert_eq(&String::from_utf8(order.signed_bytes()).unwrap());
}

#[test]
fn a_manifest_and_its_digest() {
    let manifest = Manifest {
        schema_version: Manifest::SCHEMA_VERSION,
        snapshot: SnapshotId::new("ff47"),
        workload: WorkloadSpec {
            id: WorkloadId::new("train"),
            name: "Train".into(),
            tier: Tier::BestEffort,
            command: vec!["demo".into(), "--count".into()],
            progress_file: Some("progress.log".into()),
        },
        generation: 7,
        source: NodeId::new("node-a"),
        taken_at: START,
        progress: Some(1234),
        criu_version: "4.2.1".into(),
        kernel_release: "6.18.5".into(),
        architecture: "x86_64".into(),
        files: vec![SnapshotFile {
            name: "pages-1.img".into(),
            size_bytes: 5,
            chunks: vec![ChunkRef { digest: Digest::of(b"chunk"), size_bytes: 5 }],
        }],
        total_bytes: 5,
    };
    frozen(&manifest, expect_file!["../../../golden/manifest.json"]);
    expect!["7cf976877144b899a129225bcbe340a2a35e7fe0cc3bb9c4ef6b322d82bbfaf2"].assert_eq(&manifest.digest().0);
    let mut other = manifest.clone();
    other.files[0].chunks[0].digest = Digest::of(b"flipped");
    assert_ne!(other.digest(), manifest.digest());
}

#[test]
fn an_envelope() {
    let observation = Observation {
        subject: f::node(),
        at: START,
        columns: vec![Column {
            input: 0,
            attributes: BTreeMap::from([("resource".into(), "cpu".into())]),
            start: START.minus_ms(2_000),
            step_ms: 1_000,
            values: vec![0.25, f64::NAN, 1.0],
        }],
        events: vec![ObservedEvent { input: 1, at: START, attributes: BTreeMap::new() }],
    };
    let envelope = Envelope {
        schema_version: 1,
        id: DecisionId::new("decision-1"),
        generation: 1,
        entry: crate::id::EntryId::new("spot-risk-1"),
        stage: crate::slot::Stage::Active,
        assets: None,
        slot: SlotId::new("risk"),
        component: Digest::of(b"spot-risk"),
        component_name: "spot-risk".into(),
        component_version: "0.1.0".into(),
        config: Digest::of(b"{}"),
        wit_version: "0.1.0".into(),
        engine_version: "wasmtime 48".into(),
        limits: Limits::default(),
        at: START,
        question: Question::Score(observation),
        host_calls: vec![HostCall {
            function: "history.series".into(),
            request: serde_json::json!({"input": 0}),
            response: serde_json::json!([0.1, null]),
        }],
        log: vec![LogLine { severity: Severity::Warn, message: "a gap".into() }],
        outcome: Ok(Answer::Assessment(Assessment::Risk(f::risk(0.9)))),
        fuel: 8_988,
        memory_bytes: 1_114_112,
        duration_us: 24,
    };
    frozen(&envelope, expect_file!["../../../golden/envelope.json"]);
    let faulted = Envelope { outcome: Err(f::fault("unreachable")), ..envelope };
    let again: Envelope = serde_json::from_str(&serde_json::to_string(&faulted).unwrap()).unwrap();
    assert_eq!(again, faulted);
}

#[test]
fn a_typed_value_names_its_kind() {
    let values = [
        Value::Text("a".into()),
        Value::Integer(-1),
        Value::Number(1.0),
        Value::Flag(true),
        Value::Duration(5),
        Value::Bytes(7),
    ];
    expect![[r#"[{"text":"a"},{"integer":-1},{"number":1.0},{"flag":true},{"duration":5},{"bytes":7}]"#]]
        .assert_eq(&serde_json::to_string(&values).unwrap());
    assert_eq!(serde_json::from_str::<Vec<Value>>(&serde_json::to_string(&values).unwrap()).unwrap(), values);
}

/// Hashes that were stored stay right: a changed body, order or link is found and named.
#[test]
fn a_chain_that_was_touched_is_found() {
    let artifacts = whole().artifacts;
    let find = |change: &dyn Fn(&mut Vec<Artifact>)| {
        let mut artifacts = artifacts.clone();
        change(&mut artifacts);
        crate::artifact::verify_chain(&artifacts).err().map(|id| id.0)
    };
    assert_eq!(find(&|_| {}), None);
    let second = artifacts[1].id.0.clone();
    assert_eq!(find(&|a| a[1].at = a[1].at.plus_ms(1)), Some(second.clone()));
    assert_eq!(find(&|a| a[1].flags.simulated = true), Some(second.clone()));
    // A change that is hashed again breaks the link of the next.
    let rehashed = find(&|a| {
        a[1].at = a[1].at.plus_ms(1);
        a[1].hash = a[1].computed_hash();
    });
    assert_eq!(rehashed, Some(artifacts[2].id.0.clone()));
    assert_eq!(find(&|a| drop(a.remove(0))), Some(second.clone()));
    assert_eq!(find(&|a| a.swap(1, 2)), Some(artifacts[2].id.0.clone()));
}
