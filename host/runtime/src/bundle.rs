//! Policy bundles on disk: reading `policy.toml`, activating what it names, and running its fixtures.
//!
//! A bundle is a folder with `policy.toml` and `fixtures/*.json`; the components lie in a folder of their own as
//! `<name>.wasm`. An entry that cannot be activated is told and leaves the rest alone. Which bundle is active, and what
//! becomes of answers, is decided elsewhere.

use crate::{
    Assets, AssetsError, Component, Engine, LoadError, Prepared,
    fixture::{self, Checked, FixtureResult},
    text,
};
use aether_core::{
    combine::CombiningRule,
    decision::{Question, Role},
    id::{Digest, SlotId, is_name},
    plan::canonical,
    policy::{self, Bundle},
    slot::OutOfRange,
};
use cap_std::{ambient_authority, fs::Dir};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fmt,
    io::Read as _,
    path::{Path, PathBuf},
};

/// The largest `policy.toml`.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a bundle cannot be used at all. What was active stays active.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is over the limit of {FILE_BYTES_MAX} bytes")]
    TooLarge { path: PathBuf },
    #[error("{path} is not a valid policy:\n{message}")]
    Policy { path: PathBuf, message: String },
    #[error("{path}: the slot `{slot}` is for {role} and cannot combine by `{rule}`; use `{fitting}`")]
    Rule { path: PathBuf, slot: SlotId, role: &'static str, rule: &'static str, fitting: &'static str },
    #[error("{path}: the slot `{slot}` names the component `{component}`, which is not 1 to 63 of `a-z 0-9 - .`")]
    Name { path: PathBuf, slot: SlotId, component: String },
    #[error("{path}: the slot `{slot}` has a budget that makes no sense")]
    Budget { path: PathBuf, slot: SlotId, source: OutOfRange },
    #[error(transparent)]
    Fixtures(#[from] fixture::Error),
}

impl Error {
    /// Stable, for tests and the API.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Read { .. } => "policy.unreadable",
            Error::TooLarge { .. } => "policy.too-large",
            Error::Policy { .. } => "policy.invalid",
            Error::Rule { .. } => "policy.rule",
            Error::Name { .. } => "policy.name",
            Error::Budget { .. } => "policy.budget",
            Error::Fixtures(error) => error.code(),
        }
    }
}

/// A bundle with all that could be activated of it.
#[derive(Clone, Debug)]
pub struct Activation {
    /// As read, with the digest of every component that was found.
    pub bundle: Bundle,
    /// BLAKE3 of the canonical JSON of `bundle`: what a plan names as the policy it was made under.
    pub digest: Digest,
    /// In order of id.
    pub slots: Vec<ActiveSlot>,
    pub failures: Vec<Failure>,
}

#[derive(Clone, Debug)]
pub struct ActiveSlot {
    pub id: SlotId,
    pub role: Role,
    pub rule: CombiningRule,
    /// In the bundle's order; without those that failed.
    pub entries: Vec<ActiveEntry>,
}

#[derive(Clone, Debug)]
pub struct ActiveEntry {
    /// The component's file name without `.wasm`.
    pub component: String,
    /// As declared, with the digest that was found.
    pub declared: policy::Entry,
    pub prepared: Prepared,
}

/// An entry that could not be activated. The rest of its slot stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub slot: SlotId,
    pub component: String,
    /// Stable, such as `component.missing`.
    pub code: &'static str,
    /// For a person, with its causes.
    pub reason: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot `{}`, component `{}`: {} ({})", self.slot, self.component, self.reason, self.code)
    }
}

/// Reads and checks `folder/policy.toml`.
pub fn read(folder: &Path) -> Result<Bundle, Error> {
    let path = folder.join("policy.toml");
    let text = read_text(&path)?;
    let bundle: Bundle =
        toml::from_str(&text).map_err(|error| Error::Policy { path: path.clone(), message: error.to_string() })?;
    for (slot, declared) in &bundle.slots {
        let fitting = fitting_rule(declared.role);
        if declared.rule != fitting {
            let (rule, fitting) = (rule_name(declared.rule), rule_name(fitting));
            return Err(Error::Rule { path, slot: slot.clone(), role: declared.role.world(), rule, fitting });
        }
        if let Some(entry) = declared.entries.iter().find(|entry| !is_name(&entry.component)) {
            return Err(Error::Name { path, slot: slot.clone(), component: entry.component.clone() });
        }
        if let Err(source) = declared.budget.check() {
            return Err(Error::Budget { path, slot: slot.clone(), source });
        }
    }
    Ok(bundle)
}

