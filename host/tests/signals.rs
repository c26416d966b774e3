//! What agents are asked to tell, and tell: a notice of the cloud's metadata service leads to an incident, and when it is
//! taken back, that is known, too; and what people want collected is collected at once, within what the node permits.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and a fleet of processes is waited for by the clock"
)]

#[allow(dead_code, reason = "a fleet for the tests of incidents, too")]
mod fleet;

use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    response::IntoResponse as _,
    routing::{get, put},
};
use fleet::Fleet;
use serde_json::Value;
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;

/// EC2's metadata service, as far as an agent asks it: no document without a session's token.
async fn metadata_service(serving: &mut JoinSet<()>) -> (u16, Arc<Mutex<Option<&'static str>>>) {
    let rebalance: Arc<Mutex<Option<&'static str>>> = Arc::default();
    let token = "a-session";
    let known = move |headers: &HeaderMap| headers.get("x-aws-ec2-metadata-token").is_some_and(|value| value == token);
    let told = rebalance.clone();
    let router = Router::new()
        .route(
            "/latest/api/token",
            put(move |headers: HeaderMap| async move {
                match headers.contains_key("x-aws-ec2-metadata-token-ttl-seconds") {
                    true => token.into_response(),
                    false => StatusCode::BAD_REQUEST.into_response(),
                }
            }),
        )
        .route("/latest/meta-data/spot/instance-action", get(|| async { StatusCode::NOT_FOUND }))
        .route(
            "/latest/meta-data/events/recommendations/rebalance",
            get(move |headers: HeaderMap| async move {
                match *told.lock().unwrap() {
                    _ if !known(&headers) => StatusCode::UNAUTHORIZED.into_response(),
                    Some(document) => document.into_response(),
                    None => StatusCode::NOT_FOUND.into_response(),
                }
            }),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (port, rebalance)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebalance_recommendation_of_the_cloud_becomes_an_incident() {
    let mut serving = JoinSet::new();
    let (port, rebalance) = metadata_service(&mut serving).await;
    let mut fleet = Fleet::start().await;
    fleet.simulate = true;
    fleet.start_agent("node-b", false).await;
    fleet.settings[1] = format!("[signals]\ncloud = \"aws\"\naddress = \"127.0.0.1:{port}\"\npoll_ms = 1000\n");
    fleet.start_agent("node-a", true).await;
    let answers = async |fleet: &Fleet| {
        let series = fleet.get("/api/v1/telemetry/series?subject=node/node-a").await;
        series.to_string().contains("aether.agent.signals.available").then_some(())
    };
    fleet.until("the agent says that the service answers", answers).await;
    let events = async |fleet: &Fleet| -> Vec<Value> {
        let found = fleet.get("/api/v1/telemetry/events?subject=node/node-a").await;
        let mut found = found["events"].as_array().cloned().unwrap_or_default();
        // A busy machine has others: programs that failed, say.
        found.retain(|event| event["name"].as_str().is_some_and(|name| name.starts_with("aether.market.")));
        found
    };
    assert!(events(&fleet).await.is_empty(), "nothing was said yet");

    *rebalance.lock().unwrap() = Some(r#"{"noticeTime": "2020-10-27T08:22:00Z"}"#);
    let incident = fleet.until("an incident opens", async |fleet| fleet.incidents().await.into_iter().next()).await;
    let text = incident.to_string();
    assert!(text.contains("node-a") && text.contains("spot.rebalance"), "{text}");
    let told = events(&fleet).await;
    assert_eq!(told[0]["name"], "aether.market.rebalance");
    assert_eq!(told[0]["attributes"]["source"], "aws.imds");
    assert_eq!(told[0]["attributes"]["noticed"], "1603786920000");

    *rebalance.lock().unwrap() = None;
    fleet
        .until("the recommendation is taken back", async |fleet| {
            events(fleet).await.iter().any(|event| event["attributes"]["state"] == "cleared").then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_want_collected_is_followed_at_once_within_what_the_node_permits() {
    let mut fleet = Fleet::start().await;
    fleet.settings[1] = "[collect]\ndisabled_sources = [\"uptime\"]\nbpf_budget_permille = 10\n".into();
    fleet.start_agent("node-a", false).await;
    let source = async |fleet: &Fleet, name: &str| {
        let node = fleet.get("/api/v1/nodes/node-a").await;
        let name = format!("telemetry.{name}");
        node["capabilities"].as_array().unwrap().iter().find(|told| told["name"] == name.as_str()).unwrap().clone()
    };
    let newest = async |fleet: &Fleet, metric: &str| {
        let series = fleet.get("/api/v1/nodes/node-a/series").await;
        series.as_array()?.iter().find(|series| series["key"]["metric"] == metric)?["last"].as_i64()
    };
    let (load, memory) = ("system.cpu.load_average.1m", "system.memory.utilization");
    fleet.until("the load is told", async |fleet| newest(fleet, load).await).await;
    assert_eq!(source(&fleet, "load").await["available"], true);

    let told = fleet.cli(&[
        "nodes",
        "configure",
        "--sample-interval",
        "200",
        "--interval",
        "memory=2000",
        "--disable",
        "load",
        "--interval",
        "nothing=1000",
        "--bpf-budget",
        "50",
        "--reason",
        "a quiet night",
    ]);
    assert!(told.starts_with("Version 1 for every agent without a word of its own: "), "{told}");
    fleet
        .until("the load is switched off", async |fleet| {
            (source(fleet, "load").await["available"] == false).then_some(())
        })
        .await;
    let shown = fleet.cli(&["nodes", "show", "node-a"]);
    let line = shown.lines().find(|line| line.starts_with("telemetry ")).unwrap_or_else(|| panic!("{shown}"));
    assert!(line.contains("of the fleet wants sample every 200 ms, memory every 2000 ms"), "{line}");
    for beyond in [
        "`sample_interval_ms` of 200 (this node permits 1000)",
        "`bpf_budget_permille` of 50 (this node permits 10)",
        "`nothing`, which is no source of this agent",
    ] {
        assert!(line.contains(beyond), "{line}");
    }
    // Nothing more comes of the one, and of the other no more often than it was asked for.
    let last = newest(&fleet, load).await.unwrap();
    let asked = newest(&fleet, memory).await.unwrap();
    let then = fleet
        .until("the memory is told once more", async |fleet| {
            newest(fleet, memory).await.filter(|at| *at > asked + 1_000)
        })
        .await;
    let again = fleet.until("and again", async |fleet| newest(fleet, memory).await.filter(|at| *at > then)).await;
    assert!(again - then >= 1_900, "{then} {again}");
    assert_eq!(newest(&fleet, load).await, Some(last));

    // A host that starts again wants the same, and a node's own word goes before the fleet's.
    fleet.kill_host();
    fleet.start_host().await;
    fleet
        .until("the node is back", async |fleet| {
            (fleet.get("/api/v1/nodes/node-a").await["live"] == true).then_some(())
        })
        .await;
    assert_eq!(source(&fleet, "load").await["available"], false);
    fleet.cli(&["nodes", "configure", "node-a", "--interval", "memory=1000", "--reason", "it is looked into"]);
    fleet.until("the load is told again", async |fleet| newest(fleet, load).await.filter(|at| *at > last)).await;
    assert!(fleet.cli(&["nodes", "show", "node-a"]).contains("it is looked into; its agent follows\n"));
    assert_eq!(source(&fleet, "uptime").await["available"], false, "what the node has switched off stays off");
    fleet.cli(&["nodes", "configure", "node-a", "--clear", "--reason", "done"]);
    fleet
        .until("the fleet's word is in force again", async |fleet| {
            (source(fleet, "load").await["available"] == false).then_some(())
        })
        .await;
    let page = fleet.get("/api/v1/audit?limit=50&verify=true").await;
    let told: Vec<&str> = page["entries"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["action"] == "agents.configure")
        .map(|entry| entry["target"].as_str().unwrap())
        .collect();
    assert_eq!((told, page["chain_verified"].as_bool()), (vec!["node/node-a", "node/node-a", "fleet"], Some(true)));

    let body = serde_json::json!({ "collection": { "sample_interval_ms": 1 }, "reason": "too often" });
    let (status, problem) = fleet.try_post("/api/v1/agent-config", body).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("100 to 600,000"), "{problem}");
    let body = serde_json::json!({ "node": "node-z", "reason": "who is it" });
    assert_eq!(fleet.try_post("/api/v1/agent-config", body).await.0, StatusCode::NOT_FOUND);
}
