/**
 * An incident as a story: its eight artifacts in order, each with the one sentence that matters. What has not happened
 * yet is a step, too, and says what it waits for, or why it will never come.
 */
import type {
  Artifact,
  Body,
  BodyOf,
  Condition,
  Demand,
  IncidentDetail,
  Kind,
  PlanDetail,
  Plan,
  Reading,
  Resolution,
  Step,
} from '../api/model';
import { duration } from '../format/time';
import { count, percent, quantity } from '../format/units';
import { CLASSES, eventName, metricName, metricUnit, rankName, RESOLUTIONS, targetName, type Tone, verb } from './words';

export const ORDER: Kind[] = [
  'observation_summary',
  'anomaly_finding',
  'root_cause_hypothesis',
  'remediation_proposal',
  'execution_plan',
  'execution_result',
  'verification_result',
  'incident_report',
];

/** `here`: this is what happens now. `never`: the incident ended before it. */
export type Standing = 'done' | 'here' | 'ahead' | 'never';

export interface StoryStep {
  kind: Kind;
  number: number;
  standing: Standing;
  tone: Tone;
  sentence: string;
  artifact: Artifact | null;
}

export function tell(incident: IncidentDetail, nameOf: (principal: string) => string = (principal) => principal): StoryStep[] {
  // After a relapse the story begins anew; what came before stays in the list of artifacts.
  const first = incident.artifacts.findLastIndex((artifact) => artifact.body.kind === 'observation_summary');
  const byKind = new Map(incident.artifacts.slice(Math.max(first, 0)).map((artifact) => [artifact.body.kind, artifact]));
  const resolution = incident.incident.resolution ?? null;
  const here = ORDER.find((kind) => {
    if (resolution !== null) return false;
    return !byKind.has(kind) || (kind === 'execution_plan' && awaiting(incident) !== null);
  });
  return ORDER.map((kind, index) => {
    const artifact = byKind.get(kind) ?? null;
    const base = { kind, number: index + 1, artifact };
    if (kind === here) return { ...base, standing: 'here', tone: hereTone(incident), sentence: now(kind, incident, artifact) };
    if (artifact) {
      return { ...base, standing: 'done', tone: toneOf(artifact), sentence: sentence(artifact.body, incident, nameOf) };
    }
    if (resolution !== null) {
      return { ...base, standing: 'never', tone: 'idle', sentence: `Not reached: ${lower(RESOLUTIONS[resolution].means)}` };
    }
    return { ...base, standing: 'ahead', tone: 'idle', sentence: AHEAD[kind] };
  });
}

const AHEAD: Record<Kind, string> = {
  observation_summary: 'Comes first.',
  anomaly_finding: 'Follows the observation.',
  root_cause_hypothesis: 'Follows the finding.',
  remediation_proposal: 'The planner has not answered yet.',
  execution_plan: 'The gates judge what the planner proposes.',
  execution_result: 'Nothing is done before the plan is approved.',
  verification_result: 'Begins when every step is done, and trusts only fresh evidence.',
  incident_report: 'Closes the incident.',
};

export function awaiting(incident: Pick<IncidentDetail, 'phase'>): number | null {
  const { phase } = incident;
  return typeof phase === 'object' && 'awaiting_approval' in phase ? phase.awaiting_approval.approve_by : null;
}

function hereTone(incident: IncidentDetail): Tone {
  const { phase } = incident;
  if (awaiting(incident) !== null) return 'elevated';
  return typeof phase === 'object' && 'compensating' in phase ? 'high' : 'active';
}

function toneOf(artifact: Artifact): Tone {
  switch (artifact.status) {
    case 'complete':
      return 'ok';
    case 'pending':
      // A plan that waited and was then decided on: what became of it is told by the steps after it.
      return 'ok';
    case 'refused':
      return 'high';
    case 'failed':
    case 'unknown':
      return 'critical';
  }
}

