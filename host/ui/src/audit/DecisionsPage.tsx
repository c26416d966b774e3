/** Every decision of a component, each with all that is needed to run it again. */
import { Button, SegmentedControl } from '@mantine/core';
import { useState } from 'react';
import { Link, useSearchParams } from 'react-router';
import { useDecisions, useSlots } from '../api/queries';
import { targetName } from '../domain/words';
import { compact, plain } from '../format/units';
import { At, Chip, Empty, Failure, Page, Panel, Skeleton } from '../parts/parts';
import parts from '../parts/parts.module.css';
import css from './Audit.module.css';

const PAGE = 50;
/** The most that the host hands out at once. */
const MOST = 200;

export function DecisionsPage() {
  const [params, setParams] = useSearchParams();
  const slot = params.get('slot') ?? '';
  const [limit, setLimit] = useState(PAGE);
  const slots = useSlots();
  const query = useDecisions(slot || undefined, limit);
  const choices = slots.data?.slots.map(({ id }) => id) ?? [];
  const decisions = query.data ?? [];
  return (
    <Page
      title="Decisions"
      aside={
        choices.length > 0 && (
          <SegmentedControl
            size="xs"
            value={slot}
            onChange={(value) => setParams(value ? { slot: value } : {}, { replace: true })}
            data={[{ value: '', label: 'All' }, ...choices.map((id) => ({ value: id, label: id }))]}
            aria-label="Slot"
          />
        )
      }
    >
      {query.error && !query.data && <Failure error={query.error} lead="The decisions could not be read" />}
      {!query.data && !query.error && <Skeleton height={480} />}
      {query.data && (
        <Panel>
          {decisions.length === 0 ? (
            <Empty title="No decision is kept yet">Decisions that an incident refers to are kept, so that each can be run again, bit for bit.</Empty>
          ) : (
            <div className={parts.scroll}>
              <table className={parts.table}>
                <thead>
                  <tr>
                    <th>When</th>
                    <th>Slot</th>
                    <th>Component</th>
                    <th>About</th>
                    <th>Answer</th>
                    <th className={parts.right}>Fuel</th>
                    <th className={parts.right}>Took</th>
                  </tr>
                </thead>
                <tbody>
                  {decisions.map((decision) => (
                    <tr key={decision.id}>
                      <td>
                        <Link to={`/decisions/${encodeURIComponent(decision.id)}`}>
                          <At time={decision.at} />
                        </Link>
                      </td>
                      <td>{decision.slot}</td>
                      <td className={css.nowrap}>
                        {decision.component_name} <span className={css.dim}>{decision.component_version}</span>
                      </td>
                      <td className={css.nowrap}>{decision.subject ? targetName(decision.subject) : <span className={css.dim}>—</span>}</td>
                      <td>
                        {!decision.ok && <Chip tone="critical">Fault</Chip>} {decision.outcome}
                      </td>
                      <td className={parts.right}>{compact(decision.fuel)}</td>
                      <td className={parts.right}>{plain(decision.duration_us)} µs</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
          )}
        </Panel>
      )}
      {decisions.length >= limit && limit < MOST && (
        <div className={css.more}>
          <Button variant="default" loading={query.isPlaceholderData} onClick={() => setLimit(MOST)}>
            Older decisions
          </Button>
        </div>
      )}
    </Page>
  );
}
