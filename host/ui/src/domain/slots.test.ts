import { describe, expect, it } from 'vitest';
import { divergence, inStages, stageWord, steps } from './slots';

describe('slots', () => {
  it('offers the next step, and never a way back', () => {
    expect(steps('candidate').map((step) => step.to)).toEqual(['shadow']);
    expect(steps('shadow').map((step) => step.to)).toEqual([{ canary: { percent: 10 } }]);
    expect(steps({ canary: { percent: 25 } }).map((step) => step.to)).toEqual(['active', { canary: { percent: 50 } }]);
    expect(steps('active')).toEqual([]);
    expect(steps('retired')).toEqual([]);
  });

  it('keeps the retired apart', () => {
    const entries = [{ stage: 'active' as const }, { stage: 'retired' as const }, { stage: { canary: { percent: 10 } } }];
    expect(inStages(entries).open).toHaveLength(2);
    expect(inStages(entries).retired).toHaveLength(1);
  });

  it('says what a stage is', () => {
    expect(stageWord({ canary: { percent: 5 } })).toBe('Canary, 5 %');
    expect(stageWord('shadow')).toBe('Shadow');
  });

  it('tells divergence only where something was compared', () => {
    expect(divergence({ compared: 0, diverged: 0 })).toBeNull();
    expect(divergence({ compared: 40, diverged: 1 })).toBe('2.5 % of 40');
    expect(divergence({ compared: 40, diverged: 20 })).toBe('50 % of 40');
  });
});
