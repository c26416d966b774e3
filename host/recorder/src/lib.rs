//! The flight recorder: the one store of history. Under construction; the signatures stand.

mod error;
mod settings;

pub use error::{Error, Rejected};
pub use settings::Settings;

use aether_core::{
    id::NodeId,
    observation::{Column, Input, ObservedEvent},
    subject::SubjectRef,
    telemetry::{Batch, DiscreteEvent, Sample, SeriesKey},
    time::Time,
};
use object_store::ObjectStore;
use std::{path::Path, sync::Arc};
use tokio::sync::watch;

/// A place in an origin's stream of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub epoch: u64,
    pub sequence: u64,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    New,
    Duplicate,
}
/// What one seal did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    pub batches: usize,
    pub samples: usize,
    pub events: usize,
    /// Size of the new segment; 0 when there was nothing to seal.
    pub bytes: u64,
    pub path: Option<String>,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesInfo {
    pub key: SeriesKey,
    pub samples: usize,
    pub first: Time,
    pub last: Time,
    /// Where its newest samples come from.
    pub origin: NodeId,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeQuery {
    pub subject: SubjectRef,
    pub metric: String,
    /// Inclusive.
    pub from: Time,
    /// Exclusive.
    pub to: Time,
    /// Buckets per series at most: 1 to 10,000 (others are clamped).
    pub max_points: usize,
}
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Beginning of the bucket.
    pub at: Time,
    pub min: f64,
    pub mean: f64,
    pub max: f64,
    pub samples: u32,
}
#[derive(Clone, Debug, PartialEq)]
pub struct RangeSeries {
    pub key: SeriesKey,
    pub bucket_ms: u64,
    /// In order of time; a bucket without samples is left out.
    pub buckets: Vec<Bucket>,
}
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub series: usize,
    pub samples: usize,
    pub hot_bytes: usize,
    pub unsealed_batches: usize,
    pub unsealed_bytes: usize,
    pub segments: usize,
    pub segment_bytes: u64,
    pub oldest: Option<Time>,
    pub newest: Option<Time>,
    pub evicted_samples: u64,
    pub rejected_batches: u64,
    pub duplicate_batches: u64,
    pub dropped_samples: u64,
    pub hidden_samples: u64,
    pub unreadable_segments: u64,
    pub last_sealed: Option<Time>,
    /// Why the last seal failed, if it did.
    pub seal_error: Option<String>,
}

#[derive(Clone)]
pub struct Recorder;

#[expect(unused_variables, clippy::unimplemented, reason = "signatures first")]
impl Recorder {
    pub async fn open(settings: Settings, store: Arc<dyn ObjectStore>, now: Time) -> Result<Self, Error> { unimplemented!() }
    pub fn settings(&self) -> &Settings { unimplemented!() }
    /// Visible in the hot window at once; safe when `safe` says so.
    pub fn append(&self, batch: Batch, now: Time) -> Result<Appended, Rejected> { unimplemented!() }
    /// The sender holds nothing below `oldest` in this epoch: what is missing below is lost, and does not hold up `safe`.
    /// To be called at the start of a session and whenever the sender's spool drops. Answers how many were newly lost.
    pub fn sender_holds_from(&self, origin: &NodeId, epoch: u64, oldest: u64) -> u64 { unimplemented!() }
    /// The position up to which everything of this origin's current epoch is sealed and synced (or lost or refused).
    pub fn safe(&self, origin: &NodeId) -> watch::Receiver<Option<Position>> { unimplemented!() }
    pub async fn seal(&self, now: Time) -> Result<Sealed, Error> { unimplemented!() }
    /// Resolves when so much is unsealed that a seal should not wait for its interval.
    pub async fn seal_wanted(&self) { unimplemented!() }
    pub async fn enforce_retention(&self, now: Time) -> Result<usize, Error> { unimplemented!() }
    pub fn columns(&self, subject: &SubjectRef, inputs: &[Input], at: Time) -> Vec<Column> { unimplemented!() }
    pub fn events(&self, subject: &SubjectRef, inputs: &[Input], at: Time) -> Vec<ObservedEvent> { unimplemented!() }
    /// The newest sample of each attribute set, in order of attributes.
    pub fn latest(&self, subject: &SubjectRef, metric: &str) -> Vec<(SeriesKey, Sample)> { unimplemented!() }
    pub fn series(&self, subject: Option<&SubjectRef>) -> Vec<SeriesInfo> { unimplemented!() }
    pub fn range(&self, query: &RangeQuery) -> Vec<RangeSeries> { unimplemented!() }
    /// As `range`, from the sealed segments too where the hot window does not reach back.
    pub async fn range_deep(&self, query: &RangeQuery) -> Result<RangeAnswer, Error> { unimplemented!() }
    /// Newest last.
    pub fn recent_events(&self, subject: Option<&SubjectRef>, since: Time) -> Vec<DiscreteEvent> { unimplemented!() }
    pub fn status(&self) -> Status { unimplemented!() }
}
#[derive(Clone, Debug, PartialEq)]
pub struct RangeAnswer {
    pub series: Vec<RangeSeries>,
    /// Older segments were left out, because the query reached its byte limit.
    pub cut: bool,
}
/// Segments in a folder of this machine, synced on every write.
pub fn local_store(folder: &Path) -> Result<Arc<dyn ObjectStore>, Error> {
    let _ = folder;
    Err(Error::Stopped)
}
