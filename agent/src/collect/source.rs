//! What a source is, what it may say, and where it puts it.

use aether_core::{
    id::NodeId,
    subject::{SubjectKind, SubjectRef},
    telemetry::{DiscreteEvent, Sample, SeriesKey, SeriesSamples},
    time::Time,
};
use foldhash::fast::FixedState;
use smallvec::SmallVec;
use std::{collections::HashMap, hash::BuildHasher, time::Duration};
use thiserror::Error;

/// Why a source cannot tell anything, or not all of it, for a person: the privilege or the kernel's option that lacks is
/// named, and what took over if something did.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}{}", fallback.as_ref().map(|fallback| format!("; instead: {fallback}")).unwrap_or_default())]
pub struct Missing {
    pub reason: String,
    pub fallback: Option<String>,
}

impl Missing {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), fallback: None }
    }

    /// What is told in its stead, and where it comes from.
    pub(super) fn instead(self, fallback: impl Into<String>) -> Self {
        Self { fallback: Some(fallback.into()), ..self }
    }
}

impl From<procfs::ProcError> for Missing {
    fn from(error: procfs::ProcError) -> Self {
        Missing::new(error.to_string())
    }
}

/// One place where numbers come from.
pub(super) trait Source: Send {
    /// What it is called in the configuration; its capability is `telemetry.<name>`.
    fn name(&self) -> &str;

    /// The least time between two samples, whatever the pace of the collector. None: as often as that.
    fn interval(&self) -> Option<Duration> {
        None
    }

    /// Takes one sample of everything it knows. Also the probe: one that works here works later. One that fails and
    /// has a fallback has put the fallback's readings into the sink.
    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing>;

    /// It was switched off: what it holds open is closed.
    fn rest(&mut self) {}
}

/// What was read: samples by series, and what happened.
///
/// Of each series there is one key, made when it is first told and found by its parts from then on, without a copy of
/// any: a series is told each second, and its name never changes.
#[derive(Debug, Default)]
pub(super) struct Readings {
    /// Places in `series`, by a hash of the parts of the key; one that is taken by another key moves on by one.
    places: HashMap<u64, usize, FixedState>,
    series: Vec<Series>,
    takes: u32,
    pub(super) events: Vec<DiscreteEvent>,
}

#[derive(Debug)]
struct Series {
    of: SeriesSamples,
    /// How often it had nothing to tell, one after the other.
    silent: u32,
}

/// The parts of a key.
#[derive(Clone, Copy)]
struct Parts<'a> {
    kind: SubjectKind,
    id: &'a str,
    metric: &'a str,
    unit: &'a str,
    attributes: &'a [(&'a str, &'a str)],
}

