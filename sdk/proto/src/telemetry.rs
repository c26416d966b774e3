//! Batches of telemetry between the domain's form and the wire's: a dictionary of series per stream, columns of times
//! and values, a checksum.

use crate::{Malformed, subject_from_proto, subject_to_proto, v1};
use aether_core::{
    id::NodeId,
    telemetry::{Batch, DiscreteEvent, Sample, SeriesKey, SeriesSamples},
    time::Time,
};
use prost::Message;
use std::collections::{BTreeMap, HashMap};
use thiserror::Error;

/// The layout that this version writes.
pub const SCHEMA_ID: u32 = 1;
/// Series that one stream may define.
pub const SERIES_MAXIMUM: usize = 20_000;
/// Samples and events in one batch.
pub const SAMPLES_MAXIMUM: usize = 100_000;

/// The sending side's dictionary: lives as long as the stream.
#[derive(Debug, Default)]
pub struct Encoder {
    ids: HashMap<SeriesKey, u32>,
}

impl Encoder {
    /// `lost_before`: batches that the spool dropped just before this one.
    pub fn encode(&mut self, batch: &Batch, lost_before: u64) -> v1::TelemetryBatch {
        let mut dictionary = Vec::new();
        let mut columns = Vec::with_capacity(batch.series.len());
        for SeriesSamples { key, samples } in &batch.series {
            let next = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
            let id = *self.ids.entry(key.clone()).or_insert_with(|| {
                dictionary.push(define(next, key));
                next
            });
            let mut last = 0;
            let time_deltas_ms = samples.iter().map(|s| s.at.0 - std::mem::replace(&mut last, s.at.0)).collect();
            columns.push(v1::Column { series: id, time_deltas_ms, values: samples.iter().map(|s| s.value).collect() });
        }
        let events = batch.events.iter().map(event_to_proto).collect();
        let samples = v1::Samples { columns, events }.encode_to_vec();
        v1::TelemetryBatch {
            schema_id: SCHEMA_ID,
            epoch: batch.epoch,
            sequence: batch.sequence,
            lost_before,
            dictionary,
            samples_crc32: crc32fast::hash(&samples),
            samples,
        }
    }
}

fn define(id: u32, key: &SeriesKey) -> v1::SeriesDefinition {
    let SeriesKey { subject, metric, unit, attributes } = key;
    v1::SeriesDefinition {
        id,
        subject: Some(subject_to_proto(subject)),
        metric: metric.clone(),
        unit: unit.clone(),
        attributes: attributes.clone().into_iter().collect(),
    }
}

