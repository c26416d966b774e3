//! What people do to slots, and what the host does by itself when a budget is used up. All of it is told in the audit.

use super::{Error, Exhausted, Generation, ITSELF, Live, Slots, Wanted, metric, registry::Quarantined};
use crate::{
    clock,
    store::audit::{Act, ActOutcome},
};
use aether_core::{
    decision::{Envelope, Limits},
    id::{DecisionId, Digest, EntryId, PrincipalId, SlotId},
    incident::Rank,
    slot::{Baseline, Change, Entry, Grant, Proof, Quarantine, Refused, SelfTest, Stage},
};
use aether_runtime::{Assets, Prepared, bundle, fixture::FixtureResult};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use utoipa::ToSchema;

/// Who does something to a slot.
#[derive(Clone, Debug)]
pub struct By {
    pub principal: PrincipalId,
    pub name: String,
    pub rank: Rank,
}

/// What a person does to a slot.
#[derive(Clone, Debug)]
pub enum Deed {
    Add(NewEntry),
    /// `generation`: the one that the step was decided on.
    Promote {
        generation: u64,
        entry: EntryId,
        to: Stage,
        comment: Option<String>,
        backtest: Option<String>,
        /// Why the step is taken without the evidence that it asks for.
        overridden: Option<String>,
    },
    Retire {
        generation: u64,
        entry: EntryId,
        comment: Option<String>,
    },
    /// An entry that fails is taken out whatever else was changed meanwhile.
    RollBack {
        entry: EntryId,
        reason: String,
    },
}

/// A component with its config, limits and assets, on its way into a slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEntry {
    /// The slot's generation that this was decided on.
    pub generation: u64,
    /// Digest of a component in the registry.
    pub component: Digest,
    #[serde(default)]
    #[schema(value_type = Object)]
    pub config: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    pub limits: Limits,
    /// Digest of a set of assets in the registry.
    #[serde(default)]
    pub assets: Option<Digest>,
    /// What it may import. None: what the entry that it replaces was granted, or else `log` alone.
    #[serde(default)]
    pub grants: Option<BTreeSet<Grant>>,
    /// The active entry in whose place it is to stand; none: it is to stand beside the others.
    #[serde(default)]
    pub replaces: Option<EntryId>,
}

/// What came of a new entry.
pub struct Added {
    pub entry: EntryId,
    /// What the bundle's fixtures for a component of its name came to.
    pub self_test: Vec<FixtureResult>,
}

impl Deed {
    /// As the audit calls it.
    fn action(&self) -> &'static str {
        match self {
            Deed::Add(_) => "slot.add",
            Deed::Promote { .. } => "slot.promote",
            Deed::Retire { .. } => "slot.retire",
            Deed::RollBack { .. } => "slot.roll-back",
        }
    }

    fn target(&self, slot: &SlotId) -> String {
        match self {
            Deed::Add(_) => format!("slot/{slot}"),
            Deed::Promote { entry, .. } | Deed::Retire { entry, .. } | Deed::RollBack { entry, .. } => {
                format!("slot/{slot}/{entry}")
            }
        }
    }

    fn detail(&self) -> BTreeMap<String, String> {
        let mut detail = BTreeMap::new();
        let mut put = |name: &str, value: Option<String>| value.map(|value| detail.insert(name.to_owned(), value));
        match self {
            Deed::Add(new) => {
                put("component", Some(new.component.0.clone()));
                put("assets", new.assets.as_ref().map(|assets| assets.0.clone()));
                put("replaces", new.replaces.as_ref().map(|entry| entry.0.clone()));
                put("grants", new.grants.as_ref().map(named));
            }
            Deed::Promote { generation: _, entry: _, to, comment, backtest, overridden } => {
                put("to", Some(staged(*to)));
                put("comment", comment.clone());
                put("backtest", backtest.clone());
                put("overridden", overridden.clone());
            }
            Deed::Retire { generation: _, entry: _, comment } => {
                put("comment", comment.clone());
            }
            Deed::RollBack { entry: _, reason } => {
                put("reason", Some(reason.clone()));
            }
        }
        detail
    }
}

fn named(grants: &BTreeSet<Grant>) -> String {
    grants.iter().map(|grant| grant.name()).collect::<Vec<_>>().join(" ")
}

