import { describe, expect, test } from 'vitest';
import type { RangeSeries } from './model';
import { merge, plotted, rate, sum, type Line } from './series';

const came = (at: number[], values: number[], attributes: Record<string, string> = {}): RangeSeries => ({
  key: { subject: { kind: 'node', id: 'node-a' }, metric: 'm', unit: 'By', attributes },
  bucket_ms: 1000,
  at,
  min: values,
  mean: values,
  max: values,
  last: values,
});
const line = (at: number[], values: (number | null)[]): Line => ({ attributes: {}, unit: 'By', at, mean: values, max: values });

describe('merging', () => {
  test('what was asked again replaces what was known, and what is too old goes', () => {
    const known = merge([], [came([1, 2, 3, 4], [10, 20, 30, 40])], 0, 0);
    const [merged] = merge(known, [came([3, 4, 5], [31, 41, 50])], 2, 3);
    expect(merged?.at).toEqual([2, 3, 4, 5]);
    expect(merged?.mean).toEqual([20, 31, 41, 50]);
  });

  test('lines are told apart by their attributes, and one without points is no line', () => {
    const known = merge([], [came([1], [1], { d: 'write' }), came([1], [2], { d: 'read' })], 0, 0);
    expect(known.map(({ attributes }) => attributes['d'])).toEqual(['read', 'write']);
    expect(merge(known, [], 5, 5)).toEqual([]);
  });
});

describe('rates', () => {
  test('a reset and a gap give none', () => {
    expect(rate(line([0, 1000, 2000, 3000, 90_000], [0, 100, 50, 150, 999]), 6_000).mean).toEqual([null, 100, null, 100, null]);
  });

  test('lines add up where their times agree', () => {
    expect(sum([line([0, 1], [1, 2]), line([1, 2], [10, 20])], {})).toMatchObject({ at: [0, 1, 2], mean: [1, 12, 20] });
    expect(sum([], {})).toBeNull();
  });
});

describe('drawing', () => {
  test('a gap breaks the line; a late sample does not', () => {
    const [times, values] = plotted([line([0, 1000, 3000, 30_000], [1, 2, 3, 4])], 6_000);
    expect(times).toEqual([0, 1, 3, 3.001, 30]);
    expect(values).toEqual([1, 2, 3, null, 4]);
  });

  test('what is sampled each ten seconds has no gaps ten seconds wide', () => {
    const slow = line([0, 10_000, 20_000, 30_000, 90_000], [1, 2, 3, 4, 5]);
    expect(plotted([slow], 6_000)[1]).toEqual([1, 2, 3, 4, null, 5]);
  });

  test('a point that only another line has does not break this one', () => {
    const [, a, b] = plotted([line([0, 2000], [1, 3]), line([1000], [2])], 6_000);
    expect(a).toEqual([1, undefined, 3]);
    expect(b).toEqual([undefined, 2, undefined]);
  });
});
