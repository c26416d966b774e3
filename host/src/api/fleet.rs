//! What there is and how it does: nodes, workloads, risks, telemetry.

use super::{
    App, Error, Problem,
    extract::{Id, Params},
    view::{DrillStatus, EventList, RangeAnswer, RangeSeries, Series, Status, SubjectRisk, Workload},
};
use crate::{clock, fabric::NodeView};
use aether_core::{
    catalogue::{self, Definition},
    id::NodeId,
    metric,
    subject::{SubjectKind, SubjectRef},
    time::Time,
};
use aether_recorder::RangeQuery;
use axum::{Json, extract::State};
use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa::IntoParams;

/// The attribute that names the drill a signal belongs to.
pub(super) const DRILL: &str = "drill";
/// The attribute that says that a notice was taken back, with [`CLEARED`].
pub(super) const STATE: &str = "state";
pub(super) const CLEARED: &str = "cleared";
/// How far back drills are looked for.
const DRILLS_MS: u64 = 86_400_000;
/// The longest range that one query may span.
const RANGE_MS: u64 = 366 * 86_400_000;
/// The most events that one answer holds.
const EVENTS_MAXIMUM: usize = 1_000;
/// Open incidents that the status counts.
const OPEN_COUNTED: u32 = 1_000;

/// How this host does.
#[utoipa::path(get, path = "/status", tag = "fleet", operation_id = "getStatus",
    responses((status = 200, body = Status), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn status(State(app): State<App>) -> Result<Json<Status>, Error> {
    Ok(Json(app.status().await?))
}

impl App {
    pub(super) async fn status(&self) -> Result<Status, Error> {
        let now = clock::now();
        let nodes = self.plane().nodes();
        let open = self.store().incidents(Some(true), None, OPEN_COUNTED).await?;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: self.0.started_at,
            uptime_ms: now.since_ms(self.0.started_at),
            now,
            posture: self.0.parts.posture.clone(),
            bundle: self.plane().bundle(),
            recorder: self.recorder().status().into(),
            drills: self.drills(now).await?,
            simulated_nodes: nodes.iter().filter(|node| is_simulated(node)).map(|node| node.id.clone()).collect(),
            nodes: count(nodes.len()),
            live_nodes: count(nodes.iter().filter(|node| node.live).count()),
            open_incidents: count(open.len()),
            open_breakers: self.plane().breakers().into_iter().filter(|one| one.opened_at.is_some()).collect(),
            break_glass: self.store().owed_break_glass().await?,
            waiting_plans: count(open.iter().filter(|incident| incident.phase == "awaiting_approval").count()),
        })
    }

    /// The drill that runs; and where signals say that they are of one, until the notice is taken back.
    async fn drills(&self, now: Time) -> Result<Vec<DrillStatus>, Error> {
        let mut running: BTreeMap<NodeId, DrillStatus> = BTreeMap::new();
        for event in self.recorder().recent_events(None, now.minus_ms(DRILLS_MS)) {
            if event.subject.kind != SubjectKind::Node || event.name != metric::MARKET_REBALANCE {
                continue;
            }
            let node = NodeId(event.subject.id.clone());
            match event.attributes.get(DRILL) {
                _ if event.attributes.get(STATE).is_some_and(|state| state == CLEARED) => {
                    running.remove(&node);
                }
                Some(name) => {
                    let drill = DrillStatus { name: name.clone(), node: node.clone(), since: event.at };
                    running.entry(node).or_insert(drill);
                }
                None => {}
            }
        }
        if let Some(drill) = self.store().running_drill().await? {
            let status =
                DrillStatus { name: drill.kind.name().into(), node: drill.node.clone(), since: drill.started_at };
            running.insert(drill.node, status);
        }
        Ok(running.into_values().collect())
    }
}

fn is_simulated(node: &NodeView) -> bool {
    node.capabilities.iter().any(|capability| capability.simulated)
}

