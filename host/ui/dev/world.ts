/** An invented fleet for looking at the pages. Typed by the page's own documents, so that it cannot drift from them. */
import type * as M from '../src/api/model.ts';

export const BEGIN = Date.now();
const MINUTE = 60_000;

function digest(seed: string): string {
  let hash = 0x811c9dc5;
  let text = '';
  for (let i = 0; text.length < 64; i += 1) {
    for (const char of seed + i) hash = Math.imul(hash ^ char.charCodeAt(0), 0x01000193) >>> 0;
    text += hash.toString(16).padStart(8, '0');
  }
  return text.slice(0, 64);
}

const capability = (name: string, reason = '', fallback = ''): M.CapabilityView => ({
  name,
  available: reason === '',
  reason,
  fallback,
  simulated: false,
});

const capabilities = [
  capability('process.checkpoint'),
  capability('process.restore'),
  capability('telemetry.psi'),
  capability('telemetry.gpu', 'no NVIDIA driver is loaded: /dev/nvidiactl is not there'),
  capability('process.lazy-restore', 'the kernel has no userfaultfd for unprivileged use (vm.unprivileged_userfaultfd = 0)', 'whole images are loaded before a restore'),
  capability('process.pre-dump', 'the kernel was built without soft-dirty tracking (CONFIG_MEM_SOFT_DIRTY)', 'one full dump'),
];

const facts = {
  'criu.version': '4.1.1',
  'host.arch': 'amd64',
  'host.cpu.count': '2',
  'os.description': 'Debian GNU/Linux 12 (bookworm)',
  'os.kernel.release': '6.18.0',
};

export function nodes(now: number): M.NodeView[] {
  const node = (id: string, workloads: M.WorkloadView[]): M.NodeView => ({
    id,
    generation: 1,
    live: true,
    registered_at: BEGIN - 40 * MINUTE,
    connected_since: BEGIN - 39 * MINUTE,
    last_seen: now - 400,
    clock_skew_ms: 3,
    software_version: '0.1.0',
    instance: digest(id).slice(0, 16),
    capabilities,
    facts,
    workloads,
    telemetry: { epoch: 1, acknowledged: 2310, batches: 2311, duplicates: 0, rejected: 0, lost: 0 },
  });
  const lost = node('node-c', []);
  return [
    node('node-a', [workload]),
    node('node-b', []),
    { ...lost, live: false, connected_since: null, last_seen: now - 312_000, capabilities: capabilities.map((c, i) => (i < 2 ? { ...c, simulated: true } : c)) },
  ];
}

const workload: M.WorkloadView = {
  id: 'demo-counter',
  name: 'demo counter',
  tier: 'standard',
  generation: 1,
  state: 'running',
  since: BEGIN - 38 * MINUTE,
  pid: 48213,
  adopted: false,
};

export function workloads(now: number): M.Workload[] {
  return [{ ...workload, node: 'node-a', node_live: true, progress: progressAt(now), progress_at: now - 700 }];
}

function progressAt(now: number): number {
  return 11_400 + Math.floor((now - BEGIN + 38 * MINUTE) / 200);
}

const risk: M.Risk = {
  level: 'critical',
  score: 0.93,
  confidence: 0.9,
  horizon_ms: 120_000,
  cause: 'spot.rebalance',
  reason: 'the provider recommends to leave this node, and its spot price rose by 212 % within 5 min',
  contributions: [
    { input: 1, weight: 0.7, note: 'rebalance recommendation 12 s ago' },
    { input: 0, weight: 0.23, note: 'price $3.12/h against a mean of $1.00/h' },
    { input: 0, weight: 0.07, note: 'volatility 0.41 over the window' },
  ],
};

export function risks(now: number): M.SubjectRisk[] {
  const of = (id: string, more: Partial<M.SubjectRisk>): M.SubjectRisk => ({ subject: { kind: 'node', id }, at: now - 800, ...more });
  return [
    of('node-a', { risk, decision: 'dec-000412', incident: 'inc-20261121-0004' }),
    of('node-b', {
      risk: { level: 'low', score: 0.04, confidence: 0.82, cause: 'spot.calm', reason: 'the price is steady and nothing is announced', contributions: [], horizon_ms: 120_000 },
      decision: 'dec-000413',
    }),
    of('node-c', { unknown: 'spot-risk: no sample of aether.market.price within 5 min; host-pressure: no sample of system.cpu.utilization within 1 min' }),
  ];
}

