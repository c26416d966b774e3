//! From a request to samples: each data point judged by itself, each metric's kind turned into series.
//!
//! | kind | series |
//! |---|---|
//! | gauge, sum | the metric |
//! | histogram, exponential histogram | `<metric>.count`, `.sum`, `.bucket` with the attribute `le`, and `.min`, `.max` where told |
//! | summary | `<metric>.count`, `.sum`, and `.quantile` with the attribute `quantile` |
//!
//! Sums and histograms that come as differences are summed up per series, so that every counter here is cumulative; the
//! sum begins at zero when the host starts, which readers take for the reset that it is.

use super::{
    buckets::Distribution,
    feed::{Added, Totals},
    subject,
};
use aether_core::{
    subject::SubjectRef,
    telemetry::{Sample, SeriesKey, SeriesSamples},
    time::Time,
};
use aether_recorder::Recorder;
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, DataPointFlags, ExponentialHistogramDataPoint, HistogramDataPoint, NumberDataPoint,
        SummaryDataPoint, metric::Data, number_data_point,
    },
};
use std::collections::{BTreeMap, HashMap};

/// The attribute that names who sent it, as signals have it.
pub(super) const SOURCE: &str = "source";
const SCOPE: &str = "otel.scope.name";
/// Reasons that one answer tells.
const REASONS: usize = 4;

/// Samples by series, each in order of time.
pub(super) type Series = HashMap<SeriesKey, BTreeMap<Time, f64>>;

/// What becomes of a request.
#[derive(Debug, Default)]
pub(super) struct Translated {
    pub(super) series: Series,
    /// Data points that are in it.
    pub(super) taken: u64,
    pub(super) refused: Refused,
}

/// Data points that were not taken, and why.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Refused {
    pub(super) points: u64,
    reasons: Vec<(String, u64)>,
}

impl Refused {
    pub(super) fn add(&mut self, points: u64, reason: String) {
        self.points += points;
        match self.reasons.iter().position(|(known, _)| *known == reason) {
            Some(place) => self.reasons[place].1 += points,
            None if self.reasons.len() < REASONS => self.reasons.push((reason, points)),
            None => {}
        }
    }

    pub(super) fn told(&self) -> String {
        let parts: Vec<String> =
            self.reasons.iter().map(|(reason, count)| format!("{count} points: {reason}")).collect();
        parts.join("; ")
    }
}

/// The series in groups of at most so many series and samples; one that is larger than that alone is a group of its own.
pub(super) fn groups(series: Series, series_maximum: usize, samples_maximum: usize) -> Vec<Vec<SeriesSamples>> {
    let mut all: Vec<SeriesSamples> = series
        .into_iter()
        .map(|(key, samples)| {
            let samples = samples.into_iter().map(|(at, value)| Sample { at, value }).collect();
            SeriesSamples { key: key.into(), samples }
        })
        .collect();
    all.sort_by(|a, b| a.key.cmp(&b.key));
    let mut groups: Vec<Vec<SeriesSamples>> = vec![];
    let mut samples = 0;
    for series in all {
        samples += series.samples.len();
        match groups.last_mut() {
            Some(group) if group.len() < series_maximum && samples <= samples_maximum => group.push(series),
            _ => {
                samples = series.samples.len();
                groups.push(vec![series]);
            }
        }
    }
    groups
}

/// Translates requests of one origin.
pub(super) struct Translator<'a> {
    pub(super) totals: &'a mut Totals,
    pub(super) recorder: &'a Recorder,
    /// Who sends.
    pub(super) source: &'a str,
    pub(super) now: Time,
}

/// What the points of one metric have in common.
struct Metric<'a> {
    subject: &'a SubjectRef,
    name: &'a str,
    unit: &'a str,
    attributes: &'a BTreeMap<String, String>,
}

