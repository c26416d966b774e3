//! Orders and their ends, and the snapshots that orders let through.

use super::*;

/// Checkpoint on node-a, restore on node-b.
pub(crate) fn plan() -> Plan {
    let target = Target { kind: SubjectKind::Workload, id: "work-node-a".into(), generation: 1 };
    let step = |verb: &str, node: &str, undo: &str| Step {
        verb: verb.into(),
        node: NodeId::new(node),
        target: target.clone(),
        arguments: BTreeMap::new(),
        preconditions: vec![],
        on_failure: OnFailure::Compensate,
        compensation: Some(Compensation { verb: undo.into(), node: NodeId::new(node), arguments: BTreeMap::new() }),
    };
    Plan {
        schema_version: Plan::SCHEMA_VERSION,
        shape: Shape { cause: "spot.reclaim".into(), subject: SubjectRef::node("node-a") },
        steps: vec![step(verb::CHECKPOINT, "node-a", verb::RESUME), step(verb::RESTORE, "node-b", verb::DISCARD)],
        success: vec![],
        watch_ms: 1_000,
        class: SafetyClass::Impactful,
        blast: BlastCount { nodes: 2, gpus: 0, workloads: 1 },
        dry_run: false,
        planner: Digest::of(b"planner"),
        gates: vec![],
        policy_bundle: Digest::of(b"bundle"),
        parent: None,
    }
}

pub(crate) fn order(plan: &Plan, step: u32, node: &str, inputs: BTreeMap<String, String>) -> Order {
    Order {
        key: plan.key(step, Direction::Forward).unwrap(),
        plan: plan.hash(),
        step,
        direction: Direction::Forward,
        target: plan.steps[0].target.clone(),
        decided_by: Provenance::of(plan),
        node: NodeId::new(node),
        lease: 0,
        fence: 1,
        nonce: "once".into(),
        execute_by: Time(clock::now().0 + 30_000),
        inputs,
    }
}

pub(crate) async fn ordered(peer: &mut Peer) -> v1::Dispatch {
    match peer.next().await {
        Down::Dispatch(dispatch) => dispatch,
        other => panic!("an order wanted: {other:?}"),
    }
}

pub(crate) fn state(key: &IdempotencyKey, state: v1::dispatch_state::State) -> Up {
    Up::DispatchState(v1::DispatchState { key: key.0.clone(), journal_position: 9, state: Some(state) })
}

pub(crate) fn outcome() -> Outcome {
    Outcome {
        status: OutcomeStatus::Succeeded,
        code: "ok".into(),
        message: "done".into(),
        evidence: BTreeMap::new(),
        outputs: BTreeMap::new(),
        simulated: false,
        started_at: Time(1),
        ended_at: Time(2),
    }
}

pub(crate) fn finished(key: &IdempotencyKey, outcome: &impl serde::Serialize) -> Up {
    let outcome = serde_json::to_vec(outcome).unwrap();
    state(key, v1::dispatch_state::State::Outcome(v1::OrderOutcome { outcome }))
}

