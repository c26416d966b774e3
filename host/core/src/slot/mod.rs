//! A slot: the components that answer one kind of question, each at its stage from *candidate* to *retired*.
//!
//! Pure, like the rest of this crate: [`Slot::apply`] makes the next generation or says why not, [`Slot::cast`] says who
//! answers for a subject, and [`Watch`] says when an entry has used up its budget. Which bytes an entry stands for, and
//! what is committed when, is the host's.
//!
//! ```text
//! candidate -> shadow -> canary -> active -> retired
//!     self-test   compared   a share     replaces     kept for replay, can come back
//! ```
//! Every change makes a new generation of the whole slot. Evaluations hold the generation that they began with, so a
//! swap loses none and mixes none.
//!
//! A successor that fails gives its place back to the entry that it replaced. An active entry that fails and has no
//! such predecessor stays, and is flagged: its faults fail safe already (a gate denies, a scorer says unknown), and a
//! slot without its gate would allow more than one with a broken gate.

mod cast;
mod change;
#[cfg(test)]
mod tests;
mod watch;

pub use cast::{Cast, Spoken, compare, diverges, key};
pub use change::{Change, Refused};
pub use watch::{Baseline, Breach, Budget, Figures, OutOfRange, Sample, Watch};

use crate::{
    combine::CombiningRule,
    decision::{Limits, Role},
    id::{DecisionId, Digest, EntryId, PrincipalId, SlotId},
    time::Time,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// Entries of one slot that are not retired.
pub const ENTRIES_MAXIMUM: usize = 32;
/// Retired entries that a generation still lists; older ones are in older generations.
pub const RETIRED_MAXIMUM: usize = 16;

/// How far an entry has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Self-tested, asked nothing yet.
    Candidate,
    /// Asked beside those that answer and compared with them; its answers have no effect.
    Shadow,
    /// Answers for a share of the subjects, 1 to 99 percent, chosen by a stable hash.
    Canary {
        percent: u8,
    },
    Active,
    /// Asked nothing any more.
    Retired,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Stage::Candidate => "candidate",
            Stage::Shadow => "shadow",
            Stage::Canary { .. } => "canary",
            Stage::Active => "active",
            Stage::Retired => "retired",
        }
    }
}

/// An import that an entry may use. What its world grants is the most; an entry can be granted less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    Log,
    Assets,
    History,
    /// The virtual, deterministic WASI that a language's runtime insists on.
    Wasi,
}

impl Grant {
    /// As it is written in a slot's entry.
    pub fn name(self) -> &'static str {
        match self {
            Grant::Log => "log",
            Grant::Assets => "assets",
            Grant::History => "history",
            Grant::Wasi => "wasi",
        }
    }

    /// Everything that the world of `role` can grant.
    pub fn of(role: Role) -> BTreeSet<Grant> {
        match role {
            Role::RiskScorer | Role::RemediationPlanner => {
                BTreeSet::from([Grant::Log, Grant::Assets, Grant::History, Grant::Wasi])
            }
            Role::PolicyGate | Role::Router => BTreeSet::from([Grant::Log, Grant::Assets, Grant::Wasi]),
        }
    }
}

/// One component with its config, limits and assets, on its way through a slot. A new config or new assets are a new
/// entry: they are proved like new code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = SlotEntryState)]
pub struct Entry {
    pub id: EntryId,
    pub component: Digest,
    /// As the component describes itself.
    pub name: String,
    pub version: String,
    #[schema(value_type = Object)]
    pub config: serde_json::Map<String, serde_json::Value>,
    pub limits: Limits,
    /// The set of files that its `assets` are; none: it has none.
    #[serde(default)]
    pub assets: Option<Digest>,
    pub grants: BTreeSet<Grant>,
    pub stage: Stage,
    /// When it came to this stage.
    pub since: Time,
    /// The entry in whose place it is to stand; none: it stands beside the others.
    #[serde(default)]
    pub replaces: Option<EntryId>,
    /// One for its coming and one for each step that it was promoted.
    #[serde(default)]
    pub proofs: Vec<Proof>,
    /// How it failed. It was retired for it, or, where it had no good predecessor, it stays active and is flagged. None
    /// where it never failed, and where a successor took its place.
    #[serde(default)]
    pub quarantine: Option<Quarantine>,
}

impl Entry {
    /// Whether it would be asked at all.
    pub fn is_open(&self) -> bool {
        self.stage != Stage::Retired
    }

    /// Whether both stand for the very same code, config, limits and assets.
    pub fn is_same(&self, other: &Entry) -> bool {
        self.component == other.component
            && self.config == other.config
            && self.limits == other.limits
            && self.assets == other.assets
    }

    /// What the one it replaced did, as its promotion noted it.
    pub fn baseline(&self) -> Option<Baseline> {
        self.proofs.iter().rev().find_map(|proof| proof.baseline)
    }
}

/// What a promotion was made on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Proof {
    pub to: Stage,
    pub at: Time,
    pub by: PrincipalId,
    /// Fixtures of the bundle that were asked of it, and how many passed.
    pub self_test: Option<SelfTest>,
    /// Id of the backtest that was looked at.
    pub backtest: Option<String>,
    /// What it did at the stage that it leaves.
    pub figures: Option<Figures>,
    /// What the one that it replaces did over the same time: what its own figures are measured against.
    #[serde(default)]
    pub baseline: Option<Baseline>,
    /// Why the step was taken without the evidence that it asks for; recorded as an override.
    pub overridden: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SelfTest {
    pub passed: u32,
    pub failed: u32,
}

/// How an entry failed, with what is needed to see it fail again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Quarantine {
    pub at: Time,
    pub reason: String,
    /// The decision to replay.
    pub reproducer: Option<DecisionId>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = SlotGeneration)]
pub struct Slot {
    pub id: SlotId,
    pub role: Role,
    pub rule: CombiningRule,
    pub budget: Budget,
    /// From 1; each change adds one.
    pub generation: u64,
    /// In order of evaluation, retired ones last.
    pub entries: Vec<Entry>,
}

impl Slot {
    /// A slot that nothing stands in yet; its first change makes generation 1.
    pub fn new(id: SlotId, role: Role, rule: CombiningRule, budget: Budget) -> Self {
        Self { id, role, rule, budget, generation: 0, entries: vec![] }
    }

    pub fn entry(&self, id: &EntryId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == *id)
    }

    /// The ones that answer for everybody.
    pub fn active(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.stage == Stage::Active)
    }
}
