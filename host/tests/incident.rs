//! The whole: real server, real agents, real CRIU. A spot reclaim is drilled against node-a, and the workload has to go
//! on from where it was, whoever is killed on the way.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and a fleet of processes is waited for by the clock"
)]

mod fleet;

use fleet::Fleet;
use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::RowAccessor,
};
use serde_json::{Value, json};

const KINDS: [&str; 8] = [
    "observation_summary",
    "anomaly_finding",
    "root_cause_hypothesis",
    "remediation_proposal",
    "execution_plan",
    "execution_result",
    "verification_result",
    "incident_report",
];

/// Both agents are as confined as the unit that ships has them.
async fn two_nodes() -> Fleet {
    let mut fleet = Fleet::start().await;
    fleet.confined = true;
    fleet.start_agent("node-a", true).await;
    fleet.start_agent("node-b", false).await;
    fleet.counts_on().await;
    fleet.known().await;
    fleet
}

async fn waiting_plan(fleet: &Fleet) -> (String, String) {
    fleet.cli(&["drill", "start", "spot-reclaim", "--node", "node-a"]);
    let incident = fleet.incident_in(&["awaiting_approval"]).await;
    (incident["id"].as_str().unwrap().into(), incident["plan"].as_str().unwrap().into())
}

async fn closed(fleet: &Fleet, id: &str) -> Value {
    fleet
        .until("the incident closes", async |fleet| {
            let detail = fleet.incident(id).await;
            (detail["incident"]["phase"] == "closed").then_some(detail)
        })
        .await
}

fn kinds(detail: &Value) -> Vec<&str> {
    detail["artifacts"].as_array().unwrap().iter().map(|artifact| artifact["body"]["kind"].as_str().unwrap()).collect()
}

/// Every step's record, once per key: nothing was done twice.
fn assert_once(detail: &Value) {
    let keys: Vec<&str> =
        detail["steps"].as_array().unwrap().iter().map(|step| step["key"].as_str().unwrap()).collect();
    let distinct: std::collections::BTreeSet<&str> = keys.iter().copied().collect();
    assert_eq!(keys.len(), distinct.len(), "a step was recorded twice: {keys:?}");
}

/// The audit has the decision, the approval, each order and each result, and is whole.
async fn assert_audited(fleet: &Fleet, id: &str) {
    let page = fleet.get("/api/v1/audit?limit=200&verify=true").await;
    assert_eq!(page["chain_verified"], true, "{page:#}");
    let target = format!("incident/{id}");
    let mut told: Vec<&str> = page["entries"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["target"] == target.as_str() || entry["detail"]["incident"] == id)
        .filter(|entry| entry["outcome"] == "done")
        .map(|entry| entry["action"].as_str().unwrap())
        .collect();
    told.reverse();
    let steps = ["step.dispatch", "step.finish"].repeat(4);
    let expected =
        [&["incident.open", "plan.propose", "plan.judge", "plan.approve"], steps.as_slice(), &["incident.close"]]
            .concat();
    assert_eq!(told, expected);
}