#[tokio::test]
async fn an_order_is_signed_and_its_end_is_said_until_it_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(folder.path(), Settings::default()).await;
    let plan = plan();
    let order = order(&plan, 0, "node-a", BTreeMap::new());
    let error = host.fabric.dispatch(&plan, order.clone()).await.expect_err("nobody is there");
    let unsent = host.fabric.cancel(&order.node, &order.key, "enough").await;
    assert!(matches!(unsent, Ok(Cancelled::NeverSent)), "{unsent:?}");
    assert!(matches!(error, DispatchError::NotConnected { .. }), "{error:?}");

    let (mut peer, welcome) = host.join("node-a").await;
    for wrong in [
        Order { plan: PlanHash("0".repeat(64)), ..order.clone() },
        Order { step: 9, ..order.clone() },
        Order { key: IdempotencyKey("0".repeat(64)), ..order.clone() },
        Order { node: NodeId::new("node-b"), ..order.clone() },
        Order { target: Target { generation: 2, ..order.target.clone() }, ..order.clone() },
        Order { decided_by: Provenance { gates: vec![Digest::of(b"g")], ..Provenance::of(&plan) }, ..order.clone() },
    ] {
        let error = host.fabric.dispatch(&plan, wrong).await.expect_err("it does not fit");
        assert!(matches!(error, DispatchError::Mismatch(_)), "{error:?}");
    }
    host.fabric.dispatch(&plan, order.clone()).await.unwrap();
    let dispatch = ordered(&mut peer).await;
    assert_eq!(PlanHash::of_canonical(&dispatch.plan), order.plan);
    let told: Order = serde_json::from_slice(&dispatch.order).unwrap();
    assert_eq!(told, order);
    let key = VerifyingKey::from_bytes(welcome.host_public_key.as_slice().try_into().unwrap()).unwrap();
    let signature = Signature::from_slice(&dispatch.signature).unwrap();
    key.verify(&told.signed_bytes(), &signature).unwrap();
    let bent = Order { fence: 2, ..told };
    key.verify(&bent.signed_bytes(), &signature).expect_err("another order");

    let node = NodeId::new("node-a");
    peer.send(state(&order.key, v1::dispatch_state::State::Accepted(v1::OrderAccepted {}))).await;
    let accepted = FabricEvent::OrderAccepted { node: node.clone(), key: order.key.clone(), journal_position: 9 };
    assert_eq!(host.event().await, accepted);
    let note = v1::OrderProgress { permille: 500, note: "half".into() };
    peer.send(state(&order.key, v1::dispatch_state::State::Progress(note))).await;
    assert!(matches!(host.event().await, FabricEvent::OrderProgress { permille: 500, .. }));

    // What is not understood is not believed.
    let mut strange = serde_json::to_value(outcome()).unwrap();
    strange["really"] = true.into();
    for no in [strange, serde_json::json!({"status": "succeeded"}), serde_json::json!("ok")] {
        peer.send(finished(&order.key, &no)).await;
        assert!(matches!(peer.next().await, Down::Unsupported(_)), "{no}");
    }
    peer.send(finished(&order.key, &outcome())).await;
    let end = FabricEvent::OrderFinished {
        node: node.clone(),
        key: order.key.clone(),
        journal_position: 9,
        outcome: outcome(),
    };
    assert_eq!(host.event().await, end);

    // The session breaks and the host restarts before the end is in its journal: it is said again.
    drop(peer);
    host.await_lost("node-a").await;
    let mut host = Host::start(folder.path(), Settings::default()).await;
    let (mut peer, _) = Peer::welcomed(&host.url, hello("node-a", credential(&welcome.credential))).await;
    host.event().await;
    peer.send(finished(&order.key, &outcome())).await;
    assert_eq!(host.event().await, end);
    host.fabric.acknowledge_outcome(&node, &order.key);
    assert!(matches!(peer.next().await, Down::DispatchStateAck(ack) if ack.key == order.key.0));
    // And once more, because the acknowledgement might have got lost: that needs nobody's attention.
    peer.send(finished(&order.key, &outcome())).await;
    assert!(matches!(peer.next().await, Down::DispatchStateAck(ack) if ack.key == order.key.0));
    drop(peer);
    assert!(matches!(host.event().await, FabricEvent::Lost { .. }), "it was not said again");
}

