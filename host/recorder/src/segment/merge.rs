//! Several segments into one: their rows are sorted already, so they are merged as they stream by.
//!
//! What is in memory is the files as they are stored, the file that comes of them, one row group of it, and a few
//! thousand rows and a page per column of each input. Every row goes over as it is, also one that a later word replaces:
//! what is counted in the originals is counted in the merged one.

use super::{
    Content, Covered, EPOCH, SEQUENCE, TEXTS, VALUE, content_of,
    read::{Parts, Step, footer, group},
    texts,
    write::{Row, Texts, Writer},
};
use crate::{Error, positions::Ranges};
use aether_core::id::NodeId;
use bytes::Bytes;
use parquet::{
    column::reader::{ColumnReaderImpl, get_typed_column_reader},
    data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type},
    errors::ParquetError,
    file::{
        metadata::{ParquetMetaData, ParquetMetaDataReader},
        reader::RowGroupReader,
    },
};
use std::{
    array,
    cmp::Ordering,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// Rows in memory over all inputs.
const ROWS: usize = 131_072;

/// One segment of what these files hold, which are given in the order of their numbers. When one cannot be read, that one's
/// place is told: merging must not lose a row.
pub(crate) fn merge(files: &[Bytes]) -> Result<(Bytes, Content), (Option<usize>, Error)> {
    let of = |i: usize| move |error: Error| (Some(i), error);
    let encode = |error: ParquetError| (None, Error::Encode(error));
    let mut contents = Vec::new();
    let mut runs = Vec::new();
    let each = ROWS / files.len().max(1);
    for (i, file) in files.iter().enumerate() {
        let metadata = ParquetMetaDataReader::new().parse_and_finish(file).map_err(Error::Parquet).map_err(of(i))?;
        contents.push(content_of(&metadata).map_err(of(i))?);
        let mut run = Run::new(file.clone(), each.max(64)).map_err(of(i))?;
        if run.load().map_err(of(i))? {
            runs.push((i, run));
        }
    }
    let content = content(&contents).ok_or_else(|| (None, Error::Foreign("nothing to merge".to_owned())))?;
    let mut writer = Writer::new(&content).map_err(encode)?;
    let mut last: Option<Texts> = None;
    let mut samples = 0u64;
    let mut events = 0u64;
    while let Some(texts) = least(&runs) {
        // Of those that have rows of these texts, as far as no other comes before, rows are taken without looking again.
        let unsorted = |i: usize| of(i)(Error::Foreign("its rows are not sorted".to_owned()));
        let mut members: Vec<usize> = (0..runs.len()).filter(|at| is_same(runs[*at].1.texts(), &texts)).collect();
        if last.as_ref().is_some_and(|last| compare(last, &texts) != Ordering::Less) {
            return Err(unsorted(runs[members[0]].0));
        }
        writer.texts(texts.each_ref().map(ByteArray::data)).map_err(encode)?;
        let mut done = Vec::new();
        while let Some(first) = members.iter().copied().min_by_key(|at| runs[*at].1.row().order()) {
            let others = members.iter().filter(|at| **at != first);
            let limit = others.map(|at| runs[*at].1.row().order()).min();
            let (i, run) = &mut runs[first];
            let i = *i;
            let mut order = run.row().order();
            loop {
                let row = run.row();
                if row.order() < order {
                    return Err(unsorted(i));
                }
                order = row.order();
                writer.push(row).map_err(encode)?;
                match row.value {
                    Some(_) => samples += 1,
                    None => events += 1,
                }
                let begins = match run.next().map_err(of(i))? {
                    Next::Same => false,
                    Next::Loaded => !is_same(run.texts(), &texts),
                    Next::Other => true,
                    Next::None => {
                        done.push(first);
                        true
                    }
                };
                if begins {
                    members.retain(|at| *at != first);
                    break;
                }
                if limit.is_some_and(|limit| run.row().order() > limit) {
                    break;
                }
            }
        }
        done.sort_unstable();
        for at in done.into_iter().rev() {
            runs.remove(at);
        }
        last = Some(texts);
    }
    // What the originals say of themselves is what must have come by.
    if (samples, events) != (content.samples, content.events) {
        let text = format!(
            "the originals say they hold {} samples and {} events, and {samples} and {events} are in them",
            content.samples, content.events
        );
        return Err((None, Error::Foreign(text)));
    }
    Ok((writer.finish().map_err(encode)?.into(), content))
}

fn compare(a: &Texts, b: &Texts) -> Ordering {
    a.iter().map(|text| text.data()).cmp(b.iter().map(|text| text.data()))
}

fn is_same(a: &Texts, b: &Texts) -> bool {
    a.iter().zip(b).all(|(a, b)| texts::is_same(a.data(), b.data()))
}

/// The texts of the row that comes first.
fn least(runs: &[(usize, Run)]) -> Option<Texts> {
    runs.iter().map(|(_, run)| run.texts()).min_by(|a, b| compare(a, b)).cloned()
}

/// The rows of one file, a few at a time.
struct Run {
    parts: Arc<Parts>,
    metadata: ParquetMetaData,
    each: usize,
    group: usize,
    columns: Option<Columns>,
    rows: Rows,
    /// Which of them is next.
    at: usize,
}

/// Rows in their order, and where those of one series begin.
#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    texts: VecDeque<(usize, Texts)>,
}

