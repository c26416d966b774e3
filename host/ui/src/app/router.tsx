/** The pages and their addresses. Each page is a file of its own, loaded when it is first opened. */
import { createBrowserRouter, Link, useRouteError } from 'react-router';
import { Empty, Failure, Page } from '../parts/parts';
import { App } from './App';

export const router = createBrowserRouter([
  {
    element: <App />,
    errorElement: <Broken />,
    hydrateFallbackElement: <></>,
    children: [
      {
        errorElement: <Broken />,
        children: [
          { index: true, lazy: async () => ({ Component: (await import('../fleet/FleetPage')).FleetPage }) },
          { path: 'incidents', lazy: async () => ({ Component: (await import('../incidents/IncidentsPage')).IncidentsPage }) },
          { path: 'incidents/:id', lazy: async () => ({ Component: (await import('../incidents/IncidentPage')).IncidentPage }) },
          { path: 'plugins', lazy: async () => ({ Component: (await import('../plugins/PluginsPage')).PluginsPage }) },
          { path: 'backtests', lazy: async () => ({ Component: (await import('../backtests/BacktestsPage')).BacktestsPage }) },
          { path: 'backtests/:id', lazy: async () => ({ Component: (await import('../backtests/BacktestPage')).BacktestPage }) },
          { path: 'decisions', lazy: async () => ({ Component: (await import('../audit/DecisionsPage')).DecisionsPage }) },
          { path: 'decisions/:id', lazy: async () => ({ Component: (await import('../audit/DecisionPage')).DecisionPage }) },
          { path: 'governance', lazy: async () => ({ Component: (await import('../governance/GovernancePage')).GovernancePage }) },
          { path: 'audit', lazy: async () => ({ Component: (await import('../audit/AuditPage')).AuditPage }) },
          { path: '*', element: <Nowhere /> },
        ],
      },
    ],
  },
]);

function Nowhere() {
  return (
    <Page title="Nothing here">
      <Empty title="There is no such page">
        <Link to="/">To the fleet</Link>
      </Empty>
    </Page>
  );
}

function Broken() {
  const error = useRouteError();
  return (
    <Page title="This page broke">
      <Failure error={error} lead="Nothing on the host was affected. Loading the page again may help" />
    </Page>
  );
}
