/** A slot's entries in words: how far each has come, and what can be done with it next. */
import type { SlotEntry, Stage } from '../api/model';
import type { Tone } from './words';

export type StageName = 'candidate' | 'shadow' | 'canary' | 'active' | 'retired';

export const STAGES: Record<StageName, { word: string; tone: Tone; means: string }> = {
  candidate: { word: 'Candidate', tone: 'idle', means: 'Activated and self-tested; asked nothing yet.' },
  shadow: { word: 'Shadow', tone: 'active', means: 'Asked beside those that answer, and compared with them. Its answers have no effect.' },
  canary: { word: 'Canary', tone: 'elevated', means: 'Answers for a share of the subjects, always the same ones.' },
  active: { word: 'Active', tone: 'ok', means: 'Answers for everybody.' },
  retired: { word: 'Retired', tone: 'idle', means: 'Asked nothing any more. Kept, so that its decisions can be run again.' },
};

export function stageName(stage: Stage): StageName {
  return typeof stage === 'string' ? stage : 'canary';
}

export function stageWord(stage: Stage): string {
  return typeof stage === 'string' ? STAGES[stage].word : `Canary, ${stage.canary.percent} %`;
}

/** The shares that a canary is widened by. */
const SHARES = [10, 25, 50];

export interface Next {
  to: Stage;
  word: string;
}

/** The steps that an entry can take from here, the usual one first. */
export function steps(stage: Stage): Next[] {
  const canary = (percent: number): Next => ({ to: { canary: { percent } }, word: `Answer for ${percent} %` });
  const active: Next = { to: 'active', word: 'Make it active' };
  switch (stageName(stage)) {
    case 'candidate':
      return [{ to: 'shadow', word: 'Watch it in shadow' }];
    case 'shadow':
      return SHARES.slice(0, 1).map(canary);
    case 'canary': {
      const share = typeof stage === 'string' ? 0 : stage.canary.percent;
      return [active, ...SHARES.filter((percent) => percent > share).map(canary)];
    }
    case 'active':
    case 'retired':
      return [];
  }
}

/** Those on their way first, then those that answer, the retired last; the host's order within. */
export function inStages<T extends Pick<SlotEntry, 'stage'>>(entries: readonly T[]): { open: T[]; retired: T[] } {
  const open = entries.filter((entry) => stageName(entry.stage) !== 'retired');
  const retired = entries.filter((entry) => stageName(entry.stage) === 'retired');
  return { open, retired };
}

/** Of the answers that were compared, how many would have led to another deed. */
export function divergence(figures: { compared: number; diverged: number }): string | null {
  if (figures.compared === 0) return null;
  const share = (figures.diverged / figures.compared) * 100;
  return `${share < 10 ? share.toFixed(1) : Math.round(share)} % of ${figures.compared}`;
}
