//! The host's side of the `Connect` stream, spoken to by a raw client over a real listener: who is let in, what becomes
//! of bad input, what is acknowledged when, what an order looks like, and what may be stored and read.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use aether_core::{
    catalogue::{SafetyClass, verb},
    decision::OnFailure,
    id::{Digest, NodeId, SnapshotId, WorkloadId},
    order::{Direction, IdempotencyKey, Order, Outcome, OutcomeStatus},
    plan::{BlastCount, Compensation, Plan, PlanHash, Shape, Step},
    snapshot::{ChunkRef, Manifest, SnapshotFile, Tier, WorkloadSpec},
    subject::{SubjectKind, SubjectRef, Target},
    telemetry::{Batch, Sample, SeriesKey, SeriesSamples},
    time::Time,
};
use aether_host::{
    blobs::{self, Blobs},
    clock,
    fabric::{DispatchError, Events, Fabric, FabricEvent, Settings, WorkloadState},
    store::Store,
};
use aether_proto::{
    CHUNK_BYTES,
    telemetry::Encoder,
    v1::{
        self, ClientFrame, ServerFrame, client_frame::Payload as Up, fabric_client::FabricClient,
        server_frame::Payload as Down,
    },
};
use aether_recorder::Recorder;
use ed25519_dalek::{Signature, SigningKey, Verifier, VerifyingKey};
use std::{collections::BTreeMap, path::Path, time::Duration};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tonic::{Status, Streaming, transport::Endpoint};

const PATIENCE: Duration = Duration::from_secs(20);

struct Host {
    fabric: Fabric,
    events: Events,
    store: Store,
    recorder: Recorder,
    url: String,
    /// The server; ends with the test.
    _serving: JoinSet<()>,
}

impl Host {
    async fn start(folder: &Path, settings: Settings) -> Self {
        Self::start_with(folder, settings, aether_recorder::Settings::default()).await
    }

    async fn start_with(folder: &Path, settings: Settings, recording: aether_recorder::Settings) -> Self {
        let store = Store::open(&folder.join("host.db")).await.unwrap();
        let segments = aether_recorder::local_store(&folder.join("segments")).unwrap();
        let recorder = Recorder::open(recording, segments, clock::now()).await.unwrap();
        let blobs = Blobs::open(blobs::Settings::default(), &folder.join("snapshots")).await.unwrap();
        let signer = SigningKey::from_bytes(&[7; 32]);
        let (fabric, events) = Fabric::open(settings, store.clone(), recorder.clone(), blobs, signer).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = tonic::service::Routes::new(fabric.service()).into_axum_router();
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { fabric, events, store, recorder, url, _serving: serving }
    }

    /// A token for `node` by name, or for any.
    async fn token(&self, node: Option<&str>) -> v1::Credentials {
        let node = node.map(NodeId::new);
        let token = self.store.create_join_token(node.as_ref(), clock::now().plus_ms(60_000)).await.unwrap();
        join_token(&token)
    }

    async fn event(&mut self) -> FabricEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("the fabric is there")
    }

    /// The next event that `wanted` picks; what comes before is passed over.
    async fn await_event<T>(&mut self, wanted: impl Fn(FabricEvent) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.event().await) {
                return found;
            }
        }
    }

    async fn await_lost(&mut self, node: &str) -> String {
        self.await_event(|event| match event {
            FabricEvent::Lost { node: lost, why } if lost.as_str() == node => Some(why),
            _ => None,
        })
        .await
    }

    /// Lets a node in by a fresh token.
    async fn join(&mut self, node: &str) -> (Peer, v1::Welcome) {
        let hello = hello(node, self.token(None).await);
        let (peer, welcome) = Peer::welcomed(&self.url, hello).await;
        assert_eq!(self.event().await, FabricEvent::Connected(NodeId::new(node)));
        (peer, welcome)
    }
}

fn join_token(token: &str) -> v1::Credentials {
    v1::Credentials { kind: Some(v1::credentials::Kind::JoinToken(token.into())) }
}

