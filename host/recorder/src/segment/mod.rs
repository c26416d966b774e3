//! The file format: one Parquet file per seal, as `docs/recorder.md` describes it for those who read it elsewhere.
//!
//! Rows are sorted by subject, kind, series, origin and time, so that one subject's rows are a few neighbouring pages.
//! The footer carries which batches the rows are of and how far each origin's stream is settled, so that a start needs
//! no rows for deduplication. Written and read without Arrow: eleven flat columns do not need it.

mod merge;
mod read;
mod texts;
mod write;

pub(crate) use merge::merge;
pub(crate) use read::{Parts, Step, decode, footer, plan};
pub(crate) use write::{encode, encode_parts};

use crate::{
    Error,
    positions::{EpochRecord, Ranges},
};
use aether_core::{
    id::NodeId,
    subject::{SubjectKind, SubjectRef},
    telemetry::{Batch, DiscreteEvent, Sample, SeriesKey},
    time::Time,
};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Rises when the columns change in a way that an older reader cannot follow.
const FORMAT: &str = "1";
const FORMAT_KEY: &str = "aether.recorder.format";
const CONTENT_KEY: &str = "aether.recorder.content";
/// What a footer may take, before it is not believed.
const FOOTER_LIMIT: usize = 64 << 20;

const SCHEMA: &str = "
message aether_telemetry {
  required binary subject_kind (string);
  required binary subject_id (string);
  required binary kind (string);
  required binary name (string);
  required binary unit (string);
  required binary attributes (string);
  required binary origin (string);
  required int64 timestamp (timestamp(millis,true));
  required int64 epoch (integer(64,false));
  required int64 sequence (integer(64,false));
  optional double value;
}";
/// The columns by place. The first seven are texts.
const TEXTS: usize = 7;
const SUBJECT_KIND: usize = 0;
const SUBJECT_ID: usize = 1;
const KIND: usize = 2;
const NAME: usize = 3;
const UNIT: usize = 4;
const ATTRIBUTES: usize = 5;
const ORIGIN: usize = 6;
const AT: usize = 7;
const EPOCH: usize = 8;
const SEQUENCE: usize = 9;
const VALUE: usize = 10;
const SAMPLE: &str = "sample";
const EVENT: &str = "event";

/// What a segment's footer says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    pub(crate) number: u64,
    /// Of a merged segment: it holds the rows of all that have numbers from here to its own, and stands for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) first: Option<u64>,
    pub(crate) sealed_at: Time,
    /// Of the oldest and the newest row.
    pub(crate) from: Time,
    pub(crate) to: Time,
    pub(crate) samples: u64,
    pub(crate) events: u64,
    /// Which batches the rows are of: by origin and epoch, inclusive ranges.
    pub(crate) covers: Vec<Covered>,
    /// Whether `positions` names every origin, and not only those that have batches here.
    pub(crate) complete: bool,
    /// How far each origin's stream is settled, this segment included. The last epoch is the current one.
    pub(crate) positions: BTreeMap<NodeId, Vec<EpochRecord>>,
}

impl Content {
    /// Of a file that is no segment: an export, or evidence.
    pub(crate) fn apart(now: Time, from: Time, to: Time, samples: u64, events: u64) -> Self {
        Self {
            number: 0,
            first: None,
            sealed_at: now,
            from,
            to,
            samples,
            events,
            covers: Vec::new(),
            complete: false,
            positions: BTreeMap::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Covered {
    pub(crate) origin: NodeId,
    pub(crate) epoch: u64,
    pub(crate) ranges: Ranges,
}

/// One series' samples, or nothing but events, as read back.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Rows {
    pub(crate) series: Vec<(SeriesKey, NodeId, Vec<Sample>)>,
    pub(crate) events: Vec<(NodeId, DiscreteEvent)>,
    /// Rows that could not be read, because a page that holds them or lies next to them is damaged; and how.
    pub(crate) damaged: u64,
    pub(crate) damage: Option<String>,
}

/// Which rows are wanted; by default all.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// None: all.
    pub(crate) subjects: Option<Arc<BTreeSet<SubjectRef>>>,
    /// None named: all.
    pub(crate) names: Arc<BTreeSet<String>>,
    /// Both inclusive.
    pub(crate) from: Time,
    pub(crate) to: Time,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { subjects: None, names: Arc::default(), from: Time(i64::MIN), to: Time(i64::MAX) }
    }
}

