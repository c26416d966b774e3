/** One incident, told as a story in eight steps, with the decision that it waits for beside it. */
import { Link, useParams } from 'react-router';
import { useNow } from '../api/clock';
import { useIncident } from '../api/queries';
import type { IncidentDetail } from '../api/model';
import { usePerson } from '../app/session';
import { tell } from '../domain/story';
import { RESOLUTIONS, targetName } from '../domain/words';
import { duration } from '../format/time';
import { Problem } from '../api/http';
import { At, Chip, Empty, Fact, Facts, Failure, Flags, Hash, Hint, Note, Page, Panel, Skeleton } from '../parts/parts';
import { ApprovalPanel } from './ApprovalPanel';
import { StateChip } from './IncidentsPage';
import css from './Incidents.module.css';
import { StoryStepView } from './StoryStepView';

export function IncidentPage() {
  const { id = '' } = useParams();
  const query = useIncident(id);
  if (query.data) return <Told detail={query.data} stale={query.error} />;
  if (query.error instanceof Problem && query.error.status === 404) {
    return (
      <Page title="Incident">
        <Empty title="There is no such incident">
          <Link to="/incidents">All incidents</Link>
        </Empty>
      </Page>
    );
  }
  return (
    <Page title="Incident">
      {query.error ? <Failure error={query.error} lead="The incident could not be read" /> : <Skeleton height={640} />}
    </Page>
  );
}

function Told({ detail, stale }: { detail: IncidentDetail; stale: unknown }) {
  const { incident } = detail;
  const { nameOf } = usePerson();
  const story = tell(detail, nameOf);
  const report = detail.artifacts.find((artifact) => artifact.body.kind === 'incident_report')?.body;
  const action = report?.kind === 'incident_report' ? report.action_needed : null;
  return (
    <Page
      title={
        <>
          <span className={css.cause}>{targetName(incident.shape.subject)}:</span> {incident.shape.cause}
        </>
      }
      badges={
        <>
          <StateChip incident={incident} />
          <Flags flags={detail.flags} />
        </>
      }
      aside={<Chain detail={detail} />}
    >
      {stale ? <Failure error={stale} lead="What you see may be old" /> : null}
      {action && (
        <div className={css.action}>
          <Note tone="critical" title="A person has to act." role="alert">
            {action}
          </Note>
        </div>
      )}
      <div className={css.columns}>
        <ol className={css.story} aria-label="The story of this incident">
          {story.map((step) => (
            <StoryStepView key={step.kind} step={step} detail={detail} />
          ))}
        </ol>
        <aside className={css.rail}>
          {incident.plan && <ApprovalPanel hash={incident.plan} detail={detail} />}
          <About detail={detail} />
        </aside>
      </div>
    </Page>
  );
}

function Chain({ detail }: { detail: IncidentDetail }) {
  if (detail.artifacts.length === 0) return null;
  if (detail.chain_verified) {
    return (
      <Hint text="Every artifact's hash is right, and each names the one before it.">
        <span tabIndex={0} data-testid="chain">
          <Chip tone="ok">Hash chain whole</Chip>
        </span>
      </Hint>
    );
  }
  return (
    <Hint text={`The first artifact whose hash is not what it ought to be: ${detail.chain_broken_at ?? 'not known'}`}>
      <span tabIndex={0} data-testid="chain">
        <Chip tone="critical">Hash chain broken</Chip>
      </span>
    </Hint>
  );
}

function About({ detail }: { detail: IncidentDetail }) {
  const now = useNow();
  const { incident } = detail;
  return (
    <Panel title="About">
      <div className={css.about}>
        {incident.resolution && <p className={css.means}>{RESOLUTIONS[incident.resolution].means}</p>}
        <Facts>
          <Fact name="Opened">
            <At time={incident.opened_at} />
          </Fact>
          {incident.closed_at ? (
            <Fact name="Closed">
              <At time={incident.closed_at} />
            </Fact>
          ) : null}
          <Fact name={incident.closed_at ? 'Took' : 'Open for'}>
            <span className="num">{duration(Math.floor(((incident.closed_at ?? now) - incident.opened_at) / 1000) * 1000)}</span>
          </Fact>
          {detail.recurrences > 0 && <Fact name="Seen again">{detail.recurrences}×</Fact>}
          {detail.failure && <Fact name="Failure">{detail.failure}</Fact>}
          <Fact name="Incident">
            <span className="mono">{incident.id}</span>
          </Fact>
          {incident.plan && (
            <Fact name="Plan">
              <Hash value={incident.plan} what="plan hash" />
            </Fact>
          )}
        </Facts>
      </div>
      {detail.timeline.length > 0 && (
        <>
          <h3 className={css.journalHead}>Journal</h3>
          <ol className={css.journal} tabIndex={0} aria-label="Journal">
            {detail.timeline.map((entry, i) => (
              <li key={i}>
                <At time={entry.at} />
                <span>{entry.text}</span>
              </li>
            ))}
          </ol>
        </>
      )}
    </Panel>
  );
}

