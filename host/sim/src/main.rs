//! Runs seeds of the simulation: many, and tells how often each fault was injected; or one, and shows all of it.

use aether_sim::{Counts, Fault, Report, run};
use clap::Parser;
use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

/// Simulates a fleet under a virtual clock, with faults.
#[derive(Parser)]
struct Args {
    /// So many seeds.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// This one alone, with all that happened in it.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Each seed once more, to see that it takes the same path.
    #[arg(long)]
    twice: bool,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    jobs: u64,
}

#[allow(clippy::print_stdout, reason = "it tells what it found")]
fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if let Some(seed) = args.seed {
        let report = run(seed, true)?;
        for line in &report.lines {
            println!("{line}");
        }
        println!(
            "seed {seed}: {} incidents, {} steps executed, trace {}",
            report.incidents, report.executed, report.trace
        );
        for broken in &report.broken {
            println!("BROKEN {broken}");
        }
        return Ok(if report.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let next = AtomicU64::new(args.first);
    let end = args.first + args.seeds;
    let done: Mutex<Vec<Result<(Report, bool), anyhow::Error>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, SeqCst);
                    if seed >= end {
                        return;
                    }
                    let report = run(seed, false).and_then(|report| {
                        let same = !args.twice || run(seed, false)?.trace == report.trace;
                        Ok((report, same))
                    });
                    done.lock().unwrap_or_else(PoisonError::into_inner).push(report);
                }
            });
        }
    });
    let mut faults = Counts::default();
    let (mut incidents, mut executed, mut failures, mut rested_ms) = (0, 0, 0u64, 0);
    let mut ends: std::collections::BTreeMap<String, u64> = Default::default();
    for report in done.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let (report, same) = report?;
        faults.merge(&report.faults);
        incidents += report.incidents;
        executed += report.executed;
        rested_ms = rested_ms.max(report.rested_ms);
        for how in report.ends {
            *ends.entry(how).or_default() += 1;
        }
        if !report.broken.is_empty() || !same {
            failures += 1;
            println!(
                "seed {} failed; see it again with: cargo run -p aether-sim -- --seed {}",
                report.seed, report.seed
            );
            for broken in &report.broken {
                println!("  {broken}");
            }
            if !same {
                println!("  two runs of it took two paths");
            }
        }
    }
    println!("{} seeds, {failures} failed, {incidents} incidents, {executed} steps executed", args.seeds);
    println!("at rest at most {} s after the last fault", rested_ms / 1_000);
    for fault in Fault::ALL {
        println!("{:>10}  {}", faults.get(*fault), fault.name());
    }
    for (place, count) in faults.deaths() {
        println!("{count:>10}  agent died {place}");
    }
    for (how, count) in ends {
        println!("{count:>10}  ended {how}");
    }
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
