//! Batches of telemetry between the domain's form and the wire's: a dictionary of series per stream, columns of times
//! and values, a checksum.
//!
//! The layout of the samples has a schema id. The newest is written, unless the other side said that it reads an older
//! one alone; whatever is read is brought to the newest first ([`upcast`]), so that there is one way from there on. Frozen
//! batches of each former schema are in `golden/`.

use crate::{Malformed, subject_from_proto, subject_to_proto, v1};
use aether_core::{
    id::NodeId,
    telemetry::{Batch, Columns, DiscreteEvent, Layout, SeriesKey},
    time::Time,
};
use foldhash::fast::RandomState;
use prost::Message;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};
use thiserror::Error;

/// The layout that this version writes.
pub const SCHEMA_ID: u32 = 3;
/// The oldest layout that this version reads, and writes for a host that reads no newer one.
pub const SCHEMA_ID_OLDEST: u32 = 1;
/// Series that one stream may define.
pub const SERIES_MAXIMUM: usize = 20_000;
/// Samples and events in one batch.
pub const SAMPLES_MAXIMUM: usize = 100_000;
/// Layouts of batches that a stream remembers, in series of its dictionary.
const SEEN_DICTIONARIES: usize = 8;

/// The sending side's dictionary: lives as long as the stream.
#[derive(Debug)]
pub struct Encoder {
    schema: u32,
    ids: HashMap<Arc<SeriesKey>, u32, RandomState>,
    /// The same by the address of the key in `ids`, which is another's only when that is gone: mostly the same key comes
    /// again, and its texts are not looked at.
    places: HashMap<usize, u32, RandomState>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::for_reader(SCHEMA_ID)
    }
}

impl Encoder {
    /// For a reader of at most this schema; 0: it did not say, as the first version did not.
    pub fn for_reader(schema: u32) -> Self {
        let schema = schema.clamp(SCHEMA_ID_OLDEST, SCHEMA_ID);
        Self { schema, ids: HashMap::default(), places: HashMap::default() }
    }

    /// The same reader, and a dictionary that begins anew.
    #[must_use]
    pub fn anew(&self) -> Self {
        Self::for_reader(self.schema)
    }

    /// `lost_before`: batches that the spool dropped just before this one.
    pub fn encode(&mut self, batch: &Batch, lost_before: u64) -> v1::TelemetryBatch {
        let mut dictionary = Vec::new();
        let series = batch.series.layout().keys().map(|key| self.id(key, &mut dictionary)).collect();
        let columns = columns(batch, series);
        let samples = match self.schema {
            1 => to_first(to_second(columns)).encode_to_vec(),
            2 => to_second(columns).encode_to_vec(),
            _ => columns.encode_to_vec(),
        };
        v1::TelemetryBatch {
            schema_id: self.schema,
            epoch: batch.epoch,
            sequence: batch.sequence,
            lost_before,
            dictionary,
            samples_crc32: crc32fast::hash(&samples),
            samples,
        }
    }

    fn id(&mut self, key: &Arc<SeriesKey>, dictionary: &mut Vec<v1::SeriesDefinition>) -> u32 {
        if let Some(id) = self.places.get(&Arc::as_ptr(key).addr()) {
            return *id;
        }
        if let Some(id) = self.ids.get(key) {
            return *id;
        }
        let id = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        dictionary.push(define(id, key));
        self.places.insert(Arc::as_ptr(key).addr(), id);
        self.ids.insert(Arc::clone(key), id);
        id
    }
}

/// Of a batch whose series have these numbers.
fn columns(batch: &Batch, series: Vec<u32>) -> v1::SampleColumns {
    let times = batch.series.times().map(|times| {
        let mut last = 0;
        let deltas_ms = times.iter().map(|at| at.0 - std::mem::replace(&mut last, at.0)).collect();
        v1::Times { deltas_ms }
    });
    v1::SampleColumns {
        times: times.collect(),
        series,
        places: batch.series.layout().lists().map(|list| u32::try_from(list).unwrap_or(u32::MAX)).collect(),
        values: batch.series.values().to_vec(),
        events: batch.events.iter().map(event_to_proto).collect(),
    }
}

