//! Snapshots: which there are, what of them must stay, and whether one is whole.

use super::{
    App, Error, Problem,
    extract::{self, Body, Id},
    view::{DrillSnapshot, PinSnapshot},
};
use crate::{
    auth::Principal,
    clock,
    snapshots::{Desk, Snapshot, SnapshotDetail, SnapshotVerified, Snapshots},
    store::{
        audit::{Act, ActOutcome},
        snapshots::{Drill, Pin},
    },
};
use aether_core::id::Digest;
use axum::{Json, extract::State, http::StatusCode};
use std::collections::BTreeMap;

fn desk(app: &App) -> Result<Desk, Error> {
    app.plane().snapshots().ok_or_else(|| Error::NotReady("the snapshot store is not up".into()))
}

fn act(principal: &Principal, action: &str, manifest: &Digest, comment: Option<&str>) -> Act {
    let mut detail = BTreeMap::from([("name".to_owned(), principal.name.clone())]);
    detail.extend(comment.map(|comment| ("comment".to_owned(), comment.to_owned())));
    Act {
        principal: principal.id.clone(),
        rank: Some(principal.rank),
        action: action.into(),
        target: format!("snapshot/{manifest}"),
        outcome: ActOutcome::Done,
        detail,
    }
}

/// All snapshots, the newest first, with what needs them.
#[utoipa::path(get, path = "/snapshots", tag = "snapshots", operation_id = "listSnapshots",
    responses((status = 200, body = Snapshots), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(State(app): State<App>) -> Result<Json<Snapshots>, Error> {
    Ok(Json(desk(&app)?.list().await?))
}

/// One snapshot with its files, by the digest of its manifest.
#[utoipa::path(get, path = "/snapshots/{id}", tag = "snapshots", operation_id = "getSnapshot", params(("id" = String, Path)),
    responses((status = 200, body = SnapshotDetail), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn show(State(app): State<App>, Id(id): Id) -> Result<Json<SnapshotDetail>, Error> {
    Ok(Json(desk(&app)?.show(&Digest(id)).await?))
}

/// Keep a snapshot whatever the limits say, until it is unpinned.
#[utoipa::path(post, path = "/snapshots/{id}/pin", tag = "snapshots", operation_id = "pinSnapshot", params(("id" = String, Path)), request_body = PinSnapshot,
    responses((status = 200, body = Snapshot), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn pin(
    State(app): State<App>,
    principal: Principal,
    Id(id): Id,
    Body(body): Body<PinSnapshot>,
) -> Result<Json<Snapshot>, Error> {
    let comment = extract::comment("comment", &body.comment)?;
    let manifest = Digest(id);
    let act = act(&principal, "snapshot.pin", &manifest, Some(&comment));
    let pin = Pin { at: clock::now(), by: principal.id, name: principal.name, comment };
    Ok(Json(desk(&app)?.pin(&manifest, &pin, act).await?))
}

/// Let a snapshot go when its time has come.
#[utoipa::path(post, path = "/snapshots/{id}/unpin", tag = "snapshots", operation_id = "unpinSnapshot", params(("id" = String, Path)),
    responses((status = 200, body = Snapshot), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn unpin(State(app): State<App>, principal: Principal, Id(id): Id) -> Result<Json<Snapshot>, Error> {
    let manifest = Digest(id);
    let act = act(&principal, "snapshot.unpin", &manifest, None);
    Ok(Json(desk(&app)?.unpin(&manifest, clock::now(), act).await?))
}

/// Remove a snapshot that nothing needs and nobody pinned. It cannot be brought back.
#[utoipa::path(delete, path = "/snapshots/{id}", tag = "snapshots", operation_id = "removeSnapshot", params(("id" = String, Path)),
    responses((status = 204), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn remove(State(app): State<App>, principal: Principal, Id(id): Id) -> Result<StatusCode, Error> {
    let manifest = Digest(id);
    let act = act(&principal, "snapshot.remove", &manifest, None);
    desk(&app)?.remove(&manifest, clock::now(), act).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Read every chunk anew from the store, and check it and the signature.
#[utoipa::path(post, path = "/snapshots/{id}/verify", tag = "snapshots", operation_id = "verifySnapshot", params(("id" = String, Path)),
    responses((status = 200, body = SnapshotVerified), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn verify(State(app): State<App>, Id(id): Id) -> Result<Json<SnapshotVerified>, Error> {
    Ok(Json(desk(&app)?.verify(&Digest(id)).await?))
}

/// Restore a snapshot where nobody notices, to see that it can be. How it ended is told by the snapshot.
#[utoipa::path(post, path = "/snapshots/{id}/drill", tag = "snapshots", operation_id = "drillSnapshot", params(("id" = String, Path)), request_body = DrillSnapshot,
    responses((status = 202, body = Drill), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn drill(
    State(app): State<App>,
    principal: Principal,
    Id(id): Id,
    Body(body): Body<DrillSnapshot>,
) -> Result<(StatusCode, Json<Drill>), Error> {
    let manifest = Digest(id);
    let act = act(&principal, "snapshot.drill", &manifest, None);
    let drill = desk(&app)?.drill(&manifest, body.node, principal.id.as_str(), act).await?;
    Ok((StatusCode::ACCEPTED, Json(drill)))
}
