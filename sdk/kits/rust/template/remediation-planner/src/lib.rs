//! {{name}}: what should be done about a node at risk? Its workloads move to the first candidate with room.

wit_bindgen::generate!({ path: "wit", world: "remediation-planner" });

use aether::plugin::{
    log::{self, Severity},
    types::{
        Aggregation, Argument, Condition, Description, Input, MetricInput, Observation, OnFailure, Proposal, Step,
        Subject, Target, Value, Verb,
    },
};
use aether_plugin::{Check, Settings, series};
use exports::aether::plugin::{
    planning::{self, Candidate, Finding},
    plugin,
};

/// Index of the declared input.
const MEMORY: u32 = 0;
const METRIC: &str = "system.memory.utilization";
const MIGRATE: &str = "process.migrate";
const FULL: f64 = 0.95;

#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    watch_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { watch_ms: 10_000 }
    }
}

impl Check for Config {
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

static SETTINGS: Settings<Config> = Settings::new();

struct Component;

impl plugin::Guest for Component {
    fn describe() -> Description {
        Description {
            name: "{{name}}".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Moves every workload of a node at risk to the first candidate with room.".into(),
            // Of the subject and of each candidate.
            inputs: vec![Input::Metric(MetricInput {
                name: METRIC.into(),
                unit: "1".into(),
                window: 60_000,
                step: 5_000,
                aggregation: Aggregation::Last,
            })],
            config_schema: r#"{
                "type": "object",
                "properties": { "watch_ms": { "type": "integer", "minimum": 0, "maximum": 600000, "default": 10000 } },
                "additionalProperties": false
            }"#
            .into(),
        }
    }

    fn configure(config: String) -> Result<(), String> {
        SETTINGS.set(&config)
    }
}

impl planning::Guest for Component {
    /// Candidates come best first. No proposal: nothing can be done, and the log says why.
    fn plan(
        finding: Finding,
        _evidence: Observation,
        candidates: Vec<Candidate>,
        catalogue: Vec<Verb>,
    ) -> Result<Vec<Proposal>, String> {
        let Finding { subject, risk, workloads, .. } = &finding;
        if !catalogue.iter().any(|verb| verb.name == MIGRATE) {
            log::write(Severity::Warn, &format!("the catalogue has no {MIGRATE}"));
            return Ok(vec![]);
        }
        if workloads.is_empty() {
            log::write(Severity::Info, &format!("nothing runs on {}", subject.id));
            return Ok(vec![]);
        }
        let Some(Candidate { node: receiver, .. }) = candidates.iter().find(|candidate| has_room(candidate)) else {
            log::write(Severity::Info, &format!("none of {} candidates has room", candidates.len()));
            return Ok(vec![]);
        };
        let noun = if workloads.len() == 1 { "workload" } else { "workloads" };
        Ok(vec![Proposal {
            title: format!("Migrate {} {noun} from {} to {}", workloads.len(), subject.id, receiver.id),
            rationale: risk.reason.clone(),
            steps: workloads.iter().map(|workload| migrate(workload, receiver)).collect(),
            success: vec![],
            watch: SETTINGS.get().watch_ms,
            confidence: risk.confidence,
        }])
    }
}

export!(Component);

/// A candidate of which nothing is known has room: the precondition is checked on fresh evidence anyhow.
fn has_room(candidate: &Candidate) -> bool {
    let columns = candidate.free.iter().flat_map(|observation| &observation.columns);
    columns
        .filter(|column| column.input == MEMORY)
        .filter_map(|column| series::last(&column.values))
        .all(|used| used <= FULL)
}

fn migrate(workload: &Subject, receiver: &Subject) -> Step {
    Step {
        verb: MIGRATE.into(),
        target: target(workload),
        arguments: vec![Argument { name: "to".into(), value: Value::Text(receiver.id.clone()) }],
        preconditions: vec![Condition {
            metric: METRIC.into(),
            target: target(receiver),
            minimum: None,
            maximum: Some(FULL),
            fresh_within: 15_000,
        }],
        on_failure: OnFailure::Compensate,
    }
}

/// A target is a subject of the generation that was given: one that was replaced since is refused.
fn target(subject: &Subject) -> Target {
    Target { kind: subject.kind, id: subject.id.clone(), generation: subject.generation }
}
