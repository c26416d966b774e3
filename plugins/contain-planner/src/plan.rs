//! The plan, as a plain function of the finding and its evidence.

use crate::{
    aether::plugin::types::{
        Argument, Column, Condition, Observation, OnFailure, Proposal, Step, Subject, SubjectKind, Target, Value, Verb,
    },
    exports::aether::plugin::planning::Finding,
};
use aether_plugin::{Check, check_positive, check_share, series};
use serde::Deserialize;

pub(crate) const WINDOW_MS: u64 = 60_000;
pub(crate) const STEP_MS: u64 = 5_000;

const LIMIT: &str = "cgroup.limit";
const NOISY: &str = "workload.noisy-neighbour";
const LEAK: &str = "workload.memory-leak";
/// Evidence of success may be so old.
const FRESH_MS: u64 = 10_000;
/// What a limit lets be seen of a share may be so much more.
const SLACK: f64 = 0.05;
/// Below this share of the node's memory a leak is harmless to others.
const REACH_MAXIMUM: f64 = 0.9;

/// Indices of the declared inputs.
pub(crate) mod input {
    pub(crate) const DEMAND: u32 = 0;
    pub(crate) const MEMORY: u32 = 1;
    pub(crate) const REACH: u32 = 2;
    pub(crate) const CPUS: u32 = 3;
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) cpu_share: f64,
    pub(crate) memory_room_bytes: u64,
    pub(crate) watch_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { cpu_share: 0.25, memory_room_bytes: 512 << 20, watch_ms: 10_000 }
    }
}

impl Check for Config {
    fn check(&self) -> Result<(), String> {
        check_share("cpu_share", self.cpu_share)?;
        check_positive("cpu_share", self.cpu_share)?;
        check_positive("memory_room_bytes", self.memory_room_bytes as f64)?;
        if !(1_000..=3_600_000).contains(&self.watch_ms) {
            return Err(format!("`watch_ms` is {}; give 1000 to 3600000", self.watch_ms));
        }
        Ok(())
    }
}

fn attribute<'a>(column: &'a Column, key: &str) -> &'a str {
    column.attributes.iter().find(|attribute| attribute.key == key).map_or("", |attribute| attribute.value.as_str())
}

/// The one that is meant, with the limit, what is to be seen of it, and in words what it is.
struct Limit<'a> {
    workload: &'a str,
    argument: Argument,
    metric: &'static str,
    maximum: f64,
    words: String,
}

/// The whole decision; or why there is nothing to propose.
pub(crate) fn plan(
    finding: &Finding,
    evidence: &Observation,
    catalogue: &[Verb],
    config: &Config,
) -> Result<Proposal, String> {
    let limit = match finding.risk.cause.as_str() {
        NOISY => noisy(evidence, config)?,
        LEAK => leak(evidence, config)?,
        other => return Err(format!("`{other}` is of no workload")),
    };
    if !catalogue.iter().any(|verb| verb.name == LIMIT) {
        return Err(format!("`{LIMIT}` is not in the catalogue"));
    }
    let Limit { workload, argument, metric, maximum, words } = limit;
    let found = finding.workloads.iter().find(|known| known.id == workload);
    let Some(Subject { id, generation, .. }) = found else {
        return Err(format!("{workload} does not run here any more"));
    };
    let target = || Target { kind: SubjectKind::Workload, id: id.clone(), generation: *generation };
    let condition = |metric: &str, minimum, maximum| Condition {
        metric: metric.into(),
        target: target(),
        minimum,
        maximum,
        fresh_within: FRESH_MS,
    };
    Ok(Proposal {
        title: format!("Limit {id} on {} to {words}", finding.subject.id),
        rationale: format!("{} It goes on, within {words}; the others have the rest.", finding.risk.reason),
        steps: vec![Step {
            verb: LIMIT.into(),
            target: target(),
            arguments: vec![argument],
            preconditions: vec![],
            on_failure: OnFailure::Compensate,
        }],
        success: vec![condition(metric, None, Some(maximum)), condition("aether.workload.running", Some(1.0), None)],
        watch: config.watch_ms,
        // Before moving everybody else away, and sinking with every attempt that was in vain.
        confidence: 0.95 / f64::from(finding.attempts.saturating_add(1)),
    })
}

fn columns(evidence: &Observation, input: u32) -> impl Iterator<Item = &Column> {
    evidence.columns.iter().filter(move |column| column.input == input)
}

fn noisy<'a>(evidence: &'a Observation, config: &Config) -> Result<Limit<'a>, String> {
    let cpus = columns(evidence, input::CPUS).find_map(|column| series::last(&column.values));
    let cpus = cpus.filter(|cpus| *cpus >= 1.0).ok_or("how many processors the node has is not known")?;
    let wanted = |column: &&Column| series::last(&column.values).unwrap_or(0.0);
    let noisiest = columns(evidence, input::DEMAND)
        .filter(|column| attribute(column, "tier") == "best-effort")
        .max_by(|a, b| wanted(a).total_cmp(&wanted(b)));
    let workload = noisiest.map(|column| attribute(column, "workload")).ok_or("no best-effort workload is seen")?;
    let kept = (cpus * config.cpu_share).max(0.01);
    Ok(Limit {
        workload,
        argument: Argument { name: "cpus".into(), value: Value::Number(kept) },
        metric: "aether.workload.cpu.demand",
        maximum: config.cpu_share + SLACK,
        words: format!("{kept:.2} processors"),
    })
}

