/** What has to be known on every page: a drill is running, executors are simulated, this host is silent. */
import { Link } from 'react-router';
import type { Status } from '../api/model';
import { useNow } from '../api/clock';
import { useConnection } from '../api/live';
import { isOpen, scopeName } from '../domain/governance';
import { count } from '../format/units';
import { Ago } from '../parts/parts';
import css from './Banner.module.css';

export function Banner({ status }: { status: Status | undefined }) {
  const connection = useConnection();
  const now = useNow();
  const lost = connection.state === 'lost';
  if (!status) return null;
  const notices = status.drills.length + status.simulated_nodes.length + status.break_glass.length + status.open_breakers.length;
  if (notices === 0 && !lost && !status.recorder.seal_error) return null;
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
      {status.open_breakers.map((breaker) => (
        <div key={scopeName(breaker.scope)} className={css.banner} data-tone="high" data-testid="breaker-banner">
          <b>Breaker open: {scopeName(breaker.scope)}</b>
          <span>
            {breaker.reason}. Nothing begins there; what is under way goes on, and undoing is never held back.
          </span>
          <Link to="/governance">Look and reset</Link>
        </div>
      ))}
      {status.break_glass.map((glass) => (
        <div key={glass.id} className={css.banner} data-tone="high" data-testid="break-glass-banner">
          <b>{isOpen(glass, now) ? 'Break-glass' : 'Review owed'}</b>
          <span>
            {glass.name} {isOpen(glass, now) ? 'may approve alone' : 'could approve alone'}: “{glass.reason}”.{' '}
            {count(glass.plans.length, 'plan')} approved under it.
          </span>
          <Link to="/governance">{isOpen(glass, now) ? 'Look' : 'Review'}</Link>
        </div>
      ))}
      {status.drills.map((drill) => (
        <div key={`${drill.name}/${drill.node}`} className={css.banner} data-tone="drill" data-testid="drill-banner">
          <b>Drill running</b>
          <span>
            <code>{drill.name}</code> disturbs {drill.node}, begun <Ago time={drill.since} />. It was asked for, and is undone at its end; what
            follows from it is real. End it with <code>aether drill stop</code>.
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