/// Data points of a request.
pub(super) fn count(request: &ExportMetricsServiceRequest) -> usize {
    let metrics = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics).flat_map(|s| &s.metrics);
    metrics
        .map(|metric| match &metric.data {
            Some(Data::Gauge(gauge)) => gauge.data_points.len(),
            Some(Data::Sum(sum)) => sum.data_points.len(),
            Some(Data::Histogram(histogram)) => histogram.data_points.len(),
            Some(Data::ExponentialHistogram(histogram)) => histogram.data_points.len(),
            Some(Data::Summary(summary)) => summary.data_points.len(),
            None => 0,
        })
        .sum()
}

impl Translator<'_> {
    pub(super) fn translate(&mut self, request: &ExportMetricsServiceRequest) -> Translated {
        let mut translated = Translated::default();
        for resource in &request.resource_metrics {
            let attributes = resource.resource.as_ref().map(|resource| texts(&resource.attributes)).unwrap_or_default();
            let (subject, mut kept) = subject::of(&attributes);
            kept.insert(SOURCE.to_owned(), self.source.to_owned());
            for scope in &resource.scope_metrics {
                let mut kept = kept.clone();
                if let Some(scope) = scope.scope.as_ref().filter(|scope| !scope.name.is_empty()) {
                    kept.insert(SCOPE.to_owned(), scope.name.clone());
                }
                for metric in &scope.metrics {
                    let data = metric.data.as_ref();
                    let metric =
                        Metric { subject: &subject, name: &metric.name, unit: &metric.unit, attributes: &kept };
                    self.metric(&metric, data, &mut translated);
                }
            }
        }
        translated
    }

    fn metric(&mut self, metric: &Metric<'_>, data: Option<&Data>, into: &mut Translated) {
        match data {
            Some(Data::Gauge(gauge)) => {
                for point in &gauge.data_points {
                    let points = self.number(metric, point, false);
                    into.take(points);
                }
            }
            Some(Data::Sum(sum)) => match temporality(sum.aggregation_temporality) {
                Ok(delta) => {
                    for point in &sum.data_points {
                        let points = self.number(metric, point, delta);
                        into.take(points);
                    }
                }
                Err(reason) => into.refuse(sum.data_points.len(), metric, reason),
            },
            Some(Data::Histogram(histogram)) => match temporality(histogram.aggregation_temporality) {
                Ok(delta) => {
                    for point in &histogram.data_points {
                        let points = self.histogram(metric, point, delta);
                        into.take(points);
                    }
                }
                Err(reason) => into.refuse(histogram.data_points.len(), metric, reason),
            },
            Some(Data::ExponentialHistogram(histogram)) => match temporality(histogram.aggregation_temporality) {
                Ok(delta) => {
                    for point in &histogram.data_points {
                        let points = self.exponential(metric, point, delta);
                        into.take(points);
                    }
                }
                Err(reason) => into.refuse(histogram.data_points.len(), metric, reason),
            },
            Some(Data::Summary(summary)) => {
                for point in &summary.data_points {
                    let points = self.summary(metric, point);
                    into.take(points);
                }
            }
            None => {}
        }
    }

    fn number(&mut self, metric: &Metric<'_>, point: &NumberDataPoint, delta: bool) -> Points {
        if is_gap(point.flags) {
            return Ok(vec![]);
        }
        let key = key(metric, "", &point.attributes)?;
        let at = self.checked(&key, point.time_unix_nano)?;
        let value = match point.value {
            Some(number_data_point::Value::AsDouble(value)) => value,
            #[allow(clippy::cast_precision_loss, reason = "samples are doubles; beyond 2^53 the last digits go")]
            Some(number_data_point::Value::AsInt(value)) => value as f64,
            None => return Err(format!("a point of {} has no value", metric.name)),
        };
        if !delta {
            return Ok(vec![(key, at, value)]);
        }
        if !value.is_finite() {
            return Err(format!("a difference of {} is no finite number", metric.name));
        }
        match self.totals.add_number(&key, point.time_unix_nano, value) {
            Added::Total(total) => Ok(vec![(key, at, total)]),
            Added::Before => Ok(vec![]),
            Added::TooMany(limit) => Err(too_many(limit)),
        }
    }

    fn histogram(&mut self, metric: &Metric<'_>, point: &HistogramDataPoint, delta: bool) -> Points {
        if is_gap(point.flags) {
            return Ok(vec![]);
        }
        let distribution = Distribution::explicit(point).map_err(str::to_owned)?;
        let edges = [(".min", point.min), (".max", point.max)];
        self.distribution(metric, &point.attributes, point.time_unix_nano, delta, distribution, edges)
    }

    fn exponential(&mut self, metric: &Metric<'_>, point: &ExponentialHistogramDataPoint, delta: bool) -> Points {
        if is_gap(point.flags) {
            return Ok(vec![]);
        }
        let distribution = Distribution::exponential(point).map_err(str::to_owned)?;
        let edges = [(".min", point.min), (".max", point.max)];
        self.distribution(metric, &point.attributes, point.time_unix_nano, delta, distribution, edges)
    }

    #[allow(clippy::cast_precision_loss, reason = "samples are doubles; beyond 2^53 the last digits go")]
    fn distribution(
        &mut self,
        metric: &Metric<'_>,
        attributes: &[KeyValue],
        time_unix_nano: u64,
        delta: bool,
        distribution: Distribution,
        edges: [(&str, Option<f64>); 2],
    ) -> Points {
        let count = SeriesKey { unit: "1".into(), ..key(metric, ".count", attributes)? };
        let at = self.checked(&count, time_unix_nano)?;
        let sum = key(metric, ".sum", attributes)?;
        self.checked(&sum, time_unix_nano)?;
        let bucket = SeriesKey { unit: "1".into(), ..key(metric, ".bucket", attributes)? };
        // With the one attribute more that it gets.
        self.checked(&with(&bucket, "le", "+Inf".into()), time_unix_nano)?;
        let distribution = if delta {
            match self.totals.add_distribution(&count, time_unix_nano, distribution) {
                Added::Total(total) => total,
                Added::Before => return Ok(vec![]),
                Added::TooMany(limit) => return Err(too_many(limit)),
            }
        } else {
            distribution
        };
        let mut samples = vec![(count, at, distribution.count as f64)];
        samples.extend(distribution.sum.map(|value| (sum, at, value)));
        samples.extend(
            distribution.cumulated().map(|(bound, count)| (with(&bucket, "le", number(bound)), at, count as f64)),
        );
        for (suffix, value) in edges {
            if let Some(value) = value {
                samples.push((key(metric, suffix, attributes)?, at, value));
            }
        }
        Ok(samples)
    }

    #[allow(clippy::cast_precision_loss, reason = "samples are doubles; beyond 2^53 the last digits go")]
    fn summary(&mut self, metric: &Metric<'_>, point: &SummaryDataPoint) -> Points {
        if is_gap(point.flags) {
            return Ok(vec![]);
        }
        let count = SeriesKey { unit: "1".into(), ..key(metric, ".count", &point.attributes)? };
        let at = self.checked(&count, point.time_unix_nano)?;
        let sum = key(metric, ".sum", &point.attributes)?;
        self.checked(&sum, point.time_unix_nano)?;
        let quantile = key(metric, ".quantile", &point.attributes)?;
        self.checked(&with(&quantile, "quantile", "0.999".into()), point.time_unix_nano)?;
        let mut samples = vec![(count, at, point.count as f64), (sum, at, point.sum)];
        if point.quantile_values.len() > super::buckets::BUCKETS_MAXIMUM {
            return Err("a summary has more than 200 quantiles".into());
        }
        for told in &point.quantile_values {
            samples.push((with(&quantile, "quantile", number(told.quantile)), at, told.value));
        }
        Ok(samples)
    }

    /// The time of a point of this series, if the recorder would take both.
    fn checked(&self, key: &SeriesKey, time_unix_nano: u64) -> Result<Time, String> {
        if time_unix_nano == 0 {
            return Err(format!("a point of {} has no time", key.metric));
        }
        let at = Time(i64::try_from(time_unix_nano / 1_000_000).unwrap_or(i64::MAX));
        self.recorder.check(key, at, self.now).map_err(|rejected| rejected.to_string())?;
        Ok(at)
    }
}

