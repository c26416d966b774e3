//! How long a workload stands still while it moves: by Aether (real server, two agents, approval, signed orders, every
//! chunk hashed, compressed, stored and verified), beside the same done by hand (`criu dump` to disk, `cp`,
//! `criu restore`), in turns, in one run. The workload tells by itself: each count carries the time of day, and the
//! pause is the longest gap between two counts.
//!
//! And what a checkpoint takes is foretold from these, for sizes that are not among them, and compared.
//!
//! `cargo bench -p aether-host --bench migration [-- MIB...]`, with the tools of `with-tools.sh`. Fails beyond the bars.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    dead_code,
    reason = "a measurement fails by panicking, waits by the clock, and prints"
)]

#[path = "../tests/fleet/mod.rs"]
mod fleet;

use aether_core::plan::forecast::{Taken, forecast};
use fleet::{Fleet, program};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// Size in MiB, rounds, and the most that Aether's pause may be, as a share of that by hand.
const SIZES: [(u32, usize, Option<f64>); 3] = [(10, 7, Some(1.15)), (100, 5, None), (1_024, 3, Some(0.7))];
const PACE_MS: u64 = 2;
/// Sizes of which the time of a checkpoint is foretold from those above, and the most that the median may be off.
const FORETOLD_MIB: [u32; 5] = [32, 64, 256, 512, 768];
const FORETOLD_PERCENT: i64 = 25;

fn words(mib: u32) -> Vec<String> {
    let pace = PACE_MS.to_string();
    ["--memory-mib", &mib.to_string(), "--pace-ms", &pace, "--fill", "mixed", "--stamp", "yes"]
        .map(String::from)
        .to_vec()
}

/// The longest time between two counts: when it began, and how long it was. A count that is missing or came twice fails.
fn pause_ms(file: &Path) -> (i64, i64) {
    let text = fs::read_to_string(file).unwrap();
    let counts: Vec<(u64, i64)> = text
        .lines()
        .filter_map(|line| {
            let (count, at) = line.split_once(' ')?;
            Some((count.parse().ok()?, at.parse().ok()?))
        })
        .collect();
    assert!(counts.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1), "progress was lost or repeated");
    let pauses = counts.windows(2).map(|pair| (pair[0].1, pair[1].1 - pair[0].1));
    pauses.max_by_key(|(_, pause)| *pause).unwrap()
}

/// What the pause goes into, in the order in which it does.
const PHASES: [&str; 7] = [
    "stopped and dumped by CRIU",
    "memory hashed, the rest sent and stored",
    "manifest stored, CRIU has let go",
    "outcome journaled, committed, next step reserved and dispatched, journaled",
    "manifest read and verified, chunks in place",
    "restore journaled",
    "restored by CRIU",
];

/// The pause by what it went into, from what the steps say of themselves and from the workload's own clock.
fn phases(detail: &Value, (stopped, pause): (i64, i64)) -> [i64; 7] {
    let outcome = |step: usize| &detail["steps"][step]["outcome"];
    let time = |step: usize, name: &str| outcome(step)[name].as_i64().unwrap();
    let took = |step: usize, name: &str| outcome(step)["evidence"][name]["duration"].as_i64().unwrap();
    let dumped = time(0, "started_at") + took(0, "copied-ahead") + took(0, "dump");
    let (hashed, stored) = (dumped + took(0, "hashed"), dumped + took(0, "stored"));
    let begun = time(1, "started_at");
    let fetched = begun + took(1, "read") + took(1, "fetch");
    let restoring = begun + took(1, "journaled");
    let mut before = stopped;
    [dumped, hashed, stored, begun, fetched, restoring, stopped + pause]
        .map(|end| end - std::mem::replace(&mut before, end))
}

fn lines(file: &Path) -> usize {
    fs::read_to_string(file).map_or(0, |text| text.lines().count())
}

