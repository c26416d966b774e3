//! Uses what the virtual WASI has: the clock, randomness, a file, and standard output.

wit_bindgen::generate!({ path: "wit", world: "risk-scorer" });

use aether::plugin::types::{Description, Observation};
use exports::aether::plugin::{
    plugin,
    scoring::{self, Assessment},
};
use std::{
    hash::{BuildHasher as _, RandomState},
    time::SystemTime,
};

struct Component;

impl plugin::Guest for Component {
    fn describe() -> Description {
        Description {
            name: "{{name}}".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Tells what WASI told.".into(),
            inputs: vec![],
            config_schema: r#"{"type": "object"}"#.into(),
        }
    }

    fn configure(_config: String) -> Result<(), String> {
        Ok(())
    }
}

impl scoring::Guest for Component {
    fn score(_observation: Observation) -> Result<Assessment, String> {
        println!("printed");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(|error| error.to_string())?;
        // A hasher has the only randomness that the standard library shows.
        let drawn = if RandomState::new().hash_one(1) == RandomState::new().hash_one(2) { "the same" } else { "drawn" };
        let greeting = std::fs::read_to_string("/assets/greeting.txt").map_err(|error| error.to_string())?;
        Ok(Assessment::Insufficient(format!("{} {drawn} {greeting}", now.as_millis())))
    }
}

export!(Component);