const blast = { nodes: 2, gpus: 0, workloads: 1, pool_percent: 66.7, fleet_percent: 66.7 };
const target = { kind: 'workload' as const, id: 'demo-counter', generation: 1 };
const success: M.Condition[] = [
  { metric: 'aether.workload.progress.rate', target: { ...target, generation: 2 }, minimum: 0.1, maximum: null, fresh_within_ms: 5_000 },
  { metric: 'aether.workload.running', target: { ...target, generation: 2 }, minimum: 1, maximum: null, fresh_within_ms: 5_000 },
];
const step = (verb: string, node: string, args: Record<string, M.Value>, undo: M.Compensation | null, on_failure: M.OnFailure = 'compensate'): M.Step => ({
  verb,
  node,
  target,
  arguments: args,
  preconditions: verb === 'process.checkpoint' ? [{ metric: 'aether.workload.running', target, minimum: 1, maximum: null, fresh_within_ms: 10_000 }] : [],
  on_failure,
  compensation: undo,
});
const steps = [
  step('process.checkpoint', 'node-a', { timeout: { duration: 120_000 } }, { verb: 'process.resume', node: 'node-a', arguments: {} }),
  step('process.restore', 'node-b', { 'checkpoint-step': { integer: 0 }, timeout: { duration: 120_000 } }, { verb: 'process.discard', node: 'node-b', arguments: {} }),
  step('process.confirm', 'node-b', { 'checkpoint-step': { integer: 0 } }, null),
  step('process.retire', 'node-a', {}, null, 'stop'),
];
const plan = (dry_run: boolean): M.Plan => ({
  schema_version: 1,
  shape: { cause: 'spot.rebalance', subject: { kind: 'node', id: 'node-a' } },
  steps,
  success: dry_run ? [] : success,
  watch_ms: 20_000,
  class: 'impactful',
  blast: { nodes: 2, gpus: 0, workloads: 1 },
  dry_run,
  planner: digest('migrate-planner'),
  gates: [digest('default-gate')],
  policy_bundle: digest('bundle'),
  parent: null,
});
const proposal: M.Proposal = {
  title: 'Migrate demo-counter from node-a to node-b',
  rationale: 'node-a is expected to be reclaimed within 2 min; node-b is calm, can restore, and has the most room.',
  steps: [{ verb: 'process.migrate', target, arguments: { to: { text: 'node-b' } }, preconditions: [], on_failure: 'compensate' }],
  success,
  watch_ms: 20_000,
  confidence: 0.88,
};
const demand: M.Demand = { approvers: 1, role: 'approver', approve_within_ms: 900_000, execute_within_ms: 300_000, comment: false };

export type Ending = 'waiting' | 'executing' | 'verifying' | 'resolved' | 'undone' | 'denied_by_gate' | 'dry';

interface Made {
  id: string;
  opened: number;
  ending: Ending;
  flags: M.Flags;
  approval?: M.Approval;
}

export const made: Made[] = [
  { id: 'inc-20261121-0004', opened: BEGIN - 95_000, ending: 'waiting', flags: { drill: true, dry_run: false, simulated: false, replayed: false } },
  { id: 'inc-20261121-0003', opened: BEGIN - 20 * MINUTE, ending: 'resolved', flags: { drill: true, dry_run: false, simulated: false, replayed: false } },
  { id: 'inc-20261121-0002', opened: BEGIN - 50 * MINUTE, ending: 'undone', flags: { drill: false, dry_run: false, simulated: true, replayed: false } },
  { id: 'inc-20261120-0009', opened: BEGIN - 1_500 * MINUTE, ending: 'dry', flags: { drill: false, dry_run: true, simulated: false, replayed: false } },
  { id: 'inc-20261120-0007', opened: BEGIN - 1_700 * MINUTE, ending: 'denied_by_gate', flags: { drill: false, dry_run: false, simulated: false, replayed: false } },
];

export function hashOf(incident: Made): string {
  return digest(`plan ${incident.id}`);
}