fn credential(credential: &str) -> v1::Credentials {
    v1::Credentials { kind: Some(v1::credentials::Kind::Credential(credential.into())) }
}

fn node_agent(node: &str) -> v1::Principal {
    v1::Principal { kind: Some(v1::principal::Kind::NodeAgent(v1::NodeAgent { node: node.into() })) }
}

fn hello(node: &str, credentials: v1::Credentials) -> v1::Hello {
    let can = |name: &str, available, reason: &str| v1::Capability {
        name: name.into(),
        available,
        reason: reason.into(),
        fallback: String::new(),
        simulated: false,
    };
    v1::Hello {
        principal: Some(node_agent(node)),
        credentials: Some(credentials),
        protocol_versions: vec!["1.0".into()],
        software_version: "0.1.0".into(),
        instance_id: format!("instance-of-{node}"),
        boot_id: "boot-1".into(),
        resume: None,
        capabilities: Some(v1::CapabilityReport {
            capabilities: vec![can("process.checkpoint", true, ""), can("telemetry.psi", false, "no /proc/pressure")],
            facts: [("host.arch".to_owned(), "x86_64".to_owned())].into(),
        }),
        workloads: Some(workloads(&format!("work-{node}"), 1, v1::WorkloadState::Running)),
        extensions: Default::default(),
    }
}

fn workloads(id: &str, generation: u64, state: v1::WorkloadState) -> v1::WorkloadReport {
    let workload = v1::Workload {
        id: id.into(),
        name: "counter".into(),
        tier: "standard".into(),
        generation,
        state: state.into(),
        since_ms: 1_000,
        pid: 42,
        adopted: false,
    };
    v1::WorkloadReport { workloads: vec![workload] }
}

/// A client that speaks frames.
struct Peer {
    up: mpsc::Sender<ClientFrame>,
    down: Streaming<ServerFrame>,
    sequence: u64,
    seen: u64,
}

impl Peer {
    async fn open(url: &str) -> Self {
        let channel = Endpoint::from_shared(url.to_owned()).unwrap().connect().await.unwrap();
        let (up, frames) = mpsc::channel(64);
        let frames = tokio_stream::wrappers::ReceiverStream::new(frames);
        let mut client = FabricClient::new(channel).max_decoding_message_size(aether_proto::FRAME_BYTES_MAXIMUM);
        let down = client.connect(frames).await.unwrap().into_inner();
        Self { up, down, sequence: 0, seen: 0 }
    }

    async fn greeting(url: &str, hello: v1::Hello) -> (Self, Down) {
        let mut peer = Self::open(url).await;
        peer.send(Up::Hello(hello)).await;
        let answer = peer.next().await;
        (peer, answer)
    }

    async fn welcomed(url: &str, hello: v1::Hello) -> (Self, v1::Welcome) {
        match Self::greeting(url, hello).await {
            (peer, Down::Welcome(welcome)) => (peer, welcome),
            (_, other) => panic!("welcome wanted: {other:?}"),
        }
    }

    async fn refused(url: &str, hello: v1::Hello) -> v1::Refused {
        match Self::greeting(url, hello).await {
            (mut peer, Down::Refused(refused)) => {
                assert!(peer.end().await.is_none(), "a refused stream ends without an error");
                refused
            }
            (_, other) => panic!("a refusal wanted: {other:?}"),
        }
    }

    async fn send(&mut self, payload: Up) {
        self.send_frame(Some(payload)).await;
    }

    async fn send_frame(&mut self, payload: Option<Up>) {
        self.sequence += 1;
        let frame =
            ClientFrame { sequence: self.sequence, sent_at_ms: clock::now().0, traceparent: String::new(), payload };
        self.up.send(frame).await.unwrap();
    }

    /// The next frame that is no heartbeat; the host's sequence must have no gap.
    async fn next(&mut self) -> Down {
        loop {
            let frame = timeout(PATIENCE, self.down.message()).await.expect("a frame in time").unwrap();
            let ServerFrame { sequence, sent_at_ms: _, traceparent: _, payload } = frame.expect("the stream goes on");
            self.seen += 1;
            assert_eq!(sequence, self.seen);
            match payload.expect("a payload") {
                Down::Heartbeat(_) => {}
                payload => return payload,
            }
        }
    }

