/** One sentence that is written down, and the deed that it is for. */
import { Button, TextInput } from '@mantine/core';
import { useMutation, useQueryClient, type QueryKey } from '@tanstack/react-query';
import { useState } from 'react';
import { keys } from '../api/queries';
import { Failure } from './parts';
import css from './parts.module.css';

interface WordProps {
  label: string;
  button: string;
  send: (text: string) => Promise<unknown>;
  changes: QueryKey;
  lead: string;
}

export function Word({ label, button, send, changes, lead }: WordProps) {
  const client = useQueryClient();
  const [text, setText] = useState('');
  const said = useMutation({
    mutationFn: () => send(text.trim()),
    onSuccess: () => setText(''),
    onSettled: () => {
      void client.invalidateQueries({ queryKey: changes });
      void client.invalidateQueries({ queryKey: keys.status });
    },
  });
  return (
    <form
      className={css.word}
      onSubmit={(event) => {
        event.preventDefault();
        said.mutate();
      }}
    >
      <TextInput size="xs" label={label} value={text} maxLength={2000} required onChange={(event) => setText(event.currentTarget.value)} />
      <Button type="submit" size="xs" loading={said.isPending} disabled={text.trim() === ''}>
        {button}
      </Button>
      <div aria-live="polite">{said.error && <Failure error={said.error} lead={lead} />}</div>
    </form>
  );
}