fn leak<'a>(evidence: &'a Observation, config: &Config) -> Result<Limit<'a>, String> {
    let unlimited = |column: &&Column| {
        let workload = attribute(column, "workload");
        let reach = columns(evidence, input::REACH).find(|reach| attribute(reach, "workload") == workload);
        reach.and_then(|reach| series::last(&reach.values)).is_some_and(|reach| reach >= REACH_MAXIMUM)
    };
    let grown = |column: &&Column| {
        let sampled = series::sampled(&column.values);
        sampled.last().unwrap_or(&0.0) - sampled.first().unwrap_or(&0.0)
    };
    let leaker = columns(evidence, input::MEMORY).filter(unlimited).max_by(|a, b| grown(a).total_cmp(&grown(b)));
    let leaker = leaker.ok_or("no workload without a limit is seen")?;
    let has = series::last(&leaker.values).unwrap_or(0.0);
    let limit = has + (config.memory_room_bytes as f64).max(has / 2.0);
    // Whole MiB, so that a person can read it.
    let mib = (limit / f64::from(1 << 20)).ceil();
    Ok(Limit {
        workload: attribute(leaker, "workload"),
        argument: Argument { name: "memory-max".into(), value: Value::Bytes(mib as u64 * (1 << 20)) },
        metric: "aether.workload.memory.reach",
        maximum: REACH_MAXIMUM,
        words: format!("{mib:.0} MiB of memory"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aether::plugin::types::{Attribute, Level, Risk, SafetyClass};

    fn subject(kind: SubjectKind, id: &str) -> Subject {
        Subject { kind, id: id.into(), generation: 4, labels: vec![] }
    }

    fn column(input: u32, workload: &str, tier: &str, values: &[f64]) -> Column {
        let attribute = |key: &str, value: &str| Attribute { key: key.into(), value: value.into() };
        let attributes = vec![attribute("workload", workload), attribute("tier", tier)];
        Column { input, attributes, start: 0, step: STEP_MS, values: values.to_vec() }
    }

    fn planned(cause: &str, columns: Vec<Column>) -> Result<Proposal, String> {
        let risk = Risk {
            level: Level::Critical,
            score: 0.9,
            confidence: 0.9,
            horizon: None,
            cause: cause.into(),
            reason: "One harms the others.".into(),
            contributions: vec![],
        };
        let finding = Finding {
            id: "finding-1".into(),
            subject: subject(SubjectKind::Node, "node-a"),
            risk,
            first_seen: 0,
            recurrences: 0,
            attempts: 0,
            workloads: vec![subject(SubjectKind::Workload, "trainer"), subject(SubjectKind::Workload, "burner")],
        };
        let evidence =
            Observation { subject: subject(SubjectKind::Node, "node-a"), at: 60_000, columns, events: vec![] };
        let verb = Verb {
            name: LIMIT.into(),
            summary: String::new(),
            class: SafetyClass::Reversible,
            compensable: true,
            capability: None,
            arguments: vec![],
        };
        plan(&finding, &evidence, &[verb], &Config::default())
    }

    #[test]
    fn the_noisiest_keeps_its_share() {
        let proposal = planned(
            NOISY,
            vec![
                column(input::DEMAND, "trainer", "standard", &[0.99]),
                column(input::DEMAND, "burner", "best-effort", &[0.97]),
                column(input::CPUS, "", "", &[8.0]),
            ],
        )
        .unwrap();
        let step = &proposal.steps[0];
        assert_eq!((step.verb.as_str(), step.target.id.as_str(), step.target.generation), (LIMIT, "burner", 4));
        assert!(matches!(step.arguments[0].value, Value::Number(cpus) if cpus == 2.0));
        assert_eq!(proposal.success[0].maximum, Some(0.3));
        assert_eq!(proposal.title, "Limit burner on node-a to 2.00 processors");
    }

    #[test]
    fn the_one_that_leaks_without_a_limit_gets_one_above_what_it_has() {
        let mib = f64::from(1 << 20);
        let proposal = planned(
            LEAK,
            vec![
                column(input::MEMORY, "trainer", "standard", &[100.0 * mib, 900.0 * mib]),
                column(input::REACH, "trainer", "standard", &[0.3]),
                column(input::MEMORY, "burner", "standard", &[100.0 * mib, 300.0 * mib]),
                column(input::REACH, "burner", "standard", &[1.0]),
            ],
        )
        .unwrap();
        assert_eq!(proposal.steps[0].target.id, "burner");
        assert!(matches!(proposal.steps[0].arguments[0].value, Value::Bytes(bytes) if bytes == 812 << 20));
    }

    #[test]
    fn what_is_of_no_workload_is_left_to_others() {
        assert!(planned("spot.rebalance", vec![]).is_err());
        assert!(planned(NOISY, vec![]).is_err());
        assert!(planned(LEAK, vec![]).is_err());
        let stranger = vec![column(input::DEMAND, "gone", "best-effort", &[1.0]), column(input::CPUS, "", "", &[2.0])];
        assert_eq!(planned(NOISY, stranger).unwrap_err(), "gone does not run here any more");
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
