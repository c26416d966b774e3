//! Slots as they live in a host: swaps under load, canaries over a fleet, what fails and is taken out, what survives a
//! restart. The driver, the fabric, the registry and the database are the real ones; nodes are streams that say hello,
//! and components are written in WAT, so that each does exactly what its test is about.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

#[path = "../../runtime/tests/it/guest.rs"]
#[allow(dead_code, reason = "guests for the runtime's own tests, too")]
mod guest;
mod live;
mod rounds;
mod starting;

use aether_core::{
    decision::Envelope,
    finding::Hysteresis,
    guard::GuardLimits,
    id::{Digest, EntryId, PrincipalId, SlotId},
    incident::Rank,
    policy::Posture,
    slot::Stage,
};
use aether_host::{
    blobs::{self, Blobs},
    clock,
    control::{self, Control},
    fabric::{self, Fabric},
    plugins::{
        Added, By, Deed, Error, Generation, NewEntry, Opening, Slots,
        registry::{self, Provenance, Registry, Upload},
    },
    store::Store,
};
use aether_proto::v1::{
    self, ClientFrame, ServerFrame, client_frame::Payload as Up, fabric_client::FabricClient,
    server_frame::Payload as Down,
};
use aether_recorder::Recorder;
use aether_runtime::{Engine, EngineSettings};
use guest::ANSWER;
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Streaming, transport::Endpoint};

/// How long anything may take. Generous, since machines are shared; never slept through.
const PATIENCE: Duration = Duration::from_secs(60);

/// A scorer that always says low, with this score: who answered shows in the answer.
fn scoring(score: f64) -> Vec<u8> {
    guest::scorer(&format!("(f64.store (i32.const {}) (f64.const {score})) i32.const {ANSWER}", guest::SCORE))
}

/// One that says critical.
fn alarming() -> Vec<u8> {
    guest::scorer(&format!("(i32.store8 (i32.const {}) (i32.const 3)) i32.const {ANSWER}", guest::LEVEL))
}

/// One that answers up to a moment, and traps from then on.
fn failing_from(at: aether_core::time::Time) -> Vec<u8> {
    // The seventh parameter is the observation's time.
    guest::scorer(&format!(
        "(if (i64.ge_u (local.get 6) (i64.const {})) (then unreachable)) \
         (f64.store (i32.const {}) (f64.const 0.75)) i32.const {ANSWER}",
        at.0,
        guest::SCORE
    ))
}

fn ann() -> By {
    By { principal: PrincipalId::new("ann"), name: "Ann".into(), rank: Rank::PolicyAuthor }
}

fn risk() -> SlotId {
    SlotId::new("risk")
}

/// Writes a bundle whose one slot of scorers holds `test-guest`, and its component.
fn write_bundle(folder: &Path, component: &[u8], budget: &str) {
    std::fs::create_dir_all(folder.join("plugins")).unwrap();
    std::fs::write(folder.join("plugins/test-guest.wasm"), component).unwrap();
    write_policy(folder, budget);
}

fn write_policy(folder: &Path, budget: &str) {
    std::fs::create_dir_all(folder.join("bundle")).unwrap();
    let policy = format!(
        "name = \"test\"\nversion = \"1\"\n[slots.risk]\nrole = \"risk-scorer\"\nrule = \"max\"\n{budget}\n\
         [[slots.risk.entries]]\ncomponent = \"test-guest\"\n"
    );
    std::fs::write(folder.join("bundle/policy.toml"), policy).unwrap();
}

/// What slots live in. The data folder outlives it, as it outlives a host.
struct Plant {
    store: Store,
    registry: Registry,
    slots: Slots,
    tasks: TaskTracker,
}

impl Plant {
    async fn open(folder: &Path) -> Self {
        let data = folder.join("data");
        std::fs::create_dir_all(&data).unwrap();
        let store = Store::open(&data.join("aether.db")).await.unwrap();
        let engine = Engine::new(EngineSettings::default()).unwrap();
        let registry = Registry::open(&data, store.clone(), engine, registry::Settings::default()).await.unwrap();
        let tasks = TaskTracker::new();
        let opening = Opening {
            store: store.clone(),
            registry: registry.clone(),
            bundle: folder.join("bundle"),
            plugins: folder.join("plugins"),
            tasks: tasks.clone(),
        };
        let slots = Slots::open(opening).await.unwrap();
        Self { store, registry, slots, tasks }
    }

    /// As a host that stops.
    async fn close(self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.store.close().await;
    }

    fn now(&self) -> Arc<Generation> {
        self.slots.current(&risk()).unwrap()
    }

    /// `test-guest-1:active test-guest-2:canary`, of those that are not retired.
    fn standing(&self) -> String {
        let now = self.now();
        let open = now.slot().entries.iter().filter(|entry| entry.is_open());
        open.map(|entry| format!("{}:{}", entry.id, entry.stage.name())).collect::<Vec<_>>().join(" ")
    }

    async fn upload(&self, component: Vec<u8>) -> Digest {
        let upload =
            Upload { provenance: Provenance::Upload { file: None }, signature: None, by: PrincipalId::new("ann") };
        self.registry.put(component.into(), upload).await.unwrap().record.digest
    }

    fn new_entry(&self, component: &Digest, replaces: Option<&EntryId>) -> NewEntry {
        NewEntry {
            generation: self.now().number(),
            component: component.clone(),
            config: serde_json::Map::new(),
            limits: Default::default(),
            assets: None,
            grants: None,
            replaces: replaces.cloned(),
        }
    }

    async fn add(&self, component: &Digest, replaces: Option<&EntryId>) -> EntryId {
        let new = self.new_entry(component, replaces);
        let Some(Added { entry, self_test }) = self.slots.act(&risk(), Deed::Add(new), ann()).await.unwrap() else {
            panic!("an entry was added")
        };
        assert!(self_test.is_empty(), "the bundle has no fixtures");
        entry
    }

