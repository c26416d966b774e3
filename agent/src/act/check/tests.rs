//! Each way in which an order can be wrong, and the code that says so.

use super::*;
use crate::{
    process::ProcessRef,
    workloads::{Body, Tcp},
};
use aether_core::{
    catalogue::SafetyClass,
    decision::OnFailure,
    id::Digest,
    plan::{BlastCount, Compensation, Shape, Step},
    snapshot::{Tier, WorkloadSpec},
    subject::{SubjectKind, SubjectRef},
};
use ed25519_dalek::{Signer, SigningKey};

const NOW: Time = Time(1_000_000);

fn host() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn target(generation: u64) -> Target {
    Target { kind: SubjectKind::Workload, id: "w".into(), generation }
}

fn step(verb: &str, node: &str) -> Step {
    let linked = [verb::RESTORE, verb::CONFIRM].contains(&verb);
    let arguments = linked.then(|| (catalogue::argument::CHECKPOINT_STEP.to_string(), Value::Integer(0)));
    Step {
        verb: verb.into(),
        node: NodeId::new(node),
        target: target(3),
        arguments: arguments.into_iter().collect(),
        preconditions: vec![],
        on_failure: OnFailure::Compensate,
        compensation: None,
    }
}

fn plan(step: Step) -> Plan {
    Plan {
        schema_version: 1,
        shape: Shape { cause: "spot".into(), subject: SubjectRef::node("node-a") },
        steps: vec![step],
        success: vec![],
        watch_ms: 1,
        class: SafetyClass::Impactful,
        blast: BlastCount { nodes: 2, gpus: 0, workloads: 1 },
        dry_run: false,
        planner: Digest::of(b"p"),
        gates: vec![],
        policy_bundle: Digest::of(b"b"),
        parent: None,
    }
}

fn order(plan: &Plan, direction: Direction) -> Order {
    let hash = plan.hash();
    Order {
        key: IdempotencyKey::derive(&hash, 0, direction, &plan.steps[0].target),
        plan: hash,
        step: 0,
        direction,
        target: plan.steps[0].target.clone(),
        decided_by: Provenance::of(plan),
        node: NodeId::new("node-a"),
        lease: 2,
        fence: 5,
        nonce: "n".into(),
        execute_by: NOW.plus_ms(1_000),
        inputs: BTreeMap::from([(MANIFEST.to_string(), "d".to_string())]),
    }
}

fn signed(plan: &Plan, order: &Order) -> v1::Dispatch {
    let signature = host().sign(&order.signed_bytes()).to_bytes().to_vec();
    v1::Dispatch { plan: plan.canonical(), order: aether_core::plan::canonical(order), signature }
}

fn code(dispatch: &v1::Dispatch) -> &'static str {
    let key = host().verifying_key();
    read(dispatch, Some(&key), &NodeId::new("node-a")).map_or_else(|refusal| refusal.code, |_| "taken")
}

#[test]
fn words_that_are_off_are_refused_by_name() {
    let plan = plan(step(verb::CHECKPOINT, "node-a"));
    let order = order(&plan, Direction::Forward);
    let good = signed(&plan, &order);
    assert_eq!(code(&good), "taken");

    let with = |change: &dyn Fn(&mut Order)| {
        let mut changed = order.clone();
        change(&mut changed);
        code(&signed(&plan, &changed))
    };
    let with_plan = |change: &dyn Fn(&mut Plan)| {
        let mut changed = plan.clone();
        change(&mut changed);
        let order = self::order(&changed, Direction::Forward);
        code(&signed(&changed, &order))
    };
    let mut flipped = good.clone();
    flipped.signature[0] ^= 1;
    let stranger = SigningKey::from_bytes(&[8; 32]).sign(&order.signed_bytes()).to_bytes().to_vec();
    let mut spaced = good.order.clone();
    spaced.push(b' ');
    let respelled = [Order::DOMAIN, &spaced].concat();
    let respelled = host().sign(&respelled).to_bytes().to_vec();
    let mut other = plan.clone();
    other.watch_ms = 2;

    for (found, expected) in [
        (code(&flipped), "order.signature"),
        (code(&v1::Dispatch { signature: stranger, ..good.clone() }), "order.signature"),
        (code(&v1::Dispatch { signature: vec![], ..good.clone() }), "order.signature"),
        // The same words, spelled otherwise, and signed.
        (code(&v1::Dispatch { order: spaced, signature: respelled, ..good.clone() }), "order.malformed"),
        (code(&v1::Dispatch { plan: other.canonical(), ..good.clone() }), "order.plan-hash"),
        (code(&v1::Dispatch { plan: b"{}".to_vec(), ..good.clone() }), "order.plan-hash"),
        (with(&|order| order.node = NodeId::new("node-b")), "order.node"),
        (with(&|order| order.step = 1), "order.step"),
        (with(&|order| order.direction = Direction::Compensate), "order.verb"),
        (with(&|order| order.key = IdempotencyKey("0".repeat(64))), "order.key"),
        (with(&|order| order.plan = PlanHash("0".repeat(64))), "order.plan-hash"),
        (with(&|order| order.target.id = "v".into()), "order.target"),
        (with(&|order| order.target.kind = SubjectKind::Node), "order.target"),
        (with(&|order| order.target.generation = 4), "order.target"),
        (with(&|order| order.decided_by.planner = Digest::of(b"another")), "order.provenance"),
        (with(&|order| order.decided_by.gates.push(Digest::of(b"another"))), "order.provenance"),
        (with(&|order| order.decided_by.policy_bundle = Digest::of(b"another")), "order.provenance"),
        (with_plan(&|plan| plan.steps[0].node = NodeId::new("node-b")), "order.node"),
        (with_plan(&|plan| plan.steps[0].verb = verb::MIGRATE.into()), "order.verb"),
        (with_plan(&|plan| plan.steps[0].verb = "shell.run".into()), "order.verb"),
        (with_plan(&|plan| plan.steps[0].target.kind = SubjectKind::Node), "order.target"),
        (with_plan(&|plan| plan.schema_version = 2), "order.plan"),
        (
            with_plan(&|plan| {
                plan.steps[0].arguments.insert("shell".into(), Value::Text("rm".into()));
            }),
            "order.arguments",
        ),
    ] {
        assert_eq!(found, expected);
    }
    assert_eq!(read(&good, None, &NodeId::new("node-a")).unwrap_err().code, "order.signature");
    assert_eq!(claimed_key(&good), order.key.0);
}

