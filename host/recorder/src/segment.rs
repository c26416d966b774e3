//! The file format: one Parquet file per seal, as `docs/recorder.md` describes it for those who read it elsewhere.
//!
//! Rows are sorted by subject, kind, series, origin and time, so that one subject's rows are a few neighbouring pages.
//! The footer carries which batches the rows are of and how far each origin's stream is settled, so that a start needs
//! no rows for deduplication. Written and read without Arrow: eleven flat columns do not need it.

use crate::{Error, positions::EpochRecord};
use aether_core::{
    id::NodeId,
    subject::{SubjectKind, SubjectRef},
    telemetry::{Batch, DiscreteEvent, Sample, SeriesKey},
    time::Time,
};
use bytes::Bytes;
use parquet::{
    basic::{Compression, Encoding, ZstdLevel},
    column::reader::get_typed_column_reader,
    data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type},
    errors::ParquetError,
    file::{
        metadata::{KeyValue, ParquetMetaData, ParquetMetaDataReader, SortingColumn},
        properties::{EnabledStatistics, WriterProperties},
        reader::{FileReader, RowGroupReader},
        serialized_reader::{ReadOptionsBuilder, SerializedFileReader},
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::{parser::parse_message_type, types::ColumnPath},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// Rises when the columns change in a way that an older reader cannot follow.
const FORMAT: &str = "1";
const FORMAT_KEY: &str = "aether.recorder.format";
const CONTENT_KEY: &str = "aether.recorder.content";
const ROWS_PER_GROUP: usize = 262_144;
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
const SUBJECT_KIND: usize = 0;
const SUBJECT_ID: usize = 1;
const KIND: usize = 2;
const NAME: usize = 3;
const UNIT: usize = 4;
const ATTRIBUTES: usize = 5;
const ORIGIN: usize = 6;
const AT: usize = 7;
const VALUE: usize = 10;
const SAMPLE: &str = "sample";
const EVENT: &str = "event";

/// What a segment's footer says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    pub(crate) number: u64,
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

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Covered {
    pub(crate) origin: NodeId,
    pub(crate) epoch: u64,
    pub(crate) ranges: crate::positions::Ranges,
}

/// One series' samples, or nothing but events, as read back.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Rows {
    pub(crate) series: Vec<(SeriesKey, NodeId, Vec<Sample>)>,
    pub(crate) events: Vec<DiscreteEvent>,
}

/// Which rows are wanted. Nothing set means all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) subject: Option<SubjectRef>,
    pub(crate) names: BTreeSet<String>,
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

/// Everything of a row but its time, value and batch, ordered as rows are.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Group<'a> {
    subject_kind: &'static str,
    subject_id: &'a str,
    kind: &'static str,
    name: &'a str,
    unit: &'a str,
    attributes: String,
    origin: &'a str,
}

struct Row {
    group: u32,
    at: i64,
    epoch: u64,
    sequence: u64,
    value: Option<f64>,
}

/// The span of time that the batches' rows cover; `None` without rows.
pub(crate) fn span(batches: &[Arc<Batch>]) -> Option<(Time, Time)> {
    let samples =
        batches.iter().flat_map(|b| &b.series).filter_map(|s| Some((s.samples.first()?.at, s.samples.last()?.at)));
    let events = batches.iter().flat_map(|b| &b.events).map(|e| (e.at, e.at));
    samples.chain(events).reduce(|(a, b), (from, to)| (a.min(from), b.max(to)))
}

/// A segment as bytes.
pub(crate) fn encode(batches: &[Arc<Batch>], content: &Content) -> Result<Bytes, Error> {
    encode_rows(batches, content).map(Bytes::from).map_err(Error::Encode)
}

