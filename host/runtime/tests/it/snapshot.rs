//! What a guest made of its config is there in every evaluation, was made once, and is the same everywhere.

use crate::guest::{ANSWER, SCORE, ask, component, engine, good, module, prepare, question, scorer};
use aether_core::decision::{Answer, Assessment, Limits};
use aether_runtime::{Assets, Environment, Evaluation, Preparation, Prepared};
use serde_json::{Map, Value, json};

/// A scorer whose `configure` is `body`.
fn configuring(head: &str, configure: &str, score: &str) -> Vec<u8> {
    let text = module(head, score, "i32.const 128");
    let (before, after) = text.split_once("(result i32) i32.const 1024)").expect("the module's `configure`");
    component("risk-scorer", &format!("{before}(result i32) {configure} i32.const 1024){after}"))
}

fn score(evaluation: &Evaluation) -> f64 {
    match &evaluation.outcome {
        Ok(Answer::Assessment(Assessment::Risk(risk))) => risk.score,
        other => panic!("{other:?}"),
    }
}

fn config(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

/// Counts how often it was configured in a global, and gives that as the score; burns fuel on the way.
const COUNTING: (&str, &str) = (
    "(global $times (mut i32) (i32.const 0)) (global $left (mut i32) (i32.const 100000))",
    "(global.set $times (i32.add (global.get $times) (i32.const 1)))
     (loop $burn (global.set $left (i32.sub (global.get $left) (i32.const 1))) (br_if $burn (global.get $left)))",
);

fn tenths() -> String {
    format!(
        "(f64.store (i32.const {SCORE}) (f64.div (f64.convert_i32_u (global.get $times)) (f64.const 10)))
         i32.const {ANSWER}"
    )
}

/// The same with a `table.set` that never runs, which is more than the snapshot tool takes.
fn without_snapshot() -> Vec<u8> {
    let head = format!(
        "{} (table $table 1 funcref) (func $never (table.set $table (i32.const 0) (ref.null func)))",
        COUNTING.0
    );
    configuring(&head, COUNTING.1, &tenths())
}

#[test]
fn a_config_is_taken_once() {
    let engine = engine();
    let prepared = prepare(&engine, &configuring(COUNTING.0, COUNTING.1, &tenths()), &Limits::default());
    assert!(matches!(prepared.preparation(), Preparation::Snapshotted { .. }), "{:?}", prepared.preparation());
    assert!(prepared.configured().fuel > 300_000, "{:?}", prepared.configured());
    for _ in 0..3 {
        let evaluation = ask(&prepared);
        assert_eq!(score(&evaluation), 0.1);
        assert!(evaluation.fuel < 1_000, "{}", evaluation.fuel);
    }
}

#[test]
fn where_no_snapshot_can_be_taken_all_but_the_cost_is_the_same() {
    let engine = engine();
    let snapshotted = prepare(&engine, &configuring(COUNTING.0, COUNTING.1, &tenths()), &Limits::default());
    let each_time = prepare(&engine, &without_snapshot(), &Limits::default());
    match each_time.preparation() {
        Preparation::ConfiguredEachTime { reason } => assert!(reason.contains("table.set"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let (one, other) = (ask(&snapshotted), ask(&each_time));
    assert_eq!((one.fuel, score(&one)), (other.fuel, score(&other)));
    assert_eq!(snapshotted.configured().fuel, each_time.configured().fuel);
}

#[test]
fn the_same_config_gives_the_same_bytes() {
    let digest = |prepared: &Prepared| match prepared.preparation() {
        Preparation::Snapshotted { digest, .. } => digest.clone(),
        other => panic!("{other:?}"),
    };
    // Copies its config to where it stays.
    let bytes = configuring(
        "",
        "(memory.copy (i32.const 4096) (local.get 0) (local.get 1))",
        &format!(
            "(f64.store (i32.const {SCORE}) (f64.div (f64.convert_i32_u (i32.load8_u (i32.const 4102))) (f64.const 100))) i32.const {ANSWER}"
        ),
    );
    let with = |value: Value| {
        let component = engine().load(&bytes).expect("loads");
        component.activate(&config(value), &Limits::default(), &Assets::default()).expect("activates")
    };
    let (first, second) = (with(json!({ "abc": 1 })), with(json!({ "abc": 1 })));
    assert_eq!(digest(&first), digest(&second));
    let other = with(json!({ "abc": 2 }));
    assert_ne!(digest(&first), digest(&other));
    // {"abc":1} has its digit at 7; at 6 is the colon.
    assert_eq!(score(&ask(&other)), f64::from(b':') / 100.0);
}

/// A guest that grew its memory and filled it begins with all of it.
#[test]
fn a_grown_memory_is_kept() {
    let configure = "(drop (memory.grow $memory (i32.const 20)))
        (memory.fill (i32.const 1114112) (i32.const 50) (i32.const 1000000))";
    let answer = format!(
        "(f64.store (i32.const {SCORE}) (f64.div (f64.convert_i32_u (i32.load8_u (i32.const 2000000))) (f64.const 100)))
         i32.const {ANSWER}"
    );
    let prepared = prepare(&engine(), &configuring("", configure, &answer), &Limits::default());
    let evaluation = ask(&prepared);
    assert_eq!(score(&evaluation), 0.5);
    assert_eq!(evaluation.memory_bytes, prepared.configured().memory_bytes);
}

#[test]
fn what_the_snapshot_tool_cannot_take_is_configured_each_time() {
    for (head, told) in [
        ("(global $wide (mut v128) (v128.const i64x2 1 2))", "v128"),
        ("(global $function (mut funcref) (ref.null func))", "reference type"),
    ] {
        let prepared = prepare(&engine(), &configuring(head, "", &format!("i32.const {ANSWER}")), &Limits::default());
        match prepared.preparation() {
            Preparation::ConfiguredEachTime { reason } => assert!(reason.contains(told), "{reason}"),
            other => panic!("{other:?}"),
        }
        assert!(ask(&prepared).outcome.is_ok());
    }
}

/// A stream that was opened while the config was taken is good in every evaluation: its number is in the guest's memory,
/// what it stands for is not, and so there is no snapshot.
#[test]
fn a_handle_that_is_held_works_in_every_evaluation() {
    let head = r#"
        (import "wasi:cli/stdout@0.2.12" "get-stdout" (func $stdout (result i32)))
        (import "wasi:io/streams@0.2.12" "[method]output-stream.write" (func $write (param i32 i32 i32 i32)))
        (import "wasi:io/streams@0.2.12" "[resource-drop]output-stream" (func $drop (param i32)))
        (data (memory $memory) (i32.const 600000) "said\n")"#;
    let score = format!(
        "(call $write (i32.load (i32.const 5000)) (i32.const 600000) (i32.const 5) (i32.const 4096)) i32.const {ANSWER}"
    );
    let held = configuring(head, "(i32.store (i32.const 5000) (call $stdout))", &score);
    let prepared = prepare(&engine(), &held, &Limits::default());
    match prepared.preparation() {
        Preparation::ConfiguredEachTime { reason } => assert!(reason.contains("handles"), "{reason}"),
        other => panic!("{other:?}"),
    }
    for _ in 0..3 {
        let evaluation = ask(&prepared);
        assert!(evaluation.outcome.is_ok(), "{:?}", evaluation.outcome);
        assert_eq!(evaluation.log.iter().map(|line| line.message.as_str()).collect::<Vec<_>>(), ["said"]);
    }
    // One that gave it back has a snapshot, and opens another when it is asked.
    let score =
        format!("(call $write (call $stdout) (i32.const 600000) (i32.const 5) (i32.const 4096)) i32.const {ANSWER}");
    let given_back = configuring(head, "(call $drop (call $stdout))", &score);
    let prepared = prepare(&engine(), &given_back, &Limits::default());
    assert!(matches!(prepared.preparation(), Preparation::Snapshotted { .. }), "{:?}", prepared.preparation());
    for _ in 0..3 {
        let evaluation = ask(&prepared);
        assert_eq!(evaluation.log.iter().map(|line| line.message.as_str()).collect::<Vec<_>>(), ["said"]);
    }
}

#[test]
fn a_config_that_the_schema_refuses_never_reaches_the_guest() {
    // Traps if it is asked; its schema is replaced by one that wants a number.
    let schema = r#"{"type":"object","required":["limit"],"properties":{"limit":{"type":"number"}}}"#;
    let escaped = schema.replace('"', "\\\"");
    let head = format!("(data (memory $memory) (i32.const 512) \"{escaped}\")");
    let describe = format!(
        "(i32.store (i32.const 160) (i32.const 512)) (i32.store (i32.const 164) (i32.const {})) i32.const 128",
        schema.len()
    );
    let text = module(&head, &format!("i32.const {ANSWER}"), &describe);
    let component = engine().load(&component("risk-scorer", &text)).expect("loads");
    let error = component
        .activate(&config(json!({ "limit": "high" })), &Limits::default(), &Assets::default())
        .expect_err("refused");
    assert_eq!(error.code(), "activate.config");
    assert!(error.to_string().contains("`/limit` must be of type number, not \"high\""), "{error}");
    let fits = component.activate(&config(json!({ "limit": 1 })), &Limits::default(), &Assets::default());
    fits.expect("activates");
}

#[test]
fn nothing_of_one_evaluation_is_in_the_next() {
    let engine = engine();
    // Traps if the byte that it leaves is there.
    let bytes = scorer(&format!(
        "(if (i32.load8_u (i32.const 70000)) (then unreachable)) (i32.store8 (i32.const 70000) (i32.const 1)) i32.const {ANSWER}"
    ));
    let prepared = prepare(&engine, &bytes, &Limits::default());
    assert!(matches!(prepared.preparation(), Preparation::Snapshotted { .. }), "{:?}", prepared.preparation());
    for _ in 0..20 {
        assert!(prepared.evaluate(&question(), Environment::default()).outcome.is_ok());
    }
    assert!(ask(&good(&engine)).outcome.is_ok());
}
