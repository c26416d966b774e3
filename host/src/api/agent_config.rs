//! What agents are told to collect: a person's word for the fleet, or for one node.

use super::{
    App, Error, Problem,
    extract::{self, Body},
    view::ConfigureAgents,
};
use crate::{
    auth::Principal,
    clock,
    fabric::Configured,
    store::audit::{Act, ActOutcome},
};
use axum::{Json, extract::State};
use std::collections::BTreeMap;

/// What people want of agents' telemetry now: of the fleet, and of nodes that have their own.
#[utoipa::path(get, path = "/agent-config", tag = "fleet", operation_id = "listAgentConfig",
    responses((status = 200, body = Vec<Configured>), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(State(app): State<App>) -> Json<Vec<Configured>> {
    Json(app.plane().agent_configs())
}

/// Have agents collect otherwise, at once: all of them, or one node's. Each follows within what its own configuration
/// permits, and says what it did not.
#[utoipa::path(post, path = "/agent-config", tag = "fleet", operation_id = "configureAgents", request_body = ConfigureAgents,
    responses((status = 200, body = Configured), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn configure(
    State(app): State<App>,
    by: Principal,
    Body(ConfigureAgents { node, collection, reason }): Body<ConfigureAgents>,
) -> Result<Json<Configured>, Error> {
    let node = node.map(|node| app.node(&node).map(|node| node.id)).transpose()?;
    let reason = extract::comment("reason", &reason)?;
    if let Some(collection) = &collection {
        collection.check().map_err(Error::Body)?;
    }
    let wanted = serde_json::to_string(&collection).unwrap_or_default();
    let act = Act {
        principal: by.id.clone(),
        rank: Some(by.rank),
        action: "agents.configure".into(),
        target: node.as_ref().map_or_else(|| "fleet".into(), |node| format!("node/{node}")),
        outcome: ActOutcome::Done,
        detail: BTreeMap::from([
            ("collection".to_owned(), wanted),
            ("name".to_owned(), by.name.clone()),
            ("reason".to_owned(), reason.clone()),
        ]),
    };
    let word = Configured { version: 0, node, collection, by: by.id, name: by.name, at: clock::now(), reason };
    Ok(Json(app.plane().configure_agents(word, act).await?))
}
