//! Orders: read, checked, journaled, carried out, answered.
//!
//! At most once: an order is in the journal, synced, before anything of it is begun; a repeat is answered with what
//! was recorded, and never begins it again. Orders for different targets run side by side, up to a limit.
//!
//! [`check`] is pure, [`journal`] remembers, [`verbs`] and [`control`] do, [`hands`] touches workloads.

pub mod address;
pub mod check;
pub mod control;
pub mod criu;
pub mod cuda;
pub mod hands;
pub mod images;
pub mod journal;
pub mod outside;
pub mod pages;
pub mod preflight;
pub mod rehearsal;
pub mod run;
pub mod snapshot;
pub mod verbs;

use crate::{
    blocking::blocking,
    clock,
    collect::Latest,
    uplink::{Inbound, Link},
    workloads::{Entry, Registry},
};
use aether_core::{
    catalogue::verb,
    id::NodeId,
    order::{IdempotencyKey, Outcome},
    subject::Target,
};
use aether_proto::v1::{self, dispatch_state::State};
use check::{Here, Refusal, Task, refuse};
use ed25519_dalek::VerifyingKey;
use journal::{Accepted, Journal};
use run::Run;
use std::{collections::BTreeMap, sync::Arc};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use verbs::Executor;

/// What carries orders out that were admitted: [`Executor`], or what a simulation puts in its place.
#[tonic::async_trait]
pub trait Work: Send + Sync {
    /// Whether what is here allows for it.
    fn ready(&self, task: &Task) -> Result<(), Refusal>;

    /// The outcome of an order that a crash cut short; none if it may simply be run again.
    fn settle(&self, task: &Task, phase: Option<&str>) -> Option<Outcome>;

    /// Carries an order out to its end. Panics where its thread does.
    async fn carry_out(self: Arc<Self>, run: Run) -> Outcome;

    /// After all that a crash cut short is settled: nothing of it is needed any more.
    fn forget_all_images(&self);
}

#[tonic::async_trait]
impl Work for Executor {
    fn ready(&self, task: &Task) -> Result<(), Refusal> {
        Executor::ready(self, task)
    }

    fn settle(&self, task: &Task, phase: Option<&str>) -> Option<Outcome> {
        Executor::settle(self, task, phase)
    }

    async fn carry_out(self: Arc<Self>, run: Run) -> Outcome {
        match tokio::task::spawn_blocking(move || Executor::carry_out(&self, &run)).await {
            Ok(outcome) => outcome,
            Err(error) => std::panic::resume_unwind(match error.try_into_panic() {
                Ok(panic) => panic,
                Err(cancelled) => Box::new(cancelled.to_string()),
            }),
        }
    }

    fn forget_all_images(&self) {
        Executor::forget_all_images(self);
    }
}

/// Takes orders from the uplink, one after the other, and has them carried out beside it.
pub struct Desk {
    pub node: NodeId,
    pub journal: Arc<Journal>,
    pub registry: Arc<Registry>,
    pub executor: Arc<dyn Work>,
    pub link: Link,
    pub host_key: watch::Receiver<Option<VerifyingKey>>,
    /// This node's generation, as the host last said.
    pub generation: watch::Receiver<Option<u64>>,
    /// The newest lease of a host that this agent was welcomed under.
    pub lease: watch::Receiver<u64>,
    pub latest: Latest,
    pub concurrent_maximum: usize,
}

struct Running {
    target: Target,
    cancel: CancellationToken,
    /// Nothing else is done while it is.
    alone: bool,
    confirmed: watch::Sender<bool>,
}

/// A machine that is put to sleep has nothing else under way.
fn is_alone(task: &Task) -> bool {
    task.verb == verb::SLEEP && !task.dry_run
}

/// What an order came to, for the answer.
struct Finished {
    key: IdempotencyKey,
    outcome: Outcome,
    position: u64,
}

