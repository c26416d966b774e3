//! What a decision costs: one Rust scorer asked afresh (store, instance, config, question, drop) and asked again in a
//! store that lives on, beside the same rules called natively in this process, and beside the bare cost of making and
//! dropping an empty component. All in one run, so that the numbers can be compared with each other.
//!
//! `cargo bench -p aether-runtime` prints the table and writes it into `docs/benchmarks.md` between its markers.

use aether_core::{
    decision::{Limits, Question},
    observation::{Column, Observation},
    subject::{Subject, SubjectKind},
    time::Time,
};
use aether_runtime::{Assets, Engine, EngineSettings, Environment, bench};
use std::{
    fmt::Write as _,
    hint::black_box,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

const WARM_UP: usize = 500;
const SAMPLES: usize = 20_000;
const BEGIN: &str = "<!-- begin: make bench -->";
const END: &str = "<!-- end: make bench -->";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error}"));
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "a benchmark prints its table")]
fn say(text: &str) {
    println!("{text}");
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    // `cargo test --benches` runs this, too; measuring then would only take time.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join("build/plugins/spot-risk.wasm");
    let bytes =
        std::fs::read(&path).map_err(|error| format!("{}: {error}; run `make guests` first", path.display()))?;
    let engine = Engine::new(EngineSettings::default())?;
    let prepared = engine.load(&bytes)?.activate(&serde_json::Map::new(), &Limits::default(), &Assets::default())?;
    let question = question();
    let Question::Score(observation) = &question else { return Err("the question is a scorer's".into()) };

    let mut rows = Vec::new();
    rows.push((
        "native call of the same arithmetic",
        measure(|| {
            black_box(native(black_box(observation)));
        }),
    ));
    let empty = bench::Empty::new(&engine)?;
    rows.push(("empty component: store, instance, drop", measure(|| empty.instantiate_and_drop())));
    let mut warm = bench::Warm::new(&prepared);
    rows.push((
        "Rust scorer, warm: the call alone",
        measure(|| {
            black_box(warm.call(&question, Environment::default()));
        }),
    ));
    let evaluate = || {
        let evaluation = prepared.evaluate(&question, Environment::default());
        assert!(evaluation.outcome.is_ok(), "{:?}", evaluation.outcome);
        drop(black_box(evaluation));
    };
    rows.push(("Rust scorer, fresh: store, instance, configure, call, drop", measure(evaluate)));
    let fuel = prepared.evaluate(&question, Environment::default()).fuel;

    let table = table(&rows, fuel, bytes.len());
    say(&table);
    write_into(&root.join("docs/benchmarks.md"), &table)
}

/// Two minutes short of an hour of calm prices: 348 samples and 12 gaps.
fn question() -> Question {
    let values = (0..360).map(|i| if i % 30 == 7 { f64::NAN } else { 0.3 + f64::from(i % 5) * 0.001 }).collect();
    let column = Column { input: 0, attributes: Default::default(), start: Time(0), step_ms: 10_000, values };
    let subject = Subject { kind: SubjectKind::Node, id: "node-a".into(), generation: 1, labels: Default::default() };
    Question::Score(Observation { subject, at: Time(3_600_000), columns: vec![column], events: vec![] })
}

/// The arithmetic of the plugin's price rules, natively: trend and volatility of the sampled prices.
fn native(observation: &Observation) -> Option<(f64, f64)> {
    let prices: Vec<f64> = observation.columns.first()?.values.iter().copied().filter(|v| v.is_finite()).collect();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let third = prices.len() / 3;
    let trend = mean(&prices[prices.len() - third..]) / mean(&prices[..third]) - 1.0;
    let changes: Vec<f64> = prices.windows(2).map(|pair| (pair[1] / pair[0] - 1.0) * 100.0).collect();
    let centre = mean(&changes);
    let variance = changes.iter().map(|change| (change - centre).powi(2)).sum::<f64>() / changes.len() as f64;
    Some((trend, variance.sqrt()))
}

struct Measured {
    median: Duration,
    p99: Duration,
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures with the real clock")]
fn measure(mut call: impl FnMut()) -> Measured {
    for _ in 0..WARM_UP {
        call();
    }
    let mut times: Vec<Duration> = (0..SAMPLES)
        .map(|_| {
            let begun = Instant::now();
            call();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    Measured { median: times[SAMPLES / 2], p99: times[SAMPLES * 99 / 100] }
}

fn table(rows: &[(&str, Measured)], fuel: u64, bytes: usize) -> String {
    let micros = |time: Duration| time.as_nanos() as f64 / 1_000.0;
    let mut text = String::from("| what | median, µs | p99, µs |\n|---|---:|---:|\n");
    for (what, measured) in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {what} | {:.2} | {:.2} |", micros(measured.median), micros(measured.p99));
    }
    let _ = write!(
        text,
        "\nGuest: `spot-risk`, {} KiB, {fuel} fuel, 360 values in. {SAMPLES} samples each after {WARM_UP} to warm up, one thread.\n\
         Machine: {}.\nEngine: {}.\n",
        bytes / 1_024,
        machine(),
        aether_runtime::ENGINE_VERSION
    );
    text
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown CPU", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    format!("{model}, {cores} logical CPUs, Linux {}, load average {load} at the end", kernel.trim())
}

fn write_into(path: &Path, table: &str) -> Result<(), Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string(path)?;
    let (before, rest) = text.split_once(BEGIN).ok_or("docs/benchmarks.md has no begin marker")?;
    let (_, after) = rest.split_once(END).ok_or("docs/benchmarks.md has no end marker")?;
    std::fs::write(path, format!("{before}{BEGIN}\n{table}{END}{after}"))?;
    Ok(())
}
