//! A proposal against the catalogue and the known world: refused whole, or expanded into primitive steps.

mod power;

use super::{Compensation, Forecast, STEPS_MAXIMUM, Step, WATCH_MAXIMUM_MS};
use crate::{
    catalogue::{self, ArgumentError, Definition, SafetyClass, Standing, argument, verb},
    decision::{Condition, OnFailure, Proposal, ProposedStep},
    id::NodeId,
    plan::BlastCount,
    policy::{RUNBOOK_TEXT_MAXIMUM, Runbook},
    subject::{SubjectKind, Target},
    value::{MAX_EXACT, Value},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;
use utoipa::ToSchema;

/// What is known of the world when a proposal is resolved. Nothing outside it can be targeted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct World {
    pub nodes: BTreeMap<NodeId, KnownNode>,
    pub workloads: BTreeMap<crate::id::WorkloadId, KnownWorkload>,
    /// What the policy in force has, each with the digest of its script.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub runbooks: BTreeMap<String, Runbook>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct KnownNode {
    pub generation: u64,
    pub live: bool,
    /// Capabilities that the agent has, and for those it lacks, why: `Err(reason)`.
    #[schema(value_type = Object)]
    pub capabilities: BTreeMap<String, Result<(), String>>,
    /// Its GPUs, as the agent reported them: what follows `<node>/` in their ids.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gpus: BTreeSet<String>,
    /// Why it takes no new work, if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordoned: Option<String>,
    /// How long it will still be there, if that is known: its provider takes it back then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaves_in_ms: Option<u64>,
    /// What wakes it, as it reported when it was awake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake: Option<WakeRoute>,
    /// It sleeps on order: by which plan, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asleep: Option<String>,
}

/// A network card that is armed for Wake-on-LAN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WakeRoute {
    pub mac: String,
    /// The IPv4 network that it is on, such as `192.0.2.0/24`.
    pub network: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KnownWorkload {
    pub generation: u64,
    pub node: NodeId,
    /// What a checkpoint of it would take, as far as its node has taken any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
}

/// Why a proposal is refused whole.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("the proposal has no steps; an empty target set never means everything")]
    Empty,
    #[error("the proposal has more than {STEPS_MAXIMUM} steps")]
    TooManySteps,
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    #[error("`{0}` is not a verb that a planner can propose")]
    NotProposable(String),
    #[error("the target {0} does not exist")]
    UnknownTarget(Target),
    #[error("the target {target} is now of generation {current}")]
    Generation { target: Target, current: u64 },
    #[error("the node `{0}` does not exist")]
    UnknownNode(NodeId),
    #[error("the node `{0}` has no live agent")]
    NodeNotLive(NodeId),
    #[error("{target} already runs on `{node}`")]
    AlreadyThere { target: Target, node: NodeId },
    #[error("`{verb}` is for a {expected}, and the target is {target}")]
    TargetKind { verb: String, expected: &'static str, target: Target },
    #[error("the policy in force has no runbook `{0}` that is signed by a trusted key")]
    UnknownRunbook(String),
    #[error("the node `{node}` takes no new work: {reason}")]
    Cordoned { node: NodeId, reason: String },
    #[error(
        "a checkpoint of {target} takes about {predicted_ms} ms, as {learned_from} on `{node}` did, and the node is gone in {left_ms} ms"
    )]
    TooLate { target: Target, node: NodeId, predicted_ms: u64, learned_from: u32, left_ms: u64 },
    #[error("the agent on `{node}` cannot do `{capability}`: {reason}")]
    Incapable { node: NodeId, capability: String, reason: String },
    #[error("the condition on `{0}` has no bound, or a number that canonical JSON does not carry exactly")]
    Condition(String),
    #[error("the watch window is longer than {WATCH_MAXIMUM_MS} ms")]
    Watch,
    #[error("the target {0} appears twice")]
    TargetTwice(Target),
    #[error("the node `{node}` is asleep, {how}; wake it first")]
    Asleep { node: NodeId, how: String },
    #[error("the node `{0}` takes work, so it must not sleep: drain it before, or by an earlier step of this plan")]
    NotDrained(NodeId),
    #[error("the node `{node}` must not sleep: {workload} is there")]
    Occupied { node: NodeId, workload: crate::id::WorkloadId },
    #[error(
        "nothing is known that would wake `{0}`: it reports no network card that is armed for Wake-on-LAN, and no `wake-after` is given"
    )]
    NoWayBack(NodeId),
    #[error("the node `{0}` does not sleep on order, so there is nothing to wake")]
    NotAsleep(NodeId),
    #[error("`{node}` reported no network card that wakes it, so `{via}` cannot")]
    NoWakeRoute { node: NodeId, via: NodeId },
    #[error("`{0}` cannot wake itself")]
    OwnWaker(NodeId),
}

