//! What can be done to a slot: each change makes the next generation, or is refused and leaves the slot as it was.

use super::{Budget, ENTRIES_MAXIMUM, Entry, Proof, Quarantine, RETIRED_MAXIMUM, SelfTest, Slot, Stage};
use crate::{combine::CombiningRule, decision::Role, id::EntryId, time::Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use thiserror::Error;
use utoipa::ToSchema;

/// What can be done to a slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "change")]
#[schema(as = SlotChange)]
pub enum Change {
    /// Makes it what a policy bundle says. Entries that stand there already, with the same code, config, limits and
    /// assets, go on; each new one is active at once, in place of the active one of its name; what the bundle does not
    /// name is retired.
    Seed { role: Role, rule: CombiningRule, budget: Budget, entries: Vec<Entry> },
    /// Puts a new entry in, as candidate.
    Add { entry: Box<Entry> },
    /// One step on; more than one step, or a step without its evidence, needs `overridden`.
    Promote { entry: EntryId, to: Stage, proof: Box<Proof> },
    /// Takes an entry out, for good reasons that are not its fault.
    Retire { entry: EntryId },
    /// Takes an entry out because it failed. Where it had replaced another, that one is active again.
    RollBack { entry: EntryId, quarantine: Quarantine },
    /// Says of an active entry that it fails and has no good predecessor. It stays where it is.
    Flag { entry: EntryId, quarantine: Quarantine },
}

impl Change {
    /// As the audit, metrics and lists call it.
    pub fn name(&self) -> &'static str {
        match self {
            Change::Seed { .. } => "seed",
            Change::Add { .. } => "add",
            Change::Promote { .. } => "promote",
            Change::Retire { .. } => "retire",
            Change::RollBack { .. } => "roll_back",
            Change::Flag { .. } => "flag",
        }
    }

    /// The entry that it is about; none: the whole slot.
    pub fn entry(&self) -> Option<&EntryId> {
        match self {
            Change::Seed { .. } => None,
            Change::Add { entry } => Some(&entry.id),
            Change::Promote { entry, .. }
            | Change::Retire { entry }
            | Change::RollBack { entry, .. }
            | Change::Flag { entry, .. } => Some(entry),
        }
    }
}

/// Why a change was not made. The slot is as it was.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    #[error("the slot has no entry `{0}`")]
    NoEntry(EntryId),
    #[error("the slot has an entry `{0}` already")]
    Known(EntryId),
    #[error("the slot holds {ENTRIES_MAXIMUM} entries; retire one first")]
    Full,
    #[error("`{0}` is retired; add it again as a candidate")]
    Retired(EntryId),
    #[error("`{entry}` is {from} and cannot become {to}")]
    Step { entry: EntryId, from: &'static str, to: &'static str },
    #[error("a canary's share is 1 to 99 percent, not {0}")]
    Share(u8),
    #[error("the step from {from} to {to} asks for {missing}; give a reason to take it without")]
    Unproved { from: &'static str, to: &'static str, missing: String },
    #[error("`{0}` is the only one that answers in this slot; put another in its place instead")]
    LastAnswering(EntryId),
    #[error("`{entry}` replaces `{replaced}`, which does not answer in this slot")]
    Replaces { entry: EntryId, replaced: EntryId },
    #[error("`{0}` replaced nothing good that could take its place again; it stays. Put another in its place instead")]
    NoPredecessor(EntryId),
    #[error("`{0}` is flagged already, or not active")]
    Flagged(EntryId),
}

impl Slot {
    /// The next generation.
    pub fn apply(&self, change: Change, at: Time) -> Result<Slot, Refused> {
        let mut next = self.clone();
        next.generation += 1;
        match change {
            Change::Seed { role, rule, budget, entries } => next.seed(role, rule, budget, entries, at)?,
            Change::Add { entry } => next.add(*entry, at)?,
            Change::Promote { entry, to, proof } => next.promote(&entry, to, *proof, at)?,
            Change::Retire { entry } => next.retire(&entry, at)?,
            Change::RollBack { entry, quarantine } => next.roll_back(&entry, quarantine, at)?,
            Change::Flag { entry, quarantine } => next.flag(&entry, quarantine)?,
        }
        next.settle();
        Ok(next)
    }