/// As schema 2 has it: a message for each series.
fn to_second(columns: v1::SampleColumns) -> v1::SampleTable {
    let v1::SampleColumns { times, series, places, values, events } = columns;
    let mut values = values.into_iter();
    let columns = series.into_iter().zip(places).map(|(series, place)| {
        let of_place = usize::try_from(place).ok().and_then(|place| times.get(place));
        let count = of_place.map_or(0, |times| times.deltas_ms.len());
        v1::TableColumn { series, times: place, values: values.by_ref().take(count).collect() }
    });
    let columns = columns.collect();
    v1::SampleTable { times, columns, events }
}

/// As schema 1 has it: each column with times of its own.
fn to_first(table: v1::SampleTable) -> v1::Samples {
    let v1::SampleTable { times, columns, events } = table;
    let columns = columns.into_iter().map(|v1::TableColumn { series, times: place, values }| {
        let times = usize::try_from(place).ok().and_then(|place| times.get(place));
        v1::Column { series, time_deltas_ms: times.map_or_else(Vec::new, |times| times.deltas_ms.clone()), values }
    });
    v1::Samples { columns: columns.collect(), events }
}

/// Samples of the newest schema as our encoder has them: columns as they stand, without a copy.
struct Packed<'a> {
    times: Vec<v1::Times>,
    series: &'a [u8],
    places: &'a [u8],
    values: &'a [u8],
    events: Vec<v1::Event>,
}

impl<'a> Packed<'a> {
    /// None: they are otherwise, and not looked at any further.
    fn of(mut samples: &'a [u8]) -> Option<Self> {
        let mut packed = Self { times: vec![], series: &[], places: &[], values: &[], events: vec![] };
        while !samples.is_empty() {
            let field = prost::decode_length_delimiter(&mut samples).ok()?;
            let length = prost::decode_length_delimiter(&mut samples).ok()?;
            let (content, rest) = samples.split_at_checked(length)?;
            samples = rest;
            // Its number, and that it is delimited by its length.
            let whole = match (field >> 3, field & 7) {
                (1, 2) => {
                    packed.times.push(v1::Times::decode(content).ok()?);
                    continue;
                }
                (2, 2) => &mut packed.series,
                (3, 2) => &mut packed.places,
                (4, 2) => &mut packed.values,
                (5, 2) => {
                    packed.events.push(v1::Event::decode(content).ok()?);
                    continue;
                }
                _ => return None,
            };
            if !std::mem::replace(whole, content).is_empty() {
                return None;
            }
        }
        packed.values.len().is_multiple_of(size_of::<f64>()).then_some(packed)
    }

    fn values(&self) -> Vec<f64> {
        self.values.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
    }
}

/// A layout, and how it came.
#[derive(Debug)]
struct Seen {
    series: Box<[u8]>,
    places: Box<[u8]>,
    lists: Vec<usize>,
    layout: Arc<Layout>,
}

/// Samples of any known schema as the newest has them.
fn upcast(schema_id: u32, samples: &[u8]) -> Result<v1::SampleColumns, DecodeError> {
    let malformed = |error: prost::DecodeError| Malformed::invalid("samples", error.to_string());
    let uneven = || Malformed::invalid("column", "has not as many times as values");
    match schema_id {
        1 => {
            let v1::Samples { columns, events } = v1::Samples::decode(samples).map_err(malformed)?;
            let mut all = v1::SampleColumns { events, ..v1::SampleColumns::default() };
            let mut places: HashMap<Vec<i64>, u32, RandomState> = HashMap::default();
            for v1::Column { series, time_deltas_ms, values } in columns {
                if time_deltas_ms.len() != values.len() {
                    return Err(uneven().into());
                }
                let next = u32::try_from(all.times.len()).unwrap_or(u32::MAX);
                let place = *places.entry(time_deltas_ms).or_insert_with_key(|deltas_ms| {
                    all.times.push(v1::Times { deltas_ms: deltas_ms.clone() });
                    next
                });
                all.series.push(series);
                all.places.push(place);
                all.values.extend(values);
            }
            Ok(all)
        }
        2 => {
            let v1::SampleTable { times, columns, events } = v1::SampleTable::decode(samples).map_err(malformed)?;
            let mut all = v1::SampleColumns { times, events, ..v1::SampleColumns::default() };
            for v1::TableColumn { series, times: place, values } in columns {
                if times_of(&all.times, place)?.len() != values.len() {
                    return Err(uneven().into());
                }
                all.series.push(series);
                all.places.push(place);
                all.values.extend(values);
            }
            Ok(all)
        }
        SCHEMA_ID => Ok(v1::SampleColumns::decode(samples).map_err(malformed)?),
        other => Err(DecodeError::Schema(other)),
    }
}

