//! Do the GPUs of this node still answer? One that has fallen off the bus is critical: what runs on it is lost, and
//! what is placed there will be. This file is the door; the rules are in [`rules`].

mod rules;

wit_bindgen::generate!({ path: "../../wit", world: "risk-scorer" });

use aether::plugin::types::{Aggregation, Description, Input, MetricInput, Observation};
use aether_plugin::Settings;
use exports::aether::plugin::{plugin, scoring};

static SETTINGS: Settings<rules::Config> = Settings::new();

struct Component;

impl plugin::Guest for Component {
    fn describe() -> Description {
        Description {
            name: "gpu-health".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Rates whether the GPUs of a node still answer.".into(),
            inputs: vec![Input::Metric(MetricInput {
                name: "aether.gpu.available".into(),
                unit: "1".into(),
                window: rules::WINDOW_MS,
                step: rules::STEP_MS,
                aggregation: Aggregation::Last,
            })],
            config_schema: include_str!("schema.json").into(),
        }
    }

    fn configure(config: String) -> Result<(), String> {
        SETTINGS.set(&config)
    }
}

impl scoring::Guest for Component {
    fn score(observation: Observation) -> Result<scoring::Assessment, String> {
        SETTINGS.get();
        Ok(scoring::Assessment::Risk(rules::assess(&observation)))
    }
}

export!(Component);