/// Another value of the same kind.
fn otherwise(name: &str, value: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Number(number) => (number.as_i64().unwrap() + 1).into(),
        Value::String(_) if name == "direction" => "compensate".into(),
        Value::String(text) => format!("{text}0").into(),
        Value::Array(_) => vec!["0"].into(),
        Value::Object(map) => {
            let mut map = map.clone();
            let (name, value) = map.iter_mut().next().unwrap();
            *value = otherwise(name, value);
            map.into()
        }
        Value::Null | Value::Bool(_) => panic!("{name}: {value}"),
    }
}

/// Whatever is changed on the way, the host's signature is not of it.
#[test]
fn each_field_of_an_order_is_signed() {
    let plan = plan(step(verb::CHECKPOINT, "node-a"));
    let order = order(&plan, Direction::Forward);
    let good = signed(&plan, &order);
    let fields = serde_json::to_value(&order).unwrap();
    for (name, value) in fields.as_object().unwrap() {
        let mut bent = fields.clone();
        bent[name] = otherwise(name, value);
        assert_ne!(bent, fields, "{name}");
        let bent: Order = serde_json::from_value(bent).unwrap_or_else(|error| panic!("{name}: {error}"));
        let sent = v1::Dispatch { order: aether_core::plan::canonical(&bent), ..good.clone() };
        assert_eq!(code(&sent), "order.signature", "{name}");
    }
}

#[test]
fn an_undoing_comes_from_the_plan() {
    let undo =
        |node: &str| Compensation { verb: verb::RESUME.into(), node: NodeId::new(node), arguments: BTreeMap::new() };
    let with = |node: &str| plan(Step { compensation: Some(undo(node)), ..step(verb::CHECKPOINT, "node-a") });
    let good = with("node-a");
    let dispatch = signed(&good, &order(&good, Direction::Compensate));
    let key = host().verifying_key();
    let task = read(&dispatch, Some(&key), &NodeId::new("node-a")).unwrap();
    assert_eq!(task.verb, verb::RESUME);
    assert_eq!(task.forward, order(&good, Direction::Forward).key);
    let elsewhere = with("node-b");
    assert_eq!(code(&signed(&elsewhere, &order(&elsewhere, Direction::Compensate))), "order.node");
}

fn entry(generation: u64, state: State) -> Entry {
    let spec = WorkloadSpec {
        id: WorkloadId::new("w"),
        name: "w".into(),
        tier: Tier::Standard,
        command: vec![],
        progress_file: None,
    };
    let body = Body::Process { root: ProcessRef { pid: 1, start_time: 1 }, namespace: None };
    Entry { spec, generation, state, since: Time(0), body, adopted: false, tcp: Tcp::Refuse }
}

struct Scene {
    verb: &'static str,
    entry: Option<Entry>,
    generation: Option<u64>,
    now: Time,
    lease: u64,
    fence: u64,
}

impl Scene {
    fn of(verb: &'static str, entry: Option<Entry>) -> Self {
        let generation = entry.as_ref().map(|entry| entry.generation);
        Self { verb, entry, generation, now: NOW, lease: 0, fence: 0 }
    }

