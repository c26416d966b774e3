/**
 * The documents of the API, as the page names them.
 */

export type Time = number;
export type Digest = string;
export type PlanHash = string;
export type Level = 'low' | 'elevated' | 'high' | 'critical';
export type SafetyClass = 'read-only' | 'reversible' | 'impactful' | 'destructive';
export type Rank = 'viewer' | 'operator' | 'approver' | 'policy-author' | 'admin';
export type SubjectKind = 'node' | 'gpu' | 'workload' | 'pool' | 'participant';

export interface SubjectRef { kind: SubjectKind; id: string }
export interface Target { kind: SubjectKind; id: string; generation: number }
export interface Subject extends Target { labels: Record<string, string> }
export type Value =
  | { text: string }
  | { integer: number }
  | { number: number }
  | { flag: boolean }
  | { duration: number }
  | { bytes: number };

export interface Contribution { input: number; weight: number; note: string }
export interface Risk {
  level: Level;
  score: number;
  confidence: number;
  horizon_ms?: number | null;
  cause: string;
  reason: string;
  contributions: Contribution[];
}
export interface Condition {
  metric: string;
  target: Target;
  minimum?: number | null;
  maximum?: number | null;
  fresh_within_ms: number;
}
export interface Reading { condition: Condition; value?: number | null; sampled_at?: Time | null }
export interface Reason { code: string; text: string }
export interface Demand {
  approvers: number;
  role: string;
  approve_within_ms: number;
  execute_within_ms: number;
  comment: boolean;
}
export interface BlastRadius {
  nodes: number;
  gpus: number;
  workloads: number;
  pool_percent: number;
  fleet_percent: number;
}
export type OnFailure = 'compensate' | 'stop';
export interface ProposedStep {
  verb: string;
  target: Target;
  arguments: Record<string, Value>;
  preconditions: Condition[];
  on_failure: OnFailure;
}
export interface Proposal {
  title: string;
  rationale: string;
  steps: ProposedStep[];
  success: Condition[];
  watch_ms: number;
  confidence: number;
}
export interface Shape { cause: string; subject: SubjectRef }
export interface Compensation { verb: string; node: string; arguments: Record<string, Value> }
export interface Step {
  verb: string;
  node: string;
  target: Target;
  arguments: Record<string, Value>;
  preconditions: Condition[];
  on_failure: OnFailure;
  compensation?: Compensation | null;
}
export interface Plan {
  schema_version: number;
  shape: Shape;
  steps: Step[];
  success: Condition[];
  watch_ms: number;
  class: SafetyClass;
  blast: { nodes: number; gpus: number; workloads: number };
  dry_run: boolean;
  planner: Digest;
  gates: Digest[];
  policy_bundle: Digest;
  parent?: PlanHash | null;
}
export type OutcomeStatus = 'succeeded' | 'failed' | 'unknown';
export interface Outcome {
  status: OutcomeStatus;
  code: string;
  message: string;
  evidence: Record<string, Value>;
  outputs: Record<string, string>;
  simulated: boolean;
  started_at: Time;
  ended_at: Time;
}
export interface StepRecord {
  step: number;
  direction: 'forward' | 'compensate';
  verb: string;
  node: string;
  key: string;
  outcome?: Outcome | null;
}
export interface Approval {
  plan: PlanHash;
  by: string;
  rank: Rank;
  at: Time;
  approved: boolean;
  comment?: string | null;
}
export interface TimelineEntry { at: Time; text: string }
export interface SummaryReading {
  metric: string;
  unit: string;
  attributes: Record<string, string>;
  value?: number | null;
  at?: Time | null;
  samples: number;
}
export interface SummaryEvent { name: string; at: Time; attributes: Record<string, string> }
export type Resolution =
  | 'resolved'
  | 'not_verified'
  | 'no_plan'
  | 'proposal_only'
  | 'denied_by_gate'
  | 'denied_by_person'
  | 'expired'
  | 'refused'
  | 'undone'
  | 'unknown'
  | 'stuck';

export type StepStage =
  | 'reserving'
  | { dispatched: { fence: number; execute_by: Time } }
  | { accepted: { fence: number; execute_by: Time } };
export type Phase =
  | 'planning'
  | 'gating'
  | { awaiting_approval: { approve_by: Time } }
  | { executing: { step: number; stage: StepStage } }
  | { compensating: { step: number; stage: StepStage; left: number[] } }
  | { verifying: { since: Time; until: Time; held_since?: Time | null } }
  | { closed: { resolution: Resolution } };

export type Evidence =
  | { series: { subject: SubjectRef; metric: string; from: Time; to: Time } }
  | { decision: { id: string; component: Digest } }
  | { journal: { node: string; position: number } }
  | { manifest: { digest: Digest } };

