//! The real server, and nodes that send to it.

use crate::{
    Load, START, Taken,
    measure::{Gauge, Started, bytes_in, free_port, reaches},
};
use aether_core::{
    id::NodeId,
    subject::SubjectRef,
    telemetry::{Batch, Columns, Layout, SeriesKey},
    time::Time,
};
use aether_host::clock;
use aether_proto::{
    telemetry::Encoder,
    v1::{self, ClientFrame, client_frame::Payload as Up, fabric_client::FabricClient, server_frame::Payload as Down},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet};
use tonic::transport::{Channel, Endpoint};

/// Nodes that share a connection: thousands of sockets in one program are not what is measured.
const NODES_A_CONNECTION: usize = 50;

/// Of a node that has nothing else to say.
const BEAT: Duration = Duration::from_secs(2);

/// Between two looks for a sample that was just sent.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// Between two samples that are looked for: seldom enough to be a small part of what the server does.
const REST: Duration = Duration::from_millis(50);

pub(crate) struct Measured {
    pub(crate) taken: Taken,
    /// How many milliseconds samples that were looked for, the last of their batches, were old when the hot window told of
    /// them.
    pub(crate) visible_ms: Vec<u64>,
    /// How often components were evaluated, for each node and second of what was sent after the start.
    pub(crate) evaluated: f64,
}

/// `tick_ms`: how often every node is scored meanwhile. `seconds_a_batch`: how many seconds' samples come in one.
pub(crate) async fn measure(load: Load, tick_ms: u64, seconds_a_batch: usize) -> Measured {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:{port}\"\ndata_dir = \"{data}\"\n\
         [policy]\nbundle_dir = \"{bundle}\"\nplugins_dir = \"{plugins}\"\n\
         [control]\ntick_ms = {tick_ms}\n\
         [recorder]\nhot_series_limit = 10000000\nhot_bytes_limit = 8589934592\nunsealed_bytes_limit = 4294967296\n",
        data = folder.path().join("host").display(),
        bundle = root.join("policies/default").display(),
        plugins = root.join("build/plugins").display(),
    );
    let path = folder.path().join("aether.toml");
    fs::write(&path, config).unwrap();
    let log = fs::File::create(folder.path().join("host.log")).unwrap();
    // The one that is measured may have been built elsewhere.
    let server = std::env::var_os("NEXTEST_BIN_EXE_aether").unwrap_or_else(|| env!("CARGO_BIN_EXE_aether").into());
    let mut command = Command::new(server);
    command.args(["serve", "--config"]).arg(&path).stdin(Stdio::null());
    let host = Started(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    let url = format!("http://127.0.0.1:{port}");
    let client = reqwest::Client::new();
    let (ready, asking) = (format!("{url}/readyz"), client.clone());
    reaches("the server is ready", async || {
        asking.get(&ready).send().await.is_ok_and(|answer| answer.status().is_success())
    })
    .await;
    let token = fs::read_to_string(folder.path().join("host/admin.token")).unwrap().trim().to_owned();

    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut nodes = JoinSet::new();
    let mut channel: Option<Channel> = None;
    let (begin, _) = tokio::sync::watch::channel(None);
    let (sent, looked_for) = mpsc::channel(1);
    for index in 0..load.nodes {
        if index % NODES_A_CONNECTION == 0 {
            channel = Some(Endpoint::from_shared(url.clone()).unwrap().connect().await.unwrap());
        }
        let node = format!("node-{index:05}");
        let made = client.post(format!("{url}/api/v1/join-tokens")).bearer_auth(&token).json(&json!({ "node": node }));
        let made: Value = made.send().await.unwrap().json().await.unwrap();
        let secret = made["token"].as_str().unwrap_or_else(|| panic!("no token in {made}")).to_owned();
        let sender = Sender {
            index,
            node,
            load,
            seconds_a_batch,
            begin: begin.subscribe(),
            acknowledged: acknowledged.clone(),
            sent: sent.clone(),
        };
        nodes.spawn(sender.run(channel.clone().unwrap(), secret));
    }
    let (status, asking) = (format!("{url}/api/v1/status"), client.clone());
    reaches("every node is live", async || {
        let answer = asking.get(&status).bearer_auth(&token).send().await;
        let Ok(answer) = answer else { return false };
        answer.json::<Value>().await.is_ok_and(|status| status["live_nodes"] == load.nodes)
    })
    .await;

    let gauge = Gauge::of(host.0.id());
    let before = gauge.processor_s();
    let began = tokio::time::Instant::now();
    begin.send_replace(Some(began));
    let found = Arc::new(Mutex::new(Vec::new()));
    nodes.spawn(look(client.clone(), url.clone(), token, looked_for, found.clone()));
    tokio::time::sleep_until(began + Duration::from_secs(START as u64)).await;
    let (started, before_then, then) = (gauge.processor_s(), evaluations(&client, &url).await, began.elapsed());
    let wanted = (load.nodes * (load.seconds / seconds_a_batch)) as u64;
    reaches("all of it is safe", async || acknowledged.load(Relaxed) >= wanted).await;
    let taken = Taken {
        start_s: started - before,
        processor_s: gauge.processor_s() - started,
        resident_mib: gauge.resident_mib(),
        at_rest: Some(bytes_in(&folder.path().join("host/telemetry"))),
    };
    let passed = (began.elapsed() - then).as_secs_f64();
    let evaluated = (evaluations(&client, &url).await - before_then) / passed / load.nodes as f64;
    nodes.shutdown().await;
    let visible_ms = std::mem::take(&mut *found.lock().unwrap());
    Measured { taken, visible_ms, evaluated }
}

