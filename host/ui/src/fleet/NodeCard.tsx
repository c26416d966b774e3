/** One node: is it there, how risky is it and why, what can it not do and why, and what it measures. */
import { Popover, UnstyledButton } from '@mantine/core';
import type { ReactNode } from 'react';
import { Link } from 'react-router';
import { api } from '../api/client';
import { useNow } from '../api/clock';
import type { CapabilityView, NodeView, SubjectRisk, Workload } from '../api/model';
import { keys, useAgentConfigs } from '../api/queries';
import { gapOf, rate, sum, type Line, type Window } from '../api/series';
import { usePerson } from '../app/session';
import { collectionOf, wants } from '../domain/collection';
import { riskFigures } from '../domain/story';
import { capabilityName, LEVELS } from '../domain/words';
import { duration } from '../format/time';
import { count, plain } from '../format/units';
import { Chart } from '../parts/Chart';
import { Ago, Chip, Fact, Facts, Flags, Hint } from '../parts/parts';
import { Icon } from '../parts/Icon';
import { Word } from '../parts/Word';
import parts from '../parts/parts.module.css';
import css from './Fleet.module.css';

/** An agent sends each second; a live session that is silent for longer is worth a word. */
const QUIET_MS = 6_000;
/** As the host has it: a machine whose alarm went off is back within this. */
const COMES_UP_WITHIN_MS = 300_000;

export function NodeCard({ node, risk, workloads, window }: { node: NodeView; risk: SubjectRisk | undefined; workloads: Workload[]; window: Window }) {
  const subject = { kind: 'node' as const, id: node.id };
  const simulated = node.capabilities.some((capability) => capability.simulated);
  return (
    <article className={`${parts.panel} ${css.node}`} aria-label={`Node ${node.id}`} data-testid={`node-${node.id}`} data-live={node.live}>
      <div className={css.side}>
        <header className={css.nodeHead}>
          <h2>{node.id}</h2>
          <State node={node} />
          <Flags flags={{ simulated }} />
        </header>
        <Closed node={node} />
        <Risk risk={risk} />
        <section className={css.block}>
          <h3>Workloads</h3>
          {workloads.length === 0 && <p className={css.dim}>None</p>}
          <ul>
            {workloads.map((workload) => (
              <li key={workload.id} className={css.workloadLine}>
                <span>{workload.name}</span>
                <span className={css.dim}>{workload.state}</span>
              </li>
            ))}
          </ul>
        </section>
        <Capabilities capabilities={node.capabilities} />
        <About node={node} />
      </div>
      <div className={css.charts}>
        <Chart title="CPU" subject={subject} metric="system.cpu.utilization" window={window} range={[0, 1]} shape={one} />
        <Chart title="Memory" subject={subject} metric="system.memory.utilization" window={window} range={[0, 1]} shape={one} />
        <Chart title="Load, 1 min" subject={subject} metric="system.cpu.load_average.1m" window={window} shape={plainLoad} />
        <Chart
          title="Spot price"
          subject={subject}
          metric="aether.market.price"
          window={window}
          shape={one}
          empty="No feeder tells a price"
        />
        <Chart title="Pressure" subject={subject} metric="aether.system.pressure.some" window={window} shape={pressure} />
        <Chart title="Disk" subject={subject} metric="system.disk.io" window={window} shape={disk} />
        <Chart title="Network" subject={subject} metric="system.network.io" window={window} shape={network} />
        <Chart title="File system" subject={subject} metric="system.filesystem.utilization" window={window} range={[0, 1]} shape={one} />
      </div>
    </article>
  );
}