    /// The entry that takes the place of `id` when that one is rolled back: the nearest one before it that was not
    /// taken out for failing.
    pub fn predecessor(&self, id: &EntryId) -> Option<&Entry> {
        let mut found = self.entry(id)?;
        // As many steps as there are entries: what was stored might be a circle.
        for _ in 0..self.entries.len() {
            found = self.entry(found.replaces.as_ref()?)?;
            if found.quarantine.is_none() {
                return (found.stage == Stage::Retired).then_some(found);
            }
        }
        None
    }

    fn entry_mut(&mut self, id: &EntryId) -> Result<&mut Entry, Refused> {
        self.entries.iter_mut().find(|entry| entry.id == *id).ok_or_else(|| Refused::NoEntry(id.clone()))
    }

    fn open_mut(&mut self, id: &EntryId) -> Result<&mut Entry, Refused> {
        let found = self.entry_mut(id)?;
        if found.is_open() { Ok(found) } else { Err(Refused::Retired(id.clone())) }
    }

    fn seed(
        &mut self,
        role: Role,
        rule: CombiningRule,
        budget: Budget,
        seeds: Vec<Entry>,
        at: Time,
    ) -> Result<(), Refused> {
        if seeds.len() > ENTRIES_MAXIMUM {
            return Err(Refused::Full);
        }
        // Another role's components cannot answer this slot's questions any more.
        let same_role = self.role == role;
        (self.role, self.rule, self.budget) = (role, rule, budget);
        let (mut standing, rest): (Vec<Entry>, Vec<Entry>) =
            self.entries.drain(..).partition(|entry| same_role && entry.stage == Stage::Active);
        // First what stands there already, so that no new entry takes the place of one that is meant to stay.
        let kept: Vec<Option<Entry>> = seeds
            .iter()
            .map(|seed| {
                let found = standing.iter().position(|entry| entry.is_same(seed));
                found.map(|index| standing.remove(index))
            })
            .collect();
        let mut entries = Vec::new();
        let mut retired = Vec::new();
        for (seed, kept) in seeds.into_iter().zip(kept) {
            if let Some(kept) = kept {
                entries.push(kept);
                continue;
            }
            let replaced = standing.iter().position(|entry| entry.name == seed.name);
            let replaced = replaced.map(|index| standing.remove(index));
            let replaces = replaced.as_ref().map(|entry| entry.id.clone());
            retired.extend(replaced);
            entries.push(Entry { stage: Stage::Active, since: at, replaces, quarantine: None, ..seed });
        }
        retired.extend(standing);
        retired.extend(rest);
        for entry in retired.iter_mut().filter(|entry| entry.is_open()) {
            (entry.stage, entry.since) = (Stage::Retired, at);
        }
        entries.append(&mut retired);
        if let Some((_, twice)) =
            entries.iter().enumerate().find(|(index, entry)| entries.iter().take(*index).any(|e| e.id == entry.id))
        {
            return Err(Refused::Known(twice.id.clone()));
        }
        self.entries = entries;
        Ok(())
    }

    fn add(&mut self, mut entry: Entry, at: Time) -> Result<(), Refused> {
        if self.entry(&entry.id).is_some() {
            return Err(Refused::Known(entry.id));
        }
        if self.entries.iter().filter(|entry| entry.is_open()).count() >= ENTRIES_MAXIMUM {
            return Err(Refused::Full);
        }
        if let Some(replaced) = &entry.replaces
            && !self.active().any(|found| found.id == *replaced)
        {
            return Err(Refused::Replaces { entry: entry.id, replaced: replaced.clone() });
        }
        (entry.stage, entry.since, entry.quarantine) = (Stage::Candidate, at, None);
        self.entries.push(entry);
        Ok(())
    }

    fn promote(&mut self, id: &EntryId, to: Stage, proof: Proof, at: Time) -> Result<(), Refused> {
        let budget = self.budget.clone();
        let found = self.open_mut(id)?;
        let from = found.stage;
        if let Stage::Canary { percent } = to
            && !(1..=99).contains(&percent)
        {
            return Err(Refused::Share(percent));
        }
        let resized =
            matches!((from, to), (Stage::Canary { percent: was }, Stage::Canary { percent: is }) if is != was);
        if (to <= from && !resized) || matches!(to, Stage::Candidate | Stage::Retired) {
            return Err(Refused::Step { entry: id.clone(), from: from.name(), to: to.name() });
        }
        if proof.overridden.is_none()
            && let Some(missing) = missing(from, to, &proof, &budget)
        {
            return Err(Refused::Unproved { from: from.name(), to: to.name(), missing });
        }
        (found.stage, found.since) = (to, at);
        found.proofs.push(Proof { to, at, ..proof });
        if to == Stage::Active
            && let Some(replaced) = found.replaces.clone()
            && let Ok(before) = self.open_mut(&replaced)
        {
            (before.stage, before.since) = (Stage::Retired, at);
            // What was to stand in its place is to stand in its successor's.
            self.redirect(&replaced, Some(id));
        }
        Ok(())
    }

