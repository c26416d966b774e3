//! A small market with one node that is taken away and one that is not, and decisions about it, for the tests of
//! backtest and replay.

#![allow(dead_code, reason = "each test program uses a part of it")]

use aether_core::{
    decision::{Envelope, Limits, Question},
    id::{DecisionId, EntryId, SlotId},
    observation::{Observation, ObservedEvent},
    slot::Stage,
    subject::{Subject, SubjectKind},
    time::Time,
};
use aether_runtime::{Assets, ENGINE_VERSION, Engine, EngineSettings, Environment, Evaluation, Prepared, WIT_VERSION};
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

pub(crate) fn component(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../build/plugins").join(format!("{name}.wasm"));
    assert!(path.exists(), "{} is not built: run `make guests`", path.display());
    path.canonicalize().unwrap()
}

pub(crate) fn aether(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aether"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AETHER_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) const MINUTE: u64 = 60_000;
/// 2026-11-21 02:00 UTC.
pub(crate) const BEGIN: Time = Time(1_795_226_400_000);

/// Three hours of two nodes' prices. `spot-1` gets a rebalance signal after two hours; the price of `spot-2` rises to
/// twice what it was within the second hour, and nothing comes of it.
pub(crate) fn market() -> String {
    let mut csv = String::from("timestamp,subject,metric,unit,value,attribute.zone\n");
    for tick in 0..1_080u64 {
        let at = BEGIN.plus_ms(tick * 10_000).0;
        let wobble = if tick % 2 == 0 { 0.001 } else { 0.0 };
        // As steep as a trend, and as smooth as no jump.
        let rise = f64::from(u32::try_from(tick.clamp(360, 720) - 360).unwrap()) / 360.0;
        writeln!(csv, "{at},node/spot-1,aether.market.price,{{USD}}/h,{},a", 1.0 + wobble).unwrap();
        writeln!(csv, "{at},node/spot-2,aether.market.price,{{USD}}/h,{},a", 1.0 + wobble + rise).unwrap();
    }
    let signal = BEGIN.plus_ms(120 * MINUTE + 500).0;
    writeln!(csv, "{signal},node/spot-1,aether.market.rebalance,,,").unwrap();
    csv
}

pub(crate) fn labels() -> String {
    let (from, to) = (BEGIN.plus_ms(119 * MINUTE).0, BEGIN.plus_ms(125 * MINUTE).0);
    let at = BEGIN.plus_ms(122 * MINUTE).0;
    format!("subject,from,to,at,id,summary\nnode/spot-1,{from},{to},{at},reclaim,taken away\n")
}

pub(crate) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("market.csv"), market()).unwrap();
    std::fs::write(folder.path().join("labels.csv"), labels()).unwrap();
    folder
}

pub(crate) fn prepared(name: &str, config: &Map<String, Value>) -> Prepared {
    let engine = Engine::new(EngineSettings::default()).unwrap();
    let component = engine.load(&std::fs::read(component(name)).unwrap()).unwrap();
    component.activate(config, &Limits::default(), &Assets::default()).unwrap()
}

/// What `prepared` says to a question, as a host records it.
pub(crate) fn envelope(prepared: &Prepared, id: &DecisionId, at: Time, question: Question) -> Envelope {
    let Evaluation { outcome, fuel, memory_bytes, log, host_calls, .. } =
        prepared.evaluate(&question, Environment { at, seed: id.0.clone(), history: None });
    Envelope {
        schema_version: 1,
        id: id.clone(),
        slot: SlotId::new("risk"),
        generation: 1,
        entry: EntryId::new("entry-1"),
        stage: Stage::Active,
        component: prepared.digest().clone(),
        component_name: prepared.description().name.clone(),
        component_version: prepared.description().version.clone(),
        config: prepared.config_digest().clone(),
        assets: None,
        wit_version: WIT_VERSION.into(),
        engine_version: ENGINE_VERSION.into(),
        limits: Limits::default(),
        at,
        question,
        host_calls,
        log,
        outcome,
        fuel,
        memory_bytes,
        duration_us: 0,
    }
}

/// A decision of `spot-risk`, and the component.
pub(crate) fn decided() -> (Envelope, Vec<u8>) {
    let subject = Subject { kind: SubjectKind::Node, id: "spot-1".into(), generation: 1, labels: BTreeMap::new() };
    let events = vec![ObservedEvent { input: 1, at: BEGIN, attributes: BTreeMap::new() }];
    let question = Question::Score(Observation { subject, at: BEGIN, columns: vec![], events });
    let made = envelope(&prepared("spot-risk", &Map::new()), &DecisionId::new("dec-1"), BEGIN, question);
    (made, std::fs::read(component("spot-risk")).unwrap())
}
