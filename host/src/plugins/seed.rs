//! How slots begin: what was in force when the host stopped goes on, unless the bundle says something else than it said
//! when the slot was last made from it. Then a new generation is made from the bundle.

use super::{
    Error, Failure, Generation, ITSELF, Inner, Place, Slots, load, metric,
    registry::{self, Provenance, Registry},
    runbooks::Runbooks,
};
use crate::{
    clock,
    store::{Store, slots::Made},
};
use aether_core::{
    combine::CombiningRule,
    decision::{Limits, Role},
    id::{Digest, EntryId, PrincipalId, SlotId},
    plan::canonical,
    policy::{self, Bundle},
    slot::{Budget, Change, Entry, Grant, Quarantine, Slot, Stage},
};
use aether_runtime::{
    Assets, Component, Prepared,
    bundle::{self, Refusal, chain},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
};
use tokio_util::task::TaskTracker;

/// What slots are opened with.
pub struct Opening {
    pub store: Store,
    pub registry: Registry,
    /// With `policy.toml` and fixtures.
    pub bundle: PathBuf,
    /// With the components that the bundle names.
    pub plugins: PathBuf,
    /// What was begun is brought to its end here.
    pub tasks: TaskTracker,
}

/// What a bundle declared of a slot, by content. Two that are equal make the same slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Declared {
    role: Role,
    rule: CombiningRule,
    budget: Budget,
    entries: Vec<DeclaredEntry>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct DeclaredEntry {
    component: String,
    /// None: it could not be activated.
    digest: Option<Digest>,
    config: serde_json::Map<String, serde_json::Value>,
    limits: Limits,
    assets: Option<Digest>,
}

impl Declared {
    /// Whether `now` says the same. What cannot be read now says nothing against what was said before.
    fn still_said(&self, now: &Declared) -> bool {
        let same = |before: &DeclaredEntry, now: &DeclaredEntry| {
            before == now
                || (now.digest.is_none()
                    && (&before.component, &before.config, &before.limits)
                        == (&now.component, &now.config, &now.limits))
        };
        (self.role, self.rule, &self.budget) == (now.role, now.rule, &now.budget)
            && self.entries.len() == now.entries.len()
            && self.entries.iter().zip(&now.entries).all(|(before, now)| same(before, now))
    }
}

/// A component that the bundle names, and what it may be given.
type Found = Result<(Prepared, Option<Digest>), Refusal>;

impl Slots {
    /// Opens every slot of the bundle. Compiles on blocking threads.
    pub async fn open(opening: Opening) -> Result<Self, Error> {
        let Opening { store, registry, bundle: folder, plugins, tasks } = opening;
        let read_from = folder.clone();
        let read = tokio::task::spawn_blocking(move || bundle::read(&read_from)).await.map_err(|_| Error::Died)??;
        let mut bundle = read;
        let mut components: BTreeMap<String, Result<Component, Refusal>> = BTreeMap::new();
        for entry in bundle.slots.values().flat_map(|slot| &slot.entries) {
            if !components.contains_key(&entry.component) {
                let found = component(&registry, &bundle.name, &plugins, &entry.component).await;
                components.insert(entry.component.clone(), found);
            }
        }
        let mut found: BTreeMap<SlotId, Vec<Found>> = BTreeMap::new();
        for (id, slot) in &mut bundle.slots {
            for entry in &mut slot.entries {
                let component = components
                    .get(&entry.component)
                    .cloned()
                    .unwrap_or_else(|| Err(("component.missing", "it was not looked for".into())));
                let result = match component {
                    Ok(component) => prepare(&registry, component, slot.role, entry, &folder).await,
                    Err(refusal) => Err(refusal),
                };
                if let Ok((prepared, _)) = &result {
                    entry.digest = Some(prepared.digest().clone());
                }
                found.entry(id.clone()).or_default().push(result);
            }
        }
        let trusted = registry.settings().trusted_keys.clone();
        let (declared, beside) = (bundle.clone(), folder.clone());
        let runbooks = tokio::task::spawn_blocking(move || Runbooks::read(&declared, &beside, &trusted)).await;
        let runbooks = runbooks.map_err(|_| Error::Died)?;
        for (name, runbook) in runbooks.known() {
            bundle.runbooks.insert(name.clone(), runbook.clone());
        }
        let bundle_digest = Digest::of(&canonical(&bundle));
        let mut slots = Self(Arc::new(Inner {
            store,
            registry,
            tasks,
            bundle: bundle.clone(),
            bundle_digest,
            runbooks,
            folder,
            places: BTreeMap::new(),
        }));
        let mut places = BTreeMap::new();
        for (id, declared) in &bundle.slots {
            let found = found.remove(id).unwrap_or_default();
            let place = slots.open_slot(id, declared, found, &bundle).await?;
            places.insert(id.clone(), place);
        }
        if let Some(inner) = Arc::get_mut(&mut slots.0) {
            inner.places = places;
        }
        slots.hold();
        Ok(slots)
    }

