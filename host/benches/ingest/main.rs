//! What taking telemetry costs: the real server, and a fleet of nodes that each have a session of their own and send a
//! batch every second; then the same samples, at the same pace, by remote write into Prometheus and VictoriaMetrics from
//! Debian's packages. What is compared is the processor time that each takes for a million samples, so that the sender's
//! own does not count, and the memory that it has in use at the end.
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
mod peer;

use std::{path::Path, process::Child, time::Duration};

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

/// What one of them took.
struct Taken {
    samples: f64,
    /// User and system.
    processor_s: f64,
    resident_mib: f64,
    /// Bytes on disk.
    at_rest: Option<u64>,
}

/// Processor time and memory of a process, from its beginning on.
struct Gauge(procfs::process::Process);

impl Gauge {
    fn of(child: &Child) -> Self {
        Self(procfs::process::Process::new(child.id() as i32).unwrap())
    }

    fn processor_s(&self) -> f64 {
        let stat = self.0.stat().unwrap();
        (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64
    }

    fn resident_mib(&self) -> f64 {
        (self.0.stat().unwrap().rss * procfs::page_size()) as f64 / f64::from(1 << 20)
    }
}

/// Ended with the measurement.
struct Started(Child);

impl Started {
    /// Asks it to end, and waits until it has.
    fn end(&mut self) {
        let id = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn reaches(what: &str, ready: impl AsyncFn() -> bool) {
    for _ in 0..600 {
        if ready().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not within a minute: {what}");
}

fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let bytes = |entry: std::fs::DirEntry| match entry.metadata().unwrap() {
        metadata if metadata.is_dir() => bytes_in(&entry.path()),
        metadata => metadata.len(),
    };
    entries.map(bytes).sum()
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn program(variable: &str) -> Option<std::path::PathBuf> {
    std::env::var_os(variable).map(Into::into).filter(|path: &std::path::PathBuf| Path::is_file(path))
}

#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let asked: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let at = |index: usize, otherwise: usize| asked.get(index).copied().unwrap_or(otherwise);
    let load = Load { nodes: at(0, 1_000), metrics: at(1, 100), seconds: at(2, 30) };
    let Load { nodes, metrics, seconds } = load;
    println!("{nodes} nodes, {metrics} metrics each, once a second for {seconds} s:");
    println!(
        "{:>27}  {:>12}  {:>16}  {:>14}  {:>9}  {:>8}",
        "", "samples", "CPU s / million", "of a core, %", "RSS, MiB", "B at rest"
    );
    let tell = |name: &str, taken: &Taken| {
        let at_rest = taken.at_rest.map(|bytes| format!("{:.2}", bytes as f64 / taken.samples));
        println!(
            "{name:>27}  {:>12}  {:>16.3}  {:>14.1}  {:>9.0}  {:>8}",
            taken.samples,
            taken.processor_s / taken.samples * 1e6,
            taken.processor_s / taken.samples * load.a_second() * 100.0,
            taken.resident_mib,
            at_rest.as_deref().unwrap_or("-"),
        );
    };
    // No peer judges what it takes: so it is measured with the nodes scored once a minute, and each second.
    let ours = aether::measure(load, 60_000).await;
    tell("aether", &ours);
    tell("aether, scoring", &aether::measure(load, 1_000).await);
    let mut best: Option<f64> = None;
    for peer in peer::ALL {
        match program(peer.variable) {
            None => println!(
                "{:>27}  not here: {} names none (host/xtask/setup/debian.sh gets it)",
                peer.name, peer.variable
            ),
            Some(binary) => {
                let taken = peer.measure(&binary, load, peer::SAMPLES_A_REQUEST).await;
                tell(peer.name, &taken);
                let each = taken.processor_s / taken.samples;
                // As the nodes of a fleet would, which have nobody that sends for many.
                tell(&format!("{}, by node", peer.name), &peer.measure(&binary, load, metrics).await);
                best = Some(best.map_or(each, |best| best.min(each)));
            }
        }
    }
    if let Some(best) = best {
        let ratio = ours.processor_s / ours.samples / best;
        println!(
            "aether takes {ratio:.2} of the better peer's processor time, which has the samples of many nodes in one request (bar: 0.50)"
        );
    }
}