export function detail(incident: Made, now: number): M.IncidentDetail {
  const at = (s: number) => incident.opened + s * 1000;
  const hash = hashOf(incident);
  const bodies: [number, M.ArtifactStatus, M.Body, M.Evidence[]][] = [];
  const decision = { decision: { id: 'dec-000412', component: digest('spot-risk') } };
  const reading = (metric: string, unit: string, value: number | null, samples = 60): M.SummaryReading => ({
    metric,
    unit,
    attributes: {},
    value,
    at: at(-1),
    samples,
  });
  bodies.push([
    0,
    'complete',
    {
      kind: 'observation_summary',
      subject: { kind: 'node', id: 'node-a', generation: 1, labels: {} },
      readings: [
        reading('aether.market.price', '{USD}/h', 3.12, 300),
        reading('system.cpu.utilization', '1', 0.37),
        reading('system.memory.utilization', '1', 0.58),
        reading('aether.system.pressure.some', '1', 0.021),
        reading('gpu.temperature', 'Cel', null, 0),
      ],
      events: [{ name: 'aether.market.rebalance', at: at(-12), attributes: { drill: 'spot-reclaim' } }],
    },
    [{ series: { subject: { kind: 'node', id: 'node-a' }, metric: 'aether.market.price', from: at(-300), to: at(0) } }],
  ]);
  bodies.push([
    0,
    'complete',
    {
      kind: 'anomaly_finding',
      shape: { cause: 'spot.rebalance', subject: { kind: 'node', id: 'node-a' } },
      subject: { kind: 'node', id: 'node-a', generation: 1, labels: {} },
      risk,
      first_seen: at(-4),
      consecutive: 2,
      unknown: incident.ending === 'waiting' ? [] : ['host-pressure: no sample of system.disk.io_time'],
    },
    [decision],
  ]);
  bodies.push([
    0,
    'complete',
    {
      kind: 'root_cause_hypothesis',
      cause: 'spot.rebalance',
      explanation: 'The provider is reclaiming spot capacity in this pool: it recommends to leave node-a while the price of its type rises.',
      confidence: 0.9,
      contributions: risk.contributions.map((c) => c.note),
      workloads: [{ ...target, labels: { node: 'node-a' } }],
    },
    [decision],
  ]);
  bodies.push([
    1,
    'complete',
    {
      kind: 'remediation_proposal',
      chosen: proposal,
      refused: [{ code: 'proposal.ranked-lower', text: '“Checkpoint demo-counter and leave it stopped” stands, too, and ranks lower' }],
      considered: 2,
    },
    [{ decision: { id: 'dec-000414', component: digest('migrate-planner') } }],
  ]);
  const dry = incident.ending === 'dry';
  const gateDenies = incident.ending === 'denied_by_gate';
  const reasons: M.Reason[] = gateDenies
    ? [{ code: 'gate.blast-radius', text: 'the plan touches 67 % of the fleet, and at most 50 % is allowed at once' }]
    : [
        { code: 'gate.impactful', text: 'an impactful plan needs an approval' },
        ...(dry ? [{ code: 'posture.dry-run', text: "the host's posture makes this a dry run: everything is checked, nothing is changed" }] : []),
      ];
  bodies.push([
    2,
    gateDenies ? 'refused' : 'pending',
    {
      kind: 'execution_plan',
      plan: plan(dry),
      hash,
      blast,
      reasons,
      demand: gateDenies ? null : demand,
      approve_by: gateDenies ? null : at(902),
      denied: gateDenies,
    },
    [{ decision: { id: 'dec-000415', component: digest('default-gate') } }],
  ]);
  const outcome = (i: number, message: string, evidence: Record<string, M.Value>, status: M.OutcomeStatus = 'succeeded', code = 'ok'): M.Outcome => ({
    status,
    code,
    message,
    evidence,
    outputs: i === 0 ? { manifest: digest('manifest') } : {},
    simulated: incident.flags.simulated,
    started_at: at(40 + i * 2),
    ended_at: at(40 + i * 2) + [1_340, 960, 2_100, 210][i % 4]!,
  });
  const record = (i: number, result: M.Outcome | null, direction: 'forward' | 'compensate' = 'forward'): M.StepRecord => ({
    step: i,
    direction,
    verb: direction === 'forward' ? steps[i]!.verb : steps[i]!.compensation!.verb,
    node: steps[i]!.node,
    key: digest(`${incident.id}${i}${direction}`),
    outcome: result,
  });
  const all = [
    record(0, outcome(0, 'checkpointed 3 processes into 14 chunks; the source is stopped', { bytes: { bytes: 10_820_000 }, chunks: { integer: 14 }, progress: { integer: 22_803 } })),
    record(1, outcome(1, 'every chunk hashed as the manifest says; restored with CRIU 4.1.1', { bytes: { bytes: 10_820_000 }, pid: { integer: 51_877 } })),
    record(2, outcome(2, 'progress went from 22,803 to 22,812', { before: { integer: 22_803 }, after: { integer: 22_812 }, waited: { duration: 1_900 } })),
    record(3, outcome(3, 'the stopped source was ended', {})),
  ];
  const failed = [
    all[0]!,
    record(1, outcome(1, 'chunk 9 of 14 hashes to 51c0…, the manifest says 8e1f…; nothing was restored', { chunk: { integer: 9 } }, 'failed', 'snapshot.corrupt')),
    record(0, outcome(2, 'the source goes on from where it was stopped', { progress: { integer: 22_803 } }), 'compensate'),
  ];
  const approval: M.Approval = incident.approval ?? {
    plan: hash,
    by: 'local-admin',
    rank: 'admin',
    at: at(38),
    approved: true,
    comment: incident.ending === 'undone' ? 'go, the node is going away anyway' : null,
  };
  let phase: M.Phase = { awaiting_approval: { approve_by: at(902) } };
  let recorded: M.StepRecord[] = [];
  let approvals: M.Approval[] = [];
  let resolution: M.Resolution | null = null;
  const success_now = (values: (number | null)[]): M.Reading[] =>
    success.map((condition, i) => ({ condition, value: values[i] ?? null, sampled_at: values[i] === null ? null : at(70) }));
  switch (incident.ending) {
    case 'waiting':
      break;
    case 'executing':
      approvals = [approval];
      recorded = [all[0]!, record(1, null)];
      phase = { executing: { step: 1, stage: { accepted: { fence: 7, execute_by: at(340) } } } };
      break;
    case 'verifying':
      approvals = [approval];
      recorded = all;
      phase = { verifying: { since: at(48), until: at(118), held_since: at(50) } };
      bodies.push([48, 'complete', { kind: 'execution_result', steps: all, approvals, summary: 'every step was done' }, [{ manifest: { digest: digest('manifest') } }]]);
      break;
    case 'resolved':
    case 'dry':
      approvals = [approval];
      recorded = all;
      resolution = 'resolved';
      bodies.push([
        48,
        'complete',
        { kind: 'execution_result', steps: all, approvals, summary: dry ? 'dry run: every step was checked, nothing was changed' : 'every step was done' },
        [{ manifest: { digest: digest('manifest') } }, { journal: { node: 'node-b', position: 412 } }],
      ]);
      bodies.push([
        70,
        'complete',
        {
          kind: 'verification_result',
          verified: true,
          before: success_now([5.02, 1]),
          after: dry ? [] : success_now([4.97, 1]),
          watch_ms: 20_000,
          weak: dry ? ['a dry run changes nothing that could be verified'] : [],
          summary: dry ? 'dry run: nothing to verify' : 'every condition of success held on fresh evidence for the whole watch window',
        },
        [],
      ]);
      break;
    case 'undone':
      approvals = [approval];
      recorded = failed;
      resolution = 'undone';
      bodies.push([
        46,
        'failed',
        { kind: 'execution_result', steps: failed, approvals, summary: 'failed and undone: chunk 9 of 14 hashes to 51c0…, the manifest says 8e1f…; nothing was restored' },
        [],
      ]);
      break;
    case 'denied_by_gate':
      resolution = 'denied_by_gate';
      break;
  }
  const timeline: M.TimelineEntry[] = [
    { at: at(0), text: `opened: ${risk.reason}` },
    { at: at(1), text: `migrate-planner proposed: ${proposal.title}` },
    ...(gateDenies ? [] : [{ at: at(2), text: `plan ${hash.slice(0, 12)} waits for 1 approval(s)` }]),
    ...approvals.map((a) => ({ at: a.at, text: `${a.approved ? 'approved' : 'denied'} by ${a.by}` })),
    ...recorded.filter((r) => r.outcome).map((r) => ({ at: r.outcome!.ended_at, text: `${r.verb} on ${r.node}: ${r.outcome!.message}` })),
  ];
  const closedAt = resolution === null ? null : at(resolution === 'denied_by_gate' ? 2 : 72);
  const summary = {
    waiting: `plan ${hash.slice(0, 12)} waits for 1 approval(s)`,
    executing: 'process.restore on node-b runs',
    verifying: 'every step was done',
    resolved: 'every condition of success held on fresh evidence for the whole watch window',
    dry: 'dry run: nothing to verify',
    undone: 'chunk 9 of 14 hashes to 51c0…, the manifest says 8e1f…; nothing was restored',
    denied_by_gate: `denied: ${reasons[0]!.text}`,
  }[incident.ending];
  if (resolution !== null && closedAt !== null) {
    const status = { resolved: 'complete', undone: 'failed', denied_by_gate: 'refused' }[resolution as 'resolved'] as M.ArtifactStatus;
    bodies.push([
      (closedAt - incident.opened) / 1000,
      status,
      {
        kind: 'incident_report',
        resolution,
        summary,
        timeline,
        recurrences: 1,
        duration_ms: closedAt - incident.opened,
        action_needed: null,
      },
      [],
    ]);
    phase = { closed: { resolution } };
  }
  const artifacts: M.Artifact[] = [];
  const roles: Record<M.Kind, [M.ArtifactRole, M.ArtifactRole]> = {
    observation_summary: ['observer', 'analyzer'],
    anomaly_finding: ['analyzer', 'analyzer'],
    root_cause_hypothesis: ['analyzer', 'planner'],
    remediation_proposal: ['planner', 'policy_gate'],
    execution_plan: ['policy_gate', 'executor'],
    execution_result: ['executor', 'verifier'],
    verification_result: ['verifier', 'memory'],
    incident_report: ['memory', 'memory'],
  };
  bodies.forEach(([seconds, status, body, evidence], i) => {
    const before = artifacts.at(-1);
    artifacts.push({
      id: `${incident.id}/${i + 1}-${body.kind}`,
      schema_version: 1,
      producer: roles[body.kind][0],
      consumer: roles[body.kind][1],
      incident: incident.id,
      workflow: 'remediation',
      correlation: digest('shape'),
      at: at(seconds),
      status,
      parents: before ? [before.id] : [],
      evidence,
      flags: incident.flags,
      body,
      previous: before?.hash ?? null,
      hash: digest(`${incident.id}${i}`),
    });
  });
  return {
    incident: {
      id: incident.id,
      shape: { cause: 'spot.rebalance', subject: { kind: 'node', id: 'node-a' } },
      opened_at: incident.opened,
      closed_at: closedAt,
      resolution,
      phase: typeof phase === 'string' ? phase : Object.keys(phase)[0]!,
      summary,
      plan: gateDenies ? null : hash,
      updated_at: Math.min(now, closedAt ?? now),
      flags: incident.flags,
    },
    phase,
    flags: incident.flags,
    recurrences: 1,
    demand: gateDenies ? null : demand,
    approvals,
    steps: recorded,
    execute_by: approvals.length > 0 ? at(338) : null,
    failure: resolution === 'undone' ? summary : null,
    timeline,
    artifacts,
    chain_verified: true,
    chain_broken_at: null,
  };
}

