//! Wanted rows out of a file, of which no more was fetched than they need.
//!
//! The footer with its page index tells which pages can hold wanted rows; those and the dictionaries they need are the
//! parts to fetch. Each page's CRC is checked. What is damaged costs the rows near it, and not the rest.

use super::{
    AT, ATTRIBUTES, KIND, NAME, ORIGIN, Rows, SAMPLE, SCHEMA, SUBJECT_ID, SUBJECT_KIND, TEXTS, UNIT, VALUE, Wanted,
    content_of, kind_of, kind_text,
};
use crate::Error;
use aether_core::{
    id::NodeId,
    subject::SubjectRef,
    telemetry::{DiscreteEvent, Sample, SeriesKey},
    time::Time,
};
use bytes::{Buf, Bytes};
use parquet::{
    DecodeResult,
    column::reader::get_typed_column_reader,
    data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type},
    errors::ParquetError,
    file::{
        metadata::{
            FileMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataBuilder, ParquetMetaDataPushDecoder,
        },
        page_index::column_index::ColumnIndexMetaData,
        properties::ReaderProperties,
        reader::{ChunkReader, Length, RowGroupReader},
        serialized_reader::SerializedRowGroupReader,
    },
    schema::parser::parse_message_type,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::{Bound, Range},
    sync::Arc,
};

/// Parts nearer to each other than this are fetched as one: a request costs more than so many bytes.
const APART: u64 = 16 << 10;
/// Rows that are given up together when a page among them is damaged.
const GIVEN_UP: usize = 512;
/// What a footer may take, with its page index.
const FOOTER_LIMIT: u64 = 256 << 20;

/// Parts of a file, each with its offset, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parts {
    length: u64,
    parts: Vec<(u64, Bytes)>,
}

impl Parts {
    pub(crate) fn new(length: u64) -> Self {
        Self { length, parts: Vec::new() }
    }

    pub(crate) fn whole(bytes: Bytes) -> Self {
        let mut parts = Self::new(wide(bytes.len()));
        parts.add(0, bytes);
        parts
    }

    pub(crate) fn add(&mut self, offset: u64, bytes: Bytes) {
        let at = self.parts.partition_point(|(other, _)| *other < offset);
        self.parts.insert(at, (offset, bytes));
    }

    pub(crate) fn has(&self, range: &Range<u64>) -> bool {
        usize::try_from(range.end.saturating_sub(range.start))
            .is_ok_and(|length| self.get(range.start, length).is_some())
    }

    fn get(&self, start: u64, length: usize) -> Option<Bytes> {
        // Parts may overlap: a later one that begins before `start` need not be the one that reaches far enough.
        let until = self.parts.partition_point(|(offset, _)| *offset <= start);
        self.parts[..until].iter().rev().find_map(|(offset, bytes)| {
            let from = usize::try_from(start - offset).ok()?;
            let to = from.checked_add(length)?;
            (to <= bytes.len()).then(|| bytes.slice(from..to))
        })
    }
}