fn kind_text(kind: SubjectKind) -> &'static str {
    match kind {
        SubjectKind::Node => "node",
        SubjectKind::Gpu => "gpu",
        SubjectKind::Workload => "workload",
        SubjectKind::Pool => "pool",
        SubjectKind::Participant => "participant",
    }
}

fn kind_of(text: &[u8]) -> Option<SubjectKind> {
    Some(match text {
        b"node" => SubjectKind::Node,
        b"gpu" => SubjectKind::Gpu,
        b"workload" => SubjectKind::Workload,
        b"pool" => SubjectKind::Pool,
        b"participant" => SubjectKind::Participant,
        _ => return None,
    })
}

/// The span of time that the batches' rows cover; `None` without rows.
pub(crate) fn span(batches: &[Arc<Batch>]) -> Option<(Time, Time)> {
    let samples =
        batches.iter().flat_map(|b| b.series.times()).filter_map(|times| Some((*times.first()?, *times.last()?)));
    let events = batches.iter().flat_map(|b| &b.events).map(|e| (e.at, e.at));
    samples.chain(events).reduce(|(a, b), (from, to)| (a.min(from), b.max(to)))
}

/// Bytes of the footer, told by the last eight bytes of a file. `None` when they are not of a Parquet file.
pub(crate) fn footer_bytes(tail: &[u8]) -> Option<usize> {
    let tail = tail.last_chunk::<8>()?;
    let (length, magic) = tail.split_at(4);
    let length = usize::try_from(u32::from_le_bytes(length.try_into().ok()?)).ok()?;
    (magic == b"PAR1" && length <= FOOTER_LIMIT).then_some(length)
}

/// What the footer (without its last eight bytes) says.
pub(crate) fn read_footer(footer: &[u8]) -> Result<Content, Error> {
    content_of(&ParquetMetaDataReader::decode_metadata(footer).map_err(Error::Parquet)?)
}

fn content_of(metadata: &ParquetMetaData) -> Result<Content, Error> {
    let pairs = metadata.file_metadata().key_value_metadata();
    let value = |key: &str| pairs?.iter().find(|p| p.key == key)?.value.as_deref();
    match value(FORMAT_KEY) {
        Some(FORMAT) => {}
        Some(other) => {
            return Err(Error::Foreign(format!("its format is {other:.20}, and this version reads {FORMAT}")));
        }
        None => return Err(Error::Foreign("it carries no format of ours".to_owned())),
    }
    let text = value(CONTENT_KEY).ok_or_else(|| Error::Foreign("it does not say what it covers".to_owned()))?;
    serde_json::from_str(text)
        .map_err(|e| Error::Foreign(format!("what it says of its content is not understood ({e})")))
}

/// The wanted rows of a whole file.
pub(crate) fn decode_whole(bytes: bytes::Bytes, wanted: &Wanted) -> Result<Rows, Error> {
    let parts = Parts::whole(bytes);
    match footer(&parts)? {
        Step::Done(metadata) => decode(&metadata, parts, &plan(&metadata, wanted), wanted),
        Step::Wants(_) => Err(Error::Foreign("its footer is not where it should be".to_owned())),
    }
}

