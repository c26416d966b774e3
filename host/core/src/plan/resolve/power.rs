//! A node that is put to sleep, and one that is woken by another: what must be known before, and what must be seen after.

use super::{
    Compensation, Condition, KnownNode, ProposedStep, Refusal, Step, SubjectKind, Target, WakeRoute, World, able,
    place, single,
};
use crate::{
    catalogue::{ArgumentError, Definition, argument, capability, verb},
    id::NodeId,
    metric,
    value::Value,
};
use std::collections::BTreeMap;

/// How long a node must at least be seen asleep, or awake, for the plan to count as verified.
const ASLEEP_WATCH_MS: u64 = 5_000;
/// Verification waits for twice as long and half a minute: time for a machine to come up and its agent to come back.
const AWAKE_WATCH_MS: u64 = 30_000;
const FRESH_WITHIN_MS: u64 = 10_000;

/// Whether an earlier step drains what this one puts to sleep.
pub(super) fn drained(earlier: &[Step], proposed: &ProposedStep) -> bool {
    let drains = |step: &Step| step.verb == verb::DRAIN && step.target == proposed.target;
    let again = |step: &Step| step.verb != verb::DRAIN && step.target == proposed.target;
    proposed.verb == verb::SLEEP && earlier.iter().any(drains) && !earlier.iter().any(again)
}

/// The sleep of a drained node on which nothing is, and which something wakes.
pub(super) fn sleep(
    proposed: &ProposedStep,
    found: &Definition,
    world: &World,
    drained: bool,
) -> Result<Step, Refusal> {
    let mut step = single(proposed, found, world)?;
    step.compensation = None;
    let node = step.node.clone();
    let known = able(&node, None, world)?;
    if !drained && known.cordoned.is_none() {
        return Err(Refusal::NotDrained(node));
    }
    if let Some((workload, _)) = world.workloads.iter().find(|(_, workload)| workload.node == node) {
        return Err(Refusal::Occupied { node, workload: workload.clone() });
    }
    if step.arguments.contains_key(argument::WAKE_AFTER) {
        able(&node, Some(capability::SLEEP_ALARM), world)?;
    } else if known.wake.is_none() {
        return Err(Refusal::NoWayBack(node));
    }
    if let Some(via) = named(&step.arguments) {
        let WakeRoute { mac, network } = route(&node, known, &via, world)?.clone();
        let arguments = [(argument::MAC, mac), (argument::NETWORK, network)];
        let arguments = arguments.map(|(name, value)| (name.to_string(), Value::Text(value))).into();
        step.compensation = Some(Compensation { verb: verb::WAKE.into(), node: via, arguments });
    }
    Ok(step)
}

/// The waking of a node that sleeps on order, by the agent of another.
pub(super) fn wake(proposed: &ProposedStep, found: &Definition, world: &World) -> Result<Step, Refusal> {
    let ProposedStep { verb, target, arguments, preconditions, on_failure } = proposed;
    if target.kind != SubjectKind::Node {
        let expected = found.target.name();
        return Err(Refusal::TargetKind { verb: verb.clone(), expected, target: target.clone() });
    }
    let missing = || ArgumentError::Missing { verb: verb.clone(), argument: argument::VIA.into() };
    let via = named(arguments).ok_or_else(missing)?;
    let sleeper = place(target, world)?;
    let known = world.nodes.get(&sleeper).filter(|known| !known.live && known.asleep.is_some());
    let known = known.ok_or_else(|| Refusal::NotAsleep(sleeper.clone()))?;
    let WakeRoute { mac, network } = route(&sleeper, known, &via, world)?.clone();
    let mut arguments = arguments.clone();
    for (name, told) in [(argument::MAC, mac), (argument::NETWORK, network)] {
        let told = Value::Text(told);
        // What a proposal says of it is taken only where the node said the same.
        if arguments.get(name).is_some_and(|given| *given != told) {
            return Err(ArgumentError::Bounds { verb: verb.clone(), argument: name.into() }.into());
        }
        arguments.insert(name.into(), told);
    }
    let (verb, target) = (verb.clone(), target.clone());
    let (preconditions, on_failure) = (preconditions.clone(), *on_failure);
    Ok(Step { verb, node: via, target, arguments, preconditions, on_failure, compensation: None })
}