/// What comes after a row.
enum Next {
    /// One of the same texts.
    Same,
    /// One of others.
    Other,
    /// The first of those that were read just now.
    Loaded,
    None,
}

struct Columns {
    left: usize,
    texts: [ColumnReaderImpl<ByteArrayType>; TEXTS],
    times: ColumnReaderImpl<Int64Type>,
    epochs: ColumnReaderImpl<Int64Type>,
    sequences: ColumnReaderImpl<Int64Type>,
    values: ColumnReaderImpl<DoubleType>,
}

impl Run {
    fn new(file: Bytes, each: usize) -> Result<Self, Error> {
        let parts = Parts::whole(file);
        let Step::Done(metadata) = footer(&parts)? else {
            return Err(Error::Foreign("its footer is not where it should be".to_owned()));
        };
        let parts = Arc::new(parts);
        Ok(Self { parts, metadata: *metadata, each, group: 0, columns: None, rows: Rows::default(), at: 0 })
    }

    /// The texts of the row that is next. There is one after `load` or `next` said so.
    fn texts(&self) -> &Texts {
        &self.rows.texts[0].1
    }

    fn row(&self) -> Row {
        self.rows.rows[self.at]
    }

    fn next(&mut self) -> Result<Next, Error> {
        self.at += 1;
        if self.at == self.rows.rows.len() {
            return Ok(if self.load()? { Next::Loaded } else { Next::None });
        }
        match self.rows.texts.get(1) {
            Some((from, _)) if *from == self.at => {
                self.rows.texts.pop_front();
                Ok(Next::Other)
            }
            _ => Ok(Next::Same),
        }
    }

    /// Reads rows if there are more.
    fn load(&mut self) -> Result<bool, Error> {
        loop {
            let mut columns = match self.columns.take() {
                Some(columns) => columns,
                None if self.group == self.metadata.num_row_groups() => return Ok(false),
                None => {
                    let group = group(&self.metadata, &self.parts, self.group).map_err(Error::Parquet)?;
                    self.group += 1;
                    Columns::new(&group).map_err(Error::Parquet)?
                }
            };
            if columns.left == 0 {
                continue;
            }
            self.rows = columns.read(self.each.min(columns.left)).map_err(Error::Parquet)?;
            self.at = 0;
            self.columns = Some(columns);
            return Ok(true);
        }
    }
}

