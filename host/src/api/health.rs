//! For machines that watch this one: is it alive, can it work, what are its figures?

use super::App;
use crate::{clock, plugins::metric};
use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Serialize;
use std::sync::{Mutex, PoisonError};

/// How long the recorder may be without a seal that succeeds before this host is not ready.
const SEAL_LATE_MS: u64 = 120_000;

pub(super) fn router() -> Router<App> {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).route("/metrics", get(metrics))
}

/// Makes this process count. Figures are of the process: a second host in it gives the same ones.
pub fn install_metrics() -> Result<PrometheusHandle, BuildError> {
    static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(metric::FUEL.into()), &metric::FUEL_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(metric::DURATION.into()), &metric::SECONDS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(aether_runtime::metric::FUEL.into()), &metric::FUEL_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(aether_runtime::metric::DURATION.into()), &metric::SECONDS_BUCKETS)?
        .install_recorder()?;
    *installed = Some(handle.clone());
    Ok(handle)
}

/// Answers if the process does.
async fn healthz() -> &'static str {
    "ok\n"
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    checks: Vec<CheckResult>,
}

#[derive(Serialize)]
struct CheckResult {
    name: &'static str,
    ok: bool,
    reason: Option<String>,
}

async fn readyz(State(app): State<App>) -> Response {
    let store = app.store().ping().await.err().map(|error| error.to_string());
    let recorder = app.recorder().status();
    let late = recorder.last_sealed.is_some_and(|sealed| clock::now().since_ms(sealed) > SEAL_LATE_MS);
    let recorder = recorder.seal_error.filter(|_| late || recorder.last_sealed.is_none());
    let mut checks = vec![
        CheckResult { name: "store", ok: store.is_none(), reason: store },
        CheckResult { name: "recorder", ok: recorder.is_none(), reason: recorder },
    ];
    checks.extend(app.plane().checks().into_iter().map(|check| CheckResult {
        name: check.name,
        ok: check.failure.is_none(),
        reason: check.failure,
    }));
    let ready = checks.iter().all(|check| check.ok);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, checks })).into_response()
}

/// Figures in Prometheus' text format. They name no subject and no person, so no token is asked for.
async fn metrics(State(app): State<App>) -> Response {
    let Some(handle) = &app.0.parts.metrics else {
        return (StatusCode::SERVICE_UNAVAILABLE, "metrics are not collected in this process\n").into_response();
    };
    let recorder = app.recorder().status();
    let nodes = app.plane().nodes();
    // Gauges are set when they are read: nothing has to remember to.
    let gauge = |name: &'static str, value: f64| metrics::gauge!(name).set(value);
    gauge("aether_uptime_seconds", clock::now().since_ms(app.0.started_at) as f64 / 1_000.0);
    gauge("aether_nodes", nodes.len() as f64);
    gauge("aether_nodes_live", nodes.iter().filter(|node| node.live).count() as f64);
    gauge("aether_recorder_series", recorder.series as f64);
    gauge("aether_recorder_samples", recorder.samples as f64);
    gauge("aether_recorder_hot_bytes", recorder.hot_bytes as f64);
    gauge("aether_recorder_unsealed_bytes", recorder.unsealed_bytes as f64);
    gauge("aether_recorder_segment_bytes", recorder.segment_bytes as f64);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], handle.render()).into_response()
}
