/** What the page knows of the host, kept fresh: told by the event stream, asked again at a calm pace in any case. */
import { QueryCache, QueryClient, keepPreviousData, queryOptions, useInfiniteQuery, useQuery } from '@tanstack/react-query';
import { api, isSignedOut } from './client';
import { Problem } from './http';

export const queryClient = new QueryClient({
  queryCache: new QueryCache({
    onError: (error) => {
      // The session ended elsewhere: ask who is signed in, which leads to the sign-in page.
      if (isSignedOut(error)) void queryClient.invalidateQueries({ queryKey: keys.session });
    },
  }),
  defaultOptions: {
    queries: {
      retry: (failures, error) => !(error instanceof Problem && error.status < 500) && failures < 2,
      retryDelay: (attempt) => Math.min(500 * 2 ** attempt, 4_000),
      staleTime: 500,
      networkMode: 'always',
    },
    mutations: { networkMode: 'always' },
  },
});

export const keys = {
  session: ['session'],
  status: ['status'],
  nodes: ['nodes'],
  agentConfigs: ['agent-config'],
  workloads: ['workloads'],
  risks: ['risks'],
  incidents: ['incidents'],
  incident: (id: string) => ['incidents', id],
  plan: (hash: string) => ['plans', hash],
  slots: ['slots'],
  plugins: ['plugins'],
  decisions: ['decisions'],
  audit: ['audit'],
  breakGlass: ['break-glass'],
  breakers: ['breakers'],
  gates: ['gates'],
  backtests: ['backtests'],
} as const;

export const sessionQuery = queryOptions({
  queryKey: keys.session,
  queryFn: async ({ signal }) => {
    try {
      return await api.session({ signal });
    } catch (error) {
      if (isSignedOut(error)) return null;
      throw error;
    }
  },
  staleTime: 60_000,
  retry: true,
});

export function useStatus() {
  return useQuery({ queryKey: keys.status, queryFn: ({ signal }) => api.status({ signal }), refetchInterval: 2_000 });
}

export function useNodes() {
  return useQuery({ queryKey: keys.nodes, queryFn: ({ signal }) => api.nodes({ signal }), refetchInterval: 2_000 });
}

export function useAgentConfigs() {
  return useQuery({ queryKey: keys.agentConfigs, queryFn: ({ signal }) => api.agentConfigs({ signal }), refetchInterval: 5_000 });
}

export function useWorkloads() {
  return useQuery({ queryKey: keys.workloads, queryFn: ({ signal }) => api.workloads({ signal }), refetchInterval: 1_000 });
}

export function useRisks() {
  return useQuery({ queryKey: keys.risks, queryFn: ({ signal }) => api.risks({ signal }), refetchInterval: 2_000 });
}

export function useIncidents() {
  return useInfiniteQuery({
    queryKey: keys.incidents,
    queryFn: ({ pageParam, signal }) => api.incidents({ before: pageParam }, { signal }),
    initialPageParam: undefined as number | undefined,
    getNextPageParam: (page) => page.next_before ?? undefined,
    refetchInterval: 3_000,
  });
}

export function useIncident(id: string) {
  return useQuery({
    queryKey: keys.incident(id),
    queryFn: ({ signal }) => api.incident(id, { signal }),
    refetchInterval: (query) => (query.state.data?.incident.closed_at ? 30_000 : 1_000),
  });
}

export function usePlan(hash: string) {
  return useQuery({
    queryKey: keys.plan(hash),
    queryFn: ({ signal }) => api.plan(hash, { signal }),
    refetchInterval: (query) => (query.state.data?.waiting === false ? 30_000 : 1_000),
  });
}

export function useSlots() {
  return useQuery({ queryKey: keys.slots, queryFn: ({ signal }) => api.slots({ signal }), refetchInterval: 2_000 });
}

export function useSlotHistory(slot: string) {
  return useQuery({ queryKey: [...keys.slots, slot], queryFn: ({ signal }) => api.slotHistory(slot, { signal }), refetchInterval: 5_000 });
}

export function usePlugins() {
  return useQuery({ queryKey: keys.plugins, queryFn: ({ signal }) => api.plugins({ signal }), refetchInterval: 30_000 });
}

export function useDecisions(slot: string | undefined, limit: number) {
  return useQuery({
    queryKey: [...keys.decisions, slot ?? '', limit],
    queryFn: ({ signal }) => api.decisions({ slot, limit }, { signal }),
    placeholderData: keepPreviousData,
    refetchInterval: 3_000,
  });
}

export function useDecision(id: string) {
  return useQuery({ queryKey: ['decision', id], queryFn: ({ signal }) => api.decision(id, { signal }), staleTime: Infinity });
}

export function useBacktests() {
  return useQuery({ queryKey: keys.backtests, queryFn: ({ signal }) => api.backtests({ signal }), refetchInterval: 3_000 });
}

export function useBacktest(id: string) {
  return useQuery({
    queryKey: [...keys.backtests, id],
    queryFn: ({ signal }) => api.backtest(id, { signal }),
    refetchInterval: (query) => (query.state.data?.backtest.state === 'running' ? 1_000 : false),
  });
}

export function useHistories() {
  return useQuery({ queryKey: ['histories'], queryFn: ({ signal }) => api.histories({ signal }), staleTime: 10_000 });
}

/** The verb catalogue; it changes with the host's version alone. */
export function useVerbs() {
  return useQuery({ queryKey: ['verbs'], queryFn: ({ signal }) => api.verbs({ signal }), staleTime: Infinity });
}

export function useBreakGlass() {
  return useQuery({ queryKey: keys.breakGlass, queryFn: ({ signal }) => api.breakGlass({ signal }), refetchInterval: 3_000 });
}

/** They change with people's words, so seldom. */
export function useGates() {
  return useQuery({ queryKey: keys.gates, queryFn: ({ signal }) => api.gates({ signal }), refetchInterval: 15_000 });
}

export function useBreakers() {
  return useQuery({ queryKey: keys.breakers, queryFn: ({ signal }) => api.breakers({ signal }), refetchInterval: 3_000 });
}

export function useAudit() {
  return useInfiniteQuery({
    queryKey: keys.audit,
    queryFn: ({ pageParam, signal }) => api.audit({ before: pageParam, verify: pageParam === undefined }, { signal }),
    initialPageParam: undefined as number | undefined,
    getNextPageParam: (page) => page.next_before ?? undefined,
    refetchInterval: (query) => ((query.state.data?.pages.length ?? 0) > 1 ? false : 3_000),
  });
}
