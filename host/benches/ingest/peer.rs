//! Others that take the same samples, by Prometheus' remote write 1.0.

use crate::{Gauge, Load, Started, Taken, bytes_in, free_port, reaches};
use prost::Message;
use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

/// Samples of one request: what Prometheus' own sender puts into one, of many nodes together.
pub(crate) const SAMPLES_A_REQUEST: usize = 2_000;

pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// The environment's variable that names its binary.
    pub(crate) variable: &'static str,
    ready: &'static str,
    /// Whether what it has on disk when it has ended is all that it would keep.
    is_whole_at_rest: bool,
    arguments: fn(&Path, u16) -> Vec<String>,
}

pub(crate) const ALL: [Peer; 2] = [
    Peer {
        name: "prometheus",
        variable: "AETHER_PROMETHEUS",
        ready: "/-/ready",
        // Two hours are in its write-ahead log first.
        is_whole_at_rest: false,
        arguments: |folder, port| {
            let config = folder.join("prometheus.yml");
            std::fs::write(&config, "").unwrap();
            vec![
                format!("--config.file={}", config.display()),
                format!("--storage.tsdb.path={}", folder.join("data").display()),
                format!("--web.listen-address=127.0.0.1:{port}"),
                "--web.enable-remote-write-receiver".into(),
            ]
        },
    },
    Peer {
        name: "victoria-metrics",
        variable: "AETHER_VICTORIA_METRICS",
        ready: "/health",
        is_whole_at_rest: true,
        arguments: |folder, port| {
            vec![
                format!("-storageDataPath={}", folder.join("data").display()),
                format!("-httpListenAddr=127.0.0.1:{port}"),
            ]
        },
    },
];

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
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

impl Peer {
    /// `samples_a_request`: so many at most, of whole nodes and of one at least.
    pub(crate) async fn measure(&self, binary: &Path, load: Load, samples_a_request: usize) -> Taken {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = Command::new(binary);
        command.args((self.arguments)(folder.path(), port));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut started = Started(command.spawn().unwrap());
        let url = format!("http://127.0.0.1:{port}");
        let client = reqwest::Client::new();
        let (ready, asking) = (format!("{url}{}", self.ready), client.clone());
        reaches("a peer is ready", async || {
            asking.get(&ready).send().await.is_ok_and(|answer| answer.status().is_success())
        })
        .await;

        let gauge = Gauge::of(&started.0);
        let before = gauge.processor_s();
        let mut next = tokio::time::Instant::now();
        let nodes_a_request = (samples_a_request / load.metrics).max(1);
        for second in 1..=load.seconds {
            tokio::time::sleep_until(next).await;
            next += Duration::from_secs(1);
            for first in (0..load.nodes).step_by(nodes_a_request) {
                let body = request(load, first..(first + nodes_a_request).min(load.nodes), second);
                let sent = client
                    .post(format!("{url}/api/v1/write"))
                    .header("content-type", "application/x-protobuf")
                    .header("content-encoding", "snappy")
                    .header("x-prometheus-remote-write-version", "0.1.0")
                    .body(body);
                let answer = sent.send().await.unwrap();
                assert!(answer.status().is_success(), "{}: {}", self.name, answer.status());
            }
        }
        let (processor_s, resident_mib) = (gauge.processor_s() - before, gauge.resident_mib());
        started.end();
        Taken {
            samples: load.a_second() * load.seconds as f64,
            processor_s,
            resident_mib,
            at_rest: self.is_whole_at_rest.then(|| bytes_in(&folder.path().join("data"))),
        }
    }
}

fn request(load: Load, nodes: std::ops::Range<usize>, second: usize) -> Vec<u8> {
    let timestamp = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    let series = nodes.flat_map(|node| (0..load.metrics).map(move |metric| (node, metric)));
    let label = |name: &str, value: String| Label { name: name.into(), value };
    let timeseries = series.map(|(node, metric)| TimeSeries {
        labels: vec![
            label("__name__", format!("measured_metric_{metric:03}")),
            label("node", format!("node-{node:05}")),
        ],
        samples: vec![Sample { value: Load::value(node, metric, second), timestamp }],
    });
    let request = WriteRequest { timeseries: timeseries.collect() };
    snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap()
}
