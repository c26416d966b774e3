//! Breakers: how they stand, and closing one after somebody looked.

use super::{
    App, Error, Problem,
    extract::{self, Body},
    view::ResetBreaker,
};
use crate::{
    auth::Principal,
    store::audit::{Act, ActOutcome},
};
use aether_core::breaker::{Scope, Standing};
use axum::{Json, extract::State};
use std::collections::BTreeMap;

/// The breakers that are open or have something to count. None: nothing was begun within the window.
#[utoipa::path(get, path = "/breakers", tag = "incidents", operation_id = "listBreakers",
    responses((status = 200, body = Vec<Standing>), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(State(app): State<App>) -> Result<Json<Vec<Standing>>, Error> {
    Ok(Json(app.plane().breakers()))
}

/// Close a breaker: what was begun in its scope before counts no more.
#[utoipa::path(post, path = "/breakers/reset", tag = "incidents", operation_id = "resetBreaker", request_body = ResetBreaker,
    responses((status = 200, body = Vec<Standing>), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn reset(
    State(app): State<App>,
    principal: Principal,
    Body(body): Body<ResetBreaker>,
) -> Result<Json<Vec<Standing>>, Error> {
    let wrong = || {
        Error::Body(format!(
            "`scope` is `{}`: it must be `fleet`, or such as `node/node-a` and `pool/spot`",
            body.scope
        ))
    };
    let scope = Scope::parse(&body.scope).ok_or_else(wrong)?;
    let comment = extract::comment("comment", &body.comment)?;
    let detail = BTreeMap::from([("comment".to_owned(), comment), ("name".to_owned(), principal.name.clone())]);
    let act = Act {
        principal: principal.id,
        rank: Some(principal.rank),
        action: "breaker.reset".into(),
        target: format!("breaker/{scope}"),
        outcome: ActOutcome::Done,
        detail,
    };
    if !app.plane().reset_breaker(&scope, act).await? {
        return Err(Error::Breaker(format!("the breaker of {scope} is not open")));
    }
    Ok(Json(app.plane().breakers()))
}
