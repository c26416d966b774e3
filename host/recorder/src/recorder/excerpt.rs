//! Observations: the declared inputs of a subject at one time, from the hot window for an evaluation now, or from an
//! excerpt of history for one that is made anew. Both go through the same resampling, so that an observation rebuilt at
//! the time of a recorded one is the same, bit for bit, as far as everything had come in by then.
//!
//! An excerpt reads each segment once for all subjects and names, and is then asked for as many times as wanted.

use super::{Inner, READ_AHEAD, Recorder, lock};
use crate::{
    Error, counters,
    resample::{Grid, RATE_GAP_MS, resample},
    segment::Wanted,
    shelf::Entry,
    window::{SILENCE_MS, merge},
};
use aether_core::{
    id::NodeId,
    observation::{Column, Input, MetricInput, ObservedEvent},
    subject::SubjectRef,
    telemetry::{DiscreteEvent, Sample, SeriesKey, SeriesSamples},
    time::Time,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Which part of history is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExcerptQuery {
    /// None: every subject that has any of it.
    pub subjects: Option<BTreeSet<SubjectRef>>,
    /// Of metrics and events.
    pub names: BTreeSet<String>,
    /// Both inclusive.
    pub from: Time,
    pub to: Time,
}

impl ExcerptQuery {
    /// What observations of `inputs` from `from` to `to` need: the longest window before the first one, and as much
    /// more as a rate and the change from one origin to another look back.
    /// `reach_ms` as for [`Excerpt::columns`].
    pub fn observing(
        inputs: &[Input],
        subjects: Option<BTreeSet<SubjectRef>>,
        from: Time,
        to: Time,
        reach_ms: Option<u64>,
    ) -> Self {
        let (mut names, mut reach) = (BTreeSet::new(), 0u64);
        for input in inputs {
            match input {
                Input::Metric(metric) => {
                    names.insert(metric.name.clone());
                    reach = reach.max(metric.window_ms.saturating_add(metric.step_ms.saturating_mul(2)));
                }
                Input::Events(events) => {
                    names.insert(events.name.clone());
                    reach = reach.max(events.window_ms);
                }
            }
        }
        let reach = reach_ms.map_or(reach, |most| reach.min(most));
        let from = from.minus_ms(reach.saturating_add(RATE_GAP_MS).saturating_add(4 * SILENCE_MS));
        Self { subjects, names, from, to }
    }
}

/// Excerpts by subject, and what they lack.
#[derive(Clone, Debug, Default)]
pub struct Excerpts {
    pub subjects: BTreeMap<SubjectRef, Excerpt>,
    /// The query reached its byte limit: what is older is missing.
    pub cut: bool,
    /// Segments that could not be read: what they held is missing.
    pub unreadable: usize,
}

/// One subject's samples and events in a stretch of time, in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Excerpt {
    /// By metric, each in order of unit and attributes.
    series: BTreeMap<String, Vec<Recorded>>,
    /// In order of time.
    events: Vec<DiscreteEvent>,
}

#[derive(Clone, Debug, PartialEq)]
struct Recorded {
    unit: String,
    attributes: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

impl Excerpt {
    /// History that came from elsewhere: one subject's series and events, in any order. Of two values for one time the
    /// later stands; what is no finite number is left out, as the recorder leaves it out.
    pub fn of(series: Vec<SeriesSamples>, events: Vec<DiscreteEvent>) -> Self {
        let mut all: BTreeMap<Arc<SeriesKey>, Vec<Sample>> = BTreeMap::new();
        for SeriesSamples { key, samples } in series {
            all.entry(key).or_default().extend(samples.into_iter().filter(|sample| sample.value.is_finite()));
        }
        let mut excerpt = Self { series: BTreeMap::new(), events };
        for (key, samples) in all {
            excerpt.add(Arc::unwrap_or_clone(key), in_order(samples));
        }
        excerpt.settle();
        excerpt
    }