function State({ node }: { node: NodeView }) {
  const now = useNow();
  if (node.asleep) {
    const { since, plan, state, wakes_at } = node.asleep;
    const late = wakes_at ? now - wakes_at > COMES_UP_WITHIN_MS : false;
    return (
      <Hint text={`In "${state}" by the plan ${plan.slice(0, 12)}. It is silent on purpose, and nothing is placed there.`}>
        <span tabIndex={0}>
          <Chip tone={late ? 'critical' : 'idle'}>
            Asleep on order, <Ago time={since} />
            {wakes_at && late ? <>; its clock was to wake it <Ago time={wakes_at} /></> : null}
            {wakes_at && !late ? <>; its clock wakes it in {duration(Math.max(0, wakes_at - now))}</> : null}
          </Chip>
        </span>
      </Hint>
    );
  }
  if (!node.live) {
    return (
      <Hint text="Its agent has no session. Nothing is sent to it; its telemetry comes later from its spool.">
        <span tabIndex={0}>
          <Chip tone="critical">Session lost{node.last_seen ? <>, last heard of <Ago time={node.last_seen} /></> : null}</Chip>
        </span>
      </Hint>
    );
  }
  const quiet = node.last_seen ? now - node.last_seen : 0;
  if (quiet > QUIET_MS) return <Chip tone="elevated">Silent for {duration(Math.floor(quiet / 1000) * 1000)}</Chip>;
  return <Chip tone="ok">Live</Chip>;
}

/** Whether anything may be placed here, and the word that changes it. */
function Closed({ node }: { node: NodeView }) {
  const { suffices } = usePerson();
  const may = suffices('operator');
  const drained = node.facts['node.drained'];
  if (node.cordon) {
    return (
      <section className={css.block} data-testid="cordon">
        <p>
          <Chip tone="elevated">Cordoned</Chip> by {node.cordon.name}, <Ago time={node.cordon.at} />: {node.cordon.reason}
        </p>
        {may && (
          <Ask button="Lift the cordon">
            <Word label="Why it takes work again" button="Lift" send={(why) => api.uncordon(node.id, why)} changes={keys.nodes} lead="Not lifted" />
          </Ask>
        )}
      </section>
    );
  }
  return (
    <section className={css.block}>
      {drained && (
        <p>
          <Chip tone="elevated">Drained</Chip> {drained}
        </p>
      )}
      {may && (
        <Ask button="Cordon">
          <Word label="Why nothing is to be placed here" button="Cordon" send={(why) => api.cordon(node.id, why)} changes={keys.nodes} lead="Not cordoned" />
        </Ask>
      )}
    </section>
  );
}

function Ask({ button, children }: { button: string; children: ReactNode }) {
  return (
    <Popover width={360} position="bottom-start" withArrow shadow="md" trapFocus>
      <Popover.Target>
        <UnstyledButton className={css.about}>
          {button} <Icon name="chevron" size={12} />
        </UnstyledButton>
      </Popover.Target>
      <Popover.Dropdown>{children}</Popover.Dropdown>
    </Popover>
  );
}

function Risk({ risk }: { risk: SubjectRisk | undefined }) {
  const word = risk?.risk;
  if (!word) {
    const why = risk?.unknown ?? 'It has not been scored yet.';
    return (
      <section className={css.risk} data-tone="idle" data-testid="risk">
        <div className={css.riskHead}>
          <span className={css.riskLevel}>Risk unknown</span>
        </div>
        <p title={why}>{why}</p>
      </section>
    );
  }
  const { word: name, tone } = LEVELS[word.level];
  return (
    <section className={css.risk} data-tone={tone} data-testid="risk" data-level={word.level}>
      <div className={css.riskHead}>
        <span className={css.riskLevel}>{name} risk</span>
        {risk.incident && (
          <Link to={`/incidents/${encodeURIComponent(risk.incident)}`}>
            Incident <Icon name="right" size={13} />
          </Link>
        )}
      </div>
      <p title={word.reason}>{word.reason}</p>
      <div className={css.riskFoot}>
        <span>{riskFigures(word)}</span>
        {risk.decision ? (
          <Link to={`/decisions/${encodeURIComponent(risk.decision)}`}>
            <code>{word.cause}</code>
          </Link>
        ) : (
          <code>{word.cause}</code>
        )}
      </div>
    </section>
  );
}

