//! Slots: which components are asked for what, as a policy bundle says, with the figures of each.
//!
//! A component that cannot be loaded leaves its slot to the others and is told; it never keeps the host from starting.

mod figures;

pub use figures::{Figures, FiguresView};

use aether_core::{
    combine::CombiningRule,
    decision::Role,
    id::{Digest, SlotId},
    observation::Input,
    policy::{self, Bundle},
};
use aether_runtime::{Engine, Prepared, bundle};
use std::{path::Path, sync::Arc};

/// A component that stands in a slot.
pub struct Entry {
    /// The component's file name without `.wasm`.
    pub component: String,
    pub prepared: Prepared,
    pub declared: policy::Entry,
    pub figures: Figures,
}

#[derive(Clone)]
pub struct Slot {
    pub id: SlotId,
    pub role: Role,
    pub rule: CombiningRule,
    pub entries: Vec<Arc<Entry>>,
}

/// An entry that could not be activated, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    pub slot: SlotId,
    pub component: String,
    pub code: String,
    pub reason: String,
}

/// All slots of the active bundle. Cheap to clone.
#[derive(Clone)]
pub struct Slots(Arc<Inner>);

struct Inner {
    bundle: Bundle,
    digest: Digest,
    slots: Vec<Slot>,
    missing: Vec<Missing>,
}

impl Slots {
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

    /// Of the bundle with the digests of its components: what plans name as the policy that made and passed them.
    pub fn digest(&self) -> &Digest {
        &self.0.digest
    }

    /// Entries that could not be activated.
    pub fn missing(&self) -> &[Missing] {
        &self.0.missing
    }

    /// What the component with this digest declared that it reads.
    pub fn inputs(&self, component: &Digest) -> &[Input] {
        self.0
            .slots
            .iter()
            .flat_map(|slot| &slot.entries)
            .find(|entry| entry.prepared.digest() == component)
            .map_or(&[], |entry| &entry.prepared.description().inputs)
    }
}
