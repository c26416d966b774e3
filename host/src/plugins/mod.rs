//! Slots as they live: which components are asked for what, generation after generation, with the figures of each.
//!
//! ```text
//! bundle, SQL -> seed -> Generation 1 -> change -> Generation 2 -> ...
//!                              each: checked by the core, prepared, committed, and only then pointed at
//! ```
//! What can be done to a slot is the core's ([`aether_core::slot`]); loading and activating is the runtime's. Whoever
//! asks holds the generation that they began with, so a swap loses no evaluation and mixes none. A component that
//! cannot be loaded never keeps the host from starting: it is told, its predecessor stands in for it, and where it was
//! a gate without one its silence denies.

pub mod backtest;
mod deed;
mod error;
mod live;
pub mod metric;
pub mod registry;
pub mod replay;
pub mod runbooks;
mod seed;

pub use deed::{Added, By, Deed, NewEntry};
pub use error::Error;
pub use live::{Asked, Exhausted, Generation, Live, Standing};
pub use seed::Opening;

use crate::{
    clock,
    store::{Store, slots::Made},
};
use aether_core::{
    audit::ITSELF,
    decision::Role,
    id::{Digest, EntryId, PrincipalId, SlotId},
    plan::canonical,
    policy::Bundle,
    slot::{Change, Entry, Slot, Stage},
};
use aether_runtime::{
    Prepared,
    bundle::{Failure, Refusal, chain},
};
use registry::Registry;
use runbooks::Runbooks;
use serde::Serialize;
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};
use tokio_util::task::TaskTracker;

/// All slots of the active bundle. Cheap to clone.
#[derive(Clone)]
pub struct Slots(Arc<Inner>);

struct Inner {
    store: Store,
    registry: Registry,
    tasks: TaskTracker,
    bundle: Bundle,
    bundle_digest: Digest,
    runbooks: Runbooks,
    /// Of the bundle; its fixtures are what candidates are tested on.
    folder: PathBuf,
    places: BTreeMap<SlotId, Place>,
}

/// Where one slot stands.
struct Place {
    current: RwLock<Arc<Generation>>,
    /// Held by whoever makes the next generation.
    changing: tokio::sync::Mutex<()>,
    /// What the bundle names for this slot and could not be activated when the host started.
    missing: Vec<Failure>,
}

impl Place {
    fn current(&self) -> Arc<Generation> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is to become of a slot, and by whom and why.
struct Wanted {
    change: Change,
    by: PrincipalId,
    why: String,
}

impl Slots {
    /// Every slot of `role`, in order of id, as it stands now.
    pub fn of(&self, role: Role) -> Vec<Arc<Generation>> {
        self.all().into_iter().filter(|generation| generation.slot().role == role).collect()
    }

    /// Every slot, in order of id, as it stands now.
    pub fn all(&self) -> Vec<Arc<Generation>> {
        self.0.places.values().map(Place::current).collect()
    }

    pub fn current(&self, slot: &SlotId) -> Option<Arc<Generation>> {
        self.0.places.get(slot).map(Place::current)
    }

    pub fn runbooks(&self) -> &Runbooks {
        &self.0.runbooks
    }

    pub fn bundle(&self) -> &Bundle {
        &self.0.bundle
    }

    /// Of the policy in force: the bundle and these generations of its slots. What plans name as the policy they were
    /// made under.
    pub fn digest_of(&self, generations: &[Arc<Generation>]) -> Digest {
        let slots: Vec<&Slot> = generations.iter().map(|generation| generation.slot()).collect();
        Digest::of(&canonical(&json!({ "bundle": self.0.bundle_digest, "slots": slots })))
    }

    /// Of the policy in force now.
    pub fn digest(&self) -> Digest {
        self.digest_of(&self.all())
    }

    /// What the bundle names and could not be activated when the host started, and what should answer and cannot be
    /// asked.
    pub fn failures(&self) -> Vec<Failure> {
        let places = self.0.places.values();
        places
            .flat_map(|place| place.missing.iter().chain(place.current().failures()).cloned().collect::<Vec<_>>())
            .collect()
    }

    /// Those of them in this slot in whose place nobody answers. Where they are gates, their silence denies.
    pub fn silent(&self, generation: &Generation) -> Vec<Failure> {
        let answers = |failure: &Failure| {
            let mut active = generation.slot().active();
            active.any(|entry| entry.name == failure.component && generation.live(&entry.id).is_some())
        };
        let missing = self.0.places.get(&generation.slot().id).map_or(&[][..], |place| &place.missing);
        let missing = missing.iter().filter(|failure| !answers(failure));
        missing.chain(generation.failures()).cloned().collect()
    }

