//! Backtest and replay without a server: the real program, real components, files.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands, its helpers included")]

mod market;

use aether_core::{
    backtest::{Measure, Report, Tolerance},
    decision::{Envelope, Question},
    finding::Hysteresis,
    id::{DecisionId, NodeId, SlotId},
    telemetry::{Batch, DiscreteEvent, Sample, SeriesKey, SeriesSamples},
    time::Time,
};
use aether_host::plugins::{
    backtest::{Bounds, Error, History, Imported, Mapping, Progress, Sides, Test, labels, run},
    replay::File,
};
use aether_recorder::{Recorder, local_store};
use aether_runtime::{Assets, Prepared};
use expect_test::expect;
use market::{BEGIN, MINUTE, aether, component, decided, folder, prepared, text};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

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

fn test(prepared: Prepared, history: History) -> Test {
    let imported = Imported::read([], &Mapping::default()).unwrap();
    Test {
        slot: Some(SlotId::new("risk")),
        sides: Sides { candidate: vec![prepared.clone()], current: Some(vec![prepared]) },
        hysteresis: Hysteresis::default(),
        history,
        known: BTreeMap::new(),
        from: None,
        to: None,
        tick_ms: Some(10_000),
        live_tick_ms: 1_000,
        measure: Measure::Labels,
        events: labels("labels.csv", market::labels().as_bytes(), Some(&imported)).unwrap(),
        tolerance: Tolerance::default(),
        decisions: vec![],
    }
}

fn finished(test: Test) -> Report {
    run(test, &Bounds::default(), &Progress::default()).unwrap()
}

/// The same telemetry by way of the recorder, sealed and far out of its hot window.
async fn recorded(folder: &std::path::Path) -> Recorder {
    let end = BEGIN.plus_ms(180 * MINUTE);
    let open = async |now: Time| {
        Recorder::open(aether_recorder::Settings::default(), local_store(folder).unwrap(), now).await.unwrap()
    };
    let recorder = open(BEGIN).await;
    let (mut sequence, mut batches) = (0, BTreeMap::<i64, (Vec<SeriesSamples>, Vec<DiscreteEvent>)>::new());
    for line in market::market().lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let (at, subject) = (Time(cells[0].parse().unwrap()), cells[1].trim_start_matches("node/"));
        let subject = aether_core::subject::SubjectRef::node(subject);
        let batch = batches.entry(at.0).or_default();
        let attributes: BTreeMap<String, String> =
            if cells[5].is_empty() { BTreeMap::new() } else { BTreeMap::from([("zone".into(), cells[5].into())]) };
        if cells[4].is_empty() {
            batch.1.push(DiscreteEvent { subject, name: cells[2].into(), at, attributes });
        } else {
            let key = SeriesKey { subject, metric: cells[2].into(), unit: cells[3].into(), attributes };
            batch.0.push(SeriesSamples {
                key: key.into(),
                samples: [Sample { at, value: cells[4].parse().unwrap() }].into(),
            });
        }
    }
    for (at, (series, events)) in batches {
        sequence += 1;
        let batch = Batch { origin: NodeId::new("signals"), epoch: 1, sequence, series: series.into(), events };
        recorder.append(batch, Time(at)).unwrap();
        if sequence % 100 == 0 {
            recorder.seal(Time(at)).await.unwrap();
        }
    }
    recorder.seal(end).await.unwrap();
    drop(recorder);
    open(end.plus_ms(24 * 60 * MINUTE)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_history_gives_the_report_that_the_same_telemetry_in_files_gives() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = recorded(folder.path()).await;
    let runtime = tokio::runtime::Handle::current();
    let ends = (BEGIN, BEGIN.plus_ms(1_079 * 10_000));
    let reports = tokio::task::spawn_blocking(move || {
        let prepared = prepared("spot-risk", &Map::new());
        let csv = market::market();
        let imported = Imported::read([("market", csv.as_bytes())], &Mapping::default()).unwrap();
        let files = finished(test(prepared.clone(), History::Imported(Arc::new(imported))));
        let (from, to) = ends;
        let recorded = finished(test(prepared, History::Recorded { recorder, runtime, from, to }));
        (files, recorded)
    });
    let (files, recorded) = reports.await.unwrap();
    assert_eq!(files.candidate.figures.as_ref().unwrap().caught, 1);
    assert_eq!(recorded, files, "every answer, every alarm and every unit of fuel");
    assert_eq!(recorded.changes.unwrap().changed, 0, "it was compared with itself");
    assert_eq!(recorded.current.unwrap(), recorded.candidate);
}

