//! From bytes to something that can be asked: load, describe, activate.

use crate::{
    Assets, Environment, WIT_VERSION,
    bindings::exports::aether::plugin::plugin,
    compile::{CompileError, Compiled, Kind},
    engine::{Engine, Inner, Lane},
    evaluate::{self, Evaluation},
    host::{Source, State},
    import::{self, Import},
    metric::{self, Figures},
    schema::Schema,
    snapshot::Preparation,
    verb::Verb,
};
use aether_core::{
    decision::{Description, Fault, FaultKind, HostCall, Limits, LogLine, Question, Role},
    id::{Digest, is_name},
    plan::canonical,
    slot::Grant,
};
use serde_json::{Map, Value};
use std::{collections::BTreeSet, fmt, sync::Arc};
use wasmtime::component::InstancePre;

/// Declared inputs of one component.
const INPUTS_MAX: usize = 256;

/// Why bytes are not a component that this host takes. Nothing was changed; what ran before goes on.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the component is {given} bytes, over the limit of {maximum}")]
    TooLarge { given: usize, maximum: usize },
    #[error(
        "this is not a WebAssembly file: it begins with {found}. Give the `.wasm` that the guest's build wrote, not its source or text form"
    )]
    NotWasm { found: String },
    #[error(
        "this is a core WebAssembly module, not a component: link it with `wasm-component-ld`, or wrap it with `wasm-tools component new`"
    )]
    CoreModule,
    #[error("the component is not well formed: {0}")]
    Malformed(String),
    #[error(
        "the component exports none of the worlds of aether:plugin@{WIT_VERSION} (risk-scorer, remediation-planner, policy-gate, router); it exports: {}",
        listed(.exports)
    )]
    UnknownWorld { exports: Vec<String> },
    #[error("the component exports more than one role ({}): split it, so that each can be granted and swapped alone", listed(.roles))]
    SeveralWorlds { roles: Vec<String> },
    #[error(
        "the component was built for aether:plugin@{found}, and this host speaks {WIT_VERSION}: build it again with this release's `wit/`"
    )]
    Version { found: String },
    #[error("the component exports `{role}` but not `aether:plugin/plugin@{WIT_VERSION}` (describe, configure)")]
    NoPlugin { role: String },
    #[error(
        "the component imports {}, which the world `{world}` does not grant. Granted: {}",
        listed(.refused),
        listed(.granted)
    )]
    Imports { world: &'static str, refused: Vec<String>, granted: Vec<String> },
    #[error(transparent)]
    Compile(CompileError),
    #[error("the component's exports do not have the types of the world `{world}`")]
    Types { world: &'static str, source: wasmtime::Error },
    #[error("the component failed when it was asked to describe itself: {}", .0.message)]
    Describe(Fault),
    #[error("the component describes itself wrongly: {0}")]
    Description(String),
}

impl LoadError {
    /// Stable, for tests, metrics and the API.
    pub fn code(&self) -> &'static str {
        match self {
            LoadError::TooLarge { .. } => "component.too-large",
            LoadError::NotWasm { .. } => "component.not-wasm",
            LoadError::CoreModule => "component.core-module",
            LoadError::Malformed(_) => "component.malformed",
            LoadError::UnknownWorld { .. } => "component.unknown-world",
            LoadError::SeveralWorlds { .. } => "component.several-worlds",
            LoadError::Version { .. } => "component.version",
            LoadError::NoPlugin { .. } => "component.no-plugin",
            LoadError::Imports { .. } => "component.imports",
            LoadError::Compile(error) => error.code(),
            LoadError::Types { .. } => "component.types",
            LoadError::Describe(_) => "component.describe",
            LoadError::Description(_) => "component.description",
        }
    }
}

/// Why a component does not take this configuration.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    #[error("the limit `{field}` is {given}, outside {least} to {maximum}")]
    Limit { field: &'static str, given: u64, least: u64, maximum: u64 },
    #[error(
        "`{component}` imports {}, which this entry was not granted. Grant it, or use a component that does without",
        .missing.iter().map(|grant| grant.name()).collect::<Vec<_>>().join(", ")
    )]
    Grants { component: String, missing: Vec<Grant> },
    #[error("`{component}` refuses its config: {message}")]
    Config { component: String, message: String },
    #[error("`{component}` failed while it took its config: {}", .fault.message)]
    Fault { component: String, fault: Fault },
    #[error("`{component}` took its config, and its snapshot could not be compiled just now: {source}")]
    Compile { component: String, source: CompileError },
}

