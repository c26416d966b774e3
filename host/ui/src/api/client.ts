/** The calls of the API that the page makes. Interim: typed by hand until the host's OpenAPI document is there. */
import { Problem, problemOf, Unreachable } from './http';
import type * as M from './model';

type Params = Record<string, string | number | boolean | undefined | null>;

async function send<T>(method: string, path: string, options: { query?: Params; body?: unknown; signal?: AbortSignal } = {}) {
  const url = new URL(`/api/v1/${path}`, location.origin);
  for (const [name, value] of Object.entries(options.query ?? {})) {
    if (value !== undefined && value !== null) url.searchParams.set(name, String(value));
  }
  const request: RequestInit = { method, signal: options.signal ?? null };
  if (options.body !== undefined) {
    request.body = JSON.stringify(options.body);
    request.headers = { 'content-type': 'application/json' };
  }
  let response: Response;
  try {
    response = await fetch(url, request);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Unreachable(error);
  }
  if (!response.ok) throw await problemOf(response);
  return (response.status === 204 ? undefined : await response.json()) as T;
}

const id = encodeURIComponent;
type Signal = { signal?: AbortSignal };

export const api = {
  session: (s?: Signal) => send<M.Session>('GET', 'session', s),
  signIn: (token: string) => send<M.Session>('POST', 'session', { body: { token } }),
  signOut: () => send<void>('DELETE', 'session'),
  status: (s?: Signal) => send<M.Status>('GET', 'status', s),
  nodes: (s?: Signal) => send<M.NodeView[]>('GET', 'nodes', s),
  workloads: (s?: Signal) => send<M.Workload[]>('GET', 'workloads', s),
  risks: (s?: Signal) => send<M.SubjectRisk[]>('GET', 'risks', s),
  range: (
    query: { subject: string; metric: string; from: number; to: number; points: number },
    s?: Signal,
  ) => send<M.RangeAnswer>('GET', 'telemetry/range', { query, ...s }),
  incidents: (query: { before?: number }, s?: Signal) => send<M.IncidentPage>('GET', 'incidents', { query, ...s }),
  incident: (incident: string, s?: Signal) => send<M.IncidentDetail>('GET', `incidents/${id(incident)}`, s),
  plan: (hash: string, s?: Signal) => send<M.PlanDetail>('GET', `plans/${id(hash)}`, s),
  decide: (hash: string, deed: 'approve' | 'deny' | 'withdraw', comment: string | null) =>
    send<unknown>('POST', `plans/${id(hash)}/${deed}`, { body: comment ? { comment } : {} }),
  slots: (s?: Signal) => send<M.Slots>('GET', 'slots', s),
  plugins: (s?: Signal) => send<M.Plugin[]>('GET', 'plugins', s),
  decisions: (query: { slot?: string; limit?: number }, s?: Signal) =>
    send<M.DecisionSummary[]>('GET', 'decisions', { query, ...s }),
  decision: (decision: string, s?: Signal) => send<M.Envelope>('GET', `decisions/${id(decision)}`, s),
  audit: (query: { before?: number; verify?: boolean }, s?: Signal) => send<M.AuditPage>('GET', 'audit', { query, ...s }),
};

export function isSignedOut(error: unknown): boolean {
  return error instanceof Problem && error.status === 401;
}
