//! One place in the pool, two tenants: what the first left there, the second cannot find.

use crate::guest::{ANSWER, SCORE, ask, component, module, prepare, scorer};
use aether_core::decision::{Answer, Assessment, FaultKind, Limits};
use aether_runtime::{Assets, Engine, EngineSettings, Preparation, Prepared};
use serde_json::Map;

/// What is not to be found, as a number of eight bytes.
const SECRET: u64 = 0x5ec2_e75e_c2e7_5ec3;

/// Writes the secret to all of its memory but where its answer is, and to what it can grow.
fn writer(grow: u32) -> String {
    format!(
        "(local $at i32) (drop (memory.grow $memory (i32.const {grow})))
        (local.set $at (i32.const 16384))
        (loop $more
          (i64.store (local.get $at) (i64.const {SECRET}))
          (local.set $at (i32.add (local.get $at) (i32.const 8)))
          (br_if $more (i32.lt_u (local.get $at) (i32.mul (memory.size $memory) (i32.const 65536)))))
        i32.const {ANSWER}"
    )
}

/// Looks for the secret in all of its memory, and in what it can grow. A score of 1 means that it was there.
fn scanner(grow: u32) -> String {
    format!(
        "(local $at i32) (drop (memory.grow $memory (i32.const {grow})))
        (loop $more
          (if (i64.eq (i64.load (local.get $at)) (i64.const {SECRET}))
            (then (f64.store (i32.const {SCORE}) (f64.const 1))))
          (local.set $at (i32.add (local.get $at) (i32.const 8)))
          (br_if $more (i32.lt_u (local.get $at) (i32.mul (memory.size $memory) (i32.const 65536)))))
        i32.const {ANSWER}"
    )
}

/// A guest that scans, and is configured anew in each evaluation.
fn scanner_without_snapshot(grow: u32) -> Vec<u8> {
    let head = "(table $table 1 funcref) (func $never (table.set $table (i32.const 0) (ref.null func)))";
    component("risk-scorer", &module(head, &scanner(grow), "i32.const 128"))
}

fn found(prepared: &Prepared) -> bool {
    match ask(prepared).outcome {
        Ok(Answer::Assessment(Assessment::Risk(risk))) => risk.score == 1.0,
        other => panic!("{other:?}"),
    }
}

/// Each evaluation takes the place, and so the memory, of the one before.
fn engine() -> Engine {
    Engine::new(EngineSettings { concurrency: 1, ..EngineSettings::default() }).expect("an engine")
}

fn limits() -> Limits {
    Limits { fuel: Limits::MAXIMUM.fuel, deadline_ms: 5_000, ..Limits::default() }
}

#[test]
fn a_secret_of_one_is_not_found_by_another() {
    let engine = engine();
    // Below what is kept resident and zeroed by hand, above it, and with nothing grown at all.
    for grow in [0, 3, 100] {
        let writer = prepare(&engine, &scorer(&writer(grow)), &limits());
        let snapshotted = prepare(&engine, &scorer(&scanner(grow)), &limits());
        let each_time = prepare(&engine, &scanner_without_snapshot(grow), &limits());
        assert!(matches!(snapshotted.preparation(), Preparation::Snapshotted { .. }));
        assert!(matches!(each_time.preparation(), Preparation::ConfiguredEachTime { .. }));
        for scanner in [&snapshotted, &each_time] {
            for _ in 0..8 {
                assert!(ask(&writer).outcome.is_ok());
                assert!(!found(scanner), "grown by {grow} pages, {:?}", scanner.preparation());
            }
        }
    }
}

/// The scan finds what is there: without this the test above could never fail.
#[test]
fn a_scanner_finds_its_own() {
    let text = format!("(i64.store (i32.const 70000) (i64.const {SECRET})) {}", scanner(1));
    // A local must come first.
    let text = text.replacen("(local $at i32)", "", 1);
    let prepared = prepare(&engine(), &scorer(&format!("(local $at i32) {text}")), &limits());
    assert!(found(&prepared));
}

/// A fault in the middle leaves nothing either.
#[test]
fn a_secret_of_one_that_failed_is_not_found() {
    let engine = engine();
    let writer = prepare(&engine, &scorer(&format!("{} drop unreachable", writer(10))), &limits());
    let scanner = prepare(&engine, &scorer(&scanner(10)), &limits());
    for _ in 0..8 {
        assert_eq!(ask(&writer).outcome.expect_err("it traps").kind, FaultKind::Trapped);
        assert!(!found(&scanner));
    }
}

/// What one config left in a snapshot is not in that of another config.
#[test]
fn a_secret_in_a_config_stays_with_it() {
    let text = module("", &scanner(2), "i32.const 128").replace(
        "(result i32) i32.const 1024)",
        &format!(
            "(result i32)
            (if (i32.gt_u (local.get 1) (i32.const 2)) (then (i64.store (i32.const 80000) (i64.const {SECRET}))))
            i32.const 1024)"
        ),
    );
    let engine = engine();
    let component = engine.load(&component("risk-scorer", &text)).expect("loads");
    let with = |config: serde_json::Value| {
        let config: Map<_, _> = config.as_object().expect("an object").clone();
        component.activate(&config, &limits(), &Assets::default()).expect("activates")
    };
    let (empty, full) = (with(serde_json::json!({})), with(serde_json::json!({ "secret": true })));
    for _ in 0..8 {
        assert!(found(&full), "its own is there");
        assert!(!found(&empty));
    }
}