fn times_of(times: &[v1::Times], place: u32) -> Result<&[i64], Malformed> {
    let times = usize::try_from(place).ok().and_then(|place| times.get(place));
    let times = times.ok_or_else(|| Malformed::invalid("column.times", format!("there are no times {place}")))?;
    Ok(&times.deltas_ms)
}

/// What a series' number stands for.
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
    /// Those that were numbered one after the other, as our encoder does: found in order.
    dense: Vec<Arc<SeriesKey>>,
    /// All others.
    sparse: HashMap<u32, Arc<SeriesKey>, RandomState>,
    /// What the latest batches told of, the latest first: mostly the next ones tell of the same.
    seen: VecDeque<Seen>,
}

impl Decoder {
    /// Takes the definitions that a batch brought. The sender counts them as known whatever becomes of the rest.
    pub fn define(&mut self, dictionary: &[v1::SeriesDefinition]) -> Result<(), DecodeError> {
        for v1::SeriesDefinition { id, subject, metric, unit, attributes } in dictionary {
            if self.dense.len() + self.sparse.len() >= SERIES_MAXIMUM {
                return Err(DecodeError::Oversized(format!("{SERIES_MAXIMUM} series in one stream")));
            }
            let subject = subject_from_proto(subject.clone().ok_or(Malformed::Missing("dictionary.subject"))?)?;
            let attributes: BTreeMap<String, String> = attributes.clone().into_iter().collect();
            let key = SeriesKey { subject, metric: metric.clone(), unit: unit.clone(), attributes };
            self.put(*id, Arc::new(key));
        }
        Ok(())
    }

    fn put(&mut self, id: u32, key: Arc<SeriesKey>) {
        let (at, next) = (usize::try_from(id).unwrap_or(usize::MAX), self.dense.len());
        match self.dense.get_mut(at) {
            Some(known) => {
                *known = key;
                self.seen.clear();
            }
            None if at == next && !self.sparse.contains_key(&id) => self.dense.push(key),
            None => {
                if self.sparse.insert(id, key).is_some() {
                    self.seen.clear();
                }
            }
        }
    }

    fn get(&self, id: u32) -> Option<&Arc<SeriesKey>> {
        let dense = usize::try_from(id).ok().and_then(|at| self.dense.get(at));
        dense.or_else(|| self.sparse.get(&id))
    }

    /// A refused batch leaves the definitions that it brought in place, since the sender counts them as known.
    pub fn decode(&mut self, origin: &NodeId, batch: &v1::TelemetryBatch) -> Result<Batch, DecodeError> {
        let v1::TelemetryBatch { schema_id, epoch, sequence, lost_before: _, dictionary, samples, samples_crc32 } =
            batch;
        self.define(dictionary)?;
        if !(SCHEMA_ID_OLDEST..=SCHEMA_ID).contains(schema_id) {
            return Err(DecodeError::Schema(*schema_id));
        }
        if crc32fast::hash(samples) != *samples_crc32 {
            return Err(DecodeError::Checksum);
        }
        let (epoch, sequence) = (*epoch, *sequence);
        let (series, events) = self.columns(*schema_id, samples)?;
        let events = events.into_iter().map(event_from_proto).collect::<Result<_, _>>()?;
        Ok(Batch { origin: origin.clone(), epoch, sequence, series, events })
    }