    fn code(&self, change: impl Fn(&mut Task), sample: Option<Sample>) -> &'static str {
        let plan = plan(step(self.verb, "node-a"));
        let order = order(&plan, Direction::Forward);
        let key = host().verifying_key();
        let mut task = read(&signed(&plan, &order), Some(&key), &NodeId::new("node-a")).unwrap();
        change(&mut task);
        let here = Here {
            now: self.now,
            lease: self.lease,
            fence: self.fence,
            entry: self.entry.as_ref(),
            generation: self.generation,
            node_generation: Some(3),
            latest: &|_| sample,
        };
        admit(&task, &here).map_or_else(|refusal| refusal.code, |()| "admitted")
    }
}

#[test]
fn what_is_here_decides_too() {
    use State::{Exited, Running, Stopped};
    let plain = |verb, entry: Option<(u64, State)>, expected: &str| {
        let scene = Scene::of(verb, entry.map(|(generation, state)| self::entry(generation, state)));
        assert_eq!(scene.code(|_| {}, None), expected, "{verb} {entry:?}");
    };
    // The target is of generation 3.
    plain(verb::CHECKPOINT, Some((3, Running)), "admitted");
    plain(verb::CHECKPOINT, None, "target.missing");
    plain(verb::CHECKPOINT, Some((2, Running)), "order.generation");
    plain(verb::CHECKPOINT, Some((4, Running)), "order.generation");
    plain(verb::CHECKPOINT, Some((3, Stopped)), "workload.state");
    plain(verb::CHECKPOINT, Some((3, Exited)), "workload.state");
    plain(verb::RETIRE, Some((3, Stopped)), "admitted");
    plain(verb::RETIRE, Some((3, Running)), "workload.state");
    plain(verb::RETIRE, Some((4, Stopped)), "order.generation");
    plain(verb::RETIRE, None, "target.missing");
    plain(verb::RESTORE, None, "admitted");
    plain(verb::RESTORE, Some((3, Stopped)), "workload.state");
    plain(verb::RESTORE, Some((3, Exited)), "admitted");
    plain(verb::RESTORE, Some((4, Exited)), "order.generation");
    plain(verb::CONFIRM, Some((4, Running)), "admitted");
    plain(verb::CONFIRM, Some((3, Running)), "order.generation");
    plain(verb::CONFIRM, None, "target.missing");
    plain(verb::DISCARD, Some((4, Running)), "admitted");
    plain(verb::DISCARD, Some((3, Running)), "order.generation");
    plain(verb::DISCARD, None, "admitted");
    plain(verb::RESUME, Some((3, Stopped)), "admitted");
    plain(verb::RESUME, Some((4, Running)), "order.generation");
}

#[test]
fn time_fence_inputs_and_preconditions_decide_too() {
    let scene = || Scene::of(verb::CHECKPOINT, Some(entry(3, State::Running)));
    let late = Scene { now: NOW.plus_ms(1_001), ..scene() };
    assert_eq!(late.code(|_| {}, None), "order.expired");
    let in_time = Scene { now: NOW.plus_ms(1_000), ..scene() };
    assert_eq!(in_time.code(|_| {}, None), "admitted");
    assert_eq!(Scene { lease: 3, ..scene() }.code(|_| {}, None), "order.lease");
    assert_eq!(Scene { lease: 2, ..scene() }.code(|_| {}, None), "admitted");
    assert_eq!(Scene { fence: 6, ..scene() }.code(|_| {}, None), "order.fence");
    assert_eq!(Scene { fence: 5, ..scene() }.code(|_| {}, None), "admitted");
    // It left as generation 5; an older snapshot must not come back.
    let left = Scene { generation: Some(5), ..Scene::of(verb::RESTORE, None) };
    assert_eq!(left.code(|_| {}, None), "order.generation");
    let restore = Scene::of(verb::RESTORE, None);
    assert_eq!(restore.code(|task| task.order.inputs.clear(), None), "order.inputs");

    let condition = Condition {
        metric: "aether.workload.running".into(),
        target: target(3),
        minimum: Some(1.0),
        maximum: None,
        fresh_within_ms: 5_000,
    };
    let demand = |task: &mut Task| task.preconditions = vec![condition.clone()];
    let sample = |value, age_ms| Some(Sample { at: NOW.minus_ms(age_ms), value });
    assert_eq!(scene().code(demand, sample(1.0, 1_000)), "admitted");
    assert_eq!(scene().code(demand, sample(0.0, 1_000)), "order.precondition");
    assert_eq!(scene().code(demand, sample(1.0, 5_001)), "order.precondition");
    // A metric that this agent does not take is for the host to judge.
    assert_eq!(scene().code(demand, None), "admitted");
}
