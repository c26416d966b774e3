//! What components are asked and what they answer: one question and one answer type for all four roles, so that
//! recording, replaying and backtesting a decision is the same for each.

use crate::{
    catalogue::{SafetyClass, Verb},
    id::{DecisionId, Digest, EntryId, SlotId},
    observation::{Input, Observation},
    slot::Stage,
    subject::{Subject, Target},
    time::Time,
    value::Value,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What a component is for; each has a world of its own in `wit/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    RiskScorer,
    RemediationPlanner,
    PolicyGate,
    Router,
}

impl Role {
    pub const ALL: [Role; 4] = [Role::RiskScorer, Role::RemediationPlanner, Role::PolicyGate, Role::Router];

    /// The world's name, such as `risk-scorer`.
    pub fn world(self) -> &'static str {
        match self {
            Role::RiskScorer => "risk-scorer",
            Role::RemediationPlanner => "remediation-planner",
            Role::PolicyGate => "policy-gate",
            Role::Router => "router",
        }
    }
}

/// What a component says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Description {
    pub name: String,
    pub version: String,
    pub summary: String,
    pub inputs: Vec<Input>,
    /// A JSON schema; the config of a slot's entry is checked against it.
    pub config_schema: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Low,
    Elevated,
    High,
    Critical,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Contribution {
    /// Index into the component's declared inputs.
    pub input: u32,
    pub weight: f64,
    pub note: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Risk {
    pub level: Level,
    /// Probability that the subject fails or is lost within the horizon, 0 to 1.
    pub score: f64,
    /// How sure the model is of that score, 0 to 1.
    pub confidence: f64,
    pub horizon_ms: Option<u64>,
    /// A stable code such as `spot.rebalance` or `gpu.xid.79`.
    pub cause: String,
    pub reason: String,
    pub contributions: Vec<Contribution>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Assessment {
    Risk(Risk),
    /// Too little data to say; with what is missing.
    Insufficient(String),
}

/// A bound on a metric of a target, on evidence at most `fresh_within_ms` old.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Condition {
    pub metric: String,
    pub target: Target,
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
    pub fresh_within_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Undo what was done, in reverse order.
    Compensate,
    /// Leave all as it is and call a person.
    Stop,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProposedStep {
    pub verb: String,
    pub target: Target,
    pub arguments: BTreeMap<String, Value>,
    pub preconditions: Vec<Condition>,
    pub on_failure: OnFailure,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Proposal {
    pub title: String,
    pub rationale: String,
    pub steps: Vec<ProposedStep>,
    pub success: Vec<Condition>,
    pub watch_ms: u64,
    pub confidence: f64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// Stable; what tests, metrics and translations use.
    pub code: String,
    pub text: String,
}

/// What a planner is told of an anomaly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlanningFinding {
    pub id: String,
    pub subject: Subject,
    pub risk: Risk,
    pub first_seen: Time,
    pub recurrences: u32,
    pub attempts: u32,
    /// What runs on the subject.
    pub workloads: Vec<Subject>,
}

/// A node that could take work, best first as the router ranks them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Candidate {
    pub node: Subject,
    pub free: Vec<Observation>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BlastRadius {
    pub nodes: u32,
    pub gpus: u32,
    pub workloads: u32,
    /// Share of the largest touched pool's nodes, 0 to 100.
    pub pool_percent: f64,
    /// Share of the fleet's nodes, 0 to 100.
    pub fleet_percent: f64,
}

/// A recent action on one of the targets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Activity {
    pub verb: String,
    pub target_id: String,
    pub at: Time,
    /// None: unknown.
    pub succeeded: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GateQuestion {
    pub at: Time,
    /// The operators' time zone, for change windows.
    pub utc_offset_minutes: i32,
    pub proposal: Proposal,
    pub risk: Risk,
    pub class: SafetyClass,
    pub blast: BlastRadius,
    pub recent: Vec<Activity>,
    pub dry_run: bool,
}

/// What must be given before a plan may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Demand {
    pub approvers: u32,
    /// The least role that counts as an approver, such as `approver` or `admin`.
    pub role: String,
    pub approve_within_ms: u64,
    pub execute_within_ms: u64,
    /// Whether an approval needs a comment.
    pub comment: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Allow,
    Deny,
    RequireApproval(Demand),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Judgement {
    pub verdict: Verdict,
    pub reasons: Vec<Reason>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Placement {
    pub workload: Subject,
    pub needs: BTreeMap<String, String>,
    pub nodes: Vec<Observation>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Message {
    pub source: String,
    pub topic: String,
    pub kind: String,
    pub attributes: BTreeMap<String, String>,
    pub size_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RoutingQuestion {
    Placement(Placement),
    Message(Message),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Choice {
    pub id: String,
    pub score: f64,
    pub reason: Reason,
}

/// Everything a component is asked in one evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    Score(Observation),
    Plan { finding: PlanningFinding, evidence: Observation, candidates: Vec<Candidate>, catalogue: Vec<Verb> },
    Judge(GateQuestion),
    Route(RoutingQuestion),
}

impl Question {
    pub fn role(&self) -> Role {
        match self {
            Question::Score(_) => Role::RiskScorer,
            Question::Plan { .. } => Role::RemediationPlanner,
            Question::Judge(_) => Role::PolicyGate,
            Question::Route(_) => Role::Router,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Assessment(Assessment),
    Proposals(Vec<Proposal>),
    Judgement(Judgement),
    Choices(Vec<Choice>),
}

/// Why an evaluation gave no answer: the host's words, never the guest's (but for `Refused`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    pub kind: FaultKind,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Ran out of fuel: the semantic limit, deterministic.
    OutOfFuel,
    /// The watchdog stopped it: the wall-clock limit.
    TimedOut,
    OutOfMemory,
    StackOverflow,
    /// Unreachable code, a bad index, a division by zero: the guest's own bug.
    Trapped,
    /// The answer was larger than the output limit, or not well formed (NaN score, too many items).
    BadOutput,
    /// A host call went beyond its limit.
    HostCall,
    /// The guest answered with an error of its own.
    Refused,
    /// The pool had no room within the wait limit: nothing was evaluated.
    Overloaded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Debug,
    Info,
    Warn,
    Error,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    pub severity: Severity,
    pub message: String,
}

/// One call of the guest into the host, with its answer, so that a replay can give the same one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostCall {
    pub function: String,
    pub request: serde_json::Value,
    pub response: serde_json::Value,
}

/// Limits of one evaluation. Each hit is a fault with its own kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// wasmtime's fuel, about one unit an instruction.
    pub fuel: u64,
    /// Wall clock, the watchdog only.
    pub deadline_ms: u64,
    /// All linear memories and tables of a store together.
    pub memory_bytes: u64,
    /// All strings and lists of the answer together.
    pub output_bytes: u64,
    pub log_lines: u32,
    pub log_line_bytes: u32,
    pub host_calls: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel: 50_000_000,
            deadline_ms: 250,
            memory_bytes: 32 << 20,
            output_bytes: 256 << 10,
            log_lines: 64,
            log_line_bytes: 2 << 10,
            host_calls: 256,
        }
    }
}

impl Limits {
    /// What no bundle can exceed.
    pub const MAXIMUM: Limits = Limits {
        fuel: 5_000_000_000,
        deadline_ms: 5_000,
        memory_bytes: 256 << 20,
        output_bytes: 4 << 20,
        log_lines: 1_000,
        log_line_bytes: 8 << 10,
        host_calls: 10_000,
    };
}

/// The record of one evaluation: all that is needed to run it again, bit for bit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Envelope {
    pub schema_version: u32,
    pub id: DecisionId,
    pub slot: SlotId,
    /// Of the slot, when it was asked.
    pub generation: u64,
    /// Which entry of the slot, and how far it had come: a shadow's answer had no effect.
    pub entry: EntryId,
    pub stage: Stage,
    pub component: Digest,
    /// Name and version as the component describes itself.
    pub component_name: String,
    pub component_version: String,
    pub config: Digest,
    /// The set of files that it could read; none: it had none.
    #[serde(default)]
    pub assets: Option<Digest>,
    pub wit_version: String,
    pub engine_version: String,
    pub limits: Limits,
    pub at: Time,
    pub question: Question,
    pub host_calls: Vec<HostCall>,
    pub log: Vec<LogLine>,
    #[schema(value_type = Object)]
    pub outcome: Result<Answer, Fault>,
    pub fuel: u64,
    pub memory_bytes: u64,
    pub duration_us: u64,
}
