//! Sessions with the participants of the fabric: the host's side of the one `Connect` stream.
//!
//! A stream is the session, the lock on its identity, and the heartbeat. This module lets participants in, takes their
//! telemetry to the recorder and acknowledges what is safe, sends signed orders and hands the answers on as
//! [`FabricEvent`]s, and carries snapshots to and from the blobs. It knows what the fleet looks like ([`Fabric::world`])
//! and decides nothing: what should be done, and whether an order was carried out, is `control`'s.
//!
//! Of the typed principals of the contract, node agents are served; the others are refused by name.

mod admission;
mod collection;
mod convert;
mod counters;
mod dead_letters;
mod outgoing;
mod registry;
mod session;
mod settings;
mod snapshots;
mod telemetry;
mod view;

pub use collection::{Collection, Configured};
pub(crate) use counters::frames;
pub use dead_letters::{NotReplayed, Replayed};
pub use settings::{OutOfRange, Settings};
pub use view::{
    Asleep, CapabilityView, Cordon, Glimpse, NodeView, TelemetryView, WorkloadState, WorkloadView, fact_of_label,
};

use crate::{
    blobs::{self, Blobs},
    clock,
    store::{self, Store, nodes::DispatchedRow},
};
use aether_core::{
    audit::Act,
    catalogue::{argument, verb},
    drill::Disturb,
    id::NodeId,
    order::{Direction, IdempotencyKey, Order, Outcome, Provenance},
    plan::{Plan, Step, World},
    snapshot::Manifest,
    time::Time,
    value::Value,
};
use aether_proto::v1::{self, fabric_server::FabricServer, server_frame::Payload};
use aether_recorder::Recorder;
use collection::Collections;
use ed25519_dalek::{Signature, Signer, SigningKey};
pub use outgoing::Frames;
use outgoing::Outgoing;
use registry::{Outstanding, Registry, Report};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use thiserror::Error;
use tokio::{
    sync::{Notify, Semaphore, mpsc, oneshot, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

/// How long an order stays noted when nobody says how it ended.
const DISPATCHED_MS: u64 = 86_400_000;

/// What happened on the fabric that the control driver should know.
#[derive(Clone, Debug, PartialEq)]
pub enum FabricEvent {
    /// A node's session is up.
    Connected(NodeId),
    /// A node's session has ended. `asleep`: it announced that it goes to sleep on order, and fell silent.
    Lost {
        node: NodeId,
        why: String,
        asleep: Option<Asleep>,
    },
    /// A node reported other workloads than before, or others in state or generation.
    WorkloadsChanged(NodeId),
    /// Nothing was done.
    OrderRefused {
        node: NodeId,
        key: IdempotencyKey,
        code: String,
        reason: String,
    },
    /// The order is in the agent's journal.
    OrderAccepted {
        node: NodeId,
        key: IdempotencyKey,
        journal_position: u64,
    },
    OrderProgress {
        node: NodeId,
        key: IdempotencyKey,
        permille: u32,
        note: String,
    },
    /// The order ended. Comes again with every new session until [`Fabric::acknowledge_outcome`].
    OrderFinished {
        node: NodeId,
        key: IdempotencyKey,
        journal_position: u64,
        outcome: Outcome,
    },
}

/// Why an order of [`Fabric::carry_out`] has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct NotCarriedOut {
    pub code: String,
    pub reason: String,
    /// Something may have been done.
    pub begun: bool,
}

/// What became of calling an order off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// Its agent was asked to.
    Asked,
    /// No agent has it, so nothing of it was done.
    NeverSent,
}

