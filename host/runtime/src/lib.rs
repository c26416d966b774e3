//! The only door to WebAssembly: load a component, limit it, ask it, record what it did, and run it again bit for bit.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use aether_runtime::{Assets, Engine, EngineSettings, Environment};
//! let engine = Engine::new(EngineSettings::default())?;
//! let component = engine.load(&std::fs::read("build/plugins/spot-risk.wasm")?)?;
//! let prepared = component.activate(&serde_json::Map::new(), &aether_core::decision::Limits::default(), &Assets::default())?;
//! # let question: aether_core::decision::Question = unimplemented!();
//! let evaluation = prepared.evaluate(&question, Environment::default());
//! # Ok(()) }
//! ```
//!
//! A component is compiled in a child process ([`Compiler::Child`]), configured once, and snapshotted. Every evaluation
//! gets a fresh store that begins at the snapshot, so nothing leaks from one decision to the next. Fuel is the semantic limit and
//! deterministic; a watchdog thread stops what fuel cannot see. Whatever a guest does ends as an answer or as a typed
//! [`Fault`](aether_core::decision::Fault), and the next evaluation is unharmed.
//!
//! Languages' runtimes get a virtual WASI whose every answer follows from the evaluation's time, the decision's id and
//! the assets.
//!
//! Deliberately absent: the machine's clock, randomness and files, a network, async. Calls block for at most the deadline; a server
//! makes them on a bounded pool of threads. Which component stands in which slot, and what becomes of an answer, is
//! decided elsewhere (`aether_core::combine`, the host's control driver).

mod assets;
#[doc(hidden)]
pub mod bench;
mod bindings;
pub mod bundle;
mod clock;
pub mod compile;
mod component;
mod convert;
mod engine;
mod evaluate;
pub mod fixture;
mod host;
mod import;
mod lane;
mod limit;
pub mod metric;
mod replay;
mod schema;
mod snapshot;
mod text;
mod verb;
mod wasi;

pub use assets::{Assets, AssetsError};
pub use compile::{CacheKey, CacheSettings, CompileError, CompileLimits, Compiler};
pub use component::{ActivateError, Component, Configured, Inspected, LoadError, Prepared};
pub use engine::{Engine, EngineSettings, Error};
pub use evaluate::Evaluation;
pub use host::{Environment, History};
pub use replay::{Replay, replay};
pub use snapshot::Preparation;

/// Version of `wit/aether.wit` that this host speaks.
pub const WIT_VERSION: &str = "0.1.0";

/// The engine whose fuel counts and floating-point results a recorded decision holds. Both may change between versions
/// of wasmtime, so a replay under another one says so rather than to report a difference that means nothing. The number
/// after the `+` is ours, raised when we count otherwise: since 1, fuel is of the question alone, without `configure`.
pub const ENGINE_VERSION: &str = "wasmtime 48.0.8+1";
