/** The host's event stream: what changed is asked for again at once. The stream's state is what the header shows. */
import { useQueryClient } from '@tanstack/react-query';
import { createContext, useContext, useEffect, useState, type ReactNode } from 'react';
import { hostNow } from './clock';
import { keys } from './queries';

export interface Connection {
  state: 'connecting' | 'open' | 'lost';
  /** Since when. */
  since: number;
}

const ConnectionContext = createContext<Connection>({ state: 'connecting', since: 0 });

export function useConnection(): Connection {
  return useContext(ConnectionContext);
}

const RETRY_FIRST_MS = 500;
const RETRY_MAXIMUM_MS = 8_000;

/** Event names of the stream, and what to ask for again when one comes. */
const TOPICS: Record<string, readonly (readonly string[])[]> = {
  incidents: [keys.incidents, ['plans'], keys.status],
  nodes: [keys.nodes, keys.workloads, keys.status],
  risks: [keys.risks],
  slots: [keys.slots, keys.plugins],
};
/** The host says something at least every 15 s; a stream that is silent for longer than this is dead, whatever the browser thinks. */
const SILENT_MS = 40_000;

export function LiveProvider({ children }: { children: ReactNode }) {
  const client = useQueryClient();
  const [connection, setConnection] = useState<Connection>({ state: 'connecting', since: hostNow() });

  useEffect(() => {
    let source: EventSource | undefined;
    let retry: ReturnType<typeof setTimeout> | undefined;
    let watchdog: ReturnType<typeof setTimeout> | undefined;
    let wait = RETRY_FIRST_MS;
    let ended = false;
    const to = (state: Connection['state']) => {
      setConnection((before) => (before.state === state ? before : { state, since: hostNow() }));
    };
    const open = () => {
      source = new EventSource('/api/v1/events');
      source.onopen = () => {
        wait = RETRY_FIRST_MS;
        to('open');
        // Whatever happened while nobody listened.
        void client.invalidateQueries();
      };
      const lost = () => {
        // The browser's own retry gives up on some failures; ours does not.
        source?.close();
        clearTimeout(watchdog);
        if (ended) return;
        to('lost');
        // Who was signed out while the stream was down is told so by this.
        void client.invalidateQueries({ queryKey: keys.session });
        retry = setTimeout(open, wait);
        wait = Math.min(wait * 2, RETRY_MAXIMUM_MS);
      };
      source.onerror = lost;
      source.addEventListener('closed', lost);
      const heard = () => {
        clearTimeout(watchdog);
        watchdog = setTimeout(lost, SILENT_MS);
      };
      heard();
      source.addEventListener('hello', heard);
      source.addEventListener('heartbeat', heard);
      for (const [name, touched] of Object.entries(TOPICS)) {
        source.addEventListener(name, () => {
          heard();
          for (const queryKey of touched) void client.invalidateQueries({ queryKey });
        });
      }
    };
    open();
    return () => {
      ended = true;
      clearTimeout(retry);
      clearTimeout(watchdog);
      source?.close();
    };
  }, [client]);

  return <ConnectionContext value={connection}>{children}</ConnectionContext>;
}
