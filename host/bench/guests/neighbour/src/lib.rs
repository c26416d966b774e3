//! The hostile neighbour: as its config says, it loops for ever, takes all the memory it gets, or floods the log.

wit_bindgen::generate!({ path: "../../../../wit", world: "risk-scorer" });

use aether::plugin::{
    log::{self, Severity},
    types::{Description, Observation},
};
use exports::aether::plugin::{
    plugin,
    scoring::{self, Assessment},
};
use std::{hint::black_box, sync::OnceLock};

#[derive(Clone, Copy)]
enum Deed {
    Loop,
    Memory,
    Log,
}

static DEED: OnceLock<Deed> = OnceLock::new();

struct Component;

impl plugin::Guest for Component {
    fn describe() -> Description {
        Description {
            name: "bench-neighbour".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Takes what it can get.".into(),
            inputs: vec![],
            config_schema: r#"{"type":"object"}"#.into(),
        }
    }

    fn configure(config: String) -> Result<(), String> {
        let deed = match config.as_str() {
            r#"{"does":"loop"}"# => Deed::Loop,
            r#"{"does":"memory"}"# => Deed::Memory,
            r#"{"does":"log"}"# => Deed::Log,
            _ => return Err("`does` is `loop`, `memory` or `log`".into()),
        };
        DEED.set(deed).map_err(|_| "configured already".to_owned())
    }
}

impl scoring::Guest for Component {
    fn score(_: Observation) -> Result<Assessment, String> {
        let mut taken = Vec::new();
        loop {
            match DEED.get() {
                Some(Deed::Memory) => taken.push(black_box(vec![1u8; 1 << 20])),
                Some(Deed::Log) => log::write(Severity::Info, "the same line again, as fast as it can be written"),
                Some(Deed::Loop) | None => {
                    black_box(&taken);
                }
            }
        }
    }
}

export!(Component);
