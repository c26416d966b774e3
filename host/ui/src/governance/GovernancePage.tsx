/** What holds back and who may go past: breakers, and break-glass with the reviews that it owes. */
import { Button } from '@mantine/core';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { api } from '../api/client';
import { useNow } from '../api/clock';
import type { BreakerStanding, BreakGlass, Scrutiny } from '../api/model';
import { keys, useBreakers, useBreakGlass, useGates } from '../api/queries';
import { usePerson } from '../app/session';
import { isOpen, scopeName } from '../domain/governance';
import { rankName } from '../domain/words';
import { duration } from '../format/time';
import { At, Chip, Empty, Failure, Hash, Page, Panel, Skeleton } from '../parts/parts';
import { Word } from '../parts/Word';
import parts from '../parts/parts.module.css';
import css from './Governance.module.css';

export function GovernancePage() {
  const breakers = useBreakers();
  const glasses = useBreakGlass();
  const gates = useGates();
  const { suffices } = usePerson();
  return (
    <Page title="Governance">
      <div className={css.stack}>
        <Panel title="Breakers">
          {breakers.error && !breakers.data && <Failure error={breakers.error} lead="The breakers could not be read" />}
          {!breakers.data && !breakers.error && <Skeleton height={120} />}
          {breakers.data?.length === 0 && (
            <Empty title="All closed">Nothing was begun within the window. Undoing and recovery are never held back.</Empty>
          )}
          {breakers.data && breakers.data.length > 0 && <Breakers all={breakers.data} may={suffices('operator')} />}
        </Panel>
        <Panel title="Approvals by gate">
          {gates.error && !gates.data && <Failure error={gates.error} lead="What the gates asked could not be read" />}
          {!gates.data && !gates.error && <Skeleton height={120} />}
          {gates.data?.length === 0 && <Empty title="Nobody was asked yet">No gate has wanted a plan approved.</Empty>}
          {gates.data && gates.data.length > 0 && <Gates all={gates.data} />}
        </Panel>
        <Panel title="Break-glass">
          {glasses.error && !glasses.data && <Failure error={glasses.error} lead="Break-glass could not be read" />}
          {!glasses.data && !glasses.error && <Skeleton height={120} />}
          {glasses.data?.length === 0 && <Empty title="Nobody has ever taken it">Every approval was given as the policy asks.</Empty>}
          {glasses.data && glasses.data.length > 0 && <Glasses all={glasses.data} />}
          {suffices('approver') && (
            <Word
              label="Take leave to approve alone for an hour: why can it not wait for another person?"
              button="Break the glass"
              send={(reason) => api.openBreakGlass(reason)}
              changes={keys.breakGlass}
              lead="Not taken"
            />
          )}
        </Panel>
      </div>
    </Page>
  );
}

