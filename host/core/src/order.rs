//! What an agent is told to do, and what it answers. Signed by the host, refused by the agent if anything is off.

use crate::{
    id::{Digest, NodeId},
    plan::{Plan, PlanHash},
    subject::Target,
    time::Time,
    value::Value,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Which side of a step is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Forward,
    Compensate,
}

/// `hash(plan, step, direction, target generation)`: a step has one, so a repeat is known as one. A repeat is
/// answered with the recorded result.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct IdempotencyKey(pub String);

impl IdempotencyKey {
    pub fn derive(plan: &PlanHash, step: u32, direction: Direction, target: &Target) -> Self {
        let direction = match direction {
            Direction::Forward => "forward",
            Direction::Compensate => "compensate",
        };
        let text = format!("aether.key.v1\n{plan}\n{step}\n{direction}\n{target}");
        Self(blake3::hash(text.as_bytes()).to_hex().to_string())
    }
}

impl std::fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// One order to one agent. It travels together with the canonical bytes of the plan: the agent hashes those, compares
/// with `plan`, and takes verb, target and arguments of `step` from them. So nothing that an approver saw can differ
/// from what is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Order {
    pub key: IdempotencyKey,
    pub plan: PlanHash,
    /// Index of the step within the plan, from 0.
    pub step: u32,
    pub direction: Direction,
    /// What is acted on, and of which generation: that of the plan's step.
    pub target: Target,
    /// Who decided that it is done, as the plan names them.
    pub decided_by: Provenance,
    /// The agent that is meant; any other refuses.
    pub node: NodeId,
    /// Of the lease that the host held when it sent this: an agent refuses what was sent under an older one than it
    /// knows of. 0 where hosts have no lease.
    pub lease: u64,
    /// Rises with every reservation of the host: an agent refuses an order with a lower fence than it has seen for the target.
    pub fence: u64,
    /// Drawn anew for each dispatch.
    pub nonce: String,
    /// After this the agent refuses to begin.
    pub execute_by: Time,
    /// What earlier steps produced and this one needs, such as `manifest` (the digest of a snapshot's manifest).
    pub inputs: BTreeMap<String, String>,
}

impl Order {
    /// Stands before what is signed, so that it can be taken for nothing else.
    pub const DOMAIN: &[u8] = b"aether.order.v2\n";

    /// The bytes that the host signs (ed25519) and the agent verifies: canonical JSON of the order behind a domain tag.
    pub fn signed_bytes(&self) -> Vec<u8> {
        [Self::DOMAIN, &crate::plan::canonical(self)].concat()
    }
}

/// The three outcomes. Unknown is never retried by itself: it calls a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeStatus {
    Succeeded,
    Failed,
    Unknown,
}

/// How a step ended, in the agent's words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Outcome {
    pub status: OutcomeStatus,
    /// A stable code such as `ok`, `criu.missing`, `snapshot.corrupt`.
    pub code: String,
    /// For a person: what happened, what was not lost, what to do.
    pub message: String,
    /// Typed facts: bytes, durations, the progress at the time.
    pub evidence: BTreeMap<String, Value>,
    /// What a later step needs, such as `manifest`.
    pub outputs: BTreeMap<String, String>,
    /// Nothing was really done: a dry run, or a simulated executor.
    pub simulated: bool,
    pub started_at: Time,
    pub ended_at: Time,
}

/// The components that proposed and let through what is ordered, and the policy that was in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Provenance {
    pub planner: Digest,
    pub gates: Vec<Digest>,
    pub policy_bundle: Digest,
}

impl Provenance {
    pub fn of(plan: &Plan) -> Self {
        let Plan { planner, gates, policy_bundle, .. } = plan;
        Self { planner: planner.clone(), gates: gates.clone(), policy_bundle: policy_bundle.clone() }
    }
}
