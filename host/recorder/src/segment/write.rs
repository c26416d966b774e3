//! Sorted rows into a file: row groups of bounded size, and every page with the CRC that the format has a place for.
//!
//! The `parquet` crate checks page CRCs and does not write them. So each column is written through a page writer of ours,
//! which puts the checksum into the header that the crate made; the finished column is then spliced into the file.

use super::{
    CONTENT_KEY, Content, EVENT, FORMAT, FORMAT_KEY, SAMPLE, SCHEMA, TEXTS, kind_text,
    texts::{TextColumn, number, wide},
};
use crate::Error;
use aether_core::{
    id::NodeId,
    subject::SubjectRef,
    telemetry::{Batch, DiscreteEvent, Sample, SeriesKey},
    time::Time,
};
use bytes::Bytes;
use foldhash::fast::RandomState;
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
    array,
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    hash::Hash,
    io::Write,
    sync::Arc,
};

const ROWS_PER_GROUP: usize = 262_144;
/// Few enough that one node's hour is a small part of a large fleet's, enough that indexes stay small beside the pages.
pub(super) const ROWS_PER_PAGE: usize = 10_000;
pub(super) const ZSTD_LEVEL: i32 = 3;

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
    /// Of the current row group.
    texts: [TextColumn; TEXTS],
    /// Rows that have the texts of last, and are not counted there yet.
    uncounted: usize,
    times: Vec<i64>,
    epochs: Vec<i64>,
    sequences: Vec<i64>,
    /// Which rows have a value, as definition levels, and those values.
    levels: Vec<i16>,
    values: Vec<f64>,
}

impl Writer {
    pub(super) fn new(content: &Content) -> Result<Self, ParquetError> {
        let properties = Arc::new(properties(content)?);
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        let file = SerializedFileWriter::new(Vec::new(), schema, Arc::clone(&properties))?;
        let columns = file.schema_descr().columns().to_vec();
        let rows = usize::try_from(content.samples.saturating_add(content.events)).unwrap_or(usize::MAX);
        let rows = rows.min(ROWS_PER_GROUP);
        Ok(Self {
            file,
            properties,
            columns,
            texts: array::from_fn(|_| TextColumn::default()),
            uncounted: 0,
            times: Vec::with_capacity(rows),
            epochs: Vec::with_capacity(rows),
            sequences: Vec::with_capacity(rows),
            levels: Vec::with_capacity(rows),
            values: Vec::with_capacity(rows),
        })
    }

    /// The rows that follow have these texts.
    pub(super) fn texts(&mut self, texts: [&[u8]; TEXTS]) -> Result<(), ParquetError> {
        self.count()?;
        self.texts.iter_mut().zip(texts).for_each(|(column, text)| column.begin(text));
        Ok(())
    }

    fn count(&mut self) -> Result<(), ParquetError> {
        let rows = std::mem::take(&mut self.uncounted);
        self.texts.iter_mut().try_for_each(|column| column.add(rows))
    }

    pub(super) fn push(&mut self, row: Row) -> Result<(), ParquetError> {
        if self.times.len() >= ROWS_PER_GROUP {
            self.flush()?;
        }
        let Row { at, epoch, sequence, value } = row;
        self.uncounted += 1;
        self.times.push(at);
        self.epochs.push(epoch.cast_signed());
        self.sequences.push(sequence.cast_signed());
        self.levels.push(i16::from(value.is_some()));
        if let Some(value) = value {
            self.values.push(value);
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Vec<u8>, ParquetError> {
        self.flush()?;
        self.file.into_inner()
    }

    fn flush(&mut self) -> Result<(), ParquetError> {
        if self.times.is_empty() {
            return Ok(());
        }
        self.count()?;
        let mut group = self.file.next_row_group()?;
        for (i, column) in self.columns.iter().enumerate() {
            let (bytes, close) = match i {
                ..TEXTS => text_column(column, &self.properties, &self.texts[i]),
                super::AT => column_of::<Int64Type>(column, &self.properties, &self.times, None),
                super::EPOCH => column_of::<Int64Type>(column, &self.properties, &self.epochs, None),
                super::SEQUENCE => column_of::<Int64Type>(column, &self.properties, &self.sequences, None),
                _ => column_of::<DoubleType>(column, &self.properties, &self.values, Some(&self.levels)),
            }?;
            group.append_column(&bytes, close)?;
        }
        group.close()?;
        for numbers in [&mut self.times, &mut self.epochs, &mut self.sequences] {
            numbers.clear();
        }
        self.levels.clear();
        self.values.clear();
        self.texts.iter_mut().for_each(TextColumn::clear);
        Ok(())
    }
}

fn text_column(
    column: &ColumnDescPtr,
    properties: &WriterPropertiesPtr,
    texts: &TextColumn,
) -> Result<(Bytes, ColumnCloseResult), ParquetError> {
    if texts.repeats() {
        return texts.column(column);
    }
    column_of::<ByteArrayType>(column, properties, &texts.each(), None)
}

/// One column of a row group, as the bytes of its pages. `levels`: which rows have a value; none: all.
fn column_of<T: DataType>(
    column: &ColumnDescPtr,
    properties: &WriterPropertiesPtr,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<(Bytes, ColumnCloseResult), ParquetError> {
    let mut pages = TrackedWrite::new(Vec::new());
    let sink = Box::new(CheckedPages::new(&mut pages));
    let mut writer = get_typed_column_writer::<T>(get_column_writer(Arc::clone(column), Arc::clone(properties), sink));
    writer.write_batch(values, levels, None)?;
    let close = writer.close()?;
    Ok((pages.into_inner()?.into(), close))
}

/// Writes pages with their CRC.
pub(super) struct CheckedPages<'a> {
    sink: &'a mut TrackedWrite<Vec<u8>>,
}

impl<'a> CheckedPages<'a> {
    pub(super) fn new(sink: &'a mut TrackedWrite<Vec<u8>>) -> Self {
        Self { sink }
    }
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

/// Rows of the same texts, as the batches of one origin have them. Small, and so is [`Part`]: there are as many of them
/// as a fleet sends within a seal's interval.
struct Group<'a> {
    /// Its texts: which of the subjects, of [`WHATS`], the names, the units, the texts of attributes and the origins.
    key: [u32; 6],
    of: Of<'a>,
}

enum Of<'a> {
    /// The first and the last of its parts.
    Series(u32, u32),
    Event(&'a DiscreteEvent, &'a Batch),
}

/// Samples of one series in some batches of one origin that came one after the other and have one layout.
struct Part {
    stretch: u32,
    series: u32,
    /// The next one of the same group; [`END`]: none.
    next: u32,
}

const END: u32 = u32::MAX;

struct Parts<'a> {
    all: Vec<Part>,
    stretches: Vec<Vec<&'a Batch>>,
}

