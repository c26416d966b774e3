//! What is watched and acted on: nodes, GPUs, workloads, pools, participants.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubjectKind {
    Node,
    Gpu,
    Workload,
    Pool,
    Participant,
}

impl SubjectKind {
    pub fn name(self) -> &'static str {
        match self {
            SubjectKind::Node => "node",
            SubjectKind::Gpu => "gpu",
            SubjectKind::Workload => "workload",
            SubjectKind::Pool => "pool",
            SubjectKind::Participant => "participant",
        }
    }
}

/// A subject's name, without its generation. What telemetry is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct SubjectRef {
    pub kind: SubjectKind,
    pub id: String,
}

impl SubjectRef {
    pub fn node(id: impl Into<String>) -> Self {
        Self { kind: SubjectKind::Node, id: id.into() }
    }
    pub fn workload(id: impl Into<String>) -> Self {
        Self { kind: SubjectKind::Workload, id: id.into() }
    }
}

impl std::fmt::Display for SubjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind.name(), self.id)
    }
}

/// A subject of one generation: what an action is aimed at. `generation` rises whenever the subject is replaced
/// (a reboot, a restore, a re-registration), so that an order meant for the former one is refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct Target {
    pub kind: SubjectKind,
    pub id: String,
    pub generation: u64,
}

impl Target {
    pub fn subject(&self) -> SubjectRef {
        SubjectRef { kind: self.kind, id: self.id.clone() }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (generation {})", self.subject(), self.generation)
    }
}

/// A subject as a component sees it. For a workload the label `node` names the node it runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Subject {
    pub kind: SubjectKind,
    pub id: String,
    pub generation: u64,
    pub labels: BTreeMap<String, String>,
}

impl Subject {
    pub fn target(&self) -> Target {
        Target { kind: self.kind, id: self.id.clone(), generation: self.generation }
    }
    pub fn subject(&self) -> SubjectRef {
        SubjectRef { kind: self.kind, id: self.id.clone() }
    }
}
