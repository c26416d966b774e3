//! One session: the loop that reads a participant's frames, answers them, and ends with a reason.
//!
//! Everything in it is bounded. When the host is behind (no slot for another chunk, no room in the queue of events) it
//! stops reading, and the stream's own flow control holds the participant back. A participant that does not take what
//! is sent to it loses its session.

use super::{
    FabricEvent, Inner,
    admission::{Admitted, Refusal, admit},
    collection::Collections,
    convert::{self, shown},
    counters,
    outgoing::Outgoing,
    registry::{Pulse, Report},
    snapshots::{self, Readable},
    telemetry::{Intake, Verdict},
    view::Asleep,
};
use crate::clock;
use aether_core::{
    catalogue::verb,
    id::NodeId,
    order::{IdempotencyKey, Outcome},
    plan::PlanHash,
    time::Time,
};
use aether_proto::v1::{self, ClientFrame, client_frame, dispatch_state, server_frame::Payload};
use aether_recorder::Safe;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use std::{sync::Arc, time::Duration};
use thiserror::Error;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::WatchStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Status;
use tracing::Instrument;

/// Bytes of one outcome.
const OUTCOME_BYTES: usize = 64 << 10;
/// How many times the time of death a participant may leave large frames untaken.
const STALL_FACTOR: u32 = 10;

/// The frames of a participant: a gRPC stream, or what stands for one.
pub(crate) trait Inbound: Stream<Item = Result<ClientFrame, Status>> + Unpin + Send {}
impl<S: Stream<Item = Result<ClientFrame, Status>> + Unpin + Send> Inbound for S {}

/// How a session ended.
#[derive(Debug, Error)]
pub(crate) enum End {
    #[error("the agent closed its stream")]
    Closed,
    #[error("the agent left as it was asked to")]
    Drained,
    #[error("the stream broke: {0}")]
    Broken(String),
    #[error("nothing was heard of the agent for {0} ms")]
    Silent(u128),
    #[error("frame {got} came where {expected} should have: the stream is not whole")]
    Sequence { expected: u64, got: u64 },
    #[error("`{0}` is not to be sent within a session")]
    Protocol(&'static str),
    #[error("the agent did not take what was sent to it for {0} ms")]
    Slow(u128),
    #[error("the session was ended by the host: {0}")]
    Ended(String),
    #[error("the host is stopping")]
    Stopping,
}

impl End {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            End::Closed => "closed",
            End::Drained => "drained",
            End::Broken(_) => "broken",
            End::Silent(_) => "silent",
            End::Sequence { .. } => "sequence",
            End::Protocol(_) => "protocol",
            End::Slow(_) => "slow",
            End::Ended(_) => "replaced",
            End::Stopping => "stopping",
        }
    }

    /// Nothing came any more, or nothing was taken: as of a machine that sleeps.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, End::Silent(_) | End::Slow(_))
    }

    /// This host ended it, and what the participant does is not to be seen from it.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self, End::Stopping)
    }

    /// What the participant is told, unless it left by itself.
    fn status(&self) -> Option<Status> {
        let text = self.to_string();
        match self {
            End::Closed | End::Drained => None,
            End::Broken(_) | End::Stopping => Some(Status::unavailable(text)),
            End::Silent(_) | End::Slow(_) => Some(Status::deadline_exceeded(text)),
            End::Sequence { .. } => Some(Status::data_loss(text)),
            End::Protocol(_) => Some(Status::failed_precondition(text)),
            End::Ended(_) => Some(Status::aborted(text)),
        }
    }
}

pub(crate) fn ack(safe: &Safe) -> v1::TelemetryAck {
    let beyond = safe.beyond.iter().map(|&(first, last)| v1::SequenceRange { first, last }).collect();
    v1::TelemetryAck { epoch: safe.epoch, sequence: safe.sequence, beyond }
}