    /// As [`Recorder::columns`], at any time within the excerpt. `reach_ms`: nothing older than this is seen, as in a hot
    /// window of that length; none: all that the inputs ask for.
    pub fn columns(&self, inputs: &[Input], at: Time, reach_ms: Option<u64>) -> Vec<Column> {
        let horizon = reach_ms.map_or(Time(i64::MIN), |reach| at.minus_ms(reach).minus_ms(1));
        columns(inputs, at, |metric, after, until| {
            let after = after.max(horizon);
            let series = self.series.get(&metric.name).map_or(&[][..], Vec::as_slice).iter();
            let views = series.filter(|series| series.unit == metric.unit).filter_map(move |series| {
                let from = series.samples.partition_point(|sample| sample.at <= after);
                let to = series.samples.partition_point(|sample| sample.at <= until).max(from);
                let samples = &series.samples[from..to];
                (!samples.is_empty()).then(|| (series.attributes.clone(), samples))
            });
            views.collect()
        })
    }

    /// As [`Recorder::events`], at any time within the excerpt.
    pub fn events(&self, inputs: &[Input], at: Time) -> Vec<ObservedEvent> {
        events(
            inputs,
            |after| {
                let from = self.events.partition_point(|event| event.at <= after);
                let to = self.events.partition_point(|event| event.at <= at).max(from);
                self.events[from..to].to_vec()
            },
            at,
        )
    }

    /// The first and the last time of which it holds anything.
    pub fn span(&self) -> Option<(Time, Time)> {
        let samples = self
            .series
            .values()
            .flatten()
            .filter_map(|series| Some((series.samples.first()?.at, series.samples.last()?.at)));
        let events = self.events.iter().map(|event| (event.at, event.at));
        samples.chain(events).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    /// Metrics with their units, and events with none.
    pub fn names(&self) -> BTreeSet<(&str, Option<&str>)> {
        let metrics = self
            .series
            .iter()
            .flat_map(|(name, all)| all.iter().map(move |series| (name.as_str(), Some(series.unit.as_str()))));
        metrics.chain(self.events.iter().map(|event| (event.name.as_str(), None))).collect()
    }

    /// Milliseconds between neighbouring samples: the median of the finest series, none where no series has two.
    pub fn step_ms(&self) -> Option<u64> {
        let steps = self.series.values().flatten().filter_map(|series| {
            let mut gaps: Vec<u64> = series.samples.windows(2).map(|pair| pair[1].at.since_ms(pair[0].at)).collect();
            gaps.sort_unstable();
            gaps.get(gaps.len() / 2).copied()
        });
        steps.min()
    }

    pub fn samples(&self) -> usize {
        self.series.values().flatten().map(|series| series.samples.len()).sum()
    }

    fn add(&mut self, key: SeriesKey, samples: Vec<Sample>) {
        if samples.is_empty() {
            return;
        }
        let SeriesKey { subject: _, metric, unit, attributes } = key;
        self.series.entry(metric).or_default().push(Recorded { unit, attributes, samples });
    }

    fn settle(&mut self) {
        for all in self.series.values_mut() {
            all.sort_by(|a, b| (&a.unit, &a.attributes).cmp(&(&b.unit, &b.attributes)));
        }
        self.events.sort_by(|a, b| (a.at, &a.name, &a.attributes).cmp(&(b.at, &b.name, &b.attributes)));
        // A segment written twice by a seal that was cut off.
        self.events.dedup();
    }
}

impl Recorder {
    /// The declared metrics of a subject on their grids, for an evaluation at `at`: by input, then by attributes; series
    /// without a value in the window are left out. The unit must be the declared one. From the hot window alone.
    pub fn columns(&self, subject: &SubjectRef, inputs: &[Input], at: Time) -> Vec<Column> {
        columns(inputs, at, |metric, after, until| {
            let views = self.inner.window.views(subject, &metric.name, Some(&metric.unit), after, until);
            views.into_iter().map(|view| (view.attributes, view.samples)).collect()
        })
    }

