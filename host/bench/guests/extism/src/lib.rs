//! The measured gate and scorer as a plug-in of Extism. Input and output once as JSON, which its users take by default,
//! and once as MessagePack, its fastest self-describing encoding. The rules come by Extism's config and are parsed once
//! in an instance's life, as Aether's are.

use bench_logic::{ewma, gate};
use extism_pdk::{Error, FnResult, Json, Msgpack, config, plugin_fn};
use std::sync::OnceLock;

static GATE: OnceLock<gate::Rules> = OnceLock::new();
static EWMA: OnceLock<ewma::Rules> = OnceLock::new();

fn rules<T: for<'a> serde::Deserialize<'a>>(kept: &'static OnceLock<T>) -> Result<&'static T, Error> {
    if let Some(rules) = kept.get() {
        return Ok(rules);
    }
    let text = config::get("rules")?.ok_or_else(|| Error::msg("no rules"))?;
    let parsed = serde_json::from_str(&text)?;
    Ok(kept.get_or_init(|| parsed))
}

fn judged(plan: &gate::Plan) -> Result<gate::Judgement, Error> {
    Ok(gate::judge(plan, rules(&GATE)?))
}

fn scored(series: &ewma::Series) -> Result<ewma::Risk, Error> {
    ewma::score(&series.values, rules(&EWMA)?).ok_or_else(|| Error::msg("fewer than two samples"))
}

#[plugin_fn]
pub fn judge_json(Json(plan): Json<gate::Plan>) -> FnResult<Json<gate::Judgement>> {
    Ok(Json(judged(&plan)?))
}

#[plugin_fn]
pub fn judge_msgpack(Msgpack(plan): Msgpack<gate::Plan>) -> FnResult<Msgpack<gate::Judgement>> {
    Ok(Msgpack(judged(&plan)?))
}

#[plugin_fn]
pub fn score_json(Json(series): Json<ewma::Series>) -> FnResult<Json<ewma::Risk>> {
    Ok(Json(scored(&series)?))
}

#[plugin_fn]
pub fn score_msgpack(Msgpack(series): Msgpack<ewma::Series>) -> FnResult<Msgpack<ewma::Risk>> {
    Ok(Msgpack(scored(&series)?))
}