    fn columns(&mut self, schema_id: u32, samples: &[u8]) -> Result<(Columns, Vec<v1::Event>), DecodeError> {
        let packed = if schema_id == SCHEMA_ID { Packed::of(samples) } else { None };
        if let Some(packed) = &packed
            && let Some(layout) = self.seen(packed)
            && let Some(columns) = Columns::new(layout, times_from_proto(&packed.times)?, packed.values())
        {
            within(columns.len(), columns.values().len(), packed.events.len())?;
            return Ok((columns, packed.events.clone()));
        }
        let v1::SampleColumns { times, series, places, values, events } = upcast(schema_id, samples)?;
        within(series.len(), values.len(), events.len())?;
        if series.len() != places.len() {
            return Err(Malformed::invalid("places", "are not as many as series").into());
        }
        if times.len() > series.len() {
            return Err(Malformed::invalid("times", "are more lists than there are series").into());
        }
        let lists: Vec<usize> = times.iter().map(|times| times.deltas_ms.len()).collect();
        let mut keys = Vec::with_capacity(series.len());
        let mut wanted = 0usize;
        for (id, place) in series.into_iter().zip(places) {
            let key = self.get(id).cloned();
            let key = key.ok_or_else(|| Malformed::invalid("column.series", format!("series {id} was not defined")))?;
            wanted = wanted.saturating_add(times_of(&times, place)?.len());
            keys.push((key, usize::try_from(place).unwrap_or(usize::MAX)));
        }
        if wanted > values.len() {
            return Err(Malformed::invalid("column", "has not as many times as values").into());
        }
        let more = || Malformed::invalid("values", "are more than times");
        let layout = Arc::new(Layout::new(keys, &lists).ok_or_else(more)?);
        if let Some(Packed { series, places, .. }) = packed {
            self.see(Seen { series: series.into(), places: places.into(), lists, layout: Arc::clone(&layout) });
        }
        let columns = Columns::new(layout, times_from_proto(&times)?, values).ok_or_else(more)?;
        Ok((columns, events))
    }

    /// The layout of these samples, if a batch before had the same.
    fn seen(&mut self, packed: &Packed<'_>) -> Option<Arc<Layout>> {
        let lists = |seen: &Seen| {
            let lists = packed.times.iter().map(|times| times.deltas_ms.len());
            seen.lists.iter().copied().eq(lists)
        };
        let same = |seen: &Seen| *seen.series == *packed.series && *seen.places == *packed.places && lists(seen);
        let at = self.seen.iter().position(same)?;
        if at > 0 {
            let seen = self.seen.remove(at)?;
            self.seen.push_front(seen);
        }
        self.seen.front().map(|seen| Arc::clone(&seen.layout))
    }

    /// Layouts take no more than some times what the dictionary does.
    fn see(&mut self, seen: Seen) {
        let mut room = SEEN_DICTIONARIES * (self.dense.len() + self.sparse.len());
        self.seen.push_front(seen);
        let fit = self.seen.iter().take_while(|seen| {
            let columns = seen.layout.len() + seen.lists.len();
            room.checked_sub(columns).map(|left| room = left).is_some()
        });
        let fit = fit.count();
        self.seen.truncate(fit);
    }

    /// The batch with every definition that it needs, so that it can be read without this stream. Where its samples
    /// cannot be read, those are all of the stream.
    pub fn whole(&self, batch: &v1::TelemetryBatch) -> v1::TelemetryBatch {
        let named = upcast(batch.schema_id, &batch.samples).ok();
        let named: Option<BTreeSet<u32>> = named.map(|columns| columns.series.into_iter().collect());
        let brought: BTreeSet<u32> = batch.dictionary.iter().map(|definition| definition.id).collect();
        let all = (0..).zip(&self.dense).chain(self.sparse.iter().map(|(id, key)| (*id, key)));
        let mut known: Vec<_> = all
            .filter(|(id, _)| !brought.contains(id) && named.as_ref().is_none_or(|named| named.contains(id)))
            .collect();
        known.sort_by_key(|(id, _)| *id);
        let known = known.into_iter().map(|(id, key)| define(id, key));
        v1::TelemetryBatch { dictionary: known.chain(batch.dictionary.iter().cloned()).collect(), ..batch.clone() }
    }
}

/// A series without a value costs as much as one with.
fn within(series: usize, values: usize, events: usize) -> Result<(), DecodeError> {
    if series.max(values) + events > SAMPLES_MAXIMUM {
        return Err(DecodeError::Oversized(format!("{SAMPLES_MAXIMUM} samples in one batch")));
    }
    Ok(())
}

