/** Runs a decision again, and says whether it comes out the same, bit for bit. */
import { Button } from '@mantine/core';
import { useMutation } from '@tanstack/react-query';
import { api } from '../api/client';
import type { Replayed } from '../api/model';
import type { Tone } from '../domain/words';
import { Failure, Json, Note, Panel } from '../parts/parts';
import css from './Audit.module.css';

const VERDICTS: Record<Replayed['verdict'], { tone: Tone; word: string }> = {
  identical: { tone: 'ok', word: 'Identical, bit for bit.' },
  output_differs: { tone: 'critical', word: 'It came out differently.' },
  host_call_diverges: { tone: 'critical', word: 'It asked the host something else.' },
  engine_mismatch: { tone: 'elevated', word: 'Recorded under another engine.' },
  component_mismatch: { tone: 'elevated', word: 'These are not the component, config or assets of then.' },
  host_verdict: { tone: 'idle', word: 'The outcome was the host’s own.' },
};

export function ReplayPanel({ id }: { id: string }) {
  const replay = useMutation({ mutationFn: () => api.replay(id) });
  const verdict = replay.data && VERDICTS[replay.data.verdict];
  return (
    <Panel title="Run it again">
      <div className={css.body} data-testid="replay" data-verdict={replay.data?.verdict}>
        <p className={css.dim}>The same component, config and question, with the recorded answers of the host, must give the same bits.</p>
        <p>
          <Button size="xs" variant="default" onClick={() => replay.mutate()} loading={replay.isPending}>
            Replay
          </Button>
        </p>
        <div aria-live="polite">
          {verdict && (
            <Note tone={verdict.tone} title={verdict.word}>
              {replay.data?.summary}
            </Note>
          )}
          {replay.error && <Failure error={replay.error} lead="Not replayed" />}
        </div>
        {replay.data && replay.data.differences.length > 0 && <Json value={replay.data.differences} label="Differences" />}
      </div>
    </Panel>
  );
}