/// A W3C trace context, if it is one.
fn trace_of(traceparent: &str) -> Option<&str> {
    let parts: Vec<&str> = traceparent.splitn(4, '-').collect();
    let lengths = parts.iter().map(|part| part.len()).eq([2, 32, 16, 2]);
    let hex = traceparent.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    (lengths && hex).then_some(traceparent)
}

/// One stream from its first frame to its end.
pub(crate) async fn run(fabric: Arc<Inner>, mut inbound: impl Inbound, outgoing: mpsc::Sender<Outgoing>) {
    let admitted = match greet(&fabric, &mut inbound, &outgoing).await {
        Ok(admitted) => admitted,
        Err(Refusal { code, reason, retry_after_ms }) => {
            counters::refused(code);
            tracing::warn!(code, reason, retry_after_ms, "a stream was refused");
            let refused = Payload::Refused(v1::Refused { code: code.into(), reason, retry_after_ms });
            // The queue is new, so there is room; that the other side is gone already is no matter.
            drop(outgoing.try_send(refused.into()));
            return;
        }
    };
    let Admitted { node, session: id, end, pulse, pushed_aside, collections, welcome } = admitted;
    let heartbeat = Duration::from_millis(welcome.host_heartbeat_ms.into());
    let span = tracing::info_span!("fabric.session", node.id = %node, session.id = %id);
    let begin = async {
        if outgoing.try_send(Payload::Welcome(welcome).into()).is_err() {
            fabric.end_session(&node, &id, &End::Closed).await;
            return None;
        }
        // The news of a session goes into the queue before any of its own.
        let room = fabric.events.reserve().await;
        {
            let mut registry = fabric.registry();
            if let Some(live) = registry.nodes.get_mut(&node).and_then(|known| known.live.as_mut())
                && live.session == id
            {
                live.ready = true;
            }
        }
        if let Ok(room) = room {
            room.send(FabricEvent::Connected(node.clone()));
        }
        tracing::info!(pushed_aside, "a session begins");
        let slots = usize::try_from(fabric.settings.chunks_in_flight).unwrap_or(1);
        let session = Session {
            intake: Intake::new(node.clone(), &fabric.settings),
            safe: fabric.recorder.safe(&node),
            collections,
            node: node.clone(),
            id: id.clone(),
            pulse,
            end,
            outgoing: outgoing.clone(),
            span: tracing::Span::current(),
            heartbeat,
            said: Instant::now(),
            expected: 2,
            epoch: None,
            pressed: None,
            drained: false,
            slots: Arc::new(Semaphore::new(slots)),
            slot: None,
            transfers: TaskTracker::new(),
            over: CancellationToken::new(),
            readable: Readable::default(),
            fabric: fabric.clone(),
        };
        Some(session)
    };
    let Some(session) = begin.instrument(span.clone()).await else { return };
    // Mostly telemetry, which has nothing to log; to enter the span for each look at it would cost more than to count it.
    let ended = session.serve(inbound).await;
    fabric.end_session(&node, &id, &ended).instrument(span).await;
    if let Some(status) = ended.status() {
        drop(outgoing.try_send(Outgoing::End(status)));
    }
}

async fn greet(
    fabric: &Inner,
    inbound: &mut impl Inbound,
    outgoing: &mpsc::Sender<Outgoing>,
) -> Result<Admitted, Refusal> {
    let Ok(_handshake) = fabric.handshakes.try_acquire() else {
        counters::limit("handshakes_maximum");
        return Err(Refusal::overloaded("streams at their beginning"));
    };
    let hello = Duration::from_millis(fabric.settings.hello_ms);
    let first = match timeout(hello, inbound.try_next()).await {
        Ok(Ok(Some(frame))) => frame,
        Ok(Ok(None)) => return Err(Refusal::hello("the stream was closed before `Hello`")),
        Ok(Err(status)) => {
            return Err(Refusal::hello(format!("the first frame could not be read: {}", shown(status.message()))));
        }
        Err(_) => return Err(Refusal::hello(format!("`Hello` did not come within {} ms", hello.as_millis()))),
    };
    admit(fabric, first, outgoing).await
}

