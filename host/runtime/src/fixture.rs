//! Fixtures: a question with what must be in the answer, asked twice. A policy has them beside its `policy.toml`, a
//! plugin beside its source; what a file of either looks like is the reader's, and how an answer is compared is here.

use crate::{ActivateError, Assets, Component, Environment, Evaluation, Prepared, text};
use aether_core::{
    decision::{Limits, LogLine, Question, RoutingQuestion},
    time::Time,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

const FILE_BYTES_MAX: u64 = 1 << 20;
const FILES_MAX: usize = 1_000;

/// Why a folder's fixtures cannot be read. Nothing was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is over the limit of {FILE_BYTES_MAX} bytes")]
    TooLarge { path: PathBuf },
    #[error("{path} holds more than {FILES_MAX} fixtures")]
    TooMany { path: PathBuf },
}

impl Error {
    /// Stable, for tests and the API.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Read { .. } => "fixture.unreadable",
            Error::TooLarge { .. } => "fixture.too-large",
            Error::TooMany { .. } => "fixture.too-many",
        }
    }
}

/// One file of a folder of fixtures.
#[derive(Clone, Debug)]
pub struct File<T> {
    /// File name without `.json`.
    pub name: String,
    /// Error: what is wrong with it, for a person.
    pub parsed: Result<T, String>,
}

/// The `*.json` of `folder`, in order of name; none if there is no such folder. A file that is no fixture is told, and
/// the others stand.
pub fn read_all<T: DeserializeOwned>(folder: &Path) -> Result<Vec<File<T>>, Error> {
    let unreadable = |source| Error::Read { path: folder.to_owned(), source };
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
        if paths.len() > FILES_MAX {
            return Err(Error::TooMany { path: folder.to_owned() });
        }
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            match text::read(&path, FILE_BYTES_MAX) {
                Ok(Some(text)) => {
                    Ok(File { name, parsed: serde_json::from_str(&text).map_err(|error| error.to_string()) })
                }
                Ok(None) => Err(Error::TooLarge { path }),
                Err(source) => Err(Error::Read { path, source }),
            }
        })
        .collect()
}

/// What came of one fixture.
#[derive(Clone, Debug, PartialEq)]
pub struct FixtureResult {
    /// File name without `.json`.
    pub name: String,
    pub summary: String,
    /// Empty: passed.
    pub problems: Vec<String>,
    pub fuel: u64,
}

impl FixtureResult {
    /// A file that is no fixture.
    pub fn invalid(name: String, problem: String) -> Self {
        Self { name, summary: "is not a valid fixture".into(), problems: vec![problem], fuel: 0 }
    }

    pub fn passed(&self) -> bool {
        self.problems.is_empty()
    }

    /// As JSON, for `--json`.
    pub fn to_json(&self) -> Value {
        let FixtureResult { name, summary, problems, fuel } = self;
        json!({ "name": name, "summary": summary, "passed": self.passed(), "problems": problems, "fuel": fuel })
    }
}

impl fmt::Display for FixtureResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.passed() { "ok  " } else { "FAIL" };
        writeln!(f, "  {word}  {}: {}", self.name, self.summary)?;
        for problem in &self.problems {
            writeln!(f, "        {problem}")?;
        }
        Ok(())
    }
}

/// A fixture of one component, without a slot: what a plugin's own folder holds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows, for a person.
    pub summary: String,
    /// Laid over the config that the case is asked with, field by field.
    #[serde(default)]
    pub config: Map<String, Value>,
    pub question: Question,
    /// A part of the answer as JSON. A fault is `{"fault": {"kind": .., "message": ..}}`; a config that is refused is
    /// `{"activation": {"code": .., "message": ..}}`.
    pub expect: Value,
    /// All lines that it logs; absent: whatever it logs will do.
    #[serde(default)]
    pub log: Option<Vec<LogLine>>,
}

/// A component as its cases want it, activated once for each config: that is the costly part, and most share one.
#[derive(Debug)]
pub struct Activations {
    component: Component,
    /// What holds for all cases.
    config: Map<String, Value>,
    limits: Limits,
    assets: Assets,
    by_config: BTreeMap<String, Result<Prepared, ActivateError>>,
}

impl Activations {
    pub fn new(component: Component, config: Map<String, Value>, limits: Limits, assets: Assets) -> Self {
        Self { component, config, limits, assets, by_config: BTreeMap::new() }
    }