/// `canary 10 %`, `active`.
fn staged(stage: Stage) -> String {
    match stage {
        Stage::Canary { percent } => format!("canary {percent} %"),
        Stage::Candidate | Stage::Shadow | Stage::Active | Stage::Retired => stage.name().into(),
    }
}

impl Slots {
    /// Does it, or says why not; both are told in the audit. Once begun it is brought to its end, even where nobody
    /// waits for it any more.
    pub async fn act(&self, slot: &SlotId, deed: Deed, by: By) -> Result<Option<Added>, Error> {
        let (slots, slot) = (self.clone(), slot.clone());
        let done = self.0.tasks.spawn(async move {
            let (action, target, mut detail) = (deed.action(), deed.target(&slot), deed.detail());
            let done = slots.perform(&slot, deed, &by.principal).await;
            detail.insert("name".into(), by.name);
            let outcome = match &done {
                Ok((generation, added)) => {
                    detail.insert("generation".into(), generation.number().to_string());
                    if let Some(Added { entry, self_test }) = added {
                        detail.insert("entry".into(), entry.0.clone());
                        let failed = self_test.iter().filter(|fixture| !fixture.problems.is_empty()).count();
                        detail.insert("self-test".into(), format!("{failed} of {} failed", self_test.len()));
                    }
                    ActOutcome::Done
                }
                Err(error) => {
                    detail.insert("reason".into(), bundle::chain(error));
                    ActOutcome::Refused
                }
            };
            let (principal, rank) = (by.principal, Some(by.rank));
            let act = Act { principal, rank, action: action.into(), target, outcome, detail };
            slots.0.store.audit(clock::now(), act).await?;
            done.map(|(_, added)| added)
        });
        done.await.map_err(|_| Error::Died)?
    }

    async fn perform(
        &self,
        slot: &SlotId,
        deed: Deed,
        by: &PrincipalId,
    ) -> Result<(Arc<Generation>, Option<Added>), Error> {
        match deed {
            Deed::Add(new) => {
                let (generation, added) = self.add(slot, new, by).await?;
                Ok((generation, Some(added)))
            }
            Deed::Promote { generation, entry, to, comment, backtest, overridden } => {
                let by = by.clone();
                let want = |current: &Generation| {
                    let why = [comment.as_deref(), overridden.as_deref()].into_iter().flatten().collect::<Vec<_>>();
                    let why = if why.is_empty() { format!("promoted to {}", staged(to)) } else { why.join("; ") };
                    let proof = proof(current, &entry, to, &by, backtest, overridden)?;
                    Ok(Wanted { change: Change::Promote { entry, to, proof: Box::new(proof) }, by, why })
                };
                Ok((self.change(slot, Some(generation), None, want).await?, None))
            }
            Deed::Retire { generation, entry, comment } => {
                let by = by.clone();
                let why = comment.unwrap_or_else(|| "retired".into());
                let want = |_: &Generation| Ok(Wanted { change: Change::Retire { entry }, by, why });
                Ok((self.change(slot, Some(generation), None, want).await?, None))
            }
            Deed::RollBack { entry, reason } => {
                let current = self.current(slot).ok_or_else(|| Error::NoSlot(slot.clone()))?;
                let culprit = current.live(&entry).and_then(|live| live.culprit());
                let quarantine = self.quarantine(reason, culprit).await;
                let by = by.clone();
                let change = Change::RollBack { entry: entry.clone(), quarantine: quarantine.clone() };
                let want = |_: &Generation| Ok(Wanted { change, by, why: quarantine.reason.clone() });
                let generation = self.change(slot, None, None, want).await?;
                self.isolate(&generation, &entry, &quarantine).await;
                Ok((generation, None))
            }
        }
    }