/// Which batches these are, for the footer.
pub(crate) fn covers(batches: &[Arc<Batch>]) -> Vec<Covered> {
    let all: BTreeSet<(&NodeId, u64, u64)> = batches.iter().map(|b| (&b.origin, b.epoch, b.sequence)).collect();
    let mut out: Vec<Covered> = Vec::new();
    for (origin, epoch, sequence) in all {
        if out.last().is_none_or(|c| c.origin != *origin || c.epoch != epoch) {
            out.push(Covered { origin: origin.clone(), epoch, ranges: Ranges::default() });
        }
        if let Some(last) = out.last_mut() {
            last.ranges.insert(sequence, sequence);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        positions::Ranges,
        testing::{NOW, batch, key, sample},
    };
    use aether_core::telemetry::SeriesSamples;
    use bytes::Bytes;
    use expect_test::expect;
    use parquet::{
        file::{
            reader::FileReader,
            serialized_reader::{ReadOptionsBuilder, SerializedFileReader},
            writer::SerializedFileWriter,
        },
        schema::{parser::parse_message_type, printer::print_schema},
    };
    use proptest::prelude::*;

    fn content(batches: &[Arc<Batch>]) -> Content {
        let (from, to) = span(batches).unwrap_or((NOW, NOW));
        let mut settled = Ranges::default();
        settled.insert(1, 9);
        let record = EpochRecord { epoch: 1, base: 1, settled };
        Content {
            number: 7,
            first: None,
            sealed_at: NOW,
            from,
            to,
            samples: 3,
            events: 1,
            covers: covers(batches),
            complete: true,
            positions: BTreeMap::from([(NodeId::new("node-a"), vec![record])]),
        }
    }

    fn two_batches() -> Vec<Arc<Batch>> {
        let mut first = batch("node-a", 1, &[sample(NOW.0, 0.5), sample(NOW.0 + 1_000, 0.25)]);
        let event = DiscreteEvent {
            subject: SubjectRef::node("node-a"),
            name: "aether.market.rebalance".to_owned(),
            at: NOW,
            attributes: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        };
        first.events.push(event);
        let second = batch("node-a", 2, &[sample(NOW.0 + 2_000, 0.125)]);
        vec![Arc::new(first), Arc::new(second)]
    }

    /// The format is a contract with whoever reads the files elsewhere.
    #[test]
    fn the_format_is_golden() {
        let batches = two_batches();
        let bytes = encode(&batches, &content(&batches)).expect("encodes");
        let reader = SerializedFileReader::new_with_options(bytes, ReadOptionsBuilder::new().with_page_index().build())
            .expect("reads");
        let metadata = reader.metadata();
        let mut schema = Vec::new();
        print_schema(&mut schema, metadata.file_metadata().schema());
        let mut text = String::from_utf8(schema).expect("UTF-8");
        let group = metadata.row_group(0);
        for column in group.columns() {
            let encodings: Vec<_> = column.encodings().map(|e| e.to_string()).collect();
            text += &format!("{} {} {}\n", column.column_path(), column.compression(), encodings.join("+"));
        }
        let sorting: Vec<_> =
            group.sorting_columns().expect("sorted").iter().map(|c| c.column_idx.to_string()).collect();
        text += &format!("sorted by {}\n", sorting.join(" "));
        text += &format!(
            "page index {}\n",
            group.columns().iter().all(|c| c.column_index_range().is_some() && c.offset_index_range().is_some())
        );
        for pair in metadata.file_metadata().key_value_metadata().expect("pairs") {
            text += &format!("{} = {}\n", pair.key, pair.value.as_deref().unwrap_or(""));
        }
        expect![[r#"
            message aether_telemetry {
              REQUIRED BYTE_ARRAY subject_kind (STRING);
              REQUIRED BYTE_ARRAY subject_id (STRING);
              REQUIRED BYTE_ARRAY kind (STRING);
              REQUIRED BYTE_ARRAY name (STRING);
              REQUIRED BYTE_ARRAY unit (STRING);
              REQUIRED BYTE_ARRAY attributes (STRING);
              REQUIRED BYTE_ARRAY origin (STRING);
              REQUIRED INT64 timestamp (TIMESTAMP(MILLIS,true));
              REQUIRED INT64 epoch (INTEGER(64,false));
              REQUIRED INT64 sequence (INTEGER(64,false));
              OPTIONAL DOUBLE value;
            }
            "subject_kind" ZSTD(ZstdLevel(1)) PLAIN+RLE+RLE_DICTIONARY
            "subject_id" ZSTD(ZstdLevel(1)) PLAIN+RLE+RLE_DICTIONARY
            "kind" ZSTD(ZstdLevel(1)) PLAIN+RLE+RLE_DICTIONARY
            "name" ZSTD(ZstdLevel(1)) PLAIN+RLE+RLE_DICTIONARY
            "unit" ZSTD(ZstdLevel(1)) PLAIN+RLE+RLE_DICTIONARY
            "attributes" ZSTD(ZstdLevel(1)) PLAIN+RLE+RLE_DICTIONARY
            "origin" ZSTD(ZstdLevel(1)) PLAIN+RLE+RLE_DICTIONARY
            "timestamp" ZSTD(ZstdLevel(1)) RLE+DELTA_BINARY_PACKED
            "epoch" ZSTD(ZstdLevel(1)) RLE+DELTA_BINARY_PACKED
            "sequence" ZSTD(ZstdLevel(1)) RLE+DELTA_BINARY_PACKED
            "value" ZSTD(ZstdLevel(1)) RLE+BYTE_STREAM_SPLIT
            sorted by 0 1 2 3 4 5 6 7
            page index true
            aether.recorder.format = 1
            aether.recorder.content = {"number":7,"sealed_at":1795226400000,"from":1795226400000,"to":1795226402000,"samples":3,"events":1,"covers":[{"origin":"node-a","epoch":1,"ranges":[[1,2]]}],"complete":true,"positions":{"node-a":[{"epoch":1,"base":1,"settled":[[1,9]]}]}}
        "#]].assert_eq(&text);
    }

    #[test]
    fn a_footer_is_read_without_the_rows() {
        let batches = two_batches();
        let content = content(&batches);
        let bytes = encode(&batches, &content).expect("encodes");
        let length = footer_bytes(&bytes).expect("a footer");
        let footer = &bytes[bytes.len() - 8 - length..bytes.len() - 8];
        assert_eq!(read_footer(footer).expect("reads"), content);
    }

    #[test]
    fn another_parquet_file_is_foreign_and_damage_is_an_error() {
        let schema = Arc::new(parse_message_type("message other { required int64 n; }").expect("schema"));
        let writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).expect("writer");
        let other = Bytes::from(writer.into_inner().expect("closes"));
        assert!(matches!(decode_whole(other, &Wanted::default()), Err(Error::Foreign(_))));
        let batches = two_batches();
        let bytes = encode(&batches, &content(&batches)).expect("encodes");
        for cut in [0, 3, 8, bytes.len() / 2, bytes.len() - 1] {
            assert!(decode_whole(bytes.slice(..cut), &Wanted::default()).is_err(), "cut to {cut}");
        }
    }

    /// Texts that fill pages, that are longer than bounds may be, and of which there are too many for a dictionary.
    #[test]
    fn texts_of_every_length_and_number_come_back_and_lead_to_their_rows() {
        let series = |name: &str, text: String, count: u32| {
            let mut key = key(SubjectRef::node("node-a"), name);
            key.attributes = BTreeMap::from([("text".to_owned(), text)]);
            // Values that no compression makes small.
            let samples = (0..count).map(|n| sample(NOW.0 + i64::from(n), f64::from(n).sin())).collect();
            SeriesSamples { key: Arc::new(key), samples }
        };
        let long = |n: u32| format!("{n:04}{}", "x".repeat(1_000));
        let mut batch = batch("node-a", 1, &[]);
        let mut rows =
            vec![series("a", String::new(), 25_000), series("b", long(0), 12_345), series("c", "short".to_owned(), 1)];
        batch.series = rows.clone().into();
        let few = [Arc::new(batch.clone())];
        rows.extend((1..1_200).map(|n| series("d", long(n), 3)));
        batch.series = rows.into();
        let many = [Arc::new(batch)];
        for batches in [&few, &many] {
            let bytes = encode(batches, &content(batches)).expect("encodes");
            let rows = decode_whole(bytes.clone(), &Wanted::default()).expect("decodes");
            let expected: Vec<_> = batches[0]
                .series
                .iter()
                .map(|one| ((**one.key).clone(), batches[0].origin.clone(), one.samples().collect()))
                .collect();
            assert_eq!(rows.series, expected);
            assert_eq!(rows.damaged, 0);
            let parts = Parts::whole(bytes.clone());
            let Ok(Step::Done(metadata)) = footer(&parts) else { panic!("a footer") };
            let names = Arc::new(BTreeSet::from(["c".to_owned()]));
            let fetched = plan(&metadata, &Wanted { names, ..Wanted::default() });
            let all = plan(&metadata, &Wanted::default());
            assert!(fetched.bytes * 2 < all.bytes, "{} of {}", fetched.bytes, all.bytes);
        }
    }

    fn any_batches() -> impl Strategy<Value = Vec<Arc<Batch>>> {
        let samples =
            proptest::collection::btree_map(0i64..5_000, any::<f64>().prop_filter("finite", |v| v.is_finite()), 1..30);
        let series = ("[ab]", "[xyz]", "[é\"\\\\ ]{0,3}", samples);
        proptest::collection::vec(("node-[ab]", proptest::collection::vec(series, 0..6)), 1..5).prop_map(|batches| {
            let batches = (1..).zip(batches).map(|(sequence, (origin, all))| {
                let series = all.into_iter().map(|(id, metric, attribute, samples)| {
                    let mut key = key(SubjectRef::workload(id), &metric);
                    key.attributes.insert("a".to_owned(), attribute);
                    SeriesSamples {
                        key: key.into(),
                        samples: samples.into_iter().map(|(at, value)| sample(NOW.0 + at, value)).collect(),
                    }
                });
                Arc::new(Batch {
                    origin: NodeId::new(origin),
                    epoch: 1,
                    sequence,
                    series: series.collect(),
                    events: Vec::new(),
                })
            });
            batches.collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// What goes in comes out, whole or by subject and name; of two values for one time, the later batch's.
        #[test]
        fn rows_come_back(batches in any_batches()) {
            let mut expected: BTreeMap<(SeriesKey, NodeId), BTreeMap<Time, u64>> = BTreeMap::new();
            for (batch, series) in batches.iter().flat_map(|b| b.series.iter().map(move |s| (b, s))) {
                let of = expected.entry(((**series.key).clone(), batch.origin.clone())).or_default();
                for s in series.samples() {
                    of.insert(s.at, s.value.to_bits());
                }
            }
            // A batch that names a series twice, with two values for one time, has no order to go by.
            let twice = batches.iter().any(|b| b.series.layout().keys().collect::<BTreeSet<_>>().len() < b.series.len());
            prop_assume!(!twice);
            let bytes = encode(&batches, &content(&batches)).expect("encodes");
            let read = |wanted: &Wanted| {
                let rows = decode_whole(bytes.clone(), wanted).expect("decodes");
                let bits = |samples: Vec<Sample>| samples.into_iter().map(|s| (s.at, s.value.to_bits())).collect::<BTreeMap<_, _>>();
                rows.series.into_iter().map(|(key, origin, samples)| ((key, origin), bits(samples))).collect::<BTreeMap<_, _>>()
            };
            prop_assert_eq!(read(&Wanted::default()), expected.clone());
            for id in ["a", "b", "c"] {
                for name in ["x", "y"] {
                    let wanted = Wanted { subjects: Some(Arc::new(BTreeSet::from([SubjectRef::workload(id)]))), names: Arc::new(BTreeSet::from([name.to_owned()])), ..Wanted::default() };
                    let part = expected.clone().into_iter().filter(|((key, _), _)| key.subject.id == id && key.metric == name).collect();
                    prop_assert_eq!(read(&wanted), part);
                }
            }
        }

        /// A flipped byte is an error or other rows, and nothing worse.
        #[test]
        fn a_flipped_byte_takes_nobody_down(at in any::<proptest::sample::Index>(), mask in 1u8..) {
            let batches = two_batches();
            let mut bytes = encode(&batches, &content(&batches)).expect("encodes").to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= mask;
            let outcome = std::panic::catch_unwind(|| decode_whole(Bytes::from(bytes), &Wanted::default()).is_ok());
            // A panic of the decoder is taken for an unreadable file (it runs on a blocking thread); what must not happen
            // is an abort, such as for an absurd allocation, or a hang. Either fails this test.
            let _ = outcome;
        }
    }
}
