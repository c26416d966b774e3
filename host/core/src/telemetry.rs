//! Samples and events on their way from an agent (or a feeder of signals) to the flight recorder.

use crate::{id::NodeId, subject::SubjectRef, time::Time};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};
use utoipa::ToSchema;

/// What names one series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct SeriesKey {
    pub subject: SubjectRef,
    pub metric: String,
    pub unit: String,
    pub attributes: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sample {
    pub at: Time,
    pub value: f64,
}

/// One series and its samples, as whoever makes a batch has them.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesSamples {
    /// Shared by all batches of a stream that tell of it.
    pub key: Arc<SeriesKey>,
    /// In order of time. Mostly one: that takes no memory of its own.
    pub samples: SmallVec<[Sample; 1]>,
}

/// A discrete happening: an Xid error, a termination notice, a process that exited.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct DiscreteEvent {
    pub subject: SubjectRef,
    pub name: String,
    pub at: Time,
    pub attributes: BTreeMap<String, String>,
}

/// Samples of many series: their values beside each other, their times once for all that were taken together, and what
/// names them shared by all batches that tell of the same.
#[derive(Clone, Debug)]
pub struct Columns {
    layout: Arc<Layout>,
    times: Vec<Time>,
    values: Vec<f64>,
}

/// What batches of a stream have in common that tell of the same series, as often, in the same order.
#[derive(Debug, Default)]
pub struct Layout {
    columns: Vec<Column>,
    /// Where each list of times begins and ends.
    lists: Vec<Range<usize>>,
    /// A column of each subject.
    subjects: Vec<usize>,
    values: usize,
}

#[derive(Debug)]
struct Column {
    key: Arc<SeriesKey>,
    list: usize,
    /// Where its values begin.
    values: usize,
}

/// One series of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Series<'a> {
    pub key: &'a Arc<SeriesKey>,
    /// In order, as many as values.
    pub times: &'a [Time],
    pub values: &'a [f64],
}

/// Lists of times that are looked through for one that is the same.
const LISTS_COMPARED: usize = 16;

impl Layout {
    /// Of series, each with the number of its list of times, and how many each list has. None: there is no such list.
    pub fn new(series: impl IntoIterator<Item = (Arc<SeriesKey>, usize)>, lists: &[usize]) -> Option<Self> {
        let mut layout = Self::default();
        let mut begin = 0;
        for count in lists {
            layout.lists.push(begin..begin + count);
            begin += count;
        }
        for (key, list) in series {
            let count = lists.get(list)?;
            layout.columns.push(Column { key, list, values: layout.values });
            layout.values += count;
        }
        let mut subjects = BTreeSet::new();
        let mut last = None;
        for (at, Column { key, .. }) in layout.columns.iter().enumerate() {
            if last != Some(&key.subject) && subjects.insert(&key.subject) {
                layout.subjects.push(at);
            }
            last = Some(&key.subject);
        }
        Some(layout)
    }

    /// How many series.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    pub fn keys(&self) -> impl Iterator<Item = &Arc<SeriesKey>> {
        self.columns.iter().map(|column| &column.key)
    }

    /// Each once.
    pub fn subjects(&self) -> impl Iterator<Item = &SubjectRef> {
        self.subjects.iter().map(|at| &self.columns[*at].key.subject)
    }

    /// Of each series, the number of its list of times.
    pub fn lists(&self) -> impl Iterator<Item = usize> {
        self.columns.iter().map(|column| column.list)
    }
}

impl Columns {
    /// None: there are more or fewer times or values than the layout has.
    pub fn new(layout: Arc<Layout>, times: Vec<Time>, values: Vec<f64>) -> Option<Self> {
        let fits = layout.values == values.len() && layout.lists.last().map_or(0, |last| last.end) == times.len();
        fits.then_some(Self { layout, times, values })
    }

    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// How many series.
    pub fn len(&self) -> usize {
        self.layout.len()
    }

    pub fn is_empty(&self) -> bool {
        self.layout.is_empty()
    }

    /// One of them. There has to be one.
    pub fn at(&self, at: usize) -> Series<'_> {
        self.series(&self.layout.columns[at])
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Series<'_>> {
        self.layout.columns.iter().map(|column| self.series(column))
    }

    fn series<'a>(&'a self, column: &'a Column) -> Series<'a> {
        let times = &self.times[self.layout.lists[column.list].clone()];
        Series { key: &column.key, times, values: &self.values[column.values..][..times.len()] }
    }

    /// All values, series by series.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The times of all series, those that were taken together once; each list in order.
    pub fn times(&self) -> impl Iterator<Item = &[Time]> {
        self.layout.lists.iter().map(|list| &self.times[list.clone()])
    }

    /// As whoever makes a batch has it, to change it.
    pub fn rows(&self) -> Vec<SeriesSamples> {
        self.iter()
            .map(|series| SeriesSamples { key: series.key.clone(), samples: series.samples().collect() })
            .collect()
    }
}

impl<'a> Series<'a> {
    pub fn samples(self) -> impl ExactSizeIterator<Item = Sample> + DoubleEndedIterator + 'a {
        self.times.iter().zip(self.values).map(|(at, value)| Sample { at: *at, value: *value })
    }
}

impl From<Vec<SeriesSamples>> for Columns {
    fn from(rows: Vec<SeriesSamples>) -> Self {
        let (mut times, mut values, mut lists, mut series) = (vec![], vec![], vec![], vec![]);
        let mut begins: Vec<usize> = vec![];
        for SeriesSamples { key, samples } in rows {
            let same = |list: &usize| {
                let there: &[Time] = &times[begins[*list]..][..lists[*list]];
                there.len() == samples.len() && there.iter().zip(&samples).all(|(at, sample)| *at == sample.at)
            };
            let list = (0..lists.len()).rev().take(LISTS_COMPARED).find(same).unwrap_or_else(|| {
                begins.push(times.len());
                lists.push(samples.len());
                times.extend(samples.iter().map(|sample| sample.at));
                lists.len() - 1
            });
            values.extend(samples.iter().map(|sample| sample.value));
            series.push((key, list));
        }
        let layout = Layout::new(series, &lists).unwrap_or_default();
        Self { layout: layout.into(), times, values }
    }
}

impl FromIterator<SeriesSamples> for Columns {
    fn from_iter<T: IntoIterator<Item = SeriesSamples>>(rows: T) -> Self {
        rows.into_iter().collect::<Vec<_>>().into()
    }
}

impl PartialEq for Columns {
    /// The same series with the same samples in the same order, however their times are held.
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (Series<'_>, Series<'_>)| a.key == b.key && a.times == b.times && a.values == b.values;
        self.len() == other.len() && self.iter().zip(other.iter()).all(same)
    }
}

/// One batch as the recorder takes it. `(origin, epoch, sequence)` names it once and for all: a batch that comes
/// again is a duplicate.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The node whose agent sent it; a feeder of signals is an origin of its own (`signals`).
    pub origin: NodeId,
    /// Chosen anew when the sender's spool is created; sequences count within it.
    pub epoch: u64,
    pub sequence: u64,
    pub series: Columns,
    pub events: Vec<DiscreteEvent>,
}
