//! Does a series do what it did not do within the window? Robust z-scores, by median and median absolute deviation.
//!
//! This file is the door; the statistics are in [`robust`], and what it shares with other scorers in the crate `anomaly`.

mod robust;

use aether_plugin::Settings;
use anomaly::{
    contract::aether::plugin::types::{Description, Observation},
    plugin, scoring,
};

static SETTINGS: Settings<robust::Config> = Settings::new();

struct Component;

impl plugin::Guest for Component {
    fn describe() -> Description {
        anomaly::describe(
            "robust-z",
            env!("CARGO_PKG_VERSION"),
            "Rates how far a node's series are from their median, in median absolute deviations.",
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
        let surprise = |values: &[f64], grid, floor| robust::surprise(values, grid, floor, config);
        Ok(anomaly::assess(&observation, &config.metrics, surprise))
    }
}

anomaly::contract::export!(Component with_types_in anomaly::contract);
