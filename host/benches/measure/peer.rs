//! Others that take the same samples, by Prometheus' remote write 1.0.

use super::{Gauge, Started, bytes_in, free_port, reaches};
use prost::Message;
use std::{
    path::Path,
    process::{Command, Stdio},
};

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
pub(crate) struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    pub(crate) labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Label {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Sample {
    #[prost(double, tag = "1")]
    pub(crate) value: f64,
    #[prost(int64, tag = "2")]
    pub(crate) timestamp: i64,
}

/// A peer at work, ended with the measurement.
pub(crate) struct Running {
    name: &'static str,
    is_whole_at_rest: bool,
    pub(crate) gauge: Gauge,
    started: Started,
    url: String,
    client: reqwest::Client,
    folder: tempfile::TempDir,
}

impl Peer {
    pub(crate) async fn start(&self, binary: &Path) -> Running {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = Command::new(binary);
        command.args((self.arguments)(folder.path(), port));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let started = Started(command.spawn().unwrap());
        let url = format!("http://127.0.0.1:{port}");
        let client = reqwest::Client::new();
        let (ready, asking) = (format!("{url}{}", self.ready), client.clone());
        reaches("a peer is ready", async || {
            asking.get(&ready).send().await.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
        let gauge = Gauge::of(started.0.id());
        Running { name: self.name, is_whole_at_rest: self.is_whole_at_rest, gauge, started, url, client, folder }
    }
}

impl Running {
    /// One request.
    pub(crate) async fn write(&self, timeseries: Vec<TimeSeries>) {
        let request = WriteRequest { timeseries };
        let sent = self
            .client
            .post(format!("{}/api/v1/write", self.url))
            .header("content-type", "application/x-protobuf")
            .header("content-encoding", "snappy")
            .header("x-prometheus-remote-write-version", "0.1.0")
            .body(snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap());
        let answer = sent.send().await.unwrap();
        assert!(answer.status().is_success(), "{}: {}", self.name, answer.status());
    }

    /// Ends it. Answers the bytes that it keeps, if what is on disk is all of that.
    pub(crate) fn end(mut self) -> Option<u64> {
        self.started.end();
        self.is_whole_at_rest.then(|| bytes_in(&self.folder.path().join("data")))
    }
}
