//! A host to speak to, over the real contract and a real socket: it signs real orders, keeps snapshots in memory, and
//! can be told to misbehave. And agents as processes of their own, which end, with all they began, when a test does.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "what fails here fails a test")]

pub mod wires;

use aether_agent::{
    act::{criu::Criu, images::Images},
    capabilities::boot_id,
    workloads::{Registry, read_progress},
};
use aether_core::{
    catalogue::{SafetyClass, argument, verb},
    decision::OnFailure,
    id::{Digest, NodeId},
    order::{Direction, IdempotencyKey, Order, Outcome, Provenance},
    plan::{BlastCount, Compensation, Plan, Shape, Step, canonical},
    snapshot::Manifest,
    subject::{SubjectKind, SubjectRef, Target},
    telemetry::Batch,
    time::Time,
    value::Value,
};
use aether_proto::{
    telemetry::Decoder,
    v1::{
        self,
        client_frame::Payload,
        dispatch_state::State,
        fabric_server::{Fabric, FabricServer},
        server_frame::Payload as ServerPayload,
    },
};
use ed25519_dalek::{Signer, SigningKey};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

pub const TOKEN: &str = "join-me";
const WAIT: Duration = Duration::from_secs(60);

/// Says that a test is skipped for what is missing here; where nothing may be skipped, it fails.
pub fn skip(test: &str, missing: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} must not be skipped here: {missing}");
    eprintln!("skipped: {test}: {missing}");
    if let Some(skips) = std::env::var_os("AETHER_SKIPS") {
        use std::io::Write;
        let file = File::options().append(true).create(true).open(skips);
        file.and_then(|mut file| writeln!(file, "test {test}: {missing}")).unwrap();
    }
}

/// CRIU as the tests may use it; without it a test is skipped by name, and fails where it must not be skipped.
pub fn criu(test: &str) -> Option<PathBuf> {
    let asked = std::env::var_os("AETHER_CRIU").map(PathBuf::from);
    match Criu::find(asked.as_deref()) {
        Ok(criu) => Some(criu.path().to_owned()),
        Err(missing) => {
            skip(test, &missing.to_string());
            None
        }
    }
}

#[derive(Default)]
pub struct Node {
    sender: Option<mpsc::Sender<Result<v1::ServerFrame, Status>>>,
    sequence: u64,
    pub hellos: Vec<v1::Hello>,
    pub capabilities: BTreeMap<String, v1::Capability>,
    pub facts: BTreeMap<String, String>,
    pub workloads: BTreeMap<String, v1::Workload>,
    pub batches: Vec<(Batch, u64)>,
    pub states: Vec<v1::DispatchState>,
}

/// What becomes of chunks on their way ahead.
#[derive(Clone, Copy, Default)]
pub enum Ahead {
    #[default]
    Sent,
    Held,
    /// A bit is flipped in each.
    Flipped,
}

#[derive(Default)]
pub struct World {
    pub nodes: BTreeMap<String, Node>,
    pub chunks: BTreeMap<String, v1::SnapshotChunk>,
    pub manifests: BTreeMap<String, Vec<u8>>,
    /// Chunks of what is written once the workload is stopped are taken and never answered.
    pub hold_chunks: bool,
    /// What becomes of chunks on their way ahead.
    pub ahead: Ahead,
    /// Manifests are not signed.
    pub unsigned: bool,
    /// Frames with chunks that came, and chunks that were given.
    pub chunks_came: usize,
    pub chunks_given: usize,
    /// The stream that brings, or asks for, the chunk of this number is cut before it is answered.
    pub cut_when_came: Option<usize>,
    pub cut_when_given: Option<usize>,
    /// Outcomes are not acknowledged.
    pub hold_acks: bool,
    /// Batches are not acknowledged, but refused as full.
    pub full: bool,
    /// How many were.
    pub held_off: usize,
    /// Sequence of a batch that is refused as malformed.
    pub malformed: Option<u64>,
    /// Instead of a welcome.
    pub refuse: Option<v1::Refused>,
    fence: u64,
    /// Of the lease that this host says it has.
    pub lease: u64,
}

