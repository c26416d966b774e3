//! One stream to the host, from its hello to its end.

use super::{
    Inbound, Incoming, Limits, Uplink, hex,
    lanes::{Lane, Lanes},
};
use crate::{
    blocking::blocking,
    clock::{self, Stopwatch},
    spool::{Next, Spool},
};
use aether_core::id::NodeId;
use aether_proto::{
    PROTOCOL_VERSIONS,
    telemetry::Encoder,
    v1::{self, client_frame::Payload, server_frame::Payload as ServerPayload},
};
use ed25519_dalek::VerifyingKey;
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

/// Frames handed to the transport that it has not sent.
const FRAMES_MAXIMUM: usize = 16;
/// For the answer to the hello.
const WELCOME_WITHIN: Duration = Duration::from_secs(10);
/// Malformed batches in a row after which the dictionary of the stream is not trusted any more.
const MALFORMED_MAXIMUM: u32 = 3;
/// Where the host does not say.
const HEARTBEAT: Duration = Duration::from_secs(5);
const HEARTBEATS_MISSED_MAXIMUM: u32 = 3;

/// How a stream ended.
pub(super) enum Ending {
    Shutdown,
    /// Comes back with backoff.
    Lost(String),
    Refused {
        code: String,
        reason: String,
        retry_after: Option<Duration>,
    },
    /// The host is not the one that was joined.
    Distrusted(String),
}

/// The telemetry side of a stream.
struct Telemetry {
    encoder: Encoder,
    lanes: Lanes,
    /// The last that the spool holds.
    newest: watch::Receiver<u64>,
    malformed: u32,
}

pub(super) struct Session<'a> {
    uplink: &'a mut Uplink,
    frames: mpsc::Sender<v1::ClientFrame>,
    sequence: u64,
    /// The host's last frame.
    seen: u64,
    session_id: String,
    outbox: VecDeque<Payload>,
    telemetry: Telemetry,
    /// Changes of the workloads that the host has not been told.
    workloads: watch::Receiver<u64>,
    limits: Limits,
    heartbeat: Duration,
    /// How long the host may be silent.
    patience: Duration,
    sent: Stopwatch,
    heard: Stopwatch,
}

/// Why the loop of a stream ends.
struct End(Ending);

impl From<Ending> for End {
    fn from(ending: Ending) -> Self {
        End(ending)
    }
}

fn lost(why: impl Into<String>) -> End {
    End(Ending::Lost(why.into()))
}

impl<'a> Session<'a> {
    pub(super) async fn run(uplink: &'a mut Uplink, shutdown: &CancellationToken) -> Ending {
        let begun = tokio::select! {
            begun = Self::begin(uplink) => begun,
            () = shutdown.cancelled() => return Ending::Shutdown,
        };
        match begun {
            Ok((mut session, incoming)) => {
                let End(ending) = session.attend(incoming, shutdown).await;
                let resume = v1::Resume { session_id: session.session_id.clone(), last_seen_sequence: session.seen };
                session.uplink.last = Some(resume);
                ending
            }
            Err(End(ending)) => ending,
        }
    }

