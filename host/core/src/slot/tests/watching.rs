//! Figures and budgets.

use super::*;

fn watched(budget: &Budget, samples: impl IntoIterator<Item = Sample>) -> Watch {
    let mut watch = Watch::new(budget);
    for sample in samples {
        watch.count(sample);
    }
    watch
}

fn good(count: usize) -> impl Iterator<Item = Sample> {
    std::iter::repeat_n(sample(None), count)
}

fn bad(count: usize) -> impl Iterator<Item = Sample> {
    std::iter::repeat_n(sample(Some(FaultKind::Trapped)), count)
}

#[test]
fn faults_use_a_budget_up() {
    let budget = Budget::default();
    let breach = |samples: Vec<Sample>| watched(&budget, samples).breach(&budget, None);
    assert_eq!(breach(good(500).collect()), None);
    // Too few for a share, not enough for a row.
    assert_eq!(breach(bad(4).chain(good(1)).chain(bad(4)).collect()), None);
    assert_eq!(breach(bad(5).collect()), Some(Breach::FaultsInRow { faults: 5 }));
    assert_eq!(breach(good(19).chain(bad(1)).collect()), None);
    assert_eq!(breach(good(18).chain(bad(2)).collect()), Some(Breach::Faults { percent: 10.0, limit: 5.0 }));
    // Only the newest count: 11 of the newest 200, and then none.
    let spread = || (0..200).flat_map(|n| if n % 18 == 0 { bad(1).collect::<Vec<_>>() } else { good(1).collect() });
    assert_eq!(breach(spread().collect()), Some(Breach::Faults { percent: 6.0, limit: 5.0 }));
    assert_eq!(breach(spread().chain(good(200)).collect()), None);
    // The host's own trouble.
    assert_eq!(breach(std::iter::repeat_n(sample(Some(FaultKind::Overloaded)), 50).collect()), None);
}

#[test]
fn divergence_is_of_what_was_compared() {
    let budget = Budget::default();
    let compared = |diverged| Sample { diverged: Some(diverged), ..sample(None) };
    let of = |differing: usize, same: usize, alone: usize| {
        let samples = std::iter::repeat_n(compared(true), differing).chain(std::iter::repeat_n(compared(false), same));
        watched(&budget, samples.chain(good(alone))).breach(&budget, None)
    };
    assert_eq!(of(5, 15, 0), None);
    assert_eq!(of(6, 14, 0), Some(Breach::Divergence { percent: 30.0, limit: 25.0 }));
    assert_eq!(of(6, 14, 100), Some(Breach::Divergence { percent: 30.0, limit: 25.0 }));
    assert_eq!(of(19, 0, 100), None, "fewer than 20 were compared");
}

#[test]
fn fuel_and_latency_are_measured_against_the_one_before() {
    let budget = Budget::default();
    let baseline = Some(Baseline { fuel_p50: Some(100), latency_us_p99: Some(5_000) });
    let costing = |fuel, latency_us, count| std::iter::repeat_n(Sample { fuel, latency_us, ..sample(None) }, count);
    let of = |fuel, latency_us, count| watched(&budget, costing(fuel, latency_us, count));
    assert_eq!(of(1_000, 300, 20).breach(&budget, baseline), None);
    assert_eq!(
        of(1_001, 300, 20).breach(&budget, baseline),
        Some(Breach::Fuel { p50: 1_001, baseline: 100, limit: 10.0 })
    );
    assert_eq!(of(1_001, 300, 20).breach(&budget, None), None, "nothing to measure against");
    let slow = Some(Breach::Latency { p99_us: 25_001, baseline_us: 5_000, limit: 5.0 });
    assert_eq!(of(100, 25_001, 100).breach(&budget, baseline), slow);
    assert_eq!(of(100, 25_001, 99).breach(&budget, baseline), None, "of 99 the percentile is the slowest");
    assert_eq!(of(100, 25_000, 100).breach(&budget, baseline), None);
    // Below the floor a ratio says nothing.
    let quick = Some(Baseline { fuel_p50: Some(100), latency_us_p99: Some(10) });
    assert_eq!(of(100, 20_000, 100).breach(&budget, quick), None);
    assert!(matches!(of(100, 20_001, 100).breach(&budget, quick), Some(Breach::Latency { .. })));
    // One hiccup in a hundred is not the 99th percentile.
    let hiccup = costing(100, 300, 99).chain(costing(100, 900_000, 1));
    assert_eq!(watched(&budget, hiccup).breach(&budget, quick), None);
}

