//! Sorted rows into a file: row groups of bounded size, and every page with the CRC that the format has a place for.
//!
//! The `parquet` crate checks page CRCs and does not write them. So each column is written through a page writer of ours,
//! which puts the checksum into the header that the crate made; the finished column is then spliced into the file.

use super::{CONTENT_KEY, Content, EVENT, FORMAT, FORMAT_KEY, SAMPLE, SCHEMA, TEXTS, kind_text};
use crate::Error;
use aether_core::{
    id::NodeId,
    telemetry::{Batch, DiscreteEvent, Sample, SeriesKey},
    time::Time,
};
use bytes::Bytes;
use parquet::{
    basic::{Compression, Encoding, ZstdLevel},
    column::{
        page::{CompressedPage, PageWriteSpec, PageWriter},
        writer::{ColumnCloseResult, get_column_writer, get_typed_column_writer},
    },
    data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type},
    errors::ParquetError,
    file::{
        metadata::{KeyValue, SortingColumn},
        properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr},
        writer::{SerializedFileWriter, SerializedPageWriter, TrackedWrite},
    },
    schema::{
        parser::parse_message_type,
        types::{ColumnDescPtr, ColumnPath},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::Write,
    sync::Arc,
};

const ROWS_PER_GROUP: usize = 262_144;
/// Few enough that one node's hour is a small part of a large fleet's, enough that indexes stay small beside the pages.
const ROWS_PER_PAGE: usize = 10_000;
/// Rows handed to a column at a time.
const CHUNK: usize = 4_096;

/// The texts of a row, in the order of the columns.
pub(super) type Texts = [ByteArray; TEXTS];

/// Everything of a row but its texts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) at: i64,
    pub(super) epoch: u64,
    pub(super) sequence: u64,
    pub(super) value: Option<f64>,
}

impl Row {
    /// Rows of equal texts are in this order.
    pub(super) fn order(&self) -> (i64, u64, u64) {
        (self.at, self.epoch, self.sequence)
    }
}

/// Takes rows in their order. Holds at most one row group of them, and the file as far as it is written.
pub(super) struct Writer {
    file: SerializedFileWriter<Vec<u8>>,
    properties: WriterPropertiesPtr,
    columns: Vec<ColumnDescPtr>,
    /// Of the current row group. A row names its texts by their place here.
    texts: Vec<Texts>,
    rows: Vec<(usize, Row)>,
}

impl Writer {
    pub(super) fn new(content: &Content) -> Result<Self, ParquetError> {
        let properties = Arc::new(properties(content)?);
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        let file = SerializedFileWriter::new(Vec::new(), schema, Arc::clone(&properties))?;
        let columns = file.schema_descr().columns().to_vec();
        Ok(Self { file, properties, columns, texts: Vec::new(), rows: Vec::new() })
    }

    /// The rows that follow have these texts.
    pub(super) fn texts(&mut self, texts: Texts) {
        self.texts.push(texts);
    }

    pub(super) fn push(&mut self, row: Row) -> Result<(), ParquetError> {
        if self.rows.len() >= ROWS_PER_GROUP {
            self.flush()?;
        }
        let of = self.texts.len().checked_sub(1);
        self.rows.push((of.ok_or_else(|| ParquetError::General("a row without texts".to_owned()))?, row));
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Vec<u8>, ParquetError> {
        self.flush()?;
        self.file.into_inner()
    }

    fn flush(&mut self) -> Result<(), ParquetError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let (rows, texts, properties) = (&self.rows, &self.texts, &self.properties);
        let mut group = self.file.next_row_group()?;
        for (i, column) in self.columns.iter().enumerate() {
            let (bytes, close) = match i {
                ..TEXTS => column_of::<ByteArrayType>(column, properties, rows, |(of, _)| Some(texts[*of][i].clone())),
                super::AT => column_of::<Int64Type>(column, properties, rows, |(_, row)| Some(row.at)),
                super::EPOCH => {
                    column_of::<Int64Type>(column, properties, rows, |(_, row)| Some(row.epoch.cast_signed()))
                }
                super::SEQUENCE => {
                    column_of::<Int64Type>(column, properties, rows, |(_, row)| Some(row.sequence.cast_signed()))
                }
                _ => column_of::<DoubleType>(column, properties, rows, |(_, row)| row.value),
            }?;
            group.append_column(&bytes, close)?;
        }
        group.close()?;
        self.rows.clear();
        let last = self.texts.pop();
        self.texts.clear();
        self.texts.extend(last);
        Ok(())
    }
}

