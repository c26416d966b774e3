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

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{expect, expect_file};
    use proptest::{prelude::*, test_runner::RngSeed};

    /// The plan of the documentation's test vector.
    fn vector() -> Plan {
        let target = Target { kind: SubjectKind::Workload, id: "train".into(), generation: 7 };
        let condition = Condition {
            metric: "aether.workload.progress.rate".into(),
            target: Target { generation: 8, ..target.clone() },
            minimum: Some(0.5),
            maximum: None,
            fresh_within_ms: 5_000,
        };
        let step = |verb: &str, node: &str, arguments: &[(&str, Value)], compensation: Option<&str>| Step {
            verb: verb.into(),
            node: NodeId::new(node),
            target: target.clone(),
            arguments: arguments.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect(),
            preconditions: vec![],
            on_failure: if verb == verb::RETIRE { OnFailure::Stop } else { OnFailure::Compensate },
            compensation: compensation.map(|verb| Compensation {
                verb: verb.into(),
                node: NodeId::new(node),
                arguments: BTreeMap::new(),
            }),
        };
        let timeout = (argument::TIMEOUT, Value::Duration(60_000));
        let from = (argument::CHECKPOINT_STEP, Value::Integer(0));
        Plan {
            schema_version: Plan::SCHEMA_VERSION,
            shape: Shape { cause: "spot.rebalance".into(), subject: SubjectRef::node("node-a") },
            steps: vec![
                step(verb::CHECKPOINT, "node-a", std::slice::from_ref(&timeout), Some(verb::RESUME)),
                step(verb::RESTORE, "node-b", &[from.clone(), timeout.clone()], Some(verb::DISCARD)),
                step(verb::CONFIRM, "node-b", &[from], None),
                step(verb::RETIRE, "node-a", &[], None),
            ],
            success: vec![condition],
            watch_ms: 10_000,
            class: SafetyClass::Impactful,
            blast: BlastCount { nodes: 2, gpus: 0, workloads: 1 },
            dry_run: false,
            planner: Digest::of(b"planner"),
            gates: vec![Digest::of(b"gate")],
            policy_bundle: Digest::of(b"bundle"),
            parent: None,
        }
    }

    fn text(plan: &Plan) -> String {
        String::from_utf8(plan.canonical()).unwrap()
    }

    #[test]
    fn test_vector() {
        let plan = vector();
        expect_file!["../golden/plan.json"].assert_eq(&text(&plan));
        expect!["1d05e3461c56046803fcf1fa06a876ce9df56cc7f6afec2aea690a6558566da7"].assert_eq(&plan.hash().0);
        let keys: Vec<String> = [(0, Direction::Forward), (0, Direction::Compensate), (3, Direction::Forward)]
            .map(|(step, direction)| plan.key(step, direction).unwrap().0)
            .into();
        expect![[r#"
            ff47cbfa4586adb6ff0dfff62dfe61195cb480b7739aad30914c2c50667c00ce
            3c0371b23066ad397f7665e3d9aa36a802bd4e28aeb0b5105b346f4c05403425
            18f8cf0a362503da21dd0bed682a5a2a65c4fa0193f129424a4d515325762133"#]]
        .assert_eq(&keys.join("\n"));
        assert_eq!(plan.snapshot(0).unwrap().0, keys[0]);
        assert_eq!(plan.key(4, Direction::Forward), None);
    }

    /// The document shows what the test holds.
    #[test]
    fn the_document_has_the_vector() {
        let document = include_str!("../../../docs/plan-hash.md");
        let plan = vector();
        assert!(document.contains(&text(&plan)), "the canonical bytes are missing in docs/plan-hash.md");
        assert!(document.contains(&plan.hash().0), "the hash is missing in docs/plan-hash.md");
        assert!(document.contains(&plan.key(0, Direction::Forward).unwrap().0));
    }

    /// Each on its own makes another plan.
    #[test]
    fn a_change_of_meaning_changes_the_hash() {
        type Change = fn(&mut Plan);
        let changes: &[(&str, Change)] = &[
            ("schema version", |p| p.schema_version += 1),
            ("cause", |p| p.shape.cause.push('x')),
            ("subject", |p| p.shape.subject.id.push('x')),
            ("subject's kind", |p| p.shape.subject.kind = SubjectKind::Pool),
            ("verb", |p| p.steps[0].verb = verb::RETIRE.into()),
            ("node", |p| p.steps[1].node = NodeId::new("node-c")),
            ("target", |p| p.steps[0].target.id = "other".into()),
            ("target's kind", |p| p.steps[0].target.kind = SubjectKind::Gpu),
            ("generation", |p| p.steps[0].target.generation += 1),
            ("argument", |p| {
                p.steps[0].arguments.insert(argument::TIMEOUT.into(), Value::Duration(60_001));
            }),
            ("argument's kind", |p| {
                p.steps[1].arguments.insert(argument::CHECKPOINT_STEP.into(), Value::Number(0.0));
            }),
            ("argument gone", |p| p.steps[0].arguments.clear()),
            ("precondition", |p| p.steps[0].preconditions = p.success.clone()),
            ("on failure", |p| p.steps[0].on_failure = OnFailure::Stop),
            ("compensation's verb", |p| p.steps[0].compensation.as_mut().unwrap().verb = verb::DISCARD.into()),
            ("compensation's node", |p| p.steps[0].compensation.as_mut().unwrap().node = NodeId::new("node-b")),
            ("no compensation", |p| p.steps[0].compensation = None),
            ("order of steps", |p| p.steps.swap(0, 1)),
            ("a step less", |p| {
                p.steps.pop();
            }),
            ("metric", |p| p.success[0].metric.push('x')),
            ("minimum", |p| p.success[0].minimum = Some(0.5000000000000001)),
            ("maximum", |p| p.success[0].maximum = Some(0.5)),
            ("no bound", |p| p.success[0].minimum = None),
            ("freshness", |p| p.success[0].fresh_within_ms += 1),
            ("condition's generation", |p| p.success[0].target.generation += 1),
            ("watch", |p| p.watch_ms += 1),
            ("class", |p| p.class = SafetyClass::Destructive),
            ("nodes", |p| p.blast.nodes += 1),
            ("gpus", |p| p.blast.gpus += 1),
            ("workloads", |p| p.blast.workloads += 1),
            ("dry run", |p| p.dry_run = true),
            ("planner", |p| p.planner = Digest::of(b"another")),
            ("gate", |p| p.gates[0] = Digest::of(b"another")),
            ("another gate", |p| p.gates.push(Digest::of(b"another"))),
            ("bundle", |p| p.policy_bundle = Digest::of(b"another")),
            ("parent", |p| p.parent = Some(p.hash())),
        ];
        let mut hashes = BTreeMap::from([(vector().hash(), "the plan itself")]);
        for (name, change) in changes {
            let mut plan = vector();
            change(&mut plan);
            assert_eq!(Plan::from_canonical(&plan.canonical()).as_ref(), Ok(&plan), "{name}");
            assert_eq!(hashes.insert(plan.hash(), name), None, "{name}");
        }
    }

    #[test]
    fn only_canonical_bytes_are_a_plan() {
        let good = text(&vector());
        assert_eq!(Plan::from_canonical(good.as_bytes()).unwrap(), vector());
        let swap = |from: &str, to: &str| {
            assert!(good.contains(from), "{from}");
            good.replacen(from, to, 1)
        };
        let differs = [
            ("space", swap(",", ", ")),
            ("newline at the end", format!("{good}\n")),
            ("keys in another order", swap(r#""gpus":0,"nodes":2"#, r#""nodes":2,"gpus":0"#)),
            ("a key twice in a map", swap(r#"{"timeout""#, r#"{"timeout":{"duration":1},"timeout""#)),
            ("another spelling of a number", swap(r#""minimum":0.5"#, r#""minimum":5e-1"#)),
            ("a trailing zero", swap(r#""minimum":0.5"#, r#""minimum":0.50"#)),
            ("an escape", swap("spot.rebalance", r"spot\u002erebalance")),
            ("an unknown field", swap(r#"{"blast""#, r#"{"aaa":1,"blast""#)),
            ("a default left out", swap(r#""parent":null,"#, "")),
        ];
        for (name, bytes) in differs {
            assert_eq!(Plan::from_canonical(bytes.as_bytes()), Err(NotCanonical::Differs), "{name}");
        }
        let malformed = [
            ("a fraction where an integer is", swap(r#""nodes":2"#, r#""nodes":2.0"#)),
            ("a field twice", swap(r#""dry_run":false"#, r#""dry_run":false,"dry_run":false"#)),
            ("a field missing", swap(r#""dry_run":false,"#, "")),
            ("cut off", good[..good.len() - 1].to_string()),
            ("two plans", format!("{good}{good}")),
            ("nothing", String::new()),
        ];
        for (name, bytes) in malformed {
            let refused = Plan::from_canonical(bytes.as_bytes());
            assert!(matches!(refused, Err(NotCanonical::Malformed(_))), "{name}: {refused:?}");
        }
    }

    #[test]
    fn a_number_that_is_none_does_not_stop_the_host() {
        assert_eq!(canonical(&f64::NAN), b"null");
        assert_eq!(canonical(&BTreeMap::from([("a", f64::INFINITY), ("b", 1.0)])), br#"{"a":null,"b":1}"#);
    }

    fn world() -> World {
        let able = KnownNode {
            generation: 1,
            live: true,
            capabilities: [catalogue::capability::CHECKPOINT, catalogue::capability::RESTORE]
                .map(|capability| (capability.to_string(), Ok(())))
                .into(),
        };
        let train = KnownWorkload { generation: 7, node: NodeId::new("node-a") };
        World {
            nodes: ["node-a", "node-b"].map(|node| (NodeId::new(node), able.clone())).into(),
            workloads: [(crate::id::WorkloadId::new("train"), train)].into(),
        }
    }

    fn proposal() -> Proposal {
        let plan = vector();
        let target = plan.steps[0].target.clone();
        Proposal {
            title: "Move it".into(),
            rationale: "because".into(),
            steps: vec![crate::decision::ProposedStep {
                verb: verb::MIGRATE.into(),
                target: target.clone(),
                arguments: BTreeMap::from([
                    (argument::TO.to_string(), Value::Text("node-b".into())),
                    (argument::TIMEOUT.to_string(), Value::Duration(60_000)),
                ]),
                preconditions: vec![],
                on_failure: OnFailure::Compensate,
            }],
            success: vec![Condition { target, ..plan.success[0].clone() }],
            watch_ms: plan.watch_ms,
            confidence: 0.8,
        }
    }

    #[test]
    fn a_migration_is_checkpoint_restore_confirm_and_only_then_retire() {
        let resolved = resolve(&proposal(), &world()).unwrap();
        let plan = vector();
        assert_eq!(resolved.steps, plan.steps);
        assert_eq!(resolved.success, plan.success);
        assert_eq!((resolved.class, resolved.blast), (plan.class, plan.blast));
    }

    #[test]
    fn more_steps_than_the_limit_are_refused() {
        let (mut world, mut proposal) = (world(), proposal());
        let first = proposal.steps.remove(0);
        for index in 0..=STEPS_MAXIMUM / 4 {
            let id = format!("w{index}");
            let known = KnownWorkload { generation: 7, node: NodeId::new("node-a") };
            world.workloads.insert(crate::id::WorkloadId::new(&id), known);
            proposal
                .steps
                .push(crate::decision::ProposedStep { target: Target { id, ..first.target.clone() }, ..first.clone() });
        }
        assert_eq!(resolve(&proposal, &world), Err(Refusal::TooManySteps));
        proposal.steps.pop();
        let steps = resolve(&proposal, &world).unwrap().steps;
        assert_eq!(steps.len(), STEPS_MAXIMUM);
        // Each restore refers to the checkpoint of its own workload.
        for (index, step) in steps.iter().enumerate().filter(|(_, step)| step.verb == verb::RESTORE) {
            let checkpoint = &steps[step.checkpoint_step().unwrap() as usize];
            assert_eq!((checkpoint.verb.as_str(), &checkpoint.target), (verb::CHECKPOINT, &step.target), "{index}");
        }
    }

    #[test]
    fn a_condition_that_json_would_round_is_refused() {
        let mut large = proposal();
        large.success[0].fresh_within_ms = MAX_EXACT + 1;
        assert!(matches!(resolve(&large, &world()), Err(Refusal::Condition(_))));
        let mut large = proposal();
        large.steps[0].preconditions = vec![Condition {
            target: Target { generation: u64::MAX, ..large.success[0].target.clone() },
            ..large.success[0].clone()
        }];
        assert!(matches!(resolve(&large, &world()), Err(Refusal::Condition(_))));
        let mut long = proposal();
        long.watch_ms = WATCH_MAXIMUM_MS + 1;
        assert_eq!(resolve(&long, &world()), Err(Refusal::Watch));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, rng_seed: RngSeed::Fixed(3), ..ProptestConfig::default() })]

        /// Any text, any exact number: out and in again with the same bits, and the same hash.
        #[test]
        fn round_trip(
            cause in ".*", id in ".*", minimum in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO,
            generation in 0..=MAX_EXACT, integer in -(MAX_EXACT as i64)..=MAX_EXACT as i64, name in ".*",
        ) {
            let mut plan = vector();
            plan.shape.cause = cause;
            plan.steps[0].target = Target { kind: SubjectKind::Gpu, id, generation };
            plan.steps[1].arguments.insert(name.clone(), Value::Integer(integer));
            plan.steps[2].arguments.insert(name, Value::Number(minimum));
            plan.success[0].minimum = Some(minimum);
            let bytes = plan.canonical();
            let again = Plan::from_canonical(&bytes).unwrap();
            prop_assert_eq!(&again, &plan);
            prop_assert_eq!(again.hash(), PlanHash::of_canonical(&bytes));
        }

        /// Scores and texts of a proposal are not in the plan.
        #[test]
        fn what_is_only_said_is_not_hashed(title in ".*", rationale in ".*", confidence in 0.0..1.0f64) {
            let said = Proposal { title, rationale, confidence, ..proposal() };
            prop_assert_eq!(resolve(&said, &world()), resolve(&proposal(), &world()));
        }

        /// Two conditions of different bounds never become the same bytes.
        #[test]
        fn bounds_are_told_apart(a in prop::num::f64::NORMAL, b in prop::num::f64::NORMAL) {
            let of = |bound| {
                let mut plan = vector();
                plan.success[0].minimum = Some(bound);
                plan.hash()
            };
            prop_assert_eq!(of(a) == of(b), a == b);
        }
    }
}
