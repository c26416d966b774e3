/** Signed in or not: the sign-in page, or the frame with the pages in it. */
import { useQuery } from '@tanstack/react-query';
import { useEffect } from 'react';
import { hostTold } from '../api/clock';
import { LiveProvider } from '../api/live';
import { sessionQuery, useStatus } from '../api/queries';
import { Header } from './Header';
import { Outlet, ScrollRestoration } from 'react-router';
import { SessionContext } from './session';
import { SignIn } from './SignIn';
import { Banner } from './Banner';

export function App() {
  const session = useQuery(sessionQuery);
  if (session.data === undefined) return session.failureCount > 1 ? <SignIn unreachable={session.failureReason} /> : null;
  if (session.data === null) return <SignIn unreachable={null} />;
  return (
    <SessionContext value={session.data}>
      <LiveProvider>
        <Frame />
      </LiveProvider>
    </SessionContext>
  );
}

function Frame() {
  const { data: status } = useStatus();
  useEffect(() => {
    if (status) hostTold(status.now);
  }, [status]);
  return (
    <>
      <Header status={status} />
      <Banner status={status} />
      <Outlet />
      <ScrollRestoration />
    </>
  );
}
