//! Is this node running out of something? CPU, memory, disk and load, against thresholds.
//!
//! A node that is merely busy is never more than elevated: training uses all there is, on purpose. Critical is kept for
//! exhaustion. This file is the door; the rules are in [`rules`].

mod rules;

wit_bindgen::generate!({ path: "../../wit", world: "risk-scorer" });

use aether::plugin::types::{Description, Input, MetricInput, Observation};
use aether_plugin::Settings;
use exports::aether::plugin::{plugin, scoring};

static SETTINGS: Settings<rules::Config> = Settings::new();

struct Component;

impl plugin::Guest for Component {
    fn describe() -> Description {
        Description {
            name: "host-pressure".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Rates how near a node is to exhausting its CPU, memory or disk.".into(),
            inputs: rules::Signal::ALL
                .into_iter()
                .map(|signal| {
                    let (name, unit, aggregation) = signal.metric();
                    Input::Metric(MetricInput {
                        name: name.into(),
                        unit: unit.into(),
                        window: rules::WINDOW_MS,
                        step: rules::STEP_MS,
                        aggregation,
                    })
                })
                .collect(),
            config_schema: include_str!("schema.json").into(),
        }
    }

    fn configure(config: String) -> Result<(), String> {
        SETTINGS.set(&config)
    }
}

impl scoring::Guest for Component {
    fn score(observation: Observation) -> Result<scoring::Assessment, String> {
        Ok(rules::assess(&observation, SETTINGS.get()))
    }
}

export!(Component);