pub struct Host {
    pub address: String,
    key: Arc<SigningKey>,
    world: Arc<watch::Sender<World>>,
    tasks: tokio_util::task::TaskTracker,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Service {
    key: Arc<SigningKey>,
    world: Arc<watch::Sender<World>>,
    tasks: tokio_util::task::TaskTracker,
}

#[tonic::async_trait]
impl Fabric for Service {
    type ConnectStream = ReceiverStream<Result<v1::ServerFrame, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::ClientFrame>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let mut frames = request.into_inner();
        let (sender, outgoing) = mpsc::channel(64);
        let (key, world) = (self.key.clone(), self.world.clone());
        self.tasks.spawn(async move {
            let Ok(Some(first)) = frames.message().await else { return };
            let Some(Payload::Hello(hello)) = first.payload else { return };
            let Some(name) = welcome(&key, &world, hello, &sender).await else { return };
            let mut decoder = Decoder::default();
            let mut expected = 1;
            while let Ok(Some(frame)) = frames.message().await {
                expected += 1;
                assert_eq!(frame.sequence, expected, "the agent's frames have a gap");
                // Only one session is live; what an older stream still brings is not heard.
                let live = |world: &World| world.nodes[&name].sender.as_ref().is_some_and(|s| s.same_channel(&sender));
                if !live(&world.borrow()) {
                    return;
                }
                let payload = frame.payload.unwrap();
                let ahead = ahead(&payload, world.borrow().ahead);
                let answers = take(&key, &world, &name, &mut decoder, payload);
                if let Some(ahead) = ahead {
                    let others: Vec<String> =
                        world.borrow().nodes.keys().filter(|node| **node != name).cloned().collect();
                    for other in others {
                        send(&world, &other, ServerPayload::SnapshotAhead(ahead.clone())).await;
                    }
                }
                for answer in answers {
                    send(&world, &name, answer).await;
                }
            }
            world.send_modify(|world| {
                let node = world.nodes.get_mut(&name).unwrap();
                node.sender.take_if(|live| live.same_channel(&sender));
            });
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

async fn welcome(
    key: &SigningKey,
    world: &watch::Sender<World>,
    hello: v1::Hello,
    sender: &mpsc::Sender<Result<v1::ServerFrame, Status>>,
) -> Option<String> {
    let name = match hello.principal.clone().unwrap().kind.unwrap() {
        v1::principal::Kind::NodeAgent(v1::NodeAgent { node }) => node,
        other => panic!("{other:?}"),
    };
    let credential = match hello.credentials.clone().unwrap().kind.unwrap() {
        v1::credentials::Kind::JoinToken(token) if token == TOKEN => Some(format!("credential-of-{name}")),
        v1::credentials::Kind::Credential(credential) if credential == format!("credential-of-{name}") => {
            Some(String::new())
        }
        _ => None,
    };
    let refused = world.borrow().refuse.clone().or_else(|| {
        credential.is_none().then(|| v1::Refused {
            code: "unauthenticated".into(),
            reason: "the token is not known".into(),
            retry_after_ms: 0,
        })
    });
    let payload = match refused {
        Some(refused) => ServerPayload::Refused(refused),
        None => {
            let acknowledged = world.borrow().nodes.get(&name).and_then(|node| {
                let (last, _) = node.batches.last()?;
                Some(v1::TelemetryAck { epoch: last.epoch, sequence: last.sequence, beyond: vec![] })
            });
            ServerPayload::Welcome(v1::Welcome {
                session_id: "session".into(),
                protocol_version: "1.0".into(),
                credential: credential.unwrap_or_default(),
                host_public_key: key.verifying_key().to_bytes().to_vec(),
                generation: 1,
                heartbeat_ms: 1_000,
                host_heartbeat_ms: 0,
                limits: Some(v1::SessionLimits {
                    frame_bytes: 4 << 20,
                    batches_in_flight: 8,
                    chunks_in_flight: 3,
                    chunk_bytes: 1 << 20,
                }),
                agent_config: None,
                telemetry_ack: acknowledged,
                telemetry_schema: aether_proto::telemetry::SCHEMA_ID,
                telemetry_any_order: false,
                lease: world.borrow().lease,
            })
        }
    };
    let welcomed = matches!(payload, ServerPayload::Welcome(_));
    let frame = v1::ServerFrame { sequence: 1, sent_at_ms: now().0, payload: Some(payload), ..Default::default() };
    sender.send(Ok(frame)).await.ok()?;
    world.send_modify(|world| {
        let node = world.nodes.entry(name.clone()).or_default();
        if welcomed {
            node.sender = Some(sender.clone());
            node.sequence = 1;
            let report = hello.capabilities.clone().unwrap_or_default();
            node.facts = report.facts.into_iter().collect();
            node.capabilities = report.capabilities.into_iter().map(|c| (c.name.clone(), c)).collect();
            let workloads = hello.workloads.clone().unwrap_or_default().workloads;
            node.workloads = workloads.into_iter().map(|w| (w.id.clone(), w)).collect();
        }
        node.hellos.push(hello);
    });
    welcomed.then_some(name)
}

async fn send(world: &watch::Sender<World>, name: &str, payload: ServerPayload) {
    let mut prepared = None;
    world.send_modify(|world| {
        let node = world.nodes.get_mut(name).unwrap();
        if let Some(sender) = &node.sender {
            node.sequence += 1;
            let frame = v1::ServerFrame {
                sequence: node.sequence,
                sent_at_ms: now().0,
                payload: Some(payload),
                ..Default::default()
            };
            prepared = Some((sender.clone(), frame));
        }
    });
    if let Some((sender, frame)) = prepared {
        let _ = sender.send(Ok(frame)).await;
    }
}

/// What goes on to every other node before it is asked for.
fn ahead(payload: &Payload, how: Ahead) -> Option<v1::SnapshotAhead> {
    let mut ahead = match payload {
        Payload::SnapshotAhead(ahead) => ahead.clone(),
        Payload::SnapshotChunk(chunk) => {
            let v1::SnapshotChunk { key, digest, codec, size_bytes, data, file, offset } = chunk.clone();
            v1::SnapshotAhead { key, digest, codec, size_bytes, data, file, offset }
        }
        _ => return None,
    };
    match how {
        Ahead::Sent => Some(ahead),
        Ahead::Held => None,
        Ahead::Flipped => {
            let middle = ahead.data.len() / 2;
            if let Some(byte) = ahead.data.get_mut(middle) {
                *byte ^= 1;
            }
            Some(ahead)
        }
    }
}

/// What the host does with a frame.
fn take(
    key: &SigningKey,
    world: &watch::Sender<World>,
    name: &str,
    decoder: &mut Decoder,
    payload: Payload,
) -> Vec<ServerPayload> {
    let mut answers = Vec::new();
    world.send_modify(|world| {
        let (hold_chunks, hold_acks, full) = (world.hold_chunks, world.hold_acks, world.full);
        match payload {
            Payload::Telemetry(batch) => {
                let (epoch, sequence, lost_before) = (batch.epoch, batch.sequence, batch.lost_before);
                let batch = decoder.decode(&NodeId::new(name), &batch).expect("a batch that can be read");
                let reject = |code: &str, expected| {
                    ServerPayload::TelemetryRejected(v1::TelemetryRejected {
                        epoch,
                        sequence,
                        code: code.into(),
                        reason: "as the test wants".into(),
                        expected,
                        retry_after_ms: 200,
                    })
                };
                if full {
                    world.held_off += 1;
                    return answers.push(reject("full", 0));
                }
                if world.malformed == Some(sequence) {
                    world.malformed = None;
                    return answers.push(reject("malformed", 0));
                }
                let node = world.nodes.get_mut(name).unwrap();
                let expected = node.batches.last().map_or(1, |(last, _)| last.sequence + 1);
                if sequence > expected + lost_before {
                    return answers.push(reject("gap", expected));
                }
                if sequence >= expected {
                    node.batches.push((batch, lost_before));
                }
                let last = node.batches.last().unwrap().0.sequence;
                answers.push(ServerPayload::TelemetryAck(v1::TelemetryAck { epoch, sequence: last, beyond: vec![] }));
            }
            Payload::Workloads(report) => {
                let node = world.nodes.get_mut(name).unwrap();
                node.workloads = report.workloads.into_iter().map(|w| (w.id.clone(), w)).collect();
            }
            Payload::DispatchState(state) => {
                if matches!(state.state, Some(State::Outcome(_) | State::Sleeping(_))) && !hold_acks {
                    answers.push(ServerPayload::DispatchStateAck(v1::DispatchStateAck { key: state.key.clone() }));
                }
                world.nodes.get_mut(name).unwrap().states.push(state);
            }
            Payload::SnapshotChunk(chunk) => {
                let digest = chunk.digest.clone();
                world.chunks_came += 1;
                if world.cut_when_came == Some(world.chunks_came) {
                    world.nodes.get_mut(name).unwrap().sender = None;
                }
                let late = !chunk.file.starts_with("pages-");
                world.chunks.insert(digest.clone(), chunk);
                if !(hold_chunks && late) {
                    answers.push(stored(digest, ""));
                }
            }
            Payload::SnapshotManifest(manifest) => {
                let parsed: Manifest = serde_json::from_slice(&manifest.manifest).unwrap();
                let chunks = parsed.files.iter().flat_map(|file| &file.chunks);
                let missing = chunks.filter(|chunk| !world.chunks.contains_key(&chunk.digest.0)).count();
                let digest = Digest::of(&manifest.manifest).0;
                world.manifests.insert(digest.clone(), manifest.manifest);
                answers.push(stored(digest, if missing > 0 { "manifest.missing-chunk" } else { "" }));
            }
            Payload::SnapshotRead(v1::SnapshotRead { digest, manifest }) => {
                let (codec, data) = if manifest {
                    (v1::Codec::Raw.into(), world.manifests.get(&digest).cloned())
                } else {
                    world.chunks_given += 1;
                    if world.cut_when_given == Some(world.chunks_given) {
                        world.nodes.get_mut(name).unwrap().sender = None;
                    }
                    let chunk = world.chunks.get(&digest);
                    (chunk.map_or(0, |chunk| chunk.codec), chunk.map(|chunk| chunk.data.clone()))
                };
                let error_code = if data.is_some() { String::new() } else { "not-found".into() };
                let (data, error) = (data.unwrap_or_default(), String::new());
                let signature = if manifest && !world.unsigned {
                    key.sign(&Manifest::signed_bytes(&data)).to_bytes().to_vec()
                } else {
                    vec![]
                };
                let data = v1::SnapshotData { digest, codec, data, error_code, error, signature };
                answers.push(ServerPayload::SnapshotData(data));
            }
            Payload::Heartbeat(_) => answers.push(ServerPayload::Heartbeat(v1::Heartbeat {})),
            Payload::Capabilities(report) => {
                world.nodes.get_mut(name).unwrap().facts = report.facts.into_iter().collect();
            }
            Payload::SnapshotAhead(_) | Payload::Drained(_) | Payload::Unsupported(_) => {}
            Payload::Hello(_) => panic!("a second hello"),
        }
    });
    answers
}

fn stored(digest: String, error_code: &str) -> ServerPayload {
    let (error_code, error) = (error_code.to_string(), String::new());
    ServerPayload::SnapshotStored(v1::SnapshotStored { digest, error_code, error })
}

/// One order, as a test wants it.
pub struct Wanted<'a> {
    pub node: &'a str,
    pub plan: &'a Plan,
    pub step: u32,
    pub direction: Direction,
    pub inputs: BTreeMap<String, String>,
}

impl Host {
    pub async fn start() -> Self {
        Self::start_with(1, "127.0.0.1:0").await
    }

    /// A host with another key, or at an address that is known.
    pub async fn start_with(seed: u8, at: &str) -> Self {
        let listener = tokio::net::TcpListener::bind(at).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let key = Arc::new(SigningKey::from_bytes(&[seed; 32]));
        let world = Arc::new(watch::Sender::new(World::default()));
        let tasks = tokio_util::task::TaskTracker::new();
        let service = Service { key: key.clone(), world: world.clone(), tasks: tasks.clone() };
        let service = FabricServer::new(service).max_decoding_message_size(aether_proto::FRAME_BYTES_MAXIMUM);
        let server = tonic::transport::Server::builder().add_service(service);
        let server = tasks.spawn(async move {
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { address, key, world, tasks, server }
    }

    pub fn change(&self, change: impl FnOnce(&mut World)) {
        self.world.send_modify(change);
    }

    /// Cuts the stream of a node.
    pub fn cut(&self, node: &str) {
        self.change(|world| world.nodes.get_mut(node).unwrap().sender = None);
    }

    pub fn look<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&self.world.borrow())
    }

    /// Waits until `see` gives something.
    pub async fn wait<T>(&self, what: &str, mut see: impl FnMut(&World) -> Option<T>) -> T {
        let mut world = self.world.subscribe();
        let waited = tokio::time::timeout(WAIT, async {
            loop {
                if let Some(seen) = see(&world.borrow_and_update()) {
                    return seen;
                }
                world.changed().await.unwrap();
            }
        });
        waited.await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    pub async fn connected(&self, node: &str) {
        self.wait("a session", |world| world.nodes.get(node)?.sender.as_ref().map(|_| ())).await;
    }

    pub async fn workload(&self, node: &str, id: &str, state: v1::WorkloadState) -> v1::Workload {
        let see = |world: &World| world.nodes.get(node)?.workloads.get(id).filter(|w| w.state() == state).cloned();
        self.wait(&format!("{id} on {node} to be {state:?}"), see).await
    }

    /// Waits for a sample of the workload's progress that is beyond `beyond`.
    pub async fn progress(&self, node: &str, id: &str, beyond: f64) -> f64 {
        let subject = SubjectRef::workload(id);
        self.wait(&format!("progress of {id} on {node} beyond {beyond}"), |world| {
            let (batch, _) = world.nodes.get(node)?.batches.last()?;
            let mut series = batch.series.iter();
            let series = series.find(|s| s.key.subject == subject && s.key.metric == "aether.workload.progress")?;
            series.values.last().copied().filter(|value| *value > beyond)
        })
        .await
    }

    /// Signs an order as the host would.
    pub fn sign(&self, wanted: &Wanted<'_>) -> (IdempotencyKey, v1::Dispatch) {
        let Wanted { node, plan, step, direction, inputs } = wanted;
        let mut fence = 0;
        self.change(|world| {
            world.fence += 1;
            fence = world.fence;
        });
        let order = Order {
            key: plan.key(*step, *direction).unwrap(),
            plan: plan.hash(),
            step: *step,
            direction: *direction,
            target: plan.steps[usize::try_from(*step).unwrap()].target.clone(),
            decided_by: Provenance::of(plan),
            node: NodeId::new(*node),
            lease: self.world.borrow().lease,
            fence,
            nonce: format!("nonce-{fence}"),
            execute_by: now().plus_ms(60_000),
            inputs: inputs.clone(),
        };
        let signature = self.key.sign(&order.signed_bytes()).to_bytes().to_vec();
        (order.key.clone(), v1::Dispatch { plan: plan.canonical(), order: canonical(&order), signature })
    }

    pub async fn send(&self, node: &str, dispatch: v1::Dispatch) {
        send(&self.world, node, ServerPayload::Dispatch(dispatch)).await;
    }

    pub async fn dispatch(&self, wanted: Wanted<'_>) -> IdempotencyKey {
        let (key, dispatch) = self.sign(&wanted);
        self.send(wanted.node, dispatch).await;
        key
    }

    pub async fn cancel(&self, node: &str, key: &IdempotencyKey) {
        let cancel = v1::Cancel { key: key.0.clone(), reason: "as the test wants".into() };
        send(&self.world, node, ServerPayload::Cancel(cancel)).await;
    }

    /// The first state of an order that `see` takes.
    pub async fn state<T>(&self, node: &str, key: &IdempotencyKey, see: impl Fn(&State) -> Option<T>) -> T {
        self.wait("a state of an order", |world| {
            let states = world.nodes.get(node)?.states.iter().filter(|state| state.key == key.0);
            states.filter_map(|state| state.state.as_ref()).find_map(&see)
        })
        .await
    }

    pub async fn outcome(&self, node: &str, key: &IdempotencyKey) -> Outcome {
        let parse = |state: &State| match state {
            State::Outcome(outcome) => Some(serde_json::from_slice(&outcome.outcome).unwrap()),
            State::Refused(refused) => panic!("refused: {refused:?}"),
            State::Accepted(_) | State::Progress(_) | State::Sleeping(_) => None,
        };
        self.state(node, key, parse).await
    }

    pub async fn refusal(&self, node: &str, key: &IdempotencyKey) -> v1::OrderRefused {
        let parse = |state: &State| match state {
            State::Refused(refused) => Some(refused.clone()),
            State::Outcome(outcome) => panic!("not refused: {}", String::from_utf8_lossy(&outcome.outcome)),
            State::Accepted(_) | State::Progress(_) | State::Sleeping(_) => None,
        };
        self.state(node, key, parse).await
    }

    /// Dispatches a step and waits for its outcome.
    pub async fn carry_out(&self, node: &str, plan: &Plan, step: u32, inputs: &[(&str, &str)]) -> Outcome {
        let key = self.dispatch(wanted(node, plan, step, inputs)).await;
        self.outcome(node, &key).await
    }
}

pub fn wanted<'a>(node: &'a str, plan: &'a Plan, step: u32, inputs: &[(&str, &str)]) -> Wanted<'a> {
    let inputs = inputs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Wanted { node, plan, step, direction: Direction::Forward, inputs }
}

#[allow(clippy::disallowed_methods, reason = "the tests' clock")]
pub fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Time(i64::try_from(since.as_millis()).unwrap())
}

/// The plan that a migration is.
pub fn migration(workload: &str, generation: u64, from: &str, to: &str) -> Plan {
    let target = Target { kind: SubjectKind::Workload, id: workload.into(), generation };
    let linked = BTreeMap::from([(argument::CHECKPOINT_STEP.to_string(), Value::Integer(0))]);
    let undo = |verb: &str, node: &str| {
        Some(Compensation { verb: verb.into(), node: NodeId::new(node), arguments: BTreeMap::new() })
    };
    let step = |verb: &str, node: &str, arguments: &BTreeMap<String, Value>, compensation| Step {
        verb: verb.into(),
        node: NodeId::new(node),
        target: target.clone(),
        arguments: arguments.clone(),
        preconditions: vec![],
        on_failure: OnFailure::Compensate,
        compensation,
    };
    let none = BTreeMap::new();
    Plan {
        schema_version: 1,
        shape: Shape { cause: "test".into(), subject: SubjectRef::node(from) },
        steps: vec![
            step(verb::CHECKPOINT, from, &none, undo(verb::RESUME, from)),
            step(verb::RESTORE, to, &linked, undo(verb::DISCARD, to)),
            step(verb::CONFIRM, to, &linked, None),
            step(verb::RETIRE, from, &none, None),
        ],
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

/// A plan of one step, undone by `undo`.
pub fn single(verb: &str, node: &str, target: Target, arguments: &[(&str, Value)], undo: Option<&str>) -> Plan {
    let step = Step {
        verb: verb.into(),
        node: NodeId::new(node),
        target,
        arguments: arguments.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect(),
        preconditions: vec![],
        on_failure: OnFailure::Compensate,
        compensation: undo.map(|verb| Compensation {
            verb: verb.into(),
            node: NodeId::new(node),
            arguments: BTreeMap::new(),
        }),
    };
    Plan { steps: vec![step], ..migration("-", 1, node, node) }
}

/// An agent as a process, on a state folder that outlives it.
pub struct Agent {
    pub node: String,
    pub state: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// A network namespace that it runs in.
    namespace: Option<PathBuf>,
    child: Option<Child>,
}

impl Agent {
    pub fn new(folder: &Path, node: &str, host: &str, arguments: &[&str]) -> Self {
        Self::with_environment(folder, node, host, arguments, vec![])
    }

    pub fn with_environment(
        folder: &Path,
        node: &str,
        host: &str,
        arguments: &[&str],
        environment: Vec<(String, String)>,
    ) -> Self {
        Self::in_namespace(folder, node, host, arguments, environment, None)
    }

    pub fn in_namespace(
        folder: &Path,
        node: &str,
        host: &str,
        arguments: &[&str],
        environment: Vec<(String, String)>,
        namespace: Option<PathBuf>,
    ) -> Self {
        let state = folder.join(node);
        let mut all: Vec<String> = ["run", "--node", node, "--host", host].map(String::from).to_vec();
        all.extend(["--state".into(), state.display().to_string()]);
        all.extend(arguments.iter().map(|argument| (*argument).into()));
        let mut agent = Self { node: node.into(), state, arguments: all, environment, namespace, child: None };
        agent.start(Some(TOKEN));
        agent
    }

    pub fn start(&mut self, token: Option<&str>) {
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = wires::command(env!("CARGO_BIN_EXE_aether-agent"), self.namespace.as_deref());
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(token) = token {
            command.env("AETHER_JOIN_TOKEN", token);
        }
        self.child = Some(command.spawn().unwrap());
    }

    pub fn log(&self) -> PathBuf {
        self.state.with_extension("log")
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks it to end, and waits until it has.
    pub fn terminate(&mut self) {
        let mut child = self.child.take().unwrap();
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success(), "{}", self.log_text());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("---- {}\n{}", self.node, self.log_text());
        }
        if let Ok(registry) = Registry::open(&self.state.join("workloads.json"), boot_id()) {
            registry.end_all();
        }
        let _ = std::fs::remove_dir_all(Images::memory_of(&self.state.join("snapshots")));
        // A dump or restore that a killed agent left behind has this folder on its command line.
        for process in procfs::process::all_processes().into_iter().flatten().flatten() {
            let state = self.state.display().to_string();
            let ours = process.cmdline().is_ok_and(|words| words.iter().any(|word| word.starts_with(&state)));
            let process = u32::try_from(process.pid()).ok().filter(|_| ours);
            if let Some(process) = process.and_then(aether_agent::process::ProcessRef::find) {
                let _ = process.signal(rustix::process::Signal::KILL);
            }
        }
    }
}

/// The demo workload under an agent, by a configuration file.
pub struct Counter {
    pub config: PathBuf,
    pub file: PathBuf,
}

impl Counter {
    pub fn new(folder: &Path, memory_mib: usize) -> Self {
        let (config, file) = (folder.join("counter.toml"), folder.join("count"));
        let program = env!("CARGO_BIN_EXE_aether-demo-workload");
        let text = format!(
            "[[workloads]]\nid = \"counter\"\nname = \"Counter\"\n\
             command = [\"{program}\", \"--file\", \"{path}\", \"--memory-mib\", \"{memory_mib}\"]\n\
             progress_file = \"{path}\"\n",
            path = file.display(),
        );
        std::fs::write(&config, text).unwrap();
        Self { config, file }
    }

    pub fn config(&self) -> &str {
        self.config.to_str().unwrap()
    }

    pub fn count(&self) -> u64 {
        read_progress(self.file.to_str().unwrap()).unwrap_or(0)
    }

    /// Every count so far, in the order in which it was written.
    pub fn counts(&self) -> Vec<u64> {
        let text = std::fs::read_to_string(&self.file).unwrap();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// How many processes count into this file.
    pub fn running(&self) -> usize {
        let path = self.file.display().to_string();
        let all = procfs::process::all_processes().unwrap().flatten();
        let counting = all.filter(|process| {
            let alive = process.stat().is_ok_and(|stat| !matches!(stat.state, 'Z' | 'X' | 'T' | 't'));
            let demo = |words: Vec<String>| words.first().is_some_and(|w| w.ends_with("aether-demo-workload"));
            alive && process.cmdline().is_ok_and(|words| words.contains(&path) && demo(words))
        });
        counting.count()
    }
}

/// Sequences that came, to see that none is missing or twice.
pub fn sequences(world: &World, node: &str) -> (BTreeSet<u64>, usize) {
    let batches = &world.nodes[node].batches;
    (batches.iter().map(|(batch, _)| batch.sequence).collect(), batches.len())
}
