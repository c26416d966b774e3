//! The rules, as plain functions of an observation.

use crate::aether::plugin::types::{Column, Contribution, Level, Observation, Risk};
use aether_plugin::{Check, check_positive, check_share, series};
use serde::Deserialize;

/// One minute: what grows evenly for so long is no start-up.
pub(crate) const WINDOW_MS: u64 = 60_000;
pub(crate) const STEP_MS: u64 = 5_000;
/// Steps through which a neighbour must be noisy.
const NOISY_STEPS: usize = 3;
/// Steps of the window that must have been sampled to call growth even.
const LEAK_STEPS: usize = 11;
/// The most that one step may grow, as a multiple of the median one: what comes in one piece is loaded, not leaked.
const UNEVEN: f64 = 3.0;

/// Indices of the declared inputs.
pub(crate) mod input {
    pub(crate) const DEMAND: u32 = 0;
    pub(crate) const MEMORY: u32 = 1;
    pub(crate) const REACH: u32 = 2;
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) cpu_share: f64,
    pub(crate) leak_bytes: u64,
    pub(crate) leak_reach: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { cpu_share: 0.9, leak_bytes: 64 << 20, leak_reach: 0.9 }
    }
}

impl Check for Config {
    fn check(&self) -> Result<(), String> {
        check_share("cpu_share", self.cpu_share)?;
        check_share("leak_reach", self.leak_reach)?;
        check_positive("leak_bytes", self.leak_bytes as f64)
    }
}

fn attribute<'a>(column: &'a Column, key: &str) -> &'a str {
    column.attributes.iter().find(|attribute| attribute.key == key).map_or("", |attribute| attribute.value.as_str())
}

/// The last few steps, if all of them were sampled.
fn newest(column: &Column, steps: usize) -> Option<&[f64]> {
    // The step that has just begun may be empty yet.
    let end = column.values.iter().rposition(|value| value.is_finite())? + 1;
    let fresh = column.values.len() - end <= 1;
    let values = column.values.get(end.checked_sub(steps)?..end)?;
    (fresh && values.iter().all(|value| value.is_finite())).then_some(values)
}

/// By how much it grew, if it grew through the whole window, evenly.
fn leaked(values: &[f64]) -> Option<f64> {
    let sampled = series::sampled(values);
    if sampled.len() < LEAK_STEPS {
        return None;
    }
    let mut growth: Vec<f64> = sampled.windows(2).map(|pair| pair[1] - pair[0]).collect();
    growth.sort_by(f64::total_cmp);
    let (least, median, most) = (growth.first()?, growth.get(growth.len() / 2)?, growth.last()?);
    (*least > 0.0 && *most <= median * UNEVEN).then(|| growth.iter().sum())
}

struct Harm {
    input: u32,
    cause: &'static str,
    level: Level,
    note: String,
}

