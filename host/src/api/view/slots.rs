//! What the API says of slots.

use super::BundleInfo;
use crate::store::slots::Made;
use aether_core::{
    combine::CombiningRule,
    decision::{Limits, Role},
    id::{Digest, EntryId, PrincipalId, SlotId},
    slot::{self, Budget, Grant, Proof, Quarantine, Stage},
    time::Time,
};
use aether_runtime::fixture::FixtureResult;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::ToSchema;

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Slots {
    pub bundle: Option<BundleInfo>,
    pub slots: Vec<SlotStatus>,
    /// What the bundle names and could not be activated, and what should answer and cannot be asked: their slots go on
    /// without them, or with the ones before them.
    pub missing: Vec<MissingEntry>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MissingEntry {
    pub slot: SlotId,
    pub component: String,
    /// Stable, such as `component.not-wasm`.
    pub code: String,
    pub reason: String,
}

/// A slot as it stands now.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SlotStatus {
    pub id: SlotId,
    pub role: Role,
    pub rule: CombiningRule,
    /// Rises with every change; a change names the one that it was decided on.
    pub generation: u64,
    pub budget: Budget,
    /// The change that made this generation.
    pub last: SlotNews,
    /// In order of evaluation, retired ones last and of those only the newest.
    pub entries: Vec<SlotEntry>,
}

/// A change of a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SlotNews {
    pub slot: SlotId,
    pub generation: u64,
    /// `seed`, `add`, `promote`, `retire`, `roll_back`, `flag`.
    pub change: String,
    /// None: the whole slot.
    pub entry: Option<EntryId>,
    pub at: Time,
    /// `aether` where the host did it by itself.
    pub by: PrincipalId,
    pub why: String,
}

impl From<&Made> for SlotNews {
    fn from(made: &Made) -> Self {
        Self {
            slot: made.slot.id.clone(),
            generation: made.slot.generation,
            change: made.change.name().into(),
            entry: made.change.entry().cloned(),
            at: made.at,
            by: made.by.clone(),
            why: made.why.clone(),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SlotEntry {
    pub id: EntryId,
    /// The component as it calls itself.
    pub component: String,
    pub name: String,
    pub version: String,
    pub digest: Digest,
    #[schema(value_type = Object)]
    pub config: serde_json::Map<String, serde_json::Value>,
    pub limits: Limits,
    pub assets: Option<Digest>,
    pub grants: BTreeSet<Grant>,
    pub stage: Stage,
    /// When it came to this stage.
    pub since: Time,
    /// The entry in whose place it stands or is to stand; none: it stands beside the others.
    pub replaces: Option<EntryId>,
    /// What answers again when it is rolled back; none: it would stay, and be flagged.
    pub predecessor: Option<EntryId>,
    pub proofs: Vec<Proof>,
    /// How it failed: it was retired for it, or stays active and is flagged.
    pub quarantine: Option<Quarantine>,
    /// Whether it can be asked; if not, `missing` says why.
    pub ready: bool,
    /// At its present stage, since the host started.
    pub figures: Figures,
}

/// How an entry does at its present stage. Percentiles are of the newest evaluations, as many as the budget's window.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Figures {
    #[serde(flatten)]
    pub figures: slot::Figures,
    pub last_at: Option<Time>,
    pub last_fault: Option<String>,
    /// Questions that a shadow was not asked, because too many waited.
    pub dropped: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SlotHistory {
    /// Newest first.
    pub generations: Vec<Made>,
    /// Give this as `before` for the next page; none at the end.
    pub next_before: Option<u64>,
}

/// What came of putting a component into a slot.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AddedEntry {
    pub entry: EntryId,
    /// The bundle's fixtures for a component of this name in this slot; none: there is none.
    pub self_test: Vec<FixtureOutcome>,
    pub slot: SlotStatus,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FixtureOutcome {
    pub name: String,
    pub summary: String,
    /// Empty: passed.
    pub problems: Vec<String>,
    pub fuel: u64,
}

impl From<FixtureResult> for FixtureOutcome {
    fn from(result: FixtureResult) -> Self {
        let FixtureResult { name, summary, problems, fuel } = result;
        Self { name, summary, problems, fuel }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Promotion {
    /// The slot's generation that this was decided on.
    pub generation: u64,
    /// `shadow`, `{"canary": {"percent": 10}}` or `active`.
    pub to: Stage,
    #[serde(default)]
    pub comment: Option<String>,
    /// Id of the backtest that was looked at.
    #[serde(default)]
    pub backtest: Option<String>,
    /// Why the step is taken without the evidence that it asks for.
    #[serde(default)]
    pub overridden: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Retirement {
    /// The slot's generation that this was decided on.
    pub generation: u64,
    #[serde(default)]
    pub comment: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollBack {
    /// What it did wrong.
    pub reason: String,
}
