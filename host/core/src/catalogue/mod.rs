//! The verbs that exist, with their class, arguments and undoing. Owned by the host: a component can name a verb, it
//! cannot make one or lower its class.
//!
//! A *composite* verb is what planners speak of (`process.migrate`); [`crate::plan`] expands it into the *primitive*
//! verbs that agents carry out, so that an operator approves exactly what will be done. [`definitions`] is the table;
//! `docs/verbs.md` is written from it.

mod definitions;
mod document;
pub mod names;

pub use definitions::definitions;
pub use document::document;
pub use names::{argument, capability, evidence, fact, verb};

use crate::{
    policy::Runbook,
    subject::SubjectKind,
    value::{Value, ValueKind},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;
use utoipa::ToSchema;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SafetyClass {
    ReadOnly,
    Reversible,
    Impactful,
    Destructive,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ArgumentSpec {
    pub name: String,
    pub required: bool,
    pub kind: ValueKind,
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
    /// For text: the allowed values; empty means any.
    pub choices: Vec<String>,
}

/// What a planner is told of a verb.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Verb {
    pub name: String,
    pub summary: String,
    pub class: SafetyClass,
    /// Whether the host can undo it.
    pub compensable: bool,
    /// What an agent must be able to do; see [`capability`].
    pub capability: Option<String>,
    pub arguments: Vec<ArgumentSpec>,
}

/// Who may name a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// A planner; the plan holds the primitive steps that it stands for.
    Composite,
    /// A planner; one step of an agent.
    Proposable,
    /// Only a plan that was expanded from a composite verb, or the undoing of a step.
    Internal,
}

/// What a dry run of a verb is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DryRun {
    /// The agent reads what would be changed, checks it against the device's own bounds, and tells from what to what.
    Simulated,
    /// The agent checks every precondition; what the deed itself would do cannot be foretold.
    PreconditionChecked,
    /// Only the order is checked: nothing here can tell what the deed would do.
    NotSimulable,
}

impl DryRun {
    /// As in `docs/verbs.md`, outcomes and metrics.
    pub fn name(self) -> &'static str {
        match self {
            DryRun::Simulated => "simulated",
            DryRun::PreconditionChecked => "precondition-checked",
            DryRun::NotSimulable => "not-simulable",
        }
    }
}

/// All that the host and the agents know of a verb.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = VerbDefinition)]
pub struct Definition {
    #[serde(flatten)]
    pub verb: Verb,
    pub standing: Standing,
    /// What it is aimed at.
    pub target: SubjectKind,
    pub dry_run: DryRun,
    /// The verb that undoes it.
    pub undone_by: Option<String>,
    /// What must hold besides the plan's own conditions; checked by the agent right before.
    pub preconditions: Vec<String>,
    /// What must be seen for it to count as done.
    pub verified_by: String,
}

/// What planners are shown where these runbooks are: which there are, and what each takes.
pub fn catalogue_with(runbooks: &BTreeMap<String, Runbook>) -> Vec<Verb> {
    let mut all = catalogue();
    let run = all.iter_mut().find(|verb| verb.name == verb::RUNBOOK);
    if let Some(run) = run.filter(|_| !runbooks.is_empty()) {
        if let Some(name) = run.arguments.iter_mut().find(|spec| spec.name == argument::RUNBOOK) {
            name.choices = runbooks.keys().cloned().collect();
        }
        let own = runbooks.values().flat_map(Runbook::specs).map(|spec| ArgumentSpec { required: false, ..spec });
        for spec in own {
            if !run.arguments.contains(&spec) {
                run.arguments.push(spec);
            }
        }
    }
    all
}

/// What planners are shown, in order of name.
pub fn catalogue() -> Vec<Verb> {
    definitions().into_iter().map(|definition| definition.verb).collect()
}

/// Why a verb's arguments are refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ArgumentError {
    #[error("verb `{0}` is not in the catalogue")]
    UnknownVerb(String),
    #[error("`{verb}` needs the argument `{argument}`")]
    Missing { verb: String, argument: String },
    #[error("`{verb}` has no argument `{argument}`")]
    Unknown { verb: String, argument: String },
    #[error("`{argument}` of `{verb}` must be of kind {expected:?}, not {found:?}")]
    Kind { verb: String, argument: String, expected: ValueKind, found: ValueKind },
    #[error("`{argument}` of `{verb}` is out of bounds")]
    Bounds { verb: String, argument: String },
}

/// The verb called `name`.
pub fn find(name: &str) -> Result<Definition, ArgumentError> {
    let found = definitions().into_iter().find(|definition| definition.verb.name == name);
    found.ok_or_else(|| ArgumentError::UnknownVerb(name.into()))
}

