//! The one table of endpoints with the rank each needs.

use super::{
    App, access, admin, agent_config, backtests, break_glass, breakers, cordons, dead_letters, drills, events, exports,
    fleet, gates, incidents, plugins, registry, requests, session, signals, slots, snapshots,
};
use aether_core::incident::Rank;
use axum::{Router, middleware};
use serde_json::json;
use utoipa::openapi::{
    Components, Info, License, OpenApi, OpenApiBuilder, Paths,
    extensions::ExtensionsBuilder,
    path::Operation,
    security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
};
use utoipa_axum::{router::UtoipaMethodRouter, routes};

/// Who may call an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Anybody: signing in, and the document that tells how.
    Open,
    /// This rank, or a higher one.
    Needs(Rank),
}

fn table() -> Vec<(Access, UtoipaMethodRouter<App>)> {
    use Access::{Needs, Open};
    use Rank::{Admin, Approver, Operator, PolicyAuthor, Viewer};
    vec![
        (Open, routes!(openapi_document)),
        (Open, routes!(session::sign_in)),
        (Open, routes!(session::sign_out)),
        (Needs(Viewer), routes!(session::session)),
        (Needs(Viewer), routes!(fleet::status)),
        (Needs(Viewer), routes!(fleet::nodes)),
        (Needs(Viewer), routes!(fleet::node)),
        (Needs(Operator), routes!(cordons::cordon)),
        (Needs(Operator), routes!(cordons::uncordon)),
        (Needs(Viewer), routes!(agent_config::list)),
        (Needs(Operator), routes!(agent_config::configure)),
        (Needs(Viewer), routes!(fleet::verbs)),
        (Needs(Viewer), routes!(fleet::node_series)),
        (Needs(Viewer), routes!(fleet::workloads)),
        (Needs(Viewer), routes!(fleet::risks)),
        (Needs(Viewer), routes!(fleet::telemetry_series)),
        (Needs(Viewer), routes!(fleet::telemetry_range)),
        (Needs(Viewer), routes!(fleet::telemetry_events)),
        (Needs(Viewer), routes!(exports::export)),
        (Needs(Viewer), routes!(dead_letters::list)),
        (Needs(Viewer), routes!(dead_letters::show)),
        (Needs(Operator), routes!(dead_letters::replay)),
        (Needs(Operator), routes!(dead_letters::remove)),
        (Needs(Viewer), routes!(incidents::incidents)),
        (Needs(Viewer), routes!(incidents::incident)),
        (Needs(Viewer), routes!(exports::evidence)),
        (Needs(Viewer), routes!(incidents::plan)),
        (Needs(Approver), routes!(incidents::approve)),
        (Needs(Approver), routes!(incidents::deny)),
        (Needs(Approver), routes!(incidents::withdraw)),
        (Needs(Operator), routes!(incidents::call_off)),
        (Needs(Viewer), routes!(gates::list)),
        (Needs(Operator), routes!(requests::request)),
        (Needs(Viewer), routes!(breakers::list)),
        (Needs(Operator), routes!(breakers::reset)),
        (Needs(Viewer), routes!(break_glass::list)),
        (Needs(Approver), routes!(break_glass::open)),
        (Needs(Approver), routes!(break_glass::end)),
        (Needs(Approver), routes!(break_glass::review)),
        (Needs(Viewer), routes!(slots::slots)),
        (Needs(Viewer), routes!(slots::generations)),
        (Needs(PolicyAuthor), routes!(slots::add)),
        (Needs(PolicyAuthor), routes!(slots::promote)),
        (Needs(PolicyAuthor), routes!(slots::retire)),
        // It only takes power away.
        (Needs(Operator), routes!(slots::roll_back)),
        (Needs(Viewer), routes!(snapshots::list)),
        (Needs(Viewer), routes!(snapshots::show)),
        (Needs(Operator), routes!(snapshots::pin)),
        (Needs(Operator), routes!(snapshots::unpin)),
        (Needs(Operator), routes!(snapshots::verify)),
        (Needs(Operator), routes!(snapshots::drill)),
        (Needs(Admin), routes!(snapshots::remove)),
        (Needs(Viewer), routes!(registry::plugins)),
        (Needs(Viewer), routes!(registry::plugin)),
        (Needs(Viewer), routes!(registry::download)),
        (Needs(PolicyAuthor), routes!(registry::upload)),
        (Needs(PolicyAuthor), routes!(registry::pull)),
        (Needs(PolicyAuthor), routes!(registry::remove)),
        (Needs(PolicyAuthor), routes!(registry::lift_quarantine)),
        (Needs(PolicyAuthor), routes!(registry::collect_garbage)),
        (Needs(Viewer), routes!(registry::list_assets)),
        (Needs(PolicyAuthor), routes!(registry::upload_assets)),
        (Needs(PolicyAuthor), routes!(registry::remove_assets)),
        (Needs(Viewer), routes!(plugins::decisions)),
        (Needs(Viewer), routes!(plugins::decision)),
        (Needs(Viewer), routes!(backtests::replay)),
        (Needs(Viewer), routes!(backtests::export)),
        (Needs(Viewer), routes!(backtests::list)),
        (Needs(Operator), routes!(backtests::start)),
        (Needs(Viewer), routes!(backtests::get)),
        (Needs(Operator), routes!(backtests::stop)),
        (Needs(Viewer), routes!(backtests::histories)),
        (Needs(Operator), routes!(backtests::put_history)),
        (Needs(Operator), routes!(backtests::put_labels)),
        (Needs(Operator), routes!(backtests::delete_history)),
        (Needs(Operator), routes!(signals::post)),
        (Needs(Viewer), routes!(drills::list)),
        (Needs(Operator), routes!(drills::start)),
        (Needs(Viewer), routes!(drills::get)),
        (Needs(Operator), routes!(drills::stop)),
        (Needs(Admin), routes!(admin::create_join_token)),
        (Needs(Admin), routes!(admin::tokens)),
        (Needs(Admin), routes!(admin::create_token)),
        (Needs(Admin), routes!(admin::delete_token)),
        (Needs(Viewer), routes!(admin::audit)),
        (Needs(Viewer), routes!(admin::export_audit)),
        (Needs(Viewer), routes!(events::events)),
    ]
}

