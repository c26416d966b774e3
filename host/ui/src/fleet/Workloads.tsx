/** What people care about: the work, and whether it gets on. One chart follows a workload from node to node. */
import type { Workload } from '../api/model';
import type { Line, Window } from '../api/series';
import { useNow } from '../api/clock';
import { duration } from '../format/time';
import { plain } from '../format/units';
import { Chart } from '../parts/Chart';
import { Ago, Chip, Failure, Panel, Skeleton } from '../parts/parts';
import type { Tone } from '../domain/words';
import css from './Fleet.module.css';

const STATE: Record<Workload['state'], { word: string; tone: Tone }> = {
  running: { word: 'Running', tone: 'ok' },
  stopped: { word: 'Stopped for a migration', tone: 'elevated' },
  exited: { word: 'Exited', tone: 'idle' },
};
const TIER = { critical: 'Critical tier', standard: 'Standard tier', 'best-effort': 'Best effort' };
/** A workload that says nothing new for this long is not getting on. */
const STALLED_MS = 10_000;

export function Workloads({ workloads, failed, window }: { workloads: Workload[] | undefined; failed: unknown; window: Window }) {
  if (!workloads) return failed ? <Failure error={failed} lead="The workloads could not be read" /> : <Skeleton height={176} />;
  if (workloads.length === 0) return null;
  return (
    <Panel label="Workloads">
      <ul className={css.workloads}>
        {newest(workloads).map((workload) => (
          <Row key={workload.id} workload={workload} window={window} />
        ))}
      </ul>
    </Panel>
  );
}

/** A workload that moves is reported by two nodes for a while: the newest generation is the one that counts. */
function newest(workloads: Workload[]): Workload[] {
  const byId = new Map<string, Workload>();
  for (const workload of workloads) {
    const known = byId.get(workload.id);
    if (!known || workload.generation > known.generation) byId.set(workload.id, workload);
  }
  return [...byId.values()];
}

function Row({ workload, window }: { workload: Workload; window: Window }) {
  const now = useNow();
  const subject = { kind: 'workload' as const, id: workload.id };
  const { word, tone } = STATE[workload.state];
  const silent = workload.progress_at ? now - workload.progress_at : 0;
  return (
    <li className={css.workload} data-testid={`workload-${workload.id}`} data-node={workload.node} data-progress={workload.progress ?? ''}>
      <div className={css.workloadAbout}>
        <div className={css.workloadHead}>
          <h2>{workload.name}</h2>
          <Chip tone={tone}>{word}</Chip>
        </div>
        <dl className={css.workloadFacts}>
          <div>
            <dt>On</dt>
            <dd>
              {workload.node}
              {!workload.node_live && <span className={css.bad}> (session lost)</span>}
            </dd>
          </div>
          <div>
            <dt>Progress</dt>
            <dd className="num">
              {typeof workload.progress === 'number' ? plain(workload.progress) : '—'}
              {silent > STALLED_MS && <span className={css.bad}> {duration(Math.floor(silent / 1000) * 1000)} old</span>}
            </dd>
          </div>
          <div>
            <dt>Since</dt>
            <dd>
              <Ago time={workload.since} />
            </dd>
          </div>
        </dl>
        <p className={css.dim}>
          {TIER[workload.tier]}, generation {workload.generation}
          {workload.adopted && ', adopted'}, pid {workload.pid}
        </p>
      </div>
      <div className={css.workloadCharts}>
        <Chart title="Progress" subject={subject} metric="aether.workload.progress" window={window} zero={false} shape={progress} height={104} empty="It tells no progress" />
        <Chart title="Progress rate" subject={subject} metric="aether.workload.progress.rate" window={window} shape={first} height={104} />
        <Chart title="Resident memory" subject={subject} metric="process.memory.usage" window={window} shape={first} height={104} />
      </div>
    </li>
  );
}

const first = (lines: Line[]) => lines.slice(0, 1).map((line) => ({ name: '', line }));
const progress = (lines: Line[]) => lines.slice(0, 1).map((line) => ({ name: '', line: { ...line, unit: '', mean: line.max } }));
