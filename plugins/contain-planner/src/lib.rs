//! Contains one workload that harms the others of its node, by limits of its cgroup. This file is the door; the plan is
//! made in [`plan`].

mod plan;

wit_bindgen::generate!({ path: "../../wit", world: "remediation-planner" });

use aether::plugin::{
    log,
    types::{Aggregation, Description, Input, MetricInput, Observation, Proposal, Verb},
};
use aether_plugin::Settings;
use exports::aether::plugin::{
    planning::{self, Candidate, Finding},
    plugin,
};

static SETTINGS: Settings<plan::Config> = Settings::new();

struct Component;

impl plugin::Guest for Component {
    fn describe() -> Description {
        let metric = |name: &str, unit: &str| {
            Input::Metric(MetricInput {
                name: name.into(),
                unit: unit.into(),
                window: plan::WINDOW_MS,
                step: plan::STEP_MS,
                aggregation: Aggregation::Last,
            })
        };
        Description {
            name: "contain-planner".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Proposes to limit the one workload that harms the others of its node.".into(),
            // In the order of `plan::input`.
            inputs: vec![
                metric("aether.workload.cpu.demand", "1"),
                metric("process.memory.usage", "By"),
                metric("aether.workload.memory.reach", "1"),
                metric("system.cpu.logical.count", "{cpu}"),
            ],
            config_schema: include_str!("schema.json").into(),
        }
    }

    fn configure(config: String) -> Result<(), String> {
        SETTINGS.set(&config)
    }
}

impl planning::Guest for Component {
    fn plan(
        finding: Finding,
        evidence: Observation,
        _candidates: Vec<Candidate>,
        catalogue: Vec<Verb>,
    ) -> Result<Vec<Proposal>, String> {
        match plan::plan(&finding, &evidence, &catalogue, SETTINGS.get()) {
            Ok(proposal) => Ok(vec![proposal]),
            Err(why) => {
                log::write(log::Severity::Info, &format!("nothing proposed: {why}"));
                Ok(vec![])
            }
        }
    }
}

export!(Component);