/// How often components were evaluated so far.
async fn evaluations(client: &reqwest::Client, url: &str) -> f64 {
    let text = client.get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
    let lines = text.lines().filter(|line| line.starts_with("aether_slot_evaluations_total{"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// Looks for samples that were just sent until the server tells of them.
async fn look(
    client: reqwest::Client,
    url: String,
    token: String,
    mut sent: mpsc::Receiver<(String, Time)>,
    found: Arc<Mutex<Vec<u64>>>,
) {
    loop {
        while sent.try_recv().is_ok() {}
        let Some((node, at)) = sent.recv().await else { return };
        let asked =
            format!("{url}/api/v1/telemetry/range?subject=node/{node}&metric=measured.metric_000&from={}", at.0);
        loop {
            let answer = client.get(&asked).bearer_auth(&token).send().await.unwrap().json::<Value>().await.unwrap();
            if answer["series"].as_array().is_some_and(|series| !series.is_empty()) {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        found.lock().unwrap().push(clock::now().since_ms(at));
        tokio::time::sleep(REST).await;
    }
}

struct Sender {
    index: usize,
    node: String,
    load: Load,
    seconds_a_batch: usize,
    begin: tokio::sync::watch::Receiver<Option<tokio::time::Instant>>,
    /// Batches of all nodes that are safe.
    acknowledged: Arc<AtomicU64>,
    /// What was just sent, for who looks for it.
    sent: mpsc::Sender<(String, Time)>,
}

impl Sender {
    async fn run(mut self, channel: Channel, secret: String) {
        let (up, frames) = mpsc::channel(64);
        let frames = tokio_stream::wrappers::ReceiverStream::new(frames);
        let mut client = FabricClient::new(channel).max_decoding_message_size(aether_proto::FRAME_BYTES_MAXIMUM);
        let mut frame = 0;
        let mut framed = move |payload| {
            frame += 1;
            ClientFrame {
                sequence: frame,
                sent_at_ms: clock::now().0,
                traceparent: String::new(),
                payload: Some(payload),
            }
        };
        up.send(framed(Up::Hello(self.hello(secret)))).await.unwrap();
        let mut down = client.connect(frames).await.unwrap().into_inner();
        let epoch = clock::now().0.unsigned_abs();
        let (mut encoder, layout) = (Encoder::default(), self.layout());
        let (mut sent, mut safe) = (0, 0);
        let mut sampled = Vec::new();
        // Spread over the second, as the clocks of a fleet are.
        let offset = Duration::from_millis((self.index * 1_000 / self.load.nodes) as u64);
        let mut next = None;
        let mut beat = tokio::time::interval(BEAT);
        let mut said = tokio::time::Instant::now();
        loop {
            tokio::select! {
                begun = self.begin.changed(), if next.is_none() => {
                    begun.unwrap();
                    next = self.begin.borrow().map(|begin| begin + offset);
                }
                () = async { tokio::time::sleep_until(next.unwrap()).await }, if next.is_some() && sent < self.load.seconds => {
                    next = next.map(|next| next + Duration::from_secs(1));
                    sent += 1;
                    let at = clock::now();
                    sampled.push((sent, at));
                    if sampled.len() == self.seconds_a_batch {
                        let batch = self.batch(&layout, epoch, sent / self.seconds_a_batch, &sampled);
                        sampled.clear();
                        up.send(framed(Up::Telemetry(encoder.encode(&batch, 0)))).await.unwrap();
                        said = tokio::time::Instant::now();
                        drop(self.sent.try_send((self.node.clone(), at)));
                    }
                }
                // As an agent does, only where nothing else was sent.
                _ = beat.tick() => if said.elapsed() * 2 >= BEAT {
                    up.send(framed(Up::Heartbeat(v1::Heartbeat {}))).await.unwrap();
                },
                told = down.message() => {
                    // The server has ended, and the measurement with it.
                    let Ok(Some(told)) = told else { return };
                    match told.payload {
                        Some(Down::TelemetryAck(ack)) => {
                            self.acknowledged.fetch_add(ack.sequence - safe, Relaxed);
                            safe = ack.sequence;
                        }
                        Some(Down::TelemetryRejected(rejected)) => panic!("{}: {rejected:?}", self.node),
                        Some(Down::Refused(refused)) => panic!("{}: {refused:?}", self.node),
                        _ => {}
                    }
                }
            }
        }
    }

    fn hello(&self, secret: String) -> v1::Hello {
        v1::Hello {
            principal: Some(v1::Principal {
                kind: Some(v1::principal::Kind::NodeAgent(v1::NodeAgent { node: self.node.clone() })),
            }),
            credentials: Some(v1::Credentials { kind: Some(v1::credentials::Kind::JoinToken(secret)) }),
            protocol_versions: vec!["1.0".into()],
            software_version: "0.1.0".into(),
            instance_id: format!("instance-of-{}", self.node),
            boot_id: "boot-1".into(),
            knows_host_heartbeat: true,
            ..v1::Hello::default()
        }
    }

    /// Of every batch: a metric of each, at one list of times.
    fn layout(&self) -> Arc<Layout> {
        let key = |metric| SeriesKey {
            subject: SubjectRef::node(&self.node),
            metric: format!("measured.metric_{metric:03}"),
            unit: "1".into(),
            attributes: BTreeMap::new(),
        };
        let series = (0..self.load.metrics).map(|metric| (Arc::new(key(metric)), 0));
        Layout::new(series, &[self.seconds_a_batch]).unwrap().into()
    }

    fn batch(&self, layout: &Arc<Layout>, epoch: u64, sequence: usize, sampled: &[(usize, Time)]) -> Batch {
        let value = |metric| sampled.iter().map(move |(second, _)| Load::value(self.index, metric, *second));
        let values = (0..self.load.metrics).flat_map(value).collect();
        let times = sampled.iter().map(|(_, at)| *at).collect();
        let series = Columns::new(Arc::clone(layout), times, values).unwrap();
        Batch { origin: NodeId::new(&self.node), epoch, sequence: sequence as u64, series, events: vec![] }
    }
}
