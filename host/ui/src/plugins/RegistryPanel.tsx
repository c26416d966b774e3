/** Every component that the host keeps: who brought it, who signed it, who needs it. */
import { Button } from '@mantine/core';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { api } from '../api/client';
import type { Plugin, SlotStatus } from '../api/model';
import { keys } from '../api/queries';
import { usePerson } from '../app/session';
import { COMPONENT_ROLES } from '../domain/words';
import { bytes } from '../format/units';
import { Ago, Chip, Empty, Failure, Hash, Hint, Panel } from '../parts/parts';
import parts from '../parts/parts.module.css';
import { AddEntry } from './AddEntry';
import css from './Plugins.module.css';

export function RegistryPanel({ plugins, slots }: { plugins: Plugin[]; slots: SlotStatus[] }) {
  return (
    <Panel title="Registry">
      {plugins.length === 0 ? (
        <Empty title="No component is registered" />
      ) : (
        <div className={parts.scroll}>
          <table className={`${parts.table} ${css.registry}`} data-testid="registry">
            <thead>
              <tr>
                <th>Component</th>
                <th>Role</th>
                <th>Digest</th>
                <th className={parts.right}>Size</th>
                <th>From</th>
                <th>Signed by</th>
                <th>Brought</th>
                <th>
                  <span className="sr">What can be done</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {plugins.map((plugin) => (
                <Row key={plugin.digest} plugin={plugin} slots={slots} />
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Panel>
  );
}

function Row({ plugin, slots }: { plugin: Plugin; slots: SlotStatus[] }) {
  const { suffices } = usePerson();
  const client = useQueryClient();
  const [adding, setAdding] = useState(false);
  const deed = useMutation({
    mutationFn: (what: 'remove' | 'lift') => (what === 'remove' ? api.removePlugin(plugin.digest) : api.liftQuarantine(plugin.digest)),
    onSettled: () => void client.invalidateQueries({ queryKey: keys.plugins }),
  });
  const { registered } = plugin;
  const author = suffices('policy-author');
  return (
    <>
      <tr data-testid={`plugin-${plugin.digest.slice(0, 12)}`}>
        <td>
          <Hint text={plugin.description.summary}>
            <span tabIndex={0}>
              <b className={css.name}>{plugin.description.name}</b> <span className={css.dim}>{plugin.description.version}</span>
            </span>
          </Hint>
        </td>
        <td>{COMPONENT_ROLES[plugin.role].word}</td>
        <td>
          <Hash value={plugin.digest} what="component digest" />
        </td>
        <td className={parts.right}>{bytes(plugin.size_bytes)}</td>
        <td>{origin(plugin)}</td>
        <td>
          {registered?.quarantine ? (
            <Hint text={registered.quarantine.reason}>
              <span tabIndex={0}>
                <Chip tone="critical">quarantined</Chip>
              </span>
            </Hint>
          ) : (
            (registered?.signature?.key_name ?? <span className={css.dim}>unsigned</span>)
          )}
        </td>
        <td>{registered ? <Ago time={registered.uploaded_at} /> : <span className={css.dim}>not taken</span>}</td>
        <td className={parts.right}>
          {author && registered && (
            <span className={css.rowButtons}>
              {registered.quarantine ? (
                <Button size="compact-xs" variant="subtle" loading={deed.isPending} onClick={() => deed.mutate('lift')}>
                  Lift quarantine
                </Button>
              ) : (
                <Button size="compact-xs" variant="subtle" aria-expanded={adding} onClick={() => setAdding(!adding)}>
                  Put into a slot
                </Button>
              )}
              {registered.needed_by.length === 0 && (
                <Button size="compact-xs" variant="subtle" color="red" loading={deed.isPending} onClick={() => deed.mutate('remove')}>
                  Remove
                </Button>
              )}
            </span>
          )}
        </td>
      </tr>
      {(adding || deed.error) && (
        <tr>
          <td colSpan={8} className={css.details}>
            {deed.error && <Failure error={deed.error} lead="Nothing was changed" />}
            {adding && (
              <AddEntry digest={plugin.digest} name={plugin.description.name} role={plugin.role} slots={slots} onDone={() => setAdding(false)} />
            )}
          </td>
        </tr>
      )}
    </>
  );
}

function origin({ registered }: Plugin): string {
  const from = registered?.provenance;
  switch (from?.kind) {
    case 'upload':
      return from.file ?? 'upload';
    case 'oci':
      return from.reference;
    case 'bundle':
      return `bundle ${from.bundle}`;
    default:
      return '';
  }
}