    async fn open_slot(
        &self,
        id: &SlotId,
        declared: &policy::Slot,
        found: Vec<Found>,
        bundle: &Bundle,
    ) -> Result<Place, Error> {
        let before = self.0.store.newest_generation(id).await?;
        let mut missing = Vec::new();
        let mut prepared = Vec::new();
        let mut entries = Vec::new();
        for (entry, found) in declared.entries.iter().zip(&found) {
            let found = found.as_ref().map_err(Clone::clone).and_then(|(ready, assets)| {
                let made = seeded(entry, ready, assets.clone(), next_number(before.as_ref()), &entries);
                let failed = before
                    .iter()
                    .flat_map(|made| &made.slot.entries)
                    .find(|old| old.is_same(&made) && old.stage == Stage::Retired && old.quarantine.is_some());
                match failed.and_then(|old| old.quarantine.as_ref()) {
                    Some(quarantine) => {
                        Err(("slot.quarantine", format!("it failed in this slot before: {}", quarantine.reason)))
                    }
                    None => Ok((ready.clone(), made)),
                }
            });
            match found {
                Ok((ready, made)) => {
                    prepared.push(ready);
                    entries.push(made);
                }
                Err((code, reason)) => {
                    tracing::error!(slot.id = %id, component = entry.component, code, reason, "a component could not be activated");
                    let detail = BTreeMap::from([
                        ("component".to_owned(), entry.component.clone()),
                        ("code".to_owned(), code.to_owned()),
                        ("reason".to_owned(), reason.clone()),
                    ]);
                    self.tell("slot.missing", format!("slot/{id}"), detail).await;
                    let component = entry.component.clone();
                    missing.push(Failure { slot: id.clone(), component, code, reason });
                    // What stood there and did not fail stands in for it.
                    let stands_in = before.iter().flat_map(|made| made.slot.active()).find(|old| {
                        old.name == entry.component
                            && old.quarantine.is_none()
                            && !entries.iter().any(|taken: &Entry| taken.is_same(old))
                    });
                    entries.extend(stands_in.cloned());
                }
            }
        }
        let said = Declared {
            role: declared.role,
            rule: declared.rule,
            budget: declared.budget.clone(),
            entries: declared
                .entries
                .iter()
                .zip(&found)
                .map(|(entry, found)| DeclaredEntry {
                    component: entry.component.clone(),
                    digest: found.as_ref().ok().map(|(prepared, _)| prepared.digest().clone()),
                    config: entry.config.clone(),
                    limits: entry.limits.clone(),
                    assets: found.as_ref().ok().and_then(|(_, assets)| assets.clone()),
                })
                .collect(),
        };
        let said_before = match self.0.store.newest_seed(id).await? {
            Some(text) => serde_json::from_str::<Declared>(&text).ok(),
            None => None,
        };
        let unchanged = said_before.is_some_and(|before| before.still_said(&said));
        let made = match before {
            Some(made) if unchanged => made,
            before => {
                let slot = before.map_or_else(
                    || Slot::new(id.clone(), declared.role, declared.rule, declared.budget.clone()),
                    |made| made.slot,
                );
                let (role, rule, budget) = (declared.role, declared.rule, declared.budget.clone());
                let change = Change::Seed { role, rule, budget, entries };
                let why = format!("the bundle {} {}", bundle.name, bundle.version);
                let seed = serde_json::to_string(&said).unwrap_or_default();
                self.begin(&slot, change, why, Some(&seed)).await?
            }
        };
        let generation = self.heal(made, prepared).await?;
        self.tell_numbers(&generation);
        Ok(Place { current: RwLock::new(Arc::new(generation)), changing: tokio::sync::Mutex::new(()), missing })
    }

