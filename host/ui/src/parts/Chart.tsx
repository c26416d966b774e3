/** One small chart. uPlot is loaded with the first of them; until then, and where nothing was sampled, its place is kept. */
import { lazy, Suspense, useEffect, useRef, useState, type ReactNode } from 'react';
import type { SubjectKind } from '../api/model';
import { gapOf, plotted, useSeries, type Line, type Window } from '../api/series';
import { useNow } from '../api/clock';
import { quantity, tick } from '../format/units';
import { duration } from '../format/time';
import css from './Chart.module.css';

const Plot = lazy(() => import('./Plot'));

export interface ChartProps {
  title: string;
  subject: { kind: SubjectKind; id: string };
  metric: string;
  window: Window;
  /** Names the lines that are drawn, in order; from what was sampled. */
  shape?: (lines: Line[], window: Window) => { name: string; line: Line }[];
  /** The whole scale, where there is one: a share is between 0 and 1. */
  range?: [number, number];
  /** Begin the scale at zero. */
  zero?: boolean;
  /** Fill the place that the layout gives; at least this high. */
  height?: number;
  empty?: ReactNode;
}

/** Older than this the newest sample is called old. */
const STALE_MS = 6_000;

export function Chart({ title, subject, metric, window, shape, range, zero = true, height = 96, empty }: ChartProps) {
  const frame = useRef<HTMLElement>(null);
  const visible = useVisible(frame);
  const { lines, failed, loading } = useSeries(subject, metric, window, visible);
  const now = useNow();
  const drawn = shape ? shape(lines, window) : lines.map((line) => ({ name: '', line }));
  const newest = Math.max(0, ...drawn.map(({ line }) => line.at.at(-1) ?? 0));
  const old = newest > 0 && now - newest > Math.max(STALE_MS, window.step_ms * 3);
  const unit = drawn[0]?.line.unit ?? '';
  const values = drawn.map(({ line }) => lastValue(line));
  const told = drawn.map(({ name }, i) => `${name} ${quantity(values[i], unit)}`.trim()).join(', ');

  return (
    <figure ref={frame} className={css.chart} aria-label={`${title}: ${told || 'nothing sampled'}`} data-testid={`chart-${metric}`}>
      <figcaption className={css.caption}>
        <span className={css.title}>{title}</span>
        {old && <span className={css.old}>{duration(Math.floor((now - newest) / 1000) * 1000)} old</span>}
        {(!old || drawn.length === 1) && (
          <span className={css.values}>
            {drawn.map(({ name }, i) => (
              <span key={name} className={css.value}>
                {name && (
                  <span className={css.name} data-line={i + 1}>
                    {name}
                  </span>
                )}
                <b>{drawn.length > 2 ? brief(values[i], unit) : quantity(values[i], unit)}</b>
              </span>
            ))}
          </span>
        )}
      </figcaption>
      <div className={css.plot} style={{ minHeight: height }} data-old={old || undefined}>
        {newest > 0 ? (
          <Suspense>
            <Plot
              data={plotted(drawn.map(({ line }) => line), gapOf(window))}
              names={drawn.map(({ name }) => name || title)}
              unit={unit}
              span={window.span_ms}
              range={range}
              zero={zero}
            />
          </Suspense>
        ) : (
          <div className={css.nothing}>{loading && visible ? '' : failed ? 'Could not be read' : (empty ?? 'Nothing sampled')}</div>
        )}
      </div>
    </figure>
  );
}

function brief(value: number | null | undefined, unit: string): string {
  return typeof value === 'number' ? tick(value, unit) : '—';
}

function lastValue(line: Line): number | null {
  for (let i = line.mean.length - 1; i >= 0; i -= 1) {
    const value = line.mean[i];
    if (typeof value === 'number') return value;
  }
  return null;
}

/** What is not on the screen asks for nothing. */
function useVisible(element: React.RefObject<HTMLElement | null>): boolean {
  const [visible, setVisible] = useState(false);
  useEffect(() => {
    if (!element.current) return;
    const observer = new IntersectionObserver((entries) => setVisible(entries.some((entry) => entry.isIntersecting)), {
      rootMargin: '200px',
    });
    observer.observe(element.current);
    return () => observer.disconnect();
  }, [element]);
  return visible;
}
