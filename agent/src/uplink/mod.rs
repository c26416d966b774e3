//! The agent's one connection: joins the host, keeps a session, drains the spool, hands orders in and outcomes out.
//!
//! When the stream breaks it comes back, with backoff and jitter; what was not acknowledged is sent again. It decides
//! nothing about orders: those go to [`crate::act`], which checks them.

mod dial;
mod lanes;
mod link;
mod session;

use crate::{
    act::snapshot::ahead::Ahead,
    clock,
    config::Config,
    spool::Spool,
    state::{self, Identity, StateFolder},
    workloads::Registry,
};
use aether_proto::v1;
use ed25519_dalek::VerifyingKey;
use link::{Pending, Request};
use session::{Ending, Session};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use dial::Grpc;
pub use dial::{Dial, Incoming};
pub use link::{Fault, Link, Piece};

const BACKOFF_MINIMUM: Duration = Duration::from_millis(250);
const BACKOFF_MAXIMUM: Duration = Duration::from_secs(15);
/// Between two attempts when only a person can change the answer.
const BACKOFF_REFUSED: Duration = Duration::from_secs(60);
/// Requests of the executor that wait for the stream.
const REQUESTS_MAXIMUM: usize = 64;

/// What the host hands to the executor.
#[derive(Debug)]
pub enum Inbound {
    /// A stream begins: outcomes that were not acknowledged are to be told again.
    Connected,
    Dispatch(Box<v1::Dispatch>),
    Cancel(v1::Cancel),
    Acknowledged(v1::DispatchStateAck),
}

/// What the host allows in a session.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub frame_bytes: usize,
    pub batches_in_flight: usize,
    pub chunks_in_flight: usize,
    pub chunk_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes: aether_proto::FRAME_BYTES_MAXIMUM,
            batches_in_flight: 32,
            chunks_in_flight: 4,
            chunk_bytes: aether_proto::CHUNK_BYTES,
        }
    }
}

impl Limits {
    /// The host's, where it says something, and never beyond what this side can take.
    fn of(limits: v1::SessionLimits) -> Self {
        let v1::SessionLimits { frame_bytes, batches_in_flight, chunks_in_flight, chunk_bytes } = limits;
        let or = |value: u32, default: usize, maximum: usize| match usize::try_from(value) {
            Ok(0) | Err(_) => default,
            Ok(value) => value.min(maximum),
        };
        let default = Self::default();
        Self {
            frame_bytes: or(frame_bytes, default.frame_bytes, default.frame_bytes),
            batches_in_flight: or(batches_in_flight, default.batches_in_flight, 1_024),
            chunks_in_flight: or(chunks_in_flight, default.chunks_in_flight, 64),
            chunk_bytes: or(chunk_bytes, default.chunk_bytes, default.chunk_bytes),
        }
    }
}

/// No interval of the host's is longer.
const INTERVAL_MAXIMUM: Duration = Duration::from_secs(600);

/// What the host wants of the collector, within what the configuration permits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wishes {
    /// Of what the host wants; 0: it has said nothing.
    pub version: u64,
    pub sample_interval: Duration,
    pub batch_interval: Duration,
    pub disabled_sources: BTreeSet<String>,
    /// Of single sources; which of them there are, and how often they may be asked, the collector knows.
    pub intervals: BTreeMap<String, Duration>,
    /// The share of the time that processors are busy.
    pub bpf_budget: f64,
    /// What the host wants beyond what the configuration permits, in words.
    pub withheld: Vec<String>,
    /// 0 none, 100 only what decisions need.
    pub pressure_percent: u32,
}

impl Wishes {
    /// What the configuration gives: the host may ask for less, not for more.
    pub fn of(config: &Config) -> Self {
        Self {
            sample_interval: config.sample_interval,
            batch_interval: config.batch_interval,
            disabled_sources: config.disabled_sources.clone(),
            bpf_budget: config.bpf_budget,
            ..Self::default()
        }
    }

