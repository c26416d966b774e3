//! What the API answers with where the core has no document of its own. Times are UTC milliseconds, as everywhere.
//!
//! Incidents, artifacts, plans and decisions are not here: the API hands out the very documents of `aether_core`.

mod slots;

pub use slots::{
    AddedEntry, Figures, FixtureOutcome, MissingEntry, Promotion, Retirement, RollBack, SlotEntry, SlotHistory,
    SlotNews, SlotStatus, Slots,
};

use crate::fabric::{Collection, WorkloadState};
use crate::plugins::registry;
use crate::store::{IncidentSummary, audit, break_glass::BreakGlass, dead_letters::DeadLetter, drills::Drill, tokens};
use aether_core::{
    artifact::{Artifact, TimelineEntry},
    breaker::Standing,
    decision::{BlastRadius, Demand, Description, Proposal, Reason, Risk, Role},
    drill,
    id::{DecisionId, Digest, IncidentId, NodeId, PrincipalId, SlotId, WorkloadId},
    incident::{Approval, Phase, Rank, Reading, StepRecord},
    plan::{Forecast, Plan, PlanHash},
    policy::Posture,
    snapshot::Tier,
    subject::SubjectRef,
    telemetry::{DiscreteEvent, SeriesKey},
    time::Time,
    value::Value,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Backtests, the newest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BacktestList {
    pub backtests: Vec<crate::plugins::backtest::BacktestInfo>,
}

/// One backtest.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BacktestDetail {
    pub backtest: crate::plugins::backtest::BacktestInfo,
    /// None: it still runs, or there is none, and `failure` says why.
    pub report: Option<aether_core::backtest::Report>,
}

/// Who is signed in.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Session {
    pub principal: PrincipalId,
    pub name: String,
    pub rank: Rank,
    pub expires_at: Option<Time>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// An API token, as it was shown when it was made.
    pub token: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = HostStatus)]
