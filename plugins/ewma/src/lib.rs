//! Does a series leave what it did lately? A control chart of exponentially weighted averages.
//!
//! This file is the door; the chart is in [`chart`], and what it shares with other scorers in the crate `anomaly`.

mod chart;

use aether_plugin::Settings;
use anomaly::{
    contract::aether::plugin::types::{Description, Observation},
    plugin, scoring,
};

static SETTINGS: Settings<chart::Config> = Settings::new();

struct Component;

impl plugin::Guest for Component {
    fn describe() -> Description {
        anomaly::describe(
            "ewma",
            env!("CARGO_PKG_VERSION"),
            "Rates how far a node's series are from their exponentially weighted mean.",
            include_str!("schema.json"),
        )
    }

    fn configure(config: String) -> Result<(), String> {
        SETTINGS.set(&config)
    }
}

impl scoring::Guest for Component {
    fn score(observation: Observation) -> Result<scoring::Assessment, String> {
        let config = SETTINGS.get();
        let surprise = |values: &[f64], grid, floor| chart::surprise(values, grid, floor, config);
        Ok(anomaly::assess(&observation, &config.metrics, surprise))
    }
}

anomaly::contract::export!(Component with_types_in anomaly::contract);