export function planDetail(incident: Made, now: number): M.PlanDetail {
  const { incident: summary, phase, flags, approvals } = detail(incident, now);
  const body = detail(incident, now).artifacts[4]!.body as M.BodyOf<'execution_plan'>;
  return {
    hash: body.hash,
    plan: body.plan,
    incident: summary,
    phase,
    flags,
    proposal,
    reasons: body.reasons,
    blast,
    demand: body.demand,
    approvals,
    approve_by: body.approve_by,
    waiting: incident.ending === 'waiting',
    newest_evidence_at: now - 900,
    evidence_age_ms: 900,
    before: [],
  };
}

export function status(now: number): M.Status {
  return {
    version: '0.1.0',
    started_at: BEGIN - 40 * MINUTE,
    uptime_ms: now - BEGIN + 40 * MINUTE,
    now,
    posture: { dry_run: false, approval_required: true, highest_live_class: 'impactful', least_confidence_percent: 50, demands: {} },
    bundle,
    recorder: {
      series: 61,
      samples: 184_210,
      hot_bytes: 3_200_000,
      unsealed_batches: 12,
      unsealed_bytes: 42_000,
      segments: 20,
      segment_bytes: 840_000,
      oldest: BEGIN - 40 * MINUTE,
      newest: now - 600,
      evicted_samples: 0,
      rejected_batches: 0,
      duplicate_batches: 0,
      dropped_samples: 0,
      last_sealed: now - 4_000,
      seal_error: null,
    },
    drills: [{ name: 'spot-reclaim', node: 'node-a', since: BEGIN - 110_000 }],
    simulated_nodes: ['node-c'],
    nodes: 3,
    live_nodes: 2,
    open_incidents: made.filter((i) => detail(i, now).incident.closed_at === null).length,
    break_glass: [],
    open_breakers: [],
    waiting_plans: made.filter((i) => i.ending === 'waiting').length,
  };
}

