//! The gate that stands where no one has set a stricter one: what may run, and who must agree, by the plan's class, its
//! blast radius and what happened lately. This file is the door; the rules are in [`rules`].

mod rules;

wit_bindgen::generate!({ path: "../../wit", world: "policy-gate" });

use aether::plugin::types::Description;
use aether_plugin::Settings;
use exports::aether::plugin::{
    gating::{self, Judgement, Question},
    plugin,
};

static SETTINGS: Settings<rules::Config> = Settings::new();

struct Component;

impl plugin::Guest for Component {
    fn describe() -> Description {
        Description {
            name: "default-gate".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Allows, denies or asks for approval, by class, blast radius and recent failures.".into(),
            inputs: vec![],
            config_schema: include_str!("schema.json").into(),
        }
    }

    fn configure(config: String) -> Result<(), String> {
        SETTINGS.set(&config)
    }
}

impl gating::Guest for Component {
    fn judge(question: Question) -> Result<Judgement, String> {
        Ok(rules::judge(&question, SETTINGS.get()))
    }
}

export!(Component);