    /// How the stream ends; frames before are passed over.
    async fn end(&mut self) -> Option<Status> {
        loop {
            match timeout(PATIENCE, self.down.message()).await.expect("an end in time") {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
        }
    }

    /// The host has handled everything sent so far, and said nothing of it.
    async fn nothing_was_said(&mut self) {
        self.send_frame(None).await;
        let Down::Unsupported(v1::Unsupported { sequence, .. }) = self.next().await else {
            panic!("something was said")
        };
        assert_eq!(sequence, self.sequence);
    }

    async fn rejected(&mut self, batch: v1::TelemetryBatch) -> v1::TelemetryRejected {
        self.send(Up::Telemetry(batch)).await;
        match self.next().await {
            Down::TelemetryRejected(rejected) => rejected,
            other => panic!("a rejection wanted: {other:?}"),
        }
    }

    async fn stored(&mut self, part: Up) -> v1::SnapshotStored {
        self.send(part).await;
        match self.next().await {
            Down::SnapshotStored(stored) => stored,
            other => panic!("an answer wanted: {other:?}"),
        }
    }

    async fn read(&mut self, digest: &Digest, manifest: bool) -> v1::SnapshotData {
        self.send(Up::SnapshotRead(v1::SnapshotRead { digest: digest.0.clone(), manifest })).await;
        match self.next().await {
            Down::SnapshotData(data) => data,
            other => panic!("data wanted: {other:?}"),
        }
    }
}

fn quick() -> Settings {
    Settings { heartbeat_ms: 200, ..Settings::default() }
}

// ---- who is let in --------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_node_joins_once_and_comes_back_by_its_credential() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(folder.path(), Settings::default()).await;
    let (peer, welcome) = host.join("node-a").await;
    assert_eq!((welcome.generation, welcome.protocol_version.as_str()), (1, "1.0"));
    assert_eq!(welcome.host_public_key, SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes());
    let node = NodeId::new("node-a");
    let view = host.fabric.node(&node).unwrap();
    assert!(view.live && view.connected_since.is_some());
    assert_eq!(view.workloads[0].state, WorkloadState::Running);
    let world = host.fabric.world();
    assert_eq!(world.nodes[&node].capabilities["telemetry.psi"], Err("no /proc/pressure".into()));
    assert_eq!(world.workloads[&WorkloadId::new("work-node-a")].node, node);

    drop(peer);
    host.await_lost("node-a").await;
    assert!(!host.fabric.world().nodes[&node].live);

    // The host starts anew: what it knew of the node is there before the node is.
    let mut host = Host::start(folder.path(), Settings::default()).await;
    assert!(host.fabric.world().workloads.contains_key(&WorkloadId::new("work-node-a")));
    let (peer, again) = Peer::welcomed(&host.url, hello("node-a", credential(&welcome.credential))).await;
    assert_eq!((again.generation, again.credential.as_str()), (1, ""));
    assert_eq!(host.event().await, FabricEvent::Connected(node.clone()));
    drop(peer);
    host.await_lost("node-a").await;

    let rebooted = v1::Hello { boot_id: "boot-2".into(), ..hello("node-a", credential(&welcome.credential)) };
    let (_peer, rebooted) = Peer::welcomed(&host.url, rebooted).await;
    assert_eq!(rebooted.generation, 2);
}

#[tokio::test]
async fn whoever_is_not_known_learns_nothing_but_that() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(folder.path(), Settings::default()).await;
    let used = host.token(None).await;
    let (_peer, _) = Peer::welcomed(&host.url, hello("node-a", used.clone())).await;
    host.event().await;
    let expired = host.store.create_join_token(None, clock::now().minus_ms(1)).await.unwrap();
    let anothers = host.token(Some("node-z")).await;
    let mut texts = Vec::new();
    for (what, hello) in [
        ("unknown token", hello("node-b", join_token("aether-join-0000"))),
        ("expired token", hello("node-b", join_token(&expired))),
        ("used token", hello("node-b", used)),
        ("token of another", hello("node-b", anothers)),
        ("wrong credential", hello("node-a", credential("aether-node-0000"))),
        ("credential of nobody", hello("node-b", credential("aether-node-0000"))),
    ] {
        let refused = Peer::refused(&host.url, hello).await;
        assert_eq!((refused.code.as_str(), refused.retry_after_ms), ("unauthenticated", 0), "{what}");
        texts.push(refused.reason);
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(texts[0].contains("join token"), "{texts:?}");
    assert!(host.fabric.node(&NodeId::new("node-b")).is_none());
}

