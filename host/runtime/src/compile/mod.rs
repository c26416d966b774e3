//! From bytes to code: instrumentation, validation and Cranelift, in a process of their own.
//!
//! A compiler is a large program that reads hostile input, so a host gives it to a child that has little time, little
//! memory and nothing to lose: see [`child`]. What comes back is kept in [`cache`], authenticated, so that no file that
//! somebody else wrote is ever run; [`artifact`] is the one place where machine code is taken for what it claims to be.

mod artifact;
mod cache;
mod child;

pub use cache::{CacheKey, CacheSettings};
pub use child::serve as serve_child;

use crate::{Error, engine::Lane, lane::Places, metric, snapshot};
use aether_core::id::Digest;
use artifact::Artifact;
use cache::Cache;
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    hash::{Hash as _, Hasher},
    path::PathBuf,
    time::Duration,
};
use wasmtime::component::Component;

/// Who turns a component's bytes into code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Compiler {
    /// This process, without limits: for tools and tests, which trust their bytes.
    #[default]
    InProcess,
    /// A child for each component, whose main is [`serve_child`].
    Child { program: PathBuf, arguments: Vec<OsString>, limits: CompileLimits },
}

impl Compiler {
    /// Limits within which a compiler can work at all, and a host is still its own.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let Compiler::Child { limits, .. } = self else { return Ok(()) };
        for (field, given, least, maximum) in [
            ("compile_cpu_s", u128::from(limits.cpu_s), 1, 3_600),
            ("compile_wall_s", u128::from(limits.wall.as_secs()), 1, 3_600),
            ("compile_memory_bytes", u128::from(limits.memory_bytes), 64 << 20, 64 << 30),
            ("compile_at_once", u128::from(limits.at_once), 1, 16),
        ] {
            if given < least || given > maximum {
                return Err(Error::Setting { field, given, least, maximum });
            }
        }
        Ok(())
    }
}

/// What one compilation may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// Of the processor, all threads together.
    pub cpu_s: u64,
    /// From start to end, the wait for a place not counted.
    pub wall: Duration,
    pub memory_bytes: u64,
    /// The largest code that is taken.
    pub artifact_bytes: u64,
    /// Compilations at one time; more wait, for as long as one may take.
    pub at_once: u32,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { cpu_s: 300, wall: Duration::from_secs(300), memory_bytes: 4 << 30, artifact_bytes: 1 << 30, at_once: 2 }
    }
}

/// Why there is no code. Whoever gave the component is told; nobody else is slower or poorer for it.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error("the component does not compile: {0}")]
    Refused(String),
    #[error(
        "compiling the component took longer than {seconds} s and was stopped; make it smaller, or raise the runtime's `compile_cpu_s` and `compile_wall_s`"
    )]
    Time { seconds: u64 },
    #[error(
        "compiling the component took more than {bytes} bytes of memory and was stopped; make it smaller, or raise the runtime's `compile_memory_bytes`"
    )]
    Memory { bytes: u64 },
    #[error("the component's code is over the limit of {bytes} bytes")]
    Size { bytes: u64 },
    #[error("the compiler ended before it was done: {0}")]
    Killed(String),
    #[error("no place to compile was free within {} s; nothing is wrong with the component: try again", .waited.as_secs())]
    Busy { waited: Duration },
    #[error("the compiler could not be started")]
    Unavailable(#[source] std::io::Error),
}

impl CompileError {
    /// Stable, for tests, metrics and the API.
    pub fn code(&self) -> &'static str {
        match self {
            CompileError::Refused(_) => "component.compile",
            CompileError::Time { .. } => "component.compile-time",
            CompileError::Memory { .. } => "component.compile-memory",
            CompileError::Size { .. } => "component.compile-size",
            CompileError::Killed(_) => "component.compile-killed",
            CompileError::Busy { .. } => "component.compile-busy",
            CompileError::Unavailable(_) => "component.compile-unavailable",
        }
    }

    /// Whether the same bytes may well compile another time.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, CompileError::Busy { .. } | CompileError::Unavailable(_))
    }
}

/// What is to be made of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// As uploaded: instrumented for a snapshot where that is possible.
    Uploaded,
    /// A snapshot that was taken of it; compiled as it is.
    Snapshot,
}

/// What a compilation says beside the code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    /// Why the code is not instrumented for a snapshot; none: it is.
    plain: Option<String>,
}

/// Code that can be linked.
pub(crate) struct Compiled {
    /// One for each lane, all on the same pages of code.
    pub(crate) lanes: Vec<Component>,
    /// Why no snapshot can be taken of its instances; none: it can.
    pub(crate) plain: Option<String>,
}

/// One engine's compiler: who does it, how many at once, and what was done before.
pub(crate) struct Workshop {
    compiler: Compiler,
    places: Places,
    cache: Option<Cache>,
    /// What all names in the cache have in common: this engine, with these settings.
    build: Digest,
}