    /// Takes what the host wants in place of what it wanted before.
    fn take(&mut self, local: &Config, wanted: v1::AgentConfig) {
        let v1::AgentConfig {
            version,
            sample_interval_ms,
            batch_interval_ms,
            disabled_sources,
            intervals_ms,
            bpf_budget_permille,
            asked_for,
        } = wanted;
        let mut withheld = Vec::new();
        let within = |ms: u32| Duration::from_millis(ms.into()).min(INTERVAL_MAXIMUM);
        let mut at_least = |field: &str, ms: u32, own: Duration| {
            if within(ms) < own && asked_for.iter().any(|asked| asked == field) {
                withheld.push(format!("`{field}` of {ms} (this node permits {})", own.as_millis()));
            }
            within(ms).max(own)
        };
        let sample_interval = at_least("sample_interval_ms", sample_interval_ms, local.sample_interval);
        let batch_interval = at_least("batch_interval_ms", batch_interval_ms, local.batch_interval);
        let bpf_budget = bpf_budget_permille.map_or(local.bpf_budget, |permille| f64::from(permille) / 1_000.0);
        if bpf_budget > local.bpf_budget {
            let own = local.bpf_budget * 1_000.0;
            withheld.push(format!("`bpf_budget_permille` of {:.0} (this node permits {own:.0})", bpf_budget * 1_000.0));
        }
        *self = Self {
            version,
            sample_interval,
            batch_interval: batch_interval.max(sample_interval),
            disabled_sources: local.disabled_sources.iter().cloned().chain(disabled_sources).collect(),
            intervals: intervals_ms.into_iter().map(|(source, ms)| (source, within(ms))).collect(),
            bpf_budget: bpf_budget.min(local.bpf_budget),
            withheld,
            pressure_percent: self.pressure_percent,
        };
    }
}

