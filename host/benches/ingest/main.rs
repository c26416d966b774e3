//! What taking telemetry costs: the real server, and a fleet of nodes that each have a session of their own and send a
//! batch every second; then the same samples, at the same pace, by remote write into Prometheus and VictoriaMetrics from
//! Debian's packages. What is compared is the processor time that each takes for a million samples, so that the sender's
//! own does not count, and the memory that it has in use at the end. The first ten seconds, in which every series is new,
//! are told apart: what a store takes from then on is what it takes for as long as it runs.
//!
//! `cargo bench --workspace --bench ingest [-- NODES METRICS SECONDS]`, under `with-tools.sh` for the peers.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a measurement fails by panicking, waits by the clock, and prints"
)]

mod aether;
#[path = "../measure/mod.rs"]
mod measure;

use aether::Measured;
use measure::peer::{self, Label, Peer, Sample, TimeSeries};
use std::{path::Path, time::Duration};

/// What is sent: so many metrics of so many nodes, once a second for so long.
#[derive(Clone, Copy)]
struct Load {
    nodes: usize,
    metrics: usize,
    seconds: usize,
}

impl Load {
    fn a_second(self) -> f64 {
        (self.nodes * self.metrics) as f64
    }

    /// A load of a machine: mostly steady, with some jitter in the last digits, another one for each series.
    fn value(node: usize, metric: usize, second: usize) -> f64 {
        let seed = (node * 7_919 + metric * 104_729) as u64;
        let mut noise = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ second as u64;
        noise ^= noise >> 29;
        noise = noise.wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let jitter = (noise >> 40) % 40;
        // A third of the series of a real node are counters, and a third do not change within a minute.
        match metric % 3 {
            0 => (second * (metric + 1)) as f64 + jitter as f64,
            1 => (seed % 1_000) as f64,
            _ => ((seed % 900) as f64 + jitter as f64) / 1_000.0,
        }
    }
}

/// Samples of one request: what Prometheus' own sender puts into one, of many nodes together.
const SAMPLES_A_REQUEST: usize = 2_000;

/// Seconds in which series are new.
const START: usize = 10;

/// What one of them took.
struct Taken {
    /// User and system, in the first seconds and from then on.
    start_s: f64,
    processor_s: f64,
    resident_mib: f64,
    /// Bytes on disk.
    at_rest: Option<u64>,
}

/// `samples_a_request`: so many at most, of whole nodes and of one at least.
async fn of_peer(peer: &Peer, binary: &Path, load: Load, samples_a_request: usize) -> Taken {
    let running = peer.start(binary).await;
    let (before, mut started) = (running.gauge.processor_s(), None);
    let mut next = tokio::time::Instant::now();
    let nodes_a_request = (samples_a_request / load.metrics).max(1);
    for second in 1..=load.seconds {
        tokio::time::sleep_until(next).await;
        if second > START {
            started.get_or_insert_with(|| running.gauge.processor_s());
        }
        next += Duration::from_secs(1);
        for first in (0..load.nodes).step_by(nodes_a_request) {
            let nodes = first..(first + nodes_a_request).min(load.nodes);
            running.write(series(load, nodes, second)).await;
        }
    }
    let (all, resident_mib) = (running.gauge.processor_s(), running.gauge.resident_mib());
    let started = started.unwrap_or(all);
    Taken { start_s: started - before, processor_s: all - started, resident_mib, at_rest: running.end() }
}

fn series(load: Load, nodes: std::ops::Range<usize>, second: usize) -> Vec<TimeSeries> {
    let timestamp = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    let series = nodes.flat_map(|node| (0..load.metrics).map(move |metric| (node, metric)));
    let series = series.map(|(node, metric)| TimeSeries {
        labels: vec![
            Label { name: "__name__".into(), value: format!("measured_metric_{metric:03}") },
            Label { name: "node".into(), value: format!("node-{node:05}") },
        ],
        samples: vec![Sample { value: Load::value(node, metric, second), timestamp }],
    });
    series.collect()
}

#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let asked: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let at = |index: usize, otherwise: usize| asked.get(index).copied().unwrap_or(otherwise);
    let load = Load { nodes: at(0, 1_000), metrics: at(1, 100), seconds: at(2, 40).max(2 * START).next_multiple_of(5) };
    let Load { nodes, metrics, seconds } = load;
    println!("{nodes} nodes, {metrics} metrics each, once a second for {seconds} s:");
    println!(
        "{:>27}  {:>15}  {:>17}  {:>12}  {:>8}  {:>9}",
        "", "CPU s / million", "in the first 10 s", "of a core, %", "RSS, MiB", "B at rest"
    );
    let (at_first, later) = (load.a_second() * START as f64, load.a_second() * (seconds - START) as f64);
    let tell = |name: &str, taken: &Taken| {
        let at_rest = taken.at_rest.map(|bytes| format!("{:.2}", bytes as f64 / (at_first + later)));
        println!(
            "{name:>27}  {:>15.3}  {:>17.3}  {:>12.1}  {:>8.0}  {:>9}",
            taken.processor_s / later * 1e6,
            taken.start_s / at_first * 1e6,
            taken.processor_s / later * load.a_second() * 100.0,
            taken.resident_mib,
            at_rest.as_deref().unwrap_or("-"),
        );
    };
    // No peer judges what it takes: so it is measured with the nodes scored once a minute, and each second. And with a
    // batch every five seconds, which is a setting: each batch is a message of its own.
    let mut ours = None;
    for (name, tick_ms, seconds_a_batch) in
        [("aether", 60_000, 1), ("aether, scoring", 1_000, 1), ("aether, batch each 5 s", 60_000, 5)]
    {
        let Measured { taken, mut visible_ms, evaluated } = aether::measure(load, tick_ms, seconds_a_batch).await;
        tell(name, &taken);
        visible_ms.sort_unstable();
        let part = |percent: usize| visible_ms[(visible_ms.len() - 1) * percent / 100];
        println!(
            "{:>27}  samples were in the hot window after ms: median {}, p99 {}, the last of {} {}; {evaluated:.2} evaluations a second of a node",
            "",
            part(50),
            part(99),
            visible_ms.len(),
            part(100)
        );
        ours.get_or_insert(taken);
    }
    let ours = ours.unwrap();
    let mut best = f64::INFINITY;
    for peer in peer::ALL {
        match measure::program(peer.variable) {
            None => println!(
                "{:>27}  not here: {} names none (host/xtask/setup/debian.sh gets it)",
                peer.name, peer.variable
            ),
            Some(binary) => {
                let taken = of_peer(&peer, &binary, load, SAMPLES_A_REQUEST).await;
                tell(peer.name, &taken);
                best = best.min(taken.processor_s);
                // As the nodes of a fleet would, which have nobody that sends for many.
                tell(&format!("{}, by node", peer.name), &of_peer(&peer, &binary, load, metrics).await);
            }
        }
    }
    if best.is_finite() {
        println!(
            "aether takes {:.2} of the better peer's processor time, which has the samples of many nodes in one request (bar: 0.50)",
            ours.processor_s / best
        );
    }
}