#[tokio::test]
async fn a_welcome_that_got_lost_is_no_dead_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(folder.path(), Settings::default()).await;
    let token = host.token(None).await;
    let (peer, first) = Peer::welcomed(&host.url, hello("node-a", token.clone())).await;
    drop(peer);
    host.await_lost("node-a").await;
    let (peer, second) = Peer::welcomed(&host.url, hello("node-a", token.clone())).await;
    assert_eq!(second.generation, 1);
    drop(peer);
    host.await_lost("node-a").await;
    let refused = Peer::refused(&host.url, hello("node-a", credential(&first.credential))).await;
    assert_eq!(refused.code, "unauthenticated", "the credential that got lost is void");
    let thief = v1::Hello { instance_id: "another".into(), ..hello("node-a", token) };
    assert_eq!(Peer::refused(&host.url, thief).await.code, "unauthenticated");
}

#[tokio::test]
async fn a_second_session_is_refused_until_the_first_is_dead() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(folder.path(), quick()).await;
    let (mut first, welcome) = host.join("node-a").await;
    let again = || hello("node-a", credential(&welcome.credential));
    let refused = Peer::refused(&host.url, again()).await;
    assert_eq!(refused.code, "identity.in-use");
    assert!((1..=600).contains(&refused.retry_after_ms), "{refused:?}");
    // The first falls silent, without closing its stream.
    let why = host.await_lost("node-a").await;
    assert!(why.contains("nothing was heard"), "{why}");
    let (_second, _) = Peer::welcomed(&host.url, again()).await;
    assert_eq!(host.event().await, FabricEvent::Connected(NodeId::new("node-a")));
    let end = first.end().await.expect("a reason");
    assert_eq!(end.code(), tonic::Code::DeadlineExceeded, "{end:?}");
}

#[tokio::test]
async fn another_machine_of_the_same_name_needs_a_token_made_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(folder.path(), Settings::default()).await;
    let (peer, welcome) = host.join("node-a").await;
    drop(peer);
    host.await_lost("node-a").await;
    let other = |credentials| v1::Hello { instance_id: "another".into(), ..hello("node-a", credentials) };
    for credentials in [credential(&welcome.credential), host.token(None).await] {
        let refused = Peer::refused(&host.url, other(credentials)).await;
        assert_eq!(refused.code, "identity.instance");
    }
    let (peer, replaced) = Peer::welcomed(&host.url, other(host.token(Some("node-a")).await)).await;
    assert_eq!(replaced.generation, 2);
    drop(peer);
    host.await_lost("node-a").await;
    let former = Peer::refused(&host.url, hello("node-a", credential(&welcome.credential))).await;
    assert_eq!(former.code, "unauthenticated");
}