/// All nodes that ever joined.
#[utoipa::path(get, path = "/nodes", tag = "fleet", operation_id = "listNodes",
    responses((status = 200, body = Vec<NodeView>), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn nodes(State(app): State<App>) -> Json<Vec<NodeView>> {
    Json(app.plane().nodes())
}

impl App {
    pub(super) fn node(&self, id: &str) -> Result<NodeView, Error> {
        self.plane().node(&NodeId::new(id)).ok_or_else(|| Error::NotFound { what: "node", id: id.into() })
    }
}

/// One node.
#[utoipa::path(get, path = "/nodes/{id}", tag = "fleet", operation_id = "getNode", params(("id" = String, Path)),
    responses((status = 200, body = NodeView), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn node(State(app): State<App>, Id(id): Id) -> Result<Json<NodeView>, Error> {
    app.node(&id).map(Json)
}

/// The verb catalogue: what can be done, its class, its arguments with their bounds, and what undoes it.
#[utoipa::path(get, path = "/verbs", tag = "fleet", operation_id = "listVerbs",
    responses((status = 200, body = Vec<Definition>), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn verbs() -> Json<Vec<Definition>> {
    Json(catalogue::definitions())
}

/// The series that the recorder's hot window holds of a node.
#[utoipa::path(get, path = "/nodes/{id}/series", tag = "telemetry", operation_id = "listNodeSeries", params(("id" = String, Path)),
    responses((status = 200, body = Vec<Series>), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn node_series(State(app): State<App>, Id(id): Id) -> Result<Json<Vec<Series>>, Error> {
    app.node(&id)?;
    let series = app.recorder().series(Some(&SubjectRef::node(id)));
    Ok(Json(series.into_iter().map(Into::into).collect()))
}

/// All workloads, with their newest progress.
#[utoipa::path(get, path = "/workloads", tag = "fleet", operation_id = "listWorkloads",
    responses((status = 200, body = Vec<Workload>), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn workloads(State(app): State<App>) -> Json<Vec<Workload>> {
    let mut workloads = Vec::new();
    for node in app.plane().nodes() {
        for workload in node.workloads {
            let subject = SubjectRef::workload(workload.id.as_str());
            let progress = app
                .recorder()
                .latest(&subject, metric::WORKLOAD_PROGRESS)
                .into_iter()
                .map(|(_, sample)| sample)
                .max_by_key(|sample| sample.at);
            workloads.push(Workload {
                id: workload.id,
                name: workload.name,
                node: node.id.clone(),
                node_live: node.live,
                tier: workload.tier,
                generation: workload.generation,
                state: workload.state,
                since: workload.since,
                pid: workload.pid,
                adopted: workload.adopted,
                progress: progress.map(|sample| sample.value),
                progress_at: progress.map(|sample| sample.at),
            });
        }
    }
    workloads.sort_by(|a, b| (&a.id, b.generation).cmp(&(&b.id, a.generation)));
    Json(workloads)
}

/// The newest word on every subject that is scored.
#[utoipa::path(get, path = "/risks", tag = "fleet", operation_id = "listRisks",
    responses((status = 200, body = Vec<SubjectRisk>), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn risks(State(app): State<App>) -> Json<Vec<SubjectRisk>> {
    Json(app.plane().risks())
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SubjectParams {
    /// `<kind>/<id>`, such as `workload/demo-counter`.
    subject: String,
}

/// The series that the recorder's hot window holds of any subject.
#[utoipa::path(get, path = "/telemetry/series", tag = "telemetry", operation_id = "listSeries", params(SubjectParams),
    responses((status = 200, body = Vec<Series>), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn telemetry_series(
    State(app): State<App>,
    Params(params): Params<SubjectParams>,
) -> Result<Json<Vec<Series>>, Error> {
    let series = app.recorder().series(Some(&subject(&params.subject)?));
    Ok(Json(series.into_iter().map(Into::into).collect()))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RangeParams {
    /// `<kind>/<id>`, such as `node/node-a`.
    subject: String,
    /// Such as `system.cpu.utilization`.
    metric: String,
    /// Inclusive. Default: 15 minutes before `to`.
    from: Option<i64>,
    /// Exclusive. Default: now.
    to: Option<i64>,
    /// Buckets a series at most. Default 300, 1 to 10,000.
    points: Option<u32>,
}

/// A metric of a subject over a time, in buckets. Reads the sealed segments where the hot window does not reach back.
#[utoipa::path(get, path = "/telemetry/range", tag = "telemetry", operation_id = "getRange", params(RangeParams),
    responses((status = 200, body = RangeAnswer), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn telemetry_range(
    State(app): State<App>,
    Params(params): Params<RangeParams>,
) -> Result<Json<RangeAnswer>, Error> {
    let wrong = |name: &str, reason: String| Error::Parameter { name: name.into(), reason };
    let to = params.to.map_or_else(|| clock::now().plus_ms(1), Time);
    let from = params.from.map_or_else(|| to.minus_ms(900_000), Time);
    if from >= to {
        return Err(wrong("from", format!("{} is not before `to`, {}", from.0, to.0)));
    }
    if to.since_ms(from) > RANGE_MS {
        return Err(wrong("from", format!("the range is longer than {RANGE_MS} ms")));
    }
    let points = params.points.unwrap_or(300);
    if !(1..=10_000).contains(&points) {
        return Err(wrong("points", format!("{points} is not between 1 and 10000")));
    }
    if params.metric.is_empty() || params.metric.len() > 256 {
        return Err(wrong("metric", "a name has 1 to 256 bytes".into()));
    }
    let query = RangeQuery {
        subject: subject(&params.subject)?,
        metric: params.metric,
        from,
        to,
        max_points: usize::try_from(points).unwrap_or(300),
    };
    let answer = app.recorder().range_deep(&query).await.map_err(Error::internal)?;
    let series: Vec<RangeSeries> = answer.series.into_iter().map(Into::into).collect();
    let unreadable = u32::try_from(answer.unreadable).unwrap_or(u32::MAX);
    Ok(Json(RangeAnswer { from, to, series, cut: answer.cut, unreadable }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsParams {
    /// `<kind>/<id>`. Default: all subjects.
    subject: Option<String>,
    /// Default: the last hour.
    since: Option<i64>,
    /// Default 200, 1 to 1,000; the newest are kept.
    limit: Option<u32>,
}

/// Discrete happenings in the hot window: Xid errors, notices of a provider, processes that exited.
#[utoipa::path(get, path = "/telemetry/events", tag = "telemetry", operation_id = "listTelemetryEvents", params(EventsParams),
    responses((status = 200, body = EventList), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn telemetry_events(
    State(app): State<App>,
    Params(params): Params<EventsParams>,
) -> Result<Json<EventList>, Error> {
    let wanted = params.subject.as_deref().map(subject).transpose()?;
    let since = params.since.map_or_else(|| clock::now().minus_ms(3_600_000), Time);
    let limit = usize::try_from(params.limit.unwrap_or(200)).unwrap_or(EVENTS_MAXIMUM).clamp(1, EVENTS_MAXIMUM);
    let mut events = app.recorder().recent_events(wanted.as_ref(), since);
    let cut = events.len() > limit;
    events.drain(..events.len().saturating_sub(limit));
    Ok(Json(EventList { events, cut }))
}

/// `<kind>/<id>` as a subject.
pub(super) fn subject(text: &str) -> Result<SubjectRef, Error> {
    let wrong = || Error::Parameter {
        name: "subject".into(),
        reason: format!("`{text}` is not `<kind>/<id>` with a kind of node, gpu, workload, pool or participant"),
    };
    let (kind, id) = text.split_once('/').ok_or_else(wrong)?;
    let kind = match kind {
        "node" => SubjectKind::Node,
        "gpu" => SubjectKind::Gpu,
        "workload" => SubjectKind::Workload,
        "pool" => SubjectKind::Pool,
        "participant" => SubjectKind::Participant,
        _ => return Err(wrong()),
    };
    if id.is_empty() || id.len() > 256 {
        return Err(wrong());
    }
    Ok(SubjectRef { kind, id: id.into() })
}