/// Loads and activates every entry of `bundle`, which was read from `folder`, from `plugins`. Each component is loaded once, however often it stands.
pub fn activate(engine: &Engine, bundle: &Bundle, folder: &Path, plugins: &Path) -> Activation {
    let mut loaded: BTreeMap<String, Result<Component, Refusal>> = BTreeMap::new();
    let mut bundle = bundle.clone();
    let (mut slots, mut failures) = (Vec::new(), Vec::new());
    for (id, declared) in &mut bundle.slots {
        let mut entries = Vec::new();
        for entry in &mut declared.entries {
            let name = entry.component.clone();
            let component = loaded.entry(name.clone()).or_insert_with(|| load(engine, plugins, &name));
            let prepared = component
                .as_ref()
                .map_err(Clone::clone)
                .and_then(|found| prepare(found, declared.role, entry, &assets(folder, entry)?));
            match prepared {
                Ok(prepared) => {
                    entry.digest = Some(prepared.digest().clone());
                    entries.push(ActiveEntry { component: name, declared: entry.clone(), prepared });
                }
                Err((code, reason)) => {
                    failures.push(Failure { slot: id.clone(), component: name, code, reason });
                }
            }
        }
        slots.push(ActiveSlot { id: id.clone(), role: declared.role, rule: declared.rule, entries });
    }
    let digest = Digest::of(&canonical(&bundle));
    Activation { bundle, digest, slots, failures }
}

fn load(engine: &Engine, plugins: &Path, name: &str) -> Result<Component, Refusal> {
    let path = plugins.join(format!("{name}.wasm"));
    let missing = |error: std::io::Error| {
        let reason = format!("{} cannot be read: {error}. `make guests` builds the first-party ones", path.display());
        ("component.missing", reason)
    };
    let file = std::fs::File::open(&path).map_err(missing)?;
    let maximum = engine.0.settings.component_bytes;
    let mut bytes = Vec::new();
    // One byte more than is taken, so that a file that is too large is seen and never read whole.
    file.take(maximum as u64 + 1).read_to_end(&mut bytes).map_err(missing)?;
    engine.load(&bytes).map_err(|error: LoadError| (error.code(), chain(&error)))
}

/// Why an entry cannot stand: a stable code such as `component.role`, and a reason for a person with its causes.
pub type Refusal = (&'static str, String);

/// Gives a component what an entry of a slot for `role` declares.
pub fn prepare(component: &Component, role: Role, entry: &policy::Entry, assets: &Assets) -> Result<Prepared, Refusal> {
    if let Some(wanted) = &entry.digest
        && wanted != component.digest()
    {
        let reason = format!("the policy pins the digest {wanted}, and the file's is {}", component.digest());
        return Err(("component.digest", reason));
    }
    if component.role() != role {
        let reason = format!("it is a {}, and the slot is for a {}", component.role().world(), role.world());
        return Err(("component.role", reason));
    }
    component.activate(&entry.config, &entry.limits, assets).map_err(|error| (error.code(), chain(&error)))
}

/// The files that an entry of the bundle in `folder` declares as its assets: of a folder within, and of nothing outside.
pub fn assets(folder: &Path, entry: &policy::Entry) -> Result<Assets, Refusal> {
    let Some(name) = &entry.assets else { return Ok(Assets::default()) };
    let unreadable = |source| AssetsError::Read { name: name.clone(), source };
    Dir::open_ambient_dir(folder, ambient_authority())
        .and_then(|bundle| bundle.open_dir(name))
        .map_err(unreadable)
        .and_then(|found| Assets::read(&found))
        .map_err(|error| (error.code(), chain(&error)))
}

/// An error with its causes, for a person.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn fitting_rule(role: Role) -> CombiningRule {
    match role {
        Role::RiskScorer => CombiningRule::Max,
        Role::PolicyGate => CombiningRule::DenyOverrides,
        Role::RemediationPlanner | Role::Router => CombiningRule::Rank,
    }
}

fn rule_name(rule: CombiningRule) -> &'static str {
    match rule {
        CombiningRule::Max => "max",
        CombiningRule::DenyOverrides => "deny-overrides",
        CombiningRule::Rank => "rank",
    }
}

