//! What comes by OTLP from the OpenTelemetry SDK for Python, as `make setup-test` installs one, over both ways in; and
//! what a sender that does it wrong is told.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use aether_core::{
    incident::Rank,
    subject::{SubjectKind, SubjectRef},
    telemetry::Sample,
};
use aether_host::{
    auth::{self, Scope},
    clock,
    ingest::{Acknowledge, Otlp, Settings},
    store::Store,
};
use aether_recorder::Recorder;
use std::{collections::BTreeMap, process::Stdio, time::Duration};
use tokio::{process::Command, task::JoinSet};
use tokio_util::sync::CancellationToken;

struct Host {
    _folder: tempfile::TempDir,
    store: Store,
    recorder: Recorder,
    url: String,
    _serving: JoinSet<()>,
}

impl Host {
    async fn start(settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("aether.db")).await.unwrap();
        let segments = aether_recorder::local_store(&folder.path().join("telemetry")).unwrap();
        let recorder = Recorder::open(aether_recorder::Settings::default(), segments, clock::now()).await.unwrap();
        let router = Otlp::new(settings, store.clone(), recorder.clone()).router();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { _folder: folder, store, recorder, url, _serving: serving }
    }

    async fn token(&self, scope: Scope, rank: Rank) -> String {
        auth::issue_for(&self.store, "collector", rank, scope, "test", clock::now(), None).await.unwrap().0
    }

    /// The newest values of a metric, by the attributes that its sender chose.
    fn latest(&self, subject: &SubjectRef, metric: &str) -> BTreeMap<String, f64> {
        let ours = ["source", "otel.scope.name"];
        let found = self.recorder.latest(subject, metric).into_iter().map(|(key, Sample { value, .. })| {
            assert!(key.attributes["source"].starts_with("collector-"), "{key:?}");
            assert_eq!(key.attributes["otel.scope.name"], "of.the.test");
            let chosen = key.attributes.iter().filter(|(name, _)| !ours.contains(&name.as_str()));
            (chosen.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "), value)
        });
        found.collect()
    }
}

struct Sent {
    answers: Vec<String>,
    log: String,
}

/// The SDK sends two exports. None: it is not installed here.
async fn send(test: &str, host: &Host, words: &[&str]) -> Option<Sent> {
    let Some(python) = std::env::var_os("AETHER_OPENTELEMETRY_PYTHON") else {
        assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "{test} needs AETHER_OPENTELEMETRY_PYTHON");
        if let Some(skips) = std::env::var_os("AETHER_SKIPS") {
            use std::io::Write as _;
            let file = std::fs::File::options().append(true).create(true).open(skips);
            file.and_then(|mut file| writeln!(file, "test {test}: no OpenTelemetry SDK")).unwrap();
        }
        return None;
    };
    let [transport, token, rest @ ..] = words else { panic!("transport and token") };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/otlp/send.py");
    let child = Command::new(python)
        .args([script, transport, &host.url, token])
        .args(rest)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(120), child).await.expect("the SDK ends").unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{log}");
    let answers = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    Some(Sent { answers, log })
}

