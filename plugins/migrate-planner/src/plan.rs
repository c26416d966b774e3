//! The plan, as a plain function of the finding.

use crate::{
    aether::plugin::types::{
        Argument, Condition, Observation, OnFailure, Proposal, Step, Subject, SubjectKind, Target, Value, Verb,
    },
    exports::aether::plugin::planning::{Candidate, Finding},
};
use aether_plugin::{Check, check_positive, check_share, series};
use serde::Deserialize;

pub(crate) const WINDOW_MS: u64 = 30_000;
pub(crate) const STEP_MS: u64 = 5_000;

const MIGRATE: &str = "process.migrate";

/// Indices of the declared inputs.
pub(crate) mod input {
    pub(crate) const MEMORY_AVAILABLE: u32 = 0;
    pub(crate) const MEMORY_UTILIZATION: u32 = 1;
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) watch_ms: u64,
    pub(crate) progress_minimum: f64,
    pub(crate) progress_fresh_ms: u64,
    pub(crate) memory_maximum: f64,
    pub(crate) memory_fresh_ms: u64,
    pub(crate) workload_memory_bytes: u64,
    pub(crate) workloads_maximum: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            watch_ms: 10_000,
            progress_minimum: 0.01,
            progress_fresh_ms: 10_000,
            memory_maximum: 0.95,
            memory_fresh_ms: 15_000,
            workload_memory_bytes: 256 << 20,
            workloads_maximum: 16,
        }
    }
}

impl Check for Config {
    fn check(&self) -> Result<(), String> {
        check_positive("progress_minimum", self.progress_minimum)?;
        check_share("memory_maximum", self.memory_maximum)?;
        for (field, value, maximum) in [
            ("watch_ms", self.watch_ms, 3_600_000),
            ("progress_fresh_ms", self.progress_fresh_ms, 600_000),
            ("memory_fresh_ms", self.memory_fresh_ms, 600_000),
        ] {
            if !(1_000..=maximum).contains(&value) {
                return Err(format!("`{field}` is {value}; give 1000 to {maximum}"));
            }
        }
        if !(1..=16).contains(&self.workloads_maximum) {
            return Err(format!("`workloads_maximum` is {}; give 1 to 16", self.workloads_maximum));
        }
        Ok(())
    }
}

/// What came of it, with lines that say what was weighed.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) proposal: Option<Proposal>,
    pub(crate) told: Vec<String>,
}

/// A node that can take work, with what is left of its memory.
struct Room<'a> {
    node: &'a Subject,
    /// None: not known; such a node comes last, and the precondition decides.
    left_bytes: Option<f64>,
}

fn newest(observations: &[Observation], input: u32) -> Option<f64> {
    let columns = observations.iter().flat_map(|observation| &observation.columns);
    columns.filter(|column| column.input == input).find_map(|column| series::last(&column.values))
}

fn label<'a>(subject: &'a Subject, key: &str) -> Option<&'a str> {
    subject.labels.iter().find(|label| label.key == key).map(|label| label.value.as_str())
}

/// Graver tiers first.
fn rank(workload: &Subject) -> u8 {
    match label(workload, "tier") {
        Some("critical") => 0,
        Some("best-effort") => 2,
        Some(_) | None => 1,
    }
}

fn target(subject: &Subject) -> Target {
    Target { kind: subject.kind, id: subject.id.clone(), generation: subject.generation }
}

/// The nodes that can take work, known room first, in the order they were given.
fn rooms<'a>(finding: &Finding, candidates: &'a [Candidate], config: &Config, told: &mut Vec<String>) -> Vec<Room<'a>> {
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for Candidate { node, free } in candidates {
        if node.kind != SubjectKind::Node
            || (finding.subject.kind == SubjectKind::Node && node.id == finding.subject.id)
        {
            continue;
        }
        let utilization = newest(free, input::MEMORY_UTILIZATION);
        if let Some(utilization) = utilization.filter(|utilization| *utilization > config.memory_maximum) {
            told.push(format!("{} is left out: {:.1} % of its memory is in use", node.id, utilization * 100.0));
            continue;
        }
        match newest(free, input::MEMORY_AVAILABLE) {
            Some(left) => known.push(Room { node, left_bytes: Some(left) }),
            None => {
                told.push(format!("{} comes last: its free memory is not known", node.id));
                unknown.push(Room { node, left_bytes: None });
            }
        }
    }
    known.append(&mut unknown);
    known
}