impl Workshop {
    pub(crate) fn new(engine: &wasmtime::Engine, compiler: Compiler, cache: Option<CacheSettings>) -> Self {
        let limits = match &compiler {
            Compiler::InProcess => CompileLimits::default(),
            Compiler::Child { limits, .. } => limits.clone(),
        };
        let cache = cache.map(|settings| Cache::open(settings, limits.artifact_bytes));
        Self { compiler, places: Places::new(limits.at_once, limits.wall), cache, build: build(engine) }
    }

    /// Makes code of `bytes`, or takes what was made of them before. Blocks for as long as the limits allow.
    pub(crate) fn compile(
        &self,
        lanes: &[Lane],
        kind: Kind,
        bytes: &[u8],
        stack_bytes: usize,
    ) -> Result<Compiled, CompileError> {
        let name = self.cache.is_some().then(|| self.name(kind, bytes));
        if let (Some(cache), Some(name)) = (&self.cache, &name)
            && let Some((head, artifact)) = cache.get(name)
        {
            match artifact.link(lanes) {
                Ok(lanes) => return Ok(Compiled { lanes, plain: head.plain }),
                // Ours, and yet of no use: made by a build that differs in what the name does not tell.
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "a cached component does not fit; it is compiled anew"
                    );
                    cache.remove(name);
                }
            }
        }
        let begun = crate::clock::now();
        let made = self.make(lanes, kind, bytes, stack_bytes);
        let outcome = made.as_ref().err().map_or("ok", CompileError::code);
        metrics::counter!(metric::COMPILATIONS, "outcome" => outcome).increment(1);
        metrics::histogram!(metric::COMPILE_SECONDS)
            .record(crate::clock::now().saturating_duration_since(begun).as_secs_f64());
        let (head, artifact) = made?;
        let linked = artifact.link(lanes).map_err(|error| CompileError::Refused(format!("{error:#}")))?;
        if let (Some(cache), Some(name)) = (&self.cache, &name) {
            cache.put(name, &head, &artifact);
        }
        Ok(Compiled { lanes: linked, plain: head.plain })
    }

    fn make(
        &self,
        lanes: &[Lane],
        kind: Kind,
        bytes: &[u8],
        stack_bytes: usize,
    ) -> Result<(Head, Artifact), CompileError> {
        match &self.compiler {
            Compiler::InProcess => {
                let lane = lanes.first().ok_or_else(|| CompileError::Refused("there is no engine".into()))?;
                let (head, code) = work(&lane.engine, kind, bytes).map_err(CompileError::Refused)?;
                Ok((head, Artifact::compiled(code)))
            }
            Compiler::Child { program, arguments, limits } => {
                let Some(_place) = self.places.enter() else {
                    return Err(CompileError::Busy { waited: self.places.wait() });
                };
                child::compile(program, arguments, limits, kind, stack_bytes, bytes)
            }
        }
    }

    fn name(&self, kind: Kind, bytes: &[u8]) -> String {
        let kind = match kind {
            Kind::Uploaded => "uploaded",
            Kind::Snapshot => "snapshot",
        };
        let parts = [kind, &self.build.0, &Digest::of(bytes).0];
        Digest::of(parts.join("\n").as_bytes()).0
    }
}

/// The compiler's whole work, wherever it is done.
fn work(engine: &wasmtime::Engine, kind: Kind, bytes: &[u8]) -> Result<(Head, Vec<u8>), String> {
    let told = |error: wasmtime::Error| format!("{error:#}");
    let plain = match kind {
        Kind::Snapshot => None,
        Kind::Uploaded => match snapshot::instrument(bytes) {
            // What is added may be what is too much; the component itself is not to suffer for it.
            Ok(instrumented) => match engine.precompile_component(&instrumented) {
                Ok(code) => return Ok((Head::default(), code)),
                Err(error) => Some(format!("with what a snapshot needs it does not compile: {error:#}")),
            },
            Err(reason) => Some(reason),
        },
    };
    let code = engine.precompile_component(bytes).map_err(told)?;
    Ok((Head { plain }, code))
}

/// Engine, target, flags and features: code of one build is of use to the same build only.
fn build(engine: &wasmtime::Engine) -> Digest {
    struct Blake3(blake3::Hasher);
    impl Hasher for Blake3 {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut hasher = Blake3(blake3::Hasher::new());
    hasher.write(crate::ENGINE_VERSION.as_bytes());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    Digest::of(hasher.0.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::build;
    use crate::{EngineSettings, engine};

    /// The child compiles with an engine that has no pool; its code must fit the host's, which has one.
    #[test]
    fn code_of_the_child_fits_the_host() {
        let settings = EngineSettings::default();
        let host = wasmtime::Engine::new(&engine::config(1, settings.stack_bytes)).expect("an engine");
        let child = wasmtime::Engine::new(&engine::compile_only(settings.stack_bytes)).expect("an engine");
        assert_eq!(build(&host), build(&child));
    }
}