#[test]
fn figures_are_totals_and_percentiles_of_the_newest() {
    let budget = Budget { window: 100, ..Budget::default() };
    let samples = (1..=300u64).map(|n| Sample {
        fault: (n == 7).then_some(FaultKind::OutOfFuel),
        fuel: n,
        latency_us: n * 10,
        memory_bytes: if n == 5 { 1 << 20 } else { 1 << 16 },
        log_lines: 2,
        diverged: (n % 2 == 0).then_some(n % 4 == 0),
    });
    let figures = watched(&budget, samples).figures();
    assert_eq!(
        figures,
        Figures {
            evaluations: 300,
            faults: BTreeMap::from([(FaultKind::OutOfFuel, 1)]),
            compared: 150,
            diverged: 75,
            fuel_p50: Some(250),
            fuel_p99: Some(299),
            latency_us_p50: Some(2_500),
            latency_us_p99: Some(2_990),
            memory_bytes_max: 1 << 20,
            log_lines: 600,
        }
    );
    assert_eq!(Watch::new(&budget).figures(), Figures::default());
    assert_eq!(Baseline::from(&figures), Baseline { fuel_p50: Some(250), latency_us_p99: Some(2_990) });
}

#[test]
fn a_budget_that_makes_no_sense_is_named() {
    assert_eq!(Budget::default().check(), Ok(()));
    let of = |change: fn(&mut Budget)| {
        let mut budget = Budget::default();
        change(&mut budget);
        budget.check().unwrap_err().to_string()
    };
    assert_eq!(of(|b| b.window = 0), "`budget.window` is 0; it must be 1 to 10000");
    assert_eq!(of(|b| b.least_evaluations = 201), "`budget.least_evaluations` is 201; it must be 1 to 200");
    assert_eq!(of(|b| b.faults_in_row = 0), "`budget.faults_in_row` is 0; it must be 1 to 10000");
    assert_eq!(of(|b| b.fault_percent = f64::NAN), "`budget.fault_percent` is NaN; it must be 0 to 100");
    assert_eq!(of(|b| b.divergence_percent = -1.0), "`budget.divergence_percent` is -1; it must be 0 to 100");
    assert_eq!(of(|b| b.latency_ratio = 0.5), "`budget.latency_ratio` is 0.5; it must be 1 to 1000000");
    assert_eq!(of(|b| b.fuel_ratio = f64::INFINITY), "`budget.fuel_ratio` is inf; it must be 1 to 1000000");
}

#[test]
fn a_breach_is_told_in_words() {
    for (breach, words) in [
        (Breach::FaultsInRow { faults: 5 }, "5 evaluations one after another ended in a fault"),
        (
            Breach::Faults { percent: 10.04, limit: 5.0 },
            "10.0 % of its evaluations ended in a fault; its budget is 5 %",
        ),
        (
            Breach::Divergence { percent: 30.0, limit: 25.0 },
            "30.0 % of its answers would have led to another deed than those of the one it stands beside; its budget is 25 %",
        ),
        (
            Breach::Latency { p99_us: 9, baseline_us: 1, limit: 5.0 },
            "its 99th percentile is 9 us, where the one it replaces took 1 us; its budget is 5 times that",
        ),
        (
            Breach::Fuel { p50: 9, baseline: 1, limit: 5.0 },
            "its median fuel is 9, where the one it replaces used 1; its budget is 5 times that",
        ),
    ] {
        assert_eq!(breach.to_string(), words);
    }
}
