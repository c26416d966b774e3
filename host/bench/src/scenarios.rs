//! What a table of single calls cannot show: two threads, swaps under load, a neighbour that means harm, and how soon an
//! upload is active.

use crate::{
    cases,
    clock::{Samples, nanoseconds, timed},
    engines::aether::{activate, config, guest, level_and_score},
};
use aether_core::decision::{FaultKind, Limits, Question};
use aether_runtime::{Assets, Component, Engine, Environment, Prepared};
use anyhow::{Context, Result, ensure};
use bench_logic::ewma;
use serde_json::json;
use std::{
    sync::{
        Arc, Barrier, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

fn scorer(engine: &Engine) -> Result<(Component, Question, ewma::Series)> {
    let series = cases::series().pop().context("there are series")?;
    Ok((engine.load(&guest("aether-ewma.wasm")?)?, cases::scorer_question(&series), series))
}

fn ask(prepared: &Prepared, question: &Question) {
    let evaluation = prepared.evaluate(question, Environment::default());
    assert!(evaluation.outcome.is_ok(), "{:?}", evaluation.outcome);
}

/// Evaluations a second of one thread and of two.
pub struct Threads {
    pub one: f64,
    pub two: f64,
}

/// One thread and two, by turns; the medians of all turns.
pub fn threads(engine: &Engine, rounds: usize, turn: Duration) -> Result<Threads> {
    let (component, question, _) = scorer(engine)?;
    let prepared = activate(&component, &cases::EWMA)?;
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        one.push(rate(&prepared, &question, 1, turn));
        two.push(rate(&prepared, &question, 2, turn));
    }
    Ok(Threads { one: median(one), two: median(two) })
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn rate(prepared: &Prepared, question: &Question, threads: usize, turn: Duration) -> f64 {
    let barrier = Barrier::new(threads);
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                ask(prepared, question);
                barrier.wait();
                let mut count = 0;
                let begun = Instant::now();
                while begun.elapsed() < turn {
                    ask(prepared, question);
                    count += 1;
                }
                done.fetch_add(count, Ordering::Relaxed);
            });
        }
    });
    done.into_inner() as f64 / turn.as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Of an evaluating thread while a slot's entry is swapped under it.
pub struct Swaps {
    pub swaps: usize,
    /// Asked and not answered.
    pub lost: usize,
    /// Answered by another generation than the one that was asked.
    pub mixed: usize,
    pub quiet: Samples,
    pub swapped: Samples,
}

struct Generation {
    prepared: Prepared,
    level: ewma::Level,
}

