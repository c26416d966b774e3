/** One ticking clock for the whole page, set by the host's: ages and countdowns are the host's, however wrong this machine's clock is. */
import { useSyncExternalStore } from 'react';

let offset = 0;
let current = Date.now();
const listeners = new Set<() => void>();
let timer: ReturnType<typeof setInterval> | undefined;

export function hostTold(hostNow: number): void {
  const measured = hostNow - Date.now();
  // Half a second is the round trip and rounding, not skew; small jumps would only make ages flicker.
  if (Math.abs(measured - offset) > 500) offset = measured;
}

export function hostNow(): number {
  return Date.now() + offset;
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  timer ??= setInterval(() => {
    current = hostNow();
    for (const each of listeners) each();
  }, 500);
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0) {
      clearInterval(timer);
      timer = undefined;
    }
  };
}

/** The host's time, twice a second. */
export function useNow(): number {
  return useSyncExternalStore(subscribe, () => current);
}
