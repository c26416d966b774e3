/** One slot: what stands in it, how far each entry has come, how it does, and the change that made it so. */
import { UnstyledButton } from '@mantine/core';
import { useId, useState } from 'react';
import type { Plugin, SlotStatus, Slots } from '../api/model';
import { inStages } from '../domain/slots';
import { COMPONENT_ROLES, RULES } from '../domain/words';
import { Ago, Empty, Note, Panel } from '../parts/parts';
import parts from '../parts/parts.module.css';
import { Icon } from '../parts/Icon';
import { EntryRows } from './EntryRows';
import { History } from './History';
import css from './Plugins.module.css';

export function SlotPanel({ slot, missing, plugins }: { slot: SlotStatus; missing: Slots['missing']; plugins: Plugin[] }) {
  const role = COMPONENT_ROLES[slot.role];
  const { open, retired } = inStages(slot.entries);
  const [shown, setShown] = useState<'retired' | 'history' | null>(null);
  const more = useId();
  const toggle = (what: 'retired' | 'history') => setShown(shown === what ? null : what);
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
      <p className={css.news} data-testid={`generation-${slot.id}`}>
        Generation <b className="num">{slot.generation}</b>: {slot.last.why} <span className={css.dim}>{slot.last.by}, </span>
        <Ago time={slot.last.at} />
      </p>
      {missing.map((entry) => (
        <div key={entry.component} className={css.missing}>
          <Note tone="critical" title={`${entry.component} is missing from this slot.`}>
            {entry.reason} <code>{entry.code}</code>
          </Note>
        </div>
      ))}
      {open.length === 0 ? (
        <Empty title="Empty">Nothing stands in this slot.</Empty>
      ) : (
        <Entries label={`slot-${slot.id}`} slot={slot} entries={open} plugins={plugins} />
      )}
      <div className={css.more}>
        <UnstyledButton className={css.link} aria-expanded={shown === 'history'} aria-controls={more} onClick={() => toggle('history')}>
          <Icon name="chevron" size={13} /> History
        </UnstyledButton>
        {retired.length > 0 && (
          <UnstyledButton className={css.link} aria-expanded={shown === 'retired'} aria-controls={more} onClick={() => toggle('retired')}>
            <Icon name="chevron" size={13} /> Retired ({retired.length})
          </UnstyledButton>
        )}
        <span className={css.budget}>{budget(slot)}</span>
      </div>
      <div id={more}>
        {shown === 'history' && <History slot={slot.id} />}
        {shown === 'retired' && <Entries label={`retired-${slot.id}`} slot={slot} entries={retired} plugins={plugins} />}
      </div>
    </Panel>
  );
}

function Entries({ label, slot, entries, plugins }: { label: string; slot: SlotStatus; entries: SlotStatus['entries']; plugins: Plugin[] }) {
  return (
    <div className={parts.scroll}>
      <table className={`${parts.table} ${css.entries}`} data-testid={label}>
        <thead>
          <tr>
            <th>Component</th>
            <th>Stage</th>
            <th>Digest</th>
            <th className={parts.right}>Evaluations</th>
            <th className={parts.right}>Faults</th>
            <th className={parts.right}>Differs</th>
            <th className={parts.right}>Fuel p50 / p99</th>
            <th className={parts.right}>Latency p50 / p99</th>
            <th className={parts.right}>Last</th>
            <th>
              <span className="sr">Details</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {entries.map((entry) => (
            <EntryRows key={entry.id} slot={slot} entry={entry} plugin={plugins.find((plugin) => plugin.digest === entry.digest)} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** When an entry is taken out by itself. */
function budget({ budget: of }: SlotStatus): string {
  return `Taken out by itself over ${of.fault_percent} % faults, ${of.divergence_percent} % differing answers, ${of.latency_ratio} × the latency or ${of.fuel_ratio} × the fuel of the one before; of the newest ${of.window} evaluations, from ${of.least_evaluations} on.`;
}