fn read_text(path: &Path) -> Result<String, Error> {
    text::read(path, FILE_BYTES_MAX)
        .map_err(|source| Error::Read { path: path.to_owned(), source })?
        .ok_or_else(|| Error::TooLarge { path: path.to_owned() })
}

/// One question with what must be in the answer: `fixtures/*.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    /// What it shows, for a person.
    summary: String,
    slot: SlotId,
    component: String,
    question: Question,
    /// A part of the answer as JSON; a fault is `{"fault": {"kind": .., "message": ..}}`.
    expect: Value,
}

/// What came of a bundle's fixtures.
#[derive(Clone, Debug)]
pub struct Report {
    pub bundle: String,
    pub digest: Digest,
    /// Entries that could not be activated; each is a failed test.
    pub failures: Vec<Failure>,
    /// In order of file name.
    pub fixtures: Vec<FixtureResult>,
}

impl Report {
    /// All activated, at least one fixture, and none with a problem.
    pub fn passed(&self) -> bool {
        self.failures.is_empty() && !self.fixtures.is_empty() && self.fixtures.iter().all(FixtureResult::passed)
    }

    /// As JSON, for `--json`.
    pub fn to_json(&self) -> Value {
        json!({
            "bundle": self.bundle,
            "digest": self.digest,
            "passed": self.passed(),
            "failures": self.failures.iter().map(|failure| json!({
                "slot": failure.slot, "component": failure.component, "code": failure.code, "reason": failure.reason,
            })).collect::<Vec<_>>(),
            "fixtures": self.fixtures.iter().map(FixtureResult::to_json).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "policy {} ({})", self.bundle, self.digest.short())?;
        for failure in &self.failures {
            writeln!(f, "  FAIL  {failure}")?;
        }
        for fixture in &self.fixtures {
            write!(f, "{fixture}")?;
        }
        let passed = self.fixtures.iter().filter(|fixture| fixture.passed()).count();
        write!(f, "{passed} of {} fixtures passed", self.fixtures.len())?;
        if self.fixtures.is_empty() {
            write!(f, "; a bundle without fixtures does not pass")?;
        }
        Ok(())
    }
}

/// Activates the bundle in `folder` with the components in `plugins`, and runs its fixtures, each twice.
pub fn test(engine: &Engine, folder: &Path, plugins: &Path) -> Result<Report, Error> {
    let bundle = read(folder)?;
    let activation = activate(engine, &bundle, folder, plugins);
    let fixtures = fixture::read_all::<Fixture>(&folder.join("fixtures"))?
        .into_iter()
        .map(|file| match file.parsed {
            Ok(fixture) => run(&activation, file.name, fixture),
            Err(problem) => FixtureResult::invalid(file.name, problem),
        })
        .collect();
    Ok(Report { bundle: bundle.name, digest: activation.digest, failures: activation.failures, fixtures })
}

/// Asks a component the questions that the bundle in `folder` has for one of its name in this slot, each twice.
pub fn self_test(folder: &Path, slot: &SlotId, prepared: &Prepared) -> Result<Vec<FixtureResult>, Error> {
    let read = fixture::read_all::<Fixture>(&folder.join("fixtures"))?;
    // What is no fixture is told where the bundle is tested; it says nothing of this component.
    let parsed = read.into_iter().filter_map(|file| Some((file.name, file.parsed.ok()?)));
    let ours = parsed.filter(|(_, fixture)| fixture.slot == *slot && fixture.component == prepared.description().name);
    Ok(ours.map(|(name, fixture)| ask(prepared, name, fixture)).collect())
}

fn run(activation: &Activation, name: String, fixture: Fixture) -> FixtureResult {
    let entries = activation.slots.iter().filter(|active| active.id == fixture.slot).flat_map(|active| &active.entries);
    let Some(entry) = entries.into_iter().find(|entry| entry.component == fixture.component) else {
        let problems = vec![format!("no component `{}` is active in the slot `{}`", fixture.component, fixture.slot)];
        return FixtureResult { name, summary: fixture.summary, problems, fuel: 0 };
    };
    ask(&entry.prepared, name, fixture)
}

fn ask(prepared: &Prepared, name: String, fixture: Fixture) -> FixtureResult {
    let Fixture { summary, slot: _, component: _, question, expect } = fixture;
    let Checked { problems, first } = fixture::check(prepared, &question, &expect);
    FixtureResult { name, summary, problems, fuel: first.fuel }
}
