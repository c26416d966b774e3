//! The first-party components and the default policy, as they ship.

use crate::guest::{ask, assert_serves, engine, good, repository};
use aether_core::{
    decision::{Answer, Assessment, Limits, Role},
    id::Digest,
    observation::Input,
    policy::Bundle,
};
use aether_runtime::{Assets, Component, Engine, bundle};
use expect_test::expect;
use std::path::{Path, PathBuf};

const NAMES: [(&str, Role); 11] = [
    ("contain-planner", Role::RemediationPlanner),
    ("default-gate", Role::PolicyGate),
    ("ewma", Role::RiskScorer),
    ("gpu-health", Role::RiskScorer),
    ("host-pressure", Role::RiskScorer),
    ("least-loaded-router", Role::Router),
    ("migrate-planner", Role::RemediationPlanner),
    ("robust-z", Role::RiskScorer),
    ("spot-risk", Role::RiskScorer),
    ("tree-ensemble", Role::RiskScorer),
    ("workload-health", Role::RiskScorer),
];

fn folder() -> PathBuf {
    let folder = repository().join("build/plugins");
    assert!(folder.join("spot-risk.wasm").exists(), "the plugins are not built: run `make guests` first");
    folder
}

fn load(engine: &Engine, name: &str) -> Component {
    let bytes = std::fs::read(folder().join(format!("{name}.wasm"))).expect("run `make guests` first");
    engine.load(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn policy(folder: &Path, text: &str) {
    std::fs::write(folder.join("policy.toml"), text).expect("writes");
}

#[test]
fn each_is_of_its_role_and_reads_what_it_says() {
    let engine = engine();
    let mut text = String::new();
    for (name, role) in NAMES {
        let component = load(&engine, name);
        let description = component.description();
        assert_eq!((component.role(), description.name.as_str()), (role, name));
        text += &format!("{name} {}, {}: {}\n", description.version, role.world(), description.summary);
        for input in &description.inputs {
            text += &match input {
                Input::Metric(metric) => format!(
                    "  {} ({}), {} ms in steps of {} ms, {:?}\n",
                    metric.name, metric.unit, metric.window_ms, metric.step_ms, metric.aggregation
                ),
                Input::Events(events) => {
                    format!("  {}, {} ms, at most {}\n", events.name, events.window_ms, events.at_most)
                }
            };
        }
    }
    expect![[r#"
        contain-planner 0.1.0, remediation-planner: Proposes to limit the one workload that harms the others of its node.
          aether.workload.cpu.demand (1), 60000 ms in steps of 5000 ms, Last
          process.memory.usage (By), 60000 ms in steps of 5000 ms, Last
          aether.workload.memory.reach (1), 60000 ms in steps of 5000 ms, Last
          system.cpu.logical.count ({cpu}), 60000 ms in steps of 5000 ms, Last
        default-gate 0.1.0, policy-gate: Allows, denies or asks for approval, by class, blast radius and recent failures.
        ewma 0.1.0, risk-scorer: Rates how far a node's series are from their exponentially weighted mean.
          system.cpu.utilization (1), 3600000 ms in steps of 10000 ms, Mean
          system.cpu.utilization (1), 259200000 ms in steps of 300000 ms, Mean
          system.memory.utilization (1), 3600000 ms in steps of 10000 ms, Mean
          system.memory.utilization (1), 259200000 ms in steps of 300000 ms, Mean
          system.cpu.load_average.1m ({thread}), 3600000 ms in steps of 10000 ms, Mean
          system.cpu.load_average.1m ({thread}), 259200000 ms in steps of 300000 ms, Mean
          system.disk.io (By), 3600000 ms in steps of 10000 ms, Rate
          system.disk.io (By), 259200000 ms in steps of 300000 ms, Rate
          system.network.io (By), 3600000 ms in steps of 10000 ms, Rate
          system.network.io (By), 259200000 ms in steps of 300000 ms, Rate
          aether.imported.value (1), 3600000 ms in steps of 10000 ms, Mean
          aether.imported.value (1), 259200000 ms in steps of 300000 ms, Mean
        gpu-health 0.1.0, risk-scorer: Rates whether the GPUs of a node still answer.
          aether.gpu.available (1), 60000 ms in steps of 5000 ms, Last
        host-pressure 0.1.0, risk-scorer: Rates how near a node is to exhausting its CPU, memory or disk.
          system.cpu.utilization (1), 60000 ms in steps of 5000 ms, Mean
          system.cpu.logical.count ({cpu}), 60000 ms in steps of 5000 ms, Last
          system.cpu.load_average.1m ({thread}), 60000 ms in steps of 5000 ms, Last
          system.memory.utilization (1), 60000 ms in steps of 5000 ms, Mean
          system.filesystem.utilization (1), 60000 ms in steps of 5000 ms, Last
          system.disk.io_time (s), 60000 ms in steps of 5000 ms, Rate
          aether.system.pressure.some (1), 60000 ms in steps of 5000 ms, Mean
        least-loaded-router 0.1.0, router: Ranks nodes by free CPU and memory, load and pressure.
          system.cpu.utilization (1), 60000 ms in steps of 5000 ms, Mean
          system.memory.utilization (1), 60000 ms in steps of 5000 ms, Mean
          system.linux.memory.available (By), 60000 ms in steps of 5000 ms, Last
          system.cpu.load_average.1m ({thread}), 60000 ms in steps of 5000 ms, Last
          system.cpu.logical.count ({cpu}), 60000 ms in steps of 5000 ms, Last
          aether.system.pressure.some (1), 60000 ms in steps of 5000 ms, Mean
        migrate-planner 0.1.0, remediation-planner: Proposes to migrate every workload of a node at risk to the best node with enough memory.
          system.linux.memory.available (By), 30000 ms in steps of 5000 ms, Last
          system.memory.utilization (1), 30000 ms in steps of 5000 ms, Last
        robust-z 0.1.0, risk-scorer: Rates how far a node's series are from their median, in median absolute deviations.
          system.cpu.utilization (1), 3600000 ms in steps of 10000 ms, Mean
          system.cpu.utilization (1), 259200000 ms in steps of 300000 ms, Mean
          system.memory.utilization (1), 3600000 ms in steps of 10000 ms, Mean
          system.memory.utilization (1), 259200000 ms in steps of 300000 ms, Mean
          system.cpu.load_average.1m ({thread}), 3600000 ms in steps of 10000 ms, Mean
          system.cpu.load_average.1m ({thread}), 259200000 ms in steps of 300000 ms, Mean
          system.disk.io (By), 3600000 ms in steps of 10000 ms, Rate
          system.disk.io (By), 259200000 ms in steps of 300000 ms, Rate
          system.network.io (By), 3600000 ms in steps of 10000 ms, Rate
          system.network.io (By), 259200000 ms in steps of 300000 ms, Rate
          aether.imported.value (1), 3600000 ms in steps of 10000 ms, Mean
          aether.imported.value (1), 259200000 ms in steps of 300000 ms, Mean
        spot-risk 0.1.0, risk-scorer: Rates how likely a spot node is to be reclaimed, by the provider's signals and the price.
          aether.market.price ({USD}/h), 3600000 ms in steps of 10000 ms, Last
          aether.market.rebalance, 3600000 ms, at most 64
          aether.market.termination, 3600000 ms, at most 64
        tree-ensemble 0.1.0, risk-scorer: Rates a node by a model of XGBoost, LightGBM or scikit-learn that lies beside it.
          system.cpu.utilization (1), 3600000 ms in steps of 10000 ms, Mean
          system.cpu.utilization (1), 259200000 ms in steps of 300000 ms, Mean
          system.cpu.logical.count ({cpu}), 3600000 ms in steps of 10000 ms, Last
          system.cpu.logical.count ({cpu}), 259200000 ms in steps of 300000 ms, Last
          system.cpu.load_average.1m ({thread}), 3600000 ms in steps of 10000 ms, Mean
          system.cpu.load_average.1m ({thread}), 259200000 ms in steps of 300000 ms, Mean
          system.memory.utilization (1), 3600000 ms in steps of 10000 ms, Mean
          system.memory.utilization (1), 259200000 ms in steps of 300000 ms, Mean
          system.linux.memory.available (By), 3600000 ms in steps of 10000 ms, Mean
          system.linux.memory.available (By), 259200000 ms in steps of 300000 ms, Mean
          system.filesystem.utilization (1), 3600000 ms in steps of 10000 ms, Last
          system.filesystem.utilization (1), 259200000 ms in steps of 300000 ms, Last
          system.disk.io (By), 3600000 ms in steps of 10000 ms, Rate
          system.disk.io (By), 259200000 ms in steps of 300000 ms, Rate
          system.disk.io_time (s), 3600000 ms in steps of 10000 ms, Rate
          system.disk.io_time (s), 259200000 ms in steps of 300000 ms, Rate
          system.network.io (By), 3600000 ms in steps of 10000 ms, Rate
          system.network.io (By), 259200000 ms in steps of 300000 ms, Rate
          aether.system.pressure.some (1), 3600000 ms in steps of 10000 ms, Mean
          aether.system.pressure.some (1), 259200000 ms in steps of 300000 ms, Mean
          system.uptime (s), 3600000 ms in steps of 10000 ms, Last
          system.uptime (s), 259200000 ms in steps of 300000 ms, Last
          aether.imported.value (1), 3600000 ms in steps of 10000 ms, Mean
          aether.imported.value (1), 259200000 ms in steps of 300000 ms, Mean
        workload-health 0.1.0, risk-scorer: Rates whether one workload of a node harms the others: a noisy neighbour, or memory that leaks.
          aether.workload.cpu.demand (1), 60000 ms in steps of 5000 ms, Mean
          process.memory.usage (By), 60000 ms in steps of 5000 ms, Last
          aether.workload.memory.reach (1), 60000 ms in steps of 5000 ms, Last
    "#]].assert_eq(&text);
}

/// Names and units of inputs are strings on both sides of a boundary; here they are held to the core's list.
#[test]
fn every_input_is_a_metric_that_exists() {
    let engine = engine();
    let known = std::fs::read_to_string(repository().join("host/core/src/metric.rs")).expect("the core's metric names");
    for (name, _) in NAMES {
        for input in &load(&engine, name).description().inputs {
            let (metric, unit) = match input {
                Input::Metric(metric) => (&metric.name, Some(&metric.unit)),
                Input::Events(events) => (&events.name, None),
            };
            let lines: Vec<&str> = known.lines().collect();
            let at = lines
                .iter()
                .position(|line| line.ends_with(&format!("= \"{metric}\";")))
                .unwrap_or_else(|| panic!("{name} reads `{metric}`, which aether_core::metric does not know"));
            if let Some(unit) = unit {
                let docs = lines[..at].iter().rev().take_while(|line| line.starts_with("///"));
                let docs: Vec<&str> = docs.copied().collect();
                let unit = format!("Unit `{unit}`");
                assert!(docs.iter().any(|line| line.contains(&unit)), "{name}: {metric}, {unit}: {docs:?}");
            }
        }
    }
}

#[test]
fn the_default_policys_fixtures_pass() {
    let engine = engine();
    let report = bundle::test(&engine, &repository().join("policies/default"), &folder()).expect("the policy is valid");
    assert!(report.passed(), "{report}");
    assert!(report.fixtures.len() >= 20, "{report}");
}

#[test]
fn a_failing_fixture_says_where() {
    let engine = engine();
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let default = repository().join("policies/default");
    std::fs::copy(default.join("policy.toml"), scratch.path().join("policy.toml")).expect("copies");
    std::fs::create_dir(scratch.path().join("fixtures")).expect("makes");
    let calm = std::fs::read_to_string(default.join("fixtures/spot-calm.json")).expect("the fixture");
    std::fs::write(scratch.path().join("fixtures/wrong.json"), calm.replace("\"low\"", "\"high\"")).expect("writes");
    std::fs::write(scratch.path().join("fixtures/broken.json"), "{\"sumary\": 1}").expect("writes");
    let report = bundle::test(&engine, scratch.path(), &folder()).expect("the policy is valid");
    assert!(!report.passed());
    let problems: Vec<&str> =
        report.fixtures.iter().flat_map(|fixture| &fixture.problems).map(String::as_str).collect();
    assert!(problems[0].starts_with("unknown field `sumary`"), "{problems:?}");
    assert_eq!(problems[1], r#"assessment.risk.level: expected "high", found "low""#);
}

#[test]
fn one_bad_entry_leaves_the_rest_alone() {
    let engine = engine();
    let scratch = tempfile::tempdir().expect("a temporary folder");
    for (name, _) in NAMES {
        std::fs::copy(folder().join(format!("{name}.wasm")), scratch.path().join(format!("{name}.wasm")))
            .expect("copies");
    }
    std::fs::write(scratch.path().join("broken.wasm"), b"not a component").expect("writes");
    policy(
        scratch.path(),
        r#"
        name = "mixed"
        version = "1"
        [slots.risk]
        role = "risk-scorer"
        rule = "max"
        entries = [
            { component = "absent" },
            { component = "broken" },
            { component = "default-gate" },
            { component = "spot-risk", config = { trend = 1 } },
            { component = "spot-risk", limits = { fuel = 9000000000 } },
            { component = "host-pressure", digest = "00" },
            { component = "spot-risk", config = { trend_critical = 0.5 } },
        ]
        "#,
    );
    let bundle: Bundle = bundle::read(scratch.path()).expect("the policy is valid");
    let activation = bundle::activate(&engine, &bundle, scratch.path(), scratch.path());
    let codes: Vec<&str> = activation.failures.iter().map(|failure| failure.code).collect();
    let expected = [
        "component.missing",
        "component.not-wasm",
        "component.role",
        "activate.config",
        "activate.limit",
        "component.digest",
    ];
    assert_eq!(codes, expected);
    assert!(activation.failures[3].reason.contains("the unknown `trend`; known are `lapse_ms`"));
    let entries = &activation.slots[0].entries;
    assert_eq!(entries.len(), 1);
    let found = entries[0].declared.digest.clone();
    let bytes = std::fs::read(folder().join("spot-risk.wasm")).expect("the plugin");
    assert_eq!(found, Some(Digest::of(&bytes)), "the digest that was found is pinned");
}

#[test]
fn an_unknown_field_in_a_policy_is_named() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    policy(scratch.path(), "name = \"x\"\nversion = \"1\"\n[slots.risk]\nrole = \"risk-scorer\"\nrules = \"max\"\n");
    let error = bundle::read(scratch.path()).expect_err("`rules` is no field");
    assert_eq!(error.code(), "policy.invalid");
    assert!(error.to_string().contains("unknown field `rules`"), "{error}");
    policy(
        scratch.path(),
        "name = \"x\"\nversion = \"1\"\n[slots.g]\nrole = \"policy-gate\"\nrule = \"max\"\nentries = []\n",
    );
    let error = bundle::read(scratch.path()).expect_err("gates do not combine by max");
    assert!(error.to_string().ends_with("cannot combine by `max`; use `deny-overrides`"), "{error}");
    policy(
        scratch.path(),
        "name = \"x\"\nversion = \"1\"\n[slots.g]\nrole = \"policy-gate\"\nrule = \"deny-overrides\"\nentries = [{ component = \"../x\" }]\n",
    );
    assert_eq!(bundle::read(scratch.path()).expect_err("a path is no name").code(), "policy.name");
    policy(
        scratch.path(),
        "name = \"x\"\nversion = \"1\"\n[slots.risk]\nrole = \"risk-scorer\"\nrule = \"max\"\nbudget = { fault_percent = nan }\nentries = []\n",
    );
    assert_eq!(bundle::read(scratch.path()).expect_err("nan is no share").code(), "policy.budget");
}

#[test]
fn a_question_costs_the_same_every_time() {
    let first = engine();
    let second = engine();
    let ask_of = |engine: &Engine| {
        let prepared = load(engine, "spot-risk")
            .activate(&serde_json::Map::new(), &Limits::default(), &Assets::default())
            .expect("activates");
        let evaluation = ask(&prepared);
        (evaluation.outcome, evaluation.fuel, evaluation.memory_bytes)
    };
    let one = ask_of(&first);
    assert_eq!(one, ask_of(&first));
    assert_eq!(one, ask_of(&second));
    match one.0 {
        Ok(Answer::Assessment(Assessment::Insufficient(_))) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_roles_question_is_refused() {
    let engine = engine();
    let gate = load(&engine, "default-gate")
        .activate(&serde_json::Map::new(), &Limits::default(), &Assets::default())
        .expect("activates");
    let fault = ask(&gate).outcome.expect_err("a gate scores nothing");
    assert_eq!(fault.message, "a policy-gate was asked the question of a risk-scorer; nothing was evaluated");
    assert_serves(&good(&engine));
}
