/** The small parts that every page is made of. */
import { Tooltip } from '@mantine/core';
import { useEffect, useRef, useState, type ReactNode } from 'react';
import { useNow } from '../api/clock';
import { inWords } from '../api/http';
import { badges } from '../domain/story';
import type { Tone } from '../domain/words';
import { age, localTime, utcTime } from '../format/time';
import { short } from '../format/units';
import { Icon } from './Icon';
import css from './parts.module.css';

export function Panel({ title, aside, children, label }: { title?: ReactNode; aside?: ReactNode; children: ReactNode; label?: string }) {
  return (
    <section className={css.panel} aria-label={label}>
      {title !== undefined && (
        <header className={css.panelHead}>
          <h2>{title}</h2>
          {aside}
        </header>
      )}
      {children}
    </section>
  );
}

export function Page({ title, aside, badges: marks, children }: { title: ReactNode; aside?: ReactNode; badges?: ReactNode; children: ReactNode }) {
  return (
    <main className={css.page} id="content" tabIndex={-1}>
      <div className={css.pageHead}>
        <h1>{title}</h1>
        {marks}
        {aside && <div className={css.aside}>{aside}</div>}
      </div>
      {children}
    </main>
  );
}

export function Chip({ tone, children, dot = true }: { tone: Tone; children: ReactNode; dot?: boolean }) {
  return (
    <span className={`${css.chip} ${dot ? '' : css.plain}`} data-tone={tone}>
      {children}
    </span>
  );
}

/** What must never be mistaken for the real thing: drill, dry run, simulated. */
export function Flags({ flags }: { flags: Parameters<typeof badges>[0] }) {
  const all = badges(flags);
  if (all.length === 0) return null;
  return (
    <span className={css.flags}>
      {all.map((badge) => (
        <Hint key={badge.kind} text={badge.means}>
          <span className={css.flag} data-tone={badge.kind} tabIndex={0}>
            {badge.label}
            <span className="sr">. {badge.means}</span>
          </span>
        </Hint>
      ))}
    </span>
  );
}

/** A word of explanation on hover and on focus. */
export function Hint({ text, children }: { text: ReactNode; children: React.JSX.Element }) {
  return (
    <Tooltip label={text} multiline maw={360} withArrow openDelay={150} events={{ hover: true, focus: true, touch: true }}>
      {children}
    </Tooltip>
  );
}

/** A point in time: local to read, UTC on hover. */
export function At({ time }: { time: number }) {
  const now = useNow();
  return (
    <Hint text={utcTime(time)}>
      <time className={css.time} dateTime={new Date(time).toISOString()}>
        {localTime(time, now)}
      </time>
    </Hint>
  );
}

/** How long ago; exact on hover. */
export function Ago({ time }: { time: number }) {
  const now = useNow();
  return (
    <Hint text={`${localTime(time, now)} here, ${utcTime(time)}`}>
      <time className={css.time} dateTime={new Date(time).toISOString()}>
        {age(time, now)}
      </time>
    </Hint>
  );
}

export function Copy({ text, what }: { text: string; what: string }) {
  const [copied, setCopied] = useState(false);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      return;
    }
    setCopied(true);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setCopied(false), 1_500);
  };
  return (
    <button type="button" className={css.copy} onClick={copy} aria-label={copied ? `${what} copied` : `Copy ${what}`}>
      <Icon name={copied ? 'check' : 'copy'} size={14} />
    </button>
  );
}

/** A digest: its first digits, the whole on hover and to copy. */
export function Hash({ value, what, full = false }: { value: string; what: string; full?: boolean }) {
  return (
    <span className={`${css.hash} ${full ? css.hashFull : ''}`}>
      {full ? (
        <span data-testid="hash">{value}</span>
      ) : (
        <Hint text={<code>{value}</code>}>
          <span>{short(value)}</span>
        </Hint>
      )}
      <Copy text={value} what={what} />
    </span>
  );
}

export function Facts({ children }: { children: ReactNode }) {
  return <dl className={css.facts}>{children}</dl>;
}

export function Fact({ name, children }: { name: ReactNode; children: ReactNode }) {
  return (
    <>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </>
  );
}

export function Note({ tone, title, children, role }: { tone: Tone; title?: ReactNode; children?: ReactNode; role?: 'alert' | 'status' }) {
  return (
    <div className={css.note} data-tone={tone} role={role}>
      <div>
        {title && <strong>{title}</strong>}
        {title && children ? ' ' : null}
        {children}
      </div>
    </div>
  );
}

/** What went wrong, in the host's words, with the code that the documentation explains. */
export function Failure({ error, lead }: { error: unknown; lead?: string }) {
  const words = inWords(error);
  return (
    <div className={css.note} data-tone="critical" role="alert">
      <div>
        <strong>{lead ?? words.title}.</strong> {words.detail}
        {words.code && (
          <div className={css.code}>
            {words.code}
            {words.instance && ` · ${words.instance}`}
          </div>
        )}
      </div>
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className={css.empty}>
      <strong>{title}</strong>
      {children}
    </div>
  );
}

/** Keeps a place of `height` while something loads. */
export function Skeleton({ height }: { height: number }) {
  return <div className={css.skeleton} style={{ height }} aria-hidden="true" />;
}

/** Indented, but a list of plain values on one line: a column of samples is read along, not down. */
function written(value: unknown): string {
  const text = JSON.stringify(value, null, 2) ?? 'none';
  return text.replace(/\[\s+([^[\]{}]*?)\s+\]/g, (_, inner: string) => `[${inner.replace(/,\s+/g, ', ')}]`);
}

export function Json({ value, label }: { value: unknown; label: string }) {
  return (
    <pre className={css.json} tabIndex={0} aria-label={label}>
      {written(value)}
    </pre>
  );
}

export { css as partsCss };