/// The samples that a data point becomes, or why it is refused.
type Points = Result<Vec<(SeriesKey, Time, f64)>, String>;

impl Translated {
    fn take(&mut self, points: Points) {
        match points {
            Ok(samples) => {
                self.taken += 1;
                for (key, at, value) in samples {
                    self.series.entry(key).or_default().insert(at, value);
                }
            }
            Err(reason) => self.refused.add(1, reason),
        }
    }

    fn refuse(&mut self, points: usize, metric: &Metric<'_>, reason: &str) {
        self.refused.add(u64::try_from(points).unwrap_or(u64::MAX), format!("{}: {reason}", metric.name));
    }
}

fn too_many(limit: usize) -> String {
    format!("{limit} series of this token come as differences, which is the limit: send cumulative values")
}

/// Whether values are differences.
fn temporality(temporality: i32) -> Result<bool, &'static str> {
    match AggregationTemporality::try_from(temporality) {
        Ok(AggregationTemporality::Delta) => Ok(true),
        Ok(AggregationTemporality::Cumulative) => Ok(false),
        Ok(AggregationTemporality::Unspecified) | Err(_) => Err("it does not say whether it is cumulative"),
    }
}

/// The sender says that there was no value.
fn is_gap(flags: u32) -> bool {
    flags & u32::try_from(DataPointFlags::NoRecordedValueMask as i32).unwrap_or(0) != 0
}

