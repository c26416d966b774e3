//! Who is let in: the first frame of a stream, from `Hello` to `Welcome` or `Refused`.
//!
//! Nothing is said of the fleet to whoever did not prove who they are. A join token is bound to the node that used it,
//! and serves that same node again until it expires, so that a `Welcome` that got lost is no dead end.

use super::{
    Inner,
    collection::Collections,
    convert, counters,
    outgoing::Outgoing,
    registry::{Live, NotClaimed, Pulse, Report},
};
use crate::{
    clock,
    store::{
        self,
        nodes::{NodeRow, draw_secret, secret_hash},
    },
};
use aether_core::id::NodeId;
use aether_proto::{
    CHUNK_BYTES, PROTOCOL_VERSIONS, principal_name,
    v1::{self, credentials, principal},
};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

const CREDENTIAL_PREFIX: &str = "aether-node-";
/// One text for every way of not being known, so that nothing is told to who tries.
const UNAUTHENTICATED: &str = "the token or credential is not valid for this node: make a new join token on the host and \
                               start the agent with it";

/// Why a stream is not let in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: &'static str,
    pub(crate) reason: String,
    pub(crate) retry_after_ms: u32,
}

impl Refusal {
    fn for_good(code: &'static str, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), retry_after_ms: 0 }
    }

    pub(crate) fn hello(reason: impl Into<String>) -> Self {
        Self::for_good("protocol.hello", reason)
    }

    /// Come again, not all at once.
    pub(crate) fn overloaded(what: &str) -> Self {
        let reason =
            format!("the host has as many {what} as it may: nothing is wrong with this participant, try again later");
        Self { code: "overloaded", reason, retry_after_ms: jitter_ms(1_000, 4_000) }
    }

    pub(crate) fn draining(reason: &str) -> Self {
        let reason = format!("the host is stopping: {reason}");
        Self { code: "draining", reason, retry_after_ms: jitter_ms(1_000, 2_000) }
    }

    fn store(error: &store::Error) -> Self {
        tracing::error!(%error, source = ?std::error::Error::source(error), "a node could not be let in");
        let reason = "the host could not read or write what it knows of the node; its log says why".to_owned();
        Self { code: "overloaded", reason, retry_after_ms: jitter_ms(1_000, 4_000) }
    }
}

fn jitter_ms(base: u32, spread: u32) -> u32 {
    // Without randomness all come at the end of the spread.
    let random = clock::secret::<4>().map_or(spread, u32::from_le_bytes);
    base + random % (spread + 1)
}

/// A session that may begin.
pub(crate) struct Admitted {
    pub(crate) node: NodeId,
    pub(crate) session: String,
    pub(crate) end: CancellationToken,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) pushed_aside: bool,
    /// As far as `welcome` tells of them.
    pub(crate) collections: watch::Receiver<Arc<Collections>>,
    pub(crate) welcome: v1::Welcome,
}

/// How a node proved who it is.
enum Proof {
    Credential,
    Token { token: String, named: bool, used: bool },
}

