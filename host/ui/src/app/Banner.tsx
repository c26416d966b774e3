/** What has to be known on every page: a drill is running, executors are simulated, this host is silent. */
import { Link } from 'react-router';
import type { Status } from '../api/model';
import { useConnection } from '../api/live';
import { Ago } from '../parts/parts';
import css from './Banner.module.css';

export function Banner({ status }: { status: Status | undefined }) {
  const connection = useConnection();
  const lost = connection.state === 'lost';
  if (!status || (status.drills.length === 0 && status.simulated_nodes.length === 0 && !lost && !status.recorder.seal_error)) return null;
  return (
    <section aria-label="Notices">
      {lost && (
        <div className={css.banner} data-tone="critical" role="alert">
          <b>No connection to the host</b>
          <span>
            What you see is from <Ago time={connection.since} />. It is tried again by itself; nothing you see here is lost.
          </span>
        </div>
      )}
      {status.drills.map((drill) => (
        <div key={`${drill.name}/${drill.node}`} className={css.banner} data-tone="drill" data-testid="drill-banner">
          <b>Drill running</b>
          <span>
            <code>{drill.name}</code> plays its signals against {drill.node}, begun <Ago time={drill.since} />. The signals are played; what
            follows from them is real. End it with <code>aether drill stop</code>.
          </span>
          <Link to="/incidents">Incidents</Link>
        </div>
      ))}
      {status.simulated_nodes.length > 0 && (
        <div className={css.banner} data-tone="simulated">
          <b>Simulated executor</b>
          <span>{status.simulated_nodes.join(', ')} only pretends to act: nothing that is reported as done there was done.</span>
        </div>
      )}
      {status.recorder.seal_error && (
        <div className={css.banner} data-tone="high">
          <b>Telemetry is not being made durable</b>
          <span>{status.recorder.seal_error} It is kept in memory and by the agents, and tried again.</span>
        </div>
      )}
    </section>
  );
}
