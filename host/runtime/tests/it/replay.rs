//! A decision runs again bit for bit, also after its record has been through JSON; and every difference has its name.

use crate::guest::{ANSWER, SCORE, engine, prepare, recorded, scorer, scorer_with};
use aether_core::{
    decision::{Envelope, FaultKind, Limits},
    id::Digest,
    observation::{Column, MetricInput},
    subject::Subject,
    time::Time,
};
use aether_runtime::{Environment, History, Replay, replay};
use std::sync::Arc;

const HISTORY: &str = r#"(import "aether:plugin/history@0.1.0" "query"
    (func $query (param i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i64 i64 i32 i32)))"#;

/// Looks back at a metric whose name is `length` bytes long, and answers with the first value as the score.
fn looking_back(length: u32) -> Vec<u8> {
    // result<list<column>>: tag at 4096, list at 4100; a column: input, attributes, start, step, values at +32.
    scorer_with(
        HISTORY,
        &format!(
            "(call $query (i32.const 0) (i32.const 0) (i32.const 1) (i64.const 1) (i32.const 0) (i32.const 0)
                (i32.const 0) (i32.const {length}) (i32.const 0) (i32.const 1) (i64.const 1000) (i64.const 1000)
                (i32.const 0) (i32.const 4096))
            (f64.store (i32.const {SCORE})
                (f64.load (i32.load (i32.add (i32.load (i32.const 4100)) (i32.const 32)))))
            i32.const {ANSWER}"
        ),
    )
}

struct One(f64);

impl History for One {
    fn query(&self, _: &Subject, _: &MetricInput) -> Result<Vec<Column>, String> {
        let values = vec![self.0, f64::NAN, f64::INFINITY];
        Ok(vec![Column { input: 0, attributes: Default::default(), start: Time(0), step_ms: 1_000, values }])
    }
}

/// A number that only exact parsing brings back.
const AWKWARD: f64 = 0.099_999_999_999_999_99_f64 + 1e-17;

#[test]
fn an_unchanged_decision_is_identical() {
    let engine = engine();
    let prepared = prepare(&engine, &looking_back(4), &Limits::default());
    let history: Arc<dyn History> = Arc::new(One(AWKWARD));
    let envelope = recorded(&prepared, Environment { history: Some(history), ..Environment::default() });
    assert_eq!(envelope.host_calls.len(), 1);
    assert!(envelope.outcome.is_ok(), "{:?}", envelope.outcome);
    // The history is not asked again: the record has its answer.
    assert_eq!(replay(&prepared, &envelope), Replay::Identical);
}

#[test]
fn a_refused_look_back_is_recorded_like_any_other() {
    let engine = engine();
    // Ignores the answer, which is an error here.
    let bytes = scorer_with(
        HISTORY,
        &format!(
            "(call $query (i32.const 0) (i32.const 0) (i32.const 1) (i64.const 1) (i32.const 0) (i32.const 0)
                (i32.const 0) (i32.const 4) (i32.const 0) (i32.const 1) (i64.const 1000) (i64.const 1000)
                (i32.const 0) (i32.const 4096)) i32.const {ANSWER}"
        ),
    );
    let prepared = prepare(&engine, &bytes, &Limits::default());
    let envelope = recorded(&prepared, Environment::default());
    assert_eq!(envelope.host_calls[0].response["error"], "look-backs are not granted to this slot");
    assert_eq!(replay(&prepared, &envelope), Replay::Identical);
}

#[test]
fn another_answer_is_told_by_field() {
    let engine = engine();
    let prepared = prepare(&engine, &scorer(&format!("i32.const {ANSWER}")), &Limits::default());
    let mut envelope = recorded(&prepared, Environment::default());
    envelope.fuel += 1;
    match replay(&prepared, &envelope) {
        Replay::OutputDiffers { fields, .. } => assert_eq!(fields, ["fuel"]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_host_call_is_told() {
    let engine = engine();
    let history: Arc<dyn History> = Arc::new(One(0.5));
    let four = prepare(&engine, &looking_back(4), &Limits::default());
    let envelope = recorded(&four, Environment { history: Some(history), ..Environment::default() });
    let five = prepare(&engine, &looking_back(5), &Limits::default());
    let as_if_five = Envelope { component: five.digest().clone(), ..envelope.clone() };
    match replay(&five, &as_if_five) {
        Replay::HostCallDiverges { index: 0, recorded: Some(call), request, .. } => {
            assert_eq!(
                (&call.request["metric"]["name"], &request["metric"]["name"]),
                (&"test".into(), &"test-".into())
            );
        }
        other => panic!("{other:?}"),
    }
    let mut none = envelope.clone();
    none.host_calls.clear();
    assert!(matches!(replay(&four, &none), Replay::HostCallDiverges { index: 0, recorded: None, .. }));
    let mut more = envelope;
    more.host_calls.push(more.host_calls[0].clone());
    assert!(matches!(replay(&four, &more), Replay::HostCallDiverges { index: 1, recorded: Some(_), .. }));
}

#[test]
fn what_cannot_be_compared_is_not_run() {
    let engine = engine();
    let prepared = prepare(&engine, &scorer(&format!("i32.const {ANSWER}")), &Limits::default());
    let envelope = recorded(&prepared, Environment::default());
    let older = Envelope { engine_version: "wasmtime 47.0.0".into(), ..envelope.clone() };
    assert!(matches!(replay(&prepared, &older), Replay::EngineMismatch { .. }));
    let other = Envelope { config: Digest::of(b"other"), ..envelope };
    assert!(matches!(replay(&prepared, &other), Replay::ComponentMismatch { what: "config", .. }));
}

#[test]
fn the_hosts_own_verdicts_are_not_derived_again() {
    let engine = engine();
    let limits = Limits { fuel: Limits::MAXIMUM.fuel, deadline_ms: 20, ..Limits::default() };
    let prepared = prepare(&engine, &scorer("(loop $forever (br $forever)) unreachable"), &limits);
    let envelope = recorded(&prepared, Environment::default());
    match replay(&prepared, &envelope) {
        Replay::HostVerdict(fault) => assert_eq!(fault.kind, FaultKind::TimedOut),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_guests_own_fault_is_derived_again() {
    let engine = engine();
    let prepared = prepare(&engine, &scorer("unreachable"), &Limits::default());
    let envelope = recorded(&prepared, Environment::default());
    assert_eq!(envelope.outcome.as_ref().expect_err("it traps").kind, FaultKind::Trapped);
    assert_eq!(replay(&prepared, &envelope), Replay::Identical);
}
