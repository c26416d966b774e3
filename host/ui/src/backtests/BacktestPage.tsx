/** One backtest: what would have been caught, missed and falsely told, and what that costs. */
import { Button } from '@mantine/core';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useParams } from 'react-router';
import { api } from '../api/client';
import type { BacktestReport, BacktestSide } from '../api/model';
import { keys, useBacktest } from '../api/queries';
import { usePerson } from '../app/session';
import { duration } from '../format/time';
import { bytes, compact, count, percent, plain } from '../format/units';
import { At, Empty, Fact, Facts, Failure, Note, Page, Panel, Skeleton } from '../parts/parts';
import parts from '../parts/parts.module.css';
import { Standing } from './Standing';
import css from './Backtests.module.css';

const MEASURES: Record<BacktestReport['measure'], string> = {
  labels: 'the labels that came with the history',
  incidents: 'the incidents that were opened at the time',
  nothing: 'nothing: alarms are counted, none is called false',
};

export function BacktestPage() {
  const { id = '' } = useParams();
  const { suffices } = usePerson();
  const client = useQueryClient();
  const query = useBacktest(id);
  const stop = useMutation({ mutationFn: () => api.stopBacktest(id), onSettled: () => void client.invalidateQueries({ queryKey: keys.backtests }) });
  const info = query.data?.backtest;
  return (
    <Page title={info ? `${info.request.candidate} in ${info.request.slot}` : 'Backtest'} badges={info && <Standing info={info} />} aside={<span className="mono">{id}</span>}>
      {query.error && !query.data && <Failure error={query.error} lead="The backtest could not be read" />}
      {!query.data && !query.error && <Skeleton height={480} />}
      {info && (
        <div className={css.stack} data-testid="backtest" data-state={info.state}>
          {info.failure && <Note tone="critical" title="There is no report.">{info.failure}</Note>}
          {info.short.map((short) => (
            <Note key={short.bar} tone="high" title={`${short.bar}:`}>
              asked for {short.wanted}, found {short.found}
            </Note>
          ))}
          {info.state === 'running' && (
            <Panel>
              <Empty title={info.of > 0 ? `${plain(info.done)} of ${plain(info.of)} evaluations` : 'History is being read'}>
                {suffices('operator') && (
                  <Button size="xs" variant="default" onClick={() => stop.mutate()} loading={stop.isPending}>
                    Stop
                  </Button>
                )}
              </Empty>
            </Panel>
          )}
          {query.data?.report && <Report report={query.data.report} />}
        </div>
      )}
    </Page>
  );
}

function Report({ report }: { report: BacktestReport }) {
  const { candidate, current, changes, period } = report;
  return (
    <>
      <Panel title="What would have been">
        <div className={css.body}>
          <p className={css.dim}>
            <At time={period.from} /> to <At time={period.to} />
            {period.tick_ms ? <>, asked every {duration(period.tick_ms)}</> : ', each recorded question asked again'}, {count(period.subjects, 'subject')}. Measured against{' '}
            {MEASURES[report.measure]}.
          </p>
          <div className={parts.scroll}>
            <table className={parts.table} data-testid="figures">
              <thead>
                <tr>
                  <th>
                    <span className="sr">Figure</span>
                  </th>
                  <th className={parts.right}>Candidate</th>
                  {current && <th className={parts.right}>As it stands</th>}
                </tr>
              </thead>
              <tbody>
                {ROWS.filter(([, word]) => word(candidate) !== none).map(([name, word]) => (
                  <tr key={name}>
                    <td>{name}</td>
                    <td className={parts.right}>{word(candidate)}</td>
                    {current && <td className={parts.right}>{word(current)}</td>}
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
          {report.notes.map((note) => (
            <Note key={note} tone="elevated">
              {note}
            </Note>
          ))}
        </div>
      </Panel>
      {changes && (
        <Panel title="What changes" aside={<span className={css.dim}>{`${plain(changes.changed)} of ${plain(changes.compared)} answers`}</span>}>
          <div className={css.body}>
            <Facts>
              <Fact name="Newly caught">{changes.caught.join(', ') || 'none'}</Fact>
              <Fact name="Newly missed">{changes.missed.join(', ') || 'none'}</Fact>
              <Fact name="Caught earlier, later">
                {plain(changes.earlier)}, {plain(changes.later)}
              </Fact>
            </Facts>
            {changes.rows.length > 0 && (
              <div className={parts.scroll}>
                <table className={parts.table}>
                  <thead>
                    <tr>
                      <th>About</th>
                      <th>From</th>
                      <th className={parts.right}>Times</th>
                      <th>As it stands</th>
                      <th>Candidate</th>
                    </tr>
                  </thead>
                  <tbody>
                    {changes.rows.slice(0, 50).map((row, i) => (
                      <tr key={i}>
                        <td>{row.about}</td>
                        <td>
                          <At time={row.at} />
                        </td>
                        <td className={parts.right}>{plain(row.times)}</td>
                        <td>{row.current}</td>
                        <td>{row.candidate}</td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </div>
            )}
            {changes.runs > 50 && <p className={css.dim}>The first 50 of {plain(changes.runs)}; the command line prints all that were kept.</p>}
          </div>
        </Panel>
      )}
      {report.events.length > 0 && (
        <Panel title="Event by event">
          <div className={parts.scroll}>
            <table className={parts.table}>
              <thead>
                <tr>
                  <th>Event</th>
                  <th>At</th>
                  <th>Candidate</th>
                  {current && <th>As it stands</th>}
                </tr>
              </thead>
              <tbody>
                {report.events.slice(0, 100).map((row) => (
                  <tr key={row.event.id}>
                    <td>
                      {row.event.subject.id} <span className={css.dim}>{row.event.summary}</span>
                    </td>
                    <td>
                      <At time={row.event.at} />
                    </td>
                    <td>{caught(row.candidate.lead_ms)}</td>
                    {current && <td>{caught(row.current?.lead_ms)}</td>}
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </Panel>
      )}
    </>
  );
}

const none = '—';
const share = (value: number | null | undefined) => (typeof value === 'number' ? percent(value) : none);

const ROWS: [name: string, word: (side: BacktestSide) => string][] = [
  ['Components', (side) => side.asked.map((asked) => `${asked.name} ${asked.version}`).join(', ')],
  ['Events caught', (side) => (side.figures ? `${side.figures.caught} of ${side.figures.events}` : none)],
  ['False alarms', (side) => (side.figures ? `${plain(side.figures.false_alarms)} (${side.figures.false_per_day.toFixed(2)} a day)` : none)],
  ['Precision', (side) => share(side.figures?.precision)],
  ['Recall', (side) => share(side.figures?.recall)],
  ['Median lead', (side) => lead(side.figures?.lead_ms_p50)],
  ['Evaluations', (side) => plain(side.cost.evaluations)],
  ['Could not say', (side) => plain(side.unknown)],
  ['Faults', (side) => plain(Object.values(side.cost.faults).reduce((sum, n) => sum + n, 0))],
  ['Fuel p50 / p99', (side) => `${side.cost.fuel_p50 ? compact(side.cost.fuel_p50) : none} / ${side.cost.fuel_p99 ? compact(side.cost.fuel_p99) : none}`],
  ['Memory, at most', (side) => bytes(side.cost.memory_bytes_max)],
];

/** Before the event, or after it. */
function lead(ms: number | null | undefined): string {
  if (typeof ms !== 'number') return none;
  return ms >= 0 ? `${duration(ms)} before` : `${duration(-ms)} after`;
}

function caught(ms: number | null | undefined): string {
  return typeof ms === 'number' ? `caught ${lead(ms)}` : 'missed';
}