    /// Connects, says hello, and takes the welcome in.
    async fn begin(uplink: &'a mut Uplink) -> Result<(Self, Incoming), End> {
        let (frames, outgoing) = mpsc::channel(FRAMES_MAXIMUM);
        let hello = hello(uplink).await?;
        let first = frame(1, Payload::Hello(hello));
        frames.send(first).await.map_err(|_| lost("the stream closed at once"))?;
        let welcomed = timeout(WELCOME_WITHIN, async {
            let mut incoming = uplink.dial.connect(outgoing).await?;
            let answer = incoming.try_next().await?;
            Ok::<_, tonic::Status>((incoming, answer))
        });
        let (incoming, answer) = match welcomed.await {
            Err(_) => return Err(lost("the host did not answer the hello in time")),
            Ok(Err(status)) => return Err(lost(format!("{}: {}", status.code(), status.message()))),
            Ok(Ok(welcomed)) => welcomed,
        };
        let v1::ServerFrame { sequence, sent_at_ms, traceparent: _, payload } =
            answer.ok_or_else(|| lost("the host ended the stream without a word"))?;
        let welcome = match payload {
            Some(ServerPayload::Welcome(welcome)) => welcome,
            Some(ServerPayload::Refused(v1::Refused { code, reason, retry_after_ms })) => {
                let retry_after = (retry_after_ms > 0).then(|| Duration::from_millis(u64::from(retry_after_ms)));
                return Err(Ending::Refused { code, reason, retry_after }.into());
            }
            _ => return Err(lost("the host did not begin with a welcome or a refusal")),
        };
        let skew_ms = clock::now().0 - sent_at_ms;
        if skew_ms.abs() > 5_000 {
            warn!(skew_ms, "this clock and the host's differ; orders may count as expired");
        }
        let mut workloads = uplink.registry.changes();
        // What has changed between the hello and now is seen by the first look.
        workloads.mark_changed();
        let newest = uplink.spool.newest();
        let mut session = Self {
            uplink,
            workloads,
            frames,
            sequence: 1,
            seen: sequence,
            session_id: String::new(),
            outbox: VecDeque::new(),
            telemetry: Telemetry { encoder: Encoder::default(), lanes: Lanes::new(0, 0, false), newest, malformed: 0 },
            limits: Limits::default(),
            heartbeat: Duration::ZERO,
            patience: Duration::ZERO,
            sent: Stopwatch::start(),
            heard: Stopwatch::start(),
        };
        session.welcome(welcome)?;
        Ok((session, incoming))
    }

    fn welcome(&mut self, welcome: v1::Welcome) -> Result<(), End> {
        let v1::Welcome {
            session_id,
            protocol_version,
            credential,
            host_public_key,
            generation,
            heartbeat_ms,
            host_heartbeat_ms,
            limits,
            agent_config,
            telemetry_ack,
            lease,
            telemetry_schema,
            telemetry_any_order,
        } = welcome;
        if !PROTOCOL_VERSIONS.contains(&protocol_version.as_str()) {
            return Err(lost(format!(
                "the host chose the protocol version `{protocol_version}`, which was not offered"
            )));
        }
        self.trust(&host_public_key, credential, lease)?;
        let or = |ms: u32, default| match ms {
            0 => default,
            ms => Duration::from_millis(u64::from(ms).clamp(50, 60_000)),
        };
        self.heartbeat = or(heartbeat_ms, HEARTBEAT);
        self.patience = or(host_heartbeat_ms, self.heartbeat) * HEARTBEATS_MISSED_MAXIMUM;
        self.limits = limits.map(Limits::of).unwrap_or_default();
        self.uplink.limits.send_replace(self.limits);
        if let Some(config) = agent_config {
            self.configure(config);
        }
        self.telemetry.encoder = Encoder::for_reader(telemetry_schema);
        let after = self.uplink.spool.resume(&telemetry_ack.unwrap_or_default());
        self.telemetry.lanes = Lanes::new(after, self.limits.batches_in_flight, telemetry_any_order);
        self.outbox.extend(self.uplink.pending.again());
        self.uplink.generation.send_replace(Some(generation));
        self.uplink.connected.send_replace(true);
        self.hand_in(Inbound::Connected);
        info!(session.id = %session_id, node.generation = generation, "in session with the host");
        self.session_id = session_id;
        self.uplink.rejoin = false;
        Ok(())
    }