function Capabilities({ capabilities }: { capabilities: CapabilityView[] }) {
  const missing = capabilities.filter((capability) => !capability.available);
  const present = capabilities.length - missing.length;
  return (
    <section className={css.block}>
      <h3>Capabilities</h3>
      <Popover width={440} position="bottom-start" withArrow shadow="md" trapFocus>
        <Popover.Target>
          <UnstyledButton className={css.capabilities}>
            <span>{missing.length > 0 ? `${present} of ${count(capabilities.length, 'capability', 'capabilities')}` : count(present, 'capability', 'capabilities')}</span>
            {missing.length > 0 && <Chip tone="elevated">{missing.length} missing</Chip>}
            <Icon name="chevron" size={13} />
          </UnstyledButton>
        </Popover.Target>
        <Popover.Dropdown className={css.popover}>
          <ul className={css.capabilityList} tabIndex={0} aria-label="Capabilities">
            {[...missing, ...capabilities.filter((capability) => capability.available)].map((capability) => (
              <li key={capability.name} data-missing={!capability.available || undefined}>
                <Icon name={capability.available ? 'check' : 'cross'} size={14} />
                <div>
                  <b>{capabilityName(capability.name)}</b> <code>{capability.name}</code>{' '}
                  {capability.simulated && <Flags flags={{ simulated: true }} />}
                  {capability.reason && <p>{capability.reason}</p>}
                  {capability.fallback && <p>Instead: {capability.fallback}</p>}
                </div>
              </li>
            ))}
          </ul>
        </Popover.Dropdown>
      </Popover>
    </section>
  );
}

function About({ node }: { node: NodeView }) {
  const facts = Object.entries(node.facts);
  const wanted = collectionOf(node, useAgentConfigs().data ?? []);
  return (
    <Popover width={420} position="bottom-start" withArrow shadow="md" trapFocus>
      <Popover.Target>
        <UnstyledButton className={css.about}>
          Agent {node.software_version}, generation {node.generation} <Icon name="chevron" size={12} />
        </UnstyledButton>
      </Popover.Target>
      <Popover.Dropdown className={css.popover} tabIndex={0}>
        <Facts>
          {node.connected_since && (
            <Fact name="Connected">
              <Ago time={node.connected_since} />
            </Fact>
          )}
          {typeof node.clock_skew_ms === 'number' && <Fact name="Clock">{clockWords(node.clock_skew_ms)}</Fact>}
          <Fact name="Batches">
            {count(node.telemetry.batches, 'taken', 'taken')}, {plain(node.telemetry.duplicates)} twice, {plain(node.telemetry.rejected)} refused,{' '}
            {plain(node.telemetry.lost)} lost
          </Fact>
          {wanted && (
            <Fact name="Telemetry">
              {wanted.word.name} wants {wants(wanted.collection)}
              {wanted.word.node ? '' : ', of the fleet'}, <Ago time={wanted.word.at} />: {wanted.word.reason}
              <br />
              {wanted.standing}
            </Fact>
          )}
          {facts.map(([name, value]) => (
            <Fact key={name} name={<code>{name}</code>}>
              {value}
            </Fact>
          ))}
        </Facts>
      </Popover.Dropdown>
    </Popover>
  );
}

function clockWords(skew: number): string {
  if (Math.abs(skew) < 100) return 'agrees with the host';
  return `${duration(Math.abs(skew))} ${skew > 0 ? 'ahead of' : 'behind'} the host`;
}

/** The line that goes on; another source of the same may have ended. */
const one = (lines: Line[]) =>
  [...lines]
    .sort((a, b) => (b.at.at(-1) ?? 0) - (a.at.at(-1) ?? 0))
    .slice(0, 1)
    .map((line) => ({ name: '', line }));

/** A load of "threads" is how the unit reads; a bare number is how people say it. */
const plainLoad = (lines: Line[]) => one(lines).map(({ line }) => ({ name: '', line: { ...line, unit: '' } }));

function pressure(lines: Line[]) {
  return ['cpu', 'io', 'memory'].flatMap((resource) => {
    const line = lines.find(({ attributes }) => attributes['resource'] === resource);
    return line ? [{ name: resource === 'memory' ? 'mem' : resource, line }] : [];
  });
}

function flow(attribute: string, names: [value: string, name: string][]) {
  return (lines: Line[], window: Window) =>
    names.flatMap(([value, name]) => {
      const rates = lines.filter(({ attributes }) => attributes[attribute] === value).map((line) => rate(line, gapOf(window)));
      const line = sum(rates, {});
      return line ? [{ name, line }] : [];
    });
}

const disk = flow('disk.io.direction', [
  ['read', 'r'],
  ['write', 'w'],
]);
const network = flow('network.io.direction', [
  ['receive', 'in'],
  ['transmit', 'out'],
]);
