//! Dead letters: batches of telemetry that were refused for good. Looking at them, offering one again, removing one.

use super::{
    App, Error, Problem,
    extract::{Id, Params},
    view::{DeadLetterDetail, DeadLetterList, DeadLetterPart, DeadLetterReplay},
};
use crate::{
    auth::Principal,
    clock,
    fabric::{NotReplayed, Replayed},
    store::audit::{Act, ActOutcome},
};
use aether_core::{id::NodeId, telemetry::Batch};
use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa::IntoParams;

/// Series and events of a letter that one answer shows.
const PARTS_MAXIMUM: usize = 200;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LettersParams {
    /// Of this node alone.
    origin: Option<String>,
    /// Below this number: `next_before` of the page before.
    before: Option<u64>,
    /// Default 50, 1 to 200.
    limit: Option<u32>,
}

/// Batches of telemetry that were refused for good, newest first.
#[utoipa::path(get, path = "/telemetry/dead-letters", tag = "telemetry", operation_id = "listDeadLetters", params(LettersParams),
    responses((status = 200, body = DeadLetterList), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(app): State<App>,
    Params(params): Params<LettersParams>,
) -> Result<Json<DeadLetterList>, Error> {
    let limit = params.limit.unwrap_or(50).clamp(1, 200);
    let letters = app.store().dead_letters(params.origin.map(NodeId).as_ref(), params.before, limit).await?;
    let full = u32::try_from(letters.len()).is_ok_and(|found| found == limit);
    let next_before = letters.last().filter(|_| full).map(|letter| letter.number);
    Ok(Json(DeadLetterList { letters, next_before }))
}

/// One of them: what it says, as far as it can be read now.
#[utoipa::path(get, path = "/telemetry/dead-letters/{id}", tag = "telemetry", operation_id = "getDeadLetter", params(("id" = String, Path)),
    responses((status = 200, body = DeadLetterDetail), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn show(State(app): State<App>, Id(id): Id) -> Result<Json<DeadLetterDetail>, Error> {
    let found = app.plane().read_dead_letter(number(&id)?).await?;
    let (letter, read) = found.ok_or(Error::NotFound { what: "dead letter", id })?;
    let (batch, obstacle) = match read {
        Ok(batch) => (Some(batch), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let samples = batch.as_ref().map_or(0, |batch| batch.series.values().len());
    let events = batch.as_ref().map_or(0, |batch| batch.events.len());
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let (parts, cut) = batch.map_or((vec![], false), parts);
    Ok(Json(DeadLetterDetail { letter, samples: count(samples), events: count(events), parts, cut, obstacle }))
}

/// Offer a dead letter again. It goes through the checks of today, and is safe on disk when the answer comes. A second
/// replay doubles nothing.
#[utoipa::path(post, path = "/telemetry/dead-letters/{id}/replay", tag = "telemetry", operation_id = "replayDeadLetter", params(("id" = String, Path)),
    responses((status = 200, body = DeadLetterReplay), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn replay(
    State(app): State<App>,
    principal: Principal,
    Id(id): Id,
) -> Result<Json<DeadLetterReplay>, Error> {
    let number = number(&id)?;
    let act = act(&principal, "telemetry.replay", number);
    let refused = Act { outcome: ActOutcome::Refused, ..act.clone() };
    match app.plane().replay_dead_letter(number, act).await {
        Ok(replayed) => Ok(Json(DeadLetterReplay { number, doubled_nothing: replayed == Replayed::Before })),
        Err(NotReplayed::Unknown(_)) => Err(Error::NotFound { what: "dead letter", id }),
        Err(NotReplayed::Full) => Err(Error::Full),
        Err(NotReplayed::Store(error)) => Err(error.into()),
        Err(error @ NotReplayed::NotSealed(_)) => Err(Error::internal(error)),
        Err(error @ (NotReplayed::NotKept | NotReplayed::Refused { .. })) => {
            let mut refused = refused;
            refused.detail.insert("reason".into(), error.to_string());
            app.store().audit(clock::now(), refused).await?;
            Err(Error::DeadLetter(error.to_string()))
        }
    }
}

/// Remove a dead letter.
#[utoipa::path(delete, path = "/telemetry/dead-letters/{id}", tag = "telemetry", operation_id = "removeDeadLetter", params(("id" = String, Path)),
    responses((status = 204, description = "Removed"), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn remove(State(app): State<App>, principal: Principal, Id(id): Id) -> Result<StatusCode, Error> {
    let number = number(&id)?;
    let act = act(&principal, "telemetry.remove", number);
    if !app.store().remove_dead_letter(number, clock::now(), act).await? {
        return Err(Error::NotFound { what: "dead letter", id });
    }
    Ok(StatusCode::NO_CONTENT)
}

fn number(id: &str) -> Result<u64, Error> {
    id.parse().map_err(|_| Error::NotFound { what: "dead letter", id: id.to_owned() })
}

fn act(by: &Principal, action: &str, number: u64) -> Act {
    Act {
        principal: by.id.clone(),
        rank: Some(by.rank),
        action: action.into(),
        target: format!("dead-letter/{number}"),
        outcome: ActOutcome::Done,
        detail: BTreeMap::from([("name".to_owned(), by.name.clone())]),
    }
}

fn parts(batch: Batch) -> (Vec<DeadLetterPart>, bool) {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let series = batch.series.iter().map(|series| DeadLetterPart {
        subject: series.key.subject.clone(),
        name: series.key.metric.clone(),
        attributes: series.key.attributes.clone(),
        samples: count(series.times.len()),
        first: series.times.first().copied(),
        last: series.times.last().copied(),
    });
    let events = batch.events.into_iter().map(|event| DeadLetterPart {
        subject: event.subject,
        name: event.name,
        attributes: event.attributes,
        samples: 0,
        first: Some(event.at),
        last: Some(event.at),
    });
    let mut parts: Vec<_> = series.chain(events).take(PARTS_MAXIMUM + 1).collect();
    let cut = parts.len() > PARTS_MAXIMUM;
    parts.truncate(PARTS_MAXIMUM);
    (parts, cut)
}
