//! Cordons: a person's word that nothing be placed on a node, and lifting it.

use super::{
    App, Error, Problem,
    extract::{self, Body, Id},
    view::CordonWord,
};
use crate::{
    auth::Principal,
    clock,
    fabric::{Cordon, NodeView},
    store::audit::{Act, ActOutcome},
};
use axum::{Json, extract::State};
use std::collections::BTreeMap;

/// Have nothing placed on a node, until a person lifts it. What runs there goes on.
#[utoipa::path(post, path = "/nodes/{id}/cordon", tag = "fleet", operation_id = "cordonNode", params(("id" = String, Path)), request_body = CordonWord,
    responses((status = 200, body = NodeView), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn cordon(
    State(app): State<App>,
    principal: Principal,
    Id(id): Id,
    Body(word): Body<CordonWord>,
) -> Result<Json<NodeView>, Error> {
    change(&app, principal, &id, word, true).await
}

/// Let things be placed on a node again. A drain by a plan is not lifted by it.
#[utoipa::path(post, path = "/nodes/{id}/uncordon", tag = "fleet", operation_id = "uncordonNode", params(("id" = String, Path)), request_body = CordonWord,
    responses((status = 200, body = NodeView), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn uncordon(
    State(app): State<App>,
    principal: Principal,
    Id(id): Id,
    Body(word): Body<CordonWord>,
) -> Result<Json<NodeView>, Error> {
    change(&app, principal, &id, word, false).await
}

async fn change(app: &App, by: Principal, id: &str, word: CordonWord, set: bool) -> Result<Json<NodeView>, Error> {
    let node = app.node(id)?;
    let reason = extract::comment("reason", &word.reason)?;
    let at = clock::now();
    let act = Act {
        principal: by.id.clone(),
        rank: Some(by.rank),
        action: if set { "node.cordon" } else { "node.uncordon" }.into(),
        target: format!("node/{id}"),
        outcome: ActOutcome::Done,
        detail: BTreeMap::from([("reason".to_owned(), reason.clone()), ("name".to_owned(), by.name.clone())]),
    };
    let cordon = set.then_some(Cordon { by: by.id, name: by.name, at, reason });
    if !app.plane().set_cordon(&node.id, cordon, at, act).await? {
        return Err(Error::Cordon(match app.node(id)?.cordon {
            Some(Cordon { name, reason, .. }) => format!("{id} is cordoned already, by {name}: {reason}"),
            None => format!("{id} is not cordoned by a person"),
        }));
    }
    app.node(id).map(Json)
}