/// The routes below `/api/v1`, each behind its rank.
pub(super) fn router(app: &App) -> Router<App> {
    let mut router = Router::new();
    for (access, (_, paths, handlers)) in table() {
        let handlers = match access {
            Access::Open => handlers,
            Access::Needs(rank) => handlers.layer(middleware::from_fn_with_state((app.clone(), rank), access::check)),
        };
        for path in paths.paths.keys() {
            router = router.route(path, handlers.clone());
        }
    }
    router
}

/// One endpoint, as tests and documents list it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub method: &'static str,
    /// With `/api/v1` before it.
    pub path: String,
    /// None: anybody may call it.
    pub rank: Option<Rank>,
}

pub fn endpoints() -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for (access, (_, mut paths, _)) in table() {
        let rank = match access {
            Access::Open => None,
            Access::Needs(rank) => Some(rank),
        };
        for (path, item) in &mut paths.paths {
            let path = format!("/api/v1{path}");
            for (method, _) in operations(item) {
                endpoints.push(Endpoint { method, path: path.clone(), rank });
            }
        }
    }
    endpoints
}

fn operations(item: &mut utoipa::openapi::PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    [
        ("GET", item.get.as_mut()),
        ("POST", item.post.as_mut()),
        ("PUT", item.put.as_mut()),
        ("PATCH", item.patch.as_mut()),
        ("DELETE", item.delete.as_mut()),
    ]
    .into_iter()
    .filter_map(|(method, operation)| operation.map(|operation| (method, operation)))
}

/// The OpenAPI document: each operation says which rank it needs (`x-aether-rank`).
pub fn openapi() -> OpenApi {
    let mut paths = Paths::new();
    let mut components = Components::new();
    for (access, (schemas, mut part, _)) in table() {
        for (name, schema) in schemas {
            components.schemas.insert(name, schema);
        }
        for (path, item) in &mut part.paths {
            for (_, operation) in operations(item) {
                if let Access::Needs(rank) = access {
                    let none: [&str; 0] = [];
                    operation.security =
                        Some(vec![SecurityRequirement::new("token", none), SecurityRequirement::new("session", none)]);
                    let rank = ExtensionsBuilder::new().add("x-aether-rank", json!(rank.name())).build();
                    operation.extensions.get_or_insert_default().merge(rank);
                }
            }
            let path = format!("/api/v1{path}");
            match paths.paths.get_mut(&path) {
                Some(known) => known.merge_operations(item.clone()),
                None => {
                    paths.paths.insert(path, item.clone());
                }
            }
        }
    }
    components
        .add_security_scheme("token", SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()));
    components
        .add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(crate::auth::COOKIE))));
    let mut license = License::new("Apache-2.0");
    license.identifier = Some("Apache-2.0".into());
    let mut info = Info::new("Aether", env!("CARGO_PKG_VERSION"));
    info.license = Some(license);
    info.description = Some(
        "The control plane. Times are UTC milliseconds since the Unix epoch. Errors are problem documents (RFC 9457) \
         with a stable code. `x-aether-rank` names the least rank that may call an operation."
            .into(),
    );
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components)).build()
}

/// Schemas that two endpoints describe differently under one name, which a generated client could not tell apart.
#[cfg(test)]
fn conflicts() -> Vec<String> {
    let mut seen: std::collections::BTreeMap<String, utoipa::openapi::RefOr<utoipa::openapi::Schema>> =
        std::collections::BTreeMap::new();
    let mut conflicts = std::collections::BTreeSet::new();
    for (_, (schemas, _, _)) in table() {
        for (name, schema) in schemas {
            if seen.get(&name).is_some_and(|known| *known != schema) {
                conflicts.insert(name.clone());
            }
            seen.insert(name, schema);
        }
    }
    conflicts.into_iter().collect()
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "meta", responses((status = 200, description = "An OpenAPI 3.1 document", body = Object)))]
async fn openapi_document() -> axum::Json<OpenApi> {
    axum::Json(openapi())
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_two_schemas_share_a_name() {
        assert_eq!(super::conflicts(), Vec::<String>::new());
    }
}