#[tokio::test]
async fn a_stream_begins_with_a_hello_that_the_host_can_serve() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start(folder.path(), Settings { hello_ms: 300, ..Settings::default() }).await;
    let token = host.token(None).await;
    let good = || hello("node-a", token.clone());
    let agent = v1::Agent { workspace: "w".into(), implementation: "i".into(), specifier: "s".into() };
    let agent = v1::Principal { kind: Some(v1::principal::Kind::Agent(agent)) };
    let twice = good().workloads.unwrap().workloads;
    let twice = v1::WorkloadReport { workloads: [twice.clone(), twice].concat() };
    for (hello, code) in [
        (v1::Hello { protocol_versions: vec!["9.0".into()], ..good() }, "protocol.version"),
        (v1::Hello { principal: Some(agent), ..good() }, "principal.not-served"),
        (v1::Hello { principal: Some(node_agent("../etc")), ..good() }, "protocol.hello"),
        (v1::Hello { principal: None, ..good() }, "protocol.hello"),
        (v1::Hello { instance_id: String::new(), ..good() }, "protocol.hello"),
        (v1::Hello { workloads: Some(twice), ..good() }, "protocol.hello"),
        (v1::Hello { credentials: None, ..good() }, "unauthenticated"),
    ] {
        let refused = Peer::refused(&host.url, hello).await;
        assert_eq!(refused.code, code);
        assert!(!refused.reason.is_empty());
    }
    let mut rude = Peer::open(&host.url).await;
    rude.send(Up::Heartbeat(v1::Heartbeat {})).await;
    assert!(matches!(rude.next().await, Down::Refused(refused) if refused.code == "protocol.hello"));
    let mut mute = Peer::open(&host.url).await;
    assert!(matches!(mute.next().await, Down::Refused(refused) if refused.reason.contains("300 ms")));
    // And none of it has spoilt the token.
    Peer::welcomed(&host.url, good()).await;
}

#[tokio::test]
async fn beyond_the_limit_of_sessions_one_is_told_to_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(folder.path(), Settings { sessions_maximum: 1, ..Settings::default() }).await;
    let (peer, _) = host.join("node-a").await;
    let token = host.token(None).await;
    let refused = Peer::refused(&host.url, hello("node-b", token.clone())).await;
    assert_eq!(refused.code, "overloaded");
    assert!((1_000..=5_000).contains(&refused.retry_after_ms), "{refused:?}");
    drop(peer);
    host.await_lost("node-a").await;
    Peer::welcomed(&host.url, hello("node-b", token)).await;
}

// ---- within a session -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_frame_out_of_sequence_ends_the_session_and_an_unknown_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(folder.path(), Settings::default()).await;
    let (mut peer, _) = host.join("node-a").await;
    peer.nothing_was_said().await;
    peer.nothing_was_said().await;
    peer.sequence += 1;
    peer.send(Up::Heartbeat(v1::Heartbeat {})).await;
    let end = peer.end().await.expect("a reason");
    assert_eq!(end.code(), tonic::Code::DataLoss);
    assert!(host.await_lost("node-a").await.contains("frame 5 came where 4 should have"));
}

#[tokio::test]
async fn reports_change_what_is_known_and_bad_ones_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(folder.path(), Settings::default()).await;
    let (mut peer, _) = host.join("node-a").await;
    let node = NodeId::new("node-a");
    peer.send(Up::Workloads(workloads("work-2", 3, v1::WorkloadState::Stopped))).await;
    assert_eq!(host.event().await, FabricEvent::WorkloadsChanged(node.clone()));
    assert_eq!(host.fabric.world().workloads[&WorkloadId::new("work-2")].generation, 3);
    // The same again is no news.
    peer.send(Up::Workloads(workloads("work-2", 3, v1::WorkloadState::Stopped))).await;
    peer.nothing_was_said().await;
    peer.send(Up::Workloads(workloads("../2", 3, v1::WorkloadState::Running))).await;
    assert!(matches!(peer.next().await, Down::Unsupported(no) if no.reason.contains("workload.id")));
    assert_eq!(host.fabric.node(&node).unwrap().workloads[0].id.as_str(), "work-2");
    let lost =
        v1::Capability { name: "process.checkpoint".into(), reason: "criu is gone".into(), ..Default::default() };
    let report = v1::CapabilityReport { capabilities: vec![lost], facts: Default::default() };
    peer.send(Up::Capabilities(report)).await;
    peer.nothing_was_said().await;
    let known = host.fabric.world().nodes[&node].capabilities.clone();
    assert_eq!(known, BTreeMap::from([("process.checkpoint".to_owned(), Err("criu is gone".to_owned()))]));
    drop(peer);
    assert!(matches!(host.event().await, FabricEvent::Lost { .. }), "no news came of what was no news");
}

