/** The codes of the API in the words of the page. What has no word here is shown as it is, never hidden. */
import type {
  ArtifactRole,
  ArtifactStatus,
  ComponentRole,
  DryRun,
  Kind,
  Level,
  Phase,
  Rank,
  Resolution,
  SafetyClass,
  Target,
  Value,
} from '../api/model';
import { duration } from '../format/time';
import { bytes, plain } from '../format/units';

/** How something is to be felt. `idle` is neither good nor bad. */
export type Tone = 'ok' | 'idle' | 'active' | 'elevated' | 'high' | 'critical';

export const LEVELS: Record<Level, { word: string; tone: Tone }> = {
  low: { word: 'Low', tone: 'ok' },
  elevated: { word: 'Elevated', tone: 'elevated' },
  high: { word: 'High', tone: 'high' },
  critical: { word: 'Critical', tone: 'critical' },
};

export const CLASSES: Record<SafetyClass, { word: string; tone: Tone; means: string }> = {
  'read-only': { word: 'Read-only', tone: 'ok', means: 'Changes nothing.' },
  reversible: { word: 'Reversible', tone: 'active', means: 'Changes state in a way that the host can take back.' },
  impactful: { word: 'Impactful', tone: 'high', means: 'People or workloads may notice, even if all goes well.' },
  destructive: { word: 'Destructive', tone: 'critical', means: 'Ends or deletes something for good.' },
};

export const DRY_RUNS: Record<DryRun, { word: string; tone: Tone; means: string }> = {
  simulated: { word: 'Simulated', tone: 'ok', means: 'The agent reads what would be changed and tells from what to what.' },
  'precondition-checked': { word: 'Preconditions checked', tone: 'active', means: 'All that must hold before is checked; the deed itself cannot be foretold.' },
  'not-simulable': { word: 'Not simulable', tone: 'elevated', means: 'Only the order is checked: this run says little of what a real one would do.' },
};

export const RANKS: Record<Rank, string> = {
  viewer: 'Viewer',
  operator: 'Operator',
  approver: 'Approver',
  'policy-author': 'Policy author',
  admin: 'Admin',
};
const RANK_ORDER: Rank[] = ['viewer', 'operator', 'approver', 'policy-author', 'admin'];

/** Whether `rank` includes `needed`. A role that nobody knows is one that nobody has. */
export function suffices(rank: Rank, needed: string): boolean {
  const least = RANK_ORDER.indexOf(needed as Rank);
  return least >= 0 && RANK_ORDER.indexOf(rank) >= least;
}

export function rankName(role: string): string {
  return RANKS[role as Rank] ?? role;
}

export const KINDS: Record<Kind, { title: string; asks: string }> = {
  observation_summary: { title: 'Observation', asks: 'What was seen' },
  anomaly_finding: { title: 'Finding', asks: 'Why it is abnormal' },
  root_cause_hypothesis: { title: 'Hypothesis', asks: 'What is behind it' },
  remediation_proposal: { title: 'Proposal', asks: 'What could be done' },
  execution_plan: { title: 'Plan', asks: 'What exactly will be done' },
  execution_result: { title: 'Execution', asks: 'What was done' },
  verification_result: { title: 'Verification', asks: 'Whether it helped' },
  incident_report: { title: 'Report', asks: 'How it ended' },
};

export const ROLES: Record<ArtifactRole, string> = {
  observer: 'observer',
  analyzer: 'analyzer',
  planner: 'planner',
  policy_gate: 'policy gate',
  executor: 'executor',
  verifier: 'verifier',
  memory: 'memory',
};

export const STATUSES: Record<ArtifactStatus, { word: string; tone: Tone }> = {
  complete: { word: 'Complete', tone: 'ok' },
  pending: { word: 'Waiting', tone: 'active' },
  refused: { word: 'Refused', tone: 'high' },
  failed: { word: 'Failed', tone: 'critical' },
  unknown: { word: 'Unknown', tone: 'critical' },
};

export const COMPONENT_ROLES: Record<ComponentRole, { word: string; does: string }> = {
  'risk-scorer': { word: 'Risk scorer', does: 'Says how likely a subject is to fail or be lost. A fault means unknown, never zero.' },
  'remediation-planner': { word: 'Planner', does: 'Proposes what to do about a finding. A fault means no plan.' },
  'policy-gate': { word: 'Policy gate', does: 'Allows, denies or asks for approvals. A fault denies.' },
  router: { word: 'Router', does: 'Ranks where work should go.' },
};

export const RULES: Record<string, string> = {
  max: 'the gravest risk stands',
  'deny-overrides': 'any denial denies, demands add up to the strictest',
  rank: 'all answers, best first',
};

export const RESOLUTIONS: Record<Resolution, { word: string; tone: Tone; means: string }> = {
  resolved: { word: 'Resolved', tone: 'ok', means: 'Done, and verified on fresh evidence.' },
  unchecked: { word: 'Done, not checked', tone: 'elevated', means: 'Done; the plan named no condition of success, so nobody checked.' },
  not_verified: { word: 'Not verified', tone: 'critical', means: 'Done, but success did not show within the watch window.' },
  escalated: { word: 'For a person', tone: 'critical', means: 'Every way that was proposed has been tried as often as it may. A person must decide.' },
  no_plan: { word: 'No plan', tone: 'high', means: 'No proposal stands.' },
  proposal_only: { word: 'Proposal only', tone: 'elevated', means: 'The evidence was too weak to act on.' },
  denied_by_gate: { word: 'Denied by policy', tone: 'elevated', means: 'A policy gate denied the plan. Nothing was done.' },
  denied_by_person: { word: 'Denied', tone: 'elevated', means: 'A person said no. Nothing was done.' },
  expired: { word: 'Expired', tone: 'elevated', means: 'No sufficient approval came in time. Nothing was done.' },
  refused: { word: 'Refused', tone: 'high', means: 'A guard or the agent refused to begin. Nothing was done.' },
  undone: { word: 'Undone', tone: 'high', means: 'It failed, and everything that had been done was undone.' },
  unknown: { word: 'Outcome unknown', tone: 'critical', means: 'Nobody knows whether a step was done. A person must look.' },
  stuck: { word: 'Stuck', tone: 'critical', means: 'It failed, and not everything could be undone. A person must act.' },
};

