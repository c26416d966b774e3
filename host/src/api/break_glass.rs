//! Break-glass: leave to approve alone, for a short time, when nobody else can be reached. It is asked for with a reason,
//! ends by itself, is in the audit with all that was approved under it, and somebody else owes it a review.

use super::{
    App, Error, Problem,
    extract::{self, Body, Id},
    view::{OpenBreakGlass, ReviewBreakGlass},
};
use crate::{
    auth::Principal,
    clock,
    store::{
        audit::{Act, ActOutcome},
        break_glass::{BreakGlass, Review},
    },
};
use aether_core::{id::BreakGlassId, incident::Rank};
use axum::{Json, extract::State, http::StatusCode};
use std::collections::BTreeMap;

/// How long it is good for where nobody says.
const DEFAULT_MS: u64 = 3_600_000;
/// The longest that it can be asked for.
const MAXIMUM_MS: u64 = 8 * 3_600_000;
const LEAST_MS: u64 = 60_000;

/// Those that are open or owe a review, then the newest of the others.
#[utoipa::path(get, path = "/break-glass", tag = "incidents", operation_id = "listBreakGlass",
    responses((status = 200, body = Vec<BreakGlass>), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(State(app): State<App>) -> Result<Json<Vec<BreakGlass>>, Error> {
    Ok(Json(app.store().break_glass().await?))
}

/// Take leave to approve alone. One approval under it, with a comment, stands for as many as a plan asks for, of
/// whatever role; it is still of exactly one hash, in time, and of no plan that you asked for yourself.
#[utoipa::path(post, path = "/break-glass", tag = "incidents", operation_id = "openBreakGlass", request_body = OpenBreakGlass,
    responses((status = 201, body = BreakGlass), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn open(
    State(app): State<App>,
    principal: Principal,
    Body(body): Body<OpenBreakGlass>,
) -> Result<(StatusCode, Json<BreakGlass>), Error> {
    let reason = extract::comment("reason", &body.reason)?;
    let valid_for_ms = body.valid_for_ms.unwrap_or(DEFAULT_MS);
    if !(LEAST_MS..=MAXIMUM_MS).contains(&valid_for_ms) {
        let why = format!("`valid_for_ms` is {valid_for_ms}: it must be between {LEAST_MS} and {MAXIMUM_MS} (8 h)");
        return Err(Error::Body(why));
    }
    let now = clock::now();
    let glass = BreakGlass {
        id: BreakGlassId(clock::id("glass")),
        principal: principal.id.clone(),
        name: principal.name.clone(),
        rank: principal.rank,
        reason: reason.clone(),
        opened_at: now,
        expires_at: now.plus_ms(valid_for_ms),
        ended_at: None,
        review: None,
        plans: vec![],
    };
    let detail = [("reason", reason), ("expires-at", glass.expires_at.0.to_string())];
    if !app.store().open_break_glass(&glass, act(&principal, "break-glass.open", &glass.id, detail)).await? {
        return Err(Error::BreakGlass("you hold one already; give it back, or wait until it ends".into()));
    }
    tracing::warn!(principal = %principal.id, glass = %glass.id, "break-glass: somebody may approve alone");
    Ok((StatusCode::CREATED, Json(glass)))
}

/// Give it back before it ends by itself. Whoever holds it, or an administrator.
#[utoipa::path(post, path = "/break-glass/{id}/end", tag = "incidents", operation_id = "endBreakGlass", params(("id" = String, Path)),
    responses((status = 200, body = BreakGlass), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn end(State(app): State<App>, principal: Principal, Id(id): Id) -> Result<Json<BreakGlass>, Error> {
    let glass = app.glass(id).await?;
    if glass.principal != principal.id && principal.rank < Rank::Admin {
        return Err(Error::BreakGlass("it is another person's; an administrator can end it, too".into()));
    }
    if !app.store().end_break_glass(&glass.id, clock::now(), act(&principal, "break-glass.end", &glass.id, [])).await? {
        return Err(Error::BreakGlass("it is over already".into()));
    }
    app.glass(glass.id.0).await.map(Json)
}

/// Say that somebody looked at what was done under it. Not whoever held it.
#[utoipa::path(post, path = "/break-glass/{id}/review", tag = "incidents", operation_id = "reviewBreakGlass", params(("id" = String, Path)), request_body = ReviewBreakGlass,
    responses((status = 200, body = BreakGlass), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn review(
    State(app): State<App>,
    principal: Principal,
    Id(id): Id,
    Body(body): Body<ReviewBreakGlass>,
) -> Result<Json<BreakGlass>, Error> {
    let glass = app.glass(id).await?;
    let comment = extract::comment("comment", &body.comment)?;
    let now = clock::now();
    let refused = if glass.principal == principal.id {
        Some("you held it yourself; another person has to review it")
    } else if glass.is_open(now) {
        Some("it is still open; end it first, so that all that was done under it is looked at")
    } else {
        None
    };
    if let Some(why) = refused {
        let mut act = act(&principal, "break-glass.review", &glass.id, [("reason", why.to_owned())]);
        act.outcome = ActOutcome::Refused;
        app.store().audit(now, act).await?;
        return Err(Error::BreakGlass(why.into()));
    }
    let told = act(&principal, "break-glass.review", &glass.id, [("comment", comment.clone())]);
    let review = Review { by: principal.id.clone(), at: now, comment };
    if !app.store().review_break_glass(&glass.id, &review, told).await? {
        return Err(Error::BreakGlass("it is reviewed already".into()));
    }
    app.glass(glass.id.0).await.map(Json)
}

impl App {
    async fn glass(&self, id: String) -> Result<BreakGlass, Error> {
        let id = BreakGlassId(id);
        let found = self.store().one_break_glass(&id).await?;
        found.ok_or(Error::NotFound { what: "break-glass", id: id.0 })
    }
}

fn act<const N: usize>(by: &Principal, action: &str, id: &BreakGlassId, detail: [(&str, String); N]) -> Act {
    let mut detail: BTreeMap<String, String> =
        detail.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    detail.insert("name".into(), by.name.clone());
    Act {
        principal: by.id.clone(),
        rank: Some(by.rank),
        action: action.into(),
        target: format!("break-glass/{id}"),
        outcome: ActOutcome::Done,
        detail,
    }
}
