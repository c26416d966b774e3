/** uPlot behind React: made once, fed with new data, remade when the colours change. Nothing else knows of it. */
import { useComputedColorScheme } from '@mantine/core';
import { useEffect, useRef } from 'react';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { hostNow } from '../api/clock';
import { localTime } from '../format/time';
import { quantity, tick } from '../format/units';
import css from './Chart.module.css';

interface Props {
  data: [number[], ...(number | null | undefined)[][]];
  names: string[];
  unit: string;
  span: number;
  range: [number, number] | undefined;
  zero: boolean;
}

export default function Plot({ data, names, unit, span, range, zero }: Props) {
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(undefined);
  const latest = useRef(data);
  const scheme = useComputedColorScheme('light');
  const named = names.join('\n');
  const [low, high] = range ?? [];

  useEffect(() => {
    const element = host.current;
    if (!element) return;
    const style = getComputedStyle(document.documentElement);
    const colour = (name: string) => style.getPropertyValue(name).trim();
    const axis = {
      stroke: colour('--text-3'),
      font: `10px ${style.getPropertyValue('--sans')}`,
      ticks: { show: false },
      border: { show: false },
    };
    const tip = document.createElement('div');
    tip.className = css.tip ?? '';
    const made = new uPlot(
      {
        ...sizeOf(element),
        padding: [6, 10, 0, 0],
        legend: { show: false },
        cursor: { y: false, points: { size: 5 }, drag: { setScale: false, x: false, y: false } },
        scales: {
          x: { time: true, range: () => [(hostNow() - span) / 1000, hostNow() / 1000] },
          y: {
            range: (_, least, most) => {
              if (low !== undefined && high !== undefined) return [low, high];
              if (least === null || most === null) return [0, 1];
              const from = zero ? Math.min(0, least) : least;
              const room = (most - from || Math.abs(most) || 1) * 0.12;
              return [zero && least >= 0 ? 0 : from - room, most + room];
            },
          },
        },
        axes: [
          { ...axis, size: 20, gap: 5, space: 44, incrs: MINUTES, grid: { show: false }, values: (_, ticks) => ticks.map((at) => minutes.format(new Date(at * 1000))) },
          {
            ...axis,
            size: 40,
            gap: 4,
            space: 30,
            grid: { stroke: colour('--chart-grid'), width: 1 },
            values: (_, ticks) => ticks.map((value) => tick(value, unit)),
            ...(unit.startsWith('By') ? { incrs: POWERS } : {}),
          },
        ],
        series: [
          {},
          ...named.split('\n').map((name, i) => ({
            label: name,
            stroke: colour(`--chart-${(i % 3) + 1}`),
            width: 1.5,
            ...(named.includes('\n') ? {} : { fill: `${colour('--chart-1')}1c` }),
            points: { show: false },
          })),
        ],
        hooks: {
          setCursor: [
            (u) => {
              const i = u.cursor.idx;
              const at = i === null || i === undefined ? undefined : u.data[0][i];
              if (i === null || i === undefined || at === undefined) {
                tip.hidden = true;
                return;
              }
              tip.hidden = false;
              const lines = u.series.slice(1).map((series, n) => {
                const label = typeof series.label === 'string' ? series.label : '';
                return `${label} ${quantity(u.data[n + 1]?.[i], unit)}`;
              });
              tip.textContent = [localTime(at * 1000, hostNow()), ...lines].join('\n');
              tip.classList.toggle(css.tipLeft ?? '', (u.cursor.left ?? 0) > u.over.clientWidth / 2);
            },
          ],
        },
      },
      latest.current,
      element,
    );
    tip.hidden = true;
    made.over.append(tip);
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize(sizeOf(element)));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = undefined;
    };
  }, [named, unit, span, low, high, zero, scheme]);

  useEffect(() => {
    latest.current = data;
    plot.current?.setData(data);
  }, [data]);

  return <div ref={host} className={css.host} />;
}

const minutes = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', hour12: false });

/** Seconds between ticks: whole minutes, or hours. */
const MINUTES = [1, 2, 5, 10, 15, 30, 60, 120].map((n) => n * 60);
/** Bytes are counted in powers of two, so their ticks are, too. */
const POWERS = Array.from({ length: 50 }, (_, i) => 2 ** i);

function sizeOf(element: HTMLElement): { width: number; height: number } {
  return { width: Math.max(element.clientWidth, 10), height: Math.max(element.clientHeight, 10) };
}