pub struct Status {
    pub version: String,
    pub started_at: Time,
    pub uptime_ms: u64,
    pub now: Time,
    pub posture: Posture,
    pub bundle: Option<BundleInfo>,
    pub recorder: RecorderStatus,
    /// Drills whose signals are not calmed yet. Empty: what you see is not a drill.
    pub drills: Vec<DrillStatus>,
    /// Nodes whose executor only pretends. Empty: everything is done for real.
    pub simulated_nodes: Vec<NodeId>,
    pub nodes: u32,
    pub live_nodes: u32,
    pub open_incidents: u32,
    /// Plans that wait for an approval.
    pub waiting_plans: u32,
    /// Leaves to approve alone that are open, or over and still to be reviewed. Empty: nobody owes anything.
    pub break_glass: Vec<BreakGlass>,
    /// Breakers that are open. Empty: nothing is held back.
    pub open_breakers: Vec<Standing>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BundleInfo {
    pub name: String,
    pub version: String,
    pub summary: String,
    pub digest: Digest,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RecorderStatus {
    pub series: u64,
    pub samples: u64,
    pub hot_bytes: u64,
    pub unsealed_batches: u64,
    pub unsealed_bytes: u64,
    pub segments: u64,
    pub segment_bytes: u64,
    pub oldest: Option<Time>,
    pub newest: Option<Time>,
    pub evicted_samples: u64,
    pub rejected_batches: u64,
    pub duplicate_batches: u64,
    pub dropped_samples: u64,
    pub last_sealed: Option<Time>,
    /// Why the last seal failed, if it did. What it should hold is kept and tried again.
    pub seal_error: Option<String>,
}

impl From<aether_recorder::Status> for RecorderStatus {
    fn from(status: aether_recorder::Status) -> Self {
        let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        Self {
            series: wide(status.series),
            samples: wide(status.samples),
            hot_bytes: wide(status.hot_bytes),
            unsealed_batches: wide(status.unsealed_batches),
            unsealed_bytes: wide(status.unsealed_bytes),
            segments: wide(status.segments),
            segment_bytes: status.segment_bytes,
            oldest: status.oldest,
            newest: status.newest,
            evicted_samples: status.evicted_samples,
            rejected_batches: status.rejected_batches,
            duplicate_batches: status.duplicate_batches,
            dropped_samples: status.dropped_samples,
            last_sealed: status.last_sealed,
            seal_error: status.seal_error,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrillStatus {
    pub name: String,
    pub node: NodeId,
    pub since: Time,
}

/// What can be practised, and what was.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Drills {
    pub kinds: Vec<DrillInfo>,
    /// The newest first.
    pub drills: Vec<Drill>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrillInfo {
    pub kind: drill::Kind,
    /// What happens to the node.
    pub disturbance: String,
    /// What is expected to follow.
    pub expectation: String,
    /// How long the disturbance lasts at most, unless it is said otherwise.
    pub limit_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartDrill {
    pub kind: drill::Kind,
    /// Its agent must allow drills.
    pub node: NodeId,
    /// 5,000 to 3,600,000.
    #[serde(default)]
    pub limit_ms: Option<u64>,
}

/// A workload with where it runs and how far it is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Workload {
    pub id: WorkloadId,
    pub name: String,
    pub node: NodeId,
    /// Whether the node's agent is connected; if not, the rest is what it said last.
    pub node_live: bool,
    pub tier: Tier,
    /// Rises with every restore.
    pub generation: u64,
    pub state: WorkloadState,
    pub since: Time,
    pub pid: u32,
    /// The agent found it running, and did not start it.
    pub adopted: bool,
    /// The newest progress that the workload told, and when.
    pub progress: Option<f64>,
    pub progress_at: Option<Time>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Series {
    pub key: SeriesKey,
    pub samples: u64,
    pub first: Time,
    pub last: Time,
    /// Where its newest samples come from: a node's agent, or `signals`.
    pub origin: NodeId,
}

impl From<aether_recorder::SeriesInfo> for Series {
    fn from(info: aether_recorder::SeriesInfo) -> Self {
        let aether_recorder::SeriesInfo { key, samples, first, last, origin } = info;
        Self { key, samples: u64::try_from(samples).unwrap_or(u64::MAX), first, last, origin }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RangeAnswer {
    pub from: Time,
    pub to: Time,
    pub series: Vec<RangeSeries>,
    /// Older segments were left out, because the query reached its byte limit.
    pub cut: bool,
    /// Segments that could not be read, or not wholly: what they held is missing.
    pub unreadable: u32,
}

/// One series in buckets, as columns of equal length for charts: `at[i]` is the beginning of bucket i.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RangeSeries {
    pub key: SeriesKey,
    pub bucket_ms: u64,
    pub at: Vec<Time>,
    #[schema(value_type = Vec<Option<f64>>)]
    pub min: Vec<Option<f64>>,
    #[schema(value_type = Vec<Option<f64>>)]
    pub mean: Vec<Option<f64>>,
    #[schema(value_type = Vec<Option<f64>>)]
    pub max: Vec<Option<f64>>,
    /// The newest value in each.
    #[schema(value_type = Vec<Option<f64>>)]
    pub last: Vec<Option<f64>>,
}

impl From<aether_recorder::RangeSeries> for RangeSeries {
    fn from(series: aether_recorder::RangeSeries) -> Self {
        let finite = |value: f64| value.is_finite().then_some(value);
        let buckets = &series.buckets;
        Self {
            bucket_ms: series.bucket_ms,
            at: buckets.iter().map(|bucket| bucket.at).collect(),
            min: buckets.iter().map(|bucket| finite(bucket.min)).collect(),
            mean: buckets.iter().map(|bucket| finite(bucket.mean)).collect(),
            max: buckets.iter().map(|bucket| finite(bucket.max)).collect(),
            last: buckets.iter().map(|bucket| finite(bucket.last)).collect(),
            key: series.key,
        }
    }
}

/// The newest word on a subject.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SubjectRisk {
    pub subject: SubjectRef,
    /// When it was scored; none before the first evaluation.
    pub at: Option<Time>,
    /// None: nothing can be said, and `unknown` says why. Not the same as no risk.
    pub risk: Option<Risk>,
    pub unknown: Option<String>,
    /// The decision of the scorer that stands.
    pub decision: Option<DecisionId>,
    /// An open incident about the subject.
    pub incident: Option<IncidentId>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct IncidentPage {
    /// Newest first.
    pub incidents: Vec<IncidentSummary>,
    /// Give this as `before` for the next page; none at the end.
    pub next_before: Option<Time>,
}

/// An incident as its journal tells it, with all its artifacts.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct IncidentDetail {
    pub incident: IncidentSummary,
    pub phase: Phase,
    pub flags: aether_core::artifact::Flags,
    pub recurrences: u32,
    /// What an approval needs; none while there is no plan, and where none is needed.
    pub demand: Option<Demand>,
    pub approvals: Vec<Approval>,
    pub steps: Vec<StepRecord>,
    /// What the checkpoint of the plan was foretold to take, if any was taken on its node before.
    pub forecast: Option<ForecastView>,
    /// After this no further step begins.
    pub execute_by: Option<Time>,
    pub failure: Option<String>,
    pub timeline: Vec<TimelineEntry>,
    /// In order.
    pub artifacts: Vec<Artifact>,
    /// Whether every artifact's hash is right and names the one before.
    pub chain_verified: bool,
    /// The first artifact whose hash is not what it ought to be.
    pub chain_broken_at: Option<String>,
}

/// What was foretold of a checkpoint when the plan was made, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForecastView {
    pub workload: String,
    pub forecast: Forecast,
    /// How long the node was to be there yet, if that was known.
    pub leaves_in_ms: Option<u64>,
    /// None while it has not ended, and if it failed.
    pub took_ms: Option<u64>,
    /// By how much the forecast was wrong, in percent of what it took.
    pub error_percent: Option<u64>,
}

/// A plan, with all that an approver ought to see before saying yes.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PlanDetail {
    /// BLAKE3 of the plan's canonical JSON: what an approval binds.
    pub hash: PlanHash,
    pub plan: Plan,
    pub incident: IncidentSummary,
    pub phase: Phase,
    pub flags: aether_core::artifact::Flags,
    /// The proposal it was made from, in the planner's words.
    pub proposal: Option<Proposal>,
    pub reasons: Vec<Reason>,
    /// Counted by the host when the gates were asked.
    pub blast: Option<BlastRadius>,
    pub demand: Option<Demand>,
    pub approvals: Vec<Approval>,
    /// None: no approval is waited for.
    pub approve_by: Option<Time>,
    /// Whether it waits for an approval now.
    pub waiting: bool,
    /// The newest sample of the subject's inputs: how old the evidence is.
    pub newest_evidence_at: Option<Time>,
    pub evidence_age_ms: Option<u64>,
    /// The success conditions as read before the first step.
    pub before: Vec<Reading>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Decide {
    /// Why. Some plans demand it.
    #[serde(default)]
    pub comment: Option<String>,
    /// Under the break-glass that you hold. Of an approval only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub break_glass: bool,
}

/// Why a snapshot is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PinSnapshot {
    pub comment: String,
}

/// Where a snapshot is to be restored as a drill.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DrillSnapshot {
    /// None: where it was taken, else anywhere.
    pub node: Option<NodeId>,
}

/// Which breaker is to be closed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetBreaker {
    /// `fleet`, or such as `node/node-a` and `pool/spot`.
    pub scope: String,
    /// What was found.
    pub comment: String,
}

/// Why a node is cordoned, or is no longer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CordonWord {
    pub reason: String,
}

/// What agents are to collect from now on.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigureAgents {
    /// One node's agent; absent: all that have no word of their own.
    #[serde(default)]
    pub node: Option<String>,
    /// Absent: what was wanted before is taken back.
    #[serde(default)]
    pub collection: Option<Collection>,
    /// It stays in the audit.
    pub reason: String,
}

