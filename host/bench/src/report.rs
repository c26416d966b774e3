//! The table, the verdicts and the machine, as text, and their place in `docs/benchmarks.md`.

use crate::{
    clock::Samples,
    engines::{aether, cedar, extism, rego},
    scenarios::{Beside, Swaps, Threads, Upload},
};
use anyhow::{Context, Result};
use std::{fmt::Write as _, path::Path};

const BEGIN: &str = "<!-- begin: make bench -->";
const END: &str = "<!-- end: make bench -->";

/// The rows of one decision, with what was measured.
pub type Rows = Vec<(&'static str, Samples)>;

pub struct Measured {
    pub gate: Rows,
    pub scorer: Rows,
    pub threads: Threads,
    pub swaps: Swaps,
    pub neighbours: Vec<Beside>,
    pub upload: Upload,
}

/// A bar that was set before it was measured.
struct Bar {
    what: String,
    value: f64,
    /// Kept if the value is at most (or, where `least`, at least) this.
    bound: f64,
    least: bool,
}

impl Bar {
    fn met(&self) -> bool {
        if self.least { self.value >= self.bound } else { self.value <= self.bound }
    }
}

pub fn text(measured: &Measured) -> Result<String> {
    let mut text = String::new();
    table(&mut text, "The gate", &measured.gate);
    table(&mut text, "The scorer", &measured.scorer);
    scenarios(&mut text, measured);
    verdicts(&mut text, &bars(measured)?);
    let _ = write!(
        text,
        "\nSamples a row: {}. Machine: {}.\nEngines: {}; Extism {} on wasmtime {}, Rego on regorus {}, Cedar {}.\n",
        counts(measured),
        machine(),
        aether_runtime::ENGINE_VERSION,
        locked("extism"),
        oldest("wasmtime"),
        locked("regorus"),
        locked("cedar-policy"),
    );
    Ok(text)
}

fn table(text: &mut String, title: &str, rows: &Rows) {
    // Writing to a string cannot fail, here and below.
    let _ = write!(text, "\n### {title}\n\n| what | median, µs | p99, µs |\n|---|---:|---:|\n");
    for (label, samples) in rows {
        let _ = writeln!(text, "| {label} | {:.2} | {:.2} |", samples.median(), samples.p99());
    }
}

fn scenarios(text: &mut String, measured: &Measured) {
    let Measured { threads, swaps, neighbours, upload, .. } = measured;
    text.push_str("\n### Under load\n\n| what | median, µs | p99, µs | |\n|---|---:|---:|---|\n");
    let mut row = |what: &str, samples: &Samples, note: String| {
        let _ = writeln!(text, "| {what} | {:.2} | {:.2} | {note} |", samples.median(), samples.p99());
    };
    row("scorer, slot left alone", &swaps.quiet, format!("{} evaluations", swaps.quiet.count()));
    row(
        &format!("scorer, {} swaps", swaps.swaps),
        &swaps.swapped,
        format!("{} evaluations, {} lost, {} mixed", swaps.swapped.count(), swaps.lost, swaps.mixed),
    );
    for Beside { neighbour, tenant, deeds } in neighbours {
        let note = if *deeds == 0 { String::new() } else { format!("its evaluations: {deeds}") };
        row(&format!("scorer, beside {neighbour}"), tenant, note);
    }
    let kib = upload.bytes / 1_024;
    row(
        &format!("upload of {kib} KiB to its first answer"),
        &upload.times,
        format!("{} uploads", upload.times.count()),
    );
    let _ = writeln!(text, "\nEvaluations a second: {:.0} on one thread, {:.0} on two.", threads.one, threads.two);
}

fn bars(measured: &Measured) -> Result<Vec<Bar>> {
    let mut bars = Vec::new();
    let (swaps, neighbours) = (&measured.swaps, &measured.neighbours);
    for (decision, rows) in [("gate", &measured.gate), ("scorer", &measured.scorer)] {
        let median = |label: &str| row(rows, label).map(Samples::median);
        let mut bar = |mine: &str, theirs: &str, bound: f64| -> Result<()> {
            let what = format!("{decision}: {mine} against {theirs}");
            bars.push(Bar { what, value: median(mine)? / median(theirs)?, bound, least: false });
            Ok(())
        };
        // Like with like: what each evaluation finds untouched with what it finds untouched, and what is used again with
        // what is used again. regorus' interpreter is either.
        for theirs in [extism::FRESH_JSON, extism::FRESH_MSGPACK, rego::INTERPRETER, rego::FRESH] {
            bar(aether::FRESH, theirs, 1.0)?;
        }
        bar(aether::FRESH, aether::EMPTY, 2.5)?;
        let reused =
            [extism::REUSED_JSON, extism::REUSED_MSGPACK, rego::INTERPRETER, rego::REUSED, rego::REUSED_FIELDS];
        for theirs in reused {
            bar(aether::REUSED, theirs, 1.0)?;
        }
        if decision == "gate" {
            bar(aether::REUSED, cedar::CEDAR, 1.0)?;
        }
    }
    let Threads { one, two } = measured.threads;
    bars.push(Bar { what: "two threads against one".into(), value: two / one, bound: 1.8, least: true });
    #[allow(clippy::cast_precision_loss, reason = "a count of evaluations")]
    let wrong = (swaps.lost + swaps.mixed) as f64;
    bars.push(Bar { what: "swaps: evaluations lost or mixed".into(), value: wrong, bound: 0.0, least: false });
    let value = swaps.swapped.p99() / swaps.quiet.p99();
    bars.push(Bar { what: "swaps: p99 against the quiet slot's".into(), value, bound: 2.0, least: false });
    let alone = neighbours.first().context("the tenant was measured alone")?.tenant.p99();
    for Beside { neighbour, tenant, .. } in neighbours.iter().skip(1) {
        let what = format!("beside {neighbour}: p99 against alone");
        bars.push(Bar { what, value: tenant.p99() / alone, bound: 2.0, least: false });
    }
    let what = "upload to first answer, seconds, p99".into();
    bars.push(Bar { what, value: measured.upload.times.p99() / 1e6, bound: 1.0, least: false });
    Ok(bars)
}

fn row<'a>(rows: &'a Rows, label: &str) -> Result<&'a Samples> {
    rows.iter()
        .find_map(|(name, samples)| (*name == label).then_some(samples))
        .with_context(|| format!("no row {label}"))
}

