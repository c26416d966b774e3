/** A component comes here by hand: dropped or chosen, checked by the host, and then put into a slot. */
import { Button, Progress } from '@mantine/core';
import { useQueryClient } from '@tanstack/react-query';
import { useId, useRef, useState, type DragEvent } from 'react';
import type { SlotStatus, UploadedPlugin } from '../api/model';
import { keys } from '../api/queries';
import { uploadComponent, type Upload } from '../api/upload';
import { usePerson } from '../app/session';
import { bytes, percent } from '../format/units';
import { Failure, Hash, Note, Panel } from '../parts/parts';
import { AddEntry } from './AddEntry';
import css from './Plugins.module.css';

type State =
  | { is: 'idle' }
  | { is: 'sending'; file: File; share: number }
  | { is: 'taken'; answer: UploadedPlugin }
  | { is: 'refused'; file: File; error: unknown };

export function UploadPanel({ slots }: { slots: SlotStatus[] }) {
  const { suffices } = usePerson();
  const client = useQueryClient();
  const [state, setState] = useState<State>({ is: 'idle' });
  const [over, setOver] = useState(false);
  const upload = useRef<Upload>(undefined);
  const input = useRef<HTMLInputElement>(null);
  const hint = useId();
  if (!suffices('policy-author')) return null;

  const send = async (files: FileList | null) => {
    const all = [...(files ?? [])];
    const file = all.find((one) => !one.name.endsWith('.sig'));
    if (!file || state.is === 'sending') return;
    const signature = all.find((one) => one.name.endsWith('.sig'));
    setState({ is: 'sending', file, share: 0 });
    try {
      const document = signature ? await signature.text() : null;
      upload.current = uploadComponent(file, document, (share) =>
        setState((now) => (now.is === 'sending' ? { ...now, share } : now)),
      );
      setState({ is: 'taken', answer: await upload.current.done });
      void client.invalidateQueries({ queryKey: keys.plugins });
    } catch (error) {
      setState({ is: 'refused', file, error });
    }
  };
  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    void send(event.dataTransfer.files);
  };

  return (
    <Panel title="Bring a component">
      <div className={css.bring}>
        <div
          className={css.drop}
          data-over={over || undefined}
          data-testid="drop"
          onDragOver={(event) => {
            event.preventDefault();
            setOver(true);
          }}
          onDragLeave={() => setOver(false)}
          onDrop={drop}
        >
          <p>
            Drop a <code>.wasm</code> component here, with its <code>.sig</code> if it is signed
          </p>
          <p className={css.dim} id={hint}>
            It is checked and compiled apart from everything that runs, and asked nothing until it stands in a slot.
          </p>
          <input
            ref={input}
            type="file"
            accept=".wasm,.sig"
            multiple
            hidden
            data-testid="file"
            onChange={(event) => {
              void send(event.currentTarget.files);
              event.currentTarget.value = '';
            }}
          />
          <Button variant="default" size="xs" onClick={() => input.current?.click()} disabled={state.is === 'sending'} aria-describedby={hint}>
            Choose a file
          </Button>
        </div>
        <div aria-live="polite">
          {state.is === 'sending' && (
            <div className={css.sending}>
              <span>
                {state.file.name}, {bytes(state.file.size)}: {state.share < 1 ? `${percent(state.share)} sent` : 'being checked and compiled'}
              </span>
              <Progress value={state.share * 100} aria-label={`Upload of ${state.file.name}`} animated={state.share === 1} />
              <Button variant="subtle" size="xs" onClick={() => upload.current?.abort()}>
                Stop
              </Button>
            </div>
          )}
          {state.is === 'refused' && <Failure error={state.error} lead={`${state.file.name} was not taken`} />}
          {state.is === 'taken' && <Taken answer={state.answer} slots={slots} onDone={() => setState({ is: 'idle' })} />}
        </div>
      </div>
    </Panel>
  );
}

function Taken({ answer, slots, onDone }: { answer: UploadedPlugin; slots: SlotStatus[]; onDone: () => void }) {
  const { component, is_new: isNew, same_version: sameVersion } = answer;
  return (
    <div className={css.taken} data-testid="taken">
      <Note tone="ok" title={`${component.name} ${component.version} ${isNew ? 'is in the registry.' : 'was in the registry already.'}`}>
        {component.signature ? `Signed by ${component.signature.key_name}.` : 'Unsigned.'}{' '}
        {sameVersion.length > 0 && 'Another component calls itself by the same name and version; the digest tells them apart.'}
      </Note>
      <Hash value={component.digest} what="component digest" />
      <AddEntry digest={component.digest} name={component.name} role={component.role} slots={slots} onDone={onDone} />
    </div>
  );
}
