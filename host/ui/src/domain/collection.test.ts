import { describe, expect, it } from 'vitest';
import type { Configured, NodeView } from '../api/model';
import { collectionOf, wants } from './collection';

const collection = { sample_interval_ms: 5_000, batch_interval_ms: null, disabled_sources: ['sockets'], intervals_ms: { perf: 30_000 }, bpf_budget_permille: 15 };
const word = (version: number, node: string | null, of: Configured['collection'] = collection): Configured => ({
  version,
  node,
  collection: of,
  by: 'token/ada',
  name: 'Ada',
  at: 0,
  reason: 'less',
});
const node = (facts: Record<string, string>) => ({ id: 'node-a', facts }) as unknown as NodeView;

describe('what is wanted of telemetry', () => {
  it('is said in a few words', () => {
    expect(wants(collection)).toBe('a sample every 5 s, perf every 30 s, sockets off, eBPF within 1.5 %');
  });

  it("is the node's own word before the fleet's", () => {
    expect(collectionOf(node({}), [word(1, null), word(2, 'node-b')])?.word.version).toBe(1);
    expect(collectionOf(node({}), [word(1, null), word(2, 'node-a')])?.word.version).toBe(2);
    expect(collectionOf(node({}), [word(1, null), word(2, 'node-a', null)])).toBeUndefined();
    expect(collectionOf(node({}), [])).toBeUndefined();
  });

  it('stands as the agent says', () => {
    const standing = (facts: Record<string, string>) => collectionOf(node(facts), [word(3, null)])?.standing;
    expect(standing({ 'config.version': '2' })).toMatch(/not said yet/);
    expect(standing({ 'config.version': '3' })).toBe('Its agent follows.');
    expect(standing({ 'config.version': '3', 'config.withheld': '`sample_interval_ms` of 100' })).toMatch(/but for `sample/);
  });
});