    /// Pins the host's key when joining, and never another afterwards. A host whose lease another has taken over is not
    /// gone along with.
    fn trust(&mut self, key: &[u8], credential: String, lease: u64) -> Result<(), End> {
        let distrusted = |why: String| End(Ending::Distrusted(why));
        let parsed = <[u8; 32]>::try_from(key).ok().and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
        let offered = parsed.ok_or_else(|| distrusted("the host's public key is no ed25519 key".into()))?;
        let identity = &self.uplink.identity;
        match &identity.host_key {
            Some(pinned) if *pinned != hex(key) => {
                return Err(distrusted(format!(
                    "the host's key is {}…, but {}… was pinned when joining. If the host was set up anew on purpose, \
                     remove identity.json from the state folder and join again",
                    &hex(key)[..12],
                    &pinned[..12.min(pinned.len())]
                )));
            }
            Some(_) => {}
            None if credential.is_empty() => {
                return Err(distrusted(
                    "no key was pinned and the host gave no credential; join again with a token".into(),
                ));
            }
            None => {}
        }
        if lease < identity.lease {
            let known = identity.lease;
            return Err(lost(format!("it has the lease {lease}, and another host has taken over with {known} since")));
        }
        let mut identity = identity.clone();
        identity.host_key = Some(hex(key));
        identity.lease = lease;
        if !credential.is_empty() {
            identity.credential = Some(credential);
        }
        if identity != self.uplink.identity {
            let state = &self.uplink.state;
            state.save_identity(&identity).map_err(|error| lost(format!("the identity cannot be kept: {error}")))?;
            self.uplink.identity = identity;
        }
        // On disk before any order under it can come.
        self.uplink.lease.send_replace(lease);
        self.uplink.host_key.send_replace(Some(offered));
        Ok(())
    }

    fn configure(&mut self, config: v1::AgentConfig) {
        debug!(version = config.version, "the host's wishes");
        let local = self.uplink.config.clone();
        self.uplink.wishes.send_if_modified(|wishes| {
            let before = wishes.clone();
            wishes.take(&local, config);
            *wishes != before
        });
    }

