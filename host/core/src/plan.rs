//! A plan: immutable, hashed over its canonical meaning, and made of primitive verbs only.
//!
//! The hash is BLAKE3 over RFC 8785 canonical JSON (see `docs/plan-hash.md` for the choice and the test vectors). It
//! covers what will be done, to what, under which bounds and by whose word: steps, targets with generation, arguments,
//! preconditions, success conditions, class, counted blast radius, digests of planner, gates and bundle, whether it is
//! a dry run. It leaves out scores, prices, loads, free texts and times of day, so an approval survives a re-plan that
//! changes nothing, and dies with one that does.

use crate::{
    catalogue::{self, ArgumentError, SafetyClass, argument, verb},
    decision::{Condition, OnFailure, Proposal},
    id::{Digest, NodeId, SnapshotId},
    order::{Direction, IdempotencyKey},
    subject::{SubjectKind, SubjectRef, Target},
    value::{MAX_EXACT, Value},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;
use utoipa::ToSchema;

/// Canonical JSON (RFC 8785) of a document of ours. Numbers are checked where they enter; one that is not finite all
/// the same becomes `null`, as in all other JSON that we write, because the kernel must not fall over a reading.
///
/// # Panics
/// Never for the types of this crate: their keys are strings.
pub fn canonical<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json_canonicalizer::to_vec(document)
        .or_else(|_| serde_json_canonicalizer::to_vec(&serde_json::to_value(document)?))
        .expect("documents have string keys")
}

/// BLAKE3 of a plan's canonical bytes, as hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct PlanHash(pub String);

impl PlanHash {
    pub fn of_canonical(bytes: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("aether 2026-11 plan v1");
        hasher.update(bytes);
        Self(hasher.finalize().to_hex().to_string())
    }
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl std::fmt::Display for PlanHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What makes two incidents the same trouble: the cause and the subject. A duplicate shape folds into the open one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct Shape {
    pub cause: String,
    pub subject: SubjectRef,
}

/// How many things a plan touches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlastCount {
    pub nodes: u32,
    pub gpus: u32,
    pub workloads: u32,
}

/// How to undo a step: always a primitive verb, on the agent named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Compensation {
    pub verb: String,
    pub node: NodeId,
    pub arguments: BTreeMap<String, Value>,
}

/// One deed of one agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    pub verb: String,
    /// The agent that carries it out.
    pub node: NodeId,
    pub target: Target,
    pub arguments: BTreeMap<String, Value>,
    pub preconditions: Vec<Condition>,
    pub on_failure: OnFailure,
    pub compensation: Option<Compensation>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    pub schema_version: u32,
    pub shape: Shape,
    pub steps: Vec<Step>,
    pub success: Vec<Condition>,
    pub watch_ms: u64,
    pub class: SafetyClass,
    pub blast: BlastCount,
    pub dry_run: bool,
    pub planner: Digest,
    pub gates: Vec<Digest>,
    pub policy_bundle: Digest,
    pub parent: Option<PlanHash>,
}

/// The most steps of one plan.
pub const STEPS_MAXIMUM: usize = 64;
/// How long a step may take when its verb names no time.
pub const STEP_TIMEOUT_DEFAULT_MS: u64 = 120_000;

/// The longest watch after a plan: a day.
pub const WATCH_MAXIMUM_MS: u64 = 86_400_000;

impl Plan {
    pub const SCHEMA_VERSION: u32 = 1;

    pub fn canonical(&self) -> Vec<u8> {
        canonical(self)
    }
    pub fn hash(&self) -> PlanHash {
        PlanHash::of_canonical(&self.canonical())
    }
    /// Parses canonical bytes; refuses any that do not come out the same again.
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, NotCanonical> {
        let plan: Plan = serde_json::from_slice(bytes).map_err(|error| NotCanonical::Malformed(error.to_string()))?;
        if plan.canonical() == bytes { Ok(plan) } else { Err(NotCanonical::Differs) }
    }
    pub fn key(&self, step: u32, direction: Direction) -> Option<IdempotencyKey> {
        let target = &self.steps.get(usize::try_from(step).ok()?)?.target;
        Some(IdempotencyKey::derive(&self.hash(), step, direction, target))
    }
    /// The snapshot that the checkpoint at `step` makes: named by its idempotency key, so known before it exists.
    pub fn snapshot(&self, step: u32) -> Option<SnapshotId> {
        self.key(step, Direction::Forward).map(|key| SnapshotId(key.0))
    }
}