impl Verb {
    /// Checks names, kinds and bounds.
    pub fn check(&self, arguments: &BTreeMap<String, Value>) -> Result<(), ArgumentError> {
        // A runbook's own are checked against the bundle, when the plan is made.
        let own = |name: &str, value: &Value| {
            [verb::RUNBOOK, verb::SCRIPT].contains(&self.name.as_str())
                && name.starts_with(argument::OF_RUNBOOK)
                && value.is_exact()
        };
        let rest = arguments.iter().filter(|(name, value)| !own(name, value));
        self.check_all(&rest.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    /// The same, with nothing left out.
    pub(crate) fn check_all(&self, arguments: &BTreeMap<String, Value>) -> Result<(), ArgumentError> {
        let verb = || self.name.clone();
        if let Some(spec) = self.arguments.iter().find(|spec| spec.required && !arguments.contains_key(&spec.name)) {
            return Err(ArgumentError::Missing { verb: verb(), argument: spec.name.clone() });
        }
        for (name, value) in arguments {
            let argument = || name.clone();
            let Some(spec) = self.arguments.iter().find(|spec| spec.name == *name) else {
                return Err(ArgumentError::Unknown { verb: verb(), argument: argument() });
            };
            if value.kind() != spec.kind {
                let (expected, found) = (spec.kind, value.kind());
                return Err(ArgumentError::Kind { verb: verb(), argument: argument(), expected, found });
            }
            let within = value.as_f64().is_none_or(|v| {
                spec.minimum.is_none_or(|minimum| v >= minimum) && spec.maximum.is_none_or(|maximum| v <= maximum)
            });
            let chosen = value.as_text().is_none_or(|v| spec.choices.is_empty() || spec.choices.iter().any(|c| c == v));
            if !within || !chosen || !value.is_exact() {
                return Err(ArgumentError::Bounds { verb: verb(), argument: argument() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{expect, expect_file};

    #[test]
    fn the_whole_catalogue() {
        let verbs = definitions();
        assert!(verbs.is_sorted_by(|a, b| a.verb.name < b.verb.name), "in order of name, each once");
        expect_file!["../../golden/catalogue.json"].assert_eq(&(serde_json::to_string_pretty(&verbs).unwrap() + "\n"));
        expect_file!["../../../../docs/verbs.md"].assert_eq(&document());
    }

    #[test]
    fn the_table_agrees_with_itself() {
        for Definition { verb, standing, undone_by, verified_by, dry_run, .. } in definitions() {
            let name = &verb.name;
            assert!(!verified_by.is_empty() && verified_by.ends_with('.'), "{name}");
            if standing != Standing::Composite {
                assert_eq!(verb.compensable, undone_by.is_some(), "{name}");
            }
            let undo = undone_by.map(|undo| find(&undo).unwrap_or_else(|error| panic!("{name}: {error}")));
            if let Some(undo) = undo {
                assert_ne!(undo.standing, Standing::Composite, "{name}");
                // An undoing takes nothing but its time: what it puts back is in the agent's journal.
                assert!(undo.verb.check(&BTreeMap::new()).is_ok(), "{name}");
            }
            // What cannot be foretold is never called harmless.
            assert!(dry_run != DryRun::NotSimulable || verb.class >= SafetyClass::Impactful, "{name}");
            let within =
                |spec: &ArgumentSpec| spec.minimum.is_none_or(|low| spec.maximum.is_some_and(|high| low < high));
            assert!(verb.arguments.iter().all(within), "{name}: each number has both bounds");
            for spec in &verb.arguments {
                let number = !matches!(spec.kind, ValueKind::Text | ValueKind::Flag);
                assert_eq!(spec.minimum.is_some(), number, "{name}: {}", spec.name);
            }
        }
    }

    #[test]
    fn arguments_are_checked_by_name_kind_and_bounds() {
        let check = |verb: &str, arguments: &[(&str, Value)]| {
            let arguments = arguments.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect();
            match find(verb).and_then(|found| found.verb.check(&arguments)) {
                Ok(()) => "fine".to_string(),
                Err(error) => error.to_string(),
            }
        };
        let to = || ("to", Value::Text("node-b".into()));
        let said = [
            check("process.migrate", &[to()]),
            check("process.migrate", &[to(), ("timeout", Value::Duration(1_000))]),
            check("process.migrate", &[to(), ("timeout", Value::Duration(900_000))]),
            check("process.migrate", &[]),
            check("process.migrate", &[to(), ("timeout", Value::Duration(999))]),
            check("process.migrate", &[to(), ("timeout", Value::Duration(900_001))]),
            check("process.migrate", &[to(), ("timeout", Value::Integer(5_000))]),
            check("process.migrate", &[to(), ("force", Value::Flag(true))]),
            check("process.restore", &[("checkpoint-step", Value::Integer(-1))]),
            check("process.restore", &[("checkpoint-step", Value::Integer(64))]),
            check("process.restore", &[("checkpoint-step", Value::Number(0.0))]),
            check("shell.run", &[]),
        ];
        expect![[r#"
            fine
            fine
            fine
            `process.migrate` needs the argument `to`
            `timeout` of `process.migrate` is out of bounds
            `timeout` of `process.migrate` is out of bounds
            `timeout` of `process.migrate` must be of kind Duration, not Integer
            `process.migrate` has no argument `force`
            `checkpoint-step` of `process.restore` is out of bounds
            `checkpoint-step` of `process.restore` is out of bounds
            `checkpoint-step` of `process.restore` must be of kind Integer, not Number
            verb `shell.run` is not in the catalogue"#]]
        .assert_eq(&said.join("\n"));
    }

    #[test]
    fn a_value_that_json_would_round_is_not_exact() {
        use crate::value::MAX_EXACT;
        for (value, exact) in [
            (Value::Integer(MAX_EXACT as i64), true),
            (Value::Integer(-(MAX_EXACT as i64)), true),
            (Value::Integer(MAX_EXACT as i64 + 1), false),
            (Value::Integer(i64::MIN), false),
            (Value::Bytes(MAX_EXACT), true),
            (Value::Duration(MAX_EXACT + 1), false),
            (Value::Number(f64::NAN), false),
            (Value::Number(f64::INFINITY), false),
            (Value::Number(1e300), true),
        ] {
            assert_eq!(value.is_exact(), exact, "{value:?}");
        }
    }
}