    /// The body of the stream.
    async fn attend(&mut self, mut incoming: Incoming, shutdown: &CancellationToken) -> End {
        let frames = self.frames.clone();
        let mut filled = self.telemetry.newest.clone();
        let mut capabilities = self.uplink.capabilities.clone();
        let mut cut = self.uplink.cut.clone();
        let mut beat = interval(self.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.pump().await;
            let resumes_at = self.telemetry.lanes.resumes_at();
            let result = tokio::select! {
                // What waits to be sent is bounded, so it cannot keep the host from being heard.
                biased;
                () = shutdown.cancelled() => return End(Ending::Shutdown),
                _ = beat.tick() => self.beat(),
                permit = frames.reserve(), if !self.outbox.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(payload) = self.outbox.pop_front() {
                            self.sequence += 1;
                            permit.send(frame(self.sequence, payload));
                            self.sent = Stopwatch::start();
                        }
                        Ok(())
                    }
                    Err(_) => Err(lost("the stream is closed")),
                },
                message = incoming.try_next() => match message {
                    Ok(Some(frame)) => self.receive(frame),
                    Ok(None) => Err(lost("the host ended the stream")),
                    Err(status) => Err(lost(format!("{}: {}", status.code(), status.message()))),
                },
                // While frames wait to be sent, new requests wait too.
                Some(request) = self.uplink.requests.recv(), if self.outbox.len() < FRAMES_MAXIMUM => {
                    let payload = self.uplink.pending.take_in(request);
                    self.outbox.push_back(payload);
                    Ok(())
                }
                Ok(()) = filled.changed() => Ok(()),
                Ok(()) = self.workloads.changed() => {
                    self.outbox.push_back(Payload::Workloads(self.uplink.registry.report()));
                    Ok(())
                }
                Ok(()) = cut.changed() => match *cut.borrow_and_update() {
                    true => Err(lost("a drill cuts the link")),
                    false => Ok(()),
                },
                Ok(()) = capabilities.changed() => {
                    let report = capabilities.borrow_and_update().clone();
                    self.outbox.push_back(Payload::Capabilities(report));
                    Ok(())
                }
                () = sleep_until(resumes_at.unwrap_or_else(Instant::now)), if resumes_at.is_some() => {
                    self.telemetry.lanes.resume(Instant::now());
                    Ok(())
                }
            };
            if let Err(end) = result {
                return end;
            }
        }
    }

    fn beat(&mut self) -> Result<(), End> {
        if self.heard.elapsed() > self.patience {
            return Err(lost(format!("nothing was heard of the host for {} ms", self.patience.as_millis())));
        }
        if self.sent.elapsed() * 2 >= self.heartbeat && self.outbox.is_empty() {
            self.outbox.push_back(Payload::Heartbeat(v1::Heartbeat {}));
        }
        Ok(())
    }

    /// Moves batches from the spool to the outbox, as many as the host takes at a time.
    async fn pump(&mut self) {
        let mut but = None;
        while self.outbox.len() < FRAMES_MAXIMUM {
            let newest = *self.telemetry.newest.borrow();
            let Some((lane, after)) = self.telemetry.lanes.turn(newest, but) else { return };
            // Mostly it was put in just now, and nothing has to be waited for.
            let next = match self.uplink.spool.ready_after(after) {
                Some(next) => Some(next),
                None => read_next(&self.uplink.spool, after).await,
            };
            let Some(Next { batch, lost_before }) = next else {
                // What is left there cannot be read, or the host has it.
                if but.replace(lane).is_some() || lane == Lane::Backlog {
                    return;
                }
                continue;
            };
            // A host takes telemetry of a workload only after it was told that the workload is here.
            if self.workloads.has_changed().unwrap_or(false) {
                self.workloads.mark_unchanged();
                self.outbox.push_back(Payload::Workloads(self.uplink.registry.report()));
            }
            self.telemetry.lanes.sent(lane, batch.sequence);
            self.outbox.push_back(Payload::Telemetry(self.telemetry.encoder.encode(&batch, lost_before)));
        }
    }

    fn receive(&mut self, frame: v1::ServerFrame) -> Result<(), End> {
        let v1::ServerFrame { sequence, sent_at_ms: _, traceparent: _, payload } = frame;
        if sequence != self.seen + 1 {
            return Err(lost(format!("the host's frame {} never came; {sequence} did", self.seen + 1)));
        }
        self.seen = sequence;
        self.heard = Stopwatch::start();
        match payload {
            Some(ServerPayload::Heartbeat(v1::Heartbeat {})) => {}
            Some(ServerPayload::TelemetryAck(ack)) => {
                let spool = &self.uplink.spool;
                if spool.acknowledge(&ack) {
                    self.telemetry.lanes.forget_safe(|sequence| spool.is_safe(sequence));
                    self.telemetry.malformed = 0;
                }
            }
            Some(ServerPayload::TelemetryRejected(rejected)) => self.rejected(rejected)?,
            Some(ServerPayload::AgentConfig(config)) => self.configure(config),
            Some(ServerPayload::Pressure(v1::Pressure { percent, reason })) => {
                info!(percent, reason, "the host asks to sample less");
                self.uplink.wishes.send_modify(|wishes| wishes.pressure_percent = percent.min(100));
            }
            Some(ServerPayload::Dispatch(dispatch)) => self.hand_in(Inbound::Dispatch(Box::new(dispatch))),
            Some(ServerPayload::Cancel(cancel)) => self.hand_in(Inbound::Cancel(cancel)),
            Some(ServerPayload::DispatchStateAck(ack)) => self.hand_in(Inbound::Acknowledged(ack)),
            Some(ServerPayload::Drill(drill)) => {
                if self.uplink.drills.try_send(drill).is_err() {
                    self.unsupported("this agent has too many drills waiting");
                }
            }
            Some(ServerPayload::SnapshotStored(stored)) => self.uplink.pending.stored(stored),
            Some(ServerPayload::SnapshotData(data)) => self.uplink.pending.read(data),
            Some(ServerPayload::SnapshotAhead(ahead)) => self.uplink.ahead.offer(ahead),
            Some(ServerPayload::Drain(v1::Drain { deadline_ms: _, reason })) => {
                info!(reason, "the host asks to come back later");
                return Err(lost(format!("the host drains: {reason}")));
            }
            Some(ServerPayload::Refused(v1::Refused { code, reason, retry_after_ms })) => {
                let retry_after = (retry_after_ms > 0).then(|| Duration::from_millis(u64::from(retry_after_ms)));
                return Err(Ending::Refused { code, reason, retry_after }.into());
            }
            Some(ServerPayload::Unsupported(v1::Unsupported { sequence, reason })) => {
                warn!(sequence, reason, "the host does not know a frame of this agent");
            }
            Some(ServerPayload::Welcome(_)) => self.unsupported("a second welcome"),
            None => self.unsupported("this agent does not know the payload"),
        }
        Ok(())
    }

    fn unsupported(&mut self, reason: &str) {
        let answer = v1::Unsupported { sequence: self.seen, reason: reason.into() };
        self.outbox.push_back(Payload::Unsupported(answer));
    }

    /// Orders must not hold up the stream that brings them: one that finds no room is answered, and comes again.
    fn hand_in(&mut self, inbound: Inbound) {
        if self.uplink.inbound.try_send(inbound).is_err() {
            error!("the executor takes no more; the frame is answered as unsupported");
            self.unsupported("this agent has too many orders waiting");
        }
    }

    fn rejected(&mut self, rejected: v1::TelemetryRejected) -> Result<(), End> {
        let v1::TelemetryRejected { epoch, sequence, code, reason, expected, retry_after_ms } = rejected;
        if epoch != self.uplink.spool.epoch() {
            return Ok(());
        }
        match code.as_str() {
            "gap" => {
                info!(sequence, expected, "the host misses a batch; sending goes on from there");
                self.drop_waiting();
                self.telemetry.lanes.back_to(expected);
            }
            "full" => {
                warn!(sequence, reason, retry_after_ms, "the host takes no telemetry now; it is kept in the spool");
                let wait = Duration::from_millis(u64::from(retry_after_ms.clamp(100, 60_000)));
                self.telemetry.lanes.pause(sequence, Instant::now() + clock::jittered(wait));
                self.telemetry.lanes.again(sequence);
                self.drop_waiting();
            }
            _ => {
                error!(
                    sequence,
                    code, reason, "the host will never take this batch; it is skipped and counted as lost"
                );
                self.uplink.spool.give_up(sequence);
                self.telemetry.lanes.forget(sequence);
                self.telemetry.malformed += 1;
                if self.telemetry.malformed >= MALFORMED_MAXIMUM {
                    return Err(lost(
                        "the host could not read several batches; a new stream begins with a new dictionary",
                    ));
                }
            }
        }
        Ok(())
    }

    /// Takes back batches that were not handed to the transport; they will be sent again. The dictionary that they
    /// would have brought is gone with them, so it must begin anew, and with it the numbers.
    fn drop_waiting(&mut self) {
        let before = self.outbox.len();
        let lanes = &mut self.telemetry.lanes;
        self.outbox.retain(|payload| {
            let Payload::Telemetry(batch) = payload else { return true };
            lanes.again(batch.sequence);
            false
        });
        if self.outbox.len() < before {
            self.telemetry.encoder = self.telemetry.encoder.anew();
        }
    }
}

