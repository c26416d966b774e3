//! How likely is this spot node to be taken away? The provider's own signals first, then what its price does.
//!
//! A termination notice or a rebalance recommendation is critical. So is a price that rises (trend) or jumps
//! (volatility). Everything else is low. This file is the door; the rules are in [`rules`].

mod rules;

wit_bindgen::generate!({ path: "../../wit", world: "risk-scorer" });

use aether::plugin::types::{Aggregation, Description, EventInput, Input, MetricInput, Observation};
use aether_plugin::Settings;
use exports::aether::plugin::{plugin, scoring};

static SETTINGS: Settings<rules::Config> = Settings::new();

struct Component;

impl plugin::Guest for Component {
    fn describe() -> Description {
        let events =
            |name: &str| Input::Events(EventInput { name: name.into(), window: rules::WINDOW_MS, at_most: 64 });
        Description {
            name: "spot-risk".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Rates how likely a spot node is to be reclaimed, by the provider's signals and the price.".into(),
            // In the order of `rules::input`.
            inputs: vec![
                Input::Metric(MetricInput {
                    name: "aether.market.price".into(),
                    unit: "{USD}/h".into(),
                    window: rules::WINDOW_MS,
                    step: rules::STEP_MS,
                    aggregation: Aggregation::Last,
                }),
                events("aether.market.rebalance"),
                events("aether.market.termination"),
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
        Ok(rules::assess(&observation, SETTINGS.get()))
    }
}

export!(Component);