const bundle: M.BundleInfo = {
  name: 'default',
  version: '0.1.0',
  summary: 'Spot reclaim and host pressure; migrations behind one approval.',
  digest: digest('bundle'),
};

const limits: M.Limits = {
  fuel: 50_000_000,
  deadline_ms: 250,
  memory_bytes: 32 << 20,
  output_bytes: 256 << 10,
  log_lines: 64,
  log_line_bytes: 2 << 10,
  host_calls: 256,
};

const figures: M.Figures = {
  evaluations: 7_214,
  faults: {},
  compared: 0,
  diverged: 0,
  fuel_p50: 41_208,
  fuel_p99: 44_871,
  latency_us_p50: 38,
  latency_us_p99: 121,
  memory_bytes_max: 1 << 20,
  log_lines: 0,
  last_at: Date.now() - 900,
  last_fault: null,
  dropped: 0,
};

const entry = (name: string, more: Partial<M.SlotEntry> = {}, own: Partial<M.Figures> = {}): M.SlotEntry => ({
  id: `${name}-1`,
  component: name,
  name,
  version: '0.1.0',
  assets: null,
  grants: ['log', 'assets', 'history'],
  stage: 'active',
  since: BEGIN - 3_600_000,
  replaces: null,
  predecessor: null,
  proofs: [],
  quarantine: null,
  ready: true,
  digest: digest(name),
  config: { rebalance_weight: 0.7, price_window_ms: 300_000, critical_above: 0.85 },
  limits,
  figures: { ...figures, ...own },
  ...more,
});

