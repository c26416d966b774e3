//! Telemetry on its way out: to a real Prometheus, to the OTLP way in of another host, and to a receiver that is slow,
//! full or says no.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use aether_core::{
    id::NodeId,
    incident::Rank,
    subject::{SubjectKind, SubjectRef},
    telemetry::{Batch, Sample, SeriesKey, SeriesSamples},
    time::Time,
};
use aether_host::{
    auth::{self, Scope},
    clock,
    forward::{self, Destination, Settings},
    ingest::{self, Otlp},
    store::Store,
};
use aether_recorder::Recorder;
use axum::{Router, body::Bytes, http::StatusCode, response::IntoResponse as _, routing::post};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const PATIENCE: Duration = Duration::from_secs(60);

struct Host {
    folder: tempfile::TempDir,
    recorder: Recorder,
    sequence: u64,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Host {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let segments = aether_recorder::local_store(&folder.path().join("telemetry")).unwrap();
        let recorder = Recorder::open(aether_recorder::Settings::default(), segments, clock::now()).await.unwrap();
        Self { folder, recorder, sequence: 0, tasks: TaskTracker::new(), stop: CancellationToken::new() }
    }

    fn forward(&self, destination: &str) {
        let destination: Destination =
            toml::from_str(&format!("name = \"there\"\ninterval_ms = 100\n{destination}")).unwrap();
        let settings = Settings { forward: vec![destination] };
        settings.check().unwrap();
        forward::start(&settings, &self.recorder, &self.tasks, &self.stop).unwrap();
    }