/// What a person asks for: one verb on one target.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestPlan {
    /// One that planners can propose; `GET /verbs` lists them.
    pub verb: String,
    /// `<kind>/<id>`, such as `node/node-a`.
    pub target: String,
    #[serde(default)]
    pub arguments: BTreeMap<String, Value>,
    /// Why; approvers and the audit see it.
    pub reason: String,
}

/// The incident in which a request is judged, approved and done.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RequestedPlan {
    pub incident: IncidentId,
}

/// Leave to approve alone, for a while.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenBreakGlass {
    /// Why it cannot wait for another person.
    pub reason: String,
    /// Default 3,600,000 (1 h); 60,000 to 28,800,000 (8 h).
    #[serde(default)]
    pub valid_for_ms: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReviewBreakGlass {
    /// What was found.
    pub comment: String,
}

/// What became of an approval, denial or withdrawal.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Decided {
    pub plan: PlanHash,
    pub incident: IncidentSummary,
    pub phase: Phase,
    pub approvals: Vec<Approval>,
}

/// A component in the plugins folder.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Plugin {
    /// The file name without `.wasm`.
    pub component: String,
    pub digest: Digest,
    pub role: Role,
    pub description: Description,
    pub size_bytes: u64,
    /// The slots that it stands in.
    pub slots: Vec<SlotId>,
    /// What the registry knows of it; none: it stands in a slot and the registry did not take it.
    pub registered: Option<Registered>,
}

