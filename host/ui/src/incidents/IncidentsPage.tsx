/** All incidents, newest first; what waits for a person stands out. */
import { Button } from '@mantine/core';
import { Link } from 'react-router';
import { useIncidents } from '../api/queries';
import type { IncidentSummary } from '../api/model';
import { useNow } from '../api/clock';
import { PHASES, RESOLUTIONS, targetName } from '../domain/words';
import { duration } from '../format/time';
import { Ago, Chip, Empty, Failure, Flags, Page, Panel, Skeleton } from '../parts/parts';
import css from './Incidents.module.css';

export function IncidentsPage() {
  const query = useIncidents();
  const incidents = query.data?.pages.flatMap((page) => page.incidents) ?? [];
  const open = incidents.filter((incident) => !incident.closed_at);
  const closed = incidents.filter((incident) => incident.closed_at);
  return (
    <Page title="Incidents" aside={query.data && <span>{open.length === 0 ? 'None open' : `${open.length} open`}</span>}>
      <div className={css.stack}>
        {query.error && !query.data && <Failure error={query.error} lead="The incidents could not be read" />}
        {!query.data && !query.error && <Skeleton height={220} />}
        {query.data && incidents.length === 0 && (
          <Panel>
            <Empty title="No incident yet">
              An incident opens when a risk stays critical. To see a whole one, play a spot reclaim: <code>aether drill start</code>
            </Empty>
          </Panel>
        )}
        {open.length > 0 && <List title="Open" incidents={open} />}
        {closed.length > 0 && <List title="Closed" incidents={closed} />}
        {query.hasNextPage && (
          <Button variant="default" loading={query.isFetchingNextPage} onClick={() => void query.fetchNextPage()}>
            Older incidents
          </Button>
        )}
      </div>
    </Page>
  );
}

function List({ title, incidents }: { title: string; incidents: IncidentSummary[] }) {
  return (
    <Panel title={title}>
      <ul>
        {incidents.map((incident) => (
          <Row key={incident.id} incident={incident} />
        ))}
      </ul>
    </Panel>
  );
}

export function StateChip({ incident }: { incident: Pick<IncidentSummary, 'phase' | 'resolution'> }) {
  if (incident.resolution) {
    const { word, tone } = RESOLUTIONS[incident.resolution];
    return <Chip tone={tone}>{word}</Chip>;
  }
  const phase = PHASES[incident.phase] ?? { word: incident.phase, tone: 'active' as const };
  return <Chip tone={phase.tone}>{phase.word}</Chip>;
}

function Row({ incident }: { incident: IncidentSummary }) {
  const now = useNow();
  const lasted = (incident.closed_at ?? now) - incident.opened_at;
  return (
    <li>
      <Link to={`/incidents/${encodeURIComponent(incident.id)}`} className={css.row} data-testid="incident-row">
        <span className={css.rowState}>
          <StateChip incident={incident} />
        </span>
        <span className={css.rowMain}>
          <b>{targetName(incident.shape.subject)}</b> <code>{incident.shape.cause}</code>
          <Flags flags={incident.flags} />
          <span className={css.rowSummary}>{incident.summary}</span>
        </span>
        <span className={css.rowWhen}>
          <span>
            <Ago time={incident.opened_at} />
          </span>
          <span className={css.dim}>
            {incident.closed_at ? 'took' : 'open for'} {duration(Math.floor(lasted / 1000) * 1000)}
          </span>
        </span>
      </Link>
    </li>
  );
}
