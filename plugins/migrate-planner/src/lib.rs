//! Moves every workload off a node at risk, to the best node that has room. This file is the door; the plan is made in
//! [`plan`].

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
            name: "migrate-planner".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Proposes to migrate every workload of a node at risk to the best node with enough memory.".into(),
            // In the order of `plan::input`.
            inputs: vec![metric("system.linux.memory.available", "By"), metric("system.memory.utilization", "1")],
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
        _evidence: Observation,
        candidates: Vec<Candidate>,
        catalogue: Vec<Verb>,
    ) -> Result<Vec<Proposal>, String> {
        let planned = plan::plan(&finding, &candidates, &catalogue, SETTINGS.get());
        for line in &planned.told {
            log::write(log::Severity::Info, line);
        }
        Ok(planned.proposal.into_iter().collect())
    }
}

export!(Component);
