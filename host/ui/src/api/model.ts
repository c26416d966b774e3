/**
 * The documents of the API as the page names them: those of the OpenAPI document, and by hand what it cannot say.
 */
import type * as G from './generated/schema';

export type {
  Approval,
  Artifact,
  ArtifactRole,
  ArtifactStatus,
  AuditEntry,
  AuditPage,
  BacktestInfo,
  BacktestReport,
  BacktestSide,
  BlastRadius,
  Body,
  BreakerStanding,
  BreakGlass,
  BundleInfo,
  CapabilityView,
  Collection,
  Compensation,
  Condition,
  Configured,
  DecisionSummary,
  Demand,
  DryRun,
  Evidence,
  Figures,
  Flags,
  ForecastView,
  IncidentPage,
  Level,
  Limits,
  NodeView,
  OnFailure,
  Outcome,
  OutcomeStatus,
  Phase,
  Plan,
  PlanDetail,
  Plugin,
  Posture,
  Promotion,
  Proposal,
  RangeAnswer,
  RangeSeries,
  Rank,
  Reading,
  Reason,
  Replayed,
  Resolution,
  Retirement,
  Risk,
  RollBack,
  SafetyClass,
  Scope,
  Scrutiny,
  Session,
  Stage,
  Step,
  StepRecord,
  SubjectKind,
  SubjectRef,
  SubjectRisk,
  SummaryReading,
  Target,
  TimelineEntry,
  UploadedPlugin,
  Workload,
  WorkloadView,
} from './generated/schema';

export type Kind = G.Body['kind'];
export type BodyOf<K extends Kind> = Extract<G.Body, { kind: K }>;
export type ComponentRole = G.SlotStatus['role'];
/** A config is any object; the document says an empty one. */
export type SlotEntry = Omit<G.SlotEntry, 'config'> & { config: Record<string, unknown> };
export type SlotStatus = Omit<G.SlotStatus, 'entries'> & { entries: SlotEntry[] };
export type Slots = Omit<G.Slots, 'slots'> & { slots: SlotStatus[] };

export type NewEntry = Pick<G.NewEntry, 'generation' | 'component' | 'replaces'> & { config: Record<string, unknown> };
export type BacktestRequest = Pick<G.BacktestRequest, 'slot' | 'candidate'> & Partial<Pick<G.BacktestRequest, 'history' | 'from'>>;
export type SlotGenerationMade = G.SlotHistory['generations'][number];
export type AddedEntry = Omit<G.AddedEntry, 'slot'> & { slot: SlotStatus };

/** An argument or a fact: one kind, one value. The document leaves it open. */
export type Value =
  | { text: string }
  | { integer: number }
  | { number: number }
  | { flag: boolean }
  | { duration: number }
  | { bytes: number };

export type IncidentSummary = G.IncidentSummary;
export type IncidentDetail = Omit<G.IncidentDetail, 'incident'> & { incident: IncidentSummary };
export type Status = G.HostStatus;

/** An outcome is an answer or a fault. */
export type Envelope = Omit<G.Envelope, 'outcome'> & { outcome: { Ok?: unknown; Err?: { kind: string; message: string } } };