#[derive(Debug, Error)]
pub enum Error {
    #[error("the certificate authority {} cannot be read", path.display())]
    Authority { path: std::path::PathBuf, source: std::io::Error },
    #[error("the address of the host is not usable")]
    Endpoint(#[from] tonic::transport::Error),
    #[error("the pinned key of the host is damaged; remove identity.json from the state folder and join again")]
    PinnedKey,
    #[error(transparent)]
    State(#[from] state::Error),
}

/// Ends of the channels that join the uplink to the rest of the agent.
pub struct Ends {
    pub link: Link,
    /// The host's key, once it is pinned. Orders are checked against it.
    pub host_key: watch::Receiver<Option<VerifyingKey>>,
    pub wishes: watch::Receiver<Wishes>,
    /// This node's generation, as the host last said.
    pub generation: watch::Receiver<Option<u64>>,
    /// The newest lease of a host that this agent was welcomed under.
    pub lease: watch::Receiver<u64>,
    /// Whether a session stands.
    pub connected: watch::Receiver<bool>,
}

pub struct Uplink {
    config: Arc<Config>,
    dial: Box<dyn Dial>,
    state: Arc<StateFolder>,
    identity: Identity,
    boot: String,
    spool: Arc<Spool>,
    registry: Arc<Registry>,
    capabilities: watch::Receiver<v1::CapabilityReport>,
    inbound: mpsc::Sender<Inbound>,
    ahead: Ahead,
    drills: mpsc::Sender<v1::Drill>,
    cut: watch::Receiver<bool>,
    requests: mpsc::Receiver<Request>,
    pending: Pending,
    limits: watch::Sender<Limits>,
    host_key: watch::Sender<Option<VerifyingKey>>,
    wishes: watch::Sender<Wishes>,
    generation: watch::Sender<Option<u64>>,
    lease: watch::Sender<u64>,
    connected: watch::Sender<bool>,
    /// The last session and the last frame seen in it.
    last: Option<v1::Resume>,
    /// The stored credential was refused and a join token is at hand.
    rejoin: bool,
}

/// What the rest of the agent gives the uplink.
pub struct Parts {
    pub config: Arc<Config>,
    pub state: Arc<StateFolder>,
    pub boot: String,
    pub spool: Arc<Spool>,
    pub registry: Arc<Registry>,
    pub capabilities: watch::Receiver<v1::CapabilityReport>,
    pub inbound: mpsc::Sender<Inbound>,
    pub ahead: Ahead,
    pub drills: mpsc::Sender<v1::Drill>,
    /// True: a drill has cut the link.
    pub cut: watch::Receiver<bool>,
}

impl Uplink {
    pub fn new(parts: Parts) -> Result<(Self, Ends), Error> {
        let dial = Grpc::new(&parts.config)?;
        Self::over(Box::new(dial), parts)
    }

    /// The same over another way to the host.
    pub fn over(dial: Box<dyn Dial>, parts: Parts) -> Result<(Self, Ends), Error> {
        let Parts { config, state, boot, spool, registry, capabilities, inbound, ahead, drills, cut } = parts;
        let identity = state.load_identity(&config.node)?;
        let pinned = identity.host_key.as_deref().map(key_from_hex).transpose()?;
        let (requests_in, requests) = mpsc::channel(REQUESTS_MAXIMUM);
        let (limits, limits_out) = watch::channel(Limits::default());
        let (host_key, host_key_out) = watch::channel(pinned);
        let (wishes, wishes_out) = watch::channel(Wishes::of(&config));
        let (generation, generation_out) = watch::channel(None);
        let (lease, lease_out) = watch::channel(identity.lease);
        let (connected, connected_out) = watch::channel(false);
        let ends = Ends {
            link: Link::new(requests_in, limits_out),
            host_key: host_key_out,
            wishes: wishes_out,
            generation: generation_out,
            lease: lease_out,
            connected: connected_out,
        };
        let uplink = Self {
            config,
            dial,
            state,
            identity,
            boot,
            spool,
            registry,
            capabilities,
            inbound,
            ahead,
            drills,
            cut,
            requests,
            pending: Pending::default(),
            limits,
            host_key,
            wishes,
            generation,
            lease,
            connected,
            last: None,
            rejoin: false,
        };
        Ok((uplink, ends))
    }

    /// Keeps a session until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut backoff = BACKOFF_MINIMUM;
        while !shutdown.is_cancelled() {
            if *self.cut.borrow_and_update() {
                warn!("a drill has cut the link to the host; telemetry is kept in the spool");
                let mut cut = self.cut.clone();
                tokio::select! {
                    _ = cut.wait_for(|cut| !cut) => backoff = BACKOFF_MINIMUM,
                    () = shutdown.cancelled() => break,
                }
            }
            let watch = clock::Stopwatch::start();
            // Boxed: it is large, and polled once for each stream.
            let ending = Box::pin(Session::run(&mut self, &shutdown)).await;
            self.connected.send_replace(false);
            let wait = match ending {
                Ending::Shutdown => break,
                Ending::Lost(why) => {
                    // A session that stood for a while was no failed attempt.
                    if watch.elapsed() > BACKOFF_MAXIMUM {
                        backoff = BACKOFF_MINIMUM;
                    }
                    let wait = clock::jittered(backoff);
                    let retry_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    warn!(host = %self.config.host, why, retry_ms, "no session with the host; telemetry is kept in the spool");
                    backoff = (backoff * 2).min(BACKOFF_MAXIMUM);
                    wait
                }
                Ending::Refused { code, reason, retry_after } => self.refused(&code, &reason, retry_after),
                Ending::Distrusted(why) => {
                    error!(why, "the host is not trusted; nothing is sent to it and no order of it is taken");
                    BACKOFF_REFUSED
                }
            };
            self.rest(wait, &shutdown).await;
        }
    }

    /// How long to wait after a refusal.
    fn refused(&mut self, code: &str, reason: &str, retry_after: Option<Duration>) -> Duration {
        if code == "unauthenticated"
            && self.identity.credential.is_some()
            && self.config.join_token.is_some()
            && !self.rejoin
        {
            info!(reason, "the host does not know this agent's credential; it joins again with its token");
            self.rejoin = true;
            return BACKOFF_MINIMUM;
        }
        self.rejoin = false;
        match retry_after {
            Some(wait) => {
                warn!(code, reason, "the host refused the session; it is asked again when it said");
                clock::jittered(wait.max(BACKOFF_MINIMUM))
            }
            None => {
                let advice = match code {
                    "unauthenticated" => "give it a fresh join token (`--join-token`)",
                    "identity.instance" | "identity.in-use" => {
                        "another machine has this name: give this one another (`--node`), or end that one"
                    }
                    "protocol.version" | "protocol.hello" => "agent and host are of versions that do not fit",
                    _ => "see the host's log",
                };
                error!(code, reason, advice, "the host refused the session, and only a person can change that");
                BACKOFF_REFUSED
            }
        }
    }

    /// Waits, and meanwhile takes in what the executor asks, so that it never blocks on a missing stream.
    async fn rest(&mut self, wait: Duration, shutdown: &CancellationToken) {
        let until = tokio::time::sleep(wait);
        tokio::pin!(until);
        loop {
            tokio::select! {
                biased;
                () = &mut until => return,
                () = shutdown.cancelled() => return,
                Some(request) = self.requests.recv() => {
                    self.pending.take_in(request);
                }
            }
        }
    }
}

fn key_from_hex(text: &str) -> Result<VerifyingKey, Error> {
    let mut bytes = [0u8; 32];
    if text.len() != 64 || !text.is_ascii() {
        return Err(Error::PinnedKey);
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| Error::PinnedKey)?;
    }
    VerifyingKey::from_bytes(&bytes).map_err(|_| Error::PinnedKey)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
