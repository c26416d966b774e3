//! A batch as a record holds it: in the wire's own form, with a dictionary of its own, so that it can be read alone.
//!
//! Each record so defines each of its series. What defines one is encoded once and kept, since a key is shared by all batches
//! that tell of it: the host's stream, which defines a series once, has no need of that.

use aether_core::telemetry::{Batch, SeriesKey};
use aether_proto::{
    telemetry::{SCHEMA_ID, columns, define},
    v1,
};
use foldhash::fast::FixedState;
use prost::Message;
use std::{collections::HashMap, sync::Arc};

/// `dictionary` of `aether.v1.TelemetryBatch`: a field with its length before it.
const DICTIONARY: u8 = 5 << 3 | 2;

/// Definitions that are kept, a few hundred bytes each, where one batch has not more.
const KEPT_MAXIMUM: usize = 4_096;

#[derive(Default)]
pub(super) struct Dictionary {
    /// By the place in memory of the key, which is nobody else's while it is kept here.
    known: HashMap<usize, Known, FixedState>,
}

struct Known {
    _key: Arc<SeriesKey>,
    id: u32,
    /// The field, with the definition in it.
    field: Vec<u8>,
}

impl Known {
    fn of(id: u32, key: &Arc<SeriesKey>) -> Self {
        let definition = define(id, key).encode_to_vec();
        let mut field = Vec::with_capacity(definition.len() + 8);
        field.push(DICTIONARY);
        // A vector takes whatever comes.
        let _ = prost::encode_length_delimiter(definition.len(), &mut field);
        field.extend(definition);
        Self { _key: key.clone(), id, field }
    }
}

impl Dictionary {
    pub(super) fn encode(&mut self, batch: &Batch) -> Vec<u8> {
        // Most are of series that are told no more.
        if self.known.len() > KEPT_MAXIMUM.max(2 * batch.series.len()) {
            self.known.clear();
        }
        let (mut series, mut fields) = (Vec::with_capacity(batch.series.len()), Vec::new());
        for key in batch.series.layout().keys() {
            let next = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
            let known = self.known.entry(Arc::as_ptr(key).addr()).or_insert_with(|| Known::of(next, key));
            fields.extend_from_slice(&known.field);
            series.push(known.id);
        }
        let samples = columns(batch, series).encode_to_vec();
        let whole = v1::TelemetryBatch {
            schema_id: SCHEMA_ID,
            epoch: batch.epoch,
            sequence: batch.sequence,
            lost_before: 0,
            dictionary: vec![],
            samples_crc32: crc32fast::hash(&samples),
            samples,
        };
        fields.reserve(whole.encoded_len());
        // Enough room was made.
        let _ = whole.encode(&mut fields);
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aether_core::{
        id::NodeId,
        subject::SubjectRef,
        telemetry::{DiscreteEvent, Sample, SeriesSamples},
        time::Time,
    };
    use aether_proto::telemetry::{Decoder, Encoder};
    use std::collections::BTreeMap;

    fn key(name: &str) -> Arc<SeriesKey> {
        let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
        Arc::new(SeriesKey { subject: SubjectRef::node("a"), metric: "m".into(), unit: "1".into(), attributes })
    }

    fn batch(sequence: u64, keys: &[&Arc<SeriesKey>], times: &[i64]) -> Batch {
        let samples =
            |index: usize| times.iter().map(move |at| Sample { at: Time(*at), value: (index as f64) + *at as f64 });
        let series = keys.iter().enumerate();
        let series =
            series.map(|(index, key)| SeriesSamples { key: (*key).clone(), samples: samples(index).collect() });
        Batch { origin: NodeId::new("a"), epoch: 7, sequence, series: series.collect(), events: vec![] }
    }

    #[test]
    fn each_record_is_read_alone_and_says_what_the_encoder_of_a_stream_says() {
        let (a, b, c) = (key("a"), key("b"), key("c"));
        let mut dictionary = Dictionary::default();
        let event = DiscreteEvent {
            subject: SubjectRef::node("a"),
            name: "x".into(),
            at: Time(3),
            attributes: BTreeMap::from([("k".into(), "v".into())]),
        };
        let mut last = batch(4, &[&c, &a], &[9, 10]);
        let mut rows = last.series.rows();
        rows[0].samples.truncate(1);
        last.series = rows.into();
        last.events = vec![event];
        for batch in [batch(1, &[&a, &b], &[1]), batch(2, &[&b], &[2, 5]), batch(3, &[], &[]), last] {
            let wire = v1::TelemetryBatch::decode(dictionary.encode(&batch).as_slice()).unwrap();
            assert_eq!(Decoder::default().decode(&batch.origin, &wire).unwrap(), batch);
            let stream = Encoder::default().encode(&batch, 0);
            assert_eq!(wire.dictionary.len(), stream.dictionary.len());
            assert_eq!(Decoder::default().decode(&batch.origin, &stream).unwrap(), batch);
        }
        assert_eq!(dictionary.known.len(), 3);
    }

    #[test]
    fn what_is_told_no_more_is_forgotten() {
        let mut dictionary = Dictionary::default();
        for sequence in 0..50 {
            let keys: Vec<_> = (0..1_000).map(|index| key(&format!("{sequence}/{index}"))).collect();
            let batch = batch(sequence, &keys.iter().collect::<Vec<_>>(), &[1]);
            let wire = v1::TelemetryBatch::decode(dictionary.encode(&batch).as_slice()).unwrap();
            assert_eq!(Decoder::default().decode(&batch.origin, &wire).unwrap(), batch);
            assert!(dictionary.known.len() <= KEPT_MAXIMUM + 1_000);
        }
    }
}
