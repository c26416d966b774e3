//! The verbs that exist, with their class, arguments and undoing. Owned by the host: a component can name a verb, it
//! cannot make one or lower its class.
//!
//! A *composite* verb is what planners speak of (`process.migrate`); [`crate::plan`] expands it into the *primitive*
//! verbs that agents carry out, so that an operator approves exactly what will be done.

use crate::value::{Value, ValueKind};
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

/// Names of verbs.
pub mod verb {
    pub const CHECKPOINT: &str = "process.checkpoint";
    pub const RESTORE: &str = "process.restore";
    pub const CONFIRM: &str = "process.confirm";
    pub const RETIRE: &str = "process.retire";
    pub const RESUME: &str = "process.resume";
    pub const DISCARD: &str = "process.discard";
    pub const MIGRATE: &str = "process.migrate";
}

/// Names of agents' capabilities.
pub mod capability {
    pub const CHECKPOINT: &str = "process.checkpoint";
    pub const RESTORE: &str = "process.restore";
}

/// Argument names.
pub mod argument {
    /// Text: the node to which a workload goes.
    pub const TO: &str = "to";
    /// Integer: the index of the plan's step that took the snapshot.
    pub const CHECKPOINT_STEP: &str = "checkpoint-step";
    /// Duration: how long a step may take before it counts as unknown.
    pub const TIMEOUT: &str = "timeout";
}

/// The whole catalogue, in order of name.
pub fn catalogue() -> Vec<Verb> {
    let timeout = |maximum: f64| ArgumentSpec {
        name: argument::TIMEOUT.into(),
        required: false,
        kind: ValueKind::Duration,
        minimum: Some(1_000.0),
        maximum: Some(maximum),
        choices: vec![],
    };
    let checkpoint_step = ArgumentSpec {
        name: argument::CHECKPOINT_STEP.into(),
        required: true,
        kind: ValueKind::Integer,
        minimum: Some(0.0),
        maximum: Some(63.0),
        choices: vec![],
    };
    let to = ArgumentSpec {
        name: argument::TO.into(),
        required: true,
        kind: ValueKind::Text,
        minimum: None,
        maximum: None,
        choices: vec![],
    };
    let verb = |name: &str, summary: &str, class, compensable, capability: Option<&str>, arguments| Verb {
        name: name.into(),
        summary: summary.into(),
        class,
        compensable,
        capability: capability.map(Into::into),
        arguments,
    };
    vec![
        verb(
            verb::CHECKPOINT,
            "Dump a workload's process tree with CRIU, store it in hashed chunks, and leave the source stopped.",
            SafetyClass::Reversible,
            true,
            Some(capability::CHECKPOINT),
            vec![timeout(900_000.0)],
        ),
        verb(
            verb::CONFIRM,
            "Wait until the restored workload has made progress beyond its snapshot.",
            SafetyClass::ReadOnly,
            false,
            None,
            vec![checkpoint_step.clone(), timeout(300_000.0)],
        ),
        verb(
            verb::DISCARD,
            "End a restored copy, so that the source can go on. Undoes process.restore.",
            SafetyClass::Destructive,
            false,
            None,
            vec![timeout(300_000.0)],
        ),
        verb(
            verb::MIGRATE,
            "Move a workload to another node: checkpoint, restore, confirm progress, and only then retire the source.",
            SafetyClass::Impactful,
            true,
            Some(capability::CHECKPOINT),
            vec![to, timeout(900_000.0)],
        ),
        verb(
            verb::RESTORE,
            "Verify a snapshot chunk by chunk and restore it with CRIU.",
            SafetyClass::Impactful,
            true,
            Some(capability::RESTORE),
            vec![checkpoint_step, timeout(900_000.0)],
        ),
        verb(
            verb::RESUME,
            "Let a stopped source go on. Undoes process.checkpoint.",
            SafetyClass::Reversible,
            false,
            None,
            vec![timeout(300_000.0)],
        ),
        verb(
            verb::RETIRE,
            "End the stopped source of a migration whose copy is known to progress.",
            SafetyClass::Destructive,
            false,
            None,
            vec![timeout(300_000.0)],
        ),
    ]
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
pub fn find(name: &str) -> Result<Verb, ArgumentError> {
    catalogue().into_iter().find(|verb| verb.name == name).ok_or_else(|| ArgumentError::UnknownVerb(name.into()))
}

impl Verb {
    /// Checks names, kinds and bounds.
    pub fn check(&self, arguments: &BTreeMap<String, Value>) -> Result<(), ArgumentError> {
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
        let verbs = catalogue();
        assert!(verbs.is_sorted_by(|a, b| a.name < b.name), "in order of name, each once");
        expect_file!["../golden/catalogue.json"].assert_eq(&(serde_json::to_string_pretty(&verbs).unwrap() + "\n"));
    }

    #[test]
    fn arguments_are_checked_by_name_kind_and_bounds() {
        let check = |verb: &str, arguments: &[(&str, Value)]| {
            let arguments = arguments.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect();
            match find(verb).and_then(|verb| verb.check(&arguments)) {
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
