//! Incidents as their journals tell them, plans, and what people say of them.

use super::{
    App, Deed, Error, NotDecided, Problem, Word,
    extract::{Body, COMMENT_BYTES, Id, Params},
    view::{Decide, Decided, ForecastView, IncidentDetail, IncidentPage, PlanDetail},
};
use crate::{
    auth::Principal,
    clock,
    store::{Story, audit::ActOutcome},
};
use aether_core::{
    artifact::{Artifact, Body as ArtifactBody, verify_chain},
    catalogue::{evidence, verb},
    decision::{BlastRadius, Reason},
    id::{IncidentId, WorkloadId},
    incident::{Event, Incident, Phase},
    order::{Direction, OutcomeStatus},
    plan::PlanHash,
    time::Time,
    value::Value,
};
use axum::{Json, extract::State};
use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa::IntoParams;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Only open or only closed ones. Default: both.
    open: Option<bool>,
    /// Opened before this time: `next_before` of the page before.
    before: Option<i64>,
    /// Default 50, 1 to 200.
    limit: Option<u32>,
}

/// Incidents, newest first.
#[utoipa::path(get, path = "/incidents", tag = "incidents", operation_id = "listIncidents", params(ListParams),
    responses((status = 200, body = IncidentPage), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn incidents(
    State(app): State<App>,
    Params(params): Params<ListParams>,
) -> Result<Json<IncidentPage>, Error> {
    let limit = params.limit.unwrap_or(50).clamp(1, 200);
    let incidents = app.store().incidents(params.open, params.before.map(Time), limit).await?;
    let full = u32::try_from(incidents.len()).is_ok_and(|found| found == limit);
    let next_before = incidents.last().filter(|_| full).map(|last| last.opened_at);
    Ok(Json(IncidentPage { incidents, next_before }))
}

/// One incident with its artifacts.
#[utoipa::path(get, path = "/incidents/{id}", tag = "incidents", operation_id = "getIncident", params(("id" = String, Path)),
    responses((status = 200, body = IncidentDetail), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn incident(State(app): State<App>, Id(id): Id) -> Result<Json<IncidentDetail>, Error> {
    let (Story { summary, journal, artifacts }, incident) = app.incident(&IncidentId(id)).await?;
    let forecast = foretold(&journal, &incident);
    let chain = verify_chain(&artifacts);
    Ok(Json(IncidentDetail {
        incident: summary,
        phase: incident.phase,
        flags: incident.flags,
        recurrences: incident.recurrences,
        demand: incident.demand,
        approvals: incident.approvals,
        steps: incident.steps,
        forecast,
        execute_by: incident.execute_by,
        failure: incident.failure,
        timeline: incident.timeline,
        artifacts,
        chain_verified: chain.is_ok(),
        chain_broken_at: chain.err().map(|id| id.0),
    }))
}

/// What was foretold of the plan's checkpoint: it is in the journal, in the world that the plan was made for.
fn foretold(journal: &[(Time, Event)], incident: &Incident) -> Option<ForecastView> {
    let world = journal.iter().rev().find_map(|(_, event)| match event {
        Event::Proposed { world, .. } => Some(world),
        _ => None,
    })?;
    let (index, step) =
        incident.plan.as_ref()?.steps.iter().enumerate().find(|(_, step)| step.verb == verb::CHECKPOINT)?;
    let workload = step.target.id.clone();
    let forecast = world.workloads.get(&WorkloadId(workload.clone()))?.forecast?;
    let leaves_in_ms = world.nodes.get(&step.node).and_then(|node| node.leaves_in_ms);
    let done = incident.steps.iter().find(|record| {
        record.direction == Direction::Forward && usize::try_from(record.step).is_ok_and(|step| step == index)
    });
    let outcome = done.and_then(|record| record.outcome.as_ref());
    let took_ms =
        outcome.filter(|outcome| outcome.status == OutcomeStatus::Succeeded).and_then(|outcome| {
            match outcome.evidence.get(evidence::TOOK) {
                Some(Value::Duration(took_ms)) => Some(*took_ms),
                _ => None,
            }
        });
    let error_percent = took_ms.map(|took_ms| forecast.error_percent(took_ms));
    Some(ForecastView { workload, forecast, leaves_in_ms, took_ms, error_percent })
}

impl App {
    /// An incident as its journal tells it.
    async fn incident(&self, id: &IncidentId) -> Result<(Story, Incident), Error> {
        let missing = || Error::NotFound { what: "incident", id: id.0.clone() };
        let story = self.store().story(id).await?.ok_or_else(missing)?;
        let incident = Incident::fold(story.journal.iter().map(|(at, event)| (*at, event))).ok_or_else(missing)?;
        Ok((story, incident))
    }

    async fn plan(&self, hash: &PlanHash) -> Result<PlanDetail, Error> {
        let missing = || Error::NotFound { what: "plan", id: hash.0.clone() };
        let (plan, id) = self.store().plan(hash).await?.ok_or_else(missing)?;
        let (Story { summary, artifacts, .. }, incident) = self.incident(&id).await?;
        let (blast, reasons) = judged(&artifacts, hash);
        let mine = incident.hash.as_ref() == Some(hash);
        let approve_by = match &incident.phase {
            Phase::AwaitingApproval { approve_by } if mine => Some(*approve_by),
            _ => None,
        };
        let newest_evidence_at = self.newest_evidence(&incident);
        Ok(PlanDetail {
            hash: hash.clone(),
            plan,
            incident: summary,
            flags: incident.flags,
            proposal: incident.proposal.filter(|_| mine),
            reasons,
            blast,
            demand: incident.demand.filter(|_| mine),
            approvals: incident.approvals.into_iter().filter(|approval| approval.plan == *hash).collect(),
            waiting: approve_by.is_some(),
            approve_by,
            newest_evidence_at,
            evidence_age_ms: newest_evidence_at.map(|at| clock::now().since_ms(at)),
            before: incident.before,
            phase: incident.phase,
        })
    }

    /// The newest sample or event of the inputs that the incident was opened on.
    fn newest_evidence(&self, incident: &Incident) -> Option<Time> {
        let subject = &incident.shape.subject;
        let samples =
            incident.opening.readings.iter().flat_map(|reading| self.recorder().latest(subject, &reading.metric));
        let newest = samples.map(|(_, sample)| sample.at).max();
        let recorded = incident.opening.readings.iter().filter_map(|reading| reading.at);
        newest.into_iter().chain(recorded).chain(incident.opening.events.iter().map(|event| event.at)).max()
    }
}

/// What the gates counted and said of the plan.
fn judged(artifacts: &[Artifact], wanted: &PlanHash) -> (Option<BlastRadius>, Vec<Reason>) {
    for artifact in artifacts.iter().rev() {
        if let ArtifactBody::ExecutionPlan { hash, blast, reasons, .. } = &artifact.body
            && hash == wanted
        {
            return (Some(blast.clone()), reasons.clone());
        }
    }
    (None, vec![])
}

/// One plan, by its whole hash.
#[utoipa::path(get, path = "/plans/{hash}", tag = "incidents", operation_id = "getPlan", params(("hash" = String, Path)),
    responses((status = 200, body = PlanDetail), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn plan(State(app): State<App>, Id(hash): Id) -> Result<Json<PlanDetail>, Error> {
    app.plan(&PlanHash(hash)).await.map(Json)
}

/// Approve the plan with exactly this hash.
#[utoipa::path(post, path = "/plans/{hash}/approve", tag = "incidents", operation_id = "approvePlan", params(("hash" = String, Path)), request_body = Decide,
    responses((status = 200, body = Decided), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn approve(
    State(app): State<App>,
    principal: Principal,
    Id(hash): Id,
    Body(body): Body<Decide>,
) -> Result<Json<Decided>, Error> {
    app.decide(Deed::Approve, principal, PlanHash(hash), body).await.map(Json)
}

/// Deny the plan with exactly this hash: nothing is done, and the incident closes.
#[utoipa::path(post, path = "/plans/{hash}/deny", tag = "incidents", operation_id = "denyPlan", params(("hash" = String, Path)), request_body = Decide,
    responses((status = 200, body = Decided), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn deny(
    State(app): State<App>,
    principal: Principal,
    Id(hash): Id,
    Body(body): Body<Decide>,
) -> Result<Json<Decided>, Error> {
    app.decide(Deed::Deny, principal, PlanHash(hash), body).await.map(Json)
}

/// Take back an approval of one's own, before the first step.
#[utoipa::path(post, path = "/plans/{hash}/withdraw", tag = "incidents", operation_id = "withdrawApproval", params(("hash" = String, Path)), request_body = Decide,
    responses((status = 200, body = Decided), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn withdraw(
    State(app): State<App>,
    principal: Principal,
    Id(hash): Id,
    Body(body): Body<Decide>,
) -> Result<Json<Decided>, Error> {
    app.decide(Deed::Withdraw, principal, PlanHash(hash), body).await.map(Json)
}

/// Have what runs given up and what was done undone, while that can be.
#[utoipa::path(post, path = "/plans/{hash}/call-off", tag = "incidents", operation_id = "callOffPlan", params(("hash" = String, Path)), request_body = Decide,
    responses((status = 200, body = Decided), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn call_off(
    State(app): State<App>,
    principal: Principal,
    Id(hash): Id,
    Body(body): Body<Decide>,
) -> Result<Json<Decided>, Error> {
    app.decide(Deed::CallOff, principal, PlanHash(hash), body).await.map(Json)
}

impl App {
    async fn decide(&self, deed: Deed, by: Principal, hash: PlanHash, body: Decide) -> Result<Decided, Error> {
        let comment = body.comment.map(|comment| comment.trim().to_owned()).filter(|comment| !comment.is_empty());
        if comment.as_ref().is_some_and(|comment| comment.len() > COMMENT_BYTES) {
            return Err(Error::Body(format!("`comment` is longer than {COMMENT_BYTES} bytes")));
        }
        if deed == Deed::CallOff && comment.is_none() {
            return Err(Error::Body("`comment` is missing: why is it called off?".into()));
        }
        let (_, incident) =
            self.store().plan(&hash).await?.ok_or_else(|| Error::NotFound { what: "plan", id: hash.0.clone() })?;
        let mut detail = BTreeMap::from([("incident".to_owned(), incident.0.clone())]);
        if let Some(comment) = &comment {
            detail.insert("comment".into(), comment.clone());
        }
        let break_glass = if body.break_glass && deed == Deed::Approve {
            let held = self.store().held_break_glass(&by.id, clock::now()).await?;
            let none = || Error::BreakGlass("you hold none; take one first, with a reason".into());
            Some(held.ok_or_else(none)?)
        } else {
            None
        };
        if let Some(glass) = &break_glass {
            detail.insert("break-glass".into(), glass.0.clone());
        }
        let word = Word {
            deed,
            incident: incident.clone(),
            plan: hash.clone(),
            by: by.id.clone(),
            rank: by.rank,
            comment,
            break_glass,
            at: clock::now(),
        };
        if let Err(refused) = self.plane().decide(word).await {
            let reason = refused.to_string();
            detail.insert("reason".into(), reason.clone());
            self.audit(&by, deed.action(), hash.0.clone(), ActOutcome::Refused, detail).await?;
            return Err(match refused {
                NotDecided::Driver(why) => Error::NotReady(why),
                NotDecided::Refused(_)
                | NotDecided::CallOff(_)
                | NotDecided::Closed
                | NotDecided::Begun
                | NotDecided::NothingToWithdraw => Error::Decision { deed: deed.participle(), reason },
            });
        }
        // What was taken is in the audit already, by the very transaction that took it.
        let (Story { summary, .. }, incident) = self.incident(&incident).await?;
        Ok(Decided { plan: hash, incident: summary, phase: incident.phase, approvals: incident.approvals })
    }
}