/// The whole decision.
pub(crate) fn plan(finding: &Finding, candidates: &[Candidate], catalogue: &[Verb], config: &Config) -> Planned {
    let mut told = Vec::new();
    let subject = &finding.subject.id;
    let nothing = |mut told: Vec<String>, why: String| {
        told.push(why);
        Planned { proposal: None, told }
    };
    if !catalogue.iter().any(|verb| verb.name == MIGRATE) {
        return nothing(told, format!("nothing proposed: `{MIGRATE}` is not in the catalogue"));
    }
    if finding.workloads.is_empty() {
        return nothing(told, format!("nothing proposed: no workload runs on {subject}"));
    }
    let mut rooms = rooms(finding, candidates, config, &mut told);
    if rooms.is_empty() {
        return nothing(told, format!("nothing proposed: no other node can take the workloads of {subject}"));
    }
    let mut workloads: Vec<&Subject> = finding.workloads.iter().collect();
    workloads.sort_by_key(|workload| rank(workload));

    let mut steps = Vec::new();
    let mut success = Vec::new();
    let mut moves: Vec<(&str, &str)> = Vec::new();
    for workload in workloads {
        if steps.len() >= config.workloads_maximum as usize {
            told.push(format!("{} is not moved: the proposal is full", workload.id));
            continue;
        }
        let needed = label(workload, "memory-bytes")
            .and_then(|bytes| bytes.parse::<u64>().ok())
            .unwrap_or(config.workload_memory_bytes) as f64;
        let Some(room) = rooms.iter_mut().find(|room| room.left_bytes.is_none_or(|left| left >= needed)) else {
            told.push(format!("{} is not moved: no node has {needed} bytes of memory left", workload.id));
            continue;
        };
        if let Some(left) = &mut room.left_bytes {
            *left -= needed;
        }
        steps.push(Step {
            verb: MIGRATE.into(),
            target: target(workload),
            arguments: vec![Argument { name: "to".into(), value: Value::Text(room.node.id.clone()) }],
            preconditions: vec![Condition {
                metric: "system.memory.utilization".into(),
                target: target(room.node),
                minimum: None,
                maximum: Some(config.memory_maximum),
                fresh_within: config.memory_fresh_ms,
            }],
            on_failure: OnFailure::Compensate,
        });
        success.push(Condition {
            metric: "aether.workload.progress.rate".into(),
            target: target(workload),
            minimum: Some(config.progress_minimum),
            maximum: None,
            fresh_within: config.progress_fresh_ms,
        });
        moves.push((&workload.id, &room.node.id));
    }
    if steps.is_empty() {
        return nothing(told, format!("nothing proposed: no node has room for any workload of {subject}"));
    }
    let named = moves.iter().map(|(workload, to)| format!("{workload} to {to}")).collect::<Vec<_>>().join(", ");
    let title = match moves.as_slice() {
        [(workload, to)] => format!("Migrate {workload} from {subject} to {to}"),
        _ => format!("Migrate {} workloads from {subject}", moves.len()),
    };
    let left = finding.workloads.len() - moves.len();
    let kept = if left == 0 { String::new() } else { format!(" {left} workloads stay, for want of room.") };
    let rationale = format!(
        "{} Moving now: {named}. A workload that cannot be restored goes on where it was.{kept}",
        finding.risk.reason
    );
    // Sinks with every attempt that was in vain, and is never surer than the finding itself.
    let confidence = (0.9 / f64::from(finding.attempts.saturating_add(1))).min(finding.risk.confidence.max(0.1));
    let proposal = Proposal { title, rationale, steps, success, watch: config.watch_ms, confidence };
    Planned { proposal: Some(proposal), told }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aether::plugin::types::{Attribute, Column, Level, Risk, SafetyClass};

    fn subject(kind: SubjectKind, id: &str, generation: u64, labels: &[(&str, &str)]) -> Subject {
        let labels =
            labels.iter().map(|(key, value)| Attribute { key: (*key).into(), value: (*value).into() }).collect();
        Subject { kind, id: id.into(), generation, labels }
    }

    fn workload(id: &str, labels: &[(&str, &str)]) -> Subject {
        subject(SubjectKind::Workload, id, 3, labels)
    }

    fn candidate(id: &str, available: Option<f64>, utilization: f64) -> Candidate {
        let node = subject(SubjectKind::Node, id, 1, &[]);
        let column = |input, value| Column { input, attributes: vec![], start: 0, step: STEP_MS, values: vec![value] };
        let columns = available
            .map(|available| column(input::MEMORY_AVAILABLE, available))
            .into_iter()
            .chain([column(input::MEMORY_UTILIZATION, utilization)])
            .collect();
        Candidate { node: node.clone(), free: vec![Observation { subject: node, at: 0, columns, events: vec![] }] }
    }

    fn finding(workloads: Vec<Subject>) -> Finding {
        Finding {
            id: "f1".into(),
            subject: subject(SubjectKind::Node, "node-a", 7, &[]),
            risk: Risk {
                level: Level::Critical,
                score: 0.9,
                confidence: 0.9,
                horizon: Some(120_000),
                cause: "spot.rebalance".into(),
                reason: "The provider advises to rebalance.".into(),
                contributions: vec![],
            },
            first_seen: 0,
            recurrences: 0,
            attempts: 0,
            workloads,
        }
    }

    fn catalogue() -> Vec<Verb> {
        vec![Verb {
            name: MIGRATE.into(),
            summary: String::new(),
            class: SafetyClass::Impactful,
            compensable: true,
            capability: None,
            arguments: vec![],
        }]
    }

    fn destinations(planned: &Planned) -> Vec<(String, String)> {
        let steps = planned.proposal.iter().flat_map(|proposal| &proposal.steps);
        steps
            .map(|step| match &step.arguments[0].value {
                Value::Text(to) => (step.target.id.clone(), to.clone()),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn one_workload_goes_to_the_best_candidate() {
        let candidates = [
            candidate("node-a", Some(9e9), 0.1),
            candidate("node-b", Some(8e9), 0.4),
            candidate("node-c", Some(9e9), 0.1),
        ];
        let planned = plan(&finding(vec![workload("counter", &[])]), &candidates, &catalogue(), &Config::default());
        let proposal = planned.proposal.unwrap();
        assert_eq!(proposal.title, "Migrate counter from node-a to node-b");
        let step = &proposal.steps[0];
        assert_eq!((step.verb.as_str(), step.target.kind, step.target.generation), (MIGRATE, SubjectKind::Workload, 3));
        assert_eq!((step.preconditions[0].target.id.as_str(), step.preconditions[0].maximum), ("node-b", Some(0.95)));
        assert_eq!((proposal.success[0].target.id.as_str(), proposal.success[0].minimum), ("counter", Some(0.01)));
        assert_eq!(proposal.watch, 10_000);
    }

    #[test]
    fn memory_is_spent_and_the_gravest_tier_comes_first() {
        let big = [("memory-bytes", "6000000000"), ("tier", "best-effort")];
        let grave = [("memory-bytes", "6000000000"), ("tier", "critical")];
        let candidates = [candidate("node-b", Some(8e9), 0.4), candidate("node-c", Some(7e9), 0.1)];
        let finding = finding(vec![workload("late", &big), workload("first", &grave), workload("third", &big)]);
        let planned = plan(&finding, &candidates, &catalogue(), &Config::default());
        let expected = [("first", "node-b"), ("late", "node-c")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(destinations(&planned), expected);
        assert_eq!(planned.told, ["third is not moved: no node has 6000000000 bytes of memory left"]);
    }

    #[test]
    fn a_full_node_is_left_out_and_an_unknown_one_comes_last() {
        let candidates =
            [candidate("node-b", Some(8e9), 0.96), candidate("node-c", None, 0.2), candidate("node-d", Some(8e9), 0.2)];
        let planned = plan(&finding(vec![workload("counter", &[])]), &candidates, &catalogue(), &Config::default());
        assert_eq!(destinations(&planned), [("counter".to_owned(), "node-d".to_owned())]);
        assert_eq!(planned.told.len(), 2, "{:?}", planned.told);
    }

    #[test]
    fn nothing_to_move_or_nowhere_to_go_is_said() {
        let config = Config::default();
        let none = plan(&finding(vec![]), &[candidate("node-b", Some(8e9), 0.4)], &catalogue(), &config);
        assert_eq!(none.told, ["nothing proposed: no workload runs on node-a"]);
        let nowhere =
            plan(&finding(vec![workload("w", &[])]), &[candidate("node-a", Some(8e9), 0.4)], &catalogue(), &config);
        assert_eq!(nowhere.told, ["nothing proposed: no other node can take the workloads of node-a"]);
        let no_verb = plan(&finding(vec![workload("w", &[])]), &[candidate("node-b", Some(8e9), 0.4)], &[], &config);
        assert!(no_verb.proposal.is_none());
    }

    #[test]
    fn the_schema_tells_the_defaults() {
        let schema: serde_json::Value = serde_json::from_str(include_str!("schema.json")).unwrap();
        let defaults: serde_json::Map<String, serde_json::Value> = schema["properties"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(field, property)| (field.clone(), property["default"].clone()))
            .collect();
        let text = serde_json::to_string(&defaults).unwrap();
        assert_eq!(aether_plugin::parse::<Config>(&text).unwrap(), Config::default());
    }
}
