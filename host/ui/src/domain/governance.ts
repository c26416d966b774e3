/** Break-glass and breakers in words. */
import type { BreakGlass, Scope } from '../api/model';

/** As the command line and the API name it. */
export function scopeName(scope: Scope): string {
  return scope.kind === 'fleet' ? 'fleet' : `${scope.kind}/${scope.name}`;
}

export function isOpen(glass: BreakGlass, now: number): boolean {
  return (glass.ended_at ?? null) === null && now < glass.expires_at;
}
