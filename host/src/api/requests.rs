//! Requests: a person asks for one verb on one target. Nothing is decided here: it is judged and approved as any plan is.

use super::{
    App, Error, Problem,
    extract::{self, Body},
    fleet,
    view::{RequestPlan, RequestedPlan},
};
use crate::{auth::Principal, control::Ask, store::audit::ActOutcome};
use axum::{Json, extract::State, http::StatusCode};
use std::collections::BTreeMap;

/// Ask for a verb to be carried out. It is judged by the gates like any plan, and whoever asks cannot approve it.
#[utoipa::path(post, path = "/requests", tag = "incidents", operation_id = "requestPlan", request_body = RequestPlan,
    responses((status = 201, body = RequestedPlan), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn request(
    State(app): State<App>,
    principal: Principal,
    Body(wish): Body<RequestPlan>,
) -> Result<(StatusCode, Json<RequestedPlan>), Error> {
    let RequestPlan { verb, target, arguments, reason } = wish;
    let reason = extract::comment("reason", &reason)?;
    let subject = fleet::subject(&target)?;
    let (by, name, rank) = (principal.id.clone(), principal.name.clone(), principal.rank);
    let ask = Ask { by, name, rank, verb: verb.clone(), target: subject, arguments, reason: reason.clone() };
    match app.plane().request(ask).await {
        Ok(incident) => Ok((StatusCode::CREATED, Json(RequestedPlan { incident }))),
        Err(refused) => {
            let why = refused.to_string();
            let detail = [("verb", verb), ("reason", reason), ("refusal", why.clone())];
            let detail: BTreeMap<_, _> = detail.map(|(name, text)| (name.to_owned(), text)).into();
            app.audit(&principal, "plan.request", target, ActOutcome::Refused, detail).await?;
            Err(Error::Request(why))
        }
    }
}