#[tokio::test]
async fn a_participant_that_takes_nothing_loses_its_session() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(folder.path(), Settings { outgoing_frames: 8, ..quick() }).await;
    let (mut peer, _) = host.join("node-a").await;
    let node = NodeId::new("node-a");
    let key = IdempotencyKey("0".repeat(64));
    let text = "x".repeat(256 << 10);
    // It goes on sending, so it is not silent; it only never reads.
    let up = peer.up.clone();
    let mut sending = JoinSet::new();
    sending.spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        for sequence in peer.sequence + 1.. {
            tick.tick().await;
            let payload = Some(Up::Heartbeat(v1::Heartbeat {}));
            let frame = ClientFrame { sequence, sent_at_ms: 0, traceparent: String::new(), payload };
            if up.send(frame).await.is_err() {
                return;
            }
        }
        peer.send(Up::Heartbeat(v1::Heartbeat {})).await;
    });
    let error = loop {
        if let Err(error) = host.fabric.cancel(&node, &key, &text).await {
            break error;
        }
    };
    assert!(matches!(error, DispatchError::Slow { .. } | DispatchError::NotConnected { .. }), "{error:?}");
    let why = host.await_lost("node-a").await;
    assert!(why.contains("did not take"), "{why}");
}

#[tokio::test]
async fn when_the_host_stops_participants_are_asked_to_leave() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(folder.path(), Settings { drain_ms: 500, ..Settings::default() }).await;
    let (mut polite, _) = host.join("node-a").await;
    let (mut stubborn, _) = host.join("node-b").await;
    let token = host.token(None).await;
    let fabric = host.fabric.clone();
    let mut draining = JoinSet::new();
    draining.spawn(async move { fabric.drain("an update").await });
    assert!(matches!(polite.next().await, Down::Drain(drain) if drain.reason == "an update"));
    polite.send(Up::Drained(v1::Drained {})).await;
    assert!(polite.end().await.is_none());
    assert_eq!(Peer::refused(&host.url, hello("node-c", token)).await.code, "draining");
    assert_eq!(stubborn.end().await.expect("a reason").code(), tonic::Code::Unavailable);
    draining.join_next().await.unwrap().unwrap();
    assert!(host.fabric.nodes().iter().all(|node| !node.live));
}

// ---- telemetry ------------------------------------------------------------------------------------------------------

const EPOCH: u64 = 77;

struct Sender {
    encoder: Encoder,
    at: i64,
}

impl Sender {
    fn new() -> Self {
        Self { encoder: Encoder::default(), at: clock::now().0 - 60_000 }
    }

    fn batch_of(&mut self, subject: SubjectRef, sequence: u64, samples: usize, lost_before: u64) -> v1::TelemetryBatch {
        let key = SeriesKey {
            subject,
            metric: "system.cpu.utilization".into(),
            unit: "1".into(),
            attributes: BTreeMap::new(),
        };
        let samples = (0..samples).map(|_| {
            self.at += 1;
            Sample { at: Time(self.at), value: 0.5 }
        });
        let series = vec![SeriesSamples { key, samples: samples.collect() }];
        let batch = Batch { origin: NodeId::new("node-a"), epoch: EPOCH, sequence, series, events: vec![] };
        self.encoder.encode(&batch, lost_before)
    }

    fn batch(&mut self, sequence: u64) -> v1::TelemetryBatch {
        self.batch_of(SubjectRef::node("node-a"), sequence, 2, 0)
    }
}

async fn acknowledged(peer: &mut Peer) -> u64 {
    match peer.next().await {
        Down::TelemetryAck(v1::TelemetryAck { epoch: EPOCH, sequence }) => sequence,
        other => panic!("an acknowledgement wanted: {other:?}"),
    }
}