    fn retire(&mut self, id: &EntryId, at: Time) -> Result<(), Refused> {
        let active = self.active().count();
        let found = self.open_mut(id)?;
        if found.stage == Stage::Active && active == 1 {
            return Err(Refused::LastAnswering(id.clone()));
        }
        (found.stage, found.since) = (Stage::Retired, at);
        self.redirect(id, None);
        Ok(())
    }

    fn roll_back(&mut self, id: &EntryId, quarantine: Quarantine, at: Time) -> Result<(), Refused> {
        let before = self.predecessor(id).map(|entry| entry.id.clone());
        let found = self.open_mut(id)?;
        let was_active = found.stage == Stage::Active;
        if was_active && before.is_none() {
            return Err(Refused::NoPredecessor(id.clone()));
        }
        (found.stage, found.since, found.quarantine) = (Stage::Retired, at, Some(quarantine));
        if was_active && let Some(before) = before {
            let restored = self.entry_mut(&before)?;
            (restored.stage, restored.since) = (Stage::Active, at);
            self.redirect(id, Some(&before));
        }
        Ok(())
    }

    fn flag(&mut self, id: &EntryId, quarantine: Quarantine) -> Result<(), Refused> {
        let found = self.open_mut(id)?;
        if found.stage != Stage::Active || found.quarantine.is_some() {
            return Err(Refused::Flagged(id.clone()));
        }
        found.quarantine = Some(quarantine);
        Ok(())
    }

    /// What is on its way to the place of `from` is on its way to that of `to`.
    fn redirect(&mut self, from: &EntryId, to: Option<&EntryId>) {
        let waiting = |entry: &&mut Entry| entry.is_open() && entry.stage != Stage::Active;
        for entry in self.entries.iter_mut().filter(waiting) {
            if entry.replaces.as_ref() == Some(from) {
                entry.replaces = to.cloned();
            }
        }
    }

    /// Retired ones last, and of those only the newest, but for what an open entry would fall back to.
    fn settle(&mut self) {
        let (mut open, mut retired): (Vec<Entry>, Vec<Entry>) = self.entries.drain(..).partition(Entry::is_open);
        retired.sort_by_key(|entry| std::cmp::Reverse(entry.since));
        let kept: BTreeSet<EntryId> = open.iter().filter_map(|entry| entry.replaces.clone()).collect();
        let mut room = RETIRED_MAXIMUM;
        retired.retain(|entry| {
            let within = room > 0;
            room = room.saturating_sub(1);
            within || kept.contains(&entry.id)
        });
        open.append(&mut retired);
        self.entries = open;
    }
}

/// What the step lacks, for a person.
fn missing(from: Stage, to: Stage, proof: &Proof, budget: &Budget) -> Option<String> {
    match (from, to) {
        (Stage::Candidate, Stage::Shadow) => match proof.self_test {
            Some(SelfTest { passed: _, failed: 0 }) => None,
            Some(SelfTest { .. }) | None => Some("a self-test without failures".into()),
        },
        (Stage::Shadow, Stage::Canary { .. }) | (Stage::Canary { .. }, Stage::Canary { .. } | Stage::Active) => {
            let seen = proof.figures.as_ref().map_or(0, |figures| figures.evaluations);
            let least = budget.least_evaluations;
            (seen < u64::from(least))
                .then(|| format!("{least} evaluations at the stage it leaves, of which it has {seen}"))
        }
        (
            Stage::Candidate | Stage::Shadow | Stage::Canary { .. } | Stage::Active | Stage::Retired,
            Stage::Candidate | Stage::Shadow | Stage::Canary { .. } | Stage::Active | Stage::Retired,
        ) => Some("the stages between".into()),
    }
}
