//! Extism, with its plug-in compiled once. Fresh: a plug-in made of what was compiled, called once, dropped. Reused: one
//! plug-in called again and again, in which what it keeps in memory survives.
//!
//! Extism is given what helps it: no fuel and no timeout, which Aether always has, and wasmtime's pooling allocator in
//! place of its default.

use super::{Variant, aether::guest, variant};
use crate::cases;
use anyhow::Result;
use bench_logic::{ewma, gate};
use extism::{
    CompiledPlugin, Manifest, Plugin, PluginBuilder, Wasm,
    convert::{Json, Msgpack},
};
use serde::Serialize;

pub const FRESH_JSON: &str = "Extism, fresh instance, JSON";
pub const FRESH_MSGPACK: &str = "Extism, fresh instance, MessagePack";
pub const REUSED_JSON: &str = "Extism, reused instance, JSON";
pub const REUSED_MSGPACK: &str = "Extism, reused instance, MessagePack";

fn compiled(rules: &impl Serialize) -> Result<CompiledPlugin> {
    let manifest =
        Manifest::new([Wasm::data(guest("extism.wasm")?)]).with_config_key("rules", serde_json::to_string(rules)?);
    let mut config = wasmtime::Config::new();
    config.allocation_strategy(wasmtime::InstanceAllocationStrategy::pooling());
    PluginBuilder::new(manifest).with_wasi(false).with_cache_disabled().with_wasmtime_config(config).compile()
}

fn plugin(compiled: &CompiledPlugin) -> Plugin {
    Plugin::new_from_compiled(compiled).expect("it was compiled")
}

/// The rows of one decision; `$ask` names the two exports.
macro_rules! rows {
    ($compiled:expr, $inputs:expr, $json:literal, $msgpack:literal, $answer:ty, $check:expr) => {{
        let (compiled, inputs, check) = ($compiled, $inputs, $check);
        let count = inputs.len();
        let (fresh, input) = (compiled.clone(), inputs.clone());
        let fresh_json = variant(
            FRESH_JSON,
            count,
            move |case| plugin(&fresh).call::<_, Json<$answer>>($json, Json(&input[case])).map(|Json(answer)| answer),
            &check,
        )?;
        let (fresh, input) = (compiled.clone(), inputs.clone());
        let fresh_msgpack = variant(
            FRESH_MSGPACK,
            count,
            move |case| {
                plugin(&fresh)
                    .call::<_, Msgpack<$answer>>($msgpack, Msgpack(&input[case]))
                    .map(|Msgpack(answer)| answer)
            },
            &check,
        )?;
        let (mut reused, input) = (plugin(&compiled), inputs.clone());
        let reused_json = variant(
            REUSED_JSON,
            count,
            move |case| reused.call::<_, Json<$answer>>($json, Json(&input[case])).map(|Json(answer)| answer),
            &check,
        )?;
        let (mut reused, input) = (plugin(&compiled), inputs);
        let reused_msgpack = variant(
            REUSED_MSGPACK,
            count,
            move |case| {
                reused.call::<_, Msgpack<$answer>>($msgpack, Msgpack(&input[case])).map(|Msgpack(answer)| answer)
            },
            &check,
        )?;
        Ok(vec![fresh_json, fresh_msgpack, reused_json, reused_msgpack])
    }};
}

pub fn gate() -> Result<Vec<Variant>> {
    let plans = cases::plans();
    let native: Vec<_> = plans.iter().map(cases::judged).collect();
    rows!(compiled(&cases::GATE)?, plans, "judge_json", "judge_msgpack", gate::Judgement, |case: usize,
                                                                                           answer: Result<
        gate::Judgement,
    >| cases::same_judgement(
        &answer?,
        &native[case]
    ))
}

pub fn scorer() -> Result<Vec<Variant>> {
    let series = cases::series();
    let native = series.iter().map(cases::scored).collect::<Result<Vec<_>>>()?;
    rows!(
        compiled(&cases::EWMA)?,
        series,
        "score_json",
        "score_msgpack",
        ewma::Risk,
        |case: usize, answer: Result<ewma::Risk>| {
            let risk = answer?;
            cases::same_score(risk.level, risk.score, &native[case])
        }
    )
}
