//! Slots: which components are asked for what, as a policy bundle says, with the figures of each.
//!
//! Loading and activating is the runtime's; this is what lives on beside a running host. A component that could not be
//! activated never keeps the host from starting: it is told, and where it was a gate its silence denies.

mod figures;
pub mod registry;

pub use figures::{Figures, FiguresView};

use aether_core::{
    combine::CombiningRule,
    decision::Role,
    id::{Digest, SlotId},
    observation::Input,
    policy::{self, Bundle},
};
use aether_runtime::{
    Engine, Prepared,
    bundle::{self, ActiveEntry, ActiveSlot, Failure},
};
use std::{path::Path, sync::Arc};

/// A component that stands in a slot.
pub struct Entry {
    /// The component's file name without `.wasm`.
    pub component: String,
    /// As declared, with the digest that was found.
    pub declared: policy::Entry,
    pub prepared: Prepared,
    pub figures: Figures,
}

#[derive(Clone)]
pub struct Slot {
    pub id: SlotId,
    pub role: Role,
    pub rule: CombiningRule,
    pub entries: Vec<Arc<Entry>>,
}

/// All slots of the active bundle. Cheap to clone.
#[derive(Clone)]
pub struct Slots(Arc<Inner>);

struct Inner {
    bundle: Bundle,
    digest: Digest,
    slots: Vec<Slot>,
    failures: Vec<Failure>,
}

impl Slots {
    /// Activates the bundle in `folder` with the components in `plugins`. Compiles, so not for an async thread.
    pub fn load(engine: &Engine, folder: &Path, plugins: &Path) -> Result<Self, bundle::Error> {
        let activation = bundle::activate(engine, &bundle::read(folder)?, folder, plugins);
        for failure in &activation.failures {
            tracing::error!(slot = %failure.slot, component = failure.component, code = failure.code, reason = failure.reason,
                "a component could not be activated");
        }
        let slots = activation.slots.into_iter().map(Slot::from).collect();
        let (bundle, digest, failures) = (activation.bundle, activation.digest, activation.failures);
        Ok(Self(Arc::new(Inner { bundle, digest, slots, failures })))
    }

    /// Every slot of `role`, in the bundle's order.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &Slot> {
        self.0.slots.iter().filter(move |slot| slot.role == role)
    }

    pub fn all(&self) -> &[Slot] {
        &self.0.slots
    }

    pub fn bundle(&self) -> &Bundle {
        &self.0.bundle
    }

    /// Of the bundle with the digests of its components: what plans name as the policy they were made under.
    pub fn digest(&self) -> &Digest {
        &self.0.digest
    }

    /// Entries that could not be activated.
    pub fn failures(&self) -> &[Failure] {
        &self.0.failures
    }

    /// Those of them that stand in slots of `role`.
    pub fn failures_of(&self, role: Role) -> impl Iterator<Item = &Failure> {
        self.0.failures.iter().filter(move |failure| self.of(role).any(|slot| slot.id == failure.slot))
    }

    /// What the component with this digest declared that it reads.
    pub fn inputs(&self, component: &Digest) -> &[Input] {
        let mut entries = self.0.slots.iter().flat_map(|slot| &slot.entries);
        let found = entries.find(|entry| entry.prepared.digest() == component);
        found.map_or(&[], |entry| &entry.prepared.description().inputs)
    }
}

impl From<ActiveSlot> for Slot {
    fn from(slot: ActiveSlot) -> Self {
        let ActiveSlot { id, role, rule, entries } = slot;
        let entries = entries
            .into_iter()
            .map(|ActiveEntry { component, declared, prepared }| {
                Arc::new(Entry { component, declared, prepared, figures: Figures::default() })
            })
            .collect();
        Self { id, role, rule, entries }
    }
}
