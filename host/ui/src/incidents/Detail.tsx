/** What an artifact says beyond its one sentence. */
import type { Body, BodyOf, ForecastView, IncidentDetail, Reading, StepRecord } from '../api/model';
import { usePerson } from '../app/session';
import { conditionText, demandText, given, planOf, readingText, riskFigures, within } from '../domain/story';
import { eventName, LEVELS, metricName, rankName, RESOLUTIONS, targetName, valueText, verb } from '../domain/words';
import { duration } from '../format/time';
import { count, percent, plain, quantity } from '../format/units';
import { At, Chip, Fact, Facts, Flags, Hash } from '../parts/parts';
import css from './Story.module.css';

export function Detail({ body, detail }: { body: Body; detail: IncidentDetail }) {
  switch (body.kind) {
    case 'observation_summary':
      return <Observation body={body} />;
    case 'anomaly_finding':
      return <Finding body={body} />;
    case 'root_cause_hypothesis':
      return <Hypothesis body={body} />;
    case 'remediation_proposal':
      return <ProposalDetail body={body} />;
    case 'execution_plan':
      return <PlanDetail body={body} detail={detail} />;
    case 'execution_result':
      return <Execution body={body} detail={detail} />;
    case 'verification_result':
      return <Verification body={body} />;
    case 'incident_report':
      return <Report body={body} />;
  }
}

function Observation({ body }: { body: BodyOf<'observation_summary'> }) {
  return (
    <>
      <ul className={css.readings}>
        {body.readings.map((reading, i) => (
          <li key={i}>
            <span>
              {metricName(reading.metric)}
              <i> {partOf(reading.attributes)}</i>
            </span>
            <b className="num">{quantity(reading.value, reading.unit)}</b>
            <i>{reading.samples === 0 ? 'not sampled' : count(reading.samples, 'sample')}</i>
          </li>
        ))}
      </ul>
      {body.events.length > 0 && (
        <ul className={css.lines}>
          {body.events.map((event, i) => (
            <li key={i}>
              <At time={event.at} /> {eventName(event.name)} <code>{event.name}</code>
            </li>
          ))}
        </ul>
      )}
    </>
  );
}

/** Which part of the subject a reading is of: a disk, a direction. Where it came from is no part. */
function partOf(attributes: Record<string, string>): string {
  return ['resource', 'system.device', 'disk.io.direction', 'network.io.direction', 'cpu.mode']
    .flatMap((name) => attributes[name] ?? [])
    .join(', ');
}

function Finding({ body }: { body: BodyOf<'anomaly_finding'> }) {
  const { risk } = body;
  return (
    <>
      <div className={css.inline}>
        <Chip tone={LEVELS[risk.level].tone}>{LEVELS[risk.level].word}</Chip>
        <span>{riskFigures(risk)}</span>
        <span>{count(body.consecutive, 'evaluation')} in a row</span>
        <span>
          first seen <At time={body.first_seen} />
        </span>
        <code>{risk.cause}</code>
      </div>
      {risk.contributions.length > 0 && (
        <ul className={css.bars}>
          {risk.contributions.map((contribution, i) => (
            <li key={i}>
              <span className={css.bar} aria-hidden="true">
                <i style={{ width: `${Math.min(100, Math.max(0, contribution.weight * 100))}%` }} />
              </span>
              <span className="num">{percent(contribution.weight)}</span>
              <span>{contribution.note}</span>
            </li>
          ))}
        </ul>
      )}
      {body.unknown.length > 0 && (
        <p className={css.weak}>
          Could not say: {body.unknown.join('; ')}. Unknown is not low.
        </p>
      )}
    </>
  );
}

function Hypothesis({ body }: { body: BodyOf<'root_cause_hypothesis'> }) {
  return (
    <div className={css.inline}>
      <span>{percent(body.confidence)} sure</span>
      <code>{body.cause}</code>
      <span>
        At stake: {body.workloads.length === 0 ? 'no workload' : body.workloads.map((workload) => workload.id).join(', ')}
      </span>
    </div>
  );
}

function ProposalDetail({ body }: { body: BodyOf<'remediation_proposal'> }) {
  return (
    <>
      {body.chosen && (
        <>
          <p className={css.rationale}>{body.chosen.rationale}</p>
          <div className={css.inline}>
            <span>{percent(body.chosen.confidence)} sure</span>
            <span>{count(body.considered, 'proposal')} considered</span>
          </div>
        </>
      )}
      {body.refused.length > 0 && (
        <ul className={css.lines}>
          {body.refused.map((reason, i) => (
            <li key={i}>
              Not chosen: {reason.text} <code>{reason.code}</code>
            </li>
          ))}
        </ul>
      )}
    </>
  );
}

function PlanDetail({ body, detail }: { body: BodyOf<'execution_plan'>; detail: IncidentDetail }) {
  const { nameOf } = usePerson();
  return (
    <>
      <ol className={css.planned}>
        {body.plan.steps.map((step, i) => (
          <li key={i}>
            <b>{verb(step.verb).title}</b> {targetName(step.target)} on {step.node}
          </li>
        ))}
      </ol>
      <Facts>
        <Fact name="Plan hash">
          <Hash value={body.hash} what="plan hash" />
        </Fact>
        <Fact name="Asked for">{demandText(body.demand, given(detail))}</Fact>
        {detail.forecast && <Fact name="Checkpoint foretold">{foretold(detail.forecast)}</Fact>}
        {detail.approvals.map((approval) => (
          <Fact key={approval.by} name={approval.approved ? 'Approved' : 'Denied'}>
            <span title={approval.by}>{nameOf(approval.by)}</span> ({rankName(approval.rank)}), <At time={approval.at} />
            {approval.comment && <>: “{approval.comment}”</>}
          </Fact>
        ))}
      </Facts>
    </>
  );
}