/// What the agent was asked for, and when.
#[derive(Clone, Copy, Debug)]
struct Pressed {
    percent: u32,
    since: Instant,
}

struct Session {
    fabric: Arc<Inner>,
    node: NodeId,
    id: String,
    pulse: Arc<Pulse>,
    end: CancellationToken,
    outgoing: mpsc::Sender<Outgoing>,
    intake: Intake,
    safe: watch::Receiver<Option<Safe>>,
    collections: watch::Receiver<Arc<Collections>>,
    span: tracing::Span,
    /// This host says something as often.
    heartbeat: Duration,
    /// When this loop last sent something.
    said: Instant,
    /// The sequence of the next frame.
    expected: u64,
    /// The epoch that the agent's spool sends; positions of others mean nothing to it.
    epoch: Option<u64>,
    /// The agent was asked to send less.
    pressed: Option<Pressed>,
    drained: bool,
    slots: Arc<Semaphore>,
    /// A slot for the next part of a snapshot; without one nothing is read.
    slot: Option<OwnedSemaphorePermit>,
    transfers: TaskTracker,
    /// The loop has ended.
    over: CancellationToken,
    readable: Readable,
}

impl Session {
    async fn serve(mut self, mut inbound: impl Inbound) -> End {
        let dead_after = self.fabric.settings.dead_after();
        let mut heard = Instant::now();
        // One timer for both silences, set anew only when it rings: a frame comes far more often.
        let alarm = sleep_until(heard + dead_after.min(self.heartbeat));
        let mut silent = false;
        let (end, outgoing) = (self.end.clone(), self.outgoing.clone());
        let (ended, closed) = (end.cancelled(), outgoing.closed());
        // Futures that are kept from one frame to the next: making them anew, each time, costs more than the rest of this.
        let mut safe = WatchStream::from_changes(self.safe.clone());
        let mut collections = WatchStream::from_changes(self.collections.clone());
        tokio::pin!(alarm, ended, closed);
        loop {
            let reading = self.slot.is_some();
            let patience = if reading { dead_after } else { dead_after * STALL_FACTOR };
            let stepped = tokio::select! {
                biased;
                () = &mut ended => Err(self.ended()),
                () = &mut closed => Err(End::Closed),
                // Made only where it is polled.
                slot = async { self.slots.clone().acquire_owned().await }, if !reading => {
                    self.slot = slot.ok();
                    heard = Instant::now();
                    silent = false;
                    Ok(())
                }
                changed = safe.next() => match changed {
                    Some(safe) => self.acknowledge(safe).await,
                    None => Err(End::Stopping),
                },
                Some(collections) = collections.next() => {
                    let config = collections.of(&self.node, &self.fabric.settings);
                    self.send(Payload::AgentConfig(config)).await
                }
                () = &mut alarm => {
                    let now = Instant::now();
                    // What came meanwhile is read before that counts.
                    silent = now >= heard + patience;
                    let due = now >= self.said + self.heartbeat;
                    let sent = if due { self.send(Payload::Heartbeat(v1::Heartbeat {})).await } else { Ok(()) };
                    // Patience is less when the next part of a snapshot has its slot.
                    let beat = (self.said + self.heartbeat).min(now + dead_after);
                    alarm.as_mut().reset(if silent { beat } else { beat.min(heard + patience) });
                    sent
                }
                frame = inbound.try_next(), if reading => match frame {
                    Ok(Some(frame)) => {
                        let taken = self.take(frame).await;
                        // Waiting for room of ours is not the agent's silence.
                        heard = Instant::now();
                        silent = false;
                        taken
                    }
                    Ok(None) if self.drained => Err(End::Drained),
                    Ok(None) => Err(End::Closed),
                    Err(status) => Err(End::Broken(shown(status.message()))),
                },
                () = std::future::ready(()), if silent => Err(if reading {
                    End::Silent(patience.as_millis())
                } else {
                    End::Slow(patience.as_millis())
                }),
            };
            if let Err(ended) = stepped {
                // Parts under way finish; answers that nobody takes are dropped.
                self.over.cancel();
                self.transfers.close();
                self.transfers.wait().await;
                return ended;
            }
        }
    }

