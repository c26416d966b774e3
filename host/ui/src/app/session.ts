/** Who is signed in. */
import { createContext, useContext } from 'react';
import type { Session } from '../api/model';
import { suffices } from '../domain/words';

export const SessionContext = createContext<Session | null>(null);

export function usePerson(): { session: Session; suffices: (role: string) => boolean } {
  const session = useContext(SessionContext);
  if (!session) throw new Error('nobody is signed in');
  return { session, suffices: (role) => suffices(session.rank, role) };
}
