//! Samples and events on their way from an agent (or a feeder of signals) to the flight recorder.

use crate::{id::NodeId, subject::SubjectRef, time::Time};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::{collections::BTreeMap, sync::Arc};
use utoipa::ToSchema;

/// What names one series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct SeriesKey {
    pub subject: SubjectRef,
    pub metric: String,
    pub unit: String,
    pub attributes: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sample {
    pub at: Time,
    pub value: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesSamples {
    /// Shared by all batches of a stream that tell of it.
    pub key: Arc<SeriesKey>,
    /// In order of time. Mostly one: that takes no memory of its own.
    pub samples: SmallVec<[Sample; 1]>,
}

/// A discrete happening: an Xid error, a termination notice, a process that exited.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct DiscreteEvent {
    pub subject: SubjectRef,
    pub name: String,
    pub at: Time,
    pub attributes: BTreeMap<String, String>,
}

/// One batch as the recorder takes it. `(origin, epoch, sequence)` names it once and for all: a batch that comes
/// again is a duplicate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The node whose agent sent it; a feeder of signals is an origin of its own (`signals`).
    pub origin: NodeId,
    /// Chosen anew when the sender's spool is created; sequences count within it.
    pub epoch: u64,
    pub sequence: u64,
    pub series: Vec<SeriesSamples>,
    pub events: Vec<DiscreteEvent>,
}
