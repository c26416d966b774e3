//! Slots by the command line, against a real server with a real agent: the whole way of an entry, and what a restart
//! and the metrics tell of it.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and a fleet of processes is waited for by the clock"
)]
#[allow(dead_code, reason = "a fleet for the tests of incidents, too")]
mod fleet;

use fleet::Fleet;
use serde_json::{Value, json};

/// A slot as the API tells it.
async fn slot(fleet: &Fleet, id: &str) -> Value {
    let slots = fleet.get("/api/v1/slots").await;
    slots["slots"].as_array().into_iter().flatten().find(|slot| slot["id"] == id).cloned().unwrap_or(Value::Null)
}

async fn entry(fleet: &Fleet, id: &str) -> Value {
    let slot = slot(fleet, "risk").await;
    slot["entries"].as_array().into_iter().flatten().find(|entry| entry["id"] == id).cloned().unwrap_or(Value::Null)
}

#[tokio::test]
async fn from_candidate_to_active_and_back() {
    let mut fleet = Fleet::start().await;
    fleet.simulate = true;
    fleet.start_agent("node-a", false).await;
    let before = slot(&fleet, "risk").await;
    assert_eq!(before["generation"], 1);
    let spot = before["entries"][0].clone();
    let (id, digest) = (spot["id"].as_str().unwrap(), spot["digest"].as_str().unwrap());
    assert_eq!((id, spot["stage"].as_str()), ("spot-risk-1", Some("active")));

    // Another config of the same component is another entry, tested on the bundle's fixtures.
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), r#"{"trend_critical": 0.9}"#).unwrap();
    let path = config.path().to_str().unwrap();
    let said = fleet.cli(&["slot", "add", "risk", digest, "--config", path, "--replaces", id]);
    assert!(said.contains("spot-risk-2 is a candidate in risk, generation 2."), "{said}");
    let added = entry(&fleet, "spot-risk-2").await;
    let tested = &added["proofs"][0]["self_test"];
    let (passed, failed) = (tested["passed"].as_u64().unwrap(), tested["failed"].as_u64().unwrap());
    assert!(passed > 0, "{added:#}");
    // A bad config is refused with its field, and changes nothing.
    let bad = json!({ "generation": 2, "component": digest, "config": { "trend": 1 } });
    let (status, problem) = fleet.try_post("/api/v1/slots/risk/entries", bad).await;
    assert_eq!((status.as_u16(), problem["code"].as_str()), (422, Some("AE0062")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("trend"), "{problem}");

    // A step that was decided on what is past, and one without its evidence.
    let promote = "/api/v1/slots/risk/entries/spot-risk-2/promote";
    let (status, problem) = fleet.try_post(promote, json!({ "generation": 1, "to": "shadow" })).await;
    assert_eq!((status.as_u16(), problem["code"].as_str()), (409, Some("AE0061")), "{problem}");
    let (status, problem) = fleet.try_post(promote, json!({ "generation": 2, "to": "active" })).await;
    assert_eq!((status.as_u16(), problem["code"].as_str()), (409, Some("AE0064")), "{problem}");

    let to_shadow = ["slot", "promote", "risk", "spot-risk-2", "--to", "shadow"];
    if failed == 0 {
        fleet.cli(&to_shadow);
    } else {
        fleet.cli(&[&to_shadow[..], &["--override", "the config is laxer, and its fixtures say so"]].concat());
    }
    fleet
        .until("the shadow was asked and compared", async |fleet| {
            let figures = entry(fleet, "spot-risk-2").await["figures"].clone();
            (figures["compared"].as_u64()? >= 2).then_some(())
        })
        .await;
    let shown = fleet.cli(&["slot", "show", "risk"]);
    assert!(shown.contains("spot-risk-2  shadow") && shown.contains("in the place of spot-risk-1"), "{shown}");
    fleet.cli(&["slot", "promote", "risk", "spot-risk-2", "--to", "active", "--override", "a test has no time"]);
    let listed = fleet.cli(&["slot", "list"]);
    assert!(listed.contains("spot-risk-2") && !listed.contains("spot-risk-1"), "{listed}");

    // A decision names the entry that gave it, and a restart changes nothing.
    let generation = slot(&fleet, "risk").await["generation"].clone();
    assert_eq!(generation, 4);
    fleet.kill_host();
    fleet.start_host().await;
    let after = slot(&fleet, "risk").await;
    assert_eq!(after["generation"], generation);
    let stands = entry(&fleet, "spot-risk-2").await["stage"] == "active";
    assert!(stands, "{after:#}");
    fleet
        .until("it answers", async |fleet| {
            let figures = entry(fleet, "spot-risk-2").await["figures"].clone();
            (figures["evaluations"].as_u64()? > 0).then_some(())
        })
        .await;
    let metrics = fleet.text("/metrics").await;
    for line in [
        "aether_slot_evaluations_total{slot=\"risk\"",
        "aether_slot_evaluation_fuel_bucket{slot=\"risk\"",
        "aether_slot_evaluation_seconds_bucket{slot=\"risk\"",
        "aether_slot_memory_high_water_bytes{slot=\"risk\"",
        "aether_slot_generation{slot=\"risk\"} 4",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }

    fleet.cli(&["slot", "rollback", "risk", "spot-risk-2", "--reason", "too lax"]);
    let listed = fleet.cli(&["slot", "list"]);
    assert!(listed.contains("spot-risk-1") && !listed.contains("spot-risk-2"), "{listed}");
    let history = fleet.cli(&["slot", "history", "risk"]);
    let changes: Vec<&str> = history.lines().skip(1).filter_map(|line| line.split_whitespace().nth(3)).collect();
    assert_eq!(changes, ["roll_back", "promote", "promote", "add", "seed"], "{history}");
    // The component is not at fault where another entry stands by it.
    let again = json!({ "generation": 5, "component": digest, "replaces": "spot-risk-1" });
    let (status, _) = fleet.try_post("/api/v1/slots/risk/entries", again).await;
    assert_eq!(status.as_u16(), 201);
    let audit = fleet.get("/api/v1/audit?verify=true").await;
    assert_eq!(audit["chain_verified"], true);
    let acts: Vec<&str> = audit["entries"].as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect();
    for action in ["slot.seed", "slot.add", "slot.promote", "slot.roll-back"] {
        assert!(acts.contains(&action), "{acts:?}");
    }
    let (status, problem) = fleet.try_post("/api/v1/slots/nowhere/entries/x/retire", json!({ "generation": 1 })).await;
    assert_eq!((status.as_u16(), problem["code"].as_str()), (404, Some("AE0004")), "{problem}");
}