impl Refusal {
    /// A stable code for metrics and translations.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::Empty => "proposal.empty",
            Refusal::TooManySteps => "proposal.too-many-steps",
            Refusal::Argument(_) => "proposal.argument",
            Refusal::NotProposable(_) => "proposal.verb",
            Refusal::UnknownTarget(_) => "proposal.unknown-target",
            Refusal::Generation { .. } => "proposal.generation",
            Refusal::UnknownNode(_) => "proposal.unknown-node",
            Refusal::NodeNotLive(_) => "proposal.node-not-live",
            Refusal::AlreadyThere { .. } => "proposal.already-there",
            Refusal::TargetKind { .. } => "proposal.target-kind",
            Refusal::UnknownRunbook(_) => "proposal.unknown-runbook",
            Refusal::Cordoned { .. } => "proposal.cordoned",
            Refusal::TooLate { .. } => "proposal.too-late",
            Refusal::Incapable { .. } => "proposal.incapable",
            Refusal::Condition(_) => "proposal.condition",
            Refusal::Watch => "proposal.watch",
            Refusal::TargetTwice(_) => "proposal.target-twice",
            Refusal::Asleep { .. } => "proposal.asleep",
            Refusal::NotDrained(_) => "proposal.not-drained",
            Refusal::Occupied { .. } => "proposal.occupied",
            Refusal::NoWayBack(_) => "proposal.no-way-back",
            Refusal::NotAsleep(_) => "proposal.not-asleep",
            Refusal::NoWakeRoute { .. } => "proposal.no-wake-route",
            Refusal::OwnWaker(_) => "proposal.own-waker",
        }
    }
}

/// A proposal resolved against the world: what would be done, and how grave it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resolved {
    pub steps: Vec<Step>,
    pub success: Vec<Condition>,
    pub watch_ms: u64,
    pub class: SafetyClass,
    pub blast: BlastCount,
}

/// Checks a proposal against the catalogue and the world, and expands composite verbs into primitive steps.
pub fn resolve(proposal: &Proposal, world: &World) -> Result<Resolved, Refusal> {
    if proposal.steps.is_empty() {
        return Err(Refusal::Empty);
    }
    let mut steps = Vec::new();
    let mut class = SafetyClass::ReadOnly;
    let mut targets = Vec::new();
    let mut moved = Vec::new();
    for proposed in &proposal.steps {
        let found = catalogue::find(&proposed.verb)?;
        found.verb.check(&proposed.arguments)?;
        check_conditions(&proposed.preconditions)?;
        // A node is drained first, and then put to sleep.
        let drained = power::drained(&steps, proposed);
        if targets.contains(&proposed.target) && !drained {
            return Err(Refusal::TargetTwice(proposed.target.clone()));
        }
        class = class.max(found.verb.class);
        match (found.standing, proposed.verb.as_str()) {
            (Standing::Composite, verb::MIGRATE) => {
                steps.extend(migrate(proposed, world, steps.len())?);
                moved.push(proposed.target.clone());
            }
            (Standing::Composite, verb::RUNBOOK) => steps.push(runbook(proposed, world)?),
            (Standing::Proposable, verb::SLEEP) => steps.push(power::sleep(proposed, &found, world, drained)?),
            (Standing::Proposable, verb::WAKE) => steps.push(power::wake(proposed, &found, world)?),
            (Standing::Proposable, _) => steps.push(single(proposed, &found, world)?),
            (Standing::Composite | Standing::Internal, other) => return Err(Refusal::NotProposable(other.into())),
        }
        if !targets.contains(&proposed.target) {
            targets.push(proposed.target.clone());
        }
    }
    if steps.len() > STEPS_MAXIMUM {
        return Err(Refusal::TooManySteps);
    }
    check_conditions(&proposal.success)?;
    if proposal.watch_ms > WATCH_MAXIMUM_MS {
        return Err(Refusal::Watch);
    }
    let acting = steps.iter().map(|step| step.node.as_str());
    let aimed_at = targets.iter().filter(|target| target.kind == SubjectKind::Node).map(|target| target.id.as_str());
    let nodes: BTreeSet<&str> = acting.chain(aimed_at).collect();
    let count = |kind| targets.iter().filter(|target| target.kind == kind).count();
    let blast = BlastCount {
        nodes: saturating(nodes.len()),
        gpus: saturating(count(SubjectKind::Gpu)),
        workloads: saturating(count(SubjectKind::Workload)),
    };
    let mut success: Vec<Condition> = proposal.success.iter().map(|condition| after(condition, &moved)).collect();
    let watch_ms = power::must_be_seen(&steps, &mut success, proposal.watch_ms);
    Ok(Resolved { steps, success, watch_ms, class, blast })
}