#[tokio::test]
async fn what_is_acknowledged_is_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(folder.path(), Settings::default()).await;
    let (mut peer, welcome) = host.join("node-a").await;
    assert_eq!(welcome.telemetry_ack, None);
    let mut sender = Sender::new();
    let second = {
        peer.send(Up::Telemetry(sender.batch(1))).await;
        assert_eq!(host.event().await, FabricEvent::Telemetry(NodeId::new("node-a")));
        let second = sender.batch(2);
        peer.send(Up::Telemetry(second.clone())).await;
        second
    };
    peer.nothing_was_said().await;
    assert_eq!(host.recorder.latest(&SubjectRef::node("node-a"), "system.cpu.utilization").len(), 1, "seen at once");
    host.recorder.seal(clock::now()).await.unwrap();
    assert_eq!(acknowledged(&mut peer).await, 2);
    // Sent again, because the acknowledgement might have got lost: it is given again, and nothing is counted twice.
    peer.send(Up::Telemetry(second)).await;
    assert_eq!(acknowledged(&mut peer).await, 2);
    let view = host.fabric.node(&NodeId::new("node-a")).unwrap().telemetry;
    assert_eq!((view.batches, view.duplicates, view.acknowledged), (2, 1, Some(2)));
    drop(peer);
    host.await_lost("node-a").await;
    // A later session goes on from there.
    let (mut peer, welcome) = Peer::welcomed(&host.url, hello("node-a", credential(&welcome.credential))).await;
    assert_eq!(welcome.telemetry_ack, Some(v1::TelemetryAck { epoch: EPOCH, sequence: 2 }));
    let mut sender = Sender::new();
    assert_eq!(peer.rejected(sender.batch(4)).await.expected, 3, "3 is missing");
    peer.send(Up::Telemetry(sender.batch(3))).await;
    peer.nothing_was_said().await;
}

#[tokio::test]
async fn bad_batches_are_refused_by_code_and_hold_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(folder.path(), Settings { batch_bytes: 4 << 10, ..Settings::default() }).await;
    let (mut peer, _) = host.join("node-a").await;
    let (mut other, _) = host.join("node-b").await;
    let mut sender = Sender::new();
    peer.send(Up::Telemetry(sender.batch(1))).await;

    let gap = peer.rejected(sender.batch(3)).await;
    assert_eq!((gap.code.as_str(), gap.expected, gap.sequence), ("gap", 2, 3));
    peer.send(Up::Telemetry(sender.batch(2))).await;

    let oversized = peer.rejected(sender.batch_of(SubjectRef::node("node-a"), 3, 1_000, 0)).await;
    assert_eq!((oversized.code.as_str(), oversized.expected), ("oversized", 4));

    let flipped = v1::TelemetryBatch { samples_crc32: 1, ..sender.batch(4) };
    assert_eq!(peer.rejected(flipped).await.code, "malformed");
    let samples = vec![0xff; 10];
    let garbage = v1::TelemetryBatch { samples_crc32: crc32(&samples), samples, ..sender.batch(5) };
    assert_eq!(peer.rejected(garbage).await.code, "malformed");
    let schema = v1::TelemetryBatch { schema_id: 9, ..sender.batch(6) };
    assert_eq!(peer.rejected(schema).await.code, "schema");
    let pool = SubjectRef { kind: SubjectKind::Pool, id: "p".into() };
    let gpu = SubjectRef { kind: SubjectKind::Gpu, id: "node-b/gpu-1".into() };
    let foreign = [SubjectRef::node("node-b"), SubjectRef::workload("work-node-b"), pool, gpu];
    for (sequence, subject) in (7..).zip(foreign) {
        let rejected = peer.rejected(sender.batch_of(subject, sequence, 2, 0)).await;
        assert_eq!((rejected.code.as_str(), rejected.expected), ("malformed", sequence + 1));
    }
    let mut ahead = sender.batch_of(SubjectRef::node("node-a"), 11, 1, 0);
    (ahead.samples, ahead.samples_crc32) = {
        let mut ahead = Sender { at: clock::now().0 + 86_400_000, encoder: Encoder::default() };
        let batch = ahead.batch(11);
        (batch.samples, batch.samples_crc32)
    };
    assert!(peer.rejected(ahead).await.reason.contains("clock"));

    let gpu = SubjectRef { kind: SubjectKind::Gpu, id: "node-a/gpu-0".into() };
    for (sequence, own) in (12..).zip([SubjectRef::node("node-a"), SubjectRef::workload("work-node-a"), gpu]) {
        peer.send(Up::Telemetry(sender.batch_of(own, sequence, 2, 0))).await;
    }
    // 15 to 19 are lost, and the spool says so.
    peer.send(Up::Telemetry(sender.batch_of(SubjectRef::node("node-a"), 20, 2, 5))).await;
    peer.nothing_was_said().await;
    host.recorder.seal(clock::now()).await.unwrap();
    assert_eq!(acknowledged(&mut peer).await, 20);
    let view = host.fabric.node(&NodeId::new("node-a")).unwrap().telemetry;
    assert_eq!((view.batches, view.rejected, view.lost), (6, 9, 5));
    other.nothing_was_said().await;
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[tokio::test]
async fn without_room_a_batch_stays_with_its_sender_who_is_asked_to_send_less() {
    let folder = tempfile::tempdir().unwrap();
    let recording = aether_recorder::Settings {
        seal_bytes: 64 << 10,
        unsealed_bytes_limit: 64 << 10,
        ..aether_recorder::Settings::default()
    };
    let mut host = Host::start_with(folder.path(), Settings::default(), recording).await;
    let (mut peer, _) = host.join("node-a").await;
    let mut sender = Sender::new();
    let mut sequence = 0;
    let (full, refused) = loop {
        sequence += 1;
        let batch = sender.batch_of(SubjectRef::node("node-a"), sequence, 1_000, 0);
        peer.send(Up::Telemetry(batch.clone())).await;
        peer.send_frame(None).await;
        match peer.next().await {
            Down::TelemetryRejected(full) => break (full, batch),
            other => assert!(matches!(other, Down::Unsupported(_)), "{other:?}"),
        }
    };
    assert!(sequence > 1);
    assert_eq!((full.code.as_str(), full.expected, full.retry_after_ms), ("full", sequence, 2_000));
    assert!(matches!(peer.next().await, Down::Pressure(pressure) if pressure.percent > 0));
    assert!(matches!(peer.next().await, Down::Unsupported(_)));
    host.recorder.seal(clock::now()).await.unwrap();
    assert_eq!(acknowledged(&mut peer).await, sequence - 1);
    peer.send(Up::Telemetry(refused)).await;
    assert!(matches!(peer.next().await, Down::Pressure(pressure) if pressure.percent == 0));
    host.recorder.seal(clock::now()).await.unwrap();
    assert_eq!(acknowledged(&mut peer).await, sequence);
}

