/** Puts a component of the registry into a slot, as a candidate. */
import { Button, NativeSelect, Textarea } from '@mantine/core';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { api } from '../api/client';
import type { ComponentRole, SlotStatus } from '../api/model';
import { keys } from '../api/queries';
import { stageName } from '../domain/slots';
import { Failure, Note } from '../parts/parts';
import css from './Plugins.module.css';

interface Props {
  digest: string;
  name: string;
  role: ComponentRole;
  slots: SlotStatus[];
  onDone: () => void;
}

export function AddEntry({ digest, name, role, slots, onDone }: Props) {
  const client = useQueryClient();
  const fitting = slots.filter((slot) => slot.role === role);
  const [slotId, setSlotId] = useState(fitting[0]?.id ?? '');
  const slot = fitting.find((one) => one.id === slotId) ?? fitting[0];
  const active = slot?.entries.filter((entry) => stageName(entry.stage) === 'active') ?? [];
  // The usual case: the next version of what stands there.
  const [replaces, setReplaces] = useState<string | null>(null);
  const replaced = replaces ?? active.find((entry) => entry.name === name)?.id ?? '';
  const [config, setConfig] = useState('{}');
  const parsed = object(config);
  const add = useMutation({
    mutationFn: () => {
      if (!slot || !parsed) throw new Error('the slot or the config is missing');
      return api.addEntry(slot.id, { generation: slot.generation, component: digest, config: parsed, replaces: replaced || null });
    },
    onSettled: () => void client.invalidateQueries({ queryKey: keys.slots }),
  });
  if (!slot) return <Note tone="elevated" title="No slot takes this role.">The policy bundle declares none for it.</Note>;
  if (add.data) {
    const failed = add.data.self_test.filter((fixture) => fixture.problems.length > 0);
    return (
      <div className={css.taken}>
        <Note tone={failed.length > 0 ? 'high' : 'ok'} title={`${add.data.entry} is a candidate in ${slot.id}.`}>
          {add.data.self_test.length === 0
            ? 'The bundle has no fixture for it.'
            : `${add.data.self_test.length - failed.length} of ${add.data.self_test.length} fixtures passed.`}
        </Note>
        {failed.map((fixture) => (
          <p key={fixture.name} className={css.problem}>
            <b>{fixture.name}</b>: {fixture.problems.join('; ')}
          </p>
        ))}
        <Button variant="default" size="xs" onClick={onDone}>
          Done
        </Button>
      </div>
    );
  }
  return (
    <form
      className={css.add}
      onSubmit={(event) => {
        event.preventDefault();
        add.mutate();
      }}
    >
      <NativeSelect label="Slot" size="xs" value={slot.id} onChange={(event) => setSlotId(event.currentTarget.value)} data={fitting.map((one) => one.id)} />
      <NativeSelect
        label="In the place of"
        size="xs"
        value={replaced}
        onChange={(event) => setReplaces(event.currentTarget.value)}
        data={[{ value: '', label: 'nobody: beside the others' }, ...active.map((entry) => ({ value: entry.id, label: `${entry.name} ${entry.version} (${entry.id})` }))]}
      />
      <Textarea
        label="Config (JSON)"
        size="xs"
        rows={3}
        value={config}
        onChange={(event) => setConfig(event.currentTarget.value)}
        error={parsed ? undefined : 'This is not a JSON object'}
        classNames={{ input: css.code }}
      />
      <div className={css.buttons}>
        <Button type="submit" size="xs" loading={add.isPending} disabled={!parsed}>
          Add as candidate
        </Button>
        <Button variant="subtle" size="xs" onClick={onDone}>
          Not now
        </Button>
      </div>
      <div aria-live="polite">{add.error && <Failure error={add.error} lead="Not added" />}</div>
    </form>
  );
}

function object(text: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text.trim() || '{}');
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}
