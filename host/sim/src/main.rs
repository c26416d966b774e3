//! Runs seeds of the simulation: many, and tells how often each fault was injected; or one, and shows all of it.

use aether_sim::{Counts, Fault, Report, run};
use anyhow::{Context as _, anyhow};
use clap::Parser;
use std::{
    collections::BTreeMap,
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
    let sum: Mutex<Sum> = Mutex::default();
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let threads: Vec<_> = (0..args.jobs.max(1))
            .map(|_| {
                scope.spawn(|| -> anyhow::Result<()> {
                    loop {
                        let seed = next.fetch_add(1, SeqCst);
                        if seed >= end {
                            return Ok(());
                        }
                        let report = run(seed, false).with_context(|| format!("seed {seed} could not be run"))?;
                        let same = !args.twice || run(seed, false)?.trace == report.trace;
                        sum.lock().unwrap_or_else(PoisonError::into_inner).add(report, same);
                    }
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    sum.print();
    Ok(if sum.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What all seeds came to.
#[derive(Default)]
struct Sum {
    seeds: u64,
    failures: u64,
    incidents: u64,
    executed: u64,
    rested_ms: u64,
    faults: Counts,
    ends: BTreeMap<String, u64>,
}

#[allow(clippy::print_stdout, reason = "it tells what it found")]
impl Sum {
    /// Adds a seed, and tells at once of one that failed: a long run may be ended before it is through.
    fn add(&mut self, report: Report, same: bool) {
        self.seeds += 1;
        self.faults.merge(&report.faults);
        self.incidents += report.incidents;
        self.executed += report.executed;
        self.rested_ms = self.rested_ms.max(report.rested_ms);
        for how in report.ends {
            *self.ends.entry(how).or_default() += 1;
        }
        if report.broken.is_empty() && same {
            return;
        }
        self.failures += 1;
        println!("seed {} failed; see it again with: cargo run -p aether-sim -- --seed {}", report.seed, report.seed);
        for broken in &report.broken {
            println!("  {broken}");
        }
        if !same {
            println!("  two runs of it took two paths");
        }
    }

    fn print(&self) {
        println!(
            "{} seeds, {} failed, {} incidents, {} steps executed",
            self.seeds, self.failures, self.incidents, self.executed
        );
        println!("at rest at most {} s after the last fault", self.rested_ms / 1_000);
        for fault in Fault::ALL {
            println!("{:>10}  {}", self.faults.get(*fault), fault.name());
        }
        for (place, count) in self.faults.deaths() {
            println!("{count:>10}  agent died {place}");
        }
        for (how, count) in &self.ends {
            println!("{count:>10}  ended {how}");
        }
    }
}