fn pairs(key: &SeriesKey) -> impl Iterator<Item = (&str, &str)> {
    key.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

impl<'a> Parts<'a> {
    fn of(key: &'a SeriesKey, attributes: &'a [(&'a str, &'a str)]) -> Self {
        let SeriesKey { subject, metric, unit, attributes: _ } = key;
        Self { kind: subject.kind, id: &subject.id, metric, unit, attributes }
    }

    fn hash(&self) -> u64 {
        let Self { kind, id, metric, unit, attributes } = self;
        // In whatever order they are told.
        let attributes =
            attributes.iter().fold(0, |sum: u64, pair| sum.wrapping_add(FixedState::default().hash_one(pair)));
        FixedState::default().hash_one((kind, id, metric, unit, attributes))
    }

    fn is(&self, key: &SeriesKey) -> bool {
        key.subject.kind == self.kind
            && key.metric == self.metric
            && key.subject.id == self.id
            && key.unit == self.unit
            && key.attributes.len() == self.attributes.len()
            && self.attributes.iter().all(|(name, value)| key.attributes.get(*name).is_some_and(|told| told == value))
    }

    fn key(&self) -> SeriesKey {
        let Self { kind, id, metric, unit, attributes } = *self;
        let subject = SubjectRef { kind, id: id.into() };
        let attributes = attributes.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        SeriesKey { subject, metric: metric.into(), unit: unit.into(), attributes }
    }
}

impl Readings {
    fn series(&mut self, parts: Parts<'_>) -> &mut SeriesSamples {
        let mut hash = parts.hash();
        let place = loop {
            match self.places.get(&hash) {
                Some(place) if parts.is(&self.series[*place].of.key) => break *place,
                Some(_) => hash = hash.wrapping_add(1),
                None => {
                    let key = parts.key();
                    if key.attributes.len() < parts.attributes.len() {
                        // One was told twice: as the key has it, or it would be another series each time.
                        let once: Vec<(&str, &str)> = pairs(&key).collect();
                        return self.series(Parts { attributes: &once, ..parts });
                    }
                    let place = self.series.len();
                    let of = SeriesSamples { key: key.into(), samples: SmallVec::new() };
                    self.series.push(Series { of, silent: 0 });
                    self.places.insert(hash, place);
                    break place;
                }
            }
        };
        &mut self.series[place].of
    }

    /// What has samples.
    pub(super) fn told(&self) -> impl Iterator<Item = &SeriesSamples> {
        self.series.iter().map(|series| &series.of).filter(|series| !series.samples.is_empty())
    }

    /// Takes samples and events out. The keys of what was told lately are kept.
    pub(super) fn take(&mut self) -> (Vec<SeriesSamples>, Vec<DiscreteEvent>) {
        let mut taken = Vec::with_capacity(self.series.len());
        for Series { of, silent } in &mut self.series {
            if of.samples.is_empty() {
                *silent += 1;
                continue;
            }
            *silent = 0;
            taken.push(SeriesSamples { key: of.key.clone(), samples: std::mem::take(&mut of.samples) });
        }
        self.takes += 1;
        if self.takes.is_multiple_of(TAKES_BETWEEN_LOOKS) {
            self.forget();
        }
        (taken, std::mem::take(&mut self.events))
    }

    /// Names of programs and workloads come and go.
    fn forget(&mut self) {
        let before = self.series.len();
        self.series.retain(|series| series.silent < FORGOTTEN_AFTER);
        if self.series.len() == before {
            return;
        }
        self.places.clear();
        for (place, series) in self.series.iter().enumerate() {
            let attributes: Vec<(&str, &str)> = pairs(&series.of.key).collect();
            let mut hash = Parts::of(&series.of.key, &attributes).hash();
            while self.places.contains_key(&hash) {
                hash = hash.wrapping_add(1);
            }
            self.places.insert(hash, place);
        }
    }

    pub(super) fn absorb(&mut self, mut other: Readings) {
        let (told, events) = other.take();
        for SeriesSamples { key, samples } in told {
            let attributes: Vec<(&str, &str)> = pairs(&key).collect();
            self.series(Parts::of(&key, &attributes)).samples.extend(samples);
        }
        self.happened(events);
    }

    fn happened(&mut self, events: Vec<DiscreteEvent>) {
        let room = EVENTS_MAXIMUM.saturating_sub(self.events.len());
        self.events.extend(events.into_iter().take(room));
    }

    /// All that was told, in order of the keys.
    #[cfg(test)]
    pub(super) fn sorted(mut self) -> std::collections::BTreeMap<SeriesKey, Vec<Sample>> {
        let (told, _) = self.take();
        told.into_iter().map(|of| (std::sync::Arc::unwrap_or_clone(of.key), of.samples.into_vec())).collect()
    }
}

/// Takes between two looks for series that are not told any more.
const TAKES_BETWEEN_LOOKS: u32 = 64;
/// A series that had nothing to tell for so many takes is forgotten.
const FORGOTTEN_AFTER: u32 = 900;
/// Events that wait for the next batch; more are left out, and counted in the series beside them.
const EVENTS_MAXIMUM: usize = 1_000;

/// Where a source puts its readings.
pub(super) struct Sink<'a> {
    pub(super) node: &'a NodeId,
    pub(super) at: Time,
    pub(super) readings: &'a mut Readings,
}

