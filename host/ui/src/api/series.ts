/**
 * Series over a rolling window. The first query asks for the whole window, each later one only for its newest end, so
 * that a page full of charts costs the host little.
 */
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { api } from './client';
import { hostNow } from './clock';
import type { RangeSeries, SubjectKind } from './model';

export interface Window {
  id: '5m' | '1h';
  word: string;
  span_ms: number;
  step_ms: number;
  every_ms: number;
}

/** Steps are wider than the sampling, so that a sample that comes a little late leaves no hole. */
export const WINDOWS: Record<Window['id'], Window> = {
  '5m': { id: '5m', word: '5 min', span_ms: 300_000, step_ms: 2_000, every_ms: 1_000 },
  '1h': { id: '1h', word: '1 h', span_ms: 3_600_000, step_ms: 15_000, every_ms: 5_000 },
};

export interface Line {
  attributes: Record<string, string>;
  unit: string;
  at: number[];
  /** Mean of each bucket. */
  mean: (number | null)[];
  /** The last word on a counter: it only rises. */
  max: (number | null)[];
}

/** So much of the end is asked for again: batches come late by a few seconds. */
const OVERLAP_STEPS = 5;
/** So often the whole window is asked for again: after an outage a spool fills in what was a gap. */
const WHOLE_EVERY_MS = 15_000;

interface Known {
  lines: Line[];
  whole_at: number;
}

export function useSeries(
  subject: { kind: SubjectKind; id: string },
  metric: string,
  window: Window,
  enabled: boolean,
): { lines: Line[]; failed: unknown; loading: boolean } {
  const client = useQueryClient();
  const queryKey = ['series', subject.kind, subject.id, metric, window.id];
  const query = useQuery({
    queryKey,
    enabled,
    refetchInterval: window.every_ms,
    structuralSharing: false,
    gcTime: 60_000,
    retry: false,
    queryFn: async ({ signal }) => {
      const before = client.getQueryData<Known>(queryKey);
      const known = before?.lines ?? [];
      const step = window.step_ms;
      const to = Math.floor(hostNow() / step) * step + step;
      const begin = to - window.span_ms;
      const newest = Math.max(begin, ...known.map((line) => line.at.at(-1) ?? 0));
      const whole = known.length === 0 || !before || to - before.whole_at > WHOLE_EVERY_MS;
      const from = !whole ? Math.max(begin, newest - OVERLAP_STEPS * step) : begin;
      const answer = await api.range(
        { subject: `${subject.kind}/${subject.id}`, metric, from, to, points: (to - from) / step },
        { signal },
      );
      return { lines: merge(known, answer.series, begin, from), whole_at: whole ? to : before.whole_at } satisfies Known;
    },
  });
  return { lines: query.data?.lines ?? [], failed: query.error, loading: query.isPending };
}

/** `known` before `from`, then what `came`; nothing before `begin`. */
export function merge(known: Line[], came: RangeSeries[], begin: number, from: number): Line[] {
  const name = (attributes: Record<string, string>) => JSON.stringify(Object.entries(attributes).sort());
  const kept = new Map(known.map((line) => [name(line.attributes), slice(line, begin, from)]));
  for (const { key, at, mean, max } of came) {
    const line = kept.get(name(key.attributes)) ?? { attributes: key.attributes, unit: key.unit, at: [], mean: [], max: [] };
    kept.set(name(key.attributes), {
      ...line,
      at: [...line.at, ...at],
      mean: [...line.mean, ...mean],
      max: [...line.max, ...max],
    });
  }
  return [...kept.values()]
    .filter((line) => line.at.length > 0)
    .sort((a, b) => name(a.attributes).localeCompare(name(b.attributes)));
}

function slice(line: Line, begin: number, end: number): Line {
  const first = lowerBound(line.at, begin);
  const last = lowerBound(line.at, end);
  return { ...line, at: line.at.slice(first, last), mean: line.mean.slice(first, last), max: line.max.slice(first, last) };
}

function lowerBound(at: number[], time: number): number {
  let low = 0;
  let high = at.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((at[middle] ?? Infinity) < time) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Increase per second between neighbouring buckets of a counter; a reset and a gap give none. */
export function rate(line: Line, gap_ms: number): Line {
  const values = line.max.map((value, i) => {
    const before = line.max[i - 1];
    const since = (line.at[i] ?? 0) - (line.at[i - 1] ?? 0);
    if (typeof value !== 'number' || typeof before !== 'number' || value < before || since <= 0 || since > gap_ms) return null;
    return ((value - before) / since) * 1000;
  });
  return { ...line, unit: `${line.unit}/s`, mean: values, max: values };
}

/** Sums lines (the disks of a node, say) where their times agree. */
export function sum(lines: Line[], attributes: Record<string, string>): Line | null {
  const [first] = lines;
  if (!first) return null;
  const totals = new Map<number, number>();
  for (const line of lines) {
    line.at.forEach((at, i) => {
      const value = line.mean[i];
      if (typeof value === 'number') totals.set(at, (totals.get(at) ?? 0) + value);
    });
  }
  const at = [...totals.keys()].sort((a, b) => a - b);
  const mean = at.map((time) => totals.get(time) ?? null);
  return { attributes, unit: first.unit, at, mean, max: mean };
}

/** How far apart neighbouring samples may be before the line is broken. */
export function gapOf(window: Window): number {
  return Math.max(3 * window.step_ms, 6_000);
}

/** Some things are sampled each second and some each ten: a gap is several times what is usual for the line. */
function gapWithin(line: Line, gap_ms: number): number {
  const apart = line.at.slice(1).map((at, i) => at - (line.at[i] ?? at));
  const usual = apart.sort((a, b) => a - b)[Math.floor(apart.length / 2)] ?? 0;
  return Math.max(gap_ms, 3 * usual);
}

/** The lines on one axis of times, for drawing: `null` breaks a line, `undefined` only has no point there. */
export function plotted(lines: Line[], gap_ms: number): [number[], ...(number | null | undefined)[][]] {
  const times = new Set<number>();
  const gaps = lines.map((line) => gapWithin(line, gap_ms));
  lines.forEach((line, n) => {
    line.at.forEach((at, i) => {
      times.add(at);
      const next = line.at[i + 1];
      if (next !== undefined && next - at > (gaps[n] ?? gap_ms)) times.add(at + 1);
    });
  });
  const axis = [...times].sort((a, b) => a - b);
  const columns = lines.map((line, n) => {
    const values = new Map<number, number | null>();
    line.at.forEach((at, i) => {
      values.set(at, line.mean[i] ?? null);
      const next = line.at[i + 1];
      if (next !== undefined && next - at > (gaps[n] ?? gap_ms)) values.set(at + 1, null);
    });
    return axis.map((at) => values.get(at));
  });
  return [axis.map((at) => at / 1000), ...columns];
}