/// In order.
const WHATS: [&str; 2] = [EVENT, SAMPLE];

/// Things that many groups have, each once: groups are sorted by numbers, of which there are far more than of texts.
struct Once<T> {
    all: Vec<T>,
    places: HashMap<T, u32, RandomState>,
}

impl<T: Copy + Eq + Hash> Once<T> {
    fn new() -> Self {
        Self { all: Vec::new(), places: HashMap::default() }
    }

    fn place(&mut self, thing: T) -> Result<u32, ParquetError> {
        Ok(match self.places.entry(thing) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let place = number(self.all.len())?;
                self.all.push(thing);
                *new.insert(place)
            }
        })
    }
}

/// All in order, and where each is then.
fn sorted<T: Ord>(all: Vec<T>) -> Result<(Vec<T>, Vec<u32>), ParquetError> {
    let mut order: Vec<_> = all.into_iter().enumerate().collect();
    order.sort_unstable_by(|(_, a), (_, b)| a.cmp(b));
    let mut places = vec![0; order.len()];
    for (place, (before, _)) in order.iter().enumerate() {
        places[*before] = number(place)?;
    }
    Ok((order.into_iter().map(|(_, thing)| thing).collect(), places))
}

/// The texts of groups, in the order of the columns.
struct Columns<'a> {
    subjects: Vec<(&'a str, &'a str)>,
    names: Vec<&'a str>,
    units: Vec<&'a str>,
    attributes: Vec<String>,
    origins: Vec<&'a str>,
}

impl Columns<'_> {
    fn texts(&self, [subject, what, name, unit, attributes, origin]: [u32; 6]) -> [&[u8]; TEXTS] {
        let (kind, id) = self.subjects[wide(subject)];
        let (name, unit) = (self.names[wide(name)], self.units[wide(unit)]);
        let attributes = &self.attributes[wide(attributes)];
        [kind, id, WHATS[wide(what)], name, unit, attributes, self.origins[wide(origin)]].map(str::as_bytes)
    }
}