/// Swaps the entry of a slot `count` times while a thread evaluates without a pause. A swap is what a host does: activate
/// the next generation, then move one pointer. Every other generation has thresholds under which the same question is
/// answered otherwise, so that an answer shows which one gave it.
pub fn swaps(engine: &Engine, count: usize) -> Result<Swaps> {
    let (component, question, series) = scorer(engine)?;
    let lenient = ewma::Rules { elevated: 1e6, high: 1e7, critical: 1e8, ..cases::EWMA };
    let rules = [cases::EWMA, lenient];
    let generation = |number: usize| -> Result<Arc<Generation>> {
        let rules = &rules[number % rules.len()];
        let level = ewma::score(&series.values, rules).context("a series that can be scored")?.level;
        Ok(Arc::new(Generation { prepared: activate(&component, rules)?, level }))
    };
    // Both were active before, so that a swap does not compile.
    generation(1)?;
    let slot = RwLock::new(generation(0)?);
    let stop = AtomicBool::new(false);
    let swapping = AtomicBool::new(false);
    let (quiet, swapped) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let (lost, mixed) = (AtomicUsize::new(0), AtomicUsize::new(0));

    let load = || {
        let (mut calm, mut busy) = (Vec::new(), Vec::new());
        while !stop.load(Ordering::Relaxed) {
            let during = swapping.load(Ordering::Acquire);
            let mut answered = None;
            let time = timed(|| {
                let current = Arc::clone(&slot.read().unwrap_or_else(PoisonError::into_inner));
                let evaluation = current.prepared.evaluate(&question, Environment::default());
                answered = Some((evaluation, current));
            });
            if during {
                busy.push(time)
            } else {
                calm.push(time)
            }
            match answered.map(|(evaluation, current)| (evaluation.outcome, current.level)) {
                Some((Ok(answer), expected)) => match level_and_score(&answer) {
                    Ok((level, _)) if level == expected => {}
                    _ => {
                        mixed.fetch_add(1, Ordering::Relaxed);
                    }
                },
                _ => {
                    lost.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        quiet.lock().unwrap_or_else(PoisonError::into_inner).append(&mut calm);
        swapped.lock().unwrap_or_else(PoisonError::into_inner).append(&mut busy);
    };
    let swapper = || -> Result<()> {
        // Quiet before and after in equal parts, so that the machine's own changes fall on both.
        std::thread::sleep(Duration::from_secs(1));
        swapping.store(true, Ordering::Release);
        let swapped = (1..=count).try_for_each(|number| {
            let next = generation(number)?;
            *slot.write().unwrap_or_else(PoisonError::into_inner) = next;
            anyhow::Ok(())
        });
        swapping.store(false, Ordering::Release);
        std::thread::sleep(Duration::from_secs(1));
        stop.store(true, Ordering::Relaxed);
        swapped
    };
    std::thread::scope(|scope| {
        let load = scope.spawn(load);
        let swapped = scope.spawn(swapper).join();
        stop.store(true, Ordering::Relaxed);
        ensure!(load.join().is_ok(), "the evaluating thread panicked");
        swapped.unwrap_or_else(|_| anyhow::bail!("the swapping thread panicked"))
    })?;

    let (quiet, swapped) = (quiet.into_inner().unwrap_or_default(), swapped.into_inner().unwrap_or_default());
    Ok(Swaps {
        swaps: count,
        lost: lost.into_inner(),
        mixed: mixed.into_inner(),
        quiet: Samples::new(quiet),
        swapped: Samples::new(swapped),
    })
}

/// A tenant's times beside one neighbour on another thread.
pub struct Beside {
    pub neighbour: &'static str,
    pub tenant: Samples,
    /// How often the neighbour was asked.
    pub deeds: usize,
}

/// The tenant evaluates on one thread, its neighbours by turns on another, beginning with none.
pub fn neighbours(engine: &Engine, rounds: usize, turn: Duration) -> Result<Vec<Beside>> {
    let (component, question, _) = scorer(engine)?;
    let tenant = activate(&component, &cases::EWMA)?;
    let hostile = engine.load(&guest("neighbour.wasm")?)?;
    let hostile = |deed: &str| -> Result<Prepared> {
        Ok(hostile.activate(&config(&json!({ "does": deed }))?, &Limits::default(), &Assets::default())?)
    };
    let neighbours: [(&'static str, Option<(Prepared, Option<FaultKind>)>); 5] = [
        ("nobody", None),
        ("one that behaves", Some((tenant.clone(), None))),
        ("an endless loop", Some((hostile("loop")?, Some(FaultKind::OutOfFuel)))),
        ("a memory bomb", Some((hostile("memory")?, Some(FaultKind::OutOfMemory)))),
        ("a log flood", Some((hostile("log")?, Some(FaultKind::HostCall)))),
    ];
    let mut times: Vec<(Vec<u64>, usize)> = neighbours.iter().map(|_| (Vec::new(), 0)).collect();
    for _ in 0..rounds {
        for ((name, neighbour), (tenant_times, deeds)) in neighbours.iter().zip(&mut times) {
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| -> Result<()> {
                let stop = &stop;
                let question = &question;
                let running = neighbour.as_ref().map(|(neighbour, expected)| {
                    scope.spawn(move || -> Result<usize> {
                        let mut deeds = 0;
                        while !stop.load(Ordering::Relaxed) {
                            let kind = neighbour.evaluate(question, Environment::default()).outcome.err();
                            let kind = kind.map(|fault| fault.kind);
                            // On a busy machine the watchdog may be first.
                            let known = kind == *expected || (expected.is_some() && kind == Some(FaultKind::TimedOut));
                            ensure!(known, "{name} ended as {kind:?}");
                            deeds += 1;
                        }
                        Ok(deeds)
                    })
                });
                let begun = Instant::now();
                while begun.elapsed() < turn {
                    tenant_times.push(timed(|| ask(&tenant, question)));
                }
                stop.store(true, Ordering::Relaxed);
                if let Some(running) = running {
                    *deeds += running.join().unwrap_or_else(|_| anyhow::bail!("{name} panicked"))?;
                }
                Ok(())
            })?;
        }
    }
    let beside = neighbours.iter().zip(times);
    Ok(beside
        .map(|((neighbour, _), (times, deeds))| Beside { neighbour, tenant: Samples::new(times), deeds })
        .collect())
}

/// From bytes that this machine never saw to the first answer.
pub struct Upload {
    pub bytes: usize,
    pub times: Samples,
}

pub fn uploads(engine: &Engine, count: u8) -> Result<Upload> {
    let plain = guest("aether-ewma.wasm")?;
    let series = cases::series().pop().context("there are series")?;
    let question = cases::scorer_question(&series);
    let mut times = Vec::new();
    let unique = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos().to_le_bytes();
    for number in 0..count {
        let mut bytes = plain.clone();
        // A custom section named `x` with bytes of this run alone, so that no cache knows the component.
        bytes.extend([0, u8::try_from(unique.len())? + 3, 1, b'x', number]);
        bytes.extend(unique);
        let begun = Instant::now();
        let prepared = activate(&engine.load(&bytes)?, &cases::EWMA)?;
        ask(&prepared, &question);
        times.push(nanoseconds(begun.elapsed()));
    }
    Ok(Upload { bytes: plain.len(), times: Samples::new(times) })
}
