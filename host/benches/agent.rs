//! What the agent costs the node that it is on: the real agent with every source that this machine has, each second, and
//! beside it, at the same time, Debian's `prometheus-node-exporter`, scraped each second. What is compared is the processor
//! time for each sample told, the processor time for each series kept (the exporter tells all of its series each second, the
//! agent each at the interval that it needs), and the memory in use.
//!
//! What it told is then written into VictoriaMetrics, too, with its own times: the bytes that the same real telemetry
//! takes at rest, here as it lies right after and as one file (as it is when it was compacted).
//!
//! `cargo bench --workspace --bench agent [-- SECONDS]`, as root and under `with-tools.sh`, which names the peers.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    dead_code,
    reason = "a measurement fails by panicking, waits by the clock, and prints"
)]

#[path = "../tests/fleet/mod.rs"]
mod fleet;
mod measure;

use fleet::Fleet;
use measure::{
    Gauge, Started, bytes_in, free_port,
    peer::{self, Label, Sample, TimeSeries},
    program, reaches,
};
use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    time::Duration,
};

const SECONDS: u64 = 120;
/// What only the beginning costs: programs are loaded, the machine's inventory is taken, the first page of everything.
const SETTLES: Duration = Duration::from_secs(15);
const CPU_BAR: f64 = 0.5;
const RSS_BAR_MIB: f64 = 40.0;
const AT_REST_BAR: f64 = 2.0;
const SAMPLES_A_REQUEST: usize = 2_000;

/// Lines of a Prometheus text that are samples.
fn samples_in(text: &str) -> usize {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count()
}

/// A metric of the server's own.
async fn own(fleet: &Fleet, metric: &str) -> f64 {
    let text = fleet.text("/metrics").await;
    let lines = text.lines().filter(|line| line.split([' ', '{']).next() == Some(metric));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// What the recorder has taken so far.
async fn taken(fleet: &Fleet) -> f64 {
    own(fleet, "aether_recorder_samples_total").await
}

fn verdict(ratio: f64, bar: f64) -> &'static str {
    if ratio <= bar { "met" } else { "not met" }
}