    fn ended(&self) -> End {
        if self.fabric.registry().draining.is_some() {
            End::Stopping
        } else {
            End::Ended("another session of this node took over".into())
        }
    }

    async fn send(&mut self, payload: impl Into<Outgoing>) -> Result<(), End> {
        self.said = Instant::now();
        let patience = self.fabric.settings.dead_after();
        match timeout(patience, self.outgoing.send(payload.into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Closed),
            Err(_) => {
                counters::limit("outgoing_frames");
                Err(End::Slow(patience.as_millis()))
            }
        }
    }

    /// Hands an event on; waits while the queue is full, unless the session is ended meanwhile.
    async fn tell(&self, event: FabricEvent) -> Result<(), End> {
        if self.fabric.events.capacity() == 0 {
            counters::limit("events");
        }
        tokio::select! {
            biased;
            sent = self.fabric.events.send(event) => sent.map_err(|_| End::Stopping),
            () = self.end.cancelled() => Err(self.ended()),
        }
    }

    async fn acknowledge(&mut self, safe: Option<Safe>) -> Result<(), End> {
        match safe.as_ref().filter(|safe| self.epoch == Some(safe.epoch)).map(ack) {
            Some(ack) => self.send(Payload::TelemetryAck(ack)).await,
            None => Ok(()),
        }
    }

    async fn take(&mut self, frame: ClientFrame) -> Result<(), End> {
        let ClientFrame { sequence, sent_at_ms, traceparent, payload } = frame;
        if sequence != self.expected {
            return Err(End::Sequence { expected: self.expected, got: sequence });
        }
        self.expected += 1;
        self.fabric.registry().beat(&self.pulse, clock::now(), sent_at_ms);
        let span = match trace_of(&traceparent) {
            Some(traceparent) => tracing::info_span!(parent: &self.span, "fabric.frame", sequence, traceparent),
            None if matches!(payload, Some(client_frame::Payload::Telemetry(_))) => {
                return self.handle(sequence, payload).await;
            }
            None => self.span.clone(),
        };
        self.handle(sequence, payload).instrument(span).await
    }

    async fn handle(&mut self, sequence: u64, payload: Option<client_frame::Payload>) -> Result<(), End> {
        use client_frame::Payload as From;
        match payload {
            Some(From::Heartbeat(v1::Heartbeat {})) => Ok(()),
            Some(From::Telemetry(batch)) => self.telemetry(batch).await,
            Some(From::Capabilities(report)) => match convert::capabilities(report) {
                Ok((capabilities, facts)) => {
                    let changed = self.update(|report| {
                        let changed = report.capabilities != capabilities || report.facts != facts;
                        report.capabilities = capabilities;
                        report.facts = facts;
                        changed
                    });
                    changed.await;
                    Ok(())
                }
                Err(reason) => self.unsupported(sequence, "capabilities", reason).await,
            },
            Some(From::Workloads(report)) => {
                match convert::workloads(report, self.fabric.settings.workloads_per_node) {
                    Ok(workloads) => {
                        if self.update(|report| report.set_workloads(workloads)).await {
                            self.tell(FabricEvent::WorkloadsChanged(self.node.clone())).await?;
                        }
                        Ok(())
                    }
                    Err(reason) => self.unsupported(sequence, "workloads", reason).await,
                }
            }
            Some(From::DispatchState(state)) => self.dispatch_state(sequence, state).await,
            Some(From::SnapshotChunk(chunk)) => self.transfer(async |fabric, node, _| {
                Payload::SnapshotStored(snapshots::store_chunk(&fabric, &node, chunk).await)
            }),
            Some(From::SnapshotManifest(manifest)) => self.transfer(async |fabric, node, _| {
                Payload::SnapshotStored(snapshots::store_manifest(&fabric, &node, manifest).await)
            }),
            Some(From::SnapshotAhead(mut ahead)) => {
                // What it says was sent before; bytes come as chunks alone, which are verified.
                ahead.data.clear();
                snapshots::send_ahead(&self.fabric, &self.node, ahead).await;
                Ok(())
            }
            Some(From::SnapshotRead(read)) => self.transfer(async |fabric, node, readable| {
                Payload::SnapshotData(snapshots::read(&fabric, &node, &readable, read).await)
            }),
            Some(From::Drained(v1::Drained {})) => {
                self.drained = true;
                Err(End::Drained)
            }
            Some(From::Unsupported(v1::Unsupported { sequence, reason })) => {
                tracing::warn!(sequence, reason = shown(&reason), "the agent does not know a frame of this host");
                Ok(())
            }
            Some(From::Hello(_)) => Err(End::Protocol("Hello")),
            None => self.unsupported(sequence, "unknown", "this host does not know the payload".into()).await,
        }
    }