    fn promotion(&self, entry: &EntryId, to: Stage, overridden: Option<&str>) -> Deed {
        Deed::Promote {
            generation: self.now().number(),
            entry: entry.clone(),
            to,
            comment: None,
            backtest: None,
            overridden: overridden.map(Into::into),
        }
    }

    async fn promote(&self, entry: &EntryId, to: Stage) {
        let deed = self.promotion(entry, to, Some("a test has no time"));
        self.slots.act(&risk(), deed, ann()).await.unwrap();
    }

    /// What the audit tells of slots, oldest first: `principal action target`.
    async fn audit(&self) -> Vec<String> {
        let entries = self.store.audit_entries(None, 200).await.unwrap();
        let slots = entries.iter().rev().filter(|entry| entry.action.starts_with("slot."));
        slots
            .map(|entry| format!("{} {} {} {:?}", entry.principal, entry.action, entry.target, entry.outcome))
            .collect()
    }
}

/// A plant with a driver that scores nodes.
struct Fleet {
    plant: Plant,
    control: Control,
    url: String,
    stop: CancellationToken,
    nodes: Vec<(mpsc::Sender<ClientFrame>, Streaming<ServerFrame>)>,
    _serving: JoinSet<()>,
}

impl Fleet {
    async fn start(folder: &Path, nodes: usize) -> Self {
        Self::start_with(folder, nodes, |components| Arc::new(components)).await
    }

    async fn start_with(
        folder: &Path,
        nodes: usize,
        panels: impl FnOnce(control::Components) -> Arc<dyn control::Panels>,
    ) -> Self {
        let plant = Plant::open(folder).await;
        let data = folder.join("data");
        let segments = aether_recorder::local_store(&data.join("segments")).unwrap();
        let recorder = Recorder::open(aether_recorder::Settings::default(), segments, clock::now()).await.unwrap();
        let blobs = Blobs::open(blobs::Settings::default(), &data.join("snapshots")).await.unwrap();
        let signer = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        let settings = fabric::Settings { heartbeat_ms: 60_000, ..fabric::Settings::default() };
        let (fabric, events) =
            Fabric::open(settings, plant.store.clone(), recorder.clone(), blobs, signer).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = tonic::service::Routes::new(fabric.service()).into_axum_router();
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        let stop = CancellationToken::new();
        let (slots, store, tasks) = (plant.slots.clone(), plant.store.clone(), plant.tasks.clone());
        let components = control::Components::new(slots, store, recorder.clone(), 2, tasks, stop.clone());
        let parts = control::Parts {
            settings: control::Settings { tick_ms: 100, grace_ms: 0, ..control::Settings::default() },
            posture: Posture::default(),
            hysteresis: Hysteresis::default(),
            guard: GuardLimits::default(),
            breakers: aether_core::breaker::Limits::default(),
            store: plant.store.clone(),
            recorder,
            fabric,
            panels: panels(components),
        };
        let control = Control::start(parts, events, plant.tasks.clone(), stop.clone()).await.unwrap();
        let mut fleet = Self { plant, control, url, stop, nodes: vec![], _serving: serving };
        for number in 0..nodes {
            fleet.join(&format!("node-{number}")).await;
        }
        fleet
    }

    async fn join(&mut self, node: &str) {
        let token = self.plant.store.create_join_token(None, clock::now().plus_ms(600_000)).await.unwrap();
        let channel = Endpoint::from_shared(self.url.clone()).unwrap().connect().await.unwrap();
        let (up, frames) = mpsc::channel(8);
        let frames = tokio_stream::wrappers::ReceiverStream::new(frames);
        let mut down = FabricClient::new(channel).connect(frames).await.unwrap().into_inner();
        let agent = v1::principal::Kind::NodeAgent(v1::NodeAgent { node: node.into() });
        let hello = v1::Hello {
            principal: Some(v1::Principal { kind: Some(agent) }),
            credentials: Some(v1::Credentials { kind: Some(v1::credentials::Kind::JoinToken(token)) }),
            protocol_versions: vec!["1.0".into()],
            software_version: "0.1.0".into(),
            instance_id: format!("instance-of-{node}"),
            boot_id: "boot-1".into(),
            ..v1::Hello::default()
        };
        let frame = ClientFrame {
            sequence: 1,
            sent_at_ms: clock::now().0,
            traceparent: String::new(),
            payload: Some(Up::Hello(hello)),
        };
        up.send(frame).await.unwrap();
        let answer = down.message().await.unwrap().unwrap();
        assert!(matches!(answer.payload, Some(Down::Welcome(_))), "{answer:?}");
        self.nodes.push((up, down));
    }

    /// The newest decision about each node.
    fn decisions(&self) -> Vec<Envelope> {
        let decided = self.control.risks().into_iter().filter_map(|risk| risk.decision);
        decided.filter_map(|id| self.control.recent_decision(&id)).collect()
    }

    /// The newest decisions, once each node was scored under this generation or a later one.
    async fn scored_since(&self, generation: u64) -> Vec<Envelope> {
        until(&format!("all nodes are scored under generation {generation}"), async || {
            let decisions = self.decisions();
            let fresh = decisions.len() == self.nodes.len()
                && decisions.iter().all(|envelope| envelope.generation >= generation);
            fresh.then_some(decisions)
        })
        .await
    }

    async fn close(self) {
        self.stop.cancel();
        drop(self.nodes);
        self.plant.close().await;
    }
}

async fn until<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    #[allow(clippy::disallowed_methods, reason = "a fleet is waited for by the clock")]
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
