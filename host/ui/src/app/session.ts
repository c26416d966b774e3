/** Who is signed in. */
import { createContext, useContext } from 'react';
import type { Session } from '../api/model';
import { suffices } from '../domain/words';
import { shortId } from '../format/units';

export const SessionContext = createContext<Session | null>(null);

export interface Person {
  session: Session;
  suffices: (role: string) => boolean;
  /** What to call a principal: by name whom the page knows, by the beginning of their id others. */
  nameOf: (principal: string) => string;
}

export function usePerson(): Person {
  const session = useContext(SessionContext);
  if (!session) throw new Error('nobody is signed in');
  return {
    session,
    suffices: (role) => suffices(session.rank, role),
    nameOf: (principal) => (principal === session.principal ? `${session.name} (you)` : shortId(principal)),
  };
}