    async fn unsupported(&mut self, sequence: u64, payload: &'static str, reason: String) -> Result<(), End> {
        counters::unsupported(payload);
        tracing::warn!(sequence, payload, reason, "a payload was not taken");
        self.send(Payload::Unsupported(v1::Unsupported { sequence, reason })).await
    }

    /// Changes what is known of the node, and keeps it if that changed anything.
    async fn update(&self, change: impl FnOnce(&mut Report) -> bool) -> bool {
        let report = {
            let mut registry = self.fabric.registry();
            let known = registry.nodes.get_mut(&self.node);
            let known = known.filter(|known| known.live.as_ref().is_some_and(|live| live.session == self.id));
            known.and_then(|known| change(&mut known.row.report).then(|| known.row.report.clone()))
        };
        let Some(report) = report else { return false };
        if let Err(error) = self.fabric.store.update_node_report(&self.node, &report, clock::now()).await {
            // The agent reports all of it again with its next session.
            tracing::error!(%error, source = ?std::error::Error::source(&error), "a node's report could not be kept");
        }
        true
    }

    async fn telemetry(&mut self, batch: v1::TelemetryBatch) -> Result<(), End> {
        self.epoch = Some(batch.epoch);
        let fabric = self.fabric.clone();
        let node = self.node.clone();
        let verdict = self.intake.take(
            &batch,
            &fabric.recorder,
            &self.pulse,
            |subject| fabric.registry().speaks_for(&node, subject),
            clock::now(),
        );
        match verdict {
            Verdict::Taken => {
                if self.pressed.take().is_some() {
                    self.send(Payload::Pressure(v1::Pressure { percent: 0, reason: String::new() })).await?;
                }
                Ok(())
            }
            Verdict::Duplicate => {
                let safe = self.safe.borrow().clone();
                self.acknowledge(safe).await
            }
            Verdict::Rejected(rejected, refusal) => {
                if let Some(refusal) = refusal {
                    // Before the agent hears that it may drop it.
                    fabric.keep_dead_letter(&refusal).await;
                }
                tracing::warn!(
                    parent: &self.span,
                    code = rejected.code,
                    sequence = rejected.sequence,
                    reason = shown(&rejected.reason),
                    "a batch was not taken"
                );
                self.send(Payload::TelemetryRejected(rejected)).await
            }
            Verdict::Later(rejected) => {
                counters::limit("unsealed_bytes_backlog");
                self.send(Payload::TelemetryRejected(rejected)).await
            }
            Verdict::Full(rejected) => {
                counters::limit("unsealed_bytes");
                let reason = rejected.reason.clone();
                self.send(Payload::TelemetryRejected(rejected)).await?;
                // First less of what is cheap to lose; if the batch comes again and there is no room still, none of it.
                let percent = match self.pressed {
                    None => Some(50),
                    Some(Pressed { percent: 50, since }) if since.elapsed() >= self.fabric.settings.full_retry() => {
                        Some(100)
                    }
                    Some(_) => None,
                };
                if let Some(percent) = percent {
                    self.pressed = Some(Pressed { percent, since: Instant::now() });
                    self.send(Payload::Pressure(v1::Pressure { percent, reason })).await?;
                }
                Ok(())
            }
        }
    }

