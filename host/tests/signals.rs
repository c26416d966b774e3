//! A notice of the cloud's metadata service, asked for by a real agent, leads to an incident; and when it is taken back,
//! that is known, too.

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
    let incident = fleet.until("an incident opens", async |fleet| {
        fleet.get("/api/v1/incidents").await["incidents"].as_array()?.first().cloned()
    });
    let incident = incident.await;
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
