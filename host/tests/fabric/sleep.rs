//! A node that sleeps on order is away on purpose: what the host is told, keeps over a restart, and concludes from silence.

use super::{
    orders::{finished, order, ordered, outcome, state},
    *,
};
use aether_host::fabric::Asleep;

fn plan(verb: &str) -> Plan {
    let target = Target { kind: SubjectKind::Node, id: "node-a".into(), generation: 1 };
    let step = Step {
        verb: verb.into(),
        node: NodeId::new("node-a"),
        target,
        arguments: BTreeMap::new(),
        preconditions: vec![],
        on_failure: OnFailure::Compensate,
        compensation: None,
    };
    Plan {
        schema_version: Plan::SCHEMA_VERSION,
        shape: Shape { cause: "request".into(), subject: SubjectRef::node("node-a") },
        steps: vec![step],
        success: vec![],
        watch_ms: 1_000,
        class: SafetyClass::Impactful,
        blast: BlastCount { nodes: 1, gpus: 0, workloads: 0 },
        dry_run: false,
        planner: Digest::of(b"planner"),
        gates: vec![],
        policy_bundle: Digest::of(b"bundle"),
        parent: None,
    }
}

fn sleeping(plan: &Plan, key: &IdempotencyKey) -> Up {
    let told = v1::OrderSleeping { plan: plan.hash().0, state: "mem".into(), wakes_at_ms: 7_000_000_000_000 };
    state(key, v1::dispatch_state::State::Sleeping(told))
}

/// A node that has an order, and has announced its sleep where the order is one.
async fn announced(host: &mut Host, plan: &Plan) -> (Peer, String, IdempotencyKey) {
    let (mut peer, welcome) = host.join("node-a").await;
    let order = order(plan, 0, "node-a", BTreeMap::new());
    host.fabric.dispatch(plan, order.clone()).await.unwrap();
    ordered(&mut peer).await;
    peer.send(sleeping(plan, &order.key)).await;
    (peer, welcome.credential, order.key)
}

async fn acknowledged(peer: &mut Peer, key: &IdempotencyKey) {
    match peer.next().await {
        Down::DispatchStateAck(ack) => assert_eq!(ack.key, key.0),
        other => panic!("an acknowledgement wanted: {other:?}"),
    }
}

async fn lost(host: &mut Host) -> (String, Option<Asleep>) {
    host.await_event(|event| match event {
        FabricEvent::Lost { node: _, why, asleep } => Some((why, asleep)),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn a_node_that_announced_its_sleep_and_fell_silent_sleeps_also_for_the_next_host() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(folder.path(), quick()).await;
    let plan = plan(verb::SLEEP);
    let (mut peer, credential_, key) = announced(&mut host, &plan).await;
    acknowledged(&mut peer, &key).await;
    let node = NodeId::new("node-a");
    let view = host.fabric.node(&node).unwrap();
    assert!(view.live && view.asleep.is_none(), "it is still there: {view:?}");

    // Not a word more: the stream stays open, as that of a machine that sleeps does.
    let (why, asleep) = lost(&mut host).await;
    let asleep = asleep.unwrap_or_else(|| panic!("{why}"));
    assert_eq!((&asleep.key, &asleep.plan, asleep.state.as_str()), (&key, &plan.hash(), "mem"));
    assert_eq!(asleep.wakes_at, Some(Time(7_000_000_000_000)));
    let view = host.fabric.node(&node).unwrap();
    assert_eq!((view.live, view.asleep.as_ref()), (false, Some(&asleep)));
    let known = &host.fabric.world().nodes[&node];
    assert_eq!(known.asleep.as_deref(), Some(&*format!("in `mem` by the plan {}", plan.hash().short())));

    let mut host = Host::start(folder.path(), quick()).await;
    assert_eq!(host.fabric.node(&node).unwrap().asleep, Some(asleep));

    // It is back, and says how it was.
    let (mut peer, again) = Peer::welcomed(&host.url, hello("node-a", credential(&credential_))).await;
    assert_eq!(again.generation, 1, "a machine that slept is the same");
    assert_eq!(host.event().await, FabricEvent::Connected(node.clone()));
    assert_eq!(host.fabric.node(&node).unwrap().asleep, None);
    peer.send(finished(&key, &outcome())).await;
    assert!(matches!(host.event().await, FabricEvent::OrderFinished { .. }));
}

#[tokio::test]
async fn a_stream_that_ends_is_no_sleep_whatever_was_announced() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(folder.path(), Settings::default()).await;
    let plan = plan(verb::SLEEP);
    let (mut peer, credential_, key) = announced(&mut host, &plan).await;
    acknowledged(&mut peer, &key).await;
    drop(peer);
    let (_, asleep) = lost(&mut host).await;
    assert_eq!(asleep, None, "an agent that was killed does not sleep");
    let node = NodeId::new("node-a");
    assert_eq!(host.fabric.node(&node).unwrap().asleep, None);

    // What was refused by the kernel is taken back, and a later silence is no sleep either.
    let mut host = Host::start(folder.path(), quick()).await;
    let (mut peer, _) = Peer::welcomed(&host.url, hello("node-a", credential(&credential_))).await;
    host.event().await;
    peer.send(sleeping(&plan, &key)).await;
    acknowledged(&mut peer, &key).await;
    peer.send(finished(&key, &Outcome { status: OutcomeStatus::Failed, code: "sleep.refused".into(), ..outcome() }))
        .await;
    let (_, asleep) = lost(&mut host).await;
    assert_eq!(asleep, None);
    assert_eq!(host.fabric.node(&node).unwrap().asleep, None);
}

#[tokio::test]
async fn only_an_order_to_sleep_lets_a_node_say_that_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(folder.path(), quick()).await;
    let (mut peer, _, _) = announced(&mut host, &plan(verb::DRAIN)).await;
    match peer.next().await {
        Down::Unsupported(v1::Unsupported { reason, .. }) => {
            assert!(reason.contains("puts no node to sleep"), "{reason}")
        }
        other => panic!("a refusal wanted: {other:?}"),
    }
    assert_eq!(lost(&mut host).await.1, None);
}