#[tokio::test]
async fn a_node_cannot_speak_of_the_order_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(folder.path(), Settings::default()).await;
    let (mut a, _) = host.join("node-a").await;
    let (mut b, _) = host.join("node-b").await;
    let plan = plan();
    let order = order(&plan, 0, "node-a", BTreeMap::new());
    host.fabric.dispatch(&plan, order.clone()).await.unwrap();
    ordered(&mut a).await;
    b.send(finished(&order.key, &outcome())).await;
    assert!(matches!(b.next().await, Down::Unsupported(no) if no.reason.contains("another node")));
    let refused = v1::OrderRefused { code: "criu.missing".into(), reason: "install it".into() };
    a.send(state(&order.key, v1::dispatch_state::State::Refused(refused))).await;
    let (code, reason) = ("criu.missing".into(), "install it".into());
    let told = FabricEvent::OrderRefused { node: NodeId::new("node-a"), key: order.key.clone(), code, reason };
    assert_eq!(host.event().await, told);
}

// ---- snapshots ------------------------------------------------------------------------------------------------------

fn chunk(key: &str, plain: &[u8], data: Vec<u8>, codec: v1::Codec) -> Up {
    Up::SnapshotChunk(v1::SnapshotChunk {
        key: key.into(),
        digest: Digest::of(plain).0,
        codec: codec.into(),
        size_bytes: u32::try_from(plain.len()).unwrap(),
        data,
        file: "pages-1.img".into(),
        offset: 0,
    })
}

fn manifest(key: &str, chunks: &[&[u8]]) -> Manifest {
    let reference =
        |chunk: &&[u8]| ChunkRef { digest: Digest::of(chunk), size_bytes: u32::try_from(chunk.len()).unwrap() };
    let size = chunks.iter().map(|chunk| u64::try_from(chunk.len()).unwrap()).sum();
    let chunks = chunks.iter().map(reference).collect();
    Manifest {
        schema_version: Manifest::SCHEMA_VERSION,
        snapshot: SnapshotId::new(key),
        workload: WorkloadSpec {
            id: WorkloadId::new("work-node-a"),
            name: "counter".into(),
            tier: Tier::Standard,
            command: vec![],
            progress_file: None,
        },
        generation: 1,
        source: NodeId::new("node-a"),
        taken_at: clock::now(),
        progress: Some(7),
        criu_version: "4.1.1".into(),
        kernel_release: "6.18".into(),
        architecture: "x86_64".into(),
        files: vec![SnapshotFile { name: "pages-1.img".into(), size_bytes: size, chunks }],
        total_bytes: size,
    }
}

fn manifest_part(key: &str, manifest: &Manifest) -> Up {
    let manifest = aether_core::plan::canonical(manifest);
    Up::SnapshotManifest(v1::SnapshotManifest { key: key.into(), manifest })
}

