/** Where am I, is it live, who am I: the one line above every page. */
import { ActionIcon } from '@mantine/core';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { NavLink } from 'react-router';
import { api } from '../api/client';
import { useConnection } from '../api/live';
import type { Status } from '../api/model';
import { keys } from '../api/queries';
import { CLASSES, RANKS } from '../domain/words';
import { Ago, At, Chip, Fact, Facts, Hint } from '../parts/parts';
import { Icon, type IconName } from '../parts/Icon';
import { count } from '../format/units';
import css from './Header.module.css';
import { usePerson } from './session';
import { useScheme } from './useScheme';

export function Header({ status }: { status: Status | undefined }) {
  return (
    <header className={css.bar}>
      <a className={css.skip} href="#content">
        Skip to the content
      </a>
      <div className={css.inner}>
        <NavLink to="/" className={css.brand} aria-label="Aether, to the fleet">
          <img src="/favicon.svg" width={24} height={24} alt="" />
          <span>Aether</span>
        </NavLink>
        <nav className={css.nav} aria-label="Pages">
          <Tab to="/" name="Fleet" />
          <Tab to="/incidents" name="Incidents" badge={status?.waiting_plans ?? 0} badgeMeans="waiting for approval" />
          <Tab to="/plugins" name="Plugins" />
          <Tab to="/backtests" name="Backtests" />
          <Tab to="/decisions" name="Decisions" />
          <Tab
            to="/governance"
            name="Governance"
            badge={(status?.break_glass.length ?? 0) + (status?.open_breakers.length ?? 0)}
            badgeMeans="open breakers and reviews owed"
          />
          <Tab to="/audit" name="Audit" />
        </nav>
        <div className={css.right}>
          {status && <Posture status={status} />}
          <Connection />
          <Scheme />
          <Me />
        </div>
      </div>
    </header>
  );
}

function Tab({ to, name, badge = 0, badgeMeans = '' }: { to: string; name: string; badge?: number; badgeMeans?: string }) {
  return (
    <NavLink to={to} end={to === '/'} className={({ isActive }) => `${css.tab} ${isActive ? css.here : ''}`}>
      {name}
      {badge > 0 && (
        <span className={css.badge} title={`${badge} ${badgeMeans}`}>
          {badge}
          <span className="sr"> {badgeMeans}</span>
        </span>
      )}
    </NavLink>
  );
}

function Posture({ status }: { status: Status }) {
  const { posture } = status;
  const highest = CLASSES[posture.highest_live_class].word.toLowerCase();
  return (
    <Hint
      text={
        <div className={css.posture}>
          <strong>What the host allows, whatever the gates say</strong>
          <Facts>
            <Fact name="Dry run">{posture.dry_run ? 'on: nothing is changed' : 'off: approved plans are carried out'}</Fact>
            <Fact name="Approval">{posture.approval_required ? 'needed for every change' : 'only where a gate asks'}</Fact>
            <Fact name="Live up to">{highest}</Fact>
            <Fact name="Least confidence">{posture.least_confidence_percent} %</Fact>
          </Facts>
        </div>
      }
    >
      <span className={css.postureChip} tabIndex={0} data-tone={posture.dry_run ? 'dry-run' : 'ok'} data-testid="posture">
        {posture.dry_run ? 'Dry run' : `Live, up to ${highest}`}
      </span>
    </Hint>
  );
}

function Connection() {
  const connection = useConnection();
  if (connection.state === 'open') {
    return (
      <Hint text={<>Changes arrive as they happen. Connected since <At time={connection.since} />.</>}>
        <span className={css.live} tabIndex={0} data-testid="connection">
          <i /> Live
        </span>
      </Hint>
    );
  }
  return (
    <span role="status" data-testid="connection">
      <Chip tone={connection.state === 'lost' ? 'critical' : 'idle'}>
        {connection.state === 'lost' ? (
          <>
            Connection lost <Ago time={connection.since} />
          </>
        ) : (
          'Connecting'
        )}
      </Chip>
    </span>
  );
}

const SCHEMES = ['auto', 'light', 'dark'] as const;
const SCHEME: Record<(typeof SCHEMES)[number], { icon: IconName; word: string }> = {
  auto: { icon: 'auto', word: 'as the system' },
  light: { icon: 'sun', word: 'light' },
  dark: { icon: 'moon', word: 'dark' },
};

function Scheme() {
  const [scheme, setScheme] = useScheme();
  const next = SCHEMES[(SCHEMES.indexOf(scheme) + 1) % SCHEMES.length] ?? 'auto';
  const label = `Colours: ${SCHEME[scheme].word}. Change to ${SCHEME[next].word}`;
  return (
    <Hint text={label}>
      <ActionIcon variant="subtle" color="gray" className={css.icon} aria-label={label} onClick={() => setScheme(next)}>
        <Icon name={SCHEME[scheme].icon} />
      </ActionIcon>
    </Hint>
  );
}

function Me() {
  const { session } = usePerson();
  const client = useQueryClient();
  const signOut = useMutation({
    mutationFn: api.signOut,
    onSettled: () => {
      client.clear();
      client.setQueryData(keys.session, null);
    },
  });
  return (
    <>
      <Hint
        text={
          <>
            Signed in as {session.principal}
            {session.expires_at ? (
              <>
                , until <At time={session.expires_at} />
              </>
            ) : (
              ''
            )}
            .
          </>
        }
      >
        <span className={css.me} tabIndex={0} data-testid="me">
          <b>{session.name}</b>
          <span>{RANKS[session.rank]}</span>
        </span>
      </Hint>
      <Hint text="Sign out">
        <ActionIcon variant="subtle" color="gray" className={css.icon} aria-label="Sign out" loading={signOut.isPending} onClick={() => signOut.mutate()}>
          <Icon name="out" />
        </ActionIcon>
      </Hint>
    </>
  );
}

export function liveNodes(status: Status): string {
  return status.live_nodes === status.nodes ? count(status.nodes, 'node') : `${status.live_nodes} of ${count(status.nodes, 'node')}`;
}
