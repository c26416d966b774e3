/** Numbers with their units, as a person would say them. Units come as UCUM-like strings from the telemetry. */
import { duration } from './time';

const BINARY = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

export function bytes(value: number): string {
  let size = Math.abs(value);
  let unit = 0;
  while (size >= 1024 && unit < BINARY.length - 1) {
    size /= 1024;
    unit += 1;
  }
  const text = unit === 0 || size >= 100 ? Math.round(size).toString() : significant(size);
  return `${value < 0 ? '−' : ''}${text} ${BINARY[unit] ?? 'B'}`;
}

/** Three significant digits without trailing zeros. */
function significant(value: number): string {
  return Number(value.toPrecision(3)).toString();
}

const grouped = new Intl.NumberFormat('en-GB', { maximumFractionDigits: 0 });

/** `0.034`, `3.2`, `48`, `1,204,551`: enough digits to compare by eye, and no more. */
export function plain(value: number): string {
  const size = Math.abs(value);
  if (!Number.isFinite(value)) return '—';
  if (size >= 1000 || Number.isInteger(value)) return grouped.format(value).replace('-', '−');
  if (size >= 100) return value.toFixed(0).replace('-', '−');
  return significant(value).replace('-', '−');
}

/** A large count in few characters: `1.2 k`, `3.4 M`. */
export function compact(value: number): string {
  const size = Math.abs(value);
  if (size < 10_000) return plain(value);
  if (size < 1e6) return `${significant(value / 1e3)} k`;
  if (size < 1e9) return `${significant(value / 1e6)} M`;
  return `${significant(value / 1e9)} G`;
}

export function percent(share: number): string {
  const value = share * 100;
  if (value !== 0 && Math.abs(value) < 1) return `${Number(value.toPrecision(1))} %`;
  return `${Math.abs(value) < 10 ? Number(value.toFixed(1)) : Math.round(value)} %`;
}

/** A value of a metric with this unit; `—` when nothing was sampled. */
export function quantity(value: number | null | undefined, unit: string): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return '—';
  switch (unit) {
    case '1':
      return percent(value);
    case 'By':
      return bytes(value);
    case 'By/s':
      return `${bytes(value)}/s`;
    case 's':
      return duration(value * 1000);
    case 'ms':
      return duration(value);
    case '{USD}/h':
      return `$${value.toFixed(value < 10 ? 3 : 2)}/h`;
    case '':
      return plain(value);
    default:
      return `${plain(value)} ${unitName(unit)}`;
  }
}

/** A value beside an axis: as short as can be, the unit is named above the chart. */
export function tick(value: number, unit: string): string {
  if (unit === '1') return percent(value).replace(' ', '');
  if (unit.startsWith('By')) return bytes(value).replace(/ (.)?i?B$/, '$1');
  if (unit === '{USD}/h') return `$${Number(value.toFixed(2))}`;
  return compact(value).replace(' ', '');
}

/** `{step}/s` is an annotation to machines and "steps/s" to people. */
export function unitName(unit: string): string {
  return unit
    .replace(/\{(\w+)\}/g, (_, word: string) => (word === 'cpu' ? 'CPUs' : word === 'batch' ? 'batches' : `${word}s`))
    .replace(/^1$/, '');
}

/** `1 node`, `2 nodes`. */
export function count(n: number, noun: string, plural = `${noun}s`): string {
  return `${grouped.format(n)} ${n === 1 ? noun : plural}`;
}

/** A principal's id is long and drawn at random; its beginning tells two apart. */
export function shortId(id: string): string {
  return id.length > 24 ? `${id.slice(0, 18)}…` : id;
}

/** The first twelve digits of a digest: enough to tell two apart. */
export function short(digest: string): string {
  return digest.slice(0, 12);
}