pub(crate) async fn admit(
    fabric: &Inner,
    frame: v1::ClientFrame,
    outgoing: &mpsc::Sender<Outgoing>,
) -> Result<Admitted, Refusal> {
    let v1::ClientFrame { sequence, sent_at_ms, traceparent: _, payload } = frame;
    let Some(v1::client_frame::Payload::Hello(hello)) = payload else {
        return Err(Refusal::hello("the first frame must be `Hello`"));
    };
    if sequence != 1 {
        return Err(Refusal::hello("the first frame must have the sequence 1"));
    }
    let v1::Hello {
        principal,
        credentials,
        protocol_versions,
        software_version,
        instance_id,
        boot_id,
        resume: _,
        capabilities,
        workloads,
        extensions: _,
        knows_host_heartbeat,
    } = hello;
    let Some(version) = PROTOCOL_VERSIONS.iter().find(|ours| protocol_versions.iter().any(|theirs| theirs == *ours))
    else {
        let reason = format!(
            "this host speaks the protocol {}, and the participant {}: update the older one",
            PROTOCOL_VERSIONS.join(", "),
            convert::shown(&protocol_versions.join(", "))
        );
        return Err(Refusal::for_good("protocol.version", reason));
    };
    let principal = principal.ok_or_else(|| Refusal::hello("`principal` is missing"))?;
    let (kind, name) = principal_name(&principal).map_err(|malformed| Refusal::hello(malformed.to_string()))?;
    let Some(principal::Kind::NodeAgent(v1::NodeAgent { node })) = principal.kind else {
        let reason =
            format!("this host serves node agents; it knows `{kind}` (here `{name}`) and does not serve it yet");
        return Err(Refusal::for_good("principal.not-served", reason));
    };
    let node = NodeId(node);
    for (what, value, limit) in
        [("instance_id", &instance_id, 128), ("boot_id", &boot_id, 128), ("software_version", &software_version, 128)]
    {
        let plain = value.len() <= limit && value.chars().all(|c| c.is_ascii_graphic() || c == ' ');
        if !plain || (value.is_empty() && what != "software_version") {
            return Err(Refusal::hello(format!("`{what}` must be 1 to {limit} printable characters")));
        }
    }
    let report = |error: String| Refusal::hello(error);
    let (capabilities, facts) = convert::capabilities(capabilities.unwrap_or_default()).map_err(report)?;
    let workloads =
        convert::workloads(workloads.unwrap_or_default(), fabric.settings.workloads_per_node).map_err(report)?;

    let now = clock::now();
    let before = fabric.registry().nodes.get(&node).map(|known| known.row.clone());
    let kind = credentials.and_then(|credentials| credentials.kind);
    let proof = prove(fabric, &node, &instance_id, before.as_ref(), kind).await?;

    let mut credential = String::new();
    let mut row = match before.clone() {
        Some(row) => row,
        None => NodeRow {
            id: node.clone(),
            instance: instance_id.clone(),
            boot: boot_id.clone(),
            generation: 0,
            credential_hash: String::new(),
            registered_at: now,
            last_seen_at: None,
            report: Report::default(),
        },
    };
    let replaced = row.instance != instance_id;
    if replaced && !matches!(proof, Proof::Token { named: true, used: false, .. }) {
        let reason = format!(
            "`{node}` is registered by another machine or state folder. If this one replaces it, make a join token for \
             `{node}` by name and start the agent with it; else give this one another name"
        );
        return Err(Refusal::for_good("identity.instance", reason));
    }
    if before.is_none() || replaced || row.boot != boot_id {
        row.generation += 1;
    }
    if replaced {
        row.registered_at = now;
    }
    row.instance = instance_id;
    row.boot = boot_id;
    row.last_seen_at = Some(now);
    row.report.software_version = software_version;
    row.report.capabilities = capabilities;
    row.report.facts = facts;
    row.report.set_workloads(workloads);
    // It is awake.
    row.report.asleep = None;
    let join_token = match &proof {
        Proof::Credential => None,
        Proof::Token { token, .. } => {
            credential = draw_secret(CREDENTIAL_PREFIX).map_err(|error| {
                tracing::error!(%error, "no randomness for a credential");
                Refusal::overloaded("sessions under way")
            })?;
            row.credential_hash = secret_hash(&credential).to_hex().to_string();
            Some(token.as_str())
        }
    };

    let session = clock::id("ses");
    let end = CancellationToken::new();
    let live =
        Live { session: session.clone(), since: now, ready: false, outgoing: outgoing.clone(), end: end.clone() };
    let (pulse, pushed_aside) = {
        let mut registry = fabric.registry();
        let claimed = registry
            .claim(before.as_ref(), row.clone(), live, &fabric.settings)
            .map_err(|problem| not_claimed(&node, problem))?;
        registry.beat(&claimed.0, now, sent_at_ms);
        counters::sessions(registry.live());
        claimed
    };
    let unchanged =
        before.as_ref().is_some_and(|known| NodeRow { last_seen_at: row.last_seen_at, ..known.clone() } == row);
    if !unchanged && let Err(error) = fabric.store.register_node(&row, join_token, now).await {
        fabric.registry().withdraw(&node, &session, before);
        return Err(match error {
            // Another node was faster with the same token.
            store::Error::Conflict(_) => Refusal::for_good("unauthenticated", UNAUTHENTICATED),
            error => Refusal::store(&error),
        });
    }
    let mut collections = fabric.collections.subscribe();
    let host_heartbeat_ms =
        if knows_host_heartbeat { fabric.settings.host_heartbeat_ms } else { fabric.settings.heartbeat_ms };
    let ms = |ms: u64| u32::try_from(ms).unwrap_or(u32::MAX);
    let welcome = v1::Welcome {
        session_id: session.clone(),
        protocol_version: (*version).to_owned(),
        credential,
        host_public_key: fabric.signer.verifying_key().to_bytes().to_vec(),
        generation: row.generation,
        heartbeat_ms: ms(fabric.settings.heartbeat_ms),
        host_heartbeat_ms: ms(host_heartbeat_ms),
        limits: Some(v1::SessionLimits {
            frame_bytes: u32::try_from(fabric.settings.frame_bytes).unwrap_or(u32::MAX),
            batches_in_flight: fabric.settings.batches_in_flight,
            chunks_in_flight: fabric.settings.chunks_in_flight,
            chunk_bytes: u32::try_from(CHUNK_BYTES).unwrap_or(u32::MAX),
        }),
        agent_config: Some(collections.borrow_and_update().of(&node, &fabric.settings)),
        telemetry_ack: fabric.recorder.safe(&node).borrow().as_ref().map(super::session::ack),
        lease: fabric.store.lease(),
        telemetry_schema: aether_proto::telemetry::SCHEMA_ID,
        telemetry_any_order: true,
    };
    Ok(Admitted { node, session, end, pulse, pushed_aside, collections, welcome })
}