    async fn dispatch_state(&mut self, sequence: u64, state: v1::DispatchState) -> Result<(), End> {
        let v1::DispatchState { key, journal_position, state } = state;
        let (node, key) = (self.node.clone(), IdempotencyKey(key));
        let known = {
            let registry = self.fabric.registry();
            registry.orders.get(&key).map(|order| order.row.node == node)
        };
        let ends = matches!(state, Some(dispatch_state::State::Refused(_) | dispatch_state::State::Outcome(_)));
        match known {
            Some(true) => {}
            Some(false) => {
                let reason = "the order of this key is another node's".to_owned();
                return self.unsupported(sequence, "dispatch_state", reason).await;
            }
            // Its end is in the journal, or it never was this host's: the agent need not go on about it.
            None if ends => {
                return match self.fabric.store.awaits(&key).await {
                    Ok(false) => {
                        tracing::info!(key = shown(&key.0), "an agent speaks of an order that is settled");
                        self.send(Payload::DispatchStateAck(v1::DispatchStateAck { key: key.0 })).await
                    }
                    Ok(true) => {
                        tracing::warn!(key = shown(&key.0), "an agent speaks of an order that another host sent");
                        Ok(())
                    }
                    Err(error) => {
                        tracing::error!(%error, "whether an order is settled could not be read; the agent says it again");
                        Ok(())
                    }
                };
            }
            None => return Ok(()),
        }
        if ends {
            self.update(|report| report.asleep.take_if(|asleep| asleep.key == key).is_some()).await;
        }
        let (name, event) = match state {
            Some(dispatch_state::State::Sleeping(sleeping)) => return self.sleeping(sequence, key, sleeping).await,
            Some(dispatch_state::State::Refused(v1::OrderRefused { code, reason })) => {
                ("refused", FabricEvent::OrderRefused { node, key, code: shown(&code), reason: shown(&reason) })
            }
            Some(dispatch_state::State::Accepted(v1::OrderAccepted {})) => {
                ("accepted", FabricEvent::OrderAccepted { node, key, journal_position })
            }
            Some(dispatch_state::State::Progress(v1::OrderProgress { permille, note })) => {
                let permille = permille.min(1_000);
                ("progress", FabricEvent::OrderProgress { node, key, permille, note: shown(&note) })
            }
            Some(dispatch_state::State::Outcome(v1::OrderOutcome { outcome })) => match parse_outcome(&outcome) {
                Ok(outcome) => ("finished", FabricEvent::OrderFinished { node, key, journal_position, outcome }),
                Err(reason) => {
                    tracing::error!(key = %key, reason, "an outcome cannot be read; the order counts as unknown when its time is over");
                    return self.unsupported(sequence, "outcome", reason).await;
                }
            },
            None => {
                let reason = "this host does not know the state".to_owned();
                return self.unsupported(sequence, "dispatch_state", reason).await;
            }
        };
        counters::order(name);
        if ends {
            let key = match &event {
                FabricEvent::OrderRefused { key, .. } | FabricEvent::OrderFinished { key, .. } => Some(key),
                _ => None,
            };
            let mut registry = self.fabric.registry();
            if let Some(order) = key.and_then(|key| registry.orders.get_mut(key)) {
                order.ended = true;
            }
        }
        let key = match &event {
            FabricEvent::OrderAccepted { key, .. }
            | FabricEvent::OrderProgress { key, .. }
            | FabricEvent::OrderRefused { key, .. }
            | FabricEvent::OrderFinished { key, .. } => Some(key),
            FabricEvent::Connected(_) | FabricEvent::Lost { .. } | FabricEvent::WorkloadsChanged(_) => None,
        };
        if let Some(key) = key.filter(|key| self.fabric.watched().contains_key(*key)).cloned() {
            let watcher = ends.then(|| self.fabric.watched().remove(&key)).flatten();
            if let Some(watcher) = watcher {
                // Whoever waited may have given up.
                drop(watcher.send(event));
            }
            return Ok(());
        }
        self.tell(event).await
    }