/// The whole decision.
pub(crate) fn assess(observation: &Observation, config: &Config) -> Risk {
    let columns = |input: u32| observation.columns.iter().filter(move |column| column.input == input);
    let mut harms: Vec<Harm> = Vec::new();
    for column in columns(input::DEMAND).filter(|column| attribute(column, "tier") == "best-effort") {
        let Some(values) = newest(column, NOISY_STEPS) else { continue };
        let above =
            columns(input::DEMAND).any(|other| attribute(other, "tier") != "best-effort" && newest(other, 1).is_some());
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        if least >= config.cpu_share {
            let level = if above { Level::Critical } else { Level::Elevated };
            let note = format!("{} wants {:.0} % of the processors", attribute(column, "workload"), least * 100.0);
            harms.push(Harm { input: input::DEMAND, cause: "workload.noisy-neighbour", level, note });
        }
    }
    for column in columns(input::MEMORY) {
        let workload = attribute(column, "workload");
        let Some(grown) = leaked(&column.values).filter(|grown| *grown >= config.leak_bytes as f64) else { continue };
        let reach = columns(input::REACH).find(|reach| attribute(reach, "workload") == workload);
        let reach = reach.and_then(|reach| series::last(&reach.values));
        let level =
            if reach.is_some_and(|reach| reach >= config.leak_reach) { Level::Critical } else { Level::Elevated };
        let note = format!("{workload} grew by {:.0} MiB within a minute", grown / f64::from(1 << 20));
        harms.push(Harm { input: input::MEMORY, cause: "workload.memory-leak", level, note });
    }
    let node = &observation.subject.id;
    let grade = |level: Level| if level == Level::Critical { 0.9 } else { 0.2 };
    let contributions = harms
        .iter()
        .map(|harm| Contribution { input: harm.input, weight: grade(harm.level), note: harm.note.clone() })
        .collect();
    let worst = harms.iter().rev().max_by_key(|harm| harm.level as u8);
    let (level, score, cause, reason) = match worst {
        Some(harm) => (harm.level, grade(harm.level), harm.cause, format!("On {node}, {}.", harm.note)),
        None => (Level::Low, 0.02, "workload.calm", format!("No workload of {node} harms the others.")),
    };
    let horizon = matches!(level, Level::Critical).then_some(300_000);
    Risk { level, score, confidence: 0.9, horizon, cause: cause.into(), reason, contributions }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aether::plugin::types::{Attribute, Subject, SubjectKind};

    fn column(input: u32, workload: &str, tier: &str, values: Vec<f64>) -> Column {
        let attribute = |key: &str, value: &str| Attribute { key: key.into(), value: value.into() };
        let attributes = vec![attribute("workload", workload), attribute("tier", tier)];
        Column { input, attributes, start: 0, step: STEP_MS, values }
    }

    fn risk(columns: Vec<Column>) -> (Level, String) {
        let subject = Subject { kind: SubjectKind::Node, id: "node-a".into(), generation: 1, labels: vec![] };
        let risk = assess(&Observation { subject, at: 60_000, columns, events: vec![] }, &Config::default());
        (risk.level, risk.cause)
    }

    fn growing(step_mib: f64) -> Vec<f64> {
        (0..12).map(|step| f64::from(1 << 20) * (10.0 + f64::from(step) * step_mib)).collect()
    }

    #[test]
    fn a_noisy_neighbour_is_best_effort_wants_all_and_has_somebody_beside_it() {
        let noisy = |tier: &str, demand: f64, beside: &str| {
            let mut values = vec![f64::NAN; 8];
            values.extend([demand; 4]);
            let beside = column(input::DEMAND, "trainer", beside, vec![0.1; 12]);
            risk(vec![beside, column(input::DEMAND, "burner", tier, values)])
        };
        let cause = "workload.noisy-neighbour".to_owned();
        assert_eq!(noisy("best-effort", 0.97, "standard"), (Level::Critical, cause.clone()));
        assert_eq!(noisy("best-effort", 0.97, "best-effort"), (Level::Elevated, cause));
        assert_eq!(noisy("best-effort", 0.5, "standard").0, Level::Low);
        assert_eq!(noisy("standard", 0.97, "standard").0, Level::Low);
        assert_eq!(risk(vec![]).0, Level::Low);
    }

    #[test]
    fn a_leak_grows_evenly_for_a_minute_and_has_no_limit() {
        let leak = |values: Vec<f64>, reach: f64| {
            risk(vec![
                column(input::MEMORY, "leaker", "standard", values),
                column(input::REACH, "leaker", "standard", vec![reach; 12]),
            ])
        };
        let cause = "workload.memory-leak".to_owned();
        assert_eq!(leak(growing(20.0), 1.0), (Level::Critical, cause.clone()));
        assert_eq!(leak(growing(20.0), 0.2), (Level::Elevated, cause));
        // Too little, loaded in one piece, and not for long enough.
        assert_eq!(leak(growing(2.0), 1.0).0, Level::Low);
        let mut loaded = growing(1.0);
        loaded.iter_mut().skip(6).for_each(|value| *value += 1e9);
        assert_eq!(leak(loaded, 1.0).0, Level::Low);
        let mut short = growing(20.0);
        short.iter_mut().take(3).for_each(|value| *value = f64::NAN);
        assert_eq!(leak(short, 1.0).0, Level::Low);
    }

    #[test]
    fn the_schema_tells_the_defaults() {
        let schema: serde_json::Value = serde_json::from_str(include_str!("schema.json")).unwrap();
        let properties = schema["properties"].as_object().unwrap().iter();
        let defaults: serde_json::Map<String, serde_json::Value> =
            properties.map(|(field, property)| (field.clone(), property["default"].clone())).collect();
        let text = serde_json::to_string(&defaults).unwrap();
        assert_eq!(aether_plugin::parse::<Config>(&text).unwrap(), Config::default());
    }
}