// ---- orders ---------------------------------------------------------------------------------------------------------

/// Checkpoint on node-a, restore on node-b.
fn plan() -> Plan {
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

fn order(plan: &Plan, step: u32, node: &str, inputs: BTreeMap<String, String>) -> Order {
    Order {
        key: plan.key(step, Direction::Forward).unwrap(),
        plan: plan.hash(),
        step,
        direction: Direction::Forward,
        node: NodeId::new(node),
        fence: 1,
        nonce: "once".into(),
        execute_by: Time(clock::now().0 + 30_000),
        inputs,
    }
}

async fn ordered(peer: &mut Peer) -> v1::Dispatch {
    match peer.next().await {
        Down::Dispatch(dispatch) => dispatch,
        other => panic!("an order wanted: {other:?}"),
    }
}

fn state(key: &IdempotencyKey, state: v1::dispatch_state::State) -> Up {
    Up::DispatchState(v1::DispatchState { key: key.0.clone(), journal_position: 9, state: Some(state) })
}

fn outcome() -> Outcome {
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

fn finished(key: &IdempotencyKey, outcome: &impl serde::Serialize) -> Up {
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
    assert!(matches!(error, DispatchError::NotConnected { .. }), "{error:?}");

    let (mut peer, welcome) = host.join("node-a").await;
    for wrong in [
        Order { plan: PlanHash("0".repeat(64)), ..order.clone() },
        Order { step: 9, ..order.clone() },
        Order { key: IdempotencyKey("0".repeat(64)), ..order.clone() },
        Order { node: NodeId::new("node-b"), ..order.clone() },
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