    /// The node goes to sleep on order: kept on disk before it is answered, and it does not go before.
    async fn sleeping(&mut self, sequence: u64, key: IdempotencyKey, told: v1::OrderSleeping) -> Result<(), End> {
        let v1::OrderSleeping { plan, state, wakes_at_ms } = told;
        let known = self.fabric.registry().orders.get(&key).is_some_and(|order| order.row.verb == verb::SLEEP);
        if !known {
            let reason = "the order of this key puts no node to sleep".to_owned();
            return self.unsupported(sequence, "dispatch_state", reason).await;
        }
        let asleep = Asleep {
            since: clock::now(),
            plan: PlanHash(shown(&plan)),
            state: shown(&state),
            wakes_at: (wakes_at_ms > 0).then_some(Time(wakes_at_ms)),
            key: key.clone(),
        };
        let report = {
            let mut registry = self.fabric.registry();
            let known = registry.nodes.get_mut(&self.node);
            let known = known.filter(|known| known.live.as_ref().is_some_and(|live| live.session == self.id));
            known.map(|known| {
                known.row.report.asleep = Some(asleep);
                known.row.report.clone()
            })
        };
        let Some(report) = report else { return Ok(()) };
        if let Err(error) = self.fabric.store.update_node_report(&self.node, &report, clock::now()).await {
            tracing::error!(%error, source = ?std::error::Error::source(&error),
                "that a node goes to sleep could not be kept, so it is not answered and the node stays awake");
            self.update(|report| report.asleep.take().is_some()).await;
            return Ok(());
        }
        counters::order("sleeping");
        tracing::info!(state, "the node goes to sleep on order");
        self.send(Payload::DispatchStateAck(v1::DispatchStateAck { key: key.0 })).await
    }

    /// Works on one part of a snapshot beside the loop, in the slot that is held; its answer gives the slot back as it
    /// leaves.
    fn transfer<W, F>(&mut self, work: W) -> Result<(), End>
    where
        W: FnOnce(Arc<Inner>, NodeId, Readable) -> F + Send + 'static,
        F: Future<Output = Payload> + Send + 'static,
    {
        let slot = self.slot.take();
        let (fabric, node, readable) = (self.fabric.clone(), self.node.clone(), self.readable.clone());
        let outgoing = self.outgoing.clone();
        let over = self.over.clone();
        let span = tracing::Span::current();
        self.transfers.spawn(
            async move {
                let payload = work(fabric, node, readable).await;
                let frame = Outgoing::Frame { payload, traceparent: String::new(), slot };
                // A participant that takes nothing is noticed by the loop.
                tokio::select! {
                    biased;
                    sent = outgoing.send(frame) => drop(sent),
                    () = over.cancelled() => {}
                }
            }
            .instrument(span),
        );
        Ok(())
    }
}

/// Strict: what this host would not write the same way again is not understood, and so not believed.
fn parse_outcome(bytes: &[u8]) -> Result<Outcome, String> {
    if bytes.len() > OUTCOME_BYTES {
        return Err(format!("the outcome has {} bytes, and {OUTCOME_BYTES} is the limit", bytes.len()));
    }
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| format!("no JSON: {error}"))?;
    let outcome: Outcome = serde_json::from_slice(bytes).map_err(|error| format!("no outcome: {error}"))?;
    match aether_core::plan::canonical(&value) == aether_core::plan::canonical(&outcome) {
        true => Ok(outcome),
        false => Err("the outcome has fields that this host does not know".into()),
    }
}
