/** The calls that the page makes, typed by the host's OpenAPI document. */
import createClient from 'openapi-fetch';
import type { paths } from './generated/schema';
import { Problem, problemOf, Unreachable } from './http';
import type * as M from './model';

const client = createClient<paths>({
  baseUrl: '',
  fetch: async (request) => {
    try {
      return await fetch(request);
    } catch (error) {
      if (request.signal.aborted) throw error;
      throw new Unreachable(error);
    }
  },
});

/** What was answered, or the problem thrown. */
async function told<T>(answer: Promise<{ data?: T; error?: unknown; response: Response }>): Promise<T> {
  const { data, error, response } = await answer;
  if (!response.ok) throw problemOf(response, error);
  return data as T;
}

type Signal = { signal?: AbortSignal };

export const api = {
  session: (s?: Signal) => told(client.GET('/api/v1/session', s)),
  signIn: (token: string) => told(client.POST('/api/v1/session', { body: { token } })),
  signOut: () => told(client.DELETE('/api/v1/session')),
  status: (s?: Signal) => told(client.GET('/api/v1/status', s)),
  nodes: (s?: Signal) => told(client.GET('/api/v1/nodes', s)),
  agentConfigs: (s?: Signal) => told(client.GET('/api/v1/agent-config', s)),
  workloads: (s?: Signal) => told(client.GET('/api/v1/workloads', s)),
  risks: (s?: Signal) => told(client.GET('/api/v1/risks', s)),
  range: (query: { subject: string; metric: string; from: number; to: number; points: number }, s?: Signal) =>
    told(client.GET('/api/v1/telemetry/range', { params: { query }, ...s })),
  incidents: (query: { before?: number }, s?: Signal) => told(client.GET('/api/v1/incidents', { params: { query }, ...s })),
  incident: (id: string, s?: Signal): Promise<M.IncidentDetail> =>
    told(client.GET('/api/v1/incidents/{id}', { params: { path: { id } }, ...s })),
  plan: (hash: string, s?: Signal) => told(client.GET('/api/v1/plans/{hash}', { params: { path: { hash } }, ...s })),
  approve: (hash: string, comment: string | null, breakGlass: boolean) =>
    told(client.POST('/api/v1/plans/{hash}/approve', { params: { path: { hash } }, body: { comment, break_glass: breakGlass } })),
  deny: (hash: string, comment: string | null) =>
    told(client.POST('/api/v1/plans/{hash}/deny', { params: { path: { hash } }, body: { comment } })),
  callOff: (hash: string, comment: string) =>
    told(client.POST('/api/v1/plans/{hash}/call-off', { params: { path: { hash } }, body: { comment } })),
  slots: async (s?: Signal) => (await told(client.GET('/api/v1/slots', s))) as M.Slots,
  slotHistory: (slot: string, s?: Signal) => told(client.GET('/api/v1/slots/{slot}/generations', { params: { path: { slot }, query: {} }, ...s })),
  addEntry: async (slot: string, body: M.NewEntry) =>
    (await told(client.POST('/api/v1/slots/{slot}/entries', { params: { path: { slot } }, body: body as never }))) as M.AddedEntry,
  promoteEntry: (slot: string, entry: string, body: M.Promotion) =>
    told(client.POST('/api/v1/slots/{slot}/entries/{entry}/promote', { params: { path: { slot, entry } }, body })),
  retireEntry: (slot: string, entry: string, body: M.Retirement) =>
    told(client.POST('/api/v1/slots/{slot}/entries/{entry}/retire', { params: { path: { slot, entry } }, body })),
  rollBackEntry: (slot: string, entry: string, body: M.RollBack) =>
    told(client.POST('/api/v1/slots/{slot}/entries/{entry}/roll-back', { params: { path: { slot, entry } }, body })),
  removePlugin: (digest: string) => told(client.DELETE('/api/v1/plugins/{digest}', { params: { path: { digest } } })),
  liftQuarantine: (digest: string) => told(client.POST('/api/v1/plugins/{digest}/lift-quarantine', { params: { path: { digest } } })),
  plugins: (s?: Signal) => told(client.GET('/api/v1/plugins', s)),
  decisions: (query: { slot?: string; limit?: number }, s?: Signal) => told(client.GET('/api/v1/decisions', { params: { query }, ...s })),
  decision: async (id: string, s?: Signal) =>
    (await told(client.GET('/api/v1/decisions/{id}', { params: { path: { id } }, ...s }))) as M.Envelope,
  replay: (id: string) => told(client.POST('/api/v1/decisions/{id}/replay', { params: { path: { id } } })),
  backtests: (s?: Signal) => told(client.GET('/api/v1/backtests', { params: { query: {} }, ...s })),
  backtest: (id: string, s?: Signal) => told(client.GET('/api/v1/backtests/{id}', { params: { path: { id } }, ...s })),
  startBacktest: (body: M.BacktestRequest) => told(client.POST('/api/v1/backtests', { body: body as never })),
  stopBacktest: (id: string) => told(client.POST('/api/v1/backtests/{id}/stop', { params: { path: { id } } })),
  histories: (s?: Signal) => told(client.GET('/api/v1/histories', s)),
  breakGlass: (s?: Signal) => told(client.GET('/api/v1/break-glass', s)),
  openBreakGlass: (reason: string) => told(client.POST('/api/v1/break-glass', { body: { reason } })),
  endBreakGlass: (id: string) => told(client.POST('/api/v1/break-glass/{id}/end', { params: { path: { id } } })),
  reviewBreakGlass: (id: string, comment: string) =>
    told(client.POST('/api/v1/break-glass/{id}/review', { params: { path: { id } }, body: { comment } })),
  verbs: (s?: Signal) => told(client.GET('/api/v1/verbs', s)),
  cordon: (id: string, reason: string) => told(client.POST('/api/v1/nodes/{id}/cordon', { params: { path: { id } }, body: { reason } })),
  uncordon: (id: string, reason: string) => told(client.POST('/api/v1/nodes/{id}/uncordon', { params: { path: { id } }, body: { reason } })),
  gates: (s?: Signal) => told(client.GET('/api/v1/gates', s)),
  breakers: (s?: Signal) => told(client.GET('/api/v1/breakers', s)),
  resetBreaker: (scope: string, comment: string) => told(client.POST('/api/v1/breakers/reset', { body: { scope, comment } })),
  audit: (query: { before?: number; verify?: boolean }, s?: Signal) => told(client.GET('/api/v1/audit', { params: { query }, ...s })),
};

export function isSignedOut(error: unknown): boolean {
  return error instanceof Problem && error.status === 401;
}
