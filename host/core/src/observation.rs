//! What a component declares that it reads, and what the host hands it.

use crate::{subject::Subject, time::Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    Last,
    Mean,
    Max,
    Min,
    Sum,
    /// Increase per second of a cumulative counter; a reset counts from zero.
    Rate,
}

/// A metric resampled to a grid of `step_ms` over the last `window_ms`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct MetricInput {
    pub name: String,
    pub unit: String,
    pub window_ms: u64,
    pub step_ms: u64,
    pub aggregation: Aggregation,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct EventInput {
    pub name: String,
    pub window_ms: u64,
    /// The newest this many are handed over.
    pub at_most: u32,
}

/// A declared input is also a grant: a component sees exactly these, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    Metric(MetricInput),
    Events(EventInput),
}

/// One series on a grid: `values[i]` is at `start + i * step_ms`. NaN means that nothing was sampled there
/// (`null` in JSON).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Column {
    /// Index into the component's declared inputs.
    pub input: u32,
    pub attributes: BTreeMap<String, String>,
    pub start: Time,
    pub step_ms: u64,
    #[serde(with = "nan_as_null")]
    #[schema(value_type = Vec<Option<f64>>)]
    pub values: Vec<f64>,
}

/// Equal when every value has the same bits, so that two recordings with the same gaps are equal.
impl PartialEq for Column {
    fn eq(&self, other: &Self) -> bool {
        self.input == other.input
            && self.attributes == other.attributes
            && self.start == other.start
            && self.step_ms == other.step_ms
            && self.values.len() == other.values.len()
            && self.values.iter().zip(&other.values).all(|(a, b)| a.to_bits() == b.to_bits())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ObservedEvent {
    /// Index into the component's declared inputs.
    pub input: u32,
    pub at: Time,
    pub attributes: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Observation {
    pub subject: Subject,
    pub at: Time,
    pub columns: Vec<Column>,
    pub events: Vec<ObservedEvent>,
}

/// JSON has no NaN: a gap is `null`. Infinities do not occur on a grid and are written as gaps, too.
mod nan_as_null {
    use serde::{Deserialize, Deserializer, Serializer, ser::SerializeSeq};

    pub(super) fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(values.len()))?;
        for value in values {
            seq.serialize_element(&value.is_finite().then_some(*value))?;
        }
        seq.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        let values = Vec::<Option<f64>>::deserialize(deserializer)?;
        Ok(values.into_iter().map(|value| value.unwrap_or(f64::NAN)).collect())
    }
}
