/** Times for people: the local zone to read, UTC on hover, ages in the largest unit that still says something. */

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false });
const day = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' });
const dayWithYear = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', year: 'numeric' });

/** `14:03:22`; with the day in front when it is not the day of `now`. */
export function localTime(at: number, now: number): string {
  const date = new Date(at);
  const today = new Date(now);
  const time = clock.format(date);
  if (date.toDateString() === today.toDateString()) return time;
  const named = date.getFullYear() === today.getFullYear() ? day : dayWithYear;
  return `${named.format(date)}, ${time}`;
}

/** `2026-11-21 02:13:43.123 UTC`: exact and sortable, for hovering and copying. */
export function utcTime(at: number): string {
  return new Date(at).toISOString().replace('T', ' ').replace('Z', ' UTC');
}

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** `850 ms`, `12 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`. Never more than two units. */
export function duration(ms: number): string {
  const t = Math.max(0, ms);
  if (t < SECOND) return `${Math.round(t)} ms`;
  if (t < 10 * SECOND) return `${trim((t / SECOND).toFixed(1))} s`;
  if (t < MINUTE) return `${Math.floor(t / SECOND)} s`;
  if (t < HOUR) return two(t, MINUTE, 'min', SECOND, 's');
  if (t < DAY) return two(t, HOUR, 'h', MINUTE, 'min');
  return two(t, DAY, 'd', HOUR, 'h');
}

function trim(number: string): string {
  return number.replace(/\.0$/, '');
}

function two(t: number, large: number, largeName: string, small: number, smallName: string): string {
  const whole = Math.floor(t / large);
  const rest = Math.floor((t % large) / small);
  return rest === 0 ? `${whole} ${largeName}` : `${whole} ${largeName} ${rest} ${smallName}`;
}

/** How old something is, in whole units so that it does not flicker: `just now`, `4 s ago`, `3 min ago`. */
export function age(at: number, now: number): string {
  const ms = now - at;
  if (ms < 1_500) return 'just now';
  if (ms < MINUTE) return `${Math.floor(ms / SECOND)} s ago`;
  if (ms < HOUR) return `${Math.floor(ms / MINUTE)} min ago`;
  if (ms < 2 * DAY) return `${Math.floor(ms / HOUR)} h ago`;
  return `${Math.floor(ms / DAY)} d ago`;
}

/** A countdown that keeps its width: `14:59`, `1:02:03`; `0:00` when it is over. */
export function countdown(until: number, now: number): string {
  const left = Math.max(0, Math.ceil((until - now) / SECOND));
  const hours = Math.floor(left / 3600);
  const minutes = Math.floor((left % 3600) / 60);
  const seconds = String(left % 60).padStart(2, '0');
  return hours > 0 ? `${hours}:${String(minutes).padStart(2, '0')}:${seconds}` : `${minutes}:${seconds}`;
}
