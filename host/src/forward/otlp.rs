//! OTLP over HTTP. A subject is a resource: a node by `host.name`, any other by `aether.subject`, as our own receiver
//! understands it. A metric that is known to only rise is a cumulative sum, any other a gauge.

use super::queue::Entry;
use crate::ingest::{HOST_NAME, SUBJECT};
use aether_core::{
    metric::is_cumulative,
    subject::{SubjectKind, SubjectRef},
};
use flate2::{Compression, write::GzEncoder};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data,
        number_data_point,
    },
    resource::v1::Resource,
};
use prost::Message as _;
use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

pub(super) const HEADERS: [(&str, &str); 2] =
    [("content-type", "application/x-protobuf"), ("content-encoding", "gzip")];
/// Set by whoever receives: a host names there who sent.
const SOURCE: (&str, &str) = ("source", "aether.source");

/// One request's body.
pub(super) fn encode(entries: &[Entry], extra: &BTreeMap<String, String>) -> io::Result<Vec<u8>> {
    let mut subjects: BTreeMap<&SubjectRef, BTreeMap<(&str, &str), Vec<NumberDataPoint>>> = BTreeMap::new();
    for series in entries.iter().map(Entry::series) {
        let key = series.key;
        let metrics = subjects.entry(&key.subject).or_default();
        let points = metrics.entry((&key.metric, &key.unit)).or_default();
        let attributes: Vec<KeyValue> = key
            .attributes
            .iter()
            .map(|(name, value)| attribute(if name == SOURCE.0 { SOURCE.1 } else { name }, value))
            .collect();
        points.extend(series.samples().map(|sample| NumberDataPoint {
            attributes: attributes.clone(),
            time_unix_nano: u64::try_from(sample.at.0).unwrap_or(0).saturating_mul(1_000_000),
            value: Some(number_data_point::Value::AsDouble(sample.value)),
            ..NumberDataPoint::default()
        }));
    }
    let resource_metrics = subjects.into_iter().map(|(subject, metrics)| {
        let named = match subject.kind {
            SubjectKind::Node => attribute(HOST_NAME, &subject.id),
            SubjectKind::Gpu | SubjectKind::Workload | SubjectKind::Pool | SubjectKind::Participant => {
                attribute(SUBJECT, &subject.to_string())
            }
        };
        let extra = extra.iter().map(|(name, value)| attribute(name, value));
        let resource = Resource { attributes: [named].into_iter().chain(extra).collect(), ..Resource::default() };
        let scope = InstrumentationScope {
            name: "aether".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..InstrumentationScope::default()
        };
        let metrics = metrics.into_iter().map(|((name, unit), data_points)| Metric {
            name: name.into(),
            unit: unit.into(),
            data: Some(if is_cumulative(name) {
                let aggregation_temporality = AggregationTemporality::Cumulative.into();
                Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: true })
            } else {
                Data::Gauge(Gauge { data_points })
            }),
            ..Metric::default()
        });
        let scope_metrics =
            vec![ScopeMetrics { scope: Some(scope), metrics: metrics.collect(), ..ScopeMetrics::default() }];
        ResourceMetrics { resource: Some(resource), scope_metrics, ..ResourceMetrics::default() }
    });
    let request = ExportMetricsServiceRequest { resource_metrics: resource_metrics.collect() };
    let mut packed = GzEncoder::new(vec![], Compression::fast());
    packed.write_all(&request.encode_to_vec())?;
    packed.finish()
}

/// How many points the receiver refused, and what it said of them.
pub(super) fn refused(answer: &[u8]) -> Option<(u64, String)> {
    let told = ExportMetricsServiceResponse::decode(answer).ok()?.partial_success?;
    let points = u64::try_from(told.rejected_data_points).unwrap_or(0);
    (points > 0).then_some((points, told.error_message))
}

fn attribute(name: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.into())) });
    KeyValue { key: name.into(), value, ..KeyValue::default() }
}