const slot = (id: string, role: M.ComponentRole, rule: M.SlotStatus['rule'], entries: M.SlotEntry[]): M.SlotStatus => ({
  id,
  role,
  rule,
  generation: 1 + entries.length,
  budget: { window: 200, least_evaluations: 20, faults_in_row: 5, fault_percent: 5, divergence_percent: 25, latency_ratio: 5, latency_floor_ms: 5, fuel_ratio: 10 },
  last: { slot: id, generation: 1 + entries.length, change: 'promote', entry: entries[0]?.id ?? null, at: BEGIN - 300_000, by: 'ada', why: 'quiet for an hour in shadow' },
  entries,
});

export function slots(): M.Slots {
  return {
    bundle,
    missing: [{ slot: 'gates', component: 'change-window', code: 'component.not-found', reason: 'there is no build/plugins/change-window.wasm; its absence denies every plan' }],
    slots: [
      slot('risk', 'risk-scorer', 'max', [
        entry('spot-risk'),
        entry('host-pressure', {}, { faults: { out_of_fuel: 3, timed_out: 1 }, last_fault: 'ran out of fuel: 50,000,000 units were not enough', fuel_p50: 88_112, fuel_p99: 50_000_000, latency_us_p99: 2_840 }),
        entry(
          'spot-risk',
          {
            id: 'spot-risk-4',
            version: '0.2.0',
            digest: digest('spot-risk-2'),
            stage: { canary: { percent: 25 } },
            replaces: 'spot-risk-1',
            proofs: [
              { to: 'candidate', at: BEGIN - 900_000, by: 'ada', self_test: { passed: 7, failed: 0 } },
              { to: 'shadow', at: BEGIN - 800_000, by: 'ada', self_test: { passed: 7, failed: 0 } },
              { to: { canary: { percent: 25 } }, at: BEGIN - 300_000, by: 'ada', figures: { ...figures, evaluations: 480, compared: 480, diverged: 6 }, overridden: null },
            ],
          },
          { evaluations: 213, compared: 213, diverged: 4 },
        ),
        entry('tree-ensemble', { id: 'tree-ensemble-3', stage: 'shadow', assets: digest('model'), since: BEGIN - 120_000 }, { evaluations: 98, compared: 98, diverged: 31 }),
        entry('spot-risk', {
          id: 'spot-risk-2',
          version: '0.1.9',
          digest: digest('spot-risk-bad'),
          stage: 'retired',
          replaces: 'spot-risk-1',
          quarantine: { at: BEGIN - 4_000_000, reason: '12.0 % of its evaluations ended in a fault; its budget is 5 %', reproducer: 'dec-000388' },
        }),
      ]),
      slot('planner', 'remediation-planner', 'rank', [entry('migrate-planner', {}, { evaluations: 5, fuel_p50: 102_400, fuel_p99: 110_020 })]),
      slot('gates', 'policy-gate', 'deny-overrides', [entry('default-gate', {}, { evaluations: 5 })]),
      slot('router', 'router', 'rank', [entry('least-loaded-router', {}, { evaluations: 0, fuel_p50: null, fuel_p99: null, latency_us_p50: null, latency_us_p99: null, last_at: null })]),
    ],
  };
}

