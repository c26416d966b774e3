//! An allocator that lies: the host asks the guest where to put strings and lists, and believes nothing of the answer.

use crate::guest::{ANSWER, assert_serves, component, engine, good, module, prepare, scorer_with};
use aether_core::{
    decision::{FaultKind, Limits, Question},
    observation::{Column, Observation},
    subject::{Subject, SubjectKind},
    time::Time,
};
use aether_runtime::Environment;

/// One that the host has to allocate for.
fn question() -> Question {
    let labels = (0..8).map(|i| (format!("label-{i}"), "value".repeat(20))).collect();
    let subject = Subject { kind: SubjectKind::Node, id: "node-a".into(), generation: 1, labels };
    let column = Column {
        input: 0,
        attributes: Default::default(),
        start: Time(0),
        step_ms: 1_000,
        values: (0..1_000).map(f64::from).collect(),
    };
    Question::Score(Observation { subject, at: Time(1_800_000_000_000), columns: vec![column], events: vec![] })
}

/// A scorer whose `cabi_realloc` is `body` for all but its config, which is two bytes long; its parameters are the old
/// place and size, the alignment, and the size.
fn allocating(body: &str) -> Vec<u8> {
    let text = module("", &format!("i32.const {ANSWER}"), "i32.const 128");
    let begin = text.find("(local $at i32)").expect("the allocator's body");
    let end = text.find(";; description").expect("what follows it");
    component(
        "risk-scorer",
        &format!(
            "{}(if (result i32) (i32.le_u (local.get 3) (i32.const 2)) (then (i32.const 8192)) (else {body})))\n  {}",
            &text[..begin],
            &text[end..]
        ),
    )
}

#[test]
fn each_lie_ends_as_a_fault_of_the_liar() {
    let engine = engine();
    let good = good(&engine);
    for (name, body, kind) in [
        ("out of bounds", "i32.const 0x7fff0000", FaultKind::BadOutput),
        ("at the very end", "i32.const -8", FaultKind::BadOutput),
        ("its end is out of bounds", "(i32.sub (i32.const 1114112) (i32.const 8))", FaultKind::BadOutput),
        ("not aligned", "i32.const 8193", FaultKind::BadOutput),
        ("a trap", "unreachable", FaultKind::Trapped),
        ("an endless loop", "(loop $forever (br $forever)) unreachable", FaultKind::OutOfFuel),
        (
            "a memory bomb",
            "(loop $more (drop (memory.grow $memory (i32.const 16))) (br $more)) unreachable",
            FaultKind::OutOfMemory,
        ),
    ] {
        let prepared = prepare(&engine, &allocating(body), &Limits::default());
        let evaluation = prepared.evaluate(&question(), Environment::default());
        let fault = evaluation.outcome.expect_err(name);
        assert_eq!(fault.kind, kind, "{name}: {}", fault.message);
        if kind == FaultKind::BadOutput {
            assert!(fault.message.contains("`cabi_realloc`"), "{name}: {}", fault.message);
        }
        assert_serves(&good);
    }
}

/// Everything at one place, over the answer even: the guest reads nonsense of its own making, and that is all.
#[test]
fn places_that_overlap_harm_the_liar_alone() {
    let engine = engine();
    let good = good(&engine);
    for place in [0, 8_192, ANSWER] {
        let prepared = prepare(&engine, &allocating(&format!("i32.const {place}")), &Limits::default());
        let first = prepared.evaluate(&question(), Environment::default());
        let second = prepared.evaluate(&question(), Environment::default());
        assert_eq!((&first.outcome, first.fuel), (&second.outcome, second.fuel));
        assert_serves(&good);
    }
}

/// The same for the answers of host calls.
#[test]
fn a_lie_to_a_host_call() {
    let engine = engine();
    let head = r#"(import "aether:plugin/assets@0.1.0" "names" (func $names (param i32)))"#;
    let bytes = scorer_with(head, &format!("(call $names (i32.const 4096)) i32.const {ANSWER}"));
    let prepared = prepare(&engine, &bytes, &Limits::default());
    assert!(prepared.evaluate(&question(), Environment::default()).outcome.is_ok());
}