impl Length for Parts {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Parts {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let until = self.parts.partition_point(|(offset, _)| *offset <= start);
        let found = self.parts[..until].iter().rev().find(|(offset, bytes)| start - offset < wide(bytes.len()));
        let (offset, bytes) = found.ok_or_else(|| missing(start))?;
        Ok(bytes.slice(usize::try_from(start - offset).unwrap_or(usize::MAX)..).reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.get(start, length).ok_or_else(|| missing(start))
    }
}

fn missing(at: u64) -> ParquetError {
    ParquetError::EOF(format!("byte {at} was not fetched"))
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// A step towards a footer with its page index.
pub(crate) enum Step {
    Done(Box<ParquetMetaData>),
    /// These are wanted as well.
    Wants(Vec<Range<u64>>),
}

/// Reads a footer with its page index from what there is of a file. Of the two entries that are ours, only the format is
/// looked at and neither is kept: positions of a large fleet would fill the cache.
pub(crate) fn footer(parts: &Parts) -> Result<Step, Error> {
    let mut decoder = ParquetMetaDataPushDecoder::try_new(parts.length)
        .map_err(Error::Parquet)?
        .with_page_index_policy(PageIndexPolicy::Optional);
    for (offset, bytes) in &parts.parts {
        decoder.push_range(*offset..offset + wide(bytes.len()), bytes.clone()).map_err(Error::Parquet)?;
    }
    let metadata = match decoder.try_decode().map_err(Error::Parquet)? {
        DecodeResult::Data(metadata) => metadata,
        DecodeResult::NeedsData(ranges) => {
            let bytes: u64 = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum();
            if bytes > FOOTER_LIMIT || ranges.iter().any(|range| range.end > parts.length || range.start >= range.end) {
                return Err(Error::Foreign("its footer is not where it should be".to_owned()));
            }
            return Ok(Step::Wants(ranges));
        }
        DecodeResult::Finished => return Err(Error::Foreign("it has no footer".to_owned())),
    };
    content_of(&metadata)?;
    let file = metadata.file_metadata();
    if file.schema() != &parse_message_type(SCHEMA).map_err(Error::Parquet)? {
        return Err(Error::Foreign("its columns are not those of a segment".to_owned()));
    }
    for column in metadata.row_groups().iter().flat_map(|group| group.columns()) {
        // The crate takes these as they are.
        let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
        let end = start.checked_add(column.compressed_size());
        if start < 0
            || column.compressed_size() < 0
            || end.and_then(|end| u64::try_from(end).ok()).is_none_or(|end| end > parts.length)
        {
            return Err(Error::Foreign("its columns are not where they should be".to_owned()));
        }
    }
    let lean = FileMetaData::new(
        file.version(),
        file.num_rows(),
        None,
        None,
        file.schema_descr_ptr(),
        file.column_orders().cloned(),
    );
    let index = metadata.page_index().cloned();
    let groups = metadata.row_groups().to_vec();
    let lean = ParquetMetaDataBuilder::new(lean).set_row_groups(groups).set_page_index(index).build();
    Ok(Step::Done(Box::new(lean)))
}

/// What has to be fetched and looked through for the wanted rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Row groups with the rows of them that may be wanted.
    groups: Vec<(usize, Vec<Range<usize>>)>,
    /// In order, apart from each other.
    pub(crate) ranges: Vec<Range<u64>>,
    pub(crate) bytes: u64,
}

/// The texts that rows must have to be wanted; none: any.
struct Filter<'a> {
    kinds: Option<BTreeSet<&'a [u8]>>,
    ids: Option<BTreeSet<&'a [u8]>>,
    names: Option<BTreeSet<&'a [u8]>>,
}

impl<'a> Filter<'a> {
    fn of(wanted: &'a Wanted) -> Self {
        let subjects = wanted.subjects.as_ref();
        Self {
            kinds: subjects.map(|all| all.iter().map(|subject| kind_text(subject.kind).as_bytes()).collect()),
            ids: subjects.map(|all| all.iter().map(|subject| subject.id.as_bytes()).collect()),
            names: (!wanted.names.is_empty()).then(|| wanted.names.iter().map(String::as_bytes).collect()),
        }
    }

    fn of_column(&self, column: usize) -> Option<&BTreeSet<&'a [u8]>> {
        match column {
            SUBJECT_KIND => self.kinds.as_ref(),
            SUBJECT_ID => self.ids.as_ref(),
            NAME => self.names.as_ref(),
            _ => None,
        }
    }
}

pub(crate) fn plan(metadata: &ParquetMetaData, wanted: &Wanted) -> Plan {
    let filter = Filter::of(wanted);
    let mut plan = Plan::default();
    let mut ranges = Vec::new();
    for (i, group) in metadata.row_groups().iter().enumerate() {
        let index = metadata.page_index_for_row_group(i);
        let rows = usize::try_from(group.num_rows()).unwrap_or(0);
        let mut picks: Vec<Range<usize>> = std::iter::once(0..rows).filter(|all| !all.is_empty()).collect();
        for column in [SUBJECT_KIND, SUBJECT_ID, NAME, AT] {
            if let (Some(bounds), Some(pages)) = (index.column_index(column), index.page_locations(column)) {
                let firsts: Vec<usize> =
                    pages.iter().map(|page| usize::try_from(page.first_row_index).unwrap_or(0)).collect();
                let ends = firsts.iter().skip(1).copied().chain([rows]);
                let may = firsts.iter().copied().zip(ends).enumerate();
                let may = may.filter(|(page, _)| may_hold(bounds, *page, filter.of_column(column), wanted));
                picks = intersect(&picks, may.map(|(_, (from, to))| from..to));
            }
        }
        if picks.is_empty() {
            continue;
        }
        for (column, chunk) in group.columns().iter().enumerate() {
            let (start, length) = chunk.byte_range();
            let Some(pages) = index.page_locations(column).filter(|pages| !pages.is_empty()) else {
                ranges.push(start..start + length);
                continue;
            };
            let offset = |at: usize| pages.get(at).and_then(|page| u64::try_from(page.offset).ok());
            // A dictionary lies before the first page.
            ranges.extend(offset(0).filter(|first| *first > start).map(|first| start..first));
            for (at, page) in pages.iter().enumerate() {
                let from = usize::try_from(page.first_row_index).unwrap_or(0);
                let to = pages.get(at + 1).map_or(rows, |next| usize::try_from(next.first_row_index).unwrap_or(0));
                let size = u64::try_from(page.compressed_page_size).unwrap_or(0);
                if let Some(offset) = offset(at).filter(|_| picks.iter().any(|pick| pick.start < to && from < pick.end))
                {
                    ranges.push(offset..offset.saturating_add(size));
                }
            }
        }
        plan.groups.push((i, picks));
    }
    ranges.sort_by_key(|range| (range.start, range.end));
    for range in ranges {
        match plan.ranges.last_mut().filter(|last| range.start <= last.end.saturating_add(APART)) {
            Some(last) => last.end = last.end.max(range.end),
            None => plan.ranges.push(range),
        }
    }
    plan.bytes = plan.ranges.iter().map(|range| range.end - range.start).sum();
    plan
}