    /// One batch: a gauge of a node, a counter of it, and a workload's progress.
    fn append(&mut self, origin: &str, at: Time, value: f64) {
        self.sequence += 1;
        let key = |subject, metric: &str, unit: &str, attributes: &[(&str, &str)]| SeriesKey {
            subject,
            metric: metric.into(),
            unit: unit.into(),
            attributes: attributes.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        };
        let one = |key: SeriesKey| SeriesSamples { key: key.into(), samples: [Sample { at, value }].into() };
        let series = vec![
            one(key(SubjectRef::node("node-a"), "system.cpu.utilization", "1", &[("source", "me")])),
            one(key(SubjectRef::node("node-a"), "system.disk.io", "By", &[("disk.io.direction", "read")])),
            one(key(SubjectRef::workload("job-7"), "aether.workload.progress", "{step}", &[])),
        ];
        let batch = Batch {
            origin: NodeId::new(origin),
            epoch: 1,
            sequence: self.sequence,
            series: series.into(),
            events: vec![],
        };
        self.recorder.append(batch, clock::now()).unwrap();
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        timeout(PATIENCE, self.tasks.wait()).await.expect("forwarding ends when the host does");
    }
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut tries = tokio::time::interval(Duration::from_millis(50));
    let found = timeout(PATIENCE, async {
        loop {
            tries.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    });
    found.await.unwrap_or_else(|_| panic!("{what} in time"))
}

struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Prometheus {
    fn start(folder: &Path, port: u16) -> Option<Self> {
        let test = "forward to Prometheus";
        let Some(program) = std::env::var_os("AETHER_PROMETHEUS") else {
            assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "{test} needs AETHER_PROMETHEUS");
            if let Some(skips) = std::env::var_os("AETHER_SKIPS") {
                use std::io::Write as _;
                let file = std::fs::File::options().append(true).create(true).open(skips);
                file.and_then(|mut file| writeln!(file, "test {test}: no Prometheus")).unwrap();
            }
            return None;
        };
        let config = folder.join("prometheus.yml");
        std::fs::write(&config, "global: {}\n").unwrap();
        let child = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--web.enable-remote-write-receiver")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self(child))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_takes_what_is_written_and_waits_for_it_to_start_lose_nothing() {
    let mut host = Host::start().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    host.forward(&format!(
        "kind = \"remote_write\"\nurl = \"{url}/api/v1/write\"\nlabels = {{ site = \"here\" }}\nexcept = [\"aether.*\"]"
    ));
    // Nobody listens yet: what is sent now waits.
    let began = clock::now().minus_ms(5_000);
    host.append("node-a", began, 0.25);
    let Some(_prometheus) = Prometheus::start(host.folder.path(), port) else { return host.end().await };
    host.append("node-a", began.plus_ms(1_000), 0.5);
    host.append("otlp.collector-1", began.plus_ms(2_000), 0.75);
    let client = reqwest::Client::new();
    let query = async |query: &str| -> Vec<Value> {
        let asked = reqwest::Url::parse_with_params(&format!("{url}/api/v1/query"), [("query", query)]).unwrap();
        let answer = client.get(asked).send().await;
        let Ok(answer) = answer else { return vec![] };
        let answer: Value = answer.json().await.unwrap_or_default();
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    };
    let found = until("both samples", async || {
        let found = query("system_cpu_utilization[5m]").await;
        found.first().is_some_and(|series| series["values"].as_array().is_some_and(|v| v.len() == 2)).then_some(found)
    });
    let found = found.await;
    let labels = &found[0]["metric"];
    assert_eq!((&labels["node"], &labels["site"], &labels["source"]), (&"node-a".into(), &"here".into(), &"me".into()));
    let values: Vec<&str> =
        found[0]["values"].as_array().unwrap().iter().map(|pair| pair[1].as_str().unwrap()).collect();
    assert_eq!(values, ["0.25", "0.5"]);
    let times: Vec<f64> = found[0]["values"].as_array().unwrap().iter().map(|pair| pair[0].as_f64().unwrap()).collect();
    assert!((times[1] - times[0] - 1.0).abs() < 1e-3);
    assert_eq!(query("system_disk_io{disk_io_direction=\"read\"}").await.len(), 1);
    assert!(query("aether_workload_progress").await.is_empty(), "it was to be left out");
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_takes_it_by_otlp_and_knows_whom_it_is_about() {
    let mut host = Host::start().await;
    let store = Store::open(&host.folder.path().join("there.db")).await.unwrap();
    let segments = aether_recorder::local_store(&host.folder.path().join("there")).unwrap();
    let there = Recorder::open(aether_recorder::Settings::default(), segments, clock::now()).await.unwrap();
    let router = Otlp::new(ingest::Settings::default(), store.clone(), there.clone()).router();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/metrics", listener.local_addr().unwrap());
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
    let issued =
        auth::issue_for(&store, "here", Rank::Viewer, Scope::Telemetry, "test", clock::now(), None).await.unwrap();
    let secret = host.folder.path().join("secret");
    // At first it is wrong; it is changed while the host runs.
    std::fs::write(&secret, "Bearer wrong\n").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    host.forward(&format!(
        "kind = \"otlp\"\nurl = \"{url}\"\nheader_files = {{ authorization = \"{}\" }}",
        secret.display()
    ));
    let at = clock::now().minus_ms(5_000);
    host.append("node-a", at, 1.0);
    std::fs::write(&secret, format!("Bearer {}\n", issued.0)).unwrap();
    let mut value = 1.0;
    let node = SubjectRef::node("node-a");
    let arrived = until("a sample of each series", async || {
        value += 1.0;
        host.append("node-a", clock::now(), value);
        let found = there.latest(&node, "system.cpu.utilization");
        found.into_iter().next()
    });
    let (key, sample) = arrived.await;
    assert!(sample.value > 1.0 && key.unit == "1", "{key:?}");
    let wanted = BTreeMap::from([
        ("aether.source".to_owned(), "me".to_owned()),
        ("otel.scope.name".to_owned(), "aether".to_owned()),
        ("source".to_owned(), issued.1.id.0.clone()),
    ]);
    assert_eq!(key.attributes, wanted);
    assert_eq!(there.latest(&node, "system.disk.io")[0].0.attributes["disk.io.direction"], "read");
    let job = SubjectRef { kind: SubjectKind::Workload, id: "job-7".into() };
    assert_eq!(there.latest(&job, "aether.workload.progress").len(), 1);
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_has_no_room_gets_it_again_and_one_that_says_no_does_not() {
    let mut host = Host::start().await;
    let (seen, mut requests) = mpsc::channel::<usize>(64);
    let (answers, plan) = mpsc::channel::<(StatusCode, Option<&'static str>)>(64);
    let plan = std::sync::Arc::new(tokio::sync::Mutex::new(plan));
    for answer in [
        (StatusCode::SERVICE_UNAVAILABLE, Some("1")),
        (StatusCode::TOO_MANY_REQUESTS, None),
        (StatusCode::OK, None),
        (StatusCode::BAD_REQUEST, None),
        (StatusCode::OK, None),
    ] {
        answers.send(answer).await.unwrap();
    }
    let take = move |body: Bytes| {
        let (seen, plan) = (seen.clone(), plan.clone());
        async move {
            seen.send(body.len()).await.unwrap();
            let (status, after) = plan.lock().await.recv().await.unwrap();
            match after {
                Some(after) => (status, [("retry-after", after)]).into_response(),
                None => status.into_response(),
            }
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/w", listener.local_addr().unwrap());
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, Router::new().route("/w", post(take))).await.unwrap() });
    host.forward(&format!("kind = \"remote_write\"\nurl = \"{url}\""));
    let mut next = async || timeout(PATIENCE, requests.recv()).await.expect("a request in time").unwrap();
    let began = tokio::time::Instant::now();
    host.append("node-a", clock::now(), 1.0);
    let first = next().await;
    assert_eq!(next().await, first, "the same again");
    assert!(began.elapsed() >= Duration::from_secs(1), "not before the receiver asked for it");
    assert_eq!(next().await, first, "and again");
    // The third was taken; the next is refused for good, and the one after it is sent as if nothing had been.
    host.append("node-a", clock::now(), 2.0);
    next().await;
    host.append("node-a", clock::now(), 3.0);
    next().await;
    host.end().await;
}
