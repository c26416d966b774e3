/** What people want of an agent's telemetry, and what it makes of that. */
import type { Collection, Configured, NodeView } from '../api/model';
import { duration } from '../format/time';

/** In a few words. */
export function wants(collection: Collection): string {
  const { sample_interval_ms, batch_interval_ms, intervals_ms, disabled_sources, bpf_budget_permille } = collection;
  const words = [];
  if (typeof sample_interval_ms === 'number') words.push(`a sample every ${duration(sample_interval_ms)}`);
  if (typeof batch_interval_ms === 'number') words.push(`a batch every ${duration(batch_interval_ms)}`);
  for (const [source, ms] of Object.entries(intervals_ms)) words.push(`${source} every ${duration(ms)}`);
  for (const source of disabled_sources) words.push(`${source} off`);
  if (typeof bpf_budget_permille === 'number') words.push(`eBPF within ${bpf_budget_permille / 10} %`);
  return words.join(', ');
}

/** A node's own word takes the place of the fleet's, also where it takes everything back. */
export function collectionOf(node: NodeView, words: Configured[]): { word: Configured; collection: Collection; standing: string } | undefined {
  const word = words.find((word) => word.node === node.id) ?? words.find((word) => !word.node);
  if (!word?.collection) return undefined;
  const withheld = node.facts['config.withheld'];
  const follows = Number(node.facts['config.version'] ?? -1) >= word.version;
  const standing = !follows
    ? 'Its agent has not said yet that it follows.'
    : withheld
      ? `Its agent follows, but for ${withheld}.`
      : 'Its agent follows.';
  return { word, collection: word.collection, standing };
}
