/** What a policy author does with an entry: one step on, out, or out because it fails. */
import { Button, TextInput } from '@mantine/core';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { Link } from 'react-router';
import { api } from '../api/client';
import { Problem } from '../api/http';
import type { SlotEntry, SlotStatus, Stage } from '../api/model';
import { keys } from '../api/queries';
import { usePerson } from '../app/session';
import { stageName, steps } from '../domain/slots';
import { Failure } from '../parts/parts';
import css from './Plugins.module.css';

/** The host's refusal of a step that lacks its evidence. */
const UNPROVED = 'AE0064';

type Deed = { is: 'promote'; to: Stage; overridden: boolean } | { is: 'retire' } | { is: 'roll-back' };

export function Steps({ slot, entry }: { slot: SlotStatus; entry: SlotEntry }) {
  const { suffices } = usePerson();
  const client = useQueryClient();
  const [reason, setReason] = useState('');
  const text = reason.trim();
  const act = useMutation({
    mutationFn: (deed: Deed) => {
      const { generation } = slot;
      switch (deed.is) {
        case 'promote':
          return api.promoteEntry(slot.id, entry.id, {
            generation,
            to: deed.to,
            ...(deed.overridden ? { overridden: text } : { comment: text || null }),
          });
        case 'retire':
          return api.retireEntry(slot.id, entry.id, { generation, comment: text || null });
        case 'roll-back':
          return api.rollBackEntry(slot.id, entry.id, { reason: text });
      }
    },
    onSuccess: () => setReason(''),
    onSettled: () => {
      void client.invalidateQueries({ queryKey: keys.slots });
      void client.invalidateQueries({ queryKey: keys.plugins });
    },
  });
  const stage = stageName(entry.stage);
  if (stage === 'retired' || !suffices('operator')) return null;
  const author = suffices('policy-author');
  const last = act.variables;
  const unproved = act.error instanceof Problem && act.error.code === UNPROVED && last?.is === 'promote' ? last : null;
  return (
    <div className={css.steps} data-testid={`steps-${entry.id}`}>
      <TextInput
        size="xs"
        label="Why (goes into the audit; a roll-back needs it)"
        value={reason}
        maxLength={1000}
        onChange={(event) => setReason(event.currentTarget.value)}
      />
      <div className={css.buttons}>
        {author &&
          steps(entry.stage).map((step, i) => (
            <Button
              key={step.word}
              size="xs"
              variant={i === 0 ? 'filled' : 'default'}
              loading={act.isPending && last?.is === 'promote' && last.to === step.to}
              disabled={act.isPending}
              onClick={() => act.mutate({ is: 'promote', to: step.to, overridden: false })}
            >
              {step.word}
            </Button>
          ))}
        {author && stage !== 'active' && (
          <Button size="xs" variant="subtle" disabled={act.isPending} onClick={() => act.mutate({ is: 'retire' })}>
            Retire
          </Button>
        )}
        <Button size="xs" variant="subtle" color="red" disabled={act.isPending || text === ''} onClick={() => act.mutate({ is: 'roll-back' })}>
          Roll back
        </Button>
        {author && (
          <Button size="xs" variant="subtle" component={Link} to={`/backtests?slot=${encodeURIComponent(slot.id)}&candidate=${encodeURIComponent(entry.id)}`}>
            Backtest
          </Button>
        )}
        {unproved && (
          <Button size="xs" variant="default" disabled={act.isPending || text === ''} onClick={() => act.mutate({ ...unproved, overridden: true })}>
            Take the step without it
          </Button>
        )}
      </div>
      <div aria-live="polite">
        {act.error && <Failure error={act.error} lead="The slot is as it was" />}
        {unproved && text === '' && <p className={css.dim}>To take the step all the same, say why above: it is recorded as an override.</p>}
      </div>
    </div>
  );
}