impl Columns {
    fn new(group: &dyn RowGroupReader) -> Result<Self, ParquetError> {
        let text =
            |column| Ok::<_, ParquetError>(get_typed_column_reader::<ByteArrayType>(group.get_column_reader(column)?));
        let number =
            |column| Ok::<_, ParquetError>(get_typed_column_reader::<Int64Type>(group.get_column_reader(column)?));
        Ok(Self {
            left: usize::try_from(group.metadata().num_rows()).unwrap_or(0),
            texts: [text(0)?, text(1)?, text(2)?, text(3)?, text(4)?, text(5)?, text(6)?],
            times: number(super::AT)?,
            epochs: number(EPOCH)?,
            sequences: number(SEQUENCE)?,
            values: get_typed_column_reader::<DoubleType>(group.get_column_reader(VALUE)?),
        })
    }

    /// `count`: at least one.
    fn read(&mut self, count: usize) -> Result<Rows, ParquetError> {
        let mut texts = Vec::with_capacity(TEXTS);
        for column in &mut self.texts {
            texts.push(read(column, count, None)?);
        }
        let mut begins: Vec<bool> = vec![false; count];
        begins[0] = true;
        for column in &texts {
            for (row, pair) in column.windows(2).enumerate() {
                begins[row + 1] |= !texts::is_same(pair[0].data(), pair[1].data());
            }
        }
        let texts = (0..count)
            .filter(|row| begins[*row])
            .map(|row| (row, array::from_fn(|column| texts[column][row].clone())))
            .collect();
        let times = read(&mut self.times, count, None)?;
        let epochs = read(&mut self.epochs, count, None)?;
        let sequences = read(&mut self.sequences, count, None)?;
        let mut levels = Vec::new();
        let mut values = read(&mut self.values, count, Some(&mut levels))?.into_iter();
        let rows = (0..count).map(|row| Row {
            at: times[row],
            epoch: epochs[row].cast_unsigned(),
            sequence: sequences[row].cast_unsigned(),
            value: if levels[row] > 0 { values.next() } else { None },
        });
        let rows = rows.collect();
        self.left -= count;
        Ok(Rows { rows, texts })
    }
}

/// Exactly so many rows of a column.
fn read<T: DataType>(
    column: &mut ColumnReaderImpl<T>,
    count: usize,
    mut levels: Option<&mut Vec<i16>>,
) -> Result<Vec<T::T>, ParquetError> {
    let (mut values, mut left) = (Vec::with_capacity(count), count);
    while left > 0 {
        let (records, _, _) = column.read_records(left, levels.as_deref_mut(), None, &mut values)?;
        if records == 0 {
            return Err(ParquetError::General("a column has fewer rows than the file says".to_owned()));
        }
        left -= records;
    }
    Ok(values)
}

/// What the merged one's footer says: of positions the newest word, and all that is covered.
fn content(originals: &[Content]) -> Option<Content> {
    let (oldest, newest) = (originals.first()?, originals.last()?);
    let mut covers: BTreeMap<(NodeId, u64), Ranges> = BTreeMap::new();
    let mut positions = BTreeMap::new();
    for content in originals {
        for covered in &content.covers {
            let all = covers.entry((covered.origin.clone(), covered.epoch)).or_default();
            covered.ranges.iter().for_each(|(from, to)| {
                all.insert(from, to);
            });
        }
        positions.extend(content.positions.clone());
    }
    // An original without rows has no times of its own.
    let with_rows: Vec<&Content> = originals.iter().filter(|content| content.samples + content.events > 0).collect();
    let (from, to) = with_rows
        .iter()
        .map(|content| (content.from, content.to))
        .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
        .unwrap_or((newest.from, newest.to));
    Some(Content {
        number: newest.number,
        first: Some(oldest.first.unwrap_or(oldest.number)),
        sealed_at: originals.iter().map(|content| content.sealed_at).max()?,
        from,
        to,
        samples: originals.iter().map(|content| content.samples).sum(),
        events: originals.iter().map(|content| content.events).sum(),
        covers: covers.into_iter().map(|((origin, epoch), ranges)| Covered { origin, epoch, ranges }).collect(),
        complete: originals.iter().any(|content| content.complete),
        positions,
    })
}
