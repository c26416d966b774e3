//! A plan: immutable, hashed over its canonical meaning, and made of primitive verbs only.
//!
//! The hash is BLAKE3 over RFC 8785 canonical JSON (see `docs/plan-hash.md` for the choice and the test vectors). It
//! covers what will be done, to what, under which bounds and by whose word: steps, targets with generation, arguments,
//! preconditions, success conditions, class, counted blast radius, digests of planner, gates and bundle, whether it is
//! a dry run. It leaves out scores, prices, loads, free texts and times of day, so an approval survives a re-plan that
//! changes nothing, and dies with one that does.

pub mod forecast;
mod resolve;

pub use forecast::Forecast;
pub use resolve::{KnownNode, KnownWorkload, Refusal, Resolved, WakeRoute, World, resolve};

use crate::{
    catalogue::{SafetyClass, argument},
    decision::{Condition, OnFailure},
    id::{Digest, NodeId, SnapshotId},
    order::{Direction, IdempotencyKey},
    subject::{SubjectRef, Target},
    value::Value,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalogue::{self, verb},
        decision::{Proposal, ProposedStep},
        subject::SubjectKind,
        value::MAX_EXACT,
    };
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
            ..KnownNode::default()
        };
        let train = KnownWorkload { generation: 7, node: NodeId::new("node-a"), forecast: None };
        World {
            nodes: ["node-a", "node-b"].map(|node| (NodeId::new(node), able.clone())).into(),
            workloads: [(crate::id::WorkloadId::new("train"), train)].into(),
            ..World::default()
        }
    }

    #[test]
    fn a_move_that_would_be_too_late_is_refused_in_words_before_anything_stops() {
        let mut world = world();
        let train = crate::id::WorkloadId::new("train");
        world.nodes.get_mut(&NodeId::new("node-a")).unwrap().leaves_in_ms = Some(30_000);
        // Nothing is known of how long it takes: that is no reason to give up.
        assert!(resolve(&proposal(), &world).is_ok());
        let mut takes = |predicted_ms| {
            let forecast = Forecast { bytes: 64 << 30, predicted_ms, learned_from: 5 };
            world.workloads.get_mut(&train).unwrap().forecast = Some(forecast);
            resolve(&proposal(), &world)
        };
        assert!(takes(30_000).is_ok());
        let refusal = takes(30_001).unwrap_err();
        assert_eq!(refusal.code(), "proposal.too-late");
        let words = "takes about 30001 ms, as 5 on `node-a` did, and the node is gone in 30000 ms";
        assert!(refusal.to_string().contains(words), "{refusal}");
    }

    fn proposal() -> Proposal {
        let plan = vector();
        let target = plan.steps[0].target.clone();
        Proposal {
            title: "Move it".into(),
            rationale: "because".into(),
            steps: vec![ProposedStep {
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
    fn one_step_goes_to_the_agent_that_has_the_target() {
        let step = |verb: &str, kind, id: &str, generation| ProposedStep {
            verb: verb.into(),
            target: Target { kind, id: id.into(), generation },
            arguments: BTreeMap::new(),
            preconditions: vec![],
            on_failure: OnFailure::Compensate,
        };
        let resolve_one = |step: ProposedStep, world: &World| {
            resolve(&Proposal { steps: vec![step], success: vec![], ..proposal() }, world)
        };
        let mut world = world();
        let node = world.nodes.get_mut(&NodeId::new("node-a")).unwrap();
        node.capabilities.insert("process.freeze".into(), Ok(()));
        node.capabilities.insert("process.signal".into(), Err("not here".into()));
        let freeze = step(verb::FREEZE, SubjectKind::Workload, "train", 7);
        let resolved = resolve_one(freeze.clone(), &world).unwrap();
        assert_eq!((resolved.class, resolved.blast.workloads), (SafetyClass::Reversible, 1));
        let [only] = &resolved.steps[..] else { panic!("{resolved:?}") };
        assert_eq!((only.node.as_str(), only.verb.as_str()), ("node-a", verb::FREEZE));
        let undo = only.compensation.as_ref().unwrap();
        assert_eq!((undo.node.as_str(), undo.verb.as_str()), ("node-a", verb::THAW));

        let code = |step| resolve_one(step, &world).map_or_else(|refusal| refusal.code(), |_| "resolved");
        let workload = SubjectKind::Workload;
        for (step, expected) in [
            (step(verb::FREEZE, workload, "train", 6), "proposal.generation"),
            (step(verb::FREEZE, workload, "other", 7), "proposal.unknown-target"),
            (step(verb::FREEZE, SubjectKind::Node, "node-a", 1), "proposal.target-kind"),
            (step(verb::LIMIT, workload, "train", 7), "proposal.incapable"),
            (step(verb::TERMINATE, workload, "train", 7), "proposal.incapable"),
            (step(verb::UNLIMIT, workload, "train", 7), "proposal.verb"),
            (step(verb::CHECKPOINT, workload, "train", 7), "proposal.verb"),
        ] {
            assert_eq!(code(step.clone()), expected, "{step:?}");
        }
        world.nodes.get_mut(&NodeId::new("node-a")).unwrap().live = false;
        assert_eq!(resolve_one(freeze, &world).unwrap_err().code(), "proposal.node-not-live");
    }

    #[test]
    fn a_runbook_is_one_step_with_the_digest_and_bounds_of_its_script() {
        let mut world = world();
        let node = world.nodes.get_mut(&NodeId::new("node-a")).unwrap();
        node.capabilities.insert("runbook.run".into(), Ok(()));
        let runbook: crate::policy::Runbook = serde_json::from_value(serde_json::json!({
            "script": "runbooks/collect.sh",
            "digest": Digest::of(b"script"),
            "arguments": [
                { "name": "unit", "kind": "text", "required": true },
                { "name": "lines", "kind": "integer", "minimum": 1.0, "maximum": 100.0 },
                { "name": "level", "kind": "text", "choices": ["low", "high"] },
            ],
        }))
        .unwrap();
        world.runbooks.insert("collect".into(), runbook);
        let run = |arguments: &[(&str, Value)]| {
            let step = ProposedStep {
                verb: verb::RUNBOOK.into(),
                target: Target { kind: SubjectKind::Node, id: "node-a".into(), generation: 1 },
                arguments: arguments.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect(),
                preconditions: vec![],
                on_failure: OnFailure::Stop,
            };
            resolve(&Proposal { steps: vec![step], success: vec![], ..proposal() }, &world)
        };
        let text = |text: &str| Value::Text(text.into());
        let name = || ("runbook", text("collect"));
        let unit = || ("arg.unit", text("sshd; rm -rf /"));
        let resolved = run(&[name(), unit(), ("arg.lines", Value::Integer(5))]).unwrap();
        let [step] = &resolved.steps[..] else { panic!("{resolved:?}") };
        assert_eq!(
            (step.verb.as_str(), resolved.class, &step.compensation),
            (verb::SCRIPT, SafetyClass::Destructive, &None)
        );
        let arguments = serde_json::to_string(&step.arguments).unwrap();
        let digest = Digest::of(b"script");
        expect![[r#"{"arg.lines":{"integer":5},"arg.unit":{"text":"sshd; rm -rf /"},"cpus":{"number":0.5},"memory-max":{"bytes":268435456},"output-bytes":{"bytes":16384},"pids":{"integer":64},"runbook":{"text":"collect"},"script":{"text":"DIGEST"},"timeout":{"duration":60000}}"#]]
            .assert_eq(&arguments.replace(&digest.0, "DIGEST"));

        for (arguments, expected) in [
            (vec![name()], "proposal.argument"),
            (vec![name(), unit(), ("arg.lines", Value::Integer(101))], "proposal.argument"),
            (vec![name(), unit(), ("arg.lines", text("5"))], "proposal.argument"),
            (vec![name(), unit(), ("arg.level", text("middle"))], "proposal.argument"),
            (vec![name(), unit(), ("arg.other", text("x"))], "proposal.argument"),
            (vec![name(), ("arg.unit", text("two\nlines"))], "proposal.argument"),
            (vec![name(), ("arg.unit", text(&"x".repeat(257)))], "proposal.argument"),
            (vec![name(), unit(), ("script", text("mine"))], "proposal.argument"),
            (vec![("runbook", text("other")), unit()], "proposal.unknown-runbook"),
        ] {
            assert_eq!(run(&arguments).unwrap_err().code(), expected, "{arguments:?}");
        }
        let shown = catalogue::catalogue_with(&world.runbooks);
        let shown = shown.iter().find(|verb| verb.name == verb::RUNBOOK).unwrap();
        assert_eq!(shown.arguments[0].choices, ["collect"]);
        assert!(shown.arguments.iter().any(|spec| spec.name == "arg.level" && spec.choices.len() == 2));
    }

    /// Success of what stays where it is is judged on that very generation.
    #[test]
    fn only_what_moves_is_of_the_next_generation() {
        let mut world = world();
        world.nodes.get_mut(&NodeId::new("node-a")).unwrap().capabilities.insert("process.freeze".into(), Ok(()));
        let mut frozen = proposal();
        frozen.steps[0].verb = verb::FREEZE.into();
        frozen.steps[0].arguments.clear();
        assert_eq!(resolve(&frozen, &world).unwrap().success[0].target.generation, 7);
        assert_eq!(resolve(&proposal(), &world).unwrap().success[0].target.generation, 8);
    }

    #[test]
    fn nothing_moves_to_a_cordoned_node() {
        let mut world = world();
        world.nodes.get_mut(&NodeId::new("node-b")).unwrap().cordoned = Some("maintenance".into());
        let refusal = resolve(&proposal(), &world).unwrap_err();
        assert_eq!(refusal.code(), "proposal.cordoned");
        assert_eq!(refusal.to_string(), "the node `node-b` takes no new work: maintenance");
    }

    #[test]
    fn more_steps_than_the_limit_are_refused() {
        let (mut world, mut proposal) = (world(), proposal());
        let first = proposal.steps.remove(0);
        for index in 0..=STEPS_MAXIMUM / 4 {
            let id = format!("w{index}");
            let known = KnownWorkload { generation: 7, node: NodeId::new("node-a"), forecast: None };
            world.workloads.insert(crate::id::WorkloadId::new(&id), known);
            proposal.steps.push(ProposedStep { target: Target { id, ..first.target.clone() }, ..first.clone() });
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