fn saturating(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn check_conditions(conditions: &[Condition]) -> Result<(), Refusal> {
    for condition in conditions {
        let bounds = [condition.minimum, condition.maximum];
        let none = bounds.iter().all(Option::is_none);
        let inexact = condition.fresh_within_ms > MAX_EXACT || condition.target.generation > MAX_EXACT;
        if none || inexact || bounds.iter().flatten().any(|bound| !bound.is_finite()) {
            return Err(Refusal::Condition(condition.metric.clone()));
        }
    }
    Ok(())
}

/// A moved workload is of the next generation: success is judged on that one, not on the source that was stopped.
fn after(condition: &Condition, moved: &[Target]) -> Condition {
    let mut condition = condition.clone();
    if moved.contains(&condition.target) {
        condition.target.generation = condition.target.generation.saturating_add(1);
    }
    condition
}

/// The node that has a target, once the target is known to be there in the generation that is meant.
fn place(target: &Target, world: &World) -> Result<NodeId, Refusal> {
    let unknown = || Refusal::UnknownTarget(target.clone());
    let known_node = |id: &str| world.nodes.get_key_value(&NodeId::new(id)).ok_or_else(unknown);
    let (node, current) = match target.kind {
        SubjectKind::Workload => {
            let workload = world.workloads.get(&crate::id::WorkloadId(target.id.clone())).ok_or_else(unknown)?;
            (workload.node.clone(), workload.generation)
        }
        SubjectKind::Node => {
            let (id, node) = known_node(&target.id)?;
            (id.clone(), node.generation)
        }
        // A GPU is as old as the boot of its node.
        SubjectKind::Gpu => {
            let (id, gpu) = target.id.split_once('/').ok_or_else(unknown)?;
            let (id, node) = known_node(id)?;
            node.gpus.get(gpu).ok_or_else(unknown)?;
            (id.clone(), node.generation)
        }
        SubjectKind::Pool | SubjectKind::Participant => return Err(unknown()),
    };
    if current != target.generation {
        return Err(Refusal::Generation { target: target.clone(), current });
    }
    Ok(node)
}

/// The node, once it is known to have a live agent that has the capability.
fn able<'a>(node: &NodeId, capability: Option<&str>, world: &'a World) -> Result<&'a KnownNode, Refusal> {
    let known = world.nodes.get(node).ok_or_else(|| Refusal::UnknownNode(node.clone()))?;
    if let (false, Some(how)) = (known.live, &known.asleep) {
        return Err(Refusal::Asleep { node: node.clone(), how: how.clone() });
    }
    if !known.live {
        return Err(Refusal::NodeNotLive(node.clone()));
    }
    let Some(capability) = capability else { return Ok(known) };
    let reason = match known.capabilities.get(capability) {
        Some(Ok(())) => return Ok(known),
        Some(Err(reason)) => reason.clone(),
        None => "the agent does not offer it".into(),
    };
    Err(Refusal::Incapable { node: node.clone(), capability: capability.into(), reason })
}

/// One step of the agent that has the target, with its undoing.
fn single(proposed: &ProposedStep, found: &Definition, world: &World) -> Result<Step, Refusal> {
    let ProposedStep { verb, target, arguments, preconditions, on_failure } = proposed;
    if target.kind != found.target {
        let expected = found.target.name();
        return Err(Refusal::TargetKind { verb: verb.clone(), expected, target: target.clone() });
    }
    let node = place(target, world)?;
    able(&node, found.verb.capability.as_deref(), world)?;
    let compensation = found.undone_by.as_ref().map(|undo| Compensation {
        verb: undo.clone(),
        node: node.clone(),
        arguments: BTreeMap::new(),
    });
    let (verb, arguments) = (verb.clone(), arguments.clone());
    let (target, preconditions, on_failure) = (target.clone(), preconditions.clone(), *on_failure);
    Ok(Step { verb, node, target, arguments, preconditions, on_failure, compensation })
}