/// What the registry knows of a component beside the component's own words.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = RegisteredPlugin)]
pub struct Registered {
    /// All of them granted by its world.
    pub imports: Vec<String>,
    pub provenance: registry::Provenance,
    /// Who signed it; none: it is unsigned.
    pub signature: Option<registry::SignedBy>,
    pub uploaded_at: Time,
    pub uploaded_by: PrincipalId,
    /// When it was last seen to be needed, or else uploaded.
    pub used_at: Time,
    /// Why no slot takes it any more.
    pub quarantine: Option<registry::Quarantined>,
    /// Who keeps it from being removed, for people. Empty: nobody.
    pub needed_by: Vec<String>,
}

/// What became of an upload.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct UploadedPlugin {
    pub component: registry::ComponentRecord,
    /// False: the same bytes were there before.
    pub is_new: bool,
    /// Other components that call themselves by the same name and version, the newest first.
    pub same_version: Vec<Digest>,
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PullPlugin {
    /// Such as `oci://registry.example/risk/spot-risk:1.2.0`, or with `@sha256:...` to pin what is pulled.
    pub reference: String,
    /// For a registry that does not answer everybody. Not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CollectGarbage {
    /// Say what would be removed, and remove nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// Something that was removed, or would be.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Collected {
    pub digest: Digest,
    /// Of a component; of a set of assets with `assets/` before it.
    pub name: String,
    /// Empty for a set of assets.
    pub version: String,
    pub bytes: u64,
    pub why: registry::retention::Why,
}

impl From<registry::Removed> for Collected {
    fn from(removed: registry::Removed) -> Self {
        let registry::Removed { digest, name, version, bytes, why } = removed;
        Self { digest, name, version, bytes, why }
    }
}

/// What became of an upload of assets.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AssetsUpload {
    pub assets: registry::AssetsRecord,
    /// False: the very files were there before.
    pub is_new: bool,
}

/// A decision in a list; its envelope is at `decisions/{id}`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DecisionSummary {
    pub id: DecisionId,
    pub slot: SlotId,
    pub component: Digest,
    pub component_name: String,
    pub component_version: String,
    /// What it was asked about; none for a gate's or a router's question.
    pub subject: Option<SubjectRef>,
    pub at: Time,
    pub ok: bool,
    /// The answer in short, or the fault.
    pub outcome: String,
    pub fuel: u64,
    pub duration_us: u64,
}

