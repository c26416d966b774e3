/** Who did what, and who was refused: a hash chain, newest first. */
import { Button } from '@mantine/core';
import { useAudit } from '../api/queries';
import type { AuditEntry, AuditPage as AuditLog } from '../api/model';
import { rankName } from '../domain/words';
import { shortId } from '../format/units';
import { At, Chip, Empty, Failure, Hash, Hint, Page, Panel, Skeleton } from '../parts/parts';
import parts from '../parts/parts.module.css';
import css from './Audit.module.css';

export function AuditPage() {
  const query = useAudit();
  const [first] = query.data?.pages ?? [];
  const entries = query.data?.pages.flatMap((page) => page.entries) ?? [];
  return (
    <Page title="Audit" aside={first && <Chain page={first} />}>
      {query.error && !query.data && <Failure error={query.error} lead="The audit could not be read" />}
      {!query.data && !query.error && <Skeleton height={480} />}
      {query.data && (
        <Panel>
          {entries.length === 0 ? (
            <Empty title="Nothing yet">Sign-ins, decisions on plans, signals and tokens are written here, refusals included.</Empty>
          ) : (
            <div className={parts.scroll}>
              <table className={parts.table}>
                <thead>
                  <tr>
                    <th className={parts.right}>No.</th>
                    <th>When</th>
                    <th>Who</th>
                    <th>Did</th>
                    <th>To</th>
                    <th>Outcome</th>
                    <th>Detail</th>
                    <th>Hash</th>
                  </tr>
                </thead>
                <tbody>
                  {entries.map((entry) => (
                    <Row key={entry.number} entry={entry} />
                  ))}
                </tbody>
              </table>
            </div>
          )}
        </Panel>
      )}
      {query.hasNextPage && (
        <div className={css.more}>
          <Button variant="default" loading={query.isFetchingNextPage} onClick={() => void query.fetchNextPage()}>
            Older entries
          </Button>
        </div>
      )}
    </Page>
  );
}

function Chain({ page }: { page: AuditLog }) {
  const { chain_verified: verified, chain_broken_at: brokenAt, chain_broken_why: why, chain_head: head } = page;
  if (verified === null || verified === undefined) return null;
  const text = verified
    ? `The host walked the chain from its first entry: each hash is right and names the one before. It ends at ${head?.number ?? '?'}:${head?.hash ?? '?'}; noted elsewhere, that shows later that nothing was cut off.`
    : `Entry ${brokenAt ?? '?'} is the first that is not as it ought to be: ${why ?? 'something was changed or taken out'}.`;
  return (
    <Hint text={text}>
      <span tabIndex={0}>
        <Chip tone={verified ? 'ok' : 'critical'}>{verified ? 'Hash chain whole' : `Hash chain broken at ${brokenAt ?? '?'}`}</Chip>
      </span>
    </Hint>
  );
}

function Row({ entry }: { entry: AuditEntry }) {
  const { name, ...others } = entry.detail;
  const detail = Object.entries(others);
  return (
    <tr>
      <td className={parts.right}>{entry.number}</td>
      <td>
        <At time={entry.at} />
      </td>
      <td className={css.nowrap}>
        <span title={entry.principal}>{name ?? shortId(entry.principal)}</span> {entry.rank && <span className={css.dim}>{rankName(entry.rank)}</span>}
      </td>
      <td>
        <code>{entry.action}</code>
      </td>
      <td className={css.target} title={entry.target}>
        {entry.target}
      </td>
      <td>
        <Chip tone={entry.outcome === 'done' ? 'ok' : 'high'}>{entry.outcome === 'done' ? 'Done' : 'Refused'}</Chip>
      </td>
      <td className={css.detail}>
        {detail.map(([name, value]) => (
          <span key={name}>
            <i>{name}</i> {value}
          </span>
        ))}
      </td>
      <td>
        <Hash value={entry.hash} what="entry hash" />
      </td>
    </tr>
  );
}
