//! How closely people look at what the gates have them approve.

use super::{App, Error, Problem};
use aether_core::incident::scrutiny::{Scrutiny, asked, scrutiny};
use axum::{Json, extract::State};

/// Incidents that are looked at, the newest.
const INCIDENTS_MAXIMUM: u32 = 500;

/// By gate: what became of the approvals that it asked for in the newest 500 incidents.
#[utoipa::path(get, path = "/gates", tag = "incidents", operation_id = "listGates",
    responses((status = 200, body = Vec<Scrutiny>), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(State(app): State<App>) -> Result<Json<Vec<Scrutiny>>, Error> {
    let journals = app.store().recent_journals(INCIDENTS_MAXIMUM).await?;
    Ok(Json(scrutiny(journals.iter().flat_map(|journal| asked(journal)))))
}
