//! The measured scorer as a component.

use aether_plugin as _;

wit_bindgen::generate!({ path: "../../../../wit", world: "risk-scorer" });

use aether::plugin::types::{Aggregation, Description, Input, Level, MetricInput, Observation, Risk};
use bench_logic::ewma::{self, Rules};
use exports::aether::plugin::{
    plugin,
    scoring::{self, Assessment},
};
use std::sync::OnceLock;

static RULES: OnceLock<Rules> = OnceLock::new();

struct Component;

impl plugin::Guest for Component {
    fn describe() -> Description {
        Description {
            name: "bench-ewma".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Scores the newest sample by an exponentially weighted mean and variance.".into(),
            inputs: vec![Input::Metric(MetricInput {
                name: "bench.value".into(),
                unit: "1".into(),
                window: 600_000,
                step: 10_000,
                aggregation: Aggregation::Last,
            })],
            config_schema: r#"{"type":"object"}"#.into(),
        }
    }

    fn configure(config: String) -> Result<(), String> {
        let rules = serde_json::from_str(&config).map_err(|error| error.to_string())?;
        RULES.set(rules).map_err(|_| "configured already".to_owned())
    }
}

impl scoring::Guest for Component {
    fn score(observation: Observation) -> Result<Assessment, String> {
        let rules = RULES.get().ok_or("not configured")?;
        let scored = observation.columns.first().and_then(|column| ewma::score(&column.values, rules));
        let Some(ewma::Risk { level, score, reason, .. }) = scored else {
            return Ok(Assessment::Insufficient("fewer than two samples".into()));
        };
        let level = match level {
            ewma::Level::Low => Level::Low,
            ewma::Level::Elevated => Level::Elevated,
            ewma::Level::High => Level::High,
            ewma::Level::Critical => Level::Critical,
        };
        Ok(Assessment::Risk(Risk {
            level,
            score,
            confidence: 1.0,
            horizon: None,
            cause: "bench.ewma".into(),
            reason,
            contributions: vec![],
        }))
    }
}

export!(Component);
