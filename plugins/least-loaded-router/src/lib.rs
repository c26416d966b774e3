//! Sends work to where there is most room: nodes ranked by CPU, memory, load and pressure. This file is the door; the
//! ranking is in [`rank`].

mod rank;

wit_bindgen::generate!({ path: "../../wit", world: "router" });

use aether::plugin::types::{Aggregation, Description, Input, MetricInput};
use aether_plugin::Settings;
use exports::aether::plugin::{
    plugin,
    routing::{self, Choice, Question},
};

static SETTINGS: Settings<rank::Config> = Settings::new();

struct Component;

impl plugin::Guest for Component {
    fn describe() -> Description {
        let metric = |name: &str, unit: &str, aggregation| {
            Input::Metric(MetricInput {
                name: name.into(),
                unit: unit.into(),
                window: rank::WINDOW_MS,
                step: rank::STEP_MS,
                aggregation,
            })
        };
        Description {
            name: "least-loaded-router".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Ranks nodes by free CPU and memory, load and pressure.".into(),
            // In the order of `rank::input`.
            inputs: vec![
                metric("system.cpu.utilization", "1", Aggregation::Mean),
                metric("system.memory.utilization", "1", Aggregation::Mean),
                metric("system.linux.memory.available", "By", Aggregation::Last),
                metric("system.cpu.load_average.1m", "{thread}", Aggregation::Last),
                metric("system.cpu.logical.count", "{cpu}", Aggregation::Last),
                metric("aether.system.pressure.some", "1", Aggregation::Mean),
            ],
            config_schema: include_str!("schema.json").into(),
        }
    }

    fn configure(config: String) -> Result<(), String> {
        SETTINGS.set(&config)
    }
}

impl routing::Guest for Component {
    fn route(question: Question) -> Result<Vec<Choice>, String> {
        Ok(match question {
            Question::Placement(placement) => rank::rank(&placement, SETTINGS.get()),
            // Says nothing about messages: the fabric's own rules stand.
            Question::Message(_) => Vec::new(),
        })
    }
}

export!(Component);
