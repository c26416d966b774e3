//! Backtest and replay without a server: the real program, real components, files.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands, its helpers included")]

use aether_core::{
    decision::{Envelope, Limits, Question},
    id::{DecisionId, EntryId, SlotId},
    observation::{Observation, ObservedEvent},
    slot::Stage,
    subject::{Subject, SubjectKind},
    time::Time,
};
use aether_host::plugins::replay::File;
use aether_runtime::{Assets, ENGINE_VERSION, Engine, EngineSettings, Environment, Evaluation, WIT_VERSION};
use expect_test::expect;
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

fn component(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../build/plugins").join(format!("{name}.wasm"));
    assert!(path.exists(), "{} is not built: run `make guests`", path.display());
    path.canonicalize().unwrap()
}

fn aether(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aether"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AETHER_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const MINUTE: u64 = 60_000;
/// 2026-11-21 02:00 UTC.
const BEGIN: Time = Time(1_795_226_400_000);

/// Three hours of two nodes' prices. `spot-1` gets a rebalance signal after two hours; the price of `spot-2` rises to
/// twice what it was within the second hour, and nothing comes of it.
fn market() -> String {
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

fn labels() -> String {
    let (from, to) = (BEGIN.plus_ms(119 * MINUTE).0, BEGIN.plus_ms(125 * MINUTE).0);
    let at = BEGIN.plus_ms(122 * MINUTE).0;
    format!("subject,from,to,at,id,summary\nnode/spot-1,{from},{to},{at},reclaim,taken away\n")
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("market.csv"), market()).unwrap();
    std::fs::write(folder.path().join("labels.csv"), labels()).unwrap();
    folder
}

#[test]
fn a_backtest_on_files_tells_caught_false_and_lead_and_twice_the_same() {
    let folder = folder();
    let spot = component("spot-risk");
    let spot = spot.to_str().unwrap();
    let base = ["backtest", "--component", spot, "--history", "market.csv", "--labels", "labels.csv", "--tick", "10s"];
    let run = |more: &[&str]| aether(folder.path(), &[&base[..], more].concat());
    let first = run(&["--json"]);
    assert!(first.status.success(), "{}", text(&first.stderr));
    let report: Value = serde_json::from_slice::<Value>(&first.stdout).unwrap()["report"].take();
    let figures = &report["candidate"]["figures"];
    assert_eq!((figures["events"].as_u64(), figures["caught"].as_u64()), (Some(1), Some(1)), "{figures}");
    assert!(figures["false_alarms"].as_u64() > Some(0), "the price that rose for nothing: {figures}");
    assert_eq!(figures["recall"], 1.0);
    // The signal comes half a second after a tick; the second critical evaluation in a row raises.
    assert_eq!(report["events"][0]["candidate"]["caught_at"], BEGIN.plus_ms(120 * MINUTE + 20_000).0);
    assert_eq!(report["events"][0]["candidate"]["lead_ms"], 100_000);
    assert_eq!(report["candidate"]["cost"]["evaluations"], 2 * 1_080);
    assert_eq!(report["false_alarms"][0]["cause"], "spot.price-trend");
    let again = run(&["--json", "--threads", "5"]);
    assert_eq!(text(&again.stdout), text(&first.stdout), "the same history and component give the same report");

    let people = run(&[]);
    let told = text(&people.stdout);
    assert!(
        told.contains("events caught") && told.contains("1 of 1") && told.contains("caught 100 s before"),
        "{told}"
    );
    let short = run(&["--min-recall", "1", "--max-false-per-day", "0"]);
    assert_eq!(short.status.code(), Some(3));
    let told = text(&short.stdout);
    assert!(
        told.contains("not reached: max-false-per-day asks for at most 0") && !told.contains("min-recall"),
        "{told}"
    );
}

#[test]
fn a_candidate_is_compared_with_what_stands_now() {
    let folder = folder();
    let spot = component("spot-risk");
    let spot = spot.to_str().unwrap();
    // One that does not mind a price that rises.
    std::fs::write(folder.path().join("calm.json"), r#"{ "trend_critical": 5.0 }"#).unwrap();
    let arguments = [
        "backtest",
        "--component",
        spot,
        "--config",
        "calm.json",
        "--against",
        spot,
        "--history",
        "market.csv",
        "--labels",
        "labels.csv",
        "--tick",
        "10s",
        "--json",
    ];
    let output = aether(folder.path(), &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice::<Value>(&output.stdout).unwrap()["report"].take();
    let (candidate, current) = (&report["candidate"]["figures"], &report["current"]["figures"]);
    assert_eq!(candidate["caught"], current["caught"]);
    assert!(candidate["false_alarms"].as_u64() < current["false_alarms"].as_u64(), "{candidate} {current}");
    let changes = &report["changes"];
    assert!(changes["changed"].as_u64() > Some(0) && changes["missed"] == json!([]), "{changes}");
    assert_eq!(changes["rows"][0]["current"], "critical (spot.price-trend)");
    let barred = aether(folder.path(), &[&arguments[..], &["--max-changed", "0", "--max-newly-missed", "0"]].concat());
    assert_eq!(barred.status.code(), Some(3));
    let short: Value = serde_json::from_slice::<Value>(&barred.stdout).unwrap()["short"].take();
    assert_eq!(short.as_array().unwrap().len(), 1, "{short}");
}

#[test]
fn what_cannot_be_tested_is_one_sentence_and_a_code() {
    let folder = folder();
    let spot = component("spot-risk");
    let spot = spot.to_str().unwrap();
    std::fs::write(folder.path().join("cpu.csv"), "timestamp,value\n2026-11-21 02:00:00,1\n").unwrap();
    std::fs::write(folder.path().join("broken.csv"), "timestamp,value\nnoon,1\n").unwrap();
    for (arguments, code, part) in [
        (&["backtest"][..], 1, "say what to test"),
        (&["backtest", "--component", spot], 2, "--history"),
        (&["backtest", "--component", "labels.csv", "--history", "cpu.csv"], 1, "not a WebAssembly file"),
        (&["backtest", "--component", spot, "--history", "none.csv"], 1, "none.csv cannot be read"),
        (
            &["backtest", "--component", spot, "--history", "broken.csv"],
            1,
            "line 2: `noon` is no time; write 2026-11-21T02:00:00Z, 2026-11-21 02:00:00 or UTC milliseconds [AE0070]",
        ),
        (&["backtest", "--component", spot, "--history", "cpu.csv"], 1, "it holds aether.imported.value [1] [AE0073]"),
        (
            &["backtest", "--component", spot, "--history", "market.csv", "--tick", "1ms"],
            1,
            "over the limit of 5000000",
        ),
        (&["backtest", "--component", spot, "--history", "market.csv", "--tick", "1"], 2, "is no duration"),
        (&["replay"], 2, "required"),
        (&["replay", "--file", "labels.csv"], 1, "[AE0076]"),
    ] {
        let output = aether(folder.path(), arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}

/// A decision of `spot-risk` as a host records it.
fn decided() -> (Envelope, Vec<u8>) {
    let bytes = std::fs::read(component("spot-risk")).unwrap();
    let engine = Engine::new(EngineSettings::default()).unwrap();
    let prepared = engine.load(&bytes).unwrap().activate(&Map::new(), &Limits::default(), &Assets::default()).unwrap();
    let subject = Subject { kind: SubjectKind::Node, id: "spot-1".into(), generation: 1, labels: BTreeMap::new() };
    let events = vec![ObservedEvent { input: 1, at: BEGIN, attributes: BTreeMap::new() }];
    let question = Question::Score(Observation { subject, at: BEGIN, columns: vec![], events });
    let Evaluation { outcome, fuel, memory_bytes, log, host_calls, .. } =
        prepared.evaluate(&question, Environment { at: BEGIN, seed: "dec-1".into(), history: None });
    let envelope = Envelope {
        schema_version: 1,
        id: DecisionId::new("dec-1"),
        slot: SlotId::new("risk"),
        generation: 1,
        entry: EntryId::new("spot-risk"),
        stage: Stage::Active,
        component: prepared.digest().clone(),
        component_name: "spot-risk".into(),
        component_version: prepared.description().version.clone(),
        config: prepared.config_digest().clone(),
        assets: None,
        wit_version: WIT_VERSION.into(),
        engine_version: ENGINE_VERSION.into(),
        limits: Limits::default(),
        at: BEGIN,
        question,
        host_calls,
        log,
        outcome,
        fuel,
        memory_bytes,
        duration_us: 0,
    };
    (envelope, bytes)
}

#[test]
fn an_exported_decision_replays_without_a_host_and_every_tampering_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (envelope, bytes) = decided();
    let file = File::new(envelope, &bytes, Map::new(), &Assets::default());
    let whole = serde_json::to_value(&file).unwrap();
    let replay = |file: &Value| {
        std::fs::write(folder.path().join("decision.json"), file.to_string()).unwrap();
        aether(folder.path(), &["replay", "--file", "decision.json"])
    };
    let output = replay(&whole);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).starts_with("identical: "), "{}", text(&output.stdout));

    let tampered = |change: fn(&mut Value)| {
        let mut file = whole.clone();
        change(&mut file);
        replay(&file)
    };
    let other = tampered(|file| file["envelope"]["outcome"]["Ok"]["assessment"]["risk"]["level"] = json!("low"));
    assert_eq!(other.status.code(), Some(3), "{}", text(&other.stderr));
    let told = text(&other.stdout);
    assert!(told.starts_with("output differs: it came out otherwise in outcome\n"), "{told}");
    assert!(told.contains("/outcome/Ok/assessment/risk/level") && told.contains("\"critical\""), "{told}");
    let cheaper = tampered(|file| file["envelope"]["fuel"] = json!(1));
    assert_eq!(cheaper.status.code(), Some(3));
    assert!(text(&cheaper.stdout).contains("/fuel"), "{}", text(&cheaper.stdout));
    let asked = tampered(|file| file["envelope"]["question"]["score"]["events"] = json!([]));
    assert_eq!(asked.status.code(), Some(3), "{}", text(&asked.stderr));

    for (change, code, part) in [
        (
            (|file| file["envelope"]["engine_version"] = json!("wasmtime 1.0.0")) as fn(&mut Value),
            1,
            "engine mismatch: it was recorded under wasmtime 1.0.0",
        ),
        (
            |file| file["config"]["trend_critical"] = json!(0.5),
            1,
            "the file's config is not the one that the decision was made with",
        ),
        (|file| file["component"] = json!("AGFzbQ=="), 1, "the file's component is not the one"),
        (|file| file["assets"]["model.json"] = json!("e30="), 1, "the file's set of assets is not the one"),
        (|file| file["format"] = json!("aether.decision/9"), 1, "its format is `aether.decision/9`"),
        (|file| file["component"] = json!("*"), 1, "the component is not base64"),
        (
            |file| file["envelope"]["outcome"] = json!({ "Err": { "kind": "timed_out", "message": "took long" } }),
            1,
            "host's verdict: the host itself ended it (took long)",
        ),
    ] {
        let output = tampered(change);
        let told = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert!(told.contains(part), "{told}");
    }
}

/// A detector of one's own stands in no bundle: two columns and windows are enough to judge it.
#[test]
fn telemetry_of_two_columns_takes_nab_windows() {
    let folder = tempfile::tempdir().unwrap();
    let mut csv = String::from("timestamp,value\n");
    for tick in 0..720u64 {
        let value = if (500..560).contains(&tick) { 3.0 } else { 1.0 + f64::from(u8::from(tick % 2 == 0)) / 1_000.0 };
        writeln!(csv, "{},{value}", BEGIN.plus_ms(tick * 10_000).0).unwrap();
    }
    std::fs::write(folder.path().join("price_1.csv"), csv).unwrap();
    let windows = json!({ "real/price_1.csv": [["2026-11-21 03:20:00", "2026-11-21 03:40:00"]], "real/other.csv": [] });
    std::fs::write(folder.path().join("windows.json"), windows.to_string()).unwrap();
    let spot = component("spot-risk");
    let output = aether(
        folder.path(),
        &[
            "backtest",
            "--component",
            spot.to_str().unwrap(),
            "--history",
            "price_1.csv",
            "--labels",
            "windows.json",
            "--metric",
            "aether.market.price",
            "--unit",
            "{USD}/h",
            "--tick",
            "10s",
        ],
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let told: Vec<String> = text(&output.stdout)
        .lines()
        .filter(|line| ["events caught", "recall", "price_1#1"].iter().any(|word| line.starts_with(word)))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    expect![[r#"
        events caught 1 of 1
        recall 100.0 %
        price_1#1 node/price_1 2026-11-21 03:20:00Z + 20 min caught 6 min before"#]]
    .assert_eq(&told.join("\n"));
}