impl ActivateError {
    /// Stable, for tests, metrics and the API.
    pub fn code(&self) -> &'static str {
        match self {
            ActivateError::Limit { .. } => "activate.limit",
            ActivateError::Grants { .. } => "activate.grants",
            ActivateError::Config { .. } => "activate.config",
            ActivateError::Fault { .. } => "activate.fault",
            ActivateError::Compile { .. } => "activate.compile",
        }
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

/// A loaded component: checked, compiled, and known by what it says of itself. Cheap to clone.
#[derive(Clone)]
pub struct Component(Arc<Loaded>);

pub(crate) struct Loaded {
    pub(crate) engine: Engine,
    pub(crate) digest: Digest,
    pub(crate) role: Role,
    pub(crate) description: Description,
    pub(crate) imports: BTreeSet<Grant>,
    pub(crate) bound: Lanes,
    pub(crate) figures: Figures,
    schema: Schema,
    /// As uploaded, for its snapshots; none where none can be taken.
    bytes: Result<Arc<[u8]>, String>,
}

/// The same code bound in each lane.
pub(crate) struct Lanes(Box<[Bound]>);

impl Lanes {
    fn new(inner: &Inner, role: Role, compiled: &[wasmtime::component::Component]) -> wasmtime::Result<Self> {
        inner
            .lanes
            .iter()
            .zip(compiled)
            .map(|(lane, compiled)| Bound::new(lane, role, compiled))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// By the number of the place's lane.
    pub(crate) fn of(&self, lane: usize) -> &Bound {
        &self.0[lane]
    }
}

/// Code with its imports linked and its exports found.
pub(crate) struct Bound {
    pub(crate) pre: InstancePre<State>,
    pub(crate) plugin: plugin::GuestIndices,
    pub(crate) verb: Verb,
}

impl Bound {
    fn new(lane: &Lane, role: Role, compiled: &wasmtime::component::Component) -> wasmtime::Result<Self> {
        let pre = lane.linker(role).instantiate_pre(compiled)?;
        let plugin = plugin::GuestIndices::new(&pre)?;
        let verb = Verb::new(&pre, role)?;
        Ok(Self { pre, plugin, verb })
    }
}

/// What bytes say of themselves before anything of them is compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    pub role: Role,
    /// In the component's order; all are granted by its world.
    pub imports: Vec<String>,
}

impl Inspected {
    pub(crate) fn of(engine: &Engine, bytes: &[u8]) -> Result<Self, LoadError> {
        let maximum = engine.0.settings.component_bytes;
        if bytes.len() > maximum {
            return Err(LoadError::TooLarge { given: bytes.len(), maximum });
        }
        let (imports, exports) = names(bytes)?;
        let role = role(&exports)?;
        let given = Grant::of(role);
        let is_refused = |name: &&String| match Import::of(name) {
            Import::Types => false,
            Import::Granted(grant) => !given.contains(&grant),
            Import::Unknown => true,
        };
        let refused: Vec<String> = imports.iter().filter(is_refused).cloned().collect();
        if !refused.is_empty() {
            let granted = given.into_iter().map(import::named).collect();
            return Err(LoadError::Imports { world: role.world(), refused, granted });
        }
        Ok(Self { role, imports })
    }
}

impl Component {
    pub(crate) fn load(engine: &Engine, bytes: &[u8]) -> Result<Self, LoadError> {
        let Inspected { role, imports } = Inspected::of(engine, bytes)?;
        let uses = imports.iter().filter_map(|name| Import::of(name).grant()).collect();
        let inner: &Inner = &engine.0;
        let Compiled { lanes, plain } = inner.compile(Kind::Uploaded, bytes).map_err(LoadError::Compile)?;
        let types = |source| LoadError::Types { world: role.world(), source };
        let bound = Lanes::new(inner, role, &lanes).map_err(types)?;
        let description = evaluate::describe(engine, &bound).map_err(LoadError::Describe)?.map_err(types)?;
        let schema = check(&description).map_err(LoadError::Description)?;
        let digest = Digest::of(bytes);
        Ok(Self(Arc::new(Loaded {
            engine: engine.clone(),
            figures: Figures::new(&digest, &description.name, role),
            digest,
            role,
            description,
            imports: uses,
            bound,
            schema,
            bytes: plain.map_or_else(|| Ok(bytes.into()), Err),
        })))
    }

    /// BLAKE3 of the bytes.
    pub fn digest(&self) -> &Digest {
        &self.0.digest
    }

    pub fn role(&self) -> Role {
        self.0.role
    }

    pub fn description(&self) -> &Description {
        &self.0.description
    }

    /// What it can call, which is more than it does: languages' runtimes import all that they might. Its world grants at least this, or it would not have been loaded.
    pub fn imports(&self) -> &BTreeSet<Grant> {
        &self.0.imports
    }

