//! What a source is, what it may say, and where it puts it.

use aether_core::{
    id::NodeId,
    subject::{SubjectKind, SubjectRef},
    telemetry::{DiscreteEvent, Sample, SeriesKey},
    time::Time,
};
use std::{collections::BTreeMap, time::Duration};
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
#[derive(Debug, Default)]
pub(super) struct Readings {
    pub(super) series: BTreeMap<SeriesKey, Vec<Sample>>,
    pub(super) events: Vec<DiscreteEvent>,
}

impl Readings {
    pub(super) fn absorb(&mut self, other: Readings) {
        for (key, samples) in other.series {
            self.series.entry(key).or_default().extend(samples);
        }
        self.happened(other.events);
    }

    fn happened(&mut self, events: Vec<DiscreteEvent>) {
        let room = EVENTS_MAXIMUM.saturating_sub(self.events.len());
        self.events.extend(events.into_iter().take(room));
    }
}

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
        let subject = SubjectRef::node(self.node.as_str());
        self.put(subject, metric, unit, attributes, value);
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
        self.record(subject, metric, unit, attributes, value, |_, value| value);
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
        self.record(subject, metric, unit, attributes, value, |before, value| before + value);
    }

    fn record(
        &mut self,
        subject: SubjectRef,
        metric: &str,
        unit: &str,
        attributes: &[(&str, &str)],
        value: f64,
        both: fn(f64, f64) -> f64,
    ) {
        if !value.is_finite() {
            return;
        }
        let attributes = attributes.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let key = SeriesKey { subject, metric: metric.into(), unit: unit.into(), attributes };
        let samples = self.readings.series.entry(key).or_default();
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
