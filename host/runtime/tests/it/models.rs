//! The component `tree-ensemble` with models as assets. That its own code agrees with the original libraries is shown in
//! `plugins/tree-ensemble`; here the built component gets the same files and rows through the contract.

use crate::guest::{engine, repository};
use aether_core::{
    decision::{Answer, Assessment, Limits, Question, Risk},
    observation::{Column, Input, Observation},
    subject::{Subject, SubjectKind},
    time::Time,
};
use aether_runtime::{Assets, Component, Environment, Prepared};
use cap_std::{ambient_authority, fs::Dir};
use serde_json::Map;
use std::{
    collections::BTreeMap,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

fn component() -> Component {
    let file = repository().join("build/plugins/tree-ensemble.wasm");
    let bytes = std::fs::read(file).expect("run `make guests` first");
    engine().load(&bytes).expect("a component")
}

fn assets(files: &[(&str, &str)]) -> Assets {
    Assets::of(files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().into())).collect())
}

/// A value of each input by its index.
fn scored(prepared: &Prepared, values: &[(usize, f64)]) -> Risk {
    let inputs = &prepared.description().inputs;
    let column = |(input, value): &(usize, f64)| {
        let Input::Metric(metric) = &inputs[*input] else { panic!("input {input} is no metric") };
        Column {
            input: u32::try_from(*input).expect("a few inputs"),
            attributes: BTreeMap::new(),
            start: Time(0),
            step_ms: metric.step_ms,
            values: vec![*value],
        }
    };
    let subject = Subject { kind: SubjectKind::Node, id: "node-a".into(), generation: 1, labels: BTreeMap::new() };
    let columns = values.iter().map(column).collect();
    let question = Question::Score(Observation { subject, at: Time(1), columns, events: vec![] });
    match prepared.evaluate(&question, Environment::default()).outcome {
        Ok(Answer::Assessment(Assessment::Risk(risk))) => risk,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_model_is_read_from_the_assets() {
    let component = component();
    let forest = r#"{"format":"aether-isolation-forest","version":1,"features":1,"scale":4,
        "trees":[{"feature":[0],"threshold":[0.5],"default_left":[0],"left":[-1],"right":[-2],"leaf":[8,0.25]}]}"#;
    let features = r#"{"features":[{"name":"cpu","metric":"system.cpu.utilization","of":"last","cells":1}]}"#;
    let activate = |files: &[(&str, &str)]| component.activate(&Map::new(), &Limits::default(), &assets(files));
    let prepared = activate(&[("features.json", features), ("model.json", forest)]).expect("activates");
    assert!((scored(&prepared, &[(0, 0.25)]).score - 0.25).abs() < 1e-12);
    assert!((scored(&prepared, &[(0, 0.75)]).score - 0.957_603_280_698_573_6).abs() < 1e-12);

    let refused = |files: &[(&str, &str)]| match activate(files) {
        Err(error) => format!("{error:?}"),
        Ok(_) => panic!("activated with {files:?}"),
    };
    assert!(refused(&[]).contains("the assets hold no `features.json`"));
    let looped = forest.replace("[-1]", "[0]");
    let told = refused(&[("features.json", features), ("model.json", &looped)]);
    assert!(told.contains("tree 0: node 0 is reached twice, so this is no tree"), "{told}");
}

/// The Python that has the libraries; without it the test is skipped by name, and fails in CI.
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn python(test: &str) -> Option<PathBuf> {
    let python = std::env::var_os("AETHER_MODELS_PYTHON").map(PathBuf::from);
    if python.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "AETHER_MODELS_PYTHON is not set: run `make setup-test`");
        eprintln!("skipped: {test}: AETHER_MODELS_PYTHON is not set; `make test` sets it");
        if let Some(skips) = std::env::var_os("AETHER_SKIPS") {
            let file = std::fs::File::options().append(true).create(true).open(skips);
            writeln!(file.expect("the list of what was skipped"), "{test}").expect("writes");
        }
    }
    python
}

#[test]
fn the_component_agrees_with_the_original_libraries() {
    let Some(python) = python("the_component_agrees_with_the_original_libraries") else { return };
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let program = repository().join("sdk/models/agreement.py");
    let made = Command::new(python).arg("-B").arg(program).arg(scratch.path()).output().expect("Python runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let component = component();
    // Predictions within 0 and 1, which are the score as they are.
    for case in ["xgboost-binary", "xgboost-parallel", "lightgbm-binary", "lightgbm-zero-is-missing", "forest-default"]
    {
        let compared = compare(&component, &scratch.path().join(case));
        assert_eq!(compared, 100, "{case}");
    }
}

/// Compares the first rows of a case that have enough values to be answered; gives how many.
fn compare(component: &Component, case: &Path) -> usize {
    let folder = Dir::open_ambient_dir(case, ambient_authority()).expect("the case");
    // `rows.csv` lies there too, and is an asset that nobody reads.
    let assets = Assets::read(&folder).expect("the assets");
    let limits = Limits { fuel: 5_000_000_000, memory_bytes: 128 << 20, deadline_ms: 5_000, ..Limits::default() };
    let prepared = component.activate(&Map::new(), &limits, &assets).expect("activates");
    let mut compared = 0;
    for line in folder.read_to_string("rows.csv").expect("the rows").lines() {
        let numbers: Vec<f64> = line.split(',').map(|number| number.parse().expect("a number")).collect();
        let (row, expected) = numbers.split_at(numbers.len() - 2);
        if compared == 100 || row.iter().filter(|value| value.is_finite()).count() * 2 < row.len() {
            continue;
        }
        // Feature i is of the i-th metric, on the first of its two grids.
        let values: Vec<(usize, f64)> = row.iter().enumerate().map(|(i, value)| (2 * i, *value)).collect();
        let found = scored(&prepared, &values).score;
        assert!((found - expected[1]).abs() <= 1e-6, "{}: {found} instead of {}", case.display(), expected[1]);
        compared += 1;
    }
    compared
}
