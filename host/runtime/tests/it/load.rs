//! What is refused before it can run, each with its own error.

use crate::guest::{ANSWER, component, engine, module, scorer, scorer_with};
use aether_core::{
    decision::{FaultKind, Limits, Role},
    slot::Grant,
};
use aether_runtime::{ActivateError, Assets, Engine, EngineSettings, Error, LoadError};
use proptest::prelude::{ProptestConfig, any, proptest};
use serde_json::Map;
use std::collections::BTreeSet;

fn refusal(bytes: &[u8]) -> LoadError {
    match engine().load(bytes) {
        Ok(component) => panic!("{component:?} was taken"),
        Err(error) => error,
    }
}

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the test's WAT parses")
}

/// A component with these imports, exporting `exports` as empty instances.
fn shell(imports: &str, exports: &[&str]) -> Vec<u8> {
    let export = |(at, name)| format!("(instance $i{at}) (export \"{name}\" (instance $i{at}))");
    let exports: String = exports.iter().enumerate().map(export).collect();
    wat(&format!("(component {imports} {exports})"))
}

const SCORER: [&str; 2] = ["aether:plugin/plugin@0.1.0", "aether:plugin/scoring@0.1.0"];

#[test]
fn bytes_that_are_no_webassembly() {
    for (bytes, found) in
        [(&b""[..], "nothing"), (b"(component)", "`(com`"), (b"\x7fELF\x02", "`\\x7fELF`"), (b"\0as", "`\\x00as`")]
    {
        let error = refusal(bytes);
        assert!(matches!(&error, LoadError::NotWasm { found: seen } if seen == found), "{error}");
    }
}

#[test]
fn a_core_module() {
    assert!(matches!(refusal(&wat("(module)")), LoadError::CoreModule));
}

#[test]
fn a_component_cut_short() {
    let good = scorer(&format!("i32.const {ANSWER}"));
    let error = refusal(&good[..good.len() / 2]);
    assert!(matches!(error, LoadError::Malformed(_)), "{error}");
}

#[test]
fn one_that_is_too_large() {
    let engine = Engine::new(EngineSettings { component_bytes: 100, ..EngineSettings::default() }).expect("an engine");
    match engine.load(&[0; 101]) {
        Err(LoadError::TooLarge { given: 101, maximum: 100 }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_wrong_world() {
    let error = refusal(&shell("", &["wasi:cli/run@0.2.0"]));
    assert!(matches!(&error, LoadError::UnknownWorld { .. }), "{error}");
    assert!(error.to_string().ends_with("it exports: wasi:cli/run@0.2.0"), "{error}");
    let error = refusal(&shell("", &["aether:plugin/scoring@0.1.0"]));
    assert!(matches!(&error, LoadError::NoPlugin { .. }), "{error}");
    let error = refusal(&shell("", &[SCORER[0], SCORER[1], "aether:plugin/gating@0.1.0"]));
    assert!(matches!(&error, LoadError::SeveralWorlds { .. }), "{error}");
}

#[test]
fn another_version_of_the_contract() {
    let error = refusal(&shell("", &["aether:plugin/plugin@0.2.0", "aether:plugin/scoring@0.2.0"]));
    assert!(matches!(&error, LoadError::Version { found } if found == "0.2.0"), "{error}");
}

#[test]
fn exports_of_other_types() {
    let error = refusal(&shell("", &SCORER));
    assert!(matches!(&error, LoadError::Types { world: "risk-scorer", .. }), "{error}");
}

#[test]
fn imports_that_are_not_granted_are_named() {
    let error = refusal(&shell(r#"(import "wasi:http/outgoing-handler@0.2.0" (instance))"#, &SCORER));
    assert!(
        error.to_string().contains("imports wasi:http/outgoing-handler@0.2.0, which the world `risk-scorer`"),
        "{error}"
    );
    // What a scorer may import, a gate may not.
    let gate = ["aether:plugin/plugin@0.1.0", "aether:plugin/gating@0.1.0"];
    let error = refusal(&shell(r#"(import "aether:plugin/history@0.1.0" (instance))"#, &gate));
    match error {
        LoadError::Imports { world, refused, .. } => {
            assert_eq!((world, refused), ("policy-gate", vec!["aether:plugin/history@0.1.0".to_owned()]));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn an_entry_that_was_granted_less() {
    let log = r#"(import "aether:plugin/log@0.1.0" "write" (func $log (param i32 i32 i32)))"#;
    let component = engine().load(&scorer_with(log, &format!("i32.const {ANSWER}"))).expect("loads");
    assert_eq!(*component.imports(), BTreeSet::from([Grant::Log]));
    component.check_grants(&Grant::of(Role::RiskScorer)).expect("granted");
    let error = component.check_grants(&BTreeSet::from([Grant::History])).expect_err("not granted");
    assert!(matches!(&error, ActivateError::Grants { missing, .. } if *missing == [Grant::Log]), "{error}");
}

#[test]
fn one_that_cannot_describe_itself() {
    let text = module("", "unreachable", "(loop $forever (br $forever)) unreachable");
    match refusal(&component("risk-scorer", &text)) {
        LoadError::Describe(fault) => assert_eq!(fault.kind, FaultKind::OutOfFuel),
        other => panic!("{other}"),
    }
    // The name is "st-guest1." from the middle of the data on: not a name.
    let text = module("", "unreachable", "(i32.store (i32.const 128) (i32.const 9)) i32.const 128");
    match refusal(&component("risk-scorer", &text)) {
        LoadError::Description(message) => assert!(message.contains("its name `"), "{message}"),
        other => panic!("{other}"),
    }
}

#[test]
fn one_that_begins_with_more_memory_than_any_limit_allows() {
    let text = module("(memory $second 5000)", "unreachable", "i32.const 128");
    let error = refusal(&component("risk-scorer", &text));
    assert!(matches!(&error, LoadError::Compile(_)), "{error}");
}

#[test]
fn one_that_begins_with_more_memory_than_its_limit() {
    let component = engine().load(&scorer(&format!("i32.const {ANSWER}"))).expect("loads");
    let limits = Limits { memory_bytes: 1 << 20, ..Limits::default() };
    match component.activate(&Map::new(), &limits, &Assets::default()) {
        Err(ActivateError::Fault { fault, .. }) => assert_eq!(fault.kind, FaultKind::OutOfMemory, "{}", fault.message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn limits_beyond_the_maximum() {
    let component = engine().load(&scorer(&format!("i32.const {ANSWER}"))).expect("loads");
    for (limits, field) in [
        (Limits { fuel: Limits::MAXIMUM.fuel + 1, ..Limits::default() }, "fuel"),
        (Limits { deadline_ms: 0, ..Limits::default() }, "deadline_ms"),
        (Limits { memory_bytes: u64::MAX, ..Limits::default() }, "memory_bytes"),
    ] {
        match component.activate(&Map::new(), &limits, &Assets::default()) {
            Err(ActivateError::Limit { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn settings_beyond_the_maximum() {
    let error = Engine::new(EngineSettings { concurrency: 0, ..EngineSettings::default() }).expect_err("zero places");
    assert!(matches!(error, Error::Setting { field: "concurrency", .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is broken in a component, the answer is an error or a component, never a panic.
    #[test]
    fn broken_bytes_never_break_the_host(at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = scorer(&format!("i32.const {ANSWER}"));
        let index = at.index(bytes.len());
        bytes[index] = byte;
        match engine().load(&bytes) {
            Ok(_) => {}
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}
