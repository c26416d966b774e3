//! The host's side of the `Connect` stream, spoken to by a raw client over a real listener: who is let in, what becomes
//! of bad input, what is acknowledged when, what an order looks like, and what may be stored and read.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod dead_letters;
mod orders;
mod sleep;
mod telemetry;

use aether_core::{
    catalogue::{SafetyClass, verb},
    decision::OnFailure,
    id::{Digest, NodeId, SnapshotId, WorkloadId},
    order::{Direction, IdempotencyKey, Order, Outcome, OutcomeStatus, Provenance},
    plan::{BlastCount, Compensation, Plan, PlanHash, Shape, Step},
    snapshot::{ChunkRef, Manifest, SnapshotFile, Tier, WorkloadSpec},
    subject::{SubjectKind, SubjectRef, Target},
    telemetry::{Batch, Sample, SeriesKey, SeriesSamples},
    time::Time,
};
use aether_host::{
    blobs::{self, Blobs},
    clock,
    fabric::{Cancelled, DispatchError, Events, Fabric, FabricEvent, Settings, WorkloadState},
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
            FabricEvent::Lost { node: lost, why, .. } if lost.as_str() == node => Some(why),
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
        knows_host_heartbeat: false,
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
        assert_eq!(self.was_said().await, [], "something was said");
    }

    /// What the host says of everything sent so far.
    async fn was_said(&mut self) -> Vec<Down> {
        self.send_frame(None).await;
        let mut said = Vec::new();
        loop {
            match self.next().await {
                Down::Unsupported(v1::Unsupported { sequence, .. }) if sequence == self.sequence => return said,
                other => said.push(other),
            }
        }
    }

    async fn rejected(&mut self, batch: v1::TelemetryBatch) -> v1::TelemetryRejected {
        self.send(Up::Telemetry(batch)).await;
        loop {
            match self.next().await {
                Down::TelemetryRejected(rejected) => return rejected,
                // Of what came before.
                Down::TelemetryAck(_) => {}
                other => panic!("a rejection wanted: {other:?}"),
            }
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
async fn a_host_that_seldom_says_something_notices_silence_as_soon() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Host::start(folder.path(), Settings { host_heartbeat_ms: 60_000, ..quick() }).await;
    let hello = v1::Hello { knows_host_heartbeat: true, ..hello("node-a", host.token(None).await) };
    let (_silent, _) = Peer::welcomed(&host.url, hello).await;
    let why = host.await_lost("node-a").await;
    assert!(why.contains("nothing was heard of the agent for 600 ms"), "{why}");
}

#[tokio::test]
async fn the_host_says_something_at_its_own_pace_to_those_who_know_of_it() {
    let (slow, fast) = (60_000, 20);
    for (knows_host_heartbeat, heartbeat_ms, host_heartbeat_ms) in [(true, slow, fast), (false, fast, slow)] {
        let settings = Settings { heartbeat_ms, host_heartbeat_ms, missed_heartbeats: 100, ..Settings::default() };
        let folder = tempfile::tempdir().unwrap();
        let host = Host::start(folder.path(), settings).await;
        let hello = v1::Hello { knows_host_heartbeat, ..hello("node-a", host.token(None).await) };
        let (mut peer, welcome) = Peer::welcomed(&host.url, hello).await;
        assert_eq!((u64::from(welcome.heartbeat_ms), u64::from(welcome.host_heartbeat_ms)), (heartbeat_ms, fast));
        for _ in 0..3 {
            let frame = timeout(PATIENCE, peer.down.message()).await.expect("a frame in time").unwrap().unwrap();
            assert_eq!(frame.payload, Some(Down::Heartbeat(v1::Heartbeat {})));
        }
    }
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
    let plan = orders::plan();
    let order = orders::order(&plan, 0, "node-a", BTreeMap::new());
    let key = order.key.clone();
    host.fabric.dispatch(&plan, order).await.unwrap();
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
