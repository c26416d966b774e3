//! Slots by tables, by whatever sequence of changes, and as they are stored.

mod casting;
mod changes;
mod properties;
mod watching;

use super::*;
use crate::{decision::FaultKind, id::SlotId};
use std::collections::BTreeMap;

const START: Time = Time(1_700_000_000_000);

fn id(name: &str) -> EntryId {
    EntryId::new(name)
}

fn entry(name: &str, replaces: Option<&str>) -> Entry {
    Entry {
        id: id(name),
        component: Digest::of(name.as_bytes()),
        name: name.split('-').next().unwrap_or(name).into(),
        version: "1.0.0".into(),
        config: serde_json::Map::new(),
        limits: Limits::default(),
        assets: None,
        grants: Grant::of(Role::RiskScorer),
        stage: Stage::Candidate,
        since: Time(0),
        replaces: replaces.map(id),
        proofs: vec![],
        quarantine: None,
    }
}

fn empty() -> Slot {
    Slot::new(SlotId::new("risk"), Role::RiskScorer, CombiningRule::Max, Budget::default())
}

fn seed(entries: Vec<Entry>) -> Change {
    Change::Seed { role: Role::RiskScorer, rule: CombiningRule::Max, budget: Budget::default(), entries }
}

/// What every step could ask for.
fn proof() -> Proof {
    Proof {
        to: Stage::Candidate,
        at: Time(0),
        by: PrincipalId::new("ann"),
        self_test: Some(SelfTest { passed: 2, failed: 0 }),
        backtest: None,
        figures: Some(figures(20)),
        baseline: None,
        overridden: None,
    }
}

fn figures(evaluations: u64) -> Figures {
    Figures { evaluations, ..Figures::default() }
}

fn quarantine() -> Quarantine {
    Quarantine { at: START, reason: "it faults".into(), reproducer: Some(DecisionId::new("dec-1")) }
}

fn add(name: &str, replaces: Option<&str>) -> Change {
    Change::Add { entry: Box::new(entry(name, replaces)) }
}

fn promote(name: &str, to: Stage) -> Change {
    Change::Promote { entry: id(name), to, proof: Box::new(proof()) }
}

/// Without the evidence that the step asks for.
fn force(name: &str, to: Stage) -> Change {
    let proof = Proof { figures: None, overridden: Some("it burns".into()), ..proof() };
    Change::Promote { entry: id(name), to, proof: Box::new(proof) }
}

fn retire(name: &str) -> Change {
    Change::Retire { entry: id(name) }
}

fn roll_back(name: &str) -> Change {
    Change::RollBack { entry: id(name), quarantine: quarantine() }
}

fn flag(name: &str) -> Change {
    Change::Flag { entry: id(name), quarantine: quarantine() }
}

fn canary(percent: u8) -> Stage {
    Stage::Canary { percent }
}

/// One change a minute.
fn after(changes: impl IntoIterator<Item = Change>) -> Slot {
    changes.into_iter().enumerate().fold(empty(), |slot, (minute, change)| {
        let at = START.plus_ms(minute as u64 * 60_000);
        slot.apply(change.clone(), at).unwrap_or_else(|refused| panic!("{change:?}: {refused}"))
    })
}

/// `a:active b:canary5>a c:retired!`: `>` is whom it replaces, `!` that it failed.
fn shown(slot: &Slot) -> String {
    let entries = slot.entries.iter().map(|entry| {
        let share = if let Stage::Canary { percent } = entry.stage { percent.to_string() } else { String::new() };
        let replaces = entry.replaces.as_ref().map_or_else(String::new, |id| format!(">{id}"));
        let failed = if entry.quarantine.is_some() { "!" } else { "" };
        format!("{}:{}{share}{replaces}{failed}", entry.id, entry.stage.name())
    });
    entries.collect::<Vec<_>>().join(" ")
}

fn sample(fault: Option<FaultKind>) -> Sample {
    Sample { fault, fuel: 1_000, latency_us: 300, memory_bytes: 65_536, log_lines: 1, diverged: None }
}

/// What is stored of a slot is read by later versions: a change here takes a migration.
#[test]
fn the_stored_form_is_frozen() {
    let mut full = entry("b-2", Some("a-1"));
    full.config.insert("threshold".into(), serde_json::json!(0.5));
    full.assets = Some(Digest::of(b"model"));
    full.proofs.push(Proof {
        figures: Some(Figures {
            evaluations: 20,
            faults: BTreeMap::from([(FaultKind::OutOfFuel, 1)]),
            compared: 19,
            diverged: 2,
            fuel_p50: Some(900),
            fuel_p99: Some(1_000),
            latency_us_p50: Some(30),
            latency_us_p99: Some(90),
            memory_bytes_max: 65_536,
            log_lines: 3,
        }),
        baseline: Some(Baseline { fuel_p50: Some(800), latency_us_p99: Some(80) }),
        backtest: Some("backtest-1".into()),
        ..proof()
    });
    let slot = after([
        seed(vec![entry("a-1", None)]),
        Change::Add { entry: Box::new(full) },
        promote("b-2", Stage::Shadow),
        promote("b-2", canary(10)),
        add("c-3", None),
        roll_back("b-2"),
    ]);
    let text = serde_json::to_string_pretty(&slot).unwrap() + "\n";
    expect_test::expect_file!["../../../golden/slot.json"].assert_eq(&text);
    assert_eq!(serde_json::from_str::<Slot>(&text).unwrap(), slot);
    assert_eq!(serde_json::from_slice::<Slot>(&crate::plan::canonical(&slot)).unwrap(), slot);
}

#[test]
fn the_stored_form_of_changes_is_frozen() {
    let changes = [
        seed(vec![]),
        Change::Promote { entry: id("b-2"), to: canary(10), proof: Box::new(proof()) },
        retire("a-1"),
        roll_back("b-2"),
        flag("a-1"),
    ];
    let text = serde_json::to_string_pretty(&changes).unwrap() + "\n";
    expect_test::expect_file!["../../../golden/slot-changes.json"].assert_eq(&text);
    assert_eq!(serde_json::from_str::<Vec<Change>>(&text).unwrap(), changes);
    let add = add("a-1", None);
    assert_eq!(serde_json::from_str::<Change>(&serde_json::to_string(&add).unwrap()).unwrap(), add);
}
