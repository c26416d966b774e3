/** One entry of a slot as a row, and behind it all that is known of it and can be done with it. */
import { UnstyledButton } from '@mantine/core';
import { useId, useState } from 'react';
import { Link } from 'react-router';
import type { Limits, Plugin, SlotEntry, SlotStatus } from '../api/model';
import { divergence, stageName, STAGES, stageWord } from '../domain/slots';
import { duration } from '../format/time';
import { bytes, compact, count, percent, plain } from '../format/units';
import { Ago, At, Chip, Fact, Facts, Hash, Hint, Json, Note } from '../parts/parts';
import parts from '../parts/parts.module.css';
import { Icon } from '../parts/Icon';
import { Steps } from './Steps';
import css from './Plugins.module.css';

export function EntryRows({ slot, entry, plugin }: { slot: SlotStatus; entry: SlotEntry; plugin: Plugin | undefined }) {
  const [open, setOpen] = useState(false);
  const details = useId();
  const { figures } = entry;
  const faults = Object.values(figures.faults).reduce((total, n) => total + n, 0);
  const stage = STAGES[stageName(entry.stage)];
  const differs = divergence(figures);
  return (
    <>
      <tr data-testid={`entry-${entry.id}`}>
        <td>
          <b className={css.name}>{entry.name}</b> <span className={css.dim}>{entry.version}</span>
        </td>
        <td>
          <Hint text={stage.means}>
            <span tabIndex={0}>
              <Chip tone={entry.quarantine ? 'critical' : stage.tone}>{entry.quarantine ? `${stageWord(entry.stage)}, failed` : stageWord(entry.stage)}</Chip>
            </span>
          </Hint>
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
        <td className={parts.right}>{differs ?? <span className={css.dim}>—</span>}</td>
        <td className={parts.right}>{pair(figures.fuel_p50, figures.fuel_p99, compact)}</td>
        <td className={parts.right}>{pair(figures.latency_us_p50, figures.latency_us_p99, micros)}</td>
        <td className={parts.right}>{figures.last_at ? <Ago time={figures.last_at} /> : <span className={css.dim}>never</span>}</td>
        <td className={parts.right}>
          <UnstyledButton className={css.toggle} aria-expanded={open} aria-controls={details} onClick={() => setOpen(!open)}>
            <span className="sr">Details of {entry.id}</span>
            <Icon name="chevron" size={15} />
          </UnstyledButton>
        </td>
      </tr>
      {open && (
        <tr id={details}>
          <td colSpan={10} className={css.details}>
            <Details slot={slot} entry={entry} plugin={plugin} faults={faults} />
          </td>
        </tr>
      )}
    </>
  );
}

function Details({ slot, entry, plugin, faults }: { slot: SlotStatus; entry: SlotEntry; plugin: Plugin | undefined; faults: number }) {
  const { figures, quarantine } = entry;
  return (
    <>
      {quarantine && (
        <Note tone="critical" title="It failed.">
          {quarantine.reason} <At time={quarantine.at} />.{' '}
          {quarantine.reproducer && (
            <>
              See it fail again: <Link to={`/decisions/${encodeURIComponent(quarantine.reproducer)}`}>{quarantine.reproducer}</Link>
            </>
          )}
        </Note>
      )}
      <div className={css.detailGrid}>
        <div>
          <h3>About</h3>
          <Facts>
            {plugin && <Fact name="Does">{plugin.description.summary}</Fact>}
            <Fact name="Entry">
              <code>{entry.id}</code>
              {plugin && <>, {bytes(plugin.size_bytes)}</>}
            </Fact>
            {entry.replaces && (
              <Fact name="In place of">
                <code>{entry.replaces}</code>
              </Fact>
            )}
            {stageName(entry.stage) === 'active' && (
              <Fact name="If it fails">{entry.predecessor ? <>{entry.predecessor} answers again</> : 'it stays and is flagged: nothing stood here before it'}</Fact>
            )}
            {plugin && <Fact name="Reads">{reads(plugin)}</Fact>}
            <Fact name="May import">{entry.grants.join(', ') || 'nothing'}</Fact>
            {entry.assets && (
              <Fact name="Assets">
                <Hash value={entry.assets} what="assets digest" />
              </Fact>
            )}
            {faults > 0 && <Fact name="Faults">{faultWords(figures.faults)}</Fact>}
            {figures.last_fault && <Fact name="Last fault">{figures.last_fault}</Fact>}
            <Fact name="Memory, at most">{bytes(figures.memory_bytes_max)}</Fact>
            <Fact name="Log">{count(figures.log_lines, 'line')}</Fact>
            {figures.dropped > 0 && <Fact name="Not asked">{count(figures.dropped, 'question')}, because too many waited</Fact>}
          </Facts>
        </div>
        <div>
          <h3>Limits of one evaluation</h3>
          <LimitFacts limits={entry.limits} fuel={figures.fuel_p99} />
        </div>
        <div>
          <h3>Config</h3>
          <Json value={entry.config} label={`Config of ${entry.id}`} />
        </div>
      </div>
      {entry.proofs.length > 0 && <Proofs entry={entry} />}
      <Steps slot={slot} entry={entry} />
    </>
  );
}

/** On what each step was taken. */
function Proofs({ entry }: { entry: SlotEntry }) {
  return (
    <div className={css.proofs}>
      <h3>How it came here</h3>
      <ol>
        {entry.proofs.map((proof, i) => (
          <li key={i}>
            <b>{stageWord(proof.to)}</b> <At time={proof.at} /> <span className={css.dim}>by {proof.by}</span>
            {proof.self_test && (
              <>
                {' '}
                · {tested(proof.self_test)}
              </>
            )}
            {proof.figures && (
              <>
                {' '}
                · {count(proof.figures.evaluations, 'evaluation')}, {count(total(proof.figures.faults), 'fault')}
                {divergence(proof.figures) && <>, differs in {divergence(proof.figures)}</>}
              </>
            )}
            {proof.backtest && <> · backtest {proof.backtest}</>}
            {proof.overridden && <span className={css.override}> · taken without its evidence: “{proof.overridden}”</span>}
          </li>
        ))}
      </ol>
    </div>
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

function tested({ passed, failed }: { passed: number; failed: number }): string {
  return passed + failed === 0 ? 'the bundle has no fixture for it' : `${passed} of ${passed + failed} fixtures passed`;
}

function total(faults: Record<string, number>): number {
  return Object.values(faults).reduce((sum, n) => sum + n, 0);
}

function faultWords(faults: Record<string, number>): string {
  return Object.entries(faults)
    .map(([kind, n]) => `${kind.replaceAll('_', ' ')} ${plain(n)}`)
    .join(', ');
}
