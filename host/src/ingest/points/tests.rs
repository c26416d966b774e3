//! Points of OTLP as samples of series: what is taken, what is refused, and with which words.

use super::*;
use crate::ingest::feed::Feed;
use opentelemetry_proto::tonic::{
    metrics::v1::{
        Gauge, Metric as Told, ResourceMetrics, ScopeMetrics, Sum, Summary, summary_data_point::ValueAtQuantile,
    },
    resource::v1::Resource,
};

const NOW: Time = Time(1_800_000_000_000);

async fn recorder(folder: &std::path::Path) -> Recorder {
    let store = aether_recorder::local_store(folder).unwrap();
    Recorder::open(aether_recorder::Settings::default(), store, NOW).await.unwrap()
}

fn attribute(name: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.into())) });
    KeyValue { key: name.into(), value, ..Default::default() }
}

fn nanos(at: Time) -> u64 {
    u64::try_from(at.0).unwrap() * 1_000_000
}

fn point(at: Time, value: f64) -> NumberDataPoint {
    NumberDataPoint {
        time_unix_nano: nanos(at),
        value: Some(number_data_point::Value::AsDouble(value)),
        ..Default::default()
    }
}

fn request(metrics: Vec<(&str, Data)>) -> ExportMetricsServiceRequest {
    let metrics = metrics
        .into_iter()
        .map(|(name, data)| Told { name: name.into(), unit: "1".into(), data: Some(data), ..Default::default() })
        .collect();
    let resource = Some(Resource { attributes: vec![attribute("host.name", "node-a")], ..Default::default() });
    let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..Default::default() }],
    }
}

fn gauge(points: Vec<NumberDataPoint>) -> Data {
    Data::Gauge(Gauge { data_points: points })
}

fn translate(recorder: &Recorder, totals: &mut Totals, request: &ExportMetricsServiceRequest) -> Translated {
    Translator { totals, recorder, source: "me", now: NOW }.translate(request)
}

#[tokio::test]
async fn a_point_that_is_wrong_takes_no_other_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = recorder(folder.path()).await;
    let named =
        |name: &str, value: &str| NumberDataPoint { attributes: vec![attribute(name, value)], ..point(NOW, 2.0) };
    let bad = [
        ("no time", NumberDataPoint { time_unix_nano: 0, ..point(NOW, 1.0) }, "has no time"),
        ("no value", NumberDataPoint { value: None, ..point(NOW, 1.0) }, "has no value"),
        ("ahead", point(NOW.plus_ms(86_400_000), 1.0), "check the sender's clock"),
        ("the host's own", named("source", "x"), "the host's to set"),
        ("control", named("a", "b\nc"), "no control characters"),
        ("long", named("a", &"b".repeat(2_000)), "values of at most 1024"),
    ];
    for (what, wrong, part) in bad {
        let asked = request(vec![("m", gauge(vec![point(NOW, 1.0), wrong]))]);
        assert_eq!(count(&asked), 2);
        let found = translate(&recorder, &mut Feed::new(9).totals, &asked);
        assert_eq!((found.taken, found.refused.points), (1, 1), "{what}");
        assert!(found.refused.told().contains(part), "{what}: {}", found.refused.told());
    }
    let strange = request(vec![("9 lives", gauge(vec![point(NOW, 1.0)])), ("n", gauge(vec![point(NOW, 1.0)]))]);
    let found = translate(&recorder, &mut Feed::new(9).totals, &strange);
    assert_eq!((found.taken, found.refused.points), (1, 1));
    let unspecified =
        Data::Sum(Sum { data_points: vec![point(NOW, 1.0)], aggregation_temporality: 0, is_monotonic: true });
    let found = translate(&recorder, &mut Feed::new(9).totals, &request(vec![("m", unspecified)]));
    assert_eq!((found.taken, found.refused.points), (0, 1));
}

#[tokio::test]
async fn points_are_ordered_by_time_and_gaps_are_gaps() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = recorder(folder.path()).await;
    let gap = NumberDataPoint { flags: 1, ..point(NOW, 9.0) };
    let (early, late) = (NOW.minus_ms(2_000), NOW.minus_ms(1_000));
    let asked = request(vec![("m", gauge(vec![point(late, 2.0), point(early, 1.0), gap, point(late, 3.0)]))]);
    let found = groups(translate(&recorder, &mut Feed::new(9).totals, &asked).series, 9, 9);
    assert_eq!(found.len(), 1);
    assert_eq!(*found[0][0].samples, [Sample { at: early, value: 1.0 }, Sample { at: late, value: 3.0 }]);
}

#[tokio::test]
async fn a_summary_keeps_its_quantiles() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = recorder(folder.path()).await;
    let quantile_values =
        vec![ValueAtQuantile { quantile: 0.5, value: 7.0 }, ValueAtQuantile { quantile: 0.99, value: 9.0 }];
    let point =
        SummaryDataPoint { time_unix_nano: nanos(NOW), count: 4, sum: 20.0, quantile_values, ..Default::default() };
    let asked = request(vec![("m", Data::Summary(Summary { data_points: vec![point] }))]);
    let found = groups(translate(&recorder, &mut Feed::new(9).totals, &asked).series, 9, 99);
    let shown: Vec<_> = found[0]
        .iter()
        .map(|s| (s.key.metric.as_str(), s.key.attributes.get("quantile").map(String::as_str), s.samples[0].value))
        .collect();
    assert_eq!(
        shown,
        [
            ("m.count", None, 4.0),
            ("m.quantile", Some("0.5"), 7.0),
            ("m.quantile", Some("0.99"), 9.0),
            ("m.sum", None, 20.0)
        ]
    );
}

#[test]
fn groups_are_bounded_by_series_and_samples() {
    let key = |n: u32| SeriesKey {
        subject: SubjectRef::node("node-a"),
        metric: format!("m{n}"),
        unit: "1".into(),
        attributes: BTreeMap::new(),
    };
    let samples = |n: i64| (0..n).map(|at| (Time(at), 0.0)).collect();
    let series = Series::from([(key(1), samples(3)), (key(2), samples(3)), (key(3), samples(9)), (key(4), samples(1))]);
    let sizes: Vec<_> = groups(series.clone(), 2, 6).iter().map(Vec::len).collect();
    assert_eq!(sizes, [2, 1, 1]);
    assert_eq!(groups(series, 1, 99).len(), 4);
}
