//! Does one workload of this node harm the others? A best-effort neighbour that wants every processor, and memory that
//! leaks without a limit. This file is the door; the rules are in [`rules`].

mod rules;

wit_bindgen::generate!({ path: "../../wit", world: "risk-scorer" });

use aether::plugin::types::{Aggregation, Description, Input, MetricInput, Observation};
use aether_plugin::Settings;
use exports::aether::plugin::{plugin, scoring};

static SETTINGS: Settings<rules::Config> = Settings::new();

struct Component;

impl plugin::Guest for Component {
    fn describe() -> Description {
        let metric = |name: &str, unit: &str, aggregation| {
            Input::Metric(MetricInput {
                name: name.into(),
                unit: unit.into(),
                window: rules::WINDOW_MS,
                step: rules::STEP_MS,
                aggregation,
            })
        };
        Description {
            name: "workload-health".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Rates whether one workload of a node harms the others: a noisy neighbour, or memory that leaks."
                .into(),
            // In the order of `rules::input`.
            inputs: vec![
                metric("aether.workload.cpu.demand", "1", Aggregation::Mean),
                metric("process.memory.usage", "By", Aggregation::Last),
                metric("aether.workload.memory.reach", "1", Aggregation::Last),
            ],
            config_schema: include_str!("schema.json").into(),
        }
    }

    fn configure(config: String) -> Result<(), String> {
        SETTINGS.set(&config)
    }
}

impl scoring::Guest for Component {
    fn score(observation: Observation) -> Result<scoring::Assessment, String> {
        Ok(scoring::Assessment::Risk(rules::assess(&observation, SETTINGS.get())))
    }
}

export!(Component);
