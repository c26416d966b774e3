import { describe, expect, test } from 'vitest';
import type { Artifact, ArtifactStatus, Body, Demand, IncidentDetail, Phase, Plan, Resolution, Step } from '../api/model';
import { badges, conditionText, demandText, mayDecide, ORDER, readingText, sentence, tell, undoing, within } from './story';
import { phaseName, suffices, targetName, valueText } from './words';

const target = { kind: 'workload' as const, id: 'demo-counter', generation: 1 };
const condition = { metric: 'aether.workload.progress.rate', target, minimum: 0.1, maximum: null, fresh_within_ms: 5_000 };
const step = (verb: string, more: Partial<Step> = {}): Step => ({
  verb,
  node: 'node-b',
  target,
  arguments: {},
  preconditions: [],
  on_failure: 'compensate',
  compensation: null,
  ...more,
});
const plan: Plan = {
  schema_version: 1,
  shape: { cause: 'spot.rebalance', subject: { kind: 'node', id: 'node-a' } },
  steps: [step('process.checkpoint', { node: 'node-a' }), step('process.restore')],
  success: [condition],
  watch_ms: 20_000,
  class: 'impactful',
  blast: { nodes: 2, gpus: 0, workloads: 1 },
  dry_run: false,
  planner: 'p',
  gates: ['g'],
  policy_bundle: 'b',
  parent: null,
};
const demand: Demand = { approvers: 1, role: 'approver', approve_within_ms: 900_000, execute_within_ms: 300_000, comment: false };
const planBody: Body = {
  kind: 'execution_plan',
  plan,
  hash: 'h',
  blast: { nodes: 2, gpus: 0, workloads: 1, pool_percent: 100, fleet_percent: 100 },
  reasons: [{ code: 'gate.impactful', text: 'an impactful plan needs an approval' }],
  demand,
  approve_by: 900_000,
  denied: false,
};
const subject = { ...target, kind: 'node' as const, id: 'node-a', labels: {} };
const first: Body[] = [
  { kind: 'observation_summary', subject, readings: [], events: [] },
  {
    kind: 'anomaly_finding',
    shape: plan.shape,
    subject,
    risk: { level: 'critical', score: 0.9, confidence: 0.9, cause: 'spot.rebalance', reason: 'the provider says so', contributions: [] },
    first_seen: 0,
    consecutive: 2,
    unknown: [],
  },
  { kind: 'root_cause_hypothesis', cause: 'spot.rebalance', explanation: 'Spot capacity is reclaimed.', confidence: 0.9, contributions: [], workloads: [] },
  { kind: 'remediation_proposal', chosen: null, refused: [{ code: 'planner.fault', text: 'the planner trapped' }], considered: 0 },
];

function incident(bodies: [Body, ArtifactStatus][], phase: Phase, resolution: Resolution | null = null, more: Partial<IncidentDetail> = {}): IncidentDetail {
  const flags = { drill: false, dry_run: false, simulated: false, replayed: false };
  const artifacts = bodies.map(
    ([body, status], i): Artifact => ({
      id: `inc/${i + 1}-${body.kind}`,
      schema_version: 1,
      producer: 'observer',
      consumer: 'analyzer',
      incident: 'inc',
      workflow: 'remediation',
      correlation: 'c',
      at: i,
      status,
      parents: [],
      evidence: [],
      flags,
      body,
      previous: null,
      hash: `${i}`,
    }),
  );
  return {
    incident: { id: 'inc', shape: plan.shape, opened_at: 0, closed_at: resolution ? 10 : null, resolution, phase: phaseName(phase), summary: '', flags, plan: null, updated_at: 0 },
    phase,
    flags,
    recurrences: 0,
    demand,
    approvals: [],
    steps: [],
    execute_by: null,
    failure: null,
    timeline: [],
    artifacts,
    chain_verified: true,
    chain_broken_at: null,
    ...more,
  };
}

const complete = (bodies: Body[]): [Body, ArtifactStatus][] => bodies.map((body) => [body, 'complete']);
const standings = (detail: IncidentDetail) => tell(detail).map((step) => step.standing);
const approval = { plan: 'h', by: 'ada', rank: 'approver' as const, at: 3, approved: true, comment: null };