/** What a checkpoint was to take, and by how much that was wrong. */
function foretold({ forecast, leaves_in_ms, took_ms, error_percent }: ForecastView): string {
  const learned = `about ${duration(forecast.predicted_ms)}, learned from ${count(forecast.learned_from, 'checkpoint')}`;
  const left = leaves_in_ms == null ? '' : `; the node was to be there for ${duration(leaves_in_ms)}`;
  const took = took_ms == null ? '' : `; it took ${duration(took_ms)}, which is ${error_percent ?? 0} % off`;
  return learned + left + took;
}

function Execution({ body, detail }: { body: BodyOf<'execution_result'>; detail: IncidentDetail }) {
  if (body.steps.length === 0) return null;
  const planned = planOf(detail)?.steps ?? [];
  const forward = new Set(body.steps.filter((record) => record.direction === 'forward').map((record) => record.step));
  const ahead = planned.map((step, i) => ({ step, i })).filter(({ i }) => !forward.has(i));
  return (
    <ol className={css.records}>
      {body.steps.map((record) => (
        <Record key={record.key} record={record} />
      ))}
      {ahead.map(({ step, i }) => (
        <li key={i} className={css.record} data-tone="idle" data-ahead>
          <span className={css.recordMark}>{i + 1}</span>
          <div>
            <b>{verb(step.verb).title}</b> on {step.node} <span className={css.dim}>not begun</span>
          </div>
        </li>
      ))}
    </ol>
  );
}

const OUTCOME = { succeeded: 'ok', failed: 'critical', unknown: 'critical' } as const;

function Record({ record }: { record: StepRecord }) {
  const { outcome } = record;
  const evidence = Object.entries(outcome?.evidence ?? {});
  return (
    <li className={css.record} data-tone={outcome ? OUTCOME[outcome.status] : 'active'}>
      <span className={css.recordMark}>{record.step + 1}</span>
      <div>
        <div className={css.inline}>
          <b>
            {record.direction === 'compensate' && 'Undo: '}
            {verb(record.verb).title}
          </b>
          <span>on {record.node}</span>
          {outcome ? (
            <span className="num">{duration(outcome.ended_at - outcome.started_at)}</span>
          ) : (
            <span className={css.dim}>{verb(record.verb).running.toLowerCase()}</span>
          )}
          {outcome && outcome.status !== 'succeeded' && (
            <Chip tone="critical">
              {outcome.status === 'failed' ? 'Failed' : 'Unknown'} <code>{outcome.code}</code>
            </Chip>
          )}
          {outcome?.simulated && <Flags flags={{ simulated: true }} />}
        </div>
        {outcome && <p>{outcome.message}</p>}
        {evidence.length > 0 && (
          <div className={css.figures}>
            {evidence.map(([name, value]) => (
              <span key={name}>
                {name.replaceAll('_', ' ')} <b className="num">{valueText(value)}</b>
              </span>
            ))}
          </div>
        )}
      </div>
    </li>
  );
}

function Verification({ body }: { body: BodyOf<'verification_result'> }) {
  const before = (after: Reading) => body.before.find((reading) => same(reading, after));
  return (
    <>
      {body.after.length > 0 && (
        <table className={css.compare}>
          <thead>
            <tr>
              <th>Condition of success</th>
              <th>Before</th>
              <th>After</th>
              <th>Sampled</th>
            </tr>
          </thead>
          <tbody>
            {body.after.map((reading, i) => {
              const was = before(reading);
              return (
                <tr key={i}>
                  <td>
                    {conditionText(reading.condition)}
                    <span className={css.dim}> {targetName(reading.condition.target)}</span>
                  </td>
                  <td className="num">{was ? readingText(was) : '—'}</td>
                  <td className="num" data-tone={within(reading) === true ? 'ok' : 'critical'}>
                    <b>{readingText(reading)}</b>
                  </td>
                  <td>{reading.sampled_at ? <At time={reading.sampled_at} /> : 'not sampled'}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      )}
      <div className={css.inline}>
        <span>watch window {duration(body.watch_ms)}</span>
      </div>
      {body.weak.length > 0 && <p className={css.weak}>Weak evidence: {body.weak.join('; ')}</p>}
    </>
  );
}

/** Before the action the target was of the generation before, so the generation does not count here. */
function same(a: Reading, b: Reading): boolean {
  return a.condition.metric === b.condition.metric && a.condition.target.kind === b.condition.target.kind && a.condition.target.id === b.condition.target.id;
}

function Report({ body }: { body: BodyOf<'incident_report'> }) {
  return (
    <>
      <p className={css.rationale}>{RESOLUTIONS[body.resolution].means}</p>
      <div className={css.inline}>
        <span>{count(body.timeline.length, 'entry', 'entries')} in the timeline</span>
        {body.recurrences > 0 && <span>seen again {plain(body.recurrences)}×</span>}
      </div>
    </>
  );
}