    /// The declared events of a subject in `(at - window, at]`: by input, then by time, the newest `at_most` of each.
    pub fn events(&self, subject: &SubjectRef, inputs: &[Input], at: Time) -> Vec<ObservedEvent> {
        events(inputs, |after| self.inner.window.events(Some(subject), after, at), at)
    }

    /// A part of history, sealed and hot, to rebuild observations from.
    pub async fn excerpts(&self, query: &ExcerptQuery) -> Result<Excerpts, Error> {
        let Gathered { runs, events, cut, unreadable } = self.inner.gather(query).await;
        let mut subjects: BTreeMap<SubjectRef, Excerpt> = BTreeMap::new();
        for (key, origins) in runs {
            let samples = merged(origins);
            if !samples.is_empty() {
                subjects.entry(key.subject.clone()).or_default().add(key, samples);
            }
        }
        for event in events {
            subjects.entry(event.subject.clone()).or_default().events.push(event);
        }
        subjects.values_mut().for_each(Excerpt::settle);
        Ok(Excerpts { subjects, cut, unreadable })
    }
}

/// What segments and hot window hold of a query, by series and origin.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) runs: BTreeMap<SeriesKey, BTreeMap<NodeId, Vec<Sample>>>,
    pub(super) events: Vec<DiscreteEvent>,
    pub(super) cut: bool,
    pub(super) unreadable: usize,
}

impl Inner {
    pub(super) async fn gather(&self, query: &ExcerptQuery) -> Gathered {
        let ExcerptQuery { subjects, names, from, to } = query;
        let mut gathered = Gathered::default();
        // The hot window first: what it drops meanwhile is then in a segment that is read.
        let (after, until) = (from.minus_ms(1), *to);
        let (mut hot, mut hot_events) = (Vec::new(), Vec::new());
        let hot_subjects = subjects.clone().unwrap_or_else(|| self.window.subjects());
        for subject in &hot_subjects {
            for name in names {
                hot.extend(self.window.stretches(subject, name, after, until));
            }
            let events = self.window.events(Some(subject), after, until);
            hot_events.extend(events.into_iter().filter(|event| names.contains(&event.name)));
        }
        let wanted =
            Wanted { subjects: subjects.clone().map(Arc::new), names: Arc::new(names.clone()), from: *from, to: *to };
        let (entries, cut) = self.reaching_into(&wanted).await;
        gathered.cut = cut;
        let mut add = |key: SeriesKey, origin: NodeId, samples: Vec<Sample>| {
            gathered.runs.entry(key).or_default().entry(origin).or_default().extend(samples);
        };
        for few in entries.chunks(READ_AHEAD) {
            let reads = futures::future::join_all(few.iter().map(|entry| self.shelf.rows(entry, &wanted))).await;
            for (entry, rows) in few.iter().zip(reads) {
                match rows {
                    Ok(rows) => {
                        gathered.unreadable += usize::from(self.damaged(entry, &rows));
                        rows.series.into_iter().for_each(|(key, origin, samples)| add(key, origin, samples));
                        gathered.events.extend(rows.events.into_iter().map(|(_, event)| event));
                    }
                    // Retention came first.
                    Err(Error::Read { source: object_store::Error::NotFound { .. }, .. }) => {}
                    Err(error) => {
                        gathered.unreadable += 1;
                        self.unreadable(entry, &error);
                    }
                }
            }
        }
        for (key, origin, samples) in hot {
            add(key, origin, samples.into_iter().filter(|sample| (*from..=*to).contains(&sample.at)).collect());
        }
        gathered.events.extend(hot_events);
        gathered
    }