function Breakers({ all, may }: { all: BreakerStanding[]; may: boolean }) {
  return (
    <div className={parts.scroll}>
      <table className={parts.table}>
        <thead>
          <tr>
            <th>Scope</th>
            <th>Stands</th>
            <th className={parts.right}>Begun</th>
            <th className={parts.right}>Nodes</th>
            <th>Why, and what to do</th>
          </tr>
        </thead>
        <tbody>
          {all.map((one) => (
            <tr key={scopeName(one.scope)}>
              <td>
                <code>{scopeName(one.scope)}</code>
              </td>
              <td>
                {one.opened_at ? (
                  <>
                    <Chip tone="high">Open</Chip> <At time={one.opened_at} />
                  </>
                ) : (
                  <Chip tone="ok">Closed</Chip>
                )}
              </td>
              <td className={parts.right}>
                {one.begun} of {one.limit.count}
              </td>
              <td className={parts.right}>
                {one.nodes}, at most {one.limit.percent} %
              </td>
              <td>
                {one.reason}
                {one.opened_at && may && (
                  <Word
                    label="What was found"
                    button="Reset"
                    send={(comment) => api.resetBreaker(scopeName(one.scope), comment)}
                    changes={keys.breakers}
                    lead="Not reset"
                  />
                )}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** Whether what is asked is looked at: a gate that is always waved through protects nobody. */
function Gates({ all }: { all: Scrutiny[] }) {
  return (
    <div className={parts.scroll}>
      <table className={parts.table}>
        <thead>
          <tr>
            <th>Gate</th>
            <th className={parts.right}>Asked</th>
            <th className={parts.right}>Approved</th>
            <th className={parts.right}>Denied</th>
            <th className={parts.right}>Expired</th>
            <th className={parts.right}>Waiting</th>
            <th className={parts.right}>Median time to approve</th>
            <th className={parts.right}>Without a comment</th>
            <th className={parts.right} title="The share of the answered that was approved within ten seconds of the question">
              Rubber stamp
            </th>
          </tr>
        </thead>
        <tbody>
          {all.map((one) => (
            <tr key={one.gate}>
              <td>
                <code>{one.gate}</code>
              </td>
              <td className={parts.right}>{one.asked}</td>
              <td className={parts.right}>{one.approved}</td>
              <td className={parts.right}>{one.denied}</td>
              <td className={parts.right}>{one.expired}</td>
              <td className={parts.right}>{one.waiting}</td>
              <td className={parts.right}>{one.median_ms == null ? '–' : duration(one.median_ms)}</td>
              <td className={parts.right}>{one.wordless}</td>
              <td className={parts.right}>
                {one.rubber_stamp == null ? '–' : `${Math.round(one.rubber_stamp * 100)} %`}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Glasses({ all }: { all: BreakGlass[] }) {
  const now = useNow();
  const { session, suffices } = usePerson();
  return (
    <div className={parts.scroll}>
      <table className={parts.table}>
        <thead>
          <tr>
            <th>Who</th>
            <th>Since</th>
            <th>Stands</th>
            <th>Why</th>
            <th>Approved under it</th>
            <th>Review</th>
          </tr>
        </thead>
        <tbody>
          {all.map((glass) => {
            const open = isOpen(glass, now);
            const mine = glass.principal === session.principal;
            return (
              <tr key={glass.id}>
                <td title={glass.principal}>
                  {glass.name}, {rankName(glass.rank)}
                </td>
                <td>
                  <At time={glass.opened_at} />
                </td>
                <td>
                  {open ? (
                    <>
                      <Chip tone="high">Open</Chip> until <At time={glass.expires_at} />
                      {(mine || suffices('admin')) && <End glass={glass} />}
                    </>
                  ) : (
                    <Chip tone={glass.review ? 'ok' : 'elevated'}>{glass.review ? 'Reviewed' : 'Review owed'}</Chip>
                  )}
                </td>
                <td>{glass.reason}</td>
                <td>
                  {glass.plans.map((plan) => (
                    <Hash key={plan} value={plan} what="plan hash" />
                  ))}
                </td>
                <td>
                  {glass.review && (
                    <>
                      {glass.review.comment} <At time={glass.review.at} />
                    </>
                  )}
                  {!glass.review && !open && !mine && suffices('approver') && (
                    <Word
                      label="What you found"
                      button="Reviewed"
                      send={(comment) => api.reviewBreakGlass(glass.id, comment)}
                      changes={keys.breakGlass}
                      lead="Not reviewed"
                    />
                  )}
                  {!glass.review && !open && mine && 'by another person'}
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

function End({ glass }: { glass: BreakGlass }) {
  const client = useQueryClient();
  const end = useMutation({
    mutationFn: () => api.endBreakGlass(glass.id),
    onSettled: () => {
      void client.invalidateQueries({ queryKey: keys.breakGlass });
      void client.invalidateQueries({ queryKey: keys.status });
    },
  });
  return (
    <>
      <Button size="compact-xs" variant="default" loading={end.isPending} onClick={() => end.mutate()}>
        Give back
      </Button>
      {end.error && <Failure error={end.error} lead="Not given back" />}
    </>
  );
}
