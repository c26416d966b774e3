/** What decides here: the active policy bundle, its slots with what stands in each, and every component there is. */
import { usePlugins, useSlots } from '../api/queries';
import type { SlotStatus } from '../api/model';
import { Empty, Failure, Hash, Page, Panel, Skeleton } from '../parts/parts';
import { RegistryPanel } from './RegistryPanel';
import { SlotPanel } from './SlotPanel';
import { UploadPanel } from './UploadPanel';
import css from './Plugins.module.css';

export function PluginsPage() {
  const slots = useSlots();
  const plugins = usePlugins();
  const bundle = slots.data?.bundle;
  return (
    <Page title="Plugins and slots">
      <div className={css.stack}>
        {slots.error && !slots.data && <Failure error={slots.error} lead="The slots could not be read" />}
        {!slots.data && !slots.error && <Skeleton height={480} />}
        {slots.data && !bundle && (
          <Panel>
            <Empty title="No policy bundle is active">Nothing is scored, and no plan can pass: an empty slot of gates denies.</Empty>
          </Panel>
        )}
        {bundle && (
          <Panel>
            <div className={css.bundle}>
              <div>
                <h2>
                  {bundle.name} <span className={css.dim}>{bundle.version}</span>
                </h2>
                <p className={css.dim}>{bundle.summary}</p>
              </div>
              <div className={css.bundleHash}>
                <span className={css.dim}>Bundle digest</span>
                <Hash value={bundle.digest} what="bundle digest" />
              </div>
            </div>
          </Panel>
        )}
        {inOrder(slots.data?.slots ?? []).map((slot) => (
          <SlotPanel
            key={slot.id}
            slot={slot}
            missing={(slots.data?.missing ?? []).filter((entry) => entry.slot === slot.id)}
            plugins={plugins.data ?? []}
          />
        ))}
        {slots.data && <UploadPanel slots={slots.data.slots} />}
        {plugins.error && !plugins.data && <Failure error={plugins.error} lead="The registry could not be read" />}
        {plugins.data && <RegistryPanel plugins={plugins.data} slots={slots.data?.slots ?? []} />}
      </div>
    </Page>
  );
}

/** In the order in which an incident meets them. */
function inOrder(slots: SlotStatus[]): SlotStatus[] {
  const order = ['risk-scorer', 'router', 'remediation-planner', 'policy-gate'];
  return [...slots].sort((a, b) => order.indexOf(a.role) - order.indexOf(b.role) || a.id.localeCompare(b.id));
}