/// All rows of the batches in groups, sorted by their texts.
fn groups<'a>(batches: &'a [Arc<Batch>]) -> Result<(Vec<Group<'a>>, Parts<'a>, Columns<'a>), ParquetError> {
    let mut by_origin: HashMap<&str, Vec<&Batch>, RandomState> = HashMap::default();
    for batch in batches {
        by_origin.entry(batch.origin.as_str()).or_default().push(batch);
    }
    let mut by_origin: Vec<_> = by_origin.into_iter().collect();
    by_origin.sort_unstable_by_key(|(origin, _)| *origin);
    let (mut subjects, mut names, mut units) = (Once::new(), Once::new(), Once::new());
    let mut attributes: Once<&BTreeMap<String, String>> = Once::new();
    let mut key = |subject: &'a SubjectRef, what, name: &'a str, unit: &'a str, of: &'a BTreeMap<_, _>, origin| {
        let subject = subjects.place((kind_text(subject.kind), subject.id.as_str()))?;
        let (name, unit) = (names.place(name)?, units.place(unit)?);
        Ok::<_, ParquetError>([subject, what, name, unit, attributes.place(of)?, origin])
    };
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut parts = Parts { all: Vec::new(), stretches: Vec::new() };
    let mut origins = Vec::with_capacity(by_origin.len());
    for (name, batches) in by_origin {
        let origin = number(origins.len())?;
        origins.push(name);
        // Batches of one stream share their keys: so texts are compared once per series, and addresses for the rest.
        let mut known: HashMap<*const SeriesKey, usize, RandomState> = HashMap::default();
        for same in batches.chunk_by(|a, b| Arc::ptr_eq(a.series.layout(), b.series.layout())) {
            let stretch = number(parts.stretches.len())?;
            parts.stretches.push(same.to_vec());
            for (series, of) in (0u32..).zip(same[0].series.layout().keys()) {
                let part = number(parts.all.len())?;
                parts.all.push(Part { stretch, series, next: END });
                match known.entry(Arc::as_ptr(of)) {
                    Entry::Occupied(group) => {
                        if let Of::Series(_, last) = &mut groups[*group.get()].of {
                            parts.all[wide(std::mem::replace(last, part))].next = part;
                        }
                    }
                    Entry::Vacant(group) => {
                        group.insert(groups.len());
                        let key = key(&of.subject, 1, &of.metric, &of.unit, &of.attributes, origin)?;
                        groups.push(Group { key, of: Of::Series(part, part) });
                    }
                }
            }
        }
        for batch in batches {
            for event in &batch.events {
                let key = key(&event.subject, 0, &event.name, "", &event.attributes, origin)?;
                groups.push(Group { key, of: Of::Event(event, batch) });
            }
        }
    }
    let texts: Vec<_> = attributes.all.into_iter().map(text_of).collect::<Result<_, _>>()?;
    let (subjects, subject) = sorted(subjects.all)?;
    let (names, name) = sorted(names.all)?;
    let (units, unit) = sorted(units.all)?;
    let (attributes, attribute) = sorted(texts)?;
    for group in &mut groups {
        for (place, of) in [(0, &subject), (2, &name), (3, &unit), (4, &attribute)] {
            group.key[place] = of[wide(group.key[place])];
        }
    }
    groups.sort_unstable_by_key(|group| group.key);
    Ok((groups, parts, Columns { subjects, names, units, attributes, origins }))
}

fn encode_rows(batches: &[Arc<Batch>], content: &Content) -> Result<Vec<u8>, ParquetError> {
    let (groups, parts, columns) = groups(batches)?;
    let mut writer = Writer::new(content)?;
    let mut rows: Vec<Row> = Vec::new();
    for same in groups.chunk_by(|a, b| a.key == b.key) {
        rows.clear();
        for group in same {
            match group.of {
                Of::Event(event, Batch { epoch, sequence, .. }) => {
                    rows.push(Row { at: event.at.0, epoch: *epoch, sequence: *sequence, value: None });
                }
                Of::Series(first, _) => {
                    let mut next = first;
                    while let Some(part) = parts.all.get(wide(next)) {
                        for Batch { epoch, sequence, series, .. } in &parts.stretches[wide(part.stretch)] {
                            let row = |Sample { at, value }| Row {
                                at: at.0,
                                epoch: *epoch,
                                sequence: *sequence,
                                value: Some(value),
                            };
                            rows.extend(series.at(wide(part.series)).samples().map(row));
                        }
                        next = part.next;
                    }
                }
            }
        }
        if !rows.is_sorted_by_key(Row::order) {
            rows.sort_unstable_by_key(Row::order);
        }
        writer.texts(columns.texts(same[0].key))?;
        rows.iter().try_for_each(|row| writer.push(*row))?;
    }
    writer.finish()
}

fn text_of(attributes: &BTreeMap<String, String>) -> Result<String, ParquetError> {
    serde_json::to_string(attributes).map_err(|error| ParquetError::External(Box::new(error)))
}

/// A file of these samples and events, whose batches are not known.
pub(crate) fn encode_parts(
    series: &BTreeMap<(SeriesKey, NodeId), BTreeMap<Time, f64>>,
    events: &BTreeSet<(Time, NodeId, DiscreteEvent)>,
    content: &Content,
) -> Result<Bytes, Error> {
    let encode = || {
        let mut groups: BTreeMap<[String; TEXTS], Vec<Row>> = BTreeMap::new();
        let row = |at: &Time, value| Row { at: at.0, epoch: 0, sequence: 0, value };
        for ((key, origin), samples) in series {
            let SeriesKey { subject, metric, unit, attributes } = key;
            let texts =
                [kind_text(subject.kind), &subject.id, SAMPLE, metric, unit, &text_of(attributes)?, origin.as_str()];
            let rows = samples.iter().map(|(at, value)| row(at, Some(*value))).collect();
            groups.insert(texts.map(str::to_owned), rows);
        }
        for (at, origin, event) in events {
            let DiscreteEvent { subject, name, at: _, attributes } = event;
            let texts = [kind_text(subject.kind), &subject.id, EVENT, name, "", &text_of(attributes)?, origin.as_str()];
            groups.entry(texts.map(str::to_owned)).or_default().push(row(at, None));
        }
        let mut writer = Writer::new(content)?;
        for (texts, rows) in &groups {
            writer.texts(texts.each_ref().map(String::as_bytes))?;
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
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
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
