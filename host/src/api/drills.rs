//! Drills: what can be practised, starting one against a node, ending it, and how it was scored.

use super::{
    App, Error, Problem,
    extract::{Body, Id},
    view::{DrillInfo, Drills, StartDrill},
};
use crate::{auth::Principal, drills, store::drills::Drill};
use aether_core::{drill::Kind, id::DrillId};
use axum::{Json, extract::State, http::StatusCode};

/// What can be practised, and the newest drills.
#[utoipa::path(get, path = "/drills", tag = "drills", operation_id = "listDrills",
    responses((status = 200, body = Drills), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(State(app): State<App>) -> Result<Json<Drills>, Error> {
    let kinds = Kind::ALL.into_iter().map(|kind| DrillInfo {
        kind,
        disturbance: kind.disturbance().into(),
        expectation: kind.expectation().into(),
        limit_ms: kind.limit_ms(),
    });
    Ok(Json(Drills { kinds: kinds.collect(), drills: app.store().drills().await? }))
}

/// Start a drill against a node whose agent allows it. One at a time. What follows from it is real.
#[utoipa::path(post, path = "/drills", tag = "drills", operation_id = "startDrill", request_body = StartDrill,
    responses((status = 201, body = Drill), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn start(
    State(app): State<App>,
    principal: Principal,
    Body(body): Body<StartDrill>,
) -> Result<(StatusCode, Json<Drill>), Error> {
    let StartDrill { kind, node, limit_ms } = body;
    let drills = app.plane().drills().ok_or_else(|| Error::NotReady("drills are not up yet".into()))?;
    Ok((StatusCode::CREATED, Json(drills.start(kind, node, limit_ms, by(&principal)).await?)))
}

/// One drill: what was seen of it, and its score as far as it is known.
#[utoipa::path(get, path = "/drills/{id}", tag = "drills", operation_id = "getDrill", params(("id" = String, Path)),
    responses((status = 200, body = Drill), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(State(app): State<App>, Id(id): Id) -> Result<Json<Drill>, Error> {
    let found = app.store().drill(&DrillId(id.clone())).await?;
    found.map(Json).ok_or(Error::NotFound { what: "drill", id })
}

/// End a drill: its disturbance is undone, and it is scored.
#[utoipa::path(post, path = "/drills/{id}/stop", tag = "drills", operation_id = "stopDrill", params(("id" = String, Path)),
    responses((status = 200, body = Drill), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn stop(State(app): State<App>, principal: Principal, Id(id): Id) -> Result<Json<Drill>, Error> {
    let drills = app.plane().drills().ok_or_else(|| Error::NotReady("drills are not up yet".into()))?;
    Ok(Json(drills.stop(&DrillId(id), by(&principal)).await?))
}

fn by(principal: &Principal) -> drills::By {
    drills::By { id: principal.id.clone(), name: principal.name.clone(), rank: principal.rank }
}