/** What is going on at the step where the incident stands now. */
function now(kind: Kind, incident: IncidentDetail, artifact: Artifact | null): string {
  const { phase } = incident;
  if (kind === 'execution_plan' && artifact?.body.kind === 'execution_plan') {
    return `Waits for ${demandText(incident.demand ?? artifact.body.demand, given(incident))}.`;
  }
  if (phase === 'planning') return 'The planners are being asked.';
  if (phase === 'gating') return 'The gates have the proposal.';
  if (typeof phase === 'object') {
    const steps = planOf(incident)?.steps;
    if ('executing' in phase) {
      const step = steps?.[phase.executing.step];
      const where = step ? `${verb(step.verb).running} on ${step.node}` : 'Running';
      return `Step ${phase.executing.step + 1} of ${steps?.length ?? '?'}: ${where}.`;
    }
    if ('compensating' in phase) {
      const undo = steps?.[phase.compensating.step]?.compensation;
      const what = undo ? `${verb(undo.verb).running} on ${undo.node}` : `step ${phase.compensating.step + 1}`;
      return `Undoing: ${lower(what)}. ${incident.failure ?? ''}`.trim();
    }
    if ('verifying' in phase) {
      const watch = planOf(incident)?.watch_ms ?? 0;
      return phase.verifying.held_since
        ? `Every condition of success holds; they must for ${duration(watch)} without a break.`
        : `Watching for success on fresh evidence; it must hold for ${duration(watch)}.`;
    }
  }
  return AHEAD[kind];
}

export function given(incident: Pick<IncidentDetail, 'approvals'>): number {
  return incident.approvals.filter((approval) => approval.approved).length;
}

export function planOf(incident: Pick<IncidentDetail, 'artifacts'>): Plan | null {
  return bodyOf(incident, 'execution_plan')?.plan ?? null;
}

export function bodyOf<K extends Kind>(incident: Pick<IncidentDetail, 'artifacts'>, kind: K): BodyOf<K> | null {
  const body = incident.artifacts.findLast((artifact) => artifact.body.kind === kind)?.body;
  return (body as BodyOf<K> | undefined) ?? null;
}

/** `1 approval by an Approver`, `2 approvals by an Admin (1 given)`. */
export function demandText(demand: Demand | null | undefined, approvals: number): string {
  if (!demand) return 'no approval';
  const role = rankName(demand.role);
  const article = /^[aeiou]/i.test(role) ? 'an' : 'a';
  const so = approvals > 0 ? ` (${approvals} given)` : '';
  return `${count(demand.approvers, 'approval')} by ${article} ${role} or above${so}`;
}

/** The sentence that matters of an artifact that is there. */
export function sentence(
  body: Body,
  incident?: Pick<IncidentDetail, 'approvals' | 'demand'>,
  nameOf: (principal: string) => string = (principal) => principal,
): string {
  switch (body.kind) {
    case 'observation_summary': {
      const last = body.events.at(-1);
      const first = body.readings.find((reading) => typeof reading.value === 'number');
      const read = first ? `${metricName(first.metric)} at ${quantity(first.value, first.unit)}` : null;
      const rest = count(body.readings.length, 'reading');
      if (last) return `${eventName(last.name)}${read ? `; ${lower(read)}` : ''}. ${upper(rest)} in the window.`;
      return read ? `${read} on ${body.subject.id}. ${upper(rest)} in the window.` : `${upper(rest)} of ${body.subject.id}.`;
    }
    case 'anomaly_finding':
      return `${targetName(body.subject)} is at ${body.risk.level} risk: ${body.risk.reason}`;
    case 'root_cause_hypothesis':
      return body.explanation;
    case 'remediation_proposal':
      if (body.chosen) return body.chosen.title;
      return `No proposal stands${body.refused[0] ? `: ${body.refused[0].text}` : '.'}`;
    case 'execution_plan':
      return planSentence(body, incident, nameOf);
    case 'execution_result':
      return upper(body.summary);
    case 'verification_result':
      return upper(body.summary);
    case 'incident_report':
      return `${RESOLUTIONS[body.resolution].word} after ${duration(body.duration_ms)}. ${upper(body.summary)}`;
  }
}

function planSentence(
  body: BodyOf<'execution_plan'>,
  incident: Pick<IncidentDetail, 'approvals' | 'demand'> | undefined,
  nameOf: (principal: string) => string,
): string {
  const what = `${count(body.plan.steps.length, 'step')}, ${CLASSES[body.plan.class].word.toLowerCase()}`;
  if (body.denied) return `Denied by policy: ${body.reasons.map((reason) => reason.text).join('; ')}`;
  if (!body.demand) return `${upper(what)}; no approval was needed.`;
  const by = incident?.approvals.filter((approval) => approval.approved).map((approval) => nameOf(approval.by)) ?? [];
  const no = incident?.approvals.find((approval) => !approval.approved);
  if (no) return `${upper(what)}; denied by ${nameOf(no.by)}${no.comment ? `: “${no.comment}”` : '.'}`;
  if (by.length > 0) return `${upper(what)}; approved by ${by.join(' and ')}.`;
  return `${upper(what)}; needed ${demandText(body.demand, 0)}.`;
}

