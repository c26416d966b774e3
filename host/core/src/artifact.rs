//! The eight artifacts that an incident leaves, in order: compact documents that refer to evidence and never carry raw
//! telemetry. Each holds the hash of the one before it.

use crate::{
    decision::{BlastRadius, Demand, Proposal, Reason, Risk},
    id::{ArtifactId, DecisionId, Digest, IncidentId, NodeId},
    incident::{Approval, Reading, Resolution, StepRecord},
    plan::{Plan, PlanHash, Shape},
    subject::{Subject, SubjectRef},
    time::Time,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    ObservationSummary,
    AnomalyFinding,
    RootCauseHypothesis,
    RemediationProposal,
    ExecutionPlan,
    ExecutionResult,
    VerificationResult,
    IncidentReport,
}

impl Kind {
    pub const ALL: [Kind; 8] = [
        Kind::ObservationSummary,
        Kind::AnomalyFinding,
        Kind::RootCauseHypothesis,
        Kind::RemediationProposal,
        Kind::ExecutionPlan,
        Kind::ExecutionResult,
        Kind::VerificationResult,
        Kind::IncidentReport,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::ObservationSummary => "observation_summary",
            Kind::AnomalyFinding => "anomaly_finding",
            Kind::RootCauseHypothesis => "root_cause_hypothesis",
            Kind::RemediationProposal => "remediation_proposal",
            Kind::ExecutionPlan => "execution_plan",
            Kind::ExecutionResult => "execution_result",
            Kind::VerificationResult => "verification_result",
            Kind::IncidentReport => "incident_report",
        }
    }

    /// Who makes it and who reads it first.
    pub fn roles(self) -> (Role, Role) {
        match self {
            Kind::ObservationSummary => (Role::Observer, Role::Analyzer),
            Kind::AnomalyFinding => (Role::Analyzer, Role::Analyzer),
            Kind::RootCauseHypothesis => (Role::Analyzer, Role::Planner),
            Kind::RemediationProposal => (Role::Planner, Role::PolicyGate),
            Kind::ExecutionPlan => (Role::PolicyGate, Role::Executor),
            Kind::ExecutionResult => (Role::Executor, Role::Verifier),
            Kind::VerificationResult => (Role::Verifier, Role::Memory),
            Kind::IncidentReport => (Role::Memory, Role::Memory),
        }
    }
}

/// Who owns an artifact. Only the executor may change live state, and only where posture and approval allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ArtifactRole)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Observer,
    Analyzer,
    Planner,
    PolicyGate,
    Executor,
    Verifier,
    Memory,
}

/// Where what an artifact says can be seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// A series of the recorder, and the window that was looked at.
    Series { subject: SubjectRef, metric: String, from: Time, to: Time },
    /// A decision's envelope.
    Decision { id: DecisionId, component: Digest },
    /// An agent's journal entry.
    Journal { node: NodeId, position: u64 },
    /// A snapshot's manifest.
    Manifest { digest: Digest },
}