#[tokio::main]
async fn main() {
    let seconds = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(SECONDS);
    let exporter = program("AETHER_PROMETHEUS_NODE_EXPORTER").map(|binary| {
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(binary);
        command.arg(format!("--web.listen-address={address}"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        (Started(command.spawn().unwrap()), format!("http://{address}/metrics"))
    });
    let mut fleet = Fleet::start_unasked("").await;
    fleet.start_agent("node-a", false).await;
    let client = reqwest::Client::new();
    if let Some((_, url)) = &exporter {
        reaches("the exporter answers", async || client.get(url).send().await.is_ok()).await;
    }
    tokio::time::sleep(SETTLES).await;

    let agent = Gauge::of(fleet.agent_pid("node-a"));
    let peer = exporter.as_ref().map(|(started, _)| Gauge::of(started.0.id()));
    let before = (agent.processor_s(), taken(&fleet).await, peer.as_ref().map_or(0.0, Gauge::processor_s));
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let (mut scraped, mut scraped_at_once) = (0, 0);
    for _ in 0..seconds {
        ticks.tick().await;
        if let Some((_, url)) = &exporter {
            scraped_at_once = samples_in(&client.get(url).send().await.unwrap().text().await.unwrap());
            scraped += scraped_at_once;
        }
    }
    let told = taken(&fleet).await - before.1;
    println!("{seconds} s, every second, at the same time:");
    println!(
        "{:>14}  {:>9}  {:>7}  {:>16}  {:>15}  {:>17}  {:>8}",
        "", "samples", "series", "CPU, % of a core", "CPU µs / sample", "CPU µs / series s", "RSS, MiB"
    );
    let tell = |name: &str, samples: f64, series: f64, processor_s: f64, resident_mib: f64| {
        let a_second = processor_s / seconds as f64;
        let (share, of_sample, of_series) = (a_second * 100.0, processor_s / samples * 1e6, a_second / series * 1e6);
        println!(
            "{name:>14}  {samples:>9.0}  {series:>7.0}  {share:>16.2}  {of_sample:>15.1}  {of_series:>17.1}  {resident_mib:>8.1}"
        );
        (of_sample, of_series)
    };
    let series = own(&fleet, "aether_recorder_hot_series").await;
    let ours = tell("aether-agent", told, series, agent.processor_s() - before.0, agent.resident_mib());
    if let Some(peer) = peer {
        let processor_s = peer.processor_s() - before.2;
        let theirs = tell("node-exporter", scraped as f64, scraped_at_once as f64, processor_s, peer.resident_mib());
        for (what, ratio) in [("sample", ours.0 / theirs.0), ("series", ours.1 / theirs.1)] {
            println!("CPU for a {what}: {ratio:.2} of the exporter's (bar {CPU_BAR}: {})", verdict(ratio, CPU_BAR));
        }
    }
    let resident = agent.resident_mib();
    println!("RSS: {resident:.1} MiB (bar {RSS_BAR_MIB}: {})", verdict(resident, RSS_BAR_MIB));
    at_rest(&mut fleet).await;
}

/// The same telemetry here and there.
async fn at_rest(fleet: &mut Fleet) {
    let victoria = peer::ALL.iter().find(|peer| peer.name == "victoria-metrics").unwrap();
    let Some(binary) = program(victoria.variable) else { return };
    fleet.kill_agent("node-a");
    // What was acknowledged is sealed, and what was not is within a seal's interval.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let lies = bytes_in(&fleet.data().join("telemetry"));
    let (csv, one) = (fleet.folder().join("all.csv"), fleet.folder().join("all.parquet"));
    for file in [&csv, &one] {
        fleet.cli(&["history", "export", file.to_str().unwrap()]);
    }
    let mut reader = csv::Reader::from_path(&csv).unwrap();
    let names: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let mut series: BTreeMap<Vec<(String, String)>, Vec<Sample>> = BTreeMap::new();
    let mut samples = 0;
    for record in reader.records() {
        let record = record.unwrap();
        let cell = |name: &str| record.get(names.iter().position(|known| known == name).unwrap()).unwrap();
        let Ok(value) = cell("value").parse() else { continue };
        let timestamp = cell("timestamp").parse().unwrap();
        let labels = names
            .iter()
            .zip(&record)
            .filter(|(name, text)| !["value", "timestamp"].contains(&name.as_str()) && !text.is_empty());
        let label = |(name, text): (&String, &str)| match name.as_str() {
            "metric" => ("__name__".to_owned(), text.to_owned()),
            name => (name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"), text.to_owned()),
        };
        series.entry(labels.map(label).collect()).or_default().push(Sample { value, timestamp });
        samples += 1;
    }
    let running = victoria.start(&binary).await;
    let count = series.len();
    let mut request = Vec::new();
    let mut in_request = 0;
    for (labels, of_series) in series {
        let labels: Vec<Label> = labels.into_iter().map(|(name, value)| Label { name, value }).collect();
        for few in of_series.chunks(SAMPLES_A_REQUEST) {
            in_request += few.len();
            request.push(TimeSeries { labels: labels.clone(), samples: few.to_vec() });
            if in_request >= SAMPLES_A_REQUEST {
                running.write(std::mem::take(&mut request)).await;
                in_request = 0;
            }
        }
    }
    running.write(request).await;
    let theirs = running.end().unwrap();
    let one = std::fs::metadata(one).unwrap().len();
    let each = |bytes: u64| bytes as f64 / f64::from(samples);
    println!("{samples} samples of {count} series at rest, bytes a sample:");
    println!(
        "  aether, as it lies {:.2}, as one file {:.2}; victoria-metrics {:.2}",
        each(lies),
        each(one),
        each(theirs)
    );
    let ratio = each(one) / each(theirs);
    println!("  as one file {ratio:.2} of theirs (bar {AT_REST_BAR}: {})", verdict(ratio, AT_REST_BAR));
}