fn encode_rows(batches: &[Arc<Batch>], content: &Content) -> Result<Vec<u8>, ParquetError> {
    // Compare texts once per series, and integers for the rows.
    let mut groups: BTreeMap<Group<'_>, Vec<Row>> = BTreeMap::new();
    let json =
        |map: &BTreeMap<String, String>| serde_json::to_string(map).map_err(|e| ParquetError::External(Box::new(e)));
    for batch in batches {
        let (origin, epoch, sequence) = (batch.origin.as_str(), batch.epoch, batch.sequence);
        for series in &batch.series {
            let key = &series.key;
            let group = Group {
                subject_kind: kind_text(key.subject.kind),
                subject_id: &key.subject.id,
                kind: SAMPLE,
                name: &key.metric,
                unit: &key.unit,
                attributes: json(&key.attributes)?,
                origin,
            };
            let row = |s: &Sample| Row { group: 0, at: s.at.0, epoch, sequence, value: Some(s.value) };
            groups.entry(group).or_default().extend(series.samples.iter().map(row));
        }
        for event in &batch.events {
            let group = Group {
                subject_kind: kind_text(event.subject.kind),
                subject_id: &event.subject.id,
                kind: EVENT,
                name: &event.name,
                unit: "",
                attributes: json(&event.attributes)?,
                origin,
            };
            groups.entry(group).or_default().push(Row { group: 0, at: event.at.0, epoch, sequence, value: None });
        }
    }
    let mut texts: Vec<[ByteArray; 7]> = Vec::with_capacity(groups.len());
    let mut rows = Vec::new();
    for (i, (group, mut of_group)) in groups.into_iter().enumerate() {
        let i = u32::try_from(i).map_err(|_| ParquetError::General("more than 2^32 series".to_owned()))?;
        of_group.sort_unstable_by_key(|r| (r.at, r.epoch, r.sequence));
        rows.extend(of_group.into_iter().map(|row| Row { group: i, ..row }));
        let Group { subject_kind, subject_id, kind, name, unit, attributes, origin } = group;
        texts.push([subject_kind, subject_id, kind, name, unit, &attributes, origin].map(ByteArray::from));
    }

    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties(content)?))?;
    for chunk in rows.chunks(ROWS_PER_GROUP) {
        let mut group = writer.next_row_group()?;
        for column in [SUBJECT_KIND, SUBJECT_ID, KIND, NAME, UNIT, ATTRIBUTES, ORIGIN] {
            let values: Vec<ByteArray> = chunk.iter().map(|r| texts[index(r.group)][column].clone()).collect();
            write::<ByteArrayType>(&mut group, &values, None)?;
        }
        write::<Int64Type>(&mut group, &chunk.iter().map(|r| r.at).collect::<Vec<_>>(), None)?;
        write::<Int64Type>(&mut group, &chunk.iter().map(|r| r.epoch.cast_signed()).collect::<Vec<_>>(), None)?;
        write::<Int64Type>(&mut group, &chunk.iter().map(|r| r.sequence.cast_signed()).collect::<Vec<_>>(), None)?;
        let levels: Vec<i16> = chunk.iter().map(|r| i16::from(r.value.is_some())).collect();
        write::<DoubleType>(&mut group, &chunk.iter().filter_map(|r| r.value).collect::<Vec<_>>(), Some(&levels))?;
        group.close()?;
    }
    writer.into_inner()
}

fn index(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn write<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let mut column =
        group.next_column()?.ok_or_else(|| ParquetError::General("the schema has fewer columns".to_owned()))?;
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}