async fn prove(
    fabric: &Inner,
    node: &NodeId,
    instance: &str,
    known: Option<&NodeRow<Report>>,
    credentials: Option<credentials::Kind>,
) -> Result<Proof, Refusal> {
    let unauthenticated = || Refusal::for_good("unauthenticated", UNAUTHENTICATED);
    match credentials {
        Some(credentials::Kind::Credential(credential)) => {
            // Compared in constant time; a node that is not known costs the same as a wrong credential.
            let kept = known.and_then(|row| blake3::Hash::from_hex(&row.credential_hash).ok());
            let same = secret_hash(&credential) == kept.unwrap_or_else(|| blake3::Hash::from_bytes([0; 32]));
            if kept.is_some() && same { Ok(Proof::Credential) } else { Err(unauthenticated()) }
        }
        Some(credentials::Kind::JoinToken(token)) => {
            let found = fabric.store.find_join_token(&token, node, instance, clock::now()).await;
            let found = found.map_err(|error| Refusal::store(&error))?.ok_or_else(unauthenticated)?;
            Ok(Proof::Token { token, named: found.named, used: found.used })
        }
        Some(credentials::Kind::ApiKey(_) | credentials::Kind::TaskToken(_) | credentials::Kind::OidcToken(_))
        | None => {
            let reason = "a node agent shows a join token or the credential that it was welcomed with";
            Err(Refusal::for_good("unauthenticated", reason))
        }
    }
}

fn not_claimed(node: &NodeId, problem: NotClaimed) -> Refusal {
    match problem {
        NotClaimed::InUse { for_ms, silent_ms, free_in_ms } => Refusal {
            code: "identity.in-use",
            reason: format!(
                "`{node}` has had a session for {for_ms} ms, heard of {silent_ms} ms ago; it is free once that one has \
                 been silent for {free_in_ms} ms more. If two agents run under this name, stop one"
            ),
            retry_after_ms: u32::try_from(free_in_ms).unwrap_or(u32::MAX).max(1),
        },
        NotClaimed::Overloaded => {
            counters::limit("sessions_maximum");
            Refusal::overloaded("sessions")
        }
        NotClaimed::Changed => Refusal {
            code: "identity.in-use",
            reason: format!("`{node}` was registered by another stream at the same time"),
            retry_after_ms: jitter_ms(500, 1_000),
        },
        NotClaimed::Draining(reason) => Refusal::draining(&reason),
    }
}
