//! {{name}}: how likely is this node to fail? A GPU error that the driver reported, then memory that runs full.

wit_bindgen::generate!({ path: "wit", world: "risk-scorer" });

use aether::plugin::types::{
    Aggregation, Contribution, Description, EventInput, Input, Level, MetricInput, Observation, Risk,
};
use aether_plugin::{Check, Settings, check_share, series};
use exports::aether::plugin::{
    plugin,
    scoring::{self, Assessment},
};

/// Indices of the declared inputs.
const MEMORY: u32 = 0;
const XID: u32 = 1;

const LEAST_SAMPLES: usize = 3;
/// This much below the threshold is elevated.
const NEAR: f64 = 0.1;

#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    threshold: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { threshold: 0.9 }
    }
}

impl Check for Config {
    fn check(&self) -> Result<(), String> {
        check_share("threshold", self.threshold)
    }
}

static SETTINGS: Settings<Config> = Settings::new();

struct Component;

impl plugin::Guest for Component {
    fn describe() -> Description {
        Description {
            name: "{{name}}".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Rates GPU errors and memory that runs full.".into(),
            inputs: vec![
                Input::Metric(MetricInput {
                    name: "system.memory.utilization".into(),
                    unit: "1".into(),
                    window: 60_000,
                    step: 5_000,
                    aggregation: Aggregation::Mean,
                }),
                Input::Events(EventInput { name: "aether.gpu.xid".into(), window: 60_000, at_most: 16 }),
            ],
            config_schema: r#"{
                "type": "object",
                "properties": { "threshold": { "type": "number", "minimum": 0, "maximum": 1, "default": 0.9 } },
                "additionalProperties": false
            }"#
            .into(),
        }
    }

    fn configure(config: String) -> Result<(), String> {
        SETTINGS.set(&config)
    }
}

impl scoring::Guest for Component {
    fn score(observation: Observation) -> Result<Assessment, String> {
        Ok(assess(&observation, SETTINGS.get()))
    }
}

export!(Component);

/// A plain function of the question, so that `cargo test` can ask it without a host.
fn assess(observation: &Observation, config: &Config) -> Assessment {
    if let Some(error) = observation.events.iter().rfind(|event| event.input == XID) {
        let xid = error.attributes.iter().find(|attribute| attribute.key == "xid");
        let xid = xid.map_or("unknown", |attribute| &attribute.value);
        let note = format!("the driver of {} reported Xid {xid}", observation.subject.id);
        return risk(Level::Critical, 0.95, 0.9, None, format!("gpu.xid.{xid}"), XID, note);
    }

    let column = observation.columns.iter().find(|column| column.input == MEMORY);
    let all = column.map_or(&[][..], |column| &column.values);
    // NaN means that nothing was sampled there.
    let values = series::sampled(all);
    let Some(used) = series::last(&values).filter(|_| values.len() >= LEAST_SAMPLES) else {
        let found = values.len();
        return Assessment::Insufficient(format!("{found} samples of memory use, of at least {LEAST_SAMPLES}"));
    };
    let confidence = values.len() as f64 / all.len() as f64;
    let note = format!("memory is {:.0} % full", used * 100.0);
    let (level, horizon, cause) = if used >= config.threshold {
        (Level::Critical, Some(60_000), "memory.full")
    } else if used >= config.threshold - NEAR {
        (Level::Elevated, None, "memory.near-full")
    } else {
        (Level::Low, None, "memory.calm")
    };
    risk(level, used, confidence, horizon, cause.into(), MEMORY, note)
}

fn risk(
    level: Level,
    score: f64,
    confidence: f64,
    horizon: Option<u64>,
    cause: String,
    input: u32,
    note: String,
) -> Assessment {
    let reason = note.clone();
    let contributions = vec![Contribution { input, weight: 1.0, note }];
    Assessment::Risk(Risk { level, score, confidence, horizon, cause, reason, contributions })
}