export const PHASES: Record<string, { word: string; tone: Tone }> = {
  planning: { word: 'Planning', tone: 'active' },
  gating: { word: 'At the gates', tone: 'active' },
  awaiting_approval: { word: 'Waits for approval', tone: 'elevated' },
  executing: { word: 'Executing', tone: 'active' },
  compensating: { word: 'Undoing', tone: 'high' },
  verifying: { word: 'Verifying', tone: 'active' },
  closed: { word: 'Closed', tone: 'idle' },
};

export function phaseName(phase: Phase): string {
  return typeof phase === 'string' ? phase : (Object.keys(phase)[0] ?? 'unknown');
}

interface VerbWords {
  title: string;
  does: string;
  running: string;
  /** There is nothing to undo. */
  harmless?: boolean;
}

const VERBS: Record<string, VerbWords> = {
  'process.checkpoint': {
    title: 'Checkpoint',
    does: 'Dump the process tree with CRIU, store it in hashed chunks, leave the source stopped.',
    running: 'Taking the checkpoint',
  },
  'process.restore': {
    title: 'Restore',
    does: 'Verify the snapshot chunk by chunk, then restore it with CRIU.',
    running: 'Restoring',
  },
  'process.confirm': {
    title: 'Confirm',
    does: 'Wait until the restored copy has made progress beyond its snapshot.',
    running: 'Waiting for progress beyond the snapshot',
    harmless: true,
  },
  'process.retire': {
    title: 'Retire the source',
    does: 'End the stopped source, now that its copy is known to progress.',
    running: 'Ending the stopped source',
  },
  'process.resume': { title: 'Resume', does: 'Let the stopped source go on.', running: 'Resuming the source' },
  'process.discard': {
    title: 'Discard',
    does: 'End the restored copy, so that the source can go on.',
    running: 'Ending the restored copy',
  },
  'process.migrate': {
    title: 'Migrate',
    does: 'Checkpoint, restore elsewhere, confirm progress, and only then retire the source.',
    running: 'Migrating',
  },
};

export function verb(name: string): VerbWords {
  return VERBS[name] ?? { title: name, does: '', running: name };
}

const METRICS: Record<string, string> = {
  'system.cpu.utilization': 'CPU',
  'system.cpu.logical.count': 'Logical CPUs',
  'system.cpu.load_average.1m': 'Load, 1 min',
  'system.memory.utilization': 'Memory',
  'system.linux.memory.available': 'Memory available',
  'system.disk.io': 'Disk',
  'system.disk.io_time': 'Disk busy',
  'system.filesystem.utilization': 'File system',
  'system.network.io': 'Network',
  'aether.system.pressure.some': 'Pressure',
  'system.uptime': 'Uptime',
  'process.cpu.time': 'CPU time',
  'process.memory.usage': 'Resident memory',
  'aether.workload.progress': 'Progress',
  'aether.workload.progress.rate': 'Progress rate',
  'aether.workload.running': 'Running',
  'aether.market.price': 'Spot price',
  'aether.agent.spool.depth': 'Spool',
  'aether.agent.spool.age': 'Spool, oldest',
  'aether.agent.spool.lost': 'Spool, lost',
};

export function metricName(metric: string): string {
  return METRICS[metric] ?? metric;
}

const METRIC_UNITS: Record<string, string> = {
  'aether.workload.progress': '{step}',
  'aether.workload.progress.rate': '{step}/s',
  'aether.workload.running': '',
  'aether.market.price': '{USD}/h',
  'system.cpu.utilization': '1',
  'system.memory.utilization': '1',
  'system.filesystem.utilization': '1',
  'aether.system.pressure.some': '1',
  'process.memory.usage': 'By',
  'system.linux.memory.available': 'By',
};

/** The unit of a metric of ours, for documents that name a metric without its unit. */
export function metricUnit(metric: string): string {
  return METRIC_UNITS[metric] ?? '';
}

const EVENTS: Record<string, string> = {
  'aether.market.rebalance': 'The provider recommends to leave this node',
  'aether.market.termination': 'The provider will reclaim this node',
};

export function eventName(name: string): string {
  return EVENTS[name] ?? name;
}

/** `node-a`, and the kind in front where the id does not begin with it. */
export function targetName(target: { kind: string; id: string }): string {
  return target.id.startsWith(target.kind) ? target.id : `${target.kind} ${target.id}`;
}

export function targetOf(target: Target): string {
  return `${target.kind} ${target.id}, generation ${target.generation}`;
}

/** A kind that this page does not know is shown as it is. */
export function valueText(given: unknown): string {
  const value = given as Value;
  if (typeof value !== 'object' || value === null) return JSON.stringify(given);
  if ('text' in value) return value.text;
  if ('integer' in value) return plain(value.integer);
  if ('number' in value) return plain(value.number);
  if ('flag' in value) return value.flag ? 'yes' : 'no';
  if ('duration' in value) return duration(value.duration);
  if ('bytes' in value) return bytes(value.bytes);
  return JSON.stringify(given);
}

const CAPABILITIES: Record<string, string> = {
  'process.checkpoint': 'Checkpoint',
  'process.restore': 'Restore',
};

export function capabilityName(name: string): string {
  return CAPABILITIES[name] ?? name;
}