export function plugins(): M.Plugin[] {
  const roles: Record<string, M.ComponentRole> = { 'spot-risk': 'risk-scorer', 'host-pressure': 'risk-scorer', 'migrate-planner': 'remediation-planner', 'default-gate': 'policy-gate', 'least-loaded-router': 'router' };
  return [...Object.entries(roles), ['experimental-risk', 'risk-scorer'] as const].map(([name, role]) => ({
    component: name,
    digest: digest(name),
    role: role,
    description: {
      name,
      version: '0.1.0',
      summary: 'Scores how likely a spot node is to be reclaimed, from its price and from what the provider says.',
      inputs: [
        { metric: { name: 'aether.market.price', unit: '{USD}/h', window_ms: 300_000, step_ms: 1_000, aggregation: 'last' } },
        { events: { name: 'aether.market.rebalance', window_ms: 600_000, at_most: 8 } },
      ],
      config_schema: '{}',
    },
    size_bytes: 36_412,
    slots: name === 'experimental-risk' ? [] : ['risk'],
    registered: {
      imports: ['aether:plugin/log@0.1.0'],
      provenance: name === 'experimental-risk' ? { kind: 'upload', file: 'experimental-risk.wasm' } : { kind: 'bundle', bundle: 'default', file: `${name}.wasm` },
      signature: name === 'spot-risk' ? { key_name: 'release', key_id: digest('key') } : null,
      uploaded_at: BEGIN - 7_200_000,
      uploaded_by: 'aether',
      used_at: BEGIN,
      quarantine: null,
      needed_by: name === 'experimental-risk' ? [] : ['slot risk'],
    },
  }));
}

export function decisions(): M.DecisionSummary[] {
  return Array.from({ length: 24 }, (_, i) => ({
    id: `dec-${String(412 - i).padStart(6, '0')}`,
    slot: ['risk', 'risk', 'planner', 'gates'][i % 4]!,
    component: digest('spot-risk'),
    component_name: ['spot-risk', 'host-pressure', 'migrate-planner', 'default-gate'][i % 4]!,
    component_version: '0.1.0',
    subject: i % 4 === 3 ? null : { kind: 'node', id: i % 2 ? 'node-b' : 'node-a' },
    at: BEGIN - i * 7_000,
    ok: i !== 5,
    outcome: i === 5 ? 'ran out of fuel' : ['critical 0.93: the provider recommends to leave this node', 'low 0.06', '1 proposal', 'requires 1 approval by an approver'][i % 4]!,
    fuel: 41_000 + i * 113,
    duration_us: 38 + i,
  }));
}

export function decision(id: string): M.Envelope {
  return {
    schema_version: 1,
    id,
    slot: 'risk',
    generation: 5,
    entry: 'spot-risk-1',
    stage: 'active',
    component: digest('spot-risk'),
    component_name: 'spot-risk',
    component_version: '0.1.0',
    config: digest('config'),
    wit_version: '0.1.0',
    engine_version: 'wasmtime 48.0.2',
    limits,
    at: BEGIN - 96_000,
    question: {
      score: {
        subject: { kind: 'node', id: 'node-a', generation: 1, labels: {} },
        at: BEGIN - 96_000,
        columns: [{ input: 0, attributes: {}, start: BEGIN - 396_000, step_ms: 60_000, values: [1.0, 1.01, 0.99, null, 2.4, 3.12] }],
        events: [{ input: 1, at: BEGIN - 107_000, attributes: { drill: 'spot-reclaim' } }],
      },
    },
    host_calls: [],
    log: [
      { severity: 'info', message: 'rebalance notice is 11 s old' },
      { severity: 'warn', message: 'price has 1 gap in the window' },
    ],
    outcome: { Ok: { assessment: { risk } } },
    fuel: 41_208,
    memory_bytes: 1_179_648,
    duration_us: 38,
  };
}