    /// Loads, activates and tests a component, and puts it in as a candidate.
    async fn add(&self, slot: &SlotId, new: NewEntry, by: &PrincipalId) -> Result<(Arc<Generation>, Added), Error> {
        let NewEntry { generation, component: digest, config, limits, assets, grants, replaces } = new;
        let current = self.current(slot).ok_or_else(|| Error::NoSlot(slot.clone()))?;
        let role = current.slot().role;
        let record = self.0.registry.record(&digest).await?;
        if let Some(quarantined) = record.quarantine {
            return Err(Error::Quarantined { component: digest, reason: quarantined.reason });
        }
        if record.role != role {
            return Err(Error::Role { found: record.role, wanted: role });
        }
        let grants = grants.unwrap_or_else(|| {
            let replaced = replaces.as_ref().and_then(|entry| current.slot().entry(entry));
            replaced.map_or_else(|| BTreeSet::from([Grant::Log]), |entry| entry.grants.clone())
        });
        if let Some(grant) = grants.difference(&Grant::of(role)).next() {
            return Err(Error::Ungrantable { role, grant: *grant });
        }
        if assets.is_some() && !grants.contains(&Grant::Assets) {
            return Err(Error::UngrantedAssets);
        }
        let component = self.0.registry.load(&digest).await?;
        component.check_grants(&grants)?;
        let files = match &assets {
            Some(digest) => self.0.registry.assets(digest).await?,
            None => Assets::default(),
        };
        let (folder, id) = (self.0.folder.clone(), slot.clone());
        let (given, limited) = (config.clone(), limits.clone());
        let tested = tokio::task::spawn_blocking(move || -> Result<(Prepared, Vec<FixtureResult>), Error> {
            let prepared = component.activate(&given, &limited, &files)?;
            let results = bundle::self_test(&folder, &id, &prepared)?;
            Ok((prepared, results))
        });
        let (prepared, self_test) = tested.await.map_err(|_| Error::Died)??;
        let failed = self_test.iter().filter(|fixture| !fixture.problems.is_empty()).count();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let proof = Proof {
            to: Stage::Candidate,
            at: clock::now(),
            by: by.clone(),
            self_test: Some(SelfTest { passed: count(self_test.len() - failed), failed: count(failed) }),
            backtest: None,
            figures: None,
            baseline: None,
            overridden: None,
        };
        let description = prepared.description().clone();
        let why = format!("{} {} added", description.name, description.version);
        let by = by.clone();
        let want = |current: &Generation| {
            let entry = Entry {
                id: EntryId(format!("{}-{}", description.name, current.number() + 1)),
                component: digest,
                name: description.name,
                version: description.version,
                config,
                limits,
                assets,
                grants,
                stage: Stage::Candidate,
                since: clock::now(),
                replaces,
                proofs: vec![proof],
                quarantine: None,
            };
            Ok(Wanted { change: Change::Add { entry: Box::new(entry) }, by, why })
        };
        let next = self.change(slot, Some(generation), Some(prepared), want).await?;
        let entry = match &next.made.change {
            Change::Add { entry } => entry.id.clone(),
            _ => return Err(Error::Died),
        };
        Ok((next, Added { entry, self_test }))
    }

    /// An entry has used its budget up: it is taken out, or flagged where nothing good could take its place.
    pub async fn take_out(&self, live: &Live, exhausted: Exhausted) {
        let Exhausted { breach, reproducer } = exhausted;
        let (slot, entry) = (&live.slot, &live.entry);
        let quarantine = self.quarantine(breach.to_string(), Some(reproducer)).await;
        let wanted = |change| Wanted { change, by: PrincipalId::new(ITSELF), why: quarantine.reason.clone() };
        let roll_back = || Change::RollBack { entry: entry.id.clone(), quarantine: quarantine.clone() };
        let flag = || Change::Flag { entry: entry.id.clone(), quarantine: quarantine.clone() };
        // Somebody may have seen to it meanwhile, and what stands there now is not what failed.
        let unchanged = |current: &Generation| {
            let found = current.slot().entry(&entry.id).filter(|found| found.since == entry.since);
            match found {
                Some(found) if found.stage == entry.stage && found.quarantine.is_none() => Ok(()),
                Some(_) | None => Err(Error::Refused(Refused::NoEntry(entry.id.clone()))),
            }
        };
        let mut done = self
            .change(slot, None, None, |current| {
                unchanged(current)?;
                Ok(wanted(roll_back()))
            })
            .await;
        if let Err(Error::Refused(Refused::NoPredecessor(_)) | Error::NotReady { .. }) = done {
            done = self
                .change(slot, None, None, |current| {
                    unchanged(current)?;
                    Ok(wanted(flag()))
                })
                .await;
        }
        let generation = match done {
            Ok(generation) => generation,
            Err(Error::Refused(Refused::NoEntry(_))) => return,
            Err(error) => {
                tracing::error!(slot.id = %slot, slot.entry = %entry.id, error = &error as &dyn std::error::Error,
                    "an entry that fails could not be taken out; it is tried again after its next evaluation");
                live.untell();
                return;
            }
        };
        let change = generation.made.change.name();
        metrics::counter!(metric::TAKEN_OUT, "slot" => slot.0.clone(), "breach" => breach.name()).increment(1);
        tracing::error!(slot.id = %slot, slot.entry = %entry.id, slot.generation = generation.number(),
            plugin.digest = entry.component.short(), change, reason = quarantine.reason,
            reproducer = quarantine.reproducer.as_ref().map(|id| id.as_str()), "an entry has used its budget up");
        self.isolate(&generation, &entry.id, &quarantine).await;
        let mut detail = BTreeMap::from([
            ("component".to_owned(), entry.component.0.clone()),
            ("generation".to_owned(), generation.number().to_string()),
            ("breach".to_owned(), breach.name().to_owned()),
            ("reason".to_owned(), quarantine.reason.clone()),
        ]);
        if let Some(id) = &quarantine.reproducer {
            detail.insert("reproducer".into(), id.0.clone());
        }
        let action = if change == "flag" { "slot.flag" } else { "slot.roll-back" };
        self.tell(action, format!("slot/{slot}/{}", entry.id), detail).await;
    }