fn verdicts(text: &mut String, bars: &[Bar]) {
    text.push_str("\n### Bars\n\n| what | measured | bar | |\n|---|---:|---:|---|\n");
    for bar in bars {
        let Bar { what, value, bound, least } = bar;
        let verdict = if bar.met() { "met" } else { "**missed**" };
        let sign = if *least { "at least" } else { "at most" };
        let _ = writeln!(text, "| {what} | {value:.2} | {sign} {bound} | {verdict} |");
    }
    let missed = bars.iter().filter(|bar| !bar.met()).count();
    let _ = writeln!(text, "\n{} of {} bars met.", bars.len() - missed, bars.len());
}

fn counts(measured: &Measured) -> String {
    let counts = measured.gate.iter().chain(&measured.scorer).map(|(_, samples)| samples.count());
    match (counts.clone().min(), counts.max()) {
        (Some(least), Some(most)) => format!("{least} to {most}"),
        _ => "none".into(),
    }
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

/// Versions of a crate in this program's lock, in order.
fn versions(name: &str) -> impl Iterator<Item = &'static str> {
    let line = format!("name = \"{name}\"");
    let lines = include_str!("../Cargo.lock").lines();
    let mut previous = "";
    lines.filter_map(move |current| {
        let found = (previous == line).then(|| current.trim_start_matches("version = ").trim_matches('"'));
        previous = current;
        found
    })
}

fn locked(name: &str) -> &'static str {
    versions(name).last().unwrap_or("unknown")
}

/// Of the two wasmtimes in the lock, Extism's is the older.
fn oldest(name: &str) -> &'static str {
    versions(name).next().unwrap_or("unknown")
}

pub fn write_into(path: &Path, table: &str) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let (before, rest) = text.split_once(BEGIN).context("docs/benchmarks.md has no begin marker")?;
    let (_, after) = rest.split_once(END).context("docs/benchmarks.md has no end marker")?;
    std::fs::write(path, format!("{before}{BEGIN}\n{table}{END}{after}"))?;
    Ok(())
}