    /// As `case` wants it.
    pub fn of(&mut self, case: &Case) -> &Result<Prepared, ActivateError> {
        let mut config = self.config.clone();
        config.extend(case.config.clone());
        self.by_config
            .entry(json!(config).to_string())
            .or_insert_with(|| self.component.activate(&config, &self.limits, &self.assets))
    }
}

impl Case {
    /// Asks the component that [`Activations`] gave, and compares.
    pub fn run(&self, name: String, activated: &Result<Prepared, ActivateError>) -> FixtureResult {
        let (problems, fuel) = match activated {
            Err(error) => {
                let found = json!({ "activation": { "code": error.code(), "message": error.to_string() } });
                let mut problems = Vec::new();
                compare("", &self.expect, &found, &mut problems);
                (problems, 0)
            }
            Ok(prepared) => {
                let Checked { mut problems, first } = check(prepared, &self.question, &self.expect);
                if let Some(expected) = &self.log
                    && *expected != first.log
                {
                    compare("log", &json!(expected), &json!(first.log), &mut problems);
                }
                (problems, first.fuel)
            }
        };
        FixtureResult { name, summary: self.summary.clone(), problems, fuel }
    }
}

/// What came of one question that was asked twice.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Where the answer is not as expected, or not the same both times. Empty: passed.
    pub problems: Vec<String>,
    pub first: Evaluation,
}

/// Asks `question` twice. `expect` is a part of the answer as JSON; a fault is
/// `{"fault": {"kind": .., "message": ..}}`.
pub fn check(prepared: &Prepared, question: &Question, expect: &Value) -> Checked {
    let first = prepared.evaluate(question, environment(question));
    let second = prepared.evaluate(question, environment(question));
    let found = outcome(&first);
    let mut problems = Vec::new();
    compare("", expect, &found, &mut problems);
    if found != outcome(&second) || first.log != second.log || first.fuel != second.fuel {
        problems.push(format!(
            "is not deterministic: the same question used {} and then {} fuel, or gave two answers",
            first.fuel, second.fuel
        ));
    }
    Checked { problems, first }
}

/// What a host would give along with this question: the time is the question's own.
pub fn environment(question: &Question) -> Environment {
    let at = match question {
        Question::Score(observation) => observation.at,
        Question::Plan { evidence, .. } => evidence.at,
        Question::Judge(question) => question.at,
        Question::Route(RoutingQuestion::Placement(placement)) => {
            placement.nodes.first().map_or(Time(0), |node| node.at)
        }
        Question::Route(RoutingQuestion::Message(_)) => Time(0),
    };
    Environment { at, seed: "fixture".into(), history: None }
}

fn outcome(evaluation: &Evaluation) -> Value {
    match &evaluation.outcome {
        Ok(answer) => serde_json::to_value(answer).unwrap_or(Value::Null),
        Err(fault) => json!({ "fault": fault }),
    }
}

/// Where `found` does not hold what is expected. Objects may hold more; lists must be as long; numbers may differ by a
/// billionth.
fn compare(path: &str, expected: &Value, found: &Value, problems: &mut Vec<String>) {
    let at = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (key, value) in expected {
                match found.get(key) {
                    Some(found) => compare(&at(key), value, found, problems),
                    None => problems.push(format!("{}: expected {value}, found nothing", at(key))),
                }
            }
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
                compare(&at(&index.to_string()), expected, found, problems);
            }
        }
        (Value::Number(a), Value::Number(b))
            if a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| (a - b).abs() <= 1e-9) => {}
        (expected, found) if expected == found => {}
        (expected, found) => {
            let place = if path.is_empty() { "the answer" } else { path };
            problems.push(format!("{place}: expected {expected}, found {found}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::compare;
    use serde_json::{Value, json};

    fn problems(expected: &Value, found: &Value) -> Vec<String> {
        let mut problems = Vec::new();
        compare("", expected, found, &mut problems);
        problems
    }

    #[test]
    fn a_part_of_the_answer_is_enough_and_a_difference_is_named() {
        let found = json!({"risk": {"level": "low", "score": 0.1, "list": [1, {"a": 2, "b": 3}]}});
        assert!(problems(&json!({"risk": {"level": "low", "list": [1, {"b": 3}]}}), &found).is_empty());
        assert!(problems(&json!({"risk": {"score": 0.100_000_000_000_1}}), &found).is_empty());
        assert_eq!(
            problems(&json!({"risk": {"level": "high", "cause": "x", "list": [1]}}), &found),
            [
                r#"risk.cause: expected "x", found nothing"#,
                r#"risk.level: expected "high", found "low""#,
                r#"risk.list: expected [1], found [1,{"a":2,"b":3}]"#,
            ]
        );
    }
}
