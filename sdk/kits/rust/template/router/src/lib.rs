//! {{name}}: where should this work go? To the node with the most free memory.

wit_bindgen::generate!({ path: "wit", world: "router" });

use aether::plugin::types::{Aggregation, Description, Input, MetricInput, Observation, Reason};
use aether_plugin::{Check, Settings, check_share, series};
use exports::aether::plugin::{
    plugin,
    routing::{self, Choice, Question},
};

/// Index of the declared input.
const MEMORY: u32 = 0;

#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    full_at: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { full_at: 0.95 }
    }
}

impl Check for Config {
    fn check(&self) -> Result<(), String> {
        check_share("full_at", self.full_at)
    }
}

static SETTINGS: Settings<Config> = Settings::new();

struct Component;

impl plugin::Guest for Component {
    fn describe() -> Description {
        Description {
            name: "{{name}}".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Ranks nodes by free memory.".into(),
            // Of each node.
            inputs: vec![Input::Metric(MetricInput {
                name: "system.memory.utilization".into(),
                unit: "1".into(),
                window: 60_000,
                step: 5_000,
                aggregation: Aggregation::Last,
            })],
            config_schema: r#"{
                "type": "object",
                "properties": { "full_at": { "type": "number", "minimum": 0, "maximum": 1, "default": 0.95 } },
                "additionalProperties": false
            }"#
            .into(),
        }
    }

    fn configure(config: String) -> Result<(), String> {
        SETTINGS.set(&config)
    }
}

impl routing::Guest for Component {
    /// Choices, best first. What is left out was not chosen.
    fn route(question: Question) -> Result<Vec<Choice>, String> {
        Ok(match question {
            Question::Placement(placement) => rank(&placement.nodes, SETTINGS.get()),
            Question::Message(message) => {
                let to = message.attributes.iter().find(|attribute| attribute.key == "to");
                let told = "the message names its receiver".to_owned();
                to.map(|to| choice(&to.value, 1.0, "router.addressed", told)).into_iter().collect()
            }
        })
    }
}

export!(Component);

fn rank(nodes: &[Observation], config: &Config) -> Vec<Choice> {
    let ranked = nodes.iter().filter_map(|node| {
        let id = &node.subject.id;
        let column = node.columns.iter().find(|column| column.input == MEMORY);
        match column.and_then(|column| series::last(&column.values)) {
            None => Some(choice(id, 0.0, "router.unknown", "nothing was sampled within the minute".into())),
            Some(used) if used >= config.full_at => None,
            Some(used) => {
                let text = format!("memory is {:.0} % full", used * 100.0);
                Some(choice(id, 1.0 - used, "router.memory", text))
            }
        }
    });
    let mut choices: Vec<Choice> = ranked.collect();
    // Equal ones in order of id, so that the answer does not depend on the order of the question.
    choices.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id)));
    choices
}

fn choice(id: &str, score: f64, code: &str, text: String) -> Choice {
    Choice { id: id.into(), score, reason: Reason { code: code.into(), text } }
}