/** What undoes a step, in words; `undone: false` means that there is no way back. */
export function undoing(step: Step): { text: string; possible: boolean } {
  if (step.compensation) {
    const words = verb(step.compensation.verb);
    return { text: `${words.title} on ${step.compensation.node}: ${lower(words.does || words.title)}`, possible: true };
  }
  if (verb(step.verb).harmless) return { text: 'Changes nothing, so there is nothing to undo.', possible: true };
  return { text: 'Cannot be undone.', possible: false };
}

/** `Memory of node-b ≤ 95 %`; without the target where it is `about` anyway. */
export function conditionText(condition: Condition, about?: { kind: string; id: string }): string {
  const unit = metricUnit(condition.metric);
  const bounds = [
    typeof condition.minimum === 'number' ? `≥ ${quantity(condition.minimum, unit)}` : null,
    typeof condition.maximum === 'number' ? `≤ ${quantity(condition.maximum, unit)}` : null,
  ].filter((bound) => bound !== null);
  const known = about === undefined || (about.kind === condition.target.kind && about.id === condition.target.id);
  const of = known ? '' : ` of ${targetName(condition.target)}`;
  return `${metricName(condition.metric)}${of} ${bounds.join(' and ')}`;
}

export function readingText(reading: Reading): string {
  return quantity(reading.value, metricUnit(reading.condition.metric));
}

/** Whether a reading is within its bounds; null when nothing was sampled. */
export function within(reading: Reading): boolean | null {
  if (typeof reading.value !== 'number') return null;
  const { minimum, maximum } = reading.condition;
  return (typeof minimum !== 'number' || reading.value >= minimum) && (typeof maximum !== 'number' || reading.value <= maximum);
}

export interface Badge {
  label: string;
  means: string;
  kind: 'drill' | 'dry-run' | 'simulated' | 'replayed';
}

/** What must never be mistaken for the real thing. */
export function badges(flags: { drill?: boolean; dry_run?: boolean; simulated?: boolean; replayed?: boolean }): Badge[] {
  const all: Badge[] = [];
  if (flags.drill) all.push({ kind: 'drill', label: 'Drill', means: 'The disturbance was made by a drill. Everything after it is real.' });
  if (flags.dry_run) all.push({ kind: 'dry-run', label: 'Dry run', means: 'Every step is checked, and nothing is changed, on purpose.' });
  if (flags.simulated) {
    all.push({ kind: 'simulated', label: 'Simulated', means: 'An agent only pretended: what it reports as done was not done.' });
  }
  if (flags.replayed) all.push({ kind: 'replayed', label: 'Replay', means: 'Made by replaying a recorded incident.' });
  return all;
}

export function riskFigures(risk: { score: number; confidence: number; horizon_ms?: number | null }): string {
  const horizon = risk.horizon_ms ? ` within ${duration(risk.horizon_ms)}` : '';
  return `${percent(risk.score)} likely${horizon}, ${percent(risk.confidence)} sure`;
}

export type Decision = 'can' | 'not-waiting' | 'expired' | 'rank' | 'already';

/** Whether this person can decide on a plan now, and if not, why. The host has the last word. */
export function mayDecide(
  plan: Pick<PlanDetail, 'waiting' | 'approve_by' | 'demand' | 'approvals'>,
  person: { principal: string; suffices: (role: string) => boolean },
  at: number,
): Decision {
  if (!plan.waiting || !plan.demand) return 'not-waiting';
  if (typeof plan.approve_by === 'number' && at >= plan.approve_by) return 'expired';
  if (plan.approvals.some((approval) => approval.by === person.principal)) return 'already';
  return person.suffices(plan.demand.role) ? 'can' : 'rank';
}

export function isWorrying(resolution: Resolution): boolean {
  return RESOLUTIONS[resolution].tone === 'critical';
}

export function lower(text: string): string {
  return /^[A-Z][a-z]/.test(text) ? text.charAt(0).toLowerCase() + text.slice(1) : text;
}

export function upper(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
