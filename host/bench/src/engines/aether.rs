//! Aether as a host uses it: `Prepared::evaluate` with every limit, check and metric. The reused instance skips what the
//! fresh one pays for isolation, and nothing else.

use super::{Variant, variant};
use crate::cases;
use aether_core::decision::{Answer, Assessment, Level, Limits, Question, Verdict};
use aether_runtime::{Assets, Component, Engine, Environment, Prepared, bench};
use anyhow::{Context, Result, bail};
use bench_logic::{ewma, gate};
use serde::Serialize;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

pub const FRESH: &str = "Aether, fresh instance";
pub const REUSED: &str = "Aether, reused instance";
pub const EMPTY: &str = "empty component: instantiate and drop";

/// A guest that `guests/build.sh` built.
pub fn guest(name: &str) -> Result<Vec<u8>> {
    let path = guest_path(name);
    std::fs::read(&path).with_context(|| format!("{}: run `make bench`, which builds it", path.display()))
}

pub fn guest_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/bench").join(name)
}

/// A config as the host hands it over.
pub fn config(value: &impl Serialize) -> Result<Map<String, Value>> {
    match serde_json::to_value(value)? {
        Value::Object(object) => Ok(object),
        other => bail!("{other} is not an object"),
    }
}

pub fn activate(component: &Component, rules: &impl Serialize) -> Result<Prepared> {
    Ok(component.activate(&config(rules)?, &Limits::default(), &Assets::default())?)
}

pub fn gate(engine: &Engine) -> Result<Vec<Variant>> {
    let prepared = activate(&engine.load(&guest("aether-gate.wasm")?)?, &cases::GATE)?;
    let plans = cases::plans();
    let questions = plans.iter().map(cases::gate_question).collect();
    variants(prepared, questions, move |case, answer| {
        let Answer::Judgement(judgement) = answer else { bail!("not a judgement") };
        let verdict = match judgement.verdict {
            Verdict::Allow => gate::Verdict::Allow,
            Verdict::Deny => gate::Verdict::Deny,
            Verdict::RequireApproval(demand) => gate::Verdict::RequireApproval(demand.approvers),
        };
        let reasons = judgement.reasons.into_iter();
        let reasons = reasons.map(|reason| gate::Reason { code: reason.code, text: reason.text }).collect();
        cases::same_judgement(&gate::Judgement { verdict, reasons }, &cases::judged(&plans[case]))
    })
}

pub fn scorer(engine: &Engine) -> Result<Vec<Variant>> {
    let prepared = activate(&engine.load(&guest("aether-ewma.wasm")?)?, &cases::EWMA)?;
    let series = cases::series();
    let questions = series.iter().map(cases::scorer_question).collect();
    variants(prepared, questions, move |case, answer| {
        let (level, score) = level_and_score(&answer)?;
        cases::same_score(level, score, &cases::scored(&series[case])?)
    })
}

pub fn empty(engine: &Engine) -> Result<Variant> {
    let empty = bench::Empty::new(engine).map_err(anyhow::Error::msg)?;
    variant(EMPTY, 1, move |_| empty.instantiate_and_drop(), |_, ()| Ok(()))
}

/// What a scorer answered, in the words of the native logic.
pub fn level_and_score(answer: &Answer) -> Result<(ewma::Level, f64)> {
    let Answer::Assessment(Assessment::Risk(risk)) = answer else { bail!("not a risk") };
    let level = match risk.level {
        Level::Low => ewma::Level::Low,
        Level::Elevated => ewma::Level::Elevated,
        Level::High => ewma::Level::High,
        Level::Critical => ewma::Level::Critical,
    };
    Ok((level, risk.score))
}

fn variants(
    prepared: Prepared,
    questions: Vec<Question>,
    check: impl Fn(usize, Answer) -> Result<()>,
) -> Result<Vec<Variant>> {
    let count = questions.len();
    let mut warm = bench::Warm::new(&prepared);
    let again = questions.clone();
    Ok(vec![
        variant(
            FRESH,
            count,
            move |case| prepared.evaluate(&questions[case], Environment::default()),
            |case, evaluation| match evaluation.outcome {
                Ok(answer) => check(case, answer),
                Err(fault) => bail!("{}", fault.message),
            },
        )?,
        variant(REUSED, count, move |case| warm.call(&again[case], Environment::default()), &check)?,
    ])
}
