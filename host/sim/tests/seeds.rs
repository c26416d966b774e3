//! Two hundred seeds, each twice: nothing that must never be, and the same path both times.

use aether_sim::run;

/// Prints its seed, and the command that shows what happened in it.
fn try_seed(seed: u64) {
    let show = format!("see it again with: cargo run -p aether-sim -- --seed {seed}");
    let report = run(seed, false).unwrap_or_else(|error| panic!("seed {seed}: {error:#}; {show}"));
    assert!(report.broken.is_empty(), "seed {seed}: {:#?}; {show}", report.broken);
    let again = run(seed, false).unwrap_or_else(|error| panic!("seed {seed}, again: {error:#}; {show}"));
    assert_eq!(report.trace, again.trace, "seed {seed} took two paths; {show}");
}

/// In eighths, so that they run side by side.
macro_rules! seeds {
    ($($name:ident: $range:expr;)*) => { $(
        #[test]
        fn $name() {
            $range.for_each(try_seed);
        }
    )* };
}

seeds! {
    seeds_0_to_24: 0..25;
    seeds_25_to_49: 25..50;
    seeds_50_to_74: 50..75;
    seeds_75_to_99: 75..100;
    seeds_100_to_124: 100..125;
    seeds_125_to_149: 125..150;
    seeds_150_to_174: 150..175;
    seeds_175_to_199: 175..200;
}
