//! What the host knows of a node, as the API shows it and the store keeps it.

use aether_core::{
    id::{NodeId, PrincipalId, WorkloadId},
    snapshot::Tier,
    time::Time,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Something that an agent can do, or why it cannot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CapabilityView {
    pub name: String,
    pub available: bool,
    /// Why it is missing; empty when available.
    pub reason: String,
    /// What took over, if anything.
    pub fallback: String,
    /// The executor only pretends.
    pub simulated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkloadState {
    Running,
    /// Checkpointed, and left stopped for a migration that is not confirmed yet.
    Stopped,
    Exited,
}

/// A workload as its agent reported it last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkloadView {
    pub id: WorkloadId,
    pub name: String,
    pub tier: Tier,
    pub generation: u64,
    pub state: WorkloadState,
    pub since: Time,
    pub pid: u32,
    /// The agent found it running, instead of starting or restoring it.
    pub adopted: bool,
}

/// A node and its agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    pub id: NodeId,
    /// Rises when the machine boots or the node is registered anew.
    pub generation: u64,
    /// Whether it has a session now.
    pub live: bool,
    pub registered_at: Time,
    /// When its session began, while it is live.
    pub connected_since: Option<Time>,
    /// When the host last heard of it.
    pub last_seen: Option<Time>,
    /// The agent's clock minus the host's, with the time of the way in it.
    pub clock_skew_ms: Option<i64>,
    pub software_version: String,
    /// Drawn when the agent's state folder was made.
    pub instance: String,
    /// In order of name.
    pub capabilities: Vec<CapabilityView>,
    /// Such as `host.arch`, `os.kernel.release`, `criu.version`.
    pub facts: BTreeMap<String, String>,
    /// In order of id.
    pub workloads: Vec<WorkloadView>,
    /// Set by a person, and lifted by one.
    pub cordon: Option<Cordon>,
    pub telemetry: TelemetryView,
}

impl NodeView {
    /// What its agent's file says of it, such as its pool.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.facts.get(&format!("label.{name}")).map(String::as_str)
    }

    /// Whether something may be placed there: it is neither drained by a plan nor cordoned by a person.
    pub fn takes_work(&self) -> bool {
        self.cordon.is_none() && !self.facts.contains_key(aether_core::catalogue::fact::DRAINED)
    }
}

/// A person's word that nothing be placed on a node. No plan lifts it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cordon {
    pub by: PrincipalId,
    pub name: String,
    pub at: Time,
    pub reason: String,
}

/// How a node's telemetry comes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TelemetryView {
    /// The spool's epoch of the position below.
    pub epoch: Option<u64>,
    /// The last batch that is safe on the host's disk and acknowledged.
    pub acknowledged: Option<u64>,
    /// Since the host started: batches taken, seen twice, refused, and told as lost by the agent's spool.
    pub batches: u64,
    pub duplicates: u64,
    pub rejected: u64,
    pub lost: u64,
}