    /// Whoever is to be asked and cannot be loaded is taken out, as long as that leaves somebody good in its place.
    async fn heal(&self, mut made: Made, prepared: Vec<Prepared>) -> Result<Generation, Error> {
        let mut ready: BTreeMap<EntryId, Prepared> = BTreeMap::new();
        let mut hopeless: Vec<EntryId> = Vec::new();
        loop {
            let mut broken: Option<(EntryId, Refusal)> = None;
            let open: Vec<Entry> = made.slot.entries.iter().filter(|entry| entry.is_open()).cloned().collect();
            for entry in open.iter().filter(|entry| !hopeless.contains(&entry.id)) {
                if ready.contains_key(&entry.id) {
                    continue;
                }
                let given = prepared.iter().find(|prepared| super::stands_for(prepared, entry));
                match given {
                    Some(prepared) => {
                        ready.insert(entry.id.clone(), prepared.clone());
                    }
                    None => match load(&self.0.registry, entry).await {
                        Ok(prepared) => {
                            ready.insert(entry.id.clone(), prepared);
                        }
                        Err(refusal) => {
                            broken = Some((entry.id.clone(), refusal));
                            break;
                        }
                    },
                }
            }
            let Some((entry, (code, reason))) = broken else { break };
            let reason = format!("it could not be loaded: {reason} ({code})");
            let quarantine = Quarantine { at: clock::now(), reason: reason.clone(), reproducer: None };
            let change = Change::RollBack { entry: entry.clone(), quarantine };
            match self.begin(&made.slot, change, reason.clone(), None).await {
                Ok(next) => made = next,
                Err(Error::Refused(_)) => {
                    tracing::error!(slot.id = %made.slot.id, slot.entry = %entry, reason, "an entry cannot be asked");
                    hopeless.push(entry);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.prepare(made, None, ready.into_values().collect()).await)
    }

    /// A generation that the host makes by itself while it starts.
    async fn begin(&self, slot: &Slot, change: Change, why: String, seed: Option<&str>) -> Result<Made, Error> {
        let at = clock::now();
        let slot = slot.apply(change.clone(), at)?;
        let made = Made { slot, change, at, by: PrincipalId::new(ITSELF), why };
        self.0.store.insert_generation(&made, seed).await?;
        let (id, number, change) = (made.slot.id.clone(), made.slot.generation, made.change.name());
        tracing::info!(slot.id = %id, slot.generation = number, change, why = made.why, "a new generation of a slot");
        metrics::counter!(metric::CHANGES, "slot" => id.0.clone(), "change" => change).increment(1);
        let detail =
            BTreeMap::from([("generation".to_owned(), number.to_string()), ("reason".to_owned(), made.why.clone())]);
        let (action, target) = match &made.change {
            Change::RollBack { entry, .. } => ("slot.roll-back", format!("slot/{id}/{entry}")),
            _ => ("slot.seed", format!("slot/{id}")),
        };
        self.tell(action, target, detail).await;
        Ok(made)
    }
}

fn next_number(before: Option<&Made>) -> u64 {
    before.map_or(0, |made| made.slot.generation) + 1
}

/// What a bundle's entry becomes, after `others` of the same slot.
fn seeded(
    declared: &policy::Entry,
    prepared: &Prepared,
    assets: Option<Digest>,
    number: u64,
    others: &[Entry],
) -> Entry {
    let description = prepared.description();
    // Two of one name in one bundle still have ids of their own.
    let twins = others.iter().filter(|other| other.name == description.name).count();
    let suffix = if twins == 0 { String::new() } else { format!(".{}", twins + 1) };
    let id = format!("{}-{number}{suffix}", description.name);
    Entry {
        id: EntryId(id),
        component: prepared.digest().clone(),
        name: description.name.clone(),
        version: description.version.clone(),
        config: declared.config.clone(),
        limits: declared.limits.clone(),
        // Whoever wrote the bundle has chosen the component with what it imports, and its assets.
        grants: prepared
            .component()
            .imports()
            .iter()
            .copied()
            .chain(assets.is_some().then_some(Grant::Assets))
            .collect(),
        assets,
        stage: Stage::Active,
        since: clock::now(),
        replaces: None,
        proofs: vec![],
        quarantine: None,
    }
}

/// A component of the bundle, by way of the registry: its decisions can be run again when its file is gone.
async fn component(registry: &Registry, bundle: &str, plugins: &Path, name: &str) -> Result<Component, Refusal> {
    let file = format!("{name}.wasm");
    let path = plugins.join(&file);
    let provenance = Provenance::Bundle { bundle: bundle.into(), file };
    let stored = match registry.put_file(&path, provenance, PrincipalId::new(ITSELF)).await {
        Ok(stored) => stored,
        Err(registry::Error::Folder(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            let reason =
                format!("{} cannot be read: {error}. `make guests` builds the first-party ones", path.display());
            return Err(("component.missing", reason));
        }
        Err(error) => return Err((error.code(), chain(&error))),
    };
    if let Some(quarantined) = stored.record.quarantine {
        return Err(("component.quarantine", format!("it is in quarantine: {}", quarantined.reason)));
    }
    registry.load(&stored.record.digest).await.map_err(|error| (error.code(), chain(&error)))
}

async fn prepare(registry: &Registry, component: Component, role: Role, entry: &policy::Entry, folder: &Path) -> Found {
    let (folder, declared) = (folder.to_owned(), entry.clone());
    let prepared = tokio::task::spawn_blocking(move || -> Result<(Prepared, Assets), Refusal> {
        let assets = bundle::assets(&folder, &declared)?;
        Ok((bundle::prepare(&component, role, &declared, &assets)?, assets))
    });
    let died = || ("activate.died", "the thread that activated it died".to_owned());
    let (prepared, assets) = prepared.await.map_err(|_| died())??;
    let Some(digest) = assets.digest().cloned() else { return Ok((prepared, None)) };
    let name = entry.assets.clone().unwrap_or_default();
    let files = assets.files().map(|(name, bytes)| (name.to_owned(), Arc::clone(bytes))).collect();
    registry.put_assets(&name, files, PrincipalId::new(ITSELF)).await.map_err(|error| (error.code(), chain(&error)))?;
    Ok((prepared, Some(digest)))
}
