/** What decides here: the active policy bundle, its slots, what stands in each and how it does. */
import { UnstyledButton } from '@mantine/core';
import { useId, useState } from 'react';
import { Link } from 'react-router';
import { usePlugins, useSlots } from '../api/queries';
import type { Limits, Plugin, SlotEntry, Slots, SlotStatus } from '../api/model';
import { COMPONENT_ROLES, RULES } from '../domain/words';
import { duration } from '../format/time';
import { bytes, compact, count, percent, plain } from '../format/units';
import { Ago, Empty, Fact, Facts, Failure, Hash, Hint, Json, Note, Page, Panel, Skeleton } from '../parts/parts';
import parts from '../parts/parts.module.css';
import { Icon } from '../parts/Icon';
import css from './Plugins.module.css';

export function PluginsPage() {
  const slots = useSlots();
  const plugins = usePlugins();
  const bundle = slots.data?.bundle;
  const unused = plugins.data?.filter((plugin) => plugin.slots.length === 0) ?? [];
  return (
    <Page title="Plugins and slots">
      <div className={css.stack}>
        {slots.error && !slots.data && <Failure error={slots.error} lead="The slots could not be read" />}
        {!slots.data && !slots.error && <Skeleton height={480} />}
        {slots.data && !bundle && (
          <Panel>
            <Empty title="No policy bundle is active">Nothing is scored, and no plan can pass: an empty slot of gates denies.</Empty>
          </Panel>
        )}
        {bundle && (
          <Panel>
            <div className={css.bundle}>
              <div>
                <h2>
                  {bundle.name} <span className={css.dim}>{bundle.version}</span>
                </h2>
                <p className={css.dim}>{bundle.summary}</p>
              </div>
              <div className={css.bundleHash}>
                <span className={css.dim}>Bundle digest</span>
                <Hash value={bundle.digest} what="bundle digest" />
              </div>
            </div>
          </Panel>
        )}
        {inOrder(slots.data?.slots ?? []).map((slot) => (
          <Slot
            key={slot.id}
            slot={slot}
            missing={(slots.data?.missing ?? []).filter((entry) => entry.slot === slot.id)}
            plugins={plugins.data ?? []}
          />
        ))}
        {unused.length > 0 && (
          <Panel title="In no slot">
            <ul className={css.unused}>
              {unused.map((plugin) => (
                <li key={plugin.digest}>
                  <b>{plugin.description.name}</b> {plugin.description.version} <span className={css.dim}>{plugin.description.summary}</span>
                  <Hash value={plugin.digest} what="component digest" />
                </li>
              ))}
            </ul>
          </Panel>
        )}
      </div>
    </Page>
  );
}

/** In the order in which an incident meets them. */
function inOrder(slots: SlotStatus[]): SlotStatus[] {
  const order = ['risk-scorer', 'router', 'remediation-planner', 'policy-gate'];
  return [...slots].sort((a, b) => order.indexOf(a.role) - order.indexOf(b.role) || a.id.localeCompare(b.id));
}

