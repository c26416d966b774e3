//! What the host knows of a node, as the API shows it and the store keeps it.

use aether_core::{
    id::{NodeId, PrincipalId, WorkloadId},
    order::IdempotencyKey,
    plan::PlanHash,
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
    /// It sleeps on order: it is away on purpose, and not lost.
    pub asleep: Option<Asleep>,
    pub telemetry: TelemetryView,
}

impl NodeView {
    /// Whether something may be placed there.
    pub fn takes_work(&self) -> bool {
        let Self { id, live, facts, cordon, asleep, .. } = self;
        let (cordoned, asleep) = (cordon.is_some(), asleep.is_some());
        Glimpse { id, live: *live, facts, cordoned, asleep }.takes_work()
    }
}

/// A node as one looks over the fleet, where copying what is known of each would cost too much.
#[derive(Clone, Copy, Debug)]
pub struct Glimpse<'a> {
    pub id: &'a NodeId,
    pub live: bool,
    pub facts: &'a BTreeMap<String, String>,
    pub cordoned: bool,
    pub asleep: bool,
}

impl<'a> Glimpse<'a> {
    /// Whether something may be placed there: it is neither drained by a plan nor cordoned by a person.
    pub fn takes_work(&self) -> bool {
        !self.cordoned && !self.facts.contains_key(aether_core::catalogue::fact::DRAINED)
    }

    /// What its agent's file says of it, by the label's [`fact_of_label`].
    pub fn label(&self, fact: &str) -> Option<&'a str> {
        self.facts.get(fact).map(String::as_str)
    }
}

/// The fact that tells a node's label, such as `pool`.
pub fn fact_of_label(name: &str) -> String {
    format!("label.{name}")
}

/// A machine whose alarm went off is awake and its agent back within this; one that is not deserves a look.
const COMES_UP_WITHIN_MS: u64 = 300_000;

/// A sleep on order, as the node's agent announced it before it fell silent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Asleep {
    /// When it was announced.
    pub since: Time,
    pub plan: PlanHash,
    /// As `/sys/power/state` calls it.
    pub state: String,
    /// When the machine's own clock wakes it, if it was set to.
    pub wakes_at: Option<Time>,
    /// Of the order that put it to sleep.
    pub key: IdempotencyKey,
}

impl Asleep {
    /// In a few words, such as "in `mem` by the plan 1d05e3461c56".
    pub fn how(&self) -> String {
        format!("in `{}` by the plan {}", self.state, self.plan.short())
    }

    /// For how long it should have been awake by its own clock, beyond the time that a machine takes to come up.
    pub fn overdue_ms(&self, now: Time) -> Option<u64> {
        let late_ms = now.since_ms(self.wakes_at?);
        (late_ms > COMES_UP_WITHIN_MS).then_some(late_ms)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeper_that_does_not_wake_by_its_alarm_is_overdue() {
        let asleep = |wakes_at: Option<i64>| Asleep {
            since: Time(0),
            plan: PlanHash("1d05e3461c56046803fc".into()),
            state: "mem".into(),
            wakes_at: wakes_at.map(Time),
            key: IdempotencyKey("k".into()),
        };
        assert_eq!(asleep(None).overdue_ms(Time(i64::MAX)), None);
        assert_eq!(asleep(Some(1_000)).overdue_ms(Time(301_000)), None);
        assert_eq!(asleep(Some(1_000)).overdue_ms(Time(301_001)), Some(300_001));
        assert_eq!(asleep(None).how(), "in `mem` by the plan 1d05e3461c56");
    }
}
