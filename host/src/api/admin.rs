//! Tokens, join tokens, and the audit.

use super::{
    App, Error, Problem,
    extract::{Body, Id, Params},
    view::{AuditLine, AuditPage, CreatedJoinToken, CreatedToken, NewJoinToken, NewToken},
};
use crate::{
    auth::{self, IssueError, Principal},
    clock,
    store::{self, audit::ActOutcome, tokens::TokenInfo},
};
use aether_core::id::{PrincipalId, is_name};
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa::IntoParams;

const HOUR_MS: u64 = 3_600_000;
const JOIN_MAXIMUM_MS: u64 = 7 * 24 * HOUR_MS;
const TOKEN_MAXIMUM_MS: u64 = 3_650 * 24 * HOUR_MS;

/// Make a token with which one node can join, once.
#[utoipa::path(post, path = "/join-tokens", tag = "admin", operation_id = "createJoinToken", request_body = NewJoinToken,
    responses((status = 201, body = CreatedJoinToken), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create_join_token(
    State(app): State<App>,
    principal: Principal,
    Body(new): Body<NewJoinToken>,
) -> Result<(StatusCode, Json<CreatedJoinToken>), Error> {
    let valid_for_ms = within(new.valid_for_ms.unwrap_or(HOUR_MS), JOIN_MAXIMUM_MS)?;
    if let Some(node) = &new.node
        && !is_name(node.as_str())
    {
        return Err(Error::Body("`node` must be 1 to 63 of a-z, 0-9, `-` and `.`".into()));
    }
    let expires_at = clock::now().plus_ms(valid_for_ms);
    let token = app.plane().create_join_token(new.node.as_ref(), expires_at).await?;
    let target = new.node.map_or_else(|| "any node".to_owned(), |node| format!("node/{node}"));
    app.audit(&principal, "join-token.create", target, ActOutcome::Done, BTreeMap::new()).await?;
    Ok((StatusCode::CREATED, Json(CreatedJoinToken { token, expires_at })))
}

/// The API tokens that are not deleted, without their secrets.
#[utoipa::path(get, path = "/tokens", tag = "admin", operation_id = "listTokens",
    responses((status = 200, body = Vec<TokenInfo>), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn tokens(State(app): State<App>) -> Result<Json<Vec<TokenInfo>>, Error> {
    Ok(Json(app.store().tokens().await?))
}

/// Make an API token. The answer is the one time that it is shown.
#[utoipa::path(post, path = "/tokens", tag = "admin", operation_id = "createToken", request_body = NewToken,
    responses((status = 201, body = CreatedToken), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create_token(
    State(app): State<App>,
    principal: Principal,
    Body(new): Body<NewToken>,
) -> Result<(StatusCode, Json<CreatedToken>), Error> {
    let name = new.name.trim();
    if name.is_empty() || name.chars().count() > 64 || name.chars().any(char::is_control) {
        return Err(Error::Body("`name` must be 1 to 64 characters, without control characters".into()));
    }
    let now = clock::now();
    let expires_at = match new.valid_for_ms {
        Some(ms) => Some(now.plus_ms(within(ms, TOKEN_MAXIMUM_MS)?)),
        None => None,
    };
    let by = principal.id.as_str();
    let issued = auth::issue_for(app.store(), name, new.rank, new.scope, by, now, expires_at).await;
    let (token, info) = issued.map_err(|error| match error {
        IssueError::Store(error) => Error::from(error),
        IssueError::Random(error) => Error::internal(error),
    })?;
    let detail = BTreeMap::from([
        ("token-name".to_owned(), info.name.clone()),
        ("token-rank".to_owned(), info.rank.name().to_owned()),
        ("token-scope".to_owned(), info.scope.name().to_owned()),
    ]);
    app.audit(&principal, "token.create", info.id.0.clone(), ActOutcome::Done, detail).await?;
    Ok((StatusCode::CREATED, Json(CreatedToken { token, info })))
}

/// Delete an API token: it and the sessions made from it are of no use from now on.
#[utoipa::path(delete, path = "/tokens/{id}", tag = "admin", operation_id = "deleteToken", params(("id" = String, Path)),
    responses((status = 204, description = "Deleted"), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete_token(
    State(app): State<App>,
    principal: Principal,
    Id(id): Id,
) -> Result<StatusCode, Error> {
    let id = PrincipalId(id);
    if id == principal.id {
        let why =
            "this is the token that you are using; delete it with another one, so that somebody can still sign in";
        return Err(Error::Conflict(why.into()));
    }
    if !app.store().delete_token(&id, clock::now()).await? {
        return Err(Error::NotFound { what: "token", id: id.0 });
    }
    app.audit(&principal, "token.delete", id.0, ActOutcome::Done, BTreeMap::new()).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditParams {
    /// Below this number: `next_before` of the page before.
    before: Option<u64>,
    /// Default 50, 1 to 200.
    limit: Option<u32>,
    /// Walk the whole chain, too. Default: no.
    verify: Option<bool>,
}

/// What was done and refused, newest first.
#[utoipa::path(get, path = "/audit", tag = "admin", operation_id = "listAudit", params(AuditParams),
    responses((status = 200, body = AuditPage), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn audit(
    State(app): State<App>,
    Params(params): Params<AuditParams>,
) -> Result<Json<AuditPage>, Error> {
    let limit = params.limit.unwrap_or(50).clamp(1, 200);
    let entries = app.store().audit_entries(params.before, limit).await?;
    let full = u32::try_from(entries.len()).is_ok_and(|found| found == limit);
    let next_before = entries.last().filter(|last| full && last.number > 1).map(|last| last.number);
    let (mut chain_verified, mut chain_broken_at, mut chain_broken_why, mut chain_head) = (None, None, None, None);
    if params.verify == Some(true) {
        match app.store().verify_audit(vec![]).await? {
            Ok(head) => (chain_verified, chain_head) = (Some(true), Some(head)),
            Err(broken) => {
                chain_verified = Some(false);
                chain_broken_at = Some(broken.number);
                chain_broken_why = Some(broken.why.to_string());
            }
        }
    }
    Ok(Json(AuditPage { entries, next_before, chain_verified, chain_broken_at, chain_broken_why, chain_head }))
}

/// The whole audit, oldest first, as JSON lines: an entry each, and at the end how far the chain goes. Note that last
/// line elsewhere: it shows later that nothing was cut off.
#[utoipa::path(get, path = "/audit/export", tag = "admin", operation_id = "exportAudit",
    responses((status = 200, description = "JSON lines: entries, then one head", body = String, content_type = "application/x-ndjson"), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn export_audit(State(app): State<App>) -> Result<Response, Error> {
    let head = app.store().audit_head().await?;
    let name = format!("attachment; filename=\"aether-audit-{}.jsonl\"", head.number);
    let store = app.store().clone();
    // A page at a time: the audit is larger than what should be in memory.
    let lines = futures::stream::try_unfold(Some(0_u64), move |after| {
        let (store, head) = (store.clone(), head.clone());
        async move {
            let Some(after) = after else { return Ok::<_, store::Error>(None) };
            if after >= head.number {
                return Ok(Some((line(&AuditLine::Head(head)), None)));
            }
            let entries = store.audit_after(after).await?;
            let entries: Vec<_> = entries.into_iter().take_while(|entry| entry.number <= head.number).collect();
            // Without an entry, the end was taken out meanwhile; the head that follows shows it.
            let next = entries.last().map_or(head.number, |entry| entry.number);
            let text: String = entries.into_iter().map(|entry| line(&AuditLine::Entry(Box::new(entry)))).collect();
            Ok(Some((text, Some(next))))
        }
    });
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson".to_owned()), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, axum::body::Body::from_stream(lines)).into_response())
}

fn line(line: &AuditLine) -> String {
    let text = serde_json::to_string(line).expect("an entry has string keys");
    text + "\n"
}

fn within(ms: u64, maximum: u64) -> Result<u64, Error> {
    if (1_000..=maximum).contains(&ms) {
        Ok(ms)
    } else {
        Err(Error::Body(format!("`valid_for_ms` is {ms}: it must be between 1000 and {maximum}")))
    }
}
