//! What a person asks for: one verb on one target. It opens an incident in which the person's wish stands in the planners'
//! place; all that follows is as ever: the catalogue, the gates, the approval of somebody else, the ledger.

use super::{Control, observe};
use crate::{clock, fabric::NodeView};
use aether_core::{
    artifact::Flags,
    catalogue,
    decision::{Level, OnFailure, Proposal, ProposedStep, Risk},
    finding::Finding,
    id::{DecisionId, Digest, IncidentId, NodeId, PrincipalId, WorkloadId},
    incident::{Context, Event, Opening, PlannerAnswer, Rank, Requested, Tried},
    plan::{self, Shape, World},
    subject::{Subject, SubjectKind, SubjectRef, Target},
    value::Value,
};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// Before the verb, the cause of the incidents that requests open: each verb has its own count of attempts.
const CAUSE: &str = "request.";

/// One verb on one target, and who wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    pub by: PrincipalId,
    pub name: String,
    pub rank: Rank,
    pub verb: String,
    pub target: SubjectRef,
    pub arguments: BTreeMap<String, Value>,
    pub reason: String,
}

/// Why nothing was opened.
#[derive(Debug, Error)]
pub enum NotAsked {
    #[error("{refusal} ({})", refusal.code())]
    Refused { refusal: plan::Refusal },
    #[error("{0} is not known")]
    UnknownTarget(SubjectRef),
    #[error("the incident {0} is about the same request and is still open")]
    Open(IncidentId),
    #[error("it could not be written down, so nothing was begun; try again")]
    Store,
}

impl Control {
    /// Opens an incident for what a person asks for. What could not be planned is refused at once, and opens none.
    pub async fn request(&self, ask: Ask) -> Result<IncidentId, NotAsked> {
        let Ask { by, name, rank, verb, target: subject, arguments, reason } = ask;
        let mut world = self.0.fabric.world();
        world.runbooks = self.0.panels.runbooks().known().clone();
        let (node, generation) = place(&subject, &world).ok_or_else(|| NotAsked::UnknownTarget(subject.clone()))?;
        let target = Target { kind: subject.kind, id: subject.id.clone(), generation };
        let step = ProposedStep {
            verb: verb.clone(),
            target: target.clone(),
            arguments,
            preconditions: vec![],
            on_failure: OnFailure::Compensate,
        };
        let proposal = Proposal {
            title: format!("{verb} of {subject}"),
            rationale: reason.clone(),
            steps: vec![step],
            success: vec![],
            watch_ms: 0,
            confidence: 1.0,
        };
        plan::resolve(&proposal, &world).map_err(|refusal| NotAsked::Refused { refusal })?;
        let view = self.0.fabric.node(&node).ok_or_else(|| NotAsked::UnknownTarget(subject.clone()))?;
        let cause = format!("{CAUSE}{verb}");
        let shape = Shape { cause: cause.clone(), subject: subject.clone() };
        if let Some(open) = self.open_about(&shape) {
            return Err(NotAsked::Open(open));
        }
        let now = clock::now();
        let incident = IncidentId(clock::id("inc"));
        let risk = Risk {
            level: Level::Low,
            score: 0.0,
            confidence: 1.0,
            horizon_ms: None,
            cause,
            reason: format!("{name} asks for {verb}: {reason}"),
            contributions: vec![],
        };
        let opening = Opening {
            incident: incident.clone(),
            finding: Finding { shape, risk, first_seen: now, consecutive: 1 },
            subject: described(&view, &target),
            workloads: observe::workload_subjects(&view),
            readings: vec![],
            events: vec![],
            window_ms: 0,
            decisions: vec![],
            unknown: vec![],
            flags: Flags {
                simulated: view.capabilities.iter().any(|capability| capability.simulated),
                ..Flags::default()
            },
            requested: Some(Requested { by, name, rank, proposal }),
        };
        if self.begin(opening, &[], now).await { Ok(incident) } else { Err(NotAsked::Store) }
    }

    /// The wish in the planners' place, with what it names of the world.
    pub(super) fn as_requested(&self, requested: &Requested) -> Event {
        let Requested { by, name, rank: _, proposal } = requested;
        let mut world = self.0.fabric.world();
        world.runbooks = self.0.panels.runbooks().known().clone();
        let named: BTreeSet<String> = proposal.steps.iter().flat_map(|step| names(step, &world)).collect();
        world.nodes.retain(|node, _| named.contains(node.as_str()));
        world.workloads.retain(|_, workload| named.contains(workload.node.as_str()));
        let by = Context {
            decision: DecisionId(String::new()),
            component: Digest::of(by.as_str().as_bytes()),
            name: name.clone(),
        };
        let answers = vec![PlannerAnswer { by, outcome: Ok(vec![proposal.clone()]) }];
        Event::Proposed { answers, world, posture: self.0.posture.clone(), tried: Tried::default() }
    }
}

/// The node that a step is about, and those that its arguments name.
fn names(step: &ProposedStep, world: &World) -> Vec<String> {
    let target = SubjectRef { kind: step.target.kind, id: step.target.id.clone() };
    let own = place(&target, world).map(|(node, _)| node.0);
    let node = [catalogue::argument::TO, catalogue::argument::VIA];
    let others = node.iter().filter_map(|name| step.arguments.get(*name).and_then(Value::as_text));
    own.into_iter().chain(others.map(str::to_owned)).collect()
}

/// Where a subject is, and of which generation.
fn place(subject: &SubjectRef, world: &World) -> Option<(NodeId, u64)> {
    let node = |id: &str| world.nodes.get_key_value(&NodeId::new(id)).map(|(id, known)| (id.clone(), known.generation));
    match subject.kind {
        SubjectKind::Node => node(&subject.id),
        SubjectKind::Gpu => node(subject.id.split_once('/')?.0),
        SubjectKind::Workload => {
            let workload = world.workloads.get(&WorkloadId(subject.id.clone()))?;
            Some((workload.node.clone(), workload.generation))
        }
        SubjectKind::Pool | SubjectKind::Participant => None,
    }
}

fn described(node: &NodeView, target: &Target) -> Subject {
    match target.kind {
        SubjectKind::Node => observe::node_subject(node),
        SubjectKind::Gpu | SubjectKind::Workload | SubjectKind::Pool | SubjectKind::Participant => Subject {
            kind: target.kind,
            id: target.id.clone(),
            generation: target.generation,
            labels: BTreeMap::from([("node".to_owned(), node.id.0.clone())]),
        },
    }
}