impl Desk {
    /// Settles what a crash cut short, then takes orders until `shutdown`; orders under way are then called off, and
    /// their outcomes journaled.
    pub async fn run(self, mut inbound: mpsc::Receiver<Inbound>, shutdown: CancellationToken) {
        let mut running: BTreeMap<IdempotencyKey, Running> = BTreeMap::new();
        let mut work: JoinSet<Finished> = JoinSet::new();
        for task in self.settle().await {
            self.begin(task, &mut running, &mut work);
        }
        loop {
            tokio::select! {
                // What has ended makes room for what comes.
                biased;
                () = shutdown.cancelled() => break,
                Some(finished) = work.join_next(), if !work.is_empty() => self.finish(finished, &mut running).await,
                Some(inbound) = inbound.recv() => match inbound {
                    Inbound::Connected => self.tell_again(&running).await,
                    Inbound::Dispatch(dispatch) => self.dispatch(*dispatch, &mut running, &mut work).await,
                    Inbound::Cancel(v1::Cancel { key, reason }) => {
                        self.call_off(IdempotencyKey(key), reason, &running).await;
                    }
                    Inbound::Acknowledged(v1::DispatchStateAck { key }) => {
                        let key = IdempotencyKey(key);
                        // What is under way has told something that is no outcome.
                        if let Some(order) = running.get(&key) {
                            order.confirmed.send_replace(true);
                            continue;
                        }
                        let journal = self.journal.clone();
                        let kept = blocking(move || journal.acknowledged(&key)).await;
                        if let Some(Err(error)) = kept {
                            warn!(%error, "an acknowledgement could not be kept; the outcome will be told once more");
                        }
                    }
                },
            }
        }
        for order in running.values() {
            order.cancel.cancel();
        }
        while let Some(finished) = work.join_next().await {
            self.finish(finished, &mut running).await;
        }
    }

    /// Gives each order that a crash cut short its outcome; what may be run again is given back.
    async fn settle(&self) -> Vec<Task> {
        let mut again = Vec::new();
        for known in self.journal.unfinished() {
            let accepted = known.accepted;
            let task = match check::meaning(accepted.plan.as_bytes(), accepted.order.as_bytes(), &self.node) {
                Ok(task) => task,
                Err(refusal) => {
                    error!(%refusal, key = %accepted.key, "an order of the journal is not understood any more; a person must look");
                    continue;
                }
            };
            let (executor, journal) = (self.executor.clone(), self.journal.clone());
            let settled = blocking(move || match executor.settle(&task, known.phase.as_deref()) {
                Some(outcome) => {
                    warn!(verb = task.verb, target = %task.target, code = outcome.code, outcome.message,
                        "an order was cut short by the end of the agent, and is settled now");
                    journal.outcome(&task.order.key, outcome).map(|_| None)
                }
                None => Ok(Some(task)),
            });
            match settled.await {
                Some(Ok(task)) => again.extend(task),
                Some(Err(error)) => error!(%error, "the outcome of an order cannot be journaled"),
                None => {}
            }
        }
        let executor = self.executor.clone();
        blocking(move || executor.forget_all_images()).await;
        again
    }