    /// Whether an entry with these grants can have this component: ungranted imports are named.
    pub fn check_grants(&self, granted: &BTreeSet<Grant>) -> Result<(), ActivateError> {
        let missing: Vec<Grant> = self.0.imports.difference(granted).copied().collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(ActivateError::Grants { component: self.0.description.name.clone(), missing })
    }

    /// Gives the component its configuration, limits and assets, once, and makes it ready to be asked. The config is
    /// checked against the component's schema, then by the component itself; then its instance is snapshotted, so that
    /// no evaluation does it again. Takes as long as a compilation where the snapshot was not compiled before.
    pub fn activate(
        &self,
        config: &Map<String, Value>,
        limits: &Limits,
        assets: &Assets,
    ) -> Result<Prepared, ActivateError> {
        check_limits(limits)?;
        let loaded = &self.0;
        let component = || loaded.description.name.clone();
        let value = Value::Object(config.clone());
        loaded.schema.check(&value).map_err(|message| ActivateError::Config { component: component(), message })?;
        let config = String::from_utf8_lossy(&canonical(config)).into_owned();
        let bytes = loaded.bytes.as_deref().map_err(String::as_str);
        let config_digest = Digest::of(config.as_bytes());
        let set = assets.digest().map_or("none", |digest| &digest.0);
        let seed: Arc<str> = format!("{} {config_digest} {set}", loaded.digest).into();
        let (configured, snapshot) = evaluate::configure(loaded, &config, &seed, limits, assets, bytes)
            .map_err(|fault| ActivateError::Fault { component: component(), fault })?
            .map_err(|message| ActivateError::Config { component: component(), message })?;
        let inner: &Inner = &loaded.engine.0;
        let (snapshot, preparation) = match snapshot.map(|bytes| (inner.compile(Kind::Snapshot, &bytes), bytes)) {
            Ok((Ok(Compiled { lanes, .. }), bytes)) => match Lanes::new(inner, loaded.role, &lanes) {
                Ok(bound) => (Some(bound), Preparation::Snapshotted { digest: Digest::of(&bytes), bytes: bytes.len() }),
                Err(error) => (None, Preparation::ConfiguredEachTime { reason: format!("its snapshot: {error:#}") }),
            },
            Ok((Err(source), _)) if source.is_passing() => {
                return Err(ActivateError::Compile { component: component(), source });
            }
            Ok((Err(error), _)) => (None, Preparation::ConfiguredEachTime { reason: format!("its snapshot: {error}") }),
            Err(reason) => (None, Preparation::ConfiguredEachTime { reason }),
        };
        let label = if snapshot.is_some() { "snapshotted" } else { "configured-each-time" };
        metrics::counter!(metric::ACTIVATIONS, "preparation" => label).increment(1);
        if let Preparation::ConfiguredEachTime { reason } = &preparation {
            if configured.fuel > limits.fuel {
                let message = format!(
                    "taking its config used {} fuel, over the entry's limit of {}, and would be done in each evaluation: {reason}",
                    configured.fuel, limits.fuel
                );
                let fault = Fault { kind: FaultKind::OutOfFuel, message };
                return Err(ActivateError::Fault { component: component(), fault });
            }
            tracing::info!(
                component = component(),
                reason,
                "configured in each evaluation, because no snapshot can be taken"
            );
        }
        Ok(Prepared(Arc::new(Active {
            loaded: Arc::clone(loaded),
            config_digest,
            config,
            seed,
            limits: limits.clone(),
            assets: assets.clone(),
            configured,
            preparation,
            snapshot,
        })))
    }
}

/// A component with its configuration and limits, ready to be asked from any number of threads.
#[derive(Clone)]
pub struct Prepared(pub(crate) Arc<Active>);

/// What taking its config cost a component, once. The same on every run.
#[derive(Clone, Debug, PartialEq)]
pub struct Configured {
    pub fuel: u64,
    pub memory_bytes: u64,
    pub log: Vec<LogLine>,
    pub host_calls: Vec<HostCall>,
}

pub(crate) struct Active {
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) config: String,
    pub(crate) config_digest: Digest,
    /// What randomness is drawn from while it takes its config: the digests of component, config and assets.
    pub(crate) seed: Arc<str>,
    pub(crate) limits: Limits,
    pub(crate) assets: Assets,
    configured: Configured,
    preparation: Preparation,
    /// None: each evaluation configures an instance of what was loaded.
    pub(crate) snapshot: Option<Lanes>,
}

impl Prepared {
    /// Asks the component in a fresh store. Blocks for at most the pool's wait and the deadline.
    pub fn evaluate(&self, question: &Question, environment: Environment) -> Evaluation {
        evaluate::evaluate(&self.0, &self.0.limits, question, Source::Live(environment)).0
    }

    pub fn component(&self) -> Component {
        Component(Arc::clone(&self.0.loaded))
    }

