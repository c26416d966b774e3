//! Two hundred seeds, each twice: nothing that must never be, the same path both times, and every kind of fault often
//! enough to count.

use aether_sim::{Counts, Fault, run};

/// What is injected less often than this in two hundred seeds is as good as not injected.
const FAULTS_LEAST: u64 = 10;
/// The same for each step of an agent's journal.
const DEATHS_LEAST: u64 = 1;

/// Prints its seed, and the command that shows what happened in it.
fn try_seed(seed: u64) -> Counts {
    let show = format!("see it again with: cargo run -p aether-sim -- --seed {seed}");
    let report = run(seed, false).unwrap_or_else(|error| panic!("seed {seed}: {error:#}; {show}"));
    assert!(report.broken.is_empty(), "seed {seed}: {:#?}; {show}", report.broken);
    let again = run(seed, false).unwrap_or_else(|error| panic!("seed {seed}, again: {error:#}; {show}"));
    assert_eq!(report.trace, again.trace, "seed {seed} took two paths; {show}");
    report.faults
}

#[test]
fn two_hundred_seeds() {
    let mut counts = Counts::default();
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(8) as u64;
    std::thread::scope(|scope| {
        let share = |part: u64| {
            move || {
                let mut counts = Counts::default();
                (0..200).filter(|seed| seed % threads == part).for_each(|seed| counts.merge(&try_seed(seed)));
                counts
            }
        };
        let parts: Vec<_> = (0..threads).map(|part| scope.spawn(share(part))).collect();
        for part in parts {
            counts.merge(&part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
    });
    for fault in Fault::ALL {
        let count = counts.get(*fault);
        assert!(count >= FAULTS_LEAST, "`{}` was injected only {count} times", fault.name());
    }
    for (place, count) in counts.deaths() {
        assert!(count >= DEATHS_LEAST, "agents died only {count} times {place}");
    }
}