/// One column of a row group, as the bytes of its pages.
fn column_of<T: DataType>(
    column: &ColumnDescPtr,
    properties: &WriterPropertiesPtr,
    rows: &[(usize, Row)],
    value: impl Fn(&(usize, Row)) -> Option<T::T>,
) -> Result<(Bytes, ColumnCloseResult), ParquetError> {
    let mut pages = TrackedWrite::new(Vec::new());
    let optional = column.max_def_level() > 0;
    let sink = Box::new(CheckedPages { sink: &mut pages });
    let mut writer = get_typed_column_writer::<T>(get_column_writer(Arc::clone(column), Arc::clone(properties), sink));
    for chunk in rows.chunks(CHUNK) {
        let levels: Option<Vec<i16>> =
            optional.then(|| chunk.iter().map(|row| i16::from(value(row).is_some())).collect());
        let values: Vec<T::T> = chunk.iter().filter_map(&value).collect();
        writer.write_batch(&values, levels.as_deref(), None)?;
    }
    let close = writer.close()?;
    Ok((pages.into_inner()?.into(), close))
}

/// Writes pages with their CRC.
struct CheckedPages<'a> {
    sink: &'a mut TrackedWrite<Vec<u8>>,
}

impl PageWriter for CheckedPages<'_> {
    fn write_page(&mut self, page: CompressedPage) -> Result<PageWriteSpec, ParquetError> {
        let (crc, length) = (crc32fast::hash(page.data()), page.data().len());
        let mut plain = TrackedWrite::new(Vec::new());
        let mut spec = SerializedPageWriter::new(&mut plain).write_page(page)?;
        let plain = plain.into_inner()?;
        let (header, data) = plain.split_at(plain.len() - length);
        let checked = with_crc(header, crc)?;
        let more = checked.len() - header.len();
        spec.offset = u64::try_from(self.sink.bytes_written()).unwrap_or(u64::MAX);
        spec.bytes_written += u64::try_from(more).unwrap_or(u64::MAX);
        spec.compressed_size += more;
        spec.uncompressed_size += more;
        self.sink.write_all(&checked)?;
        self.sink.write_all(data)?;
        Ok(spec)
    }

    fn close(&mut self) -> Result<(), ParquetError> {
        Ok(self.sink.flush()?)
    }
}

