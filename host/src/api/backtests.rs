//! Proof before power: decisions executed again, and candidates asked about history.

use super::{
    App, Error, Problem, Proofs,
    extract::{Body, Id, Params},
    view::{BacktestDetail, BacktestList},
};
use crate::{
    auth::Principal,
    plugins::{
        backtest::{BacktestInfo, BacktestRequest, Backtests, HISTORY_BYTES_LIMIT, HistoryInfo, Mapping, subject_of},
        replay::{File, ReplayVerdict, Replayed},
    },
    store::audit::ActOutcome,
};
use aether_core::{
    decision::Envelope,
    id::{DecisionId, Digest, EntryId, SlotId},
    plan::canonical,
};
use axum::{
    Json,
    body::to_bytes,
    extract::{Request, State},
    http::StatusCode,
};
use bytes::Bytes;
use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa::IntoParams;

/// Executes a decision again, with the component, config and assets that made it, and says whether everything is as
/// recorded, or where not. Changes nothing; it is told in the audit.
#[utoipa::path(post, path = "/decisions/{id}/replay", tag = "plugins", operation_id = "replayDecision", params(("id" = String, Path)),
    responses((status = 200, body = Replayed), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn replay(State(app): State<App>, principal: Principal, Id(id): Id) -> Result<Json<Replayed>, Error> {
    let envelope = app.kept_decision(id).await?;
    let replayed = app.proofs()?.replays.replay(&envelope).await?;
    let detail = BTreeMap::from([("verdict".to_owned(), verdict(replayed.verdict).to_owned())]);
    app.audit(&principal, "decision.replay", replayed.decision.0.clone(), ActOutcome::Done, detail).await?;
    Ok(Json(replayed))
}

/// A decision with everything that it needs to be executed again on another machine, as one file.
#[utoipa::path(get, path = "/decisions/{id}/export", tag = "plugins", operation_id = "exportDecision", params(("id" = String, Path)),
    responses((status = 200, body = File), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn export(State(app): State<App>, Id(id): Id) -> Result<Json<File>, Error> {
    let envelope = app.kept_decision(id).await?;
    Ok(Json(app.proofs()?.replays.export(envelope).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Such as `risk`.
    slot: Option<String>,
    /// Default 50, 1 to 200.
    limit: Option<u32>,
}

/// Backtests, the newest first.
#[utoipa::path(get, path = "/backtests", tag = "backtests", operation_id = "listBacktests", params(ListParams),
    responses((status = 200, body = BacktestList), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(app): State<App>,
    Params(params): Params<ListParams>,
) -> Result<Json<BacktestList>, Error> {
    let slot = params.slot.map(SlotId);
    let backtests = app.backtests()?.list(slot.as_ref(), params.limit.unwrap_or(50).clamp(1, 200)).await?;
    Ok(Json(BacktestList { backtests }))
}

/// Asks a candidate about history, in the background. Answers at once; what it finds is in `getBacktest`.
#[utoipa::path(post, path = "/backtests", tag = "backtests", operation_id = "startBacktest", request_body = BacktestRequest,
    responses((status = 202, body = BacktestInfo), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn start(
    State(app): State<App>,
    principal: Principal,
    Body(request): Body<BacktestRequest>,
) -> Result<(StatusCode, Json<BacktestInfo>), Error> {
    let known = app.plane().nodes().iter().map(crate::control::node_subject).map(|s| (s.subject(), s)).collect();
    let (slot, by) = (request.slot.0.clone(), principal.id.clone());
    let info = app.backtests()?.start(request, known, &by).await?;
    let detail = BTreeMap::from([("slot".to_owned(), slot)]);
    app.audit(&principal, "backtest.start", info.id.clone(), ActOutcome::Done, detail).await?;
    Ok((StatusCode::ACCEPTED, Json(info)))
}

/// One backtest, with its report once it is done.
#[utoipa::path(get, path = "/backtests/{id}", tag = "backtests", operation_id = "getBacktest", params(("id" = String, Path)),
    responses((status = 200, body = BacktestDetail), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(State(app): State<App>, Id(id): Id) -> Result<Json<BacktestDetail>, Error> {
    let found = app.backtests()?.get(&id).await?;
    let (backtest, report) = found.ok_or(Error::NotFound { what: "backtest", id })?;
    Ok(Json(BacktestDetail { backtest, report }))
}

/// Stops a backtest that runs or waits.
#[utoipa::path(post, path = "/backtests/{id}/stop", tag = "backtests", operation_id = "stopBacktest", params(("id" = String, Path)),
    responses((status = 204), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn stop(State(app): State<App>, principal: Principal, Id(id): Id) -> Result<StatusCode, Error> {
    if !app.backtests()?.stop(&id) {
        return Err(Error::NotFound { what: "running backtest", id });
    }
    app.audit(&principal, "backtest.stop", id, ActOutcome::Done, BTreeMap::new()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Histories that were brought in, in order of name.
#[utoipa::path(get, path = "/histories", tag = "backtests", operation_id = "listHistories",
    responses((status = 200, body = Vec<HistoryInfo>), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn histories(State(app): State<App>) -> Result<Json<Vec<HistoryInfo>>, Error> {
    Ok(Json(app.backtests()?.histories().list().await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryParams {
    /// The metric of a file of two columns. Default: `aether.imported.value`.
    metric: Option<String>,
    /// Its unit. Default: `1`.
    unit: Option<String>,
    /// Its subject, such as `node/web-1`. Default: the node of the history's name.
    subject: Option<String>,
}

/// Brings a history in: CSV with `timestamp,value` or `timestamp,subject,metric,unit,value`, at most 64 MiB. One of that
/// name is replaced.
#[utoipa::path(put, path = "/histories/{name}", tag = "backtests", operation_id = "putHistory", params(("name" = String, Path), HistoryParams),
    request_body(content = String, content_type = "text/csv"),
    responses((status = 200, body = HistoryInfo), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn put_history(
    State(app): State<App>,
    principal: Principal,
    Id(name): Id,
    Params(params): Params<HistoryParams>,
    request: Request,
) -> Result<Json<HistoryInfo>, Error> {
    let default = Mapping::default();
    let subject = params.subject.as_deref().map(subject_of).transpose();
    let subject = subject.map_err(|reason| Error::Parameter { name: "subject".into(), reason })?;
    let mapping =
        Mapping { metric: params.metric.unwrap_or(default.metric), unit: params.unit.unwrap_or(default.unit), subject };
    let csv = body(request).await?;
    let info = app.backtests()?.histories().put(&name, csv, mapping, &principal.id).await?;
    let detail = BTreeMap::from([("digest".to_owned(), info.digest.0.clone())]);
    app.audit(&principal, "history.put", name, ActOutcome::Done, detail).await?;
    Ok(Json(info))
}

/// Brings the labels of a history: CSV with `subject,from,to`, or windows as NAB writes them in JSON.
#[utoipa::path(put, path = "/histories/{name}/labels", tag = "backtests", operation_id = "putLabels", params(("name" = String, Path)),
    request_body(content = String, content_type = "text/csv"),
    responses((status = 200, body = HistoryInfo), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn put_labels(
    State(app): State<App>,
    principal: Principal,
    Id(name): Id,
    request: Request,
) -> Result<Json<HistoryInfo>, Error> {
    let labels = body(request).await?;
    let info = app.backtests()?.histories().put_labels(&name, &labels).await?;
    app.audit(&principal, "history.labels", name, ActOutcome::Done, BTreeMap::new()).await?;
    Ok(Json(info))
}

/// Deletes a history. Reports of backtests on it stay.
#[utoipa::path(delete, path = "/histories/{name}", tag = "backtests", operation_id = "deleteHistory", params(("name" = String, Path)),
    responses((status = 204), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete_history(
    State(app): State<App>,
    principal: Principal,
    Id(name): Id,
) -> Result<StatusCode, Error> {
    app.backtests()?.histories().delete(&name).await?;
    app.audit(&principal, "history.delete", name, ActOutcome::Done, BTreeMap::new()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// As the audit calls it.
fn verdict(verdict: ReplayVerdict) -> &'static str {
    match verdict {
        ReplayVerdict::Identical => "identical",
        ReplayVerdict::OutputDiffers => "output differs",
        ReplayVerdict::HostCallDiverges => "host call diverges",
        ReplayVerdict::EngineMismatch => "engine mismatch",
        ReplayVerdict::ComponentMismatch => "component mismatch",
        ReplayVerdict::HostVerdict => "host's verdict",
    }
}

async fn body(request: Request) -> Result<Bytes, Error> {
    to_bytes(request.into_body(), HISTORY_BYTES_LIMIT).await.map_err(|_| Error::TooLarge { limit: HISTORY_BYTES_LIMIT })
}

impl App {
    fn proofs(&self) -> Result<Proofs, Error> {
        self.plane().proofs().ok_or_else(|| Error::NotReady("replays and backtests are not up".into()))
    }

    fn backtests(&self) -> Result<Backtests, Error> {
        Ok(self.proofs()?.backtests)
    }

    /// A proof must be of what it is to prove: a finished backtest of the very component and config that stand behind the
    /// entry, in this slot.
    pub(super) async fn check_proof(&self, id: &str, slot: &str, entry: &EntryId) -> Result<(), Error> {
        let wrong = |reason: String| Error::Parameter { name: "backtest".into(), reason };
        let Some((backtest, report)) = self.store().backtest(id).await? else {
            return Err(wrong(format!("there is no backtest `{id}`")));
        };
        let Some(report) = report else { return Err(wrong(format!("the backtest `{id}` has no report"))) };
        let slots = self.plane().slots().slots;
        let mut entries = slots.iter().filter(|known| known.id.0 == slot).flat_map(|slot| &slot.entries);
        // Without the entry there is nothing to promote either, and that is told better.
        let Some(entry) = entries.find(|known| known.id == *entry) else { return Ok(()) };
        let config = Digest::of(&canonical(&entry.config));
        let mut asked = report.candidate.asked.iter();
        let same = asked
            .any(|asked| asked.component == entry.digest && asked.config == config && asked.assets == entry.assets);
        if backtest.request.slot.0 != slot || !same {
            return Err(wrong(format!("the backtest `{id}` is not of this entry in this slot")));
        }
        Ok(())
    }

    async fn kept_decision(&self, id: String) -> Result<Envelope, Error> {
        let id = DecisionId(id);
        let found = match self.plane().recent_decision(&id) {
            Some(recent) => Some(recent),
            None => self.store().decision(&id).await?,
        };
        found.ok_or(Error::DecisionNotKept { id: id.0 })
    }
}