fn properties(content: &Content) -> Result<WriterProperties, ParquetError> {
    let text = serde_json::to_string(content).map_err(|e| ParquetError::External(Box::new(e)))?;
    let sorting = [SUBJECT_KIND, SUBJECT_ID, KIND, NAME, UNIT, ATTRIBUTES, ORIGIN, AT].map(|i| SortingColumn {
        column_idx: i32::try_from(i).unwrap_or(i32::MAX),
        descending: false,
        nulls_first: false,
    });
    let mut builder = WriterProperties::builder()
        .set_created_by(format!("aether-recorder {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_sorting_columns(Some(sorting.to_vec()))
        .set_key_value_metadata(Some(vec![
            KeyValue::new(FORMAT_KEY.to_owned(), FORMAT.to_owned()),
            KeyValue::new(CONTENT_KEY.to_owned(), text),
        ]));
    for (column, encoding) in [
        ("timestamp", Encoding::DELTA_BINARY_PACKED),
        ("epoch", Encoding::DELTA_BINARY_PACKED),
        ("sequence", Encoding::DELTA_BINARY_PACKED),
        ("value", Encoding::BYTE_STREAM_SPLIT),
    ] {
        let path = ColumnPath::from(column);
        builder = builder.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path, encoding);
    }
    Ok(builder.build())
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

/// The wanted rows. Pages in which there are none are skipped.
pub(crate) fn decode(bytes: Bytes, wanted: &Wanted) -> Result<Rows, Error> {
    let options = ReadOptionsBuilder::new().with_page_index().build();
    let reader = SerializedFileReader::new_with_options(bytes, options).map_err(Error::Parquet)?;
    content_of(reader.metadata())?;
    let expected = parse_message_type(SCHEMA).map_err(Error::Parquet)?;
    if reader.metadata().file_metadata().schema() != &expected {
        return Err(Error::Foreign("its columns are not those of a segment".to_owned()));
    }
    let mut rows = Rows::default();
    for i in 0..reader.num_row_groups() {
        let group = reader.get_row_group(i).map_err(Error::Parquet)?;
        decode_group(group.as_ref(), wanted, &mut rows)?;
    }
    Ok(rows)
}

fn decode_group(group: &dyn RowGroupReader, wanted: &Wanted, out: &mut Rows) -> Result<(), Error> {
    let total = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
    let mut picks: Vec<std::ops::Range<usize>> = std::iter::once(0..total).collect();
    // Each filter narrows what the next one has to read.
    let mut narrow = |column: usize, wanted: &dyn Fn(&[u8]) -> bool| -> Result<(), Error> {
        let values = read::<ByteArrayType>(group, column, &picks)?.0;
        let rows = picks.iter().cloned().flatten();
        let mut next: Vec<std::ops::Range<usize>> = Vec::new();
        for (row, _) in rows.zip(&values).filter(|(_, value)| wanted(value.data())) {
            match next.last_mut().filter(|last| last.end == row) {
                Some(last) => last.end += 1,
                None => next.push(row..row + 1),
            }
        }
        picks = next;
        Ok(())
    };
    if let Some(subject) = &wanted.subject {
        narrow(SUBJECT_ID, &|text| text == subject.id.as_bytes())?;
        narrow(SUBJECT_KIND, &|text| text == kind_text(subject.kind).as_bytes())?;
    }
    if !wanted.names.is_empty() {
        narrow(NAME, &|text| std::str::from_utf8(text).is_ok_and(|text| wanted.names.contains(text)))?;
    }
    if picks.is_empty() {
        return Ok(());
    }
    let text = |column| read::<ByteArrayType>(group, column, &picks).map(|(values, _)| values);
    let texts: [Vec<ByteArray>; 7] = [
        text(SUBJECT_KIND)?,
        text(SUBJECT_ID)?,
        text(KIND)?,
        text(NAME)?,
        text(UNIT)?,
        text(ATTRIBUTES)?,
        text(ORIGIN)?,
    ];
    let (times, _) = read::<Int64Type>(group, AT, &picks)?;
    let (values, levels) = read::<DoubleType>(group, VALUE, &picks)?;
    let mut values = values.into_iter();
    let mut intern = Interner::default();
    let foreign = |what: &str| Error::Foreign(format!("it holds {what}"));
    let mut last: Option<usize> = None;
    for row in 0..times.len() {
        let has_value = levels.get(row).is_some_and(|level| *level > 0);
        let value = if has_value { values.next() } else { None };
        let at = Time(times[row]);
        let same = last.is_some_and(|l| texts.iter().all(|column| column[l] == column[row]));
        let is_sample = texts[KIND][row].data() == SAMPLE.as_bytes();
        if !same {
            let kind =
                kind_of(texts[SUBJECT_KIND][row].data()).ok_or_else(|| foreign("a subject of a kind not known"))?;
            let mut get =
                |column: usize| intern.text(&texts[column][row]).ok_or_else(|| foreign("a text that is not UTF-8"));
            let subject = SubjectRef { kind, id: get(SUBJECT_ID)? };
            let (name, unit, json, origin) = (get(NAME)?, get(UNIT)?, get(ATTRIBUTES)?, get(ORIGIN)?);
            let attributes: BTreeMap<String, String> =
                serde_json::from_str(&json).map_err(|_| foreign("attributes that are not a JSON object of texts"))?;
            if is_sample {
                out.series.push((SeriesKey { subject, metric: name, unit, attributes }, NodeId(origin), Vec::new()));
            } else {
                out.events.push(DiscreteEvent { subject, name, at, attributes });
            }
        } else if !is_sample && let Some(event) = out.events.last().cloned() {
            out.events.push(DiscreteEvent { at, ..event });
        }
        last = Some(row);
        if is_sample && let (Some((_, _, samples)), Some(value)) = (out.series.last_mut(), value) {
            match samples.last_mut().filter(|s| s.at == at) {
                // Sorted by batch: the later word stands.
                Some(same) => same.value = value,
                None => samples.push(Sample { at, value }),
            }
        }
    }
    Ok(())
}

/// Texts of a segment repeat; validating each once is enough.
#[derive(Default)]
struct Interner(HashMap<Vec<u8>, String>);

impl Interner {
    fn text(&mut self, bytes: &ByteArray) -> Option<String> {
        if let Some(text) = self.0.get(bytes.data()) {
            return Some(text.clone());
        }
        let text = bytes.as_utf8().ok()?.to_owned();
        self.0.insert(bytes.data().to_vec(), text.clone());
        Some(text)
    }
}

/// The picked rows of one column: its values, and for a column with gaps which rows have one.
fn read<T: DataType>(
    group: &dyn RowGroupReader,
    column: usize,
    picks: &[std::ops::Range<usize>],
) -> Result<(Vec<T::T>, Vec<i16>), Error> {
    let optional = group.metadata().column(column).column_descr().max_def_level() > 0;
    let mut reader = get_typed_column_reader::<T>(group.get_column_reader(column).map_err(Error::Parquet)?);
    let (mut values, mut levels, mut at) = (Vec::new(), Vec::new(), 0);
    for pick in picks {
        let short = || Error::Foreign("a column has fewer rows than the file says".to_owned());
        if reader.skip_records(pick.start - at).map_err(Error::Parquet)? != pick.start - at {
            return Err(short());
        }
        let mut left = pick.len();
        while left > 0 {
            let (records, _, _) = reader
                .read_records(left, optional.then_some(&mut levels), None, &mut values)
                .map_err(Error::Parquet)?;
            if records == 0 {
                return Err(short());
            }
            left -= records;
        }
        at = pick.end;
    }
    Ok((values, levels))
}

/// Which batches these are, for the footer.
pub(crate) fn covers(batches: &[Arc<Batch>]) -> Vec<Covered> {
    let all: BTreeSet<(&NodeId, u64, u64)> = batches.iter().map(|b| (&b.origin, b.epoch, b.sequence)).collect();
    let mut out: Vec<Covered> = Vec::new();
    for (origin, epoch, sequence) in all {
        if out.last().is_none_or(|c| c.origin != *origin || c.epoch != epoch) {
            out.push(Covered { origin: origin.clone(), epoch, ranges: crate::positions::Ranges::default() });
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
    use expect_test::expect;
    use parquet::schema::printer::print_schema;
    use proptest::prelude::*;

    fn content(batches: &[Arc<Batch>]) -> Content {
        let (from, to) = span(batches).unwrap_or((NOW, NOW));
        let mut settled = Ranges::default();
        settled.insert(1, 9);
        let record = EpochRecord { epoch: 1, base: 1, settled };
        Content {
            number: 7,
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
        assert!(matches!(decode(other, &Wanted::default()), Err(Error::Foreign(_))));
        let batches = two_batches();
        let bytes = encode(&batches, &content(&batches)).expect("encodes");
        for cut in [0, 3, 8, bytes.len() / 2, bytes.len() - 1] {
            assert!(decode(bytes.slice(..cut), &Wanted::default()).is_err(), "cut to {cut}");
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
                        key,
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
                let of = expected.entry((series.key.clone(), batch.origin.clone())).or_default();
                for s in &series.samples {
                    of.insert(s.at, s.value.to_bits());
                }
            }
            // A batch that names a series twice, with two values for one time, has no order to go by.
            let twice = batches.iter().any(|b| b.series.iter().map(|s| &s.key).collect::<BTreeSet<_>>().len() < b.series.len());
            prop_assume!(!twice);
            let bytes = encode(&batches, &content(&batches)).expect("encodes");
            let read = |wanted: &Wanted| {
                let rows = decode(bytes.clone(), wanted).expect("decodes");
                let bits = |samples: Vec<Sample>| samples.into_iter().map(|s| (s.at, s.value.to_bits())).collect::<BTreeMap<_, _>>();
                rows.series.into_iter().map(|(key, origin, samples)| ((key, origin), bits(samples))).collect::<BTreeMap<_, _>>()
            };
            prop_assert_eq!(read(&Wanted::default()), expected.clone());
            for id in ["a", "b", "c"] {
                for name in ["x", "y"] {
                    let wanted = Wanted { subject: Some(SubjectRef::workload(id)), names: BTreeSet::from([name.to_owned()]) };
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
            let outcome = std::panic::catch_unwind(|| decode(Bytes::from(bytes), &Wanted::default()).is_ok());
            // A panic of the decoder is taken for an unreadable file (it runs on a blocking thread); what must not happen
            // is an abort, such as for an absurd allocation, or a hang. Either fails this test.
            let _ = outcome;
        }
    }
}