    pub fn digest(&self) -> &Digest {
        &self.0.loaded.digest
    }

    pub fn role(&self) -> Role {
        self.0.loaded.role
    }

    pub fn description(&self) -> &Description {
        &self.0.loaded.description
    }

    /// BLAKE3 of the canonical JSON (RFC 8785) of the config.
    pub fn config_digest(&self) -> &Digest {
        &self.0.config_digest
    }

    /// The set of its assets; none: it has none.
    pub fn assets_digest(&self) -> Option<&Digest> {
        self.0.assets.digest()
    }

    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Whether evaluations begin from a snapshot, or why not.
    pub fn preparation(&self) -> &Preparation {
        &self.0.preparation
    }

    /// What taking its config cost.
    pub fn configured(&self) -> &Configured {
        &self.0.configured
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Description { name, version, .. } = self.description();
        write!(f, "Component({name} {version}, {})", self.digest().short())
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Description { name, version, .. } = self.description();
        write!(f, "Prepared({name} {version}, {}, config {})", self.digest().short(), self.config_digest().short())
    }
}

/// Names of all imports and exports of a component, read without compiling it.
fn names(bytes: &[u8]) -> Result<(Vec<String>, Vec<String>), LoadError> {
    use wasmparser::{Encoding, Parser, Payload};
    if !bytes.starts_with(b"\0asm") {
        let found = match bytes.get(..4.min(bytes.len())) {
            None | Some([]) => "nothing".to_owned(),
            Some(start) => format!("`{}`", start.escape_ascii()),
        };
        return Err(LoadError::NotWasm { found });
    }
    let malformed = |error: wasmparser::BinaryReaderError| LoadError::Malformed(error.to_string());
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut depth = 0u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(malformed)? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => return Err(LoadError::CoreModule),
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import.map_err(malformed)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export.map_err(malformed)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

/// Which world these exports make.
fn role(exports: &[String]) -> Result<Role, LoadError> {
    let interface = |role: Role| match role {
        Role::RiskScorer => "scoring",
        Role::RemediationPlanner => "planning",
        Role::PolicyGate => "gating",
        Role::Router => "routing",
    };
    let mut found = Vec::new();
    let mut names = BTreeSet::new();
    for export in exports {
        let Some((name, version)) = export.strip_prefix("aether:plugin/").and_then(|rest| rest.split_once('@')) else {
            continue;
        };
        if version != WIT_VERSION {
            return Err(LoadError::Version { found: version.to_owned() });
        }
        names.insert(name);
        found.extend(Role::ALL.into_iter().filter(|role| interface(*role) == name));
    }
    match found[..] {
        [] => Err(LoadError::UnknownWorld { exports: exports.to_vec() }),
        [role] if names.contains("plugin") => Ok(role),
        [role] => Err(LoadError::NoPlugin { role: role.world().to_owned() }),
        _ => Err(LoadError::SeveralWorlds { roles: found.iter().map(|role| role.world().to_owned()).collect() }),
    }
}

fn check(description: &Description) -> Result<Schema, String> {
    let Description { name, version, summary, inputs, config_schema } = description;
    if !is_name(name) {
        return Err(format!("its name `{name}` is not 1 to 63 of `a-z 0-9 - .`"));
    }
    if version.is_empty() || version.len() > 64 {
        return Err("its version is not 1 to 64 bytes".into());
    }
    if summary.len() > 1_024 {
        return Err("its summary is over 1,024 bytes".into());
    }
    if inputs.len() > INPUTS_MAX {
        return Err(format!("it declares {} inputs, over the limit of {INPUTS_MAX}", inputs.len()));
    }
    for input in inputs {
        evaluate::check_input(input)?;
    }
    Schema::parse(config_schema)
}

fn check_limits(limits: &Limits) -> Result<(), ActivateError> {
    let Limits { fuel, deadline_ms, memory_bytes, output_bytes, log_lines, log_line_bytes, host_calls } = limits;
    let maximum = Limits::MAXIMUM;
    for (field, least, given, maximum) in [
        ("fuel", 1, *fuel, maximum.fuel),
        ("deadline_ms", 1, *deadline_ms, maximum.deadline_ms),
        ("memory_bytes", 1, *memory_bytes, maximum.memory_bytes),
        ("output_bytes", 1, *output_bytes, maximum.output_bytes),
        ("log_lines", 0, u64::from(*log_lines), u64::from(maximum.log_lines)),
        ("log_line_bytes", 0, u64::from(*log_line_bytes), u64::from(maximum.log_line_bytes)),
        ("host_calls", 0, u64::from(*host_calls), u64::from(maximum.host_calls)),
    ] {
        if given < least || given > maximum {
            return Err(ActivateError::Limit { field, given, least, maximum });
        }
    }
    Ok(())
}