/// Signals of a feeder: what a market or a provider says of a node. At least one price or notice.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Signals {
    /// The node that the signals are about.
    pub node: NodeId,
    /// Names the drill that these signals belong to; everything that follows from them says so.
    #[serde(default)]
    pub drill: Option<String>,
    /// At most 1,000, in order of time.
    #[serde(default)]
    pub prices: Vec<Price>,
    /// At most 100, in order of time.
    #[serde(default)]
    pub notices: Vec<Notice>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// None: now. At most an hour ago and a minute ahead.
    #[serde(default)]
    pub at: Option<Time>,
    pub usd_per_hour: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Notice {
    #[serde(default)]
    pub at: Option<Time>,
    pub kind: NoticeKind,
    /// When the provider takes the node away. For a termination.
    #[serde(default)]
    pub deadline: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// The provider recommends to leave this node.
    Rebalance,
    /// The recommendation is taken back.
    RebalanceCleared,
    /// The provider will take the node away at the deadline.
    Termination,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SignalsTaken {
    pub samples: u32,
    pub events: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterList {
    /// Newest first.
    pub letters: Vec<DeadLetter>,
    /// For the next page; none: there is no other.
    pub next_before: Option<u64>,
}

/// A refused batch, and what it says.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterDetail {
    pub letter: DeadLetter,
    pub samples: u32,
    pub events: u32,
    pub parts: Vec<DeadLetterPart>,
    /// Further parts were left out.
    pub cut: bool,
    /// Why it could not be taken now either. None: nothing is seen that stands in the way; the recorder has the last word.
    pub obstacle: Option<String>,
}

/// A series of a refused batch, or an event.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterPart {
    pub subject: SubjectRef,
    pub name: String,
    pub attributes: BTreeMap<String, String>,
    /// 0: it is an event.
    pub samples: u32,
    pub first: Option<Time>,
    pub last: Option<Time>,
}

/// A replay that is safe on disk.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterReplay {
    pub number: u64,
    /// An earlier replay had been taken already.
    pub doubled_nothing: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EventList {
    /// Newest last.
    pub events: Vec<DiscreteEvent>,
    /// Older ones were left out.
    pub cut: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// For people: who or what uses it. 1 to 64 characters.
    pub name: String,
    pub rank: Rank,
    /// What it is for. `telemetry`: writing metrics by OTLP, and nothing else, whatever the rank.
    #[serde(default)]
    pub scope: tokens::Scope,
    /// How long it is good for. None: until it is deleted. At most ten years.
    #[serde(default)]
    pub valid_for_ms: Option<u64>,
}

/// The one time that a token is shown: only its hash is kept.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    pub token: String,
    pub info: tokens::TokenInfo,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewJoinToken {
    /// How long it is good for. Default one hour, at most seven days.
    #[serde(default)]
    pub valid_for_ms: Option<u64>,
    /// Only this node may use it. None: the first that does.
    #[serde(default)]
    pub node: Option<NodeId>,
}

/// One node joins with it, once.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CreatedJoinToken {
    pub token: String,
    pub expires_at: Time,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditPage {
    /// Newest first.
    pub entries: Vec<audit::Entry>,
    /// Give this as `before` for the next page; none at the end.
    pub next_before: Option<u64>,
    /// Whether the hashes of all entries, from the first on, are right. None: it was not asked for (`verify=true`).
    pub chain_verified: Option<bool>,
    /// The number of the first entry that is not as it ought to be, and why.
    pub chain_broken_at: Option<u64>,
    pub chain_broken_why: Option<String>,
    /// How far the whole chain goes. Noted elsewhere, it shows later that nothing was cut off.
    pub chain_head: Option<audit::Head>,
}

/// One line of an export of the audit.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditLine {
    Entry(Box<audit::Entry>),
    /// The last line.
    Head(audit::Head),
}