/// Why an order was not sent. Nothing was done then.
#[derive(Debug, Error)]
pub enum DispatchError {
    #[error("node `{node}` has no live session; the order was not sent")]
    NotConnected { node: NodeId },
    #[error("node `{node}` does not take what is sent to it; the order was not sent")]
    Slow { node: NodeId },
    #[error("the order does not fit the plan: {0}")]
    Mismatch(&'static str),
    #[error("{limit} orders are outstanding, which is the limit; the order was not sent")]
    TooMany { limit: usize },
    #[error("the host is stopping; the order was not sent")]
    Draining,
    #[error("the order could not be noted; it was not sent")]
    Store(#[source] store::Error),
}

impl DispatchError {
    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotConnected { .. } => "dispatch.not-connected",
            Self::Slow { .. } => "dispatch.slow",
            Self::Mismatch(_) => "dispatch.mismatch",
            Self::TooMany { .. } => "dispatch.too-many",
            Self::Draining => "dispatch.draining",
            Self::Store(_) => "dispatch.store",
        }
    }
}

#[derive(Debug, Error)]
pub enum Error {
    #[error(transparent)]
    Setting(#[from] OutOfRange),
    #[error("what is known of the nodes could not be read")]
    Store(#[from] store::Error),
}

/// What happened, in order. Sessions wait while it is full.
pub type Events = mpsc::Receiver<FabricEvent>;

/// What the parts of the fabric share.
pub(crate) struct Inner {
    settings: Settings,
    store: Store,
    recorder: Recorder,
    blobs: Blobs,
    signer: SigningKey,
    events: mpsc::Sender<FabricEvent>,
    registry: Mutex<Registry>,
    handshakes: Semaphore,
    /// Sessions and what they leave to be done; waited for at the end.
    tasks: TaskTracker,
    /// A session ended.
    left: Notify,
    /// A snapshot is whole.
    snapshot_stored: Notify,
    /// What agents are told to collect; each session watches it.
    /// Shared with the sessions, each of which is handed every change.
    collections: watch::Sender<Arc<Collections>>,
    /// Who waits for the end of an order that belongs to no incident.
    watched: Mutex<BTreeMap<IdempotencyKey, oneshot::Sender<FabricEvent>>>,
}

impl Inner {
    fn watched(&self) -> MutexGuard<'_, BTreeMap<IdempotencyKey, oneshot::Sender<FabricEvent>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the identity back and says so. The news is in the queue before a next session can begin.
    async fn end_session(&self, node: &NodeId, session: &str, why: &session::End) {
        counters::ended(why.code());
        tracing::info!(code = why.code(), why = %why, "the session ends");
        let room = self.events.reserve().await;
        let report = {
            let mut registry = self.registry();
            let held = registry.release(node, session);
            counters::sessions(registry.live());
            let asleep = held.then(|| registry.fell_asleep(node, why.is_silence(), why.is_ours())).flatten();
            if held && let Ok(room) = room {
                room.send(FabricEvent::Lost { node: node.clone(), why: why.to_string(), asleep });
            }
            registry.nodes.get(node).filter(|_| held).map(|known| known.row.report.clone())
        };
        self.left.notify_waiters();
        if let Some(report) = report
            && let Err(error) = self.store.update_node_report(node, &report, clock::now()).await
        {
            tracing::warn!(%error, "when the node was last seen could not be kept");
        }
    }

    /// Serves one stream from its first frame to its end; gives what goes down it.
    fn serve(self: &Arc<Self>, inbound: impl session::Inbound + 'static) -> Frames {
        let (outgoing, receiver) = mpsc::channel(self.settings.outgoing_frames);
        self.tasks.spawn(session::run(self.clone(), inbound, outgoing));
        Frames::new(receiver)
    }
}

/// The fabric. Cheap to clone.
#[derive(Clone)]
pub struct Fabric {
    inner: Arc<Inner>,
}

/// The gRPC service behind [`Fabric::service`].
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

#[tonic::async_trait]
impl v1::fabric_server::Fabric for Service {
    type ConnectStream = Frames;

    async fn connect(&self, request: Request<Streaming<v1::ClientFrame>>) -> Result<Response<Frames>, Status> {
        Ok(Response::new(self.inner.serve(request.into_inner())))
    }
}

/// A W3C trace context for an order: all orders of a plan are one trace.
fn traceparent(order: &Order) -> String {
    let part = |hex: &str, digits: usize| format!("{:0<digits$}", hex.get(..digits).unwrap_or("1"));
    format!("00-{}-{}-01", part(&order.plan.0, 32), part(&order.key.0, 16))
}

/// The node on which a plan restores what the order checkpoints.
fn restored_on(plan: &Plan, order: &Order) -> Option<NodeId> {
    let linked = Value::Integer(i64::from(order.step));
    let restores =
        |step: &&Step| step.verb == verb::RESTORE && step.arguments.get(argument::CHECKPOINT_STEP) == Some(&linked);
    let restore = plan.steps.iter().find(restores)?;
    (order.direction == Direction::Forward && restore.node != order.node).then(|| restore.node.clone())
}

impl Fabric {
    /// Reads what is known of the nodes and of orders that were outstanding when the host last stopped.
    pub async fn open(
        settings: Settings,
        store: Store,
        recorder: Recorder,
        blobs: Blobs,
        signer: SigningKey,
    ) -> Result<(Self, Events), Error> {
        settings.check()?;
        let rows = store.registered_nodes::<Report>().await?;
        let cordons = store.cordons().await?;
        let collections: Collections = store.agent_configs().await?.into_iter().collect();
        let dispatched = store.dispatched(clock::now().minus_ms(DISPATCHED_MS)).await?;
        let (events, receiver) = mpsc::channel(settings.events);
        let inner = Arc::new(Inner {
            registry: Mutex::new(Registry::new(rows, dispatched, cordons)),
            handshakes: Semaphore::new(settings.handshakes_maximum),
            settings,
            store,
            recorder,
            blobs,
            signer,
            events,
            tasks: TaskTracker::new(),
            left: Notify::new(),
            snapshot_stored: Notify::new(),
            collections: watch::Sender::new(Arc::new(collections)),
            watched: Mutex::default(),
        });
        Ok((Self { inner }, receiver))
    }

    /// To be mounted beside REST on the same listener, by `tonic::service::Routes::new(..).into_axum_router()`. No
    /// body limit and no request timeout may lie before it: a stream lasts as long as its session.
    pub fn service(&self) -> FabricServer<Service> {
        // A frame of ours holds at most what a frame of theirs does, a chunk, and its wrapping.
        let frame = self.inner.settings.frame_bytes;
        FabricServer::new(Service { inner: self.inner.clone() })
            .max_decoding_message_size(frame)
            .max_encoding_message_size(aether_proto::FRAME_BYTES_MAXIMUM)
    }

    /// Serves a participant whose frames come otherwise than by gRPC, as in a simulation.
    pub fn serve(
        &self,
        inbound: impl futures::Stream<Item = Result<v1::ClientFrame, Status>> + Unpin + Send + 'static,
    ) -> Frames {
        self.inner.serve(inbound)
    }

    /// What can be targeted now.
    pub fn world(&self) -> World {
        self.world_of(|_| true)
    }

    /// The same of the nodes that are `wanted`, and of what runs on them. Nobody else learns of nodes meanwhile.
    pub fn world_of(&self, wanted: impl FnMut(Glimpse<'_>) -> bool) -> World {
        self.inner.registry().world(wanted)
    }

    /// Looks over all nodes, in order of id, and copies none. Nobody else learns of nodes meanwhile.
    pub fn survey<T>(&self, look: impl FnOnce(&mut dyn Iterator<Item = Glimpse<'_>>) -> T) -> T {
        look(&mut self.inner.registry().glimpses())
    }

    /// What outstanding orders need of the snapshot store.
    pub fn snapshots_needed(&self) -> blobs::Needed {
        self.inner.snapshots_needed()
    }

    /// Comes back when a snapshot was stored since this was asked last.
    pub async fn snapshot_stored(&self) {
        self.inner.snapshot_stored.notified().await;
    }

    /// Whether this host signed a manifest.
    pub fn has_signed(&self, signed: &blobs::Signed) -> bool {
        let signature = Signature::from_bytes(&signed.signature);
        self.inner.signer.verifying_key().verify_strict(&Manifest::signed_bytes(&signed.manifest), &signature).is_ok()
    }

    /// All known nodes, in order of id.
    pub fn nodes(&self) -> Vec<NodeView> {
        let registry = self.inner.registry();
        registry.nodes.values().map(|node| self.view(&registry, node)).collect()
    }

    pub fn node(&self, node: &NodeId) -> Option<NodeView> {
        let registry = self.inner.registry();
        registry.nodes.get(node).map(|node| self.view(&registry, node))
    }

    /// Sets a person's cordon where there is none, or lifts it. Returns once it is on disk and in the audit; false if there
    /// was nothing to change.
    pub async fn set_cordon(
        &self,
        node: &NodeId,
        cordon: Option<Cordon>,
        at: Time,
        act: Act,
    ) -> Result<bool, store::Error> {
        let changed = self.inner.store.set_cordon(node, cordon.as_ref(), at, act).await?;
        if changed {
            self.inner.registry().set_cordon(node, cordon);
        }
        Ok(changed)
    }

    /// What people want of agents' telemetry now.
    pub fn agent_configs(&self) -> Vec<Configured> {
        self.inner.collections.borrow().in_force()
    }

    /// Has agents collect otherwise. Returns once it is on disk and in the audit; every session tells its agent then.
    pub async fn configure_agents(&self, word: Configured, act: Act) -> Result<Configured, store::Error> {
        let word = self.inner.store.configure_agents(word, act).await?;
        self.inner.collections.send_modify(|all| Arc::make_mut(all).put(word.clone()));
        Ok(word)
    }

    fn view(&self, registry: &Registry, node: &registry::Node) -> NodeView {
        let safe = self.inner.recorder.safe(&node.row.id);
        let safe = safe.borrow();
        registry.view(node, safe.as_ref())
    }

    /// Signs the order and sends it with the plan to `order.node`. `Ok` means sent, not accepted. A repeat is fine: the
    /// agent answers it with what it has recorded.
    pub async fn dispatch(&self, plan: &Plan, order: Order) -> Result<(), DispatchError> {
        self.send(plan, order, false).await
    }

    /// The same of a step whose reservation is in the ledger: nothing more is written of it before it is sent. Whether
    /// this host drives still is asked once more: it may have stood still since.
    pub async fn dispatch_reserved(&self, plan: &Plan, order: Order) -> Result<(), DispatchError> {
        self.send(plan, order, true).await
    }

    async fn send(&self, plan: &Plan, order: Order, reserved: bool) -> Result<(), DispatchError> {
        let verb = verb_of(plan, &order)?;
        let node = order.node.clone();
        let row = DispatchedRow {
            key: order.key.clone(),
            node: node.clone(),
            verb: verb.to_owned(),
            inputs: order.inputs.clone(),
            at: clock::now(),
        };
        let limit = self.inner.settings.orders_outstanding;
        let (outgoing, known) = {
            let registry = self.inner.registry();
            if registry.draining.is_some() {
                return Err(DispatchError::Draining);
            }
            let outgoing =
                registry.outgoing(&node).ok_or_else(|| DispatchError::NotConnected { node: node.clone() })?;
            let known = registry.orders.contains_key(&order.key);
            if !known && registry.orders.len() >= limit {
                counters::limit("orders_outstanding");
                return Err(DispatchError::TooMany { limit });
            }
            (outgoing, known)
        };
        let noted = match reserved {
            true => self.inner.store.drives().await,
            false => self.inner.store.note_dispatched(&row).await,
        };
        noted.map_err(DispatchError::Store)?;
        // What the agent sends on account of this order may come before this method returns.
        let outstanding = Outstanding { row, ended: false, ahead: restored_on(plan, &order) };
        self.inner.registry().orders.insert(order.key.clone(), outstanding);
        let signature = self.inner.signer.sign(&order.signed_bytes()).to_bytes().to_vec();
        let dispatch = v1::Dispatch { plan: plan.canonical(), order: aether_core::plan::canonical(&order), signature };
        let frame =
            Outgoing::Frame { payload: Payload::Dispatch(dispatch), traceparent: traceparent(&order), slot: None };
        let sent = match timeout(self.inner.settings.dead_after(), outgoing.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(DispatchError::NotConnected { node: node.clone() }),
            Err(_) => Err(DispatchError::Slow { node: node.clone() }),
        };
        match sent {
            Ok(()) => {
                counters::order("dispatched");
                tracing::info!(node.id = %node, order.key = %order.key, plan.hash = order.plan.short(), verb, "an order was sent");
                Ok(())
            }
            Err(error) => {
                // An earlier sending may have arrived: then it stays outstanding.
                if !known {
                    self.inner.registry().orders.remove(&order.key);
                }
                if !known && !reserved {
                    self.forget(order.key);
                }
                Err(error)
            }
        }
    }

    /// Sends an order that belongs to no incident, and waits for its end, which nobody else is told of.
    pub async fn carry_out(&self, plan: &Plan, order: Order, within: Duration) -> Result<Outcome, NotCarriedOut> {
        let (node, key) = (order.node.clone(), order.key.clone());
        let (told, ended) = oneshot::channel();
        self.inner.watched().insert(key.clone(), told);
        let not = |code: &str, reason: String, begun| NotCarriedOut { code: code.into(), reason, begun };
        let result = match self.dispatch(plan, order).await {
            Err(error) => Err(not(error.code(), error.to_string(), false)),
            Ok(()) => match timeout(within, ended).await {
                Ok(Ok(FabricEvent::OrderFinished { outcome, .. })) => Ok(outcome),
                Ok(Ok(FabricEvent::OrderRefused { code, reason, .. })) => Err(not(&code, reason, false)),
                Ok(Ok(_) | Err(_)) => Err(not("host.stopping", "the host is stopping".into(), true)),
                Err(_) => {
                    drop(self.cancel(&node, &key, "nobody waits for it any more").await);
                    Err(not("order.silent", format!("`{node}` did not say in time how it ended"), true))
                }
            },
        };
        self.inner.watched().remove(&key);
        self.acknowledge_outcome(&node, &key);
        result
    }

    /// Has a node's agent begin or end a drill. `Ok` means sent: how it stands are facts of the agent's report.
    pub async fn disturb(&self, disturb: &Disturb) -> Result<(), DispatchError> {
        let node = &disturb.node;
        let outgoing = self.inner.registry().outgoing(node);
        let outgoing = outgoing.ok_or_else(|| DispatchError::NotConnected { node: node.clone() })?;
        let signature = self.inner.signer.sign(&disturb.signed_bytes()).to_bytes().to_vec();
        let drill = Payload::Drill(v1::Drill { order: aether_core::plan::canonical(disturb), signature });
        match timeout(self.inner.settings.dead_after(), outgoing.send(drill.into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(DispatchError::NotConnected { node: node.clone() }),
            Err(_) => Err(DispatchError::Slow { node: node.clone() }),
        }
    }

    /// Asks the agent to give an order up. What comes of it arrives as its outcome; that it never came to the agent, as
    /// a refusal.
    pub async fn cancel(&self, node: &NodeId, key: &IdempotencyKey, reason: &str) -> Result<Cancelled, DispatchError> {
        let outgoing = {
            let registry = self.inner.registry();
            if !registry.orders.contains_key(key) {
                return Ok(Cancelled::NeverSent);
            }
            registry.outgoing(node)
        };
        let outgoing = outgoing.ok_or_else(|| DispatchError::NotConnected { node: node.clone() })?;
        let cancel = Payload::Cancel(v1::Cancel { key: key.0.clone(), reason: reason.into() });
        match timeout(self.inner.settings.dead_after(), outgoing.send(cancel.into())).await {
            Ok(Ok(())) => Ok(Cancelled::Asked),
            Ok(Err(_)) => Err(DispatchError::NotConnected { node: node.clone() }),
            Err(_) => Err(DispatchError::Slow { node: node.clone() }),
        }
    }

    /// To be called once the end of an order (outcome or refusal) is in the journal: the agent need not send it again.
    pub fn acknowledge_outcome(&self, node: &NodeId, key: &IdempotencyKey) {
        let outgoing = {
            let mut registry = self.inner.registry();
            registry.orders.remove(key);
            registry.outgoing(node)
        };
        if let Some(outgoing) = outgoing {
            let ack = Payload::DispatchStateAck(v1::DispatchStateAck { key: key.0.clone() });
            // If there is no room the agent says it again with its next session, and is told then.
            drop(outgoing.try_send(ack.into()));
        }
        self.forget(key.clone());
    }

    fn forget(&self, key: IdempotencyKey) {
        let fabric = self.inner.clone();
        self.inner.tasks.spawn(async move {
            if let Err(error) = fabric.store.forget_dispatched(&key).await {
                tracing::warn!(%error, order.key = %key, "a settled order stays noted until it is a day old");
            }
        });
    }

    /// Asks all participants to leave, waits for `drain_ms`, and ends what is left. Later streams are refused.
    pub async fn drain(&self, reason: &str) {
        let drain_ms = self.inner.settings.drain_ms;
        let deadline = Instant::now() + Duration::from_millis(drain_ms);
        let deadline_ms = clock::now().plus_ms(drain_ms).0;
        let outgoing: Vec<_> = {
            let mut registry = self.inner.registry();
            registry.draining = Some(reason.to_owned());
            registry.nodes.values().filter_map(|node| Some(node.live.as_ref()?.outgoing.clone())).collect()
        };
        for outgoing in outgoing {
            // Who has no room for it is ended at the deadline.
            drop(outgoing.try_send(Payload::Drain(v1::Drain { deadline_ms, reason: reason.into() }).into()));
        }
        let all_left = async {
            loop {
                let left = self.inner.left.notified();
                tokio::pin!(left);
                left.as_mut().enable();
                if self.inner.registry().live() == 0 {
                    return;
                }
                left.await;
            }
        };
        if timeout_at(deadline, all_left).await.is_err() {
            for node in self.inner.registry().nodes.values() {
                if let Some(live) = &node.live {
                    live.end.cancel();
                }
            }
        }
        self.inner.tasks.close();
        // Work on blobs and the store is short; streams at their `Hello` end by themselves.
        let rest = Duration::from_millis(self.inner.settings.hello_ms.min(2_000));
        if timeout(rest, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.inner.tasks.len(), "some sessions did not end in time");
        }
    }
}

/// The verb that an order orders, if it is what the plan says.
fn verb_of<'a>(plan: &'a Plan, order: &Order) -> Result<&'a str, DispatchError> {
    if plan.hash() != order.plan {
        return Err(DispatchError::Mismatch("it names another plan"));
    }
    let step = usize::try_from(order.step).ok().and_then(|step| plan.steps.get(step));
    let step = step.ok_or(DispatchError::Mismatch("the plan has no such step"))?;
    if plan.key(order.step, order.direction).as_ref() != Some(&order.key) {
        return Err(DispatchError::Mismatch("its key is not that of the step"));
    }
    let (verb, node) = match order.direction {
        Direction::Forward => (&step.verb, &step.node),
        Direction::Compensate => {
            let undo = step.compensation.as_ref().ok_or(DispatchError::Mismatch("the step has no compensation"))?;
            (&undo.verb, &undo.node)
        }
    };
    if *node != order.node {
        return Err(DispatchError::Mismatch("it is for another node than the step"));
    }
    if order.target != step.target {
        return Err(DispatchError::Mismatch("it is for another target than the step"));
    }
    if order.decided_by != Provenance::of(plan) {
        return Err(DispatchError::Mismatch("it names other components or another policy than the plan"));
    }
    Ok(verb)
}