impl Sink<'_> {
    pub(super) fn node(&mut self, metric: &str, unit: &str, attributes: &[(&str, &str)], value: f64) {
        let parts = Parts { kind: SubjectKind::Node, id: self.node.as_str(), metric, unit, attributes };
        self.record(parts, value, |_, value| value);
    }

    pub(super) fn gpu(&self, uuid: &str) -> SubjectRef {
        SubjectRef { kind: SubjectKind::Gpu, id: format!("{}/{uuid}", self.node) }
    }

    /// A value that is no number says nothing, and is left out. Of two of one series the last one counts: a batch in
    /// which a time stands twice would be refused whole.
    pub(super) fn put(
        &mut self,
        subject: SubjectRef,
        metric: &str,
        unit: &str,
        attributes: &[(&str, &str)],
        value: f64,
    ) {
        let parts = Parts { kind: subject.kind, id: &subject.id, metric, unit, attributes };
        self.record(parts, value, |_, value| value);
    }

    /// As [`Sink::put`], where several are told under one name: their sum counts.
    pub(super) fn add(
        &mut self,
        subject: SubjectRef,
        metric: &str,
        unit: &str,
        attributes: &[(&str, &str)],
        value: f64,
    ) {
        let parts = Parts { kind: subject.kind, id: &subject.id, metric, unit, attributes };
        self.record(parts, value, |before, value| before + value);
    }

    fn record(&mut self, parts: Parts<'_>, value: f64, both: fn(f64, f64) -> f64) {
        if !value.is_finite() {
            return;
        }
        let samples = &mut self.readings.series(parts).samples;
        match samples.last_mut().filter(|last| last.at == self.at) {
            Some(last) => last.value = both(last.value, value),
            None => samples.push(Sample { at: self.at, value }),
        }
    }

    pub(super) fn happened(&mut self, event: DiscreteEvent) {
        self.readings.happened(vec![event]);
    }

    pub(super) fn event(&mut self, subject: SubjectRef, name: &str, attributes: &[(&str, &str)]) {
        let attributes = attributes.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        self.happened(DiscreteEvent { subject, name: name.into(), at: self.at, attributes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(readings: &mut Readings, at: i64, name: &str) {
        let node = NodeId::new("node-a");
        Sink { node: &node, at: Time(at), readings }.node("m", "1", &[("name", name), ("other", "x")], at as f64);
    }

    #[test]
    fn a_series_is_one_in_whatever_order_its_attributes_are_told() {
        let (mut readings, node) = (Readings::default(), NodeId::new("node-a"));
        let mut sink = Sink { node: &node, at: Time(1), readings: &mut readings };
        sink.node("m", "1", &[("a", "1"), ("b", "2")], 1.0);
        sink.node("m", "1", &[("b", "2"), ("a", "1")], 2.0);
        sink.node("m", "1", &[("b", "1"), ("a", "2")], 3.0);
        sink.node("m", "s", &[("a", "1"), ("b", "2")], 4.0);
        sink.put(SubjectRef::workload("node-a"), "m", "1", &[("a", "1"), ("b", "2")], 5.0);
        sink.add(SubjectRef::node("node-a"), "m", "1", &[("a", "1"), ("b", "2")], 5.0);
        sink.node("m", "1", &[("a", "1"), ("b", "2")], f64::NAN);
        sink.node("twice", "1", &[("a", "1"), ("a", "2")], 6.0);
        sink.node("twice", "1", &[("a", "1"), ("a", "2")], 7.0);
        let values: Vec<f64> = readings.take().0.iter().map(|of| of.samples[0].value).collect();
        assert_eq!(values, [7.0, 3.0, 4.0, 5.0, 7.0]);
    }

    #[test]
    fn the_key_of_a_series_is_made_once_and_forgotten_once_it_is_silent() {
        let mut readings = Readings::default();
        tell(&mut readings, 0, "stays");
        let first = readings.take().0.remove(0).key;
        for round in 1..3_000 {
            tell(&mut readings, round, "stays");
            // One more name each few rounds, told for a while.
            tell(&mut readings, round, &format!("goes-{}", round / 10));
            let (told, _) = readings.take();
            assert_eq!(told.len(), 2);
            assert!(std::sync::Arc::ptr_eq(&told[0].key, &first));
            assert_eq!(told[1].samples.len(), 1);
        }
        assert!(readings.series.len() < 110, "{}", readings.series.len());
        assert_eq!(readings.places.len(), readings.series.len());
    }

    #[test]
    fn what_others_read_is_taken_in() {
        let (mut mine, mut theirs) = (Readings::default(), Readings::default());
        tell(&mut mine, 1, "a");
        tell(&mut theirs, 2, "a");
        tell(&mut theirs, 2, "b");
        mine.absorb(theirs);
        let counts: Vec<usize> = mine.sorted().into_values().map(|samples| samples.len()).collect();
        assert_eq!(counts, [2, 1]);
    }
}