async fn runs_on(fleet: &Fleet, node: &str) {
    fleet
        .until(&format!("the workload runs on {node}"), async |fleet| {
            let workloads = fleet.get("/api/v1/workloads").await;
            let list = workloads.as_array().or_else(|| workloads["workloads"].as_array())?;
            list.iter().any(|w| w["id"] == "demo-counter" && w["node"] == node && w["state"] == "running").then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_spot_reclaim_from_telemetry_to_a_verified_migration() {
    let fleet = two_nodes().await;
    let (id, plan) = waiting_plan(&fleet).await;

    // What an approver must not get past.
    let (status, problem) = fleet.try_post(&format!("/api/v1/plans/{}/approve", "0".repeat(64)), json!({})).await;
    assert_eq!(status.as_u16(), 404, "{problem}");

    let before = fleet.progress();
    fleet.cli(&["approve", &plan, "--yes"]);
    let (status, problem) = fleet.try_post(&format!("/api/v1/plans/{plan}/approve"), json!({})).await;
    assert_eq!(status.as_u16(), 409, "a second approval changes nothing and says so: {problem}");

    let detail = closed(&fleet, &id).await;
    assert_eq!(detail["incident"]["resolution"], "resolved", "{detail:#}\n{}", fleet.logs());
    assert_eq!(kinds(&detail), KINDS);
    assert_eq!(detail["chain_verified"], true);
    assert_eq!(detail["flags"]["drill"], true);
    assert_eq!(detail["flags"]["simulated"], false);
    assert_once(&detail);
    assert_audited(&fleet, &id).await;
    runs_on(&fleet, "node-b").await;
    fleet.counts_on().await;
    assert!(fleet.progress() > before);
    fleet.counts_each_once();

    fleet.cli(&["drill", "stop"]);
    // The finding clears after five evaluations below critical: a busy machine may still be elevated.
    let calm = std::cell::RefCell::new(std::collections::BTreeSet::new());
    fleet
        .until("the signals of node-a are calm, and its finding has cleared", async |fleet| {
            let risks = fleet.get("/api/v1/risks").await;
            let risk = risks.as_array()?.iter().find(|risk| risk["subject"]["id"] == "node-a")?.clone();
            let mut calm = calm.borrow_mut();
            if risk["risk"]["level"] == "critical" {
                calm.clear();
            } else if risk["risk"].is_object() {
                calm.insert(risk["at"].as_i64()?);
            }
            (calm.len() > 6).then_some(())
        })
        .await;

    // It comes back: the same incident goes on, with a story that is chained to the one before.
    fleet.cli(&["drill", "start", "spot-reclaim", "--node", "node-a"]);
    let detail = fleet
        .until("the incident goes on and closes again", async |fleet| {
            let detail = fleet.incident(&id).await;
            let again = detail["artifacts"].as_array()?.len() > KINDS.len();
            (again && detail["incident"]["phase"] == "closed").then_some(detail)
        })
        .await;
    assert_eq!(detail["incident"]["resolution"], "no_plan", "nothing runs there any more: {detail:#}");
    assert_eq!(detail["chain_verified"], true);
    assert_eq!(&kinds(&detail)[..KINDS.len()], KINDS);
    let incidents = fleet.incidents().await;
    assert_eq!(incidents.len(), 1, "no second incident: {incidents:#?}");
}

#[tokio::test]
async fn a_host_killed_while_a_plan_waits_and_again_while_it_runs_goes_on() {
    let mut fleet = two_nodes().await;
    let (id, plan) = waiting_plan(&fleet).await;

    fleet.kill_host();
    fleet.start_host().await;
    let detail = fleet.incident(&id).await;
    assert_eq!(detail["incident"]["phase"], "awaiting_approval", "{detail:#}");
    fleet.post(&format!("/api/v1/plans/{plan}/approve"), json!({})).await;

    fleet.incident_in(&["executing", "verifying", "closed"]).await;
    fleet.kill_host();
    fleet.start_host().await;
    let detail = closed(&fleet, &id).await;
    assert_eq!(detail["incident"]["resolution"], "resolved", "{detail:#}\n{}", fleet.logs());
    assert_eq!(kinds(&detail), KINDS);
    assert_once(&detail);
    runs_on(&fleet, "node-b").await;
    fleet.counts_on().await;
    fleet.counts_each_once();
}

/// Series, events and their rows of a Parquet file.
fn rows(bytes: Vec<u8>) -> std::collections::BTreeMap<(String, String), usize> {
    let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
    let mut rows = std::collections::BTreeMap::new();
    for row in reader.get_row_iter(None).unwrap() {
        let row = row.unwrap();
        let subject = format!("{}/{}", row.get_string(0).unwrap(), row.get_string(1).unwrap());
        *rows.entry((subject, row.get_string(3).unwrap().clone())).or_default() += 1;
    }
    rows
}

#[tokio::test]
async fn the_evidence_of_an_incident_outlives_its_telemetry() {
    let mut fleet = two_nodes().await;
    let (id, _) = waiting_plan(&fleet).await;
    let summary = fleet.incident(&id).await["artifacts"][0].clone();
    let series: Vec<Value> =
        summary["evidence"].as_array().unwrap().iter().filter_map(|of| of.get("series").cloned()).collect();
    assert!(!series.is_empty(), "{summary:#}");
    let url = format!("{}/api/v1/incidents/{id}/evidence", fleet.url);
    let fetched = async |fleet: &Fleet| {
        let answer = fleet.authorised(reqwest::Method::GET, &url).send().await.ok()?;
        if !answer.status().is_success() {
            return None;
        }
        assert_eq!(answer.headers()["content-type"], "application/vnd.apache.parquet");
        Some(rows(answer.bytes().await.unwrap().to_vec()))
    };
    let frozen = fleet.until("the evidence is frozen", fetched).await;
    // It holds what the recorder holds of the very windows that were looked at.
    for of in &series {
        let (kind, name) = (of["subject"]["kind"].as_str().unwrap(), of["subject"]["id"].as_str().unwrap());
        let (subject, metric) = (format!("{kind}/{name}"), of["metric"].as_str().unwrap());
        let window = format!(
            "{}/api/v1/telemetry/export?subject={subject}&metric={metric}&from={}&to={}",
            fleet.url, of["from"], of["to"]
        );
        let answer = fleet.authorised(reqwest::Method::GET, &window).send().await.unwrap();
        assert!(answer.status().is_success(), "{window}");
        let recorded = rows(answer.bytes().await.unwrap().to_vec());
        let key = (subject, metric.to_owned());
        assert!(recorded.get(&key).is_some_and(|rows| *rows > 0), "{key:?}");
        assert_eq!(frozen.get(&key), recorded.get(&key), "{key:?}");
    }
    let file = fleet.folder().join("recorded.csv");
    fleet.cli(&["history", "export", file.to_str().unwrap(), "--subject", "node/node-a", "--from", "1h"]);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("timestamp,subject,metric,unit,value,origin"), "{}", text.lines().next().unwrap());
    assert!(text.lines().count() > 20);
    // What leaves can come back as a history to test candidates on.
    fleet.cli(&["history", "put", "taken-from-here", file.to_str().unwrap()]);

    // As retention does it, at last.
    fleet.kill_host();
    std::fs::remove_dir_all(fleet.data().join("telemetry/segments")).unwrap();
    fleet.start_host().await;
    let file = fleet.folder().join("evidence.parquet");
    fleet.cli(&["history", "export", file.to_str().unwrap(), "--incident", &id]);
    let kept = rows(std::fs::read(&file).unwrap());
    for (key, rows) in &frozen {
        assert!(kept.get(key).is_some_and(|kept| kept >= rows), "{key:?}");
    }
}

#[tokio::test]
async fn an_agent_killed_in_the_middle_loses_nothing() {
    let mut fleet = two_nodes().await;
    let (id, plan) = waiting_plan(&fleet).await;
    fleet.post(&format!("/api/v1/plans/{plan}/approve"), json!({})).await;
    fleet.incident_in(&["executing"]).await;
    fleet.kill_agent("node-a");
    fleet.start_agent("node-a", true).await;

    let detail = closed(&fleet, &id).await;
    let resolution = detail["incident"]["resolution"].as_str().unwrap();
    // Where the kill struck decides which; each is honest, and none loses the workload.
    assert!(["resolved", "undone"].contains(&resolution), "{detail:#}\n{}", fleet.logs());
    assert_once(&detail);
    runs_on(&fleet, if resolution == "resolved" { "node-b" } else { "node-a" }).await;
    fleet.counts_on().await;
    fleet.counts_each_once();
}

#[tokio::test]
async fn agents_people_and_programs_come_by_tls_where_it_is_configured() {
    let mut fleet = Fleet::start_with_tls().await;
    fleet.start_agent("node-a", false).await;
    assert!(fleet.cli(&["nodes"]).contains("node-a"));

    // In the clear there is nothing to be had, and who does not trust the certificate gets nothing either.
    let port = fleet.url.rsplit(':').next().unwrap();
    assert!(reqwest::get(format!("http://127.0.0.1:{port}/readyz")).await.is_err());
    assert!(reqwest::get(format!("{}/readyz", fleet.url)).await.is_err());
}

#[tokio::test]
async fn a_simulated_executor_is_named_in_every_artifact() {
    let mut fleet = Fleet::start().await;
    fleet.simulate = true;
    fleet.start_agent("node-a", true).await;
    fleet.start_agent("node-b", false).await;
    runs_on(&fleet, "node-a").await;
    let (id, plan) = waiting_plan(&fleet).await;
    fleet.post(&format!("/api/v1/plans/{plan}/approve"), json!({})).await;
    let detail = closed(&fleet, &id).await;
    let artifacts = detail["artifacts"].as_array().unwrap();
    assert!(artifacts.iter().all(|artifact| artifact["flags"]["simulated"] == true), "{detail:#}");
    assert_eq!(detail["incident"]["flags"]["simulated"], true);
    assert_eq!(fleet.get("/api/v1/status").await["simulated_nodes"], json!(["node-a", "node-b"]));
    assert_eq!(fleet.progress(), 0, "a simulated workload ran for real");
}
