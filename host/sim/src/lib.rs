//! The simulation: the real core, driver, ledger, fabric, agents and their journals under one virtual clock, with
//! faults drawn from a seed, and checkers that know what the machines really executed.
//!
//! ```text
//! fleet (the one loop) --turns--> islands: hosts (control, fabric, store, recorder), agents (uplink, desk, journal)
//!                                    |  frames                                   | orders carried out
//!                                    v                                           v
//!                      faults --> net                                         machine (the world) --> check
//! ```
//! What is not real: the components that decide ([`minds`]), the processes ([`machine`]), people ([`people`]), the
//! network ([`net`]) and time ([`island`]). Everything between them is the code that ships.
//!
//! The same seed takes the same path, so a failure is a number.

#![allow(clippy::missing_errors_doc, reason = "a tool of this project's own")]

mod check;
mod dice;
mod faults;
mod fleet;
mod host;
mod island;
mod machine;
mod minds;
mod mutations;
mod net;
mod node;
mod people;
mod shared;

pub use faults::{Counts, DEATHS, Fault};
pub use fleet::{Report, run, run_with};
pub use shared::Mutation;

use aether_core::time::Time;

/// Where virtual time begins: 2026-11-21T02:00:00Z.
const START: Time = Time(1_795_226_400_000);
/// Islands take turns of this length, and no frame is faster.
const QUANTUM_MS: u64 = 100;