/// Whether a page can hold what is wanted, by the bounds of one column. Bounds of long texts are cut short, and bounds
/// all the same. Of integers only the time is looked at.
fn may_hold(index: &ColumnIndexMetaData, page: usize, texts: Option<&BTreeSet<&[u8]>>, wanted: &Wanted) -> bool {
    match index {
        ColumnIndexMetaData::BYTE_ARRAY(bounds) => match (texts, bounds.min_value(page), bounds.max_value(page)) {
            (Some(texts), Some(least), Some(most)) if least <= most => {
                texts.range::<[u8], _>((Bound::Included(least), Bound::Included(most))).next().is_some()
            }
            _ => true,
        },
        ColumnIndexMetaData::INT64(times) => match (times.min_value(page), times.max_value(page)) {
            (Some(least), Some(most)) => *least <= wanted.to.0 && *most >= wanted.from.0,
            _ => true,
        },
        _ => true,
    }
}

/// What of `picks` lies in `others`; both in order.
fn intersect(picks: &[Range<usize>], others: impl Iterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    for other in others {
        for pick in picks {
            let both = pick.start.max(other.start)..pick.end.min(other.end);
            if both.is_empty() {
                continue;
            }
            match out.last_mut().filter(|last| last.end == both.start) {
                Some(last) => last.end = both.end,
                None => out.push(both),
            }
        }
    }
    out
}

/// A row group of what was fetched.
pub(super) fn group<'a>(
    metadata: &'a ParquetMetaData,
    parts: &Arc<Parts>,
    i: usize,
) -> Result<SerializedRowGroupReader<'a, Parts>, ParquetError> {
    let properties = Arc::new(ReaderProperties::builder().build());
    SerializedRowGroupReader::new(
        Arc::clone(parts),
        metadata.row_group(i),
        metadata.page_index_for_row_group(i),
        properties,
    )
}

/// The wanted rows. Where a page is damaged the rows around it are left out and counted.
pub(crate) fn decode(metadata: &ParquetMetaData, parts: Parts, plan: &Plan, wanted: &Wanted) -> Result<Rows, Error> {
    let parts = Arc::new(parts);
    let mut rows = Rows::default();
    for (i, picks) in &plan.groups {
        let group = group(metadata, &parts, *i).map_err(Error::Parquet)?;
        decode_or_split(&group, picks.clone(), wanted, &mut rows)?;
    }
    Ok(rows)
}

fn decode_or_split(
    group: &dyn RowGroupReader,
    picks: Vec<Range<usize>>,
    wanted: &Wanted,
    out: &mut Rows,
) -> Result<(), Error> {
    let mut part = Rows::default();
    let error = match decode_group(group, picks.clone(), wanted, &mut part) {
        Ok(()) => {
            out.series.append(&mut part.series);
            out.events.append(&mut part.events);
            return Ok(());
        }
        Err(Error::Parquet(error)) => error,
        Err(other) => return Err(other),
    };
    let total: usize = picks.iter().map(Range::len).sum();
    if total <= GIVEN_UP {
        out.damaged += wide(total);
        out.damage.get_or_insert_with(|| error.to_string());
        return Ok(());
    }
    let (mut first, mut second, mut left) = (Vec::new(), Vec::new(), total / 2);
    for pick in picks {
        let cut = pick.start + pick.len().min(left);
        left -= cut - pick.start;
        first.extend(Some(pick.start..cut).filter(|range| !range.is_empty()));
        second.extend(Some(cut..pick.end).filter(|range| !range.is_empty()));
    }
    decode_or_split(group, first, wanted, out)?;
    decode_or_split(group, second, wanted, out)
}

