//! The incident kernel: `step(&mut Incident, now, &Event) -> Vec<Effect>`.
//!
//! One incident, one journal, one sequence of artifacts. State is rebuilt by folding the journal; an event and the
//! artifacts that it caused are committed together before any other effect is performed; [`Incident::pending`] names
//! the effects that were promised and not confirmed, which a restarted host performs again. That is safe because a
//! reservation and a dispatch are idempotent by their key.
//!
//! ```text
//! opened -> planning -> gating -> awaiting approval -> executing -> verifying -> closed
//!                                                          |
//!                                                          v
//!                                                    compensating ------------> closed (undone | stuck)
//! ```
//! The legal transitions are one match in `kernel`, shared by live running and recovery.

mod event;
mod kernel;
pub mod scrutiny;
mod state;
#[cfg(test)]
mod tests;

pub use event::{
    Context, Effect, Event, GateAnswer, GateContext, Opening, PlannerAnswer, Requested, Reservation, Rung, TimerKind,
    Tried,
};
pub use kernel::{ApprovalRefused, step};
pub use state::{Approval, CallOffRefused, Incident, Phase, Rank, Reading, Resolution, StepRecord, StepStage};
