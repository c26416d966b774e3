/** The envelope of one decision: what was asked, what was answered, under which limits. Enough to run it again. */
import { useParams } from 'react-router';
import { useDecision } from '../api/queries';
import type { Envelope } from '../api/model';
import { stageWord } from '../domain/slots';
import { duration } from '../format/time';
import { bytes, compact, count, percent, plain } from '../format/units';
import { At, Chip, Fact, Facts, Failure, Hash, Json, Note, Page, Panel, Skeleton } from '../parts/parts';
import { ReplayPanel } from './ReplayPanel';
import css from './Audit.module.css';

export function DecisionPage() {
  const { id = '' } = useParams();
  const query = useDecision(id);
  return (
    <Page
      title={query.data ? `${query.data.component_name} in ${query.data.slot}` : 'Decision'}
      badges={query.data && <Outcome envelope={query.data} />}
      aside={<span className="mono">{id}</span>}
    >
      {query.data ? (
        <Told envelope={query.data} />
      ) : query.error ? (
        <Failure error={query.error} lead="The decision could not be read" />
      ) : (
        <Skeleton height={560} />
      )}
    </Page>
  );
}

function Outcome({ envelope }: { envelope: Envelope }) {
  return envelope.outcome.Err ? <Chip tone="critical">Fault: {envelope.outcome.Err.kind.replaceAll('_', ' ')}</Chip> : <Chip tone="ok">Answered</Chip>;
}

function Told({ envelope }: { envelope: Envelope }) {
  const { limits } = envelope;
  return (
    <div className={css.envelope}>
      <div className={css.column}>
        <Panel title="Answer">
          <div className={css.body}>
            {envelope.outcome.Err ? (
              <Note tone="critical" title={envelope.outcome.Err.kind.replaceAll('_', ' ')}>
                {envelope.outcome.Err.message}
              </Note>
            ) : (
              <Json value={envelope.outcome.Ok} label="Answer" />
            )}
          </div>
        </Panel>
        <Panel title="Question">
          <div className={css.body}>
            <Json value={envelope.question} label="Question" />
          </div>
        </Panel>
        {envelope.host_calls.length > 0 && (
          <Panel title={`Host calls (${envelope.host_calls.length})`}>
            <div className={css.body}>
              <Json value={envelope.host_calls} label="Host calls" />
            </div>
          </Panel>
        )}
      </div>
      <div className={css.column}>
        <Panel title="Evaluation">
          <div className={css.body}>
            <Facts>
              <Fact name="At">
                <At time={envelope.at} />
              </Fact>
              <Fact name="Took">{plain(envelope.duration_us)} µs</Fact>
              <Fact name="Fuel">
                {plain(envelope.fuel)} <span className={css.dim}>of {compact(limits.fuel)}, {percent(envelope.fuel / limits.fuel)}</span>
              </Fact>
              <Fact name="Memory">
                {bytes(envelope.memory_bytes)} <span className={css.dim}>of {bytes(limits.memory_bytes)}</span>
              </Fact>
              <Fact name="Deadline">{duration(limits.deadline_ms)}</Fact>
              <Fact name="Component">
                {envelope.component_name} {envelope.component_version}
              </Fact>
              <Fact name="Digest">
                <Hash value={envelope.component} what="component digest" />
              </Fact>
              <Fact name="Stood as">
                {stageWord(envelope.stage)} <code>{envelope.entry}</code> <span className={css.dim}>in generation {plain(envelope.generation)}</span>
              </Fact>
              {envelope.assets && (
                <Fact name="Assets">
                  <Hash value={envelope.assets} what="assets digest" />
                </Fact>
              )}
              <Fact name="Config">
                <Hash value={envelope.config} what="config digest" />
              </Fact>
              <Fact name="Contract">{envelope.wit_version}</Fact>
              <Fact name="Engine">{envelope.engine_version}</Fact>
            </Facts>
          </div>
        </Panel>
        <ReplayPanel id={envelope.id} />
        <Panel title="Log" aside={<span className={css.dim}>{count(envelope.log.length, 'line')}</span>}>
          {envelope.log.length > 0 ? (
            <ul className={css.log}>
              {envelope.log.map((line, i) => (
                <li key={i} data-severity={line.severity}>
                  <code>{line.severity}</code> {line.message}
                </li>
              ))}
            </ul>
          ) : (
            <p className={`${css.body} ${css.dim}`}>It logged nothing.</p>
          )}
        </Panel>
      </div>
    </div>
  );
}
