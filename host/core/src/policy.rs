//! A policy bundle: which component stands in which slot, with what config, limits and fixtures. Data, no code.
//! On disk it is a folder with `policy.toml` and `fixtures/`; this is its parsed form.

use crate::{
    catalogue::{ArgumentSpec, argument},
    combine::CombiningRule,
    decision::{Limits, Role},
    id::{Digest, SlotId},
    value::ValueKind,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// `policy.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    pub name: String,
    pub version: String,
    #[serde(default)]
    pub summary: String,
    /// In order of evaluation.
    pub slots: BTreeMap<SlotId, Slot>,
    /// What `runbook.run` can run, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub runbooks: BTreeMap<String, Runbook>,
}

/// The largest script of a runbook: it travels in an order.
pub const SCRIPT_BYTES_MAXIMUM: usize = 64 << 10;
/// The longest text that a runbook's argument may be, where no choices are named.
pub const RUNBOOK_TEXT_MAXIMUM: usize = 256;

/// A script that ships with the bundle, signed, and what it may use and be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Runbook {
    #[serde(default)]
    pub summary: String,
    /// The script's file, beside the bundle's `policy.toml`. Its signature is the file of that name with `.sig`.
    pub script: String,
    /// BLAKE3 of the script; set when it is read. A bundle that names one takes just that.
    #[serde(default)]
    pub digest: Option<Digest>,
    #[serde(default = "Runbook::default_cpus")]
    pub cpus: f64,
    #[serde(default = "Runbook::default_memory")]
    pub memory_bytes: u64,
    #[serde(default = "Runbook::default_pids")]
    pub pids: u32,
    #[serde(default = "Runbook::default_output")]
    pub output_bytes: u64,
    #[serde(default = "Runbook::default_timeout")]
    pub timeout_ms: u64,
    #[serde(default)]
    pub arguments: Vec<RunbookArgument>,
}

/// One argument of a runbook, as the bundle declares it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunbookArgument {
    pub name: String,
    #[serde(default)]
    pub required: bool,
    pub kind: ValueKind,
    #[serde(default)]
    pub minimum: Option<f64>,
    #[serde(default)]
    pub maximum: Option<f64>,
    /// For text: the allowed values; empty means any.
    #[serde(default)]
    pub choices: Vec<String>,
}

impl Runbook {
    fn default_cpus() -> f64 {
        0.5
    }
    fn default_memory() -> u64 {
        256 << 20
    }
    fn default_pids() -> u32 {
        64
    }
    fn default_output() -> u64 {
        16 << 10
    }
    fn default_timeout() -> u64 {
        60_000
    }

    /// Its own arguments under the names by which a proposal gives them.
    pub fn specs(&self) -> impl Iterator<Item = ArgumentSpec> + '_ {
        self.arguments.iter().cloned().map(|argument| {
            let RunbookArgument { name, required, kind, minimum, maximum, choices } = argument;
            let name = format!("{}{name}", argument::OF_RUNBOOK);
            ArgumentSpec { name, required, kind, minimum, maximum, choices }
        })
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    pub role: Role,
    pub rule: CombiningRule,
    /// When an entry that fails is taken out by itself.
    #[serde(default)]
    pub budget: crate::slot::Budget,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The component's file name without `.wasm`.
    pub component: String,
    /// BLAKE3 of the component. A bundle that names one loads just that; without one the digest found is pinned when
    /// the bundle is activated, and told.
    pub digest: Option<Digest>,
    /// Handed to `configure` as JSON.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub config: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    pub limits: Limits,
    /// The folder of its assets, beside the bundle's `policy.toml`.
    #[serde(default)]
    pub assets: Option<String>,
}

/// What the host itself allows, whatever the gates say. The default is conservative.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Posture {
    /// Plans are made, gated, approved and dispatched, and agents check all preconditions, but nothing is changed.
    pub dry_run: bool,
    /// Plans that change anything need at least one approval, even where every gate allows.
    pub approval_required: bool,
    /// The highest class that may run live; anything above it stays a dry run.
    pub highest_live_class: crate::catalogue::SafetyClass,
    /// Below this confidence of the finding, a plan is proposed and never run.
    pub least_confidence_percent: u8,
    /// What a live plan of a class needs at least, whatever the gates ask for.
    pub demands: BTreeMap<crate::catalogue::SafetyClass, ClassDemand>,
}

/// The least that is asked for one class. Gates can ask for more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClassDemand {
    pub approvers: u32,
    /// The least role that counts: `approver`, `policy-author` or `admin`.
    pub role: crate::incident::Rank,
    pub comment: bool,
}

impl Default for ClassDemand {
    fn default() -> Self {
        Self { approvers: 1, role: crate::incident::Rank::Approver, comment: false }
    }
}

impl Default for Posture {
    fn default() -> Self {
        Self {
            dry_run: true,
            approval_required: true,
            highest_live_class: crate::catalogue::SafetyClass::Reversible,
            least_confidence_percent: 50,
            demands: BTreeMap::from([(
                crate::catalogue::SafetyClass::Destructive,
                ClassDemand { approvers: 2, comment: true, ..ClassDemand::default() },
            )]),
        }
    }
}

impl Posture {
    /// Whether a plan of `class` is run dry.
    pub fn makes_dry(&self, class: crate::catalogue::SafetyClass) -> bool {
        self.dry_run || class > self.highest_live_class
    }
}