function Slot({ slot, missing, plugins }: { slot: SlotStatus; missing: Slots['missing']; plugins: Plugin[] }) {
  const role = COMPONENT_ROLES[slot.role];
  return (
    <Panel
      title={
        <>
          {slot.id} <span className={css.role}>{role.word}</span>
        </>
      }
      aside={
        <span className={css.rule}>
          <code>{slot.rule}</code> {RULES[slot.rule]}
        </span>
      }
    >
      <p className={css.does}>{role.does}</p>
      {missing.map((entry) => (
        <div key={entry.component} className={css.missing}>
          <Note tone="critical" title={`${entry.component} is missing from this slot.`}>
            {entry.reason} <code>{entry.code}</code>
          </Note>
        </div>
      ))}
      {slot.entries.length === 0 ? (
        <Empty title="Empty">Nothing stands in this slot.</Empty>
      ) : (
        <div className={parts.scroll}>
          <table className={`${parts.table} ${css.entries}`} data-testid={`slot-${slot.id}`}>
            <thead>
              <tr>
                <th>Component</th>
                <th>Digest</th>
                <th className={parts.right}>Evaluations</th>
                <th className={parts.right}>Faults</th>
                <th className={parts.right}>Fuel p50 / p99</th>
                <th className={parts.right}>Latency p50 / p99</th>
                <th className={parts.right}>Last</th>
                <th>
                  <span className="sr">Details</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {slot.entries.map((entry) => (
                <Entry key={entry.digest + entry.component} slot={slot} entry={entry} plugin={plugins.find((plugin) => plugin.digest === entry.digest)} />
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Panel>
  );
}

function Entry({ slot, entry, plugin }: { slot: SlotStatus; entry: SlotEntry; plugin: Plugin | undefined }) {
  const [open, setOpen] = useState(false);
  const details = useId();
  const { figures } = entry;
  const faults = Object.values(figures.faults).reduce((total, n) => total + n, 0);
  return (
    <>
      <tr>
        <td>
          <b className={css.name}>{entry.name}</b> <span className={css.dim}>{entry.version}</span>
        </td>
        <td>
          <Hash value={entry.digest} what="component digest" />
        </td>
        <td className={parts.right}>
          <Link to={`/decisions?slot=${encodeURIComponent(slot.id)}`}>{plain(figures.evaluations)}</Link>
        </td>
        <td className={parts.right}>
          {faults === 0 ? (
            <span className={css.dim}>0</span>
          ) : (
            <Hint text={faultWords(figures.faults)}>
              <span className={css.bad} tabIndex={0}>
                {plain(faults)}
              </span>
            </Hint>
          )}
        </td>
        <td className={parts.right}>{pair(figures.fuel_p50, figures.fuel_p99, compact)}</td>
        <td className={parts.right}>{pair(figures.latency_us_p50, figures.latency_us_p99, micros)}</td>
        <td className={parts.right}>{figures.last_at ? <Ago time={figures.last_at} /> : <span className={css.dim}>never</span>}</td>
        <td className={parts.right}>
          <UnstyledButton className={css.toggle} aria-expanded={open} aria-controls={details} onClick={() => setOpen(!open)}>
            <span className="sr">Details of {entry.name}</span>
            <Icon name="chevron" size={15} />
          </UnstyledButton>
        </td>
      </tr>
      {open && (
        <tr id={details}>
          <td colSpan={8} className={css.details}>
            <div className={css.detailGrid}>
              <div>
                <h3>About</h3>
                <Facts>
                  {plugin && <Fact name="Does">{plugin.description.summary}</Fact>}
                  <Fact name="File">
                    <code>{entry.component}.wasm</code>
                    {plugin && <>, {bytes(plugin.size_bytes)}</>}
                  </Fact>
                  {plugin && <Fact name="Reads">{reads(plugin)}</Fact>}
                  {faults > 0 && <Fact name="Faults">{faultWords(figures.faults)}</Fact>}
                  {figures.last_fault && <Fact name="Last fault">{figures.last_fault}</Fact>}
                </Facts>
              </div>
              <div>
                <h3>Limits of one evaluation</h3>
                <LimitFacts limits={entry.limits} fuel={figures.fuel_p99} />
              </div>
              <div>
                <h3>Config</h3>
                <Json value={entry.config} label={`Config of ${entry.name}`} />
              </div>
            </div>
          </td>
        </tr>
      )}
    </>
  );
}

function LimitFacts({ limits, fuel }: { limits: Limits; fuel: number | null | undefined }) {
  return (
    <Facts>
      <Fact name="Fuel">
        {compact(limits.fuel)}
        {fuel ? <span className={css.dim}>, {percent(fuel / limits.fuel)} used at p99</span> : null}
      </Fact>
      <Fact name="Deadline">{duration(limits.deadline_ms)}</Fact>
      <Fact name="Memory">{bytes(limits.memory_bytes)}</Fact>
      <Fact name="Output">{bytes(limits.output_bytes)}</Fact>
      <Fact name="Log">
        {count(limits.log_lines, 'line')} of {bytes(limits.log_line_bytes)}
      </Fact>
      <Fact name="Host calls">{plain(limits.host_calls)}</Fact>
    </Facts>
  );
}

function reads(plugin: Plugin): string {
  const names = plugin.description.inputs.map((input) =>
    'metric' in input ? `${input.metric.name} over ${duration(input.metric.window_ms)}` : `${input.events.name} over ${duration(input.events.window_ms)}`,
  );
  return names.join(', ') || 'nothing';
}

function pair(p50: number | null | undefined, p99: number | null | undefined, word: (n: number) => string) {
  if (typeof p50 !== 'number') return <span className={css.dim}>—</span>;
  return (
    <>
      {word(p50)} <span className={css.dim}>/ {typeof p99 === 'number' ? word(p99) : '—'}</span>
    </>
  );
}

function micros(us: number): string {
  return us < 1000 ? `${plain(us)} µs` : duration(us / 1000);
}

function faultWords(faults: Record<string, number>): string {
  return Object.entries(faults)
    .map(([kind, n]) => `${kind.replaceAll('_', ' ')} ${plain(n)}`)
    .join(', ');
}
