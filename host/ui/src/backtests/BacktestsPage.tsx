/** Backtests: what a candidate would have said of recorded history. A list, and a form for the next one. */
import { Button, NativeSelect } from '@mantine/core';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { Link, useNavigate, useSearchParams } from 'react-router';
import { api } from '../api/client';
import { hostNow } from '../api/clock';
import { keys, useBacktests, useHistories, useSlots } from '../api/queries';
import { usePerson } from '../app/session';
import { stageName, stageWord } from '../domain/slots';
import { Ago, Empty, Failure, Page, Panel, Skeleton } from '../parts/parts';
import parts from '../parts/parts.module.css';
import { Standing } from './Standing';
import css from './Backtests.module.css';

const HOUR_MS = 3_600_000;
const PERIODS = [
  { value: '1', label: 'the last hour' },
  { value: '6', label: 'the last 6 hours' },
  { value: '24', label: 'the last day' },
  { value: '168', label: 'the last week' },
];

export function BacktestsPage() {
  const { suffices } = usePerson();
  const backtests = useBacktests();
  return (
    <Page title="Backtests">
      <div className={css.stack}>
        {suffices('operator') && <Start />}
        {backtests.error && !backtests.data && <Failure error={backtests.error} lead="The backtests could not be read" />}
        {!backtests.data && !backtests.error && <Skeleton height={240} />}
        {backtests.data && (
          <Panel title="Run so far">
            {backtests.data.backtests.length === 0 ? (
              <Empty title="None yet">A backtest asks a candidate about recorded history, and tells what would have been otherwise.</Empty>
            ) : (
              <div className={parts.scroll}>
                <table className={parts.table} data-testid="backtests">
                  <thead>
                    <tr>
                      <th>Backtest</th>
                      <th>Slot</th>
                      <th>Candidate</th>
                      <th>History</th>
                      <th>State</th>
                      <th>By</th>
                      <th className={parts.right}>Asked for</th>
                    </tr>
                  </thead>
                  <tbody>
                    {backtests.data.backtests.map((info) => (
                      <tr key={info.id}>
                        <td>
                          <Link to={`/backtests/${encodeURIComponent(info.id)}`}>
                            <code>{info.id}</code>
                          </Link>
                        </td>
                        <td>{info.request.slot}</td>
                        <td>{info.request.candidate}</td>
                        <td>{info.request.history ?? 'recorded here'}</td>
                        <td>
                          <Standing info={info} />
                        </td>
                        <td>{info.requested_by}</td>
                        <td className={parts.right}>
                          <Ago time={info.at} />
                        </td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </div>
            )}
          </Panel>
        )}
      </div>
    </Page>
  );
}

function Start() {
  const [params] = useSearchParams();
  const client = useQueryClient();
  const navigate = useNavigate();
  const slots = useSlots();
  const histories = useHistories();
  const [slotId, setSlotId] = useState(params.get('slot') ?? '');
  const slot = slots.data?.slots.find((one) => one.id === slotId) ?? slots.data?.slots.find((one) => one.role === 'risk-scorer') ?? slots.data?.slots[0];
  const entries = slot?.entries.filter((entry) => stageName(entry.stage) !== 'retired') ?? [];
  const [chosen, setChosen] = useState(params.get('candidate') ?? '');
  const candidate = entries.find((entry) => entry.id === chosen) ?? entries.find((entry) => stageName(entry.stage) !== 'active') ?? entries[0];
  const [history, setHistory] = useState('');
  const [hours, setHours] = useState('1');
  const start = useMutation({
    mutationFn: () => {
      if (!slot || !candidate) throw new Error('the slot has no entry to test');
      return api.startBacktest({
        slot: slot.id,
        candidate: candidate.id,
        ...(history ? { history } : { from: hostNow() - Number(hours) * HOUR_MS }),
      });
    },
    onSuccess: (info) => void navigate(`/backtests/${encodeURIComponent(info.id)}`),
    onSettled: () => void client.invalidateQueries({ queryKey: keys.backtests }),
  });
  if (!slots.data) return null;
  return (
    <Panel title="Ask a candidate about the past">
      <form
        className={css.form}
        onSubmit={(event) => {
          event.preventDefault();
          start.mutate();
        }}
      >
        <NativeSelect label="Slot" size="xs" value={slot?.id ?? ''} onChange={(event) => setSlotId(event.currentTarget.value)} data={slots.data.slots.map((one) => one.id)} />
        <NativeSelect
          label="Candidate"
          size="xs"
          value={candidate?.id ?? ''}
          onChange={(event) => setChosen(event.currentTarget.value)}
          data={entries.map((entry) => ({ value: entry.id, label: `${entry.id}: ${entry.name} ${entry.version}, ${stageWord(entry.stage).toLowerCase()}` }))}
        />
        <NativeSelect
          label="History"
          size="xs"
          value={history}
          onChange={(event) => setHistory(event.currentTarget.value)}
          data={[{ value: '', label: 'recorded by this host' }, ...(histories.data ?? []).map((one) => one.name)]}
        />
        {history === '' && <NativeSelect label="Over" size="xs" value={hours} onChange={(event) => setHours(event.currentTarget.value)} data={PERIODS} />}
        <Button type="submit" size="xs" loading={start.isPending} disabled={!candidate}>
          Start
        </Button>
      </form>
      <div aria-live="polite" className={css.problem}>
        {start.error && <Failure error={start.error} lead="Not started" />}
      </div>
    </Panel>
  );
}