    async fn dispatch(
        &self,
        dispatch: v1::Dispatch,
        running: &mut BTreeMap<IdempotencyKey, Running>,
        work: &mut JoinSet<Finished>,
    ) {
        let host_key = *self.host_key.borrow();
        let task = match check::read(&dispatch, host_key.as_ref(), &self.node) {
            Ok(task) => task,
            Err(refusal) => {
                return self.tell_refused(check::claimed_key(&dispatch), 0, refusal.code, refusal.reason).await;
            }
        };
        let key = task.order.key.clone();
        if let Some(known) = self.journal.get(&key) {
            info!(key = %key, verb = task.verb, "a repeat is answered with what was recorded");
            return match known.outcome {
                Some(outcome) => self.tell_outcome(&key, known.position, &outcome).await,
                None => self.tell(&key, known.position, State::Accepted(v1::OrderAccepted {})).await,
            };
        }
        if let Some((code, reason)) = self.journal.refusal(&key, &task.order.nonce) {
            return self.tell_refused(key.0, 0, &code, reason).await;
        }
        if let Err(refusal) = self.admit(&task, running).await {
            warn!(verb = task.verb, target = %task.target, code = refusal.code, refusal.reason, "an order is refused");
            let (journal, nonce) = (self.journal.clone(), task.order.nonce.clone());
            let Refusal { code, reason } = refusal.clone();
            let refused = key.clone();
            let kept = blocking(move || journal.refuse(&refused, &nonce, code, &reason)).await;
            let position = kept.and_then(Result::ok).unwrap_or(0);
            return self.tell_refused(key.0, position, refusal.code, refusal.reason).await;
        }
        let accepted = Accepted {
            key: key.clone(),
            verb: task.verb.clone(),
            target: task.target.clone(),
            fence: task.order.fence,
            // Both were read as JSON, so they are text.
            plan: String::from_utf8_lossy(&dispatch.plan).into_owned(),
            order: String::from_utf8_lossy(&dispatch.order).into_owned(),
            at: clock::now(),
        };
        let journal = self.journal.clone();
        match blocking(move || journal.accept(accepted)).await {
            Some(Ok(position)) => {
                info!(verb = task.verb, target = %task.target, plan.hash = task.order.plan.short(), "an order is taken");
                self.begin(task, running, work);
                self.tell(&key, position, State::Accepted(v1::OrderAccepted {})).await;
            }
            Some(Err(error)) => {
                let reason = format!("it cannot be journaled ({error}), and nothing is begun that is not");
                self.tell_refused(key.0, 0, "agent.journal", reason).await;
            }
            None => {}
        }
    }

    /// Gives an order up that is under way. One that has not come must not begin when it does: orders and their calling
    /// off may arrive in different sessions.
    async fn call_off(&self, key: IdempotencyKey, reason: String, running: &BTreeMap<IdempotencyKey, Running>) {
        if let Some(order) = running.get(&key) {
            info!(reason, target = %order.target, "an order is called off by the host");
            return order.cancel.cancel();
        }
        if let Some(known) = self.journal.get(&key) {
            info!(key = %key, "an order is called off that has ended");
            if let Some(outcome) = known.outcome {
                self.tell_outcome(&key, known.position, &outcome).await;
            }
            return;
        }
        let (code, text) = ("order.cancelled", format!("it was called off before it came here: {reason}"));
        let (journal, refused, why) = (self.journal.clone(), key.clone(), text.clone());
        let kept = blocking(move || match journal.refusal(&refused, "") {
            Some(_) => Ok(0),
            None => journal.refuse_all(&refused, code, &why),
        });
        match kept.await {
            Some(Ok(position)) => self.tell_refused(key.0, position, code, text).await,
            // Unanswered, it is called off again with the next session.
            Some(Err(error)) => error!(%error, key = %key, "that an order is called off cannot be journaled"),
            None => {}
        }
    }

    async fn admit(&self, task: &Task, running: &BTreeMap<IdempotencyKey, Running>) -> Result<(), Refusal> {
        if running.values().any(|order| order.target.subject() == task.target.subject()) {
            return refuse("agent.busy", format!("another order for {} is under way", task.target.subject()));
        }
        if running.len() >= self.concurrent_maximum {
            return refuse("agent.busy", format!("{} orders are under way, and no more are taken", running.len()));
        }
        if running.values().any(|order| order.alone) {
            return refuse("agent.busy", "this node is about to sleep, or sleeps");
        }
        if is_alone(task) && !running.is_empty() {
            return refuse(
                "agent.busy",
                format!("{} other orders are under way, so this node must not sleep", running.len()),
            );
        }
        let registry = self.registry.clone();
        let workload = task.workload.clone();
        let looked = blocking(move || (registry.get(&workload), registry.generation(&workload))).await;
        let (entry, generation) = looked.unwrap_or_default();
        self.check(task, entry.as_ref(), generation)?;
        let (executor, task) = (self.executor.clone(), task.clone());
        let ready = blocking(move || executor.ready(&task)).await;
        ready.unwrap_or_else(|| refuse("agent.broken", "whether it can be done here could not be looked at"))
    }