fn named(arguments: &BTreeMap<String, Value>) -> Option<NodeId> {
    arguments.get(argument::VIA).and_then(Value::as_text).map(NodeId::new)
}

/// What wakes `node`, once it is known that `via` can be asked to.
fn route<'a>(node: &NodeId, known: &'a KnownNode, via: &NodeId, world: &World) -> Result<&'a WakeRoute, Refusal> {
    if via == node {
        return Err(Refusal::OwnWaker(node.clone()));
    }
    able(via, Some(capability::WAKE), world)?;
    known.wake.as_ref().ok_or_else(|| Refusal::NoWakeRoute { node: node.clone(), via: via.clone() })
}

/// Adds what proves a sleep or a waking, since no agent can see it; gives how long it is to be watched at least.
pub(super) fn must_be_seen(steps: &[Step], success: &mut Vec<Condition>, watch_ms: u64) -> u64 {
    let mut watch_ms = watch_ms;
    for step in steps {
        let (name, least, at_least_ms) = match step.verb.as_str() {
            verb::SLEEP => (metric::NODE_ASLEEP, 1.0, ASLEEP_WATCH_MS),
            // A second: an uptime of none is no proof of anything.
            verb::WAKE => (metric::UPTIME, 1.0, AWAKE_WATCH_MS),
            _ => continue,
        };
        watch_ms = watch_ms.max(at_least_ms);
        let condition = seen(name, &step.target, least);
        if !success.contains(&condition) {
            success.push(condition);
        }
    }
    watch_ms
}