    /// Keeps the evaluation that shows the failing, so that it can be run again.
    async fn quarantine(&self, reason: String, culprit: Option<Envelope>) -> Quarantine {
        let mut reproducer: Option<DecisionId> = None;
        if let Some(envelope) = culprit {
            match self.0.store.keep_decisions(std::slice::from_ref(&envelope)).await {
                Ok(()) => reproducer = Some(envelope.id),
                Err(error) => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the evaluation that shows how an entry fails could not be kept"
                ),
            }
        }
        Quarantine { at: clock::now(), reason, reproducer }
    }

    /// No slot takes the component any more, unless one still needs it: then it was this entry's config.
    async fn isolate(&self, generation: &Generation, entry: &EntryId, quarantine: &Quarantine) {
        let Some(failed) = generation.slot().entry(entry) else { return };
        let needed = self.all().iter().any(|generation| {
            let mut open = generation.slot().entries.iter().filter(|other| other.is_open());
            open.any(|other| other.component == failed.component)
        });
        if needed {
            return;
        }
        let Quarantine { at, reason, reproducer } = quarantine.clone();
        let quarantined =
            Quarantined { slot: generation.slot().id.clone(), entry: entry.clone(), at, reason, reproducer };
        if let Err(error) = self.0.registry.quarantine(&failed.component, &quarantined).await {
            tracing::error!(slot.entry = %entry, error = &error as &dyn std::error::Error,
                "a component that failed could not be put into quarantine; its entry is out of its slot all the same");
        }
    }

    /// What the host does by itself is in the audit, too.
    pub(super) async fn tell(&self, action: &str, target: String, detail: BTreeMap<String, String>) {
        let act = Act::by_itself(action, target, detail);
        if let Err(error) = self.0.store.audit(clock::now(), act).await {
            tracing::error!(action, error = &error as &dyn std::error::Error, "a change of a slot is not in the audit");
        }
    }
}

/// What a step is taken on.
fn proof(
    current: &Generation,
    entry: &EntryId,
    to: Stage,
    by: &PrincipalId,
    backtest: Option<String>,
    overridden: Option<String>,
) -> Result<Proof, Error> {
    let found = current.slot().entry(entry).ok_or_else(|| Refused::NoEntry(entry.clone()))?;
    let live = current.live(entry);
    let asked = live.filter(|live| live.entry.stage != Stage::Candidate);
    let replaced = found.replaces.as_ref().and_then(|replaced| current.live(replaced));
    Ok(Proof {
        to,
        at: clock::now(),
        by: by.clone(),
        self_test: found.proofs.iter().find_map(|proof| proof.self_test),
        backtest,
        figures: asked.map(|live| live.figures()),
        baseline: replaced.map(|live| Baseline::from(&live.figures())),
        overridden,
    })
}