/// A page header (Thrift's compact protocol) with field 4, the CRC of the page's data as it is stored.
///
/// Fields 1 to 3 are integers and always there; what follows is a struct, whose number is written as the distance from
/// the field before. Source: `parquet.thrift` of apache/parquet-format, and Thrift's `thrift-compact-protocol.md`.
fn with_crc(header: &[u8], crc: u32) -> Result<Vec<u8>, ParquetError> {
    /// The next field, an integer.
    const INTEGER: u8 = 0x15;
    const STRUCT: u8 = 0x0c;
    let other = || ParquetError::General("a page header is not as it is expected to be".to_owned());
    let mut at = 0;
    for _ in 0..3 {
        if header.get(at) != Some(&INTEGER) {
            return Err(other());
        }
        at += 1;
        while header.get(at).ok_or_else(other)? & 0x80 != 0 {
            at += 1;
        }
        at += 1;
    }
    let (before, rest) = header.split_at_checked(at).ok_or_else(other)?;
    let (next, rest) = rest.split_first().ok_or_else(other)?;
    if next & 0x0f != STRUCT || next >> 4 < 2 {
        return Err(other());
    }
    let mut out = Vec::with_capacity(header.len() + 6);
    out.extend_from_slice(before);
    out.push(INTEGER);
    let signed = crc.cast_signed();
    let mut zigzag = ((signed << 1) ^ (signed >> 31)).cast_unsigned();
    while zigzag >= 0x80 {
        out.push(zigzag.to_le_bytes()[0] | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag.to_le_bytes()[0]);
    out.push(next - 0x10);
    out.extend_from_slice(rest);
    Ok(out)
}

/// A segment of these batches as bytes.
pub(crate) fn encode(batches: &[Arc<Batch>], content: &Content) -> Result<Bytes, Error> {
    encode_rows(batches, content).map(Bytes::from).map_err(Error::Encode)
}

fn encode_rows(batches: &[Arc<Batch>], content: &Content) -> Result<Vec<u8>, ParquetError> {
    // Batches of one stream share their keys: so texts are compared once per series, and integers for the rows.
    let mut shared: HashMap<(*const SeriesKey, &str), (&SeriesKey, Vec<Row>)> = HashMap::new();
    for batch in batches {
        let (origin, epoch, sequence) = (batch.origin.as_str(), batch.epoch, batch.sequence);
        for series in &batch.series {
            let row = |s: &Sample| Row { at: s.at.0, epoch, sequence, value: Some(s.value) };
            let place = shared.entry((Arc::as_ptr(&series.key), origin)).or_insert_with(|| (&series.key, vec![]));
            place.1.extend(series.samples.iter().map(row));
        }
    }
    let mut groups: BTreeMap<[&str; TEXTS], Vec<Row>> = BTreeMap::new();
    let mut attributes: BTreeMap<&BTreeMap<String, String>, String> = BTreeMap::new();
    let of_events = batches.iter().flat_map(|batch| batch.events.iter().map(|event| &event.attributes));
    for map in shared.values().map(|(key, _)| &key.attributes).chain(of_events) {
        if !attributes.contains_key(map) {
            attributes.insert(map, serde_json::to_string(map).map_err(|e| ParquetError::External(Box::new(e)))?);
        }
    }
    for ((_, origin), (key, rows)) in shared {
        let (kind, id) = (kind_text(key.subject.kind), key.subject.id.as_str());
        let texts = [kind, id, SAMPLE, &key.metric, &key.unit, &attributes[&key.attributes], origin];
        groups.entry(texts).or_default().extend(rows);
    }
    for batch in batches {
        let (origin, epoch, sequence) = (batch.origin.as_str(), batch.epoch, batch.sequence);
        for event in &batch.events {
            let (kind, id) = (kind_text(event.subject.kind), event.subject.id.as_str());
            let texts = [kind, id, EVENT, &event.name, "", &attributes[&event.attributes], origin];
            groups.entry(texts).or_default().push(Row { at: event.at.0, epoch, sequence, value: None });
        }
    }
    let mut writer = Writer::new(content)?;
    for (texts, mut rows) in groups {
        rows.sort_unstable_by_key(Row::order);
        writer.texts(texts.map(ByteArray::from));
        for row in rows {
            writer.push(row)?;
        }
    }
    writer.finish()
}

/// A file of these samples and events, whose batches are not known.
pub(crate) fn encode_parts(
    series: &BTreeMap<(SeriesKey, NodeId), BTreeMap<Time, f64>>,
    events: &BTreeSet<(Time, NodeId, DiscreteEvent)>,
    content: &Content,
) -> Result<Bytes, Error> {
    let encode = || {
        let json = |map: &BTreeMap<String, String>| {
            serde_json::to_string(map).map_err(|e| ParquetError::External(Box::new(e)))
        };
        let mut groups: BTreeMap<[String; TEXTS], Vec<Row>> = BTreeMap::new();
        let row = |at: &Time, value| Row { at: at.0, epoch: 0, sequence: 0, value };
        for ((key, origin), samples) in series {
            let SeriesKey { subject, metric, unit, attributes } = key;
            let texts =
                [kind_text(subject.kind), &subject.id, SAMPLE, metric, unit, &json(attributes)?, origin.as_str()];
            let rows = samples.iter().map(|(at, value)| row(at, Some(*value))).collect();
            groups.insert(texts.map(str::to_owned), rows);
        }
        for (at, origin, event) in events {
            let DiscreteEvent { subject, name, at: _, attributes } = event;
            let texts = [kind_text(subject.kind), &subject.id, EVENT, name, "", &json(attributes)?, origin.as_str()];
            groups.entry(texts.map(str::to_owned)).or_default().push(row(at, None));
        }
        let mut writer = Writer::new(content)?;
        for (texts, rows) in &groups {
            writer.texts(texts.each_ref().map(|text| ByteArray::from(text.as_str())));
            rows.iter().try_for_each(|row| writer.push(*row))?;
        }
        writer.finish()
    };
    encode().map(Bytes::from).map_err(Error::Encode)
}

fn properties(content: &Content) -> Result<WriterProperties, ParquetError> {
    let text = serde_json::to_string(content).map_err(|e| ParquetError::External(Box::new(e)))?;
    let sorting = (0..=super::AT).map(|i| SortingColumn {
        column_idx: i32::try_from(i).unwrap_or(i32::MAX),
        descending: false,
        nulls_first: false,
    });
    let mut builder = WriterProperties::builder()
        .set_created_by(format!("aether-recorder {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_data_page_row_count_limit(ROWS_PER_PAGE)
        .set_sorting_columns(Some(sorting.collect()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn varint(out: &mut Vec<u8>, n: i32) {
        let mut zigzag = ((n << 1) ^ (n >> 31)).cast_unsigned();
        while zigzag >= 0x80 {
            out.push(u8::try_from(zigzag & 0x7f).expect("seven bits") | 0x80);
            zigzag >>= 7;
        }
        out.push(u8::try_from(zigzag).expect("seven bits"));
    }

    proptest! {
        #[test]
        fn a_crc_goes_between_the_sizes_and_the_page_s_own_header(sizes in any::<[i32; 2]>(), crc in any::<u32>(), field in prop_oneof![Just(5u8), Just(7), Just(8)]) {
            let header = |crc: Option<u32>| {
                let mut out = vec![0x15];
                varint(&mut out, 0);
                for size in sizes {
                    out.push(0x15);
                    varint(&mut out, size);
                }
                if let Some(crc) = crc {
                    out.push(0x15);
                    varint(&mut out, crc.cast_signed());
                }
                out.push((field - if crc.is_some() { 4 } else { 3 }) << 4 | 0x0c);
                out.extend_from_slice(b"rest");
                out
            };
            prop_assert_eq!(with_crc(&header(None), crc).expect("a header"), header(Some(crc)));
            prop_assert!(with_crc(&header(Some(crc)), crc).is_err(), "it has one already");
            for cut in 0..header(None).len() - 4 {
                prop_assert!(with_crc(&header(None)[..cut], crc).is_err());
            }
        }
    }
}