impl Step {
    pub fn timeout_ms(&self) -> u64 {
        match self.arguments.get(argument::TIMEOUT) {
            Some(Value::Duration(ms)) => *ms,
            _ => STEP_TIMEOUT_DEFAULT_MS,
        }
    }
    /// The step whose outputs this one needs.
    pub fn checkpoint_step(&self) -> Option<u32> {
        match self.arguments.get(argument::CHECKPOINT_STEP) {
            Some(Value::Integer(step)) => u32::try_from(*step).ok(),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotCanonical {
    #[error("not a plan: {0}")]
    Malformed(String),
    #[error("the bytes are not the canonical form of the plan in them")]
    Differs,
}

/// What is known of the world when a proposal is resolved. Nothing outside it can be targeted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct World {
    pub nodes: BTreeMap<NodeId, KnownNode>,
    pub workloads: BTreeMap<crate::id::WorkloadId, KnownWorkload>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct KnownNode {
    pub generation: u64,
    pub live: bool,
    /// Capabilities that the agent has, and for those it lacks, why: `Err(reason)`.
    #[schema(value_type = Object)]
    pub capabilities: BTreeMap<String, Result<(), String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KnownWorkload {
    pub generation: u64,
    pub node: NodeId,
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
    #[error("the agent on `{node}` cannot do `{capability}`: {reason}")]
    Incapable { node: NodeId, capability: String, reason: String },
    #[error("the condition on `{0}` has no bound, or a number that canonical JSON does not carry exactly")]
    Condition(String),
    #[error("the watch window is longer than {WATCH_MAXIMUM_MS} ms")]
    Watch,
    #[error("the target {0} appears twice")]
    TargetTwice(Target),
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
            Refusal::Incapable { .. } => "proposal.incapable",
            Refusal::Condition(_) => "proposal.condition",
            Refusal::Watch => "proposal.watch",
            Refusal::TargetTwice(_) => "proposal.target-twice",
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
    for proposed in &proposal.steps {
        let found = catalogue::find(&proposed.verb)?;
        found.check(&proposed.arguments)?;
        check_conditions(&proposed.preconditions)?;
        if targets.contains(&proposed.target) {
            return Err(Refusal::TargetTwice(proposed.target.clone()));
        }
        class = class.max(found.class);
        match proposed.verb.as_str() {
            verb::MIGRATE => steps.extend(migrate(proposed, world, steps.len())?),
            other => return Err(Refusal::NotProposable(other.into())),
        }
        targets.push(proposed.target.clone());
    }
    if steps.len() > STEPS_MAXIMUM {
        return Err(Refusal::TooManySteps);
    }
    check_conditions(&proposal.success)?;
    if proposal.watch_ms > WATCH_MAXIMUM_MS {
        return Err(Refusal::Watch);
    }
    let nodes: std::collections::BTreeSet<&NodeId> = steps.iter().map(|step| &step.node).collect();
    let count = |kind| targets.iter().filter(|target| target.kind == kind).count();
    let blast = BlastCount {
        nodes: saturating(nodes.len()),
        gpus: saturating(count(SubjectKind::Gpu)),
        workloads: saturating(count(SubjectKind::Workload)),
    };
    let success = proposal.success.iter().map(|condition| after(condition, &targets)).collect();
    Ok(Resolved { steps, success, watch_ms: proposal.watch_ms, class, blast })
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

/// checkpoint on the source, restore and confirm on the target node, and only then retire the source.
fn migrate(proposed: &crate::decision::ProposedStep, world: &World, first: usize) -> Result<Vec<Step>, Refusal> {
    let target = &proposed.target;
    let workload = (target.kind == SubjectKind::Workload)
        .then(|| world.workloads.get(&crate::id::WorkloadId(target.id.clone())))
        .flatten()
        .ok_or_else(|| Refusal::UnknownTarget(target.clone()))?;
    if workload.generation != target.generation {
        return Err(Refusal::Generation { target: target.clone(), current: workload.generation });
    }
    let to = NodeId(proposed.arguments.get(argument::TO).and_then(Value::as_text).unwrap_or_default().into());
    let source = &workload.node;
    if to == *source {
        return Err(Refusal::AlreadyThere { target: target.clone(), node: to });
    }
    for (node, capability) in [(source, catalogue::capability::CHECKPOINT), (&to, catalogue::capability::RESTORE)] {
        let known = world.nodes.get(node).ok_or_else(|| Refusal::UnknownNode(node.clone()))?;
        if !known.live {
            return Err(Refusal::NodeNotLive(node.clone()));
        }
        let reason = match known.capabilities.get(capability) {
            Some(Ok(())) => continue,
            Some(Err(reason)) => reason.clone(),
            None => "the agent does not offer it".into(),
        };
        return Err(Refusal::Incapable { node: node.clone(), capability: capability.into(), reason });
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
