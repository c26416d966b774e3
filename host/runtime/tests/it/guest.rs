//! Components written in WAT, so that a test can do exactly the wrong thing. A core module in the canonical ABI's shape
//! is wrapped with the real contract of `wit/`.

use aether_core::{
    decision::{Answer, Assessment, Envelope, Limits, Question},
    id::{DecisionId, EntryId, SlotId},
    observation::Observation,
    slot::Stage,
    subject::{Subject, SubjectKind},
    time::Time,
};
use aether_runtime::{Assets, ENGINE_VERSION, Engine, EngineSettings, Environment, Evaluation, Prepared, WIT_VERSION};
use serde_json::Map;
use std::path::{Path, PathBuf};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

/// The answer's area: `ok(risk(low, 0, 0, none, "x", "", []))` as the canonical ABI lays it out.
pub(crate) const ANSWER: u32 = 2_048;
/// Offsets within the answer's area, all of which are zero at first but for `CAUSE`.
pub(crate) const TAG: u32 = ANSWER;
pub(crate) const ASSESSMENT: u32 = ANSWER + 8;
pub(crate) const LEVEL: u32 = ANSWER + 16;
pub(crate) const SCORE: u32 = ANSWER + 24;
pub(crate) const REASON: u32 = ANSWER + 64;
pub(crate) const CONTRIBUTIONS: u32 = ANSWER + 72;

pub(crate) fn repository() -> PathBuf {
    // Tests of other crates use these guests, too.
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"));
    crates
        .ancestors()
        .find(|folder| folder.join("wit/aether.wit").is_file())
        .expect("the repository holds the crate")
        .into()
}

pub(crate) fn resolve() -> (Resolve, wit_parser::PackageId) {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(repository().join("wit")).expect("wit/ parses");
    (resolve, package)
}

/// Wraps a core module as a component of `world`, which may import WASI, too.
pub(crate) fn component(world: &str, module: &str) -> Vec<u8> {
    let (mut resolve, _) = resolve();
    resolve.push_dir(repository().join("host/runtime/wit")).expect("host/runtime/wit parses");
    let both =
        format!("package test:guest; world guest {{ include aether:plugin/{world}@0.1.0; include aether:wasi/wasi; }}");
    let package = resolve.push_str("guest.wit", &both).expect("the world exists");
    let world = resolve.select_world(&[package], Some("guest")).expect("it was just made");
    let mut bytes = wat::parse_str(module).expect("the test's WAT parses");
    wit_component::embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8).expect("metadata");
    let mut encoder = ComponentEncoder::default().validate(true).module(&bytes).expect("the module fits the world");
    encoder.encode().expect("the module fits the world")
}

/// A scorer whose `score` is `body`, with `head` (imports first) before it in the module. `$answer` is the address of
/// a good answer.
pub(crate) fn scorer_with(head: &str, body: &str) -> Vec<u8> {
    component("risk-scorer", &module(head, body, "i32.const 128"))
}

pub(crate) fn scorer(body: &str) -> Vec<u8> {
    scorer_with("", body)
}

/// `describe` leaves what `describe` says on the stack.
pub(crate) fn module(head: &str, body: &str, describe: &str) -> String {
    format!(
        r#"(module
  {head}
  (memory $memory (export "memory") 17)
  (global $heap (mut i32) (i32.const 8192))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.set $heap (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  ;; description: name, version, summary, inputs, config-schema
  (data (memory $memory) (i32.const 0) "test-guest1.0.0{{}}")
  (data (memory $memory) (i32.const 128) "\00\00\00\00\0a\00\00\00\0a\00\00\00\05\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\0f\00\00\00\02\00\00\00")
  (func (export "aether:plugin/plugin@0.1.0#describe") (result i32) {describe})
  ;; ok
  (func (export "aether:plugin/plugin@0.1.0#configure") (param i32 i32) (result i32) i32.const 1024)
  ;; the cause is "t", the first letter of the name
  (data (memory $memory) (i32.const {cause}) "\00\00\00\00\01\00\00\00")
  (func $score (export "aether:plugin/scoring@0.1.0#score")
    (param i32 i32 i32 i64 i32 i32 i64 i32 i32 i32 i32) (result i32)
    {body}))"#,
        cause = ANSWER + 56
    )
}

pub(crate) fn engine() -> Engine {
    Engine::new(EngineSettings::default()).expect("an engine")
}

pub(crate) fn prepare(engine: &Engine, bytes: &[u8], limits: &Limits) -> Prepared {
    let component = engine.load(bytes).unwrap_or_else(|error| panic!("{}: {error:?}", error.code()));
    component.activate(&Map::new(), limits, &Assets::default()).expect("activates")
}

pub(crate) fn question() -> Question {
    let subject = Subject { kind: SubjectKind::Node, id: "node-a".into(), generation: 1, labels: Default::default() };
    Question::Score(Observation { subject, at: Time(1_800_000_000_000), columns: vec![], events: vec![] })
}

pub(crate) fn ask(prepared: &Prepared) -> Evaluation {
    prepared.evaluate(&question(), Environment::default())
}

/// A well-behaved guest, to see that the engine still serves.
pub(crate) fn good(engine: &Engine) -> Prepared {
    prepare(engine, &scorer(&format!("i32.const {ANSWER}")), &Limits::default())
}

pub(crate) fn assert_serves(prepared: &Prepared) {
    match ask(prepared).outcome {
        Ok(Answer::Assessment(Assessment::Risk(risk))) => assert_eq!(risk.cause, "t"),
        other => panic!("a good guest got {other:?}"),
    }
}

/// What the host would keep of one evaluation.
pub(crate) fn recorded(prepared: &Prepared, environment: Environment) -> Envelope {
    let Environment { at, seed, .. } = environment.clone();
    let evaluation = prepared.evaluate(&question(), environment);
    let envelope = Envelope {
        schema_version: 1,
        id: DecisionId(seed),
        generation: 1,
        entry: EntryId::new("entry"),
        stage: Stage::Active,
        assets: prepared.assets_digest().cloned(),
        slot: SlotId::new("risk"),
        component: prepared.digest().clone(),
        component_name: prepared.description().name.clone(),
        component_version: prepared.description().version.clone(),
        config: prepared.config_digest().clone(),
        wit_version: WIT_VERSION.into(),
        engine_version: ENGINE_VERSION.into(),
        limits: prepared.limits().clone(),
        at,
        question: question(),
        host_calls: evaluation.host_calls,
        log: evaluation.log,
        outcome: evaluation.outcome,
        fuel: evaluation.fuel,
        memory_bytes: evaluation.memory_bytes,
        duration_us: 0,
    };
    // As the store keeps it.
    serde_json::from_str(&serde_json::to_string(&envelope).expect("to JSON")).expect("from JSON")
}
