//! What is asked of a host's backtests, and what it says of them.

use aether_core::{
    backtest::{Bars, Short, Tolerance},
    decision::Limits,
    id::{Digest, EntryId, PrincipalId, SlotId},
    time::Time,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is to be tested, and on which stretch of history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BacktestRequest {
    pub slot: SlotId,
    /// An entry of the slot, at any stage, or a component of the registry: its digest, or a name, of which the newest is
    /// taken.
    pub candidate: String,
    /// Of a component; an entry has its own config, limits and assets.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub config: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    pub limits: Option<Limits>,
    #[serde(default)]
    pub assets: Option<Digest>,
    /// The active entry in whose place it is to be thought. None: the one that the entry is to replace, or the one of the
    /// same name; where there is none, it is thought beside the others.
    #[serde(default)]
    pub replaces: Option<EntryId>,
    /// The name of an imported history. None: what this host has recorded.
    #[serde(default)]
    pub history: Option<String>,
    /// Default: an hour ago, or an imported history's first sample.
    #[serde(default)]
    pub from: Option<Time>,
    /// Default: now, or an imported history's last sample.
    #[serde(default)]
    pub to: Option<Time>,
    /// Default: the live tick, or the step of the data if that is longer.
    #[serde(default)]
    pub tick_ms: Option<u64>,
    /// Default: none for labels; for incidents, 10 minutes before.
    #[serde(default)]
    pub tolerance: Option<Tolerance>,
    #[serde(default)]
    pub bars: Bars,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BacktestState {
    /// Or waiting for the one before it.
    Running,
    Done,
    Failed,
    Stopped,
}

impl BacktestState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            BacktestState::Running => "running",
            BacktestState::Done => "done",
            BacktestState::Failed => "failed",
            BacktestState::Stopped => "stopped",
        }
    }

    pub(crate) fn of(name: &str) -> Self {
        match name {
            "running" => BacktestState::Running,
            "done" => BacktestState::Done,
            "stopped" => BacktestState::Stopped,
            _ => BacktestState::Failed,
        }
    }
}

/// A backtest without its report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BacktestInfo {
    /// What a promotion names as its proof.
    pub id: String,
    pub at: Time,
    pub requested_by: PrincipalId,
    pub request: BacktestRequest,
    pub state: BacktestState,
    pub finished_at: Option<Time>,
    /// Why there is no report.
    pub failure: Option<String>,
    /// The bars that were not reached.
    pub short: Vec<Short>,
    /// Evaluations, while it runs; `of` is 0 until it is known.
    pub done: u64,
    pub of: u64,
}

/// How an imported history was read, and what is in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HistoryAbout {
    /// Of a file of two columns.
    pub metric: String,
    pub unit: String,
    pub subject: Option<String>,
    pub bytes: u64,
    pub samples: u64,
    pub subjects: u64,
    pub from: Option<Time>,
    pub to: Option<Time>,
    /// Metrics with their units, and events: the first 100.
    pub names: Vec<String>,
}

/// A history that was brought in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HistoryInfo {
    pub name: String,
    /// BLAKE3 of the CSV.
    pub digest: Digest,
    pub about: HistoryAbout,
    /// How many labels were brought. None: none yet.
    pub labels: Option<u64>,
    pub uploaded_at: Time,
    pub uploaded_by: PrincipalId,
}