    /// Makes the next generation: what `want` makes of the present one is checked, prepared, committed, and only then
    /// pointed at. `ready`: what was prepared already.
    async fn change(
        &self,
        slot: &SlotId,
        expected: Option<u64>,
        ready: Option<Prepared>,
        want: impl FnOnce(&Generation) -> Result<Wanted, Error>,
    ) -> Result<Arc<Generation>, Error> {
        let place = self.0.places.get(slot).ok_or_else(|| Error::NoSlot(slot.clone()))?;
        let _changing = place.changing.lock().await;
        let current = place.current();
        if let Some(given) = expected
            && given != current.number()
        {
            return Err(Error::Stale { given, found: current.number() });
        }
        let Wanted { change, by, why } = want(&current)?;
        let at = clock::now();
        let slot = current.slot().apply(change.clone(), at)?;
        let name = change.name();
        let next = self.prepare(Made { slot, change, at, by, why }, Some(&current), ready.into_iter().collect()).await;
        // Nobody begins to answer who cannot be asked.
        let answered = |failure: &&Failure| !current.failures().contains(failure);
        if let Some(Failure { slot: _, component, code, reason }) = next.failures().iter().find(answered) {
            return Err(Error::NotReady { component: component.clone(), code, reason: reason.clone() });
        }
        self.0.store.insert_generation(&next.made, None).await?;
        let next = Arc::new(next);
        *place.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&next);
        metrics::counter!(metric::CHANGES, "slot" => next.slot().id.0.clone(), "change" => name).increment(1);
        self.tell_numbers(&next);
        self.hold();
        Ok(next)
    }

    /// Everything of a generation that can be asked. What the one before had is taken over.
    async fn prepare(&self, made: Made, before: Option<&Generation>, given: Vec<Prepared>) -> Generation {
        let slot = &made.slot;
        let mut ready = BTreeMap::new();
        let mut failures = Vec::new();
        let predecessors: Vec<&EntryId> =
            slot.active().filter_map(|entry| slot.predecessor(&entry.id)).map(|entry| &entry.id).collect();
        for entry in &slot.entries {
            let stands_by = predecessors.contains(&&entry.id);
            if !entry.is_open() && !stands_by {
                continue;
            }
            if let Some(live) = before.and_then(|before| before.live(&entry.id)) {
                ready.insert(entry.id.clone(), Arc::new(live.next(entry.clone(), &slot.budget)));
                continue;
            }
            let fitting = given.iter().find(|prepared| stands_for(prepared, entry));
            let prepared = match fitting {
                Some(prepared) => Ok(prepared.clone()),
                None => load(&self.0.registry, entry).await,
            };
            match prepared {
                Ok(prepared) => {
                    let live = Live::new(&slot.id, entry.clone(), prepared, &slot.budget);
                    ready.insert(entry.id.clone(), Arc::new(live));
                }
                Err((code, reason)) if entry.stage == Stage::Active => {
                    let component = entry.name.clone();
                    failures.push(Failure { slot: slot.id.clone(), component, code, reason });
                }
                Err((code, reason)) => {
                    tracing::warn!(slot = %slot.id, entry = %entry.id, stage = entry.stage.name(), code, reason,
                        "a component cannot be asked");
                }
            }
        }
        Generation::new(made, ready, failures)
    }

    /// Whatever stands in a slot is kept by the registry.
    fn hold(&self) {
        for (id, place) in &self.0.places {
            let current = place.current();
            let entries = current.slot().entries.iter();
            let digests = entries.flat_map(|entry| [Some(entry.component.clone()), entry.assets.clone()]).flatten();
            self.0.registry.hold(&format!("the slot `{id}`"), digests);
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "a gauge's value; generations are few")]
    fn tell_numbers(&self, generation: &Generation) {
        let slot = generation.slot().id.0.clone();
        metrics::gauge!(metric::GENERATION, "slot" => slot).set(generation.number() as f64);
    }
}

/// Whether this is what an entry stands for.
fn stands_for(prepared: &Prepared, entry: &Entry) -> bool {
    prepared.digest() == &entry.component
        && *prepared.config_digest() == Digest::of(&canonical(&entry.config))
        && prepared.limits() == &entry.limits
        && prepared.assets_digest() == entry.assets.as_ref()
}

/// What an entry stands for, from the registry.
async fn load(registry: &Registry, entry: &Entry) -> Result<Prepared, Refusal> {
    let refused = |error: registry::Error| (error.code(), chain(&error));
    let component = registry.load(&entry.component).await.map_err(refused)?;
    let assets = match &entry.assets {
        Some(digest) => registry.assets(digest).await.map_err(refused)?,
        None => aether_runtime::Assets::default(),
    };
    let entry = entry.clone();
    let activated = tokio::task::spawn_blocking(move || {
        component.check_grants(&entry.grants)?;
        component.activate(&entry.config, &entry.limits, &assets)
    })
    .await;
    match activated {
        Ok(activated) => activated.map_err(|error| (error.code(), chain(&error))),
        Err(_) => Err(("activate.died", "the thread that activated it died".into())),
    }
}

/// As serde names it.
fn label<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}