export function audit(): M.AuditPage {
  const acts: [string, M.Rank | null, string, string, 'done' | 'refused', Record<string, string>][] = [
    ['local-admin', 'admin', 'plan.approve', hashOf(made[1]!), 'done', { incident: made[1]!.id }],
    ['viewer-1', 'viewer', 'plan.approve', hashOf(made[1]!), 'refused', { reason: 'this needs the rank approver, and you have viewer' }],
    ['feeder', 'operator', 'signals.post', 'node-a', 'done', { drill: 'spot-reclaim', prices: '12', notices: '1' }],
    ['local-admin', 'admin', 'session.create', 'session', 'done', {}],
    ['nobody', null, 'session.create', 'session', 'refused', {}],
    ['local-admin', 'admin', 'join-token.create', 'node-b', 'done', { expires: '1 h' }],
  ];
  return {
    entries: acts.map(([principal, rank, action, target, outcome, detail], i) => ({
      number: 6 - i,
      at: BEGIN - i * 140_000,
      principal,
      rank,
      action,
      target,
      outcome,
      detail,
      previous: digest(`audit${5 - i}`),
      hash: digest(`audit${6 - i}`),
    })),
    next_before: null,
    chain_verified: true,
    chain_broken_at: null,
  };
}

/** A smooth invented signal: the same for the same time, so that a refetch changes nothing. */
function wave(seed: number, t: number): number {
  const s = t / 1000 + seed * 97;
  return 0.5 + 0.22 * Math.sin(s / 31) + 0.14 * Math.sin(s / 7.3 + seed) + 0.1 * Math.sin(s / 2.1 + 2 * seed) * Math.sin(s / 53);
}

export function range(subject: string, metric: string, from: number, to: number, points: number): M.RangeAnswer {
  const [kind, id] = subject.split('/') as [M.SubjectKind, string];
  const now = Date.now();
  const bucket = Math.max(1, Math.ceil((to - from) / points));
  const seed = id.charCodeAt(id.length - 1) + metric.length;
  const share = (low: number, high: number) => (t: number) => low + (high - low) * wave(seed, t);
  const shapes: Record<string, [unit: string, lines: [Record<string, string>, (t: number) => number][]]> = {
    'system.cpu.utilization': ['1', [[{}, share(0.05, 0.7)]]],
    'system.memory.utilization': ['1', [[{}, share(0.52, 0.58)]]],
    'system.cpu.load_average.1m': ['{thread}', [[{}, share(0.3, 2.2)]]],
    'system.filesystem.utilization': ['1', [[{}, () => 0.41]]],
    'aether.system.pressure.some': ['1', ['cpu', 'io', 'memory'].map((resource, i) => [{ resource }, (t: number) => Math.max(0, wave(seed + i, t) - 0.55) * (0.3 - i * 0.1)])],
    'system.disk.io': ['By', ['read', 'write'].map((d, i) => [{ 'disk.io.direction': d }, (t: number) => ((t - BEGIN + 7_200_000) / 1000) * (i ? 4e5 : 9e4) + wave(seed + i, t) * 3e6])],
    'system.network.io': ['By', ['receive', 'transmit'].map((d, i) => [{ 'network.io.direction': d }, (t: number) => ((t - BEGIN + 7_200_000) / 1000) * (i ? 2e5 : 3e5) + wave(seed + i, t) * 1e6])],
    'aether.workload.progress': ['{step}', [[{}, progressAt]]],
    'aether.workload.progress.rate': ['{step}/s', [[{}, share(4.6, 5.4)]]],
    'process.memory.usage': ['By', [[{}, (t) => 9e6 + wave(seed, t) * 2e5]]],
  };
  if (id !== 'node-c') {
    shapes['aether.market.price'] = ['{USD}/h', [[{}, (t) => (id === 'node-a' && t > BEGIN - 110_000 ? 1 + Math.min(2.1, (t - BEGIN + 110_000) / 20_000) : 1) + 0.05 * wave(seed, t)]]];
  }
  const shape = shapes[metric];
  if (!shape || (kind === 'node' && metric.startsWith('aether.workload'))) return { from, to, series: [], cut: false, unreadable: 0 };
  const end = id === 'node-c' ? now - 312_000 : now - 500;
  const at: number[] = [];
  for (let t = from; t < to; t += bucket) {
    // A hole, so that a gap shows as one.
    const hole = id === 'node-b' && t > BEGIN - 150_000 && t < BEGIN - 118_000;
    if (t <= end && t > BEGIN - 40 * MINUTE && !hole) at.push(t);
  }
  return {
    from,
    to,
    cut: false,
    unreadable: 0,
    series: shape[1].map(([attributes, value]) => {
      const values = at.map(value);
      return { key: { subject: { kind, id }, metric, unit: shape[0], attributes }, bucket_ms: bucket, at, min: values, mean: values, max: values, last: values };
    }),
  };
}