describe('the story', () => {
  test('always has eight steps in order', () => {
    expect(tell(incident([], 'planning')).map((step) => step.kind)).toEqual(ORDER);
  });

  test('a plan that waits is where the story stands, though its artifact is there', () => {
    const story = tell(incident([...complete(first), [planBody, 'pending']], { awaiting_approval: { approve_by: 900_000 } }));
    expect(story.map((step) => step.standing)).toEqual(['done', 'done', 'done', 'done', 'here', 'ahead', 'ahead', 'ahead']);
    expect(story[4]?.sentence).toBe('Waits for 1 approval by an Approver or above.');
  });

  test('what runs says which step, and where', () => {
    const executing: Phase = { executing: { step: 1, stage: 'reserving' } };
    const story = tell(incident([...complete(first), [planBody, 'pending']], executing, null, { approvals: [approval] }));
    expect(story[4]).toMatchObject({ standing: 'done', tone: 'ok', sentence: '2 steps, impactful; approved by ada.' });
    expect(story[5]).toMatchObject({ standing: 'here', sentence: 'Step 2 of 2: Restoring on node-b.' });
  });

  test('what will never come says why', () => {
    const story = tell(incident(complete(first), { closed: { resolution: 'no_plan' } }, 'no_plan'));
    expect(story.map((step) => step.standing)).toEqual(['done', 'done', 'done', 'done', 'never', 'never', 'never', 'never']);
    expect(story[3]?.sentence).toBe('No proposal stands: the planner trapped');
    expect(story[4]?.sentence).toBe('Not reached: no proposal stands.');
  });

  test('an end is never also where the story stands', () => {
    expect(standings(incident(complete(first), { closed: { resolution: 'expired' } }, 'expired'))).not.toContain('here');
  });

  test('an unknown outcome is as grave as a failure', () => {
    const body: Body = { kind: 'execution_result', steps: [], approvals: [], summary: 'node-b gave no outcome in time' };
    const story = tell(incident([...complete(first), [planBody, 'pending'], [body, 'unknown']], { closed: { resolution: 'unknown' } }, 'unknown'));
    expect(story[5]).toMatchObject({ standing: 'done', tone: 'critical', sentence: 'Node-b gave no outcome in time' });
  });

  test('a denial is told with who denied', () => {
    const no = { ...approval, approved: false, comment: 'not tonight' };
    const detail = incident([...complete(first), [planBody, 'pending']], { closed: { resolution: 'denied_by_person' } }, 'denied_by_person', { approvals: [no] });
    expect(tell(detail)[4]?.sentence).toBe('2 steps, impactful; denied by ada: “not tonight”');
    expect(sentence({ ...planBody, denied: true })).toBe('Denied by policy: an impactful plan needs an approval');
  });

  test('undoing says what is undone, and why', () => {
    const steps = [step('process.checkpoint', { compensation: { verb: 'process.resume', node: 'node-a', arguments: {} } })];
    const body: Body = { ...planBody, plan: { ...plan, steps } };
    const phase: Phase = { compensating: { step: 0, stage: 'reserving', left: [] } };
    const story = tell(incident([...complete(first), [body, 'pending']], phase, null, { failure: 'a chunk was corrupt' }));
    expect(story[5]).toMatchObject({ standing: 'here', tone: 'high', sentence: 'Undoing: resuming the source on node-a. a chunk was corrupt' });
  });
});

describe('the approval', () => {
  const waiting = { waiting: true, approve_by: 100, demand, approvals: [] };
  const person = (rank: 'viewer' | 'approver' | 'admin') => ({ principal: 'ada', suffices: (role: string) => suffices(rank, role) });

  test('only who may can', () => {
    expect(mayDecide(waiting, person('viewer'), 0)).toBe('rank');
    expect(mayDecide(waiting, person('approver'), 0)).toBe('can');
    expect(mayDecide(waiting, person('admin'), 0)).toBe('can');
    expect(mayDecide({ ...waiting, demand: { ...demand, role: 'pope' } }, person('admin'), 0)).toBe('rank');
  });

  test('not twice, not late, not when nothing waits', () => {
    expect(mayDecide({ ...waiting, approvals: [approval] }, person('admin'), 0)).toBe('already');
    expect(mayDecide(waiting, person('admin'), 100)).toBe('expired');
    expect(mayDecide({ ...waiting, waiting: false }, person('admin'), 0)).toBe('not-waiting');
    expect(mayDecide({ ...waiting, demand: null }, person('admin'), 0)).toBe('not-waiting');
  });

  test('the demand in words', () => {
    expect(demandText(demand, 0)).toBe('1 approval by an Approver or above');
    expect(demandText({ ...demand, approvers: 2, role: 'policy-author' }, 1)).toBe('2 approvals by a Policy author or above (1 given)');
    expect(demandText(null, 0)).toBe('no approval');
  });

  test('what cannot be undone says so', () => {
    expect(undoing(step('process.retire'))).toEqual({ text: 'Cannot be undone.', possible: false });
    expect(undoing(step('process.confirm')).possible).toBe(true);
    // A verb that this page does not know is not called harmless.
    expect(undoing(step('gpu.reset')).possible).toBe(false);
    const back = undoing(step('process.restore', { compensation: { verb: 'process.discard', node: 'node-b', arguments: {} } }));
    expect(back).toEqual({ text: 'Discard on node-b: end the restored copy, so that the source can go on.', possible: true });
  });
});

describe('readings', () => {
  test('within the bounds, outside, and not sampled', () => {
    expect(within({ condition, value: 0.1 })).toBe(true);
    expect(within({ condition, value: 0.05 })).toBe(false);
    expect(within({ condition, value: null })).toBeNull();
    expect(readingText({ condition, value: null })).toBe('—');
    expect(conditionText(condition, target)).toBe('Progress rate ≥ 0.1 steps/s');
    expect(conditionText({ ...condition, maximum: 2 }, subject)).toBe('Progress rate of workload demo-counter ≥ 0.1 steps/s and ≤ 2 steps/s');
  });
});

describe('words', () => {
  test('every flag has its badge', () => {
    expect(badges({ drill: true, dry_run: true, simulated: true, replayed: true }).map((badge) => badge.label)).toEqual(['Drill', 'Dry run', 'Simulated', 'Replay']);
    expect(badges({})).toEqual([]);
  });

  test('values and names', () => {
    expect([valueText({ bytes: 2048 }), valueText({ duration: 1500 }), valueText({ flag: true }), valueText({ text: 'x' }), valueText({ odd: 1 })]).toEqual(['2 KiB', '1.5 s', 'yes', 'x', '{"odd":1}']);
    expect([targetName({ kind: 'node', id: 'node-a' }), targetName(target)]).toEqual(['node-a', 'workload demo-counter']);
  });
});