    /// The segments that are needed beside the hot window, oldest batch first, so that the later word for one time
    /// stands; and whether the byte limit cut off the oldest.
    async fn reaching_into(&self, wanted: &Wanted) -> (Vec<Entry>, bool) {
        let complete_from = self.window.complete_from();
        if wanted.from >= complete_from {
            return (Vec::new(), false);
        }
        let inside = |entry: &&Entry| entry.to >= wanted.from && entry.from <= wanted.to && entry.from < complete_from;
        let mut entries: Vec<Entry> = lock(&self.index).segments.iter().filter(inside).cloned().collect();
        entries.sort_by_key(|entry| std::cmp::Reverse((entry.to, entry.number)));
        let (mut bytes, mut within) = (0u64, 0);
        for few in entries.chunks(READ_AHEAD) {
            let weights = futures::future::join_all(few.iter().map(|entry| self.shelf.weigh(entry, wanted))).await;
            for weight in weights {
                // What cannot be read weighs nothing, and is told by whoever reads it.
                bytes = bytes.saturating_add(weight.unwrap_or(0));
                within += usize::from(bytes <= self.settings.query_bytes_limit);
            }
            if bytes > self.settings.query_bytes_limit {
                break;
            }
        }
        let cut = bytes > self.settings.query_bytes_limit;
        if cut {
            entries.truncate(within);
            counters::cut();
        }
        entries.sort_by_key(|entry| entry.number);
        (entries, cut)
    }
}

/// One series of what its origins sent.
pub(super) fn merged(origins: BTreeMap<NodeId, Vec<Sample>>) -> Vec<Sample> {
    let of_origin = |(origin, samples): (NodeId, Vec<Sample>)| {
        let samples = in_order(samples);
        (origin, samples.first().map(|sample| sample.at).unwrap_or_default(), samples)
    };
    let runs: Vec<_> = origins.into_iter().map(of_origin).collect();
    merge(&runs).into_iter().map(|(sample, _)| sample).collect()
}

/// In order of time; of two values for one time the later in `samples` stands.
fn in_order(mut samples: Vec<Sample>) -> Vec<Sample> {
    samples.sort_by_key(|sample| sample.at);
    samples.dedup_by(|next, kept| {
        let same = next.at == kept.at;
        if same {
            kept.value = next.value;
        }
        same
    });
    samples
}

/// The columns of all metrics in `inputs`. `views` gives each series' attributes and its samples in `(after, until]`.
fn columns<S: AsRef<[Sample]>>(
    inputs: &[Input],
    at: Time,
    views: impl Fn(&MetricInput, Time, Time) -> Vec<(BTreeMap<String, String>, S)>,
) -> Vec<Column> {
    let mut columns = Vec::new();
    for (number, input) in (0u32..).zip(inputs) {
        let Input::Metric(metric) = input else { continue };
        let grid = Grid::new(metric.window_ms, metric.step_ms, at);
        if grid.points == 0 {
            continue;
        }
        let after = grid.after().minus_ms(grid.look_back_ms(metric.aggregation));
        for (attributes, samples) in views(metric, after, grid.end()) {
            let values = resample(&grid, metric.aggregation, samples.as_ref());
            if values.iter().any(|value| !value.is_nan()) {
                let (start, step_ms) = (grid.start, grid.step_ms);
                columns.push(Column { input: number, attributes, start, step_ms, values });
            }
        }
    }
    columns
}

/// The events of all event inputs. `after` gives all of the subject after a time, up to `at`, in order of time.
fn events(inputs: &[Input], after: impl Fn(Time) -> Vec<DiscreteEvent>, at: Time) -> Vec<ObservedEvent> {
    let mut out = Vec::new();
    for (number, input) in (0u32..).zip(inputs) {
        let Input::Events(wanted) = input else { continue };
        let mut found = after(at.minus_ms(wanted.window_ms));
        found.retain(|event| event.name == wanted.name);
        let skip = found.len().saturating_sub(usize::try_from(wanted.at_most).unwrap_or(usize::MAX));
        let observed =
            |event: DiscreteEvent| ObservedEvent { input: number, at: event.at, attributes: event.attributes };
        out.extend(found.into_iter().skip(skip).map(observed));
    }
    out
}
