//! The rules, as plain functions of an observation.

use crate::aether::plugin::types::{Column, Contribution, Level, Observation, Risk};
use aether_plugin::Check;
use serde::Deserialize;

pub(crate) const WINDOW_MS: u64 = 60_000;
pub(crate) const STEP_MS: u64 = 5_000;

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {}

impl Check for Config {
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

fn gpu(column: &Column) -> &str {
    column.attributes.iter().find(|attribute| attribute.key == "gpu").map_or("", |attribute| attribute.value.as_str())
}

/// The step of the newest sample, and the sample.
fn newest(column: &Column) -> Option<(usize, f64)> {
    let index = column.values.iter().rposition(|value| value.is_finite())?;
    column.values.get(index).map(|value| (index, *value))
}

/// The whole decision.
pub(crate) fn assess(observation: &Observation) -> Risk {
    // One GPU may have several series; the newest word counts, and at one time the worse.
    let mut words: Vec<(&str, usize, f64)> = Vec::new();
    for column in &observation.columns {
        let Some((at, value)) = newest(column) else { continue };
        match words.iter_mut().find(|(known, _, _)| *known == gpu(column)) {
            Some((_, since, word)) if at > *since || (at == *since && value < *word) => (*since, *word) = (at, value),
            Some(_) => {}
            None => words.push((gpu(column), at, value)),
        }
    }
    let lost: Vec<&str> = words.iter().filter(|(_, _, value)| *value < 0.5).map(|(gpu, _, _)| *gpu).collect();
    let node = &observation.subject.id;
    let (level, score, cause, reason) = match (lost.as_slice(), words.len()) {
        ([], 0) => (Level::Low, 0.0, "gpu.none", format!("No GPU is known on {node}.")),
        ([], count) => (Level::Low, 0.02, "gpu.calm", format!("{count} GPUs of {node} answer.")),
        (lost, _) => (Level::Critical, 0.95, "gpu.lost", format!("Off the bus of {node}: {}.", lost.join(", "))),
    };
    let contributions = lost
        .iter()
        .map(|gpu| Contribution { input: 0, weight: 0.95, note: format!("{gpu} does not answer") })
        .collect();
    let horizon = (!lost.is_empty()).then_some(60_000);
    Risk { level, score, confidence: 0.95, horizon, cause: cause.into(), reason, contributions }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aether::plugin::types::{Attribute, Subject, SubjectKind};

    fn risk(columns: &[(&str, &[f64])]) -> (Level, String) {
        let column = |(gpu, values): &(&str, &[f64])| Column {
            input: 0,
            attributes: vec![Attribute { key: "gpu".into(), value: (*gpu).into() }],
            start: 0,
            step: STEP_MS,
            values: values.to_vec(),
        };
        let subject = Subject { kind: SubjectKind::Node, id: "node-a".into(), generation: 1, labels: vec![] };
        let columns = columns.iter().map(column).collect();
        let risk = assess(&Observation { subject, at: 60_000, columns, events: vec![] });
        (risk.level, risk.cause)
    }

    #[test]
    fn the_newest_word_on_each_gpu_counts() {
        let gone = f64::NAN;
        assert_eq!(risk(&[]), (Level::Low, "gpu.none".into()));
        assert_eq!(risk(&[("a", &[1.0, 1.0]), ("b", &[1.0, gone])]), (Level::Low, "gpu.calm".into()));
        assert_eq!(risk(&[("a", &[1.0, 1.0]), ("b", &[1.0, 0.0])]), (Level::Critical, "gpu.lost".into()));
        // Another series of the same GPU: it was lost, and is back.
        assert_eq!(risk(&[("a", &[0.0, gone]), ("a", &[gone, 1.0])]).0, Level::Low);
        assert_eq!(risk(&[("a", &[1.0, gone]), ("a", &[gone, 0.0])]).0, Level::Critical);
        assert_eq!(risk(&[("a", &[gone, 1.0]), ("a", &[gone, 0.0])]).0, Level::Critical);
    }
}
