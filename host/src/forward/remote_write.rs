//! Prometheus remote-write 1.0: the messages of `prompb` that it takes, and the names that it knows.
//!
//! A name's dots and what else Prometheus does not take become `_`. A series' subject is a label of its kind
//! (`node="node-a"`, `workload="job-7"`); an attribute whose name would be taken twice gets `attribute_` before it.
//! Units are not part of names here. <https://prometheus.io/docs/specs/prw/remote_write_spec/>

use super::queue::Entry;
use aether_core::telemetry::SeriesKey;
use prost::Message;
use std::collections::BTreeMap;

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    /// UTC milliseconds.
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

pub(super) const HEADERS: [(&str, &str); 3] = [
    ("content-type", "application/x-protobuf"),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "0.1.0"),
];

/// One request's body. Each series is in it once, its samples in order of time.
pub(super) fn encode(entries: &[Entry], extra: &BTreeMap<String, String>) -> Result<Vec<u8>, snap::Error> {
    let mut all: BTreeMap<BTreeMap<String, String>, BTreeMap<i64, f64>> = BTreeMap::new();
    for series in entries.iter().map(Entry::series) {
        let samples = all.entry(labels(series.key, extra)).or_default();
        samples.extend(series.samples().map(|sample| (sample.at.0, sample.value)));
    }
    let timeseries = all.into_iter().map(|(labels, samples)| TimeSeries {
        labels: labels.into_iter().map(|(name, value)| Label { name, value }).collect(),
        samples: samples.into_iter().map(|(timestamp, value)| Sample { value, timestamp }).collect(),
    });
    snap::raw::Encoder::new().compress_vec(&WriteRequest { timeseries: timeseries.collect() }.encode_to_vec())
}

/// In order of name, as the protocol has it.
fn labels(key: &SeriesKey, extra: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        ("__name__".to_owned(), named(&key.metric, ":")),
        (key.subject.kind.name().to_owned(), key.subject.id.clone()),
    ]);
    for (name, value) in extra.iter().chain(&key.attributes).filter(|(_, value)| !value.is_empty()) {
        let mut name = named(name, "");
        while labels.contains_key(&name) {
            name.insert_str(0, "attribute_");
        }
        labels.insert(name, value.clone());
    }
    labels
}

fn named(name: &str, also: &str) -> String {
    let sane = |c: char| if c.is_ascii_alphanumeric() || c == '_' || also.contains(c) { c } else { '_' };
    let mut sane: String = name.chars().map(sane).collect();
    // Two underscores at the front are Prometheus' own, and a digit may not begin a name.
    if sane.starts_with(|c: char| c.is_ascii_digit()) || sane.starts_with("__") {
        sane.insert(0, 'x');
    }
    sane
}

#[cfg(test)]
mod tests {
    use super::*;
    use aether_core::subject::SubjectRef;

    #[test]
    fn names_are_those_that_prometheus_takes_and_no_attribute_is_lost() {
        let attributes =
            [("disk.io.direction", "read"), ("disk_io_direction", "x"), ("node", "y"), ("7", "z"), ("e", "")];
        let key = SeriesKey {
            subject: SubjectRef::node("node-a"),
            metric: "system.disk.io".into(),
            unit: "By".into(),
            attributes: attributes.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        };
        let site = BTreeMap::from([("site".to_owned(), "here".to_owned())]);
        let shown: Vec<String> =
            labels(&key, &site).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            shown,
            [
                "__name__=system_disk_io",
                "attribute_disk_io_direction=x",
                "attribute_node=y",
                "disk_io_direction=read",
                "node=node-a",
                "site=here",
                "x7=z"
            ]
        );
    }
}
