//! Small batches for the tests of this crate.

use aether_core::{
    id::NodeId,
    subject::SubjectRef,
    telemetry::{Batch, Sample, SeriesKey, SeriesSamples},
    time::Time,
};
use std::collections::BTreeMap;

/// 2026-11-21 02:00 UTC.
pub(crate) const NOW: Time = Time(1_795_226_400_000);

pub(crate) fn sample(at: i64, value: f64) -> Sample {
    Sample { at: Time(at), value }
}

pub(crate) fn key(subject: SubjectRef, metric: &str) -> SeriesKey {
    SeriesKey { subject, metric: metric.to_owned(), unit: "1".to_owned(), attributes: BTreeMap::new() }
}

/// `system.cpu.utilization` of the origin's node, in epoch 1.
pub(crate) fn batch(origin: &str, sequence: u64, samples: &[Sample]) -> Batch {
    Batch {
        origin: NodeId::new(origin),
        epoch: 1,
        sequence,
        series: vec![SeriesSamples {
            key: key(SubjectRef::node(origin), "system.cpu.utilization").into(),
            samples: samples.into(),
        }]
        .into(),
        events: Vec::new(),
    }
}