fn key(metric: &Metric<'_>, suffix: &str, attributes: &[KeyValue]) -> Result<SeriesKey, String> {
    let mut all = metric.attributes.clone();
    for (name, value) in texts(attributes) {
        if name == SOURCE {
            return Err(format!("the attribute `{SOURCE}` of {} is the host's to set", metric.name));
        }
        all.insert(name, value);
    }
    let metric_name = format!("{}{suffix}", metric.name);
    Ok(SeriesKey {
        subject: metric.subject.clone(),
        metric: metric_name,
        unit: metric.unit.to_owned(),
        attributes: all,
    })
}

fn with(key: &SeriesKey, name: &str, value: String) -> SeriesKey {
    let mut key = key.clone();
    key.attributes.insert(name.to_owned(), value);
    key
}

/// As Prometheus writes bounds and quantiles.
fn number(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".into()
    } else if value == f64::NEG_INFINITY {
        "-Inf".into()
    } else {
        value.to_string()
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    attributes.iter().map(|one| (one.key.clone(), one.value.as_ref().map(text).unwrap_or_default())).collect()
}

/// A value as a text; lists and maps as JSON.
fn text(value: &AnyValue) -> String {
    match json(value) {
        serde_json::Value::String(text) => text,
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn json(value: &AnyValue) -> serde_json::Value {
    use any_value::Value;
    match &value.value {
        Some(Value::StringValue(text)) => text.clone().into(),
        Some(Value::BoolValue(value)) => (*value).into(),
        Some(Value::IntValue(value)) => (*value).into(),
        Some(Value::DoubleValue(value)) => {
            serde_json::Number::from_f64(*value).map_or_else(|| value.to_string().into(), Into::into)
        }
        Some(Value::ArrayValue(array)) => array.values.iter().map(json).collect(),
        Some(Value::KvlistValue(list)) => {
            let pairs =
                list.values.iter().map(|one| (one.key.clone(), one.value.as_ref().map(json).unwrap_or_default()));
            serde_json::Value::Object(pairs.collect())
        }
        Some(Value::BytesValue(bytes)) => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(bytes).into()
        }
        // Of profiles alone, says the protocol: as if it were empty.
        Some(Value::StringValueStrindex(_)) | None => serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests;
