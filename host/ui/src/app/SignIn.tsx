/** Signing in with a token. The token goes to the host once and is answered by a cookie; the page keeps nothing. */
import { Button, PasswordInput } from '@mantine/core';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useState, type FormEvent } from 'react';
import { api } from '../api/client';
import { keys } from '../api/queries';
import { Failure } from '../parts/parts';
import css from './SignIn.module.css';

export function SignIn({ unreachable }: { unreachable: unknown }) {
  const client = useQueryClient();
  const [token, setToken] = useState('');
  const signIn = useMutation({
    mutationFn: api.signIn,
    onSuccess: (session) => client.setQueryData(keys.session, session),
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const given = token.trim();
    if (given && !signIn.isPending) signIn.mutate(given);
  };
  return (
    <main className={css.page}>
      <form className={css.card} onSubmit={submit}>
        <div className={css.brand}>
          <img src="/favicon.svg" width={36} height={36} alt="" />
          <div>
            <h1>Aether</h1>
            <p>Control plane for GPU infrastructure</p>
          </div>
        </div>
        <PasswordInput
          label="Token"
          description="Printed when the host started, or made by an admin."
          value={token}
          onChange={(event) => setToken(event.currentTarget.value)}
          autoComplete="current-password"
          spellCheck={false}
          data-autofocus
          autoFocus
          size="md"
          visibilityToggleButtonProps={{ 'aria-label': 'Show the token' }}
        />
        <Button type="submit" size="md" fullWidth loading={signIn.isPending} disabled={token.trim() === ''}>
          Sign in
        </Button>
        <div className={css.answer} aria-live="polite">
          {signIn.error ? (
            <Failure error={signIn.error} />
          ) : unreachable ? (
            <Failure error={unreachable} />
          ) : (
            <p className={css.help}>
              Lost the token? Whoever started the host finds it in the output of <code>make run</code>.
            </p>
          )}
        </div>
      </form>
    </main>
  );
}
