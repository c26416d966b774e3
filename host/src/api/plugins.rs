//! The decisions that components made.

use super::{
    App, Error, Problem,
    extract::{Id, Params},
    view::DecisionSummary,
};
use aether_core::{
    decision::{Answer, Assessment, Envelope, Question, RoutingQuestion, Verdict},
    id::DecisionId,
    subject::SubjectRef,
};
use axum::{Json, extract::State};
use serde::Deserialize;
use utoipa::IntoParams;

/// Decisions that a filter looks through at most.
const LOOKED_THROUGH: u32 = 2_000;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DecisionsParams {
    /// Such as `risk`.
    slot: Option<String>,
    /// `<kind>/<id>`, such as `node/node-a`. Looks through the newest 2,000.
    subject: Option<String>,
    /// Default 50, 1 to 200.
    limit: Option<u32>,
}

/// The newest decisions.
#[utoipa::path(get, path = "/decisions", tag = "plugins", operation_id = "listDecisions", params(DecisionsParams),
    responses((status = 200, body = Vec<DecisionSummary>), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn decisions(
    State(app): State<App>,
    Params(params): Params<DecisionsParams>,
) -> Result<Json<Vec<DecisionSummary>>, Error> {
    let limit = params.limit.unwrap_or(50).clamp(1, 200);
    let subject = params.subject.as_deref().map(super::fleet::subject).transpose()?;
    let read = if subject.is_some() { LOOKED_THROUGH } else { limit };
    let envelopes = app.store().decisions(params.slot.as_deref(), read).await?;
    let found = envelopes
        .into_iter()
        .map(|envelope| summary(&envelope))
        .filter(|decision| subject.is_none() || decision.subject == subject)
        .take(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(Json(found.collect()))
}

/// One decision with everything that is needed to run it again.
#[utoipa::path(get, path = "/decisions/{id}", tag = "plugins", operation_id = "getDecision", params(("id" = String, Path)),
    responses((status = 200, body = Envelope), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn decision(State(app): State<App>, Id(id): Id) -> Result<Json<Envelope>, Error> {
    let id = DecisionId(id);
    let found = match app.plane().recent_decision(&id) {
        Some(recent) => Some(recent),
        None => app.store().decision(&id).await?,
    };
    found.map(Json).ok_or(Error::NotFound { what: "decision", id: id.0 })
}

fn summary(envelope: &Envelope) -> DecisionSummary {
    DecisionSummary {
        id: envelope.id.clone(),
        slot: envelope.slot.clone(),
        component: envelope.component.clone(),
        component_name: envelope.component_name.clone(),
        component_version: envelope.component_version.clone(),
        subject: subject_of(&envelope.question),
        at: envelope.at,
        ok: envelope.outcome.is_ok(),
        outcome: match &envelope.outcome {
            Ok(answer) => said(answer),
            Err(fault) => fault.message.clone(),
        },
        fuel: envelope.fuel,
        duration_us: envelope.duration_us,
    }
}

fn subject_of(question: &Question) -> Option<SubjectRef> {
    match question {
        Question::Score(observation) => Some(observation.subject.subject()),
        Question::Plan { finding, .. } => Some(finding.subject.subject()),
        Question::Route(RoutingQuestion::Placement(placement)) => Some(placement.workload.subject()),
        Question::Route(RoutingQuestion::Message(_)) | Question::Judge(_) => None,
    }
}

fn said(answer: &Answer) -> String {
    match answer {
        Answer::Assessment(Assessment::Risk(risk)) => risk.reason.clone(),
        Answer::Assessment(Assessment::Insufficient(missing)) => format!("cannot say: {missing}"),
        Answer::Proposals(proposals) => match proposals.first() {
            Some(first) => first.title.clone(),
            None => "no proposal".into(),
        },
        Answer::Judgement(judgement) => match &judgement.verdict {
            Verdict::Allow => "allowed".into(),
            Verdict::Deny => "denied".into(),
            Verdict::RequireApproval(demand) => format!("{} of rank {} must approve", demand.approvers, demand.role),
        },
        Answer::Choices(choices) => match choices.first() {
            Some(first) => format!("{} first of {}", first.id, choices.len()),
            None => "no choice".into(),
        },
    }
}