    /// What depends on the time and on what is here.
    fn check(&self, task: &Task, entry: Option<&Entry>, generation: Option<u64>) -> Result<(), Refusal> {
        let latest = |condition: &aether_core::decision::Condition| {
            self.latest.get(&condition.target.subject(), &condition.metric)
        };
        let fence = self.journal.fence(&task.target);
        let node_generation = *self.generation.borrow();
        let lease = *self.lease.borrow();
        check::admit(
            task,
            &Here { now: clock::now(), lease, fence, entry, generation, node_generation, latest: &latest },
        )
    }

    fn begin(&self, task: Task, running: &mut BTreeMap<IdempotencyKey, Running>, work: &mut JoinSet<Finished>) {
        let key = task.order.key.clone();
        let cancel = CancellationToken::new();
        let (confirmed, heard) = watch::channel(false);
        let (target, alone) = (task.target.clone(), is_alone(&task));
        running.insert(key.clone(), Running { target, cancel: cancel.clone(), alone, confirmed });
        let host_key = *self.host_key.borrow();
        let run = Run::new(task, self.journal.clone(), self.link.clone(), host_key, Handle::current(), cancel, heard);
        let (executor, journal) = (self.executor.clone(), self.journal.clone());
        work.spawn(async move {
            let outcome = executor.carry_out(run).await;
            let (ended, kept) = (key.clone(), outcome.clone());
            let position = match blocking(move || journal.outcome(&ended, kept)).await {
                Some(Ok(position)) => position,
                Some(Err(error)) => {
                    error!(%error, key = %key, "the outcome of an order cannot be journaled; it is told all the same");
                    0
                }
                None => 0,
            };
            Finished { key, outcome, position }
        });
    }

    async fn finish(
        &self,
        finished: Result<Finished, tokio::task::JoinError>,
        running: &mut BTreeMap<IdempotencyKey, Running>,
    ) {
        match finished {
            Ok(Finished { key, outcome, position }) => {
                running.remove(&key);
                info!(key = %key, status = ?outcome.status, code = outcome.code, outcome.message, "an order has ended");
                self.tell_outcome(&key, position, &outcome).await;
            }
            // The journal has it as unfinished: the next start of the agent settles it.
            Err(error) => error!(%error, "an order's executor failed; restart the agent to have it settled"),
        }
    }

    /// On a new stream: what the host may have missed.
    async fn tell_again(&self, running: &BTreeMap<IdempotencyKey, Running>) {
        for known in self.journal.untold() {
            if let Some(outcome) = &known.outcome {
                self.tell_outcome(&known.accepted.key, known.position, outcome).await;
            }
        }
        for key in running.keys() {
            if let Some(known) = self.journal.get(key) {
                self.tell(key, known.position, State::Accepted(v1::OrderAccepted {})).await;
            }
        }
    }

    async fn tell_outcome(&self, key: &IdempotencyKey, position: u64, outcome: &Outcome) {
        let outcome = serde_json::to_vec(outcome).unwrap_or_default();
        self.tell(key, position, State::Outcome(v1::OrderOutcome { outcome })).await;
    }

    async fn tell_refused(&self, key: String, position: u64, code: &str, reason: String) {
        let refused = v1::OrderRefused { code: code.into(), reason };
        self.tell(&IdempotencyKey(key), position, State::Refused(refused)).await;
    }

    async fn tell(&self, key: &IdempotencyKey, journal_position: u64, state: State) {
        self.link.tell(v1::DispatchState { key: key.0.clone(), journal_position, state: Some(state) }).await;
    }
}