/// The one step that a runbook is, with its script's digest and bounds, so that they are what is approved.
fn runbook(proposed: &ProposedStep, world: &World) -> Result<Step, Refusal> {
    let name = proposed.arguments.get(argument::RUNBOOK).and_then(Value::as_text).unwrap_or_default();
    let known = world.runbooks.get(name).and_then(|known| Some((known, known.digest.as_ref()?)));
    let (known, digest) = known.ok_or_else(|| Refusal::UnknownRunbook(name.into()))?;
    let mut own = catalogue::find(verb::SCRIPT)?;
    own.verb.arguments = known.specs().collect();
    let arguments = proposed.arguments.iter().filter(|(name, _)| name.starts_with(argument::OF_RUNBOOK));
    let mut arguments: BTreeMap<String, Value> = arguments.map(|(name, value)| (name.clone(), value.clone())).collect();
    own.verb.check_all(&arguments)?;
    let long = arguments.iter().find(|(_, value)| value.as_text().is_some_and(unfit));
    if let Some((argument, _)) = long {
        return Err(ArgumentError::Bounds { verb: verb::RUNBOOK.into(), argument: argument.clone() }.into());
    }
    let Runbook { cpus, memory_bytes, pids, output_bytes, timeout_ms, .. } = known;
    arguments.extend([
        (argument::RUNBOOK.to_string(), Value::Text(name.into())),
        (argument::SCRIPT.to_string(), Value::Text(digest.0.clone())),
        (argument::CPUS.to_string(), Value::Number(*cpus)),
        (argument::MEMORY_MAX.to_string(), Value::Bytes(*memory_bytes)),
        (argument::PIDS.to_string(), Value::Integer(i64::from(*pids))),
        (argument::OUTPUT.to_string(), Value::Bytes(*output_bytes)),
        (argument::TIMEOUT.to_string(), Value::Duration(*timeout_ms)),
    ]);
    let script = catalogue::find(verb::SCRIPT)?;
    script.verb.check(&arguments)?;
    single(&ProposedStep { verb: verb::SCRIPT.into(), arguments, ..proposed.clone() }, &script, world)
}

/// A text that is no argument: too long, or with control characters.
fn unfit(text: &str) -> bool {
    text.len() > RUNBOOK_TEXT_MAXIMUM || text.chars().any(char::is_control)
}

/// checkpoint on the source, restore and confirm on the target node, and only then retire the source.
fn migrate(proposed: &ProposedStep, world: &World, first: usize) -> Result<Vec<Step>, Refusal> {
    let target = &proposed.target;
    if target.kind != SubjectKind::Workload {
        return Err(Refusal::UnknownTarget(target.clone()));
    }
    let source = &place(target, world)?;
    let to = NodeId(proposed.arguments.get(argument::TO).and_then(Value::as_text).unwrap_or_default().into());
    if to == *source {
        return Err(Refusal::AlreadyThere { target: target.clone(), node: to });
    }
    let here = able(source, Some(catalogue::capability::CHECKPOINT), world)?;
    let workload = world.workloads.get(&crate::id::WorkloadId(target.id.clone()));
    if let (Some(left_ms), Some(forecast)) = (here.leaves_in_ms, workload.and_then(|known| known.forecast))
        && forecast.predicted_ms > left_ms
    {
        let Forecast { bytes: _, predicted_ms, learned_from } = forecast;
        let (target, node) = (target.clone(), source.clone());
        return Err(Refusal::TooLate { target, node, predicted_ms, learned_from, left_ms });
    }
    let there = able(&to, Some(catalogue::capability::RESTORE), world)?;
    if let Some(reason) = &there.cordoned {
        return Err(Refusal::Cordoned { node: to, reason: reason.clone() });
    }
    let timeout = proposed.arguments.get(argument::TIMEOUT).map(|value| (argument::TIMEOUT.to_string(), value.clone()));
    let plain: BTreeMap<String, Value> = timeout.into_iter().collect();
    let mut linked = plain.clone();
    linked.insert(argument::CHECKPOINT_STEP.into(), Value::Integer(i64::try_from(first).unwrap_or(i64::MAX)));
    let short = |mut arguments: BTreeMap<String, Value>| {
        arguments.remove(argument::TIMEOUT);
        arguments
    };
    let step = |verb: &str, node: &NodeId, arguments, on_failure, compensation| Step {
        verb: verb.into(),
        node: node.clone(),
        target: target.clone(),
        arguments,
        preconditions: vec![],
        on_failure,
        compensation,
    };
    let undo =
        |verb: &str, node: &NodeId| Compensation { verb: verb.into(), node: node.clone(), arguments: BTreeMap::new() };
    let mut checkpoint = step(verb::CHECKPOINT, source, plain, OnFailure::Compensate, Some(undo(verb::RESUME, source)));
    checkpoint.preconditions.clone_from(&proposed.preconditions);
    let restore = step(verb::RESTORE, &to, linked.clone(), OnFailure::Compensate, Some(undo(verb::DISCARD, &to)));
    let confirm = step(verb::CONFIRM, &to, short(linked), OnFailure::Compensate, None);
    // By now the copy is known to progress: a source that cannot be retired is for a person, not for an undo.
    let retire = step(verb::RETIRE, source, BTreeMap::new(), OnFailure::Stop, None);
    Ok(vec![checkpoint, restore, confirm, retire])
}
