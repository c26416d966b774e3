//! The ranking, as a plain function of what is known of each node.

use crate::{
    aether::plugin::types::{Column, Observation, Reason},
    exports::aether::plugin::routing::{Choice, Placement},
};
use aether_plugin::{Check, check_positive, series};
use serde::Deserialize;

pub(crate) const WINDOW_MS: u64 = 60_000;
pub(crate) const STEP_MS: u64 = 5_000;

/// Indices of the declared inputs.
pub(crate) mod input {
    pub(crate) const CPU: u32 = 0;
    pub(crate) const MEMORY: u32 = 1;
    pub(crate) const MEMORY_AVAILABLE: u32 = 2;
    pub(crate) const LOAD: u32 = 3;
    pub(crate) const CPU_COUNT: u32 = 4;
    pub(crate) const PRESSURE: u32 = 5;
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) cpu_weight: f64,
    pub(crate) memory_weight: f64,
    pub(crate) load_weight: f64,
    pub(crate) pressure_weight: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { cpu_weight: 0.3, memory_weight: 0.4, load_weight: 0.15, pressure_weight: 0.15 }
    }
}

impl Check for Config {
    fn check(&self) -> Result<(), String> {
        let Config { cpu_weight, memory_weight, load_weight, pressure_weight } = *self;
        check_positive("cpu_weight", cpu_weight)?;
        check_positive("memory_weight", memory_weight)?;
        check_positive("load_weight", load_weight)?;
        check_positive("pressure_weight", pressure_weight)?;
        if cpu_weight + memory_weight + load_weight + pressure_weight == 0.0 {
            return Err("all weights are 0; give at least one above it".into());
        }
        Ok(())
    }
}

/// Mean of what was sampled within the window.
fn recent(column: &Column) -> Option<f64> {
    series::mean(&series::sampled(&column.values))
}

/// How much of a node is in use, 0 to 1, with a word for a person; none if nothing is known.
fn use_of(node: &Observation, config: &Config) -> Option<(f64, String)> {
    let columns = |input: u32| node.columns.iter().filter(move |column| column.input == input);
    let newest = |input: u32| columns(input).find_map(|column| series::last(&column.values));
    let load = newest(input::CPU_COUNT)
        .filter(|count| *count >= 1.0)
        .and_then(|count| newest(input::LOAD).map(|load| (load / count).min(1.0)));
    let parts = [
        ("CPU", columns(input::CPU).find_map(recent), config.cpu_weight),
        ("memory", columns(input::MEMORY).find_map(recent), config.memory_weight),
        ("load", load, config.load_weight),
        ("pressure", columns(input::PRESSURE).filter_map(recent).reduce(f64::max), config.pressure_weight),
    ];
    let (mut sum, mut weights, mut told) = (0.0, 0.0, Vec::new());
    for (what, value, weight) in parts {
        if let Some(value) = value {
            let value = value.clamp(0.0, 1.0);
            sum += value * weight;
            weights += weight;
            told.push(format!("{what} {:.0} %", value * 100.0));
        }
    }
    (weights > 0.0).then(|| (sum / weights, told.join(", ")))
}

/// Nodes with room, most of it first; those of which nothing is known come last, those without the memory that is
/// needed not at all. Equal ones in order of id, so that the answer never depends on the order of the question.
pub(crate) fn rank(placement: &Placement, config: &Config) -> Vec<Choice> {
    let needed = placement
        .needs
        .iter()
        .find(|need| need.key == "memory-bytes")
        .and_then(|need| need.value.parse::<u64>().ok())
        .unwrap_or(0) as f64;
    let has_room = |node: &&Observation| {
        let columns = node.columns.iter().filter(|column| column.input == input::MEMORY_AVAILABLE);
        columns.filter_map(|column| series::last(&column.values)).all(|available| available >= needed)
    };
    let mut choices: Vec<Choice> = placement
        .nodes
        .iter()
        .filter(has_room)
        .map(|node| {
            let (score, code, text) = match use_of(node, config) {
                Some((used, told)) => (1.0 - used, "router.least-loaded", told),
                None => (0.0, "router.unknown", "nothing was sampled within the last minute".to_owned()),
            };
            Choice { id: node.subject.id.clone(), score, reason: Reason { code: code.into(), text } }
        })
        .collect();
    choices.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id)));
    choices
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aether::plugin::types::{Attribute, Subject, SubjectKind};

    fn node(id: &str, readings: &[(u32, f64)]) -> Observation {
        let columns = readings
            .iter()
            .map(|(input, value)| Column {
                input: *input,
                attributes: vec![],
                start: 0,
                step: STEP_MS,
                values: vec![f64::NAN, *value],
            })
            .collect();
        let subject = Subject { kind: SubjectKind::Node, id: id.into(), generation: 1, labels: vec![] };
        Observation { subject, at: 60_000, columns, events: vec![] }
    }

    fn placement(nodes: Vec<Observation>, needs: &[(&str, &str)]) -> Placement {
        let needs = needs.iter().map(|(key, value)| Attribute { key: (*key).into(), value: (*value).into() }).collect();
        let workload = Subject { kind: SubjectKind::Workload, id: "counter".into(), generation: 1, labels: vec![] };
        Placement { workload, needs, nodes }
    }

    fn order(choices: &[Choice]) -> Vec<&str> {
        choices.iter().map(|choice| choice.id.as_str()).collect()
    }

    #[test]
    fn the_idle_come_first_and_the_unknown_last() {
        let nodes = vec![
            node("unknown", &[]),
            node("busy", &[(input::CPU, 0.9), (input::MEMORY, 0.8)]),
            node("idle", &[(input::CPU, 0.1), (input::MEMORY, 0.2)]),
        ];
        let choices = rank(&placement(nodes, &[]), &Config::default());
        assert_eq!(order(&choices), ["idle", "busy", "unknown"]);
        assert_eq!(choices[0].reason.text, "CPU 10 %, memory 20 %");
    }

    #[test]
    fn load_counts_for_each_cpu_and_pressure_by_the_worst() {
        let nodes = vec![
            node(
                "pressed",
                &[(input::LOAD, 2.0), (input::CPU_COUNT, 8.0), (input::PRESSURE, 0.1), (input::PRESSURE, 0.9)],
            ),
            node("loaded", &[(input::LOAD, 4.0), (input::CPU_COUNT, 8.0), (input::PRESSURE, 0.0)]),
        ];
        assert_eq!(order(&rank(&placement(nodes, &[]), &Config::default())), ["loaded", "pressed"]);
    }

    #[test]
    fn a_node_without_the_memory_is_no_choice() {
        let nodes =
            vec![node("small", &[(input::MEMORY_AVAILABLE, 1e9)]), node("large", &[(input::MEMORY_AVAILABLE, 9e9)])];
        let choices = rank(&placement(nodes, &[("memory-bytes", "2000000000")]), &Config::default());
        assert_eq!(order(&choices), ["large"]);
    }

    #[test]
    fn equal_nodes_come_in_order_of_id() {
        let nodes = vec![node("b", &[(input::CPU, 0.5)]), node("a", &[(input::CPU, 0.5)])];
        assert_eq!(order(&rank(&placement(nodes, &[]), &Config::default())), ["a", "b"]);
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
