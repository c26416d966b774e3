//! The pure heart of Aether: the documents that outlive a process, the incident kernel, the safety rules.
//!
//! Nothing here waits, talks, reads a clock or draws a random number: time and ids come in from outside, and what
//! must happen outside goes out as data ([`incident::Effect`]). So the same code runs live, in a drill, in a dry run,
//! in a backtest and in a simulator, and a journal folded twice gives the same state.
//!
//! Deliberately absent: any runtime, database, socket or WebAssembly engine (a test on the dependency tree holds it).

pub mod artifact;
pub mod audit;
pub mod backtest;
pub mod breaker;
pub mod catalogue;
pub mod combine;
pub mod decision;
pub mod drill;
pub mod finding;
pub mod guard;
pub mod id;
pub mod incident;
pub mod metric;
pub mod observation;
pub mod order;
pub mod plan;
pub mod policy;
pub mod signal;
pub mod slot;
pub mod snapshot;
pub mod subject;
pub mod telemetry;
pub mod time;
pub mod value;