#[tokio::test]
async fn a_snapshot_is_stored_and_read_only_as_ordered_and_only_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(folder.path(), Settings::default()).await;
    let (mut a, _) = host.join("node-a").await;
    let (mut b, _) = host.join("node-b").await;
    let plan = plan();
    let checkpoint = order(&plan, 0, "node-a", BTreeMap::new());
    let key = checkpoint.key.0.clone();
    let (first, second) = (vec![1u8; CHUNK_BYTES], b"the second".to_vec());
    let zstd = |plain: &[u8]| zstd::bulk::compress(plain, 1).unwrap();

    let stored = a.stored(chunk(&key, &second, second.clone(), v1::Codec::Raw)).await;
    assert_eq!(stored.error_code, "not-ordered");
    host.fabric.dispatch(&plan, checkpoint.clone()).await.unwrap();
    ordered(&mut a).await;
    let stored = b.stored(chunk(&key, &second, second.clone(), v1::Codec::Raw)).await;
    assert_eq!(stored.error_code, "not-ordered", "it is node-a's order");

    let mut flipped = second.clone();
    flipped[3] ^= 1;
    let bomb = zstd(&vec![0; 64 << 20]);
    for (what, part, code) in [
        ("flipped", chunk(&key, &second, flipped.clone(), v1::Codec::Raw), "digest.mismatch"),
        ("flipped within", chunk(&key, &second, zstd(&flipped), v1::Codec::Zstd), "digest.mismatch"),
        ("bomb", chunk(&key, &first, bomb, v1::Codec::Zstd), "chunk.encoding"),
        ("no zstd", chunk(&key, &second, second.clone(), v1::Codec::Zstd), "chunk.encoding"),
        ("codec", chunk(&key, &second, second.clone(), v1::Codec::Unspecified), "chunk.encoding"),
        (
            "large",
            chunk(&key, &vec![2; CHUNK_BYTES + 1], zstd(&vec![2; CHUNK_BYTES + 1]), v1::Codec::Zstd),
            "chunk.oversized",
        ),
    ] {
        let stored = a.stored(part).await;
        assert_eq!(stored.error_code, code, "{what}: {}", stored.error);
    }
    let path =
        v1::SnapshotChunk { digest: "../../etc/passwd".into(), key: key.clone(), codec: 1, ..Default::default() };
    assert_eq!(a.stored(Up::SnapshotChunk(path)).await.error_code, "digest.malformed");

    let whole = manifest(&key, &[&first, &second]);
    for (part, encoded, codec) in [(&first, zstd(&first), v1::Codec::Zstd), (&first, first.clone(), v1::Codec::Raw)] {
        let stored = a.stored(chunk(&key, part, encoded, codec)).await;
        assert_eq!((stored.error_code.as_str(), stored.digest), ("", Digest::of(part).0));
    }
    assert_eq!(a.stored(manifest_part(&key, &whole)).await.error_code, "manifest.missing-chunk");
    a.stored(chunk(&key, &second, second.clone(), v1::Codec::Raw)).await;
    let foreign = Manifest { source: NodeId::new("node-b"), ..whole.clone() };
    assert_eq!(a.stored(manifest_part(&key, &foreign)).await.error_code, "not-ordered");
    let mut upwards = whole.clone();
    upwards.files[0].name = "../pages".into();
    assert_eq!(a.stored(manifest_part(&key, &upwards)).await.error_code, "manifest.malformed");
    let stored = a.stored(manifest_part(&key, &whole)).await;
    assert_eq!((stored.error_code.as_str(), &stored.digest), ("", &whole.digest().0));

    // The order has ended: nothing more comes on its account.
    a.send(finished(&checkpoint.key, &outcome())).await;
    host.event().await;
    let late = a.stored(chunk(&key, b"late", b"late".to_vec(), v1::Codec::Raw)).await;
    assert_eq!(late.error_code, "not-ordered");

    assert_eq!(b.read(&whole.digest(), true).await.error_code, "not-ordered");
    let inputs = BTreeMap::from([("manifest".to_owned(), whole.digest().0)]);
    host.fabric.dispatch(&plan, order(&plan, 1, "node-b", inputs)).await.unwrap();
    ordered(&mut b).await;
    let read = b.read(&whole.digest(), true).await;
    assert_eq!((read.error_code.as_str(), read.data), ("", aether_core::plan::canonical(&whole)));
    for plain in [&first, &second] {
        let read = b.read(&Digest::of(plain), false).await;
        assert_eq!(read.error_code, "");
        assert_eq!(read.codec(), v1::Codec::Zstd);
        assert_eq!(zstd::bulk::decompress(&read.data, CHUNK_BYTES).unwrap(), *plain);
    }
    assert_eq!(b.read(&Digest::of(b"another"), false).await.error_code, "not-ordered");
    assert_eq!(a.read(&whole.digest(), true).await.error_code, "not-ordered", "the order is node-b's");

    // One byte changes on the host's disk: it is not given out.
    let name = Digest::of(&second).0;
    let file = folder.path().join("snapshots/chunks").join(&name[..2]).join(format!("{name}.zst"));
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let read = b.read(&Digest::of(&second), false).await;
    assert!(matches!(read.error_code.as_str(), "digest.mismatch" | "chunk.encoding"), "{read:?}");
    assert!(read.data.is_empty());
}
