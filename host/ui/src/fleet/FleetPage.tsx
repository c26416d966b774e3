/** The fleet: what runs where, how each node does, live. Trouble first. */
import { SegmentedControl } from '@mantine/core';
import { useState } from 'react';
import { useNodes, useRisks, useStatus, useWorkloads } from '../api/queries';
import type { NodeView, SubjectRisk, Workload } from '../api/model';
import { WINDOWS, type Window } from '../api/series';
import { count } from '../format/units';
import { Empty, Failure, Page, Skeleton } from '../parts/parts';
import css from './Fleet.module.css';
import { NodeCard } from './NodeCard';
import { Workloads } from './Workloads';

export function FleetPage() {
  const nodes = useNodes();
  const risks = useRisks();
  const workloads = useWorkloads();
  const { data: status } = useStatus();
  const [window, setWindow] = useState<Window['id']>('5m');
  const ordered = [...(nodes.data ?? [])].sort((a, b) => urgency(b, risks.data) - urgency(a, risks.data) || a.id.localeCompare(b.id));
  return (
    <Page
      title="Fleet"
      aside={
        <>
          {status && (
            <span className="num">
              {status.live_nodes} of {count(status.nodes, 'node')} live · {count(status.recorder.series, 'series', 'series')}
            </span>
          )}
          <SegmentedControl
            size="xs"
            value={window}
            onChange={(value) => setWindow(value)}
            data={Object.values(WINDOWS).map(({ id, word }) => ({ value: id, label: word }))}
            aria-label="Window of the charts"
          />
        </>
      }
    >
      <div className={css.stack}>
        {nodes.error && !nodes.data && <Failure error={nodes.error} lead="The nodes could not be read" />}
        <Workloads workloads={workloads.data} failed={workloads.error} window={WINDOWS[window]} />
        {!nodes.data && !nodes.error && (
          <>
            <Skeleton height={356} />
            <Skeleton height={356} />
          </>
        )}
        {nodes.data?.length === 0 && (
          <Empty title="No node has joined yet">
            An agent joins with a one-time token: <code>aether-agent</code> on the machine, <code>aether nodes</code> to see it here.
          </Empty>
        )}
        {ordered.map((node) => (
          <NodeCard
            key={node.id}
            node={node}
            risk={riskOf(node, risks.data)}
            workloads={(workloads.data ?? []).filter((workload: Workload) => workload.node === node.id)}
            window={WINDOWS[window]}
          />
        ))}
      </div>
    </Page>
  );
}

function riskOf(node: NodeView, risks: SubjectRisk[] | undefined): SubjectRisk | undefined {
  return risks?.find((risk) => risk.subject.kind === 'node' && risk.subject.id === node.id);
}

const WEIGHT = { low: 0, elevated: 1, high: 2, critical: 3 };

/** Only grave trouble changes the order: cards that wander about cannot be read. */
function urgency(node: NodeView, risks: SubjectRisk[] | undefined): number {
  const level = riskOf(node, risks)?.risk?.level ?? 'low';
  return level === 'critical' ? WEIGHT.critical : 0;
}