export interface Flags { drill: boolean; dry_run: boolean; simulated: boolean; replayed: boolean }
export type ArtifactRole = 'observer' | 'analyzer' | 'planner' | 'policy_gate' | 'executor' | 'verifier' | 'memory';
export type ArtifactStatus = 'complete' | 'pending' | 'refused' | 'failed' | 'unknown';

export type Body =
  | { kind: 'observation_summary'; subject: Subject; readings: SummaryReading[]; events: SummaryEvent[] }
  | {
      kind: 'anomaly_finding';
      shape: Shape;
      subject: Subject;
      risk: Risk;
      first_seen: Time;
      consecutive: number;
      unknown: string[];
    }
  | {
      kind: 'root_cause_hypothesis';
      cause: string;
      explanation: string;
      confidence: number;
      contributions: string[];
      workloads: Subject[];
    }
  | { kind: 'remediation_proposal'; chosen?: Proposal | null; refused: Reason[]; considered: number }
  | {
      kind: 'execution_plan';
      plan: Plan;
      hash: PlanHash;
      blast: BlastRadius;
      reasons: Reason[];
      demand?: Demand | null;
      approve_by?: Time | null;
      denied: boolean;
    }
  | { kind: 'execution_result'; steps: StepRecord[]; approvals: Approval[]; summary: string }
  | {
      kind: 'verification_result';
      verified: boolean;
      before: Reading[];
      after: Reading[];
      watch_ms: number;
      weak: string[];
      summary: string;
    }
  | {
      kind: 'incident_report';
      resolution: Resolution;
      summary: string;
      timeline: TimelineEntry[];
      recurrences: number;
      duration_ms: number;
      action_needed?: string | null;
    };
export type Kind = Body['kind'];
export type BodyOf<K extends Kind> = Extract<Body, { kind: K }>;

export interface Artifact {
  id: string;
  schema_version: number;
  producer: ArtifactRole;
  consumer: ArtifactRole;
  incident: string;
  workflow: string;
  correlation: string;
  at: Time;
  status: ArtifactStatus;
  parents: string[];
  evidence: Evidence[];
  flags: Flags;
  body: Body;
  previous?: Digest | null;
  hash: Digest;
}

