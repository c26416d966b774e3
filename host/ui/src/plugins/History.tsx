/** The generations of a slot: what was changed, by whom and why. */
import type { SlotGenerationMade } from '../api/model';
import { useSlotHistory } from '../api/queries';
import { At, Failure, Skeleton } from '../parts/parts';
import css from './Plugins.module.css';

const CHANGES = {
  seed: 'Taken from the policy bundle',
  add: 'Added as candidate',
  promote: 'Promoted',
  retire: 'Retired',
  roll_back: 'Rolled back',
  flag: 'Flagged',
} as const;

export function History({ slot }: { slot: string }) {
  const history = useSlotHistory(slot);
  if (history.error) return <Failure error={history.error} lead="The history could not be read" />;
  if (!history.data) return <Skeleton height={120} />;
  return (
    <ol className={css.history} data-testid={`history-${slot}`}>
      {history.data.generations.map((made) => (
        <li key={made.slot.generation}>
          <b className="num">{made.slot.generation}</b>
          <span>
            {CHANGES[made.change.change]} {entryOf(made.change)} {made.why && <span className={css.dim}>{made.why}</span>}
          </span>
          <span className={css.dim}>
            {made.by}, <At time={made.at} />
          </span>
        </li>
      ))}
    </ol>
  );
}

function entryOf(change: SlotGenerationMade['change']): string {
  if (change.change === 'seed') return '';
  return typeof change.entry === 'string' ? change.entry : change.entry.id;
}