async fn read_next(spool: &Arc<Spool>, after: u64) -> Option<Next> {
    let spool = spool.clone();
    blocking(move || spool.next_after(after)).await.flatten()
}

fn frame(sequence: u64, payload: Payload) -> v1::ClientFrame {
    v1::ClientFrame { sequence, sent_at_ms: clock::now().0, traceparent: String::new(), payload: Some(payload) }
}

async fn hello(uplink: &Uplink) -> Result<v1::Hello, End> {
    use v1::credentials::Kind;
    let identity = &uplink.identity;
    let token = uplink.config.join_token.as_ref().map(|token| Kind::JoinToken(token.0.clone()));
    let credential = identity.credential.clone().filter(|_| !uplink.rejoin).map(Kind::Credential);
    let Some(kind) = credential.or(token) else {
        return Err(End(Ending::Refused {
            code: "unauthenticated".into(),
            reason: "this agent has not joined, and has no join token".into(),
            retry_after: None,
        }));
    };
    let NodeId(node) = uplink.config.node.clone();
    Ok(v1::Hello {
        principal: Some(v1::Principal { kind: Some(v1::principal::Kind::NodeAgent(v1::NodeAgent { node })) }),
        credentials: Some(v1::Credentials { kind: Some(kind) }),
        protocol_versions: PROTOCOL_VERSIONS.iter().map(|version| (*version).into()).collect(),
        software_version: env!("CARGO_PKG_VERSION").into(),
        instance_id: identity.instance.clone(),
        boot_id: uplink.boot.clone(),
        resume: uplink.last.clone(),
        capabilities: Some(uplink.capabilities.borrow().clone()),
        workloads: Some(uplink.registry.report()),
        extensions: std::collections::HashMap::new(),
        knows_host_heartbeat: true,
    })
}