fn event_to_proto(event: &DiscreteEvent) -> v1::Event {
    let DiscreteEvent { subject, name, at, attributes } = event;
    v1::Event {
        subject: Some(subject_to_proto(subject)),
        name: name.clone(),
        at_ms: at.0,
        attributes: attributes.clone().into_iter().collect(),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    #[error("schema id {0} is not known to this host")]
    Schema(u32),
    #[error("the checksum of the samples is wrong")]
    Checksum,
    #[error("more than {0}")]
    Oversized(String),
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// The receiving side's dictionary: lives as long as the stream.
#[derive(Debug, Default)]
pub struct Decoder {
    series: HashMap<u32, SeriesKey>,
}

impl Decoder {
    /// A refused batch leaves the definitions that it brought in place, since the sender counts them as known.
    pub fn decode(&mut self, origin: &NodeId, batch: v1::TelemetryBatch) -> Result<Batch, DecodeError> {
        let v1::TelemetryBatch { schema_id, epoch, sequence, lost_before: _, dictionary, samples, samples_crc32 } =
            batch;
        if schema_id != SCHEMA_ID {
            return Err(DecodeError::Schema(schema_id));
        }
        for v1::SeriesDefinition { id, subject, metric, unit, attributes } in dictionary {
            if self.series.len() >= SERIES_MAXIMUM {
                return Err(DecodeError::Oversized(format!("{SERIES_MAXIMUM} series in one stream")));
            }
            let subject = subject_from_proto(subject.ok_or(Malformed::Missing("dictionary.subject"))?)?;
            let attributes: BTreeMap<String, String> = attributes.into_iter().collect();
            self.series.insert(id, SeriesKey { subject, metric, unit, attributes });
        }
        if crc32fast::hash(&samples) != samples_crc32 {
            return Err(DecodeError::Checksum);
        }
        let v1::Samples { columns, events } = v1::Samples::decode(samples.as_slice())
            .map_err(|error| Malformed::invalid("samples", error.to_string()))?;
        let count = columns.iter().map(|c| c.values.len()).sum::<usize>() + events.len();
        if count > SAMPLES_MAXIMUM {
            return Err(DecodeError::Oversized(format!("{SAMPLES_MAXIMUM} samples in one batch")));
        }
        let series = columns.into_iter().map(|column| self.column(column)).collect::<Result<_, _>>()?;
        let events = events.into_iter().map(event_from_proto).collect::<Result<_, _>>()?;
        Ok(Batch { origin: origin.clone(), epoch, sequence, series, events })
    }

    fn column(&self, column: v1::Column) -> Result<SeriesSamples, Malformed> {
        let v1::Column { series, time_deltas_ms, values } = column;
        let key = self.series.get(&series).cloned();
        let key = key.ok_or_else(|| Malformed::invalid("column.series", format!("series {series} was not defined")))?;
        if time_deltas_ms.len() != values.len() {
            return Err(Malformed::invalid("column", "has not as many times as values"));
        }
        let mut at = 0i64;
        let mut samples = Vec::with_capacity(values.len());
        for (delta, value) in time_deltas_ms.into_iter().zip(values) {
            at = at.checked_add(delta).ok_or_else(|| Malformed::invalid("column.time_deltas_ms", "out of range"))?;
            samples.push(Sample { at: Time(at), value });
        }
        Ok(SeriesSamples { key, samples })
    }
}

fn event_from_proto(event: v1::Event) -> Result<DiscreteEvent, Malformed> {
    let v1::Event { subject, name, at_ms, attributes } = event;
    let subject = subject_from_proto(subject.ok_or(Malformed::Missing("event.subject"))?)?;
    Ok(DiscreteEvent { subject, name, at: Time(at_ms), attributes: attributes.into_iter().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aether_core::subject::SubjectRef;

    fn batch(sequence: u64) -> Batch {
        let key = SeriesKey {
            subject: SubjectRef::node("node-a"),
            metric: "system.cpu.utilization".into(),
            unit: "1".into(),
            attributes: BTreeMap::from([("cpu".into(), "0".into())]),
        };
        let samples = vec![Sample { at: Time(1_000), value: 0.5 }, Sample { at: Time(2_000), value: 0.25 }];
        let event = DiscreteEvent {
            subject: SubjectRef::node("node-a"),
            name: "x".into(),
            at: Time(1_500),
            attributes: BTreeMap::new(),
        };
        let series = vec![SeriesSamples { key, samples }];
        Batch { origin: NodeId::new("node-a"), epoch: 7, sequence, series, events: vec![event] }
    }

    #[test]
    fn there_and_back_and_the_dictionary_is_sent_once() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for sequence in 1..4 {
            let wire = encoder.encode(&batch(sequence), 0);
            assert_eq!(wire.dictionary.len(), usize::from(sequence == 1));
            assert_eq!(decoder.decode(&NodeId::new("node-a"), wire).unwrap(), batch(sequence));
        }
    }

    #[test]
    fn bad_batches_are_told_apart() {
        let origin = NodeId::new("node-a");
        let good = || Encoder::default().encode(&batch(1), 0);
        let decode = |wire| Decoder::default().decode(&origin, wire);
        assert_eq!(decode(v1::TelemetryBatch { schema_id: 9, ..good() }), Err(DecodeError::Schema(9)));
        assert_eq!(decode(v1::TelemetryBatch { samples_crc32: 1, ..good() }), Err(DecodeError::Checksum));
        let undefined = decode(v1::TelemetryBatch { dictionary: vec![], ..good() });
        assert!(matches!(undefined, Err(DecodeError::Malformed(_))), "{undefined:?}");
        let samples = vec![0xff; 10];
        let garbage = decode(v1::TelemetryBatch { samples_crc32: crc32fast::hash(&samples), samples, ..good() });
        assert!(matches!(garbage, Err(DecodeError::Malformed(_))), "{garbage:?}");
    }
}