export interface Session { principal: string; name: string; rank: Rank; expires_at?: Time | null }
export interface Posture {
  dry_run: boolean;
  approval_required: boolean;
  highest_live_class: SafetyClass;
  least_confidence_percent: number;
}
export interface BundleInfo { name: string; version: string; summary: string; digest: Digest }
export interface DrillStatus { name: string; node: string; since: Time }
export interface RecorderStatus {
  series: number;
  samples: number;
  hot_bytes: number;
  unsealed_batches: number;
  unsealed_bytes: number;
  segments: number;
  segment_bytes: number;
  oldest?: Time | null;
  newest?: Time | null;
  evicted_samples: number;
  rejected_batches: number;
  duplicate_batches: number;
  dropped_samples: number;
  last_sealed?: Time | null;
  seal_error?: string | null;
}
export interface Status {
  version: string;
  started_at: Time;
  uptime_ms: number;
  now: Time;
  posture: Posture;
  bundle?: BundleInfo | null;
  recorder: RecorderStatus;
  drills: DrillStatus[];
  simulated_nodes: string[];
  nodes: number;
  live_nodes: number;
  open_incidents: number;
  waiting_plans: number;
}
export interface CapabilityView { name: string; available: boolean; reason: string; fallback: string; simulated: boolean }
export type WorkloadState = 'running' | 'stopped' | 'exited';
export type Tier = 'best-effort' | 'standard' | 'critical';
export interface WorkloadView {
  id: string;
  name: string;
  tier: Tier;
  generation: number;
  state: WorkloadState;
  since: Time;
  pid: number;
  adopted: boolean;
}
export interface Workload extends WorkloadView {
  node: string;
  node_live: boolean;
  progress?: number | null;
  progress_at?: Time | null;
}
export interface TelemetryView {
  epoch?: number | null;
  acknowledged?: number | null;
  batches: number;
  duplicates: number;
  rejected: number;
  lost: number;
}
export interface NodeView {
  id: string;
  generation: number;
  live: boolean;
  registered_at: Time;
  connected_since?: Time | null;
  last_seen?: Time | null;
  clock_skew_ms?: number | null;
  software_version: string;
  instance: string;
  capabilities: CapabilityView[];
  facts: Record<string, string>;
  workloads: WorkloadView[];
  telemetry: TelemetryView;
}
export interface SeriesKey { subject: SubjectRef; metric: string; unit: string; attributes: Record<string, string> }
export interface RangeSeries {
  key: SeriesKey;
  bucket_ms: number;
  at: Time[];
  min: (number | null)[];
  mean: (number | null)[];
  max: (number | null)[];
}
export interface RangeAnswer { from: Time; to: Time; series: RangeSeries[]; cut: boolean }
export interface DiscreteEvent { subject: SubjectRef; name: string; at: Time; attributes: Record<string, string> }
export interface SubjectRisk {
  subject: SubjectRef;
  at?: Time | null;
  risk?: Risk | null;
  unknown?: string | null;
  decision?: string | null;
  incident?: string | null;
}
export interface IncidentSummary {
  id: string;
  shape: Shape;
  opened_at: Time;
  closed_at?: Time | null;
  resolution?: Resolution | null;
  phase: string;
  summary: string;
  plan?: PlanHash | null;
  updated_at: Time;
  /** Not told by every host. */
  flags?: Flags;
}
export interface IncidentPage { incidents: IncidentSummary[]; next_before?: Time | null }
export interface IncidentDetail {
  incident: IncidentSummary;
  phase: Phase;
  flags: Flags;
  recurrences: number;
  demand?: Demand | null;
  approvals: Approval[];
  steps: StepRecord[];
  execute_by?: Time | null;
  failure?: string | null;
  timeline: TimelineEntry[];
  artifacts: Artifact[];
  chain_verified: boolean;
  chain_broken_at?: string | null;
}
export interface PlanDetail {
  hash: PlanHash;
  plan: Plan;
  incident: IncidentSummary;
  phase: Phase;
  flags: Flags;
  proposal?: Proposal | null;
  reasons: Reason[];
  blast?: BlastRadius | null;
  demand?: Demand | null;
  approvals: Approval[];
  approve_by?: Time | null;
  waiting: boolean;
  newest_evidence_at?: Time | null;
  evidence_age_ms?: number | null;
  before: Reading[];
}
export type ComponentRole = 'risk-scorer' | 'remediation-planner' | 'policy-gate' | 'router';
export interface Limits {
  fuel: number;
  deadline_ms: number;
  memory_bytes: number;
  output_bytes: number;
  log_lines: number;
  log_line_bytes: number;
  host_calls: number;
}
export interface Figures {
  evaluations: number;
  faults: Record<string, number>;
  fuel_p50?: number | null;
  fuel_p99?: number | null;
  latency_us_p50?: number | null;
  latency_us_p99?: number | null;
  last_at?: Time | null;
  last_fault?: string | null;
}
export interface SlotEntry {
  component: string;
  name: string;
  version: string;
  digest: Digest;
  config: Record<string, unknown>;
  limits: Limits;
  state: 'active' | 'quarantined';
  figures: Figures;
}
export interface SlotStatus { id: string; role: ComponentRole; rule: 'max' | 'deny-overrides' | 'rank'; entries: SlotEntry[] }
export interface Slots { bundle?: BundleInfo | null; slots: SlotStatus[] }
export type Input =
  | { metric: { name: string; unit: string; window_ms: number; step_ms: number; aggregation: string } }
  | { events: { name: string; window_ms: number; at_most: number } };
export interface Plugin {
  component: string;
  digest: Digest;
  role: ComponentRole;
  description: { name: string; version: string; summary: string; inputs: Input[]; config_schema: string };
  size_bytes: number;
  slots: string[];
}
export interface DecisionSummary {
  id: string;
  slot: string;
  component: Digest;
  component_name: string;
  component_version: string;
  subject?: SubjectRef | null;
  at: Time;
  ok: boolean;
  outcome: string;
  fuel: number;
  duration_us: number;
}
export interface Envelope {
  schema_version: number;
  id: string;
  slot: string;
  component: Digest;
  component_name: string;
  component_version: string;
  config: Digest;
  wit_version: string;
  engine_version: string;
  limits: Limits;
  at: Time;
  question: unknown;
  host_calls: { function: string; request: unknown; response: unknown }[];
  log: { severity: string; message: string }[];
  outcome: { Ok?: unknown; Err?: { kind: string; message: string } };
  fuel: number;
  memory_bytes: number;
  duration_us: number;
}
export interface AuditEntry {
  number: number;
  at: Time;
  principal: string;
  rank?: Rank | null;
  action: string;
  target: string;
  outcome: 'done' | 'refused';
  detail: Record<string, string>;
  previous: Digest;
  hash: Digest;
}
export interface AuditPage {
  entries: AuditEntry[];
  next_before?: number | null;
  chain_verified?: boolean | null;
  chain_broken_at?: number | null;
}