fn values(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

fn check_all(host: &Host, subject: &SubjectRef, of: &str) {
    let latest = |metric: &str| host.latest(subject, metric);
    let named = |name: &str| [of, name].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    let one = |name: &str, value: f64| BTreeMap::from([(named(name), value)]);
    // `route` sorts before `service.name`.
    let route = ["route=/a", of].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    assert_eq!(latest("requests"), BTreeMap::from([(route, 6.0)]));
    assert_eq!(latest("temperature"), one("", 21.5));
    assert_eq!(latest("active"), one("", 4.0));
    assert_eq!(latest("latency.count"), one("", 6.0));
    let sum = latest("latency.sum")[of];
    assert!((sum - 11.1).abs() < 1e-9, "{sum}");
    let buckets = |pairs: &[(&str, f64)]| -> BTreeMap<String, f64> {
        let bound = |bound: &str| if of.is_empty() { format!("le={bound}") } else { format!("le={bound} {of}") };
        pairs.iter().map(|(name, value)| (bound(name), *value)).collect()
    };
    assert_eq!(latest("latency.bucket"), buckets(&[("0.1", 2.0), ("1", 4.0), ("+Inf", 6.0)]));
    assert_eq!(latest("latency.min"), one("", 0.05));
    assert_eq!(latest("latency.max"), one("", 5.0));
    // 0.75 lies in (0.5, 1], 3.0 and 3.5 in (2, 4].
    assert_eq!(latest("exponential.count"), one("", 6.0));
    assert_eq!(latest("exponential.bucket"), buckets(&[("1", 2.0), ("4", 6.0), ("+Inf", 6.0)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_sends_every_kind_of_metric_both_ways_cumulative_and_as_differences() {
    let host = Host::start(Settings::default()).await;
    let token = host.token(Scope::Telemetry, Rank::Viewer).await;
    let mut node = 0;
    for transport in ["grpc", "http"] {
        for temporality in ["cumulative", "delta"] {
            node += 1;
            let (host_name, subject) = (format!("host.name=Node-{node}"), SubjectRef::node(format!("node-{node}")));
            let words = [transport, &token, temporality, &host_name, "service.name=train"];
            let Some(sent) = send("otlp sdk", &host, &words).await else { return };
            assert_eq!(sent.answers, ["SUCCESS", "SUCCESS"], "{transport} {temporality}: {}", sent.log);
            check_all(&host, &subject, "service.name=train");
        }
    }
    let series = host.recorder.series(Some(&SubjectRef::node("node-1")));
    assert!(series.iter().all(|series| series.origin.as_str().starts_with("otlp.collector-")));
    let unit = |metric: &str| series.iter().find(|series| series.key.metric == metric).unwrap().key.unit.clone();
    assert_eq!(
        (unit("requests"), unit("latency.sum"), unit("latency.bucket")),
        ("{request}".into(), "s".into(), "1".into())
    );

    // Without a host it is a participant, and its service is its name.
    let words = ["http", &token, "cumulative", "service.name=my svc", "service.namespace=shop"];
    send("otlp sdk", &host, &words).await.unwrap();
    let participant = SubjectRef { kind: SubjectKind::Participant, id: "shop/my_svc".into() };
    check_all(&host, &participant, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_is_told_of_what_was_refused_and_of_a_token_that_does_not_do() {
    let host = Host::start(Settings::default()).await;
    let token = host.token(Scope::Telemetry, Rank::Viewer).await;
    for transport in ["grpc", "http"] {
        let resource = format!("host.name=bad-{transport}");
        let words = [transport, &token, "cumulative", &resource];
        let Some(sent) = send("otlp refusals", &host, &words).await else { return };
        assert_eq!(sent.answers, ["SUCCESS", "SUCCESS"], "{}", sent.log);
        let subject = SubjectRef::node(format!("bad-{transport}"));
        assert_eq!(host.latest(&subject, "temperature"), values(&[("", 21.5)]), "the good points are in");
    }
    let viewer = host.token(Scope::Full, Rank::Viewer).await;
    let operator = host.token(Scope::Full, Rank::Operator).await;
    for transport in ["grpc", "http"] {
        for (token, answer) in [("aet_nobody", "FAILURE"), (viewer.as_str(), "FAILURE"), (operator.as_str(), "SUCCESS")]
        {
            let sent = send("otlp refusals", &host, &[transport, token, "cumulative", "service.name=x"]).await.unwrap();
            assert_eq!(sent.answers, [answer, answer], "{transport} {token}: {}", sent.log);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_can_wait_until_the_points_are_safe() {
    let settings = Settings { acknowledge: Acknowledge::Sealed, ..Settings::default() };
    let host = Host::start(settings).await;
    let token = host.token(Scope::Telemetry, Rank::Viewer).await;
    // As the server's own driver does.
    let stop = CancellationToken::new();
    let mut sealing = JoinSet::new();
    let (recorder, stopped) = (host.recorder.clone(), stop.clone());
    sealing.spawn(async move {
        let mut seals = tokio::time::interval(Duration::from_millis(200));
        while !stopped.is_cancelled() {
            seals.tick().await;
            recorder.seal(clock::now()).await.unwrap();
        }
    });
    let Some(sent) = send("otlp sealed", &host, &["grpc", &token, "cumulative", "host.name=node-a"]).await else {
        return;
    };
    assert_eq!(sent.answers, ["SUCCESS", "SUCCESS"], "{}", sent.log);
    stop.cancel();
    sealing.join_next().await.unwrap().unwrap();
    assert_eq!(host.recorder.status().unsealed_batches, 0);
}
