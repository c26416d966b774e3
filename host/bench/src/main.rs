//! Measures the plugin runtime beside other engines, in one run. What each row contains is told in
//! `docs/benchmarks.md`, which this program writes its figures into.

use bench_logic::{ewma, gate};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

fn main() {
    let plan = gate::Plan { class: gate::Class::Impactful, nodes: 3, gpus: 24, pool_percent: 12.5 };
    let limits = gate::Rules { max_nodes: 8, max_gpus: 64, max_pool_percent: 25.0 };
    let values: Vec<f64> = (0..60).map(|i| 70.0 + f64::from(i * 7 % 5)).collect();
    let rules = ewma::Rules { alpha: 0.1, elevated: 3.0, high: 4.0, critical: 6.0 };
    let rows = [
        ("gate", median(|| drop(black_box(gate::judge(black_box(&plan), &limits))))),
        ("scorer", median(|| drop(black_box(ewma::score(black_box(&values), &rules))))),
    ];
    for (what, time) in rows {
        println!("native {what}: {} ns", time.as_nanos());
    }
}

fn median(mut call: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..20_001)
        .map(|_| {
            let begun = Instant::now();
            call();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}