#[test]
fn a_backtest_is_bounded_and_can_be_stopped() {
    let prepared = prepared("spot-risk", &Map::new());
    let csv = market::market();
    let imported = Arc::new(Imported::read([("market", csv.as_bytes())], &Mapping::default()).unwrap());
    let history = || History::Imported(Arc::clone(&imported));
    let few = Bounds { evaluations: 100, ..Bounds::default() };
    let error = run(test(prepared.clone(), history()), &few, &Progress::default()).unwrap_err();
    assert!(matches!(error, Error::TooMany { given: 2_160, limit: 100 }), "{error}");
    let no_time = Bounds { time_ms: 0, ..Bounds::default() };
    let mut slow = test(prepared.clone(), history());
    slow.tick_ms = Some(100);
    let error = run(slow, &no_time, &Progress::default()).unwrap_err();
    assert!(matches!(error, Error::TimeLimit { .. }), "{error}");
    let stopped = Progress::default();
    stopped.stop();
    let error = run(test(prepared.clone(), history()), &Bounds::default(), &stopped).unwrap_err();
    assert!(matches!(error, Error::Stopped { done: 0, of: 2_160 }), "{error}");
    let gate = self::prepared("default-gate", &Map::new());
    let mut mixed = test(prepared, history());
    mixed.sides.candidate = vec![gate];
    let error = run(mixed, &Bounds::default(), &Progress::default()).unwrap_err();
    assert_eq!(error.code(), "AE0073");
}

/// The fixtures' questions, as decisions that the default gate made.
fn judged(gate: &Prepared) -> Vec<Envelope> {
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/default/fixtures");
    let mut names: Vec<_> = std::fs::read_dir(fixtures).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let gates = names.iter().filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("gate-"));
    gates
        .enumerate()
        .map(|(number, path)| {
            let fixture: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            let question: Question = serde_json::from_value(fixture["question"].clone()).unwrap();
            let at = BEGIN.plus_ms(number as u64 * MINUTE);
            market::envelope(gate, &DecisionId(format!("dec-{number}")), at, question)
        })
        .collect()
}

#[test]
fn recorded_decisions_of_a_gate_are_asked_again_and_what_changes_is_listed() {
    let gate = prepared("default-gate", &Map::new());
    let decisions = judged(&gate);
    let empty = Imported::read([], &Mapping::default()).unwrap();
    let asked = |candidate: Prepared, current: Option<Vec<Prepared>>| {
        let mut test = test(gate.clone(), History::Imported(Arc::new(empty.clone())));
        test.sides = Sides { candidate: vec![candidate], current };
        (test.measure, test.events) = (Measure::Nothing, vec![]);
        // Every entry of a slot was asked the same question: it counts once.
        test.decisions = decisions.iter().chain(&decisions).cloned().collect();
        finished(test)
    };
    let same = asked(gate.clone(), None);
    let changes = same.changes.unwrap();
    assert_eq!((changes.compared, changes.changed), (decisions.len() as u64, 0));
    assert_eq!(same.current.unwrap().cost, same.candidate.cost, "the recorded fuel is the fuel of now");
    let Value::Object(lax) = json!({ "destructive": { "verdict": "allow" } }) else { unreachable!() };
    let lax = prepared("default-gate", &lax);
    for current in [None, Some(vec![gate.clone()])] {
        let changes = asked(lax.clone(), current).changes.unwrap();
        assert_eq!(changes.changed, 1, "{:?}", changes.rows);
        assert!(
            changes.rows[0].current.starts_with("deny") && changes.rows[0].decision.is_some(),
            "{:?}",
            changes.rows
        );
    }
}