async fn wait_for_lines(file: &Path, more: usize) {
    let from = lines(file);
    while lines(file) < from + more {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What one move by Aether told.
struct Moved {
    pause_ms: i64,
    phases: [i64; 7],
    taken: Taken,
}

async fn by_aether(mib: u32) -> Moved {
    let mut fleet = Fleet::start().await;
    fleet.workload = words(mib);
    fleet.start_agent("node-a", true).await;
    fleet.start_agent("node-b", false).await;
    wait_for_lines(&fleet.progress_file(), 200).await;
    fleet.cli(&["drill", "start", "spot-reclaim", "--node", "node-a"]);
    let incident = fleet.incident_in(&["awaiting_approval"]).await;
    let (id, plan) = (incident["id"].as_str().unwrap(), incident["plan"].as_str().unwrap());
    fleet.post(&format!("/api/v1/plans/{plan}/approve"), json!({})).await;
    let detail = fleet
        .until("the workload is verified on its new node", async |fleet| {
            let detail = fleet.incident(id).await;
            matches!(detail["incident"]["phase"].as_str()?, "verifying" | "closed").then_some(detail)
        })
        .await;
    assert_ne!(detail["incident"]["resolution"], "undone", "{detail:#}");
    wait_for_lines(&fleet.progress_file(), 100).await;
    let pause = pause_ms(&fleet.progress_file());
    let evidence = &detail["steps"][0]["outcome"]["evidence"];
    let bytes = evidence["resident"]["bytes"].as_u64().unwrap();
    let took_ms = evidence["took"]["duration"].as_u64().unwrap();
    Moved { pause_ms: pause.1, phases: phases(&detail, pause), taken: Taken { bytes, took_ms } }
}

async fn by_hand(mib: u32, criu: &Path) -> i64 {
    // Beside the program, so on the disk.
    let folder = tempfile::tempdir_in(program("aether-demo-workload").parent().unwrap()).unwrap();
    let file = folder.path().join("progress");
    let child = Command::new("setsid")
        .arg(program("aether-demo-workload"))
        .arg("--file")
        .arg(&file)
        .args(words(mib))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_lines(&file, 200).await;
    let (source, target) = (folder.path().join("dump"), folder.path().join("copy"));
    fs::create_dir(&source).unwrap();
    let script = format!(
        "set -e; {criu} dump -t {pid} -D {source} -o dump.log; cp -r {source} {target}; \
         {criu} restore -d -D {target} -o restore.log",
        criu = criu.display(),
        pid = child.id(),
        source = source.display(),
        target = target.display(),
    );
    // The dead are buried by their parent: by hand that is the shell that began them.
    let buried = std::thread::spawn(move || {
        let mut child = child;
        child.wait()
    });
    let status = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).status().unwrap();
    if !status.success() {
        fleet::end_workloads(&file);
    }
    assert!(status.success(), "by hand it does not work");
    wait_for_lines(&file, 100).await;
    let (_, pause) = pause_ms(&file);
    fleet::end_workloads(&file);
    drop(buried.join());
    pause
}

fn median(mut values: Vec<i64>) -> i64 {
    values.sort_unstable();
    values[values.len() / 2]
}

#[tokio::main]
async fn main() {
    let asked: Vec<u32> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let Some(criu) = std::env::var_os("AETHER_CRIU").map(PathBuf::from) else {
        println!("skipped: AETHER_CRIU does not name a CRIU; run this by `make bench`");
        return;
    };
    println!("{:>6}  {:>10}  {:>10}  {:>6}  {:>6}", "MiB", "by hand ms", "Aether ms", "ratio", "bar");
    let (mut beyond, mut learned) = (Vec::new(), Vec::new());
    for (mib, rounds, bar) in SIZES.into_iter().filter(|(mib, ..)| asked.is_empty() || asked.contains(mib)) {
        let (mut hand, mut aether) = (Vec::new(), Vec::new());
        let mut parts: [Vec<i64>; 7] = Default::default();
        for _ in 0..rounds {
            hand.push(by_hand(mib, &criu).await);
            let Moved { pause_ms, phases, taken } = by_aether(mib).await;
            println!("        by hand {} ms, Aether {pause_ms} ms {phases:?}", hand[hand.len() - 1]);
            aether.push(pause_ms);
            learned.push(taken);
            parts.iter_mut().zip(phases).for_each(|(part, phase)| part.push(phase));
        }
        let (hand, aether) = (median(hand), median(aether));
        #[allow(clippy::cast_precision_loss, reason = "milliseconds")]
        let ratio = aether as f64 / hand as f64;
        let told = bar.map_or_else(|| "-".to_string(), |bar| bar.to_string());
        println!("{mib:>6}  {hand:>10}  {aether:>10}  {ratio:>6.2}  {told:>6}");
        for (name, part) in PHASES.iter().zip(parts) {
            println!("        {:>6} ms  {name}", median(part));
        }
        beyond.extend(bar.filter(|bar| ratio > *bar).map(|bar| format!("{mib} MiB: {ratio:.2} > {bar}")));
    }
    let mut errors = Vec::new();
    for mib in FORETOLD_MIB.into_iter().filter(|_| asked.is_empty()) {
        let taken = by_aether(mib).await.taken;
        let foretold = forecast(&learned, taken.bytes).unwrap();
        let error = foretold.error_percent(taken.took_ms);
        println!(
            "{mib:>6}  a checkpoint of {} ms was foretold, and took {} ms: {error} % off",
            foretold.predicted_ms, taken.took_ms
        );
        errors.push(i64::try_from(error).unwrap());
    }
    if !errors.is_empty() {
        let error = median(errors);
        println!("        median error of what was foretold: {error} %, bar {FORETOLD_PERCENT} %");
        beyond.extend((error > FORETOLD_PERCENT).then(|| format!("foretold: {error} % > {FORETOLD_PERCENT} %")));
    }
    assert!(beyond.is_empty(), "beyond the bar: {}", beyond.join(", "));
}