fn decode_group(
    group: &dyn RowGroupReader,
    mut picks: Vec<Range<usize>>,
    wanted: &Wanted,
    out: &mut Rows,
) -> Result<(), Error> {
    // Each filter narrows what the next one has to read.
    let filter = Filter::of(wanted);
    for column in [SUBJECT_ID, SUBJECT_KIND, NAME] {
        let Some(texts) = filter.of_column(column) else { continue };
        let values = read::<ByteArrayType>(group, column, &picks)?.0;
        let rows = picks.iter().cloned().flatten();
        let mut next: Vec<Range<usize>> = Vec::new();
        for (row, _) in rows.zip(&values).filter(|(_, value)| texts.contains(value.data())) {
            match next.last_mut().filter(|last| last.end == row) {
                Some(last) => last.end += 1,
                None => next.push(row..row + 1),
            }
        }
        picks = next;
    }
    if picks.is_empty() {
        return Ok(());
    }
    let text = |column| read::<ByteArrayType>(group, column, &picks).map(|(values, _)| values);
    let texts: [Vec<ByteArray>; TEXTS] = [
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
    // The row before, and whether rows with its texts are wanted.
    let mut last: Option<(usize, bool)> = None;
    for row in 0..times.len() {
        let has_value = levels.get(row).is_some_and(|level| *level > 0);
        let value = if has_value { values.next() } else { None };
        let at = Time(times[row]);
        let before = last.filter(|(l, _)| texts.iter().all(|column| column[*l] == column[row]));
        let mut get =
            |column: usize| intern.text(&texts[column][row]).ok_or_else(|| foreign("a text that is not UTF-8"));
        let mut subject = || {
            let kind =
                kind_of(texts[SUBJECT_KIND][row].data()).ok_or_else(|| foreign("a subject of a kind not known"))?;
            Ok::<_, Error>(SubjectRef { kind, id: get(SUBJECT_ID)? })
        };
        let taken = match (before, &wanted.subjects) {
            (Some((_, taken)), _) => taken,
            (None, Some(subjects)) => subjects.contains(&subject()?),
            (None, None) => true,
        };
        last = Some((row, taken));
        let inside = (wanted.from..=wanted.to).contains(&at);
        let is_sample = texts[KIND][row].data() == SAMPLE.as_bytes();
        if !taken || (!is_sample && !inside) {
            continue;
        }
        if !is_sample || before.is_none() {
            let subject = subject()?;
            let (name, unit, json, origin) = (get(NAME)?, get(UNIT)?, get(ATTRIBUTES)?, get(ORIGIN)?);
            let attributes: BTreeMap<String, String> =
                serde_json::from_str(&json).map_err(|_| foreign("attributes that are not a JSON object of texts"))?;
            if is_sample {
                out.series.push((SeriesKey { subject, metric: name, unit, attributes }, NodeId(origin), Vec::new()));
            } else {
                out.events.push((NodeId(origin), DiscreteEvent { subject, name, at, attributes }));
            }
        }
        if is_sample
            && inside
            && let (Some((_, _, samples)), Some(value)) = (out.series.last_mut(), value)
        {
            match samples.last_mut().filter(|s| s.at == at) {
                // Sorted by batch: the later word stands.
                Some(same) => same.value = value,
                None => samples.push(Sample { at, value }),
            }
        }
    }
    out.series.retain(|(_, _, samples)| !samples.is_empty());
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
    picks: &[Range<usize>],
) -> Result<(Vec<T::T>, Vec<i16>), Error> {
    let optional = group.metadata().column(column).column_descr().max_def_level() > 0;
    let mut reader = get_typed_column_reader::<T>(group.get_column_reader(column).map_err(Error::Parquet)?);
    let (mut values, mut levels, mut at) = (Vec::new(), Vec::new(), 0);
    for pick in picks {
        let short = || Error::Parquet(ParquetError::General("a column has fewer rows than the file says".to_owned()));
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