fn seen(metric: &str, target: &Target, least: f64) -> Condition {
    Condition {
        metric: metric.into(),
        target: target.clone(),
        minimum: Some(least),
        maximum: None,
        fresh_within_ms: FRESH_WITHIN_MS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalogue::SafetyClass,
        decision::{OnFailure, Proposal},
        id::WorkloadId,
        plan::{KnownWorkload, Resolved, resolve},
    };

    fn world() -> World {
        let able = KnownNode {
            generation: 3,
            live: true,
            capabilities: [capability::DRAIN, capability::SLEEP, capability::SLEEP_ALARM, capability::WAKE]
                .map(|name| (name.to_string(), Ok(())))
                .into(),
            wake: Some(WakeRoute { mac: "02:00:5e:10:00:01".into(), network: "192.0.2.0/24".into() }),
            ..KnownNode::default()
        };
        let drained = KnownNode { cordoned: Some("drained".into()), ..able.clone() };
        World {
            nodes: [("node-a", drained), ("node-b", able)].map(|(id, n)| (NodeId::new(id), n)).into(),
            ..World::default()
        }
    }

    fn step(verb: &str, node: &str, arguments: &[(&str, Value)]) -> ProposedStep {
        ProposedStep {
            verb: verb.into(),
            target: Target { kind: SubjectKind::Node, id: node.into(), generation: 3 },
            arguments: arguments.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect(),
            preconditions: vec![],
            on_failure: OnFailure::Compensate,
        }
    }

    fn made(steps: Vec<ProposedStep>, world: &World) -> Result<Resolved, Refusal> {
        let (title, rationale) = ("Sleep".into(), "nothing to do".into());
        resolve(&Proposal { title, rationale, steps, success: vec![], watch_ms: 1_000, confidence: 0.9 }, world)
    }

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    fn asleep() -> World {
        let mut world = world();
        let node = world.nodes.get_mut(&NodeId::new("node-a")).unwrap();
        (node.live, node.asleep) = (false, Some("by plan 1d05e3461c56".into()));
        world
    }

    #[test]
    fn a_drained_node_sleeps_and_must_be_seen_asleep() {
        let via = (argument::VIA, text("node-b"));
        let resolved = made(vec![step(verb::SLEEP, "node-a", &[via])], &world()).unwrap();
        let [only] = &resolved.steps[..] else { panic!("{resolved:?}") };
        assert_eq!((only.node.as_str(), resolved.class), ("node-a", SafetyClass::Impactful));
        let undo = only.compensation.as_ref().unwrap();
        assert_eq!((undo.verb.as_str(), undo.node.as_str()), (verb::WAKE, "node-b"));
        assert_eq!(undo.arguments[argument::MAC], text("02:00:5e:10:00:01"));
        let [condition] = &resolved.success[..] else { panic!("{resolved:?}") };
        assert_eq!((condition.metric.as_str(), condition.minimum), (metric::NODE_ASLEEP, Some(1.0)));
        assert_eq!(resolved.watch_ms, ASLEEP_WATCH_MS);
        // Nobody is named that wakes it: then nothing undoes it.
        let alone = made(vec![step(verb::SLEEP, "node-a", &[])], &world()).unwrap();
        assert_eq!(alone.steps[0].compensation, None);
    }

    #[test]
    fn one_plan_may_drain_and_then_put_to_sleep() {
        let both = |first: &str, second: &str| {
            made(vec![step(first, "node-b", &[]), step(second, "node-b", &[])], &world()).map(|resolved| {
                assert_eq!(resolved.blast.nodes, 1);
                resolved.steps.iter().map(|step| step.verb.clone()).collect::<Vec<_>>()
            })
        };
        assert_eq!(both(verb::DRAIN, verb::SLEEP).unwrap(), [verb::DRAIN, verb::SLEEP]);
        assert_eq!(both(verb::SLEEP, verb::DRAIN).unwrap_err().code(), "proposal.not-drained");
        assert_eq!(both(verb::DRAIN, verb::DRAIN).unwrap_err().code(), "proposal.target-twice");
        let thrice =
            vec![step(verb::DRAIN, "node-b", &[]), step(verb::SLEEP, "node-b", &[]), step(verb::SLEEP, "node-b", &[])];
        assert_eq!(made(thrice, &world()).unwrap_err().code(), "proposal.target-twice");
    }

    #[test]
    fn what_must_not_sleep_is_refused_in_words() {
        type Change = fn(&mut World);
        type Arguments = Vec<(&'static str, Value)>;
        fn a(world: &mut World) -> &mut KnownNode {
            world.nodes.get_mut(&NodeId::new("node-a")).unwrap()
        }
        let alarm = || vec![(argument::WAKE_AFTER, Value::Duration(60_000))];
        let cases: [(Change, Arguments, &str); 9] = [
            (
                |_| {},
                vec![(argument::STATE, text("off"))],
                "proposal.argument: `state` of `node.sleep` is out of bounds",
            ),
            (
                |_| {},
                vec![(argument::WAKE_AFTER, Value::Duration(9_999))],
                "proposal.argument: `wake-after` of `node.sleep` is out of bounds",
            ),
            (
                |world| a(world).cordoned = None,
                vec![],
                "proposal.not-drained: the node `node-a` takes work, so it must not sleep: drain it before, or by an earlier step of this plan",
            ),
            (
                |world| {
                    let train = KnownWorkload { generation: 1, node: NodeId::new("node-a"), forecast: None };
                    world.workloads.insert(WorkloadId::new("train"), train);
                },
                vec![],
                "proposal.occupied: the node `node-a` must not sleep: train is there",
            ),
            (
                |world| a(world).wake = None,
                vec![],
                "proposal.no-way-back: nothing is known that would wake `node-a`: it reports no network card that is armed for Wake-on-LAN, and no `wake-after` is given",
            ),
            (
                |world| {
                    let why = Err("the machine has no real-time clock".into());
                    a(world).capabilities.insert(capability::SLEEP_ALARM.into(), why);
                },
                alarm(),
                "proposal.incapable: the agent on `node-a` cannot do `node.sleep.alarm`: the machine has no real-time clock",
            ),
            (
                |world| {
                    drop(a(world).capabilities.insert(capability::SLEEP.into(), Err("the kernel offers none".into())))
                },
                vec![],
                "proposal.incapable: the agent on `node-a` cannot do `node.sleep`: the kernel offers none",
            ),
            (|_| {}, vec![(argument::VIA, text("node-a"))], "proposal.own-waker: `node-a` cannot wake itself"),
            (|_| {}, vec![(argument::VIA, text("node-z"))], "proposal.unknown-node: the node `node-z` does not exist"),
        ];
        for (change, arguments, expected) in cases {
            let mut world = world();
            change(&mut world);
            let refusal = made(vec![step(verb::SLEEP, "node-a", &arguments)], &world).unwrap_err();
            assert_eq!(format!("{}: {refusal}", refusal.code()), expected);
        }
        // With an alarm no card is needed.
        let mut world = world();
        a(&mut world).wake = None;
        assert!(made(vec![step(verb::SLEEP, "node-a", &alarm())], &world).is_ok());
    }

    #[test]
    fn a_sleeper_is_woken_by_another_with_what_it_reported() {
        let via = || (argument::VIA, text("node-b"));
        let resolved = made(vec![step(verb::WAKE, "node-a", &[via()])], &asleep()).unwrap();
        let [only] = &resolved.steps[..] else { panic!("{resolved:?}") };
        assert_eq!((only.node.as_str(), only.target.id.as_str(), resolved.blast.nodes), ("node-b", "node-a", 2));
        assert_eq!(only.arguments[argument::MAC], text("02:00:5e:10:00:01"));
        assert_eq!(only.arguments[argument::NETWORK], text("192.0.2.0/24"));
        let [condition] = &resolved.success[..] else { panic!("{resolved:?}") };
        assert_eq!((condition.metric.as_str(), condition.target.id.as_str()), (metric::UPTIME, "node-a"));

        let code = |steps, world: &World| made(steps, world).map_or_else(|refusal| refusal.code(), |_| "resolved");
        let wake = |arguments: &[(&str, Value)]| vec![step(verb::WAKE, "node-a", arguments)];
        assert_eq!(code(wake(&[via(), (argument::MAC, text("02:00:5e:10:00:01"))]), &asleep()), "resolved");
        assert_eq!(code(wake(&[via(), (argument::MAC, text("02:00:5e:10:00:02"))]), &asleep()), "proposal.argument");
        assert_eq!(code(wake(&[]), &asleep()), "proposal.argument");
        assert_eq!(code(wake(&[via()]), &world()), "proposal.not-asleep");
        assert_eq!(code(wake(&[(argument::VIA, text("node-a"))]), &asleep()), "proposal.own-waker");
        let mut unarmed = asleep();
        unarmed.nodes.get_mut(&NodeId::new("node-a")).unwrap().wake = None;
        assert_eq!(code(wake(&[via()]), &unarmed), "proposal.no-wake-route");
        // Lost is not asleep.
        let mut lost = asleep();
        lost.nodes.get_mut(&NodeId::new("node-a")).unwrap().asleep = None;
        assert_eq!(code(wake(&[via()]), &lost), "proposal.not-asleep");
    }

    #[test]
    fn nothing_else_is_done_to_a_sleeper() {
        let refusal = made(vec![step(verb::DRAIN, "node-a", &[])], &asleep()).unwrap_err();
        assert_eq!(refusal.code(), "proposal.asleep");
        assert_eq!(refusal.to_string(), "the node `node-a` is asleep, by plan 1d05e3461c56; wake it first");
    }
}