/// What an artifact came about under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Flags {
    /// Signals came from a drill.
    pub drill: bool,
    /// Nothing was changed, on purpose.
    pub dry_run: bool,
    /// An agent's simulated executor answered.
    pub simulated: bool,
    /// Made by replaying a recorded incident.
    pub replayed: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Artifact {
    pub id: ArtifactId,
    pub schema_version: u32,
    pub producer: Role,
    pub consumer: Role,
    pub incident: IncidentId,
    /// The run of the workflow `remediation`; one per incident.
    pub workflow: String,
    /// Follows a trouble through folded and reopened incidents: the digest of its shape.
    pub correlation: String,
    pub at: Time,
    pub status: Status,
    /// The artifacts that it was made from.
    pub parents: Vec<ArtifactId>,
    pub evidence: Vec<Evidence>,
    pub flags: Flags,
    pub body: Body,
    /// Hash of the artifact before; none for the first.
    pub previous: Option<Digest>,
    /// BLAKE3 of the canonical JSON of all the above.
    pub hash: Digest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ArtifactStatus)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Complete,
    /// A plan that waits for approval.
    Pending,
    Refused,
    Failed,
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    ObservationSummary {
        subject: Subject,
        /// The newest value of each input that was looked at.
        readings: Vec<SummaryReading>,
        /// Events in the window, newest last.
        events: Vec<SummaryEvent>,
    },
    AnomalyFinding {
        shape: Shape,
        subject: Subject,
        risk: Risk,
        first_seen: Time,
        /// How many evaluations in a row said so.
        consecutive: u32,
        /// Scorers that could not say, with the reason.
        unknown: Vec<String>,
    },
    RootCauseHypothesis {
        cause: String,
        explanation: String,
        confidence: f64,
        contributions: Vec<String>,
        workloads: Vec<Subject>,
    },
    RemediationProposal {
        /// None when no planner had a proposal that stands.
        chosen: Option<Proposal>,
        /// Considered and not chosen, with the reason.
        refused: Vec<Reason>,
        considered: u32,
    },
    ExecutionPlan {
        plan: Plan,
        hash: PlanHash,
        blast: BlastRadius,
        reasons: Vec<Reason>,
        /// None: no approval is needed.
        demand: Option<Demand>,
        approve_by: Option<Time>,
        denied: bool,
    },
    ExecutionResult {
        steps: Vec<StepRecord>,
        approvals: Vec<Approval>,
        /// Done, undone, or why not.
        summary: String,
    },
    VerificationResult {
        verified: bool,
        before: Vec<Reading>,
        after: Vec<Reading>,
        watch_ms: u64,
        /// Evidence that is weak says so.
        weak: Vec<String>,
        summary: String,
    },
    IncidentReport {
        resolution: Resolution,
        summary: String,
        timeline: Vec<TimelineEntry>,
        recurrences: u32,
        duration_ms: u64,
        /// What a person has to do, if anything.
        action_needed: Option<String>,
    },
}

impl Body {
    pub fn kind(&self) -> Kind {
        match self {
            Body::ObservationSummary { .. } => Kind::ObservationSummary,
            Body::AnomalyFinding { .. } => Kind::AnomalyFinding,
            Body::RootCauseHypothesis { .. } => Kind::RootCauseHypothesis,
            Body::RemediationProposal { .. } => Kind::RemediationProposal,
            Body::ExecutionPlan { .. } => Kind::ExecutionPlan,
            Body::ExecutionResult { .. } => Kind::ExecutionResult,
            Body::VerificationResult { .. } => Kind::VerificationResult,
            Body::IncidentReport { .. } => Kind::IncidentReport,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SummaryReading {
    pub metric: String,
    pub unit: String,
    pub attributes: BTreeMap<String, String>,
    /// None: nothing was sampled.
    pub value: Option<f64>,
    pub at: Option<Time>,
    pub samples: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SummaryEvent {
    pub name: String,
    pub at: Time,
    pub attributes: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TimelineEntry {
    pub at: Time,
    pub text: String,
}

impl Artifact {
    pub const SCHEMA_VERSION: u32 = 1;

    /// The hash that the artifact ought to have.
    pub fn computed_hash(&self) -> Digest {
        let mut unhashed = self.clone();
        unhashed.hash = Digest(String::new());
        Digest::of(&crate::plan::canonical(&unhashed))
    }
}

/// Whether `artifacts` are whole: each hash right, each naming the one before. Names the first that is not.
pub fn verify_chain(artifacts: &[Artifact]) -> Result<(), ArtifactId> {
    let mut previous = None;
    for artifact in artifacts {
        if artifact.previous != previous || artifact.hash != artifact.computed_hash() {
            return Err(artifact.id.clone());
        }
        previous = Some(artifact.hash.clone());
    }
    Ok(())
}