/// All lists, one after the other.
fn times_from_proto(lists: &[v1::Times]) -> Result<Vec<Time>, Malformed> {
    let mut all = Vec::with_capacity(lists.iter().map(|list| list.deltas_ms.len()).sum());
    for list in lists {
        let mut at = 0i64;
        for delta in &list.deltas_ms {
            at = at.checked_add(*delta).ok_or_else(|| Malformed::invalid("times.deltas_ms", "out of range"))?;
            all.push(Time(at));
        }
    }
    Ok(all)
}

fn event_from_proto(event: v1::Event) -> Result<DiscreteEvent, Malformed> {
    let v1::Event { subject, name, at_ms, attributes } = event;
    let subject = subject_from_proto(subject.ok_or(Malformed::Missing("event.subject"))?)?;
    Ok(DiscreteEvent { subject, name, at: Time(at_ms), attributes: attributes.into_iter().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aether_core::{
        subject::SubjectRef,
        telemetry::{Sample, SeriesSamples},
    };

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
        let series = vec![SeriesSamples { key: key.into(), samples: samples.into() }].into();
        Batch { origin: NodeId::new("node-a"), epoch: 7, sequence, series, events: vec![event] }
    }

    #[test]
    fn there_and_back_and_the_dictionary_is_sent_once() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for sequence in 1..4 {
            let wire = encoder.encode(&batch(sequence), 0);
            assert_eq!(wire.dictionary.len(), usize::from(sequence == 1));
            assert_eq!(decoder.decode(&NodeId::new("node-a"), &wire).unwrap(), batch(sequence));
        }
    }

    #[test]
    fn series_are_found_however_they_were_numbered_and_renumbered() {
        let named =
            |metric: &str| v1::SeriesDefinition { metric: metric.into(), ..define(0, batch(1).series.at(0).key) };
        let mut decoder = Decoder::default();
        let mut known: BTreeMap<u32, String> = BTreeMap::new();
        // In order, ahead, what was ahead once more, the highest number, and one that is reached in order afterwards.
        for (round, id) in [0, 1, 5, 5, 2, u32::MAX, 1, 3, 4, 5, 6, 0].into_iter().enumerate() {
            let metric = format!("m{round}");
            decoder.define(&[v1::SeriesDefinition { id, ..named(&metric) }]).unwrap();
            known.insert(id, metric);
            for (id, metric) in &known {
                assert_eq!(decoder.get(*id).unwrap().metric, *metric, "{id} after round {round}");
            }
            assert_eq!(decoder.dense.len() + decoder.sparse.len(), known.len());
        }
        assert!(decoder.get(7).is_none());
    }

    #[test]
    fn a_batch_made_whole_is_read_without_its_stream() {
        let origin = NodeId::new("node-a");
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        decoder.decode(&origin, &encoder.encode(&batch(1), 0)).unwrap();
        let second = encoder.encode(&batch(2), 0);
        assert!(Decoder::default().decode(&origin, &second).is_err(), "its series were defined by the first");
        assert_eq!(Decoder::default().decode(&origin, &decoder.whole(&second)).unwrap(), batch(2));
        let of_another = v1::TelemetryBatch { schema_id: 9, ..second };
        assert_eq!(decoder.whole(&of_another).dictionary.len(), 1);
    }

    /// Bytes of one batch as agents of former versions send them, frozen. Never refreshed.
    const FORMER: [(u32, &[u8]); 2] = [
        (1, include_bytes!("../golden/telemetry-batch.schema-1.bin")),
        (2, include_bytes!("../golden/telemetry-batch.schema-2.bin")),
    ];

    #[test]
    fn agents_of_former_versions_are_understood() {
        let read = |bytes: &[u8]| {
            let wire = v1::TelemetryBatch::decode(bytes).unwrap();
            (Decoder::default().decode(&NodeId::new("node-a"), &wire).unwrap(), wire)
        };
        let (found, first) = read(FORMER[0].1);
        let shown: Vec<String> = found
            .series
            .iter()
            .map(|series| {
                let key = series.key;
                let samples: Vec<_> =
                    series.samples().map(|s| format!("{}={}", s.at.0 - 1_800_000_000_000, s.value)).collect();
                format!("{} {} {} {:?} {}", key.subject, key.metric, key.unit, key.attributes, samples.join(" "))
            })
            .collect();
        assert_eq!(
            shown,
            [
                "node/node-a system.cpu.utilization 1 {} 0=0.25 1000=0.5 2000=0.75",
                "node/node-a system.disk.io By {\"disk.io.direction\": \"read\"} 0=100 1000=200 2000=300",
                "workload/job-7 aether.workload.progress {step} {} 1500=42",
            ]
        );
        assert_eq!((found.epoch, found.sequence, found.events.len()), (7, 3, 1));
        // What this version writes for hosts of those is the same, and each is smaller than the one before.
        let mut size = usize::MAX;
        for (schema, bytes) in FORMER {
            let (same, wire) = read(bytes);
            assert_eq!((wire.schema_id, &same), (schema, &found));
            let written = Encoder::for_reader(schema).encode(&found, 0);
            assert_eq!((written.schema_id, &written.samples), (schema, &wire.samples));
            assert!(wire.samples.len() < size, "{} {size}", wire.samples.len());
            size = wire.samples.len();
        }
        assert_eq!(Encoder::for_reader(0).encode(&found, 0).samples, first.samples, "one that did not say");
        let newest = Encoder::for_reader(99).encode(&found, 0);
        assert_eq!(newest.schema_id, SCHEMA_ID);
        assert!(newest.samples.len() < size, "{} {size}", newest.samples.len());
        assert_eq!(Decoder::default().decode(&NodeId::new("node-a"), &newest).unwrap(), found);
    }

    #[test]
    fn columns_that_do_not_fit_together_are_malformed() {
        type Spoil = fn(&mut v1::SampleColumns);
        let origin = NodeId::new("node-a");
        let spoilt: [(&str, Spoil); 6] = [
            ("there are no times", |columns| columns.places[0] = 7),
            ("not as many as series", |columns| columns.places.push(0)),
            ("as many times as values", |columns| columns.values.truncate(1)),
            ("more than times", |columns| columns.values.push(1.0)),
            ("more lists than there are", |columns| columns.times.push(v1::Times::default())),
            ("out of range", |columns| columns.times[0].deltas_ms = vec![i64::MAX, 1]),
        ];
        for (said, spoil) in spoilt {
            let mut wire = Encoder::default().encode(&batch(1), 0);
            let mut columns = v1::SampleColumns::decode(wire.samples.as_slice()).unwrap();
            spoil(&mut columns);
            wire.samples = columns.encode_to_vec();
            wire.samples_crc32 = crc32fast::hash(&wire.samples);
            // One that knows nothing, and one to which the same series came before.
            let mut knowing = Decoder::default();
            knowing.decode(&origin, &Encoder::default().encode(&batch(1), 0)).unwrap();
            for mut decoder in [Decoder::default(), knowing] {
                let found = decoder.decode(&origin, &wire);
                let Err(DecodeError::Malformed(error)) = found else { panic!("{said}: {found:?}") };
                assert!(error.to_string().contains(said), "{error}");
            }
        }
        let mut decoder = Decoder::default();
        let mut wire = Encoder::default().encode(&batch(1), 0);
        decoder.decode(&origin, &wire).unwrap();
        // Half a value at the end of the last field but the events.
        let mut columns = v1::SampleColumns::decode(wire.samples.as_slice()).unwrap();
        columns.events.clear();
        let mut bytes = columns.encode_to_vec();
        let length = bytes.len() - 2 * size_of::<f64>() - 1;
        bytes[length] += 4;
        bytes.extend([0; 4]);
        wire.samples_crc32 = crc32fast::hash(&bytes);
        wire.samples = bytes;
        let found = decoder.decode(&origin, &wire);
        assert!(matches!(found, Err(DecodeError::Malformed(_))), "{found:?}");
    }

    #[test]
    fn what_batches_have_in_common_is_held_once_however_they_alternate() {
        let origin = NodeId::new("node-a");
        let keys = ["a", "b", "c", "d"].map(|metric| {
            let first = batch(1).series.rows().remove(0).key;
            Arc::new(SeriesKey { metric: metric.into(), ..Arc::unwrap_or_clone(first) })
        });
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let mut seen: HashMap<u32, Arc<Layout>> = HashMap::new();
        let mut again = 0;
        for round in 0..200u32 {
            // Which series, and whether they have times of their own, or two of them.
            let kind = [3, 15, 3, 7, 3, 19, 3, 35, 60, 0][round as usize % 10] + 64 * u32::from(round == 150);
            let series = keys.iter().enumerate().filter(|(at, _)| kind & 1 << at != 0).map(|(at, key)| {
                let own = if kind & 16 == 0 { 0 } else { i64::try_from(at).unwrap() };
                let count = if kind & 32 == 0 { 1 } else { 2 };
                let sample = |n| Sample { at: Time(i64::from(round) * 1_000 + own + n), value: f64::from(round) };
                SeriesSamples { key: key.clone(), samples: (0..count).map(sample).collect() }
            });
            let told = Batch { sequence: u64::from(round) + 1, series: series.collect(), ..batch(1) };
            let mut wire = encoder.encode(&told, 0);
            if round == 150 {
                // The same number is another series from here on.
                wire.dictionary.push(v1::SeriesDefinition { metric: "z".into(), ..define(0, &keys[0]) });
                let found = decoder.decode(&origin, &wire).unwrap();
                assert_eq!(found.series.iter().map(|s| s.key.metric.as_str()).collect::<Vec<_>>(), ["z", "b"]);
                encoder = encoder.anew();
                decoder = Decoder::default();
                seen.clear();
                continue;
            }
            let found = decoder.decode(&origin, &wire).unwrap();
            assert_eq!(found, told, "{round}");
            let layout = seen.entry(kind).or_insert_with(|| Arc::clone(found.series.layout()));
            again += u32::from(Arc::ptr_eq(layout, found.series.layout()));
        }
        assert_eq!(again, 199);
    }

    #[test]
    fn layouts_that_never_come_again_are_not_kept() {
        let origin = NodeId::new("node-a");
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for round in 0..100 {
            let mut rows = batch(round + 1).series.rows();
            let at = Time(i64::try_from(round).unwrap() + 5_000);
            rows[0].samples.extend((0..round).map(|_| Sample { at, value: 1.0 }));
            let told = Batch { series: rows.into(), ..batch(round + 1) };
            assert_eq!(decoder.decode(&origin, &encoder.encode(&told, 0)).unwrap(), told);
        }
        assert!(decoder.seen.len() <= SEEN_DICTIONARIES, "{}", decoder.seen.len());
    }

    #[test]
    fn columns_of_a_former_schema_that_do_not_fit_together_are_malformed() {
        let mut wire = Encoder::for_reader(2).encode(&batch(1), 0);
        let whole = v1::SampleTable::decode(wire.samples.as_slice()).unwrap();
        let mut spoilt = [whole.clone(), whole];
        spoilt[0].columns[0].times = 7;
        spoilt[1].columns[0].values.push(1.0);
        for table in spoilt {
            wire.samples = table.encode_to_vec();
            wire.samples_crc32 = crc32fast::hash(&wire.samples);
            let found = Decoder::default().decode(&NodeId::new("node-a"), &wire);
            assert!(matches!(found, Err(DecodeError::Malformed(_))), "{found:?}");
        }
    }

    #[test]
    fn bad_batches_are_told_apart() {
        let origin = NodeId::new("node-a");
        let good = || Encoder::default().encode(&batch(1), 0);
        let decode = |wire| Decoder::default().decode(&origin, &wire);
        assert_eq!(decode(v1::TelemetryBatch { schema_id: 9, ..good() }), Err(DecodeError::Schema(9)));
        assert_eq!(decode(v1::TelemetryBatch { samples_crc32: 1, ..good() }), Err(DecodeError::Checksum));
        let undefined = decode(v1::TelemetryBatch { dictionary: vec![], ..good() });
        assert!(matches!(undefined, Err(DecodeError::Malformed(_))), "{undefined:?}");
        let samples = vec![0xff; 10];
        let garbage = decode(v1::TelemetryBatch { samples_crc32: crc32fast::hash(&samples), samples, ..good() });
        assert!(matches!(garbage, Err(DecodeError::Malformed(_))), "{garbage:?}");
    }
}
